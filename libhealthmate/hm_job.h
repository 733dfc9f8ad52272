/*
 * hm_job: the contract between the module and the worker: kinds of jobs,
 * their streams, classes, limits.  PostgreSQL holds the job; the stream
 * carries its id (field "id", 36 characters) and may be wiped at any time.
 */

#ifndef HM_JOB_H
#define HM_JOB_H

#include "hm.h"

typedef struct {
    const char   *kind;                  /* "analytics.rollup" */
    const char   *stream;                /* "hm:jobs:analytics" */
    const char   *permission;            /* judged at each claim */
    unsigned      timeout;               /* seconds; the lease is renewed */
    unsigned      max_attempts;
    unsigned      backoff;               /* seconds, doubled, full jitter */
    unsigned      backoff_max;
} hm_job_kind_t;

#define HM_JOB_GROUP      "workers"

extern const hm_job_kind_t  hm_job_kinds[];      /* ended by kind NULL */
const hm_job_kind_t *hm_job_kind(hm_str_t kind);

#endif
