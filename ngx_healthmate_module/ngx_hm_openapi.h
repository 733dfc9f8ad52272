/*
 * ngx_hm_openapi.h: what no other table knows of the API, for the document
 * that ngx_hm_openapi*.c write: the meaning of the query parameters and of
 * the headers, and the shapes of bodies and answers that are not records.
 * Included there and nowhere else.  At the end, what the two share.
 *
 * The texts are JSON with ' for ", so they hold no apostrophe.  Those of
 * parameters, headers and schemas are the members of an object, without its
 * braces.
 *
 * To describe a new endpoint that is not a resource: a row of
 * ngx_hm_oa_shapes[], and a row of ngx_hm_oa_schemas[] for each new shape.
 */

#ifndef NGX_HM_OPENAPI_H
#define NGX_HM_OPENAPI_H

#include "ngx_hm.h"


#define NGX_HM_OA_API       "/api/v1"
#define NGX_HM_OA_SCHEMA    "#/components/schemas/"

#define NGX_HM_OA_ETAG      0x01         /* ETag, If-None-Match, 304 */
#define NGX_HM_OA_LOCATION  0x02
#define NGX_HM_OA_CONFLICT  0x04         /* may be 409 */
#define NGX_HM_OA_SESSION   0x08         /* gives a token: 401, the cookie */
#define NGX_HM_OA_UNREADY   0x10         /* 503 has the answer's body */
#define NGX_HM_OA_AGAIN     0x20         /* 200: it is there already */
#define NGX_HM_OA_REPLAY    0x40         /* Idempotency-Key */
#define NGX_HM_OA_ITEM      0x80         /* one record: If-Match, 412 */
#define NGX_HM_OA_TAGGED    0x100        /* ETag */
#define NGX_HM_OA_CLOSED    0x200        /* may be switched off: 403 */
#define NGX_HM_OA_STALE     0x10000      /* takes a mailed token: 410 */
#define NGX_HM_OA_MAILED    0x20000      /* or 202: it goes on by mail */

#define NGX_HM_OA_NAMES     0x8000       /* its body names people: 404 */

#define NGX_HM_OA_BATCH_MAX 10000


typedef struct {
    ngx_uint_t     method;
    const char    *path;                 /* of the route table */
    const char    *body;                 /* schema, or NULL */
    const char    *answer;               /* schema, or NULL: no body */
    const char    *type;                 /* NULL: application/json */
    ngx_uint_t     status;
    unsigned       flags;
} ngx_hm_oa_shape_t;


typedef struct {
    const char    *name;
    const char    *json;
} ngx_hm_oa_text_t;


/* Answers and bodies that are not records. */

#define API  NGX_HM_OA_API

