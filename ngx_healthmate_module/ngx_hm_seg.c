/*
 * ngx_hm_seg: a request's own segment, filled parameter by parameter in
 * binary form and waited for as one step.  The parameters stay in the
 * context's arena until the segment is done, because one that failed in a
 * batch is sent once more, alone.
 */

#include "ngx_hm.h"


static void ngx_hm_seg_done(ngx_hm_seg_t *seg);
static void *ngx_hm_seg_room(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, size_t len);


void
ngx_hm_seg_start(ngx_hm_ctx_t *hm, ngx_hm_lane_t lane, ngx_uint_t stmt)
{
    ngx_hm_seg_t  *seg;

    seg = &hm->seg;

    ngx_hm_seg_clear(seg);

    seg->lane = lane;
    seg->stmt = stmt;
    seg->nparams = 0;
    seg->actor = hm->signed_in ? hm->who.sub : hm_nil_uuid;
    seg->seq_param = -1;
    seg->nseq = 0;
    seg->more = 0;
    seg->many = 0;
    seg->was_many = 0;
    seg->row = 0;
    seg->sqlstate[0] = '\0';
    seg->done = ngx_hm_seg_done;
    seg->data = hm;
}


void
ngx_hm_seg_null(ngx_hm_seg_t *seg)
{
    seg->values[seg->nparams] = NULL;
    seg->lengths[seg->nparams++] = 0;
}


void
ngx_hm_seg_add(ngx_hm_seg_t *seg, const void *data, size_t len)
{
    /* a NULL pointer would be SQL's NULL, an empty value is not */
    seg->values[seg->nparams] = len != 0 ? data : "";
    seg->lengths[seg->nparams++] = (int) len;
}


void
ngx_hm_seg_str(ngx_hm_seg_t *seg, hm_str_t s)
{
    if (s.data == NULL) {
        ngx_hm_seg_null(seg);
        return;
    }

    ngx_hm_seg_add(seg, s.data, s.len);
}


void
ngx_hm_seg_uuid(ngx_hm_seg_t *seg, const hm_uuid_t *id)
{
    ngx_hm_seg_add(seg, id->b, 16);
}


void
ngx_hm_seg_uuid_or_null(ngx_hm_seg_t *seg, const hm_uuid_t *id)
{
    if (hm_uuid_eq(id, &hm_nil_uuid)) {
        ngx_hm_seg_null(seg);
        return;
    }

    ngx_hm_seg_add(seg, id->b, 16);
}


static void *
ngx_hm_seg_room(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, size_t len)
{
    u_char  *p;

    p = ngx_hm_palloc(hm, len);

    if (p == NULL) {
        /* NULL violates a NOT NULL column: it fails closed */
        ngx_hm_seg_null(seg);
        return NULL;
    }

    ngx_hm_seg_add(seg, p, len);

    return p;
}


void
ngx_hm_seg_i16(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, uint16_t n)
{
    void  *p;

    p = ngx_hm_seg_room(hm, seg, 2);
    if (p != NULL) {
        hm_put_u16(p, n);
    }
}


void
ngx_hm_seg_i32(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, uint32_t n)
{
    void  *p;

    p = ngx_hm_seg_room(hm, seg, 4);
    if (p != NULL) {
        hm_put_u32(p, n);
    }
}


void
ngx_hm_seg_i64(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, uint64_t n)
{
    void  *p;

    p = ngx_hm_seg_room(hm, seg, 8);
    if (p != NULL) {
        hm_put_u64(p, n);
    }
}


void
ngx_hm_seg_time(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, hm_usec_t t)
{
    void  *p;

    p = ngx_hm_seg_room(hm, seg, 8);
    if (p != NULL) {
        hm_put_time(p, t);
    }
}


void
ngx_hm_seg_real(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, double n)
{
    void      *p;
    uint64_t   bits;

    p = ngx_hm_seg_room(hm, seg, 8);
    if (p != NULL) {
        memcpy(&bits, &n, 8);
        hm_put_u64(p, bits);
    }
}


ngx_int_t
ngx_hm_seg_tail(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg)
{
    hm_str_t    origin;
    hm_uuid_t  *job;

    ngx_hm_audit_row(hm);

    job = ngx_hm_palloc(hm, sizeof(hm_uuid_t));

    if (job == NULL || hm_uuid7(job, hm->now) != HM_OK
        || ngx_hm_audit_origin(hm, &origin) != NGX_OK)
    {
        return NGX_ERROR;
    }

    seg->seq_param = seg->nparams;
    seg->nseq = 1;

    ngx_hm_seg_null(seg);                /* shard and seq: the pool's */
    ngx_hm_seg_null(seg);
    ngx_hm_seg_uuid_or_null(seg, &hm->audit.row.actor);
    ngx_hm_seg_uuid_or_null(seg, &hm->audit.row.session);
    ngx_hm_seg_i16(hm, seg, hm->audit.row.role);
    ngx_hm_seg_i16(hm, seg, hm->audit.row.purpose);
    ngx_hm_seg_str(seg, origin);
    ngx_hm_seg_uuid(seg, job);

    hm->audited = 1;

    return NGX_OK;
}


ngx_hm_rc_t
ngx_hm_seg_wait(ngx_hm_ctx_t *hm)
{
    switch (ngx_hm_pg_send(&hm->seg)) {

    case NGX_OK:
        ngx_hm_wait(hm);
        return NGX_HM_WAIT;

    case NGX_BUSY:
        hm->headers.retry_after = 1;
        return ngx_hm_fail_detail(hm, HM_PROBLEM_OVERLOADED,
                                  "the database is busy");

    default:
        hm->headers.retry_after = 1;
        return ngx_hm_fail_detail(hm, HM_PROBLEM_UNAVAILABLE,
                                  "the database is not available");
    }
}


static void
ngx_hm_seg_done(ngx_hm_seg_t *seg)
{
    ngx_hm_resume(seg->data);
}


hm_problem_t
ngx_hm_seg_result(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_t  *seg;

    seg = &hm->seg;

    switch (seg->rc) {

    case NGX_HM_PG_OK:
        return HM_PROBLEM_NONE;

    case NGX_HM_PG_LOST:
        hm->audited = 0;
        hm->headers.retry_after = 1;
        return HM_PROBLEM_UNAVAILABLE;

    default:
        /* with the statement its audit row was rolled back, too */
        hm->audited = 0;

        /* 42501: the right to it ended between two statements */

        if (ngx_strcmp(seg->sqlstate, "42501") == 0 && hm->foreign) {
            return HM_PROBLEM_NOT_FOUND;
        }

        /* 57014: statement_timeout; 55P03: lock_timeout; 40P01: deadlock */

        if (ngx_strcmp(seg->sqlstate, "57014") == 0
            || ngx_strcmp(seg->sqlstate, "40P01") == 0
            || ngx_strcmp(seg->sqlstate, "55P03") == 0)
        {
            hm->headers.retry_after = 1;
            return HM_PROBLEM_OVERLOADED;
        }

        ngx_log_error(NGX_LOG_ERR, ngx_hm_worker.log, 0,
                      "healthmate: statement \"%s\" failed with SQLSTATE %s",
                      ((ngx_hm_stmt_t *) hm->conf->stmts.elts)[seg->stmt]
                      .name, seg->sqlstate);

        return HM_PROBLEM_SERVER_ERROR;
    }
}
