-- Deploy healthmate:accounts to pg
--
-- People, their keys and sessions, who may act for whom, and hm_may: the one
-- question every policy asks when a row is not the actor's own.
--
-- No foreign keys between fenced tables: their checks run as the table's
-- owner, whom FORCE ROW LEVEL SECURITY shows nothing, and would cost each
-- insert a look-up.  Erasure walks the tables by name instead.

BEGIN;
SET LOCAL ROLE hm_owner;

CREATE TABLE hm_settings (
    name   text PRIMARY KEY,
    value  text NOT NULL,
    CONSTRAINT hm_settings_known
        CHECK (name <> 'admin_phi' OR value IN ('all', 'break_glass'))
);

INSERT INTO hm_settings VALUES ('admin_phi', 'break_glass');

-- Work without a person behind it runs as one of these.  Policies name them,
-- and only to the worker's role.
CREATE TABLE system_actors (
    id    uuid PRIMARY KEY,
    name  text NOT NULL UNIQUE
);

INSERT INTO system_actors VALUES
    ('00000000-0000-7000-8000-000000000001', 'worker.rollup'),
    ('00000000-0000-7000-8000-000000000002', 'worker.retention'),
    ('00000000-0000-7000-8000-000000000003', 'worker.sweeper');

CREATE TABLE users (
    id                   uuid PRIMARY KEY,
    email                bytea NOT NULL,
    email_index          bytea NOT NULL UNIQUE,
    email_index_version  int NOT NULL DEFAULT 1,
    password_hash        text NOT NULL,
    password_version     int NOT NULL DEFAULT 1,
    full_name            bytea,
    phone                bytea,
    address              bytea,
    date_of_birth        bytea,
    role                 text NOT NULL DEFAULT 'patient'
        CHECK (role IN ('patient', 'doctor', 'admin', 'researcher')),
    is_active            boolean NOT NULL DEFAULT true,
    email_verified_at    timestamptz,
    mfa                  text[] NOT NULL DEFAULT '{}',
    last_login_at        timestamptz,
    erased_at            timestamptz,
    dek_version          int NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    version              int NOT NULL DEFAULT 1
) WITH (fillfactor = 80);         -- last_login_at: updated in place (HOT)

-- user_id is the nil UUID for the system's own key, hence no person behind
-- each row.
CREATE TABLE user_keys (
    user_id       uuid NOT NULL,
    version       int NOT NULL,
    kek_version   int NOT NULL,
    wrapped_dek   bytea,                  -- NULL once destroyed
    commitment    bytea,
    state         text NOT NULL DEFAULT 'active'
        CHECK (state IN ('active', 'retired', 'destroyed')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    rotated_at    timestamptz,
    destroyed_at  timestamptz,
    PRIMARY KEY (user_id, version),
    CHECK (state = 'destroyed' OR wrapped_dek IS NOT NULL)
);

-- A writer never has to choose between two keys.
CREATE UNIQUE INDEX user_keys_active ON user_keys (user_id)
    WHERE state = 'active';

CREATE TABLE user_index_keys (
    user_id      uuid PRIMARY KEY,
    kek_version  int NOT NULL,
    wrapped_key  bytea,                   -- NULL once destroyed
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sessions (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    role          text NOT NULL,
    client        bytea,                  -- address, user agent, device label
    fingerprint   boolean NOT NULL DEFAULT true,
    amr           text[] NOT NULL DEFAULT '{pwd}',
    auth_time     timestamptz NOT NULL DEFAULT now(),
    counter       int NOT NULL DEFAULT 0,
    last_used_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    end_reason    text,
    dek_version   int NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    version       int NOT NULL DEFAULT 1
) WITH (fillfactor = 80);

CREATE INDEX sessions_user ON sessions (user_id, created_at DESC);

-- What nginx workers load into shared memory: ids and times, no token.
CREATE TABLE revocations (
    session_id  uuid PRIMARY KEY,
    user_id     uuid NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);

CREATE INDEX revocations_expiry ON revocations (expires_at);

CREATE TABLE user_preferences (
    user_id     uuid PRIMARY KEY,
    locale      text NOT NULL DEFAULT 'en',
    units       text NOT NULL DEFAULT 'metric',
    time_zone   text NOT NULL DEFAULT 'UTC',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    version     int NOT NULL DEFAULT 1
);

CREATE TABLE user_health_profiles (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL UNIQUE,
    document     bytea NOT NULL,
    dek_version  int NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    version      int NOT NULL DEFAULT 1
);

CREATE TABLE care_relationships (
    id           uuid PRIMARY KEY,
    patient_id   uuid NOT NULL,
    doctor_id    uuid NOT NULL,
    status       text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'active', 'declined', 'ended')),
    created_by   uuid NOT NULL,
    from_at      timestamptz NOT NULL DEFAULT now(),
    until        timestamptz NOT NULL DEFAULT now() + interval '1 year',
    accepted_at  timestamptz,
    ended_at     timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    version      int NOT NULL DEFAULT 1,
    CHECK (patient_id <> doctor_id)
);

