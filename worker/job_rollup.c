/*
 * analytics.rollup: the figures of a person's metric per hour, day, week and
 * month, kept sealed beside the readings.
 *
 * DESIGN.  The unique key is the argument: rollup:<user>:<type>:<hour> for
 * the buckets that hold a reading of that hour, or ":*" for every bucket of
 * the type (imports).  Nothing is added to old figures, so a job that runs
 * twice, late or after a delete gives the same result as one that ran once.
 * Of an hour's key the hour is computed from its readings and the larger
 * buckets from the figures of their parts (rollup_merge.c); "*" computes all
 * four sizes from all readings in one pass (rollup_pass.c).
 *
 * TIME ZONE.  PostgreSQL computes every border (date_trunc in the person's
 * zone, also for hours: zones with half hours; weeks begin on Monday).  An
 * hour of the key may touch two buckets of each size.
 *
 * TWO JOBS OF ONE METRIC would overwrite each other's month with what they
 * had read before.  A transaction lock per person and metric makes them take
 * turns; who does not get it for a while leaves and comes back.
 *
 * A WRITER STILL OPEN.  A write leaves its job with ON CONFLICT DO NOTHING,
 * so it can rely on a row that we claimed a moment before it commits, and we
 * would not see its reading.  Before reading we therefore wait for the
 * transactions that were writing to `jobs` when we started (as CREATE INDEX
 * CONCURRENTLY does).  If one lasts, we do the work and run once more later.
 *
 * KEYS.  Opened with the version of each row, sealed with the active one; if
 * that is no longer active at the end, everything is rolled back and done
 * once more.
 */

#include <stdio.h>
#include <stdlib.h>

#include "hm_metric.h"
#include "hm_time.h"
#include "hmw_rollup.h"


#define HMW_EVER_FROM   "-4000000000000000"   /* 1873; none is before 1900 */
#define HMW_EVER_UNTIL  "9000000000000000"    /* 2285; exact as a double */
#define HMW_TURN_MS     300              /* wait for the metric's turn */
#define HMW_QUIET_MS    2000             /* wait for open writers */


const char *const  hmw_units[HMW_UNITS] = {
    "hour", "day", "week", "month"
};

/* A process does one job at a time. */
static hmw_rollup_t  hmw_rollup;


