"""
The edge: TLS, ticket keys, sizes, slow clients, limits by address, logs, the
listeners of production and what nginx -t refuses there.  Each on a second
nginx (hmedge) beside the session's stack.

test_edge_wire.py has the malformed bytes, test_edge_waf.py the firewall,
test_edge_acme.py certificates, test_edge_testssl.py the long look at TLS.
"""

import os
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest

import hmhttp
from hmedge import CA, NAME, Edge, json_lines, run, tls_context
from hmhttp import BASE, exchange, ok, parse_response, problem
from hmstack import ROOT, wait

HD = "/health-data"


@pytest.fixture(scope="module")
def edge(stack):
    with Edge(stack) as e:
        yield e


@pytest.fixture(scope="module")
def shop(stack):
    """production.conf.example, with real certificate files."""
    with Edge(stack, production=True) as e:
        yield e


def connect(port, ctx, name=None, session=None):
    s = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return ctx.wrap_socket(s, server_hostname=name, session=session)
    except BaseException:
        s.close()
        raise


def get(s, path="/health", host="localhost"):
    s.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
               % (path, host)).encode())
    out = b""
    while True:
        part = s.recv(65536)
        if not part:
            return parse_response(out)[0]
        out += part


# --- TLS ---

@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(edge, version):
    v = getattr(ssl.TLSVersion, version)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(edge.https, tls_context(v, v, "ALL:@SECLEVEL=0"))


def test_both_versions_with_forward_secrecy(edge):
    for v, want in ((ssl.TLSVersion.TLSv1_2, r"^ECDHE-ECDSA-"),
                    (ssl.TLSVersion.TLSv1_3, r"^TLS_")):
        s = connect(edge.https, tls_context(v, v))
        assert re.match(want, s.cipher()[0]), s.cipher()
        assert s.compression() is None
        s.close()


@pytest.mark.parametrize("suite", [
    "AES128-GCM-SHA256", "AES256-SHA", "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA384", "DHE-RSA-AES128-GCM-SHA256", "NULL", "aNULL",
    "ECDHE-ECDSA-AES128-CCM"])
def test_weak_suites_are_refused(edge, suite):
    v = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(edge.https, tls_context(v, v, suite + ":@SECLEVEL=0"))


def test_the_order_is_the_servers_but_for_chacha(edge):
    v = ssl.TLSVersion.TLSv1_2
    a, c = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
    p = "ECDHE-ECDSA-CHACHA20-POLY1305"
    got = []
    for order in ((a, c), (c, a), (p, a, c), (a, p, c)):
        s = connect(edge.https, tls_context(v, v, ":".join(order)))
        got.append(s.cipher()[0])
        s.close()
    assert got == [a, a, p, a]


def test_the_certificate_is_p256(stack):
    r = run("openssl", "x509", "-noout", "-text", "-in",
            stack.real + "/tls/cert.pem")
    assert "prime256v1" in r.stdout and "ecdsa-with-SHA256" in r.stdout
    for f in ("key.pem",):
        assert os.stat(stack.real + "/tls/" + f).st_mode & 0o077 == 0


def test_alpn_offers_http2(edge):
    s = connect(edge.https, tls_context(alpn=["h2", "http/1.1"]))
    assert s.selected_alpn_protocol() == "h2"
    s.close()


# --- session tickets ---

def ticket(edge, v, ctx=None, session=None):
    """(context, session, was it resumed)."""
    ctx = ctx or tls_context(v, v)
    s = connect(edge.https, ctx, session=session)
    r = get(s)                    # the tickets of 1.3 come with the answer
    assert r.status == 200
    reused, session = s.session_reused, s.session
    s.close()
    return ctx, session, reused


def rotate(edge):
    run(ROOT + "/deploy/lib/tickets", edge.tickets, "rotate")
    edge.hup()


@pytest.mark.parametrize("v", [ssl.TLSVersion.TLSv1_2,
                               ssl.TLSVersion.TLSv1_3])
