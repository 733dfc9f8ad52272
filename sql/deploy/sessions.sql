-- Deploy healthmate:sessions to pg
--
-- What becomes of a session after its login: it is refreshed, it is used,
-- it ends.  No token is stored; the row's counter says which refresh token is
-- the current one (the module computes it, and knows its own by a MAC).
--
-- Both functions run with the caller's rights.  A refresh comes before there
-- is an actor: the session says whose it is, and from there on the policies
-- are asked as that person.

BEGIN;
SET LOCAL ROLE hm_owner;

-- When the counter last moved: the grace begins here.  last_used_at is moved
-- by ordinary requests as well.
ALTER TABLE sessions ADD COLUMN rotated_at timestamptz NOT NULL
    DEFAULT now();
GRANT UPDATE (rotated_at) ON sessions TO hm_api;

-- One turn of the session, under its row's lock: of any number of tokens
-- presented at once one turns the counter, and those that come within the
-- grace get the pair it turned to.  Whatever is older has been used before,
-- by somebody else, and ends the session for everybody.  No row: there is no
-- such session.
--
--   turned    the next pair            grace     the current pair again
--   reused    ended here and now       idle, expired, account: ended too
--   ended     it had ended before      mismatch  without its cookie
--   ahead     a turn that was never given (a database set back)
--
-- An ended session is asked about first: the grace opens nothing again.  So
-- is the cookie: who has only the token can neither use it nor end the
-- session with it.
CREATE FUNCTION hm_session_refresh(
    wanted uuid, turn bigint, cookie boolean, bare boolean, life int,
    idle int[], absolute int[],
    OUT verdict text, OUT changed boolean, OUT u users, OUT s sessions)
RETURNS SETOF record
LANGUAGE plpgsql ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    owner   uuid;
    moment  timestamptz;
    n       int;
    last    timestamptz;
BEGIN
    SELECT l.user_id INTO owner FROM public.hm_session_lookup(wanted) l;
    IF owner IS NULL THEN
        RETURN;
    END IF;

    PERFORM set_config('hm.actor', owner::text, true);

    SELECT x.* INTO s FROM public.sessions x WHERE x.id = wanted FOR UPDATE;
    SELECT x.* INTO u FROM public.users x WHERE x.id = owner;

    moment := clock_timestamp();         -- after the wait for the lock
    n := array_position(ARRAY['patient', 'doctor', 'admin', 'researcher'],
                        s.role);
    last := s.created_at + make_interval(secs => absolute[n]);

    verdict := CASE
        WHEN s.id IS NULL OR s.ended_at IS NOT NULL THEN 'ended'
        WHEN NOT CASE WHEN s.fingerprint THEN cookie ELSE bare END
            THEN 'mismatch'
        WHEN u.id IS NULL OR NOT u.is_active OR u.erased_at IS NOT NULL
             OR u.role <> s.role THEN 'account'
        WHEN moment >= least(s.expires_at, last) THEN 'expired'
        WHEN turn > s.counter THEN 'ahead'
        WHEN turn = s.counter AND moment >= s.last_used_at
             + make_interval(secs => idle[n]) THEN 'idle'
        WHEN turn = s.counter THEN 'turned'
        WHEN turn = s.counter - 1 AND moment < s.rotated_at
             + interval '30 seconds' THEN 'grace'
        ELSE 'reused' END;

    changed := verdict IN ('turned', 'grace', 'reused', 'idle', 'expired',
                           'account');

    IF verdict = 'turned' THEN
        UPDATE public.sessions x
           SET counter = x.counter + 1, rotated_at = moment,
               last_used_at = greatest(x.last_used_at, moment),
               expires_at = least(moment + make_interval(secs => life),
                                  last),
               updated_at = moment, version = x.version + 1
         WHERE x.id = wanted
        RETURNING x.* INTO s;

    ELSIF changed AND verdict <> 'grace' THEN
        PERFORM public.hm_end_session(wanted, CASE verdict
            WHEN 'reused' THEN 'refresh_reused' ELSE verdict END);

        IF verdict = 'reused' THEN
            PERFORM public.hm_mail(owner, 'session_reuse');
        END IF;
    END IF;

    RETURN NEXT;
END
$$;

-- Many sessions were used.  One that is locked is being refreshed, which
-- says so itself.
CREATE FUNCTION hm_sessions_seen(ids uuid[], people uuid[],
                                 times timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    r  record;
BEGIN
    FOR r IN SELECT t.id, t.person, max(t.at) AS at
               FROM unnest(ids, people, times) AS t (id, person, at)
              GROUP BY 1, 2 ORDER BY 1
    LOOP
        PERFORM set_config('hm.actor', r.person::text, true);

        UPDATE public.sessions s SET last_used_at = r.at
         WHERE s.id = (SELECT x.id FROM public.sessions x
                        WHERE x.id = r.id AND x.user_id = r.person
                          AND x.ended_at IS NULL AND x.last_used_at < r.at
                          FOR UPDATE SKIP LOCKED);
    END LOOP;
END
$$;

GRANT EXECUTE ON FUNCTION hm_session_refresh(uuid, bigint, boolean, boolean,
                                             int, int[], int[]),
    hm_sessions_seen(uuid[], uuid[], timestamptz[]) TO hm_api;

COMMIT;
