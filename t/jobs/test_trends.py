"""The first job end to end: an insert leaves a job, trends show its work."""

import collections
import datetime
import math
import statistics

import pytest

from hmdata import ago, iso, series
from hmhttp import ok, problem, uuid7
from hmstack import wait

TR = "/analytics/trends"
HD = "/health-data"
ANALYTICS = 4                   # the audit's number of that resource
KEYS = {"metric", "unit", "from", "to", "bucket", "time_zone", "status",
        "points", "trend"}
POINT = {"start", "count", "mean", "min", "max", "sum", "sd"}


def trend(c, metric, bucket="day", **kw):
    kw.setdefault("from_", "2026-02-01T00:00:00Z")
    kw.setdefault("to", "2026-03-01T00:00:00Z")
    path = "%s?metric=%s&bucket=%s&" % (TR, metric, bucket) + "&".join(
        "%s=%s" % (k.rstrip("_"), v) for k, v in kw.items())
    return ok(c.get(path))


def settled(stack, c):
    """All roll-up jobs of this person are done."""
    wait(lambda: stack.one(
        "select count(*) from jobs where user_id = '%s' and state in"
        " ('ready', 'running', 'retry')" % c.id) == "0", 30, 0.2,
        "the roll-ups of a person")


def same(a, b):
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def expect(point, values):
    assert point["count"] == len(values)
    assert same(point["mean"], statistics.fmean(values)), point
    assert same(point["sum"], sum(values)), point
    assert (point["min"], point["max"]) == (min(values), max(values)), point
    if len(values) > 1:
        assert math.isclose(point["sd"], statistics.stdev(values),
                            rel_tol=1e-6) or \
            math.isclose(point["sd"], statistics.pstdev(values),
                         rel_tol=1e-6), point
    else:
        assert point["sd"] in (0, None), point


@pytest.fixture(scope="module")
def person(stack):
    c = stack.new_user()
    c.values = {}
    docs = []
    for d in range(1, 21):
        for h in range(0, 24, 3):
            t = datetime.datetime(2026, 2, d, h, 20,
                                  tzinfo=datetime.timezone.utc)
            v = 60 + d + h / 3
            c.values[t] = v
            docs.append({"data_type": "heart_rate", "value": v,
                         "timestamp": iso(t)})
            docs.append({"data_type": "blood_pressure", "timestamp": iso(t),
                         "value": {"systolic": 110 + d, "diastolic": 70}})
    for doc in docs:
        ok(c.post(HD, doc), 201)
    settled(stack, c)
    return c


def group(c, key):
    out = collections.defaultdict(list)
    for t, v in c.values.items():
        out[key(t)].append(v)
    return dict(out)


def test_shape(person):
    doc = trend(person, "heart_rate")
    assert set(doc) == KEYS, set(doc) ^ KEYS
    assert doc["metric"] == "heart_rate" and doc["unit"] == "/min"
    assert doc["bucket"] == "day" and doc["status"] == "ok"
    assert doc["time_zone"] == "UTC"
    assert doc["from"] == "2026-02-01T00:00:00.000Z"
    assert doc["to"] == "2026-03-01T00:00:00.000Z"
    assert all(set(p) == POINT for p in doc["points"]), doc["points"][0]
    t = doc["trend"]
    assert set(t) == {"direction", "per_day", "confidence"}
    assert t["direction"] == "up" and same(round(t["per_day"], 1), 1.0), t
    assert 0 <= t["confidence"] <= 1


@pytest.mark.parametrize("bucket,key", [
    ("hour", lambda t: t.replace(minute=0)),
    ("day", lambda t: t.replace(hour=0, minute=0)),
    ("week", lambda t: (t - datetime.timedelta(days=t.weekday()))
     .replace(hour=0, minute=0)),
    ("month", lambda t: t.replace(day=1, hour=0, minute=0)),
])
def test_buckets(person, bucket, key):
    kw = {"from_": "2026-01-01T00:00:00Z"}
    doc = trend(person, "heart_rate", bucket, **kw)
    want = group(person, key)
    assert [p["start"] for p in doc["points"]] == \
        [iso(t) for t in sorted(want)]
    for p, t in zip(doc["points"], sorted(want)):
        expect(p, want[t])


