/*
 * totp_test: codes against the vectors of RFC 6238, the window and the step
 * that is over; secrets as text; recovery codes and how people type them;
 * a QR code is square and bounded.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hm_crypto.h"
#include "hm_totp.h"


static const unsigned char  secret[] = "12345678901234567890";

/* the last six digits of the RFC's eight */
static const struct {
    int64_t      now;
    const char  *code;
} vectors[] = {
    { 59, "287082" }, { 1111111109, "081804" }, { 1111111111, "050471" },
    { 1234567890, "005924" }, { 2000000000, "279037" },
    { 20000000000LL, "353130" }
};


static hm_str_t
str(const char *s)
{
    hm_str_t  r = { strlen(s), (unsigned char *) s };

    return r;
}


static void
test_vectors(void **state)
{
    size_t   i;
    int64_t  step;

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        assert_int_equal(hm_totp_check(secret, vectors[i].now, 0,
                                       str(vectors[i].code), &step), HM_OK);
        assert_int_equal(step, vectors[i].now / 30);
    }
}


static void
test_window(void **state)
{
    int      d;
    int64_t  now, step;

    now = 1234567890 - 1234567890 % 30;

    for (d = -95; d <= 95; d++) {
        step = -7;

        if (now / 30 - 1 <= (now + d) / 30 && (now + d) / 30 <= now / 30 + 1) {
            assert_int_equal(hm_totp_check(secret, now + d, 0,
                                           str("005924"), &step), HM_OK);
            assert_int_equal(step, now / 30);

        } else {
            assert_int_equal(hm_totp_check(secret, now + d, 0,
                                           str("005924"), &step),
                             HM_DECLINED);
            assert_int_equal(step, -7);
        }
    }
}


static void
test_once(void **state)
{
    int64_t  now, step;

    now = 1234567890;

    assert_int_equal(hm_totp_check(secret, now, now / 30 - 1,
                                   str("005924"), &step), HM_OK);

    /* the step itself, and any later one, is over */

    assert_int_equal(hm_totp_check(secret, now, now / 30, str("005924"),
                                   &step), HM_DECLINED);
    assert_int_equal(hm_totp_check(secret, now, now / 30 + 5, str("005924"),
                                   &step), HM_DECLINED);
}


static void
test_forms(void **state)
{
    size_t   i;
    int64_t  step;

    static const char  *bad[] = {
        "", "5924", "05924", "0005924", "00592a", " 05924", "005924 ",
        "-05924", "+05924", "00592\n", "005925"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(hm_totp_check(secret, 1234567890, 0, str(bad[i]),
                                       &step), HM_DECLINED);
    }

    assert_int_equal(hm_totp_check(secret, 1234567890, 0,
                                   (hm_str_t) { 6, (unsigned char *)
                                                "00592\0" }, &step),
                     HM_DECLINED);

    /* before the first step there is none */
    assert_int_equal(hm_totp_check(secret, 10, 0, str("755224"), &step),
                     HM_ERROR);
}


static void
test_secret(void **state)
{
    int            i;
    char           text[HM_TOTP_TEXT];
    hm_str_t       s;
    unsigned char  back[HM_TOTP_SECRET], raw[HM_TOTP_SECRET];

    hm_totp_text(text, secret);
    assert_memory_equal(text, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", 32);

    s.data = (unsigned char *) text;
    s.len = sizeof(text);

    for (i = 0; i < 1000; i++) {
        assert_int_equal(hm_random(raw, sizeof(raw)), HM_OK);
        hm_totp_text(text, raw);
        assert_int_equal(hm_totp_secret(back, s), HM_OK);
        assert_memory_equal(back, raw, sizeof(raw));
    }

    for (i = 0; i < 32; i++) {
        hm_totp_text(text, secret);
        text[i] = "018=\0a"[i % 6];
        assert_int_equal(hm_totp_secret(back, s), HM_DECLINED);
    }

    s.len = 31;
    assert_int_equal(hm_totp_secret(back, s), HM_DECLINED);
}


static void
test_uri(void **state)
{
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, 512);
    hm_totp_uri(&b, HM_STR("Health Mate"), HM_STR("a+b@x.org"), secret);
    hm_buf_add(&b, "", 1);

    assert_string_equal((char *) b.start,
        "otpauth://totp/Health%20Mate:a%2Bb%40x.org?secret="
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Health%20Mate"
        "&algorithm=SHA1&digits=6&period=30");
    free(b.start);
}


