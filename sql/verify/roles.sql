-- Verify healthmate:roles on pg

BEGIN;

DO $$
DECLARE
    bad  text;
BEGIN
    ASSERT (SELECT count(*) FROM pg_roles
             WHERE rolname IN ('hm_owner', 'hm_definer', 'hm_readonly')
               AND NOT rolcanlogin) = 3, 'a group role is missing or logs in';
    ASSERT (SELECT count(*) FROM pg_roles
             WHERE rolname IN ('hm_api', 'hm_worker', 'hm_cli', 'hm_admin')
               AND rolcanlogin) = 4, 'a login role is missing';

    SELECT string_agg(rolname, ', ') INTO bad FROM pg_roles
     WHERE rolname LIKE 'hm\_%'
       AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication
            OR (rolbypassrls AND rolname <> 'hm_definer'));
    ASSERT bad IS NULL, 'too mighty: ' || bad;

    SELECT string_agg(m.rolname || ' in ' || g.rolname, ', ') INTO bad
      FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid
      JOIN pg_roles m ON m.oid = a.member
     WHERE m.rolname IN ('hm_api', 'hm_worker', 'hm_cli')
        OR g.rolname = 'hm_definer';
    ASSERT bad IS NULL, 'membership: ' || bad;

    ASSERT NOT EXISTS (
        SELECT FROM pg_namespace n, aclexplode(n.nspacl) a
         WHERE n.nspname = 'public' AND a.grantee = 0), 'public is open';
    ASSERT NOT EXISTS (
        SELECT FROM pg_database d, aclexplode(d.datacl) a
         WHERE d.datname = current_database() AND a.grantee = 0),
        'the database is open';
END
$$;

ROLLBACK;
