/*
 * Redis, blocking: the doorbell.
 *
 * DESIGN.  Nothing of value is in Redis.  When it is away, children take
 * their jobs from PostgreSQL themselves and try here again with backoff; when
 * it comes back empty, groups are made anew and the keeper rings again.  So
 * every failure here is one log line and a closed connection.
 *
 * An entry that was handled is acknowledged AND deleted: XDEL alone leaves it
 * in the pending list for ever, XACK alone in the stream.
 *
 * A policy that evicts would throw entries away silently, so the parent
 * refuses to start on one.  It is asked by INFO memory: the role has no
 * CONFIG.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hmw.h"


#define HMW_REDIS_BASE     200           /* ms */
#define HMW_REDIS_MAX      2000
#define HMW_REDIS_WAIT     5             /* seconds; longer than any BLOCK */


static redisContext *hmw_rds_dial(const hmw_conf_t *conf);
static hm_rc_t hmw_rds_asks(redisContext *ctx, char reason[256]);
static hm_rc_t hmw_rds_auth(redisContext *ctx, const hmw_conf_t *conf);


bool
hmw_rds_up(hmw_t *w)
{
    char        reason[256];
    hmw_rds_t  *r = &w->rds;

    if (r->ctx != NULL) {
        return true;
    }

    if (!w->conf->redis || hmw_ms() < r->next_try) {
        return false;
    }

    r->ctx = hmw_rds_dial(w->conf);

    /* The policy may have changed since the parent looked. */

    if (r->ctx != NULL && hmw_rds_asks(r->ctx, reason) == HM_DECLINED) {
        hmw_log(HMW_ERR, "redis.evicts", NULL, "%s", reason);
        hmw_rds_close(r);
    }

    if (r->ctx != NULL) {
        if (r->failures > 0) {
            hmw_log(HMW_INFO, "redis.connected", NULL,
                    "connected after %u failures", r->failures);
        }

        r->failures = 0;
        return true;
    }

    if ((r->failures & (r->failures - 1)) == 0) {
        hmw_log(HMW_WARN, "redis.unreachable", NULL,
                "no usable connection to Redis, failure %u: jobs are taken "
                "from PostgreSQL", r->failures + 1);
    }

    r->next_try = hmw_ms() + 20 + hmw_backoff(HMW_REDIS_BASE, HMW_REDIS_MAX,
                                              r->failures);
    r->failures++;

    return false;
}


void
hmw_rds_close(hmw_rds_t *r)
{
    if (r->ctx != NULL) {
        redisFree(r->ctx);
        r->ctx = NULL;
    }
}


void
hmw_rds_failed(hmw_rds_t *r, const char *what)
{
    hmw_log(HMW_WARN, "redis.failed", NULL, "\"%s\" failed, connection closed",
            what);

    hmw_rds_close(r);
    r->next_try = hmw_ms() + 20 + hmw_jitter(HMW_REDIS_BASE);
    r->failures++;
}


redisReply *
hmw_rds_command(hmw_t *w, const char *what, const char *fmt, ...)
{
    va_list      args;
    redisReply  *reply;

    if (!hmw_rds_up(w)) {
        return NULL;
    }

    va_start(args, fmt);
    reply = redisvCommand(w->rds.ctx, fmt, args);
    va_end(args);

    if (reply == NULL) {
        hmw_rds_failed(&w->rds, what);
    }

    return reply;
}


hm_rc_t
hmw_rds_group(hmw_t *w, const char *stream)
{
    hm_rc_t      rc;
    redisReply  *reply;

    reply = hmw_rds_command(w, "group", "XGROUP CREATE %s %s 0 MKSTREAM",
                            stream, HM_JOB_GROUP);
    if (reply == NULL) {
        return HM_ERROR;
    }

    rc = HM_OK;

    if (reply->type == REDIS_REPLY_ERROR
        && strncmp(reply->str, "BUSYGROUP", 9) != 0)
    {
        hmw_log(HMW_WARN, "redis.group", NULL, "cannot make a group: %.8s",
                reply->str);
        rc = HM_ERROR;
    }

    freeReplyObject(reply);

    return rc;
}


