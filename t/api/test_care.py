"""
Who may see whom, as people change it: care relationships, a doctor's
patients, consents, break-glass.
"""

import pytest

from hmdata import ahead, ago, iso
from hmhttp import TIME_RE, ok, problem, uuid7, walk

HD = "/health-data"
CARE = "/care-relationships"
CONSENTS = "/compliance/consents"
GLASS = "/break-glass"


@pytest.fixture
def patient(stack):
    c = stack.new_user(verified=True)
    c.rec = c.record(value=66).json()
    return c


@pytest.fixture
def carer(stack):
    return stack.new_user(role="doctor")


def sees(doctor, patient):
    r = doctor.get(HD + "?user_id=" + patient.id)
    assert r.status in (200, 404), r
    if r.status == 200:
        assert [x["id"] for x in r.json()["items"]] == [patient.rec["id"]]
    return r.status == 200


def pair(patient, doctor, **kw):
    return dict({"patient_id": patient.id, "doctor_id": doctor.id}, **kw)


def mails(stack, person, template):
    return int(stack.one(
        "select count(*) from jobs where user_id = '%s' and unique_key ="
        " 'mail:%s:%s'" % (person.id, template, person.id)))


# --- relationships ---

def test_proposed_and_accepted(stack, patient, carer):
    r = carer.post(CARE, pair(patient, carer))
    doc = ok(r, 201)
    p = CARE + "/" + doc["id"]
    assert r.header("location") == "/api/v1" + p
    assert doc["status"] == "pending" and doc["created_by"] == carer.id \
        and doc["accepted_at"] is None
    year = stack.one("select extract(day from until - from_at) from"
                     " care_relationships where id = '%s'" % doc["id"])
    assert int(year) in (365, 366)
    assert mails(stack, patient, "care_proposed") == 1
    assert not sees(carer, patient)
    assert ok(carer.get("/patients")) == {"items": [], "next": None}
    for c in (patient, carer):
        got = c.get(p)
        assert ok(got) == doc and got.etag == r.etag
        assert ok(c.get(CARE))["items"] == [doc]
    r = patient.post(p + "/accept")
    got = ok(r)
    assert got["status"] == "active" and TIME_RE.match(got["accepted_at"])
    assert r.etag == patient.get(p).etag
    assert sees(carer, patient)
    items = ok(carer.get("/patients"))["items"]
    assert [(x["id"], x["full_name"], x["relationship_id"])
            for x in items] == [(patient.id, "Test Person", doc["id"])]
    problem(patient.post(p + "/accept"), 409, "resource.conflict")
    problem(patient.post(p + "/decline"), 409, "resource.conflict")
    # ended: shut with the next request
    assert patient.delete(p).status == 204
    assert not sees(carer, patient)
    problem(patient.delete(p), 404, "resource.not_found")
    assert ok(carer.get(p))["status"] == "ended"
    assert ok(carer.get("/patients"))["items"] == []


def test_made_by_the_patient(stack, patient, carer):
    doc = ok(patient.post(CARE, pair(patient, carer,
                                     until=iso(ahead(days=9)))), 201)
    assert doc["status"] == "active" and doc["accepted_at"]
    assert sees(carer, patient)
    problem(patient.post(CARE, pair(patient, carer)), 409,
            "resource.conflict")
    problem(carer.post(CARE, pair(patient, carer)), 409,
            "resource.conflict")
    # the doctor ends it, too
    assert carer.delete(CARE + "/" + doc["id"]).status == 204
    assert not sees(carer, patient)


def test_declined(patient, carer):
    doc = ok(carer.post(CARE, pair(patient, carer)), 201)
    p = CARE + "/" + doc["id"]
    assert ok(patient.post(p + "/decline"))["status"] == "declined"
    assert not sees(carer, patient)
    problem(patient.post(p + "/accept"), 409, "resource.conflict")
    # it may be proposed again
    ok(carer.post(CARE, pair(patient, carer)), 201)


def test_only_the_patient_answers(stack, patient, carer, admin):
    doc = ok(carer.post(CARE, pair(patient, carer)), 201)
    p = CARE + "/" + doc["id"]
    other = stack.new_user(role="doctor")
    for word in ("/accept", "/decline"):
        for c in (carer, admin):
            problem(c.post(p + word), 403, "access.denied")
        for c in (other, stack.new_user(verified=True)):
            problem(c.post(p + word), 404, "resource.not_found")
    for c in (other, stack.new_user(verified=True)):
        problem(c.get(p), 404, "resource.not_found")
        problem(c.delete(p), 404, "resource.not_found")
        assert ok(c.get(CARE))["items"] == []
    assert not sees(carer, patient) and not sees(other, patient)


