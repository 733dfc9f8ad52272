"""
A running stack: started by deploy/up on free ports in a folder of its own,
or the one HEALTHMATE_TEST_HOME names.  Reads the database over the Unix
socket as the cluster's owner, finds processes by the files and the process
table, and watches the logs: an [alert], an [emerg] or a sanitizer's line
fails the test in which it appeared.
"""

import base64
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import hmhttp

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

BAD_LINE = re.compile(
    r"\[(alert|emerg)\]|Sanitizer|runtime error:|LeakSanitizer|==ERROR")

PASSWORD = "correct horse battery"


class Stack:
    def __init__(self, limits="off", extra=None):
        self.own = False
        self.extra = extra or {}         # of deploy/up: a stack of its own
        self.limits = limits
        self.env = {}
        self.seq = 0

    # --- life ---

    def start(self):
        home = os.environ.get("HEALTHMATE_TEST_HOME")
        if home and self.limits == "off" and not self.extra:
            self.home = home
        else:
            self.own = True
            top = tempfile.mkdtemp(prefix="hm-t-")
            os.chmod(top, 0o755)
            self.top, self.home = top, os.path.join(top, "run")
            self.up(dict(HEALTHMATE_HTTP_PORT=str(hmhttp.free_port()),
                         HEALTHMATE_HTTPS_PORT=str(hmhttp.free_port()),
                         HEALTHMATE_LIMITS=self.limits))
        self.read_env()

    def door(self, name, extra=None, timeout=900):
        env = dict(os.environ, HEALTHMATE_HOME=self.home)
        if self.env:
            env.update(HEALTHMATE_HTTP_PORT=str(self.http),
                       HEALTHMATE_HTTPS_PORT=str(self.https),
                       HEALTHMATE_LIMITS=self.limits)
        env.update(self.extra)
        env.update(extra or {})
        return subprocess.run(
            [os.path.join(ROOT, "deploy", name)], env=env, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout)

    def up(self, extra=None):
        r = self.door("up", extra)
        if r.returncode:
            raise RuntimeError("deploy/up: %d\n%s"
                               % (r.returncode, r.stdout[-6000:]))
        return r.stdout

    def stop(self):
        if not self.own:
            return
        self.door("down", timeout=120)
        if not os.environ.get("HEALTHMATE_TEST_KEEP"):
            real = os.path.realpath(self.home)
            shutil.rmtree(self.top, ignore_errors=True)
            if real.startswith("/var/lib/healthmate/"):
                shutil.rmtree(real, ignore_errors=True)

    def read_env(self):
        out = subprocess.run(
            ["env", "-i", "PATH=" + os.environ["PATH"], "sh", "-c",
             'set -a; . "$1"; env -0', "sh", os.path.join(self.home, "env")],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        self.env = dict(x.split("=", 1) for x in out.split("\0") if "=" in x)
        self.http = int(self.env["HEALTHMATE_HTTP_PORT"])
        self.https = int(self.env["HEALTHMATE_HTTPS_PORT"])
        self.real = os.path.realpath(self.home)

    def demo_password(self):
        for p in ("demo-password",):
            f = os.path.join(self.home, p)
            if os.path.exists(f):
                return open(f).read().strip()
        return self.env.get("HEALTHMATE_DEMO_PASSWORD") \
            or os.environ["HEALTHMATE_DEMO_PASSWORD"]

    # --- database, as the cluster's owner ---

    def psql_env(self):
        e = dict(os.environ)
        for k in ("PGHOST", "PGPORT", "PGDATABASE"):
            if k in self.env:
                e[k] = self.env[k]
        e["PGUSER"] = "postgres"
        e.setdefault("PGDATABASE", "healthmate")
        e["PGCONNECT_TIMEOUT"] = "5"
        return e

    def psql(self, sql, check=True, user=None):
        e = self.psql_env()
        if user:
            e["PGUSER"] = user
        r = subprocess.run(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=sql, env=e, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        if check and r.returncode:
            raise RuntimeError("psql: %s\n%s" % (r.stderr.strip(), sql))
        return r.stdout.rstrip("\n") if check else r

    def rows(self, sql):
        out = self.psql("select coalesce(json_agg(t), '[]'::json) from (%s) t"
                        % sql.strip().rstrip(";"))
        return json.loads(out)

    def one(self, sql):
        return self.psql(sql).strip()

    # --- people ---

    def client(self, tls=False):
        return hmhttp.Client(self, tls=tls)

    def new_user(self, role=None, verified=False, tls=False, source=None,
                 **extra):
        self.seq += 1
        email = "t%d-%d-%s@example.org" % (
            os.getpid(), self.seq, os.urandom(3).hex())
        c = hmhttp.Client(self, tls=tls, source=source)
        doc = {"email": email, "password": PASSWORD,
               "full_name": "Test Person", "accept_terms": True,
               "fingerprint": False}
        doc.update(extra)
        r = c.post("/auth/register", doc)
        assert r.status == 201, r
        self.take(c, r.json(), email, PASSWORD)
        if role or verified:
            self.psql("update users set role = '%s', email_verified_at = now()"
                      " where id = '%s'" % (role or "patient", c.id))
            self.login(c, email, PASSWORD)
        return c

    def take(self, c, session, email, password):
        c.session, c.token, c.user = session, session["access_token"], \
            session["user"]
        c.email, c.password = email, password
        return c

    def login(self, c, email, password):
        r = c.post("/auth/login", {"email": email, "password": password,
                                   "fingerprint": False}, token=None)
        assert r.status == 200, r
        return self.take(c, r.json(), email, password)

    def assign(self, patient, doctor, consent=True):
        """A doctor's active assignment, as the relationship issue will."""
        self.psql("""
update users set email_verified_at = now() where id in ('{p}', '{d}');
insert into care_relationships (id, patient_id, doctor_id, status,
  created_by, from_at, until, accepted_at, created_at, updated_at)
 values ('{i}', '{p}', '{d}', 'active', '{p}', now() - interval '1 day',
  now() + interval '1 year', now(), now(), now());
""".format(i=hmhttp.uuid7(), p=patient.id, d=doctor.id))

    def settings(self, name):
        return self.one("select value from hm_settings where name = '%s'"
                        % name)

    # --- tokens ---

    def jwt_secret(self, token):
        """(kid, secret) that signed this token, from the nginx config."""
        import hashlib
        import hmac
        head, body, sig = token.split(".")
        want = b64d(sig)
        for conf in self.confs():
            text = open(conf, errors="replace").read()
            for m in re.finditer(
                    r"^\s*healthmate_jwt_key\s+(\S+)\s+([^;\s]+)\s*;",
                    text, re.M):
                path = m.group(2).strip('"')
                if not os.path.isabs(path):
                    path = os.path.join(os.path.dirname(conf), path)
                raw = open(path, "rb").read()
                tries = [raw, raw.strip()]
                for f in (lambda x: bytes.fromhex(x.decode()),
                          base64.b64decode, lambda x: b64d(x.decode())):
                    try:
                        tries.append(f(raw.strip()))
                    except Exception:
                        pass
                for s in tries:
                    if hmac.new(s, (head + "." + body).encode(),
                                hashlib.sha256).digest() == want:
                        return m.group(1), s
        raise RuntimeError("no key found that signed the token")

    def confs(self):
        return [p for p in glob.glob(self.real + "/**/*.conf",
                                     recursive=True)
                + glob.glob(self.real + "/**/nginx.conf*", recursive=True)
                if os.path.isfile(p)]

    # --- processes ---

    def pid_of(self, name):
        """nginx (the master), postgres, redis, worker: by its pid file."""
        folder = self.env.get("HEALTHMATE_PIDS",
                              os.path.join(self.real, "pids"))
        return int(open(os.path.join(folder, name + ".pid")).read())

    def children(self, parent, starts):
        out = []
        for d in os.listdir("/proc"):
            if not d.isdigit():
                continue
            try:
                stat = open("/proc/%s/stat" % d).read().rpartition(")")[2]
                cmd = open("/proc/%s/cmdline" % d, "rb").read() \
                    .replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            f = stat.split()
            if f[0] != "Z" and int(f[1]) == parent \
                    and cmd.startswith(starts):
                out.append((int(d), cmd))
        return out

    def nginx_workers(self, old=None):
        """Workers; old True: only those shutting down, False: the others."""
        w = self.children(self.pid_of("nginx"), "nginx: worker")
        return [p for p, c in w
                if old is None or ("shutting down" in c) == old]

    def backends(self, role="hm_api"):
        return [int(x) for x in self.psql(
            "select pid from pg_stat_activity where usename = '%s'"
            % role).split()]

    def hup(self):
        os.kill(self.pid_of("nginx"), signal.SIGHUP)

    def pg_accepts(self):
        r = subprocess.run(["psql", "-XAtqc", "select 1"],
                           env=self.psql_env(), stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
        return r.returncode == 0

    # --- logs ---

    def logs(self):
        out = []
        for pat in ("/**/*.log", "/**/*.err"):
            out += glob.glob(self.real + pat, recursive=True)
        return [p for p in set(out) if "/pg" not in p[len(self.real):]
                and os.path.isfile(p)]

    def log_marks(self):
        return {p: os.path.getsize(p) for p in self.logs()}

    def log_since(self, marks):
        out = []
        for p in self.logs():
            size = os.path.getsize(p)
            start = marks.get(p, 0)
            if size < start:
                start = 0
            if size == start:
                continue
            with open(p, "rb") as f:
                f.seek(start)
                out.append((p, f.read().decode(errors="replace")))
        return out

    def bad_lines(self, marks):
        return ["%s: %s" % (os.path.basename(p), line)
                for p, text in self.log_since(marks)
                for line in text.splitlines() if BAD_LINE.search(line)]

    def cores(self):
        return [p for p in glob.glob(self.real + "/**/core*", recursive=True)
                if re.match(r"^core(\.\d+)?$", os.path.basename(p))
                and os.path.isfile(p)]


def b64d(s):
    return base64.urlsafe_b64decode(s + "=" * (-len(s) % 4))


def b64e(b):
    return base64.urlsafe_b64encode(b).rstrip(b"=").decode()


def wait(test, seconds=10.0, step=0.1, what="it"):
    """The first true value of test(), or a failure saying what."""
    end = time.monotonic() + seconds
    last = None
    while True:
        try:
            v = test()
            if v:
                return v
            last = v
        except (hmhttp.Lost, ConnectionError, OSError) as e:
            last = e
        if time.monotonic() > end:
            raise AssertionError("waited %.1f s for %s (last: %r)"
                                 % (seconds, what, last))
        time.sleep(step)
