/*
 * ngx_hm_limit: rate classes, counted exactly across workers and reloads.
 *
 * A row counts one caller (person, or address when anonymous) in one class,
 * in a window that starts with its first request.  Rows live in a shared
 * zone: a table of sets of eight, each set with a lock of its own.  In a
 * full set the row whose window ends first makes room, which can only be to
 * the caller's advantage when more callers are active than the zone has
 * rows; healthmate_zone says how many that is.
 *
 * The metrics stand in the same zone.
 */

#include "ngx_hm.h"


#define NGX_HM_SET           8
#define NGX_HM_LOGIN_TRIES   5
#define NGX_HM_LOGIN_WINDOW  300


typedef struct {
    uint64_t      key;
    uint32_t      until;         /* seconds; 0: free */
    uint32_t      used;
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
    u_char             *metrics;
} ngx_hm_shared_t;


#define NGX_HM_LAYOUT    1
#define NGX_HM_LOCK_TRIES   1000000


static ngx_hm_shared_t  *ngx_hm_shared;


static const char  *ngx_hm_class_names[] = {
#define X(id, name, n)  name,
    NGX_HM_CLASSES(X)
#undef X
};


static uint64_t ngx_hm_rate_key(ngx_hm_ctx_t *hm, ngx_hm_class_t rate);
static uint64_t ngx_hm_mix(uint64_t h, const u_char *p, size_t len);
static ngx_hm_rate_row_t *ngx_hm_rate_row(uint64_t key, uint32_t now,
    uint32_t window);
static void ngx_hm_rate_done(uint64_t key);
static ngx_uint_t ngx_hm_set_lock(ngx_hm_rate_set_t *set);


