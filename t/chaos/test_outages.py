"""
A part is down or hangs for a while: what the door answers meanwhile, and
that nothing has to be touched afterwards.
"""

import os
import signal
import time

import pytest

from hmdata import ago, iso
from hmhttp import ok, problem
from hmload import Load
from hmstack import wait

HD = "/health-data"


def up_again(stack, user):
    c = stack.client()
    wait(lambda: c.root("GET", "/ready", check=False).status == 200, 15, 0.05)
    wait(lambda: user.get(HD, check=False).status == 200, 5, 0.05)


def test_postgresql_stays_down(stack, user):
    """503 with Retry-After in problem form; /health lives, /ready does not."""
    rec = user.record(notes="DOWNTIME").json()
    c = stack.client()
    keeper = int(open(os.path.join(stack.env["HEALTHMATE_PIDS"],
                                   "postgres.keeper")).read())
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(stack.pid_of("postgres"), signal.SIGKILL)
        wait(lambda: not stack.pg_accepts(), 10, 0.05)
        t = time.monotonic()
        wait(lambda: c.root("GET", "/ready", check=False).status == 503, 10,
             0.1, "/ready to say 503")
        assert ok(c.root("GET", "/health"))
        for call in (lambda: user.get(HD),
                     lambda: user.get(HD + "/" + rec["id"]),
                     lambda: user.post(HD, {"data_type": "weight",
                                            "value": 80}),
                     lambda: user.delete(HD + "/" + rec["id"]),
                     lambda: c.post("/auth/login", {
                         "email": user.email, "password": user.password,
                         "fingerprint": False})):
            t = time.monotonic()
            r = call()
            assert r.status in (503, 504), r
            problem(r, r.status)
            assert b"DOWNTIME" not in r.body
            assert time.monotonic() - t < 7
        # What needs no database is served, and the gate still judges.
        assert c.root("GET", "/version").status == 200
        problem(c.get(HD), 401, "auth.token_missing")
        problem(c.get("/nothing"), 404)
    finally:
        os.kill(keeper, signal.SIGCONT)
    wait(stack.pg_accepts, 30, 0.05, "PostgreSQL to accept")
    t = time.monotonic()
    wait(lambda: user.get(HD, check=False).status == 200, 10, 0.02)
    assert time.monotonic() - t <= 2.0
    assert ok(user.get(HD + "/" + rec["id"]))["notes"] == "DOWNTIME"
    up_again(stack, user)


def test_postgresql_hangs(stack, user):
    """Backends stopped: a deadline answers, others of the door live on."""
    user.record()
    pids = stack.backends()
    assert pids
    c = stack.client()
    for p in pids:
        os.kill(p, signal.SIGSTOP)
    try:
        t = time.monotonic()
        r = user.get(HD)
        took = time.monotonic() - t
        assert r.status in (503, 504), r
        problem(r, r.status)
        assert took < 12, took
        t = time.monotonic()
        assert c.root("GET", "/health").status == 200
        assert time.monotonic() - t < 0.5
    finally:
        for p in pids:
            try:
                os.kill(p, signal.SIGCONT)
            except OSError:
                pass
    up_again(stack, user)


def test_redis_hangs(stack, user):
    """Records do not wait for Redis; the jobs come all the same."""
    pid = stack.pid_of("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        for i in range(30):
            t = time.monotonic()
            user.record(data_type="weight", value=60 + i,
                        timestamp=iso(ago(days=i)))
            assert time.monotonic() - t < 1.0
        wait(lambda: stack.one("select count(*) from jobs where user_id ="
                               " '%s'" % user.id) != "0", 5)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait(lambda: stack.one("select count(*) from jobs where user_id = '%s'"
                           " and state <> 'done'" % user.id) == "0", 45, 0.3,
         "the jobs to be done")


def test_redis_is_wiped(stack, user):
    """Streams are hints: with all of them gone the sweeper rings again."""
    import subprocess
    sock = stack.env["REDIS_URL"].partition("://")[2].partition("?")[0]
    sock = sock[sock.index("/", sock.rfind("@") + 1):]
    key = os.path.join(stack.real, "keys", "redis-admin")
    if not os.path.exists(key):
        pytest.skip("no password of the Redis administrator")
    env = dict(os.environ, REDISCLI_AUTH=open(key).read().strip())
    for i in range(20):
        user.record(data_type="weight", value=60 + i,
                    timestamp=iso(ago(days=i)))
        if i % 5 == 0:
            subprocess.run(["redis-cli", "-s", sock, "--user", "hm_admin",
                            "--no-auth-warning", "flushall"], env=env,
                           check=True, stdout=subprocess.DEVNULL)
    wait(lambda: stack.one("select count(*) from jobs where user_id = '%s'"
                           " and state <> 'done'" % user.id) == "0", 45, 0.3,
         "the jobs to be done")


def test_a_locked_row_holds_nobody_else_up(stack, user, stranger):
    """A row lock held outside: its writer waits or is told, others do not."""
    import subprocess
    rec = user.record(data_type="weight", value=80).json()
    hold = subprocess.Popen(
        ["psql", "-XAtq"], env=stack.psql_env(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    try:
        hold.stdin.write("begin; select 'locked' from health_data where id ="
                         " '%s' for update;\n" % rec["id"])
        hold.stdin.flush()
        assert hold.stdout.readline().strip() == "locked"
        import threading
        got = []
        t = threading.Thread(target=lambda: got.append(
            user.patch(HD + "/" + rec["id"], {"value": 81})))
        t.start()
        time.sleep(0.1)
        worst = 0.0
        for _ in range(30):
            a = time.monotonic()
            ok(stranger.get(HD))
            worst = max(worst, time.monotonic() - a)
        assert worst < 0.5, worst
        t.join(15)
        assert got and got[0].status in (503, 504), got
    finally:
        hold.stdin.close()
        hold.wait(10)
    ok(user.patch(HD + "/" + rec["id"], {"value": 82}))


def test_load_through_an_outage_loses_nothing(stack):
    """PostgreSQL restarts in the fast mode (an upgrade) under load."""
    load = Load(stack, threads=6, seed=51).start()
    try:
        time.sleep(0.8)
        os.kill(stack.pid_of("postgres"), signal.SIGINT)
        time.sleep(0.3)
        wait(stack.pg_accepts, 40, 0.05)
        time.sleep(1.5)
    finally:
        load.stop()
    assert set(load.statuses) <= {200, 201, 503, 504}, load.statuses
    assert not load.lost, load.lost[:3]
    load.judge()
