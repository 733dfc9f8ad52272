/*
 * hm_totp: see the header.
 *
 * liboath has a validator of its own.  It stops at the first code that fits
 * and compares with strcmp(); here all three codes are made and compared in
 * constant time, and the step is known without counting back.
 *
 * The QR code is drawn as one path of horizontal strokes in a viewBox of a
 * module each, dark on an own white field with the quiet zone of four
 * modules that scanners need, so that it reads on a dark page too.  There is
 * no style attribute and no script: a strict content policy lets it through.
 */

#include <stdio.h>
#include <time.h>

#include <qrencode.h>
#include <liboath/oath.h>

#include "hm_crypto.h"
#include "hm_totp.h"


#define HM_QR_QUIET   4


static const char  hm_base32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
static const char  hm_crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";


static void hm_totp_escape(hm_buf_t *b, hm_str_t s);
static void hm_base32_encode(char *out, const unsigned char *in, size_t len,
    const char *alphabet);


hm_rc_t
hm_totp_check(const unsigned char secret[HM_TOTP_SECRET], int64_t now,
    int64_t last, hm_str_t otp, int64_t *step)
{
    int      i;
    size_t   n;
    char     code[HM_TOTP_DIGITS + 1];
    int64_t  at, found;

    if (otp.len != HM_TOTP_DIGITS) {
        return HM_DECLINED;
    }

    for (n = 0; n < otp.len; n++) {
        if (otp.data[n] < '0' || otp.data[n] > '9') {
            return HM_DECLINED;
        }
    }

    found = -1;

    for (i = -1; i <= 1; i++) {
        at = now / HM_TOTP_STEP + i;

        if (at < 0
            || oath_totp_generate((const char *) secret, HM_TOTP_SECRET,
                                  (time_t) (at * HM_TOTP_STEP),
                                  HM_TOTP_STEP, 0, HM_TOTP_DIGITS, code)
               != OATH_OK)
        {
            return HM_ERROR;
        }

        if (hm_equal_ct(code, otp.data, HM_TOTP_DIGITS) && at > last) {
            found = at;
        }
    }

    hm_wipe(code, sizeof(code));

    if (found < 0) {
        return HM_DECLINED;
    }

    *step = found;

    return HM_OK;
}


/* 5 bytes become 8 characters; len is a multiple of 5. */
static void
hm_base32_encode(char *out, const unsigned char *in, size_t len,
    const char *alphabet)
{
    int       n;
    size_t    i, k;
    uint64_t  bits;

    for (i = 0; i < len; i += 5) {
        bits = 0;

        for (k = 0; k < 5; k++) {
            bits = bits << 8 | in[i + k];
        }

        for (n = 35; n >= 0; n -= 5) {
            *out++ = alphabet[bits >> n & 31];
        }
    }
}


void
hm_totp_text(char out[HM_TOTP_TEXT],
    const unsigned char secret[HM_TOTP_SECRET])
{
    hm_base32_encode(out, secret, HM_TOTP_SECRET, hm_base32);
}


hm_rc_t
hm_totp_secret(unsigned char secret[HM_TOTP_SECRET], hm_str_t text)
{
    size_t       i, n;
    uint64_t     bits;
    const char  *p;

    if (text.len != HM_TOTP_TEXT) {
        return HM_DECLINED;
    }

    bits = 0;
    n = 0;

    for (i = 0; i < text.len; i++) {
        p = text.data[i] != '\0' ? strchr(hm_base32, text.data[i]) : NULL;

        if (p == NULL) {
            return HM_DECLINED;
        }

        bits = bits << 5 | (uint64_t) (p - hm_base32);

        if (i % 8 == 7) {
            secret[n++] = (unsigned char) (bits >> 32);
            secret[n++] = (unsigned char) (bits >> 24);
            secret[n++] = (unsigned char) (bits >> 16);
            secret[n++] = (unsigned char) (bits >> 8);
            secret[n++] = (unsigned char) bits;
            bits = 0;
        }
    }

    return HM_OK;
}


static void
hm_totp_escape(hm_buf_t *b, hm_str_t s)
{
    size_t         i;
    unsigned char  c;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'
            || c == '~')
        {
            hm_buf_add(b, &c, 1);

        } else {
            hm_buf_printf(b, "%%%02X", c);
        }
    }
}


