/*
 * doctor: is this installation sound?
 *
 * One line for each check: "ok" or "FAIL" with a way out.  Exit 1 when any
 * failed.  Checks look from outside, as the operator who runs them: they
 * need no password and change nothing.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli.h"
#include "http.h"


typedef struct {
    char   said[1024];                   /* what was found */
    char   out[512];                     /* the way out of a failure */
} hmc_check_t;

typedef struct {
    const char   *name;
    bool        (*run)(hmc_check_t *check);
} hmc_check_row_t;


static bool hmc_check_server(hmc_check_t *check);
static bool hmc_check_ready(hmc_check_t *check);
static bool hmc_check_kek(hmc_check_t *check);
static bool hmc_check_database(hmc_check_t *check);
static bool hmc_check_keys(hmc_check_t *check);
static bool hmc_check_redis(hmc_check_t *check);


static const hmc_check_row_t  hmc_checks[] = {
    { "server", hmc_check_server },
    { "ready", hmc_check_ready },
    { "kek", hmc_check_kek },
    { "database", hmc_check_database },
    { "keys", hmc_check_keys },
    { "redis", hmc_check_redis },
    { NULL, NULL }
};


#define hmc_said(c, ...)                                                      \
    snprintf((c)->said, sizeof((c)->said), __VA_ARGS__)
#define hmc_way_out(c, ...)                                                   \
    snprintf((c)->out, sizeof((c)->out), __VA_ARGS__)


static bool
hmc_check_get(hmc_check_t *check, const char *path)
{
    bool           good;
    const char    *base;
    hmc_http_t    *http;
    hmc_answer_t   answer;

    base = hmc_http_base();
    if (base == NULL) {
        hmc_said(check, "no address of a server");
        hmc_way_out(check, "set HEALTHMATE_URL, or HEALTHMATE_HOME to the "
                    "folder of a running stack");
        return false;
    }

    http = hmc_http_open(base);
    if (http == NULL) {
        hmc_said(check, "out of memory");
        return false;
    }

    good = hmc_http(http, "GET", path, NULL, NULL, hm_null_str, 10, &answer)
           == HM_OK;

    if (!good) {
        hmc_said(check, "%s", answer.error);
        hmc_way_out(check, "start it with deploy/up; its log is in "
                    "$HEALTHMATE_HOME");

    } else if (answer.status != 200) {
        good = false;
        hmc_said(check, "%s%s answers %ld: %.*s", base, path, answer.status,
                 (int) (answer.body.len < 600 ? answer.body.len : 600),
                 answer.body.data != NULL ? (char *) answer.body.data : "");
        hmc_way_out(check, "what is not up is named in the answer; "
                    "deploy/up starts what is missing");

    } else {
        hmc_said(check, "%s%s", base, path);
    }

    hmc_http_close(http);

    return good;
}


static bool
hmc_check_server(hmc_check_t *check)
{
    return hmc_check_get(check, "/health");
}


static bool
hmc_check_ready(hmc_check_t *check)
{
    return hmc_check_get(check, "/ready");
}


/*
 * A data folder is known by what lies in it, so that this holds whatever the
 * layout: a KEK beside the rows it guards would be in every copy of them.
 */
static bool
hmc_kek_in_data(const char *path, char *folder, size_t size)
{
    char         *real, *slash, probe[4352];
    bool          found;
    size_t        i;
    struct stat   st;

    static const char *const  marks[] = {
        "PG_VERSION", "appendonlydir", "dump.rdb", NULL
    };

    real = realpath(path, NULL);
    found = false;

    while (real != NULL && !found && (slash = strrchr(real, '/')) != NULL
           && slash != real)
    {
        *slash = '\0';

        for (i = 0; marks[i] != NULL; i++) {
            snprintf(probe, sizeof(probe), "%s/%s", real, marks[i]);

            if (stat(probe, &st) == 0) {
                snprintf(folder, size, "%s", real);
                found = true;
                break;
            }
        }
    }

    free(real);

    return found;
}


