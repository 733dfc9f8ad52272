/*
 * ngx_hm_feed: what the check (ngx_hm_feed.c) and the listener
 * (ngx_hm_listen.c) share: the zone.
 */

#ifndef NGX_HM_FEED_H
#define NGX_HM_FEED_H

#include "ngx_hm.h"
#include "hm_revoked.h"


#define NGX_HM_FEED_STALE   750          /* ms without a heartbeat */
#define NGX_HM_FEED_KEYS    256          /* a power of two */

#define ngx_hm_get(p)       __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define ngx_hm_set(p, v)    __atomic_store_n(p, v, __ATOMIC_RELEASE)


typedef struct {
    /* one cache line: all that a check reads in front of the set */
    int64_t                 fresh;       /* ms; 0: never */
    uint64_t                full;
    uint64_t                keys;        /* events of keys so far */
    u_char                  line[40];

    hm_revoked_t            set;

    /* who listens */
    uint64_t                owner;       /* pid; 0: nobody */
    int64_t                 alive;       /* ms: its last turn */

    ngx_uint_t              layout;

    /* whose keys; all bits set: everybody's */
    hm_uuid_t               key[NGX_HM_FEED_KEYS];
} ngx_hm_feed_zone_t;


typedef struct {
    hm_str_t                kind;
    hm_uuid_t               subject;
    hm_usec_t               at;
    uint32_t                expires;
} ngx_hm_feed_event_t;


extern ngx_hm_feed_zone_t  *ngx_hm_feed;


int64_t ngx_hm_feed_clock(void);         /* ms, one clock for all workers */
void ngx_hm_feed_turn(int64_t now);
/* The writer's: NGX_DECLINED: not an event; NGX_BUSY: no room for it. */
ngx_int_t ngx_hm_feed_event(hm_revoked_writer_t *w,
    const ngx_hm_feed_event_t *e);
void ngx_hm_feed_key(const hm_uuid_t *user);     /* NULL: everybody */

ngx_int_t ngx_hm_listen_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log);
void ngx_hm_listen_stop(void);

#endif
