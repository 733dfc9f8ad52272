-- Deploy healthmate:account_tokens to pg
--
-- What a mailbox proves.  A token is 32 random bytes that the worker makes
-- and mails; here is its digest.  It is bound to the version of the password
-- (a changed password ends what was mailed before) and taken by a DELETE,
-- so that of many tries at once one wins.
--
-- A request is what waits for a mailbox: the forgotten password of a typed
-- address, an account to be opened, a new address (and a notice to the old).  Whether the address has an account
-- is looked up by the worker, later: to the caller, and to the clock, both
-- are one and the same insert.  Under healthmate_register verified there is
-- no account until its mailbox was proved, hence no password of a stranger
-- on somebody's address.
--
-- Rows of kind `register` hold an account to be: its values are sealed under
-- keys of its own for their places in users, and move there unchanged.

BEGIN;
SET LOCAL ROLE hm_owner;

\set mail '''00000000-0000-7000-8000-000000000004''::uuid'

CREATE TABLE account_tokens (
    id                uuid PRIMARY KEY,
    user_id           uuid NOT NULL,      -- who it is, or will be
    purpose           text NOT NULL CHECK (purpose IN
        ('verify', 'reset', 'register', 'email')),
    token_hash        bytea NOT NULL UNIQUE,
    password_version  int,                -- NULL: there is none yet
    request           uuid,
    created_at        timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz NOT NULL
);

CREATE INDEX account_tokens_user ON account_tokens (user_id);
CREATE INDEX account_tokens_expiry ON account_tokens (expires_at);

CREATE TABLE account_requests (
    id                 uuid PRIMARY KEY,
    purpose            text NOT NULL CHECK (purpose IN
        ('forgot', 'register', 'email', 'notice')),
    user_id            uuid NOT NULL,     -- of nobody yet, but for the last
    email_index        bytea NOT NULL,
    minute             int NOT NULL
        DEFAULT floor(extract(epoch FROM now()) / 60)::int,
    email              bytea,
    full_name          bytea,
    date_of_birth      bytea,
    password_hash      text,
    kek_version        int,
    wrapped_dek        bytea,
    commitment         bytea,
    wrapped_index_key  bytea,
    consents           text[],
    password_version   int,
    dek_version        int NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    expires_at         timestamptz NOT NULL
);

-- One a minute for an address, whether it has an account or not.
CREATE UNIQUE INDEX account_requests_minute
    ON account_requests (email_index, purpose, minute);
CREATE INDEX account_requests_expiry ON account_requests (expires_at);

INSERT INTO sealed_columns VALUES
    ('account_tokens', 'token_hash', 'mac'),
    ('account_requests', 'email_index', 'blind'),
    ('account_requests', 'email', 'sealed'),
    ('account_requests', 'full_name', 'sealed'),
    ('account_requests', 'date_of_birth', 'sealed'),
    ('account_requests', 'wrapped_dek', 'wrapped'),
    ('account_requests', 'commitment', 'mac'),
    ('account_requests', 'wrapped_index_key', 'wrapped');

CALL hm_secure('account_tokens');
CREATE POLICY account_tokens_own ON account_tokens FOR SELECT TO hm_api
    USING (user_id = hm_actor());
CREATE POLICY account_tokens_take ON account_tokens FOR DELETE TO hm_api
    USING (user_id = hm_actor());
CREATE POLICY account_tokens_mailed ON account_tokens FOR SELECT TO hm_worker
    USING (hm_actor() = :mail);
CREATE POLICY account_tokens_make ON account_tokens FOR INSERT TO hm_worker
    WITH CHECK (hm_actor() = :mail);
CREATE POLICY account_tokens_old ON account_tokens FOR DELETE TO hm_worker
    USING (hm_actor() = :mail AND expires_at < now());

CALL hm_secure('account_requests');
CREATE POLICY account_requests_own ON account_requests FOR SELECT TO hm_api
    USING (user_id = hm_actor());
CREATE POLICY account_requests_add ON account_requests FOR INSERT TO hm_api
    WITH CHECK (user_id = hm_actor());
CREATE POLICY account_requests_take ON account_requests FOR DELETE TO hm_api
    USING (user_id = hm_actor());
CREATE POLICY account_requests_mail ON account_requests
    FOR SELECT TO hm_worker USING (hm_actor() = :mail);
CREATE POLICY account_requests_spend ON account_requests
    FOR UPDATE TO hm_worker USING (hm_actor() = :mail);
CREATE POLICY account_requests_old ON account_requests
    FOR DELETE TO hm_worker USING (hm_actor() = :mail
                                   AND expires_at < now());

GRANT SELECT, DELETE ON account_tokens TO hm_api;
GRANT SELECT, INSERT, DELETE ON account_tokens TO hm_worker;
GRANT SELECT, INSERT, DELETE ON account_requests TO hm_api;
GRANT SELECT, DELETE ON account_requests TO hm_worker;
GRANT UPDATE (email, full_name, date_of_birth, password_hash, wrapped_dek,
              commitment, wrapped_index_key) ON account_requests
    TO hm_worker;
GRANT SELECT ON account_tokens, account_requests TO hm_definer;

-- A token, by what only its holder knows; no row: it is good for nothing.
CREATE FUNCTION hm_token_lookup(p_hash bytea)
RETURNS TABLE (user_id uuid, purpose text, role text, request uuid,
               email bytea)
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT t.user_id, t.purpose, coalesce(u.role, 'patient'), t.request,
           r.email
      FROM public.account_tokens t
      LEFT JOIN public.account_requests r ON r.id = t.request
      LEFT JOIN public.users u ON u.id = t.user_id
     WHERE t.token_hash = p_hash AND t.expires_at > now()
       AND (t.request IS NULL OR r.expires_at > now())
       AND CASE WHEN t.purpose = 'register' THEN u.id IS NULL
                ELSE u.is_active AND u.erased_at IS NULL
                     AND u.password_version = t.password_version END;
END
$$;

-- The worker is to look at a request.
CREATE FUNCTION hm_mail_request(p_request uuid) RETURNS boolean
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    INSERT INTO public.jobs (id, kind, unique_key, permission, max_attempts)
    VALUES (gen_random_uuid(), 'mail.request', 'request:' || p_request,
            'system', 12)
    ON CONFLICT (unique_key) WHERE state IN ('ready', 'retry') DO NOTHING;

    RETURN FOUND;
END
$$;

-- Who has this address?  For the worker, which answers a request by mail:
-- the id alone, never the row that login compares a password with.
CREATE FUNCTION hm_account_of(wanted bytea) RETURNS uuid
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN (SELECT u.id FROM public.users u
             WHERE u.email_index = wanted AND u.erased_at IS NULL);
END
$$;

GRANT EXECUTE ON FUNCTION hm_token_lookup(bytea), hm_mail_request(uuid)
    TO hm_api;
GRANT EXECUTE ON FUNCTION hm_account_of(bytea) TO hm_worker;

RESET ROLE;
ALTER FUNCTION hm_account_of(bytea) OWNER TO hm_definer;
ALTER FUNCTION hm_token_lookup(bytea) OWNER TO hm_definer;
ALTER FUNCTION hm_mail_request(uuid) OWNER TO hm_definer;

COMMIT;
