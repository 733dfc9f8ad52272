"""api.md, Auth: what a mailbox proves, and how credentials change.

Mail falls into the outbox of the stack, where the worker puts it as it would
hand it to a server.
"""

import concurrent.futures
import os
import stat
import time
import unicodedata

import pytest

from hmhttp import ok, problem
from hmmail import Outbox
from hmstack import PASSWORD, wait

NEW = "another long phrase"


@pytest.fixture(scope="module")
def outbox(stack):
    return Outbox(stack)


def address():
    return "m-%s@example.org" % os.urandom(6).hex()


def login(anon, email, password):
    return anon.post("/auth/login", {"email": email, "password": password,
                                     "fingerprint": False})


def gone(stack, token):
    """The session of an access token has ended."""
    import json
    from hmstack import b64d
    sid = json.loads(b64d(token.split(".")[1]))["sid"]
    assert stack.one("select ended_at is not null from sessions"
                     " where id = '%s'" % sid) == "t"
    c = stack.client()
    c.token = token
    wait(lambda: c.get("/auth/me").status == 401, 2, 0.05, "its refusal")
    for _ in range(6):                  # by every worker of nginx
        d = stack.client()
        d.token = token
        problem(d.get("/auth/me"), 401, "auth.session_revoked")


def aged(stack, c):
    """As if what was mailed to c had been some minutes ago."""
    stack.psql("update jobs set created_at = created_at"
               " - interval '2 minutes' where user_id = '%s';"
               "update account_requests set minute = -random() * 2e9" % c.id)


def reset_token(stack, outbox, anon, c):
    outbox.wait(c.email)                # that of registering
    n = len(outbox.all(c.email))
    aged(stack, c)
    ok(anon.post("/auth/forgot-password", {"email": c.email}), 202)
    m = outbox.wait(c.email, n + 1)
    assert m.page == "/reset-password" and m.token
    return m.token


# --- the message ---

def test_registering_mails_a_link(stack, outbox, anon):
    c = stack.new_user()
    m = outbox.wait(c.email)
    assert m["Subject"] == "HealthMate: Confirm your address"
    assert m.page == "/verify-email" and m.token
    assert m["Message-ID"].startswith("<") and m["Auto-Submitted"]
    assert m.get_content_type() == "text/plain"
    assert ok(c.get("/auth/me"))["email_verified"] is False
    r = anon.post("/auth/verify-email", {"token": m.token})
    assert r.status == 204 and r.body == b"", r
    # every earlier session has ended with it
    gone(stack, c.token)
    again = ok(login(anon, c.email, PASSWORD))
    assert again["user"]["email_verified"] is True
    problem(anon.post("/auth/verify-email", {"token": m.token}), 410,
            "resource.expired")


def test_the_outbox_is_nobody_elses(stack, outbox, user):
    outbox.wait(user.email)
    assert stat.S_IMODE(os.stat(outbox.folder).st_mode) == 0o700
    for f in os.listdir(outbox.folder):
        path = os.path.join(outbox.folder, f)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_the_token_is_nowhere_else(stack, outbox, user):
    m = outbox.wait(user.email)
    word = m.token[5:]
    assert stack.one("select count(*) from jobs j, account_tokens t where"
                     " j::text like '%%%s%%' or t::text like '%%%s%%'"
                     % (word, word)) == "0"
    for log in stack.logs():
        text = open(log, errors="replace").read()
        assert word not in text and user.email not in text, log


def test_a_mail_is_audited(stack, outbox, user):
    m = outbox.wait(user.email)
    job = m["Message-ID"][1:].split("@")[0]
    rows = stack.rows(
        "select actor, action, resource, purpose from audit_logs where"
        " user_id = '%s' and first_id = '%s'" % (user.id, job))
    assert rows == [{"actor": "00000000-0000-7000-8000-000000000004",
                     "action": 10, "resource": 2, "purpose": 4}]


# --- forgot and reset ---