def test_empty_buckets_are_left_out(person):
    doc = trend(person, "heart_rate", "hour")
    assert len(doc["points"]) == 160 and all(p["count"] for p in
                                             doc["points"])


def test_compound(person):
    doc = trend(person, "blood_pressure")
    assert doc["unit"] == "mm[Hg]" and len(doc["points"]) == 20
    p = doc["points"][4]
    assert {"start", "count", "systolic", "diastolic"} == set(p), p
    for k in ("systolic", "diastolic"):
        assert {"mean", "min", "max", "sd"} <= set(p[k]) \
            <= {"mean", "min", "max", "sd", "sum"}, p
    assert p["count"] == 8 and p["systolic"]["mean"] == 115
    assert p["diastolic"] == dict(p["diastolic"], mean=70, min=70, max=70)
    assert set(doc["trend"]) == {"systolic", "diastolic"}
    assert doc["trend"]["systolic"]["direction"] == "up"
    assert doc["trend"]["diastolic"]["direction"] == "flat"


def test_from_and_to(person):
    doc = trend(person, "heart_rate", from_="2026-02-05T00:00:00Z",
                to="2026-02-08T00:00:00Z")
    assert [p["start"][:10] for p in doc["points"]] == \
        ["2026-02-05", "2026-02-06", "2026-02-07"]


@pytest.mark.parametrize("period,days", [("7d", 7), ("30d", 30),
                                         ("90d", 90), ("1y", 365)])
def test_periods(person, period, days):
    doc = ok(person.get(TR + "?metric=heart_rate&period=" + period))
    a = datetime.datetime.fromisoformat(doc["from"].replace("Z", "+00:00"))
    b = datetime.datetime.fromisoformat(doc["to"].replace("Z", "+00:00"))
    assert days - 1 <= (b - a).days <= days + 2, doc
    assert doc["bucket"] == "day"


def test_insufficient_data(person, stack):
    for c, m in ((person, "weight"), (stack.new_user(), "heart_rate")):
        doc = trend(c, m)
        assert set(doc) == KEYS and doc["status"] == "insufficient_data"
        assert doc["points"] in (None, [])
        t = doc["trend"]
        assert t is None or set(t.values()) == {None}, t


@pytest.mark.parametrize("query,param", [
    ("metric=nothing", "metric"), ("", "metric"), ("metric=", "metric"),
    ("metric=heart_rate,weight", "metric"),
    ("metric=heart_rate&bucket=year", "bucket"),
    ("metric=heart_rate&bucket=", "bucket"),
    ("metric=heart_rate&period=8d", "period"),
    ("metric=heart_rate&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
     None),
    ("metric=heart_rate&from=2026-01-02", "from"),
    ("metric=heart_rate&zz=1", "zz"),
    ("metric=heart_rate&metric=weight", "metric"),
    ("metric=custom:", "metric"), ("metric=HEART_RATE", "metric"),
])
def test_faults(person, query, param):
    p = problem(person.get(TR + "?" + query), 400,
                "request.invalid_parameter")
    if param:
        assert param in [e["parameter"] for e in p["errors"]], p


def test_period_and_from_together(person):
    r = person.get(TR + "?metric=heart_rate&period=7d"
                   "&from=2026-01-01T00:00:00Z")
    assert r.status in (200, 400), r


def test_token_and_another_person(person, anon, stranger):
    problem(anon.get(TR + "?metric=heart_rate"), 401, "auth.token_missing")
    problem(stranger.get(TR + "?metric=heart_rate&user_id=" + person.id),
            403, "access.denied")


def test_custom_metric(stack):
    c = stack.new_user()
    for v in (1.5, 2.5, 4.0):
        c.record(data_type="custom:drops", value=v, unit="mL",
                 timestamp="2026-02-03T0%d:00:00Z" % int(v))
    c.record(data_type="custom:other", value=100, unit="mL",
             timestamp="2026-02-03T01:00:00Z")
    settled(stack, c)
    doc = trend(c, "custom:drops")
    assert len(doc["points"]) == 1
    expect(doc["points"][0], [1.5, 2.5, 4.0])


