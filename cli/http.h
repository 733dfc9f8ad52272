/*
 * http: the CLI's only way to the server; nobody else includes curl.
 *
 * One handle is one connection that is kept.  Cookies stay in memory, for
 * the fingerprint cookie of a login over TLS.  Answers are bounded: one that
 * is larger fails.
 */

#ifndef HMC_HTTP_H
#define HMC_HTTP_H

#include "hm.h"

#define HMC_HTTP_MAX   (64 * 1024 * 1024)

typedef struct hmc_http_s  hmc_http_t;

typedef struct {
    long        status;                  /* 0: no answer, see error */
    long        retry_after;             /* seconds, -1: not said */
    hm_str_t    body;                    /* valid until the next request */
    char        error[256];
} hmc_answer_t;

/* base: "http://127.0.0.1:8080"; NULL: no memory. */
hmc_http_t *hmc_http_open(const char *base);
void hmc_http_close(hmc_http_t *http);

/* token and type may be NULL.  HM_ERROR: there was no answer. */
hm_rc_t hmc_http(hmc_http_t *http, const char *method, const char *path,
    const char *token, const char *type, hm_str_t body, long timeout,
    hmc_answer_t *answer);

/* The server's address: HEALTHMATE_URL, else by the env file; or NULL. */
const char *hmc_http_base(void);

#endif
