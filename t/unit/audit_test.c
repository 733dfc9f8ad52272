/*
 * audit_test: the leaf is a contract, so its bytes are written out here.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "hm_audit.h"
#include "hm_crypto.h"


static hm_audit_row_t
example(void)
{
    hm_audit_row_t  row;

    memset(&row, 0, sizeof(row));
    memset(row.shard.b, 0x11, 16);
    memset(row.actor.b, 0x22, 16);
    memset(row.session.b, 0x33, 16);
    memset(row.subject.b, 0x44, 16);
    memset(row.first.b, 0x55, 16);
    memset(row.last.b, 0x66, 16);
    row.seq = 0x0102030405060708ULL;
    row.at = -1;
    row.action = HM_AUDIT_READ;
    row.resource = HM_AUDIT_OF_HEALTH_DATA;
    row.outcome = 200;
    row.role = 2;
    row.purpose = HM_PURPOSE_CARE;
    row.items = 3;
    row.origin = HM_STR("xyz");

    return row;
}


static void
test_leaf(void **state)
{
    size_t           at, i;
    hm_audit_row_t   row;
    unsigned char    want[32], got[32], text[200];

    row = example();

    memcpy(text, "\0hmaudit1", 9);
    memset(text + 9, 0x11, 16);
    memcpy(text + 25, "\1\2\3\4\5\6\7\10", 8);
    memset(text + 33, 0xff, 8);
    memcpy(text + 41, "\0\1\0\1\0\310\2\0", 8);

    for (i = 0, at = 49; i < 5; i++, at += 16) {
        memset(text + at, (int) (0x22 + 0x11 * i), 16);
    }

    memcpy(text + at, "\0\0\0\3\0\0\0\3xyz", 11);

    assert_int_equal(hm_sha256(want, text, at + 11), HM_OK);
    assert_int_equal(hm_audit_leaf(got, &row), HM_OK);
    assert_memory_equal(want, got, 32);
}


static void
test_every_field(void **state)
{
    hm_audit_row_t        row;
    unsigned char         base[32], got[32];
    static unsigned char  big[5000];

    row = example();
    assert_int_equal(hm_audit_leaf(base, &row), HM_OK);

#define CHANGED(change)                                                       \
    row = example();                                                          \
    change;                                                                   \
    assert_int_equal(hm_audit_leaf(got, &row), HM_OK);                        \
    assert_memory_not_equal(base, got, 32)

    CHANGED(row.shard.b[0]++);
    CHANGED(row.seq++);
    CHANGED(row.at++);
    CHANGED(row.action++);
    CHANGED(row.resource++);
    CHANGED(row.outcome++);
    CHANGED(row.role++);
    CHANGED(row.purpose++);
    CHANGED(row.actor.b[15]++);
    CHANGED(row.session.b[15]++);
    CHANGED(row.subject.b[15]++);
    CHANGED(row.first.b[15]++);
    CHANGED(row.last.b[15]++);
    CHANGED(row.items++);
    CHANGED(row.origin = hm_null_str);
    CHANGED(row.origin.len--);
    CHANGED(row.origin = ((hm_str_t) { sizeof(big), big }));
}


static void
test_names(void **state)
{
    assert_string_equal(hm_audit_action_name(1), "read");
    assert_string_equal(hm_audit_action_name(101), "closed");
    assert_string_equal(hm_audit_action_name(99), "unknown");
    assert_string_equal(hm_audit_resource_name(1), "health_data");
    assert_string_equal(hm_audit_resource_name(6000), "unknown");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_leaf),
        cmocka_unit_test(test_every_field),
        cmocka_unit_test(test_names)
    };

    return cmocka_run_group_tests_name("audit", tests, NULL, NULL);
}
