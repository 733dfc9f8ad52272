/*
 * hm_jwt: tokens in and out.
 *
 * DESIGN
 *
 * The verifier trusts nothing that a signature (or HS256's MAC) has not
 * covered.  Before that only two things are read from the token: its shape
 * (three parts, canonical base64url) and the header, which must be an object
 * of exactly alg, typ and kid.  The kid is looked up among the configured
 * keys by comparison and names nothing else: no file, no URL, no SQL.  The
 * algorithm is the key's, so alg can only agree with it or be refused;
 * "none" and embedded keys (jwk, jku, x5u) have no code that could honour
 * them.  Any further header member, crit and b64 among them, refuses the
 * token.
 *
 * After the signature the claims are read with exact types: a time is a JSON
 * integer (no 1e400, no "123", no 1.5), aud is one string.  A token that is
 * wrong in any way is INVALID; EXPIRED is said only of a token that is right
 * in every other way, because a client answers it with a refresh.
 *
 * Claims this file does not know are skipped: they were signed by our key.
 *
 * The claims are written by libjwt, and so is the whole of an HS256 token, so
 * that the two sides are different code and a fault in one shows against the
 * other.  libjwt has no EdDSA and parses the PEM anew for each ES256, so
 * those are signed in hm_jwt_key.c with the key that stands ready; libjwt is
 * their oracle in the tests.  The signer refuses to make what the verifier
 * would not take.
 *
 * Costs: a verify parses two small JSON texts and makes one HMAC or checks
 * one signature; the buffers are on the stack, bounded by HM_JWT_MAX.
 */

#include <stdio.h>
#include <stdlib.h>
#include <jwt.h>
#include "hm_jwt.h"
#include "hm_crypto.h"
#include "hm_json.h"
#include "hm_text.h"
#include "hm_uuid.h"


#define HM_JWT_SIG_TEXT   hm_b64url_len(HM_JWT_SIG_MAX)
#define HM_JWT_FGP_TEXT   43
#define HM_JWT_HEAD_MAX   256            /* text; ours has about 80 */


typedef struct {
    hm_str_t   head;
    hm_str_t   body;
    hm_str_t   sig;
    hm_str_t   covered;                  /* head.body */
} hm_jwt_parts_t;


static hm_rc_t hm_jwt_split(hm_jwt_parts_t *p, hm_str_t token);
static json_t *hm_jwt_part(hm_str_t text, unsigned char *buf);
static const hm_jwt_key_t *hm_jwt_header(const hm_jwt_conf_t *conf,
    hm_str_t text);
static hm_jwt_rc_t hm_jwt_signed(const hm_jwt_key_t *key,
    const hm_jwt_parts_t *p);
static hm_jwt_rc_t hm_jwt_claims(const hm_jwt_conf_t *conf, json_t *body,
    const char *typ, int64_t now, hm_claims_t *c);
static hm_rc_t hm_jwt_person(json_t *body, hm_claims_t *c);
static hm_rc_t hm_jwt_times(json_t *body, int64_t now, hm_claims_t *c);
static bool hm_jwt_text(json_t *body, const char *name, hm_str_t *out);
static bool hm_jwt_uuid(json_t *body, const char *name, hm_uuid_t *out);
static bool hm_jwt_time(json_t *body, const char *name, int64_t *out);
static bool hm_jwt_amr(json_t *body, unsigned *out);
static bool hm_jwt_fgp(json_t *body, hm_claims_t *c);
static bool hm_jwt_is(hm_str_t s, const char *text);
static hm_rc_t hm_jwt_sign_libjwt(jwt_t *jwt, const hm_jwt_key_t *key,
    hm_mem_t *mem, hm_str_t *token);
static hm_rc_t hm_jwt_sign_own(jwt_t *jwt, const hm_jwt_key_t *key,
    hm_mem_t *mem, hm_str_t *token);
static int hm_jwt_grants(jwt_t *jwt, const hm_jwt_conf_t *conf,
    hm_mem_t *mem, const hm_claims_t *c);
static int hm_jwt_grant_uuid(jwt_t *jwt, const char *name,
    const hm_uuid_t *id);
static int hm_jwt_grant_amr(jwt_t *jwt, unsigned amr);
static char *hm_jwt_cstr(hm_mem_t *mem, hm_str_t s);


static const char *const  hm_roles[] = {
    [HM_ROLE_NONE]       = "none",
    [HM_ROLE_PATIENT]    = "patient",
    [HM_ROLE_DOCTOR]     = "doctor",
    [HM_ROLE_ADMIN]      = "admin",
    [HM_ROLE_RESEARCHER] = "researcher"
};

