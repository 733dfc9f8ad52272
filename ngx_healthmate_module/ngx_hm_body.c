/*
 * ngx_hm_body: request bodies, read as they come into the context's own
 * memory.
 *
 * nginx would write a body that exceeds its buffer into a temporary file, in
 * clear.  So bodies are read unbuffered, whatever their framing
 * (Content-Length, chunked, HTTP/2), and kept in memory up to the limit of
 * the route; all bodies of a worker together have a budget.
 *
 * An NDJSON batch is handed on while it is still coming: its endpoint takes
 * what is there and asks for more (ngx_hm_body_more).
 */

#include "ngx_hm.h"


#define NGX_HM_BODY_ANON_MAX     (64 * 1024)
#define NGX_HM_BODY_JSON_MAX     (1024 * 1024)
#define NGX_HM_BODY_ARRAY_MAX    (8 * 1024 * 1024)
#define NGX_HM_BODY_NDJSON_MAX   (64 * 1024 * 1024)
#define NGX_HM_BODY_ANSWER       (64 * 1024 * 1024)
#define NGX_HM_BODY_PART         (512 * 1024)
#define NGX_HM_BODY_PATIENCE     90000
#define NGX_HM_BODY_BUDGET       (192 * 1024 * 1024)

/* client_body_timeout is between two reads: a byte a second never meets it */
#define NGX_HM_BODY_GRACE        15000       /* ms */
#define NGX_HM_BODY_RATE         8           /* bytes each ms after it */


typedef struct {
    size_t                 total;        /* bytes of the body so far */
    size_t                 max;
    size_t                 charged;
    size_t                 answer;
    size_t                 enough;       /* stop reading at this length */
    unsigned               last:1;
    unsigned               wanted:1;     /* the endpoint waits for more */
    unsigned               broken:1;
    ngx_msec_t             begun;
    u_char                *heap;         /* the buffer, outside the arena */
} ngx_hm_reader_t;


static size_t  ngx_hm_body_bytes;        /* of all bodies of this worker */


