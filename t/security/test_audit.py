"""
Each access leaves its audit row before its answer: read back as the
cluster's owner.  Numbers are the layout's: action, resource, role, purpose.
"""

import os

import pytest

from hmdata import series
from hmhttp import ok, problem, uuid7
from hmstack import PASSWORD

HD = "/health-data"
READ, LIST, CREATE, UPDATE, DELETE, LOGIN, REGISTER = 1, 2, 3, 4, 5, 6, 7
DATA, USER, SESSION, ANALYTICS = 1, 2, 3, 4
PATIENT, DOCTOR, ADMIN, RESEARCHER = 1, 2, 3, 4
CARE, SELF, ADMINISTRATION = 0, 1, 2


class Trail:
    """The rows an actor adds."""

    def __init__(self, stack, actor):
        self.stack, self.actor = stack, actor
        self.seen = {(r["shard"], r["seq"]) for r in self.rows()}

    def rows(self):
        return self.stack.rows(
            "select shard, seq, at, action, resource, outcome, actor_role,"
            " purpose, actor, session, user_id, first_id, last_id, items,"
            " encode(origin, 'hex') as origin from audit_logs"
            " where actor = '%s' and action < 10 order by at, shard, seq"
            % self.actor)

    def new(self):
        rows = [r for r in self.rows()
                if (r["shard"], r["seq"]) not in self.seen]
        self.seen |= {(r["shard"], r["seq"]) for r in rows}
        return rows

    def one(self, **want):
        rows = self.new()
        assert len(rows) == 1, "wanted one row %s, got %s" % (want, rows)
        for k, v in want.items():
            assert rows[0][k] == v, "%s: %r, wanted %r in %s" % (
                k, rows[0][k], v, rows[0])
        return rows[0]


@pytest.fixture
def trail(stack, user):
    return Trail(stack, user.id)


def test_create_read_update_delete(user, trail):
    me = dict(actor=user.id, user_id=user.id, actor_role=PATIENT,
              resource=DATA, purpose=SELF)
    i = user.record(value=70).json()["id"]
    row = trail.one(action=CREATE, outcome=201, first_id=i, **me)
    assert row["items"] in (1, None) and row["session"]
    p = HD + "/" + i
    ok(user.get(p))
    trail.one(action=READ, outcome=200, first_id=i, **me)
    ok(user.patch(p, {"value": 71}))
    trail.one(action=UPDATE, outcome=200, first_id=i, **me)
    ok(user.put(p, {"data_type": "heart_rate", "value": 72}))
    trail.one(action=UPDATE, outcome=200, first_id=i, **me)
    assert user.delete(p).status == 204
    trail.one(action=DELETE, outcome=204, first_id=i, **me)


def test_session_and_time(stack, user, trail):
    import json
    from hmstack import b64d
    sid = json.loads(b64d(user.token.split(".")[1]))["sid"]
    ok(user.get(HD))
    assert trail.one()["session"] == sid
    assert stack.one("select bool_and(at between now() - interval '1 minute'"
                     " and now() + interval '1 second') from audit_logs"
                     " where actor = '%s'" % user.id) == "t"


def test_lists_tell_count_first_and_last(user, trail):
    series(user, 30)
    trail.new()
    doc = ok(user.get(HD + "?limit=7"))
    trail.one(action=LIST, outcome=200, items=7, resource=DATA,
              first_id=doc["items"][0]["id"],
              last_id=doc["items"][-1]["id"], user_id=user.id)
    ok(user.get(HD + "?data_type=weight"))
    row = trail.one(action=LIST, outcome=200, items=0)
    assert row["first_id"] is None and row["last_id"] is None
    ok(user.get(HD + "/latest"))
    trail.one(action=LIST, outcome=200, items=1)


def test_head_and_304_are_reads(user, trail):
    rec = user.record()
    i = rec.json()["id"]
    trail.new()
    assert user.head(HD + "/" + i).status == 200
    trail.one(action=READ, outcome=200, first_id=i, user_id=user.id)
    assert user.get(HD + "/" + i, headers={
        "If-None-Match": rec.etag}).status == 304
    trail.one(action=READ, outcome=304, first_id=i, user_id=user.id)
    assert user.head(HD).status == 200
    trail.one(action=LIST, outcome=200)


