/*
 * hm_dedup: when two readings of one person are the same reading.
 *
 * Equal in source and source_id, whatever else they say; where source_id is
 * absent, equal in data_type, timestamp, canonical value and source (api.md,
 * Health data).  What is compared is a text of those parts, and what is
 * stored is its blind index under the person's own index key, so that the
 * column tells nobody what was measured:
 *
 *     s | 1f | source | 1f | source_id
 *     v | 1f | data_type | 1f | ms | 1f | value [| 1f | unit] | 1f | source
 *
 * The value is written in its shortest form; blood pressure as "sys/dia".
 * The unit takes part for custom metrics only: the others are canonical by
 * the time they come here.
 *
 * The module (one record, batch) and the CLI (demo data) must give the same
 * 32 bytes for the same reading; that is why this is a file of its own.
 */

#ifndef HM_DEDUP_H
#define HM_DEDUP_H

#include "hm.h"
#include "hm_metric.h"

/*
 * data_type is the full name, "custom:slug" included.  source_id with data
 * NULL: there is none (then value and timestamp count).  unit is read for
 * custom metrics only.  HM_DECLINED: longer than any valid reading can be.
 */
hm_rc_t hm_dedup_key(unsigned char out[32], const unsigned char *index_key,
    const hm_uuid_t *user, hm_str_t data_type, hm_usec_t timestamp,
    const hm_reading_t *value, hm_str_t unit, hm_str_t source,
    hm_str_t source_id);

#endif
