-- Verify healthmate:context on pg

BEGIN;

DO $$
BEGIN
    ASSERT hm_actor() IS NULL, 'an unset context names someone';
    PERFORM set_config('hm.actor', '', true), set_config('hm.actors', '', true);
    ASSERT hm_actor() IS NULL AND hm_actors() IS NULL,
        'an empty context names someone';
    PERFORM set_config('hm.actor', '00000000-0000-7000-8000-0000000000ff',
                       true);
    ASSERT hm_actor() = '00000000-0000-7000-8000-0000000000ff'::uuid;

    -- What keeps a function from being inlined.
    ASSERT (SELECT bool_and(provolatile = 's' AND NOT prosecdef
                            AND proconfig IS NULL AND NOT proisstrict)
              FROM pg_proc WHERE proname IN ('hm_actor', 'hm_actors')),
        'hm_actor cannot be inlined';
    ASSERT NOT EXISTS (
        SELECT FROM pg_proc p, aclexplode(coalesce(p.proacl,
                                          acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'public'::regnamespace
           AND p.proname LIKE 'hm\_%' AND a.grantee = 0),
        'PUBLIC executes a function';
END
$$;

SELECT table_name, column_name, kind FROM sealed_columns WHERE false;

ROLLBACK;
