-- Deploy healthmate:revocation to pg
--
-- What nginx must hear within a second: a session that ended, rights that
-- changed, keys that turned.  An event is a row (so that who was not
-- listening can catch up) and a NOTIFY in the same transaction (so that who
-- is listening hears at commit, however late after the insert that is).
--
-- The rows are made by triggers on the tables that tell of the fact, never
-- by whoever writes those tables: nobody can end a session, change a role or
-- turn a key and forget to say so.  NOTIFY is sent by nothing else, because
-- commits that notify queue on one lock.
--
--   session  subject = the session; its tokens are refused
--   rights   subject = the user; tokens issued before `at` are refused
--   key      subject = the user (nil: the system); cached keys are dropped
--   signing  subject = a key of the token ring; reserved
--
-- A row lives longer than any access token (healthmate_access_token_time is
-- held below an hour).

BEGIN;
SET LOCAL ROLE hm_owner;

ALTER TABLE revocations DROP CONSTRAINT revocations_pkey;
ALTER TABLE revocations RENAME COLUMN session_id TO subject;
ALTER TABLE revocations ADD COLUMN kind text NOT NULL DEFAULT 'session'
    CHECK (kind IN ('session', 'rights', 'key', 'signing'));
ALTER TABLE revocations ADD PRIMARY KEY (subject, kind);

-- Written by the functions below and by nobody else.
DROP POLICY revocations_add ON revocations;
DROP POLICY revocations_read ON revocations;
REVOKE INSERT ON revocations FROM hm_api, hm_worker, hm_cli;
REVOKE SELECT ON revocations FROM hm_api, hm_cli;
GRANT SELECT, INSERT, UPDATE ON revocations TO hm_definer;
GRANT UPDATE (ended_at, end_reason, updated_at, version)
    ON sessions TO hm_definer;

-- One event: the row, and the words of it on the channel.
CREATE FUNCTION hm_revoke(p_kind text, p_subject uuid, p_user uuid,
                          p_keep interval DEFAULT '70 minutes')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    r  public.revocations;
BEGIN
    INSERT INTO public.revocations AS o (kind, subject, user_id, at,
                                         expires_at)
    VALUES (p_kind, p_subject, p_user, clock_timestamp(),
            clock_timestamp() + p_keep)
    ON CONFLICT (subject, kind) DO UPDATE
       SET at = greatest(o.at, excluded.at),
           expires_at = greatest(o.expires_at, excluded.expires_at)
    RETURNING o.* INTO r;

    PERFORM pg_notify('hm_feed', format('%s %s %s %s', r.kind, r.subject,
        floor(extract(epoch FROM r.at) * 1000000)::bigint,
        ceil(extract(epoch FROM r.expires_at))::bigint));
END
$$;

