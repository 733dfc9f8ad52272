/*
 * ngx_hm_guard: healthmate_auth and healthmate_permission, the gate in front
 * of any other location: files, proxy_pass, whatever a module serves.
 *
 * A handler of the access phase asks what the API's gate asks, in the same
 * order and with the same code: host, token and fingerprint, rate class
 * "default", revocation, permission.  Who the caller is is asked once for a
 * request and kept through its internal redirects; what a location permits
 * is asked in each location the request comes to.
 *
 * WAITING.  With a stale feed the question goes to the database, and a
 * refusal to a known person waits for its audit record.  The handler then
 * gives NGX_AGAIN, and the request stands still in its phase; when the
 * operation has ended the phases run again and the handler finds the answer
 * in ngx_hm_guard_t.  No reference is taken for this: a request in a phase
 * has its own.  If the client leaves, its pool is destroyed, and the step
 * runner knows what to do with an operation that nobody waits for.
 *
 * REFUSING.  The answer is a problem document, as that of the API.  But
 * where the location has an error_page for the status it is left to that,
 * and under "satisfy any" the status goes to nginx, which may still let the
 * request in for another reason.  healthmate_problem finds here what to say.
 *
 * SUBREQUESTS (SSI, auth_request, mirror) never see nginx's access phase, so
 * a second handler stands in the phase before.  It never waits: a subrequest
 * has the identity its main request has proven by then, or none.
 *
 * MEMORY.  An ngx_hm_ctx_t is too large to be kept while gigabytes are
 * proxied: it goes as soon as the request may pass.
 */

#include "ngx_hm.h"
#include "ngx_hm_guard.h"


typedef enum {
    NGX_HM_GUARD_NEW = 0,
    NGX_HM_GUARD_ANONYMOUS,
    NGX_HM_GUARD_KNOWN,
    NGX_HM_GUARD_REFUSED                 /* in every location */
} ngx_hm_guard_state_t;


struct ngx_hm_guard_s {
    ngx_http_request_t     *request;
    ngx_hm_ctx_t           *hm;          /* NULL: it has passed */
    ngx_pool_cleanup_t     *cleanup;     /* of hm */
    ngx_hm_guard_state_t    state;
    hm_problem_t            problem;
    hm_claims_t             who;
    ngx_int_t               rc;          /* of the handler */
    ngx_table_elt_t        *retry_after;
    unsigned                inside:1;    /* our handler is on the stack */
    unsigned                answered:1;  /* refused, and audited */
    unsigned                rated:1;     /* RateLimit is in the headers */
};


