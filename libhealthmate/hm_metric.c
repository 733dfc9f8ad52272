/*
 * hm_metric: what can be measured, in which units, between which bounds.
 *
 * DESIGN
 *
 * hm_metrics[] is the whole knowledge, one row per type; the code below only
 * interprets it.  Units are UCUM and case-sensitive.  What /types tells is
 * the canonical unit and a row's other units; the spellings people and
 * devices write for them ("mmHg", "lbs", "°F") are one table for all types
 * and stand for a unit only where a type takes that unit.
 *
 * A conversion is (x * mul + add) / div in whole numbers, so that 1 lb is
 * 45359237/100000000 kg and nothing is lost before the arithmetic starts.
 * It is made on the decimal text of x, the shortest one that reads back as x:
 * 98.6 is taken as 986/10 and not as the double next to it, so that 98.6
 * degF is 37 Cel and 311.25 K is 38.1 Cel, as on paper.  The result is the
 * double nearest to the exact one; it is never rounded to digits.
 *
 * Sources of the factors: lb, in, ft, mi, US fl oz and thermochemical
 * calorie are exact by definition; kPa by the conventional millimetre of
 * mercury (133.322387415 Pa: 7.50061683 mm[Hg]); glucose, cholesterol and
 * triglycerides, creatinine by the molar masses in clinical use (180.156,
 * 386.7, 885.7, 113.1 g/mol); hba1c by the IFCC-NGSP master equation
 * (NGSP = 0.09148 * IFCC + 2.152).
 *
 * A type has a LOINC code only where sources agree on it; the first
 * nloinc_written are written by an export, all are read.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "hm_metric.h"
#include "hm_buf.h"


typedef struct {
    const char  *spelling;
    const char  *unit;                   /* NULL: a canonical {unit} */
} hm_spelling_t;


static bool hm_metric_unit(const hm_metric_t *m, json_t *unit,
    const hm_unit_t **found, bool *respelled, hm_faults_t *f,
    hm_str_t prefix);
static const hm_unit_t *hm_metric_unit_find(const hm_metric_t *m,
    const char *text, bool *respelled);
static const hm_unit_t *hm_metric_unit_exact(const hm_metric_t *m,
    const char *code);
static void hm_metric_unit_fault(const hm_metric_t *m, hm_faults_t *f,
    hm_str_t prefix);
static bool hm_metric_plain(const hm_metric_t *m, json_t *value,
    const hm_unit_t *unit, hm_reading_t *out, bool *changed, hm_faults_t *f,
    hm_str_t prefix);
static bool hm_metric_object(const hm_metric_t *m, json_t *value,
    const hm_unit_t *unit, hm_reading_t *out, bool *changed, hm_faults_t *f,
    hm_str_t prefix);
static bool hm_metric_number(const hm_metric_t *m, json_t *value,
    const hm_unit_t *unit, double *out, bool *changed, double min, double max,
    const char *name, hm_faults_t *f, hm_str_t prefix);
static double hm_metric_convert(double x, const hm_unit_t *unit);
static long double hm_metric_decimal(double x, int *exponent);
static void hm_metric_type_json(hm_buf_t *b, const hm_metric_t *m);
static void hm_metric_range_json(hm_buf_t *b, const char *name, double min,
    double max);
static void hm_metric_cstr_json(hm_buf_t *b, const char *s);
static int hm_metric_cmp(const void *key, const void *row);


/* The canonical unit itself, and one that only spells it otherwise. */

#define HM_SAME(code)       { code, 1, 0, 1, true }
#define HM_END              { NULL, 0, 0, 0, false }

static const hm_unit_t  hm_unit_canonical = HM_SAME("");

static const hm_unit_t  hm_units_none[] = { HM_END };

static const hm_unit_t  hm_units_pressure[] = {
    { "kPa", 750061683, 0, 100000000, false }, HM_END
};

static const hm_unit_t  hm_units_heart[] = { HM_SAME("bpm"), HM_END };

static const hm_unit_t  hm_units_temperature[] = {
    { "[degF]", 5, -160, 9, false },
    { "K", 100, -27315, 100, false }, HM_END
};

