-- Who may see and write whose measurements, through the parent and directly.
\ir lib/setup.psql
SELECT plan(56);

-- No context, no row.
SELECT is(tap.hm_as(r, NULL, 'SELECT FROM ' || t), '0',
          r || ' without an actor sees nothing of ' || t)
  FROM unnest(ARRAY['hm_api', 'hm_worker']) r,
       unnest(ARRAY['health_data', :'leaf_ann', 'users', 'sessions',
                    'user_index_keys', 'health_metrics_aggregation']) t;
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM user_keys'), '1',
    'without an actor only the system''s own key is seen');
SELECT is(tap.hm_as('hm_api', 'nobody', 'SELECT FROM health_data'), '22P02',
    'a context that is no uuid is an error');
SELECT is(tap.hm_as('hm_api', NULL, format($$ INSERT INTO health_data (id,
    user_id, dek_version, data_type, value, "timestamp", source, dedup_key)
    VALUES (gen_random_uuid(), %L, 1, 'weight', '\x01', now(), 'manual',
    '\x77') $$, :ann)), '42501', 'nothing is written without an actor');

-- Oneself.
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT FROM health_data'), '3', 'own');
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT FROM ' || :'leaf_ann'), '3',
    'own, on the leaf');
SELECT is(tap.hm_as('hm_api', :ann, format($$ INSERT INTO %s (id, user_id,
    dek_version, data_type, value, "timestamp", source, dedup_key) VALUES
    (gen_random_uuid(), %L, 1, 'weight', '\x01', now(), 'manual', '\x01')
    ON CONFLICT (user_id, dedup_key) DO NOTHING $$, :'leaf_ann', :ann)), '0',
    'the same record again is no error and no row');
SELECT is(tap.hm_as('hm_api', :ann, format($$ INSERT INTO %s (id, user_id,
    dek_version, data_type, value, "timestamp", source, dedup_key) VALUES
    (gen_random_uuid(), %L, 1, 'weight', '\x01', now(), 'manual', '\x77')
    ON CONFLICT (user_id, dedup_key) DO NOTHING RETURNING id $$,
    :'leaf_ann', :ann)), '1', 'a new one is');
SELECT is(tap.hm_as('hm_api', :ann, format(
    'UPDATE %s SET value = ''\x05'', version = version + 1 WHERE id = '
    '''b0000000-0000-7000-8000-000000000001'' AND user_id = %L',
    :'leaf_ann', :ann)), '1', 'own rows change');
SELECT is(tap.hm_as('hm_api', :ann, format(
    'DELETE FROM %s WHERE dedup_key = ''\x77''', :'leaf_ann')), '1',
    'own rows go');

-- Another.
SELECT is(tap.hm_as('hm_api', :ann, format(
    'SELECT FROM health_data WHERE user_id = %L', :bob)), '0', 'not Bob''s');
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT FROM ' || :'leaf_bob'
    || format(' WHERE user_id = %L', :bob)), '0', 'nor on his leaf');
SELECT is(tap.hm_as('hm_api', :ann, format('DELETE FROM %s WHERE user_id = %L',
    :'leaf_bob', :bob)), '0', 'nor to delete there');
SELECT is(tap.hm_as('hm_api', :ann, format($$ INSERT INTO %s (id, user_id,
    dek_version, data_type, value, "timestamp", source, dedup_key) VALUES
    (gen_random_uuid(), %L, 1, 'weight', '\x01', now(), 'manual', '\x78') $$,
    t, :bob)), '42501', 'nor to write: ' || t)
  FROM unnest(ARRAY['health_data', :'leaf_bob']) t;

-- Several at once: own records of each, nothing of anyone else.
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM health_data',
    '{' || :ann || ',' || :bob || '}'), '6', 'two actors, two people''s rows');
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM health_data',
    '{' || :doc || '}'), '0', 'a doctor in the multi form has his own only');

