"""
api.md, what becomes of a session: refresh, reauth, the list, the end, limits
by role, step-up.  Time is moved by setting a session's row back.
"""

import json
import os
import subprocess
import time

import pytest

from hmhttp import TIME_RE, UUID_RE, Client, ok, problem
from hmstack import PASSWORD, b64d, b64e, wait

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
MODULE = os.path.join(ROOT, "build", "ngx_http_healthmate_module.so")
ITEM = {"id", "current", "device", "address", "fingerprint", "created_at",
        "last_used_at"}


def claims(token):
    return json.loads(b64d(token.split(".")[1]))


def sid(c):
    return claims(c.token)["sid"]


def refresh(c, token=None, **kw):
    kw.setdefault("token", None)
    return c.post("/auth/refresh",
                  {"refresh_token": token or c.session["refresh_token"]},
                  **kw)


def row(stack, session, column):
    return stack.one("select %s from sessions where id = '%s'"
                     % (column, session))


def back(stack, session, **columns):
    """Sets times of a session's row back by so many seconds."""
    stack.psql("update sessions set %s where id = '%s'" % (", ".join(
        "%s = %s - interval '%d seconds'" % (k, k, v)
        for k, v in columns.items()), session))


def bound(stack):
    """A person over TLS whose tokens are bound to the cookie."""
    c = Client(stack, tls=True)
    email = "s-%s@example.org" % os.urandom(6).hex()
    r = c.post("/auth/register", {
        "email": email, "password": PASSWORD, "full_name": "Bound Person",
        "accept_terms": True})
    s = ok(r, 201)
    stack.take(c, s, email, PASSWORD)
    c.cookie = cookie_of(r)
    return c


def cookie_of(r):
    got = [x for x in r.headers("set-cookie")
           if x.startswith("__Secure-hm-fgp=")]
    assert len(got) == 1, r
    return got[0].split(";")[0]


# --- refresh ---

def test_refresh(user):
    r = refresh(user)
    s = ok(r)
    assert set(s) == set(user.session)
    assert "no-store" in r.header("cache-control")
    assert s["refresh_token"] != user.session["refresh_token"]
    assert s["access_token"] != user.token
    assert 0 < s["expires_in"] <= 1800
    assert 0 < s["refresh_expires_in"] <= 7 * 86400
    assert s["user"]["id"] == user.id and s["user"]["email"] == user.email
    a, b = claims(user.token), claims(s["access_token"])
    assert a["sid"] == b["sid"] and a["jti"] != b["jti"]
    assert a["auth_time"] == b["auth_time"] and a["amr"] == b["amr"]
    # Both tokens of the session work, each to its end.
    ok(user.get("/auth/me"))
    ok(user.get("/auth/me", token=s["access_token"]))
    # And so on.
    s2 = ok(refresh(user, s["refresh_token"]))
    assert s2["refresh_token"] not in (s["refresh_token"],
                                       user.session["refresh_token"])


def test_a_lost_reply_is_recovered(user):
    a = ok(refresh(user))
    b = ok(refresh(user))
    # The current pair again, not another one.
    assert a["refresh_token"] == b["refresh_token"]
    assert a["access_token"] == b["access_token"]
    assert b["expires_in"] <= a["expires_in"]
    ok(refresh(user, b["refresh_token"]))


def test_two_steps_behind_ends_the_session(stack, user):
    first = user.session["refresh_token"]
    second = ok(refresh(user))["refresh_token"]
    third = ok(refresh(user, second))["refresh_token"]
    problem(refresh(user, first), 401, "auth.refresh_reused")
    assert row(stack, sid(user), "end_reason") == "refresh_reused"
    for t in (third, second, first):
        problem(refresh(user, t), 401, "auth.refresh_invalid")


