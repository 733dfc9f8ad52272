/*
 * libhealthmate: base types.
 *
 * Everything in this library is plain C that knows neither nginx nor hiredis
 * nor curl.  Strings carry their length and are not NUL-terminated
 * (hm_str_t has the layout of nginx's ngx_str_t, so the two may be cast).
 * Memory comes from the caller through hm_mem_t: the module plugs in the
 * arena of a request, the worker the arena of a job; nothing here is freed
 * piece by piece.  hm_mem_t.alloc returns NULL when there is no memory, and
 * every function here passes that on as HM_ERROR (or NULL).
 */

#ifndef HM_H
#define HM_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <string.h>


typedef struct {
    size_t          len;
    unsigned char  *data;
} hm_str_t;

#define hm_str(s)       { sizeof(s) - 1, (unsigned char *) (s) }
#define HM_STR(s)       ((hm_str_t) hm_str(s))
#define hm_null_str     ((hm_str_t) { 0, NULL })


typedef enum {
    HM_OK       = 0,
    HM_ERROR    = -1,    /* out of memory, a library failed */
    HM_DECLINED = -5,    /* not found, not valid: no fault of the machine */
    HM_AGAIN    = -2
} hm_rc_t;


typedef struct {
    void  *(*alloc)(void *ctx, size_t size);     /* 16-byte aligned */
    void   *ctx;
} hm_mem_t;

#define hm_alloc(mem, size)   ((mem)->alloc((mem)->ctx, (size)))

/* malloc, never freed: for tables built once at start and for tests. */
extern hm_mem_t  hm_heap;


typedef struct {
    unsigned char   b[16];
} hm_uuid_t;

extern const hm_uuid_t  hm_nil_uuid;     /* also: the system as an owner */

/* Times are microseconds since 1970-01-01T00:00:00Z. */
typedef int64_t  hm_usec_t;

#define HM_USEC_NONE   INT64_MIN


static inline bool
hm_str_eq(hm_str_t a, hm_str_t b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}


static inline bool
hm_uuid_eq(const hm_uuid_t *a, const hm_uuid_t *b)
{
    return memcmp(a->b, b->b, 16) == 0;
}

#endif
