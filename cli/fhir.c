/*
 * fhir: see fhir.h.
 *
 * THE SCANNER
 *
 * jansson parses a whole text or nothing, and a bundle may be larger than
 * memory.  So the scanner walks the text itself: strings and brackets, no
 * more.  It goes into the top-level object, and into its "entry" array, and
 * hands out each entry's "resource" as a slice; every other value is stepped
 * over.  A slice is parsed alone, strictly, by hm_json_parse.  Brackets are
 * matched by kind with one bit each, to a depth no real document has, so
 * that a hostile file can neither grow a stack nor pass as well formed.
 *
 * Members may come in any order, so whether an object is a bundle is only
 * known at its end: an object without an "entry" array is itself the one
 * resource.  This also makes NDJSON (a resource a line) work unasked.
 *
 * THE READING
 *
 * What a code, a unit and a range mean is hm_metric's.  Here is only where
 * FHIR keeps them: the codings with system LOINC, the first one that is a
 * metric of ours; valueQuantity, its UCUM code before its display unit; the
 * two components of a blood pressure; the first usable time of effective*
 * and issued.  A metric of whole numbers is rounded here, in its canonical
 * unit, and that is told.
 */

#include <math.h>
#include <stdio.h>

#include "fhir.h"
#include "hm_fault.h"
#include "hm_json.h"
#include "hm_time.h"
#include "hm_uuid.h"


#define HMC_DEPTH_MAX   256

#define HMC_LOINC       "http://loinc.org"
#define HMC_UCUM        "http://unitsofmeasure.org"


static hm_rc_t hmc_bundle_top(hmc_bundle_t *b, hmc_entry_t *entry);
static hm_rc_t hmc_bundle_entry(hmc_bundle_t *b, hmc_entry_t *entry);


static hm_rc_t
hmc_malformed(hmc_bundle_t *b, const char *reason)
{
    b->reason = reason;

    return HM_ERROR;
}


static void
hmc_scan_space(hmc_bundle_t *b)
{
    while (b->pos < b->end
           && (*b->pos == ' ' || *b->pos == '\n' || *b->pos == '\r'
               || *b->pos == '\t'))
    {
        b->pos++;
    }
}


/* On the opening quote; text is what stands between the quotes. */
static hm_rc_t
hmc_scan_string(hmc_bundle_t *b, hm_str_t *text)
{
    unsigned char  *start;

    start = ++b->pos;

    while (b->pos < b->end) {

        if (*b->pos == '"') {
            if (text != NULL) {
                text->data = start;
                text->len = (size_t) (b->pos - start);
            }

            b->pos++;
            return HM_OK;
        }

        if (*b->pos < 0x20) {
            return hmc_malformed(b, "a control character in a string");
        }

        if (*b->pos == '\\') {
            b->pos++;
        }

        b->pos++;
    }

    b->pos = b->end;

    return hmc_malformed(b, "the file ends inside a string");
}


/* A number, true, false or null: what it is, its parser will say. */
static hm_rc_t
hmc_scan_word(hmc_bundle_t *b)
{
    unsigned char  *start;

    start = b->pos;

    while (b->pos < b->end
           && ((*b->pos >= '0' && *b->pos <= '9')
               || (*b->pos >= 'a' && *b->pos <= 'z')
               || *b->pos == '-' || *b->pos == '+' || *b->pos == '.'
               || *b->pos == 'E'))
    {
        b->pos++;
    }

    return b->pos != start ? HM_OK : hmc_malformed(b, "this is not JSON");
}


static hm_rc_t
hmc_scan_brackets(hmc_bundle_t *b)
{
    bool            brace;
    unsigned        depth;
    unsigned char   c, kinds[HMC_DEPTH_MAX / 8];

    depth = 0;

    while (b->pos < b->end) {
        c = *b->pos;

        if (c == '"') {
            if (hmc_scan_string(b, NULL) != HM_OK) {
                return HM_ERROR;
            }

            continue;
        }

        if (c == '{' || c == '[') {
            if (depth == HMC_DEPTH_MAX) {
                return hmc_malformed(b, "nested too deeply");
            }

            kinds[depth / 8] &= (unsigned char) ~(1u << (depth % 8));
            kinds[depth / 8] |= (unsigned char) ((c == '{') << (depth % 8));
            depth++;

        } else if (c == '}' || c == ']') {
            depth--;
            brace = (kinds[depth / 8] >> (depth % 8)) & 1;

            if (brace != (c == '}')) {
                return hmc_malformed(b, "brackets that do not match");
            }

            if (depth == 0) {
                b->pos++;
                return HM_OK;
            }
        }

        b->pos++;
    }

    return hmc_malformed(b, "the file ends inside a value");
}


