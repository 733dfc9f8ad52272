/*
 * ngx_hm_audit: the record of each read is durable before its answer leaves.
 *
 * A read is answered in three beats: its rows come, its answer is built and
 * held, its audit row is committed.  Rows that gather while one batch is
 * being committed form the next batch, so the size of a batch follows from
 * the time of an fsync and nothing is tuned by hand.  Writes do not come
 * here: their row is in their own statement.
 *
 * It fails closed: no connection, no key, a full queue: 503 and no data.
 * A batch that fails is sent row by row; only the guilty request fails, and
 * the rows of its person go alone for a minute, so that one hostile account
 * cannot spoil everybody's batches.
 *
 * `origin` (address, request id) is sealed under the audit key of the month,
 * so that it can be destroyed without touching the proof of the log.
 */

#include "ngx_hm.h"


#define NGX_HM_AUDIT_BATCH    256
#define NGX_HM_AUDIT_COLUMNS  13
#define NGX_HM_OUTCASTS       32
#define NGX_HM_OUTCAST_TIME   60000


typedef struct {
    hm_uuid_t             user;
    ngx_msec_t            until;
} ngx_hm_outcast_t;


static struct {
    ngx_hm_main_conf_t   *conf;
    ngx_queue_t           pending;
    ngx_queue_t           flying;
    ngx_uint_t            npending;
    ngx_uint_t            nflying;
    ngx_hm_seg_t          seg;
    u_char               *buf;
    size_t                size;
    u_char                base[8];
    ngx_uint_t            nsingle;       /* these go one by one */
    ngx_hm_outcast_t      outcasts[NGX_HM_OUTCASTS];
    ngx_uint_t            noutcasts;
} ngx_hm_aud;


static ngx_uint_t ngx_hm_audit_is_outcast(const hm_uuid_t *user);
static void ngx_hm_audit_cast_out(const hm_uuid_t *user);
static ngx_uint_t ngx_hm_audit_take(void);
static ngx_int_t ngx_hm_audit_build(void);
static u_char *ngx_hm_audit_column(u_char *p, ngx_uint_t column);
static u_char *ngx_hm_audit_value(u_char *p, ngx_uint_t column,
    const hm_audit_row_t *row);
static void ngx_hm_audit_done(ngx_hm_seg_t *seg);


/* uuid 2950, timestamptz 1184, int2 21, int4 23, bytea 17 */
static const uint32_t  ngx_hm_audit_oids[NGX_HM_AUDIT_COLUMNS] = {
    1184, 21, 21, 21, 21, 21, 2950, 2950, 2950, 2950, 2950, 23, 17
};


ngx_int_t
ngx_hm_audit_start(ngx_hm_main_conf_t *mcf)
{
    ngx_memzero(&ngx_hm_aud, sizeof(ngx_hm_aud));

    ngx_hm_aud.conf = mcf;
    ngx_queue_init(&ngx_hm_aud.pending);
    ngx_queue_init(&ngx_hm_aud.flying);

    return NGX_OK;
}


/* Who, what, about whom; the outcome and the items come with the answer. */
void
ngx_hm_audit_row(ngx_hm_ctx_t *hm)
{
    hm_audit_row_t  *row;

    row = &hm->audit.row;

    row->at = hm->now;
    row->action = (uint16_t) (hm->route != NULL ? hm->route->action
                                                : HM_AUDIT_READ);
    row->resource = (uint16_t) (hm->route != NULL ? hm->route->audit_of
                                                  : HM_AUDIT_OF_NONE);
    row->role = (uint8_t) hm->who.role;
    row->actor = hm->who.sub;
    row->session = hm->who.sid;
    row->subject = hm->subject;

    if (!hm->foreign) {
        row->purpose = HM_PURPOSE_SELF;
    } else if (hm->glass) {
        row->purpose = HM_PURPOSE_BREAK_GLASS;
    } else if (hm->who.role == HM_ROLE_ADMIN) {
        row->purpose = HM_PURPOSE_ADMIN;
    } else {
        row->purpose = HM_PURPOSE_CARE;
    }
}


ngx_int_t
ngx_hm_audit_send(ngx_hm_ctx_t *hm)
{
    if (ngx_hm_aud.npending >= ngx_hm_aud.conf->database_queue) {
        ngx_hm_count(NGX_HM_M_OVERLOADED, 1);
        return NGX_BUSY;
    }

    if (!ngx_hm_pg_lane_up(NGX_HM_LANE_AUDIT)
        || ngx_hm_audit_origin(hm, &hm->audit.row.origin) != NGX_OK)
    {
        ngx_hm_count(NGX_HM_M_AUDIT_FAILED, 1);
        return NGX_DECLINED;
    }

    ngx_queue_insert_tail(&ngx_hm_aud.pending, &hm->audit.queue);
    hm->audit.queued = 1;
    ngx_hm_aud.npending++;

    ngx_hm_pg_wake();

    return NGX_OK;
}


