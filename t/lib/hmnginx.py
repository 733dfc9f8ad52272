"""
A second nginx beside the stack's: the same module, database and keys, other
ports, and what a test wants to change.  Its configuration is the stack's
rendered one with lines of it replaced, so that it stays what is shipped.

It lives in a folder of the stack's own state, where the log watch sees it.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile

import hmhttp
import hmstack


class Nginx:
    """
    ring:   [(kid, path)], instead of the stack's healthmate_jwt_key
    http:   text at the end of http {}
    server: text at the end of each server {}, before the shared locations
    sub:    [(regex, text)], applied to every file
    """

    def __init__(self, stack, ring=None, http="", server="", sub=()):
        self.stack = stack
        self.ring, self.text_http, self.text_server = ring, http, server
        self.sub = list(sub)
        self.seq = 0
        self.http, self.https = hmhttp.free_port(), hmhttp.free_port()
        self.dir = tempfile.mkdtemp(prefix="t-nginx-", dir=stack.real)
        for d in ("", "/conf", "/logs", "/temp", "/www"):
            os.makedirs(self.dir + d, exist_ok=True)
            os.chmod(self.dir + d, 0o755)
        own = os.stat(stack.real + "/nginx/temp")
        os.chown(self.dir + "/temp", own.st_uid, own.st_gid)
        self.pid_file = self.dir + "/nginx.pid"
        self.sync()

    # The clients' side of hmstack.Stack.

    def client(self, tls=False):
        return hmhttp.Client(self, tls=tls)

    take = hmstack.Stack.take
    login = hmstack.Stack.login
    new_user = hmstack.Stack.new_user

    def psql(self, *a, **k):
        return self.stack.psql(*a, **k)

    # --- configuration ---

    def key(self, name, text):
        """A key file as nginx wants it: nobody else reads it."""
        path = self.dir + "/" + name
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o640)
        return path

    def file(self, name, text):
        path = self.dir + "/www/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.chmod(os.path.dirname(path), 0o755)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o644)
        return path

    def sync(self):
        """Renders the configuration anew."""
        src = self.stack.real + "/nginx/conf"
        for name in os.listdir(src):
            text = open(os.path.join(src, name)).read()
            for old, new in ((self.stack.env.get("HEALTHMATE_PIDS")
                              or self.stack.real + "/pids", self.dir),
                             (self.stack.real + "/logs", self.dir + "/logs"),
                             (self.stack.real + "/nginx/temp",
                              self.dir + "/temp"),
                             (self.stack.real + "/nginx/conf",
                              self.dir + "/conf")):
                text = text.replace(old, new)
            text = re.sub(r"(listen [^;\s]*:)%d\b" % self.stack.https,
                          r"\g<1>%d" % self.https, text)
            text = re.sub(r"(listen [^;\s]*:)%d\b" % self.stack.http,
                          r"\g<1>%d" % self.http, text)
            if self.ring is not None and "healthmate_jwt_key" in text:
                text = re.sub(r"(?m)^healthmate_jwt_key .*\n", "", text)
                text += "".join('healthmate_jwt_key %s "%s";\n' % kp
                                for kp in self.ring)
            if name == "nginx.conf":
                text = re.sub(r"(?m)^worker_processes .*$",
                              "worker_processes 2;", text)
                text = re.sub(r"(?m)^( *)include api\.conf;",
                              lambda m: m.group(0) + "\n"
                              + self.text_server, text)
                text = text.rstrip()
                assert text.endswith("}")
                text = text[:-1] + self.text_http + "\n}\n"
            for pat, new in self.sub:
                text = re.sub(pat, new, text)
            with open(os.path.join(self.dir, "conf", name), "w") as f:
                f.write(text)
        return self

    def command(self, *args, log=None):
        return subprocess.run(
            [os.environ.get("HEALTHMATE_NGINX", "/usr/sbin/nginx"), "-p",
             self.dir + "/", "-c", self.dir + "/conf/nginx.conf", "-e",
             log or self.dir + "/logs/error.log"] + list(args),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=60)

    def check(self):
        """(is it right?, what nginx -t says)"""
        r = self.command("-t", "-q", log="stderr")
        return r.returncode == 0, r.stdout

    # --- life ---

    def start(self):
        r = self.command()
        assert r.returncode == 0, r.stdout
        hmstack.wait(self.answers, 15, what="the test's nginx")
        return self

    def answers(self):
        return self.client().root("GET", "/ready").status == 200

    def pid(self):
        return int(open(self.pid_file).read())

    def workers(self, old=None):
        w = self.stack.children(self.pid(), "nginx: worker")
        return [p for p, c in w
                if old is None or ("shutting down" in c) == old]

    def hup(self):
        """A reload that has taken place when this returns."""
        before = set(self.workers(old=False))
        os.kill(self.pid(), signal.SIGHUP)
        hmstack.wait(lambda: len(set(self.workers(old=False)) - before) >= 2
                     and not before & set(self.workers(old=False)), 15,
                     what="new workers")

    def stop(self):
        try:
            pid = self.pid()
        except (OSError, ValueError):
            pid = None
        if pid:
            os.kill(pid, signal.SIGTERM)
            hmstack.wait(lambda: not os.path.exists("/proc/%d" % pid)
                         or open("/proc/%d/stat" % pid).read()
                         .rpartition(")")[2].split()[0] == "Z", 15,
                         what="the test's nginx to end")
        if not os.environ.get("HEALTHMATE_TEST_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        return open(self.dir + "/logs/error.log", errors="replace").read()