void
hm_totp_uri(hm_buf_t *b, hm_str_t issuer, hm_str_t account,
    const unsigned char secret[HM_TOTP_SECRET])
{
    char  text[HM_TOTP_TEXT];

    hm_totp_text(text, secret);

    hm_buf_lit(b, "otpauth://totp/");
    hm_totp_escape(b, issuer);
    hm_buf_lit(b, ":");
    hm_totp_escape(b, account);
    hm_buf_lit(b, "?secret=");
    hm_buf_add(b, text, sizeof(text));
    hm_buf_lit(b, "&issuer=");
    hm_totp_escape(b, issuer);
    hm_buf_printf(b, "&algorithm=SHA1&digits=%d&period=%d", HM_TOTP_DIGITS,
                  HM_TOTP_STEP);

    hm_wipe(text, sizeof(text));
}


hm_rc_t
hm_qr_svg(hm_buf_t *b, const char *text)
{
    int      x, y, from, at, side;
    QRcode  *qr;

    if (strlen(text) > HM_QR_TEXT_MAX) {
        return HM_DECLINED;
    }

    qr = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_M);
    if (qr == NULL) {
        return HM_ERROR;
    }

    side = qr->width + 2 * HM_QR_QUIET;

    hm_buf_printf(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" "
                  "viewBox=\"0 0 %d %d\" shape-rendering=\"crispEdges\">"
                  "<path fill=\"#fff\" d=\"M0 0h%dv%dH0z\"/>"
                  "<path stroke=\"#000\" d=\"", side, side, side, side);

    for (y = 0; y < qr->width; y++) {
        at = -1;                         /* where the pen is in this row */

        for (x = 0; x < qr->width; x++) {
            if (!(qr->data[y * qr->width + x] & 1)) {
                continue;
            }

            from = x;

            while (x < qr->width && (qr->data[y * qr->width + x] & 1)) {
                x++;
            }

            if (at < 0) {
                hm_buf_printf(b, "M%d %d.5h%d", from + HM_QR_QUIET,
                              y + HM_QR_QUIET, x - from);
            } else {
                hm_buf_printf(b, "m%d 0h%d", from - at, x - from);
            }

            at = x;
        }
    }

    hm_buf_lit(b, "\"/></svg>");

    hm_wipe(qr->data, (size_t) qr->width * (size_t) qr->width);
    QRcode_free(qr);

    return b->failed ? HM_ERROR : HM_OK;
}


hm_rc_t
hm_recovery_code(char out[HM_RECOVERY_TEXT])
{
    int            i;
    char           text[HM_RECOVERY_NORMAL];
    unsigned char  raw[10];

    if (hm_random(raw, sizeof(raw)) != HM_OK) {
        return HM_ERROR;
    }

    hm_base32_encode(text, raw, sizeof(raw), hm_crockford);

    for (i = 0; i < 4; i++) {
        memcpy(out + i * 5, text + i * 4, 4);

        if (i < 3) {
            out[i * 5 + 4] = '-';
        }
    }

    hm_wipe(raw, sizeof(raw));
    hm_wipe(text, sizeof(text));

    return HM_OK;
}


/* Case, hyphens and spaces do not count; O is 0, I and L are 1. */
hm_rc_t
hm_recovery_normal(char out[HM_RECOVERY_NORMAL], hm_str_t typed)
{
    size_t         i, n;
    unsigned char  c;

    n = 0;

    for (i = 0; i < typed.len; i++) {
        c = typed.data[i];

        if (c == '-' || c == ' ') {
            continue;
        }

        if (c >= 'a' && c <= 'z') {
            c = (unsigned char) (c - 'a' + 'A');
        }

        c = c == 'O' ? '0' : c == 'I' || c == 'L' ? '1' : c;

        if (c == '\0' || strchr(hm_crockford, c) == NULL
            || n == HM_RECOVERY_NORMAL)
        {
            return HM_DECLINED;
        }

        out[n++] = (char) c;
    }

    return n == HM_RECOVERY_NORMAL ? HM_OK : HM_DECLINED;
}
