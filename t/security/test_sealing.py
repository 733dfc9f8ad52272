"""
Sealing: 1,000 canary strings go in through every door of the API; then the
bytes of the whole state folder (data files, WAL, Redis, temp folders, logs)
are searched for them, plain and encoded.  And a ciphertext moved elsewhere
is refused.
"""

import base64
import json
import mmap
import os
import random
import re
import stat

import pytest

import hmhttp
from hmhttp import ok, problem
from hmstack import wait

HD = "/health-data"

# All canaries share a head of 15 letters, so one search finds them all.
HEAD = "zqx" + "".join(random.Random().choice("bcdfghjklmnpqrstvwxz")
                       for _ in range(12))


def needles():
    """HEAD as bytes, hex, base64 at each of the three alignments, UTF-16."""
    h = HEAD.encode()
    out = [h, h.upper(), h.hex().encode(), h.hex().upper().encode(),
           HEAD.encode("utf-16-le")]
    for shift in range(3):
        e = base64.b64encode(b"\0" * shift + h).decode()
        # Whole groups that hold nothing but HEAD's own bytes.
        start = 4 if shift else 0
        whole = e[start:(len(h) + shift) // 3 * 4]
        out.append(whole.encode())
        out.append(whole.replace("+", "-").replace("/", "_").encode())
    return sorted(set(out))


def search(folder):
    """Files below folder that hold a needle, and how many were read."""
    hits, files, size = [], 0, 0
    rx = re.compile(b"|".join(re.escape(n) for n in needles()))
    for top, dirs, names in os.walk(folder):
        for name in names:
            p = os.path.join(top, name)
            try:
                st = os.lstat(p)
                if not stat.S_ISREG(st.st_mode) or st.st_size == 0:
                    if HEAD in name:
                        hits.append(("name", p))
                    continue
                with open(p, "rb") as f, mmap.mmap(
                        f.fileno(), 0, access=mmap.ACCESS_READ) as m:
                    files += 1
                    size += len(m)
                    found = rx.search(m)
                    if found:
                        a = max(0, found.start() - 60)
                        hits.append((p, bytes(m[a:found.end() + 40])))
            except (OSError, ValueError):
                continue
    return hits, files, size


def only_addressed(path):
    """A mail in the outbox, which says nothing but to whom it goes."""
    if os.path.basename(os.path.dirname(path)) != "outbox":
        return False
    with open(path, "rb") as f:
        text = b"".join(line for line in f if not line.startswith(b"To: "))
    return HEAD.encode() not in text


def test_the_search_finds_what_is_there(tmp_path):
    """A searcher that finds nothing proves nothing."""
    h = HEAD.encode()
    for i, data in enumerate((
            h, h.hex().encode(), base64.b64encode(h + b"-1"),
            base64.b64encode(b"x" + h + b"-1"),
            base64.b64encode(b"xy" + h + b"-12"),
            base64.urlsafe_b64encode(b"xyz" + h))):
        d = tmp_path / str(i)
        d.mkdir()
        (d / "f").write_bytes(b"....." + data + b"....")
        assert search(str(d))[0], data


def test_1000_canaries(stack):
    n = 0

    def canary():
        nonlocal n
        n += 1
        return "%s%04d" % (HEAD, n)

    people = []
    for i in range(24):
        c = stack.new_user(full_name="Name " + canary())
        people.append(c)
        # A name in the address too: the email is sealed and blind-indexed.
        r = c.post("/auth/register", {
            "email": canary() + "@example.org", "password": canary() + "-pw",
            "full_name": canary(), "date_of_birth": "1980-01-01",
            "accept_terms": True, "fingerprint": False}, token=None)
        ok(r, 201)
    for i, c in enumerate(people):
        docs = []
        for k in range(10):
            docs.append({"data_type": "custom:" + canary(), "value": k,
                         "unit": "g", "notes": "n " + canary(),
                         "source_id": canary(),
                         "timestamp": "2026-01-01T%02d:00:00Z" % k})
        assert ok(c.post(HD + "/batch", docs[:4]))["created"] == 4
        r = c.post(HD + "/batch", body=b"".join(
            json.dumps(d).encode() + b"\n" for d in docs[4:8]),
            ctype="application/x-ndjson")
        assert r.status == 200
        one = docs[8]
        rec = ok(c.post(HD, one, headers={"Idempotency-Key": canary()}), 201)
        ok(c.patch(HD + "/" + rec["id"], {"notes": canary()}))
        rec = ok(c.post(HD, docs[9]), 201)
        # Doors that might log: a query, a refused body, a token.
        slug = one["data_type"]
        ok(c.get(HD + "?data_type=" + slug))
        c.get(HD + "?" + canary() + "=1")
        c.get(HD + "?cursor=" + canary())
        c.post(HD, body=b'{"data_type":"heart_rate","notes":"%s'
               % canary().encode())
        c.post(HD, {"data_type": "heart_rate", "value": canary(),
                    "source": canary(), canary(): 1})
        c.post(HD, body=canary().encode(), ctype="text/plain")
        c.post("/auth/login", {"email": canary() + "@example.org",
                               "password": canary(),
                               "fingerprint": False}, token=None)
        c.get("/auth/me", token=canary())
        ok(c.get("/analytics/trends?metric=" + slug))
        c.post(HD, {"data_type": "weight", "value": 80, "notes": "x" * 9990
                    + canary()})
        got = ok(c.get(HD + "?limit=200"))["items"]
        assert HEAD in json.dumps(got), "the API itself gives them back"
    assert n >= 1000, n
    ids = "','".join(c.id for c in people)
    wait(lambda: stack.one("select count(*) from jobs where state in"
                           " ('ready', 'running', 'retry') and user_id in"
                           " ('%s')" % ids) == "0", 60, 0.3, "the roll-ups")
    stack.psql("checkpoint")
    hits, files, size = search(stack.real)
    hits = [h for h in hits if not only_addressed(h[0])]
    print("searched %d files, %d MB" % (files, size >> 20))
    assert files > 500 and size > 30 << 20, (files, size)
    assert not hits, "%d files hold canaries; %s" % (
        len(hits), [(p, b[:200]) for p, b in hits[:5]])


# --- moved ciphertexts ---

@pytest.fixture(scope="module")
def two(stack):
    a, b = stack.new_user(), stack.new_user()
    a.one = ok(a.post(HD, {"data_type": "weight", "value": 81.25,
                           "notes": "ALPHANOTE", "source_id": "ALPHASRC",
                           "timestamp": "2026-01-01T00:00:00Z"}), 201)
    a.two = ok(a.post(HD, {"data_type": "weight", "value": 92.5,
                           "notes": "BETANOTE", "source_id": "BETASRC",
                           "timestamp": "2026-01-02T00:00:00Z"}), 201)
    b.one = ok(b.post(HD, {"data_type": "weight", "value": 73.75,
                           "notes": "GAMMANOTE", "source_id": "GAMMASRC",
                           "timestamp": "2026-01-01T00:00:00Z"}), 201)
    return a, b


SECRETS = (b"ALPHA", b"BETA", b"GAMMA", b"81.25", b"92.5", b"73.75")

MOVES = {
    "value to another row": "value = (select value from health_data where"
                            " id = '{two}')",
    "notes to another row": "notes = (select notes from health_data where"
                            " id = '{two}')",
    "notes of another person": "notes = (select notes from health_data"
                               " where id = '{foreign}')",
    "value of another person": "value = (select value from health_data"
                               " where id = '{foreign}'), dek_version ="
                               " (select dek_version from health_data"
                               " where id = '{foreign}')",
    "source_id into notes": "notes = source_id",
    "notes into value": "value = notes",
    "value into notes": "notes = value",
    "a bit turned": "value = set_byte(value, length(value) - 20,"
                    " get_byte(value, length(value) - 20) # 1)",
    "tag turned": "notes = set_byte(notes, length(notes) - 1,"
                  " get_byte(notes, length(notes) - 1) # 128)",
    "nonce turned": "value = set_byte(value, 6, get_byte(value, 6) # 1)",
    "cut": "value = substr(value, 1, length(value) - 1)",
    "cut to the head": "notes = substr(notes, 1, 5)",
    "empty": "value = ''",
    "longer": "notes = notes || '\\x00'",
    "format byte": "value = set_byte(value, 0, 2)",
    "key version in the envelope": "value = set_byte(value, 4,"
                                   " get_byte(value, 4) + 1)",
    "plain JSON": "value = convert_to('70', 'UTF8')",
}


@pytest.mark.alerts(r"open|seal|cipher|envelope|tag")
@pytest.mark.parametrize("name", sorted(MOVES))
def test_moved_ciphertext_is_refused(stack, two, name):
    a, b = two
    row = stack.one("select encode(value, 'hex') || ' ' ||"
                    " encode(notes, 'hex') || ' ' || dek_version from"
                    " health_data where id = '%s'" % a.one["id"])
    value, notes, dek = row.split()
    where = "where user_id = '%s' and id = '%s'" % (a.id, a.one["id"])
    stack.psql("update health_data set %s %s" % (
        MOVES[name].format(two=a.two["id"], foreign=b.one["id"]), where))
    try:
        p = HD + "/" + a.one["id"]
        for r in (a.get(p, check=False), a.get(HD, check=False),
                  a.get(HD + "?order=asc&limit=1", check=False),
                  a.patch(p, {"confidence": 0.5}, check=False)):
            problem(r, 500, "server.error")
            assert not [s for s in SECRETS if s in r.body], r
        r = a.head(p, check=False)
        assert r.status == 500, r
        # Other rows are still read.
        assert ok(a.get(HD + "/" + a.two["id"]))["notes"] == "BETANOTE"
    finally:
        stack.psql("update health_data set value = '\\x%s',"
                   " notes = '\\x%s', dek_version = %s %s"
                   % (value, notes, dek, where))
    assert ok(a.get(HD + "/" + a.one["id"])) == a.one


@pytest.mark.alerts(r"open|seal|cipher|envelope|tag")
def test_a_whole_row_given_to_another_person(stack, two):
    """Moved with its owner changed: the owner is in the AAD and the key."""
    a, b = two
    i = hmhttp.uuid7()
    cols = "dek_version, data_type, value, unit, original, timestamp, notes," \
        " source, source_id, confidence, custom, slug_index, created_at," \
        " updated_at, version"
    stack.psql("insert into health_data (id, user_id, dedup_key, %s) select"
               " '%s', '%s', sha256('moved'), %s from health_data"
               " where id = '%s'" % (cols, i, b.id, cols, a.one["id"]))
    try:
        for r in (b.get(HD + "/" + i, check=False),
                  b.get(HD, check=False)):
            problem(r, 500, "server.error")
            assert not [s for s in SECRETS if s in r.body], r
    finally:
        stack.psql("delete from health_data where id = '%s'" % i)


@pytest.mark.alerts(r"open|seal|cipher|envelope|tag")
def test_a_name_moved_between_people(stack):
    a = stack.new_user(full_name="DELTANAME One")
    b = stack.new_user(full_name="Plain Two")
    stack.psql("update users set full_name = (select full_name from users"
               " where id = '%s') where id = '%s'" % (a.id, b.id))
    r = b.get("/auth/me", check=False)
    problem(r, 500, "server.error")
    assert b"DELTANAME" not in r.body
    hmhttp.SEEN_500.clear()


def test_every_bytea_column_is_in_the_catalogue(stack):
    left = stack.rows(
        "select c.relname, a.attname from pg_attribute a"
        " join pg_class c on c.oid = a.attrelid"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'public' and c.relkind in ('r', 'p')"
        " and not c.relispartition and a.atttypid = 'bytea'::regtype"
        " and a.attnum > 0 and not exists (select 1 from sealed_columns s"
        " where s.table_name::text = c.relname::text"
        " and s.column_name::text = a.attname::text)")
    assert left == []


def test_equal_values_seal_to_different_bytes(stack, user):
    for i in range(5):
        user.record(data_type="weight", value=80, notes="same",
                    timestamp="2026-01-0%dT00:00:00Z" % (i + 1))
    assert stack.one("select count(distinct value), count(distinct notes)"
                     " from health_data where user_id = '%s'"
                     % user.id) == "5|5"


def test_lengths_are_padded(stack, user):
    """Plaintext is padded to 16: 1 and 12 letters seal to one length."""
    for i, t in enumerate(("a", "abcdefghijkl")):
        user.record(data_type="weight", value=80, notes=t,
                    timestamp="2026-01-0%dT00:00:00Z" % (i + 1))
    got = stack.rows("select distinct length(notes) as n from health_data"
                     " where user_id = '%s'" % user.id)
    assert got == [{"n": 33 + 16}], got


def test_a_foreign_uid_opens_no_socket(stack):
    """The Unix sockets of the stack are closed to another OS user."""
    import subprocess
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    host = stack.env["PGHOST"]
    socks = [os.path.join(d, n) for d in {host, os.path.dirname(host)}
             for d, _, names in os.walk(d) for n in names
             if stat.S_ISSOCK(os.lstat(os.path.join(d, n)).st_mode)]
    assert len(socks) >= 2, socks
    code = ("import socket,sys\nbad=0\n"
            "for p in sys.argv[1:]:\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    try:\n        s.connect(p); bad = 1\n"
            "    except OSError: pass\n"
            "sys.exit(bad)")
    r = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534",
                        "--clear-groups", "/usr/bin/python3", "-c", code]
                       + socks, cwd="/")
    assert r.returncode == 0, socks


def test_secrets_of_the_state_folder_are_private(stack):
    """Keys, passwords and data are closed to others."""
    bad = []
    for top, dirs, names in os.walk(stack.real):
        for n in names:
            p = os.path.join(top, n)
            m = os.lstat(p).st_mode
            if stat.S_ISREG(m) and m & 0o007 and re.search(
                    r"(^|/)(kek|jwt[^/]*|demo-password|redis-[^/]*|"
                    r".*key\.pem)$", p):
                # A closed folder above it is as good.
                d, closed = os.path.dirname(p), False
                while d.startswith(stack.real):
                    closed = closed or not os.stat(d).st_mode & 0o001
                    d = os.path.dirname(d)
                if not closed:
                    bad.append(p)
    assert not bad