static hm_rc_t
hmc_scan_value(hmc_bundle_t *b, hm_str_t *text)
{
    hm_rc_t         rc;
    unsigned char  *start;

    hmc_scan_space(b);

    if (b->pos == b->end) {
        return hmc_malformed(b, "the file ends where a value is due");
    }

    start = b->pos;

    if (*b->pos == '{' || *b->pos == '[') {
        rc = hmc_scan_brackets(b);

    } else if (*b->pos == '"') {
        rc = hmc_scan_string(b, NULL);

    } else {
        rc = hmc_scan_word(b);
    }

    if (rc == HM_OK && text != NULL) {
        text->data = start;
        text->len = (size_t) (b->pos - start);
    }

    return rc;
}


/*
 * The next member of an object: its key, with pos on its value.  HM_DECLINED:
 * the object has ended.
 */
static hm_rc_t
hmc_scan_key(hmc_bundle_t *b, bool *first, hm_str_t *key)
{
    hmc_scan_space(b);

    if (b->pos < b->end && *b->pos == '}') {
        b->pos++;
        return HM_DECLINED;
    }

    if (!*first) {
        if (b->pos == b->end || *b->pos != ',') {
            return hmc_malformed(b, "a comma or a brace is missing");
        }

        b->pos++;
        hmc_scan_space(b);
    }

    *first = false;

    if (b->pos == b->end || *b->pos != '"') {
        return hmc_malformed(b, "the name of a member is missing");
    }

    if (hmc_scan_string(b, key) != HM_OK) {
        return HM_ERROR;
    }

    hmc_scan_space(b);

    if (b->pos == b->end || *b->pos != ':') {
        return hmc_malformed(b, "a colon is missing");
    }

    b->pos++;
    hmc_scan_space(b);

    return HM_OK;
}


/* Text between quotes of a slice that is a JSON string; else empty. */
static hm_str_t
hmc_unquoted(hm_str_t text)
{
    if (text.len < 2 || text.data[0] != '"') {
        return hm_null_str;
    }

    return (hm_str_t) { text.len - 2, text.data + 1 };
}


/* resourceType of a resource, without parsing the rest of it. */
static void
hmc_resource_type(hmc_entry_t *entry)
{
    bool          first;
    hm_str_t      key, value;
    hmc_bundle_t  r;

    memset(&r, 0, sizeof(r));
    entry->type = hm_null_str;

    if (entry->resource.len == 0 || entry->resource.data[0] != '{') {
        return;
    }

    r.pos = entry->resource.data + 1;
    r.end = entry->resource.data + entry->resource.len;
    first = true;

    while (hmc_scan_key(&r, &first, &key) == HM_OK
           && hmc_scan_value(&r, &value) == HM_OK)
    {
        if (hm_str_eq(key, HM_STR("resourceType"))) {
            entry->type = hmc_unquoted(value);
            return;
        }
    }
}


void
hmc_bundle_init(hmc_bundle_t *b, hm_str_t text)
{
    memset(b, 0, sizeof(hmc_bundle_t));

    b->start = b->pos = text.data;
    b->end = text.data + text.len;

    if (text.len >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0) {
        b->pos += 3;
    }
}


hm_rc_t
hmc_bundle_next(hmc_bundle_t *b, hmc_entry_t *entry)
{
    hm_rc_t  rc;

    memset(entry, 0, sizeof(hmc_entry_t));

    do {
        rc = b->in_entries ? hmc_bundle_entry(b, entry)
                           : hmc_bundle_top(b, entry);
    } while (rc == HM_AGAIN);

    if (rc == HM_OK) {
        entry->index = b->index++;
        hmc_resource_type(entry);
    }

    return rc;
}


