-- The device of a session, and when it is trusted no more.
\ir lib/setup.psql
SELECT plan(9);

\set dev '''d0000000-0000-4000-8000-000000000001'''
\set first '''d0000000-0000-7000-8000-0000000000f1'''
\set second '''d0000000-0000-7000-8000-0000000000f2'''
\set ask '''SELECT hm_device_ended(%L, %L)'''

SELECT is(tap.hm_get('hm_api', NULL, format(:ask, :ann, :dev)), 'false',
    'a device nobody has heard of has not ended');
SELECT is(tap.hm_as('hm_api', :ann, format('INSERT INTO sessions (id, '
    'user_id, role, expires_at, dek_version, device_id) VALUES (%L, %L, '
    '''patient'', now() + interval ''1 d'', 1, %L)', s, :ann, :dev)), '1',
    'a session says its device')
  FROM unnest(ARRAY[:first, :second]::uuid[]) AS s;
SELECT is(tap.hm_as('hm_api', :ann, format('UPDATE sessions SET device_id = '
    'NULL WHERE id = %L', :first)), '42501', 'and no other later');
UPDATE sessions SET ended_at = now(), end_reason = 'logout'
 WHERE id = :first;
SELECT is(tap.hm_get('hm_api', NULL, format(:ask, :ann, :dev)), 'false',
    'a logout keeps the trust');
UPDATE sessions SET ended_at = now(), end_reason = 'revoked'
 WHERE id = :second;
SELECT is(tap.hm_get('hm_api', NULL, format(:ask, :ann, :dev)), 'true',
    'what the owner ended does not');
SELECT is(tap.hm_get('hm_api', NULL, format(:ask, :bob, :dev)), 'false',
    'of that person');
SELECT is(tap.hm_get('hm_api', NULL,
    'SELECT hm_device_ended(NULL, NULL) IS NULL'), 'true', 'none, no answer');
SELECT is(tap.hm_as('hm_worker', NULL, format(:ask, :ann, :dev)), '42501',
    'not the worker''s to ask');

SELECT * FROM finish();
ROLLBACK;
