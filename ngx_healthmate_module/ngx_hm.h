/*
 * ngx_hm: what the files of the module share.
 *
 * The rooms of the module and who may call whom:
 *
 *   ngx_http_healthmate_module.c   directives, zones, start and exit
 *   ngx_hm_request.c               the gate and the single exit
 *   ngx_hm_routes.c, _router.c     the route table and its look-up
 *   ngx_hm_auth.c                  token -> principal, token cache
 *   ngx_hm_jwt.c                   the key ring of the configuration
 *   ngx_hm_guard.c                 the gate in front of other locations
 *   ngx_hm_feed.c, _listen.c       revocations, heard from PostgreSQL
 *   ngx_hm_limit.c, _cluster.c     rate classes in shared memory
 *   ngx_hm_login.c, _device.c      tries at passwords, known devices
 *   ngx_hm_body.c                  bodies, read unbuffered into the arena
 *   ngx_hm_form.c                  small JSON bodies, member by member
 *   ngx_hm_session.c               what every way of logging in ends in
 *   ngx_hm_seen.c, _fresh.c        use of sessions; step-up
 *   ngx_hm_step.c                  the step runner
 *   ngx_hm_pg.c                    PostgreSQL: connections, lanes, batches
 *   ngx_hm_audit.c                 group commit of read audits
 *   ngx_hm_keys.c                  keys of people, loaded when missing
 *   ngx_hm_redis.c                 the doorbell
 *   ngx_hm_kdf.c                   password hashing in a thread pool
 *   ngx_hm_work.c                  other work there
 *   ngx_hm_mfa.c, _passkey.c       second factors of a login
 *   ngx_hm_reply.c                 JSON and problem answers
 *   ngx_hm_crud.c                  the engine behind every hm_resource_t
 *   ngx_hm_metrics.c, _lag.c       counters in shared memory
 *   api/api_*.c                    one file for each endpoint family
 *
 * Lifetime.  ngx_hm_ctx_t is what a request is to us.  It does not live in
 * r->pool: an operation may outlast its request (the client left), so the
 * context comes from a per-worker free list with an arena of its own, and
 * has two owners, the request and at most one operation in flight.  The
 * last one to let go frees it and wipes the arena, which held plaintext.
 */

#ifndef NGX_HM_H
#define NGX_HM_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <jansson.h>
#include <libpq-fe.h>

#include "hm.h"
#include "hm_buf.h"
#include "hm_fault.h"
#include "hm_problem.h"
#include "hm_uuid.h"
#include "hm_time.h"
#include "hm_text.h"
#include "hm_json.h"
#include "hm_crypto.h"
#include "hm_keyring.h"
#include "hm_jwt.h"
#include "hm_perm.h"
#include "hm_password.h"
#include "hm_metric.h"
#include "hm_resource.h"
#include "hm_row.h"
#include "hm_audit.h"
#include "hm_job.h"
#include "hm_webauthn.h"


#define NGX_HM_VERSION          "0.1.0"

#define NGX_HM_ARENA            16384
#define NGX_HM_PARAMS           48
#define NGX_HM_ARGS             24

typedef struct ngx_hm_ctx_s        ngx_hm_ctx_t;
typedef struct ngx_hm_route_s      ngx_hm_route_t;
typedef struct ngx_hm_seg_s        ngx_hm_seg_t;
typedef struct ngx_hm_main_conf_s  ngx_hm_main_conf_t;
typedef struct ngx_hm_loc_conf_s   ngx_hm_loc_conf_t;
typedef struct ngx_hm_guard_s      ngx_hm_guard_t;


/* Steps: what an endpoint is made of. */

typedef enum {
    NGX_HM_NEXT = 0,             /* run the following step now */
    NGX_HM_WAIT,                 /* one operation was started */
    NGX_HM_DONE,                 /* the reply is ready: send it */
    NGX_HM_FAIL                  /* hm->problem says why */
} ngx_hm_rc_t;

typedef ngx_hm_rc_t (*ngx_hm_step_pt)(ngx_hm_ctx_t *hm);


/* Rate classes of api.md. */

#define NGX_HM_CLASSES(X)                                                     \
    X(NONE, "none", 0)            X(DEFAULT, "default", 300)                  \
    X(AUTH, "auth", 10)           X(READ, "data-read", 3000)                  \
    X(WRITE, "data-write", 1000)  X(INGEST, "ingest", 100000)                 \
    X(CHAT, "chat", 10)           X(COMPLIANCE, "compliance", 5)              \
    X(ANALYTICS, "analytics", 60)

typedef enum {
#define X(id, name, n)  NGX_HM_CLASS_##id,
    NGX_HM_CLASSES(X)
#undef X
    NGX_HM_CLASS_LAST
} ngx_hm_class_t;


typedef enum {
    NGX_HM_BODY_NONE = 0,        /* a body is refused with 415 */
    NGX_HM_BODY_JSON,
    NGX_HM_BODY_PATCH,           /* JSON or merge-patch */
    NGX_HM_BODY_BATCH,           /* JSON array, or NDJSON streamed */
    NGX_HM_BODY_ANY              /* ignored (logout, ...) */
} ngx_hm_body_t;


/*
 * A route.  The path has no parameters but {id}.  With a resource the steps
 * are the CRUD engine's; `summary` goes into OpenAPI.
 */
