/*
 * The keys of tokens: what a file may hold, ES256 and EdDSA against libjwt,
 * OpenSSL and the vectors of RFC 7515 and RFC 8037, signatures outside their
 * range, one algorithm passed off as another, and the public key set.  Key
 * pairs are made anew in every run.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include <jwt.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "hm_crypto.h"
#include "hm_jwt.h"
#include "hm_text.h"
#include "hm_uuid.h"


#define NOW    1767225600LL
#define SUB    "0195f0c2-0000-7000-8000-000000000001"
#define SID    "0195f0c2-0000-7000-8000-000000000002"
#define JTI    "0195f0c2-0000-7000-8000-000000000003"

#define BODY                                                                  \
    "{\"iss\":\"healthmate\",\"aud\":\"healthmate-api\",\"sub\":\"" SUB "\","  \
    "\"role\":\"patient\",\"sid\":\"" SID "\",\"jti\":\"" JTI "\","           \
    "\"typ\":\"access\",\"iat\":1767225600,\"nbf\":1767225600,"               \
    "\"exp\":1767227400,\"auth_time\":1767225600,\"amr\":[\"pwd\"]}"


static char            reason[HM_JWT_REASON];
static hm_str_t        pem_es, pem_ed, pub_es, pub_ed;
static hm_jwt_key_t    ring[3];          /* es, ed, hs */
static hm_jwt_conf_t   conf;


static void *
heap(void *ctx, size_t size)
{
    return malloc(size);
}


static hm_mem_t  mem = { heap, NULL };


static hm_str_t
str(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static hm_str_t
bio_text(BIO *bio)
{
    char      *p;
    hm_str_t   s;

    s.len = (size_t) BIO_get_mem_data(bio, &p);
    s.data = malloc(s.len + 1);
    assert_non_null(s.data);
    memcpy(s.data, p, s.len);
    s.data[s.len] = '\0';
    BIO_free(bio);

    return s;
}


static hm_str_t
pem_of(EVP_PKEY *pkey, int public)
{
    BIO  *bio;

    bio = BIO_new(BIO_s_mem());

    assert_int_equal(public ? PEM_write_bio_PUBKEY(bio, pkey)
                     : PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0,
                                                NULL, NULL), 1);
    return bio_text(bio);
}


static int
setup(void **state)
{
    size_t    i;
    EVP_PKEY  *es, *ed;

    es = EVP_EC_gen("P-256");
    ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    if (hm_crypto_init() != HM_OK || es == NULL || ed == NULL) {
        return -1;
    }

    pem_es = pem_of(es, 0);
    pub_es = pem_of(es, 1);
    pem_ed = pem_of(ed, 0);
    pub_ed = pem_of(ed, 1);

    EVP_PKEY_free(es);
    EVP_PKEY_free(ed);

    if (hm_jwt_key_load(&ring[0], str("es"), pem_es, reason) != HM_OK
        || hm_jwt_key_load(&ring[1], str("ed"), pem_ed, reason) != HM_OK)
    {
        return -1;
    }

    strcpy(ring[2].kid, "hs");
    for (i = 0; i < 32; i++) {
        ring[2].secret[i] = (unsigned char) i;
    }
    ring[2].secret_len = 32;

    conf.keys = ring;
    conf.nkeys = 3;
    conf.issuer = HM_STR("healthmate");
    conf.audience = HM_STR("healthmate-api");

    return 0;
}


static int
teardown(void **state)
{
    hm_jwt_key_free(&ring[0]);
    hm_jwt_key_free(&ring[1]);

    /* nothing may be left for a TLS connection to find */
    assert_int_equal(ERR_peek_error(), 0);

    return 0;
}


/* {"alg":alg,"typ":"JWT","kid":kid} . BODY, without its signature */

static hm_str_t
unsigned_of(const char *alg, const char *kid)
{
    int       n;
    char      head[128], *p;
    hm_str_t  t;

    n = snprintf(head, sizeof(head),
                 "{\"alg\":\"%s\",\"typ\":\"JWT\",\"kid\":\"%s\"}", alg, kid);

    t.data = malloc(4096);
    p = (char *) t.data;
    p += hm_b64url_encode(p, head, (size_t) n);
    *p++ = '.';
    p += hm_b64url_encode(p, BODY, strlen(BODY));
    t.len = (size_t) (p - (char *) t.data);

    return t;
}


