"""api.md, "Health data": one record, its rules, its life."""

import datetime
import json
import math
import os
import threading

import pytest

from hmdata import CONVERSIONS, METRICS, RECORD_KEYS, ago, ahead, iso, q
from hmhttp import BASE, TIME_RE, UUID_RE, ok, problem, uuid7

HD = "/health-data"


def shape(rec):
    assert set(rec) == RECORD_KEYS, set(rec) ^ RECORD_KEYS
    assert UUID_RE.match(rec["id"]) and UUID_RE.match(rec["user_id"])
    for k in ("timestamp", "created_at", "updated_at"):
        assert TIME_RE.match(rec[k]), (k, rec[k])


# --- create and read ---

def test_post_least(user):
    before = ago(seconds=1)
    r = user.post(HD, {"data_type": "heart_rate", "value": 71})
    rec = ok(r, 201)
    shape(rec)
    assert r.header("location") == BASE + HD + "/" + rec["id"]
    assert r.etag
    assert rec["user_id"] == user.id
    assert rec["data_type"] == "heart_rate" and rec["value"] == 71
    assert rec["unit"] == "/min" and rec["original"] is None
    assert rec["notes"] is None and rec["confidence"] is None
    assert rec["source"] == "manual"
    assert iso(before) <= rec["timestamp"] <= iso(ahead(seconds=1))
    assert rec["created_at"] == rec["updated_at"]
    got = user.raw("GET", r.header("location"))
    assert ok(got) == rec and got.etag == r.etag


def test_post_whole(user):
    doc = {"data_type": "weight", "value": 80.25, "unit": "kg",
           "timestamp": "2026-03-01T09:00:00+01:00", "notes": "after\nrun",
           "source": "apple_health", "source_id": "abc-1",
           "confidence": 0.75}
    rec = ok(user.post(HD, doc), 201)
    shape(rec)
    assert rec["timestamp"] == "2026-03-01T08:00:00.000Z"
    assert rec["value"] == 80.25 and rec["unit"] == "kg"
    assert rec["notes"] == "after\nrun" and rec["confidence"] == 0.75
    assert rec["source"] == "apple_health" and rec["original"] is None
    assert ok(user.get(HD + "/" + rec["id"])) == rec
    assert ok(user.get(HD))["items"] == [rec]


def test_null_counts_as_left_out(user):
    rec = ok(user.post(HD, {
        "data_type": "heart_rate", "value": 72, "unit": None,
        "timestamp": None, "notes": None, "source": None, "source_id": None,
        "confidence": None}), 201)
    assert rec["unit"] == "/min" and rec["source"] == "manual"


def test_blood_pressure(user):
    rec = ok(user.post(HD, {"data_type": "blood_pressure",
                            "value": {"systolic": 121, "diastolic": 79}}),
             201)
    assert rec["value"] == {"systolic": 121, "diastolic": 79}
    assert rec["unit"] == "mm[Hg]" and rec["original"] is None
    rec = ok(user.post(HD, {"data_type": "blood_pressure", "unit": "mmHg",
                            "value": {"systolic": 122, "diastolic": 79}}),
             201)
    assert rec["original"] == {"value": {"systolic": 122, "diastolic": 79},
                               "unit": "mmHg"}
    rec = ok(user.post(HD, {"data_type": "blood_pressure", "unit": "kPa",
                            "value": {"systolic": 16, "diastolic": 10.5}}),
             201)
    assert math.isclose(rec["value"]["systolic"], 120.0098, rel_tol=1e-4)
    assert math.isclose(rec["value"]["diastolic"], 78.756, rel_tol=1e-4)
    assert rec["original"] == {"value": {"systolic": 16, "diastolic": 10.5},
                               "unit": "kPa"}
    assert ok(user.get(HD + "/" + rec["id"])) == rec


@pytest.mark.parametrize("value,faults", [
    ({"systolic": 120}, {"/value/diastolic": "required"}),
    ({}, {"/value/diastolic": "required", "/value/systolic": "required"}),
    ({"systolic": 120, "diastolic": None}, {"/value/diastolic": "required"}),
    ({"systolic": 301, "diastolic": 80}, {"/value/systolic": "range"}),
    ({"systolic": 39, "diastolic": 30}, {"/value/systolic": "range"}),
    ({"systolic": 120, "diastolic": 201}, {"/value/diastolic"}),
    ({"systolic": 120, "diastolic": 19}, {"/value/diastolic": "range"}),
    ({"systolic": 1000, "diastolic": 1}, {"/value/systolic": "range",
                                          "/value/diastolic": "range"}),
    ({"systolic": "120", "diastolic": 80}, {"/value/systolic": "type"}),
    ({"systolic": 120, "diastolic": 80, "pulse": 60},
     {"/value/pulse": "unknown"}),
    (120, {"/value": "type"}), ("120/80", {"/value": "type"}),
    ([120, 80], {"/value": "type"}),
])
def test_blood_pressure_faults(mate, value, faults):
    r = mate.post(HD, {"data_type": "blood_pressure", "value": value})
    problem(r, 422, "validation.failed", faults,
            exact=isinstance(faults, dict))


@pytest.mark.parametrize("value", [{"systolic": 80, "diastolic": 120},
                                   {"systolic": 90, "diastolic": 90}])
def test_systolic_is_above_diastolic(mate, value):
    p = problem(mate.post(HD, {"data_type": "blood_pressure",
                               "value": value}), 422, "validation.failed")
    assert [e["code"] for e in p["errors"]] == ["order"], p
    assert p["errors"][0]["pointer"].startswith("/value"), p


# --- the metric table ---

