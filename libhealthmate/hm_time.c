/*
 * hm_time: RFC 3339 in and out, and the calendar arithmetic behind it.
 *
 * DESIGN.  No libc time functions but the clock: gmtime and its family read
 * the environment, take locks and cost ten times as much.  Days and civil
 * dates are converted with the well-known era arithmetic (400-year eras of
 * 146097 days, the year beginning in March so that the leap day comes last);
 * it is exact for every year we accept and for those far beyond.
 *
 * What is read is a text of fixed columns up to the seconds, then an optional
 * fraction of any length, then an offset.  What is kept is UTC in whole
 * milliseconds; finer digits are cut, and since the fraction counts forward
 * from its second, cutting is always towards the past.
 *
 * A leap second exists only at 23:59:60 UTC at the end of a month (RFC 3339,
 * 5.7); elsewhere :60 is not a time.  It is taken as the following second.
 */

#include <time.h>

#include "hm_time.h"


#define HM_DAY_SEC     86400
#define HM_TIME_HEAD   19                /* 2026-03-01T08:00:00 */
#define HM_TIME_MIN    -62135596800LL    /* 0001-01-01T00:00:00Z */
#define HM_TIME_MAX    253402300799LL    /* 9999-12-31T23:59:59Z */
#define HM_DAY_MIN     -719162
#define HM_DAY_MAX     2932896


static int hm_number(const unsigned char *p, unsigned len);
static hm_rc_t hm_civil(int32_t *days, const unsigned char *p);
static hm_rc_t hm_time_fraction(int *ms, unsigned char **pos,
    unsigned char *end);
static hm_rc_t hm_time_offset(int *seconds, unsigned char *p,
    unsigned char *end);
static void hm_two(char *out, unsigned n);


hm_usec_t
hm_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);

    return (hm_usec_t) ts.tv_sec * HM_USEC + ts.tv_nsec / 1000;
}


hm_rc_t
hm_time_parse(hm_usec_t *t, hm_str_t text)
{
    int             hour, min, sec, ms, offset, year, month, day;
    int32_t         days;
    int64_t         at;
    unsigned char  *p, *end;

    if (text.len < HM_TIME_HEAD + 1) {
        return HM_DECLINED;
    }

    p = text.data;
    end = p + text.len;

    if (hm_civil(&days, p) != HM_OK || (p[10] | 0x20) != 't'
        || p[13] != ':' || p[16] != ':')
    {
        return HM_DECLINED;
    }

    hour = hm_number(p + 11, 2);
    min = hm_number(p + 14, 2);
    sec = hm_number(p + 17, 2);

    if (hour < 0 || hour > 23 || min < 0 || min > 59 || sec < 0 || sec > 60) {
        return HM_DECLINED;
    }

    p += HM_TIME_HEAD;

    if (hm_time_fraction(&ms, &p, end) != HM_OK
        || hm_time_offset(&offset, p, end) != HM_OK)
    {
        return HM_DECLINED;
    }

    at = (int64_t) days * HM_DAY_SEC + hour * 3600 + min * 60 + sec - offset;

    if (at < HM_TIME_MIN || at > HM_TIME_MAX) {
        return HM_DECLINED;
    }

    if (sec == 60) {
        /* the second after it is midnight UTC of a first of a month */
        hm_civil_from_days(at / HM_DAY_SEC, &year, &month, &day);

        if (at % HM_DAY_SEC != 0 || day != 1) {
            return HM_DECLINED;
        }
    }

    *t = at * HM_USEC + ms * 1000;

    return HM_OK;
}


static hm_rc_t
hm_time_fraction(int *ms, unsigned char **pos, unsigned char *end)
{
    int             scale;
    unsigned char  *p;

    *ms = 0;
    p = *pos;

    if (p < end && *p == '.') {
        scale = 100;

        for (p++; p < end && *p >= '0' && *p <= '9'; p++) {
            *ms += (*p - '0') * scale;
            scale /= 10;
        }

        if (p == *pos + 1) {
            return HM_DECLINED;
        }
    }

    *pos = p;

    return HM_OK;
}


static hm_rc_t
hm_time_offset(int *seconds, unsigned char *p, unsigned char *end)
{
    int  hour, min;

    if (end - p == 1 && (*p | 0x20) == 'z') {
        *seconds = 0;
        return HM_OK;
    }

    if (end - p != 6 || (*p != '+' && *p != '-') || p[3] != ':') {
        return HM_DECLINED;
    }

    hour = hm_number(p + 1, 2);
    min = hm_number(p + 4, 2);

    if (hour < 0 || hour > 23 || min < 0 || min > 59) {
        return HM_DECLINED;
    }

    *seconds = hour * 3600 + min * 60;

    if (*p == '-') {
        *seconds = -*seconds;
    }

    return HM_OK;
}


