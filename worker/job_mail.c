/*
 * The jobs of mail: mail.send, mail.request, mail.prune.
 *
 * DESIGN.  mail.send has a person and a template in its unique key; hm_mail
 * in SQL leaves it.  mail.request names a row of account_requests: somebody
 * typed an address, and only here, behind the answer, is looked up whether
 * it has an account.  Both end in one message.
 *
 * Order of a message: its token's digest and the audit row of the disclosure
 * are committed, together with the proof that this run still holds the job;
 * then the message goes out; then the job is settled.  A worker that dies in
 * between leaves a token that nobody knows, which expires, and a job that is
 * run again: another token under the same Message-ID.  Both tokens work,
 * each once, because which of two equal messages a mailbox shows is not ours
 * to say.
 *
 * All of it runs as the system actor worker.mail, who may read addresses and
 * the keys to them, and nothing else of anybody.  Address, token and message
 * are in this process only while it works on them: the database gets the
 * digest, the log ids and codes.
 */

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "hm_row.h"
#include "hm_text.h"
#include "hm_time.h"
#include "hmw.h"


/* What a message needs beside its template. */
typedef struct {
    char                    person[HM_UUID_TEXT + 1];
    char                    request[HM_UUID_TEXT + 1];   /* "": none */
    char                    version[16];     /* of the password; "": none */
    unsigned char           json[512];       /* the address as opened */
    unsigned char           address[256];
    hm_str_t                to;
} hmw_letter_t;


static hmw_result_t hmw_letter_send(hmw_t *w, hmw_job_t *job,
    const hmw_template_t *t, hmw_letter_t *letter);
static hmw_result_t hmw_letter_note(hmw_t *w, hmw_job_t *job,
    const hmw_template_t *t, const hmw_letter_t *letter,
    const unsigned char hash[32]);
static hmw_result_t hmw_letter_write(hmw_t *w, hmw_job_t *job,
    const hmw_template_t *t, const hmw_letter_t *letter, const char *token);
static hmw_result_t hmw_letter_open(hmw_job_t *job, hmw_letter_t *letter,
    const hm_user_keys_t *keys, const hm_place_t *place, hm_str_t sealed);
static hmw_result_t hmw_mail_person(hmw_t *w, hmw_job_t *job,
    const hmw_template_t *t, PGresult *res, hmw_letter_t *letter);
static hmw_result_t hmw_request_run(hmw_t *w, hmw_job_t *job, PGresult *res,
    hmw_letter_t *letter);
static hmw_result_t hmw_request_keys(hmw_t *w, hmw_job_t *job, PGresult *res,
    hm_uuid_t *owner, bool own);
static hmw_result_t hmw_request_known(hmw_t *w, hmw_job_t *job,
    const char *template, const char *person);
static hmw_result_t hmw_request_spend(hmw_t *w, hmw_job_t *job);
static hm_rc_t hmw_letter_unquote(hmw_letter_t *letter, hm_str_t text);


/* Columns of a person's row. */
enum { P_EMAIL = 0, P_ACTIVE, P_VERIFIED, P_VERSION };

/* Columns of a request. */
enum { R_PURPOSE = 0, R_USER, R_EMAIL, R_WRAPPED, R_VERSION, R_OWNER,
       R_TODAY };


hmw_result_t
hmw_job_mail(hmw_t *w, hmw_job_t *job)
{
    hm_str_t                key;
    PGresult               *res;
    const char             *values[1];
    hmw_letter_t            letter;
    hmw_result_t            result;
    const hmw_template_t   *t;
    static const char       sql[] =
        "select email, is_active, email_verified_at is not null,"
        " password_version from users where id = $1 and erased_at is null";

    memset(&letter, 0, sizeof(letter));
    key.data = (unsigned char *) job->unique_key;
    key.len = strlen(job->unique_key);

    switch (hmw_mail_key(&t, letter.person, key)) {
    case HM_OK:
        break;
    case HM_ERROR:
        job->cause = "unknown_template";
        return HMW_BAD;
    default:
        job->cause = "bad_key";
        return HMW_BAD;
    }

    if (strcmp(letter.person, job->subject) != 0) {
        job->cause = "bad_key";
        return HMW_BAD;
    }

    values[0] = letter.person;
    res = hmw_db_query_bin(&w->db, "mail person", sql, 1, values);

    if (res == NULL) {
        return HMW_RETRY;
    }

    result = hmw_mail_person(w, job, t, res, &letter);

    PQclear(res);
    hm_wipe(&letter, sizeof(letter));

    return result;
}


