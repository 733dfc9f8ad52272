/*
 * hm_resource: the interpreter of the descriptors.  See hm_resource.h.
 *
 * Nothing in this file knows a resource by name.  What a table of fields
 * cannot say stands in the hooks of the descriptor.
 */

#include "hm_resource.h"
#include "hm_text.h"
#include "hm_time.h"

#include <math.h>


static const hm_field_t *hm_field_find(const hm_resource_t *res,
    const char *name, unsigned *index);
static void hm_field_read(const hm_field_t *fd, hm_mem_t *mem, hm_value_t *v,
    json_t *j, hm_faults_t *f, hm_str_t prefix);
static void hm_field_text(const hm_field_t *fd, hm_mem_t *mem, hm_value_t *v,
    json_t *j, hm_faults_t *f, hm_str_t prefix);
static bool hm_value_same(const hm_field_t *fd, const hm_value_t *a,
    const hm_value_t *b);
static void hm_field_json(const hm_field_t *fd, hm_buf_t *b,
    const hm_value_t *v);
static void hm_sql_columns(const hm_resource_t *res, hm_buf_t *b,
    const char *alias, bool shown);
static void hm_sql_names(const hm_resource_t *res, hm_buf_t *b,
    const char *dot);
static const char *hm_sql_type(const hm_field_t *fd);
static void hm_sql_params(const hm_resource_t *res, hm_buf_t *b,
    const char *dim);
static void hm_sql_audit(const hm_resource_t *res, hm_buf_t *b,
    unsigned tail, unsigned action, const char *what);
static void hm_sql_job(const hm_resource_t *res, hm_buf_t *b, unsigned tail,
    const char *from);
static void hm_sql_get(const hm_resource_t *res, hm_buf_t *b,
    const char *table);
static void hm_sql_get_many(const hm_resource_t *res, hm_buf_t *b);
static void hm_sql_list(const hm_resource_t *res, hm_buf_t *b,
    const char *table, bool asc, bool filter);
static void hm_sql_list_kinds(const hm_resource_t *res, hm_buf_t *b,
    const char *table, bool asc);
static void hm_sql_range(const hm_resource_t *res, hm_buf_t *b, bool asc);
static void hm_sql_order(const hm_resource_t *res, hm_buf_t *b, bool asc);
static void hm_sql_insert(const hm_resource_t *res, hm_buf_t *b,
    const char *table);
static void hm_sql_insert_many(const hm_resource_t *res, hm_buf_t *b);
static void hm_sql_update(const hm_resource_t *res, hm_buf_t *b,
    const char *table);
static void hm_sql_delete(const hm_resource_t *res, hm_buf_t *b,
    const char *table);
static void hm_sql_batch(const hm_resource_t *res, hm_buf_t *b,
    const char *table);
static void hm_sql_latest(const hm_resource_t *res, hm_buf_t *b,
    const char *table);
static void hm_sql_idem(const hm_resource_t *res, hm_buf_t *b);


/*
 * The ownership predicate of every statement.  tools/build-faulty makes
 * builds without it, for the tests of the second wall: then only row-level
 * security stands between people.  The parameter stays in use.
 */
#ifndef HM_FAULT_NO_OWNER
#define hm_sql_owner(alias, param)  alias ".user_id = $" param "::uuid"
#else
#define hm_sql_owner(alias, param)  "$" param "::uuid is not null"
#endif


static const char  *hm_sql_types[] = {
    "text", "timestamptz", "float8", "bytea", "bytea"
};


hm_rc_t
hm_resource_read(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec,
    json_t *body, const hm_record_t *old, hm_usec_t now, hm_faults_t *f,
    hm_str_t prefix)
{
    size_t             faults;
    json_t            *j;
    unsigned           i;
    const char        *name;
    const hm_field_t  *fd;

    faults = f->n;

    if (!json_is_object(body)) {
        hm_fault_add(f, prefix, NULL, HM_FAULT_TYPE, "an object is needed");
        return HM_DECLINED;
    }

    memset(rec->v, 0, sizeof(rec->v[0]) * res->nfields);

    json_object_foreach(body, name, j) {
        fd = hm_field_find(res, name, &i);

        if (fd == NULL) {
            hm_fault_add(f, prefix, name, HM_FAULT_UNKNOWN,
                         "no such member");

            if (f->n >= faults + HM_FAULTS_MAX) {
                return HM_DECLINED;      /* more are not listed anyway */
            }

            continue;
        }

        if (fd->flags & HM_F_READ_ONLY) {
            hm_fault_add(f, prefix, name, HM_FAULT_READ_ONLY,
                         "set by the server");
            continue;
        }

        rec->v[i].sent = 1;

        if (!json_is_null(j)) {
            hm_field_read(fd, mem, &rec->v[i], j, f, prefix);
        }
    }

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];

        if (old != NULL && (fd->flags & HM_F_IMMUTABLE)
            && !rec->v[i].sent)
        {
            rec->v[i] = old->v[i];
        }

        if ((fd->flags & HM_F_REQUIRED)
            && (!rec->v[i].sent || json_is_null(json_object_get(body,
                                                                fd->name))))
        {
            hm_fault_add(f, prefix, fd->name, HM_FAULT_REQUIRED,
                         "must be given");
        }
    }

    res->prepare(res, mem, rec, body, old, now, f, prefix);

    if (old != NULL) {
        for (i = 0; i < res->nfields; i++) {
            fd = &res->fields[i];

            if ((fd->flags & HM_F_IMMUTABLE) && rec->v[i].sent
                && !hm_value_same(fd, &rec->v[i], &old->v[i]))
            {
                hm_fault_add(f, prefix, fd->name, HM_FAULT_IMMUTABLE,
                             "cannot change; delete and create");
            }
        }
    }

    return f->n == faults ? HM_OK : HM_DECLINED;
}