def test_types(mate):
    doc = ok(mate.get(HD + "/types"))
    assert set(doc) == {"items", "next"} and doc["next"] is None
    got = {t["data_type"]: t for t in doc["items"]}
    assert len(got) == len(doc["items"])
    assert set(METRICS) | {"blood_pressure"} == \
        {k for k in got if not k.startswith("custom")}, set(METRICS) ^ set(got)
    for t in doc["items"]:
        assert set(t) == {"data_type", "kind", "unit", "units", "ranges",
                          "loinc"}, t
        assert t["unit"] in t["units"] and isinstance(t["loinc"], list)
    for name, (unit, kind, low, high) in METRICS.items():
        t = got[name]
        assert t["unit"] == unit and t["kind"] == kind, t
        assert t["ranges"] == {"value": [low, high]}, t
    bp = got["blood_pressure"]
    assert bp["kind"] == "object" and bp["unit"] == "mm[Hg]"
    assert bp["ranges"] == {"systolic": [40, 300], "diastolic": [20, 200]}
    assert got["heart_rate"]["loinc"] == ["8867-4"]
    assert {"bpm", "/min"} <= set(got["heart_rate"]["units"])
    assert {"[lb_av]", "kg", "g"} <= set(got["weight"]["units"])


def test_types_are_sorted_like_latest(mate):
    names = [t["data_type"] for t in ok(mate.get(HD + "/types"))["items"]]
    assert names == sorted(names)


def test_bounds_of_every_type_as_types_says(user):
    """Both ends are taken, a step outside is not; by one batch."""
    items, want = [], []
    n = 0
    for t in ok(user.get(HD + "/types"))["items"]:
        if t["data_type"].startswith("custom") or t["kind"] == "object":
            continue
        low, high = t["ranges"]["value"]
        step = 1 if t["kind"] == "integer" else 0.01
        for v, good in ((low, 1), (high, 1), (low - step, 0),
                        (high + step, 0)):
            n += 1
            items.append({"data_type": t["data_type"], "value": v,
                          "timestamp": iso(ago(days=n))})
            want.append(201 if good else 422)
    doc = ok(user.post(HD + "/batch", items))
    for i, (item, status, res) in enumerate(
            zip(items, want, doc["results"])):
        assert res["status"] == status, (item, res)
        if status == 422:
            assert [(e["pointer"], e["code"]) for e in res["errors"]] \
                == [("/value", "range")], (item, res)


@pytest.mark.parametrize("data_type,value,unit,canonical", CONVERSIONS)
def test_conversion(mate, data_type, value, unit, canonical):
    r = mate.post(HD, {"data_type": data_type, "value": value, "unit": unit})
    rec = ok(r, 201, 200)
    assert math.isclose(rec["value"], canonical, rel_tol=1e-12), rec
    assert rec["original"] == {"value": value, "unit": unit}, rec
    base = METRICS[data_type][0]
    assert rec["unit"] == base


def test_hba1c_ifcc(mate):
    rec = ok(mate.post(HD, {"data_type": "hba1c", "value": 48,
                            "unit": "mmol/mol"}), 201)
    assert math.isclose(rec["value"], 48 * 0.0915 + 2.15, rel_tol=2e-3), rec
    assert rec["unit"] == "%"


def test_the_documents_example(mate):
    rec = ok(mate.post(HD, {"data_type": "weight", "value": 176.4,
                            "unit": "[lb_av]",
                            "timestamp": "2026-03-02T07:00:00Z"}), 201)
    assert b'"value":80.013694068,' in json.dumps(
        rec, separators=(",", ":")).encode()
    assert rec["timestamp"] == "2026-03-02T07:00:00.000Z"


@pytest.mark.parametrize("value", [
    "72.123456789", "80.1", "0.3", "1e2", "650", "99.99999999999999",
    "100.00000000000001", "3.0e1"])
def test_numbers_come_back_as_sent(mate, value):
    """Not converted: the same double, in shortest form."""
    r = mate.post(HD, body=('{"data_type":"weight","value":%s}'
                            % value).encode())
    rec = ok(r, 201)
    assert rec["value"] == float(value)
    text = r.text.split('"value":')[1].split(",")[0]
    assert float(text) == float(value)
    assert len(text) <= len(repr(float(value))), text


def test_70_point_0_is_an_integer(mate):
    for v in (b"74.0", b"7.4e1", b"740e-1"):
        rec = ok(mate.post(HD, body=b'{"data_type":"heart_rate","value":'
                           + v + b'}'), 201, 200)
        assert rec["value"] == 74


