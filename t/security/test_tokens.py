"""
Access tokens: forgeries, algorithms, the key ring and its public part.

The forgeries are made by tokens.mjs, with keys of every algorithm we sign
with; npm's jose, used with care, judges each as well.  Whatever jose refuses
we must refuse; what jose may take and we do not is marked there.  All of it
runs against an nginx of its own (hmnginx.py) whose ring has three keys.
"""

import collections
import json
import re
import subprocess
import time

import pytest

import hmnode
from hmhttp import Conn, exchange, ok, parse_response, problem
from hmnginx import Nginx
from hmstack import PASSWORD, b64d, b64e

ASK = "/api/v1/health-data/types"       # any valid token, nothing recorded


def openssl(*args):
    return subprocess.run(["openssl"] + list(args), check=True, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


def es256():
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt",
                   "ec_paramgen_curve:P-256")


def ed25519():
    return openssl("genpkey", "-algorithm", "ED25519")


def public(stack_dir, path):
    return openssl("pkey", "-in", path, "-pubout")


def head(token):
    return json.loads(b64d(token.split(".")[0]))


def claims(token):
    return json.loads(b64d(token.split(".")[1]))


def ask(port, token, path=ASK):
    c = Conn(port)
    try:
        return c.request("GET", path, None,
                         [("Authorization", "Bearer " + token)])
    finally:
        c.close()


class Ring:
    """An nginx with an ES256, an EdDSA and an HS256 key, in this order."""

    def __init__(self, stack, **kw):
        self.x = Nginx(stack, **kw)
        self.pem = {"es": es256(), "ed": ed25519()}
        self.secret = "s" * 20 + "0123456789abcdef0123456789"
        self.path = {k: self.x.key(k + ".pem", v)
                     for k, v in self.pem.items()}
        self.path["hs"] = self.x.key("hs.secret", self.secret + "\n")
        self.use("es", "ed", "hs")

    def use(self, *kids):
        self.x.ring = [(k, self.path[k]) for k in kids]
        self.x.sync()
        return self

    def doc(self):
        """What tokens.mjs wants to know, but for the claims."""
        return {"now": int(time.time()), "issuer": "healthmate",
                "audience": "healthmate-api",
                "keys": [{"kid": "es", "alg": "ES256",
                          "pem": self.pem["es"]},
                         {"kid": "ed", "alg": "EdDSA",
                          "pem": self.pem["ed"]},
                         {"kid": "hs", "alg": "HS256",
                          "secret": self.secret}],
                "gone": {"kid": "old", "alg": "HS256",
                         "secret": "an older secret, gone since long"}}


@pytest.fixture(scope="module")
def ring(stack):
    r = Ring(stack, server='location /guarded/ { healthmate_auth on; '
             'root "%s"; }\n')
    # The folder is known only now.
    r.x.text_server = r.x.text_server % (r.x.dir + "/www")
    r.x.file("guarded/file", "something of somebody")
    r.x.sync().start()
    yield r
    r.x.stop()


@pytest.fixture(scope="module")
def person(ring):
    return ring.x.new_user()


# --- forgeries ---

@pytest.fixture(scope="module")
def corpus(ring, person):
    doc = ring.doc()
    doc["claims"] = claims(person.token)
    doc["claims"].update(iat=doc["now"], nbf=doc["now"],
                         exp=doc["now"] + 1800)
    doc["ours"] = [{"name": "ours", "token": person.token}]
    return hmnode.run("security/tokens.mjs", doc)


def sendable(token):
    return "\n" not in token and "\r" not in token and "\0" not in token


def test_corpus_is_a_corpus(corpus):
    names = [x["name"] for x in corpus["forged"]]
    assert len(names) >= 240 and len(set(names)) == len(names)
    per = collections.Counter(n.split(":")[0] for n in names)
    assert min(per[a] for a in ("HS256", "ES256", "EdDSA")) >= 80, per


