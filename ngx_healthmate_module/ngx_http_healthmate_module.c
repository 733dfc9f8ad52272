/*
 * ngx_http_healthmate_module: directives, configuration, start and exit.
 *
 * Directives are documented in docs/directives.md.  Everything hangs off the
 * main configuration, which requests never change; what a worker process
 * opens (connections, caches) begins in init_process and only in processes
 * that serve requests.
 *
 * Secrets are read from files by the master, which may read them, at
 * configuration time; their memory is locked and kept out of core dumps.
 */

#include "ngx_hm.h"
#include "ngx_hm_mfa.h"


static void *ngx_hm_create_main_conf(ngx_conf_t *cf);
static char *ngx_hm_init_main_conf(ngx_conf_t *cf, void *conf);
static void ngx_hm_session_limits(ngx_hm_main_conf_t *mcf);
static char *ngx_hm_check_production(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);
static void *ngx_hm_create_srv_conf(ngx_conf_t *cf);
static char *ngx_hm_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static void *ngx_hm_create_loc_conf(ngx_conf_t *cf);
static char *ngx_hm_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hm_problem(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hm_plain(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hm_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hm_rate_limit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_hm_session_limit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_hm_contact(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_hm_login_limit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_hm_number_in_time(ngx_conf_t *cf, ngx_uint_t *n,
    time_t *time);
static char *ngx_hm_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_hm_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_hm_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_hm_init_process(ngx_cycle_t *cycle);
static void ngx_hm_exit_process(ngx_cycle_t *cycle);
static void ngx_hm_zone_make(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf);


ngx_hm_worker_t  ngx_hm_worker;


static ngx_conf_enum_t  ngx_hm_fingerprints[] = {
    { ngx_string("on"), NGX_HM_ON_ },
    { ngx_string("optional"), NGX_HM_OPTIONAL },
    { ngx_string("off"), NGX_HM_OFF },
    { ngx_null_string, 0 }
};

static ngx_conf_enum_t  ngx_hm_audits[] = {
    { ngx_string("strict"), NGX_HM_AUDIT_STRICT },
    { ngx_string("bounded"), NGX_HM_AUDIT_BOUNDED },
    { ngx_null_string, 0 }
};

static ngx_conf_enum_t  ngx_hm_environments[] = {
    { ngx_string("local"), NGX_HM_LOCAL },
    { ngx_string("production"), NGX_HM_PRODUCTION },
    { ngx_null_string, 0 }
};

static ngx_conf_enum_t  ngx_hm_phis[] = {
    { ngx_string("all"), NGX_HM_PHI_ALL },
    { ngx_string("break_glass"), NGX_HM_PHI_BREAK_GLASS },
    { ngx_null_string, 0 }
};

static ngx_conf_enum_t  ngx_hm_care_assigns[] = {
    { ngx_string("patient"), NGX_HM_CARE_PATIENT },
    { ngx_string("staff"), NGX_HM_CARE_STAFF },
    { ngx_null_string, 0 }
};

static ngx_conf_enum_t  ngx_hm_registers[] = {
    { ngx_string("open"), NGX_HM_REGISTER_OPEN },
    { ngx_string("verified"), NGX_HM_REGISTER_VERIFIED },
    { ngx_string("invite"), NGX_HM_REGISTER_INVITE },
    { ngx_null_string, 0 }
};


#define NGX_HM_MAIN(name, field, fn, post)                                    \
    { ngx_string("healthmate_" name), NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1, fn,  \
      NGX_HTTP_MAIN_CONF_OFFSET, offsetof(ngx_hm_main_conf_t, field), post }


static ngx_command_t  ngx_hm_commands[] = {

    NGX_HM_MAIN("database", database, ngx_conf_set_str_slot, NULL),
    NGX_HM_MAIN("database_timeout", database_timeout,
                ngx_conf_set_msec_slot, NULL),
    NGX_HM_MAIN("database_queue", database_queue, ngx_conf_set_num_slot,
                NULL),
    NGX_HM_MAIN("kek_file", kek_file, ngx_conf_set_str_slot, NULL),
    NGX_HM_MAIN("jwt_fingerprint", fingerprint, ngx_conf_set_enum_slot,
                ngx_hm_fingerprints),
    NGX_HM_MAIN("access_token_time", access_time, ngx_conf_set_sec_slot,
                NULL),
    NGX_HM_MAIN("refresh_token_time", refresh_time, ngx_conf_set_sec_slot,
                NULL),
    NGX_HM_MAIN("audit", audit, ngx_conf_set_enum_slot, ngx_hm_audits),
    NGX_HM_MAIN("environment", environment, ngx_conf_set_enum_slot,
                ngx_hm_environments),
    NGX_HM_MAIN("admin_phi", admin_phi, ngx_conf_set_enum_slot,
                ngx_hm_phis),
    NGX_HM_MAIN("care_assign", care_assign, ngx_conf_set_enum_slot,
                ngx_hm_care_assigns),
    NGX_HM_MAIN("register", registration, ngx_conf_set_enum_slot,
                ngx_hm_registers),
    NGX_HM_MAIN("zone", zone_size, ngx_conf_set_size_slot, NULL),
    NGX_HM_MAIN("feed_zone", feed_size, ngx_conf_set_size_slot, NULL),
    NGX_HM_MAIN("thread_pool", pool_name, ngx_conf_set_str_slot, NULL),

    NGX_HM_MAIN("webauthn_rp_id", webauthn_id, ngx_conf_set_str_slot, NULL),

    { ngx_string("healthmate_webauthn_origin"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_hm_webauthn_origin, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_mfa_required"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_hm_mfa_required, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_jwt_issuer"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, jwt.issuer), NULL },

    { ngx_string("healthmate_jwt_audience"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, jwt.audience), NULL },

    { ngx_string("healthmate_limits"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, limits), NULL },

    { ngx_string("healthmate_demo"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, demo), NULL },

    { ngx_string("healthmate_redis"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_hm_redis, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_jwt_key"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2,
      ngx_hm_jwt_key, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_jwks"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, jwks), NULL },

    { ngx_string("healthmate_rate_limit"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE3,
      ngx_hm_rate_limit, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_session_limit"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE3,
      ngx_hm_session_limit, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },
    { ngx_string("healthmate_security_contact"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_hm_contact, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_change_password_url"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, password_url), NULL },
    { ngx_string("healthmate_rate_limit_cluster"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, cluster), NULL },

    { ngx_string("healthmate_login_limit"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2,
      ngx_hm_login_limit, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, login_tries), NULL },

    { ngx_string("healthmate_login_ceiling"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2,
      ngx_hm_login_limit, NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_hm_main_conf_t, ceiling_tries), NULL },

    { ngx_string("healthmate_plain"),
      NGX_HTTP_SRV_CONF|NGX_CONF_FLAG,
      ngx_hm_plain, NGX_HTTP_SRV_CONF_OFFSET,
      offsetof(ngx_hm_srv_conf_t, plain), NULL },

    { ngx_string("healthmate_cors"),
      NGX_HTTP_SRV_CONF|NGX_CONF_1MORE,
      ngx_hm_cors, NGX_HTTP_SRV_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_auth"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_hm_guard_auth, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_permission"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_hm_guard_permission, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    { ngx_string("healthmate_api"),
      NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_hm_api, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_hm_loc_conf_t, api), NULL },

    { ngx_string("healthmate_problem"),
      NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_hm_problem, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_hm_loc_conf_t, problem), NULL },

    ngx_null_command
};


static ngx_http_module_t  ngx_hm_module_ctx = {
    ngx_hm_preconfiguration,
    ngx_hm_postconfiguration,
    ngx_hm_create_main_conf,
    ngx_hm_init_main_conf,
    ngx_hm_create_srv_conf,
    ngx_hm_merge_srv_conf,
    ngx_hm_create_loc_conf,
    ngx_hm_guard_merge
};


ngx_module_t  ngx_http_healthmate_module = {
    NGX_MODULE_V1,
    &ngx_hm_module_ctx,
    ngx_hm_commands,
    NGX_HTTP_MODULE,
    NULL,                                /* init master */
    NULL,                                /* init module */
    ngx_hm_init_process,
    NULL,                                /* init thread */
    NULL,                                /* exit thread */
    ngx_hm_exit_process,
    NULL,                                /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_hm_preconfiguration(ngx_conf_t *cf)
{
    return ngx_hm_log_names(cf) == NGX_OK
           ? ngx_hm_guard_preconfiguration(cf) : NGX_ERROR;
}


static ngx_int_t
ngx_hm_postconfiguration(ngx_conf_t *cf)
{
    return ngx_hm_log_init(cf) == NGX_OK
           ? ngx_hm_guard_postconfiguration(cf) : NGX_ERROR;
}


static void *
ngx_hm_create_main_conf(ngx_conf_t *cf)
{
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_hm_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    mcf->database_timeout = NGX_CONF_UNSET_MSEC;
    mcf->database_queue = NGX_CONF_UNSET_UINT;
    mcf->fingerprint = NGX_CONF_UNSET_UINT;
    mcf->access_time = NGX_CONF_UNSET;
    mcf->refresh_time = NGX_CONF_UNSET;
    mcf->audit = NGX_CONF_UNSET_UINT;
    mcf->environment = NGX_CONF_UNSET_UINT;
    mcf->admin_phi = NGX_CONF_UNSET_UINT;
    mcf->care_assign = NGX_CONF_UNSET_UINT;
    mcf->registration = NGX_CONF_UNSET_UINT;
    mcf->mfa_roles = NGX_CONF_UNSET_UINT;
    mcf->zone_size = NGX_CONF_UNSET_SIZE;
    mcf->feed_size = NGX_CONF_UNSET_SIZE;
    mcf->limits = NGX_CONF_UNSET;
    mcf->demo = NGX_CONF_UNSET;
    mcf->jwks = NGX_CONF_UNSET;
    mcf->cluster = NGX_CONF_UNSET;
    mcf->login_tries = NGX_CONF_UNSET_UINT;
    mcf->login_window = NGX_CONF_UNSET;
    mcf->ceiling_tries = NGX_CONF_UNSET_UINT;
    mcf->ceiling_window = NGX_CONF_UNSET;

    for (i = 0; i < NGX_HM_CLASS_LAST; i++) {
        mcf->quota[i] = NGX_CONF_UNSET_UINT;
        mcf->window[i] = 60;
    }

    for (i = 0; i < NGX_HM_ROLES; i++) {
        mcf->idle[i] = NGX_CONF_UNSET;
        mcf->absolute[i] = NGX_CONF_UNSET;
    }

    return ngx_hm_jwt_create(cf, mcf) == NGX_OK ? mcf : NULL;
}


static char *
ngx_hm_init_main_conf(ngx_conf_t *cf, void *conf)
{
    char                 reason[256];
    ngx_str_t            issuer, audience;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf = conf;

    static const ngx_uint_t  quotas[] = {
#define X(id, name, n)  n,
        NGX_HM_CLASSES(X)
#undef X
    };

    ngx_conf_init_msec_value(mcf->database_timeout, 5000);
    ngx_conf_init_uint_value(mcf->database_queue, 4096);
    ngx_conf_init_uint_value(mcf->fingerprint, NGX_HM_ON_);
    ngx_conf_init_value(mcf->access_time, 1800);
    ngx_conf_init_value(mcf->refresh_time, 604800);
    ngx_conf_init_uint_value(mcf->audit, NGX_HM_AUDIT_STRICT);
    ngx_conf_init_uint_value(mcf->environment, NGX_HM_LOCAL);
    ngx_conf_init_uint_value(mcf->admin_phi, NGX_HM_PHI_BREAK_GLASS);
    ngx_conf_init_uint_value(mcf->care_assign, NGX_HM_CARE_PATIENT);
    ngx_conf_init_uint_value(mcf->registration, NGX_HM_REGISTER_VERIFIED);
    ngx_conf_init_size_value(mcf->zone_size, 8 * 1024 * 1024);
    ngx_conf_init_size_value(mcf->feed_size, 8 * 1024 * 1024);
    ngx_conf_init_value(mcf->limits, 1);
    ngx_conf_init_value(mcf->demo, 0);
    ngx_conf_init_value(mcf->jwks, 0);
    ngx_conf_init_value(mcf->cluster, 0);
    ngx_conf_init_uint_value(mcf->login_tries, 5);
    ngx_conf_init_value(mcf->login_window, 300);
    ngx_conf_init_uint_value(mcf->ceiling_tries, 100);
    ngx_conf_init_value(mcf->ceiling_window, 86400);

    for (i = 0; i < NGX_HM_CLASS_LAST; i++) {
        ngx_conf_init_uint_value(mcf->quota[i], quotas[i]);
    }

    ngx_hm_session_limits(mcf);

    ngx_str_set(&issuer, "healthmate");
    ngx_str_set(&audience, "healthmate-api");

    if (mcf->password_url.len == 0) {
        ngx_str_set(&mcf->password_url, "/account/password");
    }

    if (mcf->jwt.issuer.len == 0) {
        mcf->jwt.issuer = ngx_hm_hm(issuer);
    }

    if (mcf->jwt.audience.len == 0) {
        mcf->jwt.audience = ngx_hm_hm(audience);
    }

    if (ngx_hm_mfa_init(cf, mcf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_hm_stmts_init(cf, mcf) != NGX_OK
        || ngx_hm_router_init(cf) != NGX_OK
        || ngx_hm_openapi_build(cf, &mcf->openapi) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (ngx_hm_guard_check(cf, mcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (mcf->database.len == 0) {
        /* the module is loaded and not used */
        return NGX_CONF_OK;
    }

    if (mcf->kek_file.len == 0 || mcf->jwt_keys->nelts == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_database also needs "
                           "healthmate_kek_file and healthmate_jwt_key");
        return NGX_CONF_ERROR;
    }

    if (ngx_conf_full_name(cf->cycle, &mcf->kek_file, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    mcf->kek = hm_kek_load((char *) mcf->kek_file.data, reason);

    if (mcf->kek == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_kek_file \"%V\": %s", &mcf->kek_file,
                           reason);
        return NGX_CONF_ERROR;
    }

    if (ngx_hm_jwt_init(cf, mcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (mcf->pool_name.len == 0) {
        ngx_str_set(&mcf->pool_name, "default");
    }

    mcf->thread_pool = ngx_thread_pool_add(cf, &mcf->pool_name);
    if (mcf->thread_pool == NULL) {
        return NGX_CONF_ERROR;
    }

    if (mcf->cluster && mcf->redis_path.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_rate_limit_cluster also needs "
                           "healthmate_redis");
        return NGX_CONF_ERROR;
    }

    ngx_hm_zone_make(cf, mcf);
    if (mcf->zone == NULL || mcf->feed_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (mcf->access_time > 3600) {
        /* a revocation is kept for seventy minutes */
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "healthmate_access_token_time is more than 1h");
        return NGX_CONF_ERROR;
    }

    if (!mcf->limits) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "healthmate_limits is off: requests are counted "
                           "and none is refused");
    }

    return ngx_hm_check_production(cf, mcf);
}


/* Whoever sees other people's records is held shorter. */
static void
ngx_hm_session_limits(ngx_hm_main_conf_t *mcf)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HM_ROLES; i++) {
        ngx_conf_init_value(mcf->idle[i],
                            i == HM_ROLE_PATIENT ? 3600 : 900);
        ngx_conf_init_value(mcf->absolute[i],
                            i == HM_ROLE_PATIENT ? 30 * 86400 : 12 * 3600);
    }
}


/* rules.md 14: what is fine on a laptop is not in production. */
static char *
ngx_hm_check_production(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    ngx_uint_t  i, faults;

    struct {
        ngx_uint_t   wrong;
        const char  *say;
    } rules[] = {
        { mcf->demo, "demo accounts exist (healthmate_demo on); start with "
          "an empty database" },
        { !mcf->limits, "healthmate_limits must be on" },
        { mcf->fingerprint != NGX_HM_ON_,
          "healthmate_jwt_fingerprint must be on" },
        { mcf->audit != NGX_HM_AUDIT_STRICT,
          "healthmate_audit must be strict" },
        { mcf->plain, "healthmate_plain: a plain listener is for the local "
          "stack only" },
        { mcf->registration == NGX_HM_REGISTER_OPEN,
          "healthmate_register must be verified or invite" },
        { ngx_strstr(mcf->kek_file.data, "/pg/") != NULL
          || ngx_strstr(mcf->kek_file.data, "/data/") != NULL,
          "healthmate_kek_file lies in a data folder; keep it elsewhere" }
    };

    if (mcf->environment != NGX_HM_PRODUCTION) {
        return NGX_CONF_OK;
    }

    faults = 0;

    for (i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].wrong) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "healthmate_environment production: %s",
                               rules[i].say);
            faults++;
        }
    }

    return faults == 0 ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static void
ngx_hm_zone_make(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    ngx_str_t  name;

    ngx_str_set(&name, "healthmate");

    mcf->zone = ngx_shared_memory_add(cf, &name, mcf->zone_size,
                                      &ngx_http_healthmate_module);
    if (mcf->zone != NULL) {
        mcf->zone->init = ngx_hm_zone_init;
        mcf->zone->data = NULL;
    }

    ngx_str_set(&name, "healthmate_feed");

    mcf->feed_zone = ngx_shared_memory_add(cf, &name, mcf->feed_size,
                                           &ngx_http_healthmate_module);
    if (mcf->feed_zone != NULL) {
        mcf->feed_zone->init = ngx_hm_feed_zone_init;
        mcf->feed_zone->data = NULL;
    }
}


static void *
ngx_hm_create_srv_conf(ngx_conf_t *cf)
{
    ngx_hm_srv_conf_t  *scf;

    scf = ngx_pcalloc(cf->pool, sizeof(ngx_hm_srv_conf_t));
    if (scf != NULL) {
        scf->plain = NGX_CONF_UNSET;
    }

    return scf;
}


static char *
ngx_hm_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_hm_srv_conf_t  *prev = parent;
    ngx_hm_srv_conf_t  *conf = child;

    ngx_conf_merge_value(conf->plain, prev->plain, 0);

    return NGX_CONF_OK;
}


static void *
ngx_hm_create_loc_conf(ngx_conf_t *cf)
{
    ngx_hm_loc_conf_t  *lcf;

    lcf = ngx_pcalloc(cf->pool, sizeof(ngx_hm_loc_conf_t));
    if (lcf != NULL) {
        lcf->api = NGX_CONF_UNSET;
        lcf->problem = NGX_CONF_UNSET;
        lcf->auth = NGX_CONF_UNSET_UINT;
        lcf->perm = NGX_CONF_UNSET_UINT;
    }

    return lcf;
}


/* Directives */


static char *
ngx_hm_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                      *rc;
    ngx_hm_loc_conf_t         *lcf = conf;
    ngx_http_core_loc_conf_t  *clcf;

    rc = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rc == NGX_CONF_OK && lcf->api) {
        clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
        clcf->handler = ngx_hm_handler;
    }

    return rc;
}


static char *
ngx_hm_problem(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                      *rc;
    ngx_hm_loc_conf_t         *lcf = conf;
    ngx_http_core_loc_conf_t  *clcf;

    rc = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rc == NGX_CONF_OK && lcf->problem) {
        clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
        clcf->handler = ngx_hm_problem_handler;
    }

    return rc;
}


static char *
ngx_hm_plain(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                *rc;
    ngx_hm_srv_conf_t   *scf = conf;
    ngx_hm_main_conf_t  *mcf;

    rc = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rc == NGX_CONF_OK && scf->plain) {
        mcf = ngx_http_conf_get_module_main_conf(cf,
                                               ngx_http_healthmate_module);
        mcf->plain = 1;
    }

    return rc;
}


/* healthmate_redis unix:/path [user=NAME] [password_file=PATH] */
static char *
ngx_hm_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    size_t               len;
    u_char              *buf;
    ngx_str_t           *value, path;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf = conf;

    value = cf->args->elts;

    if (mcf->redis_path.data != NULL) {
        return "is duplicate";
    }

    if (value[1].len < 6 || ngx_strncmp(value[1].data, "unix:", 5) != 0) {
        return "needs a Unix socket: unix:/path";
    }

    mcf->redis_path.data = value[1].data + 5;
    mcf->redis_path.len = value[1].len - 5;

    if (mcf->redis_path.len >= sizeof(((struct sockaddr_un *) 0)->sun_path)) {
        return "has a path that is too long for a Unix socket";
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "user=", 5) == 0) {
            mcf->redis_user.data = value[i].data + 5;
            mcf->redis_user.len = value[i].len - 5;
            continue;
        }

        if (ngx_strncmp(value[i].data, "password_file=", 14) == 0) {
            path.data = value[i].data + 14;
            path.len = value[i].len - 14;

            buf = hm_locked_alloc(256);

            if (buf == NULL
                || ngx_hm_read_secret(cf, &path, buf, 256, &len) != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            mcf->redis_password.data = buf;
            mcf->redis_password.len = len;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* A file's bytes without a newline at the end; not readable by others. */
ngx_int_t
ngx_hm_read_secret(ngx_conf_t *cf, ngx_str_t *path, u_char *out, size_t size,
    size_t *len)
{
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_str_t        name;
    ngx_file_info_t  fi;

    name = *path;

    if (ngx_conf_full_name(cf->cycle, &name, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    fd = ngx_open_file(name.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE || ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "cannot read \"%V\"", &name);
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, out, size);
    (void) ngx_close_file(fd);

    if (fi.st_mode & 0007) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" holds a secret and everybody may read "
                           "it: chmod o= it", &name);
        return NGX_ERROR;
    }

    if (n <= 0 || (size_t) n == size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is empty or too long", &name);
        return NGX_ERROR;
    }

    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == '\r')) {
        n--;
    }

    *len = (size_t) n;

    return NGX_OK;
}


