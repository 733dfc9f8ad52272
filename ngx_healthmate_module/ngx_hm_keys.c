/*
 * ngx_hm_keys: the keys of people, in a bounded cache of locked memory.
 *
 * Unwrapping is an operation that may wait: a miss loads the wrapped keys
 * from PostgreSQL (under the caller's own rights) and unwraps them.  Today
 * the KEK is in this process; it will move to a process of its own, and only
 * ngx_hm_keys_take() will change.
 *
 * The keys of a request are chosen by its subject, never by the row that is
 * read: a row with another's data cannot be opened even if it got here.
 *
 * The nil person is the system: its index key makes the blind index of email
 * addresses, its DEK nothing of a person.  The audit keys (one a month) are
 * kept beside.
 */

#include "ngx_hm.h"
#include "ngx_hm_people.h"


#define NGX_HM_KEYS           8192
#define NGX_HM_SYSTEM_TTL     (300 * HM_USEC)


static struct {
    hm_keyring_t         *ring;
    hm_kek_t             *kek;
    hm_user_keys_t       *system;        /* locked memory */
    struct {
        uint32_t          month;
        unsigned char     key[HM_KEY_LEN];
    }                    *audit;         /* locked memory */
    unsigned char       (*macs)[HM_KEY_LEN];
    hm_usec_t             since;         /* older ones are loaded anew */
} ngx_hm_kr;


static const char  *ngx_hm_purposes[] = {
    "etag", "cursor", "refresh", "fingerprint", "jti", "device",
    "rate"
};

#define NGX_HM_NPURPOSES                                                      \
    (sizeof(ngx_hm_purposes) / sizeof(ngx_hm_purposes[0]))


