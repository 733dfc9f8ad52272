/*
 * api_mfa: setting up one-time codes and recovery codes, and taking them
 * away.
 *
 *     POST   mfa/totp             a new secret: text, otpauth URI, QR code
 *     POST   mfa/totp/confirm     one code of it; gives recovery codes
 *     DELETE mfa/totp
 *     POST   mfa/recovery-codes   new ones; those before are void
 *
 * Enrolling starts with a secret that opens nothing until a code of it was
 * shown, within 15 minutes; another start replaces it.  A confirmed one is
 * not replaced: it is deleted first.  The step of the code that confirmed
 * counts as used.
 *
 * Secrets are shown in one answer and never again.  The secret is sealed
 * under the person's DEK; of recovery codes only keyed hashes are stored.
 * Each change needs a recent login (NGX_HM_FRESH), is audited in its own
 * statement and told to the owner by mail.
 *
 * Confirming shows the factor: the session goes on as one that has it, and
 * its next access token (refresh) says so.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_mfa.h"


#define MFA_ISSUER        "HealthMate"
#define MFA_ENROL_TIME    (15 * 60 * HM_USEC)
#define MFA_LABEL_MAX     100            /* bytes of an address in the URI */


typedef struct {
    hm_buf_t         svg;
    char             uri[HM_QR_TEXT_MAX + 1];
    hm_rc_t          rc;
} mfa_qr_t;


typedef struct {
    hm_str_t         otp;
    hm_str_t         email;              /* sealed, in the arena */
    uint32_t         email_version;
    unsigned char    secret[HM_TOTP_SECRET];
    mfa_qr_t        *qr;
    char             codes[HM_RECOVERY_CODES][HM_RECOVERY_TEXT];
} mfa_t;


