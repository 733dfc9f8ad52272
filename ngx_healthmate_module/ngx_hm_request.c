/*
 * ngx_hm_request: a request comes in, passes the gate, and its context goes
 * away.
 *
 * The gate has one order, and until its end only CPU is spent:
 *
 *     request id -> host -> route (404, 405, OPTIONS) -> token, revocation
 *     -> rate class -> query -> permission and subject -> step-up -> body
 *     -> steps
 *
 * Handlers never re-check.  Whatever the gate refuses is answered by the
 * same exit as everything else (ngx_hm_step.c), so that a refusal to a known
 * person is audited like an access.
 */

#include "ngx_hm.h"


#define NGX_HM_FREE_MAX   512
#define NGX_HM_BLOCK      (64 * 1024)


static hm_problem_t ngx_hm_gate(ngx_hm_ctx_t *hm);
static hm_problem_t ngx_hm_gate_nowhere(ngx_hm_ctx_t *hm, hm_problem_t p);
static hm_reach_t ngx_hm_reach(ngx_hm_ctx_t *hm);
static hm_problem_t ngx_hm_gate_subject(ngx_hm_ctx_t *hm);
static hm_problem_t ngx_hm_gate_query(ngx_hm_ctx_t *hm);
static ngx_uint_t ngx_hm_query_known(const char *list, hm_str_t name);
static void ngx_hm_ctx_cleanup(void *data);
static ngx_hm_rc_t ngx_hm_step_options(ngx_hm_ctx_t *hm);


static ngx_queue_t   ngx_hm_free;
static ngx_uint_t    ngx_hm_nfree;
static ngx_uint_t    ngx_hm_free_ready;

static const ngx_hm_step_pt  ngx_hm_options_steps[] = {
    ngx_hm_step_options, NULL
};

static const ngx_hm_step_pt  ngx_hm_ready_steps[] = {
    ngx_hm_step_system_keys, ngx_hm_return, NULL
};

#define ngx_hm_first_steps(hm)                                                \
    ((hm)->route != NULL && ((hm)->route->flags & NGX_HM_FRESH)               \
     && (hm)->problem == HM_PROBLEM_NONE                                      \
     ? ngx_hm_fresh_steps : ngx_hm_ready_steps)


