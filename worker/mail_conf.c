/*
 * Configuration of mail: environment variables, read by the parent.
 *
 *     HEALTHMATE_MAIL        outbox (default) | outbox:/folder | smtp
 *     HEALTHMATE_PUBLIC_URL  what mailed links begin with
 *     SMTP_HOST, SMTP_PORT   587 with starttls and off, 465 with tls
 *     SMTP_TLS               starttls (default) | tls | off
 *     SMTP_USER              with it: authenticate
 *     SMTP_PASSWORD_FILE | SMTP_PASSWORD
 *     SMTP_FROM              the sender's bare address
 *     SMTP_CA_FILE           other roots than the system's
 *
 * DESIGN.  A mail carries a key to an account, so there is no way to send it
 * in the clear to another machine: SMTP_TLS=off is taken for loopback only,
 * and with starttls a server that does not offer it gets nothing.  In the
 * same spirit a link is https unless it is loopback.
 *
 * A password that came in the environment is moved to locked memory and
 * taken out of it; one in a file is read again for each connection, so that
 * it can be changed under a running worker.  A file that others may read is
 * refused.
 *
 * Without HEALTHMATE_MAIL and a HEALTHMATE_HOME to put the folder in, mail
 * is off: jobs wait and say so.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hm_crypto.h"
#include "hm_keyring.h"
#include "hmw_mail.h"


static hm_rc_t hmw_mail_fault(char reason[256], const char *text);
static hm_rc_t hmw_mail_take(char *to, size_t size, const char *name,
    char reason[256]);
static hm_rc_t hmw_mail_outbox(hmw_mail_conf_t *conf, const char *value,
    char reason[256]);
static hm_rc_t hmw_mail_smtp(hmw_mail_conf_t *conf, char reason[256]);
static hm_rc_t hmw_mail_tls(hmw_mail_conf_t *conf, char reason[256]);
static hm_rc_t hmw_mail_password(hmw_mail_conf_t *conf, char reason[256]);
static hm_rc_t hmw_mail_url(hmw_mail_conf_t *conf, char reason[256]);
static bool hmw_mail_name(const char *s);
static bool hmw_mail_loopback(const char *host, size_t len);


hm_rc_t
hmw_mail_conf_read(hmw_mail_conf_t *conf, char reason[256])
{
    hm_rc_t      rc;
    const char  *value;

    memset(conf, 0, sizeof(hmw_mail_conf_t));
    value = getenv("HEALTHMATE_MAIL");

    if (value == NULL || *value == '\0') {
        value = "outbox";
    }

    if (strcmp(value, "smtp") == 0) {
        rc = hmw_mail_smtp(conf, reason);

    } else if (strncmp(value, "outbox", 6) == 0
               && (value[6] == '\0' || value[6] == ':'))
    {
        rc = hmw_mail_outbox(conf, value + 6, reason);

    } else {
        rc = hmw_mail_fault(reason, "HEALTHMATE_MAIL must be outbox, "
                            "outbox:/folder or smtp (server: SMTP_HOST)");
    }

    return rc == HM_OK ? hmw_mail_url(conf, reason) : rc;
}


/* Values are not repeated: an address may hold a password. */

static hm_rc_t
hmw_mail_fault(char reason[256], const char *text)
{
    snprintf(reason, 256, "%s", text);

    return HM_DECLINED;
}


static hm_rc_t
hmw_mail_take(char *to, size_t size, const char *name, char reason[256])
{
    size_t       len;
    const char  *value;

    value = getenv(name);
    len = value == NULL ? 0 : strlen(value);

    if (len >= size) {
        snprintf(reason, 256, "%s is too long", name);
        return HM_DECLINED;
    }

    if (len > 0) {
        memcpy(to, value, len);
    }

    to[len] = '\0';

    return HM_OK;
}


