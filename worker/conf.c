/*
 * Configuration of the worker: environment variables only, read once by the
 * parent before it forks, so that every child and `--check` see the same.
 *
 *     HEALTHMATE_DATABASE | DATABASE_URL   conninfo, as hm_worker
 *     REDIS_URL            unix:///path?user=u&password_file=p; may be unset:
 *                          then the children poll PostgreSQL
 *     HEALTHMATE_KEK_FILE  file of the KEKs
 *     HEALTHMATE_WORKERS   number of children, 1..64, default 2
 *     HEALTHMATE_ENVIRONMENT  local | production
 *     and those of mail: mail_conf.c
 *
 * DESIGN.  What a production must not have (rules: local is not production)
 * is a table of refusals.  Each has a variable, a test and a sentence; all
 * that apply are printed, one line each, so that an operator fixes them in
 * one go.  A bind address other than loopback counts as production.
 */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hmw.h"


typedef struct {
    const char    *variable;
    bool         (*bad)(const char *value);
    const char    *sentence;
} hmw_refusal_t;


static hm_rc_t hmw_conf_redis(hmw_conf_t *conf, char reason[256]);
static bool hmw_public_bind(void);
static bool hmw_kek_in_data(const hmw_conf_t *conf);
static bool hmw_is_off(const char *value);
static bool hmw_is_on(const char *value);
static bool hmw_not_on(const char *value);
static bool hmw_is_bounded(const char *value);
static bool hmw_is_port(const char *value);
static bool hmw_is_open(const char *value);
static bool hmw_is_outbox(const char *value);


static const hmw_refusal_t  hmw_refusals[] = {

    { "HEALTHMATE_DEMO", hmw_is_on,
      "demo accounts exist (HEALTHMATE_DEMO)" },

    { "HEALTHMATE_LIMITS", hmw_is_off,
      "rate limits are off (HEALTHMATE_LIMITS)" },

    { "HEALTHMATE_FINGERPRINT", hmw_not_on,
      "token fingerprints are not on (HEALTHMATE_FINGERPRINT)" },

    { "HEALTHMATE_AUDIT", hmw_is_bounded,
      "the audit may lose records (HEALTHMATE_AUDIT=bounded)" },

    { "HEALTHMATE_HTTP_PORT", hmw_is_port,
      "a plain HTTP listener is configured (HEALTHMATE_HTTP_PORT)" },

    { "HEALTHMATE_REGISTER", hmw_is_open,
      "anybody may register without a verified address "
      "(HEALTHMATE_REGISTER=open)" },

    { "HEALTHMATE_MAIL", hmw_is_outbox,
      "mail goes to a local outbox (HEALTHMATE_MAIL=smtp)" },

    { NULL, NULL, NULL }
};


hm_rc_t
hmw_conf_read(hmw_conf_t *conf, char reason[256])
{
    long         n;
    char        *end;
    const char  *value;

    memset(conf, 0, sizeof(hmw_conf_t));
    conf->processes = 2;

    conf->database = getenv("HEALTHMATE_DATABASE");
    if (conf->database == NULL || *conf->database == '\0') {
        conf->database = getenv("DATABASE_URL");
    }

    if (conf->database == NULL || *conf->database == '\0') {
        snprintf(reason, 256, "HEALTHMATE_DATABASE (or DATABASE_URL) is not "
                 "set: nowhere to take jobs from");
        return HM_DECLINED;
    }

    conf->kek_file = getenv("HEALTHMATE_KEK_FILE");
    if (conf->kek_file == NULL || *conf->kek_file == '\0') {
        snprintf(reason, 256, "HEALTHMATE_KEK_FILE is not set: no sealed "
                 "value could be opened");
        return HM_DECLINED;
    }

    value = getenv("HEALTHMATE_WORKERS");
    if (value != NULL && *value != '\0') {
        n = strtol(value, &end, 10);

        if (*end != '\0' || n < 1 || n > HMW_PROCESSES_MAX) {
            snprintf(reason, 256, "HEALTHMATE_WORKERS must be a number from "
                     "1 to %d", HMW_PROCESSES_MAX);
            return HM_DECLINED;
        }

        conf->processes = (unsigned) n;
    }

    value = getenv("HEALTHMATE_ENVIRONMENT");
    if (value != NULL && *value != '\0' && strcmp(value, "local") != 0
        && strcmp(value, "production") != 0)
    {
        snprintf(reason, 256,
                 "HEALTHMATE_ENVIRONMENT must be local or production");
        return HM_DECLINED;
    }

    conf->production = (value != NULL && strcmp(value, "production") == 0)
                       || hmw_public_bind();

    if (hmw_conf_redis(conf, reason) != HM_OK) {
        return HM_DECLINED;
    }

    return hmw_mail_conf_read(&conf->mail, reason);
}


