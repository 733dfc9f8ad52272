/*
 * api_break_glass: reading somebody's records in an emergency.
 *
 * A doctor or an administrator says whose records and why, after a recent
 * login, and may read them for an hour; never write.  The owner is told at
 * once, whatever his preferences, and every read under the grant is marked
 * in the audit (ngx_hm_step_subject sees that only the grant opened it).
 *
 * Three a day are opened on one's own word.  From the fourth on a grant is
 * `pending` and opens nothing until another administrator has approved it;
 * one that nobody approved within its hour has lapsed.
 *
 *     POST --> active --60 min, DELETE--> ended
 *       `----> pending --approve--> active
 *                 `----60 min, DELETE--> ended
 *
 * Who may what is decided by the functions of the database that write the
 * grants (sql/deploy/rights.sql): hm_api has no right to the table itself.
 * The reason is sealed under the owner's key, whom it is about, and opened
 * for the owner, for who broke the glass, and for administrators.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_people.h"


typedef struct {
    hm_uuid_t    id;
    hm_uuid_t    person;
    hm_str_t     reason;
} glass_t;


/* Columns of a grant. */
enum {
    G_CREATED = 0, G_ID, G_PERSON, G_ACTOR, G_NEEDS, G_APPROVED_BY,
    G_APPROVED_AT, G_EXPIRES, G_ENDED, G_REASON, G_VERSION
};