def test_reuse_is_recorded_and_told(stack, user):
    first = user.session["refresh_token"]
    back_to = ok(refresh(user, ok(refresh(user))["refresh_token"]))
    problem(refresh(user, first), 401, "auth.refresh_reused")
    problem(refresh(user, first), 401, "auth.refresh_invalid")
    assert back_to
    rows = stack.rows(
        "select action, resource, outcome, session, actor from audit_logs"
        " where user_id = '%s' and action = 13 order by at" % user.id)
    assert [r["outcome"] for r in rows] == [200, 200, 401]
    assert all(r["session"] == sid(user) and r["resource"] == 3
               for r in rows)
    assert stack.one("select count(*) from jobs where user_id = '%s' and"
                     " unique_key like 'mail:session_reuse:%%'"
                     % user.id) == "1"


def test_one_step_behind_after_the_grace(stack, user):
    ok(refresh(user))
    back(stack, sid(user), rotated_at=29)
    ok(refresh(user))
    back(stack, sid(user), rotated_at=2)
    problem(refresh(user), 401, "auth.refresh_reused")


def test_nothing_but_our_tokens(user):
    good = user.session["refresh_token"]
    raw = b64d(good[5:])
    assert good.startswith("hmr1.") and len(raw) == 52
    bad = ["", "x", "hmr1.", "hmr1", good[5:], "HMR1." + good[5:],
           "hmr2." + good[5:], good + "=", good + "A", good[:-1],
           " " + good, good + " ", user.token, good + "\u00e4",
           good.replace("hmr1.", "hmr1..")]
    # Other spellings of the same bytes, and every byte changed.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bad += [good[:-1] + c for c in last if c != good[-1]]
    for i in range(52):
        bad.append("hmr1." + b64e(raw[:i] + bytes([raw[i] ^ 1])
                                  + raw[i + 1:]))
    for t in bad:
        problem(user.post("/auth/refresh", {"refresh_token": t},
                          token=None), 401, "auth.refresh_invalid")
    ok(refresh(user))


@pytest.mark.parametrize("doc,faults", [
    ({}, {"/refresh_token": "required"}),
    ({"refresh_token": None}, {"/refresh_token": "required"}),
    ({"refresh_token": 5}, {"/refresh_token": "type"}),
    ({"refresh_token": "a\u0000b"}, {"/refresh_token": "format"}),
    ({"refresh_token": "x" * 5000}, {"/refresh_token": "length"}),
    ({"refresh_token": "x", "zz": 1}, {"/zz": "unknown"}),
    ([], {"": "type"}),
])
def test_refresh_faults(anon, doc, faults):
    r = anon.post("/auth/refresh", doc)
    if doc == {"refresh_token": "a\u0000b"} and r.status == 400:
        return                                 # jansson refuses U+0000
    problem(r, 422, "validation.failed", faults)


def test_an_access_token_beside_it_does_not_matter(user, stranger):
    doc = {"refresh_token": user.session["refresh_token"]}
    ok(user.post("/auth/refresh", doc, token=stranger.token))
    ok(user.post("/auth/refresh", doc, token="nonsense"))


def test_the_cookie_is_needed_and_renewed(stack):
    c = bound(stack)
    r = refresh(c)
    s = ok(r)
    assert cookie_of(r) == c.cookie
    text = r.headers("set-cookie")[0]
    parts = [x.strip() for x in text.split(";")[1:]]
    age = [int(x[8:]) for x in parts if x.startswith("Max-Age=")]
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(parts)
    assert len(age) == 1 and 0 < age[0] <= s["refresh_expires_in"]
    ok(c.get("/auth/me", token=s["access_token"]))


@pytest.mark.parametrize("cookie", [
    None, "__Secure-hm-fgp=", "__Secure-hm-fgp=" + "A" * 43, "other",
    "hm-fgp="])
def test_without_its_cookie_nothing_happens(stack, cookie):
    c = bound(stack)
    mine, first = c.cookie, c.session["refresh_token"]
    second = ok(refresh(c))["refresh_token"]
    other = bound(stack).cookie if cookie == "other" else cookie
    c.cookie = other
    for t in (second, first):                  # a turn, and the grace
        problem(refresh(c, t), 401, "auth.fingerprint_mismatch")
    c.cookie = mine
    third = ok(refresh(c, second))["refresh_token"]
    c.cookie = other
    problem(refresh(c, first), 401, "auth.fingerprint_mismatch")
    assert row(stack, sid(c), "ended_at is null") == "t"
    c.cookie = mine
    ok(refresh(c, third))