def test_an_administrator_proposes_only(stack, admin, patient):
    """Administrator, new doctor, assignment: nothing before the patient."""
    d = stack.new_user(role="doctor")
    doc = ok(admin.post(CARE, pair(patient, d)), 201)
    assert doc["status"] == "pending"
    assert not sees(d, patient)
    ok(patient.post(CARE + "/" + doc["id"] + "/accept"))
    assert sees(d, patient)
    # and ends it
    assert doc["id"] in [x["id"] for x in
                         ok(admin.get(CARE + "?limit=200"))["items"]]
    assert admin.delete(CARE + "/" + doc["id"]).status == 204
    assert not sees(d, patient)


def test_not_for_others(stack, patient, carer, researcher):
    d = stack.new_user(role="doctor")
    p = stack.new_user(verified=True)
    for c, doc in ((carer, pair(patient, d)), (p, pair(patient, carer)),
                   (researcher, pair(patient, carer)),
                   (d, pair(carer, patient))):
        problem(c.post(CARE, doc), 403, "access.denied")


def test_parties(stack, patient, carer):
    """Nobody, not verified, no doctor, closed: the same 404."""
    fresh = stack.new_user()

    class Nobody:
        id = uuid7()

    closed = stack.new_user(role="doctor")
    stack.psql("update users set is_active = false where id = '%s'"
               % closed.id)
    for c, doc in ((carer, pair(Nobody, carer)), (carer, pair(fresh, carer)),
                   (patient, pair(patient, Nobody)),
                   (patient, pair(patient, fresh)),
                   (patient, pair(patient, closed)),
                   (fresh, pair(fresh, carer)),
                   (patient, pair(patient, patient))):
        problem(c.post(CARE, doc), 404, "resource.not_found")


def test_care_faults(patient, carer):
    problem(patient.post(CARE, {"patient_id": "x", "until": "soon",
                                "status": "active"}), 422,
            "validation.failed", {"/patient_id": "format",
                                  "/doctor_id": "required",
                                  "/until": "format", "/status": "unknown"})
    for t in (iso(ago(minutes=1)), iso(ahead(days=4000))):
        problem(patient.post(CARE, pair(patient, carer, until=t)), 422,
                "validation.failed", {"/until": "range"})
    doc = ok(patient.post(CARE, pair(patient, carer)), 201)
    problem(patient.delete(CARE + "/" + doc["id"],
                           headers={"If-Match": '"x"'}), 412,
            "resource.changed")
    assert sees(carer, patient)
    k = {"Idempotency-Key": uuid7()}
    again = [patient.post(CARE, pair(patient, carer), headers=k)
             for _ in range(2)]
    assert [r.status for r in again] == [409, 409]


def test_run_out(stack, patient, carer):
    doc = ok(patient.post(CARE, pair(patient, carer)), 201)
    stack.psql("update care_relationships set from_at = now() - interval"
               " '1 day', until = now() - interval '1 second'"
               " where id = '%s'" % doc["id"])
    assert not sees(carer, patient)
    assert ok(patient.get(CARE + "/" + doc["id"]))["status"] == "ended"
    problem(patient.post(CARE + "/" + doc["id"] + "/accept"), 409,
            "resource.conflict")
    problem(patient.delete(CARE + "/" + doc["id"]), 404,
            "resource.not_found")
    # it makes way for another
    ok(patient.post(CARE, pair(patient, carer)), 201)
    assert sees(carer, patient)


def test_accept_twice_at_once(stack, patient, carer):
    import threading
    doc = ok(carer.post(CARE, pair(patient, carer)), 201)
    got = []

    def run(word):
        got.append((word, patient.post(CARE + "/" + doc["id"] + word)
                    .status))

    ts = [threading.Thread(target=run, args=(w,))
          for w in ("/accept", "/decline") * 4]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(s for _, s in got) == [200] + [409] * 7, got


def test_lists_are_paged(stack, patient):
    ds = [stack.new_user(role="doctor") for _ in range(3)]
    ids = [ok(patient.post(CARE, pair(patient, d)), 201)["id"] for d in ds]
    assert [x["id"] for x in walk(patient, CARE, 1)] == ids[::-1]
    assert [x["id"] for x in walk(patient, CARE + "?order=asc", 2)] == ids


# --- patients ---

def test_patients_are_a_doctors(user, admin, researcher):
    for c in (user, admin, researcher):
        problem(c.get("/patients"), 403, "access.denied")


def test_patients(stack, carer):
    people = [stack.new_user(verified=True, full_name="P %d é" % n)
              for n in range(5)]
    for p in people:
        ok(p.post(CARE, pair(p, carer)), 201)
    got = walk(carer, "/patients", 2)
    assert [(x["id"], x["full_name"]) for x in got] == [
        (p.id, "P %d é" % n) for n, p in enumerate(people)][::-1]
    # each of them was told
    for p in people:
        log = ok(p.get("/users/me/access-log"))["items"]
        assert [(x["actor_id"], x["action"], x["resource"], x["purpose"])
                for x in log if x["purpose"] != "system"] == [(carer.id, "list", "user", "care")]
    # one withdraws: gone
    ok(people[0].post(CONSENTS, {"purpose": "data_processing",
                                 "granted": False}), 201)
    assert people[0].id not in [x["id"] for x in
                                walk(carer, "/patients", 2)]


