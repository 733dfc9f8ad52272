-- Revert healthmate:mfa from pg

BEGIN;

DROP FUNCTION hm_passkey_lookup(bytea);
DROP FUNCTION hm_mfa_clear(uuid);

DROP TABLE webauthn_challenges;
DROP TABLE passkeys;
DROP TABLE mfa_recovery_codes;
DROP TABLE mfa_totp;
DROP FUNCTION hm_mfa_sync();

REVOKE UPDATE (mfa, updated_at, version) ON users FROM hm_definer;

DELETE FROM sealed_columns
 WHERE table_name IN ('mfa_totp', 'mfa_recovery_codes', 'passkeys',
                      'webauthn_challenges');

COMMIT;
