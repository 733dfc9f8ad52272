"""
The gate in front of other locations: healthmate_auth, healthmate_permission
and the three variables, with a server behind them that tells what reached
it, and with files.  An nginx of its own (hmnginx.py).
"""

import collections
import http.server
import json
import os
import re
import subprocess
import threading
import time

import pytest

import hmhttp
from hmhttp import Client, Conn, exchange, parse_response, problem
from hmnginx import Nginx
from hmstack import PASSWORD, wait


class Behind(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked, headers as they came."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        n = int(self.headers.get("content-length") or 0)
        if n:
            self.rfile.read(n)
        self.server.seen += 1
        if self.path.startswith("/slow"):
            time.sleep(1.0)
        if "/accel" in self.path:
            out, extra = b"", [("X-Accel-Redirect", "/inner/file.txt")]
        else:
            out = json.dumps({"path": self.path, "method": self.command,
                              "headers": self.headers.items()}).encode()
            extra = []
        self.send_response(502 if "/broken" in self.path else 200)
        for k, v in extra + [("Content-Length", str(len(out)))]:
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(out)

    do_GET = do_POST = do_HEAD = do_PUT = do_OPTIONS = answer

    def log_message(self, *a):
        pass


@pytest.fixture(scope="module")
def behind():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    s.daemon_threads = True
    s.seen = 0
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()


CONF = """
    proxy_set_header X-User $healthmate_user_id;
    proxy_set_header X-Role $healthmate_role;
    proxy_set_header X-Session $healthmate_session;

    location /files/ { healthmate_auth on; root "%(www)s"; }
    location /index/ { healthmate_auth on; root "%(www)s"; }
    location /closed/ { healthmate_auth on; proxy_pass %(behind)s/; }
    location /open/ { healthmate_auth optional; proxy_pass %(behind)s/; }
    location /nothing/ { proxy_pass %(behind)s/; }
    location /stripped/ {
        healthmate_auth on;
        proxy_set_header Authorization "";
        proxy_set_header X-User $healthmate_user_id;
        proxy_pass %(behind)s/;
    }
    location /admins/ {
        healthmate_auth on;
        healthmate_permission users.admin;
        proxy_pass %(behind)s/;
        location /admins/everybody/ {
            healthmate_auth off;
            proxy_pass %(behind)s/;
        }
    }
    location /page/ {
        healthmate_auth on;
        healthmate_permission users.admin;
        root "%(www)s";
        error_page 401 /please-log-in.txt;
        error_page 403 =200 /please-ask.txt;
    }
    location /shipped/ {
        healthmate_auth on;
        healthmate_permission users.admin;
        root "%(www)s";
        error_page 401 403 429 /_healthmate/problem;
    }
    location = /please-log-in.txt { root "%(www)s"; }
    location = /please-ask.txt { healthmate_auth on; root "%(www)s"; }
    location /near/ {
        satisfy any; allow 127.0.0.0/8; deny all;
        healthmate_auth on;
        proxy_pass %(behind)s/;
    }
    location /far/ {
        satisfy any; deny all;
        healthmate_auth on;
        proxy_pass %(behind)s/;
    }
    location /try/ {
        healthmate_auth on;
        root "%(www)s";
        try_files $uri @app;
    }
    location @app { healthmate_auth on; proxy_pass %(behind)s; }
    location /accel/ { healthmate_auth on; proxy_pass %(behind)s; }
    location /inner/ { internal; alias "%(www)s/files/"; }
    location /asked/ {
        auth_request /files/file.txt;
        proxy_pass %(behind)s/;
    }
    location /early/ {
        healthmate_auth on;
        if ($healthmate_role != "") { return 418; }
        proxy_pass %(behind)s/;
    }
    location /mirrored/ {
        healthmate_auth on;
        mirror /copy;
        proxy_pass %(behind)s/;
    }
    location = /copy { internal; healthmate_auth on;
                       proxy_pass %(behind)s/copy; }
    location /added/ { add_before_body /files/file.txt; root "%(www)s"; }
"""

HTTP = """
    log_format who '$healthmate_user_id|$healthmate_role|'
                   '$healthmate_session|$uri|$status';
    access_log "%s/logs/who.log" who;
"""


def gateway(stack, behind, **kw):
    x = Nginx(stack, **kw)
    x.text_server = CONF % {"www": x.dir + "/www",
                            "behind": "http://127.0.0.1:%d"
                            % behind.server_port} + x.text_server
    x.text_http += HTTP % x.dir
    for name, text in (("files/file.txt", "a file\n"),
                       ("files/big.bin", "0123456789abcdef" * 200000),
                       ("index/index.html", "an index\n"),
                       ("page/page.txt", "a page\n"),
                       ("shipped/page.txt", "a page\n"),
                       ("try/there.txt", "it is there\n"),
                       ("added/page.txt", "the page\n"),
                       ("please-log-in.txt", "please log in\n"),
                       ("please-ask.txt", "please ask\n")):
        x.file(name, text)
    return x.sync()


@pytest.fixture(scope="module")
def gate(stack, behind):
    x = gateway(stack, behind)
    x.start()
    yield x
    x.stop()


@pytest.fixture(scope="module")
def me(gate):
    return gate.new_user()


@pytest.fixture(scope="module")
def boss(gate):
    return gate.new_user(role="admin")


def get(gate, path, who=None, headers=(), method="GET", body=None):
    c = Conn(gate.http)
    hs = list(headers)
    if who is not None:
        hs.append(("Authorization", "Bearer " + (
            who if isinstance(who, str) else who.token)))
    try:
        return c.request(method, path, body, hs)
    finally:
        c.close()


def reached(r):
    """The headers that reached the server behind, names in small letters."""
    assert r.status == 200, r
    out = collections.defaultdict(list)
    for k, v in json.loads(r.body)["headers"]:
        out[k.lower()].append(v)
    return out


def session_of(person):
    import base64
    body = person.token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


# --- who gets in ---

@pytest.mark.parametrize("path", ["/files/file.txt", "/closed/x", "/index/",
                                  "/admins/x", "/far/x" "", "/try/there.txt",
                                  "/try/else", "/files/nothing.txt"])
def test_nobody_gets_nothing(gate, behind, path):
    n = behind.seen
    for who in (None, "x", "x.y.z"):
        r = get(gate, path, who)
        assert r.status == 401, r
        assert r.header("www-authenticate") == "Bearer"
        assert b"a file" not in r.body
    assert behind.seen == n


def test_problem_document(gate, me):
    r = get(gate, "/closed/x?name=secret")
    p = problem(r, 401, "auth.token_missing")
    assert p["instance"] == "/closed/x"
    assert r.header("cache-control") == "no-store"
    problem(get(gate, "/files/file.txt", "a.b.c"), 401, "auth.token_invalid")
    r = get(gate, "/files/file.txt", headers=[("X-Request-ID", "my-own.id")])
    assert problem(r, 401)["request_id"] == "my-own.id"
    problem(get(gate, "/admins/x", me), 403, "access.denied")
    r = get(gate, "/closed/x", method="HEAD")
    assert r.status == 401 and r.body == b""
    assert r.header("www-authenticate") == "Bearer"


def test_files(gate, me):
    r = get(gate, "/files/file.txt", me)
    assert r.status == 200 and r.body == b"a file\n"
    r = get(gate, "/files/big.bin", me)
    assert r.status == 200 and len(r.body) == 3200000
    r = get(gate, "/files/big.bin", me, [("Range", "bytes=16-31")])
    assert r.status == 206 and r.body == b"0123456789abcdef"
    assert get(gate, "/files/nothing.txt", me).status == 404
    r = get(gate, "/index/", me)
    assert r.status == 200 and r.body == b"an index\n"


def test_proxy_and_variables(gate, me, boss):
    for who, role in ((me, "patient"), (boss, "admin")):
        h = reached(get(gate, "/closed/x", who))
        assert h["x-user"] == [who.id]
        assert h["x-role"] == [role]
        assert h["x-session"] == [session_of(who)["sid"]]
        # Passed on unless the operator says otherwise.
        assert h["authorization"] == ["Bearer " + who.token]
    h = reached(get(gate, "/stripped/x", me))
    assert "authorization" not in h and h["x-user"] == [me.id]


def test_optional(gate, me):
    h = reached(get(gate, "/open/x"))
    assert not {"x-user", "x-role", "x-session"} & set(h)
    assert reached(get(gate, "/open/x", me))["x-user"] == [me.id]
    # A token that is wrong is not the same as none.
    problem(get(gate, "/open/x", me.token[:-4] + "AAAA"), 401,
            "auth.token_invalid")
    assert get(gate, "/open/x", headers=[("Authorization", "Basic eA==")]) \
        .status == 401


def test_nobody_writes_the_variables(gate, me, boss):
    lie = [("X-User", boss.id), ("X-Role", "admin"), ("x_user", boss.id),
           ("X-Session", boss.id), ("healthmate_user_id", boss.id),
           ("healthmate-user-id", boss.id), ("Healthmate_Role", "admin"),
           ("Cookie", "healthmate_user_id=%s" % boss.id)]
    ask = "?healthmate_user_id=%s&user_id=%s" % (boss.id, boss.id)
    for path in ("/open/x", "/nothing/x"):
        h = reached(get(gate, path + ask, headers=lie))
        assert not {"x-user", "x-role", "x-session"} & set(h), h
    h = reached(get(gate, "/closed/x" + ask, me, lie))
    assert (h["x-user"], h["x-role"]) == ([me.id], ["patient"])
    h = reached(get(gate, "/nothing/x", me, lie))   # it was not asked
    assert "x-user" not in h


def test_permission(gate, behind, me, boss):
    n = behind.seen
    r = get(gate, "/admins/x", me)
    problem(r, 403, "access.denied")
    assert behind.seen == n
    assert reached(get(gate, "/admins/x", boss))["x-role"] == ["admin"]
    # "off" opens what lies below, and says nothing of the caller.
    h = reached(get(gate, "/admins/everybody/x"))
    assert "x-user" not in h


def test_every_role_and_permission(stack, gate, behind):
    """The table of the API, at a location."""
    names = ["self", "health.read", "health.write", "analytics.read", "chat",
             "export", "erase", "users.admin", "compliance.admin",
             "audit.admin", "jobs.admin", "keys.admin"]
    x = Nginx(stack, server="".join(
        "location = /p/%s { healthmate_auth on; healthmate_permission %s;"
        " proxy_pass http://127.0.0.1:%d; }\n"
        % (n, n, behind.server_port) for n in names))
    x.start()
    try:
        people = {r: gate.new_user(role=r) for r in
                  ("patient", "doctor", "admin", "researcher")}
        for role, who in people.items():
            for n in names:
                want = 200 if role == "admin" or not n.endswith(".admin") \
                    else 403
                assert get(x, "/p/" + n, who).status == want, (role, n)
    finally:
        x.stop()


# --- how a refusal looks ---

def test_error_pages(gate, me, boss):
    r = get(gate, "/page/page.txt")
    assert r.status == 401 and r.body == b"please log in\n"
    assert r.headers("www-authenticate") == ["Bearer"]
    r = get(gate, "/page/page.txt", me)  # known, and not permitted
    assert r.status == 200 and r.body == b"please ask\n"
    assert get(gate, "/page/page.txt", boss).body == b"a page\n"


def test_error_page_of_the_shipped_configuration(gate, me):
    """healthmate_problem tells what the gate would have told itself."""
    r = get(gate, "/shipped/page.txt")
    p = problem(r, 401, "auth.token_missing")
    assert p["instance"] == "/shipped/page.txt"
    assert r.headers("www-authenticate") == ["Bearer"]
    problem(get(gate, "/shipped/page.txt", "a.b.c"), 401,
            "auth.token_invalid")
    r = get(gate, "/shipped/page.txt", me)
    problem(r, 403, "access.denied")
    for name in ("ratelimit", "ratelimit-policy", "content-type"):
        assert len(r.headers(name)) == 1, (name, r.raw_headers)


def test_satisfy_any(gate, me):
    """By address or by token; without both nginx refuses."""
    h = reached(get(gate, "/near/x"))
    assert "x-user" not in h
    assert reached(get(gate, "/near/x", me))["x-user"] == [me.id]
    r = get(gate, "/far/x")
    assert r.status == 401 and r.header("www-authenticate") == "Bearer"
    assert reached(get(gate, "/far/x", me))["x-user"] == [me.id]


# --- the ways through nginx ---

def test_internal_redirects(gate, me):
    assert get(gate, "/try/there.txt", me).body == b"it is there\n"
    h = reached(get(gate, "/try/else", me))          # a named location
    assert h["x-user"] == [me.id]
    r = get(gate, "/accel/x", me)                    # X-Accel-Redirect
    assert r.status == 200 and r.body == b"a file\n"
    assert get(gate, "/inner/file.txt", me).status == 404


def test_subrequests(gate, behind, me):
    # auth_request of a location with a gate: nobody has been asked yet.
    assert get(gate, "/asked/x").status == 401
    assert get(gate, "/asked/x", me).status == 401
    # A file behind the gate is not read out by a page in front of it.
    r = get(gate, "/added/page.txt")
    assert b"a file" not in r.body
    # A subrequest of a request that passed is that person's.
    n = behind.seen
    assert get(gate, "/mirrored/x", me).status == 200
    wait(lambda: behind.seen == n + 2, 5, what="the mirror")


def test_variables_before_the_gate_are_empty(gate, me):
    """And what was seen too early does not stay."""
    h = reached(get(gate, "/early/x", me))
    assert h["x-user"] == [me.id]
    wait(lambda: "%s|patient|%s|/early/x|200" % (
        me.id, session_of(me)["sid"]) in log(gate), 5, what="the log line")


def log(gate):
    return open(gate.dir + "/logs/who.log").read()


def test_log_format(gate, me):
    mark = "/closed/log-%d" % time.time_ns()
    get(gate, mark, me)
    get(gate, mark + "-no")
    get(gate, "/api/v1/auth/me", me)
    sid = session_of(me)["sid"]
    for line in ("%s|patient|%s|%s|200" % (me.id, sid, mark),
                 "|||%s-no|401" % mark,
                 "%s|patient|%s|/api/v1/auth/me|200" % (me.id, sid)):
        wait(lambda: line in log(gate).splitlines(), 5, what=line)


def test_a_body_is_not_the_next_request(gate, me):
    evil = b"GET /closed/evil HTTP/1.1\r\nHost: localhost\r\n\r\n"
    data = (b"POST /closed/x HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n" % len(evil) + evil
            + b"GET /closed/second HTTP/1.1\r\nHost: localhost\r\n"
              b"Connection: close\r\nAuthorization: Bearer "
            + me.token.encode() + b"\r\n\r\n")
    out = exchange(gate.http, data)
    a, rest = parse_response(out)
    b, rest = parse_response(rest)
    assert a.status == 401 and rest == b""
    assert json.loads(b.body)["path"] == "/second"
    # A large one, refused before it is read.
    r = get(gate, "/closed/x", method="POST", body=b"x" * 300000)
    assert r.status == 401
    r = get(gate, "/closed/x", me, method="POST", body=b"x" * 300000)
    assert r.status == 200 and json.loads(r.body)["method"] == "POST"


class H2:
    """A person over TLS and HTTP/2, with token and cookie."""

    def __init__(self, x, out):
        self.x, self.out = x, str(out)
        r = x.client(tls=True).post("/auth/register", {
            "email": "h2-%d@example.org" % time.time_ns(),
            "password": PASSWORD, "full_name": "Test Person",
            "accept_terms": True})
        assert r.status == 201, r
        self.id = r.json()["user"]["id"]
        self.bearer = ["-H", "Authorization: Bearer "
                       + r.json()["access_token"]]
        self.cookie = ["-H", "Cookie: " + [
            c.split(";")[0] for c in r.headers("set-cookie")
            if "hm-fgp" in c][0]]
        self.both = self.bearer + self.cookie

    def get(self, path, *extra):
        r = subprocess.run(
            ["curl", "-sk", "--http2", "-o", self.out, "-w",
             "%{http_version} %{http_code}", "--max-time", "20"]
            + list(extra)
            + ["https://localhost:%d%s" % (self.x.https, path)],
            stdout=subprocess.PIPE, text=True)
        return r.stdout, open(self.out, "rb").read()


def test_http2(gate, tmp_path):
    h = H2(gate, tmp_path / "out")
    big = ["--data-binary", "x" * 100000]
    assert h.get("/files/file.txt", *h.both) == ("2 200", b"a file\n")
    said, body = h.get("/closed/x", *h.both)
    assert said == "2 200" and h.id in body.decode()
    said, body = h.get("/files/file.txt", *h.bearer)
    assert said == "2 401"
    assert json.loads(body)["code"] == "auth.fingerprint_mismatch"
    assert h.get("/closed/x")[0] == "2 401"
    assert h.get("/closed/x", *big)[0] == "2 401"
    assert h.get("/closed/x", *big, *h.both)[0] == "2 200"
    assert h.get("/admins/x", *big, *h.both)[0] == "2 403"


def test_http2_while_the_database_is_asked(stack, asking, tmp_path):
    h = H2(asking, tmp_path / "out")
    big = ["--data-binary", "x" * 100000]
    for _ in range(2):
        assert h.get("/files/file.txt", *h.both) == ("2 200", b"a file\n")
        assert h.get("/closed/x", *big, *h.both)[0] == "2 200"
        assert h.get("/admins/x", *big, *h.both)[0] == "2 403"
        assert h.get("/page/page.txt", *h.both) == ("2 200", b"please ask\n")
        held = lock(stack, 0.7)          # and once more, slowly
    assert h.get("/closed/x", *big, *h.both)[0] == "2 200"
    held.join()
    held = lock(stack, 1.0)
    for _ in range(5):                   # who leaves in the middle
        assert h.get("/closed/x", *big, *h.both, "--max-time", "0.1")[0] \
            .endswith("000")
    held.join()
    assert h.get("/closed/x", *big, *h.both)[0] == "2 200"


def test_plain_listener_is_for_loopback_names(gate, me):
    r = get(gate, "/closed/x", me, [("Host", "evil.example")])
    assert r.status == 421


# --- the record, the limits ---

def test_a_refusal_to_a_known_person_is_recorded(stack, gate):
    who = gate.new_user()
    n = "select count(*) from audit_logs where actor = '%s' and " \
        "outcome = 403" % who.id
    for path, want in (("/admins/x", 1), ("/page/page.txt", 2),
                       ("/shipped/page.txt", 3)):
        get(gate, path, who)
        assert int(stack.one(n)) == want, path
    get(gate, "/closed/x", who)
    assert int(stack.one(n)) == 3


def test_counted_in_class_default(stack, behind):
    x = gateway(stack, behind, sub=[
        (r"healthmate_limits \w+;",
         "healthmate_limits on; healthmate_rate_limit default 12 60s;")])
    x.start()
    try:
        who = x.new_user(source="127.0.0.77")
        left = []
        for path in ("/files/file.txt", "/closed/x", "/index/",
                     "/try/else", "/files/nothing.txt", "/accel/x",
                     "/mirrored/x"):
            r = get(x, path, who)
            m = re.match(r'"default";r=(\d+);t=\d+$', r.header("ratelimit"))
            assert len(r.headers("ratelimit")) == 1
            assert r.header("ratelimit-policy") == '"default";q=12;w=60'
            left.append(int(m.group(1)))
        # Once for each request, whatever nginx does with it inside.
        assert left == list(range(11, 4, -1)), left
        for _ in range(5):
            assert get(x, "/closed/x", who).status == 200
        r = get(x, "/closed/x", who)
        problem(r, 429, "rate.limited")
        assert 0 < int(r.header("retry-after")) <= 60
        r = get(x, "/shipped/page.txt", who)         # through an error page
        problem(r, 429, "rate.limited")
        assert len(r.headers("retry-after")) == 1
        assert get(x, "/page/page.txt", who).status == 429
        # Another person is not the one who asked too often.
        other = x.new_user(source="127.0.0.78")
        assert get(x, "/closed/x", other).status == 200
    finally:
        x.stop()


def test_who_owes_a_second_factor(stack, behind):
    """A session that may only enrol opens no other location either."""
    x = gateway(stack, behind, http="healthmate_mfa_required admin;\n")
    x.start()
    try:
        boss, me = x.new_user(role="admin"), x.new_user()
        for path in ("/closed/x", "/files/file.txt", "/open/x", "/admins/x"):
            problem(get(x, path, boss), 401, "auth.mfa_required")
        assert get(x, "/closed/x", me).status == 200
        assert "x-user" not in reached(get(x, "/near/x", boss))
    finally:
        x.stop()


# --- revocation ---

def second_refused(x, who, since):
    """A second after it was committed, from every worker."""
    time.sleep(max(0.0, since + 1.0 - time.monotonic()))
    for path in ("/closed/x", "/files/file.txt", "/open/x", "/near/x") * 5:
        r = get(x, path, who)
        if path == "/near/x":            # by address, as nobody
            assert "x-user" not in reached(r)
        else:
            problem(r, 401, "auth.session_revoked")


def test_ended_and_disabled(stack, gate):
    a, b = gate.new_user(), gate.new_user()
    for who in (a, b):
        for _ in range(4):
            assert get(gate, "/closed/x", who).status == 200
    stack.psql("select hm_end_session('%s', 'test')" % session_of(a)["sid"])
    stack.psql("update users set is_active = false where id = '%s'" % b.id)
    t = time.monotonic()
    second_refused(gate, a, t)
    second_refused(gate, b, t)
    # An admin who is none any more is no admin here either.
    c = gate.new_user(role="admin")
    assert get(gate, "/admins/x", c).status == 200
    stack.psql("update users set role = 'patient' where id = '%s'" % c.id)
    time.sleep(1)
    assert get(gate, "/admins/x", c).status == 401


@pytest.fixture
def asking(stack, behind):
    """A feed without room: each request asks the database first."""
    x = gateway(stack, behind, sub=[
        (r"(?m)^healthmate_zone .*;", r"\g<0> healthmate_feed_zone 64k;")])
    x.start()
    x.people = [x.new_user(), x.new_user(), x.new_user(role="admin")]
    text = x.client().root("GET", "/metrics").text
    room = int(float(re.search(r"(?m)^healthmate_feed_room (\S+)$",
                               text).group(1)))
    stack.psql("select count(hm_revoke('session', gen_random_uuid(),"
               " gen_random_uuid(), interval '25 s'))"
               " from generate_series(1, %d)" % (room + 50))
    wait(lambda: state(x) == "full", 5, 0.05, "a full zone")
    yield x
    x.stop()
    stack.psql("delete from revocations where expires_at < now() + "
               "interval '30 s'", check=False)


def state(x):
    r = x.client().root("GET", "/ready", check=False)
    return json.loads(r.body)["checks"]["revocation"]["status"]


def asked(x):
    text = x.client().root("GET", "/metrics").text
    return float(re.search(r"(?m)^healthmate_feed_asked_total (\S+)$",
                           text).group(1))


def lock(stack, seconds):
    """Whoever asks for a session waits so long."""
    t = threading.Thread(target=stack.psql, args=(
        "begin; lock table sessions in access exclusive mode;"
        " select pg_sleep(%f); rollback" % seconds,), daemon=True)
    t.start()
    wait(lambda: stack.one("select count(*) from pg_locks where relation = "
                           "'sessions'::regclass and granted and mode = "
                           "'AccessExclusiveLock'") == "1", 5, 0.02)
    return t


def test_the_database_is_asked(stack, asking, behind, tmp_path):
    x = asking
    a, b, boss = x.people
    n = asked(x)
    assert get(x, "/files/file.txt", a).body == b"a file\n"
    assert reached(get(x, "/closed/x", a))["x-user"] == [a.id]
    assert get(x, "/index/", a).body == b"an index\n"
    assert get(x, "/accel/x", a).body == b"a file\n"
    assert reached(get(x, "/try/else", a))["x-user"] == [a.id]
    assert asked(x) == n + 5             # once for each request
    r = get(x, "/closed/x", a, method="POST", body=b"x" * 300000)
    assert r.status == 200
    problem(get(x, "/admins/x", a), 403, "access.denied")
    assert get(x, "/page/page.txt", a).body == b"please ask\n"
    problem(get(x, "/shipped/page.txt", a), 403, "access.denied")
    assert get(x, "/admins/x", boss).status == 200
    assert reached(get(x, "/near/x", a))["x-user"] == [a.id]
    assert reached(get(x, "/early/x", a))["x-user"] == [a.id]
    assert "x-user" not in reached(get(x, "/open/x"))

    # Two at once on one connection, the second behind a body.
    out = exchange(x.http, b"".join(
        b"POST /closed/%d HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: 5\r\nConnection: %s\r\nAuthorization: Bearer %s"
        b"\r\n\r\nhello" % (i, b"close" if i else b"keep-alive",
                              a.token.encode()) for i in range(2)))
    one, rest = parse_response(out)
    two, rest = parse_response(rest)
    assert (one.status, two.status, rest) == (200, 200, b"")

    # The database says no.
    stack.psql("select hm_end_session('%s', 'test')" % session_of(a)["sid"])
    second_refused(x, a, time.monotonic() - 1)
    assert get(x, "/page/page.txt", a).body == b"please log in\n"
    problem(get(x, "/shipped/page.txt", a), 401, "auth.session_revoked")
    stack.psql("update users set is_active = false where id = '%s'" % boss.id)
    assert get(x, "/admins/x", boss).status == 401
    assert get(x, "/closed/x", b).status == 200


def test_waiting_for_the_database(stack, asking):
    """Requests stand still, clients leave, a reload comes; then all go on."""
    import socket
    x = asking
    b = x.people[1]
    held = lock(stack, 1.5)
    out, began = [], time.monotonic()
    paths = ["/closed/x", "/files/big.bin", "/index/", "/try/else",
             "/admins/x", "/page/page.txt", "/near/x", "/mirrored/x"]
    threads = [threading.Thread(target=lambda p=p: out.append(
        (p, get(x, p, b, method="POST" if p == "/closed/x" else "GET",
                body=b"y" * 200000 if p == "/closed/x" else None))))
        for p in paths]
    [t.start() for t in threads]
    gone = []
    for i in range(30):
        s = socket.create_connection(("127.0.0.1", x.http))
        s.sendall(b"GET /closed/x HTTP/1.1\r\nHost: localhost\r\n"
                  b"Authorization: Bearer " + b.token.encode()
                  + b"\r\n\r\n")
        gone.append(s)
    time.sleep(0.3)
    [s.close() for s in gone]
    x.hup()                              # while they wait
    [t.join(20) for t in threads]
    held.join()
    assert time.monotonic() - began >= 1.2
    got = {p: r for p, r in out}
    assert set(got) == set(paths)
    assert got["/admins/x"].status == 403
    assert got["/page/page.txt"].body == b"please ask\n"
    for p in set(paths) - {"/admins/x"}:
        assert got[p].status == 200, (p, got[p])
    assert len(got["/files/big.bin"].body) == 3200000


@pytest.mark.alerts("no answer from the database")
def test_who_cannot_be_asked_for_is_not_let_in(stack, asking, behind):
    x = asking
    b = x.people[1]
    x.sub.append((r"healthmate_database_timeout [^;]*;",
                  "healthmate_database_timeout 400ms;"))
    x.sync().hup()
    wait(lambda: state(x) == "full", 5, 0.05, "a full zone")
    n = behind.seen
    held = lock(stack, 2.5)
    for path in ("/closed/x", "/files/file.txt", "/open/x", "/try/else",
                 "/shipped/page.txt"):
        r = get(x, path, b)
        assert r.status in (503, 504), (path, r)
        assert json.loads(r.body)["code"].startswith("server."), r
        assert b"a file" not in r.body
    assert behind.seen == n
    held.join()
    assert get(x, "/closed/x", b).status == 200


# --- reload, faults ---

def test_reload_under_load(gate, me):
    stop = threading.Event()
    count, lost = collections.Counter(), []

    def run(n):
        c = Conn(gate.http)
        paths = ["/closed/x", "/files/file.txt", "/open/x", "/index/"]
        k = n
        while not stop.is_set():
            k += 1
            try:
                r = c.request("GET", paths[k % 4], None, [
                    ("Authorization", "Bearer " + me.token)])
                count[r.status] += 1
            except hmhttp.Lost as e:
                lost.append(str(e))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    [t.start() for t in threads]
    try:
        for _ in range(3):
            time.sleep(0.7)
            gate.hup()
        time.sleep(0.7)
    finally:
        stop.set()
        [t.join(20) for t in threads]
    assert not lost, lost[:5]
    assert set(count) == {200} and count[200] > 200, count


def test_slow_answer_across_a_reload(gate, me):
    out = []
    t = threading.Thread(target=lambda: out.append(
        get(gate, "/closed/slow", me)))
    t.start()
    time.sleep(0.3)
    gate.hup()
    t.join(15)
    assert out[0].status == 200
    assert reached(out[0])["x-user"] == [me.id]


FAULTS = [
    ("location /x/ { healthmate_auth maybe; }",
     r'"healthmate_auth" directive is on, optional or off'),
    ("location /x/ { healthmate_auth; }", r"invalid number of arguments"),
    ("location /x/ { healthmate_auth on on; }",
     r"invalid number of arguments"),
    ("location /x/ { healthmate_auth on; healthmate_auth off; }",
     r"is duplicate"),
    ("location /x/ { healthmate_auth on; healthmate_permission root; }",
     r'there is no permission "root"'),
    ("location /x/ { healthmate_auth on; healthmate_permission none; }",
     r'there is no permission "none"'),
    ("location /x/ { healthmate_auth on; healthmate_permission chat; "
     "healthmate_permission chat; }", r"is duplicate"),
    ("location /x/ { healthmate_permission chat; }",
     r"healthmate_permission needs healthmate_auth on"),
    ("location /x/ { healthmate_auth optional; healthmate_permission chat; }",
     r"healthmate_permission needs healthmate_auth on"),
    ("location /x/ { healthmate_auth off; healthmate_permission chat; }",
     r"healthmate_permission needs healthmate_auth on"),
    ("location /x/ { healthmate_auth on; healthmate_api on; }",
     r"does not go with healthmate_api"),
    ("location /x/ { healthmate_auth on; healthmate_problem on; }",
     r"does not go with healthmate_api"),
    ("set $healthmate_user_id 1;", r"healthmate_user_id"),
    ("set $healthmate_role admin;", r"healthmate_role"),
]


def test_nginx_t(stack):
    x = Nginx(stack)
    try:
        for text, say in FAULTS:
            x.text_server = "\n    " + text + "\n"
            good, said = x.sync().check()
            assert not good and re.search(say, said), (text, said)
            # In the file and line of the directive.
            assert re.search(r"nginx\.conf:(\d+)", said), said
        for text in (
                "healthmate_auth on; healthmate_permission chat;",
                "healthmate_auth on; location /x/ { healthmate_auth off; }",
                "location /x/ { healthmate_auth on; healthmate_permission "
                "chat; location /x/y/ { healthmate_auth off; } }"):
            x.text_server = "\n    " + text + "\n"
            good, said = x.sync().check()
            assert good, (text, said)
        x.text_server = ""
        x.text_http = "healthmate_permission chat;\n"
        good, said = x.sync().check()
        assert not good and "needs healthmate_auth on" in said
        x.text_http = "healthmate_auth on;\n"
        good, said = x.sync().check()
        assert good, said
        x.text_http = ""
        x.text_server = "\n    location /x/ { healthmate_auth on; }\n"
        x.sub = [(r"(?m)^healthmate_(database|kek_file|jwt_key) .*$", "")]
        good, said = x.sync().check()
        assert not good and "healthmate_auth needs healthmate_database" \
            in said and re.search(r"nginx\.conf:\d+", said)
    finally:
        x.stop()


def test_auth_on_for_the_whole_server(stack, behind):
    """The API keeps its own gate: one can still log in."""
    x = Nginx(stack, server="""
    healthmate_auth on;
    location /there/ { proxy_pass http://127.0.0.1:%d/; }
    location /free/ { healthmate_auth off;
                      proxy_pass http://127.0.0.1:%d/; }
""" % (behind.server_port, behind.server_port)).start()
    try:
        who = x.new_user()
        assert get(x, "/api/v1/auth/me", who).status == 200
        problem(get(x, "/api/v1/auth/me"), 401, "auth.token_missing")
        assert get(x, "/health").status == 200
        assert get(x, "/there/x").status == 401
        assert get(x, "/there/x", who).status == 200
        assert get(x, "/free/x").status == 200
        # What is nowhere is nowhere, for those who may ask.
        assert get(x, "/somewhere").status in (401, 404)
    finally:
        x.stop()


def test_clients_that_leave(stack, gate, me):
    """In the middle of it, many times; nobody is left waiting."""
    workers = set(gate.workers())
    head = (b"GET /admins/slow HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer " + me.token.encode() + b"\r\n\r\n")
    import socket
    for i in range(60):
        s = socket.create_connection(("127.0.0.1", gate.http))
        s.sendall(head)
        if i % 3 == 0:
            time.sleep(0.002)
        s.close()
    assert get(gate, "/closed/x", me).status == 200
    assert set(gate.workers()) == workers
