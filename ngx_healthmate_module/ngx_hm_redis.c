/*
 * ngx_hm_redis: the doorbell, and the counters several nodes share.
 *
 * A job is a row in PostgreSQL; the stream only carries its id, so that a
 * worker wakes at once.  Commands are written in one go at the end of the
 * event-loop turn and never waited for; what cannot be sent is dropped and
 * counted, and the worker's relay rings again.  hiredis formats and parses;
 * the socket is ours.
 *
 * Answers come in the order of the commands: a ring remembers who wants
 * which.  Only counters (ngx_hm_cluster.c) want any.
 */

#include "ngx_hm.h"
#include <hiredis/hiredis.h>


#define NGX_HM_REDIS_BUF     (256 * 1024)
#define NGX_HM_REDIS_RETRY   500
#define NGX_HM_REDIS_ASKED   8192        /* commands without an answer yet */


typedef enum {
    NGX_HM_ASK_NOTHING = 0, NGX_HM_ASK_COUNT, NGX_HM_ASK_REST
} ngx_hm_ask_t;

typedef struct {
    uint64_t              key;
    ngx_hm_ask_t          ask;
    ngx_uint_t            of;
} ngx_hm_asked_t;


static struct {
    ngx_hm_main_conf_t   *conf;
    ngx_log_t            *log;
    ngx_connection_t     *c;
    redisReader          *reader;
    ngx_event_t           timer;
    ngx_event_t           flush;
    u_char               *buf;
    size_t                len;
    size_t                sent;
    ngx_hm_asked_t       *asked;
    ngx_uint_t            first;
    ngx_uint_t            nasked;
    int64_t               count;         /* until its rest is known */
    ngx_uint_t            up;
    ngx_uint_t            told;
    ngx_uint_t            stopped;
} ngx_hm_rd;


static void ngx_hm_redis_connect(void);
static void ngx_hm_redis_close(const char *why);
static void ngx_hm_redis_timer(ngx_event_t *ev);
static void ngx_hm_redis_read(ngx_event_t *ev);
static void ngx_hm_redis_write(ngx_event_t *ev);
static ngx_int_t ngx_hm_redis_command(int argc, const char **argv,
    const size_t *len, const ngx_hm_asked_t *asked);
static void ngx_hm_redis_answer(redisReply *reply);


ngx_int_t
ngx_hm_redis_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log)
{
    ngx_memzero(&ngx_hm_rd, sizeof(ngx_hm_rd));

    ngx_hm_rd.conf = mcf;
    ngx_hm_rd.log = log;

    if (mcf->redis_path.len == 0) {
        return NGX_OK;
    }

    ngx_hm_rd.buf = ngx_alloc(NGX_HM_REDIS_BUF, log);
    ngx_hm_rd.asked = ngx_alloc(NGX_HM_REDIS_ASKED * sizeof(ngx_hm_asked_t),
                                log);
    if (ngx_hm_rd.buf == NULL || ngx_hm_rd.asked == NULL) {
        return NGX_ERROR;
    }

    ngx_hm_rd.timer.handler = ngx_hm_redis_timer;
    ngx_hm_rd.timer.data = &ngx_hm_rd;
    ngx_hm_rd.timer.log = log;
    ngx_hm_rd.timer.cancelable = 1;

    ngx_hm_rd.flush.handler = ngx_hm_redis_write;
    ngx_hm_rd.flush.data = &ngx_hm_rd;
    ngx_hm_rd.flush.log = log;

    ngx_hm_redis_connect();

    return NGX_OK;
}


void
ngx_hm_redis_stop(void)
{
    ngx_hm_rd.stopped = 1;

    if (ngx_hm_rd.c != NULL) {
        ngx_hm_redis_close(NULL);
    }
}


ngx_uint_t
ngx_hm_redis_up(void)
{
    return ngx_hm_rd.up || ngx_hm_rd.conf == NULL
           || ngx_hm_rd.conf->redis_path.len == 0;
}


void
ngx_hm_redis_ring(const char *stream, const hm_uuid_t *job)
{
    char         id[HM_UUID_TEXT];
    const char  *argv[5];
    size_t       len[5];

    if (!ngx_hm_rd.up) {
        ngx_hm_count(NGX_HM_M_RING_LOST, 1);
        return;
    }

    hm_uuid_format(job, id);

    argv[0] = "XADD";  len[0] = 4;
    argv[1] = stream;  len[1] = ngx_strlen(stream);
    argv[2] = "*";     len[2] = 1;
    argv[3] = "id";    len[3] = 2;
    argv[4] = id;      len[4] = HM_UUID_TEXT;

    if (ngx_hm_redis_command(5, argv, len, NULL) != NGX_OK) {
        ngx_hm_count(NGX_HM_M_RING_LOST, 1);
        return;
    }

    ngx_hm_count(NGX_HM_M_RINGS, 1);
}


/*
 * Adds n to a counter (0: forgets it) that lives for the window from its
 * first; ngx_hm_cluster_told() hears what it is then.
 */
