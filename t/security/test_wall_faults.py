"""
The second wall with the first one down: a stack on module builds that have a
fault (tools/build-faulty) - statements that do not name the owner, on the
leaf and through the partitioned parent, a context that is never set, results
of a batch that change places.  Nothing of anybody else may leave, and what
comes back wrongly is a 500 that is counted.

The people and their records are made by the sound build; then the module is
exchanged below them.
"""

import filecmp
import json
import os
import random
import re
import subprocess
import tempfile
import threading

import pytest

import hmhttp
import hmstack
from hmhttp import BASE, ok
from hmstack import ROOT

HD = "/health-data"
PATIENTS = 10                   # two of them share one of eight leaves
EACH = 12


class Faulty(hmstack.Stack):
    def start(self):
        self.own = True
        self.top = tempfile.mkdtemp(prefix="hm-t-")
        os.chmod(self.top, 0o755)
        self.home = os.path.join(self.top, "run")
        self.http_ = hmhttp.free_port()
        self.https_ = hmhttp.free_port()
        self.up(self.settings_for(""))
        self.read_env()

    def settings_for(self, module):
        # One nginx worker: whatever is in flight shares its batches.
        return dict(HEALTHMATE_HTTP_PORT=str(self.http_),
                    HEALTHMATE_HTTPS_PORT=str(self.https_),
                    HEALTHMATE_LIMITS="off", HEALTHMATE_DEMO="off",
                    HEALTHMATE_NGINX="", HEALTHMATE_MODULE=module,
                    HEALTHMATE_NGINX_WORKERS="1", HEALTHMATE_WORKERS="1")

    def use(self, name, *flags):
        r = subprocess.run([ROOT + "/tools/build-faulty", name] + list(flags),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
        assert r.returncode == 0, r.stderr
        so = r.stdout.strip()
        self.up(self.settings_for(so))
        # deploy/up runs a copy of it
        runs = os.path.join(self.real, "nginx", os.path.basename(so))
        assert filecmp.cmp(so, runs, shallow=False), "another module runs"
        maps = "".join(open("/proc/%d/maps" % p).read()
                       for p in self.nginx_workers(old=False))
        assert runs in maps and runs + " (deleted)" not in maps

    def counter(self, name):
        r = self.client().root("GET", "/metrics", check=False)
        assert r.status == 200, r
        got = re.findall(r"(?m)^%s(?:\{[^}]*\})? (\d+)" % name, r.text)
        assert got, "no %s in /metrics" % name
        return sum(map(int, got))

    def foreign(self):
        return self.counter("healthmate_foreign_rows_total")


@pytest.fixture(scope="module")
def f():
    s = Faulty(limits="off")
    try:
        s.start()
        people(s)
        yield s
        bad = s.bad_lines({})
        assert not bad, "\n".join(bad[:20])
        assert not s.cores()
    finally:
        s.stop()


def fill(c, n):
    c.recs = [ok(c.post(HD, {"data_type": "weight", "value": 50 + k,
                             "notes": "canary of %s #%d" % (c.id, k),
                             "source_id": "same-%d" % k,
                             "timestamp": "2026-01-%02dT00:00:00Z"
                             % (k + 1)}), 201) for k in range(n)]


def people(s):
    s.crowd = [s.new_user() for _ in range(PATIENTS)]
    for c in s.crowd:
        fill(c, EACH)
        c.leaf = leaf(s, c)
    # alice and bob lie in one leaf; the doctor treats alice only
    s.alice, s.bob = next((a, b) for a in s.crowd for b in s.crowd
                          if a is not b and a.leaf == b.leaf)
    # a doctor whose own records lie beside alice's
    while True:
        s.doctor = s.new_user(role="doctor")
        fill(s.doctor, 2)
        if leaf(s, s.doctor) == s.alice.leaf:
            break
    s.assign(s.alice, s.doctor)
    s.everybody = s.crowd + [s.doctor]


def leaf(s, c):
    return s.one("select tableoid::regclass from health_data where user_id ="
                 " '%s' limit 1" % c.id)


def stored(s):
    """All rows, to see that nothing was changed."""
    return s.psql("select id, user_id, version, md5(value) from health_data"
                  " order by id")


def quiet(c, method, path, doc=None, **kw):
    return c.call(method, path, doc, check=False, **kw)


def tries(c, path, etag='"x"'):
    """Every way to reach the one record at this path."""
    doc = {"data_type": "weight", "value": 77,
           "timestamp": "2026-01-01T00:00:00Z"}
    yield quiet(c, "GET", path)
    yield quiet(c, "GET", path, headers={"If-None-Match": etag})
    yield quiet(c, "PUT", path, doc)
    yield quiet(c, "PATCH", path, {"notes": "mine now"},
                ctype="application/merge-patch+json")
    yield quiet(c, "DELETE", path, headers={"If-Match": etag})


def lists(c, who=""):
    for query in ("limit=200", "limit=3", "order=asc", "data_type=weight",
                  "from=2026-01-02T00:00:00Z", "source=manual"):
        yield quiet(c, "GET", "%s?%s%s" % (HD, query, who))
    yield quiet(c, "GET", "%s/latest%s" % (HD, who.replace("&", "?")))


def own_only(r, c, n=None):
    assert r.status == 200, r
    items = r.json()["items"]
    assert items, r
    for x in items:
        assert x["user_id"] == c.id, r
        assert c.id in (x["notes"] or c.id), r
    if n is not None:
        assert len(items) == n, r


def no_foreign_bytes(s, r, *mine):
    """Nobody's id or note but the asker's is in the answer."""
    for c in s.everybody:
        if c not in mine:
            assert "canary of " + c.id not in r.text, r
            assert '"user_id":"%s"' % c.id not in r.text, r
            for rec in c.recs:
                assert '"id":"%s"' % rec["id"] not in r.text, r


OWNERLESS = [("no-owner", "HM_FAULT_NO_OWNER"),
             ("parent", "HM_FAULT_NO_OWNER", "HM_FAULT_PARENT")]


@pytest.fixture(scope="module", params=OWNERLESS, ids=lambda p: p[0])
def ownerless(f, request):
    f.use(*request.param)
    f.parent = request.param[0] == "parent"
    return f


def test_foreign_ids_without_the_predicate(ownerless):
    s = ownerless
    before, count = stored(s), s.foreign()
    for c in s.crowd:
        for o in s.crowd:
            if o is c:
                continue
            rec = o.recs[0]
            ways = tries(c, "%s/%s" % (HD, rec["id"])) \
                if (c, o) in ((s.alice, s.bob), (s.bob, s.alice)) \
                else [quiet(c, "GET", "%s/%s" % (HD, rec["id"]))]
            for r in ways:
                assert r.status == 404, r
                no_foreign_bytes(s, r, c)
    r = quiet(s.alice, "DELETE", "%s/%s" % (HD, s.bob.recs[1]["id"]))
    assert r.status == 404, r
    assert stored(s) == before
    assert s.foreign() == count


def test_lists_without_the_predicate(ownerless):
    s = ownerless
    count = s.foreign()
    for c in s.crowd:
        for r in lists(c):
            own_only(r, c)
            no_foreign_bytes(s, r, c)
        own_only(quiet(c, "GET", HD + "?limit=200"), c, EACH)
    assert s.foreign() == count


def test_writes_without_the_predicate(ownerless):
    """An equal record of somebody else is not mine, nor in my way."""
    s = ownerless
    doc = {"data_type": "steps", "value": 7, "source_id": "equal",
           "timestamp": "2026-02-01T00:00:00Z"}
    for c in (s.alice, s.bob):
        r = quiet(c, "POST", HD, doc)
        assert r.status == 201 and r.json()["user_id"] == c.id, r
        i = r.json()["id"]
        r = quiet(c, "POST", HD, doc)
        assert r.status == 200 and r.json()["id"] == i, r
        r = quiet(c, "POST", HD + "/batch", [doc])
        assert r.status in (200, 201, 207), r
        no_foreign_bytes(s, r, c)
        r = quiet(c, "DELETE", "%s/%s" % (HD, i))
        assert r.status == 204, r


def test_unassigned_doctor_without_the_predicate(ownerless):
    s = ownerless
    before = stored(s)
    who = "user_id=" + s.bob.id
    for r in list(tries(s.doctor, "%s/%s?%s" % (HD, s.bob.recs[0]["id"],
                                                who))) \
            + list(lists(s.doctor, "&" + who)) \
            + [quiet(s.doctor, "GET", "%s/%s" % (HD, s.bob.recs[0]["id"]))]:
        assert r.status == 404, r
        no_foreign_bytes(s, r, s.doctor)
    assert stored(s) == before


def test_joined_on_the_id_alone(ownerless):
    """
    The doctor may see alice's rows, so they come back when it was his own
    that were asked for: refused, and counted one by one.
    """
    s = ownerless
    before, count = stored(s), s.foreign()
    bad = 0
    for r in list(tries(s.doctor, "%s/%s" % (HD, s.alice.recs[0]["id"]))) \
            + list(lists(s.doctor)):
        no_foreign_bytes(s, r, s.doctor)
        assert r.status == 500 or r.status == 200, r
        if r.status == 200:
            own_only(r, s.doctor)
        else:
            assert r.code == "server.error", r
            bad += 1
    assert bad >= 8
    for r in lists(s.doctor, "&user_id=" + s.alice.id):
        no_foreign_bytes(s, r, s.alice)
        assert r.status in (200, 500), r
        bad += r.status == 500
    assert s.foreign() - count == bad
    assert stored(s) == before
    # what was asked rightly is answered
    r = quiet(s.doctor, "GET", "%s/%s?user_id=%s"
              % (HD, s.alice.recs[0]["id"], s.alice.id))
    assert r.status == 200 and r.json() == s.alice.recs[0], r


def test_no_context(f):
    """The database is never told who asks: it shows and takes nothing."""
    f.use("no-context", "HM_FAULT_NO_CONTEXT")
    before = stored(f)
    users = f.one("select count(*) from users")
    for c in (f.alice, f.bob, f.doctor):
        path = "%s/%s" % (HD, c.recs[0]["id"])
        answers = list(tries(c, path)) + list(lists(c)) + [
            quiet(c, "DELETE", path),
            quiet(c, "POST", HD, {"data_type": "weight", "value": 70}),
            quiet(c, "POST", HD + "/batch", [
                {"data_type": "weight", "value": 70}]),
            quiet(c, "GET", "/auth/me"),
            quiet(c, "GET", "/analytics/trends?metric=weight"),
            quiet(f.doctor, "GET", path + "?user_id=" + c.id)]
        for r in answers:
            assert r.status == 404 or r.status >= 500 \
                or (r.status, r.code) == (400, "request.invalid_parameter"), r
            no_foreign_bytes(f, r)
            assert c.email not in r.text, r
    r = quiet(f.client(), "POST", "/auth/login", {
        "email": f.alice.email, "password": f.alice.password}, token=None)
    assert r.status >= 400 and f.alice.id not in r.text, r
    r = quiet(f.client(), "POST", "/auth/register", {
        "email": "nobody@example.org", "password": "correct horse battery",
        "full_name": "Nobody", "accept_terms": True, "fingerprint": False},
        token=None)
    assert r.status >= 500, r
    assert stored(f) == before
    assert f.one("select count(*) from users") == users


# --- results that change places ---

@pytest.fixture(scope="module")
def swapped(f):
    f.use("swap", "HM_FAULT_SWAP")
    for c in f.everybody:       # keys into the cache, one by one
        ok(quiet(c, "GET", HD + "?limit=1"), 200)
    return f


def together(n, run):
    """n threads that begin at once; what they raise is raised here."""
    gate, raised = threading.Barrier(n), []

    def body(i):
        try:
            gate.wait(30)
            run(i)
        except BaseException as e:
            raised.append(e)

    ts = [threading.Thread(target=body, args=(i,)) for i in range(n)]
    [t.start() for t in ts]
    [t.join(120) for t in ts]
    if raised:
        raise raised[0]


def test_swapped_reads(swapped):
    """Two people, 24 connections: a result of somebody else's is a 500."""
    s = swapped
    count, got = s.foreign(), []

    def run(n):
        c = (s.alice, s.bob)[n % 2]
        rnd = random.Random(n)
        conn = hmhttp.Conn(s.http)
        head = [("Authorization", "Bearer " + c.token)]
        for _ in range(60):
            kind = rnd.choice(["one", "one", "one", "list", "latest", "me"])
            rec = rnd.choice(c.recs)
            path = {"one": HD + "/" + rec["id"], "list": HD + "?limit=3",
                    "latest": HD + "/latest", "me": "/auth/me"}[kind]
            got.append((c, kind, rec,
                        conn.request("GET", BASE + path, None, head)))
        conn.close()

    together(24, run)
    assert len(got) == 24 * 60
    bad = 0
    for c, kind, rec, r in got:
        no_foreign_bytes(s, r, c)
        for o in s.everybody:
            assert o is c or o.id not in r.text and o.email not in r.text, r
        if r.status == 500:
            assert r.code == "server.error", r
            bad += 1
            continue
        assert r.status == 200, r
        doc = r.json()
        if kind == "one":
            assert doc == rec, (rec, r)
        elif kind == "me":
            assert doc["id"] == c.id and doc["email"] == c.email, r
        else:
            own_only(r, c)
    assert bad >= 20, "hardly anything was swapped: %d" % bad
    assert bad < len(got)
    assert s.foreign() - count == bad


def test_swapped_writes(swapped):
    s = swapped
    count, got = s.foreign(), []

    def run(n):
        c = (s.alice, s.bob)[n % 2]
        conn = hmhttp.Conn(s.http)
        head = [("Authorization", "Bearer " + c.token),
                ("Content-Type", "application/json")]
        for k in range(15):
            doc = {"data_type": "steps", "value": k, "notes": c.id,
                   "source": "swap", "source_id": "%d-%d" % (n, k)}
            got.append((c, k, conn.request("POST", BASE + HD,
                                           json.dumps(doc).encode(), head)))
        conn.close()

    together(16, run)
    bad = 0
    for c, k, r in got:
        no_foreign_bytes(s, r, c)
        if r.status == 500:
            bad += 1
            continue
        assert r.status == 201, r
        doc = r.json()
        assert doc["user_id"] == c.id and doc["notes"] == c.id \
            and doc["value"] == k, r
    assert bad >= 4
    assert s.foreign() - count == bad
    # nothing was stored for anybody but the one who sent it
    n = s.one("select count(*) from health_data where source = 'swap'"
              " and user_id in ('%s', '%s')" % (s.alice.id, s.bob.id))
    assert n == str(len(got))


def test_swapped_before_the_row(swapped):
    """
    Answers that go before the row change places too: may this doctor, whose
    keys, which time zone, what was answered to this Idempotency-Key.
    """
    s, got = swapped, []
    doc = {"data_type": "water_intake", "value": 250}
    for c in (s.alice, s.bob):
        c.kept = ok(c.post(HD, dict(doc, notes="canary of " + c.id),
                           headers={"Idempotency-Key": "the-same"}), 201)

    def run(n):
        rnd = random.Random(n)
        conn = hmhttp.Conn(s.http)
        for k in range(40):
            c = (s.alice, s.bob)[n % 2]
            kind = rnd.choice(["trends", "may", "key", "foreign"])
            method, body, asker = "GET", None, c
            head = []
            if kind == "trends":
                path = "/analytics/trends?metric=weight"
            elif kind == "may":
                asker = s.doctor
                path = HD + "?limit=2&user_id=" + c.id
            elif kind == "key":
                method, path = "POST", HD
                body = json.dumps(dict(doc, notes="canary of " + c.id))
                head = [("Content-Type", "application/json"),
                        ("Idempotency-Key", "the-same")]
            else:
                path = "%s/%s" % (HD, (s.bob if c is s.alice
                                       else s.alice).recs[k % EACH]["id"])
            head.append(("Authorization", "Bearer " + asker.token))
            got.append((c, kind, conn.request(
                method, BASE + path, body and body.encode(), head)))
        conn.close()

    together(16, run)
    for c, kind, r in got:
        if kind == "may":
            # alice's to the doctor; of bob's there is nothing to see, even
            # when the answer "he may" was alice's
            no_foreign_bytes(s, r, s.alice)
            if r.status == 200 and c is s.bob:
                assert r.json()["items"] == [], r
        else:
            no_foreign_bytes(s, r, c)
        if kind == "key" and r.status in (200, 201):
            assert r.json() == c.kept, r
        if kind == "foreign":
            assert r.status in (404, 500), r
        # 401: the answer "is this session good" was another's
        assert r.status in (200, 201, 401, 404, 409, 422, 500, 503), r
    assert any(r.status in (200, 201) for _, _, r in got)


def test_swapped_logins(swapped):
    """People with the same password are still not each other."""
    s = swapped
    got = []

    def run(n):
        c = s.crowd[n % len(s.crowd)]
        conn = hmhttp.Conn(s.http)
        body = json.dumps({"email": c.email, "password": c.password,
                           "fingerprint": False}).encode()
        for _ in range(4):
            got.append((c, conn.request("POST", BASE + "/auth/login", body,
                                        [("Content-Type",
                                          "application/json")])))
        conn.close()

    together(24, run)
    for c, r in got:
        if r.status == 200:
            assert r.json()["user"]["id"] == c.id, (c.id, r)
        else:
            assert r.status in (401, 500, 503, 504), r
