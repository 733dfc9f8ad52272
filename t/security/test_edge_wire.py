"""
Bytes no decent client sends: what is too large, what two readers could read
in two ways (smuggling), and HTTP/2 used as a weapon.

A case of smuggling is right when there is one answer, it is an error, and
what came after it was not taken for a request: the second request inside
asks for /health, which would answer "healthy".
"""

import os
import socket
import ssl
import threading
import time

import pytest

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hmedge import Edge, tls_context
from hmhttp import BASE, exchange, ok, parse_response, problem

INNER = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def edge(stack):
    with Edge(stack) as e:
        yield e


# --- too large ---

def one(edge, data, tls):
    """The first answer; nginx lingers on a body it does not want."""
    s = socket.create_connection(
        ("127.0.0.1", edge.https if tls else edge.http), timeout=5)
    if tls:
        s = tls_context().wrap_socket(s)
    out = b""
    try:
        s.sendall(data)
    except OSError:
        pass
    while b"}" not in out:
        part = s.recv(65536)
        if not part:
            break
        out += part
    s.close()
    return parse_response(out)[0]


@pytest.mark.parametrize("tls", [False, True])
def test_oversized_is_a_problem_document(edge, user, tls):
    h = b"Host: localhost\r\nConnection: close\r\n"
    auth = b"Authorization: Bearer " + user.token.encode() + b"\r\n"
    for head, status, code in (
            (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + h, 414,
             "request.uri_too_long"),
            (b"GET /health HTTP/1.1\r\nX-A: " + b"b" * 40000 + b"\r\n" + h,
             400, "request.malformed"),
            (b"GET /health HTTP/1.1\r\nCookie: " + b"c=d;" * 9000 + b"\r\n"
             + h, 400, "request.malformed"),
            (b"GET /health HTTP/1.1\r\n" + h
             + b"".join(b"X-%d: %s\r\n" % (i, b"e" * 1000)
                        for i in range(100)), 400, "request.malformed"),
            (b"GET /health HTTP/1.1\r\n" + b"F" * 40000 + b": 1\r\n" + h,
             400, "request.malformed"),
            (b"POST /api/v1/health-data HTTP/1.1\r\nContent-Type: "
             b"application/json\r\nContent-Length: 1048577\r\n" + auth + h,
             413, "request.too_large"),
            (b"POST /api/v1/health-data HTTP/1.1\r\nContent-Type: "
             b"application/json\r\nContent-Length: 9223372036854775807\r\n"
             + auth + h, 413, "request.too_large"),
            (b"POST /api/v1/auth/login HTTP/1.1\r\nContent-Type: "
             b"application/json\r\nContent-Length: 70000\r\n" + h, 413,
             "request.too_large")):
        r = one(edge, head + b"\r\n", tls)
        assert r.status == status, (head[:60], r)
        problem(r, status, code)


def test_a_chunked_body_without_end(edge, user):
    """1 MiB is reached without a Content-Length saying so."""
    s = socket.create_connection(("127.0.0.1", edge.http), timeout=10)
    s.sendall(b"POST /api/v1/health-data HTTP/1.1\r\nHost: localhost\r\n"
              b"Content-Type: application/json\r\nTransfer-Encoding: chunked"
              b"\r\nAuthorization: Bearer " + user.token.encode()
              + b"\r\n\r\n")
    out = b""
    try:
        for _ in range(40):
            s.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
    except OSError:
        pass
    try:
        while b"\r\n\r\n" not in out:
            part = s.recv(65536)
            if not part:
                break
            out += part
    except OSError:
        pass
    s.close()
    # Closed under the sender's hands the answer may be lost to a reset.
    assert out == b"" or b" 413 " in out.split(b"\r\n")[0], out[:100]


# --- smuggling ---

def req(*headers, method=b"POST", path=b"/api/v1/auth/login",
        version=b"HTTP/1.1", host=b"Host: localhost\r\n"):
    return (method + b" " + path + b" " + version + b"\r\n" + host
            + b"Content-Type: application/json\r\n"
            + b"".join(x + b"\r\n" for x in headers) + b"\r\n")


