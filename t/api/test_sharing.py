"""api.md, "Permissions" and ?user_id=: who may see and write what."""

import pytest

from hmdata import series
from hmhttp import ok, problem, uuid7

HD = "/health-data"


@pytest.fixture(scope="module")
def patient(stack):
    c = stack.new_user()
    c.ids = series(c, 25)
    return c


@pytest.fixture(scope="module")
def carer(stack, patient):
    c = stack.new_user(role="doctor")
    stack.assign(patient, c)
    return c


def one(c, **kw):
    return HD + "/" + c.ids[0] + "".join(
        "?%s=%s" % x for x in kw.items())


EVERY = [
    ("GET", lambda p: HD + "?user_id=" + p.id, None),
    ("HEAD", lambda p: HD + "?user_id=" + p.id, None),
    ("GET", lambda p: HD + "/latest?user_id=" + p.id, None),
    ("GET", lambda p: one(p, user_id=p.id), None),
    ("POST", lambda p: HD + "?user_id=" + p.id,
     {"data_type": "heart_rate", "value": 99}),
    ("POST", lambda p: HD + "/batch?user_id=" + p.id,
     [{"data_type": "heart_rate", "value": 99}]),
    ("PUT", lambda p: one(p, user_id=p.id),
     {"data_type": "heart_rate", "value": 99}),
    ("PATCH", lambda p: one(p, user_id=p.id), {"value": 99}),
    ("DELETE", lambda p: one(p, user_id=p.id), None),
    ("GET", lambda p: "/analytics/trends?metric=heart_rate&user_id=" + p.id,
     None),
]


def everywhere(caller, patient, status, code):
    for method, path, doc in EVERY:
        r = caller.call(method, path(patient), doc)
        problem(r, status, code)


class Nobody:
    def __init__(self):
        self.id, self.ids = uuid7(), [uuid7()]


def test_patient_naming_another_is_403(stranger, patient):
    everywhere(stranger, patient, 403, "access.denied")


def test_patient_naming_nobody_is_403_too(stranger):
    everywhere(stranger, Nobody(), 403, "access.denied")


def test_researcher_naming_another_is_403(researcher, patient):
    everywhere(researcher, patient, 403, "access.denied")


def test_researcher_has_own_data(researcher):
    r = researcher.post(HD, {"data_type": "heart_rate", "value": 70})
    assert r.status in (200, 201), r


def test_naming_oneself(patient):
    doc = ok(patient.get(HD + "?limit=5&user_id=" + patient.id))
    assert len(doc["items"]) == 5
    ok(patient.get(one(patient, user_id=patient.id)))


def test_foreign_object_is_404_for_everyone(patient, stranger, carer, admin,
                                            researcher):
    """By its bare id, without ?user_id=, whoever asks."""
    for c in (stranger, carer, admin, researcher):
        for h in (None, {"If-Match": "*"}, {"If-None-Match": "*"},
                  {"If-Match": "garbage"}, {"Range": "bytes=0-1"}):
            if h is None or "If-Match" not in h:
                problem(c.get(one(patient), headers=h), 404,
                        "resource.not_found")
            if h and h.get("If-Match") == "garbage":
                continue
            problem(c.patch(one(patient), {"value": 99}, headers=h), 404,
                    "resource.not_found")
            problem(c.put(one(patient), {"data_type": "heart_rate",
                                         "value": 99}, headers=h), 404,
                    "resource.not_found")
            problem(c.delete(one(patient), headers=h), 404,
                    "resource.not_found")


def test_own_user_id_with_a_foreign_record(stranger, patient):
    problem(stranger.get(one(patient, user_id=stranger.id)), 404,
            "resource.not_found")


def test_unassigned_doctor_is_404(doctor, patient):
    everywhere(doctor, patient, 404, "resource.not_found")


def test_doctor_and_nobody_is_404(doctor, carer):
    for c in (doctor, carer):
        everywhere(c, Nobody(), 404, "resource.not_found")


def test_assigned_doctor_reads(patient, carer):
    doc = ok(carer.get(HD + "?limit=200&user_id=" + patient.id))
    assert {x["id"] for x in doc["items"]} >= set(patient.ids)
    assert {x["user_id"] for x in doc["items"]} == {patient.id}
    rec = ok(carer.get(one(patient, user_id=patient.id)))
    assert rec == ok(patient.get(one(patient)))
    assert len(ok(carer.get(HD + "/latest?user_id=" + patient.id))
               ["items"]) >= 1


def test_assigned_doctor_without_user_id_has_own_list(carer):
    assert ok(carer.get(HD))["items"] == []


def test_assigned_doctor_writes(patient, carer):
    r = carer.post(HD + "?user_id=" + patient.id,
                   {"data_type": "weight", "value": 77, "notes": "by doctor"})
    rec = ok(r, 201)
    assert rec["user_id"] == patient.id
    assert ok(patient.get(HD + "/" + rec["id"])) == rec
    p = HD + "/" + rec["id"] + "?user_id=" + patient.id
    assert ok(carer.patch(p, {"value": 78}))["value"] == 78
    assert ok(carer.put(p, {"data_type": "weight", "value": 79}))["value"] \
        == 79
    doc = ok(carer.post(HD + "/batch?user_id=" + patient.id,
                        [{"data_type": "weight", "value": 70}]))
    assert doc["created"] == 1
    assert carer.delete(p).status == 204
    problem(patient.get(HD + "/" + rec["id"]), 404)


