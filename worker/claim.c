/*
 * The state changes of a job row, each guarded.
 *
 *     ready, retry --claim--> running --settle--> done
 *                                      failed --> retry, after max: dead
 *                                      denied --> cancelled (rights_changed)
 *     running --orphaned (keeper.c)--> retry
 *
 * DESIGN.  A claim raises the token; every later change of that run names
 * it, so a process that was frozen, or cut off from the database, and comes
 * back finds 0 rows and rolls back its effects with them.  The claim also
 * takes the row out of the partial unique index (state in ready, retry)
 * before the job reads anything, so that a write after it leaves a new job.
 *
 * Therefore a row on its way back to retry may meet a newer one of the same
 * unique key.  Then the newer one does the work and this one ends as
 * cancelled, "superseded".  Where both happen at once the index refuses us
 * (23505); asked again, we see the other.
 *
 * All of it runs as the system actor "worker.sweeper": a job row is not the
 * requester's to change.
 */

#include <stdio.h>
#include <stdlib.h>

#include "hm_time.h"
#include "hmw.h"


#define HMW_CLAIM_SET                                                         \
    "update jobs set state = 'running', attempt = attempt + 1,"               \
    " token = token + 1, lease_until = now() + interval '30 seconds',"        \
    " worker = $1, cause = null, updated_at = now(), version = version + 1"

#define HMW_CLAIM_ROW                                                         \
    " returning id, kind, unique_key, user_id, requester, session, token,"    \
    " attempt, max_attempts"

#define HMW_CLAIM_DUE                                                         \
    " state in ('ready', 'retry') and run_at <= now()"


static hm_rc_t hmw_claim_with(hmw_t *w, const char *sql, int n,
    const char *const *values, hmw_job_t *job);
static void hmw_claim_read(hmw_job_t *job, PGresult *res);
static void hmw_copy(char *to, size_t size, PGresult *res, int column);
static hm_rc_t hmw_settle_row(hmw_t *w, hmw_job_t *job, hmw_result_t result);
static hm_rc_t hmw_denied(hmw_t *w, hmw_job_t *job);


hm_rc_t
hmw_claim(hmw_t *w, const char *id, hmw_job_t *job)
{
    const char         *values[2] = { w->db.name, id };
    static const char   sql[] =
        HMW_CLAIM_SET " where id = $2 and" HMW_CLAIM_DUE HMW_CLAIM_ROW;

    return hmw_claim_with(w, sql, 2, values, job);
}


/* Without the doorbell: whatever is due and not in another's hands. */

hm_rc_t
hmw_claim_any(hmw_t *w, hmw_job_t *job)
{
    char                  kinds[512];
    size_t                n;
    const char           *values[2] = { w->db.name, kinds };
    const hmw_handler_t  *h;
    static const char     sql[] =
        HMW_CLAIM_SET " where id = (select id from jobs where" HMW_CLAIM_DUE
        " and kind = any($2::text[]) order by run_at limit 1"
        " for update skip locked)" HMW_CLAIM_ROW;

    n = 0;

    for (h = hmw_handlers; h->kind != NULL; h++) {
        n += (size_t) snprintf(kinds + n, sizeof(kinds) - n, "%c%s",
                               n == 0 ? '{' : ',', h->kind);
    }

    snprintf(kinds + n, sizeof(kinds) - n, "}");

    return hmw_claim_with(w, sql, 2, values, job);
}


/*
 * Called in the transaction that holds the effects; ends it.  HM_DECLINED:
 * fenced.  HM_ERROR: the outcome is a failure or not known.
 */

hm_rc_t
hmw_settle_done(hmw_t *w, hmw_job_t *job)
{
    int                 rows;
    PGresult           *res;
    const char         *values[2] = { job->id_text, job->token };
    static const char   done[] =
        "update jobs set state = 'done', progress = 1, cause = null,"
        " lease_until = null, finished_at = now(), updated_at = now(),"
        " version = version + 1"
        " where id = $1 and token = $2 and state = 'running'";
    static const char   echo[] =
        "update jobs j set state = case when exists (select from jobs o"
        " where o.unique_key = j.unique_key and o.state in ('ready', 'retry'))"
        " then 'cancelled' else 'retry' end,"
        " run_at = now() + interval '5 seconds', attempt = attempt - 1,"
        " cause = 'again', lease_until = null, published_at = null,"
        " updated_at = now(), version = version + 1"
        " where id = $1 and token = $2 and state = 'running'";

    if (hmw_db_actor(&w->db, HMW_ACTOR_SWEEPER) != HM_OK) {
        return HM_ERROR;
    }

    res = hmw_db_query(&w->db, "settle", job->echo ? echo : done, 2, values);
    if (res == NULL) {
        return HM_ERROR;
    }

    rows = atoi(PQcmdTuples(res));
    PQclear(res);

    if (rows != 1) {
        hmw_db_rollback(&w->db);
        hmw_log(HMW_WARN, "job.fenced", job->id_text,
                "another run took over, effects rolled back");
        return HM_DECLINED;
    }

    if (hmw_db_commit(&w->db) != HM_OK) {
        return HM_ERROR;
    }

    w->db.seq += job->audited;
    job->audited = 0;

    return HM_OK;
}


