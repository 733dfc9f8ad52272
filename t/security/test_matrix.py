"""
The authorization matrix: every route x everybody who may ask x the ways to
ask, under both settings of healthmate_admin_phi.

The routes are the running module's (/openapi.json, which test_openapi.py
holds against the route table); what each must answer to whom is written here,
from the contract's table of permissions, and not read from the code's.  A
route that nobody wrote an expectation for fails.

Requests are made so that whoever is let in changes nothing: a body that is
not valid (422), a precondition that does not hold (412).  Rights are judged
before both.

Then the same people on a build whose gate lets every role reach everybody
(tools/build-faulty): what row-level security alone gives away is nothing.
"""

import hashlib
import hmac
import json
import os
import re
import subprocess
import tempfile
import time

import pytest

import hmhttp
import hmstack
from hmhttp import BASE, ok, problem, uuid7
from hmstack import ROOT, b64d, b64e

HD, CARE, GLASS = "/health-data", "/care-relationships", "/break-glass"
VERBS = ("get", "put", "post", "patch", "delete")
STALE = {"If-Match": '"stale"'}
CANARY = "canary-of-the-patient"

PEOPLE = ("anonymous", "own", "other", "assigned", "not", "ended", "admin",
          "glass", "researcher", "disabled", "expired", "revoked")
SIGNED_IN = ("own", "other", "assigned", "not", "ended", "admin", "glass",
             "researcher")
DOCTORS = ("assigned", "not", "ended")
ADMINS = ("admin", "glass")
PATIENTS = ("own", "other")

DENIED = (403, "access.denied")
SHUT = (403, "access.break_glass_required")
ABSENT = (404, "resource.not_found")
UNKNOWN = (400, "request.invalid_parameter")


# --- what the contract says ---
#
# An expectation is a function of (who, ask, phi): ask is "" without
# ?user_id=, "patient" with the patient's, "nobody" with an id nobody has;
# phi is healthmate_admin_phi.  It gives a status, a (status, code), or a set
# of statuses.

def public(*fine):
    def expect(who, ask, phi):
        return UNKNOWN if ask else set(fine)
    expect.public = True
    return expect


def own(*fine):
    """Everybody about himself; there is nobody else to name."""
    def expect(who, ask, phi):
        return UNKNOWN if ask else set(fine)
    return expect


def only(people, *fine):
    def expect(who, ask, phi):
        if ask:
            return UNKNOWN
        return set(fine) if who in people else DENIED
    return expect


def of(people, fine, rest=ABSENT):
    """An object that some may see; for all others it is not there."""
    def expect(who, ask, phi):
        if ask:
            return UNKNOWN
        got = fine.get(who) if isinstance(fine, dict) else fine
        return got if who in people else rest
    return expect


def about(who, ask, phi, fine, write):
    """Data of a named person."""
    if who in PATIENTS or who == "researcher":
        return fine if who == "own" and ask == "patient" else DENIED
    if who in DOCTORS:
        return fine if who == "assigned" and ask == "patient" else ABSENT
    if phi == "all":
        # who may write for everybody hears of a bad body first
        return fine if ask == "patient" \
            else {404, 422} if fine == 422 else ABSENT
    if who == "glass" and ask == "patient" and not write:
        return fine
    return SHUT


def data(fine, write=False):
    """One's own without ?user_id=, or the named person's."""
    def expect(who, ask, phi):
        return about(who, ask, phi, fine, write) if ask else fine
    return expect


def record(fine, write=False):
    """The patient's record, by its id."""
    def expect(who, ask, phi):
        if ask:
            return about(who, ask, phi, fine, write)
        return fine if who == "own" else ABSENT
    return expect


# A step that proves who one is may refuse what was sent as proof, never the
# caller's token.
PROOF = (200, 202, 204, 400, 401, 409, 422)

