/*
 * The pure parts of the worker's roll-up: figures of a bucket, their JSON,
 * and the texts that steer a job.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../worker/stats.c"
#include "../../worker/ukey.c"


#define USER   "0190a5e2-7c00-7000-8000-00000000abcd"
#define SLUG   "00112233445566778899aabbccddeeff"                             \
               "00112233445566778899aabbccddeeff"


static hm_str_t
text_of(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static void
expect_json(const hmw_bucket_t *b, const char *expected)
{
    hm_buf_t  out;

    hm_buf_init(&out, &hm_heap, 512);
    hmw_bucket_json(&out, b);

    assert_false(out.failed);
    assert_int_equal(hm_buf_len(&out), strlen(expected));
    assert_memory_equal(out.start, expected, strlen(expected));
}


static void
test_figures(void **state)
{
    int                  i;
    hmw_stats_t          s = { 0 };
    static const double  x[] = { 2, 4, 4, 4, 5, 5, 7, 9 };

    assert_true(hmw_stats_mean(&s) == 0);
    assert_true(hmw_stats_sd(&s) == 0);

    for (i = 0; i < 8; i++) {
        hmw_stats_add(&s, x[i]);
    }

    assert_int_equal(s.count, 8);
    assert_true(hmw_stats_sum(&s) == 40);
    assert_true(hmw_stats_mean(&s) == 5);
    assert_true(s.min == 2 && s.max == 9);
    assert_true(fabs(hmw_stats_sd(&s) - 2.138089935299395) < 1e-12);
}


static void
test_one_value(void **state)
{
    hmw_stats_t  s = { 0 };

    hmw_stats_add(&s, -3.5);

    assert_true(s.min == -3.5 && s.max == -3.5);
    assert_true(hmw_stats_mean(&s) == -3.5);
    assert_true(hmw_stats_sd(&s) == 0);
}


/* Large and close together: the textbook formula would give 0 or a NaN. */

static void
test_close_values(void **state)
{
    int          i;
    hmw_stats_t  s = { 0 };

    for (i = 0; i < 1000; i++) {
        hmw_stats_add(&s, 1e9 + (i % 2));
    }

    assert_true(fabs(hmw_stats_sd(&s) - 0.5002501876563868) < 1e-9);
}


static void
test_sum_keeps_small(void **state)
{
    hmw_stats_t  s = { 0 };

    hmw_stats_add(&s, 1e16);
    hmw_stats_add(&s, 1);
    hmw_stats_add(&s, 1);
    hmw_stats_add(&s, -1e16);

    assert_true(hmw_stats_sum(&s) == 2);
}


/* Any split merges to what one pass gives. */

static void
test_merge(void **state)
{
    int          cut, i;
    double       x;
    hmw_stats_t  all = { 0 }, a, b;

    for (i = 0; i < 50; i++) {
        hmw_stats_add(&all, 60 + (i * 37) % 41 / 3.0);
    }

    for (cut = 0; cut <= 50; cut++) {
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));

        for (i = 0; i < 50; i++) {
            x = 60 + (i * 37) % 41 / 3.0;
            hmw_stats_add(i < cut ? &a : &b, x);
        }

        hmw_stats_merge(&a, &b);

        assert_int_equal(a.count, all.count);
        assert_true(a.min == all.min && a.max == all.max);
        assert_true(fabs(hmw_stats_sum(&a) - hmw_stats_sum(&all)) < 1e-9);
        assert_true(fabs(hmw_stats_sd(&a) - hmw_stats_sd(&all)) < 1e-9);
    }
}


static void
test_json(void **state)
{
    hmw_bucket_t  b;

    hmw_bucket_init(&b, false);
    hmw_bucket_add(&b, 60, 0);
    hmw_bucket_add(&b, 70, 0);
    expect_json(&b, "{\"count\":2,\"sum\":130,\"min\":60,\"max\":70,"
                "\"mean\":65,\"sd\":7.0710678118654755}");

    hmw_bucket_init(&b, true);
    hmw_bucket_add(&b, 120, 80);
    expect_json(&b, "{\"count\":1,\"systolic\":{\"sum\":120,\"min\":120,"
                "\"max\":120,\"mean\":120,\"sd\":0},\"diastolic\":{"
                "\"sum\":80,\"min\":80,\"max\":80,\"mean\":80,\"sd\":0}}");
}


