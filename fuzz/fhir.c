/*
 * Fuzzer of the FHIR import: whatever the bytes, the scanner ends, hands out
 * slices of the text only, and what it takes is a line that the server's own
 * JSON reader accepts.
 */

#include <stdlib.h>

#include "../cli/arena.c"
#include "../cli/fhir.c"


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void
one_resource(hmc_arena_t *arena, const hmc_entry_t *entry)
{
    json_t             *resource, *line;
    hm_buf_t            b;
    hm_str_t            reason;
    hmc_observation_t   o;

    resource = hm_json_parse(entry->resource, &reason);

    if (resource == NULL) {
        return;
    }

    if (hmc_observation_read(&arena->mem, resource, entry->url, &o) == HM_OK
        && o.verdict == HMC_TAKE)
    {
        hm_buf_init(&b, &arena->mem, 256);
        hmc_observation_line(&b, &o);

        line = hm_json_parse((hm_str_t) { hm_buf_len(&b), b.start }, &reason);

        if (line == NULL) {
            abort();
        }

        json_decref(line);
    }

    json_decref(resource);
}


int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    hmc_entry_t   entry;
    hmc_arena_t   arena;
    hmc_bundle_t  b;

    hmc_arena_init(&arena);
    hmc_bundle_init(&b, (hm_str_t) { size, (unsigned char *) data });

    while (hmc_bundle_next(&b, &entry) == HM_OK) {

        if (entry.resource.data != NULL
            && (entry.resource.data < data
                || entry.resource.data + entry.resource.len > data + size))
        {
            abort();
        }

        one_resource(&arena, &entry);
        hmc_arena_reset(&arena);
    }

    hmc_arena_reset(&arena);
    free(arena.chunks);

    return 0;
}