def test_forgot_is_alike(stack, outbox, anon, user):
    answers = []
    for who in (user.email, address(), user.email.upper()):
        r = anon.post("/auth/forgot-password", {"email": who})
        assert ok(r, 202) == {}
        answers.append((r.body, sorted(k.lower() for k, _ in r.raw_headers)))
    assert len(set(map(str, answers))) == 1
    outbox.wait(user.email, 2)


def test_forgot_is_bounded(stack, outbox, anon):
    c = stack.new_user()
    outbox.wait(c.email)
    for _ in range(3):
        ok(anon.post("/auth/forgot-password", {"email": c.email}), 202)
    outbox.wait(c.email, 2)
    outbox.none(c.email, 2)
    for _ in range(6):
        aged(stack, c)
        ok(anon.post("/auth/forgot-password", {"email": c.email}), 202)
        time.sleep(0.6)
    outbox.wait(c.email, 6)             # five resets an hour
    outbox.none(c.email, 6)


def test_a_broken_body(anon):
    problem(anon.post("/auth/forgot-password", {"email": "x"}), 422)
    problem(anon.post("/auth/forgot-password", {}), 422)
    problem(anon.post("/auth/forgot-password", [1]), 422)
    problem(anon.post("/auth/reset-password", {"token": "x"}), 422)
    problem(anon.post("/auth/verify-email", {"tok": "x"}), 422)


def test_reset(stack, outbox, anon):
    c = stack.new_user()
    other = ok(login(anon, c.email, PASSWORD))
    token = reset_token(stack, outbox, anon, c)
    problem(anon.post("/auth/reset-password", {"token": token,
                                               "password": "short"}), 422)
    r = anon.post("/auth/reset-password", {"token": token, "password": NEW})
    assert r.status == 204, r
    for old in (c.token, other["access_token"]):
        gone(stack, old)
    problem(login(anon, c.email, PASSWORD), 401, "auth.invalid_credentials")
    s = ok(login(anon, c.email, NEW))
    assert s["user"]["email_verified"] is True
    problem(anon.post("/auth/reset-password",
                      {"token": token, "password": NEW}), 410)
    m = outbox.wait(c.email, 3)
    assert m["Subject"] == "HealthMate: Your password was changed"
    assert m.token is None


@pytest.mark.parametrize("by", ["reset", "verify"])
def test_the_second_factor_ends_with_it(stack, outbox, anon, by):
    """What a stranger set up before the mailbox answered does not stay."""
    from hmotp import Totp
    c = stack.new_user()
    totp = Totp(ok(c.post("/auth/mfa/totp"))["secret"])
    ok(c.post("/auth/mfa/totp/confirm", {"otp": totp.next()}))
    problem(login(anon, c.email, PASSWORD), 401, "auth.mfa_required")
    if by == "reset":
        outbox.wait(c.email, 2)         # registering, the factor
        token = reset_token(stack, outbox, anon, c)
        r = anon.post("/auth/reset-password", {"token": token,
                                               "password": NEW})
    else:
        outbox.wait(c.email, 2)
        token = [m for m in outbox.all(c.email) if m.token][0].token
        r = anon.post("/auth/verify-email", {"token": token})
    assert r.status == 204, r
    s = ok(login(anon, c.email, NEW if by == "reset" else PASSWORD))
    assert s["user"]["mfa"] == [] and s["user"]["email_verified"] is True
    assert stack.one(
        "select (select count(*) from mfa_totp where user_id = u.id)"
        " + (select count(*) from mfa_recovery_codes where user_id = u.id)"
        " from users u where id = '%s'" % c.id) == "0"


def test_a_token_works_once_for_twenty(stack, outbox, anon):
    c = stack.new_user()
    token = reset_token(stack, outbox, anon, c)

    def one(n):
        return stack.client().post(
            "/auth/reset-password",
            {"token": token, "password": "%s number %d" % (NEW, n)}).status

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        got = list(pool.map(one, range(20)))
    # 503: the hashing queue is full; that try took nothing
    assert got.count(204) == 1, got
    assert set(got) <= {204, 410, 503}, got
    won = got.index(204)
    ok(login(anon, c.email, "%s number %d" % (NEW, won)))
    assert stack.one("select password_version from users where id = '%s'"
                     % c.id) == "2"