/* Members of a top-level object, up to its entries or its end. */
static hm_rc_t
hmc_bundle_top(hmc_bundle_t *b, hmc_entry_t *entry)
{
    hm_rc_t   rc;
    hm_str_t  key;

    if (b->value == NULL) {
        hmc_scan_space(b);

        if (b->pos == b->end) {
            return b->value == NULL && b->index == 0 && !b->had_entries
                   ? hmc_malformed(b, "there is no JSON in the file")
                   : HM_DECLINED;
        }

        if (*b->pos != '{') {
            return hmc_malformed(b, "this is no FHIR resource");
        }

        b->value = b->pos++;
        b->first = true;
        b->had_entries = false;
    }

    for ( ;; ) {
        rc = hmc_scan_key(b, &b->first, &key);

        if (rc == HM_ERROR) {
            return rc;
        }

        if (rc == HM_DECLINED) {
            entry->resource.data = b->value;
            entry->resource.len = (size_t) (b->pos - b->value);
            b->value = NULL;

            return b->had_entries ? HM_AGAIN : HM_OK;
        }

        if (hm_str_eq(key, HM_STR("entry")) && b->pos < b->end
            && *b->pos == '[')
        {
            b->pos++;
            b->in_entries = true;
            b->had_entries = true;
            b->first = true;
            return HM_AGAIN;
        }

        if (hmc_scan_value(b, NULL) != HM_OK) {
            return HM_ERROR;
        }
    }
}


/* One entry of the array, or its end. */
static hm_rc_t
hmc_bundle_entry(hmc_bundle_t *b, hmc_entry_t *entry)
{
    bool      first;
    hm_rc_t   rc;
    hm_str_t  key, value;

    hmc_scan_space(b);

    if (b->pos < b->end && *b->pos == ']') {
        b->pos++;
        b->in_entries = false;
        b->first = false;
        return HM_AGAIN;
    }

    if (!b->first) {
        if (b->pos == b->end || *b->pos != ',') {
            return hmc_malformed(b, "a comma or a bracket is missing");
        }

        b->pos++;
        hmc_scan_space(b);
    }

    b->first = false;

    if (b->pos == b->end || *b->pos != '{') {
        /* an entry that is no object has no resource */
        return hmc_scan_value(b, NULL);
    }

    b->pos++;
    first = true;

    while ((rc = hmc_scan_key(b, &first, &key)) == HM_OK) {

        if (hmc_scan_value(b, &value) != HM_OK) {
            return HM_ERROR;
        }

        if (hm_str_eq(key, HM_STR("resource"))) {
            entry->resource = value;

        } else if (hm_str_eq(key, HM_STR("fullUrl"))) {
            entry->url = hmc_unquoted(value);
        }
    }

    return rc == HM_DECLINED ? HM_OK : HM_ERROR;
}


static hm_str_t
hmc_member(json_t *object, const char *name)
{
    json_t  *text;

    text = json_object_get(object, name);

    if (!json_is_string(text)) {
        return hm_null_str;
    }

    return (hm_str_t) { json_string_length(text),
                        (unsigned char *) json_string_value(text) };
}


/* A copy that outlives the document. */
static hm_str_t
hmc_keep(hm_mem_t *mem, hm_str_t s)
{
    hm_str_t  copy;

    if (s.data == NULL) {
        return s;
    }

    copy.len = s.len;
    copy.data = hm_alloc(mem, s.len + 1);

    if (copy.data != NULL) {
        memcpy(copy.data, s.data, s.len);
        copy.data[s.len] = '\0';
    }

    return copy;
}


static hm_rc_t
hmc_verdict(hmc_observation_t *out, hmc_verdict_t verdict, const char *why)
{
    out->verdict = verdict;
    out->why = why;

    return HM_OK;
}


