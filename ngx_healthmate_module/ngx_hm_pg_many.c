/*
 * ngx_hm_pg_many: the segments of a batch that have one statement for all.
 *
 * DESIGN.  Single reads and creations of own records, each with a twin that
 * takes arrays: executor start, context and audit insert are paid once for
 * the batch (docs/decisions.md 27).  The context names all its actors, so
 * row-level security sees the set; that one does not get another's row is
 * then up to the join on owner and id, and to the owner that each row brings
 * back, which the module compares.  An array of a parameter is built from
 * the parameters of the segments, in their order.
 *
 * One result serves all: each looks at its own row, found by what it asked
 * for and not by its place, and the last one to let go clears it.
 */

#include "ngx_hm.h"
#include "ngx_hm_pg.h"


static u_char *ngx_hm_pg_array(u_char *p, ngx_hm_batch_t *b, int param,
    uint32_t oid);
static ngx_uint_t ngx_hm_pg_asked(ngx_hm_batch_t *b, const PGresult *res,
    int row);


/*
 * The segments at the head of the queue whose statement has a twin that
 * takes the rows of all of them: at least two of the same.
 */
ngx_uint_t
ngx_hm_pg_take_many(ngx_hm_pgconn_t *conn, ngx_hm_batch_t *b)
{
    ngx_uint_t      n, twin;
    ngx_queue_t    *q, *lane;
    ngx_hm_seg_t   *seg;
    ngx_hm_stmt_t  *stmt;

#ifdef HM_FAULT_SWAP
    return 0;
#endif

    lane = &ngx_hm_pg.queue[conn->lane];
    stmt = ngx_hm_pg.conf->stmts.elts;
    twin = 0;
    n = 0;

    for (q = ngx_queue_head(lane);
         q != ngx_queue_sentinel(lane) && n < ngx_hm_lanes[conn->lane].batch;
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);

        if (!seg->many || seg->alone || stmt[seg->stmt].many == 0
            || (twin != 0 && stmt[seg->stmt].many != twin))
        {
            break;
        }

        twin = stmt[seg->stmt].many;
        n++;
    }

    if (n < 2) {
        return 0;
    }

    while (b->n < n) {
        q = ngx_queue_head(lane);
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);
        ngx_hm_pg_unlink(seg);
        ngx_queue_insert_tail(&b->segs, &seg->queue);
        seg->flying = 1;
        b->n++;
    }

    b->many = 1;

    return 1;
}


/*
 * One statement for the batch: each parameter an array of the segments' own.
 * Its context names all the actors, each of whom is there for himself only.
 */
ngx_int_t
ngx_hm_pg_put_many(ngx_hm_pgconn_t *conn, ngx_hm_batch_t *b)
{
    int              i, lengths[NGX_HM_PARAMS];
    size_t           need;
    u_char          *p;
    const char      *values[NGX_HM_PARAMS], *actors;
    ngx_queue_t     *q;
    ngx_hm_seg_t    *seg, *first;
    ngx_hm_stmt_t   *stmt;

    first = ngx_queue_data(ngx_queue_head(&b->segs), ngx_hm_seg_t, queue);
    stmt = (ngx_hm_stmt_t *) ngx_hm_pg.conf->stmts.elts + first->stmt;

    need = 4 + b->n * (HM_UUID_TEXT + 1);

    for (q = ngx_queue_head(&b->segs); q != ngx_queue_sentinel(&b->segs);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);

        for (i = 0; i < seg->nparams; i++) {
            need += 4 + (size_t) seg->lengths[i];
        }
    }

    need += (size_t) first->nparams * 24;

    if (need > conn->size) {
        ngx_free(conn->buf);
        conn->size = 0;
        conn->buf = ngx_alloc(need * 2, ngx_hm_pg.log);

        if (conn->buf == NULL) {
            return NGX_ERROR;
        }

        conn->size = need * 2;
    }

    p = conn->buf;
    actors = (char *) p;
    *p++ = '{';

    for (q = ngx_queue_head(&b->segs); q != ngx_queue_sentinel(&b->segs);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);

#ifndef HM_FAULT_NO_CONTEXT
        hm_uuid_format(&seg->actor, (char *) p);
        p += HM_UUID_TEXT;
        *p++ = ',';
