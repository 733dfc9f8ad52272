/*
 * ngx_hm_stmt_account.h: the statements of what a mailbox proves and of
 * credentials.  Rows of the table in ngx_hm_stmt.c; included there and
 * nowhere else.
 *
 * What writes takes $1 shard $2 seq $3 person $4 session $5 role $6 purpose
 * $7 origin $8 now, and carries its audit row: of CTE `u` when that has a
 * row, else a void one.  A token is taken by its DELETE: of many at once one
 * finds it.  So is a password's version: each change asks for the one it has
 * seen.
 */

#define ACCOUNT_AUDIT(action, outcome)                                        \
    ", aud as (insert into audit_logs (shard, seq, at, action, resource,"     \
    " outcome, actor_role, purpose, actor, session, user_id, first_id,"       \
    " items, origin) select $1::uuid, $2::int8, $8::timestamptz,"             \
    " case when exists (select 1 from u) then " action " else 100 end, 2,"    \
    " case when exists (select 1 from u) then " outcome " else 0 end,"        \
    " $5::int2, $6::int2, $3::uuid, $4::uuid, $3::uuid, $3::uuid, 1,"         \
    " $7::bytea)"

#define ACCOUNT_TOKEN(what)                                                   \
    "with t as (delete from account_tokens where token_hash = $9::bytea"      \
    " and user_id = $3::uuid and purpose = '" what "'"                        \
    " and expires_at > now() returning request, password_version)"

