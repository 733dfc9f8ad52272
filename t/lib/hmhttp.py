"""
An HTTP client that hides nothing.

Every answer is also held against the rules that go for all answers of the
API (request id, problem shape, no compression, security headers); what
breaks one is collected in SEEN and reported by one test at the end, so that
a single missing header does not turn every test red.

The retry rule is the project's: a close without a response byte on a reused
connection is retried once; any other loss is a loss.
"""

import http.client
import json
import os
import re
import socket
import ssl
import threading
import time

BASE = "/api/v1"

UUID_RE = re.compile(
    r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
TIME_RE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
RID_RE = re.compile(r"^[A-Za-z0-9._-]{1,64}$")

CODES = {
    400: {"request.malformed", "request.invalid_parameter",
          "request.invalid_cursor", "request.invalid_header"},
    401: {"auth.token_missing", "auth.token_invalid", "auth.token_expired",
          "auth.session_revoked", "auth.fingerprint_mismatch",
          "auth.invalid_credentials", "auth.mfa_required",
          "auth.mfa_invalid", "auth.refresh_invalid", "auth.refresh_reused",
          "auth.reauth_required"},
    403: {"access.denied", "access.consent_required",
          "access.break_glass_required", "analytics.cohort_too_small"},
    404: {"resource.not_found"},
    405: {"request.method_not_allowed"},
    409: {"auth.email_taken", "resource.conflict", "resource.not_ready",
          "idempotency.in_progress"},
    410: {"resource.expired"},
    412: {"resource.changed"},
    413: {"request.too_large"},
    414: {"request.uri_too_long"},
    415: {"request.media_type"},
    421: {"request.misdirected"},
    422: {"validation.failed", "idempotency.key_reused",
          "auth.fingerprint_needs_tls"},
    429: {"rate.limited", "auth.too_many_attempts"},
    500: {"server.error"},
    503: {"server.unavailable", "server.overloaded"},
    504: {"server.timeout"},
}

FAULTS = {"required", "unknown", "read_only", "immutable", "type", "format",
          "enum", "range", "integer", "length", "unit", "future", "order",
          "blocklisted"}

SEEN = {}                       # rule broken -> first request that broke it
SEEN_500 = []                   # every 500 anyone got


class Lost(Exception):
    """The answer was lost: closed or cut after the retry rule."""


class Resp:
    def __init__(self, status, headers, body, method, path):
        self.status = status
        self.raw_headers = headers
        self.body = body
        self.method = method
        self.path = path

    def header(self, name, default=None):
        name = name.lower()
        for k, v in self.raw_headers:
            if k.lower() == name:
                return v
        return default

    def headers(self, name):
        name = name.lower()
        return [v for k, v in self.raw_headers if k.lower() == name]

    @property
    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        ctype = (self.header("content-type") or "").split(";")[0]
        assert ctype in ("application/json", "application/problem+json"), \
            "%s: Content-Type %r" % (self, ctype)
        return json.loads(self.body.decode("utf-8"))

    @property
    def etag(self):
        return self.header("etag")

    @property
    def code(self):
        try:
            return json.loads(self.body).get("code")
        except (ValueError, AttributeError):
            return None

    def __repr__(self):
        return "<%s %s -> %d %s>" % (self.method, self.path[:160],
                                     self.status, self.body[:600])


def _broken(rule, resp):
    SEEN.setdefault(rule, repr(resp)[:500])


def check_common(r, asked_id=None):
    """The rules that go for every answer of the server."""
    h = {k.lower() for k, _ in r.raw_headers}

    if r.status == 500:
        SEEN_500.append(repr(r)[:400])

    rid = r.header("x-request-id")
    if rid is None or not RID_RE.match(rid):
        _broken("X-Request-ID missing or malformed (%s)" % r.status, r)
    if asked_id is not None and RID_RE.match(asked_id) and rid != asked_id:
        _broken("X-Request-ID not kept", r)
    for k, _ in r.raw_headers:
        if [x.lower() for x, _ in r.raw_headers].count(k.lower()) > 1 \
                and k.lower() in ("content-type", "content-length", "etag",
                                  "x-request-id", "cache-control",
                                  "x-content-type-options", "location"):
            _broken("header %s sent twice (%s)" % (k, r.status), r)
    if "content-encoding" in h:
        _broken("compressed answer", r)
    if (r.header("x-content-type-options") or "").lower() != "nosniff":
        _broken("X-Content-Type-Options: nosniff missing (%s)" % r.status, r)
    if "referrer-policy" not in h:
        _broken("Referrer-Policy missing (%s)" % r.status, r)
    if "x-frame-options" not in h and "frame-ancestors" not in (
            r.header("content-security-policy") or ""):
        _broken("no X-Frame-Options nor frame-ancestors (%s)" % r.status, r)
    if re.search(r"\d", r.header("server") or ""):
        _broken("Server header tells a version", r)
    if r.status == 204 and r.body:
        _broken("204 with a body", r)
    if r.status in (201, 202) and r.path.startswith(BASE + "/health-data") \
            and not r.header("location"):
        _broken("%d without Location" % r.status, r)
    loc = r.header("location")
    if loc is not None and not loc.startswith("/"):
        _broken("Location is not a path", r)
    et = r.header("etag")
    if et is not None and not re.match(r'^"[\x21\x23-\x7e]+"$', et):
        _broken("ETag is not strong and quoted", r)

    if r.status >= 400 and not r.path.startswith("/ready"):
        if r.method == "HEAD":
            return
        ctype = (r.header("content-type") or "").split(";")[0].strip()
        if ctype != "application/problem+json":
            _broken("%d is not application/problem+json" % r.status, r)
            return
        try:
            p = json.loads(r.body)
        except ValueError:
            _broken("%d problem is not JSON" % r.status, r)
            return
        for m in problem_faults(p, r):
            _broken("problem %d: %s" % (r.status, m), r)
        if r.status == 401 and not (r.header("www-authenticate") or "") \
                .startswith("Bearer"):
            _broken("401 without WWW-Authenticate: Bearer", r)
        if r.status == 405 and not r.header("allow"):
            _broken("405 without Allow", r)
        if r.status in (429, 503) and not re.match(
                r"^\d+$", r.header("retry-after") or ""):
            _broken("%d without Retry-After" % r.status, r)


def problem_faults(p, r):
    """What is wrong with a problem document, as texts."""
    out = []
    if not isinstance(p, dict):
        return ["not an object"]
    for k in ("type", "title", "status", "instance", "code", "request_id"):
        if k not in p:
            out.append("no member %s" % k)
    extra = set(p) - {"type", "title", "status", "detail", "instance",
                      "code", "request_id", "errors"}
    if extra:
        out.append("unknown members %s" % sorted(extra))
    if out:
        return out
    if p["status"] != r.status and not (
            p["status"] == 400 and r.status in (400, 494)):
        out.append("status %r" % p["status"])
    if p["type"] != "urn:healthmate:problem:" + str(p["code"]):
        out.append("type %r" % p["type"])
    if p["code"] not in CODES.get(r.status, {p["code"]}):
        out.append("code %r" % p["code"])
    if p["request_id"] != r.header("x-request-id"):
        out.append("request_id is not the header's")
    if not p["instance"].startswith("/") or "?" in p["instance"]:
        out.append("instance %r" % p["instance"])
    for e in p.get("errors", []):
        keys = set(e)
        if not ({"code", "detail"} <= keys
                and len(keys & {"pointer", "parameter"}) == 1
                and keys <= {"code", "detail", "pointer", "parameter"}):
            out.append("errors[] shape %r" % e)
        elif e["code"] not in FAULTS:
            out.append("errors[].code %r" % e["code"])
    return out


class Conn:
    """One keep-alive connection with the project's retry rule."""

    def __init__(self, port, tls=False, host="127.0.0.1", timeout=30,
                 source=None):
        self.port, self.tls, self.host = port, tls, host
        self.source = (source, 0) if source else None
        self.timeout = timeout
        self.c = None
        self.used = False
        self.retries = 0

    def close(self):
        if self.c is not None:
            self.c.close()
        self.c, self.used = None, False

    def _open(self):
        if self.tls:
            ctx = ssl.create_default_context()
            ctx.check_hostname = False
            ctx.verify_mode = ssl.CERT_NONE
            self.c = http.client.HTTPSConnection(
                self.host, self.port, timeout=self.timeout, context=ctx,
                source_address=self.source)
        else:
            self.c = http.client.HTTPConnection(
                self.host, self.port, timeout=self.timeout,
                source_address=self.source)
        self.used = False
        self.c.connect()
        self.c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method, path, body=None, headers=()):
        for attempt in (0, 1):
            if self.c is None:
                self._open()
            reused = self.used
            try:
                self.c.putrequest(method, path, skip_host=any(
                    k.lower() == "host" for k, _ in headers),
                    skip_accept_encoding=True)
                for k, v in headers:
                    self.c.putheader(k, v)
                if body is not None and not any(
                        k.lower() == "content-length" for k, _ in headers):
                    self.c.putheader("Content-Length", str(len(body)))
                self.c.endheaders(body)
                r = self.c.getresponse()
            except (http.client.RemoteDisconnected, ConnectionResetError,
                    BrokenPipeError) as e:
                self.close()
                if reused and attempt == 0:
                    self.retries += 1
                    continue
                raise Lost("%s %s: %s" % (method, path, e)) from e
            except (http.client.HTTPException, OSError) as e:
                self.close()
                raise Lost("%s %s: %r" % (method, path, e)) from e
            try:
                data = r.read()
            except (http.client.HTTPException, OSError) as e:
                self.close()
                raise Lost("%s %s: cut body: %r" % (method, path, e)) from e
            self.used = True
            if r.will_close:
                self.close()
            return Resp(r.status, r.getheaders(), data, method, path)