def test_changes_and_deletes_show(stack):
    c = stack.new_user()
    recs = [c.record(data_type="weight", value=80 + i,
                     timestamp="2026-02-0%dT10:00:00Z" % (i + 1)).json()
            for i in range(5)]
    settled(stack, c)
    assert [p["mean"] for p in trend(c, "weight")["points"]] == \
        [80, 81, 82, 83, 84]
    c.patch(HD + "/" + recs[0]["id"], {"value": 90})
    c.delete(HD + "/" + recs[1]["id"])
    c.record(data_type="weight", value=70, timestamp="2026-02-03T11:00:00Z")
    wait(lambda: [p["mean"] for p in trend(c, "weight")["points"]]
         == [90, 76, 83, 84], 20, 0.3, "the roll-up to follow")
    week = trend(c, "weight", "month")["points"]
    assert len(week) == 1
    expect(week[0], [90, 82, 70, 83, 84])


def test_it_is_quick(stack):
    """A point shows within a few seconds of the post (run_at is + 1 s)."""
    c = stack.new_user()
    for i in range(3):
        c.record(data_type="weight", value=80 + i,
                 timestamp="2026-02-0%dT00:00:00Z" % (i + 1))
    wait(lambda: len(trend(c, "weight")["points"] or ()) == 3, 6, 0.1,
         "three points")


def test_jobs_coalesce(stack):
    """Many posts into one hour leave few jobs."""
    c = stack.new_user()
    for i in range(60):
        c.record(data_type="steps", value=i,
                 timestamp="2026-02-01T10:00:%02dZ" % i)
    n = int(stack.one("select count(*) from jobs where user_id = '%s'"
                      % c.id))
    assert 1 <= n <= 20, n
    settled(stack, c)
    assert trend(c, "steps")["points"][0]["count"] == 60


def test_job_rows_say_who(stack, user):
    user.record(data_type="weight", value=80,
                timestamp="2026-02-01T10:00:00Z")
    j = stack.rows("select kind, user_id, requester, permission, unique_key,"
                   " payload from jobs where user_id = '%s'"
                   " and kind like 'analytics.%%'" % user.id)
    assert len(j) == 1
    assert j[0]["kind"] == "analytics.rollup"
    assert j[0]["requester"] == user.id == j[0]["user_id"]
    assert j[0]["permission"] == "health.read"
    assert j[0]["unique_key"].startswith("rollup:%s:weight:" % user.id)
    assert j[0]["payload"] is None


def test_aggregates_are_sealed(stack, person):
    rows = stack.rows("select metric, encode(aggregates, 'hex') as a from"
                      " health_metrics_aggregation where user_id = '%s'"
                      % person.id)
    assert len(rows) >= 20
    for r in rows:
        assert r["a"].startswith("01"), r
        assert b"count".hex() not in r["a"] and b"mean".hex() not in r["a"]


def test_doctors_job_for_a_patient(stack):
    """The requester is the doctor; his right is read again at the claim."""
    p, d = stack.new_user(), stack.new_user(role="doctor")
    stack.assign(p, d)
    ok(d.post(HD + "?user_id=" + p.id,
              {"data_type": "weight", "value": 80,
               "timestamp": "2026-02-01T10:00:00Z"}), 201)
    settled(stack, p)
    j = stack.rows("select requester, state from jobs where user_id = '%s'"
                   " and kind = 'analytics.rollup'" % p.id)
    assert [(x["requester"], x["state"]) for x in j] == [(d.id, "done")], j
    assert len(trend(p, "weight")["points"]) == 1


def test_job_is_audited(stack, user):
    user.record(data_type="weight", value=80,
                timestamp="2026-02-01T10:00:00Z")
    settled(stack, user)
    rows = stack.rows("select actor, user_id, purpose from audit_logs where"
                      " user_id = '%s' and action = 10 and resource ="
                      " %d" % (user.id, ANALYTICS))
    assert rows and {(r["actor"], r["purpose"]) for r in rows} \
        == {(user.id, 4)}, rows