-- May the caller end sessions of this person?  Of the API's connections the
-- person and an active administrator; the host's and the worker's roles
-- carry out what was decided elsewhere.
CREATE FUNCTION hm_may_revoke(p_user uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN session_user <> 'hm_api'
           OR coalesce(public.hm_actor() = p_user, false)
           OR coalesce(public.hm_is_admin(public.hm_actor()), false);
END
$$;

-- false: no such session, it has ended already, or it is not the caller's.
CREATE FUNCTION hm_end_session(p_session uuid, p_reason text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    UPDATE public.sessions s
       SET ended_at = clock_timestamp(), end_reason = p_reason,
           updated_at = clock_timestamp(), version = s.version + 1
     WHERE s.id = p_session AND s.ended_at IS NULL
       AND public.hm_may_revoke(s.user_id);
    RETURN FOUND;
END
$$;

-- All sessions of a person but one (NULL: all); how many ended.
CREATE FUNCTION hm_end_sessions(p_user uuid, p_keep uuid, p_reason text)
RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    n  int;
BEGIN
    IF p_user IS NULL OR NOT public.hm_may_revoke(p_user) THEN
        RETURN 0;
    END IF;

    UPDATE public.sessions s
       SET ended_at = clock_timestamp(), end_reason = p_reason,
           updated_at = clock_timestamp(), version = s.version + 1
     WHERE s.user_id = p_user AND s.ended_at IS NULL
       AND s.id IS DISTINCT FROM p_keep;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;

-- Tokens issued until now are refused; sessions go on and refresh.  A change
-- of role or is_active says so by itself.
CREATE FUNCTION hm_rights_changed(p_user uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF p_user IS NULL OR NOT public.hm_may_revoke(p_user) THEN
        RETURN;
    END IF;
    PERFORM public.hm_revoke('rights', p_user, p_user);
END
$$;

-- Every cache keeps a key for a minute at most.
CREATE FUNCTION hm_key_changed(p_user uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF p_user IS NULL OR NOT public.hm_may_revoke(p_user) THEN
        RETURN;
    END IF;
    PERFORM public.hm_revoke('key', p_user, p_user, '5 minutes');
END
$$;

-- ------------------------------------------------------------------------
-- The facts.

CREATE FUNCTION hm_session_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF NEW.ended_at IS NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'a session that ended stays ended';
    END IF;
    IF OLD.ended_at IS NULL THEN
        PERFORM public.hm_revoke('session', NEW.id, NEW.user_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER sessions_ended AFTER UPDATE OF ended_at ON sessions
    FOR EACH ROW
    WHEN ((OLD.ended_at IS NULL) <> (NEW.ended_at IS NULL))
    EXECUTE FUNCTION hm_session_ended();

-- Who may not come in any more has no session either.
CREATE FUNCTION hm_user_rights_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    PERFORM public.hm_revoke('rights', NEW.id, NEW.id);
    IF NOT NEW.is_active OR NEW.erased_at IS NOT NULL THEN
        UPDATE public.sessions s
           SET ended_at = clock_timestamp(),
               end_reason = CASE WHEN NEW.erased_at IS NULL
                                 THEN 'account_disabled'
                                 ELSE 'account_erased' END,
               updated_at = clock_timestamp(), version = s.version + 1
         WHERE s.user_id = NEW.id AND s.ended_at IS NULL;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER users_rights_changed
    AFTER UPDATE OF role, is_active, erased_at ON users
    FOR EACH ROW
    WHEN (OLD.role IS DISTINCT FROM NEW.role
          OR OLD.is_active IS DISTINCT FROM NEW.is_active
          OR OLD.erased_at IS DISTINCT FROM NEW.erased_at)
    EXECUTE FUNCTION hm_user_rights_changed();

-- Wrapping anew under another KEK changes no key.
CREATE FUNCTION hm_user_key_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    PERFORM public.hm_revoke('key', NEW.user_id, NEW.user_id, '5 minutes');
    RETURN NULL;
END
$$;

CREATE TRIGGER user_keys_changed AFTER UPDATE OF state ON user_keys
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION hm_user_key_changed();

CREATE TRIGGER user_index_keys_changed
    AFTER UPDATE OF wrapped_key ON user_index_keys
    FOR EACH ROW WHEN (NEW.wrapped_key IS NULL
                       AND OLD.wrapped_key IS NOT NULL)
    EXECUTE FUNCTION hm_user_key_changed();

-- ------------------------------------------------------------------------
-- What nginx asks when it does not know: is this token still good?  One row,
-- before there is an actor; it answers about whom the caller names by the
-- id of a session, and says nothing but yes or why not.
CREATE FUNCTION hm_session_check(p_session uuid, p_user uuid, p_role text,
                                 p_issued timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN coalesce((
        SELECT CASE
            WHEN s.ended_at IS NOT NULL OR s.expires_at <= now()
                THEN 'ended'
            WHEN NOT u.is_active OR u.erased_at IS NOT NULL THEN 'disabled'
            WHEN u.role IS DISTINCT FROM p_role THEN 'rights'
            WHEN EXISTS (SELECT FROM public.revocations r
                          WHERE r.subject = p_user AND r.kind = 'rights'
                            AND p_issued < date_trunc('milliseconds', r.at)
                            AND r.expires_at > now())
                THEN 'rights'
            ELSE 'ok' END
          FROM public.sessions s JOIN public.users u ON u.id = s.user_id
         WHERE s.id = p_session AND s.user_id = p_user), 'unknown');
END
$$;

-- All that is unexpired, for the caches of nginx: kinds, ids and times, and
-- not whose they are.  A function, so that no policy on the table is without
-- an actor.
CREATE FUNCTION hm_revocations()
RETURNS TABLE (kind text, subject uuid, at timestamptz,
               expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT r.kind, r.subject, r.at, r.expires_at
                   FROM public.revocations r WHERE r.expires_at > now();
END
$$;

\set all 'hm_api, hm_worker, hm_cli'

GRANT EXECUTE ON FUNCTION hm_revocations() TO hm_api;
GRANT EXECUTE ON FUNCTION hm_end_session(uuid, text),
    hm_end_sessions(uuid, uuid, text), hm_rights_changed(uuid),
    hm_key_changed(uuid) TO :all;
GRANT EXECUTE ON FUNCTION hm_session_check(uuid, uuid, text, timestamptz)
    TO hm_api, hm_worker;
GRANT EXECUTE ON FUNCTION hm_may_revoke(uuid),
    hm_revoke(text, uuid, uuid, interval) TO hm_definer;

RESET ROLE;
ALTER FUNCTION hm_revoke(text, uuid, uuid, interval) OWNER TO hm_definer;
ALTER FUNCTION hm_revocations() OWNER TO hm_definer;
ALTER FUNCTION hm_may_revoke(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_end_session(uuid, text) OWNER TO hm_definer;
ALTER FUNCTION hm_end_sessions(uuid, uuid, text) OWNER TO hm_definer;
ALTER FUNCTION hm_rights_changed(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_key_changed(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_session_ended() OWNER TO hm_definer;
ALTER FUNCTION hm_user_rights_changed() OWNER TO hm_definer;
ALTER FUNCTION hm_user_key_changed() OWNER TO hm_definer;
ALTER FUNCTION hm_session_check(uuid, uuid, text, timestamptz)
    OWNER TO hm_definer;

COMMIT;