void
hmw_settle_failed(hmw_t *w, hmw_job_t *job, hmw_result_t result)
{
    int  tries;

    hmw_db_rollback(&w->db);
    job->audited = 0;

    for (tries = 0; tries < 3 && hmw_db_up(&w->db); tries++) {

        if (hmw_db_begin(&w->db, HMW_ACTOR_SWEEPER) == HM_OK
            && (result != HMW_DENIED || hmw_denied(w, job) == HM_OK)
            && hmw_settle_row(w, job, result) == HM_OK
            && hmw_db_commit(&w->db) == HM_OK)
        {
            w->db.seq += job->audited;
            job->audited = 0;
            return;
        }

        hmw_db_rollback(&w->db);
        job->audited = 0;
    }

    /* The lease ends by itself and the keeper puts the row back. */

    hmw_log(HMW_WARN, "job.unsettled", job->id_text,
            "the row could not be changed, the keeper will");
}


/*
 * A job calls it now and then: renews the lease on a connection of its own
 * (the job's is in a transaction) and keeps the ceiling of the kind.
 */

hm_rc_t
hmw_beat(hmw_t *w, hmw_job_t *job)
{
    int64_t      now;
    hm_rc_t      rc;
    const char  *values[2] = { job->id_text, job->token };

    now = hmw_ms();

    if (now - job->started > (int64_t) job->timeout * 1000) {
        job->cause = "timeout";
        return HM_DECLINED;
    }

    if (now - job->beaten < HMW_LEASE * 1000 / 3) {
        return HM_OK;
    }

    job->beaten = now;

    if (hmw_db_connect(w, &w->beat) != HM_OK) {
        return HM_OK;
    }

    rc = hmw_db_begin(&w->beat, HMW_ACTOR_SWEEPER);

    if (rc == HM_OK) {
        rc = hmw_db_do(&w->beat, "beat",
                       "update jobs set lease_until = now()"
                       " + interval '30 seconds' where id = $1"
                       " and token = $2 and state = 'running'", 2, values);
    }

    if (rc != HM_OK || hmw_db_commit(&w->beat) != HM_OK) {
        hmw_db_close(&w->beat);
    }

    /* A lost lease is found at the settle; the beat never fails a job. */

    return HM_OK;
}


static hm_rc_t
hmw_claim_with(hmw_t *w, const char *sql, int n, const char *const *values,
    hmw_job_t *job)
{
    PGresult  *res;

    if (hmw_db_begin(&w->db, HMW_ACTOR_SWEEPER) != HM_OK) {
        return HM_ERROR;
    }

    res = hmw_db_query(&w->db, "claim", sql, n, values);
    if (res == NULL) {
        hmw_db_rollback(&w->db);
        return HM_ERROR;
    }

    if (PQntuples(res) != 1) {
        PQclear(res);
        hmw_db_rollback(&w->db);
        return HM_DECLINED;
    }

    hmw_claim_read(job, res);
    PQclear(res);

    return hmw_db_commit(&w->db);
}


static void
hmw_claim_read(hmw_job_t *job, PGresult *res)
{
    memset(job, 0, sizeof(hmw_job_t));

    hmw_copy(job->id_text, sizeof(job->id_text), res, 0);
    hmw_copy(job->kind, sizeof(job->kind), res, 1);
    hmw_copy(job->unique_key, sizeof(job->unique_key), res, 2);
    hmw_copy(job->subject, sizeof(job->subject), res, 3);
    hmw_copy(job->requester, sizeof(job->requester), res, 4);
    hmw_copy(job->session, sizeof(job->session), res, 5);
    hmw_copy(job->token, sizeof(job->token), res, 6);
    job->attempt = atoi(PQgetvalue(res, 0, 7));
    job->max_attempts = atoi(PQgetvalue(res, 0, 8));

    (void) hm_uuid_parse(&job->id, (hm_str_t) { HM_UUID_TEXT,
                         (unsigned char *) job->id_text });

    job->timeout = hmw_kind(job->kind)->timeout;
    job->started = hmw_ms();
    job->beaten = job->started;
}