static bool
hmc_check_kek(hmc_check_t *check)
{
    char          reason[256], folder[512];
    hm_kek_t     *kek;
    const char   *path;
    struct stat   st;

    path = hmc_conf("HEALTHMATE_KEK_FILE");
    if (path == NULL) {
        hmc_said(check, "HEALTHMATE_KEK_FILE is not set");
        hmc_way_out(check, "name the file with the key-encryption keys");
        return false;
    }

    if (stat(path, &st) != 0) {
        hmc_said(check, "%s: %s", path, strerror(errno));
        hmc_way_out(check, "run this as an operator who may read it, or "
                    "restore it from where the keys are kept");
        return false;
    }

    if (st.st_mode & (S_IRWXO | S_IWGRP | S_IXGRP)) {
        hmc_said(check, "%s has mode %03o", path,
                 (unsigned) (st.st_mode & 0777));
        hmc_way_out(check, "chmod 0440 it; if others could read it, turn the "
                    "key");
        return false;
    }

    if (hmc_kek_in_data(path, folder, sizeof(folder))) {
        hmc_said(check, "%s lies in the data folder %.400s", path, folder);
        hmc_way_out(check, "move it out and turn the key: every backup of "
                    "that folder holds it");
        return false;
    }

    kek = hm_kek_load(path, reason);
    if (kek == NULL) {
        hmc_said(check, "%s: %s", path, reason);
        hmc_way_out(check, "a line is \"<version> <64 hex digits>\"");
        return false;
    }

    hmc_said(check, "%s, version %u, mode %03o", path,
             (unsigned) hm_kek_current(kek), (unsigned) (st.st_mode & 0777));
    hm_kek_free(kek);

    return true;
}


static bool
hmc_check_database(hmc_check_t *check)
{
    bool       good;
    hmc_db_t   db;
    PGresult  *result;

    result = NULL;

    if (hmc_db_open(&db, false) == HM_OK) {
        result = hmc_db_query(&db,
            "select rolname, rolsuper or rolbypassrls,"
            " current_setting('server_version'),"
            " current_setting('data_checksums') from pg_roles"
            " where rolname = current_user", NULL);
    }

    good = result != NULL && PQntuples(result) == 1;

    if (!good) {
        hmc_said(check, "%s", db.error);
        hmc_way_out(check, "deploy/up starts it; hm_cli comes in by peer "
                    "(pg_ident.conf), so run this as root or as who ran "
                    "deploy/up");

    } else if (PQgetvalue(result, 0, 1)[0] == 't') {
        good = false;
        hmc_said(check, "role %s passes row-level security",
                 PQgetvalue(result, 0, 0));
        hmc_way_out(check, "alter role %s nosuperuser nobypassrls",
                    PQgetvalue(result, 0, 0));

    } else {
        hmc_said(check, "role %s, PostgreSQL %s, page checksums %s",
                 PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 2),
                 PQgetvalue(result, 0, 3));
    }

    PQclear(result);
    hmc_db_close(&db);

    return good;
}


static bool
hmc_check_keys(hmc_check_t *check)
{
    hm_rc_t     rc;
    hmc_db_t    db;
    hmc_keys_t  keys;

    rc = hmc_db_open(&db, true);

    if (rc == HM_OK) {
        rc = hmc_keys_load(&db, &hm_nil_uuid, &keys);
    }

    if (rc == HM_OK) {
        hmc_said(check, "the system's key, version %u, opens",
                 (unsigned) keys.version);
        hm_wipe(&keys, sizeof(keys));

    } else if (rc == HM_DECLINED) {
        hmc_said(check, "there is no system key");
        hmc_way_out(check, "run healthmate keys init");

    } else {
        hmc_said(check, "%s", db.error);
        hmc_way_out(check, "the KEK file must be the one the database was "
                    "filled under");
    }

    hmc_db_close(&db);

    return rc == HM_OK;
}


