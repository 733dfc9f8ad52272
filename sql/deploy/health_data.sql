-- Deploy healthmate:health_data to pg
--
-- Measurements.  Hash partitions by person, not ranges by time: a list of a
-- person's newest rows then touches one leaf, an id needs no month in it, and
-- "the same source_id means the same record, whatever its timestamp" can be
-- one unique index.  tools/measure-partitions compares the forms.
--
-- Programs name the leaf themselves: hm_leaf(user_id) tells its number, and
-- the module keeps it with the person's keys.  Eight leaves: enough to keep
-- each index and each vacuum small, few enough to walk.

BEGIN;
SET LOCAL ROLE hm_owner;

CREATE TABLE health_data (
    id           uuid NOT NULL,
    user_id      uuid NOT NULL,
    "timestamp"  timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    confidence   double precision,
    dek_version  int NOT NULL,
    version      int NOT NULL DEFAULT 1,
    data_type    text NOT NULL,
    unit         text,                    -- NULL for custom types
    source       text NOT NULL,
    value        bytea NOT NULL,
    original     bytea,
    notes        bytea,
    source_id    bytea,
    custom       bytea,                   -- slug and unit of a custom type
    slug_index   bytea,
    dedup_key    bytea NOT NULL,
    PRIMARY KEY (user_id, id)
) PARTITION BY HASH (user_id);

CREATE UNIQUE INDEX health_data_dedup ON health_data (user_id, dedup_key);
CREATE INDEX health_data_list
    ON health_data (user_id, "timestamp" DESC, id DESC);
-- Retention looks for old receipts: rows lie in order of receipt, so a BRIN
-- of a few pages finds them and costs an insert next to nothing.
-- The newest of one kind: filtered lists and `latest` would else walk all
-- rows of the person, which is seconds for a lifetime of a wearable.
CREATE INDEX health_data_kind
    ON health_data (user_id, data_type, "timestamp" DESC, id DESC);
CREATE INDEX health_data_received ON health_data USING brin (created_at)
    WITH (pages_per_range = 64);
-- No index for the rotation of keys on (user_id, dek_version): a rotation
-- reads all rows of one person, which the primary key's prefix serves, and
-- every insert would pay for it.

-- What happens to one type: the roll-ups of a type and the lists filtered
-- by it.  (user_id, data_type, timestamp) is left out on purpose: a list
-- filtered by type walks the person's own rows in time order.

INSERT INTO sealed_columns VALUES
    ('health_data', 'value', 'sealed'), ('health_data', 'original', 'sealed'),
    ('health_data', 'notes', 'sealed'),
    ('health_data', 'source_id', 'sealed'),
    ('health_data', 'custom', 'sealed'),
    ('health_data', 'slug_index', 'blind'),
    ('health_data', 'dedup_key', 'blind');

