-- Verify healthmate:account_tokens on pg

BEGIN;

DO $$
DECLARE
    rel  text;
BEGIN
    FOREACH rel IN ARRAY ARRAY['account_tokens', 'account_requests'] LOOP
        ASSERT (SELECT relrowsecurity AND relforcerowsecurity
                       AND relowner = 'hm_owner'::regrole
                  FROM pg_class WHERE oid = ('public.' || rel)::regclass),
            rel || ' is not fenced';
    END LOOP;

    ASSERT NOT has_table_privilege('hm_api', 'account_tokens', 'INSERT'),
        'nginx can make tokens';
    ASSERT NOT has_any_column_privilege('hm_api', 'account_tokens',
                                        'UPDATE');
    ASSERT NOT has_any_column_privilege('hm_api', 'account_requests',
                                        'UPDATE');
    ASSERT (SELECT bool_and(prosecdef AND proowner = 'hm_definer'::regrole)
              FROM pg_proc
             WHERE proname IN ('hm_token_lookup', 'hm_mail_request'));
END
$$;

SELECT id, user_id, purpose, token_hash, password_version, request,
       expires_at FROM account_tokens WHERE false;
SELECT id, purpose, user_id, email_index, minute, email, password_hash,
       consents, password_version, dek_version FROM account_requests
 WHERE false;

ROLLBACK;