static const hm_field_t *
hm_field_find(const hm_resource_t *res, const char *name, unsigned *index)
{
    unsigned                  i;
    static const hm_field_t   common = {
        "", HM_T_TEXT, HM_F_READ_ONLY, 0, 0, NULL, NULL
    };

    for (i = 0; i < res->nfields; i++) {
        if (!(res->fields[i].flags & HM_F_INTERNAL)
            && strcmp(res->fields[i].name, name) == 0)
        {
            *index = i;
            return &res->fields[i];
        }
    }

    if (strcmp(name, "id") == 0 || strcmp(name, "user_id") == 0
        || strcmp(name, "created_at") == 0
        || strcmp(name, "updated_at") == 0)
    {
        return &common;
    }

    return NULL;
}


int
hm_resource_member(const hm_resource_t *res, const char *name)
{
    unsigned           i;
    const hm_field_t  *fd;

    fd = hm_field_find(res, name, &i);

    return fd != NULL ? (int) fd->flags : -1;
}


static void
hm_field_read(const hm_field_t *fd, hm_mem_t *mem, hm_value_t *v, json_t *j,
    hm_faults_t *f, hm_str_t prefix)
{
    hm_str_t  s;

    switch (fd->type) {

    case HM_T_TEXT:
        hm_field_text(fd, mem, v, j, f, prefix);
        return;

    case HM_T_TIME:
        if (!json_is_string(j)) {
            hm_fault_add(f, prefix, fd->name, HM_FAULT_TYPE,
                         "a string is needed");
            return;
        }

        s.data = (unsigned char *) json_string_value(j);
        s.len = json_string_length(j);

        if (hm_time_parse(&v->time, s) != HM_OK) {
            hm_fault_add(f, prefix, fd->name, HM_FAULT_FORMAT,
                         "RFC 3339 with offset, as 2026-03-01T08:00:00Z");
            return;
        }

        v->set = 1;
        return;

    case HM_T_REAL:
        if (!json_is_number(j)) {
            hm_fault_add(f, prefix, fd->name, HM_FAULT_TYPE,
                         "a number is needed");
            return;
        }

        v->real = json_number_value(j);

        if (!(v->real >= fd->min && v->real <= fd->max)) {
            hm_fault_add(f, prefix, fd->name, HM_FAULT_RANGE, "%g..%g",
                         fd->min, fd->max);
            return;
        }

        v->set = 1;
        return;

    default:
        /* JSON is judged by the resource's own hook */
        return;
    }
}


static void
hm_field_text(const hm_field_t *fd, hm_mem_t *mem, hm_value_t *v, json_t *j,
    hm_faults_t *f, hm_str_t prefix)
{
    size_t    n;
    hm_str_t  s;
    hm_buf_t  b;

    if (!json_is_string(j)) {
        hm_fault_add(f, prefix, fd->name, HM_FAULT_TYPE,
                     "a string is needed");
        return;
    }

    s.data = (unsigned char *) json_string_value(j);
    s.len = json_string_length(j);

    n = hm_utf8_count(s);

    if ((double) n < fd->min || (double) n > fd->max) {
        hm_fault_add(f, prefix, fd->name, HM_FAULT_LENGTH,
                     "%.0f..%.0f characters", fd->min, fd->max);
        return;
    }

    if (!hm_text_clean(s)) {
        hm_fault_add(f, prefix, fd->name, HM_FAULT_FORMAT,
                     "control characters are not taken");
        return;
    }

    if (fd->flags & HM_F_SEALED) {
        hm_buf_init(&b, mem, s.len + 16);
        hm_json_text(&b, s);

        if (b.failed) {
            f->n += HM_FAULTS_MAX;
            return;
        }

        v->text.data = b.start;
        v->text.len = hm_buf_len(&b);

    } else {
        v->text.data = hm_alloc(mem, s.len + 1);

        if (v->text.data == NULL) {
            f->n += HM_FAULTS_MAX;
            return;
        }

        memcpy(v->text.data, s.data, s.len);
        v->text.len = s.len;
    }

    v->set = 1;
}