static hm_rc_t
hmw_mail_outbox(hmw_mail_conf_t *conf, const char *value, char reason[256])
{
    int           n;
    const char   *home;
    struct stat   st;

    if (*value == ':') {
        n = snprintf(conf->outbox, sizeof(conf->outbox), "%s", value + 1);

    } else {
        home = getenv("HEALTHMATE_HOME");

        if (home == NULL || *home == '\0') {
            return HM_OK;                /* off */
        }

        n = snprintf(conf->outbox, sizeof(conf->outbox), "%s/outbox", home);
    }

    if (n < 0 || (size_t) n >= sizeof(conf->outbox) - 48
        || conf->outbox[0] != '/')
    {
        return hmw_mail_fault(reason, "the outbox folder (HEALTHMATE_MAIL) "
                              "must be an absolute path below 200 bytes");
    }

    if (mkdir(conf->outbox, 0700) == -1 && access(conf->outbox, F_OK) == -1) {
        return hmw_mail_fault(reason, "the outbox folder (HEALTHMATE_MAIL) "
                              "cannot be made: is the folder above it "
                              "there, and ours to write?");
    }

    if (lstat(conf->outbox, &st) == -1 || !S_ISDIR(st.st_mode)
        || (st.st_mode & 077) != 0
        || (st.st_uid != geteuid() && geteuid() != 0)
        || access(conf->outbox, W_OK | X_OK) == -1)
    {
        return hmw_mail_fault(reason, "the outbox folder (HEALTHMATE_MAIL) "
                              "must be a folder of the worker's own with "
                              "mode 0700: it holds keys to accounts");
    }

    conf->way = HMW_MAIL_OUTBOX;

    return HM_OK;
}


static hm_rc_t
hmw_mail_smtp(hmw_mail_conf_t *conf, char reason[256])
{
    long      port;
    char     *end, text[16];
    hm_str_t  from;

    if (hmw_mail_take(conf->host, sizeof(conf->host), "SMTP_HOST", reason)
        != HM_OK
        || hmw_mail_take(conf->from, sizeof(conf->from), "SMTP_FROM", reason)
           != HM_OK
        || hmw_mail_take(conf->ca_file, sizeof(conf->ca_file),
                         "SMTP_CA_FILE", reason) != HM_OK
        || hmw_mail_take(text, sizeof(text), "SMTP_PORT", reason) != HM_OK)
    {
        return HM_DECLINED;
    }

    if (!hmw_mail_name(conf->host)) {
        return hmw_mail_fault(reason, "HEALTHMATE_MAIL=smtp needs SMTP_HOST: "
                              "the name or address of the mail server");
    }

    from.data = (unsigned char *) conf->from;
    from.len = strlen(conf->from);

    if (!hmw_mail_address(from)) {
        return hmw_mail_fault(reason, "SMTP_FROM must be the sender's bare "
                              "address, as no-reply@example.org");
    }

    if (conf->ca_file[0] != '\0' && access(conf->ca_file, R_OK) == -1) {
        return hmw_mail_fault(reason, "SMTP_CA_FILE cannot be read");
    }

    if (hmw_mail_tls(conf, reason) != HM_OK) {
        return HM_DECLINED;
    }

    port = conf->tls == HMW_TLS_WHOLE ? 465 : 587;

    if (text[0] != '\0') {
        port = strtol(text, &end, 10);

        if (*end != '\0' || port < 1 || port > 65535) {
            return hmw_mail_fault(reason, "SMTP_PORT must be a port");
        }
    }

    conf->port = (unsigned) port;
    conf->way = HMW_MAIL_SMTP;

    return hmw_mail_password(conf, reason);
}


static hm_rc_t
hmw_mail_tls(hmw_mail_conf_t *conf, char reason[256])
{
    const char  *value;

    value = getenv("SMTP_TLS");
    conf->tls = HMW_TLS_START;

    if (value == NULL || *value == '\0' || strcmp(value, "starttls") == 0) {
        return HM_OK;
    }

    if (strcmp(value, "tls") == 0) {
        conf->tls = HMW_TLS_WHOLE;
        return HM_OK;
    }

    if (strcmp(value, "off") != 0) {
        return hmw_mail_fault(reason, "SMTP_TLS must be starttls, tls or "
                              "off");
    }

    if (!hmw_mail_loopback(conf->host, strlen(conf->host))) {
        return hmw_mail_fault(reason, "SMTP_TLS=off is for a server on "
                              "loopback only: mail carries keys to accounts");
    }

    conf->tls = HMW_TLS_OFF;

    return HM_OK;
}


