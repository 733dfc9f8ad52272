/*
 * seed: people, keys, rows and tokens for the benchmark; and the floor of
 * bulk ingest.
 *
 *     seed make DIR USERS ROWS    USERS people with ROWS readings each, over
 *                                 seven years, and as many people without
 *                                 readings, whom only the floors write for
 *     seed tokens DIR             signs the tokens of DIR/users anew
 *     seed copy DIR N SECONDS     N connections COPY batches of 500 rows
 *                                 that were sealed before the clock starts
 *
 * Everything is made as the product makes it: keys wrapped by the KEK, each
 * value sealed under its owner's DEK, blind index and dedup key under his
 * index key, tokens signed with the stack's own key.  The one thing that is
 * not the product's way is COPY as the owner of the cluster, because COPY is
 * refused under row-level security; that is also what makes it the floor.
 *
 * Environment: libpq's (PGHOST, PGUSER, PGDATABASE), HEALTHMATE_KEK_FILE,
 * BENCH_JWT_KEY (file).
 *
 * Rows lie as a service that has run for seven years would have them: by
 * time, people mixed.  So a person's rows are on as many pages as rows, and a
 * list pays for that.
 *
 * DIR/users    index, user id, session id, leaf, token; split at tabs
 * DIR/floor    the same of the people the floors write for
 * DIR/ids      index of the user, record id: what GET one asks for
 */

#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hm.h"
#include "hm_buf.h"
#include "hm_crypto.h"
#include "hm_dedup.h"
#include "hm_jwt.h"
#include "hm_keyring.h"
#include "hm_metric.h"
#include "hm_row.h"
#include "hm_time.h"
#include "hm_uuid.h"


#define BN_YEARS      7
#define BN_DAY        (86400 * HM_USEC)
#define BN_IDS        20             /* ids for GET one, of each person */
#define BN_BATCH      500
#define BN_CHUNK      (256 * 1024)
#define BN_NOTE       "after a short walk"

#define BN_COLUMNS                                                            \
    "id, user_id, dek_version, created_at, updated_at, data_type, value,"     \
    " unit, \"timestamp\", notes, source, dedup_key"
#define BN_NCOLUMNS   12


typedef struct {
    hm_uuid_t      id;
    hm_uuid_t      session;
    unsigned       leaf;
    unsigned char  dek[HM_KEY_LEN];
    unsigned char  index_key[HM_KEY_LEN];
} bn_user_t;


typedef struct {
    PGconn        *pg;
    hm_kek_t      *kek;
    unsigned char  email_key[HM_KEY_LEN];
    hm_jwt_conf_t  jwt;
    hm_jwt_key_t   key;
    const char    *dir;
    hm_usec_t      now;
} bn_t;


static const char *const  bn_types[] = {
    "heart_rate", "blood_pressure", "steps", "weight", "blood_glucose",
    "sleep_hours", "oxygen_saturation", "temperature"
};


static void
bn_die(const char *what, const char *why)
{
    fprintf(stderr, "seed: %s%s%s\n", what, why != NULL ? ": " : "",
            why != NULL ? why : "");
    exit(1);
}


static PGconn *
bn_connect(void)
{
    PGconn  *pg;

    pg = PQconnectdb("");

    if (PQstatus(pg) != CONNECTION_OK) {
        bn_die("database", PQerrorMessage(pg));
    }

    return pg;
}


static PGresult *
bn_query(PGconn *pg, const char *sql, int n, const char *const *value,
    const int *len, const int *format)
{
    PGresult  *res;

    res = PQexecParams(pg, sql, n, NULL, value, len, format, 1);

    if (PQresultStatus(res) != PGRES_TUPLES_OK
        && PQresultStatus(res) != PGRES_COMMAND_OK)
    {
        bn_die(sql, PQerrorMessage(pg));
    }

    return res;
}


