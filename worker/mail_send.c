/*
 * Which way a message goes, and the outbox.
 *
 * DESIGN.  The outbox is a folder with one file for each message, named by
 * the job: a run that is repeated writes the same file.  A file appears
 * whole (written beside, then renamed), for whoever watches the folder.  It
 * holds one-time tokens, hence 0700 and 0600, nothing older than a day, and
 * no production: there it is refused at the start.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hmw_mail.h"


static hm_rc_t hmw_outbox_put(const hmw_mail_conf_t *conf, const char *id,
    hm_str_t message, char why[64]);
static bool hmw_outbox_ours(const char *name);


hm_rc_t
hmw_mail_deliver(const hmw_mail_conf_t *conf, const char *id, hm_str_t to,
    hm_str_t message, char why[64])
{
    switch (conf->way) {

    case HMW_MAIL_OUTBOX:
        return hmw_outbox_put(conf, id, message, why);

    case HMW_MAIL_SMTP:
        return hmw_smtp_send(conf, to, message, why);

    default:
        snprintf(why, 64, "mail_not_configured");
        return HM_AGAIN;
    }
}


static hm_rc_t
hmw_outbox_put(const hmw_mail_conf_t *conf, const char *id, hm_str_t message,
    char why[64])
{
    int      fd;
    char     part[320], whole[320];
    bool     ok;
    ssize_t  n;

    snprintf(whole, sizeof(whole), "%s/%s.eml", conf->outbox, id);
    snprintf(part, sizeof(part), "%s/.%s.%d", conf->outbox, id,
             (int) getpid());

    (void) unlink(part);
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
              0600);

    if (fd == -1) {
        snprintf(why, 64, "outbox_errno %d", errno);
        return HM_AGAIN;
    }

    n = write(fd, message.data, message.len);
    ok = n >= 0 && (size_t) n == message.len;

    if (close(fd) == -1 || !ok || rename(part, whole) == -1) {
        snprintf(why, 64, "outbox_errno %d", errno);
        (void) unlink(part);
        return HM_AGAIN;
    }

    why[0] = '\0';

    return HM_OK;
}


/* How many went.  Nothing but our own names is touched. */

unsigned
hmw_outbox_prune(const hmw_mail_conf_t *conf)
{
    int             fd;
    DIR            *dir;
    time_t          line;
    unsigned        n;
    struct stat     st;
    struct dirent  *entry;

    if (conf->way != HMW_MAIL_OUTBOX) {
        return 0;
    }

    dir = opendir(conf->outbox);
    if (dir == NULL) {
        return 0;
    }

    n = 0;
    fd = dirfd(dir);
    line = time(NULL) - HMW_OUTBOX_KEEP;

    while ((entry = readdir(dir)) != NULL) {

        if (hmw_outbox_ours(entry->d_name)
            && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0
            && S_ISREG(st.st_mode) && st.st_mtime < line
            && unlinkat(fd, entry->d_name, 0) == 0)
        {
            n++;
        }
    }

    (void) closedir(dir);

    return n;
}


/* <uuid>.eml, or .<uuid>.<pid> that a dying worker left */

static bool
hmw_outbox_ours(const char *name)
{
    size_t  n;

    name += *name == '.';
    n = strspn(name, "0123456789abcdef-");

    return n == HM_UUID_TEXT && name[n] == '.';
}
