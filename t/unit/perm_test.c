/*
 * Permissions and job kinds: the table of the public contract, cell by cell.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "hm_job.h"
#include "hm_perm.h"


typedef struct {
    hm_perm_t    perm;
    const char  *name;
    const char  *reach;      /* none, patient, doctor, admin, researcher */
} row_t;


/* - no, o own, a assigned, * all */

static const row_t  rows[] = {
    { HM_PERM_NONE,             "none",             "ooooo" },
    { HM_PERM_SELF,             "self",             "-oooo" },
    { HM_PERM_HEALTH_READ,      "health.read",      "-oa*o" },
    { HM_PERM_HEALTH_WRITE,     "health.write",     "-oa*o" },
    { HM_PERM_ANALYTICS_READ,   "analytics.read",   "-oa*o" },
    { HM_PERM_CHAT,             "chat",             "-oooo" },
    { HM_PERM_EXPORT,           "export",           "-oooo" },
    { HM_PERM_ERASE,            "erase",            "-oooo" },
    { HM_PERM_USERS_ADMIN,      "users.admin",      "---*-" },
    { HM_PERM_COMPLIANCE_ADMIN, "compliance.admin", "---*-" },
    { HM_PERM_AUDIT_ADMIN,      "audit.admin",      "---*-" },
    { HM_PERM_JOBS_ADMIN,       "jobs.admin",       "---*-" },
    { HM_PERM_KEYS_ADMIN,       "keys.admin",       "---*-" },
    { HM_PERM_CARE,             "care",             "-oo*o" },
    { HM_PERM_PATIENTS,         "patients",         "--o--" },
    { HM_PERM_BREAK_GLASS,      "break_glass",      "--oo-" }
};

#define NROWS   (sizeof(rows) / sizeof(rows[0]))


static void
test_table(void **state)
{
    size_t             i, role;
    static const char  marks[] = "-oa*";

    assert_int_equal(NROWS, HM_PERM_LAST);

    for (i = 0; i < NROWS; i++) {
        assert_string_equal(hm_perm_name(rows[i].perm), rows[i].name);

        for (role = 0; role <= HM_ROLE_RESEARCHER; role++) {
            assert_int_equal(marks[hm_perm_reach(role, rows[i].perm)],
                             rows[i].reach[role]);
        }
    }
}


static void
test_unknown_is_denied(void **state)
{
    assert_int_equal(hm_perm_reach(5, HM_PERM_SELF), HM_REACH_NO);
    assert_int_equal(hm_perm_reach(-1, HM_PERM_SELF), HM_REACH_NO);
    assert_int_equal(hm_perm_reach(HM_ROLE_ADMIN, HM_PERM_LAST), HM_REACH_NO);
    assert_int_equal(hm_perm_reach(HM_ROLE_ADMIN, -1), HM_REACH_NO);
    assert_string_equal(hm_perm_name(HM_PERM_LAST), "unknown");
}


static void
test_jobs(void **state)
{
    size_t                i;
    const hm_job_kind_t  *k;

    k = hm_job_kind(HM_STR("analytics.rollup"));
    assert_non_null(k);
    assert_string_equal(k->stream, "hm:jobs:analytics");
    assert_string_equal(k->permission, hm_perm_name(HM_PERM_HEALTH_READ));
    assert_int_equal(k->max_attempts, 8);

    k = hm_job_kind(HM_STR("retention.run"));
    assert_non_null(k);
    assert_string_equal(k->stream, "hm:jobs:maintenance");

    assert_null(hm_job_kind(HM_STR("analytics.rollu")));
    assert_null(hm_job_kind(HM_STR("analytics.rollup2")));
    assert_null(hm_job_kind(HM_STR("")));

    for (i = 0; hm_job_kinds[i].kind != NULL; i++) {
        assert_true(hm_job_kinds[i].timeout > 0);
        assert_true(hm_job_kinds[i].max_attempts > 0);
        assert_true(hm_job_kinds[i].backoff > 0);
        assert_true(hm_job_kinds[i].backoff <= hm_job_kinds[i].backoff_max);
    }

    assert_int_equal(i, 5);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_unknown_is_denied),
        cmocka_unit_test(test_jobs)
    };

    return cmocka_run_group_tests_name("perm", tests, NULL, NULL);
}