void
ngx_hm_audit_unlink(ngx_hm_ctx_t *hm)
{
    if (hm->audit.queued) {
        ngx_queue_remove(&hm->audit.queue);
        hm->audit.queued = 0;
        ngx_hm_aud.npending--;

        if (ngx_hm_aud.nsingle > ngx_hm_aud.npending) {
            ngx_hm_aud.nsingle = ngx_hm_aud.npending;
        }
    }
}


/* Called at the end of each turn: starts a batch if none is under way. */
void
ngx_hm_audit_kick(void)
{
    ngx_queue_t   *q;
    ngx_hm_ctx_t  *hm;

    if (ngx_hm_aud.conf == NULL || ngx_hm_aud.npending == 0
        || ngx_hm_aud.nflying != 0)
    {
        return;
    }

    ngx_hm_aud.nflying = ngx_hm_audit_take();

    if (ngx_hm_audit_build() == NGX_OK
        && ngx_hm_pg_send(&ngx_hm_aud.seg) == NGX_OK)
    {
        ngx_hm_count(NGX_HM_M_AUDIT_BATCHES, 1);
        ngx_hm_count(NGX_HM_M_AUDIT_ROWS, ngx_hm_aud.nflying);
        return;
    }

    ngx_hm_aud.nflying = 0;

    while (!ngx_queue_empty(&ngx_hm_aud.flying)) {
        q = ngx_queue_head(&ngx_hm_aud.flying);
        ngx_queue_remove(q);
        hm = ngx_queue_data(q, ngx_hm_ctx_t, audit.queue);
        hm->audit.flying = 0;
        ngx_hm_count(NGX_HM_M_AUDIT_FAILED, 1);
        hm->audit.done(hm, 0);
    }
}


static ngx_uint_t
ngx_hm_audit_take(void)
{
    ngx_uint_t     n, max, outcast;
    ngx_queue_t   *q;
    ngx_hm_ctx_t  *hm;

    n = 0;
    max = ngx_hm_aud.nsingle != 0 ? 1 : NGX_HM_AUDIT_BATCH;

    while (n < max && !ngx_queue_empty(&ngx_hm_aud.pending)) {
        q = ngx_queue_head(&ngx_hm_aud.pending);
        hm = ngx_queue_data(q, ngx_hm_ctx_t, audit.queue);

        outcast = ngx_hm_aud.noutcasts != 0
                  && ngx_hm_audit_is_outcast(&hm->audit.row.actor);

        if (outcast && n != 0) {
            break;
        }

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&ngx_hm_aud.flying, q);
        hm->audit.queued = 0;
        hm->audit.flying = 1;
        ngx_hm_aud.npending--;
        n++;

        if (outcast) {
            break;
        }
    }

    if (ngx_hm_aud.nsingle != 0) {
        ngx_hm_aud.nsingle--;
    }

    return n;
}


static ngx_int_t
ngx_hm_audit_build(void)
{
    size_t         need;
    u_char        *p, *start;
    ngx_uint_t     i;
    ngx_queue_t   *q;
    ngx_hm_seg_t  *seg;
    ngx_hm_ctx_t  *hm;

    need = NGX_HM_AUDIT_COLUMNS * (20 + ngx_hm_aud.nflying * 20);

    for (q = ngx_queue_head(&ngx_hm_aud.flying);
         q != ngx_queue_sentinel(&ngx_hm_aud.flying);
         q = ngx_queue_next(q))
    {
        hm = ngx_queue_data(q, ngx_hm_ctx_t, audit.queue);
        need += hm->audit.row.origin.len;
    }

    if (need > ngx_hm_aud.size) {
        p = ngx_alloc(need * 2, ngx_hm_worker.log);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_free(ngx_hm_aud.buf);
        ngx_hm_aud.buf = p;
        ngx_hm_aud.size = need * 2;
    }

    seg = &ngx_hm_aud.seg;
    ngx_hm_seg_clear(seg);

    seg->lane = NGX_HM_LANE_AUDIT;
    seg->stmt = NGX_HM_SQL_AUDIT;
    seg->nparams = 0;
    seg->actor = hm_nil_uuid;
    seg->seq_param = 0;
    seg->more = 0;
    seg->many = 0;
    seg->was_many = 0;
    seg->row = 0;
    seg->nseq = (uint32_t) ngx_hm_aud.nflying;
    seg->done = ngx_hm_audit_done;

    ngx_hm_seg_null(seg);
    ngx_hm_seg_null(seg);

    p = ngx_hm_aud.buf;

    for (i = 0; i < NGX_HM_AUDIT_COLUMNS; i++) {
        start = p;
        p = ngx_hm_audit_column(p, i);
        ngx_hm_seg_add(seg, start, (size_t) (p - start));
    }

    return NGX_OK;
}


static u_char *
ngx_hm_audit_column(u_char *p, ngx_uint_t column)
{
    ngx_queue_t   *q;
    ngx_hm_ctx_t  *hm;

    p = hm_put_array(p, ngx_hm_audit_oids[column],
                     (uint32_t) ngx_hm_aud.nflying);

    for (q = ngx_queue_head(&ngx_hm_aud.flying);
         q != ngx_queue_sentinel(&ngx_hm_aud.flying);
         q = ngx_queue_next(q))
    {
        hm = ngx_queue_data(q, ngx_hm_ctx_t, audit.queue);
        p = ngx_hm_audit_value(p, column, &hm->audit.row);
    }

    return p;
}


