"""One-time codes and recovery codes: api.md's mfa/*, login's otp, reauth."""

import hashlib
import hmac
import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import hmotp
from hmhttp import ok, problem
from hmotp import Totp
from hmstack import PASSWORD, b64d, b64e

RECOVERY = re.compile(r"^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}$")


def claims(token):
    return json.loads(b64d(token.split(".")[1]))


def sign_in(stack, c, otp=None):
    doc = {"email": c.email, "password": PASSWORD, "fingerprint": False}
    if otp is not None:
        doc["otp"] = otp
    return stack.client().post("/auth/login", doc, token=None)


def enrol(stack, c):
    """Sets codes up; c then has a session with the factor."""
    t = ok(c.post("/auth/mfa/totp"))
    c.totp = Totp(t["secret"])
    c.recovery = ok(c.post("/auth/mfa/totp/confirm",
                           {"otp": c.totp.next()}))["recovery_codes"]
    stack.take(c, ok(sign_in(stack, c, c.totp.next())), c.email, PASSWORD)
    return c


def aged(stack, c, seconds, **kw):
    """c's access token as if the login had been that long ago."""
    kid, secret = stack.jwt_secret(c.token)
    head, body, _ = c.token.split(".")
    doc = json.loads(b64d(body))
    doc["auth_time"] -= seconds
    doc.update(kw)
    text = head + "." + b64e(json.dumps(doc).encode())
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return text + "." + b64e(mac)


@pytest.fixture
def owner(stack):
    return enrol(stack, stack.new_user())


def mails(stack, c, template):
    return int(stack.one(
        "select count(*) from jobs where kind = 'mail.send' and unique_key ="
        " 'mail:%s:%s'" % (template, c.id)))


# --- enrolling ---

def test_enrol(stack, user):
    t = ok(user.post("/auth/mfa/totp"))
    assert set(t) == {"secret", "otpauth_uri", "qr_svg"}
    assert re.match(r"^[A-Z2-7]{32}$", t["secret"])
    assert t["otpauth_uri"].startswith("otpauth://totp/HealthMate:")
    assert "secret=" + t["secret"] in t["otpauth_uri"]
    assert user.email.replace("@", "%40") in t["otpauth_uri"]
    assert t["qr_svg"].startswith("<svg ") and "<script" not in t["qr_svg"]
    assert "style" not in t["qr_svg"]

    # Nothing is on yet: the password alone is enough.
    assert ok(user.get("/auth/me"))["mfa"] == []
    ok(sign_in(stack, user))

    totp = Totp(t["secret"])
    problem(user.post("/auth/mfa/totp/confirm", {"otp": totp.wrong()}), 401,
            "auth.mfa_invalid")
    r = user.post("/auth/mfa/totp/confirm", {"otp": totp.next()})
    codes = ok(r)["recovery_codes"]
    assert "no-store" in r.header("cache-control")
    assert len(set(codes)) == 10 and all(map(RECOVERY.match, codes))
    assert ok(user.get("/auth/me"))["mfa"] == ["totp"]

    # The code that confirmed is used.
    problem(sign_in(stack, user, hmotp.code(t["secret"], totp.last)), 401,
            "auth.mfa_invalid")
    s = ok(sign_in(stack, user, totp.next()))
    assert sorted(claims(s["access_token"])["amr"]) == ["otp", "pwd"]
    assert s["user"]["mfa"] == ["totp"]