static bool
hm_value_same(const hm_field_t *fd, const hm_value_t *a, const hm_value_t *b)
{
    if (a->set != b->set) {
        return false;
    }

    if (!a->set) {
        return true;
    }

    switch (fd->type) {
    case HM_T_TIME:
        return a->time == b->time;
    case HM_T_REAL:
        return a->real == b->real;
    default:
        return hm_str_eq(a->text, b->text);
    }
}


json_t *
hm_resource_body(const hm_resource_t *res, hm_mem_t *mem,
    const hm_record_t *rec)
{
    char               text[HM_TIME_TEXT];
    json_t            *body, *j;
    unsigned           i;
    const hm_value_t  *v;
    const hm_field_t  *fd;

    body = json_object();
    if (body == NULL) {
        return NULL;
    }

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];
        v = &rec->v[i];

        if ((fd->flags & (HM_F_INTERNAL|HM_F_READ_ONLY)) || !v->set) {
            continue;
        }

        if (fd->flags & HM_F_SEALED) {
            j = json_loadb((char *) v->text.data, v->text.len,
                           JSON_DECODE_ANY, NULL);

        } else if (fd->type == HM_T_TIME) {
            hm_time_format(v->time, text);
            j = json_stringn(text, HM_TIME_TEXT);

        } else if (fd->type == HM_T_REAL) {
            j = json_real(v->real);

        } else {
            j = json_stringn((char *) v->text.data, v->text.len);
        }

        if (j == NULL || json_object_set_new(body, fd->name, j) != 0) {
            json_decref(body);
            return NULL;
        }
    }

    return body;
}


json_t *
hm_merge_patch(json_t *base, json_t *patch)
{
    json_t      *out, *j, *merged;
    const char  *name;

    if (!json_is_object(patch)) {
        return json_incref(patch);
    }

    out = json_is_object(base) ? json_copy(base) : json_object();
    if (out == NULL) {
        return NULL;
    }

    json_object_foreach(patch, name, j) {
        if (json_is_null(j)) {
            json_object_del(out, name);
            continue;
        }

        merged = hm_merge_patch(json_object_get(out, name), j);

        if (merged == NULL || json_object_set_new(out, name, merged) != 0) {
            json_decref(out);
            return NULL;
        }
    }

    return out;
}


hm_rc_t
hm_resource_seal(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec,
    const hm_user_keys_t *keys)
{
    unsigned              i;
    hm_place_t            place;
    hm_value_t           *v;
    const unsigned char  *dek;

    dek = hm_keys_dek(keys, keys->active);
    if (dek == NULL) {
        return HM_ERROR;
    }

    if (res->index != NULL && res->index(res, mem, rec, keys) != HM_OK) {
        return HM_ERROR;
    }

    rec->dek_version = keys->active;

    place.table = res->name;
    place.row = rec->id;
    place.owner = rec->user_id;

    for (i = 0; i < res->nfields; i++) {
        v = &rec->v[i];

        if (!(res->fields[i].flags & HM_F_SEALED) || !v->set) {
            continue;
        }

        place.column = res->fields[i].name;

        v->sealed.data = hm_alloc(mem, hm_sealed_len(v->text.len));
        if (v->sealed.data == NULL) {
            return HM_ERROR;
        }

        if (hm_seal(v->sealed.data, &v->sealed.len, dek, rec->dek_version,
                    &place, v->text)
            != HM_OK)
        {
            return HM_ERROR;
        }
    }

    return HM_OK;
}


hm_rc_t
hm_resource_open(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec,
    const unsigned char *dek)
{
    hm_rc_t         rc;
    unsigned        i;
    hm_place_t      place;
    hm_value_t     *v;
    unsigned char  *out;

    place.table = res->name;
    place.row = rec->id;
    place.owner = rec->user_id;

    for (i = 0; i < res->nfields; i++) {
        v = &rec->v[i];

        if (!(res->fields[i].flags & HM_F_SEALED) || !v->set) {
            continue;
        }

        if (v->sealed.len < HM_ENVELOPE_OVER) {
            return HM_DECLINED;
        }

        place.column = res->fields[i].name;

        out = hm_alloc(mem, v->sealed.len - HM_ENVELOPE_OVER + 1);
        if (out == NULL) {
            return HM_ERROR;
        }

        rc = hm_open(out, &v->text, dek, rec->dek_version, &place,
                     v->sealed);
        if (rc != HM_OK) {
            return rc;
        }
    }

    return res->shown == NULL ? HM_OK : res->shown(res, mem, rec);
}


void
hm_resource_json(const hm_resource_t *res, hm_buf_t *b,
    const hm_record_t *rec)
{
    size_t             len;
    unsigned           i;
    const hm_field_t  *fd;

    hm_buf_lit(b, "{\"id\":");
    hm_json_uuid(b, &rec->id);
    hm_buf_lit(b, ",\"user_id\":");
    hm_json_uuid(b, &rec->user_id);

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];

        if (fd->flags & (HM_F_INTERNAL|HM_F_WRITE_ONLY)) {
            continue;
        }

        len = strlen(fd->name);

        if (!hm_buf_reserve(b, len + 4)) {
            return;
        }

        *b->pos++ = ',';
        *b->pos++ = '"';
        memcpy(b->pos, fd->name, len);
        b->pos += len;
        *b->pos++ = '"';
        *b->pos++ = ':';

        hm_field_json(fd, b, &rec->v[i]);
    }

    hm_buf_lit(b, ",\"created_at\":");
    hm_json_time(b, rec->created_at);
    hm_buf_lit(b, ",\"updated_at\":");
    hm_json_time(b, rec->updated_at);
    hm_buf_lit(b, "}");
}


