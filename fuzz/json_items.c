/*
 * fuzz/json_items: cutting an array agrees with parsing it.  Whatever the
 * parser takes as an array is cut into as many items, each of which parses
 * to the same value.
 */

#include <stdlib.h>

#include "hm_json.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t           n;
    hm_rc_t          rc;
    json_t          *json, *one;
    hm_str_t         text, item, reason;
    hm_json_items_t  it;

    text.data = (unsigned char *) data;
    text.len = size;
    n = 0;

    json = hm_json_parse(text, &reason);
    rc = hm_json_items(&it, text);

    if (json != NULL && (rc == HM_OK) != json_is_array(json)) {
        abort();
    }

    while (rc == HM_OK) {
        rc = hm_json_items_next(&it, &item);

        if (rc != HM_OK) {
            break;
        }

        if (item.len == 0 || item.data < data
            || item.data + item.len > data + size)
        {
            abort();
        }

        if (json != NULL) {
            one = hm_json_parse(item, &reason);

            if (one == NULL || !json_equal(one, json_array_get(json, n))) {
                abort();
            }

            json_decref(one);
        }

        n++;
    }

    if (json_is_array(json)
        && (rc != HM_DECLINED || n != json_array_size(json)))
    {
        abort();
    }

    json_decref(json);

    return 0;
}
