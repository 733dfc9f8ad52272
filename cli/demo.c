/*
 * demo: accounts and data to look at; `demo create`.
 *
 * Three people (patient, doctor, admin at demo.local) with one password, and
 * for the patient 90 days of eight metrics.  Only into an empty database: a
 * database with other people in it is refused.  Where the demo accounts are
 * there already, nothing is made, but a HEALTHMATE_DEMO_PASSWORD that differs
 * from theirs becomes theirs: the variable resets it (rules.md 17).
 *
 * The generator is seeded, so that two installations show the same person:
 * somebody with a slightly high blood pressure who loses two kilograms, walks
 * more at weekends and sleeps badly on Sundays.  Only the clock differs: the
 * series ends now.  Rows are sealed here, like the module seals them, and go
 * in as multi-row inserts: COPY is refused under row-level security.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "hm_audit.h"
#include "hm_dedup.h"
#include "hm_metric.h"
#include "hm_password.h"
#include "hm_time.h"
#include "hm_uuid.h"


#define HMC_DEMO_DAYS      90
#define HMC_DEMO_SEED      0x48656c6d61746531ULL
#define HMC_DEMO_BATCH     100           /* rows of one insert */
#define HMC_DEMO_COLUMNS   9
#define HMC_DEMO_SOURCE    "demo"

#define HMC_DAY            (86400 * HM_USEC)
#define HMC_HOUR           (3600 * HM_USEC)


typedef struct {
    hmc_db_t      *db;
    hmc_keys_t     keys;
    hm_uuid_t      user;
    hm_usec_t      now;
    uint64_t       random;
    unsigned       rows;                 /* all so far */
    unsigned       batch;                /* in the parameters below */
    hm_buf_t       sql;
    hmc_params_t   params;
} hmc_demo_t;


typedef hm_reading_t (*hmc_demo_value_t)(hmc_demo_t *demo, int day, int nth);

typedef struct {
    const char        *name;             /* data_type */
    int                hour[4];          /* of the day, -1: no more */
    unsigned           missed;           /* percent of readings */
    hmc_demo_value_t   value;
} hmc_demo_series_t;


