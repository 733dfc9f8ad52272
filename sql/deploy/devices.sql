-- Deploy healthmate:devices to pg
--
-- The device a session was opened from: the id in the cookie that a login
-- leaves there.  Strangers who try passwords do not lock out a device that
-- has logged in before; which is why somebody who was found out must not
-- stay one.

BEGIN;
SET LOCAL ROLE hm_owner;

ALTER TABLE sessions ADD COLUMN device_id uuid;    -- NULL: none was told

CREATE INDEX sessions_device ON sessions (device_id)
    WHERE device_id IS NOT NULL;

-- Asked before there is an actor, whether or not the account exists.  A
-- session that ended in a way not named here ends the trust in its device:
-- the owner ended it from the list, a refresh token was used twice, ...
-- A change of password is not among them, because the cookie itself holds
-- the version of the password.
CREATE FUNCTION hm_device_ended(p_user uuid, p_device uuid) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM public.sessions s
         WHERE s.device_id = p_device AND s.user_id = p_user
           AND s.ended_at IS NOT NULL
           AND coalesce(s.end_reason, '') NOT IN
               ('logout', 'logout_all', 'idle', 'expired',
                'password_changed', 'role_changed'));
END
$$;

GRANT EXECUTE ON FUNCTION hm_device_ended(uuid, uuid) TO hm_api;

RESET ROLE;
ALTER FUNCTION hm_device_ended(uuid, uuid) OWNER TO hm_definer;

COMMIT;
