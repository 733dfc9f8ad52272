/*
 * ngx_hm_limit: rate classes, counted exactly across workers and reloads.
 *
 * A row counts one caller (person, or address when anonymous) in one class.
 * It is a bucket of `number` tokens that is filled whole `time` after its
 * first request took one: what the headers promise ("r left, whole again in
 * t seconds") is then true to the request, and the same counting can be done
 * in Redis with INCR and PEXPIRE (ngx_hm_cluster.c).  A bucket refilled drop
 * by drop would admit up to twice the number in one `time`.
 *
 * Rows live in a shared zone: a table of sets of eight, each set with a lock
 * of its own.  In a full set the row whose window ends first makes room,
 * that of an anonymous caller before a person's: whoever has many addresses
 * can at most make anonymous counting forgetful.  healthmate_zone says how
 * many rows there are.  Tries at passwords are another matter and are never
 * forgotten: ngx_hm_login.c, in the same zone.
 *
 * Times are milliseconds of the monotonic clock, which all processes share
 * and nobody sets back.  The metrics stand in the same zone.  It outlives a
 * reload as long as its size stays the same.
 */

#include "ngx_hm.h"
#include "ngx_hm_limit.h"


#define NGX_HM_SET           8
#define NGX_HM_LOCK_TRIES    1000000
#define NGX_HM_LAYOUT        2

/* Shares of what the metrics leave of the zone, in hundredths. */
#define NGX_HM_SHARE_RATES   50
#define NGX_HM_SHARE_LOGINS  42


typedef struct {
    uint64_t      key;
    uint64_t      until;         /* 0: free */
    uint32_t      used;
    uint32_t      person;        /* not an address */
} ngx_hm_rate_row_t;


typedef struct {
    ngx_atomic_t        lock;
    ngx_hm_rate_row_t   rows[NGX_HM_SET];
} ngx_hm_rate_set_t;


typedef struct {
    ngx_uint_t          version;
    uint64_t            seed;
    ngx_uint_t          nsets;
    ngx_hm_rate_set_t  *sets;
    void               *logins;
    u_char             *metrics;
} ngx_hm_shared_t;


static ngx_hm_shared_t  *ngx_hm_shared;


static const char  *ngx_hm_class_names[] = {
#define X(id, name, n)  name,
    NGX_HM_CLASSES(X)
#undef X
};


static ngx_hm_rate_row_t *ngx_hm_rate_row(uint64_t key, uint64_t now,
    uint64_t window, ngx_uint_t person);
static ngx_hm_rate_row_t *ngx_hm_rate_victim(ngx_hm_rate_set_t *set,
    uint64_t now, ngx_uint_t person);
static void ngx_hm_rate_done(uint64_t key);


ngx_int_t
ngx_hm_zone_init(ngx_shm_zone_t *zone, void *data)
{
    size_t            size, metrics;
    ngx_slab_pool_t  *pool;
    ngx_hm_shared_t  *old = data;
    ngx_hm_shared_t  *sh;

    pool = (ngx_slab_pool_t *) zone->shm.addr;

    if (old != NULL) {
        zone->data = old;
        return NGX_OK;
    }

    if (zone->shm.exists) {
        zone->data = pool->data;
        return NGX_OK;
    }

    sh = ngx_slab_calloc(pool, sizeof(ngx_hm_shared_t));
    if (sh == NULL) {
        return NGX_ERROR;
    }

    sh->version = NGX_HM_LAYOUT;
    (void) hm_random(&sh->seed, sizeof(sh->seed));

    metrics = ngx_hm_metrics_size();
    sh->metrics = ngx_slab_calloc(pool, metrics);

    size = zone->shm.size > metrics + 65536
           ? (zone->shm.size - metrics - 65536) / 100 : 0;

    sh->nsets = size * NGX_HM_SHARE_RATES / sizeof(ngx_hm_rate_set_t);
    sh->sets = sh->nsets != 0
               ? ngx_slab_calloc(pool,
                                 sh->nsets * sizeof(ngx_hm_rate_set_t))
               : NULL;
    sh->logins = ngx_hm_login_zone(pool, size * NGX_HM_SHARE_LOGINS);

    if (sh->metrics == NULL || sh->sets == NULL || sh->logins == NULL) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "healthmate_zone is too small: at least 1m");
        return NGX_ERROR;
    }

    pool->data = sh;
    zone->data = sh;

    return NGX_OK;
}


