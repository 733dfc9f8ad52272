-- Revert healthmate:sessions from pg

BEGIN;

DROP FUNCTION hm_sessions_seen(uuid[], uuid[], timestamptz[]);
DROP FUNCTION hm_session_refresh(uuid, bigint, boolean, boolean, int, int[],
                                 int[]);
ALTER TABLE sessions DROP COLUMN rotated_at;

COMMIT;
