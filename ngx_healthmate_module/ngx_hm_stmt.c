/*
 * ngx_hm_stmt: every statement the module ever sends, by name, prepared on
 * the lanes that use it when a connection opens.  The fixed ones are written
 * here; those of a resource are built from its descriptor, once, at
 * configuration time, for each leaf.
 */

#include "ngx_hm.h"


static const hm_resource_t  *ngx_hm_resources[] = {
    &hm_health_data
};

#define NGX_HM_NRESOURCES                                                     \
    (sizeof(ngx_hm_resources) / sizeof(ngx_hm_resources[0]))


/* HM_AMR_*, and the names of it. */
#define NGX_HM_SQL_AMR(bits)                                                  \
    "array_remove(array[case when " bits "::int4 & 1 <> 0 then 'pwd' end,"    \
    " case when " bits "::int4 & 2 <> 0 then 'otp' end,"                      \
    " case when " bits "::int4 & 4 <> 0 then 'hwk' end], null)"


#define NGX_HM_SQL_AMR_BITS(names)                                            \
    "('pwd' = any (" names "))::int4 + ('otp' = any (" names "))::int4 * 2"   \
    " + ('hwk' = any (" names "))::int4 * 4"


/* The audit row of a change of a factor, after the CTE that made it. */
#define FACTOR_AUDIT(action, cte, yes, no)                                    \
    " a as (insert into audit_logs (shard, seq, at, action, resource,"        \
    " outcome, actor_role, purpose, actor, session, user_id, first_id,"       \
    " items, origin) select $4::uuid, $5::int8, $2::timestamptz, " action     \
    ", 20, case when exists (select from " cte ") then " yes " else " no      \
    " end, $6::int2, 1, $1::uuid, $3::uuid, $1::uuid, $1::uuid, 1,"           \
    " $7::bytea)"

/* Who sets a factor up has shown it: the session goes on as one with it. */
#define FACTOR_SESSION(amr_name, cte)                                         \
    " s as (update sessions set amr = array_append(array_remove(amr, '"       \
    amr_name "'), '" amr_name "') where id = $3::uuid"                        \
    " and user_id = $1::uuid and exists (select from " cte ")),"


