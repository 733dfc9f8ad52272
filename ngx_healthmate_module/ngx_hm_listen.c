/*
 * ngx_hm_listen: the worker that hears of revocations.
 *
 * One worker of all (the owner) has a connection of its own on which it
 * LISTENs.  It is not one of the pool's (ngx_hm_pg.c): those are in pipeline
 * mode, and a notification must not wait behind somebody's statement.
 *
 *   IDLE       somebody else listens; look again every turn
 *   WAITING    to connect (again)
 *   CONNECTING
 *   LISTENING  LISTEN is being said; it counts from its commit
 *   READING    the catch-up: every unexpired revocation, not "newer than
 *              the last": one may commit long after it was inserted
 *   READY      notifications arrive; a heartbeat every 250 ms
 *
 * The heartbeat is a NOTIFY to ourselves: it comes back only when the server
 * commits, on the primary, and when this very connection delivers; and
 * whatever was committed before stands in front of it in the queue.  It
 * carries the time it was sent, which becomes the feed's.
 *
 * TAKING OVER.  Every worker looks every 125 ms whether the owner still has
 * its turns (`alive`) and its process; else it claims the set, which the
 * former owner notices before its next step.  An owner that is alive mends
 * its own connection: one whose heartbeat is missing for 750 ms is thrown
 * away and another one opened.  If that fails several times it lets the
 * others try.
 *
 * A catch-up may be long: 256 rows for each turn of the event loop.
 *
 * Sockets: as in ngx_hm_pg.c (level-triggered; libpq owns the descriptor).
 */

#include "ngx_hm_feed.h"


#define NGX_HM_LISTEN_TURN      125      /* ms */
#define NGX_HM_LISTEN_BEAT      250
#define NGX_HM_LISTEN_OPEN      3000     /* without progress, until READY */
#define NGX_HM_LISTEN_DEAD      500      /* an owner without a turn */
#define NGX_HM_LISTEN_ROWS      256
#define NGX_HM_LISTEN_TRIES     4
#define NGX_HM_LISTEN_HOLD      1000


typedef enum {
    NGX_HM_LISTEN_IDLE = 0,
    NGX_HM_LISTEN_WAITING,
    NGX_HM_LISTEN_CONNECTING,
    NGX_HM_LISTEN_LISTENING,
    NGX_HM_LISTEN_READING,
    NGX_HM_LISTEN_READY
} ngx_hm_listen_state_e;


static struct {
    ngx_hm_main_conf_t     *conf;
    ngx_log_t              *log;
    ngx_hm_listen_state_e   state;
    hm_revoked_writer_t     w;
    PGconn                 *pg;
    ngx_connection_t       *c;
    ngx_event_t             timer;
    ngx_event_t             more;        /* rows are left for this turn */
    char                   *conninfo;
    char                    nonce[17];
    int64_t                 since;       /* of the state, or of progress */
    int64_t                 due;         /* WAITING: when; IDLE: not before */
    int64_t                 sent;        /* the last heartbeat */
    int64_t                 heard;       /* what came back was sent then */
    int64_t                 copied;
    ngx_uint_t              tries;
    unsigned                busy:1;      /* a query is not answered yet */
    unsigned                failed:1;    /* it failed */
    unsigned                no_room:1;   /* in this catch-up */
    unsigned                told:1;
    unsigned                told_full:1;
} ngx_hm_ls;


