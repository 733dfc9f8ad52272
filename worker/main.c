/*
 * healthmate-worker: the parent.
 *
 * DESIGN.  The parent holds nothing: no database connection, no key, no job.
 * It forks the keeper and HEALTHMATE_WORKERS children, starts again whoever
 * dies (at once the first time, then with growing, jittered pauses until one
 * lived for ten seconds) and passes signals on.
 *
 *     TERM, INT   children finish their current job and leave; after ten
 *                 seconds, or at a second signal, they are killed.  A killed
 *                 job is not lost: the database holds it.
 *     HUP         children read the KEK file again between two jobs
 *
 * A child dies with its parent (PDEATHSIG), writes no core and is not
 * dumpable: it has keys in memory.
 *
 * Exit: 0 stopped as asked, or --check found nothing; 1 with one clear line
 * on standard error per reason; 2 wrong usage.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hmw.h"


#define HMW_RESTART_BASE   100           /* ms */
#define HMW_RESTART_MAX    5000
#define HMW_SETTLED        10000         /* ms of life that forgive a death */
#define HMW_HOST_MAX       48


typedef struct {
    pid_t             pid;               /* 0: not running */
    int64_t           started;
    int64_t           next_start;
    unsigned          deaths;
} hmw_slot_t;


volatile sig_atomic_t  hmw_quit;
volatile sig_atomic_t  hmw_reread;


static void hmw_on_signal(int signo);
static void hmw_signals(void);
static int hmw_usage(FILE *to, int code);
static hm_rc_t hmw_check(hmw_conf_t *conf, bool only);
static void hmw_check_mail(const hmw_conf_t *conf, bool only);
static void hmw_harden(void);
static int hmw_supervise(const hmw_conf_t *conf);
static void hmw_spawn(const hmw_conf_t *conf, hmw_slot_t *slot, unsigned i);
static void hmw_live(const hmw_conf_t *conf, unsigned i, pid_t parent);
static void hmw_reap(hmw_slot_t *slots, unsigned n);
static int hmw_drain(hmw_slot_t *slots, unsigned n);
static void hmw_tell(hmw_slot_t *slots, unsigned n, int signo);


int
main(int argc, char **argv)
{
    bool        only;
    hmw_conf_t  conf;

    only = false;

    if (argc > 2) {
        return hmw_usage(stderr, 2);
    }

    if (argc == 2) {
        if (strcmp(argv[1], "--version") == 0) {
            printf("healthmate-worker %s\n", HMW_VERSION);
            return 0;
        }

        if (strcmp(argv[1], "--help") == 0) {
            return hmw_usage(stdout, 0);
        }

        if (strcmp(argv[1], "--check") != 0) {
            return hmw_usage(stderr, 2);
        }

        only = true;
    }

    hmw_harden();

    if (hmw_check(&conf, only) != HM_OK) {
        return 1;
    }

    return only ? 0 : hmw_supervise(&conf);
}


static int
hmw_usage(FILE *to, int code)
{
    fputs("usage: healthmate-worker [--check | --version | --help]\n"
          "\n"
          "Runs the background jobs of HealthMate until TERM.  Environment:\n"
          "  HEALTHMATE_DATABASE     conninfo of PostgreSQL, as hm_worker\n"
          "                          (else DATABASE_URL)\n"
          "  REDIS_URL               unix:///path?user=U&password_file=P\n"
          "  HEALTHMATE_KEK_FILE     file of the key encryption keys\n"
          "  HEALTHMATE_WORKERS      processes that run jobs, default 2\n"
          "  HEALTHMATE_ENVIRONMENT  local or production\n"
          "  HEALTHMATE_MAIL         outbox, outbox:/folder or smtp\n"
          "  HEALTHMATE_PUBLIC_URL   what mailed links begin with\n"
          "  SMTP_HOST, SMTP_PORT, SMTP_TLS (starttls, tls, off), SMTP_USER,\n"
          "  SMTP_PASSWORD_FILE, SMTP_FROM, SMTP_CA_FILE\n"
          "\n"
          "  --check    read the configuration, say what is wrong, run "
          "nothing\n", to);

    return code;
}