/* The metric of a CodeableConcept; code and display for the summary. */
static const hm_metric_t *
hmc_concept(json_t *concept, hm_str_t *code, hm_str_t *display)
{
    size_t              i;
    json_t             *coding, *c;
    hm_str_t            text, shown;
    const hm_metric_t  *metric;

    *code = hm_null_str;
    *display = hm_null_str;
    coding = json_object_get(concept, "coding");

    json_array_foreach(coding, i, c) {
        text = hmc_member(c, "code");
        shown = hmc_member(c, "display");
        metric = NULL;

        if (text.data == NULL) {
            continue;
        }

        if (hm_str_eq(hmc_member(c, "system"), HM_STR(HMC_LOINC))) {
            metric = hm_metric_by_loinc(text);
        }

        if (code->data == NULL || metric != NULL) {
            *code = text;
            *display = shown;
        }

        if (metric != NULL) {
            return metric;
        }
    }

    if (display->data == NULL) {
        *display = hmc_member(concept, "text");
    }

    return NULL;
}


static hm_rc_t
hmc_time(json_t *resource, hm_usec_t *at)
{
    size_t    i;
    int32_t   days;
    json_t   *period;
    hm_str_t  text;

    static const char *const  moments[] = {
        "effectiveDateTime", "effectiveInstant", NULL
    };

    for (i = 0; moments[i] != NULL; i++) {
        text = hmc_member(resource, moments[i]);

        if (text.data != NULL && hm_time_parse(at, text) == HM_OK) {
            return HM_OK;
        }
    }

    period = json_object_get(resource, "effectivePeriod");

    if (json_is_object(period)
        && (hm_time_parse(at, hmc_member(period, "start")) == HM_OK
            || hm_time_parse(at, hmc_member(period, "end")) == HM_OK))
    {
        return HM_OK;
    }

    /* FHIR lets a day stand for a time: it is its first moment, as in the
     * standard's own search rules */
    text = hmc_member(resource, "effectiveDateTime");

    if (text.data != NULL && hm_date_parse(&days, text) == HM_OK) {
        *at = (hm_usec_t) days * 86400 * HM_USEC;
        return HM_OK;
    }

    text = hmc_member(resource, "issued");

    return text.data != NULL ? hm_time_parse(at, text) : HM_DECLINED;
}


/* Does the metric take this unit?  hm_metric is asked, by its own fault. */
static bool
hmc_unit_known(hm_mem_t *mem, const hm_metric_t *metric, json_t *unit)
{
    bool           known, converted;
    size_t         i;
    json_t        *value;
    hm_faults_t   *faults;
    hm_reading_t   reading;

    faults = hm_alloc(mem, sizeof(hm_faults_t));
    value = metric->kind == HM_METRIC_OBJECT ? json_object()
                                             : json_real(metric->min);
    known = faults != NULL && value != NULL;

    if (known) {
        hm_faults_init(faults, mem);
        (void) hm_metric_read(metric, value, unit, &reading, &converted,
                              faults, hm_null_str);

        for (i = 0; i < faults->n && i < HM_FAULTS_MAX; i++) {
            known = known && faults->list[i].code != HM_FAULT_UNIT;
        }
    }

    json_decref(value);

    return known;
}


/* The UCUM code, else the display unit; canonical is empty. */
static hm_rc_t
hmc_unit(hm_mem_t *mem, const hm_metric_t *metric, json_t *quantity,
    hm_str_t *unit)
{
    size_t    i;
    hm_str_t  text, system;

    static const char *const  names[] = { "code", "unit", NULL };

    system = hmc_member(quantity, "system");

    for (i = 0; names[i] != NULL; i++) {
        text = hmc_member(quantity, names[i]);

        if (text.data == NULL
            || (i == 0 && system.data != NULL
                && !hm_str_eq(system, HM_STR(HMC_UCUM))))
        {
            continue;
        }

        if (text.len == strlen(metric->unit)
            && memcmp(text.data, metric->unit, text.len) == 0)
        {
            *unit = hm_null_str;
            return HM_OK;
        }

        if (hmc_unit_known(mem, metric, json_object_get(quantity, names[i])))
        {
            *unit = hmc_keep(mem, text);
            return HM_OK;
        }
    }

    return HM_DECLINED;
}