static void ngx_hm_listen_turn(ngx_event_t *ev);
static void ngx_hm_listen_own(int64_t now);
static void ngx_hm_listen_tidy(int64_t now);
static ngx_uint_t ngx_hm_listen_vacant(int64_t now);
static void ngx_hm_listen_take(int64_t now);
static void ngx_hm_listen_leave(void);
static void ngx_hm_listen_move(ngx_hm_listen_state_e state);
static void ngx_hm_listen_connect(void);
static void ngx_hm_listen_lost(const char *why);
static void ngx_hm_listen_notice(void *arg, const char *message);
static void ngx_hm_listen_close(void);
static ngx_int_t ngx_hm_listen_watch(void);
static void ngx_hm_listen_unwatch(void);
static void ngx_hm_listen_want_write(ngx_uint_t want);
static void ngx_hm_listen_on_event(ngx_event_t *ev);
static void ngx_hm_listen_poll(void);
static void ngx_hm_listen_push(void);
static void ngx_hm_listen_ask(const char *query);
static void ngx_hm_listen_read(void);
static void ngx_hm_listen_beat(int64_t now);
static void ngx_hm_listen_on_more(ngx_event_t *ev);
static void ngx_hm_listen_results(void);
static void ngx_hm_listen_result(PGresult *res);
static void ngx_hm_listen_answered(void);
static void ngx_hm_listen_row(PGresult *res);
static void ngx_hm_listen_notes(void);
static ngx_int_t ngx_hm_listen_note(const char *text);
static ngx_int_t ngx_hm_listen_back(const char *text);
static void ngx_hm_listen_apply(const ngx_hm_feed_event_t *e);


ngx_int_t
ngx_hm_listen_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log)
{
    unsigned char  raw[8];

    ngx_memzero(&ngx_hm_ls, sizeof(ngx_hm_ls));

    ngx_hm_ls.conf = mcf;
    ngx_hm_ls.log = log;

    ngx_hm_ls.conninfo = ngx_alloc(mcf->database.len + 1, log);

    if (ngx_hm_ls.conninfo == NULL || hm_random(raw, sizeof(raw)) != HM_OK) {
        return NGX_ERROR;
    }

    ngx_memcpy(ngx_hm_ls.conninfo, mcf->database.data, mcf->database.len);
    ngx_hm_ls.conninfo[mcf->database.len] = '\0';
    hm_hex(ngx_hm_ls.nonce, raw, sizeof(raw));
    ngx_hm_ls.nonce[16] = '\0';

    ngx_hm_ls.more.handler = ngx_hm_listen_on_more;
    ngx_hm_ls.more.log = log;

    ngx_hm_ls.timer.handler = ngx_hm_listen_turn;
    ngx_hm_ls.timer.data = &ngx_hm_ls;
    ngx_hm_ls.timer.log = log;
    ngx_hm_ls.timer.cancelable = 1;
    ngx_add_timer(&ngx_hm_ls.timer, 1);

    return NGX_OK;
}


void
ngx_hm_listen_stop(void)
{
    if (ngx_hm_ls.conf != NULL) {
        ngx_hm_listen_leave();
    }
}


/* Whose turn it is */


static void
ngx_hm_listen_turn(ngx_event_t *ev)
{
    int64_t  now;

    now = ngx_hm_feed_clock();

    ngx_add_timer(ev, NGX_HM_LISTEN_TURN);       /* it keeps no worker */

    if (ngx_exiting || ngx_terminate || ngx_quit) {
        /* requests under way go on reading what the next owner writes */
        ngx_hm_listen_leave();
        ngx_hm_feed_turn(now);
        return;
    }

    if (ngx_hm_ls.state != NGX_HM_LISTEN_IDLE
        && !hm_revoked_mine(&ngx_hm_ls.w))
    {
        /* we were stopped, and another one took over */
        ngx_hm_listen_close();
        ngx_hm_listen_move(NGX_HM_LISTEN_IDLE);
    }

    if (ngx_hm_ls.state == NGX_HM_LISTEN_IDLE && now >= ngx_hm_ls.due
        && ngx_hm_listen_vacant(now))
    {
        ngx_hm_listen_take(now);
    }

    if (ngx_hm_ls.state != NGX_HM_LISTEN_IDLE) {
        ngx_hm_listen_own(now);
    }

    ngx_hm_feed_turn(now);
}