ngx_int_t
ngx_hm_handler(ngx_http_request_t *r)
{
    ngx_int_t      rc;
    ngx_hm_ctx_t  *hm;

    if (r != r->main) {
        return NGX_HTTP_NOT_FOUND;
    }

    hm = ngx_hm_ctx_create(r);
    if (hm == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    hm->problem = ngx_hm_gate(hm);

    if (hm->problem != HM_PROBLEM_NONE || hm->route == NULL
        || hm->route->body == NGX_HM_BODY_NONE
        || hm->route->body == NGX_HM_BODY_ANY)
    {
        /* what is not read must not become the next pipelined request */

        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        r->main->count++;
        hm->body_done = 1;

        if (hm->problem != HM_PROBLEM_NONE) {
            ngx_hm_reply_problem(hm);
            hm->step = NULL;
        }

        if (hm->signed_in) {
            ngx_hm_call(hm, ngx_hm_first_steps(hm));
        }

        if (hm->feed_ask && hm->problem != HM_PROBLEM_RATE_LIMITED) {
            ngx_hm_call(hm, ngx_hm_feed_steps);
        }

        ngx_hm_run(hm);

        return NGX_DONE;
    }

    if (hm->route->perm != HM_PERM_NONE || hm->route->steps != NULL) {
        ngx_hm_call(hm, ngx_hm_first_steps(hm));
    }

    if (hm->signed_in) {
        /* once more when the body is there: it may be long in coming */
        ngx_hm_call(hm, ngx_hm_feed_steps);
    }

    ngx_hm_body_read(hm);

    return NGX_DONE;
}


static hm_problem_t
ngx_hm_gate(ngx_hm_ctx_t *hm)
{
    ngx_uint_t    allow;
    hm_problem_t  p, limited;

    allow = 0;

    ngx_hm_request_id(hm);

    if (!hm_utf8_valid(hm->path)) {
        hm->path = HM_STR("/");          /* it cannot stand in JSON */
        return HM_PROBLEM_NOT_FOUND;
    }

    p = ngx_hm_gate_host(hm);
    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    switch (ngx_hm_route_find(hm, &allow)) {

    case NGX_HM_NO_PATH:
        /* a caller with a valid token is recorded, see the exit */
        return ngx_hm_gate_nowhere(hm, HM_PROBLEM_NOT_FOUND);

    case NGX_HM_NO_METHOD:
        return ngx_hm_gate_nowhere(hm, HM_PROBLEM_METHOD_NOT_ALLOWED);

    case NGX_HM_OPTIONS_:
        hm->step = ngx_hm_options_steps;
        hm->route = NULL;
        return HM_PROBLEM_NONE;

    default:
        break;
    }

    hm->step = hm->route->steps;

    p = hm->route->perm != HM_PERM_NONE ? ngx_hm_authenticate(hm)
                                        : HM_PROBLEM_NONE;

    /*
     * Before anything that a refusal would record.  Whoever shows no token,
     * or none that is good, is counted by address.
     */

    if (hm->route->rate != NGX_HM_CLASS_NONE) {
        limited = ngx_hm_limit(hm, hm->route->rate, 1);
        if (limited != HM_PROBLEM_NONE) {
            return limited;
        }
    }

    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    p = ngx_hm_gate_query(hm);
    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    if (hm->route->perm != HM_PERM_NONE) {
        if (!(hm->route->flags & NGX_HM_ENROL) && ngx_hm_factor_missing(hm)) {
            return HM_PROBLEM_MFA_REQUIRED;
        }

        p = ngx_hm_gate_subject(hm);
        if (p != HM_PROBLEM_NONE) {
            return p;
        }

        p = ngx_hm_gate_fresh(hm);
        if (p != HM_PROBLEM_NONE) {
            return p;
        }
    }

    return ngx_hm_body_check(hm);
}


/* No such route: counted as any request to the API is. */
static hm_problem_t
ngx_hm_gate_nowhere(ngx_hm_ctx_t *hm, hm_problem_t p)
{
    hm_problem_t  limited;

    if (hm->path.len < 8
        || ngx_memcmp(hm->path.data, "/api/v1/", 8) != 0)
    {
        return p;
    }

    (void) ngx_hm_authenticate(hm);

    limited = ngx_hm_limit(hm, NGX_HM_CLASS_DEFAULT, 1);

    return limited != HM_PROBLEM_NONE ? limited : p;
}


/*
 * The plain listener answers for loopback names only: a page in a browser
 * could otherwise reach it under a name of its own (DNS rebinding).
 */
hm_problem_t
ngx_hm_gate_host(ngx_hm_ctx_t *hm)
{
    ngx_str_t           *host;
    ngx_hm_srv_conf_t   *scf;

    scf = ngx_http_get_module_srv_conf(hm->request,
                                       ngx_http_healthmate_module);
    hm->plain = scf->plain;

    if (hm->conf->environment == NGX_HM_PRODUCTION
        && hm->request->connection->ssl == NULL)
    {
        /* a plain listener that does not call itself one */
        return HM_PROBLEM_MISDIRECTED;
    }

    if (!scf->plain) {
        return HM_PROBLEM_NONE;
    }

    host = &hm->request->headers_in.server;

    if ((host->len == 9 && ngx_strncmp(host->data, "localhost", 9) == 0)
        || (host->len == 9 && ngx_strncmp(host->data, "127.0.0.1", 9) == 0)
        || (host->len == 5 && ngx_strncmp(host->data, "[::1]", 5) == 0))
    {
        return HM_PROBLEM_NONE;
    }

    return HM_PROBLEM_MISDIRECTED;
}


static hm_problem_t
ngx_hm_gate_query(ngx_hm_ctx_t *hm)
{
    char        name[64];
    ngx_uint_t  i, n;

    if (hm->request->args.len == 0) {
        return HM_PROBLEM_NONE;
    }

    if (ngx_hm_args_parse(hm) != NGX_OK) {
        (void) ngx_hm_fail_detail(hm, HM_PROBLEM_INVALID_PARAMETER,
                                  "the query cannot be read");
        return HM_PROBLEM_INVALID_PARAMETER;
    }

    for (i = 0; i < hm->nargs; i++) {

        for (n = 0; n < i; n++) {
            if (hm_str_eq(hm->args[n].name, hm->args[i].name)) {
                break;
            }
        }

        snprintf(name, sizeof(name), "%.*s",
                 (int) ngx_min(hm->args[i].name.len, 60),
                 (char *) hm->args[i].name.data);

        if (n < i) {
            hm_fault_param(hm->faults, name, HM_FAULT_FORMAT,
                           "given more than once");

        } else if (!ngx_hm_query_known(hm->route->query,
                                       hm->args[i].name))
        {
            hm_fault_param(hm->faults, name, HM_FAULT_UNKNOWN,
                           "no such parameter");
        }
    }

    if (hm->faults->n == 0) {
        return HM_PROBLEM_NONE;
    }

    /* every fault is named, also those of the known ones' values */

    if (hm->route->params != NULL) {
        (void) hm->route->params(hm);
    }

    return HM_PROBLEM_INVALID_PARAMETER;
}


static ngx_uint_t
ngx_hm_query_known(const char *list, hm_str_t name)
{
    size_t       len;
    const char  *p, *end;

    for (p = list; p != NULL && *p != '\0'; p = *end ? end + 1 : end) {
        end = strchr(p, ',');
        end = end != NULL ? end : p + ngx_strlen(p);
        len = (size_t) (end - p);

        if (len == name.len && ngx_memcmp(p, name.data, len) == 0) {
            return 1;
        }
    }

    return 0;
}


/*
 * tools/build-faulty makes builds in which everybody reaches everybody, for
 * the tests of the second wall: then only row-level security stands between
 * people.
 */
static hm_reach_t
ngx_hm_reach(ngx_hm_ctx_t *hm)
{
#ifndef HM_FAULT_NO_GATE
    return hm_perm_reach(hm->who.role, hm->route->perm);
#else
    return HM_REACH_ASSIGNED;
#endif
}


/* About whom is the request, and may this role ask that at all? */
static hm_problem_t
ngx_hm_gate_subject(ngx_hm_ctx_t *hm)
{
    hm_str_t    *arg;
    hm_uuid_t    id;
    hm_reach_t   reach;

    hm->subject = hm->who.sub;

    if (hm->route->perm == HM_PERM_SELF) {
        return HM_PROBLEM_NONE;
    }

    reach = ngx_hm_reach(hm);
    if (reach == HM_REACH_NO) {
        return HM_PROBLEM_ACCESS_DENIED;
    }

    arg = ngx_hm_arg(hm, "user_id");
    if (arg == NULL) {
        return HM_PROBLEM_NONE;
    }

    if (hm_uuid_parse(&id, *arg) != HM_OK) {
        hm_fault_param(hm->faults, "user_id", HM_FAULT_FORMAT, "a UUID");
        return HM_PROBLEM_INVALID_PARAMETER;
    }

    if (hm_uuid_eq(&id, &hm->who.sub)) {
        return HM_PROBLEM_NONE;
    }

    if (reach == HM_REACH_OWN) {
        return HM_PROBLEM_ACCESS_DENIED;
    }

    /* a grant, which the database knows of, opens nothing for writing */

    if (reach == HM_REACH_ALL
        && hm->conf->admin_phi == NGX_HM_PHI_BREAK_GLASS
        && (hm->method != NGX_HTTP_GET || hm_uuid_eq(&id, &hm_nil_uuid)))
    {
        return HM_PROBLEM_BREAK_GLASS_REQUIRED;
    }

    if (hm_uuid_eq(&id, &hm_nil_uuid)) {
        return HM_PROBLEM_NOT_FOUND;     /* the system is nobody */
    }

    hm->subject = id;
    hm->foreign = 1;

    return HM_PROBLEM_NONE;
}


/* Kept when it is clean, else made; it reaches logs, answer and audit. */
void
ngx_hm_request_id(ngx_hm_ctx_t *hm)
{
    u_char         c;
    size_t         i;
    hm_str_t       id;
    unsigned char  raw[8];

    id = hm->request->headers_in.headers.last != NULL
         ? ngx_hm_header(hm, "x-request-id") : hm_null_str;

    if (id.len > 0 && id.len <= 64) {
        for (i = 0; i < id.len; i++) {
            c = id.data[i];

            if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
                  || (c >= 'A' && c <= 'Z') || c == '.' || c == '_'
                  || c == '-'))
            {
                break;
            }
        }

        if (i == id.len) {
            hm->request_id = id;
            return;
        }
    }

    hm->request_id.data = ngx_hm_palloc(hm, 16);

    if (hm->request_id.data != NULL && hm_random(raw, 8) == HM_OK) {
        hm_hex((char *) hm->request_id.data, raw, 8);
        hm->request_id.len = 16;
    }
}


