/*
 * api_users: my account changed by me, everybody's by an administrator.
 *
 * PATCH users/me merges name, phone, address and date of birth.  The row has
 * one key version for all its sealed columns, so all of them are opened and
 * sealed anew; the write holds the version that was read and the key that
 * sealed, and starts again when either has moved.
 *
 * An administrator sees accounts, not records: the keys that open an
 * account's few columns come from hm_staff_keys(), which gives nobody a row
 * of health data.  A list of accounts leaves an audit row for each of them.
 *
 * Role and is_active are changed for others only; that own ones cannot be is
 * said here, in the statement, and by a trigger of the table.  What follows
 * from a change (tokens refused, sessions ended) are triggers too; who is no
 * doctor any more loses his relationships in the same statement.
 *
 * POST /users makes an account with its keys, like registering does.
 * Without a password in the body nobody knows the one that is set, and the
 * person is mailed the way to choose one; the address counts as verified
 * only when the person has followed a link, whoever made the account.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_people.h"
#include "../ngx_hm_session.h"


#define USER_SEALED   5
#define USER_RACES    8


typedef struct {
    ngx_hm_kdf_t      kdf;               /* first: ngx_hm_kdf_done() */
    hm_uuid_t         id;
    hm_str_t          email;
    unsigned char     email_index[32];
    hm_str_t          full_name;
    hm_str_t          role;
    const char       *mail;
    hm_user_keys_t   *keys;              /* of the new account */
} user_new_t;


typedef struct {
    hm_str_t          role;
    ngx_int_t         is_active;
    uint32_t          version;
} user_change_t;


/* What is sealed of an account, in the order of ME_SET's parameters. */
static const struct {
    const char       *name;
    int               column;
    size_t            max;               /* 0: not changed here */
} user_sealed[USER_SEALED] = {
    { "email", NGX_HM_U_EMAIL, 0 }, { "full_name", NGX_HM_U_NAME, 200 },
    { "phone", NGX_HM_U_PHONE, 200 }, { "address", NGX_HM_U_ADDRESS, 200 },
    { "date_of_birth", NGX_HM_U_BORN, 10 }
};