#define HM_NROLES   (sizeof(hm_roles) / sizeof(hm_roles[0]))


/* RFC 8176 names. */

static const struct {
    const char  *name;
    unsigned     bit;
} hm_amrs[] = {
    { "pwd", HM_AMR_PWD },
    { "otp", HM_AMR_OTP },
    { "hwk", HM_AMR_HWK }
};

#define HM_NAMRS   (sizeof(hm_amrs) / sizeof(hm_amrs[0]))


hm_jwt_rc_t
hm_jwt_verify(const hm_jwt_conf_t *conf, hm_str_t token, const char *typ,
    int64_t now, hm_claims_t *claims)
{
    json_t               *body;
    hm_jwt_rc_t           rc;
    hm_jwt_parts_t        p;
    const hm_jwt_key_t   *key;
    unsigned char         buf[HM_JWT_MAX];

    memset(claims, 0, sizeof(hm_claims_t));

    if (hm_jwt_split(&p, token) != HM_OK) {
        return HM_JWT_INVALID;
    }

    key = hm_jwt_header(conf, p.head);
    if (key == NULL) {
        return HM_JWT_INVALID;
    }

    rc = hm_jwt_signed(key, &p);
    if (rc != HM_JWT_OK) {
        return rc;
    }

    body = hm_jwt_part(p.body, buf);
    if (body == NULL) {
        return HM_JWT_INVALID;
    }

    rc = hm_jwt_claims(conf, body, typ, now, claims);

    json_decref(body);

    if (rc == HM_JWT_INVALID) {
        memset(claims, 0, sizeof(hm_claims_t));
    }

    return rc;
}


static hm_rc_t
hm_jwt_split(hm_jwt_parts_t *p, hm_str_t token)
{
    unsigned char  *first, *second, *end;

    if (token.len == 0 || token.len > HM_JWT_MAX) {
        return HM_DECLINED;
    }

    end = token.data + token.len;

    first = memchr(token.data, '.', token.len);
    if (first == NULL) {
        return HM_DECLINED;
    }

    second = memchr(first + 1, '.', end - first - 1);
    if (second == NULL) {
        return HM_DECLINED;
    }

    p->head.data = token.data;
    p->head.len = first - token.data;
    p->body.data = first + 1;
    p->body.len = second - first - 1;
    p->sig.data = second + 1;
    p->sig.len = end - second - 1;
    p->covered.data = token.data;
    p->covered.len = second - token.data;

    /* A third dot would be inside sig, where the decoder refuses it. */

    if (p->head.len == 0 || p->head.len > HM_JWT_HEAD_MAX
        || p->body.len == 0
        || p->sig.len == 0 || p->sig.len > HM_JWT_SIG_TEXT)
    {
        return HM_DECLINED;
    }

    return HM_OK;
}


/* A part as a JSON object; buf holds the decoded text. */

static json_t *
hm_jwt_part(hm_str_t text, unsigned char *buf)
{
    json_t    *doc;
    hm_str_t   json, reason;

    if (hm_b64url_decode(buf, &json.len, text) != HM_OK) {
        return NULL;
    }

    json.data = buf;

    doc = hm_json_parse(json, &reason);
    if (doc == NULL) {
        return NULL;
    }

    if (!json_is_object(doc)) {
        json_decref(doc);
        return NULL;
    }

    return doc;
}


static const hm_jwt_key_t *
hm_jwt_header(const hm_jwt_conf_t *conf, hm_str_t text)
{
    size_t               i;
    json_t              *head;
    hm_str_t             alg, typ, kid;
    const hm_jwt_key_t  *key;
    unsigned char        buf[HM_JWT_HEAD_MAX];

    head = hm_jwt_part(text, buf);
    if (head == NULL) {
        return NULL;
    }

    key = NULL;

    if (json_object_size(head) != 3
        || !hm_jwt_text(head, "alg", &alg)
        || !hm_jwt_text(head, "typ", &typ)
        || !hm_jwt_text(head, "kid", &kid)
        || !hm_jwt_is(typ, "JWT"))
    {
        goto done;
    }

    for (i = 0; i < conf->nkeys; i++) {

        if (!hm_jwt_is(kid, conf->keys[i].kid)) {
            continue;
        }

        if (hm_jwt_is(alg, hm_jwt_alg_name(conf->keys[i].alg))) {
            key = &conf->keys[i];
        }

        break;
    }

done:

    json_decref(head);

    return key;
}


