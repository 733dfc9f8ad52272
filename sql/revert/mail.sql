-- Revert healthmate:mail from pg

BEGIN;

DROP FUNCTION hm_mail(uuid, text);
REVOKE INSERT (id, kind, unique_key, user_id, permission, max_attempts)
    ON jobs FROM hm_definer;
DROP POLICY users_mail ON users;
DROP POLICY user_keys_mail ON user_keys;

DELETE FROM job_schedules WHERE name = 'mail.prune';
DELETE FROM system_actors WHERE name = 'worker.mail';

COMMIT;
