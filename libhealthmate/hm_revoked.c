/*
 * hm_revoked: see hm_revoked.h for what readers and writers may rely on.
 *
 * The order of stores is the whole design.  A row is claimed (word), then
 * filled, its id last: until then a reader sees the right word and a wrong
 * id, which is "perhaps".  An event that moves on (rights) first raises
 * `seen`, then `at`: a reader between the two asks once too often.
 *
 * What an old generation left in a claimed row can be the same id with older
 * times, for the few nanoseconds until the claimer has written its own; the
 * promise of a second is not touched by that.
 */

#include "hm_revoked.h"


#define HM_REVOKED_KEY   0xffffffffffffULL       /* 48 bits */

#define hm_load(p)          __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define hm_store(p, v)      __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define hm_cas(p, old, new)                                                   \
    __atomic_compare_exchange_n(p, old, new, false, __ATOMIC_ACQ_REL,         \
                                __ATOMIC_ACQUIRE)


static uint64_t hm_revoked_hash(uint64_t seed, hm_revoked_kind_t kind,
    const hm_uuid_t *id);
static uint64_t hm_revoked_tag(uint32_t gen);
static hm_rc_t hm_revoked_put(hm_revoked_t *set, uint32_t gen,
    const hm_revoked_row_t *row);
static void hm_revoked_raise(hm_revoked_row_t *row, uint64_t at,
    uint64_t times);


bool
hm_revoked_init(hm_revoked_t *set, void *mem, size_t size,
    const uint64_t seed[2])
{
    size_t  rows;

    for (rows = 64; rows * 2 * 2 * sizeof(hm_revoked_row_t) <= size;
         rows *= 2)
    {
        /* a power of two */
    }

    if (rows * 2 * sizeof(hm_revoked_row_t) > size) {
        return false;
    }

    memset(set, 0, sizeof(hm_revoked_t));

    set->state = 1;
    set->seed[0] = seed[0];
    set->seed[1] = seed[1];
    set->mask = rows - 1;
    set->half[0] = mem;
    set->half[1] = set->half[0] + rows;

    return true;
}


uint64_t
hm_revoked_room(const hm_revoked_t *set)
{
    return (set->mask + 1) / 2;
}


uint64_t
hm_revoked_count(const hm_revoked_t *set)
{
    return hm_load(&set->used[hm_load(&set->state) & 1]);
}


static uint64_t
hm_revoked_hash(uint64_t seed, hm_revoked_kind_t kind, const hm_uuid_t *id)
{
    uint64_t     h, w;
    __uint128_t  m;

    memcpy(&w, id->b, 8);
    m = (__uint128_t) (seed ^ kind ^ w) * 0x9e3779b97f4a7c15ULL;
    h = (uint64_t) m ^ (uint64_t) (m >> 64);

    memcpy(&w, id->b + 8, 8);
    m = (__uint128_t) (h ^ w) * 0xd6e8feb86659fd93ULL;

    return (uint64_t) m ^ (uint64_t) (m >> 64);
}


/* Never 0, which is the tag of memory that was never written. */

static uint64_t
hm_revoked_tag(uint32_t gen)
{
    return ((uint64_t) gen % 65535 + 1) << 48;
}


hm_revoked_rc_t
hm_revoked_find(const hm_revoked_t *set, hm_revoked_kind_t kind,
    const hm_uuid_t *id, uint64_t *at, uint32_t *seen)
{
    uint32_t                 gen;
    uint64_t                 key, rest, tag, word, i;
    hm_revoked_rc_t          rc;
    const hm_revoked_row_t  *half, *row;

    key = hm_revoked_hash(set->seed[0], kind, id) & HM_REVOKED_KEY;
    rest = hm_revoked_hash(set->seed[1], kind, id);

    for ( ;; ) {
        gen = (uint32_t) hm_load(&set->state);
        tag = hm_revoked_tag(gen);
        half = set->half[gen & 1];
        rc = HM_REVOKED_NO;

        for (i = 0; i < HM_REVOKED_PROBES; i++) {
            row = &half[(key + i) & set->mask];
            word = hm_load(&row->word);

            if ((word & ~HM_REVOKED_KEY) != tag) {
                break;
            }

            if (word != (tag | key)) {
                continue;
            }

            if (hm_load(&row->id) == rest) {
                *at = hm_load(&row->at);
                *seen = (uint32_t) hm_load(&row->times);
                rc = HM_REVOKED_YES;
                break;
            }

            rc = HM_REVOKED_PERHAPS;
        }

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        if ((uint32_t) hm_load(&set->state) == gen) {
            return rc;
        }
    }
}


hm_rc_t
hm_revoked_claim(hm_revoked_writer_t *w, hm_revoked_t *set)
{
    uint64_t  state, next;

    state = hm_load(&set->state);
    next = state + (1ULL << 32);

    if (!hm_cas(&set->state, &state, next)) {
        return HM_DECLINED;
    }

    w->set = set;
    w->epoch = (uint32_t) (next >> 32);
    w->copying = false;
    w->pos = 0;

    return HM_OK;
}


