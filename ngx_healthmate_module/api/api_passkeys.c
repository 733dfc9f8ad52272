/*
 * api_passkeys: WebAuthn credentials of an account, and logging in with one.
 *
 *     POST   passkeys/register/options   creation options, as JSON
 *     POST   passkeys/register/verify    what the browser made of them
 *     POST   passkeys/login/options      request options: of nobody
 *     POST   passkeys/login/verify       a signed challenge -> session
 *     GET    passkeys
 *     DELETE passkeys/{id}
 *
 * Options and answers are the JSON forms of WebAuthn Level 3
 * (parseCreationOptionsFromJSON, toJSON), so a page passes them through.  A
 * new member of those forms is no fault: unknown members below the
 * credential are not looked at.  Beside them we take `name` (a label) and,
 * at a login, `fingerprint`.
 *
 * Passkeys are discoverable and verify their user, which makes one of them
 * two factors: it logs in alone.  Login options carry no list of
 * credentials and no name is asked for, so they tell of nobody.
 *
 * What is kept of a credential is one sealed document; the user handle given
 * to the authenticator is the person's id.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_mfa.h"
#include "../ngx_hm_session.h"


#define PK_RP_NAME       "HealthMate"
#define PK_TRANSPORTS    6


/* What the thread gets: its own structure, texts in the arena. */
typedef struct {
    const hm_webauthn_rp_t  *rp;
    hm_str_t                 object;
    hm_webauthn_new_t        cred;
    hm_rc_t                  rc;
} pk_work_t;


typedef struct {
    unsigned char       challenge[HM_WEBAUTHN_CHALLENGE];
    hm_buf_t            options;
    hm_uuid_t           id;
    hm_str_t            raw_id;
    hm_str_t            name;
    unsigned            transports;      /* bits of pk_transports */
    pk_work_t           work;
    ngx_hm_passkey_t   *login;
    unsigned            fingerprint:1;
} pk_t;


static const char  *pk_transports[PK_TRANSPORTS] = {
    "usb", "nfc", "ble", "smart-card", "hybrid", "internal"
};


