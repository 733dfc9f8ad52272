/*
 * Mail: its configuration, its templates, its ways out.
 *
 *     mail_conf.c   environment -> hmw_mail_conf_t, and what is wrong with it
 *     mail_text.c   THE TABLE of templates; one message as text (pure)
 *     mail_send.c   the outbox folder; which way a message goes
 *     smtp.c        libcurl, the only file that knows it
 *     job_mail.c    the jobs
 */

#ifndef HMW_MAIL_H
#define HMW_MAIL_H

#include "hm.h"
#include "hm_buf.h"
#include "hm_uuid.h"

#define HMW_MAIL_RANDOM   32             /* bytes of a one-time token */
#define HMW_MAIL_TOKEN    (5 + 43)       /* hmt1. and base64url of them */
#define HMW_OUTBOX_KEEP   (24 * 3600)    /* seconds */

typedef enum { HMW_MAIL_OFF = 0, HMW_MAIL_OUTBOX, HMW_MAIL_SMTP }
    hmw_mail_way_t;

typedef enum { HMW_TLS_START = 0, HMW_TLS_WHOLE, HMW_TLS_OFF } hmw_tls_t;


typedef struct {
    hmw_mail_way_t    way;
    char              outbox[256];
    char              host[256];
    unsigned          port;
    hmw_tls_t         tls;
    char              user[256];
    char             *password;          /* locked; NULL: from the file */
    char              password_file[256];
    char              ca_file[256];
    char              from[256];
    char              url[256];          /* of links, without last slash */
} hmw_mail_conf_t;


typedef struct {
    const char       *name;
    const char       *purpose;           /* of its token; NULL: none */
    unsigned          life;              /* of its token, hours */
    const char       *page;              /* what the link opens */
    const char       *title;
    const char       *text;
} hmw_template_t;


typedef struct {
    const hmw_template_t   *template;
    hm_str_t                to;
    const char             *from;
    const char             *url;
    const char             *token;       /* NULL: none */
    const char             *id;          /* of the job: the Message-ID */
    hm_usec_t               now;
} hmw_mail_t;


/* mail_conf.c */
hm_rc_t hmw_mail_conf_read(hmw_mail_conf_t *conf, char reason[256]);

/* mail_text.c */
extern const hmw_template_t  hmw_templates[];    /* ended by name NULL */
const hmw_template_t *hmw_template(hm_str_t name);
/* mail:<template>:<user> and request:<id>, read strictly. */
hm_rc_t hmw_mail_key(const hmw_template_t **template,
    char user[HM_UUID_TEXT + 1], hm_str_t key);
hm_rc_t hmw_request_key(char id[HM_UUID_TEXT + 1], hm_str_t key);
bool hmw_mail_address(hm_str_t address);
hm_rc_t hmw_mail_token(char token[HMW_MAIL_TOKEN + 1],
    unsigned char hash[32]);
void hmw_mail_message(hm_buf_t *b, const hmw_mail_t *mail);

/*
 * mail_send.c, smtp.c.  HM_OK: it is with the next host, or in the folder;
 * HM_AGAIN: try later; HM_DECLINED: it will never be taken.  why is a code
 * without any value of the message.
 */
hm_rc_t hmw_mail_deliver(const hmw_mail_conf_t *conf, const char *id,
    hm_str_t to, hm_str_t message, char why[64]);
unsigned hmw_outbox_prune(const hmw_mail_conf_t *conf);
hm_rc_t hmw_smtp_send(const hmw_mail_conf_t *conf, hm_str_t to,
    hm_str_t message, char why[64]);
/* Greets, encrypts and authenticates, and sends nothing. */
hm_rc_t hmw_smtp_probe(const hmw_mail_conf_t *conf, char why[64]);

#endif
