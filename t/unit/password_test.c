/*
 * Passwords: hashes and their upgrade, the normal form, and what is refused.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "hm_crypto.h"
#include "hm_password.h"


extern const char *const  hm_blocklist[];
extern const size_t       hm_nblocklist;


static hm_str_t
str(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


/* The code of the only fault, -1 for none. */

static int
check(const char *password, const char *email)
{
    hm_faults_t  f;

    hm_faults_init(&f, &hm_heap);
    hm_password_check(&f, str(password), str(email));

    if (f.n == 0) {
        return -1;
    }

    assert_int_equal(f.n, 1);
    assert_false(f.list[0].parameter);
    assert_true(hm_str_eq(f.list[0].place, HM_STR("/password")));

    return f.list[0].code;
}


static char *
repeat(char *buf, const char *s, size_t n)
{
    size_t  i, len;

    len = strlen(s);

    for (i = 0; i < n; i++) {
        memcpy(buf + i * len, s, len);
    }

    buf[n * len] = '\0';

    return buf;
}


static void
test_hash(void **state)
{
    char  a[HM_PASSWORD_HASH_MAX], b[HM_PASSWORD_HASH_MAX];

    assert_int_equal(hm_password_hash(a, str("horse-battery-9")), HM_OK);
    assert_int_equal(hm_password_hash(b, str("horse-battery-9")), HM_OK);

    assert_int_equal(strncmp(a, "$argon2id$v=19$m=19456,t=2,p=1$", 31), 0);
    assert_string_not_equal(a, b);
    assert_false(hm_password_weak(a));

    assert_int_equal(hm_password_verify(a, str("horse-battery-9")), HM_OK);
    assert_int_equal(hm_password_verify(b, str("horse-battery-9")), HM_OK);
    assert_int_equal(hm_password_verify(a, str("horse-battery-8")),
                     HM_DECLINED);
    assert_int_equal(hm_password_verify(a, str("Horse-battery-9")),
                     HM_DECLINED);
    assert_int_equal(hm_password_verify(a, str("")), HM_DECLINED);
}


static void
test_no_hash(void **state)
{
    char      big[5001];
    hm_str_t  bad = hm_str("\xff\xfe-password");

    assert_int_equal(hm_password_verify(NULL, str("anything at all")),
                     HM_DECLINED);
    assert_int_equal(hm_password_verify(NULL, str("")), HM_DECLINED);
    assert_int_equal(hm_password_verify("$argon2id$broken", str("x")),
                     HM_ERROR);

    /* no password of any account: wrong, at the usual cost */

    repeat(big, "x", 5000);
    assert_int_equal(hm_password_hash(big, str(big)), HM_DECLINED);
    repeat(big, "x", 5000);
    assert_int_equal(hm_password_verify(NULL, str(big)), HM_DECLINED);
    assert_int_equal(hm_password_verify(NULL, bad), HM_DECLINED);
}


static void
test_normal_form(void **state)
{
    char  hash[HM_PASSWORD_HASH_MAX];

    /* e acute as one code point and as two */

    assert_int_equal(hm_password_hash(hash, str("caf\xc3\xa9-au-lait")),
                     HM_OK);
    assert_int_equal(hm_password_verify(hash, str("cafe\xcc\x81-au-lait")),
                     HM_OK);
    assert_int_equal(hm_password_verify(hash, str("cafe-au-lait")),
                     HM_DECLINED);
}


static void
test_weak(void **state)
{
    assert_true(hm_password_weak("$argon2i$v=19$m=19456,t=2,p=1$a$b"));
    assert_true(hm_password_weak("$argon2id$v=16$m=19456,t=2,p=1$a$b"));
    assert_true(hm_password_weak("$argon2id$v=19$m=19455,t=2,p=1$a$b"));
    assert_true(hm_password_weak("$argon2id$v=19$m=19456,t=1,p=1$a$b"));
    assert_true(hm_password_weak("$2b$12$abcdefghijklmnopqrstuv"));
    assert_true(hm_password_weak(""));
    assert_false(hm_password_weak("$argon2id$v=19$m=65536,t=3,p=4$a$b"));
}


