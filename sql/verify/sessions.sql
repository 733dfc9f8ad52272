-- Verify healthmate:sessions on pg

BEGIN;

DO $$
BEGIN
    PERFORM rotated_at FROM sessions WHERE false;

    -- With the caller's rights: a session is its owner's, by the policies.
    ASSERT (SELECT count(*) = 2 AND bool_and(NOT prosecdef) FROM pg_proc
             WHERE proname IN ('hm_session_refresh', 'hm_sessions_seen')),
        'a session function runs as its owner';
    ASSERT NOT has_function_privilege('hm_worker', 'hm_session_refresh('
        'uuid, bigint, boolean, boolean, int, int[], int[])', 'EXECUTE');
    ASSERT NOT has_column_privilege('hm_worker', 'sessions', 'rotated_at',
                                    'UPDATE');
END
$$;

ROLLBACK;
