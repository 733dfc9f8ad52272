/*
 * hm_webauthn: the relying party's side of WebAuthn (Level 2), without any
 * network, session or storage.
 *
 * Attestation is not asked for and not judged: whatever statement comes is
 * skipped.  What is judged: that the browser signed for our challenge on one
 * of our origins, that the authenticator did so for our relying party id,
 * and that the person was present and verified.
 *
 * Bytes from outside are read by a strict CBOR reader of our own (definite
 * lengths, shortest forms, bounded depth, no trailing bytes); signatures are
 * libfido2's.  A credential's public key is kept as the COSE key it came as.
 */

#ifndef HM_WEBAUTHN_H
#define HM_WEBAUTHN_H

#include "hm.h"

#define HM_WEBAUTHN_CHALLENGE   32
#define HM_WEBAUTHN_ID_MAX      1023     /* of a credential id */
#define HM_WEBAUTHN_KEY_MAX     512      /* of a COSE key */
#define HM_WEBAUTHN_CLIENT_MAX  4096     /* of clientDataJSON */
#define HM_WEBAUTHN_DATA_MAX    8192     /* of an attestation object */
#define HM_WEBAUTHN_SIG_MAX     512

#define HM_WEBAUTHN_UP   0x01            /* person present */
#define HM_WEBAUTHN_UV   0x04            /* and verified */
#define HM_WEBAUTHN_BE   0x08            /* may be backed up */
#define HM_WEBAUTHN_BS   0x10            /* is backed up */
#define HM_WEBAUTHN_AT   0x40
#define HM_WEBAUTHN_ED   0x80

#define HM_COSE_ES256    (-7)
#define HM_COSE_EDDSA    (-8)
#define HM_COSE_RS256    (-257)


typedef struct {
    hm_str_t         id;                 /* "health.example.org" */
    const hm_str_t  *origins;            /* "https://health.example.org" */
    size_t           norigins;
} hm_webauthn_rp_t;


/* A credential as it was made; the texts point into what was parsed. */
typedef struct {
    hm_str_t         id;
    hm_str_t         key;                /* COSE, CBOR */
    int              alg;
    unsigned char    aaguid[16];
    uint32_t         count;
    unsigned char    flags;
} hm_webauthn_new_t;


/* A login with a credential. */
typedef struct {
    hm_str_t         data;               /* authenticatorData */
    hm_str_t         client;             /* clientDataJSON */
    hm_str_t         sig;
    hm_str_t         key;                /* the stored COSE key */
    uint32_t         count;              /* out */
    unsigned char    flags;              /* out */
} hm_webauthn_use_t;


/*
 * clientDataJSON: of this type ("webauthn.create", "webauthn.get"), from one
 * of our origins, not from within another site's page.  Its challenge is
 * given back, for the caller to find and take.
 */
hm_rc_t hm_webauthn_client(const hm_webauthn_rp_t *rp, const char *type,
    hm_str_t json, unsigned char challenge[HM_WEBAUTHN_CHALLENGE]);

/* HM_DECLINED: not a credential of ours that we can use. */
hm_rc_t hm_webauthn_new(const hm_webauthn_rp_t *rp, hm_str_t attestation,
    hm_webauthn_new_t *out);

/* Verifies the signature too: hundreds of microseconds. */
hm_rc_t hm_webauthn_use(const hm_webauthn_rp_t *rp, hm_webauthn_use_t *use);

/* Is it well-formed and usable?  0, or the algorithm. */
int hm_cose_key(hm_str_t key);

#endif
