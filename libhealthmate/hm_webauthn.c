/*
 * hm_webauthn: see the header.
 *
 * authData is
 *
 *     rp id hash 32 | flags 1 | sign count u32be
 *       | with AT:  aaguid 16 | u16be len, credential id | COSE key (CBOR)
 *       | with ED:  extensions (a CBOR map)
 *
 * and nothing else.  A login's must have no AT.  An attestation object is a
 * CBOR map of "fmt", "attStmt", "authData", each once.  With attestation
 * "none" a browser may still hand on a self attestation, hence attStmt is
 * skipped whatever it says: it would prove only that the key signs for
 * itself, which the first login proves as well.
 *
 * A COSE key is a map of small integers; only the members of its type may be
 * there, each once, so that one key has one spelling.  The curve point or
 * modulus is checked by making the key: what cannot verify is not stored.
 */

#include <stdlib.h>

#include <fido.h>
#include <fido/eddsa.h>
#include <fido/es256.h>
#include <fido/rs256.h>
#include <openssl/evp.h>

#include "hm_crypto.h"
#include "hm_json.h"
#include "hm_text.h"
#include "hm_webauthn.h"


#define HM_CBOR_DEPTH     8
#define HM_AUTH_HEAD      37             /* rp id hash, flags, count */
#define HM_RSA_LEN        256

enum { CBOR_UINT = 0, CBOR_NEG, CBOR_BYTES, CBOR_TEXT, CBOR_ARRAY, CBOR_MAP,
       CBOR_TAG, CBOR_SIMPLE };


typedef struct {
    const unsigned char  *p;
    const unsigned char  *end;
} hm_cbor_t;


/* The members of a COSE key, as bits of what was seen. */
#define COSE_SEEN_KTY   0x01
#define COSE_SEEN_ALG   0x02
#define COSE_SEEN_M1    0x04             /* crv, or n */
#define COSE_SEEN_M2    0x08             /* x, or e */
#define COSE_SEEN_M3    0x10             /* y */

typedef struct {
    unsigned   seen;
    int64_t    kty;
    int64_t    alg;
    int64_t    crv;
    hm_str_t   m1;                       /* n */
    hm_str_t   m2;                       /* x, e */
    hm_str_t   m3;                       /* y */
} hm_cose_t;


/* A key libfido2 can verify with. */
typedef struct {
    int           alg;
    void         *pk;
} hm_pk_t;


static bool hm_cbor_head(hm_cbor_t *c, unsigned *major, uint64_t *n);
static bool hm_cbor_string(hm_cbor_t *c, unsigned major, hm_str_t *s);
static bool hm_cbor_int(hm_cbor_t *c, int64_t *n);
static bool hm_cbor_skip(hm_cbor_t *c, int depth);
static bool hm_cose_member(hm_cbor_t *c, hm_cose_t *k);
static bool hm_cose_read(hm_cbor_t *c, hm_cose_t *k);
static bool hm_pk_make(hm_pk_t *pk, const hm_cose_t *k);
static bool hm_pk_es256(hm_pk_t *pk, const hm_cose_t *k);
static bool hm_pk_eddsa(hm_pk_t *pk, const hm_cose_t *k);
static bool hm_pk_rs256(hm_pk_t *pk, const hm_cose_t *k);
static void hm_pk_free(hm_pk_t *pk);
static bool hm_auth_head(const hm_webauthn_rp_t *rp, hm_str_t data,
    unsigned char *flags, uint32_t *count);
static bool hm_attestation(hm_str_t text, hm_str_t *data);


/* CBOR, as much of it as WebAuthn sends */


/* The head of an item, in its shortest form; no indefinite lengths. */
static bool
hm_cbor_head(hm_cbor_t *c, unsigned *major, uint64_t *n)
{
    size_t    len, i;
    unsigned  low;

    if (c->p == c->end) {
        return false;
    }

    *major = *c->p >> 5;
    low = *c->p++ & 31;

    if (low < 24) {
        *n = low;
        return true;
    }

    if (low > 27) {
        return false;
    }

    len = (size_t) 1 << (low - 24);

    if ((size_t) (c->end - c->p) < len) {
        return false;
    }

    *n = 0;

    for (i = 0; i < len; i++) {
        *n = *n << 8 | *c->p++;
    }

    if (*major == CBOR_SIMPLE) {
        /* a float, which has no shorter form; or a simple value, refused */
        return len > 1;
    }

    return len == 1 ? *n >= 24 : *n >> (len * 4) != 0;
}


