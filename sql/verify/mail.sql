-- Verify healthmate:mail on pg

BEGIN;

DO $$
BEGIN
    ASSERT (SELECT prosecdef AND proowner = 'hm_definer'::regrole
              FROM pg_proc WHERE proname = 'hm_mail');
    ASSERT has_function_privilege('hm_api', 'hm_mail(uuid, text)',
                                  'EXECUTE');
    ASSERT NOT has_column_privilege('hm_definer', 'jobs', 'requester',
                                    'INSERT'), 'a mail could borrow a person';
    ASSERT (SELECT count(*) = 2 FROM pg_policy
             WHERE polname IN ('users_mail', 'user_keys_mail')
               AND polroles = ARRAY['hm_worker'::regrole::oid]),
        'the mailer is not the worker''s alone';
    ASSERT EXISTS (SELECT FROM system_actors WHERE name = 'worker.mail');
    ASSERT EXISTS (SELECT FROM job_schedules WHERE name = 'mail.prune');
END
$$;

ROLLBACK;