static const hm_unit_t  hm_units_mass[] = {
    { "[lb_av]", 45359237, 0, 100000000, false },
    { "g", 1, 0, 1000, false }, HM_END
};

static const hm_unit_t  hm_units_height[] = {
    { "m", 100, 0, 1, false },
    { "[in_i]", 254, 0, 100, false },
    { "[ft_i]", 3048, 0, 100, false }, HM_END
};

static const hm_unit_t  hm_units_waist[] = {
    { "[in_i]", 254, 0, 100, false }, HM_END
};

static const hm_unit_t  hm_units_glucose[] = {
    { "mmol/L", 180156, 0, 10000, false }, HM_END
};

static const hm_unit_t  hm_units_hba1c[] = {
    { "mmol/mol", 9148, 215200, 100000, false }, HM_END
};

static const hm_unit_t  hm_units_cholesterol[] = {
    { "mmol/L", 3867, 0, 100, false }, HM_END
};

static const hm_unit_t  hm_units_triglycerides[] = {
    { "mmol/L", 8857, 0, 100, false }, HM_END
};

static const hm_unit_t  hm_units_creatinine[] = {
    { "umol/L", 10, 0, 884, false }, HM_END
};

static const hm_unit_t  hm_units_hours[] = {
    { "min", 1, 0, 60, false }, HM_END
};

static const hm_unit_t  hm_units_minutes[] = {
    { "h", 60, 0, 1, false }, HM_END
};

static const hm_unit_t  hm_units_distance[] = {
    { "km", 1000, 0, 1, false },
    { "[mi_i]", 1609344, 0, 1000, false }, HM_END
};

static const hm_unit_t  hm_units_energy[] = {
    { "kJ", 1000, 0, 4184, false }, HM_END
};

static const hm_unit_t  hm_units_water[] = {
    { "L", 1000, 0, 1, false },
    { "[foz_us]", 295735295625, 0, 10000000000, false }, HM_END
};


static const hm_spelling_t  hm_spellings[] = {
    { "mmHg",          "mm[Hg]" },
    { "bpm",           "/min" },
    { "{beats}/min",   "/min" },
    { "{breaths}/min", "/min" },
    { "degC",          "Cel" },
    { "C",             "Cel" },
    { "\xc2\xb0" "C",  "Cel" },
    { "degF",          "[degF]" },
    { "F",             "[degF]" },
    { "\xc2\xb0" "F",  "[degF]" },
    { "lb",            "[lb_av]" },
    { "lbs",           "[lb_av]" },
    { "in",            "[in_i]" },
    { "ft",            "[ft_i]" },
    { "\xc2\xb5mol/L", "umol/L" },       /* U+00B5 micro sign */
    { "\xce\xbcmol/L", "umol/L" },       /* U+03BC Greek mu */
    { "1",             NULL },
    { "{count}",       NULL },
    { NULL,            NULL }
};


static const hm_component_t  hm_pressure_components[] = {
    { "systolic",  40, 300, "8480-6" },
    { "diastolic", 20, 200, "8462-4" },
    { NULL, 0, 0, NULL }
};


#define HM_LOINC(...)                                                         \
    (const char *const []) { __VA_ARGS__ __VA_OPT__(,) NULL }

#define HM_INT(name, unit, units, min, max, nw, ...)                          \
    { name, HM_METRIC_INTEGER, unit, units, min, max, HM_LOINC(__VA_ARGS__),  \
      nw, NULL }

#define HM_NUM(name, unit, units, min, max, nw, ...)                          \
    { name, HM_METRIC_NUMBER, unit, units, min, max, HM_LOINC(__VA_ARGS__),   \
      nw, NULL }

#define HM_OBJ(name, unit, units, comps, nw, ...)                             \
    { name, HM_METRIC_OBJECT, unit, units, 0, 0, HM_LOINC(__VA_ARGS__), nw,   \
      comps }

/* name, unit, other units, min, max, LOINC codes written, LOINC codes */