static void
hm_field_json(const hm_field_t *fd, hm_buf_t *b, const hm_value_t *v)
{
    if (!v->set) {
        hm_buf_lit(b, "null");

    } else if (fd->flags & HM_F_SEALED) {
        hm_buf_str(b, v->text);

    } else if (fd->type == HM_T_TIME) {
        hm_json_time(b, v->time);

    } else if (fd->type == HM_T_REAL) {
        hm_json_real(b, v->real);

    } else {
        hm_json_text(b, v->text);
    }
}


/* SQL */


hm_rc_t
hm_resource_sql(const hm_resource_t *res, hm_buf_t *b, hm_sql_t kind,
    unsigned leaf)
{
    char  table[HM_LEAF_NAME];

#ifdef HM_FAULT_PARENT
    snprintf(table, sizeof(table), "%s", res->table);
#else
    if (res->leaves != 0) {
        snprintf(table, sizeof(table), "%s_p%u", res->table, leaf);
    } else {
        snprintf(table, sizeof(table), "%s", res->table);
    }
#endif

    switch (kind) {
    case HM_SQL_GET:
        hm_sql_get(res, b, table);
        break;
    case HM_SQL_GET_MANY:
        hm_sql_get_many(res, b);
        break;
    case HM_SQL_LIST_DESC:
    case HM_SQL_LIST_DESC_FILTER:
        hm_sql_list(res, b, table, false, kind == HM_SQL_LIST_DESC_FILTER);
        break;
    case HM_SQL_LIST_ASC:
    case HM_SQL_LIST_ASC_FILTER:
        hm_sql_list(res, b, table, true, kind == HM_SQL_LIST_ASC_FILTER);
        break;
    case HM_SQL_LIST_DESC_KINDS:
        hm_sql_list_kinds(res, b, table, false);
        break;
    case HM_SQL_LIST_ASC_KINDS:
        hm_sql_list_kinds(res, b, table, true);
        break;
    case HM_SQL_INSERT:
        hm_sql_insert(res, b, table);
        break;
    case HM_SQL_INSERT_MANY:
        hm_sql_insert_many(res, b);
        break;
    case HM_SQL_UPDATE:
        hm_sql_update(res, b, table);
        break;
    case HM_SQL_DELETE:
        hm_sql_delete(res, b, table);
        break;
    case HM_SQL_BATCH:
        hm_sql_batch(res, b, table);
        break;
    case HM_SQL_LATEST:
        hm_sql_latest(res, b, table);
        break;
    case HM_SQL_IDEM:
        hm_sql_idem(res, b);
        break;
    default:
        return HM_ERROR;
    }

    hm_buf_add(b, "", 1);

    return b->failed ? HM_ERROR : HM_OK;
}


/* shown: without the columns that no answer shows, as hm_row_shown reads. */
static void
hm_sql_columns(const hm_resource_t *res, hm_buf_t *b, const char *alias,
    bool shown)
{
    unsigned  i;

    hm_buf_printf(b, "%s.id, %s.user_id, %s.dek_version, %s.version, "
                  "%s.created_at, %s.updated_at", alias, alias, alias, alias,
                  alias, alias);

    for (i = 0; i < res->nfields; i++) {
        if (!shown || hm_field_shown(&res->fields[i])) {
            hm_buf_printf(b, ", %s.\"%s\"", alias, res->fields[i].name);
        }
    }
}


/* Names of the fields' columns; dot is "" or an alias with its dot. */
static void
hm_sql_names(const hm_resource_t *res, hm_buf_t *b, const char *dot)
{
    unsigned  i;

    for (i = 0; i < res->nfields; i++) {
        hm_buf_printf(b, ", %s\"%s\"", dot, res->fields[i].name);
    }
}


static const char *
hm_sql_type(const hm_field_t *fd)
{
    return fd->flags & HM_F_SEALED ? "bytea" : hm_sql_types[fd->type];
}


/* The fields' parameters, $5 and on; dim is "" or "[]". */
static void
hm_sql_params(const hm_resource_t *res, hm_buf_t *b, const char *dim)
{
    unsigned  i;

    for (i = 0; i < res->nfields; i++) {
        hm_buf_printf(b, ", $%u::%s%s", i + 5, hm_sql_type(&res->fields[i]),
                      dim);
    }
}


static void
hm_sql_get(const hm_resource_t *res, hm_buf_t *b, const char *table)
{
    hm_buf_lit(b, "select ");
    hm_sql_columns(res, b, "t", false);
    hm_buf_printf(b, " from %s t where " hm_sql_owner("t", "1")
                  " and t.id = $2::uuid", table);
}


