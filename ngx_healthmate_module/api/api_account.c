/*
 * api_account: what a mailbox proves, and how credentials change.
 *
 *   forgot-password, resend-verification     leave a mail
 *   verify-email, reset-password             take a mailed token
 *   change-password, users/me/email          with the current password
 *
 * Nothing here tells whether an address has an account.  forgot-password is
 * one insert, the same for every address; who it belongs to is looked up by
 * the worker, after the answer.
 *
 * A mailed token is `hmt1.` and base64url of 32 random bytes, of which the
 * database has the digest.  It is looked up first (who, and what for) and
 * taken by the statement that does the work, which alone decides: of many
 * tries at once one finds the row.  All that is not so is one answer, 410.
 *
 * Taking one ends every session; a first proof of the mailbox and a reset
 * end passkeys and second factors, too: whoever held the account before has
 * nothing left of it.  A changed password ends the other sessions.
 *
 * The current password is asked for as at login: a try is reserved first,
 * so that a stolen session does not guess it.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_session.h"
#include "../ngx_hm_endpoints.h"


#define ACCOUNT_TOKEN_RAW   32


typedef struct {
    ngx_hm_kdf_t      kdf;               /* first: ngx_hm_kdf_done() */
    u_char            token[32];         /* its digest */
    hm_uuid_t         request;
    hm_str_t          sealed;            /* a new address, as it waits */
    hm_str_t          email;
    u_char            email_index[32];
    u_char            current_index[32]; /* of the address that is */
    uint32_t          version;           /* of the password */
    u_char            fresh[HM_PASSWORD_BYTES];  /* the new password */
    size_t            fresh_len;
    unsigned          reset:1;
    unsigned          opens:1;           /* the account is made by it */
} account_t;


/* Columns of TOKEN_LOOKUP and of CREDENTIALS. */
enum { T_USER = 0, T_PURPOSE, T_ROLE, T_REQUEST, T_EMAIL };
enum { C_ID = 0, C_HASH, C_VERSION, C_INDEX, C_EMAIL, C_DEK };


