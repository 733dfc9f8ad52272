/*
 * sql: the statements of health data as the module prepares them.
 *
 * One line for each: kind, leaf, text, split by tabs.  bench/run turns their
 * parameters into pgbench's variables, so that the floors run the module's
 * own statements and cannot drift away from them.
 */

#include <stdio.h>
#include <stdlib.h>

#include "hm_resource.h"


static const struct {
    const char  *name;
    hm_sql_t     kind;
} bn_kinds[] = {
    { "get", HM_SQL_GET },
    { "list", HM_SQL_LIST_DESC },
    { "insert", HM_SQL_INSERT }
};


int
main(void)
{
    size_t    i;
    unsigned  leaf;
    hm_buf_t  b;

    for (i = 0; i < sizeof(bn_kinds) / sizeof(bn_kinds[0]); i++) {
        for (leaf = 0; leaf < hm_health_data.leaves; leaf++) {
            hm_buf_init(&b, &hm_heap, 4096);

            if (hm_resource_sql(&hm_health_data, &b, bn_kinds[i].kind, leaf)
                != HM_OK)
            {
                return 1;
            }

            printf("%s\t%u\t%s\n", bn_kinds[i].name, leaf,
                   (char *) b.start);
        }
    }

    return 0;
}
