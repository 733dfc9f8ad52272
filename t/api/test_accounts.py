"""api.md: register, login, me, and what a token must be."""

import hashlib
import hmac
import json
import os
import time

import pytest

from hmhttp import UUID_RE, TIME_RE, ok, problem, raw_request
from hmstack import PASSWORD, b64d, b64e

USER_KEYS = {"id", "email", "email_verified", "full_name", "role",
             "is_active", "mfa", "phone", "address", "date_of_birth",
             "created_at", "updated_at", "last_login_at"}
SESSION_KEYS = {"access_token", "refresh_token", "token_type", "expires_in",
                "refresh_expires_in", "user"}


def email():
    return "a-%s@example.org" % os.urandom(6).hex()


def form(**kw):
    doc = {"email": email(), "password": PASSWORD, "full_name": "Ada L",
           "accept_terms": True, "fingerprint": False}
    doc.update(kw)
    return {k: v for k, v in doc.items() if v is not ...}


def session_shape(s):
    assert set(s) == SESSION_KEYS, set(s) ^ SESSION_KEYS
    assert s["token_type"] == "Bearer"
    assert type(s["expires_in"]) is int and 0 < s["expires_in"] <= 1800
    assert type(s["refresh_expires_in"]) is int
    assert 0 < s["refresh_expires_in"] <= 7 * 86400
    assert s["access_token"].count(".") == 2
    user_shape(s["user"])


def user_shape(u):
    assert set(u) == USER_KEYS, set(u) ^ USER_KEYS
    assert UUID_RE.match(u["id"])
    assert u["mfa"] == [] and u["is_active"] is True
    assert TIME_RE.match(u["created_at"]) and TIME_RE.match(u["updated_at"])
    assert u["last_login_at"] is None or TIME_RE.match(u["last_login_at"])


# --- register ---

def test_register(anon):
    f = form(date_of_birth="1980-02-29")
    r = anon.post("/auth/register", f)
    s = ok(r, 201)
    session_shape(s)
    assert r.header("location") == "/api/v1/users/me"
    assert "no-store" in r.header("cache-control")
    u = s["user"]
    assert u["email"] == f["email"] and u["full_name"] == "Ada L"
    assert u["role"] == "patient" and u["email_verified"] is False
    assert u["date_of_birth"] == "1980-02-29"
    assert u["phone"] is None and u["address"] is None
    # The token works at once.
    anon.token = s["access_token"]
    assert ok(anon.get("/auth/me"))["id"] == u["id"]


def test_register_and_users_me_path(anon):
    """The Location of register can be read."""
    r = anon.post("/auth/register", form())
    anon.token = r.json()["access_token"]
    got = anon.raw("GET", r.header("location"))
    assert got.status in (200, 404), got        # users/* is a later part
    if got.status == 200:
        assert got.json()["id"] == r.json()["user"]["id"]


def test_register_twice_is_409(anon):
    f = form()
    ok(anon.post("/auth/register", f), 201)
    problem(anon.post("/auth/register", f), 409, "auth.email_taken")
    # The normal form is what counts.
    up = dict(f, email=f["email"].upper())
    problem(anon.post("/auth/register", up), 409, "auth.email_taken")


