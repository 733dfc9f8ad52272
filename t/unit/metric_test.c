/*
 * The metric table, row by row: units, bounds (both sides of each), LOINC
 * codes, and every conversion against a value worked out by hand.  The rows
 * are written out a second time here, so that a slip in the library's table
 * does not prove itself.
 */

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "hm_json.h"
#include "hm_metric.h"


typedef struct {
    const char   *name;
    char          kind;                  /* number, integer, object */
    const char   *units;
    double        min, max;
    const char   *loinc;
    size_t        written;
} row_t;


static const row_t  rows[] = {
    { "active_energy", 'n', "kcal kJ", 0, 30000, "41981-2", 1 },
    { "blood_glucose", 'n', "mg/dL mmol/L", 10, 2000, "2339-0 15074-8", 1 },
    { "blood_pressure", 'o', "mm[Hg] kPa", 0, 0, "85354-9 55284-4", 1 },
    { "bmi", 'n', "kg/m2", 5, 200, "39156-5", 1 },
    { "body_fat", 'n', "%", 1, 80, "41982-0", 1 },
    { "calorie_intake", 'n', "kcal kJ", 0, 30000, "9052-2", 1 },
    { "cholesterol_total", 'n', "mg/dL mmol/L", 5, 2000, "2093-3", 1 },
    { "creatinine", 'n', "mg/dL umol/L", 0.1, 40, "2160-0", 1 },
    { "distance", 'n', "m km [mi_i]", 0, 500000, "55430-3", 1 },
    { "exercise_minutes", 'n', "min h", 0, 1440, "55411-3", 1 },
    { "hba1c", 'n', "% mmol/mol", 2, 25, "4548-4", 1 },
    { "hdl", 'n', "mg/dL mmol/L", 1, 500, "2085-9", 1 },
    { "heart_rate", 'i', "/min bpm", 20, 300, "8867-4", 1 },
    { "heart_rate_variability", 'n', "ms", 0, 500, "80404-7", 1 },
    { "height", 'n', "cm m [in_i] [ft_i]", 20, 280, "8302-2", 1 },
    { "inr", 'n', "{INR}", 0.5, 20, "6301-6", 1 },
    { "ldl", 'n', "mg/dL mmol/L", 1, 1000, "13457-7 18262-6", 1 },
    { "mood", 'i', "{score}", 1, 5, "", 0 },
    { "oxygen_saturation", 'n', "%", 40, 100, "2708-6 59408-5", 2 },
    { "pain_level", 'n', "{score}", 0, 10, "72514-3", 1 },
    { "peak_flow", 'n', "L/min", 30, 1000, "19935-6", 1 },
    { "respiratory_rate", 'i', "/min", 2, 100, "9279-1", 1 },
    { "resting_heart_rate", 'i', "/min", 20, 200, "40443-4", 1 },
    { "sleep_hours", 'n', "h min", 0, 24, "93832-4", 1 },
    { "steps", 'i', "{steps}", 0, 200000, "55423-8", 1 },
    { "stress_level", 'i', "{score}", 0, 100, "", 0 },
    { "temperature", 'n', "Cel [degF] K", 25, 45, "8310-5 8331-1", 1 },
    { "triglycerides", 'n', "mg/dL mmol/L", 5, 10000, "2571-8", 1 },
    { "vo2_max", 'n', "mL/kg/min", 5, 100, "60842-2", 1 },
    { "waist_circumference", 'n', "cm [in_i]", 20, 300, "8280-0", 1 },
    { "water_intake", 'n', "mL L [foz_us]", 0, 20000, "", 0 },
    { "weight", 'n', "kg [lb_av] g", 0.3, 650, "29463-7", 1 }
};

#define NROWS   (sizeof(rows) / sizeof(rows[0]))


static hm_faults_t   faults;
static hm_reading_t  reading;
static bool          converted;


