"""
api.md, "Users": my account, preferences, the health profile, the accounts of
others for administrators, and who saw my data.
"""

import pytest

from hmdata import iso, now, q
from hmhttp import TIME_RE, ok, problem, uuid7, walk

ME = "/users/me"
PREFS = ME + "/preferences"
PROFILE = ME + "/health-profile"
LOG = ME + "/access-log"


# --- my account ---

def test_me_is_merged(user):
    r = user.get(ME)
    tag = r.etag
    r = user.patch(ME, {"full_name": "Anna Å. Ωmega", "phone": "+49 30 1",
                        "address": "Weg 1\n10115 Berlin",
                        "date_of_birth": "1980-02-29"})
    doc = ok(r)
    assert (doc["full_name"], doc["phone"], doc["address"],
            doc["date_of_birth"]) == ("Anna Å. Ωmega", "+49 30 1",
                                      "Weg 1\n10115 Berlin", "1980-02-29")
    assert r.etag and r.etag != tag
    assert ok(user.get(ME)) == doc and user.get(ME).etag == r.etag
    doc = ok(user.patch(ME, {"phone": None}, headers={"If-Match": r.etag}))
    assert doc["phone"] is None and doc["address"].startswith("Weg")
    problem(user.patch(ME, {"phone": "1"}, headers={"If-Match": r.etag}),
            412, "resource.changed")
    # the old login still finds the address, sealed anew as it was
    assert ok(user.get(ME))["email"] == user.email
    r = user.post("/auth/login", {"email": user.email, "fingerprint": False,
                                  "password": user.password}, token=None)
    assert ok(r)["user"]["address"].startswith("Weg")


def test_me_faults(user):
    before = ok(user.get(ME))
    problem(user.patch(ME, {"full_name": None, "email": "a@example.org",
                            "role": "admin", "zz": 1, "phone": 7,
                            "date_of_birth": "2999-01-01",
                            "is_active": False, "address": "x" * 201}),
            422, "validation.failed", {
                "/full_name": "required", "/email": "read_only",
                "/role": "read_only", "/zz": "unknown", "/phone": "type",
                "/date_of_birth": "future", "/is_active": "read_only",
                "/address": "length"})
    problem(user.patch(ME, [1]), 422, "validation.failed", exact=False)
    problem(user.patch(ME, {"phone": "1"}, headers={"If-Match": "x"}), 400,
            "request.invalid_header")
    assert ok(user.get(ME)) == before


def test_me_is_sealed(stack, user):
    ok(user.patch(ME, {"address": "canary-street-7"}))
    raw = stack.one("select encode(address, 'escape') from users"
                    " where id = '%s'" % user.id)
    assert raw and "canary" not in raw


# --- preferences ---

def test_preferences(user):
    r = user.get(PREFS)
    assert ok(r) == {"locale": "en", "units": "metric", "time_zone": "UTC"}
    want = {"locale": "de-AT", "units": "imperial",
            "time_zone": "Europe/Vienna"}
    r = user.put(PREFS, want, headers={"If-Match": r.etag})
    assert ok(r) == want
    assert user.get(PREFS, headers={"If-None-Match": r.etag}).status == 304
    assert ok(user.get(PREFS)) == want
    problem(user.put(PREFS, want, headers={"If-Match": '"old"'}), 412,
            "resource.changed")
    # a whole body: what is left out gets its default
    assert ok(user.put(PREFS, {"units": "imperial"})) == {
        "locale": "en", "units": "imperial", "time_zone": "UTC"}


@pytest.mark.parametrize("zone", [
    "Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC", "Etc/GMT+5"])
def test_time_zones(user, zone):
    assert ok(user.put(PREFS, {"time_zone": zone}))["time_zone"] == zone
    # what computes with it takes it
    ok(user.get("/analytics/trends?metric=weight"))


@pytest.mark.parametrize("zone", [
    "", "utc", "Europe", "Europe/", "Europe/Nowhere", "FOO5BAR", "+01:00",
    "../../../etc/passwd", "Etc/../../../etc/passwd", "/etc/passwd",
    "posix/../../passwd", "Foo/Bar3", "A/" + "b" * 70, "Europe/Berlin\n"])
