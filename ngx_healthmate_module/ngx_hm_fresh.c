/*
 * ngx_hm_fresh: step-up.  Some things are asked of whoever sits in front of
 * the screen now, not of whoever logged in this morning: erasure, exports,
 * second factors, roles, keys.  Their routes carry NGX_HM_FRESH.
 *
 * The token says when its bearer proved who he is (auth_time) and how (amr);
 * a proof older than NGX_HM_FRESH_TIME is refused in the gate, for the cost
 * of a comparison.  Whether the person has enrolled a second factor since is
 * not in the token: where amr names none, the database is asked, and an
 * enrolled person has to prove it.  POST /auth/reauth gives a token that
 * passes; a login of the last minutes does as well.
 */

#include "ngx_hm.h"


#define NGX_HM_FRESH_TIME   600


static ngx_hm_rc_t ngx_hm_fresh_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_fresh_known(ngx_hm_ctx_t *hm);


/* Called before the steps of a route (ngx_hm_call). */

const ngx_hm_step_pt  ngx_hm_fresh_steps[] = {
    ngx_hm_step_system_keys, ngx_hm_fresh_ask, ngx_hm_fresh_known, NULL
};


hm_problem_t
ngx_hm_gate_fresh(ngx_hm_ctx_t *hm)
{
    if (!(hm->route->flags & NGX_HM_FRESH)) {
        return HM_PROBLEM_NONE;
    }

    return hm->now / HM_USEC - hm->who.auth_time > NGX_HM_FRESH_TIME
           ? HM_PROBLEM_REAUTH_REQUIRED : HM_PROBLEM_NONE;
}


static ngx_hm_rc_t
ngx_hm_fresh_ask(ngx_hm_ctx_t *hm)
{
    if (hm->who.amr & (HM_AMR_OTP|HM_AMR_HWK)) {
        return ngx_hm_return(hm);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_ENROLLED);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_fresh_known(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) != 1) {
        return ngx_hm_fail(hm, HM_PROBLEM_SESSION_REVOKED);
    }

    if (hm_row_bool(hm->seg.res, 0, 0)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_REAUTH_REQUIRED,
                                  "with the second factor");
    }

    return ngx_hm_return(hm);
}
