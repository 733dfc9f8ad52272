"""Root routes: /health, /ready, /metrics, /version, /openapi.json, /docs."""

import json
import re
import shutil
import subprocess

import pytest

from hmhttp import BASE, ok, raw_request, uuid7


def test_health(anon):
    r = anon.root("GET", "/health")
    doc = ok(r)
    assert isinstance(doc, dict) and doc
    assert r.header("content-type").startswith("application/json")


def test_ready(anon):
    r = anon.root("GET", "/ready")
    assert r.status == 200
    assert isinstance(r.json(), dict)


def test_version(anon):
    doc = ok(anon.root("GET", "/version"))
    assert isinstance(doc, dict) and doc.get("version"), doc


def test_over_tls_too(stack):
    c = stack.client(tls=True)
    for p in ("/health", "/ready", "/version", "/openapi.json", "/metrics",
              "/docs"):
        assert c.root("GET", p).status == 200, p


def test_docs(anon):
    r = anon.root("GET", "/docs")
    assert r.status == 200
    assert r.header("content-type").startswith("text/html")
    # Nothing is loaded from other hosts.
    assert not re.search(r'(src|href)="https?://(?!localhost)', r.text)
    assert "content-security-policy" in {k.lower() for k, _ in
                                         r.raw_headers}


def test_docs_holds_every_route(anon):
    doc = ok(anon.root("GET", "/openapi.json"))
    text = anon.root("GET", "/docs").text
    if "openapi.json" in text:
        return                                  # rendered in the browser
    for p in doc["paths"]:
        assert p in text or p.replace("{", "&#123;") in text, p


# --- metrics ---

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(r"^(%s)(?:\{(%s(?:,%s)*,?)?\})? (\S+)(?: (-?\d+))?$"
                    % (NAME, LABEL, LABEL))


def parse(text):
    """What promtool would say, as an assertion; returns the samples."""
    assert text.endswith("\n")
    types, helps, samples, order = {}, {}, {}, []
    for line in text.splitlines():
        if not line:
            continue
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helps, "two HELP of " + name
            assert name not in order, "HELP after samples of " + name
            helps[name] = line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, "two TYPE of " + name
            assert kind in ("counter", "gauge", "histogram", "summary",
                            "untyped"), line
            assert name not in order, "TYPE after samples of " + name
            types[name] = kind
        elif line.startswith("#"):
            continue
        else:
            m = SAMPLE.match(line)
            assert m, "no sample: %r" % line
            name, labels, value = m.group(1), m.group(2) or "", m.group(3)
            float(value.replace("+Inf", "inf"))
            base = name
            for suffix in ("_bucket", "_sum", "_count"):
                if name.endswith(suffix) and types.get(
                        name[:-len(suffix)]) in ("histogram", "summary"):
                    base = name[:-len(suffix)]
            if not order or order[-1] != base:
                assert base not in order, "samples of %s are split" % base
                order.append(base)
            assert (name, labels) not in samples, "twice: " + line
            samples[name, labels] = float(value.replace("+Inf", "inf"))
    for base in order:
        assert base in types, "no TYPE for " + base
        assert base in helps, "no HELP for " + base
        if types[base] == "counter":
            assert base.endswith("_total"), "counter without _total: " + base
        if types[base] == "histogram":
            check_histogram(base, samples)
    return samples, types


def check_histogram(base, samples):
    groups = {}
    for (name, labels), v in samples.items():
        if name == base + "_bucket":
            le = re.search(r'le="([^"]*)"', labels).group(1)
            rest = re.sub(r',?le="[^"]*",?', "", labels)
            groups.setdefault(rest, []).append(
                (float(le.replace("+Inf", "inf")), v))
    assert groups, base
    counts = {k[1].rstrip(","): v for k, v in samples.items()
              if k[0] == base + "_count"}
    for rest, b in groups.items():
        b.sort()
        assert b[-1][0] == float("inf"), base
        values = [v for _, v in b]
        assert values == sorted(values), "not cumulative: " + base
        assert counts[rest.rstrip(",")] == values[-1], base