static const ngx_hm_stmt_t  ngx_hm_static[NGX_HM_SQL_STATIC] = {

    [NGX_HM_SQL_KEY_LOAD] = { "key_load",
        "select k.version, k.wrapped_dek, k.state, i.wrapped_key,"
        " hm_leaf(k.user_id) from user_keys k"
        " join user_index_keys i on i.user_id = k.user_id"
        " where k.user_id = $1::uuid and k.state <> 'destroyed'"
        " order by k.version desc limit 4",
        NGX_HM_ON(READ), 1 },

    /* the third: who may read and not write does so by a broken glass */
    [NGX_HM_SQL_MAY] = { "may",
        "select hm_may($1::uuid, $2::uuid, $3::text), $2::uuid,"
        " not hm_may($1::uuid, $2::uuid, 'write')",
        NGX_HM_ON(READ), 3 },

    [NGX_HM_SQL_AUDIT] = { "audit",
        "insert into audit_logs (shard, seq, at, action, resource, outcome,"
        " actor_role, purpose, actor, session, user_id, first_id, last_id,"
        " items, origin) select $1::uuid, $2::int8 + r.ord - 1, r.at,"
        " r.action, r.resource, r.outcome, r.actor_role, r.purpose, r.actor,"
        " r.session, r.user_id, r.first_id, r.last_id, r.items, r.origin"
        " from unnest($3::timestamptz[], $4::int2[], $5::int2[],"
        " $6::int2[], $7::int2[], $8::int2[], $9::uuid[], $10::uuid[],"
        " $11::uuid[], $12::uuid[], $13::uuid[], $14::int4[], $15::bytea[])"
        " with ordinality as r(at, action, resource, outcome, actor_role,"
        " purpose, actor, session, user_id, first_id, last_id, items,"
        " origin, ord)",
        NGX_HM_ON(AUDIT), 15 },

    [NGX_HM_SQL_AUDIT_KEY] = { "audit_key",
        "select wrapped_key from audit_keys where month = $1::int4",
        NGX_HM_ON(READ), 1 },

    [NGX_HM_SQL_AUDIT_KEY_ADD] = { "audit_key_add",
        "insert into audit_keys (month, kek_version, wrapped_key)"
        " values ($1::int4, $2::int4, $3::bytea) on conflict do nothing",
        NGX_HM_ON(SOLO), 3 },

    /*
     * 1 id 2 email 3 email_index 4 password_hash 5 full_name
     * 6 date_of_birth 7 now 8 wrapped_dek 9 commitment 10 kek_version
     * 11 wrapped index key 12 session 13 client 14 fingerprint 15 expires
     * 16.. consents text[], consent ids uuid[]
     * 18 shard 19 seq 20 role 21 origin 22 device
     */
    [NGX_HM_SQL_REGISTER] = { "register",
        "with u as (insert into users (id, email, email_index,"
        " password_hash, full_name, date_of_birth, role, last_login_at,"
        " dek_version, created_at, updated_at) select $1::uuid, $2::bytea,"
        " $3::bytea, $4::text, $5::bytea, $6::bytea, 'patient',"
        " $7::timestamptz, 1, $7::timestamptz, $7::timestamptz"
        " where not exists (select 1 from hm_login_lookup($3::bytea))"
        " on conflict do nothing returning id),"
        " k as (insert into user_keys (user_id, version, kek_version,"
        " wrapped_dek, commitment, state, created_at) select u.id, 1,"
        " $10::int4, $8::bytea, $9::bytea, 'active', $7::timestamptz"
        " from u),"
        " x as (insert into user_index_keys (user_id, kek_version,"
        " wrapped_key, created_at) select u.id, $10::int4, $11::bytea,"
        " $7::timestamptz from u),"
        " p as (insert into user_preferences (user_id, created_at,"
        " updated_at) select u.id, $7::timestamptz, $7::timestamptz"
        " from u),"
        " s as (insert into sessions (id, user_id, role, client,"
        " fingerprint, auth_time, expires_at, dek_version, created_at,"
        " last_used_at, updated_at, device_id) select $12::uuid, u.id,"
        " 'patient', $13::bytea, $14::bool, $7::timestamptz,"
        " $15::timestamptz, 1, $7::timestamptz, $7::timestamptz,"
        " $7::timestamptz, $22::uuid from u),"
        " c as (insert into consents (id, user_id, purpose, granted,"
        " created_at) select r.id, u.id, r.purpose, true, $7::timestamptz"
        " from u, unnest($16::text[], $17::uuid[]) as r(purpose, id)),"
        " a as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, first_id,"
        " items, origin) select $18::uuid, $19::int8, $7::timestamptz,"
        " case when exists (select 1 from u) then 7 else 100 end, 2,"
        " case when exists (select 1 from u) then 201 else 409 end,"
        " $20::int2, 1, $1::uuid, $12::uuid, $1::uuid, $1::uuid, 1,"
        " $21::bytea)"
        " select (select id from u),"
        " (select hm_mail(u.id, 'verify') from u)",
        NGX_HM_ON(SOLO), 22 },

    /* one row always; 1 email_index 2, 3 account and id of the device */
    [NGX_HM_SQL_LOGIN_LOOKUP] = { "login_lookup",
        "select l.id, l.password_hash, l.role, l.is_active, $1::bytea,"
        " ('totp' = any (l.mfa))::int4 * 2"
        " + ('passkey' = any (l.mfa))::int4 * 4, l.password_version, d.ended"
        " from (select coalesce(hm_device_ended($2::uuid, $3::uuid), false))"
        " as d(ended) left join hm_login_lookup($1::bytea) l on true",
        NGX_HM_ON(READ), 3 },

    /*
     * 1 user 2 now 3 session 4 client 5 fingerprint 6 expires
     * 7 dek_version 8 shard 9 seq 10 role 11 origin 12 amr 13 device
     */
    [NGX_HM_SQL_LOGIN] = { "login",
        "with u as (update users set last_login_at = $2::timestamptz"
        " where id = $1::uuid and is_active"
        " and password_version = $14::int4 returning id, email,"
        " email_verified_at, full_name, role, is_active, mfa, phone,"
        " address, date_of_birth, created_at, updated_at, last_login_at,"
        " dek_version, version),"
        " s as (insert into sessions (id, user_id, role, client,"
        " fingerprint, amr, auth_time, expires_at, dek_version, created_at,"
        " last_used_at, updated_at, device_id) select $3::uuid, u.id, u.role,"
        " $4::bytea, $5::bool, " NGX_HM_SQL_AMR("$12") ","
        " $2::timestamptz, $6::timestamptz, $7::int4,"
        " $2::timestamptz, $2::timestamptz, $2::timestamptz, $13::uuid"
        " from u),"
        " a as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, first_id,"
        " items, origin) select $8::uuid, $9::int8, $2::timestamptz, 6, 3,"
        " case when exists (select 1 from u) then 200 else 401 end,"
        " $10::int2, 1, $1::uuid, $3::uuid, $1::uuid, $3::uuid, 1,"
        " $11::bytea)"
        " select * from u",
        NGX_HM_ON(SOLO), 14 },

    [NGX_HM_SQL_ME] = { "me",
        "select id, email, email_verified_at, full_name, role, is_active,"
        " mfa, phone, address, date_of_birth, created_at, updated_at,"
        " last_login_at, dek_version, version from users"
        " where id = $1::uuid and erased_at is null",
        NGX_HM_ON(READ), 1 },

    /*
     * 1 session 2 turn 3 its cookie came 4 it may do without 5 seconds to
     * live 6 idle 7 absolute (seconds by role) 8 now
     * 9 shard 10 seq 11 role 12 origin
     *
     * Who refreshes is not known before the row is read, so the record
     * names no actor.  What changed nothing is a void row.
     */
    [NGX_HM_SQL_REFRESH] = { "refresh",
        "with r as materialized (select * from hm_session_refresh("
        "$1::uuid, $2::int8, $3::bool, $4::bool, $5::int4, $6::int4[],"
        " $7::int4[])),"
        " a as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, session, user_id, first_id, items,"
        " origin) select $9::uuid, $10::int8, $8::timestamptz,"
        " case when r.changed then 13 else 100 end, 3,"
        " case when r.verdict in ('turned', 'grace') then 200 else 401 end,"
        " $11::int2, 1, (r.s).id, (r.s).user_id, (r.s).id, 1, $12::bytea"
        " from (values (1)) v left join r on true)"
        " select (u).id, (u).email, (u).email_verified_at, (u).full_name,"
        " (u).role, (u).is_active, (u).mfa, (u).phone, (u).address,"
        " (u).date_of_birth, (u).created_at, (u).updated_at,"
        " (u).last_login_at, (u).dek_version, (u).version, verdict,"
        " (s).counter, (s).fingerprint, " NGX_HM_SQL_AMR_BITS("(s).amr") ","
        " (s).auth_time, (s).rotated_at, (s).expires_at from r",
        NGX_HM_ON(SOLO), 12 },

    [NGX_HM_SQL_REAUTH_LOOKUP] = { "reauth_lookup",
        "select id, password_hash, email_index,"
        " ('totp' = any (mfa))::int4 * 2 + ('passkey' = any (mfa))::int4 * 4"
        " from users where id = $1::uuid and is_active"
        " and erased_at is null",
        NGX_HM_ON(READ), 1 },

    /*
     * 1 user 2 now 3 session 4 amr 5 shard 6 seq 7 role 8 origin
     * The session has been proved anew; its counter stays, so that nobody
     * is logged out by a lost reply.
     */
    [NGX_HM_SQL_RENEW] = { "renew",
        "with s as (update sessions set auth_time = $2::timestamptz,"
        " amr = (select array_agg(distinct m order by m) from unnest(amr"
        " || " NGX_HM_SQL_AMR("$4") ") m),"
        " last_used_at = greatest(last_used_at, $2::timestamptz),"
        " updated_at = $2::timestamptz, version = version + 1"
        " where id = $3::uuid and user_id = $1::uuid and ended_at is null"
        " and expires_at > $2::timestamptz returning *),"
        " a as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, first_id,"
        " items, origin) select $5::uuid, $6::int8, $2::timestamptz, 14, 3,"
        " case when exists (select 1 from s) then 200 else 401 end,"
        " $7::int2, 1, $1::uuid, $3::uuid, $1::uuid, $3::uuid, 1,"
        " $8::bytea)"
        " select u.id, u.email, u.email_verified_at, u.full_name, u.role,"
        " u.is_active, u.mfa, u.phone, u.address, u.date_of_birth,"
        " u.created_at, u.updated_at, u.last_login_at, u.dek_version,"
        " u.version, 'renewed'::text, s.counter, s.fingerprint, "
        NGX_HM_SQL_AMR_BITS("s.amr") ", s.auth_time, s.auth_time,"
        " s.expires_at from s join users u on u.id = s.user_id"
        " where u.is_active and u.erased_at is null and u.role = s.role",
        NGX_HM_ON(SOLO), 8 },

    /* 1 user 2 now 3 idle seconds 4 absolute seconds */
    [NGX_HM_SQL_SESSIONS] = { "sessions",
        "select id, user_id, dek_version, client, fingerprint, created_at,"
        " last_used_at from sessions where user_id = $1::uuid"
        " and ended_at is null and expires_at > $2::timestamptz"
        " and last_used_at > $2::timestamptz - make_interval(secs => $3::int4)"
        " and created_at > $2::timestamptz - make_interval(secs => $4::int4)"
        " order by created_at desc, id desc limit 200",
        NGX_HM_ON(READ), 4 },

    /*
     * 1 session 2 user 3 reason 4 now 5 action 6 outcome where there is none
     * 7 the caller's session 8 shard 9 seq 10 role 11 origin
     */
    [NGX_HM_SQL_SESSION_END] = { "session_end",
        "with e as materialized (select hm_end_session(s.id, $3::text)"
        " as done from sessions s where s.id = $1::uuid"
        " and s.user_id = $2::uuid and s.ended_at is null"
        " and s.expires_at > $4::timestamptz),"
        " n as materialized (select count(*) filter (where done) as n"
        " from e),"
        " a as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, first_id,"
        " items, origin) select $8::uuid, $9::int8, $4::timestamptz,"
        " $5::int2, 3, case when n.n > 0 then 204 else $6::int2 end,"
        " $10::int2, 1, $2::uuid, $7::uuid, $2::uuid, $1::uuid, n.n::int4,"
        " $11::bytea from n)"
        " select n.n > 0 from n",
        NGX_HM_ON(SOLO), 11 },

    /* 1 user 2 reason 3 now 4 session 5 shard 6 seq 7 role 8 origin */
    [NGX_HM_SQL_LOGOUT_ALL] = { "logout_all",
        "with e as materialized (select hm_end_sessions($1::uuid, null,"
        " $2::text) as n),"
        " a as (insert into audit_logs (shard, seq, at, action, resource,"
        " outcome, actor_role, purpose, actor, session, user_id, items,"
        " origin) select $5::uuid, $6::int8, $3::timestamptz, 8, 3, 204,"
        " $7::int2, 1, $1::uuid, $4::uuid, $1::uuid, e.n, $8::bytea from e)"
        " select n from e",
        NGX_HM_ON(SOLO), 8 },

    [NGX_HM_SQL_SEEN] = { "seen",
        "select hm_sessions_seen($1::uuid[], $2::uuid[],"
        " $3::timestamptz[])",
        NGX_HM_ON(SOLO), 3 },

    [NGX_HM_SQL_ENROLLED] = { "enrolled",
        "select mfa <> '{}' from users where id = $1::uuid and is_active"
        " and erased_at is null",
        NGX_HM_ON(READ), 1 },

    [NGX_HM_SQL_IDEM_GET] = { "idempotency_get",
        "select body_mac, status, headers, body from idempotency_keys"
        " where caller = $1::uuid and user_id = $2::uuid"
        " and scope = $3::bytea and expires_at > $4::timestamptz",
        NGX_HM_ON(READ), 4 },

    [NGX_HM_SQL_IDEM_PUT] = { "idempotency_put",
        "insert into idempotency_keys (caller, user_id, scope, body_mac,"
        " status, headers, body, dek_version, created_at, expires_at)"
        " values ($1::uuid, $2::uuid, $3::bytea, $4::bytea, $5::int4,"
        " $6::bytea, $7::bytea, $8::int4, $9::timestamptz,"
        " $9::timestamptz + interval '24 hours')"
        " on conflict (caller, user_id, scope) do update set"
        " body_mac = excluded.body_mac, status = excluded.status,"
        " headers = excluded.headers, body = excluded.body,"
        " dek_version = excluded.dek_version,"
        " created_at = excluded.created_at,"
        " expires_at = excluded.expires_at"
        " where idempotency_keys.expires_at <= $9::timestamptz",
        NGX_HM_ON(SOLO), 9 },

    /* 1 user 2 metric 3 slug index 4 bucket 5 from 6 to */
    [NGX_HM_SQL_TRENDS] = { "trends",
        "select id, user_id, start, dek_version, aggregates"
        " from health_metrics_aggregation where user_id = $1::uuid"
        " and metric = $2::text and slug_index = $3::bytea"
        " and bucket = $4::text and start >= $5::timestamptz"
        " and start < $6::timestamptz order by start limit 20000",
        NGX_HM_ON(SLOW), 6 },

    /* 1 user 2 bucket 3 from: the person's zone, where its bucket starts */
    [NGX_HM_SQL_ZONE] = { "zone",
        "select z.zone, date_trunc($2::text, $3::timestamptz, z.zone)"
        " from (select coalesce((select p.time_zone from user_preferences p"
        " where p.user_id = $1::uuid), 'UTC') as zone) z",
        NGX_HM_ON(SLOW), 3 },

#include "ngx_hm_stmt_account.h"
#include "ngx_hm_stmt_people.h"

    [NGX_HM_SQL_PING] = { "ping",
        "select hm_audit_months_ahead()::int4",
        NGX_HM_ON(READ), 0 },

    /* 1 session 2 user 3 role 4 when the token was issued */
    [NGX_HM_SQL_SESSION_CHECK] = { "session_check",
        "select hm_session_check($1::uuid, $2::uuid, $3::text,"
        " $4::timestamptz)",
        NGX_HM_ON(READ), 4 },

    /*
     * Second factors.  1 user 2 now 3 session 4 shard 5 seq 6 role 7 origin
     * in all that change one.
     */
    [NGX_HM_SQL_TOTP_GET] = { "totp_get",
        "select u.id, t.secret, t.dek_version, t.last_step, t.started_at,"
        " t.confirmed_at is not null, u.email, u.dek_version"
        " from users u left join mfa_totp t on t.user_id = u.id"
        " where u.id = $1::uuid and u.erased_at is null",
        NGX_HM_ON(READ), 1 },

    /* 8 secret 9 dek_version */
    [NGX_HM_SQL_TOTP_START] = { "totp_start",
        "with k as (select from user_keys where user_id = $1::uuid"
        " and version = $9::int4 and state = 'active'),"
        " t as (insert into mfa_totp (user_id, secret, dek_version,"
        " started_at, created_at, updated_at) select $1::uuid, $8::bytea,"
        " $9::int4, $2::timestamptz, $2::timestamptz, $2::timestamptz"
        " from k on conflict (user_id) do update set"
        " secret = excluded.secret, dek_version = excluded.dek_version,"
        " started_at = excluded.started_at, last_step = 0,"
        " updated_at = excluded.updated_at"
        " where mfa_totp.confirmed_at is null returning user_id),"
        FACTOR_AUDIT("3", "t", "200", "409")
        " select exists (select from k), (select user_id from t)",
        NGX_HM_ON(SOLO), 9 },

    /* 8 step 9 started_at 10 code indexes */
    [NGX_HM_SQL_TOTP_CONFIRM] = { "totp_confirm",
        "with t as (update mfa_totp set confirmed_at = $2::timestamptz,"
        " last_step = $8::int8, updated_at = $2::timestamptz"
        " where user_id = $1::uuid and confirmed_at is null"
        " and started_at = $9::timestamptz returning user_id),"
        " d as (delete from mfa_recovery_codes where user_id = $1::uuid"
        " and exists (select from t)),"
        " c as (insert into mfa_recovery_codes (user_id, code_index,"
        " created_at) select t.user_id, x.i, $2::timestamptz"
        " from t, unnest($10::bytea[]) x(i)),"
        FACTOR_SESSION("otp", "t")
        FACTOR_AUDIT("4", "t", "200", "404")
        " select t.user_id, hm_mail(t.user_id, 'mfa_changed') from t",
        NGX_HM_ON(SOLO), 10 },

    /* A code works once: the step only grows. 1 user 2 now 3 step */
    [NGX_HM_SQL_TOTP_USE] = { "totp_use",
        "update mfa_totp set last_step = $3::int8,"
        " updated_at = $2::timestamptz where user_id = $1::uuid"
        " and confirmed_at is not null and last_step < $3::int8"
        " returning user_id",
        NGX_HM_ON(SOLO), 3 },

    [NGX_HM_SQL_TOTP_REMOVE] = { "totp_remove",
        "with t as (delete from mfa_totp where user_id = $1::uuid"
        " returning user_id),"
        FACTOR_AUDIT("5", "t", "204", "404")
        " select t.user_id, hm_mail(t.user_id, 'mfa_changed') from t",
        NGX_HM_ON(SOLO), 7 },

    /* 8 code indexes */
    [NGX_HM_SQL_RECOVERY_NEW] = { "recovery_new",
        "with t as (select id from users where id = $1::uuid"
        " and mfa <> '{}' for update),"
        " d as (delete from mfa_recovery_codes where user_id = $1::uuid"
        " and exists (select from t)),"
        " c as (insert into mfa_recovery_codes (user_id, code_index,"
        " created_at) select t.id, x.i, $2::timestamptz"
        " from t, unnest($8::bytea[]) x(i)),"
        FACTOR_AUDIT("3", "t", "200", "404")
        " select t.id, hm_mail(t.id, 'mfa_changed') from t",
        NGX_HM_ON(SOLO), 8 },

    /* 1 user 2 code index */
    [NGX_HM_SQL_RECOVERY_USE] = { "recovery_use",
        "with t as (delete from mfa_recovery_codes where user_id = $1::uuid"
        " and code_index = $2::bytea returning user_id)"
        " select t.user_id, hm_mail(t.user_id, 'mfa_changed') from t",
        NGX_HM_ON(SOLO), 2 },

    /* 1 digest 2 user or null 3 now 4 expires; old ones of nobody go */
    [NGX_HM_SQL_CHALLENGE] = { "challenge",
        "with x as (delete from webauthn_challenges where digest in"
        " (select digest from webauthn_challenges where user_id is null"
        " and expires_at < $3::timestamptz order by expires_at limit 32"
        " for update skip locked))"
        " insert into webauthn_challenges (digest, user_id, expires_at)"
        " values ($1::bytea, $2::uuid, $4::timestamptz)"
        " on conflict (user_id) do update set digest = excluded.digest,"
        " expires_at = excluded.expires_at",
        NGX_HM_ON(SOLO), 4 },

    [NGX_HM_SQL_PASSKEYS] = { "passkeys",
        "select id, user_id, credential, dek_version, created_at,"
        " last_used_at from passkeys where user_id = $1::uuid"
        " order by created_at desc, id desc limit 20",
        NGX_HM_ON(READ), 1 },

    /* whom a new one is for, and which there are */
    [NGX_HM_SQL_PASSKEY_WHO] = { "passkey_who",
        "select u.id, u.email, u.full_name, u.dek_version, p.id,"
        " p.credential, p.dek_version from users u"
        " left join passkeys p on p.user_id = u.id"
        " where u.id = $1::uuid and u.erased_at is null"
        " order by p.created_at limit 20",
        NGX_HM_ON(READ), 1 },

    /*
     * 8 challenge digest 9 id 10 credential index 11 credential
     * 12 sign_count 13 dek_version
     */
    [NGX_HM_SQL_PASSKEY_ADD] = { "passkey_add",
        "with w as (delete from webauthn_challenges"
        " where digest = $8::bytea and user_id = $1::uuid"
        " and expires_at > $2::timestamptz returning user_id),"
        " k as (select from user_keys where user_id = $1::uuid"
        " and version = $13::int4 and state = 'active'),"
        " n as (select from passkeys where user_id = $1::uuid"
        " having count(*) < 20),"
        " t as (insert into passkeys (id, user_id, credential_index,"
        " credential, sign_count, dek_version, created_at, updated_at)"
        " select $9::uuid, w.user_id, $10::bytea, $11::bytea, $12::int8,"
        " $13::int4, $2::timestamptz, $2::timestamptz from w, k, n"
        " on conflict do nothing returning user_id),"
        FACTOR_SESSION("hwk", "t")
        FACTOR_AUDIT("3", "t", "201", "409")
        " select exists (select from w), exists (select from k),"
        " exists (select from n), t.user_id,"
        " hm_mail(t.user_id, 'passkey_changed')"
        " from (select 1) o left join t on true",
        NGX_HM_ON(SOLO), 13 },

    /* 1 challenge digest 2 credential index 3 now: it is taken either way */
    [NGX_HM_SQL_PASSKEY_FIND] = { "passkey_find",
        "with w as (delete from webauthn_challenges"
        " where digest = $1::bytea and user_id is null"
        " and expires_at > $3::timestamptz returning digest)"
        " select p.id, p.user_id, p.role, p.is_active, p.credential,"
        " p.dek_version, p.sign_count, p.password_version"
        " from hm_passkey_lookup($2::bytea) p"
        " where exists (select from w)",
        NGX_HM_ON(SOLO), 3 },

    /* 1 user 2 now 3 id 4 count: it grows, or there is none */
    [NGX_HM_SQL_PASSKEY_USE] = { "passkey_use",
        "update passkeys set sign_count = $4::int8,"
        " last_used_at = $2::timestamptz, updated_at = $2::timestamptz"
        " where id = $3::uuid and user_id = $1::uuid"
        " and ($4::int8 > sign_count or ($4::int8 = 0 and sign_count = 0))"
        " returning user_id",
        NGX_HM_ON(SOLO), 4 },

    /* 8 id */
    [NGX_HM_SQL_PASSKEY_REMOVE] = { "passkey_remove",
        "with t as (delete from passkeys where id = $8::uuid"
        " and user_id = $1::uuid returning user_id),"
        FACTOR_AUDIT("5", "t", "204", "404")
        " select t.user_id, hm_mail(t.user_id, 'passkey_changed') from t",
        NGX_HM_ON(SOLO), 8 }
};