static hm_reading_t hmc_demo_pressure(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_pulse(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_weight(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_glucose(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_steps(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_sleep(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_oxygen(hmc_demo_t *demo, int day, int nth);
static hm_reading_t hmc_demo_heat(hmc_demo_t *demo, int day, int nth);


static const hmc_demo_series_t  hmc_demo_series[] = {
    { "blood_pressure",    { 7, 20, -1, -1 }, 6, hmc_demo_pressure },
    { "heart_rate",        { 7, 12, 16, 21 }, 4, hmc_demo_pulse },
    { "weight",            { 7, -1, -1, -1 }, 8, hmc_demo_weight },
    { "blood_glucose",     { 7, 13, -1, -1 }, 10, hmc_demo_glucose },
    { "steps",             { 22, -1, -1, -1 }, 2, hmc_demo_steps },
    { "sleep_hours",       { 6, -1, -1, -1 }, 5, hmc_demo_sleep },
    { "oxygen_saturation", { 8, -1, -1, -1 }, 12, hmc_demo_oxygen },
    { "temperature",       { 8, -1, -1, -1 }, 50, hmc_demo_heat },
    { NULL, { -1 }, 0, NULL }
};


/* splitmix64: a generator whose stream is the same on every machine */
static uint64_t
hmc_demo_random(hmc_demo_t *demo)
{
    uint64_t  z;

    z = (demo->random += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;

    return z ^ (z >> 31);
}


/* Mean 0, deviation 1, never beyond 3.5: four uniforms are bell enough. */
static double
hmc_demo_normal(hmc_demo_t *demo)
{
    int     i;
    double  sum;

    sum = 0;

    for (i = 0; i < 4; i++) {
        sum += (double) (hmc_demo_random(demo) >> 11) / 9007199254740992.0;
    }

    return (sum - 2) * 1.7320508;
}


static hm_reading_t
hmc_demo_number(double n, double step)
{
    hm_reading_t  r;

    r.object = false;
    r.number = round(n / step) / (1 / step);
    r.second = 0;

    return r;
}


static hm_reading_t
hmc_demo_pressure(hmc_demo_t *demo, int day, int nth)
{
    hm_reading_t  r;

    r = hmc_demo_number(136 - 0.11 * day + (nth == 1 ? 4 : 0)
                        + 5 * hmc_demo_normal(demo), 1);
    r.second = round(r.number * 0.62 + 1 + 3 * hmc_demo_normal(demo));
    r.object = true;

    return r;
}


static hm_reading_t
hmc_demo_pulse(hmc_demo_t *demo, int day, int nth)
{
    static const double  base[] = { 64, 74, 78, 69 };

    return hmc_demo_number(base[nth] + 5 * hmc_demo_normal(demo), 1);
}


static hm_reading_t
hmc_demo_weight(hmc_demo_t *demo, int day, int nth)
{
    return hmc_demo_number(84.2 - 0.024 * day + 0.35 * hmc_demo_normal(demo),
                           0.1);
}


static hm_reading_t
hmc_demo_glucose(hmc_demo_t *demo, int day, int nth)
{
    return hmc_demo_number(nth == 0 ? 97 + 6 * hmc_demo_normal(demo)
                                    : 124 + 13 * hmc_demo_normal(demo), 1);
}


static hm_reading_t
hmc_demo_steps(hmc_demo_t *demo, int day, int nth)
{
    double  n;

    n = (day % 7 >= 5 ? 9400 : 6300) + 15 * day
        + 1700 * hmc_demo_normal(demo);

    return hmc_demo_number(n < 300 ? 300 : n, 1);
}


static hm_reading_t
hmc_demo_sleep(hmc_demo_t *demo, int day, int nth)
{
    return hmc_demo_number((day % 7 == 6 ? 6.2 : 7.2)
                           + 0.6 * hmc_demo_normal(demo), 0.25);
}


static hm_reading_t
hmc_demo_oxygen(hmc_demo_t *demo, int day, int nth)
{
    double  n;

    n = 97.3 + 0.8 * hmc_demo_normal(demo);

    return hmc_demo_number(n > 100 ? 100 : n, 1);
}


static hm_reading_t
hmc_demo_heat(hmc_demo_t *demo, int day, int nth)
{
    return hmc_demo_number(36.6 + 0.2 * hmc_demo_normal(demo), 0.1);
}


static hm_rc_t
hmc_demo_error(hmc_db_t *db, const char *why)
{
    snprintf(db->error, sizeof(db->error), "demo: %s", why);

    return HM_ERROR;
}


static hm_rc_t
hmc_demo_flush(hmc_demo_t *demo)
{
    hm_rc_t  rc;

    if (demo->batch == 0) {
        return HM_OK;
    }

    hm_buf_add(&demo->sql, "", 1);

    rc = demo->sql.failed ? hmc_demo_error(demo->db, "out of memory")
                          : hmc_db_exec(demo->db, (char *) demo->sql.start,
                                        &demo->params);
    demo->batch = 0;

    return rc;
}


/* "($10, $11, ..., now(), now())" of the next row of the insert. */
static void
hmc_demo_place(hmc_demo_t *demo)
{
    int  i;

    if (demo->batch == 0) {
        hm_buf_init(&demo->sql, &hm_heap, 16384);
        demo->params.n = 0;
        hm_buf_lit(&demo->sql,
            "insert into health_data (id, user_id, dek_version, data_type,"
            " value, unit, \"timestamp\", source, dedup_key, created_at,"
            " updated_at) values ");
    }

    for (i = 0; i < HMC_DEMO_COLUMNS; i++) {
        hm_buf_printf(&demo->sql, "%s$%d",
                      i != 0 ? "," : demo->batch != 0 ? ",(" : "(",
                      demo->params.n + i + 1);
    }

    hm_buf_lit(&demo->sql, ",now(),now())");
}


static hm_rc_t
hmc_demo_row(hmc_demo_t *demo, const hm_metric_t *metric, hm_usec_t at,
    const hm_reading_t *r)
{
    hm_buf_t        b;
    hm_str_t        value, dedup;
    hm_uuid_t      *id;
    hmc_params_t   *p;

    id = malloc(sizeof(hm_uuid_t));
    dedup.len = 32;
    dedup.data = malloc(dedup.len);

    hm_buf_init(&b, &hm_heap, 96);

    if (r->object) {
        hm_buf_lit(&b, "{\"systolic\":");
        hm_json_real(&b, r->number);
        hm_buf_lit(&b, ",\"diastolic\":");
        hm_json_real(&b, r->second);
        hm_buf_lit(&b, "}");

    } else {
        hm_json_real(&b, r->number);
    }

    if (id == NULL || dedup.data == NULL || b.failed
        || hm_uuid7(id, hm_now()) != HM_OK)
    {
        return hmc_demo_error(demo->db, "out of memory");
    }

    value = hmc_seal(&demo->keys, "health_data", "value", id, &demo->user,
                     (hm_str_t) { hm_buf_len(&b), b.start });

    if (value.data == NULL
        || hm_dedup_key(dedup.data, demo->keys.index_key, &demo->user,
                        hmc_str(metric->name), at, r, hm_null_str,
                        HM_STR(HMC_DEMO_SOURCE), hm_null_str)
           != HM_OK)
    {
        return hmc_demo_error(demo->db, "cannot seal a reading");
    }

    hmc_demo_place(demo);

    p = &demo->params;
    hmc_param_uuid(p, id);
    hmc_param_uuid(p, &demo->user);
    hmc_param_int(p, demo->keys.version);
    hmc_param_text(p, metric->name);
    hmc_param_bytes(p, value);
    hmc_param_text(p, metric->unit);
    hmc_param_time(p, at);
    hmc_param_text(p, HMC_DEMO_SOURCE);
    hmc_param_bytes(p, dedup);

    demo->rows++;
    demo->batch++;

    return demo->batch == HMC_DEMO_BATCH ? hmc_demo_flush(demo) : HM_OK;
}


static hm_rc_t
hmc_demo_one(hmc_demo_t *demo, const hmc_demo_series_t *series,
    const hm_metric_t *metric)
{
    int           day, nth;
    bool          missed;
    hm_usec_t     at, first;
    hm_reading_t  value;

    first = demo->now - demo->now % HMC_DAY - (HMC_DEMO_DAYS - 1) * HMC_DAY;

    for (day = 0; day < HMC_DEMO_DAYS; day++) {

        for (nth = 0; nth < 4 && series->hour[nth] >= 0; nth++) {

            /* drawn whether or not they are used: the stream stays the same
             * however much of today has passed */
            value = series->value(demo, day, nth);
            missed = hmc_demo_random(demo) % 100 < series->missed;
            at = first + day * HMC_DAY + series->hour[nth] * HMC_HOUR
                 + (hm_usec_t) (hmc_demo_random(demo) % 1800) * HM_USEC;

            if (missed || at > demo->now) {
                continue;
            }

            if (hmc_demo_row(demo, metric, at, &value) != HM_OK) {
                return HM_ERROR;
            }
        }
    }

    return HM_OK;
}


/* "recompute all buckets of this type": one job for each metric */
static hm_rc_t
hmc_demo_job(hmc_demo_t *demo, const hm_metric_t *metric)
{
    char           key[160], user[HM_UUID_TEXT];
    hm_uuid_t      id;
    hmc_params_t   p;

    if (hm_uuid7(&id, hm_now()) != HM_OK) {
        return hmc_demo_error(demo->db, "no random numbers");
    }

    hm_uuid_format(&demo->user, user);
    snprintf(key, sizeof(key), "rollup:%.*s:%s:*", HM_UUID_TEXT, user,
             metric->name);

    p.n = 0;
    hmc_param_uuid(&p, &id);
    hmc_param_text(&p, key);
    hmc_param_uuid(&p, &demo->user);

    return hmc_db_exec(demo->db,
        "insert into jobs (id, kind, unique_key, user_id, requester,"
        " permission, state, run_at, max_attempts) values"
        " ($1, 'analytics.rollup', $2, $3, $3, 'health.read', 'ready', now(),"
        " 8) on conflict (unique_key) where state in ('ready', 'retry')"
        " do nothing", &p);
}


static hm_rc_t
hmc_demo_data(hmc_demo_t *demo)
{
    const hm_metric_t        *metric;
    const hmc_demo_series_t  *series;

    demo->random = HMC_DEMO_SEED;
    demo->now = hm_now();

    for (series = hmc_demo_series; series->name != NULL; series++) {

        metric = hm_metric_find(hmc_str(series->name));
        if (metric == NULL) {
            return hmc_demo_error(demo->db, "an unknown metric");
        }

        if (hmc_demo_one(demo, series, metric) != HM_OK
            || hmc_demo_flush(demo) != HM_OK
            || hmc_demo_job(demo, metric) != HM_OK)
        {
            return HM_ERROR;
        }
    }

    return HM_OK;
}


static hm_rc_t
hmc_demo_assign(hmc_db_t *db, const hm_uuid_t *patient,
    const hm_uuid_t *doctor)
{
    hm_uuid_t      id;
    hmc_params_t   p;

    if (hm_uuid7(&id, hm_now()) != HM_OK) {
        return hmc_demo_error(db, "no random numbers");
    }

    p.n = 0;
    hmc_param_uuid(&p, &id);
    hmc_param_uuid(&p, patient);
    hmc_param_uuid(&p, doctor);

    return hmc_db_exec(db,
        "insert into care_relationships (id, patient_id, doctor_id, status,"
        " created_by, from_at, until, accepted_at) values ($1, $2, $3,"
        " 'active', $2, now(), now() + interval '1 year', now())", &p);
}


static hm_rc_t
hmc_demo_make(hmc_demo_t *demo, const char *password)
{
    size_t      i;
    hm_uuid_t   id[3];
    hmc_keys_t  keys;

    static const hmc_account_t  people[] = {
        { "doctor@demo.local", "Dr. Dana Demo", "doctor", NULL, true },
        { "admin@demo.local", "Ada Demo", "admin", NULL, true },
        { "patient@demo.local", "Pat Demo", "patient", NULL, true },
    };

    for (i = 0; i < 3; i++) {
        hmc_account_t  account = people[i];

        account.password = password;

        if (hmc_account_create(demo->db, &account, &id[i], &keys) != HM_OK) {
            return HM_ERROR;
        }

        if (hmc_audit(demo->db, HM_AUDIT_OF_USER, &id[i], 1) != HM_OK) {
            return HM_ERROR;
        }
    }

    /* the patient came last: hm.actor is the patient's now */
    demo->user = id[2];
    demo->keys = keys;
    hm_wipe(&keys, sizeof(keys));

    if (hmc_demo_assign(demo->db, &id[2], &id[0]) != HM_OK
        || hmc_demo_data(demo) != HM_OK)
    {
        return HM_ERROR;
    }

    return hmc_audit(demo->db, HM_AUDIT_OF_HEALTH_DATA, &demo->user,
                     demo->rows);
}


/* HM_OK: they are there; HM_DECLINED: none of the demo accounts is. */
static hm_rc_t
hmc_demo_reset(hmc_db_t *db, const char *password, char said[256])
{
    char          *old, hash[HM_PASSWORD_HASH_MAX];
    size_t         i, there, changed;
    hm_rc_t        rc;
    hm_uuid_t      id;
    hmc_params_t   p;

    static const char *const  emails[] = {
        "patient@demo.local", "doctor@demo.local", "admin@demo.local"
    };

    there = changed = 0;

    for (i = 0; i < 3; i++) {
        rc = hmc_account_find(db, emails[i], &id, &old);

        if (rc == HM_ERROR) {
            return HM_ERROR;
        }

        if (rc == HM_DECLINED) {
            continue;
        }

        there++;

        if (hm_password_verify(old, hmc_str(password)) == HM_OK) {
            continue;
        }

        if (hm_password_hash(hash, hmc_str(password)) != HM_OK) {
            return hmc_demo_error(db, "cannot hash the password");
        }

        p.n = 0;
        hmc_param_uuid(&p, &id);
        hmc_param_text(&p, hash);

        if (hmc_db_actor(db, &id) != HM_OK
            || hmc_db_exec(db,
                   "update users set password_hash = $2,"
                   " password_version = password_version + 1,"
                   " updated_at = now(), version = version + 1"
                   " where id = $1", &p)
               != HM_OK
            || hmc_audit(db, HM_AUDIT_OF_USER, &id, 1) != HM_OK)
        {
            return HM_ERROR;
        }

        changed++;
    }

    if (there == 0) {
        return HM_DECLINED;
    }

    snprintf(said, 256, "demo: the demo accounts are there already%s",
             changed != 0 ? "; their password was reset" : "");

    return HM_OK;
}


static hm_rc_t
hmc_demo_empty(hmc_db_t *db, bool *empty)
{
    PGresult  *result;

    result = hmc_db_query(db, "select hm_user_count()", NULL);
    if (result == NULL) {
        return HM_ERROR;
    }

    *empty = strcmp(PQgetvalue(result, 0, 0), "0") == 0;
    PQclear(result);

    return HM_OK;
}


static hm_rc_t
hmc_demo_run(hmc_db_t *db, const char *password, char said[256])
{
    bool          empty;
    hm_rc_t       rc;
    hmc_demo_t   *demo;

    if (hmc_demo_empty(db, &empty) != HM_OK) {
        return HM_ERROR;
    }

    if (!empty) {
        rc = hmc_demo_reset(db, password, said);

        return rc != HM_DECLINED ? rc
               : hmc_demo_error(db, "the database is not empty: demo data "
                                "only goes into an empty one");
    }

    demo = calloc(1, sizeof(hmc_demo_t));
    if (demo == NULL) {
        return hmc_demo_error(db, "out of memory");
    }

    demo->db = db;

    rc = hmc_demo_make(demo, password);

    if (rc == HM_OK) {
        snprintf(said, 256, "demo: made patient@demo.local, "
                 "doctor@demo.local and admin@demo.local; %u readings of 8 "
                 "metrics over %d days", demo->rows, HMC_DEMO_DAYS);
    }

    hm_wipe(&demo->keys, sizeof(demo->keys));
    free(demo);

    return rc;
}


int
hmc_demo_create(int argc, char **argv)
{
    char         said[256];
    hmc_db_t     db;
    const char  *password, *environment;

    static const hmc_option_t  none[] = { { NULL, NULL, NULL } };

    if (hmc_options(argc, argv, none, NULL, 0) != HMC_DONE) {
        return HMC_USAGE;
    }

    environment = hmc_conf("HEALTHMATE_ENVIRONMENT");
    if (environment != NULL && strcmp(environment, "production") == 0) {
        return hmc_fail("demo: not in production: everybody would know the "
                        "way in");
    }

    password = hmc_conf("HEALTHMATE_DEMO_PASSWORD");
    if (password == NULL) {
        return hmc_fail("demo: set HEALTHMATE_DEMO_PASSWORD");
    }

    if (hmc_db_open(&db, true) != HM_OK
        || hmc_db_begin(&db) != HM_OK
        || hmc_demo_run(&db, password, said) != HM_OK
        || hmc_db_commit(&db) != HM_OK)
    {
        hmc_fail("%s", db.error);
        hmc_db_close(&db);
        return HMC_FAILED;
    }

    hmc_db_close(&db);
    puts(said);

    return HMC_DONE;
}
