"""
A session that ended, an account that was closed and a role that changed are
refused on every nginx worker within a second, whatever is broken meanwhile:
Redis, the listener, its link, its worker, the room in the zone.  What cannot
be asked is denied.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import hmhttp
from hmhttp import Client, problem
from hmnginx import Nginx
from hmstack import PASSWORD, b64d, b64e, wait

DIED = r"exited on signal 9"
ME = "/auth/me"


# --- one connection to each worker ---

def inode_owner(port, pids):
    """Which of the processes holds the server's end of our connection."""
    want = None
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        f = line.split()
        if int(f[2].rpartition(":")[2], 16) == port and f[3] == "01":
            want = "socket:[%s]" % f[9]
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir("/proc/%d/fd" % pid):
                with contextlib.suppress(OSError):
                    if os.readlink("/proc/%d/fd/%s" % (pid, fd)) == want:
                        return pid
    return None


class Doors:
    """A kept connection to every worker."""

    def __init__(self, stack, skip=()):
        self.stack = stack
        self.conn = {}
        pids = [p for p in stack.nginx_workers(old=False) if p not in skip]
        end = time.monotonic() + 20
        spare = []
        while set(pids) - set(self.conn):
            assert time.monotonic() < end, "no connection to each worker"
            c = hmhttp.Conn(stack.http, timeout=10)
            c.request("GET", "/health")
            pid = inode_owner(c.c.sock.getsockname()[1], pids)
            if pid is None or pid in self.conn:
                spare.append(c)          # the kernel will pick another one
            else:
                self.conn[pid] = c
        for c in spare:
            c.close()

    def ask(self, client, path=ME, only=None):
        out = {}
        for pid, c in self.conn.items():
            if only is None or pid == only:
                out[pid] = c.request("GET", hmhttp.BASE + path, None, [
                    ("Authorization", "Bearer " + client.token)])
        return out

    def good(self, client, **kw):
        for pid, r in self.ask(client, **kw).items():
            assert r.status == 200, (pid, r)

    def refused(self, client, **kw):
        for pid, r in self.ask(client, **kw).items():
            problem(r, 401, "auth.session_revoked")

    def close(self):
        for c in self.conn.values():
            c.close()


@pytest.fixture
def doors(stack):
    wait(lambda: feed(stack) == "ok", 10, 0.05, "the feed")
    d = Doors(stack)
    assert len(d.conn) >= 2, "two nginx workers are needed"
    yield d
    d.close()
    wait(lambda: feed(stack) == "ok", 20, 0.05, "the feed to be back")


def feed(stack):
    r = stack.client().root("GET", "/ready", check=False)
    return json.loads(r.body)["checks"]["revocation"]["status"]


def session_of(client):
    return json.loads(b64d(client.token.split(".")[1]))["sid"]


def end(stack, client, reason="test"):
    assert stack.one("select hm_end_session('%s', '%s')"
                     % (session_of(client), reason)) == "t"


def second(client, doors, since=None, **kw):
    """Refused by all a second after it was committed, and from then on."""
    since = since or time.monotonic()
    time.sleep(max(0.0, since + 1.0 - time.monotonic()))
    doors.refused(client, **kw)
    doors.refused(client, path="/health-data", **kw)


def listener(stack):
    """(backend, nginx worker) of the feed."""
    rows = wait(lambda: [x for x in [stack.rows(
        "select pid, application_name as name from pg_stat_activity where"
        " application_name like 'healthmate feed %'")] if len(x) == 1],
        5, 0.05, "one listener")[0]
    return rows[0]["pid"], int(rows[0]["name"].split()[-1])


def metric(stack, name):
    text = stack.client().root("GET", "/metrics").text
    return float(re.search(r"^%s (\S+)$" % name, text, re.M).group(1))


# --- the feed is whole ---

