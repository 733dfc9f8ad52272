/*
 * The job table of the worker: what runs for a kind.
 *
 * DESIGN.  The contract of a kind (stream, permission, timeout, attempts,
 * backoff) is libhealthmate's, because the module writes rows and entries by
 * it.  Here is only what the worker adds: the function, who acts when nobody
 * asked, and whether the rights of the requester are judged at the claim.
 *
 * A kind that is not here is left alone: in a rolling update an old worker
 * must not bury jobs that only the new one knows.
 */

#include "hmw.h"


const hmw_handler_t  hmw_handlers[] = {

    { "analytics.rollup", hmw_job_rollup, HMW_ACTOR_ROLLUP, true },

    { "retention.run", hmw_job_retention, HMW_ACTOR_RETENTION, false },

    { "audit.partitions", hmw_job_partitions, HMW_ACTOR_SWEEPER, false },

    { "mail.send", hmw_job_mail, HMW_ACTOR_MAIL, false },

    { "mail.request", hmw_job_mail_request, HMW_ACTOR_MAIL, false },

    { "mail.prune", hmw_job_mail_prune, HMW_ACTOR_MAIL, false },

    { NULL, NULL, NULL, false }
};


const hmw_handler_t *
hmw_handler(const char *kind)
{
    const hmw_handler_t  *h;

    for (h = hmw_handlers; h->kind != NULL; h++) {
        if (strcmp(h->kind, kind) == 0) {
            return h;
        }
    }

    return NULL;
}


/* A kind whose contract is missing gets careful figures and no stream. */

const hm_job_kind_t *
hmw_kind(const char *kind)
{
    const hm_job_kind_t         *k;
    static const hm_job_kind_t   fallback = {
        NULL, NULL, NULL, 300, 5, 5, 300
    };

    k = hm_job_kind((hm_str_t) { strlen(kind), (unsigned char *) kind });

    return k == NULL ? &fallback : k;
}
