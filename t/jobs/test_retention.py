"""
Retention counts from receipt, never from the measurement.

A life's records of 1980 come in by every door (import, batch, one by one),
then the retention job runs as the product runs it: a due row in `jobs`, taken
by the worker pool.  All of them are still there.  Then the same job is shown
to remove what was received longer ago than is kept, and nothing beside it.
"""

import collections
import datetime
import json
import os
import subprocess

import pytest

from hmdata import iso
from hmhttp import ok, problem, uuid7, walk
from hmstack import ROOT, wait

HD = "/health-data"
CLI = os.path.join(ROOT, "build", "healthmate")
UTC = datetime.timezone.utc
OLD = datetime.datetime(1980, 3, 1, 6, 30, tzinfo=UTC)
N = 1200                        # more than one batch of the job


def retention(stack):
    """One run of retention.run, started as the schedule starts it."""
    job = uuid7()
    stack.psql("insert into jobs (id, kind, unique_key, max_attempts) values"
               " ('%s', 'retention.run', 'test:%s', 8)" % (job, job))
    done = wait(lambda: stack.rows(
        "select state, cause from jobs where id = '%s' and state in"
        " ('done', 'dead', 'cancelled')" % job), 60, 0.2, "the retention job")
    assert done == [{"state": "done", "cause": None}], done
    return job


def times(items):
    return collections.Counter(x["timestamp"] for x in items)


def received(stack, where, ago):
    """As if it had come in longer ago; only the cluster's owner can say so."""
    stack.psql("update health_data set created_at = now() - interval '%s'"
               " where %s" % (ago, where))


def count(stack, c):
    return int(stack.one("select count(*) from health_data"
                         " where user_id = '%s'" % c.id))


def observation(n, at):
    return {"resourceType": "Observation", "id": "r%d" % n, "status": "final",
            "code": {"coding": [{"system": "http://loinc.org",
                                 "code": "29463-7", "display": "Weight"}]},
            "effectiveDateTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "valueQuantity": {"value": 70 + n % 9, "unit": "kg", "code": "kg",
                              "system": "http://unitsofmeasure.org"}}


@pytest.fixture(scope="module")
def old(stack, tmp_path_factory):
    """A patient whose records are all of 1980, by three doors."""
    c = stack.new_user()
    c.want = collections.Counter()

    for n in range(20):
        at = OLD + datetime.timedelta(days=n)
        ok(c.post(HD, {"data_type": "heart_rate", "value": 60 + n,
                       "timestamp": iso(at)}), 201)
        c.want[iso(at)] += 1

    docs = []
    for n in range(N):
        at = OLD + datetime.timedelta(hours=n, minutes=1)
        docs.append({"data_type": "steps", "value": n, "timestamp": iso(at)})
        c.want[iso(at)] += 1
    r = ok(c.post(HD + "/batch", docs), 200, 201, 207)
    assert (r["created"], r["failed"]) == (N, 0), r

    bundle = []
    for n in range(300):
        at = OLD + datetime.timedelta(hours=12 * n, minutes=2)
        bundle.append({"resource": observation(n, at)})
        c.want[iso(at)] += 1
    f = tmp_path_factory.mktemp("fhir") / "b.json"
    f.write_text(json.dumps({"resourceType": "Bundle", "type": "collection",
                             "entry": bundle}))
    r = subprocess.run(
        [CLI, "import", "fhir", str(f), "--user", c.email, "--json"],
        env=dict(os.environ, HEALTHMATE_HOME=stack.home,
                 HEALTHMATE_URL="http://127.0.0.1:%d" % stack.http,
                 HEALTHMATE_PASSWORD=c.password),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    doc = json.loads(r.stdout)
    assert (doc["taken"], doc["failed"]) == (300, 0), doc

    c.total = sum(c.want.values())
    assert count(stack, c) == c.total
    return c


def test_what_was_measured_in_1980_stays(stack, old):
    before = walk(old, HD + "?order=asc", 100)
    assert times(before) == old.want
    retention(stack)
    retention(stack)
    assert count(stack, old) == old.total
    assert walk(old, HD + "?order=asc", 100) == before


def test_its_trend_stays_too(stack, old):
    path = "/analytics/trends?metric=heart_rate&bucket=day" \
        "&from=1980-01-01T00:00:00Z&to=1980-12-31T00:00:00Z"
    points = wait(lambda: len(ok(old.get(path))["points"] or []) == 20
                  and ok(old.get(path))["points"], 60, 0.3, "the trend")
    retention(stack)
    assert ok(old.get(path))["points"] == points


def test_received_just_within_the_time_stays(stack, user):
    user.record(timestamp="1980-01-01T00:00:00Z")
    received(stack, "user_id = '%s'" % user.id, "7 years -1 days")
    retention(stack)
    assert count(stack, user) == 1


def test_received_longer_ago_goes(stack, old, user):
    """The same job deletes, in batches, whatever the record's own time."""
    docs = [{"data_type": "steps", "value": n, "timestamp":
             iso(OLD + datetime.timedelta(hours=n))} for n in range(N)]
    docs.append({"data_type": "weight", "value": 80,
                 "timestamp": "2026-01-01T00:00:00Z"})
    assert ok(user.post(HD + "/batch", docs),
              200, 201, 207)["created"] == N + 1
    keep = user.record(data_type="weight", value=81,
                       timestamp="1980-01-01T00:00:00Z").json()
    received(stack, "user_id = '%s' and id <> '%s'" % (user.id, keep["id"]),
             "7 years 1 day")

    told = "select coalesce(sum(items), 0) from audit_logs where actor =" \
        " '00000000-0000-7000-8000-000000000002'"
    before = int(stack.one(told))
    gone = [x["id"] for x in walk(user, HD, 100) if x["id"] != keep["id"]]
    retention(stack)

    assert [x["id"] for x in walk(user, HD, 100)] == [keep["id"]]
    problem(user.get(HD + "/" + gone[0]), 404, "resource.not_found")
    # The audit says how many; other things past their time may count too.
    assert int(stack.one(told)) - before >= N + 1
    assert count(stack, old) == old.total


def test_nobody_can_say_when_it_was_received(user):
    """created_at is the server's: no client makes a record old, or keeps
    one for ever."""
    for at in ("1980-01-01T00:00:00Z", "2099-01-01T00:00:00Z"):
        problem(user.post(HD, {"data_type": "weight", "value": 80,
                               "timestamp": "2026-01-01T00:00:00Z",
                               "created_at": at}),
                422, "validation.failed", {"/created_at": "read_only"})
