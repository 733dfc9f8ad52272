/*
 * ngx_hm_passkey: a passkey's signature where somebody logs in or proves
 * himself anew.
 *
 * The order: the form of what the browser sent; its challenge, which is
 * deleted by the statement that looks the credential up, so that an answer
 * is judged once whatever it says; the owner's keys; the signature, in a
 * thread; the counter, in a statement that only lets it grow.
 *
 * Nothing but the credential says who it is.  Its owner's keys are needed
 * before its signature is known to be good, because the public key is sealed
 * under them, bound to its row: who can write to the table cannot put a key
 * of his own there.  So the request acts as the owner for these two steps
 * and as nobody again when they fail.
 *
 * Every refusal is the same 401 auth.invalid_credentials: an unknown
 * credential, a challenge that is used or late, a wrong signature, a counter
 * that went back (the authenticator was copied), a disabled account.
 */

#include "ngx_hm_mfa.h"


static ngx_hm_rc_t ngx_hm_passkey_find(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_passkey_found(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_passkey_check(ngx_hm_ctx_t *hm);
static void ngx_hm_passkey_verify(void *work);
static ngx_hm_rc_t ngx_hm_passkey_use(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_passkey_used(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_passkey_refuse(ngx_hm_ctx_t *hm);


/* What the thread gets: its own structure, texts in the arena. */
typedef struct {
    const hm_webauthn_rp_t  *rp;
    hm_webauthn_use_t        use;
    hm_rc_t                  rc;
} ngx_hm_passkey_work_t;


static const ngx_hm_step_pt  ngx_hm_passkey_steps[] = {
    ngx_hm_passkey_find, ngx_hm_passkey_found, ngx_hm_step_keys,
    ngx_hm_passkey_check, ngx_hm_passkey_use, ngx_hm_passkey_used, NULL
};


ngx_hm_rc_t
ngx_hm_passkey_on(ngx_hm_ctx_t *hm)
{
    return hm->conf->webauthn.id.len != 0
           ? NGX_HM_NEXT
           : ngx_hm_fail_detail(hm, HM_PROBLEM_NOT_FOUND,
                                "passkeys are not set up here");
}


/* Forms */


hm_str_t
ngx_hm_passkey_bytes(ngx_hm_ctx_t *hm, json_t *j, const char *prefix,
    const char *name, size_t max)
{
    json_t    *m;
    hm_str_t   at, text, out;

    at.data = (u_char *) prefix;
    at.len = ngx_strlen(prefix);

    m = json_object_get(j, name);

    if (m == NULL || json_is_null(m)) {
        hm_fault_add(hm->faults, at, name, HM_FAULT_REQUIRED,
                     "must be given");
        return hm_null_str;
    }

    if (!json_is_string(m)) {
        hm_fault_add(hm->faults, at, name, HM_FAULT_TYPE,
                     "a string is needed");
        return hm_null_str;
    }

    text.data = (u_char *) json_string_value(m);
    text.len = json_string_length(m);

    if (text.len > hm_b64url_len(max)) {
        hm_fault_add(hm->faults, at, name, HM_FAULT_LENGTH,
                     "at most %zu bytes", max);
        return hm_null_str;
    }

    out.data = ngx_hm_palloc(hm, text.len + 4);

    if (out.data == NULL || text.len == 0
        || hm_b64url_decode(out.data, &out.len, text) != HM_OK)
    {
        hm_fault_add(hm->faults, at, name, HM_FAULT_FORMAT,
                     "base64url without padding");
        return hm_null_str;
    }

    return out;
}


ngx_hm_passkey_t *
ngx_hm_passkey_read(ngx_hm_ctx_t *hm, json_t *j, const char *prefix)
{
    char               at[64];
    json_t            *r;
    hm_str_t           raw;
    ngx_hm_passkey_t  *pk;

    pk = ngx_hm_pcalloc(hm, sizeof(ngx_hm_passkey_t));
    if (pk == NULL) {
        return NULL;
    }

    if (!json_is_object(j)) {
        hm_fault_add(hm->faults, HM_STR(""),
                     *prefix != '\0' ? prefix + 1 : NULL, HM_FAULT_TYPE,
                     "an object is needed");
        return pk;
    }

    pk->id = ngx_hm_passkey_bytes(hm, j, prefix, "id", HM_WEBAUTHN_ID_MAX);
    raw = ngx_hm_passkey_bytes(hm, j, prefix, "rawId", HM_WEBAUTHN_ID_MAX);
    r = json_object_get(j, "response");

    if (pk->id.data != NULL && raw.data != NULL && !hm_str_eq(pk->id, raw)) {
        hm_fault_add(hm->faults, ngx_hm_printf(hm, "%s", prefix), "rawId",
                     HM_FAULT_FORMAT, "not the same as id");
    }

    if (!json_is_object(r)) {
        hm_fault_add(hm->faults, ngx_hm_printf(hm, "%s", prefix),
                     "response", r == NULL ? HM_FAULT_REQUIRED
                                           : HM_FAULT_TYPE,
                     "an object is needed");
        return pk;
    }

    snprintf(at, sizeof(at), "%s/response", prefix);

    pk->use.client = ngx_hm_passkey_bytes(hm, r, at, "clientDataJSON",
                                          HM_WEBAUTHN_CLIENT_MAX);
    pk->use.data = ngx_hm_passkey_bytes(hm, r, at, "authenticatorData",
                                        HM_WEBAUTHN_DATA_MAX);
    pk->use.sig = ngx_hm_passkey_bytes(hm, r, at, "signature",
                                       HM_WEBAUTHN_SIG_MAX);
    pk->handle = ngx_hm_passkey_bytes(hm, r, at, "userHandle", 64);

    return pk;
}


/* The judgement */


ngx_hm_rc_t
ngx_hm_passkey(ngx_hm_ctx_t *hm, ngx_hm_passkey_t *pk)
{
    hm->mfa = pk;
    pk->again = hm->signed_in;

    ngx_hm_call(hm, ngx_hm_passkey_steps);

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_passkey_refuse(ngx_hm_ctx_t *hm)
{
    ngx_hm_passkey_t  *pk = hm->mfa;

    if (!pk->again) {
        hm->signed_in = 0;
        hm->who.sub = hm_nil_uuid;
        hm->subject = hm_nil_uuid;
    }

    return ngx_hm_fail(hm, HM_PROBLEM_INVALID_CREDENTIALS);
}


static ngx_hm_rc_t
ngx_hm_passkey_find(ngx_hm_ctx_t *hm)
{
    u_char            *digest;
    ngx_hm_passkey_t  *pk = hm->mfa;

    if (hm_webauthn_client(&hm->conf->webauthn, "webauthn.get",
                           pk->use.client, pk->challenge) != HM_OK)
    {
        return ngx_hm_passkey_refuse(hm);
    }

    digest = ngx_hm_palloc(hm, 64);

    if (digest == NULL
        || hm_sha256(digest, pk->challenge, sizeof(pk->challenge)) != HM_OK
        || hm_sha256(digest + 32, pk->id.data, pk->id.len) != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_PASSKEY_FIND);
    ngx_hm_seg_add(&hm->seg, digest, 32);
    ngx_hm_seg_add(&hm->seg, digest + 32, 32);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    return ngx_hm_seg_wait(hm);
}


/*
 * Columns: id, user_id, role, is_active, credential, dek_version, count,
 * password_version
 */
static ngx_hm_rc_t
ngx_hm_passkey_found(ngx_hm_ctx_t *hm)
{
    PGresult          *r;
    hm_str_t           sealed;
    hm_problem_t       p;
    ngx_hm_passkey_t  *pk = hm->mfa;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) != 1 || !hm_row_bool(r, 0, 3)) {
        return ngx_hm_passkey_refuse(hm);
    }

    pk->passkey = hm_row_uuid(r, 0, 0);
    pk->user = hm_row_uuid(r, 0, 1);
    pk->role = hm_role_of(hm_row_str(r, 0, 2));
    pk->dek_version = hm_row_u32(r, 0, 5);
    pk->password_version = hm_row_u32(r, 0, 7);

    /* the row goes with the next statement */

    sealed = hm_row_str(r, 0, 4);
    pk->sealed.data = ngx_hm_palloc(hm, sealed.len + 1);

    if (pk->sealed.data == NULL || sealed.data == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_memcpy(pk->sealed.data, sealed.data, sealed.len);
    pk->sealed.len = sealed.len;

    /* the authenticator and the table agree on whose it is */

    if (pk->handle.len != 16
        || ngx_memcmp(pk->handle.data, pk->user.b, 16) != 0
        || (pk->again && !hm_uuid_eq(&pk->user, &hm->who.sub)))
    {
        return ngx_hm_passkey_refuse(hm);
    }

    if (!pk->again) {
        hm->who.sub = pk->user;
        hm->who.role = pk->role;
        hm->subject = pk->user;
        hm->signed_in = 1;
        hm->audited = 1;                 /* a refusal tells of nobody */
    }

    return NGX_HM_NEXT;
}


json_t *
ngx_hm_passkey_open(ngx_hm_ctx_t *hm, const hm_uuid_t *id, uint32_t version,
    hm_str_t sealed)
{
    u_char                *out;
    json_t                *j;
    hm_str_t               json, reason;
    hm_place_t             place;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, version) : NULL;

    if (dek == NULL) {
        ngx_hm_keys_drop(&hm->subject);
        (void) ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
        return NULL;
    }

    place.table = "passkeys";
    place.column = "credential";
    place.row = *id;
    place.owner = hm->subject;

    out = ngx_hm_palloc(hm, sealed.len);

    if (out == NULL
        || hm_open(out, &json, dek, version, &place, sealed) != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        (void) ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        return NULL;
    }

    j = hm_json_parse(json, &reason);

    if (j == NULL) {
        (void) ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    return j;
}


static ngx_hm_rc_t
ngx_hm_passkey_check(ngx_hm_ctx_t *hm)
{
    json_t                 *j;
    hm_str_t                text;
    ngx_hm_passkey_t       *pk = hm->mfa;
    ngx_hm_passkey_work_t  *work;

    j = ngx_hm_passkey_open(hm, &pk->passkey, pk->dek_version, pk->sealed);
    if (j == NULL) {
        return NGX_HM_FAIL;
    }

    text.data = (u_char *) json_string_value(json_object_get(j, "key"));
    text.len = json_string_length(json_object_get(j, "key"));

    pk->use.key.data = ngx_hm_palloc(hm, text.len + 4);
    work = ngx_hm_pcalloc(hm, sizeof(ngx_hm_passkey_work_t));

    if (text.data == NULL || pk->use.key.data == NULL || work == NULL
        || hm_b64url_decode(pk->use.key.data, &pk->use.key.len, text)
           != HM_OK)
    {
        json_decref(j);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    json_decref(j);

    work->rp = &hm->conf->webauthn;
    work->use = pk->use;
    work->rc = HM_ERROR;
    pk->work = work;

    return ngx_hm_work(hm, ngx_hm_passkey_verify, work, sizeof(*work));
}


/* In a thread. */
static void
ngx_hm_passkey_verify(void *data)
{
    ngx_hm_passkey_work_t  *work = data;

    work->rc = hm_webauthn_use(work->rp, &work->use);
}


static ngx_hm_rc_t
ngx_hm_passkey_use(ngx_hm_ctx_t *hm)
{
    ngx_hm_passkey_t       *pk = hm->mfa;
    ngx_hm_passkey_work_t  *work = pk->work;

    if (work->rc != HM_OK) {
        return work->rc == HM_DECLINED
               ? ngx_hm_passkey_refuse(hm)
               : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_PASSKEY_USE);
    ngx_hm_seg_uuid(&hm->seg, &pk->user);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_uuid(&hm->seg, &pk->passkey);
    ngx_hm_seg_i64(hm, &hm->seg, work->use.count);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_passkey_used(ngx_hm_ctx_t *hm)
{
    hm_uuid_t     id;
    ngx_hm_rc_t   rc;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) != 1) {
        /* removed meanwhile, or its counter went back */
        return ngx_hm_passkey_refuse(hm);
    }

    id = hm_row_uuid(hm->seg.res, 0, 0);

    rc = ngx_hm_owned(hm, &id, "passkeys");

    return rc == NGX_HM_NEXT ? ngx_hm_return(hm) : rc;
}


ngx_hm_rc_t
ngx_hm_challenge_put(ngx_hm_ctx_t *hm,
    const unsigned char challenge[HM_WEBAUTHN_CHALLENGE],
    const hm_uuid_t *user)
{
    u_char  *digest;

    digest = ngx_hm_palloc(hm, 32);

    if (digest == NULL
        || hm_sha256(digest, challenge, HM_WEBAUTHN_CHALLENGE) != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_CHALLENGE);
    ngx_hm_seg_add(&hm->seg, digest, 32);
    ngx_hm_seg_uuid_or_null(&hm->seg, user);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);
    ngx_hm_seg_time(hm, &hm->seg,
                    hm->now + NGX_HM_CHALLENGE_TIME * HM_USEC);

    return ngx_hm_seg_wait(hm);
}
