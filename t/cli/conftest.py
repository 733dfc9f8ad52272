"""
Tests of the command line.  Those of `import` run against a sink (sink.py)
and need no stack; those marked with the `stack` fixture use the real one.
"""

import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import sink as hmsink                                          # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
CLI = os.environ.get("HEALTHMATE_CLI",
                     os.path.join(ROOT, "build", "healthmate"))


@pytest.fixture(autouse=True)
def watch():
    """No log watch: most of these tests start no server of ours."""
    yield


@pytest.fixture
def sink():
    s = hmsink.Sink()
    yield s
    s.close()


@pytest.fixture
def run(tmp_path):
    def call(*args, sink=None, **env):
        full = {"PATH": os.environ["PATH"], "HEALTHMATE_HOME": str(tmp_path)}
        if "ASAN_OPTIONS" in os.environ:
            full["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
        if sink is not None:
            full["HEALTHMATE_URL"] = sink.url
            full["HEALTHMATE_PASSWORD"] = sink.password
        full.update(env)
        return subprocess.run([CLI, *args], env=full, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, capture_output=True)
    return call
