/*
 * hm_jwt_key: the keys tokens are signed and verified with.
 *
 * DESIGN
 *
 * A key has one algorithm, and the key alone decides which: a PEM file of an
 * EC key on P-256 is ES256, one of an Ed25519 key is EdDSA, and any other
 * file is the secret of HS256.  A token's header can agree with that or be
 * refused, so no header turns a public key into a MAC key.  That would need
 * a secret which is also a key file: bytes that are PEM, DER or a JWK are
 * therefore never taken as a secret.
 *
 * What a signature may look like is said here before OpenSSL sees it, since
 * versions differ in what they let pass: 64 bytes; ES256: r and s from 1 to
 * n - 1; EdDSA: S below the group's order, which also keeps its three high
 * bits at 0 (RFC 8032, 5.1.7).  A high s of ES256 is allowed, as RFC 7518
 * has it: (r, n - s) is a second spelling of a signature, and therefore no
 * list of ours ever names a token by its bytes, but by sid and jti.
 *
 * A public key is enough to verify: after a rotation the old private key can
 * be destroyed while its tokens live on.
 *
 * EVP_PKEYs are read by many threads at once and changed by none.  Whoever
 * fails leaves OpenSSL's error queue empty: what stays there would be taken
 * for a fault of some TLS connection.
 */

#include <stdio.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "hm_crypto.h"
#include "hm_jwt_key.h"
#include "hm_text.h"


#define HM_JWT_HALF   32                 /* r, s, x, y, a point of Ed25519 */


static bool hm_jwt_kid_valid(hm_str_t kid);
static hm_rc_t hm_jwt_key_pem(hm_jwt_key_t *key, hm_str_t file,
    char reason[HM_JWT_REASON]);
static EVP_PKEY *hm_jwt_pem_read(hm_str_t file, bool *private);
static bool hm_jwt_pem_single(hm_str_t file);
static int hm_jwt_no_password(char *buf, int size, int rw, void *data);
static hm_rc_t hm_jwt_key_kind(hm_jwt_key_t *key, char *reason);
static bool hm_jwt_is_key_file(hm_str_t file);
static hm_rc_t hm_jwt_no(char *reason, const char *text);
static hm_rc_t hm_jwt_sign_evp(const hm_jwt_key_t *key, hm_str_t text,
    unsigned char *sig, size_t *len);
static hm_rc_t hm_jwt_verify_evp(const hm_jwt_key_t *key, hm_str_t text,
    const unsigned char *sig, size_t len);
static bool hm_jwt_raw_of_der(unsigned char raw[HM_JWT_SIG_MAX],
    const unsigned char *der, size_t len);
static int hm_jwt_der_of_raw(unsigned char **der, const unsigned char *raw);
static bool hm_jwt_in_range(hm_jwt_alg_t alg, const unsigned char *sig);


static const struct {
    const char  *name;
    size_t       sig_len;
} hm_jwt_algs[] = {
    [HM_JWT_HS256] = { "HS256", 32 },
    [HM_JWT_ES256] = { "ES256", 64 },
    [HM_JWT_EDDSA] = { "EdDSA", 64 }
};


/* Orders of the groups, big end first. */

static const unsigned char  hm_p256_n[HM_JWT_HALF] = {
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
    0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51
};

static const unsigned char  hm_ed25519_l[HM_JWT_HALF] = {
    0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x14, 0xde, 0xf9, 0xde, 0xa2, 0xf7, 0x9c, 0xd6,
    0x58, 0x12, 0x63, 0x1a, 0x5c, 0xf5, 0xd3, 0xed
};

static const unsigned char  hm_zero[HM_JWT_HALF];


const char *
hm_jwt_alg_name(hm_jwt_alg_t alg)
{
    return hm_jwt_algs[alg].name;
}


size_t
hm_jwt_sig_len(hm_jwt_alg_t alg)
{
    return hm_jwt_algs[alg].sig_len;
}