const hm_metric_t  hm_metrics[] = {
    HM_NUM("active_energy", "kcal", hm_units_energy, 0, 30000, 1, "41981-2"),
    HM_NUM("blood_glucose", "mg/dL", hm_units_glucose, 10, 2000, 1,
           "2339-0", "15074-8"),
    HM_OBJ("blood_pressure", "mm[Hg]", hm_units_pressure,
           hm_pressure_components, 1, "85354-9", "55284-4"),
    HM_NUM("bmi", "kg/m2", hm_units_none, 5, 200, 1, "39156-5"),
    HM_NUM("body_fat", "%", hm_units_none, 1, 80, 1, "41982-0"),
    HM_NUM("calorie_intake", "kcal", hm_units_energy, 0, 30000, 1, "9052-2"),
    HM_NUM("cholesterol_total", "mg/dL", hm_units_cholesterol, 5, 2000, 1,
           "2093-3"),
    HM_NUM("creatinine", "mg/dL", hm_units_creatinine, 0.1, 40, 1, "2160-0"),
    HM_NUM("distance", "m", hm_units_distance, 0, 500000, 1, "55430-3"),
    HM_NUM("exercise_minutes", "min", hm_units_minutes, 0, 1440, 1,
           "55411-3"),
    HM_NUM("hba1c", "%", hm_units_hba1c, 2, 25, 1, "4548-4"),
    HM_NUM("hdl", "mg/dL", hm_units_cholesterol, 1, 500, 1, "2085-9"),
    HM_INT("heart_rate", "/min", hm_units_heart, 20, 300, 1, "8867-4"),
    HM_NUM("heart_rate_variability", "ms", hm_units_none, 0, 500, 1,
           "80404-7"),
    HM_NUM("height", "cm", hm_units_height, 20, 280, 1, "8302-2"),
    HM_NUM("inr", "{INR}", hm_units_none, 0.5, 20, 1, "6301-6"),
    HM_NUM("ldl", "mg/dL", hm_units_cholesterol, 1, 1000, 1,
           "13457-7", "18262-6"),
    HM_INT("mood", "{score}", hm_units_none, 1, 5, 0),
    HM_NUM("oxygen_saturation", "%", hm_units_none, 40, 100, 2,
           "2708-6", "59408-5"),
    HM_NUM("pain_level", "{score}", hm_units_none, 0, 10, 1, "72514-3"),
    HM_NUM("peak_flow", "L/min", hm_units_none, 30, 1000, 1, "19935-6"),
    HM_INT("respiratory_rate", "/min", hm_units_none, 2, 100, 1, "9279-1"),
    HM_INT("resting_heart_rate", "/min", hm_units_none, 20, 200, 1,
           "40443-4"),
    HM_NUM("sleep_hours", "h", hm_units_hours, 0, 24, 1, "93832-4"),
    HM_INT("steps", "{steps}", hm_units_none, 0, 200000, 1, "55423-8"),
    HM_INT("stress_level", "{score}", hm_units_none, 0, 100, 0),
    HM_NUM("temperature", "Cel", hm_units_temperature, 25, 45, 1,
           "8310-5", "8331-1"),
    HM_NUM("triglycerides", "mg/dL", hm_units_triglycerides, 5, 10000, 1,
           "2571-8"),
    HM_NUM("vo2_max", "mL/kg/min", hm_units_none, 5, 100, 1, "60842-2"),
    HM_NUM("waist_circumference", "cm", hm_units_waist, 20, 300, 1,
           "8280-0"),
    HM_NUM("water_intake", "mL", hm_units_water, 0, 20000, 0),
    HM_NUM("weight", "kg", hm_units_mass, 0.3, 650, 1, "29463-7")
};

const size_t  hm_nmetrics = sizeof(hm_metrics) / sizeof(hm_metrics[0]);


const hm_metric_t *
hm_metric_find(hm_str_t name)
{
    return bsearch(&name, hm_metrics, hm_nmetrics, sizeof(hm_metric_t),
                   hm_metric_cmp);
}


static int
hm_metric_cmp(const void *key, const void *row)
{
    int              rc;
    size_t           len, n;
    const char      *name;
    const hm_str_t  *s;

    s = key;
    name = ((const hm_metric_t *) row)->name;
    len = strlen(name);
    n = s->len < len ? s->len : len;

    rc = n == 0 ? 0 : memcmp(s->data, name, n);
    if (rc != 0) {
        return rc;
    }

    return s->len < len ? -1 : s->len > len;
}


