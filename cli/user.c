/*
 * user: accounts made by an operator; `user create`.
 *
 * The account is verified from the start (the operator vouches for the
 * address), has its keys, its preferences and the consent without which the
 * service cannot work for it (data_processing).  All in one transaction, with
 * hm.actor set to the new account, so that the policies every other client
 * lives under hold here too.
 *
 * The password is checked as at registration and hashed before the
 * transaction begins: Argon2id takes tens of milliseconds.
 */

#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "hm_audit.h"
#include "hm_fault.h"
#include "hm_jwt.h"
#include "hm_password.h"
#include "hm_text.h"
#include "hm_time.h"
#include "hm_uuid.h"


static hm_rc_t hmc_account_row(hmc_db_t *db, const hmc_account_t *account,
    const hm_uuid_t *id, const hmc_keys_t *keys, hm_str_t index,
    const char *hash);
static hm_rc_t hmc_account_consents(hmc_db_t *db, const hm_uuid_t *id,
    bool all);


static hm_rc_t
hmc_user_error(hmc_db_t *db, const char *why)
{
    snprintf(db->error, sizeof(db->error), "%s", why);

    return HM_ERROR;
}


static hm_str_t
hmc_json_text(const char *s)
{
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, 256);
    hm_json_text(&b, hmc_str(s));

    return b.failed ? hm_null_str : (hm_str_t) { hm_buf_len(&b), b.start };
}


static hm_rc_t
hmc_email_index(hmc_db_t *db, const char *email, unsigned char index[32])
{
    hm_rc_t     rc;
    hm_str_t    normal;
    hmc_keys_t  system;

    if (hm_email_normal(&hm_heap, &normal, hmc_str(email)) != HM_OK) {
        return hmc_user_error(db, "--email is not an email address");
    }

    rc = hmc_keys_load(db, &hm_nil_uuid, &system);
    if (rc == HM_DECLINED) {
        return hmc_user_error(db, "there are no system keys yet: run "
                              "healthmate keys init");
    }

    if (rc != HM_OK) {
        return rc;
    }

    rc = hm_blind_index(index, system.index_key, "users", "email",
                        &hm_nil_uuid, normal);
    hm_wipe(&system, sizeof(system));

    return rc == HM_OK ? HM_OK : hmc_user_error(db, "cannot index the email");
}


hm_rc_t
hmc_account_find(hmc_db_t *db, const char *email, hm_uuid_t *id, char **hash)
{
    hm_rc_t         rc;
    PGresult       *result;
    hmc_params_t    p;
    unsigned char   index[32];

    if (hmc_email_index(db, email, index) != HM_OK) {
        return HM_ERROR;
    }

    p.n = 0;
    hmc_param_bytes(&p, (hm_str_t) { sizeof(index), index });

    result = hmc_db_query(db,
        "select id, password_hash from hm_login_lookup($1)", &p);
    if (result == NULL) {
        return HM_ERROR;
    }

    rc = HM_DECLINED;

    if (PQntuples(result) == 1 && !PQgetisnull(result, 0, 0)) {
        rc = hm_uuid_parse(id, hmc_str(PQgetvalue(result, 0, 0)));

        if (hash != NULL) {
            *hash = hmc_cstr(hmc_str(PQgetvalue(result, 0, 1)));
        }
    }

    PQclear(result);

    return rc;
}


hm_rc_t
hmc_account_create(hmc_db_t *db, const hmc_account_t *account, hm_uuid_t *id,
    hmc_keys_t *keys)
{
    char            hash[HM_PASSWORD_HASH_MAX];
    hmc_params_t    p;
    unsigned char   index[32];

    if (hmc_email_index(db, account->email, index) != HM_OK) {
        return HM_ERROR;
    }

    if (hm_password_hash(hash, hmc_str(account->password)) != HM_OK
        || hm_uuid7(id, hm_now()) != HM_OK)
    {
        return hmc_user_error(db, "cannot hash the password");
    }

    if (hmc_db_actor(db, id) != HM_OK
        || hmc_keys_create(db, id, keys) != HM_OK)
    {
        return HM_ERROR;
    }

    if (hmc_account_row(db, account, id, keys,
                        (hm_str_t) { sizeof(index), index }, hash)
        != HM_OK)
    {
        if (hmc_db_state(db, "23505")) {
            return hmc_user_error(db, "there is an account with that email");
        }

        return HM_ERROR;
    }

    p.n = 0;
    hmc_param_uuid(&p, id);

    if (hmc_db_exec(db, "insert into user_preferences (user_id) values ($1)",
                    &p)
        != HM_OK)
    {
        return HM_ERROR;
    }

    return hmc_account_consents(db, id, account->demo);
}