hm_rc_t
hm_jwt_key_load(hm_jwt_key_t *key, hm_str_t kid, hm_str_t file,
    char reason[HM_JWT_REASON])
{
    hm_rc_t  rc;

    memset(key, 0, sizeof(hm_jwt_key_t));

    if (!hm_jwt_kid_valid(kid)) {
        return hm_jwt_no(reason, "a key id is 1..32 of A-Z a-z 0-9 . _ -");
    }

    memcpy(key->kid, kid.data, kid.len);

    if (memmem(file.data, file.len, "-----BEGIN ", 11) != NULL) {
        rc = hm_jwt_key_pem(key, file, reason);

        if (rc != HM_OK) {
            hm_jwt_key_free(key);
            ERR_clear_error();
        }

        return rc;
    }

    if (hm_jwt_is_key_file(file)) {
        return hm_jwt_no(reason, "this is a key in DER or JSON; give it as "
                                 "PEM");
    }

    if (file.len < HM_JWT_SECRET_MIN || file.len > HM_JWT_SECRET_MAX) {
        snprintf(reason, HM_JWT_REASON, "the secret has %zu bytes; %d to %d "
                 "are needed", file.len, HM_JWT_SECRET_MIN,
                 HM_JWT_SECRET_MAX);
        return HM_DECLINED;
    }

    key->alg = HM_JWT_HS256;
    key->secret_len = file.len;
    memcpy(key->secret, file.data, file.len);

    return HM_OK;
}


void
hm_jwt_key_free(hm_jwt_key_t *key)
{
    EVP_PKEY_free(key->pkey);
    hm_wipe(key, sizeof(hm_jwt_key_t));
}


/* It stands in JSON, in a header and in URLs as it is. */

static bool
hm_jwt_kid_valid(hm_str_t kid)
{
    size_t         i;
    unsigned char  c;

    if (kid.len == 0 || kid.len >= sizeof(((hm_jwt_key_t *) 0)->kid)) {
        return false;
    }

    for (i = 0; i < kid.len; i++) {
        c = kid.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
              || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
        {
            return false;
        }
    }

    return true;
}


static hm_rc_t
hm_jwt_key_pem(hm_jwt_key_t *key, hm_str_t file, char reason[HM_JWT_REASON])
{
    int            ok;
    bool           private;
    EVP_PKEY_CTX  *ctx;

    if (!hm_jwt_pem_single(file)) {
        return hm_jwt_no(reason, "there is more than one key in it");
    }

    key->pkey = hm_jwt_pem_read(file, &private);

    if (key->pkey == NULL) {
        return hm_jwt_no(reason, "this PEM holds no key, or one behind a "
                                 "password");
    }

    key->verify_only = !private;

    if (hm_jwt_key_kind(key, reason) != HM_OK) {
        return HM_DECLINED;
    }

    ctx = EVP_PKEY_CTX_new(key->pkey, NULL);
    if (ctx == NULL) {
        return hm_jwt_no(reason, "no memory");
    }

    ok = private ? EVP_PKEY_pairwise_check(ctx) : EVP_PKEY_public_check(ctx);

    EVP_PKEY_CTX_free(ctx);

    return ok == 1 ? HM_OK : hm_jwt_no(reason, "the key is damaged");
}


static EVP_PKEY *
hm_jwt_pem_read(hm_str_t file, bool *private)
{
    BIO       *bio;
    EVP_PKEY  *pkey;

    *private = memmem(file.data, file.len, "PUBLIC KEY-----", 15) == NULL;

    bio = BIO_new_mem_buf(file.data, (int) file.len);
    if (bio == NULL) {
        return NULL;
    }

    pkey = *private
           ? PEM_read_bio_PrivateKey(bio, NULL, hm_jwt_no_password, NULL)
           : PEM_read_bio_PUBKEY(bio, NULL, hm_jwt_no_password, NULL);

    BIO_free(bio);

    return pkey;
}


/* "openssl ecparam -genkey" puts the parameters in front of the key. */

static bool
hm_jwt_pem_single(hm_str_t file)
{
    size_t          n;
    unsigned char  *p, *end;

    end = file.data + file.len;
    n = 0;

    for (p = file.data; p < end; p += 11) {
        p = memmem(p, (size_t) (end - p), "-----BEGIN ", 11);

        if (p == NULL) {
            break;
        }

        if ((size_t) (end - p) < 24
            || memcmp(p + 11, "EC PARAMETERS", 13) != 0)
        {
            n++;
        }
    }

    return n == 1;
}


/* Nobody is there who could be asked. */

static int
hm_jwt_no_password(char *buf, int size, int rw, void *data)
{
    return -1;
}