/* Parameters are binary, all of them. */
static PGresult *
bn_exec(PGconn *pg, const char *sql, int n, const hm_str_t *param)
{
    int          i, len[12], format[12];
    const char  *value[12];

    for (i = 0; i < n; i++) {
        value[i] = (const char *) param[i].data;
        len[i] = (int) param[i].len;
        format[i] = 1;
    }

    return bn_query(pg, sql, n, value, len, format);
}


static void
bn_open(bn_t *bn, const char *dir)
{
    FILE        *f;
    char         reason[256];
    const char  *path;
    PGresult    *res;

    bn->dir = dir;
    bn->now = hm_now();
    bn->pg = bn_connect();

    path = getenv("HEALTHMATE_KEK_FILE");
    bn->kek = path != NULL ? hm_kek_load(path, reason) : NULL;
    if (bn->kek == NULL) {
        bn_die("HEALTHMATE_KEK_FILE", path != NULL ? reason : "not set");
    }

    path = getenv("BENCH_JWT_KEY");
    f = path != NULL ? fopen(path, "r") : NULL;
    if (f == NULL) {
        bn_die("BENCH_JWT_KEY", "cannot be read");
    }

    bn->key.secret_len = fread(bn->key.secret, 1, sizeof(bn->key.secret), f);
    fclose(f);

    while (bn->key.secret_len > 0
           && bn->key.secret[bn->key.secret_len - 1] == '\n')
    {
        bn->key.secret_len--;
    }

    snprintf(bn->key.kid, sizeof(bn->key.kid), "k1");
    bn->jwt.keys = &bn->key;
    bn->jwt.nkeys = 1;
    bn->jwt.issuer = HM_STR("healthmate");
    bn->jwt.audience = HM_STR("healthmate-api");

    /* the deployment's index key, for users.email */

    res = bn_query(bn->pg, "select wrapped_key from user_index_keys where"
                   " user_id = '00000000-0000-0000-0000-000000000000'", 0,
                   NULL, NULL, NULL);

    if (PQntuples(res) != 1
        || hm_kek_unwrap(bn->kek, bn->email_key, "index", 1, &hm_nil_uuid,
                         hm_row_str(res, 0, 0))
           != HM_OK)
    {
        bn_die("the deployment's index key does not open", NULL);
    }

    PQclear(res);
}


static hm_str_t
bn_seal(const bn_user_t *u, const char *table, const char *column,
    const hm_uuid_t *row, hm_str_t json, unsigned char *out)
{
    size_t      len;
    hm_place_t  place;

    place.table = table;
    place.column = column;
    place.row = *row;
    place.owner = u->id;

    if (hm_seal(out, &len, u->dek, 1, &place, json) != HM_OK) {
        bn_die("cannot seal", column);
    }

    return (hm_str_t) { len, out };
}


static void
bn_keys(bn_t *bn, bn_user_t *u)
{
    PGresult       *res;
    unsigned char   wrapped[HM_WRAPPED_LEN], commitment[HM_COMMIT_LEN];
    unsigned char   kek[4];
    hm_str_t        p[4];

    if (hm_random(u->dek, HM_KEY_LEN) != HM_OK
        || hm_random(u->index_key, HM_KEY_LEN) != HM_OK
        || hm_kek_wrap(bn->kek, wrapped, "dek", 1, &u->id, u->dek) != HM_OK
        || hm_commitment(commitment, u->dek) != HM_OK)
    {
        bn_die("cannot make a key", NULL);
    }

    hm_put_u32(kek, hm_kek_current(bn->kek));

    p[0] = (hm_str_t) { 16, u->id.b };
    p[1] = (hm_str_t) { 4, kek };
    p[2] = (hm_str_t) { sizeof(wrapped), wrapped };
    p[3] = (hm_str_t) { sizeof(commitment), commitment };

    PQclear(bn_exec(bn->pg,
        "insert into user_keys (user_id, version, kek_version, wrapped_dek,"
        " commitment, state) values ($1::uuid, 1, $2::int4, $3::bytea,"
        " $4::bytea, 'active')", 4, p));

    if (hm_kek_wrap(bn->kek, wrapped, "index", 1, &u->id, u->index_key)
        != HM_OK)
    {
        bn_die("cannot wrap a key", NULL);
    }

    PQclear(bn_exec(bn->pg,
        "insert into user_index_keys (user_id, kek_version, wrapped_key)"
        " values ($1::uuid, $2::int4, $3::bytea)", 3, p));

    res = bn_exec(bn->pg, "select hm_leaf($1::uuid)", 1, p);
    u->leaf = hm_row_u32(res, 0, 0);
    PQclear(res);
}