bool
hm_revoked_mine(const hm_revoked_writer_t *w)
{
    return w->set != NULL
           && (uint32_t) (hm_load(&w->set->state) >> 32) == w->epoch;
}


hm_rc_t
hm_revoked_add(hm_revoked_writer_t *w, const hm_revoked_item_t *item)
{
    hm_rc_t           rc;
    uint32_t          gen;
    hm_revoked_t     *set;
    hm_revoked_row_t  row;

    set = w->set;
    gen = (uint32_t) hm_load(&set->state);

    row.word = hm_revoked_hash(set->seed[0], item->kind, &item->id)
               & HM_REVOKED_KEY;
    row.id = hm_revoked_hash(set->seed[1], item->kind, &item->id);
    row.at = item->at;
    row.times = (uint64_t) item->expires << 32 | item->seen;

    rc = hm_revoked_put(set, gen, &row);

    if (rc == HM_OK && w->copying
        && hm_revoked_put(set, gen + 1, &row) != HM_OK)
    {
        w->copying = false;              /* begin again another time */
    }

    return rc;
}


static hm_rc_t
hm_revoked_put(hm_revoked_t *set, uint32_t gen, const hm_revoked_row_t *new)
{
    uint64_t           tag, word, i;
    hm_revoked_row_t  *half, *row;

    tag = hm_revoked_tag(gen);
    half = set->half[gen & 1];

    for (i = 0; i < HM_REVOKED_PROBES; i++) {
        row = &half[(new->word + i) & set->mask];
        word = hm_load(&row->word);

        if ((word & ~HM_REVOKED_KEY) != tag) {

            if (hm_load(&set->used[gen & 1]) >= hm_revoked_room(set)) {
                return HM_DECLINED;
            }

            if (hm_cas(&row->word, &word, tag | new->word)) {
                hm_store(&row->id, ~new->id);    /* not yet */
                hm_store(&row->times, new->times);
                hm_store(&row->at, new->at);
                hm_store(&row->id, new->id);
                (void) __atomic_add_fetch(&set->used[gen & 1], 1,
                                          __ATOMIC_ACQ_REL);
                return HM_OK;
            }

            /* somebody was faster: `word` is what it put there */

            if ((word & ~HM_REVOKED_KEY) != tag) {
                i--;
                continue;
            }
        }

        if (word == (tag | new->word) && hm_load(&row->id) == new->id) {
            hm_revoked_raise(row, new->at, new->times);
            return HM_OK;
        }
    }

    return HM_DECLINED;
}


/* Times only grow; what is known already keeps its `seen`. */

static void
hm_revoked_raise(hm_revoked_row_t *row, uint64_t at, uint64_t times)
{
    uint64_t  old, new, was;

    was = hm_load(&row->at);
    old = hm_load(&row->times);

    do {
        new = old >> 32 > times >> 32 ? old : times;
        new = new >> 32 << 32;
        new |= at > was && (uint32_t) times > (uint32_t) old
               ? (uint32_t) times : (uint32_t) old;
    } while (!hm_cas(&row->times, &old, new));

    while (was < at && !hm_cas(&row->at, &was, at)) { /* void */ }
}


hm_rc_t
hm_revoked_copy(hm_revoked_writer_t *w, uint64_t n, uint32_t now)
{
    uint64_t           state, tag;
    hm_revoked_t      *set;
    hm_revoked_row_t  *from, row;

    set = w->set;
    state = hm_load(&set->state);

    if ((uint32_t) (state >> 32) != w->epoch) {
        return HM_DECLINED;
    }

    if (!w->copying) {
        w->copying = true;
        w->pos = 0;
        hm_store(&set->used[(state + 1) & 1], 0);
    }

    tag = hm_revoked_tag((uint32_t) state);
    from = set->half[state & 1];

    for ( /* void */ ; n != 0 && w->pos <= set->mask; n--, w->pos++) {
        row.word = hm_load(&from[w->pos].word);

        if ((row.word & ~HM_REVOKED_KEY) != tag) {
            continue;
        }

        row.word &= HM_REVOKED_KEY;
        row.id = hm_load(&from[w->pos].id);
        row.at = hm_load(&from[w->pos].at);
        row.times = hm_load(&from[w->pos].times);

        if (row.times >> 32 <= now) {
            continue;
        }

        if (hm_revoked_put(set, (uint32_t) state + 1, &row) != HM_OK) {
            w->copying = false;
            return HM_DECLINED;
        }
    }

    if (w->pos <= set->mask) {
        return HM_AGAIN;
    }

    w->copying = false;

    return hm_cas(&set->state, &state,
                  (state & 0xffffffff00000000ULL) | (uint32_t) (state + 1))
           ? HM_OK : HM_DECLINED;
}
