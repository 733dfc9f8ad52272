/*
 * ngx_hm_form: small JSON bodies that are no records: of a login, a reset, a
 * second factor.
 *
 * A body's members are asked for one by one, and every fault is named: the
 * functions add to hm->faults and give nothing back, so that a step reads all
 * it wants and looks once, at the end, whether hm->faults->n is 0.  A member
 * that was not asked for is a fault too (ngx_hm_form_members); null counts as
 * left out.
 *
 * Texts point into hm->json, which lives as long as the context.  A password
 * is never copied but into the work of ngx_hm_kdf.c, which is wiped.
 *
 * The records of resources do not come here: their members are told by a
 * descriptor and read by the CRUD engine.
 */

#include "ngx_hm.h"


/* `known` is a list with one space between the names. */
void
ngx_hm_form_members(ngx_hm_ctx_t *hm, const char *known)
{
    size_t       len;
    json_t      *j;
    const char  *name, *p;

    if (!json_is_object(hm->json)) {
        hm_fault_add(hm->faults, HM_STR(""), NULL, HM_FAULT_TYPE,
                     "an object is needed");
        return;
    }

    json_object_foreach(hm->json, name, j) {
        len = ngx_strlen(name);

        for (p = known; p != NULL; p = strchr(p, ' ')) {
            p += *p == ' ';

            if (ngx_strncmp(p, name, len) == 0
                && (p[len] == ' ' || p[len] == '\0'))
            {
                break;
            }
        }

        if (p == NULL || len == 0) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_UNKNOWN,
                         "no such member");
        }
    }
}


/* Length in characters; data NULL: absent, or a fault was added. */
hm_str_t
ngx_hm_form_text(ngx_hm_ctx_t *hm, const char *name, size_t min, size_t max,
    ngx_uint_t required)
{
    size_t    n;
    json_t   *j;
    hm_str_t  s;

    s = hm_null_str;
    j = json_object_get(hm->json, name);

    if (j == NULL || json_is_null(j)) {
        if (required) {
            hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_REQUIRED,
                         "must be given");
        }

        return s;
    }

    if (!json_is_string(j)) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_TYPE,
                     "a string is needed");
        return s;
    }

    s.data = (u_char *) json_string_value(j);
    s.len = json_string_length(j);
    n = hm_utf8_count(s);

    if (n < min || n > max) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_LENGTH,
                     "%zu..%zu characters", min, max);
        return hm_null_str;
    }

    if (!hm_text_clean(s)) {
        hm_fault_add(hm->faults, HM_STR(""), name, HM_FAULT_FORMAT,
                     "control characters are not taken");
        return hm_null_str;
    }

    return s;
}


/* `fingerprint`: does this login bind its tokens to a cookie? */
ngx_uint_t
ngx_hm_form_fingerprint(ngx_hm_ctx_t *hm)
{
    json_t      *j;
    ngx_uint_t   bound;

    bound = hm->conf->fingerprint != NGX_HM_OFF;

    j = json_object_get(hm->json, "fingerprint");

    if (j == NULL || json_is_null(j)) {
        return bound;
    }

    if (!json_is_boolean(j)) {
        hm_fault_add(hm->faults, HM_STR(""), "fingerprint", HM_FAULT_TYPE,
                     "true or false");
        return bound;
    }

    /* with `on` only loopback clients of the plain listener may refuse it */

    if (json_is_false(j)
        && (hm->conf->fingerprint != NGX_HM_ON_ || hm->plain))
    {
        bound = 0;
    }

    return bound;
}


/*
 * The blind index of an address, under the deployment's index key.
 * NGX_HM_NEXT; NGX_HM_FAIL: no address; NGX_HM_DONE: no key.
 */
ngx_hm_rc_t
ngx_hm_form_email(ngx_hm_ctx_t *hm, hm_str_t email, hm_str_t *normal,
    unsigned char index[32])
{
    hm_user_keys_t  *system;

    if (hm_email_normal(&hm->mem, normal, email) != HM_OK) {
        return NGX_HM_FAIL;
    }

    system = ngx_hm_system_keys();

    if (system == NULL
        || hm_blind_index(index, system->index_key, "users", "email",
                          &hm_nil_uuid, *normal) != HM_OK)
    {
        return NGX_HM_DONE;
    }

    return NGX_HM_NEXT;
}
