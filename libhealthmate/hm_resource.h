/*
 * hm_resource: a resource is a table row in C.
 *
 * One hm_resource_t says everything about a kind of record: its table, its
 * fields, which of them are sealed, what may be filtered, what a client may
 * write.  The interpreter below turns it into validation, SQL texts, sealing
 * and opening, JSON and OpenAPI.  Adding a resource is one migration and one
 * descriptor (resources/NAME.c), and no new code path.
 *
 * A record in memory is hm_record_t: the common columns and one hm_value_t
 * for each field.  The text of a sealed field is the JSON that is sealed, so
 * an opened field is copied into the answer as it is.
 *
 * Hooks are few and named:
 *   prepare   derive and normalise after the table's own checks (metric
 *             values and units); may add faults
 *   index     blind indexes, once the owner's index key is at hand
 *   shown     after opening, before the record is written as JSON
 */

#ifndef HM_RESOURCE_H
#define HM_RESOURCE_H

#include <jansson.h>
#include "hm.h"
#include "hm_buf.h"
#include "hm_fault.h"
#include "hm_crypto.h"
#include "hm_keyring.h"

#define HM_FIELDS_MAX     16
#define HM_LEAF_NAME      64


typedef enum {
    HM_T_TEXT = 0,
    HM_T_TIME,
    HM_T_REAL,
    HM_T_JSON,                   /* any JSON; `prepare` judges it */
    HM_T_BYTES                   /* blind indexes, never shown */
} hm_type_t;

#define HM_F_REQUIRED    0x0001
#define HM_F_READ_ONLY   0x0002  /* shown, refused in a body */
#define HM_F_IMMUTABLE   0x0004  /* may not change after creation */
#define HM_F_SEALED      0x0008
#define HM_F_WRITE_ONLY  0x0010  /* taken, never shown */
#define HM_F_INTERNAL    0x0020  /* neither taken nor shown */
#define HM_F_NAME        0x0040  /* a short text: at most 200 characters */


typedef struct {
    const char   *name;          /* JSON member and column */
    hm_type_t     type;
    unsigned      flags;
    double        min;           /* numbers; characters of a text */
    double        max;
    const char   *meaning;       /* one line, for OpenAPI */
    const char   *with;          /* a PATCH changes it only together with
                                    that member; derived ones then, too */
} hm_field_t;


/*
 * Is its column needed to show a record?  Not what is only taken or looked
 * for.  A sealed internal one is: `shown` makes visible members of it.
 */
static inline bool
hm_field_shown(const hm_field_t *fd)
{
    return !(fd->flags & HM_F_WRITE_ONLY) && fd->type != HM_T_BYTES;
}


typedef struct {
    unsigned      set:1;         /* has a value, is not null */
    unsigned      sent:1;        /* was a member of the body */
    hm_str_t      text;          /* text, bytes, or JSON of a sealed field */
    hm_str_t      sealed;        /* envelope to store, or as stored */
    hm_usec_t     time;
    double        real;
} hm_value_t;


typedef struct {
    hm_uuid_t     id;
    hm_uuid_t     user_id;
    uint32_t      dek_version;
    uint32_t      version;
    hm_usec_t     created_at;
    hm_usec_t     updated_at;
    hm_value_t    v[HM_FIELDS_MAX];
} hm_record_t;


typedef struct hm_resource_s  hm_resource_t;

struct hm_resource_s {
    const char         *name;          /* also the AAD's table */
    const char         *table;
    unsigned            leaves;        /* 0: one table, else <table>_pN */
    unsigned            audit_of;      /* hm_audit_resource_t */
    const char         *path;          /* under /api/v1 */
    const char         *title;         /* of the OpenAPI schema */
    const hm_field_t   *fields;
    unsigned            nfields;
    unsigned            time_field;    /* newest first means this one */
    const char         *conflict;      /* ON CONFLICT columns, or NULL */
    const char         *job_kind;      /* left by each write, or NULL */
    const char         *job_key;       /* SQL of its unique key */
    const char         *filter;        /* column a list can be cut down to */
    const char         *kind;          /* column that names the kind, */
    const char         *subkind;       /* a blind index within one kind, */
    const char         *subkind_of;    /* and that kind; see `latest` */

    void (*prepare)(const hm_resource_t *res, hm_mem_t *mem, hm_record_t *rec,
        json_t *body, const hm_record_t *old, hm_usec_t now, hm_faults_t *f,
        hm_str_t prefix);
    hm_rc_t (*index)(const hm_resource_t *res, hm_mem_t *mem,
        hm_record_t *rec, const hm_user_keys_t *keys);
    hm_rc_t (*shown)(const hm_resource_t *res, hm_mem_t *mem,
        hm_record_t *rec);
};

