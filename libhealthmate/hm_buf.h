/*
 * hm_buf: an output buffer that grows, and the JSON writer on top of it.
 *
 * A failed allocation sets `failed` and makes all later calls do nothing, so
 * a caller checks once, at the end.  The writer does not track nesting: the
 * code that calls it is the shape of the document.  Texts are escaped as
 * RFC 8259 asks and nothing more; numbers are written in the shortest form
 * that reads back as the same double (70.0 is written as 70).
 */

#ifndef HM_BUF_H
#define HM_BUF_H

#include "hm.h"


typedef struct {
    unsigned char  *start;
    unsigned char  *pos;         /* next byte to write */
    unsigned char  *end;
    hm_mem_t       *mem;
    bool            failed;
} hm_buf_t;


void hm_buf_init(hm_buf_t *b, hm_mem_t *mem, size_t capacity);
bool hm_buf_grow(hm_buf_t *b, size_t more);
void hm_buf_printf(hm_buf_t *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define hm_buf_lit(b, s)   hm_buf_add((b), (s), sizeof(s) - 1)
#define hm_buf_len(b)      ((size_t) ((b)->pos - (b)->start))


/* Inline: an answer is thousands of these, and a literal's copy is a store. */
static inline bool
hm_buf_reserve(hm_buf_t *b, size_t more)
{
    return (!b->failed && b->start != NULL
            && (size_t) (b->end - b->pos) >= more)
           || hm_buf_grow(b, more);
}


static inline void
hm_buf_add(hm_buf_t *b, const void *data, size_t len)
{
    if (len != 0 && hm_buf_reserve(b, len)) {
        memcpy(b->pos, data, len);
        b->pos += len;
    }
}


static inline void
hm_buf_str(hm_buf_t *b, hm_str_t s)
{
    hm_buf_add(b, s.data, s.len);
}


void hm_json_text(hm_buf_t *b, hm_str_t s);          /* "quoted", escaped */
void hm_json_text_or_null(hm_buf_t *b, hm_str_t s);  /* data NULL: null */
void hm_json_int(hm_buf_t *b, int64_t n);
void hm_json_real(hm_buf_t *b, double n);            /* not finite: null */
void hm_json_uuid(hm_buf_t *b, const hm_uuid_t *id); /* quoted */
void hm_json_time(hm_buf_t *b, hm_usec_t t);  /* quoted ms, UTC; NONE: null */

/* Shortest form of a double without quotes; returns its length (<= 25). */
size_t hm_real_format(double n, char out[32]);

#endif
