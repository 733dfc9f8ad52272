"""
A headless Chromium, spoken to over two pipes in its DevTools protocol: no
port is opened and nothing but the browser is needed.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


class Failed(Exception):
    pass


class Browser:
    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="hm-web-")
        out_r, self.out = os.pipe()
        self.inp, in_w = os.pipe()
        os.set_inheritable(out_r, True)
        os.set_inheritable(in_w, True)

        def fds():
            # 3 and 4 may be one of the pipes' own ends: copy out of the way.
            a, b = os.dup(out_r), os.dup(in_w)
            while min(a, b) < 10:
                if a < 10:
                    a = os.dup(a)
                if b < 10:
                    b = os.dup(b)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.proc = subprocess.Popen(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-sync",
             "--disable-component-update", "--disable-default-apps",
             "--ignore-certificate-errors", "--window-size=900,1200",
             "--remote-debugging-pipe", "--user-data-dir=" + self.top,
             "about:blank"],
            preexec_fn=fds, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env=dict(os.environ, HOME=self.top))
        os.close(out_r)
        os.close(in_w)
        self.buf, self.seq, self.events = b"", 0, []

    def close(self):
        try:
            self.send("Browser.close")
            self.proc.wait(10)
        except Exception:
            os.killpg(self.proc.pid, 9)
            self.proc.wait()
        os.close(self.inp)
        os.close(self.out)
        shutil.rmtree(self.top, ignore_errors=True)

    def message(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self.buf:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.inp], [], [], left)[0]:
                raise Failed("the browser is silent")
            got = os.read(self.inp, 65536)
            if not got:
                raise Failed("the browser is gone")
            self.buf += got
        one, _, self.buf = self.buf.partition(b"\0")
        return json.loads(one)

    def send(self, method, params=None, session=None, seconds=30):
        self.seq += 1
        doc = {"id": self.seq, "method": method, "params": params or {}}
        if session:
            doc["sessionId"] = session
        data = json.dumps(doc).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data):]
        while True:
            m = self.message(seconds)
            if m.get("id") == self.seq:
                if "error" in m:
                    raise Failed("%s: %s" % (method, m["error"]))
                return m["result"]
            self.events.append(m)

    def page(self, url):
        return Page(self, url)


class Page:
    def __init__(self, browser, url):
        self.b = browser
        # A context of its own: no cookie of another page.
        self.context = browser.send("Target.createBrowserContext")[
            "browserContextId"]
        t = browser.send("Target.createTarget", {
            "url": "about:blank", "browserContextId": self.context})
        self.target = t["targetId"]
        self.session = browser.send("Target.attachToTarget", {
            "targetId": self.target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Security"):
            self.send(domain + ".enable")
        self.open(url)

    def send(self, method, params=None, **kw):
        return self.b.send(method, params, self.session, **kw)

    def close(self):
        self.b.send("Target.closeTarget", {"targetId": self.target})
        self.b.send("Target.disposeBrowserContext",
                    {"browserContextId": self.context})

    def open(self, url):
        r = self.send("Page.navigate", {"url": url})
        if r.get("errorText"):
            raise Failed("%s: %s" % (url, r["errorText"]))
        self.until("document.readyState === 'complete'"
                   " && location.href !== 'about:blank'")

    def js(self, expression):
        r = self.send("Runtime.evaluate", {
            "expression": expression, "awaitPromise": True,
            "returnByValue": True, "userGesture": True})
        if "exceptionDetails" in r:
            raise Failed("%s: %s" % (expression, json.dumps(
                r["exceptionDetails"])[:600]))
        return r["result"].get("value")

    def until(self, expression, seconds=20):
        end = time.monotonic() + seconds
        while not self.js(expression):
            if time.monotonic() > end:
                raise Failed("waited %d s for %s; the page says: %s" % (
                    seconds, expression, self.js("document.body.innerText")))
            time.sleep(0.05)

    def fill(self, **values):
        for name, value in values.items():
            self.js("document.getElementById(%s).value = %s" % (
                json.dumps(name.replace("_", "-")), json.dumps(value)))

    def click(self, selector):
        self.until("document.querySelector(%s) !== null" %
                   json.dumps(selector))
        self.js("document.querySelector(%s).click()" % json.dumps(selector))

    def shot(self, path):
        data = self.send("Page.captureScreenshot", {
            "format": "png", "captureBeyondViewport": True})["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def faults(self):
        """What the browser complained of: policy, scripts, failed loads."""
        out = []
        for m in self.b.events:
            if m.get("sessionId") != self.session:
                continue
            p = m.get("params", {})
            if m["method"] == "Runtime.exceptionThrown":
                out.append(json.dumps(p)[:400])
            elif m["method"] == "Log.entryAdded":
                e = p["entry"]
                if e["level"] == "error" and "status of 40" not in e["text"]:
                    out.append(e["text"])
        return out

    # --- a virtual authenticator ---

    def authenticator(self):
        self.send("WebAuthn.enable", {"enableUI": False})
        return self.send("WebAuthn.addVirtualAuthenticator", {"options": {
            "protocol": "ctap2", "transport": "internal",
            "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": True, "automaticPresenceSimulation": True,
        }})["authenticatorId"]

    def credentials(self, authenticator):
        return self.send("WebAuthn.getCredentials",
                         {"authenticatorId": authenticator})["credentials"]