def test_two_tokens_one_change(stack, outbox, anon):
    """Two good tokens at once: the second belongs to the old password."""
    c = stack.new_user()
    tokens = [reset_token(stack, outbox, anon, c) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda t: stack.client().post(
            "/auth/reset-password", {"token": t, "password": NEW}).status,
            tokens))
    assert sorted(got) == [204, 410], got


def test_a_token_is_for_one_thing(stack, outbox, anon):
    c = stack.new_user()
    verify = outbox.wait(c.email).token
    reset = reset_token(stack, outbox, anon, c)
    problem(anon.post("/auth/reset-password",
                      {"token": verify, "password": NEW}), 410)
    problem(anon.post("/auth/verify-email", {"token": reset}), 410)
    assert anon.post("/auth/verify-email", {"token": verify}).status == 204


def test_what_is_no_token(stack, outbox, anon, user):
    good = outbox.wait(user.email).token
    last = good[-1]
    twin = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = twin[twin.index(last) ^ 1]
    for bad in ("", "hmt1.", good[:-1], good + "A", good[:-1] + other,
                good.replace("hmt1.", "hmt2."), good + "=", good[5:],
                "hmt1." + "A" * 43, " " + good, good.upper()):
        problem(anon.post("/auth/verify-email", {"token": bad}), 410,
                "resource.expired")
    assert anon.post("/auth/verify-email", {"token": good}).status == 204


def test_an_old_token(stack, outbox, anon):
    c = stack.new_user()
    token = reset_token(stack, outbox, anon, c)
    stack.psql("update account_tokens set expires_at = now() - interval"
               " '1 s' where user_id = '%s'" % c.id)
    problem(anon.post("/auth/reset-password",
                      {"token": token, "password": NEW}), 410)


def test_a_token_of_an_earlier_password(stack, outbox, anon):
    c = stack.new_user()
    token = reset_token(stack, outbox, anon, c)
    assert c.post("/auth/change-password", {
        "current_password": PASSWORD, "new_password": NEW}).status == 204
    problem(anon.post("/auth/reset-password",
                      {"token": token, "password": PASSWORD}), 410)
    ok(login(anon, c.email, NEW))


def test_a_closed_account_is_not_reset(stack, outbox, anon):
    c = stack.new_user()
    token = reset_token(stack, outbox, anon, c)
    stack.psql("update users set is_active = false where id = '%s'" % c.id)
    problem(anon.post("/auth/reset-password",
                      {"token": token, "password": NEW}), 410)
    n = len(outbox.all(c.email))
    aged(stack, c)
    ok(anon.post("/auth/forgot-password", {"email": c.email}), 202)
    outbox.none(c.email, n)


# --- resend ---

def test_resend(stack, outbox, anon):
    c = stack.new_user()
    outbox.wait(c.email)
    aged(stack, c)
    assert ok(c.post("/auth/resend-verification"), 202) == {}
    m = outbox.wait(c.email, 2)
    assert anon.post("/auth/verify-email", {"token": m.token}).status == 204
    c.token = ok(login(anon, c.email, PASSWORD))["access_token"]
    aged(stack, c)
    assert ok(c.post("/auth/resend-verification"), 202) == {}
    outbox.none(c.email, 2)
    problem(anon.post("/auth/resend-verification"), 401)


# --- change-password ---