/*
 * The reads of a batch, each of another person perhaps.  Joined on owner and
 * id: HM_FAULT_JOIN_ID makes the build that forgets the owner, which then
 * has to stand at the comparison in the module.
 */
static void
hm_sql_get_many(const hm_resource_t *res, hm_buf_t *b)
{
    hm_buf_lit(b, "select ");
    hm_sql_columns(res, b, "t", false);
#if !defined(HM_FAULT_JOIN_ID) && !defined(HM_FAULT_NO_OWNER)
    hm_buf_printf(b, " from unnest($1::uuid[], $2::uuid[]) as r(user_id, id)"
                  " join %s t on t.user_id = r.user_id and t.id = r.id",
                  res->table);
#else
    hm_buf_printf(b, " from unnest($1::uuid[], $2::uuid[]) as r(user_id, id)"
                  " join %s t on t.id = r.id", res->table);
#endif
}


static void
hm_sql_list(const hm_resource_t *res, hm_buf_t *b, const char *table,
    bool asc, bool filter)
{
    hm_buf_lit(b, "select ");
    hm_sql_columns(res, b, "t", true);
    hm_buf_printf(b, " from %s t where ", table);
    hm_sql_range(res, b, asc);

    if (filter) {
        hm_buf_printf(b, " and t.\"%s\" = $6::text", res->filter);
    }

    hm_sql_order(res, b, asc);
}


/*
 * A list of some kinds only: the newest of each kind by its own index, then
 * the newest of those.  What a rare kind costs does not depend on how much
 * else a person has.
 */
static void
hm_sql_list_kinds(const hm_resource_t *res, hm_buf_t *b, const char *table,
    bool asc)
{
    hm_buf_lit(b, "select ");
    hm_sql_columns(res, b, "t", true);
    hm_buf_printf(b, " from unnest($6::text[], $7::bytea[])"
                  " as f(kind, subkind) cross join lateral"
                  " (select * from %s t where ", table);
    hm_sql_range(res, b, asc);
    hm_buf_printf(b, " and t.\"%s\" = f.kind"
                  " and (f.subkind is null or t.\"%s\" = f.subkind)"
                  " and ($8::text is null or t.\"%s\" = $8::text)",
                  res->kind, res->subkind, res->filter);
    hm_sql_order(res, b, asc);
    hm_buf_lit(b, ") t");
    hm_sql_order(res, b, asc);
}


static void
hm_sql_range(const hm_resource_t *res, hm_buf_t *b, bool asc)
{
    const char  *time = res->fields[res->time_field].name;

    hm_buf_printf(b, hm_sql_owner("t", "1")
                  " and (t.\"%s\", t.id) %s ($2::timestamptz, $3::uuid)"
                  " and t.\"%s\" %s $4::timestamptz", time,
                  asc ? ">" : "<", time, asc ? "<" : ">=");
}


static void
hm_sql_order(const hm_resource_t *res, hm_buf_t *b, bool asc)
{
    const char  *time = res->fields[res->time_field].name;

    hm_buf_printf(b, " order by t.\"%s\" %s, t.id %s limit $5::int8", time,
                  asc ? "asc" : "desc", asc ? "asc" : "desc");
}


/*
 * The audit row of a write, in its own statement and so in its own
 * transaction.  `what` gives (outcome, items, first id): a statement that in
 * the end did nothing writes a `void` row, so that the shard has no gap.
 */
static void
hm_sql_audit(const hm_resource_t *res, hm_buf_t *b, unsigned tail,
    unsigned action, const char *what)
{
    hm_buf_printf(b,
        ", aud as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, first_id,"
        " last_id, items, origin) select $%u::uuid, $%u::int8,"
        " $4::timestamptz, case when w.outcome = 0 then 100 else %u end, %u,"
        " w.outcome, $%u::int2, $%u::int2, $%u::uuid, $%u::uuid, $2::uuid,"
        " w.first_id, w.last_id, w.items, $%u::bytea from (%s) w)",
        tail + HM_TAIL_SHARD, tail + HM_TAIL_SEQ, action, res->audit_of,
        tail + HM_TAIL_ROLE, tail + HM_TAIL_PURPOSE, tail + HM_TAIL_ACTOR,
        tail + HM_TAIL_SESSION, tail + HM_TAIL_ORIGIN, what);
}


static void
hm_sql_job(const hm_resource_t *res, hm_buf_t *b, unsigned tail,
    const char *from)
{
    if (res->job_kind == NULL) {
        hm_buf_lit(b, ", job as (select 1 where false)");
        return;
    }

    hm_buf_printf(b,
        ", job as (insert into jobs (id, kind, unique_key, user_id,"
        " requester, permission, session, run_at, max_attempts, created_at,"
        " updated_at) select $%u::uuid, '%s', %s, j.user_id, $%u::uuid,"
        " 'health.read', $%u::uuid, $4::timestamptz + interval '3 seconds',"
        " 8, $4::timestamptz, $4::timestamptz from %s j"
        " on conflict (unique_key) where state in ('ready', 'retry')"
        " do nothing returning 1)",
        tail + HM_TAIL_JOB, res->job_kind, res->job_key,
        tail + HM_TAIL_ACTOR, tail + HM_TAIL_SESSION, from);
}


