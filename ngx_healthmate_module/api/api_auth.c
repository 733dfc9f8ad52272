/*
 * api_auth: accounts, first part: register, log in, who am I.
 *
 * Passwords are hashed in a thread pool.  A login of an unknown or a
 * disabled person, or with an impossible password, does the same work and
 * gives the same answer as one with a wrong password.
 *
 * The person's keys are made at registration: a random DEK and index key,
 * wrapped by the KEK, in the statement that makes the account.  Under
 * healthmate_register verified that is not this one: all of it waits in
 * account_requests until the mailbox answers (api_account.c).
 *
 * Whatever opens a session ends in ngx_hm_session.c; what becomes of it
 * afterwards is api_session.c's.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_mfa.h"
#include "../ngx_hm_session.h"
#include "../ngx_hm_endpoints.h"


#define AUTH_CONSENTS   6


typedef struct {
    ngx_hm_kdf_t      kdf;               /* first: ngx_hm_kdf_done() */
    hm_uuid_t         user;
    hm_str_t          email;
    hm_str_t          email_normal;
    unsigned char     email_index[32];
    hm_str_t          full_name;
    hm_str_t          date_of_birth;
    hm_role_t         role;
    uint32_t          password_version;
    hm_str_t          otp;
    unsigned          enrolled;          /* second factors: HM_AMR_* */
    hm_user_keys_t   *keys;              /* of a new account */
    u_char           *wrapped;           /* DEK, index key, commitment */
    hm_str_t          sealed_email;
    hm_str_t          sealed_name;
    hm_str_t          sealed_born;
    ngx_uint_t        nconsents;
    hm_str_t          consents[AUTH_CONSENTS];
    unsigned          fingerprint:1;
    unsigned          known:1;
    unsigned          active:1;
} auth_t;


static const char  *auth_purposes[AUTH_CONSENTS] = {
    "data_processing", "ai_external", "research", "notify_email",
    "notify_sms", "notify_push"
};