-- A doctor.
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'a doctor without a relationship');
SELECT is(tap.hm_as('hm_api', :doc, format($$ INSERT INTO care_relationships
    (id, patient_id, doctor_id, created_by) VALUES
    ('c0000000-0000-7000-8000-000000000001', %L, %L, %L) $$,
    :ann, :doc, :doc)), '1', 'he proposes');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'pending is not yet');
SELECT is(tap.hm_as('hm_api', :doc,
    'UPDATE care_relationships SET status = ''active'''), '42501',
    'he cannot accept for her');
SELECT is(tap.hm_as('hm_api', :ann,
    'UPDATE care_relationships SET status = ''active'', accepted_at = now()'),
    '1', 'she accepts');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '3',
    'assigned: reads hers');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM ' || :'leaf_ann'), '3',
    'on the leaf too');
SELECT is(tap.hm_as('hm_api', :doc, format(
    'SELECT FROM user_keys WHERE user_id = %L', :ann)), '1', 'and her key');
SELECT is(tap.hm_as('hm_api', :doc, format(
    'UPDATE %s SET value = ''\x06'' WHERE user_id = %L', :'leaf_ann', :ann)),
    '3', 'assigned: writes hers');
SELECT is(tap.hm_as('hm_api', :doc, format(
    'SELECT FROM users WHERE id = %L', :ann)), '0', 'not her account');
SELECT is(tap.hm_as('hm_api', :doc, 'UPDATE care_relationships SET '
    'until = now() + interval ''9 years'''), '42501', 'nor for longer');
SELECT is(tap.hm_as('hm_api', :other, 'SELECT FROM health_data'), '0',
    'another doctor sees nothing');

UPDATE users SET is_active = false WHERE id = :doc;
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'a disabled doctor');
UPDATE users SET is_active = true WHERE id = :doc;
UPDATE users SET email_verified_at = NULL WHERE id = :ann;
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'an unverified patient');
UPDATE users SET email_verified_at = now() WHERE id = :ann;

INSERT INTO consents (id, user_id, purpose, granted, created_at) VALUES
    ('d0000000-0000-7000-8000-000000000001', :ann, 'data_processing', true,
     now() - interval '2 days');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '3',
    'consent given');
INSERT INTO consents (id, user_id, purpose, granted) VALUES
    ('d0000000-0000-7000-8000-000000000002', :ann, 'data_processing', false);
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'consent withdrawn: the newest row counts');
DELETE FROM consents WHERE id = 'd0000000-0000-7000-8000-000000000002';
UPDATE consents SET withdrawn_at = now();
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'consent withdrawn: on its row');
UPDATE consents SET withdrawn_at = NULL;

UPDATE care_relationships SET until = now() - interval '1 second';
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'run out');
UPDATE care_relationships SET until = now() + interval '1 day';
SELECT is(tap.hm_as('hm_api', :doc, 'UPDATE care_relationships SET '
    'status = ''ended'', ended_at = now()'), '1', 'the doctor ends it');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0', 'ended');

-- An administrator.
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM users'), '6',
    'an administrator sees accounts');
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM health_data'), '0',
    'admin_phi break_glass: no record');
INSERT INTO break_glass_grants (id, user_id, actor_id, reason, dek_version,
                                expires_at)
VALUES ('e0000000-0000-7000-8000-000000000001', :ann, :admin, '\x01', 1,
        now() + interval '10 minutes');
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM health_data'), '3',
    'a grant opens one person''s');
SELECT is(tap.hm_as('hm_api', :admin,
    'UPDATE health_data SET value = ''\x00'''), '0', 'to read only');
UPDATE break_glass_grants SET ended_at = now();
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM health_data'), '0',
    'until it ends');
UPDATE hm_settings SET value = 'all' WHERE name = 'admin_phi';
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM health_data'), '6',
    'admin_phi all: every record');
SELECT is(tap.hm_as('hm_api', :admin, format(
    'UPDATE users SET role = ''doctor'' WHERE id = %L', :bob)), '1',
    'another''s role changes');
SELECT is(tap.hm_as('hm_api', :rita, 'SELECT FROM health_data'), '0',
    'a researcher never');

SELECT * FROM finish();
ROLLBACK;
