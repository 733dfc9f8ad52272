/*
 * ngx_hm_mfa.h: second factors, for those who open sessions (login, reauth),
 * for the gate, and between the files of the factors themselves.
 */

#ifndef NGX_HM_MFA_H
#define NGX_HM_MFA_H

#include "ngx_hm.h"
#include "hm_totp.h"
#include "hm_webauthn.h"


#define NGX_HM_PASSKEYS_MAX      20      /* of one person */
#define NGX_HM_CHALLENGE_TIME    300     /* seconds */
#define NGX_HM_FACTORS           (HM_AMR_OTP|HM_AMR_HWK)


/* What was typed, and what became of it; hm->mfa while it is judged. */
typedef struct {
    hm_str_t            otp;
    int64_t             step;
} ngx_hm_otp_t;


/* A signed challenge of a passkey; hm->mfa while it is judged. */
typedef struct {
    hm_str_t            id;              /* of the credential */
    hm_str_t            handle;          /* whom it says it is */
    hm_webauthn_use_t   use;
    unsigned char       challenge[HM_WEBAUTHN_CHALLENGE];
    hm_uuid_t           passkey;
    hm_uuid_t           user;
    hm_role_t           role;
    hm_str_t            sealed;
    uint32_t            dek_version;
    uint32_t            password_version;
    void               *work;            /* of the thread */
    unsigned            again:1;         /* of who is signed in already */
} ngx_hm_passkey_t;


/*
 * A step's helpers: `return ngx_hm_otp(hm, otp)` judges a one-time or a
 * recovery code of the person the request is by now, uses it up, and goes on
 * with the next step; else 401 auth.mfa_invalid.
 */
ngx_hm_rc_t ngx_hm_otp(ngx_hm_ctx_t *hm, hm_str_t otp);

/* The secret in row 0 of TOTP_GET. */
ngx_hm_rc_t ngx_hm_totp_open(ngx_hm_ctx_t *hm,
    unsigned char secret[HM_TOTP_SECRET]);

/*
 * The same for the answer of navigator.credentials.get() as JSON.  Faults of
 * its form are named below `prefix`; the caller looks at hm->faults before
 * it goes on with ngx_hm_passkey().  That ends in the next step with the
 * person's id and role in *pk; nobody is signed in by it who was not.
 */
ngx_hm_passkey_t *ngx_hm_passkey_read(ngx_hm_ctx_t *hm, json_t *j,
    const char *prefix);
ngx_hm_rc_t ngx_hm_passkey(ngx_hm_ctx_t *hm, ngx_hm_passkey_t *pk);

/* A member of base64url below prefix, decoded into the arena. */
hm_str_t ngx_hm_passkey_bytes(ngx_hm_ctx_t *hm, json_t *j,
    const char *prefix, const char *name, size_t max);

/* Members of a sealed document of a passkey. */
json_t *ngx_hm_passkey_open(ngx_hm_ctx_t *hm, const hm_uuid_t *id,
    uint32_t version, hm_str_t sealed);

/* 404 where healthmate_webauthn_rp_id is not set. */
ngx_hm_rc_t ngx_hm_passkey_on(ngx_hm_ctx_t *hm);

/* Stores the digest of a challenge; the person's own, or of nobody yet. */
ngx_hm_rc_t ngx_hm_challenge_put(ngx_hm_ctx_t *hm,
    const unsigned char challenge[HM_WEBAUTHN_CHALLENGE],
    const hm_uuid_t *user);

/*
 * Starts a statement that changes a factor of the caller: $1 person, $2 now,
 * $3 session, $4 shard, $5 seq, $6 role, $7 origin of its audit row.
 */
ngx_int_t ngx_hm_mfa_seg(ngx_hm_ctx_t *hm, ngx_uint_t stmt);


/* Directives. */

char *ngx_hm_mfa_required(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_hm_webauthn_origin(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_hm_mfa_init(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);

#endif
