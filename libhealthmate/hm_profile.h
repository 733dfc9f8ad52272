/*
 * hm_profile: the health profile, one sealed document for each person.  Its
 * members, their types and limits are one table (hm_profile.c).
 */

#ifndef HM_PROFILE_H
#define HM_PROFILE_H

#include <jansson.h>
#include "hm.h"
#include "hm_buf.h"
#include "hm_fault.h"

/*
 * Judges a document, or a merge patch of one; every fault is added.  HM_OK:
 * there was none.
 */
hm_rc_t hm_profile_check(json_t *doc, hm_faults_t *f);

/* `"height_cm":180,"weight_kg":null,...`: every member, null where empty. */
void hm_profile_json(hm_buf_t *b, json_t *doc);

/* `{"height_cm":180}`: what is stored, only what there is. */
void hm_profile_store(hm_buf_t *b, json_t *doc);

#endif