def test_register_race_makes_one(stack):
    import threading
    f, got = form(), []

    def go():
        got.append(stack.client().post("/auth/register", f).status)

    ts = [threading.Thread(target=go) for _ in range(6)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(got) == [201] + [409] * 5, got


@pytest.mark.parametrize("change,faults", [
    ({"email": ...}, {"/email": "required"}),
    ({"password": ...}, {"/password": "required"}),
    ({"full_name": ...}, {"/full_name": "required"}),
    ({"accept_terms": ...}, {"/accept_terms": "required"}),
    ({"accept_terms": False}, {"/accept_terms": {"enum", "required"}}),
    ({"accept_terms": "true"}, {"/accept_terms": {"type", "enum"}}),
    ({"email": "nobody"}, {"/email": "format"}),
    ({"email": "@x.org"}, {"/email": "format"}),
    ({"email": "a b@x.org"}, {"/email": "format"}),
    ({"email": "a@b@x.org"}, {"/email": "format"}),
    ({"email": ""}, {"/email": {"format", "length", "required"}}),
    ({"email": "a" * 250 + "@x.org"}, {"/email": {"length", "format"}}),
    ({"email": 5}, {"/email": "type"}),
    ({"email": None}, {"/email": {"required", "type"}}),
    ({"password": "short12"}, {"/password": "length"}),
    ({"password": "x" * 129}, {"/password": "length"}),
    ({"password": 12345678}, {"/password": "type"}),
    ({"password": "password"}, {"/password": "blocklisted"}),
    ({"password": "12345678"}, {"/password": "blocklisted"}),
    ({"password": "qwertyuiop"}, {"/password": "blocklisted"}),
    ({"full_name": ""}, {"/full_name": "length"}),
    ({"full_name": "x" * 201}, {"/full_name": "length"}),
    ({"full_name": "a\u0007b"}, {"/full_name": "format"}),
    ({"full_name": ["x"]}, {"/full_name": "type"}),
    ({"date_of_birth": "29.02.1980"}, {"/date_of_birth": "format"}),
    ({"date_of_birth": "1981-02-29"}, {"/date_of_birth": "format"}),
    ({"date_of_birth": "1980-02-29T00:00:00Z"}, {"/date_of_birth": "format"}),
    ({"date_of_birth": "2999-01-01"}, {"/date_of_birth": {"future", "range"}}),
    ({"fingerprint": "no"}, {"/fingerprint": "type"}),
    ({"role": "admin"}, {"/role": {"unknown", "read_only"}}),
    ({"is_admin": True}, {"/is_admin": "unknown"}),
    ({"id": "x"}, {"/id": {"unknown", "read_only"}}),
    ({"a/b~c": 1}, {"/a~1b~0c": "unknown"}),
    ({"email": "nobody", "password": "x", "zz": 1, "full_name": ...},
     {"/email": "format", "/password": "length", "/zz": "unknown",
      "/full_name": "required"}),
])
def test_register_faults(anon, change, faults):
    problem(anon.post("/auth/register", form(**change)), 422,
            "validation.failed", faults)


@pytest.mark.parametrize("password", [
    "x7" * 4, "k" * 63 + "z" * 65, "\u00e4\u00f6\u00fc\u00df \u4f60\u597d x",
    "tab\tand space", "\U0001f511" * 8])
def test_passwords_taken(anon, password):
    f = form(password=password)
    ok(anon.post("/auth/register", f), 201)
    ok(anon.post("/auth/login", {"email": f["email"], "password": password,
                                 "fingerprint": False}))


def test_password_length_counts_code_points_after_nfc(anon):
    # Seven letters with combining marks are seven after NFC.
    problem(anon.post("/auth/register", form(password="e\u0301" * 7)), 422,
            "validation.failed", {"/password": "length"})
    f = form(password="e\u0301a\u0301o\u0301u\u0301xyzw")
    ok(anon.post("/auth/register", f), 201)
    ok(anon.post("/auth/login", {
        "email": f["email"], "password": "\u00e9\u00e1\u00f3\u00faxyzw",
        "fingerprint": False}))


def test_names_are_kept_exactly(anon):
    for name in ("  Ada  ", "e\u0301", "\u00e9", "\U0001f9d1\u200d\u2695",
                 '"\\/<&>', "a\tb"):
        s = ok(anon.post("/auth/register", form(full_name=name)), 201)
        assert s["user"]["full_name"] == name
        got = ok(anon.get("/auth/me", token=s["access_token"]))
        assert got["full_name"] == name


def test_register_needs_json(anon):
    problem(anon.post("/auth/register", body=b"email=x",
                      ctype="application/x-www-form-urlencoded"), 415)
    problem(anon.post("/auth/register", body=b"{"), 400, "request.malformed")


def test_idempotency_key_is_ignored_on_auth(anon):
    f = form()
    h = {"Idempotency-Key": "k-" + os.urandom(4).hex()}
    ok(anon.post("/auth/register", f, headers=h), 201)
    problem(anon.post("/auth/register", f, headers=h), 409,
            "auth.email_taken")


def test_register_consents(anon):
    r = anon.post("/auth/register", form(consents=["data_processing"]))
    # The member is in the contract, its shape is left open.
    assert r.status in (201, 422), r
    if r.status == 422:
        p = problem(r, 422, "validation.failed")
        assert all(e["pointer"].startswith("/consents") and
                   e["code"] != "unknown" for e in p["errors"]), p


# --- fingerprint ---

def test_plain_door_needs_fingerprint_false(anon):
    problem(anon.post("/auth/register", form(fingerprint=...)), 422,
            "auth.fingerprint_needs_tls")
    problem(anon.post("/auth/register", form(fingerprint=True)), 422,
            "auth.fingerprint_needs_tls")
    f = form()
    ok(anon.post("/auth/register", f), 201)
    problem(anon.post("/auth/login", {"email": f["email"],
                                      "password": PASSWORD}), 422,
            "auth.fingerprint_needs_tls")


@pytest.fixture
def tls_session(stack):
    c = stack.client(tls=True)
    f = form(fingerprint=...)
    ok(c.post("/auth/register", f), 201)
    r = c.post("/auth/login", {"email": f["email"], "password": PASSWORD})
    s = ok(r)
    return c, s, r


def test_cookie_over_tls(tls_session):
    c, s, r = tls_session
    cookies = [x for x in r.headers("set-cookie")
               if x.startswith("__Secure-hm-fgp=")]
    assert len(cookies) == 1, r.raw_headers
    attrs = [x.strip().lower() for x in cookies[0].split(";")[1:]]
    assert "httponly" in attrs and "secure" in attrs
    assert "samesite=strict" in attrs
    value = cookies[0].split(";")[0].split("=", 1)[1]
    claims = json.loads(b64d(s["access_token"].split(".")[1]))
    want = hashlib.sha256(value.encode()).digest()
    try:
        raw = hashlib.sha256(b64d(value)).digest()
    except ValueError:
        raw = None
    got = claims["fgp"]
    assert got in {f(x) for x in (want, raw) if x
                   for f in (bytes.hex, b64e)}, claims
    # Right cookie, no cookie, wrong cookie.
    pair = "__Secure-hm-fgp=" + value
    ok(c.get("/auth/me", token=s["access_token"],
             headers={"Cookie": pair}))
    ok(c.get("/auth/me", token=s["access_token"],
             headers={"Cookie": "a=b; %s; c=d" % pair}))
    for bad in (None, "__Secure-hm-fgp=" + "A" * len(value),
                "x" + pair, "__Secure-hm-fgp="):
        r = c.get("/auth/me", token=s["access_token"],
                  headers={"Cookie": bad} if bad else None)
        problem(r, 401, "auth.fingerprint_mismatch")


def test_another_sessions_cookie(stack, tls_session):
    c, s, r = tls_session
    f = form(fingerprint=...)
    ok(c.post("/auth/register", f), 201)
    r2 = c.post("/auth/login", {"email": f["email"], "password": PASSWORD})
    other = [x for x in r2.headers("set-cookie")
             if x.startswith("__Secure-hm-fgp=")][0].split(";")[0]
    problem(c.get("/auth/me", token=s["access_token"],
                  headers={"Cookie": other}), 401,
            "auth.fingerprint_mismatch")


def test_fgp_token_on_the_plain_door(stack, tls_session):
    """Without its cookie it is refused there too."""
    _, s, _ = tls_session
    problem(stack.client().get("/auth/me", token=s["access_token"]), 401,
            "auth.fingerprint_mismatch")


def test_fingerprint_false_sets_no_cookie(stack):
    c = stack.client(tls=True)
    f = form()
    r = c.post("/auth/register", f)
    s = ok(r, 201)                             # optional in the local stack
    assert not [x for x in r.headers("set-cookie") if "hm-fgp" in x]
    assert "fgp" not in json.loads(b64d(s["access_token"].split(".")[1]))
    ok(c.get("/auth/me", token=s["access_token"]))


# --- login ---

def test_login(stack, user):
    before = time.time()
    r = user.post("/auth/login", {"email": user.email, "password": PASSWORD,
                                  "fingerprint": False}, token=None)
    s = ok(r)
    session_shape(s)
    assert s["user"]["id"] == user.id
    assert s["access_token"] != user.token
    me = ok(user.get("/auth/me", token=s["access_token"]))
    assert me["last_login_at"] is not None
    ok(user.get("/auth/me"))                   # the first session lives on
    assert before - 5 < time.time()


def test_login_email_in_another_case(user):
    r = user.post("/auth/login", {"email": user.email.upper(),
                                  "password": PASSWORD,
                                  "fingerprint": False}, token=None)
    assert ok(r)["user"]["email"] == user.email


def test_wrong_and_unknown_are_alike(user):
    a = user.post("/auth/login", {"email": user.email,
                                  "password": "wrong horse battery",
                                  "fingerprint": False}, token=None)
    b = user.post("/auth/login", {"email": email(), "password": PASSWORD,
                                  "fingerprint": False}, token=None)
    for r in (a, b):
        problem(r, 401, "auth.invalid_credentials")
    da, db = a.json(), b.json()
    for d in (da, db):
        d.pop("request_id")
    assert da == db
    skip = ("date", "x-request-id", "content-length", "ratelimit")
    assert [x for x in a.raw_headers if x[0].lower() not in skip] \
        == [x for x in b.raw_headers if x[0].lower() not in skip]


def test_wrong_and_unknown_take_about_the_same_time(user):
    def took(mail):
        best = 9.0
        for _ in range(4):
            t = time.monotonic()
            user.post("/auth/login", {"email": mail, "password": "wrong " * 3,
                                      "fingerprint": False}, token=None)
            best = min(best, time.monotonic() - t)
        return best
    a, b = took(user.email), took(email())
    assert 0.4 < a / b < 2.5, (a, b)


def test_disabled_account(stack):
    u = stack.new_user()
    stack.psql("update users set is_active = false where id = '%s'" % u.id)
    r = u.post("/auth/login", {"email": u.email, "password": PASSWORD,
                               "fingerprint": False}, token=None)
    problem(r, 401, "auth.invalid_credentials")


@pytest.mark.parametrize("doc,faults", [
    ({}, {"/email": "required", "/password": "required"}),
    ({"email": "a@b.org"}, {"/password": "required"}),
    ({"email": 1, "password": 2}, {"/email": "type", "/password": "type"}),
    ({"email": "a@b.org", "password": "abcdefgh", "zz": 1},
     {"/zz": "unknown"}),
    ({"email": "a@b.org", "password": "abcdefgh", "otp": 5},
     {"/otp": "type"}),
])
def test_login_faults(anon, doc, faults):
    doc = dict(doc, fingerprint=False)
    problem(anon.post("/auth/login", doc), 422, "validation.failed", faults)


def test_login_with_a_password_no_account_can_have(anon):
    """Too short to be one: a wrong password, not a fault worth naming."""
    r = anon.post("/auth/login", {"email": email(), "password": "x",
                                  "fingerprint": False})
    assert r.status in (401, 422), r


def test_claims(user):
    head, body, _ = user.token.split(".")
    h, c = json.loads(b64d(head)), json.loads(b64d(body))
    assert h["alg"] == "HS256" and h["kid"]
    for k in ("iss", "aud", "sub", "role", "sid", "jti", "typ", "iat", "nbf",
              "exp", "auth_time", "amr"):
        assert k in c, (k, c)
    assert c["sub"] == user.id and c["typ"] == "access"
    assert c["role"] == "patient" and c["exp"] - c["iat"] <= 1800
    assert user.email not in json.dumps(c)


# --- me ---

def test_me(user):
    r = user.get("/auth/me")
    u = ok(r)
    user_shape(u)
    assert u == user.user or u["last_login_at"] != user.user["last_login_at"]
    assert r.etag
    again = user.get("/auth/me", headers={"If-None-Match": r.etag})
    assert again.status == 304 and again.body == b"" \
        and again.etag == r.etag
    other = user.get("/auth/me", headers={"If-None-Match": '"zz"'})
    assert other.status == 200


def test_me_of_two_people_has_two_etags(user, stranger):
    assert user.get("/auth/me").etag != stranger.get("/auth/me").etag


# --- tokens ---

@pytest.mark.parametrize("path,method", [
    ("/health-data", "GET"), ("/health-data/latest", "GET"),
    ("/auth/me", "GET"), ("/analytics/trends?metric=heart_rate", "GET")])
def test_token_missing(anon, path, method):
    r = anon.call(method, path)
    problem(r, 401, "auth.token_missing")
    assert r.header("www-authenticate", "").startswith("Bearer")


def test_token_missing_comes_before_the_body(anon):
    problem(anon.post("/health-data", {"bad": 1}), 401, "auth.token_missing")
    problem(anon.post("/health-data", body=b"{"), 401, "auth.token_missing")


@pytest.mark.parametrize("value", [
    "Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearer  ", "bearer",
    "Token abc", ""])
def test_no_bearer_token(anon, value):
    r = anon.get("/auth/me", headers={"Authorization": value})
    assert r.code in ("auth.token_missing", "auth.token_invalid"), r
    assert r.status == 401


@pytest.mark.parametrize("value", [
    "x", "a.b.c", "....", "eyJ.eyJ.x", "a.b.c.d", "\u00ff", "x" * 6000])
def test_malformed_tokens(anon, value):
    r = anon.get("/auth/me", headers={"Authorization": "Bearer " + value})
    assert r.status in (401, 494, 400), r
    if r.status == 401:
        problem(r, 401, "auth.token_invalid")


def test_scheme_is_case_insensitive(user):
    r = user.get("/auth/me",
                 headers={"Authorization": "bearer " + user.token})
    assert r.status == 200, r


def test_two_authorization_headers(stack, user):
    r = raw_request(stack, "GET", "/api/v1/auth/me",
                    [("Authorization", "Bearer " + user.token),
                     ("Authorization", "Bearer x")])
    assert r.status in (400, 401), r


def sign(secret, head, claims, raw_body=None):
    h = b64e(json.dumps(head, separators=(",", ":")).encode())
    b = b64e(raw_body if raw_body is not None
             else json.dumps(claims, separators=(",", ":")).encode())
    s = hmac.new(secret, (h + "." + b).encode(), hashlib.sha256).digest()
    return "%s.%s.%s" % (h, b, b64e(s))


@pytest.fixture(scope="module")
def forge(stack):
    u = stack.new_user()
    kid, secret = stack.jwt_secret(u.token)
    head, body, _ = u.token.split(".")
    return u, secret, json.loads(b64d(head)), json.loads(b64d(body))


def test_an_own_signature_is_accepted(forge):
    """The forging tool forges well: else the refusals below say nothing."""
    u, secret, head, claims = forge
    ok(u.get("/auth/me", token=sign(secret, head, claims)))


def test_expired(forge):
    u, secret, head, claims = forge
    now = int(time.time())
    t = sign(secret, head, dict(claims, iat=now - 4000, nbf=now - 4000,
                                auth_time=now - 4000, exp=now - 60))
    problem(u.get("/auth/me", token=t), 401, "auth.token_expired")


def test_expires_while_in_the_verified_cache(forge):
    u, secret, head, claims = forge
    now = int(time.time())
    t = sign(secret, head, dict(claims, exp=now + 2))
    ok(u.get("/auth/me", token=t))
    time.sleep(2.3 + 1)
    problem(u.get("/auth/me", token=t), 401, "auth.token_expired")


FORGED = {
    "alg none": (dict(alg="none"), {}),
    "alg None": (dict(alg="None"), {}),
    "alg HS384": (dict(alg="HS384"), {}),
    "alg RS256": (dict(alg="RS256"), {}),
    "no alg": (dict(alg=None), {}),
    "unknown kid": (dict(kid="nobody"), {}),
    "kid path": (dict(kid="../../dev/null"), {}),
    "no kid": (dict(kid=None), {}),
    "jku": (dict(jku="https://evil.example/keys"), {}),
    "crit": (dict(crit=["exp"]), {}),
    "typ refresh": ({}, dict(typ="refresh")),
    "typ reset": ({}, dict(typ="reset")),
    "no typ": ({}, dict(typ=None)),
    "iss": ({}, dict(iss="evil")),
    "no iss": ({}, dict(iss=None)),
    "aud": ({}, dict(aud="evil")),
    "no aud": ({}, dict(aud=None)),
    "no exp": ({}, dict(exp=None)),
    "exp text": ({}, dict(exp="9999999999")),
    "nbf in an hour": ({}, dict(nbf=int(time.time()) + 3600)),
    "no sub": ({}, dict(sub=None)),
    "sub no uuid": ({}, dict(sub="admin")),
    "sub nil": ({}, dict(sub="00000000-0000-0000-0000-000000000000")),
    "role unknown": ({}, dict(role="root")),
    "role number": ({}, dict(role=3)),
    "no sid": ({}, dict(sid=None)),
}


@pytest.mark.parametrize("name", sorted(FORGED))
def test_forged(forge, name):
    u, secret, head, claims = forge
    h, c = FORGED[name]
    head = {k: v for k, v in dict(head, **h).items() if v is not None}
    claims = {k: v for k, v in dict(claims, **c).items() if v is not None}
    r = u.get("/auth/me", token=sign(secret, head, claims))
    assert r.status == 401, r
    assert r.code in ("auth.token_invalid", "auth.session_revoked"), r


def test_forged_signatures(forge):
    u, secret, head, claims = forge
    h, b, s = u.token.split(".")
    cases = [
        "%s.%s." % (h, b), "%s.%s" % (h, b), "%s.%s.%s=" % (h, b, s),
        "%s.%s.%s" % (h, b, s[:-1]), "%s.%s.%s" % (h, b, "A" * len(s)),
        "%s.%s.%s" % (h, b, s[1:] + s[0]), u.token + "." + s,
        " " + u.token + " x", u.token.replace(".", "..", 1),
        sign(b"", head, claims), sign(b"secret", head, claims),
        sign(secret + b"\0", head, claims)
        if len(secret) >= 64 else sign(secret[::-1], head, claims),
        sign(secret, head, None, b'{"sub":"x"'),
        sign(secret, head, None, b"[]"),
        sign(secret, head, None, json.dumps(claims).encode()[:-1]
             + b',"exp":9999999999}'),
    ]
    # Another spelling of the same signature bytes: the unused low bits.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cases.append("%s.%s.%s" % (h, b, s[:-1]
                               + last[last.index(s[-1]) ^ 1]))
    for t in cases:
        r = u.get("/auth/me", headers={"Authorization": "Bearer " + t})
        problem(r, 401, "auth.token_invalid")


