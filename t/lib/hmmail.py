"""
Mail as its receiver sees it: the outbox of a stack, and a real SMTP server
(aiosmtpd: STARTTLS, AUTH) that can be told to misbehave for one recipient.
"""

import email
import email.policy
import glob
import os
import re
import ssl
import subprocess
import threading
import time

from hmhttp import free_port
from hmstack import wait

TOKEN = re.compile(r"^(https?://[^/\s]+)(/[a-z/-]*)"
                   r"(?:#(hmt1\.[\w-]{43}))?$", re.M)


def parse(raw):
    m = email.message_from_bytes(raw, policy=email.policy.default)
    text = m.get_content()
    link = TOKEN.search(text.replace("\r", ""))
    m.page = link.group(2) if link else None
    m.token = link.group(3) if link else None
    m.body = text
    return m


class Outbox:
    def __init__(self, stack):
        self.folder = os.path.join(stack.real, "worker", "outbox")

    def all(self, to=None):
        out = []
        for f in glob.glob(os.path.join(self.folder, "*.eml")):
            try:
                out.append((os.stat(f).st_mtime_ns,
                            parse(open(f, "rb").read())))
            except FileNotFoundError:
                pass
        out.sort(key=lambda x: x[0])
        return [m for _, m in out if to is None or m["To"] == "<%s>" % to
                or m["To"] == to]

    def wait(self, to, n=1, seconds=15):
        return wait(lambda: (lambda a: a if len(a) >= n else None)(
            self.all(to)), seconds, 0.1, "mail %d to %s" % (n, to))[n - 1]

    def none(self, to, n=0, seconds=2.5):
        time.sleep(seconds)
        assert len(self.all(to)) == n


def certificate(folder, names):
    key, crt = os.path.join(folder, "smtp.key"), os.path.join(folder,
                                                              "smtp.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
         "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=" + names, "-keyout", key, "-out", crt],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.chmod(crt, 0o644)
    return key, crt


class Smtp:
    """`rules`: recipient -> list of what its next messages meet: a reply
    ("451 later"), a function called before the message is taken, None."""

    def __init__(self, folder, tls=True, auth=True, user="healthmate",
                 password="open sesame", names="IP:127.0.0.1,DNS:localhost"):
        from aiosmtpd.smtp import AuthResult, LoginPassword

        self.user, self.password = user, password
        self.messages, self.rules, self.tried = [], {}, []
        self.logins, self.clear = [], 0
        self.lock = threading.Lock()
        box = self

        class Handler:
            async def handle_RCPT(self, server, session, envelope, address,
                                  options):
                with box.lock:
                    box.tried.append(address)
                    rule = (box.rules.get(address) or [None])[0]
                if isinstance(rule, str) and rule.startswith("rcpt "):
                    box.rules[address].pop(0)
                    return rule[5:]
                envelope.rcpt_tos.append(address)
                return "250 ok"

            async def handle_DATA(self, server, session, envelope):
                import asyncio
                to = envelope.rcpt_tos[0]
                rule = box.rules[to].pop(0) if box.rules.get(to) else None
                if session.ssl is None:
                    box.clear += 1
                if isinstance(rule, str):
                    return rule
                m = parse(envelope.content)
                m.sender, m.rcpt = envelope.mail_from, to
                with box.lock:
                    box.messages.append(m)
                if isinstance(rule, (int, float)):
                    await asyncio.sleep(rule)
                elif rule:
                    await asyncio.get_running_loop().run_in_executor(
                        None, rule, m)
                return "250 taken"

        def check(server, session, envelope, mechanism, data):
            ok = (isinstance(data, LoginPassword)
                  and data.login == box.user.encode()
                  and data.password == box.password.encode())
            box.logins.append(ok)
            return AuthResult(success=ok, handled=ok)

        kw = {}
        if tls:
            self.key, self.crt = certificate(folder, names)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.crt, self.key)
            kw.update(tls_context=context, require_starttls=True)
        if auth:
            kw.update(authenticator=check, auth_required=True)
        self.handler, self.kw = Handler(), kw

    def start(self, port=0):
        from aiosmtpd.controller import Controller
        self.server = Controller(
            self.handler, hostname="127.0.0.1", port=port or free_port(),
            server_hostname="localhost", **self.kw)
        self.server.start()
        return self

    def stop(self):
        self.server.stop()

    def all(self, to):
        with self.lock:
            return [m for m in self.messages if m.rcpt == to]

    def wait(self, to, n=1, seconds=20):
        return wait(lambda: (lambda a: a if len(a) >= n else None)(
            self.all(to)), seconds, 0.1, "mail %d to %s" % (n, to))[n - 1]