ngx_int_t
ngx_hm_zone_init(ngx_shm_zone_t *zone, void *data)
{
    size_t            size;
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

    sh->metrics = ngx_slab_calloc(pool, ngx_hm_metrics_size());

    /* half of what is left: the slab keeps pages of its own */

    size = zone->shm.size > ngx_hm_metrics_size() + 65536
           ? (zone->shm.size - ngx_hm_metrics_size() - 65536) / 4 * 3 : 0;
    sh->nsets = size / sizeof(ngx_hm_rate_set_t);
    sh->sets = sh->nsets != 0
               ? ngx_slab_calloc(pool,
                                 sh->nsets * sizeof(ngx_hm_rate_set_t))
               : NULL;

    if (sh->metrics == NULL || sh->sets == NULL) {
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
    ngx_hm_metrics_attach(ngx_hm_shared->metrics);
}


/*
 * A worker that is killed inside leaves the lock to nobody: its value is the
 * owner's pid, and a dead owner's lock is taken over.
 */
static ngx_uint_t
ngx_hm_set_lock(ngx_hm_rate_set_t *set)
{
    ngx_uint_t    i;
    ngx_atomic_t  owner;

    for (i = 0; i < NGX_HM_LOCK_TRIES; i++) {

        owner = set->lock;

        if (owner == 0) {
            if (ngx_atomic_cmp_set(&set->lock, 0, ngx_pid)) {
                return 1;
            }

        } else if (i % 1024 == 1023 && kill((ngx_pid_t) owner, 0) == -1
                   && ngx_errno == ESRCH
                   && ngx_atomic_cmp_set(&set->lock, owner, ngx_pid))
        {
            return 1;
        }

        ngx_cpu_pause();
    }

    return 0;
}


/* The row of a key, locked with its set; NULL: the set cannot be had. */
static ngx_hm_rate_row_t *
ngx_hm_rate_row(uint64_t key, uint32_t now, uint32_t window)
{
    ngx_uint_t          i;
    ngx_hm_rate_set_t  *set;
    ngx_hm_rate_row_t  *row, *victim;

    set = &ngx_hm_shared->sets[key % ngx_hm_shared->nsets];

    if (!ngx_hm_set_lock(set)) {
        return NULL;
    }

    row = NULL;
    victim = &set->rows[0];

    for (i = 0; i < NGX_HM_SET; i++) {
        if (set->rows[i].until > now + 86400) {
            set->rows[i].until = 0;      /* the clock was set back */
        }

        if (set->rows[i].key == key && set->rows[i].until > now) {
            row = &set->rows[i];
            break;
        }

        if (set->rows[i].until < victim->until) {
            victim = &set->rows[i];
        }
    }

    if (row == NULL) {
        row = victim;
        row->key = key;
        row->used = 0;
        row->until = now + window;
    }

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
    uint64_t            key;
    uint32_t            now, quota, window, used, until;
    ngx_uint_t          refused;
    ngx_hm_rate_row_t  *row;

    quota = (uint32_t) hm->conf->quota[rate];
    window = (uint32_t) hm->conf->window[rate];
    now = (uint32_t) ngx_time();         /* a long upload goes on counting */

    key = ngx_hm_rate_key(hm, rate);
    row = ngx_hm_rate_row(key, now, window);

    if (row == NULL) {
        return HM_PROBLEM_OVERLOADED;
    }

    refused = hm->conf->limits
              && (row->used + n > quota || row->used >= quota);

    if (!refused) {
        row->used += (uint32_t) n;
    }

    used = row->used;
    until = row->until;

    ngx_hm_rate_done(key);

    hm->rate_class = rate;
    hm->rate_quota = quota;
    hm->rate_left = used >= quota ? 0 : quota - used;
    hm->rate_reset = until - now;

    if (refused) {
        hm->headers.retry_after = hm->rate_reset;
        (void) ngx_hm_fail_detail(hm, HM_PROBLEM_RATE_LIMITED,
                                  "%u in %u s in class %s",
                                  (unsigned) quota, (unsigned) window,
                                  ngx_hm_class_names[rate]);
        return HM_PROBLEM_RATE_LIMITED;
    }

    return HM_PROBLEM_NONE;
}


/*
 * A try to log in to an account from a network (/24, /64): five failures in
 * 300 s, whether the account exists or not.  The try is taken before the
 * password is hashed, so that parallel ones count; a success gives all back.
 */
hm_problem_t
ngx_hm_login_try(ngx_hm_ctx_t *hm, const u_char account[32],
    ngx_uint_t success)
{
    uint64_t            key;
    uint32_t            now;
    ngx_uint_t          refused;
    ngx_hm_rate_row_t  *row;

    now = (uint32_t) ngx_time();
    key = ngx_hm_mix(ngx_hm_rate_key(hm, NGX_HM_CLASS_LAST), account, 32);
    row = ngx_hm_rate_row(key, now, NGX_HM_LOGIN_WINDOW);

    if (row == NULL) {
        return HM_PROBLEM_OVERLOADED;
    }

    refused = hm->conf->limits && row->used >= NGX_HM_LOGIN_TRIES;
    hm->headers.retry_after = row->until - now;

    if (success) {
        row->used = 0;
        refused = 0;

    } else if (!refused) {
        row->used++;
    }

    ngx_hm_rate_done(key);

    return refused ? HM_PROBLEM_TOO_MANY_ATTEMPTS : HM_PROBLEM_NONE;
}


static uint64_t
ngx_hm_rate_key(ngx_hm_ctx_t *hm, ngx_hm_class_t rate)
{
    uint64_t           h;
    ngx_connection_t  *c;

    h = ngx_hm_shared->seed + (uint64_t) rate;

    if (hm->signed_in && rate != NGX_HM_CLASS_LAST) {
        return ngx_hm_mix(h, hm->who.sub.b, 16);
    }

    c = hm->request->connection;
    h ^= 0x5bd1e995;

#if (NGX_HAVE_INET6)
    if (c->sockaddr->sa_family == AF_INET6) {
        /* a household has a /64 */
        return ngx_hm_mix(h, ((struct sockaddr_in6 *) c->sockaddr)
                             ->sin6_addr.s6_addr, 8);
    }
#endif

    if (c->sockaddr->sa_family == AF_INET) {
        /* one address in the classes, its /24 for tries to log in */
        return ngx_hm_mix(h, (u_char *) &((struct sockaddr_in *) c->sockaddr)
                             ->sin_addr, rate == NGX_HM_CLASS_LAST ? 3 : 4);
    }

    return ngx_hm_mix(h, c->addr_text.data, c->addr_text.len);
}


static uint64_t
ngx_hm_mix(uint64_t h, const u_char *p, size_t len)
{
    size_t       i;
    uint64_t     w;
    __uint128_t  m;

    for (i = 0; i < len; i += 8) {
        w = 0;
        ngx_memcpy(&w, p + i, ngx_min(8, len - i));
        m = (__uint128_t) (h ^ w) * 0xd6e8feb86659fd93ULL;
        h = (uint64_t) m ^ (uint64_t) (m >> 64);
    }

    return h != 0 ? h : 1;
}