def test_no_time_zones(user, zone):
    r = user.put(PREFS, {"time_zone": zone})
    assert r.status == 422 and [e["pointer"] for e in r.json()["errors"]] \
        == ["/time_zone"], r


def test_preference_faults(user):
    problem(user.put(PREFS, {"locale": "e", "units": "stone", "x": 1}), 422,
            "validation.failed", {"/locale": "format", "/units": "enum",
                                  "/x": "unknown"})


# --- health profile ---

FULL = {
    "height_cm": 181.5, "weight_kg": 80, "gender": "female",
    "blood_type": "O+", "activity_level": "moderate",
    "smoking_status": "never", "alcohol_consumption": "rarely",
    "sleep_hours": 7.5, "ethnicity": "x", "occupation": "baker",
    "physicians": [{"name": "Dr. A", "phone": "1", "own": True}],
    "insurance": {"company": "B", "number": 7},
    "family_history": ["diabetes", {"who": "mother", "what": "stroke"}],
    "allergies": {"food": ["peanut"], "drug": ["penicillin"],
                  "environmental": []},
    "chronic_conditions": ["asthma"], "mental_health": "canary-mind",
    "emergency_contacts": [{"name": "C", "phone": "2", "note": None}],
    "advance_directives": "none", "organ_donor": False,
}


def test_profile_is_empty_at_first(user):
    r = user.get(PROFILE)
    doc = ok(r)
    assert doc["user_id"] == user.id and set(doc) - {"user_id"} == \
        set(FULL) | {"updated_at"}
    assert {k for k, v in doc.items() if v is not None} == {"user_id"}
    assert user.get(PROFILE, headers={"If-None-Match": r.etag}).status == 304
    ok(user.put(PROFILE, {}, headers={"If-Match": r.etag}))
    problem(user.put(PROFILE, {}, headers={"If-Match": r.etag}), 412,
            "resource.changed")


def test_profile_round_trip(stack, user):
    r = user.put(PROFILE, FULL)
    doc = ok(r)
    assert {k: doc[k] for k in FULL} == FULL
    assert TIME_RE.match(doc["updated_at"])
    again = user.get(PROFILE)
    assert ok(again) == doc and again.etag == r.etag
    assert '"weight_kg":80,' in again.text and '"height_cm":181.5' \
        in again.text
    raw = stack.one("select encode(document, 'escape') from"
                    " user_health_profiles where user_id = '%s'" % user.id)
    assert raw and "canary" not in raw and "peanut" not in raw


def test_profile_merge(user):
    ok(user.put(PROFILE, FULL))
    r = user.patch(PROFILE, {"weight_kg": 79, "occupation": None,
                             "allergies": {"drug": None, "food": ["nuts"]}},
                   ctype="application/merge-patch+json")
    doc = ok(r)
    assert doc["weight_kg"] == 79 and doc["occupation"] is None
    assert doc["allergies"] == {"food": ["nuts"], "environmental": []}
    assert doc["gender"] == "female"
    problem(user.patch(PROFILE, {"gender": "x"},
                       headers={"If-Match": '"no"'}), 412,
            "resource.changed")
    # PUT is the whole document
    doc = ok(user.put(PROFILE, {"gender": "x"}))
    assert doc["gender"] == "x" and doc["weight_kg"] is None


def test_profile_faults(user):
    problem(user.put(PROFILE, {
        "height_cm": 5, "weight_kg": "80", "gender": 1, "organ_donor": "no",
        "physicians": "Dr. A", "allergies": {"pets": [], "food": "nuts"},
        "emergency_contacts": [{"name": ["x"]}], "zz": 1,
        "user_id": user.id, "occupation": "x" * 201,
        "chronic_conditions": ["\u0001"]}), 422, "validation.failed", {
            "/height_cm": "range", "/weight_kg": "type", "/gender": "type",
            "/organ_donor": "type", "/physicians": "type",
            "/allergies/pets": "unknown", "/allergies/food": "type",
            "/emergency_contacts/0/name": "type", "/zz": "unknown",
            "/user_id": "read_only", "/occupation": "length",
            "/chronic_conditions/0": "format"})
    problem(user.patch(PROFILE, {"zz": None}), 422, "validation.failed",
            {"/zz": "unknown"})
    problem(user.patch(PROFILE, 7), 422, "validation.failed", exact=False)


