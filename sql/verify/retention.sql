-- Verify healthmate:retention on pg

BEGIN;

DO $$
DECLARE
    leaf  regclass;
BEGIN
    ASSERT (SELECT count(*) FROM retention_policies
             WHERE category IN ('health_data', 'audit')
               AND keep >= interval '6 years') = 2, 'a period is missing';

    -- Deleting for age is the system actor's, and only past the line.
    FOR leaf IN
        SELECT 'public.health_data'::regclass
        UNION ALL
        SELECT inhrelid FROM pg_inherits
         WHERE inhparent = 'public.health_data'::regclass
    LOOP
        ASSERT EXISTS (
            SELECT FROM pg_policy
             WHERE polrelid = leaf AND polname = 'health_data_old'
               AND polcmd = 'd' AND polroles = ARRAY['hm_worker'::regrole::oid]
               AND pg_get_expr(polqual, polrelid) LIKE '%created_at <%'),
            leaf || ' cannot age';
    END LOOP;

    ASSERT (SELECT NOT prosecdef FROM pg_proc
             WHERE proname = 'hm_retention_run'), 'retention runs as owner';
    ASSERT NOT has_function_privilege('hm_api', 'hm_retention_run(int)',
                                      'EXECUTE');
END
$$;

ROLLBACK;
