-- Revert healthmate:account_tokens from pg

BEGIN;

DROP FUNCTION hm_account_of(bytea);
DROP FUNCTION hm_mail_request(uuid);
DROP FUNCTION hm_token_lookup(bytea);
DROP TABLE account_tokens, account_requests;

DELETE FROM sealed_columns
 WHERE table_name IN ('account_tokens', 'account_requests');

COMMIT;
