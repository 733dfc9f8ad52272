/*
 * ngx_hm_openapi: the OpenAPI 3.1 document, made once when the configuration
 * is read.
 *
 * DESIGN
 *
 * Nothing is described twice.  What a request may carry and get is read from
 * the tables that serve it: paths, permissions, bodies and query parameters
 * from ngx_hm_routes[], the schemas of records from their descriptors
 * (hm_resource_t), the metric types from hm_metrics[], the problems and the
 * fault codes from their catalogues.  Only what no table knows is told here,
 * in tables again (ngx_hm_openapi.h): what a query parameter means, and the
 * shapes of answers that are not records.  A new resource is described
 * without a line here; a new endpoint that is not one needs a row of shapes,
 * and t/api/test_openapi.py says so when it is missing.
 *
 * JSON in C strings is unreadable with its quotes escaped, so the texts below
 * have ' for ", and ngx_hm_oa() turns them; they must not contain apostrophes.
 * Texts that come from other tables are escaped properly, by hm_json_text().
 * Commas are not written by hand: ngx_hm_oa_next() looks at the last byte.
 *
 * Memory: the document grows in cf->temp_pool, which nginx frees after the
 * configuration is read, and is copied to cf->pool.
 */

#include "ngx_hm.h"
#include "ngx_hm_openapi.h"


#define NGX_HM_OA_SIZE      131072
#define NGX_HM_OA_TEXT      2048         /* longest ngx_hm_oa() */


typedef struct {
    const ngx_hm_route_t  *route;
    ngx_uint_t             status;
    unsigned               flags;
    const char            *type;
    char                   body[64];
    char                   answer[64];
} ngx_hm_oa_op_t;


/* Is the path the resource's own, and which of the two? */
typedef enum { NGX_HM_OA_NOT_OWN = 0, NGX_HM_OA_COLLECTION, NGX_HM_OA_RECORD }
    ngx_hm_oa_own_t;


static void *ngx_hm_oa_alloc(void *ctx, size_t size);
static void ngx_hm_oa_info(hm_buf_t *b);
static void ngx_hm_oa_tags(hm_buf_t *b);
static void ngx_hm_oa_paths(hm_buf_t *b);
static void ngx_hm_oa_operation(hm_buf_t *b, const ngx_hm_route_t *route);
static void ngx_hm_oa_resolve(ngx_hm_oa_op_t *op,
    const ngx_hm_route_t *route);
static ngx_hm_oa_own_t ngx_hm_oa_own(const ngx_hm_route_t *route);
static void ngx_hm_oa_record(ngx_hm_oa_op_t *op, ngx_hm_oa_own_t own);
static void ngx_hm_oa_id(hm_buf_t *b, const ngx_hm_oa_op_t *op);
static void ngx_hm_oa_parameters(hm_buf_t *b, const ngx_hm_oa_op_t *op);
static void ngx_hm_oa_query(hm_buf_t *b, const char *list);
static void ngx_hm_oa_parameter(hm_buf_t *b, const char *name);
static void ngx_hm_oa_body(hm_buf_t *b, const ngx_hm_oa_op_t *op);
static void ngx_hm_oa_answers(hm_buf_t *b, const ngx_hm_oa_op_t *op);
static void ngx_hm_oa_answer(hm_buf_t *b, const ngx_hm_oa_op_t *op,
    ngx_uint_t status, const char *meaning);
static ngx_uint_t ngx_hm_oa_may(const ngx_hm_oa_op_t *op, ngx_uint_t status);


static const struct {
    ngx_uint_t    method;
    const char   *name;
    const char   *record;                /* operationId of a record's */
} ngx_hm_oa_methods[] = {
    { NGX_HTTP_GET, "get", "get" },
    { NGX_HTTP_PUT, "put", "replace" },
    { NGX_HTTP_POST, "post", "create" },
    { NGX_HTTP_PATCH, "patch", "update" },
    { NGX_HTTP_DELETE, "delete", "delete" }
};

#define NGX_HM_OA_NMETHODS                                                    \
    (sizeof(ngx_hm_oa_methods) / sizeof(ngx_hm_oa_methods[0]))


/* What the directives say, by the minute. */
static struct {
    const char   *name;
    ngx_uint_t    quota;
} ngx_hm_oa_classes[] = {
#define X(id, name, n)  { name, n },
    NGX_HM_CLASSES(X)
#undef X
};


