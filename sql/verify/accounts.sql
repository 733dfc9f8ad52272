-- Verify healthmate:accounts on pg

BEGIN;

DO $$
DECLARE
    rel   text;
    bad   text;
BEGIN
    FOREACH rel IN ARRAY ARRAY['users', 'user_keys', 'user_index_keys',
        'sessions', 'revocations', 'user_preferences',
        'user_health_profiles', 'care_relationships', 'consents',
        'break_glass_grants']
    LOOP
        ASSERT (SELECT relrowsecurity AND relforcerowsecurity
                       AND relowner = 'hm_owner'::regrole
                  FROM pg_class WHERE oid = ('public.' || rel)::regclass),
            rel || ' is not fenced';
        ASSERT EXISTS (SELECT FROM pg_policy
                        WHERE polrelid = ('public.' || rel)::regclass),
            rel || ' has no policy';
    END LOOP;

    SELECT string_agg(proname, ', ') INTO bad FROM pg_proc
     WHERE proname IN ('hm_may', 'hm_is_admin', 'hm_login_lookup',
                       'hm_session_lookup')
       AND NOT (prosecdef AND proowner = 'hm_definer'::regrole
                AND proconfig::text LIKE '%search_path=pg_catalog, public%');
    ASSERT bad IS NULL, 'not safe: ' || bad;
    ASSERT (SELECT count(*) FROM pg_proc
             WHERE proname IN ('hm_may', 'hm_is_admin', 'hm_login_lookup',
                               'hm_session_lookup')) = 4;

    ASSERT hm_may(gen_random_uuid(), gen_random_uuid(), 'read') = false,
        'a stranger may read';
    ASSERT hm_may(NULL, gen_random_uuid(), 'read') IS NULL,
        'nobody may read';
    ASSERT (SELECT count(*) FROM system_actors) >= 3;
    ASSERT (SELECT value FROM hm_settings WHERE name = 'admin_phi')
           IN ('all', 'break_glass');
    ASSERT NOT has_column_privilege('hm_api', 'users', 'id', 'UPDATE');
    ASSERT NOT has_table_privilege('hm_api', 'break_glass_grants', 'INSERT');
END
$$;

ROLLBACK;
