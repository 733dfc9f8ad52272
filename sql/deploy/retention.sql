-- Deploy healthmate:retention to pg
--
-- What is kept for how long.  Time counts from receipt (created_at), never
-- from the measurement: a lifetime imported today stays seven years.  The
-- worker deletes as the system actor worker.retention, whose policies show it
-- nothing but rows that are past their time: a wrong predicate in the
-- function deletes nothing.

BEGIN;
SET LOCAL ROLE hm_owner;

CREATE TABLE retention_policies (
    category  text PRIMARY KEY,
    keep      interval NOT NULL CHECK (keep >= interval '1 day'),
    basis     text NOT NULL,
    last_run  timestamptz
);

INSERT INTO retention_policies (category, keep, basis) VALUES
    ('health_data', '7 years', 'medical record keeping; from receipt'),
    ('audit', '7 years', 'HIPAA 164.316(b)(2): six years, and one to spare');

GRANT SELECT ON retention_policies TO hm_api, hm_worker, hm_cli, hm_admin;
GRANT UPDATE (last_run) ON retention_policies TO hm_worker;
GRANT UPDATE (keep, basis) ON retention_policies TO hm_cli;

\set due 'hm_actor() = ''00000000-0000-7000-8000-000000000002''::uuid AND'

CREATE POLICY health_data_old_read ON health_data FOR SELECT TO hm_worker
    USING (:due created_at < (SELECT now() - r.keep FROM retention_policies r
                               WHERE r.category = 'health_data'));
CREATE POLICY health_data_old ON health_data FOR DELETE TO hm_worker
    USING (:due created_at < (SELECT now() - r.keep FROM retention_policies r
                               WHERE r.category = 'health_data'));

-- A roll-up lives as long as the newest receipt that fed it.
CREATE POLICY health_metrics_aggregation_old_read
    ON health_metrics_aggregation FOR SELECT TO hm_worker
    USING (:due updated_at < (SELECT now() - r.keep FROM retention_policies r
                               WHERE r.category = 'health_data'));
CREATE POLICY health_metrics_aggregation_old
    ON health_metrics_aggregation FOR DELETE TO hm_worker
    USING (:due updated_at < (SELECT now() - r.keep FROM retention_policies r
                               WHERE r.category = 'health_data'));

-- The leaves carry policies of their own.
DO $$
BEGIN
    FOR n IN 0..7 LOOP
        CALL hm_secure_leaf(('health_data_p' || n)::regclass, 'health_data');
    END LOOP;
END
$$;

-- Delete at most `batch` rows per table and return how many went.  The caller
-- repeats it, a transaction each, until it returns 0: locks stay few and
-- vacuum can follow.  With the caller's rights, not the owner's.
CREATE FUNCTION hm_retention_run(batch int DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    before  text := current_setting('hm.actor', true);
    old     timestamptz;
    week    timestamptz := now() - interval '7 days';
    rel     text;
    col     text;
    line    timestamptz;
    gone    bigint;
    total   bigint := 0;
BEGIN
    PERFORM set_config('hm.actor', '00000000-0000-7000-8000-000000000002',
                       true);
    SELECT now() - r.keep INTO STRICT old FROM public.retention_policies r
     WHERE r.category = 'health_data';

    -- The line goes in as a parameter: the comparison alone can then use the
    -- index on the time, and the policies are asked about its rows only.
    FOR rel, col, line IN
        SELECT 'health_data_p' || n, 'created_at', old
          FROM generate_series(0, 7) n
        UNION ALL VALUES
            ('health_metrics_aggregation', 'updated_at', old),
            ('idempotency_keys', 'expires_at', now()),
            ('revocations', 'expires_at', now()),
            ('jobs', 'finished_at', week)
    LOOP
        EXECUTE format('DELETE FROM public.%I WHERE ctid = ANY (ARRAY('
                       'SELECT ctid FROM public.%I WHERE %I < $1 LIMIT $2))',
                       rel, rel, col) USING line, batch;
        GET DIAGNOSTICS gone = ROW_COUNT;
        total := total + gone;
    END LOOP;

    DELETE FROM public.job_ticks WHERE tick < week;

    UPDATE public.retention_policies SET last_run = now()
     WHERE category = 'health_data';

    PERFORM set_config('hm.actor', coalesce(before, ''), true);
    RETURN total;
END
$$;

GRANT EXECUTE ON FUNCTION hm_retention_run(int) TO hm_worker;

COMMIT;
