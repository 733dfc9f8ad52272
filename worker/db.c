/*
 * PostgreSQL, blocking.
 *
 * DESIGN.  Every statement runs inside a transaction that first names its
 * actor (hm.actor, transaction-local): without one the row policies show
 * nothing.  hmw_db_begin and hmw_db_actor are the only places that set it.
 *
 * A failure is logged with the name of the statement and its SQLSTATE, never
 * with the server's message, which may quote values.  It leaves the code in
 * db->error, so that a caller can tell an expected conflict from a fault.
 *
 * A connection of a child opens an audit shard and holds two session locks:
 * the shard's (taken by hm_audit_open) and its own name's, class 2.  A killed
 * process loses its session and with it the lock, which is how the keeper
 * knows an orphan within a second.  A connection that broke is never mended:
 * the next one is a new shard with a new name, and the transaction of the old
 * one is fenced off by the token.
 */

#include <stdio.h>
#include <stdlib.h>

#include "hm_time.h"
#include "hmw.h"


#define HMW_CONNECT_BASE   100           /* ms */
#define HMW_CONNECT_MAX    5000


static PGconn *hmw_db_dial(const hmw_conf_t *conf);
static bool hmw_db_lasting(const char *sql);
static hm_rc_t hmw_db_name(hmw_db_t *db);
static PGresult *hmw_db_exec(hmw_db_t *db, const char *what, const char *sql,
    int n, const char *const *values, int format);


hm_rc_t
hmw_db_connect(hmw_t *w, hmw_db_t *db)
{
    if (hmw_db_up(db)) {
        return HM_OK;
    }

    hmw_db_close(db);

    if (hmw_ms() < db->next_try) {
        return HM_AGAIN;
    }

    db->conn = hmw_db_dial(w->conf);

    if (hmw_db_up(db) && hmw_db_name(db) == HM_OK
        && (db->keeper || hmw_audit_open(db) == HM_OK))
    {
        if (db->failures > 0) {
            hmw_log(HMW_INFO, "db.connected", NULL,
                    "connected after %u failures", db->failures);
        }

        db->failures = 0;
        db->next_try = 0;
        return HM_OK;
    }

    hmw_db_close(db);

    /* One line per outage and then one per power of two. */

    if ((db->failures & (db->failures - 1)) == 0) {
        hmw_log(HMW_WARN, "db.unreachable", NULL,
                "no usable connection to PostgreSQL, failure %u",
                db->failures + 1);
    }

    db->next_try = hmw_ms() + 20
                   + hmw_backoff(HMW_CONNECT_BASE, HMW_CONNECT_MAX,
                                 db->failures);
    db->failures++;

    return HM_AGAIN;
}


void
hmw_db_close(hmw_db_t *db)
{
    if (db->conn != NULL) {
        PQfinish(db->conn);
        db->conn = NULL;
        db->nprepared = 0;
    }
}


bool
hmw_db_up(const hmw_db_t *db)
{
    return db->conn != NULL && PQstatus(db->conn) == CONNECTION_OK;
}


PGresult *
hmw_db_query(hmw_db_t *db, const char *what, const char *sql, int n,
    const char *const *values)
{
    return hmw_db_exec(db, what, sql, n, values, 0);
}


PGresult *
hmw_db_query_bin(hmw_db_t *db, const char *what, const char *sql, int n,
    const char *const *values)
{
    return hmw_db_exec(db, what, sql, n, values, 1);
}


hm_rc_t
hmw_db_do(hmw_db_t *db, const char *what, const char *sql, int n,
    const char *const *values)
{
    PGresult  *res;

    res = hmw_db_query(db, what, sql, n, values);
    if (res == NULL) {
        return HM_ERROR;
    }

    PQclear(res);

    return HM_OK;
}


hm_rc_t
hmw_db_begin(hmw_db_t *db, const char *actor)
{
    char        text[160];
    PGresult   *res;
    hm_uuid_t   id;

    /* One round trip; the actor is spelled by us, so it needs no quoting. */

    if (hm_uuid_parse(&id, (hm_str_t) { strlen(actor),
                                        (unsigned char *) actor }) != HM_OK
        || db->conn == NULL)
    {
        return HM_ERROR;
    }

    snprintf(text, sizeof(text),
             "begin; select set_config('hm.actor', '%.36s', true)", actor);

    res = PQexec(db->conn, text);

    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        hmw_db_note(db, "begin", res);
        PQclear(res);
        hmw_db_rollback(db);
        return HM_ERROR;
    }

    PQclear(res);

    return HM_OK;
}


hm_rc_t
hmw_db_actor(hmw_db_t *db, const char *actor)
{
    const char  *values[1] = { actor };

    return hmw_db_do(db, "actor", "select set_config('hm.actor', $1, true)",
                     1, values);
}


