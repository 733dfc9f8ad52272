"""
Mail over SMTP, against a server that is not ours (aiosmtpd): STARTTLS, AUTH,
what it refuses, loses and delays.  And registering under
`healthmate_register verified`, as production has it.

A stack of its own: both are settings of the whole.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile

import pytest

from hmhttp import ok, problem
from hmmail import Smtp
from hmstack import PASSWORD, ROOT, Stack, wait

pytest.importorskip("aiosmtpd")
WORKER = os.path.join(ROOT, "build", "healthmate-worker")
SENDER = "no-reply@health.example.org"


@pytest.fixture(scope="module")
def post():
    folder = tempfile.mkdtemp(prefix="hm-smtp-")
    os.chmod(folder, 0o755)
    server = Smtp(folder).start()
    secret = os.path.join(folder, "secret")
    with open(secret, "w") as f:
        f.write(server.password + "\n")
    os.chmod(secret, 0o600)
    if os.geteuid() == 0:
        os.chown(secret, pwd.getpwnam("hm-worker").pw_uid
                 if "hm-worker" in [p.pw_name for p in pwd.getpwall()]
                 else 0, -1)
    s = Stack(extra={
        "HEALTHMATE_REGISTER": "verified", "HEALTHMATE_MAIL": "smtp",
        "HEALTHMATE_PUBLIC_URL": "https://health.example.org",
        "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.server.port),
        "SMTP_USER": server.user, "SMTP_PASSWORD_FILE": secret,
        "SMTP_FROM": SENDER, "SMTP_CA_FILE": server.crt})
    try:
        s.start()
        s.post, s.secret = server, secret
        yield s
    finally:
        s.own = True
        s.stop()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def address(word="p"):
    return "%s-%s@example.org" % (word, os.urandom(6).hex())


def register(s, email, password=PASSWORD):
    return s.client().post("/auth/register", {
        "email": email, "password": password, "full_name": "Ada L",
        "date_of_birth": "1980-03-01", "accept_terms": True,
        "consents": ["research"], "fingerprint": False})


def login(s, email, password=PASSWORD):
    return s.client().post("/auth/login", {
        "email": email, "password": password, "fingerprint": False})


def minutes_later(s):
    s.psql("update account_requests set minute = -random() * 2e9;"
           "update jobs set created_at = created_at - interval '2 minutes'")


def job_of_last(s):
    return s.one("select 'request:' || id from account_requests"
                 " order by created_at desc limit 1")


def job_state(s, key):
    rows = s.rows("select state, cause, attempt from jobs"
                  " where unique_key = '%s'" % key)
    return rows[0] if rows else {}


# --- registering when a mailbox has to answer ---

def test_the_account_is_opened_by_the_mail(post):
    email = address()
    assert ok(register(post, email), 202) == {}
    m = post.post.wait(email)
    problem(login(post, email), 401, "auth.invalid_credentials")
    assert post.one("select count(*) from users u join account_requests r"
                    " on r.email_index = u.email_index"
                    " where r.purpose = 'register'") == "0"
    assert m.page == "/verify-email"
    assert "https://health.example.org/verify-email#" in m.body
    r = post.client().post("/auth/verify-email", {"token": m.token})
    assert r.status == 204, r
    s = ok(login(post, email))
    u = s["user"]
    assert u["email"] == email and u["email_verified"] is True
    assert u["full_name"] == "Ada L" and u["date_of_birth"] == "1980-03-01"
    assert u["role"] == "patient"
    assert post.one("select string_agg(purpose, ',' order by purpose) from"
                    " consents where user_id = '%s'" % u["id"]) \
        == "data_processing,research"
    c = post.client()
    c.token = s["access_token"]
    assert c.record(data_type="weight", value=70).status == 201
    problem(post.client().post("/auth/verify-email", {"token": m.token}), 410)


def test_a_taken_address_is_alike(post):
    taken, free = "patient@demo.local", address()
    got = []
    for email in (taken, free):
        r = register(post, email)
        assert ok(r, 202) == {}
        got.append((r.body, sorted(k.lower() for k, _ in r.raw_headers)))
    assert got[0] == got[1]
    m = post.post.wait(taken)
    assert m["Subject"] == "HealthMate: You already have an account"
    assert m.page == "/reset-password" and m.token
    assert post.post.wait(free).page == "/verify-email"
    # asked again at once, both are the same again: no second mail
    for email in (taken, free):
        assert ok(register(post, email), 202) == {}
    ok(login(post, taken, post.demo_password()))
    # of the taken address nothing of the try is kept
    assert post.one("select count(*) from account_requests r join users u"
                    " using (email_index) where r.purpose = 'register'"
                    " and coalesce(r.email, r.wrapped_dek, r.full_name)"
                    " is not null") == "0"


def test_the_first_mailbox_wins(post):
    email, tokens = address(), []
    for n in range(2):
        ok(register(post, email, "%s %d" % (PASSWORD, n)), 202)
        tokens.append(post.post.wait(email, n + 1).token)
        minutes_later(post)
    first = post.client().post("/auth/verify-email", {"token": tokens[1]})
    assert first.status == 204, first
    problem(post.client().post("/auth/verify-email", {"token": tokens[0]}),
            410)
    ok(login(post, email, PASSWORD + " 1"))
    problem(login(post, email, PASSWORD + " 0"), 401)


def test_a_sixth_mail_in_an_hour_is_not_sent(post):
    email = address()
    for n in range(5):
        ok(register(post, email), 202)
        post.post.wait(email, n + 1)
        minutes_later(post)
    ok(register(post, email), 202)
    key = job_of_last(post)
    wait(lambda: job_state(post, key).get("state") == "done", 20,
         what="the sixth")
    assert len(post.post.all(email)) == 5


# --- the wire ---

def test_starttls_and_auth(post):
    email = address()
    ok(register(post, email), 202)
    m = post.post.wait(email)
    assert post.post.clear == 0
    assert post.post.logins and post.post.logins[-1] is True
    assert m.sender == SENDER and SENDER in m["From"]
    assert m["Message-ID"].endswith("@health.example.org>")


def test_later(post):
    email = address("later")
    post.post.rules[email] = ["451 later", "rcpt 450 busy"]
    ok(register(post, email), 202)
    key = job_of_last(post)
    wait(lambda: (job_state(post, key).get("cause") or "") in
         ("smtp 451", "smtp 450"), 20, what="a cause")
    m = post.post.wait(email, seconds=40)
    job = m["Message-ID"][1:].split("@")[0]
    wait(lambda: job_state(post, key)["state"] == "done", 10)
    assert post.one("select id from jobs where unique_key = '%s'"
                    % key) == job
    assert post.client().post("/auth/verify-email",
                              {"token": m.token}).status == 204


@pytest.mark.parametrize("rule", ["550 no", "rcpt 553 no such mailbox"])
def test_never(post, rule):
    email = address("never")
    post.post.rules[email] = [rule]
    ok(register(post, email), 202)
    key = job_of_last(post)
    wait(lambda: job_state(post, key).get("state") == "dead", 20,
         what="the end")
    assert job_state(post, key)["cause"] == "smtp " + rule.split()[
        1 if rule.startswith("rcpt") else 0]
    assert not post.post.all(email)
    for log in post.logs():
        assert email not in open(log, errors="replace").read()


def test_a_login_that_is_refused_is_later(post):
    email, good = address("login"), post.post.password
    post.post.password = "changed"
    try:
        ok(register(post, email), 202)
        key = job_of_last(post)
        wait(lambda: (job_state(post, key).get("cause") or "")
             .startswith("smtp_login"), 20, what="the refusal")
    finally:
        post.post.password = good
    post.post.wait(email, seconds=40)


def test_no_server(post):
    email = address("gone")
    port = post.post.server.port
    post.post.stop()
    try:
        ok(register(post, email), 202)
        key = job_of_last(post)
        wait(lambda: job_state(post, key).get("cause") == "smtp_unreachable",
             20, what="a cause")
    finally:
        post.post.start(port)
    post.post.wait(email, seconds=60)


def test_killed_between(post):
    """The server took it, the worker died before it knew."""
    email = address("killed")
    parent = post.pid_of("worker")

    def kill(m):
        for pid in children(parent):
            os.kill(pid, signal.SIGKILL)

    post.post.rules[email] = [kill]
    ok(register(post, email), 202)
    first = post.post.wait(email)
    second = post.post.wait(email, 2, 60)
    assert first["Message-ID"] == second["Message-ID"]
    assert first.token != second.token
    assert post.client().post("/auth/verify-email",
                              {"token": first.token}).status == 204
    problem(post.client().post("/auth/verify-email",
                               {"token": second.token}), 410)
    wait(lambda: post.one("select count(*) from jobs where kind like"
                          " 'mail.%' and state = 'running'") == "0", 20,
         what="the queue's rest")


def children(parent):
    out = []
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                stat = open("/proc/%s/stat" % p).read()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == parent:
                out.append(int(p))
    return out


def test_a_server_that_hangs(post):
    email = address("slow")
    post.post.rules[email] = [40]
    ok(register(post, email), 202)
    key = job_of_last(post)
    wait(lambda: job_state(post, key).get("cause") == "smtp_timeout"
         or job_state(post, key).get("state") == "done", 45, 0.2,
         "the timeout")
    first, second = post.post.wait(email), post.post.wait(email, 2, 30)
    assert first["Message-ID"] == second["Message-ID"]


# --- the configuration, said by --check ---

def check(post, **env):
    base = {k: v for k, v in post.env.items()
            if k in ("HEALTHMATE_KEK_FILE", "HEALTHMATE_DATABASE")}
    base.update({
        "HEALTHMATE_MAIL": "smtp", "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(post.post.server.port), "SMTP_USER": post.post.user,
        "SMTP_PASSWORD_FILE": post.secret, "SMTP_FROM": SENDER,
        "SMTP_CA_FILE": post.post.crt, "PATH": os.environ["PATH"],
        "HEALTHMATE_PUBLIC_URL": "https://health.example.org"})
    base.update(env)
    r = subprocess.run([WORKER, "--check"], text=True, timeout=60,
                       env={k: v for k, v in base.items() if v is not None},
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return r.returncode, r.stdout


def test_check(post):
    assert check(post) == (0, "")
    n = len(post.post.messages)
    rc, out = check(post, SMTP_PASSWORD_FILE=None, SMTP_PASSWORD="wrong")
    assert rc == 0 and "smtp_login 535 (only a warning)" in out, out
    assert "wrong" not in out
    rc, out = check(post, SMTP_CA_FILE=None)
    assert rc == 0 and "smtp_tls" in out, out
    rc, out = check(post, SMTP_HOST="localhost", SMTP_PORT="1")
    assert rc == 0 and "smtp_unreachable" in out, out
    plain = Smtp(os.path.dirname(post.post.crt), tls=False,
                 auth=False).start()
    try:
        rc, out = check(post, SMTP_PORT=str(plain.server.port))
        assert rc == 0 and "smtp_no_starttls" in out, out
    finally:
        plain.stop()
    rc, out = check(post, SMTP_FROM=None)
    assert rc == 1 and "SMTP_FROM" in out, out
    rc, out = check(post, SMTP_HOST="mx.example.org", SMTP_TLS="off")
    assert rc == 1 and "loopback" in out, out
    assert len(post.post.messages) == n


def test_a_certificate_of_another_name(post):
    folder = tempfile.mkdtemp(prefix="hm-smtp-")
    other = Smtp(folder, names="DNS:elsewhere.example.org").start()
    try:
        rc, out = check(post, SMTP_PORT=str(other.server.port),
                        SMTP_CA_FILE=other.crt)
        assert rc == 0 and "smtp_tls" in out, out
    finally:
        other.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_production_has_no_outbox(post):
    for mail in ("outbox", "outbox:/tmp/x", None):
        rc, out = check(post, HEALTHMATE_ENVIRONMENT="production",
                        HEALTHMATE_MAIL=mail, HEALTHMATE_DEMO="off",
                        HEALTHMATE_FINGERPRINT="on")
        assert rc == 1 and "outbox" in out, out
    rc, out = check(post, HEALTHMATE_ENVIRONMENT="production",
                    HEALTHMATE_DEMO="off", HEALTHMATE_FINGERPRINT="on")
    assert (rc, out) == (0, ""), out
