/*
 * ngx_hm_crud.h: between the parts of the CRUD engine.
 *
 *   ngx_hm_crud.c        the verbs
 *   ngx_hm_list.c        queries and cursors of lists
 *   ngx_hm_idempotent.c  Idempotency-Key
 */

#ifndef NGX_HM_CRUD_H
#define NGX_HM_CRUD_H

#include "ngx_hm.h"


typedef struct {
    ngx_uint_t      limit;
    unsigned        asc:1;
    unsigned        filtered:1;
    hm_usec_t       from;                /* HM_USEC_NONE: open */
    hm_usec_t       to;
    hm_usec_t       after;               /* the cursor's place */
    hm_uuid_t       after_id;
    hm_str_t        types;               /* as they were sent */
    hm_str_t        source;
    unsigned char   filters[32];         /* what a cursor is bound to */
} ngx_hm_list_t;


ngx_uint_t ngx_hm_crud_stmt(ngx_hm_ctx_t *hm, hm_sql_t kind);
void ngx_hm_crud_params(ngx_hm_ctx_t *hm, const hm_resource_t *res,
    const hm_record_t *rec);
ngx_hm_rc_t ngx_hm_crud_seal(ngx_hm_ctx_t *hm, const hm_resource_t *res,
    hm_record_t *rec);
ngx_hm_rc_t ngx_hm_crud_row(ngx_hm_ctx_t *hm, hm_record_t **out);
ngx_hm_rc_t ngx_hm_crud_reply(ngx_hm_ctx_t *hm, ngx_uint_t status,
    const hm_record_t *rec);
void ngx_hm_crud_ring(ngx_hm_ctx_t *hm, ngx_uint_t made);
/* The patch without the members it may not have; those are faults. */
json_t *ngx_hm_patch_check(ngx_hm_ctx_t *hm, const hm_resource_t *res);
/* Dropped with the context; takes the reference. */
void ngx_hm_keep_json(ngx_hm_ctx_t *hm, json_t *json);

ngx_hm_rc_t ngx_hm_list_query(ngx_hm_ctx_t *hm, ngx_hm_list_t *list);
ngx_hm_rc_t ngx_hm_list_filter(ngx_hm_ctx_t *hm, ngx_hm_list_t *list);
ngx_hm_rc_t ngx_hm_list_cursor(ngx_hm_ctx_t *hm, ngx_hm_list_t *list,
    hm_usec_t time, const hm_uuid_t *id);
hm_problem_t ngx_hm_query_time(ngx_hm_ctx_t *hm, const char *name,
    hm_usec_t *t);

/* A step: a repeated POST is answered with what the first one got. */
ngx_hm_rc_t ngx_hm_step_idempotent(ngx_hm_ctx_t *hm);
/* The record of the key, into the transaction of hm->seg. */
ngx_hm_rc_t ngx_hm_idempotent_join(ngx_hm_ctx_t *hm);
/* Passes rc on; keeps the answer when the request had a key. */
ngx_hm_rc_t ngx_hm_idempotent_keep(ngx_hm_ctx_t *hm, ngx_hm_rc_t rc);

#endif
