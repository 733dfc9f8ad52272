/*
 * api_care: who treats whom: care relationships, and a doctor's patients.
 *
 * A relationship opens a person's records to a doctor, so nobody makes one
 * for himself: what the patient makes is active at once, what anybody else
 * makes waits until the patient accepts it.  With `healthmate_care_assign
 * staff` an administrator's is active at once, and the patient and other
 * administrators are told.  The rules stand a second time in the policies of
 * the table (sql/deploy/rights.sql), which also know who of the two has a
 * verified address; here they are only turned into answers.
 *
 *     pending --accept--> active --end, until--> ended
 *        |---decline----> declined
 *        `---DELETE-----> ended
 *
 * Whether a person exists is not told: a proposal to nobody, to somebody
 * without a verified address and to one who is no doctor are the same 404.
 *
 * A change reads the row first: for its state, for If-Match, and because the
 * audit names the patient.  The write then holds the version that was read;
 * somebody who was faster makes it a 409.
 *
 * GET /patients is the doctor's view of it: the names of those whose records
 * are open to him right now.  Each of them gets an audit row.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_people.h"


#define CARE_YEAR       (365 * 86400 * HM_USEC)
#define CARE_LONGEST    (10 * CARE_YEAR)


typedef struct {
    hm_uuid_t    id;
    hm_uuid_t    patient;
    hm_uuid_t    doctor;
    hm_usec_t    until;
    hm_str_t     status;
    uint32_t     version;
} care_t;


/* Columns of a relationship. */
enum {
    C_CREATED = 0, C_ID, C_PATIENT, C_DOCTOR, C_STATUS, C_BY, C_FROM, C_UNTIL,
    C_ACCEPTED, C_ENDED, C_UPDATED, C_VERSION
};

/* Columns of a patient. */
enum { P_NAME = NGX_HM_ROW_FIRST, P_BORN, P_SINCE, P_UNTIL };


