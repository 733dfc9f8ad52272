"""api.md: lists, filters, order, cursors; latest."""

import threading

import pytest

from hmdata import iso, ago, q, series
from hmhttp import BASE, ok, problem, walk

HD = "/health-data"


@pytest.fixture(scope="module")
def many(stack):
    """A person with 260 readings, some at the same instant."""
    u = stack.new_user()
    ids = series(u, 100, "heart_rate", "2026-01-01")
    ids += series(u, 60, "weight", "2026-01-01", source="csv")
    ids += series(u, 50, "steps", "2026-01-02")
    ids += series(u, 50, "custom:drops", "2026-01-03", unit="mL",
                  source="fhir")
    u.ids = ids
    return u


def order_key(x):
    return (x["timestamp"], x["id"])


def test_default_limit_is_20_newest_first(many):
    doc = ok(many.get(HD))
    assert set(doc) == {"items", "next"} and len(doc["items"]) == 20
    assert doc["next"]
    keys = [order_key(x) for x in doc["items"]]
    assert keys == sorted(keys, reverse=True)
    assert doc["items"][0]["data_type"] == "custom:drops"


def test_empty_list(user):
    assert ok(user.get(HD)) == {"items": [], "next": None}
    assert ok(user.get(HD + "/latest")) == {"items": [], "next": None}


@pytest.mark.parametrize("limit", [1, 7, 20, 64, 200])
@pytest.mark.parametrize("order", ["desc", "asc"])
def test_walk(many, limit, order):
    if limit == 1:
        path = HD + "?data_type=steps&order=" + order
        want = many.ids[160:210]
    else:
        path, want = HD + "?order=" + order, many.ids
    items = walk(many, path, limit)
    assert sorted(x["id"] for x in items) == sorted(want)
    keys = [order_key(x) for x in items]
    assert keys == sorted(keys, reverse=order == "desc")


@pytest.mark.parametrize("n,limit", [(5, 5), (10, 5), (6, 5), (1, 1),
                                     (200, 200), (21, 20), (20, 20)])
def test_next_is_null_exactly_at_the_end(stack, n, limit):
    u = stack.new_user()
    ids = series(u, n)
    assert sorted(x["id"] for x in walk(u, HD, limit)) == sorted(ids)


def test_all_at_one_instant(user):
    for i in range(45):
        user.record(value=50 + i, timestamp="2026-01-01T00:00:00Z")
    for order in ("asc", "desc"):
        items = walk(user, HD + "?order=" + order, 10)
        assert len({x["id"] for x in items}) == 45
        ids = [x["id"] for x in items]
        assert ids == sorted(ids, reverse=order == "desc")


# --- filters ---

def test_filter_data_type(many):
    for names, n in (("heart_rate", 100), ("weight", 60),
                     ("heart_rate,weight", 160), ("height", 0),
                     ("custom:drops", 50), ("custom:drops,steps", 100),
                     ("custom:none", 0), ("heart_rate,heart_rate", 100)):
        r = many.get(HD + "?data_type=%s&limit=200" % q(names))
        if names == "heart_rate,heart_rate" and r.status == 400:
            continue
        doc = ok(r)
        assert len(doc["items"]) == n, names
        assert {x["data_type"] for x in doc["items"]} <= \
            set(names.split(","))
    # 20 types are taken.
    names = ",".join(["heart_rate", "weight"]
                     + ["custom:c%d" % i for i in range(18)])
    assert len(ok(many.get(HD + "?limit=200&data_type=" + names))
               ["items"]) == 160


def test_filter_source(many):
    for s, n in (("csv", 60), ("fhir", 50), ("manual", 150), ("none", 0)):
        items = ok(many.get(HD + "?limit=200&source=" + s))["items"]
        assert len(items) == n
        assert {x["source"] for x in items} <= {s}


