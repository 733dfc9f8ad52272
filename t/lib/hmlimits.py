"""
What the suites of the limiters share: a stack with limits on whose
directives a test may set, many addresses to speak from, tries at passwords
in great number, and figures read from /metrics.
"""

import json
import os
import re
import select
import socket
import subprocess
import time

import hmstack
from hmhttp import BASE, Client, parse_response
from hmstack import PASSWORD, wait

LONG = bool(os.environ.get("HEALTHMATE_TEST_LONG"))


def count(name, short, long):
    """How many of something: by variable, else short or long."""
    return int(os.environ.get("HEALTHMATE_TEST_" + name,
                              long if LONG else short))


class Limited(hmstack.Stack):
    """Limits on; directives() sets some and reloads."""

    def __init__(self):
        super().__init__(limits="on")
        self.plain = None

    def conf(self):
        return self.real + "/nginx/conf/healthmate.conf"

    def write(self, lines):
        if self.plain is None:
            self.plain = open(self.conf()).read()
        text = self.plain
        for line in lines:
            name = r"^\s*%s\s" % line.split()[0]
            if line.split()[0] != "healthmate_rate_limit":
                text = "".join(x for x in text.splitlines(True)
                               if not re.match(name, x))
            text += line + ";\n"
        with open(self.conf(), "w") as f:
            f.write(text)

    def nginx(self, *args):
        return subprocess.run(
            ["nginx", "-p", self.real + "/nginx/", "-c",
             self.real + "/nginx/conf/nginx.conf", "-e",
             self.real + "/logs/error.log"] + list(args),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)

    def reload(self):
        old = set(self.nginx_workers())
        self.hup()
        wait(lambda: set(self.nginx_workers(old=False)) - old, 20,
             what="new workers")
        wait(lambda: Client(self).root("GET", "/ready").status == 200, 20,
             what="ready")
        # Idle connections end at once, so only new workers answer.
        wait(lambda: not (old & set(self.nginx_workers(old=False))), 20,
             what="the old ones to go")

    def directives(self, *lines):
        self.write(lines)
        self.reload()

    def figure(self, name):
        r = Client(self).root("GET", "/metrics")
        m = re.search(r"^%s (\S+)$" % re.escape(name), r.text, re.M)
        assert m, name
        return float(m.group(1))


def login(c, email, password=PASSWORD, cookie=None, **more):
    doc = {"email": email, "password": password, "fingerprint": False}
    doc.update(more)
    return c.post("/auth/login", doc, token=None,
                  headers={"Cookie": cookie} if cookie else None)


def nobody():
    return "n-%s@example.org" % os.urandom(5).hex()


def device(r, name="hm-dev"):
    """The device cookie an answer sets: name=value, and its attributes."""
    found = [x for x in r.headers("set-cookie") if x.startswith(name + "=")]
    assert len(found) == 1, r.raw_headers
    parts = [x.strip() for x in found[0].split(";")]
    return parts[0], [x.lower() for x in parts[1:]]


def at_once(port, docs, sources, path="/auth/login", headers=(),
            timeout=120):
    """
    All docs posted at the same time, each over a connection of its own from
    sources[i % n]; their answers (None: lost).  One thread, plain sockets: a
    client that costs little beside the server.
    """
    socks, out = [], [None] * len(docs)
    poll = select.epoll()
    wants, got = {}, {}
    for i, doc in enumerate(docs):
        body = json.dumps(doc).encode()
        head = ["POST %s%s HTTP/1.1" % (BASE, path), "Host: localhost",
                "Content-Type: application/json", "Connection: close",
                "Content-Length: %d" % len(body)]
        head += ["%s: %s" % h for h in headers]
        s = socket.socket()
        s.bind((sources[i % len(sources)], 0))
        s.connect(("127.0.0.1", port))
        s.setblocking(False)
        socks.append(s)
        wants[s.fileno()] = (i, "\r\n".join(head).encode() + b"\r\n\r\n"
                             + body)
        got[i] = b""
    for s in socks:
        s.send(wants[s.fileno()][1])
        poll.register(s, select.EPOLLIN)
    by_fd = {s.fileno(): s for s in socks}
    end = time.monotonic() + timeout
    while by_fd and time.monotonic() < end:
        for fd, _ in poll.poll(1):
            i = wants[fd][0]
            try:
                part = by_fd[fd].recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if part:
                got[i] += part
                continue
            poll.unregister(fd)
            by_fd.pop(fd).close()
            if got[i]:
                out[i] = parse_response(got[i], "POST", BASE + path)[0]
    for s in by_fd.values():
        s.close()
    poll.close()
    return out


def waves(port, docs, sources, width=200, **kw):
    out = []
    for i in range(0, len(docs), width):
        out += at_once(port, docs[i:i + width],
                       sources[i % len(sources):] + sources, **kw)
    return out
