-- Deploy healthmate:mail to pg
--
-- Mail is a job like any other: whoever causes one calls hm_mail in the
-- statement that is its reason, and the worker does the rest.  The row says
-- whom and which template, nothing else: the address stays sealed in users,
-- and a one-time token is made by the worker, after the claim.
--
-- Who asks again while the mail waits, or within a minute, shares it.  What
-- a stranger can cause (he needs to know no more than the address) is also
-- bounded to five an hour: fewer than fill a mailbox, and since a reset
-- token lives for an hour, the owner always holds one that works.

BEGIN;
SET LOCAL ROLE hm_owner;

\set mail '''00000000-0000-7000-8000-000000000004''::uuid'

INSERT INTO system_actors VALUES (:mail, 'worker.mail');

-- The address and the key that opens it.
CREATE POLICY users_mail ON users FOR SELECT TO hm_worker
    USING (hm_actor() = :mail);
CREATE POLICY user_keys_mail ON user_keys FOR SELECT TO hm_worker
    USING (hm_actor() = :mail);

INSERT INTO job_schedules (name, kind, every) VALUES
    ('mail.prune', 'mail.prune', '1 hour');

-- true: a job was left; false: one waits already, or it was too often.
CREATE FUNCTION hm_mail(p_user uuid, p_template text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    k     text := 'mail:' || p_template || ':' || p_user;
    hour  bigint;
    last  bigint;
BEGIN
    IF k IS NULL OR p_template !~ '^[a-z][a-z_]{1,30}$' THEN
        RETURN false;
    END IF;

    SELECT count(*),
           count(*) FILTER (WHERE j.created_at > now() - interval '1 minute')
      INTO hour, last
      FROM public.jobs j
     WHERE j.user_id = p_user AND j.unique_key = k
       AND j.created_at > now() - interval '1 hour';

    IF last > 0 OR (hour >= 5 AND p_template IN ('verify', 'reset',
                                                 'account_exists'))
    THEN
        RETURN false;
    END IF;

    INSERT INTO public.jobs (id, kind, unique_key, user_id, permission,
                             max_attempts)
    VALUES (gen_random_uuid(), 'mail.send', k, p_user, 'system', 12)
    ON CONFLICT (unique_key) WHERE state IN ('ready', 'retry') DO NOTHING;

    RETURN FOUND;
END
$$;

GRANT INSERT (id, kind, unique_key, user_id, permission, max_attempts)
    ON jobs TO hm_definer;
GRANT EXECUTE ON FUNCTION hm_mail(uuid, text) TO hm_api, hm_worker, hm_cli,
                                                 hm_definer;

RESET ROLE;
ALTER FUNCTION hm_mail(uuid, text) OWNER TO hm_definer;

COMMIT;