/*
 * Redis that does not answer is no reason to stay away (jobs are taken from
 * PostgreSQL); one that evicts is.
 */

static hm_rc_t
hmw_check(hmw_conf_t *conf, bool only)
{
    char       reason[256];
    hm_rc_t    rc;
    hm_kek_t  *kek;

    if (hmw_conf_read(conf, reason) != HM_OK) {
        fprintf(stderr, "healthmate-worker: %s\n", reason);
        return HM_DECLINED;
    }

    if (hmw_conf_refusals(conf) > 0) {
        return HM_DECLINED;
    }

    kek = hm_kek_load(conf->kek_file, reason);
    if (kek == NULL) {
        fprintf(stderr, "healthmate-worker: %s\n", reason);
        return HM_DECLINED;
    }

    hm_kek_free(kek);

    rc = hmw_rds_policy(conf, reason);

    if (rc == HM_DECLINED || (rc == HM_AGAIN && only)) {
        fprintf(stderr, "healthmate-worker: %s%s\n", reason,
                rc == HM_AGAIN ? " (only a warning)" : "");

    } else if (rc == HM_AGAIN) {
        hmw_log(HMW_WARN, "redis.unchecked", NULL, "%s", reason);
    }

    hmw_check_mail(conf, only);

    return rc == HM_DECLINED ? HM_DECLINED : HM_OK;
}


/* A mail server that is away is no reason to stay away either. */

static void
hmw_check_mail(const hmw_conf_t *conf, bool only)
{
    char  why[64];

    if (conf->mail.way == HMW_MAIL_OFF) {
        hmw_log(HMW_WARN, "mail.off", NULL, "no mail is sent: neither "
                "HEALTHMATE_MAIL nor HEALTHMATE_HOME is set");
    }

    if (only && conf->mail.way == HMW_MAIL_SMTP
        && hmw_smtp_probe(&conf->mail, why) != HM_OK)
    {
        fprintf(stderr, "healthmate-worker: the mail server SMTP_HOST does "
                "not take us: %s (only a warning)\n", why);
    }
}


static void
hmw_harden(void)
{
    struct rlimit  none = { 0, 0 };

    if (prctl(PR_SET_DUMPABLE, 0) == -1
        || setrlimit(RLIMIT_CORE, &none) == -1)
    {
        hmw_log(HMW_WARN, "start.harden", NULL, "core dumps: errno %d",
                errno);
    }
}


static void
hmw_signals(void)
{
    struct sigaction  sa;

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = hmw_on_signal;
    sigemptyset(&sa.sa_mask);

    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    sigaction(SIGCHLD, &sa, NULL);

    sa.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &sa, NULL);
}


static void
hmw_on_signal(int signo)
{
    switch (signo) {

    case SIGTERM:
    case SIGINT:
        hmw_quit++;
        break;

    case SIGHUP:
        hmw_reread = 1;
        break;

    default:                             /* CHLD: only wakes the parent */
        break;
    }
}


static int
hmw_supervise(const hmw_conf_t *conf)
{
    unsigned    i, n;
    hmw_slot_t  slots[HMW_PROCESSES_MAX + 1];

    memset(slots, 0, sizeof(slots));
    n = conf->processes + 1;
    hmw_signals();

    hmw_log(HMW_INFO, "start", NULL, "version %s, %u processes and a keeper",
            HMW_VERSION, conf->processes);

    while (!hmw_quit) {

        for (i = 0; i < n; i++) {
            if (slots[i].pid == 0 && hmw_ms() >= slots[i].next_start) {
                hmw_spawn(conf, &slots[i], i);
            }
        }

        if (hmw_reread) {
            hmw_reread = 0;
            hmw_tell(slots, n, SIGHUP);
        }

        /* A signal that comes just before is seen 100 ms later. */

        poll(NULL, 0, 100);
        hmw_reap(slots, n);
    }

    return hmw_drain(slots, n);
}


static void
hmw_spawn(const hmw_conf_t *conf, hmw_slot_t *slot, unsigned i)
{
    pid_t  pid, parent;

    parent = getpid();
    pid = fork();

    if (pid == -1) {
        hmw_log(HMW_ERR, "fork", NULL, "errno %d", errno);
        slot->next_start = hmw_ms() + 1000;
        return;
    }

    if (pid == 0) {
        hmw_live(conf, i, parent);
        _exit(0);
    }

    slot->pid = pid;
    slot->started = hmw_ms();
}


