/*
 * ngx_hm_idempotent: a POST that is sent twice happens once.
 *
 * Scope: caller, subject, method, path, key.  Kept for 24 h, in the
 * transaction of the write itself: status, Location, ETag and the body,
 * sealed under the subject's key, and a MAC of the request's body under the
 * subject's index key, which tells a repeat from another request.  Only 2xx
 * are kept.  A replay has passed the gate and leaves its audit record like
 * any other access.
 */

#include "ngx_hm.h"
#include "ngx_hm_crud.h"


typedef struct ngx_hm_idem_s  ngx_hm_idem_t;

struct ngx_hm_idem_s {
    unsigned char   scope[32];
    unsigned char   mac[32];
};


static ngx_int_t ngx_hm_idem_key(ngx_hm_ctx_t *hm, hm_str_t *key);
static ngx_int_t ngx_hm_idem_scope(ngx_hm_ctx_t *hm, ngx_hm_idem_t *idem,
    hm_str_t key);
static ngx_hm_rc_t ngx_hm_idem_found(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_idem_replay(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_idem_kept(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_idem_seal(ngx_hm_ctx_t *hm, const char *column,
    hm_str_t json, hm_str_t *sealed, uint32_t *version);
static ngx_int_t ngx_hm_idem_open(ngx_hm_ctx_t *hm, const char *column,
    hm_str_t sealed, hm_str_t *json);
static hm_str_t ngx_hm_idem_headers(ngx_hm_ctx_t *hm);
static void ngx_hm_idem_params(ngx_hm_ctx_t *hm, const char **values,
    int *lengths, hm_str_t headers, hm_str_t body, uint32_t version);


static const ngx_hm_step_pt  ngx_hm_idem_look[] = {
    ngx_hm_idem_found, NULL
};

static const ngx_hm_step_pt  ngx_hm_idem_keep[] = {
    ngx_hm_idem_kept, NULL
};


ngx_hm_rc_t
ngx_hm_step_idempotent(ngx_hm_ctx_t *hm)
{
    hm_str_t        key;
    ngx_hm_idem_t  *idem;

    if (hm->ndjson) {
        return NGX_HM_NEXT;              /* dedup makes repeats safe */
    }

    switch (ngx_hm_idem_key(hm, &key)) {
    case NGX_DECLINED:
        return NGX_HM_NEXT;
    case NGX_ERROR:
        return ngx_hm_fail_detail(hm, HM_PROBLEM_INVALID_HEADER,
                                  "Idempotency-Key: 1..255 characters");
    default:
        break;
    }

    idem = ngx_hm_palloc(hm, sizeof(ngx_hm_idem_t));

    if (idem == NULL || ngx_hm_idem_scope(hm, idem, key) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->idem = idem;

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_IDEM_GET);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_add(&hm->seg, idem->scope, 32);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    ngx_hm_call(hm, ngx_hm_idem_look);

    return ngx_hm_seg_wait(hm);
}


static ngx_int_t
ngx_hm_idem_key(ngx_hm_ctx_t *hm, hm_str_t *key)
{
    size_t  i;

    *key = ngx_hm_header(hm, "idempotency-key");

    if (key->data == NULL) {
        return NGX_DECLINED;
    }

    if (key->len >= 2 && key->data[0] == '"'
        && key->data[key->len - 1] == '"')
    {
        key->data++;
        key->len -= 2;
    }

    if (key->len < 1 || key->len > 255) {
        return NGX_ERROR;
    }

    for (i = 0; i < key->len; i++) {
        if (key->data[i] < 0x20 || key->data[i] == 0x7f) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_hm_idem_scope(ngx_hm_ctx_t *hm, ngx_hm_idem_t *idem, hm_str_t key)
{
    hm_buf_t         b;
    hm_user_keys_t  *keys;

    keys = ngx_hm_keys(hm);

    hm_buf_init(&b, &hm->mem, 512);
    hm_buf_printf(&b, "%s|%s|", hm->route->path,
                  ngx_hm_arg(hm, "atomic") != NULL ? "atomic" : "");
    hm_buf_str(&b, key);

    if (b.failed || keys == NULL
        || hm_sha256(idem->scope, b.start, hm_buf_len(&b)) != HM_OK
        || hm_hmac(idem->mac, keys->index_key, HM_KEY_LEN, hm->body.data,
                   hm->body.len) != HM_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* Columns: body_mac, status, headers, body, dek_version. */
static ngx_hm_rc_t
ngx_hm_idem_found(ngx_hm_ctx_t *hm)
{
    hm_str_t      mac;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        ngx_hm_seg_clear(&hm->seg);
        return ngx_hm_return(hm);
    }

    mac = hm_row_str(hm->seg.res, 0, 0);

    if (mac.len != 32 || !hm_equal_ct(mac.data, hm->idem->mac, 32)) {
        return ngx_hm_fail(hm, HM_PROBLEM_KEY_REUSED);
    }

    return ngx_hm_idem_replay(hm);
}


static ngx_hm_rc_t
ngx_hm_idem_replay(ngx_hm_ctx_t *hm)
{
    json_t    *j;
    uint32_t   status;
    hm_str_t   headers, body;

    status = hm_row_u32(hm->seg.res, 0, 1);

    if (ngx_hm_idem_open(hm, "headers", hm_row_str(hm->seg.res, 0, 2),
                         &headers) != NGX_OK
        || ngx_hm_idem_open(hm, "body", hm_row_str(hm->seg.res, 0, 3),
                            &body) != NGX_OK)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    j = json_loadb((char *) headers.data, headers.len, 0, NULL);
    if (j == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_keep_json(hm, j);

    ngx_hm_reply_start(hm, status, body.len + 1);
    hm_buf_str(&hm->out, body);

    hm->headers.replayed = 1;
    hm->headers.location.data = (u_char *)
                      json_string_value(json_object_get(j, "location"));
    hm->headers.location.len =
                      json_string_length(json_object_get(j, "location"));
    hm->headers.etag.data = (u_char *)
                      json_string_value(json_object_get(j, "etag"));
    hm->headers.etag.len = json_string_length(json_object_get(j, "etag"));

    hm->audit.row.items = 1;

    /* the step that called is not to go on: the answer is there */

    hm->nback = 0;

    return NGX_HM_DONE;
}


static ngx_int_t
ngx_hm_idem_seal(ngx_hm_ctx_t *hm, const char *column, hm_str_t json,
    hm_str_t *sealed, uint32_t *version)
{
    hm_place_t            place;
    hm_user_keys_t       *keys;
    const unsigned char  *dek;

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, keys->active) : NULL;

    sealed->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    if (dek == NULL || sealed->data == NULL) {
        return NGX_ERROR;
    }

    place.table = "idempotency_keys";
    place.column = column;
    place.owner = hm->subject;
    ngx_memcpy(place.row.b, hm->idem->scope, 16);

    *version = keys->active;

    return hm_seal(sealed->data, &sealed->len, dek, keys->active, &place,
                   json) == HM_OK ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_hm_idem_open(ngx_hm_ctx_t *hm, const char *column, hm_str_t sealed,
    hm_str_t *json)
{
    u_char               *out;
    hm_place_t            place;
    hm_user_keys_t       *keys;
    const unsigned char  *dek;

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, hm_envelope_version(sealed))
                       : NULL;

    if (dek == NULL || sealed.len < HM_ENVELOPE_OVER) {
        return NGX_ERROR;
    }

    out = ngx_hm_palloc(hm, sealed.len);
    if (out == NULL) {
        return NGX_ERROR;
    }

    place.table = "idempotency_keys";
    place.column = column;
    place.owner = hm->subject;
    ngx_memcpy(place.row.b, hm->idem->scope, 16);

    return hm_open(out, json, dek, hm_envelope_version(sealed), &place,
                   sealed) == HM_OK ? NGX_OK : NGX_ERROR;
}


static hm_str_t
ngx_hm_idem_headers(ngx_hm_ctx_t *hm)
{
    hm_buf_t  b;
    hm_str_t  s;

    hm_buf_init(&b, &hm->mem, 256);
    hm_buf_lit(&b, "{\"location\":");
    hm_json_text_or_null(&b, hm->headers.location);
    hm_buf_lit(&b, ",\"etag\":");
    hm_json_text_or_null(&b, hm->headers.etag);
    hm_buf_lit(&b, "}");

    s.data = b.start;
    s.len = b.failed ? 0 : hm_buf_len(&b);

    return s;
}


/*
 * The answer of a creation is known before it happens: id, times and version
 * are the module's.  So it goes along with the insert.
 */
ngx_hm_rc_t
ngx_hm_idempotent_join(ngx_hm_ctx_t *hm)
{
    hm_str_t              headers, body, h, b;
    uint32_t              version;
    hm_record_t           shown;
    const hm_resource_t  *res;

    res = hm->route->resource;
    shown = *hm->record;

    if (res->shown != NULL
        && res->shown(res, &hm->mem, &shown) != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (ngx_hm_crud_reply(hm, NGX_HTTP_CREATED, &shown) != NGX_HM_DONE) {
        return NGX_HM_FAIL;
    }

    headers = ngx_hm_idem_headers(hm);
    body.data = hm->out.start;
    body.len = hm_buf_len(&hm->out);

    if (ngx_hm_idem_seal(hm, "headers", headers, &h, &version) != NGX_OK
        || ngx_hm_idem_seal(hm, "body", body, &b, &version) != NGX_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->seg.more = 1;
    hm->seg.more_stmt = ngx_hm_stmt_of(res, HM_SQL_IDEM, 0);
    hm->seg.more_nparams = 10;

    ngx_hm_idem_params(hm, hm->seg.more_values, hm->seg.more_lengths, h, b,
                       version);

    hm->seg.more_values[9] = (char *) hm->record->id.b;
    hm->seg.more_lengths[9] = 16;

    return NGX_HM_NEXT;
}


static void
ngx_hm_idem_params(ngx_hm_ctx_t *hm, const char **values, int *lengths,
    hm_str_t headers, hm_str_t body, uint32_t version)
{
    u_char  *p;

    p = ngx_hm_palloc(hm, 16);

    if (p == NULL) {
        ngx_memzero(values, 9 * sizeof(char *));
        return;                          /* NOT NULL columns refuse it */
    }

    hm_put_u32(p, (uint32_t) hm->status);
    hm_put_u32(p + 4, version);
    hm_put_time(p + 8, hm->now);

    values[0] = (char *) hm->who.sub.b;     lengths[0] = 16;
    values[1] = (char *) hm->subject.b;     lengths[1] = 16;
    values[2] = (char *) hm->idem->scope;   lengths[2] = 32;
    values[3] = (char *) hm->idem->mac;     lengths[3] = 32;
    values[4] = (char *) p;                 lengths[4] = 4;
    values[5] = (char *) headers.data;      lengths[5] = (int) headers.len;
    values[6] = (char *) body.data;         lengths[6] = (int) body.len;
    values[7] = (char *) p + 4;             lengths[7] = 4;
    values[8] = (char *) p + 8;             lengths[8] = 8;
}


/*
 * An answer that was only known afterwards (an equal record was there, a
 * batch): what it did is safe to repeat, so its record may follow.
 */
ngx_hm_rc_t
ngx_hm_idempotent_keep(ngx_hm_ctx_t *hm, ngx_hm_rc_t rc)
{
    int       i;
    hm_str_t  headers, body, h, b;
    uint32_t  version;

    if (rc != NGX_HM_DONE || hm->idem == NULL || hm->status >= 300) {
        return rc;
    }

    headers = ngx_hm_idem_headers(hm);
    body.data = hm->out.start;
    body.len = hm_buf_len(&hm->out);

    if (ngx_hm_idem_seal(hm, "headers", headers, &h, &version) != NGX_OK
        || ngx_hm_idem_seal(hm, "body", body, &b, &version) != NGX_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_IDEM_PUT);
    ngx_hm_idem_params(hm, hm->seg.values, hm->seg.lengths, h, b, version);
    hm->seg.nparams = 9;

    for (i = 0; i < 9; i++) {
        if (hm->seg.values[i] == NULL) {
            hm->seg.lengths[i] = 0;
        }
    }

    ngx_hm_goto(hm, ngx_hm_idem_keep);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_idem_kept(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);

    return p == HM_PROBLEM_NONE ? NGX_HM_DONE : ngx_hm_fail(hm, p);
}
