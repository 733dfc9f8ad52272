/*
 * The keeper: relay, sweeper, scheduler.  One child per pool; any number of
 * pools may run theirs at the same time, the database decides each race.
 *
 * DESIGN.
 *
 * Relay, every 200 ms: rows that are due and were not published within the
 * last second are rung again.  published_at is committed before the XADD: a
 * ring that was lost is repeated a second later, and no row stays locked
 * while Redis is slow.  A stream that holds many entries already is not
 * filled further (HMW_STREAM_FULL): the children have enough to do, and a
 * backlog must not multiply itself once a second.
 *
 * Sweeper, every 500 ms: a running job is an orphan when its lease is over
 * by the database's clock, or when the session lock of its worker's name is
 * free, which a killed process gives up at once.  The update repeats the
 * guard (running, same token), so a job that was settled in between stays
 * settled.  It goes back to retry at once; after its last attempt it is dead
 * ("worker_lost"), so a job that kills its worker cannot do so for ever.
 *
 * Pending entries of consumers that are gone are deleted (XAUTOCLAIM, then
 * XACK and XDEL): if their row still waits, the relay rings it anew.
 *
 * Scheduler, every second: whoever inserts (schedule, tick) first leaves the
 * job.  The clock is the database's.
 */

#include <stdio.h>
#include <stdlib.h>

#include "hm_time.h"
#include "hmw.h"


#define HMW_TICK           200           /* ms */
#define HMW_ORPHANS        500
#define HMW_SCHEDULE       1000
#define HMW_PENDING        10000
#define HMW_IDLE           "30000"       /* ms, of a pending entry */
#define HMW_STREAM_FULL    2000
#define HMW_RELAY_BATCH    500


static void hmw_relay(hmw_t *w, const char *kind);
static long long hmw_stream_room(hmw_t *w, const char *stream);
static PGresult *hmw_relay_take(hmw_t *w, const char *kind, long long n);
static void hmw_relay_ring(hmw_t *w, const char *stream, PGresult *res);
static void hmw_orphans(hmw_t *w);
static void hmw_pending(hmw_t *w, const char *stream);
static void hmw_schedule(hmw_t *w);
static hm_rc_t hmw_schedule_one(hmw_t *w, const char *name, const char *kind,
    const char *tick);


void
hmw_keeper(hmw_t *w)
{
    int64_t               now, orphans, pending, schedule;
    const char           *stream;
    const hmw_handler_t  *h;

    orphans = 0;
    pending = 0;
    schedule = 0;
    w->db.keeper = true;

    while (!hmw_quit) {
        hmw_reread = 0;                  /* the keeper holds no keys */

        if (hmw_db_connect(w, &w->db) != HM_OK) {
            hmw_sleep(100);
            continue;
        }

        now = hmw_ms();

        if (now - orphans >= HMW_ORPHANS) {
            orphans = now;
            hmw_orphans(w);
        }

        if (now - schedule >= HMW_SCHEDULE) {
            schedule = now;
            hmw_schedule(w);
        }

        for (h = hmw_handlers; h->kind != NULL; h++) {
            if (hmw_kind(h->kind)->stream != NULL && hmw_rds_up(w)) {
                hmw_relay(w, h->kind);
            }
        }

        if (now - pending >= HMW_PENDING) {
            pending = now;

            for (h = hmw_handlers; h->kind != NULL; h++) {
                stream = hmw_kind(h->kind)->stream;

                if (stream != NULL) {
                    hmw_pending(w, stream);
                }
            }
        }

        hmw_sleep(HMW_TICK);
    }
}


static void
hmw_relay(hmw_t *w, const char *kind)
{
    long long    room;
    PGresult    *res;
    const char  *stream;

    stream = hmw_kind(kind)->stream;

    room = hmw_stream_room(w, stream);
    if (room <= 0) {
        return;
    }

    res = hmw_relay_take(w, kind, room < HMW_RELAY_BATCH ? room
                                                          : HMW_RELAY_BATCH);
    if (res == NULL) {
        return;
    }

    hmw_relay_ring(w, stream, res);
    PQclear(res);
}