struct ngx_hm_route_s {
    ngx_uint_t              method;      /* NGX_HTTP_GET, ... */
    const char             *path;
    hm_perm_t               perm;
    ngx_hm_class_t          rate;
    hm_audit_action_t       action;
    hm_audit_resource_t     audit_of;
    ngx_hm_body_t           body;
    const hm_resource_t    *resource;
    const ngx_hm_step_pt   *steps;
    const char             *query;       /* comma list of known parameters */
    const char             *tag;
    const char             *summary;
    ngx_hm_step_pt          params;      /* names faults of the query */
    unsigned                flags;       /* NGX_HM_FRESH, ... */
};

/* Needs a login (or reauth) of the last minutes, see ngx_hm_fresh.c. */
#define NGX_HM_FRESH      1
/* Open to a session that still lacks the second factor its role needs. */
#define NGX_HM_ENROL      2

extern const ngx_hm_route_t  ngx_hm_routes[];
extern const ngx_uint_t      ngx_hm_nroutes;


/* Query parameters, decoded. */

typedef struct {
    hm_str_t                name;
    hm_str_t                value;
} ngx_hm_arg_t;


/* PostgreSQL: a segment is one statement (with its context) of a request. */

typedef enum {
    NGX_HM_LANE_READ = 0,        /* shared Sync, many batches in flight */
    NGX_HM_LANE_WRITE,           /* group commit: one batch in flight */
    NGX_HM_LANE_AUDIT,           /* group commit of read audits */
    NGX_HM_LANE_SOLO,            /* alone in its transaction */
    NGX_HM_LANE_SLOW,            /* alone, may take its time */
    NGX_HM_LANE_LAST
} ngx_hm_lane_t;

#define NGX_HM_ON(lane)   (1u << NGX_HM_LANE_##lane)

typedef enum {
    NGX_HM_PG_OK = 0,
    NGX_HM_PG_ERROR,             /* the statement failed: sqlstate */
    NGX_HM_PG_LOST               /* no connection, or it broke */
} ngx_hm_pg_rc_t;

typedef void (*ngx_hm_seg_pt)(ngx_hm_seg_t *seg);

struct ngx_hm_seg_s {
    ngx_queue_t             queue;
    ngx_hm_lane_t           lane;
    ngx_uint_t              stmt;

    int                     nparams;
    const char             *values[NGX_HM_PARAMS];
    int                     lengths[NGX_HM_PARAMS];

    hm_uuid_t               actor;       /* nil: nobody */
    int                     seq_param;   /* of shard; seq follows; -1 none */
    uint32_t                nseq;        /* audit rows it writes */

    /* a second statement of the same transaction; its result is not kept */
    unsigned                more:1;
    ngx_uint_t              more_stmt;
    int                     more_nparams;
    const char             *more_values[16];
    int                     more_lengths[16];

    unsigned char           seq_be[8];

    /* of a statement that took the rows of a whole batch */
    hm_uuid_t               many_owner;  /* nil: not done, send it alone */
    struct ngx_hm_shared_res_s  *shared; /* the result of all of them */
    int                     row;         /* mine in it; -1: there is none */

    unsigned                queued:1;
    unsigned                flying:1;
    unsigned                alone:1;
    unsigned                resent:1;
    unsigned                many:1;      /* own record: may go with others */
    unsigned                was_many:1;

    ngx_hm_pg_rc_t          rc;
    char                    sqlstate[6];
    PGresult               *res;

    ngx_hm_seg_pt           done;
    void                   *data;
};


/* Read audits wait here for their group commit. */

typedef struct {
    ngx_queue_t             queue;
    hm_audit_row_t          row;
    unsigned                queued:1;
    unsigned                flying:1;
    void                  (*done)(ngx_hm_ctx_t *hm, ngx_uint_t ok);
} ngx_hm_audit_t;


/* The arena of a context: one block kept for ever, larger ones freed. */

typedef struct ngx_hm_block_s  ngx_hm_block_t;

struct ngx_hm_block_s {
    ngx_hm_block_t         *next;
    size_t                  size;
};

typedef struct {
    ngx_hm_block_t         *blocks;
    u_char                 *pos;
    u_char                 *end;
} ngx_hm_arena_t;


typedef struct {
    hm_str_t                etag;        /* with quotes */
    hm_str_t                location;
    hm_str_t                allow;
    hm_str_t                accept_patch;
    hm_str_t                cookie;
    hm_str_t                device;      /* another cookie */
    hm_str_t                type;        /* default application/json */
    hm_str_t                cache;       /* of what everybody may see */
    ngx_uint_t              retry_after;
    unsigned                replayed:1;
    unsigned                personal:1;
} ngx_hm_headers_t;


/* A try at a password that was taken (ngx_hm_login.c). */

typedef struct {
    void                   *row;
    uint64_t                row_key;
    uint64_t                key;
    uint64_t                account;
    uint64_t                until;
    uint64_t                end;
    uint32_t                places[2];
    unsigned char           name[32];
    unsigned                taken:1;
    unsigned                of_device:1;
} ngx_hm_try_t;


/* The device cookie of a request (ngx_hm_device.c). */

typedef struct {
    hm_uuid_t               id;
    hm_uuid_t               user;
    uint32_t                version;     /* of the password */
    unsigned                genuine:1;   /* we made it */
    unsigned                known:1;     /* and it is the account's */
} ngx_hm_device_t;