static hm_rc_t
hmc_account_row(hmc_db_t *db, const hmc_account_t *account,
    const hm_uuid_t *id, const hmc_keys_t *keys, hm_str_t index,
    const char *hash)
{
    hm_str_t      email, name;
    hmc_params_t  p;

    email = hmc_seal(keys, "users", "email", id, id,
                     hmc_json_text(account->email));
    name = hm_null_str;

    if (account->name != NULL) {
        name = hmc_seal(keys, "users", "full_name", id, id,
                        hmc_json_text(account->name));
    }

    if (email.data == NULL || (account->name != NULL && name.data == NULL)) {
        return hmc_user_error(db, "cannot seal the account");
    }

    p.n = 0;
    hmc_param_uuid(&p, id);
    hmc_param_bytes(&p, email);
    hmc_param_bytes(&p, index);
    hmc_param_text(&p, hash);
    hmc_param_bytes(&p, name);
    hmc_param_text(&p, account->role);
    hmc_param_int(&p, keys->version);

    return hmc_db_exec(db,
        "insert into users (id, email, email_index, email_index_version,"
        " password_hash, full_name, role, is_active, email_verified_at,"
        " dek_version, created_at, updated_at)"
        " values ($1, $2, $3, 1, $4, $5, $6, true, now(), $7, now(), now())",
        &p);
}


static hm_rc_t
hmc_account_consents(hmc_db_t *db, const hm_uuid_t *id, bool all)
{
    size_t         i;
    hm_uuid_t      row;
    hmc_params_t   p;

    static const char *const  purposes[] = {
        "data_processing", "ai_external", "research", "notify_email",
        "notify_sms", "notify_push", NULL
    };

    for (i = 0; purposes[i] != NULL && (all || i == 0); i++) {

        if (hm_uuid7(&row, hm_now()) != HM_OK) {
            return hmc_user_error(db, "no random numbers");
        }

        p.n = 0;
        hmc_param_uuid(&p, &row);
        hmc_param_uuid(&p, id);
        hmc_param_text(&p, purposes[i]);

        if (hmc_db_exec(db,
                "insert into consents (id, user_id, purpose, granted,"
                " created_at) values ($1, $2, $3, true, now())", &p)
            != HM_OK)
        {
            return HM_ERROR;
        }
    }

    return HM_OK;
}


static int
hmc_user_checked(const hmc_account_t *account)
{
    hm_str_t     name, normal;
    hm_faults_t  faults;

    if (hm_email_normal(&hm_heap, &normal, hmc_str(account->email)) != HM_OK) {
        return hmc_usage("--email is not an email address");
    }

    if (hm_role_of(hmc_str(account->role)) == HM_ROLE_NONE) {
        return hmc_usage("--role is patient, doctor, admin or researcher");
    }

    name = hmc_str(account->name);

    if (account->name != NULL
        && (name.len == 0 || !hm_utf8_valid(name) || !hm_text_clean(name)
            || hm_utf8_count(name) > 200))
    {
        return hmc_usage("--name is 1 to 200 characters of text");
    }

    hm_faults_init(&faults, &hm_heap);
    hm_password_check(&faults, hmc_str(account->password), normal);

    if (faults.n != 0) {
        return hmc_fail("the password cannot be used: %.*s",
                        (int) faults.list[0].detail.len,
                        faults.list[0].detail.data);
    }

    return HMC_DONE;
}


int
hmc_user_create(int argc, char **argv)
{
    int            rc;
    char           text[HM_UUID_TEXT];
    hmc_db_t       db;
    hm_uuid_t      id;
    hmc_keys_t     keys;
    hmc_account_t  account;

    const hmc_option_t  options[] = {
        { "--email", &account.email, NULL },
        { "--name", &account.name, NULL },
        { "--role", &account.role, NULL },
        { NULL, NULL, NULL }
    };

    memset(&account, 0, sizeof(account));
    account.role = "patient";

    if (hmc_options(argc, argv, options, NULL, 0) != HMC_DONE) {
        return HMC_USAGE;
    }

    if (account.email == NULL) {
        return hmc_usage("--email is needed");
    }

    account.password = hmc_secret("HEALTHMATE_PASSWORD", "Password", true);
    if (account.password == NULL) {
        return HMC_FAILED;
    }

    rc = hmc_user_checked(&account);
    if (rc != HMC_DONE) {
        return rc;
    }

    if (hmc_db_open(&db, true) != HM_OK
        || hmc_db_begin(&db) != HM_OK
        || hmc_account_create(&db, &account, &id, &keys) != HM_OK
        || hmc_audit(&db, HM_AUDIT_OF_USER, &id, 1) != HM_OK
        || hmc_db_commit(&db) != HM_OK)
    {
        hmc_fail("%s", db.error);
        hmc_db_close(&db);
        return HMC_FAILED;
    }

    hm_wipe(&keys, sizeof(keys));
    hmc_db_close(&db);

    hm_uuid_format(&id, text);
    printf("user: made %s, %s, id %.*s\n", account.email, account.role,
           HM_UUID_TEXT, text);

    return HMC_DONE;
}
