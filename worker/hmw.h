/*
 * healthmate-worker: what its files share.
 *
 * One parent, N children that run jobs, one keeper.  Every process is
 * single-threaded and blocks: a crash or a leak costs one child, and the
 * parent starts the next.  A child does one job at a time.
 *
 * PostgreSQL holds the truth about a job, the Redis stream is a doorbell:
 * an entry may be lost, repeated or stale, and nothing depends on it.
 *
 *     main.c       options, fork, restart with backoff, signals
 *     conf.c       environment, production refusals
 *     log.c        JSON lines (ECS) that know no health datum
 *     db.c         libpq, blocking: connect, statements, transactions
 *     rds.c        hiredis, blocking: the doorbell
 *     jobs.c       THE TABLE: kind -> function, actor, class
 *     loop.c       one child: doorbell -> claim -> judge -> run -> settle
 *     claim.c      the fenced state changes of a job row
 *     keeper.c     relay, sweeper, scheduler
 *     audit.c      the shard of a connection and its rows
 *     keys.c       the keys of one person for the length of one job
 *     ukey.c       unique keys and stream entries, read strictly (pure)
 *     mail_*.c     configuration, text and ways of mail (hmw_mail.h)
 *     smtp.c       libcurl, blocking
 *     stats.c      count, sum, min, max, mean, sd (pure)
 *     job_*.c      one kind of job each
 */

#ifndef HMW_H
#define HMW_H

#include <libpq-fe.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/types.h>

#include "hm.h"
#include "hm_audit.h"
#include "hm_buf.h"
#include "hm_job.h"
#include "hm_jwt.h"
#include "hm_keyring.h"
#include "hm_uuid.h"
#include "hmw_mail.h"
#include "hmw_ukey.h"
#include "hmw_stats.h"

#define HMW_VERSION          "0.1.0"

#define HMW_PROCESSES_MAX    64
#define HMW_LEASE            30          /* seconds; text in claim.c too */
#define HMW_DRAIN            10          /* seconds from TERM to KILL */
#define HMW_PREPARED         48          /* statements of a connection */

/* Fixed ids of the system actors (table system_actors). */
#define HMW_ACTOR_ROLLUP     "00000000-0000-7000-8000-000000000001"
#define HMW_ACTOR_RETENTION  "00000000-0000-7000-8000-000000000002"
#define HMW_ACTOR_SWEEPER    "00000000-0000-7000-8000-000000000003"
#define HMW_ACTOR_MAIL       "00000000-0000-7000-8000-000000000004"


typedef struct {
    const char       *database;          /* conninfo */
    bool              redis;             /* REDIS_URL is set */
    char              redis_path[108];
    char              redis_user[64];
    char              redis_password_file[256];
    const char       *kek_file;
    unsigned          processes;
    bool              production;
    hmw_mail_conf_t   mail;
} hmw_conf_t;


typedef struct {
    PGconn           *conn;
    hm_uuid_t         shard;             /* also the worker's name in jobs */
    char              name[HM_UUID_TEXT + 1];
    int64_t           seq;               /* last committed in the shard */
    unsigned          failures;          /* connects in a row */
    int64_t           next_try;          /* monotonic ms */
    bool              keeper;            /* writes no audit: no shard */
    char              error[32];         /* SQLSTATE of the last failure */
    unsigned          nprepared;
    const char       *prepared[HMW_PREPARED];    /* address of the text */
} hmw_db_t;


typedef struct {
    redisContext     *ctx;
    unsigned          failures;
    int64_t           next_try;          /* monotonic ms */
} hmw_rds_t;


/* One process. */
typedef struct {
    const hmw_conf_t *conf;
    unsigned          index;
    char              consumer[80];
    hmw_db_t          db;
    hmw_db_t          beat;              /* renews the lease of a long job */
    hmw_rds_t         rds;
    hm_kek_t         *kek;
    hm_user_keys_t   *keys;              /* locked; wiped after each job */
} hmw_t;


typedef enum {
    HMW_DONE = 0,          /* effects are in the open transaction */
    HMW_RETRY,             /* failed; cause is set */
    HMW_BUSY,              /* somebody else is at it: later, not counted */
    HMW_DENIED,            /* the requester may not (any more) */
    HMW_BAD,               /* can never succeed: dead at once */
    HMW_LOST               /* connection or fence lost: say nothing */
} hmw_result_t;


typedef struct {
    hm_uuid_t         id;
    char              id_text[HM_UUID_TEXT + 1];
    char              kind[64];
    char              unique_key[256];
    char              subject[HM_UUID_TEXT + 1];      /* "" : nobody */
    char              requester[HM_UUID_TEXT + 1];    /* "" : nobody */
    const char       *actor;             /* requester or system actor */
    char              session[HM_UUID_TEXT + 1];      /* "" : none */
    char              token[24];
    int               attempt;
    int               max_attempts;
    hm_role_t         role;              /* of the requester, at the claim */
    int64_t           started;           /* monotonic ms */
    int64_t           beaten;
    unsigned          timeout;           /* seconds */
    bool              echo;              /* done, but run once more */
    const char       *cause;             /* static text, never data */
    char              cause_buf[64];
    int               audited;           /* audit rows in the transaction */
} hmw_job_t;


