/*
 * ngx_hm_login: how often somebody may be wrong about a password.
 *
 * A try is taken before the password is hashed, so that ten thousand at once
 * count as ten thousand.  It is given back when nothing was tried after all
 * (a full queue) and when it was right.  Three counters:
 *
 *   network  account and /24 or /64 of a stranger: 5 in 300 s
 *   account  all strangers together: 100 in a day
 *   device   a device that has logged in to this account before
 *            (ngx_hm_device.c): 5 in 300 s, 100 in a day, its own
 *
 * So a stranger, or a thousand of them, can lock out other strangers and not
 * the owner at the owner's device.  Accounts that do not exist are counted
 * like all others: the key is made from the address that was typed.
 *
 * A live counter is never forgotten.  Networks and devices have tables of
 * their own, sets of eight; in a full set a newcomer is refused.  Nobody
 * without a device's cookie can fill the devices' table.  Accounts are not
 * kept by name: a day is long enough for a botnet to fill any table with
 * names it made up.  They count in two places each, of many, chosen by a
 * hash under the zone's secret, and the lower figure holds.  Two accounts
 * that share both places are told "too many" too early, never too late.
 *
 * One lock for all: a login costs ten thousand times what is done inside.
 */

#include "ngx_hm_limit.h"


#define NGX_HM_TRY_SET   8


typedef struct {
    uint64_t      key;
    uint64_t      until;         /* ms; of the short window */
    uint64_t      end;           /* from then on it is free */
    uint32_t      used;
    uint32_t      total;         /* of a device, until its end */
} ngx_hm_try_row_t;


typedef struct {
    uint32_t      until;         /* seconds */
    uint32_t      used;
} ngx_hm_try_place_t;


typedef struct {
    ngx_atomic_t          lock;
    ngx_uint_t            nrows;         /* multiples of a set */
    ngx_uint_t            ndevices;
    ngx_uint_t            nplaces;
    ngx_hm_try_row_t     *rows;
    ngx_hm_try_row_t     *devices;
    ngx_hm_try_place_t   *places;
} ngx_hm_logins_t;


static ngx_hm_logins_t  *ngx_hm_logins;


static uint64_t ngx_hm_try_stranger(ngx_hm_ctx_t *hm, uint64_t now);
static uint64_t ngx_hm_try_device(ngx_hm_ctx_t *hm, uint64_t now);
static ngx_hm_try_row_t *ngx_hm_try_row(ngx_hm_try_row_t *rows, ngx_uint_t n,
    uint64_t key, uint64_t now, uint64_t *wait);
static void ngx_hm_try_one(ngx_hm_try_row_t *row, ngx_hm_try_t *t,
    uint64_t now, time_t window, time_t life);
static void ngx_hm_try_places(uint64_t key, uint64_t now,
    ngx_hm_try_place_t *at[2]);
static void ngx_hm_try_release(ngx_hm_ctx_t *hm, ngx_uint_t right);
static void ngx_hm_try_tell(ngx_hm_ctx_t *hm, ngx_int_t one,
    ngx_int_t account);


void *
ngx_hm_login_zone(ngx_slab_pool_t *pool, size_t size)
{
    size_t            set;
    ngx_hm_logins_t  *l;

    l = ngx_slab_calloc(pool, sizeof(ngx_hm_logins_t));
    if (l == NULL) {
        return NULL;
    }

    set = NGX_HM_TRY_SET * sizeof(ngx_hm_try_row_t);

    l->nrows = size / 20 * 11 / set * NGX_HM_TRY_SET;
    l->ndevices = size / 20 * 3 / set * NGX_HM_TRY_SET;
    l->nplaces = size / 20 * 6 / sizeof(ngx_hm_try_place_t);

    if (l->nrows == 0 || l->ndevices == 0 || l->nplaces < 2) {
        return NULL;
    }

    l->rows = ngx_slab_calloc(pool, l->nrows * sizeof(ngx_hm_try_row_t));
    l->devices = ngx_slab_calloc(pool,
                                 l->ndevices * sizeof(ngx_hm_try_row_t));
    l->places = ngx_slab_calloc(pool,
                                l->nplaces * sizeof(ngx_hm_try_place_t));

    return l->rows != NULL && l->devices != NULL && l->places != NULL
           ? l : NULL;
}