@pytest.mark.parametrize("doc,faults", [
    ({"data_type": "heart_rate", "value": 70.5}, {"/value": "integer"}),
    ({"data_type": "mood", "value": 2.5}, {"/value": "integer"}),
    ({"data_type": "heart_rate", "value": "70"}, {"/value": "type"}),
    ({"data_type": "heart_rate", "value": True}, {"/value": "type"}),
    ({"data_type": "heart_rate", "value": [70]}, {"/value": "type"}),
    ({"data_type": "heart_rate", "value": {"systolic": 1}},
     {"/value": "type"}),
    ({"data_type": "heart_rate", "value": None}, {"/value": "required"}),
    ({"data_type": "heart_rate"}, {"/value": "required"}),
    ({"value": 70}, {"/data_type": "required"}),
    ({}, {"/data_type": "required", "/value": "required"}),
    ({"data_type": None, "value": 70}, {"/data_type": "required"}),
    ({"data_type": "pulse", "value": 70}, {"/data_type": "enum"}),
    ({"data_type": "Heart_Rate", "value": 70}, {"/data_type": "enum"}),
    ({"data_type": "", "value": 70}, {"/data_type"}),
    ({"data_type": 5, "value": 70}, {"/data_type": "type"}),
    ({"data_type": "heart_rate", "value": 7000}, {"/value": "range"}),
    ({"data_type": "heart_rate", "value": -1}, {"/value": "range"}),
    ({"data_type": "weight", "value": 1e308}, {"/value": "range"}),
    ({"data_type": "weight", "value": 80, "unit": "lb_av"},
     {"/unit": "unit"}),
    ({"data_type": "weight", "value": 80, "unit": "KG"}, {"/unit": "unit"}),
    ({"data_type": "weight", "value": 80, "unit": "cm"}, {"/unit": "unit"}),
    ({"data_type": "weight", "value": 80, "unit": ""},
     {"/unit": {"unit", "length"}}),
    ({"data_type": "weight", "value": 80, "unit": 1}, {"/unit": "type"}),
    ({"data_type": "weight", "value": 5000, "unit": "[lb_av]"},
     {"/value": "range"}),
    ({"data_type": "heart_rate", "value": 70, "zz": 1}, {"/zz": "unknown"}),
    ({"data_type": "heart_rate", "value": 70, "id": uuid7()},
     {"/id": "read_only"}),
    ({"data_type": "heart_rate", "value": 70, "user_id": uuid7()},
     {"/user_id": "read_only"}),
    ({"data_type": "heart_rate", "value": 70,
      "created_at": "2026-01-01T00:00:00Z",
      "updated_at": "2026-01-01T00:00:00Z"},
     {"/created_at": "read_only", "/updated_at": "read_only"}),
    ({"data_type": "heart_rate", "value": 70,
      "original": {"value": 1, "unit": "x"}}, {"/original": "read_only"}),
    ({"data_type": "heart_rate", "value": 70, "version": 1},
     {"/version": {"unknown", "read_only"}}),
    ({"data_type": "heart_rate", "value": 70, "dedup_key": "x"},
     {"/dedup_key": {"unknown", "read_only"}}),
    ({"data_type": "heart_rate", "value": 70, "a/b": 1, "c~d": 1, "": 1},
     {"/a~1b": "unknown", "/c~0d": "unknown", "/": "unknown"}),
    ({"data_type": "heart_rate", "value": 70, "notes": "x" * 10001},
     {"/notes": "length"}),
    ({"data_type": "heart_rate", "value": 70, "notes": "a\u0001b"},
     {"/notes": "format"}),
    ({"data_type": "heart_rate", "value": 70, "notes": "a\u001bb"},
     {"/notes": "format"}),
    ({"data_type": "heart_rate", "value": 70, "notes": 5},
     {"/notes": "type"}),
    ({"data_type": "heart_rate", "value": 70, "source": "Manual"},
     {"/source": "format"}),
    ({"data_type": "heart_rate", "value": 70, "source": ""}, {"/source"}),
    ({"data_type": "heart_rate", "value": 70, "source": ".x"},
     {"/source": "format"}),
    ({"data_type": "heart_rate", "value": 70, "source": "a" * 65},
     {"/source"}),
    ({"data_type": "heart_rate", "value": 70, "source": "a b"},
     {"/source": "format"}),
    ({"data_type": "heart_rate", "value": 70, "source_id": ""},
     {"/source_id": "length"}),
    ({"data_type": "heart_rate", "value": 70, "source_id": "x" * 129},
     {"/source_id": "length"}),
    ({"data_type": "heart_rate", "value": 70, "source_id": 7},
     {"/source_id": "type"}),
    ({"data_type": "heart_rate", "value": 70, "source_id": "a\u0007"},
     {"/source_id": "format"}),
    ({"data_type": "heart_rate", "value": 70, "confidence": 1.01},
     {"/confidence": "range"}),
    ({"data_type": "heart_rate", "value": 70, "confidence": -0.01},
     {"/confidence": "range"}),
    ({"data_type": "heart_rate", "value": 70, "confidence": "1"},
     {"/confidence": "type"}),
    ({"data_type": "heart_rate", "value": 70, "confidence": True},
     {"/confidence": "type"}),
    ({"data_type": "heart_rate", "value": 7000, "zz": 1, "notes": 5,
      "timestamp": "2026-01-01", "source": "A", "confidence": 9},
     {"/value": "range", "/zz": "unknown", "/notes": "type",
      "/timestamp": "format", "/source": "format", "/confidence": "range"}),
])
def test_faults(mate, doc, faults):
    problem(mate.post(HD, doc), 422, "validation.failed", faults)


def test_a_fault_never_repeats_the_value(mate):
    r = mate.post(HD, {"data_type": "heart_rate", "value": "SECRETVALUE",
                       "notes": {"SECRETNOTE": 1}, "source": "SECRET SRC"})
    problem(r, 422, "validation.failed")
    assert "SECRET" not in r.text


def test_many_unknown_members(mate):
    doc = {"data_type": "heart_rate", "value": 70}
    doc.update({"x%d" % i: i for i in range(500)})
    p = problem(mate.post(HD, doc), 422, "validation.failed")
    assert 1 <= len(p["errors"]) <= 500


@pytest.mark.parametrize("doc", [
    {"source": "a"}, {"source": "0a._:-z"}, {"source": "a" * 64},
    {"source_id": "x"}, {"source_id": "\U0001f600" * 128},
    {"confidence": 0}, {"confidence": 1}, {"confidence": 0.5},
    {"notes": ""}, {"notes": "x" * 10000}, {"notes": "\U0001f600" * 10000},
])
def test_edges_taken(user, doc):
    doc = dict({"data_type": "heart_rate", "value": 70}, **doc)
    rec = ok(user.post(HD, doc), 201)
    for k in set(doc) & RECORD_KEYS:
        assert rec[k] == doc[k]
    assert ok(user.get(HD + "/" + rec["id"])) == rec


@pytest.mark.parametrize("text", [
    "  spaces  ", "tab\tlf\ncr\r\n", "e\u0301 and \u00e9", "\u200f\u202e",
    "\ufffd\ufeff", "\U0001f468\u200d\U0001f469\u200d\U0001f466", "\x7f\x80",
    '"\\/\b'.replace("\b", ""), "</script><!--", "null", "\u2028\u2029",
    "{\"a\":1}", "' or 1=1 --", "\\u0000", "%s%n%x", "\U0010ffff"])
