/*
 * fuzz/b64: a text that decodes is the only text of its bytes.
 */

#include <stdlib.h>

#include "hm_text.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char           *text;
    size_t          len;
    hm_str_t        in;
    unsigned char  *out;

    in.data = (unsigned char *) data;
    in.len = size;

    out = malloc(size + 1);
    text = malloc(size + 8);

    if (out == NULL || text == NULL) {
        abort();
    }

    if (hm_b64url_decode(out, &len, in) == HM_OK
        && (hm_b64url_encode(text, out, len) != size
            || memcmp(text, data, size) != 0))
    {
        abort();
    }

    if (hm_unhex(out, in) == HM_OK) {
        hm_hex(text, out, size / 2);
    }

    free(out);
    free(text);

    return 0;
}
