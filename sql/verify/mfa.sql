-- Verify healthmate:mfa on pg

BEGIN;

DO $$
DECLARE
    t  regclass;
BEGIN
    FOREACH t IN ARRAY ARRAY['mfa_totp', 'mfa_recovery_codes', 'passkeys',
                             'webauthn_challenges']::regclass[]
    LOOP
        ASSERT (SELECT relrowsecurity AND relforcerowsecurity
                  FROM pg_class WHERE oid = t), t || ' is not fenced';
        ASSERT EXISTS (SELECT FROM pg_policy WHERE polrelid = t),
            t || ' has no policy';
        ASSERT NOT has_table_privilege('hm_cli', t, 'SELECT')
               AND NOT has_table_privilege('hm_readonly', t, 'SELECT'),
            t || ' is open to a tool';
    END LOOP;

    ASSERT (SELECT count(*) FROM pg_trigger
             WHERE tgname IN ('mfa_totp_sync', 'passkeys_sync')) = 2,
        'users.mfa is kept by nobody';
    ASSERT (SELECT prosecdef FROM pg_proc
             WHERE proname = 'hm_passkey_lookup');
    ASSERT (SELECT NOT prosecdef FROM pg_proc
             WHERE proname = 'hm_mfa_clear'), 'clears anybody''s factors';
    ASSERT (SELECT count(*) FROM sealed_columns
             WHERE table_name IN ('mfa_totp', 'mfa_recovery_codes',
                                  'passkeys', 'webauthn_challenges')) = 5;
END
$$;

ROLLBACK;
