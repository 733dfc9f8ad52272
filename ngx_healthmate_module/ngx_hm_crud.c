/*
 * ngx_hm_crud: the engine behind every resource.
 *
 * Create, read, list, replace, merge and delete for whatever an
 * hm_resource_t describes.  Nothing here knows a resource by name.
 *
 * The second wall inside the module: each row brings its user_id, and it is
 * compared with the subject of the request before anything of it is opened;
 * the key that opens it is the subject's.  A row that fails is a 500 and is
 * counted, and not a byte of it leaves.
 *
 * Create and delete are one statement.  Replace and merge read first, because
 * what is sealed can only be merged here; the write then holds the version
 * that was read, and starts anew if somebody was faster.
 */

#include "ngx_hm.h"
#include "ngx_hm_crud.h"


#define NGX_HM_RACES          64


static ngx_hm_rc_t ngx_hm_create_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_write_fill(ngx_hm_ctx_t *hm, ngx_hm_lane_t lane,
    hm_sql_t kind);
static ngx_hm_rc_t ngx_hm_create_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_create_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_get_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_get_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_list_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_list_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_old_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_change_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_change_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_change_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_delete_old(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_delete_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_delete_done(ngx_hm_ctx_t *hm);


const ngx_hm_step_pt  ngx_hm_crud_create[] = {
    ngx_hm_step_subject, ngx_hm_json_body, ngx_hm_create_read,
    ngx_hm_step_keys, ngx_hm_step_idempotent, ngx_hm_step_keys,
    ngx_hm_create_send, ngx_hm_create_done, NULL
};

const ngx_hm_step_pt  ngx_hm_crud_get[] = {
    ngx_hm_step_subject, ngx_hm_step_keys, ngx_hm_get_send, ngx_hm_get_done,
    NULL
};

const ngx_hm_step_pt  ngx_hm_crud_list[] = {
    ngx_hm_step_subject, ngx_hm_list_read, ngx_hm_step_keys,
    ngx_hm_list_send, ngx_hm_list_done, NULL
};

const ngx_hm_step_pt  ngx_hm_crud_put[] = {
    ngx_hm_json_body, ngx_hm_step_subject, ngx_hm_step_keys,
    ngx_hm_get_send, ngx_hm_old_done, ngx_hm_change_read,
    ngx_hm_step_keys, ngx_hm_change_send, ngx_hm_change_done, NULL
};

const ngx_hm_step_pt  ngx_hm_crud_patch[] = {
    ngx_hm_json_body, ngx_hm_step_subject, ngx_hm_step_keys,
    ngx_hm_get_send, ngx_hm_old_done, ngx_hm_change_read,
    ngx_hm_step_keys, ngx_hm_change_send, ngx_hm_change_done, NULL
};

const ngx_hm_step_pt  ngx_hm_crud_delete[] = {
    ngx_hm_step_subject, ngx_hm_step_keys, ngx_hm_delete_old,
    ngx_hm_delete_send, ngx_hm_delete_done, NULL
};

static const ngx_hm_step_pt  ngx_hm_change_again[] = {
    ngx_hm_step_keys, ngx_hm_get_send, ngx_hm_old_done, ngx_hm_change_read,
    ngx_hm_step_keys, ngx_hm_change_send, ngx_hm_change_done, NULL
};

static const ngx_hm_step_pt  ngx_hm_create_again[] = {
    ngx_hm_step_keys, ngx_hm_create_send, ngx_hm_create_done, NULL
};

static const ngx_hm_step_pt  ngx_hm_create_idem[] = {
    ngx_hm_step_keys, ngx_hm_step_idempotent, ngx_hm_step_keys,
    ngx_hm_create_send, ngx_hm_create_done, NULL
};

static const ngx_hm_step_pt  ngx_hm_get_again[] = {
    ngx_hm_step_keys, ngx_hm_get_send, ngx_hm_get_done, NULL
};

static const ngx_hm_step_pt  ngx_hm_list_again[] = {
    ngx_hm_step_keys, ngx_hm_list_send, ngx_hm_list_done, NULL
};

static const ngx_hm_step_pt  ngx_hm_delete_conditional[] = {
    ngx_hm_step_keys, ngx_hm_get_send, ngx_hm_old_done, ngx_hm_delete_send,
    ngx_hm_delete_done, NULL
};


/* Statements of a resource at the subject's leaf. */
ngx_uint_t
ngx_hm_crud_stmt(ngx_hm_ctx_t *hm, hm_sql_t kind)
{
    return ngx_hm_stmt_of(hm->route->resource, kind, hm->leaf);
}


ngx_hm_rc_t
ngx_hm_owned(ngx_hm_ctx_t *hm, const hm_uuid_t *owner, const char *where)
{
    return hm_uuid_eq(owner, &hm->subject) ? NGX_HM_NEXT
                                           : ngx_hm_leak(hm, where);
}


ngx_hm_rc_t
ngx_hm_leak(ngx_hm_ctx_t *hm, const char *where)
{
    ngx_hm_count(NGX_HM_M_LEAKS, 1);

    ngx_log_error(NGX_LOG_CRIT, ngx_hm_worker.log, 0,
                  "healthmate: a row of another person came back to \"%s\"; "
                  "it was refused", where);

    return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


/*
 * One row: is it the subject's, does it open?  NEXT: yes.  With an unknown
 * key version the keys are loaded anew: WAIT is not used here, the caller
 * goes to its `again` steps on NGX_HM_WAIT.
 */
ngx_hm_rc_t
ngx_hm_open_row(ngx_hm_ctx_t *hm, const hm_resource_t *res, hm_record_t *rec,
    const PGresult *r, int row, int col, bool shown)
{
    hm_user_keys_t       *keys;
    const unsigned char  *dek;

    hm_row_record(res, rec, r, row, col, shown);

    if (ngx_hm_owned(hm, &rec->user_id, res->name) != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, rec->dek_version) : NULL;

    if (dek == NULL) {
        if (hm->tries++ >= NGX_HM_RACES) {
            return ngx_hm_fail_detail(hm, HM_PROBLEM_SERVER_ERROR,
                                      "the record's key is not available");
        }

        ngx_hm_keys_drop(&hm->subject);
        return NGX_HM_WAIT;
    }

    if (hm_resource_open(res, &hm->mem, rec, dek) != HM_OK) {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        ngx_log_error(NGX_LOG_CRIT, ngx_hm_worker.log, 0,
                      "healthmate: a sealed value of \"%s\" does not belong "
                      "where it stands", res->name);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    return NGX_HM_NEXT;
}


/* Answers with one record. */
ngx_hm_rc_t
ngx_hm_crud_reply(ngx_hm_ctx_t *hm, ngx_uint_t status,
    const hm_record_t *rec)
{
    char                  id[HM_UUID_TEXT];
    const hm_resource_t  *res;

    res = hm->route->resource;

    if (ngx_hm_etag(hm, &rec->id, rec->version, &hm->headers.etag)
        != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, status, 512);
    hm_resource_json(res, &hm->out, rec);

    if (hm->method == NGX_HTTP_POST) {
        hm_uuid_format(&rec->id, id);
        hm->headers.location = ngx_hm_printf(hm, "/api/v1%s/%.*s", res->path,
                                             HM_UUID_TEXT, id);
    }

    hm->audit.row.first = rec->id;
    hm->audit.row.items = 1;

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Create */


static ngx_hm_rc_t
ngx_hm_create_read(ngx_hm_ctx_t *hm)
{
    hm->record = ngx_hm_pcalloc(hm, sizeof(hm_record_t));

    if (hm->record == NULL || hm_uuid7(&hm->record->id, hm->now) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (hm_resource_read(hm->route->resource, &hm->mem, hm->record, hm->json,
                         NULL, hm->now, hm->faults, HM_STR(""))
        != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    hm->record->user_id = hm->subject;
    hm->record->version = 1;
    hm->record->created_at = hm->now;
    hm->record->updated_at = hm->now;

    return NGX_HM_NEXT;
}


/* The fields' parameters, $5 and on. */
void
ngx_hm_crud_params(ngx_hm_ctx_t *hm, const hm_resource_t *res,
    const hm_record_t *rec)
{
    unsigned           i;
    const hm_value_t  *v;

    for (i = 0; i < res->nfields; i++) {
        v = &rec->v[i];

        if (!v->set) {
            ngx_hm_seg_null(&hm->seg);

        } else if (res->fields[i].flags & HM_F_SEALED) {
            ngx_hm_seg_add(&hm->seg, v->sealed.data, v->sealed.len);

        } else if (res->fields[i].type == HM_T_TIME) {
            ngx_hm_seg_time(hm, &hm->seg, v->time);

        } else if (res->fields[i].type == HM_T_REAL) {
            ngx_hm_seg_real(hm, &hm->seg, v->real);

        } else {
            ngx_hm_seg_add(&hm->seg, v->text.data, v->text.len);
        }
    }
}


/* Seals under the subject's active key; a failure is a 5xx, never clear. */
ngx_hm_rc_t
ngx_hm_crud_seal(ngx_hm_ctx_t *hm, const hm_resource_t *res,
    hm_record_t *rec)
{
    hm_user_keys_t  *keys;

    keys = ngx_hm_keys(hm);

    if (keys == NULL
        || hm_resource_seal(res, &hm->mem, rec, keys) != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return ngx_hm_fail_detail(hm, HM_PROBLEM_SERVER_ERROR,
                                  "the record could not be sealed");
    }

    return NGX_HM_NEXT;
}


/* hm->record, sealed, into the parameters an insert and an update share. */
static ngx_hm_rc_t
ngx_hm_write_fill(ngx_hm_ctx_t *hm, ngx_hm_lane_t lane, hm_sql_t kind)
{
    ngx_hm_rc_t           rc;
    hm_record_t          *rec;
    const hm_resource_t  *res;

    rec = hm->record;
    res = hm->route->resource;

    rc = ngx_hm_crud_seal(hm, res, rec);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_start(hm, lane, ngx_hm_crud_stmt(hm, kind));
    ngx_hm_seg_uuid(&hm->seg, &rec->id);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_i32(hm, &hm->seg, rec->dek_version);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_crud_params(hm, res, rec);

    if (ngx_hm_seg_tail(hm, &hm->seg) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_create_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_rc_t  rc;

    /* with an Idempotency-Key the transaction may have to fail: alone */

    rc = ngx_hm_write_fill(hm, hm->idem != NULL ? NGX_HM_LANE_SOLO
                                                : NGX_HM_LANE_WRITE,
                           HM_SQL_INSERT);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    if (hm->idem != NULL) {
        rc = ngx_hm_idempotent_join(hm);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }
    }

    hm->seg.many = hm->idem == NULL && !hm->foreign && !hm->no_many;

    return ngx_hm_seg_wait(hm);
}


/* Columns: key_ok, done (the owner), job, then the stored record or NULLs. */
static ngx_hm_rc_t
ngx_hm_create_done(ngx_hm_ctx_t *hm)
{
    hm_uuid_t             done;
    PGresult             *r;
    ngx_hm_rc_t           rc;
    hm_record_t          *rec;
    hm_problem_t          p;
    const hm_resource_t  *res;

    if (hm->idem != NULL && hm->seg.rc == NGX_HM_PG_ERROR
        && ngx_strcmp(hm->seg.sqlstate, "22012") == 0
        && hm->tries++ < NGX_HM_RACES)
    {
        /* another request with the same key has just been answered */
        hm->audited = 0;
        rc = ngx_hm_create_read(hm);

        return rc == NGX_HM_NEXT ? ngx_hm_goto(hm, ngx_hm_create_idem) : rc;
    }

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    res = hm->route->resource;

    if (hm->seg.was_many
        && hm_uuid_eq(&hm->seg.many_owner, &hm_nil_uuid))
    {
        /* not with the others: it will be told why */
        hm->no_many = 1;
        hm->audited = 0;
        rc = ngx_hm_create_read(hm);

        return rc == NGX_HM_NEXT ? ngx_hm_goto(hm, ngx_hm_create_again) : rc;
    }

    if (hm->seg.was_many || !PQgetisnull(r, 0, 1)) {

        done = hm->seg.was_many ? hm->seg.many_owner : hm_row_uuid(r, 0, 1);

        if (ngx_hm_owned(hm, &done, res->name) != NGX_HM_NEXT) {
            return NGX_HM_FAIL;
        }

        ngx_hm_count(NGX_HM_M_POINTS, 1);

        /* of a whole batch the relay rings for the jobs */
        ngx_hm_crud_ring(hm, !hm->seg.was_many && hm_row_bool(r, 0, 2));

        if (res->shown != NULL
            && res->shown(res, &hm->mem, hm->record) != HM_OK)
        {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        return ngx_hm_crud_reply(hm, NGX_HTTP_CREATED, hm->record);
    }

    if (!PQgetisnull(r, 0, 3)) {

        /*
         * It is there already.  With a key perhaps because the same request
         * has just been answered: then its answer is repeated.
         */

        if (hm->idem != NULL && !hm->idem_twice) {
            hm->idem_twice = 1;
            hm->audited = 0;
            rc = ngx_hm_create_read(hm);

            return rc == NGX_HM_NEXT ? ngx_hm_goto(hm, ngx_hm_create_idem)
                                     : rc;
        }

        rec = ngx_hm_pcalloc(hm, sizeof(hm_record_t));
        if (rec == NULL) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        rc = ngx_hm_open_row(hm, res, rec, r, 0, 3, false);

        if (rc == NGX_HM_NEXT) {
            return ngx_hm_idempotent_keep(hm, ngx_hm_crud_reply(hm,
                                                       NGX_HTTP_OK, rec));
        }

        if (rc != NGX_HM_WAIT) {
            return rc;
        }
    }

    /* the key has just been rotated, or a race with an equal record */

    if (hm->tries++ >= NGX_HM_RACES) {
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
    }

    if (!hm_row_bool(r, 0, 0)) {
        ngx_hm_keys_drop(&hm->subject);
    }

    /* sealing starts from the body: it may have changed the record */

    hm->audited = 0;

    rc = ngx_hm_create_read(hm);

    return rc == NGX_HM_NEXT ? ngx_hm_goto(hm, ngx_hm_create_again) : rc;
}


/* The id of the job a statement was given stands in its tail. */
void
ngx_hm_crud_ring(ngx_hm_ctx_t *hm, ngx_uint_t made)
{
    hm_uuid_t             id;
    hm_str_t              kind;
    const hm_job_kind_t  *jk;
    const hm_resource_t  *res;

    res = hm->route->resource;

    if (!made || res->job_kind == NULL || hm->seg.seq_param < 0) {
        return;
    }

    kind.data = (u_char *) res->job_kind;
    kind.len = ngx_strlen(res->job_kind);
    jk = hm_job_kind(kind);

    ngx_memcpy(id.b, hm->seg.values[hm->seg.seq_param + HM_TAIL_JOB], 16);

    if (jk != NULL) {
        ngx_hm_redis_ring(jk->stream, &id);
    }
}


/* Read one */


static ngx_hm_rc_t
ngx_hm_get_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, ngx_hm_crud_stmt(hm, HM_SQL_GET));
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_uuid(&hm->seg, &hm->path_id);

    /* what is changed afterwards keeps its result for itself */
    hm->seg.many = !hm->foreign && hm->method == NGX_HTTP_GET;

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_get_done(ngx_hm_ctx_t *hm)
{
    ngx_hm_rc_t   rc;
    hm_record_t  *rec;

    rc = ngx_hm_crud_row(hm, &rec);

    if (rc == NGX_HM_WAIT) {
        return ngx_hm_goto(hm, ngx_hm_get_again);
    }

    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    rc = ngx_hm_crud_reply(hm, NGX_HTTP_OK, rec);

    return rc == NGX_HM_DONE ? ngx_hm_if_none_match(hm) : rc;
}


/* The one row of a get, opened; 404 when there is none. */
ngx_hm_rc_t
ngx_hm_crud_row(ngx_hm_ctx_t *hm, hm_record_t **out)
{
    ngx_hm_rc_t   rc;
    hm_record_t  *rec;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    hm->audit.row.first = hm->path_id;

    if (hm->seg.row < 0 || PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    rec = ngx_hm_palloc(hm, sizeof(hm_record_t));
    if (rec == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    rc = ngx_hm_open_row(hm, hm->route->resource, rec, hm->seg.res,
                         hm->seg.row, 0, false);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    if (!hm_uuid_eq(&rec->id, &hm->path_id)) {
        return ngx_hm_leak(hm, hm->route->resource->name);
    }

    *out = rec;

    return NGX_HM_NEXT;
}


/* List */


ngx_hm_rc_t
ngx_hm_list_read(ngx_hm_ctx_t *hm)
{
    ngx_hm_list_t  *list;

    list = ngx_hm_pcalloc(hm, sizeof(ngx_hm_list_t));
    if (list == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = list;

    return ngx_hm_list_query(hm, list);
}


static ngx_hm_rc_t
ngx_hm_list_send(ngx_hm_ctx_t *hm)
{
    hm_sql_t        kind;
    ngx_hm_rc_t     rc;
    ngx_hm_list_t  *list = hm->data;

    if (list->types.data != NULL) {
        kind = list->asc ? HM_SQL_LIST_ASC_KINDS : HM_SQL_LIST_DESC_KINDS;

    } else if (list->filtered) {
        kind = list->asc ? HM_SQL_LIST_ASC_FILTER : HM_SQL_LIST_DESC_FILTER;

    } else {
        kind = list->asc ? HM_SQL_LIST_ASC : HM_SQL_LIST_DESC;
    }

    /* a filter may have to look at much: not among the quick ones */

    ngx_hm_seg_start(hm, list->filtered ? NGX_HM_LANE_SLOW
                                        : NGX_HM_LANE_READ,
                     ngx_hm_crud_stmt(hm, kind));
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_time(hm, &hm->seg, list->after);
    ngx_hm_seg_uuid(&hm->seg, &list->after_id);
    ngx_hm_seg_time(hm, &hm->seg, list->asc ? list->to : list->from);
    ngx_hm_seg_i64(hm, &hm->seg, list->limit + 1);

    if (list->filtered) {
        rc = ngx_hm_list_filter(hm, list);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }
    }

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_list_done(ngx_hm_ctx_t *hm)
{
    int                   i, n, shown;
    PGresult             *r;
    ngx_hm_rc_t           rc;
    hm_record_t           rec;
    hm_problem_t          p;
    ngx_hm_list_t        *list = hm->data;
    const hm_resource_t  *res;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    res = hm->route->resource;
    n = PQntuples(r);
    shown = ngx_min(n, (int) list->limit);

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 64 + (size_t) shown * 448);
    hm_buf_lit(&hm->out, "{\"items\":[");

    for (i = 0; i < shown; i++) {
        rc = ngx_hm_open_row(hm, res, &rec, r, i, 0, true);

        if (rc == NGX_HM_WAIT) {
            return ngx_hm_goto(hm, ngx_hm_list_again);
        }

        if (rc != NGX_HM_NEXT) {
            return rc;
        }

        if (i > 0) {
            hm_buf_lit(&hm->out, ",");
        } else {
            hm->audit.row.first = rec.id;
        }

        hm_resource_json(res, &hm->out, &rec);
    }

    hm->audit.row.items = (uint32_t) shown;
    hm_buf_lit(&hm->out, "],\"next\":");

    if (n > shown) {
        hm->audit.row.last = rec.id;
        rc = ngx_hm_list_cursor(hm, list, rec.v[res->time_field].time,
                                &rec.id);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }

    } else {
        if (shown > 0) {
            hm->audit.row.last = rec.id;
        }

        hm_buf_lit(&hm->out, "null");
    }

    hm_buf_lit(&hm->out, "}");

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Replace and merge */


/* What is stored now, and does If-Match agree? */
static ngx_hm_rc_t
ngx_hm_old_done(ngx_hm_ctx_t *hm)
{
    hm_str_t      header, etag;
    ngx_int_t     match;
    ngx_hm_rc_t   rc;
    hm_record_t  *old;

    rc = ngx_hm_crud_row(hm, &old);

    if (rc == NGX_HM_WAIT) {
        return ngx_hm_goto(hm, hm->method == NGX_HTTP_DELETE
                               ? ngx_hm_delete_conditional
                               : ngx_hm_change_again);
    }

    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    hm->audit.row.items = 1;

    header = ngx_hm_header(hm, "if-match");

    if (header.data != NULL) {
        if (ngx_hm_etag(hm, &old->id, old->version, &etag) != NGX_OK) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        match = ngx_hm_etag_match(header, etag, 0);

        if (match == NGX_ERROR) {
            return ngx_hm_fail_detail(hm, HM_PROBLEM_INVALID_HEADER,
                                      "If-Match cannot be read");
        }

        if (match != NGX_OK) {
            return ngx_hm_fail(hm, HM_PROBLEM_CHANGED);
        }
    }

    /* the next segment would release what its texts point into */

    if (hm->old_res != NULL) {
        PQclear(hm->old_res);
    }

    hm->old_res = hm->seg.res;
    hm->seg.res = NULL;
    hm->old = old;

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_change_read(ngx_hm_ctx_t *hm)
{
    json_t               *body, *base, *patch;
    hm_rc_t               rc;
    unsigned              i;
    hm_record_t          *rec;
    const hm_field_t     *fd;
    const hm_resource_t  *res;

    res = hm->route->resource;

    rec = ngx_hm_pcalloc(hm, sizeof(hm_record_t));
    if (rec == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->record = rec;
    rec->id = hm->old->id;
    rec->user_id = hm->old->user_id;
    rec->created_at = hm->old->created_at;
    rec->updated_at = hm->now;
    rec->version = hm->old->version + 1;

    if (hm->method == NGX_HTTP_PUT) {
        body = json_incref(hm->json);

    } else {

        if (!json_is_object(hm->json)) {
            hm_fault_add(hm->faults, HM_STR(""), NULL, HM_FAULT_TYPE,
                         "an object is needed");
            return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
        }

        patch = ngx_hm_patch_check(hm, res);
        base = hm_resource_body(res, &hm->mem, hm->old);
        body = base != NULL && patch != NULL ? hm_merge_patch(base, patch)
                                             : NULL;
        json_decref(base);
        json_decref(patch);
    }

    if (body == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    rc = hm_resource_read(res, &hm->mem, rec, body, hm->old, hm->now,
                          hm->faults, HM_STR(""));

    json_decref(body);

    if (rc != HM_OK || hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (hm->method == NGX_HTTP_PATCH) {
        for (i = 0; i < res->nfields; i++) {
            fd = &res->fields[i];

            if ((fd->flags & HM_F_READ_ONLY) && fd->with != NULL
                && json_object_get(hm->json, fd->with) == NULL)
            {
                rec->v[i] = hm->old->v[i];
            }
        }
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_change_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_rc_t  rc;

    rc = ngx_hm_write_fill(hm, NGX_HM_LANE_SOLO, HM_SQL_UPDATE);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_i32(hm, &hm->seg, hm->old->version);

    return ngx_hm_seg_wait(hm);
}


/* Columns: key_ok, done (the owner), job, clash, version. */
static ngx_hm_rc_t
ngx_hm_change_done(ngx_hm_ctx_t *hm)
{
    PGresult             *r;
    hm_uuid_t             done;
    hm_problem_t          p;
    const hm_resource_t  *res;

    if (hm->seg.rc == NGX_HM_PG_ERROR
        && ngx_strcmp(hm->seg.sqlstate, "23505") == 0)
    {
        hm->audited = 0;
        return ngx_hm_fail(hm, HM_PROBLEM_CONFLICT);
    }

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    res = hm->route->resource;

    if (!PQgetisnull(r, 0, 1)) {

        done = hm_row_uuid(r, 0, 1);

        if (ngx_hm_owned(hm, &done, res->name) != NGX_HM_NEXT) {
            return NGX_HM_FAIL;
        }

        ngx_hm_crud_ring(hm, hm_row_bool(r, 0, 2));
        hm->record->version = hm_row_u32(r, 0, 4);

        if (res->shown != NULL
            && res->shown(res, &hm->mem, hm->record) != HM_OK)
        {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        return ngx_hm_crud_reply(hm, NGX_HTTP_OK, hm->record);
    }

    if (hm_row_bool(r, 0, 3)) {
        return ngx_hm_fail(hm, HM_PROBLEM_CONFLICT);
    }

    if (!hm_row_bool(r, 0, 0)) {
        ngx_hm_keys_drop(&hm->subject);
    }

    /* somebody was faster: once more, from what is stored now */

    if (hm->tries++ >= NGX_HM_RACES) {
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
    }

    hm->audited = 0;

    return ngx_hm_goto(hm, ngx_hm_change_again);
}


/* Delete */


static ngx_hm_rc_t
ngx_hm_delete_old(ngx_hm_ctx_t *hm)
{
    if (ngx_hm_header(hm, "if-match").data != NULL) {
        return ngx_hm_goto(hm, ngx_hm_delete_conditional);
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_delete_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO,
                     ngx_hm_crud_stmt(hm, HM_SQL_DELETE));
    ngx_hm_seg_uuid(&hm->seg, &hm->path_id);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    if (hm->old != NULL) {
        ngx_hm_seg_i32(hm, &hm->seg, hm->old->version);
    } else {
        ngx_hm_seg_null(&hm->seg);
    }

    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    if (ngx_hm_seg_tail(hm, &hm->seg) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return ngx_hm_seg_wait(hm);
}


/* Columns: done (the owner), job. */
static ngx_hm_rc_t
ngx_hm_delete_done(ngx_hm_ctx_t *hm)
{
    hm_uuid_t     done;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQgetisnull(hm->seg.res, 0, 0)) {
        return ngx_hm_fail(hm, hm->old != NULL ? HM_PROBLEM_CHANGED
                                               : HM_PROBLEM_NOT_FOUND);
    }

    done = hm_row_uuid(hm->seg.res, 0, 0);

    if (ngx_hm_owned(hm, &done, hm->route->resource->name) != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    ngx_hm_crud_ring(hm, hm_row_bool(hm->seg.res, 0, 1));
    ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);

    return NGX_HM_DONE;
}