void
ngx_hm_login_attach(void *shared)
{
    ngx_hm_logins = shared;
}


/*
 * Takes a try at the account (32 bytes that name it), from hm->device when
 * that is one of the account's, else from the caller's network.
 */
hm_problem_t
ngx_hm_try_take(ngx_hm_ctx_t *hm, const unsigned char account[32])
{
    size_t         len;
    uint64_t       wait, now;
    ngx_hm_try_t  *t = &hm->tried;
    u_char         who[NGX_HM_CALLER + 32];

    ngx_memzero(t, sizeof(ngx_hm_try_t));
    now = ngx_current_msec;

    len = ngx_hm_caller(hm, NGX_HM_CLASS_LAST, who);
    ngx_memcpy(who + len, account, 32);
    ngx_memcpy(t->name, account, 32);

    t->key = ngx_hm_shm_key(who, len + 32);
    t->account = ngx_hm_shm_key(account, 32);

    if (!ngx_hm_shm_lock(&ngx_hm_logins->lock)) {
        return HM_PROBLEM_OVERLOADED;
    }

    wait = hm->device.known ? ngx_hm_try_device(hm, now) : 0;

    if (!t->taken && wait == 0) {
        wait = ngx_hm_try_stranger(hm, now);
    }

    ngx_unlock(&ngx_hm_logins->lock);

    if (!t->taken) {
        hm->headers.retry_after = (ngx_uint_t) ((wait + 999) / 1000);
        ngx_hm_count(NGX_HM_M_TRIES_REFUSED, 1);

        return HM_PROBLEM_TOO_MANY_ATTEMPTS;
    }

    ngx_hm_try_tell(hm, 1, 1);

    return HM_PROBLEM_NONE;
}


/* Nothing was tried after all. */
void
ngx_hm_try_back(ngx_hm_ctx_t *hm)
{
    ngx_hm_try_release(hm, 0);
}


/* It was right: the device, or the network, starts anew. */
void
ngx_hm_try_right(ngx_hm_ctx_t *hm)
{
    ngx_hm_try_release(hm, 1);
}


/*
 * For endpoints that ask a password of somebody who is signed in: the device
 * is trusted by its cookie alone.
 */
hm_problem_t
ngx_hm_login_try(ngx_hm_ctx_t *hm, const unsigned char account[32],
    ngx_uint_t success)
{
    if (success) {
        ngx_hm_try_right(hm);
        return HM_PROBLEM_NONE;
    }

    ngx_hm_device_read(hm);

    hm->device.known = hm->device.genuine && hm->signed_in
                       && hm_uuid_eq(&hm->device.user, &hm->who.sub);

    return ngx_hm_try_take(hm, account);
}


/* 0: taken, else how long to wait. */
static uint64_t
ngx_hm_try_stranger(ngx_hm_ctx_t *hm, uint64_t now)
{
    uint64_t             wait;
    ngx_uint_t           i;
    ngx_hm_try_t        *t = &hm->tried;
    ngx_hm_try_row_t    *row;
    ngx_hm_try_place_t  *at[2];
    ngx_hm_main_conf_t  *mcf = hm->conf;

    wait = 0;
    row = ngx_hm_try_row(ngx_hm_logins->rows, ngx_hm_logins->nrows, t->key,
                         now, &wait);

    if (row != NULL && row->used >= mcf->login_tries) {
        wait = row->until - now;
    }

    ngx_hm_try_places(t->account, now, at);

    if (ngx_min(at[0]->used, at[1]->used) >= mcf->ceiling_tries) {
        wait = ngx_max(wait, (uint64_t) ngx_min(at[0]->until, at[1]->until)
                             * 1000 - now);
    }

    if (wait != 0 && mcf->limits) {
        return wait;
    }

    if (row != NULL) {
        ngx_hm_try_one(row, t, now, mcf->login_window, mcf->login_window);
    }

    for (i = 0; i < 2; i++) {
        if (at[i]->until == 0) {
            at[i]->until = (uint32_t) (now / 1000 + 1)
                           + (uint32_t) mcf->ceiling_window;
        }

        at[i]->used++;
        t->places[i] = at[i]->until;
    }

    t->taken = 1;

    return 0;
}