def test_texts_are_kept_exactly(mate, text):
    rec = ok(mate.post(HD, {"data_type": "heart_rate", "value": 75,
                            "notes": text,
                            "timestamp": iso(ago(
                                minutes=int.from_bytes(os.urandom(2),
                                                       "big")))}), 201)
    assert rec["notes"] == text
    assert ok(mate.get(HD + "/" + rec["id"]))["notes"] == text


# --- custom types ---

def test_custom(user):
    rec = ok(user.post(HD, {"data_type": "custom:vitamin_d", "value": -3.25,
                            "unit": "ng/mL"}), 201)
    shape(rec)
    assert rec["data_type"] == "custom:vitamin_d" and rec["value"] == -3.25
    assert rec["unit"] == "ng/mL" and rec["original"] is None
    assert ok(user.get(HD + "/" + rec["id"])) == rec
    assert ok(user.get(HD + "?data_type=custom:vitamin_d"))["items"] == [rec]
    assert ok(user.get(HD + "?data_type=custom:other"))["items"] == []
    ok(user.post(HD, {"data_type": "custom:" + "a" * 40, "value": 1e300,
                      "unit": "x" * 32}), 201)
    ok(user.post(HD, {"data_type": "custom:1", "value": 0,
                      "unit": " !~"}), 201)


@pytest.mark.parametrize("doc,faults", [
    ({"data_type": "custom:x", "value": 1}, {"/unit": "required"}),
    ({"data_type": "custom:x", "value": 1, "unit": None},
     {"/unit": "required"}),
    ({"data_type": "custom:x", "value": 1, "unit": ""},
     {"/unit": {"length", "format", "unit"}}),
    ({"data_type": "custom:x", "value": 1, "unit": "u" * 33},
     {"/unit": {"length", "unit"}}),
    ({"data_type": "custom:x", "value": 1, "unit": "\u00b5g"},
     {"/unit": {"format", "unit"}}),
    ({"data_type": "custom:x", "value": 1, "unit": "a\tb"},
     {"/unit": {"format", "unit"}}),
    ({"data_type": "custom:", "value": 1, "unit": "g"}, {"/data_type"}),
    ({"data_type": "custom", "value": 1, "unit": "g"}, {"/data_type"}),
    ({"data_type": "custom:X", "value": 1, "unit": "g"}, {"/data_type"}),
    ({"data_type": "custom:a-b", "value": 1, "unit": "g"}, {"/data_type"}),
    ({"data_type": "custom:" + "a" * 41, "value": 1, "unit": "g"},
     {"/data_type"}),
    ({"data_type": "custom:x", "value": "1", "unit": "g"},
     {"/value": "type"}),
    ({"data_type": "custom:x", "value": {"a": 1}, "unit": "g"},
     {"/value": "type"}),
])
def test_custom_faults(mate, doc, faults):
    problem(mate.post(HD, doc), 422, "validation.failed", faults)


# --- times ---

@pytest.mark.parametrize("sent,stored", [
    ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00.000Z"),
    ("2026-03-01T08:00:01+00:00", "2026-03-01T08:00:01.000Z"),
    ("2026-03-01T08:00:02-00:00", "2026-03-01T08:00:02.000Z"),
    ("2026-03-01T08:00:03+05:45", "2026-03-01T02:15:03.000Z"),
    ("2026-03-01T08:00:04-12:00", "2026-03-01T20:00:04.000Z"),
    ("2026-03-01T08:00:05.1Z", "2026-03-01T08:00:05.100Z"),
    ("2026-03-01T08:00:06.123999Z", "2026-03-01T08:00:06.123Z"),
    ("2026-03-01T08:00:07.9999999999Z", "2026-03-01T08:00:07.999Z"),
    ("2024-02-29T23:59:59.999Z", "2024-02-29T23:59:59.999Z"),
    ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00.000Z"),
    ("1955-06-07T08:09:10.0015Z", "1955-06-07T08:09:10.001Z"),
    ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
    ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00.000Z"),
    ("2025-03-30T02:30:00+01:00", "2025-03-30T01:30:00.000Z"),
])
def test_times(mate, sent, stored):
    r = mate.post(HD, {"data_type": "heart_rate", "value": 77,
                       "timestamp": sent})
    rec = ok(r, 201)
    assert rec["timestamp"] == stored
    assert ok(mate.get(HD + "/" + rec["id"]))["timestamp"] == stored


@pytest.mark.parametrize("sent,code", [
    ("2026-03-01", "format"), ("2026-03-01T08:00:00", "format"),
    ("2026-03-01T08:00Z", "format"), ("2026-02-29T08:00:00Z", "format"),
    ("2026-13-01T08:00:00Z", "format"), ("2026-03-01T24:00:00Z", "format"),
    ("2026-03-01T08:60:00Z", "format"),
    ("2026-03-01T08:00:00+0100", "format"),
    ("2026-03-01T08:00:00+25:00", "format"),
    ("2026-03-01T08:00:00.Z", "format"), ("", "format"),
    ("now", "format"), ("2026-03-01T08:00:00Z ", "format"),
    ("20260301T080000Z", "format"), ("+2026-03-01T08:00:00Z", "format"),
    (1772352000, "type"), (True, "type"), ({}, "type"),
    ("1899-12-31T23:59:59.999Z", "range"), ("0001-01-01T00:00:00Z", "range"),
    ("1900-01-01T00:30:00+01:00", "range"),
    ("2999-01-01T00:00:00Z", "future"), ("9999-12-31T23:59:59Z", "future"),
])
def test_time_faults(mate, sent, code):
    problem(mate.post(HD, {"data_type": "heart_rate", "value": 70,
                           "timestamp": sent}), 422, "validation.failed",
            {"/timestamp": {code} if code != "range"
             else {"range"}})


def test_five_minutes_ahead(mate):
    ok(mate.post(HD, {"data_type": "heart_rate", "value": 70,
                      "timestamp": iso(ahead(minutes=4, seconds=45))}), 201)
    problem(mate.post(HD, {"data_type": "heart_rate", "value": 70,
                           "timestamp": iso(ahead(minutes=5, seconds=20))}),
            422, "validation.failed", {"/timestamp": "future"})


