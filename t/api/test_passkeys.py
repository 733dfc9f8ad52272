"""Passkeys: api.md's passkeys/*, with an authenticator in software."""

import copy
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import hmkey
from hmhttp import TIME_RE, UUID_RE, ok, problem, uuid7
from hmkey import AT, BE, BS, EDDSA, ES256, RS256, UP, UV, Passkey
from hmstack import PASSWORD, b64d, b64e
from test_mfa import claims, mails

ITEM = {"id", "name", "backed_up", "transports", "created_at",
        "last_used_at"}


def origin(stack):
    return "https://localhost:%d" % stack.https


def register(stack, c, alg=ES256, **kw):
    k = Passkey(origin(stack), alg=alg)
    made = k.create(ok(c.post("/auth/passkeys/register/options")))
    made.update(kw)
    k.item = ok(c.post("/auth/passkeys/register/verify", made), 201)
    return k


def options(stack):
    return ok(stack.client().post("/auth/passkeys/login/options",
                                  token=None))


def login(stack, assertion):
    return stack.client().post("/auth/passkeys/login/verify",
                               dict(assertion, fingerprint=False),
                               token=None)


def refused(r):
    problem(r, 401, "auth.invalid_credentials")


@pytest.fixture
def keyed(stack):
    c = stack.new_user()
    c.key = register(stack, c)
    c.token = ok(login(stack, c.key.get(options(stack))))["access_token"]
    return c


# --- registering ---

def test_creation_options(stack, user):
    r = user.post("/auth/passkeys/register/options")
    o = ok(r)
    assert "no-store" in r.header("cache-control")
    assert o["rp"] == {"name": "HealthMate", "id": "localhost"}
    assert o["user"]["name"] == user.email
    assert o["user"]["displayName"] == "Test Person"
    assert len(b64d(o["challenge"])) == 32
    assert [p["alg"] for p in o["pubKeyCredParams"]] == [-7, -8, -257]
    assert o["attestation"] == "none" and o["excludeCredentials"] == []
    sel = o["authenticatorSelection"]
    assert sel["residentKey"] == "required"
    assert sel["userVerification"] == "required"
    other = ok(user.post("/auth/passkeys/register/options"))
    assert other["challenge"] != o["challenge"]


@pytest.mark.parametrize("alg", [ES256, EDDSA, RS256])
def test_register_and_log_in(stack, user, alg):
    k = Passkey(origin(stack), alg=alg)
    made = k.create(ok(user.post("/auth/passkeys/register/options")))
    r = user.post("/auth/passkeys/register/verify", dict(made, name="Phone"))
    item = ok(r, 201)
    assert set(item) == ITEM and UUID_RE.match(item["id"])
    assert item["name"] == "Phone" and item["last_used_at"] is None
    assert item["transports"] == ["hybrid", "internal"]
    assert r.header("location") == "/api/v1/auth/passkeys/" + item["id"]
    assert ok(user.get("/auth/me"))["mfa"] == ["passkey"]
    assert mails(stack, user, "passkey_changed") == 1

    r = login(stack, k.get(options(stack)))
    s = ok(r)
    assert s["user"]["id"] == user.id
    assert claims(s["access_token"])["amr"] == ["hwk"]
    user.token = s["access_token"]
    got = ok(user.get("/auth/passkeys"))
    assert got["next"] is None and len(got["items"]) == 1
    assert TIME_RE.match(got["items"][0]["last_used_at"])
    ok(user.get("/health-data"))


def test_excluded_next_time(stack, keyed):
    o = ok(keyed.post("/auth/passkeys/register/options"))
    assert [x["id"] for x in o["excludeCredentials"]] == [b64e(keyed.key.id)]


def test_two_and_the_newest_first(stack, keyed):
    register(stack, keyed, name="Second")
    items = ok(keyed.get("/auth/passkeys"))["items"]
    assert [x["name"] for x in items] == ["Second", None]


def test_a_synced_key(stack, user):
    k = Passkey(origin(stack))
    made = k.create(ok(user.post("/auth/passkeys/register/options")),
                    flags=UP | UV | AT | BE | BS)
    assert ok(user.post("/auth/passkeys/register/verify", made),
              201)["backed_up"] is True
    # Such keys do not count.
    for _ in range(2):
        ok(login(stack, k.get(options(stack), flags=UP | UV | BE | BS,
                              count=0)))


