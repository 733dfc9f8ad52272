/*
 * hm_profile: what a health profile may hold.
 *
 * DESIGN
 *
 * The profile is one document: it is read as a whole by whoever treats the
 * person, and sealed as a whole, because each of its members tells of a body,
 * a mind or a habit.  So it has no columns and no hm_resource_t; one table
 * here names its members, in the order in which they are answered.
 *
 * Kinds of members:
 *   NUMBER  within bounds
 *   TEXT    a name or a word, at most 200 characters
 *   BOOL
 *   LIST    of texts or of small objects (a physician, a contact)
 *   NOTE    a text, a list or a small object: people write insurances and
 *           wishes in all three forms, and nothing computes with them
 *   GROUPS  allergies: an object of three lists
 *
 * Numbers and words carry no unit and no code on purpose: measurements are
 * health data, where they have both; this is what a person says about
 * himself.  null means empty everywhere, in a document and in a body.
 */

#include "hm_profile.h"
#include "hm_text.h"

#include <string.h>


#define HM_PROFILE_WORD     200
#define HM_PROFILE_TEXT     10000
#define HM_PROFILE_ITEMS    100
#define HM_PROFILE_MEMBERS  20


typedef enum {
    HM_P_NUMBER = 0, HM_P_TEXT, HM_P_BOOL, HM_P_LIST, HM_P_NOTE, HM_P_GROUPS
} hm_profile_kind_t;


static const struct {
    const char         *name;
    hm_profile_kind_t   kind;
    double              min;
    double              max;
} hm_profile_members[] = {
    { "height_cm", HM_P_NUMBER, 20, 280 },
    { "weight_kg", HM_P_NUMBER, 0.3, 650 },
    { "gender", HM_P_TEXT, 0, 0 },
    { "blood_type", HM_P_TEXT, 0, 0 },
    { "activity_level", HM_P_TEXT, 0, 0 },
    { "smoking_status", HM_P_TEXT, 0, 0 },
    { "alcohol_consumption", HM_P_TEXT, 0, 0 },
    { "sleep_hours", HM_P_NUMBER, 0, 24 },
    { "ethnicity", HM_P_TEXT, 0, 0 },
    { "occupation", HM_P_TEXT, 0, 0 },
    { "physicians", HM_P_LIST, 0, 0 },
    { "insurance", HM_P_NOTE, 0, 0 },
    { "family_history", HM_P_NOTE, 0, 0 },
    { "allergies", HM_P_GROUPS, 0, 0 },
    { "chronic_conditions", HM_P_LIST, 0, 0 },
    { "mental_health", HM_P_NOTE, 0, 0 },
    { "emergency_contacts", HM_P_LIST, 0, 0 },
    { "advance_directives", HM_P_NOTE, 0, 0 },
    { "organ_donor", HM_P_BOOL, 0, 0 }
};

#define HM_PROFILE_N                                                          \
    (sizeof(hm_profile_members) / sizeof(hm_profile_members[0]))


static const char *const  hm_profile_groups[] = {
    "food", "drug", "environmental"
};


static int hm_profile_find(const char *name);
static void hm_profile_member(size_t i, json_t *j, hm_faults_t *f);
static void hm_profile_text(json_t *j, size_t max, hm_faults_t *f,
    hm_str_t at, const char *name);
static void hm_profile_list(json_t *j, hm_faults_t *f, hm_str_t at,
    const char *name);
static void hm_profile_object(json_t *j, hm_faults_t *f, hm_str_t at);
static void hm_profile_allergies(json_t *j, hm_faults_t *f);
static hm_str_t hm_profile_at(hm_faults_t *f, hm_str_t at, const char *name);
static void hm_profile_value(hm_buf_t *b, json_t *j);


hm_rc_t
hm_profile_check(json_t *doc, hm_faults_t *f)
{
    int          i;
    size_t       faults;
    json_t      *j;
    const char  *name;

    faults = f->n;

    if (!json_is_object(doc)) {
        hm_fault_add(f, HM_STR(""), NULL, HM_FAULT_TYPE,
                     "an object is needed");
        return HM_DECLINED;
    }

    json_object_foreach(doc, name, j) {
        i = hm_profile_find(name);

        if (strcmp(name, "user_id") == 0 || strcmp(name, "updated_at") == 0)
        {
            hm_fault_add(f, HM_STR(""), name, HM_FAULT_READ_ONLY,
                         "set by the server");

        } else if (i < 0) {
            hm_fault_add(f, HM_STR(""), name, HM_FAULT_UNKNOWN,
                         "no such member");

        } else if (!json_is_null(j)) {
            hm_profile_member((size_t) i, j, f);
        }
    }

    return f->n == faults ? HM_OK : HM_DECLINED;
}