def test_leap_second_is_not_a_500(mate):
    r = mate.post(HD, {"data_type": "heart_rate", "value": 70,
                       "timestamp": "2016-12-31T23:59:60Z"})
    assert r.status in (201, 422), r


# --- preconditions ---

@pytest.fixture
def rec(user):
    r = user.record(data_type="weight", value=80, notes="n",
                    timestamp="2026-03-02T07:00:00Z")
    r.path_ = HD + "/" + r.json()["id"]
    return r


def test_etag_is_new_after_each_change(user, rec):
    seen = [rec.etag]
    for v in (81, 82):
        r = user.patch(rec.path_, {"value": v})
        ok(r)
        assert r.etag not in seen
        assert user.get(rec.path_).etag == r.etag
        seen.append(r.etag)
    r = user.put(rec.path_, {"data_type": "weight", "value": 83})
    assert ok(r)["value"] == 83 and r.etag not in seen


def test_etags_differ_between_records_of_one_version(user):
    tags = {user.record(value=60 + i).etag for i in range(10)}
    assert len(tags) == 10


def test_if_none_match(user, rec):
    for v in (rec.etag, "W/" + rec.etag, '"x", %s' % rec.etag,
              '%s,"y"' % rec.etag, "*"):
        r = user.get(rec.path_, headers={"If-None-Match": v})
        assert r.status == 304, (v, r)
        assert r.body == b"" and r.etag == rec.etag
        r = user.head(rec.path_, headers={"If-None-Match": v})
        assert r.status == 304
    for v in ('"x"', '"x", "y"', rec.etag[:-1] + 'x"'):
        r = user.get(rec.path_, headers={"If-None-Match": v})
        assert ok(r)["value"] == 80


def test_if_match_good(user, rec):
    r = user.patch(rec.path_, {"value": 81},
                   headers={"If-Match": rec.etag})
    ok(r)
    r = user.put(rec.path_, {"data_type": "weight", "value": 82},
                 headers={"If-Match": '"x", ' + r.etag + ' ,"y"'})
    ok(r)
    r = user.patch(rec.path_, {"value": 83}, headers={"If-Match": "*"})
    ok(r)
    assert user.delete(rec.path_, headers={
        "If-Match": r.etag}).status == 204


def test_if_match_bad(user, rec):
    old = rec.etag
    new = user.patch(rec.path_, {"value": 81}).etag
    for v in (old, '"x"', '"x", "y"', "W/" + new, '""'):
        h = {"If-Match": v}
        problem(user.patch(rec.path_, {"value": 90}, headers=h), 412,
                "resource.changed")
        problem(user.put(rec.path_, {"data_type": "weight", "value": 90},
                         headers=h), 412, "resource.changed")
        problem(user.delete(rec.path_, headers=h), 412, "resource.changed")
    assert ok(user.get(rec.path_))["value"] == 81


@pytest.mark.parametrize("value", ["x", '"x', 'x"', '"a" "b"', "", ",",
                                   '"a",', "*, \"a\"", "'a'", '"a";'])
def test_if_match_malformed(user, rec, value):
    for call in (lambda h: user.patch(rec.path_, {"value": 90}, headers=h),
                 lambda h: user.put(rec.path_, {"data_type": "weight",
                                                "value": 90}, headers=h),
                 lambda h: user.delete(rec.path_, headers=h)):
        r = call({"If-Match": value})
        if value in ("", ",", '"a",'):
            # RFC 9110 lets a recipient take empty list elements.
            assert r.status in (400, 412), r
            continue
        problem(r, 400, "request.invalid_header")
    assert ok(user.get(rec.path_))["value"] == 80


def test_if_match_on_an_absent_record(user):
    """Rights and existence come before preconditions."""
    for h in ({"If-Match": "*"}, {"If-Match": '"x"'}):
        p = HD + "/" + uuid7()
        problem(user.patch(p, {"value": 80}, headers=h), 404)
        problem(user.delete(p, headers=h), 404)
        problem(user.put(p, {"data_type": "weight", "value": 80},
                         headers=h), 404)