#endif
    }

    p[-1] = p[-1] == ',' ? '}' : '{';

    if (p[-1] == '{') {
        *p++ = '}';
    }

    *p++ = '\0';

    for (i = 0; i < first->nparams; i++) {
        values[i] = (char *) p;

        if (stmt->oids[i] != 0) {
            p = ngx_hm_pg_array(p, b, i, stmt->oids[i]);
        }

        lengths[i] = (int) (p - (u_char *) values[i]);
    }

    if (first->seq_param >= 0) {
        hm_put_u64(conn->seq_be, conn->seq);
        conn->seq += b->n;
    }

    i = first->seq_param;

    if (i >= 0) {
        values[i] = (char *) conn->shard.b;
        lengths[i] = 16;
        values[i + 1] = (char *) conn->seq_be;
        lengths[i + 1] = 8;
    }

    return PQsendQueryPrepared(conn->pg, "ctxs", 1, &actors, NULL, NULL, 0)
           && PQsendQueryPrepared(conn->pg, ngx_hm_pg.names[stmt->many],
                                  first->nparams, values, lengths,
                                  ngx_hm_pg_binary, 1)
           ? NGX_OK : NGX_ERROR;
}


static u_char *
ngx_hm_pg_array(u_char *p, ngx_hm_batch_t *b, int param, uint32_t oid)
{
    ngx_queue_t   *q;
    ngx_hm_seg_t  *seg;

    p = hm_put_array(p, oid, (uint32_t) b->n);

    for (q = ngx_queue_head(&b->segs); q != ngx_queue_sentinel(&b->segs);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);

        if (seg->values[param] == NULL) {
            hm_put_u32(p, (uint32_t) -1);
            p += 4;
            continue;
        }

        hm_put_u32(p, (uint32_t) seg->lengths[param]);
        p = ngx_cpymem(p + 4, seg->values[param],
                       (size_t) seg->lengths[param]);
    }

    return p;
}


/* Has anybody in the batch asked for this row, as its owner? */
static ngx_uint_t
ngx_hm_pg_asked(ngx_hm_batch_t *b, const PGresult *res, int row)
{
    hm_uuid_t      id, owner;
    ngx_queue_t   *q;
    ngx_hm_seg_t  *seg;

    id = hm_row_uuid(res, row, 0);
    owner = hm_row_uuid(res, row, 1);

    for (q = ngx_queue_head(&b->segs); q != ngx_queue_sentinel(&b->segs);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);

        if (ngx_memcmp(owner.b, seg->values[0], 16) == 0
            && ngx_memcmp(id.b, seg->values[1], 16) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * Reads: each segment looks into the one result, at the row with its owner
 * and id.  Rows come in the order of the batch, but for those that are not
 * there.  A row that nobody asked for is given to whoever asked for its id:
 * the comparison of owners refuses it there, aloud.
 */
void
ngx_hm_pg_share_rows(ngx_hm_batch_t *b)
{
    int                   i, n, row, alien;
    hm_uuid_t             id, owner;
    ngx_queue_t          *q;
    ngx_hm_seg_t         *seg;
    ngx_hm_shared_res_t  *shared;

    shared = ngx_alloc(sizeof(ngx_hm_shared_res_t), ngx_hm_pg.log);

    if (shared == NULL) {
        b->failed = 1;
        return;
    }

    shared->res = b->many_res;
    shared->refs = b->n;
    b->many_res = NULL;

    n = PQntuples(shared->res);
    row = 0;

    for (q = ngx_queue_head(&b->segs); q != ngx_queue_sentinel(&b->segs);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);
        seg->was_many = 1;
        seg->shared = shared;
        seg->res = shared->res;
        seg->row = -1;
        alien = -1;

        for (i = 0; i < n; i++, row++) {
            row = row < n ? row : 0;
            id = hm_row_uuid(shared->res, row, 0);

            if (ngx_memcmp(id.b, seg->values[1], 16) != 0) {
                continue;
            }

            owner = hm_row_uuid(shared->res, row, 1);

            if (ngx_memcmp(owner.b, seg->values[0], 16) == 0) {
                seg->row = row;          /* two may ask for the same one */
                break;
            }

            alien = row;
        }

        if (seg->row < 0 && alien >= 0
            && !ngx_hm_pg_asked(b, shared->res, alien))
        {
            seg->row = alien;
        }
    }
}


/* Whose row became what: matched by the id that comes back. */
void
ngx_hm_pg_share(ngx_hm_batch_t *b)
{
    int            row;
    hm_uuid_t      id;
    ngx_queue_t   *q;
    ngx_hm_seg_t  *seg;

    row = 0;

    for (q = ngx_queue_head(&b->segs); q != ngx_queue_sentinel(&b->segs);
         q = ngx_queue_next(q))
    {
        seg = ngx_queue_data(q, ngx_hm_seg_t, queue);
        seg->was_many = 1;
        seg->many_owner = hm_nil_uuid;

        if (b->many_res == NULL || row >= PQntuples(b->many_res)) {
            continue;
        }

        id = hm_row_uuid(b->many_res, row, 0);

        if (ngx_memcmp(id.b, seg->values[0], 16) == 0) {
            seg->many_owner = hm_row_uuid(b->many_res, row, 1);
        }

        row++;
    }
}