/* In a worker: the zone of the configuration it runs with. */
void
ngx_hm_zone_attach(ngx_shm_zone_t *zone)
{
    ngx_hm_shared = zone->data;
    ngx_hm_login_attach(ngx_hm_shared->logins);
    ngx_hm_metrics_attach(ngx_hm_shared->metrics);
}


/*
 * A worker that is killed inside leaves the lock to nobody: its value is the
 * owner's pid, and a dead owner's lock is taken over.  An owner that lost
 * its processor gets it by our giving way.
 */
ngx_uint_t
ngx_hm_shm_lock(ngx_atomic_t *lock)
{
    ngx_uint_t    i;
    ngx_atomic_t  owner;

    for (i = 0; i < NGX_HM_LOCK_TRIES; i++) {

        owner = *lock;

        if (owner == 0) {
            if (ngx_atomic_cmp_set(lock, 0, ngx_pid)) {
                return 1;
            }

        } else if (i % 1024 == 1023) {
            if (kill((ngx_pid_t) owner, 0) == -1 && ngx_errno == ESRCH
                && ngx_atomic_cmp_set(lock, owner, ngx_pid))
            {
                return 1;
            }

            ngx_sched_yield();
        }

        ngx_cpu_pause();
    }

    return 0;
}


/* Who makes room in a full set: anonymous callers first. */
static ngx_hm_rate_row_t *
ngx_hm_rate_victim(ngx_hm_rate_set_t *set, uint64_t now, ngx_uint_t person)
{
    ngx_uint_t          i;
    ngx_hm_rate_row_t  *row, *victim;

    victim = NULL;

    for (i = 0; i < NGX_HM_SET; i++) {
        row = &set->rows[i];

        if (row->until <= now) {
            return row;
        }

        if (victim == NULL
            || row->person < victim->person
            || (row->person == victim->person
                && row->until < victim->until))
        {
            victim = row;
        }
    }

    return victim;
}


/* The row of a key, locked with its set; NULL: the set cannot be had. */
static ngx_hm_rate_row_t *
ngx_hm_rate_row(uint64_t key, uint64_t now, uint64_t window,
    ngx_uint_t person)
{
    ngx_uint_t          i;
    ngx_hm_rate_set_t  *set;
    ngx_hm_rate_row_t  *row;

    set = &ngx_hm_shared->sets[key % ngx_hm_shared->nsets];

    if (!ngx_hm_shm_lock(&set->lock)) {
        return NULL;
    }

    for (i = 0; i < NGX_HM_SET; i++) {
        row = &set->rows[i];

        if (row->key == key && row->until > now) {
            return row;
        }
    }

    row = ngx_hm_rate_victim(set, now, person);
    row->key = key;
    row->used = 0;
    row->person = (uint32_t) person;
    row->until = now + window;

    return row;
}


static void
ngx_hm_rate_done(uint64_t key)
{
    ngx_unlock(&ngx_hm_shared->sets[key % ngx_hm_shared->nsets].lock);
}


/*
 * Takes n of the caller's quota.  With limits off everything is counted and
 * nothing refused.
 */
hm_problem_t
ngx_hm_limit(ngx_hm_ctx_t *hm, ngx_hm_class_t rate, ngx_uint_t n)
{
    size_t              len;
    u_char              who[NGX_HM_CALLER];
    uint64_t            key, now, until, window;
    uint32_t            quota, left;
    ngx_uint_t          refused;
    ngx_hm_rate_row_t  *row;

    quota = (uint32_t) hm->conf->quota[rate];
    window = (uint64_t) hm->conf->window[rate] * 1000;
    now = ngx_current_msec;

    len = ngx_hm_caller(hm, rate, who);
    key = ngx_hm_shm_key(who, len);
    row = ngx_hm_rate_row(key, now, window, hm->signed_in);

    if (row == NULL) {
        return HM_PROBLEM_OVERLOADED;
    }

    left = row->used < quota ? quota - row->used : 0;
    refused = hm->conf->limits && n > left;

    if (!refused) {
        row->used = n < UINT32_MAX - row->used ? row->used + (uint32_t) n
                                               : UINT32_MAX;
        left = n < left ? left - (uint32_t) n : 0;
    }

    until = row->until;

    ngx_hm_rate_done(key);

    hm->rate_class = rate;
    hm->rate_quota = quota;
    hm->rate_left = left;
    hm->rate_reset = until > now ? (ngx_uint_t) ((until - now + 999) / 1000)
                                 : 1;

    if (refused) {
        hm->headers.retry_after = hm->rate_reset;
        ngx_hm_count(NGX_HM_M_LIMITED, 1);
        (void) ngx_hm_fail_detail(hm, HM_PROBLEM_RATE_LIMITED,
                                  "%u in %u s in class %s",
                                  (unsigned) quota,
                                  (unsigned) (window / 1000),
                                  ngx_hm_class_names[rate]);
        return HM_PROBLEM_RATE_LIMITED;
    }

    if (hm->conf->cluster && n != 0) {
        ngx_hm_cluster_add(NGX_HM_OF_RATE, who, len, key, (ngx_int_t) n,
                           window);
    }

    return HM_PROBLEM_NONE;
}


