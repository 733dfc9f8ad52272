/*
 * ngx_hm_list: what a list was asked for, and the cursor of its next page.
 *
 * A cursor is the place of the last row shown (time, id) and a MAC over it
 * and over everything the walk is bound to: caller, subject, route, filters
 * and order.  It can be used with another limit, and with nothing else.
 */

#include "ngx_hm.h"
#include "ngx_hm_crud.h"


#define NGX_HM_CURSOR       41           /* 1 + 8 + 16 + 16 */
#define NGX_HM_TYPES_MAX    20
#define NGX_HM_TIME_MIN     (-5364662400LL * HM_USEC)     /* 1800 */
#define NGX_HM_TIME_MAX     (253402300800LL * HM_USEC)    /* 10000 */


static void ngx_hm_list_limit(ngx_hm_ctx_t *hm, ngx_hm_list_t *list);
static void ngx_hm_list_types(ngx_hm_ctx_t *hm, ngx_hm_list_t *list);
static ngx_uint_t ngx_hm_list_named(hm_str_t list, hm_str_t type);
static ngx_int_t ngx_hm_list_bind(ngx_hm_ctx_t *hm, ngx_hm_list_t *list);
static hm_problem_t ngx_hm_list_place(ngx_hm_ctx_t *hm, ngx_hm_list_t *list);
static ngx_int_t ngx_hm_cursor_mac(ngx_hm_list_t *list,
    const u_char *cursor, unsigned char mac[32]);


ngx_hm_rc_t
ngx_hm_list_query(ngx_hm_ctx_t *hm, ngx_hm_list_t *list)
{
    size_t         faults;
    hm_str_t      *arg;
    hm_problem_t   p;

    list->limit = 20;
    list->from = HM_USEC_NONE;
    list->to = HM_USEC_NONE;

    ngx_hm_list_limit(hm, list);
    ngx_hm_list_types(hm, list);

    arg = ngx_hm_arg(hm, "order");

    if (arg != NULL) {
        if (hm_str_eq(*arg, HM_STR("asc"))) {
            list->asc = 1;
        } else if (!hm_str_eq(*arg, HM_STR("desc"))) {
            hm_fault_param(hm->faults, "order", HM_FAULT_ENUM,
                           "asc or desc");
        }
    }

    arg = ngx_hm_arg(hm, "source");

    if (arg != NULL) {
        if (arg->len == 0 || arg->len > 64) {
            hm_fault_param(hm->faults, "source", HM_FAULT_LENGTH,
                           "1..64 characters");
        }

        list->source = *arg;
        list->filtered = 1;
    }

    faults = hm->faults->n;
    (void) ngx_hm_query_time(hm, "from", &list->from);
    (void) ngx_hm_query_time(hm, "to", &list->to);

    if (hm->faults->n == faults
        && list->from != HM_USEC_NONE && list->to != HM_USEC_NONE
        && list->from >= list->to)
    {
        hm_fault_param(hm->faults, "from", HM_FAULT_ORDER,
                       "must be before to");
    }

    if (hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_INVALID_PARAMETER);
    }

    if (list->from == HM_USEC_NONE) {
        list->from = NGX_HM_TIME_MIN;
    }

    if (list->to == HM_USEC_NONE) {
        list->to = NGX_HM_TIME_MAX;
    }

    if (ngx_hm_list_bind(hm, list) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    p = ngx_hm_list_place(hm, list);

    return p == HM_PROBLEM_NONE ? NGX_HM_NEXT : ngx_hm_fail(hm, p);
}


static void
ngx_hm_list_limit(ngx_hm_ctx_t *hm, ngx_hm_list_t *list)
{
    hm_str_t   *arg;
    ngx_int_t   n;

    arg = ngx_hm_arg(hm, "limit");
    if (arg == NULL) {
        return;
    }

    n = ngx_atoi(arg->data, arg->len);

    if (n == NGX_ERROR && (arg->len == 0 || arg->len > 9)) {
        hm_fault_param(hm->faults, "limit", HM_FAULT_FORMAT, "1..200");
        return;
    }

    if (n == NGX_ERROR) {
        hm_fault_param(hm->faults, "limit", HM_FAULT_TYPE,
                       "a whole number, 1..200");
        return;
    }

    if (n < 1 || n > 200) {
        hm_fault_param(hm->faults, "limit", HM_FAULT_RANGE, "1..200");
        return;
    }

    list->limit = (ngx_uint_t) n;
}


