/*
 * ngx_hm_auth: from the Authorization header to a principal.
 *
 * Verified tokens are remembered by each worker for at most 60 s: a slot
 * holds the whole token and the claims, found by a keyed hash and compared
 * byte for byte.  A token with a fingerprint counts only together with its
 * cookie, each time.
 */

#include "ngx_hm.h"


#define NGX_HM_TOKENS        4096        /* a power of two */
#define NGX_HM_TOKEN_WAYS    4           /* places a token may have */
#define NGX_HM_TOKEN_BYTES   640
#define NGX_HM_TOKEN_TIME    60


typedef struct {
    uint64_t      hash;
    int64_t       until;
    uint32_t      len;
    hm_claims_t   claims;
    u_char        token[NGX_HM_TOKEN_BYTES];
} ngx_hm_token_t;


static struct {
    ngx_hm_token_t  *slots;
    uint64_t         seed;
} ngx_hm_tokens;


static hm_problem_t ngx_hm_bearer(ngx_hm_ctx_t *hm, hm_str_t *token);
static hm_problem_t ngx_hm_fingerprint(ngx_hm_ctx_t *hm);
static uint64_t ngx_hm_token_hash(hm_str_t token);
static ngx_hm_token_t *ngx_hm_token_slot(uint64_t hash);


void
ngx_hm_token_cache_init(void)
{
    ngx_hm_tokens.slots = hm_locked_alloc(NGX_HM_TOKENS
                                          * sizeof(ngx_hm_token_t));
    (void) hm_random(&ngx_hm_tokens.seed, sizeof(uint64_t));
}


hm_problem_t
ngx_hm_authenticate(ngx_hm_ctx_t *hm)
{
    int64_t          now;
    hm_str_t         token;
    uint64_t         hash;
    hm_problem_t     p;
    ngx_hm_token_t  *slot;

    p = ngx_hm_bearer(hm, &token);
    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    now = hm->now / HM_USEC;
    hash = ngx_hm_token_hash(token);
    slot = NULL;

    if (ngx_hm_tokens.slots != NULL && token.len <= NGX_HM_TOKEN_BYTES) {
        slot = ngx_hm_token_slot(hash);

        if (slot->hash == hash && slot->len == token.len
            && now < slot->until
            && ngx_memcmp(slot->token, token.data, token.len) == 0)
        {
            ngx_hm_count(NGX_HM_M_TOKEN_HITS, 1);
            hm->who = slot->claims;
            goto known;
        }
    }

    ngx_hm_count(NGX_HM_M_TOKEN_MISSES, 1);

    switch (hm_jwt_verify(&hm->conf->jwt, token, "access", now, &hm->who)) {
    case HM_JWT_OK:
        break;
    case HM_JWT_EXPIRED:
        return HM_PROBLEM_TOKEN_EXPIRED;
    case HM_JWT_INVALID:
        return HM_PROBLEM_TOKEN_INVALID;
    default:
        hm->headers.retry_after = 1;
        return HM_PROBLEM_UNAVAILABLE;
    }

    if (slot != NULL) {
        slot->hash = hash;
        slot->len = (uint32_t) token.len;
        slot->until = ngx_min(hm->who.exp, now + NGX_HM_TOKEN_TIME);
        slot->claims = hm->who;
        ngx_memcpy(slot->token, token.data, token.len);
    }

known:

    p = ngx_hm_fingerprint(hm);
    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    if (hm_uuid_eq(&hm->who.sub, &hm_nil_uuid)) {
        return HM_PROBLEM_TOKEN_INVALID;         /* the system has no token */
    }

    p = ngx_hm_feed_check(hm);
    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    hm->signed_in = 1;
    hm->subject = hm->who.sub;
    ngx_hm_seen(hm);

    return HM_PROBLEM_NONE;
}


static hm_problem_t
ngx_hm_bearer(ngx_hm_ctx_t *hm, hm_str_t *token)
{
    u_char           *p, *end;
    ngx_table_elt_t  *h;

    h = hm->request->headers_in.authorization;

    if (h == NULL) {
        return HM_PROBLEM_TOKEN_MISSING;
    }

    p = h->value.data;
    end = p + h->value.len;

    if (h->value.len < 7 || ngx_strncasecmp(p, (u_char *) "bearer ", 7) != 0)
    {
        return HM_PROBLEM_TOKEN_INVALID;
    }

    p += 7;

    while (p < end && *p == ' ') {
        p++;
    }

    token->data = p;
    token->len = (size_t) (end - p);

    return token->len == 0 || token->len > HM_JWT_MAX
           ? HM_PROBLEM_TOKEN_INVALID : HM_PROBLEM_NONE;
}


static hm_problem_t
ngx_hm_fingerprint(ngx_hm_ctx_t *hm)
{
    hm_str_t       cookie, value;
    unsigned char  digest[32];

    if (!hm->who.has_fgp) {
        return hm->conf->fingerprint == NGX_HM_ON_
               && !hm->plain
               ? HM_PROBLEM_FINGERPRINT_MISMATCH : HM_PROBLEM_NONE;
    }

    cookie = ngx_hm_header(hm, "cookie");
    value = ngx_hm_cookie(cookie, NGX_HM_FGP_COOKIE);

    if (value.len == 0
        || hm_sha256(digest, value.data, value.len) != HM_OK
        || !hm_equal_ct(digest, hm->who.fgp, 32))
    {
        return HM_PROBLEM_FINGERPRINT_MISMATCH;
    }

    return HM_PROBLEM_NONE;
}


hm_str_t
ngx_hm_cookie(hm_str_t header, const char *name)
{
    size_t     len;
    u_char    *p, *end, *semi;
    hm_str_t   value;

    len = ngx_strlen(name);
    p = header.data;
    end = p + header.len;

    while (p != NULL && p < end) {
        while (p < end && (*p == ' ' || *p == ';')) {
            p++;
        }

        semi = memchr(p, ';', (size_t) (end - p));
        semi = semi != NULL ? semi : end;

        if ((size_t) (semi - p) > len && p[len] == '='
            && ngx_memcmp(p, name, len) == 0)
        {
            value.data = p + len + 1;
            value.len = (size_t) (semi - value.data);
            return value;
        }

        p = semi;
    }

    return hm_null_str;
}


/* Its own slot, or of its places the one to give up soonest. */
static ngx_hm_token_t *
ngx_hm_token_slot(uint64_t hash)
{
    ngx_uint_t       i;
    ngx_hm_token_t  *set, *slot;

    set = &ngx_hm_tokens.slots[hash & (NGX_HM_TOKENS - NGX_HM_TOKEN_WAYS)];
    slot = set;

    for (i = 0; i < NGX_HM_TOKEN_WAYS; i++) {
        if (set[i].hash == hash) {
            return &set[i];
        }

        if (set[i].until < slot->until) {
            slot = &set[i];
        }
    }

    return slot;
}


/* Multiply-and-fold over 8 bytes; the seed keeps collisions unpredictable. */
static uint64_t
ngx_hm_token_hash(hm_str_t token)
{
    size_t       i;
    uint64_t     h, w;
    __uint128_t  m;

    h = ngx_hm_tokens.seed;

    for (i = 0; i < token.len; i += 8) {
        w = 0;
        ngx_memcpy(&w, token.data + i, ngx_min(8, token.len - i));
        m = (__uint128_t) (h ^ w) * 0x9e3779b97f4a7c15ULL;
        h = (uint64_t) m ^ (uint64_t) (m >> 64);
    }

    return h != 0 ? h : 1;
}