static hm_jwt_rc_t
hm_jwt_signed(const hm_jwt_key_t *key, const hm_jwt_parts_t *p)
{
    size_t         len;
    unsigned char  sig[HM_JWT_SIG_MAX + 3];

    if (hm_b64url_decode(sig, &len, p->sig) != HM_OK) {
        return HM_JWT_INVALID;
    }

    switch (hm_jwt_key_verify(key, p->covered, sig, len)) {
    case HM_OK:
        return HM_JWT_OK;
    case HM_DECLINED:
        return HM_JWT_INVALID;
    default:
        return HM_JWT_FAILED;
    }
}


static hm_jwt_rc_t
hm_jwt_claims(const hm_jwt_conf_t *conf, json_t *body, const char *typ,
    int64_t now, hm_claims_t *c)
{
    hm_str_t  s;

    if (!hm_jwt_text(body, "iss", &s) || !hm_str_eq(s, conf->issuer)) {
        return HM_JWT_INVALID;
    }

    if (!hm_jwt_text(body, "aud", &s) || !hm_str_eq(s, conf->audience)) {
        return HM_JWT_INVALID;
    }

    if (!hm_jwt_text(body, "typ", &s) || !hm_jwt_is(s, typ)
        || s.len >= sizeof(c->typ))
    {
        return HM_JWT_INVALID;
    }

    memcpy(c->typ, s.data, s.len);

    if (hm_jwt_person(body, c) != HM_OK
        || hm_jwt_times(body, now, c) != HM_OK)
    {
        return HM_JWT_INVALID;
    }

    return c->exp <= now ? HM_JWT_EXPIRED : HM_JWT_OK;
}


static hm_rc_t
hm_jwt_person(json_t *body, hm_claims_t *c)
{
    hm_str_t  role;

    if (!hm_jwt_uuid(body, "sub", &c->sub)
        || !hm_jwt_uuid(body, "sid", &c->sid)
        || !hm_jwt_uuid(body, "jti", &c->jti)
        || !hm_jwt_text(body, "role", &role))
    {
        return HM_DECLINED;
    }

    c->role = hm_role_of(role);
    if (c->role == HM_ROLE_NONE) {
        return HM_DECLINED;
    }

    if (!hm_jwt_amr(body, &c->amr) || !hm_jwt_fgp(body, c)) {
        return HM_DECLINED;
    }

    return HM_OK;
}


/* No skew on exp: whoever's clock is late refreshes a little earlier. */

static hm_rc_t
hm_jwt_times(json_t *body, int64_t now, hm_claims_t *c)
{
    if (!hm_jwt_time(body, "iat", &c->iat)
        || !hm_jwt_time(body, "nbf", &c->nbf)
        || !hm_jwt_time(body, "exp", &c->exp)
        || !hm_jwt_time(body, "auth_time", &c->auth_time))
    {
        return HM_DECLINED;
    }

    if (c->exp <= c->iat
        || c->nbf > now + HM_JWT_SKEW
        || c->iat > now + HM_JWT_SKEW
        || c->auth_time > now + HM_JWT_SKEW)
    {
        return HM_DECLINED;
    }

    return HM_OK;
}


static bool
hm_jwt_text(json_t *body, const char *name, hm_str_t *out)
{
    json_t  *v;

    v = json_object_get(body, name);
    if (!json_is_string(v)) {
        return false;
    }

    out->data = (unsigned char *) json_string_value(v);
    out->len = json_string_length(v);

    return true;
}


static bool
hm_jwt_uuid(json_t *body, const char *name, hm_uuid_t *out)
{
    hm_str_t  s;

    return hm_jwt_text(body, name, &s) && hm_uuid_parse(out, s) == HM_OK;
}


static bool
hm_jwt_time(json_t *body, const char *name, int64_t *out)
{
    json_t  *v;

    v = json_object_get(body, name);
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        return false;
    }

    *out = json_integer_value(v);

    return true;
}


static bool
hm_jwt_amr(json_t *body, unsigned *out)
{
    size_t    i, j;
    json_t   *v, *item;
    hm_str_t  s;

    v = json_object_get(body, "amr");
    if (!json_is_array(v)) {
        return false;
    }

    *out = 0;

    for (i = 0; i < json_array_size(v); i++) {
        item = json_array_get(v, i);
        if (!json_is_string(item)) {
            return false;
        }

        s.data = (unsigned char *) json_string_value(item);
        s.len = json_string_length(item);

        for (j = 0; j < HM_NAMRS; j++) {
            if (hm_jwt_is(s, hm_amrs[j].name)) {
                break;
            }
        }

        if (j == HM_NAMRS || (*out & hm_amrs[j].bit)) {
            return false;
        }

        *out |= hm_amrs[j].bit;
    }

    return true;
}