static int
hm_profile_find(const char *name)
{
    size_t  i;

    for (i = 0; i < HM_PROFILE_N; i++) {
        if (strcmp(hm_profile_members[i].name, name) == 0) {
            return (int) i;
        }
    }

    return -1;
}


static void
hm_profile_member(size_t i, json_t *j, hm_faults_t *f)
{
    double       n, min, max;
    const char  *name;

    name = hm_profile_members[i].name;
    min = hm_profile_members[i].min;
    max = hm_profile_members[i].max;

    switch (hm_profile_members[i].kind) {

    case HM_P_NUMBER:
        n = json_number_value(j);

        if (!json_is_number(j)) {
            hm_fault_add(f, HM_STR(""), name, HM_FAULT_TYPE,
                         "a number is needed");

        } else if (!(n >= min && n <= max)) {
            hm_fault_add(f, HM_STR(""), name, HM_FAULT_RANGE, "%g..%g", min,
                         max);
        }

        return;

    case HM_P_TEXT:
        hm_profile_text(j, HM_PROFILE_WORD, f, HM_STR(""), name);
        return;

    case HM_P_BOOL:
        if (!json_is_boolean(j)) {
            hm_fault_add(f, HM_STR(""), name, HM_FAULT_TYPE,
                         "true or false");
        }

        return;

    case HM_P_LIST:
        hm_profile_list(j, f, HM_STR(""), name);
        return;

    case HM_P_GROUPS:
        hm_profile_allergies(j, f);
        return;

    default:
        if (json_is_array(j)) {
            hm_profile_list(j, f, HM_STR(""), name);

        } else if (json_is_object(j)) {
            hm_profile_object(j, f, hm_profile_at(f, HM_STR(""), name));

        } else {
            hm_profile_text(j, HM_PROFILE_TEXT, f, HM_STR(""), name);
        }
    }
}


static void
hm_profile_text(json_t *j, size_t max, hm_faults_t *f, hm_str_t at,
    const char *name)
{
    hm_str_t  s;

    if (!json_is_string(j)) {
        hm_fault_add(f, at, name, HM_FAULT_TYPE, "a string is needed");
        return;
    }

    s.data = (unsigned char *) json_string_value(j);
    s.len = json_string_length(j);

    if (s.len == 0 || hm_utf8_count(s) > max) {
        hm_fault_add(f, at, name, HM_FAULT_LENGTH, "1..%zu characters", max);

    } else if (!hm_text_clean(s)) {
        hm_fault_add(f, at, name, HM_FAULT_FORMAT,
                     "control characters are not taken");
    }
}


static void
hm_profile_list(json_t *j, hm_faults_t *f, hm_str_t at, const char *name)
{
    char       index[24];
    size_t     i;
    json_t    *item;
    hm_str_t   here;

    if (!json_is_array(j)) {
        hm_fault_add(f, at, name, HM_FAULT_TYPE, "a list is needed");
        return;
    }

    if (json_array_size(j) > HM_PROFILE_ITEMS) {
        hm_fault_add(f, at, name, HM_FAULT_LENGTH, "at most %d items",
                     HM_PROFILE_ITEMS);
        return;
    }

    here = hm_profile_at(f, at, name);

    json_array_foreach(j, i, item) {
        snprintf(index, sizeof(index), "%zu", i);

        if (json_is_object(item)) {
            hm_profile_object(item, f, hm_profile_at(f, here, index));

        } else {
            hm_profile_text(item, HM_PROFILE_TEXT, f, here, index);
        }
    }
}


/* Flat: texts, numbers, true, false and null. */
static void
hm_profile_object(json_t *j, hm_faults_t *f, hm_str_t at)
{
    json_t      *item;
    hm_str_t     key;
    const char  *name;

    if (json_object_size(j) > HM_PROFILE_MEMBERS) {
        hm_fault_add(f, at, NULL, HM_FAULT_LENGTH, "at most %d members",
                     HM_PROFILE_MEMBERS);
        return;
    }

    json_object_foreach(j, name, item) {
        key.data = (unsigned char *) name;
        key.len = strlen(name);

        if (key.len == 0 || hm_utf8_count(key) > HM_PROFILE_WORD
            || !hm_text_clean(key))
        {
            hm_fault_add(f, at, NULL, HM_FAULT_FORMAT,
                         "names of members have 1..%d characters",
                         HM_PROFILE_WORD);
            continue;
        }

        if (!json_is_null(item) && !json_is_boolean(item)
            && !json_is_number(item))
        {
            hm_profile_text(item, HM_PROFILE_TEXT, f, at, name);
        }
    }
}


