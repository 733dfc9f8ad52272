-- Verify healthmate:revocation on pg

BEGIN;

DO $$
DECLARE
    fn   text;
    fns  text[] := ARRAY['hm_revoke', 'hm_may_revoke', 'hm_end_session',
        'hm_end_sessions', 'hm_rights_changed', 'hm_key_changed',
        'hm_session_ended', 'hm_user_rights_changed', 'hm_user_key_changed',
        'hm_session_check'];
BEGIN
    FOREACH fn IN ARRAY fns LOOP
        ASSERT (SELECT count(*) = 1 AND bool_and(prosecdef
                       AND proowner = 'hm_definer'::regrole
                       AND proconfig::text
                           LIKE '%search_path=pg_catalog, public%')
                  FROM pg_proc WHERE proname = fn
                   AND pronamespace = 'public'::regnamespace),
            fn || ' is not safe';
    END LOOP;

    ASSERT (SELECT count(*) FROM pg_trigger
             WHERE tgenabled = 'O' AND tgname IN ('sessions_ended',
                'users_rights_changed', 'user_keys_changed',
                'user_index_keys_changed')) = 4, 'a trigger is missing';
    ASSERT (SELECT relrowsecurity AND relforcerowsecurity FROM pg_class
             WHERE oid = 'public.revocations'::regclass),
        'revocations is not fenced';
    ASSERT NOT has_table_privilege('hm_api', 'revocations', 'SELECT, INSERT'),
        'hm_api writes events past the triggers';
    ASSERT NOT has_function_privilege('hm_api',
        'hm_revoke(text, uuid, uuid, interval)', 'EXECUTE');
    ASSERT hm_session_check(gen_random_uuid(), gen_random_uuid(), 'patient',
                            now()) = 'unknown';
END
$$;

ROLLBACK;
