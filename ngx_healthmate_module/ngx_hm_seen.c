/*
 * ngx_hm_seen: when was a session used last?
 *
 * The idle limit of a session is judged at its refresh, and a refresh comes
 * when the access token has expired, which is as late as the limit itself:
 * without knowing of the requests in between, whoever works all day would be
 * sent away, or whoever left would not.  So requests leave a trace, and it
 * has to reach the database, because the next refresh may come to another
 * worker or another host.
 *
 * A write for each request would double their cost.  A worker notes a use
 * once in NGX_HM_SEEN_STEP (for a short idle limit a fifteenth of it), and a
 * second later writes all that were noted with one statement.  The limit is
 * let off by that step: a session is never ended for a use that was not
 * written yet.
 *
 * The table is direct-mapped by the random bytes of the session's id; a
 * collision costs one more write.  Notes are kept while the database is
 * away, and those that find no room are taken at the next use.
 *
 * What is written never goes back in time and never wakes an ended session;
 * the function in the database does it as the person each session is of.
 */

#include "ngx_hm.h"


#define NGX_HM_SEEN_SLOTS   4096         /* a power of two */
#define NGX_HM_SEEN_BATCH   256
#define NGX_HM_SEEN_STEP    60           /* seconds, at most */
#define NGX_HM_SEEN_DELAY   1000         /* ms */


typedef struct {
    hm_uuid_t             session;
    hm_usec_t             at;
} ngx_hm_seen_slot_t;

typedef struct {
    hm_uuid_t             session;
    hm_uuid_t             user;
    hm_usec_t             at;
} ngx_hm_seen_note_t;


static struct {
    ngx_hm_seen_slot_t    slots[NGX_HM_SEEN_SLOTS];
    ngx_hm_seen_note_t    notes[NGX_HM_SEEN_BATCH];
    ngx_uint_t            n;
    ngx_uint_t            nflying;       /* the first ones of notes */
    ngx_event_t           timer;
    ngx_hm_seg_t          seg;
    u_char                buf[3 * 20 + NGX_HM_SEEN_BATCH * (20 + 20 + 12)];
} ngx_hm_seen_s;


static void ngx_hm_seen_write(ngx_event_t *ev);
static void ngx_hm_seen_written(ngx_hm_seg_t *seg);
static void ngx_hm_seen_arm(void);


/* How far behind sessions.last_used_at may be, in seconds. */
time_t
ngx_hm_seen_step(ngx_hm_main_conf_t *mcf, hm_role_t role)
{
    return ngx_max(1, ngx_min(NGX_HM_SEEN_STEP, mcf->idle[role] / 15));
}


void
ngx_hm_seen(ngx_hm_ctx_t *hm)
{
    uint32_t             hash;
    hm_usec_t            step;
    ngx_hm_seen_note_t  *note;
    ngx_hm_seen_slot_t  *slot;

    hash = hm_get_u32(hm->who.sid.b + 12);
    slot = &ngx_hm_seen_s.slots[hash & (NGX_HM_SEEN_SLOTS - 1)];
    step = (hm_usec_t) ngx_hm_seen_step(hm->conf, hm->who.role) * HM_USEC;

    if (hm->now - slot->at < step && hm_uuid_eq(&slot->session,
                                                &hm->who.sid))
    {
        return;
    }

    if (ngx_hm_seen_s.n == NGX_HM_SEEN_BATCH) {
        return;
    }

    slot->session = hm->who.sid;
    slot->at = hm->now;

    note = &ngx_hm_seen_s.notes[ngx_hm_seen_s.n++];
    note->session = hm->who.sid;
    note->user = hm->who.sub;
    note->at = hm->now;

    ngx_hm_seen_arm();
}


static void
ngx_hm_seen_arm(void)
{
    ngx_event_t  *ev;

    ev = &ngx_hm_seen_s.timer;

    if (ev->timer_set || ngx_hm_seen_s.nflying != 0 || ngx_exiting) {
        return;
    }

    ev->handler = ngx_hm_seen_write;
    ev->log = ngx_hm_worker.log;
    ev->data = &ngx_hm_seen_s;
    ev->cancelable = 1;
    ngx_add_timer(ev, NGX_HM_SEEN_DELAY);
}


static void
ngx_hm_seen_write(ngx_event_t *ev)
{
    u_char              *p, *start;
    ngx_uint_t           i, n, column;
    ngx_hm_seg_t        *seg;
    ngx_hm_seen_note_t  *note;

    static const uint32_t  oids[] = { 2950, 2950, 1184 };

    seg = &ngx_hm_seen_s.seg;
    n = ngx_hm_seen_s.n;
    p = ngx_hm_seen_s.buf;

    ngx_hm_seg_clear(seg);
    ngx_memzero(seg, sizeof(ngx_hm_seg_t));

    seg->lane = NGX_HM_LANE_SOLO;
    seg->stmt = NGX_HM_SQL_SEEN;
    seg->seq_param = -1;
    seg->done = ngx_hm_seen_written;

    for (column = 0; column < 3; column++) {
        start = p;
        p = hm_put_array(p, oids[column], (uint32_t) n);

        for (i = 0; i < n; i++) {
            note = &ngx_hm_seen_s.notes[i];

            if (column == 2) {
                hm_put_u32(p, 8);
                hm_put_time(p + 4, note->at);
                p += 12;
                continue;
            }

            hm_put_u32(p, 16);
            ngx_memcpy(p + 4, column == 0 ? note->session.b : note->user.b,
                       16);
            p += 20;
        }

        ngx_hm_seg_add(seg, start, (size_t) (p - start));
    }

    if (ngx_hm_pg_send(seg) != NGX_OK) {
        ngx_hm_seen_arm();
        return;
    }

    ngx_hm_seen_s.nflying = n;
}


static void
ngx_hm_seen_written(ngx_hm_seg_t *seg)
{
    ngx_uint_t  n;

    n = ngx_hm_seen_s.nflying;
    ngx_hm_seen_s.nflying = 0;

    if (seg->rc == NGX_HM_PG_ERROR) {
        ngx_log_error(NGX_LOG_ERR, ngx_hm_worker.log, 0,
                      "healthmate: the use of %ui sessions was not noted: "
                      "SQLSTATE %s", n, seg->sqlstate);
    }

    /* a lost connection leaves them for another try: twice does no harm */

    if (seg->rc != NGX_HM_PG_LOST) {
        ngx_hm_seen_s.n -= n;
        ngx_memmove(ngx_hm_seen_s.notes, ngx_hm_seen_s.notes + n,
                    ngx_hm_seen_s.n * sizeof(ngx_hm_seen_note_t));
    }

    if (ngx_hm_seen_s.n != 0) {
        ngx_hm_seen_arm();
    }
}
