"""
A load with a ledger.

Threads write and read through the public door while something is done to the
stack; the ledger keeps what was answered.  Afterwards judge() holds it
against the database: every 2xx write is there exactly once with its audit
row, every answered read has its audit row, nothing is there without one.
"""

import collections
import json
import random
import socket
import threading
import time

import hmhttp
from hmdata import ago, iso


class Load:
    def __init__(self, stack, threads=6, users=3, pause=0.0, seed=1):
        self.stack = stack
        self.people = [stack.new_user() for _ in range(users)]
        self.pause = pause
        self.seed = seed
        self.stop_ = threading.Event()
        self.lock = threading.Lock()
        self.created = {}               # id -> user id, answered 201/200
        self.sent = collections.Counter()
        self.reads = collections.Counter()   # record id -> answered GETs
        self.lists = collections.Counter()   # user id -> answered lists
        self.lost, self.statuses = [], collections.Counter()
        self.times = []                 # (end, status) of each answer
        self.bad = []
        self.retries = 0
        self.threads = [threading.Thread(target=self._run, args=(i,),
                                         daemon=True)
                        for i in range(threads)]

    def start(self):
        self.began = time.monotonic()
        [t.start() for t in self.threads]
        return self

    def stop(self):
        self.stop_.set()
        [t.join(60) for t in self.threads]
        assert not any(t.is_alive() for t in self.threads), "load hangs"
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *a):
        self.stop_.set()
        [t.join(60) for t in self.threads]

    def answered(self):
        return sum(self.statuses.values())

    def _run(self, n):
        rnd = random.Random(self.seed * 1000 + n)
        me = self.people[n % len(self.people)]
        conn = hmhttp.Conn(self.stack.http, timeout=20)
        mine, k = [], 0
        auth = [("Authorization", "Bearer " + me.token)]
        js = auth + [("Content-Type", "application/json")]
        base = hmhttp.BASE + "/health-data"
        while not self.stop_.is_set():
            k += 1
            what = rnd.random()
            try:
                if what < 0.45 or not mine:
                    doc = {"data_type": "steps", "value": k % 1000,
                           "source": "load", "source_id": "%d-%d" % (n, k),
                           "timestamp": iso(ago(hours=rnd.randrange(60)))}
                    with self.lock:
                        self.sent[me.id] += 1
                    r = conn.request("POST", base, json.dumps(doc).encode(),
                                     js)
                    if r.status in (200, 201):
                        i = json.loads(r.body)["id"]
                        mine.append(i)
                        with self.lock:
                            self.created[i] = me.id
                elif what < 0.85:
                    i = rnd.choice(mine)
                    r = conn.request("GET", base + "/" + i, None, auth)
                    if r.status == 200:
                        if json.loads(r.body)["id"] != i:
                            self.bad.append("foreign body: %r" % r)
                        with self.lock:
                            self.reads[i] += 1
                    elif r.status == 404:
                        self.bad.append("a stored record is gone: %r" % r)
                else:
                    r = conn.request("GET", base + "?limit=5", None, auth)
                    if r.status == 200:
                        for x in json.loads(r.body)["items"]:
                            if x["user_id"] != me.id:
                                self.bad.append("foreign row: %r" % r)
                        with self.lock:
                            self.lists[me.id] += 1
                with self.lock:
                    self.statuses[r.status] += 1
                    self.times.append((time.monotonic(), r.status))
                if r.status >= 500:
                    time.sleep(0.02)
            except hmhttp.Lost as e:
                with self.lock:
                    self.lost.append((time.monotonic(), str(e)))
                time.sleep(0.02)
            except (ConnectionError, socket.timeout, OSError) as e:
                with self.lock:
                    self.lost.append((time.monotonic(), repr(e)))
                time.sleep(0.02)
            if self.pause:
                time.sleep(self.pause)
        with self.lock:
            self.retries += conn.retries
        conn.close()

    def judge(self):
        assert not self.bad, self.bad[:5]
        ids = "','".join(u.id for u in self.people)
        db = self.stack
        rows = db.rows("select id, user_id from health_data"
                       " where user_id in ('%s')" % ids)
        stored = collections.Counter(r["id"] for r in rows)
        owner = {r["id"]: r["user_id"] for r in rows}
        missing = [i for i in self.created if stored[i] != 1]
        assert not missing, "answered, not stored once: %d of %d %s" % (
            len(missing), len(self.created), missing[:3])
        assert all(owner[i] == u for i, u in self.created.items())

        audit = db.rows(
            "select action, outcome, first_id, user_id, count(*) as n,"
            " sum(items) as items from audit_logs where actor in ('%s')"
            " and resource = 1 group by 1, 2, 3, 4" % ids)
        made = collections.Counter()
        read = collections.Counter()
        lists = collections.Counter()
        for a in audit:
            if a["action"] == 3 and a["outcome"] == 201:
                made[a["first_id"]] += a["n"]
            if a["action"] == 1 and a["outcome"] == 200:
                read[a["first_id"]] += a["n"]
            if a["action"] == 2 and a["outcome"] == 200:
                lists[a["user_id"]] += a["n"]
        bad = [i for i in stored if made[i] != 1]
        assert not bad, "rows without exactly one create row in the audit:" \
            " %d of %d %s" % (len(bad), len(stored),
                              [(i, made[i]) for i in bad[:3]])
        bad = [i for i in made if not stored[i]]
        assert not bad, "audited as created, not stored: %s" % bad[:3]
        bad = [i for i, n in self.reads.items() if read[i] < n]
        assert not bad, "answered reads without audit: %s" % [
            (i, self.reads[i], read[i]) for i in bad[:3]]
        bad = [u for u, n in self.lists.items() if lists[u] < n]
        assert not bad, "answered lists without audit: %s" % [
            (u, self.lists[u], lists[u]) for u in bad[:3]]

        holes = db.rows(
            "select shard, min(seq) as low, max(seq) as high, count(*) as n,"
            " count(distinct seq) as d from audit_logs group by shard"
            " having count(*) <> count(distinct seq)"
            " or count(*) <> max(seq) - min(seq) + 1")
        assert not holes, "gaps in audit shards: %s" % holes[:5]
        return len(stored)

    def longest_gap(self, since=None):
        """The longest time without an answered 2xx."""
        good = [t for t, s in self.times if s < 400
                and (since is None or t >= since)]
        return max((b - a for a, b in zip(good, good[1:])), default=0.0)