static ngx_hm_rc_t mfa_start(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_totp_make(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_totp_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_totp_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_confirm_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_confirm_judge(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_codes_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_codes_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_remove_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t mfa_remove_done(ngx_hm_ctx_t *hm);

static hm_str_t mfa_label(ngx_hm_ctx_t *hm, const hm_user_keys_t *keys);
static void mfa_qr(void *work);
static void *mfa_no_more(void *ctx, size_t size);
static ngx_int_t mfa_codes_make(ngx_hm_ctx_t *hm, mfa_t *mfa);


const ngx_hm_step_pt  ngx_hm_mfa_totp[] = {
    ngx_hm_step_keys, mfa_start, mfa_look, mfa_totp_make, mfa_totp_send,
    mfa_totp_done, NULL
};

const ngx_hm_step_pt  ngx_hm_mfa_confirm[] = {
    ngx_hm_json_body, mfa_start, mfa_confirm_read, ngx_hm_step_keys,
    mfa_look, mfa_confirm_judge, mfa_codes_done, NULL
};

const ngx_hm_step_pt  ngx_hm_mfa_recovery[] = {
    ngx_hm_step_keys, mfa_start, mfa_codes_send, mfa_codes_done, NULL
};

const ngx_hm_step_pt  ngx_hm_mfa_remove[] = {
    mfa_remove_send, mfa_remove_done, NULL
};


static ngx_hm_rc_t
mfa_start(ngx_hm_ctx_t *hm)
{
    hm->data = ngx_hm_pcalloc(hm, sizeof(mfa_t));

    return hm->data != NULL ? NGX_HM_NEXT
                            : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


static ngx_hm_rc_t
mfa_look(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_TOTP_GET);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


/* A new secret */


/* The address as the app will show it; too long or unreadable: none. */
static hm_str_t
mfa_label(ngx_hm_ctx_t *hm, const hm_user_keys_t *keys)
{
    u_char                *out;
    json_t                *j;
    uint32_t               version;
    hm_str_t               env, json, text, reason;
    hm_place_t             place;
    const unsigned char   *dek;

    text = HM_STR("account");
    env = hm_row_str(hm->seg.res, 0, 6);
    version = hm_row_u32(hm->seg.res, 0, 7);
    dek = hm_keys_dek(keys, version);

    place.table = "users";
    place.column = "email";
    place.row = hm->subject;
    place.owner = hm->subject;

    out = ngx_hm_palloc(hm, env.len);

    if (dek == NULL || out == NULL || env.data == NULL
        || hm_open(out, &json, dek, version, &place, env) != HM_OK
        || json.len > MFA_LABEL_MAX)
    {
        return text;
    }

    j = hm_json_parse(json, &reason);

    if (json_is_string(j)) {
        text = ngx_hm_printf(hm, "%s", json_string_value(j));
    }

    json_decref(j);

    return text;
}


/* The thread's buffer is as large as it will ever be. */
static void *
mfa_no_more(void *ctx, size_t size)
{
    return NULL;
}


static void
mfa_qr(void *work)
{
    mfa_qr_t  *qr = work;

    qr->rc = hm_qr_svg(&qr->svg, qr->uri);
}


static ngx_hm_rc_t
mfa_totp_make(ngx_hm_ctx_t *hm)
{
    hm_buf_t         uri;
    mfa_t           *mfa = hm->data;
    hm_uuid_t        id;
    mfa_qr_t        *qr;
    hm_problem_t     p;
    hm_user_keys_t  *keys;

    static hm_mem_t  no_mem = { mfa_no_more, NULL };

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    id = hm_row_uuid(hm->seg.res, 0, 0);

    if (ngx_hm_owned(hm, &id, "users") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    if (hm_row_bool(hm->seg.res, 0, 5)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "one-time codes are set up already");
    }

    keys = ngx_hm_keys(hm);
    mfa->qr = qr = ngx_hm_pcalloc(hm, sizeof(mfa_qr_t));

    if (keys == NULL || qr == NULL
        || hm_random(mfa->secret, sizeof(mfa->secret)) != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_init(&uri, &hm->mem, HM_QR_TEXT_MAX);
    hm_totp_uri(&uri, HM_STR(MFA_ISSUER), mfa_label(hm, keys), mfa->secret);
    hm_buf_init(&qr->svg, &hm->mem, HM_QR_SVG_MAX);

    if (uri.failed || hm_buf_len(&uri) > HM_QR_TEXT_MAX || qr->svg.failed) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_memcpy(qr->uri, uri.start, hm_buf_len(&uri));
    qr->svg.mem = &no_mem;

    return ngx_hm_work(hm, mfa_qr, qr, sizeof(mfa_qr_t));
}


static ngx_hm_rc_t
mfa_totp_send(ngx_hm_ctx_t *hm)
{
    char                   text[HM_TOTP_TEXT + 2];
    mfa_t                 *mfa = hm->data;
    size_t                 len;
    u_char                *sealed;
    hm_str_t               json;
    hm_place_t             place;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, keys->active) : NULL;
    sealed = ngx_hm_palloc(hm, hm_sealed_len(sizeof(text)));

    if (mfa->qr->rc != HM_OK || sealed == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (dek == NULL) {
        ngx_hm_keys_drop(&hm->subject);
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    text[0] = '"';
    text[HM_TOTP_TEXT + 1] = '"';
    hm_totp_text(text + 1, mfa->secret);
    json.data = (u_char *) text;
    json.len = sizeof(text);

    place.table = "mfa_totp";
    place.column = "secret";
    place.row = hm->subject;
    place.owner = hm->subject;

    if (hm_seal(sealed, &len, dek, keys->active, &place, json) != HM_OK) {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_wipe(text, sizeof(text));

    if (ngx_hm_mfa_seg(hm, NGX_HM_SQL_TOTP_START) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_add(&hm->seg, sealed, len);
    ngx_hm_seg_i32(hm, &hm->seg, keys->active);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
mfa_totp_done(ngx_hm_ctx_t *hm)
{
    char           text[HM_TOTP_TEXT];
    mfa_t         *mfa = hm->data;
    hm_str_t       s;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (!hm_row_bool(hm->seg.res, 0, 0)) {
        ngx_hm_keys_drop(&hm->subject);  /* the key has turned */
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    if (PQgetisnull(hm->seg.res, 0, 1)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "one-time codes are set up already");
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK,
                       2 * hm_buf_len(&mfa->qr->svg) + 1024);
    hm->headers.personal = 1;

    hm_totp_text(text, mfa->secret);
    s.data = (u_char *) text;
    s.len = sizeof(text);
    hm_buf_lit(&hm->out, "{\"secret\":");
    hm_json_text(&hm->out, s);

    s.data = (u_char *) mfa->qr->uri;
    s.len = ngx_strlen(mfa->qr->uri);
    hm_buf_lit(&hm->out, ",\"otpauth_uri\":");
    hm_json_text(&hm->out, s);

    s.data = mfa->qr->svg.start;
    s.len = hm_buf_len(&mfa->qr->svg);
    hm_buf_lit(&hm->out, ",\"qr_svg\":");
    hm_json_text(&hm->out, s);
    hm_buf_lit(&hm->out, "}");

    hm_wipe(text, sizeof(text));

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Its first code */


static ngx_hm_rc_t
mfa_confirm_read(ngx_hm_ctx_t *hm)
{
    mfa_t  *mfa = hm->data;

    ngx_hm_form_members(hm, "otp");

    if (json_is_object(hm->json)) {
        mfa->otp = ngx_hm_form_text(hm, "otp", 0, 32, 1);
    }

    return hm->faults->n == 0
           ? NGX_HM_NEXT : ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
}


static ngx_hm_rc_t
mfa_confirm_judge(ngx_hm_ctx_t *hm)
{
    mfa_t          *mfa = hm->data;
    int64_t         step;
    hm_rc_t         rc;
    hm_usec_t       started;
    ngx_hm_rc_t     open;
    hm_problem_t    p;
    unsigned char   secret[HM_TOTP_SECRET];

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0 || PQgetisnull(hm->seg.res, 0, 1)) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    started = hm_row_time(hm->seg.res, 0, 4);

    if (hm_row_bool(hm->seg.res, 0, 5)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "one-time codes are set up already");
    }

    if (hm->now - started > MFA_ENROL_TIME) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_NOT_FOUND,
                                  "the secret is too old; start again");
    }

    open = ngx_hm_totp_open(hm, secret);
    if (open != NGX_HM_NEXT) {
        return open;
    }

    rc = hm_totp_check(secret, hm->now / HM_USEC, 0, mfa->otp, &step);
    hm_wipe(secret, sizeof(secret));

    if (rc != HM_OK) {
        return ngx_hm_fail(hm, rc == HM_DECLINED ? HM_PROBLEM_MFA_INVALID
                                                 : HM_PROBLEM_SERVER_ERROR);
    }

    if (ngx_hm_mfa_seg(hm, NGX_HM_SQL_TOTP_CONFIRM) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_i64(hm, &hm->seg, (uint64_t) step);
    ngx_hm_seg_time(hm, &hm->seg, started);

    return mfa_codes_make(hm, mfa) == NGX_OK
           ? ngx_hm_seg_wait(hm) : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


/* Recovery codes */


/* Ten of them into *mfa, their hashes as the statement's last parameter. */
static ngx_int_t
mfa_codes_make(ngx_hm_ctx_t *hm, mfa_t *mfa)
{
    char             normal[HM_RECOVERY_NORMAL];
    u_char          *p;
    hm_str_t         s, hashes[HM_RECOVERY_CODES];
    ngx_uint_t       i;
    hm_user_keys_t  *keys;

    keys = ngx_hm_keys(hm);
    p = ngx_hm_palloc(hm, HM_RECOVERY_CODES * 32);

    if (keys == NULL || p == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < HM_RECOVERY_CODES; i++) {
        s.data = (u_char *) mfa->codes[i];
        s.len = HM_RECOVERY_TEXT;

        if (hm_recovery_code(mfa->codes[i]) != HM_OK
            || hm_recovery_normal(normal, s) != HM_OK)
        {
            return NGX_ERROR;
        }

        s.data = (u_char *) normal;
        s.len = sizeof(normal);
        hashes[i].data = p + i * 32;
        hashes[i].len = 32;

        if (hm_blind_index(hashes[i].data, keys->index_key,
                           "mfa_recovery_codes", "code_index", &hm->subject,
                           s) != HM_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_hm_seg_array(hm, 17, HM_RECOVERY_CODES, hashes);

    return NGX_OK;
}


static ngx_hm_rc_t
mfa_codes_send(ngx_hm_ctx_t *hm)
{
    if (ngx_hm_mfa_seg(hm, NGX_HM_SQL_RECOVERY_NEW) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return mfa_codes_make(hm, hm->data) == NGX_OK
           ? ngx_hm_seg_wait(hm) : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


static ngx_hm_rc_t
mfa_codes_done(ngx_hm_ctx_t *hm)
{
    mfa_t         *mfa = hm->data;
    hm_str_t       s;
    hm_uuid_t      id;
    ngx_uint_t     i;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_NOT_FOUND,
                                  "no second factor is set up");
    }

    id = hm_row_uuid(hm->seg.res, 0, 0);

    if (ngx_hm_owned(hm, &id, "mfa") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);
    hm->headers.personal = 1;

    hm_buf_lit(&hm->out, "{\"recovery_codes\":[");

    for (i = 0; i < HM_RECOVERY_CODES; i++) {
        s.data = (u_char *) mfa->codes[i];
        s.len = HM_RECOVERY_TEXT;

        if (i > 0) {
            hm_buf_lit(&hm->out, ",");
        }

        hm_json_text(&hm->out, s);
    }

    hm_buf_lit(&hm->out, "]}");

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* The end of one-time codes */


static ngx_hm_rc_t
mfa_remove_send(ngx_hm_ctx_t *hm)
{
    return ngx_hm_mfa_seg(hm, NGX_HM_SQL_TOTP_REMOVE) == NGX_OK
           ? ngx_hm_seg_wait(hm) : ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
}


static ngx_hm_rc_t
mfa_remove_done(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_NO_CONTENT, 0);

    return NGX_HM_DONE;
}