/* 0 and not taken: it was wrong too often today, and is a stranger. */
static uint64_t
ngx_hm_try_device(ngx_hm_ctx_t *hm, uint64_t now)
{
    uint64_t             wait;
    ngx_hm_try_t        *t = &hm->tried;
    ngx_hm_try_row_t    *row;
    ngx_hm_main_conf_t  *mcf = hm->conf;

    wait = 0;
    row = ngx_hm_try_row(ngx_hm_logins->devices, ngx_hm_logins->ndevices,
                         ngx_hm_shm_key(hm->device.id.b, 16), now, &wait);

    if (row != NULL) {
        if (row->total >= mcf->ceiling_tries) {
            return 0;
        }

        if (row->until <= now) {
            row->used = 0;
        }

        if (row->used >= mcf->login_tries) {
            wait = row->until - now;
        }
    }

    if (wait != 0 && mcf->limits) {
        return wait;
    }

    if (row != NULL) {
        ngx_hm_try_one(row, t, now, mcf->login_window, mcf->ceiling_window);
    }

    t->taken = 1;
    t->of_device = 1;

    return 0;
}


/*
 * The row of a key, or a free one for it; NULL: the set is full, and wait
 * says when it will not be.
 */
static ngx_hm_try_row_t *
ngx_hm_try_row(ngx_hm_try_row_t *rows, ngx_uint_t n, uint64_t key,
    uint64_t now, uint64_t *wait)
{
    uint64_t           soon;
    ngx_uint_t         i;
    ngx_hm_try_row_t  *row, *empty;

    rows += key % (n / NGX_HM_TRY_SET) * NGX_HM_TRY_SET;
    empty = NULL;
    soon = UINT64_MAX;

    for (i = 0; i < NGX_HM_TRY_SET; i++) {
        row = &rows[i];

        if (row->end <= now) {
            empty = row;

        } else if (row->key == key) {
            return row;

        } else {
            soon = ngx_min(soon, row->end);
        }
    }

    if (empty == NULL) {
        ngx_hm_count(NGX_HM_M_TRIES_FULL, 1);
        *wait = soon - now;
        return NULL;
    }

    ngx_memzero(empty, sizeof(ngx_hm_try_row_t));
    empty->key = key;

    return empty;
}


static void
ngx_hm_try_one(ngx_hm_try_row_t *row, ngx_hm_try_t *t, uint64_t now,
    time_t window, time_t life)
{
    if (row->used == 0) {
        row->until = now + (uint64_t) window * 1000;
    }

    if (row->end == 0) {
        row->end = now + (uint64_t) life * 1000;
    }

    row->used++;
    row->total++;

    t->row = row;
    t->row_key = row->key;
    t->end = row->end;
    t->until = row->until;
}


/* The two places an account counts in. */
static void
ngx_hm_try_places(uint64_t key, uint64_t now, ngx_hm_try_place_t *at[2])
{
    uint64_t    other;
    ngx_uint_t  i, n;

    n = ngx_hm_logins->nplaces;
    other = (key ^ (key >> 29)) * 0xbf58476d1ce4e5b9ULL;
    other = (other ^ (other >> 32)) % n;

    if (other == key % n) {
        other = (other + 1) % n;
    }

    at[0] = &ngx_hm_logins->places[key % n];
    at[1] = &ngx_hm_logins->places[other];

    for (i = 0; i < 2; i++) {
        if (at[i]->until <= now / 1000) {
            at[i]->until = 0;
            at[i]->used = 0;
        }
    }
}