def test_from_is_inclusive_and_to_exclusive(many):
    def n(**kw):
        return len(ok(many.get(HD + "?limit=200&data_type=heart_rate&"
                               + "&".join("%s=%s" % (k.rstrip("_"), q(v))
                                          for k, v in kw.items())))["items"])
    assert n(from_="2026-01-01T00:10:00Z", to="2026-01-01T00:20:00Z") == 10
    assert n(from_="2026-01-01T00:10:00.001Z",
             to="2026-01-01T00:20:00Z") == 9
    assert n(from_="2026-01-01T00:10:00Z",
             to="2026-01-01T00:20:00.001Z") == 11
    assert n(from_="2026-01-01T01:10:00+01:00",
             to="2026-01-01T01:20:00+01:00") == 10
    assert n(from_="2026-01-01T01:39:00Z") == 1
    assert n(to="2026-01-01T00:00:00Z") == 0
    assert n(to="2026-01-01T00:00:01Z") == 1
    assert n(from_="1900-01-01T00:00:00Z") == 100


def test_filters_together_and_paged(many):
    path = HD + "?data_type=heart_rate,weight&from=2026-01-01T00:30:00Z" \
        "&to=2026-01-01T00:50:00Z&order=asc"
    items = walk(many, path, 7)
    assert len(items) == 40 and len({x["id"] for x in items}) == 40
    assert len(walk(many, path + "&source=csv", 3)) == 20


# --- cursors ---

def cursor(c, query="limit=10"):
    nxt = ok(c.get(HD + "?" + query))["next"]
    assert nxt
    return nxt


def refused(c, query):
    problem(c.get(HD + "?" + query), 400, "request.invalid_cursor")


def test_limit_may_change(many):
    a = cursor(many)
    x = ok(many.get(HD + "?limit=5&cursor=" + a))["items"]
    y = ok(many.get(HD + "?limit=50&cursor=" + a))["items"]
    assert len(x) == 5 and len(y) == 50 and y[:5] == x
    assert ok(many.get(HD + "?cursor=" + a))["items"][:5] == x


def test_a_cursor_may_be_used_twice(many):
    a = cursor(many)
    assert ok(many.get(HD + "?limit=10&cursor=" + a)) \
        == ok(many.get(HD + "?limit=10&cursor=" + a))


