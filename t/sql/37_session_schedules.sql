-- Random schedules of one session: tabs, lost replies, thieves, time.
--
-- Each schedule draws who asks, with which token, when; beside it runs what
-- must hold of all of them.  A session ends by reuse exactly when a token is
-- used that is more than a step, or more than the grace, behind; the newest
-- token always turns, by one; what has ended never opens again; and without
-- the cookie nothing changes.
\ir lib/setup.psql
SELECT plan(4);

CREATE FUNCTION tap.schedules(count int, OUT faults text, OUT reused int,
                              OUT graced int, OUT lived int)
LANGUAGE plpgsql AS $$
DECLARE
    ses     uuid;
    r       record;
    given   int;                          -- turns so far
    behind  int;
    age     int;                          -- of the last turn, seconds
    ended   boolean;
    cookie  boolean;
    want    text;
BEGIN
    reused := 0;
    graced := 0;
    lived := 0;

    FOR i IN 1..count LOOP
        ses := gen_random_uuid();
        INSERT INTO sessions (id, user_id, role, expires_at, dek_version)
        VALUES (ses, 'a0000000-0000-7000-8000-000000000001', 'patient',
                now() + interval '7 days', 1);
        given := 0;
        age := 0;
        ended := false;

        FOR j IN 1..8 LOOP
            IF random() < 0.4 THEN
                age := age + (random() * 25)::int;
                UPDATE sessions s SET rotated_at = clock_timestamp()
                    - make_interval(secs => age) WHERE s.id = ses;
            END IF;

            behind := least(given, CASE WHEN random() < 0.75 THEN 0
                                        WHEN random() < 0.8 THEN 1
                                        ELSE 2 END);
            cookie := random() < 0.9;
            want := CASE WHEN ended THEN 'ended'
                         WHEN NOT cookie THEN 'mismatch'
                         WHEN behind = 0 THEN 'turned'
                         WHEN behind = 1 AND age < 30 THEN 'grace'
                         ELSE 'reused' END;

            SELECT x.verdict, (x.s).counter AS counter,
                   (x.s).ended_at IS NOT NULL AS ended
              INTO r
              FROM hm_session_refresh(ses, given - behind, cookie, false,
                       604800, '{3600,900,900,900}',
                       '{2592000,43200,43200,43200}') x;

            IF want = 'turned' THEN
                given := given + 1;
                age := 0;
            ELSIF want = 'grace' THEN
                graced := graced + 1;
            ELSIF want = 'reused' THEN
                ended := true;
                reused := reused + 1;
            END IF;

            IF r.verdict <> want OR r.counter <> given
               OR ended <> (SELECT s.ended_at IS NOT NULL FROM sessions s
                             WHERE s.id = ses)
            THEN
                faults := format('schedule %s step %s: %s at %s, wanted %s '
                    'at %s', i, j, r.verdict, r.counter, want, given);
                RETURN;
            END IF;
        END LOOP;

        lived := lived + (NOT ended)::int;
    END LOOP;
END
$$;

SELECT setseed(0.42);
SELECT coalesce(faults, '') AS faults, reused, graced, lived
  FROM tap.schedules(1500) \gset

SELECT is(:'faults'::text, '', '1500 schedules of 8 steps');
SELECT cmp_ok(:reused, '>', 200, 'in some of them a token was stolen');
SELECT cmp_ok(:graced, '>', 200, 'in some a reply was lost');
SELECT cmp_ok(:lived, '>', 200, 'and most sessions lived');

SELECT * FROM finish();
ROLLBACK;