def test_a_disabled_account_is_not_refreshed(stack, user):
    stack.psql("update users set is_active = false where id = '%s'" % user.id)
    problem(refresh(user), 401, "auth.refresh_invalid")
    assert row(stack, sid(user), "ended_at is not null") == "t"


def test_a_session_of_another_role_ends(stack, user):
    stack.psql("update users set role = 'doctor' where id = '%s'" % user.id)
    problem(refresh(user), 401, "auth.refresh_invalid")
    assert row(stack, sid(user), "ended_at is not null") == "t"


# --- limits by role ---

def test_idle_ends_a_session(stack, user):
    back(stack, sid(user), last_used_at=3500)
    s = ok(refresh(user))
    back(stack, sid(user), last_used_at=3700)
    problem(refresh(user, s["refresh_token"]), 401, "auth.refresh_invalid")
    assert row(stack, sid(user), "end_reason") == "idle"


def test_staff_is_idle_sooner(stack):
    d = stack.new_user(role="doctor")
    assert d.session["expires_in"] <= 900
    assert d.session["refresh_expires_in"] <= 12 * 3600
    back(stack, sid(d), last_used_at=880)
    s = ok(refresh(d))
    back(stack, sid(d), last_used_at=1000)
    problem(refresh(d, s["refresh_token"]), 401, "auth.refresh_invalid")


def test_use_keeps_a_session(stack, user):
    """Requests count, not only refreshes."""
    back(stack, sid(user), last_used_at=3590)
    ok(user.get("/auth/me"))
    wait(lambda: row(stack, sid(user),
                     "last_used_at > now() - interval '60 seconds'") == "t",
         what="the use to be noted")
    ok(refresh(user))


@pytest.mark.parametrize("role,hours", [("patient", 720), ("doctor", 12),
                                        ("admin", 12), ("researcher", 12)])
def test_no_session_lasts_for_ever(stack, role, hours):
    u = stack.new_user(role=role)
    back(stack, sid(u), created_at=hours * 3600 - 100)
    s = ok(refresh(u))
    assert 0 < s["refresh_expires_in"] <= 100
    assert 0 < s["expires_in"] <= 100
    back(stack, sid(u), created_at=101)
    problem(refresh(u, s["refresh_token"]), 401, "auth.refresh_invalid")
    assert row(stack, sid(u), "end_reason") == "expired"


@pytest.mark.parametrize("line,good", [
    ("patient 1h 30d", True), ("doctor 5m 5m", True),
    ("researcher 1s 365d", True), ("nurse 1h 30d", False),
    ("patient 0 30d", False), ("patient 2h 1h", False),
    ("patient 1h 366d", False), ("patient x 30d", False),
    ("patient 1h", False), ("admin 1m 1h; healthmate_session_limit admin"
                            " 1m 1h", False)])