static u_char *
ngx_hm_audit_value(u_char *p, ngx_uint_t column, const hm_audit_row_t *row)
{
    uint16_t          n16;
    const hm_uuid_t  *id;

    n16 = 0;
    id = NULL;

    switch (column) {
    case 0:
        hm_put_u32(p, 8);
        hm_put_time(p + 4, row->at);
        return p + 12;
    case 1: n16 = row->action; break;
    case 2: n16 = row->resource; break;
    case 3: n16 = row->outcome; break;
    case 4: n16 = row->role; break;
    case 5: n16 = row->purpose; break;
    case 6: id = &row->actor; break;
    case 7: id = &row->session; break;
    case 8: id = &row->subject; break;
    case 9: id = &row->first; break;
    case 10: id = &row->last; break;
    case 11:
        hm_put_u32(p, 4);
        hm_put_u32(p + 4, row->items);
        return p + 8;
    default:
        if (row->origin.data == NULL) {
            hm_put_u32(p, (uint32_t) -1);
            return p + 4;
        }

        hm_put_u32(p, (uint32_t) row->origin.len);
        return ngx_cpymem(p + 4, row->origin.data, row->origin.len);
    }

    if (id == NULL) {
        hm_put_u32(p, 2);
        hm_put_u16(p + 4, n16);
        return p + 6;
    }

    if (hm_uuid_eq(id, &hm_nil_uuid)) {
        hm_put_u32(p, (uint32_t) -1);
        return p + 4;
    }

    hm_put_u32(p, 16);
    return ngx_cpymem(p + 4, id->b, 16);
}


static void
ngx_hm_audit_done(ngx_hm_seg_t *seg)
{
    ngx_uint_t     ok, n;
    ngx_queue_t    batch, *q;
    ngx_hm_ctx_t  *hm;

    ok = seg->rc == NGX_HM_PG_OK;
    n = ngx_hm_aud.nflying;

    ngx_hm_seg_clear(seg);
    ngx_hm_aud.nflying = 0;
    ngx_queue_init(&batch);

    while (!ngx_queue_empty(&ngx_hm_aud.flying)) {
        q = ngx_queue_head(&ngx_hm_aud.flying);
        ngx_queue_remove(q);
        ngx_queue_insert_tail(&batch, q);
    }

    if (!ok && seg->rc == NGX_HM_PG_ERROR && n > 1) {

        /* one of them is guilty: each alone, in their order */

        while (!ngx_queue_empty(&batch)) {
            q = ngx_queue_last(&batch);
            ngx_queue_remove(q);
            hm = ngx_queue_data(q, ngx_hm_ctx_t, audit.queue);
            hm->audit.flying = 0;
            hm->audit.queued = 1;
            ngx_queue_insert_head(&ngx_hm_aud.pending, q);
            ngx_hm_aud.npending++;
        }

        ngx_hm_aud.nsingle += n;
        ngx_hm_pg_wake();
        return;
    }

    while (!ngx_queue_empty(&batch)) {
        q = ngx_queue_head(&batch);
        ngx_queue_remove(q);
        hm = ngx_queue_data(q, ngx_hm_ctx_t, audit.queue);
        hm->audit.flying = 0;

        if (!ok) {
            ngx_hm_count(NGX_HM_M_AUDIT_FAILED, 1);

            if (seg->rc == NGX_HM_PG_ERROR) {
                ngx_hm_audit_cast_out(&hm->audit.row.actor);
                ngx_log_error(NGX_LOG_ERR, ngx_hm_worker.log, 0,
                              "healthmate: an audit record was refused "
                              "with SQLSTATE %s", seg->sqlstate);
            }
        }

        hm->audit.done(hm, ok);
    }

    if (ngx_hm_aud.npending != 0) {
        ngx_hm_pg_wake();
    }
}


static ngx_uint_t
ngx_hm_audit_is_outcast(const hm_uuid_t *user)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_hm_aud.noutcasts; i++) {
        if (hm_uuid_eq(&ngx_hm_aud.outcasts[i].user, user)) {

            if ((ngx_msec_int_t) (ngx_hm_aud.outcasts[i].until
                                  - ngx_current_msec) > 0)
            {
                return 1;
            }

            ngx_hm_aud.outcasts[i] =
                             ngx_hm_aud.outcasts[--ngx_hm_aud.noutcasts];
            return 0;
        }
    }

    return 0;
}


static void
ngx_hm_audit_cast_out(const hm_uuid_t *user)
{
    ngx_uint_t  i;

    if (ngx_hm_audit_is_outcast(user)) {
        return;
    }

    i = ngx_hm_aud.noutcasts < NGX_HM_OUTCASTS
        ? ngx_hm_aud.noutcasts++ : (ngx_uint_t) ngx_random()
                                   % NGX_HM_OUTCASTS;

    ngx_hm_aud.outcasts[i].user = *user;
    ngx_hm_aud.outcasts[i].until = ngx_current_msec + NGX_HM_OUTCAST_TIME;
}
