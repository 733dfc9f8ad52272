/*
 * The FHIR reader of the CLI: the scanner on well-formed, broken and hostile
 * texts, and what an Observation becomes.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../cli/fhir.c"


static hm_str_t
text(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


/* Items in a text; -1: malformed.  The types, one letter each, in types. */
static int
walk(const char *s, char *types)
{
    int           n;
    char         *copy;
    hm_rc_t       rc;
    hmc_entry_t   entry;
    hmc_bundle_t  b;

    /* a copy without a NUL: a read past its end is ASan's to find */
    copy = malloc(strlen(s) != 0 ? strlen(s) : 1);
    assert_non_null(copy);
    memcpy(copy, s, strlen(s));

    hmc_bundle_init(&b, (hm_str_t) { strlen(s), (unsigned char *) copy });

    for (n = 0; (rc = hmc_bundle_next(&b, &entry)) == HM_OK; n++) {
        assert_int_equal(entry.index, n);

        if (types != NULL) {
            types[n] = entry.type.len != 0 ? (char) entry.type.data[0] : '-';
            types[n + 1] = '\0';
        }
    }

    assert_true(rc == HM_DECLINED || b.reason != NULL);
    free(copy);

    return rc == HM_DECLINED ? n : -1;
}


static void
test_scanner(void **state)
{
    char  t[32];

    assert_int_equal(walk("{\"resourceType\":\"Bundle\",\"entry\":[]}", t), 0);
    assert_int_equal(walk("\xef\xbb\xbf {\"entry\" : [ ] , \"x\":1 }\n", t), 0);

    assert_int_equal(walk("{\"entry\":[{\"resource\":{\"resourceType\":"
        "\"Patient\"}},{\"fullUrl\":\"u\",\"resource\":{\"a\":[{}],"
        "\"resourceType\":\"Observation\"}},{}],\"resourceType\":\"Bundle\"}",
        t), 3);
    assert_string_equal(t, "PO-");

    /* one resource, and one a line */
    assert_int_equal(walk("{\"resourceType\":\"Observation\"}", t), 1);
    assert_int_equal(walk("{\"resourceType\":\"Observation\"}\n"
                          "{\"resourceType\":\"Patient\"}\n", t), 2);
    assert_string_equal(t, "OP");

    /* an "entry" deeper down, or in a string, is not the bundle's */
    assert_int_equal(walk("{\"a\":{\"entry\":[1,2]},\"b\":\"\\\"entry\\\":[\","
                          "\"resourceType\":\"X\"}", t), 1);
    assert_int_equal(walk("{\"entry\":{\"no\":\"array\"}}", t), 1);

    /* entries that are no objects have no resource, but count */
    assert_int_equal(walk("{\"entry\":[1,\"x\",null,[{}]]}", t), 4);
    assert_string_equal(t, "----");
}


static void
test_scanner_broken(void **state)
{
    size_t  i;
    char    deep[2048];

    static const char *const  broken[] = {
        "", "  \n", "[]", "x", "{", "{\"", "{\"a", "{\"a\"", "{\"a\":",
        "{\"a\":1", "{\"a\":1,}", "{\"a\" 1}", "{\"a\":1 \"b\":2}",
        "{\"entry\":[", "{\"entry\":[{", "{\"entry\":[{}", "{\"entry\":[{},]}",
        "{\"entry\":[{}]", "{\"entry\":[{}{}]}", "{\"entry\":[{\"resource\":",
        "{\"entry\":[{\"resource\":{]}]}", "{\"entry\":[{\"resource\":[}]}]}",
        "{\"a\":\"\\", "{\"a\":\"\\\"", "{\"a\":\"\n\"}", "{\"a\":[}",
        "{\"entry\":[{}]} x", "{\"entry\":[{}]}]", "{\"a\":}", "{,}",
        NULL
    };

    for (i = 0; broken[i] != NULL; i++) {
        if (walk(broken[i], NULL) != -1) {
            fail_msg("taken as well formed: %s", broken[i]);
        }
    }

    memset(deep, '[', sizeof(deep) - 1);
    memcpy(deep, "{\"a\":", 5);
    deep[sizeof(deep) - 1] = '\0';
    assert_int_equal(walk(deep, NULL), -1);
}


static hmc_observation_t
observe(const char *json)
{
    json_t             *resource;
    hm_str_t            reason;
    hmc_observation_t   o;

    resource = hm_json_parse(text(json), &reason);
    assert_non_null(resource);
    assert_int_equal(hmc_observation_read(&hm_heap, resource, text(""), &o),
                     HM_OK);
    json_decref(resource);

    return o;
}