static const ngx_hm_oa_shape_t  ngx_hm_oa_shapes[] = {

    { NGX_HTTP_GET, API "/health-data/types", NULL, "MetricTypes", NULL, 200,
      0 },
    { NGX_HTTP_GET, API "/health-data/latest", NULL, "HealthDataList", NULL,
      200, 0 },
    { NGX_HTTP_POST, API "/health-data/batch", "HealthDataWrite",
      "BatchResult", NULL, 200, NGX_HM_OA_REPLAY|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_GET, API "/analytics/trends", NULL, "Trends", NULL, 200, 0 },
    { NGX_HTTP_GET, API "/auth/me", NULL, "User", NULL, 200,
      NGX_HM_OA_ETAG },
    { NGX_HTTP_GET, API "/users/me", NULL, "User", NULL, 200,
      NGX_HM_OA_ETAG },
    { NGX_HTTP_POST, API "/auth/login", "Login", "Session", NULL, 200,
      NGX_HM_OA_SESSION },
    { NGX_HTTP_POST, API "/auth/register", "Register", "Session", NULL, 201,
      NGX_HM_OA_SESSION|NGX_HM_OA_LOCATION|NGX_HM_OA_CONFLICT
      |NGX_HM_OA_CLOSED|NGX_HM_OA_MAILED },
    { NGX_HTTP_POST, API "/auth/refresh", "Refresh", "Session", NULL, 200,
      NGX_HM_OA_SESSION },
    { NGX_HTTP_POST, API "/auth/reauth", "Reauth", "Session", NULL, 200,
      NGX_HM_OA_SESSION },
    { NGX_HTTP_POST, API "/auth/logout", NULL, NULL, NULL, 204, 0 },
    { NGX_HTTP_POST, API "/auth/logout-all", NULL, NULL, NULL, 204, 0 },
    { NGX_HTTP_GET, API "/auth/sessions", NULL, "SessionList", NULL, 200,
      0 },
    { NGX_HTTP_DELETE, API "/auth/sessions/{id}", NULL, NULL, NULL, 204, 0 },
    { NGX_HTTP_POST, API "/auth/forgot-password", "Address", "Accepted",
      NULL, 202, 0 },
    { NGX_HTTP_POST, API "/auth/reset-password", "PasswordReset", NULL, NULL,
      204, NGX_HM_OA_STALE },
    { NGX_HTTP_POST, API "/auth/verify-email", "MailedToken", NULL, NULL,
      204, NGX_HM_OA_STALE },
    { NGX_HTTP_POST, API "/auth/resend-verification", NULL, "Accepted", NULL,
      202, 0 },
    { NGX_HTTP_POST, API "/auth/change-password", "PasswordChange", NULL,
      NULL, 204, 0 },
    { NGX_HTTP_POST, API "/users/me/email", "AddressChange", "Accepted",
      NULL, 202, 0 },

    { NGX_HTTP_POST, API "/auth/mfa/totp", NULL, "TotpSecret", NULL, 200,
      NGX_HM_OA_CONFLICT },
    { NGX_HTTP_POST, API "/auth/mfa/totp/confirm", "TotpConfirm",
      "RecoveryCodes", NULL, 200, NGX_HM_OA_CONFLICT },
    { NGX_HTTP_DELETE, API "/auth/mfa/totp", NULL, NULL, NULL, 204, 0 },
    { NGX_HTTP_POST, API "/auth/mfa/recovery-codes", NULL, "RecoveryCodes",
      NULL, 200, 0 },
    { NGX_HTTP_POST, API "/auth/passkeys/register/options", NULL,
      "WebauthnOptions", NULL, 200, 0 },
    { NGX_HTTP_POST, API "/auth/passkeys/register/verify", "PasskeyNew",
      "Passkey", NULL, 201, NGX_HM_OA_LOCATION|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_POST, API "/auth/passkeys/login/options", NULL,
      "WebauthnOptions", NULL, 200, 0 },
    { NGX_HTTP_POST, API "/auth/passkeys/login/verify", "PasskeyLogin",
      "Session", NULL, 200, NGX_HM_OA_SESSION },
    { NGX_HTTP_GET, API "/auth/passkeys", NULL, "PasskeyList", NULL, 200,
      0 },
    { NGX_HTTP_DELETE, API "/auth/passkeys/{id}", NULL, NULL, NULL, 204,
      0 },
    { NGX_HTTP_PATCH, API "/users/me", "UserMePatch", "User", NULL, 200,
      NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED },
    { NGX_HTTP_GET, API "/users/me/preferences", NULL, "Preferences", NULL,
      200, NGX_HM_OA_ETAG },
    { NGX_HTTP_PUT, API "/users/me/preferences", "PreferencesWrite",
      "Preferences", NULL, 200,
      NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_GET, API "/users/me/health-profile", NULL, "HealthProfile",
      NULL, 200, NGX_HM_OA_ETAG },
    { NGX_HTTP_PUT, API "/users/me/health-profile", "HealthProfileWrite",
      "HealthProfile", NULL, 200, NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED },
    { NGX_HTTP_PATCH, API "/users/me/health-profile", "HealthProfileWrite",
      "HealthProfile", NULL, 200, NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED },
    { NGX_HTTP_GET, API "/users/me/access-log", NULL, "AccessList", NULL,
      200, 0 },
    { NGX_HTTP_GET, API "/users", NULL, "UserList", NULL, 200, 0 },
    { NGX_HTTP_POST, API "/users", "UserWrite", "User", NULL, 201,
      NGX_HM_OA_LOCATION|NGX_HM_OA_CONFLICT|NGX_HM_OA_REPLAY
      |NGX_HM_OA_TAGGED },
    { NGX_HTTP_GET, API "/users/{id}", NULL, "User", NULL, 200,
      NGX_HM_OA_ETAG },
    { NGX_HTTP_PATCH, API "/users/{id}", "UserPatch", "User", NULL, 200,
      NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_GET, API "/patients", NULL, "PatientList", NULL, 200, 0 },
    { NGX_HTTP_GET, API "/care-relationships", NULL,
      "CareRelationshipList", NULL, 200, 0 },
    { NGX_HTTP_POST, API "/care-relationships", "CareRelationshipWrite",
      "CareRelationship", NULL, 201,
      NGX_HM_OA_LOCATION|NGX_HM_OA_CONFLICT|NGX_HM_OA_REPLAY
      |NGX_HM_OA_TAGGED|NGX_HM_OA_NAMES },
    { NGX_HTTP_GET, API "/care-relationships/{id}", NULL,
      "CareRelationship", NULL, 200, NGX_HM_OA_ETAG },
    { NGX_HTTP_DELETE, API "/care-relationships/{id}", NULL, NULL, NULL,
      204, NGX_HM_OA_ITEM|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_POST, API "/care-relationships/{id}/accept", NULL,
      "CareRelationship", NULL, 200,
      NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_POST, API "/care-relationships/{id}/decline", NULL,
      "CareRelationship", NULL, 200,
      NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_GET, API "/break-glass", NULL, "BreakGlassList", NULL, 200,
      0 },
    { NGX_HTTP_POST, API "/break-glass", "BreakGlassWrite", "BreakGlass",
      NULL, 201,
      NGX_HM_OA_LOCATION|NGX_HM_OA_REPLAY|NGX_HM_OA_TAGGED|NGX_HM_OA_NAMES
      |NGX_HM_OA_CONFLICT },
    { NGX_HTTP_GET, API "/break-glass/{id}", NULL, "BreakGlass", NULL, 200,
      NGX_HM_OA_ETAG },
    { NGX_HTTP_DELETE, API "/break-glass/{id}", NULL, NULL, NULL, 204,
      NGX_HM_OA_ITEM|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_POST, API "/break-glass/{id}/approve", NULL, "BreakGlass",
      NULL, 200, NGX_HM_OA_ITEM|NGX_HM_OA_TAGGED|NGX_HM_OA_CONFLICT },
    { NGX_HTTP_GET, API "/compliance/consents", NULL, "ConsentList", NULL,
      200, 0 },
    { NGX_HTTP_POST, API "/compliance/consents", "ConsentWrite", "Consent",
      NULL, 201,
      NGX_HM_OA_LOCATION|NGX_HM_OA_CONFLICT|NGX_HM_OA_REPLAY
      |NGX_HM_OA_TAGGED },

    { NGX_HTTP_GET, "/health", NULL, "Health", NULL, 200, 0 },
    { NGX_HTTP_GET, "/ready", NULL, "Ready", NULL, 200, NGX_HM_OA_UNREADY },
    { NGX_HTTP_GET, "/version", NULL, "Version", NULL, 200, 0 },
    { NGX_HTTP_GET, "/metrics", NULL, "Text", "text/plain", 200, 0 },
    { NGX_HTTP_GET, "/openapi.json", NULL, "Document", NULL, 200, 0 },
    { NGX_HTTP_GET, "/.well-known/jwks.json", NULL, "KeySet",
      "application/jwk-set+json", 200, NGX_HM_OA_ETAG },
    { NGX_HTTP_GET, "/docs", NULL, "Text", "text/html", 200, 0 },
    { NGX_HTTP_GET, "/.well-known/security.txt", NULL, "Text", "text/plain",
      200, 0 },
    { NGX_HTTP_GET, "/.well-known/change-password", NULL, NULL, NULL, 302,
      NGX_HM_OA_LOCATION }
};