static void
bn_user(bn_t *bn, bn_user_t *u, const char *kind, unsigned n)
{
    int             len;
    char            email[64], json[72];
    hm_str_t        p[4];
    unsigned char   index[32], sealed[160];

    if (hm_uuid7(&u->id, bn->now) != HM_OK
        || hm_uuid7(&u->session, bn->now) != HM_OK)
    {
        bn_die("no random numbers", NULL);
    }

    bn_keys(bn, u);

    len = snprintf(email, sizeof(email), "%s%u-%lld@bench.local", kind, n,
                   (long long) (bn->now / HM_USEC));
    snprintf(json, sizeof(json), "\"%s\"", email);

    if (hm_blind_index(index, bn->email_key, "users", "email", &hm_nil_uuid,
                       (hm_str_t) { (size_t) len, (unsigned char *) email })
        != HM_OK)
    {
        bn_die("cannot index an email", NULL);
    }

    p[0] = (hm_str_t) { 16, u->id.b };
    p[1] = bn_seal(u, "users", "email", &u->id,
                   (hm_str_t) { (size_t) len + 2, (unsigned char *) json },
                   sealed);
    p[2] = (hm_str_t) { sizeof(index), index };
    p[3] = (hm_str_t) { 16, u->session.b };

    /* "!" is no hash: nobody logs in as one of these */

    PQclear(bn_exec(bn->pg,
        "insert into users (id, email, email_index, password_hash,"
        " email_verified_at, dek_version) values ($1::uuid, $2::bytea,"
        " $3::bytea, '!', now(), 1)", 3, p));
    PQclear(bn_exec(bn->pg,
        "insert into user_preferences (user_id) values ($1::uuid)", 1, p));
    PQclear(bn_exec(bn->pg,
        "insert into consents (id, user_id, purpose, granted)"
        " values (gen_random_uuid(), $1::uuid, 'data_processing', true)",
        1, p));

    p[1] = p[3];

    PQclear(bn_exec(bn->pg,
        "insert into sessions (id, user_id, role, fingerprint, expires_at,"
        " dek_version) values ($2::uuid, $1::uuid, 'patient', false,"
        " now() + interval '7 days', 1)", 2, p));
}


static FILE *
bn_file(bn_t *bn, const char *name, const char *mode)
{
    char   path[4096];
    FILE  *f;

    snprintf(path, sizeof(path), "%s/%s", bn->dir, name);
    f = fopen(path, mode);

    if (f == NULL) {
        bn_die("cannot open", path);
    }

    return f;
}


static void
bn_write_users(bn_t *bn, const char *name, const bn_user_t *user, unsigned n)
{
    FILE         *f;
    char          id[HM_UUID_TEXT], session[HM_UUID_TEXT];
    unsigned      i;
    hm_str_t      token;
    hm_claims_t   c;

    f = bn_file(bn, name, "w");

    for (i = 0; i < n; i++) {
        memset(&c, 0, sizeof(c));
        c.sub = user[i].id;
        c.sid = user[i].session;
        c.role = HM_ROLE_PATIENT;
        c.iat = c.nbf = c.auth_time = bn->now / HM_USEC;
        c.exp = c.iat + 86400;
        c.amr = HM_AMR_PWD;
        memcpy(c.typ, "access", 7);

        if (hm_uuid7(&c.jti, bn->now) != HM_OK
            || hm_jwt_sign(&bn->jwt, &hm_heap, &c, &token) != HM_OK)
        {
            bn_die("cannot sign a token", NULL);
        }

        hm_uuid_format(&user[i].id, id);
        hm_uuid_format(&user[i].session, session);
        fprintf(f, "%u\t%.*s\t%.*s\t%u\t%.*s\n", i + 1, HM_UUID_TEXT, id,
                HM_UUID_TEXT, session, user[i].leaf, (int) token.len,
                token.data);
    }

    fclose(f);
}


