/*
 * ngx_hm_reply: every answer leaves here, JSON or problem+json, with the
 * headers all answers share.
 *
 * The body was built in the context's arena, which lives until the request's
 * pool is destroyed, so nginx sends it from where it stands.
 */

#include "ngx_hm.h"


static ngx_int_t ngx_hm_add_header(ngx_http_request_t *r, const char *name,
    hm_str_t value);
static ngx_int_t ngx_hm_common_headers(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_cors_headers(ngx_hm_ctx_t *hm);
static hm_str_t ngx_hm_number(ngx_hm_ctx_t *hm, ngx_uint_t n);


static const char  *ngx_hm_rate_names[] = {
#define X(id, name, n)  name,
    NGX_HM_CLASSES(X)
#undef X
};


void
ngx_hm_reply_start(ngx_hm_ctx_t *hm, ngx_uint_t status, size_t size)
{
    hm->status = status;
    hm->headers.personal = hm->signed_in;

    ngx_memzero(&hm->out, sizeof(hm->out));
    hm->parts = NULL;
    hm->parts_len = 0;

    if (size != 0) {
        hm_buf_init(&hm->out, &hm->mem, size);
    }
}


void
ngx_hm_reply_problem(ngx_hm_ctx_t *hm)
{
    const hm_problem_row_t  *row;

    row = hm_problem(hm->problem);

    ngx_hm_reply_start(hm, (ngx_uint_t) row->status, 512);

    hm->headers.type = HM_STR("application/problem+json");
    hm->headers.etag = hm_null_str;
    hm->headers.location = hm_null_str;
    hm->headers.cookie = hm_null_str;
    hm->headers.device = hm_null_str;
    hm->headers.replayed = 0;

    hm_problem_json(&hm->out, hm->problem, hm->detail, hm->path,
                    hm->request_id, hm->faults);
}


ngx_int_t
ngx_hm_reply_send(ngx_hm_ctx_t *hm)
{
    ngx_int_t            rc;
    ngx_buf_t           *b;
    ngx_chain_t          out;
    ngx_http_request_t  *r;

    r = hm->request;

    if (hm->out.failed) {
        ngx_memzero(&hm->out, sizeof(hm->out));
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = hm->status;
    r->headers_out.content_length_n = hm->parts_len;

    if (hm->out.start != NULL) {
        r->headers_out.content_length_n += hm_buf_len(&hm->out);
    }

    if (hm->status == NGX_HTTP_NO_CONTENT
        || hm->status == NGX_HTTP_NOT_MODIFIED)
    {
        r->header_only = 1;
        r->headers_out.content_length_n = -1;

    } else {
        r->headers_out.content_type.data = hm->headers.type.data != NULL
                            ? hm->headers.type.data
                            : (u_char *) "application/json";
        r->headers_out.content_type.len = hm->headers.type.data != NULL
                            ? hm->headers.type.len
                            : sizeof("application/json") - 1;
        r->headers_out.content_type_len = r->headers_out.content_type.len;
    }

    if (ngx_hm_common_headers(hm) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* of a range or a validator only we decide */
    r->allow_ranges = 0;
    r->disable_not_modified = 1;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last_buf = 1;

    if (hm->out.start != NULL && hm_buf_len(&hm->out) != 0) {
        b->pos = hm->out.start;
        b->last = hm->out.pos;
        b->memory = 1;
    }

    out.buf = b;
    out.next = NULL;

    if (hm->parts != NULL) {
        *hm->parts_last = &out;
        return ngx_http_output_filter(r, hm->parts);
    }

    return ngx_http_output_filter(r, &out);
}


static ngx_int_t
ngx_hm_common_headers(ngx_hm_ctx_t *hm)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = hm->request;

    rc = ngx_hm_add_header(r, "X-Request-ID", hm->request_id);

    if (hm->headers.personal || hm->status >= 400) {
        rc |= ngx_hm_add_header(r, "Cache-Control", HM_STR("no-store"));

    } else if (hm->headers.cache.len != 0) {
        rc |= ngx_hm_add_header(r, "Cache-Control", hm->headers.cache);
    }

    if (hm->headers.etag.len != 0) {
        rc |= ngx_hm_add_header(r, "ETag", hm->headers.etag);
    }

    if (hm->headers.location.len != 0) {
        rc |= ngx_hm_add_header(r, "Location", hm->headers.location);
    }

    if (hm->headers.allow.len != 0
        && (hm->status == NGX_HTTP_NOT_ALLOWED
            || hm->status == NGX_HTTP_NO_CONTENT))
    {
        rc |= ngx_hm_add_header(r, "Allow", hm->headers.allow);
    }

    if (hm->headers.accept_patch.len != 0
        && hm->status == NGX_HTTP_UNSUPPORTED_MEDIA_TYPE)
    {
        rc |= ngx_hm_add_header(r, "Accept-Patch",
                                hm->headers.accept_patch);
    }

    if (hm->headers.cookie.len != 0) {
        rc |= ngx_hm_add_header(r, "Set-Cookie", hm->headers.cookie);
    }

    if (hm->headers.device.len != 0) {
        rc |= ngx_hm_add_header(r, "Set-Cookie", hm->headers.device);
    }

    if (hm->headers.replayed) {
        rc |= ngx_hm_add_header(r, "Idempotent-Replayed", HM_STR("true"));
    }

    if (hm->headers.retry_after == 0
        && (hm->status == NGX_HTTP_TOO_MANY_REQUESTS
            || hm->status == NGX_HTTP_SERVICE_UNAVAILABLE))
    {
        hm->headers.retry_after = 1;     /* these two never come without */
    }

    if (hm->headers.retry_after != 0
        && (hm->status == NGX_HTTP_TOO_MANY_REQUESTS
            || hm->status == NGX_HTTP_CONFLICT
            || hm->status >= NGX_HTTP_SERVICE_UNAVAILABLE))
    {
        rc |= ngx_hm_add_header(r, "Retry-After",
                                ngx_hm_number(hm, hm->headers.retry_after));
    }

    if (hm->status == NGX_HTTP_UNAUTHORIZED
        && r->headers_out.www_authenticate == NULL)
    {
        rc |= ngx_hm_add_header(r, "WWW-Authenticate", HM_STR("Bearer"));
    }

    if (hm->rate_quota != 0) {
        rc |= ngx_hm_rate_headers(hm);
    }

    rc |= ngx_hm_cors_headers(hm);

    return rc == NGX_OK ? NGX_OK : NGX_ERROR;
}


/* They outlive the context of a request that is served by others. */
ngx_int_t
ngx_hm_rate_headers(ngx_hm_ctx_t *hm)
{
    u_char       *p;
    hm_str_t      policy, limit;
    const char   *name;

    name = ngx_hm_rate_names[hm->rate_class];

    policy.data = ngx_pnalloc(hm->request->pool, 64);
    limit.data = ngx_pnalloc(hm->request->pool, 64);

    if (policy.data == NULL || limit.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_snprintf(policy.data, 64, "\"%s\";q=%ui;w=%ui", name,
                     hm->rate_quota, hm->conf->window[hm->rate_class]);
    policy.len = (size_t) (p - policy.data);

    p = ngx_snprintf(limit.data, 64, "\"%s\";r=%ui;t=%ui", name,
                     hm->rate_left, hm->rate_reset);
    limit.len = (size_t) (p - limit.data);

    return ngx_hm_add_header(hm->request, "RateLimit-Policy", policy)
           | ngx_hm_add_header(hm->request, "RateLimit", limit);
}


static ngx_int_t
ngx_hm_cors_headers(ngx_hm_ctx_t *hm)
{
    hm_str_t            origin;
    ngx_int_t           rc;
    ngx_str_t          *allowed;
    ngx_uint_t          i;
    ngx_hm_srv_conf_t  *scf;

    scf = ngx_http_get_module_srv_conf(hm->request,
                                       ngx_http_healthmate_module);

    if (scf->cors == NULL) {
        return NGX_OK;
    }

    rc = ngx_hm_add_header(hm->request, "Vary", HM_STR("Origin"));

    origin = ngx_hm_header(hm, "origin");
    allowed = scf->cors->elts;

    for (i = 0; i < scf->cors->nelts; i++) {
        if (origin.len != 0 && hm_str_eq(origin, ngx_hm_hm(allowed[i]))) {
            break;
        }
    }

    if (i == scf->cors->nelts) {
        return rc;
    }

    rc |= ngx_hm_add_header(hm->request, "Access-Control-Allow-Origin",
                            origin);
    rc |= ngx_hm_add_header(hm->request, "Access-Control-Expose-Headers",
              HM_STR("ETag, Location, Retry-After, RateLimit, "
                     "RateLimit-Policy, X-Request-ID, "
                     "Idempotent-Replayed"));

    if (hm->request->method == NGX_HTTP_OPTIONS) {
        rc |= ngx_hm_add_header(hm->request, "Access-Control-Allow-Methods",
                                hm->headers.allow);
        rc |= ngx_hm_add_header(hm->request, "Access-Control-Allow-Headers",
                  HM_STR("Authorization, Content-Type, Idempotency-Key, "
                         "If-Match, If-None-Match, X-Request-ID"));
        rc |= ngx_hm_add_header(hm->request, "Access-Control-Max-Age",
                                HM_STR("600"));
    }

    return rc;
}


static ngx_int_t
ngx_hm_add_header(ngx_http_request_t *r, const char *name, hm_str_t value)
{
    ngx_table_elt_t  *h;

    if (value.len == 0) {
        return NGX_OK;
    }

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = ngx_hm_ngx(value);

    return NGX_OK;
}


static hm_str_t
ngx_hm_number(ngx_hm_ctx_t *hm, ngx_uint_t n)
{
    hm_str_t  s;

    s.data = ngx_hm_palloc(hm, NGX_INT_T_LEN);

    s.len = s.data != NULL
            ? (size_t) (ngx_snprintf(s.data, NGX_INT_T_LEN, "%ui", n)
                        - s.data)
            : 0;

    return s;
}


/* ETag: a keyed hash of id and version; it tells nothing and cannot be made. */
ngx_int_t
ngx_hm_etag(ngx_hm_ctx_t *hm, const hm_uuid_t *id, uint32_t version,
    hm_str_t *etag)
{
    size_t         len;
    unsigned char  in[20], mac[32];

    ngx_memcpy(in, id->b, 16);
    hm_put_u32(in + 16, version);

    etag->data = ngx_hm_palloc(hm, 32);

    if (etag->data == NULL || ngx_hm_mac(mac, "etag", in, 20) != NGX_OK) {
        return NGX_ERROR;
    }

    etag->data[0] = '"';
    len = hm_b64url_encode((char *) etag->data + 1, mac, 15);
    etag->data[1 + len] = '"';
    etag->len = len + 2;

    return NGX_OK;
}


/*
 * If-Match and If-None-Match: "*", or a list of entity tags.  A weak tag
 * matches only where the comparison is weak (If-None-Match).
 */
ngx_int_t
ngx_hm_etag_match(hm_str_t header, hm_str_t etag, ngx_uint_t weak)
{
    u_char      *p, *end, *start;
    ngx_uint_t   found, is_weak, n;

    p = header.data;
    end = p + header.len;
    found = 0;
    n = 0;

    while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }

    if (end - p == 1 && *p == '*') {
        return NGX_OK;
    }

    for ( ;; ) {
        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        is_weak = 0;

        if (end - p > 2 && p[0] == 'W' && p[1] == '/') {
            is_weak = 1;
            p += 2;
        }

        if (p == end || *p != '"') {
            return NGX_ERROR;
        }

        start = p++;

        while (p < end && *p != '"' && *p >= 0x21 && *p != 0x7f) {
            p++;
        }

        if (p == end || *p != '"') {
            return NGX_ERROR;
        }

        p++;
        n++;

        if ((weak || !is_weak) && (size_t) (p - start) == etag.len
            && ngx_memcmp(start, etag.data, etag.len) == 0)
        {
            found = 1;
        }

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if (p == end) {
            return found ? NGX_OK : NGX_DECLINED;
        }

        if (*p++ != ',') {
            return NGX_ERROR;
        }
    }
}


ngx_hm_rc_t
ngx_hm_if_none_match(ngx_hm_ctx_t *hm)
{
    hm_str_t  header;

    header = ngx_hm_header(hm, "if-none-match");

    if (header.data == NULL) {
        return NGX_HM_DONE;
    }

    switch (ngx_hm_etag_match(header, hm->headers.etag, 1)) {

    case NGX_ERROR:
        return ngx_hm_fail_detail(hm, HM_PROBLEM_INVALID_HEADER,
                                  "If-None-Match cannot be read");

    case NGX_OK:
        ngx_hm_reply_start(hm, NGX_HTTP_NOT_MODIFIED, 0);
        return NGX_HM_DONE;

    default:
        return NGX_HM_DONE;
    }
}


/* nginx's own errors in the form of ours: the target of error_page. */
ngx_int_t
ngx_hm_problem_handler(ngx_http_request_t *r)
{
    ngx_int_t      status;
    ngx_uint_t     allow;
    ngx_hm_ctx_t  *hm;

    hm = ngx_hm_ctx_create(r);
    if (hm == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    status = r->err_status != 0 ? (ngx_int_t) r->err_status
                                : NGX_HTTP_NOT_FOUND;

    /* the address that was asked for, not that of the internal location */

    hm->path = ngx_hm_hm(r->unparsed_uri);

    if (hm->path.len != 0) {
        u_char  *q;

        q = memchr(hm->path.data, '?', hm->path.len);
        if (q != NULL) {
            hm->path.len = (size_t) (q - hm->path.data);
        }
    }

    if (hm->path.len == 0 || hm->path.len > 1024
        || !hm_utf8_valid(hm->path))
    {
        hm->path = HM_STR("/");          /* it could not be read */
    }

    ngx_hm_request_id(hm);

    if (status == NGX_HTTP_NOT_ALLOWED) {
        /* on its way here the request has become a GET */
        r->method = NGX_HTTP_UNKNOWN;
        (void) ngx_hm_route_find(hm, &allow);
        r->method = NGX_HTTP_GET;
        hm->route = NULL;
    }

    (void) ngx_http_discard_request_body(r);

    hm->problem = hm_problem_of_status((int) status);
    hm->headers.retry_after = 1;         /* sent where the status has it */
    ngx_hm_guard_problem(hm);
    ngx_hm_reply_problem(hm);
    hm->finished = 1;
    hm->audited = 1;

    return ngx_hm_reply_send(hm);
}