class Client:
    """A caller: token, cookie, one connection per thread."""

    def __init__(self, stack, token=None, tls=False, cookie=None,
                 source=None):
        self.stack, self.token, self.tls, self.cookie = \
            stack, token, tls, cookie
        self.source = source
        self.user = None
        self.session = None
        self.email = None
        self.password = None
        self._local = threading.local()

    def conn(self):
        c = getattr(self._local, "conn", None)
        if c is None:
            port = self.stack.https if self.tls else self.stack.http
            c = self._local.conn = Conn(port, self.tls,
                                         source=self.source)
        return c

    @property
    def id(self):
        return self.user["id"]

    def raw(self, method, path, body=None, headers=None, ctype=None,
            token=True, check=True):
        """path is the whole path; body is bytes."""
        hs = []
        given = {k.lower() for k, _ in (headers or [])}
        if token is True:
            token = self.token
        if token and "authorization" not in given:
            hs.append(("Authorization", "Bearer " + token))
        if self.cookie and "cookie" not in given:
            hs.append(("Cookie", self.cookie))
        if ctype and "content-type" not in given:
            hs.append(("Content-Type", ctype))
        hs += list(headers or [])
        r = self.conn().request(method, path, body, hs)
        if check:
            asked = [v for k, v in hs if k.lower() == "x-request-id"]
            check_common(r, asked[0] if asked else None)
        return r

    def call(self, method, path, doc=None, headers=None, ctype=None,
             token=True, body=None, check=True):
        """path below /api/v1; doc is sent as JSON."""
        if isinstance(headers, dict):
            headers = list(headers.items())
        if doc is not None:
            body = json.dumps(doc).encode()
            ctype = ctype or "application/json"
        if body is not None and ctype is None:
            ctype = "application/json"
        return self.raw(method, BASE + path, body, headers, ctype or None,
                        token, check)

    def get(self, path, **kw):
        return self.call("GET", path, **kw)

    def head(self, path, **kw):
        return self.call("HEAD", path, **kw)

    def post(self, path, doc=None, **kw):
        return self.call("POST", path, doc, **kw)

    def put(self, path, doc=None, **kw):
        return self.call("PUT", path, doc, **kw)

    def patch(self, path, doc=None, **kw):
        return self.call("PATCH", path, doc, **kw)

    def delete(self, path, **kw):
        return self.call("DELETE", path, **kw)

    def root(self, method, path, **kw):
        kw.setdefault("token", None)
        return self.raw(method, path, **kw)

    # --- health data, the words most tests speak ---

    def record(self, **doc):
        doc.setdefault("data_type", "heart_rate")
        doc.setdefault("value", 70)
        r = self.post("/health-data", doc)
        assert r.status in (200, 201), r
        return r


