/*
 * buf_test: escapes, growth, and numbers that read back as themselves.
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hm_buf.h"


static void *
no_memory(void *ctx, size_t size)
{
    return NULL;
}


static void
real(double n, const char *want)
{
    char    out[33];
    size_t  len;

    len = hm_real_format(n, out);
    out[len] = '\0';
    assert_string_equal(out, want);
}


static void
test_real(void **state)
{
    int       i;
    char      out[33];
    size_t    len;
    double    n;
    uint64_t  bits;

    real(70.0, "70");
    real(0.0, "0");
    real(-0.0, "0");
    real(36.6, "36.6");
    real(-36.6, "-36.6");
    real(0.1 + 0.2, "0.30000000000000004");
    real(0.1, "0.1");
    real(5.5, "5.5");
    real(100, "100");
    real(0.05, "0.05");
    real(1e20, "1e+20");
    real(999999999999999.0, "999999999999999");
    real(123456.789012, "123456.789012");
    real(5e-324, "4.94065645841247e-324");
    real(1.7976931348623157e308, "1.7976931348623157e+308");

    assert_int_equal(hm_real_format(NAN, out), 0);
    assert_int_equal(hm_real_format(INFINITY, out), 0);

    srandom(7);

    for (i = 0; i < 300000; i++) {
        bits = (uint64_t) random() << 33 ^ (uint64_t) random() << 11
               ^ (uint64_t) random();
        memcpy(&n, &bits, 8);

        if (i % 2) {
            n = (double) (random() % 100000000) / pow(10, i % 8);
        }

        if (!isfinite(n)) {
            continue;
        }

        len = hm_real_format(n, out);
        assert_true(len > 0 && len <= 25);
        out[len] = '\0';
        assert_true(strtod(out, NULL) == n);
    }
}


static void
text(const char *in, size_t len, const char *want)
{
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, 0);
    hm_json_text(&b, (hm_str_t) { len, (unsigned char *) in });
    assert_false(b.failed);
    assert_int_equal(hm_buf_len(&b), strlen(want));
    assert_memory_equal(b.start, want, strlen(want));
    free(b.start);
}


static void
test_text(void **state)
{
    char      in[40];
    size_t    i;
    hm_buf_t  b;

    text("", 0, "\"\"");
    text("abcdefghijklmnop", 16, "\"abcdefghijklmnop\"");
    text("a\"b\\c/\b\f\n\r\t", 11, "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\"");
    text("\0\x1f\x7f", 3, "\"\\u0000\\u001f\x7f\"");
    text("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9,
         "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");

    /* the escape at every place of a word and beyond it */

    for (i = 0; i < 40; i++) {
        memset(in, 'a', 40);
        in[i] = '\n';

        hm_buf_init(&b, &hm_heap, 0);
        hm_json_text(&b, (hm_str_t) { 40, (unsigned char *) in });
        assert_int_equal(hm_buf_len(&b), 43);
        assert_memory_equal(b.start + 1 + i, "\\n", 2);
    }
}


static void
test_grow(void **state)
{
    size_t    i;
    hm_buf_t  b;
    hm_mem_t  none = { no_memory, NULL };

    hm_buf_init(&b, &hm_heap, 1);

    for (i = 0; i < 10000; i++) {
        hm_buf_printf(&b, "%08zu", i);
    }

    hm_buf_printf(&b, "%0900d", 1);

    assert_false(b.failed);
    assert_int_equal(hm_buf_len(&b), 80900);
    assert_memory_equal(b.start + 8 * 9999, "00009999", 8);

    hm_buf_init(&b, &none, 10);
    hm_buf_lit(&b, "x");
    hm_json_text(&b, HM_STR("x"));
    hm_json_uuid(&b, &hm_nil_uuid);
    hm_buf_printf(&b, "%d", 1);
    assert_true(b.failed);
    assert_int_equal(hm_buf_len(&b), 0);
}


static void
test_others(void **state)
{
    hm_buf_t     b;
    static char  want[] = "-9223372036854775808 0 null null null "
        "\"00000000-0000-0000-0000-000000000000\" "
        "\"1970-01-01T00:00:00.000Z\"";

    hm_buf_init(&b, &hm_heap, 0);
    hm_json_int(&b, INT64_MIN);
    hm_buf_lit(&b, " ");
    hm_json_int(&b, 0);
    hm_buf_lit(&b, " ");
    hm_json_real(&b, NAN);
    hm_buf_lit(&b, " ");
    hm_json_time(&b, HM_USEC_NONE);
    hm_buf_lit(&b, " ");
    hm_json_text_or_null(&b, hm_null_str);
    hm_buf_lit(&b, " ");
    hm_json_uuid(&b, &hm_nil_uuid);
    hm_buf_lit(&b, " ");
    hm_json_time(&b, 0);

    assert_int_equal(hm_buf_len(&b), sizeof(want) - 1);
    assert_memory_equal(b.start, want, sizeof(want) - 1);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_others)
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
