/*
 * ngx_hm_endpoints.h: the steps of the endpoint families (api/).  Only the
 * route table names them.
 */

#ifndef NGX_HM_ENDPOINTS_H
#define NGX_HM_ENDPOINTS_H

#include "ngx_hm.h"

extern const ngx_hm_step_pt  ngx_hm_health_types[];
extern const ngx_hm_step_pt  ngx_hm_health_latest[];
extern const ngx_hm_step_pt  ngx_hm_health_batch[];
extern const ngx_hm_step_pt  ngx_hm_analytics_trends[];
ngx_hm_rc_t ngx_hm_analytics_params(ngx_hm_ctx_t *hm);
extern const ngx_hm_step_pt  ngx_hm_auth_me[];
extern const ngx_hm_step_pt  ngx_hm_auth_login[];
extern const ngx_hm_step_pt  ngx_hm_auth_register[];
extern const ngx_hm_step_pt  ngx_hm_session_refresh[];
extern const ngx_hm_step_pt  ngx_hm_session_reauth[];
extern const ngx_hm_step_pt  ngx_hm_session_list[];
extern const ngx_hm_step_pt  ngx_hm_session_logout[];
extern const ngx_hm_step_pt  ngx_hm_session_logout_all[];
extern const ngx_hm_step_pt  ngx_hm_session_delete[];
extern const ngx_hm_step_pt  ngx_hm_account_forgot[];
extern const ngx_hm_step_pt  ngx_hm_account_resend[];
extern const ngx_hm_step_pt  ngx_hm_account_verify[];
extern const ngx_hm_step_pt  ngx_hm_account_reset[];
extern const ngx_hm_step_pt  ngx_hm_account_password[];
extern const ngx_hm_step_pt  ngx_hm_account_email[];
extern const ngx_hm_step_pt  ngx_hm_mfa_totp[];
extern const ngx_hm_step_pt  ngx_hm_mfa_confirm[];
extern const ngx_hm_step_pt  ngx_hm_mfa_remove[];
extern const ngx_hm_step_pt  ngx_hm_mfa_recovery[];
extern const ngx_hm_step_pt  ngx_hm_passkey_register_options[];
extern const ngx_hm_step_pt  ngx_hm_passkey_register_verify[];
extern const ngx_hm_step_pt  ngx_hm_passkey_login_options[];
extern const ngx_hm_step_pt  ngx_hm_passkey_login_verify[];
extern const ngx_hm_step_pt  ngx_hm_passkey_list[];
extern const ngx_hm_step_pt  ngx_hm_passkey_remove[];
extern const ngx_hm_step_pt  ngx_hm_user_me_change[];
extern const ngx_hm_step_pt  ngx_hm_user_list[];
extern const ngx_hm_step_pt  ngx_hm_user_get[];
extern const ngx_hm_step_pt  ngx_hm_user_new[];
extern const ngx_hm_step_pt  ngx_hm_user_change[];
extern const ngx_hm_step_pt  ngx_hm_prefs_get[];
extern const ngx_hm_step_pt  ngx_hm_prefs_put[];
extern const ngx_hm_step_pt  ngx_hm_profile_get[];
extern const ngx_hm_step_pt  ngx_hm_profile_change[];
extern const ngx_hm_step_pt  ngx_hm_access_log[];
extern const ngx_hm_step_pt  ngx_hm_care_list[];
extern const ngx_hm_step_pt  ngx_hm_care_propose[];
extern const ngx_hm_step_pt  ngx_hm_care_get[];
extern const ngx_hm_step_pt  ngx_hm_care_accept[];
extern const ngx_hm_step_pt  ngx_hm_care_decline[];
extern const ngx_hm_step_pt  ngx_hm_care_end[];
extern const ngx_hm_step_pt  ngx_hm_care_patients[];
extern const ngx_hm_step_pt  ngx_hm_consent_list[];
extern const ngx_hm_step_pt  ngx_hm_consent_add[];
extern const ngx_hm_step_pt  ngx_hm_glass_list[];
extern const ngx_hm_step_pt  ngx_hm_glass_open[];
extern const ngx_hm_step_pt  ngx_hm_glass_get[];
extern const ngx_hm_step_pt  ngx_hm_glass_approve[];
extern const ngx_hm_step_pt  ngx_hm_glass_end[];
extern const ngx_hm_step_pt  ngx_hm_system_health[];
extern const ngx_hm_step_pt  ngx_hm_system_ready[];
extern const ngx_hm_step_pt  ngx_hm_system_metrics[];
extern const ngx_hm_step_pt  ngx_hm_system_version[];
extern const ngx_hm_step_pt  ngx_hm_system_openapi[];
extern const ngx_hm_step_pt  ngx_hm_system_docs[];
extern const ngx_hm_step_pt  ngx_hm_jwks_get[];
extern const ngx_hm_step_pt  ngx_hm_wellknown_security[];
extern const ngx_hm_step_pt  ngx_hm_wellknown_password[];

#endif
