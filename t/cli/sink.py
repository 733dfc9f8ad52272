"""
A server of three routes to try the CLI's import against: login, batch, and
nothing else.  It keeps readings by (source, source_id), as the real one
does, and answers what a test asks it to answer first.
"""

import http.server
import json
import threading


class Sink:
    def __init__(self):
        self.stored = {}
        self.requests = []          # (path, status)
        self.bodies = []
        self.first = []             # answers before the honest ones
        self.tokens = 0
        self.password = "a fine password"
        self.otp = None
        self.refuse = {}            # source_id -> (code, detail)
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, kind, answer, extra = sink.answer(self, body)
                sink.requests.append((self.path, status))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                for k, v in extra.items():
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(answer)

        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever,
                         daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def problem(self, status, code, **extra):
        return (status, "application/problem+json",
                json.dumps({"status": status, "code": code}).encode(), extra)

    def answer(self, request, body):
        if request.path == "/api/v1/auth/login":
            return self.login(json.loads(body))
        if request.path == "/api/v1/health-data/batch":
            return self.batch(request, body)
        return self.problem(404, "resource.not_found")

    def login(self, doc):
        assert doc["fingerprint"] is False
        if doc["password"] != self.password:
            return self.problem(401, "auth.invalid_credentials")
        if self.otp and "otp" not in doc:
            return self.problem(401, "auth.mfa_required")
        if self.otp and doc["otp"] != self.otp:
            return self.problem(401, "auth.mfa_invalid")
        self.tokens += 1
        return (200, "application/json", json.dumps(
            {"access_token": "t%d" % self.tokens}).encode(), {})

    def batch(self, request, body):
        if self.first:
            status, code, extra = self.first.pop(0)
            return self.problem(status, code, **extra)
        if request.headers["Authorization"] != "Bearer t%d" % self.tokens:
            return self.problem(401, "auth.token_expired")
        assert request.headers["Content-Type"] == "application/x-ndjson"
        self.bodies.append(body)
        out, counts = [], {201: 0, 200: 0, 422: 0}
        for index, line in enumerate(body.splitlines()):
            doc = json.loads(line)
            key = (doc["source"], doc.get("source_id", line))
            result = {"index": index, "status": 201, "id": str(index)}
            if doc.get("source_id") in self.refuse:
                code, detail = self.refuse[doc["source_id"]]
                result = {"index": index, "status": 422,
                          "code": "validation.failed", "errors": [
                              {"pointer": "/value", "code": code,
                               "detail": detail}]}
            elif key in self.stored:
                result["status"] = 200
            else:
                self.stored[key] = doc
            counts[result["status"]] += 1
            out.append(json.dumps(result))
        out.append(json.dumps({"total": len(out), "created": counts[201],
                               "duplicate": counts[200],
                               "failed": counts[422]}))
        return (200, "application/x-ndjson",
                ("\n".join(out) + "\n").encode(), {})
