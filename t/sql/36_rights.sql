-- Relationships, break-glass and accounts as hm_api changes them: the rules
-- that hold whatever the module sends.
\ir lib/setup.psql
SELECT plan(48);

\set care '''c0000000-0000-7000-8000-0000000000%s'''
\set add 'INSERT INTO care_relationships (id, patient_id, doctor_id, status, created_by) VALUES (gen_random_uuid(), %L, %L, %L, %L)'

-- Who can be in one at all.
SELECT is(tap.hm_get('hm_api', NULL, format('SELECT hm_care_parties(%L, %L)',
    :ann, :doc)), 'true', 'a patient and a doctor');
SELECT is(tap.hm_get('hm_api', NULL, format('SELECT hm_care_parties(%L, %L)',
    p, d)), 'false', p || ' and ' || d || ' cannot')
  FROM (VALUES (:ann, :bob), (:ann, :admin), (:ann, :rita), (:doc, :doc),
               (:ann, :nil), (:nil, :doc)) v (p, d);

-- Who may make what of it.
SELECT is(tap.hm_as('hm_api', :doc, format(:'add', :ann, :doc, 'active',
    :doc)), '42501', 'a doctor makes none active');
SELECT is(tap.hm_as('hm_api', :doc, format(:'add', :ann, :other, 'pending',
    :doc)), '42501', 'nor proposes another');
SELECT is(tap.hm_as('hm_api', :bob, format(:'add', :ann, :doc, 'active',
    :bob)), '42501', 'a patient makes none for another');
SELECT is(tap.hm_as('hm_api', :admin, format(:'add', :ann, :doc, 'active',
    :admin)), '42501', 'nor an administrator');
SELECT is(tap.hm_as('hm_api', :admin, format(:'add', :ann, :doc, 'active',
    :ann)), '42501', 'nor in her name');
SELECT is(tap.hm_as('hm_api', :ann, format(:'add', :ann, :rita, 'active',
    :ann)), '42501', 'and never with one who is no doctor');
UPDATE users SET email_verified_at = NULL WHERE id = :ann;
SELECT is(tap.hm_as('hm_api', :ann, format(:'add', :ann, :doc, 'active',
    :ann)), '42501', 'nor before her address is verified');
UPDATE users SET email_verified_at = now() WHERE id = :ann;
UPDATE hm_settings SET value = 'staff' WHERE name = 'care_assign';
SELECT is(tap.hm_as('hm_api', :doc, format(:'add', :ann, :doc, 'active',
    :doc)), '42501', 'care_assign staff: a doctor still does not');
SELECT is(tap.hm_as('hm_api', :admin, format(:'add', :ann, :doc, 'active',
    :admin)), '1', 'an administrator does');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '3',
    'and it holds');
UPDATE hm_settings SET value = 'patient' WHERE name = 'care_assign';
SELECT is(tap.hm_as('hm_cli', NULL,
    'UPDATE hm_settings SET value = ''all'' WHERE name = ''care_assign'''),
    '23514', 'the setting has two values');

-- A doctor's own address.
UPDATE users SET email_verified_at = NULL WHERE id = :doc;
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'a doctor without a verified address');
UPDATE users SET email_verified_at = now() WHERE id = :doc;

-- The list of patients.
SELECT is(tap.hm_get('hm_api', :doc, 'SELECT string_agg(user_id::text, '','')'
    ' FROM hm_patients()'), :ann, 'a doctor''s patients');
SELECT is(tap.hm_as('hm_api', w, 'SELECT FROM hm_patients()'), '0',
    'none are ' || w || '''s')
  FROM unnest(ARRAY[:ann, :other, :admin, :rita]) w;
UPDATE care_relationships SET status = 'ended';
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM hm_patients()'), '0',
    'nor any more');

-- Wrapped keys of accounts, for staff; no row comes with them.
SELECT is(tap.hm_as('hm_api', w, format('SELECT FROM hm_staff_keys(%L)',
    :bob)), n, 'keys of an account to ' || w)
  FROM (VALUES (:ann, '0'), (:rita, '0'), (:nil, '0'), (:doc, '1'),
               (:admin, '1')) v (w, n);
SELECT is(tap.hm_as('hm_api', :admin, format('SELECT FROM hm_staff_keys(%L)',
    :nil)), '0', 'not the system''s');

-- Break-glass.
\set open 'SELECT FROM hm_break_glass_open(gen_random_uuid(), %L, ''\x01'', 1)'
SELECT is(tap.hm_as('hm_api', w, format(:'open', :ann)), '0',
    w || ' breaks no glass')
  FROM unnest(ARRAY[:bob, :rita, :nil]) w;
SELECT is(tap.hm_as('hm_api', :doc, format(:'open', :doc)), '0',
    'nobody his own');
SELECT is(tap.hm_as('hm_api', :doc, format(:'open', :ann)), '1', 'a doctor');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '3',
    'reads then');
SELECT is(tap.hm_as('hm_api', :doc, 'UPDATE health_data SET value = ''\x00'''),
    '0', 'and does not write');
SELECT is(tap.hm_as('hm_worker', :doc, format(:'open', :ann)), '42501',
    'the worker opens none');
SELECT is(tap.hm_as('hm_api', :doc, format(:'open', :bob)), '1', 'the second');
SELECT is(tap.hm_as('hm_api', :doc, format(:'open', :rita)), '1', 'third');
UPDATE break_glass_grants SET ended_at = now();
SELECT is(tap.hm_as('hm_api', :doc, format(:'open', :bob)), '1', 'fourth');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '0',
    'opens nothing');
SELECT id AS fourth FROM break_glass_grants WHERE needs_approval \gset
SELECT is(tap.hm_as('hm_api', w, format(
    'SELECT FROM hm_break_glass_approve(%L)', :'fourth')), n,
    'approved by ' || w)
  FROM (VALUES (:doc, '0'), (:other, '0'), (:bob, '0'), (:admin, '1'))
       v (w, n);
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM health_data'), '3',
    'then it does');

SELECT * FROM finish();
ROLLBACK;
