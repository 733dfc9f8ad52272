/*
 * hm_jwt_key: one key of the token ring: what it may be (HS256, ES256,
 * EdDSA), how it comes from a file, and what is done with it.
 */

#ifndef HM_JWT_KEY_H
#define HM_JWT_KEY_H

#include "hm.h"
#include "hm_buf.h"

#define HM_JWT_SIG_MAX      64
#define HM_JWT_SECRET_MIN   32
#define HM_JWT_SECRET_MAX   256
#define HM_JWT_REASON       160
#define HM_JWT_KEY_JWK      320          /* bytes of one public key in JSON */

typedef enum {
    HM_JWT_HS256 = 0,
    HM_JWT_ES256,
    HM_JWT_EDDSA
} hm_jwt_alg_t;


struct evp_pkey_st;

typedef struct {
    char                 kid[33];
    hm_jwt_alg_t         alg;            /* a header can only agree with it */
    unsigned char        secret[HM_JWT_SECRET_MAX];
    size_t               secret_len;     /* of HS256 */
    struct evp_pkey_st  *pkey;           /* of the others */
    bool                 verify_only;    /* its private part is not here */
} hm_jwt_key_t;


const char *hm_jwt_alg_name(hm_jwt_alg_t alg);
size_t hm_jwt_sig_len(hm_jwt_alg_t alg);

/*
 * The bytes of a key file: PEM of an EC P-256 or an Ed25519 key, private or
 * public, else the secret of HS256 as it stands.  HM_DECLINED: reason says
 * why this is no key for tokens.
 */
hm_rc_t hm_jwt_key_load(hm_jwt_key_t *key, hm_str_t kid, hm_str_t file,
    char reason[HM_JWT_REASON]);
void hm_jwt_key_free(hm_jwt_key_t *key);

hm_rc_t hm_jwt_key_sign(const hm_jwt_key_t *key, hm_str_t text,
    unsigned char sig[HM_JWT_SIG_MAX]);

/* HM_OK; HM_DECLINED: not this key's; HM_ERROR: it could not be told. */
hm_rc_t hm_jwt_key_verify(const hm_jwt_key_t *key, hm_str_t text,
    const unsigned char *sig, size_t len);

/* The public part as a JWK (RFC 7517); nothing for HS256. */
hm_rc_t hm_jwt_key_jwk(const hm_jwt_key_t *key, hm_buf_t *out);

#endif
