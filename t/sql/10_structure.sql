-- What must hold of every relation there is, those of later migrations too.
\ir lib/setup.psql
SELECT plan(21);

SELECT is((SELECT string_agg(c.oid::regclass::text, ', ')
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relkind IN ('r', 'p') AND a.attname = 'user_id'
              AND c.relnamespace = 'public'::regnamespace
              AND NOT a.attisdropped
              AND NOT (c.relrowsecurity AND c.relforcerowsecurity)),
    NULL, 'whatever has a user_id is fenced, leaves included');

SELECT is((SELECT string_agg(c.oid::regclass::text, ', ')
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relkind IN ('r', 'p') AND a.attname = 'user_id'
              AND c.relnamespace = 'public'::regnamespace
              AND NOT EXISTS (SELECT FROM pg_policy p
                               WHERE p.polrelid = c.oid)),
    NULL, 'and has a policy');

SELECT ok((SELECT bool_and(relrowsecurity AND relforcerowsecurity)
             FROM pg_class WHERE oid IN ('users'::regclass,
                                         'care_relationships'::regclass)),
    'users and relationships are fenced');

SELECT is((SELECT string_agg(polrelid::regclass || '.' || polname, ', ')
             FROM pg_policy
            WHERE coalesce(pg_get_expr(polqual, polrelid), '') = 'true'
               OR coalesce(pg_get_expr(polwithcheck, polrelid), '') = 'true'),
    NULL, 'no policy is simply true');

SELECT is((SELECT string_agg(polrelid::regclass || '.' || polname, ', ')
             FROM pg_policy WHERE polroles && ARRAY[0::oid]),
    NULL, 'every policy names its roles');

SELECT is((SELECT string_agg(i.inhrelid::regclass::text, ', ')
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE c.relkind IN ('r', 'p') AND (
              SELECT array_agg((polname, polcmd, polroles,
                                pg_get_expr(polqual, polrelid),
                                pg_get_expr(polwithcheck, polrelid))::text
                               ORDER BY polname)
                FROM pg_policy WHERE polrelid = i.inhrelid)
           IS DISTINCT FROM (
              SELECT array_agg((polname, polcmd, polroles,
                                pg_get_expr(polqual, polrelid),
                                pg_get_expr(polwithcheck, polrelid))::text
                               ORDER BY polname)
                FROM pg_policy WHERE polrelid = i.inhparent)),
    NULL, 'each leaf has its parent''s policies, word for word');

SELECT is((SELECT string_agg(i.inhrelid::regclass || ' ' || r.role || ' '
                             || w.what, ', ')
             FROM pg_inherits i
             JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r',
                  unnest(ARRAY['hm_api', 'hm_worker', 'hm_cli',
                               'hm_readonly']) AS r (role),
                  unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE',
                               'TRUNCATE', 'TRIGGER', 'REFERENCES'])
                      AS w (what)
            WHERE has_table_privilege(r.role, i.inhrelid, w.what)
               <> has_table_privilege(r.role, i.inhparent, w.what)),
    NULL, 'and its parent''s grants');

SELECT is((SELECT string_agg(table_name || '.' || column_name, ', ')
             FROM information_schema.columns c
            WHERE table_schema = 'public' AND data_type = 'bytea'
              AND EXISTS (SELECT FROM pg_class r
                           WHERE r.oid = format('public.%I', c.table_name)
                                         ::regclass
                             AND NOT r.relispartition
                             AND r.relkind IN ('r', 'p'))
              AND NOT EXISTS (SELECT FROM sealed_columns s
                               WHERE s.table_name = c.table_name
                                 AND s.column_name = c.column_name)),
    NULL, 'every bytea column is in the catalogue');

SELECT is((SELECT string_agg(s.table_name || '.' || s.column_name, ', ')
             FROM sealed_columns s
            WHERE NOT EXISTS (
                SELECT FROM information_schema.columns c
                 WHERE c.table_schema = 'public' AND c.data_type = 'bytea'
                   AND c.table_name = s.table_name
                   AND c.column_name = s.column_name)),
    NULL, 'and the catalogue names nothing else');

