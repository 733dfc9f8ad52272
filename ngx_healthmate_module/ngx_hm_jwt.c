/*
 * ngx_hm_jwt: the key ring of the configuration.
 *
 * Each healthmate_jwt_key adds a key; the first signs, all verify.  A ring
 * is part of a configuration and never changes: a reload brings a new one to
 * new workers, whose cache of verified tokens is empty, so that a key which
 * is gone takes its tokens with it.  The old workers go on with the old ring
 * for the requests they have begun, and take no new ones.
 *
 * Files are read by the master, which may; keys are freed and secrets wiped
 * with the configuration that read them.
 *
 * The public key set is written once, here, because it cannot change either.
 */

#include "ngx_hm.h"


#define NGX_HM_KEY_FILE   8192
#define NGX_HM_KEYS       16


static ngx_int_t ngx_hm_jwt_known(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf,
    ngx_str_t *kid);
static void ngx_hm_jwt_wipe(void *data);
static void *ngx_hm_jwt_alloc(void *pool, size_t size);


/* healthmate_jwt_key KID FILE */
char *
ngx_hm_jwt_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                 reason[HM_JWT_REASON];
    size_t               len;
    u_char              *buf;
    hm_rc_t              rc;
    hm_str_t             file;
    ngx_str_t           *value;
    hm_jwt_key_t        *key;
    ngx_hm_main_conf_t  *mcf = conf;

    value = cf->args->elts;

    if (ngx_hm_jwt_known(cf, mcf, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (mcf->jwt_keys->nelts == NGX_HM_KEYS) {
        return "is given more than 16 times";
    }

    buf = hm_locked_alloc(NGX_HM_KEY_FILE);
    if (buf == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_hm_read_secret(cf, &value[2], buf, NGX_HM_KEY_FILE, &len)
        != NGX_OK)
    {
        hm_locked_free(buf, NGX_HM_KEY_FILE);
        return NGX_CONF_ERROR;
    }

    /* not counted before it is whole: the cleanup frees what is counted */

    key = ngx_array_push(mcf->jwt_keys);
    if (key == NULL) {
        hm_wipe(buf, NGX_HM_KEY_FILE);
        hm_locked_free(buf, NGX_HM_KEY_FILE);
        return NGX_CONF_ERROR;
    }

    file.data = buf;
    file.len = len;
    rc = hm_jwt_key_load(key, ngx_hm_hm(value[1]), file, reason);

    hm_wipe(buf, NGX_HM_KEY_FILE);
    hm_locked_free(buf, NGX_HM_KEY_FILE);

    if (rc != HM_OK) {
        mcf->jwt_keys->nelts--;
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_jwt_key \"%V\": %s", &value[1],
                           reason);
        return NGX_CONF_ERROR;
    }

    if (mcf->jwt_keys->nelts == 1 && key->verify_only) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_jwt_key \"%V\": the first key signs, "
                           "and this one is public", &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_hm_jwt_known(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf, ngx_str_t *kid)
{
    ngx_uint_t     i;
    hm_jwt_key_t  *keys;

    keys = mcf->jwt_keys->elts;

    for (i = 0; i < mcf->jwt_keys->nelts; i++) {
        if (hm_str_eq(ngx_hm_hm(*kid), (hm_str_t) {
                          ngx_strlen(keys[i].kid),
                          (unsigned char *) keys[i].kid }))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "healthmate_jwt_key \"%V\" is duplicate; "
                               "another key needs another id", kid);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * Room for the keys of a configuration, with the end of their life.  The
 * array does not grow: a copy that moved would leave its secrets behind.
 */
ngx_int_t
ngx_hm_jwt_create(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    ngx_array_t         *array;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(cf->pool, sizeof(ngx_array_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    array = cln->data;
    ngx_memzero(array, sizeof(ngx_array_t));

    array->size = sizeof(hm_jwt_key_t);
    array->nalloc = NGX_HM_KEYS;
    array->pool = cf->pool;
    array->elts = hm_locked_alloc(NGX_HM_KEYS * sizeof(hm_jwt_key_t));

    if (array->elts == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_hm_jwt_wipe;
    mcf->jwt_keys = array;

    return NGX_OK;
}


static void
ngx_hm_jwt_wipe(void *data)
{
    ngx_uint_t     i;
    ngx_array_t   *array = data;
    hm_jwt_key_t  *keys;

    keys = array->elts;

    for (i = 0; i < array->nelts; i++) {
        hm_jwt_key_free(&keys[i]);
    }

    hm_locked_free(keys, NGX_HM_KEYS * sizeof(hm_jwt_key_t));
}


ngx_int_t
ngx_hm_jwt_init(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    hm_mem_t        mem;
    hm_buf_t        b;
    unsigned char   digest[32];

    mcf->jwt.keys = mcf->jwt_keys->elts;
    mcf->jwt.nkeys = mcf->jwt_keys->nelts;

    if (!mcf->jwks) {
        return NGX_OK;
    }

    mem.alloc = ngx_hm_jwt_alloc;
    mem.ctx = cf->pool;

    hm_buf_init(&b, &mem, 512);

    switch (hm_jwt_jwks(&mcf->jwt, &b)) {

    case HM_OK:
        break;

    case HM_DECLINED:
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "healthmate_jwks: there is no public key; "
                           "/.well-known/jwks.json stays 404");
        return NGX_OK;

    default:
        return NGX_ERROR;
    }

    mcf->jwks_text.data = b.start;
    mcf->jwks_text.len = hm_buf_len(&b);
    mcf->jwks_etag.data = ngx_pnalloc(cf->pool, 34);

    if (mcf->jwks_etag.data == NULL
        || hm_sha256(digest, b.start, hm_buf_len(&b)) != HM_OK)
    {
        return NGX_ERROR;
    }

    mcf->jwks_etag.data[0] = '"';
    hm_hex((char *) mcf->jwks_etag.data + 1, digest, 16);
    mcf->jwks_etag.data[33] = '"';
    mcf->jwks_etag.len = 34;

    return NGX_OK;
}


static void *
ngx_hm_jwt_alloc(void *pool, size_t size)
{
    return ngx_palloc(pool, size);
}
