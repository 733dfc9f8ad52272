/*
 * hm_text: base64url, hexadecimal, UTF-8, and the normal form of an email.
 *
 * DESIGN.  Decoders accept exactly one spelling of each value: padding,
 * foreign characters and set bits beyond the last byte are refused, because
 * tokens and cursors are compared and cached by their text.
 *
 * UTF-8 is checked eight bytes at a time while it is ASCII, which nearly all
 * of it is, and by the table of well-formed sequences (Unicode, table 3-7)
 * elsewhere.
 *
 * Normal forms come from libunistring.  ASCII is its own NFC, so the common
 * case never gets there.  An email is judged in its normal form, because
 * normalisation can bring forth what a check before it would have missed
 * (U+037E becomes a semicolon, U+2000 a space of another width), and its
 * length is limited before and after.
 */

#include <stdlib.h>

#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

#include "hm_text.h"


#define HM_EMAIL_MAX   254
#define HM_BAD         0xff


static unsigned hm_utf8_step(const unsigned char *p, size_t len);
static bool hm_ascii(hm_str_t s);
static bool hm_email_valid(hm_str_t s);
static bool hm_email_domain(hm_str_t s);
static bool hm_email_chars(hm_str_t s);
static hm_rc_t hm_copy(hm_mem_t *mem, hm_str_t *out, const void *data,
    size_t len);


static const char  hm_b64url[64] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";


static inline unsigned
hm_b64url_value(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }

    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26U;
    }

    if (c >= '0' && c <= '9') {
        return c - '0' + 52U;
    }

    return c == '-' ? 62 : c == '_' ? 63 : HM_BAD;
}


size_t
hm_b64url_encode(char *out, const void *data, size_t len)
{
    char                 *to;
    uint32_t              w;
    const unsigned char  *p;

    to = out;

    for (p = data; len >= 3; p += 3, len -= 3) {
        w = (uint32_t) p[0] << 16 | (uint32_t) p[1] << 8 | p[2];

        *to++ = hm_b64url[w >> 18];
        *to++ = hm_b64url[w >> 12 & 63];
        *to++ = hm_b64url[w >> 6 & 63];
        *to++ = hm_b64url[w & 63];
    }

    if (len != 0) {
        w = (uint32_t) p[0] << 16 | (len == 2 ? (uint32_t) p[1] << 8 : 0);

        *to++ = hm_b64url[w >> 18];
        *to++ = hm_b64url[w >> 12 & 63];

        if (len == 2) {
            *to++ = hm_b64url[w >> 6 & 63];
        }
    }

    return (size_t) (to - out);
}


hm_rc_t
hm_b64url_decode(unsigned char *out, size_t *outlen, hm_str_t text)
{
    size_t          i;
    unsigned        v, bits;
    uint32_t        w;
    unsigned char  *to;

    *outlen = 0;

    if (text.len % 4 == 1) {
        return HM_DECLINED;
    }

    to = out;
    w = 0;
    bits = 0;

    for (i = 0; i < text.len; i++) {
        v = hm_b64url_value(text.data[i]);

        if (v == HM_BAD) {
            return HM_DECLINED;
        }

        w = w << 6 | v;
        bits += 6;

        if (bits >= 8) {
            bits -= 8;
            *to++ = (unsigned char) (w >> bits);
            w &= (1U << bits) - 1;
        }
    }

    /* what is left over must be zero: else there is a second spelling */

    if (w != 0) {
        return HM_DECLINED;
    }

    *outlen = (size_t) (to - out);

    return HM_OK;
}


void
hm_hex(char *out, const void *data, size_t len)
{
    size_t                i;
    const unsigned char  *p;
    static const char     hex[] = "0123456789abcdef";

    p = data;

    for (i = 0; i < len; i++) {
        out[2 * i] = hex[p[i] >> 4];
        out[2 * i + 1] = hex[p[i] & 15];
    }
}


static inline unsigned
hm_hex_value(unsigned char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return c >= 'a' && c <= 'f' ? c - 'a' + 10U : HM_BAD;
}


hm_rc_t
hm_unhex(unsigned char *out, hm_str_t text)
{
    size_t    i;
    unsigned  hi, lo;

    if (text.len % 2 != 0) {
        return HM_DECLINED;
    }

    for (i = 0; i < text.len; i += 2) {
        hi = hm_hex_value(text.data[i]);
        lo = hm_hex_value(text.data[i + 1]);

        if (hi == HM_BAD || lo == HM_BAD) {
            return HM_DECLINED;
        }

        *out++ = (unsigned char) (hi << 4 | lo);
    }

    return HM_OK;
}


bool
hm_utf8_valid(hm_str_t s)
{
    size_t    i;
    unsigned  n;
    uint64_t  w;

    i = 0;

    while (i < s.len) {
        if (s.len - i >= 8) {
            memcpy(&w, s.data + i, 8);

            if ((w & 0x8080808080808080ULL) == 0) {
                i += 8;
                continue;
            }
        }

        n = hm_utf8_step(s.data + i, s.len - i);

        if (n == 0) {
            return false;
        }

        i += n;
    }

    return true;
}


/* Bytes of the well-formed sequence that begins here; 0: there is none. */

