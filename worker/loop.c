/*
 * One child: doorbell -> claim -> judge -> run -> settle.
 *
 * DESIGN.  The child asks Redis for entries of all streams, a few at a time,
 * waiting up to a second.  For each it tries to claim the row; a row that is
 * gone, taken, done or not yet due is simply dropped from the stream: the
 * keeper rings again for whatever still waits.  When Redis is away the child
 * asks PostgreSQL itself every half second, and without a pause as long as
 * there is work.
 *
 * A doorbell can also be silent while Redis is well (entries eaten by a
 * consumer that froze), so between two waits a child looks into PostgreSQL
 * once a second at most.
 *
 * Judge and run share one transaction, with the requester as the actor: what
 * the requester may not see, the job cannot read, whatever its code does.
 *
 * TERM: the current job is finished, entries read but not begun are left to
 * the keeper.  Our own pending entries of an earlier life are dropped at the
 * start, for the same reason.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "hm_perm.h"
#include "hmw.h"


#define HMW_BLOCK      "1000"            /* ms; how late TERM is seen */
#define HMW_COUNT      "8"
#define HMW_POLL       500               /* ms, without Redis */
#define HMW_LOOK       1000              /* ms, with Redis */


static void hmw_ring(hmw_t *w);
static void hmw_streams(hmw_t *w, redisReply *reply);
static void hmw_entry(hmw_t *w, const char *stream, redisReply *entry);
static redisReply *hmw_read(hmw_t *w, const char *from);
static bool hmw_poll(hmw_t *w);
static void hmw_run(hmw_t *w, hmw_job_t *job);
static hmw_result_t hmw_judge(hmw_t *w, hmw_job_t *job,
    const hmw_handler_t *handler);
static hmw_result_t hmw_judge_person(hmw_t *w, hmw_job_t *job);
static void hmw_forget_pending(hmw_t *w);
static void hmw_reload_kek(hmw_t *w);


void
hmw_child(hmw_t *w)
{
    bool     fresh;
    int64_t  looked;

    /* Analytics never takes the processor from a request. */

    if (setpriority(PRIO_PROCESS, 0, 10) == -1) {
        hmw_log(HMW_WARN, "start.nice", NULL, "could not lower the priority");
    }

    fresh = true;
    looked = 0;

    while (!hmw_quit) {

        if (hmw_reread) {
            hmw_reread = 0;
            hmw_reload_kek(w);
        }

        if (hmw_db_connect(w, &w->db) != HM_OK) {
            hmw_sleep(100);
            continue;
        }

        if (!hmw_rds_up(w)) {
            fresh = true;

            if (!hmw_poll(w)) {
                hmw_sleep(HMW_POLL);
            }

            continue;
        }

        if (fresh) {
            fresh = false;
            hmw_forget_pending(w);
        }

        hmw_ring(w);

        if (hmw_ms() - looked > HMW_LOOK) {
            looked = hmw_ms();
            hmw_poll(w);
        }
    }

    hmw_forget_pending(w);
}


static void
hmw_ring(hmw_t *w)
{
    redisReply           *reply;
    const hmw_handler_t  *h;

    reply = hmw_read(w, ">");
    if (reply == NULL) {
        return;
    }

    if (reply->type == REDIS_REPLY_ERROR) {

        if (strncmp(reply->str, "NOGROUP", 7) == 0) {
            for (h = hmw_handlers; h->kind != NULL; h++) {
                if (hmw_kind(h->kind)->stream != NULL) {
                    hmw_rds_group(w, hmw_kind(h->kind)->stream);
                }
            }

        } else {
            hmw_log(HMW_WARN, "redis.read", NULL, "XREADGROUP: %.8s",
                    reply->str);
            hmw_rds_failed(&w->rds, "read");
        }

        freeReplyObject(reply);
        return;
    }

    hmw_streams(w, reply);
    freeReplyObject(reply);
}


/* [[stream, [[entry id, [field, value, ...]], ...]], ...] */

static void
hmw_streams(hmw_t *w, redisReply *reply)
{
    size_t       i, k;
    redisReply  *stream, *entries;

    if (reply->type != REDIS_REPLY_ARRAY) {
        return;
    }

    for (i = 0; i < reply->elements; i++) {
        stream = reply->element[i];

        if (stream->type != REDIS_REPLY_ARRAY || stream->elements != 2
            || stream->element[0]->type != REDIS_REPLY_STRING
            || stream->element[1]->type != REDIS_REPLY_ARRAY)
        {
            continue;
        }

        entries = stream->element[1];

        for (k = 0; k < entries->elements && !hmw_quit; k++) {
            hmw_entry(w, stream->element[0]->str, entries->element[k]);
        }
    }
}


