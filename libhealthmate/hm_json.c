/*
 * hm_json: the one door through which JSON comes in.
 *
 * DESIGN.  jansson is strict about most things (UTF-8, lone surrogates,
 * trailing bytes, \u0000, numbers too large).  Three things are ours: keys
 * that occur twice are refused (two readers of one document must not
 * disagree), so is a NUL byte anywhere, and depth is counted before jansson
 * sees the text, because its own bound is 2048 frames of recursion.  The
 * count only has to know strings from brackets; whether the text is JSON at
 * all is then jansson's to say.
 *
 * An integer beyond 64 bits is refused like a real beyond a double.
 *
 * Reasons are our own sentences: jansson's quote the input, and the input is
 * somebody's health.  A reason lies in a buffer of the thread until the next
 * failing call.
 *
 * hm_json_items cuts an array into the texts of its items without building
 * the whole: a batch of ten thousand readings is then parsed, judged and
 * forgotten one by one.  It judges only what it must to find the commas:
 * strings, brackets that match, and the commas themselves.
 */

#include <stdio.h>

#include "hm_json.h"


#define HM_REASON_MAX   96


typedef enum {
    HM_ITEMS_FIRST = 0,                  /* behind "[": an item or "]" */
    HM_ITEMS_NEXT,                       /* behind ",": an item */
    HM_ITEMS_LAST,                       /* behind "]": only spaces */
    HM_ITEMS_DONE,
    HM_ITEMS_BAD
} hm_items_state_t;


static bool hm_json_too_deep(hm_str_t text, size_t *line);
static hm_str_t hm_json_reason(size_t line, const char *what);
static const char *hm_json_fault(enum json_error_code code);
static unsigned char *hm_json_spaces(unsigned char *p, unsigned char *end);
static unsigned char *hm_json_string(unsigned char *p, unsigned char *end);
static unsigned char *hm_json_nested(unsigned char *p, unsigned char *end);
static unsigned char *hm_json_scalar(unsigned char *p, unsigned char *end);
static hm_rc_t hm_json_items_bad(hm_json_items_t *it);


json_t *
hm_json_parse(hm_str_t text, hm_str_t *reason)
{
    size_t        line;
    json_t       *json;
    json_error_t  error;

    if (text.len == 0) {
        *reason = HM_STR("the text is empty");
        return NULL;
    }

    /* jansson passes over a NUL byte between tokens */

    if (memchr(text.data, '\0', text.len) != NULL) {
        *reason = HM_STR("a NUL character");
        return NULL;
    }

    if (hm_json_too_deep(text, &line)) {
        *reason = hm_json_reason(line, "nested too deeply");
        return NULL;
    }

    json = json_loadb((const char *) text.data, text.len,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);

    if (json == NULL) {
        line = error.line > 0 ? (size_t) error.line : 1;
        *reason = hm_json_reason(line, hm_json_fault(json_error_code(&error)));
        return NULL;
    }

    *reason = hm_null_str;

    return json;
}


static bool
hm_json_too_deep(hm_str_t text, size_t *line)
{
    bool            quoted;
    unsigned        depth;
    unsigned char  *p, *end;

    quoted = false;
    depth = 0;
    *line = 1;

    end = text.data + text.len;

    for (p = text.data; p < end; p++) {
        switch (*p) {

        case '"':
            quoted = !quoted;
            break;

        case '\\':
            if (quoted) {
                p++;
            }
            break;

        case '[':
        case '{':
            if (!quoted && ++depth > HM_JSON_DEPTH) {
                return true;
            }
            break;

        case ']':
        case '}':
            if (!quoted && depth > 0) {
                depth--;
            }
            break;

        case '\n':
            (*line)++;
            break;

        default:
            break;
        }
    }

    return false;
}


static hm_str_t
hm_json_reason(size_t line, const char *what)
{
    int                   n;
    static __thread char  text[HM_REASON_MAX];

    n = snprintf(text, sizeof(text), "line %zu: %s", line, what);

    return (hm_str_t) { (size_t) n, (unsigned char *) text };
}


