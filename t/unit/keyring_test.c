/*
 * keyring_test: KEK files that are refused, and a cache that forgets.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hm_keyring.h"


#define K1  "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define K2  "FF112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"


static char  reason[256];


static hm_kek_t *
load(const char *text, mode_t mode)
{
    int        fd;
    char       path[] = "/tmp/hm-kek-XXXXXX";
    hm_kek_t  *kek;

    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);

    kek = hm_kek_load(path, reason);
    unlink(path);

    return kek;
}


static void
test_kek_file(void **state)
{
    size_t     i;
    hm_kek_t  *kek;

    static const struct { const char *in, *why; } bad[] = {
        { "", "holds no key" }, { "# only\n\n", "holds no key" },
        { "1 " K1 "\n1 " K2 "\n", "line 2: the version was there before" },
        { "# c\n\nsecret\n", "line 3: expected" },
        { "0 " K1 "\n", "line 1: expected" },
        { "-1 " K1 "\n", "line 1: expected" },
        { "4294967296 " K1 "\n", "line 1: the version is too large" },
        { "1 " K1 "0\n", "line 1: the key is not" },
        { "1 " K1 " x\n", "line 1: the key is not" },
        { "1 zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
          "line 1: the key is not" },
        { "1 0011\n", "line 1: the key is not" },
        { "1" K1 "\n", "line 1: " }, { "1\n", "line 1: expected" }
    };

    kek = load("# keys\n\n 3 " K1 "\n1\t" K2 "\r\n", 0640);
    assert_non_null(kek);
    assert_int_equal(hm_kek_current(kek), 3);
    hm_kek_free(kek);

    kek = load("4294967295 " K1, 0400);
    assert_non_null(kek);
    assert_true(hm_kek_current(kek) == UINT32_MAX);
    hm_kek_free(kek);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_null(load(bad[i].in, 0600));

        if (strncmp(reason, bad[i].why, strlen(bad[i].why)) != 0) {
            fail_msg("%zu: %s", i, reason);
        }

        assert_null(strstr(reason, "secret"));
        assert_null(strstr(reason, "0011"));
    }

    assert_null(load("1 " K1 "\n", 0604));
    assert_non_null(strstr(reason, "others"));
    assert_null(load("1 " K1 "\n", 0602));
    assert_null(hm_kek_load("/nonexistent/kek", reason));
    assert_null(hm_kek_load("/tmp", reason));
}


static void
test_kek_wrap(void **state)
{
    hm_str_t        w;
    hm_kek_t       *old, *both, *other;
    unsigned char   out[HM_WRAPPED_LEN], key[HM_KEY_LEN], back[HM_KEY_LEN];

    old = load("1 " K1 "\n", 0600);
    both = load("1 " K1 "\n2 " K2 "\n", 0600);
    other = load("1 " K2 "\n", 0600);
    memset(key, 7, sizeof(key));

    w.data = out;
    w.len = sizeof(out);

    assert_int_equal(hm_kek_wrap(old, out, "dek", 1, &hm_nil_uuid, key),
                     HM_OK);
    assert_int_equal(hm_kek_unwrap(both, back, "dek", 1, &hm_nil_uuid, w),
                     HM_OK);
    assert_memory_equal(key, back, sizeof(key));
    assert_int_equal(hm_kek_unwrap(other, back, "dek", 1, &hm_nil_uuid, w),
                     HM_DECLINED);

    assert_int_equal(hm_kek_wrap(both, out, "dek", 1, &hm_nil_uuid, key),
                     HM_OK);
    assert_int_equal(out[4], 2);
    assert_int_equal(hm_kek_unwrap(old, back, "dek", 1, &hm_nil_uuid, w),
                     HM_DECLINED);

    hm_kek_free(old);
    hm_kek_free(both);
    hm_kek_free(other);
}


static hm_user_keys_t
person(unsigned n, hm_usec_t loaded)
{
    hm_user_keys_t  keys;

    memset(&keys, 0, sizeof(keys));
    keys.user.b[8] = (unsigned char) (n >> 8);
    keys.user.b[15] = (unsigned char) n;
    keys.user.b[14] = (unsigned char) (n * 31);
    keys.active = 2;
    keys.nversions = 2;
    keys.version[0] = 1;
    keys.version[1] = 2;
    memset(keys.dek[0], (int) n, HM_KEY_LEN);
    memset(keys.dek[1], (int) n + 1, HM_KEY_LEN);
    keys.loaded = loaded;

    return keys;
}


static void
test_cache(void **state)
{
    hm_keyring_t    *ring;
    hm_user_keys_t   a, b, c, d, *got;

    a = person(1, 0);
    b = person(2, 0);
    c = person(3, 0);
    d = person(4, 0);

    ring = hm_keyring_create(3);
    assert_null(hm_keyring_get(ring, &a.user, 0));

    hm_keyring_put(ring, &a);
    hm_keyring_put(ring, &b);
    hm_keyring_put(ring, &c);

    got = hm_keyring_get(ring, &a.user, 1);
    assert_non_null(got);
    assert_memory_equal(got, &a, sizeof(a));
    assert_memory_equal(hm_keys_dek(got, 2), a.dek[1], HM_KEY_LEN);
    assert_null(hm_keys_dek(got, 3));

    /* b is now the one that was used longest ago */
    hm_keyring_put(ring, &d);
    assert_null(hm_keyring_get(ring, &b.user, 1));
    assert_non_null(hm_keyring_get(ring, &a.user, 1));
    assert_non_null(hm_keyring_get(ring, &c.user, 1));
    assert_non_null(hm_keyring_get(ring, &d.user, 1));

    /* age, a clock set back, drop, and a memory that is really wiped */
    assert_non_null(hm_keyring_get(ring, &c.user, HM_KEY_TTL - 1));
    got = hm_keyring_get(ring, &a.user, 1);
    assert_null(hm_keyring_get(ring, &a.user, HM_KEY_TTL));
    assert_int_equal(got->dek[0][0], 0);
    assert_int_equal(got->version[1], 0);
    assert_null(hm_keyring_get(ring, &a.user, 1));

    a.loaded = 10 * HM_KEY_TTL;
    hm_keyring_put(ring, &a);
    assert_null(hm_keyring_get(ring, &a.user, 1));

    hm_keyring_drop(ring, &d.user);
    assert_null(hm_keyring_get(ring, &d.user, 1));
    assert_non_null(hm_keyring_get(ring, &c.user, 1));

    hm_keyring_drop_all(ring);
    assert_null(hm_keyring_get(ring, &c.user, 1));
    assert_non_null(hm_keyring_put(ring, &b));
    hm_keyring_destroy(ring);
}