def test_cursor_is_bound_to_the_subject(patient, carer, stack):
    other = stack.new_user()
    series(other, 25)
    stack.assign(other, carer)
    nxt = ok(carer.get(HD + "?limit=5&user_id=" + patient.id))["next"]
    ok(carer.get(HD + "?limit=5&user_id=%s&cursor=%s" % (patient.id, nxt)))
    problem(carer.get(HD + "?limit=5&user_id=%s&cursor=%s"
                      % (other.id, nxt)), 400, "request.invalid_cursor")
    problem(carer.get(HD + "?limit=5&cursor=" + nxt), 400,
            "request.invalid_cursor")
    problem(patient.get(HD + "?limit=5&cursor=" + nxt), 400,
            "request.invalid_cursor")


def test_a_record_of_another_assigned_patient(patient, carer, stack):
    other = stack.new_user()
    rec = other.record().json()
    stack.assign(other, carer)
    ok(carer.get(HD + "/%s?user_id=%s" % (rec["id"], other.id)))
    problem(carer.get(HD + "/%s?user_id=%s" % (rec["id"], patient.id)), 404,
            "resource.not_found")


def test_idempotency_key_is_per_subject(patient, carer, stack):
    other = stack.new_user()
    stack.assign(other, carer)
    h = {"Idempotency-Key": "subject"}
    doc = {"data_type": "height", "value": 180}
    a = carer.post(HD + "?user_id=" + patient.id, doc, headers=h)
    b = carer.post(HD + "?user_id=" + other.id, doc, headers=h)
    assert ok(a, 201)["user_id"] == patient.id
    assert ok(b, 201)["user_id"] == other.id


ENDS = {
    "ended": "update care_relationships set status = 'ended',"
             " ended_at = now() where doctor_id = '{d}'",
    "pending": "update care_relationships set status = 'pending'"
               " where doctor_id = '{d}'",
    "past its until": "update care_relationships set until = now()"
                      " - interval '1 second' where doctor_id = '{d}'",
    "not yet": "update care_relationships set from_at = now()"
               " + interval '1 hour' where doctor_id = '{d}'",
    "consent withdrawn":
        "update consents set withdrawn_at = now(), granted = false"
        " where user_id = '{p}' and purpose = 'data_processing';"
        "insert into consents (id, user_id, purpose, granted, created_at,"
        " withdrawn_at) values ('{i}', '{p}', 'data_processing', false,"
        " now(), now())",
    "email not verified": "update users set email_verified_at = null"
                          " where id = '{p}'",
    "doctor disabled": "update users set is_active = false where id = '{d}'",
    "no doctor any more": "update users set role = 'patient'"
                          " where id = '{d}'",
}


@pytest.mark.parametrize("how", sorted(ENDS))
def test_an_assignment_ends_with_the_next_request(stack, how):
    p, d = stack.new_user(), stack.new_user(role="doctor")
    rec = p.record().json()
    p.ids = [rec["id"]]
    stack.assign(p, d)
    k = {"Idempotency-Key": "before"}
    doc = {"data_type": "weight", "value": 70}
    ok(d.get(one(p, user_id=p.id)))
    ok(d.post(HD + "?user_id=" + p.id, doc, headers=k), 201)
    stack.psql(ENDS[how].format(d=d.id, p=p.id, i=uuid7()))
    for method, path, body in EVERY:
        r = d.call(method, path(p), body)
        # A disabled or changed role may be told by the token's own check.
        if how in ("doctor disabled", "no doctor any more"):
            assert r.status in (401, 403, 404), r
        else:
            problem(r, 404, "resource.not_found")
    # A replay passes the relationship anew.
    r = d.post(HD + "?user_id=" + p.id, doc, headers=k)
    assert r.status in (401, 403, 404), r
    # The patient's own is untouched by all that.
    assert ok(p.get(HD + "/" + rec["id"])) == rec


def test_admin(stack, admin, patient):
    """`all` on the local stack; under break_glass 403 for every id."""
    if (stack.settings("admin_phi") or "all") == "all":
        doc = ok(admin.get(HD + "?limit=200&user_id=" + patient.id))
        assert {x["id"] for x in doc["items"]} >= set(patient.ids)
        ok(admin.get(one(patient, user_id=patient.id)))
        problem(admin.get(HD + "?user_id=" + uuid7()), 404,
                "resource.not_found")
    else:
        everywhere(admin, patient, 403, "access.break_glass_required")
        everywhere(admin, Nobody(), 403, "access.break_glass_required")


def test_admin_break_glass_setting(stack, patient):
    """The setting is read at the request: hm_may, not only the gateway."""
    before = stack.settings("admin_phi")
    a = stack.new_user(role="admin")
    try:
        stack.psql("insert into hm_settings (name, value) values"
                   " ('admin_phi', 'break_glass') on conflict (name)"
                   " do update set value = excluded.value")
        r = a.get(HD + "?user_id=" + patient.id)
        assert r.status in (403, 404), r
        if r.status == 403:
            problem(r, 403, "access.break_glass_required")
    finally:
        stack.psql("update hm_settings set value = '%s'"
                   " where name = 'admin_phi'" % (before or "all"))


def test_demo_doctor_sees_the_demo_patient(stack):
    if not stack.own and not stack.one(
            "select 1 from hm_settings limit 1"):
        pytest.skip("no demo accounts here")
    pw = stack.demo_password()
    p, d, a = (stack.login(stack.client(), "%s@demo.local" % n, pw)
               for n in ("patient", "doctor", "admin"))
    assert (p.user["role"], d.user["role"], a.user["role"]) \
        == ("patient", "doctor", "admin")
    mine = ok(p.get(HD + "?limit=50"))["items"]
    assert len(mine) == 50, "the demo patient has 90 days of data"
    assert ok(d.get(HD + "?limit=50&user_id=" + p.id))["items"] == mine
