"""
The login limiter.  On the stack with limits on; the auth class is widened
where a test needs more tries than an address has.

HEALTHMATE_TEST_TRIES, _BOTS and _FLOOD are the numbers of tries at one
account, of botnet addresses, and of strangers that flood the zone.
"""

import os
import random
import signal
import time

import pytest

from hmhttp import Client, problem
from hmlimits import at_once, count, device, login, nobody, waves
from hmstack import PASSWORD, b64d, b64e, wait

TRIES = count("TRIES", 1000, 10000)
BOTS = count("BOTS", 1000, 1000)
FLOOD = count("FLOOD", 1200, 6000)

WIDE = "healthmate_rate_limit auth 1000000 60s"


@pytest.fixture(scope="module")
def wide(limited):
    limited.directives(WIDE)
    yield limited
    limited.directives()


@pytest.fixture
def directives(wide):
    yield lambda *lines: wide.directives(WIDE, *lines)
    wide.directives(WIDE)


@pytest.fixture
def owner(wide):
    """A person who has logged in at home, and the cookie of that."""
    net = "127.%d.%d" % (random.randrange(100, 250), random.randrange(256))
    u = wide.new_user(source=net + ".1")
    r = login(u, u.email)
    assert r.status == 200, r
    u.device = device(r)[0]
    u.net = net
    return u


def net():
    return "127.%d.%d" % (random.randrange(10, 99), random.randrange(256))


def wrong(email):
    return {"email": email, "password": "wrong horse", "fingerprint": False}


def statuses(answers):
    out = {}
    for r in answers:
        k = r.status if r is not None else "lost"
        out[k] = out.get(k, 0) + 1
    return out


def codes(answers, status):
    return {r.code for r in answers if r is not None and r.status == status}


# --- five in a window, however they come ---

@pytest.mark.parametrize("exists", [True, False])
def test_exactly_five_of_many_at_once(wide, exists):
    n = net()
    email = wide.new_user(source=n + ".1").email if exists else nobody()
    before = wide.figure("healthmate_passwords_total")
    sources = ["%s.%d" % (n, i) for i in range(1, 255)]
    third = TRIES // 3
    got = waves(wide.http, [wrong(email)] * third, sources)
    wide.reload()
    got += waves(wide.http, [wrong(email)] * third, sources)
    pid = wide.nginx_workers(old=False)[0]
    os.kill(pid, signal.SIGKILL)
    wait(lambda: pid not in wide.nginx_workers()
         and len(wide.nginx_workers(old=False)) >= 2, 10, what="a new worker")
    got += waves(wide.http, [wrong(email)] * third, sources)
    s = statuses(got)
    assert s.pop(401) == 5, s
    assert s.pop(429) == len(got) - 5, s
    assert codes(got, 429) == {"auth.too_many_attempts"}
    assert wide.figure("healthmate_passwords_total") - before == 5


def test_spellings_and_headers_gain_no_try(wide):
    u = wide.new_user(source=net() + ".1")
    c = Client(wide, source=net() + ".9")
    name, host = u.email.split("@")
    spelled = [u.email, u.email.upper(), name.capitalize() + "@" + host,
               name + "@" + host.upper(), u.email.title()]
    for e in spelled:
        r = login(c, e, "wrong horse")
        assert r.status == 401, r
    for e in spelled:
        r = login(c, e, "wrong horse")
        problem(r, 429, "auth.too_many_attempts")
    for h in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
        r = c.post("/auth/login", wrong(u.email), token=None,
                   headers={h: "203.0.113.7"})
        problem(r, 429, "auth.too_many_attempts")


def test_the_window_passes(wide, directives):
    directives("healthmate_login_limit 2 3s")
    u = wide.new_user(source=net() + ".1")
    c = Client(wide, source=net() + ".9")
    assert [login(c, u.email, "no").status for _ in range(3)] \
        == [401, 401, 429]
    r = login(c, u.email)
    problem(r, 429, "auth.too_many_attempts")
    assert r.header("retry-after") in ("1", "2", "3")
    assert r.header("ratelimit").startswith('"auth";r=')
    time.sleep(int(r.header("retry-after")))
    assert login(c, u.email).status == 200


def test_a_success_starts_anew(wide):
    u = wide.new_user(source=net() + ".1")
    c = Client(wide, source=net() + ".9")
    for _ in range(2):
        assert [login(c, u.email, "no").status for _ in range(4)] == [401] * 4
        assert login(c, u.email).status == 200


# --- the owner's device ---

