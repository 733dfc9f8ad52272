-- The ways in: registering, logging in, refreshing, the first key.
\ir lib/setup.psql
SELECT plan(20);

\set eve '''a0000000-0000-7000-8000-00000000000e'''
\set ses '''a0000000-0000-7000-8000-0000000000e1'''
\set register 'INSERT INTO users (id, email, email_index, password_hash, dek_version) VALUES (%L, ''\x01'', %L, ''h'', 1) ON CONFLICT (email_index) DO NOTHING RETURNING id'

SELECT is(tap.hm_as('hm_api', :eve, format(:'register', :eve, 'eve')), '1',
    'a new person registers as herself');
SELECT is(tap.hm_as('hm_api', 'a0000000-0000-7000-8000-0000000000ff',
    format(:'register', 'a0000000-0000-7000-8000-0000000000ff', 'eve')), '0',
    'a taken address is a result, not an error');
SELECT is(tap.hm_as('hm_api', :eve, format(stmt, :eve)), '1', stmt)
  FROM (VALUES
    ('INSERT INTO user_keys (user_id, version, kek_version, wrapped_dek) '
     'VALUES (%L, 1, 1, ''\x01'')'),
    ('INSERT INTO user_index_keys (user_id, kek_version, wrapped_key) '
     'VALUES (%L, 1, ''\x01'')'),
    ('INSERT INTO user_preferences (user_id) VALUES (%L)'),
    ('INSERT INTO sessions (id, user_id, role, expires_at, dek_version) '
     'VALUES (''a0000000-0000-7000-8000-0000000000e1'', %L, ''patient'', '
     'now() + interval ''7 days'', 1)'),
    ('INSERT INTO consents (id, user_id, purpose, granted) '
     'VALUES (gen_random_uuid(), %L, ''data_processing'', true)')
  ) AS s (stmt);
SELECT is(tap.hm_as('hm_api', :eve, format('INSERT INTO user_keys (user_id, '
    'version, kek_version, wrapped_dek) VALUES (%L, 2, 1, ''\x01'')', :eve)),
    '23505', 'one active key at a time');

-- Before there is an actor.
SELECT is(tap.hm_get('hm_api', NULL,
    'SELECT id FROM hm_login_lookup(''eve'')'), :eve, 'login finds one row');
SELECT is(tap.hm_as('hm_api', NULL, 'SELECT FROM hm_login_lookup(''no'')'),
    '0', 'or none');
SELECT is(tap.hm_as('hm_worker', NULL, 'SELECT hm_login_lookup(''eve'')'),
    '42501', 'not the worker');
SELECT is(tap.hm_get('hm_api', NULL, format(
    'SELECT user_id FROM hm_session_lookup(%L)', :ses)), :eve,
    'refresh finds the session');
SELECT is(tap.hm_as('hm_api', :eve, format('UPDATE sessions SET '
    'counter = counter + 1 WHERE id = %L AND counter = 0', :ses)), '1',
    'and turns its counter');
SELECT is(tap.hm_as('hm_api', :bob, format('UPDATE sessions SET '
    'ended_at = now() WHERE id = %L', :ses)), '0', 'nobody else''s');
SELECT is(tap.hm_get('hm_api', :eve, format('SELECT hm_end_session(%L, '
    '''logout'')', :ses)), 'true', 'she ends it');
SELECT is(tap.hm_as('hm_api', :doc, 'SELECT FROM sessions'), '0',
    'a doctor sees no session');

-- The system's own keys are the host command's to make.
DELETE FROM user_keys WHERE user_id = :nil;
SELECT is(tap.hm_as('hm_cli', NULL, format('INSERT INTO user_keys (user_id, '
    'version, kek_version, wrapped_dek) VALUES (%L, 1, 1, ''\x01'') '
    'ON CONFLICT DO NOTHING', :nil)), '1', 'the first key');
SELECT is(tap.hm_as('hm_cli', NULL, format('INSERT INTO user_index_keys '
    '(user_id, kek_version, wrapped_key) VALUES (%L, 1, ''\x01'') '
    'ON CONFLICT DO NOTHING', :nil)), '1', 'the first index key');
SELECT is(tap.hm_as('hm_cli', :eve, format('UPDATE users SET role = ''admin'' '
    'WHERE id = %L', :eve)), '1', 'and the first administrator');
SELECT is(tap.hm_as('hm_worker', NULL, 'INSERT INTO audit_keys (month, '
    'kek_version, wrapped_key) VALUES (202611, 1, ''\x01'') '
    'ON CONFLICT (month) DO NOTHING'), '1', 'a month''s audit key');

SELECT * FROM finish();
ROLLBACK;
