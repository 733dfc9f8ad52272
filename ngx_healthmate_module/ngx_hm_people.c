/*
 * ngx_hm_people: what the endpoints about people do with one row.
 *
 * They are no resources of the CRUD engine: a relationship has two owners, a
 * grant is written by a function of the database, a profile is one document.
 * What they share is small: members of a body beyond texts (ngx_hm_form.c has
 * those), its version held against If-Match, one text sealed or opened, and
 * the beginning of a statement that carries its audit row.
 *
 * Seal and open take the keys of the person the request is about
 * (hm->subject), never of whom the row says it is: a row of somebody else
 * then does not open.
 *
 * Readers of members add their faults to the request's and answer with
 * something empty then, so that the caller reads all of them first and every
 * fault is named.  ngx_hm_form_done() is the one place that refuses.
 */

#include "ngx_hm.h"
#include "ngx_hm_people.h"


static json_t *ngx_hm_form_get(ngx_hm_ctx_t *hm, const char *name,
    ngx_uint_t required);
static ngx_uint_t ngx_hm_form_among(const char *words, const char *word,
    size_t len);


/* One of the words, which are separated by single spaces? */
static ngx_uint_t
ngx_hm_form_among(const char *words, const char *word, size_t len)
{
    const char  *p;

    for (p = words; len != 0 && p != NULL; p = strchr(p, ' ')) {
        p += *p == ' ';

        if (ngx_strncmp(p, word, len) == 0
            && (p[len] == ' ' || p[len] == '\0'))
        {
            return 1;
        }
    }

    return 0;
}


static json_t *
ngx_hm_form_get(ngx_hm_ctx_t *hm, const char *name, ngx_uint_t required)
{
    json_t  *j;

    j = json_is_object(hm->json) ? json_object_get(hm->json, name) : NULL;

    if (j != NULL && !json_is_null(j)) {
        return j;
    }

    if (required && json_is_object(hm->json)) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_REQUIRED,
                     "must be given");
    }

    return NULL;
}


hm_str_t
ngx_hm_form_word(ngx_hm_ctx_t *hm, const char *name, const char *words,
    ngx_uint_t required)
{
    hm_str_t  s;

    s = ngx_hm_form_text(hm, name, 0, 200, required);

    if (s.data == NULL) {
        return s;
    }

    if (memchr(s.data, ' ', s.len) != NULL
        || !ngx_hm_form_among(words, (char *) s.data, s.len))
    {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_ENUM,
                     "one of: %s", words);
        return hm_null_str;
    }

    return s;
}


hm_uuid_t
ngx_hm_form_uuid(ngx_hm_ctx_t *hm, const char *name)
{
    json_t     *j;
    hm_str_t    s;
    hm_uuid_t   id;

    j = ngx_hm_form_get(hm, name, 1);
    if (j == NULL) {
        return hm_nil_uuid;
    }

    if (!json_is_string(j)) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_TYPE,
                     "a string is needed");
        return hm_nil_uuid;
    }

    s.data = (u_char *) json_string_value(j);
    s.len = json_string_length(j);

    if (hm_uuid_parse(&id, s) != HM_OK) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_FORMAT,
                     "a UUID");
        return hm_nil_uuid;
    }

    return id;
}


ngx_int_t
ngx_hm_form_bool(ngx_hm_ctx_t *hm, const char *name, ngx_uint_t required)
{
    json_t  *j;

    j = ngx_hm_form_get(hm, name, required);
    if (j == NULL) {
        return -1;
    }

    if (!json_is_boolean(j)) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_TYPE,
                     "true or false");
        return -1;
    }

    return json_is_true(j);
}


hm_usec_t
ngx_hm_form_time(ngx_hm_ctx_t *hm, const char *name)
{
    hm_str_t   s;
    hm_usec_t  t;

    s = ngx_hm_form_text(hm, name, 0, 200, 0);

    if (s.data == NULL) {
        return HM_USEC_NONE;
    }

    if (hm_time_parse(&t, s) != HM_OK) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_FORMAT,
                     "RFC 3339 with offset, as 2026-03-01T08:00:00Z");
        return HM_USEC_NONE;
    }

    return t;
}


ngx_hm_rc_t
ngx_hm_form_done(ngx_hm_ctx_t *hm)
{
    return hm->faults->n == 0
           ? NGX_HM_NEXT : ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
}


ngx_hm_rc_t
ngx_hm_if_match(ngx_hm_ctx_t *hm, const hm_uuid_t *id, uint32_t version)
{
    hm_str_t  header, etag;

    header = ngx_hm_header(hm, "if-match");

    if (header.data == NULL) {
        return NGX_HM_NEXT;
    }

    if (ngx_hm_etag(hm, id, version, &etag) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    switch (ngx_hm_etag_match(header, etag, 0)) {

    case NGX_OK:
        return NGX_HM_NEXT;

    case NGX_ERROR:
        return ngx_hm_fail_detail(hm, HM_PROBLEM_INVALID_HEADER,
                                  "If-Match cannot be read");

    default:
        return ngx_hm_fail(hm, HM_PROBLEM_CHANGED);
    }
}


uint32_t
ngx_hm_seal_version(ngx_hm_ctx_t *hm)
{
    hm_user_keys_t  *keys;

    keys = ngx_hm_keys(hm);

    return keys != NULL ? keys->active : 0;
}


ngx_int_t
ngx_hm_seal_json(ngx_hm_ctx_t *hm, const char *table, const char *column,
    const hm_uuid_t *row, hm_str_t json, hm_str_t *out)
{
    hm_place_t            place;
    hm_user_keys_t       *keys;
    const unsigned char  *dek;

    *out = hm_null_str;

    if (json.data == NULL) {
        return NGX_OK;                   /* NULL is not sealed */
    }

    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, keys->active) : NULL;
    out->data = ngx_hm_palloc(hm, hm_sealed_len(json.len));

    place.table = table;
    place.column = column;
    place.row = *row;
    place.owner = hm->subject;

    if (dek == NULL || out->data == NULL
        || hm_seal(out->data, &out->len, dek, keys->active, &place, json)
           != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        *out = hm_null_str;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* json stays hm_null_str for NULL. */
ngx_int_t
ngx_hm_open_json(ngx_hm_ctx_t *hm, const char *table, const char *column,
    const hm_uuid_t *row, hm_str_t env, hm_str_t *json)
{
    u_char               *out;
    uint32_t              version;
    hm_place_t            place;
    hm_user_keys_t       *keys;
    const unsigned char  *dek;

    *json = hm_null_str;

    if (env.data == NULL) {
        return NGX_OK;
    }

    version = hm_envelope_version(env);
    keys = ngx_hm_keys(hm);
    dek = keys != NULL ? hm_keys_dek(keys, version) : NULL;
    out = ngx_hm_palloc(hm, env.len + 1);

    place.table = table;
    place.column = column;
    place.row = *row;
    place.owner = hm->subject;

    if (dek == NULL || out == NULL || env.len < HM_ENVELOPE_OVER
        || hm_open(out, json, dek, version, &place, env) != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_OPEN_FAILED, 1);
        *json = hm_null_str;
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_hm_rc_t
ngx_hm_write_start(ngx_hm_ctx_t *hm, ngx_uint_t stmt)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, stmt);

    if (ngx_hm_seg_tail(hm, &hm->seg) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    return NGX_HM_NEXT;
}
