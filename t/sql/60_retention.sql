-- Time counts from receipt.
\ir lib/setup.psql
SELECT plan(12);

\set actor '''00000000-0000-7000-8000-000000000002'''

-- Measured in 1980, received today.
UPDATE health_data SET "timestamp" = '1980-05-05' WHERE user_id = :ann;
-- Measured yesterday by its word, received eight years ago.
UPDATE health_data SET created_at = now() - interval '8 years'
 WHERE user_id = :bob;

SELECT is(tap.hm_as('hm_worker', :actor, 'SELECT FROM health_data'), '3',
    'the system actor is shown what is past its time');
SELECT is(tap.hm_as('hm_worker', :actor, format('DELETE FROM %s '
    'WHERE user_id = %L', :'leaf_ann', :ann)), '0',
    'and can delete nothing else');
SELECT is(tap.hm_as('hm_worker', NULL, format('DELETE FROM health_data '
    'WHERE user_id = %L', :bob)), '0', 'without an actor, nothing');
SELECT is(tap.hm_get('hm_worker', NULL, 'SELECT hm_retention_run(2)'), '2',
    'a batch');
SELECT is(tap.hm_get('hm_worker', NULL, 'SELECT hm_retention_run(2)'), '1',
    'the rest');
SELECT is(tap.hm_get('hm_worker', NULL, 'SELECT hm_retention_run(2)'), '0',
    'done');
SELECT is((SELECT count(*)::int FROM health_data WHERE user_id = :ann), 3,
    'rows of 1980 received today stay');
SELECT is((SELECT count(*)::int FROM health_data WHERE user_id = :bob), 0,
    'rows received eight years ago are gone');
SELECT ok((SELECT last_run = now() FROM retention_policies
            WHERE category = 'health_data'), 'the run is noted');

INSERT INTO idempotency_keys (caller, user_id, scope, body_mac, expires_at)
VALUES (:ann, :ann, '\x01', '\x01', now() - interval '1 s'),
       (:ann, :ann, '\x02', '\x01', now() + interval '1 h');
INSERT INTO revocations (subject, user_id, expires_at)
VALUES (gen_random_uuid(), :ann, now() - interval '1 s'),
       (gen_random_uuid(), :ann, now() + interval '1 h');
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM hm_revocations()'), '1',
    'every worker loads the unexpired revocations, without an actor');
SELECT is(tap.hm_get('hm_worker', NULL, 'SELECT hm_retention_run()'), '2',
    'expired records and revocations go');
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT hm_retention_run()'), '42501',
    'not by the API');

SELECT * FROM finish();
ROLLBACK;
