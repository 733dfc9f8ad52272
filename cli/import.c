/*
 * import: a file of a person's health data, through the public API;
 * `import fhir`.
 *
 * The file is mapped and walked twice: once to its end, so that a broken one
 * is refused before anything was sent, and once to send.  Observations are
 * read one by one (fhir.c) and go out as NDJSON in parts of PART lines; a
 * part's memory is thrown away before the next one.
 *
 * The server dedupes by source and source_id, so every repeat is safe: a
 * part whose answer was lost is sent again, and a second run of the command
 * adds nothing.  429 and 503 are waited for as the server asks, an expired
 * token is a new login.  Everything else a server may say ends the command;
 * what was taken until then stays.
 *
 * Nothing of the data goes to standard error or into a message: faults name
 * the entry, the code of the observation and what is wrong, not its value.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "fhir.h"
#include "hm_json.h"
#include "hm_time.h"
#include "http.h"


#define HMC_PART           2000          /* lines of one request */
#define HMC_PART_BYTES     (4 * 1024 * 1024)
#define HMC_FAULTS         1000          /* listed; more are counted */
#define HMC_CODES          1000
#define HMC_TRIES          8             /* of one part */
#define HMC_WAIT_MAX       120           /* seconds, whatever is asked */
#define HMC_BATCH          "/api/v1/health-data/batch"


typedef struct {
    size_t         entry;
    const char    *code;
    char          *detail;
} hmc_import_fault_t;

typedef struct {
    const char    *code;                 /* NULL: no observation */
    const char    *display;
    const char    *why;
    size_t         count;
} hmc_import_code_t;

typedef struct {
    size_t         taken;
    size_t         duplicate;
    size_t         skipped;
    size_t         failed;
    size_t         rounded;
    size_t         nfaults;
    size_t         ncodes;
    hmc_import_fault_t  faults[HMC_FAULTS];
    hmc_import_code_t   codes[HMC_CODES];
} hmc_tally_t;

typedef struct {
    const char    *user;
    bool           dry;
    bool           tty;
    hmc_http_t    *http;
    char          *password;
    char          *token;
    hmc_arena_t    arena;
    hm_buf_t       lines;
    size_t         nlines;
    size_t         entry[HMC_PART];      /* of each line */
    size_t         seen;
    size_t         total;
    time_t         told;
    hmc_tally_t    tally;
} hmc_import_t;


static int hmc_import_walk(hmc_import_t *im, hm_str_t text);
static int hmc_import_entry(hmc_import_t *im, const hmc_entry_t *entry);
static int hmc_import_flush(hmc_import_t *im);
static int hmc_import_send(hmc_import_t *im, hmc_answer_t *answer);
static int hmc_import_login(hmc_import_t *im);


static char *
hmc_text(hm_str_t s)
{
    return s.data == NULL ? NULL : hmc_cstr(s);
}


static void
hmc_tally_fault(hmc_tally_t *t, size_t entry, const char *code,
    const char *detail)
{
    t->failed++;

    if (t->nfaults < HMC_FAULTS) {
        t->faults[t->nfaults].entry = entry;
        t->faults[t->nfaults].code = hmc_cstr(hmc_str(code));
        t->faults[t->nfaults].detail = hmc_cstr(hmc_str(detail));
        t->nfaults++;
    }
}


static void
hmc_tally_skip(hmc_tally_t *t, hm_str_t code, hm_str_t display,
    const char *why)
{
    size_t              i;
    hmc_import_code_t  *row;

    t->skipped++;

    for (i = 0; i < t->ncodes; i++) {
        row = &t->codes[i];

        if ((row->code == NULL) == (code.data == NULL)
            && (row->code == NULL || hm_str_eq(hmc_str(row->code), code))
            && (row->code != NULL
                || hm_str_eq(hmc_str(row->display), display))
            && strcmp(row->why, why) == 0)
        {
            row->count++;
            return;
        }
    }

    if (t->ncodes < HMC_CODES) {
        row = &t->codes[t->ncodes++];
        row->code = hmc_text(code);
        row->display = hmc_text(display);
        row->why = why;
        row->count = 1;
    }
}