ngx_int_t
ngx_hm_openapi_build(ngx_conf_t *cf, ngx_str_t *out)
{
    hm_mem_t             mem;
    hm_buf_t             b;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_healthmate_module);

    for (i = 0; i < NGX_HM_CLASS_LAST; i++) {
        ngx_hm_oa_classes[i].quota = mcf->quota[i] * 60 / mcf->window[i];
    }

    mem.alloc = ngx_hm_oa_alloc;
    mem.ctx = cf->temp_pool;

    hm_buf_init(&b, &mem, NGX_HM_OA_SIZE);

    ngx_hm_oa_info(&b);
    ngx_hm_oa_tags(&b);
    ngx_hm_oa_paths(&b);
    ngx_hm_oa_components(&b);
    hm_buf_lit(&b, "}");

    if (b.failed) {
        return NGX_ERROR;
    }

    out->len = hm_buf_len(&b);
    out->data = ngx_pnalloc(cf->pool, out->len);

    if (out->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(out->data, b.start, out->len);

    return NGX_OK;
}


static void *
ngx_hm_oa_alloc(void *ctx, size_t size)
{
    return ngx_palloc(ctx, size);
}


/* Writing */


/* printf, and ' becomes ": for names; texts go through ..._string(). */
void
ngx_hm_oa(hm_buf_t *b, const char *fmt, ...)
{
    int      n;
    char     text[NGX_HM_OA_TEXT];
    va_list  args;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    if (n < 0 || (size_t) n >= sizeof(text)) {
        b->failed = true;
        return;
    }

    ngx_hm_oa_text(b, text);
}


void
ngx_hm_oa_text(hm_buf_t *b, const char *s)
{
    size_t  i, len;

    len = ngx_strlen(s);

    if (!hm_buf_reserve(b, len)) {
        return;
    }

    for (i = 0; i < len; i++) {
        *b->pos++ = s[i] == '\'' ? '"' : (unsigned char) s[i];
    }
}


/* A comma, unless this is the first of its object or array. */
void
ngx_hm_oa_next(hm_buf_t *b)
{
    if (!b->failed && b->pos[-1] != '{' && b->pos[-1] != '[') {
        hm_buf_lit(b, ",");
    }
}


void
ngx_hm_oa_key(hm_buf_t *b, const char *key)
{
    ngx_hm_oa_next(b);
    ngx_hm_oa(b, "'%s':", key);
}


void
ngx_hm_oa_string(hm_buf_t *b, const char *key, const char *text)
{
    hm_str_t  s;

    s.data = (unsigned char *) text;
    s.len = ngx_strlen(text);

    ngx_hm_oa_key(b, key);
    hm_json_text(b, s);
}


/* "/health-data/{id}" becomes HealthDataById. */
void
ngx_hm_oa_camel(hm_buf_t *b, const char *s)
{
    u_char      c;
    ngx_uint_t  up;

    up = 1;

    for ( /* void */ ; *s != '\0'; s++) {
        c = (u_char) *s;

        if (c == '{') {
            hm_buf_lit(b, "By");
        }

        if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
            && (c < '0' || c > '9'))
        {
            up = 1;
            continue;
        }

        if (up && c >= 'a' && c <= 'z') {
            c = (u_char) (c - 'a' + 'A');
        }

        hm_buf_add(b, &c, 1);
        up = 0;
    }
}


/* Is the name one of a comma list? */
ngx_uint_t
ngx_hm_oa_listed(const char *list, const char *name)
{
    size_t       len;
    const char  *p;

    len = ngx_strlen(name);

    for (p = list; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';

        if (ngx_strncmp(p, name, len) == 0
            && (p[len] == ',' || p[len] == '\0'))
        {
            return 1;
        }
    }

    return 0;
}


/* The document's parts */


static void
ngx_hm_oa_info(hm_buf_t *b)
{
    ngx_hm_oa(b, "{'openapi':'3.1.0','info':{'title':'HealthMate',"
              "'version':'%s','summary':'Personal health data, kept sealed'",
              NGX_HM_VERSION);

    ngx_hm_oa_string(b, "description",
        "Base path /api/v1; JSON in and out, UTF-8. Times are RFC 3339 with "
        "an offset and answered in UTC with milliseconds. Unknown query "
        "parameters are 400, unknown or read-only members 422. Every error "
        "is application/problem+json and names every fault. Every GET can "
        "be a HEAD, every path takes OPTIONS. A member that may be left out "
        "of a body may also be null there. An answer has every member.");

    ngx_hm_oa_text(b, "},'servers':[{'url':'/'}]");
}