static void
hm_profile_allergies(json_t *j, hm_faults_t *f)
{
    size_t       i, n;
    json_t      *list;
    hm_str_t     at;
    const char  *name;

    if (!json_is_object(j)) {
        hm_fault_add(f, HM_STR(""), "allergies", HM_FAULT_TYPE,
                     "an object of food, drug and environmental");
        return;
    }

    at = HM_STR("/allergies");
    n = sizeof(hm_profile_groups) / sizeof(hm_profile_groups[0]);

    json_object_foreach(j, name, list) {
        for (i = 0; i < n; i++) {
            if (strcmp(hm_profile_groups[i], name) == 0) {
                break;
            }
        }

        if (i == n) {
            hm_fault_add(f, at, name, HM_FAULT_UNKNOWN, "no such member");

        } else if (!json_is_null(list)) {
            hm_profile_list(list, f, at, name);
        }
    }
}


/* The pointer of a member, for the faults inside it. */
static hm_str_t
hm_profile_at(hm_faults_t *f, hm_str_t at, const char *name)
{
    hm_buf_t  b;

    hm_buf_init(&b, f->mem, at.len + strlen(name) + 8);
    hm_buf_str(&b, at);
    hm_buf_lit(&b, "/");
    hm_buf_add(&b, name, strlen(name));

    return b.failed ? at : (hm_str_t) { hm_buf_len(&b), b.start };
}


void
hm_profile_json(hm_buf_t *b, json_t *doc)
{
    size_t  i;

    for (i = 0; i < HM_PROFILE_N; i++) {
        hm_buf_printf(b, "%s\"%s\":", i == 0 ? "" : ",",
                      hm_profile_members[i].name);
        hm_profile_value(b, json_object_get(doc,
                                            hm_profile_members[i].name));
    }
}


void
hm_profile_store(hm_buf_t *b, json_t *doc)
{
    size_t       i;
    json_t      *j;
    const char  *comma;

    comma = "";
    hm_buf_lit(b, "{");

    for (i = 0; i < HM_PROFILE_N; i++) {
        j = json_object_get(doc, hm_profile_members[i].name);

        if (j == NULL || json_is_null(j)) {
            continue;
        }

        hm_buf_printf(b, "%s\"%s\":", comma, hm_profile_members[i].name);
        hm_profile_value(b, j);
        comma = ",";
    }

    hm_buf_lit(b, "}");
}


static void
hm_profile_value(hm_buf_t *b, json_t *j)
{
    size_t       i;
    json_t      *item;
    hm_str_t     s;
    const char  *name, *comma;

    comma = "";

    switch (j != NULL ? json_typeof(j) : JSON_NULL) {

    case JSON_STRING:
        s.data = (unsigned char *) json_string_value(j);
        s.len = json_string_length(j);
        hm_json_text(b, s);
        return;

    case JSON_INTEGER:
        hm_json_int(b, json_integer_value(j));
        return;

    case JSON_REAL:
        hm_json_real(b, json_real_value(j));
        return;

    case JSON_TRUE:
        hm_buf_lit(b, "true");
        return;

    case JSON_FALSE:
        hm_buf_lit(b, "false");
        return;

    case JSON_ARRAY:
        hm_buf_lit(b, "[");

        json_array_foreach(j, i, item) {
            hm_buf_add(b, ",", i > 0);
            hm_profile_value(b, item);
        }

        hm_buf_lit(b, "]");
        return;

    case JSON_OBJECT:
        hm_buf_lit(b, "{");

        json_object_foreach(j, name, item) {
            hm_buf_add(b, comma, strlen(comma));
            s.data = (unsigned char *) name;
            s.len = strlen(name);
            hm_json_text(b, s);
            hm_buf_lit(b, ":");
            hm_profile_value(b, item);
            comma = ",";
        }

        hm_buf_lit(b, "}");
        return;

    default:
        hm_buf_lit(b, "null");
    }
}
