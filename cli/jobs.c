/*
 * jobs: how many jobs of which kind are in which state; `jobs`.
 *
 * Counts only, by a function of the database that may see past row-level
 * security and tells nothing about whom a job is for.
 */

#include <stdio.h>

#include "cli.h"


static void
hmc_jobs_json(PGresult *result)
{
    int       i;
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, 1024);
    hm_buf_lit(&b, "{\"jobs\":[");

    for (i = 0; i < PQntuples(result); i++) {
        hm_buf_printf(&b, "%s{\"kind\":", i != 0 ? "," : "");
        hm_json_text(&b, hmc_str(PQgetvalue(result, i, 0)));
        hm_buf_lit(&b, ",\"state\":");
        hm_json_text(&b, hmc_str(PQgetvalue(result, i, 1)));
        hm_buf_printf(&b, ",\"count\":%s}", PQgetvalue(result, i, 2));
    }

    hm_buf_lit(&b, "]}");

    printf("%.*s\n", (int) hm_buf_len(&b), b.start);
}


int
hmc_jobs(int argc, char **argv)
{
    int        i;
    bool       json;
    hmc_db_t   db;
    PGresult  *result;

    const hmc_option_t  options[] = {
        { "--json", NULL, &json },
        { NULL, NULL, NULL }
    };

    json = false;

    if (hmc_options(argc, argv, options, NULL, 0) != HMC_DONE) {
        return HMC_USAGE;
    }

    result = NULL;

    if (hmc_db_open(&db, false) == HM_OK) {
        result = hmc_db_query(&db,
            "select kind, state, jobs from hm_job_counts() order by 1, 2",
            NULL);
    }

    if (result == NULL) {
        hmc_fail("%s", db.error);
        hmc_db_close(&db);
        return HMC_FAILED;
    }

    if (json) {
        hmc_jobs_json(result);

    } else if (PQntuples(result) == 0) {
        puts("no job is waiting, running or dead");

    } else {
        for (i = 0; i < PQntuples(result); i++) {
            printf("%-24s %-10s %s\n", PQgetvalue(result, i, 0),
                   PQgetvalue(result, i, 1), PQgetvalue(result, i, 2));
        }
    }

    PQclear(result);
    hmc_db_close(&db);

    return HMC_DONE;
}
