/*
 * hm_uuid: UUIDv7 (RFC 9562) and its text form.
 *
 * DESIGN.  48 bits of milliseconds, 12 bits of counter, 62 random bits: the
 * "fixed bit-length dedicated counter" of RFC 9562, 6.2 (method 1).  The
 * counter starts each millisecond at a random number below 2048, so at least
 * 2048 ids fit into one millisecond in order; when it is full, the next
 * millisecond is borrowed.  A clock that steps back is not followed: ids of
 * one process only grow.  The random part is new for every id, so two
 * processes that share a past (fork) still never meet.
 *
 * The state is per thread, like the random bytes it is made of: only event
 * loops and single-threaded workers make ids, but a pool thread that did
 * would break nothing.
 */

#include "hm_crypto.h"
#include "hm_uuid.h"


#define HM_UUID_COUNTER_MAX    0xfff


typedef struct {
    uint64_t   ms;
    uint32_t   counter;
} hm_uuid_clock_t;


static __thread hm_uuid_clock_t  hm_uuid_clock;


/* value + 1; 0: not a digit */

static const unsigned char  hm_uuid_digit[256] = {
#define D(c, n)  [c] = (n) + 1
    D('0', 0), D('1', 1), D('2', 2), D('3', 3), D('4', 4), D('5', 5),
    D('6', 6), D('7', 7), D('8', 8), D('9', 9), D('a', 10), D('b', 11),
    D('c', 12), D('d', 13), D('e', 14), D('f', 15), D('A', 10), D('B', 11),
    D('C', 12), D('D', 13), D('E', 14), D('F', 15)
#undef D
};

/* where in the text each byte begins */

static const unsigned char  hm_uuid_at[16] = {
    0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34
};


hm_rc_t
hm_uuid7(hm_uuid_t *id, hm_usec_t now)
{
    uint64_t         ms;
    unsigned char    r[10];
    hm_uuid_clock_t *c;

    if (hm_random(r, sizeof(r)) != HM_OK) {
        return HM_ERROR;
    }

    c = &hm_uuid_clock;
    ms = now < 0 ? 0 : (uint64_t) now / 1000;

    if (ms > c->ms) {
        c->ms = ms;
        c->counter = ((uint32_t) r[8] << 8 | r[9]) & 0x7ff;

    } else if (c->counter < HM_UUID_COUNTER_MAX) {
        c->counter++;

    } else {
        c->ms++;
        c->counter = ((uint32_t) r[8] << 8 | r[9]) & 0x7ff;
    }

    id->b[0] = (unsigned char) (c->ms >> 40);
    id->b[1] = (unsigned char) (c->ms >> 32);
    id->b[2] = (unsigned char) (c->ms >> 24);
    id->b[3] = (unsigned char) (c->ms >> 16);
    id->b[4] = (unsigned char) (c->ms >> 8);
    id->b[5] = (unsigned char) c->ms;
    id->b[6] = (unsigned char) (0x70 | c->counter >> 8);
    id->b[7] = (unsigned char) c->counter;

    memcpy(id->b + 8, r, 8);
    id->b[8] = (unsigned char) (0x80 | (id->b[8] & 0x3f));

    return HM_OK;
}


hm_rc_t
hm_uuid_parse(hm_uuid_t *id, hm_str_t text)
{
    unsigned        i, hi, lo;
    unsigned char  *p;

    if (text.len != HM_UUID_TEXT) {
        return HM_DECLINED;
    }

    p = text.data;

    if (p[8] != '-' || p[13] != '-' || p[18] != '-' || p[23] != '-') {
        return HM_DECLINED;
    }

    for (i = 0; i < 16; i++) {
        hi = hm_uuid_digit[p[hm_uuid_at[i]]];
        lo = hm_uuid_digit[p[hm_uuid_at[i] + 1]];

        if (hi == 0 || lo == 0) {
            return HM_DECLINED;
        }

        id->b[i] = (unsigned char) ((hi - 1) << 4 | (lo - 1));
    }

    return HM_OK;
}


void
hm_uuid_format(const hm_uuid_t *id, char out[HM_UUID_TEXT])
{
    char               text[32];
    unsigned           i;
    static const char  hex[] = "0123456789abcdef";

    for (i = 0; i < 16; i++) {
        text[2 * i] = hex[id->b[i] >> 4];
        text[2 * i + 1] = hex[id->b[i] & 15];
    }

    memcpy(out, text, 8);
    memcpy(out + 9, text + 8, 4);
    memcpy(out + 14, text + 12, 4);
    memcpy(out + 19, text + 16, 4);
    memcpy(out + 24, text + 20, 12);

    out[8] = out[13] = out[18] = out[23] = '-';
}
