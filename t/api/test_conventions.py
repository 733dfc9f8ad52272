"""api.md, "Conventions": what every route does alike."""

import json
import re

import pytest

from hmhttp import BASE, exchange, ok, parse_response, problem, raw_request, \
    uuid7

HD = "/health-data"


# --- unknown paths and methods ---

@pytest.mark.parametrize("path", [
    "/api/v1/nothing", "/api/v1", "/api/v1/", "/api/v2/health-data",
    "/api/v1/health-data/", "/api/v1/auth/me/", "/api/v1/auth/login/",
    "/api/v1/health-data/types/", "/api/v1/health-datax",
    "/api/v1/Health-Data", "/health/",
    "/no/such/file.html", "/api/v1/health-data/types/x",
    "/api/v1/auth", "/.git/config", "/_healthmate/problem",
])
def test_unknown_path_is_404(user, path):
    problem(user.raw("GET", path), 404, "resource.not_found")


def test_unknown_path_is_404_without_token_too(anon):
    p = problem(anon.raw("GET", "/nothing-here"), 404, "resource.not_found")
    assert p["instance"] == "/nothing-here"
    assert p["status"] == 404 and p["title"]


def test_trailing_slash_on_id(user):
    rec = user.record().json()
    problem(user.get(HD + "/" + rec["id"] + "/"), 404, "resource.not_found")


def allow(r):
    return {x.strip() for x in r.header("allow", "").split(",") if x.strip()}


