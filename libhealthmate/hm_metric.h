/*
 * hm_metric: the table of metric types (domain.md): canonical UCUM unit,
 * accepted units and their conversion, plausible range, LOINC codes.  Code
 * only interprets the table.
 */

#ifndef HM_METRIC_H
#define HM_METRIC_H

#include <jansson.h>
#include "hm.h"
#include "hm_fault.h"

typedef enum { HM_METRIC_NUMBER, HM_METRIC_INTEGER, HM_METRIC_OBJECT }
    hm_metric_kind_t;

/* Whole numbers only: hm_metric.c converts the decimal text of a number. */
typedef struct {
    const char   *code;                  /* UCUM or an accepted spelling */
    double        mul;                   /* canonical = (x * mul + add) / div */
    double        add;
    double        div;
    bool          canonical;             /* the same unit, spelled otherwise */
} hm_unit_t;

typedef struct {
    const char        *name;
    double             min, max;         /* plausible, canonical unit */
    const char        *loinc;
} hm_component_t;

typedef struct {
    const char        *name;             /* data_type */
    hm_metric_kind_t   kind;
    const char        *unit;             /* canonical UCUM */
    const hm_unit_t   *units;            /* others, ended by code NULL; "units"
                                            of /types = unit + these */
    double             min, max;
    const char *const *loinc;            /* NULL-ended, written codes first */
    size_t             nloinc_written;
    const hm_component_t *components;    /* HM_METRIC_OBJECT: NULL-ended name */
} hm_metric_t;

extern const hm_metric_t  hm_metrics[];  /* sorted by name */
extern const size_t       hm_nmetrics;

const hm_metric_t *hm_metric_find(hm_str_t name);
const hm_metric_t *hm_metric_by_loinc(hm_str_t code);

/* "custom:slug": the slug, or HM_DECLINED. */
hm_rc_t hm_metric_custom(hm_str_t name, hm_str_t *slug);


typedef struct {
    bool        object;                  /* blood_pressure */
    double      number;                  /* or systolic */
    double      second;                  /* diastolic */
} hm_reading_t;

/*
 * Reads value (json) and unit (NULL: canonical) of a metric, converts, and
 * checks range, integer and order; faults at <prefix>/value..., <prefix>/unit.
 * converted is set when the number or the unit's spelling changed: then
 * `original` {"value","unit"} is kept.  Canonical doubles are unrounded.
 */
hm_rc_t hm_metric_read(const hm_metric_t *m, json_t *value, json_t *unit,
    hm_reading_t *out, bool *converted, hm_faults_t *f, hm_str_t prefix);

/* {"items": [...], "next": null} of GET /health-data/types. */
void hm_metric_types_json(hm_buf_t *b);

#endif