static bool
hm_jwt_fgp(json_t *body, hm_claims_t *c)
{
    size_t         len;
    hm_str_t       s;
    unsigned char  buf[sizeof(c->fgp) + 3];

    if (json_object_get(body, "fgp") == NULL) {
        return true;
    }

    if (!hm_jwt_text(body, "fgp", &s)
        || s.len != hm_b64url_len(sizeof(c->fgp))
        || hm_b64url_decode(buf, &len, s) != HM_OK
        || len != sizeof(c->fgp))
    {
        return false;
    }

    memcpy(c->fgp, buf, sizeof(c->fgp));
    c->has_fgp = true;

    return true;
}


static bool
hm_jwt_is(hm_str_t s, const char *text)
{
    return strlen(text) == s.len && memcmp(text, s.data, s.len) == 0;
}


hm_rc_t
hm_jwt_sign(const hm_jwt_conf_t *conf, hm_mem_t *mem,
    const hm_claims_t *claims, hm_str_t *token)
{
    jwt_t               *jwt;
    hm_rc_t              rc;
    const hm_jwt_key_t  *key;

    key = &conf->keys[0];

    if (conf->nkeys == 0 || key->verify_only
        || (key->alg == HM_JWT_HS256
            && key->secret_len < HM_JWT_SECRET_MIN)
        || claims->role == HM_ROLE_NONE
        || (unsigned) claims->role >= HM_NROLES
        || claims->exp <= claims->iat)
    {
        return HM_ERROR;
    }

    if (jwt_new(&jwt) != 0) {
        return HM_ERROR;
    }

    if (hm_jwt_grants(jwt, conf, mem, claims) != 0) {
        rc = HM_ERROR;

    } else if (key->alg == HM_JWT_HS256) {
        rc = hm_jwt_sign_libjwt(jwt, key, mem, token);

    } else {
        rc = hm_jwt_sign_own(jwt, key, mem, token);
    }

    jwt_free(jwt);

    return rc;
}


static hm_rc_t
hm_jwt_sign_libjwt(jwt_t *jwt, const hm_jwt_key_t *key, hm_mem_t *mem,
    hm_str_t *token)
{
    char     *text;
    hm_rc_t   rc;

    if (jwt_add_header(jwt, "kid", key->kid) != 0
        || jwt_set_alg(jwt, JWT_ALG_HS256, key->secret,
                       (int) key->secret_len)
           != 0)
    {
        return HM_ERROR;
    }

    text = jwt_encode_str(jwt);
    if (text == NULL) {
        return HM_ERROR;
    }

    rc = HM_ERROR;
    token->len = strlen(text);

    if (token->len <= HM_JWT_MAX) {
        token->data = hm_alloc(mem, token->len);

        if (token->data != NULL) {
            memcpy(token->data, text, token->len);
            rc = HM_OK;
        }
    }

    hm_wipe(text, strlen(text));
    free(text);

    return rc;
}


static hm_rc_t
hm_jwt_sign_own(jwt_t *jwt, const hm_jwt_key_t *key, hm_mem_t *mem,
    hm_str_t *token)
{
    int             n;
    char           *json, *p, head[128];
    size_t          len;
    unsigned char   sig[HM_JWT_SIG_MAX];

    json = jwt_get_grants_json(jwt, NULL);
    if (json == NULL) {
        return HM_ERROR;
    }

    n = snprintf(head, sizeof(head),
                 "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}",
                 hm_jwt_alg_name(key->alg), key->kid);

    len = hm_b64url_len((size_t) n) + hm_b64url_len(strlen(json))
          + HM_JWT_SIG_TEXT + 2;

    token->data = len <= HM_JWT_MAX ? hm_alloc(mem, len) : NULL;

    if (token->data == NULL) {
        free(json);
        return HM_ERROR;
    }

    p = (char *) token->data;
    p += hm_b64url_encode(p, head, (size_t) n);
    *p++ = '.';
    p += hm_b64url_encode(p, json, strlen(json));

    free(json);

    token->len = (size_t) (p - (char *) token->data);

    if (hm_jwt_key_sign(key, *token, sig) != HM_OK) {
        return HM_ERROR;
    }

    *p++ = '.';
    p += hm_b64url_encode(p, sig, hm_jwt_sig_len(key->alg));

    token->len = (size_t) (p - (char *) token->data);

    return HM_OK;
}