ngx_int_t
ngx_hm_redis_count(hm_str_t name, ngx_int_t n, uint64_t window,
    ngx_uint_t of, uint64_t key)
{
    char             num[24];
    const char      *argv[4];
    size_t           len[4];
    ngx_hm_asked_t   asked;

    if (!ngx_hm_rd.up || ngx_hm_rd.nasked + 3 > NGX_HM_REDIS_ASKED
        || ngx_hm_rd.len + 512 > NGX_HM_REDIS_BUF)
    {
        return NGX_BUSY;
    }

    argv[1] = (char *) name.data;
    len[1] = name.len;

    if (n == 0) {
        argv[0] = "DEL";  len[0] = 3;
        return ngx_hm_redis_command(2, argv, len, NULL);
    }

    asked.key = key;
    asked.of = of;
    asked.ask = NGX_HM_ASK_COUNT;

    argv[0] = "INCRBY";  len[0] = 6;
    argv[2] = num;
    len[2] = (size_t) snprintf(num, sizeof(num), "%ld", (long) n);

    if (ngx_hm_redis_command(3, argv, len, &asked) != NGX_OK) {
        return NGX_BUSY;
    }

    argv[0] = "PEXPIRE";  len[0] = 7;
    len[2] = (size_t) snprintf(num, sizeof(num), "%lu",
                               (unsigned long) window);
    argv[3] = "NX";  len[3] = 2;

    (void) ngx_hm_redis_command(4, argv, len, NULL);

    argv[0] = "PTTL";  len[0] = 4;
    asked.ask = NGX_HM_ASK_REST;

    return ngx_hm_redis_command(2, argv, len, &asked);
}


static ngx_int_t
ngx_hm_redis_command(int argc, const char **argv, const size_t *len,
    const ngx_hm_asked_t *asked)
{
    int              n;
    char            *cmd;
    ngx_hm_asked_t  *a;

    if (ngx_hm_rd.nasked == NGX_HM_REDIS_ASKED) {
        return NGX_BUSY;
    }

    n = redisFormatCommandArgv(&cmd, argc, argv, len);
    if (n < 0) {
        return NGX_ERROR;
    }

    if (ngx_hm_rd.len + (size_t) n > NGX_HM_REDIS_BUF) {
        free(cmd);
        return NGX_BUSY;
    }

    ngx_memcpy(ngx_hm_rd.buf + ngx_hm_rd.len, cmd, (size_t) n);
    ngx_hm_rd.len += (size_t) n;
    free(cmd);

    a = &ngx_hm_rd.asked[(ngx_hm_rd.first + ngx_hm_rd.nasked++)
                         % NGX_HM_REDIS_ASKED];
    a->ask = NGX_HM_ASK_NOTHING;

    if (asked != NULL) {
        *a = *asked;
    }

    if (!ngx_hm_rd.flush.posted) {
        ngx_post_event(&ngx_hm_rd.flush, &ngx_posted_events);
    }

    return NGX_OK;
}


static void
ngx_hm_redis_connect(void)
{
    ngx_socket_t         s;
    const char          *argv[3];
    size_t               len[3];
    ngx_connection_t    *c;
    struct sockaddr_un   sun;

    ngx_memzero(&sun, sizeof(sun));
    sun.sun_family = AF_UNIX;

    s = ngx_socket(AF_UNIX, SOCK_STREAM, 0);
    if (s == (ngx_socket_t) -1) {
        ngx_add_timer(&ngx_hm_rd.timer, NGX_HM_REDIS_RETRY);
        return;
    }

    c = ngx_get_connection(s, ngx_hm_rd.log);
    if (c == NULL) {
        (void) ngx_close_socket(s);
        ngx_add_timer(&ngx_hm_rd.timer, NGX_HM_REDIS_RETRY);
        return;
    }

    ngx_hm_rd.c = c;
    c->data = &ngx_hm_rd;
    c->recv = ngx_recv;
    c->send = ngx_send;
    c->read->handler = ngx_hm_redis_read;
    c->write->handler = ngx_hm_redis_write;
    c->read->log = ngx_hm_rd.log;
    c->write->log = ngx_hm_rd.log;
    c->log_error = NGX_ERROR_INFO;

    ngx_cpystrn((u_char *) sun.sun_path, ngx_hm_rd.conf->redis_path.data,
                ngx_min(sizeof(sun.sun_path),
                        ngx_hm_rd.conf->redis_path.len + 1));

    ngx_hm_rd.reader = redisReaderCreate();

    /* connecting to a Unix socket does not wait */

    if (ngx_nonblocking(s) == -1 || ngx_hm_rd.reader == NULL
        || connect(s, (struct sockaddr *) &sun, sizeof(sun)) == -1
        || ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT)
           != NGX_OK)
    {
        ngx_hm_redis_close("cannot connect");
        return;
    }

    ngx_hm_rd.len = 0;
    ngx_hm_rd.sent = 0;
    ngx_hm_rd.nasked = 0;
    ngx_hm_rd.up = 1;

    if (ngx_hm_rd.told) {
        ngx_hm_rd.told = 0;
        ngx_log_error(NGX_LOG_NOTICE, ngx_hm_rd.log, 0,
                      "healthmate: redis is back");
    }

    if (ngx_hm_rd.conf->redis_user.len != 0) {
        argv[0] = "AUTH";
        len[0] = 4;
        argv[1] = (char *) ngx_hm_rd.conf->redis_user.data;
        len[1] = ngx_hm_rd.conf->redis_user.len;
        argv[2] = (char *) ngx_hm_rd.conf->redis_password.data;
        len[2] = ngx_hm_rd.conf->redis_password.len;

        (void) ngx_hm_redis_command(3, argv, len, NULL);
    }
}