static void
ngx_hm_oa_tags(hm_buf_t *b)
{
    ngx_uint_t   i, n;
    const char  *tag;

    ngx_hm_oa_key(b, "tags");
    hm_buf_lit(b, "[");

    for (i = 0; i < ngx_hm_nroutes; i++) {
        tag = ngx_hm_routes[i].tag;

        for (n = 0; n < i; n++) {
            if (ngx_strcmp(ngx_hm_routes[n].tag, tag) == 0) {
                break;
            }
        }

        if (n != i) {
            continue;
        }

        ngx_hm_oa_next(b);
        hm_buf_lit(b, "{");
        ngx_hm_oa_string(b, "name", tag);

        for (n = 0; n < NGX_HM_OA_NTAGS; n++) {
            if (ngx_strcmp(ngx_hm_oa_tag_texts[n].name, tag) == 0) {
                ngx_hm_oa_string(b, "description",
                                 ngx_hm_oa_tag_texts[n].json);
            }
        }

        hm_buf_lit(b, "}");
    }

    hm_buf_lit(b, "]");
}


static void
ngx_hm_oa_paths(hm_buf_t *b)
{
    ngx_uint_t   i, n;
    const char  *path;

    ngx_hm_oa_key(b, "paths");
    hm_buf_lit(b, "{");

    for (i = 0; i < ngx_hm_nroutes; i++) {
        path = ngx_hm_routes[i].path;

        for (n = 0; n < i; n++) {
            if (ngx_strcmp(ngx_hm_routes[n].path, path) == 0) {
                break;
            }
        }

        if (n != i) {
            continue;                    /* with the path's first row */
        }

        ngx_hm_oa_key(b, path);
        hm_buf_lit(b, "{");

        for (n = i; n < ngx_hm_nroutes; n++) {
            if (ngx_strcmp(ngx_hm_routes[n].path, path) == 0) {
                ngx_hm_oa_operation(b, &ngx_hm_routes[n]);
            }
        }

        hm_buf_lit(b, "}");
    }

    hm_buf_lit(b, "}");
}


/* An operation */


static void
ngx_hm_oa_operation(hm_buf_t *b, const ngx_hm_route_t *route)
{
    ngx_uint_t      i;
    ngx_hm_class_t  rate;
    ngx_hm_oa_op_t  op;

    ngx_hm_oa_resolve(&op, route);

    for (i = 0; i < NGX_HM_OA_NMETHODS; i++) {
        if (ngx_hm_oa_methods[i].method == route->method) {
            ngx_hm_oa_key(b, ngx_hm_oa_methods[i].name);
        }
    }

    hm_buf_lit(b, "{");
    ngx_hm_oa_id(b, &op);
    ngx_hm_oa_string(b, "summary", route->summary);
    ngx_hm_oa_key(b, "tags");
    hm_buf_lit(b, "[");
    hm_json_text(b, (hm_str_t) { ngx_strlen(route->tag),
                                 (unsigned char *) route->tag });
    hm_buf_lit(b, "]");

    ngx_hm_oa_text(b, route->perm == HM_PERM_NONE
                      ? ",'security':[]" : ",'security':[{'bearer':[]}]");

    /* of a batch its items are counted, by the step that reads them */

    rate = route->body == NGX_HM_BODY_BATCH ? NGX_HM_CLASS_INGEST
                                            : route->rate;

    ngx_hm_oa(b, ",'x-permission':'%s','x-rate-class':'%s'",
              hm_perm_name(route->perm), ngx_hm_oa_classes[rate].name);

    if (route->flags & NGX_HM_FRESH) {
        ngx_hm_oa_text(b, ",'x-step-up':true");
    }

    if (ngx_hm_oa_classes[rate].quota != 0) {
        ngx_hm_oa(b, ",'x-rate-per-minute':%lu",
                  (unsigned long) ngx_hm_oa_classes[rate].quota);
    }

    ngx_hm_oa_parameters(b, &op);
    ngx_hm_oa_body(b, &op);
    ngx_hm_oa_answers(b, &op);
    hm_buf_lit(b, "}");
}


/*
 * What the operation takes and gives: its row of shapes; or, where the path
 * is a resource's own, what that verb means for a record.
 */