static hm_str_t
with(hm_str_t t, const unsigned char *sig, size_t len)
{
    t.data[t.len++] = '.';
    t.len += hm_b64url_encode((char *) t.data + t.len, sig, len);
    t.data[t.len] = '\0';

    return t;
}


static hm_jwt_rc_t
verify(hm_str_t token)
{
    hm_claims_t  c;

    return hm_jwt_verify(&conf, token, "access", NOW, &c);
}


static void
refuse_file(const char *why, hm_str_t file)
{
    hm_jwt_key_t  key;

    reason[0] = '\0';

    if (hm_jwt_key_load(&key, str("k"), file, reason) != HM_DECLINED) {
        fail_msg("taken: %s", why);
    }

    assert_true(reason[0] != '\0');
    assert_null(key.pkey);
    assert_int_equal(ERR_peek_error(), 0);
}


static hm_str_t
joined(hm_str_t a, hm_str_t b)
{
    hm_str_t  s;

    s.len = a.len + b.len;
    s.data = malloc(s.len);
    memcpy(s.data, a.data, a.len);
    memcpy(s.data + a.len, b.data, b.len);

    return s;
}


static void
test_files(void **state)
{
    BIO            *bio;
    size_t          i;
    EVP_PKEY       *pkey;
    hm_str_t        s;
    hm_jwt_key_t    key;

    static const char *const  params =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
        "-----END EC PARAMETERS-----\n";

    assert_int_equal(ring[0].alg, HM_JWT_ES256);
    assert_int_equal(ring[1].alg, HM_JWT_EDDSA);
    assert_false(ring[0].verify_only);

    assert_int_equal(hm_jwt_key_load(&key, str("k"), pub_es, reason), HM_OK);
    assert_int_equal(key.alg, HM_JWT_ES256);
    assert_true(key.verify_only);
    hm_jwt_key_free(&key);

    assert_int_equal(hm_jwt_key_load(&key, str("k"), pub_ed, reason), HM_OK);
    assert_int_equal(key.alg, HM_JWT_EDDSA);
    assert_true(key.verify_only);
    hm_jwt_key_free(&key);

    /* the older form, with and without its parameters in front */

    bio = BIO_new_mem_buf(pem_es.data, (int) pem_es.len);
    pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL,
                                                NULL, 0, NULL, NULL), 1);
    s = bio_text(bio);
    assert_int_equal(hm_jwt_key_load(&key, str("k"), s, reason), HM_OK);
    hm_jwt_key_free(&key);
    s = joined(str(params), s);
    assert_int_equal(hm_jwt_key_load(&key, str("k"), s, reason), HM_OK);
    assert_int_equal(key.alg, HM_JWT_ES256);
    hm_jwt_key_free(&key);
    EVP_PKEY_free(pkey);
    ERR_clear_error();

    /* a secret: any bytes from 32 to 256 */

    s.data = malloc(300);
    for (i = 0; i < 300; i++) {
        s.data[i] = (unsigned char) (200 + i * 7);
    }

    for (i = 0; i <= 300; i++) {
        s.len = i;

        if (i < 32 || i > 256) {
            refuse_file("a secret of the wrong size", s);
            continue;
        }

        assert_int_equal(hm_jwt_key_load(&key, str("k"), s, reason), HM_OK);
        assert_int_equal(key.alg, HM_JWT_HS256);
        assert_int_equal(key.secret_len, i);
        hm_jwt_key_free(&key);
    }
}


static void
refuse_pkey(const char *why, EVP_PKEY *pkey)
{
    assert_non_null(pkey);
    refuse_file(why, pem_of(pkey, 0));
    refuse_file(why, pem_of(pkey, 1));
    EVP_PKEY_free(pkey);
}