def test_a_session_ends(stack, doors):
    u, other = stack.new_user(), stack.new_user()
    again = stack.login(stack.client(), u.email, PASSWORD)
    for _ in range(3):
        doors.good(u)                    # in each worker's token cache
        doors.good(again)
    asked = metric(stack, "healthmate_feed_asked_total")
    end(stack, u)
    second(u, doors)
    doors.good(again)                    # another session of the same person
    doors.good(other)
    assert metric(stack, "healthmate_feed_asked_total") == asked
    problem(u.post("/health-data", {"data_type": "weight", "value": 80}),
            401, "auth.session_revoked")
    problem(u.get("/nothing"), 404)      # and nobody is recorded for it


def test_all_but_one_end(stack, doors):
    u = stack.new_user()
    more = [stack.login(stack.client(), u.email, PASSWORD) for _ in range(3)]
    assert stack.one("select hm_end_sessions('%s', '%s', 'test')"
                     % (u.id, session_of(more[0]))) == "3"
    for c in [u] + more[1:]:
        second(c, doors)
    doors.good(more[0])


def test_an_account_is_disabled(stack, doors):
    u = stack.new_user()
    doors.good(u)
    stack.psql("update users set is_active = false where id = '%s'" % u.id)
    second(u, doors)
    r = stack.client().post("/auth/login", {
        "email": u.email, "password": PASSWORD, "fingerprint": False},
        token=None)
    assert r.status == 401, r
    stack.psql("update users set is_active = true where id = '%s'" % u.id)
    doors.refused(u)                     # what ended stays ended
    again = stack.login(stack.client(), u.email, PASSWORD)
    doors.good(again)


def test_a_role_changes(stack, doors):
    u = stack.new_user(role="doctor")
    doors.good(u)
    stack.psql("update users set role = 'patient' where id = '%s'" % u.id)
    again = stack.login(stack.client(), u.email, PASSWORD)
    doors.good(again)                    # at once: it has the new role
    second(u, doors)
    doors.good(again)


def test_a_slow_body(stack, doors):
    """The session ends while the body is on its way: nothing is stored."""
    u = stack.new_user()
    body = json.dumps({"data_type": "weight", "value": 80}).encode()
    s = socket.create_connection(("127.0.0.1", stack.http), timeout=10)
    s.sendall(("POST /api/v1/health-data HTTP/1.1\r\nHost: 127.0.0.1\r\n"
               "Authorization: Bearer %s\r\nContent-Type: application/json"
               "\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
               % (u.token, len(body))).encode() + body[:5])
    time.sleep(0.2)
    end(stack, u)
    time.sleep(1)
    s.sendall(body[5:])
    out = b""
    while True:
        part = s.recv(65536)
        if not part:
            break
        out += part
    s.close()
    assert out.startswith(b"HTTP/1.1 401"), out[:200]
    assert stack.one("select count(*) from health_data where user_id = '%s'"
                     % u.id) == "0"


def test_keys_are_dropped(stack, doors):
    """A turned key leaves the cache of every worker."""
    u = stack.new_user()
    u.record()
    doors.good(u, path="/health-data")
    n = metric(stack, "healthmate_key_loads_total")
    doors.good(u, path="/health-data")
    assert metric(stack, "healthmate_key_loads_total") == n
    stack.psql("select hm_key_changed('%s')" % u.id)
    time.sleep(1)
    doors.good(u, path="/health-data")
    assert metric(stack, "healthmate_key_loads_total") \
        >= n + len(doors.conn)


# --- something is broken ---

