/*
 * time_test: RFC 3339 at its edges, and the calendar against libc's.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "hm_time.h"


static hm_str_t
text(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static void
test_read(void **state)
{
    size_t     i;
    char       out[HM_TIME_TEXT + 1];
    hm_usec_t  t;

    static const struct { const char *in, *out; } rows[] = {
        { "2026-03-01T08:00:00Z", "2026-03-01T08:00:00.000Z" },
        { "2026-03-01t08:00:00z", "2026-03-01T08:00:00.000Z" },
        { "2026-03-01T08:00:00.5Z", "2026-03-01T08:00:00.500Z" },
        { "2026-03-01T08:00:00.1239999Z", "2026-03-01T08:00:00.123Z" },
        { "1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z" },
        { "1969-12-31T23:59:59.0001Z", "1969-12-31T23:59:59.000Z" },
        { "2026-03-01T00:30:00+01:00", "2026-02-28T23:30:00.000Z" },
        { "2024-02-28T23:30:00-01:00", "2024-02-29T00:30:00.000Z" },
        { "2026-03-01T08:00:00-00:00", "2026-03-01T08:00:00.000Z" },
        { "2026-03-01T08:00:00+23:59", "2026-02-28T08:01:00.000Z" },
        { "2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z" },
        { "2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.250Z" },
        { "2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00.000Z" },
        { "1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00.000Z" },
        { "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z" },
        { "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z" },
        { "2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z" },
        { "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z" }
    };

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(hm_time_parse(&t, text(rows[i].in)), HM_OK);
        assert_int_equal(t % 1000, 0);
        hm_time_format(t, out);
        out[HM_TIME_TEXT] = '\0';
        assert_string_equal(out, rows[i].out);
    }

    assert_int_equal(hm_time_parse(&t, text("2000-01-01T00:00:00Z")), HM_OK);
    assert_true(t == HM_PG_EPOCH);
    assert_int_equal(hm_time_parse(&t, text("1969-12-31T23:59:59.999Z")),
                     HM_OK);
    assert_true(t == -1000);
}


static void
test_refused(void **state)
{
    size_t     i;
    hm_usec_t  t;

    static const char *rows[] = {
        "", "2026-03-01", "2026-03-01T08:00:00", "2026-03-01T08:00Z",
        "2026-03-01 08:00:00Z", "2026-03-01T08:00:00.Z",
        "2026-03-01T08:00:00,5Z", "2026-03-01T08:00:00.5",
        "2026-03-01T24:00:00Z", "2026-03-01T08:60:00Z",
        "2026-03-01T08:00:61Z", "2026-03-01T08:00:60Z",
        "2026-03-15T23:59:60Z", "2017-01-01T00:59:60Z",
        "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
        "2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z",
        "2026-01-00T00:00:00Z", "2026-04-31T00:00:00Z",
        "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z",
        "2026-03-01T08:00:00+24:00", "2026-03-01T08:00:00+01:60",
        "2026-03-01T08:00:00+0100", "2026-03-01T08:00:00+01",
        "2026-03-01T08:00:00ZZ", "2026-03-01T08:00:00Z ",
        " 2026-03-01T08:00:00Z", "+026-03-01T08:00:00Z",
        "2026-3-01T08:00:00Z", "2026-03-01T-8:00:00Z",
        "2026/03/01T08:00:00Z", "12026-03-01T08:00:00Z"
    };

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (hm_time_parse(&t, text(rows[i])) != HM_DECLINED) {
            fail_msg("taken: %s", rows[i]);
        }
    }

    /* a NUL is a byte like others */
    assert_int_equal(hm_time_parse(&t, HM_STR("2026-03-01T08:00:00\0Z")),
                     HM_DECLINED);
}


static void
test_calendar(void **state)
{
    int        year, month, day;
    char       out[10];
    time_t     at;
    int32_t    back;
    int64_t    days;
    struct tm  tm;

    for (days = -719162; days <= 2932896; days++) {
        hm_civil_from_days(days, &year, &month, &day);
        assert_true(hm_days_from_civil(year, (unsigned) month, (unsigned) day)
                    == days);

        hm_date_format((int32_t) days, out);
        assert_int_equal(hm_date_parse(&back, (hm_str_t) {
                             10, (unsigned char *) out }), HM_OK);
        assert_true(back == days);

        if (days % 13 == 0) {
            at = (time_t) days * 86400;
            gmtime_r(&at, &tm);
            assert_int_equal(year, tm.tm_year + 1900);
            assert_int_equal(month, tm.tm_mon + 1);
            assert_int_equal(day, tm.tm_mday);
        }
    }

    assert_int_equal(hm_date_parse(&back, HM_STR("2023-02-29")), HM_DECLINED);
    assert_int_equal(hm_date_parse(&back, HM_STR("2024-02-29")), HM_OK);
    assert_int_equal(hm_date_parse(&back, HM_STR("2024-02-2")), HM_DECLINED);
    assert_int_equal(hm_date_parse(&back, HM_STR("2024-02-291")), HM_DECLINED);
}


static void
test_format_bounds(void **state)
{
    char  out[HM_TIME_TEXT + 1];

    out[HM_TIME_TEXT] = '\0';

    hm_time_format(INT64_MAX, out);
    assert_string_equal(out, "9999-12-31T23:59:59.999Z");
    hm_time_format(INT64_MIN, out);
    assert_string_equal(out, "0001-01-01T00:00:00.000Z");
    hm_time_format(-1, out);
    assert_string_equal(out, "1969-12-31T23:59:59.999Z");
    hm_time_format(999, out);
    assert_string_equal(out, "1970-01-01T00:00:00.000Z");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_calendar),
        cmocka_unit_test(test_format_bounds)
    };

    return cmocka_run_group_tests_name("time", tests, NULL, NULL);
}