static void
test_value(void **state)
{
    double  a, b;

    assert_int_equal(hmw_value_read(text_of("72.5   "), false, &a, &b),
                     HM_OK);
    assert_true(a == 72.5);
    assert_int_equal(hmw_value_read(text_of("-1e3"), false, &a, &b), HM_OK);
    assert_true(a == -1000);

    assert_int_equal(hmw_value_read(
        text_of("{\"systolic\":120,\"diastolic\":80.5}"), true, &a, &b),
        HM_OK);
    assert_true(a == 120 && b == 80.5);

    assert_int_equal(hmw_value_read(text_of(""), false, &a, &b), HM_DECLINED);
    assert_int_equal(hmw_value_read(text_of("nan"), false, &a, &b),
                     HM_DECLINED);
    assert_int_equal(hmw_value_read(text_of("0x10"), false, &a, &b),
                     HM_DECLINED);
    assert_int_equal(hmw_value_read(text_of("1e999"), false, &a, &b),
                     HM_DECLINED);
    assert_int_equal(hmw_value_read(text_of("1 2"), false, &a, &b),
                     HM_DECLINED);
    assert_int_equal(hmw_value_read(text_of("{\"systolic\":1}"), true, &a,
                                    &b), HM_DECLINED);
    assert_int_equal(hmw_value_read(text_of("72"), true, &a, &b),
                     HM_DECLINED);
}


static void
test_keys_accepted(void **state)
{
    hmw_rollup_key_t  k;

    assert_int_equal(hmw_rollup_key(&k,
        text_of("rollup:" USER ":heart_rate:489000")), HM_OK);
    assert_string_equal(k.user_text, USER);
    assert_string_equal(k.metric, "heart_rate");
    assert_false(k.custom);
    assert_false(k.all);
    assert_int_equal(k.hour, 489000);

    assert_int_equal(hmw_rollup_key(&k,
        text_of("rollup:" USER ":blood_pressure:-1")), HM_OK);
    assert_int_equal(k.hour, -1);

    assert_int_equal(hmw_rollup_key(&k,
        text_of("rollup:" USER ":custom." SLUG ":*")), HM_OK);
    assert_true(k.custom && k.all);
    assert_string_equal(k.metric, "custom");
    assert_string_equal(k.slug_hex, SLUG);
}


