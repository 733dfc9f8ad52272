/*
 * hm_fault: the list of everything that is wrong with one request.
 *
 * A fault is named by its place, never by its value: what a client sent may
 * be a reading, a token or a password, and faults are shown and logged.
 *
 * The list is bounded.  Faults past the bound are counted, so that "72
 * faults" is true and the answer to a hostile body stays small.  Memory that
 * runs out while a fault is described loses the description, not the fault:
 * the request is refused all the same.
 */

#include <stdarg.h>
#include <stdio.h>

#include "hm_fault.h"


#define HM_DETAIL_MAX   256


static hm_fault_t *hm_fault_next(hm_faults_t *f, hm_fault_code_t code);
static hm_str_t hm_fault_place(hm_mem_t *mem, hm_str_t prefix,
    const char *name);
static hm_str_t hm_fault_detail(hm_mem_t *mem, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));


static const char *const  hm_fault_names[] = {
    [HM_FAULT_REQUIRED]    = "required",
    [HM_FAULT_UNKNOWN]     = "unknown",
    [HM_FAULT_READ_ONLY]   = "read_only",
    [HM_FAULT_IMMUTABLE]   = "immutable",
    [HM_FAULT_TYPE]        = "type",
    [HM_FAULT_FORMAT]      = "format",
    [HM_FAULT_ENUM]        = "enum",
    [HM_FAULT_RANGE]       = "range",
    [HM_FAULT_INTEGER]     = "integer",
    [HM_FAULT_LENGTH]      = "length",
    [HM_FAULT_UNIT]        = "unit",
    [HM_FAULT_FUTURE]      = "future",
    [HM_FAULT_ORDER]       = "order",
    [HM_FAULT_BLOCKLISTED] = "blocklisted"
};


void
hm_faults_init(hm_faults_t *f, hm_mem_t *mem)
{
    /* the list itself is written before it is read */

    f->mem = mem;
    f->n = 0;
}


void
hm_fault_add(hm_faults_t *f, hm_str_t prefix, const char *name,
    hm_fault_code_t code, const char *detail_fmt, ...)
{
    va_list      args;
    hm_fault_t  *fault;

    fault = hm_fault_next(f, code);
    if (fault == NULL) {
        return;
    }

    fault->place = hm_fault_place(f->mem, prefix, name);

    va_start(args, detail_fmt);
    fault->detail = hm_fault_detail(f->mem, detail_fmt, args);
    va_end(args);
}


void
hm_fault_param(hm_faults_t *f, const char *name, hm_fault_code_t code,
    const char *detail_fmt, ...)
{
    size_t       len;
    va_list      args;
    hm_fault_t  *fault;

    fault = hm_fault_next(f, code);
    if (fault == NULL) {
        return;
    }

    fault->parameter = true;

    len = strlen(name);
    fault->place.data = hm_alloc(f->mem, len + 1);

    if (fault->place.data != NULL) {
        memcpy(fault->place.data, name, len + 1);
        fault->place.len = len;
    }

    va_start(args, detail_fmt);
    fault->detail = hm_fault_detail(f->mem, detail_fmt, args);
    va_end(args);
}


static hm_fault_t *
hm_fault_next(hm_faults_t *f, hm_fault_code_t code)
{
    hm_fault_t  *fault;

    if (f->n >= HM_FAULTS_MAX) {
        f->n++;
        return NULL;
    }

    fault = &f->list[f->n++];

    memset(fault, 0, sizeof(hm_fault_t));
    fault->code = code;

    return fault;
}


/* RFC 6901: ~ is ~0 and / is ~1.  name NULL: the prefix is the place. */

static hm_str_t
hm_fault_place(hm_mem_t *mem, hm_str_t prefix, const char *name)
{
    size_t          len;
    hm_str_t        place;
    const char     *c;
    unsigned char  *p;

    len = prefix.len;

    if (name != NULL) {
        len += 1 + 2 * strlen(name);
    }

    p = hm_alloc(mem, len + 1);
    if (p == NULL) {
        return hm_null_str;
    }

    place.data = p;

    if (prefix.len != 0) {
        memcpy(p, prefix.data, prefix.len);
        p += prefix.len;
    }

    if (name != NULL) {
        *p++ = '/';

        for (c = name; *c != '\0'; c++) {
            if (*c == '~' || *c == '/') {
                *p++ = '~';
                *p++ = *c == '~' ? '0' : '1';
                continue;
            }

            *p++ = (unsigned char) *c;
        }
    }

    place.len = (size_t) (p - place.data);

    return place;
}


static hm_str_t
hm_fault_detail(hm_mem_t *mem, const char *fmt, va_list args)
{
    int       n;
    char      text[HM_DETAIL_MAX];
    hm_str_t  detail;

    n = vsnprintf(text, sizeof(text), fmt, args);

    if (n <= 0) {
        return hm_null_str;
    }

    detail.len = (size_t) n < sizeof(text) ? (size_t) n : sizeof(text) - 1;

    /* a cut must not leave half a character */

    if ((size_t) n >= sizeof(text)) {
        while (detail.len > 0
               && ((unsigned char) text[detail.len] & 0xc0) == 0x80)
        {
            detail.len--;
        }
    }

    detail.data = hm_alloc(mem, detail.len + 1);
    if (detail.data == NULL) {
        return hm_null_str;
    }

    memcpy(detail.data, text, detail.len);
    detail.data[detail.len] = '\0';

    return detail;
}


const char *
hm_fault_code_name(hm_fault_code_t code)
{
    if ((size_t) code >= sizeof(hm_fault_names) / sizeof(hm_fault_names[0])) {
        return "format";
    }

    return hm_fault_names[code];
}


void
hm_faults_json(hm_buf_t *b, const hm_faults_t *f)
{
    size_t             i, n;
    const char        *name;
    const hm_fault_t  *fault;

    n = f->n < HM_FAULTS_MAX ? f->n : HM_FAULTS_MAX;

    hm_buf_lit(b, "[");

    for (i = 0; i < n; i++) {
        fault = &f->list[i];

        if (i != 0) {
            hm_buf_lit(b, ",");
        }

        if (fault->parameter) {
            hm_buf_lit(b, "{\"parameter\":");
        } else {
            hm_buf_lit(b, "{\"pointer\":");
        }

        hm_json_text(b, fault->place);

        name = hm_fault_code_name(fault->code);
        hm_buf_lit(b, ",\"code\":\"");
        hm_buf_add(b, name, strlen(name));
        hm_buf_lit(b, "\"");

        if (fault->detail.len != 0) {
            hm_buf_lit(b, ",\"detail\":");
            hm_json_text(b, fault->detail);
        }

        hm_buf_lit(b, "}");
    }

    hm_buf_lit(b, "]");
}
