-- Deploy healthmate:rights to pg
--
-- Who may see whom, as people change it themselves: care relationships made
-- by API, break-glass, accounts made by an administrator.
--
-- What needs to look past the caller's own rows is a function of hm_definer
-- that asks hm_actor() who is calling and answers with a result, never with
-- an error.  The rest are plain statements of hm_api below the policies.

BEGIN;
SET LOCAL ROLE hm_owner;

ALTER TABLE hm_settings DROP CONSTRAINT hm_settings_known;
ALTER TABLE hm_settings ADD CONSTRAINT hm_settings_known CHECK (
    CASE name WHEN 'admin_phi' THEN value IN ('all', 'break_glass')
              WHEN 'care_assign' THEN value IN ('patient', 'staff')
              ELSE true END);
INSERT INTO hm_settings VALUES ('care_assign', 'patient')
    ON CONFLICT DO NOTHING;

-- ------------------------------------------------------------------------
-- Care relationships.

-- Can these two be one?  Only people whose address is verified, and only
-- with a doctor.  Why not is not told: it would tell who has an account.
CREATE FUNCTION hm_care_parties(p_patient uuid, p_doctor uuid)
RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN p_patient <> p_doctor AND EXISTS (
        SELECT FROM public.users p, public.users d
         WHERE p.id = p_patient AND p.is_active AND p.erased_at IS NULL
           AND p.email_verified_at IS NOT NULL
           AND d.id = p_doctor AND d.is_active AND d.erased_at IS NULL
           AND d.email_verified_at IS NOT NULL AND d.role = 'doctor');
END
$$;

-- Made by the patient it may be active at once; by anybody else it waits for
-- the patient.  An administrator's is active at once where the operator said
-- so (care_assign staff); a doctor's own proposal never is.
DROP POLICY care_relationships_add ON care_relationships;
CREATE POLICY care_relationships_add ON care_relationships
    FOR INSERT TO hm_api, hm_worker, hm_cli
    WITH CHECK (created_by = hm_actor()
                AND (patient_id = hm_actor()
                     OR (status = 'pending'
                         AND (doctor_id = hm_actor()
                              OR hm_is_admin(hm_actor())))
                     OR (status = 'active' AND hm_is_admin(hm_actor())
                         AND EXISTS (SELECT FROM hm_settings s
                                      WHERE s.name = 'care_assign'
                                        AND s.value = 'staff')))
                AND hm_care_parties(patient_id, doctor_id));

-- Whom the calling doctor treats, with the little of their accounts that a
-- list of patients needs; opened with their keys, which ask hm_may too.
CREATE FUNCTION hm_patients()
RETURNS TABLE (relationship uuid, doctor_id uuid, created_at timestamptz,
               accepted_at timestamptz, until timestamptz, user_id uuid,
               full_name bytea, date_of_birth bytea, dek_version int)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT r.id, r.doctor_id, r.created_at, r.accepted_at, r.until, p.id,
           p.full_name, p.date_of_birth, p.dek_version
      FROM public.care_relationships r
      JOIN public.users p ON p.id = r.patient_id
      JOIN public.users d ON d.id = r.doctor_id
     WHERE r.doctor_id = public.hm_actor() AND r.status = 'active'
       AND d.role = 'doctor' AND r.from_at <= now() AND now() < r.until
       AND public.hm_may(public.hm_actor(), p.id, 'write');
END
$$;

-- ------------------------------------------------------------------------
-- Break-glass.  A grant opens one person's records to one doctor or
-- administrator, to read, for an hour.  From the fourth within a day on it
-- opens nothing until another administrator has approved it.

ALTER TABLE break_glass_grants
    ADD COLUMN needs_approval  boolean NOT NULL DEFAULT false,
    ADD COLUMN approved_by     uuid,
    ADD COLUMN approved_at     timestamptz,
    ADD COLUMN ended_by        uuid,
    ADD COLUMN version         int NOT NULL DEFAULT 1;

ALTER TABLE break_glass_grants
    DROP CONSTRAINT break_glass_grants_check,
    ADD CONSTRAINT break_glass_grants_hour CHECK (
        expires_at <= coalesce(approved_at, created_at)
                      + interval '60 minutes'),
    ADD CONSTRAINT break_glass_grants_second CHECK (
        (approved_at IS NULL) = (approved_by IS NULL)
        AND (approved_by IS NULL
             OR (approved_by <> actor_id AND approved_by <> user_id)));

