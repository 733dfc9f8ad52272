/*
 * webauthn_test: credentials made here by OpenSSL, as an authenticator would
 * make them, in all three algorithms; then each byte of them spoilt in turn:
 * a spoilt login never verifies, a spoilt credential never reads past its
 * end and is never taken for one with another key.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "hm_crypto.h"
#include "hm_text.h"
#include "hm_webauthn.h"


#define RP  "health.example.org"


static const hm_str_t  origins[] = {
    hm_str("https://health.example.org"), hm_str("https://localhost:8443")
};

static const hm_webauthn_rp_t  rp = { hm_str(RP), origins, 2 };


/* a writer of bytes */

typedef struct {
    unsigned char  b[4096];
    size_t         n;
} out_t;


static void
put(out_t *o, const void *p, size_t n)
{
    assert_true(o->n + n <= sizeof(o->b));
    memcpy(o->b + o->n, p, n);
    o->n += n;
}


static void
head(out_t *o, unsigned major, size_t n)
{
    unsigned char  h[3];

    h[0] = (unsigned char) (major << 5 | (n < 24 ? n : n < 256 ? 24 : 25));
    h[1] = (unsigned char) (n < 256 ? n : n >> 8);
    h[2] = (unsigned char) n;
    put(o, h, n < 24 ? 1 : n < 256 ? 2 : 3);
}


static void
num(out_t *o, int n)
{
    head(o, n < 0 ? 1 : 0, (size_t) (n < 0 ? -1 - n : n));
}


static void
bytes(out_t *o, const void *p, size_t n)
{
    head(o, 2, n);
    put(o, p, n);
}


static void
text(out_t *o, const char *s)
{
    head(o, 3, strlen(s));
    put(o, s, strlen(s));
}


static hm_str_t
str(const out_t *o)
{
    hm_str_t  s = { o->n, (unsigned char *) o->b };

    return s;
}


static void
cose(out_t *o, EVP_PKEY *key, int alg)
{
    size_t          n;
    BIGNUM         *bn;
    unsigned char   raw[256];

    bn = NULL;

    if (alg == HM_COSE_ES256) {
        head(o, 5, 5);
        num(o, 1);
        num(o, 2);
        num(o, 3);
        num(o, alg);
        num(o, -1);
        num(o, 1);
        num(o, -2);
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &bn);
        BN_bn2binpad(bn, raw, 32);
        bytes(o, raw, 32);
        num(o, -3);
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &bn);
        BN_bn2binpad(bn, raw, 32);
        bytes(o, raw, 32);

    } else if (alg == HM_COSE_EDDSA) {
        head(o, 5, 4);
        num(o, 1);
        num(o, 1);
        num(o, 3);
        num(o, alg);
        num(o, -1);
        num(o, 6);
        num(o, -2);
        n = 32;
        EVP_PKEY_get_raw_public_key(key, raw, &n);
        bytes(o, raw, n);

    } else {
        head(o, 5, 4);
        num(o, 1);
        num(o, 3);
        num(o, 3);
        num(o, alg);
        num(o, -1);
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &bn);
        BN_bn2binpad(bn, raw, 256);
        bytes(o, raw, 256);
        num(o, -2);
        bytes(o, "\x01\x00\x01", 3);
    }

    BN_free(bn);
}


static void
auth_data(out_t *o, const char *id, unsigned flags, uint32_t count)
{
    unsigned char  raw[37];

    assert_int_equal(hm_sha256(raw, id, strlen(id)), HM_OK);
    raw[32] = (unsigned char) flags;
    raw[33] = (unsigned char) (count >> 24);
    raw[34] = (unsigned char) (count >> 16);
    raw[35] = (unsigned char) (count >> 8);
    raw[36] = (unsigned char) count;
    put(o, raw, 37);
}


/* the credential's part of authData, behind its head */
static void
attested(out_t *o, EVP_PKEY *key, int alg)
{
    put(o, "AAGUID..16.bytes", 16);
    put(o, "\x00\x20", 2);
    put(o, "a credential id of 32 bytes.....", 32);
    cose(o, key, alg);
}


