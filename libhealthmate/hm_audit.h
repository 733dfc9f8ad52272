/*
 * hm_audit: what one audit record says, and the fixed binary layout (v1)
 * that its Merkle leaf hashes.
 *
 * Leaf v1 = SHA-256(00 | "hmaudit1" | shard 16 | seq u64be | at i64be |
 *   u16 action | u16 resource | u16 outcome | u8 role | u8 purpose |
 *   actor 16 | session 16 | subject 16 | first 16 | last 16 | items u32be |
 *   u32be len, origin)
 * with the nil UUID where a column is NULL.  `origin` is the sealed document
 * {"address","request_id","reason"}: the leaf hashes its ciphertext, so that
 * destroying its key breaks no proof.
 */

#ifndef HM_AUDIT_H
#define HM_AUDIT_H

#include "hm.h"

/* Numbers are contract: never reuse, only append. */
#define HM_AUDIT_ACTIONS(X)                                                   \
    X(1, READ, "read")        X(2, LIST, "list")      X(3, CREATE, "create")  \
    X(4, UPDATE, "update")    X(5, DELETE, "delete")  X(6, LOGIN, "login")    \
    X(7, REGISTER, "register") X(8, LOGOUT, "logout")                         \
    X(9, EXPORT, "export")    X(10, JOB, "job")       X(11, CLI, "cli")       \
    X(12, IMPORT, "import")   X(13, REFRESH, "refresh")                       \
    X(14, REAUTH, "reauth")                                                   \
    X(100, VOID, "void")      X(101, CLOSED, "closed")

#define HM_AUDIT_RESOURCES(X)                                                 \
    X(0, NONE, "none")        X(1, HEALTH_DATA, "health_data")                \
    X(2, USER, "user")        X(3, SESSION, "session")                        \
    X(4, ANALYTICS, "analytics") X(5, KEY, "key")     X(6, JOB, "job")        \
    X(20, FACTOR, "factor")   X(21, CONSENT, "consent")                       \
    X(22, BREAK_GLASS, "break_glass")                                         \
    X(23, PREFERENCES, "preferences")                                         \
    X(24, HEALTH_PROFILE, "health_profile")                                   \
    X(25, ACCESS_LOG, "access_log")                                           \
    X(26, CARE, "care_relationship")

typedef enum {
#define X(n, id, name)  HM_AUDIT_##id = n,
    HM_AUDIT_ACTIONS(X)
#undef X
} hm_audit_action_t;

typedef enum {
#define X(n, id, name)  HM_AUDIT_OF_##id = n,
    HM_AUDIT_RESOURCES(X)
#undef X
} hm_audit_resource_t;

typedef enum { HM_PURPOSE_CARE = 0, HM_PURPOSE_SELF = 1, HM_PURPOSE_ADMIN = 2,
               HM_PURPOSE_BREAK_GLASS = 3, HM_PURPOSE_SYSTEM = 4 }
    hm_audit_purpose_t;

typedef struct {
    hm_uuid_t   shard;
    uint64_t    seq;
    hm_usec_t   at;
    uint16_t    action;
    uint16_t    resource;
    uint16_t    outcome;                 /* HTTP status */
    uint8_t     role;                    /* hm_role_t */
    uint8_t     purpose;
    hm_uuid_t   actor;
    hm_uuid_t   session;
    hm_uuid_t   subject;                 /* audit_logs.user_id */
    hm_uuid_t   first;                   /* record, or first of a list */
    hm_uuid_t   last;
    uint32_t    items;
    hm_str_t    origin;                  /* sealed; data NULL: none */
} hm_audit_row_t;

hm_rc_t hm_audit_leaf(unsigned char out[32], const hm_audit_row_t *row);
const char *hm_audit_purpose_name(unsigned purpose);
const char *hm_audit_action_name(unsigned action);
const char *hm_audit_resource_name(unsigned resource);

#endif