static void
hm_sql_insert(const hm_resource_t *res, hm_buf_t *b, const char *table)
{
    unsigned  tail;

    tail = 5 + res->nfields;

    hm_buf_printf(b,
        "with k as (select 1 from user_keys k where k.user_id = $2::uuid"
        " and k.version = $3::int4 and k.state = 'active'),"
        " ins as (insert into %s (id, user_id, dek_version, created_at,"
        " updated_at", table);

    hm_sql_names(res, b, "");

    hm_buf_lit(b, ") select $1::uuid, $2::uuid, $3::int4, $4::timestamptz,"
                  " $4::timestamptz");

    hm_sql_params(res, b, "");

    hm_buf_lit(b, " from k");

    if (res->conflict != NULL) {
        hm_buf_printf(b, " on conflict (%s) do nothing", res->conflict);
    }

    hm_buf_lit(b, " returning *)");

    hm_buf_lit(b, ", old as (select ");
    hm_sql_columns(res, b, "t", false);
    hm_buf_printf(b, " from %s t where " hm_sql_owner("t", "2")
                  " and t.dedup_key = $%u::bytea"
                  " and not exists (select 1 from ins))",
                  table, 5 + res->nfields - 1);

    hm_sql_job(res, b, tail, "ins");

    hm_sql_audit(res, b, tail, 3,
        "select case when exists (select 1 from ins) then 201"
        " when exists (select 1 from old) then 200 else 0 end as outcome,"
        " 1 as items, coalesce((select id from ins), (select id from old))"
        " as first_id, null::uuid as last_id");

    hm_buf_lit(b, " select exists (select 1 from k) as key_ok,"
                  " (select i.user_id from ins i) as done,"
                  " exists (select 1 from job) as job, ");
    hm_sql_columns(res, b, "o", false);
    hm_buf_lit(b, " from (values (1)) one left join old o on true");
}


/*
 * The inserts of a whole batch, each of another person perhaps, as one
 * statement: its parameters are arrays of an insert's, but for shard and the
 * first seq.  The context names all actors (hm.actors); a row is its own
 * actor's, and policies see to that.  What is not inserted (an equal record,
 * a key that turned) leaves a void audit row here and is sent once more, on
 * its own.
 */
static void
hm_sql_insert_many(const hm_resource_t *res, hm_buf_t *b)
{
    unsigned  tail;

    tail = 5 + res->nfields;

    hm_buf_lit(b, "with req as (select * from unnest($1::uuid[],"
                  " $2::uuid[], $3::int4[], $4::timestamptz[]");

    hm_sql_params(res, b, "[]");

    hm_buf_printf(b, ", $%u::uuid[], $%u::uuid[], $%u::int2[], $%u::int2[],"
                  " $%u::bytea[], $%u::uuid[]) with ordinality as r(id,"
                  " user_id, dek_version, now", tail + HM_TAIL_ACTOR,
                  tail + HM_TAIL_SESSION, tail + HM_TAIL_ROLE,
                  tail + HM_TAIL_PURPOSE, tail + HM_TAIL_ORIGIN,
                  tail + HM_TAIL_JOB);

    hm_sql_names(res, b, "");

    hm_buf_printf(b, ", actor, session, role, purpose, origin, job, ord)),"
        " ins as (insert into %s (id, user_id, dek_version, created_at,"
        " updated_at", res->table);

    hm_sql_names(res, b, "");

    hm_buf_lit(b, ") select r.id, r.user_id, r.dek_version, r.now, r.now");

    hm_sql_names(res, b, "r.");

    hm_buf_printf(b, " from req r where r.actor = r.user_id and exists"
        " (select 1 from user_keys k where k.user_id = r.user_id"
        " and k.version = r.dek_version and k.state = 'active')"
        " order by r.user_id, r.dedup_key on conflict (%s) do nothing"
        " returning *)", res->conflict);

    if (res->job_kind != NULL) {
        hm_buf_printf(b,
            ", job as (insert into jobs (id, kind, unique_key, user_id,"
            " requester, permission, session, run_at, max_attempts,"
            " created_at, updated_at) select distinct on (q.key) q.job,"
            " '%s', q.key, q.user_id, q.user_id, 'health.read', q.session,"
            " q.now + interval '3 seconds', 8, q.now, q.now from"
            " (select r.job, r.session, r.now, j.user_id, %s as key"
            " from ins j join req r on r.id = j.id) q order by q.key"
            " on conflict (unique_key) where state in ('ready', 'retry')"
            " do nothing)", res->job_kind, res->job_key);
    }

    hm_buf_printf(b,
        ", aud as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, first_id,"
        " items, origin) select $%u::uuid, $%u::int8 + r.ord - 1, r.now,"
        " case when i.id is null then 100 else 3 end, %u,"
        " case when i.id is null then 0 else 201 end, r.role, r.purpose,"
        " r.actor, r.session, r.user_id, r.id, 1, r.origin from req r"
        " left join ins i on i.id = r.id)"
        " select r.id, i.user_id from req r left join ins i on i.id = r.id"
        " order by r.ord", tail + HM_TAIL_SHARD, tail + HM_TAIL_SEQ,
        res->audit_of);
}


