/*
 * api_wellknown: two addresses that other people's programs know.
 *
 * /.well-known/security.txt (RFC 9116) says whom to tell of a hole.  The
 * standard wants a date after which the text is no longer believed; it is
 * half a year ahead of the request's day, so that it never runs out while
 * somebody runs the service, and changes once a day.  Without a contact
 * (healthmate_security_contact) there is no such text: 404.
 *
 * /.well-known/change-password leads a password manager to the page where a
 * password is changed (healthmate_change_password_url).
 *
 * No token, no rate class, no audit; nothing here tells of a person.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_endpoints.h"


#define WELLKNOWN_DAY    ((hm_usec_t) 86400 * 1000000)
#define WELLKNOWN_LIFE   180


static ngx_hm_rc_t wellknown_security(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t wellknown_password(ngx_hm_ctx_t *hm);


const ngx_hm_step_pt  ngx_hm_wellknown_security[] = {
    wellknown_security, NULL
};
const ngx_hm_step_pt  ngx_hm_wellknown_password[] = {
    wellknown_password, NULL
};


static ngx_hm_rc_t
wellknown_security(ngx_hm_ctx_t *hm)
{
    char         until[HM_TIME_TEXT];
    ngx_str_t   *contact;
    hm_usec_t    t;
    ngx_uint_t   i;

    if (hm->conf->contacts == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_NOT_FOUND);
    }

    t = hm->now - hm->now % WELLKNOWN_DAY + WELLKNOWN_LIFE * WELLKNOWN_DAY;
    hm_time_format(t, until);

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 512);
    hm->headers.type = HM_STR("text/plain; charset=utf-8");

    contact = hm->conf->contacts->elts;

    for (i = 0; i < hm->conf->contacts->nelts; i++) {
        hm_buf_lit(&hm->out, "Contact: ");
        hm_buf_str(&hm->out, ngx_hm_hm(contact[i]));
        hm_buf_lit(&hm->out, "\n");
    }

    hm_buf_lit(&hm->out, "Expires: ");
    hm_buf_add(&hm->out, until, HM_TIME_TEXT);
    hm_buf_lit(&hm->out, "\nPreferred-Languages: en\n");

    return NGX_HM_DONE;
}


static ngx_hm_rc_t
wellknown_password(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_MOVED_TEMPORARILY, 0);
    hm->headers.location = ngx_hm_hm(hm->conf->password_url);

    return NGX_HM_DONE;
}
