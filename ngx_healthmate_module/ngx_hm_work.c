/*
 * ngx_hm_work: a piece of CPU work above some 100 us in nginx's thread pool
 * (signatures, QR codes; passwords have ngx_hm_kdf.c).
 *
 * The work is a structure in the request's context.  The thread gets a copy
 * and gives its result by being copied back: a request whose client has left
 * is not written to.  What the structure points at may lie in the context's
 * arena: the operation holds the context until it ends, and an arena never
 * moves what it gave.  The thread allocates nothing from it.
 */

#include "ngx_hm.h"


typedef struct {
    ngx_hm_ctx_t    *hm;
    ngx_hm_work_pt   run;
    void            *back;
    size_t           size;
} ngx_hm_work_job_t;


static void ngx_hm_work_run(void *data, ngx_log_t *log);
static void ngx_hm_work_done(ngx_event_t *ev);


/* A step: `return ngx_hm_work(hm, run, work, sizeof(*work));`. */
ngx_hm_rc_t
ngx_hm_work(ngx_hm_ctx_t *hm, ngx_hm_work_pt run, void *work, size_t size)
{
    ngx_hm_work_job_t  *job;
    ngx_thread_task_t  *task;

    if (hm->conf->thread_pool == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    task = ngx_calloc(sizeof(ngx_thread_task_t) + sizeof(ngx_hm_work_job_t)
                      + size, ngx_hm_worker.log);
    if (task == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    task->ctx = task + 1;
    job = task->ctx;
    job->hm = hm;
    job->run = run;
    job->back = work;
    job->size = size;
    ngx_memcpy(job + 1, work, size);

    task->handler = ngx_hm_work_run;
    task->event.handler = ngx_hm_work_done;
    task->event.data = task;
    task->event.log = ngx_hm_worker.log;

    if (ngx_thread_task_post(hm->conf->thread_pool, task) != NGX_OK) {
        hm_wipe(job + 1, size);
        ngx_free(task);
        ngx_hm_count(NGX_HM_M_OVERLOADED, 1);
        hm->headers.retry_after = 2;
        return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
    }

    ngx_hm_wait(hm);

    return NGX_HM_WAIT;
}


static void
ngx_hm_work_run(void *data, ngx_log_t *log)
{
    ngx_hm_work_job_t  *job = data;

    job->run(job + 1);
}


static void
ngx_hm_work_done(ngx_event_t *ev)
{
    ngx_hm_ctx_t       *hm;
    ngx_hm_work_job_t  *job;
    ngx_thread_task_t  *task = ev->data;

    job = task->ctx;
    hm = job->hm;

    if (hm->request != NULL && hm->waiting) {
        ngx_memcpy(job->back, job + 1, job->size);
    }

    hm_wipe(job + 1, job->size);
    ngx_free(task);

    ngx_hm_resume(hm);
}
