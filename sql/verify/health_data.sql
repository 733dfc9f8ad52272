-- Verify healthmate:health_data on pg

BEGIN;

DO $$
DECLARE
    leaf   regclass;
    owner  uuid;
    n      int := 0;
BEGIN
    FOR leaf IN
        SELECT 'public.health_data'::regclass
        UNION ALL
        SELECT inhrelid FROM pg_inherits
         WHERE inhparent = 'public.health_data'::regclass
        UNION ALL
        SELECT 'public.health_metrics_aggregation'::regclass
    LOOP
        n := n + 1;
        ASSERT (SELECT relrowsecurity AND relforcerowsecurity
                       AND relowner = 'hm_owner'::regrole
                  FROM pg_class WHERE oid = leaf), leaf || ' is not fenced';
        ASSERT (SELECT count(*) FROM pg_policy WHERE polrelid = leaf) >= 5,
            leaf || ' lacks policies';
        ASSERT NOT has_column_privilege('hm_api', leaf, 'user_id', 'UPDATE'),
            leaf || ' lets a row change hands';
    END LOOP;
    ASSERT n = 10, 'there are not eight leaves';

    FOR i IN 1..64 LOOP
        owner := gen_random_uuid();
        ASSERT satisfies_hash_partition('public.health_data'::regclass, 8,
                                        hm_leaf(owner), owner),
            'hm_leaf disagrees with the partitions';
    END LOOP;
END
$$;

ROLLBACK;
