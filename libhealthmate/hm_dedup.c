/*
 * hm_dedup: see hm_dedup.h.
 *
 * The text is built on the stack: its parts are bounded by validation (type
 * 47 bytes, source 64, source_id 128 characters, unit 32), so a buffer of
 * 2 KiB is never the limit that a valid reading meets.  0x1f parts the
 * fields: no valid field but a hostile source_id could hold it, and that one
 * stands last, so no two different readings share a text.
 */

#include <stdio.h>

#include "hm_buf.h"
#include "hm_crypto.h"
#include "hm_dedup.h"


#define HM_DEDUP_MAX   2048


typedef struct {
    size_t          len;
    bool            full;
    unsigned char   data[HM_DEDUP_MAX];
} hm_dedup_text_t;


static void
hm_dedup_add(hm_dedup_text_t *t, const void *data, size_t len)
{
    if (t->full || len > sizeof(t->data) - t->len) {
        t->full = true;
        return;
    }

    if (len != 0) {
        memcpy(t->data + t->len, data, len);
        t->len += len;
    }
}


static void
hm_dedup_real(hm_dedup_text_t *t, double n)
{
    char  text[32];

    /* -0 and 0 are one value */
    hm_dedup_add(t, text, hm_real_format(n == 0 ? 0.0 : n, text));
}


hm_rc_t
hm_dedup_key(unsigned char out[32], const unsigned char *index_key,
    const hm_uuid_t *user, hm_str_t data_type, hm_usec_t timestamp,
    const hm_reading_t *value, hm_str_t unit, hm_str_t source,
    hm_str_t source_id)
{
    int              n;
    char             ms[32];
    int64_t          t;
    hm_rc_t          rc;
    hm_dedup_text_t  text;

    text.len = 0;
    text.full = false;

    if (source_id.data != NULL) {
        hm_dedup_add(&text, "s\x1f", 2);
        hm_dedup_add(&text, source.data, source.len);
        hm_dedup_add(&text, "\x1f", 1);
        hm_dedup_add(&text, source_id.data, source_id.len);

    } else {
        /* floor, so that times before 1970 are cut to the same side */
        t = timestamp / 1000 - (timestamp % 1000 < 0);
        n = snprintf(ms, sizeof(ms), "%lld", (long long) t);

        hm_dedup_add(&text, "v\x1f", 2);
        hm_dedup_add(&text, data_type.data, data_type.len);
        hm_dedup_add(&text, "\x1f", 1);
        hm_dedup_add(&text, ms, (size_t) n);
        hm_dedup_add(&text, "\x1f", 1);
        hm_dedup_real(&text, value->number);

        if (value->object) {
            hm_dedup_add(&text, "/", 1);
            hm_dedup_real(&text, value->second);
        }

        if (data_type.len > 7 && memcmp(data_type.data, "custom:", 7) == 0) {
            hm_dedup_add(&text, "\x1f", 1);
            hm_dedup_add(&text, unit.data, unit.len);
        }

        hm_dedup_add(&text, "\x1f", 1);
        hm_dedup_add(&text, source.data, source.len);
    }

    if (text.full) {
        return HM_DECLINED;
    }

    rc = hm_blind_index(out, index_key, "health_data", "dedup_key", user,
                        (hm_str_t) { text.len, text.data });
    hm_wipe(text.data, text.len);

    return rc;
}