static hmw_result_t
hmw_mail_person(hmw_t *w, hmw_job_t *job, const hmw_template_t *t,
    PGresult *res, hmw_letter_t *letter)
{
    hm_place_t      place;
    hmw_result_t    result;

    if (PQntuples(res) != 1) {
        job->cause = "no_account";
        return HMW_BAD;
    }

    /* a closed account gets notices, and no key to itself */

    if (t->purpose != NULL
        && (!hm_row_bool(res, 0, P_ACTIVE)
            || (strcmp(t->purpose, "verify") == 0
                && hm_row_bool(res, 0, P_VERIFIED))))
    {
        hmw_log(HMW_INFO, "mail.skipped", job->id_text,
                "%s: not for this account", t->name);
        return HMW_DONE;
    }

    snprintf(letter->version, sizeof(letter->version), "%u",
             hm_row_u32(res, 0, P_VERSION));

    result = hmw_keys_load(w, job);
    if (result != HMW_DONE) {
        return result;
    }

    place.table = "users";
    place.column = "email";
    place.row = w->keys->user;
    place.owner = w->keys->user;

    result = hmw_letter_open(job, letter, w->keys, &place,
                             hm_row_str(res, 0, P_EMAIL));

    return result == HMW_DONE ? hmw_letter_send(w, job, t, letter) : result;
}


/* A sealed address is a JSON string. */

static hmw_result_t
hmw_letter_open(hmw_job_t *job, hmw_letter_t *letter,
    const hm_user_keys_t *keys, const hm_place_t *place, hm_str_t sealed)
{
    uint32_t                version;
    hm_str_t                json;
    const unsigned char    *dek;

    version = hm_envelope_version(sealed);
    dek = hm_keys_dek(keys, version);
    json = hm_null_str;

    if (dek == NULL || sealed.len > sizeof(letter->json)
        || hm_open(letter->json, &json, dek, version, place, sealed)
           != HM_OK
        || hmw_letter_unquote(letter, json) != HM_OK)
    {
        job->cause = "address_not_opened";
        return HMW_RETRY;
    }

    if (!hmw_mail_address(letter->to)) {
        job->cause = "address_not_mailable";
        return HMW_BAD;
    }

    return HMW_DONE;
}


static hm_rc_t
hmw_letter_unquote(hmw_letter_t *letter, hm_str_t text)
{
    json_t  *j;

    j = json_loadb((char *) text.data, text.len, JSON_DECODE_ANY, NULL);
    letter->to.len = j != NULL ? json_string_length(j) : 0;

    if (!json_is_string(j) || letter->to.len == 0
        || letter->to.len > sizeof(letter->address))
    {
        json_decref(j);
        return HM_ERROR;
    }

    letter->to.data = letter->address;
    memcpy(letter->address, json_string_value(j), letter->to.len);
    json_decref(j);

    return HM_OK;
}


static hmw_result_t
hmw_letter_send(hmw_t *w, hmw_job_t *job, const hmw_template_t *t,
    hmw_letter_t *letter)
{
    char             token[HMW_MAIL_TOKEN + 1];
    hmw_result_t     result;
    unsigned char    hash[32];

    if (t->purpose != NULL && hmw_mail_token(token, hash) != HM_OK) {
        job->cause = "no_random";
        return HMW_RETRY;
    }

    result = hmw_letter_note(w, job, t, letter,
                             t->purpose != NULL ? hash : NULL);

    if (result == HMW_DONE) {
        result = hmw_letter_write(w, job, t, letter,
                                  t->purpose != NULL ? token : NULL);
    }

    hm_wipe(token, sizeof(token));

    /* the settle wants a transaction; if there is none, the run repeats */

    if (result == HMW_DONE && hmw_db_begin(&w->db, job->actor) != HM_OK) {
        return HMW_RETRY;
    }

    return result;
}


