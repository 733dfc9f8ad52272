/*
 * SMTP, by libcurl: the only file of the worker that knows it.
 *
 * DESIGN.  One connection for one message: mail is rare, and a connection
 * kept would only be one more thing to go stale.  The whole takes at most
 * 25 seconds, below the 30 of a job's lease, so that a run that is still
 * sending has not been given to another.
 *
 * What may go wrong is one of two things.  Later: no connection, no TLS, no
 * login, a 4xx, a timeout; the server or its configuration will change.
 * Never: a 5xx to the sender, the recipient or the message.  A login that is
 * refused answers 5xx, too, but says nothing about the message.
 *
 * A reply that was lost after the message leaves it unknown whether it was
 * taken: it is sent again, under the same Message-ID.  Twice is a nuisance,
 * never is an account nobody gets back into.
 *
 * No proxy, no netrc, no redirects to other protocols: what curl would take
 * from its environment is switched off.  Replies of servers quote addresses,
 * so of a failure only the code is kept.
 */

#include <curl/curl.h>
#include <stdio.h>
#include <unistd.h>

#include "hm_crypto.h"
#include "hmw_mail.h"


#define HMW_SMTP_CONNECT   8L            /* seconds */
#define HMW_SMTP_WHOLE     25L
#define HMW_SMTP_SECRET    512


typedef struct {
    hm_str_t             left;
} hmw_smtp_body_t;


static size_t hmw_smtp_read(char *to, size_t size, size_t n, void *data);
static CURL *hmw_smtp_open(const hmw_mail_conf_t *conf, char why[64]);
static void hmw_smtp_secure(CURL *curl, const hmw_mail_conf_t *conf);
static hm_rc_t hmw_smtp_login(CURL *curl, const hmw_mail_conf_t *conf,
    char why[64]);
static hm_rc_t hmw_smtp_outcome(CURL *curl, CURLcode rc, char why[64]);


hm_rc_t
hmw_smtp_send(const hmw_mail_conf_t *conf, hm_str_t to, hm_str_t message,
    char why[64])
{
    CURL               *curl;
    char                rcpt[256 + 3], from[256 + 3];
    hm_rc_t             rc;
    hmw_smtp_body_t     body;
    struct curl_slist  *list;

    snprintf(rcpt, sizeof(rcpt), "<%.*s>", (int) to.len, to.data);
    snprintf(from, sizeof(from), "<%s>", conf->from);

    list = curl_slist_append(NULL, rcpt);
    curl = hmw_smtp_open(conf, why);
    rc = HM_AGAIN;

    if (curl != NULL && list != NULL) {
        body.left = message;

        curl_easy_setopt(curl, CURLOPT_MAIL_FROM, from);
        curl_easy_setopt(curl, CURLOPT_MAIL_RCPT, list);
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, hmw_smtp_read);
        curl_easy_setopt(curl, CURLOPT_READDATA, &body);
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE,
                         (curl_off_t) message.len);

        rc = hmw_smtp_outcome(curl, curl_easy_perform(curl), why);
    }

    curl_easy_cleanup(curl);
    curl_slist_free_all(list);

    return rc;
}


hm_rc_t
hmw_smtp_probe(const hmw_mail_conf_t *conf, char why[64])
{
    CURL     *curl;
    hm_rc_t   rc;

    curl = hmw_smtp_open(conf, why);
    if (curl == NULL) {
        return HM_AGAIN;
    }

    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "NOOP");
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);

    rc = hmw_smtp_outcome(curl, curl_easy_perform(curl), why);
    curl_easy_cleanup(curl);

    return rc;
}


static size_t
hmw_smtp_read(char *to, size_t size, size_t n, void *data)
{
    hmw_smtp_body_t  *body = data;

    n *= size;
    n = n < body->left.len ? n : body->left.len;

    memcpy(to, body->left.data, n);
    body->left.data += n;
    body->left.len -= n;

    return n;
}


