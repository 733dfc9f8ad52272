-- Verify healthmate:rights on pg

BEGIN;

DO $$
DECLARE
    names  text[] := ARRAY['hm_may', 'hm_care_parties', 'hm_patients',
        'hm_staff_keys', 'hm_break_glass_open', 'hm_break_glass_approve',
        'hm_break_glass_end', 'hm_user_create'];
    bad    text;
BEGIN
    SELECT string_agg(proname, ', ') INTO bad FROM pg_proc
     WHERE proname = ANY (names)
       AND NOT (prosecdef AND proowner = 'hm_definer'::regrole
                AND proconfig::text LIKE '%search_path=pg_catalog, public%');
    ASSERT bad IS NULL, 'not safe: ' || bad;
    ASSERT (SELECT count(*) FROM pg_proc WHERE proname = ANY (names)) = 8;

    ASSERT (SELECT relforcerowsecurity FROM pg_class
             WHERE oid = 'break_glass_grants'::regclass), 'not fenced';
    ASSERT NOT has_table_privilege('hm_api', 'break_glass_grants', 'INSERT'),
        'a grant is opened by its function only';
    ASSERT NOT has_any_column_privilege('hm_api', 'break_glass_grants',
                                        'UPDATE');
    ASSERT NOT has_any_column_privilege('hm_definer', 'users', 'UPDATE')
           OR NOT has_column_privilege('hm_definer', 'users', 'role',
                                       'UPDATE'),
        'no function changes a role';
    ASSERT (SELECT value FROM hm_settings WHERE name = 'care_assign')
           IN ('patient', 'staff');
    ASSERT hm_care_parties(gen_random_uuid(), gen_random_uuid()) = false;
    ASSERT NOT EXISTS (SELECT FROM hm_patients());
    ASSERT NOT EXISTS (SELECT FROM hm_staff_keys(gen_random_uuid()));
    PERFORM needs_approval, approved_by, approved_at, ended_by, version
       FROM break_glass_grants WHERE false;
END
$$;

ROLLBACK;
