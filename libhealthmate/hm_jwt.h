/*
 * hm_jwt: access tokens.  Signing is libjwt's; verifying is our own, on
 * OpenSSL, because libjwt 1.10 accepts forgeries and expired tokens.
 *
 * Accepted is exactly: three canonical base64url parts; a header of alg, typ
 * and kid only, alg equal to the key's; a known key; the right signature;
 * and claims of the right types, issuer, audience, "typ", and times.  Keys
 * are HS256, ES256 or EdDSA (hm_jwt_key.h).
 */

#ifndef HM_JWT_H
#define HM_JWT_H

#include "hm.h"
#include "hm_jwt_key.h"

#define HM_JWT_MAX      4096
#define HM_JWT_SKEW     5                /* seconds of clock skew on nbf/iat */

typedef enum {
    HM_ROLE_NONE = 0,
    HM_ROLE_PATIENT,
    HM_ROLE_DOCTOR,
    HM_ROLE_ADMIN,
    HM_ROLE_RESEARCHER
} hm_role_t;


typedef struct {
    hm_uuid_t       sub;
    hm_uuid_t       sid;
    hm_uuid_t       jti;
    hm_role_t       role;
    int64_t         iat;
    int64_t         nbf;
    int64_t         exp;                 /* seconds */
    int64_t         auth_time;
    bool            has_fgp;
    unsigned char   fgp[32];             /* SHA-256 of the cookie */
    unsigned        amr;                 /* HM_AMR_* */
    char            typ[12];             /* "access", "refresh", ... */
} hm_claims_t;

#define HM_AMR_PWD      1
#define HM_AMR_OTP      2
#define HM_AMR_HWK      4


typedef struct {
    hm_jwt_key_t   *keys;                /* the first signs */
    size_t          nkeys;
    hm_str_t        issuer;
    hm_str_t        audience;
} hm_jwt_conf_t;


typedef enum {
    HM_JWT_OK = 0,
    HM_JWT_INVALID,
    HM_JWT_EXPIRED,
    HM_JWT_FAILED                        /* OpenSSL or memory: a 503 */
} hm_jwt_rc_t;


hm_jwt_rc_t hm_jwt_verify(const hm_jwt_conf_t *conf, hm_str_t token,
    const char *typ, int64_t now, hm_claims_t *claims);
hm_rc_t hm_jwt_sign(const hm_jwt_conf_t *conf, hm_mem_t *mem,
    const hm_claims_t *claims, hm_str_t *token);

/* The public keys as a JWK set; HM_DECLINED: all of them are secrets. */
hm_rc_t hm_jwt_jwks(const hm_jwt_conf_t *conf, hm_buf_t *out);

const char *hm_role_name(hm_role_t role);
hm_role_t hm_role_of(hm_str_t name);

#endif