static CURL *
hmw_smtp_open(const hmw_mail_conf_t *conf, char why[64])
{
    char         url[640];
    CURL        *curl;
    bool         v6;
    const char  *at;

    snprintf(why, 64, "smtp_setup");

    curl = curl_easy_init();
    if (curl == NULL) {
        return NULL;
    }

    /* the path is the name we greet with */

    v6 = strchr(conf->host, ':') != NULL;
    at = strchr(conf->from, '@');

    snprintf(url, sizeof(url), "%s://%s%s%s:%u/%s",
             conf->tls == HMW_TLS_WHOLE ? "smtps" : "smtp",
             v6 ? "[" : "", conf->host, v6 ? "]" : "", conf->port,
             at == NULL ? "localhost" : at + 1);

    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, HMW_SMTP_CONNECT);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, HMW_SMTP_WHOLE);
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);

    hmw_smtp_secure(curl, conf);

    if (hmw_smtp_login(curl, conf, why) != HM_OK) {
        curl_easy_cleanup(curl);
        return NULL;
    }

    return curl;
}


static void
hmw_smtp_secure(CURL *curl, const hmw_mail_conf_t *conf)
{
    curl_easy_setopt(curl, CURLOPT_USE_SSL,
                     conf->tls == HMW_TLS_OFF ? (long) CURLUSESSL_NONE
                                              : (long) CURLUSESSL_ALL);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);

    if (conf->ca_file[0] != '\0') {
        curl_easy_setopt(curl, CURLOPT_CAINFO, conf->ca_file);
    }
}


static hm_rc_t
hmw_smtp_login(CURL *curl, const hmw_mail_conf_t *conf, char why[64])
{
    FILE    *file;
    char     secret[HMW_SMTP_SECRET];
    size_t   n;

    if (conf->user[0] == '\0') {
        return HM_OK;
    }

    curl_easy_setopt(curl, CURLOPT_USERNAME, conf->user);

    if (conf->password != NULL) {
        curl_easy_setopt(curl, CURLOPT_PASSWORD, conf->password);
        return HM_OK;
    }

    file = fopen(conf->password_file, "re");

    if (file == NULL) {
        snprintf(why, 64, "smtp_password_file");
        return HM_ERROR;
    }

    (void) setvbuf(file, NULL, _IONBF, 0);   /* no copy in a buffer */
    n = fread(secret, 1, sizeof(secret) - 1, file);
    (void) fclose(file);

    while (n > 0 && (secret[n - 1] == '\n' || secret[n - 1] == '\r')) {
        n--;
    }

    secret[n] = '\0';
    curl_easy_setopt(curl, CURLOPT_PASSWORD, secret);
    hm_wipe(secret, sizeof(secret));

    return HM_OK;
}


static hm_rc_t
hmw_smtp_outcome(CURL *curl, CURLcode rc, char why[64])
{
    long  code;

    if (rc == CURLE_OK) {
        why[0] = '\0';
        return HM_OK;
    }

    code = 0;
    (void) curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);

    switch (rc) {

    case CURLE_OPERATION_TIMEDOUT:
        snprintf(why, 64, "smtp_timeout");
        return HM_AGAIN;

    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        snprintf(why, 64, "smtp_unreachable");
        return HM_AGAIN;

    case CURLE_LOGIN_DENIED:
        snprintf(why, 64, "smtp_login %ld", code);
        return HM_AGAIN;

    case CURLE_USE_SSL_FAILED:
        snprintf(why, 64, "smtp_no_starttls");
        return HM_AGAIN;

    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CONNECT_ERROR:
        snprintf(why, 64, "smtp_tls %d", (int) rc);
        return HM_AGAIN;

    default:
        break;
    }

    if (code >= 400 && code <= 599) {
        snprintf(why, 64, "smtp %ld", code);

        /* 530, 534, 535, 538: about the login */

        return code >= 500 && code != 530 && (code < 534 || code > 538)
               && code != 521 ? HM_DECLINED : HM_AGAIN;
    }

    snprintf(why, 64, "smtp_failed %d", (int) rc);

    return HM_AGAIN;
}
