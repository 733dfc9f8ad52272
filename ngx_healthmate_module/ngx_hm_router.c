/*
 * ngx_hm_router: which row of the route table a request means.
 *
 * A path has at most one parameter, {id}, anywhere.  A path that no row has
 * is 404; one that has rows but none of the method is 405 and says what
 * would do.  HEAD is GET without a body.
 */

#include "ngx_hm.h"


#define NGX_HM_ROUTES_MAX   128


typedef struct {
    size_t        prefix;        /* bytes before {id}, or the whole path */
    unsigned      id;
    const char   *suffix;
    size_t        suffix_len;
} ngx_hm_pattern_t;


/* Of the constant table: the same in every configuration there ever is. */
static ngx_hm_pattern_t   ngx_hm_patterns[NGX_HM_ROUTES_MAX];


static ngx_uint_t ngx_hm_path_match(hm_str_t path, ngx_uint_t i,
    hm_str_t *id);
static void ngx_hm_allow(ngx_hm_ctx_t *hm, ngx_uint_t allow);
static ngx_int_t ngx_hm_unescape(ngx_hm_ctx_t *hm, u_char *p, size_t len,
    hm_str_t *out);


static const struct {
    ngx_uint_t    method;
    const char   *name;
} ngx_hm_methods[] = {
    { NGX_HTTP_GET, "GET" }, { NGX_HTTP_HEAD, "HEAD" },
    { NGX_HTTP_POST, "POST" }, { NGX_HTTP_PUT, "PUT" },
    { NGX_HTTP_PATCH, "PATCH" }, { NGX_HTTP_DELETE, "DELETE" },
    { NGX_HTTP_OPTIONS, "OPTIONS" }
};