/* One number with its unit, from an Observation or one of its components. */
static hm_rc_t
hmc_quantity(hm_mem_t *mem, const hm_metric_t *metric, json_t *holder,
    double *number, hm_str_t *unit, const char **why)
{
    json_t  *quantity, *value;

    quantity = json_object_get(holder, "valueQuantity");
    value = json_object_get(quantity, "value");

    if (quantity == NULL) {
        value = json_object_get(holder, "valueInteger");

        /* a bare number has a meaning only where the unit is a count */
        if (!json_is_integer(value) || metric->unit[0] != '{') {
            *why = "it holds no quantity";
            return HM_DECLINED;
        }

        *number = json_number_value(value);
        *unit = hm_null_str;
        return HM_OK;
    }

    if (!json_is_number(value)) {
        *why = "its quantity has no value";
        return HM_DECLINED;
    }

    if (json_object_get(quantity, "comparator") != NULL) {
        *why = "its value is a bound (< or >), not a reading";
        return HM_DECLINED;
    }

    *number = json_number_value(value);

    if (hmc_unit(mem, metric, quantity, unit) != HM_OK) {
        *why = "its unit is not one of this metric";
        return HM_DECLINED;
    }

    return HM_OK;
}


/* Which of the metric's components a component is; or -1. */
static int
hmc_component(const hm_metric_t *metric, json_t *component)
{
    int        k;
    size_t     i;
    json_t    *coding, *c;
    hm_str_t   code;

    coding = json_object_get(json_object_get(component, "code"), "coding");

    json_array_foreach(coding, i, c) {
        code = hmc_member(c, "code");

        if (!hm_str_eq(hmc_member(c, "system"), HM_STR(HMC_LOINC))) {
            continue;
        }

        for (k = 0; k < 2; k++) {
            if (code.len == strlen(metric->components[k].loinc)
                && memcmp(code.data, metric->components[k].loinc, code.len)
                   == 0)
            {
                return k;
            }
        }
    }

    return -1;
}


static hm_rc_t
hmc_pressure(hm_mem_t *mem, hmc_observation_t *out, json_t *resource)
{
    int          k;
    bool         have[2];
    size_t       i;
    json_t      *c;
    double      *number;
    hm_str_t     unit;
    const char  *why;

    have[0] = have[1] = false;

    json_array_foreach(json_object_get(resource, "component"), i, c) {

        k = hmc_component(out->metric, c);
        if (k < 0) {
            continue;
        }

        number = k == 0 ? &out->value.number : &out->value.second;

        if (hmc_quantity(mem, out->metric, c, number, &unit, &why) != HM_OK) {
            return hmc_verdict(out, HMC_SKIP, why);
        }

        if ((have[0] || have[1]) && !hm_str_eq(unit, out->unit)) {
            return hmc_verdict(out, HMC_SKIP, "its components differ in unit");
        }

        out->unit = unit;
        have[k] = true;
    }

    if (!have[0] || !have[1]) {
        return hmc_verdict(out, HMC_SKIP, "it lacks one of its components");
    }

    out->value.object = true;

    return hmc_verdict(out, HMC_TAKE, NULL);
}


/* What the server would say of a reading. */
static hm_rc_t
hmc_ask(const hmc_observation_t *out, hm_faults_t *faults,
    hm_reading_t *reading)
{
    bool      converted;
    json_t   *value, *unit;
    hm_rc_t   rc;

    value = out->value.object
            ? json_pack("{s:f,s:f}", "systolic", out->value.number,
                        "diastolic", out->value.second)
            : json_real(out->value.number);
    unit = out->unit.len == 0 ? NULL
           : json_stringn((char *) out->unit.data, out->unit.len);

    rc = value == NULL ? HM_ERROR
         : hm_metric_read(out->metric, value, unit, reading, &converted,
                          faults, hm_null_str);

    json_decref(value);
    json_decref(unit);

    return rc;
}


/*
 * Range and order are judged here too, so that a dry run tells the truth;
 * and where only wholeness is missing, the converted number is rounded.
 */
static hm_rc_t
hmc_check(hm_mem_t *mem, hmc_observation_t *out)
{
    hm_str_t       detail;
    hm_faults_t   *faults;
    hm_reading_t   reading;

    faults = hm_alloc(mem, sizeof(hm_faults_t));
    if (faults == NULL) {
        return HM_ERROR;
    }

    hm_faults_init(faults, mem);

    if (hmc_ask(out, faults, &reading) == HM_ERROR) {
        return HM_ERROR;
    }

    if (faults->n != 0 && faults->list[0].code == HM_FAULT_INTEGER) {
        out->value.number = round(reading.number);
        out->unit = hm_null_str;
        out->rounded = true;

        hm_faults_init(faults, mem);

        if (hmc_ask(out, faults, &reading) == HM_ERROR) {
            return HM_ERROR;
        }
    }

    if (faults->n == 0) {
        return HM_OK;
    }

    detail = hmc_keep(mem, faults->list[0].detail);

    out->verdict = HMC_FAULTY;
    out->fault = hm_fault_code_name(faults->list[0].code);
    out->why = detail.len != 0 && detail.data != NULL
               ? (char *) detail.data : "its value is not plausible";

    return HM_OK;
}