EXPECT = {
    ("GET", HD + "/types"): own(200),
    ("GET", HD + "/latest"): data(200),
    ("POST", HD + "/batch"): data(422, True),
    ("GET", HD): data(200),
    ("POST", HD): data(422, True),
    ("GET", HD + "/{id}"): record(200),
    ("PUT", HD + "/{id}"): record(412, True),
    ("PATCH", HD + "/{id}"): record(412, True),
    ("DELETE", HD + "/{id}"): record(412, True),
    ("GET", "/analytics/trends"): data(200),

    ("GET", "/auth/me"): own(200),
    ("POST", "/auth/login"): public(422),
    ("POST", "/auth/register"): public(422),
    ("POST", "/auth/refresh"): public(400, 401, 422),
    ("POST", "/auth/forgot-password"): public(422),
    ("POST", "/auth/reset-password"): public(422),
    ("POST", "/auth/verify-email"): public(422),
    ("POST", "/auth/resend-verification"): lambda who, ask, phi:
        UNKNOWN if ask else set(PROOF),
    ("POST", "/auth/change-password"): own(422),
    ("POST", "/auth/reauth"): own(422),
    ("POST", "/auth/logout"): own(204),
    ("POST", "/auth/logout-all"): own(204),
    ("GET", "/auth/sessions"): own(200),
    ("DELETE", "/auth/sessions/{id}"): own(404),
    ("POST", "/auth/mfa/totp"): own(200, 201, 409),
    ("POST", "/auth/mfa/totp/confirm"): own(401, 404, 409, 422),
    ("POST", "/auth/mfa/recovery-codes"): own(200, 201, 404, 409),
    ("DELETE", "/auth/mfa/totp"): own(204, 404),
    ("POST", "/auth/passkeys/register/options"): own(200, 422),
    ("POST", "/auth/passkeys/register/verify"): own(400, 401, 409, 422),
    ("POST", "/auth/passkeys/login/options"): public(200, 422),
    ("POST", "/auth/passkeys/login/verify"): public(400, 401, 422),
    ("GET", "/auth/passkeys"): own(200),
    ("DELETE", "/auth/passkeys/{id}"): own(404),

    ("GET", "/users/me"): own(200),
    ("PATCH", "/users/me"): own(412),
    ("POST", "/users/me/email"): own(422),
    ("GET", "/users/me/preferences"): own(200),
    ("PUT", "/users/me/preferences"): own(412),
    ("GET", "/users/me/health-profile"): data(200),
    ("PUT", "/users/me/health-profile"): data(412, True),
    ("PATCH", "/users/me/health-profile"): data(412, True),
    ("GET", "/users/me/access-log"): own(200),
    ("GET", "/users"): only(ADMINS, 200),
    ("POST", "/users"): only(ADMINS, 422),
    ("GET", "/users/{id}"): only(ADMINS, 200),
    ("PATCH", "/users/{id}"): only(ADMINS, 412),

    ("GET", "/patients"): only(DOCTORS, 200),
    ("GET", CARE): own(200),
    ("POST", CARE): own(422),
    ("GET", CARE + "/{id}"): of(("own", "assigned") + ADMINS, 200),
    ("DELETE", CARE + "/{id}"): of(("own", "assigned") + ADMINS, 412),
    ("POST", CARE + "/{id}/accept"): of(
        ("own", "assigned") + ADMINS,
        {"own": 409, "assigned": DENIED, "admin": DENIED, "glass": DENIED}),
    ("POST", CARE + "/{id}/decline"): of(
        ("own", "assigned") + ADMINS,
        {"own": 409, "assigned": DENIED, "admin": DENIED, "glass": DENIED}),

    ("GET", GLASS): own(200),
    ("POST", GLASS): only(DOCTORS + ADMINS, 422),
    ("GET", GLASS + "/{id}"): of(("own",) + ADMINS, 200),
    ("DELETE", GLASS + "/{id}"): of(
        PATIENTS + ("researcher",) + ADMINS,
        {"own": DENIED, "other": DENIED, "researcher": DENIED,
         "admin": 412, "glass": 412}),
    ("POST", GLASS + "/{id}/approve"): of(
        ADMINS, {"admin": 409, "glass": DENIED}, DENIED),

    ("GET", "/compliance/consents"): own(200),
    ("POST", "/compliance/consents"): own(422),

    # outside /api/v1: of the service, nothing about anybody
    ("GET", "ROOT/health"): public(200),
    ("GET", "ROOT/ready"): public(200),
    ("GET", "ROOT/metrics"): public(200),
    ("GET", "ROOT/version"): public(200),
    ("GET", "ROOT/openapi.json"): public(200),
    ("GET", "ROOT/docs"): public(200),
    ("GET", "ROOT/.well-known/jwks.json"): public(200, 404),
    ("GET", "ROOT/.well-known/security.txt"): public(200, 404),
    ("GET", "ROOT/.well-known/change-password"): public(200, 302, 303, 404),
}

