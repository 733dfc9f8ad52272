/*
 * hm_time: RFC 3339 in and out, and the calendar arithmetic behind it.
 */

#ifndef HM_TIME_H
#define HM_TIME_H

#include "hm.h"

#define HM_TIME_TEXT   24        /* 2026-03-01T08:00:00.000Z */
#define HM_USEC        1000000LL

hm_usec_t hm_now(void);          /* wall clock */

/*
 * RFC 3339 with offset; years 0001..9999; a leap second is taken as the
 * second after :59; finer than a millisecond is cut (towards the past).  A
 * bare date, a missing offset, lower-case t/z are: lower case is accepted,
 * the others are HM_DECLINED.
 */
hm_rc_t hm_time_parse(hm_usec_t *t, hm_str_t text);
void hm_time_format(hm_usec_t t, char out[HM_TIME_TEXT]);

/* 2026-03-01; days since 1970-01-01. */
hm_rc_t hm_date_parse(int32_t *days, hm_str_t text);
void hm_date_format(int32_t days, char out[10]);

int64_t hm_days_from_civil(int64_t year, unsigned month, unsigned day);
void hm_civil_from_days(int64_t days, int *year, int *month, int *day);

/* PostgreSQL's binary timestamptz counts from 2000-01-01. */
#define HM_PG_EPOCH    946684800000000LL

#endif
