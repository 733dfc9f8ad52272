/*
 * db: the database connection of the admin commands.
 *
 * DATABASE_URL says where; the role is always hm_cli, whatever the URL names
 * (HEALTHMATE_CLI_ROLE replaces it in a test database).  hm_cli has no way
 * around row-level security: a command says for whom it writes (hmc_db_actor)
 * and the policies hold.
 *
 * Every write happens in one transaction that ends with hmc_audit: no change
 * without its audit row, no audit row without the change.  The audit key of
 * the month is made by whoever first needs it.  What an origin says is
 * {"address", "request_id", "reason"}, here the reason "cli:<os user>".
 */

#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "hm_audit.h"
#include "hm_text.h"
#include "hm_time.h"
#include "hm_uuid.h"


static hm_rc_t hmc_audit_key(hmc_db_t *db, hm_usec_t now, uint32_t *month,
    unsigned char key[HM_KEY_LEN]);
static hm_rc_t hmc_audit_key_read(hmc_db_t *db, uint32_t month,
    unsigned char key[HM_KEY_LEN]);
static hm_str_t hmc_audit_origin(const unsigned char key[HM_KEY_LEN],
    uint32_t month, hm_usec_t at);


static void
hmc_param(hmc_params_t *p, const char *value, int len, int format)
{
    if (p->n == HMC_PARAMS_MAX) {
        hmc_fail("a statement has too many parameters");
        abort();
    }

    p->value[p->n] = value;
    p->len[p->n] = len;
    p->format[p->n] = format;
    p->n++;
}


void
hmc_param_text(hmc_params_t *p, const char *text)
{
    hmc_param(p, text, 0, 0);
}


void
hmc_param_int(hmc_params_t *p, int64_t n)
{
    char  text[32];

    snprintf(text, sizeof(text), "%lld", (long long) n);
    hmc_param(p, hmc_cstr(hmc_str(text)), 0, 0);
}


void
hmc_param_bytes(hmc_params_t *p, hm_str_t bytes)
{
    hmc_param(p, (const char *) bytes.data, (int) bytes.len, 1);
}


void
hmc_param_uuid(hmc_params_t *p, const hm_uuid_t *id)
{
    hmc_param(p, (const char *) id->b, 16, 1);
}


void
hmc_param_time(hmc_params_t *p, hm_usec_t t)
{
    char  text[HM_TIME_TEXT];

    hm_time_format(t, text);
    hmc_param(p, hmc_cstr((hm_str_t) { HM_TIME_TEXT, (unsigned char *) text }),
              0, 0);
}


static hm_rc_t
hmc_db_error(hmc_db_t *db, const char *what, const char *why)
{
    size_t  n;

    snprintf(db->error, sizeof(db->error), "%s: %s", what, why);

    /* libpq's messages have several lines; ours is one */
    n = strcspn(db->error, "\n");
    db->error[n] = '\0';

    return HM_ERROR;
}


static void
hmc_db_notice(void *ctx, const PGresult *result)
{
    /* notices are for people at a psql prompt */
}


hm_rc_t
hmc_db_open(hmc_db_t *db, bool with_kek)
{
    int          n;
    char         reason[256];
    const char  *url, *role, *path, *words[8], *values[8];

    memset(db, 0, sizeof(hmc_db_t));

    if (with_kek) {
        path = hmc_conf("HEALTHMATE_KEK_FILE");
        if (path == NULL) {
            return hmc_db_error(db, "HEALTHMATE_KEK_FILE is not set",
                                "name the file, or set HEALTHMATE_HOME");
        }

        db->kek = hm_kek_load(path, reason);
        if (db->kek == NULL) {
            return hmc_db_error(db, path, reason);
        }
    }

    url = hmc_conf("DATABASE_URL");
    if (url == NULL) {
        return hmc_db_error(db, "DATABASE_URL is not set",
                            "set it, or HEALTHMATE_HOME to a running stack");
    }

    role = hmc_conf("HEALTHMATE_CLI_ROLE");
    n = 0;

    words[n] = "dbname";            values[n++] = url;
    words[n] = "user";              values[n++] = role ? role : "hm_cli";
    words[n] = "application_name";  values[n++] = "healthmate cli";
    words[n] = "connect_timeout";   values[n++] = "10";
    words[n] = "client_encoding";   values[n++] = "UTF8";
    words[n] = NULL;                values[n] = NULL;

    db->conn = PQconnectdbParams(words, values, 1);

    if (PQstatus(db->conn) != CONNECTION_OK) {
        return hmc_db_error(db, "database", PQerrorMessage(db->conn));
    }

    PQsetNoticeReceiver(db->conn, hmc_db_notice, NULL);

    return HM_OK;
}