static void ngx_hm_body_start(ngx_http_request_t *r);
static void ngx_hm_body_event(ngx_http_request_t *r);
static ngx_uint_t ngx_hm_body_slow(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_body_take(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_body_append(ngx_hm_ctx_t *hm, u_char *p, size_t len);
static void ngx_hm_body_fail(ngx_hm_ctx_t *hm, hm_problem_t p);
static void ngx_hm_body_free(void *data);
static hm_problem_t ngx_hm_body_type(ngx_hm_ctx_t *hm);
static ngx_uint_t ngx_hm_type_is(hm_str_t type, const char *name);
static size_t ngx_hm_body_max(ngx_hm_ctx_t *hm);


/* Of the gate: may a body of this type and size come here? */
hm_problem_t
ngx_hm_body_check(ngx_hm_ctx_t *hm)
{
    ngx_http_request_t  *r;

    r = hm->request;

    if (hm->route->body == NGX_HM_BODY_NONE
        || hm->route->body == NGX_HM_BODY_ANY)
    {
        return HM_PROBLEM_NONE;
    }

    if (r->headers_in.content_length_n > 0 || r->headers_in.chunked
        || r->headers_in.content_type != NULL)
    {
        if (ngx_hm_body_type(hm) != HM_PROBLEM_NONE) {
            if (hm->route->body == NGX_HM_BODY_PATCH) {
                hm->headers.accept_patch =
                    HM_STR("application/merge-patch+json, application/json");
            }

            return HM_PROBLEM_MEDIA_TYPE;
        }
    }

    if (r->headers_in.content_length_n > (off_t) ngx_hm_body_max(hm)) {
        return HM_PROBLEM_TOO_LARGE;
    }

    return HM_PROBLEM_NONE;
}


static size_t
ngx_hm_body_max(ngx_hm_ctx_t *hm)
{
    if (hm->route->perm == HM_PERM_NONE) {
        return NGX_HM_BODY_ANON_MAX;
    }

    if (hm->route->body != NGX_HM_BODY_BATCH) {
        return NGX_HM_BODY_JSON_MAX;
    }

    return hm->ndjson ? NGX_HM_BODY_NDJSON_MAX : NGX_HM_BODY_ARRAY_MAX;
}


static hm_problem_t
ngx_hm_body_type(ngx_hm_ctx_t *hm)
{
    hm_str_t          type;
    ngx_table_elt_t  *h;

    h = hm->request->headers_in.content_type;
    if (h == NULL) {
        return HM_PROBLEM_MEDIA_TYPE;
    }

    type = ngx_hm_hm(h->value);

    if (ngx_hm_type_is(type, "application/json")) {
        return HM_PROBLEM_NONE;
    }

    if (hm->route->body == NGX_HM_BODY_PATCH
        && ngx_hm_type_is(type, "application/merge-patch+json"))
    {
        return HM_PROBLEM_NONE;
    }

    if (hm->route->body == NGX_HM_BODY_BATCH
        && ngx_hm_type_is(type, "application/x-ndjson"))
    {
        hm->ndjson = 1;
        return HM_PROBLEM_NONE;
    }

    return HM_PROBLEM_MEDIA_TYPE;
}


/* The media type, with no parameter but charset=utf-8. */
static ngx_uint_t
ngx_hm_type_is(hm_str_t type, const char *name)
{
    size_t   len;
    u_char  *p, *end;

    len = ngx_strlen(name);

    if (type.len < len
        || ngx_strncasecmp(type.data, (u_char *) name, len) != 0)
    {
        return 0;
    }

    p = type.data + len;
    end = type.data + type.len;

    while (p < end && *p == ' ') {
        p++;
    }

    if (p == end) {
        return 1;
    }

    if (*p++ != ';') {
        return 0;
    }

    while (p < end && *p == ' ') {
        p++;
    }

    len = (size_t) (end - p);

    return (len == 13
            && ngx_strncasecmp(p, (u_char *) "charset=utf-8", 13) == 0)
           || (len == 15
               && ngx_strncasecmp(p, (u_char *) "charset=\"utf-8\"", 15)
                  == 0)
           || len == 0;
}


void
ngx_hm_body_read(ngx_hm_ctx_t *hm)
{
    ngx_int_t            rc;
    ngx_hm_reader_t     *rd;
    ngx_pool_cleanup_t  *cln;
    ngx_http_request_t  *r;

    r = hm->request;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_hm_reader_t));

    if (cln == NULL) {
        (void) ngx_http_discard_request_body(r);
        r->main->count++;
        ngx_hm_body_fail(hm, HM_PROBLEM_SERVER_ERROR);
        return;
    }

    rd = cln->data;
    ngx_memzero(rd, sizeof(ngx_hm_reader_t));
    cln->handler = ngx_hm_body_free;
    rd->max = ngx_hm_body_max(hm);
    rd->enough = NGX_HM_BODY_PART;
    rd->begun = ngx_current_msec;

    hm->reader = rd;

    r->request_body_no_buffering = 1;

    rc = ngx_http_read_client_request_body(r, ngx_hm_body_start);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        /* it has given back its reference: take one for the answer */
        r->main->count++;
        r->keepalive = 0;
        ngx_hm_body_fail(hm, rc == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE
                             ? HM_PROBLEM_TOO_LARGE
                             : rc == NGX_HTTP_BAD_REQUEST
                               ? HM_PROBLEM_REQUEST_MALFORMED
                               : HM_PROBLEM_SERVER_ERROR);
    }
}


static void
ngx_hm_body_start(ngx_http_request_t *r)
{
    r->read_event_handler = ngx_hm_body_event;
    ngx_hm_body_event(r);
}


