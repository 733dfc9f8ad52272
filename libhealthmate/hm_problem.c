/*
 * hm_problem: the catalogue of problems, and the document that tells one.
 *
 * The rows are made from the list in hm_problem.h; nothing here knows a
 * single problem by name except the map of nginx's own statuses.  nginx makes
 * statuses that are not in our catalogue (408, 494, 502, 507): each is told
 * as the nearest row that is, and the answer's status is then that row's,
 * so that status, code and title never contradict each other.
 *
 * The document is RFC 9457 with our members `code`, `request_id` and
 * `errors`.  `detail` counts the faults when nothing better is known.
 */

#include <stdio.h>

#include "hm_problem.h"


static const hm_problem_row_t  hm_problem_rows[] = {
    { 500, hm_str("server.error"), hm_str("The server failed") },
#define X(id, status, code, title)  { status, hm_str(code), hm_str(title) },
    HM_PROBLEMS(X)
#undef X
};


static const struct {
    int           status;
    hm_problem_t  problem;
} hm_problem_statuses[] = {
    { 400, HM_PROBLEM_REQUEST_MALFORMED },
    { 401, HM_PROBLEM_TOKEN_MISSING },
    { 403, HM_PROBLEM_ACCESS_DENIED },
    { 404, HM_PROBLEM_NOT_FOUND },
    { 405, HM_PROBLEM_METHOD_NOT_ALLOWED },
    { 408, HM_PROBLEM_REQUEST_MALFORMED },   /* the client was too slow */
    { 409, HM_PROBLEM_CONFLICT },
    { 410, HM_PROBLEM_EXPIRED },
    { 411, HM_PROBLEM_REQUEST_MALFORMED },   /* no length */
    { 412, HM_PROBLEM_CHANGED },
    { 413, HM_PROBLEM_TOO_LARGE },
    { 414, HM_PROBLEM_URI_TOO_LONG },
    { 415, HM_PROBLEM_MEDIA_TYPE },
    { 416, HM_PROBLEM_INVALID_HEADER },      /* Range */
    { 421, HM_PROBLEM_MISDIRECTED },
    { 422, HM_PROBLEM_VALIDATION_FAILED },
    { 429, HM_PROBLEM_RATE_LIMITED },
    { 494, HM_PROBLEM_INVALID_HEADER },      /* nginx: header too large */
    { 495, HM_PROBLEM_REQUEST_MALFORMED },   /* nginx: bad certificate */
    { 496, HM_PROBLEM_REQUEST_MALFORMED },   /* nginx: no certificate */
    { 497, HM_PROBLEM_REQUEST_MALFORMED },   /* nginx: HTTP sent to HTTPS */
    { 501, HM_PROBLEM_METHOD_NOT_ALLOWED },
    { 502, HM_PROBLEM_UNAVAILABLE },
    { 503, HM_PROBLEM_UNAVAILABLE },
    { 504, HM_PROBLEM_TIMEOUT },
    { 505, HM_PROBLEM_REQUEST_MALFORMED },   /* HTTP version */
    { 507, HM_PROBLEM_UNAVAILABLE }          /* no storage */
};


const hm_problem_row_t *
hm_problem(hm_problem_t p)
{
    /* NONE and anything foreign: the row of a server error, which is first */

    if ((unsigned) p >= HM_PROBLEM_LAST) {
        p = HM_PROBLEM_NONE;
    }

    return &hm_problem_rows[p];
}


hm_problem_t
hm_problem_of_status(int status)
{
    size_t  i;

    for (i = 0;
         i < sizeof(hm_problem_statuses) / sizeof(hm_problem_statuses[0]);
         i++)
    {
        if (hm_problem_statuses[i].status == status) {
            return hm_problem_statuses[i].problem;
        }
    }

    return HM_PROBLEM_SERVER_ERROR;
}


void
hm_problem_json(hm_buf_t *b, hm_problem_t p, hm_str_t detail,
    hm_str_t instance, hm_str_t request_id, const hm_faults_t *faults)
{
    size_t                   n;
    const hm_problem_row_t  *row;

    row = hm_problem(p);
    n = faults != NULL ? faults->n : 0;

    hm_buf_lit(b, "{\"type\":\"urn:healthmate:problem:");
    hm_buf_str(b, row->code);
    hm_buf_lit(b, "\",\"title\":");
    hm_json_text(b, row->title);
    hm_buf_lit(b, ",\"status\":");
    hm_json_int(b, row->status);

    if (detail.len != 0) {
        hm_buf_lit(b, ",\"detail\":");
        hm_json_text(b, detail);

    } else if (n != 0) {
        hm_buf_lit(b, ",\"detail\":\"");
        hm_json_int(b, (int64_t) n);

        if (n == 1) {
            hm_buf_lit(b, " fault\"");
        } else {
            hm_buf_lit(b, " faults\"");
        }
    }

    hm_buf_lit(b, ",\"instance\":");
    hm_json_text(b, instance);
    hm_buf_lit(b, ",\"code\":\"");
    hm_buf_str(b, row->code);
    hm_buf_lit(b, "\",\"request_id\":");
    hm_json_text(b, request_id);

    if (n != 0) {
        hm_buf_lit(b, ",\"errors\":");
        hm_faults_json(b, faults);
    }

    hm_buf_lit(b, "}");
}