static const unsigned  ngx_hm_kind_lanes[HM_SQL_LAST] = {
    [HM_SQL_GET] = NGX_HM_ON(READ),
    [HM_SQL_GET_MANY] = NGX_HM_ON(READ),
    [HM_SQL_LIST_DESC] = NGX_HM_ON(READ),
    [HM_SQL_LIST_ASC] = NGX_HM_ON(READ),
    [HM_SQL_LIST_DESC_FILTER] = NGX_HM_ON(SLOW),
    [HM_SQL_LIST_ASC_FILTER] = NGX_HM_ON(SLOW),
    [HM_SQL_LIST_DESC_KINDS] = NGX_HM_ON(SLOW),
    [HM_SQL_LIST_ASC_KINDS] = NGX_HM_ON(SLOW),
    [HM_SQL_INSERT] = NGX_HM_ON(WRITE)|NGX_HM_ON(SOLO),
    [HM_SQL_INSERT_MANY] = NGX_HM_ON(WRITE),
    [HM_SQL_UPDATE] = NGX_HM_ON(SOLO),
    [HM_SQL_DELETE] = NGX_HM_ON(SOLO),
    [HM_SQL_BATCH] = NGX_HM_ON(SOLO),
    [HM_SQL_LATEST] = NGX_HM_ON(SLOW),
    [HM_SQL_IDEM] = NGX_HM_ON(SOLO)
};


