/*
 * ngx_hm_feed: is this token still good?  Asked of every request, whatever
 * the token cache says.
 *
 * What was revoked stands in a shared zone (hm_revoked.h) that one worker
 * keeps up to date (ngx_hm_listen.c); every worker reads it without a lock.
 * The zone lives as long as the master: a reload loses nothing.
 *
 * FRESH means: a heartbeat that was sent at most 750 ms ago has come back
 * through the same queue as the revocations, so whatever was committed
 * before it was sent is in the set.  The time that counts is that of
 * sending, on a clock all workers share; hence a listener that was frozen
 * and goes on cannot make old news look new.
 *
 * Otherwise (stale, or the zone had no room for something) the request asks
 * the database first, one statement in front of its steps.  A question that
 * cannot be asked is a 503: nobody comes in because something is down.
 *
 * A session that ended stays in the set until no token of it can be valid.
 * Changed rights are a time: tokens issued before it are refused.  Tokens
 * issued about then, or between an event's insert and its late commit, ask
 * the database, which compares the role itself: no clock has to be right to
 * the millisecond.
 *
 * Events of keys are counted and kept in a ring: each worker drops what it
 * holds of that person's.  While the feed is stale no key that is older than
 * half a second is taken for a new request.
 */

#include "ngx_hm_feed.h"


#define NGX_HM_FEED_LAYOUT   1
#define NGX_HM_FEED_WINDOW   2           /* s after an event: ask */
#define NGX_HM_FEED_KEY_AGE  500         /* ms, while stale */


