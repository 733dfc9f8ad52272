"""`healthmate import fhir`: what is sent, what is told, what is waited for."""

import glob
import json
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
REAL = sorted(glob.glob(os.path.join(
    os.path.dirname(ROOT), "shared", "data", "fhir", "*.json")))
ME = ("--user", "me@example.org")


def observation(n, code="29463-7", value=80.0, unit="kg", **extra):
    doc = {"resourceType": "Observation", "id": "o%d" % n, "status": "final",
           "code": {"coding": [{"system": "http://loinc.org", "code": code,
                                "display": "D " + code}]},
           "effectiveDateTime": "2024-05-06T07:%02d:%02dZ"
                                % (n // 60 % 60, n % 60),
           "valueQuantity": {"value": value, "unit": unit, "code": unit,
                             "system": "http://unitsofmeasure.org"}}
    doc.update(extra)
    return {k: v for k, v in doc.items() if v is not None}


def bundle(path, resources):
    path.write_text(json.dumps({
        "resourceType": "Bundle", "type": "collection",
        "entry": [{"resource": r} for r in resources]}))
    return str(path)


def told(r):
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


def test_second_run_adds_nothing(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [
        observation(1), observation(2, "8867-4", 71.6, "/min"),
        observation(3, "72166-2"), observation(4, status="entered-in-error"),
        observation(5, value=9000), {"resourceType": "Patient", "id": "p"}])

    one = told(run("import", "fhir", f, *ME, "--json", sink=sink))
    assert (one["taken"], one["duplicate"], one["skipped"], one["failed"],
            one["rounded"]) == (2, 0, 3, 1, 1)
    assert one["faults"][0]["entry"] == 4
    assert one["faults"][0]["code"] == "range"
    assert {c["code"] for c in one["codes"]} == {"72166-2", "29463-7", None}
    assert all(c["why"] and c["count"] == 1 for c in one["codes"])

    docs = list(sink.stored.values())
    assert docs[0] == {"data_type": "weight", "value": 80, "source": "fhir",
                       "timestamp": "2024-05-06T07:00:01.000Z",
                       "source_id": "o1"}
    assert docs[1]["value"] == 72

    two = told(run("import", "fhir", f, *ME, "--json", sink=sink))
    assert (two["taken"], two["duplicate"]) == (0, 2)
    assert len(sink.stored) == 2

    text = run("import", "fhir", f, *ME, sink=sink)
    assert text.stdout.startswith("0 taken, 2 duplicate, 3 skipped, 1 failed")
    assert "72166-2    D 72166-2: " in text.stdout


def test_server_faults_name_the_entry(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [
        {"resourceType": "Patient"}, observation(1), observation(2)])
    sink.refuse = {"o2": ("future", "more than 5 minutes ahead")}
    doc = told(run("import", "fhir", f, *ME, "--json", sink=sink))
    assert (doc["taken"], doc["failed"]) == (1, 1)
    assert doc["faults"] == [{"entry": 2, "code": "future",
                              "detail": "more than 5 minutes ahead"}]


def test_parts(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [observation(n) for n in range(4500)])
    doc = told(run("import", "fhir", f, *ME, "--json", sink=sink))
    assert doc["taken"] == 4500
    assert [len(b.splitlines()) for b in sink.bodies] == [2000, 2000, 500]


def test_ndjson_and_a_single_resource(run, sink, tmp_path):
    f = tmp_path / "b.ndjson"
    f.write_text("".join(json.dumps(observation(n)) + "\n"
                         for n in range(3)))
    assert told(run("import", "fhir", str(f), *ME, "--json",
                    sink=sink))["taken"] == 3


def test_waits_and_logs_in_again(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [observation(1)])
    sink.first = [(429, "rate.limited", {"Retry-After": "1"}),
                  (503, "server.overloaded", {"Retry-After": "1"}),
                  (401, "auth.token_expired", {})]
    doc = told(run("import", "fhir", f, *ME, "--json", sink=sink))
    assert doc["taken"] == 1
    assert sink.tokens == 2
    assert [s for _, s in sink.requests] == [200, 429, 503, 401, 200, 200]


def test_second_factor(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [observation(1)])
    sink.otp = "123456"
    r = run("import", "fhir", f, *ME, sink=sink)
    assert r.returncode == 1 and "auth.mfa_required" in r.stderr
    r = run("import", "fhir", f, *ME, sink=sink, HEALTHMATE_OTP="123456")
    assert r.returncode == 0


def test_dry_run_sends_nothing(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [observation(1)])
    doc = told(run("import", "fhir", f, *ME, "--json", "--dry-run",
                   sink=sink))
    assert doc["taken"] == 1 and doc["dry_run"] is True
    assert sink.requests == []


@pytest.mark.parametrize("args", [
    (), ("import",), ("import", "xml"), ("import", "fhir"),
    ("import", "fhir", "x"), ("import", "fhir", "x", "y", *ME),
    ("import", "fhir", "x", "--user"), ("import", "fhir", "x", "--wat"),
    ("audit", "verify"), ("jobs", "--wat"), ("user", "create")])
def test_wrong_usage(run, args):
    r = run(*args)
    assert r.returncode == 2 and r.stdout == "" and r.stderr


def test_failures_are_one_line(run, sink, tmp_path):
    good = bundle(tmp_path / "b.json", [observation(1)])
    cut = tmp_path / "cut.json"
    cut.write_text(open(good).read()[:-3])
    empty = tmp_path / "empty.json"
    empty.write_text("")

    for args, env in (
            ((str(tmp_path / "absent"), *ME), {}),
            ((str(tmp_path), *ME), {}),
            ((str(cut), *ME), {}),
            ((str(empty), *ME), {}),
            ((good, *ME), {"HEALTHMATE_PASSWORD": "wrong"}),
            ((good, *ME), {"HEALTHMATE_PASSWORD": ""}),
            ((good, *ME), {"HEALTHMATE_URL": "http://127.0.0.1:9"})):
        r = run("import", "fhir", *args, sink=sink, **env)
        assert r.returncode == 1, (args, r)
        assert r.stderr.count("\n") == 1 and r.stdout == "", r
    assert sink.stored == {}


def test_refused_part_tells_what_was_taken(run, sink, tmp_path):
    f = bundle(tmp_path / "b.json", [observation(n) for n in range(2001)])
    honest = sink.batch

    def batch(request, body):
        if sink.bodies:
            return sink.problem(413, "request.too_large")
        return honest(request, body)

    sink.batch = batch
    r = run("import", "fhir", f, *ME, "--json", sink=sink)
    assert r.returncode == 1 and "413 request.too_large" in r.stderr
    assert json.loads(r.stdout)["taken"] == 2000


@pytest.mark.skipif(not REAL, reason="no sample bundles on this machine")
def test_real_bundles(run, sink):
    for path in REAL:
        with open(path) as f:
            entries = json.load(f)["entry"]
        doc = told(run("import", "fhir", path, *ME, "--json", sink=sink))
        assert doc["failed"] == 0 and doc["taken"] > 0
        assert doc["taken"] + doc["skipped"] == len(entries)
        assert sum(c["count"] for c in doc["codes"]) == doc["skipped"]
    again = told(run("import", "fhir", REAL[0], *ME, "--json", sink=sink))
    assert again["taken"] == 0
