/*
 * fuzz/json: whatever hm_json_parse takes must survive being written again,
 * and a reason must be one of our short sentences.
 */

#include <stdlib.h>

#include "hm_json.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char      *text;
    json_t    *json, *again;
    hm_str_t   reason;

    json = hm_json_parse((hm_str_t) { size, (unsigned char *) data }, &reason);

    if (json == NULL) {
        if (reason.len == 0 || reason.len > 80) {
            abort();
        }

        return 0;
    }

    text = json_dumps(json, JSON_ENCODE_ANY);
    if (text == NULL) {
        abort();
    }

    again = hm_json_parse((hm_str_t) { strlen(text), (unsigned char *) text },
                          &reason);

    if (again == NULL || !json_equal(json, again)) {
        abort();
    }

    json_decref(again);
    json_decref(json);
    free(text);

    return 0;
}