def test_change_password(stack, outbox, anon):
    c = stack.new_user()
    other = ok(login(anon, c.email, PASSWORD))["access_token"]
    problem(c.post("/auth/change-password", {
        "current_password": "not this one", "new_password": NEW}), 401,
        "auth.invalid_credentials")
    problem(c.post("/auth/change-password", {
        "current_password": PASSWORD, "new_password": "12345678"}), 422,
        faults={"/new_password": "blocklisted"})
    assert c.post("/auth/change-password", {
        "current_password": PASSWORD, "new_password": NEW}).status == 204
    ok(c.get("/auth/me"))               # this session stays
    gone(stack, other)
    problem(login(anon, c.email, PASSWORD), 401)
    ok(login(anon, c.email, NEW))
    subjects = [m["Subject"] for m in (outbox.wait(c.email, 1),
                                       outbox.wait(c.email, 2))]
    assert "HealthMate: Your password was changed" in subjects


def test_change_password_keeps_the_device(stack, anon):
    """The cookie of a known device goes with the password."""
    from hmstack import b64d

    def device(r):
        return [v.split(";")[0] for v in r.headers("set-cookie")
                if v.startswith("hm-dev=")]

    c = stack.new_user()
    r = login(anon, c.email, PASSWORD)
    ok(r)
    old = device(r)
    assert len(old) == 1
    c.token, c.cookie = r.json()["access_token"], old[0]
    r = c.post("/auth/change-password", {"current_password": PASSWORD,
                                         "new_password": NEW})
    assert r.status == 204, r
    new = device(r)
    assert len(new) == 1 and new != old
    ids = [b64d(v[len("hm-dev=hmd1."):])[:36] for v in old + new]
    assert ids[0][:32] == ids[1][:32]           # device and person
    assert ids[0][32:] != ids[1][32:]           # version of the password
    c.cookie = None
    r = c.post("/auth/change-password", {"current_password": NEW,
                                         "new_password": PASSWORD})
    assert r.status == 204 and not device(r), r


def test_two_changes_at_once(stack, anon):
    c = stack.new_user()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        def change(n):
            d = stack.client()
            d.token = c.token
            return d.post("/auth/change-password", {
                "current_password": PASSWORD,
                "new_password": "%s no %d" % (NEW, n)}).status
        got = list(pool.map(change, range(4)))
    assert got.count(204) == 1 and set(got) <= {204, 401, 503}, got


# --- users/me/email ---

def test_another_address(stack, outbox, anon):
    c = stack.new_user()
    old, new = c.email, address()
    outbox.wait(old)
    problem(c.post("/users/me/email", {"email": new, "password": "wrong!"}),
            401, "auth.invalid_credentials")
    assert ok(c.post("/users/me/email", {"email": new,
                                         "password": PASSWORD}), 202) == {}
    m = outbox.wait(new)
    assert m.page == "/verify-email" and m.token
    warned = outbox.wait(old, 2)
    assert warned["Subject"] == "HealthMate: Your address is about to change"
    assert ok(c.get("/users/me"))["email"] == old
    assert anon.post("/auth/verify-email", {"token": m.token}).status == 204
    gone(stack, c.token)
    problem(login(anon, old, PASSWORD), 401)
    s = ok(login(anon, new, PASSWORD))
    assert s["user"]["email"] == new and s["user"]["email_verified"] is True
    told = outbox.wait(old, 3)
    assert told["Subject"] == "HealthMate: Your address was changed"
    assert told.token is None
    problem(anon.post("/auth/verify-email", {"token": m.token}), 410)


def test_anothers_address_is_not_told(stack, outbox, anon, user):
    c = stack.new_user()
    n = len(outbox.all(user.email))
    assert ok(c.post("/users/me/email", {"email": user.email,
                                         "password": PASSWORD}), 202) == {}
    outbox.wait(c.email, 2)
    outbox.none(user.email, max(n, 1))


def test_two_want_one_address(stack, outbox, anon):
    new, a, b = address(), stack.new_user(), stack.new_user()
    tokens = []
    for n, c in enumerate((a, b)):
        stack.psql("update account_requests set minute = -random() * 2e9")
        ok(c.post("/users/me/email", {"email": new, "password": PASSWORD}),
           202)
        tokens.append(outbox.wait(new, n + 1).token)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda t: stack.client().post(
            "/auth/verify-email", {"token": t}).status, tokens))
    assert sorted(got) == [204, 410], got


