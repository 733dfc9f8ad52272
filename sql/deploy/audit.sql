-- Deploy healthmate:audit to pg
--
-- Who did what to whose records.  Login roles may only insert; no role that
-- logs in has UPDATE or DELETE on any audit row.  An audit row cannot fail:
-- there is no CHECK, no foreign key, no NOT NULL beside the key, and a
-- DEFAULT partition takes what no month takes.
--
-- A shard is one database connection of one start of a process; its sequence
-- is contiguous, so a gap is a finding.  The shard's connection holds an
-- advisory lock on it for as long as it lives.  Whoever opens a shard next
-- closes those whose lock nobody holds.

BEGIN;
SET LOCAL ROLE hm_owner;

CREATE TABLE audit_logs (
    shard       uuid NOT NULL,
    seq         bigint NOT NULL,
    at          timestamptz NOT NULL,
    action      smallint,
    resource    smallint,
    outcome     smallint,
    actor_role  smallint,
    purpose     smallint,
    items       int,
    actor       uuid,
    session     uuid,
    user_id     uuid,
    first_id    uuid,
    last_id     uuid,
    origin      bytea,
    PRIMARY KEY (shard, seq, at)
) PARTITION BY RANGE (at);

-- Who looked at me; what did he do.  Nearly all rows are of people at their
-- own records and are found by user_id: the second index holds the others,
-- so that a row pays for it only where actor and subject differ.  Time by
-- BRIN: rows arrive in its order.
CREATE INDEX audit_logs_user ON audit_logs (user_id, at);
CREATE INDEX audit_logs_actor ON audit_logs (actor, at)
    WHERE actor IS DISTINCT FROM user_id;
CREATE INDEX audit_logs_at ON audit_logs USING brin (at);

CREATE TABLE audit_shards (
    shard      uuid PRIMARY KEY,
    role       text NOT NULL,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    closed_at  timestamptz,
    last_seq   bigint
);

CREATE INDEX audit_shards_open ON audit_shards (shard)
    WHERE closed_at IS NULL;

-- One key per month seals `origin`; made by whoever first needs it.
CREATE TABLE audit_keys (
    month        int PRIMARY KEY,         -- YYYYMM
    kek_version  int NOT NULL,
    wrapped_key  bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Signed by the sealer: the root over a shard's committed prefix.
CREATE TABLE audit_checkpoints (
    shard       uuid NOT NULL,
    last_seq    bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    root        bytea NOT NULL,
    signature   bytea NOT NULL,
    key_id      text NOT NULL,
    PRIMARY KEY (shard, last_seq)
);

INSERT INTO sealed_columns VALUES
    ('audit_logs', 'origin', 'sealed'),
    ('audit_keys', 'wrapped_key', 'wrapped'),
    ('audit_checkpoints', 'root', 'mac'),
    ('audit_checkpoints', 'signature', 'mac');

-- The row's subject and administrators read it.  An insert must name no
-- arbiter (ON CONFLICT with columns): with one, PostgreSQL applies the SELECT
-- policy to the new row, and a doctor's access could not be recorded.
CALL hm_secure('audit_logs');
CREATE POLICY audit_logs_read ON audit_logs
    FOR SELECT TO hm_api, hm_worker, hm_cli
    USING (user_id = hm_actor() OR hm_is_admin(hm_actor()));
CREATE POLICY audit_logs_add ON audit_logs
    FOR INSERT TO hm_api, hm_worker, hm_cli
    WITH CHECK (shard IS NOT NULL);

GRANT SELECT, INSERT ON audit_logs TO hm_api, hm_worker, hm_cli;
GRANT SELECT, INSERT ON audit_keys TO hm_api, hm_worker, hm_cli;
GRANT SELECT ON audit_shards, audit_checkpoints
    TO hm_api, hm_worker, hm_cli;

GRANT SELECT, INSERT ON audit_logs TO hm_definer;
GRANT SELECT, INSERT, UPDATE ON audit_shards TO hm_definer;

-- One month's leaf, by any date in it.  Made apart, fenced, then attached,
-- so that no statement meets an unfenced leaf.  Rows of that month which the
-- DEFAULT partition caught are moved into it; for that, FORCE comes off the
-- default for the rest of this transaction, which holds it exclusively.
CREATE PROCEDURE hm_audit_make_leaf(day date)
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    first  date := date_trunc('month', day)::date;
    past   date := (date_trunc('month', day) + interval '1 month')::date;
    leaf   text := format('public.audit_logs_%s', to_char(day, 'YYYYMM'));
    catch  text := 'public.audit_logs_default';
    lower  timestamptz := first::timestamp AT TIME ZONE 'UTC';
    upper  timestamptz := past::timestamp AT TIME ZONE 'UTC';
    stray  boolean;
BEGIN
    IF to_regclass(leaf) IS NOT NULL THEN
        RETURN;
    END IF;

    -- Insert only: freeze by inserts, not by dead rows which never come.
    EXECUTE format('CREATE TABLE %s (LIKE public.audit_logs INCLUDING ALL) '
                   'WITH (fillfactor = 100, '
                   'autovacuum_vacuum_insert_scale_factor = 0.02, '
                   'autovacuum_vacuum_insert_threshold = 50000, '
                   'autovacuum_analyze_scale_factor = 0.1, '
                   'autovacuum_freeze_min_age = 0)', leaf);
    CALL public.hm_secure_leaf(leaf, 'public.audit_logs');

    IF to_regclass(catch) IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', catch);
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', catch);
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', leaf);
        EXECUTE format('WITH moved AS (DELETE FROM %s WHERE at >= $1 '
                       'AND at < $2 RETURNING *) '
                       'INSERT INTO %s SELECT * FROM moved', catch, leaf)
          USING lower, upper;
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', leaf);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', catch);
    END IF;

    EXECUTE format('ALTER TABLE public.audit_logs ATTACH PARTITION %s '
                   'FOR VALUES FROM (%L) TO (%L)', leaf, lower, upper);