CREATE INDEX break_glass_actor
    ON break_glass_grants (actor_id, created_at DESC);
CREATE INDEX break_glass_user
    ON break_glass_grants (user_id, created_at DESC);

-- The wrapped keys of a person, for what staff does with an account itself:
-- the sealed reason of a grant is written before the grant exists, and an
-- administrator is shown whose account it is.  Wrapped keys open nothing
-- without the KEK, and no row of the person's records comes with them.
CREATE FUNCTION hm_staff_keys(p_user uuid)
RETURNS TABLE (version int, wrapped_dek bytea, state text, wrapped_key bytea,
               leaf int)
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT k.version, k.wrapped_dek, k.state, i.wrapped_key,
           public.hm_leaf(k.user_id)
      FROM public.user_keys k
      JOIN public.user_index_keys i ON i.user_id = k.user_id
      JOIN public.users p ON p.id = k.user_id AND p.erased_at IS NULL
     WHERE k.user_id = p_user AND k.state <> 'destroyed'
       AND EXISTS (SELECT FROM public.users u
                    WHERE u.id = public.hm_actor() AND u.is_active
                      AND u.erased_at IS NULL
                      AND u.role IN ('doctor', 'admin'))
     ORDER BY k.version DESC LIMIT 4;
END
$$;

-- No row: the caller may not, or there is nobody of that id.  One opening at
-- a time for each caller, so that three a day are three.
CREATE FUNCTION hm_break_glass_open(p_id uuid, p_user uuid, p_reason bytea,
                                    p_dek_version int)
RETURNS SETOF break_glass_grants
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    caller   uuid := public.hm_actor();
    made     break_glass_grants;
    another  uuid;
    earlier  int;
BEGIN
    IF caller IS NULL OR p_user IS NULL OR caller = p_user
       OR NOT EXISTS (SELECT FROM public.users u
                       WHERE u.id = caller AND u.is_active
                         AND u.erased_at IS NULL
                         AND u.role IN ('doctor', 'admin'))
       OR NOT EXISTS (SELECT FROM public.users u
                       WHERE u.id = p_user AND u.erased_at IS NULL)
    THEN
        RETURN;
    END IF;

    PERFORM pg_advisory_xact_lock(hashtextextended(
        'hm_break_glass ' || caller::text, 1));

    SELECT count(*) INTO earlier FROM public.break_glass_grants g
     WHERE g.actor_id = caller
       AND g.created_at > now() - interval '1 day';

    INSERT INTO public.break_glass_grants AS g (id, user_id, actor_id,
        reason, dek_version, created_at, expires_at, needs_approval)
    VALUES (p_id, p_user, caller, p_reason, p_dek_version, now(),
            now() + interval '60 minutes', earlier >= 3)
    RETURNING g.* INTO made;

    -- Whoever owns the records is told, whatever his preferences.
    PERFORM public.hm_mail(p_user, 'break_glass');

    IF made.needs_approval THEN
        FOR another IN SELECT u.id FROM public.users u
                        WHERE u.role = 'admin' AND u.is_active
                          AND u.erased_at IS NULL
                          AND u.id NOT IN (caller, p_user)
                        ORDER BY u.id LIMIT 5
        LOOP
            PERFORM public.hm_mail(another, 'break_glass');
        END LOOP;
    END IF;

    RETURN NEXT made;
END
$$;

-- The second person: an administrator who neither asked nor is the subject.
-- A request that nobody approved within its hour has lapsed.
CREATE FUNCTION hm_break_glass_approve(p_id uuid)
RETURNS SETOF break_glass_grants
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    UPDATE public.break_glass_grants g
       SET approved_by = public.hm_actor(), approved_at = now(),
           expires_at = now() + interval '60 minutes',
           version = g.version + 1
     WHERE g.id = p_id AND g.needs_approval AND g.approved_at IS NULL
       AND g.ended_at IS NULL AND now() < g.expires_at
       AND public.hm_actor() NOT IN (g.actor_id, g.user_id)
       AND public.hm_is_admin(public.hm_actor())
    RETURNING g.*;
END
$$;