def test_tampered_cursor(many):
    a = cursor(many)
    for i in range(0, len(a), max(1, len(a) // 24)):
        b = a[:i] + ("A" if a[i] != "A" else "B") + a[i + 1:]
        refused(many, "limit=10&cursor=" + b)
    for b in (a[:-1], a[1:], a + "A", a + "AAAA", a[::-1], "A" * len(a),
              "x", "A" * 512, "0"):
        refused(many, "limit=10&cursor=" + b)


@pytest.mark.parametrize("bad", ["", "%20", "a.b", "a%3D%3D", "a%00",
                                 "A" * 513, "%C3%A9", "a/b"])
def test_malformed_cursor(many, bad):
    r = many.get(HD + "?limit=10&cursor=" + bad)
    p = problem(r, 400)
    assert p["code"] in ("request.invalid_cursor",
                         "request.invalid_parameter"), p


def test_non_canonical_cursor(many):
    """The unused low bits of the last character make no second spelling."""
    a = cursor(many)
    abc = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    b = a[:-1] + abc[abc.index(a[-1]) ^ 1]
    refused(many, "limit=10&cursor=" + b)


def test_cursor_of_another_person(many, stack):
    other = stack.new_user()
    series(other, 30)
    refused(other, "limit=10&cursor=" + cursor(many))


def test_cursor_with_other_filters(many):
    a = cursor(many, "limit=10&data_type=heart_rate")
    ok(many.get(HD + "?limit=10&data_type=heart_rate&cursor=" + a))
    refused(many, "limit=10&cursor=" + a)
    refused(many, "limit=10&data_type=weight&cursor=" + a)
    refused(many, "limit=10&data_type=heart_rate,weight&cursor=" + a)
    refused(many, "limit=10&data_type=heart_rate&source=manual&cursor=" + a)
    refused(many, "limit=10&data_type=heart_rate&order=asc&cursor=" + a)
    refused(many, "limit=10&data_type=heart_rate"
            "&from=2026-01-01T00:00:00Z&cursor=" + a)
    refused(many, "limit=10&data_type=heart_rate"
            "&to=2026-01-09T00:00:00Z&cursor=" + a)
    b = cursor(many, "limit=10&from=2026-01-01T00:00:00Z")
    refused(many, "limit=10&from=2026-01-01T00:00:01Z&cursor=" + b)


def test_order_desc_is_the_default_said_aloud(many):
    a = cursor(many)
    ok(many.get(HD + "?limit=10&order=desc&cursor=" + a))


def test_cursor_of_another_route(many):
    a = cursor(many)
    r = many.get(HD + "/latest?cursor=" + a)
    assert r.status == 400, r


def test_a_walk_neither_repeats_nor_skips(user):
    """Rows come and go meanwhile; those that stay are seen exactly once."""
    keep = series(user, 80, "heart_rate", "2026-01-10")
    gone = series(user, 40, "weight", "2026-01-10")
    items, nxt, i = [], None, 0
    while True:
        doc = ok(user.get(HD + "?limit=7" + ("&cursor=" + nxt
                                             if nxt else "")))
        items += doc["items"]
        nxt = doc["next"]
        if nxt is None:
            break
        for _ in range(3):
            if gone:
                user.delete(HD + "/" + gone.pop())
        user.record(data_type="steps", value=i,
                    timestamp="2026-01-10T00:%02d:30Z" % (i % 60))
        user.record(data_type="steps", value=i,
                    timestamp="2026-01-1%dT00:00:00Z" % (i % 3))
        i += 1
        assert i < 200
    ids = [x["id"] for x in items]
    assert len(ids) == len(set(ids))
    assert set(keep) <= set(ids)


def test_the_row_at_the_cursor_may_go(user):
    series(user, 30)
    doc = ok(user.get(HD + "?limit=10"))
    user.delete(HD + "/" + doc["items"][-1]["id"])
    rest = ok(user.get(HD + "?limit=200&cursor=" + doc["next"]))
    assert len(rest["items"]) == 20 and rest["next"] is None


# --- latest ---

def test_latest(many):
    doc = ok(many.get(HD + "/latest"))
    assert set(doc) == {"items", "next"} and doc["next"] is None
    types = [x["data_type"] for x in doc["items"]]
    assert types == ["custom:drops", "heart_rate", "steps", "weight"]
    for x in doc["items"]:
        top = ok(many.get(HD + "?limit=1&data_type=" + x["data_type"]))
        assert top["items"] == [x]


def test_latest_by_timestamp_not_by_arrival(user):
    a = user.record(data_type="weight", value=80,
                    timestamp="2026-02-02T00:00:00Z").json()
    user.record(data_type="weight", value=79,
                timestamp="2025-02-02T00:00:00Z")
    assert ok(user.get(HD + "/latest"))["items"] == [a]
    user.delete(HD + "/" + a["id"])
    assert ok(user.get(HD + "/latest"))["items"][0]["value"] == 79


def test_latest_has_each_custom_slug(user):
    for slug in ("b", "a", "c"):
        for v in (1, 2):
            user.record(data_type="custom:" + slug, value=v, unit="g",
                        timestamp="2026-02-0%dT00:00:00Z" % v)
    items = ok(user.get(HD + "/latest"))["items"]
    assert [(x["data_type"], x["value"]) for x in items] == \
        [("custom:a", 2), ("custom:b", 2), ("custom:c", 2)]


# --- old and new times live in one list ---

def test_a_lifetime(user):
    years = list(range(1900, 2027, 7))
    for y in years:
        user.record(data_type="height", value=100 + (y - 1900) / 2,
                    timestamp="%d-01-01T00:00:00Z" % y)
    items = walk(user, HD, 5)
    assert [int(x["timestamp"][:4]) for x in items] == years[::-1]


def test_reads_under_writes_are_whole(user):
    """Lists answer complete records while others write."""
    stop, bad = threading.Event(), []

    def write():
        i = 0
        while not stop.is_set():
            user.record(data_type="steps", value=i % 1000,
                        timestamp=iso(ago(days=i % 300, seconds=i)))
            i += 1

    t = threading.Thread(target=write)
    t.start()
    try:
        for _ in range(40):
            for x in ok(user.get(HD + "?limit=50"))["items"]:
                if x["data_type"] != "steps" or x["user_id"] != user.id:
                    bad.append(x)
    finally:
        stop.set()
        t.join()
    assert not bad