# --- consents ---

def test_consents(user):
    first = ok(user.get(CONSENTS))["items"]
    assert [(x["purpose"], x["granted"]) for x in first] \
        == [("data_processing", True)]
    r = user.post(CONSENTS, {"purpose": "research", "granted": True},
                  headers={"Idempotency-Key": "once"})
    doc = ok(r, 201)
    assert doc["purpose"] == "research" and doc["granted"] is True
    again = user.post(CONSENTS, {"purpose": "research", "granted": True},
                      headers={"Idempotency-Key": "once"})
    assert again.json() == doc
    no = ok(user.post(CONSENTS, {"purpose": "research", "granted": False}),
            201)
    items = ok(user.get(CONSENTS))["items"]
    assert items == [no, doc] + first
    assert walk(user, CONSENTS, 1) == items
    problem(user.post(CONSENTS, {"purpose": "everything", "x": 1}), 422,
            "validation.failed", {"/purpose": "enum", "/x": "unknown",
                                  "/granted": "required"})
    problem(user.get(CONSENTS + "?user_id=" + user.id), 400,
            "request.invalid_parameter", exact=False)


def test_withdrawal_shuts_doctors_out(patient, carer):
    ok(patient.post(CARE, pair(patient, carer)), 201)
    assert sees(carer, patient)
    for granted in (False, True, False, False, True):
        ok(patient.post(CONSENTS, {"purpose": "data_processing",
                                   "granted": granted}), 201)
        assert sees(carer, patient) == granted
    # another purpose changes nothing
    ok(patient.post(CONSENTS, {"purpose": "research", "granted": False}),
       201)
    assert sees(carer, patient)


def test_the_newest_counts_by_any_clock(stack, patient, carer):
    ok(patient.post(CARE, pair(patient, carer)), 201)
    stack.psql("update consents set created_at = now() + interval '1 hour'"
               " where user_id = '%s'" % patient.id)
    ok(patient.post(CONSENTS, {"purpose": "data_processing",
                               "granted": False}), 201)
    assert not sees(carer, patient)


# --- break-glass ---

def opened(c, patient, reason="unconscious, no papers"):
    return c.post(GLASS, {"user_id": patient.id, "reason": reason})


def test_glass_of_a_doctor(stack, patient, carer):
    who = "?user_id=" + patient.id
    assert not sees(carer, patient)
    r = opened(carer, patient, "canary: found unconscious")
    doc = ok(r, 201)
    p = GLASS + "/" + doc["id"]
    assert r.header("location") == "/api/v1" + p
    assert (doc["user_id"], doc["actor_id"], doc["status"],
            doc["reason"]) == (patient.id, carer.id, "active",
                               "canary: found unconscious")
    assert mails(stack, patient, "break_glass") == 1
    raw = stack.one("select encode(reason, 'escape') from"
                    " break_glass_grants where id = '%s'" % doc["id"])
    assert raw and "canary" not in raw
    # to read, not to write
    assert sees(carer, patient)
    one = HD + "/" + patient.rec["id"] + who
    assert ok(carer.get(one)) == patient.rec
    ok(carer.get(HD + "/latest" + who))
    ok(carer.get("/users/me/health-profile" + who))
    for r in (carer.post(HD + who, {"data_type": "weight", "value": 70}),
              carer.put(one, {"data_type": "heart_rate", "value": 1}),
              carer.patch(one, {"value": 67}), carer.delete(one),
              carer.put("/users/me/health-profile" + who, {}),
              carer.post(HD + "/batch" + who, [
                  {"data_type": "weight", "value": 70}])):
        problem(r, 404, "resource.not_found")
    assert ok(patient.get(HD))["items"] == [patient.rec]
    # each read is marked
    log = [x for x in ok(patient.get("/users/me/access-log"))["items"]
           if x["outcome"] == 200 and x["resource"] != "break_glass"
           and x["purpose"] != "system"]     # its mail
    assert log and {x["purpose"] for x in log} == {"break_glass"}
    assert ok(carer.get("/patients"))["items"] == []
    # the owner sees who and why
    assert ok(patient.get(p)) == doc
    assert ok(patient.get(GLASS))["items"] == [doc]
    problem(patient.delete(p), 403, "access.denied")
    assert carer.delete(p).status == 204
    assert not sees(carer, patient)
    problem(carer.delete(p), 404, "resource.not_found")
    assert ok(carer.get(p))["status"] == "ended"


