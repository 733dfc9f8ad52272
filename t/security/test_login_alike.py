"""
Login tells nobody whether an account exists: an unknown address, a wrong
password, a disabled account and an empty password are alike in body, in
headers and in time.

Time is judged by the probability that a sample of one class is above one of
another (AUC, Mann-Whitney), 0.5 when they are alike.  The samples are taken
in turns of random order over one connection.  The bound is 0.06 with 500
samples of a class and grows with the error of fewer: 3.3 sigma either way.
One fresh repeat before it is called a fault.
"""

import bisect
import itertools
import math
import os
import random
import time

import pytest

from hmhttp import Client, problem
from hmlimits import count
from hmstack import PASSWORD

SAMPLES = count("LOGIN_SAMPLES", 100, 500)

# Counted down, or of one answer only.
OWN = {"date", "x-request-id", "ratelimit"}


@pytest.fixture(scope="module")
def classes(stack):
    one = stack.new_user()
    off = stack.new_user()
    stack.psql("update users set is_active = false where id = '%s'" % off.id)

    def unknown():
        # As long as the addresses that exist.
        name = "t" + os.urandom(32).hex()
        return name[:len(one.email) - 12] + "@example.org", PASSWORD

    return {"unknown": unknown,
            "wrong": lambda: (one.email, "wrong horse battery"),
            "disabled": lambda: (off.email, PASSWORD),
            "empty": lambda: (one.email, "")}


def ask(c, make):
    email, password = make()
    t = time.perf_counter()
    r = c.post("/auth/login", {"email": email, "password": password,
                               "fingerprint": False}, token=None)
    return time.perf_counter() - t, r


def auc(a, b):
    """P(a > b) + P(a = b) / 2"""
    b = sorted(b)
    n = sum(bisect.bisect_left(b, x) + bisect.bisect_right(b, x) for x in a)
    return n / 2 / len(a) / len(b)


def test_alike_in_body_and_headers(stack, classes):
    c = Client(stack)
    seen = {}
    for name, make in classes.items():
        r = ask(c, make)[1]
        p = problem(r, 401, "auth.invalid_credentials")
        p.pop("request_id")
        seen[name] = (r.status, p, len(r.body),
                      [(k, v) for k, v in r.raw_headers
                       if k.lower() not in OWN],
                      [k for k, _ in r.raw_headers])
    assert len({repr(x) for x in seen.values()}) == 1, seen


def sample(stack, classes):
    c = Client(stack)
    times = {k: [] for k in classes}
    for _ in range(5):
        for make in classes.values():
            ask(c, make)
    order = list(classes)
    for _ in range(SAMPLES):
        random.shuffle(order)
        for k in order:
            t, r = ask(c, classes[k])
            assert r.status == 401, r
            times[k].append(t)
    return {(a, b): auc(times[a], times[b])
            for a, b in itertools.combinations(classes, 2)}


def test_alike_in_time(stack, classes):
    bound = 0.06 * math.sqrt(500 / SAMPLES)
    for _ in range(2):
        got = sample(stack, classes)
        bad = {k: round(v, 3) for k, v in got.items()
               if abs(v - 0.5) > bound}
        print("AUC of %d samples: %s" % (SAMPLES, {
            "%s/%s" % k: round(v, 3) for k, v in got.items()}))
        if not bad:
            return
    raise AssertionError("told apart: %s (bound %.3f)" % (bad, bound))
