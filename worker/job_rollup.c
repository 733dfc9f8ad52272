/*
 * analytics.rollup: the figures of a person's metric per hour, day, week and
 * month, kept sealed beside the readings.
 *
 * DESIGN.  The unique key is the argument: rollup:<user>:<type>:<hour> for
 * the buckets that hold a reading of that hour, or ":*" for every bucket of
 * the type (imports).  Nothing is added to old figures: each bucket is
 * computed from its rows in one ordered pass, so a job that runs twice, late
 * or after a delete gives the same result as one that ran once.  One pass
 * serves all four sizes: rows come in time order with the starts of their
 * buckets, and a bucket is written when the next one begins, so memory does
 * not grow with the data.
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

#include "hm_crypto.h"
#include "hm_metric.h"
#include "hm_time.h"
#include "hmw.h"


#define HMW_UNITS       4                /* hour, day, week, month */
#define HMW_TARGETS     (HMW_UNITS * 2)
#define HMW_WRITES      64               /* sent in one go */
#define HMW_VALUE_MAX   1024             /* an opened value; they are short */
#define HMW_TURN_MS     300              /* wait for the metric's turn */
#define HMW_QUIET_MS    2000             /* wait for open writers */


/* Microseconds since 2000 (PostgreSQL's own count) as a time. */
#define HMW_FROM_US(x)                                                        \
    "(timestamptz '2000-01-01 00:00:00+00' + (" x ")::bigint"                 \
    " * interval '1 microsecond')"


typedef struct {
    unsigned char    *room;
    size_t            size;
    size_t           *used;
} hmw_scratch_t;


typedef struct {
    int               unit;
    int64_t           start;             /* us since 2000, as PostgreSQL's */
    hm_uuid_t         id;
    bool              exists;
    bool              written;
} hmw_target_t;


typedef struct {
    bool              open;
    int64_t           start;
    hmw_bucket_t      bucket;
} hmw_open_t;


typedef struct {
    bool              update;
    unsigned char     id[16];
    unsigned char     start[8];
    unsigned char     dek_version[4];
    int               unit;
    size_t            len;
    unsigned char     sealed[1024 + HM_ENVELOPE_OVER];
} hmw_write_t;


typedef struct {
    hmw_t            *w;
    hmw_job_t        *job;
    hmw_rollup_key_t  key;
    char              zone[64];
    bool              object;
    unsigned          ntargets;          /* 0 with key.all */
    hmw_target_t      targets[HMW_TARGETS];
    char              from[24];          /* us since 2000 */
    char              until[24];
    hmw_open_t        open[HMW_UNITS];
    unsigned          nwrites;
    hmw_write_t       writes[HMW_WRITES];
    int64_t           items;
    char              first[HM_UUID_TEXT + 1];
    char              last[HM_UUID_TEXT + 1];
} hmw_rollup_t;


static const char *const  hmw_units[HMW_UNITS] = {
    "hour", "day", "week", "month"
};

/* A process does one job at a time. */
static hmw_rollup_t  hmw_rollup;