static void
test_keys_refused(void **state)
{
    size_t             i;
    hmw_rollup_key_t   k;
    static const char *const  bad[] = {
        "", "rollup", "rollup:", "rollup:" USER, "rollup:" USER ":heart_rate",
        "rollup:" USER ":heart_rate:", "rollup:" USER "::1",
        "rollup:" USER ":no_such_metric:1",
        "rollup:" USER ":heart_rate:+1", "rollup:" USER ":heart_rate:01",
        "rollup:" USER ":heart_rate:-0", "rollup:" USER ":heart_rate:1 ",
        "rollup:" USER ":heart_rate:1e3", "rollup:" USER ":heart_rate:**",
        "rollup:" USER ":heart_rate:99999999",
        "rollup:" USER ":heart_rate:-17259889",
        "rollup:" USER ":heart_rate:111111111111111111111",
        "rollup:0190A5E2-7C00-7000-8000-00000000ABCD:heart_rate:1",
        "rollup:nobody:heart_rate:1",
        "Rollup:" USER ":heart_rate:1",
        "rollup:" USER ":custom:1", "rollup:" USER ":custom.:1",
        "rollup:" USER ":custom.00:1", "rollup:" USER ":custom." SLUG "0:1",
        "rollup:" USER ":custom.0Z112233445566778899aabbccddeeff"
            "00112233445566778899aabbccddeeff:1",
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (hmw_rollup_key(&k, text_of(bad[i])) != HM_DECLINED) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
}


static void
test_entry(void **state)
{
    char  id[HM_UUID_TEXT + 1];

    assert_int_equal(hmw_entry_id(id, text_of(USER)), HM_OK);
    assert_string_equal(id, USER);
    assert_int_equal(hmw_entry_id(id, text_of(USER "0")), HM_DECLINED);
    assert_int_equal(hmw_entry_id(id, text_of("' or true; -- 0000-000000000"
                                              "000")), HM_DECLINED);
}


static void
test_redis_url(void **state)
{
    hmw_redis_url_t  u;

    assert_int_equal(hmw_redis_url(&u, "unix:///run/r.sock"), HM_OK);
    assert_string_equal(u.path, "/run/r.sock");
    assert_string_equal(u.user, "");

    assert_int_equal(hmw_redis_url(&u,
        "unix:///r?user=hm_worker&password_file=/p"), HM_OK);
    assert_string_equal(u.path, "/r");
    assert_string_equal(u.user, "hm_worker");
    assert_string_equal(u.password_file, "/p");

    assert_int_equal(hmw_redis_url(&u, "redis://h/0"), HM_DECLINED);
    assert_int_equal(hmw_redis_url(&u, "unix://r"), HM_DECLINED);
    assert_int_equal(hmw_redis_url(&u, "unix:///r?db=1"), HM_DECLINED);
    assert_int_equal(hmw_redis_url(&u, "unix:///r?user="), HM_DECLINED);
    assert_int_equal(hmw_redis_url(&u, "unix:///r?user"), HM_DECLINED);
}


/* Figures read back and merged are those of all values in one bucket. */
static void
test_parts(void **state)
{
    int            i;
    hm_buf_t       out;
    hm_str_t       text;
    hmw_bucket_t   all, part, read, sum;

    hmw_bucket_init(&all, false);
    hmw_bucket_init(&sum, false);

    for (i = 0; i < 300; i++) {
        if (i % 100 == 0) {
            hmw_bucket_init(&part, false);
        }

        hmw_bucket_add(&part, 99.9 + (i * 37 % 100) / 10.0, 0);
        hmw_bucket_add(&all, 99.9 + (i * 37 % 100) / 10.0, 0);

        if (i % 100 == 99) {
            hm_buf_init(&out, &hm_heap, 512);
            hmw_bucket_json(&out, &part);
            text.data = out.start;
            text.len = hm_buf_len(&out);
            assert_int_equal(hmw_bucket_read(&read, text, false), HM_OK);
            assert_true(hmw_stats_sum(&read.first)
                        == hmw_stats_sum(&part.first));
            hmw_bucket_merge(&sum, &read);
        }
    }

    assert_int_equal(sum.first.count, 300);
    assert_true(sum.first.min == all.first.min
                && sum.first.max == all.first.max);
    assert_true(fabs(hmw_stats_sum(&sum.first)
                     - hmw_stats_sum(&all.first)) < 1e-9);
    assert_true(fabs(hmw_stats_sd(&sum.first)
                     - hmw_stats_sd(&all.first)) < 1e-9);
}


static void
test_parts_refused(void **state)
{
    size_t                    i;
    hmw_bucket_t              b;
    static const char *const  bad[] = {
        "", "7", "[]", "{}", "{\"count\":0}", "{\"count\":\"1\"}",
        "{\"count\":1,\"sum\":1,\"min\":1,\"max\":1,\"mean\":1}",
        "{\"count\":1,\"sum\":null,\"min\":1,\"max\":1,\"mean\":1,\"sd\":0}"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(hmw_bucket_read(&b, text_of(bad[i]), false),
                         HM_DECLINED);
        assert_int_equal(hmw_bucket_read(&b, text_of(bad[i]), true),
                         HM_DECLINED);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_parts_refused),
        cmocka_unit_test(test_one_value),
        cmocka_unit_test(test_close_values),
        cmocka_unit_test(test_sum_keeps_small),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_value),
        cmocka_unit_test(test_keys_accepted),
        cmocka_unit_test(test_keys_refused),
        cmocka_unit_test(test_entry),
        cmocka_unit_test(test_redis_url),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