static account_t *account_make(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_forgot_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_forgot_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_resend_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_token_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_token_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_token_found(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_token_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_token_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_reset_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_email_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_change_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_ask_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_current_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_current_verify(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_change_hash(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_change_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_change_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_ask_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_ask_done(ngx_hm_ctx_t *hm);

static ngx_hm_rc_t account_stale(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_current(ngx_hm_ctx_t *hm, hm_str_t password);
static ngx_hm_rc_t account_current_right(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t account_kdf(ngx_hm_ctx_t *hm);
static void account_password(ngx_hm_ctx_t *hm, const char *name,
    hm_str_t *password);
static ngx_int_t account_write(ngx_hm_ctx_t *hm, ngx_uint_t stmt);
static ngx_int_t account_seal(ngx_hm_ctx_t *hm, const char *table,
    const hm_uuid_t *row, uint32_t version, hm_str_t json, hm_str_t *out);
static ngx_int_t account_open(ngx_hm_ctx_t *hm, const char *table,
    const hm_uuid_t *row, hm_str_t env, hm_str_t *json);
static ngx_hm_rc_t account_reply(ngx_hm_ctx_t *hm, ngx_uint_t status);


const ngx_hm_step_pt  ngx_hm_account_forgot[] = {
    ngx_hm_json_body, account_forgot_read, account_forgot_done, NULL
};

const ngx_hm_step_pt  ngx_hm_account_resend[] = {
    account_resend_send, account_forgot_done, NULL
};

const ngx_hm_step_pt  ngx_hm_account_verify[] = {
    ngx_hm_json_body, account_token_read, account_token_look,
    account_token_found, account_token_send, account_token_done, NULL
};

const ngx_hm_step_pt  ngx_hm_account_reset[] = {
    ngx_hm_json_body, account_reset_read, account_token_look,
    account_token_found, account_token_send, account_token_done, NULL
};

const ngx_hm_step_pt  ngx_hm_account_password[] = {
    ngx_hm_json_body, account_change_read, account_current_look,
    account_current_verify, account_change_hash, account_change_send,
    account_change_done, NULL
};

const ngx_hm_step_pt  ngx_hm_account_email[] = {
    ngx_hm_json_body, account_ask_read, ngx_hm_step_keys,
    account_current_look, account_current_verify, account_ask_send,
    account_ask_done, NULL
};

/* a mailed address: the person's keys, the row, the statement */
static const ngx_hm_step_pt  account_email[] = {
    ngx_hm_step_keys, account_current_look, account_email_send,
    account_token_done, NULL
};


static account_t *
account_make(ngx_hm_ctx_t *hm)
{
    hm->data = ngx_hm_pcalloc(hm, sizeof(account_t));

    return hm->data;
}


static ngx_hm_rc_t
account_reply(ngx_hm_ctx_t *hm, ngx_uint_t status)
{
    ngx_hm_reply_start(hm, status, 2);
    hm->headers.personal = 1;

    if (status != NGX_HTTP_NO_CONTENT) {
        hm_buf_lit(&hm->out, "{}");
    }

    return NGX_HM_DONE;
}


/* Used, old, of an earlier password, or none of ours: the same answer. */
static ngx_hm_rc_t
account_stale(ngx_hm_ctx_t *hm)
{
    return ngx_hm_fail_detail(hm, HM_PROBLEM_EXPIRED, "the link was used "
                              "before, is too old, or not whole");
}


static ngx_hm_rc_t
account_kdf(ngx_hm_ctx_t *hm)
{
    account_t  *account = hm->data;

    switch (ngx_hm_kdf(hm, &account->kdf)) {
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


/* Parameters $1..$8 of a statement that writes with its audit row. */
static ngx_int_t
account_write(ngx_hm_ctx_t *hm, ngx_uint_t stmt)
{
    hm_str_t  origin;

    ngx_hm_audit_row(hm);

    if (ngx_hm_audit_origin(hm, &origin) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, stmt);

    hm->seg.seq_param = hm->seg.nparams;
    hm->seg.nseq = 1;

    ngx_hm_seg_null(&hm->seg);           /* shard and seq: the pool's */
    ngx_hm_seg_null(&hm->seg);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    ngx_hm_seg_uuid_or_null(&hm->seg, &hm->who.sid);
    ngx_hm_seg_i16(hm, &hm->seg, (uint16_t) hm->who.role);
    ngx_hm_seg_i16(hm, &hm->seg, HM_PURPOSE_SELF);
    ngx_hm_seg_str(&hm->seg, origin);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    hm->audited = 1;

    return NGX_OK;
}


/* A new password: the rules, named by the member it came in. */
static void
account_password(ngx_hm_ctx_t *hm, const char *name, hm_str_t *password)
{
    ngx_uint_t   i, n;

    *password = ngx_hm_form_text(hm, name, 0, 4096, 1);

    if (password->data == NULL) {
        return;
    }

    n = hm->faults->n;
    hm_password_check(hm->faults, *password, HM_STR(""));

    for (i = n; i < hm->faults->n && i < HM_FAULTS_MAX; i++) {
        hm->faults->list[i].place = ngx_hm_printf(hm, "/%s", name);
    }
}


/* Forgot, resend */


static ngx_hm_rc_t
account_forgot_read(ngx_hm_ctx_t *hm)
{
    hm_str_t      normal;
    account_t    *account;
    ngx_hm_rc_t   rc;

    account = account_make(hm);
    if (account == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_form_members(hm, "email");

    if (json_is_object(hm->json)) {
        account->email = ngx_hm_form_text(hm, "email", 3, 254, 1);
    }

    if (account->email.data != NULL) {
        rc = ngx_hm_form_email(hm, account->email, &normal,
                               account->email_index);

        if (rc == NGX_HM_DONE) {
            return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
        }

        if (rc == NGX_HM_FAIL) {
            hm_fault_add(hm->faults, HM_STR(""), "email", HM_FAULT_FORMAT,
                         "an email address");
        }
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (hm_uuid7(&account->request, hm->now) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_FORGOT);
    hm->seg.actor = account->request;
    ngx_hm_seg_uuid(&hm->seg, &account->request);
    ngx_hm_seg_add(&hm->seg, account->email_index, 32);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
account_forgot_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);

    return p == HM_PROBLEM_NONE ? account_reply(hm, NGX_HTTP_ACCEPTED)
                                : ngx_hm_fail(hm, p);
}


static ngx_hm_rc_t
account_resend_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_RESEND);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


/* What takes a mailed token */


static ngx_hm_rc_t
account_token_read(ngx_hm_ctx_t *hm)
{
    size_t       len;
    u_char       raw[3 * 64];
    hm_str_t     text;
    account_t   *account;

    account = hm->data;

    if (account == NULL) {
        account = account_make(hm);

        if (account == NULL) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        ngx_hm_form_members(hm, "token");
    }

    text = json_is_object(hm->json)
           ? ngx_hm_form_text(hm, "token", 0, 200, 1) : hm_null_str;

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (text.len != 5 + hm_b64url_len(ACCOUNT_TOKEN_RAW)
        || ngx_memcmp(text.data, "hmt1.", 5) != 0)
    {
        return account_stale(hm);
    }

    text.data += 5;
    text.len -= 5;

    if (hm_b64url_decode(raw, &len, text) != HM_OK
        || len != ACCOUNT_TOKEN_RAW)
    {
        return account_stale(hm);
    }

    if (hm_sha256(account->token, raw, ACCOUNT_TOKEN_RAW) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_wipe(raw, sizeof(raw));

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
account_reset_read(ngx_hm_ctx_t *hm)
{
    hm_str_t    password;
    account_t  *account;

    account = account_make(hm);
    if (account == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    account->reset = 1;
    password = hm_null_str;
    ngx_hm_form_members(hm, "token password");

    if (json_is_object(hm->json)) {
        account_password(hm, "password", &password);
    }

    if (password.data != NULL && hm->faults->n == 0) {
        account->kdf.password_len = ngx_min(password.len,
                                            sizeof(account->kdf.password));
        ngx_memcpy(account->kdf.password, password.data,
                   account->kdf.password_len);
    }

    return account_token_read(hm);
}


static ngx_hm_rc_t
account_token_look(ngx_hm_ctx_t *hm)
{
    account_t  *account = hm->data;

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_TOKEN_LOOKUP);
    ngx_hm_seg_add(&hm->seg, account->token, 32);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
account_token_found(ngx_hm_ctx_t *hm)
{
    u_char        *copy;
    PGresult      *r;
    hm_str_t       purpose;
    account_t     *account = hm->data;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) != 1) {
        return account_stale(hm);
    }

    purpose = hm_row_str(r, 0, T_PURPOSE);

    if (account->reset != hm_str_eq(purpose, HM_STR("reset"))) {
        return account_stale(hm);
    }

    /* from here on it is that person */

    hm->who.sub = hm_row_uuid(r, 0, T_USER);
    hm->who.role = hm_role_of(hm_row_str(r, 0, T_ROLE));
    hm->subject = hm->who.sub;
    hm->signed_in = 1;
    hm->audited = 1;

    if (account->reset) {
        return account_kdf(hm);
    }

    if (hm_str_eq(purpose, HM_STR("email"))) {
        account->request = hm_row_uuid(r, 0, T_REQUEST);
        account->sealed = hm_row_str(r, 0, T_EMAIL);
        copy = ngx_hm_palloc(hm, account->sealed.len + 1);

        if (copy == NULL) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        ngx_memcpy(copy, account->sealed.data, account->sealed.len);
        account->sealed.data = copy;

        return ngx_hm_goto(hm, account_email);
    }

    account->opens = hm_str_eq(purpose, HM_STR("register"));

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
account_token_send(ngx_hm_ctx_t *hm)
{
    hm_str_t    hash;
    account_t  *account = hm->data;

    if (account->reset && account->kdf.rc != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (account_write(hm, account->reset ? NGX_HM_SQL_RESET
                          : account->opens ? NGX_HM_SQL_REGISTER_OPEN
                                             : NGX_HM_SQL_VERIFY)
        != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_add(&hm->seg, account->token, 32);

    if (account->reset) {
        hash.data = (u_char *) account->kdf.hash;
        hash.len = ngx_strlen(account->kdf.hash);
        ngx_hm_seg_str(&hm->seg, hash);
    }

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
account_token_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    /* 23505: the address got an account between look and update */

    if (hm->seg.rc == NGX_HM_PG_ERROR
        && ngx_strcmp(hm->seg.sqlstate, "23505") == 0)
    {
        hm->audited = 1;
        return account_stale(hm);
    }

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    return PQntuples(hm->seg.res) == 1
           ? account_reply(hm, NGX_HTTP_NO_CONTENT) : account_stale(hm);
}


/* A new address: sealed as a request, to be sealed as the person's */


static ngx_int_t
account_open(ngx_hm_ctx_t *hm, const char *table, const hm_uuid_t *row,
    hm_str_t env, hm_str_t *json)
{
    u_char                *out;
    hm_place_t             place;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, hm_envelope_version(env)) : NULL;
    out = ngx_hm_palloc(hm, env.len + 1);

    place.table = table;
    place.column = "email";
    place.row = *row;
    place.owner = hm->subject;

    if (dek == NULL || out == NULL
        || hm_open(out, json, dek, hm_envelope_version(env), &place, env)
           != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
account_seal(ngx_hm_ctx_t *hm, const char *table, const hm_uuid_t *row,
    uint32_t version, hm_str_t json, hm_str_t *out)
{
    hm_place_t             place;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, version) : NULL;
    out->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    place.table = table;
    place.column = "email";
    place.row = *row;
    place.owner = hm->subject;

    if (dek == NULL || out->data == NULL
        || hm_seal(out->data, &out->len, dek, version, &place, json)
           != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_hm_rc_t
account_email_send(ngx_hm_ctx_t *hm)
{
    uint32_t       version;
    hm_str_t       json, old, email, notice;
    PGresult      *r;
    hm_uuid_t     *id;
    account_t     *account = hm->data;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) != 1) {
        return account_stale(hm);
    }

    /* all of a row is sealed under one version of the key */

    version = hm_row_u32(r, 0, C_DEK);
    id = ngx_hm_palloc(hm, sizeof(hm_uuid_t));

    if (id == NULL || hm_uuid7(id, hm->now) != HM_OK
        || account_open(hm, "account_requests", &account->request,
                        account->sealed, &json) != NGX_OK
        || account_open(hm, "users", &hm->subject,
                        hm_row_str(r, 0, C_EMAIL), &old) != NGX_OK
        || account_seal(hm, "users", &hm->subject, version, json, &email)
           != NGX_OK
        || account_seal(hm, "account_requests", id, version, old, &notice)
           != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (account_write(hm, NGX_HM_SQL_EMAIL_TAKE) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_add(&hm->seg, account->token, 32);
    ngx_hm_seg_str(&hm->seg, email);
    ngx_hm_seg_i32(hm, &hm->seg, version);
    ngx_hm_seg_uuid(&hm->seg, id);
    ngx_hm_seg_str(&hm->seg, notice);

    return ngx_hm_seg_wait(hm);
}


/* With the current password */


static ngx_hm_rc_t
account_change_read(ngx_hm_ctx_t *hm)
{
    hm_str_t    current, fresh;
    account_t  *account;

    account = account_make(hm);
    if (account == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    current = hm_null_str;
    ngx_hm_form_members(hm, "current_password new_password");

    if (json_is_object(hm->json)) {
        current = ngx_hm_form_text(hm, "current_password", 0, 4096, 1);
        account_password(hm, "new_password", &fresh);

        if (fresh.data != NULL && fresh.len <= sizeof(account->fresh)) {
            account->fresh_len = fresh.len;
            ngx_memcpy(account->fresh, fresh.data, fresh.len);
        }
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    return account_current(hm, current);
}


static ngx_hm_rc_t
account_ask_read(ngx_hm_ctx_t *hm)
{
    hm_str_t     current, normal;
    account_t   *account;
    ngx_hm_rc_t  rc;

    account = account_make(hm);
    if (account == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    current = hm_null_str;
    ngx_hm_form_members(hm, "email password");

    if (json_is_object(hm->json)) {
        account->email = ngx_hm_form_text(hm, "email", 3, 254, 1);
        current = ngx_hm_form_text(hm, "password", 0, 4096, 1);
    }

    if (account->email.data != NULL) {
        rc = ngx_hm_form_email(hm, account->email, &normal,
                               account->email_index);

        if (rc == NGX_HM_DONE) {
            return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
        }

        if (rc == NGX_HM_FAIL) {
            hm_fault_add(hm->faults, HM_STR(""), "email", HM_FAULT_FORMAT,
                         "an email address");
        }
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    return account_current(hm, current);
}


static ngx_hm_rc_t
account_current(ngx_hm_ctx_t *hm, hm_str_t password)
{
    account_t  *account = hm->data;

    account->kdf.verify = 1;
    account->kdf.password_len = ngx_min(password.len,
                                        sizeof(account->kdf.password));
    ngx_memcpy(account->kdf.password, password.data,
               account->kdf.password_len);

    /* longer than any: it is wrong, and takes as long */

    account->kdf.dummy = password.len > sizeof(account->kdf.password);

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
account_current_look(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_CREDENTIALS);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
account_current_verify(ngx_hm_ctx_t *hm)
{
    PGresult      *r;
    hm_str_t       hash, index;
    hm_uuid_t      id;
    account_t     *account = hm->data;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) != 1) {
        return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
    }

    id = hm_row_uuid(r, 0, C_ID);

    if (ngx_hm_owned(hm, &id, "users") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    hash = hm_row_str(r, 0, C_HASH);
    index = hm_row_str(r, 0, C_INDEX);
    account->version = hm_row_u32(r, 0, C_VERSION);

    if (hash.len >= sizeof(account->kdf.hash) || index.len != 32) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_memcpy(account->kdf.hash, hash.data, hash.len);
    account->kdf.hash[hash.len] = '\0';
    ngx_memcpy(account->current_index, index.data, 32);

    p = ngx_hm_login_try(hm, account->current_index, 0);

    return p == HM_PROBLEM_NONE ? account_kdf(hm) : ngx_hm_fail(hm, p);
}


/* NEXT when the password was the right one. */
static ngx_hm_rc_t
account_current_right(ngx_hm_ctx_t *hm)
{
    account_t  *account = hm->data;

    if (account->kdf.rc == HM_ERROR) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (account->kdf.rc != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
    }

    /* its own try alone: wrong codes of a second factor still count */
    ngx_hm_try_back(hm);

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
account_change_hash(ngx_hm_ctx_t *hm)
{
    account_t    *account = hm->data;
    ngx_hm_rc_t   rc;

    rc = account_current_right(hm);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    account->kdf.verify = 0;
    account->kdf.dummy = 0;
    account->kdf.password_len = account->fresh_len;
    ngx_memcpy(account->kdf.password, account->fresh, account->fresh_len);
    hm_wipe(account->fresh, sizeof(account->fresh));

    return account_kdf(hm);
}


static ngx_hm_rc_t
account_change_send(ngx_hm_ctx_t *hm)
{
    hm_str_t    hash;
    account_t  *account = hm->data;

    if (account->kdf.rc != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (account_write(hm, NGX_HM_SQL_PASSWORD) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    hash.data = (u_char *) account->kdf.hash;
    hash.len = ngx_strlen(account->kdf.hash);
    ngx_hm_seg_str(&hm->seg, hash);
    ngx_hm_seg_i32(hm, &hm->seg, account->version);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
account_change_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    /* no row: another change came first, so that it was not current */

    if (PQntuples(hm->seg.res) != 1) {
        return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
    }

    /* the device's cookie holds the version; without one it is a stranger */

    if (hm->device.known) {
        (void) ngx_hm_device_make(hm, &hm->subject,
                                  hm_row_u32(hm->seg.res, 0, 0));
    }

    return account_reply(hm, NGX_HTTP_NO_CONTENT);
}


static ngx_hm_rc_t
account_ask_send(ngx_hm_ctx_t *hm)
{
    hm_buf_t         b;
    hm_str_t         json, sealed;
    account_t       *account = hm->data;
    ngx_hm_rc_t      rc;
    hm_user_keys_t  *keys;

    rc = account_current_right(hm);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    hm_buf_init(&b, &hm->mem, account->email.len + 16);
    hm_json_text(&b, account->email);
    json.data = b.start;
    json.len = hm_buf_len(&b);

    keys = ngx_hm_keys(hm);

    if (keys == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    if (b.failed || hm_uuid7(&account->request, hm->now) != HM_OK
        || account_seal(hm, "account_requests", &account->request,
                        keys->active, json, &sealed) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (account_write(hm, NGX_HM_SQL_EMAIL_ASK) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_uuid(&hm->seg, &account->request);
    ngx_hm_seg_add(&hm->seg, account->email_index, 32);
    ngx_hm_seg_str(&hm->seg, sealed);
    ngx_hm_seg_i32(hm, &hm->seg, keys->active);
    ngx_hm_seg_i32(hm, &hm->seg, account->version);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
account_ask_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    return PQntuples(hm->seg.res) == 1
           ? account_reply(hm, NGX_HTTP_ACCEPTED)
           : ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
}