# What ends sessions or leaves something behind is asked by somebody new of
# the same role.
SPENDS = {("POST", "/auth/logout"), ("POST", "/auth/logout-all"),
          ("POST", "/auth/mfa/totp"), ("POST", "/auth/mfa/recovery-codes"),
          ("DELETE", "/auth/mfa/totp"), ("POST", "/auth/resend-verification")}

LOST = {"anonymous": {"auth.token_missing"}, "expired": {"auth.token_expired"},
        "revoked": {"auth.session_revoked"},
        "disabled": {"auth.session_revoked"}}

QUERY = {"/analytics/trends": "metric=weight"}


# --- a stack of its own, because its settings change ---

class Own(hmstack.Stack):
    def start(self, **settings):
        self.own = True
        self.top = tempfile.mkdtemp(prefix="hm-t-")
        os.chmod(self.top, 0o755)
        self.home = os.path.join(self.top, "run")
        self.http_, self.https_ = hmhttp.free_port(), hmhttp.free_port()
        self.use(**settings)
        self.read_env()

    def use(self, phi="all", module="", care="patient"):
        self.up(dict(HEALTHMATE_HTTP_PORT=str(self.http_),
                     HEALTHMATE_HTTPS_PORT=str(self.https_),
                     HEALTHMATE_LIMITS="off", HEALTHMATE_DEMO="off",
                     HEALTHMATE_NGINX="", HEALTHMATE_MODULE=module,
                     HEALTHMATE_ADMIN_PHI=phi, HEALTHMATE_CARE_ASSIGN=care,
                     HEALTHMATE_NGINX_WORKERS="2", HEALTHMATE_WORKERS="1"))
        self.phi = phi


@pytest.fixture(scope="module")
def s():
    stack = Own(limits="off")
    try:
        stack.start()
        yield stack
        bad = stack.bad_lines({})
        assert not bad, "\n".join(bad[:20])
        assert not stack.cores()
    finally:
        stack.stop()


def expired(s, c):
    """c's token as it will be in an hour, signed by the same key."""
    head, body, _ = c.token.split(".")
    kid, secret = s.jwt_secret(c.token)
    claims = json.loads(b64d(body))
    for k in ("iat", "nbf", "exp", "auth_time"):
        claims[k] -= 7200
    part = head + "." + b64e(json.dumps(claims, separators=(",", ":"))
                             .encode())
    return part + "." + b64e(hmac.new(secret, part.encode(),
                                      hashlib.sha256).digest())


def sid(c):
    return json.loads(b64d(c.token.split(".")[1]))["sid"]


def people(s):
    """Everybody of the matrix, and what they ask about."""
    p = {}
    p["own"] = s.new_user(verified=True, full_name=CANARY)
    p["other"] = s.new_user(verified=True)
    for who in DOCTORS + ("disabled", "withdrawn"):
        p[who] = s.new_user(role="doctor")
    for who in ADMINS:
        p[who] = s.new_user(role="admin")
    p["researcher"] = s.new_user(role="researcher")
    own_ = p["own"]
    own_.rec = ok(own_.post(HD, {"data_type": "weight", "value": 71,
                                 "notes": CANARY}), 201)
    ok(own_.put("/users/me/health-profile", {"occupation": CANARY}))
    for who in ("assigned", "ended", "disabled"):
        p[who].care = ok(own_.post(CARE, {
            "patient_id": own_.id, "doctor_id": p[who].id}), 201)["id"]
    assert own_.delete(CARE + "/" + p["ended"].care).status == 204
    p["glass"].grant = ok(p["glass"].post(GLASS, {
        "user_id": own_.id, "reason": "in the matrix"}), 201)["id"]
    # somebody whose consent is withdrawn, and his doctor
    w = p["withdrawer"] = s.new_user(verified=True, full_name=CANARY)
    w.rec = ok(w.post(HD, {"data_type": "weight", "value": 72,
                           "notes": CANARY}), 201)
    ok(w.post(CARE, {"patient_id": w.id, "doctor_id": p["withdrawn"].id}),
       201)
    ok(w.post("/compliance/consents", {"purpose": "data_processing",
                                       "granted": False}), 201)
    p["anonymous"] = s.client()
    p["expired"] = s.client()
    p["expired"].token = expired(s, own_)
    p["revoked"] = s.login(s.client(), own_.email, own_.password)
    s.psql("select hm_end_session('%s', 'test')" % sid(p["revoked"]))
    s.psql("update users set is_active = false where id = '%s'"
           % p["disabled"].id)
    for who in ("revoked", "disabled"):
        hmstack.wait(lambda: p[who].get("/auth/me").status == 401, 5,
                     what=who)
    return p


