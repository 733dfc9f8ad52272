/*
 * Log lines, one JSON object each (Elastic Common Schema names), on standard
 * error, written with one write() so that lines of several processes do not
 * mix.
 *
 * DESIGN.  No health datum and no secret may reach a log (a canary test greps
 * for one).  So nothing here takes a value of a row: callers pass an action,
 * a job id and a format whose arguments are SQLSTATEs, counts, kinds, pids
 * and times.  Messages of PostgreSQL and Redis servers are not repeated: they
 * quote values ("Key (...)=(...) already exists"); their code is enough to
 * find the reason.
 *
 * Also the small helpers of waiting: monotonic clock, full jitter, sleep.
 */

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "hm_crypto.h"
#include "hm_time.h"
#include "hmw.h"


static size_t hmw_log_escape(char *to, size_t size, const char *from);


void
hmw_log(hmw_level_t level, const char *action, const char *job,
    const char *fmt, ...)
{
    int                 n;
    char                line[1024], text[512], safe[600], when[32];
    char                about[80];
    va_list             args;
    static const char  *names[] = { "info", "warn", "error" };

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    hmw_log_escape(safe, sizeof(safe), text);
    hm_time_format(hm_now(), when);
    when[HM_TIME_TEXT] = '\0';

    about[0] = '\0';
    if (job != NULL) {
        snprintf(about, sizeof(about), ",\"healthmate.job.id\":\"%.36s\"",
                 job);
    }

    n = snprintf(line, sizeof(line),
                 "{\"@timestamp\":\"%s\",\"log.level\":\"%s\","
                 "\"message\":\"%s\",\"ecs.version\":\"8.11.0\","
                 "\"service.name\":\"healthmate-worker\","
                 "\"process.pid\":%d,\"event.action\":\"%s\"%s}\n",
                 when, names[level], safe, (int) getpid(), action, about);

    if (n <= 0 || (size_t) n >= sizeof(line)) {
        return;
    }

    /* A log that cannot be written must not stop the work. */

    if (write(STDERR_FILENO, line, (size_t) n) < 0) {
        return;
    }
}


int64_t
hmw_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


unsigned
hmw_jitter(unsigned max)
{
    uint32_t  r;

    if (hm_random(&r, sizeof(r)) != HM_OK) {
        r = (uint32_t) hmw_ms() * 2654435761U;
    }

    return (unsigned) (((uint64_t) r * ((uint64_t) max + 1)) >> 32);
}


unsigned
hmw_backoff(unsigned base, unsigned max, unsigned n)
{
    uint64_t  ceiling;

    ceiling = (uint64_t) base << (n > 20 ? 20 : n);

    return hmw_jitter(ceiling > max ? max : (unsigned) ceiling);
}


void
hmw_sleep(unsigned ms)
{
    struct timespec  ts;

    /* A signal that came just before is seen at the latest 100 ms on. */

    while (ms > 0 && !hmw_quit) {
        unsigned  part = ms > 100 ? 100 : ms;

        ts.tv_sec = 0;
        ts.tv_nsec = (long) part * 1000000;

        if (nanosleep(&ts, NULL) == -1 && errno == EINTR) {
            return;
        }

        ms -= part;
    }
}


static size_t
hmw_log_escape(char *to, size_t size, const char *from)
{
    size_t         n;
    unsigned char  c;

    for (n = 0; *from != '\0' && n + 3 < size; from++) {
        c = (unsigned char) *from;

        if (c == '"' || c == '\\') {
            to[n++] = '\\';
        }

        to[n++] = (c < 0x20 || c >= 0x7f) ? '?' : (char) c;
    }

    to[n] = '\0';

    return n;
}
