/*
 * ngx_hm_rows: lists of rows that are no records of the CRUD engine: people,
 * relationships, consents, grants, accesses.
 *
 * Query, cursor and bounds are those of ngx_hm_list.c.  What is different is
 * that such a list may be about several people, and that has consequences:
 *
 *   audit   one row for each person in it, committed before the answer is
 *           written, so that each of them finds it in his own access log;
 *   keys    each row opens with the keys of the person it is about.  They
 *           are loaded one person after the other, which the cache of keys
 *           makes quick from the second page on.
 *
 * A list about the caller alone is audited by the runner, as any read.
 * While rows are written hm->subject is the row's person, so that the wrong
 * key cannot be taken; afterwards it is the caller again.
 */

#include "ngx_hm.h"
#include "ngx_hm_people.h"


typedef struct {
    ngx_hm_list_t         list;          /* first: hm->data is one, too */
    const ngx_hm_rows_t  *rows;
    int                   shown;
    int                   next;          /* row to write */
    unsigned              more:1;
    unsigned              begun:1;
    unsigned              told:1;        /* people were recorded */
} ngx_hm_walk_t;


static ngx_uint_t ngx_hm_rows_people(ngx_hm_ctx_t *hm, const PGresult *res,
    int n, hm_str_t *people);
static ngx_hm_rc_t ngx_hm_rows_tell(ngx_hm_ctx_t *hm, ngx_uint_t n,
    const hm_str_t *people);
