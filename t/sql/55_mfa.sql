-- Second factors: whose they are, what works once, and that users.mfa tells
-- the truth.
\ir lib/setup.psql
SELECT plan(39);

\set pk1 '''a0000000-0000-7000-8000-0000000000f1'''
\set pk2 '''a0000000-0000-7000-8000-0000000000f2'''
\set pk3 '''a0000000-0000-7000-8000-0000000000f3'''
\set totp 'INSERT INTO mfa_totp (user_id, secret, dek_version) VALUES (%L, ''\x01'', 1)'
\set passkey 'INSERT INTO passkeys (id, user_id, credential_index, credential, dek_version) VALUES (%L, %L, %L, ''\x01'', 1)'
\set mfa 'SELECT mfa::text FROM users WHERE id = %L'
\set use 'UPDATE mfa_totp SET last_step = %s WHERE user_id = %L AND confirmed_at IS NOT NULL AND last_step < %s'
\set code 'DELETE FROM mfa_recovery_codes WHERE user_id = %L AND code_index = %L'

-- One's own, and nobody else's.
SELECT is(tap.hm_as('hm_api', :bob, format(:'totp', :ann)), '42501',
    'nobody sets up a factor for another');
SELECT is(tap.hm_as('hm_api', NULL, format(:'totp', :ann)), '42501',
    'nor does nobody');
SELECT is(tap.hm_as('hm_api', :ann, format(:'totp', :ann)), '1',
    'one for oneself');
SELECT is(tap.hm_get('hm_api', :ann, format(:'mfa', :ann)), '{}',
    'which is no factor until it is confirmed');
SELECT is(tap.hm_as('hm_api', :ann, format(:'use', 5, :ann, 5)), '0',
    'and opens nothing');
SELECT is(tap.hm_as('hm_api', :ann, format('UPDATE mfa_totp SET '
    'confirmed_at = now(), last_step = 4 WHERE user_id = %L', :ann)), '1',
    'it is confirmed');
SELECT is(tap.hm_get('hm_api', :ann, format(:'mfa', :ann)), '{totp}',
    'and now users.mfa says so');
SELECT is(tap.hm_as('hm_api', who, 'SELECT FROM mfa_totp'), '0',
    what || ' sees none of it')
  FROM (VALUES (:bob, 'another'), (:doc, 'a doctor'), (:admin, 'an admin'),
               (NULL, 'nobody')) AS p (who, what);
SELECT is(tap.hm_as('hm_api', :admin, format(:'use', 6, :ann, 6)), '0',
    'nor can an admin use it up');
SELECT is(tap.hm_as('hm_cli', :ann, 'SELECT FROM mfa_totp'), '42501',
    'the host command reads no secret');
SELECT is(tap.hm_as('hm_api', :ann, format('UPDATE mfa_totp SET user_id = %L',
    :bob)), '42501', 'an owner is written once');

-- A step is used once, and time does not go back.
SELECT is(tap.hm_as('hm_api', :ann, format(:'use', 5, :ann, 5)), '1',
    'a code is used');
SELECT is(tap.hm_as('hm_api', :ann, format(:'use', 5, :ann, 5)), '0',
    'once');
SELECT is(tap.hm_as('hm_api', :ann, format(:'use', 4, :ann, 4)), '0',
    'and not one before it');

-- Recovery codes.
SELECT is(tap.hm_as('hm_api', :ann, format('INSERT INTO mfa_recovery_codes '
    '(user_id, code_index) SELECT %L, decode(lpad(n::text, 2, ''0''), ''hex'') '
    'FROM generate_series(1, 10) n', :ann)), '10', 'ten recovery codes');
SELECT is(tap.hm_as('hm_api', :bob, format(:'code', :ann, '\x01')), '0',
    'another cannot use one');
SELECT is(tap.hm_as('hm_api', :ann, format(:'code', :ann, '\x01')), '1',
    'the owner can');
SELECT is(tap.hm_as('hm_api', :ann, format(:'code', :ann, '\x01')), '0',
    'once');

-- Passkeys.
SELECT is(tap.hm_as('hm_api', :bob, format(:'passkey', :pk3, :ann, 'x')),
    '42501', 'nobody registers a passkey for another');
SELECT is(tap.hm_as('hm_api', :ann, format(:'passkey', :pk1, :ann, 'one')),
    '1', 'a passkey');
SELECT is(tap.hm_as('hm_api', :ann, format(:'passkey', :pk2, :ann, 'two')),
    '1', 'and another');
SELECT is(tap.hm_as('hm_api', :bob, format(:'passkey', :pk3, :bob, 'one')),
    '23505', 'a credential is one person''s');
SELECT is(tap.hm_get('hm_api', :ann, format(:'mfa', :ann)),
    '{totp,passkey}', 'users.mfa knows both kinds');
SELECT is(tap.hm_get('hm_api', NULL,
    'SELECT user_id || role FROM hm_passkey_lookup(''one'')'),
    :ann || 'patient', 'a login finds whose it is');
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM hm_passkey_lookup(''no'')'),
    '0', 'or nobody');
SELECT is(tap.hm_as('hm_worker', NULL, 'SELECT hm_passkey_lookup(''one'')'),
    '42501', 'the worker does not ask');
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM passkeys'), '0',
    'an admin sees none');

-- Challenges.
SELECT is(tap.hm_as('hm_api', NULL, 'INSERT INTO webauthn_challenges '
    'VALUES (''a'', NULL, now() + interval ''5 min'')'), '1',
    'a challenge for a login');
SELECT is(tap.hm_as('hm_api', :bob, format('INSERT INTO webauthn_challenges '
    'VALUES (''b'', %L, now() + interval ''5 min'')', :ann)), '42501',
    'none for another''s enrolment');
SELECT is(tap.hm_as('hm_api', :ann, format('INSERT INTO webauthn_challenges '
    'VALUES (''c'', %L, now() + interval ''5 min'')', :ann)), '1',
    'one for one''s own');
SELECT is(tap.hm_as('hm_api', :bob, 'DELETE FROM webauthn_challenges '
    'WHERE digest = ''c'''), '0', 'which another cannot take');
SELECT is(tap.hm_as('hm_api', NULL, 'DELETE FROM webauthn_challenges '
    'WHERE digest = ''a'''), '1', 'a login''s is taken');

-- The end: one kind, then all.
SELECT is(tap.hm_as('hm_api', :ann, format('DELETE FROM mfa_totp WHERE '
    'user_id = %L', :ann)), '1', 'codes are given up');
SELECT is(tap.hm_get('hm_api', :ann, 'SELECT array_to_string(mfa, '','') '
    '|| count(c) FROM users u, mfa_recovery_codes c GROUP BY mfa'),
    'passkey9', 'passkeys stay, and so do recovery codes');
SELECT is(tap.hm_get('hm_api', :ann, format('SELECT hm_mfa_clear(%L)',
    :ann)), '2', 'all factors end at once');
SELECT is(tap.hm_get('hm_api', :ann, 'SELECT mfa::text || '
    '(SELECT count(*) FROM mfa_recovery_codes) FROM users'), '{}0',
    'and recovery codes with them');

SELECT * FROM finish();
ROLLBACK;