/* One line that is rewritten on a terminal; elsewhere one every 5 s. */
static void
hmc_import_progress(hmc_import_t *im)
{
    time_t  now;

    now = time(NULL);

    if (now - im->told < (im->tty ? 1 : 5)) {
        return;
    }

    im->told = now;

    fprintf(stderr, "%s%zu of %zu entries%s", im->tty ? "\r" : "", im->seen,
            im->total, im->tty ? "" : "\n");
    fflush(stderr);
}


static void
hmc_import_part(hmc_import_t *im)
{
    hmc_arena_reset(&im->arena);
    hm_buf_init(&im->lines, &im->arena.mem, 64 * 1024);
    im->nlines = 0;
}


static int
hmc_import_malformed(const hmc_bundle_t *b)
{
    return hmc_fail("the file is malformed at byte %zu (entry %zu): %s",
                    (size_t) (b->pos - b->start), b->index, b->reason);
}


static int
hmc_import_walk(hmc_import_t *im, hm_str_t text)
{
    int           rc;
    hm_rc_t       next;
    hmc_entry_t   entry;
    hmc_bundle_t  bundle;

    hmc_bundle_init(&bundle, text);

    while ((next = hmc_bundle_next(&bundle, &entry)) == HM_OK) { /* void */ }

    if (next == HM_ERROR) {
        return hmc_import_malformed(&bundle);
    }

    im->total = bundle.index;
    hmc_bundle_init(&bundle, text);
    hmc_import_part(im);

    while (hmc_bundle_next(&bundle, &entry) == HM_OK) {

        rc = hmc_import_entry(im, &entry);
        if (rc != HMC_DONE) {
            return rc;
        }

        im->seen++;
        hmc_import_progress(im);
    }

    rc = hmc_import_flush(im);

    if (im->tty) {
        fprintf(stderr, "\r%zu of %zu entries\n", im->seen, im->total);
    }

    return rc;
}


static int
hmc_import_entry(hmc_import_t *im, const hmc_entry_t *entry)
{
    json_t             *resource;
    hm_rc_t             rc;
    hm_str_t            reason;
    hmc_observation_t   o;

    if (!hm_str_eq(entry->type, HM_STR("Observation"))) {
        hmc_tally_skip(&im->tally, hm_null_str,
                       entry->type.len != 0 ? entry->type
                                            : HM_STR("no resource"),
                       "not an Observation");
        return HMC_DONE;
    }

    resource = hm_json_parse(entry->resource, &reason);
    if (resource == NULL) {
        char  *detail;

        detail = hmc_cstr(reason);
        hmc_tally_fault(&im->tally, entry->index, "request.malformed",
                        detail);
        free(detail);
        return HMC_DONE;
    }

    rc = hmc_observation_read(&im->arena.mem, resource, entry->url, &o);
    json_decref(resource);

    if (rc != HM_OK) {
        return hmc_fail("out of memory");
    }

    switch (o.verdict) {

    case HMC_SKIP:
        hmc_tally_skip(&im->tally, o.code, o.display, o.why);
        return HMC_DONE;

    case HMC_FAULTY:
        hmc_tally_fault(&im->tally, entry->index,
                        o.fault != NULL ? o.fault : "format", o.why);
        return HMC_DONE;

    case HMC_TAKE:
        break;
    }

    im->tally.rounded += o.rounded;
    im->entry[im->nlines++] = entry->index;
    hmc_observation_line(&im->lines, &o);

    if (im->lines.failed) {
        return hmc_fail("out of memory");
    }

    return im->nlines == HMC_PART || hm_buf_len(&im->lines) > HMC_PART_BYTES
           ? hmc_import_flush(im) : HMC_DONE;
}


/* What became of one line. */
static void
hmc_import_result(hmc_import_t *im, size_t n, json_t *result)
{
    json_t      *error;
    json_int_t   status;
    const char  *code, *detail;

    status = json_integer_value(json_object_get(result, "status"));

    if (status == 201) {
        im->tally.taken++;
        return;
    }

    if (status == 200) {
        im->tally.duplicate++;
        return;
    }

    error = json_array_get(json_object_get(result, "errors"), 0);
    code = json_string_value(json_object_get(error, "code"));

    if (code == NULL) {
        code = json_string_value(json_object_get(result, "code"));
    }

    detail = json_string_value(json_object_get(error, "detail"));

    hmc_tally_fault(&im->tally, im->entry[n],
                    code != NULL ? code : "server.error",
                    detail != NULL ? detail : "the server refused it");
}