/* The token's digest, the audit row and the fence, in one commit. */

static hmw_result_t
hmw_letter_note(hmw_t *w, hmw_job_t *job, const hmw_template_t *t,
    const hmw_letter_t *letter, const unsigned char hash[32])
{
    char                hex[2 + 64 + 1], id[HM_UUID_TEXT + 1], life[16];
    bool                held;
    PGresult           *res;
    hm_uuid_t           uuid;
    const char         *values[7], *fence[2] = { job->id_text, job->token };
    hmw_audit_t         row;
    static const char   add[] =
        "insert into account_tokens (id, user_id, purpose, token_hash,"
        " password_version, request, expires_at) values ($1, $2, $3,"
        " $4::bytea, $5, $6, now() + $7::int * interval '1 hour')";
    static const char   mine[] =
        "select from jobs where id = $1 and token = $2"
        " and state = 'running' for update";

    if (hash != NULL) {
        memcpy(hex, "\\x", 2);
        hm_hex(hex + 2, hash, 32);
        hex[2 + 64] = '\0';
        snprintf(life, sizeof(life), "%u", t->life);

        if (hm_uuid7(&uuid, hm_now()) != HM_OK) {
            return HMW_RETRY;
        }

        hm_uuid_format(&uuid, id);
        id[HM_UUID_TEXT] = '\0';

        values[0] = id;
        values[1] = letter->person;
        values[2] = t->purpose;
        values[3] = hex;
        values[4] = letter->version[0] != '\0' ? letter->version : NULL;
        values[5] = letter->request[0] != '\0' ? letter->request : NULL;
        values[6] = life;

        if (hmw_db_do(&w->db, "mail token", add, 7, values) != HM_OK) {
            return HMW_RETRY;
        }
    }

    memset(&row, 0, sizeof(row));
    row.action = HM_AUDIT_JOB;
    row.resource = HM_AUDIT_OF_USER;
    row.outcome = 200;
    row.actor = job->actor;
    row.subject = letter->person;
    row.first = job->id_text;
    row.items = 1;

    if (hmw_audit_add(w, job, &row) != HM_OK
        || hmw_db_actor(&w->db, HMW_ACTOR_SWEEPER) != HM_OK)
    {
        return HMW_RETRY;
    }

    res = hmw_db_query(&w->db, "mail fence", mine, 2, fence);
    held = res != NULL && PQntuples(res) == 1;
    PQclear(res);

    if (!held) {
        return HMW_LOST;
    }

    if (hmw_db_commit(&w->db) != HM_OK) {
        return HMW_RETRY;
    }

    w->db.seq += job->audited;
    job->audited = 0;

    return HMW_DONE;
}


static hmw_result_t
hmw_letter_write(hmw_t *w, hmw_job_t *job, const hmw_template_t *t,
    const hmw_letter_t *letter, const char *token)
{
    char         why[64];
    hm_rc_t      rc;
    hm_buf_t     b;
    hm_str_t     message;
    hmw_mail_t   mail;

    mail.template = t;
    mail.to = letter->to;
    mail.from = w->conf->mail.from;
    mail.url = w->conf->mail.url;
    mail.token = token;
    mail.id = job->id_text;
    mail.now = hm_now();

    hm_buf_init(&b, &hm_heap, 4096);
    hmw_mail_message(&b, &mail);

    message.data = b.start;
    message.len = hm_buf_len(&b);
    snprintf(why, sizeof(why), "no_memory");

    rc = b.failed ? HM_AGAIN
         : hmw_mail_deliver(&w->conf->mail, job->id_text, letter->to,
                            message, why);

    if (b.start != NULL) {
        hm_wipe(b.start, message.len);
        free(b.start);
    }

    if (rc == HM_OK) {
        hmw_log(HMW_INFO, "mail.sent", job->id_text, "%s", t->name);
        return HMW_DONE;
    }

    snprintf(job->cause_buf, sizeof(job->cause_buf), "%.63s", why);
    job->cause = job->cause_buf;

    return rc == HM_DECLINED ? HMW_BAD : HMW_RETRY;
}