void
hmc_db_close(hmc_db_t *db)
{
    if (db->conn != NULL) {
        PQfinish(db->conn);
    }

    if (db->kek != NULL) {
        hm_kek_free(db->kek);
    }

    db->conn = NULL;
    db->kek = NULL;
}


PGresult *
hmc_db_query(hmc_db_t *db, const char *sql, hmc_params_t *p)
{
    PGresult        *result;
    ExecStatusType   status;

    if (p == NULL) {
        result = PQexecParams(db->conn, sql, 0, NULL, NULL, NULL, NULL, 0);

    } else {
        result = PQexecParams(db->conn, sql, p->n, NULL, p->value, p->len,
                              p->format, 0);
    }

    status = PQresultStatus(result);

    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        const char  *state;

        state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        hmc_db_error(db, state != NULL ? state : "database",
                     PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) != NULL
                     ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)
                     : PQerrorMessage(db->conn));
        PQclear(result);
        return NULL;
    }

    return result;
}


hm_rc_t
hmc_db_exec(hmc_db_t *db, const char *sql, hmc_params_t *p)
{
    PGresult  *result;

    result = hmc_db_query(db, sql, p);
    if (result == NULL) {
        return HM_ERROR;
    }

    PQclear(result);

    return HM_OK;
}


bool
hmc_db_state(const hmc_db_t *db, const char *sqlstate)
{
    return strncmp(db->error, sqlstate, 5) == 0;
}


hm_rc_t
hmc_db_begin(hmc_db_t *db)
{
    return hmc_db_exec(db, "begin", NULL);
}


hm_rc_t
hmc_db_commit(hmc_db_t *db)
{
    return hmc_db_exec(db, "commit", NULL);
}


void
hmc_db_rollback(hmc_db_t *db)
{
    char  error[sizeof(db->error)];

    /* the first error is the one to tell */
    memcpy(error, db->error, sizeof(error));
    (void) hmc_db_exec(db, "rollback", NULL);
    memcpy(db->error, error, sizeof(error));
}


hm_rc_t
hmc_db_actor(hmc_db_t *db, const hm_uuid_t *actor)
{
    char          text[HM_UUID_TEXT + 1];
    hmc_params_t  p;

    hm_uuid_format(actor, text);
    text[HM_UUID_TEXT] = '\0';

    p.n = 0;
    hmc_param_text(&p, text);

    return hmc_db_exec(db, "select set_config('hm.actor', $1, true)", &p);
}


/* One connection is one shard: it is opened before its first row. */
static hm_rc_t
hmc_audit_open(hmc_db_t *db)
{
    hmc_params_t  p;

    if (db->seq != 0) {
        return HM_OK;
    }

    if (hm_uuid7(&db->shard, hm_now()) != HM_OK) {
        return hmc_db_error(db, "audit", "no random numbers");
    }

    p.n = 0;
    hmc_param_uuid(&p, &db->shard);

    return hmc_db_exec(db, "select hm_audit_open($1)", &p);
}


hm_rc_t
hmc_audit(hmc_db_t *db, unsigned resource, const hm_uuid_t *subject,
    uint32_t items)
{
    hm_str_t       origin;
    uint32_t       month;
    hm_usec_t      now;
    hmc_params_t   p;
    unsigned char  key[HM_KEY_LEN];

    /* the row's time is part of what its origin is sealed to, and times are
     * written with milliseconds */
    now = hm_now();
    now -= now % 1000;

    if (hmc_audit_key(db, now, &month, key) != HM_OK
        || hmc_audit_open(db) != HM_OK)
    {
        return HM_ERROR;
    }

    origin = hmc_audit_origin(key, month, now);
    hm_wipe(key, sizeof(key));

    if (origin.data == NULL) {
        return hmc_db_error(db, "audit", "cannot seal the origin");
    }

    p.n = 0;
    hmc_param_uuid(&p, &db->shard);
    hmc_param_int(&p, (int64_t) ++db->seq);
    hmc_param_time(&p, now);
    hmc_param_int(&p, HM_AUDIT_CLI);
    hmc_param_int(&p, resource);
    hmc_param_int(&p, HM_PURPOSE_ADMIN);

    if (subject != NULL) {
        hmc_param_uuid(&p, subject);

    } else {
        hmc_param_text(&p, NULL);
    }

    hmc_param_int(&p, items);
    hmc_param_bytes(&p, origin);

    return hmc_db_exec(db,
        "insert into audit_logs (shard, seq, at, action, resource, outcome,"
        " actor_role, purpose, user_id, items, origin)"
        " values ($1, $2, $3, $4, $5, 200, 0, $6, $7, $8, $9)", &p);
}