static ngx_uint_t  ngx_hm_first[NGX_HM_NRESOURCES];

static const uint32_t  ngx_hm_get_oids[] = { 2950, 2950 };


static const uint32_t *ngx_hm_insert_oids(ngx_conf_t *cf,
    const hm_resource_t *res);


/* Types of the elements of an insert's parameters as arrays. */
static const uint32_t *
ngx_hm_insert_oids(ngx_conf_t *cf, const hm_resource_t *res)
{
    uint32_t    *oids, *p;
    ngx_uint_t   i;

    static const uint32_t  head[] = { 2950, 2950, 23, 1184 };
    static const uint32_t  tail[HM_TAIL_LAST] = {
        0, 0, 2950, 2950, 21, 21, 17, 2950
    };

    oids = ngx_palloc(cf->pool, NGX_HM_PARAMS * sizeof(uint32_t));
    if (oids == NULL) {
        return NULL;
    }

    ngx_memcpy(oids, head, sizeof(head));
    p = oids + 4;

    for (i = 0; i < res->nfields; i++) {
        *p++ = (res->fields[i].flags & HM_F_SEALED)
               || res->fields[i].type == HM_T_BYTES ? 17
               : res->fields[i].type == HM_T_TIME ? 1184
               : res->fields[i].type == HM_T_REAL ? 701 : 25;
    }

    ngx_memcpy(p, tail, sizeof(tail));

    return oids;
}