/* Requests */


hmw_result_t
hmw_job_mail_request(hmw_t *w, hmw_job_t *job)
{
    hm_str_t            key;
    PGresult           *res;
    const char         *values[1];
    hmw_letter_t        letter;
    hmw_result_t        result;
    static const char   sql[] =
        "select r.purpose, r.user_id::text, r.email, r.wrapped_dek,"
        " coalesce(r.password_version::text, ''),"
        " coalesce(hm_account_of(r.email_index)::text, ''),"
        " (select count(*) from account_requests o"
        " where o.email_index = r.email_index and o.purpose = r.purpose"
        " and o.created_at > now() - interval '1 hour')::int4"
        " from account_requests r where r.id = $1 and r.expires_at > now()";

    memset(&letter, 0, sizeof(letter));
    key.data = (unsigned char *) job->unique_key;
    key.len = strlen(job->unique_key);

    if (hmw_request_key(letter.request, key) != HM_OK) {
        job->cause = "bad_key";
        return HMW_BAD;
    }

    values[0] = letter.request;
    res = hmw_db_query_bin(&w->db, "mail request", sql, 1, values);

    if (res == NULL) {
        return HMW_RETRY;
    }

    result = HMW_DONE;                   /* taken back, or too late */

    if (PQntuples(res) == 1) {
        result = hmw_request_run(w, job, res, &letter);
    }

    PQclear(res);
    hm_wipe(&letter, sizeof(letter));

    return result;
}


/*
 * The kinds: whom it may go to, and as what.  `taken` is what is done
 * where the address has an account, NULL: the same.
 */

static const struct {
    const char       *purpose;
    const char       *free;              /* template; NULL: none is sent */
    const char       *taken;             /* hm_mail's; NULL: none is sent */
    bool              always;            /* it does not matter whose it is */
    bool              own;               /* sealed under the person's keys */
} hmw_requests[] = {
    { "forgot", NULL, "reset", false, false },
    { "register", "register", "account_exists", false, false },
    { "email", "email_confirm", NULL, false, true },
    { "notice", "email_changed", NULL, true, true }
};


static hmw_result_t
hmw_request_run(hmw_t *w, hmw_job_t *job, PGresult *res,
    hmw_letter_t *letter)
{
    bool                   taken, home;
    size_t                 i;
    hm_uuid_t              owner;
    hm_place_t             place;
    hmw_result_t           result;
    const hmw_template_t  *t;

    const size_t  n = sizeof(hmw_requests) / sizeof(hmw_requests[0]);

    for (i = 0; i < n; i++) {
        if (strcmp(PQgetvalue(res, 0, R_PURPOSE), hmw_requests[i].purpose)
            == 0)
        {
            break;
        }
    }

    if (i == n || PQgetlength(res, 0, R_USER) != HM_UUID_TEXT) {
        job->cause = "bad_request";
        return HMW_BAD;
    }

    taken = PQgetlength(res, 0, R_OWNER) == HM_UUID_TEXT;

    if (taken && !hmw_requests[i].always) {
        return hmw_request_known(w, job, hmw_requests[i].taken,
                                 PQgetvalue(res, 0, R_OWNER));
    }

    if (hmw_requests[i].free == NULL || PQgetisnull(res, 0, R_EMAIL)) {
        return HMW_DONE;
    }

    if (hm_row_u32(res, 0, R_TODAY) > 5) {
        hmw_log(HMW_WARN, "mail.skipped", job->id_text,
                "%s: six in an hour for one address",
                hmw_requests[i].purpose);
        return hmw_request_spend(w, job);
    }

    memcpy(letter->person, PQgetvalue(res, 0, R_USER), HM_UUID_TEXT);
    memcpy(job->subject, letter->person, sizeof(job->subject));
    snprintf(letter->version, sizeof(letter->version), "%.15s",
             PQgetvalue(res, 0, R_VERSION));

    result = hmw_request_keys(w, job, res, &owner, hmw_requests[i].own);
    if (result != HMW_DONE) {
        return result;
    }

    /* an account to be is sealed for where it will be */

    home = !PQgetisnull(res, 0, R_WRAPPED);
    place.table = home ? "users" : "account_requests";
    place.column = "email";
    place.row = owner;
    place.owner = owner;

    if (!home) {
        (void) hm_uuid_parse(&place.row, (hm_str_t) { HM_UUID_TEXT,
                             (unsigned char *) letter->request });
    }

    t = hmw_template((hm_str_t) { strlen(hmw_requests[i].free),
                     (unsigned char *) hmw_requests[i].free });

    result = hmw_letter_open(job, letter, w->keys, &place,
                             hm_row_str(res, 0, R_EMAIL));

    return result == HMW_DONE ? hmw_letter_send(w, job, t, letter) : result;
}