const hm_metric_t *
hm_metric_by_loinc(hm_str_t code)
{
    size_t              i;
    const char *const  *p;

    for (i = 0; i < hm_nmetrics; i++) {
        for (p = hm_metrics[i].loinc; *p != NULL; p++) {

            if (strlen(*p) == code.len
                && memcmp(*p, code.data, code.len) == 0)
            {
                return &hm_metrics[i];
            }
        }
    }

    return NULL;
}


hm_rc_t
hm_metric_custom(hm_str_t name, hm_str_t *slug)
{
    size_t         i;
    unsigned char  c;

    static const hm_str_t  head = hm_str("custom:");

    if (name.len <= head.len || name.len > head.len + 40
        || memcmp(name.data, head.data, head.len) != 0)
    {
        return HM_DECLINED;
    }

    for (i = head.len; i < name.len; i++) {
        c = name.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) {
            return HM_DECLINED;
        }
    }

    slug->data = name.data + head.len;
    slug->len = name.len - head.len;

    return HM_OK;
}


hm_rc_t
hm_metric_read(const hm_metric_t *m, json_t *value, json_t *unit,
    hm_reading_t *out, bool *converted, hm_faults_t *f, hm_str_t prefix)
{
    bool              good, changed, respelled;
    const hm_unit_t  *u;

    memset(out, 0, sizeof(hm_reading_t));
    *converted = false;
    changed = false;

    /* Without a unit a value still has a type: name both faults. */

    good = hm_metric_unit(m, unit, &u, &respelled, f, prefix);

    if (value == NULL || json_is_null(value)) {
        hm_fault_add(f, prefix, "value", HM_FAULT_REQUIRED,
                     "a value is required");
        return HM_DECLINED;
    }

    if (m->kind == HM_METRIC_OBJECT) {
        good &= hm_metric_object(m, value, u, out, &changed, f, prefix);

    } else {
        good &= hm_metric_plain(m, value, u, out, &changed, f, prefix);
    }

    if (!good) {
        return HM_DECLINED;
    }

    *converted = changed || respelled;

    return HM_OK;
}


/* *found is NULL exactly when the unit is at fault. */

static bool
hm_metric_unit(const hm_metric_t *m, json_t *unit, const hm_unit_t **found,
    bool *respelled, hm_faults_t *f, hm_str_t prefix)
{
    const char  *text;

    *found = &hm_unit_canonical;
    *respelled = false;

    if (unit == NULL || json_is_null(unit)) {
        return true;
    }

    *found = NULL;

    if (!json_is_string(unit)) {
        hm_fault_add(f, prefix, "unit", HM_FAULT_TYPE, "string");
        return false;
    }

    text = json_string_value(unit);

    /* a NUL inside cannot pass for the unit before it */

    if (strlen(text) == json_string_length(unit)) {
        *found = hm_metric_unit_find(m, text, respelled);
    }

    if (*found == NULL) {
        hm_metric_unit_fault(m, f, prefix);
        return false;
    }

    return true;
}


static const hm_unit_t *
hm_metric_unit_find(const hm_metric_t *m, const char *text, bool *respelled)
{
    const hm_unit_t      *u;
    const hm_spelling_t  *s;

    if (strcmp(text, m->unit) == 0) {
        return &hm_unit_canonical;
    }

    *respelled = true;

    u = hm_metric_unit_exact(m, text);
    if (u != NULL) {
        return u;
    }

    for (s = hm_spellings; s->spelling != NULL; s++) {

        if (strcmp(text, s->spelling) != 0) {
            continue;
        }

        if (s->unit == NULL) {
            return m->unit[0] == '{' ? &hm_unit_canonical : NULL;
        }

        if (strcmp(s->unit, m->unit) == 0) {
            return &hm_unit_canonical;
        }

        return hm_metric_unit_exact(m, s->unit);
    }

    return NULL;
}