static bn_user_t *
bn_read_users(bn_t *bn, const char *name, unsigned *n)
{
    FILE       *f;
    char        id[64], session[64];
    unsigned    leaf, room;
    bn_user_t  *user;

    f = bn_file(bn, name, "r");
    room = 0;
    user = NULL;
    *n = 0;

    while (fscanf(f, "%*u %63s %63s %u %*s", id, session, &leaf) == 3) {
        if (*n == room) {
            room = room != 0 ? room * 2 : 512;
            user = realloc(user, room * sizeof(bn_user_t));
            if (user == NULL) {
                bn_die("no memory", NULL);
            }
        }

        memset(&user[*n], 0, sizeof(bn_user_t));
        user[*n].leaf = leaf;

        if (hm_uuid_parse(&user[*n].id, (hm_str_t) { strlen(id),
                          (unsigned char *) id }) != HM_OK
            || hm_uuid_parse(&user[*n].session, (hm_str_t) {
                             strlen(session), (unsigned char *) session })
               != HM_OK)
        {
            bn_die("is damaged", name);
        }

        (*n)++;
    }

    fclose(f);

    return user;
}


/* Readings */


static void
bn_reading(hm_reading_t *r, unsigned type, uint32_t noise)
{
    double  x;

    x = (double) (noise % 1000) / 1000;

    r->object = type == 1;
    r->second = 70 + (double) (noise / 1000 % 15);

    switch (type) {
    case 0:  r->number = 60 + floor(x * 40);            break;
    case 1:  r->number = 110 + floor(x * 35);           break;
    case 2:  r->number = 3000 + floor(x * 9000);        break;
    case 3:  r->number = 70 + floor(x * 150) / 10;      break;
    case 4:  r->number = 85 + floor(x * 50);            break;
    case 5:  r->number = 5 + floor(x * 16) / 4;         break;
    case 6:  r->number = 94 + floor(x * 6);             break;
    default: r->number = 36 + floor(x * 15) / 10;       break;
    }
}


static void
bn_column(hm_buf_t *b, const void *data, size_t len)
{
    unsigned char  n[4];

    hm_put_u32(n, (uint32_t) len);
    hm_buf_add(b, n, 4);
    hm_buf_add(b, data, len);
}


static void
bn_column_text(hm_buf_t *b, const char *text)
{
    bn_column(b, text, strlen(text));
}


static void
bn_column_time(hm_buf_t *b, hm_usec_t t)
{
    unsigned char  v[8];

    hm_put_time(v, t);
    bn_column(b, v, 8);
}


/*
 * One row in COPY's binary form; its id is returned.  A reading received when
 * it was measured has a note; one of a wearable's upload has none.
 */
