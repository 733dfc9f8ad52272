/*
 * ngx_hm_step: the step runner, the only file that knows both the life of a
 * request and that of an operation.
 *
 * An endpoint is an array of steps.  A step starts at most one operation and
 * returns WAIT; the following step runs when that has ended.  Flows read top
 * to bottom and have no state constants.
 *
 * Here alone: the deadline of each wait, the watch for a client that leaves,
 * the hold of the context by the operation, the read audit before an answer,
 * and the one finalization.
 *
 * The deadline timer is not cancelable: nginx's graceful exit waits for
 * timers and for nothing else, so this is what keeps a worker alive until
 * its requests are answered.
 */

#include "ngx_hm.h"


static void ngx_hm_deadline(ngx_event_t *ev);
static void ngx_hm_take_back(ngx_hm_ctx_t *hm);
static void ngx_hm_finish(ngx_hm_ctx_t *hm);
static ngx_uint_t ngx_hm_needs_audit(ngx_hm_ctx_t *hm);
static void ngx_hm_audited(ngx_hm_ctx_t *hm, ngx_uint_t ok);
static void ngx_hm_send(ngx_hm_ctx_t *hm);
static void ngx_hm_next_turn(ngx_event_t *ev);


void
ngx_hm_run(ngx_hm_ctx_t *hm)
{
    ngx_hm_rc_t     rc;
    ngx_hm_step_pt  step;

    for ( ;; ) {
        step = hm->step != NULL ? *hm->step : NULL;

        if (step == NULL) {
            rc = NGX_HM_DONE;

        } else {
            hm->step++;
            rc = step(hm);
        }

        switch (rc) {

        case NGX_HM_NEXT:
            continue;

        case NGX_HM_WAIT:
            return;

        case NGX_HM_FAIL:
            ngx_hm_reply_problem(hm);

            /* fall through */

        default:
            ngx_hm_finish(hm);
            return;
        }
    }
}


ngx_hm_rc_t
ngx_hm_goto(ngx_hm_ctx_t *hm, const ngx_hm_step_pt *steps)
{
    hm->step = steps;

    return NGX_HM_NEXT;
}


void
ngx_hm_call(ngx_hm_ctx_t *hm, const ngx_hm_step_pt *steps)
{
    hm->back[hm->nback++] = hm->step;
    hm->step = steps;
}


ngx_hm_rc_t
ngx_hm_return(ngx_hm_ctx_t *hm)
{
    hm->step = hm->back[--hm->nback];

    return NGX_HM_NEXT;
}


void
ngx_hm_wait(ngx_hm_ctx_t *hm)
{
    ngx_event_t         *rev;
    ngx_http_request_t  *r;

    hm->waiting = 1;
    ngx_hm_ctx_hold(hm);

    r = hm->request;

    if (r == NULL) {
        return;
    }

    hm->deadline.handler = ngx_hm_deadline;
    hm->deadline.data = hm;
    hm->deadline.log = ngx_hm_worker.log;
    hm->patience = hm->patience != 0 ? hm->patience
                                     : hm->conf->database_timeout;
    ngx_add_timer(&hm->deadline, hm->patience);

    if (!hm->watching && hm->body_done) {
        hm->watching = 1;
        r->read_event_handler = ngx_http_test_reading;
        rev = r->connection->read;

        if (rev->ready) {
            ngx_post_event(rev, &ngx_posted_events);

        } else if (ngx_handle_read_event(rev, 0) != NGX_OK) {
            /* the client cannot be watched: it will be answered in vain */
            hm->watching = 0;
        }
    }
}


/* The operation has ended; hm is not to be touched after this. */
void
ngx_hm_resume(ngx_hm_ctx_t *hm)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = hm->request;

    if (r != NULL && hm->waiting) {
        hm->waiting = 0;
        hm->body_wait = 0;
        hm->patience = 0;
        hm->hashing = 0;

        if (hm->deadline.timer_set) {
            ngx_del_timer(&hm->deadline);
        }

        c = r->connection;
        ngx_http_set_log_request(c->log, r);

        ngx_hm_run(hm);

        ngx_hm_ctx_release(hm);
        ngx_http_run_posted_requests(c);
        return;
    }

    ngx_hm_ctx_release(hm);
}


/* Gives way: a long piece of CPU work goes on in the next turn. */
void
ngx_hm_later(ngx_hm_ctx_t *hm)
{
    ngx_hm_wait(hm);

    ngx_del_timer(&hm->deadline);
    hm->deadline.handler = ngx_hm_next_turn;

    /* a timer of 0 ms lets the sockets have their turn first */
    ngx_add_timer(&hm->deadline, 0);
}


static void
ngx_hm_next_turn(ngx_event_t *ev)
{
    ngx_hm_resume(ev->data);
}


/* What has begun and not been sent needs no context any more. */
static void
ngx_hm_take_back(ngx_hm_ctx_t *hm)
{
    if (hm->seg.queued) {
        ngx_hm_pg_unlink(&hm->seg);
        ngx_hm_ctx_release(hm);

    } else if (hm->audit.queued) {
        ngx_hm_audit_unlink(hm);
        ngx_hm_ctx_release(hm);

    } else if (hm->body_wait) {
        ngx_hm_ctx_release(hm);
    }
}


