-- What needs two real connections: a shard lives as long as its connection,
-- and retiring a month gives up rather than queue before the requests.  The
-- connections are dblink's, as the real login roles; what they commit stays
-- in the throw-away cluster.
\ir lib/setup.psql
SELECT plan(14);

CREATE EXTENSION dblink SCHEMA tap;
SELECT format('host=%s dbname=%s user=', current_setting(
    'unix_socket_directories'), current_database()) AS door \gset

\set s1 'f1000000-0000-7000-8000-000000000001'
\set s2 'f1000000-0000-7000-8000-000000000002'
\set s3 'f1000000-0000-7000-8000-000000000003'

SELECT dblink_connect('su', :'door' || 'postgres');
SELECT dblink_exec('su', 'CALL hm_audit_make_leaf(''2015-03-15'')');
SELECT is(dblink_connect('one', :'door' || 'hm_api'), 'OK', 'one');
SELECT is(dblink_connect('two', :'door' || 'hm_worker'), 'OK', 'two');
SELECT is(dblink_connect('cli', :'door' || 'hm_cli'), 'OK', 'cli');

-- Contexts and settings of a real session.
SELECT is(v, 'force_generic_plan on 5s', 'hm_api''s session defaults')
  FROM dblink('one', $$ SELECT current_setting('plan_cache_mode') || ' '
      || current_setting('synchronous_commit') || ' '
      || current_setting('statement_timeout') $$) AS t (v text);

SELECT lives_ok(format('SELECT FROM dblink(''one'', %L) AS t (v text)',
    'SELECT hm_audit_open(' || quote_literal(:'s1') || ')'), 'a shard');
SELECT is(dblink_exec('one', format('INSERT INTO audit_logs (shard, seq, at) '
    'SELECT %L, n, now() FROM generate_series(1, 7) n ON CONFLICT DO NOTHING',
    :'s1')), 'INSERT 0 7', 'seven rows');

SELECT lives_ok(format('SELECT FROM dblink(''two'', %L) AS t (v text)',
    'SELECT hm_audit_open(' || quote_literal(:'s2') || ')'), 'another');
SELECT is((SELECT closed_at FROM audit_shards WHERE shard = :'s1'), NULL,
    'a living shard is left alone');

SELECT is(dblink_disconnect('one'), 'OK', 'its connection ends');
-- The backend lets go of its lock a moment after the client is gone.
DO $$
BEGIN
    FOR n IN 1..100 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a
                              USING (pid) WHERE l.locktype = 'advisory'
                                 AND a.usename = 'hm_api');
        PERFORM pg_sleep(0.02), pg_stat_clear_snapshot();
    END LOOP;
END
$$;
SELECT lives_ok(format('SELECT FROM dblink(''cli'', %L) AS t (v text)',
    'SELECT hm_audit_open(' || quote_literal(:'s3') || ')'), 'a successor');
SELECT is((SELECT last_seq FROM audit_shards WHERE shard = :'s1'), 8::bigint,
    'closes it after its last row');
SELECT is((SELECT count(*)::int FROM audit_logs WHERE shard = :'s1'
            AND action = 101 AND seq = 8), 1, 'with a row of its own');

-- A reader holds the audit; DETACH must not wait for it.
SELECT dblink_exec('two', 'BEGIN');
SELECT FROM dblink('two', 'SELECT count(*) FROM audit_logs') AS t (n bigint);
SELECT throws_ok('SELECT hm_audit_retire(''2015-03-01'')', '55P03', NULL,
    'retiring gives up after 100 ms');
SELECT is(dblink_exec('two', 'ROLLBACK'), 'ROLLBACK', 'the reader is done');

SELECT * FROM finish();
ROLLBACK;