def test_glass_lasts_an_hour(stack, patient, carer):
    doc = ok(opened(carer, patient), 201)
    assert stack.one("select expires_at - created_at from"
                     " break_glass_grants where id = '%s'" % doc["id"]) \
        == "01:00:00"
    stack.psql("update break_glass_grants set expires_at = now()"
               " where id = '%s'" % doc["id"])
    assert not sees(carer, patient)
    assert ok(carer.get(GLASS + "/" + doc["id"]))["status"] == "ended"


def test_glass_is_not_everybodys(stack, user, patient, researcher, carer):
    for c in (user, researcher):
        problem(opened(c, patient), 403, "access.denied")

    class Nobody:
        id = uuid7()

    class Nil:
        id = "00000000-0000-0000-0000-000000000000"

    for n in (Nobody, Nil):
        problem(opened(carer, n), 404, "resource.not_found")
    problem(opened(carer, carer), 422, "validation.failed",
            {"/user_id": "enum"})
    problem(carer.post(GLASS, {"user_id": 7, "x": 1}), 422,
            "validation.failed", {"/user_id": "type", "/x": "unknown",
                                  "/reason": "required"})
    problem(opened(carer, patient, ""), 422, "validation.failed",
            {"/reason": "length"})
    doc = ok(opened(carer, patient), 201)
    other = stack.new_user(role="doctor")
    for c in (user, other):
        problem(c.get(GLASS + "/" + doc["id"]), 404, "resource.not_found")
        assert ok(c.get(GLASS))["items"] == []
    problem(other.delete(GLASS + "/" + doc["id"]), 404,
            "resource.not_found")
    # a grant is one doctor's
    assert not sees(other, patient)


def test_the_fourth_needs_a_second_person(stack, carer):
    people = [stack.new_user(verified=True) for _ in range(4)]
    for p in people:
        p.rec = p.record(value=60).json()
    docs = [ok(opened(carer, p), 201) for p in people]
    assert [d["status"] for d in docs] == ["active"] * 3 + ["pending"]
    assert [sees(carer, p) for p in people] == [True] * 3 + [False]
    p = GLASS + "/" + docs[3]["id"]
    problem(carer.post(p + "/approve"), 403, "access.denied")
    problem(people[3].post(p + "/approve"), 403, "access.denied")
    a = stack.new_user(role="admin")
    got = ok(a.post(p + "/approve"))
    assert got["status"] == "active" and got["approved_by"] == a.id
    assert sees(carer, people[3])
    problem(a.post(p + "/approve"), 409, "resource.conflict")
    problem(a.post(GLASS + "/" + docs[0]["id"] + "/approve"), 409,
            "resource.conflict")
    # the administrator sees all and ends any
    seen = [x["id"] for x in walk(a, GLASS, 50)]
    assert {d["id"] for d in docs} <= set(seen)
    assert a.delete(p).status == 204
    assert not sees(carer, people[3])


def test_an_administrator_does_not_approve_his_own(stack):
    a = stack.new_user(role="admin")
    docs = [ok(opened(a, stack.new_user()), 201) for _ in range(4)]
    assert docs[3]["status"] == "pending"
    p = GLASS + "/" + docs[3]["id"] + "/approve"
    problem(a.post(p), 403, "access.denied")
    # nor does the subject of it
    b = stack.new_user(role="admin")
    doc = ok(opened(a, b), 201)
    assert doc["status"] == "pending"
    problem(b.post(GLASS + "/" + doc["id"] + "/approve"), 403,
            "access.denied")


def test_three_a_day_are_three(stack, carer):
    """Eight at once: three open, five wait."""
    import threading
    people = [stack.new_user() for _ in range(8)]
    got = []

    def run(p):
        got.append(ok(opened(carer, p), 201)["status"])

    ts = [threading.Thread(target=run, args=(p,)) for p in people]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(got) == ["active"] * 3 + ["pending"] * 5


def test_glass_lapses_unapproved(stack, carer):
    docs = [ok(opened(carer, stack.new_user()), 201) for _ in range(4)]
    stack.psql("update break_glass_grants set created_at = now() - interval"
               " '61 minutes', expires_at = now() - interval '1 minute'"
               " where id = '%s'" % docs[3]["id"])
    a = stack.new_user(role="admin")
    problem(a.post(GLASS + "/" + docs[3]["id"] + "/approve"), 409,
            "resource.conflict")


def test_a_closed_doctor_has_no_grant(stack, patient, carer):
    ok(opened(carer, patient), 201)
    assert sees(carer, patient)
    stack.psql("update users set role = 'patient' where id = '%s'"
               % carer.id)
    r = carer.get(HD + "?user_id=" + patient.id)
    assert r.status in (401, 403, 404), r
