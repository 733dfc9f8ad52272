/*
 * hm_buf: a growing output buffer, and the JSON writer on top of it.
 *
 * DESIGN.  An answer is written front to back, once.  The buffer doubles when
 * it is full; the old block stays with the arena it came from, so a caller
 * that knows its size gives it to hm_buf_init and never pays for a copy.
 * Errors are sticky: after a failed allocation every call is a no-op and
 * `failed` says so at the end.
 *
 * Texts: nearly all of them have nothing to escape, so the scan looks at
 * eight bytes at a time for a quote, a backslash or a control character, and
 * copies the clean run whole.  Bytes above 0x7f pass as they are: what comes
 * in is valid UTF-8, checked where it entered the system.
 *
 * Numbers: what is written must read back as the same double, in the fewest
 * digits, because a value is compared (dedup, ETag) and shown.  Health
 * readings are whole numbers or have a few decimals, so those two take a path
 * without printf: n * 10^k is rounded to an integer, and if that integer
 * divided by 10^k is n again, its digits are the shortest form (both are exact
 * doubles and the division is correctly rounded, as a parser's is).  The rest
 * goes through %.15g, %.16g, %.17g.
 */

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "hm_buf.h"
#include "hm_time.h"
#include "hm_uuid.h"


#define HM_BUF_MIN       64
#define HM_REAL_EXACT    1e15            /* integers below it print exactly */
#define HM_REAL_PLACES   6


static size_t hm_json_clean_run(const unsigned char *p, size_t len);
static void hm_json_escape(hm_buf_t *b, unsigned char c);
static size_t hm_digits(char *out, uint64_t n);
static size_t hm_real_short(double n, char *out);


void
hm_buf_init(hm_buf_t *b, hm_mem_t *mem, size_t capacity)
{
    memset(b, 0, sizeof(hm_buf_t));
    b->mem = mem;

    if (capacity != 0) {
        (void) hm_buf_reserve(b, capacity);
    }
}


bool
hm_buf_grow(hm_buf_t *b, size_t more)
{
    size_t          len, size;
    unsigned char  *p;

    if (b->failed) {
        return false;
    }

    len = hm_buf_len(b);
    size = (size_t) (b->end - b->start);

    if (more > SIZE_MAX / 4 || size > SIZE_MAX / 4) {
        b->failed = true;
        return false;
    }

    /* the first block has the size asked for, later ones at least double */
    size *= 2;

    if (size < len + more) {
        size = len + more;
    }

    if (size < HM_BUF_MIN) {
        size = HM_BUF_MIN;
    }

    p = hm_alloc(b->mem, size);
    if (p == NULL) {
        b->failed = true;
        return false;
    }

    if (len != 0) {
        memcpy(p, b->start, len);
    }

    b->start = p;
    b->pos = p + len;
    b->end = p + size;

    return true;
}


void
hm_buf_printf(hm_buf_t *b, const char *fmt, ...)
{
    int      n;
    size_t   room;
    va_list  args;

    if (!hm_buf_reserve(b, HM_BUF_MIN)) {
        return;
    }

    room = (size_t) (b->end - b->pos);

    va_start(args, fmt);
    n = vsnprintf((char *) b->pos, room, fmt, args);
    va_end(args);

    if (n < 0) {
        b->failed = true;
        return;
    }

    if ((size_t) n >= room) {
        if (!hm_buf_reserve(b, (size_t) n + 1)) {
            return;
        }

        va_start(args, fmt);
        n = vsnprintf((char *) b->pos, (size_t) n + 1, fmt, args);
        va_end(args);
    }

    b->pos += n;
}


void
hm_json_text(hm_buf_t *b, hm_str_t s)
{
    size_t          run;
    unsigned char  *p, *end;

    if (!hm_buf_reserve(b, s.len + 2)) {
        return;
    }

    *b->pos++ = '"';

    p = s.data;
    end = p + s.len;

    while (p < end) {
        run = hm_json_clean_run(p, (size_t) (end - p));
        hm_buf_add(b, p, run);
        p += run;

        if (p < end) {
            hm_json_escape(b, *p++);
        }
    }

    hm_buf_lit(b, "\"");
}


void
hm_json_text_or_null(hm_buf_t *b, hm_str_t s)
{
    if (s.data == NULL) {
        hm_buf_lit(b, "null");
        return;
    }

    hm_json_text(b, s);
}


/*
 * Bytes before the first one that needs an escape.  The three tests are the
 * "has a zero byte" and "has a byte less than n" tricks; they may only err
 * by stopping early (a carry), never by passing a byte over, and the loop
 * at the end looks at single bytes again.
 */

static size_t
hm_json_clean_run(const unsigned char *p, size_t len)
{
    size_t          i;
    uint64_t        w, quote, slash;
    const uint64_t  ones = 0x0101010101010101ULL;
    const uint64_t  tops = 0x8080808080808080ULL;

    for (i = 0; len - i >= 8; i += 8) {
        memcpy(&w, p + i, 8);

        quote = w ^ (ones * '"');
        slash = w ^ (ones * '\\');

        if ((((w - ones * 0x20) & ~w) | ((quote - ones) & ~quote)
             | ((slash - ones) & ~slash)) & tops)
        {
            break;
        }
    }

    while (i < len && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\') {
        i++;
    }

    return i;
}


