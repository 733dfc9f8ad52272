/*
 * ngx_hm_openapi_schema: the second half of the OpenAPI document, what its
 * operations refer to: parameters, headers, problems and schemas.
 *
 * A record has three schemas: TITLE is what an answer shows, TITLEWrite what
 * POST and PUT take, TITLEPatch what PATCH takes.  One schema with readOnly
 * and writeOnly marks could not say that an answer has every member while a
 * body may leave most of them out.  All three come from the descriptor; only
 * of members it leaves to its hooks (any JSON, a pattern, a default) the
 * table ngx_hm_oa_members[] says more.
 *
 * How it is written: see ngx_hm_openapi.c.
 */

#include "ngx_hm.h"
#include "ngx_hm_openapi.h"


typedef enum { NGX_HM_OA_SHOWN, NGX_HM_OA_WRITE, NGX_HM_OA_PATCH }
    ngx_hm_oa_view_t;


static void ngx_hm_oa_schemas_write(hm_buf_t *b);
static void ngx_hm_oa_resource(hm_buf_t *b, const hm_resource_t *res,
    ngx_hm_oa_view_t view);
static void ngx_hm_oa_member(hm_buf_t *b, const hm_resource_t *res,
    const hm_field_t *fd, ngx_hm_oa_view_t view);
static void ngx_hm_oa_type(hm_buf_t *b, const hm_field_t *fd,
    ngx_uint_t nullable);
static void ngx_hm_oa_metrics(hm_buf_t *b);
static void ngx_hm_oa_codes(hm_buf_t *b);
static ngx_uint_t ngx_hm_oa_has(const hm_field_t *fd, ngx_hm_oa_view_t view);
static void ngx_hm_oa_required(hm_buf_t *b, const hm_resource_t *res,
    ngx_hm_oa_view_t view);
static void ngx_hm_oa_problems(hm_buf_t *b);
static void ngx_hm_oa_problem(hm_buf_t *b, ngx_uint_t status);


void
ngx_hm_oa_components(hm_buf_t *b)
{
    ngx_uint_t  i, n;

    ngx_hm_oa_key(b, "components");
    ngx_hm_oa_text(b, "{'securitySchemes':{'bearer':{'type':'http',"
                   "'scheme':'bearer','bearerFormat':'JWT','description':"
                   "'The access token of a login, with its cookie where it "
                   "has one.'}},'parameters':{");

    for (i = 0; i < NGX_HM_OA_NREQUEST; i++) {
        ngx_hm_oa_key(b, ngx_hm_oa_request_headers[i].name);
        ngx_hm_oa(b, "{%s}", ngx_hm_oa_request_headers[i].json);
    }

    for (i = 0; i < NGX_HM_OA_NPARAMS; i++) {

        /* only what some route takes */

        for (n = 0; n < ngx_hm_nroutes; n++) {
            if (ngx_hm_oa_listed(ngx_hm_routes[n].query,
                                 ngx_hm_oa_params[i].name))
            {
                break;
            }
        }

        if (n < ngx_hm_nroutes) {
            ngx_hm_oa_key(b, ngx_hm_oa_params[i].name);
            ngx_hm_oa(b, "{'name':'%s','in':'query',%s}",
                      ngx_hm_oa_params[i].name, ngx_hm_oa_params[i].json);
        }
    }

    ngx_hm_oa_text(b, "},'headers':{");

    for (i = 0; i < NGX_HM_OA_NHEADERS; i++) {
        ngx_hm_oa_key(b, ngx_hm_oa_headers[i].name);
        ngx_hm_oa(b, "{%s}", ngx_hm_oa_headers[i].json);
    }

    hm_buf_lit(b, "}");

    ngx_hm_oa_problems(b);
    ngx_hm_oa_schemas_write(b);

    hm_buf_lit(b, "}");
}


static void
ngx_hm_oa_problems(hm_buf_t *b)
{
    ngx_uint_t  i;

    ngx_hm_oa_key(b, "responses");
    hm_buf_lit(b, "{");

    for (i = 0; i < NGX_HM_OA_NSTATUSES; i++) {
        ngx_hm_oa_problem(b, ngx_hm_oa_statuses[i]);
    }

    ngx_hm_oa_problem(b, 0);

    hm_buf_lit(b, "}");
}