ngx_int_t
ngx_hm_router_init(ngx_conf_t *cf)
{
    char        *id;
    ngx_uint_t   i, n;

    if (ngx_hm_nroutes > NGX_HM_ROUTES_MAX) {
        return NGX_ERROR;
    }

    for (i = 0; i < ngx_hm_nroutes; i++) {
        id = strstr(ngx_hm_routes[i].path, "{id}");

        ngx_hm_patterns[i].id = id != NULL;
        ngx_hm_patterns[i].prefix = id != NULL
                                ? (size_t) (id - ngx_hm_routes[i].path)
                                : ngx_strlen(ngx_hm_routes[i].path);
        ngx_hm_patterns[i].suffix = id != NULL ? id + 4 : "";
        ngx_hm_patterns[i].suffix_len =
                                 ngx_strlen(ngx_hm_patterns[i].suffix);

        for (n = 0; n < i; n++) {
            if (ngx_hm_routes[n].method == ngx_hm_routes[i].method
                && ngx_strcmp(ngx_hm_routes[n].path, ngx_hm_routes[i].path)
                   == 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "healthmate: route \"%s\" is twice in "
                                   "the table", ngx_hm_routes[i].path);
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


ngx_hm_found_t
ngx_hm_route_find(ngx_hm_ctx_t *hm, ngx_uint_t *allow)
{
    hm_str_t     id;
    ngx_uint_t   i, method, found, exact;

    method = hm->request->method;

    if (method == NGX_HTTP_HEAD) {
        method = NGX_HTTP_GET;
    }

    hm->method = method;
    found = 0;
    exact = 0;

    for (i = 0; i < ngx_hm_nroutes; i++) {

        /* a word that is a path of its own is not an id; such rows lead */

        if ((ngx_hm_patterns[i].id && exact)
            || !ngx_hm_path_match(hm->path, i, &id))
        {
            continue;
        }

        found |= ngx_hm_routes[i].method;
        exact |= !ngx_hm_patterns[i].id;

        if (ngx_hm_routes[i].method != method) {
            continue;
        }

        hm->route = &ngx_hm_routes[i];

        if (ngx_hm_patterns[i].id
            && hm_uuid_parse(&hm->path_id, id) != HM_OK)
        {
            return NGX_HM_NO_PATH;
        }

        return NGX_HM_FOUND;
    }

    if (found == 0) {
        return NGX_HM_NO_PATH;
    }

    *allow = found | NGX_HTTP_OPTIONS
             | (found & NGX_HTTP_GET ? NGX_HTTP_HEAD : 0);
    ngx_hm_allow(hm, *allow);

    return method == NGX_HTTP_OPTIONS ? NGX_HM_OPTIONS_ : NGX_HM_NO_METHOD;
}


const char *
ngx_hm_route_pattern(hm_str_t path)
{
    hm_str_t    id;
    ngx_uint_t  i;

    for (i = 0; i < ngx_hm_nroutes; i++) {
        if (ngx_hm_path_match(path, i, &id)) {
            return ngx_hm_routes[i].path;
        }
    }

    return "";
}


static ngx_uint_t
ngx_hm_path_match(hm_str_t path, ngx_uint_t i, hm_str_t *id)
{
    u_char            *p, *end;
    ngx_hm_pattern_t  *pt;

    pt = &ngx_hm_patterns[i];

    if (!pt->id) {
        return path.len == pt->prefix
               && ngx_memcmp(path.data, ngx_hm_routes[i].path,
                             pt->prefix) == 0;
    }

    if (path.len <= pt->prefix + pt->suffix_len
        || ngx_memcmp(path.data, ngx_hm_routes[i].path, pt->prefix) != 0)
    {
        return 0;
    }

    p = path.data + pt->prefix;
    end = path.data + path.len - pt->suffix_len;

    if (ngx_memcmp(end, pt->suffix, pt->suffix_len) != 0
        || memchr(p, '/', (size_t) (end - p)) != NULL)
    {
        return 0;
    }

    id->data = p;
    id->len = (size_t) (end - p);

    return id->len > 0;
}


static void
ngx_hm_allow(ngx_hm_ctx_t *hm, ngx_uint_t allow)
{
    hm_buf_t    b;
    ngx_uint_t  i;

    hm_buf_init(&b, &hm->mem, 64);

    for (i = 0; i < sizeof(ngx_hm_methods) / sizeof(ngx_hm_methods[0]); i++)
    {
        if (allow & ngx_hm_methods[i].method) {
            if (hm_buf_len(&b) != 0) {
                hm_buf_lit(&b, ", ");
            }

            hm_buf_add(&b, ngx_hm_methods[i].name,
                       ngx_strlen(ngx_hm_methods[i].name));
        }
    }

    hm->headers.allow.data = b.start;
    hm->headers.allow.len = b.failed ? 0 : hm_buf_len(&b);
}


/* Query */


ngx_int_t
ngx_hm_args_parse(ngx_hm_ctx_t *hm)
{
    u_char  *p, *end, *amp, *eq;

    p = hm->request->args.data;
    end = p + hm->request->args.len;

    while (p < end) {
        amp = memchr(p, '&', (size_t) (end - p));
        amp = amp != NULL ? amp : end;

        if (amp > p) {
            if (hm->nargs == NGX_HM_ARGS) {
                return NGX_ERROR;
            }

            eq = memchr(p, '=', (size_t) (amp - p));
            eq = eq != NULL ? eq : amp;

            if (ngx_hm_unescape(hm, p, (size_t) (eq - p),
                                &hm->args[hm->nargs].name) != NGX_OK
                || ngx_hm_unescape(hm, eq < amp ? eq + 1 : amp,
                                   eq < amp ? (size_t) (amp - eq - 1) : 0,
                                   &hm->args[hm->nargs].value) != NGX_OK)
            {
                return NGX_ERROR;
            }

            hm->nargs++;
        }

        p = amp + 1;
    }

    return NGX_OK;
}


/*
 * Percent-decoding.  A '+' stays one: it stands in the offset of a time much
 * more often than a space stands in any parameter here.
 */
static ngx_int_t
ngx_hm_unescape(ngx_hm_ctx_t *hm, u_char *p, size_t len, hm_str_t *out)
{
    size_t         i, n;
    unsigned char  c;

    out->data = ngx_hm_palloc(hm, len + 1);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    for (i = 0, n = 0; i < len; i++) {
        c = p[i];

        if (c == '%') {
            if (i + 2 >= len
                || hm_unhex(&c, (hm_str_t) { 2, p + i + 1 }) != HM_OK)
            {
                return NGX_ERROR;
            }

            i += 2;
        }

        if (c == '\0') {
            return NGX_ERROR;
        }

        out->data[n++] = c;
    }

    out->len = n;
    out->data[n] = '\0';

    return hm_utf8_valid(*out) ? NGX_OK : NGX_ERROR;
}
