/*
 * ngx_hm_session: a session, from its opening to the answer that tells of it.
 *
 * A session is a row: whose, since when, by which proofs (amr), and a
 * counter.  No token is stored.  What a client holds is computed from the
 * row, and can be computed again:
 *
 *     refresh token   hmr1. base64url(session 16 | counter u32be | MAC 32)
 *     cookie          base64url(MAC(session)): fixed for the session, renewed
 *                     with each answer, so that it lives as long as the
 *                     refresh token beside it
 *     access token    its claims are of (session, counter, time of the
 *                     turn), the id too: asked for again within the grace of
 *                     a refresh, it is the same one and lives no longer
 *
 * Both MACs are of keys that only the service has (ngx_hm_mac), for purposes
 * of their own.  Knowing a session's id, which stands in the access token,
 * gives neither the cookie nor a refresh token.
 *
 * Lifetimes follow the role (healthmate_session_limit): an access token is
 * valid no longer than the role may be idle, so that whoever went away finds
 * it expired, and the refresh that must follow asks the row when the session
 * was used last (ngx_hm_seen.c keeps that).
 */

#include "ngx_hm_session.h"


static ngx_hm_rc_t ngx_hm_session_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_session_sent(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_session_cookie(ngx_hm_ctx_t *hm,
    const ngx_hm_session_t *s, hm_claims_t *claims);
static ngx_int_t ngx_hm_session_claims(ngx_hm_ctx_t *hm,
    const ngx_hm_session_t *s, hm_claims_t *claims);


const ngx_hm_step_pt  ngx_hm_session_open[] = {
    ngx_hm_step_keys, ngx_hm_session_send, ngx_hm_session_sent, NULL
};


ngx_hm_session_t *
ngx_hm_session_begin(ngx_hm_ctx_t *hm, const hm_uuid_t *user, hm_role_t role,
    unsigned amr, ngx_uint_t fingerprint)
{
    time_t             life;
    ngx_hm_session_t  *s;

    s = ngx_hm_pcalloc(hm, sizeof(ngx_hm_session_t));

    if (s == NULL || hm_uuid7(&s->id, hm->now) != HM_OK) {
        return NULL;
    }

    life = ngx_min(hm->conf->refresh_time, hm->conf->absolute[role]);

    s->user = *user;
    s->role = role;
    s->amr = amr;
    s->auth_time = hm->now;
    s->issued = hm->now;
    s->expires = hm->now + (hm_usec_t) life * HM_USEC;
    s->fingerprint = fingerprint != 0;

    hm->session = s;

    return s;
}


void
ngx_hm_session_enter(ngx_hm_ctx_t *hm)
{
    hm->who.sub = hm->session->user;
    hm->who.sid = hm->session->id;
    hm->who.role = hm->session->role;
    hm->subject = hm->session->user;
    hm->signed_in = 1;
    hm->audited = 1;
}


static ngx_hm_rc_t
ngx_hm_session_send(ngx_hm_ctx_t *hm)
{
    u_char                *p;
    hm_str_t               client;
    hm_user_keys_t        *keys;
    ngx_hm_session_t      *s;
    const unsigned char   *dek;

    s = hm->session;
    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, keys->active) : NULL;
    p = ngx_hm_palloc(hm, 1);

    if (dek == NULL || p == NULL
        || ngx_hm_session_client(hm, dek, keys->active, &client) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    *p = s->fingerprint;

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_LOGIN);
    ngx_hm_seg_uuid(&hm->seg, &s->user);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_uuid(&hm->seg, &s->id);
    ngx_hm_seg_str(&hm->seg, client);
    ngx_hm_seg_add(&hm->seg, p, 1);
    ngx_hm_seg_time(hm, &hm->seg, s->expires);
    ngx_hm_seg_i32(hm, &hm->seg, keys->active);

    if (ngx_hm_session_audit(hm) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_i32(hm, &hm->seg, s->amr);
    ngx_hm_seg_uuid_or_null(&hm->seg, &hm->device.id);

    /* a reset while we hashed ended all sessions: no new one behind it */
    ngx_hm_seg_i32(hm, &hm->seg, s->password_version);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_session_sent(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
    }

    return ngx_hm_session_reply_row(hm, hm->seg.res);
}


/* {"address","user_agent"} as one sealed text */
ngx_int_t
ngx_hm_session_client(ngx_hm_ctx_t *hm, const unsigned char *dek,
    uint32_t version, hm_str_t *out)
{
    hm_str_t    agent, json;
    hm_buf_t    b;
    hm_place_t  place;

    agent = ngx_hm_header(hm, "user-agent");
    agent.len = ngx_min(agent.len, 200);

    if (!hm_utf8_valid(agent)) {
        agent = HM_STR("");
    }

    hm_buf_init(&b, &hm->mem, 400);
    hm_buf_lit(&b, "{\"address\":");
    hm_json_text(&b, ngx_hm_hm(hm->request->connection->addr_text));
    hm_buf_lit(&b, ",\"user_agent\":");
    hm_json_text(&b, agent);
    hm_buf_lit(&b, "}");

    json.data = b.start;
    json.len = hm_buf_len(&b);

    place.table = "sessions";
    place.column = "client";
    place.row = hm->session->id;
    place.owner = hm->session->user;

    out->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    if (b.failed || out->data == NULL) {
        return NGX_ERROR;
    }

    return hm_seal(out->data, &out->len, dek, version, &place, json)
           == HM_OK ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_hm_session_audit(ngx_hm_ctx_t *hm)
{
    hm_str_t  origin;

    hm->audit.row.at = hm->now;
    hm->audit.row.actor = hm->session->user;

    if (ngx_hm_audit_origin(hm, &origin) != NGX_OK) {
        return NGX_ERROR;
    }

    hm->seg.seq_param = hm->seg.nparams;
    hm->seg.nseq = 1;
    ngx_hm_seg_null(&hm->seg);
    ngx_hm_seg_null(&hm->seg);
    ngx_hm_seg_i16(hm, &hm->seg, (uint16_t) hm->session->role);
    ngx_hm_seg_str(&hm->seg, origin);

    hm->audited = 1;

    return NGX_OK;
}


/* Tokens */


ngx_int_t
ngx_hm_refresh_make(ngx_hm_ctx_t *hm, const ngx_hm_session_t *s,
    hm_str_t *out)
{
    u_char         raw[20 + 32];
    unsigned char  mac[32];

    ngx_memcpy(raw, s->id.b, 16);
    hm_put_u32(raw + 16, s->counter);

    out->data = ngx_hm_palloc(hm, 5 + hm_b64url_len(sizeof(raw)) + 1);

    if (out->data == NULL
        || ngx_hm_mac(mac, "refresh", raw, 20) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(raw + 20, mac, 32);
    ngx_memcpy(out->data, "hmr1.", 5);
    out->len = 5 + hm_b64url_encode((char *) out->data + 5, raw,
                                    sizeof(raw));

    return NGX_OK;
}


ngx_int_t
ngx_hm_refresh_read(hm_str_t token, hm_uuid_t *session, uint32_t *counter)
{
    size_t         len;
    u_char         raw[20 + 32];
    unsigned char  mac[32];

    if (token.len != 5 + hm_b64url_len(sizeof(raw))
        || ngx_memcmp(token.data, "hmr1.", 5) != 0)
    {
        return NGX_DECLINED;
    }

    token.data += 5;
    token.len -= 5;

    /* only the canonical form is taken: one token, one spelling */

    if (hm_b64url_decode(raw, &len, token) != HM_OK || len != sizeof(raw)) {
        return NGX_DECLINED;
    }

    if (ngx_hm_mac(mac, "refresh", raw, 20) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!hm_equal_ct(mac, raw + 20, 32)) {
        return NGX_DECLINED;
    }

    ngx_memcpy(session->b, raw, 16);
    *counter = hm_get_u32(raw + 16);

    return NGX_OK;
}


ngx_int_t
ngx_hm_fingerprint_make(const hm_uuid_t *session, char text[44])
{
    unsigned char  mac[32];

    if (ngx_hm_mac(mac, "fingerprint", session->b, 16) != NGX_OK) {
        return NGX_ERROR;
    }

    text[hm_b64url_encode(text, mac, 32)] = '\0';

    return NGX_OK;
}


/* Did the request bring the cookie of that session? */
ngx_uint_t
ngx_hm_fingerprint_is(ngx_hm_ctx_t *hm, const hm_uuid_t *session)
{
    char      text[44];
    hm_str_t  value;

    value = ngx_hm_cookie(ngx_hm_header(hm, "cookie"), NGX_HM_FGP_COOKIE);

    return value.len == 43
           && ngx_hm_fingerprint_make(session, text) == NGX_OK
           && hm_equal_ct(value.data, text, 43);
}


/* Sets the cookie and puts its digest into the claims. */
static ngx_int_t
ngx_hm_session_cookie(ngx_hm_ctx_t *hm, const ngx_hm_session_t *s,
    hm_claims_t *claims)
{
    char  text[44];

    if (ngx_hm_fingerprint_make(&s->id, text) != NGX_OK
        || hm_sha256(claims->fgp, text, 43) != HM_OK)
    {
        return NGX_ERROR;
    }

    claims->has_fgp = 1;
    hm->headers.cookie = ngx_hm_printf(hm, NGX_HM_FGP_COOKIE "=%s; Path=/; "
                              "Max-Age=%lu; HttpOnly; Secure; "
                              "SameSite=Strict", text, (unsigned long)
                              ngx_max((s->expires - hm->now) / HM_USEC, 0));

    return hm->headers.cookie.data != NULL ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_hm_session_claims(ngx_hm_ctx_t *hm, const ngx_hm_session_t *s,
    hm_claims_t *claims)
{
    u_char         raw[28];
    time_t         life;
    unsigned char  mac[32];

    ngx_memzero(claims, sizeof(hm_claims_t));

    life = ngx_min(hm->conf->access_time, hm->conf->idle[s->role]);

    claims->sub = s->user;
    claims->sid = s->id;
    claims->role = s->role;
    claims->iat = s->issued / HM_USEC;
    claims->nbf = claims->iat;
    claims->exp = ngx_min(claims->iat + (int64_t) life,
                          s->expires / HM_USEC);
    claims->auth_time = s->auth_time / HM_USEC;
    claims->amr = s->amr;
    ngx_memcpy(claims->typ, "access", 7);

    if (s->fingerprint && ngx_hm_session_cookie(hm, s, claims) != NGX_OK) {
        return NGX_ERROR;
    }

    /* the id, too, is that of the turn: its time, and a MAC for chance */

    ngx_memcpy(raw, s->id.b, 16);
    hm_put_u32(raw + 16, s->counter);
    hm_put_u64(raw + 20, (uint64_t) s->issued);

    if (ngx_hm_mac(mac, "jti", raw, 28) != NGX_OK) {
        return NGX_ERROR;
    }

    hm_put_u64(claims->jti.b, (uint64_t) (s->issued / 1000) << 16);
    ngx_memcpy(claims->jti.b + 6, mac, 10);
    claims->jti.b[6] = 0x70 | (mac[0] & 0x0f);
    claims->jti.b[8] = 0x80 | (mac[2] & 0x3f);

    return NGX_OK;
}


ngx_hm_rc_t
ngx_hm_session_reply(ngx_hm_ctx_t *hm, ngx_uint_t status, hm_str_t user)
{
    int64_t            now;
    hm_str_t           access, refresh;
    hm_claims_t        claims;
    ngx_hm_session_t  *s;

    s = hm->session;
    now = hm->now / HM_USEC;

    if (user.len == 0
        || ngx_hm_session_claims(hm, s, &claims) != NGX_OK
        || hm_jwt_sign(&hm->conf->jwt, &hm->mem, &claims, &access) != HM_OK
        || ngx_hm_refresh_make(hm, s, &refresh) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, status, access.len + user.len + 512);
    hm->headers.personal = 1;

    hm_buf_lit(&hm->out, "{\"access_token\":");
    hm_json_text(&hm->out, access);
    hm_buf_lit(&hm->out, ",\"refresh_token\":");
    hm_json_text(&hm->out, refresh);
    hm_buf_lit(&hm->out, ",\"token_type\":\"Bearer\",\"expires_in\":");
    hm_json_int(&hm->out, ngx_max(claims.exp - now, 0));
    hm_buf_lit(&hm->out, ",\"refresh_expires_in\":");
    hm_json_int(&hm->out, ngx_max(s->expires / HM_USEC - now, 0));
    hm_buf_lit(&hm->out, ",\"user\":");
    hm_buf_str(&hm->out, user);
    hm_buf_lit(&hm->out, "}");

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


ngx_hm_rc_t
ngx_hm_session_reply_row(ngx_hm_ctx_t *hm, const PGresult *r)
{
    hm_buf_t     b;
    hm_str_t     user;
    ngx_hm_rc_t  rc;

    hm_buf_init(&b, &hm->mem, 512);

    rc = ngx_hm_user_row(hm, &b, r);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    user.data = b.start;
    user.len = b.failed ? 0 : hm_buf_len(&b);

    return ngx_hm_session_reply(hm, NGX_HTTP_OK, user);
}


ngx_hm_rc_t
ngx_hm_user_row(ngx_hm_ctx_t *hm, hm_buf_t *b, const PGresult *r)
{
    return ngx_hm_user_row_at(hm, b, r, 0, 0);
}


/* The keys of the person must be in the cache (ngx_hm_step_keys). */
ngx_hm_rc_t
ngx_hm_user_row_at(ngx_hm_ctx_t *hm, hm_buf_t *b, const PGresult *r, int row,
    int col)
{
    u_char                *out;
    uint32_t               version;
    hm_str_t               env, json;
    hm_uuid_t              id;
    hm_place_t             place;
    ngx_uint_t             i;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    static const struct {
        const char        *name;
        int                column;
    } sealed[] = {
        { "email", NGX_HM_U_EMAIL }, { "full_name", NGX_HM_U_NAME },
        { "phone", NGX_HM_U_PHONE }, { "address", NGX_HM_U_ADDRESS },
        { "date_of_birth", NGX_HM_U_BORN }
    };

    id = hm_row_uuid(r, row, col + NGX_HM_U_ID);

    if (ngx_hm_owned(hm, &id, "users") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    version = hm_row_u32(r, row, col + NGX_HM_U_DEK);
    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, version) : NULL;

    if (dek == NULL) {
        ngx_hm_keys_drop(&hm->subject);
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    place.table = "users";
    place.row = id;
    place.owner = id;

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, &id);

    for (i = 0; i < sizeof(sealed) / sizeof(sealed[0]); i++) {
        env = hm_row_str(r, row, col + sealed[i].column);
        json = HM_STR("null");

        if (env.data != NULL) {
            out = ngx_hm_palloc(hm, env.len);
            place.column = sealed[i].name;

            if (out == NULL
                || hm_open(out, &json, dek, version, &place, env) != HM_OK)
            {
                ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
                return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
            }
        }

        hm_buf_printf(b, ",\"%s\":", sealed[i].name);
        hm_buf_str(b, json);
    }

    hm_buf_printf(b, ",\"email_verified\":%s,\"role\":",
                  PQgetisnull(r, row, col + NGX_HM_U_VERIFIED) ? "false"
                                                               : "true");
    hm_json_text(b, hm_row_str(r, row, col + NGX_HM_U_ROLE));
    hm_buf_printf(b, ",\"is_active\":%s,\"mfa\":",
                  hm_row_bool(r, row, col + NGX_HM_U_ACTIVE) ? "true"
                                                             : "false");
    ngx_hm_mfa_json(b, hm_row_str(r, row, col + NGX_HM_U_MFA));
    hm_buf_lit(b, ",\"created_at\":");
    hm_json_time(b, hm_row_time(r, row, col + NGX_HM_U_CREATED));
    hm_buf_lit(b, ",\"updated_at\":");
    hm_json_time(b, hm_row_time(r, row, col + NGX_HM_U_UPDATED));
    hm_buf_lit(b, ",\"last_login_at\":");
    hm_json_time(b, hm_row_time(r, row, col + NGX_HM_U_LAST));
    hm_buf_lit(b, "}");

    return b->failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                     : NGX_HM_NEXT;
}