/* The person's, or those of an account to be. */

static hmw_result_t
hmw_request_keys(hmw_t *w, hmw_job_t *job, PGresult *res, hm_uuid_t *owner,
    bool own)
{
    hm_str_t  text;

    text.data = (unsigned char *) job->subject;
    text.len = HM_UUID_TEXT;
    (void) hm_uuid_parse(owner, text);

    if (own) {
        return hmw_keys_load(w, job);
    }

    hmw_keys_forget(w);

    if (hm_kek_unwrap(w->kek, w->keys->dek[0], "dek", 1, owner,
                      hm_row_str(res, 0, R_WRAPPED)) != HM_OK)
    {
        job->cause = "key_not_unwrapped";
        return HMW_RETRY;
    }

    w->keys->user = *owner;
    w->keys->version[0] = 1;
    w->keys->nversions = 1;
    w->keys->active = 1;

    return HMW_DONE;
}


static hmw_result_t
hmw_request_known(hmw_t *w, hmw_job_t *job, const char *template,
    const char *person)
{
    hm_rc_t             rc;
    const char         *values[2] = { person, template };
    static const char   sql[] = "select hm_mail($1, $2)";

    if (template != NULL) {
        rc = hmw_db_do(&w->db, "mail known", sql, 2, values);

        if (rc != HM_OK) {
            return HMW_RETRY;
        }
    }

    return hmw_request_spend(w, job);
}


/* What will not be used is not kept; the row stays, as one of the minute. */

static hmw_result_t
hmw_request_spend(hmw_t *w, hmw_job_t *job)
{
    const char         *values[1] = { job->unique_key + 8 };
    static const char   sql[] =
        "update account_requests set email = null, full_name = null,"
        " date_of_birth = null, password_hash = null, wrapped_dek = null,"
        " commitment = null, wrapped_index_key = null where id = $1";

    return hmw_db_do(&w->db, "mail spend", sql, 1, values) == HM_OK
           ? HMW_DONE : HMW_RETRY;
}


/* Upkeep */


hmw_result_t
hmw_job_mail_prune(hmw_t *w, hmw_job_t *job)
{
    unsigned  n;

    n = hmw_outbox_prune(&w->conf->mail);

    if (n > 0) {
        hmw_log(HMW_INFO, "mail.prune", job->id_text,
                "%u messages left the outbox", n);
    }

    if (hmw_db_do(&w->db, "mail tokens",
                  "delete from account_tokens where expires_at < now()", 0,
                  NULL) != HM_OK
        || hmw_db_do(&w->db, "mail requests",
                     "delete from account_requests where expires_at < now()",
                     0, NULL) != HM_OK)
    {
        return HMW_RETRY;
    }

    return HMW_DONE;
}
