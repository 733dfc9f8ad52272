/*
 * hm_job: the table of job kinds.
 *
 * DESIGN
 *
 * A kind is one row; the module reads it to leave a job, the worker to claim,
 * time and retry one.  Nothing else knows a stream's name or a limit.
 *
 * `permission` is the name (hm_perm_name) of what the requester of a job must
 * hold over its subject when the job is claimed, not when it was left: an
 * assignment that has ended meanwhile stops the job.  A kind that no person
 * asks for has the permission "system" and runs as a system actor.
 *
 * A kind's timeout is its lease: a worker that lives renews it, so it bounds
 * how long a dead worker's job waits, not how long a job may take.
 */

#include "hm_job.h"


const hm_job_kind_t  hm_job_kinds[] = {

    /* kind, stream, permission, timeout, attempts, backoff, backoff max */

    { "analytics.rollup", "hm:jobs:analytics", "health.read", 60, 8, 2, 300 },
    { "retention.run", "hm:jobs:maintenance", "system", 600, 8, 60, 3600 },

    { "mail.send", "hm:jobs:mail", "system", 60, 12, 5, 3600 },
    { "mail.request", "hm:jobs:mail", "system", 60, 12, 5, 3600 },
    { "mail.prune", "hm:jobs:maintenance", "system", 60, 8, 60, 3600 },

    { NULL, NULL, NULL, 0, 0, 0, 0 }
};


const hm_job_kind_t *
hm_job_kind(hm_str_t kind)
{
    size_t                len;
    const hm_job_kind_t  *k;

    for (k = hm_job_kinds; k->kind != NULL; k++) {
        len = strlen(k->kind);

        if (kind.len == len && memcmp(kind.data, k->kind, len) == 0) {
            return k;
        }
    }

    return NULL;
}