def test_self_attestation_is_not_judged(stack, user):
    k = Passkey(origin(stack))
    made = k.create(ok(user.post("/auth/passkeys/register/options")),
                    fmt="packed")
    ok(user.post("/auth/passkeys/register/verify", made), 201)


def test_a_used_challenge(stack, keyed):
    o = ok(keyed.post("/auth/passkeys/register/options"))
    ok(keyed.post("/auth/passkeys/register/verify",
                  Passkey(origin(stack)).create(o)), 201)
    problem(keyed.post("/auth/passkeys/register/verify",
                       Passkey(origin(stack)).create(o)), 422,
            faults={"/response/clientDataJSON": "format"})


def test_anothers_or_an_old_challenge(stack, user, stranger):
    o = ok(stranger.post("/auth/passkeys/register/options"))
    o["user"]["id"] = b64e(bytes.fromhex(user.id.replace("-", "")))
    problem(user.post("/auth/passkeys/register/verify",
                      Passkey(origin(stack)).create(o)), 422,
            faults={"/response/clientDataJSON": "format"})

    # a login's
    o["challenge"] = options(stack)["challenge"]
    problem(user.post("/auth/passkeys/register/verify",
                      Passkey(origin(stack)).create(o)), 422,
            faults={"/response/clientDataJSON": "format"})

    o = ok(user.post("/auth/passkeys/register/options"))
    stack.psql("update webauthn_challenges set expires_at = now() where"
               " user_id = '%s'" % user.id)
    problem(user.post("/auth/passkeys/register/verify",
                      Passkey(origin(stack)).create(o)), 422,
            faults={"/response/clientDataJSON": "format"})
    assert ok(user.get("/auth/passkeys"))["items"] == []


@pytest.mark.parametrize("wrong,place", [
    ({"origin": "https://localhost"}, "clientDataJSON"),
    ({"origin": "https://evil.example"}, "clientDataJSON"),
    ({"origin": "http://localhost:443"}, "clientDataJSON"),
    ({"type": "webauthn.get"}, "clientDataJSON"),
    ({"crossOrigin": True}, "clientDataJSON"),
    ({"topOrigin": "https://evil.example"}, "clientDataJSON"),
    ({"challenge": "AAAA"}, "clientDataJSON"),
    ({"rp_id": "evil.example"}, "attestationObject"),
    ({"flags": UP | AT}, "attestationObject"),
    ({"flags": UV | AT}, "attestationObject"),
    ({"flags": UP | UV}, "attestationObject"),
    ({"flags": UP | UV | AT | BS}, "attestationObject"),
    ({"cose": hmkey.cbor({1: 2, 3: -7, -1: 1, -2: bytes(32),
                          -3: bytes(32)})}, "attestationObject"),
    ({"cose": hmkey.cbor({1: 2, 3: -35, -1: 2, -2: bytes(48),
                          -3: bytes(48)})}, "attestationObject"),
    ({"cose": hmkey.cbor({1: 4, 3: 5, -1: bytes(32)})},
     "attestationObject"),
    ({"cose": b"\xff"}, "attestationObject"),
    ({"cose": b""}, "attestationObject"),
])
def test_not_registered(stack, user, wrong, place):
    k = Passkey(origin(stack))
    o = ok(user.post("/auth/passkeys/register/options"))
    problem(user.post("/auth/passkeys/register/verify",
                      k.create(o, **wrong)), 422,
            faults={"/response/" + place: "format"})
    assert ok(user.get("/auth/passkeys"))["items"] == []


def test_forms(stack, user):
    k = Passkey(origin(stack))
    good = k.create(ok(user.post("/auth/passkeys/register/options")))
    path = "/auth/passkeys/register/verify"
    problem(user.post(path, {}), 422, faults={
        "/id": "required", "/rawId": "required", "/response": "required"})
    problem(user.post(path, {"id": 1, "rawId": "a+b", "response": []}), 422,
            faults={"/id": "type", "/rawId": "format", "/response": "type"})
    problem(user.post(path, dict(good, rawId=b64e(b"other"))), 422,
            faults={"/rawId": "format"})
    problem(user.post(path, dict(good, id=b64e(b"other"),
                                 rawId=b64e(b"other"))), 422,
            faults={"/response/attestationObject": "format"})
    problem(user.post(path, dict(good, name="x" * 201)), 422,
            faults={"/name": "length"})
    problem(user.post(path, dict(good, id=b64e(bytes(1024)),
                                 rawId=b64e(bytes(1024)))), 422,
            faults={"/id": "length", "/rawId": "length"})
    bad = copy.deepcopy(good)
    bad["response"]["attestationObject"] = b64e(bytes(9000))
    problem(user.post(path, bad), 422,
            faults={"/response/attestationObject": "length"})
    bad["response"]["attestationObject"] += "="
    assert user.post(path, bad).status == 422
    # None of that used the challenge up.
    ok(user.post(path, good), 201)


