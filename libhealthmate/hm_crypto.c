/*
 * hm_crypto: envelopes, wrapped keys, HMAC and random bytes on OpenSSL EVP.
 *
 * DESIGN.  Sealing and opening is what every record costs, so nothing is
 * looked up, made or allocated per call: the cipher and the digest are
 * fetched once, there is one cipher context for each direction, and a context
 * is re-keyed only when the key is another one than the last.  A list of one
 * person's records therefore pays for one key schedule.
 *
 * All of it hangs off one pointer per thread.  Event loops and workers have
 * one thread that comes here; a pool thread that asks for a salt gets a set
 * of its own, and no lock is needed anywhere.
 *
 * What must not survive a fork lies in one mapping with MADV_WIPEONFORK: the
 * random bytes that nonces are cut from, and the copies of the last keys by
 * which "the same key" is recognised.  In a child that mapping reads as
 * zeros: `alive` is then false, the random bytes are filled anew and the
 * contexts are keyed anew.  Two processes therefore never take a nonce from
 * the same bytes, with no pid to compare and no hook to forget.  Where the
 * kernel does not know the advice, an atfork handler does the same.  The
 * mapping is also locked and kept out of core dumps, best effort.
 *
 * Bytes that were given out are wiped in the buffer at once.  Long requests
 * (keys, tokens) go to OpenSSL directly and never lie there.
 *
 * HMAC is RFC 2104 written out over two EVP digests: EVP_MAC in OpenSSL 3.0
 * duplicates a context, and so allocates, with every result.
 *
 * A failure wipes what was written, empties the thread's OpenSSL error queue
 * (a later TLS call would report it as its own) and forgets the key of the
 * context, so that the next call starts from nothing.
 */

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "hm_crypto.h"


#define HM_FORM            1             /* first byte of all our forms */
#define HM_NONCE_LEN       12
#define HM_TAG_LEN         16
#define HM_PAD             16
#define HM_SEAL_MAX        (64 * 1024 * 1024)
#define HM_NAME_MAX        63
#define HM_AAD_MAX         (5 + 2 * (1 + HM_NAME_MAX) + 32)
#define HM_BLOCK           64            /* of SHA-256 */

#define HM_POOL_LEN        4096
#define HM_POOL_TAKE_MAX   16


typedef struct {
    bool                keyed;
    unsigned char       key[HM_KEY_LEN];
} hm_keyed_t;


/* The mapping that a child finds wiped. */

typedef struct {
    bool                alive;
    hm_keyed_t          seal;
    hm_keyed_t          open;
    size_t              used;
    unsigned char       pool[HM_POOL_LEN];
} hm_volatile_t;


typedef struct {
    EVP_CIPHER         *gcm;
    EVP_MD             *sha256;
    EVP_CIPHER_CTX     *seal;
    EVP_CIPHER_CTX     *open;
    EVP_MD_CTX         *md;
    hm_volatile_t      *v;
} hm_crypto_t;


static hm_crypto_t *hm_crypto_get(void);
static hm_crypto_t *hm_crypto_create(void);
static hm_volatile_t *hm_volatile_create(void);
static void hm_crypto_child(void);
static void hm_crypto_atfork(void);

static size_t hm_aad_place(unsigned char *aad, uint32_t version,
    const hm_place_t *place);
static size_t hm_aad_wrap(unsigned char *aad, uint32_t kek_version,
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner);
static unsigned char *hm_put_u32(unsigned char *p, uint32_t n);
static unsigned char *hm_put_name(unsigned char *p, const char *name);
static uint32_t hm_get_u32(const unsigned char *p);

static bool hm_rekey(EVP_CIPHER_CTX *ctx, hm_keyed_t *last, bool seal,
    const unsigned char *key, const unsigned char *nonce);
static bool hm_gcm_seal(hm_crypto_t *c, unsigned char *out,
    const unsigned char *key, const unsigned char *nonce, const void *aad,
    size_t aadlen, hm_str_t text, size_t pad);
