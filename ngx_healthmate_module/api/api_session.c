/*
 * api_session: what becomes of a session after its login: refresh, reauth,
 * the list of them, their end.
 *
 * Refresh.  The token names session and turn, and a MAC says that we made
 * it, so nothing that was guessed reaches the database.  One statement does
 * the rest under the lock of the session's row (hm_session_refresh): the
 * turn, the grace for parallel tabs and lost replies, the end of a session
 * whose token was used twice, and the audit record.  The answer to a turn
 * and to its repetition within the grace is computed from the same row, so
 * it is the same pair.  The cookie is asked for either way, before anything
 * is turned or ended.
 *
 * What the statement decided stands when its answer is lost, or when the
 * person's keys (the answer tells of the account) could not be loaded: the
 * client asks again with the token it has.
 *
 * Reauth proves the person anew within a session: auth_time moves, the
 * refresh token does not.  Where a second factor is enrolled the password
 * alone does not do: a fresh auth_time then always stands for the factor.
 * A code or a passkey does alone, or beside the password.
 *
 * Ending is hm_end_session's, which also tells every nginx worker.  An
 * ended session is a 404 in the list's terms and a 401 for its tokens.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_mfa.h"
#include "../ngx_hm_session.h"


#define SESSION_SLACK   5                /* seconds: a note on its way */


/* What REFRESH and RENEW give after the user's columns. */
enum {
    S_VERDICT = NGX_HM_U_COLUMNS, S_COUNTER, S_FINGERPRINT, S_AMR,
    S_AUTH_TIME, S_ROTATED, S_EXPIRES
};

/* And SESSIONS. */
enum {
    L_ID = 0, L_USER, L_DEK, L_CLIENT, L_FINGERPRINT, L_CREATED, L_USED
};


typedef struct {
    ngx_hm_kdf_t      kdf;               /* first: ngx_hm_kdf_done() */
    unsigned char     email_index[32];
    unsigned          enrolled;          /* second factors: HM_AMR_* */
    unsigned          amr;               /* what was given */
    hm_str_t          otp;
    ngx_hm_passkey_t *passkey;
} session_reauth_t;