def test_jose_refuses_them_too(corpus):
    bad = [x["name"] for x in corpus["forged"]
           if x["jose"] == "accepted" and not x["stricter"]]
    assert not bad, bad


def test_accepted_0_crashes_0(ring, corpus):
    workers = set(ring.x.workers())
    accepted, odd = [], collections.Counter()
    for path in (ASK, "/guarded/file"):
        conn = Conn(ring.x.http)
        for x in corpus["forged"]:
            if not sendable(x["token"]):
                continue
            r = conn.request("GET", path, None,
                             [("Authorization", "Bearer " + x["token"])])
            if r.status < 400:
                accepted.append((path, x["name"], r.status))
            elif r.status != 401:
                odd[r.status, x["name"]] += 1
            else:
                assert json.loads(r.body)["code"].startswith("auth."), x
                assert r.header("www-authenticate") == "Bearer"
        conn.close()
    assert not accepted, accepted
    # A header that is too long is nginx's to refuse.
    assert set(s for s, _ in odd) <= {400, 494}, odd
    assert all("kB" in n for _, n in odd), odd
    assert set(ring.x.workers()) == workers


def test_expired_is_said_of_good_tokens_only(ring, corpus):
    """A client answers token_expired with a refresh."""
    said = {}
    for x in corpus["forged"]:
        if sendable(x["token"]) and len(x["token"]) < 5000:
            r = ask(ring.x.http, x["token"])
            said[x["name"]] = json.loads(r.body)["code"]
    expired = {n.split(": ", 1)[1] for n, c in said.items()
               if c == "auth.token_expired"}
    assert expired == {"claim expired just now", "claim expired long ago"}


def test_good_tokens_of_jose_are_taken(ring, corpus):
    assert len(corpus["good"]) >= 6
    for x in corpus["good"]:
        assert x["jose"] == "accepted", x
        for path in (ASK, "/guarded/file"):
            r = ask(ring.x.http, x["token"], path)
            assert r.status == 200, (x["name"], path, r)


def test_ours_are_taken_by_jose(corpus):
    assert [x["jose"] for x in corpus["ours"]] == ["accepted"]


def send(ring, lines, path=ASK):
    out = exchange(ring.x.http, ("GET %s HTTP/1.1\r\nHost: localhost\r\n"
                   "Connection: close\r\n%s\r\n" % (path, "".join(
                       x + "\r\n" for x in lines))).encode("latin-1"))
    return parse_response(out)[0]


def test_where_a_token_may_stand(ring, person):
    t = person.token
    good = ["Authorization: Bearer " + t, "authorization: bearer " + t,
            "AUTHORIZATION: BEARER " + t, "Authorization: Bearer   " + t]
    for h in good:
        assert send(ring, [h]).status == 200, h
    bad = ["Authorization: " + t, "Authorization: Basic " + t,
           "Authorization: Bearer", "Authorization: Bearer ",
           "Authorization: Bearer: " + t, "Authorization: Bearer\x0b" + t,
           "Authorization: DPoP " + t, "Authorization: Bearer " + t + ", x",
           "Authorization: Bearer x " + t, "X-Authorization: Bearer " + t,
           "Proxy-Authorization: Bearer " + t, "Authorization : Bearer " + t,
           "Cookie: access_token=" + t, "Cookie: __Secure-hm-fgp=" + t]
    for h in bad:
        for path in (ASK, "/guarded/file"):
            assert send(ring, [h], path).status in (400, 401), h
    for path in (ASK, "/guarded/file"):
        r = send(ring, [], path + "?access_token=" + t)
        assert r.status == 401
    # Two of them: whoever stands behind us may look at the other one.
    r = send(ring, [good[0], "Authorization: Bearer x"], "/guarded/file")
    assert r.status == 400


# --- the ring ---

