"""
One-time codes after RFC 6238, in plain Python: an oracle that shares nothing
with the service.  A Totp remembers the last step it gave out, because the
service takes each step once: next() is the first code still good, waiting
for a new step when there is none.
"""

import base64
import hashlib
import hmac
import time


def code(secret, step):
    key = base64.b32decode(secret)
    mac = hmac.new(key, step.to_bytes(8, "big"), hashlib.sha1).digest()
    at = mac[-1] & 15
    n = int.from_bytes(mac[at:at + 4], "big") & 0x7fffffff
    return "%06d" % (n % 1000000)


def now():
    return int(time.time()) // 30


class Totp:
    def __init__(self, secret):
        self.secret = secret
        self.last = 0

    def next(self):
        while True:
            # The step before now may end while the request is under way.
            early = now() - (1 if time.time() % 30 < 25 else 0)
            step = max(early, self.last + 1)
            if step <= now() + 1:
                self.last = step
                return code(self.secret, step)
            time.sleep(0.5)

    def wrong(self):
        good = {code(self.secret, now() + d) for d in range(-3, 4)}
        return next(c for c in ("%06d" % n for n in range(10))
                    if c not in good)
