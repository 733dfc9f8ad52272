/*
 * ngx_hm_device: a device that has logged in before.
 *
 * A successful login leaves a cookie for 180 days: an id of the device, the
 * account, the version of its password and a time, under a MAC.  It is no
 * key to anything: whoever logs in with it still needs the password.  It
 * only says that this is not a stranger, so that strangers who try passwords
 * do not lock out the owner (ngx_hm_login.c).
 *
 * It ends with the password it was made under; on a change of password the
 * device that made it gets a new one.  Sessions carry the id, so what is
 * listed there is what is trusted: ending somebody's session from the list,
 * or a refresh token that was used twice, ends the trust in the device
 * (hm_device_ended() in the database), a logout does not.
 *
 * The name is __Secure-hm-dev; on the plain listener, which exists on
 * loopback only and whose browsers would drop that, it is hm-dev.  The path
 * keeps it out of all requests but those about accounts.
 */

#include "ngx_hm.h"


#define NGX_HM_DEVICE_LIFE   (180 * 86400)
#define NGX_HM_DEVICE_SAID   40          /* id, account, version, time */
#define NGX_HM_DEVICE_LEN    (NGX_HM_DEVICE_SAID + 32)
#define NGX_HM_DEVICE_TEXT   (5 + NGX_HM_DEVICE_LEN / 3 * 4)


/* Fills hm->device from the cookie; not genuine: none, or none of ours. */
void
ngx_hm_device_read(ngx_hm_ctx_t *hm)
{
    size_t             len;
    int64_t            age;
    hm_str_t           cookie, text;
    unsigned char      mac[32], raw[NGX_HM_DEVICE_LEN];
    ngx_hm_device_t   *d = &hm->device;

    ngx_memzero(d, sizeof(ngx_hm_device_t));

    cookie = ngx_hm_cookie(ngx_hm_header(hm, "cookie"),
                           hm->plain ? "hm-dev" : "__Secure-hm-dev");

    if (cookie.len != NGX_HM_DEVICE_TEXT
        || ngx_memcmp(cookie.data, "hmd1.", 5) != 0)
    {
        return;
    }

    text.data = cookie.data + 5;
    text.len = cookie.len - 5;

    if (hm_b64url_decode(raw, &len, text) != HM_OK
        || len != NGX_HM_DEVICE_LEN
        || ngx_hm_mac(mac, "device", raw, NGX_HM_DEVICE_SAID) != NGX_OK
        || !hm_equal_ct(mac, raw + NGX_HM_DEVICE_SAID, 32))
    {
        return;
    }

    age = hm->now / HM_USEC - (int64_t) hm_get_u32(raw + 36);

    if (age < -300 || age > NGX_HM_DEVICE_LIFE) {
        return;
    }

    ngx_memcpy(d->id.b, raw, 16);
    ngx_memcpy(d->user.b, raw + 16, 16);
    d->version = hm_get_u32(raw + 32);
    d->genuine = 1;
}


/*
 * Is it a device of this account, under its present password, in whose
 * session nobody has found a stranger?
 */
void
ngx_hm_device_judge(ngx_hm_ctx_t *hm, const hm_uuid_t *user,
    uint32_t password_version, ngx_uint_t ended)
{
    ngx_hm_device_t  *d = &hm->device;

    d->known = d->genuine && !ended && hm_uuid_eq(&d->user, user)
               && d->version == password_version;
}


/* The cookie of a login that was right: a known device keeps its id. */
ngx_int_t
ngx_hm_device_make(ngx_hm_ctx_t *hm, const hm_uuid_t *user,
    uint32_t password_version)
{
    size_t             len;
    char               text[NGX_HM_DEVICE_TEXT];
    unsigned char      raw[NGX_HM_DEVICE_LEN];
    ngx_hm_device_t   *d = &hm->device;

    if (!d->known && hm_random(d->id.b, 16) != HM_OK) {
        return NGX_ERROR;
    }

    /* a UUID as any other, of version 4 */
    d->id.b[6] = (unsigned char) ((d->id.b[6] & 0x0f) | 0x40);
    d->id.b[8] = (unsigned char) ((d->id.b[8] & 0x3f) | 0x80);

    ngx_memcpy(raw, d->id.b, 16);
    ngx_memcpy(raw + 16, user->b, 16);
    hm_put_u32(raw + 32, password_version);
    hm_put_u32(raw + 36, (uint32_t) (hm->now / HM_USEC));

    if (ngx_hm_mac(raw + NGX_HM_DEVICE_SAID, "device", raw,
                   NGX_HM_DEVICE_SAID) != NGX_OK)
    {
        return NGX_ERROR;
    }

    len = hm_b64url_encode(text, raw, sizeof(raw));

    hm->headers.device = ngx_hm_printf(hm, "%s=hmd1.%.*s; "
                                       "Path=/api/v1/auth; Max-Age=%d; "
                                       "HttpOnly; %sSameSite=Strict",
                                       hm->plain ? "hm-dev"
                                                 : "__Secure-hm-dev",
                                       (int) len, text, NGX_HM_DEVICE_LIFE,
                                       hm->plain ? "" : "Secure; ");

    return hm->headers.device.data != NULL ? NGX_OK : NGX_ERROR;
}