hm_rc_t
hmw_db_commit(hmw_db_t *db)
{
    hm_rc_t    rc;
    PGresult  *res;

    res = hmw_db_query(db, "commit", "commit", 0, NULL);
    if (res == NULL) {
        return HM_ERROR;
    }

    /* COMMIT of a failed transaction succeeds, as a ROLLBACK. */

    rc = strcmp(PQcmdStatus(res), "COMMIT") == 0 ? HM_OK : HM_ERROR;
    PQclear(res);

    return rc;
}


void
hmw_db_rollback(hmw_db_t *db)
{
    char  kept[sizeof(db->error)];

    if (!hmw_db_up(db)
        || PQtransactionStatus(db->conn) == PQTRANS_IDLE)
    {
        return;
    }

    memcpy(kept, db->error, sizeof(kept));
    hmw_db_do(db, "rollback", "rollback", 0, NULL);
    memcpy(db->error, kept, sizeof(kept));
}


bool
hmw_db_error_is(const hmw_db_t *db, const char *sqlstate)
{
    return strcmp(db->error, sqlstate) == 0;
}


static PGresult *
hmw_db_exec(hmw_db_t *db, const char *what, const char *sql, int n,
    const char *const *values, int format)
{
    char             name[16];
    PGresult        *res;
    ExecStatusType   status;

    db->error[0] = '\0';

    if (db->conn == NULL) {
        memcpy(db->error, "08003", 6);
        return NULL;
    }

    if (hmw_db_lasting(sql) && hmw_db_prepare(db, sql, n, name) == HM_OK) {
        res = PQexecPrepared(db->conn, name, n, values, NULL, NULL, format);

    } else {
        res = PQexecParams(db->conn, sql, n, NULL, values, NULL, NULL,
                           format);
    }

    status = PQresultStatus(res);

    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        return res;
    }

    hmw_db_note(db, what, res);
    PQclear(res);

    return NULL;
}


/*
 * Planning costs more than running most of our statements.  A text that does
 * not prepare is run as it is, so that the caller sees its error.
 */

/* Is there a plan to keep?  Not of a commit, or of settings. */
static bool
hmw_db_lasting(const char *sql)
{
    static const char *const  verbs[] = {
        "select", "with", "insert", "update", "delete", NULL
    };
    const char *const        *verb;

    for (verb = verbs; *verb != NULL; verb++) {
        if (strncmp(sql, *verb, strlen(*verb)) == 0) {
            return true;
        }
    }

    return false;
}


hm_rc_t
hmw_db_prepare(hmw_db_t *db, const char *sql, int n, char name[16])
{
    bool       ok;
    unsigned   i;
    PGresult  *res;

    for (i = 0; i < db->nprepared; i++) {
        if (db->prepared[i] == sql) {
            break;
        }
    }

    if (i == HMW_PREPARED) {
        return HM_DECLINED;
    }

    snprintf(name, 16, "hmw%u", i);

    if (i < db->nprepared) {
        return HM_OK;
    }

    res = PQprepare(db->conn, name, sql, n, NULL);
    ok = PQresultStatus(res) == PGRES_COMMAND_OK;
    PQclear(res);

    if (!ok) {
        return HM_DECLINED;
    }

    db->prepared[db->nprepared++] = sql;

    return HM_OK;
}


static PGconn *
hmw_db_dial(const hmw_conf_t *conf)
{
    /*
     * dbname may be a whole conninfo or URI; what follows it wins.  The
     * timeouts let a dead peer be noticed in seconds instead of hours.
     */

    static const char *const  names[] = {
        "dbname", "application_name", "connect_timeout", "keepalives_idle",
        "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "client_encoding", NULL
    };
    const char  *values[] = {
        conf->database, "healthmate-worker", "5", "5", "2", "3", "15000",
        "UTF8", NULL
    };

    return PQconnectdbParams(names, values, 1);
}


static hm_rc_t
hmw_db_name(hmw_db_t *db)
{
    hm_rc_t      rc;
    const char  *values[1];

    if (hm_uuid7(&db->shard, hm_now()) != HM_OK) {
        return HM_ERROR;
    }

    hm_uuid_format(&db->shard, db->name);
    db->name[HM_UUID_TEXT] = '\0';
    db->seq = 0;

    /* Times are read as text, numbers as shortest doubles. */

    rc = hmw_db_do(db, "session", "set client_min_messages = error", 0, NULL);
    if (rc != HM_OK) {
        return rc;
    }

    values[0] = db->name;

    return hmw_db_do(db, "name lock",
                     "select pg_advisory_lock(hashtextextended($1, 2))",
                     1, values);
}


void
hmw_db_note(hmw_db_t *db, const char *what, const PGresult *res)
{
    const char  *code;

    code = res == NULL ? NULL : PQresultErrorField(res, PG_DIAG_SQLSTATE);

    snprintf(db->error, sizeof(db->error), "%.5s",
             code == NULL ? "08006" : code);

    hmw_log(HMW_WARN, "db.failed", NULL, "statement \"%s\" failed with %s",
            what, db->error);
}
