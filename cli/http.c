/*
 * http: see http.h.
 *
 * No redirects are followed and no protocol but http and https is spoken: a
 * token goes to the server it was made by and nowhere else.  A proxy of the
 * environment is not used for loopback, where it could only read along.
 */

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "cli.h"
#include "http.h"


struct hmc_http_s {
    CURL           *curl;
    const char     *base;
    unsigned char  *body;
    size_t          size;
    size_t          len;
    long            retry_after;
};


static size_t
hmc_http_body(char *data, size_t one, size_t n, void *ctx)
{
    size_t           size;
    hmc_http_t      *http;
    unsigned char   *body;

    http = ctx;

    if (n > HMC_HTTP_MAX - http->len) {
        return 0;
    }

    if (n > http->size - http->len) {
        size = (http->len + n) * 2;

        body = realloc(http->body, size);
        if (body == NULL) {
            return 0;
        }

        http->body = body;
        http->size = size;
    }

    memcpy(http->body + http->len, data, n);
    http->len += n;

    return n;
}


static size_t
hmc_http_header(char *data, size_t one, size_t n, void *ctx)
{
    char         text[16];
    size_t       len;
    hmc_http_t  *http;

    http = ctx;

    if (n > 12 && strncasecmp(data, "retry-after:", 12) == 0) {
        len = n - 12 < sizeof(text) ? n - 12 : sizeof(text) - 1;
        memcpy(text, data + 12, len);
        text[len] = '\0';
        http->retry_after = strtol(text, NULL, 10);
    }

    return n;
}


hmc_http_t *
hmc_http_open(const char *base)
{
    const char  *ca;
    hmc_http_t  *http;

    curl_global_init(CURL_GLOBAL_DEFAULT);

    http = calloc(1, sizeof(hmc_http_t));
    if (http == NULL) {
        return NULL;
    }

    http->base = base;
    http->curl = curl_easy_init();

    if (http->curl == NULL) {
        free(http);
        return NULL;
    }

    curl_easy_setopt(http->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(http->curl, CURLOPT_NOPROXY,
                     "localhost,127.0.0.1,[::1],::1");
    curl_easy_setopt(http->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(http->curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(http->curl, CURLOPT_USERAGENT, "healthmate-cli");
    curl_easy_setopt(http->curl, CURLOPT_COOKIEFILE, "");
    curl_easy_setopt(http->curl, CURLOPT_WRITEFUNCTION, hmc_http_body);
    curl_easy_setopt(http->curl, CURLOPT_WRITEDATA, http);
    curl_easy_setopt(http->curl, CURLOPT_HEADERFUNCTION, hmc_http_header);
    curl_easy_setopt(http->curl, CURLOPT_HEADERDATA, http);

    ca = hmc_conf("HEALTHMATE_CA");
    if (ca != NULL) {
        curl_easy_setopt(http->curl, CURLOPT_CAINFO, ca);
    }

    return http;
}


void
hmc_http_close(hmc_http_t *http)
{
    curl_easy_cleanup(http->curl);
    free(http->body);
    free(http);
}


static struct curl_slist *
hmc_http_headers(const char *token, const char *type)
{
    char               line[4500];
    struct curl_slist *list;

    /* no "Expect: 100-continue": it costs a round trip on every part */
    list = curl_slist_append(NULL, "Expect:");

    if (token != NULL) {
        snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
        list = curl_slist_append(list, line);
    }

    if (type != NULL) {
        snprintf(line, sizeof(line), "Content-Type: %s", type);
        list = curl_slist_append(list, line);
    }

    return list;
}


hm_rc_t
hmc_http(hmc_http_t *http, const char *method, const char *path,
    const char *token, const char *type, hm_str_t body, long timeout,
    hmc_answer_t *answer)
{
    char                url[2048];
    CURLcode            rc;
    struct curl_slist  *headers;

    snprintf(url, sizeof(url), "%s%s", http->base, path);
    headers = hmc_http_headers(token, type);
    http->len = 0;
    http->retry_after = -1;

    curl_easy_setopt(http->curl, CURLOPT_URL, url);
    curl_easy_setopt(http->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(http->curl, CURLOPT_TIMEOUT, timeout);

    if (body.data != NULL) {
        curl_easy_setopt(http->curl, CURLOPT_POST, 1L);
        curl_easy_setopt(http->curl, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t) body.len);
        curl_easy_setopt(http->curl, CURLOPT_POSTFIELDS, body.data);

    } else {
        curl_easy_setopt(http->curl, CURLOPT_HTTPGET, 1L);
    }

    curl_easy_setopt(http->curl, CURLOPT_CUSTOMREQUEST, method);

    rc = curl_easy_perform(http->curl);
    curl_slist_free_all(headers);

    answer->status = 0;
    answer->retry_after = http->retry_after;
    answer->body = (hm_str_t) { http->len, http->body };
    answer->error[0] = '\0';

    if (rc != CURLE_OK) {
        snprintf(answer->error, sizeof(answer->error), "%s: %s", http->base,
                 curl_easy_strerror(rc));
        return HM_ERROR;
    }

    curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &answer->status);

    return HM_OK;
}


const char *
hmc_http_base(void)
{
    char         *base;
    size_t        n;
    const char   *url, *port;
    static char   local[64];

    url = hmc_conf("HEALTHMATE_URL");

    if (url != NULL) {
        base = hmc_cstr(hmc_str(url));

        for (n = strlen(base); n > 0 && base[n - 1] == '/'; n--) {
            base[n - 1] = '\0';
        }

        return base;
    }

    port = hmc_conf("HEALTHMATE_HTTP_PORT");
    if (port == NULL) {
        return NULL;
    }

    snprintf(local, sizeof(local), "http://127.0.0.1:%s", port);

    return local;
}