static void
ngx_hm_oa_resolve(ngx_hm_oa_op_t *op, const ngx_hm_route_t *route)
{
    ngx_uint_t                i;
    ngx_hm_oa_own_t           own;
    const ngx_hm_oa_shape_t  *s;

    ngx_memzero(op, sizeof(ngx_hm_oa_op_t));

    op->route = route;
    op->status = 200;

    own = ngx_hm_oa_own(route);

    if (own != NGX_HM_OA_NOT_OWN) {
        ngx_hm_oa_record(op, own);
        return;
    }

    for (i = 0; i < NGX_HM_OA_NSHAPES; i++) {
        s = &ngx_hm_oa_shapes[i];

        if (s->method != route->method
            || ngx_strcmp(s->path, route->path) != 0)
        {
            continue;
        }

        op->status = s->status;
        op->flags = s->flags;
        op->type = s->type;
        (void) snprintf(op->body, sizeof(op->body), "%s",
                        s->body != NULL ? s->body : "");
        (void) snprintf(op->answer, sizeof(op->answer), "%s",
                        s->answer != NULL ? s->answer : "");
        return;
    }
}


static ngx_hm_oa_own_t
ngx_hm_oa_own(const ngx_hm_route_t *route)
{
    size_t       len;
    const char  *path;

    len = sizeof(NGX_HM_OA_API) - 1;
    path = route->path;

    if (route->resource == NULL
        || ngx_strncmp(path, NGX_HM_OA_API, len) != 0)
    {
        return NGX_HM_OA_NOT_OWN;
    }

    path += len;
    len = ngx_strlen(route->resource->path);

    if (ngx_strncmp(path, route->resource->path, len) != 0) {
        return NGX_HM_OA_NOT_OWN;
    }

    path += len;

    return *path == '\0' ? NGX_HM_OA_COLLECTION
                         : ngx_strcmp(path, "/{id}") == 0
                           ? NGX_HM_OA_RECORD : NGX_HM_OA_NOT_OWN;
}


static void
ngx_hm_oa_record(ngx_hm_oa_op_t *op, ngx_hm_oa_own_t own)
{
    const char  *title, *list, *body;

    title = op->route->resource->title;
    list = "";
    body = NULL;

    switch (op->route->method) {

    case NGX_HTTP_GET:
        if (own == NGX_HM_OA_COLLECTION) {
            list = "List";
        } else {
            op->flags = NGX_HM_OA_ETAG;
        }
        break;

    case NGX_HTTP_POST:
        op->status = 201;
        op->flags = NGX_HM_OA_LOCATION|NGX_HM_OA_CONFLICT|NGX_HM_OA_REPLAY
                    |NGX_HM_OA_TAGGED;
        body = "Write";

        if (op->route->resource->conflict != NULL) {
            op->flags |= NGX_HM_OA_AGAIN;
        }
        break;

    case NGX_HTTP_DELETE:
        op->status = 204;
        op->flags = NGX_HM_OA_ITEM;
        return;

    default:                             /* PUT, PATCH */
        op->flags = NGX_HM_OA_ITEM|NGX_HM_OA_CONFLICT|NGX_HM_OA_TAGGED;
        body = op->route->method == NGX_HTTP_PUT ? "Write" : "Patch";
        break;
    }

    (void) snprintf(op->answer, sizeof(op->answer), "%s%s", title, list);

    if (body != NULL) {
        (void) snprintf(op->body, sizeof(op->body), "%s%s", title, body);
    }
}


/* listHealthData, createHealthData; of others the verb and the path. */
static void
ngx_hm_oa_id(hm_buf_t *b, const ngx_hm_oa_op_t *op)
{
    size_t                 len;
    ngx_uint_t             i;
    const char            *verb, *rest;
    ngx_hm_oa_own_t        own;
    const ngx_hm_route_t  *route;

    route = op->route;
    own = ngx_hm_oa_own(route);
    verb = "";
    len = sizeof(NGX_HM_OA_API) - 1;

    for (i = 0; i < NGX_HM_OA_NMETHODS; i++) {
        if (ngx_hm_oa_methods[i].method == route->method) {
            verb = own != NGX_HM_OA_NOT_OWN ? ngx_hm_oa_methods[i].record
                                            : ngx_hm_oa_methods[i].name;
        }
    }

    if (own == NGX_HM_OA_COLLECTION && route->method == NGX_HTTP_GET) {
        verb = "list";
    }

    rest = own != NGX_HM_OA_NOT_OWN ? route->resource->path
           : ngx_strncmp(route->path, NGX_HM_OA_API, len) == 0
             ? route->path + len : route->path;

    ngx_hm_oa_key(b, "operationId");
    ngx_hm_oa(b, "'%s", verb);
    ngx_hm_oa_camel(b, rest);
    hm_buf_lit(b, "\"");
}


