"""
The races of refresh, and the faults of the system this one replaces: its
list of revoked tokens failed open without Redis, its fingerprint was a hash
of the token's own claims, its refresh looked first and wrote afterwards, and
of a stolen refresh token only the used one was refused.
"""

import hashlib
import json
import os
import signal
import socket
import struct
import threading
import time

import pytest

from hmhttp import Client, Lost, ok, problem
from hmstack import PASSWORD, b64d, b64e, wait


def claims(token):
    return json.loads(b64d(token.split(".")[1]))


def refresh(stack, token):
    return Client(stack).post("/auth/refresh", {"refresh_token": token})


def at_once(work, n, workers=10):
    """work(client) n times, from so many connections at the same moment."""
    got, start = [], threading.Barrier(workers)

    def go(share):
        start.wait()
        for _ in range(share):
            got.append(work())

    ts = [threading.Thread(target=go, args=(n // workers,))
          for _ in range(workers)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    return got


def open_sessions(stack, user):
    return int(stack.one("select count(*) from sessions where user_id = '%s'"
                         " and ended_at is null" % user.id))


def test_original_fault_refresh_race_50_at_once_make_one_successor(stack,
                                                                  user):
    first = user.session["refresh_token"]
    for turn in range(3):
        got = at_once(lambda: refresh(stack, first), 50)
        assert [r.status for r in got] == [200] * 50, got
        pairs = {(r.json()["access_token"], r.json()["refresh_token"])
                 for r in got}
        assert len(pairs) == 1
        assert open_sessions(stack, user) == 1
        assert stack.one("select counter from sessions where user_id = '%s'"
                         % user.id) == str(turn + 1)
        ok(Client(stack, pairs.copy().pop()[0]).get("/auth/me"))
        first = pairs.pop()[1]


def test_replies_lost_on_the_wire(stack, user):
    """The connection is cut while the refresh is under way: whatever became
    of it, the token the client still has is good."""
    token = user.session["refresh_token"]
    for i in range(30):
        body = json.dumps({"refresh_token": token}).encode()
        s = socket.create_connection(("127.0.0.1", stack.http))
        s.sendall(b"POST /api/v1/auth/refresh HTTP/1.1\r\n"
                  b"Host: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(i * 0.0003)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                     struct.pack("ii", 1, 0))
        s.close()
        token = ok(refresh(stack, token))["refresh_token"]
    assert open_sessions(stack, user) == 1


@pytest.mark.alerts("exited on signal 9")
def test_a_worker_that_is_killed_logs_nobody_out(stack, user):
    """The unlucky request has no answer; the same token is good again."""
    token = user.session["refresh_token"]
    stop, lost = threading.Event(), []

    def killer():
        time.sleep(0.2)
        os.kill(stack.nginx_workers()[0], signal.SIGKILL)
        time.sleep(0.5)
        stop.set()

    t = threading.Thread(target=killer)
    t.start()
    while not stop.is_set() or not lost and t.is_alive():
        try:
            r = refresh(stack, token)
        except (Lost, OSError):
            lost.append(token)
            continue
        if r.status in (200, 503):
            token = r.json().get("refresh_token", token)
        else:
            raise AssertionError(r)
    t.join()
    wait(lambda: len(stack.nginx_workers()) == 2, what="a new worker")
    ok(refresh(stack, token))
    assert open_sessions(stack, user) == 1


def test_a_race_of_two_generations_ends_all_or_nothing(stack, user):
    """A tab that is one step behind among those that are not."""
    old = user.session["refresh_token"]
    new = ok(refresh(stack, old))["refresh_token"]
    turn = iter([old, new] * 20)
    lock = threading.Lock()

    def one():
        with lock:
            t = next(turn)
        return refresh(stack, t)

    got = at_once(one, 40)
    # `new` may turn before an `old` arrives, which is then two steps behind;
    # that is reuse, and the whole family ends: never half of it.
    if all(r.status == 200 for r in got):
        assert open_sessions(stack, user) == 1
    else:
        assert open_sessions(stack, user) == 0
        reused = [r for r in got if r.code == "auth.refresh_reused"]
        assert len(reused) == 1, got


def test_original_fault_a_used_refresh_token_only_blacklisted_no_family(
        stack, user):
    """Now the family dies, on every worker, within a second."""
    first = user.session["refresh_token"]
    s = ok(refresh(stack, first))
    s = ok(refresh(stack, s["refresh_token"]))
    problem(refresh(stack, first), 401, "auth.refresh_reused")
    end = time.monotonic() + 1.0
    while True:
        got = [Client(stack, t).get("/auth/me")
               for t in (user.token, s["access_token"]) for _ in range(8)]
        if all(r.status == 401 for r in got):
            break
        assert time.monotonic() < end, got
    for r in got:
        problem(r, 401, "auth.session_revoked")
    problem(refresh(stack, s["refresh_token"]), 401, "auth.refresh_invalid")


def test_original_fault_revocation_failed_open_without_redis(stack, user):
    c = stack.login(Client(stack), user.email, PASSWORD)
    pid = stack.pid_of("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert c.post("/auth/logout").status == 204
        problem(refresh(stack, c.session["refresh_token"]), 401,
                "auth.refresh_invalid")
        end = time.monotonic() + 1.0
        while True:
            got = [Client(stack, c.token).get("/auth/me") for _ in range(8)]
            if all(r.status == 401 for r in got):
                break
            assert time.monotonic() < end, got
    finally:
        os.kill(pid, signal.SIGCONT)


def test_original_fault_fingerprint_was_a_hash_of_the_tokens_own_claims(
        stack):
    """Nothing in the token gives the cookie, and without it neither the
    token nor its refresh token is good for anything."""
    c = Client(stack, tls=True)
    r = c.post("/auth/register", {
        "email": "f-%s@example.org" % os.urandom(6).hex(),
        "password": PASSWORD, "full_name": "Bound Person",
        "accept_terms": True})
    s = ok(r, 201)
    cookie = [x for x in r.headers("set-cookie")][0].split(";")[0]
    value = cookie.split("=", 1)[1]
    body = claims(s["access_token"])
    assert b64d(body["fgp"]) == hashlib.sha256(value.encode()).digest()
    texts = [str(v) for v in body.values()] + s["access_token"].split(".") \
        + [s["access_token"], s["refresh_token"], s["refresh_token"][5:]]
    raw = b64d(s["refresh_token"][5:])
    guesses = {b64e(hashlib.sha256(x.encode()).digest()) for x in texts}
    guesses |= {b64e(hashlib.sha256(x).digest()) for x in
                (raw, raw[:16], raw[:20], raw[20:])}
    guesses |= {b64e(raw[20:]), body["fgp"],
                b64e(hashlib.sha256(json.dumps(
                    body, sort_keys=True).encode()).digest())}
    assert value not in guesses
    for g in list(guesses) + [""]:
        thief = Client(stack, s["access_token"], tls=True,
                       cookie="__Secure-hm-fgp=" + g)
        problem(thief.get("/auth/me"), 401, "auth.fingerprint_mismatch")
        problem(thief.post("/auth/refresh", {
            "refresh_token": s["refresh_token"]}, token=None), 401,
            "auth.fingerprint_mismatch")
    own = Client(stack, s["access_token"], tls=True, cookie=cookie)
    ok(own.get("/auth/me"))


def test_each_session_has_a_cookie_of_its_own(stack, user):
    seen = set()
    for _ in range(3):
        c = Client(stack, tls=True)
        r = c.post("/auth/login", {"email": user.email,
                                   "password": PASSWORD})
        ok(r)
        seen.add([x for x in r.headers("set-cookie")
                  if "hm-fgp" in x][0].split(";")[0])
    assert len(seen) == 3


def test_original_fault_sessions_were_trimmed_in_random_order(stack, user):
    """No session ends because there are others."""
    got = [stack.login(Client(stack), user.email, PASSWORD)
           for _ in range(12)]
    for c in got:
        ok(refresh(stack, c.session["refresh_token"]))
    assert open_sessions(stack, user) == 13


def test_no_refresh_token_is_kept_anywhere(stack, user):
    s = ok(refresh(stack, user.session["refresh_token"]))
    raw = b64d(s["refresh_token"][5:])
    for t in ("sessions", "jobs", "revocations", "audit_logs"):
        text = stack.psql("select * from %s" % t)
        assert s["refresh_token"] not in text
        assert raw[20:].hex() not in text, t


def test_a_role_read_from_an_old_token_is_not_refreshed(stack, user):
    """The role is read again at each turn; a session of another role than
    its person has ends."""
    stack.psql("update users set role = 'admin' where id = '%s'" % user.id)
    problem(refresh(stack, user.session["refresh_token"]), 401,
            "auth.refresh_invalid")
    stack.psql("update users set role = 'patient' where id = '%s'" % user.id)
    problem(refresh(stack, user.session["refresh_token"]), 401,
            "auth.refresh_invalid")


def test_a_login_loses_to_a_reset(stack, user):
    """What the old password proved opens nothing once there is a new one."""
    change = threading.Thread(target=stack.psql, args=(
        "begin; update users set password_version = password_version + 1"
        " where id = '%s'; select pg_sleep(1.2); commit" % user.id,))
    change.start()
    time.sleep(0.4)
    r = user.post("/auth/login", {"email": user.email, "password": PASSWORD,
                                  "fingerprint": False}, token=None)
    change.join(10)
    problem(r, 401, "auth.invalid_credentials")
    assert stack.one("select count(*) from sessions where user_id = '%s'"
                     % user.id) == "1"