/* Outside the years 0001..9999 the nearest time that has a text is written. */

void
hm_time_format(hm_usec_t t, char out[HM_TIME_TEXT])
{
    int64_t   sec, rest, days;
    unsigned  ms, day;

    sec = t / HM_USEC;
    rest = t % HM_USEC;

    if (rest < 0) {
        rest += HM_USEC;
        sec--;
    }

    ms = (unsigned) (rest / 1000);

    if (sec < HM_TIME_MIN) {
        sec = HM_TIME_MIN;
        ms = 0;

    } else if (sec > HM_TIME_MAX) {
        sec = HM_TIME_MAX;
        ms = 999;
    }

    days = sec / HM_DAY_SEC;

    if (sec % HM_DAY_SEC < 0) {
        days--;
    }

    day = (unsigned) (sec - days * HM_DAY_SEC);

    hm_date_format((int32_t) days, out);

    out[10] = 'T';
    hm_two(out + 11, day / 3600);
    out[13] = ':';
    hm_two(out + 14, day / 60 % 60);
    out[16] = ':';
    hm_two(out + 17, day % 60);
    out[19] = '.';
    out[20] = (char) ('0' + ms / 100);
    hm_two(out + 21, ms % 100);
    out[23] = 'Z';
}


hm_rc_t
hm_date_parse(int32_t *days, hm_str_t text)
{
    if (text.len != 10) {
        return HM_DECLINED;
    }

    return hm_civil(days, text.data);
}


void
hm_date_format(int32_t days, char out[10])
{
    int  year, month, day;

    if (days < HM_DAY_MIN) {
        days = HM_DAY_MIN;

    } else if (days > HM_DAY_MAX) {
        days = HM_DAY_MAX;
    }

    hm_civil_from_days(days, &year, &month, &day);

    hm_two(out, (unsigned) year / 100);
    hm_two(out + 2, (unsigned) year % 100);
    out[4] = '-';
    hm_two(out + 5, (unsigned) month);
    out[7] = '-';
    hm_two(out + 8, (unsigned) day);
}


/* The ten characters of a date, which must be one of the calendar. */

static hm_rc_t
hm_civil(int32_t *days, const unsigned char *p)
{
    int                         year, month, day, last;
    static const unsigned char  length[12] = {
        31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
    };

    if (p[4] != '-' || p[7] != '-') {
        return HM_DECLINED;
    }

    year = hm_number(p, 4);
    month = hm_number(p + 5, 2);
    day = hm_number(p + 8, 2);

    if (year < 1 || month < 1 || month > 12 || day < 1) {
        return HM_DECLINED;
    }

    last = length[month - 1];

    if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) {
        last = 29;
    }

    if (day > last) {
        return HM_DECLINED;
    }

    *days = (int32_t) hm_days_from_civil(year, (unsigned) month,
                                         (unsigned) day);
    return HM_OK;
}


int64_t
hm_days_from_civil(int64_t year, unsigned month, unsigned day)
{
    int64_t  era, yoe, doy;

    if (month <= 2) {
        year--;
    }

    era = (year >= 0 ? year : year - 399) / 400;
    yoe = year - era * 400;
    doy = (153 * (int64_t) (month > 2 ? month - 3 : month + 9) + 2) / 5
          + day - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}


void
hm_civil_from_days(int64_t days, int *year, int *month, int *day)
{
    int64_t  era, doe, yoe, doy, mp;

    days += 719468;

    era = (days >= 0 ? days : days - 146096) / 146097;
    doe = days - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;

    *day = (int) (doy - (153 * mp + 2) / 5 + 1);
    *month = (int) (mp < 10 ? mp + 3 : mp - 9);
    *year = (int) (yoe + era * 400 + (*month <= 2 ? 1 : 0));
}


/* -1: not all digits */

static int
hm_number(const unsigned char *p, unsigned len)
{
    int       n;
    unsigned  i;

    n = 0;

    for (i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }

        n = n * 10 + (p[i] - '0');
    }

    return n;
}


static void
hm_two(char *out, unsigned n)
{
    out[0] = (char) ('0' + n / 10 % 10);
    out[1] = (char) ('0' + n % 10);
}