def test_the_directive(tmp_path, line, good):
    conf = tmp_path / "nginx.conf"
    conf.write_text("load_module %s;\npid %s;\nerror_log stderr;\n"
                    "events {}\nhttp { healthmate_session_limit %s; }\n"
                    % (MODULE, tmp_path / "pid", line))
    r = subprocess.run(["nginx", "-t", "-c", str(conf)], env=dict(
        os.environ, PATH=os.environ["PATH"] + ":/usr/sbin"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (r.returncode == 0) == good, r.stdout
    assert good or "healthmate_session_limit" in r.stdout \
        or "no such role" in r.stdout


# --- the list, and the end ---

def test_sessions(stack, user):
    c = Client(stack)
    r = c.post("/auth/login", {"email": user.email, "password": PASSWORD,
                               "fingerprint": False},
               headers={"User-Agent": "Phone \u00fc".encode().decode(
                   "latin-1")})
    stack.take(c, ok(r), user.email, PASSWORD)
    got = ok(user.get("/auth/sessions"))
    assert got["next"] is None
    items = got["items"]
    assert [x["id"] for x in items] == [sid(c), sid(user)]
    for x in items:
        assert set(x) == ITEM and UUID_RE.match(x["id"])
        assert TIME_RE.match(x["created_at"])
        assert TIME_RE.match(x["last_used_at"])
        assert x["address"] == "127.0.0.1" and x["fingerprint"] is False
    assert [x["current"] for x in items] == [False, True]
    assert items[0]["device"] == "Phone \u00fc"
    assert [x["current"] for x in ok(c.get("/auth/sessions"))["items"]] \
        == [True, False]
    back(stack, sid(c), last_used_at=4000)
    assert len(ok(user.get("/auth/sessions"))["items"]) == 1
    problem(user.get("/auth/sessions?limit=5"), 400,
            "request.invalid_parameter")


def test_sessions_over_tls_say_they_are_bound(stack):
    c = bound(stack)
    assert [x["fingerprint"] for x in ok(c.get("/auth/sessions"))["items"]] \
        == [True]


def test_end_one_session(stack, user, stranger):
    c = stack.login(Client(stack), user.email, PASSWORD)
    r = user.delete("/auth/sessions/" + sid(c))
    assert r.status == 204 and r.body == b""
    problem(refresh(c), 401, "auth.refresh_invalid")
    assert [x["id"] for x in ok(user.get("/auth/sessions"))["items"]] \
        == [sid(user)]
    for bad in (sid(c), sid(stranger), "00000000-0000-7000-8000-000000000000",
                "nonsense"):
        problem(user.delete("/auth/sessions/" + bad), 404,
                "resource.not_found")
    ok(stranger.get("/auth/me"))
    assert row(stack, sid(stranger), "ended_at is null") == "t"


def test_an_administrator_has_only_his_own_here(stack, admin, user):
    problem(admin.delete("/auth/sessions/" + sid(user)), 404,
            "resource.not_found")
    ok(refresh(user))


def gone(c):
    """Refused by every worker within a second."""
    end = time.monotonic() + 1.0
    while True:
        got = [Client(c.stack, c.token, c.tls, c.cookie).get("/auth/me")
               for _ in range(12)]
        if all(r.status == 401 for r in got):
            for r in got:
                problem(r, 401, "auth.session_revoked")
            return
        assert time.monotonic() < end, got


def test_logout(stack, user):
    c = stack.login(Client(stack), user.email, PASSWORD)
    r = c.post("/auth/logout")
    assert r.status == 204 and r.body == b""
    problem(refresh(c), 401, "auth.refresh_invalid")
    assert row(stack, sid(c), "end_reason") == "logout"
    gone(c)
    ok(user.get("/auth/me"))
    rows = stack.rows("select outcome, session from audit_logs where user_id"
                      " = '%s' and action = 8" % user.id)
    assert rows == [{"outcome": 204, "session": sid(c)}]


def test_logout_takes_the_cookie_away(stack):
    c = bound(stack)
    r = c.post("/auth/logout")
    assert r.status == 204
    assert r.headers("set-cookie")[0].startswith("__Secure-hm-fgp=; ")
    assert "Max-Age=0" in r.headers("set-cookie")[0]


def test_a_logged_out_session_is_not_opened_by_the_grace(stack, user):
    """A freshly ended token inside the leeway must not pass."""
    s = ok(refresh(user))
    assert user.post("/auth/logout", token=s["access_token"]).status == 204
    problem(refresh(user), 401, "auth.refresh_invalid")


def test_logout_all(stack, user):
    others = [stack.login(Client(stack), user.email, PASSWORD)
              for _ in range(3)]
    assert user.post("/auth/logout-all").status == 204
    for c in others + [user]:
        problem(refresh(c), 401, "auth.refresh_invalid")
        gone(c)
    c = stack.login(Client(stack), user.email, PASSWORD)
    assert len(ok(c.get("/auth/sessions"))["items"]) == 1


@pytest.mark.parametrize("method,path", [
    ("POST", "/auth/reauth"), ("POST", "/auth/logout"),
    ("POST", "/auth/logout-all"), ("GET", "/auth/sessions"),
    ("DELETE", "/auth/sessions/00000000-0000-7000-8000-000000000000")])
def test_a_token_is_needed(anon, method, path):
    problem(anon.call(method, path), 401, "auth.token_missing")


# --- reauth and step-up ---

def aged(stack, c, seconds=700):
    """The same person, whose proof of identity is old."""
    back(stack, sid(c), auth_time=seconds)
    c.session = ok(refresh(c))
    c.token = c.session["access_token"]
    return c


def test_reauth(stack, user):
    aged(stack, user)
    old = claims(user.token)
    s = ok(user.post("/auth/reauth", {"password": PASSWORD}))
    new = claims(s["access_token"])
    assert set(s) == set(user.session)
    assert new["sid"] == old["sid"] and new["amr"] == old["amr"]
    assert new["auth_time"] - old["auth_time"] >= 700
    assert abs(new["auth_time"] - time.time()) < 30
    # A lost answer logs nobody out: the refresh token stays what it was.
    assert s["refresh_token"] == user.session["refresh_token"]
    s2 = ok(refresh(user))
    assert claims(s2["access_token"])["auth_time"] == new["auth_time"]
    assert ok(refresh(user))["access_token"] == s2["access_token"]


def test_reauth_wrong(stack, user):
    aged(stack, user)
    for bad in ("wrong horse battery", "", "x" * 600):
        problem(user.post("/auth/reauth", {"password": bad}), 401,
                "auth.invalid_credentials")
    assert claims(ok(refresh(user))["access_token"])["auth_time"] \
        < time.time() - 600


@pytest.mark.parametrize("doc,faults", [
    ({"password": 5}, {"/password": "type"}),
    ({"password": "abcdefgh", "zz": 1}, {"/zz": "unknown"}),
    ([], {"": "type"}),
])
def test_reauth_faults(user, doc, faults):
    problem(user.post("/auth/reauth", doc), 422, "validation.failed", faults)


def test_reauth_of_an_ended_session(stack, user):
    stack.psql("update sessions set ended_at = now() where id = '%s'"
               % sid(user))
    problem(user.post("/auth/reauth", {"password": PASSWORD}), 401,
            "auth.session_revoked")


@pytest.fixture(scope="module")
def asking(stack):
    """The routes that ask for a recent login, as the service says."""
    doc = stack.client().root("GET", "/openapi.json").json()
    got = []
    for path, item in doc["paths"].items():
        for verb, op in item.items():
            if op.get("x-step-up"):
                got.append((verb.upper(), path.replace(
                    "{id}", "00000000-0000-7000-8000-000000000000"),
                    b"{}" if "requestBody" in op else None))
    if not got:
        pytest.skip("no route asks for a recent login yet")
    return got


def ask(c, route):
    verb, path, body = route
    return c.raw(verb, path, body,
                 ctype="application/json" if body else None)


def test_step_up(stack, asking):
    people = [aged(stack, stack.new_user(role=r))
              for r in ("patient", "doctor", "admin")]
    for route in asking:
        got = [ask(c, route) for c in people]
        assert all(r.status in (401, 403) for r in got), (route, got)
        assert any(r.code == "auth.reauth_required" for r in got), \
            (route, got)


def test_step_up_after_reauth(stack, asking):
    for role in ("patient", "admin"):
        for route in asking:
            c = aged(stack, stack.new_user(role=role))
            c.token = ok(c.post("/auth/reauth", {"password": PASSWORD}))[
                "access_token"]
            r = ask(c, route)
            assert r.code != "auth.reauth_required", (role, route, r)


def test_step_up_asks_for_a_factor_enrolled_since(stack, asking):
    """The token cannot know of it; the database does."""
    c = stack.new_user()
    stack.psql("update users set mfa = '{totp}' where id = '%s'" % c.id)
    got = [ask(c, route) for route in asking]
    assert all(r.status in (401, 403) for r in got), got
    assert any(r.code == "auth.reauth_required" for r in got), got
    problem(c.post("/auth/reauth", {"password": PASSWORD}), 401,
            "auth.mfa_required")
