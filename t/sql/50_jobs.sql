-- The queue: coalescing, whose job it is, what the worker may touch.
\ir lib/setup.psql
SELECT plan(20);

\set sweeper '''00000000-0000-7000-8000-000000000003'''
\set rollup '''00000000-0000-7000-8000-000000000001'''
\set job 'INSERT INTO jobs (id, kind, unique_key, user_id, requester, permission) VALUES (gen_random_uuid(), ''analytics.rollup'', ''rollup:a:weight:1'', hm_actor(), hm_actor(), ''health.read'') ON CONFLICT (unique_key) WHERE state IN (''ready'', ''retry'') DO NOTHING'

SELECT is(tap.hm_as('hm_api', :ann, :'job'), '1', 'a write makes a job');
SELECT is(tap.hm_as('hm_api', :ann, :'job'), '0', 'the next write shares it');
SELECT is(tap.hm_as('hm_api', :bob, 'SELECT FROM jobs'), '0', 'not Bob''s');
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT FROM jobs'), '1', 'her own');
SELECT is(tap.hm_as('hm_worker', NULL, 'SELECT FROM jobs'), '0',
    'a worker without an actor sees no job');
SELECT is(tap.hm_as('hm_api', :sweeper, 'SELECT FROM jobs'), '0',
    'a system actor is nobody to the API');
SELECT is(tap.hm_as('hm_worker', :sweeper, 'UPDATE jobs SET '
    'state = ''running'', token = token + 1, attempt = attempt + 1, '
    'lease_until = now() + interval ''30 s'' WHERE state = ''ready'''), '1',
    'the sweeper claims');
SELECT is(tap.hm_as('hm_api', :ann, :'job'), '1',
    'a write after the claim makes a new job');
SELECT is(tap.hm_as('hm_worker', :sweeper, 'UPDATE jobs SET state = ''retry'' '
    'WHERE state = ''running'''), '23505',
    'a retry meets the newer job: the worker must see this and give way');
SELECT is(tap.hm_as('hm_worker', :ann, 'UPDATE jobs SET state = ''done'', '
    'finished_at = now() WHERE state = ''running'''), '1',
    'it ends in the requester''s own transaction');
SELECT is(tap.hm_as('hm_worker', :bob, 'UPDATE jobs SET state = ''done'''),
    '0', 'not in another''s');
SELECT is(tap.hm_as('hm_worker', :sweeper, format('UPDATE jobs SET '
    'requester = %L', :bob)), '42501', 'nobody rewrites who asked');
SELECT is(tap.hm_as('hm_worker', :sweeper, 'INSERT INTO jobs (id, kind) '
    'VALUES (gen_random_uuid(), ''retention.run'')'), '1',
    'a schedule needs no person');
SELECT is(tap.hm_as('hm_worker', :sweeper, format('INSERT INTO jobs (id, '
    'kind, requester) VALUES (gen_random_uuid(), ''x'', %L)', :ann)), '42501',
    'and cannot borrow one');
SELECT is(tap.hm_as('hm_worker', :sweeper, 'SELECT FROM health_data'), '0',
    'the sweeper reads no measurement');
SELECT is(tap.hm_as('hm_worker', :rollup, 'SELECT FROM health_data'), '6',
    'the roll-up does');
SELECT is(tap.hm_as('hm_worker', :rollup, 'DELETE FROM health_data'), '0',
    'and deletes none');
SELECT is(tap.hm_as('hm_worker', :ann, format('INSERT INTO '
    'health_metrics_aggregation (id, user_id, metric, bucket, start, '
    'aggregates, dek_version) VALUES (gen_random_uuid(), %L, ''weight'', '
    '''day'', now(), ''\x01'', 1) ON CONFLICT (user_id, metric, slug_index, '
    'bucket, start) DO UPDATE SET aggregates = excluded.aggregates', :ann)),
    '1', 'an upsert of a roll-up');
SELECT is(tap.hm_get('hm_readonly', NULL,
    'SELECT sum(jobs) FROM hm_job_counts()'), '2', 'counts for the scaler');
SELECT is(tap.hm_as('hm_api', :ann, format('INSERT INTO idempotency_keys '
    '(caller, user_id, scope, body_mac) VALUES (%L, %L, ''\x01'', ''\x02'') '
    'ON CONFLICT (caller, user_id, scope) DO NOTHING', :ann, :bob)), '1',
    'an idempotency record of hers');

SELECT * FROM finish();
ROLLBACK;
