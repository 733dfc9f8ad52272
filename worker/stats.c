/*
 * The figures of a bucket.
 *
 * DESIGN.  A bucket is computed from its rows in one pass and holds seven
 * doubles whatever its size.  Welford's update keeps the variance of values
 * that are large and close together (blood glucose around 100 with a spread
 * of 1e-6 loses every digit in the textbook formula); Chan's formula merges
 * two parts as if they had been one.  The sum is kept apart and compensated,
 * because clients add sums of hours and compare them with the day's.
 *
 * mean is reported as sum / count, so that the two agree in the document;
 * the running mean only serves m2.
 *
 * Everything here is pure: no clock, no database, no allocation but that of
 * the JSON parser in hmw_value_read (blood pressure only).
 */

#include <math.h>
#include <stdlib.h>

#include "hm_json.h"
#include "hmw_stats.h"


static void hmw_sum_add(hmw_stats_t *s, double x);
static void hmw_stats_fields(hm_buf_t *out, const hmw_stats_t *s);
static bool hmw_stats_read(hmw_stats_t *s, json_t *doc, uint64_t count);
static hm_rc_t hmw_number(hm_str_t text, double *x);


void
hmw_stats_add(hmw_stats_t *s, double x)
{
    double  delta;

    if (s->count == 0) {
        s->min = x;
        s->max = x;

    } else {
        s->min = x < s->min ? x : s->min;
        s->max = x > s->max ? x : s->max;
    }

    s->count++;
    hmw_sum_add(s, x);

    delta = x - s->mean;
    s->mean += delta / (double) s->count;
    s->m2 += delta * (x - s->mean);
}


void
hmw_stats_merge(hmw_stats_t *to, const hmw_stats_t *from)
{
    double  na, nb, n, delta;

    if (from->count == 0) {
        return;
    }

    if (to->count == 0) {
        *to = *from;
        return;
    }

    na = (double) to->count;
    nb = (double) from->count;
    n = na + nb;
    delta = from->mean - to->mean;

    to->m2 += from->m2 + delta * delta * (na * nb / n);
    to->mean += delta * (nb / n);
    to->min = from->min < to->min ? from->min : to->min;
    to->max = from->max > to->max ? from->max : to->max;
    to->count += from->count;

    hmw_sum_add(to, from->sum);
    hmw_sum_add(to, from->carry);
}


double
hmw_stats_sum(const hmw_stats_t *s)
{
    return s->sum + s->carry;
}


double
hmw_stats_mean(const hmw_stats_t *s)
{
    double  mean;

    if (s->count == 0) {
        return 0;
    }

    mean = hmw_stats_sum(s) / (double) s->count;

    /* Rounding must not put a mean outside its values. */

    mean = mean < s->min ? s->min : mean;

    return mean > s->max ? s->max : mean;
}


double
hmw_stats_sd(const hmw_stats_t *s)
{
    if (s->count < 2 || s->m2 <= 0) {
        return 0;
    }

    return sqrt(s->m2 / (double) (s->count - 1));
}


void
hmw_bucket_init(hmw_bucket_t *b, bool object)
{
    memset(b, 0, sizeof(hmw_bucket_t));
    b->object = object;
}


void
hmw_bucket_add(hmw_bucket_t *b, double first, double second)
{
    hmw_stats_add(&b->first, first);

    if (b->object) {
        hmw_stats_add(&b->second, second);
    }
}


void
hmw_bucket_merge(hmw_bucket_t *to, const hmw_bucket_t *from)
{
    hmw_stats_merge(&to->first, &from->first);
    hmw_stats_merge(&to->second, &from->second);
}


void
hmw_bucket_json(hm_buf_t *out, const hmw_bucket_t *b)
{
    hm_buf_lit(out, "{\"count\":");
    hm_json_int(out, (int64_t) b->first.count);

    if (!b->object) {
        hm_buf_lit(out, ",");
        hmw_stats_fields(out, &b->first);
        hm_buf_lit(out, "}");
        return;
    }

    hm_buf_lit(out, ",\"systolic\":{");
    hmw_stats_fields(out, &b->first);
    hm_buf_lit(out, "},\"diastolic\":{");
    hmw_stats_fields(out, &b->second);
    hm_buf_lit(out, "}}");
}


