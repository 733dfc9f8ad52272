"""
Certificates from a real ACME authority (pebble) by a real client (certbot)
through the listener of production.conf.example, and what happens when a new
one is no good.  Everything on loopback; pebble asks a name server of its own
(pebble-challtestsrv), for which every name is this machine.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

import hmhttp
from hmedge import CA, NAME, Edge, run
from hmhttp import parse_response
from hmstack import wait

pytestmark = pytest.mark.skipif(
    not (shutil.which("pebble") and shutil.which("certbot")),
    reason="no pebble or certbot")


@pytest.fixture(scope="module")
def edge(stack):
    with Edge(stack, production=True) as e:
        yield e


@pytest.fixture(scope="module")
def pebble(edge, tmp_path_factory):
    d = str(tmp_path_factory.mktemp("pebble"))
    ca = CA(d + "/ca")
    ca.server(d, "localhost")
    port, admin, dns = (hmhttp.free_port() for _ in range(3))
    control = hmhttp.free_port()
    json.dump({"pebble": {
        "listenAddress": "127.0.0.1:%d" % port,
        "managementListenAddress": "127.0.0.1:%d" % admin,
        "certificate": d + "/cert.pem", "privateKey": d + "/key.pem",
        "httpPort": edge.acme, "tlsPort": edge.https,
        "ocspResponderURL": "", "externalAccountBindingRequired": False}},
        open(d + "/config.json", "w"))
    env = dict(os.environ, PEBBLE_VA_NOSLEEP="1",
               PEBBLE_WFE_NONCEREJECT="0")
    log = open(d + "/log", "wb")
    ps = [subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL,
                           stdout=log, stderr=log) for argv in (
        ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6",
         "", "-dns01", "127.0.0.1:%d" % dns, "-http01", "", "-https01", "",
         "-tlsalpn01", "", "-management", "127.0.0.1:%d" % control],
        ["pebble", "-config", d + "/config.json", "-strict", "-dnsserver",
         "127.0.0.1:%d" % dns])]

    def up():
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    try:
        wait(up, 15, what="pebble: " + d + "/log")
        yield {"url": "https://localhost:%d/dir" % port, "ca": ca.cert,
               "folder": d}
    finally:
        for p in ps:
            p.terminate()
        for p in ps:
            p.wait()


def settings(edge, pebble, **more):
    d = pebble["folder"]
    conf = "%s/nginx.conf" % edge.conf
    return dict(
        os.environ, REQUESTS_CA_BUNDLE=pebble["ca"],
        HEALTHMATE_ETC=edge.etc, HEALTHMATE_ACME_SERVER=pebble["url"],
        HEALTHMATE_ACME=edge.top + "/var/lib/healthmate/acme",
        HEALTHMATE_CERTBOT_OPTIONS="--config-dir %s/le --work-dir %s/work "
        "--logs-dir %s/logs" % (d, d, d),
        HEALTHMATE_NGINX_TEST="/usr/sbin/nginx -t -q -p %s/ -c %s -e "
        "%s/error.log" % (edge.top, conf, edge.logs),
        HEALTHMATE_NGINX_RELOAD="kill -HUP %d" % edge.pid(), **more)


def certificate(edge):
    """(issuer, serial) that a client is given."""
    s = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    s.check_hostname, s.verify_mode = False, ssl.CERT_NONE
    c = s.wrap_socket(socket.create_connection(("127.0.0.1", edge.https)),
                      server_hostname=NAME)
    pem = ssl.DER_cert_to_PEM_cert(c.getpeercert(True))
    c.sendall(("GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
               "\r\n" % NAME).encode())
    out = b""
    while True:
        part = c.recv(65536)
        if not part:
            break
        out += part
    c.close()
    assert parse_response(out)[0].status == 200
    r = subprocess.run(["openssl", "x509", "-noout", "-issuer", "-serial",
                        "-text"], input=pem, text=True, check=True,
                       stdout=subprocess.PIPE)
    assert "prime256v1" in r.stdout and "DNS:" + NAME in r.stdout
    lines = r.stdout.splitlines()
    return lines[0], lines[1]


def script(edge):
    return edge.top + "/usr/local/lib/healthmate/certificate"


def test_from_nothing_to_a_renewed_certificate(edge, pebble):
    env = settings(edge, pebble)
    # A machine that has none yet: self-signed, so that nginx can start.
    first = run("sh", "-c", "rm -rf \"$1\"/tls/2* \"$1\"/tls/current",
                "sh", edge.etc)
    assert first.returncode == 0
    run(script(edge), "first", NAME, env=env)
    edge.hup()
    issuer, s0 = certificate(edge)
    assert NAME in issuer

    failed, stop = [], []

    def client():
        while not stop:
            try:
                certificate(edge)
            except Exception as e:              # noqa: BLE001
                failed.append(repr(e))
            time.sleep(0.05)

    t = threading.Thread(target=client)
    t.start()
    try:
        r = run(script(edge), "issue", NAME, "ops@example.org", env=env,
                check=False, timeout=120)
        assert r.returncode == 0, r.stdout[-3000:]
        issuer, s1 = wait(lambda: (lambda x: x if "Pebble" in x[0] else None)(
            certificate(edge)), 10, what="pebble's certificate")
        assert s1 != s0
        # What certbot's timer does, with the hook it remembers.
        r = run("certbot", "renew", "--force-renewal", "--non-interactive",
                "--no-random-sleep-on-renew",
                *env["HEALTHMATE_CERTBOT_OPTIONS"].split(), env=env,
                check=False, timeout=120)
        assert r.returncode == 0, r.stdout[-3000:]
        wait(lambda: certificate(edge)[1] not in (s0, s1), 10,
             what="the renewed certificate")
    finally:
        stop.append(1)
        t.join()
    assert not failed, failed[:3]
    d = edge.etc + "/tls/current/"
    assert os.stat(d + "key.pem").st_mode & 0o077 == 0
    assert len([x for x in os.listdir(edge.etc + "/tls")
                if x.startswith("2")]) <= 3


def test_a_bad_pair_is_not_installed(edge, pebble, tmp_path):
    before = os.readlink(edge.etc + "/tls/current"), certificate(edge)
    a, b = CA(str(tmp_path / "a")), CA(str(tmp_path / "b"))
    for ca, d in ((a, "one"), (b, "two")):
        os.mkdir(tmp_path / d)
        ca.server(str(tmp_path / d), NAME)
    line = tmp_path / "lineage"
    os.mkdir(line)
    shutil.copy(tmp_path / "one/cert.pem", line / "fullchain.pem")
    shutil.copy(tmp_path / "one/chain.pem", line / "chain.pem")
    shutil.copy(tmp_path / "two/key.pem", line / "privkey.pem")
    r = run(script(edge), check=False,
            env=settings(edge, pebble, RENEWED_LINEAGE=str(line)))
    assert r.returncode != 0 and "no good pair" in r.stdout
    # A good pair that nginx does not take: the link goes back.
    shutil.copy(tmp_path / "one/key.pem", line / "privkey.pem")
    r = run(script(edge), check=False,
            env=dict(settings(edge, pebble, RENEWED_LINEAGE=str(line)),
                     HEALTHMATE_NGINX_TEST="false"))
    assert r.returncode != 0 and "the old one stays" in r.stdout
    edge.hup()
    assert (os.readlink(edge.etc + "/tls/current"),
            certificate(edge)) == before