def test_404_and_412_and_409_are_recorded(user, trail, stranger):
    problem(user.get(HD + "/" + stranger.rec["id"]), 404)
    row = trail.one(action=READ, outcome=404, resource=DATA)
    problem(user.get(HD + "/" + uuid7()), 404)
    trail.one(action=READ, outcome=404)
    problem(user.delete(HD + "/" + uuid7()), 404)
    trail.one(action=DELETE, outcome=404)
    problem(user.patch(HD + "/" + uuid7(), {"value": 1}), 404)
    trail.one(action=UPDATE, outcome=404)
    rec = user.record(data_type="weight", value=80,
                      timestamp="2026-01-01T00:00:00Z").json()
    two = user.record(data_type="weight", value=81,
                      timestamp="2026-01-01T00:00:00Z").json()
    trail.new()
    problem(user.patch(HD + "/" + rec["id"], {"value": 90},
                       headers={"If-Match": '"x"'}), 412)
    rows = trail.new()
    assert len(rows) <= 1 and all(r["outcome"] == 412 for r in rows), rows
    problem(user.patch(HD + "/" + two["id"], {"value": 80}), 409)
    rows = trail.new()
    assert len(rows) <= 1 and all(r["outcome"] == 409 for r in rows), rows


def test_403_is_recorded(user, trail, stranger):
    problem(user.get(HD + "?user_id=" + stranger.id), 403)
    trail.one(action=LIST, outcome=403, actor=user.id)
    problem(user.get(HD + "/%s?user_id=%s" % (stranger.rec["id"],
                                              stranger.id)), 403)
    trail.one(action=READ, outcome=403)
    problem(user.post(HD + "?user_id=" + stranger.id,
                      {"data_type": "heart_rate", "value": 70}), 403)
    trail.one(action=CREATE, outcome=403)


def test_a_refusal_does_not_say_the_stranger_was_read(stack, user, stranger):
    """The 404 of a foreign id shows in no one's history as an access."""
    def n():
        return stack.one("select count(*) from audit_logs where user_id ="
                         " '%s' and outcome < 400 and actor = '%s'"
                         % (stranger.id, user.id))
    before = n()
    problem(user.get(HD + "/" + stranger.rec["id"]), 404)
    problem(user.get(HD + "?user_id=" + stranger.id), 403)
    assert n() == before


def test_401_is_only_counted(stack, user, anon, trail):
    n = stack.one("select count(*) from audit_logs")
    problem(anon.get(HD), 401)
    problem(user.get(HD, token=user.token[:-2] + "AA"), 401)
    problem(anon.post("/auth/login", {
        "email": "no-%s@example.org" % os.urandom(4).hex(),
        "password": PASSWORD, "fingerprint": False}), 401)
    rows = int(stack.one("select count(*) from audit_logs"
                         " where action < 10")) \
        - int(stack.one("select count(*) from audit_logs where action < 10"
                        " and at < now() - interval '5 seconds'"))
    assert trail.new() == [], n
    assert rows >= 0


def test_open_routes_leave_no_row(stack, user, trail):
    ok(user.get(HD + "/types"))
    user.raw("GET", "/health")
    rows = trail.new()
    assert not [r for r in rows if r["resource"] == DATA and r["items"]], rows


def test_batch_rows(user, trail):
    docs = [{"data_type": "heart_rate", "value": 40 + i,
             "timestamp": "2026-01-01T00:00:%02dZ" % i} for i in range(30)]
    doc = ok(user.post(HD + "/batch", docs + docs[:3]))
    rows = trail.new()
    assert rows and {r["action"] for r in rows} <= {CREATE, 12}, rows
    assert sum(r["items"] for r in rows) in (30, 33), rows
    ids = {x["id"] for x in doc["results"]}
    assert {r["first_id"] for r in rows} | {r["last_id"] for r in rows} \
        <= ids


def test_ndjson_rows(user, trail):
    body = b"".join(b'{"data_type":"steps","value":%d,"source_id":"%d"}\n'
                    % (i, i) for i in range(1200))
    r = user.post(HD + "/batch", body=body, ctype="application/x-ndjson")
    assert r.status == 200
    rows = trail.new()
    assert sum(r["items"] for r in rows) == 1200, rows
    assert 3 <= len(rows), "parts of at most 500 lines: %s" % len(rows)
    assert max(r["items"] for r in rows) <= 500