struct ngx_hm_ctx_s {
    ngx_http_request_t     *request;     /* NULL: the client is gone */
    ngx_hm_main_conf_t     *conf;
    const ngx_hm_route_t   *route;
    ngx_hm_guard_t         *guard;       /* NULL: a request of the API */

    ngx_uint_t              refs;

    hm_mem_t                mem;
    ngx_hm_arena_t          pool;
    ngx_hm_arena_t          part;        /* of one part of a batch */

    /* gate */
    hm_usec_t               now;
    hm_str_t                request_id;
    hm_str_t                path;
    hm_uuid_t               path_id;
    ngx_uint_t              method;
    ngx_uint_t              nargs;
    ngx_hm_arg_t            args[NGX_HM_ARGS];
    hm_claims_t             who;
    hm_uuid_t               subject;
    unsigned                signed_in:1;
    unsigned                foreign:1;   /* about somebody else */
    unsigned                glass:1;     /* by a break-glass grant only */
    unsigned                plain:1;
    unsigned                body_done:1;
    unsigned                waiting:1;
    unsigned                finished:1;
    unsigned                audited:1;
    unsigned                watching:1;
    unsigned                merge_patch:1;
    unsigned                ndjson:1;
    unsigned                ring:1;      /* a job row was left */
    unsigned                streaming:1;
    unsigned                idem_twice:1;
    unsigned                no_many:1;   /* it has been tried */
    unsigned                body_wait:1; /* waits for more of the body */
    unsigned                feed_ask:1;  /* whether the session is good */
    int64_t                 feed_asked;  /* ms: when that was answered */
    unsigned                hashing:1;   /* waits for a thread */
    ngx_uint_t              rate_left;
    ngx_uint_t              rate_reset;
    ngx_uint_t              rate_quota;
    ngx_hm_class_t          rate_class;
    ngx_hm_try_t            tried;
    ngx_hm_device_t         device;

    /* body */
    u_char                 *body_start;
    size_t                  body_len;
    size_t                  body_size;
    hm_str_t                body;
    json_t                 *json;
    json_t                 *kept;        /* array of others to drop */
    struct ngx_hm_idem_s   *idem;        /* of ngx_hm_idempotent.c */
    void                   *reader;      /* of ngx_hm_body.c */
    struct ngx_hm_session_s  *session;   /* of ngx_hm_session.h */

    /* steps */
    const ngx_hm_step_pt   *step;
    const ngx_hm_step_pt   *back[4];     /* where calls return to */
    ngx_uint_t              nback;
    ngx_event_t             deadline;
    ngx_msec_t              patience;    /* of this wait; 0: as always */
    ngx_hm_seg_t            seg;
    ngx_hm_audit_t          audit;

    /* what the steps leave each other */
    hm_record_t            *record;
    hm_record_t            *old;
    PGresult               *old_res;     /* what its texts point into */
    void                   *data;        /* of the endpoint family */
    void                   *mfa;         /* of a factor being judged */
    ngx_uint_t              tries;       /* races lost */
    ngx_uint_t              loads;       /* of keys, one after another */
    ngx_uint_t              leaf;        /* of the subject's rows */
    hm_usec_t               keys_at;     /* when the cache was asked */
    uint64_t                keys_seen;   /* events of keys until then */

    /* reply */
    ngx_uint_t              status;
    hm_problem_t            problem;
    hm_str_t                detail;
    hm_faults_t            *faults;
    ngx_hm_headers_t        headers;
    hm_buf_t                out;
    ngx_chain_t            *parts;       /* in front of out */
    ngx_chain_t           **parts_last;
    size_t                  parts_len;

    ngx_queue_t             free;
    u_char                  arena[NGX_HM_ARENA];
};


/* Configuration. */

#define NGX_HM_ROLES    (HM_ROLE_RESEARCHER + 1)

typedef enum { NGX_HM_OFF = 0, NGX_HM_ON_, NGX_HM_OPTIONAL } ngx_hm_switch_t;

typedef struct {
    const char             *name;
    const char             *text;
    unsigned                lanes;
    int                     nparams;
    ngx_uint_t              many;        /* twin of arrays; 0: none */
    const uint32_t         *oids;        /* its elements; 0: a scalar */
} ngx_hm_stmt_t;

struct ngx_hm_main_conf_s {
    ngx_str_t               database;
    ngx_msec_t              database_timeout;
    ngx_uint_t              database_queue;
    ngx_str_t               redis_path;
    ngx_str_t               redis_user;
    ngx_str_t               redis_password;
    ngx_str_t               kek_file;
    hm_kek_t               *kek;
    hm_jwt_conf_t           jwt;
    ngx_array_t            *jwt_keys;    /* hm_jwt_key_t */
    ngx_uint_t              fingerprint;
    time_t                  access_time;
    time_t                  refresh_time;
    time_t                  idle[NGX_HM_ROLES];      /* by hm_role_t */
    time_t                  absolute[NGX_HM_ROLES];
    ngx_uint_t              audit;
    ngx_uint_t              environment;
    ngx_uint_t              admin_phi;
    ngx_uint_t              care_assign;
    ngx_uint_t              registration;
    ngx_uint_t              mfa_roles;   /* 1 << hm_role_t */
    ngx_str_t               webauthn_id;
    ngx_array_t            *webauthn_origins;    /* hm_str_t */
    hm_webauthn_rp_t        webauthn;
    ngx_flag_t              limits;
    ngx_flag_t              demo;
    ngx_flag_t              jwks;
    ngx_str_t               jwks_text;   /* empty: nothing to publish */
    ngx_str_t               jwks_etag;
    ngx_hm_loc_conf_t      *guard;       /* the first with healthmate_auth */
    ngx_int_t               guard_vars[3];
    ngx_flag_t              plain;       /* some server has a plain listener */
    size_t                  zone_size;
    ngx_shm_zone_t         *zone;
    size_t                  feed_size;
    ngx_shm_zone_t         *feed_zone;
    ngx_str_t               pool_name;
    ngx_thread_pool_t      *thread_pool;
    ngx_uint_t              quota[NGX_HM_CLASS_LAST];
    ngx_uint_t              window[NGX_HM_CLASS_LAST];
    ngx_array_t            *contacts;    /* ngx_str_t: security.txt */
    ngx_str_t               password_url;
    ngx_flag_t              cluster;
    ngx_uint_t              login_tries;     /* of one network or device */
    time_t                  login_window;
    ngx_uint_t              ceiling_tries;   /* of all strangers, a device */
    time_t                  ceiling_window;
    ngx_array_t             stmts;       /* ngx_hm_stmt_t */
    ngx_str_t               openapi;
};