static bool hm_gcm_open(hm_crypto_t *c, unsigned char *out,
    const unsigned char *key, const unsigned char *nonce, const void *aad,
    size_t aadlen, hm_str_t text);

static bool hm_hmac_begin(hm_crypto_t *c, const unsigned char *key,
    size_t klen, unsigned char block[HM_BLOCK]);
static bool hm_hmac_end(hm_crypto_t *c, unsigned char block[HM_BLOCK],
    unsigned char out[32]);


static __thread hm_crypto_t  *hm_crypto;

static const unsigned char    hm_spaces[HM_PAD] = "                ";


hm_rc_t
hm_crypto_init(void)
{
    return hm_crypto_get() != NULL ? HM_OK : HM_ERROR;
}


static hm_crypto_t *
hm_crypto_get(void)
{
    hm_volatile_t  *v;

    if (hm_crypto == NULL) {
        hm_crypto = hm_crypto_create();

        if (hm_crypto == NULL) {
            ERR_clear_error();
            return NULL;
        }
    }

    v = hm_crypto->v;

    if (!v->alive) {
        /* new, or a child: everything in v is zero */
        v->used = HM_POOL_LEN;
        v->alive = true;
    }

    return hm_crypto;
}


static hm_crypto_t *
hm_crypto_create(void)
{
    hm_crypto_t  *c;

    c = calloc(1, sizeof(hm_crypto_t));
    if (c == NULL) {
        return NULL;
    }

    c->v = hm_volatile_create();
    c->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    c->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    c->seal = EVP_CIPHER_CTX_new();
    c->open = EVP_CIPHER_CTX_new();
    c->md = EVP_MD_CTX_new();

    if (c->v != NULL && c->gcm != NULL && c->sha256 != NULL
        && c->seal != NULL && c->open != NULL && c->md != NULL
        && EVP_EncryptInit_ex2(c->seal, c->gcm, NULL, NULL, NULL) == 1
        && EVP_DecryptInit_ex2(c->open, c->gcm, NULL, NULL, NULL) == 1)
    {
        return c;
    }

    EVP_CIPHER_CTX_free(c->seal);
    EVP_CIPHER_CTX_free(c->open);
    EVP_MD_CTX_free(c->md);
    EVP_CIPHER_free(c->gcm);
    EVP_MD_free(c->sha256);

    if (c->v != NULL) {
        (void) munmap(c->v, sizeof(hm_volatile_t));
    }

    free(c);

    return NULL;
}


static hm_volatile_t *
hm_volatile_create(void)
{
    void                   *p;
    static pthread_once_t   once = PTHREAD_ONCE_INIT;

    p = mmap(NULL, sizeof(hm_volatile_t), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }

    if (madvise(p, sizeof(hm_volatile_t), MADV_WIPEONFORK) != 0
        && pthread_once(&once, hm_crypto_atfork) != 0)
    {
        (void) munmap(p, sizeof(hm_volatile_t));
        return NULL;
    }

    (void) madvise(p, sizeof(hm_volatile_t), MADV_DONTDUMP);
    (void) mlock(p, sizeof(hm_volatile_t));

    return p;
}


static void
hm_crypto_atfork(void)
{
    if (pthread_atfork(NULL, NULL, hm_crypto_child) != 0) {
        abort();                         /* a nonce could repeat */
    }
}


static void
hm_crypto_child(void)
{
    if (hm_crypto != NULL) {
        OPENSSL_cleanse(hm_crypto->v, sizeof(hm_volatile_t));
    }
}


