/*
 * arena: memory of one part of an import, thrown away as a whole.
 *
 * Chunks of 256 KiB, a larger request gets a chunk of its own.  Reset keeps
 * the newest ordinary chunk, so that a long import does not go back to
 * malloc for each part.
 */

#include <stdlib.h>

#include "cli.h"


#define HMC_CHUNK   (256 * 1024)


struct hmc_chunk_s {
    hmc_chunk_t    *next;
    size_t          size;
    size_t          used;
    size_t          unused;              /* keeps data 16-byte aligned */
    unsigned char   data[];
};


static void *
hmc_arena_alloc(void *ctx, size_t size)
{
    size_t        room;
    void         *p;
    hmc_arena_t  *arena;
    hmc_chunk_t  *chunk;

    arena = ctx;
    chunk = arena->chunks;

    if (size > SIZE_MAX - HMC_CHUNK) {
        return NULL;
    }

    size = (size + 15) & ~(size_t) 15;

    if (chunk == NULL || size > chunk->size - chunk->used) {
        room = size > HMC_CHUNK ? size : HMC_CHUNK;

        chunk = malloc(sizeof(hmc_chunk_t) + room);
        if (chunk == NULL) {
            return NULL;
        }

        chunk->size = room;
        chunk->used = 0;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }

    p = chunk->data + chunk->used;
    chunk->used += size;

    return p;
}


void
hmc_arena_init(hmc_arena_t *arena)
{
    arena->mem.alloc = hmc_arena_alloc;
    arena->mem.ctx = arena;
    arena->chunks = NULL;
}


void
hmc_arena_reset(hmc_arena_t *arena)
{
    hmc_chunk_t  *chunk, *next, *keep;

    keep = NULL;

    for (chunk = arena->chunks; chunk != NULL; chunk = next) {
        next = chunk->next;

        if (keep == NULL && chunk->size == HMC_CHUNK) {
            keep = chunk;

        } else {
            free(chunk);
        }
    }

    arena->chunks = keep;

    if (keep != NULL) {
        keep->next = NULL;
        keep->used = 0;
    }
}