static ngx_hm_rc_t ngx_hm_feed_again(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_feed_asked(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t ngx_hm_feed_refuse(ngx_hm_ctx_t *hm, hm_problem_t p);
static uint64_t ngx_hm_feed_issued(const hm_claims_t *who);
static void ngx_hm_feed_keys_take(void);
static void ngx_hm_feed_stale(int64_t now);
static ngx_uint_t ngx_hm_feed_is_stale(int64_t now);


ngx_hm_feed_zone_t  *ngx_hm_feed;

static struct {
    uint64_t    keys;                    /* events of keys seen */
    int64_t     aged;                    /* when old keys were put aside */
    int64_t     wiped;
} ngx_hm_fd;


const ngx_hm_step_pt  ngx_hm_feed_steps[] = {
    ngx_hm_feed_again, ngx_hm_feed_asked, NULL
};


/* Zone */


ngx_int_t
ngx_hm_feed_zone_init(ngx_shm_zone_t *zone, void *data)
{
    void                *mem;
    size_t               size;
    uint64_t             seed[2];
    ngx_slab_pool_t     *pool;
    ngx_hm_feed_zone_t  *fz;

    pool = (ngx_slab_pool_t *) zone->shm.addr;
    fz = data != NULL ? data : zone->shm.exists ? pool->data : NULL;

    if (fz != NULL) {
        zone->data = fz;

        if (fz->layout == NGX_HM_FEED_LAYOUT) {
            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "healthmate_feed_zone is of another version: "
                      "restart instead of reload");
        return NGX_ERROR;
    }

    pool->log_nomem = 0;
    fz = ngx_slab_calloc(pool, sizeof(ngx_hm_feed_zone_t));
    mem = NULL;

    /* the largest power of two that the zone has room for */

    for (size = 1; size <= zone->shm.size; size *= 2) { /* void */ }

    while (fz != NULL && mem == NULL && size > ngx_pagesize) {
        size /= 2;
        mem = ngx_slab_calloc(pool, size);
    }

    if (mem == NULL || hm_random(seed, sizeof(seed)) != HM_OK
        || !hm_revoked_init(&fz->set, mem, size, seed))
    {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "healthmate_feed_zone is too small: at least 64k");
        return NGX_ERROR;
    }

    fz->layout = NGX_HM_FEED_LAYOUT;
    pool->data = fz;
    zone->data = fz;

    return NGX_OK;
}


ngx_int_t
ngx_hm_feed_start(ngx_hm_main_conf_t *mcf, ngx_log_t *log)
{
    ngx_memzero(&ngx_hm_fd, sizeof(ngx_hm_fd));

    ngx_hm_feed = mcf->feed_zone->data;
    ngx_hm_fd.keys = ngx_hm_get(&ngx_hm_feed->keys);

    return ngx_hm_listen_start(mcf, log);
}


void
ngx_hm_feed_stop(void)
{
    ngx_hm_listen_stop();
}


/*
 * Not the event loop's time: that stands still while the process does, and
 * a worker that was stopped must find its first request stale.
 */
int64_t
ngx_hm_feed_clock(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);

    return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


/* Check */


hm_problem_t
ngx_hm_feed_check(ngx_hm_ctx_t *hm)
{
    int64_t   now;
    uint32_t  seen;
    uint64_t  at, issued;

    now = ngx_hm_feed_clock();

    if (ngx_hm_get(&ngx_hm_feed->keys) != ngx_hm_fd.keys) {
        ngx_hm_feed_keys_take();
    }

    hm->feed_ask = 0;

    if (ngx_hm_feed_is_stale(now)) {
        ngx_hm_feed_stale(now);
        goto ask;
    }

    switch (hm_revoked_find(&ngx_hm_feed->set, HM_REVOKED_SESSION,
                            &hm->who.sid, &at, &seen))
    {
    case HM_REVOKED_NO:
        break;
    case HM_REVOKED_YES:
        ngx_hm_count(NGX_HM_M_FEED_REFUSED, 1);
        return HM_PROBLEM_SESSION_REVOKED;
    default:
        goto ask;
    }

    switch (hm_revoked_find(&ngx_hm_feed->set, HM_REVOKED_RIGHTS,
                            &hm->who.sub, &at, &seen))
    {
    case HM_REVOKED_NO:
        return HM_PROBLEM_NONE;
    case HM_REVOKED_YES:
        break;
    default:
        goto ask;
    }

    issued = ngx_hm_feed_issued(&hm->who);

    if (issued < at) {
        ngx_hm_count(NGX_HM_M_FEED_REFUSED, 1);
        return HM_PROBLEM_SESSION_REVOKED;
    }

    if (issued / 1000 > (uint64_t) seen + NGX_HM_FEED_WINDOW) {
        return HM_PROBLEM_NONE;
    }

ask:

    /* the parts of a long upload do not ask one by one */

    hm->feed_ask = hm->feed_asked == 0
                   || now - hm->feed_asked > NGX_HM_FEED_STALE / 3;

    return HM_PROBLEM_NONE;
}


static ngx_uint_t
ngx_hm_feed_is_stale(int64_t now)
{
    int64_t  age;

    age = now - ngx_hm_get(&ngx_hm_feed->fresh);

    return age > NGX_HM_FEED_STALE || age < -NGX_HM_FEED_STALE
           || ngx_hm_get(&ngx_hm_feed->full);
}


/*
 * To the millisecond where the token's own id says it (UUIDv7, made together
 * with iat); else the start of its second, which is on the safe side.
 */
static uint64_t
ngx_hm_feed_issued(const hm_claims_t *who)
{
    uint64_t  ms;

    ms = hm_get_u64(who->jti.b) >> 16;

    return who->jti.b[6] >> 4 == 7 && ms / 1000 == (uint64_t) who->iat
           ? ms : (uint64_t) who->iat * 1000;
}


/*
 * In front of a request whose check had to ask, or whose body was waited
 * for: a session may have ended meanwhile.
 */
static ngx_hm_rc_t
ngx_hm_feed_again(ngx_hm_ctx_t *hm)
{
    void          *p;
    hm_problem_t   problem;

    if (!hm->feed_ask) {
        problem = ngx_hm_feed_check(hm);

        if (problem != HM_PROBLEM_NONE) {
            return ngx_hm_feed_refuse(hm, problem);
        }

        if (!hm->feed_ask) {
            return ngx_hm_return(hm);
        }
    }

    hm->feed_ask = 0;
    ngx_hm_count(NGX_HM_M_FEED_ASKED, 1);

    ngx_hm_seg_start(hm, NGX_HM_LANE_READ, NGX_HM_SQL_SESSION_CHECK);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sid);
    ngx_hm_seg_uuid(&hm->seg, &hm->who.sub);
    p = (void *) hm_role_name(hm->who.role);
    ngx_hm_seg_add(&hm->seg, p, ngx_strlen(p));
    ngx_hm_seg_time(hm, &hm->seg,
                    (hm_usec_t) ngx_hm_feed_issued(&hm->who) * 1000);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
ngx_hm_feed_asked(ngx_hm_ctx_t *hm)
{
    ngx_uint_t    good;
    hm_problem_t  p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_feed_refuse(hm, p);
    }

    good = PQntuples(hm->seg.res) == 1
           && hm_str_eq(hm_row_str(hm->seg.res, 0, 0), HM_STR("ok"));

    ngx_hm_seg_clear(&hm->seg);

    if (!good) {
        ngx_hm_count(NGX_HM_M_FEED_REFUSED, 1);
        return ngx_hm_feed_refuse(hm, HM_PROBLEM_SESSION_REVOKED);
    }

    hm->feed_asked = ngx_hm_feed_clock();

    return ngx_hm_return(hm);
}