\set own 'user_id = (SELECT hm_actor()) OR user_id = ANY ((SELECT hm_actors())::uuid[])'
\set may_read 'hm_may(hm_actor(), user_id, ''read'')'
\set may_write 'hm_may(hm_actor(), user_id, ''write'')'
\set rollup '''00000000-0000-7000-8000-000000000001''::uuid'

CALL hm_secure('health_data');
CREATE POLICY health_data_read ON health_data FOR SELECT TO hm_api, hm_worker
    USING (:own OR :may_read);
CREATE POLICY health_data_add ON health_data FOR INSERT TO hm_api, hm_worker
    WITH CHECK (:own OR :may_write);
-- The demo's person, by the host command: it writes, and reads nothing.
CREATE POLICY health_data_add_cli ON health_data FOR INSERT TO hm_cli
    WITH CHECK (user_id = hm_actor());
CREATE POLICY health_data_change ON health_data
    FOR UPDATE TO hm_api, hm_worker USING (:own OR :may_write);
CREATE POLICY health_data_remove ON health_data
    FOR DELETE TO hm_api, hm_worker USING (:own OR :may_write);
CREATE POLICY health_data_rollup ON health_data FOR SELECT TO hm_worker
    USING ((SELECT hm_actor()) = :rollup);

-- Whose, when measured and when received are written once.
GRANT SELECT, INSERT, DELETE ON health_data TO hm_api, hm_worker;
GRANT INSERT ON health_data TO hm_cli;
GRANT UPDATE (updated_at, confidence, dek_version, version, data_type, unit,
              source, value, original, notes, source_id, custom, slug_index,
              dedup_key) ON health_data TO hm_api, hm_worker;

-- One leaf.  Ciphertext does not compress: trying would only cost.  Inserts
-- alone must bring vacuum often enough that lists read the visibility map.
CREATE PROCEDURE hm_make_leaf(n int)
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    leaf  text := 'public.health_data_p' || n;
BEGIN
    EXECUTE format('CREATE TABLE %s PARTITION OF public.health_data '
                   'FOR VALUES WITH (MODULUS 8, REMAINDER %s) WITH ('
                   'fillfactor = 95, '
                   'autovacuum_vacuum_scale_factor = 0.05, '
                   'autovacuum_vacuum_insert_scale_factor = 0.05, '
                   'autovacuum_analyze_scale_factor = 0.05)', leaf, n);
    EXECUTE format('ALTER TABLE %s ALTER value SET STORAGE EXTERNAL, '
                   'ALTER original SET STORAGE EXTERNAL, '
                   'ALTER notes SET STORAGE EXTERNAL, '
                   'ALTER source_id SET STORAGE EXTERNAL, '
                   'ALTER custom SET STORAGE EXTERNAL', leaf);
    CALL public.hm_secure_leaf(leaf, 'public.health_data');
END
$$;

DO $$
BEGIN
    FOR n IN 0..7 LOOP
        CALL hm_make_leaf(n);
    END LOOP;
END
$$;

-- Which leaf holds a person, asked of PostgreSQL's own hash so that it can
-- never disagree with where the rows are.  The expression is inlined; about
-- a microsecond, once per load of a person's keys.
CREATE FUNCTION hm_leaf(owner uuid) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 0,
                                      owner) THEN 0
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 1,
                                      owner) THEN 1
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 2,
                                      owner) THEN 2
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 3,
                                      owner) THEN 3
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 4,
                                      owner) THEN 4
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 5,
                                      owner) THEN 5
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 6,
                                      owner) THEN 6
        WHEN satisfies_hash_partition('public.health_data'::regclass, 8, 7,
                                      owner) THEN 7
    END
$$;

GRANT EXECUTE ON FUNCTION hm_leaf(uuid)
    TO hm_api, hm_worker, hm_cli, hm_admin;

-- Roll-ups, written by the worker only.
CREATE TABLE health_metrics_aggregation (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL,
    metric       text NOT NULL,
    slug_index   bytea NOT NULL DEFAULT '',
    bucket       text NOT NULL
        CHECK (bucket IN ('hour', 'day', 'week', 'month')),
    start        timestamptz NOT NULL,
    aggregates   bytea NOT NULL,
    dek_version  int NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    version      int NOT NULL DEFAULT 1,
    UNIQUE (user_id, metric, slug_index, bucket, start)
) WITH (fillfactor = 80);

INSERT INTO sealed_columns VALUES
    ('health_metrics_aggregation', 'aggregates', 'sealed'),
    ('health_metrics_aggregation', 'slug_index', 'blind');

CALL hm_secure('health_metrics_aggregation');
CREATE POLICY health_metrics_aggregation_read ON health_metrics_aggregation
    FOR SELECT TO hm_api, hm_worker USING (:own OR :may_read);
CREATE POLICY health_metrics_aggregation_add ON health_metrics_aggregation
    FOR INSERT TO hm_worker WITH CHECK (:own OR :may_write);
CREATE POLICY health_metrics_aggregation_change ON health_metrics_aggregation
    FOR UPDATE TO hm_worker USING (:own OR :may_write);
CREATE POLICY health_metrics_aggregation_remove ON health_metrics_aggregation
    FOR DELETE TO hm_worker USING (:own OR :may_write);
CREATE POLICY health_metrics_aggregation_rollup ON health_metrics_aggregation
    FOR ALL TO hm_worker USING ((SELECT hm_actor()) = :rollup);

GRANT SELECT ON health_metrics_aggregation TO hm_api;
GRANT SELECT, INSERT, DELETE ON health_metrics_aggregation TO hm_worker;
GRANT UPDATE (aggregates, dek_version, updated_at, version)
    ON health_metrics_aggregation TO hm_worker;

COMMIT;