def test_the_first_key_signs(ring):
    for kid, alg in (("ed", "EdDSA"), ("hs", "HS256"), ("es", "ES256")):
        ring.use(*[kid] + [k for k in ("es", "ed", "hs") if k != kid])
        ring.x.hup()
        c = ring.x.new_user()
        assert head(c.token) == {"alg": alg, "typ": "JWT", "kid": kid}
        assert ask(ring.x.http, c.token).status == 200
        assert ok(c.get("/auth/me"))["id"] == c.id


def test_rotation_with_overlap_and_end(ring):
    """The old key's tokens live as long as the key is listed, not longer,
    also where they have just been verified."""
    ring.use("hs")
    ring.x.hup()
    old = ring.x.new_user()
    assert head(old.token)["kid"] == "hs"

    ring.use("hs", "es")                 # published, not yet signing
    ring.x.hup()
    assert ask(ring.x.http, old.token).status == 200

    ring.use("es", "hs")
    ring.x.hup()
    new = ring.x.new_user()
    assert head(new.token)["kid"] == "es"
    for _ in range(40):                  # in every worker's cache
        assert ask(ring.x.http, old.token).status == 200
        assert ask(ring.x.http, new.token).status == 200

    ring.use("es")
    ring.x.hup()
    for _ in range(40):
        r = ask(ring.x.http, old.token)
        assert problem(r, 401, "auth.token_invalid")
        assert ask(ring.x.http, new.token).status == 200

    # The private part can go while its tokens live.
    ring.path["es-public"] = ring.x.key("es.pub", public(ring, ring.path["es"]))
    ring.x.ring = [("ed", ring.path["ed"]), ("es", ring.path["es-public"])]
    ring.x.sync().hup()
    assert ask(ring.x.http, new.token).status == 200
    ring.use("es", "ed", "hs")
    ring.x.hup()


def test_a_known_kid_with_another_key(ring, person):
    """A key that was exchanged under its name takes its tokens with it."""
    assert ask(ring.x.http, person.token).status == 200
    path = ring.x.key("other.pem", es256())
    ring.x.ring = [("es", path)]
    ring.x.sync().hup()
    for _ in range(20):
        assert ask(ring.x.http, person.token).status == 401
    ring.use("es", "ed", "hs")
    ring.x.hup()
    assert ask(ring.x.http, person.token).status == 200


def test_nginx_t_names_what_is_wrong(ring):
    x = ring.x
    key = {
        "rsa": openssl("genpkey", "-algorithm", "RSA", "-pkeyopt",
                       "rsa_keygen_bits:2048"),
        "p384": openssl("genpkey", "-algorithm", "EC", "-pkeyopt",
                        "ec_paramgen_curve:P-384"),
        "short": "0123456789", "empty": "", "long": "x" * 300,
        "two": ring.pem["es"] + ring.pem["ed"],
        "pub": public(ring, ring.path["es"]),
        "jwk": json.dumps({"kty": "oct", "k": "A" * 60}),
    }
    path = {k: x.key("fault-" + k, v) for k, v in key.items()}
    es = ring.path["es"]
    faults = [
        ([("es", es), ("es", path["pub"])], r'"es" is duplicate'),
        ([("a", path["rsa"])], r"only EC keys on P-256"),
        ([("a", path["p384"])], r"only EC keys on P-256"),
        ([("a", path["short"])], r"the secret has 10 bytes"),
        ([("a", path["long"])], r"the secret has 300 bytes"),
        ([("a", path["empty"])], r"empty or too long"),
        ([("a", path["two"])], r"more than one key"),
        ([("a", path["pub"])], r"the first key signs"),
        ([("a", path["jwk"])], r"DER or JSON"),
        ([("a", x.dir + "/nothing")], r"cannot read"),
        ([("a/b", es)], r"a key id is"),
        ([("k" * 33, es)], r"a key id is"),
        ([("k%d" % i, es) for i in range(17)], r"more than 16"),
        ([], r"needs healthmate_kek_file and healthmate_jwt_key"),
    ]
    try:
        for keys, say in faults:
            x.ring = keys
            good, said = x.sync().check()
            assert not good and re.search(say, said), (say, said)
            if keys:
                # With file and line, and without the key.
                assert re.search(r"healthmate\.conf:\d+", said), said
            assert "PRIVATE" not in said and "0123456789" not in said
        subprocess.run(["chmod", "644", path["pub"]], check=True)
        x.ring = [("es", es), ("p", path["pub"])]
        good, said = x.sync().check()
        assert not good and "everybody may read" in said
    finally:
        ring.use("es", "ed", "hs")
    assert x.check()[0], x.check()[1]