void
hmw_rds_drop(hmw_t *w, const char *stream, const char *entry)
{
    int          i;
    redisReply  *reply;

    if (w->rds.ctx == NULL) {
        return;
    }

    redisAppendCommand(w->rds.ctx, "XACK %s %s %s", stream, HM_JOB_GROUP,
                       entry);
    redisAppendCommand(w->rds.ctx, "XDEL %s %s", stream, entry);

    for (i = 0; i < 2; i++) {
        if (redisGetReply(w->rds.ctx, (void **) &reply) != REDIS_OK) {
            hmw_rds_failed(&w->rds, "drop");
            return;
        }

        freeReplyObject(reply);
    }
}


hm_rc_t
hmw_rds_policy(const hmw_conf_t *conf, char reason[256])
{
    hm_rc_t        rc;
    redisContext  *ctx;

    if (!conf->redis) {
        return HM_OK;
    }

    ctx = hmw_rds_dial(conf);
    if (ctx == NULL) {
        snprintf(reason, 256, "Redis does not answer at REDIS_URL");
        return HM_AGAIN;
    }

    rc = hmw_rds_asks(ctx, reason);
    redisFree(ctx);

    return rc;
}


static hm_rc_t
hmw_rds_asks(redisContext *ctx, char reason[256])
{
    char        *p;
    hm_rc_t      rc;
    redisReply  *reply;

    rc = HM_OK;
    reply = redisCommand(ctx, "INFO memory");

    if (reply == NULL || reply->type != REDIS_REPLY_STRING) {
        snprintf(reason, 256, "Redis does not tell its memory policy "
                 "(INFO memory)");
        rc = HM_AGAIN;

    } else {
        p = strstr(reply->str, "maxmemory_policy:");

        if (p != NULL && strncmp(p + 17, "noeviction", 10) != 0) {
            snprintf(reason, 256, "Redis evicts (maxmemory-policy %.*s): "
                     "set it to noeviction", (int) strcspn(p + 17, "\r\n"),
                     p + 17);
            rc = HM_DECLINED;
        }
    }

    if (reply != NULL) {
        freeReplyObject(reply);
    }

    return rc;
}


static redisContext *
hmw_rds_dial(const hmw_conf_t *conf)
{
    redisContext    *ctx;
    struct timeval   tv = { 2, 0 };

    ctx = redisConnectUnixWithTimeout(conf->redis_path, tv);
    if (ctx == NULL) {
        return NULL;
    }

    tv.tv_sec = HMW_REDIS_WAIT;

    if (ctx->err || redisSetTimeout(ctx, tv) != REDIS_OK
        || hmw_rds_auth(ctx, conf) != HM_OK)
    {
        redisFree(ctx);
        return NULL;
    }

    return ctx;
}


static hm_rc_t
hmw_rds_auth(redisContext *ctx, const hmw_conf_t *conf)
{
    int          fd;
    char         password[512];
    size_t       len;
    hm_rc_t      rc;
    ssize_t      n;
    redisReply  *reply;

    /* Read each time, so that a changed password needs no restart. */

    if (conf->redis_password_file[0] == '\0') {
        return HM_OK;
    }

    fd = open(conf->redis_password_file, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        hmw_log(HMW_ERR, "redis.password", NULL,
                "the password file cannot be read: errno %d", errno);
        return HM_ERROR;
    }

    n = read(fd, password, sizeof(password) - 1);
    close(fd);

    if (n <= 0) {
        return HM_ERROR;
    }

    password[n] = '\0';
    len = strcspn(password, "\r\n");

    if (conf->redis_user[0] == '\0') {
        reply = redisCommand(ctx, "AUTH %b", password, len);
    } else {
        reply = redisCommand(ctx, "AUTH %s %b", conf->redis_user, password,
                             len);
    }

    hm_wipe(password, sizeof(password));

    rc = (reply != NULL && reply->type == REDIS_REPLY_STATUS)
         ? HM_OK : HM_ERROR;

    if (rc != HM_OK) {
        hmw_log(HMW_ERR, "redis.auth", NULL, "Redis refused the login");
    }

    if (reply != NULL) {
        freeReplyObject(reply);
    }

    return rc;
}
