/*
 * fuzz/uuid_time: what is read is written, and read again as the same.
 */

#include <stdlib.h>

#include "hm_time.h"
#include "hm_uuid.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char        out[HM_UUID_TEXT];
    int32_t     days, days2;
    hm_str_t    text;
    hm_usec_t   t, t2;
    hm_uuid_t   id, id2;

    text.data = (unsigned char *) data;
    text.len = size;

    if (hm_time_parse(&t, text) == HM_OK) {
        hm_time_format(t, out);

        if (hm_time_parse(&t2, (hm_str_t) {
                HM_TIME_TEXT, (unsigned char *) out }) != HM_OK || t != t2)
        {
            abort();
        }
    }

    if (hm_date_parse(&days, text) == HM_OK) {
        hm_date_format(days, out);

        if (memcmp(out, data, 10) != 0 || hm_date_parse(&days2, (hm_str_t) {
                10, (unsigned char *) out }) != HM_OK || days != days2)
        {
            abort();
        }
    }

    if (hm_uuid_parse(&id, text) == HM_OK) {
        hm_uuid_format(&id, out);

        if (hm_uuid_parse(&id2, (hm_str_t) {
                HM_UUID_TEXT, (unsigned char *) out }) != HM_OK
            || !hm_uuid_eq(&id, &id2))
        {
            abort();
        }
    }

    if (size == sizeof(t)) {
        memcpy(&t, data, sizeof(t));
        hm_time_format(t, out);

        if (hm_time_parse(&t2, (hm_str_t) {
                HM_TIME_TEXT, (unsigned char *) out }) != HM_OK)
        {
            abort();
        }
    }

    return 0;
}