-- By whoever opened it, or by an administrator.
CREATE FUNCTION hm_break_glass_end(p_id uuid)
RETURNS SETOF break_glass_grants
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    UPDATE public.break_glass_grants g
       SET ended_at = now(), ended_by = public.hm_actor(),
           version = g.version + 1
     WHERE g.id = p_id AND g.ended_at IS NULL AND now() < g.expires_at
       AND (g.actor_id = public.hm_actor()
            OR public.hm_is_admin(public.hm_actor()))
    RETURNING g.*;
END
$$;

-- ------------------------------------------------------------------------
-- Accounts made by an administrator, whole: a person without keys could
-- never log in.  false: the address is taken, or the caller may not.
CREATE FUNCTION hm_user_create(p_id uuid, p_email bytea, p_index bytea,
    p_hash text, p_name bytea, p_role text, p_wrapped bytea,
    p_commitment bytea, p_kek int, p_index_key bytea, p_now timestamptz)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF NOT coalesce(public.hm_is_admin(public.hm_actor()), false) THEN
        RETURN false;
    END IF;

    INSERT INTO public.users (id, email, email_index, password_hash,
        full_name, role, dek_version, created_at, updated_at)
    SELECT p_id, p_email, p_index, p_hash, p_name, p_role, 1, p_now, p_now
     WHERE NOT EXISTS (SELECT FROM public.users u
                        WHERE u.email_index = p_index)
        ON CONFLICT DO NOTHING;

    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO public.user_keys (user_id, version, kek_version, wrapped_dek,
        commitment, state, created_at)
    VALUES (p_id, 1, p_kek, p_wrapped, p_commitment, 'active', p_now);
    INSERT INTO public.user_index_keys (user_id, kek_version, wrapped_key,
        created_at)
    VALUES (p_id, p_kek, p_index_key, p_now);
    INSERT INTO public.user_preferences (user_id, created_at, updated_at)
    VALUES (p_id, p_now, p_now);

    RETURN true;
END
$$;

-- ------------------------------------------------------------------------

\set api 'hm_api, hm_worker, hm_cli'

GRANT EXECUTE ON FUNCTION hm_care_parties(uuid, uuid) TO :api;
GRANT EXECUTE ON FUNCTION hm_patients(), hm_staff_keys(uuid),
    hm_break_glass_open(uuid, uuid, bytea, int),
    hm_break_glass_approve(uuid), hm_break_glass_end(uuid),
    hm_user_create(uuid, bytea, bytea, text, bytea, text, bytea, bytea, int,
                   bytea, timestamptz) TO hm_api;

GRANT INSERT, UPDATE ON break_glass_grants TO hm_definer;
GRANT INSERT ON users, user_keys, user_index_keys, user_preferences
    TO hm_definer;
GRANT SELECT (user_id, version, wrapped_dek, state) ON user_keys
    TO hm_definer;
GRANT SELECT (user_id, wrapped_key) ON user_index_keys TO hm_definer;
GRANT EXECUTE ON FUNCTION hm_leaf(uuid) TO hm_definer;

RESET ROLE;
ALTER FUNCTION hm_care_parties(uuid, uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_patients() OWNER TO hm_definer;
ALTER FUNCTION hm_staff_keys(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_break_glass_open(uuid, uuid, bytea, int)
    OWNER TO hm_definer;
ALTER FUNCTION hm_break_glass_approve(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_break_glass_end(uuid) OWNER TO hm_definer;
ALTER FUNCTION hm_user_create(uuid, bytea, bytea, text, bytea, text, bytea,
                              bytea, int, bytea, timestamptz)
    OWNER TO hm_definer;

-- hm_may, with the second person of a grant and the doctor's own address.
-- It belongs to hm_definer already, and replacing keeps owner and grants.
CREATE OR REPLACE FUNCTION hm_may(actor uuid, subject uuid, verb text)
RETURNS boolean
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
            WHEN 'doctor' THEN u.email_verified_at IS NOT NULL AND EXISTS (
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
                   AND g.ended_at IS NULL AND now() < g.expires_at
                   AND (NOT g.needs_approval OR g.approved_at IS NOT NULL)))
          FROM public.users u
         WHERE u.id = actor AND u.is_active AND u.erased_at IS NULL), false);
END
$$;

COMMIT;
