/*
 * api_jwks: /.well-known/jwks.json, the public keys with which others verify
 * our tokens (RFC 7517).  It is there with "healthmate_jwks on" and an ES256
 * or EdDSA key; a deployment of secrets alone has nothing to publish: 404.
 *
 * Others may keep it for five minutes.  A rotation therefore lists a new key
 * that long before it signs (docs/operations.md).
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"


static ngx_hm_rc_t jwks_get(ngx_hm_ctx_t *hm);


const ngx_hm_step_pt  ngx_hm_jwks_get[] = { jwks_get, NULL };


static ngx_hm_rc_t
jwks_get(ngx_hm_ctx_t *hm)
{
    if (hm->conf->jwks_text.len == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, hm->conf->jwks_text.len + 1);
    hm_buf_str(&hm->out, ngx_hm_hm(hm->conf->jwks_text));

    hm->headers.type = HM_STR("application/jwk-set+json");
    hm->headers.cache = HM_STR("public, max-age=300");
    hm->headers.etag = ngx_hm_hm(hm->conf->jwks_etag);

    return ngx_hm_if_none_match(hm);
}