CREATE UNIQUE INDEX care_relationships_open
    ON care_relationships (doctor_id, patient_id)
    WHERE status IN ('pending', 'active');
CREATE INDEX care_relationships_patient ON care_relationships (patient_id);

-- Appended to, never rewritten: the newest row of a purpose counts.
CREATE TABLE consents (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    purpose       text NOT NULL,
    granted       boolean NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    withdrawn_at  timestamptz
);

CREATE INDEX consents_newest
    ON consents (user_id, purpose, created_at DESC, id DESC);

CREATE TABLE break_glass_grants (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL,           -- whose records
    actor_id     uuid NOT NULL,           -- who opened them
    reason       bytea NOT NULL,
    dek_version  int NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    CHECK (expires_at <= created_at + interval '60 minutes'),
    CHECK (actor_id <> user_id)
);

CREATE INDEX break_glass_open
    ON break_glass_grants (actor_id, user_id, expires_at);

INSERT INTO sealed_columns VALUES
    ('users', 'email', 'sealed'), ('users', 'email_index', 'blind'),
    ('users', 'full_name', 'sealed'), ('users', 'phone', 'sealed'),
    ('users', 'address', 'sealed'), ('users', 'date_of_birth', 'sealed'),
    ('user_keys', 'wrapped_dek', 'wrapped'),
    ('user_keys', 'commitment', 'mac'),
    ('user_index_keys', 'wrapped_key', 'wrapped'),
    ('sessions', 'client', 'sealed'),
    ('user_health_profiles', 'document', 'sealed'),
    ('break_glass_grants', 'reason', 'sealed');

-- ------------------------------------------------------------------------
-- Functions that look past the actor's own rows.  They run as hm_definer,
-- which passes row-level security: owned by the tables' owner they would see
-- nothing, or call themselves through the policies.  hm_definer may read
-- exactly the columns named here.

GRANT SELECT ON users, sessions, care_relationships, consents,
                break_glass_grants, hm_settings TO hm_definer;

-- May the actor read or write what is the subject's?  Asked of the tables in
-- the statement itself: a relationship ended or a consent withdrawn counts
-- from its commit, whatever a token says.  PL/pgSQL keeps its plan for the
-- session; an SQL function with SET is planned anew in every statement.
CREATE FUNCTION hm_may(actor uuid, subject uuid, verb text) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER COST 1000
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF actor = subject THEN
        RETURN true;
    END IF;

    -- One statement: a list asks once per row.
    RETURN coalesce((
        SELECT CASE u.role
            WHEN 'doctor' THEN EXISTS (
                SELECT FROM public.care_relationships r
                  JOIN public.users p ON p.id = r.patient_id
                 WHERE r.doctor_id = actor AND r.patient_id = subject
                   AND r.status = 'active'
                   AND r.from_at <= now() AND now() < r.until
                   AND p.email_verified_at IS NOT NULL
                   AND p.erased_at IS NULL)
               AND coalesce((
                SELECT c.granted AND c.withdrawn_at IS NULL
                  FROM public.consents c
                 WHERE c.user_id = subject AND c.purpose = 'data_processing'
                 ORDER BY c.created_at DESC, c.id DESC LIMIT 1), true)
            WHEN 'admin' THEN EXISTS (
                SELECT FROM public.hm_settings s
                 WHERE s.name = 'admin_phi' AND s.value = 'all')
            ELSE false
            END
            OR (verb = 'read' AND u.role IN ('doctor', 'admin') AND EXISTS (
                SELECT FROM public.break_glass_grants g
                 WHERE g.actor_id = actor AND g.user_id = subject
                   AND g.ended_at IS NULL AND now() < g.expires_at))
          FROM public.users u
         WHERE u.id = actor AND u.is_active AND u.erased_at IS NULL), false);
