-- Revert healthmate:revocation from pg

BEGIN;

DROP TRIGGER user_index_keys_changed ON user_index_keys;
DROP TRIGGER user_keys_changed ON user_keys;
DROP TRIGGER users_rights_changed ON users;
DROP TRIGGER sessions_ended ON sessions;

DROP FUNCTION hm_revocations();
DROP FUNCTION hm_session_check(uuid, uuid, text, timestamptz);
DROP FUNCTION hm_user_key_changed();
DROP FUNCTION hm_user_rights_changed();
DROP FUNCTION hm_session_ended();
DROP FUNCTION hm_key_changed(uuid);
DROP FUNCTION hm_rights_changed(uuid);
DROP FUNCTION hm_end_sessions(uuid, uuid, text);
DROP FUNCTION hm_end_session(uuid, text);
DROP FUNCTION hm_may_revoke(uuid);
DROP FUNCTION hm_revoke(text, uuid, uuid, interval);

REVOKE INSERT, UPDATE ON revocations FROM hm_definer;
REVOKE SELECT ON revocations FROM hm_definer;
REVOKE UPDATE (ended_at, end_reason, updated_at, version)
    ON sessions FROM hm_definer;

-- The other kinds have no place in the older table.
ALTER TABLE revocations NO FORCE ROW LEVEL SECURITY;
DELETE FROM revocations WHERE kind <> 'session';
ALTER TABLE revocations FORCE ROW LEVEL SECURITY;

ALTER TABLE revocations DROP CONSTRAINT revocations_pkey;
ALTER TABLE revocations DROP COLUMN kind;
ALTER TABLE revocations RENAME COLUMN subject TO session_id;
ALTER TABLE revocations ADD PRIMARY KEY (session_id);

GRANT INSERT ON revocations TO hm_api, hm_worker, hm_cli;
GRANT SELECT ON revocations TO hm_api, hm_cli;
CREATE POLICY revocations_read ON revocations
    FOR SELECT TO hm_api, hm_worker, hm_cli USING (expires_at > now());
CREATE POLICY revocations_add ON revocations
    FOR INSERT TO hm_api, hm_worker, hm_cli
    WITH CHECK (user_id = hm_actor() OR hm_is_admin(hm_actor()));

COMMIT;