static ngx_hm_rc_t pk_start(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_options_look(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_options_make(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_options_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_new_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_new_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_new_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_login_make(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_login_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_login_open(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_list_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_list_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_remove_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t pk_remove_done(ngx_hm_ctx_t *hm);

static ngx_int_t pk_challenge(hm_buf_t *b, pk_t *pk);
static ngx_int_t pk_person(ngx_hm_ctx_t *hm, hm_buf_t *b);
static ngx_int_t pk_exclude(ngx_hm_ctx_t *hm, hm_buf_t *b);
static void pk_new_transports(pk_t *pk, json_t *list);
static void pk_new_work(void *work);
static ngx_int_t pk_seal(ngx_hm_ctx_t *hm, pk_t *pk, hm_str_t *out,
    uint32_t *version);
static void pk_bytes(hm_buf_t *b, const void *data, size_t len);
static void pk_write_transports(hm_buf_t *b, unsigned bits);
static void pk_item(hm_buf_t *b, const hm_uuid_t *id, json_t *doc,
    hm_usec_t created, hm_usec_t used);


const ngx_hm_step_pt  ngx_hm_passkey_register_options[] = {
    ngx_hm_passkey_on, pk_start, ngx_hm_step_keys, pk_options_look,
    pk_options_make, pk_options_done, NULL
};

const ngx_hm_step_pt  ngx_hm_passkey_register_verify[] = {
    ngx_hm_passkey_on, ngx_hm_json_body, pk_start, pk_new_read,
    ngx_hm_step_keys, pk_new_send, pk_new_done, NULL
};

const ngx_hm_step_pt  ngx_hm_passkey_login_options[] = {
    ngx_hm_passkey_on, pk_start, pk_login_make, pk_options_done, NULL
};

const ngx_hm_step_pt  ngx_hm_passkey_login_verify[] = {
    ngx_hm_passkey_on, ngx_hm_json_body, pk_start, pk_login_read,
    pk_login_open, NULL
};

const ngx_hm_step_pt  ngx_hm_passkey_list[] = {
    ngx_hm_step_keys, pk_list_send, pk_list_done, NULL
};

const ngx_hm_step_pt  ngx_hm_passkey_remove[] = {
    pk_remove_send, pk_remove_done, NULL
};


static ngx_hm_rc_t
pk_start(ngx_hm_ctx_t *hm)
{
    hm->data = ngx_hm_pcalloc(hm, sizeof(pk_t));

    return hm->data != NULL ? NGX_HM_NEXT
                            : ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
}


/* Bytes as a JSON string of base64url. */
static void
pk_bytes(hm_buf_t *b, const void *data, size_t len)
{
    if (!hm_buf_reserve(b, hm_b64url_len(len) + 8)) {
        return;
    }

    hm_buf_lit(b, "\"");
    b->pos += hm_b64url_encode((char *) b->pos, data, len);
    hm_buf_lit(b, "\"");
}


static ngx_int_t
pk_challenge(hm_buf_t *b, pk_t *pk)
{
    if (hm_random(pk->challenge, sizeof(pk->challenge)) != HM_OK) {
        return NGX_ERROR;
    }

    hm_buf_lit(b, "\"challenge\":");
    pk_bytes(b, pk->challenge, sizeof(pk->challenge));
    hm_buf_printf(b, ",\"timeout\":%d", NGX_HM_CHALLENGE_TIME * 1000);

    return NGX_OK;
}


static void
pk_write_transports(hm_buf_t *b, unsigned bits)
{
    ngx_uint_t  i, n;

    hm_buf_lit(b, "[");

    for (i = 0, n = 0; i < PK_TRANSPORTS; i++) {
        if (bits & (1u << i)) {
            hm_buf_printf(b, "%s\"%s\"", n++ > 0 ? "," : "",
                          pk_transports[i]);
        }
    }

    hm_buf_lit(b, "]");
}


/* A new one: options */


static ngx_hm_rc_t
pk_options_look(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_PASSKEY_WHO);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


/* "user": the sealed texts are JSON strings already. */
static ngx_int_t
pk_person(ngx_hm_ctx_t *hm, hm_buf_t *b)
{
    u_char                *out;
    uint32_t               version;
    hm_str_t               env, json;
    hm_place_t             place;
    ngx_uint_t             i;
    hm_user_keys_t        *keys;
    const unsigned char   *dek;

    static const struct {
        const char        *column;
        const char        *name;
    } texts[] = { { "email", "name" }, { "full_name", "displayName" } };

    version = hm_row_u32(hm->seg.res, 0, 3);
    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, version) : NULL;

    if (dek == NULL) {
        ngx_hm_keys_drop(&hm->subject);
        return NGX_DECLINED;
    }

    hm_buf_lit(b, "\"user\":{\"id\":");
    pk_bytes(b, hm->subject.b, 16);

    place.table = "users";
    place.row = hm->subject;
    place.owner = hm->subject;

    for (i = 0; i < 2; i++) {
        env = hm_row_str(hm->seg.res, 0, 1 + (int) i);
        json = HM_STR("\"\"");
        place.column = texts[i].column;

        if (env.data != NULL) {
            out = ngx_hm_palloc(hm, env.len);

            if (out == NULL
                || hm_open(out, &json, dek, version, &place, env) != HM_OK)
            {
                ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
                return NGX_ERROR;
            }
        }

        hm_buf_printf(b, ",\"%s\":", texts[i].name);
        hm_buf_str(b, json);
    }

    hm_buf_lit(b, "}");

    return NGX_OK;
}


/* An authenticator that has one of ours already makes no second. */
static ngx_int_t
pk_exclude(ngx_hm_ctx_t *hm, hm_buf_t *b)
{
    int         i;
    json_t     *j;
    hm_str_t    s;
    hm_uuid_t   id;

    hm_buf_lit(b, "\"excludeCredentials\":[");

    for (i = 0; i < PQntuples(hm->seg.res); i++) {
        if (PQgetisnull(hm->seg.res, i, 4)) {
            break;
        }

        id = hm_row_uuid(hm->seg.res, i, 4);
        j = ngx_hm_passkey_open(hm, &id, hm_row_u32(hm->seg.res, i, 6),
                                hm_row_str(hm->seg.res, i, 5));
        if (j == NULL) {
            return NGX_ERROR;
        }

        s.data = (u_char *) json_string_value(json_object_get(j, "id"));
        s.len = json_string_length(json_object_get(j, "id"));

        hm_buf_printf(b, "%s{\"type\":\"public-key\",\"id\":",
                      i > 0 ? "," : "");
        hm_json_text(b, s);
        hm_buf_lit(b, ",\"transports\":");
        pk_write_transports(b, (unsigned) json_integer_value(
                                json_object_get(j, "transports")));
        hm_buf_lit(b, "}");
        json_decref(j);
    }

    hm_buf_lit(b, "]");

    return NGX_OK;
}


static ngx_hm_rc_t
pk_options_make(ngx_hm_ctx_t *hm)
{
    pk_t          *pk = hm->data;
    hm_buf_t      *b;
    hm_uuid_t      id;
    hm_problem_t   p;

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

    b = &pk->options;
    hm_buf_init(b, &hm->mem, 2048);
    hm_buf_lit(b, "{\"rp\":{\"name\":\"" PK_RP_NAME "\",\"id\":");
    hm_json_text(b, hm->conf->webauthn.id);
    hm_buf_lit(b, "},");

    switch (pk_person(hm, b)) {
    case NGX_OK:
        break;
    case NGX_DECLINED:
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    default:
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_lit(b, ",");

    if (pk_challenge(b, pk) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_printf(b, ",\"pubKeyCredParams\":["
                  "{\"type\":\"public-key\",\"alg\":%d},"
                  "{\"type\":\"public-key\",\"alg\":%d},"
                  "{\"type\":\"public-key\",\"alg\":%d}],"
                  "\"authenticatorSelection\":{\"residentKey\":\"required\","
                  "\"requireResidentKey\":true,"
                  "\"userVerification\":\"required\"},"
                  "\"attestation\":\"none\",", HM_COSE_ES256, HM_COSE_EDDSA,
                  HM_COSE_RS256);

    if (pk_exclude(hm, b) != NGX_OK) {
        return NGX_HM_FAIL;
    }

    hm_buf_lit(b, "}");

    return ngx_hm_challenge_put(hm, pk->challenge, &hm->subject);
}


static ngx_hm_rc_t
pk_options_done(ngx_hm_ctx_t *hm)
{
    pk_t          *pk = hm->data;
    hm_str_t       s;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    s.data = pk->options.start;
    s.len = hm_buf_len(&pk->options);

    ngx_hm_reply_start(hm, NGX_HTTP_OK, s.len + 16);
    hm->headers.personal = 1;
    hm_buf_str(&hm->out, s);

    return pk->options.failed || hm->out.failed
           ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR) : NGX_HM_DONE;
}


/* A new one: what came of it */


static void
pk_new_transports(pk_t *pk, json_t *list)
{
    size_t       i;
    json_t      *j;
    ngx_uint_t   n;

    json_array_foreach(list, i, j) {
        for (n = 0; n < PK_TRANSPORTS; n++) {
            if (json_is_string(j)
                && ngx_strcmp(json_string_value(j), pk_transports[n]) == 0)
            {
                pk->transports |= 1u << n;
            }
        }
    }
}


static ngx_hm_rc_t
pk_new_read(ngx_hm_ctx_t *hm)
{
    pk_t      *pk = hm->data;
    json_t    *r;
    hm_str_t   client, raw;

    client = hm_null_str;

    if (!json_is_object(hm->json)) {
        hm_fault_add(hm->faults, HM_STR(""), NULL, HM_FAULT_TYPE,
                     "an object is needed");
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    pk->raw_id = ngx_hm_passkey_bytes(hm, hm->json, "", "id",
                                      HM_WEBAUTHN_ID_MAX);
    raw = ngx_hm_passkey_bytes(hm, hm->json, "", "rawId",
                               HM_WEBAUTHN_ID_MAX);
    pk->name = ngx_hm_form_text(hm, "name", 1, 200, 0);
    r = json_object_get(hm->json, "response");

    if (raw.data != NULL && pk->raw_id.data != NULL
        && !hm_str_eq(raw, pk->raw_id))
    {
        hm_fault_add(hm->faults, HM_STR(""), "rawId", HM_FAULT_FORMAT,
                     "not the same as id");
    }

    if (!json_is_object(r)) {
        hm_fault_add(hm->faults, HM_STR(""), "response",
                     r == NULL ? HM_FAULT_REQUIRED : HM_FAULT_TYPE,
                     "an object is needed");

    } else {
        client = ngx_hm_passkey_bytes(hm, r, "/response", "clientDataJSON",
                                      HM_WEBAUTHN_CLIENT_MAX);
        pk->work.object = ngx_hm_passkey_bytes(hm, r, "/response",
                                               "attestationObject",
                                               HM_WEBAUTHN_DATA_MAX);
        pk_new_transports(pk, json_object_get(r, "transports"));
    }

    if (client.data != NULL
        && hm_webauthn_client(&hm->conf->webauthn, "webauthn.create", client,
                              pk->challenge) != HM_OK)
    {
        hm_fault_add(hm->faults, HM_STR("/response"), "clientDataJSON",
                     HM_FAULT_FORMAT, "not of this site, or not of a "
                     "registration");
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    pk->work.rp = &hm->conf->webauthn;
    pk->work.rc = HM_ERROR;

    return ngx_hm_work(hm, pk_new_work, &pk->work, sizeof(pk->work));
}


/* In a thread: it makes the key, to see whether it is one. */
static void
pk_new_work(void *data)
{
    pk_work_t  *work = data;

    work->rc = hm_webauthn_new(work->rp, work->object, &work->cred);
}


/* The document of a credential, sealed. */
static ngx_int_t
pk_seal(ngx_hm_ctx_t *hm, pk_t *pk, hm_str_t *out, uint32_t *version)
{
    hm_buf_t               b;
    hm_str_t               json;
    hm_place_t             place;
    hm_user_keys_t        *keys;
    hm_webauthn_new_t     *cred;
    const unsigned char   *dek;

    cred = &pk->work.cred;
    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, keys->active) : NULL;

    if (dek == NULL || hm_uuid7(&pk->id, hm->now) != HM_OK) {
        ngx_hm_keys_drop(&hm->subject);
        return NGX_ERROR;
    }

    *version = keys->active;

    hm_buf_init(&b, &hm->mem, 2048);
    hm_buf_lit(&b, "{\"id\":");
    pk_bytes(&b, cred->id.data, cred->id.len);
    hm_buf_lit(&b, ",\"key\":");
    pk_bytes(&b, cred->key.data, cred->key.len);
    hm_buf_printf(&b, ",\"alg\":%d,\"backed_up\":%s,\"transports\":%u,"
                  "\"aaguid\":", cred->alg,
                  cred->flags & HM_WEBAUTHN_BS ? "true" : "false",
                  pk->transports);
    pk_bytes(&b, cred->aaguid, sizeof(cred->aaguid));
    hm_buf_lit(&b, ",\"name\":");
    hm_json_text_or_null(&b, pk->name);
    hm_buf_lit(&b, "}");

    json.data = b.start;
    json.len = hm_buf_len(&b);

    place.table = "passkeys";
    place.column = "credential";
    place.row = pk->id;
    place.owner = hm->subject;

    out->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    if (b.failed || out->data == NULL
        || hm_seal(out->data, &out->len, dek, keys->active, &place, json)
           != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_hm_rc_t
pk_new_send(ngx_hm_ctx_t *hm)
{
    pk_t      *pk = hm->data;
    u_char    *digest;
    hm_str_t   sealed;
    uint32_t   version;

    if (pk->work.rc != HM_OK || !hm_str_eq(pk->work.cred.id, pk->raw_id)) {
        hm_fault_add(hm->faults, HM_STR("/response"), "attestationObject",
                     HM_FAULT_FORMAT, "not a credential of this site with "
                     "user verification and a key of ES256, EdDSA or RS256");
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    digest = ngx_hm_palloc(hm, 64);

    if (digest == NULL
        || hm_sha256(digest, pk->challenge, sizeof(pk->challenge)) != HM_OK
        || hm_sha256(digest + 32, pk->raw_id.data, pk->raw_id.len) != HM_OK
        || pk_seal(hm, pk, &sealed, &version) != NGX_OK
        || ngx_hm_mfa_seg(hm, NGX_HM_SQL_PASSKEY_ADD) != NGX_OK)
    {
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_add(&hm->seg, digest, 32);
    ngx_hm_seg_uuid(&hm->seg, &pk->id);
    ngx_hm_seg_add(&hm->seg, digest + 32, 32);
    ngx_hm_seg_str(&hm->seg, sealed);
    ngx_hm_seg_i64(hm, &hm->seg, pk->work.cred.count);
    ngx_hm_seg_i32(hm, &hm->seg, version);

    return ngx_hm_seg_wait(hm);
}


/* Columns: challenge found, key active, room left, user_id, mail */
static ngx_hm_rc_t
pk_new_done(ngx_hm_ctx_t *hm)
{
    pk_t          *pk = hm->data;
    char           id[HM_UUID_TEXT];
    json_t        *doc;
    PGresult      *r;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (!hm_row_bool(r, 0, 0)) {
        hm_fault_add(hm->faults, HM_STR("/response"), "clientDataJSON",
                     HM_FAULT_FORMAT, "its challenge is unknown, used or "
                     "too old");
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (!hm_row_bool(r, 0, 1)) {
        ngx_hm_keys_drop(&hm->subject);
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    if (PQgetisnull(r, 0, 3)) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  hm_row_bool(r, 0, 2)
                                  ? "this passkey is registered already"
                                  : "there are %d passkeys already",
                                  NGX_HM_PASSKEYS_MAX);
    }

    hm_uuid_format(&pk->id, id);
    hm->headers.location = ngx_hm_printf(hm, "/api/v1/auth/passkeys/%.*s",
                                         HM_UUID_TEXT, id);
    doc = json_pack("{s:s%,s:b,s:i}", "name",
                    pk->name.data != NULL ? (char *) pk->name.data : "",
                    pk->name.len, "backed_up",
                    (pk->work.cred.flags & HM_WEBAUTHN_BS) != 0,
                    "transports", (int) pk->transports);

    if (doc == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (pk->name.data == NULL) {
        (void) json_object_set_new(doc, "name", json_null());
    }

    ngx_hm_reply_start(hm, NGX_HTTP_CREATED, 512);
    hm->headers.personal = 1;
    pk_item(&hm->out, &pk->id, doc, hm->now, HM_USEC_NONE);
    json_decref(doc);

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Logging in */


static ngx_hm_rc_t
pk_login_make(ngx_hm_ctx_t *hm)
{
    pk_t      *pk = hm->data;
    hm_buf_t  *b;

    b = &pk->options;
    hm_buf_init(b, &hm->mem, 512);
    hm_buf_lit(b, "{");

    if (pk_challenge(b, pk) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_buf_lit(b, ",\"rpId\":");
    hm_json_text(b, hm->conf->webauthn.id);
    hm_buf_lit(b, ",\"allowCredentials\":[],"
                  "\"userVerification\":\"required\"}");

    return ngx_hm_challenge_put(hm, pk->challenge, &hm_nil_uuid);
}


static ngx_hm_rc_t
pk_login_read(ngx_hm_ctx_t *hm)
{
    pk_t  *pk = hm->data;

    pk->login = ngx_hm_passkey_read(hm, hm->json, "");

    if (pk->login == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    pk->fingerprint = ngx_hm_form_fingerprint(hm);

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (pk->fingerprint && hm->plain) {
        return ngx_hm_fail(hm, HM_PROBLEM_FINGERPRINT_NEEDS_TLS);
    }

    return ngx_hm_passkey(hm, pk->login);
}


static ngx_hm_rc_t
pk_login_open(ngx_hm_ctx_t *hm)
{
    pk_t  *pk = hm->data;

    if (ngx_hm_session_begin(hm, &pk->login->user, pk->login->role,
                             HM_AMR_HWK, pk->fingerprint) == NULL
        || ngx_hm_device_make(hm, &pk->login->user,
                              pk->login->password_version) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->session->password_version = pk->login->password_version;
    ngx_hm_session_enter(hm);

    return ngx_hm_goto(hm, ngx_hm_session_open);
}


/* Those there are */


static void
pk_item(hm_buf_t *b, const hm_uuid_t *id, json_t *doc, hm_usec_t created,
    hm_usec_t used)
{
    hm_str_t  name;

    name.data = (u_char *) json_string_value(json_object_get(doc, "name"));
    name.len = json_string_length(json_object_get(doc, "name"));

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, id);
    hm_buf_lit(b, ",\"name\":");
    hm_json_text_or_null(b, name);
    hm_buf_printf(b, ",\"backed_up\":%s,\"transports\":",
                  json_is_true(json_object_get(doc, "backed_up"))
                  ? "true" : "false");
    pk_write_transports(b, (unsigned) json_integer_value(
                            json_object_get(doc, "transports")));
    hm_buf_lit(b, ",\"created_at\":");
    hm_json_time(b, created);
    hm_buf_lit(b, ",\"last_used_at\":");
    hm_json_time(b, used);
    hm_buf_lit(b, "}");
}


static ngx_hm_rc_t
pk_list_send(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_PASSKEYS);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
pk_list_done(ngx_hm_ctx_t *hm)
{
    int            i;
    json_t        *doc;
    PGresult      *r;
    hm_uuid_t      id, owner;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 1024);
    hm->headers.personal = 1;
    hm_buf_lit(&hm->out, "{\"items\":[");

    for (i = 0; i < PQntuples(r); i++) {
        id = hm_row_uuid(r, i, 0);
        owner = hm_row_uuid(r, i, 1);

        if (ngx_hm_owned(hm, &owner, "passkeys") != NGX_HM_NEXT) {
            return NGX_HM_FAIL;
        }

        doc = ngx_hm_passkey_open(hm, &id, hm_row_u32(r, i, 3),
                                  hm_row_str(r, i, 2));
        if (doc == NULL) {
            return NGX_HM_FAIL;
        }

        if (i > 0) {
            hm_buf_lit(&hm->out, ",");
        } else {
            hm->audit.row.first = id;
        }

        pk_item(&hm->out, &id, doc, hm_row_time(r, i, 4),
                PQgetisnull(r, i, 5) ? HM_USEC_NONE : hm_row_time(r, i, 5));
        json_decref(doc);
        hm->audit.row.last = id;
    }

    hm->audit.row.items = (uint32_t) PQntuples(r);
    hm_buf_lit(&hm->out, "],\"next\":null}");

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


static ngx_hm_rc_t
pk_remove_send(ngx_hm_ctx_t *hm)
{
    if (ngx_hm_mfa_seg(hm, NGX_HM_SQL_PASSKEY_REMOVE) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_uuid(&hm->seg, &hm->path_id);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
pk_remove_done(ngx_hm_ctx_t *hm)
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
