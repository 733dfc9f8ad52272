/*
 * uuid_test: the form of a UUIDv7, its order, and its text.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hm_uuid.h"


static void
test_form(void **state)
{
    char       out[HM_UUID_TEXT + 1];
    hm_uuid_t  id, back;

    /* the moment of RFC 9562's example: 017f22e2-79b0-7... */

    assert_int_equal(hm_uuid7(&id, 1645557742000000LL), HM_OK);

    hm_uuid_format(&id, out);
    out[HM_UUID_TEXT] = '\0';

    assert_memory_equal(out, "017f22e2-79b0-7", 15);
    assert_true(out[19] == '8' || out[19] == '9' || out[19] == 'a'
                || out[19] == 'b');
    assert_int_equal(hm_uuid_parse(&back, (hm_str_t) {
                         36, (unsigned char *) out }), HM_OK);
    assert_true(hm_uuid_eq(&id, &back));
}


static void
test_order(void **state)
{
    int        i;
    hm_usec_t  now;
    hm_uuid_t  id, last;

    /* one millisecond, a clock that stands, runs and steps back */

    now = 1700000000000000LL;
    assert_int_equal(hm_uuid7(&last, now), HM_OK);

    for (i = 0; i < 200000; i++) {
        if (i > 100000) {
            now += i % 7 == 0 ? -5000 : 900;
        }

        assert_int_equal(hm_uuid7(&id, now), HM_OK);
        assert_true(memcmp(last.b, id.b, 16) < 0);
        last = id;
    }
}


static void
test_fork(void **state)
{
    int        fds[2], status;
    pid_t      pid;
    hm_uuid_t  mine, theirs;

    assert_int_equal(hm_uuid7(&mine, 1800000000000000LL), HM_OK);
    assert_int_equal(pipe(fds), 0);

    pid = fork();
    assert_true(pid >= 0);

    if (pid == 0) {
        _exit(hm_uuid7(&theirs, 1800000000000000LL) != HM_OK
              || write(fds[1], theirs.b, 16) != 16);
    }

    assert_int_equal(hm_uuid7(&mine, 1800000000000000LL), HM_OK);
    assert_int_equal(read(fds[0], theirs.b, 16), 16);
    assert_true(wait(&status) == pid && status == 0);

    assert_memory_not_equal(mine.b + 8, theirs.b + 8, 8);
}


static void
test_parse(void **state)
{
    size_t     i;
    hm_uuid_t  id, low;
    char       text[37];

    static const char  good[] = "01234567-89ab-7def-8123-456789ABCDEF";

    assert_int_equal(hm_uuid_parse(&id, HM_STR(good)), HM_OK);
    assert_memory_equal(id.b, "\x01\x23\x45\x67\x89\xab\x7d\xef"
                              "\x81\x23\x45\x67\x89\xab\xcd\xef", 16);
    assert_int_equal(hm_uuid_parse(&low, HM_STR(
                         "01234567-89AB-7DEF-8123-456789abcdef")), HM_OK);
    assert_true(hm_uuid_eq(&id, &low));

    /* each place spoilt, and each length but one */

    for (i = 0; i < 36; i++) {
        memcpy(text, good, 37);
        text[i] = text[i] == '-' ? '0' : 'g';
        assert_int_equal(hm_uuid_parse(&id, (hm_str_t) {
                             36, (unsigned char *) text }), HM_DECLINED);
        text[i] = '\0';
        assert_int_equal(hm_uuid_parse(&id, (hm_str_t) {
                             36, (unsigned char *) text }), HM_DECLINED);
        assert_int_equal(hm_uuid_parse(&id, (hm_str_t) {
                             i, (unsigned char *) good }), HM_DECLINED);
    }

    assert_int_equal(hm_uuid_parse(&id, (hm_str_t) {
                         37, (unsigned char *) good }), HM_DECLINED);
    assert_int_equal(hm_uuid_parse(&id, HM_STR(
                         "{1234567-89ab-7def-8123-456789abcde}")), HM_DECLINED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_parse)
    };

    return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}