/* One status with what the catalogue says of it; 0: any other. */
static void
ngx_hm_oa_problem(hm_buf_t *b, ngx_uint_t status)
{
    ngx_uint_t               i, n;
    const hm_problem_row_t  *row;

    ngx_hm_oa_next(b);

    if (status == 0) {
        ngx_hm_oa_text(b, "'Problem':{'description':'Any other problem.");

    } else {
        ngx_hm_oa(b, "'Problem%lu':{'description':'",
                  (unsigned long) status);

        for (i = HM_PROBLEM_NONE + 1, n = 0; i < HM_PROBLEM_LAST; i++) {
            row = hm_problem((hm_problem_t) i);

            if ((ngx_uint_t) row->status == status) {
                ngx_hm_oa(b, "%s%.*s: %.*s.", n++ != 0 ? " " : "",
                          (int) row->code.len, row->code.data,
                          (int) row->title.len, row->title.data);
            }
        }
    }

    ngx_hm_oa_text(b, "','headers':{'X-Request-ID':"
                   "{'$ref':'#/components/headers/X-Request-ID'}");

    if (status == 401) {
        ngx_hm_oa_text(b, ",'WWW-Authenticate':"
                       "{'$ref':'#/components/headers/WWW-Authenticate'}");
    }

    if (status == 415) {
        ngx_hm_oa_text(b, ",'Accept-Patch':"
                       "{'$ref':'#/components/headers/Accept-Patch'}");
    }

    if (status == 409 || status == 429 || status == 503) {
        ngx_hm_oa_text(b, ",'Retry-After':"
                       "{'$ref':'#/components/headers/Retry-After'}");
    }

    ngx_hm_oa_text(b, "},'content':{");
    ngx_hm_oa_content(b, "application/problem+json", "Problem");
    hm_buf_lit(b, "}}");
}


/* Schemas */


static void
ngx_hm_oa_schemas_write(hm_buf_t *b)
{
    ngx_uint_t            i, n;
    const hm_resource_t  *res;

    ngx_hm_oa_key(b, "schemas");
    hm_buf_lit(b, "{");

    for (i = 0; i < ngx_hm_nroutes; i++) {
        res = ngx_hm_routes[i].resource;

        for (n = 0; n < i; n++) {
            if (ngx_hm_routes[n].resource == res) {
                break;
            }
        }

        if (res != NULL && n == i) {
            ngx_hm_oa_resource(b, res, NGX_HM_OA_SHOWN);
            ngx_hm_oa_resource(b, res, NGX_HM_OA_WRITE);
            ngx_hm_oa_resource(b, res, NGX_HM_OA_PATCH);

            ngx_hm_oa_next(b);
            ngx_hm_oa(b, "'%sList':{'type':'object','required':['items',"
                      "'next'],'properties':{'items':{'type':'array',"
                      "'items':{'$ref':'" NGX_HM_OA_SCHEMA "%s'}},"
                      "'next':{'type':['string','null'],'description':"
                      "'The cursor of the next page; null on the last.'}}}",
                      res->title, res->title);
        }
    }

    ngx_hm_oa_metrics(b);
    ngx_hm_oa_codes(b);

    for (i = 0; i < NGX_HM_OA_NSCHEMAS; i++) {
        ngx_hm_oa_key(b, ngx_hm_oa_schemas[i].name);
        ngx_hm_oa(b, "{%s}", ngx_hm_oa_schemas[i].json);
    }

    hm_buf_lit(b, "}");
}


static void
ngx_hm_oa_resource(hm_buf_t *b, const hm_resource_t *res,
    ngx_hm_oa_view_t view)
{
    unsigned     i;

    static const char *const  suffix[] = { "", "Write", "Patch" };

    ngx_hm_oa_next(b);
    ngx_hm_oa(b, "'%s%s':{'type':'object'", res->title, suffix[view]);

    if (view != NGX_HM_OA_PATCH) {
        ngx_hm_oa_required(b, res, view);
    }

    if (view == NGX_HM_OA_SHOWN) {
        ngx_hm_oa_text(b, ",'properties':{'id':{'type':'string',"
                       "'format':'uuid','readOnly':true},'user_id':{"
                       "'type':'string','format':'uuid','readOnly':true}");
    } else {
        ngx_hm_oa_text(b, ",'additionalProperties':false,'properties':{");
    }

    for (i = 0; i < res->nfields; i++) {
        ngx_hm_oa_member(b, res, &res->fields[i], view);
    }

    if (view == NGX_HM_OA_SHOWN) {
        ngx_hm_oa_text(b, ",'created_at':{'type':'string',"
                       "'format':'date-time','readOnly':true},"
                       "'updated_at':{'type':'string','format':'date-time',"
                       "'readOnly':true}");
    }

    hm_buf_lit(b, "}}");
}


