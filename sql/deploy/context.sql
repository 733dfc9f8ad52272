-- Deploy healthmate:context to pg
--
-- The context of a transaction names the actor, never the subject.  Two
-- settings, local to the transaction: hm.actor (a uuid) and, for statements
-- that serve the own records of several people at once, hm.actors (uuid[] as text).
-- Unset or empty, every policy says no.

BEGIN;
SET LOCAL ROLE hm_owner;

-- Written as bare expressions in SQL functions without SET and STRICT, so
-- that the planner inlines them.  Policies of tables that are read by many
-- rows ask through a sub-select, `(SELECT hm_actor())`, which is evaluated
-- once for a statement, and only if a row needs it.  Measured on 1,000,000
-- rows: a list of 20 takes 54 us with it and 70 us without, 32 reads of a
-- batch 385 us and 510 us; a lone read pays 4 us.
CREATE FUNCTION hm_actor() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT nullif(current_setting('hm.actor', true), '')::uuid
$$;

CREATE FUNCTION hm_actors() RETURNS uuid[]
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT nullif(current_setting('hm.actors', true), '')::uuid[]
$$;

GRANT EXECUTE ON FUNCTION hm_actor(), hm_actors()
    TO hm_definer, hm_api, hm_worker, hm_cli, hm_admin, hm_readonly;

-- Fence one table.  FORCE, or the owner would walk past the policies.
CREATE PROCEDURE hm_secure(rel regclass)
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', rel);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', rel);
END
$$;

-- Fence a leaf as its parent is fenced.  PostgreSQL applies a leaf's own
-- policies and grants to a statement that names the leaf, and the module
-- names leaves: without this, hash leaves would be an open back door.
-- Existing policies and grants are replaced, so it may be called again after
-- the parent changed.
CREATE PROCEDURE hm_secure_leaf(leaf regclass, parent regclass)
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    p  record;
BEGIN
    CALL public.hm_secure(leaf);

    FOR p IN SELECT polname FROM pg_policy WHERE polrelid = leaf LOOP
        EXECUTE format('DROP POLICY %I ON %s', p.polname, leaf);
    END LOOP;

    FOR p IN
        SELECT o.polname, o.polpermissive,
               CASE o.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                    WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                    ELSE 'ALL' END AS cmd,
               (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC'
                                  ELSE quote_ident(pg_get_userbyid(r)) END,
                                  ', ')
                  FROM unnest(o.polroles) r) AS roles,
               pg_get_expr(o.polqual, o.polrelid) AS qual,
               pg_get_expr(o.polwithcheck, o.polrelid) AS with_check
          FROM pg_policy o WHERE o.polrelid = parent
    LOOP
        EXECUTE format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s',
            p.polname, leaf,
            CASE WHEN p.polpermissive THEN 'PERMISSIVE'
                 ELSE 'RESTRICTIVE' END,
            p.cmd, p.roles,
            coalesce(' USING (' || p.qual || ')', ''),
            coalesce(' WITH CHECK (' || p.with_check || ')', ''));
    END LOOP;

    FOR p IN
        SELECT DISTINCT pg_get_userbyid(a.grantee) AS role
          FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = leaf AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', leaf, p.role);
    END LOOP;

    FOR p IN
        SELECT pg_get_userbyid(a.grantee) AS role, a.privilege_type AS what,
               '' AS col
          FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = parent AND a.grantee NOT IN (0, c.relowner)
        UNION ALL
        SELECT pg_get_userbyid(a.grantee), a.privilege_type,
               format(' (%I)', t.attname)
          FROM pg_attribute t, aclexplode(t.attacl) a
         WHERE t.attrelid = parent AND t.attnum > 0 AND NOT t.attisdropped
           AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT %s%s ON %s TO %I', p.what, p.col, leaf, p.role);
    END LOOP;
END
$$;

-- Every column that holds ciphertext, a blind index, a wrapped key or a MAC.
-- Rotation, retirement and erasure walk this table; a test fails on a bytea
-- column that is not in it.
--   sealed   an envelope under the DEK of the row's owner
--   blind    HMAC under an index key; nulled or deleted at erasure
--   wrapped  a key under the KEK
--   mac      a digest or tag that opens nothing
CREATE TABLE sealed_columns (
    table_name   text NOT NULL,
    column_name  text NOT NULL,
    kind         text NOT NULL
        CHECK (kind IN ('sealed', 'blind', 'wrapped', 'mac')),
    PRIMARY KEY (table_name, column_name)
);

GRANT SELECT ON sealed_columns TO hm_api, hm_worker, hm_cli, hm_admin;

COMMIT;