typedef struct {
    const char       *kind;
    hmw_result_t    (*run)(hmw_t *w, hmw_job_t *job);
    const char       *system;            /* actor, where nobody asked */
    bool              judged;            /* the requester's rights count */
} hmw_handler_t;


/* log.c */
typedef enum { HMW_INFO, HMW_WARN, HMW_ERR } hmw_level_t;

void hmw_log(hmw_level_t level, const char *action, const char *job,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));
int64_t hmw_ms(void);                    /* monotonic */
unsigned hmw_jitter(unsigned max);       /* 0..max, uniform */
/* Full jitter: 0..min(max, base * 2^n), in ms. */
unsigned hmw_backoff(unsigned base, unsigned max, unsigned n);
void hmw_sleep(unsigned ms);             /* ends early on TERM */

/* main.c: set by signals */
extern volatile sig_atomic_t  hmw_quit;
extern volatile sig_atomic_t  hmw_reread;

/* conf.c */
hm_rc_t hmw_conf_read(hmw_conf_t *conf, char reason[256]);
unsigned hmw_conf_refusals(const hmw_conf_t *conf);    /* prints each */

/* db.c */
hm_rc_t hmw_db_connect(hmw_t *w, hmw_db_t *db);
void hmw_db_close(hmw_db_t *db);
bool hmw_db_up(const hmw_db_t *db);
/*
 * NULL on any failure, which is logged with `what` and noted in db->error.
 * The statement is prepared once per connection and known by the address of
 * its text: sql must be static.
 */
PGresult *hmw_db_query(hmw_db_t *db, const char *what, const char *sql,
    int n, const char *const *values);
hm_rc_t hmw_db_do(hmw_db_t *db, const char *what, const char *sql, int n,
    const char *const *values);
/* The same by hand, for a pipeline: the name to send. */
hm_rc_t hmw_db_prepare(hmw_db_t *db, const char *sql, int n, char name[16]);
/* Rows in binary. */
PGresult *hmw_db_query_bin(hmw_db_t *db, const char *what, const char *sql,
    int n, const char *const *values);
void hmw_db_note(hmw_db_t *db, const char *what, const PGresult *res);
hm_rc_t hmw_db_begin(hmw_db_t *db, const char *actor);
hm_rc_t hmw_db_actor(hmw_db_t *db, const char *actor);
hm_rc_t hmw_db_commit(hmw_db_t *db);
void hmw_db_rollback(hmw_db_t *db);
bool hmw_db_error_is(const hmw_db_t *db, const char *sqlstate);

/* rds.c */
bool hmw_rds_up(hmw_t *w);               /* connects when it is time to */
void hmw_rds_close(hmw_rds_t *r);
void hmw_rds_failed(hmw_rds_t *r, const char *what);
hm_rc_t hmw_rds_policy(const hmw_conf_t *conf, char reason[256]);
redisReply *hmw_rds_command(hmw_t *w, const char *what, const char *fmt, ...);
hm_rc_t hmw_rds_group(hmw_t *w, const char *stream);
void hmw_rds_drop(hmw_t *w, const char *stream, const char *entry);

/* jobs.c */
extern const hmw_handler_t  hmw_handlers[];
const hmw_handler_t *hmw_handler(const char *kind);
const hm_job_kind_t *hmw_kind(const char *kind);

/* claim.c */
hm_rc_t hmw_claim(hmw_t *w, const char *id, hmw_job_t *job);
hm_rc_t hmw_claim_any(hmw_t *w, hmw_job_t *job);
hm_rc_t hmw_settle_done(hmw_t *w, hmw_job_t *job);   /* open transaction */
void hmw_settle_failed(hmw_t *w, hmw_job_t *job, hmw_result_t result);
hm_rc_t hmw_beat(hmw_t *w, hmw_job_t *job);

/* loop.c, keeper.c: never return before hmw_quit */
void hmw_child(hmw_t *w);
void hmw_keeper(hmw_t *w);

/* audit.c */
typedef struct {
    unsigned          action;
    unsigned          resource;
    unsigned          outcome;
    const char       *actor;
    const char       *subject;           /* NULL: nobody's */
    const char       *first;             /* NULL: none */
    const char       *last;
    int64_t           items;
} hmw_audit_t;

hm_rc_t hmw_audit_open(hmw_db_t *db);
hm_rc_t hmw_audit_add(hmw_t *w, hmw_job_t *job, const hmw_audit_t *row);

/* keys.c */
hmw_result_t hmw_keys_load(hmw_t *w, hmw_job_t *job);
void hmw_keys_forget(hmw_t *w);

/* job_*.c */
hmw_result_t hmw_job_rollup(hmw_t *w, hmw_job_t *job);
hmw_result_t hmw_job_retention(hmw_t *w, hmw_job_t *job);
hmw_result_t hmw_job_partitions(hmw_t *w, hmw_job_t *job);
hmw_result_t hmw_job_mail(hmw_t *w, hmw_job_t *job);
hmw_result_t hmw_job_mail_request(hmw_t *w, hmw_job_t *job);
hmw_result_t hmw_job_mail_prune(hmw_t *w, hmw_job_t *job);

#endif