static ngx_hm_rc_t
ngx_hm_step_options(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);

    return NGX_HM_DONE;
}


/* Contexts */


ngx_hm_ctx_t *
ngx_hm_ctx_create(ngx_http_request_t *r)
{
    ngx_queue_t         *q;
    ngx_hm_ctx_t        *hm;
    ngx_pool_cleanup_t  *cln;

    if (!ngx_hm_free_ready) {
        ngx_queue_init(&ngx_hm_free);
        ngx_hm_free_ready = 1;
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    if (ngx_queue_empty(&ngx_hm_free)) {
        hm = ngx_alloc(sizeof(ngx_hm_ctx_t), r->connection->log);
        if (hm == NULL) {
            return NULL;
        }

    } else {
        q = ngx_queue_head(&ngx_hm_free);
        ngx_queue_remove(q);
        ngx_hm_nfree--;
        hm = ngx_queue_data(q, ngx_hm_ctx_t, free);
    }

    ngx_memzero(hm, offsetof(ngx_hm_ctx_t, arena));

    ngx_hm_lag_start();

    hm->request = r;
    hm->conf = ngx_http_get_module_main_conf(r, ngx_http_healthmate_module);
    hm->refs = 1;
    hm->now = hm_now();
    hm->pool.pos = hm->arena;
    hm->pool.end = hm->arena + NGX_HM_ARENA;
    hm->mem.alloc = ngx_hm_alloc;
    hm->mem.ctx = &hm->pool;
    hm->path = ngx_hm_hm(r->uri);

    cln->handler = ngx_hm_ctx_cleanup;
    cln->data = hm;

    hm->faults = ngx_hm_palloc(hm, sizeof(hm_faults_t));
    hm_faults_init(hm->faults, &hm->mem);

    ngx_http_set_ctx(r, hm, ngx_http_healthmate_module);

    return hm;
}


static void
ngx_hm_ctx_cleanup(void *data)
{
    ngx_hm_detach(data);
}


void
ngx_hm_ctx_hold(ngx_hm_ctx_t *hm)
{
    hm->refs++;
}


void
ngx_hm_ctx_release(ngx_hm_ctx_t *hm)
{
    size_t  used;

    if (--hm->refs != 0) {
        return;
    }

    ngx_hm_seg_clear(&hm->seg);

    if (hm->old_res != NULL) {
        PQclear(hm->old_res);
    }

    json_decref(hm->json);
    json_decref(hm->kept);

    /* plaintext was here, and the next request is somebody else's */

    used = hm->pool.blocks == NULL ? (size_t) (hm->pool.pos - hm->arena)
                                   : NGX_HM_ARENA;
    ngx_hm_arena_free(&hm->pool);
    ngx_hm_arena_free(&hm->part);
    hm_wipe(hm->arena, used);

    if (ngx_hm_nfree >= NGX_HM_FREE_MAX) {
        ngx_free(hm);
        return;
    }

    ngx_queue_insert_head(&ngx_hm_free, &hm->free);
    ngx_hm_nfree++;
}


void
ngx_hm_ctx_exit(void)
{
    ngx_queue_t   *q;
    ngx_hm_ctx_t  *hm;

    while (ngx_hm_free_ready && !ngx_queue_empty(&ngx_hm_free)) {
        q = ngx_queue_head(&ngx_hm_free);
        ngx_queue_remove(q);
        hm = ngx_queue_data(q, ngx_hm_ctx_t, free);
        ngx_free(hm);
    }
}


/*
 * Bumps a pointer; when a block is full another one follows.  A large piece
 * has a block of its own, and the current one goes on.
 */
void *
ngx_hm_alloc(void *ctx, size_t size)
{
    size_t           len;
    u_char          *p;
    ngx_hm_arena_t  *arena = ctx;
    ngx_hm_block_t  *b;

    p = ngx_align_ptr(arena->pos, 16);

    if (p <= arena->end && size <= (size_t) (arena->end - p)
        && arena->pos != NULL)
    {
        arena->pos = p + size;
        return p;
    }

    len = size > NGX_HM_BLOCK / 4 ? size : NGX_HM_BLOCK;

    b = ngx_alloc(sizeof(ngx_hm_block_t) + len, ngx_cycle->log);
    if (b == NULL) {
        return NULL;
    }

    b->size = sizeof(ngx_hm_block_t) + len;
    b->next = arena->blocks;
    arena->blocks = b;

    p = (u_char *) (b + 1);

    if (len == NGX_HM_BLOCK) {
        arena->pos = p + size;
        arena->end = p + len;
    }

    return p;
}


/* Wipes and frees; the arena can be used again. */
void
ngx_hm_arena_free(ngx_hm_arena_t *arena)
{
    ngx_hm_block_t  *b, *next;

    for (b = arena->blocks; b != NULL; b = next) {
        next = b->next;
        hm_wipe(b, b->size);
        ngx_free(b);
    }

    ngx_memzero(arena, sizeof(ngx_hm_arena_t));
}


void *
ngx_hm_pcalloc(ngx_hm_ctx_t *hm, size_t size)
{
    void  *p;

    p = ngx_hm_palloc(hm, size);
    if (p != NULL) {
        ngx_memzero(p, size);
    }

    return p;
}


hm_str_t
ngx_hm_printf(ngx_hm_ctx_t *hm, const char *fmt, ...)
{
    int       n;
    va_list   args;
    hm_str_t  s;

    s = hm_null_str;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);

    if (n < 0) {
        return s;
    }

    s.data = ngx_hm_palloc(hm, (size_t) n + 1);
    if (s.data == NULL) {
        return s;
    }

    va_start(args, fmt);
    s.len = (size_t) vsnprintf((char *) s.data, (size_t) n + 1, fmt, args);
    va_end(args);

    return s;
}


hm_str_t *
ngx_hm_arg(ngx_hm_ctx_t *hm, const char *name)
{
    size_t      len;
    ngx_uint_t  i;

    len = ngx_strlen(name);

    for (i = 0; i < hm->nargs; i++) {
        if (hm->args[i].name.len == len
            && ngx_memcmp(hm->args[i].name.data, name, len) == 0)
        {
            return &hm->args[i].value;
        }
    }

    return NULL;
}


hm_str_t
ngx_hm_header(ngx_hm_ctx_t *hm, const char *lowcase_name)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = ngx_strlen(lowcase_name);
    part = &hm->request->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == len
            && ngx_strncasecmp(h[i].key.data, (u_char *) lowcase_name, len)
               == 0)
        {
            return ngx_hm_hm(h[i].value);
        }
    }

    return hm_null_str;
}