static const hm_unit_t *
hm_metric_unit_exact(const hm_metric_t *m, const char *code)
{
    const hm_unit_t  *u;

    for (u = m->units; u->code != NULL; u++) {
        if (strcmp(u->code, code) == 0) {
            return u;
        }
    }

    return NULL;
}


static void
hm_metric_unit_fault(const hm_metric_t *m, hm_faults_t *f, hm_str_t prefix)
{
    char              list[128];
    int               n;
    const hm_unit_t  *u;

    n = snprintf(list, sizeof(list), "%s", m->unit);

    for (u = m->units; u->code != NULL; u++) {
        n += snprintf(list + n, sizeof(list) - n, ", %s", u->code);
    }

    hm_fault_add(f, prefix, "unit", HM_FAULT_UNIT, "one of %s", list);
}


static bool
hm_metric_plain(const hm_metric_t *m, json_t *value, const hm_unit_t *unit,
    hm_reading_t *out, bool *changed, hm_faults_t *f, hm_str_t prefix)
{
    return hm_metric_number(m, value, unit, &out->number, changed, m->min,
                            m->max, "value", f, prefix);
}


static bool
hm_metric_object(const hm_metric_t *m, json_t *value, const hm_unit_t *unit,
    hm_reading_t *out, bool *changed, hm_faults_t *f, hm_str_t prefix)
{
    bool                   good, both;
    char                   place[256];
    double                *to;
    json_t                *v;
    hm_str_t               inner;
    const char            *name;
    const hm_component_t  *c;

    out->object = true;

    if (!json_is_object(value)) {
        hm_fault_add(f, prefix, "value", HM_FAULT_TYPE, "object");
        return false;
    }

    /* prefixes are "" and "/<index>" */

    inner.data = (unsigned char *) place;
    inner.len = snprintf(place, sizeof(place), "%.*s/value",
                         (int) (prefix.len < 200 ? prefix.len : 200),
                         prefix.data != NULL ? (char *) prefix.data : "");

    good = true;
    both = true;
    to = &out->number;

    for (c = m->components; c->name != NULL; c++, to = &out->second) {
        v = json_object_get(value, c->name);

        if (v == NULL || json_is_null(v)) {
            hm_fault_add(f, inner, c->name, HM_FAULT_REQUIRED,
                         "a number is required");
            good = both = false;
            continue;
        }

        both &= json_is_number(v);
        good &= hm_metric_number(m, v, unit, to, changed, c->min, c->max,
                                 c->name, f, inner);
    }

    json_object_foreach(value, name, v) {

        for (c = m->components; c->name != NULL; c++) {
            if (strcmp(c->name, name) == 0) {
                break;
            }
        }

        if (c->name == NULL) {
            hm_fault_add(f, inner, name, HM_FAULT_UNKNOWN, "no such member");
            good = false;
        }
    }

    if (both && unit != NULL && out->number <= out->second) {
        hm_fault_add(f, prefix, "value", HM_FAULT_ORDER,
                     "systolic above diastolic");
        good = false;
    }

    return good;
}


/* One number: its type, then converted, whole where it must be, in range. */

static bool
hm_metric_number(const hm_metric_t *m, json_t *value, const hm_unit_t *unit,
    double *out, bool *changed, double min, double max, const char *name,
    hm_faults_t *f, hm_str_t prefix)
{
    char    lo[32], hi[32];
    bool    good;
    double  x, y;

    if (!json_is_number(value)) {
        hm_fault_add(f, prefix, name, HM_FAULT_TYPE, "number");
        return false;
    }

    if (unit == NULL) {
        return true;
    }

    x = json_number_value(value);
    y = hm_metric_convert(x, unit);

    good = true;

    if (m->kind == HM_METRIC_INTEGER && y != trunc(y)) {
        hm_fault_add(f, prefix, name, HM_FAULT_INTEGER, "a whole number");
        good = false;
    }

    if (!(y >= min && y <= max)) {
        hm_fault_add(f, prefix, name, HM_FAULT_RANGE, "%.*s..%.*s %s",
                     (int) hm_real_format(min, lo), lo,
                     (int) hm_real_format(max, hi), hi, m->unit);
        good = false;
    }

    if (y == 0) {
        y = 0;                           /* -0 is 0: one reading, one text */
    }

    if (y != x) {
        *changed = true;
    }

    *out = y;

    return good;
}


