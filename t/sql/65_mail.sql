-- Mail as jobs: who may leave one, how often, and what the row tells.
\ir lib/setup.psql
SELECT plan(17);

\set mail '''00000000-0000-7000-8000-000000000004'''
\set sweeper '''00000000-0000-7000-8000-000000000003'''
\set send 'SELECT hm_mail(''a0000000-0000-7000-8000-000000000002'', ''reset'')'

SELECT is(tap.hm_get('hm_api', NULL, :'send'), 'true',
    'nobody in particular asks for a reset');
SELECT is(tap.hm_get('hm_api', NULL, :'send'), 'false', 'again: it waits');
SELECT results_eq($$ SELECT kind, unique_key, user_id, requester, payload,
                            permission, max_attempts FROM jobs $$,
    $$ VALUES ('mail.send',
               'mail:reset:a0000000-0000-7000-8000-000000000002',
               'a0000000-0000-7000-8000-000000000002'::uuid, NULL::uuid,
               NULL::bytea, 'system', 12) $$, 'whom and which, no more');
UPDATE jobs SET state = 'done', finished_at = now();
SELECT is(tap.hm_get('hm_api', NULL, :'send'), 'false',
    'not again within the minute, sent or not');
UPDATE jobs SET created_at = now() - interval '2 minutes';
SELECT is(tap.hm_get('hm_api', NULL, :'send'), 'true', 'after it, again');
SELECT is(tap.hm_get('hm_api', :doc, format('SELECT hm_mail(%L, '
    '''break_glass'')', :bob)), 'true', 'another template is another mail');
INSERT INTO jobs (id, kind, unique_key, user_id, state, created_at)
SELECT gen_random_uuid(), 'mail.send', 'mail:' || t || ':' || :bob,
       :bob, 'done', now() - n * interval '3 minutes'
  FROM generate_series(1, 5) n, unnest(ARRAY['verify', 'role_changed']) t;
SELECT is(tap.hm_get('hm_api', NULL, format('SELECT hm_mail(%L, '
    '''verify'')', :bob)), 'false', 'a stranger causes five an hour');
SELECT is(tap.hm_get('hm_api', :admin, format('SELECT hm_mail(%L, '
    '''role_changed'')', :bob)), 'true', 'what must be told has no such bound');
SELECT is(tap.hm_get('hm_api', :ann, 'SELECT hm_mail(hm_actor(), '
    '''Re set:x'')'), 'false', 'a name is a name');
SELECT is(tap.hm_get('hm_api', :ann, 'SELECT hm_mail(NULL, ''reset'')'),
    'false', 'to nobody: nothing');
SELECT is(tap.hm_get('hm_api', :ann, 'SELECT hm_mail(hm_actor(), NULL)'),
    'false', 'of no template: nothing');
SELECT is(tap.hm_as('hm_readonly', NULL, :'send'), '42501',
    'statistics send no mail');
SELECT is(tap.hm_get('hm_worker', :mail, format('SELECT email FROM users '
    'WHERE id = %L', :bob)), '\x01', 'the mailer reads an address');
SELECT is(tap.hm_as('hm_worker', :mail, 'SELECT FROM user_keys'), '7',
    'and the keys to it');
SELECT is(tap.hm_as('hm_api', :mail, 'SELECT FROM users'), '0',
    'to the API that actor is nobody');
SELECT is(tap.hm_as('hm_worker', :mail, 'UPDATE users SET role = ''admin'''),
    '0', 'it changes nobody');
SELECT is(tap.hm_as('hm_worker', :mail, 'SELECT FROM health_data'), '0',
    'and reads no measurement');

SELECT * FROM finish();
ROLLBACK;