static void
ngx_hm_body_event(ngx_http_request_t *r)
{
    size_t            used;
    ngx_int_t         rc;
    ngx_hm_ctx_t     *hm;
    ngx_hm_reader_t  *rd;

    hm = ngx_http_get_module_ctx(r, ngx_http_healthmate_module);
    rd = hm->reader;

    if (hm->finished || rd->broken) {
        return;
    }

    if (r->connection->read->timedout || ngx_hm_body_slow(hm)) {
        r->connection->timedout = 1;
        rd->broken = 1;
        ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    /* the endpoint may have consumed some; the buffer may move */

    used = hm->streaming ? (size_t) (hm->body.data - hm->body_start) : 0;

    rc = ngx_hm_body_take(hm);

    if (rc == NGX_ERROR) {
        return;                          /* it has been answered */
    }

    hm->body.data = hm->body_start + used;
    hm->body.len = hm->body_len - used;

    if (rc == NGX_OK) {
        rd->last = 1;
        hm->body_done = 1;
        r->read_event_handler = ngx_http_block_reading;
    }

    if (hm->streaming) {
        /* the endpoint runs already */

        if (rd->wanted && (rd->last || hm->body_len >= NGX_HM_BODY_PART)) {
            rd->wanted = 0;
            ngx_hm_resume(hm);
        }

        return;
    }

    if (rd->last || (hm->ndjson && hm->body_len >= NGX_HM_BODY_PART)) {
        hm->streaming = hm->ndjson;
        ngx_hm_run(hm);
    }
}


/* A stream may pause: there it is often we who do not read. */
static ngx_uint_t
ngx_hm_body_slow(ngx_hm_ctx_t *hm)
{
    ngx_msec_t        spent;
    ngx_hm_reader_t  *rd;

    rd = hm->reader;
    spent = ngx_current_msec - rd->begun;

    return !hm->ndjson && spent > NGX_HM_BODY_GRACE
           && rd->total < (spent - NGX_HM_BODY_GRACE) * NGX_HM_BODY_RATE;
}


/*
 * Moves what nginx has into our buffer, again and again until there is no
 * more now.  NGX_OK: that was all of it; NGX_AGAIN; NGX_ERROR: answered.
 */
static ngx_int_t
ngx_hm_body_take(ngx_hm_ctx_t *hm)
{
    ngx_int_t            rc;
    ngx_buf_t           *b;
    ngx_chain_t         *cl;
    ngx_hm_reader_t     *rd;
    ngx_http_request_t  *r;

    r = hm->request;
    rd = hm->reader;

    for ( ;; ) {

        if (r->request_body != NULL) {
            for (cl = r->request_body->bufs; cl != NULL; cl = cl->next) {
                b = cl->buf;

                if (!ngx_buf_in_memory(b) && ngx_buf_size(b) != 0) {
                    /* another module read it, into a file: not with us */
                    ngx_hm_body_fail(hm, HM_PROBLEM_TOO_LARGE);
                    return NGX_ERROR;
                }

                if (ngx_hm_body_append(hm, b->pos,
                                       (size_t) (b->last - b->pos))
                    != NGX_OK)
                {
                    return NGX_ERROR;
                }

                b->pos = b->last;
            }

            r->request_body->bufs = NULL;
        }

        if (!r->reading_body) {
            return NGX_OK;
        }

        if (hm->streaming && hm->body_len >= rd->enough) {
            /* enough for now: the client is slowed down by its window */

            if (r->connection->read->timer_set) {
                ngx_del_timer(r->connection->read);
            }

            return NGX_AGAIN;
        }

        rc = ngx_http_read_unbuffered_request_body(r);

        if (rc >= NGX_HTTP_SPECIAL_RESPONSE || rc == NGX_ERROR) {
            r->keepalive = 0;
            ngx_hm_body_fail(hm, rc == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE
                                 ? HM_PROBLEM_TOO_LARGE
                                 : HM_PROBLEM_REQUEST_MALFORMED);
            return NGX_ERROR;
        }

        if (rc == NGX_AGAIN && r->request_body->bufs == NULL) {
            return NGX_AGAIN;
        }
    }
}


static ngx_int_t
ngx_hm_body_append(ngx_hm_ctx_t *hm, u_char *p, size_t len)
{
    size_t            need, size;
    u_char           *mem;
    ngx_hm_reader_t  *rd;

    rd = hm->reader;
    rd->total += len;

    if (rd->total > rd->max) {
        hm->request->keepalive = 0;
        ngx_hm_body_fail(hm, HM_PROBLEM_TOO_LARGE);
        return NGX_ERROR;
    }

    need = hm->body_len + len;

    if (need > hm->body_size) {

        /*
         * It grows with what has come: a length that is only announced
         * takes no memory.  Strangers leave a third to those who are known.
         */

        size = ngx_max(need, ngx_max(hm->body_size * 2, 4096));

        if (ngx_hm_body_bytes + size > (hm->signed_in
                                        ? NGX_HM_BODY_BUDGET
                                        : NGX_HM_BODY_BUDGET / 3 * 2))
        {
            hm->headers.retry_after = 1;
            ngx_hm_count(NGX_HM_M_OVERLOADED, 1);
            ngx_hm_body_fail(hm, HM_PROBLEM_OVERLOADED);
            return NGX_ERROR;
        }

        mem = ngx_alloc(size, ngx_hm_worker.log);
        if (mem == NULL) {
            ngx_hm_body_fail(hm, HM_PROBLEM_OVERLOADED);
            return NGX_ERROR;
        }

        if (rd->heap != NULL) {
            ngx_memcpy(mem, hm->body_start, hm->body_len);
            hm_wipe(rd->heap, hm->body_size);
            ngx_free(rd->heap);
        }

        ngx_hm_body_bytes += size - rd->charged;
        rd->charged = size;
        rd->heap = mem;
        hm->body_start = mem;
        hm->body_size = size;
    }

    if (len != 0) {
        ngx_memcpy(hm->body_start + hm->body_len, p, len);
        hm->body_len = need;
    }

    return NGX_OK;
}


/*
 * Of a streamed body: hm->body holds what has come and was not consumed;
 * the caller has moved hm->body.data on.  NGX_OK: more is there, or all of
 * it is (NGX_DONE); NGX_AGAIN: wait.
 */
ngx_int_t
ngx_hm_body_more(ngx_hm_ctx_t *hm)
{
    size_t            used, before;
    ngx_int_t         rc;
    ngx_hm_reader_t  *rd;

    rd = hm->reader;

    used = (size_t) (hm->body.data - hm->body_start);

    if (used != 0) {
        hm->body_len -= used;
        ngx_memmove(hm->body_start, hm->body.data, hm->body_len);
    }

    hm->body.data = hm->body_start;
    hm->body.len = hm->body_len;

    if (rd->last) {
        return NGX_DONE;
    }

    rd->wanted = 1;
    before = hm->body_len;
    rd->enough = before + NGX_HM_BODY_PART;
    rc = ngx_hm_body_take(hm);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    hm->body.data = hm->body_start;
    hm->body.len = hm->body_len;

    if (rc == NGX_OK) {
        rd->last = 1;
        rd->wanted = 0;
        hm->body_done = 1;
        hm->request->read_event_handler = ngx_http_block_reading;
        return NGX_DONE;
    }

    if (hm->body_len >= NGX_HM_BODY_PART && hm->body_len > before) {
        rd->wanted = 0;
        return NGX_OK;
    }

    return NGX_AGAIN;
}


static void
ngx_hm_body_fail(ngx_hm_ctx_t *hm, hm_problem_t p)
{
    ngx_hm_reader_t  *rd;

    rd = hm->reader;

    if (rd != NULL) {
        rd->broken = 1;
    }

    hm->nback = 0;
    hm->step = NULL;
    (void) ngx_hm_fail(hm, p);
    ngx_hm_reply_problem(hm);

    if (hm->waiting) {
        /* the endpoint waits for more of it: it goes on with the fault */
        ngx_hm_resume(hm);
        return;
    }

    ngx_hm_run(hm);
}


static void
ngx_hm_body_free(void *data)
{
    ngx_hm_reader_t  *rd = data;

    ngx_hm_body_bytes -= rd->answer;
    rd->answer = 0;

    if (rd->heap != NULL) {
        hm_wipe(rd->heap, rd->charged);
        ngx_free(rd->heap);
        ngx_hm_body_bytes -= rd->charged;
        rd->heap = NULL;
    }
}


/* The endpoint waits for more; the client has its own, longer patience. */
void
ngx_hm_body_wait(ngx_hm_ctx_t *hm)
{
    ngx_hm_wait(hm);
    hm->body_wait = 1;

    ngx_add_timer(&hm->deadline, NGX_HM_BODY_PATIENCE);
}


ngx_int_t
ngx_hm_body_charge(ngx_hm_ctx_t *hm, size_t size)
{
    ngx_hm_reader_t  *rd;

    rd = hm->reader;

    if (rd->answer + size > NGX_HM_BODY_ANSWER
        || ngx_hm_body_bytes + size > NGX_HM_BODY_BUDGET)
    {
        ngx_hm_count(NGX_HM_M_OVERLOADED, 1);
        return NGX_DECLINED;
    }

    ngx_hm_body_bytes += size;
    rd->answer += size;

    return NGX_OK;
}


/* A step: hm->body into hm->json. */
ngx_hm_rc_t
ngx_hm_json_body(ngx_hm_ctx_t *hm)
{
    hm_str_t  reason;

    if (hm->body_len == 0) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_REQUEST_MALFORMED,
                                  "a JSON body is needed");
    }

    hm->json = hm_json_parse(hm->body, &reason);

    if (hm->json == NULL) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_REQUEST_MALFORMED, "%.*s",
                                  (int) reason.len, (char *) reason.data);
    }

    return NGX_HM_NEXT;
}
