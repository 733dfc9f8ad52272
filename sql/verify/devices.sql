-- Verify healthmate:devices on pg

BEGIN;

DO $$
BEGIN
    ASSERT (SELECT count(*) = 1 AND bool_and(prosecdef
                   AND proowner = 'hm_definer'::regrole
                   AND proconfig::text LIKE '%search_path=pg_catalog, public%')
              FROM pg_proc WHERE proname = 'hm_device_ended'
               AND pronamespace = 'public'::regnamespace),
        'hm_device_ended is not safe';
    ASSERT NOT hm_device_ended(gen_random_uuid(), gen_random_uuid());
    ASSERT has_column_privilege('hm_api', 'sessions', 'device_id', 'INSERT')
           AND NOT has_column_privilege('hm_api', 'sessions', 'device_id',
                                        'UPDATE'),
        'a session is not given to another device';
END
$$;

ROLLBACK;
