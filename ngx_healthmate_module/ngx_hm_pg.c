/*
 * ngx_hm_pg: PostgreSQL inside the worker's event loop.
 *
 * The one file of the module that talks to libpq.  It knows segments and
 * connections, not requests.
 *
 * DESIGN.  Each worker process has a few connections, each in pipeline mode
 * and bound to one lane:
 *
 *   READ    many segments share a Sync; many batches may be in flight
 *   WRITE   group commit: while one batch commits, the next one gathers
 *   AUDIT   the same, for the audit rows of reads
 *   SOLO    one segment, one Sync: whatever may raise or takes many locks
 *   SLOW    as SOLO, for what takes its time; so it delays nobody else
 *
 * A segment is one statement.  In front of each the pool sends the context
 * (hm.actor), for system segments too: a context lives until the Sync and
 * must never be inherited from a neighbour of the batch.
 *
 * Sending is deferred to the end of the event-loop turn (a posted event), so
 * a burst of requests is one batch and one write().  Nothing waits on
 * purpose: the size of a batch follows from how long the last one took.
 *
 * Results are delivered at the Sync and only when no result since the last
 * Sync was an error, also an error that belongs to no statement: a commit
 * can fail after good results.  After an error each segment of the batch is
 * sent once more, alone; only the guilty one fails.  When a connection
 * breaks, everything in flight is LOST and never sent again: a write may
 * have been committed.
 *
 * A connection's state is the one thing that decides what happens to it, and
 * ngx_hm_pg_move() is the one function that changes it.
 *
 * Sockets are level-triggered: libpq reads once for each call, so an edge
 * could be missed for ever.  libpq owns the descriptor (c->shared); events
 * are deleted by hand before PQfinish().
 *
 * The shard of the audit is one connection of one process start: sequence
 * numbers are given when a batch is sent.  A batch is one transaction, so
 * one that failed gives its numbers back and the shard has no gap.
 */

#include "ngx_hm.h"
#include "ngx_hm_pg.h"


#define NGX_HM_PG_BACKOFF_MIN  20
#define NGX_HM_PG_BACKOFF_MAX  500
#define NGX_HM_PG_STUCK        20000     /* ms without any answer */


const ngx_hm_lane_row_t  ngx_hm_lanes[] = {
    { "read",  1, NGX_HM_PG_DEPTH, 128 },
    { "write", 1, 1, 256 },
    { "audit", 1, 1, 1 },
    { "solo",  2, 1, 1 },
    { "slow",  2, 1, 1 }
};

const int  ngx_hm_pg_binary[NGX_HM_PARAMS] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
};


ngx_hm_pg_t  ngx_hm_pg;