typedef struct {
    char   path[512];
    char   user[128];                    /* empty: the default user */
    char   password[512];
    char   file[512];                    /* of the password */
} hmc_redis_t;


static void
hmc_redis_part(char *to, size_t size, const char *from, const char *end)
{
    snprintf(to, size, "%.*s", (int) (end - from), from);
}


/*
 * REDIS_URL: unix://user:password@/path, or
 * unix:///path?user=U&password_file=F
 */
static bool
hmc_redis_url(const char *url, hmc_redis_t *r)
{
    const char  *p, *q, *end;

    memset(r, 0, sizeof(hmc_redis_t));

    if (strncmp(url, "unix://", 7) != 0) {
        return false;
    }

    p = url + 7;
    end = strchr(p, '@');

    if (*p != '/' && end != NULL) {
        q = memchr(p, ':', (size_t) (end - p));

        hmc_redis_part(r->user, sizeof(r->user), p, q != NULL ? q : end);

        if (q != NULL) {
            hmc_redis_part(r->password, sizeof(r->password), q + 1, end);
        }

        p = end + 1;
    }

    end = p + strcspn(p, "?");
    hmc_redis_part(r->path, sizeof(r->path), p, end);

    for (q = end; *q == '?' || *q == '&'; q = end) {
        q++;
        end = q + strcspn(q, "&");

        if (strncmp(q, "user=", 5) == 0) {
            hmc_redis_part(r->user, sizeof(r->user), q + 5, end);

        } else if (strncmp(q, "password_file=", 14) == 0) {
            hmc_redis_part(r->file, sizeof(r->file), q + 14, end);
        }
    }

    return r->path[0] == '/';
}


static int
hmc_redis_connect(const char *path)
{
    int                 fd;
    struct timeval      patience;
    struct sockaddr_un  address;

    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }

    memcpy(address.sun_path, path, strlen(path) + 1);

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }

    patience.tv_sec = 5;
    patience.tv_usec = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));

    if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }

    return fd;
}


/* The first line of the reply to one command, or NULL. */
static const char *
hmc_redis_say(int fd, const char *const *words, char *reply, size_t size)
{
    char     text[2048];
    int      i, n;
    size_t   len, got;
    ssize_t  r;

    for (n = 0; words[n] != NULL; n++) { /* void */ }

    len = (size_t) snprintf(text, sizeof(text), "*%d\r\n", n);

    for (i = 0; i < n && len < sizeof(text); i++) {
        len += (size_t) snprintf(text + len, sizeof(text) - len,
                                 "$%zu\r\n%s\r\n", strlen(words[i]),
                                 words[i]);
    }

    if (len >= sizeof(text) || write(fd, text, len) != (ssize_t) len) {
        return NULL;
    }

    for (got = 0; got + 1 < size; got += (size_t) r) {
        r = read(fd, reply + got, size - 1 - got);

        if (r <= 0) {
            return NULL;
        }

        reply[got + (size_t) r] = '\0';

        if (strstr(reply, "\r\n") != NULL) {
            *strstr(reply, "\r\n") = '\0';
            return reply;
        }
    }

    return NULL;
}


static bool
hmc_redis_password(hmc_redis_t *r)
{
    FILE  *f;

    if (r->file[0] == '\0') {
        return true;
    }

    f = fopen(r->file, "r");
    if (f == NULL) {
        return false;
    }

    if (fgets(r->password, sizeof(r->password), f) == NULL) {
        r->password[0] = '\0';
    }

    r->password[strcspn(r->password, "\r\n")] = '\0';
    fclose(f);

    return true;
}