# --- the routes ---

def operations(s):
    doc = json.loads(s.client().root("GET", "/openapi.json").body)
    for path, item in sorted(doc["paths"].items()):
        for verb in VERBS:
            if verb in item:
                names = {follow(doc, x)["name"]
                         for x in item[verb].get("parameters", [])}
                short = path[len(BASE):] if path.startswith(BASE + "/") \
                    else "ROOT" + path
                yield verb.upper(), short, item[verb], "user_id" in names


def follow(doc, node):
    while "$ref" in node:
        at = doc
        for part in node["$ref"][2:].split("/"):
            at = at[part]
        node = at
    return node


def aim(path, p):
    """{id} is something of the patient's."""
    own_ = p["own"]
    if path.startswith(HD):
        i = own_.rec["id"]
    elif path.startswith(CARE):
        i = p["assigned"].care
    elif path.startswith(GLASS):
        i = p["glass"].grant
    elif path.startswith("/users/"):
        i = own_.id
    else:
        i = uuid7()
    return path.replace("{id}", i)


def asked(s, p, who, method, path, op, ask, verb=None):
    """One cell: the answer."""
    c = p[who]
    if (method, path) in SPENDS and who in SIGNED_IN and not ask \
            and verb is None:
        c = s.new_user(role=c.user["role"], verified=True)
    url = aim(path, p)
    query = [QUERY[path]] if path in QUERY else []
    if ask:
        query.append("user_id=" + (p["own"].id if ask == "patient"
                                   else uuid7()))
    body, ctype, headers = None, None, []
    if "requestBody" in op:
        ctype = "application/json"
        body = b"[]" if path.endswith("/batch") else b"{}"
    if method in ("PUT", "PATCH", "DELETE") and "{id}" in path \
            or method in ("PUT", "PATCH"):
        headers = list(STALE.items())
        if path == HD + "/{id}" and method == "PUT":
            body = b'{"data_type":"weight","value":1}'
    full = url[4:] if url.startswith("ROOT") else BASE + url
    if query:
        full += "?" + "&".join(query)
    return c.raw(verb or method, full, body, headers, ctype,
                 check=verb is None)


def fits(r, want, head=False):
    if isinstance(want, set):
        return r.status in want
    if isinstance(want, int):
        return r.status == want
    return r.status == want[0] and (head or r.code == want[1])


def cells(s, p):
    """(what, answer or None, whether it fits, expected)"""
    for method, path, op, named in operations(s):
        expect = EXPECT.get((method, path))
        if expect is None:
            yield (method, path), None, False, "no expectation"
            continue
        closed = not getattr(expect, "public", False)
        asks = ["", "patient", "nobody"] if closed else [""]
        for who in PEOPLE:
            for ask in asks:
                r = asked(s, p, who, method, path, op, ask)
                if closed and who in LOST:
                    want = "401 %s" % LOST[who]
                    good = r.status == 401 and r.code in LOST[who]
                elif ask and not named:
                    want, good = UNKNOWN, fits(r, UNKNOWN)
                else:
                    want = expect(who, ask, s.phi)
                    good = fits(r, want)
                    # a proof may be wrong; the token was taken
                    good = good and not (r.status == 401 and r.code in (
                        "auth.token_missing", "auth.token_invalid",
                        "auth.token_expired", "auth.session_revoked"))
                yield (method, path, who, ask, s.phi), r, good, want
                if method == "GET":
                    h = asked(s, p, who, method, path, op, ask, "HEAD")
                    yield ("HEAD", path, who, ask, s.phi), h, \
                        h.status == r.status and not h.body, r.status


def wrong_methods(s, p):
    """What a path does not have is 405 for everybody, token or not."""
    have = {}
    for method, path, op, _ in operations(s):
        have.setdefault(path, set()).add(method)
    for path, methods in have.items():
        if path.startswith("ROOT"):
            continue
        other = next((m for m in ("DELETE", "PUT", "PATCH", "POST", "GET")
                      if m not in methods), None)
        for who in PEOPLE:
            r = p[who].raw("OPTIONS", BASE + aim(path, p))
            yield ("OPTIONS", path, who), r, r.status == 204, 204
            if other is not None:
                r = p[who].raw(other, BASE + aim(path, p))
                yield (other, path, who), r, r.status == 405, 405


