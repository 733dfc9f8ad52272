-- Revert healthmate:health_data from pg

BEGIN;

DROP TABLE health_metrics_aggregation;
DROP FUNCTION hm_leaf(uuid);
DROP PROCEDURE hm_make_leaf(int);
DROP TABLE health_data;

DELETE FROM sealed_columns
 WHERE table_name IN ('health_data', 'health_metrics_aggregation');

COMMIT;
