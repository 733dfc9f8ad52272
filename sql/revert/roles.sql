-- Revert healthmate:roles from pg
--
-- A role that another database of the cluster still uses cannot be dropped
-- and stays, without any right in this database.

BEGIN;

DO $$
DECLARE
    role  text;
BEGIN
    FOREACH role IN ARRAY ARRAY['hm_admin', 'hm_api', 'hm_worker', 'hm_cli',
                                'hm_readonly', 'hm_definer', 'hm_owner']
    LOOP
        CONTINUE WHEN to_regrole(role) IS NULL;
        -- Everything these roles owned is gone by now: what DROP OWNED finds
        -- is privileges and default privileges.
        EXECUTE format('DROP OWNED BY %I', role);
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I',
                       current_database(), role);
        BEGIN
            EXECUTE format('DROP ROLE %I', role);
        EXCEPTION WHEN dependent_objects_still_exist OR object_in_use THEN
            RAISE NOTICE 'role % is used elsewhere and stays', role;
        END;
    END LOOP;

    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO PUBLIC',
                   current_database());
END
$$;

GRANT USAGE ON SCHEMA public TO PUBLIC;

COMMIT;
