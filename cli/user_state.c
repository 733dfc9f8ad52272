/*
 * user_state: `user disable`, `user enable` and `user role`, from the host.
 *
 * The change is one statement with a mail to the person, and an audit row;
 * that sessions end and that tokens are refused at once is the database's own
 * doing (sql/deploy/revocation.sql).  hm.actor is the account itself, as for
 * its making: the host's role may change what an account may not change about
 * itself.
 */

#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "hm_audit.h"
#include "hm_jwt.h"


static hm_rc_t
hmc_user_change(hmc_db_t *db, const char *email, const char *sql,
    const char *value, uint32_t *changed)
{
    hm_rc_t        rc;
    PGresult      *result;
    hm_uuid_t      id;
    hmc_params_t   p;

    rc = hmc_account_find(db, email, &id, NULL);

    if (rc == HM_DECLINED) {
        snprintf(db->error, sizeof(db->error), "there is no such account");
    }

    if (rc != HM_OK || hmc_db_actor(db, &id) != HM_OK) {
        return HM_ERROR;
    }

    p.n = 0;
    hmc_param_uuid(&p, &id);
    hmc_param_text(&p, value);

    result = hmc_db_query(db, sql, &p);
    if (result == NULL) {
        return HM_ERROR;
    }

    *changed = (uint32_t) PQntuples(result);
    PQclear(result);

    return hmc_audit(db, HM_AUDIT_OF_USER, &id, 1);
}


static int
hmc_user_set(const char *email, const char *sql, const char *value,
    const char *said)
{
    hmc_db_t  db;
    uint32_t  changed;

    if (hmc_db_open(&db, true) != HM_OK
        || hmc_db_begin(&db) != HM_OK
        || hmc_user_change(&db, email, sql, value, &changed) != HM_OK
        || hmc_db_commit(&db) != HM_OK)
    {
        hmc_fail("%s", db.error);
        hmc_db_close(&db);
        return HMC_FAILED;
    }

    hmc_db_close(&db);

    printf("user: %s %s%s\n", email, changed ? "is " : "was ", said);

    return HMC_DONE;
}


static int
hmc_user_active(int argc, char **argv, const char *value, const char *said)
{
    const char  *email[1];

    const hmc_option_t  options[] = { { NULL, NULL, NULL } };

    email[0] = NULL;

    if (hmc_options(argc, argv, options, email, 1) != HMC_DONE) {
        return HMC_USAGE;
    }

    if (email[0] == NULL) {
        return hmc_usage("whose account?");
    }

    return hmc_user_set(email[0],
        "with u as (update users set is_active = $2::bool,"
        " updated_at = now(), version = version + 1 where id = $1::uuid"
        " and erased_at is null and is_active <> $2::bool returning id)"
        " select hm_mail(id, 'account_disabled') from u", value, said);
}


int
hmc_user_disable(int argc, char **argv)
{
    return hmc_user_active(argc, argv, "false", "disabled");
}


int
hmc_user_enable(int argc, char **argv)
{
    return hmc_user_active(argc, argv, "true", "enabled");
}


int
hmc_user_role(int argc, char **argv)
{
    const char  *word[2];

    const hmc_option_t  options[] = { { NULL, NULL, NULL } };

    word[0] = NULL;
    word[1] = NULL;

    if (hmc_options(argc, argv, options, word, 2) != HMC_DONE) {
        return HMC_USAGE;
    }

    if (word[1] == NULL || hm_role_of(hmc_str(word[1])) == HM_ROLE_NONE) {
        return hmc_usage("a role is patient, doctor, admin or researcher");
    }

    return hmc_user_set(word[0],
        "with u as (update users set role = $2::text, updated_at = now(),"
        " version = version + 1 where id = $1::uuid and erased_at is null"
        " and role <> $2::text returning id)"
        " select hm_mail(id, 'role_changed') from u", word[1], word[1]);
}