def test_one_of_two_racing_patches_wins(stack, user, rec):
    got = []

    def go(i):
        got.append(user.patch(rec.path_, {"value": 100 + i},
                              headers={"If-Match": rec.etag}).status)

    ts = [threading.Thread(target=go, args=(i,)) for i in range(8)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(got) == [200] + [412] * 7, got


def test_racing_patches_without_if_match(user, rec):
    """None is lost silently and none fails: last one wins."""
    got = []

    def go(i):
        got.append(user.patch(rec.path_, {"notes": "n%d" % i}).status)

    ts = [threading.Thread(target=go, args=(i,)) for i in range(8)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert got == [200] * 8, got


# --- PATCH ---

def test_patch_keeps_the_rest(user, rec):
    before = rec.json()
    for ctype in ("application/merge-patch+json", "application/json"):
        now = ok(user.patch(rec.path_, {"value": 81}, ctype=ctype))
        assert {k: v for k, v in now.items()
                if k not in ("value", "updated_at")} \
            == {k: v for k, v in before.items()
                if k not in ("value", "updated_at")}
    assert now["updated_at"] >= before["updated_at"]
    assert now["created_at"] == before["created_at"]


def test_patch_answers_200_with_all_headers(user, rec):
    r = user.patch(rec.path_, {"notes": "z"})
    shape(ok(r))
    assert r.etag and r.etag != rec.etag
    assert "no-store" in r.header("cache-control")


def test_patch_clears(user, rec):
    ok(user.patch(rec.path_, {"confidence": 0.5}))
    now = ok(user.patch(rec.path_, {"notes": None, "confidence": None}))
    assert now["notes"] is None and now["confidence"] is None


def test_patch_nothing(user, rec):
    now = ok(user.patch(rec.path_, {}))
    assert now["value"] == 80 and now["notes"] == "n"


def test_patch_merges_into_value(user):
    r = user.record(data_type="blood_pressure",
                    value={"systolic": 120, "diastolic": 80}).json()
    p = HD + "/" + r["id"]
    assert ok(user.patch(p, {"value": {"systolic": 130}}))["value"] \
        == {"systolic": 130, "diastolic": 80}
    problem(user.patch(p, {"value": {"systolic": None}}), 422,
            "validation.failed", {"/value/systolic": "required"})
    # The result is validated whole: 70 is a good systolic, not above 80.
    x = problem(user.patch(p, {"value": {"systolic": 70}}), 422,
                "validation.failed")
    assert x["errors"][0]["code"] == "order"
    problem(user.patch(p, {"value": {"pulse": 70}}), 422,
            "validation.failed", {"/value/pulse": "unknown"})
    assert ok(user.get(p))["value"] == {"systolic": 130, "diastolic": 80}


@pytest.mark.parametrize("doc,faults", [
    ({"value": None}, {"/value": "required"}),
    ({"data_type": None}, {"/data_type": {"required", "immutable"}}),
    ({"data_type": "height"}, {"/data_type": "immutable"}),
    ({"timestamp": "2026-03-03T07:00:00Z"}, {"/timestamp": "immutable"}),
    ({"source_id": "new"}, {"/source_id": "immutable"}),
    ({"id": uuid7()}, {"/id": "read_only"}),
    ({"user_id": uuid7()}, {"/user_id": "read_only"}),
    ({"created_at": "2026-03-03T07:00:00Z"}, {"/created_at": "read_only"}),
    ({"original": None}, {"/original": "read_only"}),
    ({"zz": None}, {"/zz": "unknown"}),
    ({"zz": 1}, {"/zz": "unknown"}),
    ({"value": 7000}, {"/value": "range"}),
    ({"value": {"a": 1}}, {"/value"}),
    ({"notes": 5, "confidence": 7}, {"/notes": "type",
                                     "/confidence": "range"}),
    ({"source": "A"}, {"/source": "format"}),
])
def test_patch_faults(user, rec, doc, faults):
    problem(user.patch(rec.path_, doc), 422, "validation.failed", faults,
            exact="/value" not in faults)
    r = user.get(rec.path_)
    assert r.json() == rec.json() and r.etag == rec.etag


def test_unit_changes_only_with_value(user, rec):
    p = problem(user.patch(rec.path_, {"unit": "[lb_av]"}), 422,
                "validation.failed")
    assert [e["pointer"] for e in p["errors"]] in (["/unit"], ["/value"]), p
    now = ok(user.patch(rec.path_, {"unit": "[lb_av]", "value": 200}))
    assert math.isclose(now["value"], 200 * 0.45359237, rel_tol=1e-12)
    assert now["original"] == {"value": 200, "unit": "[lb_av]"}
    # A value alone is canonical again.
    now = ok(user.patch(rec.path_, {"value": 79}))
    assert now["value"] == 79 and now["original"] is None
    assert now["unit"] == "kg"


def test_notes_alone_keep_original(user):
    r = user.record(data_type="weight", value=176.4, unit="[lb_av]").json()
    now = ok(user.patch(HD + "/" + r["id"], {"notes": "x"}))
    assert now["original"] == r["original"] and now["value"] == r["value"]


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"5"])
def test_patch_with_no_object(user, rec, body):
    r = user.patch(rec.path_, body=body)
    assert r.status in (400, 422), r
    assert ok(user.get(rec.path_)) == rec.json()


# --- PUT ---

def test_put_clears_absent_optionals(user, rec):
    ok(user.patch(rec.path_, {"confidence": 0.5}))
    r = user.put(rec.path_, {"data_type": "weight", "value": 81.5,
                             "timestamp": "2026-03-02T07:00:00Z"})
    now = ok(r)
    shape(now)
    assert now["value"] == 81.5 and now["notes"] is None
    assert now["confidence"] is None and r.etag != rec.etag
    assert now["id"] == rec.json()["id"]
    assert now["created_at"] == rec.json()["created_at"]
    assert ok(user.get(rec.path_)) == now


def test_put_same_time_in_another_spelling(user, rec):
    now = ok(user.put(rec.path_, {"data_type": "weight", "value": 81,
                                  "timestamp": "2026-03-02T08:00:00+01:00"}))
    assert now["timestamp"] == "2026-03-02T07:00:00.000Z"


def test_put_without_timestamp_keeps_it(user, rec):
    now = ok(user.put(rec.path_, {"data_type": "weight", "value": 82}))
    assert now["timestamp"] == "2026-03-02T07:00:00.000Z"


@pytest.mark.parametrize("doc,faults", [
    ({"data_type": "weight"}, {"/value": "required"}),
    ({"value": 80}, {"/data_type": "required"}),
    ({"data_type": "height", "value": 80}, {"/data_type": "immutable"}),
    ({"data_type": "weight", "value": 80,
      "timestamp": "2026-03-02T07:00:00.001Z"}, {"/timestamp": "immutable"}),
    ({"data_type": "weight", "value": 80, "source_id": "n"},
     {"/source_id": "immutable"}),
    ({"data_type": "weight", "value": 80, "id": uuid7()},
     {"/id": "read_only"}),
    ({"data_type": "weight", "value": 9000, "zz": 1},
     {"/value": "range", "/zz": "unknown"}),
])
def test_put_faults(user, rec, doc, faults):
    problem(user.put(rec.path_, doc), 422, "validation.failed", faults)
    assert ok(user.get(rec.path_)) == rec.json()


def test_put_is_no_upsert(user):
    problem(user.put(HD + "/" + uuid7(), {"data_type": "weight",
                                          "value": 80}), 404,
            "resource.not_found")
    assert ok(user.get(HD))["items"] == []