static void ngx_hm_pg_connect(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_move(ngx_hm_pgconn_t *conn, ngx_hm_pg_state_e state);
static void ngx_hm_pg_lost(ngx_hm_pgconn_t *conn, const char *why);
static void ngx_hm_pg_close(ngx_hm_pgconn_t *conn);
static ngx_int_t ngx_hm_pg_watch(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_unwatch(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_want_write(ngx_hm_pgconn_t *conn, ngx_uint_t want);
static void ngx_hm_pg_event(ngx_event_t *ev);
static void ngx_hm_pg_timer(ngx_event_t *ev);
static void ngx_hm_pg_poll(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_prepare(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_prepared(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_results(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_advance(ngx_hm_batch_t *b);
static void ngx_hm_pg_result(ngx_hm_batch_t *b, PGresult *res);
static void ngx_hm_pg_synced(ngx_hm_pgconn_t *conn, ngx_hm_batch_t *b);
static void ngx_hm_pg_flush(ngx_event_t *ev);
static ngx_int_t ngx_hm_pg_batch(ngx_hm_pgconn_t *conn);
static ngx_int_t ngx_hm_pg_put(ngx_hm_pgconn_t *conn, ngx_hm_seg_t *seg);
static void ngx_hm_pg_push(ngx_hm_pgconn_t *conn);
static void ngx_hm_pg_fail_queue(ngx_hm_lane_t lane);
static void ngx_hm_pg_done(ngx_hm_seg_t *seg, ngx_hm_pg_rc_t rc);
static void ngx_hm_pg_janitor(ngx_event_t *ev);


ngx_int_t
ngx_hm_pg_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log)
{
    ngx_uint_t        i, n, lane;
    ngx_hm_pgconn_t  *conn;

    ngx_memzero(&ngx_hm_pg, sizeof(ngx_hm_pg));

    ngx_hm_pg.conf = mcf;
    ngx_hm_pg.log = log;

    ngx_hm_pg.conninfo = ngx_alloc(mcf->database.len + 1, log);
    ngx_hm_pg.names = ngx_alloc(mcf->stmts.nelts * 8, log);

    if (ngx_hm_pg.conninfo == NULL || ngx_hm_pg.names == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ngx_hm_pg.conninfo, mcf->database.data, mcf->database.len);
    ngx_hm_pg.conninfo[mcf->database.len] = '\0';

    for (i = 0; i < mcf->stmts.nelts; i++) {
        snprintf(ngx_hm_pg.names[i], 8, "s%u", (unsigned) i);
    }

    for (lane = 0; lane < NGX_HM_LANE_LAST; lane++) {
        ngx_queue_init(&ngx_hm_pg.queue[lane]);
    }

    ngx_hm_pg.flush.handler = ngx_hm_pg_flush;
    ngx_hm_pg.flush.log = log;

    ngx_hm_pg.janitor.handler = ngx_hm_pg_janitor;
    ngx_hm_pg.janitor.log = log;
    ngx_hm_pg.janitor.cancelable = 1;
    ngx_hm_pg.janitor.data = &ngx_hm_pg;
    ngx_add_timer(&ngx_hm_pg.janitor, 1000);

    conn = ngx_hm_pg.conns;

    for (lane = 0; lane < NGX_HM_LANE_LAST; lane++) {
        for (i = 0; i < ngx_hm_lanes[lane].conns; i++, conn++) {
            conn->lane = lane;
            conn->timer.handler = ngx_hm_pg_timer;
            conn->timer.data = conn;
            conn->timer.log = log;
            conn->timer.cancelable = 1;
            conn->depth = ngx_hm_lanes[lane].depth;
            conn->backoff = NGX_HM_PG_BACKOFF_MIN;

            ngx_queue_init(&conn->flying);
            ngx_queue_init(&conn->spare);

            for (n = 0; n < conn->depth; n++) {
                ngx_queue_insert_tail(&conn->spare,
                                      &conn->batches[n].queue);
            }

            ngx_hm_pg_connect(conn);
        }
    }

    return NGX_OK;
}


void
ngx_hm_pg_stop(void)
{
    ngx_uint_t  i;

    if (ngx_hm_pg.conf == NULL) {
        return;
    }

    ngx_hm_pg.stopped = 1;

    for (i = 0; i < NGX_HM_PG_CONNS; i++) {
        ngx_hm_pg_close(&ngx_hm_pg.conns[i]);
    }
}


void
ngx_hm_pg_state(ngx_hm_pg_state_t *state)
{
    ngx_uint_t  i;

    ngx_memzero(state, sizeof(*state));

    state->want = NGX_HM_PG_CONNS;

    for (i = 0; i < NGX_HM_PG_CONNS; i++) {
        state->up += ngx_hm_pg.conns[i].state == NGX_HM_PG_READY;
    }

    for (i = 0; i < NGX_HM_LANE_LAST; i++) {
        state->queued += ngx_hm_pg.queued[i];
    }
}


/* May a segment be queued: is a connection up, or on its first way up? */
ngx_uint_t
ngx_hm_pg_lane_up(ngx_hm_lane_t lane)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HM_PG_CONNS; i++) {
        if (ngx_hm_pg.conns[i].lane == lane
            && ngx_hm_pg.conns[i].state != NGX_HM_PG_BACKOFF)
        {
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_hm_pg_send(ngx_hm_seg_t *seg)
{
    if (!ngx_hm_pg_lane_up(seg->lane)) {
        return NGX_DECLINED;
    }

    if (ngx_hm_pg.queued[seg->lane] >= ngx_hm_pg.conf->database_queue) {
        ngx_hm_count(NGX_HM_M_OVERLOADED, 1);
        return NGX_BUSY;
    }

    seg->queued = 1;
    seg->alone = 0;
    seg->resent = 0;
    seg->res = NULL;

    ngx_queue_insert_tail(&ngx_hm_pg.queue[seg->lane], &seg->queue);
    ngx_hm_pg.queued[seg->lane]++;

    ngx_hm_pg_wake();

    return NGX_OK;
}


/* Sends what is queued at the end of this turn. */
void
ngx_hm_pg_wake(void)
{
    if (!ngx_hm_pg.flush.posted && ngx_hm_pg.conf != NULL) {
        ngx_post_event(&ngx_hm_pg.flush, &ngx_posted_events);
    }
}


/* A queued segment whose request went away; one in flight is left alone. */
void
ngx_hm_pg_unlink(ngx_hm_seg_t *seg)
{
    if (seg->queued) {
        ngx_queue_remove(&seg->queue);
        ngx_hm_pg.queued[seg->lane]--;
        seg->queued = 0;
    }
}


/* Connections */


static void
ngx_hm_pg_connect(ngx_hm_pgconn_t *conn)
{
    conn->pg = PQconnectStart(ngx_hm_pg.conninfo);

    conn->prepare_failed = 0;
    conn->last_answer = ngx_current_msec;
    ngx_hm_pg_move(conn, NGX_HM_PG_CONNECTING);

    if (conn->pg == NULL || PQstatus(conn->pg) == CONNECTION_BAD) {
        ngx_hm_pg_lost(conn, conn->pg == NULL ? "no memory"
                             : PQerrorMessage(conn->pg));
        return;
    }

    if (ngx_hm_pg_watch(conn) != NGX_OK) {
        ngx_hm_pg_lost(conn, "no free connection slot in the worker");
        return;
    }

    ngx_hm_pg_want_write(conn, 1);
}


static void
ngx_hm_pg_move(ngx_hm_pgconn_t *conn, ngx_hm_pg_state_e state)
{
    conn->state = state;

    if (state == NGX_HM_PG_READY) {
        conn->backoff = NGX_HM_PG_BACKOFF_MIN;

        if (conn->told) {
            conn->told = 0;
            ngx_log_error(NGX_LOG_NOTICE, ngx_hm_pg.log, 0,
                          "healthmate: database connection \"%s\" is back",
                          ngx_hm_lanes[conn->lane].name);
        }

        ngx_hm_pg_wake();
    }
}


/* Wraps libpq's socket. */
static ngx_int_t
ngx_hm_pg_watch(ngx_hm_pgconn_t *conn)
{
    int                fd;
    ngx_connection_t  *c;

    fd = PQsocket(conn->pg);

    if (fd < 0) {
        return NGX_ERROR;
    }

    c = ngx_get_connection(fd, ngx_hm_pg.log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->shared = 1;
    c->data = conn;
    c->read->handler = ngx_hm_pg_event;
    c->write->handler = ngx_hm_pg_event;
    c->read->log = ngx_hm_pg.log;
    c->write->log = ngx_hm_pg.log;

    conn->c = c;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT);
}


static void
ngx_hm_pg_unwatch(ngx_hm_pgconn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->c;

    if (c != NULL) {
        if (c->read->active) {
            (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);
        }

        if (c->write->active) {
            (void) ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
        }

        ngx_close_connection(c);
        conn->c = NULL;
    }
}


static void
ngx_hm_pg_want_write(ngx_hm_pgconn_t *conn, ngx_uint_t want)
{
    ngx_event_t  *wev;

    wev = conn->c->write;

    if (want && !wev->active) {
        (void) ngx_add_event(wev, NGX_WRITE_EVENT, NGX_LEVEL_EVENT);

    } else if (!want && wev->active) {
        (void) ngx_del_event(wev, NGX_WRITE_EVENT, 0);
    }
}


static void
ngx_hm_pg_close(ngx_hm_pgconn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->c;

    if (c != NULL && (conn->pg == NULL || PQsocket(conn->pg) != c->fd)) {
        /* libpq has closed it, and the kernel forgot its events with it */
        c->read->active = 0;
        c->write->active = 0;
    }

    ngx_hm_pg_unwatch(conn);

    if (conn->pg != NULL) {
        PQfinish(conn->pg);
        conn->pg = NULL;
    }
}


static void
ngx_hm_pg_lost(ngx_hm_pgconn_t *conn, const char *why)
{
    size_t           len;
    ngx_uint_t       i;
    ngx_queue_t      segs, *q;
    ngx_hm_seg_t    *seg;
    ngx_hm_batch_t  *b;

    if (!conn->told && !ngx_hm_pg.stopped) {
        conn->told = 1;

        for (len = 0; why[len] != '\0' && why[len] != '\n'; len++) {
            /* the first line of libpq's message has no values of ours */
        }

        ngx_log_error(NGX_LOG_ERR, ngx_hm_pg.log, 0,
                      "healthmate: database connection \"%s\": %*s; "
                      "trying again until it is back",
                      ngx_hm_lanes[conn->lane].name, len, why);
    }

    ngx_hm_count(NGX_HM_M_PG_LOST, 1);

    ngx_hm_pg_close(conn);
    ngx_hm_pg_move(conn, NGX_HM_PG_BACKOFF);

    ngx_queue_init(&segs);

    while (!ngx_queue_empty(&conn->flying)) {
        q = ngx_queue_head(&conn->flying);
        b = ngx_queue_data(q, ngx_hm_batch_t, queue);
        ngx_queue_remove(q);

        while (!ngx_queue_empty(&b->segs)) {
            q = ngx_queue_head(&b->segs);
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&segs, q);
        }

        PQclear(b->many_res);
        b->many_res = NULL;
        ngx_queue_insert_tail(&conn->spare, &b->queue);
    }

    /* jitter keeps many workers from knocking at once */

    i = conn->backoff / 2 + (ngx_msec_t) ngx_random() % (conn->backoff + 1);
    conn->backoff = ngx_min(conn->backoff * 2, NGX_HM_PG_BACKOFF_MAX);

    if (!ngx_hm_pg.stopped) {
        ngx_add_timer(&conn->timer, i);
    }

    while (!ngx_queue_empty(&segs)) {
        q = ngx_queue_head(&segs);
        ngx_queue_remove(q);
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);
        ngx_hm_pg_done(seg, NGX_HM_PG_LOST);
    }

    if (!ngx_hm_pg_lane_up(conn->lane)) {
        ngx_hm_pg_fail_queue(conn->lane);
    }
}


static void
ngx_hm_pg_fail_queue(ngx_hm_lane_t lane)
{
    ngx_queue_t   *q;
    ngx_hm_seg_t  *seg;

    while (!ngx_queue_empty(&ngx_hm_pg.queue[lane])) {
        q = ngx_queue_head(&ngx_hm_pg.queue[lane]);
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);
        ngx_hm_pg_unlink(seg);
        ngx_hm_pg_done(seg, NGX_HM_PG_LOST);
    }
}


static void
ngx_hm_pg_timer(ngx_event_t *ev)
{
    ngx_hm_pgconn_t  *conn = ev->data;

    if (conn->state == NGX_HM_PG_BACKOFF && !ngx_hm_pg.stopped) {
        ngx_hm_pg_connect(conn);
    }
}


/* A server that is frozen answers nothing and closes nothing. */
static void
ngx_hm_pg_janitor(ngx_event_t *ev)
{
    ngx_uint_t        i;
    ngx_hm_pgconn_t  *conn;

    for (i = 0; i < NGX_HM_PG_CONNS; i++) {
        conn = &ngx_hm_pg.conns[i];

        if (conn->state != NGX_HM_PG_BACKOFF
            && (conn->state != NGX_HM_PG_READY
                || !ngx_queue_empty(&conn->flying))
            && (ngx_msec_int_t) (ngx_current_msec - conn->last_answer)
               > (conn->lane == NGX_HM_LANE_SLOW ? 3 * NGX_HM_PG_STUCK
                                                 : NGX_HM_PG_STUCK))
        {
            ngx_hm_pg_lost(conn, "no answer");
        }
    }

    if (!ngx_exiting) {
        ngx_add_timer(ev, 1000);
    }
}


static void
ngx_hm_pg_event(ngx_event_t *ev)
{
    ngx_connection_t  *c = ev->data;
    ngx_hm_pgconn_t   *conn = c->data;

    if (conn->state == NGX_HM_PG_CONNECTING) {
        ngx_hm_pg_poll(conn);
        return;
    }

    if (ev->write) {
        ngx_hm_pg_push(conn);
        return;
    }

    if (PQconsumeInput(conn->pg) == 0) {
        ngx_hm_pg_lost(conn, PQerrorMessage(conn->pg));
        return;
    }

    conn->last_answer = ngx_current_msec;

    if (conn->state == NGX_HM_PG_PREPARING) {
        ngx_hm_pg_prepared(conn);
        return;
    }

    ngx_hm_pg_results(conn);
}


static void
ngx_hm_pg_poll(ngx_hm_pgconn_t *conn)
{
    PostgresPollingStatusType  rc;

    /*
     * libpq may close its socket in here and open another one under the same
     * number, of which epoll knows nothing: watch anew after each poll.
     */

    ngx_hm_pg_unwatch(conn);

    rc = PQconnectPoll(conn->pg);

    if (rc == PGRES_POLLING_FAILED) {
        ngx_hm_pg_lost(conn, PQerrorMessage(conn->pg));
        return;
    }

    if (ngx_hm_pg_watch(conn) != NGX_OK) {
        ngx_hm_pg_lost(conn, "the socket cannot be watched");
        return;
    }

    ngx_hm_pg_want_write(conn, rc == PGRES_POLLING_WRITING);

    if (rc == PGRES_POLLING_OK) {
        ngx_hm_pg_prepare(conn);
    }
}


/*
 * All statements of the lane in one pipeline, the check that a commit here
 * is durable, and the shard of the audit; the connection is used when all
 * of that has been answered.
 */
static void
ngx_hm_pg_prepare(ngx_hm_pgconn_t *conn)
{
    ngx_uint_t      i, ok;
    const char     *values[1];
    ngx_hm_stmt_t  *stmt;
    int             lengths[1], formats[1];

    ngx_hm_pg_move(conn, NGX_HM_PG_PREPARING);

    conn->seq = 1;

    ok = PQsetnonblocking(conn->pg, 1) == 0
         && PQenterPipelineMode(conn->pg) == 1
         && hm_uuid7(&conn->shard, hm_now()) == HM_OK
         && PQsendPrepare(conn->pg, "ctx",
                "select set_config('hm.actor', $1::text, true)", 1, NULL)
         && PQsendPrepare(conn->pg, "ctxs",
                "select set_config('hm.actor', '', true),"
                " set_config('hm.actors', $1::text, true)", 1, NULL);

    stmt = ngx_hm_pg.conf->stmts.elts;

    for (i = 0; ok && i < ngx_hm_pg.conf->stmts.nelts; i++) {
        if (stmt[i].lanes & (1u << conn->lane)) {
            ok = PQsendPrepare(conn->pg, ngx_hm_pg.names[i], stmt[i].text,
                               0, NULL);
        }
    }

    values[0] = (char *) conn->shard.b;
    lengths[0] = 16;
    formats[0] = 1;

    ok = ok
         && PQsendQueryParams(conn->pg,
                "select hm_audit_open($1::uuid) is null, 1 / (case"
                " current_setting('synchronous_commit') when 'off' then 0"
                " when 'local' then 0 else 1 end)", 1, NULL, values, lengths,
                formats, 0)
         && PQpipelineSync(conn->pg);

    if (!ok) {
        ngx_hm_pg_lost(conn, PQerrorMessage(conn->pg));
        return;
    }

    ngx_hm_pg_push(conn);
}


static void
ngx_hm_pg_prepared(ngx_hm_pgconn_t *conn)
{
    ngx_uint_t      nulls;
    PGresult       *res;
    ExecStatusType  status;

    nulls = 0;

    while (!PQisBusy(conn->pg)) {
        res = PQgetResult(conn->pg);

        if (res == NULL) {
            if (++nulls > 1) {
                return;
            }

            continue;
        }

        nulls = 0;
        status = PQresultStatus(res);

        if (status == PGRES_FATAL_ERROR && !conn->prepare_failed) {
            conn->prepare_failed = 1;
            ngx_log_error(NGX_LOG_ERR, ngx_hm_pg.log, 0,
                          "healthmate: database refused a statement: %s "
                          "(are the migrations of sql/ deployed?)",
                          PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
        }

        PQclear(res);

        if (status == PGRES_PIPELINE_SYNC) {
            if (conn->prepare_failed) {
                ngx_hm_pg_lost(conn, "statements could not be prepared");
                return;
            }

            ngx_hm_pg_move(conn, NGX_HM_PG_READY);
            ngx_hm_audit_kick();
            return;
        }
    }
}


/* Sending */


static void
ngx_hm_pg_flush(ngx_event_t *ev)
{
    ngx_uint_t        i, sent;
    ngx_hm_pgconn_t  *conn;

    ngx_hm_audit_kick();

    for (i = 0; i < NGX_HM_PG_CONNS; i++) {
        conn = &ngx_hm_pg.conns[i];

        if (conn->state != NGX_HM_PG_READY) {
            continue;
        }

        sent = 0;

        while (!ngx_queue_empty(&ngx_hm_pg.queue[conn->lane])
               && !ngx_queue_empty(&conn->spare))
        {
            if (ngx_hm_pg_batch(conn) != NGX_OK) {
                ngx_hm_pg_lost(conn, PQerrorMessage(conn->pg));
                sent = 0;
                break;
            }

            sent = 1;
        }

        if (sent) {
            ngx_hm_pg_push(conn);
        }
    }
}


static ngx_int_t
ngx_hm_pg_batch(ngx_hm_pgconn_t *conn)
{
    ngx_queue_t     *q, *lane;
    ngx_uint_t       alone;
    ngx_hm_seg_t    *seg;
    ngx_hm_batch_t  *b;

    lane = &ngx_hm_pg.queue[conn->lane];

    q = ngx_queue_head(&conn->spare);
    ngx_queue_remove(q);
    b = ngx_queue_data(q, ngx_hm_batch_t, queue);

    if (ngx_queue_empty(&conn->flying)) {
        conn->last_answer = ngx_current_msec;
    }

    ngx_queue_insert_tail(&conn->flying, &b->queue);
    ngx_queue_init(&b->segs);
    b->failed = 0;
    b->in_stmt = 0;
    b->n = 0;
    b->first_seq = conn->seq;

    b->many = 0;
    b->many_res = NULL;

    if (ngx_hm_pg_take_many(conn, b)) {
        if (ngx_hm_pg_put_many(conn, b) != NGX_OK) {
            return NGX_ERROR;
        }

        goto sync;
    }

    while (!ngx_queue_empty(lane)
           && b->n < ngx_hm_lanes[conn->lane].batch)
    {
        q = ngx_queue_head(lane);
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);
        alone = seg->alone;

        if (alone && b->n > 0) {
            break;
        }

        ngx_hm_pg_unlink(seg);
        ngx_queue_insert_tail(&b->segs, &seg->queue);
        seg->flying = 1;
        b->n++;

        if (ngx_hm_pg_put(conn, seg) != NGX_OK) {
            return NGX_ERROR;
        }

        if (alone) {
            break;
        }
    }

sync:

    b->at = ngx_queue_head(&b->segs);

    ngx_hm_count(NGX_HM_M_PG_BATCHES, 1);
    ngx_hm_count(NGX_HM_M_PG_SEGMENTS, b->n);

    return PQpipelineSync(conn->pg) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_hm_pg_put(ngx_hm_pgconn_t *conn, ngx_hm_seg_t *seg)
{
    int          len;
    char         actor[HM_UUID_TEXT + 1];
    const char  *value;

    actor[0] = '\0';

#ifndef HM_FAULT_NO_CONTEXT
    if (!hm_uuid_eq(&seg->actor, &hm_nil_uuid)) {
        hm_uuid_format(&seg->actor, actor);
        actor[HM_UUID_TEXT] = '\0';
    }
#endif

    value = actor;
    len = 0;

    if (!PQsendQueryPrepared(conn->pg, "ctx", 1, &value, &len, NULL, 0)) {
        return NGX_ERROR;
    }

    if (seg->seq_param >= 0) {
        hm_put_u64(seg->seq_be, conn->seq);
        conn->seq += seg->nseq;

        seg->values[seg->seq_param] = (char *) conn->shard.b;
        seg->lengths[seg->seq_param] = 16;
        seg->values[seg->seq_param + 1] = (char *) seg->seq_be;
        seg->lengths[seg->seq_param + 1] = 8;
    }

    if (!PQsendQueryPrepared(conn->pg, ngx_hm_pg.names[seg->stmt],
                             seg->nparams, seg->values, seg->lengths,
                             ngx_hm_pg_binary, 1))
    {
        return NGX_ERROR;
    }

    if (seg->more
        && !PQsendQueryPrepared(conn->pg, ngx_hm_pg.names[seg->more_stmt],
                                seg->more_nparams, seg->more_values,
                                seg->more_lengths, ngx_hm_pg_binary, 1))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_hm_pg_push(ngx_hm_pgconn_t *conn)
{
    int  rc;

    rc = PQflush(conn->pg);

    if (rc < 0) {
        ngx_hm_pg_lost(conn, PQerrorMessage(conn->pg));
        return;
    }

    ngx_hm_pg_want_write(conn, rc == 1);
}


/* Results */


static void
ngx_hm_pg_results(ngx_hm_pgconn_t *conn)
{
    PGresult        *res;
    ngx_queue_t     *q;
    ngx_hm_batch_t  *b;

    while (conn->state == NGX_HM_PG_READY
           && !ngx_queue_empty(&conn->flying)
           && !PQisBusy(conn->pg))
    {
        q = ngx_queue_head(&conn->flying);
        b = ngx_queue_data(q, ngx_hm_batch_t, queue);

        res = PQgetResult(conn->pg);

        if (res == NULL) {
            /* a statement has ended: its context, itself, or its second */

            ngx_hm_pg_advance(b);
            continue;
        }

        if (PQresultStatus(res) == PGRES_PIPELINE_SYNC) {
            PQclear(res);
            ngx_hm_pg_synced(conn, b);
            continue;
        }

        ngx_hm_pg_result(b, res);
    }

    if (conn->state == NGX_HM_PG_READY
        && PQstatus(conn->pg) == CONNECTION_BAD)
    {
        ngx_hm_pg_lost(conn, PQerrorMessage(conn->pg));
    }
}


static void
ngx_hm_pg_advance(ngx_hm_batch_t *b)
{
    ngx_hm_seg_t  *seg;

    if (b->at == ngx_queue_sentinel(&b->segs)) {
        return;
    }

    seg = ngx_queue_data(b->at, ngx_hm_seg_t, queue);

    if (++b->in_stmt > 1u + seg->more) {
        b->at = b->many ? ngx_queue_sentinel(&b->segs)
                        : ngx_queue_next(b->at);
        b->in_stmt = 0;
    }
}


static void
ngx_hm_pg_result(ngx_hm_batch_t *b, PGresult *res)
{
    char            *state;
    ngx_hm_seg_t    *seg;
    ExecStatusType   status;

    seg = NULL;
    status = PQresultStatus(res);

    if (b->at != ngx_queue_sentinel(&b->segs)) {
        seg = ngx_queue_data(b->at, ngx_hm_seg_t, queue);
    }

    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        if (seg != NULL && b->in_stmt == 1 && b->many) {
            b->many_res = res;
            return;
        }

        if (seg != NULL && b->in_stmt == 1) {
            if (seg->res != NULL) {
                PQclear(seg->res);
            }

            seg->res = res;
            return;
        }

        PQclear(res);
        return;
    }

    b->failed = 1;

    if (status == PGRES_FATAL_ERROR && seg != NULL) {
        state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

        if (state != NULL) {
            ngx_memcpy(seg->sqlstate, state, 5);
            seg->sqlstate[5] = '\0';
        }

        /* messages may hold values: only the code is logged */

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_hm_pg.log, 0,
                       "healthmate: statement %ui failed: %s", seg->stmt,
                       seg->sqlstate);
#ifdef HM_SHOW_SQL_ERRORS
        ngx_log_error(NGX_LOG_ERR, ngx_hm_pg.log, 0, "SQL %ui: %s",
                      seg->stmt, PQresultErrorMessage(res));
#endif
    }

    PQclear(res);
}


static void
ngx_hm_pg_synced(ngx_hm_pgconn_t *conn, ngx_hm_batch_t *b)
{
    ngx_uint_t     failed, n;
    ngx_queue_t    segs, *q;
    ngx_hm_seg_t  *seg;

    failed = b->failed;
    n = b->n;

    ngx_queue_init(&segs);

    if (b->many) {
        if (!failed && conn->lane == NGX_HM_LANE_READ) {
            ngx_hm_pg_share_rows(b);
            failed = b->failed;

        } else if (!failed) {
            ngx_hm_pg_share(b);
        }

        PQclear(b->many_res);
        b->many_res = NULL;
    }

    while (!ngx_queue_empty(&b->segs)) {
        q = ngx_queue_head(&b->segs);
        ngx_queue_remove(q);
        ngx_queue_insert_tail(&segs, q);
    }

    ngx_queue_remove(&b->queue);
    ngx_queue_insert_head(&conn->spare, &b->queue);

    if (failed && conn->depth == 1) {
        /* nothing of it was committed: its numbers are free again */
        conn->seq = b->first_seq;
    }

#ifdef HM_FAULT_SWAP
    if (n > 1 && !failed) {
        ngx_hm_seg_t  *other;
        PGresult      *res;

        seg = ngx_queue_data(ngx_queue_head(&segs), ngx_hm_seg_t, queue);
        other = ngx_queue_data(ngx_queue_last(&segs), ngx_hm_seg_t, queue);
        res = seg->res;
        seg->res = other->res;
        other->res = res;
    }
#endif

    while (!ngx_queue_empty(&segs)) {

        /* those to be sent again go in front of the queue, in their order */

        q = failed ? ngx_queue_last(&segs) : ngx_queue_head(&segs);
        ngx_queue_remove(q);
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);

        if (!failed) {
            ngx_hm_pg_done(seg, NGX_HM_PG_OK);
            continue;
        }

        /* 57014: it was too slow, and would be again */

        if (n == 1 || seg->resent
            || ngx_strcmp(seg->sqlstate, "57014") == 0)
        {
            ngx_hm_pg_done(seg, NGX_HM_PG_ERROR);
            continue;
        }

        ngx_hm_seg_clear(seg);
        seg->flying = 0;
        seg->queued = 1;
        seg->alone = 1;
        seg->resent = 1;
        seg->sqlstate[0] = '\0';

        ngx_queue_insert_head(&ngx_hm_pg.queue[seg->lane], &seg->queue);
        ngx_hm_pg.queued[seg->lane]++;
        ngx_hm_count(NGX_HM_M_PG_RESENT, 1);
    }

    if (!ngx_queue_empty(&ngx_hm_pg.queue[conn->lane])) {
        ngx_hm_pg_wake();
    }
}


static void
ngx_hm_pg_done(ngx_hm_seg_t *seg, ngx_hm_pg_rc_t rc)
{
    seg->flying = 0;
    seg->rc = rc;

    if (rc != NGX_HM_PG_OK) {
        ngx_hm_seg_clear(seg);
    }

    seg->done(seg);
}


void
ngx_hm_seg_clear(ngx_hm_seg_t *seg)
{
    if (seg->shared != NULL) {
        if (--seg->shared->refs == 0) {
            PQclear(seg->shared->res);
            ngx_free(seg->shared);
        }

        seg->shared = NULL;
        seg->res = NULL;
    }

    if (seg->res != NULL) {
        PQclear(seg->res);
        seg->res = NULL;
    }
}