enum { NGX_HM_AUDIT_STRICT = 0, NGX_HM_AUDIT_BOUNDED };
enum { NGX_HM_LOCAL = 0, NGX_HM_PRODUCTION };
enum { NGX_HM_PHI_ALL = 0, NGX_HM_PHI_BREAK_GLASS };
enum { NGX_HM_CARE_PATIENT = 0, NGX_HM_CARE_STAFF };
enum { NGX_HM_REGISTER_OPEN = 0, NGX_HM_REGISTER_VERIFIED,
       NGX_HM_REGISTER_INVITE };

typedef struct {
    ngx_flag_t              plain;
    ngx_array_t            *cors;        /* ngx_str_t */
} ngx_hm_srv_conf_t;

struct ngx_hm_loc_conf_s {
    ngx_flag_t              api;
    ngx_flag_t              problem;
    ngx_uint_t              auth;        /* ngx_hm_switch_t */
    ngx_uint_t              perm;        /* hm_perm_t */
    ngx_str_t               file;        /* where that was said */
    ngx_uint_t              line;
};

extern ngx_module_t  ngx_http_healthmate_module;


/* Static statements; those of resources follow, see ngx_hm_stmt_of(). */

typedef enum {
    NGX_HM_SQL_KEY_LOAD = 0,
    NGX_HM_SQL_MAY,
    NGX_HM_SQL_AUDIT,
    NGX_HM_SQL_AUDIT_KEY,
    NGX_HM_SQL_AUDIT_KEY_ADD,
    NGX_HM_SQL_REGISTER,
    NGX_HM_SQL_LOGIN_LOOKUP,
    NGX_HM_SQL_LOGIN,
    NGX_HM_SQL_ME,
    NGX_HM_SQL_REFRESH,
    NGX_HM_SQL_REAUTH_LOOKUP,
    NGX_HM_SQL_RENEW,
    NGX_HM_SQL_SESSIONS,
    NGX_HM_SQL_SESSION_END,
    NGX_HM_SQL_LOGOUT_ALL,
    NGX_HM_SQL_SEEN,
    NGX_HM_SQL_ENROLLED,
    NGX_HM_SQL_IDEM_GET,
    NGX_HM_SQL_IDEM_PUT,
    NGX_HM_SQL_TRENDS,
    NGX_HM_SQL_ZONE,
    NGX_HM_SQL_TOKEN_LOOKUP,             /* ngx_hm_stmt_account.h */
    NGX_HM_SQL_FORGOT,
    NGX_HM_SQL_REGISTER_ASK,
    NGX_HM_SQL_REGISTER_OPEN,
    NGX_HM_SQL_VERIFY,
    NGX_HM_SQL_RESET,
    NGX_HM_SQL_RESEND,
    NGX_HM_SQL_CREDENTIALS,
    NGX_HM_SQL_PASSWORD,
    NGX_HM_SQL_EMAIL_ASK,
    NGX_HM_SQL_EMAIL_TAKE,
    NGX_HM_SQL_PEOPLE_AUDIT,             /* ngx_hm_stmt_people.h */
    NGX_HM_SQL_STAFF_KEYS,
    NGX_HM_SQL_CARE_DESC,
    NGX_HM_SQL_CARE_ASC,
    NGX_HM_SQL_CARE_GET,
    NGX_HM_SQL_CARE_ADD,
    NGX_HM_SQL_CARE_SET,
    NGX_HM_SQL_PATIENTS_DESC,
    NGX_HM_SQL_PATIENTS_ASC,
    NGX_HM_SQL_CONSENTS_DESC,
    NGX_HM_SQL_CONSENTS_ASC,
    NGX_HM_SQL_CONSENT_ADD,
    NGX_HM_SQL_GRANTS_DESC,
    NGX_HM_SQL_GRANTS_ASC,
    NGX_HM_SQL_GRANT_GET,
    NGX_HM_SQL_GRANT_OPEN,
    NGX_HM_SQL_GRANT_APPROVE,
    NGX_HM_SQL_GRANT_END,
    NGX_HM_SQL_USERS_DESC,
    NGX_HM_SQL_USERS_ASC,
    NGX_HM_SQL_USER_GET,
    NGX_HM_SQL_USER_ADD,
    NGX_HM_SQL_USER_SET,
    NGX_HM_SQL_ME_SET,
    NGX_HM_SQL_PREFERENCES,
    NGX_HM_SQL_PREFERENCES_SET,
    NGX_HM_SQL_PROFILE,
    NGX_HM_SQL_PROFILE_SET,
    NGX_HM_SQL_ACCESSES_DESC,
    NGX_HM_SQL_ACCESSES_ASC,
    NGX_HM_SQL_PING,
    NGX_HM_SQL_SESSION_CHECK,
    NGX_HM_SQL_TOTP_GET,
    NGX_HM_SQL_TOTP_START,
    NGX_HM_SQL_TOTP_CONFIRM,
    NGX_HM_SQL_TOTP_USE,
    NGX_HM_SQL_TOTP_REMOVE,
    NGX_HM_SQL_RECOVERY_NEW,
    NGX_HM_SQL_RECOVERY_USE,
    NGX_HM_SQL_CHALLENGE,
    NGX_HM_SQL_PASSKEYS,
    NGX_HM_SQL_PASSKEY_WHO,
    NGX_HM_SQL_PASSKEY_ADD,
    NGX_HM_SQL_PASSKEY_FIND,
    NGX_HM_SQL_PASSKEY_USE,
    NGX_HM_SQL_PASSKEY_REMOVE,
    NGX_HM_SQL_STATIC
} ngx_hm_static_t;