static long long
hmw_stream_room(hmw_t *w, const char *stream)
{
    long long    room;
    redisReply  *reply;

    reply = hmw_rds_command(w, "length", "XLEN %s", stream);
    if (reply == NULL) {
        return 0;
    }

    /* A key of another type, no right: ring nothing, the children poll. */

    room = reply->type == REDIS_REPLY_INTEGER
           ? HMW_STREAM_FULL - reply->integer : 0;
    freeReplyObject(reply);

    return room;
}


static PGresult *
hmw_relay_take(hmw_t *w, const char *kind, long long n)
{
    char                limit[24];
    PGresult           *res;
    const char         *values[2] = { kind, limit };
    static const char   sql[] =
        "update jobs set published_at = now() where id = any (array("
        "select id from jobs where state in ('ready', 'retry')"
        " and run_at <= now() and kind = $1 and (published_at is null"
        " or published_at < now() - interval '1 second')"
        " order by run_at limit $2 for update skip locked)) returning id";

    snprintf(limit, sizeof(limit), "%lld", n);

    if (hmw_db_begin(&w->db, HMW_ACTOR_SWEEPER) != HM_OK) {
        return NULL;
    }

    res = hmw_db_query(&w->db, "relay", sql, 2, values);

    if (res == NULL || PQntuples(res) == 0
        || hmw_db_commit(&w->db) != HM_OK)
    {
        PQclear(res);
        hmw_db_rollback(&w->db);
        return NULL;
    }

    return res;
}


static void
hmw_relay_ring(hmw_t *w, const char *stream, PGresult *res)
{
    int          i, n, refused;
    redisReply  *reply;

    n = PQntuples(res);
    refused = 0;

    for (i = 0; i < n; i++) {
        redisAppendCommand(w->rds.ctx, "XADD %s * id %s", stream,
                           PQgetvalue(res, i, 0));
    }

    for (i = 0; i < n; i++) {
        if (redisGetReply(w->rds.ctx, (void **) &reply) != REDIS_OK) {
            hmw_rds_failed(&w->rds, "ring");
            return;
        }

        refused += reply->type == REDIS_REPLY_ERROR;
        freeReplyObject(reply);
    }

    if (refused > 0) {
        hmw_log(HMW_WARN, "redis.refused", NULL,
                "%d of %d entries were refused: memory full?", refused, n);
    }
}


/*
 * Names are locked by session with class 2 (db.c).  The shared try-lock is
 * of the transaction: it ends with it, and two keepers do not mislead each
 * other into seeing a living worker.
 *
 * Of several orphans of one key only the first may wait again; the partial
 * unique index allows no second.
 */

static void
hmw_orphans(hmw_t *w)
{
    int                i, n;
    PGresult          *res;
    static const char  sql[] =
        "with r as materialized (select id, token, worker, unique_key,"
        "  lease_until < now() as late from jobs where state = 'running'"
        "  limit 1000),"
        " n as materialized (select distinct worker from r),"
        " f as materialized (select worker, worker is null"
        "  or pg_try_advisory_xact_lock_shared(hashtextextended(worker, 2))"
        "  as free from n),"
        " o as materialized (select r.id, r.token, row_number() over"
        "  (partition by coalesce(r.unique_key, r.id::text) order by r.id)"
        "  as nth from r join f on f.worker is not distinct from r.worker"
        "  where r.late or f.free),"
        " s as materialized (select o.id, o.token,"
        "  case when j.attempt >= j.max_attempts then 'dead'"
        "  when o.nth > 1 or exists (select from jobs x where"
        "   x.unique_key = j.unique_key and x.state in ('ready', 'retry'))"
        "  then 'cancelled' else 'retry' end as state"
        "  from o join jobs j on j.id = o.id)"
        " update jobs j set state = s.state, cause = case s.state"
        "  when 'cancelled' then 'superseded' else 'worker_lost' end,"
        "  run_at = now(), lease_until = null, published_at = null,"
        "  finished_at = case when s.state = 'retry' then null"
        "  else now() end, updated_at = now(), version = version + 1"
        " from s where j.id = s.id and j.token = s.token"
        " and j.state = 'running' returning j.id, j.state";

    if (hmw_db_begin(&w->db, HMW_ACTOR_SWEEPER) != HM_OK) {
        return;
    }

    res = hmw_db_query(&w->db, "orphans", sql, 0, NULL);

    if (res == NULL || hmw_db_commit(&w->db) != HM_OK) {
        PQclear(res);
        hmw_db_rollback(&w->db);
        return;
    }

    n = PQntuples(res);

    for (i = 0; i < n; i++) {
        hmw_log(HMW_WARN, "job.orphan", PQgetvalue(res, i, 0),
                "its worker is gone: %s", PQgetvalue(res, i, 1));
    }

    PQclear(res);
}


