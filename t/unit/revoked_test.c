/*
 * revoked_test: what was added is found until it expires, whatever happens
 * around it: copies, a full table, a writer that was stopped and goes on,
 * readers in other threads.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sched.h>

#include <cmocka.h>

#include "hm_revoked.h"


#define BYTES  (4096 * 2 * sizeof(hm_revoked_row_t))     /* room for 2048 */


static hm_revoked_t  set;


static void
fresh(void)
{
    void            *mem;
    static void     *old;
    const uint64_t   seed[2] = { 0x123456789abcdefULL, 0xfedcba987654321ULL };

    free(old);
    mem = aligned_alloc(64, BYTES);
    assert_non_null(mem);
    memset(mem, 0, BYTES);
    old = mem;
    assert_true(hm_revoked_init(&set, mem, BYTES, seed));
}


static hm_revoked_item_t
item(hm_revoked_kind_t kind, uint64_t n, uint64_t at, uint32_t expires)
{
    hm_revoked_item_t  it;

    memset(&it, 0, sizeof(it));
    it.kind = kind;
    memcpy(it.id.b, &n, 8);
    n = ~n * 0x9e3779b97f4a7c15ULL;
    memcpy(it.id.b + 8, &n, 8);
    it.at = at;
    it.seen = (uint32_t) (at / 1000 + 1);
    it.expires = expires;

    return it;
}


static hm_revoked_rc_t
find(hm_revoked_kind_t kind, uint64_t n, uint64_t *at)
{
    uint32_t           seen;
    hm_revoked_item_t  it;

    it = item(kind, n, 0, 0);

    return hm_revoked_find(&set, kind, &it.id, at, &seen);
}


static void
add(hm_revoked_writer_t *w, uint64_t n, uint32_t expires)
{
    hm_revoked_item_t  it;

    it = item(HM_REVOKED_SESSION, n, 1000, expires);
    assert_int_equal(hm_revoked_add(w, &it), HM_OK);
}


static void
finds_what_was_added(void **state)
{
    uint64_t             n, at;
    hm_revoked_item_t    it;
    hm_revoked_writer_t  w;

    fresh();
    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);
    assert_true(hm_revoked_mine(&w));

    for (n = 0; n < 1000; n++) {
        assert_int_equal(find(HM_REVOKED_SESSION, n, &at), HM_REVOKED_NO);
        add(&w, n, 100);
        add(&w, n, 100);                 /* again: no second row */
        assert_int_equal(find(HM_REVOKED_SESSION, n, &at), HM_REVOKED_YES);
        assert_int_equal(find(HM_REVOKED_RIGHTS, n, &at), HM_REVOKED_NO);
    }

    assert_int_equal(hm_revoked_count(&set), 1000);

    /* times grow and never shrink */

    it = item(HM_REVOKED_RIGHTS, 7, 5000, 100);
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
    it = item(HM_REVOKED_RIGHTS, 7, 9000, 200);
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
    it = item(HM_REVOKED_RIGHTS, 7, 6000, 50);
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
    assert_int_equal(find(HM_REVOKED_RIGHTS, 7, &at), HM_REVOKED_YES);
    assert_int_equal(at, 9000);
}


static void
known_events_keep_their_seen(void **state)
{
    uint32_t             seen;
    uint64_t             at;
    hm_revoked_item_t    it;
    hm_revoked_writer_t  w;

    fresh();
    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);
    it = item(HM_REVOKED_RIGHTS, 1, 5000, 100);
    it.seen = 6;
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
    it.seen = 60;                        /* the same, read in a catch-up */
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
    assert_int_equal(hm_revoked_find(&set, it.kind, &it.id, &at, &seen),
                     HM_REVOKED_YES);
    assert_int_equal(seen, 6);
    it.at = 70000;                       /* a new one */
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
    assert_int_equal(hm_revoked_find(&set, it.kind, &it.id, &at, &seen),
                     HM_REVOKED_YES);
    assert_int_equal(seen, 60);
    assert_int_equal(at, 70000);
}


static void
expired_rows_go_others_stay(void **state)
{
    hm_rc_t              rc;
    uint64_t             n, at, turn;
    hm_revoked_writer_t  w;

    fresh();
    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);

    for (turn = 0; turn < 200; turn++) {
        /* 500 that live for two turns */

        for (n = turn * 500; n < (turn + 1) * 500; n++) {
            add(&w, n, (uint32_t) turn + 2);

            if (n % 3 == 0) {
                rc = hm_revoked_copy(&w, 64, (uint32_t) turn);
                assert_true(rc == HM_OK || rc == HM_AGAIN);
            }
        }

        while (hm_revoked_copy(&w, 500, (uint32_t) turn) == HM_AGAIN) {
            /* to the end */
        }

        for (n = 0; n < (turn + 1) * 500; n++) {
            if (n / 500 + 2 > turn) {
                assert_int_equal(find(HM_REVOKED_SESSION, n, &at),
                                 HM_REVOKED_YES);
            }
        }

        assert_true(hm_revoked_count(&set) <= 1500);
    }

    assert_int_equal(find(HM_REVOKED_SESSION, 1, &at), HM_REVOKED_NO);
}


