"""
Factors and what they guard: step-up before a factor is changed, reauth with
one, and roles that must have one (healthmate_mfa_required).
"""

import os
import re
import signal
import time

import pytest

from hmhttp import ok, problem
from hmkey import Passkey
from hmmail import Outbox
from hmotp import Totp
from hmstack import wait
from test_mfa import aged, claims, enrol, owner, sign_in       # noqa: F401
from test_passkeys import (                                    # noqa: F401
    keyed, login, options, origin, refused, register)


def test_changes_need_a_recent_login(stack, owner):
    me = owner.token
    owner.token = aged(stack, owner, 660)
    for m, p in (("POST", "/auth/mfa/totp"), ("DELETE", "/auth/mfa/totp"),
                 ("POST", "/auth/mfa/recovery-codes"),
                 ("POST", "/auth/passkeys/register/options")):
        problem(owner.call(m, p), 401, "auth.reauth_required")
    problem(owner.post("/auth/mfa/totp/confirm", {"otp": "123456"}), 401,
            "auth.reauth_required")
    owner.token = me
    assert ok(owner.get("/auth/me"))["mfa"] == ["totp"]


def test_changes_need_the_factor(stack, user):
    """A password is not enough to change what guards against passwords."""
    stolen = ok(sign_in(stack, user))["access_token"]
    enrol(stack, user)
    for m, p in (("DELETE", "/auth/mfa/totp"),
                 ("POST", "/auth/mfa/recovery-codes"),
                 ("POST", "/auth/passkeys/register/options")):
        problem(user.call(m, p, token=stolen), 401,
                "auth.reauth_required")


def test_reauth_by_code(stack, owner):
    owner.token = aged(stack, owner, 660)
    problem(owner.post("/auth/reauth", {"otp": owner.totp.wrong()}), 401,
            "auth.mfa_invalid")
    code = owner.totp.next()
    s = ok(owner.post("/auth/reauth", {"otp": code}))
    assert "otp" in claims(s["access_token"])["amr"]
    assert claims(s["access_token"])["auth_time"] > time.time() - 60
    problem(owner.post("/auth/reauth", {"otp": code}), 401,
            "auth.mfa_invalid")
    owner.token = s["access_token"]
    ok(owner.post("/auth/mfa/recovery-codes"))


def test_confirming_shows_the_factor(stack, user):
    """After a refresh the same session may change factors."""
    totp = Totp(ok(user.post("/auth/mfa/totp"))["secret"])
    ok(user.post("/auth/mfa/totp/confirm", {"otp": totp.next()}))
    problem(user.post("/auth/mfa/recovery-codes"), 401,
            "auth.reauth_required")
    s = ok(user.post("/auth/refresh", {
        "refresh_token": user.session["refresh_token"]}, token=None))
    assert sorted(claims(s["access_token"])["amr"]) == ["otp", "pwd"]
    user.token = s["access_token"]
    ok(user.post("/auth/mfa/recovery-codes"))


def test_a_challenge_serves_once(stack, user):
    o = ok(user.post("/auth/passkeys/register/options"))
    ok(user.post("/auth/passkeys/register/verify",
                 Passkey(origin(stack)).create(o)), 201)
    user.token = ok(sign_in(stack, user))["access_token"]
    # The factor guards further ones now; the challenge is used anyway.
    r = user.post("/auth/passkeys/register/verify",
                  Passkey(origin(stack)).create(o))
    problem(r, 401, "auth.reauth_required")


def test_reauth(stack, keyed, stranger):
    keyed.token = aged(stack, keyed, 660)
    problem(keyed.post("/auth/passkeys/register/options"), 401,
            "auth.reauth_required")
    other = register(stack, stack.new_user())
    refused(keyed.post("/auth/reauth", {
        "passkey": other.get(options(stack))}))
    s = ok(keyed.post("/auth/reauth", {
        "passkey": keyed.key.get(options(stack))}))
    assert "hwk" in claims(s["access_token"])["amr"]
    keyed.token = s["access_token"]
    ok(keyed.post("/auth/passkeys/register/options"))


def test_a_password_does_not_change_passkeys(stack, keyed):
    stolen = ok(sign_in(stack, keyed))["access_token"]
    for m, p in (("POST", "/auth/passkeys/register/options"),
                 ("POST", "/auth/mfa/totp"),
                 ("DELETE", "/auth/passkeys/" + keyed.key.item["id"])):
        problem(keyed.call(m, p, token=stolen), 401, "auth.reauth_required")


