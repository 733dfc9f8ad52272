/*
 * json_test: what is refused, why, and that the reason repeats nothing.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "hm_json.h"


static hm_str_t
text(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static void
test_parse(void **state)
{
    size_t     i;
    json_t    *json;
    hm_str_t   reason;

    static const char *good[] = {
        "1", "\"a\"", "null", " [] ", "{\"a\":{\"a\":1}}", "[1e308,-0,0.5]",
        "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "\"[[[[[[[[[[[[[[[[[[\\\"{{{\"",
        "\"\\ud83d\\ude00\"", "9223372036854775807"
    };

    static const struct { const char *in, *why; } bad[] = {
        { "", "the text is empty" },
        { "{\"a\":1,\n\"a\":2}", "line 2: duplicate object key" },
        { "{\"a\":1,\"\\u0061\":2}", "line 1: duplicate object key" },
        { "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "line 1: nested too deeply" },
        { "[1e400]", "line 1: a number out of range" },
        { "99999999999999999999", "line 1: a number out of range" },
        { "\"\\ud83d\"", NULL }, { "\"\\ude00\"", NULL },
        { "\"\\u0000\"", "line 1: a NUL character" },
        { "{\"\\u0000\":1}", "line 1: a NUL character" },
        { "\"\xff\"", "line 1: not valid UTF-8" },
        { "\"\xed\xa0\x80\"", "line 1: not valid UTF-8" },
        { "1 2", "line 1: something follows the end" },
        { "[1", "line 1: the text ends too early" },
        { "\xef\xbb\xbf" "1", NULL }, { "[1,]", NULL }, { "01", NULL },
        { "NaN", NULL }, { "'a'", NULL }, { "[\"a\nb\"]", NULL },
        { "{secret:1}", NULL }, { "/**/1", NULL }, { "+1", NULL }
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        json = hm_json_parse(text(good[i]), &reason);

        if (json == NULL) {
            fail_msg("%s: %.*s", good[i], (int) reason.len, reason.data);
        }

        json_decref(json);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        json = hm_json_parse(text(bad[i].in), &reason);

        if (json != NULL) {
            fail_msg("taken: %s", bad[i].in);
        }

        assert_true(reason.len > 0);
        assert_null(memmem(reason.data, reason.len, "secret", 6));

        if (bad[i].why != NULL
            && !hm_str_eq(reason, text(bad[i].why)))
        {
            fail_msg("%s: %.*s", bad[i].in, (int) reason.len, reason.data);
        }
    }

    assert_null(hm_json_parse(HM_STR("1\0"), &reason));
    assert_null(hm_json_parse(HM_STR("\"a\0b\""), &reason));
}


/* The items parted by "|", then "." for the end or "!" for a fault. */

static void
cut(const char *in, const char *want)
{
    char             got[256];
    size_t           len;
    hm_rc_t          rc;
    hm_str_t         item;
    hm_json_items_t  it;

    len = 0;
    rc = hm_json_items(&it, text(in));

    while (rc == HM_OK) {
        rc = hm_json_items_next(&it, &item);

        if (rc == HM_OK) {
            len += (size_t) snprintf(got + len, sizeof(got) - len, "%.*s|",
                                     (int) item.len, item.data);
        }
    }

    got[len++] = rc == HM_DECLINED ? '.' : '!';
    got[len] = '\0';

    assert_string_equal(got, want);

    /* it stays where it ended */
    assert_int_equal(hm_json_items_next(&it, &item),
                     in[strspn(in, " ")] == '[' ? rc : HM_ERROR);
}


static void
test_items(void **state)
{
    cut("[]", ".");
    cut(" [ \n] ", ".");
    cut("[1]", "1|.");
    cut(" [ 1 , \"a,]\\\"\" , {\"a\":[1,2]} ,[],null ] ",
        "1|\"a,]\\\"\"|{\"a\":[1,2]}|[]|null|.");
    cut("[\"\\\\\",2]", "\"\\\\\"|2|.");

    cut("[1] x", "1|!");
    cut("[1]]", "1|!");
    cut("[] 1", "!");
    cut("[1 2]", "!");
    cut("[{}{}]", "!");
    cut("[\"a\"\"b\"]", "!");
    cut("[,1]", "!");
    cut("[1,]", "1|!");
    cut("[1,,2]", "1|!");
    cut("[1", "!");
    cut("[", "!");
    cut("[1,", "1|!");
    cut("[\"a", "!");
    cut("[\"a\\", "!");
    cut("[{\"a\":]}]", "!");
    cut("[{]", "!");
    cut("[1}", "!");
    cut("[:]", "!");
    cut("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
        "[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]|.");
    cut("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "!");

    /* another kind of JSON, and none */
    cut("{}", ".");
    cut(" 12", ".");
    cut("null", ".");
    cut("", "!");
    cut("]", "!");
    cut("x", "!");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_items)
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
