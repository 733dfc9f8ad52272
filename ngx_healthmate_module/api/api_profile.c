/*
 * api_profile: preferences, the health profile, and who saw my data.
 *
 * Preferences and profile are singletons: everybody has one from the start.
 * While no row is stored they are empty (preferences: the defaults), their
 * version is 0 and they have an entity tag like any other, so that the first
 * PUT can be conditional too.
 *
 * The profile is one document (hm_profile.c), sealed as a whole under its
 * person's key.  It is health data: a doctor or an administrator names the
 * person with ?user_id=, under the rules of records.  PATCH opens, merges,
 * judges the whole and seals again; the write holds the version that was
 * read and the key, and starts anew when either has moved.
 *
 * The access log is the audit as its subject may see it: accesses by others,
 * also those that were refused, newest first; by whom, in which role, for
 * which purpose.  Reading it is an access, too, but one's own.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"
#include "../ngx_hm_people.h"

#include "hm_profile.h"

#include <unistd.h>


#define PROFILE_RACES   8
#define ZONE_FOLDER     "/usr/share/zoneinfo/"


typedef struct {
    hm_str_t     locale;
    hm_str_t     units;
    hm_str_t     zone;
    uint32_t     version;
} prefs_t;


enum { S_PERSON = 0, S_VERSION, S_FIRST };

/* Columns of preferences, of a profile and of an access. */
enum { S_LOCALE = S_FIRST, S_UNITS, S_ZONE, S_PREFS_AT };
enum { S_DOCUMENT = S_FIRST, S_PROFILE_AT };
enum { A_ACTION = NGX_HM_ROW_FIRST, A_RESOURCE, A_OUTCOME, A_ACTOR, A_ROLE,
       A_PURPOSE, A_ITEMS };