def judged(seen):
    bad = ["%s: %s, wanted %s" % (" ".join(map(str, what)), r, want)
           for what, r, good, want in seen if not good]
    assert not bad, "%d of %d cells:\n%s" % (
        len(bad), len(seen), "\n".join(bad[:60]))
    return len(seen)


TOTAL = []


@pytest.mark.parametrize("phi", ["all", "break_glass"])
def test_matrix(s, phi):
    s.use(phi=phi)
    p = people(s)
    before = s.psql("select id, version, md5(value) from health_data"
                    " order by id")
    TOTAL.append(judged(list(cells(s, p))))
    TOTAL.append(judged(list(wrong_methods(s, p))))
    # nobody changed anything
    assert s.psql("select id, version, md5(value) from health_data"
                  " order by id") == before


def test_enough_cells():
    assert sum(TOTAL) >= 1500, TOTAL
    print("cells: %d" % sum(TOTAL))


# --- nobody grants himself access ---

def test_administrator_and_new_doctor(s):
    """As shipped for production: break_glass, and the patient assigns."""
    s.use(phi="break_glass", care="patient")
    pat = s.new_user(verified=True)
    pat.rec = ok(pat.post(HD, {"data_type": "weight", "value": 70,
                               "notes": CANARY}), 201)
    a = s.new_user(role="admin")
    email = "new-%s@example.org" % uuid7()
    made = ok(a.post("/users", {"email": email, "full_name": "New",
                                "role": "doctor",
                                "password": hmstack.PASSWORD}), 201)
    pair = {"patient_id": pat.id, "doctor_id": made["id"]}
    # an address nobody proved is in no relationship
    problem(a.post(CARE, pair), 404, "resource.not_found")
    s.psql("update users set email_verified_at = now() where id = '%s'"
           % made["id"])
    d = s.login(s.client(), email, hmstack.PASSWORD)
    doc = ok(a.post(CARE, pair), 201)
    assert doc["status"] == "pending"
    one = CARE + "/" + doc["id"]
    for c in (a, d):
        problem(c.post(one + "/accept"), 403, "access.denied")
        problem(c.patch("/users/" + a.id, {"role": "doctor"}), 403,
                "access.denied")
        for path in (HD, HD + "/latest", HD + "/" + pat.rec["id"],
                     "/users/me/health-profile",
                     "/analytics/trends?metric=weight"):
            path += ("&" if "?" in path else "?") + "user_id=" + pat.id
            r = c.get(path)
            assert r.status in (403, 404) and CANARY not in r.text, r
    assert ok(d.get("/patients"))["items"] == []
    ok(pat.post(one + "/accept"))
    assert CANARY in d.get(HD + "?user_id=" + pat.id).text
    r = a.get(HD + "?user_id=" + pat.id)
    problem(r, 403, "access.break_glass_required")


def test_staff_assigns_where_the_operator_said_so(s):
    s.use(phi="break_glass", care="staff")
    pat, d = s.new_user(verified=True), s.new_user(role="doctor")
    a, b = s.new_user(role="admin"), s.new_user(role="admin")
    pair = {"patient_id": pat.id, "doctor_id": d.id}
    doc = ok(d.post(CARE, pair), 201)
    assert doc["status"] == "pending", "a doctor's own word is not enough"
    assert d.delete(CARE + "/" + doc["id"]).status == 204
    assert ok(a.post(CARE, pair), 201)["status"] == "active"
    ok(d.get(HD + "?user_id=" + pat.id))
    told = s.psql("select user_id from jobs where unique_key like"
                  " 'mail:care_proposed:%'").split()
    assert pat.id in told and a.id not in told
    assert [x for x in told if x not in (pat.id, d.id)], "no administrator"
    s.use(phi="break_glass", care="patient")


# --- the second wall, without the first ---