hm_rc_t
hm_random(void *out, size_t len)
{
    hm_crypto_t    *c;
    hm_volatile_t  *v;

    c = hm_crypto_get();

    if (c == NULL || len > INT_MAX) {
        return HM_ERROR;
    }

    if (len > HM_POOL_TAKE_MAX) {
        if (RAND_priv_bytes(out, (int) len) != 1) {
            ERR_clear_error();
            return HM_ERROR;
        }

        return HM_OK;
    }

    v = c->v;

    if (HM_POOL_LEN - v->used < len) {
        /* not usable until it is full: a failure must not leave old bytes */
        v->used = HM_POOL_LEN;

        if (RAND_bytes(v->pool, HM_POOL_LEN) != 1) {
            ERR_clear_error();
            return HM_ERROR;
        }

        v->used = 0;
    }

    memcpy(out, v->pool + v->used, len);
    OPENSSL_cleanse(v->pool + v->used, len);
    v->used += len;

    return HM_OK;
}


void
hm_wipe(void *p, size_t len)
{
    if (p != NULL) {
        OPENSSL_cleanse(p, len);
    }
}


bool
hm_equal_ct(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}


hm_rc_t
hm_sha256(unsigned char out[32], const void *data, size_t len)
{
    hm_crypto_t  *c;

    c = hm_crypto_get();

    if (c == NULL
        || EVP_DigestInit_ex2(c->md, c->sha256, NULL) != 1
        || EVP_DigestUpdate(c->md, data, len) != 1
        || EVP_DigestFinal_ex(c->md, out, NULL) != 1)
    {
        ERR_clear_error();
        return HM_ERROR;
    }

    return HM_OK;
}


/* `block` keeps the key, xored with the inner pad, until hm_hmac_end. */

static bool
hm_hmac_begin(hm_crypto_t *c, const unsigned char *key, size_t klen,
    unsigned char block[HM_BLOCK])
{
    unsigned  i;

    memset(block, 0, HM_BLOCK);

    if (klen > HM_BLOCK) {
        if (hm_sha256(block, key, klen) != HM_OK) {
            return false;
        }

    } else if (klen != 0) {
        memcpy(block, key, klen);
    }

    for (i = 0; i < HM_BLOCK; i++) {
        block[i] ^= 0x36;
    }

    return EVP_DigestInit_ex2(c->md, c->sha256, NULL) == 1
           && EVP_DigestUpdate(c->md, block, HM_BLOCK) == 1;
}


static bool
hm_hmac_end(hm_crypto_t *c, unsigned char block[HM_BLOCK],
    unsigned char out[32])
{
    unsigned       i;
    unsigned char  inner[32];

    for (i = 0; i < HM_BLOCK; i++) {
        block[i] ^= 0x36 ^ 0x5c;
    }

    return EVP_DigestFinal_ex(c->md, inner, NULL) == 1
           && EVP_DigestInit_ex2(c->md, c->sha256, NULL) == 1
           && EVP_DigestUpdate(c->md, block, HM_BLOCK) == 1
           && EVP_DigestUpdate(c->md, inner, sizeof(inner)) == 1
           && EVP_DigestFinal_ex(c->md, out, NULL) == 1;
}


hm_rc_t
hm_hmac(unsigned char out[32], const unsigned char *key, size_t klen,
    const void *data, size_t len)
{
    bool           ok;
    hm_crypto_t   *c;
    unsigned char  block[HM_BLOCK];

    c = hm_crypto_get();
    if (c == NULL) {
        return HM_ERROR;
    }

    ok = hm_hmac_begin(c, key, klen, block)
         && EVP_DigestUpdate(c->md, data, len) == 1
         && hm_hmac_end(c, block, out);

    OPENSSL_cleanse(block, sizeof(block));

    if (!ok) {
        OPENSSL_cleanse(out, 32);
        ERR_clear_error();
        return HM_ERROR;
    }

    return HM_OK;
}


hm_rc_t
hm_commitment(unsigned char out[HM_COMMIT_LEN],
    const unsigned char key[HM_KEY_LEN])
{
    hm_rc_t        rc;
    unsigned char  mac[32];

    rc = hm_hmac(mac, key, HM_KEY_LEN, "hm commit", sizeof("hm commit") - 1);

    if (rc == HM_OK) {
        memcpy(out, mac, HM_COMMIT_LEN);
    }

    OPENSSL_cleanse(mac, sizeof(mac));

    return rc;
}