static ngx_hm_rc_t ngx_hm_rows_keys(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_rows_end(ngx_hm_ctx_t *hm);


ngx_hm_rc_t
ngx_hm_rows_read(ngx_hm_ctx_t *hm, const ngx_hm_rows_t *rows)
{
    ngx_hm_walk_t  *walk;

    walk = ngx_hm_pcalloc(hm, sizeof(ngx_hm_walk_t));
    if (walk == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    walk->rows = rows;
    hm->data = walk;

    return ngx_hm_list_query(hm, &walk->list);
}


ngx_hm_rc_t
ngx_hm_rows_send(ngx_hm_ctx_t *hm)
{
    u_char         *all;
    ngx_hm_walk_t  *walk = hm->data;
    ngx_hm_list_t  *list = &walk->list;

    ngx_hm_seg_start(hm, walk->rows->lane, list->asc ? walk->rows->asc
                                                     : walk->rows->desc);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    ngx_hm_seg_time(hm, &hm->seg, list->after);
    ngx_hm_seg_uuid(&hm->seg, &list->after_id);
    ngx_hm_seg_time(hm, &hm->seg, list->asc ? list->to : list->from);
    ngx_hm_seg_i64(hm, &hm->seg, list->limit + 1);

    if (walk->rows->all) {
        all = ngx_hm_palloc(hm, 1);
        if (all == NULL) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        *all = hm->who.role == HM_ROLE_ADMIN;
        ngx_hm_seg_add(&hm->seg, all, 1);
    }

    return ngx_hm_seg_wait(hm);
}


/* The rows are there: whoever they are about is told first. */
ngx_hm_rc_t
ngx_hm_rows_got(ngx_hm_ctx_t *hm)
{
    int             n;
    hm_str_t       *people;
    ngx_uint_t      npeople;
    hm_problem_t    p;
    ngx_hm_walk_t  *walk = hm->data;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    n = PQntuples(hm->seg.res);
    walk->shown = ngx_min(n, (int) walk->list.limit);
    walk->more = n > walk->shown;

    /* the next segment would release it */

    hm->old_res = hm->seg.res;
    hm->seg.res = NULL;

    people = ngx_hm_palloc(hm, (size_t) (walk->shown + 1)
                               * sizeof(hm_str_t));
    if (people == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    npeople = ngx_hm_rows_people(hm, hm->old_res, walk->shown, people);

    if (npeople == 0) {
        return NGX_HM_NEXT;
    }

    walk->told = 1;

    return ngx_hm_rows_tell(hm, npeople, people);
}


/* Each person but the caller once; two hundred at most. */
static ngx_uint_t
ngx_hm_rows_people(ngx_hm_ctx_t *hm, const PGresult *res, int n,
    hm_str_t *people)
{
    int         i;
    hm_str_t    id;
    ngx_uint_t  k, found;

    found = 0;

    for (i = 0; i < n; i++) {
        id = hm_row_str(res, i, NGX_HM_ROW_PERSON);

        if (id.len != 16 || ngx_memcmp(id.data, hm->who.sub.b, 16) == 0) {
            continue;
        }

        for (k = 0; k < found; k++) {
            if (ngx_memcmp(people[k].data, id.data, 16) == 0) {
                break;
            }
        }

        if (k == found) {
            people[found++] = id;
        }
    }

    return found;
}


static ngx_hm_rc_t
ngx_hm_rows_tell(ngx_hm_ctx_t *hm, ngx_uint_t n, const hm_str_t *people)
{
    ngx_hm_rc_t  rc;

    hm->foreign = 1;                     /* the purpose is care, or admin */
    rc = ngx_hm_write_start(hm, NGX_HM_SQL_PEOPLE_AUDIT);
    hm->foreign = 0;

    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_i16(hm, &hm->seg, (uint16_t) hm->route->audit_of);
    ngx_hm_seg_array(hm, 2950, n, people);
    hm->seg.nseq = (uint32_t) n;

    return ngx_hm_seg_wait(hm);
}


ngx_hm_rc_t
ngx_hm_rows_told(ngx_hm_ctx_t *hm)
{
    hm_problem_t    p;
    ngx_hm_walk_t  *walk = hm->data;

    if (!walk->told) {
        return NGX_HM_NEXT;
    }

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    ngx_hm_seg_clear(&hm->seg);

    return NGX_HM_NEXT;
}


/* Runs again from where it is each time that keys had to be waited for. */
ngx_hm_rc_t
ngx_hm_rows_write(ngx_hm_ctx_t *hm)
{
    ngx_hm_rc_t     rc;
    ngx_hm_walk_t  *walk = hm->data;

    if (!walk->begun) {
        walk->begun = 1;
        ngx_hm_reply_start(hm, NGX_HTTP_OK,
                           64 + (size_t) walk->shown * 320);
        hm_buf_lit(&hm->out, "{\"items\":[");
    }

    for ( /* void */ ; walk->next < walk->shown; walk->next++) {
        hm->subject = hm_row_uuid(hm->old_res, walk->next,
                                  NGX_HM_ROW_PERSON);

        rc = ngx_hm_rows_keys(hm);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }

        hm_buf_add(&hm->out, ",", walk->next > 0);

        rc = walk->rows->row(hm, hm->old_res, walk->next, &hm->out);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }
    }

    hm->subject = hm->who.sub;

    return ngx_hm_rows_end(hm);
}


static ngx_hm_rc_t
ngx_hm_rows_keys(ngx_hm_ctx_t *hm)
{
    ngx_hm_walk_t  *walk = hm->data;

    switch (walk->rows->keys) {

    case NGX_HM_ROWS_KEYS:
        return ngx_hm_step_keys(hm);

    case NGX_HM_ROWS_STAFF:
        return hm_uuid_eq(&hm->subject, &hm->who.sub)
               ? ngx_hm_step_keys(hm) : ngx_hm_step_staff_keys(hm);

    default:
        return NGX_HM_NEXT;
    }
}


static ngx_hm_rc_t
ngx_hm_rows_end(ngx_hm_ctx_t *hm)
{
    hm_uuid_t       id;
    hm_usec_t       time;
    ngx_hm_rc_t     rc;
    ngx_hm_walk_t  *walk = hm->data;

    hm->audit.row.items = (uint32_t) walk->shown;
    hm_buf_lit(&hm->out, "],\"next\":");

    if (walk->more) {
        time = hm_row_time(hm->old_res, walk->shown - 1, NGX_HM_ROW_TIME);
        id = hm_row_uuid(hm->old_res, walk->shown - 1, NGX_HM_ROW_ID);

        rc = ngx_hm_list_cursor(hm, &walk->list, time, &id);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }

    } else {
        hm_buf_lit(&hm->out, "null");
    }

    hm_buf_lit(&hm->out, "}");

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}
