/*
 * hm_text: base64url, hexadecimal, UTF-8, and the normal form of an email.
 */

#ifndef HM_TEXT_H
#define HM_TEXT_H

#include "hm.h"

/* base64url without padding (RFC 4648, 5); decode refuses padding, foreign
 * characters and non-zero unused bits (a second spelling of the same bytes). */
size_t hm_b64url_encode(char *out, const void *data, size_t len);
hm_rc_t hm_b64url_decode(unsigned char *out, size_t *outlen, hm_str_t text);
#define hm_b64url_len(n)   (((n) * 4 + 2) / 3)

void hm_hex(char *out, const void *data, size_t len);
hm_rc_t hm_unhex(unsigned char *out, hm_str_t text);   /* text.len / 2 bytes */

/* Valid UTF-8 (no surrogates, no overlong forms, <= U+10FFFF)? */
bool hm_utf8_valid(hm_str_t s);
size_t hm_utf8_count(hm_str_t s);                      /* code points */

/* Free text of a person: no U+0000 and no C0 but tab, LF, CR. */
bool hm_text_clean(hm_str_t s);

/*
 * Email: at most 254 bytes, one @, something before it and a dotted or
 * dotless name after it, no spaces or controls.  The normal form is NFC
 * (libunistring) and lower case; it is what is indexed and compared.
 */
hm_rc_t hm_email_normal(hm_mem_t *mem, hm_str_t *out, hm_str_t email);

/* NFC of a password (8..128 code points are counted after it). */
hm_rc_t hm_nfc(hm_mem_t *mem, hm_str_t *out, hm_str_t s);

#endif