/* [next, [[entry id, fields], ...], [deleted id, ...]] */

static void
hmw_pending(hmw_t *w, const char *stream)
{
    size_t       i;
    redisReply  *reply, *entries, *entry;

    if (!hmw_rds_up(w)) {
        return;
    }

    reply = hmw_rds_command(w, "autoclaim",
                            "XAUTOCLAIM %s %s %s " HMW_IDLE " 0-0 COUNT 100",
                            stream, HM_JOB_GROUP, w->consumer);
    if (reply == NULL) {
        return;
    }

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2) {

        /* NOGROUP: after a FLUSHALL, until a child makes the group anew. */

        freeReplyObject(reply);
        return;
    }

    if (reply->elements > 2 && reply->element[2]->elements > 0) {
        hmw_log(HMW_WARN, "redis.trimmed", NULL,
                "%zu pending entries had been deleted by others",
                reply->element[2]->elements);
    }

    entries = reply->element[1];

    for (i = 0; i < entries->elements; i++) {
        entry = entries->element[i];

        if (entry->type == REDIS_REPLY_ARRAY && entry->elements > 0
            && entry->element[0]->type == REDIS_REPLY_STRING)
        {
            hmw_rds_drop(w, stream, entry->element[0]->str);
        }
    }

    freeReplyObject(reply);
}


static void
hmw_schedule(hmw_t *w)
{
    int                 i, n;
    PGresult           *res;
    static const char   sql[] =
        "select name, kind, tick from (select name, kind, last_tick,"
        " date_bin(every, now(), timestamptz 'epoch') as tick"
        " from job_schedules) s where last_tick is null or last_tick < tick";

    if (hmw_db_begin(&w->db, HMW_ACTOR_SWEEPER) != HM_OK) {
        return;
    }

    res = hmw_db_query(&w->db, "schedules", sql, 0, NULL);

    n = res == NULL ? 0 : PQntuples(res);

    for (i = 0; i < n; i++) {
        if (hmw_schedule_one(w, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1),
                             PQgetvalue(res, i, 2)) != HM_OK)
        {
            break;
        }
    }

    PQclear(res);

    if (n > 0 && i == n) {
        (void) hmw_db_commit(&w->db);
    }

    hmw_db_rollback(&w->db);
}


/* A tick missed while everything was down is made up for once, not n times. */

static hm_rc_t
hmw_schedule_one(hmw_t *w, const char *name, const char *kind,
    const char *tick)
{
    char                id[HM_UUID_TEXT + 1], attempts[12];
    hm_uuid_t           uuid;
    const char         *values[5] = { name, kind, tick, id, attempts };
    static const char   sql[] =
        "with t as (insert into job_ticks (name, tick) values ($1, $3)"
        "  on conflict do nothing returning name),"
        " u as (update job_schedules s set last_tick = $3"
        "  where s.name = $1 and (last_tick is null or last_tick < $3))"
        " insert into jobs (id, kind, unique_key, max_attempts)"
        " select $4, $2, 'tick:' || t.name, $5 from t"
        " on conflict (unique_key) where state in ('ready', 'retry')"
        " do nothing";

    if (hm_uuid7(&uuid, hm_now()) != HM_OK) {
        return HM_ERROR;
    }

    hm_uuid_format(&uuid, id);
    id[HM_UUID_TEXT] = '\0';
    snprintf(attempts, sizeof(attempts), "%u", hmw_kind(kind)->max_attempts);

    return hmw_db_do(&w->db, "tick", sql, 5, values);
}
