"""
The limiter, on a stack of its own with limits on.  Each test speaks from an
address of its own (127.0.0.2 and up), so that none uses up another's.
"""

import os
import re
import time

import pytest

import hmstack
from hmhttp import Client, ok, problem
from hmstack import PASSWORD

HD = "/health-data"


@pytest.fixture(scope="module")
def limited():
    s = hmstack.Stack(limits="on")
    s.start()
    yield s
    s.stop()


def login(c, email, password):
    return c.post("/auth/login", {"email": email, "password": password,
                                  "fingerprint": False}, token=None)


def nobody():
    return "n-%s@example.org" % os.urandom(5).hex()


def left(r, name):
    m = re.match(r'^"%s";r=(\d+);t=(\d+)$' % name, r.header("ratelimit"))
    assert m, r.raw_headers
    assert int(m.group(2)) <= 60
    return int(m.group(1))


def test_counted_and_told(limited):
    u = limited.new_user(source="127.0.0.10")
    a = u.get(HD)
    assert a.header("ratelimit-policy") == '"data-read";q=3000;w=60'
    n = left(a, "data-read")
    assert left(u.get(HD), "data-read") == n - 1
    w = u.record()
    assert w.header("ratelimit-policy") == '"data-write";q=1000;w=60'
    m = left(w, "data-write")
    assert left(u.record(value=71), "data-write") == m - 1
    # A bucket is a person's, not an address's.
    v = limited.new_user(source="127.0.0.10")
    assert left(v.get(HD), "data-read") == n


def test_errors_count_too(limited):
    u = limited.new_user(source="127.0.0.11")
    n = left(u.get(HD), "data-read")
    u.get(HD + "?limit=0")
    u.get(HD + "/00000000-0000-7000-8000-000000000000")
    assert left(u.get(HD), "data-read") == n - 3


def test_root_routes_are_outside(limited):
    c = Client(limited, source="127.0.0.12")
    for _ in range(50):
        r = c.root("GET", "/health")
        assert r.status == 200 and r.header("ratelimit") is None


def test_auth_is_ten_a_minute_per_address(limited):
    c = Client(limited, source="127.0.0.20")
    got = [login(c, nobody(), PASSWORD) for _ in range(12)]
    assert [r.status for r in got] == [401] * 10 + [429] * 2, got
    problem(got[-1], 429, "rate.limited")
    assert re.match(r"^\d+$", got[-1].header("retry-after"))
    assert 1 <= int(got[-1].header("retry-after")) <= 60
    assert left(got[-1], "auth") == 0
    # Another address has its own.
    assert login(Client(limited, source="127.1.0.21"), nobody(),
                 PASSWORD).status == 401


@pytest.mark.parametrize("exists", [True, False])
def test_five_failures_lock_the_account_known_or_not(limited, exists):
    src = "127.0.1.%d" % (30 + exists)
    if exists:
        u = limited.new_user(source=src)
        email = u.email
    else:
        email = nobody()
    c = Client(limited, source=src)
    got = [login(c, email, "wrong horse") for _ in range(6)]
    assert [r.status for r in got] == [401] * 5 + [429], got
    problem(got[-1], 429, "auth.too_many_attempts")
    assert 1 <= int(got[-1].header("retry-after")) <= 300
    r = login(c, email, PASSWORD)
    problem(r, 429, "auth.too_many_attempts")


def test_a_batch_above_what_is_left_is_refused_whole(limited):
    u = limited.new_user(source="127.0.0.40")
    # 100,000 items a minute: say them by invalid items, which count as well.
    items = [7] * 10000
    for i in range(10):
        r = u.post(HD + "/batch", items)
        assert r.status == 200, (i, r)
    r = u.post(HD + "/batch", [{"data_type": "heart_rate", "value": 70}])
    problem(r, 429, "rate.limited")
    assert r.header("retry-after")
    assert ok(u.get(HD))["items"] == []


def test_data_write_1000_a_minute(limited):
    u = limited.new_user(source="127.0.0.41")
    t = time.monotonic()
    codes = [u.post(HD, {"data_type": "heart_rate"}).status
             for _ in range(1001)]
    if time.monotonic() - t > 50:
        pytest.skip("too slow a machine to fill a minute's bucket")
    assert codes[:1000] == [422] * 1000
    assert codes[1000] == 429
    ok(u.get(HD))                               # reads have their own