/* N TIME at the end of a directive: both above 0, no more than a day. */
static ngx_int_t
ngx_hm_number_in_time(ngx_conf_t *cf, ngx_uint_t *n, time_t *time)
{
    ngx_int_t   number, seconds;
    ngx_str_t  *value;

    value = (ngx_str_t *) cf->args->elts + cf->args->nelts - 2;

    number = ngx_atoi(value[0].data, value[0].len);
    seconds = ngx_parse_time(&value[1], 1);

    if (number < 1 || number > INT32_MAX || seconds < 1 || seconds > 86400) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V %V\": a number and a time of 1s to 1d are "
                           "needed", &value[0], &value[1]);
        return NGX_ERROR;
    }

    *n = (ngx_uint_t) number;
    *time = (time_t) seconds;

    return NGX_OK;
}


/* healthmate_rate_limit CLASS N TIME */
static char *
ngx_hm_rate_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    time_t               window;
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf = conf;

    static const char  *names[] = {
#define X(id, name, n)  name,
        NGX_HM_CLASSES(X)
#undef X
    };

    value = cf->args->elts;

    for (i = 1; i < NGX_HM_CLASS_LAST; i++) {
        if (ngx_strcmp(value[1].data, names[i]) == 0) {
            break;
        }
    }

    if (i == NGX_HM_CLASS_LAST) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no such class \"%V\": default, auth, data-read, "
                           "data-write, ingest, chat, compliance, analytics",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (mcf->quota[i] != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ngx_hm_number_in_time(cf, &mcf->quota[i], &window) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    mcf->window[i] = (ngx_uint_t) window;

    return NGX_CONF_OK;
}


