/*
 * hm_password: Argon2id hashes, and which passwords are refused.
 *
 * DESIGN
 *
 * A password is hashed as the UTF-8 of its NFC form, because two keyboards
 * may send the same "é" as different bytes.  ASCII, the usual case, is its
 * own normal form and costs nothing; anything else is normalised into memory
 * of its own that is wiped and freed here, since a request's arena keeps its
 * bytes until it is reused.
 *
 * The cost is OWASP's m = 19 MiB, t = 2, p = 1, some tens of milliseconds:
 * the callers are nginx thread pools and the worker, never an event loop.
 * The parameters stand in each hash; hm_password_weak() tells at a login
 * that a hash should be made anew.
 *
 * An account that does not exist must cost what an existing one costs, so a
 * NULL hash (and a password no account can have) is verified against the
 * hash of a random password that nobody has kept.
 *
 * What is refused is what an attacker tries first: the common passwords of
 * hm_blocklist.c and whatever holds the name of the mailbox.  There are no
 * rules of composition.
 */

#include <argon2.h>
#include <stdio.h>
#include <stdlib.h>
#include <unicase.h>
#include <uninorm.h>
#include "hm_password.h"
#include "hm_crypto.h"
#include "hm_text.h"


#define HM_ARGON_M      19456            /* KiB */
#define HM_ARGON_T      2
#define HM_ARGON_P      1
#define HM_ARGON_SALT   16
#define HM_ARGON_TAG    32

#define HM_PASSWORD_MIN     8            /* code points after NFC */
#define HM_PASSWORD_MAX     128

#define HM_LOCAL_PART_MIN   4            /* "al" is in too many words */


typedef struct {
    hm_str_t   text;
    uint8_t   *owned;                    /* NULL: text is the caller's */
} hm_secret_t;


static hm_rc_t hm_password_nfc(hm_secret_t *s, hm_str_t password);
static hm_rc_t hm_password_fold(hm_secret_t *s, hm_str_t text);
static hm_rc_t hm_password_take(hm_secret_t *s, uint8_t *p, size_t len);
static void hm_password_forget(hm_secret_t *s);
static bool hm_password_common(hm_str_t folded);
static bool hm_password_has_local_part(hm_str_t folded, hm_str_t email);


extern const char *const  hm_blocklist[];
extern const size_t       hm_nblocklist;


static const char  hm_password_dummy[] =
    "$argon2id$v=19$m=19456,t=2,p=1$uCRIeKBGpJghasF4Mx16iw$"
    "S8dBaO2njrzrqKUdNntEp3bmT0MyoPtLX7GFKkIODMs";


hm_rc_t
hm_password_hash(char out[HM_PASSWORD_HASH_MAX], hm_str_t password)
{
    int            rc;
    hm_rc_t        nfc;
    hm_secret_t    s;
    unsigned char  salt[HM_ARGON_SALT];

    nfc = hm_password_nfc(&s, password);
    if (nfc != HM_OK) {
        return nfc;
    }

    /* whoever forgot to check what he took must not open a door with it */

    if (s.text.len == 0) {
        hm_password_forget(&s);
        return HM_DECLINED;
    }

    rc = ARGON2_MEMORY_ALLOCATION_ERROR;

    if (hm_random(salt, sizeof(salt)) == HM_OK) {
        rc = argon2id_hash_encoded(HM_ARGON_T, HM_ARGON_M, HM_ARGON_P,
                                   s.text.data, s.text.len, salt,
                                   sizeof(salt), HM_ARGON_TAG, out,
                                   HM_PASSWORD_HASH_MAX);
    }

    hm_password_forget(&s);

    return rc == ARGON2_OK ? HM_OK : HM_ERROR;
}


hm_rc_t
hm_password_verify(const char *hash, hm_str_t password)
{
    int          rc;
    bool         dummy;
    hm_rc_t      nfc;
    hm_secret_t  s;

    nfc = hm_password_nfc(&s, password);
    if (nfc == HM_ERROR) {
        return HM_ERROR;
    }

    dummy = hash == NULL || nfc == HM_DECLINED;

    rc = argon2id_verify(dummy ? hm_password_dummy : hash, s.text.data,
                         s.text.len);

    hm_password_forget(&s);

    if (rc == ARGON2_OK && !dummy) {
        return HM_OK;
    }

    return rc == ARGON2_OK || rc == ARGON2_VERIFY_MISMATCH ? HM_DECLINED
                                                           : HM_ERROR;
}


