-- Revert healthmate:devices from pg

BEGIN;

DROP FUNCTION hm_device_ended(uuid, uuid);
DROP INDEX sessions_device;
ALTER TABLE sessions DROP COLUMN device_id;

COMMIT;