def test_redis_is_stopped(stack, doors):
    u = stack.new_user()
    doors.good(u)
    pid = stack.pid_of("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        end(stack, u)
        second(u, doors)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_after_a_reload(stack, doors):
    """The zone outlives the workers; new ones know what old ones knew."""
    u, v, good = stack.new_user(), stack.new_user(), stack.new_user()
    end(stack, u)
    before = set(stack.nginx_workers(old=False))
    stack.hup()
    end(stack, v)                        # in the midst of it
    t = time.monotonic()
    wait(lambda: set(stack.nginx_workers(old=False)).isdisjoint(before)
         and len(stack.nginx_workers(old=False)) == len(before), 10, 0.02)
    d = Doors(stack)
    try:
        d.refused(u)                     # no second to wait for
        second(v, d, since=t)
        d.good(good)
        listening = listener(stack)[1]
        assert listening in d.conn
    finally:
        d.close()


def test_the_listeners_backend_is_frozen(stack, doors):
    u, good = stack.new_user(), stack.new_user()
    doors.good(u)
    backend, worker = listener(stack)
    os.kill(backend, signal.SIGSTOP)
    try:
        end(stack, u)
        second(u, doors)
        doors.good(good)
        # another backend carries the feed by now, or the next one will
        wait(lambda: feed(stack) == "ok", 5, 0.05)
        v = stack.new_user()
        doors.good(v)
        end(stack, v)
        second(v, doors)
    finally:
        os.kill(backend, signal.SIGCONT)


def test_the_listeners_worker_is_frozen(stack, doors):
    """
    Another worker takes over; the frozen one must not believe what it knew
    when it goes on.
    """
    u, good = stack.new_user(), stack.new_user()
    doors.good(u)
    worker = listener(stack)[1]
    others = [p for p in doors.conn if p != worker]
    os.kill(worker, signal.SIGSTOP)
    try:
        end(stack, u)
        t = time.monotonic()
        for pid in others:
            second(u, doors, since=t, only=pid)
            doors.good(good, only=pid)
        wait(lambda: [x for x in stack.rows(
            "select application_name as name from pg_stat_activity where"
            " application_name like 'healthmate feed %'")
            if not x["name"].endswith(" %d" % worker)], 5, 0.05,
            "another listener")
        # a request that waits in the frozen worker's socket
        c = doors.conn[worker]
        if c.c is None:
            c._open()
        c.c.putrequest("GET", hmhttp.BASE + ME)
        c.c.putheader("Authorization", "Bearer " + u.token)
        c.c.endheaders()
    finally:
        os.kill(worker, signal.SIGCONT)
    r = doors.conn[worker].c.getresponse()
    body = r.read()
    assert r.status == 401, (r.status, body)
    doors.refused(u)
    wait(lambda: len(stack.rows(
        "select 1 from pg_stat_activity where application_name like"
        " 'healthmate feed %'")) == 1, 5, 0.05, "one listener")


@pytest.mark.alerts(DIED)
def test_the_listeners_worker_is_killed(stack, doors):
    u, v, good = stack.new_user(), stack.new_user(), stack.new_user()
    end(stack, v)
    worker = listener(stack)[1]
    others = [p for p in doors.conn if p != worker]
    os.kill(worker, signal.SIGKILL)
    end(stack, u)
    t = time.monotonic()
    for pid in others:
        second(u, doors, since=t, only=pid)
    wait(lambda: len(stack.nginx_workers(old=False)) == len(doors.conn)
         and worker not in stack.nginx_workers(), 5, 0.02)
    d = Doors(stack)
    try:
        d.refused(u)
        d.refused(v)
        d.good(good)
        assert listener(stack)[1] in d.conn
    finally:
        d.close()


@contextlib.contextmanager
def database_through(stack, link):
    """nginx speaks to PostgreSQL through that folder's socket."""
    with conf(stack, r'^(healthmate_database ")host=\S+',
              r"\g<1>host=" + link):
        yield


@contextlib.contextmanager
def conf(stack, what, by):
    """Another line in the configuration, for a while."""
    path = os.path.join(stack.real, "nginx", "conf", "healthmate.conf")
    text = open(path).read()
    other, n = re.subn(what, by, text, flags=re.M)
    assert n == 1, what
    try:
        put(stack, path, other)
        yield
    finally:
        put(stack, path, text)


def put(stack, path, text):
    with open(path, "w") as f:
        f.write(text)
    before = set(stack.nginx_workers(old=False))
    stack.hup()
    wait(lambda: set(stack.nginx_workers(old=False)).isdisjoint(before)
         and len(stack.nginx_workers(old=False)) == len(before), 15, 0.02,
         "new workers")
    wait(lambda: feed(stack) in ("ok", "full"), 15, 0.05, "the feed")


def test_the_link_is_half_open(stack, doors):
    """Nothing arrives on the listener's connection, and nothing closes."""
    top = tempfile.mkdtemp(prefix="hm-link-")
    flag = os.path.join(top, "flag")
    worker = stack.nginx_workers(old=False)[0]
    st = os.stat("/proc/%d" % worker)
    if os.geteuid() == 0:
        os.chown(top, st.st_uid, st.st_gid)
    args = [sys.executable, os.path.join(os.path.dirname(
        hmhttp.__file__), "pglink.py"), top,
        os.path.join(stack.env["PGHOST"], ".s.PGSQL.5432"), flag]
    if os.geteuid() == 0:
        args += [str(st.st_uid), str(st.st_gid)]
    p = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline().strip() == "ready"
        with database_through(stack, top):
            d = Doors(stack)
            u, v = stack.new_user(), stack.new_user()
            d.good(u)
            open(flag, "w").close()
            end(stack, u)
            second(u, d)
            d.good(v)
            time.sleep(1.5)              # every attempt to listen hangs, too
            d.good(v)
            end(stack, v)
            second(v, d)
            assert feed(stack) == "stale"
            os.unlink(flag)
            wait(lambda: feed(stack) == "ok", 10, 0.05)
            d.refused(u)
            d.refused(v)
            d.close()
    finally:
        p.kill()
        p.wait()
        shutil.rmtree(top, ignore_errors=True)


def small_zone(stack):
    """A size with room for what is revoked now and a little more."""
    n = int(stack.one("select count(*) from revocations"
                      " where expires_at > now()"))
    size = 64
    while size * 4 < n + 60:
        size *= 2
    return "healthmate_feed_zone %dk;" % size


def overflow(stack, nginx):
    """More than there is room for, for six seconds."""
    n = metric(nginx, "healthmate_feed_room") \
        - metric(nginx, "healthmate_feed_revocations") + 50
    stack.psql("select count(hm_revoke('session', gen_random_uuid(),"
               " gen_random_uuid(), interval '6 s'))"
               " from generate_series(1, %d)" % n)
    wait(lambda: feed(nginx) == "full", 3, 0.05)


def test_the_zone_is_full(stack, doors):
    """More than fit: the database is asked; nothing gives way; it heals."""
    early = stack.new_user()
    with conf(stack, r"^healthmate_zone .*;",
              r"\g<0>\n" + small_zone(stack)):
        d = Doors(stack)
        end(stack, early)
        second(early, d)
        overflow(stack, stack)
        u, good = stack.new_user(), stack.new_user()
        d.good(u)
        end(stack, u)
        second(u, d)
        d.refused(early)
        d.good(good)
        assert metric(stack, "healthmate_feed_stale") == 1
        wait(lambda: feed(stack) == "ok", 20, 0.1, "room")
        d.refused(u)                     # read again in the catch-up
        d.refused(early)
        d.good(good)
        d.close()


@pytest.mark.parametrize("reconnect", [False, True])
def test_it_is_committed_late(stack, doors, reconnect):
    """Inserted now, committed in 5 s; also when a catch-up lies between."""
    u = stack.new_user()
    doors.good(u)
    hold = subprocess.Popen(["psql", "-XAtq"], env=stack.psql_env(), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    hold.stdin.write("begin; select hm_end_session('%s', 'late');\n"
                     % session_of(u))
    hold.stdin.flush()
    assert hold.stdout.readline().strip() == "t"
    try:
        if reconnect:
            time.sleep(1)
            old = listener(stack)[0]
            stack.psql("select pg_terminate_backend(%d)" % old)
            wait(lambda: listener(stack)[0] != old, 5, 0.05)
        time.sleep(4)
        doors.good(u)
        hold.stdin.write("commit;\n\\q\n")
        hold.stdin.flush()
        hold.wait(10)
        second(u, doors)
    finally:
        hold.kill()
        hold.wait()


def test_a_role_that_changes_late(stack, doors):
    """A token of the old role, issued between the change and its commit."""
    u = stack.new_user(role="doctor")
    hold = subprocess.Popen(["psql", "-XAtq"], env=stack.psql_env(), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    hold.stdin.write("begin; update users set role = 'patient' where id ="
                     " '%s' returning role;\n" % u.id)
    hold.stdin.flush()
    assert hold.stdout.readline().strip() == "patient"
    try:
        time.sleep(3)
        kid, secret = stack.jwt_secret(u.token)
        head, body, _ = u.token.split(".")
        claims = json.loads(b64d(body))
        now = int(time.time())
        claims.update(iat=now, nbf=now, exp=now + 900, jti=hmhttp.uuid7())
        body = b64e(json.dumps(claims, separators=(",", ":")).encode())
        mac = hmac.new(secret, (head + "." + body).encode(),
                       hashlib.sha256).digest()
        u.token = head + "." + body + "." + b64e(mac)
        doors.good(u)
        time.sleep(1)
        hold.stdin.write("commit;\n\\q\n")
        hold.stdin.flush()
        hold.wait(10)
        second(u, doors)
    finally:
        hold.kill()
        hold.wait()


def test_postgresql_is_down(stack, doors):
    """What cannot be asked is denied."""
    u = stack.new_user()
    doors.good(u)
    keeper = int(open(os.path.join(stack.env["HEALTHMATE_PIDS"],
                                   "postgres.keeper")).read())
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(stack.pid_of("postgres"), signal.SIGKILL)
        wait(lambda: not stack.pg_accepts(), 10, 0.05)
        time.sleep(1)
        for path in (ME, "/health-data", "/health-data/types", "/nothing"):
            for pid, r in doors.ask(u, path=path).items():
                assert r.status in (503, 504), (path, r)
        assert feed(stack) == "stale"
    finally:
        os.kill(keeper, signal.SIGCONT)
    wait(stack.pg_accepts, 30, 0.05, "PostgreSQL to accept")
    wait(lambda: feed(stack) == "ok", 15, 0.05, "the feed")
    wait(lambda: all(r.status == 200 for r in doors.ask(u).values()), 15,
         0.05, "both workers")
    end(stack, u)
    second(u, doors)


def test_readers_do_not_slow_a_burst(stack, doors):
    """Many ends at once arrive, all of them, on all workers."""
    u = stack.new_user()
    people = [stack.login(stack.client(), u.email, PASSWORD)
              for _ in range(40)]
    for c in people:
        doors.good(c)
    seen = threading.Event()
    wrong = []

    def read():
        c = hmhttp.Client(stack, token=people[0].token)
        while not seen.is_set():
            r = c.get(ME)
            if r.status != 200:
                wrong.append(r)

    t = threading.Thread(target=read)
    t.start()
    try:
        stack.psql("select hm_end_sessions('%s', '%s', 'burst')"
                   % (u.id, session_of(people[0])))
        now = time.monotonic()
        time.sleep(1)
        for c in people[1:]:
            doors.refused(c)
        doors.good(people[0])
        assert time.monotonic() - now < 30
    finally:
        seen.set()
        t.join()
    assert not wrong, wrong[0]


def test_other_locations_ask_too(stack, doors):
    """healthmate_auth in front of files: fresh, full, and with nobody to ask."""
    x = Nginx(stack, http="    " + small_zone(stack),
              server="    location /files/ { healthmate_auth on;"
              " root \"%s\"; }")
    x.text_server %= x.dir + "/www"
    x.file("files/file.txt", "a file\n")
    x.sync().start()

    def ask(client):
        return Client(x, client.token).raw("GET", "/files/file.txt",
                                           check=False)

    try:
        fed = wait(lambda: feed(x) == "ok", 5, 0.05)
        u, v, good = x.new_user(), x.new_user(), x.new_user()
        assert fed and ask(u).status == ask(v).status == 200
        end(stack, u)
        time.sleep(1)
        problem(ask(u), 401, "auth.session_revoked")
        overflow(stack, x)
        end(stack, v)
        time.sleep(1)
        for _ in range(8):
            problem(ask(u), 401, "auth.session_revoked")
            problem(ask(v), 401, "auth.session_revoked")
            assert ask(good).body == b"a file\n"
        # nobody listens, nobody can be asked
        x.sub = [(r'(healthmate_database ")host=\S+', r"\g<1>host=/nowhere")]
        x.sync().hup()
        time.sleep(1)
        for c in (u, v, good):
            assert ask(c).status in (401, 503), ask(c)
        assert ask(good).status == 503
    finally:
        x.stop()
