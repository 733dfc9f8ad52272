-- What a mailbox proves: who makes, sees and takes tokens and requests.
\ir lib/setup.psql
SELECT plan(31);

\set mail '''00000000-0000-7000-8000-000000000004'''
\set rollup '''00000000-0000-7000-8000-000000000001'''
\set eve '''b0000000-0000-7000-8000-000000000001'''

-- tokens
SELECT is(tap.hm_as('hm_api', :bob, 'INSERT INTO account_tokens (id, user_id,'
    ' purpose, token_hash, expires_at) VALUES (gen_random_uuid(), hm_actor(),'
    ' ''reset'', ''\x01'', now() + interval ''1 h'')'), '42501',
    'nginx makes no token');
SELECT is(tap.hm_as('hm_worker', :rollup, format('INSERT INTO account_tokens '
    '(id, user_id, purpose, token_hash, expires_at) VALUES '
    '(gen_random_uuid(), %L, ''reset'', ''\x01'', now())', :bob)), '42501',
    'nor another job');
SELECT is(tap.hm_as('hm_worker', :mail, format('INSERT INTO account_tokens '
    '(id, user_id, purpose, token_hash, password_version, expires_at) '
    'SELECT gen_random_uuid(), %L, p, convert_to(p, ''UTF8''), 1, '
    'now() + interval ''1 h'' FROM unnest(ARRAY[''reset'', ''verify'']) p',
    :bob)), '2', 'the mailer does');

\set look 'SELECT purpose FROM hm_token_lookup(''reset'')'
SELECT is(tap.hm_get('hm_api', NULL, :'look'), 'reset',
    'whoever has it is told what for');
SELECT is(tap.hm_get('hm_api', NULL,
    'SELECT purpose FROM hm_token_lookup(''rese'')'), NULL, 'nobody else');
SELECT is(tap.hm_as('hm_readonly', NULL, :'look'), '42501',
    'statistics ask nothing');
SELECT is(tap.hm_as('hm_worker', :mail, :'look'), '42501',
    'the mailer does not try them');
SELECT is(tap.hm_as('hm_api', :ann, 'SELECT FROM account_tokens'), '0',
    'hidden from others');
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM account_tokens'), '0',
    'from administrators too');
SELECT is(tap.hm_as('hm_api', :ann, 'DELETE FROM account_tokens'), '0',
    'who cannot take them');
SELECT is(tap.hm_as('hm_api', :bob, 'UPDATE account_tokens SET '
    'expires_at = now() + interval ''1 y'''), '42501', 'none lives longer');

UPDATE users SET password_version = 2 WHERE id = :bob;
SELECT is(tap.hm_get('hm_api', NULL, :'look'), NULL,
    'a changed password ends it');
UPDATE users SET password_version = 1, is_active = false WHERE id = :bob;
SELECT is(tap.hm_get('hm_api', NULL, :'look'), NULL, 'a closed account too');
UPDATE users SET is_active = true WHERE id = :bob;
UPDATE account_tokens SET expires_at = now() WHERE purpose = 'verify';
SELECT is(tap.hm_get('hm_api', NULL,
    'SELECT purpose FROM hm_token_lookup(''verify'')'), NULL, 'and time');
SELECT is(tap.hm_as('hm_worker', :mail, 'DELETE FROM account_tokens'), '0',
    'what is not past its time stays');
UPDATE account_tokens SET expires_at = now() - interval '1 s'
 WHERE purpose = 'verify';
SELECT is(tap.hm_as('hm_worker', :mail, 'DELETE FROM account_tokens'), '1',
    'what is goes');
SELECT is(tap.hm_as('hm_api', :bob, 'DELETE FROM account_tokens WHERE '
    'token_hash = ''reset'''), '1', 'its person takes it');
SELECT is(tap.hm_get('hm_api', NULL, :'look'), NULL, 'once');

-- requests
\set ask 'INSERT INTO account_requests (id, purpose, user_id, email_index, expires_at) VALUES (gen_random_uuid(), ''forgot'', hm_actor(), ''\x0a'', now() + interval ''1 h'') ON CONFLICT DO NOTHING'
SELECT is(tap.hm_as('hm_api', NULL, :'ask'), '42501',
    'a request is somebody''s, if only of a new id');
SELECT is(tap.hm_as('hm_api', :eve, :'ask'), '1', 'it is left');
SELECT is(tap.hm_as('hm_api', :bob, :'ask'), '0',
    'once a minute for an address, whoever asks');
SELECT is(tap.hm_as('hm_api', :bob, 'SELECT FROM account_requests'), '0',
    'others do not see it');
SELECT is(tap.hm_as('hm_api', :admin, 'SELECT FROM account_requests'), '0',
    'nor do administrators');
SELECT is(tap.hm_as('hm_api', :eve, 'UPDATE account_requests SET '
    'email_index = ''\x0b'''), '42501', 'nobody turns it to another address');
SELECT is(tap.hm_as('hm_worker', :rollup, 'SELECT FROM account_requests'),
    '0', 'no other job sees it');
SELECT is(tap.hm_get('hm_api', :eve, 'SELECT hm_mail_request(id) FROM '
    'account_requests'), 'true', 'the worker is told');
SELECT results_eq($$ SELECT kind, user_id, requester, unique_key LIKE
                            'request:%' FROM jobs $$,
    $$ VALUES ('mail.request', NULL::uuid, NULL::uuid, true) $$,
    'by an id, no more');
SELECT is(tap.hm_as('hm_worker', :mail, 'UPDATE account_requests SET '
    'email = NULL, password_hash = NULL'), '1', 'the mailer empties it');
SELECT is(tap.hm_as('hm_worker', :mail, format('UPDATE account_requests SET '
    'user_id = %L', :ann)), '42501', 'and does not give it to another');
SELECT is(tap.hm_get('hm_worker', :mail, 'SELECT count(*) FROM '
    'account_requests r WHERE hm_account_of(r.email_index) IS NOT NULL'), '0',
    'whether it has an account is asked there');
SELECT is(tap.hm_as('hm_api', :eve, 'DELETE FROM account_requests'), '1',
    'it is taken like a token');

SELECT * FROM finish();
ROLLBACK;