N = str(len(INNER)).encode()
CHUNKED = b"Transfer-Encoding: chunked"

REFUSED = {
    "cl and te": req(b"Content-Length: 5", CHUNKED) + b"0\r\n\r\n",
    "te and cl": req(CHUNKED, b"Content-Length: 5") + b"0\r\n\r\n",
    "cl.te with a request behind": req(b"Content-Length: " + N, CHUNKED)
    + b"0\r\n\r\n",
    "two lengths": req(b"Content-Length: 0", b"Content-Length: " + N),
    "two lengths alike": req(b"Content-Length: 0", b"Content-Length: 0"),
    "lengths in a list": req(b"Content-Length: 0, " + N),
    "length with a sign": req(b"Content-Length: +0"),
    "negative length": req(b"Content-Length: -1"),
    "length in hex": req(b"Content-Length: 0x0"),
    "length with a space inside": req(b"Content-Length: 0 0"),
    "length too large": req(b"Content-Length: 99999999999999999999"),
    "empty length": req(b"Content-Length: "),
    "te identity": req(b"Transfer-Encoding: identity"),
    "te gzip, chunked": req(b"Transfer-Encoding: gzip, chunked"),
    "te chunked, identity": req(b"Transfer-Encoding: chunked, identity"),
    "te xchunked": req(b"Transfer-Encoding: xchunked"),
    "te quoted": req(b'Transfer-Encoding: "chunked"'),
    "te with a tab inside": req(b"Transfer-Encoding: \x0bchunked"),
    "two te": req(CHUNKED, CHUNKED) + b"0\r\n\r\n",
    "te twice, one strange": req(CHUNKED, b"Transfer-Encoding: x")
    + b"0\r\n\r\n",
    "te in 1.0": req(CHUNKED, version=b"HTTP/1.0") + b"0\r\n\r\n",
    "space before the colon": req(b"Content-Length : 0"),
    "te with a space before the colon": req(b"Transfer-Encoding : chunked"),
    "folded header": req(b"X-A: b", b" Content-Length: 0"),
    "folded with a tab": req(b"X-A: b", b"\tTransfer-Encoding: chunked"),
    "folded te": req(b"Transfer-Encoding:", b" chunked"),
    "first line folded": b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "line without colon": req(b"Content-Length"),
    "name with a nul": req(b"X-\0A: b"),
    "value with a nul": req(b"X-A: b\0c"),
    "bare cr in a value": req(b"X-A: b\rContent-Length: 5"),
    "bare cr as line end": b"GET /health HTTP/1.1\rHost: localhost\r\r",
    "two hosts": req(b"Host: other"),
    "no host": req(host=b""),
    "host with a path": req(host=b"Host: localhost/x\r\n"),
    "bad chunk size": req(CHUNKED) + b"xyz\r\n",
    "negative chunk": req(CHUNKED) + b"-1\r\n\r\n",
    "chunk size with 0x": req(CHUNKED) + b"0x0\r\n\r\n",
    "huge chunk": req(CHUNKED) + b"fffffffffffffffff\r\n",
    "chunk longer than said": req(CHUNKED) + b"1\r\nabc\r\n0\r\n\r\n",
    "version 2.0 in clear": req(version=b"HTTP/2.0"),
    "version 3": req(version=b"HTTP/3.0"),
    "version lower case": req(version=b"http/1.1"),
    "space in the path": b"GET /hea lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tab as separator": b"GET\t/health\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    "method with a colon": b"GE:T /health HTTP/1.1\r\nHost: localhost\r\n"
    b"\r\n",
    "lower case method": b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "control in the path": b"GET /hea\x01lth HTTP/1.1\r\nHost: localhost\r\n"
    b"\r\n",
    "encoded nul in the path": b"GET /hea%00lth HTTP/1.1\r\nHost: localhost"
    b"\r\n\r\n",
}