def exchange(port, data, tls=False, timeout=10, chunks=None, pause=0.0,
             shut=False):
    """Bytes in, everything that comes back until close or timeout out."""
    s = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    if tls:
        ctx = ssl.create_default_context()
        ctx.check_hostname = False
        ctx.verify_mode = ssl.CERT_NONE
        s = ctx.wrap_socket(s)
    out = b""
    try:
        try:
            for part in (chunks if chunks is not None else [data]):
                s.sendall(part)
                if pause:
                    time.sleep(pause)
            if shut:
                s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        while True:
            try:
                part = s.recv(65536)
            except (socket.timeout, ConnectionResetError):
                break
            if not part:
                break
            out += part
    finally:
        s.close()
    return out


def parse_response(data, method="GET", path="/"):
    """The first response in data, and the bytes after it."""
    head, sep, rest = data.partition(b"\r\n\r\n")
    assert sep, "no response: %r" % data[:200]
    lines = head.decode("latin-1").split("\r\n")
    m = re.match(r"HTTP/1\.[01] (\d{3})", lines[0])
    assert m, lines[0]
    headers = [tuple(x.split(": ", 1)) if ": " in x
               else (x.rstrip(":"), "") for x in lines[1:]]
    low = {k.lower(): v for k, v in headers}
    if low.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            n = int(size or b"0", 16)
            if n == 0:
                rest = rest.partition(b"\r\n")[2]
                break
            body += rest[:n]
            rest = rest[n + 2:]
    else:
        n = int(low.get("content-length", len(rest)))
        if method == "HEAD" or m.group(1) in ("204", "304"):
            n = 0
        body, rest = rest[:n], rest[n:]
    return Resp(int(m.group(1)), headers, body, method, path), rest


