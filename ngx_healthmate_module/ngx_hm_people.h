/*
 * ngx_hm_people.h: what the endpoints about people share, which are no
 * resources of the CRUD engine: members of bodies, one sealed text, lists of
 * rows.
 *
 *   ngx_hm_people.c   one row: members of a body, If-Match, one sealed text
 *   ngx_hm_rows.c     lists: cursor, audit of everybody in it, keys of each
 */

#ifndef NGX_HM_PEOPLE_H
#define NGX_HM_PEOPLE_H

#include "ngx_hm.h"
#include "ngx_hm_crud.h"


/*
 * Members of a body, beside those of ngx_hm_form.c: what is not there or
 * null is empty, and a fault where it must be given.
 */
hm_str_t ngx_hm_form_word(ngx_hm_ctx_t *hm, const char *name,
    const char *words, ngx_uint_t required);     /* one of them, or a fault */
hm_uuid_t ngx_hm_form_uuid(ngx_hm_ctx_t *hm, const char *name);  /* required */
/* 1, 0, or -1 when it is not there. */
ngx_int_t ngx_hm_form_bool(ngx_hm_ctx_t *hm, const char *name,
    ngx_uint_t required);
hm_usec_t ngx_hm_form_time(ngx_hm_ctx_t *hm, const char *name);
/* NEXT, or the 422 of the faults so far. */
ngx_hm_rc_t ngx_hm_form_done(ngx_hm_ctx_t *hm);

/* Sets the answer's ETag and holds it against If-Match: NEXT or 400, 412. */
ngx_hm_rc_t ngx_hm_if_match(ngx_hm_ctx_t *hm, const hm_uuid_t *id,
    uint32_t version);

/* One JSON text under the keys of hm->subject; its place names the owner. */
ngx_int_t ngx_hm_seal_json(ngx_hm_ctx_t *hm, const char *table,
    const char *column, const hm_uuid_t *row, hm_str_t json, hm_str_t *out);
ngx_int_t ngx_hm_open_json(ngx_hm_ctx_t *hm, const char *table,
    const char *column, const hm_uuid_t *row, hm_str_t env, hm_str_t *json);
/* Version of the key that seals now; 0: there is none. */
uint32_t ngx_hm_seal_version(ngx_hm_ctx_t *hm);

/*
 * A statement that writes with its own audit row (ngx_hm_stmt_people.h):
 * $1..$8 are the tail, $9 is now, the endpoint's own follow.
 */
ngx_hm_rc_t ngx_hm_write_start(ngx_hm_ctx_t *hm, ngx_uint_t stmt);


/*
 * A list.  Both statements take $1 caller $2 time $3 id $4 bound $5 limit,
 * and $6 whether everybody's rows are meant where `all` says so; their first
 * three columns are time, id and the person a row is about.
 */
typedef enum {
    NGX_HM_ROWS_PLAIN = 0,       /* nothing sealed */
    NGX_HM_ROWS_KEYS,            /* keys under the caller's rights */
    NGX_HM_ROWS_STAFF            /* of accounts: doctor or administrator */
} ngx_hm_rows_keys_t;

typedef struct {
    ngx_uint_t           desc;
    ngx_uint_t           asc;
    ngx_hm_lane_t        lane;
    unsigned             all:1;
    ngx_hm_rows_keys_t   keys;
    ngx_hm_rc_t        (*row)(ngx_hm_ctx_t *hm, const PGresult *res, int row,
                              hm_buf_t *b);
} ngx_hm_rows_t;

enum { NGX_HM_ROW_TIME = 0, NGX_HM_ROW_ID, NGX_HM_ROW_PERSON,
       NGX_HM_ROW_FIRST };

/* Reads the query; a step, and what names the faults of a query. */
ngx_hm_rc_t ngx_hm_rows_read(ngx_hm_ctx_t *hm, const ngx_hm_rows_t *rows);
/* The steps that follow it. */
ngx_hm_rc_t ngx_hm_rows_send(ngx_hm_ctx_t *hm);
ngx_hm_rc_t ngx_hm_rows_got(ngx_hm_ctx_t *hm);
ngx_hm_rc_t ngx_hm_rows_told(ngx_hm_ctx_t *hm);
ngx_hm_rc_t ngx_hm_rows_write(ngx_hm_ctx_t *hm);

/* A step: the subject's keys for what staff does with an account itself. */
ngx_hm_rc_t ngx_hm_step_staff_keys(ngx_hm_ctx_t *hm);

#endif