/* The answer to nobody: also in place of one the gate had ready. */
static ngx_hm_rc_t
ngx_hm_feed_refuse(ngx_hm_ctx_t *hm, hm_problem_t p)
{
    hm->signed_in = 0;
    hm->detail = hm_null_str;
    hm->faults->n = 0;

    return ngx_hm_fail(hm, p);
}


/*
 * For steps that take long: 1 when they may go on.  Otherwise *rc is what
 * the step returns, and it runs once more after the question.
 */
ngx_uint_t
ngx_hm_feed_good(ngx_hm_ctx_t *hm, ngx_hm_rc_t *rc)
{
    hm_problem_t  p;

    p = ngx_hm_feed_check(hm);

    if (p != HM_PROBLEM_NONE) {
        *rc = ngx_hm_feed_refuse(hm, p);
        return 0;
    }

    if (!hm->feed_ask) {
        return 1;
    }

    hm->step--;
    ngx_hm_call(hm, ngx_hm_feed_steps);
    *rc = NGX_HM_NEXT;

    return 0;
}


/* Events */


ngx_int_t
ngx_hm_feed_event(hm_revoked_writer_t *w, const ngx_hm_feed_event_t *e)
{
    hm_revoked_item_t  item;

    if (hm_str_eq(e->kind, HM_STR("session"))) {
        item.kind = HM_REVOKED_SESSION;

    } else if (hm_str_eq(e->kind, HM_STR("rights"))) {
        item.kind = HM_REVOKED_RIGHTS;

    } else if (hm_str_eq(e->kind, HM_STR("key"))) {
        ngx_hm_feed_key(&e->subject);
        return NGX_OK;

    } else {
        /* the ring of signing keys is read at a reload; reserved */
        return hm_str_eq(e->kind, HM_STR("signing")) ? NGX_OK
                                                     : NGX_DECLINED;
    }

    item.id = e->subject;
    item.at = (uint64_t) e->at / 1000;
    item.seen = (uint32_t) (hm_now() / HM_USEC + 1);
    item.expires = e->expires;

    return hm_revoked_add(w, &item) == HM_OK ? NGX_OK : NGX_BUSY;
}


/* First whose, then how many: a reader takes what has been counted. */
void
ngx_hm_feed_key(const hm_uuid_t *user)
{
    uint64_t    n;
    hm_uuid_t  *slot;

    n = ngx_hm_get(&ngx_hm_feed->keys);
    slot = &ngx_hm_feed->key[n % NGX_HM_FEED_KEYS];

    if (user != NULL) {
        *slot = *user;

    } else {
        ngx_memset(slot, 0xff, sizeof(hm_uuid_t));
    }

    ngx_hm_set(&ngx_hm_feed->keys, n + 1);
}


/* Has something happened to these keys since the count stood at `from`? */
ngx_uint_t
ngx_hm_feed_key_since(uint64_t from, const hm_uuid_t *user)
{
    uint64_t    to;
    hm_uuid_t   all, *slot;

    to = ngx_hm_get(&ngx_hm_feed->keys);

    if (to - from > NGX_HM_FEED_KEYS / 2) {
        return 1;
    }

    ngx_memset(&all, 0xff, sizeof(hm_uuid_t));

    for ( /* void */ ; from != to; from++) {
        slot = &ngx_hm_feed->key[from % NGX_HM_FEED_KEYS];

        if (hm_uuid_eq(slot, user) || hm_uuid_eq(slot, &all)) {
            return 1;
        }
    }

    return 0;
}


uint64_t
ngx_hm_feed_key_count(void)
{
    return ngx_hm_get(&ngx_hm_feed->keys);
}