ngx_int_t
ngx_hm_stmts_init(ngx_conf_t *cf, ngx_hm_main_conf_t *mcf)
{
    hm_buf_t              b;
    ngx_uint_t            i, leaf, kind, leaves;
    ngx_hm_stmt_t        *stmt;
    const hm_resource_t  *res;

    if (ngx_array_init(&mcf->stmts, cf->pool, 256, sizeof(ngx_hm_stmt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    stmt = ngx_array_push_n(&mcf->stmts, NGX_HM_SQL_STATIC);
    if (stmt == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(stmt, ngx_hm_static, sizeof(ngx_hm_static));

    for (i = 0; i < NGX_HM_NRESOURCES; i++) {
        res = ngx_hm_resources[i];
        leaves = res->leaves != 0 ? res->leaves : 1;
        ngx_hm_first[i] = mcf->stmts.nelts;

        for (leaf = 0; leaf < leaves; leaf++) {
            for (kind = 0; kind < HM_SQL_LAST; kind++) {

                stmt = ngx_array_push(&mcf->stmts);
                if (stmt == NULL) {
                    return NGX_ERROR;
                }

                hm_buf_init(&b, &hm_heap, 8192);

                if (hm_resource_sql(res, &b, kind, leaf) != HM_OK) {
                    return NGX_ERROR;
                }

                /* texts live in the configuration's pool */

                stmt->text = (char *) ngx_pnalloc(cf->pool, hm_buf_len(&b));
                if (stmt->text == NULL) {
                    return NGX_ERROR;
                }

                ngx_memcpy((char *) stmt->text, b.start, hm_buf_len(&b));
                free(b.start);

                stmt->name = res->name;
                stmt->lanes = ngx_hm_kind_lanes[kind];
                stmt->nparams = 0;
                stmt->many = 0;
                stmt->oids = NULL;

                if (kind == HM_SQL_INSERT && res->conflict != NULL) {
                    /* one for all leaves: PostgreSQL finds each row's */
                    stmt->many = ngx_hm_first[i] + HM_SQL_INSERT_MANY;
                    stmt->oids = ngx_hm_insert_oids(cf, res);

                    if (stmt->oids == NULL) {
                        return NGX_ERROR;
                    }
                }

                if (kind == HM_SQL_GET) {
                    stmt->many = ngx_hm_first[i] + HM_SQL_GET_MANY;
                    stmt->oids = ngx_hm_get_oids;
                }

                if ((kind == HM_SQL_INSERT_MANY || kind == HM_SQL_GET_MANY)
                    && leaf != 0)
                {
                    stmt->lanes = 0;
                }
            }
        }
    }

    return NGX_OK;
}


ngx_uint_t
ngx_hm_stmt_of(const hm_resource_t *res, hm_sql_t kind, ngx_uint_t leaf)
{
    ngx_uint_t  i;

    i = 0;

    while (ngx_hm_resources[i] != res) {
        i++;
    }

    return ngx_hm_first[i] + leaf * HM_SQL_LAST + kind;
}