def test_the_cookie(wide, owner):
    r = login(owner, owner.email)
    pair, attrs = device(r)
    assert set(attrs) == {"httponly", "samesite=strict", "path=/api/v1/auth",
                          "max-age=15552000"}
    t = Client(wide, tls=True)
    pair, attrs = device(login(t, owner.email), "__Secure-hm-dev")
    assert set(attrs) == {"httponly", "secure", "samesite=strict",
                          "path=/api/v1/auth", "max-age=15552000"}
    # A refusal sets none.
    r = login(owner, owner.email, "no")
    assert not r.headers("set-cookie")
    # A known device keeps its id, a new one gets another.
    a = device(login(owner, owner.email, cookie=owner.device))[0]
    b = device(login(owner, owner.email))[0]
    assert ident(a) == ident(owner.device) != ident(b)
    rows = wide.rows("select device_id, count(*) from sessions where user_id"
                     " = '%s' group by 1" % owner.id)
    assert len(rows) == 5 and all(x["device_id"] for x in rows), rows


def ident(pair):
    return b64d(pair.split("=hmd1.")[1])[:16]


def locked_out(stack, u, from_net=None):
    """Strangers use up what their network has."""
    c = Client(stack, source=(from_net or net()) + ".77")
    while True:
        r = login(c, u.email, "wrong horse")
        if r.status == 429:
            return c
        assert r.status == 401, r


def test_a_stranger_does_not_lock_the_owner_out(wide, owner):
    # Even from the owner's own network.
    c = locked_out(wide, owner, owner.net)
    problem(login(c, owner.email), 429, "auth.too_many_attempts")
    problem(login(owner, owner.email), 429, "auth.too_many_attempts")
    assert login(owner, owner.email, cookie=owner.device).status == 200
    # And the owner's success gave the stranger nothing.
    problem(login(c, owner.email, "no"), 429, "auth.too_many_attempts")


def test_a_device_has_counters_of_its_own(wide, owner):
    c = Client(wide, source=net() + ".5")
    assert [login(c, owner.email, "no", cookie=owner.device).status
            for _ in range(6)] == [401] * 5 + [429]
    problem(login(c, owner.email, cookie=owner.device), 429,
            "auth.too_many_attempts")
    # Another device and a stranger are not concerned.
    assert login(c, owner.email).status == 200


def test_a_device_is_of_one_account(wide, owner):
    other = wide.new_user(source=net() + ".1")
    theirs = device(login(other, other.email))[0]
    locked_out(wide, owner, owner.net)
    problem(login(owner, owner.email, cookie=theirs), 429,
            "auth.too_many_attempts")
    # Nor does it count there.
    assert login(other, other.email, cookie=theirs).status == 200


def test_a_cookie_that_was_touched_is_none(wide, owner):
    locked_out(wide, owner, owner.net)
    name, value = owner.device.split("=", 1)
    raw = b64d(value[5:])
    bad = ["", "hmd1.", value[:-1], value + "A", "hmd2." + value[5:],
           "hmr1." + value[5:], b64e(raw), "hmd1." + b64e(os.urandom(72)),
           value[:-1] + ("A" if value[-1] != "A" else "B")]
    for i in range(0, len(raw), 7):
        bad.append("hmd1." + b64e(raw[:i] + bytes([raw[i] ^ 1])
                                  + raw[i + 1:]))
    for v in bad:
        problem(login(owner, owner.email, cookie="%s=%s" % (name, v)), 429,
                "auth.too_many_attempts")
    for v in ("x" + owner.device, "__Secure-" + owner.device):
        problem(login(owner, owner.email, cookie=v), 429,
                "auth.too_many_attempts")
    assert login(owner, owner.email,
                 cookie="a=b; %s; c=d" % owner.device).status == 200


@pytest.mark.parametrize("reason,trusted", [
    ("logout", True), ("idle", True), ("revoked", False), ("reused", False),
    (None, False)])
def test_a_session_that_was_ended_takes_the_trust(wide, owner, reason,
                                                  trusted):
    sid = wide.one("select id from sessions where user_id = '%s' and"
                   " device_id = '%s'" % (owner.id, ident(owner.device)
                                          .hex()))
    wide.psql("update sessions set ended_at = now(), end_reason = %s"
              " where id = '%s'" % ("'%s'" % reason if reason else "null",
                                    sid))
    locked_out(wide, owner, owner.net)
    r = login(owner, owner.email, cookie=owner.device)
    assert r.status == (200 if trusted else 429), r


def test_a_new_password_takes_the_trust(wide, owner):
    wide.psql("update users set password_version = password_version + 1"
              " where id = '%s'" % owner.id)
    locked_out(wide, owner, owner.net)
    problem(login(owner, owner.email, cookie=owner.device), 429,
            "auth.too_many_attempts")