static ngx_hm_guard_t *ngx_hm_guard_create(ngx_http_request_t *r);
static void ngx_hm_guard_cleanup(void *data);
static ngx_hm_ctx_t *ngx_hm_guard_context(ngx_hm_guard_t *g);
static void ngx_hm_guard_drop(ngx_hm_guard_t *g);
static ngx_int_t ngx_hm_guard_ask(ngx_hm_guard_t *g);
static hm_problem_t ngx_hm_guard_gate(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_guard_known(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_guard_decide(ngx_hm_guard_t *g,
    ngx_hm_loc_conf_t *lcf);
static hm_problem_t ngx_hm_guard_permits(ngx_hm_guard_t *g,
    ngx_hm_loc_conf_t *lcf);
static ngx_int_t ngx_hm_guard_refuse(ngx_hm_guard_t *g, hm_problem_t p);
static ngx_int_t ngx_hm_guard_run(ngx_hm_guard_t *g);
static ngx_uint_t ngx_hm_guard_is_nginx(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_int_t ngx_hm_guard_headers(ngx_hm_guard_t *g, ngx_uint_t status);
static void ngx_hm_guard_continue(ngx_http_request_t *r);
static ngx_hm_loc_conf_t *ngx_hm_guard_conf(ngx_http_request_t *r);


static const ngx_hm_step_pt  ngx_hm_guard_steps[] = {
    ngx_hm_guard_known, NULL
};

static const ngx_hm_step_pt  ngx_hm_guard_ready[] = {
    ngx_hm_step_system_keys, ngx_hm_return, NULL
};


/* Access phase. */
ngx_int_t
ngx_hm_guard_handler(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_hm_guard_t     *g;
    ngx_hm_loc_conf_t  *lcf;

    lcf = ngx_hm_guard_conf(r);
    if (lcf == NULL) {
        return NGX_DECLINED;
    }

    g = ngx_hm_guard_of(r);

    if (g == NULL) {
        g = ngx_hm_guard_create(r);
        if (g == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (g->hm != NULL && g->hm->waiting) {
        return NGX_AGAIN;                /* the socket became writable */
    }

    if (g->state == NGX_HM_GUARD_NEW) {
        rc = ngx_hm_guard_ask(g);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_hm_guard_decide(g, lcf);
}


/* Pre-access phase: subrequests. */
ngx_int_t
ngx_hm_guard_sub_handler(ngx_http_request_t *r)
{
    hm_problem_t        p;
    ngx_hm_guard_t     *g;
    ngx_hm_loc_conf_t  *lcf;

    if (r == r->main) {
        return NGX_DECLINED;
    }

    lcf = ngx_hm_guard_conf(r);
    if (lcf == NULL) {
        return NGX_DECLINED;
    }

    g = ngx_hm_guard_of(r);

    if (g == NULL || g->state == NGX_HM_GUARD_NEW) {
        return lcf->auth == NGX_HM_OPTIONAL ? NGX_DECLINED
                                            : NGX_HTTP_UNAUTHORIZED;
    }

    p = ngx_hm_guard_permits(g, lcf);

    return p == HM_PROBLEM_NONE ? NGX_DECLINED : hm_problem(p)->status;
}


/* NULL: nothing to ask here; the API has a gate of its own. */
static ngx_hm_loc_conf_t *
ngx_hm_guard_conf(ngx_http_request_t *r)
{
    ngx_hm_loc_conf_t         *lcf;
    ngx_http_core_loc_conf_t  *clcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_healthmate_module);

    if (lcf->auth == NGX_HM_OFF) {
        return NULL;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->handler == ngx_hm_handler
        || clcf->handler == ngx_hm_problem_handler)
    {
        return NULL;
    }

    return lcf;
}


/*
 * Of the main request.  The module's context does not survive an internal
 * redirect; the list of the pool's cleanups does.
 */
ngx_hm_guard_t *
ngx_hm_guard_of(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = r->main->pool->cleanup; cln != NULL; cln = cln->next) {
        if (cln->handler == ngx_hm_guard_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


static ngx_hm_guard_t *
ngx_hm_guard_create(ngx_http_request_t *r)
{
    ngx_hm_guard_t      *g;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_hm_guard_t));
    if (cln == NULL) {
        return NULL;
    }

    g = cln->data;
    ngx_memzero(g, sizeof(ngx_hm_guard_t));
    g->request = r;
    cln->handler = ngx_hm_guard_cleanup;

    return g;
}


static void
ngx_hm_guard_cleanup(void *data)
{
    hm_wipe(data, sizeof(ngx_hm_guard_t));
}


static ngx_hm_ctx_t *
ngx_hm_guard_context(ngx_hm_guard_t *g)
{
    ngx_hm_ctx_t  *hm;

    hm = ngx_hm_ctx_create(g->request);
    if (hm == NULL) {
        return NULL;
    }

    /* the cleanup that was added last is that of the context */

    g->cleanup = g->request->pool->cleanup;
    g->hm = hm;

    hm->guard = g;
    hm->body_done = 1;                   /* not ours to read */
    ngx_hm_request_id(hm);

    if (!hm_utf8_valid(hm->path)) {
        hm->path = HM_STR("/");          /* it cannot stand in JSON */
    }

    if (g->state == NGX_HM_GUARD_KNOWN) {
        hm->who = g->who;
        hm->subject = g->who.sub;
        hm->signed_in = 1;
    }

    return hm;
}


static void
ngx_hm_guard_drop(ngx_hm_guard_t *g)
{
    ngx_hm_ctx_t  *hm;

    hm = g->hm;
    g->hm = NULL;

    if (hm != NULL) {
        g->cleanup->handler = NULL;
        ngx_http_set_ctx(g->request, NULL, ngx_http_healthmate_module);
        ngx_hm_detach(hm);
    }
}


/* Who is it?  NGX_OK: g->state says; else what the handler returns. */
static ngx_int_t
ngx_hm_guard_ask(ngx_hm_guard_t *g)
{
    hm_problem_t   p;
    ngx_hm_ctx_t  *hm;

    hm = ngx_hm_guard_context(g);
    if (hm == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    hm->step = ngx_hm_guard_steps;

    p = ngx_hm_guard_gate(hm);

    if (p != HM_PROBLEM_NONE) {
        g->state = NGX_HM_GUARD_REFUSED;
        g->problem = p;
        return NGX_OK;
    }

    if (hm->feed_ask) {
        ngx_hm_call(hm, ngx_hm_feed_steps);
    }

    return ngx_hm_guard_run(g);
}


static hm_problem_t
ngx_hm_guard_gate(ngx_hm_ctx_t *hm)
{
    hm_problem_t        p;
    ngx_hm_loc_conf_t  *lcf;

    p = ngx_hm_gate_host(hm);
    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    lcf = ngx_http_get_module_loc_conf(hm->request,
                                       ngx_http_healthmate_module);

    p = ngx_hm_authenticate(hm);

    /* no token is an answer, for each location; a wrong one is none */

    if (p == HM_PROBLEM_TOKEN_MISSING) {

        if (lcf->auth != NGX_HM_OPTIONAL) {
            return HM_PROBLEM_NONE;
        }

        p = HM_PROBLEM_NONE;
    }

    if (p != HM_PROBLEM_NONE) {
        return p;
    }

    p = ngx_hm_limit(hm, NGX_HM_CLASS_DEFAULT, 1);

    /* who still has to set a second factor up goes nowhere else */

    return p == HM_PROBLEM_NONE && hm->signed_in && ngx_hm_factor_missing(hm)
           ? HM_PROBLEM_MFA_REQUIRED : p;
}


/* The last step: what was asked in front of it has been answered well. */
static ngx_hm_rc_t
ngx_hm_guard_known(ngx_hm_ctx_t *hm)
{
    ngx_hm_guard_t  *g;

    g = hm->guard;

    if (hm->signed_in) {
        g->who = hm->who;
        g->state = NGX_HM_GUARD_KNOWN;

    } else {
        g->state = NGX_HM_GUARD_ANONYMOUS;
    }

    ngx_hm_guard_flush(g->request);

    g->rc = NGX_OK;

    if (!g->inside) {
        ngx_hm_guard_continue(g->request);
    }

    return NGX_HM_WAIT;                  /* there is no answer to send */
}


static ngx_int_t
ngx_hm_guard_decide(ngx_hm_guard_t *g, ngx_hm_loc_conf_t *lcf)
{
    hm_problem_t  p;

    p = ngx_hm_guard_permits(g, lcf);

    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_guard_refuse(g, p);
    }

    if (!g->rated && g->hm != NULL && g->hm->rate_quota != 0) {
        g->rated = 1;

        if (ngx_hm_rate_headers(g->hm) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    ngx_hm_guard_drop(g);

    return NGX_OK;
}


static hm_problem_t
ngx_hm_guard_permits(ngx_hm_guard_t *g, ngx_hm_loc_conf_t *lcf)
{
    switch (g->state) {

    case NGX_HM_GUARD_KNOWN:
        return lcf->perm != HM_PERM_NONE
               && hm_perm_reach(g->who.role, lcf->perm) == HM_REACH_NO
               ? HM_PROBLEM_ACCESS_DENIED : HM_PROBLEM_NONE;

    case NGX_HM_GUARD_ANONYMOUS:
        return lcf->auth == NGX_HM_OPTIONAL ? HM_PROBLEM_NONE
                                            : HM_PROBLEM_TOKEN_MISSING;

    case NGX_HM_GUARD_REFUSED:
        return g->problem;

    default:
        return HM_PROBLEM_TOKEN_MISSING;
    }
}


static ngx_int_t
ngx_hm_guard_refuse(ngx_hm_guard_t *g, hm_problem_t p)
{
    ngx_hm_ctx_t  *hm;

    if (g->answered) {
        return hm_problem(p)->status;
    }

    hm = g->hm != NULL ? g->hm : ngx_hm_guard_context(g);
    if (hm == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    hm->problem = p;
    ngx_hm_reply_problem(hm);
    hm->step = NULL;

    if (hm->signed_in) {
        ngx_hm_call(hm, ngx_hm_guard_ready);
    }

    return ngx_hm_guard_run(g);
}


/* Runs the steps; the request may be gone when this returns. */
static ngx_int_t
ngx_hm_guard_run(ngx_hm_guard_t *g)
{
    ngx_int_t      rc;
    ngx_hm_ctx_t  *hm;

    hm = g->hm;
    ngx_hm_ctx_hold(hm);

    g->rc = NGX_AGAIN;
    g->inside = 1;

    ngx_hm_run(hm);

    if (hm->request == NULL) {
        rc = NGX_DONE;

    } else {
        g->inside = 0;
        rc = g->rc;
    }

    ngx_hm_ctx_release(hm);

    return rc;
}


/* The exit of the step runner: hm->status and hm->out are a refusal. */
void
ngx_hm_guard_end(ngx_hm_ctx_t *hm)
{
    ngx_int_t            rc;
    ngx_hm_guard_t      *g;
    ngx_http_request_t  *r;

    g = hm->guard;
    r = hm->request;

    g->answered = 1;

    if (g->state == NGX_HM_GUARD_NEW) {
        g->state = NGX_HM_GUARD_REFUSED;
        g->problem = hm->problem;
    }

    if (ngx_hm_guard_is_nginx(r, hm->status)) {

        g->rc = ngx_hm_guard_headers(g, hm->status) == NGX_OK
                ? (ngx_int_t) hm->status : NGX_HTTP_INTERNAL_SERVER_ERROR;

        if (!g->inside) {
            ngx_hm_guard_continue(r);
        }

        return;
    }

    g->rc = NGX_DONE;

    /* what is not read must not become the next pipelined request */

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
    }

    rc = ngx_hm_reply_send(hm);

    ngx_http_finalize_request(r, rc);
}


/* Does this status have another end than our own document? */
static ngx_uint_t
ngx_hm_guard_is_nginx(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *page;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->satisfy == NGX_HTTP_SATISFY_ANY
        && (status == NGX_HTTP_UNAUTHORIZED || status == NGX_HTTP_FORBIDDEN))
    {
        return 1;
    }

    if (clcf->error_pages == NULL || r->error_page) {
        return 0;
    }

    page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if ((ngx_uint_t) page[i].status == status) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_hm_guard_headers(ngx_hm_guard_t *g, ngx_uint_t status)
{
    ngx_table_elt_t     *h;
    ngx_http_request_t  *r;

    r = g->request;

    if (status == NGX_HTTP_UNAUTHORIZED) {
        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        h->hash = 1;
        ngx_str_set(&h->key, "WWW-Authenticate");
        ngx_str_set(&h->value, "Bearer");
        r->headers_out.www_authenticate = h;
    }

    if (g->hm->headers.retry_after != 0) {
        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        h->hash = 1;
        ngx_str_set(&h->key, "Retry-After");
        h->value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);

        if (h->value.data == NULL) {
            h->hash = 0;
            return NGX_ERROR;
        }

        h->value.len = ngx_sprintf(h->value.data, "%ui",
                                   g->hm->headers.retry_after)
                       - h->value.data;
        g->retry_after = h;
    }

    return NGX_OK;
}


/*
 * The phases go on from where they stopped.  Not from here: whoever called
 * still holds the context, and runs posted requests when it has let go.
 */
static void
ngx_hm_guard_continue(ngx_http_request_t *r)
{
    ngx_event_t  *rev;

    rev = r->connection->read;

    /* an event that came while the socket was only watched for its end */

    if (rev->ready) {
        ngx_post_event(rev, &ngx_posted_events);

    } else if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        r->connection->error = 1;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    if (ngx_http_post_request(r, NULL) != NGX_OK) {
        r->connection->error = 1;
    }
}


/* For healthmate_problem: the refusal that led to this error page. */
void
ngx_hm_guard_problem(ngx_hm_ctx_t *hm)
{
    ngx_hm_ctx_t    *old;
    ngx_hm_guard_t  *g;

    g = ngx_hm_guard_of(hm->request);

    if (g == NULL || !g->answered || g->hm == NULL
        || (ngx_uint_t) hm_problem(g->hm->problem)->status
           != hm->request->err_status)
    {
        return;
    }

    old = g->hm;

    hm->problem = old->problem;
    hm->detail = old->detail;
    hm->request_id = old->request_id;
    hm->headers.retry_after = old->headers.retry_after;

    if (g->retry_after != NULL) {
        g->retry_after->hash = 0;        /* it would stand there twice */
    }

    if (!g->rated) {
        g->rated = 1;
        hm->rate_class = old->rate_class;
        hm->rate_quota = old->rate_quota;
        hm->rate_left = old->rate_left;
        hm->rate_reset = old->rate_reset;
    }
}


const hm_claims_t *
ngx_hm_guard_who(ngx_http_request_t *r)
{
    ngx_hm_ctx_t    *hm;
    ngx_hm_guard_t  *g;

    g = ngx_hm_guard_of(r);

    if (g != NULL) {
        return g->state == NGX_HM_GUARD_KNOWN ? &g->who : NULL;
    }

    hm = ngx_http_get_module_ctx(r->main, ngx_http_healthmate_module);

    return hm != NULL && hm->signed_in ? &hm->who : NULL;
}