static hm_rc_t
hmc_audit_key(hmc_db_t *db, hm_usec_t now, uint32_t *month,
    unsigned char key[HM_KEY_LEN])
{
    int            year, mon, day;
    hm_rc_t        rc;
    hmc_params_t   p;
    unsigned char  wrapped[HM_WRAPPED_LEN];

    hm_civil_from_days(now / (86400 * HM_USEC), &year, &mon, &day);
    *month = (uint32_t) (year * 100 + mon);

    rc = hmc_audit_key_read(db, *month, key);
    if (rc != HM_DECLINED) {
        return rc;
    }

    if (hm_random(key, HM_KEY_LEN) != HM_OK
        || hm_kek_wrap(db->kek, wrapped, "audit", *month, &hm_nil_uuid, key)
           != HM_OK)
    {
        return hmc_db_error(db, "audit", "cannot make the month's key");
    }

    p.n = 0;
    hmc_param_int(&p, *month);
    hmc_param_int(&p, hm_kek_current(db->kek));
    hmc_param_bytes(&p, (hm_str_t) { sizeof(wrapped), wrapped });

    if (hmc_db_exec(db,
            "insert into audit_keys (month, kek_version, wrapped_key)"
            " values ($1, $2, $3) on conflict do nothing", &p)
        != HM_OK)
    {
        return HM_ERROR;
    }

    /* somebody else may have been first: his is the key then */
    rc = hmc_audit_key_read(db, *month, key);
    if (rc == HM_DECLINED) {
        return hmc_db_error(db, "audit", "the month's key cannot be read");
    }

    return rc;
}


static hm_rc_t
hmc_audit_key_read(hmc_db_t *db, uint32_t month, unsigned char key[HM_KEY_LEN])
{
    size_t          len;
    hm_rc_t         rc;
    PGresult       *result;
    hmc_params_t    p;
    unsigned char  *wrapped;

    p.n = 0;
    hmc_param_int(&p, month);

    result = hmc_db_query(db,
        "select wrapped_key from audit_keys where month = $1", &p);
    if (result == NULL) {
        return HM_ERROR;
    }

    if (PQntuples(result) == 0) {
        PQclear(result);
        return HM_DECLINED;
    }

    wrapped = PQunescapeBytea((unsigned char *) PQgetvalue(result, 0, 0),
                              &len);
    PQclear(result);

    rc = wrapped == NULL ? HM_ERROR
         : hm_kek_unwrap(db->kek, key, "audit", month, &hm_nil_uuid,
                         (hm_str_t) { len, wrapped });
    PQfreemem(wrapped);

    if (rc != HM_OK) {
        return hmc_db_error(db, "audit",
            "the month's key does not open: this is not the KEK file it was "
            "made under");
    }

    return HM_OK;
}


/*
 * An audit row has no id: what stands in for it is its time and the end of
 * its actor's id, here nobody's, as in the module (ngx_hm_audit_origin).
 */
static hm_str_t
hmc_audit_origin(const unsigned char key[HM_KEY_LEN], uint32_t month,
    hm_usec_t at)
{
    int            i;
    char           reason[256];
    size_t         len;
    hm_buf_t       b;
    hm_str_t       out;
    hm_place_t     place;

    snprintf(reason, sizeof(reason), "cli:%s", hmc_os_user());

    hm_buf_init(&b, &hm_heap, 512);
    hm_buf_lit(&b, "{\"address\":null,\"request_id\":null,\"reason\":");
    hm_json_text(&b, hmc_str(reason));
    hm_buf_lit(&b, "}");

    place.table = "audit_logs";
    place.column = "origin";
    place.row = hm_nil_uuid;
    place.owner = hm_nil_uuid;

    for (i = 0; i < 8; i++) {
        place.row.b[i] = (unsigned char) ((uint64_t) at >> (56 - 8 * i));
    }

    out.data = b.failed ? NULL : malloc(hm_sealed_len(hm_buf_len(&b)));

    if (out.data == NULL
        || hm_seal(out.data, &len, key, month, &place,
                   (hm_str_t) { hm_buf_len(&b), b.start })
           != HM_OK)
    {
        return hm_null_str;
    }

    out.len = len;

    return out;
}