/* Clear and immutable: the API's role may not even update the column. */
static bool
hm_sql_fixed(const hm_field_t *fd)
{
    return (fd->flags & HM_F_IMMUTABLE) && !(fd->flags & HM_F_SEALED);
}


/*
 * Parameters as of an insert; version holds in the last one: the old
 * version (int4), behind the tail.
 */
static void
hm_sql_update(const hm_resource_t *res, hm_buf_t *b, const char *table)
{
    unsigned           i, tail;
    const hm_field_t  *fd;

    tail = 5 + res->nfields;

    hm_buf_lit(b,
        "with k as (select 1 from user_keys k where k.user_id = $2::uuid"
        " and k.version = $3::int4 and k.state = 'active')");

    hm_buf_printf(b, ", clash as (select 1 from %s t where "
        hm_sql_owner("t", "2") " and t.dedup_key = $%u::bytea"
        " and t.id <> $1::uuid)", table, 5 + res->nfields - 1);

    hm_buf_printf(b, ", upd as (update %s t set dek_version = $3::int4,"
                  " updated_at = $4::timestamptz, version = t.version + 1",
                  table);

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];

        if (!hm_sql_fixed(fd)) {
            hm_buf_printf(b, ", \"%s\" = $%u::%s", fd->name, i + 5,
                          hm_sql_type(fd));
        }
    }

    hm_buf_printf(b, " where " hm_sql_owner("t", "2")
        " and t.id = $1::uuid"
        " and t.version = $%u::int4 and exists (select 1 from k)"
        " and not exists (select 1 from clash)", tail + HM_TAIL_LAST);

    /* what cannot change is not written, and must be as it was read */

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];

        if (hm_sql_fixed(fd)) {
            hm_buf_printf(b, " and t.\"%s\" = $%u::%s", fd->name, i + 5,
                          hm_sql_types[fd->type]);
        }
    }

    hm_buf_lit(b, " returning t.*)");

    hm_sql_job(res, b, tail, "upd");

    hm_sql_audit(res, b, tail, 4,
        "select case when exists (select 1 from upd) then 200"
        " when exists (select 1 from clash) then 409 else 0 end as outcome,"
        " 1 as items, $1::uuid as first_id, null::uuid as last_id");

    hm_buf_lit(b, " select exists (select 1 from k) as key_ok,"
                  " (select u.user_id from upd u) as done,"
                  " exists (select 1 from job) as job,"
                  " exists (select 1 from clash) as clash,"
                  " (select u.version from upd u) as version");
}


/* As an update; of the fields' parameters none is used. */
static void
hm_sql_delete(const hm_resource_t *res, hm_buf_t *b, const char *table)
{
    /* 1 id 2 user_id 3 version or NULL 4 now, then the tail */

    hm_buf_printf(b,
        "with del as (delete from %s t where " hm_sql_owner("t", "2")
        " and t.id = $1::uuid and ($3::int4 is null or t.version = $3::int4)"
        " returning t.*)", table);

    hm_sql_job(res, b, 5, "del");

    hm_sql_audit(res, b, 5, 5,
        "select case when exists (select 1 from del) then 204 else 404 end"
        " as outcome, 1 as items, $1::uuid as first_id,"
        " null::uuid as last_id");

    hm_buf_lit(b, " select (select d.user_id from del d) as done,"
                  " exists (select 1 from job) as job");
}


/*
 * Many rows of one person in one statement: arrays instead of scalars for
 * $1 and the fields.  One audit row; one job for each distinct key, or,
 * of more than 16 of a kind, one for all of that kind (":*").  The
 * answer has one row for each item: its ordinal, the id that is stored now,
 * and whether this statement made it.  A row that neither was made nor can
 * be seen lost a race: the caller sends it once more.
 */
