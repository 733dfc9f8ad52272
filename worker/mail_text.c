/*
 * What mail says.
 *
 * DESIGN.  THE TABLE names every template: hm_mail(user, name) in SQL leaves
 * a job of that name, and a name that is not here ends it as dead.  A mail is
 * a title, a few sentences and one link.  No health datum, no name, nothing
 * that a template would have to be filled with, so that no text of a person
 * can reach a header or a link, and nothing can be learnt from a mailbox but
 * that there is an account.
 *
 * The one-time token stands behind the #: a browser does not send that part,
 * so it is in no access log, no referrer and no proxy.  It is random, lives
 * here until the message is handed over, and the database gets its digest.
 *
 * Plain ASCII text, lines below 78 columns, so one part of text/plain needs
 * no encoding.  The Message-ID is made of the job's id: a message sent twice,
 * because a worker died between the server's yes and our commit, is known
 * as one by whoever compares ids.
 *
 * Pure: no configuration, no database, no clock; tested in t/unit.
 */

#include <stdio.h>
#include <time.h>

#include "hm_crypto.h"
#include "hm_text.h"
#include "hm_time.h"
#include "hmw_mail.h"
#include "hmw_ukey.h"


const hmw_template_t  hmw_templates[] = {

    /* name, purpose and hours of the token, page, title, text */

    { "verify", "verify", 24, "/verify-email",
      "Confirm your address",
      "Please confirm that this address belongs to you by opening the\n"
      "link below. It works once, for 24 hours. Confirming signs you out\n"
      "everywhere; sign in again afterwards.\n"
      "\n"
      "If you did not open an account, do nothing." },

    { "register", "register", 24, "/verify-email",
      "Confirm your address",
      "Please confirm that this address belongs to you by opening the\n"
      "link below. It works once, for 24 hours; your account is opened by\n"
      "it.\n"
      "\n"
      "If you did not ask for an account, do nothing." },

    { "account_exists", "reset", 1, "/reset-password",
      "You already have an account",
      "Somebody, probably you, wanted to open an account with this\n"
      "address. There is one already. Sign in with it, or choose a new\n"
      "password with the link below; it works once, for one hour.\n"
      "\n"
      "If it was not you, do nothing." },

    { "reset", "reset", 1, "/reset-password",
      "Choose a new password",
      "Open the link below to choose a new password. It works once, for\n"
      "one hour. Afterwards all devices are signed out, and passkeys and\n"
      "second factors have to be set up again.\n"
      "\n"
      "If you did not ask for it, do nothing: your password stays." },

    { "invite", "reset", 168, "/reset-password",
      "An account was opened for you",
      "An administrator opened an account for this address. Open the link\n"
      "below to choose its password; it works once, for seven days. After\n"
      "that, ask for a new password instead." },

    { "email_confirm", "email", 24, "/verify-email",
      "Confirm your new address",
      "Please confirm that this address shall be the one of your account\n"
      "by opening the link below. It works once, for 24 hours. All\n"
      "devices are signed out by it.\n"
      "\n"
      "If you did not ask for it, do nothing." },

    { "email_change", NULL, 0, "/account/security",
      "Your address is about to change",
      "Somebody, probably you, asked for another address for your\n"
      "account. The new one has to be confirmed first.\n"
      "\n"
      "If it was not you, change your password now." },

    { "email_changed", NULL, 0, "/account/security",
      "Your address was changed",
      "This address does not belong to your account any more; another one\n"
      "was confirmed in its place.\n"
      "\n"
      "If it was not you, write to the operator of the service now." },

    { "password_changed", NULL, 0, "/account/security",
      "Your password was changed",
      "The password of your account was changed and all other devices\n"
      "were signed out.\n"
      "\n"
      "If it was not you, choose a new password now (forgotten password)\n"
      "on the page of the link." },

    { "session_reuse", NULL, 0, "/account/security",
      "A session was ended for your safety",
      "A key of one of your devices was used a second time, which happens\n"
      "when somebody has copied it. That device was signed out.\n"
      "\n"
      "Look at your devices, and change your password if you do not know\n"
      "one of them." },

    { "new_device", NULL, 0, "/account/security",
      "A new device signed in",
      "A device that was not known yet signed in to your account.\n"
      "\n"
      "If it was not you, change your password now and look at your\n"
      "devices." },

    { "mfa_changed", NULL, 0, "/account/security",
      "Your second factor was changed",
      "A second factor of your account was added, removed or replaced.\n"
      "\n"
      "If it was not you, change your password now." },

    { "passkey_changed", NULL, 0, "/account/security",
      "Your passkeys were changed",
      "A passkey of your account was added or removed.\n"
      "\n"
      "If it was not you, change your password now." },

    { "role_changed", NULL, 0, "/account",
      "The role of your account was changed",
      "An administrator changed what your account may do." },

    { "account_disabled", NULL, 0, "/",
      "Your account was closed or opened again",
      "An administrator changed whether your account can be used." },

    { "care_proposed", NULL, 0, "/account/care",
      "Somebody asks to look after you",
      "A member of the staff asks for access to your records. Nothing is\n"
      "shown before you accept, and you can end it at any time." },

    { "care_changed", NULL, 0, "/account/care",
      "Who looks after you has changed",
      "A relationship of care of your account began or ended." },

    { "break_glass", NULL, 0, "/account/access-log",
      "Your records were opened in an emergency",
      "A member of the staff opened your records without being assigned\n"
      "to you, and had to give a reason. You can see who it was and what\n"
      "was read. Each such access is reviewed." },

    { NULL, NULL, 0, NULL, NULL, NULL }
};


