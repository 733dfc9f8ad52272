/*
 * hm_password: Argon2id by libargon2, m = 19 MiB, t = 2, p = 1 (OWASP), as
 * the PHC string, so that parameters are stored with each hash and weaker
 * ones are noticed.  Takes tens of milliseconds: never on an event loop.
 */

#ifndef HM_PASSWORD_H
#define HM_PASSWORD_H

#include "hm.h"

#define HM_PASSWORD_HASH_MAX   128

/*
 * More bytes than 128 code points come from before NFC (a Hangul syllable is
 * nine): the size of every buffer for one, and longer texts are no password.
 */
#define HM_PASSWORD_BYTES      1536

hm_rc_t hm_password_hash(char out[HM_PASSWORD_HASH_MAX], hm_str_t password);

/* HM_OK, HM_DECLINED (wrong), HM_ERROR.  hash is a NUL-terminated PHC string.
 * A NULL hash verifies against a dummy of equal cost and is HM_DECLINED. */
hm_rc_t hm_password_verify(const char *hash, hm_str_t password);
bool hm_password_weak(const char *hash);     /* parameters below today's */

/*
 * 8..128 code points after NFC, and not on the list of common passwords
 * (own list of the most used ones, and the local part of the email).  Adds
 * faults at /password.
 */
#include "hm_fault.h"
void hm_password_check(hm_faults_t *f, hm_str_t password, hm_str_t email);

#endif
