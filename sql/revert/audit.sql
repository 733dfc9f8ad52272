-- Revert healthmate:audit from pg

BEGIN;

DROP FUNCTION hm_audit_retire(date);
DROP FUNCTION hm_audit_open(uuid);
DROP FUNCTION hm_audit_months_ahead();
DROP FUNCTION hm_audit_ensure_partitions();
DROP PROCEDURE hm_audit_make_leaf(date);
DROP TABLE audit_checkpoints, audit_keys, audit_shards, audit_logs;

-- Months that were retired but not yet archived.
DO $$
DECLARE
    leaf  regclass;
BEGIN
    FOR leaf IN
        SELECT oid FROM pg_class WHERE relkind = 'r'
           AND relnamespace = 'public'::regnamespace
           AND relname ~ '^audit_logs_[0-9]{6}$'
    LOOP
        EXECUTE format('DROP TABLE %s', leaf);
    END LOOP;
END
$$;

DELETE FROM sealed_columns
 WHERE table_name IN ('audit_logs', 'audit_keys', 'audit_checkpoints');

COMMIT;