const hmw_template_t *
hmw_template(hm_str_t name)
{
    const hmw_template_t  *t;

    for (t = hmw_templates; t->name != NULL; t++) {
        if (name.len == strlen(t->name)
            && memcmp(name.data, t->name, name.len) == 0)
        {
            return t;
        }
    }

    return NULL;
}


/* HM_DECLINED: no such key; HM_ERROR: no such template. */

hm_rc_t
hmw_mail_key(const hmw_template_t **template, char user[HM_UUID_TEXT + 1],
    hm_str_t key)
{
    size_t    n;
    hm_str_t  name, id;

    if (key.len < 5 + 1 + 1 + HM_UUID_TEXT
        || memcmp(key.data, "mail:", 5) != 0)
    {
        return HM_DECLINED;
    }

    n = key.len - HM_UUID_TEXT;

    id.data = key.data + n;
    id.len = HM_UUID_TEXT;

    name.data = key.data + 5;
    name.len = n - 5 - 1;

    if (key.data[n - 1] != ':' || hmw_entry_id(user, id) != HM_OK) {
        return HM_DECLINED;
    }

    *template = hmw_template(name);

    return *template != NULL ? HM_OK : HM_ERROR;
}


hm_rc_t
hmw_request_key(char id[HM_UUID_TEXT + 1], hm_str_t key)
{
    if (key.len != 8 + HM_UUID_TEXT || memcmp(key.data, "request:", 8) != 0) {
        return HM_DECLINED;
    }

    key.data += 8;
    key.len -= 8;

    return hmw_entry_id(id, key);
}


/*
 * What may stand between < and >, in a header and in an SMTP command.  The
 * normal form of an address lets a little more through.
 */

bool
hmw_mail_address(hm_str_t address)
{
    size_t  i, at;

    for (i = 0, at = 0; i < address.len; i++) {

        if (address.data[i] <= 0x20 || address.data[i] == 0x7f
            || memchr("<>()[]\\,;:\"", address.data[i], 11) != NULL)
        {
            return false;
        }

        at += address.data[i] == '@';
    }

    return address.len > 2 && address.len <= 254 && at == 1
           && address.data[0] != '@' && address.data[0] != '-'
           && address.data[address.len - 1] != '@'
           && hm_utf8_valid(address);
}


/* A token, and the digest of its 32 bytes, which alone is stored. */

hm_rc_t
hmw_mail_token(char token[HMW_MAIL_TOKEN + 1], unsigned char hash[32])
{
    hm_rc_t        rc;
    unsigned char  raw[HMW_MAIL_RANDOM];

    rc = hm_random(raw, sizeof(raw));

    if (rc == HM_OK) {
        rc = hm_sha256(hash, raw, sizeof(raw));
    }

    if (rc == HM_OK) {
        memcpy(token, "hmt1.", 5);
        token[5 + hm_b64url_encode(token + 5, raw, sizeof(raw))] = '\0';
    }

    hm_wipe(raw, sizeof(raw));

    return rc;
}


static void
hmw_mail_date(hm_buf_t *b, hm_usec_t now)
{
    time_t      seconds;
    struct tm   tm;

    static const char  days[] = "SunMonTueWedThuFriSat";
    static const char  months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

    seconds = (time_t) (now / HM_USEC);
    gmtime_r(&seconds, &tm);

    hm_buf_printf(b, "Date: %.3s, %d %.3s %d %02d:%02d:%02d +0000\r\n",
                  days + 3 * tm.tm_wday, tm.tm_mday,
                  months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour,
                  tm.tm_min, tm.tm_sec);
}


void
hmw_mail_message(hm_buf_t *b, const hmw_mail_t *m)
{
    const char  *p, *at, *eol;

    at = strchr(m->from, '@');

    hmw_mail_date(b, m->now);
    hm_buf_printf(b, "From: HealthMate <%s>\r\nTo: <%.*s>\r\n"
                  "Subject: HealthMate: %s\r\nMessage-ID: <%s%s>\r\n",
                  m->from, (int) m->to.len, m->to.data, m->template->title,
                  m->id, at == NULL ? "@localhost" : at);
    hm_buf_lit(b, "MIME-Version: 1.0\r\n"
                  "Content-Type: text/plain; charset=us-ascii\r\n"
                  "Content-Transfer-Encoding: 7bit\r\n"
                  "Auto-Submitted: auto-generated\r\n"
                  "X-Auto-Response-Suppress: All\r\n\r\n");
    hm_buf_printf(b, "%s\r\n\r\n", m->template->title);

    for (p = m->template->text; *p != '\0'; p = *eol ? eol + 1 : eol) {
        eol = p + strcspn(p, "\n");
        hm_buf_printf(b, "%.*s\r\n", (int) (eol - p), p);
    }

    hm_buf_printf(b, "\r\n%s%s%s%s\r\n\r\n", m->url, m->template->page,
                  m->token != NULL ? "#" : "",
                  m->token != NULL ? m->token : "");
    hm_buf_lit(b, "-- \r\n"
                  "Sent by HealthMate because of something that was done\r\n"
                  "with your account. Mail from us holds no health data\r\n"
                  "and never asks for a password.\r\n");
}
