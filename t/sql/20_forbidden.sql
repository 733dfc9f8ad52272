-- What hm_api cannot do, whoever the actor is.
\ir lib/setup.psql
SELECT plan(101);

-- Refused outright: privilege missing, or a policy's check.
CREATE TEMP TABLE refused (n serial, stmt text);
INSERT INTO refused (stmt) VALUES
    -- The audit is written once.
    ('UPDATE audit_logs SET outcome = 0'),
    ('UPDATE audit_logs_default SET outcome = 0'),
    ('DELETE FROM audit_logs'),
    ('DELETE FROM audit_logs_default'),
    ('TRUNCATE audit_logs'),
    ('TRUNCATE audit_logs_default'),
    ('UPDATE audit_keys SET wrapped_key = ''\x00'''),
    ('DELETE FROM audit_keys'),
    ('INSERT INTO audit_shards (shard, role) VALUES (gen_random_uuid(), ''x'')'),
    ('UPDATE audit_shards SET closed_at = now()'),
    ('DELETE FROM audit_shards'),
    ('INSERT INTO audit_checkpoints (shard, last_seq, root, signature, key_id) '
     'VALUES (gen_random_uuid(), 1, '''', '''', '''')'),
    ('SELECT hm_audit_retire(''2015-01-01'')'),
    -- No shape of its own.
    ('CREATE TABLE public.mine (a int)'),
    ('CREATE TEMP TABLE mine (a int)'),
    ('CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS ''SELECT 1'''),
    ('CREATE SCHEMA mine'),
    ('CREATE VIEW public.v AS SELECT 1'),
    ('ALTER TABLE users DISABLE ROW LEVEL SECURITY'),
    ('ALTER TABLE users NO FORCE ROW LEVEL SECURITY'),
    ('ALTER TABLE health_data_p0 DISABLE ROW LEVEL SECURITY'),
    ('ALTER TABLE health_data DETACH PARTITION health_data_p0'),
    ('DROP TABLE consents'),
    ('DROP POLICY users_read ON users'),
    ('CREATE POLICY open ON users USING (true)'),
    ('CREATE INDEX ON users (role)'),
    ('ALTER FUNCTION hm_may(uuid, uuid, text) SECURITY INVOKER'),
    ('CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW '
     'EXECUTE FUNCTION hm_users_role_guard()'),
    ('TRUNCATE health_data'),
    ('TRUNCATE health_data_p0'),
    ('LOCK TABLE users IN ACCESS EXCLUSIVE MODE'),
    ('CALL hm_secure(''users'')'),
    ('CALL hm_secure_leaf(''health_data_p0'', ''sealed_columns'')'),
    ('CALL hm_make_leaf(9)'),
    ('CALL hm_audit_make_leaf(''2015-01-01'')'),
    -- Not another role.
    ('SET ROLE hm_owner'),
    ('SET ROLE hm_definer'),
    ('SET ROLE hm_worker'),
    ('SET ROLE hm_cli'),
    ('SET ROLE hm_admin'),
    ('SET ROLE postgres'),
    ('GRANT hm_owner TO hm_api'),
    ('ALTER ROLE hm_api BYPASSRLS'),
    ('CREATE ROLE mine'),
    ('COPY users TO PROGRAM ''true'''),
    ('COPY users TO ''/tmp/users'''),
    ('SELECT pg_read_file(''PG_VERSION'')'),
    ('SELECT lo_import(''/etc/passwd'')'),
    ('SELECT rolpassword FROM pg_authid'),
    -- Written once.
    ('UPDATE users SET id = gen_random_uuid()'),
    ('UPDATE users SET created_at = now()'),
    ('UPDATE health_data SET user_id = hm_actor()'),
    ('UPDATE health_data_p0 SET user_id = hm_actor()'),
    ('UPDATE health_data SET created_at = now()'),
    ('UPDATE health_data SET "timestamp" = now()'),
    ('UPDATE sessions SET user_id = hm_actor()'),
    ('UPDATE jobs SET requester = hm_actor()'),
    ('UPDATE jobs SET state = ''done'''),
    ('UPDATE user_keys SET state = ''destroyed'''),
    ('DELETE FROM user_keys'),
    ('DELETE FROM user_index_keys'),
    ('DELETE FROM users'),
    ('DELETE FROM sessions'),
    ('DELETE FROM revocations'),
    ('INSERT INTO revocations (subject, user_id, expires_at) VALUES '
     '(gen_random_uuid(), hm_actor(), now() + interval ''1 h'')'),
    ('UPDATE revocations SET expires_at = now()'),
    ('SELECT hm_revoke(''session'', hm_actor(), hm_actor())'),
    ('SELECT hm_may_revoke(hm_actor())'),
    ('UPDATE sessions SET id = hm_actor()'),
    ('DELETE FROM consents'),
    ('DELETE FROM care_relationships'),
    ('UPDATE care_relationships SET doctor_id = hm_actor()'),
    ('UPDATE consents SET granted = true'),
    -- Nobody grants himself access.
    ('UPDATE hm_settings SET value = ''all'''),
    ('INSERT INTO system_actors VALUES (hm_actor(), ''me'')'),
    ('INSERT INTO break_glass_grants (id, user_id, actor_id, reason, '
     'dek_version, expires_at) VALUES (gen_random_uuid(), gen_random_uuid(), '
     'hm_actor(), ''x'', 1, now() + interval ''1 minute'')'),
    ('UPDATE users SET role = ''admin'' WHERE id = hm_actor()'),
    ('INSERT INTO users (id, email, email_index, password_hash, dek_version, '
     'role) VALUES (hm_actor(), '''', ''n'', '''', 1, ''admin'')'),
    ('INSERT INTO users (id, email, email_index, password_hash, dek_version) '
     'VALUES (gen_random_uuid(), '''', ''n'', '''', 1)'),
    ('INSERT INTO care_relationships (id, patient_id, doctor_id, status, '
     'created_by) VALUES (gen_random_uuid(), '
     '''a0000000-0000-7000-8000-000000000002'', hm_actor(), ''active'', '
     'hm_actor())'),
    ('INSERT INTO consents (id, user_id, purpose, granted) VALUES '
     '(gen_random_uuid(), ''a0000000-0000-7000-8000-000000000002'', '
     '''research'', true)'),
    ('INSERT INTO user_keys (user_id, version, kek_version, wrapped_dek) '
     'VALUES (''a0000000-0000-7000-8000-000000000002'', 2, 1, ''\x00'')'),
    ('INSERT INTO user_keys (user_id, version, kek_version, wrapped_dek) '
     'VALUES (''00000000-0000-0000-0000-000000000000'', 2, 1, ''\x00'')'),
    ('INSERT INTO sessions (id, user_id, role, expires_at, dek_version) '
     'VALUES (gen_random_uuid(), ''a0000000-0000-7000-8000-000000000002'', '
     '''patient'', now(), 1)'),
    ('INSERT INTO jobs (id, kind, requester) VALUES (gen_random_uuid(), '
     '''x'', ''a0000000-0000-7000-8000-000000000002'')'),
    ('INSERT INTO jobs (id, kind) VALUES (gen_random_uuid(), ''x'')'),
    ('INSERT INTO health_metrics_aggregation (id, user_id, metric, bucket, '
     'start, aggregates, dek_version) VALUES (gen_random_uuid(), hm_actor(), '
     '''weight'', ''day'', now(), '''', 1)'),
    ('UPDATE retention_policies SET keep = ''1 day'''),
    ('SELECT hm_retention_run()'),
    ('INSERT INTO sealed_columns VALUES (''a'', ''b'', ''mac'')'),
    ('DELETE FROM sealed_columns'),
    -- Idempotency records are the caller's own.
    ('INSERT INTO idempotency_keys (caller, user_id, scope, body_mac) VALUES '
     '(''a0000000-0000-7000-8000-000000000002'', '
     '''a0000000-0000-7000-8000-000000000002'', ''s'', ''m'')');

SELECT is(tap.hm_as('hm_api', :ann, stmt), '42501', stmt)
  FROM refused ORDER BY n;

-- Shown nothing, hence touching nothing.
SELECT is(tap.hm_as('hm_api', :ann, stmt), '0', stmt)
  FROM (VALUES
    ('UPDATE users SET is_active = false '
     'WHERE id = ''a0000000-0000-7000-8000-000000000002'''),
    ('UPDATE users SET role = ''admin'' '
     'WHERE id = ''a0000000-0000-7000-8000-000000000002'''),
    ('DELETE FROM health_data '
     'WHERE user_id = ''a0000000-0000-7000-8000-000000000002'''),
    ('UPDATE health_data SET value = ''\x00'' '
     'WHERE user_id = ''a0000000-0000-7000-8000-000000000002'''),
    ('SELECT FROM users WHERE id <> hm_actor()'),
    ('SELECT FROM user_keys WHERE user_id NOT IN (hm_actor(), '
     '''00000000-0000-0000-0000-000000000000'')'),
    ('SELECT FROM jobs'),
    ('SELECT FROM audit_logs')
  ) AS s (stmt);

-- The host command is no back door to a record.
SELECT is(tap.hm_as('hm_cli', :ann, 'SELECT FROM health_data'), '42501',
    'hm_cli reads no measurement');

SELECT * FROM finish();
ROLLBACK;
