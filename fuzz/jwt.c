/*
 * fuzz: the token verifier.
 *
 * The first byte chooses what the input is: a whole token, or a header and
 * claims (split at the first NUL) that are put under the right MAC or the
 * right signature, so that the fuzzer gets behind it; or the bytes of a key
 * file.  Whatever is taken must have been well formed, and must be taken
 * again after it is signed anew from its claims.  The key pairs are the
 * examples of RFC 7515 and RFC 8037.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "hm_crypto.h"
#include "hm_jwt.h"
#include "hm_text.h"


#define NOW   1767225600LL


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static unsigned char  arena[65536];
static size_t         used;

static void *
arena_alloc(void *ctx, size_t size)
{
    void  *p;

    size = (size + 15) & ~(size_t) 15;

    if (size > sizeof(arena) - used) {
        return NULL;
    }

    p = arena + used;
    used += size;

    return p;
}


static hm_mem_t       mem = { arena_alloc, NULL };
static hm_jwt_key_t   ring[3];           /* HS256, ES256, EdDSA */
static hm_jwt_conf_t  conf;


static const char  es_pem[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff\n"
    "H1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp\n"
    "7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt\n"
    "-----END PRIVATE KEY-----\n";

static const char  ed_pem[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";


static void
must(int right)
{
    if (!right) {
        abort();
    }
}


static size_t
seal(char *out, const hm_jwt_key_t *key, const uint8_t *data, size_t size)
{
    size_t          n, head, body;
    hm_str_t        text;
    unsigned char   sig[HM_JWT_SIG_MAX];
    const uint8_t  *nul;

    nul = memchr(data, 0, size);
    head = nul == NULL ? size : (size_t) (nul - data);
    body = nul == NULL ? 0 : size - head - 1;

    n = hm_b64url_encode(out, data, head);
    out[n++] = '.';
    n += hm_b64url_encode(out + n, nul == NULL ? data : nul + 1, body);

    text.data = (unsigned char *) out;
    text.len = n;
    must(hm_jwt_key_sign(key, text, sig) == HM_OK);

    out[n++] = '.';

    return n + hm_b64url_encode(out + n, sig, hm_jwt_sig_len(key->alg));
}


static void
again(hm_jwt_key_t *key, const hm_claims_t *claims)
{
    hm_str_t       token;
    hm_claims_t    c;
    hm_jwt_conf_t  one;

    one = conf;
    one.keys = key;
    one.nkeys = 1;

    must(hm_jwt_sign(&one, &mem, claims, &token) == HM_OK);
    must(hm_jwt_verify(&conf, token, "access", NOW, &c) == HM_JWT_OK);
    must(memcmp(&c, claims, sizeof(c)) == 0);
}


static void
start(void)
{
    char  reason[HM_JWT_REASON];

    must(hm_crypto_init() == HM_OK);

    must(hm_jwt_key_load(&ring[0], HM_STR("k1"),
                         HM_STR("0123456789abcdef0123456789abcdef"), reason)
         == HM_OK);
    must(hm_jwt_key_load(&ring[1], HM_STR("k2"), HM_STR(es_pem), reason)
         == HM_OK);
    must(hm_jwt_key_load(&ring[2], HM_STR("k3"), HM_STR(ed_pem), reason)
         == HM_OK);

    conf.keys = ring;
    conf.nkeys = 3;
    conf.issuer = HM_STR("i");
    conf.audience = HM_STR("a");
}


static void
key_file(const uint8_t *data, size_t size)
{
    char           reason[HM_JWT_REASON];
    hm_rc_t        rc;
    hm_str_t       file;
    hm_jwt_key_t   key;
    unsigned char  sig[HM_JWT_SIG_MAX];

    file.len = size;
    file.data = malloc(size + 1);
    must(file.data != NULL);
    memcpy(file.data, data, size);

    rc = hm_jwt_key_load(&key, HM_STR("k"), file, reason);
    must(rc == HM_OK || rc == HM_DECLINED);

    if (rc == HM_OK && !key.verify_only) {
        must(hm_jwt_key_sign(&key, file, sig) == HM_OK);
        must(hm_jwt_key_verify(&key, file, sig, hm_jwt_sig_len(key.alg))
             == HM_OK);
    }

    hm_jwt_key_free(&key);
    free(file.data);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char          *text;
    hm_str_t       token;
    hm_claims_t    claims;
    hm_jwt_rc_t    rc;
    hm_jwt_key_t  *key;

    if (conf.keys == NULL) {
        start();
    }

    if (size == 0 || size > 8192) {
        return 0;
    }

    used = 0;

    if ((data[0] & 7) == 6) {
        key_file(data + 1, size - 1);
        return 0;
    }

    key = &ring[(data[0] >> 1 & 3) % 3];

    text = malloc(size * 2 + 128);
    must(text != NULL);

    /* a copy of just the length, so that reading past the end is seen */

    if (data[0] & 1) {
        token.len = seal(text, key, data + 1, size - 1);

    } else {
        token.len = size - 1;
        memcpy(text, data + 1, size - 1);
    }

    token.data = malloc(token.len + (token.len == 0));
    must(token.data != NULL);
    memcpy(token.data, text, token.len);

    rc = hm_jwt_verify(&conf, token, "access", NOW, &claims);

    must(rc != HM_JWT_FAILED);

    if (rc == HM_JWT_OK) {
        must(claims.exp > NOW && claims.role != HM_ROLE_NONE);
        again(key, &claims);
    }

    free(token.data);
    free(text);

    return 0;
}