/* From each counter only while it is still the one that was counted in. */
static void
ngx_hm_try_release(ngx_hm_ctx_t *hm, ngx_uint_t right)
{
    uint64_t             now;
    ngx_uint_t           i;
    ngx_hm_try_t        *t = &hm->tried;
    ngx_hm_try_row_t    *row;
    ngx_hm_try_place_t  *at[2];

    if (!t->taken || !ngx_hm_shm_lock(&ngx_hm_logins->lock)) {
        return;
    }

    t->taken = 0;
    now = ngx_current_msec;
    row = t->row;

    if (row != NULL && row->key == t->row_key && row->end == t->end) {

        if (right) {
            row->end = 0;

        } else {
            row->total -= row->total != 0;
            row->used -= row->until == t->until && row->used != 0;
        }
    }

    if (!t->of_device) {
        ngx_hm_try_places(t->account, now, at);

        for (i = 0; i < 2; i++) {
            at[i]->used -= at[i]->until == t->places[i] && at[i]->used != 0;
        }
    }

    ngx_unlock(&ngx_hm_logins->lock);

    ngx_hm_try_tell(hm, right ? 0 : -1, -1);
}


/* The cluster's counters: one of a network or a device, the account's. */
static void
ngx_hm_try_tell(ngx_hm_ctx_t *hm, ngx_int_t one, ngx_int_t account)
{
    size_t         len;
    uint64_t       window;
    ngx_hm_try_t  *t = &hm->tried;
    u_char         who[NGX_HM_CALLER + 32];

    if (!hm->conf->cluster || hm->request == NULL) {
        return;
    }

    window = (uint64_t) hm->conf->login_window * 1000;

    if (t->of_device) {
        ngx_hm_cluster_add(NGX_HM_OF_DEVICE, hm->device.id.b, 16,
                           ngx_hm_shm_key(hm->device.id.b, 16), one, window);
        return;
    }

    len = ngx_hm_caller(hm, NGX_HM_CLASS_LAST, who);
    ngx_memcpy(who + len, t->name, 32);

    ngx_hm_cluster_add(NGX_HM_OF_TRY, who, len + 32, t->key, one, window);
    ngx_hm_cluster_add(NGX_HM_OF_ACCOUNT, t->name, 32, t->account, account,
                       (uint64_t) hm->conf->ceiling_window * 1000);
}


/* What all nodes have counted: this one's counter is never behind it. */
void
ngx_hm_login_learn(ngx_hm_counter_t of, uint64_t key, uint64_t used)
{
    uint32_t             n;
    uint64_t             now, wait;
    ngx_uint_t           i;
    ngx_hm_try_row_t    *row;
    ngx_hm_try_place_t  *at[2];

    if (!ngx_hm_shm_lock(&ngx_hm_logins->lock)) {
        return;
    }

    now = ngx_current_msec;
    n = (uint32_t) ngx_min(used, UINT32_MAX);

    if (of == NGX_HM_OF_ACCOUNT) {
        ngx_hm_try_places(key, now, at);

        for (i = 0; i < 2; i++) {
            if (at[i]->until != 0) {
                at[i]->used = ngx_max(at[i]->used, n);
            }
        }

    } else {
        row = of == NGX_HM_OF_DEVICE
              ? ngx_hm_try_row(ngx_hm_logins->devices,
                               ngx_hm_logins->ndevices, key, now, &wait)
              : ngx_hm_try_row(ngx_hm_logins->rows, ngx_hm_logins->nrows,
                               key, now, &wait);

        if (row != NULL && row->end > now && row->until > now) {
            row->used = ngx_max(row->used, n);
        }
    }

    ngx_unlock(&ngx_hm_logins->lock);
}