static hm_str_t
str(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


/* Both as JSON texts; NULL: absent. */

static hm_rc_t
read_at(const char *name, const char *value, const char *unit,
    const char *prefix)
{
    json_t             *v, *u;
    hm_rc_t             rc;
    const hm_metric_t  *m;

    m = hm_metric_find(str(name));
    assert_non_null(m);

    v = value == NULL ? NULL : json_loads(value, JSON_DECODE_ANY, NULL);
    u = unit == NULL ? NULL : json_loads(unit, JSON_DECODE_ANY
                                               | JSON_ALLOW_NUL, NULL);
    assert_true((value == NULL) == (v == NULL));
    assert_true((unit == NULL) == (u == NULL));

    hm_faults_init(&faults, &hm_heap);
    rc = hm_metric_read(m, v, u, &reading, &converted, &faults, str(prefix));

    json_decref(v);
    json_decref(u);

    assert_true(rc == HM_OK || rc == HM_DECLINED);
    assert_true((rc == HM_OK) == (faults.n == 0));

    return rc;
}


static void
good(const char *name, const char *value, const char *unit, double want,
    bool conv)
{
    assert_int_equal(read_at(name, value, unit, ""), HM_OK);

    if (reading.number != want || reading.object || converted != conv) {
        fail_msg("%s %s %s: %.17g, not %.17g; converted %d", name, value,
                 unit, reading.number, want, converted);
    }
}


/* n-th fault of the last read. */

static void
fault(size_t n, const char *place, hm_fault_code_t code, const char *detail)
{
    assert_true(n < faults.n);

    if (!hm_str_eq(faults.list[n].place, str(place))
        || faults.list[n].code != code)
    {
        fail_msg("%.*s %s, not %s %s", (int) faults.list[n].place.len,
                 (char *) faults.list[n].place.data,
                 hm_fault_code_name(faults.list[n].code), place,
                 hm_fault_code_name(code));
    }

    if (detail != NULL) {
        assert_int_equal(faults.list[n].detail.len, strlen(detail));
        assert_memory_equal(faults.list[n].detail.data, detail,
                            strlen(detail));
    }
}


static void
bad(const char *name, const char *value, const char *unit, const char *place,
    hm_fault_code_t code)
{
    if (read_at(name, value, unit, "") == HM_OK) {
        fail_msg("%s %s %s was taken", name, value, unit);
    }

    assert_int_equal(faults.n, 1);
    fault(0, place, code, NULL);
}


static void
join(char *out, const char *const *list)
{
    for (*out = '\0'; *list != NULL; list++) {
        strcat(out, *list);
        strcat(out, list[1] == NULL ? "" : " ");
    }
}


static void
test_rows(void **state)
{
    char                out[256];
    size_t              i;
    const hm_unit_t    *u;
    const hm_metric_t  *m;

    assert_int_equal(hm_nmetrics, NROWS);

    for (i = 0; i < NROWS; i++) {
        m = hm_metric_find(str(rows[i].name));
        assert_ptr_equal(m, &hm_metrics[i]);       /* and so sorted */

        assert_int_equal("nio"[m->kind], rows[i].kind);
        assert_true(m->min == rows[i].min && m->max == rows[i].max);
        assert_int_equal(m->nloinc_written, rows[i].written);

        join(out, m->loinc);
        assert_string_equal(out, rows[i].loinc);

        strcpy(out, m->unit);
        for (u = m->units; u->code != NULL; u++) {
            strcat(strcat(out, " "), u->code);

            /* whole numbers, as the conversion takes for granted */

            assert_true(u->mul == trunc(u->mul) && u->mul > 0);
            assert_true(u->div == trunc(u->div) && u->div > 0);
            assert_true(u->add == trunc(u->add));
        }

        assert_string_equal(out, rows[i].units);
    }

    assert_null(hm_metric_find(str("")));
    assert_null(hm_metric_find(str("weigh")));
    assert_null(hm_metric_find(str("weights")));
    assert_null(hm_metric_find(str("Weight")));
    assert_null(hm_metric_find(str("zzz")));
    assert_null(hm_metric_find(str("aaa")));
}


static void
test_bounds(void **state)
{
    char    text[64], detail[64];
    size_t  i;
    double  step;

    for (i = 0; i < NROWS; i++) {

        if (rows[i].kind == 'o') {
            continue;
        }

        step = rows[i].kind == 'i' ? 1 : 0.001;

        snprintf(text, sizeof(text), "%.15g", rows[i].min);
        good(rows[i].name, text, NULL, rows[i].min, false);

        snprintf(text, sizeof(text), "%.15g", rows[i].max);
        good(rows[i].name, text, NULL, rows[i].max, false);

        snprintf(text, sizeof(text), "%.15g", rows[i].min - step);
        bad(rows[i].name, text, NULL, "/value", HM_FAULT_RANGE);

        snprintf(text, sizeof(text), "%.15g", rows[i].max + step);
        bad(rows[i].name, text, NULL, "/value", HM_FAULT_RANGE);

        snprintf(detail, sizeof(detail), "%g..%.15g %.*s", rows[i].min,
                 rows[i].max, (int) strcspn(rows[i].units, " "),
                 rows[i].units);
        fault(0, "/value", HM_FAULT_RANGE, detail);
    }
}


static void
test_integer_rows(void **state)
{
    good("heart_rate", "70", NULL, 70, false);
    good("heart_rate", "70.0", NULL, 70, false);
    good("heart_rate", "7e1", NULL, 70, false);
    bad("heart_rate", "70.5", NULL, "/value", HM_FAULT_INTEGER);
    bad("resting_heart_rate", "60.25", NULL, "/value", HM_FAULT_INTEGER);
    bad("respiratory_rate", "14.1", NULL, "/value", HM_FAULT_INTEGER);
    bad("mood", "2.5", NULL, "/value", HM_FAULT_INTEGER);
    bad("stress_level", "50.5", NULL, "/value", HM_FAULT_INTEGER);
    bad("steps", "1000.5", NULL, "/value", HM_FAULT_INTEGER);

    /* both at once are both named */

    assert_int_equal(read_at("heart_rate", "10.5", NULL, ""), HM_DECLINED);
    assert_int_equal(faults.n, 2);
    fault(0, "/value", HM_FAULT_INTEGER, NULL);
    fault(1, "/value", HM_FAULT_RANGE, "20..300 /min");

    /* the others take fractions */

    good("pain_level", "2.5", NULL, 2.5, false);
    good("weight", "70.25", NULL, 70.25, false);
}


static void
test_conversions(void **state)
{
    good("weight", "176.4", "\"[lb_av]\"", 80.013694068, true);
    good("weight", "1", "\"[lb_av]\"", 0.45359237, true);
    good("weight", "70500", "\"g\"", 70.5, true);
    good("weight", "3456.7", "\"g\"", 3.4567, true);

    good("height", "1.83", "\"m\"", 183, true);
    good("height", "70", "\"[in_i]\"", 177.8, true);
    good("height", "5.5", "\"[ft_i]\"", 167.64, true);
    good("waist_circumference", "34.5", "\"[in_i]\"", 87.63, true);

    good("temperature", "98.6", "\"[degF]\"", 37, true);
    good("temperature", "100.4", "\"[degF]\"", 38, true);
    good("temperature", "99", "\"[degF]\"", 37.22222222222222, true);
    good("temperature", "77", "\"[degF]\"", 25, true);
    good("temperature", "113", "\"[degF]\"", 45, true);
    bad("temperature", "113.1", "\"[degF]\"", "/value", HM_FAULT_RANGE);
    good("temperature", "310.15", "\"K\"", 37, true);
    good("temperature", "311.25", "\"K\"", 38.1, true);

    good("blood_glucose", "5.5", "\"mmol/L\"", 99.0858, true);
    good("blood_glucose", "10", "\"mmol/L\"", 180.156, true);
    good("cholesterol_total", "5.2", "\"mmol/L\"", 201.084, true);
    good("hdl", "1.3", "\"mmol/L\"", 50.271, true);
    good("ldl", "3", "\"mmol/L\"", 116.01, true);
    good("triglycerides", "1.7", "\"mmol/L\"", 150.569, true);
    good("creatinine", "88.4", "\"umol/L\"", 1, true);
    good("creatinine", "79.56", "\"umol/L\"", 0.9, true);

    good("hba1c", "48", "\"mmol/mol\"", 6.54304, true);
    good("hba1c", "53", "\"mmol/mol\"", 7.00044, true);

    good("sleep_hours", "450", "\"min\"", 7.5, true);
    good("sleep_hours", "1440", "\"min\"", 24, true);
    bad("sleep_hours", "1441", "\"min\"", "/value", HM_FAULT_RANGE);
    good("exercise_minutes", "1.1", "\"h\"", 66, true);

    good("distance", "5.3", "\"km\"", 5300, true);
    good("distance", "26.2", "\"[mi_i]\"", 42164.8128, true);
    good("active_energy", "418.4", "\"kJ\"", 100, true);
    good("calorie_intake", "8368", "\"kJ\"", 2000, true);
    good("water_intake", "1.5", "\"L\"", 1500, true);
    good("water_intake", "8", "\"[foz_us]\"", 236.5882365, true);

    /* far from any reading, and no fraction that ends */

    good("distance", "1e-300", "\"km\"", 1e-297, true);
    good("active_energy", "1", "\"kJ\"", 0.2390057361376673, true);
    bad("distance", "1e300", "\"km\"", "/value", HM_FAULT_RANGE);
    bad("weight", "-176.4", "\"[lb_av]\"", "/value", HM_FAULT_RANGE);
}


static void
test_spellings(void **state)
{
    /* the canonical one is no conversion, absent or null neither */

    good("weight", "70", "\"kg\"", 70, false);
    good("weight", "70", "null", 70, false);
    good("steps", "70", "\"{steps}\"", 70, false);

    good("heart_rate", "70", "\"bpm\"", 70, true);
    good("heart_rate", "70", "\"{beats}/min\"", 70, true);
    good("resting_heart_rate", "60", "\"bpm\"", 60, true);
    good("respiratory_rate", "14", "\"{breaths}/min\"", 14, true);
    bad("heart_rate", "70.5", "\"bpm\"", "/value", HM_FAULT_INTEGER);

    good("temperature", "37", "\"degC\"", 37, true);
    good("temperature", "37", "\"C\"", 37, true);
    good("temperature", "37", "\"\xc2\xb0" "C\"", 37, true);
    good("temperature", "98.6", "\"degF\"", 37, true);
    good("temperature", "98.6", "\"F\"", 37, true);
    good("temperature", "98.6", "\"\xc2\xb0" "F\"", 37, true);

    good("weight", "176.4", "\"lb\"", 80.013694068, true);
    good("weight", "176.4", "\"lbs\"", 80.013694068, true);
    good("height", "70", "\"in\"", 177.8, true);
    good("height", "5.5", "\"ft\"", 167.64, true);
    good("waist_circumference", "34.5", "\"in\"", 87.63, true);

    good("creatinine", "88.4", "\"\xc2\xb5mol/L\"", 1, true);
    good("creatinine", "88.4", "\"\xce\xbcmol/L\"", 1, true);

    good("steps", "70", "\"1\"", 70, true);
    good("steps", "70", "\"{count}\"", 70, true);
    good("inr", "2.5", "\"1\"", 2.5, true);
    good("mood", "3", "\"{count}\"", 3, true);

    /* a spelling serves only where its unit does */

    bad("weight", "70", "\"1\"", "/unit", HM_FAULT_UNIT);
    bad("weight", "70", "\"bpm\"", "/unit", HM_FAULT_UNIT);
    bad("waist_circumference", "3", "\"ft\"", "/unit", HM_FAULT_UNIT);
    bad("body_fat", "20", "\"1\"", "/unit", HM_FAULT_UNIT);
}


static void
test_unit_faults(void **state)
{
    bad("weight", "70", "\"KG\"", "/unit", HM_FAULT_UNIT);
    fault(0, "/unit", HM_FAULT_UNIT, "one of kg, [lb_av], g");

    bad("weight", "70", "\"\"", "/unit", HM_FAULT_UNIT);
    bad("weight", "70", "\"kg \"", "/unit", HM_FAULT_UNIT);
    bad("weight", "70", "\"kg\\u0000\"", "/unit", HM_FAULT_UNIT);
    bad("weight", "70", "1", "/unit", HM_FAULT_TYPE);
    bad("weight", "70", "[\"kg\"]", "/unit", HM_FAULT_TYPE);
    bad("steps", "70", "\"{score}\"", "/unit", HM_FAULT_UNIT);

    /* no range without a unit, but a type */

    bad("weight", "7000", "\"stone\"", "/unit", HM_FAULT_UNIT);

    assert_int_equal(read_at("weight", "\"70\"", "\"stone\"", ""),
                     HM_DECLINED);
    assert_int_equal(faults.n, 2);
    fault(0, "/unit", HM_FAULT_UNIT, NULL);
    fault(1, "/value", HM_FAULT_TYPE, NULL);
}


static void
test_types(void **state)
{
    bad("weight", "\"70\"", NULL, "/value", HM_FAULT_TYPE);
    bad("weight", "true", NULL, "/value", HM_FAULT_TYPE);
    bad("weight", "[70]", NULL, "/value", HM_FAULT_TYPE);
    bad("weight", "{\"value\":70}", NULL, "/value", HM_FAULT_TYPE);
    bad("weight", NULL, NULL, "/value", HM_FAULT_REQUIRED);
    bad("weight", "null", NULL, "/value", HM_FAULT_REQUIRED);
    bad("blood_pressure", "120", NULL, "/value", HM_FAULT_TYPE);
    bad("blood_pressure", "[120,80]", NULL, "/value", HM_FAULT_TYPE);
    bad("blood_pressure", NULL, NULL, "/value", HM_FAULT_REQUIRED);

    assert_int_equal(read_at("weight", "true", NULL, "/2"), HM_DECLINED);
    fault(0, "/2/value", HM_FAULT_TYPE, NULL);
}


static void
pressure(const char *value, const char *unit, double systolic,
    double diastolic, bool conv)
{
    assert_int_equal(read_at("blood_pressure", value, unit, ""), HM_OK);
    assert_true(reading.object);
    assert_true(reading.number == systolic);
    assert_true(reading.second == diastolic);
    assert_int_equal(converted, conv);
}


static void
test_pressure(void **state)
{
    pressure("{\"systolic\":121,\"diastolic\":79}", NULL, 121, 79, false);
    pressure("{\"diastolic\":79.5,\"systolic\":121.5}", "\"mm[Hg]\"", 121.5,
             79.5, false);
    pressure("{\"systolic\":121,\"diastolic\":79}", "\"mmHg\"", 121, 79,
             true);
    pressure("{\"systolic\":300,\"diastolic\":200}", NULL, 300, 200, false);
    pressure("{\"systolic\":40,\"diastolic\":20}", NULL, 40, 20, false);

    /* 16 and 10 kPa by 7.50061683 */

    pressure("{\"systolic\":16,\"diastolic\":10}", "\"kPa\"", 120.00986928,
             75.0061683, true);
}


static void
test_pressure_faults(void **state)
{
    bad("blood_pressure", "{\"systolic\":301,\"diastolic\":80}", NULL,
        "/value/systolic", HM_FAULT_RANGE);
    fault(0, "/value/systolic", HM_FAULT_RANGE, "40..300 mm[Hg]");
    bad("blood_pressure", "{\"systolic\":250,\"diastolic\":201}", NULL,
        "/value/diastolic", HM_FAULT_RANGE);
    fault(0, "/value/diastolic", HM_FAULT_RANGE, "20..200 mm[Hg]");
    bad("blood_pressure", "{\"systolic\":39,\"diastolic\":21}", NULL,
        "/value/systolic", HM_FAULT_RANGE);
    bad("blood_pressure", "{\"systolic\":60,\"diastolic\":19}", NULL,
        "/value/diastolic", HM_FAULT_RANGE);

    bad("blood_pressure", "{\"systolic\":80,\"diastolic\":80}", NULL,
        "/value", HM_FAULT_ORDER);
    bad("blood_pressure", "{\"systolic\":80,\"diastolic\":120}", NULL,
        "/value", HM_FAULT_ORDER);

    bad("blood_pressure", "{\"systolic\":120}", NULL, "/value/diastolic",
        HM_FAULT_REQUIRED);
    bad("blood_pressure", "{\"diastolic\":80}", NULL, "/value/systolic",
        HM_FAULT_REQUIRED);
    bad("blood_pressure", "{\"systolic\":null,\"diastolic\":80}", NULL,
        "/value/systolic", HM_FAULT_REQUIRED);
    bad("blood_pressure", "{\"systolic\":\"120\",\"diastolic\":80}", NULL,
        "/value/systolic", HM_FAULT_TYPE);
    bad("blood_pressure", "{\"systolic\":120,\"diastolic\":80,\"pulse\":60}",
        NULL, "/value/pulse", HM_FAULT_UNKNOWN);
    bad("blood_pressure", "{\"systolic\":120,\"diastolic\":80,\"a/b\":60}",
        NULL, "/value/a~1b", HM_FAULT_UNKNOWN);

    assert_int_equal(read_at("blood_pressure",
                             "{\"systolic\":10,\"diastolic\":500,\"x\":1}",
                             NULL, "/7"),
                     HM_DECLINED);
    assert_int_equal(faults.n, 4);
    fault(0, "/7/value/systolic", HM_FAULT_RANGE, NULL);
    fault(1, "/7/value/diastolic", HM_FAULT_RANGE, NULL);
    fault(2, "/7/value/x", HM_FAULT_UNKNOWN, NULL);
    fault(3, "/7/value", HM_FAULT_ORDER, NULL);

    assert_int_equal(read_at("blood_pressure", "{}", "\"bar\"", ""),
                     HM_DECLINED);
    assert_int_equal(faults.n, 3);
}


static void
test_minus_zero(void **state)
{
    good("steps", "-0.0", NULL, 0, false);
    assert_false(signbit(reading.number));
}


static void
test_loinc(void **state)
{
    char         list[64], *code, *save;
    size_t       i;

    for (i = 0; i < NROWS; i++) {
        strcpy(list, rows[i].loinc);

        for (code = strtok_r(list, " ", &save); code != NULL;
             code = strtok_r(NULL, " ", &save))
        {
            assert_ptr_equal(hm_metric_by_loinc(str(code)), &hm_metrics[i]);
        }
    }

    assert_null(hm_metric_by_loinc(str("8480-6")));   /* a component only */
    assert_null(hm_metric_by_loinc(str("8867-")));
    assert_null(hm_metric_by_loinc(str("")));
}


static void
test_custom(void **state)
{
    hm_str_t  slug;

    assert_int_equal(hm_metric_custom(str("custom:grip_2"), &slug), HM_OK);
    assert_true(hm_str_eq(slug, HM_STR("grip_2")));

    assert_int_equal(hm_metric_custom(
        str("custom:0123456789012345678901234567890123456789"), &slug),
        HM_OK);
    assert_int_equal(slug.len, 40);

    assert_int_equal(hm_metric_custom(
        str("custom:01234567890123456789012345678901234567890"), &slug),
        HM_DECLINED);
    assert_int_equal(hm_metric_custom(str("custom:"), &slug), HM_DECLINED);
    assert_int_equal(hm_metric_custom(str("custom"), &slug), HM_DECLINED);
    assert_int_equal(hm_metric_custom(str("custom:Grip"), &slug),
                     HM_DECLINED);
    assert_int_equal(hm_metric_custom(str("custom:a-b"), &slug),
                     HM_DECLINED);
    assert_int_equal(hm_metric_custom(str("Custom:a"), &slug), HM_DECLINED);
    assert_int_equal(hm_metric_custom(str("weight"), &slug), HM_DECLINED);
}


static void
test_types_json(void **state)
{
    char       *text;
    size_t      i;
    json_t     *doc, *items, *item;
    hm_buf_t    b;
    hm_str_t    reason;

    hm_buf_init(&b, &hm_heap, 16);
    hm_metric_types_json(&b);
    assert_false(b.failed);

    doc = hm_json_parse((hm_str_t) { hm_buf_len(&b), b.start }, &reason);
    assert_non_null(doc);
    assert_int_equal(json_object_size(doc), 2);
    assert_true(json_is_null(json_object_get(doc, "next")));

    items = json_object_get(doc, "items");
    assert_int_equal(json_array_size(items), NROWS);

    for (i = 0; i < NROWS; i++) {
        item = json_array_get(items, i);
        assert_int_equal(json_object_size(item), 6);
        assert_string_equal(json_string_value(json_object_get(item,
                                                              "data_type")),
                            rows[i].name);
    }

    text = json_dumps(json_array_get(items, 12), JSON_COMPACT);
    assert_string_equal(text,
        "{\"data_type\":\"heart_rate\",\"kind\":\"integer\",\"unit\":\"/min\","
        "\"units\":[\"/min\",\"bpm\"],\"ranges\":{\"value\":[20,300]},"
        "\"loinc\":[\"8867-4\"]}");

    text = json_dumps(json_array_get(items, 2), JSON_COMPACT);
    assert_string_equal(text,
        "{\"data_type\":\"blood_pressure\",\"kind\":\"object\","
        "\"unit\":\"mm[Hg]\",\"units\":[\"mm[Hg]\",\"kPa\"],"
        "\"ranges\":{\"systolic\":[40,300],\"diastolic\":[20,200]},"
        "\"loinc\":[\"85354-9\",\"55284-4\"]}");

    text = json_dumps(json_array_get(items, 17), JSON_COMPACT);
    assert_string_equal(text,
        "{\"data_type\":\"mood\",\"kind\":\"integer\",\"unit\":\"{score}\","
        "\"units\":[\"{score}\"],\"ranges\":{\"value\":[1,5]},"
        "\"loinc\":[]}");

    json_decref(doc);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_integer_rows),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_unit_faults),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_pressure),
        cmocka_unit_test(test_pressure_faults),
        cmocka_unit_test(test_minus_zero),
        cmocka_unit_test(test_loinc),
        cmocka_unit_test(test_custom),
        cmocka_unit_test(test_types_json)
    };

    return cmocka_run_group_tests_name("metric", tests, NULL, NULL);
}
