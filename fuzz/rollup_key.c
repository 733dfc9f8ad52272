/*
 * Fuzz: the texts that steer the worker (unique keys, stream entry, Redis
 * address, an address that mail goes to).  Whatever is accepted must be
 * canonical: written back it is the same text, so that no two spellings name
 * one bucket.
 */

#include <stdio.h>
#include <stdlib.h>

#include "../worker/mail_text.c"
#include "../worker/ukey.c"


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char               id[HM_UUID_TEXT + 1], back[256], *text;
    hm_str_t           s;
    hmw_redis_url_t    url;
    hmw_rollup_key_t   key;

    const hmw_template_t  *template;

    /* An own block of just this size, so that a byte beyond is seen. */

    text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }

    memcpy(text, data, size);
    s.data = (unsigned char *) text;
    s.len = size;

    if (hmw_rollup_key(&key, s) == HM_OK) {
        if (key.all) {
            snprintf(back, sizeof(back), "rollup:%s:%s%s%s:*", key.user_text,
                     key.metric, key.custom ? "." : "", key.slug_hex);
        } else {
            snprintf(back, sizeof(back), "rollup:%s:%s%s%s:%lld",
                     key.user_text, key.metric, key.custom ? "." : "",
                     key.slug_hex, (long long) key.hour);
        }

        if (strlen(back) != size || memcmp(back, text, size) != 0) {
            abort();
        }
    }

    if (hmw_mail_key(&template, id, s) == HM_OK) {
        snprintf(back, sizeof(back), "mail:%s:%s", template->name, id);

        if (strlen(back) != size || memcmp(back, text, size) != 0) {
            abort();
        }
    }

    if (hmw_request_key(id, s) == HM_OK && strlen(id) != HM_UUID_TEXT) {
        abort();
    }

    /* one line, one address */

    if (hmw_mail_address(s) && (memchr(text, '\n', size) != NULL
                                || memchr(text, '\0', size) != NULL
                                || memchr(text, '>', size) != NULL))
    {
        abort();
    }

    if (hmw_entry_id(id, s) == HM_OK && strlen(id) != HM_UUID_TEXT) {
        abort();
    }

    text[size] = '\0';

    if (hmw_redis_url(&url, text) == HM_OK
        && (url.path[0] != '/' || memchr(url.user, '\0', 64) == NULL))
    {
        abort();
    }

    free(text);

    return 0;
}
