"""
Two nodes that count together in Redis: the stack's nginx, and a second one
from the same configuration with ports of its own.
"""

import os
import re
import shutil
import signal
import subprocess

import pytest

import hmhttp
from hmhttp import Client, problem
from hmlimits import login, nobody
from hmstack import PASSWORD, wait

WIDE = "healthmate_rate_limit auth 1000 60s"


class Node:
    """What hmhttp.Client needs of a stack."""

    def __init__(self, stack):
        self.stack = stack
        self.http, self.https = hmhttp.free_port(), hmhttp.free_port()
        self.top = stack.real + "/nginx/conf2"
        shutil.rmtree(self.top, ignore_errors=True)
        shutil.copytree(stack.real + "/nginx/conf", self.top)
        self.pid = stack.real + "/nginx/second.pid"
        for name in os.listdir(self.top):
            p = os.path.join(self.top, name)
            s = open(p).read()
            s = re.sub(r"(:)%d\b" % stack.http, r"\g<1>%d" % self.http, s)
            s = re.sub(r"(:)%d\b" % stack.https, r"\g<1>%d" % self.https, s)
            s = re.sub(r"^pid .*;$", 'pid "%s";' % self.pid, s, flags=re.M)
            open(p, "w").write(s)
        r = subprocess.run(
            ["nginx", "-p", stack.real + "/nginx/", "-c",
             self.top + "/nginx.conf", "-e", stack.real + "/logs/error.log"],
            cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        assert r.returncode == 0, r.stdout
        wait(lambda: Client(self).root("GET", "/ready").status == 200, 20)

    def stop(self):
        pid = int(open(self.pid).read())
        os.kill(pid, signal.SIGTERM)
        wait(lambda: not os.path.exists("/proc/%d" % pid), 20)


@pytest.fixture(scope="module")
def nodes(limited):
    limited.directives("healthmate_rate_limit_cluster on",
                       "healthmate_rate_limit default 20 1h", WIDE)
    other = Node(limited)
    yield limited, other
    other.stop()
    limited.directives()


def redis(stack, *args):
    key = open(os.path.join(stack.real, "keys", "redis-admin")).read()
    conf = open(stack.real + "/nginx/conf/healthmate.conf").read()
    sock = re.search(r'"unix:([^"]+)"', conf).group(1)
    return subprocess.run(
        ["redis-cli", "-s", sock, "--user", "hm_admin", "--no-auth-warning"]
        + list(args), env=dict(os.environ, REDISCLI_AUTH=key.strip()),
        stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def counted(nodes):
    """Until the nodes have heard of everything from Redis."""
    last = [None]

    def same():
        now = [figure(n) for n in nodes]
        done, last[0] = now == last[0], now
        return done
    wait(same, 10, 0.05)


def figure(node):
    text = Client(node).root("GET", "/metrics").text
    return re.search(r"^healthmate_cluster_counts_total (\d+)$", text,
                     re.M).group(1)


def test_two_nodes_count_one_bucket(nodes):
    a, b = nodes
    u = a.new_user(source="127.0.0.70")
    here = Client(a, u.token, source="127.0.0.70")
    there = Client(b, u.token, source="127.0.0.70")
    # A worker loads its keys with its first request, and names no counter
    # before: this count does not begin there.
    w = a.new_user(source="127.0.0.70")
    for c in (here, there):
        assert c.get("/auth/me", token=w.token).status == 200
    got = []
    for i in range(26):
        got.append((here if i % 2 else there).get("/users/me").status)
        counted(nodes)
    # At most one too much: what the other did since this one last asked.
    assert got.count(200) in (20, 21), got
    assert set(got[21:]) == {429}, got
    problem(here.get("/users/me"), 429, "rate.limited")
    problem(there.get("/users/me"), 429, "rate.limited")


def test_two_nodes_count_one_account(nodes):
    a, b = nodes
    email = nobody()
    got = []
    for i in range(10):
        c = Client((a, b)[i % 2], source="127.0.71.%d" % (2 + i))
        got.append(login(c, email, "wrong horse").status)
        counted(nodes)
    assert got.count(401) in (5, 6) and set(got[6:]) == {429}, got


def test_redis_holds_numbers_and_no_names(nodes):
    a, _ = nodes
    u = a.new_user(source="127.0.0.72")
    u.get("/users/me")
    login(Client(a, source="127.0.0.72"), u.email, "wrong horse")
    counted(nodes)
    keys = [k for k in redis(a, "--scan") if k.startswith("hm:r:")]
    assert keys
    for k in keys:
        assert re.match(r"^hm:r:[A-Za-z0-9_-]{22}$", k), k
        assert re.match(r"^-?\d+$", redis(a, "get", k)[0])
        assert int(redis(a, "pttl", k)[0]) > 0, k


def test_a_success_is_forgotten_by_all(nodes):
    a, b = nodes
    u = a.new_user(source="127.0.0.73")
    one, two = Client(a, source="127.0.0.73"), Client(b, source="127.0.0.73")
    for _ in range(4):
        assert login(one, u.email, "wrong horse").status == 401
        counted(nodes)
    assert login(one, u.email).status == 200
    counted(nodes)
    for _ in range(3):
        assert login(two, u.email, "wrong horse").status == 401
    assert login(two, u.email).status == 200


def test_without_redis_each_counts_alone(nodes):
    a, b = nodes
    u = a.new_user(source="127.0.0.74")
    v = a.new_user(source="127.0.0.74")
    pid = a.pid_of("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        for node in nodes:
            c = Client(node, u.token, source="127.0.0.74")
            got = [c.get("/users/me").status for _ in range(22)]
            assert got == [200] * 20 + [429] * 2
            c = Client(node, source="127.0.75.1")
            email = nobody()
            assert [login(c, email, PASSWORD).status for _ in range(6)] \
                == [401] * 5 + [429]
    finally:
        os.kill(pid, signal.SIGCONT)
    c = Client(a, v.token, source="127.0.0.74")
    assert c.get("/users/me").status == 200