static void
ngx_hm_feed_keys_take(void)
{
    uint64_t    to;
    hm_uuid_t   all, *slot;

    to = ngx_hm_get(&ngx_hm_feed->keys);

    if (to - ngx_hm_fd.keys > NGX_HM_FEED_KEYS / 2) {
        ngx_hm_keys_expire(hm_now());
        ngx_hm_fd.keys = to;
        return;
    }

    ngx_memset(&all, 0xff, sizeof(hm_uuid_t));

    for ( /* void */ ; ngx_hm_fd.keys != to; ngx_hm_fd.keys++) {
        slot = &ngx_hm_feed->key[ngx_hm_fd.keys % NGX_HM_FEED_KEYS];

        if (hm_uuid_eq(slot, &all)) {
            ngx_hm_keys_expire(hm_now());

        } else {
            ngx_hm_keys_drop(slot);
        }
    }
}


/*
 * Keys loaded until now serve no new request.  Requests under way keep
 * theirs: they could have run to their end before, too.
 */
static void
ngx_hm_feed_stale(int64_t now)
{
    if (now - ngx_hm_fd.aged > NGX_HM_FEED_KEY_AGE) {
        ngx_hm_fd.aged = now;
        ngx_hm_keys_expire(hm_now());
    }
}


/* Several times a second in each worker, also when no request comes. */
void
ngx_hm_feed_turn(int64_t now)
{
    if (ngx_hm_get(&ngx_hm_feed->keys) != ngx_hm_fd.keys) {
        ngx_hm_feed_keys_take();
    }

    if (!ngx_hm_feed_is_stale(now)) {
        return;
    }

    ngx_hm_feed_stale(now);

    /* what no request under way can need any more leaves the memory */

    if (now - ngx_hm_fd.wiped > 1000) {
        ngx_hm_fd.wiped = now;
        ngx_hm_keys_wipe(hm_now() - 2 * HM_USEC
                         * (hm_usec_t) ngx_hm_worker.conf->database_timeout
                         / 1000);
    }
}


/* What others may know */


void
ngx_hm_feed_state(ngx_hm_feed_state_t *state)
{
    int64_t  now, fresh;

    now = ngx_hm_feed_clock();
    fresh = ngx_hm_get(&ngx_hm_feed->fresh);

    state->age = fresh != 0 && now > fresh ? (ngx_uint_t) (now - fresh) : 0;
    state->never = fresh == 0;
    state->stale = ngx_hm_feed_is_stale(now);
    state->full = ngx_hm_get(&ngx_hm_feed->full) != 0;
    state->listening = ngx_hm_get(&ngx_hm_feed->owner) != 0;
    state->count = hm_revoked_count(&ngx_hm_feed->set);
    state->room = hm_revoked_room(&ngx_hm_feed->set);
}


void
ngx_hm_feed_metrics(hm_buf_t *b)
{
    ngx_hm_feed_state_t  s;

    ngx_hm_feed_state(&s);

    hm_buf_lit(b, "# HELP healthmate_feed_age_seconds Age of the revocation "
                  "feed's last heartbeat.\n"
                  "# TYPE healthmate_feed_age_seconds gauge\n");

    if (!s.never) {
        hm_buf_printf(b, "healthmate_feed_age_seconds %.3f\n",
                      (double) s.age / 1000);
    }

    hm_buf_printf(b, "# HELP healthmate_feed_stale Requests ask the database "
                  "because the feed is stale or its zone full.\n"
                  "# TYPE healthmate_feed_stale gauge\n"
                  "healthmate_feed_stale %d\n", s.stale ? 1 : 0);
    hm_buf_printf(b, "# HELP healthmate_feed_listening Some worker keeps the "
                  "feed.\n# TYPE healthmate_feed_listening gauge\n"
                  "healthmate_feed_listening %d\n", s.listening ? 1 : 0);
    hm_buf_printf(b, "# HELP healthmate_feed_revocations Revocations in the "
                  "zone.\n# TYPE healthmate_feed_revocations gauge\n"
                  "healthmate_feed_revocations %lu\n",
                  (unsigned long) s.count);
    hm_buf_printf(b, "# HELP healthmate_feed_room Revocations the zone has "
                  "room for.\n# TYPE healthmate_feed_room gauge\n"
                  "healthmate_feed_room %lu\n", (unsigned long) s.room);
}
