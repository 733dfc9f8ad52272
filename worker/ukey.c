/*
 * Strict readers of the texts that steer the worker.
 *
 * DESIGN.  A unique key was written by the module and a stream entry by the
 * module or the keeper, but a stream can be written by whoever reaches Redis,
 * so nothing here trusts a length, a case or a missing terminator.  A text
 * that is not exactly of the form is refused as a whole: a job with a bad
 * key is dead at once, a bad stream entry is deleted.
 *
 * Neither is ever used to decide a right: the subject of a job is the column
 * of its row, and the key must name the same person.
 */

#include "hm_metric.h"
#include "hm_text.h"
#include "hmw_ukey.h"


static hm_rc_t hmw_hour(int64_t *hour, hm_str_t text);
static bool hmw_cut(hm_str_t *head, hm_str_t *rest, unsigned char at);
static hm_rc_t hmw_param(hmw_redis_url_t *url, hm_str_t part);


hm_rc_t
hmw_rollup_key(hmw_rollup_key_t *key, hm_str_t text)
{
    size_t    i;
    hm_str_t  head, type;

    memset(key, 0, sizeof(hmw_rollup_key_t));

    if (!hmw_cut(&head, &text, ':') || !hm_str_eq(head, HM_STR("rollup"))) {
        return HM_DECLINED;
    }

    if (!hmw_cut(&head, &text, ':')
        || hmw_entry_id(key->user_text, head) != HM_OK
        || hm_uuid_parse(&key->user, head) != HM_OK)
    {
        return HM_DECLINED;
    }

    if (!hmw_cut(&type, &text, ':') || type.len == 0) {
        return HM_DECLINED;
    }

    if (type.len == 7 + 64 && memcmp(type.data, "custom.", 7) == 0) {

        for (i = 7; i < type.len; i++) {
            if (memchr("0123456789abcdef", type.data[i], 16) == NULL) {
                return HM_DECLINED;
            }
        }

        key->custom = true;
        memcpy(key->metric, "custom", 7);
        memcpy(key->slug_hex, type.data + 7, 64);

    } else {
        if (type.len >= sizeof(key->metric) || hm_metric_find(type) == NULL) {
            return HM_DECLINED;
        }

        memcpy(key->metric, type.data, type.len);
    }

    if (text.len == 1 && text.data[0] == '*') {
        key->all = true;
        return HM_OK;
    }

    return hmw_hour(&key->hour, text);
}


hm_rc_t
hmw_entry_id(char out[HM_UUID_TEXT + 1], hm_str_t text)
{
    hm_uuid_t  id;

    if (text.len != HM_UUID_TEXT || hm_uuid_parse(&id, text) != HM_OK) {
        return HM_DECLINED;
    }

    hm_uuid_format(&id, out);
    out[HM_UUID_TEXT] = '\0';

    /* Lower case only: one spelling of an id, one key of a bucket. */

    return memcmp(out, text.data, HM_UUID_TEXT) == 0 ? HM_OK : HM_DECLINED;
}


hm_rc_t
hmw_redis_url(hmw_redis_url_t *url, const char *text)
{
    size_t    n;
    hm_str_t  rest, part;

    memset(url, 0, sizeof(hmw_redis_url_t));

    if (strncmp(text, "unix://", 7) != 0 || text[7] != '/') {
        return HM_DECLINED;
    }

    text += 7;
    n = strcspn(text, "?");

    if (n >= sizeof(url->path)) {
        return HM_DECLINED;
    }

    memcpy(url->path, text, n);
    text += n;

    if (*text == '\0') {
        return HM_OK;
    }

    rest.data = (unsigned char *) text + 1;
    rest.len = strlen(text + 1);

    while (hmw_cut(&part, &rest, '&')) {
        if (hmw_param(url, part) != HM_OK) {
            return HM_DECLINED;
        }
    }

    return rest.len == 0 ? HM_OK : hmw_param(url, rest);
}


static hm_rc_t
hmw_param(hmw_redis_url_t *url, hm_str_t part)
{
    char      *to;
    size_t     size;
    hm_str_t   name;

    if (!hmw_cut(&name, &part, '=')) {
        return HM_DECLINED;
    }

    if (hm_str_eq(name, HM_STR("user"))) {
        to = url->user;
        size = sizeof(url->user);

    } else if (hm_str_eq(name, HM_STR("password_file"))) {
        to = url->password_file;
        size = sizeof(url->password_file);

    } else {
        return HM_DECLINED;
    }

    if (part.len == 0 || part.len >= size) {
        return HM_DECLINED;
    }

    memcpy(to, part.data, part.len);
    to[part.len] = '\0';

    return HM_OK;
}


/* Canonical decimal only: no "+1", "007" or "-0", one text per hour. */

static hm_rc_t
hmw_hour(int64_t *hour, hm_str_t text)
{
    bool     minus;
    size_t   i;
    int64_t  n;

    minus = text.len > 0 && text.data[0] == '-';
    i = minus ? 1 : 0;

    if (text.len == i || text.len - i > 8) {
        return HM_DECLINED;
    }

    if (text.data[i] == '0' && (minus || text.len != 1)) {
        return HM_DECLINED;
    }

    for (n = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return HM_DECLINED;
        }

        n = n * 10 + (text.data[i] - '0');
    }

    *hour = minus ? -n : n;

    if (*hour < HMW_HOUR_MIN || *hour > HMW_HOUR_MAX) {
        return HM_DECLINED;
    }

    return HM_OK;
}


/* Splits rest at the first `at`: what is before goes to head. */

static bool
hmw_cut(hm_str_t *head, hm_str_t *rest, unsigned char at)
{
    unsigned char  *p;

    if (rest->len == 0) {
        return false;
    }

    p = memchr(rest->data, at, rest->len);
    if (p == NULL) {
        return false;
    }

    head->data = rest->data;
    head->len = (size_t) (p - rest->data);
    rest->len -= head->len + 1;
    rest->data = p + 1;

    return true;
}
