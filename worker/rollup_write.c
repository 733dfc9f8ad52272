/*
 * What a roll-up keeps: figures as JSON, sealed under the person's active
 * key.  A sealed value is bound to its row's id, so a bucket that exists
 * keeps its id and is updated.
 */

#include "hm_time.h"
#include "hmw_rollup.h"


typedef struct {
    unsigned char    *room;
    size_t            size;
    size_t           *used;
} hmw_scratch_t;


static hmw_result_t hmw_rollup_seal(hmw_rollup_t *r, hmw_write_t *write,
    const hm_uuid_t *id, const hmw_bucket_t *bucket);
static int hmw_rollup_send(hmw_rollup_t *r, hmw_write_t *write,
    const char *name);
static void *hmw_scratch(void *ctx, size_t size);


hmw_result_t
hmw_rollup_put(hmw_rollup_t *r, int unit, int64_t start,
    hmw_target_t *target, const hmw_bucket_t *bucket)
{
    hm_uuid_t      id;
    hmw_write_t   *write;
    hmw_result_t   result;

    if (r->nwrites == HMW_WRITES) {
        result = hmw_rollup_flush(r);

        if (result != HMW_DONE) {
            return result;
        }
    }

    write = &r->writes[r->nwrites];
    write->update = target != NULL && target->exists;
    write->unit = unit;
    hm_put_u64(write->start, (uint64_t) start);

    if (write->update) {
        id = target->id;

    } else if (hm_uuid7(&id, hm_now()) != HM_OK) {
        return HMW_RETRY;
    }

    if (target != NULL) {
        target->written = true;
    }

    r->nwrites++;

    return hmw_rollup_seal(r, write, &id, bucket);
}


static hmw_result_t
hmw_rollup_seal(hmw_rollup_t *r, hmw_write_t *write, const hm_uuid_t *id,
    const hmw_bucket_t *bucket)
{
    size_t        used;
    hm_mem_t      mem;
    hm_buf_t      json;
    uint32_t      version;
    hm_rc_t       rc;
    hm_str_t      text;
    hm_place_t    place;
    _Alignas(16) unsigned char  room[1024];

    /* The document is at most some 300 bytes; a second block is refused. */

    used = 0;
    mem.alloc = hmw_scratch;
    mem.ctx = &(hmw_scratch_t) { room, sizeof(room), &used };

    hm_buf_init(&json, &mem, 960);
    hmw_bucket_json(&json, bucket);

    text.data = json.start;
    text.len = hm_buf_len(&json);

    if (json.failed || hm_sealed_len(text.len) > sizeof(write->sealed)) {
        r->job->cause = "bucket_too_large";
        return HMW_BAD;
    }

    place.table = "health_metrics_aggregation";
    place.column = "aggregates";
    place.row = *id;
    place.owner = r->key.user;

    version = r->w->keys->active;
    memcpy(write->id, id->b, 16);
    hm_put_u32(write->dek_version, version);

    rc = hm_seal(write->sealed, &write->len, hm_keys_dek(r->w->keys, version),
                 version, &place, text);
    hm_wipe(room, sizeof(room));

    if (rc != HM_OK) {
        r->job->cause = "not_sealed";
        return HMW_RETRY;
    }

    return HMW_DONE;
}


/* One round trip for up to HMW_WRITES buckets. */

hmw_result_t
hmw_rollup_flush(hmw_rollup_t *r)
{
    bool                failed;
    char                insert[16], update[16];
    unsigned            i;
    PGconn             *conn = r->w->db.conn;
    PGresult           *res;
    ExecStatusType      status;
    static const char   insert_sql[] =
        "insert into health_metrics_aggregation (id, aggregates, dek_version,"
        " start, user_id, metric, slug_index, bucket) values ($1::uuid,"
        " $2::bytea, $3::int4, $4::timestamptz, $5::uuid, $6::text,"
        " decode($7::text, 'hex'), $8::text)";
    static const char   update_sql[] =
        "update health_metrics_aggregation set aggregates = $2::bytea,"
        " dek_version = $3::int4, updated_at = now(), version = version + 1"
        " where id = $1::uuid";

    if (r->nwrites == 0) {
        return HMW_DONE;
    }

    if (hmw_db_prepare(&r->w->db, insert_sql, 8, insert) != HM_OK
        || hmw_db_prepare(&r->w->db, update_sql, 3, update) != HM_OK)
    {
        return HMW_RETRY;
    }

    failed = !PQenterPipelineMode(conn);

    for (i = 0; i < r->nwrites && !failed; i++) {
        failed = !hmw_rollup_send(r, &r->writes[i],
                                  r->writes[i].update ? update : insert);
    }

    r->nwrites = 0;

    if (failed || !PQpipelineSync(conn)) {
        hmw_db_close(&r->w->db);         /* half a pipeline: not mendable */
        return HMW_LOST;
    }

    for ( ;; ) {
        res = PQgetResult(conn);

        if (res == NULL) {
            if (!hmw_db_up(&r->w->db)) {
                return HMW_LOST;
            }

            continue;                    /* the end of one statement */
        }

        status = PQresultStatus(res);

        if (status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_SYNC
            && status != PGRES_PIPELINE_ABORTED)
        {
            hmw_db_note(&r->w->db, "bucket", res);
            failed = true;
        }

        failed = failed || status == PGRES_PIPELINE_ABORTED;
        PQclear(res);

        if (status == PGRES_PIPELINE_SYNC) {
            break;
        }
    }

    if (!PQexitPipelineMode(conn)) {
        hmw_db_close(&r->w->db);
        return HMW_LOST;
    }

    return failed ? HMW_RETRY : HMW_DONE;
}


static int
hmw_rollup_send(hmw_rollup_t *r, hmw_write_t *write, const char *name)
{
    static const int    formats[] = { 1, 1, 1, 1, 0, 0, 0, 0 };

    const int           lengths[] = { 16, (int) write->len, 4, 8, 0, 0, 0,
                                      0 };
    const char *const   values[] = {
        (char *) write->id, (char *) write->sealed,
        (char *) write->dek_version, (char *) write->start,
        r->job->subject, r->key.metric, r->key.slug_hex,
        hmw_units[write->unit]
    };

    return PQsendQueryPrepared(r->w->db.conn, name, write->update ? 3 : 8,
                               values, lengths, formats, 0);
}


/* Buckets that lost their last reading. */

hmw_result_t
hmw_rollup_empty(hmw_rollup_t *r)
{
    char         id[HM_UUID_TEXT + 1];
    unsigned     k;
    const char  *values[1] = { id };

    for (k = 0; k < r->ntargets; k++) {
        if (!r->targets[k].exists || r->targets[k].written) {
            continue;
        }

        hm_uuid_format(&r->targets[k].id, id);
        id[HM_UUID_TEXT] = '\0';

        if (hmw_db_do(&r->w->db, "empty",
                      "delete from health_metrics_aggregation where id = $1",
                      1, values) != HM_OK)
        {
            return HMW_RETRY;
        }
    }

    return HMW_DONE;
}


static void *
hmw_scratch(void *ctx, size_t size)
{
    size_t          at;
    hmw_scratch_t  *s = ctx;

    at = (*s->used + 15) & ~(size_t) 15;

    if (size > s->size || at > s->size - size) {
        return NULL;
    }

    *s->used = at + size;

    return s->room + at;
}
