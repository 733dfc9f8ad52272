-- Deploy healthmate:roles to pg
--
-- Roles belong to the cluster, not to the database: they are made only when
-- missing, so that two databases (tests, a restore beside the live one) can
-- share a cluster.  None of them but hm_definer may pass row-level security,
-- and hm_definer cannot log in: only functions run as it.
--
--   hm_owner     owns everything; nobody logs in as it
--   hm_definer   owns the few functions that must look before there is an
--                actor, or past the actor's own rows (hm_may)
--   hm_api       nginx;  hm_worker  the worker pool;  hm_cli  host commands
--   hm_admin     operators' psql; may become hm_owner, sees no personal row
--   hm_readonly  statistics without persons

BEGIN;

DO $$
DECLARE
    role  text;
BEGIN
    FOREACH role IN ARRAY ARRAY['hm_owner', 'hm_definer', 'hm_readonly'] LOOP
        IF to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;

    FOREACH role IN ARRAY ARRAY['hm_api', 'hm_worker', 'hm_cli', 'hm_admin']
    LOOP
        IF to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
    END LOOP;
END
$$;

ALTER ROLE hm_owner    NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
ALTER ROLE hm_definer  NOLOGIN NOSUPERUSER BYPASSRLS   NOCREATEDB NOCREATEROLE;
ALTER ROLE hm_readonly NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
ALTER ROLE hm_api      LOGIN   NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
ALTER ROLE hm_worker   LOGIN   NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
ALTER ROLE hm_cli      LOGIN   NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
ALTER ROLE hm_admin    LOGIN   NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;

-- An operator migrates as the owner.  FORCE ROW LEVEL SECURITY holds the
-- owner too, and no policy names either role: neither reads a person's row.
GRANT hm_owner TO hm_admin;

-- A statement of the API is milliseconds; whatever is slower is a fault and
-- must not hold the pipeline.  Generic plans: every statement is prepared at
-- connect, and planning would cost more than running it.  jit never pays for
-- statements of this size.
ALTER ROLE hm_api SET statement_timeout = '5s';
ALTER ROLE hm_api SET lock_timeout = '2s';
ALTER ROLE hm_api SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE hm_api SET plan_cache_mode = 'force_generic_plan';
ALTER ROLE hm_api SET jit = off;
ALTER ROLE hm_api SET synchronous_commit = on;

ALTER ROLE hm_worker SET statement_timeout = '60s';
ALTER ROLE hm_worker SET lock_timeout = '5s';
ALTER ROLE hm_worker SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE hm_worker SET plan_cache_mode = 'force_generic_plan';
ALTER ROLE hm_worker SET jit = off;
ALTER ROLE hm_worker SET synchronous_commit = on;

ALTER ROLE hm_cli SET statement_timeout = '60s';
ALTER ROLE hm_cli SET lock_timeout = '5s';
ALTER ROLE hm_cli SET synchronous_commit = on;

-- The database and the schema are closed to everyone not named.  TEMP too: a
-- temporary table or function is a place to shadow names from.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC',
                   current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO hm_api, hm_worker, '
                   'hm_cli, hm_admin, hm_readonly', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO hm_owner;
GRANT USAGE ON SCHEMA public
    TO hm_definer, hm_api, hm_worker, hm_cli, hm_admin, hm_readonly;

-- A function is executable by PUBLIC unless told otherwise.
ALTER DEFAULT PRIVILEGES FOR ROLE hm_owner
    REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE hm_definer
    REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

COMMIT;
