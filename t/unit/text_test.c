/*
 * text_test: one spelling per value, and emails in their normal form.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "hm_text.h"


static hm_str_t
text(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static void
test_b64url(void **state)
{
    char            out[64];
    size_t          i, n, len;
    unsigned char   in[32], back[32];

    static const char *bad[] = {
        "A", "AAAAA", "AA==", "AB", "Zh", "AAB", "AA+A", "AA/A", "AA A",
        "AA\n", "\xff" "AAA", "Zm9="
    };

    assert_int_equal(hm_b64url_encode(out, "foobar", 6), 8);
    assert_memory_equal(out, "Zm9vYmFy", 8);
    assert_int_equal(hm_b64url_encode(out, "foob", 4), 6);
    assert_memory_equal(out, "Zm9vYg", 6);
    assert_int_equal(hm_b64url_encode(out, "\xfb\xff", 2), 3);
    assert_memory_equal(out, "-_8", 3);

    for (n = 0; n <= sizeof(in); n++) {
        for (i = 0; i < n; i++) {
            in[i] = (unsigned char) (i * 37 + n * 101);
        }

        len = hm_b64url_encode(out, in, n);
        assert_int_equal(len, hm_b64url_len(n));
        assert_int_equal(hm_b64url_decode(back, &i, (hm_str_t) {
                             len, (unsigned char *) out }), HM_OK);
        assert_int_equal(i, n);
        assert_memory_equal(in, back, n);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (hm_b64url_decode(back, &len, text(bad[i])) != HM_DECLINED) {
            fail_msg("taken: %s", bad[i]);
        }
    }

    assert_int_equal(hm_unhex(back, text("00fFa")), HM_DECLINED);
    assert_int_equal(hm_unhex(back, text("0g")), HM_DECLINED);
    assert_int_equal(hm_unhex(back, text("00fF")), HM_OK);
    assert_int_equal(back[1], 255);
}


static void
test_utf8(void **state)
{
    size_t  i;

    static const char *bad[] = {
        "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80",
        "\xe2\x82", "abcdefgh\xc3", "abcdefg\xe2\x28\xa1", "\xff"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (hm_utf8_valid(text(bad[i]))) {
            fail_msg("taken: %zu", i);
        }
    }

    assert_true(hm_utf8_valid(text("")));
    assert_true(hm_utf8_valid(text("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"
                                   "abcdefghijk\xc2\x80")));
    assert_int_equal(hm_utf8_count(text("a\xc3\xa4\xe2\x82\xac")), 3);

    assert_true(hm_text_clean(text("a\tb\r\n\x7f\xc3\xa4")));
    assert_false(hm_text_clean(HM_STR("a\0b")));
    assert_false(hm_text_clean(text("a\x1b[0m")));
}


static void
test_email(void **state)
{
    char      longest[260];
    size_t    i;
    hm_str_t  out;

    static const struct { const char *in, *out; } good[] = {
        { "Ann@Example.ORG", "ann@example.org" },
        { "root@localhost", "root@localhost" },
        { "a.b+c@x-y.de", "a.b+c@x-y.de" },
        /* decomposed, composed and upper case are one address */
        { "Ju\xcc\x88rgen@example.org", "j\xc3\xbcrgen@example.org" },
        { "J\xc3\x9cRGEN@example.org", "j\xc3\xbcrgen@example.org" },
        { "a@B\xc3\x9c" "CHER.de", "a@b\xc3\xbc" "cher.de" }
    };

    static const char *bad[] = {
        "", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a@.b", "a@b.",
        "a@b..c", "a@-b", "a@b-", "a@b-.c", "a@b_c", "a\n@b", "a@b\n",
        "a,b@c", "a;b@c", "<a@b>", "a@[127.0.0.1]", "\"a\"@b", "a\x7f@b",
        "\xff@b", "a\xc2\xa0@b", "a\xe2\x80\xa8@b", "a\xe2\x80\x8b@b",
        "a\xc2\x85@b", "a\xcd\xbe" "b@c", "a@b\xed\xa0\x80"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(hm_email_normal(&hm_heap, &out, text(good[i].in)),
                         HM_OK);
        assert_string_equal((char *) out.data, good[i].out);
        assert_int_equal(out.len, strlen(good[i].out));
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (hm_email_normal(&hm_heap, &out, text(bad[i])) != HM_DECLINED) {
            fail_msg("taken: %s", bad[i]);
        }
    }

    memset(longest, 'a', sizeof(longest));
    longest[1] = '@';
    assert_int_equal(hm_email_normal(&hm_heap, &out, (hm_str_t) {
                         254, (unsigned char *) longest }), HM_OK);
    assert_int_equal(hm_email_normal(&hm_heap, &out, (hm_str_t) {
                         255, (unsigned char *) longest }), HM_DECLINED);

    assert_int_equal(hm_email_normal(&hm_heap, &out, HM_STR("a@b\0c")),
                     HM_DECLINED);
}


static void
test_nfc(void **state)
{
    hm_str_t  a, b;

    assert_int_equal(hm_nfc(&hm_heap, &a, text("pa\xcc\x8ass")), HM_OK);
    assert_int_equal(hm_nfc(&hm_heap, &b, text("p\xc3\xa5ss")), HM_OK);
    assert_true(hm_str_eq(a, b));
    assert_int_equal(hm_utf8_count(a), 4);
    assert_int_equal(hm_nfc(&hm_heap, &a, text("\xc3")), HM_DECLINED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_b64url),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_email),
        cmocka_unit_test(test_nfc)
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
