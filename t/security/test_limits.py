"""
The rate classes, on the stack with limits on (conftest.py).  Each test
speaks from an address of its own (127.0.0.2 and up), so that none uses up
another's.
"""

import re
import threading
import time

import pytest

from hmhttp import Client, ok, problem
from hmlimits import login, nobody
from hmstack import PASSWORD

HD = "/health-data"


@pytest.fixture
def directives(limited):
    yield limited.directives
    limited.directives()


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


# --- everything that is counted says so, problems too ---

def test_refusals_tell_the_limits_too(limited):
    u = limited.new_user(source="127.0.0.50")
    anon = Client(limited, source="127.0.0.51")
    n = left(u.get(HD), "data-read")
    for r, status in ((u.get(HD + "?limit=0"), 400),
                      (u.get(HD + "/00000000-0000-7000-8000-000000000000"),
                       404)):
        assert r.status == status
        n -= 1
        assert left(r, "data-read") == n
    assert left(u.post(HD, {"data_type": "no"}), "data-write") < 1000
    assert left(u.call("POST", HD, body=b"{", ctype="text/plain"),
                "data-write") < 1000

    # No token, or none that is good: counted for the address.
    a = anon.get(HD)
    b = anon.get(HD, token="x.y.z")
    assert (a.status, b.status) == (401, 401)
    assert left(a, "data-read") == 2999 and left(b, "data-read") == 2998
    assert left(u.get(HD), "data-read") == n - 1

    # Nothing there, or not that way: default.
    n = left(anon.get("/nowhere"), "default")
    assert n == 299
    r = anon.call("DELETE", "/auth/login")
    assert r.status == 405 and left(r, "default") == 298
    r = u.get("/nowhere")
    assert r.status == 404 and left(r, "default") == 299


def test_a_spoofed_forwarded_header_is_nobody_else(limited):
    c = Client(limited, source="127.0.0.52")
    n = left(c.get(HD), "data-read")
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP",
                 "CF-Connecting-IP", "True-Client-IP"):
        n -= 1
        assert left(c.get(HD, headers={name: "203.0.113.9"}),
                    "data-read") == n


def test_classes_of_auth_and_users(limited):
    """rules.md 7: what guesses secrets is auth, the rest is default."""
    auth = re.compile(r"/auth/(login|register|forgot-password|"
                      r"reset-password|verify-email|mfa/|passkeys)")
    doc = ok(Client(limited).root("GET", "/openapi.json"))
    seen = 0
    for path, item in doc["paths"].items():
        if not path.startswith("/api/v1/auth/"):
            continue
        for method, op in item.items():
            if method in ("get", "post", "put", "patch", "delete"):
                seen += 1
                want = "auth" if auth.search(path) else "default"
                assert op["x-rate-class"] == want, (method, path)
    assert seen >= 3


# --- exact ---

def burst(u, n, threads=8, path="/users/me"):
    """n requests over connections of their own; statuses."""
    out, lock = [], threading.Lock()

    def run(k):
        c = Client(u.stack, u.token, source=u.source)
        for _ in range(k):
            r = c.get(path)
            with lock:
                out.append(r)

    ts = [threading.Thread(target=run, args=(n // threads,))
          for _ in range(threads)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    return out


def test_exact_over_both_workers_and_a_reload(limited, directives):
    directives("healthmate_rate_limit default 50 1h")
    u = limited.new_user(source="127.0.0.60")
    got = burst(u, 24)
    limited.reload()
    got += burst(u, 80)
    assert [r.status for r in got].count(200) == 50
    late = [r for r in got if r.status == 429]
    assert len(late) == 54
    for r in late:
        problem(r, 429, "rate.limited")
        assert r.header("ratelimit-policy") == '"default";q=50;w=3600'
        m = re.match(r'^"default";r=0;t=(\d+)$', r.header("ratelimit"))
        assert m and 3500 < int(m.group(1)) <= 3600
        assert r.header("retry-after") == m.group(1)
    # What was left counts down by one, in whatever worker.
    assert sorted(int(re.search(r"r=(\d+)", r.header("ratelimit")).group(1))
                  for r in got if r.status == 200) == list(range(50))


def test_after_retry_after_there_is_a_whole_bucket(limited, directives):
    directives("healthmate_rate_limit default 3 2s")
    u = limited.new_user(source="127.0.0.61")
    for _ in range(2):
        got = [u.get("/users/me") for _ in range(4)]
        assert [r.status for r in got] == [200, 200, 200, 429]
        assert got[-1].header("retry-after") in ("1", "2")
        time.sleep(int(got[-1].header("retry-after")))


def test_a_batch_may_use_the_last_item(limited, directives):
    directives("healthmate_rate_limit ingest 3 1h")
    u = limited.new_user(source="127.0.0.62")
    one = {"data_type": "heart_rate", "value": 70}
    problem(u.post(HD + "/batch", [one] * 4), 429, "rate.limited")
    ok(u.post(HD + "/batch", [dict(one, value=71)]))
    r = u.post(HD + "/batch", [dict(one, value=72)])
    assert r.status == 200 and left_of(r) == 0, r
    problem(u.post(HD + "/batch", [one]), 429, "rate.limited")


def left_of(r):
    return int(re.search(r";r=(\d+);", r.header("ratelimit")).group(1))


@pytest.mark.parametrize("line", [
    "healthmate_rate_limit nothing 5 1m", "healthmate_rate_limit auth 0 1m",
    "healthmate_rate_limit auth 5 0s", "healthmate_rate_limit auth 5 2d",
    "healthmate_rate_limit auth x 1m", "healthmate_rate_limit auth 5",
    "healthmate_login_limit 0 300s", "healthmate_login_limit 5",
    "healthmate_login_ceiling 5 25h", "healthmate_rate_limit_cluster maybe"])
def test_directives_that_are_refused(limited, line):
    limited.write([line])
    try:
        r = limited.nginx("-t")
        assert r.returncode != 0 and "[emerg]" in r.stdout, r.stdout
    finally:
        limited.write([])
    assert limited.nginx("-t").returncode == 0


# --- outside the module: nginx's own refusals come in the same form ---

def test_429_and_503_never_come_without_retry_after(limited):
    c = Client(limited, source="127.0.0.63")
    for _ in range(13):
        r = login(c, nobody(), PASSWORD)
        if r.status == 429:
            assert re.match(r"^[1-9]\d*$", r.header("retry-after"))
            break
    else:
        raise AssertionError("13 logins in one go")


def test_wrong_codes_are_wrong_logins(limited):
    """A password that is known buys no guesses at the code behind it."""
    from hmotp import Totp
    u = limited.new_user(source="127.0.0.90")
    totp = Totp(ok(u.post("/auth/mfa/totp"))["secret"])
    ok(u.post("/auth/mfa/totp/confirm", {"otp": totp.next()}))

    def go(source, otp=None):
        c = Client(limited, source=source)
        return c.post("/auth/login", {
            "email": u.email, "password": PASSWORD, "otp": otp,
            "fingerprint": False}, token=None)

    # Asking for the code is no guess, and gives no guess back.
    for n in range(4):
        problem(go("127.0.0.91", totp.wrong()), 401, "auth.mfa_invalid")
        problem(go("127.0.0.92"), 401, "auth.mfa_required")
    problem(go("127.0.0.93", totp.wrong()), 401, "auth.mfa_invalid")
    for source in ("127.0.0.93", "127.0.0.94"):
        problem(go(source, totp.next()), 429, "auth.too_many_attempts")
        problem(go(source), 429, "auth.too_many_attempts")