def test_profile_of_a_patient(stack, user, doctor, stranger, researcher):
    ok(user.put(PROFILE, FULL))
    who = PROFILE + "?user_id=" + user.id
    for c, status, code in ((doctor, 404, "resource.not_found"),
                            (stranger, 403, "access.denied"),
                            (researcher, 403, "access.denied")):
        problem(c.get(who), status, code)
        problem(c.put(who, {}), status, code)
        problem(c.patch(who, {}), status, code)
    d = stack.new_user(role="doctor")
    stack.assign(user, d)
    assert ok(d.get(who))["mental_health"] == "canary-mind"
    doc = ok(d.patch(who, {"blood_type": "A-"}))
    assert doc["user_id"] == user.id
    assert ok(user.get(PROFILE))["blood_type"] == "A-"
    # his own is another
    assert ok(d.get(PROFILE))["blood_type"] is None


# --- who saw my data ---

def by_people(items):
    """The service's own work, as its mail, is in the log too."""
    return [x for x in items if x["purpose"] != "system"]


def test_access_log(stack, user, admin):
    user.record(value=70)
    ok(user.get("/health-data"))
    assert by_people(ok(user.get(LOG))["items"]) == []
    d = stack.new_user(role="doctor")
    problem(d.get("/health-data?user_id=" + user.id), 404,
            "resource.not_found")
    stack.assign(user, d)
    ok(d.get("/health-data?user_id=" + user.id))
    ok(d.get("/health-data/latest?user_id=" + user.id))
    every = ok(user.get(LOG))["items"]
    items = by_people(every)
    assert {x["actor_role"] for x in every if x not in items} <= {"none"}
    assert [(x["actor_id"], x["actor_role"], x["action"], x["resource"],
             x["purpose"], x["outcome"]) for x in items] == [
        (d.id, "doctor", "list", "health_data", "care", 200),
        (d.id, "doctor", "list", "health_data", "care", 200),
        (d.id, "doctor", "list", "health_data", "care", 404)]
    assert all(TIME_RE.match(x["at"]) for x in items)
    # by pages, both ways
    assert by_people(walk(user, LOG, 1)) == items
    assert by_people(walk(user, LOG + "?order=asc", 2)) == items[::-1]
    assert ok(user.get(LOG + "?from=" + q(iso(now()))))["items"] == []
    problem(user.get(LOG + "?user_id=" + user.id), 400,
            "request.invalid_parameter", exact=False)
    # nobody else's log
    other = stack.new_user()
    assert by_people(ok(other.get(LOG))["items"]) == []


# --- the accounts of others ---

def test_users_are_the_administrators(user, doctor, researcher):
    for c in (user, doctor, researcher):
        for r in (c.get("/users"), c.get("/users/" + user.id),
                  c.get("/users/" + uuid7()),
                  c.post("/users", {}), c.patch("/users/" + user.id, {})):
            problem(r, 403, "access.denied")


def test_users_list(stack, admin, user):
    doc = ok(admin.get("/users?limit=200"))
    mine = [x for x in doc["items"] if x["id"] == user.id]
    assert mine == [ok(user.get(ME))]
    flat = [x["id"] for x in walk(admin, "/users", 7)]
    assert len(flat) == len(set(flat)) and user.id in flat
    # each of them finds it in his own log
    got = [x for x in ok(user.get(LOG))["items"]
           if x["purpose"] != "system"]
    assert got and got[0]["actor_id"] == admin.id \
        and (got[0]["action"], got[0]["resource"], got[0]["purpose"]) \
        == ("list", "user", "admin")


def test_users_get(admin, user):
    r = admin.get("/users/" + user.id)
    assert ok(r) == ok(user.get(ME))
    assert admin.get("/users/" + user.id, headers={
        "If-None-Match": r.etag}).status == 304
    problem(admin.get("/users/" + uuid7()), 404, "resource.not_found")
    problem(admin.get("/users/nobody"), 404, "resource.not_found")
    assert ok(admin.get("/users/" + admin.id))["role"] == "admin"