static void
line_is(const char *json, const char *line)
{
    hm_buf_t           b;
    hmc_observation_t  o;

    o = observe(json);

    if (o.verdict != HMC_TAKE) {
        fail_msg("not taken (%s): %s", o.why, json);
    }

    hm_buf_init(&b, &hm_heap, 64);
    hmc_observation_line(&b, &o);
    hm_buf_add(&b, "", 1);
    assert_string_equal((char *) b.start, line);
}


static void
not_taken(const char *json, hmc_verdict_t verdict, const char *fault)
{
    hmc_observation_t  o;

    o = observe(json);
    assert_int_equal(o.verdict, verdict);
    assert_non_null(o.why);

    if (fault != NULL) {
        assert_string_equal(o.fault, fault);
    }
}


#define LOINC(c)  "\"code\":{\"coding\":[{\"system\":\"http://loinc.org\","   \
                  "\"code\":\"" c "\",\"display\":\"D\"}]}"
#define WHEN      "\"effectiveDateTime\":\"2019-02-03T04:05:06+01:00\""
#define AT        "\"timestamp\":\"2019-02-03T03:05:06.000Z\","               \
                  "\"source\":\"fhir\""
#define UCUM(v, u)  "\"valueQuantity\":{\"value\":" v ",\"unit\":\"?\","      \
                    "\"system\":\"http://unitsofmeasure.org\",\"code\":\"" u  \
                    "\"}"


static void
test_numbers(void **state)
{
    line_is("{\"id\":\"w1\",\"status\":\"final\"," LOINC("29463-7") "," WHEN
            "," UCUM("80.5", "kg") "}",
            "{\"data_type\":\"weight\",\"value\":80.5," AT
            ",\"source_id\":\"w1\"}\n");

    /* another unit is sent as it is: the server keeps the original */
    line_is("{\"id\":\"w\"," LOINC("29463-7") "," WHEN "," UCUM("176.4",
            "[lb_av]") "}",
            "{\"data_type\":\"weight\",\"value\":176.4,\"unit\":\"[lb_av]\","
            AT ",\"source_id\":\"w\"}\n");

    /* the display unit stands in for a code that is missing */
    line_is("{" LOINC("29463-7") "," WHEN ",\"valueQuantity\":{\"value\":80,"
            "\"unit\":\"kg\"}}",
            "{\"data_type\":\"weight\",\"value\":80," AT "}\n");

    /* the first coding of LOINC that is ours; others' systems do not count */
    line_is("{\"code\":{\"coding\":[{\"system\":\"http://snomed.info/sct\","
            "\"code\":\"8302-2\"},{\"system\":\"http://loinc.org\",\"code\":"
            "\"0-0\"},{\"system\":\"http://loinc.org\",\"code\":\"29463-7\"}"
            "]}," WHEN "," UCUM("80", "kg") "}",
            "{\"data_type\":\"weight\",\"value\":80," AT "}\n");

    line_is("{" LOINC("72514-3") "," WHEN "," UCUM("3.5", "{score}") "}",
            "{\"data_type\":\"pain_level\",\"value\":3.5," AT "}\n");

    /* read also: oral temperature, the second LDL code */
    line_is("{" LOINC("8331-1") "," WHEN "," UCUM("98.6", "[degF]") "}",
            "{\"data_type\":\"temperature\",\"value\":98.6,\"unit\":"
            "\"[degF]\"," AT "}\n");
    line_is("{" LOINC("18262-6") "," WHEN "," UCUM("100", "mg/dL") "}",
            "{\"data_type\":\"ldl\",\"value\":100," AT "}\n");
}


static void
test_rounding(void **state)
{
    hmc_observation_t  o;

    line_is("{" LOINC("8867-4") "," WHEN "," UCUM("71.6", "/min") "}",
            "{\"data_type\":\"heart_rate\",\"value\":72," AT "}\n");

    o = observe("{" LOINC("8867-4") "," WHEN "," UCUM("71.6", "/min") "}");
    assert_true(o.rounded);

    o = observe("{" LOINC("8867-4") "," WHEN "," UCUM("72.0", "/min") "}");
    assert_false(o.rounded);

    /* rounding does not rescue what is out of range */
    not_taken("{" LOINC("8867-4") "," WHEN "," UCUM("900.4", "/min") "}",
              HMC_FAULTY, "range");
}