static void
object(out_t *o, const char *fmt, const out_t *data)
{
    head(o, 5, 3);
    text(o, "fmt");
    text(o, fmt);
    text(o, "attStmt");
    head(o, 5, 0);
    text(o, "authData");
    bytes(o, data->b, data->n);
}


static EVP_PKEY *
new_key(int alg)
{
    return alg == HM_COSE_ES256 ? EVP_EC_gen("P-256")
           : alg == HM_COSE_EDDSA
             ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
             : EVP_RSA_gen(2048);
}


static size_t
sign(EVP_PKEY *key, int alg, const out_t *data, const char *client,
    unsigned char *sig, size_t len)
{
    out_t           o;
    EVP_MD_CTX     *ctx;
    unsigned char   hash[32];

    o.n = 0;
    hm_sha256(hash, client, strlen(client));
    put(&o, data->b, data->n);
    put(&o, hash, 32);

    ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, alg == HM_COSE_EDDSA
                                        ? NULL : EVP_sha256(), NULL, key),
                     1);
    assert_int_equal(EVP_DigestSign(ctx, sig, &len, o.b, o.n), 1);
    EVP_MD_CTX_free(ctx);

    return len;
}


static const int  algs[] = { HM_COSE_ES256, HM_COSE_EDDSA, HM_COSE_RS256 };

static const char  client[] = "{\"type\":\"webauthn.get\",\"challenge\":"
    "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
    "\"https://health.example.org\",\"crossOrigin\":false}";


static void
test_round(void **state)
{
    int                 a;
    out_t               data, obj, login;
    size_t              i;
    EVP_PKEY           *key;
    unsigned char       sig[512];
    hm_webauthn_new_t   cred;
    hm_webauthn_use_t   use;

    for (a = 0; a < 3; a++) {
        key = new_key(algs[a]);
        data.n = obj.n = login.n = 0;
        auth_data(&data, RP, 0x45, 7);
        attested(&data, key, algs[a]);
        object(&obj, "none", &data);

        assert_int_equal(hm_webauthn_new(&rp, str(&obj), &cred), HM_OK);
        assert_int_equal(cred.alg, algs[a]);
        assert_int_equal(cred.count, 7);
        assert_int_equal(cred.id.len, 32);
        assert_memory_equal(cred.aaguid, "AAGUID..16.bytes", 16);
        assert_int_equal(hm_cose_key(cred.key), algs[a]);

        auth_data(&login, RP, 0x05, 8);
        memset(&use, 0, sizeof(use));
        use.data = str(&login);
        use.client.data = (unsigned char *) client;
        use.client.len = strlen(client);
        use.key = cred.key;
        use.sig.data = sig;
        use.sig.len = sign(key, algs[a], &login, client, sig, sizeof(sig));

        assert_int_equal(hm_webauthn_use(&rp, &use), HM_OK);
        assert_int_equal(use.count, 8);

        /* one bit anywhere, and it is not signed for */

        for (i = 0; i < use.sig.len; i++) {
            sig[i] ^= 0x10;
            assert_int_not_equal(hm_webauthn_use(&rp, &use), HM_OK);
            sig[i] ^= 0x10;
        }

        for (i = 0; i < login.n; i++) {
            login.b[i] ^= 0x02;
            assert_int_not_equal(hm_webauthn_use(&rp, &use), HM_OK);
            login.b[i] ^= 0x02;
        }

        for (i = 0; i < cred.key.len; i++) {
            cred.key.data[i] ^= 0x01;
            assert_int_not_equal(hm_webauthn_use(&rp, &use), HM_OK);
            cred.key.data[i] ^= 0x01;
        }

        use.client.len--;
        assert_int_not_equal(hm_webauthn_use(&rp, &use), HM_OK);
        use.client.len++;
        use.sig.len--;
        assert_int_not_equal(hm_webauthn_use(&rp, &use), HM_OK);
        use.sig.len = 0;
        assert_int_not_equal(hm_webauthn_use(&rp, &use), HM_OK);

        EVP_PKEY_free(key);
    }
}


