/*
 * hm_perm: role x permission x reach, one table for the gateway and the
 * worker.  Relationship and consent are not here: they are read from the
 * database with the data (hm_may), so that an ended assignment bites at once.
 */

#ifndef HM_PERM_H
#define HM_PERM_H

#include "hm.h"
#include "hm_jwt.h"

typedef enum {
    HM_PERM_NONE = 0,                    /* anybody, no token */
    HM_PERM_SELF,                        /* any valid token */
    HM_PERM_HEALTH_READ,
    HM_PERM_HEALTH_WRITE,
    HM_PERM_ANALYTICS_READ,
    HM_PERM_CHAT,
    HM_PERM_EXPORT,
    HM_PERM_ERASE,
    HM_PERM_USERS_ADMIN,
    HM_PERM_COMPLIANCE_ADMIN,
    HM_PERM_AUDIT_ADMIN,
    HM_PERM_JOBS_ADMIN,
    HM_PERM_KEYS_ADMIN,
    HM_PERM_CARE,                        /* relationships */
    HM_PERM_PATIENTS,                    /* whom a doctor treats */
    HM_PERM_BREAK_GLASS,
    HM_PERM_LAST
} hm_perm_t;

typedef enum {
    HM_REACH_NO = 0,
    HM_REACH_OWN,                        /* naming another person is 403 */
    HM_REACH_ASSIGNED,                   /* another: if hm_may says so, 404 */
    HM_REACH_ALL,                        /* admin; break-glass narrows it */
} hm_reach_t;

hm_reach_t hm_perm_reach(hm_role_t role, hm_perm_t perm);
const char *hm_perm_name(hm_perm_t perm);

#endif