static bool
hm_cbor_string(hm_cbor_t *c, unsigned major, hm_str_t *s)
{
    unsigned  got;
    uint64_t  n;

    if (!hm_cbor_head(c, &got, &n) || got != major
        || n > (uint64_t) (c->end - c->p))
    {
        return false;
    }

    s->data = (unsigned char *) c->p;
    s->len = (size_t) n;
    c->p += n;

    return true;
}


static bool
hm_cbor_int(hm_cbor_t *c, int64_t *n)
{
    unsigned  major;
    uint64_t  v;

    if (!hm_cbor_head(c, &major, &v) || major > CBOR_NEG || v > INT32_MAX) {
        return false;
    }

    *n = major == CBOR_NEG ? -1 - (int64_t) v : (int64_t) v;

    return true;
}


static bool
hm_cbor_skip(hm_cbor_t *c, int depth)
{
    unsigned  major;
    uint64_t  n, i;

    if (depth == 0 || !hm_cbor_head(c, &major, &n)) {
        return false;
    }

    switch (major) {

    case CBOR_UINT:
    case CBOR_NEG:
    case CBOR_SIMPLE:
        return true;

    case CBOR_BYTES:
    case CBOR_TEXT:
        if (n > (uint64_t) (c->end - c->p)) {
            return false;
        }

        c->p += n;
        return true;

    case CBOR_ARRAY:
    case CBOR_MAP:
        /* each item has a byte at least: more of them end the loop soon */

        for (i = 0; i < n; i++) {
            if (!hm_cbor_skip(c, depth - 1)
                || (major == CBOR_MAP && !hm_cbor_skip(c, depth - 1)))
            {
                return false;
            }
        }

        return true;

    default:
        return false;
    }
}


/* COSE keys */


static bool
hm_cose_member(hm_cbor_t *c, hm_cose_t *k)
{
    int64_t   label;
    unsigned  bit;

    if (!hm_cbor_int(c, &label)) {
        return false;
    }

    bit = label == 1 ? COSE_SEEN_KTY : label == 3 ? COSE_SEEN_ALG
          : label == -1 ? COSE_SEEN_M1 : label == -2 ? COSE_SEEN_M2
          : label == -3 ? COSE_SEEN_M3 : 0;

    if (bit == 0 || (k->seen & bit)) {
        return false;
    }

    k->seen |= bit;

    switch (bit) {

    case COSE_SEEN_KTY:
        return hm_cbor_int(c, &k->kty);

    case COSE_SEEN_ALG:
        return hm_cbor_int(c, &k->alg);

    case COSE_SEEN_M1:
        /* kty comes first in every canonical key */

        return k->kty == COSE_KTY_RSA ? hm_cbor_string(c, CBOR_BYTES, &k->m1)
                                      : hm_cbor_int(c, &k->crv);

    case COSE_SEEN_M2:
        return hm_cbor_string(c, CBOR_BYTES, &k->m2);

    default:
        return hm_cbor_string(c, CBOR_BYTES, &k->m3);
    }
}


static bool
hm_cose_read(hm_cbor_t *c, hm_cose_t *k)
{
    unsigned  major;
    uint64_t  n;

    memset(k, 0, sizeof(*k));

    if (!hm_cbor_head(c, &major, &n) || major != CBOR_MAP) {
        return false;
    }

    for ( /* void */ ; n > 0; n--) {
        if (!hm_cose_member(c, k)) {
            return false;
        }
    }

    switch (k->alg) {

    case COSE_ES256:
        return k->kty == COSE_KTY_EC2 && k->crv == COSE_P256
               && k->seen == 0x1f && k->m2.len == 32 && k->m3.len == 32;

    case COSE_EDDSA:
        return k->kty == COSE_KTY_OKP && k->crv == COSE_ED25519
               && k->seen == 0x0f && k->m2.len == 32;

    case COSE_RS256:
        return k->kty == COSE_KTY_RSA && k->seen == 0x0f
               && k->m1.len == HM_RSA_LEN && k->m1.data[0] >= 0x80
               && k->m2.len == 3;

    default:
        return false;
    }
}