static void
test_flags(void **state)
{
    out_t               login;
    size_t              i;
    EVP_PKEY           *key;
    out_t               k;
    unsigned char       sig[512];
    hm_webauthn_use_t   use;

    /* not present, not verified, backed up though it cannot be, with AT,
       with ED and nothing there */

    static const unsigned char  bad[] = { 0x00, 0x01, 0x04, 0x15, 0x45,
                                          0x85 };

    key = new_key(HM_COSE_ES256);
    k.n = 0;
    cose(&k, key, HM_COSE_ES256);

    for (i = 0; i < sizeof(bad); i++) {
        login.n = 0;
        auth_data(&login, RP, bad[i], 1);
        memset(&use, 0, sizeof(use));
        use.data = str(&login);
        use.client.data = (unsigned char *) client;
        use.client.len = strlen(client);
        use.key = str(&k);
        use.sig.data = sig;
        use.sig.len = sign(key, HM_COSE_ES256, &login, client, sig,
                           sizeof(sig));
        assert_int_equal(hm_webauthn_use(&rp, &use), HM_DECLINED);
    }

    /* a synced key, and extensions, are fine; bytes behind them are not */

    for (i = 0; i < 3; i++) {
        login.n = 0;
        auth_data(&login, RP, i == 0 ? 0x1d : 0x85, 1);

        if (i > 0) {
            head(&login, 5, 1);
            text(&login, "uvm");
            head(&login, 4, 1);
            num(&login, 2);
        }

        if (i > 1) {
            num(&login, 0);
        }

        use.data = str(&login);
        use.sig.len = sign(key, HM_COSE_ES256, &login, client, sig,
                           sizeof(sig));
        assert_int_equal(hm_webauthn_use(&rp, &use),
                         i < 2 ? HM_OK : HM_DECLINED);
    }

    /* another site's */

    login.n = 0;
    auth_data(&login, "evil.example.org", 0x05, 1);
    use.data = str(&login);
    use.sig.len = sign(key, HM_COSE_ES256, &login, client, sig, sizeof(sig));
    assert_int_equal(hm_webauthn_use(&rp, &use), HM_DECLINED);

    EVP_PKEY_free(key);
}


/* Each byte spoilt, each end cut off: never a credential with another key. */
static void
test_spoilt(void **state)
{
    int                 a;
    out_t               data, obj;
    size_t              i, n, len;
    EVP_PKEY           *key;
    unsigned char      *copy;
    hm_webauthn_new_t   cred, got;

    for (a = 0; a < 3; a++) {
        key = new_key(algs[a]);
        data.n = obj.n = 0;
        auth_data(&data, RP, 0x45, 7);
        attested(&data, key, algs[a]);
        object(&obj, "packed", &data);
        assert_int_equal(hm_webauthn_new(&rp, str(&obj), &cred), HM_OK);
        len = obj.n;

        for (i = 0; i < len; i++) {
            for (n = 0; n < 8; n++) {
                obj.b[i] ^= (unsigned char) (1u << n);

                if (hm_webauthn_new(&rp, str(&obj), &got) == HM_OK) {
                    assert_int_equal(got.alg, algs[a]);
                    assert_int_equal(got.key.len, cred.key.len);
                }

                obj.b[i] ^= (unsigned char) (1u << n);
            }

            /* the end of the heap is the end of the text */

            copy = malloc(i + 1);
            memcpy(copy, obj.b, i);
            assert_int_equal(hm_webauthn_new(&rp, (hm_str_t) { i, copy },
                                             &got), HM_DECLINED);
            free(copy);
        }

        obj.b[obj.n++] = 0;
        assert_int_equal(hm_webauthn_new(&rp, str(&obj), &got), HM_DECLINED);
        EVP_PKEY_free(key);
    }
}