/* healthmate_session_limit ROLE IDLE ABSOLUTE */
static char *
ngx_hm_session_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    time_t               idle, absolute;
    ngx_str_t           *value;
    hm_role_t            role;
    ngx_hm_main_conf_t  *mcf = conf;

    value = cf->args->elts;
    role = hm_role_of(ngx_hm_hm(value[1]));

    if (role == HM_ROLE_NONE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no such role \"%V\": patient, doctor, admin, "
                           "researcher", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (mcf->idle[role] != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    idle = ngx_parse_time(&value[2], 1);
    absolute = ngx_parse_time(&value[3], 1);

    if (idle == (time_t) NGX_ERROR || absolute == (time_t) NGX_ERROR
        || idle == 0 || absolute < idle || absolute > 365 * 86400)
    {
        return "needs an idle time above 0 and an absolute one that is not "
               "shorter, 365d at most";
    }

    mcf->idle[role] = idle;
    mcf->absolute[role] = absolute;

    return NGX_CONF_OK;
}


/* healthmate_security_contact URI... */
static char *
ngx_hm_contact(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t           *value, *contact;
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf = conf;

    value = cf->args->elts;

    if (mcf->contacts == NULL) {
        mcf->contacts = ngx_array_create(cf->pool, 2, sizeof(ngx_str_t));
        if (mcf->contacts == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_strncmp(value[i].data, "mailto:", 7) != 0
            && ngx_strncmp(value[i].data, "https://", 8) != 0
            && ngx_strncmp(value[i].data, "tel:", 4) != 0)
        {
            return "needs URIs: mailto:, https:// or tel:";
        }

        contact = ngx_array_push(mcf->contacts);
        if (contact == NULL) {
            return NGX_CONF_ERROR;
        }

        *contact = value[i];
    }

    return NGX_CONF_OK;
}


/* healthmate_login_limit N TIME, healthmate_login_ceiling N TIME */
static char *
ngx_hm_login_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hm_main_conf_t  *mcf = conf;

    if (*(ngx_uint_t *) ((u_char *) conf + cmd->offset)
        != NGX_CONF_UNSET_UINT)
    {
        return "is duplicate";
    }

    if (cmd->offset == offsetof(ngx_hm_main_conf_t, login_tries)) {
        return ngx_hm_number_in_time(cf, &mcf->login_tries,
                                     &mcf->login_window) == NGX_OK
               ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    return ngx_hm_number_in_time(cf, &mcf->ceiling_tries,
                                 &mcf->ceiling_window) == NGX_OK
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_hm_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t          *value, *origin;
    ngx_uint_t          i;
    ngx_hm_srv_conf_t  *scf = conf;

    value = cf->args->elts;

    if (scf->cors == NULL) {
        scf->cors = ngx_array_create(cf->pool, 2, sizeof(ngx_str_t));
        if (scf->cors == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_strncmp(value[i].data, "https://", 8) != 0
            && ngx_strncmp(value[i].data, "http://", 7) != 0)
        {
            return "needs exact origins, as https://app.example.org";
        }

        origin = ngx_array_push(scf->cors);
        if (origin == NULL) {
            return NGX_CONF_ERROR;
        }

        *origin = value[i];
    }

    return NGX_CONF_OK;
}


/* Processes */


static ngx_int_t
ngx_hm_init_process(ngx_cycle_t *cycle)
{
    ngx_hm_main_conf_t  *mcf;

    /* helper processes (cache manager) come here as well */

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_healthmate_module);

    if (mcf == NULL || mcf->database.len == 0) {
        return NGX_OK;
    }

    ngx_hm_worker.conf = mcf;
    ngx_hm_worker.log = cycle->log;
    ngx_hm_worker.slot = (ngx_uint_t) ngx_process_slot;
    ngx_hm_worker.started = hm_now();

    ngx_hm_zone_attach(mcf->zone);

    if (hm_crypto_init() != HM_OK
        || ngx_hm_keys_start(mcf) != NGX_OK
        || ngx_hm_audit_start(mcf) != NGX_OK
        || ngx_hm_pg_start(mcf, cycle->log) != NGX_OK
        || ngx_hm_redis_start(mcf, cycle->log) != NGX_OK
        || ngx_hm_feed_start(mcf, cycle->log) != NGX_OK)
    {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "healthmate: the worker could not start");
        return NGX_ERROR;
    }

    ngx_hm_token_cache_init();

    return NGX_OK;
}


static void
ngx_hm_exit_process(ngx_cycle_t *cycle)
{
    if (ngx_hm_worker.conf == NULL) {
        return;
    }

    ngx_hm_feed_stop();
    ngx_hm_lag_stop();
    ngx_hm_pg_stop();
    ngx_hm_redis_stop();
    ngx_hm_ctx_exit();
    ngx_hm_keys_stop();
}