def raw_request(stack, method, path, headers=(), body=b"", host="localhost",
                tls=False, timeout=10, check=True):
    """One request written by hand; the connection is closed after it."""
    lines = ["%s %s HTTP/1.1" % (method, path)]
    if host is not None:
        lines.append("Host: " + host)
    lines.append("Connection: close")
    lines += ["%s: %s" % h for h in headers]
    data = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    out = exchange(stack.https if tls else stack.http, data, tls, timeout)
    r = parse_response(out, method, path)[0]
    if check:
        check_common(r)
    return r


# --- what a test says about an answer ---

def ok(r, *statuses):
    assert r.status in (statuses or (200,)), \
        "wanted %s: %r" % (statuses or (200,), r)
    return r.json() if r.body else None


def problem(r, status, code=None, faults=None, exact=True):
    """
    The answer is this problem; faults {place: code} (or a set of places)
    are all named, and with exact no others.
    """
    assert r.status == status, "wanted %d %s: %r" % (status, code, r)
    if r.method == "HEAD":
        return None
    ctype = (r.header("content-type") or "").split(";")[0]
    assert ctype == "application/problem+json", r
    p = json.loads(r.body)
    bad = problem_faults(p, r)
    assert not bad, "%s: %r" % (bad, r)
    if code is not None:
        assert p["code"] == code, "wanted %s: %r" % (code, r)
    if faults is not None:
        got = {}
        for e in p.get("errors", []):
            got.setdefault(e.get("pointer", e.get("parameter")),
                           set()).add(e["code"])
        if isinstance(faults, dict):
            for place, want in faults.items():
                want = {want} if isinstance(want, str) else set(want)
                assert place in got, "no fault at %s: %r" % (place, r)
                assert got[place] & want, \
                    "fault at %s is %s, wanted %s: %r" % (
                        place, got[place], want, r)
        else:
            for place in faults:
                assert place in got, "no fault at %s: %r" % (place, r)
        if exact:
            assert set(got) == set(faults), \
                "faults at %s, wanted %s: %r" % (
                    sorted(got), sorted(faults), r)
    return p


def walk(client, path, limit, start=None, **kw):
    """All items of a list, page by page; next is null exactly at the end."""
    out, cursor, pages = [], start, 0
    sep = "&" if "?" in path else "?"
    while True:
        p = path + sep + "limit=%d" % limit
        if cursor:
            p += "&cursor=" + cursor
        doc = ok(client.get(p, **kw))
        assert set(doc) == {"items", "next"}, doc
        assert len(doc["items"]) <= limit
        pages += 1
        out += doc["items"]
        cursor = doc["next"]
        if cursor is None:
            return out
        assert re.match(r"^[A-Za-z0-9_-]{1,512}$", cursor), cursor
        assert len(doc["items"]) == limit, \
            "a page before the last one is short: %d" % len(doc["items"])
        assert pages < 10000


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port


def uuid7(n=None):
    """A well-formed UUIDv7 that belongs to nobody."""
    b = bytearray(os.urandom(16))
    b[:6] = int(time.time() * 1000).to_bytes(6, "big")
    b[6] = 0x70 | (b[6] & 0x0f)
    b[8] = 0x80 | (b[8] & 0x3f)
    h = bytes(b).hex()
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))