ngx_int_t ngx_hm_stmts_init(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);
ngx_uint_t ngx_hm_stmt_of(const hm_resource_t *res, hm_sql_t kind,
    ngx_uint_t leaf);


/* Memory and life of a context (ngx_hm_request.c). */

ngx_hm_ctx_t *ngx_hm_ctx_create(ngx_http_request_t *r);
void ngx_hm_ctx_hold(ngx_hm_ctx_t *hm);
void ngx_hm_ctx_release(ngx_hm_ctx_t *hm);
void *ngx_hm_alloc(void *arena, size_t size);
void ngx_hm_arena_free(ngx_hm_arena_t *arena);
void ngx_hm_ctx_exit(void);

#define ngx_hm_palloc(hm, size)  ngx_hm_alloc(&(hm)->pool, (size))
void *ngx_hm_pcalloc(ngx_hm_ctx_t *hm, size_t size);
hm_str_t ngx_hm_printf(ngx_hm_ctx_t *hm, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

ngx_int_t ngx_hm_handler(ngx_http_request_t *r);
ngx_int_t ngx_hm_problem_handler(ngx_http_request_t *r);

static ngx_inline ngx_str_t
ngx_hm_ngx(hm_str_t s)
{
    ngx_str_t  n;

    n.len = s.len;
    n.data = s.data;

    return n;
}

static ngx_inline hm_str_t
ngx_hm_hm(ngx_str_t s)
{
    hm_str_t  h;

    h.len = s.len;
    h.data = s.data;

    return h;
}

void ngx_hm_request_id(ngx_hm_ctx_t *hm);
hm_str_t *ngx_hm_arg(ngx_hm_ctx_t *hm, const char *name);
hm_str_t ngx_hm_header(ngx_hm_ctx_t *hm, const char *lowcase_name);


/* Steps (ngx_hm_step.c). */

void ngx_hm_run(ngx_hm_ctx_t *hm);               /* from hm->step on */
void ngx_hm_resume(ngx_hm_ctx_t *hm);            /* an operation ended */
void ngx_hm_wait(ngx_hm_ctx_t *hm);              /* it has begun */
void ngx_hm_detach(ngx_hm_ctx_t *hm);            /* the request ends */
void ngx_hm_later(ngx_hm_ctx_t *hm);             /* resume next turn */
ngx_hm_rc_t ngx_hm_fail(ngx_hm_ctx_t *hm, hm_problem_t p);
ngx_hm_rc_t ngx_hm_fail_detail(ngx_hm_ctx_t *hm, hm_problem_t p,
    const char *fmt, ...) __attribute__((format(printf, 3, 4)));
ngx_hm_rc_t ngx_hm_goto(ngx_hm_ctx_t *hm, const ngx_hm_step_pt *steps);
/* Other steps first, then back to hm->step as it stands. */
void ngx_hm_call(ngx_hm_ctx_t *hm, const ngx_hm_step_pt *steps);
ngx_hm_rc_t ngx_hm_return(ngx_hm_ctx_t *hm);


/* Router. */

typedef enum { NGX_HM_FOUND = 0, NGX_HM_NO_PATH, NGX_HM_NO_METHOD,
               NGX_HM_OPTIONS_ } ngx_hm_found_t;

ngx_hm_found_t ngx_hm_route_find(ngx_hm_ctx_t *hm, ngx_uint_t *allow);
ngx_int_t ngx_hm_args_parse(ngx_hm_ctx_t *hm);
ngx_int_t ngx_hm_router_init(ngx_conf_t *cf);
/* The pattern of a path, whatever the method; "" when no row has it. */
const char *ngx_hm_route_pattern(hm_str_t path);


/* Logs (ngx_hm_log.c): variables before, the handler after the reading. */

ngx_int_t ngx_hm_log_names(ngx_conf_t *cf);
ngx_int_t ngx_hm_log_init(ngx_conf_t *cf);


/* Gate parts. */

hm_problem_t ngx_hm_gate_host(ngx_hm_ctx_t *hm);
hm_problem_t ngx_hm_authenticate(ngx_hm_ctx_t *hm);
void ngx_hm_token_cache_init(void);
#define NGX_HM_FGP_COOKIE   "__Secure-hm-fgp"
hm_str_t ngx_hm_cookie(hm_str_t header, const char *name);
char *ngx_hm_jwt_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_hm_jwt_create(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);
ngx_int_t ngx_hm_jwt_init(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);
ngx_int_t ngx_hm_read_secret(ngx_conf_t *cf, ngx_str_t *path, u_char *out,
    size_t size, size_t *len);
hm_problem_t ngx_hm_limit(ngx_hm_ctx_t *hm, ngx_hm_class_t rate,
    ngx_uint_t n);
/* Tries at passwords: taken before hashing. */
hm_problem_t ngx_hm_try_take(ngx_hm_ctx_t *hm,
    const unsigned char account[32]);
void ngx_hm_try_back(ngx_hm_ctx_t *hm);          /* nothing was tried */
void ngx_hm_try_right(ngx_hm_ctx_t *hm);
/* The same for who is signed in; success: 0 takes, 1 was right. */
hm_problem_t ngx_hm_login_try(ngx_hm_ctx_t *hm,
    const unsigned char account[32], ngx_uint_t success);
void ngx_hm_device_read(ngx_hm_ctx_t *hm);       /* cookie -> hm->device */
void ngx_hm_device_judge(ngx_hm_ctx_t *hm, const hm_uuid_t *user,
    uint32_t password_version, ngx_uint_t ended);
/* Sets the cookie; the session that is opened carries hm->device.id. */
ngx_int_t ngx_hm_device_make(ngx_hm_ctx_t *hm, const hm_uuid_t *user,
    uint32_t password_version);
ngx_int_t ngx_hm_zone_init(ngx_shm_zone_t *zone, void *data);
void ngx_hm_zone_attach(ngx_shm_zone_t *zone);

/*
 * Revocation: a problem, or hm->feed_ask: then ngx_hm_feed_steps go in front
 * (ngx_hm_call), which ask the database.  ngx_hm_authenticate() has checked;
 * long steps check again by ngx_hm_feed_good().
 */
hm_problem_t ngx_hm_feed_check(ngx_hm_ctx_t *hm);
extern const ngx_hm_step_pt  ngx_hm_feed_steps[];
ngx_uint_t ngx_hm_feed_good(ngx_hm_ctx_t *hm, ngx_hm_rc_t *rc);
ngx_int_t ngx_hm_feed_zone_init(ngx_shm_zone_t *zone, void *data);
ngx_int_t ngx_hm_feed_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log);
void ngx_hm_feed_stop(void);
uint64_t ngx_hm_feed_key_count(void);
ngx_uint_t ngx_hm_feed_key_since(uint64_t from, const hm_uuid_t *user);