static bool
hm_pk_es256(hm_pk_t *pk, const hm_cose_t *k)
{
    EVP_PKEY       *key;
    es256_pk_t     *p;
    unsigned char   xy[64];

    memcpy(xy, k->m2.data, 32);
    memcpy(xy + 32, k->m3.data, 32);

    pk->pk = p = es256_pk_new();

    if (p == NULL || es256_pk_from_ptr(p, xy, sizeof(xy)) != FIDO_OK) {
        return false;
    }

    key = es256_pk_to_EVP_PKEY(p);       /* NULL: not a point of the curve */
    EVP_PKEY_free(key);

    return key != NULL;
}


static bool
hm_pk_eddsa(hm_pk_t *pk, const hm_cose_t *k)
{
    EVP_PKEY    *key;
    eddsa_pk_t  *p;

    pk->pk = p = eddsa_pk_new();

    if (p == NULL
        || eddsa_pk_from_ptr(p, k->m2.data, k->m2.len) != FIDO_OK)
    {
        return false;
    }

    key = eddsa_pk_to_EVP_PKEY(p);
    EVP_PKEY_free(key);

    return key != NULL;
}


static bool
hm_pk_rs256(hm_pk_t *pk, const hm_cose_t *k)
{
    EVP_PKEY       *key;
    rs256_pk_t     *p;
    unsigned char   ne[HM_RSA_LEN + 3];

    /* an even modulus or an exponent below 3 is no key */

    if ((k->m1.data[HM_RSA_LEN - 1] & 1) == 0 || (k->m2.data[2] & 1) == 0
        || (k->m2.data[0] | k->m2.data[1]) == 0)
    {
        return false;
    }

    memcpy(ne, k->m1.data, HM_RSA_LEN);
    memcpy(ne + HM_RSA_LEN, k->m2.data, 3);

    pk->pk = p = rs256_pk_new();

    if (p == NULL || rs256_pk_from_ptr(p, ne, sizeof(ne)) != FIDO_OK) {
        return false;
    }

    key = rs256_pk_to_EVP_PKEY(p);
    EVP_PKEY_free(key);

    return key != NULL;
}


static bool
hm_pk_make(hm_pk_t *pk, const hm_cose_t *k)
{
    bool  ok;

    pk->alg = (int) k->alg;
    pk->pk = NULL;

    ok = pk->alg == COSE_ES256 ? hm_pk_es256(pk, k)
         : pk->alg == COSE_EDDSA ? hm_pk_eddsa(pk, k) : hm_pk_rs256(pk, k);

    if (!ok) {
        hm_pk_free(pk);
    }

    return ok;
}


static void
hm_pk_free(hm_pk_t *pk)
{
    if (pk->alg == COSE_ES256) {
        es256_pk_free((es256_pk_t **) &pk->pk);

    } else if (pk->alg == COSE_EDDSA) {
        eddsa_pk_free((eddsa_pk_t **) &pk->pk);

    } else {
        rs256_pk_free((rs256_pk_t **) &pk->pk);
    }
}


int
hm_cose_key(hm_str_t key)
{
    hm_pk_t    pk;
    hm_cbor_t  c;
    hm_cose_t  k;

    c.p = key.data;
    c.end = key.data + key.len;

    if (key.len > HM_WEBAUTHN_KEY_MAX || !hm_cose_read(&c, &k)
        || c.p != c.end || !hm_pk_make(&pk, &k))
    {
        return 0;
    }

    hm_pk_free(&pk);

    return pk.alg;
}


/* What browsers send */


