"""
The harness all suites share: one stack per session, people to act as, and
the log watch.  See t/README.md.
"""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(
    os.path.abspath(__file__)), "lib"))

import hmhttp                                                  # noqa: E402
import hmlimits                                                # noqa: E402
import hmstack                                                 # noqa: E402


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "alerts(regex): log lines this test provokes on purpose")
    config.addinivalue_line(
        "markers", "slow: a minute or more; -m 'not slow' leaves it out")


def pytest_collection_modifyitems(items):
    # What the rest of the run collected is judged last.  Suites that kill
    # processes come before it, but after those that only ask; the limiter's
    # has a stack of its own.
    def rank(item):
        p = str(item.fspath)
        if item.name.startswith("test_zz_"):
            return 9
        for n, part in enumerate(("/api/", "/jobs/", "/web/", "/security/",
                                  "/lifecycle/", "/chaos/")):
            if part in p:
                return n
        return 5

    items.sort(key=rank)


@pytest.fixture(scope="session")
def stack():
    s = hmstack.Stack()
    try:
        s.start()
    except BaseException:
        s.env = {}
        try:
            s.stop()
        except Exception:
            pass
        raise
    yield s
    s.stop()


@pytest.fixture(scope="session")
def limited():
    """Another stack, with limits on."""
    s = hmlimits.Limited()
    try:
        s.start()
        yield s
    finally:
        s.stop()


@pytest.fixture(autouse=True)
def watch(request, stack):
    """Any alert, emerg or sanitizer line fails the test that caused it."""
    import re
    marks, cores = stack.log_marks(), set(stack.cores())
    yield
    bad = stack.bad_lines(marks)
    mark = request.node.get_closest_marker("alerts")
    if mark:
        allowed = re.compile(mark.args[0])
        bad = [x for x in bad if not allowed.search(x)]
    assert not bad, "in the logs:\n" + "\n".join(bad[:20])
    new = set(stack.cores()) - cores
    assert not new, "core files: %s" % sorted(new)


@pytest.fixture
def user(stack):
    """A fresh patient."""
    return stack.new_user()


@pytest.fixture(scope="module")
def mate(stack):
    """A patient shared by one file's tests that do not mind neighbours."""
    return stack.new_user()


@pytest.fixture(scope="session")
def stranger(stack):
    """Another patient, with one record."""
    c = stack.new_user()
    c.rec = c.record(data_type="weight", value=80,
                     timestamp="2026-01-01T00:00:00Z").json()
    return c


@pytest.fixture(scope="session")
def doctor(stack):
    return stack.new_user(role="doctor")


@pytest.fixture(scope="session")
def admin(stack):
    return stack.new_user(role="admin")


@pytest.fixture(scope="session")
def researcher(stack):
    return stack.new_user(role="researcher")


@pytest.fixture
def anon(stack):
    return stack.client()