typedef struct {
    ngx_uint_t              age;         /* ms since the last heartbeat */
    ngx_uint_t              count;
    ngx_uint_t              room;
    unsigned                never:1;
    unsigned                stale:1;
    unsigned                full:1;
    unsigned                listening:1;
} ngx_hm_feed_state_t;

void ngx_hm_feed_state(ngx_hm_feed_state_t *state);
void ngx_hm_feed_metrics(hm_buf_t *b);

hm_problem_t ngx_hm_body_check(ngx_hm_ctx_t *hm);
void ngx_hm_body_read(ngx_hm_ctx_t *hm);
ngx_int_t ngx_hm_body_more(ngx_hm_ctx_t *hm);    /* streamed: NGX_AGAIN.. */
ngx_hm_rc_t ngx_hm_json_body(ngx_hm_ctx_t *hm);  /* hm->body -> hm->json */


/* Small bodies: each fault is added to hm->faults. */

void ngx_hm_form_members(ngx_hm_ctx_t *hm, const char *known);
hm_str_t ngx_hm_form_text(ngx_hm_ctx_t *hm, const char *name, size_t min,
    size_t max, ngx_uint_t required);
ngx_uint_t ngx_hm_form_fingerprint(ngx_hm_ctx_t *hm);
ngx_hm_rc_t ngx_hm_form_email(ngx_hm_ctx_t *hm, hm_str_t email,
    hm_str_t *normal, unsigned char index[32]);


/* Step-up: of a route with NGX_HM_FRESH (ngx_hm_fresh.c). */

hm_problem_t ngx_hm_gate_fresh(ngx_hm_ctx_t *hm);
extern const ngx_hm_step_pt  ngx_hm_fresh_steps[];

/* The session of hm->who was used (ngx_hm_seen.c). */
void ngx_hm_seen(ngx_hm_ctx_t *hm);
time_t ngx_hm_seen_step(ngx_hm_main_conf_t *mcf, hm_role_t role);


/* The gate in front of other locations. */