# These are not refused at the first line, but must mean one thing only.
PLAIN = {
    "body of a get": b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: " + N + b"\r\nConnection: close\r\n\r\n" + INNER,
    "chunked body of a get": b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER),
    "upgrade to h2c": b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: close\r\n\r\n",
    "absolute form": b"GET http://localhost/health HTTP/1.1\r\n"
    b"Host: localhost\r\nConnection: close\r\n\r\n",
}


CASES = [(n, False) for n in sorted(REFUSED)] + [
    (n, True) for n in sorted(REFUSED)[::9]]    # the same parser, behind TLS


@pytest.mark.parametrize("name,tls", CASES, ids=lambda x: str(x))
def test_ambiguous_requests_are_refused(edge, name, tls):
    out = exchange(edge.https if tls else edge.http, REFUSED[name] + INNER,
                   tls=tls, timeout=0.5)
    assert b"healthy" not in out, out[:600]
    if out:
        r, rest = parse_response(out)
        assert r.status in (400, 405, 413, 421, 501, 505), r
        assert not rest.startswith(b"HTTP/1.1 2"), rest[:200]


@pytest.mark.parametrize("line", ["TRACE /health", "CONNECT localhost:1",
                                  "TRACK /health", "PROPFIND /health",
                                  "DEBUG /health"])
def test_methods_of_others(edge, line):
    out = exchange(edge.http, (line + " HTTP/1.1\r\nHost: localhost\r\n"
                               "Max-Forwards: 0\r\nConnection: close\r\n"
                               "\r\n").encode(), timeout=2)
    assert parse_response(out)[0].status in (400, 405), out[:200]


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_bodies_that_are_not_wanted_are_no_requests(edge, name):
    out = exchange(edge.http, PLAIN[name], timeout=2)
    assert out.count(b"HTTP/1.1 ") == 1, out[:600]


# --- HTTP/2 ---

class H2:
    def __init__(self, port):
        ctx = tls_context(alpn=["h2"])
        s = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.s = ctx.wrap_socket(s)
        assert self.s.selected_alpn_protocol() == "h2"
        self.c = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.c.initiate_connection()
        self.flush()
        self.streams, self.closed, self.goaway = {}, False, None
        self.settings = {}

    def flush(self):
        self.s.sendall(self.c.data_to_send())

    def head(self, path="/health", method="GET", end=True, more=(),
             authority="localhost"):
        n = self.c.get_next_available_stream_id()
        h = [(":method", method), (":scheme", "https"),
             (":authority", authority), (":path", path)]
        self.c.send_headers(n, h + list(more), end_stream=end)
        return n

    def pump(self, until, timeout=5):
        end = time.monotonic() + timeout
        while not until() and not self.closed:
            self.s.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.s.recv(65536)
            except (socket.timeout, TimeoutError):
                return
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            for ev in self.c.receive_data(data):
                n = getattr(ev, "stream_id", None)
                st = self.streams.setdefault(n, {"body": b""}) if n else None
                if isinstance(ev, h2.events.ResponseReceived):
                    st["headers"] = dict(ev.headers)
                    st["status"] = int(st["headers"][":status"])
                elif isinstance(ev, h2.events.DataReceived):
                    st["body"] += ev.data
                    self.c.acknowledge_received_data(
                        ev.flow_controlled_length, n)
                elif isinstance(ev, h2.events.StreamEnded):
                    st["end"] = True
                elif isinstance(ev, h2.events.StreamReset):
                    st["reset"] = ev.error_code
                elif isinstance(ev, h2.events.ConnectionTerminated):
                    self.goaway = ev.error_code
                elif isinstance(ev, h2.events.RemoteSettingsChanged):
                    self.settings = {k: v.new_value for k, v in
                                     ev.changed_settings.items()}
            try:
                self.flush()
            except OSError:
                self.closed = True

    def get(self, path="/health", **kw):
        n = self.head(path, **kw)
        self.flush()
        self.pump(lambda: self.streams.get(n, {}).get("end")
                  or "reset" in self.streams.get(n, {}))
        return self.streams[n]

    def close(self):
        self.s.close()


