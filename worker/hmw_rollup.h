/*
 * A roll-up at work, shared by its four files: job_rollup.c (the order of
 * things), rollup_pass.c (readings), rollup_merge.c (figures kept already)
 * and rollup_write.c (what is kept at the end).
 */

#ifndef HMW_ROLLUP_H
#define HMW_ROLLUP_H

#include "hm_crypto.h"
#include "hm_row.h"
#include "hmw.h"


#define HMW_UNITS       4                /* hour, day, week, month */
#define HMW_HOUR        0
#define HMW_DAY         1
#define HMW_TARGETS     (HMW_UNITS * 2)
#define HMW_WRITES      64               /* sent in one go */
#define HMW_SEALED_MAX  (1024 + HM_ENVELOPE_OVER)

/* Microseconds since 2000 (PostgreSQL's own count) as a time. */
#define HMW_FROM_US(x)                                                        \
    "(timestamptz '2000-01-01 00:00:00+00' + (" x ")::bigint"                 \
    " * interval '1 microsecond')"


/* A bucket that the key's hour touches.  Times: us since 2000. */
typedef struct {
    int               unit;
    int64_t           start;
    int64_t           end;
    hm_uuid_t         id;
    bool              exists;
    bool              written;
    hmw_bucket_t      bucket;
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
    unsigned char     sealed[HMW_SEALED_MAX];
} hmw_write_t;


typedef struct {
    hmw_t            *w;
    hmw_job_t        *job;
    hmw_rollup_key_t  key;
    char              zone[64];
    bool              object;
    int               units;             /* computed from readings */
    unsigned          ntargets;          /* 0 with key.all */
    hmw_target_t      targets[HMW_TARGETS];
    char              after[24];         /* us since 2000: read so far */
    char              after_id[HM_UUID_TEXT + 1];
    char              until[24];
    hmw_open_t        open[HMW_UNITS];
    unsigned          nwrites;
    hmw_write_t       writes[HMW_WRITES];
    int64_t           items;
    char              first[HM_UUID_TEXT + 1];
    char              last[HM_UUID_TEXT + 1];
} hmw_rollup_t;


extern const char *const  hmw_units[HMW_UNITS];


/*
 * A sealed text; id, dek_version and envelope are columns col and on.  The
 * text lies in plain, which the caller wipes; cause: it did not open.
 */
hmw_result_t hmw_rollup_open(hmw_rollup_t *r, const PGresult *res, int row,
    int col, const char *table, const char *column, unsigned char *plain,
    size_t size, hm_str_t *json, const char *cause);

hmw_target_t *hmw_rollup_target(hmw_rollup_t *r, int unit, int64_t start);

/* All readings between r->after and r->until, into r->units sizes. */
hmw_result_t hmw_rollup_pass(hmw_rollup_t *r);

/* What is kept of the targets and their parts; days from hours, and so on. */
hmw_result_t hmw_rollup_stored(hmw_rollup_t *r);
hmw_result_t hmw_rollup_merge(hmw_rollup_t *r);

/* target may be NULL: a bucket that is new. */
hmw_result_t hmw_rollup_put(hmw_rollup_t *r, int unit, int64_t start,
    hmw_target_t *target, const hmw_bucket_t *bucket);
hmw_result_t hmw_rollup_flush(hmw_rollup_t *r);
hmw_result_t hmw_rollup_empty(hmw_rollup_t *r);

#endif