def test_a_ticket_survives_reloads_and_two_rotations(edge, v):
    ctx, first, reused = ticket(edge, v)
    assert not reused and first.has_ticket
    assert ticket(edge, v, ctx, first)[2]
    edge.hup()
    assert ticket(edge, v, ctx, first)[2], "after a reload"
    for n in (1, 2):
        rotate(edge)
        _, newer, reused = ticket(edge, v, ctx, first)
        assert reused, "after %d rotations" % n
    rotate(edge)
    assert not ticket(edge, v, ctx, first)[2], "an old key still opens"
    # Who came in between was given a ticket under a newer key.
    assert ticket(edge, v, ctx, newer)[2]


def test_tickets_are_for_all_workers_and_nobody_else(edge, stack):
    for e in (edge.tickets, os.path.dirname(stack.env["PGHOST"])
              + "/tickets"):
        assert os.stat(e).st_mode & 0o777 == 0o700
        for n in "012":
            assert os.stat(e + "/" + n).st_mode & 0o777 == 0o600
    if os.getuid() == 0:
        assert subprocess.run(
            ["setpriv", "--reuid", "hm-nginx", "--regid", "hm-nginx",
             "--init-groups", "cat", edge.tickets + "/0"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode != 0


def test_the_local_stack_rotates_by_itself(edge, tmp_path):
    """deploy/lib/chores, in a hurry."""
    binary = edge.top + "/bin"
    os.makedirs(binary, exist_ok=True)
    run("cp", ROOT + "/deploy/lib/tickets", binary)
    conf = tmp_path / "logrotate.conf"
    conf.write_text("missingok\n")
    before = open(edge.tickets + "/0", "rb").read()
    old = set(edge.workers(old=False))
    p = subprocess.Popen(
        [ROOT + "/deploy/lib/chores", edge.top, edge.tickets,
         edge.pids + "/nginx.pid", str(conf)],
        env=dict(os.environ, HEALTHMATE_CHORES_PAUSE="0.3",
                 HEALTHMATE_TICKET_HOURS="0"))
    try:
        wait(lambda: open(edge.tickets + "/2", "rb").read() == before, 10,
             what="two rotations")
        wait(lambda: set(edge.workers(old=False)) - old, 10)
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(10) == 0
    wait(lambda: not edge.workers(old=True), 10)
    assert edge.client().root("GET", "/health").status == 200


def test_the_stack_has_its_chores(stack):
    p = stack.pid_of("chores")
    assert b"/bin/chores" in open("/proc/%d/cmdline" % p, "rb").read()
    assert "access.log" in open(stack.real + "/conf/logrotate.conf").read()


# --- OCSP ---

def test_stapling(stack, tmp_path):
    port = hmhttp.free_port()
    ca = CA(str(tmp_path / "ca"), "http://127.0.0.1:%d" % port)
    with Edge(stack, production=True, ca=ca) as e:
        d = e.etc + "/tls/current"
        n = ca.serial
        index = tmp_path / "index.txt"
        index.write_text("V\t361231235959Z\t\t%04X\tunknown\t/CN=%s\n"
                         % (n, NAME))
        responder = subprocess.Popen(
            ["openssl", "ocsp", "-index", str(index), "-port", str(port),
             "-rsigner", ca.cert, "-rkey", ca.key, "-CA", ca.cert,
             "-ndays", "7"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            def stapled():
                return "OCSP Response Status: successful" in run(
                    "openssl", "s_client", "-connect",
                    "127.0.0.1:%d" % e.https, "-servername", NAME,
                    "-status", check=False, timeout=10).stdout
            wait(stapled, 15, 0.3, "a stapled answer")
        finally:
            responder.terminate()
            responder.wait()
        assert os.path.exists(d + "/chain.pem")


# --- production's listeners ---

@pytest.fixture(scope="module")
def pass_of_operators(shop):
    cert, key = shop.ca.client(shop.top + "/op", "ops")
    ctx = ssl.create_default_context(cafile=shop.ca.cert)
    ctx.load_cert_chain(cert, key)
    return ctx


def public(shop, path, method="GET"):
    ctx = ssl.create_default_context(cafile=shop.ca.cert)
    s = connect(shop.https, ctx, NAME)
    try:
        return get(s, path, NAME)
    finally:
        s.close()


def test_production_starts_and_answers(shop):
    r = public(shop, "/health")
    assert r.status == 200
    assert r.header("strict-transport-security") == "max-age=31536000"
    problem(public(shop, BASE + "/health-data"), 401, "auth.token_missing")


@pytest.mark.parametrize("v", [ssl.TLSVersion.TLSv1_2,
                               ssl.TLSVersion.TLSv1_3])
def test_resumption_in_production(shop, v):
    """The server that refuses other names comes first; it must not spoil
    the tickets of the one behind it."""
    ctx, session, got = tls_context(v, v), None, []
    for _ in range(3):
        s = connect(shop.https, ctx, NAME, session)
        assert get(s, "/health", NAME).status == 200
        got.append(s.session_reused)
        session = s.session
        s.close()
    assert got == [False, True, True]


@pytest.mark.parametrize("path", ["/metrics", "/ready", "/docs", "/version",
                                  "/openapi.json"])
def test_what_is_the_operators_alone(shop, pass_of_operators, path):
    problem(public(shop, path), 404, "resource.not_found")
    host = NAME
    s = connect(shop.operators, pass_of_operators, host)
    r = get(s, path, host)
    s.close()
    assert r.status == 200, r
    nobody = ssl.create_default_context(cafile=shop.ca.cert)
    s = connect(shop.operators, nobody, host)
    r = get(s, path, host)
    s.close()
    assert r.status == 400 and r.code == "request.malformed", r


def test_operators_listener_has_no_api(shop, pass_of_operators):
    host = NAME
    for path in (BASE + "/health-data", BASE + "/auth/login"):
        s = connect(shop.operators, pass_of_operators, host)
        problem(get(s, path, host), 404, "resource.not_found")
        s.close()


def test_who_does_not_know_the_name_gets_no_certificate(shop):
    for name in (None, "localhost", "example.org", "x." + NAME):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(shop.https, tls_context(), name)


def test_port_80_is_for_acme(shop):
    def ask(path, extra=""):
        out = exchange(shop.acme, ("GET %s HTTP/1.1\r\nHost: %s\r\n%s"
                                   "Connection: close\r\n\r\n"
                                   % (path, NAME, extra)).encode())
        return parse_response(out)[0]
    folder = shop.top + "/var/lib/healthmate/acme/.well-known/acme-challenge"
    os.makedirs(folder, exist_ok=True)
    open(folder + "/abc", "w").write("abc.def")
    assert ask("/.well-known/acme-challenge/abc").text == "abc.def"
    assert ask("/.well-known/acme-challenge/../../x").status in (308, 404)
    r = ask("/")
    assert (r.status, r.header("location")) == (308, "https://%s/" % NAME)
    # Neither a redirect nor an answer: a token in clear must be noticed.
    assert ask(BASE + "/auth/me", "Authorization: Bearer x\r\n").status == 404
    r = ask("/%0d%0aX-Evil:%201")
    assert r.header("x-evil") is None and r.status == 308


# --- what nginx -t refuses in production ---

def changed(stack, *edits):
    e = Edge(stack, production=True, edits=edits)
    try:
        return e.make().test()
    finally:
        e.stop()


def test_the_example_is_taken(stack):
    rc, said = changed(stack)
    assert rc == 0 and "test is successful" in said, said
    rest = [x for x in said.splitlines()
            if "syntax is ok" not in x and "is successful" not in x
            and "no OCSP responder" not in x]
    assert not rest, rest


REFUSED = [
    ("demo accounts", ("healthmate_zone 32m;",
                       "healthmate_zone 32m; healthmate_demo on;")),
    ("healthmate_limits", ("healthmate_zone 32m;",
                           "healthmate_zone 32m; healthmate_limits off;")),
    ("fingerprint", ("fingerprint on;", "fingerprint optional;")),
    ("fingerprint", ("fingerprint on;", "fingerprint off;")),
    ("healthmate_audit must", ("audit strict;", "audit bounded;")),
    ("healthmate_register", ("register verified;", "register open;")),
    ("plain listener", ("ssl_verify_client on;",
                        "ssl_verify_client on; healthmate_plain on;")),
]


@pytest.mark.parametrize("word,edit", REFUSED,
                         ids=["%d-%s" % (i, w.split()[0])
                              for i, (w, _) in enumerate(REFUSED)])
def test_refused_in_production(stack, word, edit):
    rc, said = changed(stack, ("nginx.conf",) + edit)
    lines = [x for x in said.splitlines() if "[emerg]" in x]
    assert rc != 0 and len(lines) == 1 and word in lines[0], said


def test_refused_a_kek_in_the_data_folder(stack):
    e = Edge(stack, production=True)
    try:
        e.make()
        os.makedirs(e.top + "/pg/data")
        run("cp", "-p", e.etc + "/keys/kek", e.top + "/pg/kek")
        p = e.conf + "/nginx.conf"
        text = open(p).read().replace(e.etc + "/keys/kek", e.top + "/pg/kek")
        open(p, "w").write(text)
        rc, said = e.test()
        assert rc != 0 and "healthmate_kek_file lies in" in said, said
    finally:
        e.stop()


WORKER = dict(HEALTHMATE_ENVIRONMENT="production", HEALTHMATE_DEMO="off",
              HEALTHMATE_FINGERPRINT="on", HEALTHMATE_HTTP_PORT="off",
              HEALTHMATE_MAIL="smtp", SMTP_HOST="mail.example.org",
              SMTP_FROM="healthmate@example.org",
              HEALTHMATE_PUBLIC_URL="https://" + NAME)


def check_worker(stack, **changes):
    env = dict(WORKER, PATH=os.environ["PATH"],
               DATABASE_URL=stack.env["DATABASE_URL"],
               HEALTHMATE_KEK_FILE=stack.env["HEALTHMATE_KEK_FILE"])
    env.update(changes)
    r = run(ROOT + "/build/healthmate-worker", "--check", env=env,
            check=False)
    return r.returncode, r.stdout


def test_the_worker_is_fine_in_production(stack):
    rc, said = check_worker(stack)
    assert rc == 0, said


@pytest.mark.parametrize("name,value", [
    ("HEALTHMATE_DEMO", "on"), ("HEALTHMATE_LIMITS", "off"),
    ("HEALTHMATE_FINGERPRINT", "optional"), ("HEALTHMATE_AUDIT", "bounded"),
    ("HEALTHMATE_HTTP_PORT", "8080"), ("HEALTHMATE_MAIL", "outbox"),
    ("HEALTHMATE_REGISTER", "open")])
def test_refused_by_the_worker_in_production(stack, name, value):
    rc, said = check_worker(stack, **{name: value})
    lines = [x for x in said.splitlines() if "refused in production" in x]
    assert rc != 0 and len(lines) == 1 and name in lines[0], said


def test_every_fault_is_named(stack):
    rc, said = changed(
        stack, ("nginx.conf", "fingerprint on;", "fingerprint off;"),
        ("nginx.conf", "audit strict;", "audit bounded;"),
        ("nginx.conf", "register verified;", "register open;"))
    assert rc != 0 and said.count("healthmate_environment production:") == 3


def test_an_unmarked_plain_listener_serves_nothing(stack):
    """Without healthmate_plain nginx -t cannot know it; the module does."""
    port = hmhttp.free_port()
    with Edge(stack, production=True, edits=[
            ("nginx.conf", "    # Port 80, for ACME.",
             "    server { listen 127.0.0.1:%d; include headers.conf;\n"
             "      include api.conf; include errors.conf; }\n" % port)]):
        for path in ("/health", BASE + "/health-data"):
            out = exchange(port, ("GET %s HTTP/1.1\r\nHost: localhost\r\n"
                                  "Connection: close\r\n\r\n"
                                  % path).encode())
            problem(parse_response(out)[0], 421, "request.misdirected")


# --- /.well-known ---

def test_security_txt(edge):
    r = edge.client().root("GET", "/.well-known/security.txt")
    assert r.status == 200
    assert r.header("content-type") == "text/plain; charset=utf-8"
    fields = dict(x.split(": ", 1) for x in r.text.splitlines())
    assert fields["Contact"].startswith("mailto:")
    until = time.strptime(fields["Expires"], "%Y-%m-%dT%H:%M:%S.000Z")
    days = (time.mktime(until) - time.mktime(time.gmtime())) / 86400
    assert 150 < days < 365


def test_change_password(edge):
    r = edge.client().root("GET", "/.well-known/change-password")
    assert (r.status, r.header("location")) == (302, "/account/password")
    r = edge.client().root("POST", "/.well-known/change-password")
    problem(r, 405, "request.method_not_allowed")


def test_no_contact_no_security_txt(stack):
    with Edge(stack, edits=[("healthmate.conf", "healthmate_security_contact",
                             "# healthmate_security_contact")]) as e:
        problem(e.client().root("GET", "/.well-known/security.txt"), 404)


# --- limits by address ---

def test_requests_by_address(stack):
    with Edge(stack, edits=[("address.conf", "burst=3000", "burst=5"),
                            ("limits.conf", "rate=300r/s",
                             "rate=1r/m")]) as e:
        c = e.client()
        got = [c.raw("GET", "/health") for _ in range(9)]
        assert [r.status for r in got] == [200] * 6 + [429] * 3
        problem(got[-1], 429, "rate.limited")
        assert int(got[-1].header("retry-after")) >= 1
        # Another address, and the plain listener of this machine.
        assert e.client(source="127.0.0.9").raw("GET",
                                                "/health").status == 200
        assert e.client(tls=False).raw("GET", "/health").status == 200


def test_connections_by_address(stack, user):
    """Bodies that do not come hold a place; others stay outside."""
    with Edge(stack, edits=[("address.conf", "hm_connections 256",
                             "hm_connections 3")]) as e:
        held = []
        for _ in range(3):
            s = connect(e.https, tls_context())
            s.sendall(b"POST /api/v1/health-data HTTP/1.1\r\nHost: localhost"
                      b"\r\nContent-Type: application/json\r\nAuthorization: "
                      b"Bearer " + user.token.encode() +
                      b"\r\nContent-Length: 500\r\n\r\n{")
            held.append(s)
        c = e.client()
        r = wait(lambda: (lambda x: x if x.status == 429 else None)(
            c.raw("GET", "/health")), 5)
        problem(r, 429, "rate.limited")
        for s in held:
            s.close()
        wait(lambda: c.raw("GET", "/health").status == 200, 5)


def test_a_clinic_is_not_limited(edge, user):
    """600 requests from one address as fast as they go."""
    c = edge.client(user.token)
    assert {c.get("/health-data?limit=1").status
            for _ in range(600)} == {200}


def test_limits_off_count_and_refuse_nobody(stack):
    with Edge(stack, unlimited=True, edits=[
            ("address.conf", "burst=3000", "burst=2"),
            ("limits.conf", "rate=300r/s", "rate=1r/m")]) as e:
        c = e.client()
        assert {c.raw("GET", "/health").status for _ in range(20)} == {200}


# --- slow clients ---

def test_slow_clients_go_and_hold_nobody_up(edge, user):
    """Slow headers, slow bodies and readers, 15 s each, all at once."""
    auth = b"Authorization: Bearer " + user.token.encode() + b"\r\n"
    start = b"POST /api/v1/health-data HTTP/1.1\r\nHost: localhost\r\n" + auth
    body = start + (b"Content-Type: application/json\r\n"
                    b"Content-Length: 500\r\n\r\n{")
    trickle, silent, bodies, drops = [], [], [], []
    for group, data, n in ((trickle, b"GET / HTTP/1.1\r\nX-A: ", 120),
                           (silent, start, 60), (bodies, body, 60),
                           (drops, body, 60)):
        for _ in range(n):
            s = socket.create_connection(("127.0.0.1", edge.http))
            s.setblocking(False)
            s.sendall(data)
            group.append(s)
    begun = time.monotonic()
    worst, asked = 0.0, 0
    c = edge.client(user.token, tls=False)
    drip = 0.0
    while time.monotonic() - begun < 17.5:
        t = time.monotonic()
        ok(c.get("/health-data?limit=1"))
        worst = max(worst, time.monotonic() - t)
        asked += 1
        if t - drip > 1:
            drip = t
            for s in trickle + drops:
                try:
                    s.sendall(b"a")
                except OSError:
                    pass
        time.sleep(0.02)

    def gone(s):
        s.setblocking(True)
        s.settimeout(0.5)
        out = b""
        try:
            while True:
                part = s.recv(65536)
                if not part:
                    return True, out
                out += part
        except ConnectionError:
            return True, out
        except OSError:
            return False, out

    for name, group in (("trickle", trickle), ("silent", silent),
                        ("bodies", bodies), ("drops", drops)):
        ends = [gone(s) for s in group]
        assert all(g for g, _ in ends), name
        assert all(out == b"" or b" 408 " in out.split(b"\r\n")[0]
                   for _, out in ends), name
        for s in group:
            s.close()
    assert asked > 200 and worst < 1.0, (asked, worst)
    assert c.get("/health-data?limit=1").status == 200


# --- logs ---

def settle(e, text, name="access.log"):
    return wait(lambda: text in e.log(name) and e.log(name), 5,
                what="the log to have " + text)


def test_log_lines_are_json_and_say_little(stack, user):
    canary = "canary%s" % os.urandom(6).hex()
    with Edge(stack) as e:
        c = e.client(user.token)
        rec = user.record(notes=canary + "-note").json()
        c.get("/health-data/" + rec["id"])
        c.get("/health-data?source=" + canary)
        c.get("/health-data/" + canary)
        c.raw("GET", "/%s?%s=1" % (canary, canary))
        c.raw("GET", "/api/v1/reset/" + user.token)
        c.post("/auth/login", {"email": canary + "@example.org",
                               "password": canary}, token=None)
        c.post("/health-data", {"data_type": canary, "notes": canary})
        c.get("/auth/me", headers={
            "Cookie": "__Secure-hm-fgp=" + canary, "Referer":
            "https://x/?" + canary, "User-Agent": canary,
            "X-Forwarded-For": canary, "X-Request-ID": "a\x0b" + canary,
            "traceparent": canary})
        for raw in (b"GET /\r\n", b"GET / HTTP/0.9\r\n\r\n", b"\r\n\r\n",
                    b"GET /%22%0a%7b%ff\"\\ HTTP/1.1\r\nHost: localhost\r\n"
                    b"Connection: close\r\n\r\n",
                    b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n"
                    b"Connection: close\r\n\r\n",
                    b"BREW /\" HTTP/1.1\r\nHost: localhost\r\n"
                    b"Connection: close\r\n\r\n",
                    b"GET /" + canary.encode() * 2000 + b" HTTP/1.1\r\n\r\n",
                    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 70000
                    + b"\r\n\r\n", b"\x16\x03\x01" + b"a" * 50,
                    b"GET / HTTP/1.1\r\nHost: l\r\n" + canary.encode()):
            exchange(e.http, raw, timeout=1, shut=True)
            try:
                exchange(e.https, raw, tls=True, timeout=1)
            except OSError:
                pass                    # closed while we were still writing
        c.get("/health-data?limit=7", headers={"X-Request-ID": "last-one"})
        settle(e, "last-one")
        lines = json_lines(e.log("access.log"))
        assert len(lines) > 20
        all_ = e.everything()
        assert canary not in all_, [x for x in all_.splitlines()
                                    if canary in x][:3]
        for secret in (user.token, user.token.split(".")[2], rec["id"],
                       user.email, user.id, "limit=7"):
            assert secret not in all_, secret
        paths = {d["url.path"] for d in lines}
        assert "/api/v1/health-data/{id}" in paths
        assert all(p == "" or p.startswith(("/api/v1/", "/auth", "/health"))
                   for p in paths), paths
        d = [x for x in lines if x["http.request.id"] == "last-one"][0]
        assert d["http.response.status_code"] == 200
        assert d["http.version"] == "1.1" and d["tls.version"] == "1.3"
        assert d["event.duration"] % 1000000 == 0
        assert d["client.address"] == "127.0.0.1"
        assert d["ecs.version"] and d["log.level"] == "info"


def test_error_lines_name_the_pattern_only(stack, user):
    """nginx would append the request line with its query, and Referer."""
    canary = "canary%s" % os.urandom(6).hex()
    with Edge(stack, edits=[
            ("address.conf", "burst=3000", "burst=1"),
            ("limits.conf", "rate=300r/s", "rate=1r/m"),
            ("limits.conf", "limit_req_log_level notice",
             "limit_req_log_level error")]) as e:
        c = e.client(user.token)
        for _ in range(4):
            c.get("/health-data?user_id=" + canary, headers={
                "Referer": "https://x/" + canary, "Host": "localhost",
                "X-Request-ID": "e-1"})
        for _ in range(2):
            c.raw("GET", "/" + canary)
        text = wait(lambda: e.log("error.log").count("limiting") >= 4
                    and e.log("error.log"), 5)
        assert canary not in text, text
        assert 'request: "GET /api/v1/health-data"' in text, text


def test_rotation_loses_no_line(stack):
    with Edge(stack) as e:
        conf = e.top + "/logrotate.conf"
        text = open(ROOT + "/deploy/conf/logrotate.conf").read()
        open(conf, "w").write(text.replace("@LOGS@", e.logs)
                              .replace("@PIDS@", e.pids))
        os.chmod(conf, 0o644)
        c = e.client()
        for i in range(60):
            c.raw("GET", BASE + "/nothing", headers=[
                ("X-Request-ID", "r-%d" % i)])
            if i in (20, 40):
                settle(e, "r-%d" % i)           # it is written in blocks
                r = run("logrotate", "-f", "-s", e.top + "/state", conf,
                        check=False)
                assert r.returncode == 0, r.stdout
        settle(e, "r-59")
        assert "r-39" in e.log("access.log.1")
        seen = [d["http.request.id"] for d in json_lines(
            "".join(e.log("access.log" + x) for x in (".2", ".1", "")))]
        assert sorted(x for x in seen if x.startswith("r-")) == sorted(
            "r-%d" % i for i in range(60))
        assert "r-0" in e.log("access.log.2")
        assert "r-59" in e.log("access.log")
        for d in os.listdir(e.logs):
            assert os.stat(e.logs + "/" + d).st_mode & 0o022 == 0, d


def test_unit_files_and_scripts_are_written(shop):
    top = shop.top
    for f in ("etc/systemd/system/healthmate-nginx.service",
              "etc/systemd/system/healthmate-tickets.timer",
              "etc/logrotate.d/healthmate",
              "usr/local/lib/healthmate/certificate"):
        assert os.path.exists(os.path.join(top, f)), f
    r = run(ROOT + "/deploy/production", top, check=False, env=dict(
        os.environ, HEALTHMATE_REGISTER="open"))
    assert r.returncode != 0 and "HEALTHMATE_REGISTER" in r.stdout
