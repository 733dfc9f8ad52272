"""api.md: POST /health-data/batch, JSON array and streamed NDJSON."""

import datetime
import json
import os
import socket
import time

import pytest

from hmdata import ago, iso
from hmhttp import BASE, UUID_RE, exchange, ok, parse_response, problem, \
    raw_request, walk

BATCH = "/health-data/batch"
HD = "/health-data"
DAY = ago(days=1)


def good(i, **kw):
    return dict({"data_type": "heart_rate", "value": 40 + i % 200,
                 "timestamp": iso(DAY - datetime.timedelta(minutes=i))}, **kw)


def counts(doc):
    return {k: doc[k] for k in ("total", "created", "duplicate", "failed")}


def shape(doc, n):
    assert set(doc) == {"total", "created", "duplicate", "failed",
                        "results"}, doc.keys()
    assert len(doc["results"]) == n == doc["total"]
    assert doc["created"] + doc["duplicate"] + doc["failed"] == n
    for i, r in enumerate(doc["results"]):
        assert r["index"] == i
        if r["status"] in (200, 201):
            assert set(r) == {"index", "status", "id"}, r
            assert UUID_RE.match(r["id"])
        else:
            assert r["status"] in (400, 422), r
            assert {"index", "status", "code"} <= set(r) <= {
                "index", "status", "code", "errors", "detail"}, r


def test_mixed(user):
    items = [good(0), good(0), good(1, value=7000), good(2, zz=1),
             {"data_type": "blood_pressure",
              "value": {"systolic": 120, "diastolic": 80}}, 7, None, [],
             good(3, data_type="nothing")]
    r = user.post(BATCH, items)
    doc = ok(r)
    shape(doc, len(items))
    assert [x["status"] for x in doc["results"]] == \
        [201, 200, 422, 422, 201, 422, 422, 422, 422], doc
    assert doc["results"][0]["id"] == doc["results"][1]["id"]
    assert counts(doc) == {"total": 9, "created": 2, "duplicate": 1,
                           "failed": 6}
    bad = doc["results"][2]
    assert bad["code"] == "validation.failed"
    assert [(e["pointer"], e["code"]) for e in bad["errors"]] == \
        [("/value", "range")]
    assert doc["results"][3]["errors"][0]["pointer"] == "/zz"
    assert len(ok(user.get(HD))["items"]) == 2


def test_duplicates_of_stored_ones(user):
    a = ok(user.post(HD, good(0)), 201)
    doc = ok(user.post(BATCH, [good(0, notes="x"), good(5, source_id="1"),
                               good(6, source_id="1"), good(0)]))
    assert [x["status"] for x in doc["results"]] == [200, 201, 200, 200]
    assert doc["results"][0]["id"] == a["id"] == doc["results"][3]["id"]
    assert doc["results"][1]["id"] == doc["results"][2]["id"]


def test_order_of_results_is_the_order_sent(user):
    items = [good(i * 7919 % 500, value=40 + i % 200) for i in range(300)]
    doc = ok(user.post(BATCH, items))
    stored = {x["id"]: x for x in walk(user, HD, 200)}
    for item, res in zip(items, doc["results"]):
        got = stored[res["id"]]
        if res["status"] == 201:
            assert got["value"] == item["value"]
            assert got["timestamp"] == item["timestamp"]


def test_10_000_items_and_one_more(user):
    items = [good(i, value=40 + i % 200) for i in range(10000)]
    t = time.monotonic()
    doc = ok(user.post(BATCH, items))
    shape(doc, 10000)
    assert doc["created"] == 10000, counts(doc)
    assert time.monotonic() - t < 30
    doc = ok(user.post(BATCH, items))
    assert doc["duplicate"] == 10000
    problem(user.post(BATCH, items + [good(0)]), 413, "request.too_large")


def test_above_8_mib(stack, user):
    line = json.dumps(good(0, notes="x" * 9000))
    body = ("[" + ",".join([line] * 950) + "]").encode()
    assert len(body) > 8 << 20
    problem(user.post(BATCH, body=body), 413, "request.too_large")
    assert ok(user.get(HD))["items"] == []


def test_between_1_and_8_mib(user):
    items = [good(i, notes="x" * 9000) for i in range(400)]
    doc = ok(user.post(BATCH, items))
    assert doc["created"] == 400


@pytest.mark.parametrize("body", [b"[]", b"{}", b"7", b'"x"', b"null",
                                  b'{"items":[]}'])
def test_no_array_or_an_empty_one(user, body):
    problem(user.post(BATCH, body=body), 422, "validation.failed")


@pytest.mark.parametrize("body", [
    b"", b"[", b'[{"data_type":"heart_rate","value":70}',
    b'[{"data_type":"heart_rate","value":70},]', b"[1,2", b"[]x",
    b'[{"data_type":"heart_rate" "value":70}]', b"\xff[]"])
def test_malformed_array(user, body):
    problem(user.post(BATCH, body=body), 400, "request.malformed")
    assert ok(user.get(HD))["items"] == []


