/*
 * hm_fault: what is wrong with a request, all of it.
 *
 * A fault names its place by RFC 6901 pointer (body) or parameter (query),
 * one code of the public list, and a detail that never repeats the value.
 */

#ifndef HM_FAULT_H
#define HM_FAULT_H

#include "hm.h"
#include "hm_buf.h"

#define HM_FAULTS_MAX   64       /* further ones are counted, not listed */


typedef enum {
    HM_FAULT_REQUIRED = 0,
    HM_FAULT_UNKNOWN,
    HM_FAULT_READ_ONLY,
    HM_FAULT_IMMUTABLE,
    HM_FAULT_TYPE,
    HM_FAULT_FORMAT,
    HM_FAULT_ENUM,
    HM_FAULT_RANGE,
    HM_FAULT_INTEGER,
    HM_FAULT_LENGTH,
    HM_FAULT_UNIT,
    HM_FAULT_FUTURE,
    HM_FAULT_ORDER,
    HM_FAULT_BLOCKLISTED
} hm_fault_code_t;


typedef struct {
    hm_str_t          place;      /* "/value/systolic", or "limit" */
    bool              parameter;  /* of the query, else a body pointer */
    hm_fault_code_t   code;
    hm_str_t          detail;
} hm_fault_t;


typedef struct {
    hm_mem_t         *mem;
    size_t            n;          /* may exceed HM_FAULTS_MAX */
    hm_fault_t        list[HM_FAULTS_MAX];
} hm_faults_t;


void hm_faults_init(hm_faults_t *f, hm_mem_t *mem);

/* place and detail are printf'ed; place = prefix + "/" + escaped name. */
void hm_fault_add(hm_faults_t *f, hm_str_t prefix, const char *name,
    hm_fault_code_t code, const char *detail_fmt, ...)
    __attribute__((format(printf, 5, 6)));
void hm_fault_param(hm_faults_t *f, const char *name, hm_fault_code_t code,
    const char *detail_fmt, ...) __attribute__((format(printf, 4, 5)));

const char *hm_fault_code_name(hm_fault_code_t code);

/* Writes the JSON array of the faults. */
void hm_faults_json(hm_buf_t *b, const hm_faults_t *f);

#endif
