/*
 * ngx_hm_session.h: what every way of logging in ends in.
 *
 * A family that has found out who somebody is says so:
 *
 *     s = ngx_hm_session_begin(hm, &user, role, HM_AMR_PWD, fingerprint);
 *     ngx_hm_session_enter(hm);
 *     return ngx_hm_goto(hm, ngx_hm_session_open);
 */

#ifndef NGX_HM_SESSION_H
#define NGX_HM_SESSION_H

#include "ngx_hm.h"

/* A user row as the statements ME, LOGIN, REFRESH and RENEW select it. */
enum {
    NGX_HM_U_ID = 0, NGX_HM_U_EMAIL, NGX_HM_U_VERIFIED, NGX_HM_U_NAME,
    NGX_HM_U_ROLE, NGX_HM_U_ACTIVE, NGX_HM_U_MFA, NGX_HM_U_PHONE,
    NGX_HM_U_ADDRESS, NGX_HM_U_BORN, NGX_HM_U_CREATED, NGX_HM_U_UPDATED,
    NGX_HM_U_LAST, NGX_HM_U_DEK, NGX_HM_U_VERSION, NGX_HM_U_COLUMNS
};


typedef struct ngx_hm_session_s  ngx_hm_session_t;

struct ngx_hm_session_s {
    hm_uuid_t       id;
    hm_uuid_t       user;
    hm_role_t       role;
    uint32_t        counter;             /* of its current refresh token */
    uint32_t        password_version;    /* what was proved was proved of it */
    unsigned        amr;                 /* HM_AMR_* */
    hm_usec_t       auth_time;
    hm_usec_t       issued;              /* when its access token was made */
    hm_usec_t       expires;             /* of the refresh token */
    unsigned        fingerprint:1;
};


/* reauth: hm->session->amr was proved; stores that, answers `session`. */
extern const ngx_hm_step_pt  ngx_hm_session_renew[];

/* Keys, the session's row with its audit record, the answer `session`. */
extern const ngx_hm_step_pt  ngx_hm_session_open[];

/* A new session, not stored yet; hm->session is it.  NULL: no memory. */
ngx_hm_session_t *ngx_hm_session_begin(ngx_hm_ctx_t *hm,
    const hm_uuid_t *user, hm_role_t role, unsigned amr,
    ngx_uint_t fingerprint);
/* From here on the request is that person's. */
void ngx_hm_session_enter(ngx_hm_ctx_t *hm);

/* sessions.client, sealed: where it was opened. */
ngx_int_t ngx_hm_session_client(ngx_hm_ctx_t *hm, const unsigned char *dek,
    uint32_t version, hm_str_t *out);
/* Parameters shard, seq, role, origin: the audit row in the statement. */
ngx_int_t ngx_hm_session_audit(ngx_hm_ctx_t *hm);

/* The answer `session` of hm->session, with `user` as it stands. */
ngx_hm_rc_t ngx_hm_session_reply(ngx_hm_ctx_t *hm, ngx_uint_t status,
    hm_str_t user);
/* The same with the user of row 0, whose keys are in the cache. */
ngx_hm_rc_t ngx_hm_session_reply_row(ngx_hm_ctx_t *hm, const PGresult *r);
/* Row 0 of r as a `user`. */
ngx_hm_rc_t ngx_hm_user_row(ngx_hm_ctx_t *hm, hm_buf_t *b,
    const PGresult *r);
/* The same columns in another row, from another column on. */
ngx_hm_rc_t ngx_hm_user_row_at(ngx_hm_ctx_t *hm, hm_buf_t *b,
    const PGresult *r, int row, int col);

/* hmr1.<session 16 | counter 4 | MAC 32> */
ngx_int_t ngx_hm_refresh_make(ngx_hm_ctx_t *hm, const ngx_hm_session_t *s,
    hm_str_t *out);
/* NGX_OK; NGX_DECLINED: not one of ours; NGX_ERROR: cannot say. */
ngx_int_t ngx_hm_refresh_read(hm_str_t token, hm_uuid_t *session,
    uint32_t *counter);
/* The cookie's value: fixed for a session, and not stored. */
ngx_int_t ngx_hm_fingerprint_make(const hm_uuid_t *session, char text[44]);
ngx_uint_t ngx_hm_fingerprint_is(ngx_hm_ctx_t *hm,
    const hm_uuid_t *session);

#endif
