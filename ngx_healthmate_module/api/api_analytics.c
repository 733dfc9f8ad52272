/*
 * api_analytics: what the worker's roll-ups say.
 *
 * Aggregates are sealed rows, one for each metric, bucket and start, made by
 * the worker in the person's time zone.  They are opened here and shown with
 * a trend: the least-squares line through the buckets' means, its slope a
 * day, and its coefficient of determination as the confidence.  Fewer than
 * three buckets have no trend; no bucket at all is `insufficient_data`.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_crud.h"
#include "../ngx_hm_endpoints.h"

#include <math.h>


#define TREND_POINTS   3
#define TREND_FLAT     0.1               /* confidence below it: flat */


typedef struct {
    const hm_metric_t   *metric;
    hm_str_t             name;
    hm_str_t             slug;           /* of a custom metric */
    const char          *bucket;
    hm_usec_t            from;
    hm_usec_t            to;
    hm_usec_t            start;          /* of the first bucket */
    hm_str_t             zone;
} trends_t;


typedef struct {
    ngx_uint_t           n;
    double               sx, sy, sxx, sxy, syy;
    hm_usec_t            zero;
} line_t;


static ngx_hm_rc_t trends_zone(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t trends_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t trends_done(ngx_hm_ctx_t *hm);

static void trends_metric(ngx_hm_ctx_t *hm, trends_t *t);
static void trends_bucket(ngx_hm_ctx_t *hm, trends_t *t);
static void trends_range(ngx_hm_ctx_t *hm, trends_t *t);
static ngx_hm_rc_t trends_point(ngx_hm_ctx_t *hm, trends_t *t, hm_buf_t *b,
    int row, line_t lines[2]);
static void trends_figures(hm_buf_t *b, json_t *j, ngx_uint_t sum);
static void trends_line_add(line_t *line, hm_usec_t at, double y);
static void trends_line(hm_buf_t *b, const line_t *line);


const ngx_hm_step_pt  ngx_hm_analytics_trends[] = {
    ngx_hm_step_subject, ngx_hm_analytics_params, ngx_hm_step_keys, trends_zone,
    trends_send, trends_done, NULL
};


ngx_hm_rc_t
ngx_hm_analytics_params(ngx_hm_ctx_t *hm)
{
    trends_t  *t;

    t = ngx_hm_pcalloc(hm, sizeof(trends_t));
    if (t == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = t;

    trends_metric(hm, t);
    trends_bucket(hm, t);
    trends_range(hm, t);

    return hm->faults->n == 0
           ? NGX_HM_NEXT : ngx_hm_fail(hm, HM_PROBLEM_INVALID_PARAMETER);
}


static void
trends_metric(ngx_hm_ctx_t *hm, trends_t *t)
{
    hm_str_t  *arg;

    arg = ngx_hm_arg(hm, "metric");

    if (arg == NULL) {
        hm_fault_param(hm->faults, "metric", HM_FAULT_REQUIRED,
                       "must be given");
        return;
    }

    t->name = *arg;
    t->metric = hm_metric_find(*arg);

    if (t->metric == NULL && hm_metric_custom(*arg, &t->slug) != HM_OK) {
        hm_fault_param(hm->faults, "metric", HM_FAULT_ENUM,
                       "see GET /api/v1/health-data/types");
    }
}


static void
trends_bucket(ngx_hm_ctx_t *hm, trends_t *t)
{
    hm_str_t    *arg;
    ngx_uint_t   i;

    static const char  *buckets[] = { "hour", "day", "week", "month" };

    t->bucket = "day";
    arg = ngx_hm_arg(hm, "bucket");

    if (arg == NULL) {
        return;
    }

    for (i = 0; i < 4; i++) {
        if (arg->len == ngx_strlen(buckets[i])
            && ngx_strncmp(arg->data, buckets[i], arg->len) == 0)
        {
            t->bucket = buckets[i];
            return;
        }
    }

    hm_fault_param(hm->faults, "bucket", HM_FAULT_ENUM,
                   "hour, day, week or month");
}


static void
trends_range(ngx_hm_ctx_t *hm, trends_t *t)
{
    hm_str_t    *arg;
    ngx_uint_t   i, from, to;

    static const struct {
        const char  *name;
        int          days;
    } periods[] = { { "7d", 7 }, { "30d", 30 }, { "90d", 90 },
                    { "1y", 365 } };

    from = ngx_hm_arg(hm, "from") != NULL;
    to = ngx_hm_arg(hm, "to") != NULL;
    arg = ngx_hm_arg(hm, "period");

    t->to = hm->now;
    t->from = hm->now - 30 * 86400 * HM_USEC;

    if (arg != NULL) {
        if (from || to) {
            hm_fault_param(hm->faults, "period", HM_FAULT_UNKNOWN,
                           "either period, or from and to");
            return;
        }

        for (i = 0; i < 4; i++) {
            if (arg->len == ngx_strlen(periods[i].name)
                && ngx_strncmp(arg->data, periods[i].name, arg->len) == 0)
            {
                t->from = hm->now - periods[i].days * 86400 * HM_USEC;
                return;
            }
        }

        hm_fault_param(hm->faults, "period", HM_FAULT_ENUM,
                       "7d, 30d, 90d or 1y");
        return;
    }

    i = hm->faults->n;
    (void) ngx_hm_query_time(hm, "from", &t->from);
    (void) ngx_hm_query_time(hm, "to", &t->to);

    if (hm->faults->n != i) {
        return;
    }

    if (to && !from) {
        t->from = t->to - 30 * 86400 * HM_USEC;
    }

    if (t->from >= t->to) {
        hm_fault_param(hm->faults, "from", HM_FAULT_ORDER,
                       "must be before to");
    }
}


static ngx_hm_rc_t
trends_zone(ngx_hm_ctx_t *hm)
{
    trends_t  *t = hm->data;

    ngx_hm_seg_start(hm, NGX_HM_LANE_SLOW, NGX_HM_SQL_ZONE);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_add(&hm->seg, t->bucket, ngx_strlen(t->bucket));
    ngx_hm_seg_time(hm, &hm->seg, t->from);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
trends_send(ngx_hm_ctx_t *hm)
{
    u_char          *index;
    trends_t        *t = hm->data;
    hm_str_t         zone;
    hm_problem_t     p;
    hm_user_keys_t  *keys;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    zone = hm_row_str(hm->seg.res, 0, 0);
    t->zone = ngx_hm_printf(hm, "%.*s", (int) zone.len, (char *) zone.data);
    t->start = hm_row_time(hm->seg.res, 0, 1);

    index = ngx_hm_palloc(hm, 32);
    keys = ngx_hm_keys(hm);

    if (index == NULL || keys == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SLOW, NGX_HM_SQL_TRENDS);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    if (t->metric != NULL) {
        ngx_hm_seg_add(&hm->seg, t->metric->name,
                       ngx_strlen(t->metric->name));
        ngx_hm_seg_add(&hm->seg, "", 0);

    } else {
        if (hm_blind_index(index, keys->index_key, "health_data", "slug",
                           &hm->subject, t->slug) != HM_OK)
        {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        ngx_hm_seg_add(&hm->seg, "custom", 6);
        ngx_hm_seg_add(&hm->seg, index, 32);
    }

    ngx_hm_seg_add(&hm->seg, t->bucket, ngx_strlen(t->bucket));
    ngx_hm_seg_time(hm, &hm->seg, t->start);
    ngx_hm_seg_time(hm, &hm->seg, t->to);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
trends_done(ngx_hm_ctx_t *hm)
{
    int            i, n;
    line_t         lines[2];
    trends_t      *t = hm->data;
    ngx_hm_rc_t    rc;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    n = PQntuples(hm->seg.res);
    ngx_memzero(lines, sizeof(lines));

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512 + (size_t) n * 192);

    hm_buf_lit(&hm->out, "{\"metric\":");
    hm_json_text(&hm->out, t->name);
    hm_buf_lit(&hm->out, ",\"unit\":");

    if (t->metric != NULL) {
        hm_json_text(&hm->out, (hm_str_t) { ngx_strlen(t->metric->unit),
                                     (u_char *) t->metric->unit });
    } else {
        hm_buf_lit(&hm->out, "null");
    }

    hm_buf_lit(&hm->out, ",\"from\":");
    hm_json_time(&hm->out, t->from);
    hm_buf_lit(&hm->out, ",\"to\":");
    hm_json_time(&hm->out, t->to);
    hm_buf_printf(&hm->out, ",\"bucket\":\"%s\",\"time_zone\":", t->bucket);
    hm_json_text(&hm->out, t->zone);
    hm_buf_printf(&hm->out, ",\"status\":\"%s\",\"points\":[",
                  n > 0 ? "ok" : "insufficient_data");

    for (i = 0; i < n; i++) {
        if (i > 0) {
            hm_buf_lit(&hm->out, ",");
        }

        rc = trends_point(hm, t, &hm->out, i, lines);
        if (rc != NGX_HM_NEXT) {
            return rc;
        }
    }

    hm_buf_lit(&hm->out, "],\"trend\":");

    if (t->metric != NULL && t->metric->kind == HM_METRIC_OBJECT) {
        if (n == 0) {
            hm_buf_lit(&hm->out, "null");

        } else {
            hm_buf_lit(&hm->out, "{\"systolic\":");
            trends_line(&hm->out, &lines[0]);
            hm_buf_lit(&hm->out, ",\"diastolic\":");
            trends_line(&hm->out, &lines[1]);
            hm_buf_lit(&hm->out, "}");
        }

    } else {
        trends_line(&hm->out, &lines[0]);
    }

    hm_buf_lit(&hm->out, "}");

    hm->audit.row.items = (uint32_t) n;

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Columns: id, user_id, start, dek_version, aggregates. */
static ngx_hm_rc_t
trends_point(ngx_hm_ctx_t *hm, trends_t *t, hm_buf_t *b, int row,
    line_t lines[2])
{
    u_char                *out;
    json_t                *j, *sys, *dia;
    uint32_t               version;
    hm_str_t               env, text;
    hm_uuid_t              owner;
    hm_usec_t              start;
    PGresult              *r;
    hm_place_t             place;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    r = hm->seg.res;
    owner = hm_row_uuid(r, row, 1);

    if (ngx_hm_owned(hm, &owner, "health_metrics_aggregation") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    start = hm_row_time(r, row, 2);
    version = hm_row_u32(r, row, 3);
    env = hm_row_str(r, row, 4);

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, version) : NULL;
    out = ngx_hm_palloc(hm, env.len + 1);

    place.table = "health_metrics_aggregation";
    place.column = "aggregates";
    place.row = hm_row_uuid(r, row, 0);
    place.owner = hm->subject;

    if (dek == NULL || out == NULL || env.len < HM_ENVELOPE_OVER
        || hm_open(out, &text, dek, version, &place, env) != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        ngx_hm_keys_drop(&hm->subject);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    j = json_loadb((char *) text.data, text.len, 0, NULL);
    if (j == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_lit(b, "{\"start\":");
    hm_json_time(b, start);
    hm_buf_lit(b, ",\"count\":");
    hm_json_real(b, json_number_value(json_object_get(j, "count")));

    sys = json_object_get(j, "systolic");
    dia = json_object_get(j, "diastolic");

    if (sys != NULL) {
        hm_buf_lit(b, ",\"systolic\":{");
        trends_figures(b, sys, 0);
        hm_buf_lit(b, "},\"diastolic\":{");
        trends_figures(b, dia, 0);
        hm_buf_lit(b, "}");

        trends_line_add(&lines[0], start,
                        json_number_value(json_object_get(sys, "mean")));
        trends_line_add(&lines[1], start,
                        json_number_value(json_object_get(dia, "mean")));

    } else {
        hm_buf_lit(b, ",");
        trends_figures(b, j, 1);
        trends_line_add(&lines[0], start,
                        json_number_value(json_object_get(j, "mean")));
    }

    hm_buf_lit(b, "}");
    json_decref(j);

    return NGX_HM_NEXT;
}


static void
trends_figures(hm_buf_t *b, json_t *j, ngx_uint_t sum)
{
    ngx_uint_t  i;

    static const char  *names[] = { "mean", "min", "max", "sum", "sd" };

    for (i = 0; i < 5; i++) {
        if (i == 3 && !sum) {
            continue;
        }

        hm_buf_printf(b, "%s\"%s\":", i > 0 ? "," : "", names[i]);

        if (json_is_number(json_object_get(j, names[i]))) {
            hm_json_real(b, json_number_value(json_object_get(j,
                                                              names[i])));
        } else {
            hm_buf_lit(b, "null");
        }
    }
}


static void
trends_line_add(line_t *line, hm_usec_t at, double y)
{
    double  x;

    if (line->n == 0) {
        line->zero = at;
    }

    x = (double) (at - line->zero) / (86400.0 * HM_USEC);

    line->n++;
    line->sx += x;
    line->sy += y;
    line->sxx += x * x;
    line->sxy += x * y;
    line->syy += y * y;
}


static void
trends_line(hm_buf_t *b, const line_t *line)
{
    double  n, dx, dy, dxy, slope, r2;

    if (line->n < TREND_POINTS) {
        hm_buf_lit(b, "null");
        return;
    }

    n = (double) line->n;
    dx = n * line->sxx - line->sx * line->sx;
    dy = n * line->syy - line->sy * line->sy;
    dxy = n * line->sxy - line->sx * line->sy;

    slope = dx > 0 ? dxy / dx : 0;
    r2 = dx > 0 && dy > 1e-9 ? dxy * dxy / (dx * dy) : 0;
    r2 = r2 > 1 ? 1 : r2;

    hm_buf_printf(b, "{\"direction\":\"%s\",\"per_day\":",
                  r2 < TREND_FLAT || slope == 0 ? "flat"
                  : slope > 0 ? "up" : "down");
    hm_json_real(b, slope);
    hm_buf_lit(b, ",\"confidence\":");
    hm_json_real(b, round(r2 * 1000) / 1000);
    hm_buf_lit(b, "}");
}