static void
ngx_hm_list_types(ngx_hm_ctx_t *hm, ngx_hm_list_t *list)
{
    u_char      *p, *end, *comma;
    hm_str_t    *arg, type, slug;
    ngx_uint_t   n;

    arg = ngx_hm_arg(hm, "data_type");
    if (arg == NULL) {
        return;
    }

    list->types = *arg;
    list->filtered = 1;

    p = arg->data;
    end = p + arg->len;

    for (n = 1; /* void */ ; n++) {
        comma = memchr(p, ',', (size_t) (end - p));
        comma = comma != NULL ? comma : end;
        type.data = p;
        type.len = (size_t) (comma - p);

        if (n > NGX_HM_TYPES_MAX) {
            hm_fault_param(hm->faults, "data_type", HM_FAULT_LENGTH,
                           "at most %d types", NGX_HM_TYPES_MAX);
            return;
        }

        if (hm_metric_find(type) == NULL
            && hm_metric_custom(type, &slug) != HM_OK)
        {
            hm_fault_param(hm->faults, "data_type", HM_FAULT_ENUM,
                           "see GET /api/v1/health-data/types");
            return;
        }

        if (comma == end) {
            return;
        }

        p = comma + 1;
    }
}


/* Does the type stand in the list before its own place? */
static ngx_uint_t
ngx_hm_list_named(hm_str_t list, hm_str_t type)
{
    u_char  *p, *comma;

    for (p = list.data; p < type.data; p = comma + 1) {
        comma = memchr(p, ',', (size_t) (type.data - p));

        if ((size_t) (comma - p) == type.len
            && ngx_memcmp(p, type.data, type.len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


hm_problem_t
ngx_hm_query_time(ngx_hm_ctx_t *hm, const char *name, hm_usec_t *t)
{
    hm_str_t  *arg;

    arg = ngx_hm_arg(hm, name);

    if (arg != NULL && hm_time_parse(t, *arg) != HM_OK) {
        hm_fault_param(hm->faults, name, HM_FAULT_FORMAT,
                       "RFC 3339 with offset, as 2026-03-01T08:00:00Z");
        return HM_PROBLEM_INVALID_PARAMETER;
    }

    return HM_PROBLEM_NONE;
}


static ngx_int_t
ngx_hm_list_bind(ngx_hm_ctx_t *hm, ngx_hm_list_t *list)
{
    hm_buf_t  b;

    hm_buf_init(&b, &hm->mem, 256);

    hm_buf_add(&b, hm->who.sub.b, 16);
    hm_buf_add(&b, hm->subject.b, 16);
    hm_buf_printf(&b, "%s|%d|%lld|%lld|%zu|%zu|", hm->route->path,
                  list->asc, (long long) list->from, (long long) list->to,
                  list->types.len, list->source.len);
    hm_buf_str(&b, list->types);
    hm_buf_str(&b, list->source);

    if (b.failed
        || hm_sha256(list->filters, b.start, hm_buf_len(&b)) != HM_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* Where the page begins: at the cursor, or at the end of the range. */
static hm_problem_t
ngx_hm_list_place(ngx_hm_ctx_t *hm, ngx_hm_list_t *list)
{
    size_t          len;
    u_char          cursor[NGX_HM_CURSOR + 3];
    hm_str_t       *arg;
    unsigned char   mac[32];

    arg = ngx_hm_arg(hm, "cursor");

    if (arg == NULL) {
        list->after = list->asc ? list->from - 1 : list->to;
        ngx_memset(list->after_id.b, list->asc ? 0xff : 0, 16);

        return HM_PROBLEM_NONE;
    }

    if (arg->len != hm_b64url_len(NGX_HM_CURSOR)
        || hm_b64url_decode(cursor, &len, *arg) != HM_OK
        || len != NGX_HM_CURSOR || cursor[0] != 1)
    {
        return HM_PROBLEM_INVALID_CURSOR;
    }

    if (ngx_hm_cursor_mac(list, cursor, mac) != NGX_OK) {
        return HM_PROBLEM_SERVER_ERROR;
    }

    if (!hm_equal_ct(mac, cursor + 25, 16)) {
        return HM_PROBLEM_INVALID_CURSOR;
    }

    list->after = (hm_usec_t) hm_get_u64(cursor + 1);
    ngx_memcpy(list->after_id.b, cursor + 9, 16);

    return HM_PROBLEM_NONE;
}


ngx_hm_rc_t
ngx_hm_list_cursor(ngx_hm_ctx_t *hm, ngx_hm_list_t *list, hm_usec_t time,
    const hm_uuid_t *id)
{
    char           text[hm_b64url_len(NGX_HM_CURSOR) + 1];
    size_t         len;
    u_char         cursor[NGX_HM_CURSOR];
    unsigned char  mac[32];

    cursor[0] = 1;
    hm_put_u64(cursor + 1, (uint64_t) time);
    ngx_memcpy(cursor + 9, id->b, 16);

    if (ngx_hm_cursor_mac(list, cursor, mac) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_memcpy(cursor + 25, mac, 16);

    len = hm_b64url_encode(text, cursor, NGX_HM_CURSOR);

    hm_buf_lit(&hm->out, "\"");
    hm_buf_add(&hm->out, text, len);
    hm_buf_lit(&hm->out, "\"");

    return NGX_HM_NEXT;
}


static ngx_int_t
ngx_hm_cursor_mac(ngx_hm_list_t *list, const u_char *cursor,
    unsigned char mac[32])
{
    u_char  in[25 + 32];

    ngx_memcpy(in, cursor, 25);
    ngx_memcpy(in + 25, list->filters, 32);

    return ngx_hm_mac(mac, "cursor", in, sizeof(in));
}


/* $6 kinds, $7 blind indexes of custom slugs, $8 source; or $6 source */
ngx_hm_rc_t
ngx_hm_list_filter(ngx_hm_ctx_t *hm, ngx_hm_list_t *list)
{
    u_char          *p, *end, *comma;
    hm_str_t         types[NGX_HM_TYPES_MAX], slugs[NGX_HM_TYPES_MAX];
    hm_str_t         type, slug;
    ngx_uint_t       n;
    hm_user_keys_t  *keys;

    if (list->types.data == NULL) {
        ngx_hm_seg_str(&hm->seg, list->source);
        return NGX_HM_NEXT;
    }

    keys = ngx_hm_keys(hm);
    if (keys == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    p = list->types.data;
    end = p + list->types.len;

    for (n = 0; p != NULL && n < NGX_HM_TYPES_MAX; /* void */ ) {
        comma = memchr(p, ',', (size_t) (end - p));
        type.data = p;
        type.len = (size_t) ((comma != NULL ? comma : end) - p);
        p = comma != NULL ? comma + 1 : NULL;

        if (ngx_hm_list_named(list->types, type)) {
            continue;                    /* its rows are listed once */
        }

        types[n] = type;
        slugs[n] = hm_null_str;

        if (hm_metric_custom(type, &slug) != HM_OK) {
            n++;
            continue;
        }

        types[n] = HM_STR("custom");
        slugs[n].data = ngx_hm_palloc(hm, 32);
        slugs[n].len = 32;

        if (slugs[n].data == NULL
            || hm_blind_index(slugs[n].data, keys->index_key, "health_data",
                              "slug", &hm->subject, slug) != HM_OK)
        {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }

        n++;
    }

    ngx_hm_seg_array(hm, 25, n, types);
    ngx_hm_seg_array(hm, 17, n, slugs);
    ngx_hm_seg_str(&hm->seg, list->source);

    return NGX_HM_NEXT;
}


/* A one-dimensional array in binary form; data NULL is SQL's NULL. */
void
ngx_hm_seg_array(ngx_hm_ctx_t *hm, uint32_t oid, ngx_uint_t n,
    const hm_str_t *items)
{
    size_t       len;
    u_char      *p, *start;
    ngx_uint_t   i;

    len = 20;

    for (i = 0; i < n; i++) {
        len += 4 + items[i].len;
    }

    start = ngx_hm_palloc(hm, len);
    if (start == NULL) {
        ngx_hm_seg_null(&hm->seg);
        return;
    }

    p = hm_put_array(start, oid, (uint32_t) n);

    for (i = 0; i < n; i++) {

        if (items[i].data == NULL) {
            hm_put_u32(p, (uint32_t) -1);
            p += 4;
            continue;
        }

        hm_put_u32(p, (uint32_t) items[i].len);
        p = ngx_cpymem(p + 4, items[i].data, items[i].len);
    }

    ngx_hm_seg_add(&hm->seg, start, (size_t) (p - start));
}


/* Members a PATCH may not name, or only together with another. */
json_t *
ngx_hm_patch_check(ngx_hm_ctx_t *hm, const hm_resource_t *res)
{
    int                 flags;
    json_t             *j, *now, *patch;
    unsigned            i;
    const char         *name;
    const hm_field_t   *fd;

    patch = json_copy(hm->json);

    /* a null leaves no trace in what is merged: judge it here */

    json_object_foreach(hm->json, name, j) {
        flags = json_is_null(j) ? hm_resource_member(res, name) : 0;

        if (flags == -1) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_UNKNOWN,
                         "no such member");

        } else if (flags & HM_F_READ_ONLY) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_READ_ONLY,
                         "set by the server");

        } else if ((flags & HM_F_IMMUTABLE) && !(flags & HM_F_REQUIRED)) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_IMMUTABLE,
                         "cannot change; delete and create");
        }
    }

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];
        j = json_object_get(hm->json, fd->name);

        if (fd->with == NULL || j == NULL || (fd->flags & HM_F_READ_ONLY)
            || json_object_get(hm->json, fd->with) != NULL)
        {
            continue;
        }

        now = hm->old->v[i].set && fd->type == HM_T_TEXT
              ? json_stringn((char *) hm->old->v[i].text.data,
                             hm->old->v[i].text.len)
              : NULL;

        if (now == NULL || !json_equal(now, j)) {
            hm_fault_add(hm->faults, HM_STR(""), fd->name,
                         HM_FAULT_IMMUTABLE, "changes only together with %s",
                         fd->with);
            (void) json_object_del(patch, fd->name);
        }

        json_decref(now);
    }

    return patch;
}


void
ngx_hm_keep_json(ngx_hm_ctx_t *hm, json_t *json)
{
    if (hm->kept == NULL) {
        hm->kept = json_array();
    }

    (void) json_array_append_new(hm->kept, json);
}