static void
test_files_refused(void **state)
{
    BIO            *bio;
    EVP_PKEY       *pkey;
    hm_str_t        s;
    unsigned char  *der;

    refuse_pkey("RSA", EVP_RSA_gen(2048));
    refuse_pkey("P-384", EVP_EC_gen("P-384"));
    refuse_pkey("secp256k1", EVP_EC_gen("secp256k1"));
    refuse_pkey("X25519", EVP_PKEY_Q_keygen(NULL, NULL, "X25519"));
    refuse_pkey("Ed448", EVP_PKEY_Q_keygen(NULL, NULL, "ED448"));

    refuse_file("two keys", joined(pem_es, pem_ed));
    refuse_file("a key and its public part", joined(pem_es, pub_es));
    refuse_file("half a PEM", (hm_str_t) { pem_es.len / 2, pem_es.data });
    refuse_file("PEM of nothing", str("-----BEGIN PRIVATE KEY-----\nAAAA\n"
                                      "-----END PRIVATE KEY-----\n"));
    refuse_file("a certificate's frame",
                str("-----BEGIN CERTIFICATE-----\nAAAA\n"
                    "-----END CERTIFICATE-----\n"));
    refuse_file("a JWK", str("{\"kty\":\"oct\",\"k\":\"AAAAAAAAAAAAAAAAAAA"
                             "AAAAAAAAAAAAAAAAAAAAAAAAAA\"}"));

    /* behind a password, and as DER */

    bio = BIO_new_mem_buf(pem_es.data, (int) pem_es.len);
    pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);

    bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey,
                         EVP_aes_256_cbc(), "secret", 6, NULL, NULL), 1);
    refuse_file("a password", bio_text(bio));

    der = NULL;
    s.len = (size_t) i2d_PUBKEY(pkey, &der);
    s.data = der;
    refuse_file("DER, public", s);

    der = NULL;
    s.len = (size_t) i2d_PrivateKey(pkey, &der);
    s.data = der;
    refuse_file("DER, private", s);
    EVP_PKEY_free(pkey);
}


static void
test_kids(void **state)
{
    size_t         i;
    hm_jwt_key_t   key;

    static const char *const  bad[] = {
        "", "a b", "a/b", "../k", "k\"", "k\\", "k\n",
        "\xc3\xa4", "123456789012345678901234567890123"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(hm_jwt_key_load(&key, str(bad[i]), pem_es, reason),
                         HM_DECLINED);
    }

    assert_int_equal(hm_jwt_key_load(&key,
                                     str("2026-11.A_b-90123456789012345678"),
                                     pem_es, reason), HM_OK);
    hm_jwt_key_free(&key);
}


static hm_claims_t
claims_of(void)
{
    hm_claims_t  c;

    memset(&c, 0, sizeof(c));
    assert_int_equal(hm_uuid_parse(&c.sub, str(SUB)), HM_OK);
    assert_int_equal(hm_uuid_parse(&c.sid, str(SID)), HM_OK);
    assert_int_equal(hm_uuid_parse(&c.jti, str(JTI)), HM_OK);
    c.role = HM_ROLE_DOCTOR;
    c.iat = c.nbf = c.auth_time = NOW;
    c.exp = NOW + 1800;
    c.amr = HM_AMR_PWD | HM_AMR_OTP;
    c.has_fgp = true;
    memset(c.fgp, 7, sizeof(c.fgp));
    strcpy(c.typ, "access");

    return c;
}


/* Each key signs, and the ring takes it; without the key it does not. */