def test_whoever_changes_the_password_stays_known(wide, owner):
    r = owner.post("/auth/change-password",
                   {"current_password": PASSWORD,
                    "new_password": "another horse battery"},
                   headers={"Cookie": owner.device})
    assert r.status == 204, r
    fresh = device(r)[0]
    assert ident(fresh) == ident(owner.device)
    locked_out(wide, owner, owner.net)
    problem(login(owner, owner.email, "another horse battery",
                  cookie=owner.device), 429, "auth.too_many_attempts")
    assert login(owner, owner.email, "another horse battery",
                 cookie=fresh).status == 200


def test_reauth_counts_and_knows_the_device(wide, owner):
    doc = {"password": "wrong horse"}
    got = [owner.post("/auth/reauth", doc).status for _ in range(6)]
    assert got == [401] * 5 + [429], got
    problem(login(owner, owner.email), 429, "auth.too_many_attempts")
    assert owner.post("/auth/reauth", {"password": PASSWORD},
                      headers={"Cookie": owner.device}).status == 200


# --- many networks ---

def bots(n):
    return ["127.%d.%d.%d" % (1 + i // 250, i % 250, 1 + i % 200)
            for i in range(n)]


def guesses(wide, email, addresses):
    """What a botnet gets out of an account: how many were compared."""
    got = []
    for _ in range(3):
        got += waves(wide.http, [wrong(email)] * len(addresses), addresses,
                     width=100)
    s = statuses(got)
    assert set(s) <= {401, 429, 503}, s
    return s.get(401, 0)


def test_a_botnet_and_a_flood_of_the_zone(wide, directives):
    directives("healthmate_zone 384k")
    u = wide.new_user(source="127.200.0.1")
    other = wide.new_user(source="127.200.0.2")
    home = device(login(u, u.email))[0]
    before = wide.figure("healthmate_passwords_total")

    # 100 for all strangers together, whoever asks how often.
    assert guesses(wide, u.email, bots(BOTS)) == 100
    assert wide.figure("healthmate_passwords_total") - before == 100
    problem(login(u, u.email), 429, "auth.too_many_attempts")
    assert login(u, u.email, cookie=home).status == 200

    # A name nobody has is told the same.
    assert guesses(wide, nobody(), bots(300)) == 100

    # Names without end until there is no room for another.
    where = bots(1000)
    docs = [wrong(nobody()) for _ in range(FLOOD)]
    waves(wide.http, docs, where, width=100)
    assert wide.figure("healthmate_tries_full_total") > 0

    before = wide.figure("healthmate_passwords_total")
    assert guesses(wide, u.email, bots(BOTS)) == 0
    assert wide.figure("healthmate_passwords_total") == before
    assert login(u, u.email, cookie=home).status == 200

    # Strangers elsewhere: some find no room, and none is let through
    # uncounted; what was counted before the flood still is.
    got = waves(wide.http, [wrong(nobody()) for _ in range(200)], where,
                width=100)
    assert statuses(got).get(429, 0) > 0, statuses(got)
    assert login(u, u.email, "no", cookie=home).status == 401
    assert login(other, other.email).status in (200, 429)


def test_the_ceiling_of_a_device(wide, directives):
    directives("healthmate_login_limit 3 1s", "healthmate_login_ceiling 4 1h")
    u = wide.new_user(source=net() + ".1")
    home = device(login(u, u.email))[0]
    got = [login(u, u.email, "no", cookie=home).status for _ in range(4)]
    assert got == [401] * 3 + [429]
    time.sleep(1.1)
    # The fourth is its last today; from then on it is a stranger, who has
    # three in a second and four today.
    assert login(u, u.email, "no", cookie=home).status == 401
    for _ in range(4):
        r = login(u, u.email, "no", cookie=home)
        if r.status == 429:
            time.sleep(1.1)
            r = login(u, u.email, "no", cookie=home)
        assert r.status == 401, r
    time.sleep(1.1)
    r = login(u, u.email, cookie=home)
    problem(r, 429, "auth.too_many_attempts")
    assert 3500 < int(r.header("retry-after")) <= 3601


# --- a full queue gives the try back ---

def test_what_was_not_compared_is_not_counted(wide):
    n = net()
    docs = [wrong(nobody()) for _ in range(300)]
    got = at_once(wide.http, docs, ["%s.%d" % (n, i) for i in range(1, 200)])
    full = [d["email"] for d, r in zip(docs, got)
            if r is not None and r.status == 503]
    assert full, "300 at once fit into the queue"
    for email in full[:3]:
        c = Client(wide, source=n + ".3")
        assert [login(c, email, "no").status for _ in range(6)] \
            == [401] * 5 + [429]
