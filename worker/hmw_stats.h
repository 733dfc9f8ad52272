/*
 * Figures of a bucket: count, sum, min, max, mean, sd, in one pass (Welford)
 * and mergeable (Chan).  The sum is compensated (Neumaier), so that it does
 * not depend on whether a large value came first or last.  Pure.
 */

#ifndef HMW_STATS_H
#define HMW_STATS_H

#include "hm.h"
#include "hm_buf.h"


typedef struct {
    uint64_t          count;
    double            sum;
    double            carry;             /* what sum lost to rounding */
    double            min;
    double            max;
    double            mean;
    double            m2;                /* sum of squared deviations */
} hmw_stats_t;

/* A bucket of a metric; second is diastolic of blood pressure. */
typedef struct {
    bool              object;
    hmw_stats_t       first;
    hmw_stats_t       second;
} hmw_bucket_t;


void hmw_stats_add(hmw_stats_t *s, double x);
void hmw_stats_merge(hmw_stats_t *to, const hmw_stats_t *from);
double hmw_stats_sum(const hmw_stats_t *s);
double hmw_stats_mean(const hmw_stats_t *s);
/* Of the sample (n - 1); 0 where there are less than two. */
double hmw_stats_sd(const hmw_stats_t *s);

void hmw_bucket_init(hmw_bucket_t *b, bool object);
void hmw_bucket_add(hmw_bucket_t *b, double first, double second);
void hmw_bucket_merge(hmw_bucket_t *to, const hmw_bucket_t *from);
/* {"count","sum",...} or {"count","systolic":{...},"diastolic":{...}} */
void hmw_bucket_json(hm_buf_t *out, const hmw_bucket_t *b);
/* The same document read; HM_DECLINED: it is none. */
hm_rc_t hmw_bucket_read(hmw_bucket_t *b, hm_str_t json, bool object);

/*
 * An opened value: a number, or {"systolic","diastolic"} when object is set.
 * HM_DECLINED when it is anything else or not finite.
 */
hm_rc_t hmw_value_read(hm_str_t json, bool object, double *first,
    double *second);

#endif