/* The owner's part of a turn. */
static void
ngx_hm_listen_own(int64_t now)
{
    ngx_hm_set(&ngx_hm_feed->alive, now);

    switch (ngx_hm_ls.state) {

    case NGX_HM_LISTEN_WAITING:
        if (now >= ngx_hm_ls.due) {
            ngx_hm_listen_connect();
        }

        return;

    case NGX_HM_LISTEN_READY:
        break;

    default:
        if (now - ngx_hm_ls.since > NGX_HM_LISTEN_OPEN) {
            ngx_hm_listen_lost("no answer");
        }

        return;
    }

    if (now - ngx_hm_ls.heard > NGX_HM_FEED_STALE) {
        ngx_hm_listen_lost("no heartbeat");
        return;
    }

    ngx_hm_listen_tidy(now);

    if (!ngx_hm_ls.busy
        && now - ngx_hm_ls.sent > NGX_HM_LISTEN_BEAT - NGX_HM_LISTEN_TURN / 2)
    {
        ngx_hm_listen_beat(now);
    }
}


/* Expired revocations make room; after a full zone all is read once more. */
static void
ngx_hm_listen_tidy(int64_t now)
{
    int64_t        every;
    hm_rc_t        rc;
    uint64_t       full;
    hm_revoked_t  *set;

    set = &ngx_hm_feed->set;
    full = ngx_hm_get(&ngx_hm_feed->full);

    if (!ngx_hm_ls.w.copying) {
        every = full ? 1000
                : hm_revoked_count(set) > hm_revoked_room(set) / 2 ? 5000
                : 60000;

        if (now - ngx_hm_ls.copied < every) {
            return;
        }
    }

    rc = hm_revoked_copy(&ngx_hm_ls.w, ngx_max(2048, set->mask / 16),
                         (uint32_t) (hm_now() / HM_USEC));

    if (rc == HM_AGAIN) {
        return;
    }

    ngx_hm_ls.copied = now;

    if (full && rc == HM_OK && !ngx_hm_ls.busy
        && hm_revoked_count(set) < hm_revoked_room(set))
    {
        ngx_hm_listen_read();
    }
}


static ngx_uint_t
ngx_hm_listen_vacant(int64_t now)
{
    uint64_t  owner;

    owner = ngx_hm_get(&ngx_hm_feed->owner);

    return owner == 0
           || now - ngx_hm_get(&ngx_hm_feed->alive) > NGX_HM_LISTEN_DEAD
           || (kill((pid_t) owner, 0) == -1 && ngx_errno == ESRCH);
}


static void
ngx_hm_listen_take(int64_t now)
{
    if (hm_revoked_claim(&ngx_hm_ls.w, &ngx_hm_feed->set) != HM_OK) {
        return;                          /* another one was faster */
    }

    ngx_hm_set(&ngx_hm_feed->alive, now);
    ngx_hm_set(&ngx_hm_feed->owner, (uint64_t) ngx_pid);

    ngx_hm_count(NGX_HM_M_FEED_TAKEN, 1);

    ngx_hm_ls.tries = 0;
    ngx_hm_ls.copied = now;
    ngx_hm_listen_connect();
}


static void
ngx_hm_listen_leave(void)
{
    ngx_hm_listen_close();

    if (ngx_hm_ls.state != NGX_HM_LISTEN_IDLE) {
        ngx_hm_listen_move(NGX_HM_LISTEN_IDLE);

        if (hm_revoked_mine(&ngx_hm_ls.w)) {
            ngx_hm_set(&ngx_hm_feed->owner, 0);
        }
    }
}


/* Connection */


static void
ngx_hm_listen_move(ngx_hm_listen_state_e state)
{
    ngx_hm_ls.state = state;
    ngx_hm_ls.since = ngx_hm_feed_clock();
}