static hm_rc_t
hm_jwt_key_kind(hm_jwt_key_t *key, char *reason)
{
    char  group[32];

    if (EVP_PKEY_is_a(key->pkey, "ED25519")) {
        key->alg = HM_JWT_EDDSA;
        return HM_OK;
    }

    if (EVP_PKEY_is_a(key->pkey, "EC")
        && EVP_PKEY_get_group_name(key->pkey, group, sizeof(group), NULL)
           == 1
        && strcmp(group, "prime256v1") == 0)
    {
        key->alg = HM_JWT_ES256;
        return HM_OK;
    }

    return hm_jwt_no(reason, "only EC keys on P-256 (ES256) and Ed25519 keys "
                             "(EdDSA) sign tokens");
}


/* Would some other program take these bytes for a key? */

static bool
hm_jwt_is_key_file(hm_str_t file)
{
    EVP_PKEY             *pkey;
    const unsigned char  *p;

    if (memmem(file.data, file.len, "\"kty\"", 5) != NULL) {
        return true;
    }

    p = file.data;
    pkey = d2i_PUBKEY(NULL, &p, (long) file.len);

    if (pkey == NULL) {
        p = file.data;
        pkey = d2i_AutoPrivateKey(NULL, &p, (long) file.len);
    }

    ERR_clear_error();

    if (pkey == NULL) {
        return false;
    }

    EVP_PKEY_free(pkey);

    return true;
}


static hm_rc_t
hm_jwt_no(char *reason, const char *text)
{
    snprintf(reason, HM_JWT_REASON, "%s", text);

    return HM_DECLINED;
}


hm_rc_t
hm_jwt_key_sign(const hm_jwt_key_t *key, hm_str_t text,
    unsigned char sig[HM_JWT_SIG_MAX])
{
    size_t         len;
    hm_rc_t        rc;
    unsigned char  der[80];

    if (key->alg == HM_JWT_HS256) {
        return hm_hmac(sig, key->secret, key->secret_len, text.data,
                       text.len);
    }

    if (key->pkey == NULL || key->verify_only) {
        return HM_ERROR;
    }

    len = sizeof(der);
    rc = hm_jwt_sign_evp(key, text, der, &len);

    if (rc != HM_OK) {
        ERR_clear_error();
        return rc;
    }

    if (key->alg == HM_JWT_EDDSA) {
        memcpy(sig, der, HM_JWT_SIG_MAX);
        return len == HM_JWT_SIG_MAX ? HM_OK : HM_ERROR;
    }

    return hm_jwt_raw_of_der(sig, der, len) ? HM_OK : HM_ERROR;
}


static hm_rc_t
hm_jwt_sign_evp(const hm_jwt_key_t *key, hm_str_t text, unsigned char *sig,
    size_t *len)
{
    int          ok;
    EVP_MD_CTX  *ctx;

    ctx = EVP_MD_CTX_new();
    if (ctx == NULL) {
        return HM_ERROR;
    }

    ok = EVP_DigestSignInit(ctx, NULL, key->alg == HM_JWT_ES256
                                       ? EVP_sha256() : NULL,
                            NULL, key->pkey) == 1
         && EVP_DigestSign(ctx, sig, len, text.data, text.len) == 1;

    EVP_MD_CTX_free(ctx);

    return ok ? HM_OK : HM_ERROR;
}


hm_rc_t
hm_jwt_key_verify(const hm_jwt_key_t *key, hm_str_t text,
    const unsigned char *sig, size_t len)
{
    hm_rc_t         rc;
    unsigned char   mac[32], *der;

    if (len != hm_jwt_sig_len(key->alg)) {
        return HM_DECLINED;
    }

    if (key->alg == HM_JWT_HS256) {

        if (key->secret_len < HM_JWT_SECRET_MIN) {
            return HM_DECLINED;
        }

        if (hm_hmac(mac, key->secret, key->secret_len, text.data, text.len)
            != HM_OK)
        {
            return HM_ERROR;
        }

        return hm_equal_ct(mac, sig, sizeof(mac)) ? HM_OK : HM_DECLINED;
    }

    if (key->pkey == NULL || !hm_jwt_in_range(key->alg, sig)) {
        return HM_DECLINED;
    }

    if (key->alg == HM_JWT_EDDSA) {
        return hm_jwt_verify_evp(key, text, sig, len);
    }

    der = NULL;
    len = (size_t) hm_jwt_der_of_raw(&der, sig);

    rc = der != NULL ? hm_jwt_verify_evp(key, text, der, len) : HM_ERROR;

    OPENSSL_free(der);

    return rc;
}