static ngx_hm_rc_t ngx_hm_keys_or(ngx_hm_ctx_t *hm, ngx_uint_t stmt);
static ngx_hm_rc_t ngx_hm_keys_loaded(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_system_loaded(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_subject_known(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_audit_key_load(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_audit_key_loaded(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_audit_key_added(ngx_hm_ctx_t *hm);
static ngx_int_t ngx_hm_system_take(const hm_user_keys_t *keys);
static uint32_t ngx_hm_month(hm_usec_t t);


/* What runs after a wait, before the step that began it runs again. */

static const ngx_hm_step_pt  ngx_hm_load_keys[] = {
    ngx_hm_keys_loaded, NULL
};

static const ngx_hm_step_pt  ngx_hm_load_system[] = {
    ngx_hm_system_loaded, NULL
};

static const ngx_hm_step_pt  ngx_hm_load_audit_key[] = {
    ngx_hm_audit_key_loaded, ngx_hm_audit_key_added, NULL
};

static const ngx_hm_step_pt  ngx_hm_ask_may[] = {
    ngx_hm_subject_known, NULL
};


ngx_int_t
ngx_hm_keys_start(ngx_hm_main_conf_t *mcf)
{
    ngx_hm_kr.kek = mcf->kek;
    ngx_hm_kr.ring = hm_keyring_create(NGX_HM_KEYS);
    ngx_hm_kr.system = hm_locked_alloc(sizeof(hm_user_keys_t));
    ngx_hm_kr.audit = hm_locked_alloc(sizeof(*ngx_hm_kr.audit));
    ngx_hm_kr.macs = hm_locked_alloc(NGX_HM_NPURPOSES * HM_KEY_LEN);

    if (ngx_hm_kr.ring == NULL || ngx_hm_kr.system == NULL
        || ngx_hm_kr.audit == NULL || ngx_hm_kr.macs == NULL)
    {
        return NGX_ERROR;
    }

    ngx_hm_kr.system->active = 0;
    ngx_hm_kr.audit->month = 0;

    return NGX_OK;
}


void
ngx_hm_keys_stop(void)
{
    if (ngx_hm_kr.ring == NULL) {
        return;
    }

    hm_keyring_destroy(ngx_hm_kr.ring);
    hm_locked_free(ngx_hm_kr.system, sizeof(hm_user_keys_t));
    hm_locked_free(ngx_hm_kr.audit, sizeof(*ngx_hm_kr.audit));
    hm_locked_free(ngx_hm_kr.macs, NGX_HM_NPURPOSES * HM_KEY_LEN);
    ngx_hm_kr.ring = NULL;
}


/*
 * One row: versions int4[], wrapped deks bytea[], active int4, wrapped
 * index key, leaf.  As columns: version, wrapped_dek, state, wrapped_key,
 * leaf, a row for each version, newest first.
 */
ngx_int_t
ngx_hm_keys_take(const PGresult *res, const hm_uuid_t *user)
{
    int              i, rows;
    hm_str_t         wrapped;
    hm_user_keys_t  *keys;

    rows = PQntuples(res);

    if (rows == 0) {
        return NGX_DECLINED;
    }

    keys = hm_locked_alloc(sizeof(hm_user_keys_t));
    if (keys == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(keys, sizeof(hm_user_keys_t));

    keys->user = *user;
    keys->loaded = hm_now();
    keys->leaf = hm_row_u32(res, 0, 4);

    if (hm_kek_unwrap(ngx_hm_kr.kek, keys->index_key, "index", 1, user,
                      hm_row_str(res, 0, 3))
        != HM_OK)
    {
        goto failed;
    }

    for (i = 0; i < rows && i < HM_KEY_VERSIONS; i++) {
        keys->version[i] = hm_row_u32(res, i, 0);
        wrapped = hm_row_str(res, i, 1);

        if (hm_kek_unwrap(ngx_hm_kr.kek, keys->dek[i], "dek",
                          keys->version[i], user, wrapped)
            != HM_OK)
        {
            goto failed;
        }

        keys->nversions++;

        if (hm_str_eq(hm_row_str(res, i, 2), HM_STR("active"))) {
            keys->active = keys->version[i];
        }
    }

    ngx_hm_count(NGX_HM_M_KEY_LOADS, 1);

    if (hm_uuid_eq(user, &hm_nil_uuid)) {
        i = ngx_hm_system_take(keys);
        hm_locked_free(keys, sizeof(hm_user_keys_t));
        return i;
    }

    if (hm_keyring_put(ngx_hm_kr.ring, keys) == NULL) {
        goto failed;
    }

    hm_locked_free(keys, sizeof(hm_user_keys_t));

    return NGX_OK;

failed:

    hm_locked_free(keys, sizeof(hm_user_keys_t));

    ngx_log_error(NGX_LOG_ERR, ngx_hm_worker.log, 0,
                  "healthmate: a person's keys could not be unwrapped; "
                  "does healthmate_kek_file hold every version in use?");

    return NGX_ERROR;
}


hm_user_keys_t *
ngx_hm_keys(ngx_hm_ctx_t *hm)
{
    /* as of the step that found them: they do not lapse within a turn */

    return hm_keyring_since(ngx_hm_kr.ring, &hm->subject, hm->keys_at);
}


void
ngx_hm_keys_drop(const hm_uuid_t *user)
{
    if (hm_uuid_eq(user, &hm_nil_uuid)) {
        ngx_hm_kr.system->loaded = 0;    /* loaded anew, used until then */
        return;
    }

    hm_keyring_drop(ngx_hm_kr.ring, user);
}


/* Requests under way keep what they have; a new one loads it again. */
void
ngx_hm_keys_expire(hm_usec_t before)
{
    ngx_hm_kr.since = before;
}


void
ngx_hm_keys_wipe(hm_usec_t before)
{
    hm_keyring_drop_before(ngx_hm_kr.ring, before);
}


/* A step: runs on only when the subject's keys are in the cache. */
ngx_hm_rc_t
ngx_hm_step_keys(ngx_hm_ctx_t *hm)
{
    return ngx_hm_keys_or(hm, NGX_HM_SQL_KEY_LOAD);
}


/*
 * The same for an account, not for records: the database gives a doctor or
 * an administrator the wrapped keys, and no row of that person with them.
 */
ngx_hm_rc_t
ngx_hm_step_staff_keys(ngx_hm_ctx_t *hm)
{
    return ngx_hm_keys_or(hm, NGX_HM_SQL_STAFF_KEYS);
}


static ngx_hm_rc_t
ngx_hm_keys_or(ngx_hm_ctx_t *hm, ngx_uint_t stmt)
{
    hm_user_keys_t  *keys;

    hm->keys_at = hm_now();

    /* a clock that was set back must not shut everybody out */
    ngx_hm_kr.since = ngx_min(ngx_hm_kr.since, hm->keys_at);

    keys = hm_keyring_get(ngx_hm_kr.ring, &hm->subject, hm->keys_at);

    if (keys != NULL && keys->loaded >= ngx_hm_kr.since) {
        hm->loads = 0;
        hm->leaf = keys->leaf;
        return NGX_HM_NEXT;
    }

    if (hm->loads++ > 3) {
        return ngx_hm_fail_detail(hm, HM_PROBLEM_SERVER_ERROR,
                                  "the keys cannot be used");
    }

    hm->keys_seen = ngx_hm_feed_key_count();

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, stmt);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);

    hm->step--;
    ngx_hm_call(hm, ngx_hm_load_keys);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_keys_loaded(ngx_hm_ctx_t *hm)
{
    ngx_int_t     rc;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    rc = ngx_hm_keys_take(hm->seg.res, &hm->subject);
    ngx_hm_seg_clear(&hm->seg);

    if (rc == NGX_DECLINED) {
        /* nobody of that id, or nothing the caller may see */
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    if (rc != NGX_OK) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    if (ngx_hm_feed_key_since(hm->keys_seen, &hm->subject)) {
        /* they turned while we read them: these may be the old ones */
        ngx_hm_keys_drop(&hm->subject);
    }

    return ngx_hm_return(hm);
}


/* A step: about somebody else only with the database's own consent. */
ngx_hm_rc_t
ngx_hm_step_subject(ngx_hm_ctx_t *hm)
{
    hm_str_t  verb;

    if (!hm->foreign) {
        return NGX_HM_NEXT;
    }

    verb = hm->route->perm == HM_PERM_HEALTH_WRITE ? HM_STR("write")
                                                   : HM_STR("read");

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_MAY);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_str(&hm->seg, verb);

    ngx_hm_call(hm, ngx_hm_ask_may);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_subject_known(ngx_hm_ctx_t *hm)
{
    hm_uuid_t     asked;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    asked = hm_row_uuid(hm->seg.res, 0, 1);

    if (ngx_hm_owned(hm, &asked, "may") != NGX_HM_NEXT) {
        return NGX_HM_FAIL;
    }

    hm->glass = hm_row_bool(hm->seg.res, 0, 0)
                && hm_row_bool(hm->seg.res, 0, 2);

#ifndef HM_FAULT_NO_GATE
    if (!hm_row_bool(hm->seg.res, 0, 0)) {
        return ngx_hm_fail(hm, hm->who.role == HM_ROLE_ADMIN
                               && hm->conf->admin_phi
                                  == NGX_HM_PHI_BREAK_GLASS
                               ? HM_PROBLEM_BREAK_GLASS_REQUIRED
                               : HM_PROBLEM_NOT_FOUND);
    }
#endif

    return ngx_hm_return(hm);
}


/* The system */


ngx_hm_rc_t
ngx_hm_step_system_keys(ngx_hm_ctx_t *hm)
{
    if (ngx_hm_kr.system->active == 0
        || hm->now - ngx_hm_kr.system->loaded > NGX_HM_SYSTEM_TTL)
    {
        if (hm->loads++ > 3) {
            return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
        }

        ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_KEY_LOAD);
        ngx_hm_seg_uuid(&hm->seg, &hm_nil_uuid);

        hm->step--;
        ngx_hm_call(hm, ngx_hm_load_system);

        return ngx_hm_seg_wait(hm);
    }

    if (ngx_hm_kr.audit->month != ngx_hm_month(hm->now)) {
        return ngx_hm_audit_key_load(hm);
    }

    hm->loads = 0;

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
ngx_hm_system_loaded(ngx_hm_ctx_t *hm)
{
    ngx_int_t     rc;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    rc = ngx_hm_keys_take(hm->seg.res, &hm_nil_uuid);
    ngx_hm_seg_clear(&hm->seg);

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, ngx_hm_worker.log, 0,
                      "healthmate: the system's keys are missing; "
                      "run \"healthmate keys init\"");
        hm->headers.retry_after = 1;
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    return ngx_hm_return(hm);
}


static ngx_int_t
ngx_hm_system_take(const hm_user_keys_t *keys)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HM_NPURPOSES; i++) {
        if (hm_hmac(ngx_hm_kr.macs[i], keys->index_key, HM_KEY_LEN,
                    ngx_hm_purposes[i], ngx_strlen(ngx_hm_purposes[i]))
            != HM_OK)
        {
            return NGX_ERROR;
        }
    }

    *ngx_hm_kr.system = *keys;

    return keys->active != 0 ? NGX_OK : NGX_DECLINED;
}


hm_user_keys_t *
ngx_hm_system_keys(void)
{
    return ngx_hm_kr.system->active != 0 ? ngx_hm_kr.system : NULL;
}


ngx_int_t
ngx_hm_mac(unsigned char out[32], const char *purpose, const void *data,
    size_t len)
{
    ngx_uint_t  i;

    if (ngx_hm_kr.system->active == 0) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_HM_NPURPOSES; i++) {
        if (ngx_strcmp(ngx_hm_purposes[i], purpose) == 0) {
            return hm_hmac(out, ngx_hm_kr.macs[i], HM_KEY_LEN, data, len)
                   == HM_OK ? NGX_OK : NGX_ERROR;
        }
    }

    return NGX_ERROR;
}


/* The audit key of the month: looked up, made if nobody has made it yet. */


static ngx_hm_rc_t
ngx_hm_audit_key_load(ngx_hm_ctx_t *hm)
{
    if (hm->loads++ > 5) {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_AUDIT_KEY);
    ngx_hm_seg_i32(hm, &hm->seg, ngx_hm_month(hm->now));

    hm->step--;
    ngx_hm_call(hm, ngx_hm_load_audit_key);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_audit_key_loaded(ngx_hm_ctx_t *hm)
{
    u_char         *wrapped;
    uint32_t        month;
    hm_problem_t    p;
    unsigned char   key[HM_KEY_LEN];

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    month = ngx_hm_month(hm->now);

    if (PQntuples(hm->seg.res) == 1) {
        if (hm_kek_unwrap(ngx_hm_kr.kek, ngx_hm_kr.audit->key, "audit",
                          month, &hm_nil_uuid,
                          hm_row_str(hm->seg.res, 0, 0))
            != HM_OK)
        {
            return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
        }

        ngx_hm_kr.audit->month = month;

        return ngx_hm_return(hm);
    }

    wrapped = ngx_hm_palloc(hm, HM_WRAPPED_LEN);

    if (wrapped == NULL || hm_random(key, HM_KEY_LEN) != HM_OK
        || hm_kek_wrap(ngx_hm_kr.kek, wrapped, "audit", month, &hm_nil_uuid,
                       key)
           != HM_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm_wipe(key, HM_KEY_LEN);

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO, NGX_HM_SQL_AUDIT_KEY_ADD);
    ngx_hm_seg_i32(hm, &hm->seg, month);
    ngx_hm_seg_i32(hm, &hm->seg, hm_kek_current(ngx_hm_kr.kek));
    ngx_hm_seg_add(&hm->seg, wrapped, HM_WRAPPED_LEN);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_audit_key_added(ngx_hm_ctx_t *hm)
{
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    /* whoever was first: read what is there now */

    return ngx_hm_return(hm);
}


static uint32_t
ngx_hm_month(hm_usec_t t)
{
    int      year, month, day;
    int64_t  days;

    days = t / (86400 * HM_USEC);
    hm_civil_from_days(days, &year, &month, &day);

    return (uint32_t) (year * 100 + month);
}


/*
 * {"address":"...","request_id":"..."} sealed under the month's key.  Its
 * place is the time and the actor of the row, which has no id.
 */
ngx_int_t
ngx_hm_audit_origin(ngx_hm_ctx_t *hm, hm_str_t *origin)
{
    u_char               json[256], *p;
    uint32_t             month;
    hm_str_t             text;
    hm_place_t           place;
    ngx_connection_t    *c;

    if (hm->request == NULL) {
        return NGX_ERROR;
    }

    month = ngx_hm_month(hm->now);

    if (ngx_hm_kr.audit->month != month) {
        return NGX_ERROR;
    }

    c = hm->request->connection;

    p = ngx_snprintf(json, sizeof(json),
                     "{\"address\":\"%V\",\"request_id\":\"%*s\"}",
                     &c->addr_text, hm->request_id.len, hm->request_id.data);

    text.data = json;
    text.len = p - json;

    place.table = "audit_logs";
    place.column = "origin";
    place.owner = hm_nil_uuid;
    hm_put_u64(place.row.b, (uint64_t) hm->audit.row.at);
    ngx_memcpy(place.row.b + 8, hm->audit.row.actor.b + 8, 8);

    origin->data = ngx_hm_palloc(hm, hm_sealed_len(text.len));

    if (origin->data == NULL
        || hm_seal(origin->data, &origin->len, ngx_hm_kr.audit->key, month,
                   &place, text)
           != HM_OK)
    {
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}
