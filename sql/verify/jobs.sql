-- Verify healthmate:jobs on pg

BEGIN;

DO $$
DECLARE
    rel  text;
BEGIN
    FOREACH rel IN ARRAY ARRAY['jobs', 'idempotency_keys'] LOOP
        ASSERT (SELECT relrowsecurity AND relforcerowsecurity
                       AND relowner = 'hm_owner'::regrole
                  FROM pg_class WHERE oid = ('public.' || rel)::regclass),
            rel || ' is not fenced';
    END LOOP;

    ASSERT (SELECT indisunique AND pg_get_expr(indpred, indrelid) IS NOT NULL
              FROM pg_index
             WHERE indexrelid = 'public.jobs_unique_key'::regclass),
        'jobs do not coalesce';
    ASSERT NOT has_column_privilege('hm_worker', 'jobs', 'requester',
                                    'UPDATE'), 'the requester can change';
    ASSERT NOT has_any_column_privilege('hm_api', 'jobs', 'UPDATE');
    ASSERT (SELECT prosecdef AND proowner = 'hm_definer'::regrole
              FROM pg_proc WHERE proname = 'hm_job_counts');
END
$$;

SELECT name, tick FROM job_ticks WHERE false;
SELECT name, kind, every, last_tick FROM job_schedules WHERE false;

ROLLBACK;