/* In the child.  Slot 0 is the keeper. */

static void
hmw_live(const hmw_conf_t *conf, unsigned i, pid_t parent)
{
    char   host[HMW_HOST_MAX + 1], reason[256];
    hmw_t  w;

    if (prctl(PR_SET_PDEATHSIG, SIGTERM) == -1 || getppid() != parent) {
        _exit(1);
    }

    memset(&w, 0, sizeof(w));
    w.conf = conf;
    w.index = i;
    w.beat.keeper = true;

    /* A stable name: who is started again finds its own pending entries. */

    if (gethostname(host, sizeof(host)) == -1) {
        memcpy(host, "host", 5);
    }

    host[HMW_HOST_MAX] = '\0';
    snprintf(w.consumer, sizeof(w.consumer), "%s-%u", host, i);

    if (hm_crypto_init() != HM_OK) {
        hmw_log(HMW_ERR, "start.crypto", NULL, "no cryptography");
        _exit(1);
    }

    if (i == 0) {
        hmw_keeper(&w);

    } else {
        w.kek = hm_kek_load(conf->kek_file, reason);
        w.keys = hm_locked_alloc(sizeof(hm_user_keys_t));

        if (w.kek == NULL || w.keys == NULL) {
            hmw_log(HMW_ERR, "start.keys", NULL, "%s",
                    w.kek == NULL ? reason : "no locked memory");
            _exit(1);
        }

        hmw_child(&w);

        hmw_keys_forget(&w);
        hm_kek_free(w.kek);
    }

    hmw_rds_close(&w.rds);
    hmw_db_close(&w.beat);
    hmw_db_close(&w.db);
}


static void
hmw_reap(hmw_slot_t *slots, unsigned n)
{
    int       status;
    pid_t     pid;
    int64_t   now;
    unsigned  i;

    now = hmw_ms();

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {

        for (i = 0; i < n && slots[i].pid != pid; i++) { /* void */ }

        if (i == n) {
            continue;
        }

        slots[i].pid = 0;
        slots[i].deaths = now - slots[i].started > HMW_SETTLED
                          ? 0 : slots[i].deaths + 1;
        slots[i].next_start = now;

        if (slots[i].deaths > 0) {
            slots[i].next_start += hmw_backoff(HMW_RESTART_BASE,
                                               HMW_RESTART_MAX,
                                               slots[i].deaths - 1);
        }

        if (!hmw_quit) {
            hmw_log(HMW_WARN, "child.died", NULL,
                    "%s %d ended by %s %d, starting again in %lld ms",
                    i == 0 ? "keeper" : "child", (int) pid,
                    WIFSIGNALED(status) ? "signal" : "exit",
                    WIFSIGNALED(status) ? WTERMSIG(status)
                                        : WEXITSTATUS(status),
                    (long long) (slots[i].next_start - now));
        }
    }
}


static int
hmw_drain(hmw_slot_t *slots, unsigned n)
{
    bool      any, killed;
    int64_t   until;
    unsigned  i;

    hmw_tell(slots, n, SIGTERM);
    until = hmw_ms() + HMW_DRAIN * 1000 - 500;
    killed = false;

    for ( ;; ) {
        hmw_reap(slots, n);

        for (any = false, i = 0; i < n; i++) {
            any = any || slots[i].pid != 0;
        }

        if (!any) {
            break;
        }

        if (!killed && (hmw_ms() > until || hmw_quit > 1)) {
            hmw_log(HMW_WARN, "stop.kill", NULL,
                    "children that still work are killed; their jobs return");
            hmw_tell(slots, n, SIGKILL);
            killed = true;
        }

        poll(NULL, 0, 20);
    }

    hmw_log(HMW_INFO, "stop", NULL, "stopped");

    return 0;
}


static void
hmw_tell(hmw_slot_t *slots, unsigned n, int signo)
{
    unsigned  i;

    for (i = 0; i < n; i++) {
        if (slots[i].pid != 0) {
            kill(slots[i].pid, signo);
        }
    }
}
