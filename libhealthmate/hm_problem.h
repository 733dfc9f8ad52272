/*
 * hm_problem: the catalogue of everything a client can be told went wrong
 * (RFC 9457).  One row is one public code; codes, statuses and titles are
 * contract.  The list is api.md's "Problem".
 */

#ifndef HM_PROBLEM_H
#define HM_PROBLEM_H

#include "hm.h"
#include "hm_fault.h"

/*      id, status, public code, title  */
#define HM_PROBLEMS(X)                                                        \
    X(REQUEST_MALFORMED, 400, "request.malformed",                            \
      "The request cannot be read")                                           \
    X(INVALID_PARAMETER, 400, "request.invalid_parameter",                    \
      "A query parameter is not valid")                                       \
    X(INVALID_CURSOR, 400, "request.invalid_cursor",                          \
      "The cursor does not belong to this request")                           \
    X(INVALID_HEADER, 400, "request.invalid_header",                          \
      "A header is not valid")                                                \
    X(TOKEN_MISSING, 401, "auth.token_missing",                               \
      "An access token is required")                                          \
    X(TOKEN_INVALID, 401, "auth.token_invalid",                               \
      "The access token is not valid")                                        \
    X(TOKEN_EXPIRED, 401, "auth.token_expired",                               \
      "The access token has expired")                                         \
    X(SESSION_REVOKED, 401, "auth.session_revoked",                           \
      "The session has ended")                                                \
    X(FINGERPRINT_MISMATCH, 401, "auth.fingerprint_mismatch",                 \
      "The token was sent without its cookie")                                \
    X(INVALID_CREDENTIALS, 401, "auth.invalid_credentials",                   \
      "Email or password is wrong")                                           \
    X(MFA_REQUIRED, 401, "auth.mfa_required",                                 \
      "A second factor is required")                                          \
    X(MFA_INVALID, 401, "auth.mfa_invalid",                                   \
      "The second factor is wrong")                                           \
    X(REFRESH_INVALID, 401, "auth.refresh_invalid",                           \
      "The refresh token is not valid")                                       \
    X(REFRESH_REUSED, 401, "auth.refresh_reused",                             \
      "The refresh token was used before")                                    \
    X(REAUTH_REQUIRED, 401, "auth.reauth_required",                           \
      "A recent login is required")                                           \
    X(ACCESS_DENIED, 403, "access.denied",                                    \
      "This is not permitted")                                                \
    X(CONSENT_REQUIRED, 403, "access.consent_required",                       \
      "A consent is required")                                                \
    X(BREAK_GLASS_REQUIRED, 403, "access.break_glass_required",               \
      "This needs a break-glass grant")                                       \
    X(COHORT_TOO_SMALL, 403, "analytics.cohort_too_small",                    \
      "Too few people for a figure")                                          \
    X(NOT_FOUND, 404, "resource.not_found",                                   \
      "There is nothing here")                                                \
    X(METHOD_NOT_ALLOWED, 405, "request.method_not_allowed",                  \
      "The method is not allowed here")                                       \
    X(EMAIL_TAKEN, 409, "auth.email_taken",                                   \
      "The email address is taken")                                           \
    X(CONFLICT, 409, "resource.conflict",                                     \
      "This would make two equal records")                                    \
    X(NOT_READY, 409, "resource.not_ready",                                   \
      "The content is not ready yet")                                         \
    X(IDEMPOTENCY_IN_PROGRESS, 409, "idempotency.in_progress",                \
      "The first request is still running")                                   \
    X(EXPIRED, 410, "resource.expired",                                       \
      "The content has expired")                                              \
    X(CHANGED, 412, "resource.changed",                                       \
      "The resource has changed since")                                       \
    X(TOO_LARGE, 413, "request.too_large",                                    \
      "The request is too large")                                             \
    X(URI_TOO_LONG, 414, "request.uri_too_long",                              \
      "The address is too long")                                              \
    X(MEDIA_TYPE, 415, "request.media_type",                                  \
      "The media type is not supported")                                      \
    X(MISDIRECTED, 421, "request.misdirected",                                \
      "This server does not answer for that host")                            \
    X(VALIDATION_FAILED, 422, "validation.failed",                            \
      "The request is not valid")                                             \
    X(KEY_REUSED, 422, "idempotency.key_reused",                              \
      "The idempotency key was used for another request")                     \
    X(FINGERPRINT_NEEDS_TLS, 422, "auth.fingerprint_needs_tls",               \
      "A fingerprint cookie needs TLS")                                       \
    X(RATE_LIMITED, 429, "rate.limited",                                      \
      "Too many requests")                                                    \
    X(TOO_MANY_ATTEMPTS, 429, "auth.too_many_attempts",                       \
      "Too many attempts")                                                    \
    X(SERVER_ERROR, 500, "server.error",                                      \
      "The server failed")                                                    \
    X(UNAVAILABLE, 503, "server.unavailable",                                 \
      "A part of the service is not available")                               \
    X(OVERLOADED, 503, "server.overloaded",                                   \
      "The service is busy")                                                  \
    X(TIMEOUT, 504, "server.timeout",                                         \
      "The service did not answer in time")

typedef enum {
    HM_PROBLEM_NONE = 0,
#define X(id, status, code, title)  HM_PROBLEM_##id,
    HM_PROBLEMS(X)
#undef X
    HM_PROBLEM_LAST
} hm_problem_t;


typedef struct {
    int           status;
    hm_str_t      code;
    hm_str_t      title;
} hm_problem_row_t;


const hm_problem_row_t *hm_problem(hm_problem_t p);

/* The problem of a status nginx itself made; SERVER_ERROR if unknown. */
hm_problem_t hm_problem_of_status(int status);

/*
 * The whole document.  detail may be empty (then it is left out, or counts
 * the faults); faults may be NULL.  instance is the path without its query.
 */
void hm_problem_json(hm_buf_t *b, hm_problem_t p, hm_str_t detail,
    hm_str_t instance, hm_str_t request_id, const hm_faults_t *faults);

#endif
