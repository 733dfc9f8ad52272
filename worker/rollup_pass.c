/*
 * The readings of a roll-up, in one ordered pass.
 *
 * Rows come in time order with the starts of their buckets, as PostgreSQL
 * cut them in the person's zone, and a bucket is complete when the next one
 * begins: memory does not grow with the data.  Each value is opened with the
 * version of its own row.
 */

#include "hmw_rollup.h"


#define HMW_PAGE        500              /* readings of one query */
#define HMW_VALUE_MAX   1024             /* an opened value; they are short */

#define HMW_TEXT(n)     HMW_TEXT_(n)
#define HMW_TEXT_(n)    #n


#define HMW_READINGS(more)                                                    \
    "select id, dek_version, value, \"timestamp\","                           \
    " date_trunc('hour', \"timestamp\", $3)" more                             \
    " from health_data where user_id = $1::uuid and data_type = $2"           \
    " and coalesce(slug_index, '') = decode($4, 'hex')"                       \
    " and (\"timestamp\", id) > (" HMW_FROM_US("$5") ", $6::uuid)"            \
    " and \"timestamp\" < " HMW_FROM_US("$7")                                 \
    " order by \"timestamp\", id limit " HMW_TEXT(HMW_PAGE)


static PGresult *hmw_rollup_page(hmw_rollup_t *r);
static hmw_result_t hmw_rollup_row(hmw_rollup_t *r, PGresult *res, int i);
static hmw_result_t hmw_rollup_open_value(hmw_rollup_t *r, PGresult *res,
    int i, double *first, double *second);
static hmw_result_t hmw_rollup_close(hmw_rollup_t *r, int unit);


hmw_result_t
hmw_rollup_pass(hmw_rollup_t *r)
{
    int            i, n, unit;
    hm_uuid_t      id;
    PGresult      *res;
    hmw_result_t   result;

    do {
        if (hmw_beat(r->w, r->job) != HM_OK) {
            return HMW_RETRY;
        }

        res = hmw_rollup_page(r);
        if (res == NULL) {
            return HMW_RETRY;
        }

        n = PQntuples(res);
        result = HMW_DONE;

        for (i = 0; i < n && result == HMW_DONE; i++) {
            result = hmw_rollup_row(r, res, i);
        }

        if (n > 0) {
            memcpy(id.b, PQgetvalue(res, n - 1, 0), 16);
            hm_uuid_format(&id, r->after_id);
            snprintf(r->after, sizeof(r->after), "%lld",
                     (long long) hm_get_u64(PQgetvalue(res, n - 1, 3)));
        }

        PQclear(res);

        if (result == HMW_DONE) {
            result = hmw_rollup_flush(r);
        }

        if (result != HMW_DONE) {
            return result;
        }

    } while (n == HMW_PAGE);

    for (unit = 0; unit < r->units; unit++) {
        result = hmw_rollup_close(r, unit);

        if (result != HMW_DONE) {
            return result;
        }
    }

    return hmw_rollup_flush(r);
}


/*
 * The readings in order of time, a page at a time and each page from where
 * the last one ended.  A cursor would be planned for each job anew, and its
 * plan cost more than the pass.
 */
static PGresult *
hmw_rollup_page(hmw_rollup_t *r)
{
    const char         *values[7] = { r->job->subject, r->key.metric,
                                      r->zone, r->key.slug_hex, r->after,
                                      r->after_id, r->until };
    static const char   hours[] = HMW_READINGS("");
    static const char   all[] = HMW_READINGS(
        ", date_trunc('day', \"timestamp\", $3)"
        ", date_trunc('week', \"timestamp\", $3)"
        ", date_trunc('month', \"timestamp\", $3)");

    return hmw_db_query_bin(&r->w->db, "readings", r->key.all ? all : hours,
                            7, values);
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

    for (unit = 0; unit < r->units; unit++) {
        start = (int64_t) hm_get_u64(PQgetvalue(res, i, 4 + unit));
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
    hm_rc_t         rc;
    hm_str_t        json;
    hmw_result_t    result;
    unsigned char   plain[HMW_VALUE_MAX];

    result = hmw_rollup_open(r, res, i, 0, "health_data", "value", plain,
                             sizeof(plain), &json, "value_not_opened");
    if (result != HMW_DONE) {
        return result;
    }

    rc = hmw_value_read(json, r->object, first, second);
    hm_wipe(plain, sizeof(plain));

    if (rc != HM_OK) {
        r->job->cause = "value_not_read";
        return HMW_RETRY;
    }

    return HMW_DONE;
}


/* The bucket that is open for this size is complete: keep it, if wanted. */

static hmw_result_t
hmw_rollup_close(hmw_rollup_t *r, int unit)
{
    hmw_open_t    *open = &r->open[unit];
    hmw_target_t  *target;

    if (!open->open) {
        return HMW_DONE;
    }

    open->open = false;
    target = hmw_rollup_target(r, unit, open->start);

    if (target != NULL) {
        target->bucket = open->bucket;

    } else if (!r->key.all) {
        return HMW_DONE;
    }

    return hmw_rollup_put(r, unit, open->start, target, &open->bucket);
}
