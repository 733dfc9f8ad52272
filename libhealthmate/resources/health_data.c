/*
 * health_data: one measurement of a person.
 *
 * Clear are the fixed metric code, the time, the source, how sure it is;
 * everything else is sealed.  A custom metric is stored as `custom`, its
 * slug and unit sealed together and the slug blind-indexed, because a slug
 * can tell of a treatment or a habit.
 *
 * Two readings are one when source and source_id are equal, or, without a
 * source_id, when type, time, canonical value and source are: hm_dedup makes
 * a blind key of that, and a unique index does the rest.
 */

#include "../hm_resource.h"
#include "../hm_metric.h"
#include "../hm_dedup.h"
#include "../hm_time.h"
#include "../hm_text.h"
#include "../hm_json.h"
#include "../hm_audit.h"

#include <math.h>

#define HM_HD_AHEAD      (5 * 60 * HM_USEC)
#define HM_HD_OLDEST     (-2208988800LL * HM_USEC)     /* 1900-01-01 */


static void hm_hd_prepare(const hm_resource_t *res, hm_mem_t *mem,
    hm_record_t *rec, json_t *body, const hm_record_t *old, hm_usec_t now,
    hm_faults_t *f, hm_str_t prefix);
static void hm_hd_value(hm_mem_t *mem, hm_record_t *rec, json_t *value,
    json_t *unit, const hm_record_t *old, hm_faults_t *f, hm_str_t prefix);
static void hm_hd_fixed(hm_mem_t *mem, hm_record_t *rec,
    const hm_metric_t *m, json_t *value, json_t *unit, hm_faults_t *f,
    hm_str_t prefix);
static void hm_hd_custom(hm_mem_t *mem, hm_record_t *rec, hm_str_t slug,
    json_t *value, json_t *unit, hm_faults_t *f, hm_str_t prefix);
static void hm_hd_time(hm_record_t *rec, const hm_record_t *old,
    hm_usec_t now, hm_faults_t *f, hm_str_t prefix);
static void hm_hd_source(hm_record_t *rec, hm_faults_t *f, hm_str_t prefix);
static void hm_hd_set_json(hm_value_t *v, hm_buf_t *b, hm_faults_t *f);
static hm_rc_t hm_hd_reading(hm_str_t json, hm_reading_t *r);
static hm_rc_t hm_hd_index(const hm_resource_t *res, hm_mem_t *mem,
    hm_record_t *rec, const hm_user_keys_t *keys);
static hm_rc_t hm_hd_shown(const hm_resource_t *res, hm_mem_t *mem,
    hm_record_t *rec);
static json_t *hm_hd_opened(const hm_value_t *v);


static const hm_field_t  hm_hd_fields[] = {

    { "data_type", HM_T_TEXT, HM_F_REQUIRED|HM_F_IMMUTABLE, 1, 60,
      "a metric type of GET /health-data/types, or custom:<slug>", NULL },

    { "value", HM_T_JSON, HM_F_REQUIRED|HM_F_SEALED, 0, 0,
      "a number in the canonical unit; of blood_pressure an object", NULL },

    { "unit", HM_T_TEXT, 0, 1, 32,
      "UCUM; absent means the canonical unit of the metric", "value" },

    { "original", HM_T_JSON, HM_F_READ_ONLY|HM_F_SEALED, 0, 0,
      "value and unit as they were sent, when they were converted",
      "value" },

    { "timestamp", HM_T_TIME, HM_F_IMMUTABLE, 0, 0,
      "when it was measured; absent means now", NULL },

    { "notes", HM_T_TEXT, HM_F_SEALED, 0, 10000, "free text", NULL },

    { "source", HM_T_TEXT, 0, 1, 64, "where it comes from", NULL },

    { "source_id", HM_T_TEXT, HM_F_SEALED|HM_F_IMMUTABLE|HM_F_WRITE_ONLY,
      1, 128, "its identity at the source, for de-duplication", NULL },

    { "confidence", HM_T_REAL, 0, 0, 1, "how sure the source is",
      NULL },

    { "custom", HM_T_JSON, HM_F_SEALED|HM_F_INTERNAL, 0, 0, NULL, NULL },
    { "slug_index", HM_T_BYTES, HM_F_INTERNAL, 0, 0, NULL, NULL },
    { "dedup_key", HM_T_BYTES, HM_F_INTERNAL, 0, 0, NULL, NULL }
};