/* What the cluster has counted: this bucket is never behind it. */
void
ngx_hm_limit_learn(uint64_t key, uint64_t used, uint64_t rest)
{
    uint64_t            now;
    ngx_uint_t          i;
    ngx_hm_rate_set_t  *set;
    ngx_hm_rate_row_t  *row;

    now = ngx_current_msec;
    set = &ngx_hm_shared->sets[key % ngx_hm_shared->nsets];

    if (!ngx_hm_shm_lock(&set->lock)) {
        return;
    }

    for (i = 0; i < NGX_HM_SET; i++) {
        row = &set->rows[i];

        if (row->key == key && row->until > now) {
            row->used = ngx_max(row->used,
                                (uint32_t) ngx_min(used, UINT32_MAX));

            if (rest != 0) {
                row->until = now + rest;
            }

            break;
        }
    }

    ngx_hm_rate_done(key);
}


/*
 * Who a request is counted for: the person, else the address; for tries at
 * passwords (NGX_HM_CLASS_LAST) the network, a /24 or a /64.
 */
size_t
ngx_hm_caller(ngx_hm_ctx_t *hm, ngx_hm_class_t rate,
    u_char out[NGX_HM_CALLER])
{
    u_char            *p;
    size_t             len;
    ngx_connection_t  *c;

    out[0] = (u_char) rate;

    if (hm->signed_in && rate != NGX_HM_CLASS_LAST) {
        out[1] = 'u';
        ngx_memcpy(out + 2, hm->who.sub.b, 16);
        return 18;
    }

    c = hm->request->connection;

    switch (c->sockaddr->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        p = ((struct sockaddr_in6 *) c->sockaddr)->sin6_addr.s6_addr;

        if (!IN6_IS_ADDR_V4MAPPED((struct in6_addr *) (void *) p)) {
            out[1] = '6';
            ngx_memcpy(out + 2, p, 8);   /* a household has a /64 */
            return 10;
        }

        p += 12;
        break;
#endif

    case AF_INET:
        p = (u_char *) &((struct sockaddr_in *) c->sockaddr)->sin_addr;
        break;

    default:
        len = ngx_min(c->addr_text.len, NGX_HM_CALLER - 2);
        out[1] = 't';
        ngx_memcpy(out + 2, c->addr_text.data, len);
        return 2 + len;
    }

    len = rate == NGX_HM_CLASS_LAST ? 3 : 4;
    out[1] = '4';
    ngx_memcpy(out + 2, p, len);

    return 2 + len;
}


/* Keys of rows: multiply-and-fold under the zone's own secret. */
uint64_t
ngx_hm_shm_key(const u_char *p, size_t len)
{
    size_t       i;
    uint64_t     h, w;
    __uint128_t  m;

    h = ngx_hm_shared->seed + len;

    for (i = 0; i < len; i += 8) {
        w = 0;
        ngx_memcpy(&w, p + i, ngx_min(8, len - i));
        m = (__uint128_t) (h ^ w) * 0xd6e8feb86659fd93ULL;
        h = (uint64_t) m ^ (uint64_t) (m >> 64);
    }

    /* once more: the last word shall move every bit */
    m = (__uint128_t) (h ^ (h >> 32)) * 0x9e3779b97f4a7c15ULL;
    h = (uint64_t) m ^ (uint64_t) (m >> 64);

    return h != 0 ? h : 1;
}
