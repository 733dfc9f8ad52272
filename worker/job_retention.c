/*
 * Upkeep that nobody asks for: retention.run and audit.partitions.
 *
 * DESIGN.  What is past its time is decided by the database: the policies of
 * the actor "worker.retention" show it nothing else, so a mistake here cannot
 * delete a young row.  hm_retention_run deletes a bounded batch per table;
 * each batch is a transaction of its own (few locks, vacuum follows), with an
 * audit row of how many went.  The last, empty one belongs to the settle.
 *
 * A run that is cut short loses nothing: the next goes on where it ended.
 */

#include <stdlib.h>

#include "hmw.h"


static hm_rc_t hmw_retention_note(hmw_t *w, hmw_job_t *job, int64_t items);


hmw_result_t
hmw_job_retention(hmw_t *w, hmw_job_t *job)
{
    int64_t    gone, total;
    PGresult  *res;

    for (total = 0; ; total += gone) {

        if (hmw_beat(w, job) != HM_OK) {
            return HMW_RETRY;
        }

        res = hmw_db_query(&w->db, "retention",
                           "select hm_retention_run(1000)", 0, NULL);
        if (res == NULL) {
            return HMW_RETRY;
        }

        gone = atoll(PQgetvalue(res, 0, 0));
        PQclear(res);

        if (gone == 0 || hmw_quit) {
            break;
        }

        if (hmw_retention_note(w, job, gone) != HM_OK
            || hmw_db_commit(&w->db) != HM_OK)
        {
            return HMW_RETRY;
        }

        w->db.seq += job->audited;
        job->audited = 0;

        if (hmw_db_begin(&w->db, job->actor) != HM_OK) {
            return HMW_RETRY;
        }
    }

    if (gone > 0 && hmw_retention_note(w, job, gone) != HM_OK) {
        return HMW_RETRY;
    }

    hmw_log(HMW_INFO, "retention.run", job->id_text, "%lld rows deleted",
            (long long) (total + gone));

    return HMW_DONE;
}


hmw_result_t
hmw_job_partitions(hmw_t *w, hmw_job_t *job)
{
    hm_rc_t  rc;

    /* Waits 2 s for its locks at most; the retry comes with backoff. */

    rc = hmw_db_do(&w->db, "partitions",
                   "select hm_audit_ensure_partitions()", 0, NULL);

    return rc == HM_OK ? HMW_DONE : HMW_RETRY;
}


static hm_rc_t
hmw_retention_note(hmw_t *w, hmw_job_t *job, int64_t items)
{
    hmw_audit_t  row;

    memset(&row, 0, sizeof(row));
    row.action = HM_AUDIT_JOB;
    row.resource = HM_AUDIT_OF_HEALTH_DATA;
    row.outcome = 200;
    row.actor = job->actor;
    row.items = items;

    return hmw_audit_add(w, job, &row);
}
