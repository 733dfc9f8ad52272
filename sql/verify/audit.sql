-- Verify healthmate:audit on pg

BEGIN;

DO $$
DECLARE
    leaf  regclass;
    role  text;
    n     int := 0;
BEGIN
    FOR leaf IN
        SELECT 'public.audit_logs'::regclass
        UNION ALL
        SELECT inhrelid FROM pg_inherits
         WHERE inhparent = 'public.audit_logs'::regclass
    LOOP
        n := n + 1;
        ASSERT (SELECT relrowsecurity AND relforcerowsecurity
                  FROM pg_class WHERE oid = leaf), leaf || ' is not fenced';
        ASSERT (SELECT count(*) FROM pg_policy WHERE polrelid = leaf) = 2,
            leaf || ' has other policies than read and add';
        FOREACH role IN ARRAY ARRAY['hm_api', 'hm_worker', 'hm_cli',
                                    'hm_definer', 'hm_readonly']
        LOOP
            ASSERT NOT (has_table_privilege(role, leaf, 'UPDATE')
                        OR has_any_column_privilege(role, leaf, 'UPDATE')
                        OR has_table_privilege(role, leaf, 'DELETE')
                        OR has_table_privilege(role, leaf, 'TRUNCATE')),
                role || ' may change ' || leaf;
        END LOOP;
    END LOOP;
    -- The parent, DEFAULT, this month and two more; later months may be
    -- there already, earlier ones still.
    ASSERT n >= 5, 'a month is missing';
    ASSERT hm_audit_months_ahead() = 2, 'the next months are not made';

    -- An audit row cannot fail.
    ASSERT NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = 'public.audit_logs'::regclass
           AND contype IN ('c', 'f')), 'a constraint on the audit';
    ASSERT (SELECT count(*) FROM pg_attribute
             WHERE attrelid = 'public.audit_logs'::regclass AND attnum > 0
               AND attnotnull) = 3, 'NOT NULL beside the key';

    ASSERT (SELECT bool_and(prosecdef AND proconfig IS NOT NULL)
              FROM pg_proc WHERE proname IN ('hm_audit_open',
                   'hm_audit_ensure_partitions', 'hm_audit_retire'));
    ASSERT (SELECT proowner = 'hm_definer'::regrole FROM pg_proc
             WHERE proname = 'hm_audit_open');
END
$$;

ROLLBACK;