def test_a_duplicate_key_inside_an_item(user):
    """Malformed as a whole, or that item's own failure; never stored."""
    r = user.post(BATCH, body=b'[{"data_type":"heart_rate","value":70,'
                              b'"value":71}]')
    if r.status == 200:
        doc = r.json()
        assert doc["failed"] == 1 and doc["results"][0]["status"] in (400,
                                                                      422)
    else:
        problem(r, 400, "request.malformed")
    assert ok(user.get(HD))["items"] == []


def test_media_types(user):
    problem(user.post(BATCH, body=b"[]", ctype="text/csv"), 415,
            "request.media_type")
    problem(user.raw("POST", BASE + BATCH, b"[]"), 415, "request.media_type")


# --- atomic ---

def test_atomic_good(user):
    doc = ok(user.post(BATCH + "?atomic=true", [good(0), good(1), good(0)]))
    shape(doc, 3)
    assert [x["status"] for x in doc["results"]] == [201, 201, 200]


def test_atomic_bad_stores_nothing(user):
    r = user.post(BATCH + "?atomic=true",
                  [good(0), good(1, zz=1), good(2, value=7000)])
    problem(r, 422, "validation.failed",
            {"/1/zz": "unknown", "/2/value": "range"})
    assert ok(user.get(HD))["items"] == []
    assert ok(user.post(BATCH, [good(0)]))["created"] == 1


def test_atomic_false_is_the_default(user):
    doc = ok(user.post(BATCH + "?atomic=false", [good(0), 5]))
    assert counts(doc) == {"total": 2, "created": 1, "duplicate": 0,
                           "failed": 1}


def test_replay_of_a_batch(user):
    k = {"Idempotency-Key": "b-" + os.urandom(4).hex()}
    items = [good(0), good(1)]
    a = user.post(BATCH, items, headers=k)
    b = user.post(BATCH, items, headers=k)
    assert ok(a)["created"] == 2
    assert b.body == a.body and b.header("idempotent-replayed") == "true"


# --- NDJSON ---

def nd(user, body, query=""):
    r = user.post(BATCH + query, body=body, ctype="application/x-ndjson")
    assert r.status == 200, r
    assert r.header("content-type").split(";")[0] == "application/x-ndjson"
    lines = [json.loads(x) for x in r.text.splitlines() if x]
    assert r.text.endswith("\n")
    return lines[:-1], lines[-1]


def lines(*items):
    return b"".join(x if isinstance(x, bytes) else
                    json.dumps(x).encode() + b"\n" for x in items)


def check_nd(results, last, n):
    assert set(last) == {"total", "created", "duplicate", "failed"}, last
    assert last["total"] == n == len(results)
    assert last["created"] == sum(x["status"] == 201 for x in results)
    assert last["duplicate"] == sum(x["status"] == 200 for x in results)
    assert last["failed"] == sum(x["status"] >= 400 for x in results)
    assert [x["index"] for x in results] == list(range(n))


def test_ndjson(user):
    results, last = nd(user, lines(good(0), good(1), good(2, value=7000)))
    check_nd(results, last, 3)
    assert [x["status"] for x in results] == [201, 201, 422]
    assert results[2]["errors"][0]["pointer"] == "/value"
    assert len(ok(user.get(HD))["items"]) == 2


def test_ndjson_broken_lines(user):
    results, last = nd(user, lines(
        good(0), b"{broken\n", b"\xff\xfe\n", b'{"a":1,"a":2}\n', b"7\n",
        b"[]\n", good(1)))
    check_nd(results, last, 7)
    st = [x["status"] for x in results]
    assert st[:4] == [201, 400, 400, 400] and st[6] == 201
    assert st[4] in (400, 422) and st[5] in (400, 422)
    assert results[1]["code"] == "request.malformed"


def test_ndjson_line_ends(user):
    """CR LF, no newline at the end; blank lines hold nothing."""
    body = json.dumps(good(0)).encode() + b"\r\n" \
        + json.dumps(good(1)).encode() + b"\n\n" \
        + json.dumps(good(2)).encode()
    results, last = nd(user, body)
    assert last["created"] == 3, (results, last)
    assert last["failed"] == 0, (results, last)


def test_ndjson_empty(user):
    r = user.post(BATCH, body=b"", ctype="application/x-ndjson")
    if r.status == 200:
        assert json.loads(r.text)["total"] == 0
    else:
        problem(r, r.status)
        assert r.status in (400, 422)


