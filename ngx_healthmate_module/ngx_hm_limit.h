/*
 * ngx_hm_limit.h: what the files that count in shared memory share
 * (ngx_hm_limit.c, ngx_hm_login.c, ngx_hm_cluster.c).
 */

#ifndef NGX_HM_LIMIT_H
#define NGX_HM_LIMIT_H

#include "ngx_hm.h"


#define NGX_HM_CALLER   40               /* bytes that say who is counted */

/* What a counter counts: requests, or tries by one of three measures. */
typedef enum {
    NGX_HM_OF_RATE = 0, NGX_HM_OF_TRY, NGX_HM_OF_DEVICE, NGX_HM_OF_ACCOUNT
} ngx_hm_counter_t;


ngx_uint_t ngx_hm_shm_lock(ngx_atomic_t *lock);  /* 0: cannot be had */
uint64_t ngx_hm_shm_key(const u_char *p, size_t len);
size_t ngx_hm_caller(ngx_hm_ctx_t *hm, ngx_hm_class_t rate,
    u_char out[NGX_HM_CALLER]);

/* The login limiter's part of the zone. */
void *ngx_hm_login_zone(ngx_slab_pool_t *pool, size_t size);
void ngx_hm_login_attach(void *shared);

/*
 * Tells Redis of n more (0: forget the counter); its answer comes back to
 * the learners, with what is left of its window.
 */
void ngx_hm_cluster_add(ngx_hm_counter_t of, const u_char *who, size_t len,
    uint64_t key, ngx_int_t n, uint64_t window);
void ngx_hm_limit_learn(uint64_t key, uint64_t used, uint64_t rest);
void ngx_hm_login_learn(ngx_hm_counter_t of, uint64_t key, uint64_t used);

#endif
