/*
 * hm_audit: names of audit actions, and the Merkle leaf of one record.
 *
 * The layout is a contract with every proof ever given out: it is version 1
 * for ever, and a change is a new version beside it ("hmaudit2").  The first
 * byte 00 says "leaf" (RFC 6962), so that no inner node (01) can be passed
 * off as a record.  Every field has a fixed width and the only text carries
 * its length, so two different records never share their bytes.
 */

#include <stdlib.h>

#include "hm_audit.h"
#include "hm_crypto.h"


#define HM_LEAF_FIXED     (1 + 8 + 16 + 8 + 8 + 6 + 2 + 5 * 16 + 4 + 4)
#define HM_LEAF_STACK     1024
#define HM_ORIGIN_MAX     65536


static unsigned char *hm_leaf_uint(unsigned char *p, uint64_t n,
    unsigned bytes);
static unsigned char *hm_leaf_uuid(unsigned char *p, const hm_uuid_t *id);
static size_t hm_leaf_write(unsigned char *p, const hm_audit_row_t *row);


hm_rc_t
hm_audit_leaf(unsigned char out[32], const hm_audit_row_t *row)
{
    size_t          len;
    hm_rc_t         rc;
    unsigned char   stack[HM_LEAF_STACK], *p;

    len = row->origin.data != NULL ? row->origin.len : 0;

    if (len > HM_ORIGIN_MAX) {
        return HM_ERROR;
    }

    p = stack;

    if (HM_LEAF_FIXED + len > sizeof(stack)) {
        p = malloc(HM_LEAF_FIXED + len);
        if (p == NULL) {
            return HM_ERROR;
        }
    }

    len = hm_leaf_write(p, row);
    rc = hm_sha256(out, p, len);

    if (p != stack) {
        free(p);
    }

    return rc;
}


static size_t
hm_leaf_write(unsigned char *p, const hm_audit_row_t *row)
{
    size_t          len;
    unsigned char  *start;

    start = p;
    len = row->origin.data != NULL ? row->origin.len : 0;

    *p++ = 0;
    memcpy(p, "hmaudit1", 8);
    p += 8;

    p = hm_leaf_uuid(p, &row->shard);
    p = hm_leaf_uint(p, row->seq, 8);
    p = hm_leaf_uint(p, (uint64_t) row->at, 8);
    p = hm_leaf_uint(p, row->action, 2);
    p = hm_leaf_uint(p, row->resource, 2);
    p = hm_leaf_uint(p, row->outcome, 2);
    p = hm_leaf_uint(p, row->role, 1);
    p = hm_leaf_uint(p, row->purpose, 1);
    p = hm_leaf_uuid(p, &row->actor);
    p = hm_leaf_uuid(p, &row->session);
    p = hm_leaf_uuid(p, &row->subject);
    p = hm_leaf_uuid(p, &row->first);
    p = hm_leaf_uuid(p, &row->last);
    p = hm_leaf_uint(p, row->items, 4);
    p = hm_leaf_uint(p, len, 4);

    if (len != 0) {
        memcpy(p, row->origin.data, len);
        p += len;
    }

    return (size_t) (p - start);
}


static unsigned char *
hm_leaf_uint(unsigned char *p, uint64_t n, unsigned bytes)
{
    while (bytes > 0) {
        bytes--;
        *p++ = (unsigned char) (n >> (8 * bytes));
    }

    return p;
}


static unsigned char *
hm_leaf_uuid(unsigned char *p, const hm_uuid_t *id)
{
    memcpy(p, id->b, 16);

    return p + 16;
}


/* Numbers come from the database too: an unknown one has a name as well. */

const char *
hm_audit_action_name(unsigned action)
{
    switch (action) {
#define X(n, id, name)  case n: return name;
    HM_AUDIT_ACTIONS(X)
#undef X
    default:
        return "unknown";
    }
}


const char *
hm_audit_resource_name(unsigned resource)
{
    switch (resource) {
#define X(n, id, name)  case n: return name;
    HM_AUDIT_RESOURCES(X)
#undef X
    default:
        return "unknown";
    }
}


const char *
hm_audit_purpose_name(unsigned purpose)
{
    static const char *const  names[] = {
        "care", "self", "admin", "break_glass", "system"
    };

    return purpose < sizeof(names) / sizeof(names[0]) ? names[purpose]
                                                      : "unknown";
}