static ngx_hm_rc_t auth_register_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_register_hash(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_register_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_register_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_register_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_ask_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_ask_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_login_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_login_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_login_verify(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_login_verified(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_login_open(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_me_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t auth_me_done(ngx_hm_ctx_t *hm);

static void auth_consents_member(ngx_hm_ctx_t *hm, auth_t *auth);
static ngx_int_t auth_keys_make(ngx_hm_ctx_t *hm, auth_t *auth);
static ngx_int_t auth_register_seal(ngx_hm_ctx_t *hm, auth_t *auth);
static ngx_int_t auth_seal(ngx_hm_ctx_t *hm, const unsigned char *dek,
    uint32_t version, const char *table, const char *column,
    const hm_uuid_t *row, const hm_uuid_t *owner, hm_str_t text,
    hm_str_t *out);


const ngx_hm_step_pt  ngx_hm_auth_register[] = {
    ngx_hm_json_body, auth_register_read, auth_register_hash,
    auth_register_send, auth_register_done, NULL
};

const ngx_hm_step_pt  ngx_hm_auth_login[] = {
    ngx_hm_json_body, auth_login_read, auth_login_look, auth_login_verify,
    auth_login_verified, auth_login_open, NULL
};

const ngx_hm_step_pt  ngx_hm_auth_me[] = {
    ngx_hm_step_keys, auth_me_send, auth_me_done, NULL
};

static const ngx_hm_step_pt  auth_register_ask[] = {
    auth_register_hash, auth_ask_send, auth_ask_done, NULL
};


/* Bodies */


static void
auth_consents_member(ngx_hm_ctx_t *hm, auth_t *auth)
{
    size_t       i, n;
    json_t      *list, *j;

    /* using the service at all is consent to it (accept_terms) */

    auth->consents[auth->nconsents++] = HM_STR("data_processing");

    list = json_object_get(hm->json, "consents");

    if (list == NULL || json_is_null(list)) {
        return;
    }

    if (!json_is_array(list)) {
        hm_fault_add(hm->faults, HM_STR(""), "consents", HM_FAULT_TYPE,
                     "a list of purposes");
        return;
    }

    json_array_foreach(list, i, j) {
        for (n = 0; n < AUTH_CONSENTS; n++) {
            if (json_is_string(j)
                && ngx_strcmp(json_string_value(j), auth_purposes[n]) == 0)
            {
                break;
            }
        }

        if (n == AUTH_CONSENTS) {
            hm_fault_add(hm->faults, HM_STR("/consents"),
                         (char *) ngx_hm_printf(hm, "%zu", i).data,
                         HM_FAULT_ENUM, "not a purpose of consent");

        } else if (n != 0 && auth->nconsents < AUTH_CONSENTS) {
            auth->consents[auth->nconsents].data =
                                             (u_char *) auth_purposes[n];
            auth->consents[auth->nconsents++].len =
                                             ngx_strlen(auth_purposes[n]);
        }
    }
}


/* Register */


static ngx_hm_rc_t
auth_register_read(ngx_hm_ctx_t *hm)
{
    auth_t      *auth;
    json_t      *terms;
    int32_t      days;
    hm_str_t     password;
    ngx_hm_rc_t  rc;

    auth = ngx_hm_pcalloc(hm, sizeof(auth_t));
    if (auth == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = auth;

    if (hm->conf->registration == NGX_HM_REGISTER_INVITE) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_ACCESS_DENIED,
                                  "an administrator invites people here");
    }

    ngx_hm_form_members(hm, "email password full_name date_of_birth "
                            "accept_terms consents fingerprint");

    if (json_is_object(hm->json)) {
        auth->email = ngx_hm_form_text(hm, "email", 3, 254, 1);
        password = ngx_hm_form_text(hm, "password", 0, 4096, 1);
        auth->full_name = ngx_hm_form_text(hm, "full_name", 1, 200, 1);
        auth->date_of_birth = ngx_hm_form_text(hm, "date_of_birth", 0, 200, 0);
        auth->fingerprint = ngx_hm_form_fingerprint(hm) != 0;
        auth_consents_member(hm, auth);

        terms = json_object_get(hm->json, "accept_terms");

        if (!json_is_true(terms)) {
            hm_fault_add(hm->faults, HM_STR(""), "accept_terms",
                         terms == NULL || json_is_null(terms)
                         ? HM_FAULT_REQUIRED
                         : json_is_boolean(terms) ? HM_FAULT_ENUM
                                                  : HM_FAULT_TYPE,
                         "must be true");
        }

        if (auth->date_of_birth.data != NULL) {
            if (hm_date_parse(&days, auth->date_of_birth) != HM_OK) {
                hm_fault_add(hm->faults, HM_STR(""), "date_of_birth",
                             HM_FAULT_FORMAT, "a date, as 1980-03-01");

            } else if ((int64_t) days * 86400 * HM_USEC > hm->now) {
                hm_fault_add(hm->faults, HM_STR(""), "date_of_birth",
                             HM_FAULT_FUTURE, "not in the future");
            }
        }

        if (auth->email.data != NULL) {
            rc = ngx_hm_form_email(hm, auth->email, &auth->email_normal,
                                   auth->email_index);

            if (rc == NGX_HM_DONE) {
                return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
            }

            if (rc == NGX_HM_FAIL) {
                hm_fault_add(hm->faults, HM_STR(""), "email",
                             HM_FAULT_FORMAT, "an email address");
            }
        }

        if (password.data != NULL) {
            hm_password_check(hm->faults, password,
                              auth->email.data != NULL ? auth->email
                                                       : HM_STR(""));
            auth->kdf.password_len = password.len;

            if (password.len <= sizeof(auth->kdf.password)) {
                ngx_memcpy(auth->kdf.password, password.data, password.len);
            }
        }
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (hm->conf->registration == NGX_HM_REGISTER_VERIFIED) {
        return ngx_hm_goto(hm, auth_register_ask);
    }

    if (auth->fingerprint && hm->plain) {
        return ngx_hm_fail(hm, HM_PROBLEM_FINGERPRINT_NEEDS_TLS);
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
auth_register_hash(ngx_hm_ctx_t *hm)
{
    auth_t  *auth = hm->data;

    switch (ngx_hm_kdf(hm, &auth->kdf)) {
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


static ngx_int_t
auth_keys_make(ngx_hm_ctx_t *hm, auth_t *auth)
{
    hm_user_keys_t  *keys;

    /* in the arena, which is wiped: they live for this one request */

    keys = ngx_hm_pcalloc(hm, sizeof(hm_user_keys_t));
    if (keys == NULL) {
        return NGX_ERROR;
    }

    keys->user = auth->user;
    keys->active = 1;
    keys->nversions = 1;
    keys->version[0] = 1;
    auth->keys = keys;

    return hm_random(keys->dek[0], HM_KEY_LEN) == HM_OK
           && hm_random(keys->index_key, HM_KEY_LEN) == HM_OK
           ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
auth_seal(ngx_hm_ctx_t *hm, const unsigned char *dek, uint32_t version,
    const char *table, const char *column, const hm_uuid_t *row,
    const hm_uuid_t *owner, hm_str_t text, hm_str_t *out)
{
    hm_buf_t    b;
    hm_str_t    json;
    hm_place_t  place;

    hm_buf_init(&b, &hm->mem, text.len + 16);
    hm_json_text(&b, text);

    json.data = b.start;
    json.len = hm_buf_len(&b);

    place.table = table;
    place.column = column;
    place.row = *row;
    place.owner = *owner;

    out->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    if (b.failed || out->data == NULL
        || hm_seal(out->data, &out->len, dek, version, &place, json)
           != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* Id, keys and sealed values of the person to be. */
static ngx_int_t
auth_register_seal(ngx_hm_ctx_t *hm, auth_t *auth)
{
    u_char               *wrapped;
    const unsigned char  *dek;

    wrapped = ngx_hm_palloc(hm, 2 * HM_WRAPPED_LEN + HM_COMMIT_LEN);
    auth->wrapped = wrapped;
    auth->role = HM_ROLE_PATIENT;

    if (wrapped == NULL || hm_uuid7(&auth->user, hm->now) != HM_OK
        || auth_keys_make(hm, auth) != NGX_OK)
    {
        return NGX_ERROR;
    }

    dek = auth->keys->dek[0];

    return hm_kek_wrap(hm->conf->kek, wrapped, "dek", 1, &auth->user, dek)
           == HM_OK
           && hm_kek_wrap(hm->conf->kek, wrapped + HM_WRAPPED_LEN, "index",
                          1, &auth->user, auth->keys->index_key) == HM_OK
           && hm_commitment(wrapped + 2 * HM_WRAPPED_LEN, dek) == HM_OK
           && auth_seal(hm, dek, 1, "users", "email", &auth->user,
                        &auth->user, auth->email, &auth->sealed_email)
              == NGX_OK
           && auth_seal(hm, dek, 1, "users", "full_name", &auth->user,
                        &auth->user, auth->full_name, &auth->sealed_name)
              == NGX_OK
           && (auth->date_of_birth.data == NULL
               || auth_seal(hm, dek, 1, "users", "date_of_birth",
                            &auth->user, &auth->user, auth->date_of_birth,
                            &auth->sealed_born) == NGX_OK)
           ? NGX_OK : NGX_ERROR;
}


static ngx_hm_rc_t
auth_register_send(ngx_hm_ctx_t *hm)
{
    u_char     *wrapped, *p;
    auth_t     *auth = hm->data;
    hm_str_t    client, ids[AUTH_CONSENTS], hash;
    ngx_uint_t  i;
    hm_uuid_t  *id;

    if (auth->kdf.rc != HM_OK || auth_register_seal(hm, auth) != NGX_OK
        || ngx_hm_session_begin(hm, &auth->user, auth->role, HM_AMR_PWD,
                                auth->fingerprint) == NULL
        || ngx_hm_session_client(hm, auth->keys->dek[0], 1, &client)
           != NGX_OK
        || ngx_hm_device_make(hm, &auth->user, 1) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    wrapped = auth->wrapped;
    hash.data = (u_char *) auth->kdf.hash;
    hash.len = ngx_strlen(auth->kdf.hash);

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_REGISTER);
    hm->seg.actor = auth->user;
    ngx_hm_seg_uuid(&hm->seg, &auth->user);
    ngx_hm_seg_str(&hm->seg, auth->sealed_email);
    ngx_hm_seg_add(&hm->seg, auth->email_index, 32);
    ngx_hm_seg_str(&hm->seg, hash);
    ngx_hm_seg_str(&hm->seg, auth->sealed_name);
    ngx_hm_seg_str(&hm->seg, auth->sealed_born);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_add(&hm->seg, wrapped, HM_WRAPPED_LEN);
    ngx_hm_seg_add(&hm->seg, wrapped + 2 * HM_WRAPPED_LEN, HM_COMMIT_LEN);
    ngx_hm_seg_i32(hm, &hm->seg, hm_kek_current(hm->conf->kek));
    ngx_hm_seg_add(&hm->seg, wrapped + HM_WRAPPED_LEN, HM_WRAPPED_LEN);
    ngx_hm_seg_uuid(&hm->seg, &hm->session->id);
    ngx_hm_seg_str(&hm->seg, client);

    p = ngx_hm_palloc(hm, 1);
    id = ngx_hm_palloc(hm, AUTH_CONSENTS * sizeof(hm_uuid_t));

    if (p == NULL || id == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    *p = auth->fingerprint;
    ngx_hm_seg_add(&hm->seg, p, 1);
    ngx_hm_seg_time(hm, &hm->seg, hm->session->expires);

    for (i = 0; i < auth->nconsents; i++) {
        (void) hm_uuid7(&id[i], hm->now);
        ids[i].data = id[i].b;
        ids[i].len = 16;
    }

    ngx_hm_seg_array(hm, 25, auth->nconsents, auth->consents);
    ngx_hm_seg_array(hm, 2950, auth->nconsents, ids);

    if (ngx_hm_session_audit(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_uuid_or_null(&hm->seg, &hm->device.id);

    return ngx_hm_seg_wait(hm);
}


/*
 * Under `verified`: one insert and a mail, whoever has the address.  Nothing
 * is asked of the accounts here, so that neither body nor time tells.
 */
static ngx_hm_rc_t
auth_ask_send(ngx_hm_ctx_t *hm)
{
    auth_t    *auth = hm->data;
    hm_str_t   hash;

    if (auth->kdf.rc != HM_OK || auth_register_seal(hm, auth) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_wipe(auth->keys, sizeof(hm_user_keys_t));

    hash.data = (u_char *) auth->kdf.hash;
    hash.len = ngx_strlen(auth->kdf.hash);

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_REGISTER_ASK);
    hm->seg.actor = auth->user;
    ngx_hm_seg_uuid(&hm->seg, &auth->user);
    ngx_hm_seg_str(&hm->seg, auth->sealed_email);
    ngx_hm_seg_add(&hm->seg, auth->email_index, 32);
    ngx_hm_seg_str(&hm->seg, hash);
    ngx_hm_seg_str(&hm->seg, auth->sealed_name);
    ngx_hm_seg_str(&hm->seg, auth->sealed_born);
    ngx_hm_seg_add(&hm->seg, auth->wrapped, HM_WRAPPED_LEN);
    ngx_hm_seg_add(&hm->seg, auth->wrapped + 2 * HM_WRAPPED_LEN,
                   HM_COMMIT_LEN);
    ngx_hm_seg_i32(hm, &hm->seg, hm_kek_current(hm->conf->kek));
    ngx_hm_seg_add(&hm->seg, auth->wrapped + HM_WRAPPED_LEN, HM_WRAPPED_LEN);
    ngx_hm_seg_array(hm, 25, auth->nconsents, auth->consents);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
auth_ask_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_ACCEPTED, 2);
    hm->headers.personal = 1;
    hm_buf_lit(&hm->out, "{}");

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
auth_register_done(ngx_hm_ctx_t *hm)
{
    auth_t        *auth = hm->data;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);

    if (p == HM_PROBLEM_NONE && PQgetisnull(hm->seg.res, 0, 0)) {
        p = HM_PROBLEM_EMAIL_TAKEN;
    }

    hm_wipe(auth->keys, sizeof(hm_user_keys_t));

    return p == HM_PROBLEM_NONE ? auth_register_reply(hm)
                                : ngx_hm_fail(hm, p);
}


static ngx_hm_rc_t
auth_register_reply(ngx_hm_ctx_t *hm)
{
    auth_t    *auth = hm->data;
    hm_buf_t   b;
    hm_str_t   user;

    hm_buf_init(&b, &hm->mem, 512);
    hm_buf_lit(&b, "{\"id\":");
    hm_json_uuid(&b, &auth->user);
    hm_buf_lit(&b, ",\"email\":");
    hm_json_text(&b, auth->email);
    hm_buf_lit(&b, ",\"email_verified\":false,\"full_name\":");
    hm_json_text(&b, auth->full_name);
    hm_buf_lit(&b, ",\"role\":\"patient\",\"is_active\":true,\"mfa\":[],"
                   "\"phone\":null,\"address\":null,\"date_of_birth\":");
    hm_json_text_or_null(&b, auth->date_of_birth);
    hm_buf_lit(&b, ",\"created_at\":");
    hm_json_time(&b, hm->now);
    hm_buf_lit(&b, ",\"updated_at\":");
    hm_json_time(&b, hm->now);
    hm_buf_lit(&b, ",\"last_login_at\":");
    hm_json_time(&b, hm->now);
    hm_buf_lit(&b, "}");

    user.data = b.start;
    user.len = b.failed ? 0 : hm_buf_len(&b);

    hm->headers.location = HM_STR("/api/v1/users/me");

    return ngx_hm_session_reply(hm, NGX_HTTP_CREATED, user);
}


/* Log in */


static ngx_hm_rc_t
auth_login_read(ngx_hm_ctx_t *hm)
{
    auth_t        *auth;
    hm_str_t       password;

    auth = ngx_hm_pcalloc(hm, sizeof(auth_t));
    if (auth == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = auth;

    ngx_hm_form_members(hm, "email password otp fingerprint");

    if (json_is_object(hm->json)) {
        auth->email = ngx_hm_form_text(hm, "email", 0, 4096, 1);
        password = ngx_hm_form_text(hm, "password", 0, 4096, 1);
        auth->otp = ngx_hm_form_text(hm, "otp", 0, 32, 0);
        auth->fingerprint = ngx_hm_form_fingerprint(hm) != 0;

        if (password.data != NULL) {
            auth->kdf.password_len = ngx_min(password.len,
                                             sizeof(auth->kdf.password));
            ngx_memcpy(auth->kdf.password, password.data,
                       auth->kdf.password_len);

            if (password.len > sizeof(auth->kdf.password)) {
                auth->kdf.dummy = 1;
            }
        }
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (auth->fingerprint && hm->plain) {
        return ngx_hm_fail(hm, HM_PROBLEM_FINGERPRINT_NEEDS_TLS);
    }

    /* what is no address belongs to nobody, which takes as long */

    if (ngx_hm_form_email(hm, auth->email, &auth->email_normal,
                          auth->email_index) == NGX_HM_DONE)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_device_read(hm);

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
auth_login_look(ngx_hm_ctx_t *hm)
{
    auth_t  *auth = hm->data;

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_LOGIN_LOOKUP);
    ngx_hm_seg_add(&hm->seg, auth->email_index, 32);
    ngx_hm_seg_uuid_or_null(&hm->seg, &hm->device.user);
    ngx_hm_seg_uuid_or_null(&hm->seg, &hm->device.id);

    return ngx_hm_seg_wait(hm);
}


/*
 * One row, whether or not there is such an account: id, password_hash, role,
 * is_active, the index asked for, factors, password_version, and whether the
 * trust in the device has ended.  The try is taken before the hash.
 */
static ngx_hm_rc_t
auth_login_verify(ngx_hm_ctx_t *hm)
{
    auth_t        *auth = hm->data;
    PGresult      *r;
    hm_str_t       hash, asked;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    auth->kdf.verify = 1;

    if (!PQgetisnull(r, 0, 0)) {
        asked = hm_row_str(r, 0, 4);

        if (asked.len != 32 || !hm_equal_ct(asked.data, auth->email_index,
                                            32))
        {
            return ngx_hm_leak(hm, "users");
        }

        auth->user = hm_row_uuid(r, 0, 0);
        auth->role = hm_role_of(hm_row_str(r, 0, 2));
        auth->active = hm_row_bool(r, 0, 3);
        auth->enrolled = hm_row_u32(r, 0, 5);
        auth->password_version = hm_row_u32(r, 0, 6);
        auth->known = 1;

        ngx_hm_device_judge(hm, &auth->user, auth->password_version,
                            hm_row_bool(r, 0, 7));

        hash = hm_row_str(r, 0, 1);

        if (hash.len < sizeof(auth->kdf.hash)) {
            ngx_memcpy(auth->kdf.hash, hash.data, hash.len);
            auth->kdf.hash[hash.len] = '\0';
        }

    } else {
        auth->kdf.dummy = 1;
    }

    p = ngx_hm_try_take(hm, auth->email_index);

    return p == HM_PROBLEM_NONE ? auth_register_hash(hm)
                                : ngx_hm_fail(hm, p);
}


static ngx_hm_rc_t
auth_login_verified(ngx_hm_ctx_t *hm)
{
    auth_t  *auth = hm->data;

    if (auth->kdf.rc == HM_ERROR) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (auth->kdf.rc != HM_OK || !auth->known || !auth->active) {
        return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
    }

    if (ngx_hm_session_begin(hm, &auth->user, auth->role, HM_AMR_PWD,
                             auth->fingerprint) == NULL)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->session->password_version = auth->password_version;
    ngx_hm_session_enter(hm);

    if (!(auth->enrolled & HM_AMR_OTP)) {
        return NGX_HM_NEXT;
    }

    if (auth->otp.data == NULL) {
        ngx_hm_try_back(hm);             /* nothing was guessed */
        return ngx_hm_fail(hm, HM_PROBLEM_MFA_REQUIRED);
    }

    hm->session->amr |= HM_AMR_OTP;

    return ngx_hm_otp(hm, auth->otp);
}


/*
 * Only now was the try a good one, and the device one to know: a password
 * alone gives no wrong code back.
 */
static ngx_hm_rc_t
auth_login_open(ngx_hm_ctx_t *hm)
{
    auth_t  *auth = hm->data;

    ngx_hm_try_right(hm);

    return ngx_hm_device_make(hm, &auth->user, auth->password_version)
           == NGX_OK ? ngx_hm_goto(hm, ngx_hm_session_open)
                     : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


/* Who am I */


static ngx_hm_rc_t
auth_me_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_ME);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
auth_me_done(ngx_hm_ctx_t *hm)
{
    hm_uuid_t      id;
    ngx_hm_rc_t    rc;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    id = hm_row_uuid(hm->seg.res, 0, NGX_HM_U_ID);

    if (ngx_hm_owned(hm, &id, "users") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    hm->audit.row.first = hm->subject;
    hm->audit.row.items = 1;

    if (ngx_hm_etag(hm, &hm->subject,
                    hm_row_u32(hm->seg.res, 0, NGX_HM_U_VERSION),
                    &hm->headers.etag) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);

    rc = ngx_hm_user_row(hm, &hm->out, hm->seg.res);

    return rc == NGX_HM_NEXT ? ngx_hm_if_none_match(hm) : rc;
}
