/*
 * ngx_hm_mfa: one-time and recovery codes where somebody logs in or proves
 * himself anew, and who must have a second factor at all.
 *
 * A code is judged after the password, for the person the request is by
 * then.  What is six digits is a one-time code: its secret is read and
 * opened, the code compared, and then used up by a statement that moves the
 * last step on; of twenty logins with one code, one moves it.  Everything
 * else can only be a recovery code: its keyed hash is deleted, and that a
 * row was deleted is the proof.
 *
 * Wrong codes are counted by the caller's limiter, which must not be given
 * back its try before the code was right: else a known password would buy
 * guesses without end.
 *
 * healthmate_mfa_required names roles.  A session of such a role whose token
 * shows no second factor may only enrol one (NGX_HM_ENROL in the route
 * table); the answer to all else is 401 auth.mfa_required.
 */

#include "ngx_hm_mfa.h"


static ngx_hm_rc_t ngx_hm_otp_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_otp_recovery(ngx_hm_ctx_t *hm,
    const char normal[HM_RECOVERY_NORMAL]);
static ngx_hm_rc_t ngx_hm_otp_judge(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_otp_used(ngx_hm_ctx_t *hm);
static ngx_uint_t ngx_hm_webauthn_origin_fits(hm_str_t origin, ngx_str_t id);


static const ngx_hm_step_pt  ngx_hm_otp_steps[] = {
    ngx_hm_step_keys, ngx_hm_otp_look, ngx_hm_otp_judge, ngx_hm_otp_used,
    NULL
};


ngx_uint_t
ngx_hm_factor_missing(ngx_hm_ctx_t *hm)
{
    return (hm->conf->mfa_roles & ((ngx_uint_t) 1 << hm->who.role)) != 0
           && (hm->who.amr & NGX_HM_FACTORS) == 0;
}


ngx_hm_rc_t
ngx_hm_otp(ngx_hm_ctx_t *hm, hm_str_t otp)
{
    ngx_hm_otp_t  *o;

    o = ngx_hm_pcalloc(hm, sizeof(ngx_hm_otp_t));
    if (o == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    o->otp = otp;
    hm->mfa = o;

    ngx_hm_call(hm, ngx_hm_otp_steps);

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_otp_look(ngx_hm_ctx_t *hm)
{
    char           normal[HM_RECOVERY_NORMAL];
    ngx_hm_otp_t  *o = hm->mfa;

    if (hm_recovery_normal(normal, o->otp) == HM_OK) {
        return ngx_hm_otp_recovery(hm, normal);
    }

    if (o->otp.len != HM_TOTP_DIGITS) {
        return ngx_hm_fail(hm, HM_PROBLEM_MFA_INVALID);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_TOTP_GET);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_otp_recovery(ngx_hm_ctx_t *hm, const char normal[HM_RECOVERY_NORMAL])
{
    hm_str_t         s;
    unsigned char   *index;
    hm_user_keys_t  *keys;

    s.data = (unsigned char *) normal;
    s.len = HM_RECOVERY_NORMAL;

    keys = ngx_hm_keys(hm);
    index = ngx_hm_palloc(hm, 32);

    if (keys == NULL || index == NULL
        || hm_blind_index(index, keys->index_key, "mfa_recovery_codes",
                          "code_index", &hm->subject, s) != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_RECOVERY_USE);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_add(&hm->seg, index, 32);

    hm->step++;                          /* there is nothing to judge */

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_otp_judge(ngx_hm_ctx_t *hm)
{
    hm_rc_t        rc;
    unsigned char  secret[HM_TOTP_SECRET];
    hm_problem_t   p;
    ngx_hm_rc_t    open;
    ngx_hm_otp_t  *o = hm->mfa;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0 || PQgetisnull(hm->seg.res, 0, 1)
        || !hm_row_bool(hm->seg.res, 0, 5))
    {
        return ngx_hm_fail(hm, HM_PROBLEM_MFA_INVALID);
    }

    open = ngx_hm_totp_open(hm, secret);
    if (open != NGX_HM_NEXT) {
        return open;
    }

    rc = hm_totp_check(secret, hm->now / HM_USEC,
                       (int64_t) hm_row_u64(hm->seg.res, 0, 3), o->otp,
                       &o->step);
    hm_wipe(secret, sizeof(secret));

    if (rc != HM_OK) {
        return ngx_hm_fail(hm, rc == HM_DECLINED ? HM_PROBLEM_MFA_INVALID
                                                 : HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_TOTP_USE);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_i64(hm, &hm->seg, (uint64_t) o->step);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_otp_used(ngx_hm_ctx_t *hm)
{
    hm_uuid_t     id;
    ngx_hm_rc_t   rc;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) != 1) {
        return ngx_hm_fail(hm, HM_PROBLEM_MFA_INVALID);
    }

    id = hm_row_uuid(hm->seg.res, 0, 0);

    rc = ngx_hm_owned(hm, &id, "mfa");

    return rc == NGX_HM_NEXT ? ngx_hm_return(hm) : rc;
}


/* Head: dimensions, flags, type, count, lower bound; then each length. */
void
ngx_hm_mfa_json(hm_buf_t *b, hm_str_t names)
{
    u_char    *p, *end;
    uint32_t   i, n, len;
    hm_str_t   name;

    p = names.data;
    end = p + names.len;
    n = names.len >= 20 ? hm_get_u32(p + 12) : 0;

    hm_buf_lit(b, "[");

    for (i = 0, p += 20; i < n && end - p >= 4; i++) {
        len = hm_get_u32(p);
        p += 4;

        if (len > (size_t) (end - p)) {
            break;
        }

        name.data = p;
        name.len = len;
        p += len;

        if (i > 0) {
            hm_buf_lit(b, ",");
        }

        hm_json_text(b, name);
    }

    hm_buf_lit(b, "]");
}


/* Of the row TOTP_GET gave. */
ngx_hm_rc_t
ngx_hm_totp_open(ngx_hm_ctx_t *hm, unsigned char secret[HM_TOTP_SECRET])
{
    u_char                *out;
    hm_str_t               env, json;
    hm_uuid_t              id;
    hm_place_t             place;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    id = hm_row_uuid(hm->seg.res, 0, 0);

    if (ngx_hm_owned(hm, &id, "mfa_totp") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    env = hm_row_str(hm->seg.res, 0, 1);
    keys = ngx_hm_keys(hm);
    dek = keys != NULL
          ? hm_keys_dek(keys, hm_row_u32(hm->seg.res, 0, 2)) : NULL;

    if (dek == NULL) {
        ngx_hm_keys_drop(&hm->subject);
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    place.table = "mfa_totp";
    place.column = "secret";
    place.row = id;
    place.owner = id;

    out = ngx_hm_palloc(hm, env.len);

    if (out == NULL
        || hm_open(out, &json, dek, hm_row_u32(hm->seg.res, 0, 2), &place,
                   env) != HM_OK
        || json.len != HM_TOTP_TEXT + 2)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    json.data++;
    json.len -= 2;

    return hm_totp_secret(secret, json) == HM_OK
           ? NGX_HM_NEXT : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


ngx_int_t
ngx_hm_mfa_seg(ngx_hm_ctx_t *hm, ngx_uint_t stmt)
{
    hm_str_t  origin;

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, stmt);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sid);

    hm->audit.row.at = hm->now;
    hm->audit.row.actor = hm->who.sub;

    if (ngx_hm_audit_origin(hm, &origin) != NGX_OK) {
        return NGX_ERROR;
    }

    hm->seg.seq_param = hm->seg.nparams;
    hm->seg.nseq = 1;
    ngx_hm_seg_null(&hm->seg);
    ngx_hm_seg_null(&hm->seg);
    ngx_hm_seg_i16(hm, &hm->seg, (uint16_t) hm->who.role);
    ngx_hm_seg_str(&hm->seg, origin);

    hm->audited = 1;

    return NGX_OK;
}


/* Directives */


/* healthmate_mfa_required ROLE... | off */
char *
ngx_hm_mfa_required(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    hm_role_t            role;
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf = conf;

    value = cf->args->elts;

    if (mcf->mfa_roles != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    mcf->mfa_roles = 0;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    for (i = 1; i < cf->args->nelts; i++) {
        role = hm_role_of(ngx_hm_hm(value[i]));

        if (role == HM_ROLE_NONE) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "no such role \"%V\": patient, doctor, admin, "
                               "researcher, or off alone", &value[i]);
            return NGX_CONF_ERROR;
        }

        mcf->mfa_roles |= (ngx_uint_t) 1 << role;
    }

    return NGX_CONF_OK;
}


/* healthmate_webauthn_origin ORIGIN... */
char *
ngx_hm_webauthn_origin(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    hm_str_t            *origin;
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf = conf;

    value = cf->args->elts;

    if (mcf->webauthn_origins == NULL) {
        mcf->webauthn_origins = ngx_array_create(cf->pool, 2,
                                                 sizeof(hm_str_t));
        if (mcf->webauthn_origins == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 1; i < cf->args->nelts; i++) {
        origin = ngx_array_push(mcf->webauthn_origins);
        if (origin == NULL) {
            return NGX_CONF_ERROR;
        }

        *origin = ngx_hm_hm(value[i]);
    }

    return NGX_CONF_OK;
}


/* Is it https://HOST[:PORT], or http://localhost, with HOST of the id? */
static ngx_uint_t
ngx_hm_webauthn_origin_fits(hm_str_t origin, ngx_str_t id)
{
    size_t    skip, len;
    u_char   *host, *p, *end;

    skip = origin.len > 8 && ngx_strncmp(origin.data, "https://", 8) == 0
           ? 8 : origin.len > 7
                 && ngx_strncmp(origin.data, "http://", 7) == 0 ? 7 : 0;
    host = origin.data + skip;
    end = origin.data + origin.len;
    p = memchr(host, ':', (size_t) (end - host));
    len = (size_t) ((p != NULL ? p : end) - host);

    if (skip == 0 || len < id.len || memchr(host, '/', (size_t) (end - host)))
    {
        return 0;
    }

    if (skip == 7 && (len != 9 || ngx_strncmp(host, "localhost", 9) != 0)) {
        return 0;
    }

    return ngx_memcmp(host + len - id.len, id.data, id.len) == 0
           && (len == id.len || host[len - id.len - 1] == '.');
}


/* Defaults of both, once everything is read. */
char *
ngx_hm_mfa_init(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    hm_str_t    *origins;
    ngx_str_t    name;
    ngx_uint_t   i;

    if (mcf->mfa_roles == NGX_CONF_UNSET_UINT) {
        mcf->mfa_roles = mcf->environment == NGX_HM_PRODUCTION
                         ? (1 << HM_ROLE_DOCTOR) | (1 << HM_ROLE_ADMIN) : 0;
    }

    if (mcf->webauthn_id.len == 0) {
        if (mcf->webauthn_origins == NULL) {
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_webauthn_origin needs "
                           "healthmate_webauthn_rp_id");
        return NGX_CONF_ERROR;
    }

    if (mcf->webauthn_id.len > 253) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_webauthn_rp_id is no domain name");
        return NGX_CONF_ERROR;
    }

    if (mcf->webauthn_origins == NULL) {
        /* the domain itself, on the usual port */

        mcf->webauthn_origins = ngx_array_create(cf->pool, 1,
                                                 sizeof(hm_str_t));
        origins = mcf->webauthn_origins == NULL
                  ? NULL : ngx_array_push(mcf->webauthn_origins);
        name.len = 8 + mcf->webauthn_id.len;
        name.data = ngx_pnalloc(cf->pool, name.len);

        if (origins == NULL || name.data == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memcpy(name.data, "https://", 8);
        ngx_memcpy(name.data + 8, mcf->webauthn_id.data,
                   mcf->webauthn_id.len);
        *origins = ngx_hm_hm(name);
    }

    mcf->webauthn.id = ngx_hm_hm(mcf->webauthn_id);
    mcf->webauthn.origins = origins = mcf->webauthn_origins->elts;
    mcf->webauthn.norigins = mcf->webauthn_origins->nelts;

    for (i = 0; i < mcf->webauthn.norigins; i++) {
        if (!ngx_hm_webauthn_origin_fits(origins[i], mcf->webauthn_id)) {
            name = ngx_hm_ngx(origins[i]);
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "healthmate_webauthn_origin \"%V\": not "
                               "https://HOST[:PORT] of \"%V\"", &name,
                               &mcf->webauthn_id);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}