static ngx_hm_rc_t me_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t me_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t me_change(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t me_changed(ngx_hm_ctx_t *hm);
static ngx_int_t me_member(ngx_hm_ctx_t *hm, ngx_uint_t i, hm_str_t *sealed);
static void me_born(ngx_hm_ctx_t *hm, hm_str_t born);

static ngx_hm_rc_t user_list_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_list_row(ngx_hm_ctx_t *hm, const PGresult *r,
    int row, hm_buf_t *b);
static ngx_hm_rc_t user_person(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_keys(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_found(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_change_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_change(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_changed(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_new_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_new_hash(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_new_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t user_new_done(ngx_hm_ctx_t *hm);
static void user_new_password(ngx_hm_ctx_t *hm, user_new_t *u);
static ngx_int_t user_new_keys(ngx_hm_ctx_t *hm, user_new_t *u,
    u_char *wrapped);
static ngx_int_t user_new_seal(ngx_hm_ctx_t *hm, user_new_t *u,
    const char *column, hm_str_t text, hm_str_t *out);


static const ngx_hm_rows_t  user_rows = {
    NGX_HM_SQL_USERS_DESC, NGX_HM_SQL_USERS_ASC, NGX_HM_LANE_SLOW, 0,
    NGX_HM_ROWS_STAFF, user_list_row
};


const ngx_hm_step_pt  ngx_hm_user_me_change[] = {
    ngx_hm_json_body, me_read, ngx_hm_step_keys, me_ask, me_change,
    me_changed, NULL
};

static const ngx_hm_step_pt  me_again[] = {
    ngx_hm_step_keys, me_ask, me_change, me_changed, NULL
};

const ngx_hm_step_pt  ngx_hm_user_list[] = {
    user_list_read, ngx_hm_rows_send, ngx_hm_rows_got, ngx_hm_rows_told,
    ngx_hm_rows_write, NULL
};

const ngx_hm_step_pt  ngx_hm_user_get[] = {
    user_person, user_keys, user_ask, user_found, NULL
};

const ngx_hm_step_pt  ngx_hm_user_change[] = {
    ngx_hm_json_body, user_person, user_change_read, user_ask, user_change,
    user_changed, user_keys, user_ask, user_found, NULL
};

const ngx_hm_step_pt  ngx_hm_user_new[] = {
    ngx_hm_json_body, user_new_read, ngx_hm_step_keys,
    ngx_hm_step_idempotent, user_new_hash, user_new_send, user_new_done,
    NULL
};


/* My account */


static ngx_hm_rc_t
me_read(ngx_hm_ctx_t *hm)
{
    json_t      *j;
    hm_str_t     text;
    ngx_uint_t   i;
    const char  *name;

    static const char  *fixed[] = {
        "id", "email", "email_verified", "role", "is_active", "mfa",
        "created_at", "updated_at", "last_login_at", NULL
    };

    for (i = 0; json_is_object(hm->json) && fixed[i] != NULL; i++) {
        if (json_object_get(hm->json, fixed[i]) != NULL) {
            hm_fault_add(hm->faults, HM_STR(""), fixed[i],
                         HM_FAULT_READ_ONLY, "not changed here");
        }
    }

    ngx_hm_form_members(hm, "full_name phone address date_of_birth id email"
                            " email_verified role is_active mfa created_at"
                            " updated_at last_login_at");

    if (!json_is_object(hm->json)) {
        return ngx_hm_form_done(hm);
    }

    json_object_foreach(hm->json, name, j) {
        if (json_is_null(j) && ngx_strcmp(name, "full_name") == 0) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_REQUIRED,
                         "must be given");
        }
    }

    for (i = 0; i < USER_SEALED; i++) {
        if (user_sealed[i].max == 0) {
            continue;
        }

        text = ngx_hm_form_text(hm, user_sealed[i].name, 1,
                                user_sealed[i].max, 0);

        if (user_sealed[i].column == NGX_HM_U_BORN && text.data != NULL) {
            me_born(hm, text);
        }
    }

    return ngx_hm_form_done(hm);
}


static void
me_born(ngx_hm_ctx_t *hm, hm_str_t born)
{
    int32_t  days;

    if (hm_date_parse(&days, born) != HM_OK) {
        hm_fault_add(hm->faults, HM_STR(""), "date_of_birth",
                     HM_FAULT_FORMAT, "a date, as 1980-03-01");

    } else if ((int64_t) days * 86400 * HM_USEC > hm->now) {
        hm_fault_add(hm->faults, HM_STR(""), "date_of_birth",
                     HM_FAULT_FUTURE, "not in the future");
    }
}


static ngx_hm_rc_t
me_ask(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_ME);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
me_change(ngx_hm_ctx_t *hm)
{
    hm_str_t       sealed[USER_SEALED];
    uint32_t       version;
    hm_uuid_t      id;
    ngx_uint_t     i;
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
    version = hm_row_u32(hm->seg.res, 0, NGX_HM_U_VERSION);

    if (ngx_hm_owned(hm, &id, "users") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    rc = ngx_hm_if_match(hm, &id, version);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    for (i = 0; i < USER_SEALED; i++) {
        if (me_member(hm, i, &sealed[i]) != NGX_OK) {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }
    }

    rc = ngx_hm_write_start(hm, NGX_HM_SQL_ME_SET);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_i32(hm, &hm->seg, version);

    for (i = 0; i < USER_SEALED; i++) {
        ngx_hm_seg_str(&hm->seg, sealed[i]);
    }

    ngx_hm_seg_i32(hm, &hm->seg, ngx_hm_seal_version(hm));

    return ngx_hm_seg_wait(hm);
}


/* A column as it is to be: of the body, or as it was, sealed anew. */
static ngx_int_t
me_member(ngx_hm_ctx_t *hm, ngx_uint_t i, hm_str_t *sealed)
{
    json_t      *j;
    hm_buf_t     b;
    hm_str_t     json, text;
    const char  *name;

    name = user_sealed[i].name;
    j = user_sealed[i].max != 0 ? json_object_get(hm->json, name) : NULL;

    if (j == NULL) {
        if (ngx_hm_open_json(hm, "users", name, &hm->subject,
                             hm_row_str(hm->seg.res, 0,
                                        user_sealed[i].column),
                             &json) != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_hm_seal_json(hm, "users", name, &hm->subject, json,
                                sealed);
    }

    if (json_is_null(j)) {
        *sealed = hm_null_str;
        return NGX_OK;
    }

    text.data = (u_char *) json_string_value(j);
    text.len = json_string_length(j);

    hm_buf_init(&b, &hm->mem, text.len + 16);
    hm_json_text(&b, text);
    json.data = b.start;
    json.len = hm_buf_len(&b);

    return b.failed ? NGX_ERROR
                    : ngx_hm_seal_json(hm, "users", name, &hm->subject, json,
                                       sealed);
}


static ngx_hm_rc_t
me_changed(ngx_hm_ctx_t *hm)
{
    PGresult      *r;
    ngx_hm_rc_t    rc;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) == 0) {
        /* somebody was faster, or the key has turned: from what is now */

        hm->audited = 0;

        if (hm->tries++ >= USER_RACES) {
            hm->headers.retry_after = 1;
            return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
        }

        ngx_hm_keys_drop(&hm->subject);

        return ngx_hm_goto(hm, me_again);
    }

    if (ngx_hm_etag(hm, &hm->subject, hm_row_u32(r, 0, NGX_HM_U_VERSION),
                    &hm->headers.etag) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);

    rc = ngx_hm_user_row(hm, &hm->out, r);

    return rc == NGX_HM_NEXT ? NGX_HM_DONE : rc;
}


/* Accounts, for administrators */


static ngx_hm_rc_t
user_list_read(ngx_hm_ctx_t *hm)
{
    return ngx_hm_rows_read(hm, &user_rows);
}


static ngx_hm_rc_t
user_list_row(ngx_hm_ctx_t *hm, const PGresult *r, int row, hm_buf_t *b)
{
    return ngx_hm_user_row_at(hm, b, r, row, NGX_HM_ROW_FIRST);
}


static ngx_hm_rc_t
user_person(ngx_hm_ctx_t *hm)
{
    if (hm_uuid_eq(&hm->path_id, &hm_nil_uuid)) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    hm->subject = hm->path_id;
    hm->foreign = !hm_uuid_eq(&hm->subject, &hm->who.sub);
    hm->audit.row.first = hm->path_id;

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
user_keys(ngx_hm_ctx_t *hm)
{
    return hm->foreign ? ngx_hm_step_staff_keys(hm) : ngx_hm_step_keys(hm);
}


static ngx_hm_rc_t
user_ask(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_USER_GET);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
user_found(ngx_hm_ctx_t *hm)
{
    PGresult      *r;
    ngx_hm_rc_t    rc;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    if (ngx_hm_etag(hm, &hm->subject, hm_row_u32(r, 0, NGX_HM_U_VERSION),
                    &hm->headers.etag) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->audit.row.items = 1;
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);

    rc = ngx_hm_user_row(hm, &hm->out, r);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    return hm->method == NGX_HTTP_GET ? ngx_hm_if_none_match(hm)
                                      : NGX_HM_DONE;
}


static ngx_hm_rc_t
user_change_read(ngx_hm_ctx_t *hm)
{
    json_t         *j;
    const char     *name;
    user_change_t  *change;

    change = ngx_hm_pcalloc(hm, sizeof(user_change_t));
    if (change == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = change;

    ngx_hm_form_members(hm, "role is_active");

    if (!json_is_object(hm->json)) {
        return ngx_hm_form_done(hm);
    }

    json_object_foreach(hm->json, name, j) {
        if (json_is_null(j)) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_REQUIRED,
                         "must be given");
        }
    }

    change->role = ngx_hm_form_word(hm, "role",
                                    "patient doctor admin researcher", 0);
    change->is_active = ngx_hm_form_bool(hm, "is_active", 0);

    if (hm->faults->n != 0) {
        return ngx_hm_form_done(hm);
    }

    if (!hm->foreign) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_ACCESS_DENIED,
                                  "another administrator changes yours");
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
user_change(ngx_hm_ctx_t *hm)
{
    u_char         *active;
    ngx_hm_rc_t     rc;
    hm_problem_t    p;
    user_change_t  *change = hm->data;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    change->version = hm_row_u32(hm->seg.res, 0, NGX_HM_U_VERSION);

    rc = ngx_hm_if_match(hm, &hm->subject, change->version);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    active = ngx_hm_palloc(hm, 1);
    rc = ngx_hm_write_start(hm, NGX_HM_SQL_USER_SET);

    if (active == NULL || rc != NGX_HM_NEXT) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_i32(hm, &hm->seg, change->version);
    ngx_hm_seg_str(&hm->seg, change->role);

    if (change->is_active < 0) {
        ngx_hm_seg_null(&hm->seg);
    } else {
        *active = change->is_active == 1;
        ngx_hm_seg_add(&hm->seg, active, 1);
    }

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
user_changed(ngx_hm_ctx_t *hm)
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

    return NGX_HM_NEXT;
}


/* A new account */


static ngx_hm_rc_t
user_new_read(ngx_hm_ctx_t *hm)
{
    hm_str_t     normal;
    user_new_t  *u;

    u = ngx_hm_pcalloc(hm, sizeof(user_new_t));

    if (u == NULL || hm_uuid7(&u->id, hm->now) != HM_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = u;

    ngx_hm_form_members(hm, "email full_name role password");

    u->email = ngx_hm_form_text(hm, "email", 3, 254, 1);
    u->full_name = ngx_hm_form_text(hm, "full_name", 1, 200, 1);
    u->role = ngx_hm_form_word(hm, "role",
                               "patient doctor admin researcher", 0);

    if (u->role.data == NULL) {
        u->role = HM_STR("patient");
    }

    if (u->email.data != NULL) {
        switch (ngx_hm_form_email(hm, u->email, &normal, u->email_index)) {
        case NGX_HM_DONE:
            return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
        case NGX_HM_FAIL:
            hm_fault_add(hm->faults, HM_STR(""), "email", HM_FAULT_FORMAT,
                         "an email address");
            break;
        default:
            break;
        }
    }

    user_new_password(hm, u);

    return ngx_hm_form_done(hm);
}


/* The one that was sent, or one that nobody knows. */
static void
user_new_password(ngx_hm_ctx_t *hm, user_new_t *u)
{
    hm_str_t       password;
    unsigned char  raw[24];

    password = ngx_hm_form_text(hm, "password", 0, 4096, 0);

    if (password.data == NULL) {
        u->mail = "invite";
        u->kdf.password_len = 48;

        if (hm_random(raw, 24) != HM_OK) {
            u->kdf.password_len = 0;     /* which is refused */
        }

        hm_hex((char *) u->kdf.password, raw, 24);
        hm_wipe(raw, 24);
        return;
    }

    u->mail = "verify";
    hm_password_check(hm->faults, password, u->email.data != NULL
                                            ? u->email : HM_STR(""));
    u->kdf.password_len = password.len;

    if (password.len <= sizeof(u->kdf.password)) {
        ngx_memcpy(u->kdf.password, password.data, password.len);
    }
}


static ngx_hm_rc_t
user_new_hash(ngx_hm_ctx_t *hm)
{
    user_new_t  *u = hm->data;

    if (u->kdf.password_len == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    switch (ngx_hm_kdf(hm, &u->kdf)) {
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
user_new_send(ngx_hm_ctx_t *hm)
{
    u_char       *wrapped;
    hm_str_t      email, name;
    user_new_t   *u = hm->data;
    ngx_hm_rc_t   rc;

    wrapped = ngx_hm_palloc(hm, 2 * HM_WRAPPED_LEN + HM_COMMIT_LEN);

    if (u->kdf.rc != HM_OK || wrapped == NULL
        || user_new_keys(hm, u, wrapped) != NGX_OK
        || user_new_seal(hm, u, "email", u->email, &email) != NGX_OK
        || user_new_seal(hm, u, "full_name", u->full_name, &name) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->subject = u->id;
    hm->foreign = 1;
    rc = ngx_hm_write_start(hm, NGX_HM_SQL_USER_ADD);
    hm->subject = hm->who.sub;
    hm->foreign = 0;

    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_uuid(&hm->seg, &u->id);
    ngx_hm_seg_str(&hm->seg, email);
    ngx_hm_seg_add(&hm->seg, u->email_index, 32);
    ngx_hm_seg_add(&hm->seg, u->kdf.hash, ngx_strlen(u->kdf.hash));
    ngx_hm_seg_str(&hm->seg, name);
    ngx_hm_seg_str(&hm->seg, u->role);
    ngx_hm_seg_add(&hm->seg, wrapped, HM_WRAPPED_LEN);
    ngx_hm_seg_add(&hm->seg, wrapped + 2 * HM_WRAPPED_LEN, HM_COMMIT_LEN);
    ngx_hm_seg_i32(hm, &hm->seg, hm_kek_current(hm->conf->kek));
    ngx_hm_seg_add(&hm->seg, wrapped + HM_WRAPPED_LEN, HM_WRAPPED_LEN);
    ngx_hm_seg_add(&hm->seg, u->mail, ngx_strlen(u->mail));

    return ngx_hm_seg_wait(hm);
}


static ngx_int_t
user_new_keys(ngx_hm_ctx_t *hm, user_new_t *u, u_char *wrapped)
{
    hm_user_keys_t  *keys;

    /* in the arena, which is wiped: they live for this one request */

    keys = ngx_hm_pcalloc(hm, sizeof(hm_user_keys_t));
    u->keys = keys;

    return keys != NULL
           && hm_random(keys->dek[0], HM_KEY_LEN) == HM_OK
           && hm_random(keys->index_key, HM_KEY_LEN) == HM_OK
           && hm_kek_wrap(hm->conf->kek, wrapped, "dek", 1, &u->id,
                          keys->dek[0]) == HM_OK
           && hm_kek_wrap(hm->conf->kek, wrapped + HM_WRAPPED_LEN, "index",
                          1, &u->id, keys->index_key) == HM_OK
           && hm_commitment(wrapped + 2 * HM_WRAPPED_LEN, keys->dek[0])
              == HM_OK
           ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
user_new_seal(ngx_hm_ctx_t *hm, user_new_t *u, const char *column,
    hm_str_t text, hm_str_t *out)
{
    hm_buf_t    b;
    hm_str_t    json;
    hm_place_t  place;

    hm_buf_init(&b, &hm->mem, text.len + 16);
    hm_json_text(&b, text);

    json.data = b.start;
    json.len = hm_buf_len(&b);

    place.table = "users";
    place.column = column;
    place.row = u->id;
    place.owner = u->id;

    out->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    return !b.failed && out->data != NULL
           && hm_seal(out->data, &out->len, u->keys->dek[0], 1, &place,
                      json) == HM_OK
           ? NGX_OK : NGX_ERROR;
}


static ngx_hm_rc_t
user_new_done(ngx_hm_ctx_t *hm)
{
    char           id[HM_UUID_TEXT];
    hm_buf_t      *b;
    user_new_t    *u = hm->data;
    hm_problem_t   p;

    hm_wipe(u->keys, sizeof(hm_user_keys_t));

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQgetisnull(hm->seg.res, 0, 0)) {
        hm->audited = 0;
        return ngx_hm_fail(hm, HM_PROBLEM_EMAIL_TAKEN);
    }

    if (ngx_hm_etag(hm, &u->id, 1, &hm->headers.etag) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_CREATED, 512);
    b = &hm->out;

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, &u->id);
    hm_buf_lit(b, ",\"email\":");
    hm_json_text(b, u->email);
    hm_buf_lit(b, ",\"email_verified\":false,\"full_name\":");
    hm_json_text(b, u->full_name);
    hm_buf_lit(b, ",\"role\":");
    hm_json_text(b, u->role);
    hm_buf_lit(b, ",\"is_active\":true,\"mfa\":[],\"phone\":null,"
                  "\"address\":null,\"date_of_birth\":null,"
                  "\"created_at\":");
    hm_json_time(b, hm->now);
    hm_buf_lit(b, ",\"updated_at\":");
    hm_json_time(b, hm->now);
    hm_buf_lit(b, ",\"last_login_at\":null}");

    hm_uuid_format(&u->id, id);
    hm->headers.location = ngx_hm_printf(hm, "/api/v1/users/%.*s",
                                         HM_UUID_TEXT, id);

    return b->failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                     : ngx_hm_idempotent_keep(hm, NGX_HM_DONE);
}