def test_one_credential_is_one_persons(stack, user, keyed):
    k = Passkey(origin(stack))
    k.id = keyed.key.id
    o = ok(user.post("/auth/passkeys/register/options"))
    problem(user.post("/auth/passkeys/register/verify", k.create(o)), 409)
    ok(login(stack, keyed.key.get(options(stack))))


def test_twenty_at_most(stack, keyed):
    stack.psql("insert into passkeys (id, user_id, credential_index,"
               " credential, dek_version) select gen_random_uuid(), '%s',"
               " uuid_send(gen_random_uuid()), '\\x00', 1"
               " from generate_series(1, 19)" % keyed.id)
    try:
        k = Passkey(origin(stack))
        k.handle = bytes(16)
        o = {"user": {"id": b64e(bytes(16))}}
        stack.psql("insert into webauthn_challenges values (sha256('%s'),"
                   " '%s', now() + interval '1 min')"
                   % ("x" * 32, keyed.id))
        o["challenge"] = b64e(b"x" * 32)
        problem(keyed.post("/auth/passkeys/register/verify", k.create(o)),
                409)
    finally:
        stack.psql("delete from passkeys where user_id = '%s' and"
                   " credential = '\\x00'" % keyed.id)


# --- logging in ---

def test_request_options_tell_nothing(stack, keyed):
    a, b = options(stack), ok(stack.client().post(
        "/auth/passkeys/login/options", {"email": keyed.email}, token=None))
    assert set(a) == set(b) == {"challenge", "timeout", "rpId",
                                "allowCredentials", "userVerification"}
    assert a["challenge"] != b["challenge"]
    for o in (a, b):
        o.pop("challenge")
    assert a == b == {"timeout": 300000, "rpId": "localhost",
                      "allowCredentials": [], "userVerification": "required"}


def test_a_signature_opens_one_of_twenty_doors(stack, keyed):
    a = keyed.key.get(options(stack))
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: login(stack, a).status, range(20)))
    assert got.count(200) == 1 and got.count(401) == 19, got
    refused(login(stack, a))


def test_refusals_are_alike(stack, keyed, stranger):
    k = keyed.key
    other = Passkey(origin(stack))
    other.handle = k.handle
    wrong = {
        "unknown credential": lambda: other.get(options(stack)),
        "no such challenge": lambda: k.get({"challenge": b64e(bytes(32))}),
        "a registration's type": lambda: k.get(options(stack),
                                               kind="create"),
        "origin": lambda: k.get(options(stack), origin="https://evil.org"),
        "framed": lambda: k.get(options(stack), crossOrigin=True),
        "site": lambda: k.get(options(stack), rp_id="evil.example"),
        "absent": lambda: k.get(options(stack), flags=UV),
        "not verified": lambda: k.get(options(stack), flags=UP),
        "with AT": lambda: k.get(options(stack), flags=UP | UV | AT),
        "handle": lambda: k.get(options(stack), handle=bytes(16)),
        "another person": lambda: k.get(options(stack), handle=bytes.fromhex(
            stranger.id.replace("-", ""))),
    }
    bodies = set()
    for name, make in wrong.items():
        r = login(stack, make())
        refused(r)
        p = r.json()
        bodies.add(json.dumps({x: p[x] for x in p if x != "request_id"}))
    assert len(bodies) == 1
    ok(login(stack, k.get(options(stack))))


def test_another_keys_signature(stack, keyed):
    thief = Passkey(origin(stack))
    thief.id, thief.handle = keyed.key.id, keyed.key.handle
    thief.count = keyed.key.count
    refused(login(stack, thief.get(options(stack))))


def test_spoilt_signatures(stack, keyed):
    for name in ("authenticatorData", "clientDataJSON", "signature"):
        a = keyed.key.get(options(stack))
        raw = bytearray(b64d(a["response"][name]))
        raw[-3] ^= 1
        a["response"][name] = b64e(bytes(raw))
        refused(login(stack, a))


