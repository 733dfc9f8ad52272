/*
 * ngx_hm_routes: the route table, and nothing else.
 *
 * A row: method, path, permission, rate class, audit action and resource,
 * kind of body, resource of the CRUD engine, steps, known query parameters,
 * OpenAPI tag and summary.  Rows whose path has no parameter stand before
 * those of the same family that have one.  The order is that of use: the
 * look-up walks from the top.
 */

#include "ngx_hm.h"
#include "ngx_hm_endpoints.h"


/* the last column is empty in most rows */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define GET      NGX_HTTP_GET
#define POST     NGX_HTTP_POST
#define PUT      NGX_HTTP_PUT
#define PATCH    NGX_HTTP_PATCH
#define DELETE   NGX_HTTP_DELETE

#define P(id)    HM_PERM_##id
#define C(id)    NGX_HM_CLASS_##id
#define A(id)    HM_AUDIT_##id
#define OF(id)   HM_AUDIT_OF_##id
#define B(id)    NGX_HM_BODY_##id

#define LIST     "limit,cursor,order,from,to"


const ngx_hm_route_t  ngx_hm_routes[] = {

    /* health data: fixed paths first */

    { GET, "/api/v1/health-data/types", P(SELF), C(READ), A(READ), OF(NONE),
      B(NONE), NULL, ngx_hm_health_types, NULL, "Health data",
      "Metric types with their units, ranges and LOINC codes" },

    { GET, "/api/v1/health-data/latest", P(HEALTH_READ), C(READ), A(LIST),
      OF(HEALTH_DATA), B(NONE), &hm_health_data, ngx_hm_health_latest,
      "user_id", "Health data", "The latest record of each type" },

    { POST, "/api/v1/health-data/batch", P(HEALTH_WRITE), C(INGEST),
      A(CREATE), OF(HEALTH_DATA), B(BATCH), &hm_health_data,
      ngx_hm_health_batch, "user_id,atomic", "Health data",
      "Store many records: a JSON array, or NDJSON as it comes" },

    { GET, "/api/v1/health-data", P(HEALTH_READ), C(READ), A(LIST),
      OF(HEALTH_DATA), B(NONE), &hm_health_data, ngx_hm_crud_list,
      LIST ",data_type,source,user_id", "Health data",
      "List records, newest first", ngx_hm_list_read },

    { POST, "/api/v1/health-data", P(HEALTH_WRITE), C(WRITE), A(CREATE),
      OF(HEALTH_DATA), B(JSON), &hm_health_data, ngx_hm_crud_create,
      "user_id", "Health data", "Store one record" },

    { GET, "/api/v1/health-data/{id}", P(HEALTH_READ), C(READ), A(READ),
      OF(HEALTH_DATA), B(NONE), &hm_health_data, ngx_hm_crud_get, "user_id",
      "Health data", "Read one record" },

    { PUT, "/api/v1/health-data/{id}", P(HEALTH_WRITE), C(WRITE), A(UPDATE),
      OF(HEALTH_DATA), B(JSON), &hm_health_data, ngx_hm_crud_put, "user_id",
      "Health data", "Replace one record" },

    { PATCH, "/api/v1/health-data/{id}", P(HEALTH_WRITE), C(WRITE),
      A(UPDATE), OF(HEALTH_DATA), B(PATCH), &hm_health_data,
      ngx_hm_crud_patch, "user_id", "Health data",
      "Merge a change into one record (RFC 7396)" },

    { DELETE, "/api/v1/health-data/{id}", P(HEALTH_WRITE), C(WRITE),
      A(DELETE), OF(HEALTH_DATA), B(NONE), &hm_health_data,
      ngx_hm_crud_delete, "user_id", "Health data", "Delete one record" },

    /* analytics */

    { GET, "/api/v1/analytics/trends", P(HEALTH_READ), C(ANALYTICS),
      A(READ), OF(ANALYTICS), B(NONE), NULL, ngx_hm_analytics_trends,
      "metric,bucket,period,from,to,user_id", "Analytics",
      "One metric in buckets of time, with its trend",
      ngx_hm_analytics_params },

    /* accounts */

    { GET, "/api/v1/auth/me", P(SELF), C(DEFAULT), A(READ), OF(USER),
      B(NONE), NULL, ngx_hm_auth_me, NULL, "Accounts", "My account", NULL,
      NGX_HM_ENROL },

    { GET, "/api/v1/users/me", P(SELF), C(DEFAULT), A(READ), OF(USER),
      B(NONE), NULL, ngx_hm_auth_me, NULL, "Accounts", "My account", NULL,
      NGX_HM_ENROL },

    { POST, "/api/v1/auth/login", P(NONE), C(AUTH), A(LOGIN), OF(SESSION),
      B(JSON), NULL, ngx_hm_auth_login, NULL, "Accounts",
      "Log in with email and password" },

    { POST, "/api/v1/auth/register", P(NONE), C(AUTH), A(REGISTER),
      OF(USER), B(JSON), NULL, ngx_hm_auth_register, NULL, "Accounts",
      "Open an account" },

    { POST, "/api/v1/auth/forgot-password", P(NONE), C(AUTH), A(UPDATE),
      OF(USER), B(JSON), NULL, ngx_hm_account_forgot, NULL, "Accounts",
      "Have a link mailed that resets the password" },

    { POST, "/api/v1/auth/reset-password", P(NONE), C(AUTH), A(UPDATE),
      OF(USER), B(JSON), NULL, ngx_hm_account_reset, NULL, "Accounts",
      "Choose a new password with a mailed token" },

    { POST, "/api/v1/auth/verify-email", P(NONE), C(AUTH), A(UPDATE),
      OF(USER), B(JSON), NULL, ngx_hm_account_verify, NULL, "Accounts",
      "Prove an address with a mailed token" },

    { POST, "/api/v1/auth/resend-verification", P(SELF), C(DEFAULT),
      A(UPDATE), OF(USER), B(ANY), NULL, ngx_hm_account_resend, NULL,
      "Accounts", "Have the link mailed again that proves the address" },

    { POST, "/api/v1/auth/change-password", P(SELF), C(DEFAULT), A(UPDATE),
      OF(USER), B(JSON), NULL, ngx_hm_account_password, NULL, "Accounts",
      "Change the password and end all other sessions" },

    { POST, "/api/v1/users/me/email", P(SELF), C(DEFAULT), A(UPDATE),
      OF(USER), B(JSON), NULL, ngx_hm_account_email, NULL, "Accounts",
      "Ask for another address, which its mailbox then proves", NULL,
      NGX_HM_FRESH },

    { POST, "/api/v1/auth/refresh", P(NONE), C(DEFAULT), A(REFRESH),
      OF(SESSION), B(JSON), NULL, ngx_hm_session_refresh, NULL, "Accounts",
      "The next pair of tokens, for the refresh token" },

    { POST, "/api/v1/auth/reauth", P(SELF), C(DEFAULT), A(REAUTH),
      OF(SESSION), B(JSON), NULL, ngx_hm_session_reauth, NULL, "Accounts",
      "Prove anew who I am, for what needs a recent login", NULL,
      NGX_HM_ENROL },

    { POST, "/api/v1/auth/logout", P(SELF), C(DEFAULT), A(LOGOUT),
      OF(SESSION), B(ANY), NULL, ngx_hm_session_logout, NULL, "Accounts",
      "End this session", NULL, NGX_HM_ENROL },

    { POST, "/api/v1/auth/logout-all", P(SELF), C(DEFAULT), A(LOGOUT),
      OF(SESSION), B(ANY), NULL, ngx_hm_session_logout_all, NULL,
      "Accounts", "End all my sessions", NULL, NGX_HM_ENROL },

    { GET, "/api/v1/auth/sessions", P(SELF), C(DEFAULT), A(LIST),
      OF(SESSION), B(NONE), NULL, ngx_hm_session_list, NULL, "Accounts",
      "My sessions that are open, newest first" },

    { DELETE, "/api/v1/auth/sessions/{id}", P(SELF), C(DEFAULT), A(DELETE),
      OF(SESSION), B(NONE), NULL, ngx_hm_session_delete, NULL, "Accounts",
      "End one of my sessions" },

    /* second factors */

    { POST, "/api/v1/auth/mfa/totp", P(SELF), C(AUTH), A(CREATE), OF(FACTOR),
      B(ANY), NULL, ngx_hm_mfa_totp, NULL, "Second factors",
      "Begin to set up one-time codes: secret, address, QR code", NULL,
      NGX_HM_FRESH|NGX_HM_ENROL },

    { POST, "/api/v1/auth/mfa/totp/confirm", P(SELF), C(AUTH), A(UPDATE),
      OF(FACTOR), B(JSON), NULL, ngx_hm_mfa_confirm, NULL, "Second factors",
      "Show a first code; answers with recovery codes", NULL,
      NGX_HM_FRESH|NGX_HM_ENROL },

    { DELETE, "/api/v1/auth/mfa/totp", P(SELF), C(AUTH), A(DELETE),
      OF(FACTOR), B(NONE), NULL, ngx_hm_mfa_remove, NULL, "Second factors",
      "Give up one-time codes", NULL, NGX_HM_FRESH|NGX_HM_ENROL },

    { POST, "/api/v1/auth/mfa/recovery-codes", P(SELF), C(AUTH), A(CREATE),
      OF(FACTOR), B(ANY), NULL, ngx_hm_mfa_recovery, NULL, "Second factors",
      "New recovery codes; those before are void", NULL,
      NGX_HM_FRESH|NGX_HM_ENROL },

    { POST, "/api/v1/auth/passkeys/register/options", P(SELF), C(AUTH),
      A(READ), OF(USER), B(ANY), NULL, ngx_hm_passkey_register_options, NULL,
      "Second factors", "Options to make a passkey with (WebAuthn)", NULL,
      NGX_HM_FRESH|NGX_HM_ENROL },

    { POST, "/api/v1/auth/passkeys/register/verify", P(SELF), C(AUTH),
      A(CREATE), OF(FACTOR), B(JSON), NULL, ngx_hm_passkey_register_verify,
      NULL, "Second factors", "Register the passkey that was made", NULL,
      NGX_HM_FRESH|NGX_HM_ENROL },

    { POST, "/api/v1/auth/passkeys/login/options", P(NONE), C(AUTH), A(READ),
      OF(NONE), B(ANY), NULL, ngx_hm_passkey_login_options, NULL,
      "Second factors", "A challenge to log in with (WebAuthn)" },

    { POST, "/api/v1/auth/passkeys/login/verify", P(NONE), C(AUTH), A(LOGIN),
      OF(SESSION), B(JSON), NULL, ngx_hm_passkey_login_verify, NULL,
      "Second factors", "Log in with a passkey" },

    { GET, "/api/v1/auth/passkeys", P(SELF), C(AUTH), A(LIST), OF(FACTOR),
      B(NONE), NULL, ngx_hm_passkey_list, NULL, "Second factors",
      "My passkeys, newest first", NULL, NGX_HM_ENROL },

    { DELETE, "/api/v1/auth/passkeys/{id}", P(SELF), C(AUTH), A(DELETE),
      OF(FACTOR), B(NONE), NULL, ngx_hm_passkey_remove, NULL,
      "Second factors", "Remove a passkey", NULL,
      NGX_HM_FRESH|NGX_HM_ENROL },

    /* people: my account, everybody's, who treats whom */

    { PATCH, "/api/v1/users/me", P(SELF), C(DEFAULT), A(UPDATE), OF(USER),
      B(PATCH), NULL, ngx_hm_user_me_change, NULL, "Accounts",
      "Change my name, phone, address or date of birth" },

    { GET, "/api/v1/users/me/preferences", P(SELF), C(DEFAULT), A(READ),
      OF(PREFERENCES), B(NONE), NULL, ngx_hm_prefs_get, NULL, "Accounts",
      "My language, units and time zone" },

    { PUT, "/api/v1/users/me/preferences", P(SELF), C(DEFAULT), A(UPDATE),
      OF(PREFERENCES), B(JSON), NULL, ngx_hm_prefs_put, NULL, "Accounts",
      "Replace my preferences" },

    { GET, "/api/v1/users/me/health-profile", P(HEALTH_READ), C(READ),
      A(READ), OF(HEALTH_PROFILE), B(NONE), NULL, ngx_hm_profile_get,
      "user_id", "Health profile", "What a person says about himself" },

    { PUT, "/api/v1/users/me/health-profile", P(HEALTH_WRITE), C(WRITE),
      A(UPDATE), OF(HEALTH_PROFILE), B(JSON), NULL, ngx_hm_profile_change,
      "user_id", "Health profile", "Replace the profile" },

    { PATCH, "/api/v1/users/me/health-profile", P(HEALTH_WRITE), C(WRITE),
      A(UPDATE), OF(HEALTH_PROFILE), B(PATCH), NULL, ngx_hm_profile_change,
      "user_id", "Health profile", "Merge a change into the profile" },

    { GET, "/api/v1/users/me/access-log", P(SELF), C(DEFAULT), A(LIST),
      OF(ACCESS_LOG), B(NONE), NULL, ngx_hm_access_log, LIST, "Accounts",
      "Who saw my data, newest first" },

    { GET, "/api/v1/users", P(USERS_ADMIN), C(DEFAULT), A(LIST), OF(USER),
      B(NONE), NULL, ngx_hm_user_list, LIST, "Administration",
      "All accounts, newest first" },

    { POST, "/api/v1/users", P(USERS_ADMIN), C(DEFAULT), A(CREATE), OF(USER),
      B(JSON), NULL, ngx_hm_user_new, NULL, "Administration",
      "Make an account",
      NULL, NGX_HM_FRESH },

    { GET, "/api/v1/users/{id}", P(USERS_ADMIN), C(DEFAULT), A(READ),
      OF(USER), B(NONE), NULL, ngx_hm_user_get, NULL, "Administration",
      "One account" },

    { PATCH, "/api/v1/users/{id}", P(USERS_ADMIN), C(DEFAULT), A(UPDATE),
      OF(USER), B(PATCH), NULL, ngx_hm_user_change, NULL, "Administration",
      "Change a role, or close and open an account",
      NULL, NGX_HM_FRESH },

    { GET, "/api/v1/patients", P(PATIENTS), C(DEFAULT), A(LIST), OF(USER),
      B(NONE), NULL, ngx_hm_care_patients, LIST, "Care",
      "The people a doctor treats" },

    { GET, "/api/v1/care-relationships", P(CARE), C(DEFAULT), A(LIST),
      OF(CARE), B(NONE), NULL, ngx_hm_care_list, LIST, "Care",
      "My care relationships, newest first" },

    { POST, "/api/v1/care-relationships", P(CARE), C(DEFAULT), A(CREATE),
      OF(CARE), B(JSON), NULL, ngx_hm_care_propose, NULL, "Care",
      "Propose a care relationship, or as the patient make one" },

    { GET, "/api/v1/care-relationships/{id}", P(CARE), C(DEFAULT), A(READ),
      OF(CARE), B(NONE), NULL, ngx_hm_care_get, NULL, "Care",
      "One care relationship" },

    { DELETE, "/api/v1/care-relationships/{id}", P(CARE), C(DEFAULT),
      A(DELETE), OF(CARE), B(NONE), NULL, ngx_hm_care_end, NULL, "Care",
      "End a care relationship" },

    { POST, "/api/v1/care-relationships/{id}/accept", P(CARE), C(DEFAULT),
      A(UPDATE), OF(CARE), B(ANY), NULL, ngx_hm_care_accept, NULL, "Care",
      "Accept a proposal, as the patient" },

    { POST, "/api/v1/care-relationships/{id}/decline", P(CARE), C(DEFAULT),
      A(UPDATE), OF(CARE), B(ANY), NULL, ngx_hm_care_decline, NULL, "Care",
      "Decline a proposal, as the patient" },

    { GET, "/api/v1/break-glass", P(SELF), C(DEFAULT), A(LIST),
      OF(BREAK_GLASS), B(NONE), NULL, ngx_hm_glass_list, LIST, "Care",
      "Emergency accesses: mine, and those to my data" },

    { POST, "/api/v1/break-glass", P(BREAK_GLASS), C(DEFAULT), A(CREATE),
      OF(BREAK_GLASS), B(JSON), NULL, ngx_hm_glass_open, NULL, "Care",
      "Open a person's records for an hour, to read, in an emergency",
      NULL, NGX_HM_FRESH },

    { GET, "/api/v1/break-glass/{id}", P(SELF), C(DEFAULT), A(READ),
      OF(BREAK_GLASS), B(NONE), NULL, ngx_hm_glass_get, NULL, "Care",
      "One emergency access" },

    { DELETE, "/api/v1/break-glass/{id}", P(BREAK_GLASS), C(DEFAULT),
      A(DELETE), OF(BREAK_GLASS), B(NONE), NULL, ngx_hm_glass_end, NULL,
      "Care", "End an emergency access" },

    { POST, "/api/v1/break-glass/{id}/approve", P(USERS_ADMIN), C(DEFAULT),
      A(UPDATE), OF(BREAK_GLASS), B(ANY), NULL, ngx_hm_glass_approve, NULL,
      "Care", "Approve an emergency access, as a second person",
      NULL, NGX_HM_FRESH },

    { GET, "/api/v1/compliance/consents", P(SELF), C(DEFAULT), A(LIST),
      OF(CONSENT), B(NONE), NULL, ngx_hm_consent_list, LIST, "Compliance",
      "My consents, newest first: the newest of a purpose counts" },

    { POST, "/api/v1/compliance/consents", P(SELF), C(DEFAULT), A(CREATE),
      OF(CONSENT), B(JSON), NULL, ngx_hm_consent_add, NULL, "Compliance",
      "Give or withdraw a consent" },

    /* the service itself */

    { GET, "/health", P(NONE), C(NONE), A(READ), OF(NONE), B(NONE), NULL,
      ngx_hm_system_health, NULL, "System", "Is the process alive?" },

    { GET, "/ready", P(NONE), C(NONE), A(READ), OF(NONE), B(NONE), NULL,
      ngx_hm_system_ready, NULL, "System", "Can it do its work?" },

    { GET, "/metrics", P(NONE), C(NONE), A(READ), OF(NONE), B(NONE), NULL,
      ngx_hm_system_metrics, NULL, "System", "Prometheus text" },

    { GET, "/version", P(NONE), C(NONE), A(READ), OF(NONE), B(NONE), NULL,
      ngx_hm_system_version, NULL, "System", "The version" },

    { GET, "/openapi.json", P(NONE), C(NONE), A(READ), OF(NONE), B(NONE),
      NULL, ngx_hm_system_openapi, NULL, "System", "This description" },

    { GET, "/.well-known/jwks.json", P(NONE), C(NONE), A(READ), OF(NONE),
      B(NONE), NULL, ngx_hm_jwks_get, NULL, "System",
      "The public keys of access tokens" },

    { GET, "/docs", P(NONE), C(NONE), A(READ), OF(NONE), B(NONE), NULL,
      ngx_hm_system_docs, NULL, "System", "The description as a page" },

    { GET, "/.well-known/security.txt", P(NONE), C(NONE), A(READ), OF(NONE),
      B(NONE), NULL, ngx_hm_wellknown_security, NULL, "System",
      "Whom to tell of a hole (RFC 9116)" },

    { GET, "/.well-known/change-password", P(NONE), C(NONE), A(READ),
      OF(NONE), B(NONE), NULL, ngx_hm_wellknown_password, NULL, "System",
      "Leads to the page where a password is changed" }
};


const ngx_uint_t  ngx_hm_nroutes =
                         sizeof(ngx_hm_routes) / sizeof(ngx_hm_routes[0]);