static hm_uuid_t
bn_row(hm_buf_t *b, const bn_user_t *u, unsigned type, hm_usec_t at,
    hm_usec_t received, const char *source, uint32_t noise)
{
    char                json[64];
    size_t              len;
    hm_str_t            s;
    hm_uuid_t           id;
    hm_reading_t        r;
    unsigned char       head[2], one[4], dedup[32], sealed[160];
    const hm_metric_t  *m;

    s = (hm_str_t) { strlen(bn_types[type]),
                     (unsigned char *) bn_types[type] };
    m = hm_metric_find(s);

    if (m == NULL || hm_uuid7(&id, received) != HM_OK) {
        bn_die("no metric", bn_types[type]);
    }

    bn_reading(&r, type, noise);

    if (r.object) {
        len = (size_t) snprintf(json, sizeof(json),
                                "{\"systolic\":%g,\"diastolic\":%g}",
                                r.number, r.second);
    } else {
        len = hm_real_format(r.number, json);
    }

    if (hm_dedup_key(dedup, u->index_key, &u->id, s, at, &r, hm_null_str,
                     (hm_str_t) { strlen(source), (unsigned char *) source },
                     hm_null_str)
        != HM_OK)
    {
        bn_die("no dedup key", NULL);
    }

    hm_put_u16(head, BN_NCOLUMNS);
    hm_put_u32(one, 1);

    hm_buf_add(b, head, 2);
    bn_column(b, id.b, 16);
    bn_column(b, u->id.b, 16);
    bn_column(b, one, 4);
    bn_column_time(b, received);
    bn_column_time(b, received);
    bn_column_text(b, m->name);

    s = bn_seal(u, "health_data", "value", &id,
                (hm_str_t) { len, (unsigned char *) json }, sealed);
    bn_column(b, s.data, s.len);

    bn_column_text(b, m->unit);
    bn_column_time(b, at);

    if (received == at) {
        s = bn_seal(u, "health_data", "notes", &id,
                    HM_STR("\"" BN_NOTE "\""), sealed);
        bn_column(b, s.data, s.len);

    } else {
        hm_buf_add(b, "\377\377\377\377", 4);       /* NULL */
    }

    bn_column_text(b, source);
    bn_column(b, dedup, 32);

    return id;
}


