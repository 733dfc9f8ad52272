/*
 * healthmate: the command line of an operator and of a person.
 *
 * DESIGN
 *
 * One table of commands; main looks the words up and calls the function.
 * Only commands that exist are listed: an unknown one is wrong usage (2).
 *
 * There are two kinds.  Admin commands (keys, user, demo, jobs, doctor) go to
 * PostgreSQL as role hm_cli, by peer authentication, so that the operating
 * system says who is there; every write goes with an audit row that names
 * that OS user, in one transaction.  Commands for a person (import) have no
 * way around the API: they log in with the person's password and are judged,
 * limited and audited like any other client.
 *
 * A command prints its result on standard output (one JSON object with
 * --json) and, if it fails, one clear line on standard error.
 */

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"


typedef struct {
    const char   *word;
    const char   *sub;                   /* NULL: a command of one word */
    int         (*run)(int argc, char **argv);
    const char   *arguments;
    const char   *help;
} hmc_command_t;


static const hmc_command_t  hmc_commands[] = {
    { "keys", "init", hmc_keys_init, "",
      "make the system's key and the deployment's index key" },
    { "keys", "status", hmc_keys_status, "[--json]",
      "key-encryption keys and how many people each one guards" },
    { "user", "create", hmc_user_create,
      "--email E [--name N] [--role patient|doctor|admin|researcher]",
      "a verified account; password from HEALTHMATE_PASSWORD or stdin" },
    { "user", "disable", hmc_user_disable, "EMAIL",
      "end an account's sessions and let nobody in with it" },
    { "user", "enable", hmc_user_enable, "EMAIL",
      "let a disabled account in again" },
    { "user", "role", hmc_user_role,
      "EMAIL patient|doctor|admin|researcher",
      "give an account another role; its tokens end, its sessions go on" },
    { "demo", "create", hmc_demo_create, "",
      "demo accounts and 90 days of data, into an empty database only" },
    { "jobs", NULL, hmc_jobs, "[--json]",
      "how many jobs are in which state" },
    { "doctor", NULL, hmc_doctor, "[--json]",
      "check this installation; says a way out of what fails" },
    { "import", "fhir", hmc_import_fhir,
      "FILE --user EMAIL [--json] [--dry-run]",
      "take the observations of a FHIR R4 bundle" },
    { NULL, NULL, NULL, NULL, NULL }
};

static const hmc_command_t  *hmc_current;