def test_an_old_reset_does_not_survive_the_address(stack, outbox, anon):
    c = stack.new_user()
    reset = reset_token(stack, outbox, anon, c)
    new = address()
    ok(c.post("/users/me/email", {"email": new, "password": PASSWORD}), 202)
    token = outbox.wait(new).token
    assert anon.post("/auth/verify-email", {"token": token}).status == 204
    problem(anon.post("/auth/reset-password",
                      {"token": reset, "password": NEW}), 410)


# --- upkeep ---

def test_prune(stack, outbox, user):
    outbox.wait(user.email)
    old = os.path.join(outbox.folder,
                       "0190a5e2-7c00-7000-8000-00000000abcd.eml")
    keep = os.path.join(outbox.folder, "notes.txt")
    for f in (old, keep):
        open(f, "w").close()
        os.utime(f, (time.time() - 90000,) * 2)
    n = len(outbox.all(user.email))
    stack.psql("insert into jobs (id, kind, unique_key, max_attempts) values"
               " (gen_random_uuid(), 'mail.prune', 'test:' || now(), 3)")
    wait(lambda: not os.path.exists(old), 20, what="the old message's end")
    assert os.path.exists(keep) and len(outbox.all(user.email)) == n
    os.unlink(keep)


def test_every_template_that_is_named_exists():
    """hm_mail takes any name; one without a template ends as a dead job."""
    import glob
    import re
    from hmstack import ROOT
    table = open(os.path.join(ROOT, "worker/mail_text.c")).read()
    known = set(re.findall(r'^    \{ "(\w+)", ', table, re.M))
    used = set()
    for f in (glob.glob(ROOT + "/sql/deploy/*.sql")
              + glob.glob(ROOT + "/ngx_healthmate_module/**/*.[ch]",
                          recursive=True)):
        used |= set(re.findall(r"hm_mail\([^()]*(?:\([^()]*\))?[^()]*,\s*"
                               r"'(\w+)'", open(f).read()))
    assert used and used <= known, used - known


# --- passwords of many bytes ---

def decomposed(n):
    """n Hangul syllables as some keyboards send them: nine bytes each."""
    return unicodedata.normalize("NFD", "\ud55c" * n)


@pytest.mark.parametrize("n", [57, 58, 100, 128])
def test_decomposed_passwords(stack, user, n):
    """Counted after NFC, kept whole, and never taken for an empty one."""
    new = decomposed(n)
    assert len(new.encode()) == 9 * n
    r = user.post("/auth/change-password", {
        "current_password": PASSWORD, "new_password": new})
    assert r.status == 204, r
    for password, status in (("", 422), (PASSWORD, 401), (new, 200),
                             (unicodedata.normalize("NFC", new), 200)):
        r = user.post("/auth/login", {
            "email": user.email, "password": password,
            "fingerprint": False}, token=None)
        assert r.status in (status, 401) if status == 422 \
            else r.status == status, (password[:4], r)


def test_more_than_128_syllables(user):
    r = user.post("/auth/change-password", {
        "current_password": PASSWORD, "new_password": decomposed(129)})
    problem(r, 422, "validation.failed")


@pytest.mark.parametrize("n", [58, 128])
def test_registering_with_a_decomposed_password(stack, n):
    c = stack.client()
    mine = address()
    body = {"email": mine, "password": decomposed(n), "full_name": "A",
            "accept_terms": True, "fingerprint": False}
    ok(c.post("/auth/register", body, token=None), 201)
    ok(c.post("/auth/login", {"email": mine, "password": decomposed(n),
                              "fingerprint": False}, token=None))
    r = c.post("/auth/login", {"email": mine, "password": "",
                               "fingerprint": False}, token=None)
    assert r.status in (401, 422), r
