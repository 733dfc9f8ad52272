/*
 * conf: where the stack is.
 *
 * A setting is the environment's, else that of $HEALTHMATE_HOME/env, a file
 * of KEY=VALUE lines in the shell's quoting.  It is parsed, never executed:
 * a `$`, a backquote or a command in it is plain text, so that a folder
 * somebody else can write to does not become a way to run commands.
 */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"


#define HMC_CONF_MAX   128


typedef struct {
    char   *name;
    char   *value;
} hmc_setting_t;


static hmc_setting_t  hmc_settings[HMC_CONF_MAX];
static int            hmc_nsettings = -1;


const char *
hmc_home(void)
{
    const char  *home;

    home = getenv("HEALTHMATE_HOME");

    return (home != NULL && home[0] != '\0') ? home : "./.run";
}


/* Takes the shell's quotes off, in place, up to the first bare blank. */
static void
hmc_conf_unquote(char *s)
{
    char  *in, *out, quote;

    quote = '\0';

    for (in = out = s; *in != '\0'; in++) {

        if (quote == '\0' && (*in == '\'' || *in == '"')) {
            quote = *in;

        } else if (quote != '\0' && *in == quote) {
            quote = '\0';

        } else if (quote == '\0' && isspace((unsigned char) *in)) {
            break;

        } else if (*in == '\\' && quote != '\'' && in[1] != '\0'
                   && (quote == '\0' || strchr("\"\\$`", in[1]) != NULL))
        {
            *out++ = *++in;

        } else {
            *out++ = *in;
        }
    }

    *out = '\0';
}


static void
hmc_conf_line(char *line)
{
    char    *eq;
    size_t   n;

    while (isspace((unsigned char) *line)) {
        line++;
    }

    if (strncmp(line, "export ", 7) == 0) {
        line += 7;
    }

    n = strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                     "0123456789_");
    eq = line + n;

    if (n == 0 || *eq != '=' || hmc_nsettings == HMC_CONF_MAX) {
        return;
    }

    *eq = '\0';
    hmc_conf_unquote(eq + 1);

    hmc_settings[hmc_nsettings].name = hmc_cstr(hmc_str(line));
    hmc_settings[hmc_nsettings].value = hmc_cstr(hmc_str(eq + 1));
    hmc_nsettings++;
}


static void
hmc_conf_load(void)
{
    FILE    *f;
    char    *line, path[4096];
    size_t   size;

    hmc_nsettings = 0;
    line = NULL;
    size = 0;

    snprintf(path, sizeof(path), "%s/env", hmc_home());

    f = fopen(path, "r");
    if (f == NULL) {
        return;
    }

    while (getline(&line, &size, f) >= 0) {
        hmc_conf_line(line);
    }

    free(line);
    fclose(f);
}


const char *
hmc_conf(const char *name)
{
    int          i;
    const char  *value;

    value = getenv(name);
    if (value != NULL && value[0] != '\0') {
        return value;
    }

    if (hmc_nsettings < 0) {
        hmc_conf_load();
    }

    /* the last line wins, as in a shell */
    for (i = hmc_nsettings - 1; i >= 0; i--) {
        if (strcmp(hmc_settings[i].name, name) == 0
            && hmc_settings[i].value[0] != '\0')
        {
            return hmc_settings[i].value;
        }
    }

    return NULL;
}