END
$$;

CREATE FUNCTION hm_is_admin(actor uuid) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER COST 1000
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM public.users u
                    WHERE u.id = actor AND u.role = 'admin' AND u.is_active
                      AND u.erased_at IS NULL);
END
$$;

-- Before there is an actor: one row by a value only the right caller has.
CREATE FUNCTION hm_login_lookup(wanted bytea) RETURNS SETOF users
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT u.* FROM public.users u
                  WHERE u.email_index = wanted AND u.erased_at IS NULL
                  LIMIT 1;
END
$$;

-- Refresh: the session a verified refresh token names, with what may have
-- changed about its user since.
CREATE FUNCTION hm_session_lookup(wanted uuid)
RETURNS TABLE (id uuid, user_id uuid, session_role text, fingerprint boolean,
               amr text[], auth_time timestamptz, counter int,
               created_at timestamptz, last_used_at timestamptz,
               expires_at timestamptz, ended_at timestamptz,
               user_role text, is_active boolean, password_version int)
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT s.id, s.user_id, s.role, s.fingerprint, s.amr, s.auth_time,
           s.counter, s.created_at, s.last_used_at, s.expires_at, s.ended_at,
           u.role, u.is_active AND u.erased_at IS NULL, u.password_version
      FROM public.sessions s JOIN public.users u ON u.id = s.user_id
     WHERE s.id = wanted;
END
$$;

-- Counts for the host commands; nothing about a person.
CREATE FUNCTION hm_user_count() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN (SELECT count(*) FROM public.users);
END
$$;

CREATE FUNCTION hm_key_status()
RETURNS TABLE (kek_version int, state text, people bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT k.kek_version, k.state, count(*)
                   FROM public.user_keys k GROUP BY k.kek_version, k.state;
END
$$;

-- Nobody changes his own role, and only an administrator another's; the host
-- commands (hm_cli) and the owner of the cluster excepted, or there would
-- never be a first administrator.
CREATE FUNCTION hm_users_role_guard() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF current_user IN ('hm_api', 'hm_worker')
       AND (NEW.id IS NOT DISTINCT FROM public.hm_actor()
            OR NOT coalesce(public.hm_is_admin(public.hm_actor()), false))
    THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'a role is changed by another administrator';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER users_role_guard BEFORE UPDATE OF role ON users
    FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role)
    EXECUTE FUNCTION hm_users_role_guard();

-- ------------------------------------------------------------------------
-- Policies.  The cheap test first: for own rows hm_may is never called.

