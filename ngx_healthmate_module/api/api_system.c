/*
 * api_system: the service about itself.  No token, no rate class, no audit;
 * nothing here tells of a person.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_docs.h"


static ngx_hm_rc_t system_health(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t system_ready_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t system_ready(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t system_metrics(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t system_version(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t system_openapi(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t system_docs(ngx_hm_ctx_t *hm);


const ngx_hm_step_pt  ngx_hm_system_health[] = { system_health, NULL };
const ngx_hm_step_pt  ngx_hm_system_ready[] = {
    system_ready_ask, system_ready, NULL
};
const ngx_hm_step_pt  ngx_hm_system_metrics[] = { system_metrics, NULL };
const ngx_hm_step_pt  ngx_hm_system_version[] = { system_version, NULL };
const ngx_hm_step_pt  ngx_hm_system_openapi[] = { system_openapi, NULL };
const ngx_hm_step_pt  ngx_hm_system_docs[] = { system_docs, NULL };


static ngx_hm_rc_t
system_health(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 32);
    hm_buf_lit(&hm->out, "{\"status\":\"healthy\"}");

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
system_ready_ask(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_PING);

    /* no connection is an answer, too */

    return ngx_hm_pg_send(&hm->seg) == NGX_OK
           ? (ngx_hm_wait(hm), NGX_HM_WAIT)
           : (hm->seg.rc = NGX_HM_PG_LOST, NGX_HM_NEXT);
}


static ngx_hm_rc_t
system_ready(ngx_hm_ctx_t *hm)
{
    uint32_t             ahead;
    ngx_uint_t           pg, audit;
    ngx_hm_pg_state_t    state;
    ngx_hm_feed_state_t  feed;

    ngx_hm_pg_state(&state);
    ngx_hm_feed_state(&feed);

    ahead = 0;

    if (hm->seg.rc == NGX_HM_PG_OK && PQntuples(hm->seg.res) == 1) {
        ahead = hm_row_u32(hm->seg.res, 0, 0);
    }

    pg = hm->seg.rc == NGX_HM_PG_OK && state.up == state.want;
    audit = ngx_hm_pg_lane_up(NGX_HM_LANE_AUDIT);

    ngx_hm_reply_start(hm, pg && audit ? NGX_HTTP_OK
                                       : NGX_HTTP_SERVICE_UNAVAILABLE, 512);
    hm->headers.retry_after = 1;

    hm_buf_printf(&hm->out, "{\"status\":\"%s\",\"checks\":{"
                  "\"database\":{\"status\":\"%s\",\"connections\":%lu,"
                  "\"wanted\":%lu,\"queued\":%lu},"
                  "\"audit\":{\"status\":\"%s\",\"mode\":\"%s\","
                  "\"months_ahead\":%u},"
                  "\"revocation\":{\"status\":\"%s\",\"age_ms\":%lu},"
                  "\"redis\":{\"status\":\"%s\"}}}",
                  pg && audit ? "ready" : "not_ready", pg ? "ok" : "down",
                  (unsigned long) state.up, (unsigned long) state.want,
                  (unsigned long) state.queued,
                  !audit ? "down" : ahead < 2 ? "warning" : "ok",
                  hm->conf->audit == NGX_HM_AUDIT_STRICT ? "strict"
                                                         : "bounded",
                  ahead, feed.full ? "full" : feed.stale ? "stale" : "ok",
                  (unsigned long) feed.age,
                  ngx_hm_redis_up() ? "ok" : "warning");

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
system_metrics(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 16384);
    hm->headers.type = HM_STR("text/plain; version=0.0.4; charset=utf-8");
    ngx_hm_metrics_write(hm, &hm->out);

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
system_version(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 128);
    hm_buf_printf(&hm->out, "{\"name\":\"healthmate\",\"version\":\"%s\","
                  "\"nginx\":\"%s\",\"api\":\"v1\"}", NGX_HM_VERSION,
                  NGINX_VERSION);

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
system_openapi(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_OK, hm->conf->openapi.len + 1);
    hm_buf_str(&hm->out, ngx_hm_hm(hm->conf->openapi));

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
system_docs(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_OK, sizeof(NGX_HM_DOCS_HTML));
    hm->headers.type = HM_STR("text/html; charset=utf-8");
    hm_buf_lit(&hm->out, NGX_HM_DOCS_HTML);

    return NGX_HM_DONE;
}
