/*
 * healthmate: what the files of the CLI share.
 *
 * One process runs one command and ends; so memory comes from hm_heap and is
 * not freed piece by piece, except in `import`, which reads files of any
 * size and uses an arena (hmc_arena_t) that is emptied after each part.
 *
 * Every command is a function that returns the exit code: 0 done, 1 failed
 * with one line on standard error (hmc_fail), 2 wrong usage.
 */

#ifndef HMC_CLI_H
#define HMC_CLI_H

#include <libpq-fe.h>

#include "hm.h"
#include "hm_buf.h"
#include "hm_crypto.h"
#include "hm_keyring.h"

#define HMC_DONE    0
#define HMC_FAILED  1
#define HMC_USAGE   2

#define HMC_PARAMS_MAX   2048


/* cli.c */

int hmc_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int hmc_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
hm_str_t hmc_str(const char *s);         /* NULL: data NULL */
char *hmc_cstr(hm_str_t s);
const char *hmc_os_user(void);

/*
 * Options are "--name value" and "--flag", anywhere.  The table ends with
 * name NULL; what is no option is a positional argument.
 */
typedef struct {
    const char   *name;                  /* "--email" */
    const char  **value;                 /* takes the next argument; or */
    bool         *flag;                  /* is set */
} hmc_option_t;

int hmc_options(int argc, char **argv, const hmc_option_t *options,
    const char **positional, int npositional);

/*
 * A secret: the variable, else a terminal (without echo), else the first
 * line of standard input where from_stdin is set.  NULL: there is none, and
 * the line was printed.
 */
char *hmc_secret(const char *variable, const char *prompt, bool from_stdin);


/* conf.c */

/* The environment's value, else that of $HEALTHMATE_HOME/env, else NULL. */
const char *hmc_conf(const char *name);
const char *hmc_home(void);


/* arena.c */

typedef struct hmc_chunk_s  hmc_chunk_t;

typedef struct {
    hm_mem_t      mem;
    hmc_chunk_t  *chunks;
} hmc_arena_t;

void hmc_arena_init(hmc_arena_t *arena);
void hmc_arena_reset(hmc_arena_t *arena);


/* db.c */

typedef struct {
    PGconn       *conn;
    hm_kek_t     *kek;
    hm_uuid_t     shard;                 /* of the audit */
    uint64_t      seq;                   /* 0: the shard is not open yet */
    char          error[512];
} hmc_db_t;

typedef struct {
    int           n;
    const char   *value[HMC_PARAMS_MAX];
    int           len[HMC_PARAMS_MAX];
    int           format[HMC_PARAMS_MAX];
} hmc_params_t;

void hmc_param_text(hmc_params_t *p, const char *text);    /* NULL: null */
void hmc_param_int(hmc_params_t *p, int64_t n);
void hmc_param_bytes(hmc_params_t *p, hm_str_t bytes);     /* data NULL: null */
void hmc_param_uuid(hmc_params_t *p, const hm_uuid_t *id); /* not copied */
void hmc_param_time(hmc_params_t *p, hm_usec_t t);

/* Without the KEK (jobs, doctor) kek stays NULL.  HM_ERROR: see db->error. */
hm_rc_t hmc_db_open(hmc_db_t *db, bool with_kek);
void hmc_db_close(hmc_db_t *db);

/* NULL: failed, db->error says why; sqlstate tells which. */
PGresult *hmc_db_query(hmc_db_t *db, const char *sql, hmc_params_t *p);
hm_rc_t hmc_db_exec(hmc_db_t *db, const char *sql, hmc_params_t *p);
bool hmc_db_state(const hmc_db_t *db, const char *sqlstate);

hm_rc_t hmc_db_begin(hmc_db_t *db);
hm_rc_t hmc_db_commit(hmc_db_t *db);
void hmc_db_rollback(hmc_db_t *db);

/* Who acts, until the end of the transaction (row-level security). */
hm_rc_t hmc_db_actor(hmc_db_t *db, const hm_uuid_t *actor);

/* The audit row of an admin command, inside its transaction. */
hm_rc_t hmc_audit(hmc_db_t *db, unsigned resource, const hm_uuid_t *subject,
    uint32_t items);


/* keys.c */

typedef struct {
    uint32_t        version;
    unsigned char   dek[HM_KEY_LEN];
    unsigned char   index_key[HM_KEY_LEN];
} hmc_keys_t;

/* Makes and stores DEK v1 and the index key of an owner. */
hm_rc_t hmc_keys_create(hmc_db_t *db, const hm_uuid_t *owner,
    hmc_keys_t *keys);

/* Loads them; HM_DECLINED: the owner has none. */
hm_rc_t hmc_keys_load(hmc_db_t *db, const hm_uuid_t *owner, hmc_keys_t *keys);

/* Seals JSON under an owner's key; data NULL: failed. */
hm_str_t hmc_seal(const hmc_keys_t *keys, const char *table,
    const char *column, const hm_uuid_t *row, const hm_uuid_t *owner,
    hm_str_t json);


/* user.c */

typedef struct {
    const char   *email;
    const char   *name;                  /* may be NULL */
    const char   *role;
    const char   *password;
    bool          demo;                  /* every consent is given */
} hmc_account_t;

/* In the caller's transaction; leaves hm.actor set to the new account. */
hm_rc_t hmc_account_create(hmc_db_t *db, const hmc_account_t *account,
    hm_uuid_t *id, hmc_keys_t *keys);

/* HM_DECLINED: no such account.  hash may be NULL. */
hm_rc_t hmc_account_find(hmc_db_t *db, const char *email, hm_uuid_t *id,
    char **hash);


/* the commands */

int hmc_keys_init(int argc, char **argv);
int hmc_keys_status(int argc, char **argv);
int hmc_user_create(int argc, char **argv);
int hmc_user_disable(int argc, char **argv);
int hmc_user_enable(int argc, char **argv);
int hmc_user_role(int argc, char **argv);
int hmc_demo_create(int argc, char **argv);
int hmc_jobs(int argc, char **argv);
int hmc_doctor(int argc, char **argv);
int hmc_import_fhir(int argc, char **argv);

#endif