ROUTES = [
    ("/api/v1/health-data", {"GET", "HEAD", "POST", "OPTIONS"}),
    ("/api/v1/health-data/batch", {"POST", "OPTIONS"}),
    ("/api/v1/health-data/types", {"GET", "HEAD", "OPTIONS"}),
    ("/api/v1/health-data/latest", {"GET", "HEAD", "OPTIONS"}),
    ("/api/v1/health-data/" + uuid7(),
     {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
    ("/api/v1/auth/register", {"POST", "OPTIONS"}),
    ("/api/v1/auth/login", {"POST", "OPTIONS"}),
    ("/api/v1/auth/me", {"GET", "HEAD", "OPTIONS"}),
    ("/api/v1/analytics/trends", {"GET", "HEAD", "OPTIONS"}),
    ("/health", {"GET", "HEAD", "OPTIONS"}),
    ("/version", {"GET", "HEAD", "OPTIONS"}),
]


@pytest.mark.parametrize("path,methods", ROUTES)
def test_options_is_204_with_allow(user, anon, path, methods):
    for c in (user, anon):
        r = c.raw("OPTIONS", path, token=True if c is user else None)
        assert r.status == 204, r
        assert not r.body
        assert allow(r) - {"OPTIONS"} == methods - {"OPTIONS"}, r.raw_headers


@pytest.mark.parametrize("path,methods", ROUTES)
def test_other_methods_are_405_with_allow(user, path, methods):
    for m in ("GET", "POST", "PUT", "PATCH", "DELETE", "FOO"):
        if m in methods:
            continue
        kw = {"body": b"{}", "ctype": "application/json"} \
            if m in ("POST", "PUT", "PATCH") else {}
        r = user.raw(m, path, **kw)
        problem(r, 405, "request.method_not_allowed")
        assert allow(r) - {"OPTIONS"} == methods - {"OPTIONS"}, r.raw_headers


def test_trace_and_connect_are_refused(stack):
    r = raw_request(stack, "TRACE", "/api/v1/health-data")
    assert r.status in (405, 400), r


def test_options_of_unknown_path_is_404(user):
    problem(user.raw("OPTIONS", "/api/v1/nothing"), 404)


# --- HEAD ---

@pytest.mark.parametrize("path", [
    "/api/v1/health-data", "/api/v1/health-data/types", "/api/v1/auth/me",
    "/health", "/version"])
def test_head_is_get_without_body(user, path):
    g, h = user.raw("GET", path), user.raw("HEAD", path)
    assert (g.status, h.status) == (200, 200)
    assert h.body == b""
    assert h.header("content-type") == g.header("content-type")
    if h.header("content-length") is not None:
        assert h.header("content-length") == str(len(g.body))
    assert h.etag == g.etag


def test_head_of_a_record_and_of_an_absent_one(user):
    rec = user.record()
    h = user.head(HD + "/" + rec.json()["id"])
    assert h.status == 200 and h.etag == rec.etag and h.body == b""
    h = user.head(HD + "/" + uuid7())
    assert h.status == 404 and h.body == b""


def test_head_keeps_the_connection_in_step(stack, user):
    """Two pipelined requests: the HEAD has no body to run into the next."""
    head = "Host: localhost\r\nAuthorization: Bearer %s\r\n" % user.token
    data = ("HEAD /api/v1/health-data HTTP/1.1\r\n%s\r\n"
            "GET /api/v1/auth/me HTTP/1.1\r\n%sConnection: close\r\n\r\n"
            % (head, head)).encode()
    out = exchange(stack.http, data)
    first, rest = parse_response(out, "HEAD")
    second, rest = parse_response(rest)
    assert first.status == 200
    assert second.json()["id"] == user.id and rest == b""


# --- problems nginx makes itself ---

def test_400_garbage_request_line(stack):
    out = exchange(stack.http, b"GARBAGE\r\n\r\n")
    r = parse_response(out)[0]
    assert r.status == 400
    p = json.loads(r.body)
    assert p["code"] == "request.malformed" and p["status"] == 400


def test_400_header_broken(stack):
    out = exchange(stack.http, b"GET /api/v1/health-data HTTP/1.1\r\n"
                   b"Host: localhost\r\nbad header line\x01: x\r\n"
                   b"Content-Length: abc\r\n\r\n")
    r = parse_response(out)[0]
    assert r.status == 400, r
    assert json.loads(r.body)["code"] == "request.malformed"


def test_414(stack, user):
    r = raw_request(stack, "GET", "/api/v1/health-data?cursor=" + "a" * 70000,
                    [("Authorization", "Bearer " + user.token)])
    problem(r, 414, "request.uri_too_long")


def test_494_headers_too_large(stack):
    r = raw_request(stack, "GET", "/health", [("X-Big", "a" * 70000)],
                    check=False)
    assert r.status in (400, 431, 494), r
    p = json.loads(r.body)
    assert p["code"] == "request.malformed"
    assert r.header("content-type").startswith("application/problem+json")


def test_413_declared(stack, user):
    r = raw_request(
        stack, "POST", BASE + HD,
        [("Authorization", "Bearer " + user.token),
         ("Content-Type", "application/json"),
         ("Content-Length", str((1 << 20) + 1))], b"{")
    problem(r, 413, "request.too_large")


def test_413_chunked(stack, user):
    """No length told: the limit still holds, and nothing hangs."""
    body = b"".join(b"10000\r\n" + b" " * 0x10000 + b"\r\n"
                    for _ in range(20)) + b"0\r\n\r\n"
    r = raw_request(
        stack, "POST", BASE + HD,
        [("Authorization", "Bearer " + user.token),
         ("Content-Type", "application/json"),
         ("Transfer-Encoding", "chunked")], body)
    problem(r, 413, "request.too_large")


def test_just_under_1_mib_is_read(user):
    doc = b'{"data_type":"heart_rate","value":70}'
    body = doc + b" " * ((1 << 20) - len(doc))
    r = user.post(HD, body=body)
    assert r.status == 201, r


def test_413_is_for_files_of_nginx_too(anon):
    """Every error status of nginx has the form, not only the API's."""
    r = anon.raw("POST", "/no-such-place", body=b"x" * 10)
    assert r.status in (404, 405)
    assert r.header("content-type").startswith("application/problem+json")


# --- 415 ---

@pytest.mark.parametrize("ctype", [
    "text/plain", "application/xml", "application/jsonx", "json",
    "application/json; charset=latin-1", "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded", "application/merge-patch+json"])
def test_415_on_post(user, ctype):
    r = user.post(HD, body=b'{"data_type":"heart_rate","value":70}',
                  ctype=ctype)
    problem(r, 415, "request.media_type")


def test_415_without_content_type(user):
    r = user.raw("POST", BASE + HD, b'{"data_type":"heart_rate","value":70}')
    problem(r, 415, "request.media_type")


@pytest.mark.parametrize("ctype", [
    "application/json", "application/json; charset=utf-8",
    "application/json;charset=UTF-8", 'application/json; charset="utf-8"',
    "Application/JSON"])
def test_content_types_taken(user, ctype):
    r = user.post(HD, body=b'{"data_type":"heart_rate","value":70}',
                  ctype=ctype)
    assert r.status in (200, 201), r


def test_415_on_patch_names_what_is_taken(user):
    rec = user.record().json()
    r = user.patch(HD + "/" + rec["id"], body=b"{}", ctype="text/plain")
    problem(r, 415, "request.media_type")
    got = {x.strip() for x in r.header("accept-patch", "").split(",")}
    assert "application/merge-patch+json" in got, r.raw_headers


# --- 400: the body ---

DEEP = b"[" * 17 + b"]" * 17
BROKEN = {
    "empty": b"",
    "no json": b"hello",
    "cut": b'{"data_type":"heart_rate","value":',
    "two values": b'{"data_type":"heart_rate","value":70}{}',
    "trailing comma": b'{"data_type":"heart_rate","value":70,}',
    "single quotes": b"{'data_type':'heart_rate','value':70}",
    "duplicate key": b'{"data_type":"heart_rate","value":70,"value":71}',
    "duplicate key, escaped":
        b'{"data_type":"heart_rate","value":70,"\\u0076alue":71}',
    "duplicate key below":
        b'{"data_type":"blood_pressure",'
        b'"value":{"systolic":120,"systolic":121,"diastolic":70}}',
    "bad utf-8": b'{"data_type":"heart_rate","value":70,"notes":"\xff"}',
    "overlong utf-8":
        b'{"data_type":"heart_rate","value":70,"notes":"\xc0\xaf"}',
    "utf-8 surrogate":
        b'{"data_type":"heart_rate","value":70,"notes":"\xed\xa0\x80"}',
    "bom": b'\xef\xbb\xbf{"data_type":"heart_rate","value":70}',
    "utf-16": '{"data_type":"heart_rate","value":70}'.encode("utf-16"),
    "NaN": b'{"data_type":"heart_rate","value":NaN}',
    "Infinity": b'{"data_type":"weight","value":Infinity}',
    "too large for a double": b'{"data_type":"weight","value":1e400}',
    "leading zero": b'{"data_type":"heart_rate","value":070}',
    "hex": b'{"data_type":"heart_rate","value":0x46}',
    "comment": b'{"data_type":"heart_rate",/* x */"value":70}',
    "raw control": b'{"data_type":"heart_rate","value":70,"notes":"a\x01b"}',
    "raw newline": b'{"data_type":"heart_rate","value":70,"notes":"a\nb"}',
    "lone surrogate":
        b'{"data_type":"heart_rate","value":70,"notes":"\\ud800"}',
    "surrogates reversed":
        b'{"data_type":"heart_rate","value":70,"notes":"\\udc00\\ud800"}',
    "depth 17": b'{"data_type":"heart_rate","value":' + b"[" * 16
                + b"]" * 16 + b"}",
    "depth 100000": b"[" * 100000,
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_400_malformed_body(mate, name):
    r = mate.post(HD, body=BROKEN[name])
    problem(r, 400, "request.malformed")


def test_nul_in_json_string(mate):
    """\\u0000 is either not read at all or a named fault; never stored."""
    r = mate.post(HD, body=b'{"data_type":"heart_rate","value":70,'
                           b'"notes":"a\\u0000b"}')
    assert r.status in (400, 422), r
    problem(r, r.status)


def test_depth_16_is_read(mate):
    body = b'{"data_type":"heart_rate","value":' + b"[" * 15 + b"]" * 15 \
        + b"}"
    problem(mate.post(HD, body=body), 422, "validation.failed",
            {"/value": "type"})


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"7", b"null", b"true"])
def test_body_of_another_kind(mate, body):
    """JSON, but not an object: well-formed and invalid."""
    r = mate.post(HD, body=body)
    assert r.status in (422, 400), r
    problem(r, r.status)


def test_malformed_body_on_put_and_patch(user):
    rec = user.record().json()
    for call in (user.put, user.patch):
        problem(call(HD + "/" + rec["id"], body=b"{"), 400,
                "request.malformed")


# --- query parameters ---

@pytest.mark.parametrize("query,param", [
    ("foo=1", "foo"), ("limit=0", "limit"), ("limit=201", "limit"),
    ("limit=-1", "limit"), ("limit=", "limit"), ("limit=abc", "limit"),
    ("limit=1.0", "limit"), ("limit=%2B5", "limit"), ("limit=0x10", "limit"),
    ("limit=99999999999999999999", "limit"), ("limit=5&limit=5", "limit"),
    ("limit=%205", "limit"),
    ("order=up", "order"), ("order=", "order"), ("order=DESC", "order"),
    ("order=asc&order=asc", "order"),
    ("data_type=nothing", "data_type"), ("data_type=", "data_type"),
    ("data_type=weight,,height", "data_type"),
    ("data_type=weight,nothing", "data_type"),
    ("data_type=weight&data_type=height", "data_type"),
    ("data_type=" + ",".join("custom:c%d" % i for i in range(21)),
     "data_type"),
    ("from=yesterday", "from"), ("from=2026-01-01", "from"),
    ("to=2026-13-01T00:00:00Z", "to"), ("to=2026-01-01T00:00:00", "to"),
    ("source=", "source"),
    ("source=" + "a" * 65, "source"),
    ("user_id=nobody", "user_id"),
    ("Limit=5", "Limit"), ("limi%74=0", "limit"),
    ("_=1", "_"),
])
def test_400_query_parameter(mate, query, param):
    r = mate.get(HD + "?" + query)
    if query.startswith("user_id") and r.status == 403:
        problem(r, 403, "access.denied")        # naming another is 403 first
        return
    p = problem(r, 400, "request.invalid_parameter")
    assert param in [e.get("parameter") for e in p["errors"]], p
    assert not [e for e in p["errors"] if "pointer" in e], p


def test_all_query_faults_are_named(mate):
    p = problem(mate.get(HD + "?limit=0&order=up&foo=1&from=x"), 400,
                "request.invalid_parameter")
    assert {e["parameter"] for e in p["errors"]} \
        == {"limit", "order", "foo", "from"}, p
    p = problem(mate.get(HD + "?from=x&to=y&data_type=z&limit=999"), 400,
                "request.invalid_parameter")
    assert {e["parameter"] for e in p["errors"]} \
        == {"from", "to", "data_type", "limit"}, p


def test_from_must_be_before_to(mate):
    for a, b in (("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
                 ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
                 ("2026-01-01T01:00:00%2B01:00", "2026-01-01T00:00:00Z")):
        p = problem(mate.get(HD + "?from=%s&to=%s" % (a, b)), 400,
                    "request.invalid_parameter")
        assert {e["parameter"] for e in p["errors"]} <= {"from", "to"}
        assert p["errors"][0]["code"] in ("order", "range"), p


@pytest.mark.parametrize("path", [
    "/health-data/types?x=1", "/health-data/latest?limit=5x",
    "/auth/me?x=1", "/health-data/latest?zz=1"])
def test_unknown_parameters_everywhere(mate, path):
    problem(mate.get(path), 400, "request.invalid_parameter")


def test_unknown_parameters_on_other_methods(user):
    rec = user.record().json()
    one = HD + "/" + rec["id"]
    problem(user.get(one + "?x=1"), 400, "request.invalid_parameter")
    problem(user.delete(one + "?x=1"), 400, "request.invalid_parameter")
    problem(user.post(HD + "?x=1", {"data_type": "heart_rate", "value": 61}),
            400, "request.invalid_parameter")
    problem(user.post(HD + "/batch?atomic=maybe",
                      [{"data_type": "heart_rate", "value": 61}]),
            400, "request.invalid_parameter")
    ok(user.get(one))


def test_good_percent_encoding_and_bad(mate):
    ok(mate.get(HD + "?%6Cimit=5"))
    for bad in ("limit=%zz", "limit=5%00", "limit=%", "limit=%3",
                "source=%ff"):
        problem(mate.get(HD + "?" + bad), 400)


# --- request id ---

@pytest.mark.parametrize("rid", ["a", "A-b_c.9", "x" * 64, "---"])
def test_request_id_kept(mate, rid):
    r = mate.get(HD, headers={"X-Request-ID": rid})
    assert r.header("x-request-id") == rid


@pytest.mark.parametrize("rid", ["x" * 65, "a b", "a/b", "a,b", 'a"b', "",
                                 "\u00e9", "<script>", "a%20b", "a:b"])
def test_request_id_replaced(mate, rid):
    r = mate.get(HD, headers={"X-Request-ID": rid})
    assert r.status == 200
    got = r.header("x-request-id")
    assert got != rid and re.match(r"^[A-Za-z0-9._-]{1,64}$", got)


def test_request_id_made_and_unique(mate):
    got = {mate.get(HD).header("x-request-id") for _ in range(5)}
    assert len(got) == 5


def test_request_id_in_problem(mate):
    r = mate.get("/nope", headers={"X-Request-ID": "mine-1"})
    assert r.json()["request_id"] == "mine-1" == r.header("x-request-id")


def test_two_request_ids(mate):
    r = mate.get(HD, headers=[("X-Request-ID", "one"),
                              ("X-Request-ID", "two")])
    assert r.status in (200, 400)
    assert len(r.headers("x-request-id")) == 1


# --- headers ---

def test_no_store_on_personal_data(user):
    rec = user.record()
    for r in (rec, user.get(HD), user.get(HD + "/" + rec.json()["id"]),
              user.get("/auth/me"), user.get(HD + "/latest"),
              user.get(HD + "/" + rec.json()["id"],
                       headers={"If-None-Match": rec.etag})):
        assert "no-store" in (r.header("cache-control") or ""), \
            (r, r.raw_headers)


def test_no_compression(user):
    for i in range(30):
        user.record(value=60 + i, notes="a" * 200)
    r = user.get(HD + "?limit=30",
                 headers={"Accept-Encoding": "gzip, deflate, br"})
    assert r.status == 200 and r.header("content-encoding") is None
    assert len(r.json()["items"]) == 30


@pytest.mark.parametrize("path", ["/api/v1/health-data", "/nope", "/health"])
def test_security_headers(mate, path):
    r = mate.raw("GET", path)
    assert r.header("x-content-type-options") == "nosniff"
    assert r.header("referrer-policy")
    assert r.header("x-frame-options") or "frame-ancestors" in \
        r.header("content-security-policy", "")
    # The plain door is every route without redirect or HSTS.
    assert r.header("strict-transport-security") is None


def test_hsts_on_tls(stack):
    c = stack.client(tls=True)
    r = c.root("GET", "/health")
    assert r.status == 200
    assert "max-age=" in (r.header("strict-transport-security") or "")


@pytest.mark.parametrize("accept", ["text/html", "image/png", "garbage", "",
                                    "application/json;q=0"])
def test_accept_is_never_a_reason_to_refuse(mate, accept):
    r = mate.get(HD, headers={"Accept": accept})
    ok(r)


def test_cors_is_off(mate):
    r = mate.get(HD, headers={"Origin": "https://evil.example"})
    assert r.status == 200
    assert not [k for k, _ in r.raw_headers
                if k.lower().startswith("access-control")]


def test_rate_limit_headers_are_counted_even_when_off(mate):
    r = mate.get(HD)
    if r.header("ratelimit") is None:
        pytest.skip("limits are a later part")
    assert re.match(r'^"data-read";r=\d+;t=\d+$', r.header("ratelimit"))
    assert re.match(r'^"data-read";q=3000;w=60$', r.header("ratelimit-policy"))


# --- ids ---

@pytest.mark.parametrize("bad", [
    "x", "123", "0195f0c2", "g195f0c2-0000-7000-8000-000000000000",
    "0195f0c2-0000-7000-8000-00000000000", "%00", "..%2f..%2fetc",
    "0195f0c2-0000-7000-8000-0000000000000", "0195f0c2000070008000000000000000",
    "{0195f0c2-0000-7000-8000-000000000000}",
    "0195f0c2-0000-7000-8000-000000000000%00"])
def test_path_id_that_is_no_uuid(mate, bad):
    for call in (mate.get, mate.delete):
        r = call(HD + "/" + bad)
        if "%" in bad:
            assert r.status in (400, 404), r
        else:
            problem(r, 404, "resource.not_found")


def test_nil_and_foreign_version_uuid(mate):
    for i in ("00000000-0000-0000-0000-000000000000",
              "6ba7b810-9dad-41d1-80b4-00c04fd430c8", uuid7()):
        problem(mate.get(HD + "/" + i), 404, "resource.not_found")


def test_absent_and_foreign_look_the_same(mate, stranger):
    a = mate.get(HD + "/" + uuid7()).json()
    b = mate.get(HD + "/" + stranger.rec["id"]).json()
    for p in (a, b):
        p.pop("request_id")
        p.pop("instance")
    assert a == b


# --- hosts of the plain door ---

@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_plain_hosts_taken(stack, host):
    for h in (host, "%s:%d" % (host, stack.http)):
        assert raw_request(stack, "GET", "/health", host=h).status == 200, h


@pytest.mark.parametrize("host", ["example.org", "localhost.evil.example",
                                  "127.0.0.2", "healthmate", "evil:80",
                                  "127.0.0.1.evil.example"])
def test_plain_hosts_refused(stack, user, host):
    auth = [("Authorization", "Bearer " + user.token)]
    for path in ("/health", "/api/v1/auth/me"):
        problem(raw_request(stack, "GET", path, auth, host=host), 421,
                "request.misdirected")


def test_plain_trusts_no_forwarded_header(stack):
    r = raw_request(stack, "GET", "/health",
                    [("X-Forwarded-Host", "localhost"),
                     ("Forwarded", "host=localhost;proto=https")],
                    host="evil.example")
    problem(r, 421, "request.misdirected")


def test_no_host(stack):
    r = raw_request(stack, "GET", "/health", host=None, check=False)
    assert r.status in (400, 421), r
    assert json.loads(r.body)["code"] in ("request.malformed",
                                          "request.misdirected")


# --- the wire ---

def test_pipelined_requests_are_answered_in_order(stack, user):
    recs = [user.record(value=60 + i, timestamp="2026-01-0%dT00:00:00Z"
                        % (i + 1)).json() for i in range(8)]
    head = "Host: localhost\r\nAuthorization: Bearer %s\r\n" % user.token
    data = "".join("GET /api/v1/health-data/%s HTTP/1.1\r\n%s%s\r\n"
                   % (r["id"], head,
                      "Connection: close\r\n" if r is recs[-1] else "")
                   for r in recs).encode()
    rest = exchange(stack.http, data)
    for want in recs:
        got, rest = parse_response(rest)
        assert got.json() == want
    assert rest == b""


def test_one_byte_at_a_time(stack, user):
    body = b'{"data_type":"heart_rate","value":66}'
    data = (b"POST /api/v1/health-data HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: close\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + user.token.encode() +
            b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n"
            + body)
    out = exchange(stack.http, None,
                   chunks=[data[i:i + 1] for i in range(len(data))])
    r = parse_response(out)[0]
    assert r.status == 201 and r.json()["value"] == 66


def test_chunked_body(stack, user):
    body = b'{"data_type":"heart_rate","value":67}'
    parts = b"".join(b"%x\r\n%s\r\n" % (1, body[i:i + 1])
                     for i in range(len(body))) + b"0\r\n\r\n"
    r = raw_request(stack, "POST", BASE + HD,
                    [("Authorization", "Bearer " + user.token),
                     ("Content-Type", "application/json"),
                     ("Transfer-Encoding", "chunked")], parts)
    assert r.status == 201 and r.json()["value"] == 67


def test_expect_100_continue(stack, user):
    body = b'{"data_type":"heart_rate","value":68}'
    r = raw_request(stack, "POST", BASE + HD,
                    [("Authorization", "Bearer " + user.token),
                     ("Content-Type", "application/json"),
                     ("Expect", "100-continue"),
                     ("Content-Length", str(len(body)))], body, check=False)
    # The interim answer comes first on the same stream.
    if r.status == 100:
        return
    assert r.status == 201, r


def test_body_on_get_is_ignored_or_refused(mate):
    r = mate.raw("GET", BASE + HD, body=b"{}", ctype="application/json")
    assert r.status in (200, 400), r


def test_keep_alive_after_each_kind_of_error(user):
    """An error answer does not cost the connection its step."""
    c = user.conn()
    c.close()
    for _ in range(3):
        user.get(HD + "?limit=0")
        user.post(HD, body=b"{")
        user.get("/nope")
        user.post(HD, {"data_type": "heart_rate", "value": 7000})
        ok(user.get("/auth/me"))