def test_oathtool_agrees(stack, user):
    """Another implementation makes codes the service takes."""
    if not shutil.which("oathtool"):
        pytest.skip("oathtool is not installed")
    secret = ok(user.post("/auth/mfa/totp"))["secret"]
    code = subprocess.run(["oathtool", "--totp", "-b", secret], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()
    assert code in {hmotp.code(secret, hmotp.now() + d) for d in (-1, 0)}
    ok(user.post("/auth/mfa/totp/confirm", {"otp": code}))


def test_qr_reads_back(user, tmp_path):
    if not shutil.which("zbarimg") or not shutil.which("rsvg-convert"):
        pytest.skip("zbar-tools and librsvg2-bin are not installed")
    t = ok(user.post("/auth/mfa/totp"))
    (tmp_path / "q.svg").write_text(t["qr_svg"])
    subprocess.run(["rsvg-convert", "-w", "600", "-o",
                    str(tmp_path / "q.png"), str(tmp_path / "q.svg")],
                   check=True)
    out = subprocess.run(["zbarimg", "-q", "--raw", str(tmp_path / "q.png")],
                         check=True, stdout=subprocess.PIPE, text=True)
    assert out.stdout.strip() == t["otpauth_uri"]


def test_a_new_start_replaces_the_last(user):
    old = Totp(ok(user.post("/auth/mfa/totp"))["secret"])
    new = Totp(ok(user.post("/auth/mfa/totp"))["secret"])
    problem(user.post("/auth/mfa/totp/confirm", {"otp": old.next()}), 401,
            "auth.mfa_invalid")
    ok(user.post("/auth/mfa/totp/confirm", {"otp": new.next()}))


def test_a_start_grows_old(stack, user):
    totp = Totp(ok(user.post("/auth/mfa/totp"))["secret"])
    stack.psql("update mfa_totp set started_at = started_at - interval"
               " '16 min' where user_id = '%s'" % user.id)
    problem(user.post("/auth/mfa/totp/confirm", {"otp": totp.next()}), 404)


def test_confirm_faults(user):
    problem(user.post("/auth/mfa/totp/confirm", {"otp": "123456"}), 404)
    ok(user.post("/auth/mfa/totp"))
    problem(user.post("/auth/mfa/totp/confirm", {}), 422, faults={
        "/otp": "required"})
    problem(user.post("/auth/mfa/totp/confirm", {"otp": 123456, "x": 1}),
            422, faults={"/otp": "type", "/x": "unknown"})
    for bad in ("", "1", "12345", "1234567", "abcdef", " 12345", "-12345",
                "0x1234", "\uff11\uff12\uff13\uff14\uff15\uff16"):
        problem(user.post("/auth/mfa/totp/confirm", {"otp": bad}), 401,
                "auth.mfa_invalid")


def test_not_twice(owner):
    problem(owner.post("/auth/mfa/totp"), 409)
    problem(owner.post("/auth/mfa/totp/confirm", {"otp": "123456"}), 409)


def test_confirmed_once_in_parallel(stack, user):
    totp = Totp(ok(user.post("/auth/mfa/totp"))["secret"])
    code = totp.next()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: user.post(
            "/auth/mfa/totp/confirm", {"otp": code}), range(8)))
    good = [r for r in got if r.status == 200]
    assert len(good) == 1, [r.status for r in got]
    assert {r.status for r in got} <= {200, 404, 409, 401}
    # The codes that were shown are the ones that work.
    ok(sign_in(stack, user, good[0].json()["recovery_codes"][3]))


def test_one_persons_factor_is_nobody_elses(stack, owner, stranger):
    ok(sign_in(stack, stranger))
    assert ok(stranger.get("/auth/me"))["mfa"] == []
    problem(stranger.delete("/auth/mfa/totp"), 404)
    assert ok(owner.get("/auth/me"))["mfa"] == ["totp"]


# --- logging in ---

def test_login_asks(stack, owner):
    problem(sign_in(stack, owner), 401, "auth.mfa_required")
    problem(sign_in(stack, owner, owner.totp.wrong()), 401,
            "auth.mfa_invalid")
    for bad in ("", "1", "000", "AAAA-AAAA-AAAA-AAAA", "x" * 32):
        problem(sign_in(stack, owner, bad), 401, "auth.mfa_invalid")
    # The code is not looked at before the password.
    r = stack.client().post("/auth/login", {
        "email": owner.email, "password": "not the password",
        "otp": owner.totp.next(), "fingerprint": False}, token=None)
    problem(r, 401, "auth.invalid_credentials")