const hm_resource_t  hm_health_data = {
    .name = "health_data",
    .table = "health_data",
    .leaves = 8,
    .audit_of = HM_AUDIT_OF_HEALTH_DATA,
    .path = "/health-data",
    .title = "HealthData",
    .fields = hm_hd_fields,
    .nfields = HM_HD_NFIELDS,
    .time_field = HM_HD_TIMESTAMP,
    .conflict = "user_id, dedup_key",
    .job_kind = "analytics.rollup",
    .job_key =
        "'rollup:' || j.user_id || ':' || case when j.slug_index is null"
        " then j.data_type else 'custom.' || encode(j.slug_index, 'hex') end"
        " || ':' || floor(date_part('epoch', j.\"timestamp\") / 3600)"
        "::int8",
    .filter = "source",
    .kind = "data_type",
    .subkind = "slug_index",
    .subkind_of = "custom",
    .prepare = hm_hd_prepare,
    .index = hm_hd_index,
    .shown = hm_hd_shown
};


static void
hm_hd_prepare(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec,
    json_t *body, const hm_record_t *old, hm_usec_t now, hm_faults_t *f,
    hm_str_t prefix)
{
    json_t  *value, *unit;

    value = json_object_get(body, "value");
    unit = json_object_get(body, "unit");

    if (json_is_null(unit)) {
        unit = NULL;
    }

    /* of another type than before neither value nor unit can be judged */

    if (rec->v[HM_HD_DATA_TYPE].set
        && (old == NULL || hm_str_eq(rec->v[HM_HD_DATA_TYPE].text,
                                     old->v[HM_HD_DATA_TYPE].text)))
    {
        hm_hd_value(mem, rec, value, unit, old, f, prefix);
    }

    hm_hd_time(rec, old, now, f, prefix);
    hm_hd_source(rec, f, prefix);
}


static void
hm_hd_value(hm_mem_t *mem, hm_record_t *rec, json_t *value, json_t *unit,
    const hm_record_t *old, hm_faults_t *f, hm_str_t prefix)
{
    hm_str_t            name, slug;
    const hm_metric_t  *m;

    name = rec->v[HM_HD_DATA_TYPE].text;

    m = hm_metric_find(name);

    if (m != NULL) {
        if (value != NULL && !json_is_null(value)) {
            hm_hd_fixed(mem, rec, m, value, unit, f, prefix);
        }

        return;
    }

    if (hm_metric_custom(name, &slug) != HM_OK) {
        hm_fault_add(f, prefix, "data_type", HM_FAULT_ENUM,
                     "see GET /api/v1/health-data/types");
        rec->v[HM_HD_DATA_TYPE].set = 0;
        return;
    }

    hm_hd_custom(mem, rec, slug, value, unit, f, prefix);
}


static void
hm_hd_fixed(hm_mem_t *mem, hm_record_t *rec, const hm_metric_t *m,
    json_t *value, json_t *unit, hm_faults_t *f, hm_str_t prefix)
{
    bool          converted;
    size_t        faults;
    hm_buf_t      b;
    hm_value_t   *v;
    hm_reading_t  r;

    faults = f->n;

    if (hm_metric_read(m, value, unit, &r, &converted, f, prefix) != HM_OK
        || f->n != faults)
    {
        return;
    }

    v = &rec->v[HM_HD_VALUE];
    hm_buf_init(&b, mem, 64);

    if (r.object) {
        hm_buf_lit(&b, "{\"systolic\":");
        hm_json_real(&b, r.number);
        hm_buf_lit(&b, ",\"diastolic\":");
        hm_json_real(&b, r.second);
        hm_buf_lit(&b, "}");

    } else {
        hm_json_real(&b, r.number);
    }

    hm_hd_set_json(v, &b, f);

    v = &rec->v[HM_HD_UNIT];
    v->set = 1;
    v->text.data = (unsigned char *) m->unit;
    v->text.len = strlen(m->unit);

    v = &rec->v[HM_HD_ORIGINAL];
    v->set = 0;

    if (converted) {
        hm_buf_init(&b, mem, 96);
        hm_buf_lit(&b, "{\"value\":");

        if (r.object) {
            hm_buf_lit(&b, "{\"systolic\":");
            hm_json_real(&b, json_number_value(json_object_get(value,
                                                             "systolic")));
            hm_buf_lit(&b, ",\"diastolic\":");
            hm_json_real(&b, json_number_value(json_object_get(value,
                                                             "diastolic")));
            hm_buf_lit(&b, "}");

        } else {
            hm_json_real(&b, json_number_value(value));
        }

        hm_buf_lit(&b, ",\"unit\":");
        hm_json_text(&b, (hm_str_t) { json_string_length(unit),
                              (unsigned char *) json_string_value(unit) });
        hm_buf_lit(&b, "}");

        hm_hd_set_json(v, &b, f);
    }
}