def test_metrics_parse(anon):
    r = anon.root("GET", "/metrics")
    assert r.status == 200
    assert r.header("content-type").startswith("text/plain")
    samples, types = parse(r.text)
    assert "api_requests_total" in types
    assert "api_request_duration_seconds" in types
    if shutil.which("promtool"):
        p = subprocess.run(["promtool", "check", "metrics"], text=True,
                           input=r.text, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        assert p.returncode == 0, p.stdout


def total(samples, name):
    return sum(v for (n, _), v in samples.items() if n == name)


def test_metrics_count(anon, user):
    a, _ = parse(anon.root("GET", "/metrics").text)
    for _ in range(20):
        user.get("/health-data")
    user.get("/health-data/" + uuid7())
    b, _ = parse(anon.root("GET", "/metrics").text)
    assert total(b, "api_requests_total") \
        >= total(a, "api_requests_total") + 21


def test_metrics_tell_nothing_personal(anon, user):
    rec = user.record(notes="metricsecret").json()
    user.get("/health-data/" + rec["id"])
    user.get("/health-data?data_type=custom:metricsecret")
    user.get("/metricsecret")
    text = anon.root("GET", "/metrics").text
    for s in (rec["id"], user.id, user.email, "metricsecret"):
        assert s not in text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-7", text)
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert len(routes) < 200


def test_metrics_do_not_grow_with_paths(anon):
    def n():
        return len(anon.root("GET", "/metrics").text.splitlines())
    a = n()
    for i in range(30):
        anon.raw("GET", "/nothing/%d" % i)
        anon.raw("GET", BASE + "/health-data/" + uuid7())
    assert n() - a < 40


# --- openapi ---

ROUTES = {
    "/api/v1/auth/register": {"post"}, "/api/v1/auth/login": {"post"},
    "/api/v1/auth/me": {"get"},
    "/api/v1/health-data": {"get", "post"},
    "/api/v1/health-data/{id}": {"get", "put", "patch", "delete"},
    "/api/v1/health-data/batch": {"post"},
    "/api/v1/health-data/types": {"get"},
    "/api/v1/health-data/latest": {"get"},
    "/api/v1/analytics/trends": {"get"},
    "/health": {"get"}, "/ready": {"get"}, "/metrics": {"get"},
    "/version": {"get"}, "/openapi.json": {"get"}, "/docs": {"get"},
    "/.well-known/jwks.json": {"get"},
}


@pytest.fixture(scope="module")
def openapi(stack):
    r = stack.client().root("GET", "/openapi.json")
    assert r.status == 200
    return json.loads(r.body)


def paths(doc):
    base = (doc.get("servers") or [{"url": ""}])[0]["url"].rstrip("/")
    base = re.sub(r"^https?://[^/]+", "", base)
    out = {}
    for p, item in doc["paths"].items():
        full = p if p.startswith("/api/") or not base else base + p
        out[re.sub(r"\{[^}]*\}", "{id}", full)] = item
        out.setdefault(re.sub(r"\{[^}]*\}", "{id}", p), item)
    return out


def test_openapi_is_3_1(openapi):
    assert re.match(r"^3\.1\.\d+$", openapi["openapi"])
    assert openapi["info"]["title"] and openapi["info"]["version"]


def test_openapi_has_every_route(openapi):
    got = paths(openapi)
    for p, methods in ROUTES.items():
        assert p in got, p
        verbs = {m for m in got[p] if m in ("get", "put", "post", "patch",
                                            "delete")}
        assert methods == verbs, (p, verbs)


def test_openapi_routes_all_answer(openapi, user):
    """What it names is there: no path of it is an unknown route."""
    for p, item in openapi["paths"].items():
        full = [x for x in paths(openapi) if paths(openapi)[x] is item][0]
        r = user.raw("OPTIONS", full.replace("{id}", uuid7()))
        assert r.status == 204, (p, r)
        allow = {x.strip().lower() for x in r.header("allow").split(",")}
        verbs = {m for m in item if m in ("get", "put", "post", "patch",
                                          "delete")}
        assert verbs <= allow, (p, verbs, allow)


def test_openapi_references_resolve(openapi):
    def visit(node):
        if isinstance(node, dict):
            ref = node.get("$ref")
            if isinstance(ref, str):
                assert ref.startswith("#/"), ref
                at = openapi
                for part in ref[2:].split("/"):
                    part = part.replace("~1", "/").replace("~0", "~")
                    assert part in at, "dangling " + ref
                    at = at[part]
            for v in node.values():
                visit(v)
        elif isinstance(node, list):
            for v in node:
                visit(v)
    visit(openapi)


def test_openapi_operations_are_whole(openapi):
    seen = set()
    for p, item in openapi["paths"].items():
        for m in ("get", "put", "post", "patch", "delete"):
            op = item.get(m)
            if op is None:
                continue
            assert op.get("responses"), (p, m)
            oid = op.get("operationId")
            assert oid and oid not in seen, (p, m, oid)
            seen.add(oid)
            params = {x["name"]: x for x in item.get("parameters", [])
                      + op.get("parameters", []) if "name" in x}
            for name in re.findall(r"\{([^}]*)\}", p):
                assert name in params or any(
                    "$ref" in x for x in item.get("parameters", [])
                    + op.get("parameters", [])), (p, m, name)
    assert "bearer" in json.dumps(
        openapi["components"]["securitySchemes"]).lower()


def test_openapi_record_has_the_documents_members(openapi):
    text = json.dumps(openapi)
    for word in ("data_type", "systolic", "Idempotency-Key", "If-Match",
                 "application/merge-patch+json", "application/x-ndjson",
                 "application/problem+json", "confidence", "cursor"):
        assert word in text, word


def test_openapi_etag_and_cache(anon):
    r = anon.root("GET", "/openapi.json")
    if r.etag:
        assert anon.root("GET", "/openapi.json", headers=[
            ("If-None-Match", r.etag)]).status == 304


# --- readiness when a part is missing is judged in t/chaos ---

def test_root_routes_need_no_token_and_take_a_bad_one(stack):
    for p in ("/health", "/ready", "/version"):
        r = raw_request(stack, "GET", p, [("Authorization", "Bearer x")])
        assert r.status == 200, (p, r)
