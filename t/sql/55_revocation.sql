-- Ended sessions, changed rights, turned keys: who may cause them, and that
-- each leaves its event.
\ir lib/setup.psql
SELECT plan(47);

\set s1 '''a0000000-0000-7000-8000-0000000000a1'''
\set s2 '''a0000000-0000-7000-8000-0000000000a2'''
\set s3 '''a0000000-0000-7000-8000-0000000000a3'''
\set sb '''a0000000-0000-7000-8000-0000000000b1'''
\set check 'SELECT hm_session_check(%L, %L, %L, %L)'

INSERT INTO sessions (id, user_id, role, expires_at, dek_version)
SELECT s::uuid, u::uuid, 'patient', now() + interval '7 days', 1
  FROM (VALUES (:s1, :ann), (:s2, :ann), (:s3, :ann), (:sb, :bob)) v (s, u);

CREATE FUNCTION tap.events(k text, s text) RETURNS int LANGUAGE sql AS
$$ SELECT count(*)::int FROM revocations
    WHERE kind = k AND subject = s::uuid AND expires_at > now()
      AND at >= now() $$;

-- One session.
SELECT is(tap.hm_get('hm_api', :ann, format(:'check', :s1, :ann, 'patient',
    now())), 'ok', 'an open session is good');
SELECT is(tap.hm_get('hm_api', :bob, format('SELECT hm_end_session(%L, '
    '''x'')', :s1)), 'false', 'not ended by another');
SELECT is(tap.hm_get('hm_api', :doc, format('SELECT hm_end_session(%L, '
    '''x'')', :s1)), 'false', 'nor by a doctor');
SELECT is(tap.hm_get('hm_api', NULL, format('SELECT hm_end_session(%L, '
    '''x'')', :s1)), 'false', 'nor by nobody');
SELECT is(tap.events('session', :s1), 0, 'and no event');
SELECT is(tap.hm_get('hm_api', :ann, format('SELECT hm_end_session(%L, '
    '''logout'')', :s1)), 'true', 'but by its owner');
SELECT is(tap.events('session', :s1), 1, 'which is an event');
SELECT is((SELECT end_reason FROM sessions WHERE id = :s1), 'logout',
    'with its reason');
SELECT is(tap.hm_get('hm_api', :ann, format('SELECT hm_end_session(%L, '
    '''again'')', :s1)), 'false', 'once');
SELECT is(tap.hm_get('hm_api', :ann, format(:'check', :s1, :ann, 'patient',
    now())), 'ended', 'and the check knows');
SELECT is(tap.hm_as('hm_api', :ann, format('UPDATE sessions SET '
    'ended_at = NULL WHERE id = %L', :s1)), '42501',
    'an ended session stays ended');
SELECT is(tap.hm_get('hm_api', :admin, format('SELECT hm_end_session(%L, '
    '''admin'')', :sb)), 'true', 'an administrator ends anyone''s');
SELECT ok((SELECT expires_at > now() + interval '1 hour' FROM revocations
            WHERE subject = :s1), 'kept longer than a token can live');

-- By a plain update: the event is the table's, not the function's.
SELECT is(tap.hm_as('hm_api', :ann, format('UPDATE sessions SET '
    'ended_at = now() WHERE id = %L', :s2)), '1', 'ended without the function');
SELECT is(tap.events('session', :s2), 1, 'is an event all the same');
SELECT is(tap.hm_as('hm_api', :ann, format('UPDATE sessions SET '
    'counter = counter + 1, last_used_at = now() WHERE id = %L', :s3)), '1',
    'a refresh');
SELECT is(tap.events('session', :s3), 0, 'is none');

-- All but one.
INSERT INTO sessions (id, user_id, role, expires_at, dek_version)
SELECT gen_random_uuid(), :ann, 'patient', now() + interval '7 days', 1
  FROM generate_series(1, 3);
SELECT is(tap.hm_get('hm_api', :bob, format('SELECT hm_end_sessions(%L, '
    'NULL, ''x'')', :ann)), '0', 'another ends none');
SELECT is(tap.hm_get('hm_api', :ann, format('SELECT hm_end_sessions(%L, %L, '
    '''password_changed'')', :ann, :s3)), '3', 'all but this one');
SELECT is((SELECT count(*)::int FROM sessions WHERE user_id = :ann
            AND ended_at IS NULL), 1, 'which goes on');
SELECT is((SELECT count(*)::int FROM revocations WHERE user_id = :ann
            AND kind = 'session'), 5, 'each with its event');
SELECT is(tap.hm_get('hm_worker', NULL, format('SELECT hm_end_sessions(%L, '
    'NULL, ''erased'')', :ann)), '1', 'the worker needs no actor');
SELECT is(tap.hm_get('hm_readonly', :ann, format('SELECT hm_end_sessions(%L, '
    'NULL, ''x'')', :ann)), '42501', 'statistics end nothing');

-- Rights.
SELECT is(tap.hm_as('hm_api', :bob, format('SELECT hm_rights_changed(%L)',
    :doc)), '1', 'asked about another');
SELECT is(tap.events('rights', :doc), 0, 'nothing happens');
SELECT is(tap.hm_as('hm_api', :admin, format('SELECT hm_rights_changed(%L)',
    :doc)), '1', 'an administrator may');
SELECT is(tap.events('rights', :doc), 1, 'one event');
INSERT INTO sessions (id, user_id, role, expires_at, dek_version)
VALUES ('a0000000-0000-7000-8000-0000000000d1', :doc, 'doctor',
        now() + interval '7 days', 1);
\set sd '''a0000000-0000-7000-8000-0000000000d1'''
SELECT is(tap.hm_get('hm_api', :doc, format(:'check', :sd, :doc, 'doctor',
    clock_timestamp() - interval '1 minute')), 'rights',
    'a token from before is refused');
SELECT is(tap.hm_get('hm_api', :doc, format(:'check', :sd, :doc, 'doctor',
    clock_timestamp() + interval '1 s')), 'ok', 'one from after is not');
SELECT is(tap.hm_get('hm_api', :doc, format(:'check', :sd, :doc, 'admin',
    clock_timestamp() + interval '1 s')), 'rights', 'unless its role lies');
SELECT is(tap.hm_get('hm_api', :doc, format(:'check', :sd, :ann, 'doctor',
    clock_timestamp() + interval '1 s')), 'unknown', 'or its person');
SELECT is(tap.hm_as('hm_api', :admin, format('UPDATE users SET '
    'role = ''doctor'' WHERE id = %L', :rita)), '1', 'a role is changed');
SELECT is(tap.events('rights', :rita), 1, 'which is an event');
SELECT is(tap.hm_as('hm_api', :other, format('UPDATE users SET '
    'last_login_at = now() WHERE id = %L', :other)), '1', 'a login');
SELECT is(tap.hm_as('hm_api', :other, format('UPDATE users SET '
    'is_active = true, role = role WHERE id = %L', :other)), '1',
    'or an update that changes nothing');
SELECT is(tap.events('rights', :other), 0, 'is none');
SELECT is(tap.hm_as('hm_api', :admin, format('UPDATE users SET '
    'is_active = false WHERE id = %L', :doc)), '1', 'an account is disabled');
SELECT is((SELECT end_reason FROM sessions WHERE id = :sd),
    'account_disabled', 'its sessions end');
SELECT is(tap.events('session', :sd), 1, 'each with its event');

-- Keys.
UPDATE user_keys SET kek_version = 2, wrapped_dek = '\x09'
 WHERE user_id = :ann;
SELECT is(tap.events('key', :ann), 0, 'wrapping anew is no event');
UPDATE user_keys SET state = 'retired' WHERE user_id = :ann;
SELECT is(tap.events('key', :ann), 1, 'a turned key is');
UPDATE user_index_keys SET wrapped_key = NULL WHERE user_id = :bob;
SELECT is(tap.events('key', :bob), 1, 'and a destroyed index key');
SELECT is(tap.hm_as('hm_worker', NULL, format('SELECT hm_key_changed(%L)',
    :nil)), '1', 'the system''s key, too');
SELECT is(tap.events('key', :nil), 1, 'is an event');

-- Everybody who feeds a cache reads all of them, and only unexpired ones.
UPDATE revocations SET expires_at = now() - interval '1 s'
 WHERE kind = 'key';
SELECT is(tap.hm_get('hm_api', NULL,
    'SELECT count(*) FROM hm_revocations()'),
    (SELECT count(*)::text FROM revocations WHERE kind <> 'key'),
    'the catch-up reads the unexpired ones');
SELECT is(tap.hm_get('hm_worker', NULL,
    'SELECT count(*) FROM hm_revocations()'),
    '42501', 'who does not, does not');
SELECT is(tap.hm_as('hm_cli', NULL, format('SELECT hm_session_check(%L, %L, '
    '''patient'', now())', :s1, :ann)), '42501', 'the check is nginx''s');

SELECT * FROM finish();
ROLLBACK;
