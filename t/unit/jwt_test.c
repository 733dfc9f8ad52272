/*
 * Tokens: a corpus of forgeries, most of them under the right MAC so that
 * only the check they are about can refuse them, and libjwt as an oracle for
 * the good ones.  A forgery starts from a header and claims that are taken
 * (test_good proves it) and differs from them in one thing.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jwt.h>
#include "hm_crypto.h"
#include "hm_jwt.h"
#include "hm_text.h"
#include "hm_uuid.h"


#define NOW    1767225600LL              /* 2026-01-01T00:00:00Z */

#define SUB    "0195f0c2-0000-7000-8000-000000000001"
#define SID    "0195f0c2-0000-7000-8000-000000000002"
#define JTI    "0195f0c2-0000-7000-8000-000000000003"
#define FGP    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

#define HEAD   "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}"

#define BODY                                                                  \
    "{\"iss\":\"healthmate\",\"aud\":\"healthmate-api\",\"sub\":\"" SUB "\","  \
    "\"role\":\"patient\",\"sid\":\"" SID "\",\"jti\":\"" JTI "\","           \
    "\"typ\":\"access\",\"iat\":1767225600,\"nbf\":1767225600,"               \
    "\"exp\":1767227400,\"auth_time\":1767225600,\"amr\":[\"pwd\"],"          \
    "\"fgp\":\"" FGP "\"}"


static hm_jwt_key_t   keys[3];
static hm_jwt_conf_t  conf;
static hm_claims_t    claims;