int
hmc_fail(const char *fmt, ...)
{
    va_list  args;

    fputs("healthmate: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);

    return HMC_FAILED;
}


int
hmc_usage(const char *fmt, ...)
{
    va_list  args;

    fputs("healthmate: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);

    if (hmc_current != NULL) {
        fprintf(stderr, "usage: healthmate %s%s%s %s\n", hmc_current->word,
                hmc_current->sub != NULL ? " " : "",
                hmc_current->sub != NULL ? hmc_current->sub : "",
                hmc_current->arguments);
    }

    return HMC_USAGE;
}


hm_str_t
hmc_str(const char *s)
{
    if (s == NULL) {
        return hm_null_str;
    }

    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


char *
hmc_cstr(hm_str_t s)
{
    char  *p;

    p = malloc(s.len + 1);
    if (p == NULL) {
        hmc_fail("out of memory");
        exit(HMC_FAILED);
    }

    if (s.len != 0) {
        memcpy(p, s.data, s.len);
    }

    p[s.len] = '\0';

    return p;
}


const char *
hmc_os_user(void)
{
    static char     number[32];
    struct passwd  *pw;

    pw = getpwuid(getuid());
    if (pw != NULL) {
        return pw->pw_name;
    }

    snprintf(number, sizeof(number), "uid %u", (unsigned) getuid());

    return number;
}


int
hmc_options(int argc, char **argv, const hmc_option_t *options,
    const char **positional, int npositional)
{
    int                  i, n;
    const hmc_option_t  *o;

    n = 0;

    for (i = 0; i < argc; i++) {

        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            if (n == npositional) {
                return hmc_usage("too many arguments: %s", argv[i]);
            }

            positional[n++] = argv[i];
            continue;
        }

        for (o = options; o->name != NULL; o++) {
            if (strcmp(o->name, argv[i]) == 0) {
                break;
            }
        }

        if (o->name == NULL) {
            return hmc_usage("no such option: %s", argv[i]);
        }

        if (o->flag != NULL) {
            *o->flag = true;
            continue;
        }

        if (i + 1 == argc) {
            return hmc_usage("%s needs a value", argv[i]);
        }

        *o->value = argv[++i];
    }

    return HMC_DONE;
}


static char *
hmc_read_line(FILE *in)
{
    char     *line;
    size_t    size;
    ssize_t   n;

    line = NULL;
    size = 0;

    n = getline(&line, &size, in);
    if (n < 0) {
        free(line);
        return NULL;
    }

    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) {
        line[--n] = '\0';
    }

    return line;
}


static char *
hmc_ask(const char *prompt)
{
    FILE            *tty;
    char            *line;
    struct termios   saved, quiet;

    tty = fopen("/dev/tty", "r+");
    if (tty == NULL) {
        return NULL;
    }

    setvbuf(tty, NULL, _IONBF, 0);

    if (tcgetattr(fileno(tty), &saved) != 0) {
        fclose(tty);
        return NULL;
    }

    quiet = saved;
    quiet.c_lflag &= ~(tcflag_t) ECHO;
    fprintf(tty, "%s: ", prompt);
    tcsetattr(fileno(tty), TCSAFLUSH, &quiet);

    line = hmc_read_line(tty);

    tcsetattr(fileno(tty), TCSAFLUSH, &saved);
    fputc('\n', tty);
    fclose(tty);

    return line;
}


char *
hmc_secret(const char *variable, const char *prompt, bool from_stdin)
{
    char        *line;
    const char  *value;

    value = getenv(variable);
    if (value != NULL && value[0] != '\0') {
        return strdup(value);
    }

    if (from_stdin && !isatty(STDIN_FILENO)) {
        line = hmc_read_line(stdin);

    } else if (isatty(STDIN_FILENO)) {
        line = hmc_ask(prompt);

    } else {
        line = NULL;
    }

    if (line == NULL || line[0] == '\0') {
        hmc_fail("no password: set %s%s", variable,
                 from_stdin ? " or give it on standard input"
                            : " or run this on a terminal");
        free(line);
        return NULL;
    }

    return line;
}


static void
hmc_help(FILE *out)
{
    const hmc_command_t  *c;

    fputs("usage: healthmate COMMAND [ARGUMENTS]\n\n", out);

    for (c = hmc_commands; c->word != NULL; c++) {
        fprintf(out, "  %s%s%s %s\n      %s\n", c->word,
                c->sub != NULL ? " " : "", c->sub != NULL ? c->sub : "",
                c->arguments, c->help);
    }

    fputs("\nThe stack is found by HEALTHMATE_HOME (default ./.run), the "
          "server by\nHEALTHMATE_URL, the database by DATABASE_URL; see "
          "docs.\nExit: 0 done, 1 failed, 2 wrong usage.\n", out);
}


int
main(int argc, char **argv)
{
    int                   skip;
    struct rlimit         none;
    const hmc_command_t  *c;

    /* keys and passwords pass through this process: it leaves no core */
    none.rlim_cur = none.rlim_max = 0;
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGPIPE, SIG_IGN);

    if (argc < 2) {
        hmc_help(stderr);
        return HMC_USAGE;
    }

    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0
        || strcmp(argv[1], "-h") == 0)
    {
        hmc_help(stdout);
        return HMC_DONE;
    }

    for (c = hmc_commands; c->word != NULL; c++) {

        if (strcmp(c->word, argv[1]) != 0) {
            continue;
        }

        if (c->sub == NULL) {
            skip = 2;

        } else if (argc > 2 && strcmp(c->sub, argv[2]) == 0) {
            skip = 3;

        } else {
            continue;
        }

        hmc_current = c;

        if (hm_crypto_init() != HM_OK) {
            return hmc_fail("OpenSSL cannot be used here");
        }

        return c->run(argc - skip, argv + skip);
    }

    return hmc_usage("no such command: %s%s%s (see healthmate help)", argv[1],
                     argc > 2 && argv[2][0] != '-' ? " " : "",
                     argc > 2 && argv[2][0] != '-' ? argv[2] : "");
}
