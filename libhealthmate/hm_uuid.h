/*
 * hm_uuid: UUIDv7 (RFC 9562) and its text form.
 */

#ifndef HM_UUID_H
#define HM_UUID_H

#include "hm.h"

#define HM_UUID_TEXT   36

/* Monotonic within a process; now in microseconds.  HM_ERROR: no random. */
hm_rc_t hm_uuid7(hm_uuid_t *id, hm_usec_t now);

/* Accepts 36 characters with hyphens, either case; else HM_DECLINED. */
hm_rc_t hm_uuid_parse(hm_uuid_t *id, hm_str_t text);
void hm_uuid_format(const hm_uuid_t *id, char out[HM_UUID_TEXT]);

#endif