/* What Redis says in the end; NULL: nothing. */
static const char *
hmc_redis_talk(int fd, hmc_redis_t *r, char *reply, size_t size)
{
    const char  *said;
    const char  *ping[] = { "PING", NULL };
    const char  *auth[] = { "AUTH", r->user, r->password, NULL };

    if (r->user[0] != '\0') {

        if (!hmc_redis_password(r)) {
            return "-the password file cannot be read";
        }

        said = hmc_redis_say(fd, auth, reply, size);

        if (said == NULL || said[0] == '-') {
            return said;
        }
    }

    return hmc_redis_say(fd, ping, reply, size);
}


static bool
hmc_check_redis(hmc_check_t *check)
{
    int           fd;
    bool          good;
    char          reply[512];
    const char   *url, *said;
    hmc_redis_t   r;

    url = hmc_conf("REDIS_URL");

    if (url == NULL || !hmc_redis_url(url, &r)) {
        hmc_said(check, "REDIS_URL is %s", url == NULL ? "not set"
                                                       : "no unix:// address");
        hmc_way_out(check, "set it, or HEALTHMATE_HOME to a running stack");
        return false;
    }

    fd = hmc_redis_connect(r.path);
    if (fd < 0) {
        hmc_said(check, "%s: %s", r.path, strerror(errno));
        hmc_way_out(check, "deploy/up starts it");
        return false;
    }

    said = hmc_redis_talk(fd, &r, reply, sizeof(reply));
    hm_wipe(r.password, sizeof(r.password));
    close(fd);

    /* NOPERM comes from a server that knows us: PING is not in our ACL */
    good = said != NULL && (said[0] == '+' || strncmp(said, "-NOPERM", 7) == 0);

    if (good) {
        hmc_said(check, "%s as %s", r.path,
                 r.user[0] != '\0' ? r.user : "default");

    } else {
        hmc_said(check, "%s: %s", r.path, said != NULL ? said : "no reply");
        hmc_way_out(check, "the user and the password of REDIS_URL must be "
                    "those of Redis's ACL");
    }

    return good;
}


static void
hmc_doctor_line(const char *name, bool good, const hmc_check_t *check)
{
    if (good) {
        printf("ok    %-9s %s\n", name, check->said);
        return;
    }

    printf("FAIL  %-9s %s\n", name, check->said);

    if (check->out[0] != '\0') {
        printf("      %-9s way out: %s\n", "", check->out);
    }
}


int
hmc_doctor(int argc, char **argv)
{
    bool                    json, good;
    size_t                  failed;
    hm_buf_t                b;
    hmc_check_t             check;
    const hmc_check_row_t  *row;

    const hmc_option_t  options[] = {
        { "--json", NULL, &json },
        { NULL, NULL, NULL }
    };

    json = false;

    if (hmc_options(argc, argv, options, NULL, 0) != HMC_DONE) {
        return HMC_USAGE;
    }

    failed = 0;
    hm_buf_init(&b, &hm_heap, 1024);
    hm_buf_lit(&b, "{\"checks\":[");

    for (row = hmc_checks; row->name != NULL; row++) {
        memset(&check, 0, sizeof(check));
        good = row->run(&check);
        failed += !good;

        if (!json) {
            hmc_doctor_line(row->name, good, &check);
            fflush(stdout);
            continue;
        }

        hm_buf_printf(&b, "%s{\"name\":\"%s\",\"ok\":%s,\"found\":",
                      row == hmc_checks ? "" : ",", row->name,
                      good ? "true" : "false");
        hm_json_text(&b, hmc_str(check.said));
        hm_buf_lit(&b, ",\"way_out\":");
        hm_json_text_or_null(&b, good ? hm_null_str : hmc_str(check.out));
        hm_buf_lit(&b, "}");
    }

    if (json) {
        hm_buf_printf(&b, "],\"failed\":%zu}", failed);
        printf("%.*s\n", (int) hm_buf_len(&b), b.start);
    }

    return failed == 0 ? HMC_DONE
                       : hmc_fail("%zu of the checks failed", failed);
}
