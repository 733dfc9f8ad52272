/*
 * fhir: FHIR R4 in.  A scanner that walks the entries of a bundle of any
 * size, and what an Observation says as one of our readings.
 *
 * Nothing here reads files or talks to a server; a fuzzer drives it.
 */

#ifndef HMC_FHIR_H
#define HMC_FHIR_H

#include <jansson.h>

#include "hm.h"
#include "hm_buf.h"
#include "hm_metric.h"


/*
 * A text of one or more JSON values: a Bundle, a single resource, or NDJSON
 * (one resource a line).  Items are slices of the text; an item is valid
 * JSON only as far as brackets and strings go.
 */
typedef struct {
    unsigned char   *start;
    unsigned char   *pos;
    unsigned char   *end;
    unsigned char   *value;              /* top-level value being walked */
    bool             in_entries;
    bool             had_entries;
    bool             first;              /* of the members, of the entries */
    size_t           index;              /* of the next item */
    const char      *reason;             /* of HM_ERROR; at pos */
} hmc_bundle_t;

typedef struct {
    size_t           index;              /* in the file, from 0 */
    hm_str_t         resource;           /* data NULL: the entry has none */
    hm_str_t         url;                /* fullUrl, or empty */
    hm_str_t         type;               /* resourceType, or empty */
} hmc_entry_t;

void hmc_bundle_init(hmc_bundle_t *b, hm_str_t text);

/* HM_DECLINED: the end, well closed.  HM_ERROR: malformed, at b->pos. */
hm_rc_t hmc_bundle_next(hmc_bundle_t *b, hmc_entry_t *entry);


typedef enum {
    HMC_TAKE = 0,
    HMC_SKIP,                            /* not for us; why */
    HMC_FAULTY                           /* for us, but not valid; why */
} hmc_verdict_t;

typedef struct {
    hmc_verdict_t        verdict;
    const char          *why;            /* a short sentence */
    const char          *fault;          /* a public fault code, or NULL */
    hm_str_t             code;           /* LOINC, or the first code there is */
    hm_str_t             display;
    const hm_metric_t   *metric;
    hm_reading_t         value;          /* in `unit` */
    hm_str_t             unit;           /* empty: canonical */
    hm_usec_t            at;
    hm_str_t             id;             /* source_id; data NULL: none */
    bool                 rounded;
} hmc_observation_t;

/* Texts of out live in mem.  HM_ERROR: no memory. */
hm_rc_t hmc_observation_read(hm_mem_t *mem, json_t *resource, hm_str_t url,
    hmc_observation_t *out);

/* One line of NDJSON for POST /health-data/batch. */
void hmc_observation_line(hm_buf_t *b, const hmc_observation_t *o);

#endif