/* Has the view this member?  Shown are all that may be; taken, the others. */
static ngx_uint_t
ngx_hm_oa_has(const hm_field_t *fd, ngx_hm_oa_view_t view)
{
    return !(fd->flags & (view == NGX_HM_OA_SHOWN
                          ? HM_F_INTERNAL|HM_F_WRITE_ONLY
                          : HM_F_INTERNAL|HM_F_READ_ONLY));
}


/* An answer has every member, a body what the descriptor asks for. */
static void
ngx_hm_oa_required(hm_buf_t *b, const hm_resource_t *res,
    ngx_hm_oa_view_t view)
{
    unsigned           i;
    const hm_field_t  *fd;

    ngx_hm_oa_text(b, view == NGX_HM_OA_SHOWN
                      ? ",'required':['id','user_id','created_at',"
                        "'updated_at'"
                      : ",'required':[");

    for (i = 0; i < res->nfields; i++) {
        fd = &res->fields[i];

        if (ngx_hm_oa_has(fd, view)
            && (view == NGX_HM_OA_SHOWN || fd->flags & HM_F_REQUIRED))
        {
            ngx_hm_oa_next(b);
            ngx_hm_oa(b, "'%s'", fd->name);
        }
    }

    hm_buf_lit(b, "]");
}


static void
ngx_hm_oa_member(hm_buf_t *b, const hm_resource_t *res, const hm_field_t *fd,
    ngx_hm_oa_view_t view)
{
    char         text[256];
    ngx_uint_t   i, nullable, known;

    if (!ngx_hm_oa_has(fd, view)) {
        return;
    }

    for (known = 0; known < NGX_HM_OA_NMEMBERS; known++) {
        if (ngx_strcmp(ngx_hm_oa_members[known].name, fd->name) == 0) {
            break;
        }
    }

    /* what has a default is never null in an answer */

    i = view == NGX_HM_OA_SHOWN
        && (fd == &res->fields[res->time_field]
            || (known < NGX_HM_OA_NMEMBERS
                && ngx_hm_oa_members[known].always));

    nullable = !(fd->flags & HM_F_REQUIRED) && !i;

    ngx_hm_oa_key(b, fd->name);
    hm_buf_lit(b, "{");

    if (known < NGX_HM_OA_NMEMBERS
        && ngx_hm_oa_members[known].schema != NULL)
    {
        ngx_hm_oa(b, nullable ? "'anyOf':[{'$ref':'" NGX_HM_OA_SCHEMA "%s'},"
                                "{'type':'null'}]"
                              : "'$ref':'" NGX_HM_OA_SCHEMA "%s'",
                  ngx_hm_oa_members[known].schema);
    } else {
        ngx_hm_oa_type(b, fd, nullable);
    }

    if (known < NGX_HM_OA_NMEMBERS
        && ngx_hm_oa_members[known].pattern != NULL)
    {
        ngx_hm_oa_string(b, "pattern", ngx_hm_oa_members[known].pattern);
    }

    (void) snprintf(text, sizeof(text), "%s%s%s%s",
                    fd->meaning != NULL ? fd->meaning : "",
                    fd->flags & HM_F_IMMUTABLE ? "; never changes" : "",
                    view == NGX_HM_OA_PATCH && fd->with != NULL
                    ? "; changes only together with " : "",
                    view == NGX_HM_OA_PATCH && fd->with != NULL
                    ? fd->with : "");
    ngx_hm_oa_string(b, "description", text);

    if (fd->flags & HM_F_READ_ONLY) {
        ngx_hm_oa_text(b, ",'readOnly':true");
    }

    if (fd->flags & HM_F_WRITE_ONLY) {
        ngx_hm_oa_text(b, ",'writeOnly':true");
    }

    hm_buf_lit(b, "}");
}