static const char *
hm_json_fault(enum json_error_code code)
{
    switch (code) {

    case json_error_out_of_memory:
        return "out of memory";

    case json_error_stack_overflow:
        return "nested too deeply";

    case json_error_invalid_utf8:
        return "not valid UTF-8";

    case json_error_premature_end_of_input:
        return "the text ends too early";

    case json_error_end_of_input_expected:
        return "something follows the end";

    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a NUL character";

    case json_error_duplicate_key:
        return "duplicate object key";

    case json_error_numeric_overflow:
        return "a number out of range";

    default:
        return "not JSON";
    }
}


hm_rc_t
hm_json_items(hm_json_items_t *it, hm_str_t text)
{
    unsigned char  *p;

    it->end = text.data + text.len;
    it->state = HM_ITEMS_FIRST;

    p = hm_json_spaces(text.data, it->end);
    it->pos = p;

    if (p == it->end) {
        return hm_json_items_bad(it);
    }

    if (*p == '[') {
        it->pos = p + 1;
        return HM_OK;
    }

    it->state = HM_ITEMS_BAD;

    if (memchr("{\"-0123456789tfn", *p, 16) != NULL) {
        return HM_DECLINED;
    }

    return HM_ERROR;
}


hm_rc_t
hm_json_items_next(hm_json_items_t *it, hm_str_t *item)
{
    unsigned char  *p, *start, *end;

    *item = hm_null_str;
    end = it->end;

    if (it->state == HM_ITEMS_DONE) {
        return HM_DECLINED;
    }

    if (it->state == HM_ITEMS_BAD) {
        return HM_ERROR;
    }

    p = hm_json_spaces(it->pos, end);

    if (it->state == HM_ITEMS_FIRST && p < end && *p == ']') {
        it->state = HM_ITEMS_LAST;
        p = hm_json_spaces(p + 1, end);
    }

    if (it->state == HM_ITEMS_LAST) {
        if (p != end) {
            return hm_json_items_bad(it);
        }

        it->state = HM_ITEMS_DONE;
        return HM_DECLINED;
    }

    start = p;

    if (p == end) {
        return hm_json_items_bad(it);

    } else if (*p == '"') {
        p = hm_json_string(p, end);

    } else if (*p == '{' || *p == '[') {
        p = hm_json_nested(p, end);

    } else {
        p = hm_json_scalar(p, end);
    }

    if (p == NULL || p == start) {
        return hm_json_items_bad(it);
    }

    item->data = start;
    item->len = (size_t) (p - start);

    p = hm_json_spaces(p, end);

    if (p == end || (*p != ',' && *p != ']')) {
        *item = hm_null_str;
        return hm_json_items_bad(it);
    }

    it->state = *p == ',' ? HM_ITEMS_NEXT : HM_ITEMS_LAST;
    it->pos = p + 1;

    return HM_OK;
}


static hm_rc_t
hm_json_items_bad(hm_json_items_t *it)
{
    it->state = HM_ITEMS_BAD;

    return HM_ERROR;
}


static unsigned char *
hm_json_spaces(unsigned char *p, unsigned char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }

    return p;
}


/* The byte behind the closing quote; NULL: there is none. */

static unsigned char *
hm_json_string(unsigned char *p, unsigned char *end)
{
    for (p++; p < end; p++) {
        if (*p == '"') {
            return p + 1;
        }

        if (*p == '\\') {
            p++;
        }
    }

    return NULL;
}


/* The byte behind the bracket that closes this one; NULL: they do not match. */

static unsigned char *
hm_json_nested(unsigned char *p, unsigned char *end)
{
    unsigned        depth;
    unsigned char   close[HM_JSON_DEPTH];

    depth = 0;

    while (p < end) {
        switch (*p) {

        case '"':
            p = hm_json_string(p, end);
            if (p == NULL) {
                return NULL;
            }
            continue;

        case '[':
        case '{':
            /* the array that we are cutting up is one level itself */
            if (depth == HM_JSON_DEPTH - 1) {
                return NULL;
            }
            close[depth++] = (unsigned char) (*p + 2);
            break;

        case ']':
        case '}':
            if (close[--depth] != *p) {
                return NULL;
            }

            if (depth == 0) {
                return p + 1;
            }
            break;

        default:
            break;
        }

        p++;
    }

    return NULL;
}


static unsigned char *
hm_json_scalar(unsigned char *p, unsigned char *end)
{
    while (p < end && *p > ' ' && memchr(",]}[{\":", *p, 7) == NULL) {
        p++;
    }

    return p;
}
