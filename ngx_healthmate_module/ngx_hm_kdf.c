/*
 * ngx_hm_kdf: password hashing takes tens of milliseconds and 19 MiB, so it
 * runs in nginx's thread pool.  The thread touches only its own copy of input
 * and output; the task lives in the heap, because a request may be gone when
 * it ends.  The pool's queue is bounded: what does not fit is a 503, and the
 * try at the password that was taken for it is given back.
 *
 * A thread that hashes is nicer than the event loop: on a machine whose
 * processors are all busy with passwords everybody else's request comes
 * first.
 */

#include "ngx_hm.h"
#include <sys/resource.h>
#include <sys/syscall.h>


#define NGX_HM_KDF_NICE   10

/* A full queue before us, on processors that have better to do. */
#define NGX_HM_KDF_WAIT   20000


typedef struct {
    ngx_hm_ctx_t   *hm;
    ngx_hm_kdf_t    work;
} ngx_hm_kdf_job_t;


static void ngx_hm_kdf_run(void *data, ngx_log_t *log);
static void ngx_hm_kdf_done(ngx_event_t *ev);


ngx_int_t
ngx_hm_kdf(ngx_hm_ctx_t *hm, ngx_hm_kdf_t *in)
{
    ngx_hm_kdf_job_t   *job;
    ngx_thread_task_t  *task;

    if (hm->conf->thread_pool == NULL
        || in->password_len > sizeof(in->password))
    {
        return NGX_ERROR;
    }

    task = ngx_calloc(sizeof(ngx_thread_task_t) + sizeof(ngx_hm_kdf_job_t),
                      ngx_hm_worker.log);
    if (task == NULL) {
        return NGX_ERROR;
    }

    task->ctx = task + 1;
    job = task->ctx;
    job->hm = hm;
    job->work = *in;

    task->handler = ngx_hm_kdf_run;
    task->event.handler = ngx_hm_kdf_done;
    task->event.data = task;
    task->event.log = ngx_hm_worker.log;

    if (ngx_thread_task_post(hm->conf->thread_pool, task) != NGX_OK) {
        hm_wipe(job, sizeof(*job));
        ngx_free(task);
        ngx_hm_count(NGX_HM_M_OVERLOADED, 1);
        ngx_hm_try_back(hm);
        return NGX_BUSY;
    }

    ngx_hm_count(NGX_HM_M_PASSWORDS, 1);

    hm->hashing = 1;
    hm->patience = NGX_HM_KDF_WAIT;

    return NGX_OK;
}


static void
ngx_hm_kdf_run(void *data, ngx_log_t *log)
{
    hm_str_t           password;
    ngx_hm_kdf_job_t  *job = data;

    static __thread int  nice_already;

    if (!nice_already) {
        nice_already = 1;
        (void) setpriority(PRIO_PROCESS, (id_t) syscall(SYS_gettid),
                           NGX_HM_KDF_NICE);
    }

    password.data = job->work.password;
    password.len = job->work.password_len;

    if (job->work.verify) {
        job->work.rc = hm_password_verify(job->work.dummy ? NULL
                                          : job->work.hash, password);
    } else {
        job->work.rc = hm_password_hash(job->work.hash, password);
    }
}


static void
ngx_hm_kdf_done(ngx_event_t *ev)
{
    ngx_hm_ctx_t       *hm;
    ngx_hm_kdf_t       *out;
    ngx_hm_kdf_job_t   *job;
    ngx_thread_task_t  *task = ev->data;

    job = task->ctx;
    hm = job->hm;

    out = hm->data;

    if (hm->request != NULL && out != NULL) {
        out->rc = job->work.rc;
        ngx_memcpy(out->hash, job->work.hash, sizeof(out->hash));
        hm_wipe(out->password, sizeof(out->password));
    }

    hm_wipe(job, sizeof(*job));
    ngx_free(task);

    ngx_hm_resume(hm);
}