static void
ngx_hm_deadline(ngx_event_t *ev)
{
    ngx_hm_ctx_t        *hm = ev->data;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = hm->request;
    c = r->connection;
    ngx_http_set_log_request(c->log, r);

    /* not the connection's log: nginx would add the request line to it */

    ngx_log_error(NGX_LOG_ERR, ngx_hm_worker.log, 0,
                  "healthmate: no answer from %s in %M ms",
                  hm->hashing ? "the queue of hashes" : "the database",
                  hm->patience);

    /*
     * The operation goes on and keeps the context; its end will find that
     * nobody waits.  A segment not yet sent is taken back.
     */

    hm->waiting = 0;

    ngx_hm_take_back(hm);

    hm->headers.retry_after = 1;
    (void) ngx_hm_fail(hm, HM_PROBLEM_TIMEOUT);
    ngx_hm_reply_problem(hm);
    hm->audited = 1;
    ngx_hm_send(hm);

    ngx_http_run_posted_requests(c);
}


/* The request's pool is being destroyed. */
void
ngx_hm_detach(ngx_hm_ctx_t *hm)
{
    hm->request = NULL;

    if (hm->deadline.timer_set) {
        ngx_del_timer(&hm->deadline);

        if (hm->deadline.handler == ngx_hm_next_turn) {
            hm->waiting = 0;
            ngx_hm_ctx_release(hm);
        }
    }

    if (hm->waiting) {
        ngx_hm_count(NGX_HM_M_ABORTED, 1);

        ngx_hm_take_back(hm);

        hm->waiting = 0;
    }

    ngx_hm_ctx_release(hm);
}


ngx_hm_rc_t
ngx_hm_fail(ngx_hm_ctx_t *hm, hm_problem_t p)
{
    hm->problem = p;

    return NGX_HM_FAIL;
}


ngx_hm_rc_t
ngx_hm_fail_detail(ngx_hm_ctx_t *hm, hm_problem_t p, const char *fmt, ...)
{
    int      n;
    va_list  args;

    hm->problem = p;
    hm->detail.data = ngx_hm_palloc(hm, 200);

    if (hm->detail.data != NULL) {
        va_start(args, fmt);
        n = vsnprintf((char *) hm->detail.data, 200, fmt, args);
        va_end(args);

        hm->detail.len = n < 0 ? 0 : ngx_min((size_t) n, 199);
    }

    return NGX_HM_FAIL;
}


/*
 * The answer is ready in hm->out.  If it tells of somebody's data its audit
 * record is committed first; without that there is no answer.
 */
static void
ngx_hm_finish(ngx_hm_ctx_t *hm)
{
    if (!ngx_hm_needs_audit(hm)) {
        ngx_hm_send(hm);
        return;
    }

    hm->audited = 1;
    ngx_hm_audit_row(hm);
    hm->audit.row.outcome = (uint16_t) hm->status;
    hm->audit.done = ngx_hm_audited;

    if (ngx_hm_audit_send(hm) == NGX_OK) {
        ngx_hm_wait(hm);

        if (hm->conf->audit == NGX_HM_AUDIT_BOUNDED) {
            /* the record is on its way; the answer does not wait for it */
            hm->waiting = 0;
            ngx_del_timer(&hm->deadline);
            ngx_hm_send(hm);
        }

        return;
    }

    ngx_hm_audited(hm, 0);
}


static ngx_uint_t
ngx_hm_needs_audit(ngx_hm_ctx_t *hm)
{
    if (hm->audited || !hm->signed_in) {
        return 0;
    }

    switch (hm->status) {

    case NGX_HTTP_FORBIDDEN:
    case NGX_HTTP_NOT_FOUND:
    case NGX_HTTP_CONFLICT:
    case NGX_HTTP_PRECONDITION_FAILED:
        return 1;

    default:
        return hm->status < 400 && hm->route != NULL
               && hm->route->audit_of != HM_AUDIT_OF_NONE;
    }
}


static void
ngx_hm_audited(ngx_hm_ctx_t *hm, ngx_uint_t ok)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = hm->request;

    if (r != NULL && hm->waiting) {
        hm->waiting = 0;

        if (hm->deadline.timer_set) {
            ngx_del_timer(&hm->deadline);
        }

        c = r->connection;
        ngx_http_set_log_request(c->log, r);

        if (!ok) {
            hm->headers.retry_after = 1;
            (void) ngx_hm_fail_detail(hm, HM_PROBLEM_UNAVAILABLE,
                                      "the audit record was not accepted");
            ngx_hm_reply_problem(hm);
        }

        ngx_hm_send(hm);
        ngx_hm_ctx_release(hm);
        ngx_http_run_posted_requests(c);
        return;
    }

    if (r != NULL && !hm->finished) {
        /* it could not even be queued */

        hm->headers.retry_after = 1;
        (void) ngx_hm_fail_detail(hm, HM_PROBLEM_UNAVAILABLE,
                                  "the audit record was not accepted");
        ngx_hm_reply_problem(hm);
        ngx_hm_send(hm);
        return;
    }

    ngx_hm_ctx_release(hm);
}


static void
ngx_hm_send(ngx_hm_ctx_t *hm)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    if (hm->finished) {
        return;
    }

    hm->finished = 1;
    r = hm->request;

    ngx_hm_count_request(hm);

    if (hm->guard != NULL) {
        ngx_hm_guard_end(hm);
        return;
    }

    rc = ngx_hm_reply_send(hm);

    ngx_http_finalize_request(r, rc);
}