/* The answer is NDJSON: a result a line, then a line with the totals. */
static int
hmc_import_results(hmc_import_t *im, hm_str_t body)
{
    size_t          n;
    json_t         *result, *index;
    hm_str_t        line, reason;
    unsigned char  *lf, *end;

    n = 0;
    end = body.data + body.len;

    while (body.len != 0) {
        lf = memchr(body.data, '\n', body.len);

        line.data = body.data;
        line.len = (size_t) ((lf != NULL ? lf : end) - body.data);
        body.data = lf != NULL ? lf + 1 : end;
        body.len = (size_t) (end - body.data);

        if (line.len == 0) {
            continue;
        }

        result = hm_json_parse(line, &reason);
        if (result == NULL) {
            return hmc_fail("the server's answer is not JSON");
        }

        index = json_object_get(result, "index");

        if (json_is_integer(index)) {
            if (json_integer_value(index) < 0
                || (size_t) json_integer_value(index) >= im->nlines)
            {
                json_decref(result);
                return hmc_fail("the server answers for a line that was not "
                                "sent");
            }

            hmc_import_result(im, (size_t) json_integer_value(index), result);
            n++;
        }

        json_decref(result);
    }

    if (n != im->nlines) {
        return hmc_fail("the server answered %zu of %zu lines: run it again",
                        n, im->nlines);
    }

    return HMC_DONE;
}


static int
hmc_import_flush(hmc_import_t *im)
{
    int           rc;
    hmc_answer_t  answer;

    rc = HMC_DONE;

    if (im->nlines != 0 && im->dry) {
        im->tally.taken += im->nlines;

    } else if (im->nlines != 0) {
        rc = hmc_import_send(im, &answer);

        if (rc == HMC_DONE) {
            rc = hmc_import_results(im, answer.body);
        }
    }

    hmc_import_part(im);

    return rc;
}


/* "code" of a problem document; empty if the body is none. */
static void
hmc_problem_code(hm_str_t body, char *code, size_t size)
{
    json_t      *problem;
    hm_str_t     reason;
    const char  *text;

    code[0] = '\0';

    problem = body.len != 0 ? hm_json_parse(body, &reason) : NULL;
    text = json_string_value(json_object_get(problem, "code"));

    if (text != NULL) {
        snprintf(code, size, "%s", text);
    }

    json_decref(problem);
}


static void
hmc_import_wait(hmc_import_t *im, const hmc_answer_t *answer, unsigned tries)
{
    long  seconds;

    seconds = answer->retry_after > 0 ? answer->retry_after
                                      : 1L << (tries < 6 ? tries : 6);

    if (seconds > HMC_WAIT_MAX) {
        seconds = HMC_WAIT_MAX;
    }

    if (seconds > 2) {
        fprintf(stderr, "%swaiting %ld s, as the server asks\n",
                im->tty ? "\r" : "", seconds);
    }

    sleep((unsigned) seconds);
}


/* 429: a limit is no failure, it is waited for without counting tries. */
static int
hmc_import_send(hmc_import_t *im, hmc_answer_t *answer)
{
    int       rc;
    char      code[128];
    bool      again;
    hm_rc_t   sent;
    hm_str_t  body;
    unsigned  tries;

    body.data = im->lines.start;
    body.len = hm_buf_len(&im->lines);
    again = false;

    for (tries = 0; tries < HMC_TRIES; /* void */) {

        sent = hmc_http(im->http, "POST", HMC_BATCH, im->token,
                        "application/x-ndjson", body, 600, answer);

        if (sent == HM_OK && answer->status == 200) {
            return HMC_DONE;
        }

        if (sent == HM_OK && answer->status == 401 && !again) {
            again = true;

            rc = hmc_import_login(im);
            if (rc != HMC_DONE) {
                return rc;
            }

            continue;
        }

        if (sent == HM_OK && answer->status != 429 && answer->status != 503) {
            hmc_problem_code(answer->body, code, sizeof(code));
            return hmc_fail("the server refused a part: %ld %s",
                            answer->status, code);
        }

        tries += sent != HM_OK || answer->status != 429;

        if (tries < HMC_TRIES) {
            hmc_import_wait(im, answer, tries);
        }
    }

    return sent != HM_OK
           ? hmc_fail("%s", answer->error)
           : hmc_fail("the server stays unavailable: %ld; run it again "
                      "later, nothing is taken twice", answer->status);
}


