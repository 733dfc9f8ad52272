-- Deploy healthmate:jobs to pg
--
-- The queue.  A job's row commits with the write that caused it; Redis only
-- carries its id.  Who asked for it is written from the verified token at
-- insert and never updated: the worker judges that person's rights again at
-- each claim.

BEGIN;
SET LOCAL ROLE hm_owner;

CREATE TABLE jobs (
    id            uuid PRIMARY KEY,
    kind          text NOT NULL,
    unique_key    text,
    user_id       uuid,                   -- the subject; NULL: nobody's
    requester     uuid,                   -- NULL: a system actor's schedule
    permission    text,
    session       uuid,
    payload       bytea,
    dek_version   int,
    state         text NOT NULL DEFAULT 'ready'
        CHECK (state IN ('ready', 'running', 'retry', 'done', 'dead',
                         'cancelled')),
    run_at        timestamptz NOT NULL DEFAULT now(),
    attempt       int NOT NULL DEFAULT 0,
    max_attempts  int NOT NULL DEFAULT 8,
    lease_until   timestamptz,
    token         bigint NOT NULL DEFAULT 0,
    worker        text,
    published_at  timestamptz,
    progress      real,
    cause         text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    version       int NOT NULL DEFAULT 1
) WITH (fillfactor = 70,                  -- each row is updated a few times
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0.05);

-- One waiting job per key.  A claim leaves these states before it reads, so
-- a write after it makes a new job and none is lost.
CREATE UNIQUE INDEX jobs_unique_key ON jobs (unique_key)
    WHERE state IN ('ready', 'retry');
CREATE INDEX jobs_ready ON jobs (run_at) WHERE state IN ('ready', 'retry');
CREATE INDEX jobs_lease ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_finished ON jobs (finished_at)
    WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_user ON jobs (user_id, created_at DESC);

CREATE TABLE job_schedules (
    name       text PRIMARY KEY,
    kind       text NOT NULL,
    every      interval NOT NULL CHECK (every > interval '0'),
    last_tick  timestamptz
);

-- Whoever inserts a tick first runs it: no leader is needed.
CREATE TABLE job_ticks (
    name  text NOT NULL REFERENCES job_schedules ON DELETE CASCADE,
    tick  timestamptz NOT NULL,
    PRIMARY KEY (name, tick)
);

INSERT INTO job_schedules (name, kind, every) VALUES
    ('audit.partitions', 'audit.partitions', '6 hours'),
    ('retention', 'retention.run', '1 hour');

-- What a repeated POST gets back.  The MAC of the request's body tells a
-- repeat from another request under the same key.
CREATE TABLE idempotency_keys (
    caller       uuid NOT NULL,
    user_id      uuid NOT NULL,
    scope        bytea NOT NULL,          -- SHA-256 of method, path, key
    body_mac     bytea NOT NULL,
    status       int,                     -- NULL: still being answered
    headers      bytea,
    body         bytea,
    dek_version  int,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (caller, user_id, scope)
) WITH (fillfactor = 80);

CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

INSERT INTO sealed_columns VALUES
    ('jobs', 'payload', 'sealed'),
    ('idempotency_keys', 'scope', 'mac'),
    ('idempotency_keys', 'body_mac', 'mac'),
    ('idempotency_keys', 'headers', 'sealed'),
    ('idempotency_keys', 'body', 'sealed');

\set sweeper '''00000000-0000-7000-8000-000000000003''::uuid'
\set retention '''00000000-0000-7000-8000-000000000002''::uuid'
\set asked 'requester = (SELECT hm_actor()) OR requester = ANY ((SELECT hm_actors())::uuid[])'

CALL hm_secure('jobs');
CREATE POLICY jobs_read ON jobs FOR SELECT TO hm_api, hm_worker
    USING (:asked OR user_id = hm_actor()
           OR hm_may(hm_actor(), user_id, 'read'));
CREATE POLICY jobs_add ON jobs FOR INSERT TO hm_api, hm_worker
    WITH CHECK ((:asked) AND state = 'ready' AND attempt = 0 AND token = 0);
-- SELECT too: ON CONFLICT looks at what is there.
CREATE POLICY jobs_read_cli ON jobs FOR SELECT TO hm_cli
    USING (requester = hm_actor());
CREATE POLICY jobs_add_cli ON jobs FOR INSERT TO hm_cli
    WITH CHECK (requester = hm_actor() AND state = 'ready' AND attempt = 0
                AND token = 0);
CREATE POLICY jobs_finish ON jobs FOR UPDATE TO hm_worker
    USING (requester = hm_actor());
-- The queue itself: claim, renew, retry, bury.
CREATE POLICY jobs_sweep_read ON jobs FOR SELECT TO hm_worker
    USING ((SELECT hm_actor()) = :sweeper);
CREATE POLICY jobs_sweep_add ON jobs FOR INSERT TO hm_worker
    WITH CHECK (hm_actor() = :sweeper AND requester IS NULL);
CREATE POLICY jobs_sweep ON jobs FOR UPDATE TO hm_worker
    USING ((SELECT hm_actor()) = :sweeper);
CREATE POLICY jobs_old_read ON jobs FOR SELECT TO hm_worker
    USING ((SELECT hm_actor()) = :retention
           AND finished_at < now() - interval '7 days');
CREATE POLICY jobs_old ON jobs FOR DELETE TO hm_worker
    USING ((SELECT hm_actor()) = :retention
           AND finished_at < now() - interval '7 days');

GRANT SELECT, INSERT ON jobs TO hm_api, hm_cli;
GRANT SELECT, INSERT, DELETE ON jobs TO hm_worker;
GRANT UPDATE (payload, dek_version, state, run_at, attempt, max_attempts,
              lease_until, token, worker, published_at, progress, cause,
              updated_at, finished_at, version) ON jobs TO hm_worker;

GRANT SELECT ON job_schedules TO hm_api, hm_cli;
GRANT SELECT, INSERT, DELETE ON job_ticks TO hm_worker;
GRANT SELECT, UPDATE ON job_schedules TO hm_worker;

-- The caller's own, whoever the subject is: a replay passes the gate anew.
CALL hm_secure('idempotency_keys');
CREATE POLICY idempotency_keys_own ON idempotency_keys
    FOR ALL TO hm_api USING (caller = hm_actor());
CREATE POLICY idempotency_keys_expired_read ON idempotency_keys
    FOR SELECT TO hm_worker
    USING ((SELECT hm_actor()) = :retention AND expires_at < now());
CREATE POLICY idempotency_keys_expired ON idempotency_keys
    FOR DELETE TO hm_worker
    USING ((SELECT hm_actor()) = :retention AND expires_at < now());

GRANT SELECT, INSERT, DELETE ON idempotency_keys TO hm_api;
GRANT UPDATE (body_mac, status, headers, body, dek_version, created_at,
              expires_at) ON idempotency_keys TO hm_api;
GRANT SELECT, DELETE ON idempotency_keys TO hm_worker;

-- Numbers without persons, for /metrics and for scalers.
CREATE FUNCTION hm_job_counts()
RETURNS TABLE (kind text, state text, jobs bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT j.kind, j.state, count(*) FROM public.jobs j
                  WHERE j.state IN ('ready', 'retry', 'running', 'dead')
                  GROUP BY j.kind, j.state;
END
$$;

GRANT SELECT ON jobs TO hm_definer;
GRANT EXECUTE ON FUNCTION hm_job_counts()
    TO hm_api, hm_worker, hm_cli, hm_readonly;

RESET ROLE;
ALTER FUNCTION hm_job_counts() OWNER TO hm_definer;

COMMIT;
