/*
 * hm_perm: who may do what, and to whom: api.md's table of permissions.
 *
 * DESIGN
 *
 * One table, role x permission -> reach.  The gateway asks it once per
 * request, before any query, and the worker once per claim.  A reach says
 * how far a role's permission goes; whether a certain doctor is assigned to
 * a certain patient, whether a consent stands and whether an administrator
 * has broken the glass is read from the database in the transaction that
 * reads the data (hm_may), so the table never grants what a row has ended.
 *
 * Chat, export and erasure reach the caller's own data only, for everybody:
 * nobody talks, carries away or destroys in another person's name.  The
 * analytics of a named person are that person's data, so they reach as far
 * as reading does; figures of a population are another question, answered
 * k-anonymously by its own endpoint.
 *
 * What is not in the table is denied: an unknown role or permission has the
 * reach HM_REACH_NO.
 */

#include "hm_perm.h"


#define HM_NROLES   (HM_ROLE_RESEARCHER + 1)


static const char *const  hm_perm_names[HM_PERM_LAST] = {
    [HM_PERM_NONE]             = "none",
    [HM_PERM_SELF]             = "self",
    [HM_PERM_HEALTH_READ]      = "health.read",
    [HM_PERM_HEALTH_WRITE]     = "health.write",
    [HM_PERM_ANALYTICS_READ]   = "analytics.read",
    [HM_PERM_CHAT]             = "chat",
    [HM_PERM_EXPORT]           = "export",
    [HM_PERM_ERASE]            = "erase",
    [HM_PERM_USERS_ADMIN]      = "users.admin",
    [HM_PERM_COMPLIANCE_ADMIN] = "compliance.admin",
    [HM_PERM_AUDIT_ADMIN]      = "audit.admin",
    [HM_PERM_JOBS_ADMIN]       = "jobs.admin",
    [HM_PERM_KEYS_ADMIN]       = "keys.admin",
    [HM_PERM_CARE]             = "care",
    [HM_PERM_PATIENTS]         = "patients",
    [HM_PERM_BREAK_GLASS]      = "break_glass"
};


#define NO    HM_REACH_NO
#define OWN   HM_REACH_OWN
#define ASGN  HM_REACH_ASSIGNED
#define ALL   HM_REACH_ALL

static const unsigned char  hm_perm_table[HM_PERM_LAST][HM_NROLES] = {

    /*                            none, patient, doctor, admin, researcher */

    [HM_PERM_NONE]             = { OWN, OWN,     OWN,    OWN,   OWN },
    [HM_PERM_SELF]             = { NO,  OWN,     OWN,    OWN,   OWN },
    [HM_PERM_HEALTH_READ]      = { NO,  OWN,     ASGN,   ALL,   OWN },
    [HM_PERM_HEALTH_WRITE]     = { NO,  OWN,     ASGN,   ALL,   OWN },
    [HM_PERM_ANALYTICS_READ]   = { NO,  OWN,     ASGN,   ALL,   OWN },
    [HM_PERM_CHAT]             = { NO,  OWN,     OWN,    OWN,   OWN },
    [HM_PERM_EXPORT]           = { NO,  OWN,     OWN,    OWN,   OWN },
    [HM_PERM_ERASE]            = { NO,  OWN,     OWN,    OWN,   OWN },
    [HM_PERM_USERS_ADMIN]      = { NO,  NO,      NO,     ALL,   NO },
    [HM_PERM_COMPLIANCE_ADMIN] = { NO,  NO,      NO,     ALL,   NO },
    [HM_PERM_AUDIT_ADMIN]      = { NO,  NO,      NO,     ALL,   NO },
    [HM_PERM_JOBS_ADMIN]       = { NO,  NO,      NO,     ALL,   NO },
    [HM_PERM_KEYS_ADMIN]       = { NO,  NO,      NO,     ALL,   NO },
    [HM_PERM_CARE]             = { NO,  OWN,     OWN,    ALL,   OWN },
    [HM_PERM_PATIENTS]         = { NO,  NO,      OWN,    NO,    NO },
    [HM_PERM_BREAK_GLASS]      = { NO,  NO,      OWN,    OWN,   NO }
};

#undef NO
#undef OWN
#undef ASGN
#undef ALL


hm_reach_t
hm_perm_reach(hm_role_t role, hm_perm_t perm)
{
    if ((unsigned) role >= HM_NROLES || (unsigned) perm >= HM_PERM_LAST) {
        return HM_REACH_NO;
    }

    return (hm_reach_t) hm_perm_table[perm][role];
}


const char *
hm_perm_name(hm_perm_t perm)
{
    if ((unsigned) perm >= HM_PERM_LAST) {
        return "unknown";
    }

    return hm_perm_names[perm];
}
