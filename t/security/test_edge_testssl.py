"""
testssl.sh over the listener of the running stack: nothing of MEDIUM or worse
but that its certificate is self-signed.  A minute and more, so it has a mark
of its own: `pytest -m "not slow"` leaves it out.
"""

import json
import shutil
import subprocess

import pytest

# The local certificate is its own authority: nobody trusts or revokes it.
EXPECTED = {"cert_chain_of_trust", "cert_revocation"}
BAD = {"MEDIUM", "HIGH", "CRITICAL", "FATAL"}

# What it must have found out, so that a run that saw nothing is red.
SEEN = {"TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "SSLv2", "SSLv3", "HSTS_time",
        "cipher_order", "PFS", "heartbleed", "ticketbleed", "BREACH",
        "cert_keySize", "fallback_SCSV", "LUCKY13", "secure_renego"}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("testssl"), reason="no testssl.sh")
def test_testssl(stack, tmp_path):
    out = tmp_path / "out.json"
    r = subprocess.run(
        # everything that is judged; no simulation of clients
        ["testssl", "-p", "-s", "-f", "-P", "-S", "-h", "-U", "--quiet", "--color", "0", "--warnings", "batch",
         "--nodns", "none", "--ip", "127.0.0.1", "--jsonfile", str(out),
         "localhost:%d" % stack.https], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400)
    found = json.loads(out.read_text())
    bad = [(x["id"], x["severity"], x["finding"]) for x in found
           if x["severity"] in BAD
           and x["id"].split(" ")[0] not in EXPECTED]
    assert not bad, bad
    ids = {x["id"].split(" ")[0] for x in found}
    assert SEEN <= ids, (SEEN - ids, r.stdout[-2000:])
