/*
 * hm_row: typed getters over one row of a binary PGresult.  This is the one
 * header of the library that knows libpq; it is header-only so that the
 * library itself does not link it.
 */

#ifndef HM_ROW_H
#define HM_ROW_H

#include <libpq-fe.h>
#include "hm.h"
#include "hm_time.h"
#include "hm_resource.h"


static inline uint32_t
hm_get_u32(const void *p)
{
    const unsigned char  *b = p;

    return (uint32_t) b[0] << 24 | (uint32_t) b[1] << 16
           | (uint32_t) b[2] << 8 | b[3];
}


static inline uint64_t
hm_get_u64(const void *p)
{
    return (uint64_t) hm_get_u32(p) << 32
           | hm_get_u32((const unsigned char *) p + 4);
}


static inline void
hm_put_u16(void *p, uint16_t n)
{
    unsigned char  *b = p;

    b[0] = (unsigned char) (n >> 8);
    b[1] = (unsigned char) n;
}


static inline void
hm_put_u32(void *p, uint32_t n)
{
    unsigned char  *b = p;

    b[0] = (unsigned char) (n >> 24);
    b[1] = (unsigned char) (n >> 16);
    b[2] = (unsigned char) (n >> 8);
    b[3] = (unsigned char) n;
}


static inline void
hm_put_u64(void *p, uint64_t n)
{
    hm_put_u32(p, (uint32_t) (n >> 32));
    hm_put_u32((unsigned char *) p + 4, (uint32_t) n);
}


static inline void
hm_put_time(void *p, hm_usec_t t)
{
    hm_put_u64(p, (uint64_t) (t - HM_PG_EPOCH));
}


static inline hm_str_t
hm_row_str(const PGresult *res, int row, int col)
{
    hm_str_t  s;

    if (PQgetisnull(res, row, col)) {
        return hm_null_str;
    }

    s.data = (unsigned char *) PQgetvalue(res, row, col);
    s.len = (size_t) PQgetlength(res, row, col);

    return s;
}


static inline uint32_t
hm_row_u32(const PGresult *res, int row, int col)
{
    return PQgetlength(res, row, col) == 4
           ? hm_get_u32(PQgetvalue(res, row, col)) : 0;
}


static inline uint64_t
hm_row_u64(const PGresult *res, int row, int col)
{
    return PQgetlength(res, row, col) == 8
           ? hm_get_u64(PQgetvalue(res, row, col)) : 0;
}


static inline bool
hm_row_bool(const PGresult *res, int row, int col)
{
    return PQgetlength(res, row, col) == 1 && *PQgetvalue(res, row, col) != 0;
}


static inline hm_usec_t
hm_row_time(const PGresult *res, int row, int col)
{
    if (PQgetlength(res, row, col) != 8) {
        return HM_USEC_NONE;
    }

    return (hm_usec_t) hm_get_u64(PQgetvalue(res, row, col)) + HM_PG_EPOCH;
}


static inline hm_uuid_t
hm_row_uuid(const PGresult *res, int row, int col)
{
    hm_uuid_t  id = { { 0 } };

    if (PQgetlength(res, row, col) == 16) {
        memcpy(id.b, PQgetvalue(res, row, col), 16);
    }

    return id;
}


static inline double
hm_row_real(const PGresult *res, int row, int col)
{
    double    d;
    uint64_t  n;

    n = hm_row_u64(res, row, col);
    memcpy(&d, &n, 8);

    return d;
}


/*
 * Head of a one-dimensional array in binary form, at most 20 bytes; it says
 * that NULLs may come.  The elements follow, each behind its length.
 */
static inline unsigned char *
hm_put_array(unsigned char *p, uint32_t oid, uint32_t n)
{
    hm_put_u32(p, n != 0);
    hm_put_u32(p + 4, 1);
    hm_put_u32(p + 8, oid);

    if (n == 0) {
        return p + 12;
    }

    hm_put_u32(p + 12, n);
    hm_put_u32(p + 16, 1);

    return p + 20;
}


/* One row of a resource's reading statement; texts point into the result. */
static inline void
hm_row_value(const hm_field_t *f, hm_value_t *v, const PGresult *r, int row,
    int col)
{
    if (f->flags & HM_F_SEALED) {
        v->sealed = hm_row_str(r, row, col);
        v->set = v->sealed.data != NULL;
        return;
    }

    if (PQgetisnull(r, row, col)) {
        return;
    }

    v->set = 1;

    switch (f->type) {
    case HM_T_TIME:
        v->time = hm_row_time(r, row, col);
        break;
    case HM_T_REAL:
        v->real = hm_row_real(r, row, col);
        break;
    default:
        v->text = hm_row_str(r, row, col);
    }
}


/* shown: the row has no columns that no answer shows (lists) */
static inline void
hm_row_record(const hm_resource_t *res, hm_record_t *rec, const PGresult *r,
    int row, int col, bool shown)
{
    unsigned           i;
    hm_value_t        *v;
    const hm_field_t  *f;

    rec->id = hm_row_uuid(r, row, col);
    rec->user_id = hm_row_uuid(r, row, col + 1);
    rec->dek_version = hm_row_u32(r, row, col + 2);
    rec->version = hm_row_u32(r, row, col + 3);
    rec->created_at = hm_row_time(r, row, col + 4);
    rec->updated_at = hm_row_time(r, row, col + 5);

    col += HM_ROW_COMMON;

    for (i = 0; i < res->nfields; i++) {
        f = &res->fields[i];
        v = &rec->v[i];
        memset(v, 0, sizeof(*v));

        if (!shown || hm_field_shown(f)) {
            hm_row_value(f, v, r, row, col++);
        }
    }
}

#endif