static void
ngx_hm_oa_parameters(hm_buf_t *b, const ngx_hm_oa_op_t *op)
{
    ngx_hm_oa_key(b, "parameters");
    hm_buf_lit(b, "[");

    if (strstr(op->route->path, "{id}") != NULL) {
        ngx_hm_oa_parameter(b, "Id");
    }

    ngx_hm_oa_query(b, op->route->query);

    if (op->flags & NGX_HM_OA_ITEM) {
        ngx_hm_oa_parameter(b, "IfMatch");
    }

    if (op->flags & NGX_HM_OA_ETAG) {
        ngx_hm_oa_parameter(b, "IfNoneMatch");
    }

    if (op->flags & NGX_HM_OA_REPLAY) {
        ngx_hm_oa_parameter(b, "IdempotencyKey");
    }

    hm_buf_lit(b, "]");
}


static void
ngx_hm_oa_parameter(hm_buf_t *b, const char *name)
{
    ngx_hm_oa_next(b);
    ngx_hm_oa(b, "{'$ref':'#/components/parameters/%s'}", name);
}


/* The comma list of a route; a name nobody explained is any text. */
static void
ngx_hm_oa_query(hm_buf_t *b, const char *list)
{
    char         name[64];
    size_t       len;
    ngx_uint_t   i;
    const char  *p;

    for (p = list; p != NULL && *p != '\0'; p += len, p += *p == ',') {

        len = strcspn(p, ",");

        (void) snprintf(name, sizeof(name), "%.*s", (int) len, p);

        for (i = 0; i < NGX_HM_OA_NPARAMS; i++) {
            if (ngx_strcmp(ngx_hm_oa_params[i].name, name) == 0) {
                break;
            }
        }

        if (i < NGX_HM_OA_NPARAMS) {
            ngx_hm_oa_parameter(b, name);
            continue;
        }

        ngx_hm_oa_next(b);
        ngx_hm_oa(b, "{'name':'%s','in':'query','schema':{'type':'string'}}",
                  name);
    }
}


static void
ngx_hm_oa_body(hm_buf_t *b, const ngx_hm_oa_op_t *op)
{
    if (op->route->body == NGX_HM_BODY_NONE
        || op->route->body == NGX_HM_BODY_ANY)
    {
        return;
    }

    ngx_hm_oa_key(b, "requestBody");
    ngx_hm_oa_text(b, "{'required':true,'content':{");

    switch (op->route->body) {

    case NGX_HM_BODY_PATCH:
        ngx_hm_oa_content(b, "application/merge-patch+json", op->body);
        ngx_hm_oa_content(b, "application/json", op->body);
        break;

    case NGX_HM_BODY_BATCH:
        ngx_hm_oa(b, "'application/json':{'schema':{'type':'array',"
                  "'minItems':1,'maxItems':%d,'items':{'$ref':'"
                  NGX_HM_OA_SCHEMA "%s'}}}", NGX_HM_OA_BATCH_MAX, op->body);
        ngx_hm_oa_content(b, "application/x-ndjson", op->body);
        break;

    default:
        ngx_hm_oa_content(b, "application/json", op->body);
        break;
    }

    hm_buf_lit(b, "}}");
}


/* Without a known schema it is any object. */
void
ngx_hm_oa_content(hm_buf_t *b, const char *type, const char *schema)
{
    ngx_hm_oa_key(b, type);

    if (*schema == '\0') {
        ngx_hm_oa_text(b, "{'schema':{'type':'object'}}");
        return;
    }

    ngx_hm_oa(b, "{'schema':{'$ref':'" NGX_HM_OA_SCHEMA "%s'}}", schema);
}


/* Answers */