def test_dedup_and_replay_are_recorded(user, trail):
    doc = {"data_type": "weight", "value": 80,
           "timestamp": "2026-01-01T00:00:00Z"}
    k = {"Idempotency-Key": "audit"}
    i = ok(user.post(HD, doc, headers=k), 201)["id"]
    trail.one(action=CREATE, outcome=201, first_id=i)
    assert user.post(HD, doc).status == 200
    trail.one(outcome=200, first_id=i)
    assert user.post(HD, doc, headers=k).status == 201
    rows = trail.new()
    assert len(rows) == 1 and rows[0]["user_id"] == user.id, rows


def test_register_login_me(stack, user, trail):
    first = [r for r in trail.rows() if r["action"] == REGISTER]
    assert len(first) == 1 and first[0]["outcome"] == 201, first
    assert first[0]["user_id"] == user.id
    ok(user.post("/auth/login", {"email": user.email, "password": PASSWORD,
                                 "fingerprint": False}, token=None))
    trail.one(action=LOGIN, outcome=200, user_id=user.id)
    ok(user.get("/auth/me"))
    trail.one(action=READ, resource=USER, outcome=200, user_id=user.id)


def test_doctor_and_admin(stack, user, admin):
    d = stack.new_user(role="doctor")
    rec = user.record().json()
    t = Trail(stack, d.id)
    problem(d.get(HD + "?user_id=" + user.id), 404)
    t.one(action=LIST, outcome=404, actor_role=DOCTOR, user_id=user.id)
    stack.assign(user, d)
    ok(d.get(HD + "/%s?user_id=%s" % (rec["id"], user.id)))
    t.one(action=READ, outcome=200, actor_role=DOCTOR, purpose=CARE,
          user_id=user.id, first_id=rec["id"], actor=d.id)
    ok(d.post(HD + "?user_id=" + user.id,
              {"data_type": "weight", "value": 70}), 201)
    t.one(action=CREATE, outcome=201, actor_role=DOCTOR, purpose=CARE,
          user_id=user.id)
    if (stack.settings("admin_phi") or "all") == "all":
        t = Trail(stack, admin.id)
        ok(admin.get(HD + "?user_id=" + user.id))
        t.one(action=LIST, outcome=200, actor_role=ADMIN,
              purpose=ADMINISTRATION, user_id=user.id)


def test_trends_are_reads(user, trail):
    ok(user.get("/analytics/trends?metric=heart_rate"))
    trail.one(resource=ANALYTICS, outcome=200, user_id=user.id)


def test_origin_is_sealed(stack, user, trail):
    ok(user.get(HD, headers={"X-Request-ID": "find-me-if-you-can"}))
    row = trail.one()
    assert row["origin"] and row["origin"].startswith("01")
    assert b"find-me".hex() not in row["origin"]
    assert b"127.0.0.1".hex() not in row["origin"]


def test_nobody_changes_the_audit(stack):
    for role in ("hm_api", "hm_worker", "hm_cli"):
        for p in ("UPDATE", "DELETE", "TRUNCATE"):
            assert stack.one("select bool_or(has_table_privilege('%s', oid,"
                             " '%s')) from pg_class where relname like"
                             " 'audit_logs%%' and relkind in ('r', 'p')"
                             % (role, p)) == "f", (role, p)


def test_sequences_have_no_gap(stack):
    bad = stack.rows(
        "select shard, count(*) as n, min(seq) as low, max(seq) as high"
        " from audit_logs group by shard"
        " having count(*) <> max(seq) - min(seq) + 1")
    assert not bad, bad


def test_audit_fails_closed(stack, user):
    """
    Where the row cannot be written, no answer leaves: the insert right is
    taken away for a moment.
    """
    rec = user.record(value=77, notes="AUDITCLOSED").json()
    import hmhttp
    import time
    leaves = stack.psql("select oid::regclass from pg_class where relname"
                        " like 'audit_logs%' and relkind in ('r','p')")
    names = ", ".join(leaves.split())
    stack.psql("revoke insert on %s from hm_api" % names)
    try:
        for _ in range(3):
            r = user.get(HD + "/" + rec["id"], check=False)
            assert r.status in (500, 503, 504), r
            assert b"AUDITCLOSED" not in r.body
            r = user.post(HD, {"data_type": "weight", "value": 81},
                          check=False)
            assert r.status in (500, 503, 504), r
    finally:
        stack.psql("grant insert on %s to hm_api" % names)
    hmhttp.SEEN_500.clear()
    from hmstack import wait
    wait(lambda: user.get(HD + "/" + rec["id"], check=False).status == 200,
         10, 0.2, "reads to be back")
    assert not [x for x in ok(user.get(HD))["items"]
                if x["data_type"] == "weight"]
    time.sleep(0.1)