#undef API

#define NGX_HM_OA_NSHAPES                                                     \
    (sizeof(ngx_hm_oa_shapes) / sizeof(ngx_hm_oa_shapes[0]))


/* What the tags of the route table stand for. */

static const ngx_hm_oa_text_t  ngx_hm_oa_tag_texts[] = {
    { "Health data", "Measurements of a person, sealed one by one." },
    { "Analytics", "Figures over time, computed in the background." },
    { "Accounts", "Opening an account, logging in, the account itself." },
    { "Second factors", "One-time codes, recovery codes and passkeys of the "
      "caller." },
    { "Health profile", "One sealed document about a person." },
    { "Administration", "The accounts of others, for administrators." },
    { "Care", "Who may see whom: relationships and emergencies." },
    { "Compliance", "What a person agreed to." },
    { "System", "The service about itself; no token, nothing personal." }
};

#define NGX_HM_OA_NTAGS                                                       \
    (sizeof(ngx_hm_oa_tag_texts) / sizeof(ngx_hm_oa_tag_texts[0]))


/* What the query parameters mean, wherever a route names one. */

static const ngx_hm_oa_text_t  ngx_hm_oa_params[] = {

    { "limit", "'description':'How many items to answer with at most.',"
      "'schema':{'type':'integer','minimum':1,'maximum':200,'default':20}" },

    { "cursor", "'description':'The next of the page before.  It is bound to "
      "the caller, the person, the filters and the order; send it with the "
      "same ones.','schema':{'type':'string',"
      "'pattern':'^[A-Za-z0-9_-]{1,512}$'}" },

    { "order", "'description':'Newest first, or oldest first.',"
      "'schema':{'type':'string','enum':['desc','asc'],'default':'desc'}" },

    { "from", "'description':'Not before this moment (inclusive); before "
      "to.','schema':{'type':'string','format':'date-time'}" },

    { "to", "'description':'Before this moment (exclusive).',"
      "'schema':{'type':'string','format':'date-time'}" },

    { "data_type", "'description':'Only these types, separated by commas.',"
      "'style':'form','explode':false,'schema':{'type':'array','minItems':1,"
      "'maxItems':20,'items':{'$ref':'" NGX_HM_OA_SCHEMA "DataType'}}" },

    { "source", "'description':'Only records of this source.',"
      "'schema':{'type':'string','minLength':1,'maxLength':64}" },

    { "user_id", "'description':'The person it is about, when that is not "
      "the caller.  A doctor names an assigned patient; for anybody the "
      "caller may not see the answer is 403 or 404, whether or not that "
      "person exists.','schema':{'type':'string','format':'uuid'}" },

    { "atomic", "'description':'All items, or none: then one bad item is "
      "422 and nothing is stored.','schema':{'type':'boolean',"
      "'default':false}" },

    { "metric", "'description':'The type to look at.','required':true,"
      "'schema':{'$ref':'" NGX_HM_OA_SCHEMA "DataType'}" },

    { "bucket", "'description':'How long one point is.  Buckets start in the "
      "time zone of the person, weeks on Monday.','schema':{'type':'string',"
      "'enum':['hour','day','week','month'],'default':'day'}" },

    { "period", "'description':'The time up to now; instead of from and "
      "to.','schema':{'type':'string','enum':['7d','30d','90d','1y']}" }
};

#define NGX_HM_OA_NPARAMS                                                     \
    (sizeof(ngx_hm_oa_params) / sizeof(ngx_hm_oa_params[0]))


/* Headers of answers and of requests. */

static const ngx_hm_oa_text_t  ngx_hm_oa_headers[] = {

    { "X-Request-ID", "'description':'Names this request in the logs and in "
      "the audit: the one that was sent, or a new one.','schema':"
      "{'type':'string','pattern':'^[A-Za-z0-9._-]{1,64}$'}" },

    { "ETag", "'description':'Opaque and strong, new after each change.',"
      "'schema':{'type':'string'}" },

    { "Location", "'description':'The path of what was made.',"
      "'schema':{'type':'string'}" },

    { "Idempotent-Replayed", "'description':'This is the answer the first "
      "request with the key got.','schema':{'type':'string',"
      "'const':'true'}" },

    { "Set-Cookie", "'description':'The fingerprint __Secure-hm-fgp, whose "
      "hash the access token holds.','schema':{'type':'string'}" },

    { "RateLimit", "'description':'What is left: class, r requests, t "
      "seconds.','schema':{'type':'string'}" },

    { "RateLimit-Policy", "'description':'The rate class: q requests in w "
      "seconds.','schema':{'type':'string'}" },

    { "Retry-After", "'description':'Seconds to wait.',"
      "'schema':{'type':'integer','minimum':1}" },

    { "WWW-Authenticate", "'description':'Bearer.',"
      "'schema':{'type':'string'}" },

    { "Accept-Patch", "'description':'What a PATCH may be written in.',"
      "'schema':{'type':'string'}" }
};