# --- DELETE ---

def test_delete(user, rec):
    r = user.delete(rec.path_)
    assert r.status == 204 and r.body == b""
    problem(user.delete(rec.path_), 404, "resource.not_found")
    problem(user.get(rec.path_), 404, "resource.not_found")
    problem(user.patch(rec.path_, {"value": 80}), 404)
    assert ok(user.get(HD))["items"] == []
    assert ok(user.get(HD + "/latest"))["items"] == []


def test_racing_deletes(user, rec):
    got = []
    ts = [threading.Thread(target=lambda: got.append(
        user.delete(rec.path_).status)) for _ in range(6)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(got) == [204] + [404] * 5, got


# --- dedup ---

T = "2026-03-05T10:00:00Z"


def same(user, first, doc):
    r = user.post(HD, doc)
    assert r.status == 200, r
    assert r.json() == first.json(), r
    assert r.header("location") == first.header("location")
    assert r.etag == first.etag
    return r


def test_dedup_by_source_id(user):
    a = user.post(HD, {"data_type": "heart_rate", "value": 60,
                       "timestamp": T, "source": "dev", "source_id": "1"})
    ok(a, 201)
    # Whatever else is said: the stored one is answered, unchanged.
    same(user, a, {"data_type": "heart_rate", "value": 99, "timestamp": T,
                   "source": "dev", "source_id": "1", "notes": "other"})
    same(user, a, {"data_type": "weight", "value": 80,
                   "timestamp": "2020-01-01T00:00:00Z", "source": "dev",
                   "source_id": "1"})
    ok(user.post(HD, {"data_type": "heart_rate", "value": 60, "timestamp": T,
                      "source": "dev", "source_id": "2"}), 201)
    ok(user.post(HD, {"data_type": "heart_rate", "value": 60, "timestamp": T,
                      "source": "dev2", "source_id": "1"}), 201)
    ok(user.post(HD, {"data_type": "heart_rate", "value": 60, "timestamp": T,
                      "source": "dev"}), 201)
    assert len(ok(user.get(HD))["items"]) == 4


def test_dedup_by_content(user):
    doc = {"data_type": "weight", "value": 80, "timestamp": T}
    a = user.post(HD, doc)
    ok(a, 201)
    same(user, a, doc)
    same(user, a, dict(doc, notes="other", confidence=0.1))
    same(user, a, dict(doc, value=80000, unit="g"))
    same(user, a, dict(doc, timestamp="2026-03-05T11:00:00.0004+01:00"))
    same(user, a, dict(doc, source="manual", value=80.0))
    for other in (dict(doc, value=80.5), dict(doc, source="dev"),
                  dict(doc, timestamp="2026-03-05T10:00:00.001Z")):
        ok(user.post(HD, other), 201)


def test_dedup_blood_pressure_and_custom(user):
    doc = {"data_type": "blood_pressure", "timestamp": T,
           "value": {"systolic": 120, "diastolic": 80}}
    a = user.post(HD, doc)
    ok(a, 201)
    same(user, a, dict(doc, value={"diastolic": 80, "systolic": 120}))
    ok(user.post(HD, dict(doc, value={"systolic": 120, "diastolic": 81})),
       201)
    doc = {"data_type": "custom:a", "timestamp": T, "value": 5, "unit": "g"}
    a = user.post(HD, doc)
    ok(a, 201)
    same(user, a, doc)
    ok(user.post(HD, dict(doc, data_type="custom:b")), 201)


def test_dedup_is_per_person(user, stack):
    other = stack.new_user()
    doc = {"data_type": "weight", "value": 80, "timestamp": T,
           "source_id": "s"}
    a, b = ok(user.post(HD, doc), 201), ok(other.post(HD, doc), 201)
    assert a["id"] != b["id"]


def test_after_delete_it_is_new(user):
    doc = {"data_type": "weight", "value": 80, "timestamp": T}
    a = ok(user.post(HD, doc), 201)
    assert user.delete(HD + "/" + a["id"]).status == 204
    assert ok(user.post(HD, doc), 201)["id"] != a["id"]


def test_racing_duplicates_make_one(user):
    got = []

    def go():
        r = user.post(HD, {"data_type": "weight", "value": 80,
                           "timestamp": T})
        got.append((r.status, r.json().get("id")))

    ts = [threading.Thread(target=go) for _ in range(12)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(s for s, _ in got) == [200] * 11 + [201], got
    assert len({i for _, i in got}) == 1


def test_a_change_that_makes_two_equal_is_409(user):
    a = ok(user.post(HD, {"data_type": "weight", "value": 80,
                          "timestamp": T}), 201)
    b = user.post(HD, {"data_type": "weight", "value": 81, "timestamp": T})
    p = HD + "/" + ok(b, 201)["id"]
    problem(user.patch(p, {"value": 80}), 409, "resource.conflict")
    problem(user.put(p, {"data_type": "weight", "value": 80}), 409,
            "resource.conflict")
    problem(user.patch(p, {"value": 80000, "unit": "g"}), 409,
            "resource.conflict")
    got = user.get(p)
    assert got.json() == b.json() and got.etag == b.etag
    ok(user.patch(p, {"value": 82}))
    ok(user.patch(p, {"value": 82}))           # equal to itself is no conflict
    ok(user.patch(HD + "/" + a["id"], {"value": 81}))


def test_dedup_key_follows_a_change(user):
    a = ok(user.post(HD, {"data_type": "weight", "value": 80,
                          "timestamp": T}), 201)
    ok(user.patch(HD + "/" + a["id"], {"value": 85}))
    ok(user.post(HD, {"data_type": "weight", "value": 80, "timestamp": T}),
       201)
    r = user.post(HD, {"data_type": "weight", "value": 85, "timestamp": T})
    assert r.status == 200 and r.json()["id"] == a["id"]


# --- Idempotency-Key ---

def key():
    return "k-" + os.urandom(6).hex()


def replayed(r):
    return r.header("idempotent-replayed")


def test_replay(user):
    k, doc = key(), {"data_type": "weight", "value": 80}
    a = user.post(HD, doc, headers={"Idempotency-Key": k})
    ok(a, 201)
    assert replayed(a) is None
    for kk in (k, '"%s"' % k):
        b = user.post(HD, doc, headers={"Idempotency-Key": kk})
        assert b.status == 201 and replayed(b) == "true", b.raw_headers
        assert b.body == a.body and b.etag == a.etag
        assert b.header("location") == a.header("location")
        assert b.header("x-request-id") != a.header("x-request-id")
    assert len(ok(user.get(HD))["items"]) == 1


def test_replay_even_if_changed_or_gone_since(user):
    k, doc = key(), {"data_type": "weight", "value": 80}
    a = user.post(HD, doc, headers={"Idempotency-Key": k})
    p = HD + "/" + ok(a, 201)["id"]
    ok(user.patch(p, {"value": 90}))
    b = user.post(HD, doc, headers={"Idempotency-Key": k})
    assert (b.status, b.body, b.etag, replayed(b)) \
        == (201, a.body, a.etag, "true")
    assert user.delete(p).status == 204
    b = user.post(HD, doc, headers={"Idempotency-Key": k})
    assert (b.status, b.body, replayed(b)) == (201, a.body, "true")
    assert ok(user.get(HD))["items"] == []


def test_other_body_under_the_same_key(user):
    k = key()
    ok(user.post(HD, {"data_type": "weight", "value": 80},
                 headers={"Idempotency-Key": k}), 201)
    problem(user.post(HD, {"data_type": "weight", "value": 81},
                      headers={"Idempotency-Key": k}), 422,
            "idempotency.key_reused")
    assert len(ok(user.get(HD))["items"]) == 1


def test_only_2xx_are_kept(user):
    k = key()
    problem(user.post(HD, {"data_type": "weight", "value": 8000},
                      headers={"Idempotency-Key": k}), 422,
            "validation.failed")
    r = user.post(HD, {"data_type": "weight", "value": 80},
                  headers={"Idempotency-Key": k})
    assert r.status == 201 and replayed(r) is None


def test_a_dedup_200_is_kept_too(user):
    doc = {"data_type": "weight", "value": 80, "timestamp": T}
    a = ok(user.post(HD, doc), 201)
    k = key()
    b = user.post(HD, doc, headers={"Idempotency-Key": k})
    assert b.status == 200 and replayed(b) is None
    user.delete(HD + "/" + a["id"])
    c = user.post(HD, doc, headers={"Idempotency-Key": k})
    assert c.status == 200 and replayed(c) == "true" and c.body == b.body


def test_key_scope_is_person_and_path(user, stack):
    k, other = key(), stack.new_user()
    h = {"Idempotency-Key": k}
    doc = {"data_type": "weight", "value": 80}
    ok(user.post(HD, doc, headers=h), 201)
    r = other.post(HD, doc, headers=h)
    assert r.status == 201 and replayed(r) is None
    r = user.post(HD + "/batch", [doc], headers=h)
    assert r.status == 200 and replayed(r) is None
    r = user.post(HD + "/batch", [doc], headers=h)
    assert r.status == 200 and replayed(r) == "true"


@pytest.mark.parametrize("k", ["k" * 255, "a b", "~!@#", '"a"', "1"])
def test_keys_taken(user, k):
    h = {"Idempotency-Key": k}
    doc = {"data_type": "weight", "value": 80}
    ok(user.post(HD, doc, headers=h), 201)
    assert replayed(user.post(HD, doc, headers=h)) == "true"


@pytest.mark.parametrize("k", ["", '""', "k" * 256, '"a', 'a"b"'])
def test_keys_refused(user, k):
    r = user.post(HD, {"data_type": "weight", "value": 80},
                  headers={"Idempotency-Key": k})
    if k in ('"a', 'a"b"') and r.status == 201:
        return                                  # not said to be malformed
    problem(r, 400, "request.invalid_header")


def test_two_keys(user):
    r = user.post(HD, {"data_type": "weight", "value": 80},
                  headers=[("Idempotency-Key", "a"),
                           ("Idempotency-Key", "b")])
    assert r.status in (400, 201), r


def test_the_key_is_ignored_where_nothing_is_created(user):
    a = user.record(data_type="weight", value=80).json()
    h = {"Idempotency-Key": key()}
    p = HD + "/" + a["id"]
    ok(user.patch(p, {"value": 81}, headers=h))
    r = user.patch(p, {"value": 82}, headers=h)
    assert ok(r)["value"] == 82 and replayed(r) is None


def test_concurrent_same_key(user):
    k, got = key(), []

    def go():
        r = user.post(HD, {"data_type": "weight", "value": 80},
                      headers={"Idempotency-Key": k})
        got.append(r)

    ts = [threading.Thread(target=go) for _ in range(10)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    first = [r for r in got if r.status == 201 and not replayed(r)]
    assert len(first) == 1, got
    for r in got:
        if r is first[0]:
            continue
        if r.status == 409:
            problem(r, 409, "idempotency.in_progress")
        else:
            assert r.status == 201 and replayed(r) == "true", r
            assert r.body == first[0].body
    assert len(ok(user.get(HD))["items"]) == 1


def test_same_key_other_body_racing(user):
    """Exactly one is created; the other is told."""
    k, got = key(), []

    def go(i):
        got.append(user.post(HD, {"data_type": "weight", "value": 80 + i},
                             headers={"Idempotency-Key": k}))

    ts = [threading.Thread(target=go, args=(i,)) for i in range(6)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert sorted(r.status for r in got).count(201) == 1, got
    for r in got:
        if r.status != 201:
            assert r.code in ("idempotency.key_reused",
                              "idempotency.in_progress"), r
    assert len(ok(user.get(HD))["items"]) == 1
