/*
 * ngx_hm_pg.h: what the two files of the pool share.  ngx_hm_pg.c is the
 * pool; ngx_hm_pg_many.c makes one statement of many segments of a batch.
 * Nobody else includes it.
 */

#ifndef NGX_HM_PG_H
#define NGX_HM_PG_H

#include "ngx_hm.h"


#define NGX_HM_PG_DEPTH   16
#define NGX_HM_PG_CONNS   7


typedef enum {
    NGX_HM_PG_CONNECTING = 0,
    NGX_HM_PG_PREPARING,
    NGX_HM_PG_READY,
    NGX_HM_PG_BACKOFF
} ngx_hm_pg_state_e;


/* A result that several segments look into; the last one clears it. */
typedef struct ngx_hm_shared_res_s  ngx_hm_shared_res_t;

struct ngx_hm_shared_res_s {
    PGresult             *res;
    ngx_uint_t            refs;
};


typedef struct {
    ngx_queue_t           queue;
    ngx_queue_t           segs;
    ngx_queue_t          *at;            /* the segment whose result is due */
    ngx_uint_t            in_stmt;       /* 0: its context is due */
    ngx_uint_t            n;
    uint64_t              first_seq;
    PGresult             *many_res;
    unsigned              failed:1;
    unsigned              many:1;        /* one statement for all of them */
} ngx_hm_batch_t;


typedef struct {
    ngx_hm_lane_t         lane;
    ngx_hm_pg_state_e     state;
    PGconn               *pg;
    ngx_connection_t     *c;
    ngx_queue_t           flying;        /* ngx_hm_batch_t, oldest first */
    ngx_queue_t           spare;
    ngx_hm_batch_t        batches[NGX_HM_PG_DEPTH];
    ngx_uint_t            depth;
    hm_uuid_t             shard;
    uint64_t              seq;
    ngx_msec_t            backoff;
    ngx_msec_t            last_answer;
    ngx_event_t           timer;
    ngx_uint_t            told;          /* the fault was logged */
    unsigned              prepare_failed:1;
    u_char               *buf;           /* arrays of a batch */
    size_t                size;
    unsigned char         seq_be[8];
} ngx_hm_pgconn_t;


typedef struct {
    const char           *name;
    ngx_uint_t            conns;
    ngx_uint_t            depth;         /* batches in flight */
    ngx_uint_t            batch;         /* segments in one batch */
} ngx_hm_lane_row_t;


typedef struct {
    ngx_hm_main_conf_t   *conf;
    ngx_log_t            *log;
    ngx_hm_pgconn_t       conns[NGX_HM_PG_CONNS];
    ngx_queue_t           queue[NGX_HM_LANE_LAST];
    ngx_uint_t            queued[NGX_HM_LANE_LAST];
    ngx_event_t           flush;
    ngx_event_t           janitor;
    char                 *conninfo;
    char                (*names)[8];     /* "s17" */
    ngx_uint_t            stopped;
} ngx_hm_pg_t;


extern ngx_hm_pg_t              ngx_hm_pg;
extern const ngx_hm_lane_row_t  ngx_hm_lanes[];
extern const int                ngx_hm_pg_binary[NGX_HM_PARAMS];


/* From the lane's queue: those that the first one's statement can take. */
ngx_uint_t ngx_hm_pg_take_many(ngx_hm_pgconn_t *conn,
    ngx_hm_batch_t *b);
/* Sends them, with the context of all. */
ngx_int_t ngx_hm_pg_put_many(ngx_hm_pgconn_t *conn,
    ngx_hm_batch_t *b);
/* Gives each of the batch what of the result is its own. */
void ngx_hm_pg_share(ngx_hm_batch_t *b);
void ngx_hm_pg_share_rows(ngx_hm_batch_t *b);

#endif
