/*
 * Days from hours, weeks and months from days.
 *
 * DESIGN.  A month of a watch is 40,000 readings, and a new one changes one
 * hour of it: the hour is computed from its readings, and what is larger
 * from the figures kept for its parts (Chan's merge; a day has at most 25
 * hours, a month 31 days).  Nothing is added to an old figure: each is
 * computed anew from its parts, so a job that runs twice, late or after a
 * delete gives the same result as one that ran once.
 *
 * The parts are whole when the lock of the metric is ours: whoever changed
 * one held it until his commit.  An hour whose own job still waits is merged
 * as it was; that job comes to the same day afterwards.
 */

#include "hmw_rollup.h"


#define HMW_PARTS       192              /* 2 days of hours, 2 months of days */
#define HMW_FIGURES     2048             /* an opened document */


typedef struct {
    int               unit;
    int64_t           start;
    hmw_bucket_t      bucket;
} hmw_part_t;


static struct {
    unsigned          n;
    hmw_part_t        part[HMW_PARTS];
} hmw_parts;


static hmw_result_t hmw_rollup_clear(hmw_rollup_t *r);
static PGresult *hmw_rollup_kept(hmw_rollup_t *r);
static void hmw_rollup_span(hmw_rollup_t *r, int low, int high,
    char from[24], char until[24]);
static hmw_result_t hmw_rollup_part(hmw_rollup_t *r, PGresult *res, int i);
static hmw_result_t hmw_rollup_open_part(hmw_rollup_t *r, PGresult *res,
    int i, hmw_bucket_t *bucket);
static void hmw_rollup_sum(hmw_rollup_t *r, hmw_target_t *t, int of);


/* For "*" all buckets go and come anew. */

hmw_result_t
hmw_rollup_stored(hmw_rollup_t *r)
{
    int            i, n;
    PGresult      *res;
    hmw_result_t   result;

    hmw_parts.n = 0;

    if (r->key.all) {
        return hmw_rollup_clear(r);
    }

    res = hmw_rollup_kept(r);
    if (res == NULL) {
        return HMW_RETRY;
    }

    n = PQntuples(res);
    result = HMW_DONE;

    for (i = 0; i < n && result == HMW_DONE; i++) {
        result = hmw_rollup_part(r, res, i);
    }

    PQclear(res);

    return result;
}


static hmw_result_t
hmw_rollup_clear(hmw_rollup_t *r)
{
    const char         *values[3] = { r->job->subject, r->key.metric,
                                      r->key.slug_hex };
    static const char   sql[] =
        "delete from health_metrics_aggregation where user_id = $1"
        " and metric = $2 and slug_index = decode($3, 'hex')";

    return hmw_db_do(&r->w->db, "clear", sql, 3, values) == HM_OK
           ? HMW_DONE : HMW_RETRY;
}


/* Hours of the days; days of the weeks and months, and those themselves. */

static PGresult *
hmw_rollup_kept(hmw_rollup_t *r)
{
    char                day[24], past_day[24], first[24], past[24];
    const char         *values[7] = { r->job->subject, r->key.metric,
                                      r->key.slug_hex, day, past_day, first,
                                      past };
    static const char   sql[] =
        "select a.bucket, a.start, a.id, a.dek_version, a.aggregates"
        " from (values ('hour', $4::text, $5::text),"
        "  ('day', $6::text, $7::text), ('week', $6::text, $7::text),"
        "  ('month', $6::text, $7::text)) s (bucket, since, until)"
        " join health_metrics_aggregation a on a.user_id = $1::uuid"
        " and a.metric = $2 and a.slug_index = decode($3, 'hex')"
        " and a.bucket = s.bucket and a.start >= " HMW_FROM_US("s.since")
        " and a.start < " HMW_FROM_US("s.until")
        " order by a.start";

    hmw_rollup_span(r, HMW_DAY, HMW_DAY, day, past_day);
    hmw_rollup_span(r, HMW_DAY + 1, HMW_UNITS - 1, first, past);

    return hmw_db_query_bin(&r->w->db, "kept", sql, 7, values);
}


/* From the first start to the last end of the targets of some sizes. */

