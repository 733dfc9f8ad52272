-- The audit: append only, contiguous, closed by the next, retired by month.
\ir lib/setup.psql
SELECT plan(31);

\set s1 '''f0000000-0000-7000-8000-000000000001'''
\set s2 '''f0000000-0000-7000-8000-000000000002'''
\set s3 '''f0000000-0000-7000-8000-000000000003'''
\set batch 'format(''INSERT INTO audit_logs (shard, seq, at, action, actor, user_id) SELECT %L, s, now(), 1, %L, %L FROM generate_series(1, 5) s ON CONFLICT DO NOTHING'', '

-- Any login role opens a shard; only this function can.
SELECT is(tap.hm_as(r, NULL, format('SELECT hm_audit_open(%L)',
    gen_random_uuid())), '1', r || ' opens a shard')
  FROM unnest(ARRAY['hm_api', 'hm_worker', 'hm_cli']) r;
SELECT is(tap.hm_as('hm_readonly', NULL, 'SELECT hm_audit_open('
    || quote_literal(gen_random_uuid()) || ')'), '42501', 'nobody else');
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT hm_audit_open(NULL)'), '22004',
    'a shard has an id');
SELECT is(tap.hm_as('hm_api', NULL, format('SELECT hm_audit_open(%L)', :s1)),
    '1', 'the first');
SELECT is((SELECT role FROM audit_shards WHERE shard = :s1), 'hm_api',
    'it says who opened it');
SELECT is(tap.hm_as('hm_api', NULL, format('SELECT hm_audit_open(%L)', :s1)),
    '23505', 'a shard is opened once');

-- A batch holds rows of many people, without an actor.
SELECT is(tap.hm_as('hm_api', NULL, :batch :s1, :doc, :ann)), '5',
    'rows about anyone are recorded');
SELECT is(tap.hm_as('hm_api', NULL, :batch :s1, :doc, :ann)), '0',
    'and sending them again adds none');
SELECT is(tap.hm_as('hm_api', :doc, format('INSERT INTO audit_logs (shard, '
    'seq, at, actor, user_id) VALUES (%L, 9, now(), %L, %L) '
    'ON CONFLICT (shard, seq, at) DO NOTHING', :s3, :doc, :ann)), '42501',
    'with a named arbiter the SELECT policy would refuse: do not name it');
SELECT is(tap.hm_as('hm_api', NULL, format('INSERT INTO audit_logs (shard, '
    'seq, at) VALUES (%L, 1, %L) ON CONFLICT DO NOTHING', :s3, at)), '1',
    'no date fails: ' || at)
  FROM unnest(ARRAY['1970-01-01', '2150-01-01', 'infinity']) at;
SELECT is(tap.hm_as('hm_api', NULL, 'INSERT INTO audit_logs (shard, seq, at) '
    'VALUES (NULL, 1, now())'), '42501', 'but a row has a shard');

-- Who reads it.
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT FROM audit_logs'), '5',
    'the subject sees who looked');
SELECT is(tap.hm_as('hm_api', :bob, 'SELECT FROM audit_logs'), '0',
    'nobody else does');
SELECT cmp_ok(tap.hm_as('hm_api', :admin, 'SELECT FROM audit_logs')::int,
    '>=', 5, 'an administrator does');
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM audit_logs'), '0',
    'no actor, no row');
SELECT is(tap.hm_as('hm_api', :bob, format('SELECT FROM audit_logs_%s',
    to_char(now() AT TIME ZONE 'UTC', 'YYYYMM'))), '0', 'nor on the leaf');

-- The successor closes what was left behind.  This session holds the lock on
-- the first shard still; a session may close its own former shard.
SELECT is(tap.hm_as('hm_worker', NULL, format('SELECT hm_audit_open(%L)',
    :s2)), '1', 'a successor opens');
SELECT results_eq(
    format('SELECT seq, action::int FROM audit_logs WHERE shard = %L '
           'AND action = 101', :s1),
    'SELECT 6::bigint, 101', 'and closes the first after its last row');
SELECT is((SELECT last_seq FROM audit_shards WHERE shard = :s1), 6::bigint,
    'with its last number');
SELECT is((SELECT count(*)::int FROM audit_shards WHERE closed_at IS NULL), 1,
    'one shard is open');

-- Months.
SELECT is(tap.hm_get('hm_worker', NULL, 'SELECT hm_audit_ensure_partitions()'),
    '0', 'the next two months are there already');
INSERT INTO audit_logs (shard, seq, at, user_id)
VALUES (:s3, 2, '2015-03-07', :ann);
SET LOCAL ROLE hm_owner;         -- whom FORCE holds too
CALL hm_audit_make_leaf('2015-03-15');
RESET ROLE;
SELECT is((SELECT tableoid::regclass::text FROM audit_logs
            WHERE shard = :s3 AND seq = 2), 'audit_logs_201503',
    'a new month takes over what DEFAULT caught');
SELECT ok((SELECT bool_and(relrowsecurity AND relforcerowsecurity)
             FROM pg_class WHERE oid IN ('audit_logs_201503'::regclass,
                                         'audit_logs_default'::regclass)),
    'and both are fenced after it');
SELECT is(tap.hm_get('hm_worker', NULL, format('SELECT hm_audit_retire(%L)',
    (now() - interval '2 years')::date)), '42501', 'young months stay');
SELECT is(tap.hm_get('hm_worker', NULL,
    'SELECT hm_audit_retire(''2015-03-01'')'), 'audit_logs_201503',
    'an old one is detached');
SELECT is((SELECT count(*)::int FROM pg_inherits
            WHERE inhrelid = 'audit_logs_201503'::regclass), 0,
    'and is no leaf any more');
SELECT is(tap.hm_as('hm_api', NULL, format('INSERT INTO audit_logs_201503 '
    '(shard, seq, at) VALUES (%L, 3, ''2015-03-01'')', :s3)), '42501',
    'nor can it be written');

SELECT * FROM finish();
ROLLBACK;