static hm_rc_t
hmc_observation_judge(hm_mem_t *mem, json_t *resource, hm_str_t url,
    hmc_observation_t *out)
{
    hm_str_t   status;
    hm_uuid_t  uuid;

    out->metric = hmc_concept(json_object_get(resource, "code"), &out->code,
                              &out->display);

    status = hmc_member(resource, "status");

    if (hm_str_eq(status, HM_STR("entered-in-error"))
        || hm_str_eq(status, HM_STR("cancelled")))
    {
        return hmc_verdict(out, HMC_SKIP,
                           "its status says that it does not count");
    }

    if (out->metric == NULL) {
        return hmc_verdict(out, HMC_SKIP, "no metric has its code");
    }

    if (hmc_time(resource, &out->at) != HM_OK) {
        out->fault = "required";
        return hmc_verdict(out, HMC_FAULTY, "it has no usable time");
    }

    out->id = hmc_member(resource, "id");

    /* the url is raw text of the file: only a UUID is taken from it */
    if (out->id.data == NULL && url.len == 9 + HM_UUID_TEXT
        && memcmp(url.data, "urn:uuid:", 9) == 0
        && hm_uuid_parse(&uuid, (hm_str_t) { HM_UUID_TEXT, url.data + 9 })
           == HM_OK)
    {
        out->id = (hm_str_t) { HM_UUID_TEXT, url.data + 9 };
    }

    if (out->id.len == 0) {
        out->id = hm_null_str;
    }

    if (out->metric->kind == HM_METRIC_OBJECT) {
        hmc_pressure(mem, out, resource);

    } else if (hmc_quantity(mem, out->metric, resource, &out->value.number,
                            &out->unit, &out->why)
               != HM_OK)
    {
        out->verdict = HMC_SKIP;
    }

    return out->verdict == HMC_TAKE ? hmc_check(mem, out) : HM_OK;
}


hm_rc_t
hmc_observation_read(hm_mem_t *mem, json_t *resource, hm_str_t url,
    hmc_observation_t *out)
{
    hm_rc_t  rc;

    memset(out, 0, sizeof(hmc_observation_t));

    rc = hmc_observation_judge(mem, resource, url, out);

    if (rc != HM_OK) {
        return rc;
    }

    /* the document goes, these stay */
    out->code = hmc_keep(mem, out->code);
    out->display = hmc_keep(mem, out->display);
    out->id = hmc_keep(mem, out->id);

    return HM_OK;
}


void
hmc_observation_line(hm_buf_t *b, const hmc_observation_t *o)
{
    hm_buf_lit(b, "{\"data_type\":");
    hm_json_text(b, (hm_str_t) { strlen(o->metric->name),
                                 (unsigned char *) o->metric->name });

    if (o->value.object) {
        hm_buf_lit(b, ",\"value\":{\"systolic\":");
        hm_json_real(b, o->value.number);
        hm_buf_lit(b, ",\"diastolic\":");
        hm_json_real(b, o->value.second);
        hm_buf_lit(b, "}");

    } else {
        hm_buf_lit(b, ",\"value\":");
        hm_json_real(b, o->value.number);
    }

    if (o->unit.len != 0) {
        hm_buf_lit(b, ",\"unit\":");
        hm_json_text(b, o->unit);
    }

    hm_buf_lit(b, ",\"timestamp\":");
    hm_json_time(b, o->at);
    hm_buf_lit(b, ",\"source\":\"fhir\"");

    if (o->id.data != NULL) {
        hm_buf_lit(b, ",\"source_id\":");
        hm_json_text(b, o->id);
    }

    hm_buf_lit(b, "}\n");
}