hm_rc_t
hmw_bucket_read(hmw_bucket_t *b, hm_str_t json, bool object)
{
    bool       ok;
    json_t    *doc, *count;
    uint64_t   n;
    hm_str_t   reason;

    hmw_bucket_init(b, object);

    doc = hm_json_parse(json, &reason);
    count = json_object_get(doc, "count");
    n = (uint64_t) json_integer_value(count);
    ok = json_is_integer(count) && json_integer_value(count) > 0;

    if (!object) {
        ok = ok && hmw_stats_read(&b->first, doc, n);

    } else {
        ok = ok
             && hmw_stats_read(&b->first, json_object_get(doc, "systolic"), n)
             && hmw_stats_read(&b->second, json_object_get(doc, "diastolic"),
                               n);
    }

    json_decref(doc);

    return ok ? HM_OK : HM_DECLINED;
}


hm_rc_t
hmw_value_read(hm_str_t json, bool object, double *first, double *second)
{
    json_t    *doc, *a, *b;
    hm_rc_t    rc;
    hm_str_t   reason;

    *second = 0;

    if (!object) {
        return hmw_number(json, first);
    }

    doc = hm_json_parse(json, &reason);
    if (doc == NULL) {
        return HM_DECLINED;
    }

    a = json_object_get(doc, "systolic");
    b = json_object_get(doc, "diastolic");
    rc = HM_DECLINED;

    if (json_is_number(a) && json_is_number(b)) {
        *first = json_number_value(a);
        *second = json_number_value(b);
        rc = HM_OK;
    }

    json_decref(doc);

    return rc;
}


/* Neumaier: the carry takes the digits that the larger operand pushed out. */

static void
hmw_sum_add(hmw_stats_t *s, double x)
{
    double  t;

    t = s->sum + x;

    if (fabs(s->sum) >= fabs(x)) {
        s->carry += (s->sum - t) + x;

    } else {
        s->carry += (x - t) + s->sum;
    }

    s->sum = t;
}


static void
hmw_stats_fields(hm_buf_t *out, const hmw_stats_t *s)
{
    hm_buf_lit(out, "\"sum\":");
    hm_json_real(out, hmw_stats_sum(s));
    hm_buf_lit(out, ",\"min\":");
    hm_json_real(out, s->min);
    hm_buf_lit(out, ",\"max\":");
    hm_json_real(out, s->max);
    hm_buf_lit(out, ",\"mean\":");
    hm_json_real(out, hmw_stats_mean(s));
    hm_buf_lit(out, ",\"sd\":");
    hm_json_real(out, hmw_stats_sd(s));
}


/* m2 comes back from sd; the sum stands in the document as it was. */
static bool
hmw_stats_read(hmw_stats_t *s, json_t *doc, uint64_t count)
{
    double   sd;
    json_t  *sum, *min, *max, *mean, *dev;

    sum = json_object_get(doc, "sum");
    min = json_object_get(doc, "min");
    max = json_object_get(doc, "max");
    mean = json_object_get(doc, "mean");
    dev = json_object_get(doc, "sd");

    if (!json_is_number(sum) || !json_is_number(min) || !json_is_number(max)
        || !json_is_number(mean) || !json_is_number(dev))
    {
        return false;
    }

    sd = json_number_value(dev);
    s->count = count;
    s->sum = json_number_value(sum);
    s->min = json_number_value(min);
    s->max = json_number_value(max);
    s->mean = json_number_value(mean);
    s->m2 = sd * sd * (double) (count - 1);

    return true;
}


static hm_rc_t
hmw_number(hm_str_t text, double *x)
{
    char    buf[64], *end;
    size_t  i;

    while (text.len > 0 && text.data[text.len - 1] == ' ') {
        text.len--;
    }

    if (text.len == 0 || text.len >= sizeof(buf)) {
        return HM_DECLINED;
    }

    /* strtod also reads inf, nan, hexadecimal and leading blanks. */

    for (i = 0; i < text.len; i++) {
        if (strchr("0123456789+-.eE", text.data[i]) == NULL
            || text.data[i] == '\0')
        {
            return HM_DECLINED;
        }
    }

    memcpy(buf, text.data, text.len);
    buf[text.len] = '\0';

    *x = strtod(buf, &end);

    if (end != buf + text.len || !isfinite(*x)) {
        return HM_DECLINED;
    }

    return HM_OK;
}