static void
hmw_entry(hmw_t *w, const char *stream, redisReply *entry)
{
    char         id[HM_UUID_TEXT + 1];
    hm_rc_t      rc;
    hm_str_t     text;
    hmw_job_t    job;
    redisReply  *fields;

    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2
        || entry->element[0]->type != REDIS_REPLY_STRING)
    {
        return;
    }

    fields = entry->element[1];
    rc = HM_DECLINED;

    if (fields->type == REDIS_REPLY_ARRAY && fields->elements >= 2
        && fields->element[0]->type == REDIS_REPLY_STRING
        && fields->element[1]->type == REDIS_REPLY_STRING
        && strcmp(fields->element[0]->str, "id") == 0)
    {
        text.data = (unsigned char *) fields->element[1]->str;
        text.len = (size_t) fields->element[1]->len;
        rc = hmw_entry_id(id, text);
    }

    if (rc == HM_OK) {
        rc = hmw_claim(w, id, &job);

        if (rc == HM_OK) {
            hmw_run(w, &job);
        }
    }

    if (rc == HM_ERROR) {
        return;                          /* the database failed: keep it */
    }

    hmw_rds_drop(w, stream, entry->element[0]->str);
}


/*
 * All streams in one command.  Two kinds may share a stream, but Redis wants
 * each name once.
 */

static redisReply *
hmw_read(hmw_t *w, const char *from)
{
    int                   n, i, k;
    bool                  known;
    const char           *stream;
    const char           *argv[32], *names[8];
    redisReply           *reply;
    const hmw_handler_t  *h;

    if (!hmw_rds_up(w)) {
        return NULL;
    }

    k = 0;

    for (h = hmw_handlers; h->kind != NULL && k < 8; h++) {
        stream = hmw_kind(h->kind)->stream;
        known = stream == NULL;

        for (i = 0; i < k && !known; i++) {
            known = strcmp(names[i], stream) == 0;
        }

        if (!known) {
            names[k++] = stream;
        }
    }

    n = 0;
    argv[n++] = "XREADGROUP";
    argv[n++] = "GROUP";
    argv[n++] = HM_JOB_GROUP;
    argv[n++] = w->consumer;
    argv[n++] = "COUNT";
    argv[n++] = *from == '>' ? HMW_COUNT : "100";

    if (*from == '>') {
        argv[n++] = "BLOCK";
        argv[n++] = HMW_BLOCK;
    }

    argv[n++] = "STREAMS";

    for (i = 0; i < k; i++) {
        argv[n++] = names[i];
    }

    for (i = 0; i < k; i++) {
        argv[n++] = from;
    }

    reply = redisCommandArgv(w->rds.ctx, n, argv, NULL);

    if (reply == NULL) {
        hmw_rds_failed(&w->rds, "read");
    }

    return reply;
}


/* Runs what is due, one job per look at hmw_quit; false: there was none. */

static bool
hmw_poll(hmw_t *w)
{
    bool       any;
    hmw_job_t  job;

    any = false;

    while (!hmw_quit && hmw_claim_any(w, &job) == HM_OK) {
        any = true;
        hmw_run(w, &job);

        if (w->rds.ctx != NULL) {
            break;
        }
    }

    return any;
}