static ngx_hm_rc_t glass_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_keys(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_person(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_open(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_opened(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_found(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_approve(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_end(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_set(ngx_hm_ctx_t *hm, ngx_uint_t stmt);
static ngx_hm_rc_t glass_set_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t glass_list_read(ngx_hm_ctx_t *hm);

static const char *glass_status(ngx_hm_ctx_t *hm, const PGresult *r,
    int row);
static ngx_hm_rc_t glass_row(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_buf_t *b);
static ngx_hm_rc_t glass_send_row(ngx_hm_ctx_t *hm, ngx_uint_t status);


static const ngx_hm_rows_t  glass_rows = {
    NGX_HM_SQL_GRANTS_DESC, NGX_HM_SQL_GRANTS_ASC, NGX_HM_LANE_SLOW, 1,
    NGX_HM_ROWS_STAFF, glass_row
};


const ngx_hm_step_pt  ngx_hm_glass_list[] = {
    glass_list_read, ngx_hm_rows_send, ngx_hm_rows_got, ngx_hm_rows_told,
    ngx_hm_rows_write, NULL
};

/* the answer that is kept for a repeat lies under the caller's keys */
const ngx_hm_step_pt  ngx_hm_glass_open[] = {
    ngx_hm_json_body, glass_read, ngx_hm_step_keys, ngx_hm_step_idempotent,
    glass_person, glass_keys, glass_open, glass_opened, NULL
};

const ngx_hm_step_pt  ngx_hm_glass_get[] = {
    glass_ask, glass_found, glass_keys, glass_reply, NULL
};

const ngx_hm_step_pt  ngx_hm_glass_approve[] = {
    glass_ask, glass_found, glass_keys, glass_approve, glass_set_done, NULL
};

const ngx_hm_step_pt  ngx_hm_glass_end[] = {
    glass_ask, glass_found, glass_end, glass_set_done, NULL
};


/* Open */


static ngx_hm_rc_t
glass_read(ngx_hm_ctx_t *hm)
{
    glass_t  *glass;

    glass = ngx_hm_pcalloc(hm, sizeof(glass_t));

    if (glass == NULL || hm_uuid7(&glass->id, hm->now) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = glass;

    ngx_hm_form_members(hm, "user_id reason");

    glass->person = ngx_hm_form_uuid(hm, "user_id");
    glass->reason = ngx_hm_form_text(hm, "reason", 1, 10000, 1);

    if (hm->faults->n == 0
        && hm_uuid_eq(&glass->person, &hm->who.sub))
    {
        hm_fault_add(hm->faults, HM_STR(""), "user_id", HM_FAULT_ENUM,
                     "somebody else");
    }

    return ngx_hm_form_done(hm);
}


/* From here on it is about that person. */
static ngx_hm_rc_t
glass_person(ngx_hm_ctx_t *hm)
{
    glass_t  *glass = hm->data;

    if (hm_uuid_eq(&glass->person, &hm_nil_uuid)) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    hm->subject = glass->person;
    hm->foreign = 1;
    hm->glass = 1;                       /* what it is for */

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
glass_keys(ngx_hm_ctx_t *hm)
{
    return hm->foreign ? ngx_hm_step_staff_keys(hm) : ngx_hm_step_keys(hm);
}


static ngx_hm_rc_t
glass_open(ngx_hm_ctx_t *hm)
{
    hm_buf_t      b;
    glass_t      *glass = hm->data;
    hm_str_t      json, sealed;
    ngx_hm_rc_t   rc;

    hm_buf_init(&b, &hm->mem, glass->reason.len + 16);
    hm_json_text(&b, glass->reason);

    json.data = b.start;
    json.len = hm_buf_len(&b);

    if (b.failed
        || ngx_hm_seal_json(hm, "break_glass_grants", "reason", &glass->id,
                            json, &sealed) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    rc = ngx_hm_write_start(hm, NGX_HM_SQL_GRANT_OPEN);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_uuid(&hm->seg, &glass->id);
    ngx_hm_seg_uuid(&hm->seg, &glass->person);
    ngx_hm_seg_str(&hm->seg, sealed);
    ngx_hm_seg_i32(hm, &hm->seg, ngx_hm_seal_version(hm));

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
glass_opened(ngx_hm_ctx_t *hm)
{
    char           id[HM_UUID_TEXT];
    glass_t       *glass = hm->data;
    ngx_hm_rc_t    rc;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        hm->audited = 0;
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    rc = glass_send_row(hm, NGX_HTTP_CREATED);
    if (rc != NGX_HM_DONE) {
        return rc;
    }

    hm_uuid_format(&glass->id, id);
    hm->headers.location = ngx_hm_printf(hm, "/api/v1/break-glass/%.*s",
                                         HM_UUID_TEXT, id);

    /* kept for a repeat under the caller's own keys */

    hm->subject = hm->who.sub;

    return ngx_hm_idempotent_keep(hm, NGX_HM_DONE);
}


/* One grant */


static ngx_hm_rc_t
glass_ask(ngx_hm_ctx_t *hm)
{
    u_char  *all;

    all = ngx_hm_palloc(hm, 1);
    if (all == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    *all = hm->who.role == HM_ROLE_ADMIN;

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_GRANT_GET);
    ngx_hm_seg_uuid(&hm->seg, &hm->path_id);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    ngx_hm_seg_add(&hm->seg, all, 1);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
glass_found(ngx_hm_ctx_t *hm)
{
    hm_uuid_t      id, actor;
    PGresult      *r;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    hm->audit.row.first = hm->path_id;
    r = hm->seg.res;

    if (PQntuples(r) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    id = hm_row_uuid(r, 0, G_ID);
    actor = hm_row_uuid(r, 0, G_ACTOR);
    hm->subject = hm_row_uuid(r, 0, G_PERSON);
    hm->foreign = !hm_uuid_eq(&hm->subject, &hm->who.sub);

    if (!hm_uuid_eq(&id, &hm->path_id)
        || (hm->foreign && !hm_uuid_eq(&actor, &hm->who.sub)
            && hm->who.role != HM_ROLE_ADMIN))
    {
        hm->subject = hm->who.sub;
        hm->foreign = 0;
        return ngx_hm_leak(hm, "break_glass_grants");
    }

    hm->audit.row.items = 1;

    /* keys may have to be loaded with the segment */

    hm->old_res = hm->seg.res;
    hm->seg.res = NULL;

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
glass_reply(ngx_hm_ctx_t *hm)
{
    ngx_hm_rc_t  rc;

    hm->seg.res = hm->old_res;
    hm->old_res = NULL;

    rc = glass_send_row(hm, NGX_HTTP_OK);

    return rc == NGX_HM_DONE ? ngx_hm_if_none_match(hm) : rc;
}


/* The second person: the permission let administrators in only. */
static ngx_hm_rc_t
glass_approve(ngx_hm_ctx_t *hm)
{
    hm_uuid_t  actor;

    actor = hm_row_uuid(hm->old_res, 0, G_ACTOR);

    if (!hm->foreign || hm_uuid_eq(&actor, &hm->who.sub)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_ACCESS_DENIED,
                                  "a second person approves");
    }

    if (ngx_strcmp(glass_status(hm, hm->old_res, 0), "pending") != 0) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "it is not pending");
    }

    return glass_set(hm, NGX_HM_SQL_GRANT_APPROVE);
}


/* By who opened it, or an administrator; it was the owner's to see only. */
static ngx_hm_rc_t
glass_end(ngx_hm_ctx_t *hm)
{
    hm_uuid_t  actor;

    actor = hm_row_uuid(hm->old_res, 0, G_ACTOR);

    if (!hm_uuid_eq(&actor, &hm->who.sub)
        && hm->who.role != HM_ROLE_ADMIN)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_ACCESS_DENIED);
    }

    if (ngx_strcmp(glass_status(hm, hm->old_res, 0), "ended") == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    return glass_set(hm, NGX_HM_SQL_GRANT_END);
}


static ngx_hm_rc_t
glass_set(ngx_hm_ctx_t *hm, ngx_uint_t stmt)
{
    hm_uuid_t     id;
    ngx_hm_rc_t   rc;

    id = hm_row_uuid(hm->old_res, 0, G_ID);

    rc = ngx_hm_if_match(hm, &id, hm_row_u32(hm->old_res, 0, G_VERSION));
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    rc = ngx_hm_write_start(hm, stmt);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_uuid(&hm->seg, &hm->path_id);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
glass_set_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        hm->audited = 0;
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "it has just changed");
    }

    if (hm->method == NGX_HTTP_DELETE) {
        ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);
        return NGX_HM_DONE;
    }

    return glass_send_row(hm, NGX_HTTP_OK);
}


static ngx_hm_rc_t
glass_list_read(ngx_hm_ctx_t *hm)
{
    return ngx_hm_rows_read(hm, &glass_rows);
}


/* As JSON */


static const char *
glass_status(ngx_hm_ctx_t *hm, const PGresult *r, int row)
{
    if (!PQgetisnull(r, row, G_ENDED)
        || hm_row_time(r, row, G_EXPIRES) <= hm->now)
    {
        return "ended";
    }

    return hm_row_bool(r, row, G_NEEDS)
           && PQgetisnull(r, row, G_APPROVED_AT) ? "pending" : "active";
}


static ngx_hm_rc_t
glass_row(ngx_hm_ctx_t *hm, const PGresult *r, int row, hm_buf_t *b)
{
    hm_str_t   reason;
    hm_uuid_t  id, actor, second;

    id = hm_row_uuid(r, row, G_ID);
    actor = hm_row_uuid(r, row, G_ACTOR);
    second = hm_row_uuid(r, row, G_APPROVED_BY);

    if (ngx_hm_open_json(hm, "break_glass_grants", "reason", &id,
                         hm_row_str(r, row, G_REASON), &reason) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, &id);
    hm_buf_lit(b, ",\"user_id\":");
    hm_json_uuid(b, &hm->subject);
    hm_buf_lit(b, ",\"actor_id\":");
    hm_json_uuid(b, &actor);
    hm_buf_printf(b, ",\"status\":\"%s\",\"reason\":",
                  glass_status(hm, r, row));
    hm_buf_str(b, reason);
    hm_buf_lit(b, ",\"approved_by\":");

    if (PQgetisnull(r, row, G_APPROVED_BY)) {
        hm_buf_lit(b, "null");
    } else {
        hm_json_uuid(b, &second);
    }

    hm_buf_lit(b, ",\"created_at\":");
    hm_json_time(b, hm_row_time(r, row, G_CREATED));
    hm_buf_lit(b, ",\"expires_at\":");
    hm_json_time(b, hm_row_time(r, row, G_EXPIRES));
    hm_buf_lit(b, ",\"ended_at\":");
    hm_json_time(b, hm_row_time(r, row, G_ENDED));
    hm_buf_lit(b, "}");

    return NGX_HM_NEXT;
}


/* The one row of hm->seg. */
static ngx_hm_rc_t
glass_send_row(ngx_hm_ctx_t *hm, ngx_uint_t status)
{
    PGresult    *r;
    hm_uuid_t    id, person;
    ngx_hm_rc_t  rc;

    r = hm->seg.res;
    id = hm_row_uuid(r, 0, G_ID);
    person = hm_row_uuid(r, 0, G_PERSON);

    if (ngx_hm_owned(hm, &person, "break_glass_grants") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    if (ngx_hm_etag(hm, &id, hm_row_u32(r, 0, G_VERSION), &hm->headers.etag)
        != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, status, 512);

    rc = glass_row(hm, r, 0, &hm->out);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}
