"""
A second nginx beside a running stack: the same database, Redis and keys, its
own ports, logs, ticket keys and, above all, its own configuration.  So a test
can switch the firewall on, make limits small, break a rule of production or
reload as often as it wants, and the stack of the session knows nothing of it.

    with Edge(stack, waf=True) as e:            # the local configuration
        Client(e, token=user.token).get(...)
    with Edge(stack, production=True) as e:     # production.conf.example

Templates are rendered by deploy's own renderer (local) or written by
deploy/production.  `edits` are (file, old, new): old must be there.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time

import hmhttp
from hmstack import BAD_LINE, ROOT, wait

NAME = "health.example.org"

RENDER = """
HM_ROOT=$1
. "$1/deploy/lib/common.sh"
for f in "$1"/lua-free-conf/*.conf; do
    case $f in */healthmate.conf) continue ;; esac
    render "$f" "$2/$(basename "$f")"
done
"""


def run(*argv, **kw):
    kw.setdefault("check", True)
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.STDOUT)
    return subprocess.run(argv, text=True, stdin=subprocess.DEVNULL, **kw)


class Edge:
    def __init__(self, stack, production=False, waf=False, unlimited=False,
                 edits=(), ca=None):
        self.stack = stack
        self.production = production
        self.waf = waf
        self.unlimited = unlimited
        self.edits = edits
        self.ca = ca
        self.top = tempfile.mkdtemp(prefix="hm-e-")
        os.chmod(self.top, 0o755)
        self.http, self.https = hmhttp.free_port(), hmhttp.free_port()
        self.operators, self.acme = hmhttp.free_port(), hmhttp.free_port()
        self.running = False

    # --- configuration ---

    def make(self):
        if self.production:
            self.make_production()
        else:
            self.make_local()
        for name, old, new in self.edits:
            p = os.path.join(self.conf, name)
            text = open(p).read()
            assert old in text, (name, old)
            open(p, "w").write(text.replace(old, new))
        return self

    def make_local(self):
        s = self.stack
        real = s.real
        self.conf = os.path.join(self.top, "conf")
        self.logs = os.path.join(self.top, "logs")
        self.pids = self.top
        self.tickets = os.path.join(self.top, "tickets")
        for d in (self.conf, self.logs, self.top + "/temp"):
            os.mkdir(d)
        v = dict(MODULE=real + "/nginx/ngx_http_healthmate_module.so",
                 WAF_MODULE="/usr/lib/nginx/modules/"
                 "ngx_http_modsecurity_module.so",
                 WAF="1" if self.waf else "",
                 USER="hm-nginx healthmate" if os.getuid() == 0 else "",
                 WORKERS="2", NOFILE="4096", PIDS=self.pids, LOGS=self.logs,
                 BIND="127.0.0.1", HTTPS_PORT=str(self.https), BIND6="",
                 TLS=real + "/tls", PRODUCTION="", OPERATORS_PORT="0",
                 PLAIN="1", HTTP_PORT=str(self.http), IPV6="",
                 TEMP=self.top + "/temp", TICKETS=self.tickets,
                 CONF=self.conf, WEB=ROOT + "/web",
                 UNLIMITED="1" if self.unlimited else "",
                 ACME=self.top, ETC=self.top, RESOLVER="127.0.0.53")
        run("sh", "-c", RENDER, "sh", ROOT, self.conf, env=dict(
            os.environ, **{"T_" + k: x for k, x in v.items()}))
        shutil.copy(real + "/nginx/conf/healthmate.conf", self.conf)
        self.tls = real + "/tls"
        run(ROOT + "/deploy/lib/tickets", self.tickets, "init")

    def make_production(self):
        s = self.stack
        top = self.top
        self.etc = top + "/etc/healthmate"
        self.conf = self.etc + "/nginx"
        self.logs = top + "/var/log/healthmate"
        self.pids = top + "/run/healthmate"
        self.tickets = self.pids + "/tickets"
        os.makedirs(self.tickets)
        os.makedirs(top + "/var/lib/nginx")
        r = run(ROOT + "/deploy/production", top, check=False, env=dict(
            os.environ, HEALTHMATE_SERVER_NAME=NAME,
            HEALTHMATE_LISTEN="127.0.0.1:%d" % self.https,
            HEALTHMATE_LISTEN_ACME="127.0.0.1:%d" % self.acme,
            HEALTHMATE_OPERATORS="127.0.0.1:%d" % self.operators,
            HEALTHMATE_WAF="on" if self.waf else "off",
            HEALTHMATE_MODULE=s.real
            + "/nginx/ngx_http_healthmate_module.so",
            HEALTHMATE_PG=s.env["PGHOST"],
            HEALTHMATE_REDIS=os.path.dirname(s.env["PGHOST"])
            + "/redis/redis.sock"))
        assert r.returncode == 0, r.stdout
        # Two workers and few descriptors: it is a test's.
        p = self.conf + "/nginx.conf"
        text = open(p).read()
        text = text.replace("worker_processes auto", "worker_processes 2") \
            .replace("worker_rlimit_nofile 65536", "worker_rlimit_nofile "
                     "4096").replace("worker_connections 16384",
                                     "worker_connections 2048")
        open(p, "w").write(text)
        shutil.copytree(s.real + "/keys", self.etc + "/keys")
        for f in os.listdir(self.etc + "/keys"):
            shutil.copystat(s.real + "/keys/" + f, self.etc + "/keys/" + f)
        self.ca = self.ca or CA(top + "/ca")
        d = self.etc + "/tls/20260101T000000Z-1"
        os.mkdir(d)
        self.ca.server(d, NAME)
        os.symlink(os.path.basename(d), self.etc + "/tls/current")
        shutil.copy(self.ca.cert, self.etc + "/tls/operators-ca.pem")
        run(top + "/usr/local/lib/healthmate/tickets", self.tickets, "init")

    # --- life ---

    def nginx(self, *more, check=False):
        env = dict(os.environ)
        return run("/usr/sbin/nginx", "-p", self.top + "/", "-c",
                   self.conf + "/nginx.conf", "-e", self.logs + "/error.log",
                   *more, check=check, env=env, cwd="/")

    def test(self):
        """nginx -t: (exit code, what it said)."""
        r = self.nginx("-t")
        return r.returncode, r.stdout

    def start(self):
        self.make()
        r = self.nginx()
        assert r.returncode == 0, r.stdout
        self.running = True
        wait(lambda: self.pid() and self.workers(), 10,
             what="the second nginx")
        if not self.production:
            c = hmhttp.Client(self, tls=False)
            wait(lambda: c.root("GET", "/ready").status == 200, 10)
        else:
            time.sleep(0.5)
        return self

    def pid(self):
        try:
            return int(open(self.pids + "/nginx.pid").read())
        except (OSError, ValueError):
            return None

    def workers(self, old=None):
        w = self.stack.children(self.pid(), "nginx: worker")
        return [p for p, c in w
                if old is None or ("shutting down" in c) == old]

    def hup(self):
        """A reload, and the wait for it."""
        before = set(self.workers(old=False))
        os.kill(self.pid(), signal.SIGHUP)
        wait(lambda: set(self.workers(old=False)) - before
             and not (before & set(self.workers(old=False))), 10,
             what="new workers")

    def stop(self):
        try:
            if self.running:
                p = self.pid()
                os.kill(p, signal.SIGQUIT)
                end = time.monotonic() + 5
                while os.path.exists("/proc/%d" % p):
                    time.sleep(0.05)
                    if time.monotonic() > end:
                        os.kill(p, signal.SIGTERM)
                        time.sleep(0.3)
                bad = [x for x in self.log("error.log").splitlines()
                       if BAD_LINE.search(x)]
                assert not bad, bad[:10]
        finally:
            self.running = False
            shutil.rmtree(self.top, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            shutil.rmtree(self.top, ignore_errors=True)
            raise

    def __exit__(self, *exc):
        self.stop()

    # --- what it wrote ---

    def log(self, name):
        p = os.path.join(self.logs, name)
        return open(p, "rb").read().decode("latin-1") \
            if os.path.exists(p) else ""

    def everything(self):
        """All logs, rotated ones too."""
        return "".join(self.log(f) for f in sorted(os.listdir(self.logs)))

    def client(self, token=None, tls=True, source=None):
        return hmhttp.Client(self, token=token, tls=tls, source=source)


class CA:
    """An authority of our own, by openssl."""

    def __init__(self, folder, ocsp=None):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.ocsp = folder, ocsp
        self.cert, self.key = folder + "/ca.pem", folder + "/ca.key"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-sha256",
            "-subj", "/CN=HealthMate test authority", "-addext",
            "basicConstraints=critical,CA:TRUE", "-addext",
            "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
            "-keyout", self.key, "-out", self.cert)
        self.serial = 1000

    def sign(self, key, cert, subject, ext):
        self.serial += 1
        req, cnf = key + ".csr", key + ".cnf"
        open(cnf, "w").write("\n".join(ext) + "\n")
        run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
            "-keyout", key, "-out", req)
        run("openssl", "x509", "-req", "-in", req, "-CA", self.cert,
            "-CAkey", self.key, "-set_serial", str(self.serial), "-days",
            "20", "-sha256", "-extfile", cnf, "-out", cert)
        return self.serial

    def server(self, folder, *names):
        ext = ["subjectAltName=" + ",".join("DNS:" + n for n in names),
               "keyUsage=critical,digitalSignature",
               "extendedKeyUsage=serverAuth"]
        if self.ocsp:
            ext.append("authorityInfoAccess=OCSP;URI:" + self.ocsp)
        n = self.sign(folder + "/key.pem", folder + "/cert.pem",
                      "/CN=" + names[0], ext)
        shutil.copy(self.cert, folder + "/chain.pem")
        return n

    def client(self, folder, name):
        os.makedirs(folder, exist_ok=True)
        self.sign(folder + "/key.pem", folder + "/cert.pem", "/CN=" + name,
                  ["extendedKeyUsage=clientAuth"])
        return folder + "/cert.pem", folder + "/key.pem"


def tls_context(low=None, high=None, ciphers=None, alpn=None):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    if ciphers:
        ctx.set_ciphers(ciphers)
    if low:
        ctx.minimum_version = low
    if high:
        ctx.maximum_version = high
    if alpn:
        ctx.set_alpn_protocols(alpn)
    return ctx


def json_lines(text):
    import json
    out = []
    for line in text.splitlines():
        doc = json.loads(line)
        assert isinstance(doc, dict) and re.match(
            r"^\d{4}-\d\d-\d\dT", doc["@timestamp"]), line
        out.append(doc)
    return out
