"""
Between people: many persons' requests on shared, pipelined connections, and
the second wall (row-level security) looked at as the module's own role.
"""

import json
import random
import socket
import threading

import pytest

from hmdata import series
from hmhttp import BASE, ok, parse_response
from hmstack import wait

HD = "/health-data"
PEOPLE = 20


@pytest.fixture(scope="module")
def crowd(stack):
    out = []
    for i in range(PEOPLE):
        c = stack.new_user()
        c.recs = [ok(c.post(HD, {"data_type": "weight", "value": 50 + i,
                                 "notes": "of %s #%d" % (c.id, k),
                                 "timestamp": "2026-01-0%dT00:00:00Z"
                                 % (k + 1)}), 201) for k in range(3)]
        out.append(c)
    return out


def ask(c, path):
    return ("GET %s%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer"
            " %s\r\n\r\n" % (BASE, path, c.token)).encode()


def judge(c, kind, rec, r, bad):
    if r.status != 200:
        if kind == "foreign" and r.status == 404:
            return
        bad.append((kind, repr(r)))
        return
    doc = json.loads(r.body)
    if kind == "one":
        good = doc == rec
    elif kind == "me":
        good = doc["id"] == c.id and doc["email"] == c.email
    elif kind == "foreign":
        good = False
    else:
        items = doc["items"]
        good = items and all(x["user_id"] == c.id and c.id in x["notes"]
                             for x in items)
    if not good:
        bad.append((kind, repr(r)))


def test_interleaved_people(stack, crowd):
    """
    Eight connections, sixteen requests in flight on each, each request
    another person's; no answer holds a byte of someone else.
    """
    bad, done = [], []

    def run(seed):
        rnd = random.Random(seed)
        s = socket.create_connection(("127.0.0.1", stack.http), timeout=30)
        rest, n = b"", 0
        for _ in range(25):
            plan = []
            for _ in range(16):
                c = rnd.choice(crowd)
                kind = rnd.choice(["one", "one", "list", "latest", "me",
                                   "foreign"])
                rec = rnd.choice(c.recs)
                if kind == "foreign":
                    o = rnd.choice([x for x in crowd if x is not c])
                    path = HD + "/" + rnd.choice(o.recs)["id"]
                else:
                    path = {"one": HD + "/" + rec["id"],
                            "list": HD + "?limit=3",
                            "latest": HD + "/latest",
                            "me": "/auth/me"}[kind]
                plan.append((c, kind, rec, path))
            s.sendall(b"".join(ask(c, p) for c, _, _, p in plan))
            for c, kind, rec, path in plan:
                while True:
                    try:
                        head, sep, tail = rest.partition(b"\r\n\r\n")
                        assert sep
                        r, left = parse_response(rest, "GET", path)
                        need = int(r.header("content-length")
                                   or len(r.body))
                        if len(r.body) < need:
                            raise AssertionError
                        break
                    except (AssertionError, ValueError):
                        part = s.recv(65536)
                        if not part:
                            bad.append(("closed", path))
                            return
                        rest += part
                rest = left
                judge(c, kind, rec, r, bad)
                n += 1
        s.close()
        done.append(n)

    ts = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert not bad, bad[:3]
    assert sum(done) == 8 * 25 * 16


def test_interleaved_writes_keep_their_owner(stack, crowd):
    got = []

    def run(c, n):
        for k in range(15):
            r = c.post(HD, {"data_type": "steps", "value": k,
                            "source_id": "w%d" % k, "notes": c.id})
            got.append((c, r))

    ts = [threading.Thread(target=run, args=(c, i))
          for i, c in enumerate(crowd)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    for c, r in got:
        assert r.status == 201, r
        assert r.json()["user_id"] == c.id and r.json()["notes"] == c.id
    n = stack.one("select count(*) from health_data where data_type ="
                  " 'steps' and user_id in ('%s')"
                  % "','".join(c.id for c in crowd))
    assert n == str(15 * PEOPLE)


# --- the second wall ---

def personal(stack):
    """Relations with a user_id column that hm_api may select."""
    return stack.psql(
        "select c.oid::regclass from pg_class c join pg_attribute a on"
        " a.attrelid = c.oid and a.attname = 'user_id' and a.attnum > 0"
        " join pg_namespace n on n.oid = c.relnamespace and n.nspname ="
        " 'public' where c.relkind in ('r', 'p') and"
        " has_table_privilege('hm_api', c.oid, 'select')").split()


def as_api(stack, actor, sql, actors=None):
    return stack.psql(
        "begin; set local role hm_api; select set_config('hm.actor', '%s',"
        " true) as x \\gset\n%s; rollback" % (actor, sql))


def test_every_personal_relation_forces_rls(stack):
    bad = stack.psql(
        "select c.oid::regclass from pg_class c join pg_attribute a on"
        " a.attrelid = c.oid and a.attname = 'user_id' and a.attnum > 0"
        " join pg_namespace n on n.oid = c.relnamespace and n.nspname ="
        " 'public' where c.relkind in ('r', 'p') and not"
        " (c.relrowsecurity and c.relforcerowsecurity)")
    assert bad == ""


def test_without_an_actor_nothing_is_seen(stack, crowd):
    rels = personal(stack)
    assert any(x.startswith("health_data_p") for x in rels)
    for rel in rels:
        n = as_api(stack, "", "select count(*) from %s where user_id <>"
                   " '00000000-0000-0000-0000-000000000000'" % rel)
        assert n == "0", (rel, n)


def test_an_actor_sees_only_himself(stack, crowd):
    me = crowd[0].id
    for rel in personal(stack):
        n = as_api(stack, me, "select count(*) from %s where user_id not in"
                   " ('%s', '00000000-0000-0000-0000-000000000000')"
                   % (rel, me))
        assert n == "0", (rel, n)
    assert int(as_api(stack, me, "select count(*) from health_data")) >= 3


def test_an_actor_writes_only_himself(stack, crowd):
    me, other = crowd[0].id, crowd[1].id
    leaf = stack.one("select tableoid::regclass from health_data where"
                     " user_id = '%s' limit 1" % other)
    for rel in ("health_data", leaf):
        assert as_api(stack, me, "with x as (update %s set confidence = 1"
                      " where user_id = '%s' returning 1) select count(*)"
                      " from x" % (rel, other)) == "0"
        assert as_api(stack, me, "with x as (delete from %s where user_id ="
                      " '%s' returning 1) select count(*) from x"
                      % (rel, other)) == "0"


def test_no_login_role_walks_past_the_wall(stack):
    assert stack.psql("select rolname from pg_roles where rolname in"
                      " ('hm_api', 'hm_worker', 'hm_cli') and"
                      " (rolsuper or rolbypassrls)") == ""