static void
hmw_rollup_span(hmw_rollup_t *r, int low, int high, char from[24],
    char until[24])
{
    int64_t        a, b;
    unsigned       k;
    hmw_target_t  *t;

    a = INT64_MAX;
    b = INT64_MIN;

    for (k = 0; k < r->ntargets; k++) {
        t = &r->targets[k];

        if (t->unit >= low && t->unit <= high) {
            a = t->start < a ? t->start : a;
            b = t->end > b ? t->end : b;
        }
    }

    snprintf(from, 24, "%lld", (long long) a);
    snprintf(until, 24, "%lld", (long long) b);
}


/* A target gets its id; a part of one is opened and kept at hand. */

static hmw_result_t
hmw_rollup_part(hmw_rollup_t *r, PGresult *res, int i)
{
    int            unit;
    hmw_part_t    *part;
    hmw_target_t  *t;

    for (unit = 0; strcmp(PQgetvalue(res, i, 0), hmw_units[unit]) != 0; ) {
        if (++unit == HMW_UNITS) {
            return HMW_DONE;
        }
    }

    t = hmw_rollup_target(r, unit, (int64_t) hm_get_u64(PQgetvalue(res, i, 1)));

    if (t != NULL) {
        t->exists = true;
        memcpy(t->id.b, PQgetvalue(res, i, 2), 16);
        return HMW_DONE;                 /* its figures are computed anew */
    }

    if (unit > HMW_DAY) {
        return HMW_DONE;
    }

    if (hmw_parts.n == HMW_PARTS) {
        r->job->cause = "too_many_parts";
        return HMW_BAD;
    }

    part = &hmw_parts.part[hmw_parts.n++];
    part->unit = unit;
    part->start = (int64_t) hm_get_u64(PQgetvalue(res, i, 1));

    return hmw_rollup_open_part(r, res, i, &part->bucket);
}


static hmw_result_t
hmw_rollup_open_part(hmw_rollup_t *r, PGresult *res, int i,
    hmw_bucket_t *bucket)
{
    hm_rc_t         rc;
    hm_str_t        json;
    hmw_result_t    result;
    unsigned char   plain[HMW_FIGURES];

    result = hmw_rollup_open(r, res, i, 2, "health_metrics_aggregation",
                             "aggregates", plain, sizeof(plain), &json,
                             "figures_not_opened");
    if (result != HMW_DONE) {
        return result;
    }

    rc = hmw_bucket_read(bucket, json, r->object);
    hm_wipe(plain, sizeof(plain));

    if (rc != HM_OK) {
        r->job->cause = "figures_not_read";
        return HMW_RETRY;
    }

    return HMW_DONE;
}


hmw_result_t
hmw_rollup_merge(hmw_rollup_t *r)
{
    int            unit;
    unsigned       k;
    hmw_target_t  *t;
    hmw_result_t   result;

    for (unit = HMW_DAY; unit < HMW_UNITS; unit++) {

        for (k = 0; k < r->ntargets; k++) {
            t = &r->targets[k];

            if (t->unit != unit) {
                continue;
            }

            hmw_rollup_sum(r, t, unit == HMW_DAY ? HMW_HOUR : HMW_DAY);

            if (t->bucket.first.count == 0) {
                continue;
            }

            result = hmw_rollup_put(r, unit, t->start, t, &t->bucket);

            if (result != HMW_DONE) {
                return result;
            }
        }
    }

    return hmw_rollup_flush(r);
}


static void
hmw_rollup_sum(hmw_rollup_t *r, hmw_target_t *t, int of)
{
    unsigned             k;
    const hmw_part_t    *part;
    const hmw_target_t  *made;

    hmw_bucket_init(&t->bucket, r->object);

    for (k = 0; k < hmw_parts.n; k++) {
        part = &hmw_parts.part[k];

        if (part->unit == of && part->start >= t->start
            && part->start < t->end)
        {
            hmw_bucket_merge(&t->bucket, &part->bucket);
        }
    }

    for (k = 0; k < r->ntargets; k++) {
        made = &r->targets[k];

        if (made->unit == of && made->start >= t->start
            && made->start < t->end)
        {
            hmw_bucket_merge(&t->bucket, &made->bucket);
        }
    }
}
