/*
 * hm_revoked: a set of revoked things in memory that processes share, read
 * without a lock.
 *
 * READERS find an id by one probe of a hash table, with no write, no lock
 * and no system call.  A thing is found (exactly: 112 bits of keyed hash),
 * not found, or, while its row is being written, perhaps there; whoever is
 * told "perhaps" asks somebody who knows.
 *
 * WRITERS: one at a time by agreement, any number by accident.  A writer
 * that was stopped in the middle of a step and goes on when another one has
 * taken over can add rows that are true anyway, and nothing else.  Hence:
 *
 *   - a row is claimed by one compare-and-swap of its first word and written
 *     by the claimer only;
 *   - nothing is ever wiped.  The word carries the generation of the table
 *     it belongs to; a row of another generation is a free row;
 *   - expired rows go by copying: the others are copied into the second half
 *     under the next generation, a few rows at a time, while new ones are
 *     added to both; then the generation is turned by a compare-and-swap that
 *     fails if somebody else is the writer by now.  A reader that was between
 *     two generations looks again.
 *
 * A half takes as many rows as fill it by half.  One more is refused
 * (HM_DECLINED): nothing gives way before its time.
 */

#ifndef HM_REVOKED_H
#define HM_REVOKED_H

#include "hm.h"

#define HM_REVOKED_PROBES   64


typedef enum {
    HM_REVOKED_SESSION = 1,
    HM_REVOKED_RIGHTS
} hm_revoked_kind_t;


typedef struct {
    uint64_t            word;            /* generation 16 | key 48; 0: free */
    uint64_t            id;              /* the rest of the hash */
    uint64_t            at;              /* ms */
    uint64_t            times;           /* expires 32 | seen 32, seconds */
} hm_revoked_row_t;


typedef struct {
    uint64_t            state;           /* writer 32 | generation 32 */
    uint64_t            seed[2];
    uint64_t            mask;            /* rows of a half - 1 */
    uint64_t            used[2];
    hm_revoked_row_t   *half[2];
} hm_revoked_t;


/* What a writer has for itself. */
typedef struct {
    hm_revoked_t       *set;
    uint32_t            epoch;           /* of its claim */
    bool                copying;
    uint64_t            pos;
} hm_revoked_writer_t;


typedef struct {
    hm_revoked_kind_t   kind;
    hm_uuid_t           id;
    uint64_t            at;              /* ms: what is older is revoked */
    uint32_t            seen;            /* s: what is newer is not */
    uint32_t            expires;         /* s: when to forget it */
} hm_revoked_item_t;


typedef enum {
    HM_REVOKED_NO = 0,
    HM_REVOKED_YES,                      /* at and seen are filled in */
    HM_REVOKED_PERHAPS
} hm_revoked_rc_t;


/* mem: size bytes of zeros, 64-byte aligned; false: too few. */
bool hm_revoked_init(hm_revoked_t *set, void *mem, size_t size,
    const uint64_t seed[2]);
/* How many things fit. */
uint64_t hm_revoked_room(const hm_revoked_t *set);
uint64_t hm_revoked_count(const hm_revoked_t *set);

hm_revoked_rc_t hm_revoked_find(const hm_revoked_t *set,
    hm_revoked_kind_t kind, const hm_uuid_t *id, uint64_t *at,
    uint32_t *seen);

/* Becomes the writer: HM_DECLINED when another one did meanwhile. */
hm_rc_t hm_revoked_claim(hm_revoked_writer_t *w, hm_revoked_t *set);
bool hm_revoked_mine(const hm_revoked_writer_t *w);

/* HM_DECLINED: full. */
hm_rc_t hm_revoked_add(hm_revoked_writer_t *w, const hm_revoked_item_t *item);

/*
 * Copies what has not expired, n rows for each call: HM_AGAIN, HM_OK (the
 * generation turned), HM_DECLINED (not the writer any more, or no room).
 */
hm_rc_t hm_revoked_copy(hm_revoked_writer_t *w, uint64_t n, uint32_t now);

#endif
