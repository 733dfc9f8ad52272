-- Revert healthmate:jobs from pg

BEGIN;

DROP FUNCTION hm_job_counts();
DROP TABLE idempotency_keys, job_ticks, job_schedules, jobs;

DELETE FROM sealed_columns WHERE table_name IN ('jobs', 'idempotency_keys');

COMMIT;