static hmw_result_t hmw_rollup_key_of(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_turn(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_quiet(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_zone(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_targets(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_finish(hmw_rollup_t *r);


typedef hmw_result_t (*hmw_rollup_step_t)(hmw_rollup_t *r);

static hmw_result_t
hmw_rollup_load_keys(hmw_rollup_t *r)
{
    return hmw_keys_load(r->w, r->job);
}

static const hmw_rollup_step_t  hmw_rollup_steps[] = {
    hmw_rollup_key_of,
    hmw_rollup_turn,
    hmw_rollup_quiet,
    hmw_rollup_zone,
    hmw_rollup_load_keys,
    hmw_rollup_targets,
    hmw_rollup_stored,
    hmw_rollup_pass,
    hmw_rollup_merge,
    hmw_rollup_empty,
    hmw_rollup_finish
};


hmw_result_t
hmw_job_rollup(hmw_t *w, hmw_job_t *job)
{
    size_t         i;
    hmw_result_t   result;
    hmw_rollup_t  *r = &hmw_rollup;

    memset(r, 0, sizeof(hmw_rollup_t));
    r->w = w;
    r->job = job;

    result = HMW_DONE;

    for (i = 0; i < sizeof(hmw_rollup_steps) / sizeof(hmw_rollup_steps[0])
                && result == HMW_DONE; i++)
    {
        result = hmw_rollup_steps[i](r);
    }

    return result;
}


static hmw_result_t
hmw_rollup_key_of(hmw_rollup_t *r)
{
    hm_str_t            name;
    hmw_job_t          *job = r->job;
    const hm_metric_t  *m;

    name.data = (unsigned char *) job->unique_key;
    name.len = strlen(job->unique_key);

    /* The column is the subject; a key that names another is a forgery. */

    if (hmw_rollup_key(&r->key, name) != HM_OK
        || strcmp(r->key.user_text, job->subject) != 0)
    {
        job->cause = "bad_key";
        return HMW_BAD;
    }

    if (!r->key.custom) {
        name.data = (unsigned char *) r->key.metric;
        name.len = strlen(r->key.metric);
        m = hm_metric_find(name);
        r->object = m != NULL && m->kind == HM_METRIC_OBJECT;
    }

    return HMW_DONE;
}


/* Roll-ups are short: waiting a little is cheaper than coming back. */

static hmw_result_t
hmw_rollup_turn(hmw_rollup_t *r)
{
    bool         got;
    char         name[192];
    int64_t      until;
    PGresult    *res;
    const char  *values[1] = { name };

    snprintf(name, sizeof(name), "%s:%s:%s", r->key.user_text, r->key.metric,
             r->key.slug_hex);
    until = hmw_ms() + HMW_TURN_MS;

    for ( ;; ) {
        res = hmw_db_query(&r->w->db, "turn",
                           "select pg_try_advisory_xact_lock("
                           "hashtextextended($1, 3))", 1, values);
        if (res == NULL) {
            return HMW_RETRY;
        }

        got = *PQgetvalue(res, 0, 0) == 't';
        PQclear(res);

        if (got) {
            return HMW_DONE;
        }

        if (hmw_quit || hmw_ms() > until) {
            r->job->cause = "busy";
            return HMW_BUSY;
        }

        hmw_sleep(5);
    }
}


static hmw_result_t
hmw_rollup_quiet(hmw_rollup_t *r)
{
    bool                quiet;
    char               *holders;
    int64_t             until;
    PGresult           *res;
    const char         *values[1];
    static const char   who[] =
        "select coalesce(array_agg(virtualtransaction), '{}')"
        " from pg_locks where locktype = 'relation' and granted"
        " and relation = 'jobs'::regclass and mode = 'RowExclusiveLock'"
        " and pid <> pg_backend_pid()";
    static const char   still[] =
        "select not exists (select from pg_locks where"
        " locktype = 'virtualxid' and granted"
        " and virtualxid = any ($1::text[]))";

    res = hmw_db_query(&r->w->db, "writers", who, 0, NULL);
    if (res == NULL) {
        return HMW_RETRY;
    }

    holders = strdup(PQgetvalue(res, 0, 0));
    PQclear(res);

    if (holders == NULL) {
        return HMW_RETRY;
    }

    quiet = strcmp(holders, "{}") == 0;
    until = hmw_ms() + HMW_QUIET_MS;
    values[0] = holders;

    while (!quiet && hmw_ms() < until && !hmw_quit) {
        res = hmw_db_query(&r->w->db, "writers", still, 1, values);
        if (res == NULL) {
            free(holders);
            return HMW_RETRY;
        }

        quiet = *PQgetvalue(res, 0, 0) == 't';
        PQclear(res);

        if (!quiet) {
            hmw_sleep(3);
        }
    }

    free(holders);
    r->job->echo = !quiet;

    return HMW_DONE;
}


/* A name that PostgreSQL does not know counts as UTC: it must not fail. */

static hmw_result_t
hmw_rollup_zone(hmw_rollup_t *r)
{
    hm_rc_t             rc;
    PGresult           *res;
    hmw_db_t           *db = &r->w->db;
    const char         *values[1] = { r->job->subject };
    const char         *zone[1] = { r->zone };
    static const char   sql[] =
        "select coalesce((select time_zone from user_preferences"
        " where user_id = $1), 'UTC')";

    res = hmw_db_query(db, "zone", sql, 1, values);
    if (res == NULL) {
        return HMW_RETRY;
    }

    snprintf(r->zone, sizeof(r->zone), "%s", PQgetvalue(res, 0, 0));
    PQclear(res);

    if (strcmp(r->zone, "UTC") == 0) {
        return HMW_DONE;
    }

    if (hmw_db_do(db, "savepoint", "savepoint zone", 0, NULL) != HM_OK) {
        return HMW_RETRY;
    }

    rc = hmw_db_do(db, "zone", "select date_trunc('day', now(), $1)", 1,
                   zone);

    if (rc != HM_OK && hmw_db_error_is(db, "22023")) {
        memcpy(r->zone, "UTC", 4);
        rc = hmw_db_do(db, "savepoint", "rollback to zone", 0, NULL);
    }

    return rc == HM_OK ? HMW_DONE : HMW_RETRY;
}


/*
 * The buckets that the key's hour touches, and the span of rows they need.
 * The first and the last microsecond of the hour lie in at most two buckets
 * of each size.
 */


/*
 * A sealed value is bound to its row's id, so a bucket that exists keeps its
 * id and is updated.  For "*" all buckets go and come anew.
 */


/*
 * The readings in order of time, a page at a time and each page from where
 * the last one ended.  A cursor would be planned for each job anew, and its
 * plan cost more than the pass.
 */


/*
 * The buckets that the key's hour touches: its first and its last
 * microsecond lie in at most two of each size.  Read anew are the readings
 * of the hours alone.
 */

static hmw_result_t
hmw_rollup_targets(hmw_rollup_t *r)
{
    int                 i, n;
    char                hour[24];
    int64_t             from, until;
    PGresult           *res;
    hmw_target_t       *t;
    const char         *values[2] = { hour, r->zone };
    static const char   sql[] =
        "with x (t) as (select to_timestamp($1::bigint * 3600)"
        "  + s * interval '1 microsecond' from (values (0), (3599999999))"
        "  v (s)),"
        " u (n, unit, step) as (values (0, 'hour', interval '1 hour'),"
        "  (1, 'day', interval '1 day'), (2, 'week', interval '7 days'),"
        "  (3, 'month', interval '1 month'))"
        " select distinct n, date_trunc(unit, t, $2), (date_trunc(unit,"
        "  t at time zone $2) + step) at time zone $2 from x, u"
        " order by 1, 2";

    /* behind each id of the moment before */
    memset(r->after_id, 'f', HM_UUID_TEXT);
    r->after_id[8] = r->after_id[13] = '-';
    r->after_id[18] = r->after_id[23] = '-';

    if (r->key.all) {
        r->units = HMW_UNITS;
        snprintf(r->after, sizeof(r->after), "%s", HMW_EVER_FROM);
        snprintf(r->until, sizeof(r->until), "%s", HMW_EVER_UNTIL);
        return HMW_DONE;
    }

    snprintf(hour, sizeof(hour), "%lld", (long long) r->key.hour);

    res = hmw_db_query_bin(&r->w->db, "borders", sql, 2, values);
    if (res == NULL) {
        return HMW_RETRY;
    }

    n = PQntuples(res);
    from = INT64_MAX;
    until = INT64_MIN;

    for (i = 0; i < n && i < HMW_TARGETS; i++) {
        t = &r->targets[r->ntargets++];
        t->unit = (int) hm_get_u32(PQgetvalue(res, i, 0));
        t->start = (int64_t) hm_get_u64(PQgetvalue(res, i, 1));
        t->end = (int64_t) hm_get_u64(PQgetvalue(res, i, 2));

        if (t->unit == HMW_HOUR) {
            from = t->start < from ? t->start : from;
            until = t->start > until ? t->start : until;
        }
    }

    PQclear(res);

    /* an hour by the wall clock may last longer when the clock is put back */
    r->units = 1;
    snprintf(r->after, sizeof(r->after), "%lld", (long long) from - 1);
    snprintf(r->until, sizeof(r->until), "%lld",
             (long long) until + 2 * 3600 * HM_USEC);

    return HMW_DONE;
}


hmw_target_t *
hmw_rollup_target(hmw_rollup_t *r, int unit, int64_t start)
{
    unsigned  k;

    for (k = 0; k < r->ntargets; k++) {
        if (r->targets[k].unit == unit && r->targets[k].start == start) {
            return &r->targets[k];
        }
    }

    return NULL;
}


static hmw_result_t
hmw_rollup_finish(hmw_rollup_t *r)
{
    bool          active;
    char          version[12];
    PGresult     *res;
    hmw_audit_t   row;
    const char   *values[2] = { r->job->subject, version };

    snprintf(version, sizeof(version), "%u", r->w->keys->active);

    res = hmw_db_query(&r->w->db, "still active",
                       "select exists (select from user_keys"
                       " where user_id = $1 and version = $2"
                       " and state = 'active')", 2, values);
    if (res == NULL) {
        return HMW_RETRY;
    }

    active = *PQgetvalue(res, 0, 0) == 't';
    PQclear(res);

    if (!active) {
        r->job->cause = "key_rotated";
        return HMW_BUSY;                 /* again, with the new key */
    }

    memset(&row, 0, sizeof(row));
    row.action = HM_AUDIT_JOB;
    row.resource = HM_AUDIT_OF_ANALYTICS;
    row.outcome = 200;
    row.actor = r->job->actor;
    row.subject = r->job->subject;
    row.first = r->first[0] == '\0' ? NULL : r->first;
    row.last = r->last[0] == '\0' ? row.first : r->last;
    row.items = r->items;

    return hmw_audit_add(r->w, r->job, &row) == HM_OK ? HMW_DONE : HMW_RETRY;
}


hmw_result_t
hmw_rollup_open(hmw_rollup_t *r, const PGresult *res, int row, int col,
    const char *table, const char *column, unsigned char *plain, size_t size,
    hm_str_t *json, const char *cause)
{
    uint32_t              version;
    hm_str_t              env;
    hm_place_t            place;
    const unsigned char  *dek;

    version = hm_row_u32(res, row, col + 1);

    dek = hm_keys_dek(r->w->keys, version);
    if (dek == NULL) {
        r->job->cause = "key_version_missing";
        return HMW_RETRY;
    }

    env = hm_row_str(res, row, col + 2);

    place.table = table;
    place.column = column;
    place.row = hm_row_uuid(res, row, col);
    place.owner = r->key.user;

    if (env.len < HM_ENVELOPE_OVER || env.len - HM_ENVELOPE_OVER > size
        || hm_open(plain, json, dek, version, &place, env) != HM_OK)
    {
        r->job->cause = cause;
        return HMW_RETRY;
    }

    return HMW_DONE;
}