static hm_str_t
str(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static int
setup(void **state)
{
    size_t  i;

    strcpy(keys[0].kid, "k1");
    strcpy(keys[1].kid, "k0");
    strcpy(keys[2].kid, "short");

    for (i = 0; i < 3; i++) {
        memset(keys[i].secret, 0x11 + (int) i, sizeof(keys[i].secret));
        keys[i].secret_len = i == 2 ? 31 : 32 + 32 * i;
    }

    conf.keys = keys;
    conf.nkeys = 3;
    conf.issuer = HM_STR("healthmate");
    conf.audience = HM_STR("healthmate-api");

    return hm_crypto_init() == HM_OK ? 0 : -1;
}


/* head.body.mac under a key; the texts are taken as they are. */

static hm_str_t
seal(const char *head, size_t hlen, const char *body, size_t blen,
    const hm_jwt_key_t *key)
{
    char           *p;
    size_t          n;
    unsigned char   mac[32];

    p = malloc(hlen * 2 + blen * 2 + 64);
    assert_non_null(p);

    n = hm_b64url_encode(p, head, hlen);
    p[n++] = '.';
    n += hm_b64url_encode(p + n, body, blen);

    assert_int_equal(hm_hmac(mac, key->secret, key->secret_len, p, n), HM_OK);

    p[n++] = '.';
    n += hm_b64url_encode(p + n, mac, sizeof(mac));

    return (hm_str_t) { n, (unsigned char *) p };
}


static hm_str_t
token_of(const char *head, const char *body)
{
    return seal(head, strlen(head), body, strlen(body), &keys[0]);
}


/* text with the first `from` replaced; from must be there. */

static char *
swap(const char *text, const char *from, const char *to)
{
    char        *out;
    const char  *at;

    at = strstr(text, from);
    assert_non_null(at);

    out = malloc(strlen(text) + strlen(to) + 1);
    assert_non_null(out);

    sprintf(out, "%.*s%s%s", (int) (at - text), text, to, at + strlen(from));

    return out;
}


static hm_jwt_rc_t
verify(hm_str_t token)
{
    return hm_jwt_verify(&conf, token, "access", NOW, &claims);
}


static void
refused(hm_str_t token, const char *why)
{
    static const hm_claims_t  none;

    if (verify(token) != HM_JWT_INVALID) {
        fail_msg("taken: %s", why);
    }

    assert_memory_equal(&claims, &none, sizeof(none));
}


static void
test_good(void **state)
{
    hm_uuid_t  id;

    assert_int_equal(verify(token_of(HEAD, BODY)), HM_JWT_OK);

    assert_int_equal(hm_uuid_parse(&id, str(SUB)), HM_OK);
    assert_true(hm_uuid_eq(&claims.sub, &id));
    assert_int_equal(hm_uuid_parse(&id, str(SID)), HM_OK);
    assert_true(hm_uuid_eq(&claims.sid, &id));
    assert_int_equal(hm_uuid_parse(&id, str(JTI)), HM_OK);
    assert_true(hm_uuid_eq(&claims.jti, &id));

    assert_int_equal(claims.role, HM_ROLE_PATIENT);
    assert_int_equal(claims.iat, NOW);
    assert_int_equal(claims.nbf, NOW);
    assert_int_equal(claims.exp, NOW + 1800);
    assert_int_equal(claims.auth_time, NOW);
    assert_int_equal(claims.amr, HM_AMR_PWD);
    assert_string_equal(claims.typ, "access");
    assert_true(claims.has_fgp);
    assert_int_equal(claims.fgp[0], 0);
    assert_int_equal(claims.fgp[31], 31);
}


/* Other spellings of the same truth, and what may be absent. */

static void
test_good_variants(void **state)
{
    size_t  i;

    static const char *const  variants[][2] = {
        { ",\"fgp\":\"" FGP "\"", "" },
        { "[\"pwd\"]", "[]" },
        { "[\"pwd\"]", "[\"pwd\",\"otp\",\"hwk\"]" },
        { "\"role\":\"patient\"", "\"role\":\"doctor\"" },
        { "\"role\":\"patient\"", "\"role\":\"admin\"" },
        { "\"role\":\"patient\"", "\"role\":\"researcher\"" },
        { "{\"iss\"", "{\"extra\":[1,{}],\"iss\"" },
        { "{\"iss\"", " { \"iss\"" },
        { "\"nbf\":1767225600", "\"nbf\":1767225605" },    /* the skew */
        { "\"iat\":1767225600", "\"iat\":1767225605" },
        { "\"exp\":1767227400", "\"exp\":1767225601" }
    };

    for (i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {

        if (verify(token_of(HEAD, swap(BODY, variants[i][0],
                                       variants[i][1])))
            != HM_JWT_OK)
        {
            fail_msg("refused: %s", variants[i][1]);
        }
    }

    assert_int_equal(verify(token_of("{\"kid\":\"k1\",\"typ\":\"JWT\","
                                     "\"alg\":\"HS256\"}", BODY)),
                     HM_JWT_OK);

    /* an older key, still known */

    assert_int_equal(verify(seal(swap(HEAD, "k1", "k0"), strlen(HEAD), BODY,
                                 strlen(BODY), &keys[1])),
                     HM_JWT_OK);
}


static void
test_headers(void **state)
{
    size_t  i;

    static const char *const  heads[] = {
        "{\"alg\":\"none\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"None\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"NONE\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"hs256\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS384\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS512\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256 \",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\\u0000\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":null,\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":256,\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":[\"HS256\"],\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"none\",\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\",\"alg\":\"none\",\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"typ\":\"JWT\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\",\"typ\":\"jwt\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k2\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"K1\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k0\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\\u0000\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"../../dev/null\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"x' or '1'='1\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":1}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":null}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"kid\":\"k1\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"crit\":[]}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"b64\":false}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"jwk\":{}}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"jku\":\"h\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"x5u\":\"h\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"zip\":\"DEF\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\",\"cty\":\"JWT\"}",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}x",
        "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"",
        "[\"HS256\",\"JWT\",\"k1\"]",
        "\"HS256\"",
        "null",
        "{}",
        ""
    };

    for (i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        refused(token_of(heads[i], BODY), heads[i]);
    }

    /* a key too short to be one never verifies, though its MAC is right */

    refused(seal(swap(HEAD, "k1", "short"), strlen(HEAD) + 3, BODY,
                 strlen(BODY), &keys[2]), "short key");
}


static void
test_claims(void **state)
{
    size_t  i;

    static const char *const  forged[][2] = {
        { "\"exp\":1767227400", "\"exp\":\"1767227400\"" },
        { "\"exp\":1767227400", "\"exp\":1767227400.0" },
        { "\"exp\":1767227400", "\"exp\":1767227400.5" },
        { "\"exp\":1767227400", "\"exp\":1.8e9" },
        { "\"exp\":1767227400", "\"exp\":1e400" },
        { "\"exp\":1767227400", "\"exp\":-1" },
        { "\"exp\":1767227400", "\"exp\":99999999999999999999" },
        { "\"exp\":1767227400", "\"exp\":null" },
        { "\"exp\":1767227400", "\"exp\":true" },
        { "\"exp\":1767227400", "\"exp\":[1767227400]" },
        { "\"exp\":1767227400", "\"exp\":1767225600" },    /* no life */
        { "\"exp\":1767227400,", "" },
        { "\"exp\":1767227400", "\"exp\":1,\"exp\":1767227400" },
        { "\"exp\":1767227400", "\"exp\":1767227400,\"exp\":1767227400" },
        { "\"nbf\":1767225600", "\"nbf\":1767225606" },
        { "\"nbf\":1767225600", "\"nbf\":9223372036854775807" },
        { "\"nbf\":1767225600", "\"nbf\":\"0\"" },
        { "\"nbf\":1767225600", "\"nbf\":0.0" },
        { "\"nbf\":1767225600,", "" },
        { "\"iat\":1767225600", "\"iat\":1767225606" },
        { "\"iat\":1767225600", "\"iat\":-1" },
        { "\"iat\":1767225600,", "" },
        { "\"auth_time\":1767225600", "\"auth_time\":\"1767225600\"" },
        { "\"auth_time\":1767225600", "\"auth_time\":1767225606" },
        { "\"auth_time\":1767225600,", "" },
        { "\"iss\":\"healthmate\"", "\"iss\":\"healthmate2\"" },
        { "\"iss\":\"healthmate\"", "\"iss\":\"healthmat\"" },
        { "\"iss\":\"healthmate\"", "\"iss\":\"healthmate\\u0000\"" },
        { "\"iss\":\"healthmate\"", "\"iss\":[\"healthmate\"]" },
        { "\"iss\":\"healthmate\",", "" },
        { "\"aud\":\"healthmate-api\"", "\"aud\":[\"healthmate-api\"]" },
        { "\"aud\":\"healthmate-api\"", "\"aud\":\"other\"" },
        { "\"aud\":\"healthmate-api\"", "\"aud\":\"\"" },
        { "\"aud\":\"healthmate-api\",", "" },
        { "\"typ\":\"access\"", "\"typ\":\"refresh\"" },
        { "\"typ\":\"access\"", "\"typ\":\"reset\"" },
        { "\"typ\":\"access\"", "\"typ\":\"Access\"" },
        { "\"typ\":\"access\"", "\"typ\":\"accessaccessaccess\"" },
        { "\"typ\":\"access\",", "" },
        { "\"sub\":\"" SUB "\"", "\"sub\":\"\"" },
        { "\"sub\":\"" SUB "\"", "\"sub\":\"me\"" },
        { "\"sub\":\"" SUB "\"", "\"sub\":1" },
        { "\"sub\":\"" SUB "\"", "\"sub\":\"" SUB "0\"" },
        { "\"sub\":\"" SUB "\",", "" },
        { "\"sid\":\"" SID "\"", "\"sid\":null" },
        { "\"jti\":\"" JTI "\",", "" },
        { "\"role\":\"patient\"", "\"role\":\"root\"" },
        { "\"role\":\"patient\"", "\"role\":\"none\"" },
        { "\"role\":\"patient\"", "\"role\":\"Admin\"" },
        { "\"role\":\"patient\"", "\"role\":[\"admin\"]" },
        { "\"role\":\"patient\"", "\"role\":\"patient\",\"role\":\"admin\"" },
        { "\"role\":\"patient\"", "\"role\":\"patient\",\"r\\u006fle\":"
                                  "\"admin\"" },
        { "\"role\":\"patient\",", "" },
        { "[\"pwd\"]", "\"pwd\"" },
        { "[\"pwd\"]", "[\"pwd\",\"pwd\"]" },
        { "[\"pwd\"]", "[\"face\"]" },
        { "[\"pwd\"]", "[1]" },
        { "[\"pwd\"]", "[[\"pwd\"]]" },
        { "[\"pwd\"]", "null" },
        { "\"amr\":[\"pwd\"],", "" },
        { "\"fgp\":\"" FGP "\"", "\"fgp\":null" },
        { "\"fgp\":\"" FGP "\"", "\"fgp\":\"\"" },
        { "\"fgp\":\"" FGP "\"", "\"fgp\":\"" FGP "=\"" },
        { "\"fgp\":\"" FGP "\"", "\"fgp\":\"" FGP "A\"" },
        { "Hh8\"", "Hh9\"" },            /* fgp: unused bits set */
        { "Hh8\"", "Hh\"" },
        { "}", "}}" },
        { "}", "" },
        { "}", "} x" },
        { "\"iss\"", "\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":"
          "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1"
          "}}}}}}}}}}}}}}}}},\"iss\"" },
        { "\"iss\"", "\"x\":\"\xff\",\"iss\"" },
        { "\"iss\"", "\"x\":\"\\ud800\",\"iss\"" }
    };

    for (i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        refused(token_of(HEAD, swap(BODY, forged[i][0], forged[i][1])),
                forged[i][1]);
    }

    refused(token_of(HEAD, "[]"), "claims an array");
    refused(token_of(HEAD, "null"), "claims null");
    refused(token_of(HEAD, ""), "claims empty");
    refused(seal(HEAD, strlen(HEAD), BODY "\0", strlen(BODY) + 1, &keys[0]),
            "NUL after the claims");
}


/* What is done to a good token from outside. */

static void
test_shape(void **state)
{
    char      *t, *big;
    size_t     i, n, dot1, dot2;
    hm_str_t   good, s;

    good = token_of(HEAD, BODY);
    n = good.len;
    t = malloc(n + 64);
    assert_non_null(t);

    dot1 = (unsigned char *) memchr(good.data, '.', n) - good.data;
    dot2 = (unsigned char *) memrchr(good.data, '.', n) - good.data;

    s.data = (unsigned char *) t;

#define FRESH()  memcpy(t, good.data, n); s.len = n

    /* each single bit of each character that says something */

    for (i = 0; i < n; i++) {
        FRESH();
        t[i] ^= 1;
        refused(s, "a flipped bit");
        FRESH();
        t[i] ^= 0x80;
        refused(s, "a flipped high bit");
    }

    for (i = 0; i < n; i++) {
        FRESH();
        s.len = i;
        refused(s, "cut short");
    }

    FRESH();
    memcpy(t + n, ".x", 2);
    s.len = n + 2;
    refused(s, "four parts");
    memcpy(t + n, "....", 4);
    s.len = n + 4;
    refused(s, "many parts");
    memcpy(t + n, "=", 1);
    s.len = n + 1;
    refused(s, "padding");
    t[n] = '\0';
    refused(s, "a NUL at the end");
    t[n] = ' ';
    refused(s, "a space at the end");
    t[n] = '\n';
    refused(s, "a newline at the end");

    FRESH();
    s.len = dot2;
    refused(s, "two parts");
    s.len = dot2 + 1;
    refused(s, "no MAC");

    FRESH();
    memmove(t + 1, t, n);
    t[0] = ' ';
    s.len = n + 1;
    refused(s, "a space before");
    t[0] = '.';
    refused(s, "a dot before");

    FRESH();
    memmove(t + dot1 + 2, t + dot1 + 1, n - dot1 - 1);
    t[dot1 + 1] = '.';
    s.len = n + 1;
    refused(s, "an empty part");

    refused(HM_STR(""), "nothing");
    refused(HM_STR("."), "a dot");
    refused(HM_STR(".."), "two dots");

    /* longer than any token, with the MAC right */

    big = malloc(65536 + 64);
    assert_non_null(big);
    memset(big, ' ', 65536);
    memcpy(big + 65536, HEAD, sizeof(HEAD));
    refused(token_of(big, BODY), "a header of 64 KB");

    big[0] = '\0';
    big = swap(BODY, "{", "{ ");
    big = realloc(big, 8192);
    memset(big + strlen(BODY) + 1, ' ', 6000);
    big[strlen(BODY) + 6000] = '\0';
    refused(token_of(HEAD, big), "claims of 6 KB");
}


/* The last character of a MAC carries 4 bits and 2 that must be zero. */

static void
test_second_spelling(void **state)
{
    size_t      i, j, taken;
    hm_str_t    t;

    static const char  alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklm"
                                    "nopqrstuvwxyz0123456789-_";

    t = token_of(HEAD, BODY);
    taken = 0;

    for (i = 0; i < 64; i++) {
        t.data[t.len - 1] = (unsigned char) alphabet[i];
        taken += verify(t) == HM_JWT_OK;
    }

    assert_int_equal(taken, 1);

    /* the alphabet of plain base64 is another one; ??? brings a '_' */

    t = token_of(HEAD, swap(BODY, "\"iss\"", "\"x\":\"???\",\"iss\""));
    assert_int_equal(verify(t), HM_JWT_OK);
    j = 0;

    for (i = 0; i < t.len; i++) {
        if (t.data[i] == '-' || t.data[i] == '_') {
            t.data[i] = t.data[i] == '-' ? '+' : '/';
            refused(t, "plain base64");
            j = 1;
            break;
        }
    }

    assert_int_equal(j, 1);
}


static void
test_other_key(void **state)
{
    refused(seal(HEAD, strlen(HEAD), BODY, strlen(BODY), &keys[1]),
            "the MAC of another key");

    conf.nkeys = 0;
    refused(token_of(HEAD, BODY), "no key at all");
    conf.nkeys = 3;
}


/* Expired is said only of what is right otherwise. */

static void
test_expired(void **state)
{
    hm_str_t     t;
    const char  *old;

    old = swap(swap(swap(BODY, "\"iat\":1767225600", "\"iat\":1767220000"),
                    "\"nbf\":1767225600", "\"nbf\":1767220000"),
               "\"exp\":1767227400", "\"exp\":1767225600");

    assert_int_equal(verify(token_of(HEAD, old)), HM_JWT_EXPIRED);
    assert_int_equal(claims.exp, NOW);

    t = token_of(HEAD, old);
    t.data[t.len - 2] ^= 1;
    refused(t, "expired and forged");

    refused(token_of(HEAD, swap(old, "access", "refresh")),
            "expired and of another type");
    refused(token_of(HEAD, swap(old, "patient", "root")),
            "expired and of no role");
    refused(token_of(HEAD, swap(old, "healthmate-api", "other")),
            "expired and for others");

    t = token_of(HEAD, BODY);
    assert_int_equal(hm_jwt_verify(&conf, t, "access", NOW + 1799, &claims),
                     HM_JWT_OK);
    assert_int_equal(hm_jwt_verify(&conf, t, "access", NOW + 1800, &claims),
                     HM_JWT_EXPIRED);
    assert_int_equal(hm_jwt_verify(&conf, t, "access", NOW - 5, &claims),
                     HM_JWT_OK);
    assert_int_equal(hm_jwt_verify(&conf, t, "access", NOW - 6, &claims),
                     HM_JWT_INVALID);
}


static void
fill(hm_claims_t *c, unsigned i)
{
    memset(c, 0, sizeof(hm_claims_t));
    memset(c->sub.b, 0x20 + (int) i, 16);
    memset(c->sid.b, 0x30 + (int) i, 16);
    memset(c->jti.b, 0x40 + (int) i, 16);
    c->role = 1 + i % 4;
    c->iat = NOW;
    c->nbf = NOW - 1;
    c->exp = NOW + 60 + i;
    c->auth_time = NOW - 1000;
    c->amr = i % 8;
    c->has_fgp = i % 2;

    if (c->has_fgp) {
        memset(c->fgp, 0xf0 + (int) i % 16, 32);
    }

    strcpy(c->typ, i % 3 ? "access" : "refresh");
}


static void
test_sign(void **state)
{
    unsigned      i;
    hm_str_t      t;
    hm_claims_t   in;

    for (i = 0; i < 16; i++) {
        fill(&in, i);

        assert_int_equal(hm_jwt_sign(&conf, &hm_heap, &in, &t), HM_OK);
        assert_int_equal(hm_jwt_verify(&conf, t, in.typ, NOW, &claims),
                         HM_JWT_OK);
        assert_memory_equal(&claims.sub, &in.sub, 16);
        assert_memory_equal(&claims.sid, &in.sid, 16);
        assert_memory_equal(&claims.jti, &in.jti, 16);
        assert_int_equal(claims.role, in.role);
        assert_int_equal(claims.iat, in.iat);
        assert_int_equal(claims.nbf, in.nbf);
        assert_int_equal(claims.exp, in.exp);
        assert_int_equal(claims.auth_time, in.auth_time);
        assert_int_equal(claims.amr, in.amr);
        assert_int_equal(claims.has_fgp, in.has_fgp);
        assert_memory_equal(claims.fgp, in.fgp, 32);
        assert_string_equal(claims.typ, in.typ);
    }

    fill(&in, 1);
    in.role = HM_ROLE_NONE;
    assert_int_equal(hm_jwt_sign(&conf, &hm_heap, &in, &t), HM_ERROR);

    fill(&in, 1);
    in.exp = in.iat;
    assert_int_equal(hm_jwt_sign(&conf, &hm_heap, &in, &t), HM_ERROR);

    conf.nkeys = 0;
    fill(&in, 1);
    assert_int_equal(hm_jwt_sign(&conf, &hm_heap, &in, &t), HM_ERROR);
    conf.nkeys = 3;
}


/* What is good to us is good to libjwt, with the same claims. */

static void
test_oracle(void **state)
{
    char      *text;
    jwt_t     *jwt;
    hm_str_t   t;

    t = token_of(HEAD, BODY);
    text = strndup((char *) t.data, t.len);

    assert_int_equal(jwt_decode(&jwt, text, keys[0].secret,
                                (int) keys[0].secret_len), 0);
    assert_int_equal(jwt_get_alg(jwt), JWT_ALG_HS256);
    assert_string_equal(jwt_get_header(jwt, "kid"), "k1");
    assert_string_equal(jwt_get_grant(jwt, "sub"), SUB);
    assert_string_equal(jwt_get_grant(jwt, "aud"), "healthmate-api");
    assert_int_equal(jwt_get_grant_int(jwt, "exp"), NOW + 1800);
    jwt_free(jwt);

    /* and what has the wrong MAC is bad to both */

    text[t.len - 3] = text[t.len - 3] == 'A' ? 'B' : 'A';
    assert_int_not_equal(jwt_decode(&jwt, text, keys[0].secret,
                                    (int) keys[0].secret_len), 0);
    refused(str(text), "a wrong MAC");
    free(text);
}


static void
test_roles(void **state)
{
    unsigned  i;

    for (i = HM_ROLE_PATIENT; i <= HM_ROLE_RESEARCHER; i++) {
        assert_int_equal(hm_role_of(str(hm_role_name(i))), i);
    }

    assert_int_equal(hm_role_of(HM_STR("none")), HM_ROLE_NONE);
    assert_int_equal(hm_role_of(HM_STR("")), HM_ROLE_NONE);
    assert_string_equal(hm_role_name(99), "none");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_good_variants),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_second_spelling),
        cmocka_unit_test(test_other_key),
        cmocka_unit_test(test_expired),
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_roles)
    };

    return cmocka_run_group_tests_name("jwt", tests, setup, NULL);
}