#define PART(c, v)  "{" LOINC(c) "," UCUM(v, "mm[Hg]") "}"


static void
test_pressure(void **state)
{
    const char  *line;

    line = "{\"data_type\":\"blood_pressure\",\"value\":{\"systolic\":121,"
           "\"diastolic\":79.5}," AT "}\n";

    line_is("{" LOINC("85354-9") "," WHEN ",\"component\":["
            PART("8462-4", "79.5") "," PART("8480-6", "121") "]}", line);
    line_is("{" LOINC("55284-4") "," WHEN ",\"component\":["
            PART("8480-6", "121") "," PART("0-0", "7") ","
            PART("8462-4", "79.5") "]}", line);

    not_taken("{" LOINC("85354-9") "," WHEN ",\"component\":["
              PART("8480-6", "121") "]}", HMC_SKIP, NULL);
    not_taken("{" LOINC("85354-9") "," WHEN "}", HMC_SKIP, NULL);
    not_taken("{" LOINC("85354-9") "," WHEN ",\"component\":["
              PART("8480-6", "70") "," PART("8462-4", "79") "]}",
              HMC_FAULTY, "order");
    not_taken("{" LOINC("85354-9") "," WHEN ",\"component\":["
              PART("8480-6", "16") ",{" LOINC("8462-4") "," UCUM("10", "kPa")
              "}]}", HMC_SKIP, NULL);
}


static void
test_times(void **state)
{
    const char  *line;

    line = "{\"data_type\":\"weight\",\"value\":80,\"timestamp\":"
           "\"2019-02-03T03:05:06.000Z\",\"source\":\"fhir\"}\n";

#define WEIGHT  "{" LOINC("29463-7") "," UCUM("80", "kg")

    line_is(WEIGHT ",\"effectiveInstant\":\"2019-02-03T03:05:06Z\"}", line);
    line_is(WEIGHT ",\"effectivePeriod\":{\"start\":\"2019-02-03T03:05:06Z\","
            "\"end\":\"2020-01-01T00:00:00Z\"}}", line);
    line_is(WEIGHT ",\"effectivePeriod\":{\"end\":\"2019-02-03T03:05:06Z\"}}",
            line);
    line_is(WEIGHT ",\"issued\":\"2019-02-03T03:05:06.000Z\"}", line);
    line_is(WEIGHT ",\"effectiveDateTime\":\"2019-02\",\"issued\":"
            "\"2019-02-03T03:05:06Z\"}", line);
    line_is(WEIGHT ",\"effectiveDateTime\":\"2019-02-03\"}",
            "{\"data_type\":\"weight\",\"value\":80,\"timestamp\":"
            "\"2019-02-03T00:00:00.000Z\",\"source\":\"fhir\"}\n");

    not_taken(WEIGHT "}", HMC_FAULTY, "required");
    not_taken(WEIGHT ",\"effectiveDateTime\":\"2019\"}", HMC_FAULTY, NULL);
}


static void
test_not_taken(void **state)
{
    hmc_observation_t  o;

    not_taken("{}", HMC_SKIP, NULL);
    not_taken("{\"code\":7,\"component\":{}}", HMC_SKIP, NULL);
    not_taken("{" LOINC("72166-2") "," WHEN "}", HMC_SKIP, NULL);
    not_taken("{\"status\":\"entered-in-error\"," LOINC("29463-7") "," WHEN ","
              UCUM("80", "kg") "}", HMC_SKIP, NULL);
    not_taken("{\"status\":\"cancelled\"," LOINC("29463-7") "," WHEN ","
              UCUM("80", "kg") "}", HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN "}", HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN ",\"valueQuantity\":{}}",
              HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN ",\"valueQuantity\":\"80\"}",
              HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN ",\"valueQuantity\":{\"value\":8,"
              "\"comparator\":\"<\",\"code\":\"kg\"}}", HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN ",\"valueInteger\":80}",
              HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN "," UCUM("80", "mm") "}",
              HMC_SKIP, NULL);
    not_taken("{" LOINC("29463-7") "," WHEN "," UCUM("8000", "kg") "}",
              HMC_FAULTY, "range");

    o = observe("{" LOINC("72166-2") "," WHEN "}");
    assert_memory_equal(o.code.data, "72166-2", 8);
    assert_memory_equal(o.display.data, "D", 2);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_scanner),
        cmocka_unit_test(test_scanner_broken),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_pressure),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