static void
hm_sql_batch(const hm_resource_t *res, hm_buf_t *b, const char *table)
{
    unsigned  tail;

    tail = 5 + res->nfields;

    hm_buf_lit(b, "with req as (select * from unnest($1::uuid[]");

    hm_sql_params(res, b, "[]");

    hm_buf_lit(b, ") with ordinality as r(id");

    hm_sql_names(res, b, "");

    hm_buf_printf(b, ", ord)), k as (select 1 from user_keys k where"
        " k.user_id = $2::uuid and k.version = $3::int4"
        " and k.state = 'active'), ins as (insert into %s (id, user_id,"
        " dek_version, created_at, updated_at", table);

    hm_sql_names(res, b, "");

    hm_buf_lit(b, ") select r.id, $2::uuid, $3::int4, $4::timestamptz,"
                  " $4::timestamptz");

    hm_sql_names(res, b, "r.");

    hm_buf_printf(b, " from req r, k order by r.dedup_key on conflict (%s)"
                  " do nothing returning *)", res->conflict);

    if (res->job_kind != NULL) {
        hm_buf_printf(b,
            ", job as (insert into jobs (id, kind, unique_key, user_id,"
            " requester, permission, session, run_at, max_attempts,"
            " created_at, updated_at) select distinct on (w.key)"
            " w.id, '%s', w.key, $2::uuid, $%u::uuid, 'health.read',"
            " $%u::uuid, $4::timestamptz + w.wait, 8,"
            " $4::timestamptz, $4::timestamptz from (select d.id,"
            " case when d.n > 16 then d.prefix || ':*' else d.key end"
            " as key, case when d.n > 16 then interval '10 seconds'"
            " else interval '3 seconds' end as wait from (select g.id,"
            " g.key, g.prefix, count(*) over (partition by g.prefix) as n"
            " from (select (array_agg(q.id))[1] as id, q.key,"
            " substring(q.key from '^(.*):[^:]*$') as prefix from"
            " (select j.id, %s as key from ins j) q group by q.key) g) d) w"
            " order by w.key on conflict"
            " (unique_key) where state in ('ready', 'retry') do nothing"
            " returning 1)", res->job_kind, tail + HM_TAIL_ACTOR,
            tail + HM_TAIL_SESSION, res->job_key);
    } else {
        hm_buf_lit(b, ", job as (select 1 where false)");
    }

    hm_sql_audit(res, b, tail, 3,
        "select case when exists (select 1 from k) then 201 else 0 end"
        " as outcome, count(*)::int4 as items,"
        " (array_agg(i.id order by i.id))[1] as first_id,"
        " (array_agg(i.id order by i.id desc))[1] as last_id"
        " from ins i");

    hm_buf_printf(b, " select r.ord, coalesce(i.id, h.id) as id,"
        " coalesce(i.user_id, h.user_id) as user_id,"
        " coalesce(i.id = r.id, false) as made,"
        " exists (select 1 from k) as key_ok,"
        " exists (select 1 from job) as job"
        " from req r left join ins i on i.dedup_key = r.dedup_key"
        " left join %s h on " hm_sql_owner("h", "2")
        " and h.dedup_key = r.dedup_key order by r.ord", table);
}


/* The latest of each kind by the kind's index; sub-kinds among their own. */
static void
hm_sql_latest(const hm_resource_t *res, hm_buf_t *b, const char *table)
{
    const char  *time = res->fields[res->time_field].name;

    hm_buf_lit(b, "select ");
    hm_sql_columns(res, b, "t", true);
    hm_buf_printf(b, " from unnest($2::text[]) as f(kind) cross join lateral"
        " (select * from %s t where " hm_sql_owner("t", "1")
        " and t.\"%s\" = f.kind order by t.\"%s\" desc, t.id desc limit 1)"
        " t union all (select distinct on (t.\"%s\") ", table, res->kind,
        time, res->subkind);
    hm_sql_columns(res, b, "t", true);
    hm_buf_printf(b, " from %s t where " hm_sql_owner("t", "1")
        " and t.\"%s\" = '%s' order by t.\"%s\", t.\"%s\" desc, t.id desc"
        " limit 1000)", table, res->kind, res->subkind_of, res->subkind,
        time);
}


/*
 * What a repeated POST gets back, kept in the transaction of the first one:
 *   1 caller  2 user_id  3 scope  4 body_mac  5 status  6 headers  7 body
 *   8 dek_version  9 now  10 id of the record
 * It runs behind the insert.  If that found an equal record nothing is kept
 * here; if the key is another request's by now, the division fails the
 * whole transaction, so that nothing is stored twice.
 */
static void
hm_sql_idem(const hm_resource_t *res, hm_buf_t *b)
{
    hm_buf_printf(b,
        "with made as (select 1 from %s t where " hm_sql_owner("t", "2")
        " and t.id = $10::uuid), kept as (insert into idempotency_keys"
        " (caller, user_id, scope, body_mac, status, headers, body,"
        " dek_version, created_at, expires_at) select $1::uuid, $2::uuid,"
        " $3::bytea, $4::bytea, $5::int4, $6::bytea, $7::bytea, $8::int4,"
        " $9::timestamptz, $9::timestamptz + interval '24 hours' from made"
        " on conflict (caller, user_id, scope) do update set"
        " body_mac = excluded.body_mac, status = excluded.status,"
        " headers = excluded.headers, body = excluded.body,"
        " dek_version = excluded.dek_version,"
        " created_at = excluded.created_at,"
        " expires_at = excluded.expires_at"
        " where idempotency_keys.expires_at <= $9::timestamptz"
        " returning 1) select case when exists (select 1 from made)"
        " then 1 / (select count(*) from kept) else 0 end", res->table);
}
