/*
 * hm_totp: one-time codes (RFC 6238) and recovery codes.
 *
 * A code is 6 digits of HMAC-SHA-1 over the count of 30 second steps, which
 * is what authenticator apps do; liboath computes it.  Accepted are the step
 * of now and its two neighbours, and of these only what is later than the
 * step last accepted: the caller keeps that step and moves it in one
 * statement, so that a code opens one door once.
 *
 * A recovery code is 80 random bits, written as 16 characters of Crockford's
 * base 32 in four groups.  It is stored as a keyed hash of its normal form.
 */

#ifndef HM_TOTP_H
#define HM_TOTP_H

#include "hm.h"
#include "hm_buf.h"

#define HM_TOTP_SECRET      20           /* bytes; RFC 4226 asks for 16 */
#define HM_TOTP_TEXT        32           /* of it in base 32 */
#define HM_TOTP_DIGITS      6
#define HM_TOTP_STEP        30           /* seconds */

#define HM_RECOVERY_CODES   10
#define HM_RECOVERY_TEXT    19           /* xxxx-xxxx-xxxx-xxxx */
#define HM_RECOVERY_NORMAL  16


/*
 * HM_OK: *step is the step of the code, later than `last`.  HM_DECLINED: no
 * code, a wrong one, or one of a step that is over.
 */
hm_rc_t hm_totp_check(const unsigned char secret[HM_TOTP_SECRET],
    int64_t now, int64_t last, hm_str_t otp, int64_t *step);

/* Base 32 (RFC 4648) of a secret, as people type it. */
void hm_totp_text(char out[HM_TOTP_TEXT],
    const unsigned char secret[HM_TOTP_SECRET]);
hm_rc_t hm_totp_secret(unsigned char secret[HM_TOTP_SECRET], hm_str_t text);

/* otpauth://totp/issuer:account?secret=... */
void hm_totp_uri(hm_buf_t *b, hm_str_t issuer, hm_str_t account,
    const unsigned char secret[HM_TOTP_SECRET]);

/*
 * Any text as a QR code in SVG, one path and no style: milliseconds, so not
 * in an event loop.  The buffer must have room for HM_QR_SVG_MAX.
 */
#define HM_QR_TEXT_MAX   1024
#define HM_QR_SVG_MAX    65536

hm_rc_t hm_qr_svg(hm_buf_t *b, const char *text);

/* A new recovery code, and the normal form of one that was typed. */
hm_rc_t hm_recovery_code(char out[HM_RECOVERY_TEXT]);
hm_rc_t hm_recovery_normal(char out[HM_RECOVERY_NORMAL], hm_str_t typed);

#endif