static void
hm_json_escape(hm_buf_t *b, unsigned char c)
{
    char               out[6] = { '\\', 'u', '0', '0', 0, 0 };
    static const char  hex[] = "0123456789abcdef";

    switch (c) {

    case '"':
    case '\\':
        out[1] = (char) c;
        break;

    case '\b':
        out[1] = 'b';
        break;

    case '\f':
        out[1] = 'f';
        break;

    case '\n':
        out[1] = 'n';
        break;

    case '\r':
        out[1] = 'r';
        break;

    case '\t':
        out[1] = 't';
        break;

    default:
        out[4] = hex[c >> 4];
        out[5] = hex[c & 15];
        hm_buf_add(b, out, 6);
        return;
    }

    hm_buf_add(b, out, 2);
}


void
hm_json_int(hm_buf_t *b, int64_t n)
{
    char      out[24], *p;
    uint64_t  u;

    p = out;
    u = (uint64_t) n;

    if (n < 0) {
        *p++ = '-';
        u = 0 - u;
    }

    p += hm_digits(p, u);

    hm_buf_add(b, out, (size_t) (p - out));
}


void
hm_json_real(hm_buf_t *b, double n)
{
    char    out[32];
    size_t  len;

    len = hm_real_format(n, out);

    if (len == 0) {
        hm_buf_lit(b, "null");
        return;
    }

    hm_buf_add(b, out, len);
}


void
hm_json_uuid(hm_buf_t *b, const hm_uuid_t *id)
{
    if (!hm_buf_reserve(b, HM_UUID_TEXT + 2)) {
        return;
    }

    *b->pos++ = '"';
    hm_uuid_format(id, (char *) b->pos);
    b->pos += HM_UUID_TEXT;
    *b->pos++ = '"';
}


void
hm_json_time(hm_buf_t *b, hm_usec_t t)
{
    if (t == HM_USEC_NONE) {
        hm_buf_lit(b, "null");
        return;
    }

    if (!hm_buf_reserve(b, HM_TIME_TEXT + 2)) {
        return;
    }

    *b->pos++ = '"';
    hm_time_format(t, (char *) b->pos);
    b->pos += HM_TIME_TEXT;
    *b->pos++ = '"';
}


static size_t
hm_digits(char *out, uint64_t n)
{
    char    tmp[20];
    size_t  i, len;

    len = 0;

    do {
        tmp[len++] = (char) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    for (i = 0; i < len; i++) {
        out[i] = tmp[len - 1 - i];
    }

    return len;
}


/* Not finite: 0, and nothing written. */

size_t
hm_real_format(double n, char out[32])
{
    int     len, digits;
    char   *p;
    size_t  at;

    if (!isfinite(n)) {
        return 0;
    }

    if (n == 0) {
        out[0] = '0';                    /* -0 too: JSON readers differ */
        return 1;
    }

    at = hm_real_short(n, out);
    if (at != 0) {
        return at;
    }

    len = 0;

    for (digits = 15; digits <= 17; digits++) {
        len = snprintf(out, 32, "%.*g", digits, n);

        if (strtod(out, NULL) == n) {
            break;
        }
    }

    /* a program that has set a locale still writes JSON */

    p = memchr(out, ',', (size_t) len);
    if (p != NULL) {
        *p = '.';
    }

    return (size_t) len;
}


/* 0: n is not one of the plain cases. */

static size_t
hm_real_short(double n, char *out)
{
    char                 *p;
    double                a, scaled, whole;
    size_t                len;
    unsigned              k, i;
    uint64_t              u, frac;
    static const double   tens[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6 };
    static const uint64_t ints[] = { 1, 10, 100, 1000, 10000, 100000,
                                     1000000 };

    a = fabs(n);

    if (a >= HM_REAL_EXACT || a < 1e-4) {
        return 0;
    }

    for (k = 0; k <= HM_REAL_PLACES; k++) {
        scaled = a * tens[k];

        if (scaled >= HM_REAL_EXACT) {
            return 0;
        }

        whole = (double) (uint64_t) (scaled + 0.5);

        if (whole / tens[k] == a) {
            break;
        }
    }

    if (k > HM_REAL_PLACES) {
        return 0;
    }

    p = out;
    u = (uint64_t) whole;

    if (n < 0) {
        *p++ = '-';
    }

    len = hm_digits(p, u / ints[k]);
    p += len;

    if (k != 0) {
        *p++ = '.';
        frac = u % ints[k];

        for (i = k; i > 0; i--) {
            p[i - 1] = (char) ('0' + frac % 10);
            frac /= 10;
        }

        p += k;
    }

    return (size_t) (p - out);
}