static void
full_refuses_and_evicts_nothing(void **state)
{
    uint64_t             n, at;
    hm_revoked_item_t    it;
    hm_revoked_writer_t  w;

    fresh();
    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);
    assert_int_equal(hm_revoked_room(&set), 2048);

    for (n = 0; n < 2048; n++) {
        add(&w, n, 100);
    }

    it = item(HM_REVOKED_SESSION, 2048, 1000, 100);
    assert_int_equal(hm_revoked_add(&w, &it), HM_DECLINED);
    it = item(HM_REVOKED_SESSION, 5, 1000, 100);
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);    /* is there */

    while (hm_revoked_copy(&w, 300, 50) == HM_AGAIN) { /* all live */ }

    for (n = 0; n < 2048; n++) {
        assert_int_equal(find(HM_REVOKED_SESSION, n, &at), HM_REVOKED_YES);
    }

    while (hm_revoked_copy(&w, 300, 100) == HM_AGAIN) { /* all expire */ }

    assert_int_equal(hm_revoked_count(&set), 0);
    it = item(HM_REVOKED_SESSION, 2048, 1000, 200);
    assert_int_equal(hm_revoked_add(&w, &it), HM_OK);
}


/* Stopped in the middle of a copy; another one took over meanwhile. */
static void
a_late_writer_takes_nothing_away(void **state)
{
    uint64_t             n, at;
    hm_revoked_writer_t  old, w;

    fresh();
    assert_int_equal(hm_revoked_claim(&old, &set), HM_OK);

    for (n = 0; n < 100; n++) {
        add(&old, n, 100);
    }

    /* all but the turning of the generation */

    assert_int_equal(hm_revoked_copy(&old, 4095, 1), HM_AGAIN);

    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);
    assert_false(hm_revoked_mine(&old));
    add(&w, 1000, 100);

    assert_int_equal(hm_revoked_copy(&old, 4095, 1), HM_DECLINED);
    assert_int_equal(find(HM_REVOKED_SESSION, 1000, &at), HM_REVOKED_YES);

    add(&old, 1001, 100);                /* it is true all the same */
    assert_int_equal(find(HM_REVOKED_SESSION, 1001, &at), HM_REVOKED_YES);

    while (hm_revoked_copy(&w, 300, 1) == HM_AGAIN) { /* to the end */ }

    for (n = 0; n < 100; n++) {
        assert_int_equal(find(HM_REVOKED_SESSION, n, &at), HM_REVOKED_YES);
    }

    assert_int_equal(find(HM_REVOKED_SESSION, 1000, &at), HM_REVOKED_YES);
    assert_int_equal(find(HM_REVOKED_SESSION, 1001, &at), HM_REVOKED_YES);
}


static void
a_row_being_written_is_perhaps(void **state)
{
    uint64_t             at, i;
    hm_revoked_row_t    *row;
    hm_revoked_writer_t  w;

    fresh();
    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);
    add(&w, 1, 100);

    row = set.half[set.state & 1];

    for (i = 0; row[i].word == 0; i++) { /* the one row */ }

    row[i].id ^= 1;
    assert_int_equal(find(HM_REVOKED_SESSION, 1, &at), HM_REVOKED_PERHAPS);

    /* its writer is gone for good: the next one says it again */

    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);
    add(&w, 1, 100);
    assert_int_equal(find(HM_REVOKED_SESSION, 1, &at), HM_REVOKED_YES);
}


/* Readers never miss what was there before they looked. */

static uint64_t  told;
static bool      over;
static uint64_t  missed;


static void *
reader(void *arg)
{
    uint64_t  n, at, to;

    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        to = __atomic_load_n(&told, __ATOMIC_ACQUIRE);

        /* the last 300 have not expired */

        for (n = to > 300 ? to - 300 : 0; n < to; n++) {
            if (find(HM_REVOKED_SESSION, n, &at) == HM_REVOKED_NO
                && __atomic_load_n(&told, __ATOMIC_ACQUIRE) < n + 600)
            {
                __atomic_add_fetch(&missed, 1, __ATOMIC_ACQ_REL);
            }
        }
    }

    return NULL;
}


static void
readers_miss_nothing(void **state)
{
    uint64_t             n;
    pthread_t            t[3];
    hm_revoked_writer_t  w;

    fresh();
    assert_int_equal(hm_revoked_claim(&w, &set), HM_OK);

    for (n = 0; n < 3; n++) {
        assert_int_equal(pthread_create(&t[n], NULL, reader, NULL), 0);
    }

    for (n = 0; n < 100000; n++) {
        /* time is the number: each lives for 600 */
        add(&w, n, (uint32_t) n + 600);
        __atomic_store_n(&told, n + 1, __ATOMIC_RELEASE);
        (void) hm_revoked_copy(&w, 40, (uint32_t) n);

        if (n % 5000 == 0) {
            sched_yield();
        }
    }

    __atomic_store_n(&over, true, __ATOMIC_RELEASE);

    for (n = 0; n < 3; n++) {
        pthread_join(t[n], NULL);
    }

    assert_int_equal(missed, 0);
}


static void
too_small_is_refused(void **state)
{
    char            mem[1024];
    hm_revoked_t    s;
    const uint64_t  seed[2] = { 1, 2 };

    assert_false(hm_revoked_init(&s, mem, sizeof(mem), seed));
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(finds_what_was_added),
        cmocka_unit_test(known_events_keep_their_seen),
        cmocka_unit_test(expired_rows_go_others_stay),
        cmocka_unit_test(full_refuses_and_evicts_nothing),
        cmocka_unit_test(a_late_writer_takes_nothing_away),
        cmocka_unit_test(a_row_being_written_is_perhaps),
        cmocka_unit_test(readers_miss_nothing),
        cmocka_unit_test(too_small_is_refused)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