static ngx_hm_rc_t care_propose_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_propose_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_propose_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_found(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_get_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_accept(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_decline(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_end(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_answer(ngx_hm_ctx_t *hm, const char *status);
static ngx_hm_rc_t care_set(ngx_hm_ctx_t *hm, const char *status);
static ngx_hm_rc_t care_set_done(ngx_hm_ctx_t *hm);

static ngx_uint_t care_staff(ngx_hm_ctx_t *hm);
static void care_about(ngx_hm_ctx_t *hm, const hm_uuid_t *patient);
static hm_str_t care_status(ngx_hm_ctx_t *hm, const PGresult *r, int row);
static ngx_hm_rc_t care_row(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_buf_t *b);
static ngx_hm_rc_t care_list_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t care_patient(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_buf_t *b);
static ngx_hm_rc_t care_patients_read(ngx_hm_ctx_t *hm);


static const ngx_hm_rows_t  care_rows = {
    NGX_HM_SQL_CARE_DESC, NGX_HM_SQL_CARE_ASC, NGX_HM_LANE_SLOW, 1,
    NGX_HM_ROWS_PLAIN, care_row
};

static const ngx_hm_rows_t  care_patients = {
    NGX_HM_SQL_PATIENTS_DESC, NGX_HM_SQL_PATIENTS_ASC, NGX_HM_LANE_SLOW, 0,
    NGX_HM_ROWS_KEYS, care_patient
};


const ngx_hm_step_pt  ngx_hm_care_list[] = {
    care_list_read, ngx_hm_rows_send, ngx_hm_rows_got, ngx_hm_rows_told,
    ngx_hm_rows_write, NULL
};

const ngx_hm_step_pt  ngx_hm_care_patients[] = {
    care_patients_read, ngx_hm_rows_send, ngx_hm_rows_got, ngx_hm_rows_told,
    ngx_hm_rows_write, NULL
};

const ngx_hm_step_pt  ngx_hm_care_propose[] = {
    ngx_hm_json_body, care_propose_read, ngx_hm_step_keys,
    ngx_hm_step_idempotent, care_propose_send, care_propose_done, NULL
};

const ngx_hm_step_pt  ngx_hm_care_get[] = {
    care_ask, care_found, care_get_reply, NULL
};

const ngx_hm_step_pt  ngx_hm_care_accept[] = {
    care_ask, care_found, care_accept, care_set_done, NULL
};

const ngx_hm_step_pt  ngx_hm_care_decline[] = {
    care_ask, care_found, care_decline, care_set_done, NULL
};

const ngx_hm_step_pt  ngx_hm_care_end[] = {
    care_ask, care_found, care_end, care_set_done, NULL
};


/* May the caller act on relationships of other people? */
static ngx_uint_t
care_staff(ngx_hm_ctx_t *hm)
{
    return hm_perm_reach(hm->who.role, HM_PERM_CARE) == HM_REACH_ALL;
}


/* The audit names the patient, whoever asks. */
static void
care_about(ngx_hm_ctx_t *hm, const hm_uuid_t *patient)
{
    hm->subject = *patient;
    hm->foreign = !hm_uuid_eq(patient, &hm->who.sub);
}


/* Propose */


static ngx_hm_rc_t
care_propose_read(ngx_hm_ctx_t *hm)
{
    care_t  *care;

    care = ngx_hm_pcalloc(hm, sizeof(care_t));

    if (care == NULL || hm_uuid7(&care->id, hm->now) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = care;

    ngx_hm_form_members(hm, "patient_id doctor_id until");

    care->patient = ngx_hm_form_uuid(hm, "patient_id");
    care->doctor = ngx_hm_form_uuid(hm, "doctor_id");
    care->until = ngx_hm_form_time(hm, "until");
    care->version = 1;

    if (care->until == HM_USEC_NONE) {
        care->until = hm->now + CARE_YEAR;

    } else if (care->until <= hm->now
               || care->until > hm->now + CARE_LONGEST)
    {
        hm_fault_add(hm->faults, HM_STR(""), "until", HM_FAULT_RANGE,
                     "in the future, at most ten years");
    }

    if (hm->faults->n != 0) {
        return ngx_hm_form_done(hm);
    }

    if (hm_uuid_eq(&care->patient, &hm->who.sub)) {
        care->status = HM_STR("active");

    } else if (care_staff(hm)) {
        care->status = hm->conf->care_assign == NGX_HM_CARE_STAFF
                       ? HM_STR("active") : HM_STR("pending");

    } else if (hm->who.role == HM_ROLE_DOCTOR
               && hm_uuid_eq(&care->doctor, &hm->who.sub))
    {
        care->status = HM_STR("pending");

    } else {
        return ngx_hm_fail(hm, HM_PROBLEM_ACCESS_DENIED);
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
care_propose_send(ngx_hm_ctx_t *hm)
{
    care_t       *care = hm->data;
    ngx_hm_rc_t   rc;

    care_about(hm, &care->patient);
    rc = ngx_hm_write_start(hm, NGX_HM_SQL_CARE_ADD);
    care_about(hm, &hm->who.sub);        /* a kept answer is the caller's */

    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_uuid(&hm->seg, &care->id);
    ngx_hm_seg_uuid(&hm->seg, &care->patient);
    ngx_hm_seg_uuid(&hm->seg, &care->doctor);
    ngx_hm_seg_time(hm, &hm->seg, care->until);
    ngx_hm_seg_str(&hm->seg, care->status);

    return ngx_hm_seg_wait(hm);
}


/* Columns: could it be, the id of the new one, and who was told. */
static ngx_hm_rc_t
care_propose_done(ngx_hm_ctx_t *hm)
{
    char           id[HM_UUID_TEXT];
    care_t        *care = hm->data;
    ngx_uint_t     active;
    hm_problem_t   p;

    if (hm->seg.rc == NGX_HM_PG_ERROR
        && ngx_strcmp(hm->seg.sqlstate, "42501") == 0)
    {
        /* the policy knows better: a right that has just ended */
        hm->audited = 0;
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQgetisnull(hm->seg.res, 0, 1)) {
        hm->audited = 0;
        return ngx_hm_fail(hm, hm_row_bool(hm->seg.res, 0, 0)
                               ? HM_PROBLEM_CONFLICT
                               : HM_PROBLEM_NOT_FOUND);
    }

    if (ngx_hm_etag(hm, &care->id, 1, &hm->headers.etag) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    active = care->status.len == 6;

    ngx_hm_reply_start(hm, NGX_HTTP_CREATED, 512);
    hm_buf_lit(&hm->out, "{\"id\":");
    hm_json_uuid(&hm->out, &care->id);
    hm_buf_lit(&hm->out, ",\"patient_id\":");
    hm_json_uuid(&hm->out, &care->patient);
    hm_buf_lit(&hm->out, ",\"doctor_id\":");
    hm_json_uuid(&hm->out, &care->doctor);
    hm_buf_lit(&hm->out, ",\"status\":");
    hm_json_text(&hm->out, care->status);
    hm_buf_lit(&hm->out, ",\"created_by\":");
    hm_json_uuid(&hm->out, &hm->who.sub);
    hm_buf_lit(&hm->out, ",\"from_at\":");
    hm_json_time(&hm->out, hm->now);
    hm_buf_lit(&hm->out, ",\"until\":");
    hm_json_time(&hm->out, care->until);
    hm_buf_lit(&hm->out, ",\"accepted_at\":");
    hm_json_time(&hm->out, active ? hm->now : HM_USEC_NONE);
    hm_buf_lit(&hm->out, ",\"ended_at\":null,\"created_at\":");
    hm_json_time(&hm->out, hm->now);
    hm_buf_lit(&hm->out, ",\"updated_at\":");
    hm_json_time(&hm->out, hm->now);
    hm_buf_lit(&hm->out, "}");

    hm_uuid_format(&care->id, id);
    hm->headers.location = ngx_hm_printf(hm, "/api/v1/care-relationships/"
                                         "%.*s", HM_UUID_TEXT, id);

    return hm->out.failed
           ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
           : ngx_hm_idempotent_keep(hm, NGX_HM_DONE);
}


/* One relationship */


static ngx_hm_rc_t
care_ask(ngx_hm_ctx_t *hm)
{
    u_char  *all;

    all = ngx_hm_palloc(hm, 1);
    hm->data = ngx_hm_pcalloc(hm, sizeof(care_t));

    if (all == NULL || hm->data == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    *all = care_staff(hm);

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_CARE_GET);
    ngx_hm_seg_uuid(&hm->seg, &hm->path_id);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    ngx_hm_seg_add(&hm->seg, all, 1);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
care_found(ngx_hm_ctx_t *hm)
{
    care_t        *care = hm->data;
    hm_str_t       status;
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

    care->id = hm_row_uuid(r, 0, C_ID);
    care->patient = hm_row_uuid(r, 0, C_PATIENT);
    care->doctor = hm_row_uuid(r, 0, C_DOCTOR);
    care->version = hm_row_u32(r, 0, C_VERSION);

    /* it outlives the result */
    status = care_status(hm, r, 0);
    care->status = ngx_hm_printf(hm, "%.*s", (int) status.len,
                                 (char *) status.data);

    if (!hm_uuid_eq(&care->id, &hm->path_id)
        || (!hm_uuid_eq(&care->patient, &hm->who.sub)
            && !hm_uuid_eq(&care->doctor, &hm->who.sub)
            && !care_staff(hm)))
    {
        return ngx_hm_leak(hm, "care_relationships");
    }

    care_about(hm, &care->patient);
    hm->audit.row.items = 1;

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
care_get_reply(ngx_hm_ctx_t *hm)
{
    care_t  *care = hm->data;

    if (ngx_hm_etag(hm, &care->id, care->version, &hm->headers.etag)
        != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);

    if (care_row(hm, hm->seg.res, 0, &hm->out) != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : ngx_hm_if_none_match(hm);
}


static ngx_hm_rc_t
care_accept(ngx_hm_ctx_t *hm)
{
    return care_answer(hm, "active");
}


static ngx_hm_rc_t
care_decline(ngx_hm_ctx_t *hm)
{
    return care_answer(hm, "declined");
}


/* The patient's alone, and once. */
static ngx_hm_rc_t
care_answer(ngx_hm_ctx_t *hm, const char *status)
{
    care_t  *care = hm->data;

    if (!hm_uuid_eq(&care->patient, &hm->who.sub)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_ACCESS_DENIED,
                                  "the patient answers a proposal");
    }

    if (!hm_str_eq(care->status, HM_STR("pending"))) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "it is not pending");
    }

    return care_set(hm, status);
}


static ngx_hm_rc_t
care_end(ngx_hm_ctx_t *hm)
{
    care_t  *care = hm->data;

    if (!hm_str_eq(care->status, HM_STR("pending"))
        && !hm_str_eq(care->status, HM_STR("active")))
    {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    return care_set(hm, "ended");
}


static ngx_hm_rc_t
care_set(ngx_hm_ctx_t *hm, const char *status)
{
    care_t       *care = hm->data;
    ngx_hm_rc_t   rc;

    rc = ngx_hm_if_match(hm, &care->id, care->version);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    rc = ngx_hm_write_start(hm, NGX_HM_SQL_CARE_SET);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_uuid(&hm->seg, &care->id);
    ngx_hm_seg_i32(hm, &hm->seg, care->version);
    ngx_hm_seg_add(&hm->seg, status, ngx_strlen(status));
    ngx_hm_seg_uuid(&hm->seg, &care->patient);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
care_set_done(ngx_hm_ctx_t *hm)
{
    care_t        *care = hm->data;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        /* somebody was faster, or one of the two may not any more */
        hm->audited = 0;
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "it has just changed");
    }

    if (hm->method == NGX_HTTP_DELETE) {
        ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);
        return NGX_HM_DONE;
    }

    care->version = hm_row_u32(hm->seg.res, 0, C_VERSION);

    return care_get_reply(hm);
}


/* As JSON */


/* One that has run out has ended, though no row says so. */
static hm_str_t
care_status(ngx_hm_ctx_t *hm, const PGresult *r, int row)
{
    hm_str_t  status;

    status = hm_row_str(r, row, C_STATUS);

    if (hm_row_time(r, row, C_UNTIL) <= hm->now
        && (hm_str_eq(status, HM_STR("pending"))
            || hm_str_eq(status, HM_STR("active"))))
    {
        return HM_STR("ended");
    }

    return status;
}


static ngx_hm_rc_t
care_row(ngx_hm_ctx_t *hm, const PGresult *r, int row, hm_buf_t *b)
{
    hm_uuid_t   id;
    ngx_uint_t  i;

    static const struct {
        const char  *name;
        int          column;
        unsigned     time:1;
    } members[] = {
        { "id", C_ID, 0 }, { "patient_id", C_PATIENT, 0 },
        { "doctor_id", C_DOCTOR, 0 }, { "created_by", C_BY, 0 },
        { "from_at", C_FROM, 1 }, { "until", C_UNTIL, 1 },
        { "accepted_at", C_ACCEPTED, 1 }, { "ended_at", C_ENDED, 1 },
        { "created_at", C_CREATED, 1 }, { "updated_at", C_UPDATED, 1 }
    };

    hm_buf_lit(b, "{\"status\":");
    hm_json_text(b, care_status(hm, r, row));

    for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        hm_buf_printf(b, ",\"%s\":", members[i].name);

        if (members[i].time) {
            hm_json_time(b, hm_row_time(r, row, members[i].column));
            continue;
        }

        id = hm_row_uuid(r, row, members[i].column);
        hm_json_uuid(b, &id);
    }

    hm_buf_lit(b, "}");

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
care_list_read(ngx_hm_ctx_t *hm)
{
    return ngx_hm_rows_read(hm, &care_rows);
}


/* Patients */


static ngx_hm_rc_t
care_patients_read(ngx_hm_ctx_t *hm)
{
    return ngx_hm_rows_read(hm, &care_patients);
}


static ngx_hm_rc_t
care_patient(ngx_hm_ctx_t *hm, const PGresult *r, int row, hm_buf_t *b)
{
    hm_str_t   name, born;
    hm_uuid_t  id;

    id = hm_row_uuid(r, row, NGX_HM_ROW_ID);

    if (ngx_hm_open_json(hm, "users", "full_name", &hm->subject,
                         hm_row_str(r, row, P_NAME), &name) != NGX_OK
        || ngx_hm_open_json(hm, "users", "date_of_birth", &hm->subject,
                            hm_row_str(r, row, P_BORN), &born) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, &hm->subject);
    hm_buf_lit(b, ",\"full_name\":");
    hm_buf_str(b, name.data != NULL ? name : HM_STR("null"));
    hm_buf_lit(b, ",\"date_of_birth\":");
    hm_buf_str(b, born.data != NULL ? born : HM_STR("null"));
    hm_buf_lit(b, ",\"relationship_id\":");
    hm_json_uuid(b, &id);
    hm_buf_lit(b, ",\"accepted_at\":");
    hm_json_time(b, hm_row_time(r, row, P_SINCE));
    hm_buf_lit(b, ",\"until\":");
    hm_json_time(b, hm_row_time(r, row, P_UNTIL));
    hm_buf_lit(b, "}");

    return NGX_HM_NEXT;
}
