-- Revert healthmate:context from pg

BEGIN;

DROP TABLE sealed_columns;
DROP PROCEDURE hm_secure_leaf(regclass, regclass);
DROP PROCEDURE hm_secure(regclass);
DROP FUNCTION hm_actors();
DROP FUNCTION hm_actor();

COMMIT;