static void
test_round(void **state)
{
    size_t          i;
    hm_str_t        t;
    hm_claims_t     in, out;
    hm_jwt_key_t    public;
    hm_jwt_conf_t   one, none;

    in = claims_of();
    none = conf;
    none.nkeys = 0;

    for (i = 0; i < 3; i++) {
        one = conf;
        one.keys = &ring[i];
        one.nkeys = 1;

        assert_int_equal(hm_jwt_sign(&one, &mem, &in, &t), HM_OK);
        assert_int_equal(hm_jwt_verify(&conf, t, "access", NOW, &out),
                         HM_JWT_OK);
        assert_memory_equal(&in, &out, sizeof(in));
        assert_int_equal(hm_jwt_verify(&none, t, "access", NOW, &out),
                         HM_JWT_INVALID);

        /* the name of the key, and another key behind it */

        one.keys = &ring[(i + 1) % 3];
        assert_int_equal(hm_jwt_verify(&one, t, "access", NOW, &out),
                         HM_JWT_INVALID);
    }

    /* the public part verifies and does not sign */

    assert_int_equal(hm_jwt_key_load(&public, str("es"), pub_es, reason),
                     HM_OK);
    one.keys = &ring[0];
    assert_int_equal(hm_jwt_sign(&one, &mem, &in, &t), HM_OK);
    one.keys = &public;
    assert_int_equal(hm_jwt_verify(&one, t, "access", NOW, &out), HM_JWT_OK);
    assert_int_equal(hm_jwt_sign(&one, &mem, &in, &t), HM_ERROR);
    hm_jwt_key_free(&public);
}


/* libjwt takes ours and we take libjwt's; it has ES256 and no EdDSA. */

static void
test_libjwt(void **state)
{
    char          *text;
    jwt_t         *jwt;
    size_t         i;
    hm_str_t       t;
    hm_claims_t    in;

    in = claims_of();

    for (i = 0; i < 50; i++) {
        assert_int_equal(hm_jwt_sign(&conf, &mem, &in, &t), HM_OK);
        text = strndup((char *) t.data, t.len);

        assert_int_equal(jwt_decode(&jwt, text, pub_es.data,
                                    (int) pub_es.len), 0);
        assert_int_equal(jwt_get_alg(jwt), JWT_ALG_ES256);
        assert_string_equal(jwt_get_header(jwt, "kid"), "es");
        assert_string_equal(jwt_get_grant(jwt, "sub"), SUB);
        jwt_free(jwt);
        free(text);

        assert_int_equal(jwt_new(&jwt), 0);
        assert_int_equal(jwt_add_grants_json(jwt, BODY), 0);
        assert_int_equal(jwt_add_header(jwt, "kid", "es"), 0);
        assert_int_equal(jwt_set_alg(jwt, JWT_ALG_ES256, pem_es.data,
                                     (int) pem_es.len), 0);
        text = jwt_encode_str(jwt);
        assert_non_null(text);
        assert_int_equal(verify(str(text)), HM_JWT_OK);

        /* one bit of it, and it is nobody's */

        text[strlen(text) - 20] ^= 1;
        assert_int_equal(verify(str(text)), HM_JWT_INVALID);
        free(text);
        jwt_free(jwt);
    }

    ERR_clear_error();                   /* libjwt's */
}


static void
decode(unsigned char *out, const char *text, size_t want)
{
    size_t  len;

    assert_int_equal(hm_b64url_decode(out, &len, str(text)), HM_OK);
    assert_int_equal(len, want);
}


static void
test_vectors(void **state)
{
    EVP_PKEY       *pkey;
    hm_str_t        s;
    hm_jwt_key_t    key;
    unsigned char   raw[80], sig[80], der[91];

    static const char  ed[] = "eyJhbGciOiJFZERTQSJ9."
                              "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    static const char  es[] =
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAs"
        "DQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    static const unsigned char  spki[] = {
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
        0x07, 0x03, 0x42, 0x00, 0x04
    };
    const unsigned char  *p;

    /* RFC 8037, A.1 and A.4: Ed25519 signs the same every time */

    decode(raw, "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", 32);
    pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw, 32);
    assert_int_equal(hm_jwt_key_load(&key, str("k"), pem_of(pkey, 0),
                                     reason), HM_OK);
    EVP_PKEY_free(pkey);
    decode(raw, "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylG"
                "jg5BhVsPt9g7sVvpAr_MuM0KAg", 64);
    assert_int_equal(hm_jwt_key_sign(&key, str(ed), sig), HM_OK);
    assert_memory_equal(raw, sig, 64);
    assert_int_equal(hm_jwt_key_verify(&key, str(ed), sig, 64), HM_OK);
    hm_jwt_key_free(&key);

    /* RFC 7515, A.3 */

    memcpy(der, spki, 27);
    decode(raw, "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", 32);
    memcpy(der + 27, raw, 32);
    decode(raw, "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", 32);
    memcpy(der + 59, raw, 32);
    p = der;
    pkey = d2i_PUBKEY(NULL, &p, sizeof(der));
    assert_non_null(pkey);
    s = pem_of(pkey, 1);
    EVP_PKEY_free(pkey);
    assert_int_equal(hm_jwt_key_load(&key, str("k"), s, reason), HM_OK);
    decode(raw, "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8I"
                "SlSApmWQxfKTUJqPP3-Kg6NU1Q", 64);
    assert_int_equal(hm_jwt_key_verify(&key, str(es), raw, 64), HM_OK);
    raw[40] ^= 1;
    assert_int_equal(hm_jwt_key_verify(&key, str(es), raw, 64), HM_DECLINED);
    hm_jwt_key_free(&key);
}