static hm_rc_t
hmw_mail_password(hmw_mail_conf_t *conf, char reason[256])
{
    char         *value;
    size_t        len;
    struct stat   st;

    if (hmw_mail_take(conf->user, sizeof(conf->user), "SMTP_USER", reason)
        != HM_OK
        || hmw_mail_take(conf->password_file, sizeof(conf->password_file),
                         "SMTP_PASSWORD_FILE", reason) != HM_OK)
    {
        return HM_DECLINED;
    }

    value = getenv("SMTP_PASSWORD");
    len = value == NULL ? 0 : strlen(value);

    if (len > 0) {
        conf->password = hm_locked_alloc(len + 1);

        if (conf->password == NULL) {
            return hmw_mail_fault(reason, "no locked memory for "
                                  "SMTP_PASSWORD");
        }

        memcpy(conf->password, value, len + 1);
        hm_wipe(value, len);
        unsetenv("SMTP_PASSWORD");
    }

    if (conf->password_file[0] != '\0') {

        if (len > 0) {
            return hmw_mail_fault(reason, "SMTP_PASSWORD and "
                                  "SMTP_PASSWORD_FILE are both set");
        }

        if (stat(conf->password_file, &st) == -1
            || access(conf->password_file, R_OK) == -1)
        {
            return hmw_mail_fault(reason, "SMTP_PASSWORD_FILE cannot be "
                                  "read");
        }

        if ((st.st_mode & 007) != 0) {
            return hmw_mail_fault(reason, "SMTP_PASSWORD_FILE can be read "
                                  "by everyone: chmod 0600");
        }

        len = 1;
    }

    if ((len > 0) != (conf->user[0] != '\0')) {
        return hmw_mail_fault(reason, "SMTP_USER and its password "
                              "(SMTP_PASSWORD_FILE) go together");
    }

    return HM_OK;
}


static hm_rc_t
hmw_mail_url(hmw_mail_conf_t *conf, char reason[256])
{
    size_t       len, skip;
    const char  *host;

    if (hmw_mail_take(conf->url, sizeof(conf->url), "HEALTHMATE_PUBLIC_URL",
                      reason) != HM_OK)
    {
        return HM_DECLINED;
    }

    if (conf->from[0] == '\0') {
        memcpy(conf->from, "healthmate@localhost", 21);
    }

    if (conf->url[0] == '\0' && conf->way == HMW_MAIL_SMTP) {
        return hmw_mail_fault(reason, "HEALTHMATE_MAIL=smtp needs "
                              "HEALTHMATE_PUBLIC_URL: where mailed links "
                              "lead, as https://health.example.org");
    }

    if (conf->url[0] == '\0') {
        memcpy(conf->url, "http://127.0.0.1:8080", 22);
    }

    len = strlen(conf->url);

    if (len > 0 && conf->url[len - 1] == '/') {
        conf->url[--len] = '\0';
    }

    skip = strncmp(conf->url, "https://", 8) == 0 ? 8
           : strncmp(conf->url, "http://", 7) == 0 ? 7 : 0;
    host = conf->url + skip;

    if (skip == 0 || *host == '\0' || len > 120
        || strpbrk(conf->url, " \t\r\n#?<>\"\\@") != NULL)
    {
        return hmw_mail_fault(reason, "HEALTHMATE_PUBLIC_URL must be "
                              "https://name, without ? and #, at most 120 "
                              "bytes");
    }

    if (skip == 7 && !hmw_mail_loopback(host, strcspn(host, ":/"))) {
        return hmw_mail_fault(reason, "HEALTHMATE_PUBLIC_URL must be https: "
                              "its links carry keys to accounts");
    }

    return HM_OK;
}


static bool
hmw_mail_name(const char *s)
{
    size_t  n;

    n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                  "0123456789.-:");

    return n > 0 && s[n] == '\0' && s[0] != '-';
}


static bool
hmw_mail_loopback(const char *host, size_t len)
{
    return (len > 4 && strncmp(host, "127.", 4) == 0
            && strspn(host, "0123456789.") >= len)
           || (len == 9 && strncmp(host, "localhost", 9) == 0)
           || (len == 3 && strncmp(host, "::1", 3) == 0);
}