# --- the key set ---

def test_jwks_is_not_there_without_the_directive(ring):
    r = ring.x.client().root("GET", "/.well-known/jwks.json")
    assert problem(r, 404, "resource.not_found")


def test_jwks(ring):
    x = ring.x
    x.text_http = "healthmate_jwks on;\n"
    try:
        ring.use("es", "ed", "hs")
        x.hup()
        c = x.new_user()
        r = x.client().root("GET", "/.well-known/jwks.json")
        assert r.status == 200
        assert r.header("content-type") == "application/jwk-set+json"
        assert r.header("cache-control") == "public, max-age=300"
        doc = json.loads(r.body)
        assert [(k["kid"], k["kty"], k["crv"], k["alg"], k["use"])
                for k in doc["keys"]] == [
            ("es", "EC", "P-256", "ES256", "sig"),
            ("ed", "OKP", "Ed25519", "EdDSA", "sig")]
        # Public members and nothing else: no d, no k.
        assert {m for k in doc["keys"] for m in k} == {
            "kty", "crv", "alg", "use", "kid", "x", "y"}
        assert ring.secret not in r.body.decode()
        tag = r.header("etag")
        n = x.client().root("GET", "/.well-known/jwks.json",
                            headers=[("If-None-Match", tag)])
        assert n.status == 304 and n.body == b""
        h = x.client().root("HEAD", "/.well-known/jwks.json")
        assert h.status == 200 and h.body == b""

        # jose verifies our tokens with it, and not a changed one.
        body = c.token.split(".")
        other = claims(c.token)
        other["role"] = "admin"
        forged = ".".join([body[0], b64e(json.dumps(other).encode()),
                           body[2]])
        sent = ring.doc()
        sent.update(claims=claims(c.token), jwks=doc, ours=[
            {"name": "ours", "token": c.token},
            {"name": "changed", "token": forged}])
        out = hmnode.run("security/tokens.mjs", sent)
        assert out["jwks"][0] == "accepted"
        assert out["jwks"][1] != "accepted"

        # Only a secret: nothing to publish, and nginx says so.
        ring.use("hs")
        good, said = x.check()
        assert good and "there is no public key" in said
        x.hup()
        r = x.client().root("GET", "/.well-known/jwks.json")
        assert r.status == 404
    finally:
        x.text_http = ""
        ring.use("es", "ed", "hs")
        x.hup()


# --- the cookie ---

def test_fingerprint_with_a_signature(ring):
    """A token with fgp is worth nothing without its cookie, each time."""
    c = ring.x.client(tls=True)
    doc = {"email": "fgp-%d@example.org" % time.time_ns(),
           "password": PASSWORD, "full_name": "Test Person",
           "accept_terms": True}
    r = c.post("/auth/register", doc)
    assert r.status == 201, r
    cookie = r.header("set-cookie").split(";")[0]
    assert cookie.startswith("__Secure-hm-fgp=")
    c.token = r.json()["access_token"]
    assert head(c.token)["alg"] == "ES256" and "fgp" in claims(c.token)
    for path in (ASK, "/guarded/file"):
        for _ in range(3):
            c.cookie = cookie
            assert c.raw("GET", path, check=False).status == 200
            c.cookie = None
            problem(c.raw("GET", path, check=False), 401,
                    "auth.fingerprint_mismatch")
            c.cookie = cookie[:-1] + ("A" if cookie[-1] != "A" else "B")
            assert c.raw("GET", path, check=False).status == 401
