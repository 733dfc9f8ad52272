-- Revert healthmate:retention from pg

BEGIN;

DROP FUNCTION hm_retention_run(int);

DROP POLICY health_metrics_aggregation_old ON health_metrics_aggregation;
DROP POLICY health_metrics_aggregation_old_read ON health_metrics_aggregation;
DROP POLICY health_data_old ON health_data;
DROP POLICY health_data_old_read ON health_data;

DO $$
BEGIN
    FOR n IN 0..7 LOOP
        CALL hm_secure_leaf(('health_data_p' || n)::regclass, 'health_data');
    END LOOP;
END
$$;

DROP TABLE retention_policies;

COMMIT;