static void
test_length(void **state)
{
    char  buf[2048];

    assert_int_equal(check("", "a@b.c"), HM_FAULT_LENGTH);
    assert_int_equal(check("hm7-xyz", "a@b.c"), HM_FAULT_LENGTH);
    assert_int_equal(check("hm7-xyzw", "a@b.c"), -1);

    assert_int_equal(check(repeat(buf, "q7", 64), "a@b.c"), -1);
    assert_int_equal(check(strcat(repeat(buf, "q7", 64), "x"), "a@b.c"),
                     HM_FAULT_LENGTH);

    /* code points, not bytes */

    assert_int_equal(check(repeat(buf, "\xf0\x9f\x90\x8e", 7), "a@b.c"),
                     HM_FAULT_LENGTH);
    assert_int_equal(check(repeat(buf, "\xf0\x9f\x90\x8e", 8), "a@b.c"), -1);
    assert_int_equal(check(repeat(buf, "\xf0\x9f\x90\x8e", 128), "a@b.c"),
                     -1);
    assert_int_equal(check(repeat(buf, "\xf0\x9f\x90\x8e", 129), "a@b.c"),
                     HM_FAULT_LENGTH);

    /* after NFC: e + combining acute is one */

    assert_int_equal(check(repeat(buf, "e\xcc\x81", 4), "a@b.c"),
                     HM_FAULT_LENGTH);
    assert_int_equal(check(repeat(buf, "e\xcc\x81", 128), "a@b.c"), -1);
}


static void
test_common(void **state)
{
    assert_int_equal(check("password", "a@b.c"), HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("PassWord", "a@b.c"), HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("12345678", "a@b.c"), HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("QWERTYUIOP", "a@b.c"), HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("iloveyou", "a@b.c"), HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("password123", "a@b.c"), HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("Contrase\xc3\x91" "a", "a@b.c"),
                     HM_FAULT_BLOCKLISTED);

    assert_int_equal(check("password-is-not-it", "a@b.c"), -1);
    assert_int_equal(check("correct horse battery staple", "a@b.c"), -1);
}


static void
test_blocklist(void **state)
{
    size_t  i;

    assert_true(hm_nblocklist >= 1000);

    for (i = 0; i < hm_nblocklist; i++) {
        assert_true(strlen(hm_blocklist[i]) >= 8);

        if (i != 0) {
            assert_true(strcmp(hm_blocklist[i - 1], hm_blocklist[i]) < 0);
        }

        /* finds each, the first and the last among them */

        assert_int_equal(check(hm_blocklist[i], "a@b.c"),
                         HM_FAULT_BLOCKLISTED);
    }
}


static void
test_email(void **state)
{
    assert_int_equal(check("maria.gomez", "maria.gomez@example.org"),
                     HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("xx-MARIA-2026", "Maria@example.org"),
                     HM_FAULT_BLOCKLISTED);
    assert_int_equal(check("\xc3\x89lodie-2026", "\xc3\xa9lodie@example.org"),
                     HM_FAULT_BLOCKLISTED);

    /* three characters are in too many passwords */

    assert_int_equal(check("amy-likes-tea", "amy@example.org"), -1);
    assert_int_equal(check("example-of-tea", "maria@example.org"), -1);
    assert_int_equal(check("mari-likes-tea", "maria@example.org"), -1);
    assert_int_equal(check("likes-tea-a-lot", ""), -1);
}


static int
setup(void **state)
{
    return hm_crypto_init() == HM_OK ? 0 : -1;
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_no_hash),
        cmocka_unit_test(test_normal_form),
        cmocka_unit_test(test_weak),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_common),
        cmocka_unit_test(test_blocklist),
        cmocka_unit_test(test_email)
    };

    return cmocka_run_group_tests_name("password", tests, setup, NULL);
}
