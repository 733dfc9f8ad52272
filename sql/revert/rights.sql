-- Revert healthmate:rights from pg

BEGIN;

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

SET LOCAL ROLE hm_owner;

REVOKE INSERT ON users, user_keys, user_index_keys, user_preferences
    FROM hm_definer;
REVOKE INSERT, UPDATE ON break_glass_grants FROM hm_definer;
REVOKE SELECT (user_id, version, wrapped_dek) ON user_keys FROM hm_definer;
REVOKE SELECT (user_id, wrapped_key) ON user_index_keys FROM hm_definer;
REVOKE EXECUTE ON FUNCTION hm_leaf(uuid) FROM hm_definer;

DROP POLICY care_relationships_add ON care_relationships;
CREATE POLICY care_relationships_add ON care_relationships
    FOR INSERT TO hm_api, hm_worker, hm_cli
    WITH CHECK (created_by = hm_actor()
                AND (patient_id = hm_actor()
                     OR (status = 'pending'
                         AND (doctor_id = hm_actor()
                              OR hm_is_admin(hm_actor())))));

RESET ROLE;

DROP FUNCTION hm_user_create(uuid, bytea, bytea, text, bytea, text, bytea,
                             bytea, int, bytea, timestamptz);
DROP FUNCTION hm_break_glass_end(uuid);
DROP FUNCTION hm_break_glass_approve(uuid);
DROP FUNCTION hm_break_glass_open(uuid, uuid, bytea, int);
DROP FUNCTION hm_staff_keys(uuid);
DROP FUNCTION hm_patients();
DROP FUNCTION hm_care_parties(uuid, uuid);

SET LOCAL ROLE hm_owner;

-- What the old form cannot say about a grant must not open anything: one
-- that waits, or that a second person prolonged, ends here.
ALTER TABLE break_glass_grants NO FORCE ROW LEVEL SECURITY;
UPDATE break_glass_grants
   SET ended_at = coalesce(ended_at, now()),
       expires_at = least(expires_at, created_at + interval '60 minutes')
 WHERE needs_approval;
ALTER TABLE break_glass_grants FORCE ROW LEVEL SECURITY;

ALTER TABLE break_glass_grants
    DROP CONSTRAINT break_glass_grants_hour,
    DROP CONSTRAINT break_glass_grants_second,
    ADD CONSTRAINT break_glass_grants_check
        CHECK (expires_at <= created_at + interval '60 minutes');
DROP INDEX break_glass_actor, break_glass_user;
ALTER TABLE break_glass_grants
    DROP COLUMN needs_approval, DROP COLUMN approved_by,
    DROP COLUMN approved_at, DROP COLUMN ended_by, DROP COLUMN version;

DELETE FROM hm_settings WHERE name = 'care_assign';
ALTER TABLE hm_settings DROP CONSTRAINT hm_settings_known;
ALTER TABLE hm_settings ADD CONSTRAINT hm_settings_known
    CHECK (name <> 'admin_phi' OR value IN ('all', 'break_glass'));

COMMIT;