def test_http2_works(edge, user):
    c = H2(edge.https)
    auth = [("authorization", "Bearer " + user.token)]
    assert c.get("/health")["status"] == 200
    assert c.get(BASE + "/health-data", more=auth)["status"] == 200
    st = c.get("/nothing")
    assert st["status"] == 404
    assert st["headers"]["content-type"] == "application/problem+json"
    # A record, in two pieces of body.
    body = b'{"data_type":"heart_rate","value":61}'
    n = c.head(BASE + "/health-data", "POST", end=False, more=auth + [
        ("content-type", "application/json")])
    c.c.send_data(n, body[:9])
    c.flush()
    time.sleep(0.05)
    c.c.send_data(n, body[9:], end_stream=True)
    c.flush()
    c.pump(lambda: c.streams.get(n, {}).get("end"))
    assert c.streams[n]["status"] == 201
    assert c.settings.get(3) == 64               # MAX_CONCURRENT_STREAMS
    c.close()


def test_http2_requests_side_by_side(edge, user):
    c = H2(edge.https)
    auth = [("authorization", "Bearer " + user.token)]
    ids = [c.head(BASE + "/health-data?limit=1", more=auth)
           for _ in range(60)]
    c.flush()
    c.pump(lambda: all(c.streams.get(n, {}).get("end") for n in ids), 10)
    assert {c.streams[n]["status"] for n in ids} == {200}
    c.close()


@pytest.mark.parametrize("name,headers", [
    ("te", [("transfer-encoding", "chunked")]),
    ("connection", [("connection", "keep-alive")]),
    ("two lengths", [("content-length", "3"), ("content-length", "4")]),
    ("upper case name", [("X-Upper", "a")]),
    ("newline in a value", [("x-a", "b\r\nx-evil: c")]),
    ("nul in a value", [("x-a", "b\0c")]),
    ("newline in a name", [("x-a\r\nx-evil", "c")]),
    ("colon in a name", [("x-a: b", "c")]),
    ("second path", [(":path", "/metrics")]),
])
def test_http2_headers_of_http1(edge, user, name, headers):
    """What HTTP/2 forbids is refused; hop-by-hop fields mean nothing."""
    c = H2(edge.https)
    body = b'{"data_type":"heart_rate","value":61}'
    n = c.head(BASE + "/health-data", "POST", end=False, more=[
        ("authorization", "Bearer " + user.token),
        ("content-type", "application/json")] + headers)
    c.c.send_data(n, body, end_stream=True)
    try:
        c.flush()
    except OSError:
        pass
    c.pump(lambda: c.streams.get(n, {}).get("end")
           or "reset" in c.streams.get(n, {}) or c.goaway is not None, 3)
    st = c.streams.get(n, {})
    refused = "reset" in st or c.goaway is not None or c.closed \
        or st.get("status", 0) >= 400
    assert refused or (name in ("te", "connection")
                       and st["status"] in (200, 201)), st
    c.close()


@pytest.mark.parametrize("path", ["", "health", "*", "/a b", "/a\r\nb",
                                  "http://x/"])
def test_http2_paths_of_nobody(edge, path):
    c = H2(edge.https)
    n = c.head(path)
    c.flush()
    c.pump(lambda: c.streams.get(n, {}).get("end")
           or "reset" in c.streams.get(n, {}) or c.goaway is not None, 3)
    st = c.streams.get(n, {})
    assert "reset" in st or c.goaway is not None or c.closed \
        or st.get("status", 0) >= 400, st
    c.close()


def rss(edge):
    n = 0
    for p in edge.workers():
        for line in open("/proc/%d/status" % p):
            if line.startswith("VmRSS:"):
                n += int(line.split()[1])
    return n / 1024.0