static hm_str_t
hmc_login_body(hmc_import_t *im, const char *otp, bool plain)
{
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, 512);

    hm_buf_lit(&b, "{\"email\":");
    hm_json_text(&b, hmc_str(im->user));
    hm_buf_lit(&b, ",\"password\":");
    hm_json_text(&b, hmc_str(im->password));

    if (otp != NULL) {
        hm_buf_lit(&b, ",\"otp\":");
        hm_json_text(&b, hmc_str(otp));
    }

    /* a cookie that needs TLS cannot come back over plain HTTP */
    if (plain) {
        hm_buf_lit(&b, ",\"fingerprint\":false");
    }

    hm_buf_lit(&b, "}");

    return b.failed ? hm_null_str : (hm_str_t) { hm_buf_len(&b), b.start };
}


static int
hmc_import_token(hmc_import_t *im, hm_str_t body)
{
    json_t      *session;
    hm_str_t     reason;
    const char  *token;

    session = hm_json_parse(body, &reason);
    token = json_string_value(json_object_get(session, "access_token"));

    free(im->token);
    im->token = token != NULL ? strdup(token) : NULL;

    json_decref(session);

    return im->token != NULL ? HMC_DONE
           : hmc_fail("the server's answer to the login has no token");
}


static int
hmc_import_login(hmc_import_t *im)
{
    char           code[128];
    bool           plain, asked;
    hm_rc_t        sent;
    hm_str_t       body;
    unsigned       tries;
    const char    *otp;
    hmc_answer_t   answer;

    plain = strncmp(hmc_http_base(), "https:", 6) != 0;
    otp = getenv("HEALTHMATE_OTP");
    asked = false;

    for (tries = 0; tries < HMC_TRIES; tries++) {
        body = hmc_login_body(im, otp, plain);
        if (body.data == NULL) {
            return hmc_fail("out of memory");
        }

        sent = hmc_http(im->http, "POST", "/api/v1/auth/login", NULL,
                        "application/json", body, 60, &answer);
        hm_wipe(body.data, body.len);

        if (sent != HM_OK) {
            return hmc_fail("%s", answer.error);
        }

        if (answer.status == 200) {
            return hmc_import_token(im, answer.body);
        }

        hmc_problem_code(answer.body, code, sizeof(code));

        if (strcmp(code, "auth.mfa_required") == 0 && !asked
            && isatty(STDIN_FILENO))
        {
            asked = true;
            otp = hmc_secret("HEALTHMATE_OTP", "One-time code", false);

            if (otp == NULL) {
                return HMC_FAILED;
            }

        } else if (answer.status == 503
                   || strcmp(code, "rate.limited") == 0)
        {
            hmc_import_wait(im, &answer, tries);

        } else {
            return hmc_fail("cannot log in as %s: %ld %s", im->user,
                            answer.status, code);
        }
    }

    return hmc_fail("cannot log in: the server stays unavailable");
}


static void
hmc_tally_json(const hmc_tally_t *t, bool dry)
{
    size_t    i;
    hm_buf_t  b;

    hm_buf_init(&b, &hm_heap, 4096);
    hm_buf_printf(&b, "{\"taken\":%zu,\"duplicate\":%zu,\"skipped\":%zu,"
                  "\"failed\":%zu,\"rounded\":%zu,\"dry_run\":%s,"
                  "\"faults\":[", t->taken, t->duplicate, t->skipped,
                  t->failed, t->rounded, dry ? "true" : "false");

    for (i = 0; i < t->nfaults; i++) {
        hm_buf_printf(&b, "%s{\"entry\":%zu,\"code\":", i != 0 ? "," : "",
                      t->faults[i].entry);
        hm_json_text(&b, hmc_str(t->faults[i].code));
        hm_buf_lit(&b, ",\"detail\":");
        hm_json_text(&b, hmc_str(t->faults[i].detail));
        hm_buf_lit(&b, "}");
    }

    hm_buf_lit(&b, "],\"codes\":[");

    for (i = 0; i < t->ncodes; i++) {
        hm_buf_printf(&b, "%s{\"code\":", i != 0 ? "," : "");
        hm_json_text_or_null(&b, hmc_str(t->codes[i].code));
        hm_buf_lit(&b, ",\"display\":");
        hm_json_text_or_null(&b, hmc_str(t->codes[i].display));
        hm_buf_printf(&b, ",\"count\":%zu,\"why\":", t->codes[i].count);
        hm_json_text(&b, hmc_str(t->codes[i].why));
        hm_buf_lit(&b, "}");
    }

    hm_buf_lit(&b, "]}");

    if (!b.failed) {
        printf("%.*s\n", (int) hm_buf_len(&b), b.start);
    }
}