END
$$;

CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT
    WITH (fillfactor = 100, autovacuum_vacuum_insert_scale_factor = 0.02);
CALL hm_secure_leaf('audit_logs_default', 'audit_logs');

-- This month and the two after it.  Called at each start and daily; waits at
-- most two seconds for its locks.  Returns how many it made.
CREATE FUNCTION hm_audit_ensure_partitions() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    day   date;
    made  int := 0;
BEGIN
    -- Two callers at once would race for the name.
    PERFORM pg_advisory_xact_lock(hashtextextended('hm_audit_leaves', 1));

    FOR n IN 0..2 LOOP
        day := (date_trunc('month', now() AT TIME ZONE 'UTC')
                + n * interval '1 month')::date;
        IF to_regclass('public.audit_logs_' || to_char(day, 'YYYYMM')) IS NULL
        THEN
            CALL public.hm_audit_make_leaf(day);
            made := made + 1;
        END IF;
    END LOOP;

    RETURN made;
END
$$;

DO $$ BEGIN PERFORM hm_audit_ensure_partitions(); END $$;

-- For /ready: whole months ahead that have a leaf (2 is well, 0 is late),
-- and whether the DEFAULT partition caught anything is its own finding.
CREATE FUNCTION hm_audit_months_ahead() RETURNS int
LANGUAGE sql STABLE
AS $$
    SELECT count(*)::int FROM generate_series(1, 2) n
     WHERE to_regclass('public.audit_logs_' || to_char(
               date_trunc('month', now() AT TIME ZONE 'UTC')
               + n * interval '1 month', 'YYYYMM')) IS NOT NULL
$$;

-- Open a shard on this connection, and close those left behind: a shard
-- whose lock is free has no connection any more and can get no further row.
CREATE FUNCTION hm_audit_open(shard uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    mine  uuid := hm_audit_open.shard;
    left_behind  uuid;
    next_seq     bigint;
BEGIN
    IF mine IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'a shard needs an id';
    END IF;

    PERFORM pg_advisory_lock(hashtextextended(mine::text, 1));
    INSERT INTO public.audit_shards (shard, role)
    VALUES (mine, session_user);

    FOR left_behind IN
        SELECT s.shard FROM public.audit_shards s
         WHERE s.closed_at IS NULL AND s.shard <> mine
           FOR UPDATE SKIP LOCKED
    LOOP
        CONTINUE WHEN NOT pg_try_advisory_lock(
                              hashtextextended(left_behind::text, 1));

        SELECT coalesce(max(a.seq), 0) + 1 INTO next_seq
          FROM public.audit_logs a WHERE a.shard = left_behind;

        INSERT INTO public.audit_logs (shard, seq, at, action, resource,
                                       outcome, purpose, items)
        VALUES (left_behind, next_seq, now(), 101, 0, 0, 4, 0)
        ON CONFLICT DO NOTHING;

        UPDATE public.audit_shards s
           SET closed_at = now(), last_seq = next_seq
         WHERE s.shard = left_behind;

        PERFORM pg_advisory_unlock(hashtextextended(left_behind::text, 1));
    END LOOP;
END
$$;

-- Take a month out of the audit.  Plain DETACH: CONCURRENTLY is refused next
-- to a DEFAULT partition.  It waits 100 ms for its lock and then fails with
-- 55P03; the caller tries again later, because a DETACH waiting in the lock
-- queue would stop every request behind it.  The detached table stays, fenced
-- still, for the sealer and the archive, which drop it.
CREATE FUNCTION hm_audit_retire(month date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    leaf  text := format('audit_logs_%s', to_char(month, 'YYYYMM'));
    past  timestamptz := (date_trunc('month', month) + interval '1 month')
                         ::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF past > now() - interval '6 years' THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('%s is younger than the audit may be', leaf);
    END IF;

    IF NOT EXISTS (
        SELECT FROM pg_inherits
         WHERE inhparent = 'public.audit_logs'::regclass
           AND inhrelid = to_regclass('public.' || leaf))
    THEN
        RETURN NULL;
    END IF;

    EXECUTE format('ALTER TABLE public.audit_logs DETACH PARTITION public.%I',
                   leaf);
    EXECUTE format('REVOKE INSERT ON public.%I FROM hm_api, hm_worker, '
                   'hm_cli', leaf);
    RETURN leaf;
END
$$;

GRANT EXECUTE ON FUNCTION hm_audit_open(uuid), hm_audit_months_ahead(),
                          hm_audit_ensure_partitions()
    TO hm_api, hm_worker, hm_cli;
GRANT EXECUTE ON FUNCTION hm_audit_retire(date) TO hm_worker, hm_cli;

RESET ROLE;
ALTER FUNCTION hm_audit_open(uuid) OWNER TO hm_definer;

COMMIT;