char *ngx_hm_guard_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_hm_guard_permission(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_hm_guard_merge(ngx_conf_t *cf, void *parent, void *child);
ngx_int_t ngx_hm_guard_check(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);
ngx_int_t ngx_hm_guard_preconfiguration(ngx_conf_t *cf);
ngx_int_t ngx_hm_guard_postconfiguration(ngx_conf_t *cf);
void ngx_hm_guard_end(ngx_hm_ctx_t *hm);
void ngx_hm_guard_problem(ngx_hm_ctx_t *hm);


/* PostgreSQL. */

typedef struct {
    ngx_uint_t              up;          /* connections ready */
    ngx_uint_t              want;
    ngx_uint_t              queued;
} ngx_hm_pg_state_t;

ngx_int_t ngx_hm_pg_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log);
void ngx_hm_pg_stop(void);
void ngx_hm_pg_state(ngx_hm_pg_state_t *state);
/* Queues the segment; NGX_DECLINED: no connection, NGX_BUSY: queue full. */
ngx_int_t ngx_hm_pg_send(ngx_hm_seg_t *seg);
void ngx_hm_pg_unlink(ngx_hm_seg_t *seg);
void ngx_hm_pg_wake(void);
ngx_uint_t ngx_hm_pg_lane_up(ngx_hm_lane_t lane);

void ngx_hm_body_wait(ngx_hm_ctx_t *hm);
/* Counts an answer that grows with its body against the same budget. */
ngx_int_t ngx_hm_body_charge(ngx_hm_ctx_t *hm, size_t size);

/* A request's own segment, as a step: fills, sends, waits. */
void ngx_hm_seg_start(ngx_hm_ctx_t *hm, ngx_hm_lane_t lane, ngx_uint_t stmt);
void ngx_hm_seg_null(ngx_hm_seg_t *seg);
void ngx_hm_seg_add(ngx_hm_seg_t *seg, const void *data, size_t len);
void ngx_hm_seg_str(ngx_hm_seg_t *seg, hm_str_t s);
void ngx_hm_seg_uuid(ngx_hm_seg_t *seg, const hm_uuid_t *id);
void ngx_hm_seg_uuid_or_null(ngx_hm_seg_t *seg, const hm_uuid_t *id);
void ngx_hm_seg_i16(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, uint16_t n);
void ngx_hm_seg_i32(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, uint32_t n);
void ngx_hm_seg_i64(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, uint64_t n);
void ngx_hm_seg_time(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, hm_usec_t t);
void ngx_hm_seg_real(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg, double n);
void ngx_hm_seg_array(ngx_hm_ctx_t *hm, uint32_t oid, ngx_uint_t n,
    const hm_str_t *items);
/* HM_TAIL_*: the audit row's and the job's parameters. */
ngx_int_t ngx_hm_seg_tail(ngx_hm_ctx_t *hm, ngx_hm_seg_t *seg);
ngx_hm_rc_t ngx_hm_seg_wait(ngx_hm_ctx_t *hm);
/* After the wait: HM_PROBLEM_NONE, or what to answer. */
hm_problem_t ngx_hm_seg_result(ngx_hm_ctx_t *hm);
void ngx_hm_seg_clear(ngx_hm_seg_t *seg);


/* Keys. */

ngx_int_t ngx_hm_keys_start(ngx_hm_main_conf_t *mcf);
void ngx_hm_keys_stop(void);
ngx_hm_rc_t ngx_hm_step_keys(ngx_hm_ctx_t *hm);  /* a step: of the subject */
hm_user_keys_t *ngx_hm_keys(ngx_hm_ctx_t *hm);
void ngx_hm_keys_drop(const hm_uuid_t *user);
/* Loaded before: not for new requests; out of memory. */
void ngx_hm_keys_expire(hm_usec_t before);
void ngx_hm_keys_wipe(hm_usec_t before);
ngx_int_t ngx_hm_keys_take(const PGresult *res, const hm_uuid_t *user);
ngx_hm_rc_t ngx_hm_step_subject(ngx_hm_ctx_t *hm);  /* may the actor? */
ngx_hm_rc_t ngx_hm_step_system_keys(ngx_hm_ctx_t *hm);
hm_user_keys_t *ngx_hm_system_keys(void);
/* MACs of the deployment, by purpose: "etag", "cursor", "refresh", ... */
ngx_int_t ngx_hm_mac(unsigned char out[32], const char *purpose,
    const void *data, size_t len);


/* Audit. */

ngx_int_t ngx_hm_audit_start(ngx_hm_main_conf_t *mcf);
void ngx_hm_audit_row(ngx_hm_ctx_t *hm);         /* fills hm->audit.row */
ngx_int_t ngx_hm_audit_origin(ngx_hm_ctx_t *hm, hm_str_t *origin);
ngx_int_t ngx_hm_audit_send(ngx_hm_ctx_t *hm);
void ngx_hm_audit_unlink(ngx_hm_ctx_t *hm);
void ngx_hm_audit_kick(void);


/* Redis, threads. */

ngx_int_t ngx_hm_redis_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log);
void ngx_hm_redis_stop(void);
ngx_uint_t ngx_hm_redis_up(void);
void ngx_hm_redis_ring(const char *stream, const hm_uuid_t *job);
ngx_int_t ngx_hm_redis_count(hm_str_t name, ngx_int_t n, uint64_t window,
    ngx_uint_t of, uint64_t key);
void ngx_hm_cluster_told(ngx_uint_t of, uint64_t key, int64_t count,
    int64_t rest);

typedef struct {
    char                    hash[HM_PASSWORD_HASH_MAX];
    u_char                  password[HM_PASSWORD_BYTES];
    size_t                  password_len;
    unsigned                verify:1;
    unsigned                dummy:1;
    hm_rc_t                 rc;
} ngx_hm_kdf_t;