#define NGX_HM_OA_NHEADERS                                                    \
    (sizeof(ngx_hm_oa_headers) / sizeof(ngx_hm_oa_headers[0]))


static const ngx_hm_oa_text_t  ngx_hm_oa_request_headers[] = {

    { "IfMatch", "'name':'If-Match','in':'header','description':'Only when "
      "the record still has one of these entity tags, or *.',"
      "'schema':{'type':'string'}" },

    { "IfNoneMatch", "'name':'If-None-Match','in':'header','description':"
      "'304 when it still has one of these entity tags.',"
      "'schema':{'type':'string'}" },

    { "IdempotencyKey", "'name':'Idempotency-Key','in':'header',"
      "'description':'The same key and body within 24 hours get the first "
      "answer again.  Ignored on NDJSON.','schema':{'type':'string',"
      "'minLength':1,'maxLength':255}" },

    { "Id", "'name':'id','in':'path','required':true,'description':"
      "'Its id; one that is no UUID is 404.','schema':{'type':'string',"
      "'format':'uuid'}" }
};

#define NGX_HM_OA_NREQUEST                                                    \
    (sizeof(ngx_hm_oa_request_headers) / sizeof(ngx_hm_oa_request_headers[0]))


/* Members whose type the descriptor leaves to `prepare`. */

static const struct {
    const char   *name;
    const char   *schema;                /* or NULL */
    const char   *pattern;               /* or NULL */
    unsigned      always:1;              /* a default is stored */
} ngx_hm_oa_members[] = {
    { "data_type", "DataType", NULL, 1 },
    { "value", "Value", NULL, 1 },
    { "original", "Original", NULL, 0 },
    { "unit", NULL, NULL, 1 },
    { "source", NULL, "^[a-z0-9][a-z0-9._:-]{0,63}$", 1 }
};

#define NGX_HM_OA_NMEMBERS                                                    \
    (sizeof(ngx_hm_oa_members) / sizeof(ngx_hm_oa_members[0]))


#define REF(name)     "{'$ref':'" NGX_HM_OA_SCHEMA name "'}"
#define OR_NULL(one)  "{'anyOf':[" one ",{'type':'null'}]}"
#define TEXT_NULL     "{'type':['string','null']}"
#define TIME          "{'type':'string','format':'date-time'}"
#define TIME_NULL     "{'type':['string','null'],'format':'date-time'}"
#define DATE_NULL     "{'type':['string','null'],'format':'date'}"
#define UUID          "{'type':'string','format':'uuid'}"
#define NUMBER_NULL   "{'type':['number','null']}"
#define COUNT         "{'type':'integer','minimum':0}"
#define LIST_OF(name) "'type':'object','required':['items','next'],"          \
    "'properties':{'items':{'type':'array','items':" REF(name) "},"           \
    "'next':" TEXT_NULL "}"
#define PURPOSE       "{'type':'string','enum':['data_processing',"           \
    "'ai_external','research','notify_email','notify_sms','notify_push']}"
#define BOUNDED(a, b) "{'type':['number','null'],'minimum':" a                \
    ",'maximum':" b "}"
#define WORD_NULL     "{'type':['string','null'],'maxLength':200}"
#define PROFILE                                                               \
    "'height_cm':" BOUNDED("20", "280") ",'weight_kg':"                       \
    BOUNDED("0.3", "650") ",'gender':" WORD_NULL ",'blood_type':" WORD_NULL   \
    ",'activity_level':" WORD_NULL ",'smoking_status':" WORD_NULL             \
    ",'alcohol_consumption':" WORD_NULL ",'sleep_hours':"                     \
    BOUNDED("0", "24") ",'ethnicity':" WORD_NULL ",'occupation':" WORD_NULL   \
    ",'physicians':" OR_NULL(REF("NoteList")) ",'insurance':"                 \
    OR_NULL(REF("Note")) ",'family_history':" OR_NULL(REF("Note"))            \
    ",'allergies':{'type':['object','null'],'additionalProperties':false,"    \
    "'properties':{'food':" OR_NULL(REF("NoteList")) ",'drug':"               \
    OR_NULL(REF("NoteList")) ",'environmental':" OR_NULL(REF("NoteList"))     \
    "}},'chronic_conditions':" OR_NULL(REF("NoteList"))                       \
    ",'mental_health':" OR_NULL(REF("Note")) ",'emergency_contacts':"         \
    OR_NULL(REF("NoteList")) ",'advance_directives':" OR_NULL(REF("Note"))    \
    ",'organ_donor':{'type':['boolean','null']}"


#define MAIL_ADDRESS                                                          \
    "{'type':'string','format':'email','minLength':3,'maxLength':254}"
#define MAIL_TOKEN                                                            \
    "{'type':'string','maxLength':200,'writeOnly':true,"                      \
    "'description':'What stands behind the # of a mailed link.'}"
#define OLD_PASSWORD                                                          \
    "{'type':'string','format':'password','writeOnly':true,"                  \
    "'maxLength':4096}"
#define NEW_PASSWORD                                                          \
    "{'type':'string','format':'password','writeOnly':true,"                  \
    "'minLength':8,'maxLength':128,'description':'8 to 128 code points "      \
    "after NFC, not one of the well-known ones.'}"

