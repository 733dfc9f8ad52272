"""The admin commands and a real import, against a running stack."""

import glob
import json
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
REAL = sorted(glob.glob(os.path.join(
    os.path.dirname(ROOT), "shared", "data", "fhir", "*.json")))
PASSWORD = "a horse, a battery"


@pytest.fixture
def cli(stack):
    def call(*args, stdin="", **env):
        full = dict(os.environ, HEALTHMATE_HOME=stack.home)
        full.pop("HEALTHMATE_PASSWORD", None)
        full.update(env)
        return subprocess.run(
            [os.path.join(ROOT, "build", "healthmate"), *args], env=full,
            input=stdin, text=True, timeout=120, capture_output=True)
    return call


@pytest.fixture
def email():
    return "cli-%s@example.org" % os.urandom(4).hex()


def test_keys(cli):
    r = cli("keys", "init")
    assert r.returncode == 0 and "is there" in r.stdout
    doc = json.loads(cli("keys", "status", "--json").stdout)
    assert doc["current"] >= 1
    assert any(k["state"] == "active" and k["keys"] for k in doc["keys"])


def test_user_create(cli, stack, email):
    r = cli("user", "create", "--email", email.upper(), "--name", "Żoë",
            "--role", "doctor", stdin=PASSWORD + "\n")
    assert r.returncode == 0, r.stderr
    id = re.search(r"id (\S+)", r.stdout).group(1)

    c = stack.login(stack.client(), email, PASSWORD)
    assert c.user["id"] == id
    assert c.user["email_verified"] is True
    assert (c.user["full_name"], c.user["role"]) == ("Żoë", "doctor")

    # one audit row, in the shard of that command; no clear text anywhere
    assert stack.one("select count(*) from audit_logs where user_id = '%s'"
                     " and action = 11 and resource = 2 and outcome = 200"
                     " and origin is not null" % id) == "1"
    assert stack.one("select count(*) from users where id = '%s' and"
                     " position('%s' in encode(email, 'escape')) > 0"
                     % (id, email)) == "0"

    again = cli("user", "create", "--email", email, HEALTHMATE_PASSWORD=PASSWORD)
    assert again.returncode == 1
    assert "there is an account" in again.stderr


def test_user_create_refuses(cli, email):
    ask = ("user", "create", "--email", email)
    assert cli(*ask, stdin="password\n").returncode == 1
    assert cli(*ask, stdin="").returncode == 1
    assert cli(*ask, "--role", "god", stdin=PASSWORD).returncode == 2
    assert cli("user", "create", "--email", "x", stdin=PASSWORD
               ).returncode == 2


def test_jobs_and_doctor(cli):
    assert "jobs" in json.loads(cli("jobs", "--json").stdout)
    r = cli("doctor")
    assert r.returncode == 0, r.stdout
    assert "FAIL" not in r.stdout and r.stdout.count("ok ") >= 6
    r = cli("doctor", HEALTHMATE_URL="http://127.0.0.1:9")
    assert r.returncode == 1 and "way out" in r.stdout


def test_demo_only_into_an_empty_database(cli, stack):
    before = stack.one("select count(*) from health_data")
    r = cli("demo", "create", HEALTHMATE_DEMO_PASSWORD=stack.demo_password())
    assert r.returncode == 0 and "already" in r.stdout
    assert stack.one("select count(*) from health_data") == before
    r = cli("demo", "create", HEALTHMATE_DEMO_PASSWORD="x y z 1 2 3",
            HEALTHMATE_ENVIRONMENT="production")
    assert r.returncode == 1


@pytest.mark.skipif(not REAL, reason="no sample bundles on this machine")
@pytest.mark.parametrize("path", REAL, ids=[os.path.basename(p) for p in REAL])
def test_import_twice(cli, stack, path):
    c = stack.new_user()
    ask = ("import", "fhir", path, "--user", c.email, "--json")

    r = cli(*ask, HEALTHMATE_PASSWORD=c.password)
    assert r.returncode == 0, r.stderr
    one = json.loads(r.stdout)
    assert one["taken"] > 0 and one["failed"] == 0 and one["duplicate"] == 0

    two = json.loads(cli(*ask, HEALTHMATE_PASSWORD=c.password).stdout)
    assert (two["taken"], two["duplicate"]) == (0, one["taken"])

    page = c.get("/health-data?source=fhir&limit=200").json()
    assert len(page["items"]) == one["taken"]


def test_user_state(cli, stack, email):
    """disable, enable, role: audited, and at once effective."""
    assert cli("user", "create", "--email", email,
               stdin=PASSWORD + "\n").returncode == 0
    c = stack.login(stack.client(), email, PASSWORD)
    assert c.get("/auth/me").status == 200

    r = cli("user", "role", email, "doctor")
    assert r.returncode == 0 and "is doctor" in r.stdout, r.stderr
    assert "was doctor" in cli("user", "role", email, "doctor").stdout
    again = stack.login(stack.client(), email, PASSWORD)
    assert again.user["role"] == "doctor"

    assert cli("user", "disable", email).returncode == 0
    assert stack.client().post("/auth/login", {
        "email": email, "password": PASSWORD,
        "fingerprint": False}, token=None).status == 401
    assert stack.one("select count(*) from sessions where user_id = '%s' and"
                     " ended_at is null" % c.id) == "0"
    assert cli("user", "enable", email).returncode == 0
    stack.login(stack.client(), email, PASSWORD)
    assert stack.one("select count(*) from audit_logs where user_id = '%s'"
                     " and action = 11 and resource = 2 and outcome = 200"
                     % c.id) == "5"

    assert cli("user", "disable", "nobody@example.org").returncode == 1
    assert cli("user", "role", email, "king").returncode == 2
    assert cli("user", "enable").returncode == 2