def test_rapid_reset_is_bounded(edge, user):
    """10,000 streams opened and thrown away; others are served meanwhile."""
    auth = [("authorization", "Bearer " + user.token)]
    workers, before = set(edge.workers()), rss(edge)
    stop, lost, served = [], [], []

    def normal():
        c = edge.client(user.token, source="127.0.0.77")
        while not stop:
            try:
                served.append(c.get("/health-data?limit=1").status)
            except Exception as e:                 # noqa: BLE001
                lost.append(e)
            time.sleep(0.01)

    t = threading.Thread(target=normal)
    t.start()
    opened, longest = 0, 0
    try:
        while opened < 10000:
            c, mine = H2(edge.https), 0
            try:
                while mine < 1500 and not c.closed and c.goaway is None:
                    for _ in range(50):
                        n = c.head(BASE + "/health-data?limit=200",
                                   more=auth)
                        c.c.reset_stream(n, 8)
                        mine += 1
                    c.flush()
                    c.pump(lambda: False, 0.001)
            except (OSError, h2.exceptions.ProtocolError):
                pass
            c.close()
            longest = max(longest, mine)
            opened += max(mine, 50)
    finally:
        stop.append(1)
        t.join()
    assert longest <= 1400, "one connection opened %d streams" % longest
    assert not lost, lost[:3]
    assert len(served) > 20 and set(served) == {200}
    assert set(edge.workers()) == workers
    assert rss(edge) - before < 64, (before, rss(edge))
    ok(edge.client(user.token).get("/health-data?limit=1"))


def frame(kind, flags, stream, payload=b""):
    return (len(payload).to_bytes(3, "big") + bytes([kind, flags])
            + stream.to_bytes(4, "big") + payload)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)


@pytest.mark.parametrize("name,data,times", [
    ("settings", frame(4, 0, 0, b"\0\4\0\1\0\0"), 20000),
    ("empty settings", frame(4, 0, 0), 20000),
    ("ping", frame(6, 0, 0, b"12345678"), 20000),
    ("priority", frame(2, 0, 1, b"\0\0\0\3\1"), 20000),
    ("continuation", frame(9, 0, 1, b"\0\1a\1b" * 200), 4000),
    ("empty data", frame(0, 0, 1), 20000),
    ("window", frame(8, 0, 0, b"\0\0\0\1"), 20000),
    ("rst of idle", frame(3, 0, 1, b"\0\0\0\x08"), 20000),
    ("unknown", frame(0xbb, 0, 0, b"x" * 100), 20000),
    ("too long", frame(0, 0, 1, b"x" * 70000), 1),
    ("huge window", frame(8, 0, 0, b"\x7f\xff\xff\xff"), 3),
    ("header list", frame(1, 5, 1, b"\0\1a\x7f\x80\x7f" + b"b" * 15000), 3),
    ("bad hpack", frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"), 1),
], ids=lambda x: x if isinstance(x, str) else "")
def test_http2_floods_are_survived(edge, user, name, data, times):
    """The frames the flood CVEs are named after."""
    workers, before = set(edge.workers()), rss(edge)
    ctx = tls_context(alpn=["h2"])
    s = ctx.wrap_socket(socket.create_connection(
        ("127.0.0.1", edge.https), timeout=5))
    s.settimeout(2)
    first = frame(1, 1, 1, b"\x82\x84\x87\x41\x09localhost") \
        if name == "empty data" else b""
    if name == "continuation":
        first = frame(1, 1, 1, b"\x82\x84\x87\x41\x09localhost")
    try:
        s.sendall(PREFACE + first)
        for _ in range(0, times, 100):
            s.sendall(data * min(times, 100))
    except (OSError, ssl.SSLError):
        pass
    ok(edge.client(user.token).get("/health-data?limit=1"))
    s.close()
    assert set(edge.workers()) == workers, "a worker died"
    assert rss(edge) - before < 64


def test_nothing_was_alarmed(edge):
    text = edge.log("error.log")
    assert "[alert]" not in text and "[emerg]" not in text
    assert os.path.exists(edge.logs + "/access.log")
