"""
Programs of npm packages, as oracles.  They are installed once into
build/test-node and run by the npm package node@20: a bare Debian 12 has an
older Node.
"""

import fcntl
import json
import os
import subprocess

import hmstack

FOLDER = os.path.join(hmstack.ROOT, "build", "test-node")
PACKAGES = {"node": "20", "jose": "6.2.17"}


def install():
    os.makedirs(FOLDER, exist_ok=True)
    with open(FOLDER + "/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        want = json.dumps({"private": True, "dependencies": PACKAGES},
                          indent=1, sort_keys=True)
        stamp = FOLDER + "/.installed"
        if os.path.exists(stamp) and open(stamp).read() == want:
            return
        with open(FOLDER + "/package.json", "w") as f:
            f.write(want)
        r = subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund"],
            cwd=FOLDER, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=600)
        assert r.returncode == 0, "npm install: %s" % r.stdout[-3000:]
        with open(stamp, "w") as f:
            f.write(want)


def run(script, doc, timeout=120):
    """script (a file of t/) gets doc on stdin and answers with JSON."""
    install()
    r = subprocess.run(
        [FOLDER + "/node_modules/node/bin/node",
         os.path.join(hmstack.ROOT, "t", script)],
        input=json.dumps(doc), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, timeout=timeout,
        env=dict(os.environ, HM_NODE=FOLDER))
    assert r.returncode == 0, r.stderr[-3000:]
    return json.loads(r.stdout)