hm_rc_t
hm_webauthn_client(const hm_webauthn_rp_t *rp, const char *type,
    hm_str_t json, unsigned char challenge[HM_WEBAUTHN_CHALLENGE])
{
    size_t          i, len;
    json_t         *j, *cross;
    hm_rc_t         rc;
    hm_str_t        text, reason;
    const char     *s;
    unsigned char   raw[HM_WEBAUTHN_CHALLENGE + 2];

    if (json.len > HM_WEBAUTHN_CLIENT_MAX) {
        return HM_DECLINED;
    }

    j = hm_json_parse(json, &reason);
    if (j == NULL) {
        return HM_DECLINED;
    }

    rc = HM_DECLINED;
    s = json_string_value(json_object_get(j, "type"));

    if (s == NULL || strcmp(s, type) != 0) {
        goto done;
    }

    /* a page of another site around ours could steer the person */

    cross = json_object_get(j, "crossOrigin");

    if ((cross != NULL && !json_is_false(cross))
        || json_object_get(j, "topOrigin") != NULL)
    {
        goto done;
    }

    s = json_string_value(json_object_get(j, "origin"));
    len = json_string_length(json_object_get(j, "origin"));

    for (i = 0; s != NULL && i < rp->norigins; i++) {
        if (rp->origins[i].len == len
            && memcmp(rp->origins[i].data, s, len) == 0)
        {
            break;
        }
    }

    if (s == NULL || i == rp->norigins) {
        goto done;
    }

    text.data = (unsigned char *)
                json_string_value(json_object_get(j, "challenge"));
    text.len = json_string_length(json_object_get(j, "challenge"));

    if (text.data != NULL && text.len == hm_b64url_len(HM_WEBAUTHN_CHALLENGE)
        && hm_b64url_decode(raw, &len, text) == HM_OK
        && len == HM_WEBAUTHN_CHALLENGE)
    {
        memcpy(challenge, raw, HM_WEBAUTHN_CHALLENGE);
        rc = HM_OK;
    }

done:

    json_decref(j);

    return rc;
}


/* What a creation and a login have in common. */
static bool
hm_auth_head(const hm_webauthn_rp_t *rp, hm_str_t data, unsigned char *flags,
    uint32_t *count)
{
    unsigned char         hash[32];
    const unsigned char  *p;

    if (data.len < HM_AUTH_HEAD
        || hm_sha256(hash, rp->id.data, rp->id.len) != HM_OK
        || memcmp(hash, data.data, 32) != 0)
    {
        return false;
    }

    p = data.data + 32;
    *flags = p[0];
    *count = (uint32_t) p[1] << 24 | (uint32_t) p[2] << 16
             | (uint32_t) p[3] << 8 | p[4];

    /* reserved bits mean nothing yet; a backup needs to be possible */

    return (*flags & HM_WEBAUTHN_UP) && (*flags & HM_WEBAUTHN_UV)
           && ((*flags & HM_WEBAUTHN_BE) || !(*flags & HM_WEBAUTHN_BS));
}


/* {"fmt": text, "attStmt": map, "authData": bytes}, in any order. */
static bool
hm_attestation(hm_str_t text, hm_str_t *data)
{
    hm_str_t   name, fmt;
    unsigned   major, bit, seen;
    uint64_t   n;
    hm_cbor_t  c;

    c.p = text.data;
    c.end = text.data + text.len;
    seen = 0;

    if (!hm_cbor_head(&c, &major, &n) || major != CBOR_MAP || n != 3) {
        return false;
    }

    for ( /* void */ ; n > 0; n--) {
        if (!hm_cbor_string(&c, CBOR_TEXT, &name)) {
            return false;
        }

        if (hm_str_eq(name, HM_STR("fmt"))) {
            bit = 1;

            if (!hm_cbor_string(&c, CBOR_TEXT, &fmt)) {
                return false;
            }

        } else if (hm_str_eq(name, HM_STR("attStmt"))) {
            bit = 2;

            if (c.p == c.end || *c.p >> 5 != CBOR_MAP
                || !hm_cbor_skip(&c, HM_CBOR_DEPTH))
            {
                return false;
            }

        } else if (hm_str_eq(name, HM_STR("authData"))) {
            bit = 4;

            if (!hm_cbor_string(&c, CBOR_BYTES, data)) {
                return false;
            }

        } else {
            return false;
        }

        if (seen & bit) {
            return false;
        }

        seen |= bit;
    }

    return c.p == c.end;
}