/* Against a plain model: 100 people, 16 places, 200,000 random steps. */

static void
test_model(void **state)
{
    bool             known[100];
    unsigned         i, n, live;
    hm_keyring_t    *ring;
    hm_user_keys_t   keys, *got;
    unsigned long    used[100], oldest;

    ring = hm_keyring_create(16);
    memset(known, 0, sizeof(known));
    memset(used, 0, sizeof(used));
    srandom(3);

    for (i = 1; i <= 200000; i++) {
        n = (unsigned) random() % 100;
        keys = person(n, 0);

        switch (random() % 8) {

        case 0:
            hm_keyring_drop(ring, &keys.user);
            known[n] = false;
            break;

        case 1: case 2: case 3:
            live = 0;
            oldest = n;

            for (unsigned k = 0; k < 100; k++) {
                live += known[k];

                if (known[k] && (!known[oldest] || used[k] < used[oldest])) {
                    oldest = k;
                }
            }

            if (!known[n] && live == 16) {
                known[oldest] = false;
            }

            hm_keyring_put(ring, &keys);
            known[n] = true;
            used[n] = i;
            break;

        default:
            got = hm_keyring_get(ring, &keys.user, 1);
            assert_int_equal(got != NULL, known[n]);

            if (got != NULL) {
                assert_int_equal(got->dek[0][5], n);
                used[n] = i;
            }
        }
    }

    hm_keyring_destroy(ring);
}


static void
test_fork(void **state)
{
    int              status;
    pid_t            pid;
    hm_keyring_t    *ring;
    hm_user_keys_t   a;

    a = person(1, 0);
    ring = hm_keyring_create(8);
    hm_keyring_put(ring, &a);

    pid = fork();
    assert_true(pid >= 0);

    if (pid == 0) {
        _exit(hm_keyring_get(ring, &a.user, 1) != NULL
              || hm_keyring_put(ring, &a) == NULL
              || hm_keyring_get(ring, &a.user, 1) == NULL);
    }

    assert_true(wait(&status) == pid);
    assert_int_equal(status, 0);
    assert_non_null(hm_keyring_get(ring, &a.user, 1));
    hm_keyring_destroy(ring);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_kek_file),
        cmocka_unit_test(test_kek_wrap),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_fork)
    };

    return cmocka_run_group_tests_name("keyring", tests, NULL, NULL);
}
