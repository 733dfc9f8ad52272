/*
 * fuzz/webauthn: what a browser sends, in one of four roles: an attestation
 * object, a COSE key, clientDataJSON, a login.  What is taken for a
 * credential points into the input, has a key that is taken again, and no
 * login verifies: nobody here has a private key.
 */

#include <stdlib.h>

#include "hm_crypto.h"
#include "hm_webauthn.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static const hm_str_t  origin = hm_str("https://localhost");

/* a point of the curve as a COSE key */
static const unsigned char  key[] =
    "\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20"
    "\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2"
    "\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
    "\x22\x58\x20"
    "\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16"
    "\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t              half;
    hm_str_t            in;
    unsigned char       challenge[HM_WEBAUTHN_CHALLENGE], head[37];
    hm_webauthn_rp_t    rp = { hm_str("localhost"), &origin, 1 };
    hm_webauthn_new_t   cred;
    hm_webauthn_use_t   use;

    if (size < 2) {
        return 0;
    }

    in.data = (unsigned char *) data + 1;
    in.len = size - 1;

    switch (data[0] & 3) {

    case 0:
        if (hm_webauthn_new(&rp, in, &cred) == HM_OK
            && (cred.id.data < in.data
                || cred.id.data + cred.id.len > in.data + in.len
                || cred.key.data + cred.key.len > in.data + in.len
                || hm_cose_key(cred.key) != cred.alg))
        {
            abort();
        }

        break;

    case 1:
        (void) hm_cose_key(in);
        break;

    case 2:
        (void) hm_webauthn_client(&rp, "webauthn.get", in, challenge);
        break;

    default:
        /* a good head, then theirs: extensions and a signature */

        if (hm_sha256(head, rp.id.data, rp.id.len) != HM_OK) {
            abort();
        }

        half = data[1] % size;
        memset(&use, 0, sizeof(use));
        use.data.data = malloc(37 + half);
        memcpy(use.data.data, head, 32);
        memset(use.data.data + 32, 0, 5);
        use.data.data[32] = 0x05 | (data[0] & 0xc0);
        memcpy(use.data.data + 37, data, half);
        use.data.len = 37 + half;
        use.client = in;
        use.sig.data = (unsigned char *) data + half;
        use.sig.len = size - half;
        use.key.data = (unsigned char *) key;
        use.key.len = sizeof(key) - 1;

        if (hm_webauthn_use(&rp, &use) == HM_OK) {
            abort();
        }

        free(use.data.data);
    }

    return 0;
}
