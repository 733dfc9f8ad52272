/*
 * hm: the two objects every other file may name.
 *
 * hm_heap is malloc behind the hm_mem_t interface.  Nothing allocated through
 * hm_mem_t is ever freed piece by piece, so hm_heap is for tables that are
 * built once at start and for tests; a request or a job brings an arena of
 * its own, and gives that back whole.
 *
 * The nil UUID stands for "the system" where an owner is asked for, and for
 * "nobody" where an audit column is NULL.  malloc of glibc aligns to 16
 * bytes on every machine we build for, which is what hm_mem_t promises.
 */

#include <stdlib.h>

#include "hm.h"


static void *hm_heap_alloc(void *ctx, size_t size);


hm_mem_t         hm_heap = { hm_heap_alloc, NULL };
const hm_uuid_t  hm_nil_uuid;


static void *
hm_heap_alloc(void *ctx, size_t size)
{
    /* malloc(0) may be NULL, which would read as "no memory" */
    return malloc(size == 0 ? 1 : size);
}