static void
hm_hd_custom(hm_mem_t *mem, hm_record_t *rec, hm_str_t slug, json_t *value,
    json_t *unit, hm_faults_t *f, hm_str_t prefix)
{
    size_t       i, len;
    hm_buf_t     b;
    hm_str_t     u;
    hm_value_t  *v;

    if (unit == NULL) {
        hm_fault_add(f, prefix, "unit", HM_FAULT_REQUIRED,
                     "a custom metric needs a unit");
        return;
    }

    if (!json_is_string(unit)) {
        return;              /* named by the table's own check */
    }

    u.data = (unsigned char *) json_string_value(unit);
    u.len = json_string_length(unit);
    len = u.len;

    for (i = 0; i < len; i++) {
        if (u.data[i] < 0x20 || u.data[i] > 0x7e) {
            hm_fault_add(f, prefix, "unit", HM_FAULT_UNIT,
                         "1..32 printable ASCII characters");
            return;
        }
    }

    if (value != NULL && !json_is_null(value)) {
        if (!json_is_number(value)) {
            hm_fault_add(f, prefix, "value", HM_FAULT_TYPE,
                         "a number is needed");
            return;
        }

        hm_buf_init(&b, mem, 32);
        hm_json_real(&b, json_number_value(value));
        hm_hd_set_json(&rec->v[HM_HD_VALUE], &b, f);
    }

    v = &rec->v[HM_HD_CUSTOM];
    hm_buf_init(&b, mem, slug.len + u.len + 32);
    hm_buf_lit(&b, "{\"slug\":");
    hm_json_text(&b, slug);
    hm_buf_lit(&b, ",\"unit\":");
    hm_json_text(&b, u);
    hm_buf_lit(&b, "}");
    hm_hd_set_json(v, &b, f);
}


static void
hm_hd_set_json(hm_value_t *v, hm_buf_t *b, hm_faults_t *f)
{
    if (b->failed) {
        f->n += HM_FAULTS_MAX;
        return;
    }

    v->set = 1;
    v->text.data = b->start;
    v->text.len = hm_buf_len(b);
}


static void
hm_hd_time(hm_record_t *rec, const hm_record_t *old, hm_usec_t now,
    hm_faults_t *f, hm_str_t prefix)
{
    hm_value_t  *v;

    v = &rec->v[HM_HD_TIMESTAMP];

    if (!v->set) {
        if (old == NULL) {
            /* also when it could not be read: the fault is already named */
            v->set = 1;
            v->time = now - now % 1000;
        } else if (v->sent) {
            *v = old->v[HM_HD_TIMESTAMP];
        }

        return;
    }

    if (v->time > now + HM_HD_AHEAD) {
        hm_fault_add(f, prefix, "timestamp", HM_FAULT_FUTURE,
                     "at most 5 minutes ahead of the server's clock");

    } else if (v->time < HM_HD_OLDEST) {
        hm_fault_add(f, prefix, "timestamp", HM_FAULT_RANGE,
                     "not before 1900-01-01");
    }
}


static void
hm_hd_source(hm_record_t *rec, hm_faults_t *f, hm_str_t prefix)
{
    size_t          i;
    hm_value_t     *v;
    unsigned char   c;

    v = &rec->v[HM_HD_SOURCE];

    if (!v->set) {
        v->set = 1;
        v->text = HM_STR("manual");
        return;
    }

    for (i = 0; i < v->text.len; i++) {
        c = v->text.data[i];

        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
            || (i > 0 && (c == '.' || c == '_' || c == ':' || c == '-')))
        {
            continue;
        }

        hm_fault_add(f, prefix, "source", HM_FAULT_FORMAT,
                     "[a-z0-9][a-z0-9._:-]{0,63}");
        return;
    }
}