static ngx_hm_rc_t session_refresh_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_refresh_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_refresh_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_reauth_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_reauth_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_reauth_verify(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_reauth_verified(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_reauth_proved(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_renew_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_renew_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_list_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_list_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_logout_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_logout_all_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_delete_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_delete_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t session_ended(ngx_hm_ctx_t *hm);

static ngx_int_t session_mine(ngx_hm_ctx_t *hm);
static time_t session_idle(ngx_hm_ctx_t *hm, hm_role_t role);
static ngx_int_t session_limits(ngx_hm_ctx_t *hm);
static void session_of_row(ngx_hm_session_t *s, const PGresult *r);
static ngx_hm_rc_t session_end_send(ngx_hm_ctx_t *hm, const hm_uuid_t *id,
    hm_str_t reason, uint16_t action, uint16_t none);
static ngx_hm_rc_t session_item(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_user_keys_t *keys);
static void session_member(hm_buf_t *b, json_t *client, const char *name);
static json_t *session_client(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_user_keys_t *keys);
static void session_cookie_away(ngx_hm_ctx_t *hm);


const ngx_hm_step_pt  ngx_hm_session_refresh[] = {
    ngx_hm_json_body, session_refresh_read, session_refresh_send,
    session_refresh_done, NULL
};

const ngx_hm_step_pt  ngx_hm_session_reauth[] = {
    ngx_hm_json_body, session_reauth_read, session_reauth_look,
    session_reauth_verify, session_reauth_verified, session_reauth_proved,
    NULL
};

/* hm->session->amr is what was just proved. */
const ngx_hm_step_pt  ngx_hm_session_renew[] = {
    ngx_hm_step_keys, session_renew_send, session_renew_done, NULL
};

const ngx_hm_step_pt  ngx_hm_session_list[] = {
    ngx_hm_step_keys, session_list_send, session_list_done, NULL
};

const ngx_hm_step_pt  ngx_hm_session_logout[] = {
    session_logout_send, session_ended, NULL
};

const ngx_hm_step_pt  ngx_hm_session_logout_all[] = {
    session_logout_all_send, session_ended, NULL
};

const ngx_hm_step_pt  ngx_hm_session_delete[] = {
    session_delete_send, session_delete_done, NULL
};

static const ngx_hm_step_pt  session_refreshed[] = {
    ngx_hm_step_keys, session_reply, NULL
};


/* Refresh */


static ngx_hm_rc_t
session_refresh_read(ngx_hm_ctx_t *hm)
{
    hm_str_t           token;
    ngx_hm_session_t  *s;

    ngx_hm_form_members(hm, "refresh_token");
    token = hm_null_str;

    if (json_is_object(hm->json)) {
        token = ngx_hm_form_text(hm, "refresh_token", 0, HM_JWT_MAX, 1);
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    s = ngx_hm_pcalloc(hm, sizeof(ngx_hm_session_t));
    if (s == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->session = s;

    switch (ngx_hm_refresh_read(token, &s->id, &s->counter)) {
    case NGX_OK:
        return NGX_HM_NEXT;
    case NGX_DECLINED:
        return ngx_hm_fail(hm, HM_PROBLEM_REFRESH_INVALID);
    default:
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }
}


static ngx_hm_rc_t
session_refresh_send(ngx_hm_ctx_t *hm)
{
    u_char            *flags;
    ngx_hm_session_t  *s;

    s = hm->session;

    flags = ngx_hm_palloc(hm, 2);
    if (flags == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    /* a session without a cookie is for loopback only, as at its login */

    flags[0] = ngx_hm_fingerprint_is(hm, &s->id);
    flags[1] = hm->conf->fingerprint != NGX_HM_ON_ || hm->plain;

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_REFRESH);
    ngx_hm_seg_uuid(&hm->seg, &s->id);
    ngx_hm_seg_i64(hm, &hm->seg, s->counter);
    ngx_hm_seg_add(&hm->seg, &flags[0], 1);
    ngx_hm_seg_add(&hm->seg, &flags[1], 1);
    ngx_hm_seg_i32(hm, &hm->seg, (uint32_t) hm->conf->refresh_time);

    if (session_limits(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    if (ngx_hm_session_audit(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return ngx_hm_seg_wait(hm);
}


/* Notes of use come late; a session is not ended for one on its way. */
static time_t
session_idle(ngx_hm_ctx_t *hm, hm_role_t role)
{
    return hm->conf->idle[role] + ngx_hm_seen_step(hm->conf, role)
           + SESSION_SLACK;
}


/* Two arrays by role: which one it is, only the row knows. */
static ngx_int_t
session_limits(ngx_hm_ctx_t *hm)
{
    u_char      *p;
    hm_str_t     idle[HM_ROLE_RESEARCHER], absolute[HM_ROLE_RESEARCHER];
    hm_role_t    role;

    p = ngx_hm_palloc(hm, 8 * HM_ROLE_RESEARCHER);
    if (p == NULL) {
        return NGX_ERROR;
    }

    for (role = HM_ROLE_PATIENT; role <= HM_ROLE_RESEARCHER; role++) {
        hm_put_u32(p, (uint32_t) session_idle(hm, role));
        hm_put_u32(p + 4, (uint32_t) hm->conf->absolute[role]);

        idle[role - 1].data = p;
        idle[role - 1].len = 4;
        absolute[role - 1].data = p + 4;
        absolute[role - 1].len = 4;
        p += 8;
    }

    ngx_hm_seg_array(hm, 23, HM_ROLE_RESEARCHER, idle);
    ngx_hm_seg_array(hm, 23, HM_ROLE_RESEARCHER, absolute);

    return NGX_OK;
}


static ngx_hm_rc_t
session_refresh_done(ngx_hm_ctx_t *hm)
{
    hm_str_t       verdict;
    PGresult      *r;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_REFRESH_INVALID);
    }

    verdict = hm_row_str(r, 0, S_VERDICT);

    if (hm_str_eq(verdict, HM_STR("reused"))) {
        ngx_log_error(NGX_LOG_WARN, ngx_hm_worker.log, 0,
                      "healthmate: a refresh token was used twice; its "
                      "session has ended");
        return ngx_hm_fail(hm, HM_PROBLEM_REFRESH_REUSED);
    }

    if (hm_str_eq(verdict, HM_STR("mismatch"))) {
        return ngx_hm_fail(hm, HM_PROBLEM_FINGERPRINT_MISMATCH);
    }

    if (!hm_str_eq(verdict, HM_STR("turned"))
        && !hm_str_eq(verdict, HM_STR("grace")))
    {
        return ngx_hm_fail(hm, HM_PROBLEM_REFRESH_INVALID);
    }

    session_of_row(hm->session, r);
    ngx_hm_session_enter(hm);

    /* the result stays while the keys are asked for */

    hm->old_res = r;
    hm->seg.res = NULL;

    return ngx_hm_goto(hm, session_refreshed);
}


static void
session_of_row(ngx_hm_session_t *s, const PGresult *r)
{
    hm_usec_t  turned;

    s->user = hm_row_uuid(r, 0, NGX_HM_U_ID);
    s->role = hm_role_of(hm_row_str(r, 0, NGX_HM_U_ROLE));
    s->counter = hm_row_u32(r, 0, S_COUNTER);
    s->fingerprint = hm_row_bool(r, 0, S_FINGERPRINT);
    s->amr = hm_row_u32(r, 0, S_AMR);
    s->auth_time = hm_row_time(r, 0, S_AUTH_TIME);
    s->expires = hm_row_time(r, 0, S_EXPIRES);

    /* a proof since then is in the token only if that is newer */

    turned = hm_row_time(r, 0, S_ROTATED);
    s->issued = ngx_max(turned, s->auth_time);
}


static ngx_hm_rc_t
session_reply(ngx_hm_ctx_t *hm)
{
    return ngx_hm_session_reply_row(hm, hm->old_res);
}


/* Reauth */


static ngx_hm_rc_t
session_reauth_read(ngx_hm_ctx_t *hm)
{
    json_t            *j;
    hm_str_t           password;
    session_reauth_t  *in;

    in = ngx_hm_pcalloc(hm, sizeof(session_reauth_t));
    if (in == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = in;

    ngx_hm_form_members(hm, "password otp passkey");

    if (json_is_object(hm->json)) {
        in->otp = ngx_hm_form_text(hm, "otp", 0, 32, 0);
        in->amr = in->otp.data != NULL ? HM_AMR_OTP : 0;
        j = json_object_get(hm->json, "passkey");

        if (j != NULL && !json_is_null(j)) {
            in->amr |= HM_AMR_HWK;
            in->passkey = ngx_hm_passkey_read(hm, j, "/passkey");

            if (in->passkey == NULL) {
                return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
            }

            if (in->otp.data != NULL) {
                hm_fault_add(hm->faults, HM_STR(""), "otp", HM_FAULT_ORDER,
                             "one factor at a time");
            }
        }

        password = ngx_hm_form_text(hm, "password", 0, 4096,
                                    in->amr == 0 && hm->faults->n == 0);

        if (password.data != NULL) {
            in->amr |= HM_AMR_PWD;
            in->kdf.password_len = ngx_min(password.len,
                                           sizeof(in->kdf.password));
            ngx_memcpy(in->kdf.password, password.data,
                       in->kdf.password_len);
            in->kdf.dummy = password.len > sizeof(in->kdf.password);
        }
    }

    return hm->faults->n == 0 ? NGX_HM_NEXT
           : ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
}


static ngx_hm_rc_t
session_reauth_look(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_REAUTH_LOOKUP);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


/* Guesses count as those of the login do: one password, one limit. */
static ngx_hm_rc_t
session_reauth_verify(ngx_hm_ctx_t *hm)
{
    hm_str_t           hash, index;
    hm_uuid_t          id;
    hm_problem_t       p;
    session_reauth_t  *in = hm->data;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_SESSION_REVOKED);
    }

    id = hm_row_uuid(hm->seg.res, 0, 0);

    if (ngx_hm_owned(hm, &id, "users") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    hash = hm_row_str(hm->seg.res, 0, 1);
    index = hm_row_str(hm->seg.res, 0, 2);
    in->enrolled = hm_row_u32(hm->seg.res, 0, 3);

    if (index.len != 32 || hash.len >= sizeof(in->kdf.hash)) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_memcpy(in->email_index, index.data, 32);
    ngx_memcpy(in->kdf.hash, hash.data, hash.len);
    in->kdf.hash[hash.len] = '\0';
    in->kdf.verify = 1;

    p = ngx_hm_login_try(hm, in->email_index, 0);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (!(in->amr & HM_AMR_PWD)) {
        return NGX_HM_NEXT;
    }

    switch (ngx_hm_kdf(hm, &in->kdf)) {
    case NGX_OK:
        ngx_hm_wait(hm);
        return NGX_HM_WAIT;
    case NGX_BUSY:
        hm->headers.retry_after = 2;
        return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
    default:
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }
}


static ngx_hm_rc_t
session_reauth_verified(ngx_hm_ctx_t *hm)
{
    session_reauth_t  *in = hm->data;

    if (in->amr & HM_AMR_PWD) {
        if (in->kdf.rc == HM_ERROR) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        if (in->kdf.rc != HM_OK) {
            return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
        }
    }

    if (in->amr & HM_AMR_HWK) {
        return ngx_hm_passkey(hm, in->passkey);
    }

    if (in->amr & HM_AMR_OTP) {
        return ngx_hm_otp(hm, in->otp);
    }

    return in->enrolled == 0 ? NGX_HM_NEXT
                             : ngx_hm_fail(hm, HM_PROBLEM_MFA_REQUIRED);
}


static ngx_hm_rc_t
session_reauth_proved(ngx_hm_ctx_t *hm)
{
    session_reauth_t  *in = hm->data;

    (void) ngx_hm_login_try(hm, in->email_index, 1);

    if (session_mine(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->session->amr = in->amr;

    return ngx_hm_goto(hm, ngx_hm_session_renew);
}


/* hm->session: that of the token. */
static ngx_int_t
session_mine(ngx_hm_ctx_t *hm)
{
    ngx_hm_session_t  *s;

    s = ngx_hm_pcalloc(hm, sizeof(ngx_hm_session_t));
    if (s == NULL) {
        return NGX_ERROR;
    }

    s->id = hm->who.sid;
    s->user = hm->who.sub;
    s->role = hm->who.role;
    hm->session = s;

    return NGX_OK;
}


static ngx_hm_rc_t
session_renew_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_session_t  *s;

    s = hm->session;

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_RENEW);
    ngx_hm_seg_uuid(&hm->seg, &s->user);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_uuid(&hm->seg, &s->id);
    ngx_hm_seg_i32(hm, &hm->seg, s->amr);

    if (ngx_hm_session_audit(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
session_renew_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_SESSION_REVOKED);
    }

    session_of_row(hm->session, hm->seg.res);

    return ngx_hm_session_reply_row(hm, hm->seg.res);
}


/* The list */


static ngx_hm_rc_t
session_list_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_SESSIONS);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_i32(hm, &hm->seg,
                   (uint32_t) session_idle(hm, hm->who.role));
    ngx_hm_seg_i32(hm, &hm->seg,
                   (uint32_t) hm->conf->absolute[hm->who.role]);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
session_list_done(ngx_hm_ctx_t *hm)
{
    int              i, n;
    PGresult        *r;
    ngx_hm_rc_t      rc;
    hm_problem_t     p;
    hm_user_keys_t  *keys;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    n = PQntuples(r);
    keys = ngx_hm_keys(hm);

    if (keys == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);
    hm_buf_lit(&hm->out, "{\"items\":[");

    for (i = 0; i < n; i++) {
        if (i != 0) {
            hm_buf_lit(&hm->out, ",");
        }

        rc = session_item(hm, r, i, keys);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }
    }

    hm_buf_lit(&hm->out, "],\"next\":null}");

    hm->audit.row.items = (uint32_t) n;

    if (n != 0) {
        hm->audit.row.first = hm_row_uuid(r, 0, L_ID);
        hm->audit.row.last = hm_row_uuid(r, n - 1, L_ID);
    }

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


static ngx_hm_rc_t
session_item(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_user_keys_t *keys)
{
    json_t     *client;
    hm_buf_t   *b;
    hm_uuid_t   id, user;

    b = &hm->out;
    id = hm_row_uuid(r, row, L_ID);
    user = hm_row_uuid(r, row, L_USER);

    if (ngx_hm_owned(hm, &user, "sessions") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    client = session_client(hm, r, row, keys);
    if (client == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, &id);
    hm_buf_printf(b, ",\"current\":%s,\"device\":",
                  hm_uuid_eq(&id, &hm->who.sid) ? "true" : "false");
    session_member(b, client, "user_agent");
    hm_buf_lit(b, ",\"address\":");
    session_member(b, client, "address");
    hm_buf_printf(b, ",\"fingerprint\":%s,\"created_at\":",
                  hm_row_bool(r, row, L_FINGERPRINT) ? "true" : "false");
    hm_json_time(b, hm_row_time(r, row, L_CREATED));
    hm_buf_lit(b, ",\"last_used_at\":");
    hm_json_time(b, hm_row_time(r, row, L_USED));
    hm_buf_lit(b, "}");

    json_decref(client);

    return NGX_HM_NEXT;
}


/* An empty text, as of a client that says nothing of itself, is null. */
static void
session_member(hm_buf_t *b, json_t *client, const char *name)
{
    json_t    *j;
    hm_str_t   s;

    j = json_object_get(client, name);
    s = hm_null_str;

    if (json_is_string(j) && json_string_length(j) != 0) {
        s.data = (u_char *) json_string_value(j);
        s.len = json_string_length(j);
    }

    hm_json_text_or_null(b, s);
}


/* sessions.client, opened: {"address","user_agent"} */
static json_t *
session_client(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_user_keys_t *keys)
{
    u_char                *out;
    uint32_t               version;
    hm_str_t               env, text;
    hm_place_t             place;
    const unsigned char   *dek;

    env = hm_row_str(r, row, L_CLIENT);

    if (env.data == NULL) {
        return json_object();
    }

    version = hm_row_u32(r, row, L_DEK);
    dek = hm_keys_dek(keys, version);
    out = ngx_hm_palloc(hm, env.len);

    place.table = "sessions";
    place.column = "client";
    place.row = hm_row_uuid(r, row, L_ID);
    place.owner = hm->subject;

    if (dek == NULL || out == NULL
        || hm_open(out, &text, dek, version, &place, env) != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        return NULL;
    }

    return json_loadb((char *) text.data, text.len, 0, NULL);
}


/* The end */


static ngx_hm_rc_t
session_end_send(ngx_hm_ctx_t *hm, const hm_uuid_t *id, hm_str_t reason,
    uint16_t action, uint16_t none)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_SESSION_END);
    ngx_hm_seg_uuid(&hm->seg, id);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_str(&hm->seg, reason);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_i16(hm, &hm->seg, action);
    ngx_hm_seg_i16(hm, &hm->seg, none);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sid);

    if (session_mine(hm) != NGX_OK || ngx_hm_session_audit(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return ngx_hm_seg_wait(hm);
}


/* To log out of what has ended already is no fault. */
static ngx_hm_rc_t
session_logout_send(ngx_hm_ctx_t *hm)
{
    return session_end_send(hm, &hm->who.sid, HM_STR("logout"),
                            HM_AUDIT_LOGOUT, NGX_HTTP_NO_CONTENT);
}


static ngx_hm_rc_t
session_logout_all_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_LOGOUT_ALL);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_str(&hm->seg, HM_STR("logout_all"));
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sid);

    if (session_mine(hm) != NGX_OK || ngx_hm_session_audit(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
session_delete_send(ngx_hm_ctx_t *hm)
{
    return session_end_send(hm, &hm->path_id, HM_STR("ended_by_user"),
                            HM_AUDIT_DELETE, NGX_HTTP_NOT_FOUND);
}


static ngx_hm_rc_t
session_delete_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (!hm_row_bool(hm->seg.res, 0, 0)) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    if (hm_uuid_eq(&hm->path_id, &hm->who.sid)) {
        session_cookie_away(hm);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
session_ended(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    session_cookie_away(hm);
    ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);

    return NGX_HM_DONE;
}


/* The browser forgets what opens nothing any more. */
static void
session_cookie_away(ngx_hm_ctx_t *hm)
{
    if (hm->who.has_fgp) {
        hm->headers.cookie = HM_STR(NGX_HM_FGP_COOKIE "=; Path=/; Max-Age=0; "
                                    "HttpOnly; Secure; SameSite=Strict");
    }
}