static void
ngx_hm_redis_close(const char *why)
{
    ngx_connection_t  *c;

    c = ngx_hm_rd.c;

    if (why != NULL && !ngx_hm_rd.told && !ngx_hm_rd.stopped) {
        ngx_hm_rd.told = 1;
        ngx_log_error(NGX_LOG_ERR, ngx_hm_rd.log, 0,
                      "healthmate: redis: %s; jobs go on without it, "
                      "trying again until it is back", why);
    }

    ngx_hm_rd.up = 0;

    if (ngx_hm_rd.reader != NULL) {
        redisReaderFree(ngx_hm_rd.reader);
        ngx_hm_rd.reader = NULL;
    }

    if (c != NULL) {
        ngx_hm_rd.c = NULL;
        ngx_close_connection(c);
    }

    if (!ngx_hm_rd.stopped) {
        ngx_add_timer(&ngx_hm_rd.timer, NGX_HM_REDIS_RETRY);
    }
}


static void
ngx_hm_redis_timer(ngx_event_t *ev)
{
    if (ngx_hm_rd.c == NULL && !ngx_hm_rd.stopped) {
        ngx_hm_redis_connect();
    }
}


static void
ngx_hm_redis_write(ngx_event_t *ev)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = ngx_hm_rd.c;

    while (c != NULL && ngx_hm_rd.sent < ngx_hm_rd.len) {
        n = send(c->fd, ngx_hm_rd.buf + ngx_hm_rd.sent,
                 ngx_hm_rd.len - ngx_hm_rd.sent, MSG_NOSIGNAL);

        if (n < 0) {
            if (ngx_socket_errno == NGX_EAGAIN) {
                if (!c->write->active) {
                    (void) ngx_add_event(c->write, NGX_WRITE_EVENT,
                                         NGX_LEVEL_EVENT);
                }

                return;
            }

            ngx_hm_redis_close("connection lost");
            return;
        }

        ngx_hm_rd.sent += (size_t) n;
    }

    ngx_hm_rd.len = 0;
    ngx_hm_rd.sent = 0;

    if (c != NULL && c->write->active) {
        (void) ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
    }
}


static void
ngx_hm_redis_read(ngx_event_t *ev)
{
    void        *reply;
    char         buf[16384];
    ssize_t      n;

    n = recv(ngx_hm_rd.c->fd, buf, sizeof(buf), 0);

    if (n <= 0) {
        if (n < 0 && ngx_socket_errno == NGX_EAGAIN) {
            return;
        }

        ngx_hm_redis_close("connection closed");
        return;
    }

    if (redisReaderFeed(ngx_hm_rd.reader, buf, (size_t) n) != REDIS_OK) {
        ngx_hm_redis_close("unreadable answer");
        return;
    }

    for ( ;; ) {
        if (redisReaderGetReply(ngx_hm_rd.reader, &reply) != REDIS_OK) {
            ngx_hm_redis_close("unreadable answer");
            return;
        }

        if (reply == NULL) {
            return;
        }

        ngx_hm_redis_answer(reply);
        freeReplyObject(reply);
    }
}


static void
ngx_hm_redis_answer(redisReply *reply)
{
    ngx_hm_asked_t  asked;

    ngx_memzero(&asked, sizeof(asked));

    if (ngx_hm_rd.nasked != 0) {
        asked = ngx_hm_rd.asked[ngx_hm_rd.first];
        ngx_hm_rd.first = (ngx_hm_rd.first + 1) % NGX_HM_REDIS_ASKED;
        ngx_hm_rd.nasked--;
    }

    if (reply->type == REDIS_REPLY_ERROR) {
        ngx_hm_count(asked.ask == NGX_HM_ASK_NOTHING ? NGX_HM_M_RING_LOST
                                                     : NGX_HM_M_CLUSTER_LOST,
                     1);
        ngx_hm_rd.count = 0;

        if (!ngx_hm_rd.told) {
            ngx_hm_rd.told = 1;
            ngx_log_error(NGX_LOG_ERR, ngx_hm_rd.log, 0,
                          "healthmate: redis refuses: %*s",
                          (size_t) ngx_min(80, reply->len), reply->str);
        }

        return;
    }

    if (asked.ask == NGX_HM_ASK_COUNT) {
        ngx_hm_rd.count = reply->type == REDIS_REPLY_INTEGER
                          ? reply->integer : 0;

    } else if (asked.ask == NGX_HM_ASK_REST
               && reply->type == REDIS_REPLY_INTEGER)
    {
        ngx_hm_cluster_told(asked.of, asked.key, ngx_hm_rd.count,
                            reply->integer);
    }
}