static const ngx_hm_oa_text_t  ngx_hm_oa_schemas[] = {

    { "User", "'description':'An account.','type':'object','required':["
      "'id','email','email_verified','full_name','role','is_active','mfa',"
      "'phone','address','date_of_birth','created_at','updated_at',"
      "'last_login_at'],'properties':{'id':" UUID ","
      "'email':{'type':'string','format':'email'},"
      "'email_verified':{'type':'boolean'},'full_name':{'type':'string'},"
      "'role':{'type':'string','enum':['patient','doctor','admin',"
      "'researcher']},'is_active':{'type':'boolean'},"
      "'mfa':{'type':'array','items':{'type':'string','enum':['totp',"
      "'passkey']}},'phone':" TEXT_NULL ",'address':" TEXT_NULL ","
      "'date_of_birth':" DATE_NULL ",'created_at':" TIME ","
      "'updated_at':" TIME ",'last_login_at':" TIME_NULL "}" },

    { "Session", "'description':'A login.  Lifetimes are whole seconds.',"
      "'type':'object','required':['access_token','refresh_token',"
      "'token_type','expires_in','refresh_expires_in','user'],"
      "'properties':{'access_token':{'type':'string'},"
      "'refresh_token':{'type':'string'},"
      "'token_type':{'type':'string','const':'Bearer'},"
      "'expires_in':" COUNT ",'refresh_expires_in':" COUNT ","
      "'user':" REF("User") "}" },

    { "Refresh", "'type':'object','additionalProperties':false,"
      "'required':['refresh_token'],'properties':{"
      "'refresh_token':{'type':'string','writeOnly':true,'description':"
      "'The newest one.  Sent again within 30 seconds it gives the same "
      "pair; any later use of an older one ends the session.'}}" },

    { "Reauth", "'type':'object','additionalProperties':false,"
      "'description':'One of them; where a second factor is set up, that or "
      "the password with a code.','minProperties':1,'properties':{"
      "'password':{'type':['string','null'],'format':'password',"
      "'writeOnly':true},'otp':{'type':['string','null'],'description':"
      "'A one-time or recovery code.'},'passkey':"
      OR_NULL(REF("PasskeyAssertion")) "}" },

    { "SessionList", "'description':'The open ones, 200 at most.',"
      "'type':'object','required':['items','next'],'properties':{"
      "'items':{'type':'array','items':{'type':'object','required':["
      "'id','current','device','address','fingerprint','created_at',"
      "'last_used_at'],'properties':{'id':" UUID ","
      "'current':{'type':'boolean','description':'The one that asks.'},"
      "'device':{'type':['string','null'],'description':'What the client "
      "called itself at login.'},'address':" TEXT_NULL ","
      "'fingerprint':{'type':'boolean','description':'Its tokens need the "
      "cookie.'},'created_at':" TIME ",'last_used_at':" TIME "}}},"
      "'next':{'type':'null'}}" },

    { "Login", "'type':'object','additionalProperties':false,"
      "'required':['email','password'],'properties':{"
      "'email':{'type':'string','format':'email'},"
      "'password':{'type':'string','format':'password','writeOnly':true},"
      "'otp':{'type':['string','null'],'description':'The second factor, "
      "when one is set up.'},'fingerprint':{'type':['boolean','null'],"
      "'description':'False asks for tokens that need no cookie, where the "
      "server allows that.'}}" },

    { "Register", "'type':'object','additionalProperties':false,"
      "'required':['email','password','full_name','accept_terms'],"
      "'properties':{'email':{'type':'string','format':'email',"
      "'minLength':3,'maxLength':254},"
      "'password':{'type':'string','format':'password','writeOnly':true,"
      "'minLength':8,'maxLength':128,'description':'8 to 128 code points "
      "after NFC, not one of the well-known ones.'},"
      "'full_name':{'type':'string','minLength':1,'maxLength':200},"
      "'date_of_birth':" DATE_NULL ",'accept_terms':{'type':'boolean',"
      "'const':true},'consents':{'type':['array','null'],'items':{"
      "'type':'string','enum':['data_processing','ai_external','research',"
      "'notify_email','notify_sms','notify_push']}},"
      "'fingerprint':{'type':['boolean','null']}}" },

    { "Accepted", "'description':'It is being done; there is nothing to "
      "see.','type':'object','additionalProperties':false" },

    { "Address", "'type':'object','additionalProperties':false,"
      "'required':['email'],'properties':{'email':" MAIL_ADDRESS "}" },

    { "AddressChange", "'type':'object','additionalProperties':false,"
      "'required':['email','password'],'properties':{"
      "'email':" MAIL_ADDRESS ",'password':" OLD_PASSWORD "}" },

    { "MailedToken", "'type':'object','additionalProperties':false,"
      "'required':['token'],'properties':{'token':" MAIL_TOKEN "}" },

    { "PasswordReset", "'type':'object','additionalProperties':false,"
      "'required':['token','password'],'properties':{"
      "'token':" MAIL_TOKEN ",'password':" NEW_PASSWORD "}" },

    { "PasswordChange", "'type':'object','additionalProperties':false,"
      "'required':['current_password','new_password'],'properties':{"
      "'current_password':" OLD_PASSWORD ","
      "'new_password':" NEW_PASSWORD "}" },

    { "TotpSecret", "'description':'Shown once.  It counts when a code of it "
      "was confirmed within 15 minutes.','type':'object','required':["
      "'secret','otpauth_uri','qr_svg'],'properties':{"
      "'secret':{'type':'string','pattern':'^[A-Z2-7]{32}$'},"
      "'otpauth_uri':{'type':'string','format':'uri'},"
      "'qr_svg':{'type':'string','description':'The address as a QR code, "
      "an SVG document.'}}" },

    { "TotpConfirm", "'type':'object','additionalProperties':false,"
      "'required':['otp'],'properties':{'otp':{'type':'string',"
      "'pattern':'^[0-9]{6}$'}}" },

    { "RecoveryCodes", "'description':'Shown once; each takes the place of a "
      "one-time code once.','type':'object','required':['recovery_codes'],"
      "'properties':{'recovery_codes':{'type':'array','minItems':10,"
      "'maxItems':10,'items':{'type':'string'}}}" },

    { "WebauthnOptions", "'description':'The JSON form of WebAuthn, for "
      "parseCreationOptionsFromJSON or parseRequestOptionsFromJSON.',"
      "'type':'object','required':['challenge','timeout'],'properties':{"
      "'challenge':{'type':'string'},'timeout':" COUNT "},"
      "'additionalProperties':true" },

    { "PasskeyNew", "'description':'What navigator.credentials.create() "
      "gave, as toJSON() writes it; members not named here are not looked "
      "at.','type':'object','required':['id','rawId','response'],"
      "'properties':{'id':{'type':'string'},'rawId':{'type':'string'},"
      "'name':{'type':['string','null'],'minLength':1,'maxLength':200,"
      "'description':'A label.'},'response':{'type':'object','required':["
      "'clientDataJSON','attestationObject'],'properties':{"
      "'clientDataJSON':{'type':'string'},"
      "'attestationObject':{'type':'string'},'transports':{'type':'array',"
      "'items':{'type':'string'}}}}},'additionalProperties':true" },

    { "PasskeyAssertion", "'description':'What navigator.credentials.get() "
      "gave, as toJSON() writes it; members not named here are not looked "
      "at.','type':'object','required':['id','rawId','response'],"
      "'properties':{'id':{'type':'string'},'rawId':{'type':'string'},"
      "'response':{'type':'object','required':['clientDataJSON',"
      "'authenticatorData','signature','userHandle'],'properties':{"
      "'clientDataJSON':{'type':'string'},"
      "'authenticatorData':{'type':'string'},"
      "'signature':{'type':'string'},'userHandle':{'type':'string'}}}},"
      "'additionalProperties':true" },

    { "PasskeyLogin", "'description':'A passkey, and as in Login whether the "
      "tokens are bound to a cookie.','allOf':[" REF("PasskeyAssertion")
      "],'type':'object','properties':{'fingerprint':{'type':['boolean',"
      "'null']}}" },

    { "Passkey", "'description':'A WebAuthn credential of the account.',"
      "'type':'object','required':['id','name','backed_up','transports',"
      "'created_at','last_used_at'],'properties':{'id':" UUID ","
      "'name':" TEXT_NULL ",'backed_up':{'type':'boolean','description':"
      "'Synchronised to other devices.'},'transports':{'type':'array',"
      "'items':{'type':'string','enum':['usb','nfc','ble','smart-card',"
      "'hybrid','internal']}},'created_at':" TIME ","
      "'last_used_at':" TIME_NULL "}" },

    { "PasskeyList", "'type':'object','required':['items','next'],"
      "'properties':{'items':{'type':'array','maxItems':20,"
      "'items':" REF("Passkey") "},'next':{'type':'null'}}" },

    { "UserMePatch", "'description':'Null clears a member.',"
      "'type':'object','additionalProperties':false,'properties':{"
      "'full_name':{'type':'string','minLength':1,'maxLength':200},"
      "'phone':" TEXT_NULL ",'address':" TEXT_NULL ","
      "'date_of_birth':" DATE_NULL "}" },

    { "UserList", LIST_OF("User") },

    { "UserWrite", "'type':'object','additionalProperties':false,"
      "'required':['email','full_name'],'properties':{"
      "'email':{'type':'string','format':'email','minLength':3,"
      "'maxLength':254},'full_name':{'type':'string','minLength':1,"
      "'maxLength':200},'role':{'type':['string','null'],'enum':['patient',"
      "'doctor','admin','researcher',null],'default':'patient'},"
      "'password':{'type':['string','null'],'format':'password',"
      "'writeOnly':true,'description':'Without one the person is mailed the "
      "way to choose it.'}}" },

    { "UserPatch", "'type':'object','additionalProperties':false,"
      "'properties':{'role':{'type':'string','enum':['patient','doctor',"
      "'admin','researcher']},'is_active':{'type':'boolean'}}" },

    { "Preferences", "'type':'object','required':['locale','units',"
      "'time_zone'],'properties':{'locale':{'type':'string'},"
      "'units':{'type':'string','enum':['metric','imperial']},"
      "'time_zone':{'type':'string'}}" },

    { "PreferencesWrite", "'description':'What is left out gets its "
      "default.','type':'object','additionalProperties':false,"
      "'properties':{'locale':{'type':['string','null'],'maxLength':35,"
      "'default':'en'},'units':{'type':['string','null'],'enum':['metric',"
      "'imperial',null],'default':'metric'},'time_zone':{'type':['string',"
      "'null'],'maxLength':64,'default':'UTC','description':'A name of the "
      "IANA database.'}}" },

    { "Note", "'description':'A text, a list, or a flat object.','anyOf':["
      "{'type':'string','minLength':1,'maxLength':10000}," REF("NoteList")
      ",{'type':'object','maxProperties':20}]" },

    { "NoteList", "'type':'array','maxItems':100,'items':{'anyOf':["
      "{'type':'string','minLength':1,'maxLength':10000},{'type':'object',"
      "'maxProperties':20}]}" },

    { "HealthProfileWrite", "'type':'object','additionalProperties':false,"
      "'properties':{" PROFILE "}" },

    { "HealthProfile", "'description':'Every member, null where empty.',"
      "'type':'object','required':['user_id','updated_at'],'properties':{"
      "'user_id':" UUID ",'updated_at':" TIME_NULL "," PROFILE "}" },

    { "Access", "'description':'One access by somebody else, granted or "
      "refused.','type':'object','required':['at','actor_id','actor_role',"
      "'action','resource','purpose','outcome','items'],'properties':{"
      "'at':" TIME ",'actor_id':{'type':['string','null'],"
      "'format':'uuid'},'actor_role':{'type':'string'},"
      "'action':{'type':'string'},'resource':{'type':'string'},"
      "'purpose':{'type':'string','enum':['care','self','admin',"
      "'break_glass','system']},'outcome':{'type':'integer'},"
      "'items':" COUNT "}" },

    { "AccessList", LIST_OF("Access") },

    { "Patient", "'type':'object','required':['id','full_name',"
      "'date_of_birth','relationship_id','accepted_at','until'],"
      "'properties':{'id':" UUID ",'full_name':" TEXT_NULL ","
      "'date_of_birth':" DATE_NULL ",'relationship_id':" UUID ","
      "'accepted_at':" TIME_NULL ",'until':" TIME "}" },

    { "PatientList", LIST_OF("Patient") },

    { "CareRelationship", "'type':'object','required':['id','patient_id',"
      "'doctor_id','status','created_by','from_at','until','accepted_at',"
      "'ended_at','created_at','updated_at'],'properties':{'id':" UUID ","
      "'patient_id':" UUID ",'doctor_id':" UUID ",'status':{"
      "'type':'string','enum':['pending','active','declined','ended']},"
      "'created_by':" UUID ",'from_at':" TIME ",'until':" TIME ","
      "'accepted_at':" TIME_NULL ",'ended_at':" TIME_NULL ","
      "'created_at':" TIME ",'updated_at':" TIME "}" },

    { "CareRelationshipList", LIST_OF("CareRelationship") },

    { "CareRelationshipWrite", "'type':'object',"
      "'additionalProperties':false,'required':['patient_id','doctor_id'],"
      "'properties':{'patient_id':" UUID ",'doctor_id':" UUID ","
      "'until':{'type':['string','null'],'format':'date-time',"
      "'description':'One year from now when it is left out.'}}" },

    { "BreakGlass", "'type':'object','required':['id','user_id','actor_id',"
      "'status','reason','approved_by','created_at','expires_at',"
      "'ended_at'],'properties':{'id':" UUID ",'user_id':" UUID ","
      "'actor_id':" UUID ",'status':{'type':'string','enum':['active',"
      "'pending','ended'],'description':'Pending opens nothing: an "
      "administrator has to approve it.'},'reason':{'type':'string'},"
      "'approved_by':{'type':['string','null'],'format':'uuid'},"
      "'created_at':" TIME ",'expires_at':" TIME ","
      "'ended_at':" TIME_NULL "}" },

    { "BreakGlassList", LIST_OF("BreakGlass") },

    { "BreakGlassWrite", "'type':'object','additionalProperties':false,"
      "'required':['user_id','reason'],'properties':{'user_id':" UUID ","
      "'reason':{'type':'string','minLength':1,'maxLength':10000}}" },

    { "Consent", "'type':'object','required':['id','purpose','granted',"
      "'created_at'],'properties':{'id':" UUID ",'purpose':" PURPOSE ","
      "'granted':{'type':'boolean'},'created_at':" TIME "}" },

    { "ConsentList", LIST_OF("Consent") },

    { "ConsentWrite", "'type':'object','additionalProperties':false,"
      "'required':['purpose','granted'],'properties':{'purpose':" PURPOSE
      ",'granted':{'type':'boolean'}}" },

    { "Value", "'description':'In the unit of the type; an object for a "
      "compound type.','anyOf':[{'type':'number'}," REF("BloodPressure")
      "]" },

    { "Original", "'description':'As it was sent, when it was converted.',"
      "'type':'object','required':['value','unit'],'properties':{"
      "'value':" REF("Value") ",'unit':{'type':'string'}}" },

    { "BatchItem", "'description':'What became of one item.',"
      "'type':'object','required':['index','status'],'properties':{"
      "'index':" COUNT ",'status':{'type':'integer','description':"
      "'201 stored, 200 it was there, 422 not valid, 400 not readable.'},"
      "'id':" UUID ",'code':" REF("ProblemCode") ","
      "'errors':{'type':'array','items':" REF("Fault") "}}" },

    { "BatchTotal", "'description':'The last line of an NDJSON answer.',"
      "'type':'object','required':['total','created','duplicate','failed'],"
      "'properties':{'total':" COUNT ",'created':" COUNT ","
      "'duplicate':" COUNT ",'failed':" COUNT "}" },

    { "BatchLine", "'description':'One line: an item each, in order, then "
      "the totals.','anyOf':[" REF("BatchItem") "," REF("BatchTotal") "]" },

    { "BatchResult", "'description':'200 whatever became of the items.',"
      "'type':'object','required':['total','created','duplicate','failed',"
      "'results'],'properties':{'total':" COUNT ",'created':" COUNT ","
      "'duplicate':" COUNT ",'failed':" COUNT ",'results':{"
      "'type':'array','items':" REF("BatchItem") "}}" },

    { "MetricType", "'type':'object','required':['data_type','kind','unit',"
      "'units','ranges','loinc'],'properties':{"
      "'data_type':{'type':'string'},'kind':{'type':'string',"
      "'enum':['number','integer','object']},"
      "'unit':{'type':'string','description':'UCUM; values are kept in "
      "it.'},'units':{'type':'array','items':{'type':'string'}},"
      "'ranges':{'type':'object','description':'Lowest and highest plausible "
      "value, of each component.','additionalProperties':{'type':'array',"
      "'items':{'type':'number'},'minItems':2,'maxItems':2}},"
      "'loinc':{'type':'array','items':{'type':'string'}}}" },

    { "Statistics", "'type':'object','required':['mean','min','max','sd'],"
      "'properties':{'mean':" NUMBER_NULL ",'min':" NUMBER_NULL ","
      "'max':" NUMBER_NULL ",'sum':" NUMBER_NULL ",'sd':" NUMBER_NULL "}" },

    { "TrendPoint", "'description':'One bucket that has readings; of a "
      "compound type the figures stand under each component.',"
      "'type':'object','required':['start','count'],'properties':{"
      "'start':" TIME ",'count':{'type':'integer','minimum':1},"
      "'mean':" NUMBER_NULL ",'min':" NUMBER_NULL ",'max':" NUMBER_NULL ","
      "'sum':" NUMBER_NULL ",'sd':" NUMBER_NULL ","
      "'systolic':" REF("Statistics") ",'diastolic':" REF("Statistics")
      "}" },

    { "Trend", "'type':'object','required':['direction','per_day',"
      "'confidence'],'properties':{'direction':{'type':['string','null'],"
      "'enum':['up','down','flat',null]},'per_day':" NUMBER_NULL ","
      "'confidence':" NUMBER_NULL "}" },

    { "Trends", "'type':'object','required':['metric','unit','from','to',"
      "'bucket','time_zone','status','points','trend'],'properties':{"
      "'metric':" REF("DataType") ",'unit':" TEXT_NULL ",'from':" TIME ","
      "'to':" TIME ",'bucket':{'type':'string','enum':['hour','day','week',"
      "'month']},'time_zone':{'type':'string'},'status':{'type':'string',"
      "'enum':['ok','insufficient_data']},'points':{'type':'array',"
      "'items':" REF("TrendPoint") "},'trend':{'description':'Of a compound "
      "type one for each component.','anyOf':[" REF("Trend") ",{"
      "'type':'object','required':['systolic','diastolic'],"
      "'properties':{'systolic':" OR_NULL(REF("Trend")) ","
      "'diastolic':" OR_NULL(REF("Trend")) "}},{'type':'null'}]}}" },

    { "Health", "'type':'object','required':['status'],'properties':{"
      "'status':{'type':'string','const':'healthy'}}" },

    { "Ready", "'type':'object','required':['status','checks'],"
      "'properties':{'status':{'type':'string','enum':['ready',"
      "'not_ready']},'checks':{'type':'object','additionalProperties':{"
      "'description':'A part with its figures.','type':'object',"
      "'required':['status'],'properties':{'status':{'type':'string',"
      "'enum':['ok','warning','down']}},'additionalProperties':{"
      "'type':['integer','string']}}}}" },

    { "Version", "'type':'object','required':['name','version'],"
      "'properties':{'name':{'type':'string'},'version':{'type':'string'},"
      "'nginx':{'type':'string'},'api':{'type':'string'}}" },

    { "KeySet", "'type':'object','required':['keys'],'properties':{"
      "'keys':{'type':'array','items':{'type':'object',"
      "'required':['kty','crv','use','alg','kid','x'],'properties':{"
      "'kty':{'type':'string','enum':['EC','OKP']},"
      "'crv':{'type':'string','enum':['P-256','Ed25519']},"
      "'use':{'type':'string','enum':['sig']},"
      "'alg':{'type':'string','enum':['ES256','EdDSA']},"
      "'kid':{'type':'string'},'x':{'type':'string'},"
      "'y':{'type':'string'}}}}}" },

    { "Text", "'type':'string'" },

    { "Document", "'description':'This document.','type':'object'" },

    { "Problem", "'description':'RFC 9457.','type':'object','required':["
      "'type','title','status','instance','code','request_id'],"
      "'properties':{'type':{'type':'string','format':'uri'},"
      "'title':{'type':'string'},'status':{'type':'integer',"
      "'minimum':400,'maximum':599},'detail':{'type':'string'},"
      "'instance':{'type':'string'},'code':" REF("ProblemCode") ","
      "'request_id':{'type':'string'},'errors':{'type':'array',"
      "'description':'Every fault, not only the first.',"
      "'items':" REF("Fault") "}}" }
};

#define NGX_HM_OA_NSCHEMAS                                                    \
    (sizeof(ngx_hm_oa_schemas) / sizeof(ngx_hm_oa_schemas[0]))


/* Statuses a problem may have; what else can happen is `default`. */

static const ngx_uint_t  ngx_hm_oa_statuses[] = {
    400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 429, 503
};

#define NGX_HM_OA_NSTATUSES                                                   \
    (sizeof(ngx_hm_oa_statuses) / sizeof(ngx_hm_oa_statuses[0]))


/* The writer (ngx_hm_openapi.c). */

void ngx_hm_oa(hm_buf_t *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void ngx_hm_oa_text(hm_buf_t *b, const char *s);
void ngx_hm_oa_next(hm_buf_t *b);
void ngx_hm_oa_key(hm_buf_t *b, const char *key);
void ngx_hm_oa_string(hm_buf_t *b, const char *key, const char *text);
void ngx_hm_oa_camel(hm_buf_t *b, const char *s);
ngx_uint_t ngx_hm_oa_listed(const char *list, const char *name);
void ngx_hm_oa_content(hm_buf_t *b, const char *type, const char *schema);
void ngx_hm_oa_components(hm_buf_t *b);

#endif