static void
ngx_hm_oa_answers(hm_buf_t *b, const ngx_hm_oa_op_t *op)
{
    ngx_uint_t      i;
    ngx_hm_oa_op_t  mailed;

    ngx_hm_oa_key(b, "responses");
    hm_buf_lit(b, "{");

    if (op->flags & NGX_HM_OA_AGAIN) {
        ngx_hm_oa_answer(b, op, 200, "It was there already; this is the "
                         "stored one, unchanged.");
    }

    ngx_hm_oa_answer(b, op, op->status,
                     op->status == 201 ? "Made."
                     : op->status == 204 ? "Done." : "The answer.");

    if (op->flags & NGX_HM_OA_MAILED) {
        mailed = *op;
        mailed.flags = 0;
        ngx_memcpy(mailed.answer, "Accepted", 9);
        ngx_hm_oa_answer(b, &mailed, 202, "Where the mailbox has to answer "
                         "first: a mail is on its way.");
    }

    if (op->flags & NGX_HM_OA_ETAG) {
        ngx_hm_oa_answer(b, op, 304, "It has not changed.");
    }

    if (op->flags & NGX_HM_OA_UNREADY) {
        ngx_hm_oa_answer(b, op, 503, "Not now; the body says what is "
                         "missing.");
    }

    for (i = 0; i < NGX_HM_OA_NSTATUSES; i++) {
        if (ngx_hm_oa_may(op, ngx_hm_oa_statuses[i])) {
            ngx_hm_oa_next(b);
            ngx_hm_oa(b, "'%lu':{'$ref':'#/components/responses/Problem%lu'}",
                      (unsigned long) ngx_hm_oa_statuses[i],
                      (unsigned long) ngx_hm_oa_statuses[i]);
        }
    }

    ngx_hm_oa_text(b, ",'default':{'$ref':'#/components/responses/Problem'}");
    hm_buf_lit(b, "}");
}


static void
ngx_hm_oa_answer(hm_buf_t *b, const ngx_hm_oa_op_t *op, ngx_uint_t status,
    const char *meaning)
{
    ngx_uint_t  i;

    const struct {
        const char   *name;
        ngx_uint_t    sent;
    } headers[] = {
        { "X-Request-ID", 1 },
        { "ETag", op->flags & (NGX_HM_OA_ETAG|NGX_HM_OA_TAGGED) },
        { "Location", op->flags & NGX_HM_OA_LOCATION },
        { "Idempotent-Replayed", op->flags & NGX_HM_OA_REPLAY },
        { "Set-Cookie", op->flags & NGX_HM_OA_SESSION },
        { "RateLimit", ngx_hm_oa_may(op, 429) },
        { "RateLimit-Policy", ngx_hm_oa_may(op, 429) },
        { "Retry-After", status == 503 }
    };

    ngx_hm_oa_next(b);
    ngx_hm_oa(b, "'%lu':{", (unsigned long) status);
    ngx_hm_oa_string(b, "description", meaning);
    ngx_hm_oa_text(b, ",'headers':{");

    for (i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        if (headers[i].sent) {
            ngx_hm_oa_key(b, headers[i].name);
            ngx_hm_oa(b, "{'$ref':'#/components/headers/%s'}",
                      headers[i].name);
        }
    }

    hm_buf_lit(b, "}");

    if (status != 204 && status != 304 && status != 302) {
        ngx_hm_oa_text(b, ",'content':{");
        ngx_hm_oa_content(b, op->type != NULL ? op->type
                                              : "application/json",
                          op->answer);

        if (op->route->body == NGX_HM_BODY_BATCH) {
            ngx_hm_oa_content(b, "application/x-ndjson", "BatchLine");
        }

        hm_buf_lit(b, "}");
    }

    hm_buf_lit(b, "}");
}


/* Can the operation be answered with this problem? */
static ngx_uint_t
ngx_hm_oa_may(const ngx_hm_oa_op_t *op, ngx_uint_t status)
{
    ngx_uint_t             body;
    const ngx_hm_route_t  *route;

    route = op->route;
    body = route->body != NGX_HM_BODY_NONE && route->body != NGX_HM_BODY_ANY;

    switch (status) {
    case 400:
        return 1;
    case 401:
        return route->perm != HM_PERM_NONE || op->flags & NGX_HM_OA_SESSION;
    case 403:
        return route->perm > HM_PERM_SELF || op->flags & NGX_HM_OA_CLOSED;
    case 404:
        return strstr(route->path, "{id}") != NULL
               || strstr(route->path, "/.well-known/") != NULL
               || op->flags & NGX_HM_OA_NAMES
               || ngx_hm_oa_listed(route->query, "user_id");
    case 409:
        return op->flags & NGX_HM_OA_CONFLICT;
    case 410:
        return op->flags & NGX_HM_OA_STALE;
    case 412:
        return op->flags & NGX_HM_OA_ITEM;
    case 413:
    case 415:
    case 422:
        return body;
    case 429:
        return route->rate != NGX_HM_CLASS_NONE
               || route->body == NGX_HM_BODY_BATCH;
    case 503:
        return ngx_strncmp(route->path, NGX_HM_OA_API "/",
                           sizeof(NGX_HM_OA_API)) == 0;
    default:
        return 0;
    }
}
