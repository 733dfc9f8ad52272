/*
 * api_consents: what a person agreed to, and took back.
 *
 * Consents are appended, never changed: the newest of a purpose counts, and
 * the list is the history.  hm_may reads them in the statement that reads
 * the data, so a withdrawal of data_processing closes every doctor's access
 * with the next request; nothing has to be told to anybody.
 *
 * A consent is given for oneself alone: there is no ?user_id= here, and the
 * policy of the table takes no row about anybody else.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_people.h"


#define CONSENT_PURPOSES                                                      \
    "data_processing ai_external research notify_email notify_sms notify_push"


typedef struct {
    hm_uuid_t    id;
    hm_str_t     purpose;
    ngx_int_t    granted;
} consent_t;


enum { C_PURPOSE = NGX_HM_ROW_FIRST, C_GRANTED };


static ngx_hm_rc_t consent_list_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t consent_row(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_buf_t *b);
static ngx_hm_rc_t consent_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t consent_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t consent_done(ngx_hm_ctx_t *hm);
static void consent_json(hm_buf_t *b, const hm_uuid_t *id, hm_str_t purpose,
    ngx_uint_t granted, hm_usec_t created);


static const ngx_hm_rows_t  consent_rows = {
    NGX_HM_SQL_CONSENTS_DESC, NGX_HM_SQL_CONSENTS_ASC, NGX_HM_LANE_READ, 0,
    NGX_HM_ROWS_PLAIN, consent_row
};


const ngx_hm_step_pt  ngx_hm_consent_list[] = {
    consent_list_read, ngx_hm_rows_send, ngx_hm_rows_got, ngx_hm_rows_told,
    ngx_hm_rows_write, NULL
};

const ngx_hm_step_pt  ngx_hm_consent_add[] = {
    ngx_hm_json_body, consent_read, ngx_hm_step_keys,
    ngx_hm_step_idempotent, consent_send, consent_done, NULL
};


static ngx_hm_rc_t
consent_list_read(ngx_hm_ctx_t *hm)
{
    return ngx_hm_rows_read(hm, &consent_rows);
}


static ngx_hm_rc_t
consent_row(ngx_hm_ctx_t *hm, const PGresult *r, int row, hm_buf_t *b)
{
    hm_uuid_t  id;

    id = hm_row_uuid(r, row, NGX_HM_ROW_PERSON);

    if (!hm_uuid_eq(&id, &hm->who.sub)) {
        return ngx_hm_leak(hm, "consents");
    }

    id = hm_row_uuid(r, row, NGX_HM_ROW_ID);
    consent_json(b, &id, hm_row_str(r, row, C_PURPOSE),
                 hm_row_bool(r, row, C_GRANTED),
                 hm_row_time(r, row, NGX_HM_ROW_TIME));

    return NGX_HM_NEXT;
}


static void
consent_json(hm_buf_t *b, const hm_uuid_t *id, hm_str_t purpose,
    ngx_uint_t granted, hm_usec_t created)
{
    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, id);
    hm_buf_lit(b, ",\"purpose\":");
    hm_json_text(b, purpose);
    hm_buf_printf(b, ",\"granted\":%s,\"created_at\":",
                  granted ? "true" : "false");
    hm_json_time(b, created);
    hm_buf_lit(b, "}");
}


static ngx_hm_rc_t
consent_read(ngx_hm_ctx_t *hm)
{
    consent_t  *consent;

    consent = ngx_hm_pcalloc(hm, sizeof(consent_t));

    if (consent == NULL || hm_uuid7(&consent->id, hm->now) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = consent;

    ngx_hm_form_members(hm, "purpose granted");

    consent->purpose = ngx_hm_form_word(hm, "purpose", CONSENT_PURPOSES, 1);
    consent->granted = ngx_hm_form_bool(hm, "granted", 1);

    return ngx_hm_form_done(hm);
}


static ngx_hm_rc_t
consent_send(ngx_hm_ctx_t *hm)
{
    u_char       *granted;
    consent_t    *consent = hm->data;
    ngx_hm_rc_t   rc;

    rc = ngx_hm_write_start(hm, NGX_HM_SQL_CONSENT_ADD);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    granted = ngx_hm_palloc(hm, 1);
    if (granted == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    *granted = consent->granted == 1;

    ngx_hm_seg_uuid(&hm->seg, &consent->id);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_str(&hm->seg, consent->purpose);
    ngx_hm_seg_add(&hm->seg, granted, 1);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
consent_done(ngx_hm_ctx_t *hm)
{
    consent_t     *consent = hm->data;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) != 1) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (ngx_hm_etag(hm, &consent->id, 1, &hm->headers.etag) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->headers.location = HM_STR("/api/v1/compliance/consents");

    ngx_hm_reply_start(hm, NGX_HTTP_CREATED, 256);
    consent_json(&hm->out, &consent->id, consent->purpose,
                 consent->granted == 1, hm_row_time(hm->seg.res, 0, 0));

    return hm->out.failed
           ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
           : ngx_hm_idempotent_keep(hm, NGX_HM_DONE);
}
