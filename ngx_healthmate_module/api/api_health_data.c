/*
 * api_health_data: what the CRUD engine does not cover: the list of types,
 * the latest record of each type, and batches.
 *
 * A batch is taken in parts of at most 500 records; a part is one statement,
 * one transaction, one audit row.  A JSON array is first read to its end and
 * checked item by item, giving way to others in between; nothing of it is
 * stored when it is malformed.  NDJSON is taken as it comes, and what the
 * parts became is collected and sent at the end, because many clients read
 * nothing before they have sent everything.
 *
 * A record is told to be new (201) when the id that is stored is the one
 * made for it here: so a part that is sent again says the same.
 */

#include "../ngx_hm.h"
#include "../ngx_hm_crud.h"
#include "../ngx_hm_endpoints.h"


#define BATCH_PART      500
#define BATCH_SLICE     250
#define BATCH_MAX       10000
#define BATCH_ITEM      (256 * 1024)
#define BATCH_LINE      (1024 * 1024)
#define BATCH_TRIES     5


typedef struct {
    hm_record_t     *record;             /* NULL: not good */
    hm_uuid_t        id;                 /* what is stored */
    unsigned         status;
    hm_str_t         errors;             /* JSON of its faults */
    hm_problem_t     problem;
} batch_item_t;


typedef struct {
    hm_json_items_t  it;
    batch_item_t    *items;
    ngx_uint_t       n;
    ngx_uint_t       size;
    ngx_uint_t       done;               /* items behind us */
    ngx_uint_t       first;              /* of the part under way */
    ngx_uint_t       last;
    ngx_uint_t       good;               /* records in the part */
    ngx_uint_t       sealed;             /* items of it so far */
    uint32_t         sealed_by;
    ngx_uint_t       index;              /* of the first item of the part */
    ngx_uint_t       total;
    ngx_uint_t       created;
    ngx_uint_t       duplicate;
    ngx_uint_t       failed;
    hm_faults_t     *faults;
    hm_mem_t         mem;                /* of the items */
    unsigned         atomic:1;
    unsigned         eof:1;
    unsigned         refused:1;          /* the rest is not read */
} batch_t;


