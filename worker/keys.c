/*
 * The keys of one person, for the length of one job.
 *
 * DESIGN.  Loaded in the job's own transaction under its actor, so the row
 * policies decide here too, and wiped when the job ends: no cache, hence no
 * copy of a key that could outlive an erasure.  One query per job is nothing
 * beside opening its rows.  The memory is locked and kept out of dumps.
 *
 * Only DEKs: no job of today computes a blind index, so the index key stays
 * wrapped.
 */

#include <stdlib.h>

#include "hm_time.h"
#include "hmw.h"


static hm_rc_t hmw_keys_one(hmw_t *w, PGresult *res, int i,
    const hm_uuid_t *owner);


hmw_result_t
hmw_keys_load(hmw_t *w, hmw_job_t *job)
{
    int                 i, n;
    PGresult           *res;
    hm_uuid_t           owner;
    const char         *values[1] = { job->subject };
    hmw_result_t        result;
    static const char   sql[] =
        "select version, wrapped_dek, state = 'active' from user_keys"
        " where user_id = $1 and state <> 'destroyed'"
        " order by version desc limit 4";

    hmw_keys_forget(w);

    if (hm_uuid_parse(&owner, (hm_str_t) { HM_UUID_TEXT,
                      (unsigned char *) job->subject }) != HM_OK)
    {
        job->cause = "bad_subject";
        return HMW_BAD;
    }

    res = hmw_db_query_bin(&w->db, "keys", sql, 1, values);
    if (res == NULL) {
        return HMW_RETRY;
    }

    w->keys->user = owner;
    result = HMW_DONE;
    n = PQntuples(res);

    for (i = 0; i < n; i++) {
        if (hmw_keys_one(w, res, i, &owner) != HM_OK) {
            job->cause = "key_not_unwrapped";
            result = HMW_RETRY;
        }
    }

    PQclear(res);

    if (result == HMW_DONE && w->keys->active == 0) {

        /* Erased in the meantime, or not visible: nothing can be sealed. */

        job->cause = "no_active_key";
        result = n == 0 ? HMW_BAD : HMW_RETRY;
    }

    w->keys->loaded = hm_now();

    return result;
}


void
hmw_keys_forget(hmw_t *w)
{
    hm_wipe(w->keys, sizeof(hm_user_keys_t));
}


static hm_rc_t
hmw_keys_one(hmw_t *w, PGresult *res, int i, const hm_uuid_t *owner)
{
    unsigned        k;
    hm_str_t        wrapped;
    uint32_t        version;
    unsigned char  *p;

    p = (unsigned char *) PQgetvalue(res, i, 0);
    version = (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16
              | (uint32_t) p[2] << 8 | p[3];

    wrapped.data = (unsigned char *) PQgetvalue(res, i, 1);
    wrapped.len = (size_t) PQgetlength(res, i, 1);

    k = w->keys->nversions;

    if (k >= HM_KEY_VERSIONS
        || hm_kek_unwrap(w->kek, w->keys->dek[k], "dek", version, owner,
                         wrapped) != HM_OK)
    {
        return HM_ERROR;
    }

    w->keys->version[k] = version;
    w->keys->nversions++;

    if (*PQgetvalue(res, i, 2)) {
        w->keys->active = version;
    }

    return HM_OK;
}