def test_users_made(stack, admin):
    email = "made-%s@example.org" % uuid7()
    r = admin.post("/users", {"email": email, "full_name": "Dr. New",
                              "role": "doctor",
                              "password": "a long enough one"},
                   headers={"Idempotency-Key": email})
    doc = ok(r, 201)
    assert (doc["role"], doc["email"], doc["email_verified"]) \
        == ("doctor", email, False)
    assert r.header("location") == "/api/v1/users/" + doc["id"]
    got = admin.get("/users/" + doc["id"])
    assert ok(got) == doc and got.etag == r.etag
    again = admin.post("/users", {"email": email, "full_name": "Dr. New",
                                  "role": "doctor",
                                  "password": "a long enough one"},
                       headers={"Idempotency-Key": email})
    assert again.status == 201 and again.json() == doc \
        and again.header("idempotent-replayed") == "true"
    problem(admin.post("/users", {"email": email.upper(),
                                  "full_name": "x"}), 409,
            "auth.email_taken")
    c = stack.login(stack.client(), email, "a long enough one")
    assert c.user["id"] == doc["id"]
    # it has keys: it can store and read
    ok(c.post("/health-data", {"data_type": "weight", "value": 80}), 201)
    assert ok(c.get(PREFS))["time_zone"] == "UTC"


def test_users_made_without_a_password(stack, admin):
    email = "made-%s@example.org" % uuid7()
    doc = ok(admin.post("/users", {"email": email, "full_name": "N"}), 201)
    assert doc["role"] == "patient"
    for word in ("", "password", "None"):
        r = stack.client().post("/auth/login", {
            "email": email, "password": word, "fingerprint": False},
            token=None)
        assert r.status == 401, r
    assert stack.one("select count(*) from jobs where user_id = '%s'"
                     " and unique_key = 'mail:invite:%s'"
                     % (doc["id"], doc["id"])) == "1"


def test_users_made_faults(admin):
    problem(admin.post("/users", {"email": "no", "full_name": "",
                                  "role": "king", "password": "short",
                                  "is_active": True}), 422,
            "validation.failed", {
                "/email": ("length", "format"), "/full_name": "length",
                "/role": "enum", "/password": "length",
                "/is_active": "unknown"}, exact=False)


def test_role_changes(stack, admin):
    u = stack.new_user(verified=True)
    p = "/users/" + u.id
    tag = admin.get(p).etag
    r = admin.patch(p, {"role": "doctor"}, headers={"If-Match": tag})
    assert ok(r)["role"] == "doctor" and r.etag != tag
    problem(admin.patch(p, {"role": "patient"}, headers={"If-Match": tag}),
            412, "resource.changed")
    stack.login(u, u.email, u.password)
    ok(u.get("/patients"))
    # who is no doctor any more treats nobody, nor when he is one again
    pat = stack.new_user(verified=True)
    stack.assign(pat, u)
    ok(u.get("/health-data?user_id=" + pat.id))
    ok(admin.patch(p, {"role": "patient"}))
    ok(admin.patch(p, {"role": "doctor"}))
    stack.login(u, u.email, u.password)
    problem(u.get("/health-data?user_id=" + pat.id), 404,
            "resource.not_found")


def test_own_role(admin):
    p = "/users/" + admin.id
    for doc in ({"role": "patient"}, {"is_active": False},
                {"role": "admin"}, {}):
        problem(admin.patch(p, doc), 403, "access.denied")
    assert ok(admin.get(p))["is_active"] is True


def test_change_faults(admin, user):
    p = "/users/" + user.id
    problem(admin.patch(p, {"role": "king", "is_active": 1, "email": "x"}),
            422, "validation.failed", {"/role": "enum",
                                       "/is_active": "type",
                                       "/email": "unknown"})
    problem(admin.patch(p, {"role": None, "is_active": None}), 422,
            "validation.failed", {"/role": "required",
                                  "/is_active": "required"})
    problem(admin.patch("/users/" + uuid7(), {"role": "doctor"}), 404,
            "resource.not_found")


def test_closed_account(stack, admin):
    u = stack.new_user()
    assert ok(admin.patch("/users/" + u.id, {"is_active": False}))[
        "is_active"] is False
    r = stack.client().post("/auth/login", {
        "email": u.email, "password": u.password, "fingerprint": False},
        token=None)
    problem(r, 401, "auth.invalid_credentials")
    ok(admin.patch("/users/" + u.id, {"is_active": True}))
    stack.login(u, u.email, u.password)