def test_body_of_another_token(forge, stranger):
    u, _, _, _ = forge
    h, _, s = u.token.split(".")
    b = stranger.token.split(".")[1]
    problem(u.get("/auth/me", token="%s.%s.%s" % (h, b, s)), 401,
            "auth.token_invalid")


def test_a_well_signed_token_of_nobody(forge):
    """No such person: nothing is found, nothing is made."""
    u, secret, head, claims = forge
    from hmhttp import uuid7
    t = sign(secret, head, dict(claims, sub=uuid7(), jti=uuid7()))
    r = u.get("/auth/me", token=t)
    assert r.status in (401, 404), r
    r = u.post("/health-data", {"data_type": "heart_rate", "value": 70},
               token=t)
    assert r.status in (401, 403, 404), r


def test_admin_role_in_the_token_only(forge, stranger):
    """The database says who is an admin; a role claim alone opens nothing."""
    u, secret, head, claims = forge
    t = sign(secret, head, dict(claims, role="admin"))
    r = u.get("/health-data/" + stranger.rec["id"] + "?user_id="
              + stranger.id, token=t)
    assert r.status in (401, 403, 404), r
    r = u.get("/health-data?user_id=" + stranger.id, token=t)
    if r.status == 200:
        assert r.json()["items"] == [], r