def test_ndjson_many_more_than_an_array_takes(user):
    n = 12000
    body = b"".join(b'{"data_type":"heart_rate","value":%d,"source":"csv",'
                    b'"source_id":"%d","timestamp":"2026-01-%02dT%02d:%02d:'
                    b'00Z"}\n' % (40 + i % 200, i, 1 + i // 1440 % 28,
                                  i // 60 % 24, i % 60) for i in range(n))
    t = time.monotonic()
    results, last = nd(user, body)
    assert last == {"total": n, "created": n, "duplicate": 0, "failed": 0}
    check_nd(results, last, n)
    assert time.monotonic() - t < 30
    # dedup makes repeats safe
    _, last = nd(user, body[:body.index(b"\n", 1 << 18) + 1])
    assert last["created"] == 0 and last["duplicate"] == last["total"]


def test_ndjson_ignores_idempotency_key(user):
    h = {"Idempotency-Key": "n-" + os.urandom(4).hex()}
    for want in (201, 200):
        r = user.post(BATCH, body=lines(good(0, source_id="i")), headers=h,
                      ctype="application/x-ndjson")
        assert r.status == 200 and r.header("idempotent-replayed") is None
        assert json.loads(r.text.splitlines()[0])["status"] == want


def test_ndjson_a_very_long_line(user):
    """A line above the limit of one record is its own failure, not memory."""
    big = b'{"data_type":"heart_rate","value":70,"notes":"' \
        + b"x" * (2 << 20) + b'"}\n'
    r = user.post(BATCH, body=lines(good(0)) + big + lines(good(1)),
                  ctype="application/x-ndjson")
    assert r.status in (200, 413), r
    if r.status == 200:
        ls = [json.loads(x) for x in r.text.splitlines()]
        assert ls[-1]["created"] >= 1 and ls[-1]["failed"] >= 1, ls


def stream(stack, user, parts, pause, ctype=b"application/x-ndjson"):
    s = socket.create_connection(("127.0.0.1", stack.http), timeout=30)
    s.sendall(b"POST /api/v1/health-data/batch HTTP/1.1\r\n"
              b"Host: localhost\r\nConnection: close\r\n"
              b"Content-Type: " + ctype + b"\r\nAuthorization: Bearer "
              + user.token.encode() +
              b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    for p in parts:
        s.sendall(b"%x\r\n%s\r\n" % (len(p), p))
        time.sleep(pause)
    s.sendall(b"0\r\n\r\n")
    out = b""
    while True:
        part = s.recv(65536)
        if not part:
            break
        out += part
    s.close()
    return parse_response(out)[0]


def test_ndjson_streamed_by_a_slow_sender(stack, user):
    body = lines(*[good(i, source_id="s%d" % i) for i in range(20)])
    cuts = [body[i:i + 97] for i in range(0, len(body), 97)]
    r = stream(stack, user, cuts, 0.03)
    assert r.status == 200, r
    ls = [json.loads(x) for x in r.text.splitlines()]
    assert ls[-1] == {"total": 20, "created": 20, "duplicate": 0,
                      "failed": 0}


def test_array_streamed_in_chunks(stack, user):
    body = json.dumps([good(i) for i in range(20)]).encode()
    cuts = [body[i:i + 501] for i in range(0, len(body), 501)]
    r = stream(stack, user, cuts, 0.005, b"application/json")
    assert r.status == 200 and r.json()["created"] == 20, r


def test_ndjson_answer_begins_before_the_body_ends(stack, user):
    """
    Read in parts: the first results may come while the sender still sends.
    Not demanded by the contract; what is: no deadlock when the sender reads
    nothing until it has sent all.
    """
    body = lines(*[good(i, source_id="d%d" % i) for i in range(4000)])
    r = stream(stack, user, [body[i:i + 65536]
                             for i in range(0, len(body), 65536)], 0)
    ls = r.text.splitlines()
    assert json.loads(ls[-1])["created"] == 4000


def test_ndjson_sender_goes_away(stack, user):
    """Whole parts may be stored; a repeat of all makes it complete."""
    items = [good(i, source_id="g%d" % i) for i in range(1200)]
    body = lines(*items)
    s = socket.create_connection(("127.0.0.1", stack.http), timeout=30)
    s.sendall(b"POST /api/v1/health-data/batch HTTP/1.1\r\n"
              b"Host: localhost\r\nContent-Type: application/x-ndjson\r\n"
              b"Authorization: Bearer " + user.token.encode() +
              b"\r\nContent-Length: %d\r\n\r\n" % len(body))
    s.sendall(body[:len(body) * 2 // 3])
    time.sleep(0.3)
    s.close()
    time.sleep(0.5)
    _, last = nd(user, body)
    assert last["total"] == 1200 and last["failed"] == 0
    assert last["created"] + last["duplicate"] == 1200
    assert len(walk(user, HD, 200)) == 1200


def test_ndjson_bad_content_length_is_not_the_next_request(stack, user):
    """What follows the body's end is another request, never a line."""
    one = lines(good(0))
    head = (b"POST /api/v1/health-data/batch HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/x-ndjson\r\nAuthorization: Bearer "
            + user.token.encode() + b"\r\nContent-Length: %d\r\n\r\n"
            % len(one))
    tail = (b"GET /api/v1/auth/me HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer " + user.token.encode() +
            b"\r\nConnection: close\r\n\r\n")
    a, rest = parse_response(exchange(stack.http, head + one + tail))
    b, rest = parse_response(rest)
    assert a.status == 200 and json.loads(
        a.text.splitlines()[-1])["total"] == 1
    assert b.json()["id"] == user.id and rest == b""


def test_batch_needs_a_token(anon):
    problem(anon.post(BATCH, [good(0)]), 401, "auth.token_missing")
    problem(anon.post(BATCH, body=lines(good(0)),
                      ctype="application/x-ndjson"), 401)