static unsigned
hm_utf8_step(const unsigned char *p, size_t len)
{
    unsigned       n, i;
    unsigned char  low, high;

    if (p[0] < 0x80) {
        return 1;
    }

    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return 0;
    }

    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (len < n) {
        return 0;
    }

    /* the second byte is where overlong forms and surrogates show */

    low = 0x80;
    high = 0xbf;

    switch (p[0]) {

    case 0xe0:
        low = 0xa0;
        break;

    case 0xed:
        high = 0x9f;
        break;

    case 0xf0:
        low = 0x90;
        break;

    case 0xf4:
        high = 0x8f;
        break;

    default:
        break;
    }

    if (p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return n;
}


size_t
hm_utf8_count(hm_str_t s)
{
    size_t  i, n;

    n = 0;

    for (i = 0; i < s.len; i++) {
        n += (s.data[i] & 0xc0) != 0x80;
    }

    return n;
}


bool
hm_text_clean(hm_str_t s)
{
    size_t         i;
    unsigned char  c;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c < 0x20 && c != '\t' && c != '\n' && c != '\r') {
            return false;
        }
    }

    return true;
}


static bool
hm_ascii(hm_str_t s)
{
    size_t  i;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] >= 0x80) {
            return false;
        }
    }

    return true;
}


static hm_rc_t
hm_copy(hm_mem_t *mem, hm_str_t *out, const void *data, size_t len)
{
    out->data = hm_alloc(mem, len + 1);
    if (out->data == NULL) {
        return HM_ERROR;
    }

    if (len != 0) {
        memcpy(out->data, data, len);
    }

    out->data[len] = '\0';
    out->len = len;

    return HM_OK;
}


hm_rc_t
hm_nfc(hm_mem_t *mem, hm_str_t *out, hm_str_t s)
{
    size_t    len;
    hm_rc_t   rc;
    uint8_t  *text;

    if (hm_ascii(s)) {
        return hm_copy(mem, out, s.data, s.len);
    }

    if (!hm_utf8_valid(s)) {
        return HM_DECLINED;
    }

    text = u8_normalize(UNINORM_NFC, s.data, s.len, NULL, &len);
    if (text == NULL) {
        return HM_ERROR;
    }

    rc = hm_copy(mem, out, text, len);

    /* it may be a password */
    explicit_bzero(text, len);
    free(text);

    return rc;
}


hm_rc_t
hm_email_normal(hm_mem_t *mem, hm_str_t *out, hm_str_t email)
{
    size_t    i, len;
    hm_rc_t   rc;
    uint8_t  *text;

    if (email.len == 0 || email.len > HM_EMAIL_MAX) {
        return HM_DECLINED;
    }

    if (hm_ascii(email)) {
        rc = hm_copy(mem, out, email.data, email.len);

        if (rc != HM_OK) {
            return rc;
        }

        for (i = 0; i < out->len; i++) {
            if (out->data[i] >= 'A' && out->data[i] <= 'Z') {
                out->data[i] |= 0x20;
            }
        }

    } else {
        if (!hm_utf8_valid(email)) {
            return HM_DECLINED;
        }

        text = u8_tolower(email.data, email.len, NULL, UNINORM_NFC, NULL,
                          &len);
        if (text == NULL) {
            return HM_ERROR;
        }

        rc = hm_copy(mem, out, text, len);
        free(text);

        if (rc != HM_OK) {
            return rc;
        }
    }

    return hm_email_valid(*out) ? HM_OK : HM_DECLINED;
}


static bool
hm_email_valid(hm_str_t s)
{
    hm_str_t        domain;
    unsigned char  *at;

    if (s.len > HM_EMAIL_MAX) {
        return false;
    }

    at = memchr(s.data, '@', s.len);
    if (at == NULL) {
        return false;
    }

    domain.data = at + 1;
    domain.len = (size_t) (s.data + s.len - domain.data);

    return at != s.data && hm_email_chars(s) && hm_email_domain(domain);
}


/*
 * Nothing that ends a line, parts a list of addresses or cannot be seen:
 * what passes here goes into the header of a letter some day.
 */

static bool
hm_email_chars(hm_str_t s)
{
    ucs4_t                 c;
    size_t                 i;
    static const char      special[] = "()<>[]\\,;:\"";

    for (i = 0; i < s.len; i += (size_t) u8_mblen(s.data + i, s.len - i)) {

        if (s.data[i] < 0x80) {
            if (s.data[i] <= 0x20 || s.data[i] == 0x7f
                || strchr(special, s.data[i]) != NULL)
            {
                return false;
            }

            continue;
        }

        if (u8_mbtouc(&c, s.data + i, s.len - i) <= 0
            || uc_is_property_white_space(c)
            || uc_is_general_category_withtable(c, UC_CATEGORY_MASK_Cc
                                                   | UC_CATEGORY_MASK_Cf
                                                   | UC_CATEGORY_MASK_Cn
                                                   | UC_CATEGORY_MASK_Co))
        {
            return false;
        }
    }

    return true;
}


/* Labels of letters, digits and inner hyphens; anything beyond ASCII. */

static bool
hm_email_domain(hm_str_t s)
{
    size_t         i, label;
    unsigned char  c;

    label = 0;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c == '.') {
            if (label == 0 || s.data[i - 1] == '-') {
                return false;
            }

            label = 0;
            continue;
        }

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80
              || (c == '-' && label != 0)))
        {
            return false;
        }

        label++;
    }

    return label != 0 && s.data[s.len - 1] != '-';
}