/* A text that does not fit is left empty: it can name nothing of ours. */

static void
hmw_copy(char *to, size_t size, PGresult *res, int column)
{
    size_t  len;

    len = (size_t) PQgetlength(res, 0, column);

    if (len >= size) {
        len = 0;
    }

    memcpy(to, PQgetvalue(res, 0, column), len);
    to[len] = '\0';
}


static hm_rc_t
hmw_settle_row(hmw_t *w, hmw_job_t *job, hmw_result_t result)
{
    int                   rows;
    char                  wait[16];
    unsigned              ms;
    PGresult             *res;
    const char           *values[5];
    const hm_job_kind_t  *kind;
    static const char     sql[] =
        "update jobs j set state = s.state, cause = case s.state"
        " when 'cancelled' then case when $4 = 'denied' then $5"
        " else 'superseded' end else $5 end,"
        " attempt = attempt - case when $4 = 'busy' then 1 else 0 end,"
        " run_at = now() + $3::int * interval '1 millisecond',"
        " lease_until = null, published_at = null, updated_at = now(),"
        " finished_at = case when s.state = 'retry' then null else now() end,"
        " version = version + 1"
        " from (select case"
        "  when $4 = 'denied' then 'cancelled'"
        "  when $4 = 'bad' then 'dead'"
        "  when $4 = 'retry' and k.attempt >= k.max_attempts then 'dead'"
        "  when exists (select from jobs o where o.unique_key = k.unique_key"
        "   and o.state in ('ready', 'retry')) then 'cancelled'"
        "  else 'retry' end as state from jobs k where k.id = $1) s"
        " where j.id = $1 and j.token = $2 and j.state = 'running'";

    kind = hmw_kind(job->kind);
    ms = result == HMW_BUSY ? 250 + hmw_jitter(500)
         : hmw_backoff(kind->backoff * 1000, kind->backoff_max * 1000,
                       job->attempt > 0 ? (unsigned) job->attempt - 1 : 0);
    snprintf(wait, sizeof(wait), "%u", ms);

    values[0] = job->id_text;
    values[1] = job->token;
    values[2] = wait;
    values[3] = result == HMW_DENIED ? "denied" : result == HMW_BAD ? "bad"
                : result == HMW_BUSY ? "busy" : "retry";
    values[4] = job->cause == NULL ? "failed" : job->cause;

    res = hmw_db_query(&w->db, "settle failed", sql, 5, values);
    if (res == NULL) {
        return HM_ERROR;
    }

    rows = atoi(PQcmdTuples(res));
    PQclear(res);

    if (rows != 1) {
        hmw_log(HMW_WARN, "job.fenced", job->id_text,
                "another run took over");
        return HM_DECLINED;
    }

    return HM_OK;
}


/*
 * A roll-up shows nobody anything: it keeps the subject's own figures true.
 * So when its requester lost his rights between the write and the roll-up,
 * his job ends, and one that nobody asked for takes its place: the figures
 * must not stay wrong because an assignment ended a second too early.
 */

static hm_rc_t
hmw_denied(hmw_t *w, hmw_job_t *job)
{
    char                id[HM_UUID_TEXT + 1];
    hmw_audit_t         row;
    hm_uuid_t           uuid;
    const char         *values[4] = { id, job->kind, job->unique_key,
                                      job->subject };
    static const char   heir[] =
        "insert into jobs (id, kind, unique_key, user_id, run_at)"
        " values ($1, $2, $3, $4, now())"
        " on conflict (unique_key) where state in ('ready', 'retry')"
        " do nothing";

    memset(&row, 0, sizeof(row));
    row.action = HM_AUDIT_JOB;
    row.resource = HM_AUDIT_OF_ANALYTICS;
    row.outcome = 403;
    row.actor = job->requester;
    row.subject = job->subject;

    if (hmw_audit_add(w, job, &row) != HM_OK) {
        return HM_ERROR;
    }

    if (!hmw_handler(job->kind)->judged) {
        return HM_OK;
    }

    if (hm_uuid7(&uuid, hm_now()) != HM_OK) {
        return HM_ERROR;
    }

    hm_uuid_format(&uuid, id);
    id[HM_UUID_TEXT] = '\0';

    return hmw_db_do(&w->db, "heir", heir, 4, values);
}