def test_without_the_gate(s):
    """Every role reaches everybody: the database gives away nothing."""
    s.use(phi="break_glass")
    p = people(s)
    r = subprocess.run([ROOT + "/tools/build-faulty", "no-gate",
                        "HM_FAULT_NO_GATE"], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
    assert r.returncode == 0, r.stderr
    so = r.stdout.strip()
    maps = None
    try:
        s.use(phi="break_glass", module=so)
        maps = "".join(open("/proc/%d/maps" % x).read()
                       for x in s.nginx_workers(old=False))
        assert os.path.join(s.real, "nginx", os.path.basename(so)) in maps
        nobody_sees(s, p)
    finally:
        s.use(phi="break_glass", module="")


def nobody_sees(s, p):
    state = ("select id, version, md5(value) from health_data order by id",
             "select user_id, version from user_health_profiles order by 1",
             "select id, role, is_active, version from users where id in"
             " ('%s', '%s') order by id" % (p["own"].id,
                                            p["withdrawer"].id),
             "select id, status from care_relationships order by id",
             "select id, ended_at, approved_at from break_glass_grants"
             " order by id")
    before = [s.psql(x) for x in state]
    victims = {"withdrawn": p["withdrawer"]}
    n = 0
    for who in ("other", "not", "ended", "researcher", "admin",
                "withdrawn"):
        c, v = p[who], victims.get(who, p["own"])
        # the gate is down: that is what is tested
        tried = 0
        for method, path, op, named in operations(s):
            if (method, path) in SPENDS or path.startswith("ROOT") \
                    or path.startswith("/auth/"):
                continue
            if who == "admin" and method != "GET" \
                    and path.startswith(("/users/{id}", CARE, GLASS)):
                continue                 # that is his to do
            url = BASE + aim(path, dict(p, own=v)) \
                + ("?" + QUERY[path] if path in QUERY else "")
            if named:
                url += ("&" if "?" in url else "?") + "user_id=" + v.id
            body = VALID.get((method, path))
            ctype = "application/json" if "requestBody" in op else None
            if ctype and body is None:
                body = {}
            r = c.raw(method, url, None if body is None
                      else json.dumps(body).encode(), [], ctype,
                      check=False)
            n += 1
            tried += named
            assert r.status < 500, r
            if who == "admin" and path.startswith(("/users", CARE, GLASS)) \
                    and not named:
                continue                 # accounts are an administrator's
            assert CANARY not in r.text, r
            assert '"user_id":"%s"' % v.id not in r.text or \
                path.endswith("health-profile"), r
            if r.status == 200 and r.text.startswith('{"items":') \
                    and path != CARE:    # one's own relationships name him
                assert v.id not in r.text, r
        assert tried >= 10, tried
        # the gate would have said 403 or 404; without it there are no rows
        if who in ("other", "researcher"):
            r = c.get(HD + "?user_id=" + v.id, check=False)
            assert r.status in (200, 404), r
            if r.status == 200:
                assert r.json()["items"] == [], r
    assert n >= 200, n
    assert [s.psql(x) for x in state] == before


# Bodies that would do something to the patient, if they could.
VALID = {
    ("POST", HD): {"data_type": "weight", "value": 1},
    ("POST", HD + "/batch"): [{"data_type": "weight", "value": 1}],
    ("PUT", HD + "/{id}"): {"data_type": "weight", "value": 1},
    ("PATCH", HD + "/{id}"): {"value": 1},
    ("PUT", "/users/me/health-profile"): {"occupation": "thief"},
    ("PATCH", "/users/me/health-profile"): {"occupation": "thief"},
}


def test_no_exception_in_the_catalogue(s):
    """pg_policies and pg_roles: nobody passes, nothing is simply true."""
    assert s.psql("select rolname from pg_roles where rolname like 'hm\\_%'"
                  " and (rolbypassrls or rolsuper or rolcreaterole"
                  " or rolcreatedb or rolreplication)") == "hm_definer"
    assert s.one("select rolcanlogin from pg_roles"
                 " where rolname = 'hm_definer'") == "f"
    assert s.psql("select r.rolname, m.rolname from pg_auth_members a"
                  " join pg_roles r on r.oid = a.roleid join pg_roles m"
                  " on m.oid = a.member where m.rolname like 'hm\\_%'"
                  ) == "hm_owner|hm_admin"
    loose = s.rows("select tablename, policyname, cmd, qual, with_check"
                   " from pg_policies where schemaname = 'public'"
                   " and 'hm_api' = any (roles)")
    assert loose
    for x in loose:
        for text in (x["qual"], x["with_check"]):
            assert text != "true", x
        said = (x["qual"] or "") + (x["with_check"] or "")
        if x["tablename"].startswith(("health_data", "health_metrics",
                                      "user_health", "break_glass",
                                      "consents", "care_")):
            assert "hm_actor()" in said, x
    # what has a user_id and is not fenced
    assert s.psql("select c.relname from pg_class c join pg_attribute a"
                  " on a.attrelid = c.oid where a.attname = 'user_id'"
                  " and not a.attisdropped and c.relkind in ('r', 'p')"
                  " and c.relnamespace = 'public'::regnamespace and not"
                  " (c.relrowsecurity and c.relforcerowsecurity)") == ""