/* NGX_BUSY: the queue of the pool is full. */
ngx_int_t ngx_hm_kdf(ngx_hm_ctx_t *hm, ngx_hm_kdf_t *in);

/* Other work: a copy of `size` bytes goes there and comes back. */
typedef void (*ngx_hm_work_pt)(void *work);
ngx_hm_rc_t ngx_hm_work(ngx_hm_ctx_t *hm, ngx_hm_work_pt run, void *work,
    size_t size);


/* Second factors; the rest of it stands in ngx_hm_mfa.h. */

/* Must this role have one, and has the token none? */
ngx_uint_t ngx_hm_factor_missing(ngx_hm_ctx_t *hm);
/* users.mfa, a text[] as PostgreSQL sends it, as a JSON array. */
void ngx_hm_mfa_json(hm_buf_t *b, hm_str_t names);


/* Replies. */

void ngx_hm_reply_start(ngx_hm_ctx_t *hm, ngx_uint_t status, size_t size);
ngx_int_t ngx_hm_reply_send(ngx_hm_ctx_t *hm);
void ngx_hm_reply_problem(ngx_hm_ctx_t *hm);
ngx_int_t ngx_hm_rate_headers(ngx_hm_ctx_t *hm);
ngx_int_t ngx_hm_etag(ngx_hm_ctx_t *hm, const hm_uuid_t *id,
    uint32_t version, hm_str_t *etag);
/* NGX_OK matches, NGX_DECLINED does not, NGX_ERROR malformed. */
ngx_int_t ngx_hm_etag_match(hm_str_t header, hm_str_t etag, ngx_uint_t weak);
/* The answer of a GET is ready: is it news?  A 304 when it is not. */
ngx_hm_rc_t ngx_hm_if_none_match(ngx_hm_ctx_t *hm);


/* CRUD. */

extern const ngx_hm_step_pt  ngx_hm_crud_create[];
extern const ngx_hm_step_pt  ngx_hm_crud_get[];
ngx_hm_rc_t ngx_hm_list_read(ngx_hm_ctx_t *hm);
extern const ngx_hm_step_pt  ngx_hm_crud_list[];
extern const ngx_hm_step_pt  ngx_hm_crud_put[];
extern const ngx_hm_step_pt  ngx_hm_crud_patch[];
extern const ngx_hm_step_pt  ngx_hm_crud_delete[];

ngx_hm_rc_t ngx_hm_open_row(ngx_hm_ctx_t *hm, const hm_resource_t *res,
    hm_record_t *rec, const PGresult *r, int row, int col, bool shown);
/* What came back is another's: a 500, counted and logged. */
ngx_hm_rc_t ngx_hm_leak(ngx_hm_ctx_t *hm, const char *where);
/* Is it the subject's?  NEXT, or that. */
ngx_hm_rc_t ngx_hm_owned(ngx_hm_ctx_t *hm, const hm_uuid_t *owner,
    const char *where);


/* Metrics. */

typedef enum {
    NGX_HM_M_REQUESTS = 0, NGX_HM_M_POINTS, NGX_HM_M_LEAKS,
    NGX_HM_M_AUDIT_BATCHES, NGX_HM_M_AUDIT_ROWS, NGX_HM_M_AUDIT_FAILED,
    NGX_HM_M_PG_BATCHES, NGX_HM_M_PG_SEGMENTS, NGX_HM_M_PG_RESENT,
    NGX_HM_M_PG_LOST, NGX_HM_M_SEAL_FAILED, NGX_HM_M_OPEN_FAILED,
    NGX_HM_M_TOKEN_HITS, NGX_HM_M_TOKEN_MISSES, NGX_HM_M_KEY_LOADS,
    NGX_HM_M_RINGS, NGX_HM_M_RING_LOST, NGX_HM_M_OVERLOADED,
    NGX_HM_M_ABORTED, NGX_HM_M_FEED_EVENTS, NGX_HM_M_FEED_ASKED,
    NGX_HM_M_FEED_REFUSED, NGX_HM_M_FEED_TAKEN,
    NGX_HM_M_PASSWORDS, NGX_HM_M_LIMITED,
    NGX_HM_M_TRIES_REFUSED, NGX_HM_M_TRIES_FULL, NGX_HM_M_CLUSTER_COUNTS,
    NGX_HM_M_CLUSTER_LOST, NGX_HM_M_LAST
} ngx_hm_metric_t;

void ngx_hm_count(ngx_hm_metric_t m, ngx_uint_t n);
void ngx_hm_count_request(ngx_hm_ctx_t *hm);
void ngx_hm_metrics_write(ngx_hm_ctx_t *hm, hm_buf_t *b);
size_t ngx_hm_metrics_size(void);
void ngx_hm_metrics_attach(void *shared);
void ngx_hm_lag_start(void);                     /* work has come */
void ngx_hm_lag_stop(void);
void ngx_hm_metrics_lag(uint64_t usec, uint64_t own);


/* What a worker process has (ngx_http_healthmate_module.c). */

typedef struct {
    ngx_hm_main_conf_t     *conf;
    ngx_log_t              *log;
    ngx_uint_t              slot;        /* number of the worker */
    hm_usec_t               started;
} ngx_hm_worker_t;

extern ngx_hm_worker_t  ngx_hm_worker;


/* OpenAPI, from the tables (ngx_hm_openapi.c). */

ngx_int_t ngx_hm_openapi_build(ngx_conf_t *cf, ngx_str_t *out);

#endif
