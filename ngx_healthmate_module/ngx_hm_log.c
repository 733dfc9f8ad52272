/*
 * ngx_hm_log: what nginx's own logs may say of a request.
 *
 * nginx appends to each line of its error log the request line as it came,
 * query string and all, and the referrer.  Queries here name people and
 * filter by what they measured, a path names a record, and a client may put
 * a token into either.  So a handler of our own takes nginx's place as soon
 * as the header has been read: it writes the method and the pattern of the
 * path ("/api/v1/health-data/{id}"), never what stood in its place.  What
 * fails before that is logged by nginx at "info", which error_log leaves out.
 *
 * The access log takes the same pattern from a variable:
 *
 *     $healthmate_route       the pattern; empty for a path of nobody's
 *     $healthmate_duration    nanoseconds, as ECS counts event.duration
 *
 * Which record it was stands in the audit, found by the request id.
 */

#include "ngx_hm.h"


static ngx_int_t ngx_hm_log_begin(ngx_http_request_t *r);
static u_char *ngx_hm_log_request(ngx_http_request_t *r,
    ngx_http_request_t *sr, u_char *buf, size_t len);
static ngx_str_t ngx_hm_log_pattern(ngx_http_request_t *r);
static ngx_int_t ngx_hm_log_route(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_hm_log_duration(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static const struct {
    ngx_str_t                    name;
    ngx_http_get_variable_pt     get;
} ngx_hm_log_variables[] = {
    { ngx_string("healthmate_route"), ngx_hm_log_route },
    { ngx_string("healthmate_duration"), ngx_hm_log_duration }
};


/* Before the configuration is read. */
ngx_int_t
ngx_hm_log_names(ngx_conf_t *cf)
{
    ngx_str_t             name;
    ngx_uint_t            i;
    ngx_http_variable_t  *var;

    for (i = 0;
         i < sizeof(ngx_hm_log_variables) / sizeof(ngx_hm_log_variables[0]);
         i++)
    {
        name = ngx_hm_log_variables[i].name;

        var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = ngx_hm_log_variables[i].get;
    }

    return NGX_OK;
}


/* After it. */
ngx_int_t
ngx_hm_log_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_POST_READ_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_hm_log_begin;

    return NGX_OK;
}


static ngx_int_t
ngx_hm_log_begin(ngx_http_request_t *r)
{
    r->log_handler = ngx_hm_log_request;

    return NGX_DECLINED;
}


/* In the place of nginx's, which writes the request line. */
static u_char *
ngx_hm_log_request(ngx_http_request_t *r, ngx_http_request_t *sr,
    u_char *buf, size_t len)
{
    u_char                    *p;
    ngx_str_t                  pattern;
    ngx_hm_ctx_t              *hm;
    ngx_http_core_srv_conf_t  *cscf;

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);
    pattern = ngx_hm_log_pattern(r);

    p = ngx_snprintf(buf, len, ", server: %V, request: \"%V %V\"",
                     &cscf->server_name, &r->method_name, &pattern);
    len -= (size_t) (p - buf);
    buf = p;

    hm = ngx_http_get_module_ctx(r, ngx_http_healthmate_module);

    if (hm != NULL && hm->request_id.len != 0) {
        p = ngx_snprintf(buf, len, ", id: \"%*s\"", hm->request_id.len,
                         hm->request_id.data);
        len -= (size_t) (p - buf);
        buf = p;
    }

    if (r->upstream != NULL && r->upstream->peer.name != NULL) {
        p = ngx_snprintf(buf, len, ", upstream: \"%V\"",
                         r->upstream->peer.name);
        buf = p;
    }

    return buf;
}


/* Of the route; for an error of nginx itself, of the path that was asked. */
static ngx_str_t
ngx_hm_log_pattern(ngx_http_request_t *r)
{
    u_char        *q;
    hm_str_t       path;
    ngx_str_t      pattern;
    const char    *found;
    ngx_hm_ctx_t  *hm;

    hm = ngx_http_get_module_ctx(r, ngx_http_healthmate_module);

    if (hm != NULL && hm->route != NULL) {
        found = hm->route->path;

    } else {
        path = ngx_hm_hm(r->unparsed_uri);
        q = path.len != 0 ? memchr(path.data, '?', path.len) : NULL;

        if (q != NULL) {
            path.len = (size_t) (q - path.data);
        }

        found = ngx_hm_route_pattern(path);
    }

    pattern.data = (u_char *) found;
    pattern.len = ngx_strlen(found);

    return pattern;
}


static ngx_int_t
ngx_hm_log_route(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_str_t  pattern;

    pattern = ngx_hm_log_pattern(r);

    v->data = pattern.data;
    v->len = pattern.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_hm_log_duration(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_time_t      *tp;
    ngx_msec_int_t   ms;

    tp = ngx_timeofday();
    ms = (ngx_msec_int_t) ((tp->sec - r->start_sec) * 1000
                           + (ngx_msec_int_t) (tp->msec - r->start_msec));
    ms = ngx_max(ms, 0);

    v->data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    v->len = (unsigned) (ngx_sprintf(v->data, "%L", (int64_t) ms * 1000000)
                         - v->data);
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