def test_a_code_opens_one_of_twenty_doors(stack, owner):
    code = owner.totp.next()
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: sign_in(stack, owner, code), range(20)))
    n = [r.status for r in got].count(200)
    others = {r.json()["code"] for r in got if r.status == 401}
    assert n == 1 and others == {"auth.mfa_invalid"}, got
    problem(sign_in(stack, owner, code), 401, "auth.mfa_invalid")


def test_time_does_not_go_back(stack, owner):
    used = owner.totp.next()
    ok(sign_in(stack, owner, used))
    for step in range(owner.totp.last - 2, owner.totp.last + 1):
        problem(sign_in(stack, owner, hmotp.code(owner.totp.secret, step)),
                401, "auth.mfa_invalid")


def test_codes_far_from_now(stack, owner):
    for d in (-3, -2, 3, 4, 100):
        problem(sign_in(stack, owner, hmotp.code(
            owner.totp.secret, hmotp.now() + d)), 401, "auth.mfa_invalid")


# --- recovery codes ---

def test_recovery_code_works_once(stack, owner):
    a, b, c = owner.recovery[:3]
    s = ok(sign_in(stack, owner, a))
    assert sorted(claims(s["access_token"])["amr"]) == ["otp", "pwd"]
    problem(sign_in(stack, owner, a), 401, "auth.mfa_invalid")
    ok(sign_in(stack, owner, " " + b.lower().replace("-", " ")))
    problem(sign_in(stack, owner, b), 401, "auth.mfa_invalid")
    with ThreadPoolExecutor(10) as pool:
        got = list(pool.map(lambda _: sign_in(stack, owner, c).status,
                            range(10)))
    assert got.count(200) == 1 and got.count(401) == 9, got


def test_new_recovery_codes(stack, owner):
    new = ok(owner.post("/auth/mfa/recovery-codes"))["recovery_codes"]
    assert len(set(new)) == 10 and not set(new) & set(owner.recovery)
    problem(sign_in(stack, owner, owner.recovery[0]), 401,
            "auth.mfa_invalid")
    ok(sign_in(stack, owner, new[0]))


def test_no_recovery_codes_without_a_factor(user):
    problem(user.post("/auth/mfa/recovery-codes"), 404)


# --- taking it away ---

def test_remove(stack, owner):
    r = owner.delete("/auth/mfa/totp")
    assert r.status == 204 and not r.body
    problem(owner.delete("/auth/mfa/totp"), 404)
    assert ok(owner.get("/auth/me"))["mfa"] == []
    s = ok(sign_in(stack, owner))
    assert claims(s["access_token"])["amr"] == ["pwd"]
    assert stack.one("select count(*) from mfa_recovery_codes where user_id"
                     " = '%s'" % owner.id) == "0"
    # and a new one can be set up
    ok(owner.post("/auth/mfa/totp"))


# --- what is left behind ---

def test_stored_sealed_and_told(stack, user):
    t = ok(user.post("/auth/mfa/totp"))
    totp = Totp(t["secret"])
    codes = ok(user.post("/auth/mfa/totp/confirm",
                         {"otp": totp.next()}))["recovery_codes"]
    assert mails(stack, user, "mfa_changed") >= 1

    raw = stack.one("select encode(secret, 'hex') from mfa_totp where"
                    " user_id = '%s'" % user.id)
    import base64
    assert raw.startswith("01")
    for x in (t["secret"].encode(), base64.b32decode(t["secret"])):
        assert x.hex() not in raw
    stored = stack.one("select string_agg(encode(code_index, 'hex'), ' ')"
                       " from mfa_recovery_codes where user_id = '%s'"
                       % user.id).split()
    assert len(stored) == 10
    for c in codes:
        n = c.replace("-", "").encode()
        assert n.hex() not in stored
        assert hashlib.sha256(n).hexdigest() not in stored

    log = "\n".join(text for _, text in stack.log_since({}))
    for x in [t["secret"]] + codes:
        assert x not in log

    audit = stack.rows(
        "select action, outcome from audit_logs where resource = 20 and"
        " user_id = '%s' order by at, seq" % user.id)
    assert [(a["action"], a["outcome"]) for a in audit] == [
        (3, 200), (4, 200)]

