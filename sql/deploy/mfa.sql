-- Deploy healthmate:mfa to pg
--
-- Second factors: one-time codes, recovery codes, passkeys, and the
-- challenges of the latter.  users.mfa tells which of them a person has; it
-- is kept by triggers, so that no statement can forget it.
--
-- What works once is taken by the statement that uses it: a step that only
-- grows, a row that is deleted.  Of two that come together one finds nothing.

BEGIN;
SET LOCAL ROLE hm_owner;

-- One for each person; not confirmed, it opens nothing.
CREATE TABLE mfa_totp (
    user_id       uuid PRIMARY KEY,
    secret        bytea NOT NULL,
    last_step     bigint NOT NULL DEFAULT 0,   -- 30 s steps since 1970
    started_at    timestamptz NOT NULL DEFAULT now(),
    confirmed_at  timestamptz,
    dek_version   int NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

-- Those not used yet, as keyed hashes.
CREATE TABLE mfa_recovery_codes (
    user_id     uuid NOT NULL,
    code_index  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, code_index)
);

-- credential is the sealed document of id, key, name and kind of device;
-- credential_index the digest of its id, which is random and long.
CREATE TABLE passkeys (
    id                uuid PRIMARY KEY,
    user_id           uuid NOT NULL,
    credential_index  bytea NOT NULL UNIQUE,
    credential        bytea NOT NULL,
    sign_count        bigint NOT NULL DEFAULT 0,
    last_used_at      timestamptz,
    dek_version       int NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

CREATE INDEX passkeys_user ON passkeys (user_id, created_at DESC, id DESC);

-- Digests of what was given out to be signed.  Without a person: a login,
-- of whom is not known yet.  A person who enrols has one.
CREATE TABLE webauthn_challenges (
    digest      bytea PRIMARY KEY,
    user_id     uuid UNIQUE,
    expires_at  timestamptz NOT NULL
);

CREATE INDEX webauthn_challenges_expiry ON webauthn_challenges (expires_at)
    WHERE user_id IS NULL;

INSERT INTO sealed_columns VALUES
    ('mfa_totp', 'secret', 'sealed'),
    ('mfa_recovery_codes', 'code_index', 'blind'),
    ('passkeys', 'credential', 'sealed'),
    ('passkeys', 'credential_index', 'mac'),
    ('webauthn_challenges', 'digest', 'mac');

-- ------------------------------------------------------------------------

-- Runs with the rights of who changes a factor: it is his own row.
CREATE FUNCTION hm_mfa_sync() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    person  uuid := coalesce(NEW.user_id, OLD.user_id);
    has     text[];
BEGIN
    -- One after another: two that remove the last two passkeys at once would
    -- each still see the other's.
    PERFORM FROM public.users u WHERE u.id = person FOR UPDATE;

    has := array_remove(ARRAY[
        CASE WHEN EXISTS (SELECT FROM public.mfa_totp t
                           WHERE t.user_id = person
                             AND t.confirmed_at IS NOT NULL)
             THEN 'totp' END,
        CASE WHEN EXISTS (SELECT FROM public.passkeys p
                           WHERE p.user_id = person)
             THEN 'passkey' END], NULL);

    UPDATE public.users u
       SET mfa = has, updated_at = now(), version = u.version + 1
     WHERE u.id = person AND u.mfa IS DISTINCT FROM has;

    -- They stand in for a factor; without one they would be passwords.
    IF has = '{}' THEN
        DELETE FROM public.mfa_recovery_codes c WHERE c.user_id = person;
    END IF;

    RETURN NULL;
END
$$;

CREATE TRIGGER mfa_totp_sync
    AFTER INSERT OR DELETE OR UPDATE OF confirmed_at ON mfa_totp
    FOR EACH ROW EXECUTE FUNCTION hm_mfa_sync();
CREATE TRIGGER passkeys_sync AFTER INSERT OR DELETE ON passkeys
    FOR EACH ROW EXECUTE FUNCTION hm_mfa_sync();

-- All factors of a person end: whoever proves an address anew may not be
-- locked out, nor kept in, by what somebody else had set up before.  With the
-- rights of the caller: the person himself, or a function that has proved it.
CREATE FUNCTION hm_mfa_clear(p_user uuid) RETURNS int
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    n  int;
    k  int;
BEGIN
    DELETE FROM public.mfa_totp t WHERE t.user_id = p_user;
    GET DIAGNOSTICS n = ROW_COUNT;
    DELETE FROM public.passkeys p WHERE p.user_id = p_user;
    GET DIAGNOSTICS k = ROW_COUNT;
    DELETE FROM public.mfa_recovery_codes c WHERE c.user_id = p_user;
    DELETE FROM public.webauthn_challenges w WHERE w.user_id = p_user;
    RETURN n + k;
END
$$;

-- A login with a passkey: one row by a credential's digest, before there is
-- an actor.  It takes the challenge in the same statement as its caller.
CREATE FUNCTION hm_passkey_lookup(wanted bytea)
RETURNS TABLE (id uuid, user_id uuid, role text, is_active boolean,
               credential bytea, dek_version int, sign_count bigint,
               password_version int)
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.user_id, u.role, u.is_active AND u.erased_at IS NULL,
           p.credential, p.dek_version, p.sign_count, u.password_version
      FROM public.passkeys p JOIN public.users u ON u.id = p.user_id
     WHERE p.credential_index = wanted;
END
$$;

-- ------------------------------------------------------------------------

\set all 'hm_api, hm_worker'

CALL hm_secure('mfa_totp');
CREATE POLICY mfa_totp_own ON mfa_totp TO :all
    USING (user_id = hm_actor()) WITH CHECK (user_id = hm_actor());

CALL hm_secure('mfa_recovery_codes');
CREATE POLICY mfa_recovery_codes_own ON mfa_recovery_codes TO :all
    USING (user_id = hm_actor()) WITH CHECK (user_id = hm_actor());

CALL hm_secure('passkeys');
CREATE POLICY passkeys_own ON passkeys TO :all
    USING (user_id = hm_actor()) WITH CHECK (user_id = hm_actor());

-- A digest without a person opens nothing: its text is only with the browser
-- it was given to.
CALL hm_secure('webauthn_challenges');
CREATE POLICY webauthn_challenges_own ON webauthn_challenges TO :all
    USING (user_id IS NULL OR user_id = hm_actor())
    WITH CHECK (user_id IS NULL OR user_id = hm_actor());

GRANT SELECT, INSERT, DELETE ON mfa_totp TO :all;
GRANT UPDATE (secret, last_step, started_at, confirmed_at, dek_version,
              updated_at) ON mfa_totp TO :all;
GRANT SELECT, INSERT, DELETE ON mfa_recovery_codes TO :all;
GRANT SELECT, INSERT, DELETE ON passkeys TO :all;
GRANT UPDATE (credential, sign_count, last_used_at, dek_version, updated_at)
    ON passkeys TO :all;
GRANT SELECT, INSERT, DELETE ON webauthn_challenges TO :all;
GRANT UPDATE (digest, expires_at) ON webauthn_challenges TO :all;

GRANT EXECUTE ON FUNCTION hm_mfa_clear(uuid) TO :all, hm_definer;
GRANT SELECT, DELETE ON mfa_totp, mfa_recovery_codes, passkeys,
    webauthn_challenges TO hm_definer;
GRANT UPDATE (mfa, updated_at, version) ON users TO hm_definer;
GRANT EXECUTE ON FUNCTION hm_passkey_lookup(bytea) TO hm_api;

RESET ROLE;
ALTER FUNCTION hm_passkey_lookup(bytea) OWNER TO hm_definer;

COMMIT;