hm_rc_t
hm_blind_index(unsigned char out[32],
    const unsigned char index_key[HM_KEY_LEN], const char *table,
    const char *column, const hm_uuid_t *user, hm_str_t value)
{
    bool            ok;
    hm_crypto_t    *c;
    unsigned char   block[HM_BLOCK], head[HM_AAD_MAX], *p;

    c = hm_crypto_get();

    if (c == NULL || (p = hm_put_name(head, table)) == NULL
        || (p = hm_put_name(p, column)) == NULL)
    {
        return HM_ERROR;
    }

    memcpy(p, user->b, 16);
    p += 16;

    ok = hm_hmac_begin(c, index_key, HM_KEY_LEN, block)
         && EVP_DigestUpdate(c->md, head, (size_t) (p - head)) == 1
         && EVP_DigestUpdate(c->md, value.data, value.len) == 1
         && hm_hmac_end(c, block, out);

    OPENSSL_cleanse(block, sizeof(block));

    if (!ok) {
        OPENSSL_cleanse(out, 32);
        ERR_clear_error();
        return HM_ERROR;
    }

    return HM_OK;
}


size_t
hm_sealed_len(size_t len)
{
    return HM_ENVELOPE_OVER + (len + HM_PAD - 1) / HM_PAD * HM_PAD;
}


hm_rc_t
hm_seal(unsigned char *out, size_t *outlen,
    const unsigned char dek[HM_KEY_LEN], uint32_t dek_version,
    const hm_place_t *place, hm_str_t json)
{
    size_t          total, aadlen;
    hm_crypto_t    *c;
    unsigned char   aad[HM_AAD_MAX];

    *outlen = 0;

    if (json.len == 0 || json.len > HM_SEAL_MAX || dek_version == 0) {
        return HM_ERROR;
    }

    c = hm_crypto_get();
    aadlen = hm_aad_place(aad, dek_version, place);

    if (c == NULL || aadlen == 0) {
        return HM_ERROR;
    }

    total = hm_sealed_len(json.len);

    out[0] = HM_FORM;
    (void) hm_put_u32(out + 1, dek_version);

    if (hm_random(out + 5, HM_NONCE_LEN) != HM_OK) {
        return HM_ERROR;
    }

    if (!hm_gcm_seal(c, out + HM_ENVELOPE_HEAD, dek, out + 5, aad, aadlen,
                     json, total - HM_ENVELOPE_OVER - json.len))
    {
        OPENSSL_cleanse(out, total);
        return HM_ERROR;
    }

    *outlen = total;

    return HM_OK;
}


hm_rc_t
hm_open(unsigned char *out, hm_str_t *json,
    const unsigned char dek[HM_KEY_LEN], uint32_t dek_version,
    const hm_place_t *place, hm_str_t env)
{
    size_t          len, aadlen;
    hm_str_t        text;
    hm_crypto_t    *c;
    unsigned char   aad[HM_AAD_MAX];

    *json = hm_null_str;

    if (dek_version == 0 || hm_envelope_version(env) != dek_version) {
        return HM_DECLINED;
    }

    c = hm_crypto_get();
    aadlen = hm_aad_place(aad, dek_version, place);

    if (c == NULL || aadlen == 0) {
        return HM_ERROR;
    }

    len = env.len - HM_ENVELOPE_OVER;
    text.data = env.data + HM_ENVELOPE_HEAD;
    text.len = len;

    if (!hm_gcm_open(c, out, dek, env.data + 5, aad, aadlen, text)) {
        OPENSSL_cleanse(out, len);
        return HM_DECLINED;
    }

    while (len > 0 && out[len - 1] == ' ') {
        len--;
    }

    json->data = out;
    json->len = len;

    return HM_OK;
}


