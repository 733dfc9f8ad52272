"""
/openapi.json as a document: it holds against the route table in the source,
against itself, and against what the service really answers.  That the routes
a client needs are in it is judged in test_system.py.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest

from hmhttp import CODES, FAULTS, ok, problem

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
ROUTES_C = os.path.join(ROOT, "ngx_healthmate_module", "ngx_hm_routes.c")
VERBS = ("get", "put", "post", "patch", "delete")
HD = "/api/v1/health-data"


@pytest.fixture(scope="module")
def doc(stack):
    r = stack.client().root("GET", "/openapi.json")
    assert r.status == 200
    assert r.header("content-type").split(";")[0] == "application/json"

    def once(pairs):
        names = [k for k, _ in pairs]
        assert len(set(names)) == len(names), "a name twice: %s" % names
        return dict(pairs)

    return json.loads(r.body, object_pairs_hook=once)


def operations(doc):
    for path, item in doc["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield path, verb, item[verb]


def follow(doc, node):
    while "$ref" in node:
        assert node["$ref"].startswith("#/"), node
        at = doc
        for part in node["$ref"][2:].split("/"):
            at = at[part.replace("~1", "/").replace("~0", "~")]
        node = at
    return node


def params(doc, op):
    return {(p["in"], p["name"]): p for p in
            (follow(doc, x) for x in op.get("parameters", []))}


def visit(node, at=""):
    yield at, node
    if isinstance(node, dict):
        for k, v in node.items():
            yield from visit(v, at + "/" + k)
    elif isinstance(node, list):
        for i, v in enumerate(node):
            yield from visit(v, "%s/%d" % (at, i))


# --- the document in itself ---

def test_version_and_servers(doc):
    assert re.match(r"^3\.1\.\d+$", doc["openapi"])
    assert doc["servers"] == [{"url": "/"}]
    assert doc["info"]["title"] and doc["info"]["version"]


def test_every_route_of_the_table(doc):
    text = open(ROUTES_C, encoding="utf-8").read()
    table = {(p, m.lower()) for m, p in re.findall(
        r"\{\s*(GET|POST|PUT|PATCH|DELETE),\s*\"([^\"]+)\"", text)}
    assert len(table) > 10, "the table is not where it was"
    assert {(p, v) for p, v, _ in operations(doc)} == table


def test_references_resolve(doc):
    n = 0
    for at, node in visit(doc):
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            try:
                follow(doc, node)
            except KeyError:
                pytest.fail("%s: dangling %s" % (at, node["$ref"]))
            n += 1
    assert n > 50


def test_operation_ids(doc):
    ids = [op["operationId"] for _, _, op in operations(doc)]
    assert len(set(ids)) == len(ids), sorted(ids)
    assert all(re.match(r"^[a-z][A-Za-z0-9]*$", x) for x in ids), ids
    assert {"listHealthData", "createHealthData", "getHealthData",
            "replaceHealthData", "updateHealthData",
            "deleteHealthData"} <= set(ids)


def test_operations_are_told_about(doc):
    tags = {t["name"] for t in doc["tags"]}
    for path, verb, op in operations(doc):
        assert op["summary"], (path, verb)
        assert len(op["tags"]) == 1 and op["tags"][0] in tags, (path, verb)


def test_problems_everywhere(doc):
    for path, verb, op in operations(doc):
        answers = op["responses"]
        assert any(x[0] in "23" for x in answers), (path, verb)
        assert {"400", "default"} <= set(answers), (path, verb)
        for status, a in answers.items():
            a = follow(doc, a)
            assert a["description"], (path, verb, status)
            if status == "default" or (status >= "400"
                                       and path != "/ready"):
                assert list(a["content"]) == ["application/problem+json"], \
                    (path, verb, status)
        if path.startswith("/api/"):
            assert {"429", "503"} <= set(answers), (path, verb)
        if "requestBody" in op:
            assert {"413", "415", "422"} <= set(answers), (path, verb)


def test_shapes_are_known(doc):
    """A body or an answer without a named schema lacks a row of the table
    of shapes in ngx_hm_openapi.h."""
    for path, verb, op in operations(doc):
        bodies = [op["requestBody"]] if "requestBody" in op else []
        bodies += [follow(doc, a) for a in op["responses"].values()]
        for body in bodies:
            for kind, c in body.get("content", {}).items():
                s = c["schema"]
                assert "$ref" in s or "$ref" in s.get("items", {}), \
                    "no shape: %s %s %s" % (verb, path, kind)


def test_bearer(doc):
    s = doc["components"]["securitySchemes"]["bearer"]
    assert (s["type"], s["scheme"]) == ("http", "bearer")
    for path, verb, op in operations(doc):
        if op["security"]:
            assert op["security"] == [{"bearer": []}], (path, verb)
            assert "401" in op["responses"], (path, verb)
        else:
            assert not path.startswith(HD), (path, verb)


def test_path_parameters(doc):
    for path, verb, op in operations(doc):
        got = {n for where, n in params(doc, op) if where == "path"}
        assert got == set(re.findall(r"\{([^}]*)\}", path)), (path, verb)
        if got:
            assert "404" in op["responses"], (path, verb)


def test_query_parameters_have_a_meaning(doc):
    for path, verb, op in operations(doc):
        for (where, name), p in params(doc, op).items():
            assert p.get("description"), (path, verb, name)
            assert p["schema"], (path, verb, name)


def test_preconditions_and_replays(doc):
    item, many = doc["paths"][HD + "/{id}"], doc["paths"][HD]
    for verb in ("put", "patch", "delete"):
        assert ("header", "If-Match") in params(doc, item[verb])
        assert "412" in item[verb]["responses"]
    assert ("header", "If-None-Match") in params(doc, item["get"])
    assert "304" in item["get"]["responses"]
    assert ("header", "Idempotency-Key") in params(doc, many["post"])
    for status in ("200", "201"):
        h = many["post"]["responses"][status]["headers"]
        assert {"Location", "ETag", "Idempotent-Replayed"} <= set(h)
    assert "content" not in item["delete"]["responses"]["204"]
    assert "content" not in item["get"]["responses"]["304"]


def test_catalogues(doc):
    s = doc["components"]["schemas"]
    codes = set().union(*CODES.values())
    assert codes == set(s["ProblemCode"]["enum"])
    assert FAULTS == set(s["Fault"]["properties"]["code"]["enum"])


def test_record_views(doc):
    s = doc["components"]["schemas"]
    shown, write, patch = (s["HealthData" + x] for x in
                           ("", "Write", "Patch"))
    assert set(shown["required"]) == set(shown["properties"])
    assert set(write["required"]) == {"data_type", "value"}
    assert "required" not in patch
    assert set(write["properties"]) == set(patch["properties"]) == {
        "data_type", "value", "unit", "timestamp", "notes", "source",
        "source_id", "confidence"}
    assert write["additionalProperties"] is False
    assert write["properties"]["source_id"]["writeOnly"] is True
    assert "source_id" not in shown["properties"]
    for name in ("id", "user_id", "original", "created_at", "updated_at"):
        assert shown["properties"][name]["readOnly"] is True, name
    for inner in ("custom", "slug_index", "dedup_key"):
        assert inner not in shown["properties"]
        assert inner not in write["properties"]


# --- the document against the service ---

def check(doc, schema, value, at=""):
    """The part of JSON Schema the document uses."""
    schema = follow(doc, schema)
    if "anyOf" in schema:
        faults = []
        for one in schema["anyOf"]:
            try:
                check(doc, one, value, at)
                break
            except AssertionError as e:
                faults.append(str(e))
        else:
            raise AssertionError("%s: none of %s" % (at, faults))
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool,
             "null": type(None), "number": (int, float), "integer": int}
    if "type" in schema:
        types = schema["type"]
        types = [types] if isinstance(types, str) else types
        assert any(isinstance(value, kinds[t])
                   and (t == "boolean" or not isinstance(value, bool))
                   for t in types), "%s: %r is no %s" % (at, value, types)
    if "enum" in schema:
        assert value in schema["enum"], "%s: %r" % (at, value)
    if "const" in schema:
        assert value == schema["const"], "%s: %r" % (at, value)
    if isinstance(value, str):
        assert re.search(schema.get("pattern", ""), value), (at, value)
        assert schema.get("minLength", 0) <= len(value) \
            <= schema.get("maxLength", 1 << 30), (at, value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        assert schema.get("minimum", value) <= value \
            <= schema.get("maximum", value), (at, value)
    if isinstance(value, list):
        for i, v in enumerate(value):
            check(doc, schema.get("items", {}), v, "%s/%d" % (at, i))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", []):
            assert name in value, "%s/%s is missing" % (at, name)
        for name, v in value.items():
            # Answers are held strictly: what is shown is described.
            more = schema.get("additionalProperties")
            if name in known:
                check(doc, known[name], v, at + "/" + name)
            elif isinstance(more, dict):
                check(doc, more, v, at + "/" + name)
            else:
                assert not known, "%s/%s is not described" % (at, name)


def answer(doc, path, verb, r):
    got = doc["paths"][path][verb]["responses"]
    a = follow(doc, got[str(r.status)] if str(r.status) in got
               else got["default"])
    kind = r.header("content-type").split(";")[0]
    check(doc, a["content"][kind]["schema"], r.json(),
          "%s %s %d" % (verb, path, r.status))
    return r


def test_record_answers(doc, user):
    one = HD + "/{id}"
    r = answer(doc, HD, "post", user.post("/health-data", {
        "data_type": "blood_pressure",
        "value": {"systolic": 16, "diastolic": 10}, "unit": "kPa",
        "timestamp": "2026-01-05T10:00:00Z", "notes": "n"}))
    rec = ok(r, 201)
    path = "/health-data/" + rec["id"]
    assert rec["original"] is not None
    answer(doc, one, "get", user.get(path))
    answer(doc, one, "patch", user.patch(path, {"notes": None}))
    answer(doc, HD, "post", user.post("/health-data", {
        "data_type": "custom:steps_up", "value": 3, "unit": "{floors}"}))
    answer(doc, HD, "get", user.get("/health-data?limit=1"))
    answer(doc, HD + "/latest", "get", user.get("/health-data/latest"))
    answer(doc, HD + "/types", "get", user.get("/health-data/types"))
    answer(doc, HD + "/batch", "post", user.post("/health-data/batch", [
        {"data_type": "heart_rate", "value": 61}, {"data_type": "x"}]))
    answer(doc, "/api/v1/analytics/trends", "get", user.get(
        "/analytics/trends?metric=heart_rate&bucket=day&period=30d"))


def test_types_example_is_the_answer(doc, user):
    s = doc["components"]["schemas"]
    types = ok(user.get("/health-data/types"))
    assert s["MetricTypes"]["examples"] == [types]
    assert {t["data_type"] for t in types["items"]} == set(
        s["DataType"]["anyOf"][0]["enum"])


def test_other_answers(doc, user, anon):
    answer(doc, "/api/v1/auth/me", "get", user.get("/auth/me"))
    for p in ("/health", "/ready", "/version"):
        answer(doc, p, "get", anon.root("GET", p))


def test_problem_answers(doc, user, anon):
    one = HD + "/{id}"
    for path, verb, r in (
            (HD, "get", anon.get("/health-data")),
            (HD, "get", user.get("/health-data?limit=0&zz=1")),
            (HD, "post", user.post("/health-data", {"value": "x", "zz": 1})),
            (one, "get", user.get("/health-data/none"))):
        problem(r, r.status)
        assert str(r.status) in doc["paths"][path][verb]["responses"]
        answer(doc, path, verb, r)


@pytest.mark.parametrize("path", [
    "", "/latest", "/batch", "/types", "/{id}"])
def test_unknown_query_parameters_only(doc, user, path):
    """Each parameter that is described is known to the service."""
    item = doc["paths"][HD + path]
    for verb in VERBS:
        if verb not in item:
            continue
        for where, name in params(doc, item[verb]):
            if where != "query":
                continue
            r = user.raw(verb.upper(), (HD + path).replace(
                "{id}", user.id) + "?" + name + "=")
            if r.status == 400 and r.code == "request.invalid_parameter":
                assert all(e["code"] != "unknown" for e in
                           r.json().get("errors", [])), (verb, name, r)


# --- the page ---

def test_docs_page_runs_under_its_policy(anon):
    """Its script is allowed by the very policy it is sent with."""
    r = anon.root("GET", "/docs")
    policy = r.header("content-security-policy")
    scripts = re.findall(r"<script>(.*?)</script>", r.text, re.S)
    assert len(scripts) == 1 and r.text.count("<script") == 1
    want = "sha256-" + base64.b64encode(
        hashlib.sha256(scripts[0].encode()).digest()).decode()
    allowed = re.search(r"script-src ([^;]*)", policy).group(1).split()
    assert "'%s'" % want in allowed, \
        "docs-headers.conf needs script-src '%s'" % want
    assert "connect-src 'self'" in policy
    assert "'unsafe-inline'" in re.search(r"style-src ([^;]*)",
                                          policy).group(1)


def test_docs_page_is_plain(anon):
    text = anon.root("GET", "/docs").text
    assert "<html lang='en'>" in text and "<main" in text
    assert "<a href='/openapi.json'>" in text and "<noscript>" in text
    assert not re.search(r"https?://|innerHTML|onload=", text)


@pytest.mark.skipif(not shutil.which("node"), reason="no node")
def test_docs_script_parses(anon, tmp_path):
    text = anon.root("GET", "/docs").text
    f = tmp_path / "docs.js"
    f.write_text(re.search(r"<script>(.*?)</script>", text, re.S).group(1))
    p = subprocess.run(["node", "--check", str(f)], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert p.returncode == 0, p.stdout


# --- somebody else's opinion ---

@pytest.mark.skipif(os.environ.get("HEALTHMATE_TEST_NPM") != "1"
                    or not shutil.which("npm"),
                    reason="HEALTHMATE_TEST_NPM=1 installs the linter")
def test_redocly_lint(doc, tmp_path):
    (tmp_path / "openapi.json").write_text(json.dumps(doc, indent=1))
    env = dict(os.environ, REDOCLY_TELEMETRY="off",
               REDOCLY_SUPPRESS_UPDATE_NOTICE="true")
    for cmd in (["npm", "install", "--no-audit", "--no-fund", "--silent",
                 "--ignore-scripts", "@redocly/cli@2.77.0"],
                ["node_modules/.bin/redocly", "lint", "openapi.json"]):
        p = subprocess.run(cmd, cwd=tmp_path, env=env, text=True,
                           stdin=subprocess.DEVNULL, timeout=300,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert p.returncode == 0, p.stdout[-4000:]