static hm_rc_t
hm_jwt_verify_evp(const hm_jwt_key_t *key, hm_str_t text,
    const unsigned char *sig, size_t len)
{
    int          ok;
    EVP_MD_CTX  *ctx;

    ctx = EVP_MD_CTX_new();
    if (ctx == NULL) {
        return HM_ERROR;
    }

    if (EVP_DigestVerifyInit(ctx, NULL, key->alg == HM_JWT_ES256
                                        ? EVP_sha256() : NULL,
                             NULL, key->pkey)
        != 1)
    {
        EVP_MD_CTX_free(ctx);
        ERR_clear_error();
        return HM_ERROR;
    }

    ok = EVP_DigestVerify(ctx, sig, len, text.data, text.len);

    EVP_MD_CTX_free(ctx);

    if (ok != 1) {
        ERR_clear_error();
        return HM_DECLINED;
    }

    return HM_OK;
}


static bool
hm_jwt_raw_of_der(unsigned char raw[HM_JWT_SIG_MAX],
    const unsigned char *der, size_t len)
{
    bool        ok;
    ECDSA_SIG  *sig;

    sig = d2i_ECDSA_SIG(NULL, &der, (long) len);
    if (sig == NULL) {
        ERR_clear_error();
        return false;
    }

    ok = BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, HM_JWT_HALF) == HM_JWT_HALF
         && BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + HM_JWT_HALF,
                         HM_JWT_HALF) == HM_JWT_HALF;

    ECDSA_SIG_free(sig);

    return ok;
}


static int
hm_jwt_der_of_raw(unsigned char **der, const unsigned char *raw)
{
    int         len;
    BIGNUM     *r, *s;
    ECDSA_SIG  *sig;

    sig = ECDSA_SIG_new();
    r = BN_bin2bn(raw, HM_JWT_HALF, NULL);
    s = BN_bin2bn(raw + HM_JWT_HALF, HM_JWT_HALF, NULL);

    if (sig == NULL || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(sig);
        return 0;
    }

    len = i2d_ECDSA_SIG(sig, der);

    ECDSA_SIG_free(sig);

    return len > 0 ? len : 0;
}


static bool
hm_jwt_in_range(hm_jwt_alg_t alg, const unsigned char *sig)
{
    size_t                i;
    unsigned char         be[HM_JWT_HALF];
    const unsigned char  *s;

    s = sig + HM_JWT_HALF;

    if (alg == HM_JWT_EDDSA) {

        for (i = 0; i < HM_JWT_HALF; i++) {
            be[i] = s[HM_JWT_HALF - 1 - i];
        }

        return memcmp(be, hm_ed25519_l, HM_JWT_HALF) < 0;
    }

    return memcmp(sig, hm_zero, HM_JWT_HALF) != 0
           && memcmp(sig, hm_p256_n, HM_JWT_HALF) < 0
           && memcmp(s, hm_zero, HM_JWT_HALF) != 0
           && memcmp(s, hm_p256_n, HM_JWT_HALF) < 0;
}


hm_rc_t
hm_jwt_key_jwk(const hm_jwt_key_t *key, hm_buf_t *out)
{
    char           x[HM_JWT_HALF * 2], y[HM_JWT_HALF * 2];
    size_t         len;
    unsigned char  pub[2 * HM_JWT_HALF + 1];

    if (key->alg == HM_JWT_HS256) {
        return HM_DECLINED;
    }

    if (EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY,
                                        pub, sizeof(pub), &len)
        != 1)
    {
        ERR_clear_error();
        return HM_ERROR;
    }

    if (key->alg == HM_JWT_EDDSA && len == HM_JWT_HALF) {
        x[hm_b64url_encode(x, pub, HM_JWT_HALF)] = '\0';

        hm_buf_printf(out, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
                      "\"use\":\"sig\",\"alg\":\"EdDSA\",\"kid\":\"%s\","
                      "\"x\":\"%s\"}", key->kid, x);
        return HM_OK;
    }

    /* SEC 1: 04 | x | y */

    if (key->alg != HM_JWT_ES256 || len != sizeof(pub) || pub[0] != 4) {
        return HM_ERROR;
    }

    x[hm_b64url_encode(x, pub + 1, HM_JWT_HALF)] = '\0';
    y[hm_b64url_encode(y, pub + 1 + HM_JWT_HALF, HM_JWT_HALF)] = '\0';

    hm_buf_printf(out, "{\"kty\":\"EC\",\"crv\":\"P-256\",\"use\":\"sig\","
                  "\"alg\":\"ES256\",\"kid\":\"%s\",\"x\":\"%s\","
                  "\"y\":\"%s\"}", key->kid, x, y);

    return HM_OK;
}