static void
ngx_hm_listen_connect(void)
{
    char         name[64];
    const char  *keys[4], *values[4];

    snprintf(name, sizeof(name), "healthmate feed %d", (int) ngx_pid);

    keys[0] = "dbname";                  /* a whole connection string */
    values[0] = ngx_hm_ls.conninfo;
    keys[1] = "application_name";
    values[1] = name;
    keys[2] = NULL;
    values[2] = NULL;

    ngx_hm_ls.pg = PQconnectStartParams(keys, values, 1);
    ngx_hm_ls.busy = 0;
    ngx_hm_listen_move(NGX_HM_LISTEN_CONNECTING);

    if (ngx_hm_ls.pg == NULL || PQstatus(ngx_hm_ls.pg) == CONNECTION_BAD) {
        ngx_hm_listen_lost(ngx_hm_ls.pg == NULL ? "no memory"
                           : PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    (void) PQsetNoticeProcessor(ngx_hm_ls.pg, ngx_hm_listen_notice, NULL);

    if (ngx_hm_listen_watch() != NGX_OK) {
        ngx_hm_listen_lost("no free connection slot in the worker");
        return;
    }

    ngx_hm_listen_want_write(1);
}


/* What matters comes as an error as well; libpq would print to stderr. */
static void
ngx_hm_listen_notice(void *arg, const char *message)
{
}


static void
ngx_hm_listen_lost(const char *why)
{
    size_t   len;
    int64_t  now;

    now = ngx_hm_feed_clock();

    if (!ngx_hm_ls.told) {
        ngx_hm_ls.told = 1;

        for (len = 0; why[len] != '\0' && why[len] != '\n'; len++) {
            /* the first line of libpq's message has no values of ours */
        }

        ngx_log_error(NGX_LOG_ERR, ngx_hm_ls.log, 0,
                      "healthmate: revocation feed: %*s; requests ask the "
                      "database until it is back", len, why);
    }

    ngx_hm_listen_close();

    if (++ngx_hm_ls.tries >= NGX_HM_LISTEN_TRIES) {
        /* it may be this worker: let the others try */
        ngx_hm_listen_leave();
        ngx_hm_ls.due = now + NGX_HM_LISTEN_HOLD;
        return;
    }

    /* the first time at the next turn */

    ngx_hm_listen_move(NGX_HM_LISTEN_WAITING);
    ngx_hm_ls.due = now + (int64_t) (ngx_hm_ls.tries - 1) * 200;
}


static void
ngx_hm_listen_close(void)
{
    ngx_connection_t  *c;

    c = ngx_hm_ls.c;

    if (ngx_hm_ls.more.posted) {
        ngx_delete_posted_event(&ngx_hm_ls.more);
    }

    if (c != NULL
        && (ngx_hm_ls.pg == NULL || PQsocket(ngx_hm_ls.pg) != c->fd))
    {
        /* libpq has closed it, and the kernel forgot its events with it */
        c->read->active = 0;
        c->write->active = 0;
    }

    ngx_hm_listen_unwatch();

    if (ngx_hm_ls.pg != NULL) {
        PQfinish(ngx_hm_ls.pg);
        ngx_hm_ls.pg = NULL;
    }

    ngx_hm_ls.busy = 0;
}


static ngx_int_t
ngx_hm_listen_watch(void)
{
    int                fd;
    ngx_connection_t  *c;

    fd = PQsocket(ngx_hm_ls.pg);
    if (fd < 0) {
        return NGX_ERROR;
    }

    c = ngx_get_connection(fd, ngx_hm_ls.log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->shared = 1;
    c->data = &ngx_hm_ls;
    c->read->handler = ngx_hm_listen_on_event;
    c->write->handler = ngx_hm_listen_on_event;
    c->read->log = ngx_hm_ls.log;
    c->write->log = ngx_hm_ls.log;

    ngx_hm_ls.c = c;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT);
}


static void
ngx_hm_listen_unwatch(void)
{
    ngx_connection_t  *c;

    c = ngx_hm_ls.c;

    if (c == NULL) {
        return;
    }

    if (c->read->active) {
        (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);
    }

    if (c->write->active) {
        (void) ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
    }

    ngx_close_connection(c);
    ngx_hm_ls.c = NULL;
}


static void
ngx_hm_listen_want_write(ngx_uint_t want)
{
    ngx_event_t  *wev;

    wev = ngx_hm_ls.c->write;

    if (want && !wev->active) {
        (void) ngx_add_event(wev, NGX_WRITE_EVENT, NGX_LEVEL_EVENT);

    } else if (!want && wev->active) {
        (void) ngx_del_event(wev, NGX_WRITE_EVENT, 0);
    }
}


static void
ngx_hm_listen_on_event(ngx_event_t *ev)
{
    if (!hm_revoked_mine(&ngx_hm_ls.w)) {
        ngx_hm_listen_close();
        ngx_hm_listen_move(NGX_HM_LISTEN_IDLE);
        return;
    }

    if (ngx_hm_ls.state == NGX_HM_LISTEN_CONNECTING) {
        ngx_hm_listen_poll();
        return;
    }

    if (ev->write) {
        ngx_hm_listen_push();
        return;
    }

    if (PQconsumeInput(ngx_hm_ls.pg) == 0) {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    ngx_hm_listen_results();
}


static void
ngx_hm_listen_poll(void)
{
    PostgresPollingStatusType  rc;

    /* libpq may open another socket in here: watch anew after each poll */

    ngx_hm_listen_unwatch();

    rc = PQconnectPoll(ngx_hm_ls.pg);

    if (rc == PGRES_POLLING_FAILED) {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    if (ngx_hm_listen_watch() != NGX_OK) {
        ngx_hm_listen_lost("the socket cannot be watched");
        return;
    }

    ngx_hm_listen_want_write(rc == PGRES_POLLING_WRITING);

    if (rc != PGRES_POLLING_OK) {
        return;
    }

    if (PQsetnonblocking(ngx_hm_ls.pg, 1) != 0) {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    /*
     * A heartbeat that is lost with the server is no loss, and commits that
     * notify wait for one another: it does not wait for the disk.
     */

    ngx_hm_listen_move(NGX_HM_LISTEN_LISTENING);
    ngx_hm_listen_ask("set synchronous_commit = off; "
                      "set statement_timeout = '10s'; listen hm_feed");
}


/* Queries */


static void
ngx_hm_listen_push(void)
{
    int  rc;

    rc = PQflush(ngx_hm_ls.pg);

    if (rc < 0) {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    ngx_hm_listen_want_write(rc != 0);
}


static void
ngx_hm_listen_ask(const char *query)
{
    ngx_hm_ls.busy = 1;
    ngx_hm_ls.failed = 0;

    if (!PQsendQuery(ngx_hm_ls.pg, query)) {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    ngx_hm_listen_push();
}


static void
ngx_hm_listen_read(void)
{
    ngx_hm_listen_move(NGX_HM_LISTEN_READING);

    ngx_hm_ls.busy = 1;
    ngx_hm_ls.failed = 0;
    ngx_hm_ls.no_room = 0;

    if (!PQsendQueryParams(ngx_hm_ls.pg,
                           "select kind, subject, at, ceil(extract(epoch"
                           " from expires_at))::int8 from hm_revocations()",
                           0, NULL, NULL, NULL, NULL, 1)
        || !PQsetSingleRowMode(ngx_hm_ls.pg))
    {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    ngx_hm_listen_push();
}


static void
ngx_hm_listen_beat(int64_t now)
{
    char         text[64];
    const char  *values[1];

    /* the time first: what is committed from now on may miss this one */

    snprintf(text, sizeof(text), "beat %s %lld", ngx_hm_ls.nonce,
             (long long) now);
    values[0] = text;

    ngx_hm_ls.sent = now;
    ngx_hm_ls.busy = 1;
    ngx_hm_ls.failed = 0;

    if (!PQsendQueryParams(ngx_hm_ls.pg, "select pg_notify('hm_feed', $1)",
                           1, NULL, values, NULL, NULL, 0))
    {
        ngx_hm_listen_lost(PQerrorMessage(ngx_hm_ls.pg));
        return;
    }

    ngx_hm_listen_push();
}


static void
ngx_hm_listen_on_more(ngx_event_t *ev)
{
    if (ngx_hm_ls.pg != NULL) {
        ngx_hm_listen_results();
    }
}


static void
ngx_hm_listen_results(void)
{
    ngx_uint_t   n;
    PGresult    *res;

    for (n = 0; ngx_hm_ls.pg != NULL && ngx_hm_ls.busy
                && !PQisBusy(ngx_hm_ls.pg); n++)
    {
        if (n == NGX_HM_LISTEN_ROWS) {
            ngx_post_event(&ngx_hm_ls.more, &ngx_posted_next_events);
            return;
        }

        res = PQgetResult(ngx_hm_ls.pg);

        if (res != NULL) {
            ngx_hm_listen_result(res);
            PQclear(res);
            continue;
        }

        ngx_hm_ls.busy = 0;
        ngx_hm_listen_answered();
    }

    if (ngx_hm_ls.pg != NULL) {
        ngx_hm_listen_notes();
    }
}


static void
ngx_hm_listen_result(PGresult *res)
{
    switch (PQresultStatus(res)) {

    case PGRES_SINGLE_TUPLE:
        if (ngx_hm_ls.state == NGX_HM_LISTEN_READING) {
            ngx_hm_listen_row(res);
        }

        break;

    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        break;

    default:
        ngx_hm_ls.failed = 1;

        ngx_log_error(NGX_LOG_ERR, ngx_hm_ls.log, 0,
                      "healthmate: revocation feed: the database refused: "
                      "%s (is it the primary, are the migrations of sql/ "
                      "deployed?)",
                      PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
    }
}


/* The query has ended: what comes next. */
static void
ngx_hm_listen_answered(void)
{
    if (ngx_hm_ls.failed) {
        ngx_hm_listen_lost("a statement failed");
        return;
    }

    switch (ngx_hm_ls.state) {

    case NGX_HM_LISTEN_LISTENING:
        ngx_hm_listen_read();
        return;

    case NGX_HM_LISTEN_READING:
        break;

    default:
        return;                          /* a heartbeat was sent */
    }

    ngx_hm_set(&ngx_hm_feed->full, ngx_hm_ls.no_room);

    /* events of keys are not kept long enough to be read again */

    ngx_hm_feed_key(NULL);

    ngx_hm_ls.tries = 0;
    ngx_hm_ls.heard = ngx_hm_feed_clock();
    ngx_hm_listen_move(NGX_HM_LISTEN_READY);

    if (ngx_hm_ls.told) {
        ngx_hm_ls.told = 0;
        ngx_log_error(NGX_LOG_NOTICE, ngx_hm_ls.log, 0,
                      "healthmate: revocation feed is back");
    }

    if (ngx_hm_ls.told_full && !ngx_hm_ls.no_room) {
        ngx_hm_ls.told_full = 0;
        ngx_log_error(NGX_LOG_NOTICE, ngx_hm_ls.log, 0,
                      "healthmate: healthmate_feed_zone has room again");
    }

    ngx_hm_listen_beat(ngx_hm_ls.heard);
}


static void
ngx_hm_listen_row(PGresult *res)
{
    ngx_hm_feed_event_t  e;

    ngx_hm_ls.since = ngx_hm_feed_clock();       /* progress */
    ngx_hm_set(&ngx_hm_feed->alive, ngx_hm_ls.since);

    e.kind = hm_row_str(res, 0, 0);
    e.subject = hm_row_uuid(res, 0, 1);
    e.at = hm_row_time(res, 0, 2);
    e.expires = (uint32_t) hm_row_u64(res, 0, 3);

    if (!hm_str_eq(e.kind, HM_STR("key"))) {
        ngx_hm_listen_apply(&e);
    }
}


/* Notifications */


static void
ngx_hm_listen_notes(void)
{
    PGnotify   *note;
    ngx_int_t   rc;

    while (ngx_hm_ls.pg != NULL
           && (note = PQnotifies(ngx_hm_ls.pg)) != NULL)
    {
        rc = ngx_strcmp(note->relname, "hm_feed") == 0
             ? ngx_hm_listen_note(note->extra) : NGX_OK;

        PQfreemem(note);

        if (rc != NGX_OK) {
            /* whatever it was, the table knows it */
            ngx_hm_listen_lost("an event that cannot be read");
        }
    }
}


/* "kind subject at-in-us expires-in-s", or "beat nonce ms" */
static ngx_int_t
ngx_hm_listen_note(const char *text)
{
    char                 *end;
    hm_str_t              id;
    const char           *p;
    ngx_hm_feed_event_t   e;

    if (ngx_strncmp(text, "beat ", 5) == 0) {
        return ngx_hm_listen_back(text + 5);
    }

    p = strchr(text, ' ');

    if (p == NULL || ngx_strlen(p) < 1 + HM_UUID_TEXT + 4
        || p[1 + HM_UUID_TEXT] != ' ')
    {
        return NGX_ERROR;
    }

    e.kind.data = (u_char *) text;
    e.kind.len = (size_t) (p - text);
    id.data = (u_char *) p + 1;
    id.len = HM_UUID_TEXT;

    e.at = strtoll(p + 2 + HM_UUID_TEXT, &end, 10);

    if (*end != ' ' || hm_uuid_parse(&e.subject, id) != HM_OK) {
        return NGX_ERROR;
    }

    e.expires = (uint32_t) strtoul(end, &end, 10);

    if (*end != '\0' || e.at <= 0) {
        return NGX_ERROR;
    }

    ngx_hm_listen_apply(&e);

    return NGX_OK;
}


/* A heartbeat came back.  Others' are of other machines. */
static ngx_int_t
ngx_hm_listen_back(const char *text)
{
    int64_t  at, was;

    if (ngx_strncmp(text, ngx_hm_ls.nonce, 16) != 0
        || ngx_hm_ls.state != NGX_HM_LISTEN_READY)
    {
        return NGX_OK;
    }

    at = strtoll(text + 16, NULL, 10);

    if (at > ngx_hm_ls.heard) {
        ngx_hm_ls.heard = at;
    }

    /* the zone's only goes forward, whoever else writes it */

    was = ngx_hm_get(&ngx_hm_feed->fresh);

    while (was < at
           && !__atomic_compare_exchange_n(&ngx_hm_feed->fresh, &was, at, 0,
                                           __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE))
    {
        /* look again */
    }

    return NGX_OK;
}


static void
ngx_hm_listen_apply(const ngx_hm_feed_event_t *e)
{
    ngx_hm_count(NGX_HM_M_FEED_EVENTS, 1);

    switch (ngx_hm_feed_event(&ngx_hm_ls.w, e)) {

    case NGX_OK:
        return;

    case NGX_BUSY:
        ngx_hm_ls.no_room = 1;
        ngx_hm_set(&ngx_hm_feed->full, 1);

        if (!ngx_hm_ls.told_full) {
            ngx_hm_ls.told_full = 1;
            ngx_log_error(NGX_LOG_ERR, ngx_hm_ls.log, 0,
                          "healthmate: healthmate_feed_zone is full: "
                          "requests ask the database until revocations "
                          "expire; it should be larger");
        }

        return;

    default:
        ngx_log_error(NGX_LOG_ERR, ngx_hm_ls.log, 0,
                      "healthmate: revocation feed: an event of a kind that "
                      "this version does not know");
        ngx_hm_ls.no_room = 1;
        ngx_hm_set(&ngx_hm_feed->full, 1);
    }
}
