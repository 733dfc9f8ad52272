/*
 * fuzz/email: the normal form of an email is its own normal form: else one
 * person could register twice.
 */

#include <stdlib.h>

#include "hm_text.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void *
arena_alloc(void *ctx, size_t size)
{
    static size_t         used;
    static unsigned char  room[65536] __attribute__((aligned(16)));

    size = (size + 15) & ~(size_t) 15;

    if (used + size > sizeof(room)) {
        used = 0;
    }

    used += size;

    return room + used - size;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hm_rc_t    rc;
    hm_mem_t   mem = { arena_alloc, NULL };
    hm_str_t   in, out, again;

    in.data = (unsigned char *) data;
    in.len = size;

    if (size > 512) {
        return 0;
    }

    rc = hm_email_normal(&mem, &out, in);

    if (rc == HM_ERROR) {
        abort();
    }

    if (rc == HM_OK
        && (!hm_utf8_valid(out)
            || hm_email_normal(&mem, &again, out) != HM_OK
            || !hm_str_eq(out, again)))
    {
        abort();
    }

    return 0;
}