static int
hm_jwt_grants(jwt_t *jwt, const hm_jwt_conf_t *conf, hm_mem_t *mem,
    const hm_claims_t *c)
{
    char  *iss, *aud, fgp[HM_JWT_FGP_TEXT + 2];

    iss = hm_jwt_cstr(mem, conf->issuer);
    aud = hm_jwt_cstr(mem, conf->audience);

    if (iss == NULL || aud == NULL) {
        return -1;
    }

    if (jwt_add_grant(jwt, "iss", iss) != 0
        || jwt_add_grant(jwt, "aud", aud) != 0
        || jwt_add_grant(jwt, "typ", c->typ) != 0
        || jwt_add_grant(jwt, "role", hm_role_name(c->role)) != 0
        || hm_jwt_grant_uuid(jwt, "sub", &c->sub) != 0
        || hm_jwt_grant_uuid(jwt, "sid", &c->sid) != 0
        || hm_jwt_grant_uuid(jwt, "jti", &c->jti) != 0
        || jwt_add_grant_int(jwt, "iat", c->iat) != 0
        || jwt_add_grant_int(jwt, "nbf", c->nbf) != 0
        || jwt_add_grant_int(jwt, "exp", c->exp) != 0
        || jwt_add_grant_int(jwt, "auth_time", c->auth_time) != 0
        || hm_jwt_grant_amr(jwt, c->amr) != 0)
    {
        return -1;
    }

    if (c->has_fgp) {
        fgp[hm_b64url_encode(fgp, c->fgp, sizeof(c->fgp))] = '\0';

        return jwt_add_grant(jwt, "fgp", fgp);
    }

    return 0;
}


static int
hm_jwt_grant_uuid(jwt_t *jwt, const char *name, const hm_uuid_t *id)
{
    char  text[HM_UUID_TEXT + 1];

    hm_uuid_format(id, text);
    text[HM_UUID_TEXT] = '\0';

    return jwt_add_grant(jwt, name, text);
}


static int
hm_jwt_grant_amr(jwt_t *jwt, unsigned amr)
{
    int     n;
    char    json[64];
    size_t  i;

    n = snprintf(json, sizeof(json), "{\"amr\":[");

    for (i = 0; i < HM_NAMRS; i++) {
        if (amr & hm_amrs[i].bit) {
            n += snprintf(json + n, sizeof(json) - n, "%s\"%s\"",
                          json[n - 1] == '[' ? "" : ",", hm_amrs[i].name);
        }
    }

    snprintf(json + n, sizeof(json) - n, "]}");

    return jwt_add_grants_json(jwt, json);
}


static char *
hm_jwt_cstr(hm_mem_t *mem, hm_str_t s)
{
    char  *p;

    p = hm_alloc(mem, s.len + 1);
    if (p == NULL) {
        return NULL;
    }

    if (s.len != 0) {
        memcpy(p, s.data, s.len);
    }

    p[s.len] = '\0';

    return p;
}


hm_rc_t
hm_jwt_jwks(const hm_jwt_conf_t *conf, hm_buf_t *out)
{
    size_t  i, n;

    hm_buf_lit(out, "{\"keys\":[");

    for (i = 0, n = 0; i < conf->nkeys; i++) {

        if (conf->keys[i].alg == HM_JWT_HS256) {
            continue;
        }

        if (n++ != 0) {
            hm_buf_lit(out, ",");
        }

        if (hm_jwt_key_jwk(&conf->keys[i], out) != HM_OK) {
            return HM_ERROR;
        }
    }

    hm_buf_lit(out, "]}");

    return out->failed ? HM_ERROR : n != 0 ? HM_OK : HM_DECLINED;
}


const char *
hm_role_name(hm_role_t role)
{
    if ((unsigned) role >= HM_NROLES) {
        return hm_roles[HM_ROLE_NONE];
    }

    return hm_roles[role];
}


hm_role_t
hm_role_of(hm_str_t name)
{
    unsigned  i;

    for (i = HM_ROLE_PATIENT; i < HM_NROLES; i++) {
        if (hm_jwt_is(name, hm_roles[i])) {
            return (hm_role_t) i;
        }
    }

    return HM_ROLE_NONE;
}
