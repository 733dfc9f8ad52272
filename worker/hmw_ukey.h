/*
 * Texts that come from outside the process and steer it: the unique key of
 * a roll-up job, the entry of a stream, REDIS_URL.  Pure, strict, fuzzed.
 */

#ifndef HMW_UKEY_H
#define HMW_UKEY_H

#include "hm.h"
#include "hm_uuid.h"


/*
 * "rollup:<user>:<type>:<hour>", where type is a data_type of the metric
 * table or "custom.<64 hex digits>", and hour is the number of whole hours
 * since 1970 (floor, so it may be negative), or "*" for every bucket.
 */
typedef struct {
    hm_uuid_t         user;
    char              user_text[HM_UUID_TEXT + 1];
    char              metric[64];        /* "heart_rate" or "custom" */
    bool              custom;
    char              slug_hex[65];      /* "" unless custom */
    bool              all;
    int64_t           hour;
} hmw_rollup_key_t;

/* Hours of years 1 to 9999. */
#define HMW_HOUR_MIN   (-17259888LL)
#define HMW_HOUR_MAX   (70389527LL)

hm_rc_t hmw_rollup_key(hmw_rollup_key_t *key, hm_str_t text);

/* The value of a stream entry's field "id": a UUID, lower case. */
hm_rc_t hmw_entry_id(char out[HM_UUID_TEXT + 1], hm_str_t text);

/* unix:///path?user=u&password_file=p ; "" where a part is not given. */
typedef struct {
    char              path[108];
    char              user[64];
    char              password_file[256];
} hmw_redis_url_t;

hm_rc_t hmw_redis_url(hmw_redis_url_t *url, const char *text);

#endif
