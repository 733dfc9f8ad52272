/*
 * ngx_hm_stmt_people.h: the statements about people: relationships, grants,
 * consents, accounts, preferences, profiles, accesses.  Rows of the table in
 * ngx_hm_stmt.c; included there and nowhere else.
 *
 * A list is two statements, one for each order; parameters and the first
 * three columns are those of ngx_hm_people.h.  What writes takes the tail of
 * ngx_hm_seg_tail() as $1..$8 and the time as $9, and carries its audit row:
 * `w` gives outcome (0: nothing was done, a void record), person and id.
 */

#define PEOPLE_DESC(t, i)                                                  \
    " (" t ", " i ") < ($2::timestamptz, $3::uuid) and " t " <="              \
    " $2::timestamptz and " t " >= $4::timestamptz order by " t " desc, "     \
    i " desc limit $5::int8"

#define PEOPLE_ASC(t, i)                                                   \
    " (" t ", " i ") > ($2::timestamptz, $3::uuid) and " t " >="              \
    " $2::timestamptz and " t " < $4::timestamptz order by " t ", " i         \
    " limit $5::int8"

#define PEOPLE_LIST(id, text, t, i, lane, n)                                  \
    [NGX_HM_SQL_##id##_DESC] = { #id "_desc", text PEOPLE_DESC(t, i),      \
                                 NGX_HM_ON(lane), n },                        \
    [NGX_HM_SQL_##id##_ASC] = { #id "_asc", text PEOPLE_ASC(t, i),         \
                                NGX_HM_ON(lane), n }

#define PEOPLE_AUDIT(action, of, w)                                           \
    ", aud as (insert into audit_logs (shard, seq, at, action, resource,"     \
    " outcome, actor_role, purpose, actor, session, user_id, first_id,"       \
    " items, origin) select $1::uuid, $2::int8, $9::timestamptz,"             \
    " case when w.outcome = 0 then 100 else " action " end, " of ","          \
    " w.outcome, $5::int2, $6::int2, $3::uuid, $4::uuid, w.person, w.id, 1,"  \
    " $7::bytea from (" w ") w where $8::uuid is not null)"

/* outcome of a CTE `n` that has one row when something was done */
#define PEOPLE_DONE(status, person, id)                                       \
    "select case when exists (select 1 from n) then " status " else 0 end"    \
    " as outcome, " person " as person, " id " as id"

#define CARE_COLUMNS                                                          \
    "r.created_at, r.id, r.patient_id, r.doctor_id, r.status, r.created_by,"  \
    " r.from_at, r.until, r.accepted_at, r.ended_at, r.updated_at, r.version"

#define GRANT_COLUMNS                                                         \
    "g.created_at, g.id, g.user_id, g.actor_id, g.needs_approval,"            \
    " g.approved_by, g.approved_at, g.expires_at, g.ended_at, g.reason,"      \
    " g.version"