static hm_rc_t
hm_hd_index(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec,
    const hm_user_keys_t *keys)
{
    json_t          *custom, *id;
    hm_rc_t          rc;
    hm_str_t         slug, unit, source_id, type;
    unsigned char    name[64];
    hm_value_t      *v;
    hm_reading_t     reading;
    unsigned char   *key;

    custom = NULL;
    id = NULL;
    rc = HM_ERROR;
    unit = hm_null_str;
    source_id = hm_null_str;
    type = rec->v[HM_HD_DATA_TYPE].text;

    key = hm_alloc(mem, 64);
    if (key == NULL
        || hm_hd_reading(rec->v[HM_HD_VALUE].text, &reading) != HM_OK)
    {
        return HM_ERROR;
    }

    v = &rec->v[HM_HD_SLUG_INDEX];
    v->set = 0;

    if (rec->v[HM_HD_CUSTOM].set) {
        custom = hm_hd_opened(&rec->v[HM_HD_CUSTOM]);
        if (custom == NULL) {
            return HM_ERROR;
        }

        slug.data = (unsigned char *)
                    json_string_value(json_object_get(custom, "slug"));
        slug.len = json_string_length(json_object_get(custom, "slug"));
        unit.data = (unsigned char *)
                    json_string_value(json_object_get(custom, "unit"));
        unit.len = json_string_length(json_object_get(custom, "unit"));

        /* a second sealing finds only `custom` in the record */

        if (slug.len > 40) {
            goto done;
        }

        memcpy(name, "custom:", 7);
        memcpy(name + 7, slug.data, slug.len);
        type.data = name;
        type.len = 7 + slug.len;

        if (hm_blind_index(key + 32, keys->index_key, "health_data", "slug",
                           &rec->user_id, slug)
            != HM_OK)
        {
            goto done;
        }

        v->set = 1;
        v->text.data = key + 32;
        v->text.len = 32;
    }

    if (rec->v[HM_HD_SOURCE_ID].set) {
        id = hm_hd_opened(&rec->v[HM_HD_SOURCE_ID]);
        if (id == NULL) {
            goto done;
        }

        source_id.data = (unsigned char *) json_string_value(id);
        source_id.len = json_string_length(id);
    }

    rc = hm_dedup_key(key, keys->index_key, &rec->user_id,
                      type, rec->v[HM_HD_TIMESTAMP].time, &reading, unit,
                      rec->v[HM_HD_SOURCE].text, source_id);

    v = &rec->v[HM_HD_DEDUP_KEY];
    v->set = 1;
    v->text.data = key;
    v->text.len = 32;

    /* from here on the row says only `custom` */

    if (custom != NULL) {
        rec->v[HM_HD_DATA_TYPE].text = HM_STR("custom");
        rec->v[HM_HD_UNIT].set = 0;
    }

done:

    json_decref(custom);
    json_decref(id);

    return rc;
}


static json_t *
hm_hd_opened(const hm_value_t *v)
{
    return json_loadb((char *) v->text.data, v->text.len, JSON_DECODE_ANY,
                      NULL);
}


static hm_rc_t
hm_hd_reading(hm_str_t json, hm_reading_t *r)
{
    json_t  *j;
    char     text[40], *end;

    r->object = false;
    r->second = 0;

    if (json.len > 0 && json.len < sizeof(text) && json.data[0] != '{') {
        memcpy(text, json.data, json.len);
        text[json.len] = '\0';
        r->number = strtod(text, &end);

        return end == text + json.len ? HM_OK : HM_ERROR;
    }

    j = json_loadb((char *) json.data, json.len, 0, NULL);
    if (j == NULL) {
        return HM_ERROR;
    }

    r->object = true;
    r->number = json_number_value(json_object_get(j, "systolic"));
    r->second = json_number_value(json_object_get(j, "diastolic"));
    json_decref(j);

    return HM_OK;
}


static hm_rc_t
hm_hd_shown(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec)
{
    json_t      *custom;
    hm_buf_t     b;
    hm_str_t     s;

    if (!rec->v[HM_HD_CUSTOM].set) {
        return HM_OK;
    }

    custom = hm_hd_opened(&rec->v[HM_HD_CUSTOM]);
    if (custom == NULL) {
        return HM_ERROR;
    }

    hm_buf_init(&b, mem, 80);
    hm_buf_lit(&b, "custom:");
    s.data = (unsigned char *)
             json_string_value(json_object_get(custom, "slug"));
    s.len = json_string_length(json_object_get(custom, "slug"));
    hm_buf_str(&b, s);

    rec->v[HM_HD_DATA_TYPE].text.data = b.start;
    rec->v[HM_HD_DATA_TYPE].text.len = hm_buf_len(&b);

    s.data = (unsigned char *)
             json_string_value(json_object_get(custom, "unit"));
    s.len = json_string_length(json_object_get(custom, "unit"));

    hm_buf_init(&b, mem, 40);
    hm_buf_str(&b, s);
    rec->v[HM_HD_UNIT].set = 1;
    rec->v[HM_HD_UNIT].text.data = b.start;
    rec->v[HM_HD_UNIT].text.len = hm_buf_len(&b);

    json_decref(custom);

    return b.failed ? HM_ERROR : HM_OK;
}