def test_a_copied_key_is_found_out(stack, keyed):
    k = keyed.key
    k.count = 50
    ok(login(stack, k.get(options(stack))))
    for n in (51, 50, 1, 0):
        refused(login(stack, k.get(options(stack), count=n)))
    ok(login(stack, k.get(options(stack), count=52)))


def test_an_old_challenge(stack, keyed):
    a = keyed.key.get(options(stack))
    stack.psql("update webauthn_challenges set expires_at = now()"
               " where user_id is null")
    refused(login(stack, a))


def test_disabled_account(stack, keyed):
    stack.psql("update users set is_active = false where id = '%s'"
               % keyed.id)
    refused(login(stack, keyed.key.get(options(stack))))


def test_login_forms(stack, keyed):
    r = stack.client().post("/auth/passkeys/login/verify", {}, token=None)
    problem(r, 422, faults={"/id": "required", "/rawId": "required",
                            "/response": "required"})
    a = keyed.key.get(options(stack))
    r = stack.client().post("/auth/passkeys/login/verify",
                            dict(a, fingerprint="no"), token=None)
    problem(r, 422, faults={"/fingerprint": "type"})
    bad = copy.deepcopy(a)
    del bad["response"]["userHandle"]
    bad["response"]["signature"] = 5
    problem(login(stack, bad), 422, faults={
        "/response/userHandle": "required", "/response/signature": "type"})
    ok(login(stack, a))


def test_planted_rows_open_nothing(stack, keyed, stranger):
    """Who can write the table cannot put a key of his own there."""
    stack.psql("""
update passkeys set credential = (select credential from passkeys
  where user_id = '%s') where user_id = '%s'""" % (keyed.id, keyed.id))
    thief = register(stack, stack.new_user())
    stack.psql("""
update passkeys p set credential = q.credential, credential_index =
  decode(md5('%s'), 'hex') from passkeys q
 where p.user_id = '%s' and q.id = '%s'"""
               % (uuid7(), keyed.id, thief.item["id"]))
    stack.psql("update passkeys set credential_index = sha256('\\x%s')"
               " where user_id = '%s'" % (os.urandom(8).hex(), keyed.id))
    planted = Passkey(origin(stack))
    planted.key, planted.id = thief.key, os.urandom(32)
    planted.handle = bytes.fromhex(keyed.id.replace("-", ""))
    stack.psql("update passkeys set credential_index = sha256('\\x%s')"
               " where user_id = '%s'" % (planted.id.hex(), keyed.id))
    r = login(stack, planted.get(options(stack), count=99))
    assert r.status in (401, 500, 503), r
    assert not r.json().get("access_token")
    stack.psql("delete from passkeys where user_id = '%s'" % keyed.id)


# --- removing ---

def test_remove(stack, keyed, stranger):
    path = "/auth/passkeys/" + keyed.key.item["id"]
    problem(stranger.delete(path), 404)
    problem(keyed.delete("/auth/passkeys/" + uuid7()), 404)
    problem(keyed.delete("/auth/passkeys/none"), 404)
    assert keyed.delete(path).status == 204
    problem(keyed.delete(path), 404)
    assert ok(keyed.get("/auth/me"))["mfa"] == []
    refused(login(stack, keyed.key.get(options(stack))))


def test_last_two_removed_at_once(stack, keyed):
    """users.mfa tells the truth whichever of the two ends last."""
    for _ in range(5):
        a = register(stack, keyed)
        b = register(stack, keyed)
        ids = [x["id"] for x in ok(keyed.get("/auth/passkeys"))["items"]]
        with ThreadPoolExecutor(len(ids)) as pool:
            got = list(pool.map(lambda i: keyed.delete(
                "/auth/passkeys/" + i).status, ids))
        assert set(got) == {204}, got
        assert ok(keyed.get("/auth/me"))["mfa"] == []
    assert a and b


def test_audit_and_rest(stack, keyed):
    rows = stack.rows("select action, outcome from audit_logs where resource"
                      " = 20 and user_id = '%s' and action <> 2" % keyed.id)
    assert [(r["action"], r["outcome"]) for r in rows] == [(3, 201)]
    raw = stack.one("select encode(credential, 'hex') from passkeys where"
                    " user_id = '%s'" % keyed.id)
    assert raw.startswith("01")
    assert keyed.key.id.hex() not in raw
    assert keyed.key.cose().hex() not in raw
    assert PASSWORD.encode().hex() not in raw