unsigned
hmw_conf_refusals(const hmw_conf_t *conf)
{
    unsigned              n;
    const hmw_refusal_t  *r;

    if (!conf->production) {
        return 0;
    }

    n = 0;

    for (r = hmw_refusals; r->variable != NULL; r++) {
        if (r->bad(getenv(r->variable))) {
            fprintf(stderr, "healthmate-worker: refused in production: %s\n",
                    r->sentence);
            n++;
        }
    }

    if (hmw_kek_in_data(conf)) {
        fprintf(stderr, "healthmate-worker: refused in production: the KEK "
                "file lies in the data folder (HEALTHMATE_KEK_FILE)\n");
        n++;
    }

    return n;
}


static hm_rc_t
hmw_conf_redis(hmw_conf_t *conf, char reason[256])
{
    const char       *value;
    hmw_redis_url_t   url;

    value = getenv("REDIS_URL");
    if (value == NULL || *value == '\0') {
        return HM_OK;
    }

    /* The text is not repeated: people put passwords into such addresses. */

    if (hmw_redis_url(&url, value) != HM_OK) {
        snprintf(reason, 256, "REDIS_URL must be unix:///path"
                 "[?user=NAME&password_file=/path]");
        return HM_DECLINED;
    }

    conf->redis = true;
    memcpy(conf->redis_path, url.path, sizeof(url.path));
    memcpy(conf->redis_user, url.user, sizeof(url.user));
    memcpy(conf->redis_password_file, url.password_file,
           sizeof(url.password_file));

    return HM_OK;
}


static bool
hmw_public_bind(void)
{
    const char  *bind = getenv("HEALTHMATE_BIND");

    return bind != NULL && *bind != '\0' && strncmp(bind, "127.", 4) != 0
           && strcmp(bind, "localhost") != 0 && strcmp(bind, "::1") != 0
           && strcmp(bind, "[::1]") != 0;
}


static bool
hmw_kek_in_data(const hmw_conf_t *conf)
{
    bool         in;
    char        *home, *kek;
    size_t       n;
    const char  *value;

    value = getenv("HEALTHMATE_HOME");
    if (value == NULL || *value == '\0') {
        return false;
    }

    /* Links resolved: HOME may be one, and so may the file. */

    home = realpath(value, NULL);
    kek = realpath(conf->kek_file, NULL);
    in = false;

    if (home != NULL && kek != NULL) {
        n = strlen(home);
        in = strncmp(kek, home, n) == 0 && kek[n] == '/';
    }

    free(home);
    free(kek);

    return in;
}


static bool
hmw_is_off(const char *value)
{
    return value != NULL && strcmp(value, "off") == 0;
}


static bool
hmw_is_on(const char *value)
{
    return value != NULL && *value != '\0' && strcmp(value, "off") != 0
           && strcmp(value, "0") != 0;
}


static bool
hmw_not_on(const char *value)
{
    return value != NULL && *value != '\0' && strcmp(value, "on") != 0;
}


static bool
hmw_is_bounded(const char *value)
{
    return value != NULL && strcmp(value, "bounded") == 0;
}


static bool
hmw_is_open(const char *value)
{
    return value != NULL && strcmp(value, "open") == 0;
}


static bool
hmw_is_port(const char *value)
{
    return value != NULL && *value != '\0' && strcmp(value, "0") != 0
           && strcmp(value, "off") != 0;
}


static bool
hmw_is_outbox(const char *value)
{
    return value == NULL || *value == '\0'
           || strncmp(value, "outbox", 6) == 0;
}