\set api 'hm_api, hm_worker, hm_cli'
\set nil '''00000000-0000-0000-0000-000000000000''::uuid'
\set rollup '''00000000-0000-7000-8000-000000000001''::uuid'
\set retention '''00000000-0000-7000-8000-000000000002''::uuid'
\set own 'user_id = (SELECT hm_actor()) OR user_id = ANY ((SELECT hm_actors())::uuid[])'
\set may_read 'hm_may(hm_actor(), user_id, ''read'')'
\set may_write 'hm_may(hm_actor(), user_id, ''write'')'

CALL hm_secure('users');
-- An administrator sees the row (role, active, times); its sealed columns
-- stay shut, because the keys ask hm_may.  A doctor sees no account row.
CREATE POLICY users_read ON users FOR SELECT TO :api
    USING (id = hm_actor() OR hm_is_admin(hm_actor()));
-- Registering makes a patient; the host command may make anyone.
CREATE POLICY users_add ON users FOR INSERT TO hm_api
    WITH CHECK (id = hm_actor() AND role = 'patient');
CREATE POLICY users_add_cli ON users FOR INSERT TO hm_cli
    WITH CHECK (id = hm_actor());
CREATE POLICY users_change ON users FOR UPDATE TO :api
    USING (id = hm_actor() OR hm_is_admin(hm_actor()));

CALL hm_secure('user_keys');
CREATE POLICY user_keys_read ON user_keys FOR SELECT TO :api
    USING (:own OR user_id = :nil OR :may_read);
CREATE POLICY user_keys_add ON user_keys FOR INSERT TO :api
    WITH CHECK (user_id = hm_actor());
CREATE POLICY user_keys_change ON user_keys FOR UPDATE TO hm_worker, hm_cli
    USING (user_id = hm_actor());
CREATE POLICY user_keys_nil_add ON user_keys FOR INSERT TO hm_cli
    WITH CHECK (user_id = :nil);
CREATE POLICY user_keys_nil_change ON user_keys FOR UPDATE TO hm_cli
    USING (user_id = :nil);
CREATE POLICY user_keys_rollup ON user_keys FOR SELECT TO hm_worker
    USING ((SELECT hm_actor()) = :rollup);

CALL hm_secure('user_index_keys');
CREATE POLICY user_index_keys_read ON user_index_keys FOR SELECT TO :api
    USING (:own OR user_id = :nil OR :may_read);
CREATE POLICY user_index_keys_add ON user_index_keys FOR INSERT TO :api
    WITH CHECK (user_id = hm_actor());
CREATE POLICY user_index_keys_change ON user_index_keys
    FOR UPDATE TO hm_worker, hm_cli USING (user_id = hm_actor());
CREATE POLICY user_index_keys_nil_add ON user_index_keys FOR INSERT TO hm_cli
    WITH CHECK (user_id = :nil);
CREATE POLICY user_index_keys_nil_change ON user_index_keys
    FOR UPDATE TO hm_cli USING (user_id = :nil);
CREATE POLICY user_index_keys_rollup ON user_index_keys
    FOR SELECT TO hm_worker USING ((SELECT hm_actor()) = :rollup);

-- A session is its user's alone; an administrator may end it.
CALL hm_secure('sessions');
CREATE POLICY sessions_read ON sessions FOR SELECT TO :api
    USING (user_id = hm_actor() OR hm_is_admin(hm_actor()));
CREATE POLICY sessions_add ON sessions FOR INSERT TO :api
    WITH CHECK (user_id = hm_actor());
CREATE POLICY sessions_change ON sessions FOR UPDATE TO :api
    USING (user_id = hm_actor() OR hm_is_admin(hm_actor()));

-- Each nginx worker reads every unexpired revocation, without an actor: a
-- session id opens nothing.
CALL hm_secure('revocations');
CREATE POLICY revocations_read ON revocations FOR SELECT TO :api
    USING (expires_at > now());
CREATE POLICY revocations_add ON revocations FOR INSERT TO :api
    WITH CHECK (user_id = hm_actor() OR hm_is_admin(hm_actor()));
CREATE POLICY revocations_expired_read ON revocations FOR SELECT TO hm_worker
    USING ((SELECT hm_actor()) = :retention AND expires_at < now());
CREATE POLICY revocations_expired ON revocations FOR DELETE TO hm_worker
    USING ((SELECT hm_actor()) = :retention AND expires_at < now());

CALL hm_secure('user_preferences');
CREATE POLICY user_preferences_read ON user_preferences FOR SELECT TO :api
    USING (:own OR :may_read);
CREATE POLICY user_preferences_add ON user_preferences FOR INSERT TO :api
    WITH CHECK (user_id = hm_actor());
CREATE POLICY user_preferences_change ON user_preferences FOR UPDATE TO :api
    USING (user_id = hm_actor());
CREATE POLICY user_preferences_rollup ON user_preferences
    FOR SELECT TO hm_worker USING ((SELECT hm_actor()) = :rollup);

CALL hm_secure('user_health_profiles');
CREATE POLICY user_health_profiles_read ON user_health_profiles
    FOR SELECT TO hm_api, hm_worker USING (:own OR :may_read);
CREATE POLICY user_health_profiles_add ON user_health_profiles
    FOR INSERT TO hm_api, hm_worker WITH CHECK (:own OR :may_write);
CREATE POLICY user_health_profiles_change ON user_health_profiles
    FOR UPDATE TO hm_api, hm_worker USING (:own OR :may_write);
CREATE POLICY user_health_profiles_remove ON user_health_profiles
    FOR DELETE TO hm_api, hm_worker USING (:own OR :may_write);

-- Both sides see a relationship; only the patient makes it active.  A doctor
-- or an administrator proposes, and ends or declines.
CALL hm_secure('care_relationships');
CREATE POLICY care_relationships_read ON care_relationships
    FOR SELECT TO :api
    USING (patient_id = hm_actor() OR doctor_id = hm_actor()
           OR hm_is_admin(hm_actor()));
CREATE POLICY care_relationships_add ON care_relationships
    FOR INSERT TO :api
    WITH CHECK (created_by = hm_actor()
                AND (patient_id = hm_actor()
                     OR (status = 'pending'
                         AND (doctor_id = hm_actor()
                              OR hm_is_admin(hm_actor())))));
CREATE POLICY care_relationships_change ON care_relationships
    FOR UPDATE TO :api
    USING (patient_id = hm_actor() OR doctor_id = hm_actor()
           OR hm_is_admin(hm_actor()))
    WITH CHECK (patient_id = hm_actor()
                OR (status IN ('declined', 'ended')
                    AND (doctor_id = hm_actor()
                         OR hm_is_admin(hm_actor()))));

CALL hm_secure('consents');
CREATE POLICY consents_read ON consents FOR SELECT TO :api
    USING (:own OR :may_read);
CREATE POLICY consents_add ON consents FOR INSERT TO :api
    WITH CHECK (user_id = hm_actor());
CREATE POLICY consents_change ON consents FOR UPDATE TO :api
    USING (user_id = hm_actor());

-- Read only: a grant is opened by an endpoint of its own, with step-up.
CALL hm_secure('break_glass_grants');
CREATE POLICY break_glass_grants_read ON break_glass_grants
    FOR SELECT TO hm_api, hm_worker
    USING (user_id = hm_actor() OR actor_id = hm_actor()
           OR hm_is_admin(hm_actor()));

-- ------------------------------------------------------------------------
-- Grants.  Ids, owners and creation times are written once: where a table
-- can be updated, only its other columns can.

GRANT SELECT ON hm_settings, system_actors TO :api;
GRANT INSERT, UPDATE ON hm_settings TO hm_cli;

GRANT SELECT ON users TO :api;
GRANT INSERT ON users TO hm_api, hm_cli;
GRANT UPDATE (email, email_index, email_index_version, password_hash,
              password_version, full_name, phone, address, date_of_birth,
              role, is_active, email_verified_at, mfa, last_login_at,
              erased_at, dek_version, updated_at, version)
    ON users TO :api;

GRANT SELECT, INSERT ON user_keys, user_index_keys TO :api;
GRANT UPDATE (kek_version, wrapped_dek, commitment, state, rotated_at,
              destroyed_at) ON user_keys TO hm_worker, hm_cli;
GRANT UPDATE (kek_version, wrapped_key)
    ON user_index_keys TO hm_worker, hm_cli;

GRANT SELECT, INSERT ON sessions TO :api;
GRANT UPDATE (client, amr, auth_time, counter, last_used_at, expires_at,
              ended_at, end_reason, dek_version, updated_at, version)
    ON sessions TO :api;

GRANT SELECT, INSERT ON revocations TO :api;
GRANT DELETE ON revocations TO hm_worker;

GRANT SELECT, INSERT ON user_preferences TO :api;
GRANT UPDATE (locale, units, time_zone, updated_at, version)
    ON user_preferences TO :api;

GRANT SELECT, INSERT, DELETE ON user_health_profiles TO hm_api, hm_worker;
GRANT UPDATE (document, dek_version, updated_at, version)
    ON user_health_profiles TO hm_api, hm_worker;

GRANT SELECT, INSERT ON care_relationships TO :api;
GRANT UPDATE (status, until, accepted_at, ended_at, updated_at, version)
    ON care_relationships TO :api;

GRANT SELECT, INSERT ON consents TO :api;
GRANT UPDATE (withdrawn_at) ON consents TO :api;

GRANT SELECT ON break_glass_grants TO hm_api, hm_worker;

-- hm_may last: until here it belongs to hm_owner.
GRANT EXECUTE ON FUNCTION hm_may(uuid, uuid, text), hm_is_admin(uuid)
    TO :api;
GRANT EXECUTE ON FUNCTION hm_login_lookup(bytea) TO hm_api, hm_cli;
GRANT EXECUTE ON FUNCTION hm_session_lookup(uuid) TO hm_api;
GRANT EXECUTE ON FUNCTION hm_user_count(), hm_key_status() TO hm_cli;
GRANT SELECT (kek_version, state) ON user_keys TO hm_definer;

RESET ROLE;
ALTER FUNCTION hm_may(uuid, uuid, text) OWNER TO hm_definer;
ALTER FUNCTION hm_is_admin(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_login_lookup(bytea) OWNER TO hm_definer;
ALTER FUNCTION hm_session_lookup(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_user_count() OWNER TO hm_definer;
ALTER FUNCTION hm_key_status() OWNER TO hm_definer;

COMMIT;