@pytest.fixture
def strict(stack):
    """healthmate_mfa_required doctor admin, for the time of a test."""
    conf = os.path.join(stack.real, "nginx/conf/healthmate.conf")
    before = open(conf).read()
    text = re.sub(r"^healthmate_mfa_required .*\n", "", before, flags=re.M)
    old = set(stack.nginx_workers(old=False))

    def use(new):
        with open(conf, "w") as f:
            f.write(new)
        was = set(stack.nginx_workers(old=False))
        os.kill(stack.pid_of("nginx"), signal.SIGHUP)
        wait(lambda: not was & set(stack.nginx_workers(old=False))
             and stack.client().root("GET", "/ready").status == 200, 20,
             what="new workers")

    assert old
    use(text + "\nhealthmate_mfa_required doctor admin;\n")
    yield
    use(before)


def test_required_role_may_only_enrol(stack, strict):
    doc = stack.new_user(role="doctor", verified=True)
    for m, p, body in (("GET", "/health-data", None),
                       ("GET", "/health-data/types", None),
                       ("POST", "/health-data", {"data_type": "weight",
                                                 "value": 70}),
                       ("GET", "/analytics/trends?metric=weight", None)):
        problem(doc.call(m, p, body), 401, "auth.mfa_required")
    assert ok(doc.get("/auth/me"))["role"] == "doctor"

    totp = Totp(ok(doc.post("/auth/mfa/totp"))["secret"])
    ok(doc.post("/auth/mfa/totp/confirm", {"otp": totp.next()}))
    problem(doc.get("/health-data"), 401, "auth.mfa_required")
    s = ok(doc.post("/auth/refresh", {
        "refresh_token": doc.session["refresh_token"]}, token=None))
    doc.token = s["access_token"]
    ok(doc.get("/health-data"))

    # The next login asks, and then it is a whole one.
    problem(sign_in(stack, doc), 401, "auth.mfa_required")
    doc.token = ok(sign_in(stack, doc, totp.next()))["access_token"]
    ok(doc.get("/health-data"))

    # A patient needs none.
    pat = stack.new_user()
    ok(pat.get("/health-data"))


# --- a mailbox that proves itself ends what was there before ---

def mailed(stack, c, page):
    """The token of the mail that opens this page."""
    def look():
        return [m.token for m in outbox.all(c.email)
                if m.page == page and m.token]
    outbox = Outbox(stack)
    return wait(look, 20, what="a mail to " + page)[-1]


def cleared(stack, c):
    assert stack.one(
        "select (select count(*) from mfa_totp where user_id = '{0}')"
        " + (select count(*) from passkeys where user_id = '{0}')"
        " + (select count(*) from mfa_recovery_codes where user_id = '{0}')"
        .format(c.id)) == "0"
    refused(login(stack, c.key.get(options(stack))))


def test_a_reset_ends_all_factors(stack, keyed, anon):
    """Whoever lost them gets in again; whoever planted them is out."""
    keyed.totp = Totp(ok(keyed.post("/auth/mfa/totp"))["secret"])
    ok(keyed.post("/auth/mfa/totp/confirm", {"otp": keyed.totp.next()}))
    assert ok(keyed.get("/auth/me"))["mfa"] == ["totp", "passkey"]

    ok(anon.post("/auth/forgot-password", {"email": keyed.email},
                 token=None), 202)
    r = anon.post("/auth/reset-password", {
        "token": mailed(stack, keyed, "/reset-password"),
        "password": "another battery horse"}, token=None)
    assert r.status == 204, r
    s = ok(anon.post("/auth/login", {
        "email": keyed.email, "password": "another battery horse",
        "fingerprint": False}, token=None))
    assert s["user"]["mfa"] == [] and s["user"]["email_verified"] is True
    cleared(stack, keyed)


def test_verifying_ends_all_factors(stack, keyed, anon):
    r = anon.post("/auth/verify-email", {
        "token": mailed(stack, keyed, "/verify-email")}, token=None)
    assert r.status == 204, r
    assert ok(sign_in(stack, keyed))["user"]["mfa"] == []
    cleared(stack, keyed)