bool
hm_password_weak(const char *hash)
{
    unsigned  v, m, t, p;

    if (sscanf(hash, "$argon2id$v=%u$m=%u,t=%u,p=%u$", &v, &m, &t, &p)
        != 4)
    {
        return true;
    }

    return v < ARGON2_VERSION_13 || m < HM_ARGON_M || t < HM_ARGON_T
           || p < HM_ARGON_P;
}


void
hm_password_check(hm_faults_t *f, hm_str_t password, hm_str_t email)
{
    size_t       n;
    hm_rc_t      rc;
    hm_secret_t  nfc, folded;

    rc = hm_password_nfc(&nfc, password);

    n = rc == HM_OK ? hm_utf8_count(nfc.text) : 0;

    if (n < HM_PASSWORD_MIN || n > HM_PASSWORD_MAX) {
        hm_password_forget(&nfc);
        hm_fault_add(f, hm_null_str, "password", HM_FAULT_LENGTH,
                     "%d..%d characters", HM_PASSWORD_MIN, HM_PASSWORD_MAX);
        return;
    }

    /* What cannot be folded (no memory) is refused, not let through. */

    if (hm_password_fold(&folded, nfc.text) != HM_OK
        || hm_password_common(folded.text)
        || hm_password_has_local_part(folded.text, email))
    {
        hm_fault_add(f, hm_null_str, "password", HM_FAULT_BLOCKLISTED,
                     "too easy to guess");
    }

    hm_password_forget(&folded);
    hm_password_forget(&nfc);
}


/* HM_DECLINED: no text that a password can be; s is then an empty one. */

static hm_rc_t
hm_password_nfc(hm_secret_t *s, hm_str_t password)
{
    size_t    i, len;
    uint8_t  *p;

    s->text = HM_STR("");
    s->owned = NULL;

    if (password.len > HM_PASSWORD_BYTES || !hm_utf8_valid(password)) {
        return HM_DECLINED;
    }

    for (i = 0; i < password.len; i++) {
        if (password.data[i] >= 0x80) {
            break;
        }
    }

    if (i == password.len) {

        if (password.len != 0) {
            s->text = password;
        }

        return HM_OK;
    }

    p = u8_normalize(UNINORM_NFC, password.data, password.len, NULL, &len);

    return hm_password_take(s, p, len);
}


static hm_rc_t
hm_password_fold(hm_secret_t *s, hm_str_t text)
{
    size_t    len;
    uint8_t  *p;

    s->text = HM_STR("");
    s->owned = NULL;

    p = u8_casefold(text.data, text.len, NULL, UNINORM_NFC, NULL, &len);

    return hm_password_take(s, p, len);
}


static hm_rc_t
hm_password_take(hm_secret_t *s, uint8_t *p, size_t len)
{
    if (p == NULL) {
        return HM_ERROR;
    }

    s->owned = p;
    s->text.data = p;
    s->text.len = len;

    return HM_OK;
}


static void
hm_password_forget(hm_secret_t *s)
{
    if (s->owned != NULL) {
        hm_wipe(s->owned, s->text.len);
        free(s->owned);
        s->owned = NULL;
    }
}


static bool
hm_password_common(hm_str_t folded)
{
    int     rc;
    size_t  lo, hi, mid, len, n;

    lo = 0;
    hi = hm_nblocklist;

    while (lo < hi) {
        mid = lo + (hi - lo) / 2;
        len = strlen(hm_blocklist[mid]);
        n = folded.len < len ? folded.len : len;

        rc = memcmp(folded.data, hm_blocklist[mid], n);

        if (rc == 0 && folded.len == len) {
            return true;
        }

        if (rc < 0 || (rc == 0 && folded.len < len)) {
            hi = mid;

        } else {
            lo = mid + 1;
        }
    }

    return false;
}


static bool
hm_password_has_local_part(hm_str_t folded, hm_str_t email)
{
    bool            found;
    hm_str_t        local;
    hm_secret_t     s;
    unsigned char  *at;

    at = email.len == 0 ? NULL : memrchr(email.data, '@', email.len);

    local.data = email.data;
    local.len = at == NULL ? email.len : (size_t) (at - email.data);

    if (hm_utf8_count(local) < HM_LOCAL_PART_MIN || !hm_utf8_valid(local)
        || hm_password_fold(&s, local) != HM_OK)
    {
        return false;
    }

    found = s.text.len != 0
            && memmem(folded.data, folded.len, s.text.data, s.text.len)
               != NULL;

    hm_password_forget(&s);

    return found;
}
