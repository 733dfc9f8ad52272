"""
kill -9 of an nginx worker, of PostgreSQL and of Redis under load.

Each run shows that it hit: work was in flight, the victim was replaced.
HEALTHMATE_TEST_KILLS (default 2, the long run 10) is the count per victim.
"""

import os
import signal
import time

import pytest

from hmload import Load
from hmstack import wait

KILLS = int(os.environ.get("HEALTHMATE_TEST_KILLS", "2"))

DIED = r"exited on signal 9"


def alive(stack, path="/api/v1/auth/me", client=None):
    c = client or stack.client()
    return c.raw("GET", path, check=False).status == 200


@pytest.mark.alerts(DIED)
def test_kill_an_nginx_worker(stack):
    load = Load(stack, threads=8, seed=11).start()
    hit = 0
    try:
        for n in range(KILLS):
            time.sleep(0.8)
            w = stack.nginx_workers(old=False)
            victim = w[n % len(w)]
            lost = len(load.lost) + load.retries
            os.kill(victim, signal.SIGKILL)
            t = time.monotonic()
            wait(lambda: len(stack.nginx_workers(old=False)) >= len(w)
                 and victim not in stack.nginx_workers(), 5, 0.02)
            wait(lambda: alive(stack, client=load.people[0]), 5, 0.02)
            assert time.monotonic() - t < 2
        time.sleep(0.8)
    finally:
        load.stop()
    hit = len(load.lost)
    assert set(load.statuses) <= {200, 201}, load.statuses
    assert load.answered() > 100 * KILLS, load.statuses
    print("kills %d, lost in flight %d, answered %d"
          % (KILLS, hit, load.answered()))
    load.judge()


@pytest.mark.alerts(DIED)
@pytest.mark.parametrize("victim", ["postmaster", "backend"])
def test_kill_postgresql(stack, victim):
    """
    The service is back within 2 s of PostgreSQL accepting, with no reload;
    meanwhile it answers 503 or 504, never a 2xx that did not happen.
    """
    load = Load(stack, threads=6, seed=21).start()
    back = []
    try:
        for n in range(KILLS):
            time.sleep(0.8)
            if victim == "postmaster":
                pid = stack.pid_of("postgres")
            else:
                pid = stack.backends()[0]
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            wait(stack.pg_accepts, 40, 0.02, "PostgreSQL to accept")
            t = time.monotonic()
            wait(lambda: alive(stack, client=load.people[0]), 10, 0.02,
                 "the service to be back")
            back.append(time.monotonic() - t)
        time.sleep(0.8)
    finally:
        load.stop()
    assert set(load.statuses) <= {200, 201, 503, 504}, load.statuses
    assert load.statuses[200] and load.statuses[201]
    assert not load.lost, "the door itself never closes: %s" % load.lost[:3]
    assert max(back) <= 2.0, back
    load.judge()
    c = stack.client()
    wait(lambda: c.root("GET", "/ready").status == 200, 5)


def test_kill_redis(stack):
    """Plain records do not notice; the jobs arrive all the same."""
    load = Load(stack, threads=6, seed=31).start()
    try:
        for n in range(KILLS):
            time.sleep(0.8)
            pid = stack.pid_of("redis")
            os.kill(pid, signal.SIGKILL)
            wait(lambda: stack.pid_of("redis") != pid, 15, 0.05,
                 "Redis to be started again")
        time.sleep(0.8)
    finally:
        load.stop()
    assert not load.lost, load.lost[:3]
    assert set(load.statuses) <= {200, 201}, load.statuses
    load.judge()
    ids = "','".join(u.id for u in load.people)
    wait(lambda: stack.one("select count(*) from jobs where state in"
                           " ('ready', 'retry', 'running') and user_id in"
                           " ('%s')" % ids) == "0", 60, 0.3,
         "the jobs of the load to be done")
    dead = stack.one("select count(*) from jobs where state = 'dead'"
                     " and user_id in ('%s')" % ids)
    assert dead == "0", dead


def test_kill_the_job_workers(stack):
    """A worker killed at work: its lease runs out or is taken, jobs end."""
    load = Load(stack, threads=4, users=2, seed=41, pause=0.002).start()
    try:
        for n in range(KILLS):
            time.sleep(1.0)
            try:
                pid = stack.pid_of("worker")
            except OSError:
                pytest.skip("no worker pid file")
            kids = stack.children(pid, "") or [(pid, "")]
            os.kill(kids[n % len(kids)][0], signal.SIGKILL)
        time.sleep(0.5)
    finally:
        load.stop()
    assert set(load.statuses) <= {200, 201}, load.statuses
    load.judge()
    ids = "','".join(u.id for u in load.people)
    wait(lambda: stack.one("select count(*) from jobs where state in"
                           " ('ready', 'retry', 'running') and user_id in"
                           " ('%s')" % ids) == "0", 90, 0.5,
         "the jobs of the load to be done")