uint32_t
hm_envelope_version(hm_str_t env)
{
    /* one block at least: no JSON text is empty */

    if (env.len < HM_ENVELOPE_OVER + HM_PAD
        || env.len > HM_ENVELOPE_OVER + HM_SEAL_MAX
        || (env.len - HM_ENVELOPE_OVER) % HM_PAD != 0
        || env.data[0] != HM_FORM)
    {
        return 0;
    }

    return hm_get_u32(env.data + 1);
}


hm_rc_t
hm_wrap(unsigned char out[HM_WRAPPED_LEN],
    const unsigned char kek[HM_KEY_LEN], uint32_t kek_version,
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner,
    const unsigned char key[HM_KEY_LEN])
{
    size_t          aadlen;
    hm_str_t        text;
    hm_crypto_t    *c;
    unsigned char   aad[HM_AAD_MAX];

    c = hm_crypto_get();
    aadlen = hm_aad_wrap(aad, kek_version, purpose, key_version, owner);

    if (c == NULL || aadlen == 0 || kek_version == 0) {
        return HM_ERROR;
    }

    out[0] = HM_FORM;
    (void) hm_put_u32(out + 1, kek_version);

    text.data = (unsigned char *) key;
    text.len = HM_KEY_LEN;

    if (hm_random(out + 5, HM_NONCE_LEN) != HM_OK
        || !hm_gcm_seal(c, out + HM_ENVELOPE_HEAD, kek, out + 5, aad, aadlen,
                        text, 0))
    {
        OPENSSL_cleanse(out, HM_WRAPPED_LEN);
        return HM_ERROR;
    }

    return HM_OK;
}


hm_rc_t
hm_unwrap(unsigned char key[HM_KEY_LEN],
    const unsigned char kek[HM_KEY_LEN], const char *purpose,
    uint32_t key_version, const hm_uuid_t *owner, hm_str_t wrapped)
{
    size_t          aadlen;
    hm_str_t        text;
    hm_crypto_t    *c;
    unsigned char   aad[HM_AAD_MAX];

    if (wrapped.len != HM_WRAPPED_LEN || wrapped.data[0] != HM_FORM) {
        return HM_DECLINED;
    }

    c = hm_crypto_get();
    aadlen = hm_aad_wrap(aad, hm_get_u32(wrapped.data + 1), purpose,
                         key_version, owner);

    if (c == NULL || aadlen == 0) {
        return HM_ERROR;
    }

    text.data = wrapped.data + HM_ENVELOPE_HEAD;
    text.len = HM_KEY_LEN;

    if (!hm_gcm_open(c, key, kek, wrapped.data + 5, aad, aadlen, text)) {
        OPENSSL_cleanse(key, HM_KEY_LEN);
        return HM_DECLINED;
    }

    return HM_OK;
}


static size_t
hm_aad_place(unsigned char *aad, uint32_t version, const hm_place_t *place)
{
    unsigned char  *p;

    aad[0] = HM_FORM;
    p = hm_put_u32(aad + 1, version);

    p = hm_put_name(p, place->table);
    if (p == NULL) {
        return 0;
    }

    p = hm_put_name(p, place->column);
    if (p == NULL) {
        return 0;
    }

    memcpy(p, place->row.b, 16);
    memcpy(p + 16, place->owner.b, 16);

    return (size_t) (p + 32 - aad);
}


static size_t
hm_aad_wrap(unsigned char *aad, uint32_t kek_version, const char *purpose,
    uint32_t key_version, const hm_uuid_t *owner)
{
    unsigned char  *p;

    aad[0] = HM_FORM;
    p = hm_put_u32(aad + 1, kek_version);

    p = hm_put_name(p, purpose);
    if (p == NULL) {
        return 0;
    }

    p = hm_put_u32(p, key_version);
    memcpy(p, owner->b, 16);

    return (size_t) (p + 16 - aad);
}


/* NULL: a name that no table has, which is a mistake in our own code. */