static void
add_be(unsigned char *a, const unsigned char *b)
{
    int       i;
    unsigned  c;

    for (i = 31, c = 0; i >= 0; i--) {
        c += a[i] + b[i];
        a[i] = (unsigned char) c;
        c >>= 8;
    }
}


/* What is no signature of anybody: refused before the curve is asked. */

static void
test_ranges(void **state)
{
    size_t          i, k;
    hm_str_t        t;
    unsigned char   sig[64], s[64];

    static const unsigned char  n[32] = {
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
        0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51
    };
    static const unsigned char  l[32] = {
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,
        0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10
    };

    t = unsigned_of("ES256", "es");
    assert_int_equal(hm_jwt_key_sign(&ring[0], t, sig), HM_OK);
    assert_int_equal(verify(with(t, sig, 64)), HM_JWT_OK);

    for (k = 0; k < 2; k++) {            /* r, s */
        for (i = 0; i < 4; i++) {
            memcpy(s, sig, 64);

            switch (i) {
            case 0: memset(s + 32 * k, 0, 32); break;
            case 1: memcpy(s + 32 * k, n, 32); break;
            case 2: memset(s + 32 * k, 0xff, 32); break;
            default: memset(s, 0, 64); break;
            }

            t = unsigned_of("ES256", "es");
            assert_int_equal(verify(with(t, s, 64)), HM_JWT_INVALID);
        }
    }

    for (i = 0; i < 64; i++) {           /* too short; 65 below */
        t = unsigned_of("ES256", "es");
        assert_int_equal(verify(with(t, sig, i)), HM_JWT_INVALID);
    }

    /* EdDSA: S and S + l are the same to a careless verifier */

    t = unsigned_of("EdDSA", "ed");
    assert_int_equal(hm_jwt_key_sign(&ring[1], t, sig), HM_OK);
    assert_int_equal(verify(with(t, sig, 64)), HM_JWT_OK);

    for (i = 0; i < 32; i++) {
        s[i] = sig[63 - i];
    }

    for (i = 0; i < 32; i++) {
        s[32 + i] = l[31 - i];
    }

    add_be(s, s + 32);

    for (i = 0; i < 32; i++) {
        s[63 - i] = s[i];
    }

    memcpy(s, sig, 32);
    t = unsigned_of("EdDSA", "ed");
    assert_int_equal(verify(with(t, s, 64)), HM_JWT_INVALID);

    for (i = 5; i < 8; i++) {            /* the high bits */
        memcpy(s, sig, 64);
        s[63] |= (unsigned char) (1 << i);
        t = unsigned_of("EdDSA", "ed");
        assert_int_equal(verify(with(t, s, 64)), HM_JWT_INVALID);
    }

    memset(s, 0, 64);
    s[0] = 1;                            /* R the neutral element, S = 0 */
    t = unsigned_of("EdDSA", "ed");
    assert_int_equal(verify(with(t, s, 64)), HM_JWT_INVALID);

    /* one byte more */

    memset(s, 0, 64);
    t = unsigned_of("EdDSA", "ed");
    t = with(t, sig, 64);
    memcpy(t.data + t.len, "AA", 2);
    t.len += 2;
    assert_int_equal(verify(t), HM_JWT_INVALID);
}