static void
hmc_tally_text(const hmc_tally_t *t, bool dry)
{
    size_t                     i;
    const hmc_import_code_t   *c;
    const hmc_import_fault_t  *f;

    printf("%s%zu taken, %zu duplicate, %zu skipped, %zu failed",
           dry ? "dry run, nothing was sent: " : "", t->taken, t->duplicate,
           t->skipped, t->failed);

    if (t->rounded != 0) {
        printf(", %zu rounded to whole numbers", t->rounded);
    }

    putchar('\n');

    /* observations by their code, then whatever else was in the file */
    for (i = 0; i < 2 * t->ncodes; i++) {
        c = &t->codes[i % t->ncodes];

        if ((i < t->ncodes) == (c->code != NULL)) {
            printf("  skipped %5zu  %-10s %s: %s\n", c->count,
                   c->code != NULL ? c->code : "-",
                   c->display != NULL ? c->display : "(no name)", c->why);
        }
    }

    for (i = 0; i < t->nfaults; i++) {
        f = &t->faults[i];
        printf("  failed  entry %zu: %s: %s\n", f->entry, f->code, f->detail);
    }

    if (t->failed > t->nfaults) {
        printf("  failed  and %zu more\n", t->failed - t->nfaults);
    }
}


static int
hmc_import_map(const char *path, hm_str_t *text)
{
    int           fd;
    struct stat   st;

    fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        return hmc_fail("%s: %s", path, strerror(errno));
    }

    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return hmc_fail("%s is no regular file", path);
    }

    if (st.st_size == 0) {
        close(fd);
        return hmc_fail("%s is empty", path);
    }

    text->len = (size_t) st.st_size;
    text->data = mmap(NULL, text->len, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);

    if (text->data == MAP_FAILED) {
        return hmc_fail("%s: %s", path, strerror(errno));
    }

    madvise(text->data, text->len, MADV_SEQUENTIAL);

    return HMC_DONE;
}


static int
hmc_import_connect(hmc_import_t *im)
{
    const char  *base;

    base = hmc_http_base();
    if (base == NULL) {
        return hmc_fail("no address of a server: set HEALTHMATE_URL, or "
                        "HEALTHMATE_HOME to a running stack");
    }

    im->password = hmc_secret("HEALTHMATE_PASSWORD", "Password", false);
    if (im->password == NULL) {
        return HMC_FAILED;
    }

    im->http = hmc_http_open(base);
    if (im->http == NULL) {
        return hmc_fail("out of memory");
    }

    return hmc_import_login(im);
}


int
hmc_import_fhir(int argc, char **argv)
{
    int                   rc;
    bool                  json;
    hm_str_t              text;
    const char           *file;
    static hmc_import_t   im;

    const hmc_option_t  options[] = {
        { "--user", &im.user, NULL },
        { "--json", NULL, &json },
        { "--dry-run", NULL, &im.dry },
        { NULL, NULL, NULL }
    };

    file = NULL;
    json = false;

    if (hmc_options(argc, argv, options, &file, 1) != HMC_DONE) {
        return HMC_USAGE;
    }

    if (file == NULL) {
        return hmc_usage("which FILE?");
    }

    if (im.user == NULL) {
        return hmc_usage("--user is needed: whose data is it?");
    }

    hmc_arena_init(&im.arena);
    im.tty = isatty(STDERR_FILENO);
    im.told = time(NULL);

    rc = hmc_import_map(file, &text);

    if (rc == HMC_DONE && !im.dry) {
        rc = hmc_import_connect(&im);
    }

    if (rc == HMC_DONE) {
        rc = hmc_import_walk(&im, text);
    }

    /* what was taken before a failure stays, so it is told */
    if (rc == HMC_DONE || im.tally.taken + im.tally.duplicate != 0) {
        if (json) {
            hmc_tally_json(&im.tally, im.dry);

        } else {
            hmc_tally_text(&im.tally, im.dry);
        }
    }

    if (im.http != NULL) {
        hmc_http_close(im.http);
    }

    return rc;
}