SELECT is((SELECT string_agg(DISTINCT s.table_name, ', ')
             FROM sealed_columns s WHERE s.kind = 'sealed'
              AND s.table_name <> 'audit_logs'
              AND NOT EXISTS (
                SELECT FROM information_schema.columns c
                 WHERE c.table_schema = 'public'
                   AND c.table_name = s.table_name
                   AND c.column_name = 'dek_version')),
    NULL, 'each sealed row says under which key');

SELECT is((SELECT string_agg(i.indexrelid::regclass::text, ', ')
             FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             JOIN pg_attribute a ON a.attrelid = i.indrelid
                                AND a.attnum = ANY (i.indkey)
             JOIN sealed_columns s ON s.table_name = c.relname
                                  AND s.column_name = a.attname
            WHERE s.kind IN ('sealed', 'wrapped')),
    NULL, 'no index on a sealed column');

SELECT is((SELECT string_agg(c.oid::regclass::text, ', ')
             FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace
              AND c.relkind IN ('r', 'p', 'v', 'S')
              AND c.relowner <> 'hm_owner'::regrole),
    NULL, 'hm_owner owns every table');

SELECT is((SELECT string_agg(p.oid::regprocedure::text, ', ')
             FROM pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
              AND coalesce(p.proconfig::text, '')
                  NOT LIKE '%search_path=pg_catalog, public, pg_temp%'),
    NULL, 'every definer function has a fixed search_path');

SELECT is((SELECT string_agg(p.oid::regprocedure::text, ', ')
             FROM pg_proc p, aclexplode(coalesce(p.proacl,
                                        acldefault('f', p.proowner))) a
            WHERE p.pronamespace = 'public'::regnamespace AND a.grantee = 0),
    NULL, 'PUBLIC executes no function');

SELECT is((SELECT string_agg(c.oid::regclass::text, ', ')
             FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 0),
    NULL, 'PUBLIC has no table');

SELECT set_eq($$ SELECT rolname FROM pg_roles WHERE rolname LIKE 'hm\_%'
                    AND (rolbypassrls OR rolsuper OR rolcreaterole) $$,
    ARRAY['hm_definer'], 'only hm_definer passes row-level security');

SELECT is((SELECT string_agg(c.oid::regclass || ' ' || a.privilege_type, ', '
                             ORDER BY 1)
             FROM pg_class c, aclexplode(c.relacl) a
            WHERE a.grantee = 'hm_definer'::regrole
              AND a.privilege_type <> 'SELECT'
              AND c.relname NOT IN ('audit_logs', 'audit_shards',
                                    'revocations', 'break_glass_grants')
              AND NOT (a.privilege_type = 'DELETE' AND c.relname IN
                  ('mfa_totp', 'mfa_recovery_codes', 'passkeys',
                   'webauthn_challenges'))
              AND NOT (a.privilege_type = 'INSERT'
                       AND c.relname IN ('users', 'user_keys',
                                         'user_index_keys',
                                         'user_preferences'))
              AND NOT c.relispartition),
    NULL, 'and it writes audit rows, shards, revocations, grants, and '
          'inserts accounts');

SELECT is((SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY 1)
             FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace
              AND c.relkind = 'r'
              AND has_table_privilege('hm_readonly', c.oid, 'SELECT')),
    NULL, 'statistics read no table');

SELECT is((SELECT count(*)::int FROM pg_inherits
            WHERE inhparent = 'health_data'::regclass), 8, 'eight leaves');

SELECT ok((SELECT bool_and(satisfies_hash_partition(
                    'health_data'::regclass, 8, hm_leaf(u), u))
             FROM (SELECT gen_random_uuid() AS u
                     FROM generate_series(1, 1000)) s),
    'hm_leaf says where a thousand people are');

SELECT is((SELECT count(*)::int FROM health_data h
            WHERE h.tableoid <> ('health_data_p' || hm_leaf(h.user_id))
                                ::regclass), 0, 'and where the rows are');

SELECT * FROM finish();
ROLLBACK;
