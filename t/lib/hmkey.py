"""
An authenticator in software: makes passkeys and signs with them, as a
browser would hand it on.  Keys and signatures are the openssl command's, the
bytes around them are written here, so that each can be made wrong.
"""

import hashlib
import json
import os
import subprocess
import tempfile

from hmstack import b64d, b64e

ES256, EDDSA, RS256 = -7, -8, -257

UP, UV, BE, BS, AT, ED = 1, 4, 8, 16, 64, 128


def openssl(*args, data=None):
    return subprocess.run(("openssl",) + args, input=data, check=True,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    if n < 256:
        return bytes([major << 5 | 24, n])
    return bytes([major << 5 | 25]) + n.to_bytes(2, "big")


def cbor(x):
    if isinstance(x, int):
        return head(0, x) if x >= 0 else head(1, -1 - x)
    if isinstance(x, bytes):
        return head(2, len(x)) + x
    if isinstance(x, str):
        return head(3, len(x.encode())) + x.encode()
    return head(5, len(x)) + b"".join(cbor(k) + cbor(v)
                                      for k, v in x.items())


class Passkey:
    def __init__(self, origin, rp_id="localhost", alg=ES256):
        self.origin, self.rp_id, self.alg = origin, rp_id, alg
        self.id = os.urandom(32)
        self.count = 0
        self.handle = None
        self.key = openssl("genpkey", *{
            ES256: ("-algorithm", "EC", "-pkeyopt",
                    "ec_paramgen_curve:P-256"),
            EDDSA: ("-algorithm", "ED25519"),
            RS256: ("-algorithm", "RSA", "-pkeyopt",
                    "rsa_keygen_bits:2048")}[alg])

    def cose(self):
        der = openssl("pkey", "-pubout", "-outform", "DER", data=self.key)
        if self.alg == ES256:
            return cbor({1: 2, 3: ES256, -1: 1, -2: der[-64:-32],
                         -3: der[-32:]})
        if self.alg == EDDSA:
            return cbor({1: 1, 3: EDDSA, -1: 6, -2: der[-32:]})
        n = openssl("rsa", "-noout", "-modulus", data=self.key)
        return cbor({1: 3, 3: RS256,
                     -1: bytes.fromhex(n.decode().split("=")[1].strip()),
                     -2: b"\1\0\1"})

    def sign(self, data):
        with tempfile.NamedTemporaryFile() as k, \
                tempfile.NamedTemporaryFile() as d:
            k.write(self.key)
            k.flush()
            d.write(data)
            d.flush()
            if self.alg == EDDSA:
                return openssl("pkeyutl", "-sign", "-rawin", "-inkey",
                               k.name, "-in", d.name)
            return openssl("dgst", "-sha256", "-sign", k.name, d.name)

    def data(self, flags, count, more=b"", rp_id=None):
        return (hashlib.sha256((rp_id or self.rp_id).encode()).digest()
                + bytes([flags]) + count.to_bytes(4, "big") + more)

    def client(self, kind, given, origin=None, **kw):
        doc = {"type": "webauthn." + kind, "challenge": given,
               "origin": origin or self.origin, "crossOrigin": False}
        doc.update(kw)
        return json.dumps(doc).encode()

    def create(self, options, flags=UP | UV | AT, origin=None, rp_id=None,
               cose=None, fmt="none", **kw):
        """RegistrationResponseJSON for creation options."""
        self.handle = b64d(options["user"]["id"])
        att = cbor({"fmt": fmt, "attStmt": {}, "authData": self.data(
            flags, self.count, bytes(16) + len(self.id).to_bytes(2, "big")
            + self.id + (self.cose() if cose is None else cose), rp_id)})
        return {"id": b64e(self.id), "rawId": b64e(self.id),
                "type": "public-key", "authenticatorAttachment": "platform",
                "clientExtensionResults": {}, "response": {
                    "clientDataJSON": b64e(self.client(
                        "create", options["challenge"], origin, **kw)),
                    "attestationObject": b64e(att),
                    "transports": ["internal", "hybrid", "carrier-pigeon"]}}

    def get(self, options, flags=UP | UV, count=None, origin=None,
            rp_id=None, handle=None, kind="get", **kw):
        """AuthenticationResponseJSON for request options."""
        if count is None:
            self.count += 1
            count = self.count
        client = self.client(kind, options["challenge"], origin, **kw)
        data = self.data(flags, count, rp_id=rp_id)
        sig = self.sign(data + hashlib.sha256(client).digest())
        return {"id": b64e(self.id), "rawId": b64e(self.id),
                "type": "public-key", "clientExtensionResults": {},
                "response": {"clientDataJSON": b64e(client),
                             "authenticatorData": b64e(data),
                             "signature": b64e(sig),
                             "userHandle": b64e(handle or self.handle)}}
