/*
 * keys: the keys of an owner, made and loaded; `keys init`, `keys status`.
 *
 * An owner has a DEK (versions, table user_keys) and an index key
 * (user_index_keys), both wrapped by the current KEK.  The nil UUID is the
 * system as an owner: its DEK seals what belongs to nobody, its index key is
 * the deployment's, used for users.email alone.
 *
 * Wrapping: purpose "dek" with the DEK's version; purpose "index" with
 * version 1 (an index key does not turn while its owner lives).
 */

#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "hm_audit.h"


#define HMC_INDEX_KEY_VERSION   1


static hm_rc_t
hmc_keys_error(hmc_db_t *db, const char *why)
{
    snprintf(db->error, sizeof(db->error), "keys: %s", why);

    return HM_ERROR;
}


hm_rc_t
hmc_keys_create(hmc_db_t *db, const hm_uuid_t *owner, hmc_keys_t *keys)
{
    hmc_params_t   p;
    unsigned char  wrapped[HM_WRAPPED_LEN], commitment[HM_COMMIT_LEN];

    keys->version = 1;

    if (hm_random(keys->dek, HM_KEY_LEN) != HM_OK
        || hm_random(keys->index_key, HM_KEY_LEN) != HM_OK
        || hm_kek_wrap(db->kek, wrapped, "dek", 1, owner, keys->dek) != HM_OK
        || hm_commitment(commitment, keys->dek) != HM_OK)
    {
        return hmc_keys_error(db, "cannot make a key");
    }

    p.n = 0;
    hmc_param_uuid(&p, owner);
    hmc_param_int(&p, hm_kek_current(db->kek));
    hmc_param_bytes(&p, (hm_str_t) { sizeof(wrapped), wrapped });
    hmc_param_bytes(&p, (hm_str_t) { sizeof(commitment), commitment });

    if (hmc_db_exec(db,
            "insert into user_keys (user_id, version, kek_version,"
            " wrapped_dek, commitment, state, created_at)"
            " values ($1, 1, $2, $3, $4, 'active', now())", &p)
        != HM_OK)
    {
        return HM_ERROR;
    }

    if (hm_kek_wrap(db->kek, wrapped, "index", HMC_INDEX_KEY_VERSION, owner,
                    keys->index_key)
        != HM_OK)
    {
        return hmc_keys_error(db, "cannot wrap a key");
    }

    p.n = 0;
    hmc_param_uuid(&p, owner);
    hmc_param_int(&p, hm_kek_current(db->kek));
    hmc_param_bytes(&p, (hm_str_t) { sizeof(wrapped), wrapped });

    return hmc_db_exec(db,
        "insert into user_index_keys (user_id, kek_version, wrapped_key,"
        " created_at) values ($1, $2, $3, now())", &p);
}


static hm_rc_t
hmc_keys_unwrap(hmc_db_t *db, PGresult *result, int column,
    const char *purpose, uint32_t version, const hm_uuid_t *owner,
    unsigned char key[HM_KEY_LEN])
{
    size_t          len;
    hm_rc_t         rc;
    unsigned char  *wrapped;

    wrapped = PQunescapeBytea(
                  (unsigned char *) PQgetvalue(result, 0, column), &len);
    if (wrapped == NULL) {
        return hmc_keys_error(db, "out of memory");
    }

    rc = hm_kek_unwrap(db->kek, key, purpose, version, owner,
                       (hm_str_t) { len, wrapped });
    PQfreemem(wrapped);

    if (rc != HM_OK) {
        return hmc_keys_error(db, "a key does not open: this is not the KEK "
                              "file it was made under");
    }

    return HM_OK;
}


hm_rc_t
hmc_keys_load(hmc_db_t *db, const hm_uuid_t *owner, hmc_keys_t *keys)
{
    hm_rc_t        rc;
    PGresult      *result;
    hmc_params_t   p;

    p.n = 0;
    hmc_param_uuid(&p, owner);

    result = hmc_db_query(db,
        "select k.version, k.wrapped_dek, i.wrapped_key from user_keys k"
        " join user_index_keys i on i.user_id = k.user_id"
        " where k.user_id = $1 and k.state = 'active'", &p);
    if (result == NULL) {
        return HM_ERROR;
    }

    if (PQntuples(result) == 0) {
        PQclear(result);
        return HM_DECLINED;
    }

    keys->version = (uint32_t) strtoul(PQgetvalue(result, 0, 0), NULL, 10);

    rc = hmc_keys_unwrap(db, result, 1, "dek", keys->version, owner,
                         keys->dek);
    if (rc == HM_OK) {
        rc = hmc_keys_unwrap(db, result, 2, "index", HMC_INDEX_KEY_VERSION,
                             owner, keys->index_key);
    }

    PQclear(result);

    return rc;
}


