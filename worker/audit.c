/*
 * The audit shard of a connection.
 *
 * DESIGN.  Shard = one database connection of one process start; seq has no
 * gap in it, because a gap is a finding.  A number is given when a row is
 * added to the open transaction, and counts as used only when that
 * transaction is confirmed (hmw_settle_done adds job->audited to db->seq).
 * A transaction that failed gives its numbers back; one whose outcome is not
 * known has lost its connection too, and with it the shard: the next
 * hm_audit_open, of whatever process, closes it at what really is there.
 *
 * Rows of the worker have no client, so no origin.  The read of a person's
 * data by a job and its result are one transaction: nothing leaves the
 * machine before it, so recording it with the result is recording it in time.
 */

#include <stdio.h>

#include "hmw.h"


hm_rc_t
hmw_audit_open(hmw_db_t *db)
{
    const char  *values[1] = { db->name };

    return hmw_db_do(db, "audit open", "select hm_audit_open($1::uuid)", 1,
                     values);
}


hm_rc_t
hmw_audit_add(hmw_t *w, hmw_job_t *job, const hmw_audit_t *row)
{
    hm_rc_t             rc;
    char                seq[24], action[8], resource[8], outcome[8], role[8];
    char                items[24];
    const char         *values[13];
    static const char   sql[] =
        "insert into audit_logs (shard, seq, at, action, resource, outcome,"
        " actor_role, purpose, actor, session, user_id, first_id, last_id,"
        " items) values ($1, $2, now(), $3, $4, $5, $6, $7, $8, $9, $10,"
        " $11, $12, $13)";

    snprintf(seq, sizeof(seq), "%lld",
             (long long) (w->db.seq + job->audited + 1));
    snprintf(action, sizeof(action), "%u", row->action);
    snprintf(resource, sizeof(resource), "%u", row->resource);
    snprintf(outcome, sizeof(outcome), "%u", row->outcome);
    snprintf(role, sizeof(role), "%d", (int) job->role);
    snprintf(items, sizeof(items), "%lld", (long long) row->items);

    values[0] = w->db.name;
    values[1] = seq;
    values[2] = action;
    values[3] = resource;
    values[4] = outcome;
    values[5] = role;
    values[6] = "4";                     /* HM_PURPOSE_SYSTEM */
    values[7] = row->actor;
    values[8] = job->session[0] == '\0' ? NULL : job->session;
    values[9] = row->subject;
    values[10] = row->first;
    values[11] = row->last;
    values[12] = items;

    rc = hmw_db_do(&w->db, "audit add", sql, 13, values);

    if (rc == HM_OK) {
        job->audited++;
    }

    return rc;
}