/* One algorithm in the clothes of another. */

static void
test_confusion(void **state)
{
    size_t          i, k, n;
    hm_str_t        t, keys[4];
    unsigned char   sig[64], mac[32];

    static const char *const  kids[] = { "es", "ed", "hs" };
    static const char *const  algs[] = {
        "HS256", "ES256", "EdDSA", "ES256K", "ES384", "Ed25519", "eddsa",
        "RS256", "PS256", "none", ""
    };

    keys[0] = pub_es;
    keys[1] = pub_ed;
    keys[2] = pem_es;
    keys[3] = (hm_str_t) { 32, ring[2].secret };

    /* a MAC under a public key, by each name, to each kid */

    for (i = 0; i < 4; i++) {
        for (k = 0; k < 3; k++) {
            for (n = 0; n < sizeof(algs) / sizeof(algs[0]); n++) {
                t = unsigned_of(algs[n], kids[k]);
                assert_int_equal(hm_hmac(mac, keys[i].data, keys[i].len,
                                         t.data, t.len), HM_OK);
                assert_int_equal(verify(with(t, mac, 32)),
                                 i == 3 && k == 2 && n == 0
                                 ? HM_JWT_OK : HM_JWT_INVALID);
            }
        }
    }

    /* a right signature, under another name or kid */

    for (i = 0; i < 2; i++) {
        for (k = 0; k < 3; k++) {
            for (n = 0; n < sizeof(algs) / sizeof(algs[0]); n++) {
                t = unsigned_of(algs[n], kids[k]);
                assert_int_equal(hm_jwt_key_sign(&ring[i], t, sig), HM_OK);
                assert_int_equal(verify(with(t, sig, 64)),
                                 i == k && n == i + 1
                                 ? HM_JWT_OK : HM_JWT_INVALID);
            }
        }
    }

    /* DER instead of r | s */

    t = unsigned_of("ES256", "es");
    t.data[t.len++] = '.';
    memcpy(t.data + t.len, "MEUCIQDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 44);
    t.len += 44;
    assert_int_equal(verify(t), HM_JWT_INVALID);
}


static void
test_jwks(void **state)
{
    size_t          i;
    json_t         *doc, *keys, *k;
    hm_buf_t        b;
    const char     *name;
    json_t         *v;
    hm_jwt_conf_t   one;

    hm_buf_init(&b, &mem, 64);
    assert_int_equal(hm_jwt_jwks(&conf, &b), HM_OK);

    doc = json_loadb((char *) b.start, hm_buf_len(&b), 0, NULL);
    keys = json_object_get(doc, "keys");
    assert_int_equal(json_array_size(keys), 2);

    k = json_array_get(keys, 0);
    assert_string_equal(json_string_value(json_object_get(k, "kty")), "EC");
    assert_string_equal(json_string_value(json_object_get(k, "alg")),
                        "ES256");
    assert_string_equal(json_string_value(json_object_get(k, "kid")), "es");
    assert_int_equal(json_string_length(json_object_get(k, "x")), 43);
    assert_int_equal(json_string_length(json_object_get(k, "y")), 43);

    k = json_array_get(keys, 1);
    assert_string_equal(json_string_value(json_object_get(k, "crv")),
                        "Ed25519");

    /* nothing but public members, ever */

    json_array_foreach(keys, i, k) {
        json_object_foreach(k, name, v) {
            assert_non_null(strstr("|kty|crv|use|alg|kid|x|y|", name));
        }
    }

    json_decref(doc);

    one = conf;
    one.keys = &ring[2];
    one.nkeys = 1;
    hm_buf_init(&b, &mem, 64);
    assert_int_equal(hm_jwt_jwks(&one, &b), HM_DECLINED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_files_refused),
        cmocka_unit_test(test_kids),
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_libjwt),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_confusion),
        cmocka_unit_test(test_jwks)
    };

    return cmocka_run_group_tests_name("jwt_keys", tests, setup, teardown);
}