static double
hm_metric_convert(double x, const hm_unit_t *unit)
{
    int          e;
    long double  m, p;

    if (unit->canonical) {
        return x;
    }

    m = hm_metric_decimal(x, &e);

    if (e >= 0) {
        return (double) ((m * powl(10, e) * unit->mul + unit->add)
                         / unit->div);
    }

    /*
     * Far below any reading; 10^27 is the last power of ten that a long
     * double holds exactly.
     */

    if (e < -27) {
        return (double) (((long double) x * unit->mul + unit->add)
                         / unit->div);
    }

    p = powl(10, -e);

    return (double) ((m * unit->mul + unit->add * p) / (unit->div * p));
}


/* x = m * 10^e by the shortest decimal that reads back as x; m is whole. */

static long double
hm_metric_decimal(double x, int *exponent)
{
    int          prec;
    char         text[40], *p;
    long double  m;

    for (prec = 0; prec < 17; prec++) {
        snprintf(text, sizeof(text), "%.*e", prec, x);

        if (strtod(text, NULL) == x) {
            break;
        }
    }

    m = 0;

    for (p = text; *p != '\0' && *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') {
            m = m * 10 + (*p - '0');
        }
    }

    *exponent = (*p == 'e' ? atoi(p + 1) : 0) - (prec < 17 ? prec : 16);

    return x < 0 ? -m : m;
}


void
hm_metric_types_json(hm_buf_t *b)
{
    size_t  i;

    hm_buf_lit(b, "{\"items\":[");

    for (i = 0; i < hm_nmetrics; i++) {
        if (i != 0) {
            hm_buf_lit(b, ",");
        }

        hm_metric_type_json(b, &hm_metrics[i]);
    }

    hm_buf_lit(b, "],\"next\":null}");
}


static void
hm_metric_type_json(hm_buf_t *b, const hm_metric_t *m)
{
    const hm_unit_t       *u;
    const char *const     *code;
    const hm_component_t  *c;

    static const char *const  kinds[] = {
        [HM_METRIC_NUMBER]  = "number",
        [HM_METRIC_INTEGER] = "integer",
        [HM_METRIC_OBJECT]  = "object"
    };

    hm_buf_lit(b, "{\"data_type\":");
    hm_metric_cstr_json(b, m->name);
    hm_buf_lit(b, ",\"kind\":");
    hm_metric_cstr_json(b, kinds[m->kind]);
    hm_buf_lit(b, ",\"unit\":");
    hm_metric_cstr_json(b, m->unit);

    hm_buf_lit(b, ",\"units\":[");
    hm_metric_cstr_json(b, m->unit);

    for (u = m->units; u->code != NULL; u++) {
        hm_buf_lit(b, ",");
        hm_metric_cstr_json(b, u->code);
    }

    hm_buf_lit(b, "],\"ranges\":{");

    if (m->kind == HM_METRIC_OBJECT) {
        for (c = m->components; c->name != NULL; c++) {
            if (c != m->components) {
                hm_buf_lit(b, ",");
            }

            hm_metric_range_json(b, c->name, c->min, c->max);
        }

    } else {
        hm_metric_range_json(b, "value", m->min, m->max);
    }

    hm_buf_lit(b, "},\"loinc\":[");

    for (code = m->loinc; *code != NULL; code++) {
        if (code != m->loinc) {
            hm_buf_lit(b, ",");
        }

        hm_metric_cstr_json(b, *code);
    }

    hm_buf_lit(b, "]}");
}


static void
hm_metric_range_json(hm_buf_t *b, const char *name, double min, double max)
{
    hm_metric_cstr_json(b, name);
    hm_buf_lit(b, ":[");
    hm_json_real(b, min);
    hm_buf_lit(b, ",");
    hm_json_real(b, max);
    hm_buf_lit(b, "]");
}


static void
hm_metric_cstr_json(hm_buf_t *b, const char *s)
{
    hm_json_text(b, (hm_str_t) { strlen(s), (unsigned char *) s });
}
