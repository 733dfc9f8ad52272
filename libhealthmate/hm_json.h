/*
 * hm_json: strict reading of JSON, on jansson.
 *
 * Refused as malformed: bad UTF-8, duplicate keys, depth > 16, trailing
 * bytes, NUL, lone surrogates, numbers no double can hold.  The reason is a
 * short sentence that never repeats the input.  The value returned belongs
 * to the caller (json_decref).
 */

#ifndef HM_JSON_H
#define HM_JSON_H

#include <jansson.h>
#include "hm.h"

#define HM_JSON_DEPTH   16

json_t *hm_json_parse(hm_str_t text, hm_str_t *reason);

/*
 * Items of a JSON array, one at a time, without parsing the whole: feed the
 * full text once, then call next until it returns HM_DECLINED (end, array
 * well closed) or HM_ERROR (the array itself is malformed).  An item is the
 * raw text between the commas; it is not validated here.
 */
typedef struct {
    unsigned char  *pos;
    unsigned char  *end;
    unsigned        state;
} hm_json_items_t;

/* HM_DECLINED: the text is JSON of another kind than an array. */
hm_rc_t hm_json_items(hm_json_items_t *it, hm_str_t text);
hm_rc_t hm_json_items_next(hm_json_items_t *it, hm_str_t *item);

#endif