static void
bn_copy_begin(PGconn *pg, hm_buf_t *b, const char *table)
{
    char       sql[256];
    PGresult  *res;

    snprintf(sql, sizeof(sql), "copy %s (" BN_COLUMNS
             ") from stdin (format binary)", table);
    res = PQexec(pg, sql);

    if (PQresultStatus(res) != PGRES_COPY_IN) {
        bn_die("copy", PQerrorMessage(pg));
    }

    PQclear(res);
    hm_buf_add(b, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
}


static void
bn_copy_data(PGconn *pg, hm_buf_t *b)
{
    if (b->failed
        || PQputCopyData(pg, (char *) b->start, (int) hm_buf_len(b)) != 1)
    {
        bn_die("copy", PQerrorMessage(pg));
    }

    b->pos = b->start;
}


static void
bn_copy_end(PGconn *pg)
{
    PGresult  *res;

    if (PQputCopyEnd(pg, NULL) != 1) {
        bn_die("copy", PQerrorMessage(pg));
    }

    while ((res = PQgetResult(pg)) != NULL) {
        if (PQresultStatus(res) != PGRES_COMMAND_OK) {
            bn_die("copy", PQerrorMessage(pg));
        }

        PQclear(res);
    }
}


static void
bn_rows(bn_t *bn, bn_user_t *user, unsigned n, unsigned rows)
{
    FILE       *f;
    char        text[HM_UUID_TEXT];
    unsigned    i, k, every;
    hm_buf_t    b;
    hm_uuid_t   id;
    hm_usec_t   first, at, step;
    uint32_t   *noise;

    f = bn_file(bn, "ids", "w");
    hm_buf_init(&b, &hm_heap, BN_CHUNK + 4096);
    noise = malloc(n * sizeof(uint32_t));

    /* ten days short of seven years: retention counts from receipt */
    step = (BN_YEARS * 365 - 10) * BN_DAY / rows;
    first = bn->now - step * rows;
    every = rows > BN_IDS ? rows / BN_IDS : 1;

    bn_copy_begin(bn->pg, &b, "health_data");

    for (k = 0; k < rows; k++) {
        if (noise == NULL || hm_random(noise, n * sizeof(uint32_t)) != HM_OK)
        {
            bn_die("no random numbers", NULL);
        }

        for (i = 0; i < n; i++) {
            at = first + step * k + step / n * i;
            at -= at % 1000;
            id = bn_row(&b, &user[i], (k + i) % 8, at, at, "manual",
                        noise[i]);

            if ((k + i) % every == 0) {
                hm_uuid_format(&id, text);
                fprintf(f, "%u\t%.*s\n", i + 1, HM_UUID_TEXT, text);
            }

            if (hm_buf_len(&b) > BN_CHUNK) {
                bn_copy_data(bn->pg, &b);
            }
        }
    }

    hm_buf_add(&b, "\377\377", 2);
    bn_copy_data(bn->pg, &b);
    bn_copy_end(bn->pg);
    fclose(f);
    free(noise);
}


static int
bn_make(bn_t *bn, unsigned n, unsigned rows)
{
    unsigned    i;
    bn_user_t  *user;

    user = calloc(2 * n, sizeof(bn_user_t));
    if (user == NULL) {
        bn_die("no memory", NULL);
    }

    PQclear(bn_query(bn->pg, "begin", 0, NULL, NULL, NULL));

    for (i = 0; i < 2 * n; i++) {
        bn_user(bn, &user[i], i < n ? "bench" : "floor", i);
    }

    bn_rows(bn, user, n, rows);
    bn_write_users(bn, "users", user, n);
    bn_write_users(bn, "floor", user + n, n);

    PQclear(bn_query(bn->pg, "commit", 0, NULL, NULL, NULL));

    return 0;
}


static int
bn_tokens(bn_t *bn)
{
    unsigned    n;
    bn_user_t  *user;

    user = bn_read_users(bn, "users", &n);
    bn_write_users(bn, "users", user, n);

    user = bn_read_users(bn, "floor", &n);
    bn_write_users(bn, "floor", user, n);

    return 0;
}


/* The floor of ingest */


static void
bn_load_keys(bn_t *bn, bn_user_t *u)
{
    PGresult  *res;
    hm_str_t   p;

    p = (hm_str_t) { 16, u->id.b };
    res = bn_exec(bn->pg,
        "select k.wrapped_dek, i.wrapped_key from user_keys k"
        " join user_index_keys i using (user_id) where user_id = $1::uuid"
        " and k.state = 'active'", 1, &p);

    if (PQntuples(res) != 1
        || hm_kek_unwrap(bn->kek, u->dek, "dek", 1, &u->id,
                         hm_row_str(res, 0, 0)) != HM_OK
        || hm_kek_unwrap(bn->kek, u->index_key, "index", 1, &u->id,
                         hm_row_str(res, 0, 1)) != HM_OK)
    {
        bn_die("keys of a floor user do not open", NULL);
    }

    PQclear(res);
}


/* A batch is one person's day and a bit: a reading each minute. */
static hm_buf_t *
bn_batches(bn_t *bn, bn_user_t *user, unsigned n, unsigned count,
    unsigned part)
{
    char        source[32];
    unsigned    i, k;
    hm_buf_t   *b;
    hm_usec_t   at;
    bn_user_t  *u;

    b = calloc(count, sizeof(hm_buf_t));
    if (b == NULL) {
        bn_die("no memory", NULL);
    }

    for (k = 0; k < count; k++) {
        u = &user[(k * 7 + part * 3) % n];
        snprintf(source, sizeof(source), "f%lld-%u-%u",
                 (long long) (bn->now / HM_USEC % 1000000), part, k);
        hm_buf_init(&b[k], &hm_heap, BN_BATCH * 400);
        hm_buf_add(&b[k], "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);

        for (i = 0; i < BN_BATCH; i++) {
            at = bn->now - (BN_BATCH - i) * 60 * HM_USEC;
            at -= at % 1000;
            (void) bn_row(&b[k], u, 0, at, bn->now, source, i * 37 + k);
        }

        hm_buf_add(&b[k], "\377\377", 2);
    }

    return b;
}


static double
bn_clock(void)
{
    struct timespec  t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}


/* Says when it is ready, waits for a line, copies until the time is up. */
static void
bn_copy_one(bn_t *bn, bn_user_t *user, unsigned n, unsigned part,
    double seconds, int ready, int go, int out)
{
    char        leaf[64], c, line[64];
    double      start, end;
    unsigned    k, count;
    PGconn     *pg;
    hm_buf_t   *b, none;

    count = (unsigned) (seconds * 400) + 1;
    b = bn_batches(bn, user, n, count, part);
    pg = bn_connect();
    hm_buf_init(&none, &hm_heap, 64);

    if (write(ready, "r", 1) != 1 || read(go, &c, 1) != 1) {
        bn_die("pipe", NULL);
    }

    start = bn_clock();

    for (k = 0; k < count && bn_clock() - start < seconds; k++) {
        snprintf(leaf, sizeof(leaf), "health_data_p%u",
                 user[(k * 7 + part * 3) % n].leaf);
        bn_copy_begin(pg, &none, leaf);
        none.pos = none.start;
        bn_copy_data(pg, &b[k]);
        bn_copy_end(pg);
    }

    end = bn_clock();
    k = (unsigned) snprintf(line, sizeof(line), "%u %.6f\n", k * BN_BATCH,
                            end - start);

    if (write(out, line, k) != (ssize_t) k) {
        bn_die("pipe", NULL);
    }

    /* keeps its backend until the caller has read its clock */

    if (read(go, &c, 1) != 1) {
        bn_die("pipe", NULL);
    }

    PQfinish(pg);
}


/*
 * Prints "ready", reads a line from standard input, prints rows and seconds
 * of each connection, reads another line, ends: the caller takes processor
 * times in between, while all processes live.
 */
static int
bn_copy(bn_t *bn, unsigned conns, double seconds)
{
    int         ready[2], go[2], out[2];
    char        c, text[256];
    ssize_t     len;
    unsigned    i, n, lines;
    bn_user_t  *user;

    user = bn_read_users(bn, "floor", &n);

    for (i = 0; i < n; i++) {
        bn_load_keys(bn, &user[i]);
    }

    if (pipe(ready) != 0 || pipe(go) != 0 || pipe(out) != 0) {
        bn_die("pipe", NULL);
    }

    for (i = 0; i < conns; i++) {
        if (fork() == 0) {
            (void) hm_crypto_init();
            bn_copy_one(bn, user, n, i, seconds, ready[1], go[0],
                        out[1]);
            _exit(0);
        }
    }

    for (i = 0; i < conns; i++) {
        if (read(ready[0], &c, 1) != 1) {
            bn_die("a copying process failed", NULL);
        }
    }

    puts("ready");
    fflush(stdout);

    if (getchar() == EOF || write(go[1], "gggggggg", conns) != (int) conns) {
        return 1;
    }

    for (lines = 0; lines < conns; /* void */ ) {
        len = read(out[0], text, sizeof(text));

        if (len <= 0) {
            bn_die("a copying process failed", NULL);
        }

        for (i = 0; i < (unsigned) len; i++) {
            lines += text[i] == '\n';
        }

        fwrite(text, 1, (size_t) len, stdout);
        fflush(stdout);
    }

    if (getchar() == EOF || write(go[1], "gggggggg", conns) != (int) conns) {
        return 1;
    }

    while (wait(NULL) > 0) { /* void */ }

    return 0;
}


int
main(int argc, char **argv)
{
    static bn_t  bn;

    umask(077);

    if (argc < 3 || hm_crypto_init() != HM_OK) {
        bn_die("make DIR USERS ROWS | tokens DIR | copy DIR N SECONDS", NULL);
    }

    bn_open(&bn, argv[2]);

    if (argc == 5 && strcmp(argv[1], "make") == 0) {
        return bn_make(&bn, (unsigned) atoi(argv[3]),
                       (unsigned) atoi(argv[4]));
    }

    if (argc == 3 && strcmp(argv[1], "tokens") == 0) {
        return bn_tokens(&bn);
    }

    if (argc == 5 && strcmp(argv[1], "copy") == 0 && atoi(argv[3]) <= 8) {
        return bn_copy(&bn, (unsigned) atoi(argv[3]), atof(argv[4]));
    }

    bn_die("make DIR USERS ROWS | tokens DIR | copy DIR N SECONDS", NULL);

    return 1;
}