/* those of ME (ngx_hm_session.h) */
#define USER_COLUMNS                                                          \
    "u.id, u.email, u.email_verified_at, u.full_name, u.role, u.is_active,"   \
    " u.mfa, u.phone, u.address, u.date_of_birth, u.created_at,"              \
    " u.updated_at, u.last_login_at, u.dek_version, u.version"


    /* one row for each person of a list: $10 resource $11 people */
    [NGX_HM_SQL_PEOPLE_AUDIT] = { "people_audit",
        "insert into audit_logs (shard, seq, at, action, resource, outcome,"
        " actor_role, purpose, actor, session, user_id, items, origin)"
        " select $1::uuid, $2::int8 + p.ord - 1, $9::timestamptz, 2,"
        " $10::int2, 200, $5::int2, $6::int2, $3::uuid, $4::uuid, p.id, 1,"
        " $7::bytea from unnest($11::uuid[]) with ordinality as p(id, ord)"
        " where $8::uuid is not null",
        NGX_HM_ON(SOLO), 11 },

    [NGX_HM_SQL_STAFF_KEYS] = { "staff_keys",
        "select version, wrapped_dek, state, wrapped_key, leaf"
        " from hm_staff_keys($1::uuid)",
        NGX_HM_ON(READ), 1 },

    /* relationships */

    PEOPLE_LIST(CARE, "select " CARE_COLUMNS " from care_relationships r"
                " where ($6::bool or r.patient_id = $1::uuid"
                " or r.doctor_id = $1::uuid) and",
                "r.created_at", "r.id", SLOW, 6),

    /* 1 id 2 caller 3 everybody's */
    [NGX_HM_SQL_CARE_GET] = { "care_get",
        "select " CARE_COLUMNS " from care_relationships r"
        " where r.id = $1::uuid and ($3::bool or r.patient_id = $2::uuid"
        " or r.doctor_id = $2::uuid)",
        NGX_HM_ON(READ), 3 },

    /*
     * 10 id 11 patient 12 doctor 13 until 14 status.  One that has run out
     * makes way.  Told: the patient, and of one that is active without him
     * other administrators too.
     */
    [NGX_HM_SQL_CARE_ADD] = { "care_add",
        "with old as (update care_relationships set status = 'ended',"
        " ended_at = $9::timestamptz, updated_at = $9::timestamptz,"
        " version = version + 1 where patient_id = $11::uuid"
        " and doctor_id = $12::uuid and status in ('pending', 'active')"
        " and until <= $9::timestamptz returning 1),"
        " can as (select hm_care_parties($11::uuid, $12::uuid) as ok"
        " from (select count(*) from old) o),"
        " n as (insert into care_relationships (id, patient_id, doctor_id,"
        " status, created_by, from_at, until, accepted_at, created_at,"
        " updated_at) select $10::uuid, $11::uuid, $12::uuid, $14::text,"
        " $3::uuid, $9::timestamptz, $13::timestamptz,"
        " case when $14::text = 'active' then $9::timestamptz end,"
        " $9::timestamptz, $9::timestamptz from can where can.ok"
        " on conflict (doctor_id, patient_id)"
        " where status in ('pending', 'active') do nothing"
        " returning id, patient_id)"
        PEOPLE_AUDIT("3", "26", PEOPLE_DONE("201", "$11::uuid", "$10::uuid"))
        " select (select ok from can), (select id from n),"
        " (select count(hm_mail(n.patient_id, 'care_proposed')) from n"
        " where n.patient_id <> $3::uuid),"
        " (select count(hm_mail(s.id, 'care_proposed')) from n, (select u.id"
        " from users u where u.role = 'admin' and u.is_active"
        " and u.erased_at is null and u.id <> $3::uuid order by u.id"
        " limit 5) s where $14::text = 'active'"
        " and n.patient_id <> $3::uuid)",
        NGX_HM_ON(SOLO), 14 },

    /* 10 id 11 version 12 status 13 patient */
    [NGX_HM_SQL_CARE_SET] = { "care_set",
        "with n as (update care_relationships r set status = $12::text,"
        " accepted_at = case when $12::text = 'active'"
        " then $9::timestamptz else r.accepted_at end,"
        " ended_at = case when $12::text = 'active' then null"
        " else $9::timestamptz end, updated_at = $9::timestamptz,"
        " version = r.version + 1 where r.id = $10::uuid"
        " and r.version = $11::int4 and ($12::text <> 'active'"
        " or hm_care_parties(r.patient_id, r.doctor_id))"
        " returning " CARE_COLUMNS ")"
        PEOPLE_AUDIT("case when $12::text = 'ended' then 5 else 4 end", "26",
                     PEOPLE_DONE("case when $12::text = 'ended' then 204"
                                 " else 200 end", "$13::uuid",
                                 "$10::uuid"))
        " select * from n",
        NGX_HM_ON(SOLO), 13 },

    PEOPLE_LIST(PATIENTS, "select p.created_at, p.relationship, p.user_id,"
                " p.full_name, p.date_of_birth, p.accepted_at, p.until"
                " from hm_patients() p where p.doctor_id = $1::uuid and",
                "p.created_at", "p.relationship", SLOW, 5),

    /* consents */

    PEOPLE_LIST(CONSENTS, "select c.created_at, c.id, c.user_id, c.purpose,"
                " c.granted and c.withdrawn_at is null from consents c"
                " where c.user_id = $1::uuid and",
                "c.created_at", "c.id", READ, 5),

    /*
     * 10 id 11 user 12 purpose 13 granted.  Later than the one before, by
     * whatever clock that was written: the newest counts.
     */
    [NGX_HM_SQL_CONSENT_ADD] = { "consent_add",
        "with n as (insert into consents (id, user_id, purpose, granted,"
        " created_at) select $10::uuid, $11::uuid, $12::text, $13::bool,"
        " greatest($9::timestamptz, (select max(c.created_at)"
        " + interval '1 microsecond' from consents c"
        " where c.user_id = $11::uuid and c.purpose = $12::text))"
        " returning created_at)"
        PEOPLE_AUDIT("3", "21", PEOPLE_DONE("201", "$11::uuid", "$10::uuid"))
        " select created_at from n",
        NGX_HM_ON(SOLO), 13 },

    /* break-glass */

    PEOPLE_LIST(GRANTS, "select " GRANT_COLUMNS " from break_glass_grants g"
                " where ($6::bool or g.user_id = $1::uuid"
                " or g.actor_id = $1::uuid) and",
                "g.created_at", "g.id", SLOW, 6),

    /* 1 id 2 caller 3 everybody's */
    [NGX_HM_SQL_GRANT_GET] = { "grant_get",
        "select " GRANT_COLUMNS " from break_glass_grants g"
        " where g.id = $1::uuid and ($3::bool or g.user_id = $2::uuid"
        " or g.actor_id = $2::uuid)",
        NGX_HM_ON(READ), 3 },

    /* 10 id 11 person 12 reason 13 dek_version */
    [NGX_HM_SQL_GRANT_OPEN] = { "grant_open",
        "with n as (select g.* from hm_break_glass_open($10::uuid,"
        " $11::uuid, $12::bytea, $13::int4) g)"
        PEOPLE_AUDIT("3", "22", PEOPLE_DONE("201", "$11::uuid", "$10::uuid"))
        " select " GRANT_COLUMNS " from n g",
        NGX_HM_ON(SOLO), 13 },

    /* 10 id 11 person */
    [NGX_HM_SQL_GRANT_APPROVE] = { "grant_approve",
        "with n as (select g.* from hm_break_glass_approve($10::uuid) g)"
        PEOPLE_AUDIT("4", "22", PEOPLE_DONE("200", "$11::uuid", "$10::uuid"))
        " select " GRANT_COLUMNS " from n g",
        NGX_HM_ON(SOLO), 11 },

    [NGX_HM_SQL_GRANT_END] = { "grant_end",
        "with n as (select g.* from hm_break_glass_end($10::uuid) g)"
        PEOPLE_AUDIT("5", "22", PEOPLE_DONE("204", "$11::uuid", "$10::uuid"))
        " select " GRANT_COLUMNS " from n g",
        NGX_HM_ON(SOLO), 11 },

    /* accounts */

    PEOPLE_LIST(USERS, "select u.created_at, u.id, u.id, " USER_COLUMNS
                " from users u where $1::uuid is not null"
                " and u.erased_at is null and",
                "u.created_at", "u.id", SLOW, 5),

    [NGX_HM_SQL_USER_GET] = { "user_get",
        "select " USER_COLUMNS " from users u"
        " where u.id = $1::uuid and u.erased_at is null",
        NGX_HM_ON(READ), 1 },

    /*
     * 10 id 11 email 12 email index 13 password hash 14 name 15 role
     * 16 wrapped key 17 commitment 18 KEK's version 19 wrapped index key
     * 20 template of the mail
     */
    [NGX_HM_SQL_USER_ADD] = { "user_add",
        "with n as (select 1 where hm_user_create($10::uuid, $11::bytea,"
        " $12::bytea, $13::text, $14::bytea, $15::text, $16::bytea,"
        " $17::bytea, $18::int4, $19::bytea, $9::timestamptz))"
        PEOPLE_AUDIT("3", "2", PEOPLE_DONE("201", "$10::uuid", "$10::uuid"))
        " select (select 1 from n),"
        " (select count(hm_mail($10::uuid, $20::text)) from n)",
        NGX_HM_ON(SOLO), 20 },

    /*
     * 10 id 11 version 12 role or NULL 13 is_active or NULL.  Who is no
     * doctor any more treats nobody, also if he should become one again.
     */
    [NGX_HM_SQL_USER_SET] = { "user_set",
        "with n as (update users u set role = coalesce($12::text, u.role),"
        " is_active = coalesce($13::bool, u.is_active),"
        " updated_at = $9::timestamptz, version = u.version + 1"
        " where u.id = $10::uuid and u.version = $11::int4"
        " and u.erased_at is null and u.id <> $3::uuid"
        " returning u.id, u.role, u.version),"
        " c as (update care_relationships r set status = 'ended',"
        " ended_at = $9::timestamptz, updated_at = $9::timestamptz,"
        " version = r.version + 1 from n where r.doctor_id = n.id"
        " and n.role <> 'doctor' and r.status in ('pending', 'active')"
        " returning 1)"
        PEOPLE_AUDIT("4", "2", PEOPLE_DONE("200", "$10::uuid", "$10::uuid"))
        " select n.version, (select count(*) from c),"
        " hm_mail(n.id, 'role_changed') from n",
        NGX_HM_ON(SOLO), 13 },

    /* 10 version 11 email 12 name 13 phone 14 address 15 born 16 dek */
    [NGX_HM_SQL_ME_SET] = { "me_set",
        "with n as (update users u set email = $11::bytea,"
        " full_name = $12::bytea, phone = $13::bytea, address = $14::bytea,"
        " date_of_birth = $15::bytea, dek_version = $16::int4,"
        " updated_at = $9::timestamptz, version = u.version + 1"
        " where u.id = $3::uuid and u.version = $10::int4"
        " and exists (select 1 from user_keys k where k.user_id = $3::uuid"
        " and k.version = $16::int4 and k.state = 'active')"
        " returning " USER_COLUMNS ")"
        PEOPLE_AUDIT("4", "2", PEOPLE_DONE("200", "$3::uuid", "$3::uuid"))
        " select * from n",
        NGX_HM_ON(SOLO), 16 },

    /* preferences and profile: no row yet is version 0 */

    [NGX_HM_SQL_PREFERENCES] = { "preferences",
        "select p.user_id, p.version, p.locale, p.units, p.time_zone,"
        " p.updated_at from user_preferences p where p.user_id = $1::uuid",
        NGX_HM_ON(READ), 1 },

    /* 10 version 11 locale 12 units 13 time zone */
    [NGX_HM_SQL_PREFERENCES_SET] = { "preferences_set",
        "with n as (insert into user_preferences as p (user_id, locale,"
        " units, time_zone, created_at, updated_at) select $3::uuid,"
        " $11::text, $12::text, $13::text, $9::timestamptz,"
        " $9::timestamptz on conflict (user_id) do update"
        " set locale = excluded.locale, units = excluded.units,"
        " time_zone = excluded.time_zone, updated_at = excluded.updated_at,"
        " version = p.version + 1 where p.version = $10::int4"
        " returning p.version)"
        PEOPLE_AUDIT("4", "23", PEOPLE_DONE("200", "$3::uuid", "$3::uuid"))
        " select version from n",
        NGX_HM_ON(SOLO), 13 },

    [NGX_HM_SQL_PROFILE] = { "profile",
        "select p.user_id, p.version, p.document, p.updated_at"
        " from user_health_profiles p where p.user_id = $1::uuid",
        NGX_HM_ON(READ), 1 },

    /* 10 person 11 version 12 document 13 dek_version */
    [NGX_HM_SQL_PROFILE_SET] = { "profile_set",
        "with n as (insert into user_health_profiles as p (id, user_id,"
        " document, dek_version, created_at, updated_at) select $10::uuid,"
        " $10::uuid, $12::bytea, $13::int4, $9::timestamptz,"
        " $9::timestamptz where exists (select 1 from user_keys k"
        " where k.user_id = $10::uuid and k.version = $13::int4"
        " and k.state = 'active') on conflict (user_id) do update"
        " set document = excluded.document,"
        " dek_version = excluded.dek_version,"
        " updated_at = excluded.updated_at, version = p.version + 1"
        " where p.version = $11::int4 returning p.user_id, p.version)"
        PEOPLE_AUDIT("4", "24", PEOPLE_DONE("200", "$10::uuid",
                                            "$10::uuid"))
        " select user_id, version from n",
        NGX_HM_ON(SOLO), 13 },

    /* Who saw my data.  A row has no id: its place in its shard is one. */
    PEOPLE_LIST(ACCESSES, "select a.at, a.place, a.user_id, a.action::int4,"
                " a.resource::int4, a.outcome::int4, a.actor,"
                " a.actor_role::int4, a.purpose::int4, a.items"
                " from (select l.*, md5(l.shard::text || l.seq)::uuid"
                " as place from audit_logs l) a where a.user_id = $1::uuid"
                " and a.actor is distinct from $1::uuid and a.action < 100"
                " and",
                "a.at", "a.place", SLOW, 5),