extern const hm_resource_t  hm_health_data;

/* Fields of hm_health_data, in the order of its table. */
enum {
    HM_HD_DATA_TYPE = 0, HM_HD_VALUE, HM_HD_UNIT, HM_HD_ORIGINAL,
    HM_HD_TIMESTAMP, HM_HD_NOTES, HM_HD_SOURCE, HM_HD_SOURCE_ID,
    HM_HD_CONFIDENCE, HM_HD_CUSTOM, HM_HD_SLUG_INDEX, HM_HD_DEDUP_KEY,
    HM_HD_NFIELDS
};


/*
 * Reads a body into rec.  With old NULL it is a creation; else the body is
 * the whole new state (PUT, or PATCH after merging) and immutable members
 * must not differ.  Every fault is added, under the prefix ("" or "/2").
 * HM_OK: no fault was added.
 */
hm_rc_t hm_resource_read(const hm_resource_t *res, hm_mem_t *mem,
    hm_record_t *rec, json_t *body, const hm_record_t *old, hm_usec_t now,
    hm_faults_t *f, hm_str_t prefix);

/* Flags of a member a body may name, or -1 when there is no such member. */
int hm_resource_member(const hm_resource_t *res, const char *name);

/* The body that would write the record as it is (the base of a PATCH). */
json_t *hm_resource_body(const hm_resource_t *res, hm_mem_t *mem,
    const hm_record_t *rec);

/* RFC 7396: patch merged into base, both kept by the caller. */
json_t *hm_merge_patch(json_t *base, json_t *patch);

/* Blind indexes and envelopes of all sealed fields, under the active DEK. */
hm_rc_t hm_resource_seal(const hm_resource_t *res, hm_mem_t *mem,
    hm_record_t *rec, const hm_user_keys_t *keys);

/*
 * Opens all sealed fields (HM_DECLINED: a ciphertext does not belong here).
 */
hm_rc_t hm_resource_open(const hm_resource_t *res, hm_mem_t *mem,
    hm_record_t *rec, const unsigned char *dek);

void hm_resource_json(const hm_resource_t *res, hm_buf_t *b,
    const hm_record_t *rec);


/*
 * SQL.  Parameters of the writing statements stand in this order:
 *   1 id  2 user_id  3 dek_version  4 now  5.. one for each field
 * then HM_SQL_TAIL ones for the audit row and the job (hm_sql_tail_t).
 * Result columns of all reading statements: id, user_id, dek_version,
 * version, created_at, updated_at, then the fields.
 */
typedef enum {
    HM_SQL_GET = 0,              /* 1 user_id  2 id */
    HM_SQL_GET_MANY,             /* the same of several people: arrays */
    HM_SQL_LIST_DESC,            /* 1 user_id 2 time 3 id 4 from 5 limit */
    HM_SQL_LIST_ASC,             /* 1 user_id 2 time 3 id 4 to   5 limit */
    HM_SQL_LIST_DESC_FILTER,     /* the same and 6 of the filter */
    HM_SQL_LIST_ASC_FILTER,
    HM_SQL_LIST_DESC_KINDS,      /* 6 kinds[] 7 sub-kinds[] 8 filter or NULL */
    HM_SQL_LIST_ASC_KINDS,
    HM_SQL_INSERT,
    HM_SQL_UPDATE,
    HM_SQL_DELETE,
    HM_SQL_INSERT_MANY,          /* an insert's, of several people */
    HM_SQL_BATCH,
    HM_SQL_LATEST,               /* 1 user_id 2 kinds[] */
    HM_SQL_IDEM,                 /* see hm_sql_idem() */
    HM_SQL_LAST
} hm_sql_t;

/* Offsets behind the last field's parameter. */
enum {
    HM_TAIL_SHARD = 0, HM_TAIL_SEQ, HM_TAIL_ACTOR, HM_TAIL_SESSION,
    HM_TAIL_ROLE, HM_TAIL_PURPOSE, HM_TAIL_ORIGIN, HM_TAIL_JOB,
    HM_TAIL_LAST
};

#define HM_ROW_COMMON    6       /* result columns before the fields */

hm_rc_t hm_resource_sql(const hm_resource_t *res, hm_buf_t *b, hm_sql_t kind,
    unsigned leaf);

#endif