static void
test_qr(void **state)
{
    int       w, h;
    char      text[HM_QR_TEXT_MAX + 2];
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, HM_QR_SVG_MAX);
    assert_int_equal(hm_qr_svg(&b, "otpauth://totp/x?secret=GEZDGNBVGY3TQ"),
                     HM_OK);
    hm_buf_add(&b, "", 1);
    assert_non_null(strstr((char *) b.start, "</svg>"));
    assert_null(strstr((char *) b.start, "style"));
    assert_int_equal(sscanf(strstr((char *) b.start, "viewBox"),
                            "viewBox=\"0 0 %d %d\"", &w, &h), 2);
    assert_true(w == h && w >= 29);
    free(b.start);

    /* the longest there is stays in its room; one more is refused */

    hm_buf_init(&b, &hm_heap, HM_QR_SVG_MAX);
    memset(text, 'U', sizeof(text));
    text[HM_QR_TEXT_MAX] = '\0';
    assert_int_equal(hm_qr_svg(&b, text), HM_OK);
    assert_true(hm_buf_len(&b) < HM_QR_SVG_MAX);
    free(b.start);

    text[HM_QR_TEXT_MAX] = 'U';
    text[HM_QR_TEXT_MAX + 1] = '\0';
    hm_buf_init(&b, &hm_heap, 64);
    assert_int_equal(hm_qr_svg(&b, text), HM_DECLINED);
    free(b.start);
}


static void
test_recovery(void **state)
{
    int       i, n;
    char      code[HM_RECOVERY_TEXT], a[16], b[16], typed[64];
    hm_str_t  s;

    for (i = 0; i < 1000; i++) {
        assert_int_equal(hm_recovery_code(code), HM_OK);

        for (n = 0; n < HM_RECOVERY_TEXT; n++) {
            assert_true(n % 5 == 4 ? code[n] == '-'
                        : strchr("0123456789ABCDEFGHJKMNPQRSTVWXYZ", code[n])
                          != NULL);
        }

        s.data = (unsigned char *) code;
        s.len = sizeof(code);
        assert_int_equal(hm_recovery_normal(a, s), HM_OK);

        n = snprintf(typed, sizeof(typed), " %.4s %.14s", code, code + 5);

        while (n-- > 0) {
            typed[n] = typed[n] == '0' ? 'o' : typed[n] == '1' ? 'l'
                       : typed[n] >= 'A' ? typed[n] + 32 : typed[n];
        }

        assert_int_equal(hm_recovery_normal(b, str(typed)), HM_OK);
        assert_memory_equal(a, b, 16);
    }

    assert_int_equal(hm_recovery_normal(a, str("")), HM_DECLINED);
    assert_int_equal(hm_recovery_normal(a, str("123456")), HM_DECLINED);
    assert_int_equal(hm_recovery_normal(a, str("AAAA-AAAA-AAAA-AAA")),
                     HM_DECLINED);
    assert_int_equal(hm_recovery_normal(a, str("AAAA-AAAA-AAAA-AAAAA")),
                     HM_DECLINED);
    assert_int_equal(hm_recovery_normal(a, str("AAAA-AAAA-AAAA-AAAU")),
                     HM_DECLINED);
    s.data = (unsigned char *) "AAAAAAAAAAAAAAA\0";
    s.len = 16;
    assert_int_equal(hm_recovery_normal(a, s), HM_DECLINED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_secret),
        cmocka_unit_test(test_uri),
        cmocka_unit_test(test_qr),
        cmocka_unit_test(test_recovery)
    };

    (void) hm_crypto_init();

    return cmocka_run_group_tests_name("totp", tests, NULL, NULL);
}