static ngx_hm_rc_t health_types(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t latest_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t latest_done(ngx_hm_ctx_t *hm);
static int latest_order(const void *one, const void *two);
static ngx_hm_rc_t batch_begin(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_scan(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_judge(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_part(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_part_send(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_part_done(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_reply(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_lines(ngx_hm_ctx_t *hm);
static ngx_hm_rc_t batch_lines_done(ngx_hm_ctx_t *hm);

static batch_item_t *batch_add(ngx_hm_ctx_t *hm, batch_t *batch);
static ngx_int_t batch_item(ngx_hm_ctx_t *hm, batch_t *batch, hm_str_t text);
static void batch_result(hm_buf_t *b, ngx_uint_t index,
    const batch_item_t *item);
static ngx_int_t batch_seal(ngx_hm_ctx_t *hm, batch_t *batch);
static ngx_int_t batch_columns(ngx_hm_ctx_t *hm, batch_t *batch);
static ngx_int_t batch_column(ngx_hm_ctx_t *hm, batch_t *batch, int field);
static void batch_count(batch_t *batch);
static ngx_int_t batch_lines_keep(ngx_hm_ctx_t *hm, hm_buf_t *b);
static ngx_uint_t batch_take_lines(ngx_hm_ctx_t *hm, batch_t *batch);


const ngx_hm_step_pt  ngx_hm_health_types[] = { health_types, NULL };

const ngx_hm_step_pt  ngx_hm_health_latest[] = {
    ngx_hm_step_subject, ngx_hm_step_keys, latest_send, latest_done, NULL
};

const ngx_hm_step_pt  ngx_hm_health_batch[] = {
    ngx_hm_step_subject, batch_begin, batch_scan, batch_judge,
    ngx_hm_step_keys, ngx_hm_step_idempotent, batch_part, ngx_hm_step_keys,
    batch_part_send, batch_part_done, batch_reply, NULL
};

static const ngx_hm_step_pt  batch_ndjson[] = {
    batch_lines, ngx_hm_step_system_keys, ngx_hm_step_keys,
    batch_part_send, batch_part_done, batch_lines_done, NULL
};

static const ngx_hm_step_pt  batch_next[] = {
    batch_part, ngx_hm_step_keys, batch_part_send, batch_part_done,
    batch_reply, NULL
};

static const ngx_hm_step_pt  batch_again[] = {
    ngx_hm_step_keys, batch_part_send, batch_part_done, batch_reply, NULL
};

static const ngx_hm_step_pt  batch_lines_again[] = {
    ngx_hm_step_keys, batch_part_send, batch_part_done, batch_lines_done,
    NULL
};

static const ngx_hm_step_pt  batch_answer[] = { batch_reply, NULL };


static ngx_hm_rc_t
health_types(ngx_hm_ctx_t *hm)
{
    ngx_hm_reply_start(hm, NGX_HTTP_OK, 8192);
    hm_metric_types_json(&hm->out);

    return NGX_HM_DONE;
}


/* The latest record of each type */


static ngx_hm_rc_t
latest_send(ngx_hm_ctx_t *hm)
{
    size_t     i;
    hm_str_t  *kinds;

    kinds = ngx_hm_palloc(hm, hm_nmetrics * sizeof(hm_str_t));
    if (kinds == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    for (i = 0; i < hm_nmetrics; i++) {
        kinds[i].data = (u_char *) hm_metrics[i].name;
        kinds[i].len = ngx_strlen(hm_metrics[i].name);
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SLOW,
                     ngx_hm_crud_stmt(hm, HM_SQL_LATEST));
    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_array(hm, 25, hm_nmetrics, kinds);

    return ngx_hm_seg_wait(hm);
}


static ngx_hm_rc_t
latest_done(ngx_hm_ctx_t *hm)
{
    int            i, n;
    ngx_hm_rc_t    rc;
    hm_record_t   *recs;
    hm_problem_t   p;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    n = PQntuples(hm->seg.res);

    recs = ngx_hm_palloc(hm, ((size_t) n + 1) * sizeof(hm_record_t));
    if (recs == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    for (i = 0; i < n; i++) {
        rc = ngx_hm_open_row(hm, hm->route->resource, &recs[i], hm->seg.res,
                             i, 0, true);

        if (rc == NGX_HM_WAIT) {
            return ngx_hm_goto(hm, ngx_hm_health_latest);
        }

        if (rc != NGX_HM_NEXT) {
            return rc;
        }
    }

    /* by name: a slug is known only now that it is open */

    qsort(recs, (size_t) n, sizeof(hm_record_t), latest_order);

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 64 + (size_t) n * 448);
    hm_buf_lit(&hm->out, "{\"items\":[");

    for (i = 0; i < n; i++) {
        if (i > 0) {
            hm_buf_lit(&hm->out, ",");
        }

        hm_resource_json(hm->route->resource, &hm->out, &recs[i]);
    }

    hm_buf_lit(&hm->out, "],\"next\":null}");

    hm->audit.row.items = (uint32_t) n;

    if (n > 0) {
        hm->audit.row.first = recs[0].id;
        hm->audit.row.last = recs[n - 1].id;
    }

    return NGX_HM_DONE;
}


static int
latest_order(const void *one, const void *two)
{
    int              rc;
    const hm_str_t  *a, *b;

    a = &((const hm_record_t *) one)->v[HM_HD_DATA_TYPE].text;
    b = &((const hm_record_t *) two)->v[HM_HD_DATA_TYPE].text;

    rc = memcmp(a->data, b->data, ngx_min(a->len, b->len));

    return rc != 0 ? rc : (a->len > b->len) - (a->len < b->len);
}


/* Batches */


static ngx_hm_rc_t
batch_begin(ngx_hm_ctx_t *hm)
{
    hm_str_t  *arg;
    batch_t   *batch;

    batch = ngx_hm_pcalloc(hm, sizeof(batch_t));

    if (batch == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    hm->data = batch;
    batch->mem.alloc = ngx_hm_alloc;
    batch->mem.ctx = &hm->part;

    batch->faults = ngx_hm_palloc(hm, sizeof(hm_faults_t));
    if (batch->faults == NULL) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    arg = ngx_hm_arg(hm, "atomic");

    if (arg != NULL) {
        if (hm_str_eq(*arg, HM_STR("true"))) {
            batch->atomic = 1;

        } else if (!hm_str_eq(*arg, HM_STR("false"))) {
            hm_fault_param(hm->faults, "atomic", HM_FAULT_ENUM,
                           "true or false");
            return ngx_hm_fail(hm, HM_PROBLEM_INVALID_PARAMETER);
        }

        if (batch->atomic && hm->ndjson) {
            hm_fault_param(hm->faults, "atomic", HM_FAULT_ENUM,
                           "only of a JSON array; NDJSON is stored in "
                           "parts");
            return ngx_hm_fail(hm, HM_PROBLEM_INVALID_PARAMETER);
        }
    }

    if (hm->ndjson) {
        hm_buf_init(&hm->out, &hm->mem, 4096);
        return ngx_hm_goto(hm, batch_ndjson);
    }

    switch (hm_json_items(&batch->it, hm->body)) {

    case HM_OK:
        return NGX_HM_NEXT;

    case HM_DECLINED:
        /* JSON of another kind, or no JSON at all */

        hm->json = hm_json_parse(hm->body, &hm->detail);

        if (hm->json == NULL) {
            return ngx_hm_fail(hm, HM_PROBLEM_REQUEST_MALFORMED);
        }

        hm_fault_add(hm->faults, HM_STR(""), NULL, HM_FAULT_TYPE,
                     "an array is needed");
        hm->detail = hm_null_str;
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);

    default:
        return ngx_hm_fail_detail(hm, HM_PROBLEM_REQUEST_MALFORMED,
                                  "the array cannot be read");
    }
}


/* The array's items, a slice at a time. */
static ngx_hm_rc_t
batch_scan(ngx_hm_ctx_t *hm)
{
    hm_rc_t      rc;
    batch_t     *batch = hm->data;
    hm_str_t     text;
    ngx_uint_t   n;

    for (n = 0; n < BATCH_SLICE; n++) {

        rc = hm_json_items_next(&batch->it, &text);

        if (rc == HM_DECLINED) {
            return NGX_HM_NEXT;
        }

        if (rc == HM_OK && batch->n == BATCH_MAX) {
            return ngx_hm_fail_detail(hm, HM_PROBLEM_TOO_LARGE,
                                      "at most %d items", BATCH_MAX);
        }

        if (rc != HM_OK || batch_item(hm, batch, text) != NGX_OK
            || batch->items[batch->n - 1].problem
               == HM_PROBLEM_REQUEST_MALFORMED)
        {
            return ngx_hm_fail_detail(hm, HM_PROBLEM_REQUEST_MALFORMED,
                                      "item %lu cannot be read",
                                      (unsigned long) batch->n);
        }
    }

    hm->step--;
    ngx_hm_later(hm);

    return NGX_HM_WAIT;
}


static batch_item_t *
batch_add(ngx_hm_ctx_t *hm, batch_t *batch)
{
    ngx_uint_t     size;
    batch_item_t  *items;

    if (batch->n == batch->size) {
        size = batch->size != 0 ? batch->size * 2 : 64;
        items = hm_alloc(&batch->mem, size * sizeof(batch_item_t));
        if (items == NULL) {
            return NULL;
        }

        if (batch->n != 0) {
            ngx_memcpy(items, batch->items,
                       batch->n * sizeof(batch_item_t));
        }

        batch->items = items;
        batch->size = size;
    }

    ngx_memzero(&batch->items[batch->n], sizeof(batch_item_t));

    return &batch->items[batch->n++];
}


/* Parses and checks one item; what is wrong with it stays with it. */
static ngx_int_t
batch_item(ngx_hm_ctx_t *hm, batch_t *batch, hm_str_t text)
{
    json_t        *j;
    hm_rc_t        rc;
    hm_buf_t       b;
    hm_str_t       reason, prefix;
    hm_faults_t   *faults;
    batch_item_t  *item;

    item = batch_add(hm, batch);
    if (item == NULL) {
        return NGX_ERROR;
    }

    if (text.len > BATCH_ITEM) {
        item->status = NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
        item->problem = HM_PROBLEM_TOO_LARGE;

        if (batch->atomic) {
            hm_fault_add(hm->faults, HM_STR(""),
                         (char *) ngx_hm_printf(hm, "%lu",
                                      (unsigned long) batch->n - 1).data,
                         HM_FAULT_LENGTH, "larger than 256 KiB");
        }

        return NGX_OK;
    }

    j = hm_json_parse(text, &reason);

    if (j == NULL) {
        item->status = NGX_HTTP_BAD_REQUEST;
        item->problem = HM_PROBLEM_REQUEST_MALFORMED;
        return NGX_OK;
    }

    item->record = hm_alloc(&batch->mem, sizeof(hm_record_t));

    if (item->record == NULL
        || hm_uuid7(&item->record->id, hm->now) != HM_OK)
    {
        json_decref(j);
        return NGX_ERROR;
    }

    prefix = HM_STR("");

    if (batch->atomic) {
        prefix = ngx_hm_printf(hm, "/%lu", (unsigned long) batch->n - 1);
        faults = hm->faults;

    } else {
        faults = batch->faults;
        hm_faults_init(faults, &batch->mem);
    }

    item->record->user_id = hm->subject;

    rc = hm_resource_read(hm->route->resource, &batch->mem, item->record, j,
                          NULL, hm->now, faults, prefix);
    json_decref(j);

    if (rc == HM_OK) {
        return NGX_OK;
    }

    item->record = NULL;
    item->status = 422;
    item->problem = HM_PROBLEM_VALIDATION_FAILED;

    if (!batch->atomic) {
        hm_buf_init(&b, &batch->mem, 256);
        hm_faults_json(&b, faults);
        item->errors.data = b.start;
        item->errors.len = b.failed ? 0 : hm_buf_len(&b);
    }

    return NGX_OK;
}


/* The whole array is known: may it, shall it be stored? */
static ngx_hm_rc_t
batch_judge(ngx_hm_ctx_t *hm)
{
    batch_t       *batch = hm->data;
    hm_problem_t   p;

    if (batch->n == 0) {
        hm_fault_add(hm->faults, HM_STR(""), NULL, HM_FAULT_LENGTH,
                     "1..%d items", BATCH_MAX);
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    if (batch->atomic && hm->faults->n != 0) {
        return ngx_hm_fail(hm, HM_PROBLEM_VALIDATION_FAILED);
    }

    /* one was taken at the gate */
    p = ngx_hm_limit(hm, NGX_HM_CLASS_INGEST, batch->n - 1);

    return p == HM_PROBLEM_NONE ? NGX_HM_NEXT : ngx_hm_fail(hm, p);
}


/* Which items are the next part; none: the answer. */
static ngx_hm_rc_t
batch_part(ngx_hm_ctx_t *hm)
{
    batch_t     *batch = hm->data;
    ngx_uint_t   max;

    max = batch->atomic ? BATCH_MAX : BATCH_PART;

    batch->first = batch->done;
    batch->good = 0;

    while (batch->done < batch->n && batch->good < max) {
        batch->good += batch->items[batch->done].record != NULL;
        batch->done++;
    }

    batch->last = batch->done;

    if (batch->good == 0) {
        return ngx_hm_goto(hm, batch_answer);
    }

    return NGX_HM_NEXT;
}


static ngx_hm_rc_t
batch_part_send(ngx_hm_ctx_t *hm)
{
    batch_t      *batch = hm->data;
    ngx_hm_rc_t   rc;

    if (!ngx_hm_feed_good(hm, &rc)) {
        return rc;
    }

    if (batch->good == 0) {
        /* nothing to store in these lines */
        return hm->ndjson ? ngx_hm_goto(hm, batch_ndjson + 5)
                          : ngx_hm_goto(hm, batch_answer);
    }

    switch (batch_seal(hm, batch)) {

    case NGX_OK:
        batch->sealed = 0;
        break;

    case NGX_AGAIN:
        /* a large part is sealed in slices; the keys are asked for anew */
        hm->step -= 2;
        ngx_hm_later(hm);
        return NGX_HM_WAIT;

    default:
        ngx_hm_count(NGX_HM_M_SEAL_FAILED, 1);
        return ngx_hm_fail_detail(hm, HM_PROBLEM_SERVER_ERROR,
                                  "the records could not be sealed");
    }

    if (batch_columns(hm, batch) != NGX_OK
        || ngx_hm_seg_tail(hm, &hm->seg) != NGX_OK)
    {
        return ngx_hm_fail(hm, HM_PROBLEM_UNAVAILABLE);
    }

    /* its jobs take the ids of records: the tail's last one is not used */

    hm->seg.nparams--;

    return ngx_hm_seg_wait(hm);
}


static ngx_int_t
batch_seal(ngx_hm_ctx_t *hm, batch_t *batch)
{
    ngx_uint_t       i, n;
    hm_user_keys_t  *keys;

    keys = ngx_hm_keys(hm);
    if (keys == NULL) {
        return NGX_ERROR;
    }

    if (batch->sealed != 0 && batch->sealed_by != keys->active) {
        batch->sealed = 0;               /* all under one version */
    }

    batch->sealed_by = keys->active;

    for (i = batch->first + batch->sealed, n = 0; i < batch->last;
         i++, n++)
    {
        if (n == BATCH_PART) {
            batch->sealed = i - batch->first;
            return NGX_AGAIN;
        }

        if (batch->items[i].record != NULL
            && hm_resource_seal(hm->route->resource, &batch->mem,
                                batch->items[i].record, keys) != HM_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
batch_columns(ngx_hm_ctx_t *hm, batch_t *batch)
{
    int              f;
    uint32_t         version;
    ngx_uint_t       i;

    version = 0;

    for (i = batch->first; i < batch->last; i++) {
        if (batch->items[i].record != NULL) {
            version = batch->items[i].record->dek_version;
            break;
        }
    }

    ngx_hm_seg_start(hm, NGX_HM_LANE_SOLO,
                     ngx_hm_crud_stmt(hm, HM_SQL_BATCH));

    if (batch_column(hm, batch, -1) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_hm_seg_uuid(&hm->seg, &hm->subject);
    ngx_hm_seg_i32(hm, &hm->seg, version);
    ngx_hm_seg_time(hm, &hm->seg, hm->now);

    for (f = 0; f < (int) hm->route->resource->nfields; f++) {
        if (batch_column(hm, batch, f) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* One column of the part as a binary array; field -1 is the id. */
static ngx_int_t
batch_column(ngx_hm_ctx_t *hm, batch_t *batch, int field)
{
    size_t               len;
    double               d;
    u_char              *p, *start;
    uint32_t             oid;
    uint64_t             bits;
    hm_str_t             s;
    ngx_uint_t           i;
    hm_record_t         *rec;
    const hm_value_t    *v;
    const hm_field_t    *fd;

    fd = field < 0 ? NULL : &hm->route->resource->fields[field];

    oid = fd == NULL ? 2950
          : (fd->flags & HM_F_SEALED) || fd->type == HM_T_BYTES ? 17
          : fd->type == HM_T_TIME ? 1184
          : fd->type == HM_T_REAL ? 701 : 25;

    len = 20 + batch->good * 20;

    for (i = batch->first; fd != NULL && i < batch->last; i++) {
        rec = batch->items[i].record;

        if (rec != NULL && rec->v[field].set && oid != 1184 && oid != 701) {
            len += fd->flags & HM_F_SEALED ? rec->v[field].sealed.len
                                           : rec->v[field].text.len;
        }
    }

    start = hm_alloc(&batch->mem, len);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = hm_put_array(start, oid, (uint32_t) batch->good);

    for (i = batch->first; i < batch->last; i++) {
        rec = batch->items[i].record;

        if (rec == NULL) {
            continue;
        }

        v = field < 0 ? NULL : &rec->v[field];

        if (v == NULL) {
            s.data = rec->id.b;
            s.len = 16;

        } else if (!v->set) {
            hm_put_u32(p, (uint32_t) -1);
            p += 4;
            continue;

        } else if (oid == 1184) {
            hm_put_u32(p, 8);
            hm_put_time(p + 4, v->time);
            p += 12;
            continue;

        } else if (oid == 701) {
            d = v->real;
            ngx_memcpy(&bits, &d, 8);
            hm_put_u32(p, 8);
            hm_put_u64(p + 4, bits);
            p += 12;
            continue;

        } else {
            s = fd->flags & HM_F_SEALED ? v->sealed : v->text;
        }

        hm_put_u32(p, (uint32_t) s.len);
        p = ngx_cpymem(p + 4, s.data, s.len);
    }

    ngx_hm_seg_add(&hm->seg, start, (size_t) (p - start));

    return NGX_OK;
}


/* Columns: ord, id, user_id, made, key_ok, job. */
static ngx_hm_rc_t
batch_part_done(ngx_hm_ctx_t *hm)
{
    int            row;
    batch_t       *batch = hm->data;
    PGresult      *r;
    hm_uuid_t      owner;
    ngx_uint_t     i, raced;
    hm_problem_t   p;
    batch_item_t  *item;

    p = ngx_hm_seg_result(hm);
    if (p != HM_PROBLEM_NONE) {
        return ngx_hm_fail(hm, p);
    }

    r = hm->seg.res;

    if (PQntuples(r) != (int) batch->good) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    raced = !hm_row_bool(r, 0, 4);

    if (raced) {
        ngx_hm_keys_drop(&hm->subject);
    }

    for (i = batch->first, row = 0; i < batch->last; i++) {
        item = &batch->items[i];

        if (item->record == NULL) {
            continue;
        }

        if (PQgetisnull(r, row, 1)) {
            raced = 1;
            row++;
            continue;
        }

        owner = hm_row_uuid(r, row, 2);

        if (ngx_hm_owned(hm, &owner, hm->route->resource->name)
            != NGX_HM_NEXT)
        {
            return NGX_HM_FAIL;
        }

        item->id = hm_row_uuid(r, row, 1);
        item->status = hm_uuid_eq(&item->id, &item->record->id)
                       ? NGX_HTTP_CREATED : NGX_HTTP_OK;
        row++;
    }

    if (raced) {
        if (hm->tries++ >= BATCH_TRIES) {
            hm->headers.retry_after = 1;
            return ngx_hm_fail(hm, HM_PROBLEM_OVERLOADED);
        }

        return ngx_hm_goto(hm, hm->ndjson ? batch_lines_again
                                          : batch_again);
    }

    /* the relay rings for its jobs */

    ngx_hm_seg_clear(&hm->seg);

    if (!hm->ndjson && batch->done < batch->n) {
        return ngx_hm_goto(hm, batch_next);
    }

    return NGX_HM_NEXT;
}


static void
batch_count(batch_t *batch)
{
    ngx_uint_t     i;
    batch_item_t  *item;

    for (i = 0; i < batch->n; i++) {
        item = &batch->items[i];
        batch->total++;
        batch->created += item->status == NGX_HTTP_CREATED;
        batch->duplicate += item->status == NGX_HTTP_OK;
        batch->failed += item->status >= 400;
    }
}


static void
batch_result(hm_buf_t *b, ngx_uint_t index, const batch_item_t *item)
{
    hm_buf_lit(b, "{\"index\":");
    hm_json_int(b, (int64_t) index);
    hm_buf_lit(b, ",\"status\":");
    hm_json_int(b, item->status);

    if (item->status < 400) {
        hm_buf_lit(b, ",\"id\":");
        hm_json_uuid(b, &item->id);

    } else {
        hm_buf_lit(b, ",\"code\":");
        hm_json_text(b, hm_problem(item->problem)->code);

        if (item->errors.len != 0) {
            hm_buf_lit(b, ",\"errors\":");
            hm_buf_str(b, item->errors);
        }
    }

    hm_buf_lit(b, "}");
}


static ngx_hm_rc_t
batch_reply(ngx_hm_ctx_t *hm)
{
    batch_t     *batch = hm->data;
    ngx_uint_t   i;

    batch_count(batch);
    ngx_hm_count(NGX_HM_M_POINTS, batch->created);

    ngx_hm_reply_start(hm, NGX_HTTP_OK, 128 + batch->n * 96);

    hm_buf_printf(&hm->out, "{\"total\":%lu,\"created\":%lu,"
                  "\"duplicate\":%lu,\"failed\":%lu,\"results\":[",
                  (unsigned long) batch->total,
                  (unsigned long) batch->created,
                  (unsigned long) batch->duplicate,
                  (unsigned long) batch->failed);

    for (i = 0; i < batch->n; i++) {
        if (i > 0) {
            hm_buf_lit(&hm->out, ",");
        }

        batch_result(&hm->out, i, &batch->items[i]);
    }

    hm_buf_lit(&hm->out, "]}");

    if (hm->out.failed) {
        return ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR);
    }

    return ngx_hm_idempotent_keep(hm, NGX_HM_DONE);
}


/* NDJSON */


/* The lines of the next part, or more of the body. */
static ngx_hm_rc_t
batch_lines(ngx_hm_ctx_t *hm)
{
    batch_t       *batch = hm->data;
    ngx_int_t      rc;
    ngx_uint_t     i;
    hm_problem_t   p;

    if (hm->problem != HM_PROBLEM_NONE) {
        return NGX_HM_FAIL;              /* the body broke */
    }

    while (batch_take_lines(hm, batch) == 0) {

        if (batch->eof || batch->refused) {
            hm->request->keepalive &= batch->eof;
            hm_buf_printf(&hm->out, "{\"total\":%lu,\"created\":%lu,"
                          "\"duplicate\":%lu,\"failed\":%lu}\n",
                          (unsigned long) batch->total,
                          (unsigned long) batch->created,
                          (unsigned long) batch->duplicate,
                          (unsigned long) batch->failed);
            hm->status = NGX_HTTP_OK;
            hm->headers.personal = 1;
            hm->headers.type = HM_STR("application/x-ndjson");

            return hm->out.failed ? ngx_hm_fail(hm, HM_PROBLEM_SERVER_ERROR)
                                  : NGX_HM_DONE;
        }

        rc = ngx_hm_body_more(hm);

        if (rc == NGX_ERROR) {
            return NGX_HM_WAIT;          /* it has been answered */
        }

        batch->eof = rc == NGX_DONE;

        if (!batch->eof && hm->body.len > BATCH_LINE
            && memchr(hm->body.data, '\n', hm->body.len) == NULL)
        {
            return ngx_hm_fail_detail(hm, HM_PROBLEM_TOO_LARGE,
                                      "a line is longer than 1 MiB");
        }

        if (rc == NGX_AGAIN) {
            hm->step--;
            ngx_hm_body_wait(hm);
            return NGX_HM_WAIT;
        }
    }

    hm->now = hm_now();                  /* each part has its own time */

    p = ngx_hm_limit(hm, NGX_HM_CLASS_INGEST,
                     batch->total == 0 ? batch->n - 1 : batch->n);

    if (p != HM_PROBLEM_NONE) {
        if (batch->total == 0) {
            return ngx_hm_fail(hm, p);
        }

        /* earlier parts are stored: say it of these lines, and no more */

        hm->problem = HM_PROBLEM_NONE;
        hm->detail = hm_null_str;
        batch->refused = 1;

        for (i = 0; i < batch->n; i++) {
            batch->items[i].record = NULL;
            batch->items[i].status = NGX_HTTP_TOO_MANY_REQUESTS;
            batch->items[i].problem = HM_PROBLEM_RATE_LIMITED;
            batch->items[i].errors = hm_null_str;
        }
    }

    batch->first = 0;
    batch->last = batch->n;
    batch->good = 0;

    for (i = 0; i < batch->n; i++) {
        batch->good += batch->items[i].record != NULL;
    }

    return NGX_HM_NEXT;
}


static ngx_uint_t
batch_take_lines(ngx_hm_ctx_t *hm, batch_t *batch)
{
    u_char    *p, *end, *nl;
    hm_str_t   line;

    p = hm->body.data;
    end = p + hm->body.len;

    while (p < end && batch->n < BATCH_PART && !batch->refused) {
        nl = memchr(p, '\n', (size_t) (end - p));

        if (nl == NULL && !batch->eof) {
            break;
        }

        line.data = p;
        line.len = (size_t) ((nl != NULL ? nl : end) - p);
        p = nl != NULL ? nl + 1 : end;

        while (line.len > 0 && (line.data[line.len - 1] == '\r'
                                || line.data[line.len - 1] == ' '))
        {
            line.len--;
        }

        if (line.len != 0 && batch_item(hm, batch, line) != NGX_OK) {
            break;
        }
    }

    hm->body.len = (size_t) (end - p);
    hm->body.data = p;

    return batch->n;
}


/* The lines of a part wait for the end of the body, within the budget. */
static ngx_int_t
batch_lines_keep(ngx_hm_ctx_t *hm, hm_buf_t *b)
{
    ngx_buf_t    *buf;
    ngx_chain_t  *cl;

    cl = ngx_hm_pcalloc(hm, sizeof(ngx_chain_t) + sizeof(ngx_buf_t));

    if (cl == NULL || b->failed
        || ngx_hm_body_charge(hm, (size_t) (b->end - b->start)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    buf = (ngx_buf_t *) (cl + 1);
    buf->pos = b->start;
    buf->last = b->pos;
    buf->memory = 1;
    cl->buf = buf;

    if (hm->parts == NULL) {
        hm->parts_last = &hm->parts;
    }

    *hm->parts_last = cl;
    hm->parts_last = &cl->next;
    hm->parts_len += hm_buf_len(b);

    return NGX_OK;
}


/* What became of the part, a line for each; its memory is given back. */
static ngx_hm_rc_t
batch_lines_done(ngx_hm_ctx_t *hm)
{
    batch_t     *batch = hm->data;
    hm_buf_t     b;
    ngx_uint_t   i;

    hm_buf_init(&b, &hm->mem, batch->n * 96);

    for (i = 0; i < batch->n; i++) {
        batch_result(&b, batch->index + i, &batch->items[i]);
        hm_buf_lit(&b, "\n");
    }

    if (batch_lines_keep(hm, &b) != NGX_OK) {
        hm->headers.retry_after = 1;
        return ngx_hm_fail_detail(hm, HM_PROBLEM_OVERLOADED,
                                  "too many answers wait; what was sent so "
                                  "far is stored, sending it again is safe");
    }

    i = batch->created;
    batch_count(batch);
    ngx_hm_count(NGX_HM_M_POINTS, batch->created - i);
    batch->index += batch->n;
    hm->tries = 0;

    batch->n = 0;
    batch->size = 0;
    batch->items = NULL;

    ngx_hm_arena_free(&hm->part);

    /* others have their turn between two parts */

    ngx_hm_goto(hm, batch_ndjson);
    ngx_hm_later(hm);

    return NGX_HM_WAIT;
}