hm_str_t
hmc_seal(const hmc_keys_t *keys, const char *table, const char *column,
    const hm_uuid_t *row, const hm_uuid_t *owner, hm_str_t json)
{
    size_t      len;
    hm_str_t    out;
    hm_place_t  place;

    place.table = table;
    place.column = column;
    place.row = *row;
    place.owner = *owner;

    out.data = malloc(hm_sealed_len(json.len));

    if (out.data == NULL
        || hm_seal(out.data, &len, keys->dek, keys->version, &place, json)
           != HM_OK)
    {
        return hm_null_str;
    }

    out.len = len;

    return out;
}


int
hmc_keys_init(int argc, char **argv)
{
    hm_rc_t     rc;
    hmc_db_t    db;
    hmc_keys_t  keys;

    static const hmc_option_t  none[] = { { NULL, NULL, NULL } };

    if (hmc_options(argc, argv, none, NULL, 0) != HMC_DONE) {
        return HMC_USAGE;
    }

    if (hmc_db_open(&db, true) != HM_OK || hmc_db_begin(&db) != HM_OK) {
        goto failed;
    }

    rc = hmc_keys_load(&db, &hm_nil_uuid, &keys);

    if (rc == HM_DECLINED) {
        if (hmc_keys_create(&db, &hm_nil_uuid, &keys) != HM_OK
            || hmc_audit(&db, HM_AUDIT_OF_KEY, NULL, 2) != HM_OK)
        {
            /* two started at once: the other's keys are the keys */
            if (!hmc_db_state(&db, "23505")) {
                goto failed;
            }

            hmc_db_rollback(&db);

            if (hmc_keys_load(&db, &hm_nil_uuid, &keys) != HM_OK) {
                goto failed;
            }

        } else if (hmc_db_commit(&db) != HM_OK) {
            goto failed;

        } else {
            puts("keys: made the system's key, version 1, and the "
                 "deployment's index key");
            goto done;
        }

    } else if (rc == HM_ERROR) {
        goto failed;
    }

    printf("keys: the system's key, version %u, is there and opens\n",
           (unsigned) keys.version);

done:

    hm_wipe(&keys, sizeof(keys));
    hmc_db_close(&db);

    return HMC_DONE;

failed:

    hmc_fail("%s", db.error);
    hmc_db_close(&db);

    return HMC_FAILED;
}


int
hmc_keys_status(int argc, char **argv)
{
    int        i;
    bool       json;
    hmc_db_t   db;
    PGresult  *result;

    const hmc_option_t  options[] = {
        { "--json", NULL, &json },
        { NULL, NULL, NULL }
    };

    json = false;

    if (hmc_options(argc, argv, options, NULL, 0) != HMC_DONE) {
        return HMC_USAGE;
    }

    if (hmc_db_open(&db, true) != HM_OK) {
        goto failed;
    }

    result = hmc_db_query(&db,
        "select kek_version, state, people from hm_key_status()"
        " order by 1, 2", NULL);
    if (result == NULL) {
        goto failed;
    }

    if (json) {
        printf("{\"current\":%u,\"keys\":[",
               (unsigned) hm_kek_current(db.kek));

    } else {
        printf("current key-encryption key: version %u\n",
               (unsigned) hm_kek_current(db.kek));
    }

    for (i = 0; i < PQntuples(result); i++) {
        printf(json ? "%s{\"kek_version\":%s,\"state\":\"%s\",\"keys\":%s}"
                    : "%sversion %s  %-10s %s\n",
               json && i != 0 ? "," : "", PQgetvalue(result, i, 0),
               PQgetvalue(result, i, 1), PQgetvalue(result, i, 2));
    }

    if (json) {
        puts("]}");
    }

    PQclear(result);
    hmc_db_close(&db);

    return HMC_DONE;

failed:

    hmc_fail("%s", db.error);
    hmc_db_close(&db);

    return HMC_FAILED;
}
