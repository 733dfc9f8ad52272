-- Revert healthmate:accounts from pg

BEGIN;

DROP TABLE break_glass_grants, consents, care_relationships,
           user_health_profiles, user_preferences, revocations, sessions,
           user_index_keys, user_keys;
-- Its row type is the result of hm_login_lookup.
DROP FUNCTION hm_login_lookup(bytea);
DROP TABLE users;
DROP TABLE system_actors, hm_settings;
DROP FUNCTION hm_users_role_guard();
DROP FUNCTION hm_key_status();
DROP FUNCTION hm_user_count();
DROP FUNCTION hm_session_lookup(uuid);
DROP FUNCTION hm_is_admin(uuid);
DROP FUNCTION hm_may(uuid, uuid, text);

DELETE FROM sealed_columns
 WHERE table_name IN ('users', 'user_keys', 'user_index_keys', 'sessions',
                      'user_health_profiles', 'break_glass_grants');

COMMIT;
