/*
 * fuzz: readings.
 *
 * The first byte chooses the metric; the rest is a JSON object with "value"
 * and "unit", as a request has it.  A reading that is taken must be finite
 * and within the metric's bounds, whole where it must be, and must be taken
 * unchanged when it comes back in the canonical unit, as a PUT of what a GET
 * showed.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include "hm_json.h"
#include "hm_metric.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static unsigned char  arena[1 << 20];
static size_t         used;

static void *
arena_alloc(void *ctx, size_t size)
{
    void  *p;

    size = (size + 15) & ~(size_t) 15;

    if (size > sizeof(arena) - used) {
        return NULL;
    }

    p = arena + used;
    used += size;

    return p;
}


static hm_mem_t  mem = { arena_alloc, NULL };


static void
must(int right)
{
    if (!right) {
        abort();
    }
}


static void
within(const hm_metric_t *m, double n, double min, double max)
{
    must(isfinite(n) && n >= min && n <= max);
    must(n != 0 || !signbit(n));
    must(m->kind != HM_METRIC_INTEGER || n == trunc(n));
}


static void
again(const hm_metric_t *m, const hm_reading_t *r)
{
    bool          converted;
    json_t       *value;
    hm_faults_t   f;
    hm_reading_t  back;

    if (r->object) {
        value = json_pack("{s:f,s:f}", "systolic", r->number, "diastolic",
                          r->second);

    } else {
        value = json_real(r->number);
    }

    must(value != NULL);

    hm_faults_init(&f, &mem);
    must(hm_metric_read(m, value, NULL, &back, &converted, &f,
                        hm_null_str) == HM_OK);
    must(!converted);
    must(back.number == r->number && back.second == r->second);

    json_decref(value);
}


static void
one(const hm_metric_t *m, json_t *doc)
{
    bool          converted;
    hm_rc_t       rc;
    hm_faults_t   f;
    hm_reading_t  r;

    hm_faults_init(&f, &mem);

    rc = hm_metric_read(m, json_object_get(doc, "value"),
                        json_object_get(doc, "unit"), &r, &converted, &f,
                        HM_STR("/3"));

    must((rc == HM_OK) == (f.n == 0));

    if (rc != HM_OK) {
        return;
    }

    if (r.object) {
        within(m, r.number, m->components[0].min, m->components[0].max);
        within(m, r.second, m->components[1].min, m->components[1].max);
        must(r.number > r.second);

    } else {
        within(m, r.number, m->min, m->max);
    }

    must(!converted || json_is_string(json_object_get(doc, "unit")));

    again(m, &r);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t    *doc;
    hm_str_t   text, reason, slug;

    if (size < 2) {
        return 0;
    }

    used = 0;

    text.data = (unsigned char *) data + 1;
    text.len = size - 1;

    (void) hm_metric_find(text);
    (void) hm_metric_by_loinc(text);

    if (hm_metric_custom(text, &slug) == HM_OK) {
        must(slug.len >= 1 && slug.len <= 40);
    }

    doc = hm_json_parse(text, &reason);
    if (doc == NULL) {
        return 0;
    }

    one(&hm_metrics[data[0] % hm_nmetrics], doc);

    json_decref(doc);

    return 0;
}
