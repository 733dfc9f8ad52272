/*
 * ngx_hm_lag: how long the event loop of a worker did not turn.
 *
 * A timer of 10 ms runs while there is work and for a second after; how late
 * it runs is how long a request of that moment would have waited for us.
 * The histogram healthmate_event_loop_lag_seconds holds it as it was felt.
 * healthmate_event_loop_stall_seconds is what of it was our doing: without
 * the time in which the loop was ready to run and the system gave its
 * processor to somebody else (schedstat's run delay).  A stall above 10 ms
 * is a fault of the program; a lag without a stall is a machine too small.
 *
 * An idle worker is not woken: the timer stops, and the next request starts
 * it again.
 */

#include "ngx_hm.h"
#include <sys/syscall.h>


#define NGX_HM_LAG_STEP   10             /* ms */
#define NGX_HM_LAG_REST   100            /* steps without work, then it stops */


static struct {
    ngx_event_t   timer;
    ngx_fd_t      stat;
    uint64_t      due;                   /* us */
    uint64_t      delay;                 /* us, of the thread's life so far */
    ngx_uint_t    idle;
    ngx_uint_t    stopped;
} ngx_hm_lag = { .stat = NGX_INVALID_FILE };


static void ngx_hm_lag_tick(ngx_event_t *ev);
static void ngx_hm_lag_arm(void);
static uint64_t ngx_hm_lag_now(void);
static uint64_t ngx_hm_lag_delay(void);


void
ngx_hm_lag_start(void)
{
    char  name[64];

    ngx_hm_lag.idle = 0;

    if (ngx_hm_lag.timer.timer_set || ngx_hm_lag.stopped) {
        return;
    }

    if (ngx_hm_lag.timer.handler == NULL) {
        ngx_hm_lag.timer.handler = ngx_hm_lag_tick;
        ngx_hm_lag.timer.data = &ngx_hm_lag;
        ngx_hm_lag.timer.log = ngx_cycle->log;
        ngx_hm_lag.timer.cancelable = 1;

        snprintf(name, sizeof(name), "/proc/self/task/%ld/schedstat",
                 (long) syscall(SYS_gettid));

        /* without it (another kernel) all of the lag is called our own */
        ngx_hm_lag.stat = ngx_open_file(name, NGX_FILE_RDONLY|O_CLOEXEC,
                                        NGX_FILE_OPEN, 0);
    }

    ngx_hm_lag_arm();
}


void
ngx_hm_lag_stop(void)
{
    ngx_hm_lag.stopped = 1;

    if (ngx_hm_lag.timer.timer_set) {
        ngx_del_timer(&ngx_hm_lag.timer);
    }

    if (ngx_hm_lag.stat != NGX_INVALID_FILE) {
        (void) ngx_close_file(ngx_hm_lag.stat);
        ngx_hm_lag.stat = NGX_INVALID_FILE;
    }
}


static void
ngx_hm_lag_arm(void)
{
    ngx_hm_lag.delay = ngx_hm_lag_delay();
    ngx_hm_lag.due = ngx_hm_lag_now() + NGX_HM_LAG_STEP * 1000;

    ngx_add_timer(&ngx_hm_lag.timer, NGX_HM_LAG_STEP);
}


static void
ngx_hm_lag_tick(ngx_event_t *ev)
{
    uint64_t  now, late, waited;

    now = ngx_hm_lag_now();
    late = now > ngx_hm_lag.due ? now - ngx_hm_lag.due : 0;
    waited = ngx_hm_lag_delay() - ngx_hm_lag.delay;

    ngx_hm_metrics_lag(late, late > waited ? late - waited : 0);

    if (++ngx_hm_lag.idle < NGX_HM_LAG_REST && !ngx_exiting) {
        ngx_hm_lag_arm();
    }
}


static uint64_t
ngx_hm_lag_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


/* How long this thread has waited for a processor, in all its life. */
static uint64_t
ngx_hm_lag_delay(void)
{
    char                buf[96];
    ssize_t             n;
    unsigned long long  ran, waited;

    if (ngx_hm_lag.stat == NGX_INVALID_FILE) {
        return 0;
    }

    n = pread(ngx_hm_lag.stat, buf, sizeof(buf) - 1, 0);
    if (n <= 0) {
        return 0;
    }

    buf[n] = '\0';

    return sscanf(buf, "%llu %llu", &ran, &waited) == 2
           ? (uint64_t) waited / 1000 : 0;
}
