/*
 * problem_test: the document of a problem, and faults with their places.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "hm_json.h"
#include "hm_problem.h"


static void
is(hm_buf_t *b, const char *want)
{
    json_t    *json;
    hm_str_t   reason;

    assert_false(b->failed);
    hm_buf_lit(b, "\0");
    assert_string_equal((char *) b->start, want);

    json = hm_json_parse((hm_str_t) { strlen(want), b->start }, &reason);
    assert_non_null(json);
    json_decref(json);
}


static void
test_document(void **state)
{
    hm_buf_t     b;
    hm_faults_t  f;

    hm_buf_init(&b, &hm_heap, 0);
    hm_problem_json(&b, HM_PROBLEM_NOT_FOUND, hm_null_str,
                    HM_STR("/api/v1/\"x\""), HM_STR("r1"), NULL);
    is(&b, "{\"type\":\"urn:healthmate:problem:resource.not_found\","
           "\"title\":\"There is nothing here\",\"status\":404,"
           "\"instance\":\"/api/v1/\\\"x\\\"\","
           "\"code\":\"resource.not_found\",\"request_id\":\"r1\"}");

    hm_faults_init(&f, &hm_heap);
    hm_fault_add(&f, HM_STR("/value"), "a/b~c", HM_FAULT_RANGE, "%d..%d", 40,
                 300);
    hm_fault_add(&f, HM_STR("/0"), NULL, HM_FAULT_TYPE, "an object");
    hm_fault_param(&f, "limit", HM_FAULT_INTEGER, "1..200");

    hm_buf_init(&b, &hm_heap, 0);
    hm_problem_json(&b, HM_PROBLEM_VALIDATION_FAILED, hm_null_str,
                    HM_STR("/x"), HM_STR("r2"), &f);
    is(&b, "{\"type\":\"urn:healthmate:problem:validation.failed\","
           "\"title\":\"The request is not valid\",\"status\":422,"
           "\"detail\":\"3 faults\",\"instance\":\"/x\","
           "\"code\":\"validation.failed\",\"request_id\":\"r2\",\"errors\":["
           "{\"pointer\":\"/value/a~1b~0c\",\"code\":\"range\","
           "\"detail\":\"40..300\"},"
           "{\"pointer\":\"/0\",\"code\":\"type\",\"detail\":\"an object\"},"
           "{\"parameter\":\"limit\",\"code\":\"integer\","
           "\"detail\":\"1..200\"}]}");
}


static void
test_bound(void **state)
{
    int          i;
    json_t      *json;
    hm_buf_t     b;
    hm_str_t     reason;
    hm_faults_t  f;

    hm_faults_init(&f, &hm_heap);

    for (i = 0; i < HM_FAULTS_MAX + 10; i++) {
        hm_fault_add(&f, hm_null_str, "x", HM_FAULT_REQUIRED, "%0400d", i);
    }

    assert_int_equal(f.n, HM_FAULTS_MAX + 10);

    hm_buf_init(&b, &hm_heap, 0);
    hm_faults_json(&b, &f);
    json = hm_json_parse((hm_str_t) { hm_buf_len(&b), b.start }, &reason);
    assert_int_equal(json_array_size(json), HM_FAULTS_MAX);
    json_decref(json);
}


static void
test_rows(void **state)
{
    int  p, status;

    static const int  made[] = { 400, 401, 403, 404, 405, 413, 414, 415, 429,
                                 500, 503, 504 };

    for (p = 1; p < HM_PROBLEM_LAST; p++) {
        assert_in_range(hm_problem((hm_problem_t) p)->status, 400, 599);
    }

    assert_int_equal(hm_problem(HM_PROBLEM_NONE)->status, 500);
    assert_int_equal(hm_problem((hm_problem_t) 9999)->status, 500);

    for (p = 0; p < (int) (sizeof(made) / sizeof(made[0])); p++) {
        status = made[p];
        assert_int_equal(hm_problem(hm_problem_of_status(status))->status,
                         status);
    }

    assert_int_equal(hm_problem_of_status(499), HM_PROBLEM_SERVER_ERROR);
    assert_string_equal(hm_fault_code_name(HM_FAULT_BLOCKLISTED),
                        "blocklisted");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_document),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_rows)
    };

    return cmocka_run_group_tests_name("problem", tests, NULL, NULL);
}