static void
ngx_hm_oa_type(hm_buf_t *b, const hm_field_t *fd, ngx_uint_t nullable)
{
    static const char *const  types[] = {
        [HM_T_TEXT] = "string", [HM_T_TIME] = "string",
        [HM_T_REAL] = "number", [HM_T_BYTES] = "string"
    };

    if (fd->type == HM_T_JSON) {
        return;                          /* anything */
    }

    ngx_hm_oa(b, nullable ? "'type':['%s','null']" : "'type':'%s'",
              types[fd->type]);

    switch (fd->type) {

    case HM_T_TEXT:
        ngx_hm_oa(b, ",'minLength':%d,'maxLength':%d", (int) fd->min,
                  (int) fd->max);
        break;

    case HM_T_TIME:
        ngx_hm_oa_text(b, ",'format':'date-time'");
        break;

    case HM_T_REAL:
        ngx_hm_oa(b, ",'minimum':%.15g,'maximum':%.15g", fd->min, fd->max);
        break;

    default:
        break;
    }
}


/* DataType, the compound values, and the answer of /health-data/types. */
static void
ngx_hm_oa_metrics(hm_buf_t *b)
{
    size_t                 i;
    const hm_component_t  *c;

    ngx_hm_oa_key(b, "DataType");
    ngx_hm_oa_text(b, "{'anyOf':[{'type':'string','enum':[");

    for (i = 0; i < hm_nmetrics; i++) {
        ngx_hm_oa_next(b);
        ngx_hm_oa(b, "'%s'", hm_metrics[i].name);
    }

    ngx_hm_oa_text(b, "]},{'type':'string',"
                   "'pattern':'^custom:[a-z0-9_]{1,40}$'}]}");

    for (i = 0; i < hm_nmetrics; i++) {
        if (hm_metrics[i].kind != HM_METRIC_OBJECT) {
            continue;
        }

        ngx_hm_oa_next(b);
        hm_buf_lit(b, "\"");
        ngx_hm_oa_camel(b, hm_metrics[i].name);
        ngx_hm_oa_text(b, "':{'type':'object','additionalProperties':false,"
                       "'required':[");

        for (c = hm_metrics[i].components; c->name != NULL; c++) {
            ngx_hm_oa_next(b);
            ngx_hm_oa(b, "'%s'", c->name);
        }

        ngx_hm_oa_text(b, "],'properties':{");

        for (c = hm_metrics[i].components; c->name != NULL; c++) {
            ngx_hm_oa_key(b, c->name);
            ngx_hm_oa(b, "{'type':'number','description':'%.15g to %.15g, "
                      "in %s'}", c->min, c->max, hm_metrics[i].unit);
        }

        hm_buf_lit(b, "}}");
    }

    ngx_hm_oa_key(b, "MetricTypes");
    ngx_hm_oa_text(b, "{'type':'object','required':['items','next'],"
                   "'properties':{'items':{'type':'array','items':{'$ref':'"
                   NGX_HM_OA_SCHEMA "MetricType'}},'next':{'type':'null'}},"
                   "'examples':[");
    hm_metric_types_json(b);
    hm_buf_lit(b, "]}");
}


/* The catalogues of problems and faults, as enumerations. */
static void
ngx_hm_oa_codes(hm_buf_t *b)
{
    ngx_uint_t               i;
    const hm_problem_row_t  *row;

    ngx_hm_oa_key(b, "ProblemCode");
    ngx_hm_oa_text(b, "{'type':'string','enum':[");

    for (i = HM_PROBLEM_NONE + 1; i < HM_PROBLEM_LAST; i++) {
        row = hm_problem((hm_problem_t) i);
        ngx_hm_oa_next(b);
        ngx_hm_oa(b, "'%.*s'", (int) row->code.len, row->code.data);
    }

    ngx_hm_oa_text(b, "]},'Fault':{'description':'It has a pointer into the "
                   "body (RFC 6901), or the name of a query parameter.',"
                   "'type':'object','required':['code'],'properties':{"
                   "'pointer':{'type':'string'},'parameter':{"
                   "'type':'string'},'detail':{'type':'string'},"
                   "'code':{'type':'string','enum':[");

    for (i = HM_FAULT_REQUIRED; i <= HM_FAULT_BLOCKLISTED; i++) {
        ngx_hm_oa_next(b);
        ngx_hm_oa(b, "'%s'", hm_fault_code_name((hm_fault_code_t) i));
    }

    hm_buf_lit(b, "]}}}");
}