static void
hmw_run(hmw_t *w, hmw_job_t *job)
{
    hm_rc_t               rc;
    hmw_result_t          result;
    const hmw_handler_t  *handler;

    handler = hmw_handler(job->kind);

    if (handler == NULL) {
        job->cause = "unknown_kind";
        hmw_settle_failed(w, job, HMW_BUSY);
        return;
    }

    job->actor = job->requester[0] == '\0' ? handler->system
                                           : job->requester;
    result = HMW_RETRY;

    if (hmw_db_begin(&w->db, job->actor) == HM_OK) {
        result = hmw_judge(w, job, handler);

        if (result == HMW_DONE) {
            result = handler->run(w, job);
        }
    }

    hmw_keys_forget(w);

    if (result == HMW_DONE) {
        rc = hmw_settle_done(w, job);

        if (rc == HM_OK) {
            hmw_log(HMW_INFO, "job.done", job->id_text,
                    "%s attempt %d took %lld ms%s", job->kind, job->attempt,
                    (long long) (hmw_ms() - job->started),
                    job->echo ? ", will run again" : "");
            return;
        }

        result = rc == HM_DECLINED ? HMW_LOST : HMW_RETRY;
    }

    if (result == HMW_LOST || !hmw_db_up(&w->db)) {
        hmw_db_rollback(&w->db);
        return;
    }

    if (job->cause == NULL) {
        snprintf(job->cause_buf, sizeof(job->cause_buf), "sqlstate %.5s",
                 w->db.error[0] == '\0' ? "?" : w->db.error);
        job->cause = job->cause_buf;
    }

    if (result != HMW_BUSY) {
        hmw_log(result == HMW_DENIED ? HMW_INFO : HMW_WARN, "job.failed",
                job->id_text, "%s attempt %d of %d: %s", job->kind,
                job->attempt, job->max_attempts, job->cause);
    }

    hmw_settle_failed(w, job, result);
}


static hmw_result_t
hmw_judge(hmw_t *w, hmw_job_t *job, const hmw_handler_t *handler)
{
    /* Nobody asked: the actor that the table names for this kind. */

    if (job->requester[0] == '\0') {
        return HMW_DONE;
    }

    if (!handler->judged) {
        job->cause = "rights_changed";
        return HMW_DENIED;
    }

    return hmw_judge_person(w, job);
}


static hmw_result_t
hmw_judge_person(hmw_t *w, hmw_job_t *job)
{
    bool                own, may, active;
    hm_str_t            name;
    PGresult           *res;
    hm_reach_t          reach;
    const char         *values[2] = { job->requester, job->subject };
    static const char   sql[] =
        "select u.role, u.is_active and u.erased_at is null,"
        " $1::uuid = $2::uuid or hm_may($1::uuid, $2::uuid, 'read')"
        " from users u where u.id = $1::uuid";

    job->cause = "rights_changed";

    res = hmw_db_query(&w->db, "judge", sql, 2, values);
    if (res == NULL) {
        job->cause = NULL;
        return HMW_RETRY;
    }

    if (PQntuples(res) != 1) {
        PQclear(res);
        return HMW_DENIED;
    }

    name.data = (unsigned char *) PQgetvalue(res, 0, 0);
    name.len = (size_t) PQgetlength(res, 0, 0);
    job->role = hm_role_of(name);
    active = *PQgetvalue(res, 0, 1) == 't';
    may = *PQgetvalue(res, 0, 2) == 't';
    PQclear(res);

    own = strcmp(job->requester, job->subject) == 0;
    reach = hm_perm_reach(job->role, HM_PERM_HEALTH_READ);

    if (!active || !may || reach == HM_REACH_NO
        || (!own && reach == HM_REACH_OWN))
    {
        return HMW_DENIED;
    }

    job->cause = NULL;

    return HMW_DONE;
}


/* Entries that our name holds since an earlier life, or at the end of it. */

static void
hmw_forget_pending(hmw_t *w)
{
    size_t       i, k;
    redisReply  *reply, *entries;

    if (w->rds.ctx == NULL) {
        return;
    }

    reply = hmw_read(w, "0");
    if (reply == NULL) {
        return;
    }

    if (reply->type == REDIS_REPLY_ARRAY) {
        for (i = 0; i < reply->elements; i++) {
            entries = reply->element[i]->element[1];

            for (k = 0; k < entries->elements; k++) {
                hmw_rds_drop(w, reply->element[i]->element[0]->str,
                             entries->element[k]->element[0]->str);
            }
        }
    }

    freeReplyObject(reply);
}


static void
hmw_reload_kek(hmw_t *w)
{
    char       reason[256];
    hm_kek_t  *kek;

    kek = hm_kek_load(w->conf->kek_file, reason);

    if (kek == NULL) {
        hmw_log(HMW_ERR, "keys.reload", NULL, "kept the old keys: %s",
                reason);
        return;
    }

    hm_kek_free(w->kek);
    w->kek = kek;

    hmw_log(HMW_INFO, "keys.reload", NULL, "keys read again, version %u",
            hm_kek_current(kek));
}
