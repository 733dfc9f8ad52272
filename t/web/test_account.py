"""
The account page in a real browser: codes and a passkey are set up and used
to sign in, as a person would, on the stack's own HTTPS listener.  The
authenticator is Chromium's virtual one.  The page must work under its
content policy without one complaint.
"""

import json
import os

import pytest

import hmcdp
from hmhttp import ok
from hmotp import Totp
from hmstack import PASSWORD

pytestmark = pytest.mark.skipif(not hmcdp.BROWSER,
                                reason="chromium is not installed")

SHOTS = os.environ.get("HEALTHMATE_TEST_SHOTS")


@pytest.fixture(scope="module")
def browser():
    b = hmcdp.Browser()
    yield b
    b.close()


@pytest.fixture
def page(stack, browser):
    p = browser.page("https://localhost:%d/account/" % stack.https)
    yield p
    bad = p.faults()
    p.close()
    assert not bad, bad


def shot(page, name):
    if SHOTS:
        page.shot(os.path.join(SHOTS, name + ".png"))


def visible(name):
    return "document.getElementById('%s').offsetParent !== null" % name


def sign_in(page, c, otp=None, wait=True):
    page.fill(email=c.email, password=PASSWORD)
    if otp:
        page.fill(otp=otp)
    page.click("#sign-in button")
    if wait:
        inside(page, c)


def inside(page, c):
    page.until(visible("signed-in"))
    page.until("document.getElementById('who-email').textContent === "
               + json.dumps(c.email))


def sign_out(page):
    page.click("#sign-out")
    page.until(visible("signed-out"))


def test_codes_and_a_passkey(stack, page):
    c = stack.new_user()
    auth = page.authenticator()
    shot(page, "1-signed-out")

    # A wrong password says so and lets nobody in.
    page.fill(email=c.email, password="wrong")
    page.click("#sign-in button")
    page.until(visible("message"))
    assert not page.js(visible("signed-in"))

    sign_in(page, c)

    # Codes: the secret as typed from the page, the picture beside it.
    page.click("#totp-start")
    page.until(visible("totp-secret"))
    page.until("document.getElementById('totp-qr').naturalWidth > 0")
    shot(page, "2-enrol")
    totp = Totp(page.js("document.getElementById('totp-secret')"
                        ".textContent").replace(" ", ""))
    page.fill(totp_code=totp.wrong())
    page.click("#totp-confirm button")
    page.until(visible("message"))
    page.fill(totp_code=totp.next())
    page.click("#totp-confirm button")
    page.until(visible("recovery"))
    codes = page.js("[...document.querySelectorAll('#recovery-codes li')]"
                    ".map(x => x.textContent)")
    assert len(codes) == 10
    page.until(visible("totp-remove"))
    shot(page, "3-recovery-codes")

    # A passkey, in the session that has just shown its code.
    page.fill(key_name="This test")
    page.click("#key-add button")
    page.until("document.querySelectorAll('#keys li').length === 1")
    assert "This test" in page.js("document.querySelector('#keys li')"
                                  ".textContent")
    assert len(page.credentials(auth)) == 1
    shot(page, "4-passkey")

    # Signing in: password and code; a recovery code; the passkey alone.
    sign_out(page)
    sign_in(page, c, wait=False)
    page.until(visible("otp"))
    shot(page, "5-code-asked")
    sign_in(page, c, totp.next())
    sign_out(page)
    sign_in(page, c, codes[0].lower())
    sign_out(page)
    page.click("#passkey-in")
    inside(page, c)
    cred = page.credentials(auth)[0]
    assert cred["signCount"] >= 1 and cred["isResidentCredential"]

    # And they are removed again.
    page.click("#keys button")
    page.until(visible("keys-none"))
    page.click("#totp-remove")
    page.until(visible("totp-start"))
    sign_out(page)
    sign_in(page, c)
    assert ok(stack.login(c, c.email, PASSWORD).get("/auth/me"))["mfa"] == []


def test_a_passkey_of_another_site_is_not_offered(stack, page):
    """The browser's own rule, and that we gave the right id."""
    page.authenticator()
    r = page.js("""
fetch('/api/v1/auth/passkeys/login/options', {method: 'POST'})
 .then(r => r.json())
 .then(o => navigator.credentials.get({publicKey:
   PublicKeyCredential.parseRequestOptionsFromJSON(
     Object.assign(o, {rpId: 'evil.example'}))}))
 .then(() => 'signed', e => e.name)""")
    assert r == "SecurityError"


def test_policy_and_files(stack):
    c = stack.client(tls=True)
    r = c.root("GET", "/account/")
    assert r.status == 200
    assert r.header("content-type").startswith("text/html")
    csp = r.header("content-security-policy")
    assert "default-src 'none'" in csp and "unsafe" not in csp
    assert "frame-ancestors 'none'" in csp
    assert r.header("strict-transport-security")
    body = r.body.decode()
    assert "style=" not in body and "onclick" not in body
    assert c.root("GET", "/account/none").status == 404
    assert c.root("GET", "/account/../nginx.conf").status in (400, 404)
    assert c.root("GET", "/account").header("location") == "/account/"
    assert json.loads(c.root("GET", "/nothing").body)["status"] == 404