hm_rc_t
hm_webauthn_new(const hm_webauthn_rp_t *rp, hm_str_t attestation,
    hm_webauthn_new_t *out)
{
    hm_str_t              data;
    hm_cbor_t             c;
    hm_cose_t             k;
    const unsigned char  *key;

    if (attestation.len > HM_WEBAUTHN_DATA_MAX
        || !hm_attestation(attestation, &data)
        || !hm_auth_head(rp, data, &out->flags, &out->count)
        || !(out->flags & HM_WEBAUTHN_AT))
    {
        return HM_DECLINED;
    }

    c.p = data.data + HM_AUTH_HEAD;
    c.end = data.data + data.len;

    if (c.end - c.p < 18) {
        return HM_DECLINED;
    }

    memcpy(out->aaguid, c.p, 16);
    out->id.len = (size_t) c.p[16] << 8 | c.p[17];
    c.p += 18;

    if (out->id.len == 0 || out->id.len > HM_WEBAUTHN_ID_MAX
        || out->id.len > (size_t) (c.end - c.p))
    {
        return HM_DECLINED;
    }

    out->id.data = (unsigned char *) c.p;
    c.p += out->id.len;
    key = c.p;

    if (!hm_cose_read(&c, &k)) {
        return HM_DECLINED;
    }

    out->key.data = (unsigned char *) key;
    out->key.len = (size_t) (c.p - key);

    if ((out->flags & HM_WEBAUTHN_ED)
        && (c.p == c.end || *c.p >> 5 != CBOR_MAP
            || !hm_cbor_skip(&c, HM_CBOR_DEPTH)))
    {
        return HM_DECLINED;
    }

    if (c.p != c.end) {
        return HM_DECLINED;
    }

    out->alg = hm_cose_key(out->key);

    return out->alg != 0 ? HM_OK : HM_DECLINED;
}


hm_rc_t
hm_webauthn_use(const hm_webauthn_rp_t *rp, hm_webauthn_use_t *use)
{
    char            id[256];
    hm_pk_t         pk;
    hm_rc_t         rc;
    hm_cbor_t       c;
    hm_cose_t       k;
    fido_assert_t  *a;

    if (use->data.len > HM_WEBAUTHN_DATA_MAX || use->sig.len == 0
        || use->sig.len > HM_WEBAUTHN_SIG_MAX || use->client.len == 0
        || use->client.len > HM_WEBAUTHN_CLIENT_MAX
        || rp->id.len >= sizeof(id)
        || !hm_auth_head(rp, use->data, &use->flags, &use->count)
        || (use->flags & HM_WEBAUTHN_AT))
    {
        return HM_DECLINED;
    }

    c.p = use->data.data + HM_AUTH_HEAD;
    c.end = use->data.data + use->data.len;

    if ((use->flags & HM_WEBAUTHN_ED)
        && (c.p == c.end || *c.p >> 5 != CBOR_MAP
            || !hm_cbor_skip(&c, HM_CBOR_DEPTH)))
    {
        return HM_DECLINED;
    }

    if (c.p != c.end) {
        return HM_DECLINED;
    }

    c.p = use->key.data;
    c.end = use->key.data + use->key.len;

    if (!hm_cose_read(&c, &k) || c.p != c.end || !hm_pk_make(&pk, &k)) {
        return HM_DECLINED;
    }

    memcpy(id, rp->id.data, rp->id.len);
    id[rp->id.len] = '\0';
    rc = HM_ERROR;

    a = fido_assert_new();

    if (a != NULL && fido_assert_set_count(a, 1) == FIDO_OK
        && fido_assert_set_rp(a, id) == FIDO_OK
        && fido_assert_set_clientdata(a, use->client.data, use->client.len)
           == FIDO_OK
        && fido_assert_set_up(a, FIDO_OPT_TRUE) == FIDO_OK
        && fido_assert_set_uv(a, FIDO_OPT_TRUE) == FIDO_OK)
    {
        rc = fido_assert_set_authdata_raw(a, 0, use->data.data,
                                          use->data.len) == FIDO_OK
             && fido_assert_set_sig(a, 0, use->sig.data, use->sig.len)
                == FIDO_OK
             && fido_assert_verify(a, 0, pk.alg, pk.pk) == FIDO_OK
             ? HM_OK : HM_DECLINED;
    }

    fido_assert_free(&a);
    hm_pk_free(&pk);

    return rc;
}
