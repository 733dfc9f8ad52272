/*
 * ngx_hm_guard_conf: directives and variables of the gate in front of other
 * locations.  docs/directives.md says what they mean.
 *
 * A configuration that looks closed and is open must not start: a permission
 * where no token is asked for, a gate without a database, a gate on a
 * location of the API (which has its own) are faults of nginx -t.
 *
 * The variables are read from the request's proven identity and from nothing
 * a client can write.  They are not cached: before the access phase they are
 * empty, and after it they are not.
 */

#include "ngx_hm_guard.h"


static ngx_int_t ngx_hm_guard_user_id(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_hm_guard_role(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_hm_guard_fault(ngx_conf_t *cf, ngx_hm_loc_conf_t *lcf,
    const char *text);


static ngx_http_variable_t  ngx_hm_guard_variables[] = {

    { ngx_string("healthmate_user_id"), NULL, ngx_hm_guard_user_id,
      offsetof(hm_claims_t, sub), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("healthmate_session"), NULL, ngx_hm_guard_user_id,
      offsetof(hm_claims_t, sid), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("healthmate_role"), NULL, ngx_hm_guard_role, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    ngx_http_null_variable
};


static const struct {
    const char   *name;
    ngx_uint_t    value;
} ngx_hm_guard_words[] = {
    { "on", NGX_HM_ON_ }, { "optional", NGX_HM_OPTIONAL },
    { "off", NGX_HM_OFF }
};


/* healthmate_auth on | optional | off */
char *
ngx_hm_guard_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_hm_loc_conf_t   *lcf = conf;
    ngx_hm_main_conf_t  *mcf;

    value = cf->args->elts;

    if (lcf->auth != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    for (i = 0; i < 3; i++) {
        if (ngx_strcmp(value[1].data, ngx_hm_guard_words[i].name) == 0) {
            lcf->auth = ngx_hm_guard_words[i].value;
        }
    }

    if (lcf->auth == NGX_CONF_UNSET_UINT) {
        return "is on, optional or off";
    }

    lcf->file = cf->conf_file->file.name;
    lcf->line = cf->conf_file->line;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_healthmate_module);

    if (lcf->auth != NGX_HM_OFF && mcf->guard == NULL) {
        mcf->guard = lcf;
    }

    return NGX_CONF_OK;
}


/* healthmate_permission NAME */
char *
ngx_hm_guard_permission(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t          *value;
    ngx_uint_t          i;
    ngx_hm_loc_conf_t  *lcf = conf;

    value = cf->args->elts;

    if (lcf->perm != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    for (i = HM_PERM_SELF; i < HM_PERM_LAST; i++) {
        if (ngx_strcmp(value[1].data, hm_perm_name(i)) == 0) {
            lcf->perm = i;
            lcf->file = cf->conf_file->file.name;
            lcf->line = cf->conf_file->line;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "healthmate_permission: there is no permission "
                       "\"%V\"", &value[1]);

    return NGX_CONF_ERROR;
}


char *
ngx_hm_guard_merge(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_hm_loc_conf_t  *prev = parent;
    ngx_hm_loc_conf_t  *conf = child;

    if ((conf->api == 1 || conf->problem == 1)
        && ((conf->auth != NGX_CONF_UNSET_UINT && conf->auth != NGX_HM_OFF)
            || conf->perm != NGX_CONF_UNSET_UINT))
    {
        (void) ngx_hm_guard_fault(cf, conf, "does not go with "
                      "healthmate_api or healthmate_problem, which have a "
                      "gate of their own");
        return NGX_CONF_ERROR;
    }

    ngx_conf_merge_uint_value(conf->auth, prev->auth, NGX_HM_OFF);

    if (conf->perm != NGX_CONF_UNSET_UINT && conf->auth != NGX_HM_ON_) {
        (void) ngx_hm_guard_fault(cf, conf, "healthmate_permission needs "
                                            "healthmate_auth on");
        return NGX_CONF_ERROR;
    }

    ngx_conf_merge_uint_value(conf->perm, prev->perm, HM_PERM_NONE);

    return NGX_CONF_OK;
}


/* Of the whole configuration, when all of it has been read. */
ngx_int_t
ngx_hm_guard_check(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    ngx_hm_loc_conf_t  *lcf;

    lcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_healthmate_module);

    if (lcf->perm != NGX_CONF_UNSET_UINT && lcf->auth != NGX_HM_ON_) {
        return ngx_hm_guard_fault(cf, lcf, "healthmate_permission needs "
                                           "healthmate_auth on");
    }

    if (mcf->guard != NULL && mcf->database.len == 0) {
        return ngx_hm_guard_fault(cf, mcf->guard, "healthmate_auth needs "
                                                  "healthmate_database");
    }

    return NGX_OK;
}


/* The place is that of the directive, not that of the block's end. */
static ngx_int_t
ngx_hm_guard_fault(ngx_conf_t *cf, ngx_hm_loc_conf_t *lcf, const char *text)
{
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "%s in %V:%ui", text,
                  &lcf->file, lcf->line);

    return NGX_ERROR;
}


ngx_int_t
ngx_hm_guard_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_hm_guard_variables; v->name.len != 0; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


ngx_int_t
ngx_hm_guard_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                  i;
    ngx_http_handler_pt        *h;
    ngx_hm_main_conf_t         *mcf;
    ngx_http_core_main_conf_t  *cmcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_healthmate_module);

    if (mcf->guard == NULL) {
        return NGX_OK;
    }

    for (i = 0; i < 3; i++) {
        mcf->guard_vars[i] = ngx_http_get_variable_index(cf,
                                          &ngx_hm_guard_variables[i].name);
        if (mcf->guard_vars[i] == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_ACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_hm_guard_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_hm_guard_sub_handler;

    return NGX_OK;
}


/* An "if" in front of the gate has seen them empty; a log must not. */
void
ngx_hm_guard_flush(ngx_http_request_t *r)
{
    ngx_uint_t           i;
    ngx_hm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_healthmate_module);

    for (i = 0; i < 3; i++) {
        r->variables[mcf->guard_vars[i]].valid = 0;
        r->variables[mcf->guard_vars[i]].not_found = 0;
    }
}


static ngx_int_t
ngx_hm_guard_user_id(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    const hm_claims_t  *who;

    who = ngx_hm_guard_who(r);

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = 0;
    v->data = (u_char *) "";

    if (who == NULL) {
        return NGX_OK;
    }

    v->data = ngx_pnalloc(r->pool, HM_UUID_TEXT);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    hm_uuid_format((const hm_uuid_t *) ((const u_char *) who + data),
                   (char *) v->data);
    v->len = HM_UUID_TEXT;

    return NGX_OK;
}


static ngx_int_t
ngx_hm_guard_role(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    const char         *name;
    const hm_claims_t  *who;

    who = ngx_hm_guard_who(r);
    name = who != NULL ? hm_role_name(who->role) : "";

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = ngx_strlen(name);
    v->data = (u_char *) name;

    return NGX_OK;
}