#define ACCOUNT_REQUEST                                                       \
    ", q as (delete from account_requests r using t where r.id = t.request"   \
    " and r.user_id = $3::uuid and r.expires_at > now() returning r.*,"       \
    " t.password_version as seen)"

    [NGX_HM_SQL_TOKEN_LOOKUP] = { "token_lookup",
        "select user_id, purpose, role, request, email"
        " from hm_token_lookup($1::bytea)",
        NGX_HM_ON(READ), 1 },

    /* 1 id 2 email index: the same for every address */
    [NGX_HM_SQL_FORGOT] = { "forgot",
        "with q as (insert into account_requests (id, purpose, user_id,"
        " email_index, expires_at) values ($1::uuid, 'forgot', $1::uuid,"
        " $2::bytea, now() + interval '1 hour') on conflict do nothing"
        " returning id)"
        " select hm_mail_request(q.id) from q",
        NGX_HM_ON(SOLO), 2 },

    /*
     * 1 id 2 email 3 email index 4 password_hash 5 full_name
     * 6 date_of_birth 7 wrapped_dek 8 commitment 9 kek_version
     * 10 wrapped index key 11 consents
     */
    [NGX_HM_SQL_REGISTER_ASK] = { "register_ask",
        "with q as (insert into account_requests (id, purpose, user_id,"
        " email, email_index, password_hash, full_name, date_of_birth,"
        " wrapped_dek, commitment, kek_version, wrapped_index_key, consents,"
        " expires_at) values ($1::uuid, 'register', $1::uuid, $2::bytea,"
        " $3::bytea, $4::text, $5::bytea, $6::bytea, $7::bytea, $8::bytea,"
        " $9::int4, $10::bytea, $11::text[], now() + interval '24 hours')"
        " on conflict do nothing returning id)"
        " select hm_mail_request(q.id) from q",
        NGX_HM_ON(SOLO), 11 },

    /* 9 token */
    [NGX_HM_SQL_REGISTER_OPEN] = { "register_open",
        ACCOUNT_TOKEN("register") ACCOUNT_REQUEST
        ", u as (insert into users (id, email, email_index, password_hash,"
        " full_name, date_of_birth, role, email_verified_at, dek_version,"
        " created_at, updated_at) select $3::uuid, q.email, q.email_index,"
        " q.password_hash, q.full_name, q.date_of_birth, 'patient',"
        " $8::timestamptz, 1, $8::timestamptz, $8::timestamptz from q"
        " where not exists (select 1 from hm_login_lookup(q.email_index))"
        " on conflict do nothing returning id),"
        " k as (insert into user_keys (user_id, version, kek_version,"
        " wrapped_dek, commitment, state, created_at) select u.id, 1,"
        " q.kek_version, q.wrapped_dek, q.commitment, 'active',"
        " $8::timestamptz from u, q),"
        " x as (insert into user_index_keys (user_id, kek_version,"
        " wrapped_key, created_at) select u.id, q.kek_version,"
        " q.wrapped_index_key, $8::timestamptz from u, q),"
        " p as (insert into user_preferences (user_id, created_at,"
        " updated_at) select u.id, $8::timestamptz, $8::timestamptz"
        " from u),"
        " c as (insert into consents (id, user_id, purpose, granted,"
        " created_at) select gen_random_uuid(), u.id, r.purpose, true,"
        " $8::timestamptz from u, q, unnest(q.consents) as r(purpose))"
        ACCOUNT_AUDIT("7", "201")
        " select u.id from u",
        NGX_HM_ON(SOLO), 9 },

    /* 9 token */
    [NGX_HM_SQL_VERIFY] = { "verify",
        ACCOUNT_TOKEN("verify")
        ", u as (update users x set email_verified_at = $8::timestamptz,"
        " updated_at = $8::timestamptz, version = x.version + 1 from t"
        " where x.id = $3::uuid and x.password_version = t.password_version"
        " and x.email_verified_at is null and x.is_active"
        " and x.erased_at is null returning x.id)"
        ACCOUNT_AUDIT("4", "204")
        " select u.id, hm_end_sessions(u.id, null, 'email_verified'),"
        " hm_mfa_clear(u.id) from u",
        NGX_HM_ON(SOLO), 9 },

    /* 9 token 10 password_hash; a mailbox that answers is proved, too */
    [NGX_HM_SQL_RESET] = { "reset",
        ACCOUNT_TOKEN("reset")
        ", u as (update users x set password_hash = $10::text,"
        " password_version = x.password_version + 1,"
        " email_verified_at = coalesce(x.email_verified_at,"
        " $8::timestamptz), updated_at = $8::timestamptz,"
        " version = x.version + 1 from t where x.id = $3::uuid"
        " and x.password_version = t.password_version and x.is_active"
        " and x.erased_at is null returning x.id)"
        ACCOUNT_AUDIT("4", "204")
        " select u.id, hm_end_sessions(u.id, null, 'password_reset'),"
        " hm_mfa_clear(u.id), hm_mail(u.id, 'password_changed') from u",
        NGX_HM_ON(SOLO), 10 },

    /* 1 person */
    [NGX_HM_SQL_RESEND] = { "resend",
        "select hm_mail(u.id, 'verify') from users u where u.id = $1::uuid"
        " and u.email_verified_at is null and u.is_active"
        " and u.erased_at is null",
        NGX_HM_ON(SOLO), 1 },

    /* 1 person */
    [NGX_HM_SQL_CREDENTIALS] = { "credentials",
        "select id, password_hash, password_version, email_index, email,"
        " dek_version from users where id = $1::uuid and is_active"
        " and erased_at is null",
        NGX_HM_ON(READ), 1 },

    /* 9 password_hash 10 version it replaces */
    [NGX_HM_SQL_PASSWORD] = { "password",
        "with u as (update users x set password_hash = $9::text,"
        " password_version = x.password_version + 1,"
        " updated_at = $8::timestamptz, version = x.version + 1"
        " where x.id = $3::uuid and x.password_version = $10::int4"
        " and x.is_active and x.erased_at is null"
        " returning x.id, x.password_version)"
        ACCOUNT_AUDIT("4", "204")
        " select u.password_version, hm_end_sessions(u.id, $4::uuid,"
        " 'password_changed'), hm_mail(u.id, 'password_changed') from u",
        NGX_HM_ON(SOLO), 10 },

    /*
     * 9 id 10 email index 11 email 12 dek_version 13 password_version
     * Nobody is told whether the address is another's: its mailbox is.
     */
    [NGX_HM_SQL_EMAIL_ASK] = { "email_ask",
        "with u as (select x.id from users x where x.id = $3::uuid"
        " and x.password_version = $13::int4 and x.is_active),"
        " q as (insert into account_requests (id, purpose, user_id,"
        " email_index, email, dek_version, password_version, expires_at)"
        " select $9::uuid, 'email', u.id, $10::bytea, $11::bytea,"
        " $12::int4, $13::int4, now() + interval '24 hours' from u"
        " on conflict do nothing returning id)"
        ACCOUNT_AUDIT("4", "202")
        " select u.id, (select hm_mail_request(q.id) from q),"
        " hm_mail(u.id, 'email_change') from u",
        NGX_HM_ON(SOLO), 13 },

    /*
     * 9 token 10 email 11 dek_version of the row 12 id of the notice
     * 13 the old address, for it
     */
    [NGX_HM_SQL_EMAIL_TAKE] = { "email_take",
        ACCOUNT_TOKEN("email") ACCOUNT_REQUEST
        ", u as (update users x set email = $10::bytea,"
        " email_index = q.email_index, email_verified_at = $8::timestamptz,"
        " updated_at = $8::timestamptz, version = x.version + 1 from q"
        " where x.id = $3::uuid and x.dek_version = $11::int4"
        " and x.password_version = q.seen and x.is_active"
        " and x.erased_at is null and not exists"
        " (select 1 from hm_login_lookup(q.email_index))"
        " returning x.id),"
        " n as (insert into account_requests (id, purpose, user_id,"
        " email_index, email, dek_version, expires_at) select $12::uuid,"
        " 'notice', u.id, o.email_index, $13::bytea, $11::int4,"
        " now() + interval '24 hours' from u join users o on o.id = u.id"
        " on conflict do nothing returning id),"
        " d as (delete from account_tokens k using u where k.user_id = u.id"
        " and k.token_hash <> $9::bytea)"
        ACCOUNT_AUDIT("4", "204")
        " select u.id, hm_end_sessions(u.id, null, 'email_changed'),"
        " (select hm_mail_request(n.id) from n) from u",
        NGX_HM_ON(SOLO), 13 },

#undef ACCOUNT_AUDIT
#undef ACCOUNT_TOKEN
#undef ACCOUNT_REQUEST
