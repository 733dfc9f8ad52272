/*
 * fuzz/otp: what a person types for a code.  A recovery code's normal form
 * is its own normal form; a secret read from text is written as that text;
 * a one-time code is six digits and never of a step that is over.
 */

#include <stdlib.h>

#include "hm_totp.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char           normal[HM_RECOVERY_NORMAL], again[HM_RECOVERY_NORMAL];
    char           text[HM_TOTP_TEXT];
    int64_t        step;
    hm_str_t       in;
    unsigned char  secret[HM_TOTP_SECRET];

    in.data = (unsigned char *) data;
    in.len = size;

    if (hm_recovery_normal(normal, in) == HM_OK
        && (hm_recovery_normal(again, (hm_str_t) { sizeof(normal),
                               (unsigned char *) normal }) != HM_OK
            || memcmp(normal, again, sizeof(normal)) != 0))
    {
        abort();
    }

    if (hm_totp_secret(secret, in) == HM_OK) {
        hm_totp_text(text, secret);

        if (memcmp(text, data, sizeof(text)) != 0) {
            abort();
        }
    }

    if (hm_totp_check((const unsigned char *) "12345678901234567890",
                      1234567890, 41152263, in, &step) == HM_OK
        && (size != HM_TOTP_DIGITS || step != 41152264))
    {
        abort();
    }

    return 0;
}