static unsigned char *
hm_put_name(unsigned char *p, const char *name)
{
    size_t  len;

    len = strlen(name);

    if (len == 0 || len > HM_NAME_MAX) {
        return NULL;
    }

    *p++ = (unsigned char) len;
    memcpy(p, name, len);

    return p + len;
}


static unsigned char *
hm_put_u32(unsigned char *p, uint32_t n)
{
    p[0] = (unsigned char) (n >> 24);
    p[1] = (unsigned char) (n >> 16);
    p[2] = (unsigned char) (n >> 8);
    p[3] = (unsigned char) n;

    return p + 4;
}


static uint32_t
hm_get_u32(const unsigned char *p)
{
    return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16
           | (uint32_t) p[2] << 8 | p[3];
}


static bool
hm_rekey(EVP_CIPHER_CTX *ctx, hm_keyed_t *last, bool seal,
    const unsigned char *key, const unsigned char *nonce)
{
    int                   rc;
    const unsigned char  *set;

    set = NULL;

    if (!last->keyed || CRYPTO_memcmp(last->key, key, HM_KEY_LEN) != 0) {
        set = key;
    }

    rc = seal ? EVP_EncryptInit_ex2(ctx, NULL, set, nonce, NULL)
              : EVP_DecryptInit_ex2(ctx, NULL, set, nonce, NULL);

    if (rc != 1) {
        return false;
    }

    if (set != NULL) {
        memcpy(last->key, key, HM_KEY_LEN);
        last->keyed = true;
    }

    return true;
}


/* Writes text.len + pad bytes and the tag. */

static bool
hm_gcm_seal(hm_crypto_t *c, unsigned char *out, const unsigned char *key,
    const unsigned char *nonce, const void *aad, size_t aadlen, hm_str_t text,
    size_t pad)
{
    int              n, m;
    size_t           len;
    OSSL_PARAM       params[2];
    EVP_CIPHER_CTX  *ctx;

    ctx = c->seal;
    len = text.len + pad;
    n = 0;
    m = 0;

    params[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG,
                                                  out + len, HM_TAG_LEN);
    params[1] = OSSL_PARAM_construct_end();

    if (hm_rekey(ctx, &c->v->seal, true, key, nonce)
        && EVP_EncryptUpdate(ctx, NULL, &n, aad, (int) aadlen) == 1
        && EVP_EncryptUpdate(ctx, out, &n, text.data, (int) text.len) == 1
        && (pad == 0 || EVP_EncryptUpdate(ctx, out + text.len, &m, hm_spaces,
                                          (int) pad) == 1)
        && (size_t) n + (size_t) m == len
        && EVP_EncryptFinal_ex(ctx, out + len, &n) == 1
        && n == 0
        && EVP_CIPHER_CTX_get_params(ctx, params) == 1)
    {
        return true;
    }

    c->v->seal.keyed = false;
    ERR_clear_error();

    return false;
}


/* text is followed by its tag. */

static bool
hm_gcm_open(hm_crypto_t *c, unsigned char *out, const unsigned char *key,
    const unsigned char *nonce, const void *aad, size_t aadlen, hm_str_t text)
{
    int              n, m;
    OSSL_PARAM       params[2];
    EVP_CIPHER_CTX  *ctx;

    ctx = c->open;
    n = 0;
    m = 0;

    params[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG,
                                                  text.data + text.len,
                                                  HM_TAG_LEN);
    params[1] = OSSL_PARAM_construct_end();

    if (hm_rekey(ctx, &c->v->open, false, key, nonce)
        && EVP_CIPHER_CTX_set_params(ctx, params) == 1
        && EVP_DecryptUpdate(ctx, NULL, &n, aad, (int) aadlen) == 1
        && EVP_DecryptUpdate(ctx, out, &n, text.data, (int) text.len) == 1
        && (size_t) n == text.len
        && EVP_DecryptFinal_ex(ctx, out + text.len, &m) == 1
        && m == 0)
    {
        return true;
    }

    c->v->open.keyed = false;
    ERR_clear_error();

    return false;
}