static ngx_hm_rc_t prefs_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t prefs_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t prefs_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t prefs_change(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t prefs_changed(ngx_hm_ctx_t *hm);
static void prefs_json(hm_buf_t *b, const prefs_t *prefs);
static ngx_uint_t prefs_zone_known(hm_str_t zone);
static ngx_uint_t prefs_locale_valid(hm_str_t locale);

static ngx_hm_rc_t profile_ask(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t profile_found(ngx_hm_ctx_t *hm, uint32_t *version,
    json_t **doc);
static ngx_hm_rc_t profile_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t profile_change(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t profile_changed(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t profile_answer(ngx_hm_ctx_t *hm, json_t *doc,
    uint32_t version, hm_usec_t updated);

static ngx_hm_rc_t access_read(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t access_row(ngx_hm_ctx_t *hm, const PGresult *r, int row,
    hm_buf_t *b);
static hm_uuid_t singleton_id(ngx_hm_ctx_t *hm, u_char which);


static const ngx_hm_rows_t  access_rows = {
    NGX_HM_SQL_ACCESSES_DESC, NGX_HM_SQL_ACCESSES_ASC, NGX_HM_LANE_SLOW, 0,
    NGX_HM_ROWS_PLAIN, access_row
};


const ngx_hm_step_pt  ngx_hm_prefs_get[] = {
    prefs_ask, prefs_reply, NULL
};

const ngx_hm_step_pt  ngx_hm_prefs_put[] = {
    ngx_hm_json_body, prefs_read, prefs_ask, prefs_change, prefs_changed,
    NULL
};

const ngx_hm_step_pt  ngx_hm_profile_get[] = {
    ngx_hm_step_subject, ngx_hm_step_keys, profile_ask, profile_reply, NULL
};

const ngx_hm_step_pt  ngx_hm_profile_change[] = {
    ngx_hm_json_body, ngx_hm_step_subject, ngx_hm_step_keys, profile_ask,
    profile_change, profile_changed, NULL
};

static const ngx_hm_step_pt  profile_again[] = {
    ngx_hm_step_keys, profile_ask, profile_change, profile_changed, NULL
};

const ngx_hm_step_pt  ngx_hm_access_log[] = {
    access_read, ngx_hm_rows_send, ngx_hm_rows_got, ngx_hm_rows_told,
    ngx_hm_rows_write, NULL
};


/* A person has one of each: entity tags differ by the last byte. */
static hm_uuid_t
singleton_id(ngx_hm_ctx_t *hm, u_char which)
{
    hm_uuid_t  id;

    id = hm->subject;
    id.b[15] ^= which;

    return id;
}


/* Preferences */


static ngx_hm_rc_t
prefs_ask(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_PREFERENCES);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
prefs_reply(ngx_hm_ctx_t *hm)
{
    prefs_t        prefs;
    PGresult      *r;
    hm_uuid_t      id;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    prefs.locale = HM_STR("en");
    prefs.units = HM_STR("metric");
    prefs.zone = HM_STR("UTC");
    prefs.version = 0;

    if (PQntuples(r) == 1) {
        id = hm_row_uuid(r, 0, S_PERSON);

        if (ngx_hm_owned(hm, &id, "user_preferences") != NGX_HM_NEXT) {
            return NGX_HM_FAIL;
        }

        prefs.locale = hm_row_str(r, 0, S_LOCALE);
        prefs.units = hm_row_str(r, 0, S_UNITS);
        prefs.zone = hm_row_str(r, 0, S_ZONE);
        prefs.version = hm_row_u32(r, 0, S_VERSION);
    }

    id = singleton_id(hm, 1);

    if (ngx_hm_etag(hm, &id, prefs.version, &hm->headers.etag) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->audit.row.items = 1;
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 128);
    prefs_json(&hm->out, &prefs);

    return ngx_hm_if_none_match(hm);
}


static void
prefs_json(hm_buf_t *b, const prefs_t *prefs)
{
    hm_buf_lit(b, "{\"locale\":");
    hm_json_text(b, prefs->locale);
    hm_buf_lit(b, ",\"units\":");
    hm_json_text(b, prefs->units);
    hm_buf_lit(b, ",\"time_zone\":");
    hm_json_text(b, prefs->zone);
    hm_buf_lit(b, "}");
}


/* A whole body: what is not in it gets its default. */
static ngx_hm_rc_t
prefs_read(ngx_hm_ctx_t *hm)
{
    prefs_t  *prefs;

    prefs = ngx_hm_pcalloc(hm, sizeof(prefs_t));
    if (prefs == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = prefs;

    ngx_hm_form_members(hm, "locale units time_zone");

    prefs->locale = ngx_hm_form_text(hm, "locale", 1, 35, 0);
    prefs->units = ngx_hm_form_word(hm, "units", "metric imperial", 0);
    prefs->zone = ngx_hm_form_text(hm, "time_zone", 1, 64, 0);

    if (prefs->locale.data != NULL && !prefs_locale_valid(prefs->locale)) {
        hm_fault_add(hm->faults, HM_STR(""), "locale", HM_FAULT_FORMAT,
                     "a language tag, as de or en-GB");
    }

    if (prefs->zone.data != NULL && !prefs_zone_known(prefs->zone)) {
        hm_fault_add(hm->faults, HM_STR(""), "time_zone", HM_FAULT_ENUM,
                     "a zone of the IANA database, as Europe/Berlin");
    }

    if (prefs->locale.data == NULL) {
        prefs->locale = HM_STR("en");
    }

    if (prefs->units.data == NULL) {
        prefs->units = HM_STR("metric");
    }

    if (prefs->zone.data == NULL) {
        prefs->zone = HM_STR("UTC");
    }

    return ngx_hm_form_done(hm);
}


/* The form of BCP 47: subtags of 1..8 letters and digits. */
static ngx_uint_t
prefs_locale_valid(hm_str_t locale)
{
    u_char   c;
    size_t   i, run;

    run = 0;

    for (i = 0; i < locale.len; i++) {
        c = locale.data[i];

        if (c == '-' && run > 0) {
            run = 0;

        } else if (((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
                    || (c >= '0' && c <= '9' && i > 1)) && run < 8)
        {
            run++;

        } else {
            return 0;
        }
    }

    return run > 0 && locale.len > 1 && locale.data[1] != '-';
}


/*
 * Is there such a zone?  The system's files are the ones PostgreSQL reads;
 * one look into a cached folder, when somebody changes preferences.
 */
static ngx_uint_t
prefs_zone_known(hm_str_t zone)
{
    char    path[sizeof(ZONE_FOLDER) + 64];
    u_char  c;
    size_t  i;

    if (hm_str_eq(zone, HM_STR("UTC"))) {
        return 1;
    }

    for (i = 0; i < zone.len; i++) {
        c = zone.data[i];

        /* UTC, or an area and a place; no dot, so no way out of it */

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
              || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '+'
              || (c == '/' && i > 0)))
        {
            return 0;
        }
    }

    if (zone.len > 64 || zone.data[0] < 'A' || zone.data[0] > 'Z'
        || zone.data[zone.len - 1] == '/'
        || memchr(zone.data, '/', zone.len) == NULL)
    {
        return 0;
    }

    snprintf(path, sizeof(path), ZONE_FOLDER "%.*s", (int) zone.len,
             (char *) zone.data);

    return access(path, R_OK) == 0;
}


static ngx_hm_rc_t
prefs_change(ngx_hm_ctx_t *hm)
{
    prefs_t       *prefs = hm->data;
    hm_uuid_t      id;
    ngx_hm_rc_t    rc;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    prefs->version = PQntuples(hm->seg.res) == 1
                     ? hm_row_u32(hm->seg.res, 0, S_VERSION) : 0;
    id = singleton_id(hm, 1);

    rc = ngx_hm_if_match(hm, &id, prefs->version);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    rc = ngx_hm_write_start(hm, NGX_HM_SQL_PREFERENCES_SET);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_i32(hm, &hm->seg, prefs->version);
    ngx_hm_seg_str(&hm->seg, prefs->locale);
    ngx_hm_seg_str(&hm->seg, prefs->units);
    ngx_hm_seg_str(&hm->seg, prefs->zone);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
prefs_changed(ngx_hm_ctx_t *hm)
{
    prefs_t       *prefs = hm->data;
    hm_uuid_t      id;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        hm->audited = 0;
        return ngx_hm_fail_detail(hm, HM_PROBLEM_CONFLICT,
                                  "it has just changed");
    }

    id = singleton_id(hm, 1);

    if (ngx_hm_etag(hm, &id, hm_row_u32(hm->seg.res, 0, 0),
                    &hm->headers.etag) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 128);
    prefs_json(&hm->out, prefs);

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Health profile */


static ngx_hm_rc_t
profile_ask(ngx_hm_ctx_t *hm)
{
    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_PROFILE);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    return ngx_hm_seg_wait(hm);
}


/* The stored document, of an absent one an empty object and version 0. */
static ngx_hm_rc_t
profile_found(ngx_hm_ctx_t *hm, uint32_t *version, json_t **doc)
{
    hm_str_t       json;
    PGresult      *r;
    hm_uuid_t      id;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;
    *version = 0;
    json = HM_STR("{}");

    if (PQntuples(r) == 1) {
        id = hm_row_uuid(r, 0, S_PERSON);

        if (ngx_hm_owned(hm, &id, "user_health_profiles") != NGX_HM_NEXT) {
            return NGX_HM_FAIL;
        }

        *version = hm_row_u32(r, 0, S_VERSION);

        if (ngx_hm_open_json(hm, "user_health_profiles", "document",
                             &hm->subject, hm_row_str(r, 0, S_DOCUMENT),
                             &json) != NGX_OK)
        {
            return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
        }
    }

    *doc = json_loadb((char *) json.data, json.len, 0, NULL);
    if (*doc == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_keep_json(hm, *doc);

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
profile_reply(ngx_hm_ctx_t *hm)
{
    json_t       *doc;
    uint32_t      version;
    ngx_hm_rc_t   rc;

    rc = profile_found(hm, &version, &doc);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    rc = profile_answer(hm, doc, version,
                        version != 0
                        ? hm_row_time(hm->seg.res, 0, S_PROFILE_AT)
                        : HM_USEC_NONE);

    return rc == NGX_HM_DONE ? ngx_hm_if_none_match(hm) : rc;
}


static ngx_hm_rc_t
profile_change(ngx_hm_ctx_t *hm)
{
    json_t       *old, *doc;
    hm_buf_t      b;
    hm_str_t      json, sealed;
    uint32_t      version;
    hm_uuid_t     id;
    ngx_hm_rc_t   rc;

    rc = profile_found(hm, &version, &old);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    id = singleton_id(hm, 2);

    rc = ngx_hm_if_match(hm, &id, version);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    doc = hm->method == NGX_HTTP_PUT || !json_is_object(hm->json)
          ? json_incref(hm->json) : hm_merge_patch(old, hm->json);
    if (doc == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    ngx_hm_keep_json(hm, doc);
    hm->data = doc;

    if (hm->method == NGX_HTTP_PATCH) {
        /* a null leaves no trace in what is merged: judge its name here */
        (void) hm_profile_check(hm->json, hm->faults);
    }

    if (hm->faults->n == 0) {
        (void) hm_profile_check(doc, hm->faults);
    }

    if (hm->faults->n != 0) {
        return ngx_hm_form_done(hm);
    }

    hm_buf_init(&b, &hm->mem, 2048);
    hm_profile_store(&b, doc);
    json.data = b.start;
    json.len = hm_buf_len(&b);

    if (b.failed
        || ngx_hm_seal_json(hm, "user_health_profiles", "document",
                            &hm->subject, json, &sealed) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    rc = ngx_hm_write_start(hm, NGX_HM_SQL_PROFILE_SET);
    if (rc != NGX_HM_NEXT) {
        return rc;
    }

    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_i32(hm, &hm->seg, version);
    ngx_hm_seg_str(&hm->seg, sealed);
    ngx_hm_seg_i32(hm, &hm->seg, ngx_hm_seal_version(hm));

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
profile_changed(ngx_hm_ctx_t *hm)
{
    hm_uuid_t     id;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    if (PQntuples(hm->seg.res) == 0) {
        /* somebody was faster, or the key has turned: from what is now */

        hm->audited = 0;

        if (hm->tries++ >= PROFILE_RACES) {
            hm->headers.retry_after = 1;
            return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
        }

        ngx_hm_keys_drop(&hm->subject);

        return ngx_hm_goto(hm, profile_again);
    }

    id = hm_row_uuid(hm->seg.res, 0, S_PERSON);

    if (ngx_hm_owned(hm, &id, "user_health_profiles") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    return profile_answer(hm, hm->data,
                          hm_row_u32(hm->seg.res, 0, S_VERSION), hm->now);
}


static ngx_hm_rc_t
profile_answer(ngx_hm_ctx_t *hm, json_t *doc, uint32_t version,
    hm_usec_t updated)
{
    hm_uuid_t  id;

    id = singleton_id(hm, 2);

    if (ngx_hm_etag(hm, &id, version, &hm->headers.etag) != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->audit.row.items = 1;
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 2048);
    hm_buf_lit(&hm->out, "{\"user_id\":");
    hm_json_uuid(&hm->out, &hm->subject);
    hm_buf_lit(&hm->out, ",");
    hm_profile_json(&hm->out, doc);
    hm_buf_lit(&hm->out, ",\"updated_at\":");
    hm_json_time(&hm->out, updated);
    hm_buf_lit(&hm->out, "}");

    return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                          : NGX_HM_DONE;
}


/* Who saw my data */


static ngx_hm_rc_t
access_read(ngx_hm_ctx_t *hm)
{
    return ngx_hm_rows_read(hm, &access_rows);
}


static ngx_hm_rc_t
access_row(ngx_hm_ctx_t *hm, const PGresult *r, int row, hm_buf_t *b)
{
    hm_uuid_t    id;
    const char  *role;

    if (ngx_hm_owned(hm, &hm->who.sub, "audit_logs") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    id = hm_row_uuid(r, row, A_ACTOR);
    role = hm_role_name((hm_role_t) hm_row_u32(r, row, A_ROLE));

    hm_buf_lit(b, "{\"at\":");
    hm_json_time(b, hm_row_time(r, row, NGX_HM_ROW_TIME));
    hm_buf_lit(b, ",\"actor_id\":");

    if (PQgetisnull(r, row, A_ACTOR)) {
        hm_buf_lit(b, "null");
    } else {
        hm_json_uuid(b, &id);
    }

    hm_buf_printf(b, ",\"actor_role\":\"%s\",\"action\":\"%s\","
                  "\"resource\":\"%s\",\"purpose\":\"%s\",\"outcome\":%u,"
                  "\"items\":%u}", role != NULL ? role : "none",
                  hm_audit_action_name(hm_row_u32(r, row, A_ACTION)),
                  hm_audit_resource_name(hm_row_u32(r, row, A_RESOURCE)),
                  hm_audit_purpose_name(hm_row_u32(r, row, A_PURPOSE)),
                  hm_row_u32(r, row, A_OUTCOME),
                  hm_row_u32(r, row, A_ITEMS));

    return NGX_HM_NEXT;
}
