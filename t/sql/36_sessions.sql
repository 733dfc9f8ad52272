-- A session after its login: turns of its refresh token, use, limits.
\ir lib/setup.psql
SELECT plan(41);

\set ses   '''b0000000-0000-7000-8000-000000000001'''
\set bare  '''b0000000-0000-7000-8000-000000000002'''
\set staff '''b0000000-0000-7000-8000-000000000003'''

INSERT INTO sessions (id, user_id, role, fingerprint, expires_at,
                      dek_version)
VALUES (:ses, :ann, 'patient', true, now() + interval '7 days', 1),
       (:bare, :bob, 'patient', false, now() + interval '7 days', 1),
       (:staff, :doc, 'doctor', true, now() + interval '7 days', 1);

-- The limits are the module's: an hour and 30 days for patients, a quarter
-- of an hour and 12 hours for the others.
CREATE FUNCTION tap.turn(id text, n bigint, cookie boolean DEFAULT true,
                         bare boolean DEFAULT false) RETURNS text
LANGUAGE sql AS $$
    SELECT tap.hm_get('hm_api', NULL, format(
        'SELECT verdict || '' '' || (s).counter FROM hm_session_refresh('
        '%L, %s, %L, %L, 604800, ''{3600,900,900,900}'', '
        '''{2592000,43200,43200,43200}'')', id, n, cookie, bare))
$$;

CREATE FUNCTION tap.why(id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT end_reason FROM sessions s WHERE s.id = why.id
$$;

-- Turns and the grace.
SELECT is(tap.turn(:ses, 0), 'turned 1', 'the first turn');
SELECT is(tap.turn(:ses, 0), 'grace 1', 'the same again: a lost reply');
SELECT is(tap.turn(:ses, 0), 'grace 1', 'and again');
SELECT is(tap.turn(:ses, 1), 'turned 2', 'the next turn');
SELECT is(tap.turn(:ses, 1), 'grace 2', 'one step behind');
SELECT is(tap.turn(:ses, 9), 'ahead 2', 'a turn that was never given');
SELECT is(tap.turn('b0000000-0000-7000-8000-0000000000ff', 0), NULL,
    'no such session');
SELECT is((SELECT count(*)::int FROM sessions WHERE id = :ses
            AND ended_at IS NULL AND expires_at > now() + interval '6 days'),
    1, 'it lives, and a week from now');

-- The cookie.
SELECT is(tap.turn(:ses, 2, cookie => false), 'mismatch 2', 'no cookie');
SELECT is(tap.turn(:ses, 1, cookie => false), 'mismatch 2',
    'none within the grace');
SELECT is(tap.turn(:ses, 0, cookie => false), 'mismatch 2',
    'nor does a stolen token alone end a session');
SELECT is(tap.turn(:ses, 2, cookie => false, bare => true), 'mismatch 2',
    'what was bound at login stays bound');
SELECT is(tap.turn(:bare, 0, cookie => true), 'mismatch 0',
    'a session without a cookie has none');
SELECT is(tap.turn(:bare, 0, cookie => false, bare => true), 'turned 1',
    'and may go on where that is allowed');

-- Reuse.
SELECT is(tap.turn(:ses, 0), 'reused 2', 'two steps behind');
SELECT is(tap.why(:ses), 'refresh_reused', 'has ended the session');
SELECT is(tap.turn(:ses, 2), 'ended 2', 'for its owner as well');
SELECT is(tap.turn(:ses, 1), 'ended 2', 'the grace opens nothing again');
SELECT is((SELECT count(*)::int FROM jobs WHERE user_id = :ann
            AND kind = 'mail.send'), 1, 'and she is told');
SELECT is((SELECT count(*)::int FROM revocations WHERE subject = :ses), 1,
    'and every worker');

UPDATE sessions SET rotated_at = clock_timestamp() - interval '29 seconds'
 WHERE id = :bare;
SELECT is(tap.turn(:bare, 0, false, true), 'grace 1', '29 seconds later');
UPDATE sessions SET rotated_at = clock_timestamp() - interval '31 seconds'
 WHERE id = :bare;
SELECT is(tap.turn(:bare, 0, false, true), 'reused 1', '31 seconds later');

-- Limits.
SELECT is(tap.turn(:staff, 0), 'turned 1', 'a doctor');
SELECT ok((SELECT expires_at <= created_at + interval '12 hours'
             FROM sessions WHERE id = :staff), 'for 12 hours at most');
UPDATE sessions SET last_used_at = clock_timestamp() - interval '899 s'
 WHERE id = :staff;
SELECT is(tap.turn(:staff, 1), 'turned 2', 'not quite idle');
UPDATE sessions SET last_used_at = clock_timestamp() - interval '901 s'
 WHERE id = :staff;
SELECT is(tap.turn(:staff, 2), 'idle 2', 'idle');
SELECT is(tap.why(:staff), 'idle', 'is the end');
SELECT is(tap.turn(:staff, 2), 'ended 2', 'for good');

INSERT INTO sessions (id, user_id, role, expires_at, dek_version, created_at)
VALUES ('b0000000-0000-7000-8000-000000000004', :rita, 'researcher',
        now() + interval '7 days', 1, now() - interval '12 hours 1 second');
SELECT is(tap.turn('b0000000-0000-7000-8000-000000000004', 0), 'expired 0',
    'however often it was used');

INSERT INTO sessions (id, user_id, role, expires_at, dek_version)
VALUES ('b0000000-0000-7000-8000-000000000005', :bob, 'patient',
        now() - interval '1 second', 1),
       ('b0000000-0000-7000-8000-000000000006', :bob, 'doctor',
        now() + interval '7 days', 1),
       ('b0000000-0000-7000-8000-000000000007', :bob, 'patient',
        now() + interval '7 days', 1);
SELECT is(tap.turn('b0000000-0000-7000-8000-000000000005', 0), 'expired 0',
    'a token past its time');
SELECT is(tap.turn('b0000000-0000-7000-8000-000000000006', 0), 'account 0',
    'a session of another role than its owner has');

-- Use.
CREATE FUNCTION tap.seen(who text, id text, at timestamptz) RETURNS text
LANGUAGE sql AS $$
    SELECT tap.hm_as('hm_api', NULL, format(
        'SELECT hm_sessions_seen(ARRAY[%L]::uuid[], ARRAY[%L]::uuid[], '
        'ARRAY[%L]::timestamptz[])', id, who, at))
$$;

\set used '''b0000000-0000-7000-8000-000000000007'''
UPDATE sessions SET last_used_at = now() - interval '50 minutes'
 WHERE id = :used;
SELECT is(tap.seen(:ann, :used, now()), '1', 'noted for another person');
SELECT is((SELECT last_used_at FROM sessions WHERE id = :used),
    now() - interval '50 minutes', 'does nothing');
SELECT is(tap.seen(:bob, :used, now()), '1', 'noted');
SELECT is((SELECT last_used_at FROM sessions WHERE id = :used), now(),
    'is used');
SELECT is(tap.seen(:bob, :used, now() - interval '1 hour'), '1', 'late');
SELECT is((SELECT last_used_at FROM sessions WHERE id = :used), now(),
    'never goes back');
SELECT is(tap.seen(:doc, :staff, now() + interval '1 minute'), '1',
    'an ended one');
SELECT ok((SELECT ended_at IS NOT NULL AND last_used_at < now()
             FROM sessions WHERE id = :staff), 'stays as it ended');

SELECT is(tap.hm_as('hm_worker', NULL, 'SELECT hm_sessions_seen(''{}'', '
    '''{}'', ''{}'')'), '42501', 'the API''s alone');
SELECT is(tap.hm_as('hm_api', :bob, format('UPDATE sessions SET '
    'counter = 0 WHERE id = %L', :ses)), '0', 'nobody turns another''s');

SELECT * FROM finish();
ROLLBACK;
