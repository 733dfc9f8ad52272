/*
 * fuzz/envelope: bytes that nobody sealed do not open, and leave nothing.
 * The input also serves as a text: sealed, it opens as what it was.
 */

#include <stdlib.h>

#include "hm_crypto.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t                      len, text;
    hm_str_t                    json, in;
    unsigned char              *env, *out;
    static const hm_place_t     place = { "t", "c", { { 1 } }, { { 2 } } };
    static const unsigned char  key[HM_KEY_LEN] = { 3 };

    in.data = (unsigned char *) data;
    in.len = size;

    env = malloc(hm_sealed_len(size));
    out = malloc(hm_sealed_len(size));

    if (env == NULL || out == NULL) {
        abort();
    }

    if (hm_open(out, &json, key, hm_envelope_version(in), &place, in)
        == HM_OK || json.data != NULL
        || hm_unwrap(out, key, "dek", 1, &place.owner, in) == HM_OK)
    {
        abort();
    }

    if (size != 0) {
        if (hm_seal(env, &len, key, 1, &place, in) != HM_OK
            || hm_open(out, &json, key, 1, &place, (hm_str_t) { len, env })
               != HM_OK)
        {
            abort();
        }

        for (text = size; text > 0 && data[text - 1] == ' '; text--) {
            /* void */
        }

        if (json.len != text || memcmp(json.data, data, text) != 0) {
            abort();
        }
    }

    free(env);
    free(out);

    return 0;
}