static hmw_result_t hmw_rollup_key_of(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_turn(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_quiet(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_zone(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_targets(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_existing(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_cursor(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_pass(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_row(hmw_rollup_t *r, PGresult *res, int i);
static hmw_result_t hmw_rollup_open_value(hmw_rollup_t *r, PGresult *res,
    int i, double *first, double *second);
static hmw_target_t *hmw_rollup_target(hmw_rollup_t *r, int unit,
    int64_t start);
static hmw_result_t hmw_rollup_close(hmw_rollup_t *r, int unit);
static hmw_result_t hmw_rollup_seal(hmw_rollup_t *r, hmw_write_t *write,
    const hm_uuid_t *id, const hmw_bucket_t *bucket);
static hmw_result_t hmw_rollup_flush(hmw_rollup_t *r);
static int hmw_rollup_send(hmw_rollup_t *r, hmw_write_t *write);
static hmw_result_t hmw_rollup_empty(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_finish(hmw_rollup_t *r);
static void *hmw_scratch(void *ctx, size_t size);
static int64_t hmw_be64(const char *p);
static void hmw_put64(unsigned char *p, int64_t n);


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
    hmw_rollup_existing,
    hmw_rollup_cursor,
    hmw_rollup_pass,
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

static hmw_result_t
hmw_rollup_targets(hmw_rollup_t *r)
{
    int                 i, u, n;
    char                hour[24];
    int64_t             start;
    PGresult           *res;
    const char         *values[2] = { hour, r->zone };
    static const char   sql[] =
        "with h as (select to_timestamp($1::bigint * 3600) as a,"
        "  to_timestamp($1::bigint * 3600) + interval '1 hour'"
        "  - interval '1 microsecond' as b),"
        " x as (select a as t from h union all select b from h)"
        " select date_trunc('hour', t, $2), date_trunc('day', t, $2),"
        " date_trunc('week', t, $2), date_trunc('month', t, $2),"
        " least(min(date_trunc('week', t, $2)) over (),"
        "  min(date_trunc('month', t, $2)) over ()),"
        " greatest("
        "  max((date_trunc('week', t at time zone $2) + interval '7 days')"
        "   at time zone $2) over (),"
        "  max((date_trunc('month', t at time zone $2) + interval '1 month')"
        "   at time zone $2) over ()) from x";

    if (r->key.all) {
        return HMW_DONE;
    }

    snprintf(hour, sizeof(hour), "%lld", (long long) r->key.hour);

    res = hmw_db_query_bin(&r->w->db, "borders", sql, 2, values);
    if (res == NULL) {
        return HMW_RETRY;
    }

    n = PQntuples(res);

    for (i = 0; i < n; i++) {
        for (u = 0; u < HMW_UNITS; u++) {
            start = hmw_be64(PQgetvalue(res, i, u));

            if (hmw_rollup_target(r, u, start) == NULL) {
                r->targets[r->ntargets].unit = u;
                r->targets[r->ntargets++].start = start;
            }
        }
    }

    snprintf(r->from, sizeof(r->from), "%lld",
             (long long) hmw_be64(PQgetvalue(res, 0, 4)));
    snprintf(r->until, sizeof(r->until), "%lld",
             (long long) hmw_be64(PQgetvalue(res, 0, 5)));
    PQclear(res);

    return HMW_DONE;
}


/*
 * A sealed value is bound to its row's id, so a bucket that exists keeps its
 * id and is updated.  For "*" all buckets go and come anew.
 */

static hmw_result_t
hmw_rollup_existing(hmw_rollup_t *r)
{
    int                 i, u, n;
    char                units[128], starts[256];
    size_t              a, b;
    unsigned            k;
    PGresult           *res;
    hmw_target_t       *t;
    const char         *values[5] = { r->job->subject, r->key.metric,
                                      r->key.slug_hex, units, starts };
    static const char   clear[] =
        "delete from health_metrics_aggregation where user_id = $1"
        " and metric = $2 and slug_index = decode($3, 'hex')";
    static const char   sql[] =
        "select a.id, a.start, a.bucket"
        " from unnest($4::text[], $5::bigint[]) t (bucket, us)"
        " join health_metrics_aggregation a on a.user_id = $1"
        " and a.metric = $2 and a.slug_index = decode($3, 'hex')"
        " and a.bucket = t.bucket and a.start = " HMW_FROM_US("t.us");

    if (r->key.all) {
        return hmw_db_do(&r->w->db, "clear", clear, 3, values) == HM_OK
               ? HMW_DONE : HMW_RETRY;
    }

    a = 0;
    b = 0;

    for (k = 0; k < r->ntargets; k++) {
        a += (size_t) snprintf(units + a, sizeof(units) - a, "%c%s",
                               k == 0 ? '{' : ',',
                               hmw_units[r->targets[k].unit]);
        b += (size_t) snprintf(starts + b, sizeof(starts) - b, "%c%lld",
                               k == 0 ? '{' : ',',
                               (long long) r->targets[k].start);
    }

    snprintf(units + a, sizeof(units) - a, "}");
    snprintf(starts + b, sizeof(starts) - b, "}");

    res = hmw_db_query_bin(&r->w->db, "existing", sql, 5, values);
    if (res == NULL) {
        return HMW_RETRY;
    }

    n = PQntuples(res);

    for (i = 0; i < n; i++) {
        for (u = 0; u < HMW_UNITS; u++) {
            t = hmw_rollup_target(r, u, hmw_be64(PQgetvalue(res, i, 1)));

            if (t != NULL
                && strcmp(PQgetvalue(res, i, 2), hmw_units[u]) == 0)
            {
                t->exists = true;
                memcpy(t->id.b, PQgetvalue(res, i, 0), 16);
            }
        }
    }

    PQclear(res);

    return HMW_DONE;
}


static hmw_result_t
hmw_rollup_cursor(hmw_rollup_t *r)
{
    int                 n;
    char                sql[1024];
    const char         *values[6];

    n = 0;
    values[n++] = r->job->subject;
    values[n++] = r->key.metric;
    values[n++] = r->zone;
    values[n++] = r->key.slug_hex;

    if (!r->key.all) {
        values[n++] = r->from;
        values[n++] = r->until;
    }

    snprintf(sql, sizeof(sql),
             "declare readings no scroll cursor for select id, dek_version,"
             " value, date_trunc('hour', \"timestamp\", $3),"
             " date_trunc('day', \"timestamp\", $3),"
             " date_trunc('week', \"timestamp\", $3),"
             " date_trunc('month', \"timestamp\", $3)"
             " from health_data where user_id = $1::uuid and data_type = $2"
             " and coalesce(slug_index, '') = decode($4, 'hex') %s"
             " order by \"timestamp\"",
             r->key.all ? "" : "and \"timestamp\" >= " HMW_FROM_US("$5")
             " and \"timestamp\" < " HMW_FROM_US("$6"));

    return hmw_db_once(&r->w->db, "readings", sql, n, values) == HM_OK
           ? HMW_DONE : HMW_RETRY;
}


static hmw_result_t
hmw_rollup_pass(hmw_rollup_t *r)
{
    int            i, n, unit;
    PGresult      *res;
    hmw_result_t   result;

    do {
        if (hmw_beat(r->w, r->job) != HM_OK) {
            return HMW_RETRY;
        }

        res = hmw_db_query_bin(&r->w->db, "fetch",
                               "fetch forward 500 from readings", 0, NULL);
        if (res == NULL) {
            return HMW_RETRY;
        }

        n = PQntuples(res);
        result = HMW_DONE;

        for (i = 0; i < n && result == HMW_DONE; i++) {
            result = hmw_rollup_row(r, res, i);
        }

        PQclear(res);

        if (result == HMW_DONE) {
            result = hmw_rollup_flush(r);
        }

        if (result != HMW_DONE) {
            return result;
        }

    } while (n > 0);

    for (unit = 0; unit < HMW_UNITS; unit++) {
        result = hmw_rollup_close(r, unit);

        if (result != HMW_DONE) {
            return result;
        }
    }

    return hmw_rollup_flush(r);
}


static hmw_result_t
hmw_rollup_row(hmw_rollup_t *r, PGresult *res, int i)
{
    int            unit;
    double         first, second;
    int64_t        start;
    hm_uuid_t      id;
    hmw_open_t    *open;
    hmw_result_t   result;

    result = hmw_rollup_open_value(r, res, i, &first, &second);
    if (result != HMW_DONE) {
        return result;
    }

    memcpy(id.b, PQgetvalue(res, i, 0), 16);
    hm_uuid_format(&id, r->items == 0 ? r->first : r->last);
    r->items++;

    for (unit = 0; unit < HMW_UNITS; unit++) {
        start = hmw_be64(PQgetvalue(res, i, 3 + unit));
        open = &r->open[unit];

        if (!open->open || open->start != start) {
            result = hmw_rollup_close(r, unit);

            if (result != HMW_DONE) {
                return result;
            }

            open->open = true;
            open->start = start;
            hmw_bucket_init(&open->bucket, r->object);
        }

        hmw_bucket_add(&open->bucket, first, second);
    }

    return HMW_DONE;
}


static hmw_result_t
hmw_rollup_open_value(hmw_rollup_t *r, PGresult *res, int i, double *first,
    double *second)
{
    hm_rc_t               rc;
    uint32_t              version;
    hm_str_t              env, json;
    hm_place_t            place;
    unsigned char        *p;
    unsigned char         plain[HMW_VALUE_MAX];
    const unsigned char  *dek;

    p = (unsigned char *) PQgetvalue(res, i, 1);
    version = (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16
              | (uint32_t) p[2] << 8 | p[3];

    dek = hm_keys_dek(r->w->keys, version);
    if (dek == NULL) {
        r->job->cause = "key_version_missing";
        return HMW_RETRY;
    }

    env.data = (unsigned char *) PQgetvalue(res, i, 2);
    env.len = (size_t) PQgetlength(res, i, 2);

    place.table = "health_data";
    place.column = "value";
    place.owner = r->key.user;
    memcpy(place.row.b, PQgetvalue(res, i, 0), 16);

    if (env.len < HM_ENVELOPE_OVER
        || env.len - HM_ENVELOPE_OVER > sizeof(plain)
        || hm_open(plain, &json, dek, version, &place, env) != HM_OK)
    {
        r->job->cause = "value_not_opened";
        return HMW_RETRY;
    }

    rc = hmw_value_read(json, r->object, first, second);
    hm_wipe(plain, sizeof(plain));

    if (rc != HM_OK) {
        r->job->cause = "value_not_read";
        return HMW_RETRY;
    }

    return HMW_DONE;
}


static hmw_target_t *
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


/* The bucket that is open for this size is complete: keep it, if wanted. */

static hmw_result_t
hmw_rollup_close(hmw_rollup_t *r, int unit)
{
    hm_uuid_t      id;
    hmw_open_t    *open = &r->open[unit];
    hmw_write_t   *write;
    hmw_target_t  *target;
    hmw_result_t   result;

    if (!open->open) {
        return HMW_DONE;
    }

    open->open = false;
    target = hmw_rollup_target(r, unit, open->start);

    if (!r->key.all && target == NULL) {
        return HMW_DONE;
    }

    if (r->nwrites == HMW_WRITES) {
        result = hmw_rollup_flush(r);

        if (result != HMW_DONE) {
            return result;
        }
    }

    write = &r->writes[r->nwrites];
    write->update = target != NULL && target->exists;
    write->unit = unit;
    hmw_put64(write->start, open->start);

    if (write->update) {
        id = target->id;

    } else if (hm_uuid7(&id, hm_now()) != HM_OK) {
        return HMW_RETRY;
    }

    if (target != NULL) {
        target->written = true;
    }

    r->nwrites++;

    return hmw_rollup_seal(r, write, &id, &open->bucket);
}


static hmw_result_t
hmw_rollup_seal(hmw_rollup_t *r, hmw_write_t *write, const hm_uuid_t *id,
    const hmw_bucket_t *bucket)
{
    size_t        used;
    hm_mem_t      mem;
    hm_buf_t      json;
    uint32_t      version;
    hm_rc_t       rc;
    hm_str_t      text;
    hm_place_t    place;
    _Alignas(16) unsigned char  room[1024];

    /* The document is at most some 300 bytes; a second block is refused. */

    used = 0;
    mem.alloc = hmw_scratch;
    mem.ctx = &(hmw_scratch_t) { room, sizeof(room), &used };

    hm_buf_init(&json, &mem, 960);
    hmw_bucket_json(&json, bucket);

    text.data = json.start;
    text.len = hm_buf_len(&json);

    if (json.failed || hm_sealed_len(text.len) > sizeof(write->sealed)) {
        r->job->cause = "bucket_too_large";
        return HMW_BAD;
    }

    place.table = "health_metrics_aggregation";
    place.column = "aggregates";
    place.row = *id;
    place.owner = r->key.user;

    version = r->w->keys->active;
    memcpy(write->id, id->b, 16);
    write->dek_version[0] = (unsigned char) (version >> 24);
    write->dek_version[1] = (unsigned char) (version >> 16);
    write->dek_version[2] = (unsigned char) (version >> 8);
    write->dek_version[3] = (unsigned char) version;

    rc = hm_seal(write->sealed, &write->len, hm_keys_dek(r->w->keys, version),
                 version, &place, text);
    hm_wipe(room, sizeof(room));

    if (rc != HM_OK) {
        r->job->cause = "not_sealed";
        return HMW_RETRY;
    }

    return HMW_DONE;
}


/* One round trip for up to HMW_WRITES buckets. */

static hmw_result_t
hmw_rollup_flush(hmw_rollup_t *r)
{
    bool             failed;
    unsigned         i;
    PGconn          *conn = r->w->db.conn;
    PGresult        *res;
    ExecStatusType   status;

    if (r->nwrites == 0) {
        return HMW_DONE;
    }

    failed = !PQenterPipelineMode(conn);

    for (i = 0; i < r->nwrites && !failed; i++) {
        failed = !hmw_rollup_send(r, &r->writes[i]);
    }

    r->nwrites = 0;

    if (failed || !PQpipelineSync(conn)) {
        hmw_db_close(&r->w->db);         /* half a pipeline: not mendable */
        return HMW_LOST;
    }

    for ( ;; ) {
        res = PQgetResult(conn);

        if (res == NULL) {
            if (!hmw_db_up(&r->w->db)) {
                return HMW_LOST;
            }

            continue;                    /* the end of one statement */
        }

        status = PQresultStatus(res);

        if (status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_SYNC
            && status != PGRES_PIPELINE_ABORTED)
        {
            hmw_db_note(&r->w->db, "bucket", res);
            failed = true;
        }

        failed = failed || status == PGRES_PIPELINE_ABORTED;
        PQclear(res);

        if (status == PGRES_PIPELINE_SYNC) {
            break;
        }
    }

    if (!PQexitPipelineMode(conn)) {
        hmw_db_close(&r->w->db);
        return HMW_LOST;
    }

    return failed ? HMW_RETRY : HMW_DONE;
}


static int
hmw_rollup_send(hmw_rollup_t *r, hmw_write_t *write)
{
    static const char   insert[] =
        "insert into health_metrics_aggregation (id, aggregates, dek_version,"
        " start, user_id, metric, slug_index, bucket)"
        " values ($1, $2, $3, $4, $5, $6, decode($7, 'hex'), $8)";
    static const char   update[] =
        "update health_metrics_aggregation set aggregates = $2,"
        " dek_version = $3, updated_at = now(), version = version + 1"
        " where id = $1";
    static const Oid    types[] = { 2950, 17, 23, 1184, 0, 0, 25, 0 };
    static const int    formats[] = { 1, 1, 1, 1, 0, 0, 0, 0 };

    const int           lengths[] = { 16, (int) write->len, 4, 8, 0, 0, 0,
                                      0 };
    const char *const   values[] = {
        (char *) write->id, (char *) write->sealed,
        (char *) write->dek_version, (char *) write->start,
        r->job->subject, r->key.metric, r->key.slug_hex,
        hmw_units[write->unit]
    };

    return PQsendQueryParams(r->w->db.conn, write->update ? update : insert,
                             write->update ? 3 : 8, types, values, lengths,
                             formats, 0);
}


/* Buckets that lost their last reading. */

static hmw_result_t
hmw_rollup_empty(hmw_rollup_t *r)
{
    char         id[HM_UUID_TEXT + 1];
    unsigned     k;
    const char  *values[1] = { id };

    for (k = 0; k < r->ntargets; k++) {
        if (!r->targets[k].exists || r->targets[k].written) {
            continue;
        }

        hm_uuid_format(&r->targets[k].id, id);
        id[HM_UUID_TEXT] = '\0';

        if (hmw_db_do(&r->w->db, "empty",
                      "delete from health_metrics_aggregation where id = $1",
                      1, values) != HM_OK)
        {
            return HMW_RETRY;
        }
    }

    return HMW_DONE;
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


static void *
hmw_scratch(void *ctx, size_t size)
{
    size_t          at;
    hmw_scratch_t  *s = ctx;

    at = (*s->used + 15) & ~(size_t) 15;

    if (size > s->size || at > s->size - size) {
        return NULL;
    }

    *s->used = at + size;

    return s->room + at;
}


static int64_t
hmw_be64(const char *p)
{
    int       i;
    uint64_t  n;

    for (n = 0, i = 0; i < 8; i++) {
        n = n << 8 | (unsigned char) p[i];
    }

    return (int64_t) n;
}


static void
hmw_put64(unsigned char *p, int64_t n)
{
    int  i;

    for (i = 7; i >= 0; i--) {
        p[i] = (unsigned char) n;
        n = (int64_t) ((uint64_t) n >> 8);
    }
}
