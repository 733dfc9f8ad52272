/*
 * fuzz: the token verifier.
 *
 * The first byte chooses what the input is: a whole token, or a header and
 * claims (split at the first NUL) that are put under the right MAC, so that
 * the fuzzer gets behind it.  Whatever is taken must have been well formed,
 * and must be taken again after it is signed anew from its claims.
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
static hm_jwt_key_t   key;
static hm_jwt_conf_t  conf;


static void
must(int right)
{
    if (!right) {
        abort();
    }
}


static size_t
seal(char *out, const uint8_t *data, size_t size)
{
    size_t          n, head, body;
    unsigned char   mac[32];
    const uint8_t  *nul;

    nul = memchr(data, 0, size);
    head = nul == NULL ? size : (size_t) (nul - data);
    body = nul == NULL ? 0 : size - head - 1;

    n = hm_b64url_encode(out, data, head);
    out[n++] = '.';
    n += hm_b64url_encode(out + n, nul == NULL ? data : nul + 1, body);

    must(hm_hmac(mac, key.secret, key.secret_len, out, n) == HM_OK);

    out[n++] = '.';

    return n + hm_b64url_encode(out + n, mac, sizeof(mac));
}


static void
again(const hm_claims_t *claims)
{
    hm_str_t     token;
    hm_claims_t  c;

    must(hm_jwt_sign(&conf, &mem, claims, &token) == HM_OK);
    must(hm_jwt_verify(&conf, token, "access", NOW, &c) == HM_JWT_OK);
    must(memcmp(&c, claims, sizeof(c)) == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char         *text;
    hm_str_t      token;
    hm_claims_t   claims;
    hm_jwt_rc_t   rc;

    if (conf.keys == NULL) {
        must(hm_crypto_init() == HM_OK);
        strcpy(key.kid, "k1");
        memset(key.secret, 0x11, 32);
        key.secret_len = 32;
        conf.keys = &key;
        conf.nkeys = 1;
        conf.issuer = HM_STR("i");
        conf.audience = HM_STR("a");
    }

    if (size == 0 || size > 8192) {
        return 0;
    }

    used = 0;

    text = malloc(size * 2 + 64);
    must(text != NULL);

    /* a copy of just the length, so that reading past the end is seen */

    if (data[0] & 1) {
        token.len = seal(text, data + 1, size - 1);

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
        again(&claims);
    }

    free(token.data);
    free(text);

    return 0;
}