static void
test_not_keys(void **state)
{
    out_t      k;
    size_t     x;
    EVP_PKEY  *key;

    key = new_key(HM_COSE_ES256);
    k.n = 0;
    cose(&k, key, HM_COSE_ES256);
    assert_int_equal(hm_cose_key(str(&k)), HM_COSE_ES256);

    x = 10;                              /* the first byte of x */
    assert_memory_equal(k.b + 7, "\x21\x58\x20", 3);

    /* not a point of the curve, and the point at infinity */

    k.b[x] ^= 1;
    assert_int_equal(hm_cose_key(str(&k)), 0);
    memset(k.b + x, 0, 32);
    memset(k.b + x + 35, 0, 32);
    assert_int_equal(hm_cose_key(str(&k)), 0);
    EVP_PKEY_free(key);

    /* a number in more bytes than it needs, a member twice */

    key = new_key(HM_COSE_EDDSA);
    k.n = 0;
    head(&k, 5, 4);
    put(&k, "\x18\x01\x01\x03\x27\x20\x06\x21", 8);
    bytes(&k, "01234567890123456789012345678901", 32);
    assert_int_equal(hm_cose_key(str(&k)), 0);

    k.n = 0;
    head(&k, 5, 5);
    put(&k, "\x01\x01\x03\x27\x03\x27\x20\x06\x21", 9);
    bytes(&k, "01234567890123456789012345678901", 32);
    assert_int_equal(hm_cose_key(str(&k)), 0);

    /* indefinite length */

    k.n = 0;
    put(&k, "\xbf\x01\x01\x03\x27\x20\x06\x21", 8);
    bytes(&k, "01234567890123456789012345678901", 32);
    put(&k, "\xff", 1);
    assert_int_equal(hm_cose_key(str(&k)), 0);
    EVP_PKEY_free(key);

    /* RSA of 2048 zero bits, then an even modulus, then e = 1 */

    key = new_key(HM_COSE_RS256);
    k.n = 0;
    cose(&k, key, HM_COSE_RS256);
    assert_int_equal(hm_cose_key(str(&k)), HM_COSE_RS256);
    k.b[k.n - 2] = 0;
    k.b[k.n - 3] = 0;
    assert_int_equal(hm_cose_key(str(&k)), 0);
    EVP_PKEY_free(key);

    assert_int_equal(hm_cose_key((hm_str_t) { 0, k.b }), 0);
}


static void
test_client(void **state)
{
    size_t         i;
    unsigned char  c[32];

    static const struct {
        hm_rc_t      rc;
        const char  *json;
    } cases[] = {
        { HM_OK, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFBgcICQ"
          "oLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"https://health.example.org\"}" },
        { HM_OK, "{\"other\":{\"a\":[1]},\"type\":\"webauthn.get\","
          "\"challenge\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\","
          "\"origin\":\"https://localhost:8443\",\"crossOrigin\":false}" },

        /* another type, origin, port, scheme; framed; a short challenge; a
           second spelling of it; a name twice */

        { HM_DECLINED, "{\"type\":\"webauthn.create\",\"challenge\":\"AAECAw"
          "QFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"https://health.example.org\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"https://health.example.org.evil.org\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"https://localhost\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"http://health.example.org\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"https://health.example.org\",\"crossOrigin\":true}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"origin\":"
          "\"https://health.example.org\",\"topOrigin\":\"https://evil\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh\",\"origin\":"
          "\"https://health.example.org\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"challenge\":\"AAECAwQFB"
          "gcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9\",\"origin\":"
          "\"https://health.example.org\"}" },
        { HM_DECLINED, "{\"type\":\"webauthn.get\",\"type\":"
          "\"webauthn.get\",\"challenge\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRY"
          "XGBkaGxwdHh8\",\"origin\":\"https://health.example.org\"}" },
        { HM_DECLINED, "{\"type\":1,\"challenge\":2,\"origin\":3}" },
        { HM_DECLINED, "[]" }, { HM_DECLINED, "" }, { HM_DECLINED, "{" }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(c, 0xff, sizeof(c));
        assert_int_equal(hm_webauthn_client(&rp, "webauthn.get",
                             (hm_str_t) { strlen(cases[i].json),
                             (unsigned char *) cases[i].json }, c),
                         cases[i].rc);
        assert_int_equal(c[0], cases[i].rc == HM_OK ? 0 : 0xff);
        assert_int_equal(c[31], cases[i].rc == HM_OK ? 31 : 0xff);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_spoilt),
        cmocka_unit_test(test_not_keys),
        cmocka_unit_test(test_client)
    };

    (void) hm_crypto_init();

    return cmocka_run_group_tests_name("webauthn", tests, NULL, NULL);
}
