/*
 * Mail without a server: the table of templates, one message, the texts that
 * steer a job, and what the configuration refuses.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../worker/mail_text.c"
#include "../../worker/mail_conf.c"
#include "../../worker/ukey.c"


#define USER   "0190a5e2-7c00-7000-8000-00000000abcd"


static hm_str_t
text_of(const char *s)
{
    return (hm_str_t) { strlen(s), (unsigned char *) s };
}


static void
test_templates(void **state)
{
    const char            *p;
    const hmw_template_t  *t, *u;

    for (t = hmw_templates; t->name != NULL; t++) {

        assert_ptr_equal(hmw_template(text_of(t->name)), t);
        assert_true((t->purpose != NULL) == (t->life > 0));
        assert_int_equal(t->page[0], '/');
        assert_true(strlen(t->title) < 60);

        for (u = t + 1; u->name != NULL; u++) {
            assert_string_not_equal(t->name, u->name);
        }

        for (p = t->text; *p != '\0'; p++) {
            assert_true(*p == '\n' || (*p >= ' ' && *p < 0x7f));
        }

        for (p = t->text; *p != '\0'; p += strcspn(p, "\n"), p += *p != 0) {
            assert_true(strcspn(p, "\n") < 76);
        }
    }

    assert_null(hmw_template(text_of("")));
    assert_null(hmw_template(text_of("rese")));
    assert_null(hmw_template(text_of("resets")));
}


static void
test_message(void **state)
{
    hm_buf_t       b;
    char          *line, *next;
    hmw_mail_t     m;

    memset(&m, 0, sizeof(m));
    m.template = hmw_template(text_of("reset"));
    m.to = text_of("ann@example.org");
    m.from = "no-reply@example.net";
    m.url = "https://health.example.org";
    m.token = "hmt1.AAAA";
    m.id = USER;
    m.now = 951782400 * HM_USEC;         /* a leap day */

    hm_buf_init(&b, &hm_heap, 4096);
    hmw_mail_message(&b, &m);
    hm_buf_lit(&b, "\0");
    assert_false(b.failed);

    line = (char *) b.start;

    assert_non_null(strstr(line, "Date: Tue, 29 Feb 2000 00:00:00 +0000\r\n"));
    assert_non_null(strstr(line, "\r\nTo: <ann@example.org>\r\n"));
    assert_non_null(strstr(line, "\r\nMessage-ID: <" USER "@example.net>"));
    assert_non_null(strstr(line, "\r\nhttps://health.example.org"
                                 "/reset-password#hmt1.AAAA\r\n"));

    for ( ; (next = strstr(line, "\r\n")) != NULL; line = next + 2) {
        assert_true(next - line < 120);
        assert_null(memchr(line, '\n', (size_t) (next - line)));
    }

    free(b.start);
}


static void
test_keys(void **state)
{
    size_t                  i;
    char                    id[HM_UUID_TEXT + 1];
    const hmw_template_t   *t;

    static const char *const  bad[] = {
        "", "mail:", "mail:reset", "mail:reset:", "mail:reset:" USER "x",
        "mail:reset:0190A5E2-7c00-7000-8000-00000000abcd", "mail:reset" USER,
        "Mail:reset:" USER, ":reset:" USER, "mail::" USER "0"
    };

    assert_int_equal(hmw_mail_key(&t, id, text_of("mail:reset:" USER)),
                     HM_OK);
    assert_string_equal(t->name, "reset");
    assert_string_equal(id, USER);
    assert_int_equal(hmw_mail_key(&t, id, text_of("mail:gossip:" USER)),
                     HM_ERROR);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(hmw_mail_key(&t, id, text_of(bad[i])), HM_DECLINED);
    }

    assert_int_equal(hmw_request_key(id, text_of("request:" USER)), HM_OK);
    assert_string_equal(id, USER);
    assert_int_equal(hmw_request_key(id, text_of("request:" USER "0")),
                     HM_DECLINED);
    assert_int_equal(hmw_request_key(id, text_of("requests" USER)),
                     HM_DECLINED);
}


static void
test_address(void **state)
{
    size_t  i;

    static const char *const  good[] = {
        "a@b", "ann.o'neil+x@example.org", "\xc3\xa9va@ex\xc3\xa4mple.org"
    };
    static const char *const  bad[] = {
        "", "@", "a@", "@b", "ab", "a b@c", "a@b@c", "a@b\r\nBcc: x@y",
        "a@b>", "<a@b", "a@b,c@d", "\"a b\"@c", "a@b\n", "-f@b", "a@\x7f",
        "a@\xc3", "(x)a@b", "a;b@c", "a\\b@c"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(hmw_mail_address(text_of(good[i])));
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(hmw_mail_address(text_of(bad[i])));
    }

    assert_false(hmw_mail_address((hm_str_t) { 4, (void *) "a@\0b" }));
}


static void
test_token(void **state)
{
    char           one[HMW_MAIL_TOKEN + 1], two[HMW_MAIL_TOKEN + 1];
    size_t         len;
    unsigned char  raw[64], hash[32], again[32];

    assert_int_equal(hm_crypto_init(), HM_OK);
    assert_int_equal(hmw_mail_token(one, hash), HM_OK);
    assert_int_equal(strlen(one), HMW_MAIL_TOKEN);
    assert_memory_equal(one, "hmt1.", 5);

    assert_int_equal(hm_b64url_decode(raw, &len, text_of(one + 5)), HM_OK);
    assert_int_equal(len, HMW_MAIL_RANDOM);
    assert_int_equal(hm_sha256(again, raw, len), HM_OK);
    assert_memory_equal(hash, again, 32);

    assert_int_equal(hmw_mail_token(two, hash), HM_OK);
    assert_string_not_equal(one, two);
}


static void
environment(const char *const *vars)
{
    size_t  i;

    static const char *const  all[] = {
        "HEALTHMATE_MAIL", "HEALTHMATE_HOME", "HEALTHMATE_PUBLIC_URL",
        "SMTP_HOST", "SMTP_PORT", "SMTP_TLS", "SMTP_USER", "SMTP_PASSWORD",
        "SMTP_PASSWORD_FILE", "SMTP_FROM", "SMTP_CA_FILE"
    };

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        unsetenv(all[i]);
    }

    for (i = 0; vars[i] != NULL; i += 2) {
        setenv(vars[i], vars[i + 1], 1);
    }
}


#define SMTP     "HEALTHMATE_MAIL", "smtp", "SMTP_HOST", "mx.example.org"
#define SENDER   "SMTP_FROM", "no-reply@example.org"
#define PUBLIC   "HEALTHMATE_PUBLIC_URL", "https://health.example.org/"


static void
test_conf_good(void **state)
{
    char             reason[256];
    hmw_mail_conf_t  conf;

    environment((const char *const []) { NULL });
    assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_OK);
    assert_int_equal(conf.way, HMW_MAIL_OFF);

    environment((const char *const []) { SMTP, SENDER, PUBLIC,
                "SMTP_USER", "hm", "SMTP_PASSWORD", "sesame", NULL });
    assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_OK);
    assert_int_equal(conf.way, HMW_MAIL_SMTP);
    assert_int_equal(conf.tls, HMW_TLS_START);
    assert_int_equal(conf.port, 587);
    assert_string_equal(conf.url, "https://health.example.org");
    assert_string_equal(conf.password, "sesame");
    assert_null(getenv("SMTP_PASSWORD"));

    environment((const char *const []) { SMTP, SENDER, PUBLIC,
                "SMTP_TLS", "tls", NULL });
    assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_OK);
    assert_int_equal(conf.port, 465);

    environment((const char *const []) { "HEALTHMATE_MAIL", "smtp",
                "SMTP_HOST", "127.0.0.1", "SMTP_TLS", "off", "SMTP_PORT",
                "2525", SENDER, PUBLIC, NULL });
    assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_OK);
    assert_int_equal(conf.port, 2525);
}


static void
test_conf_bad(void **state)
{
    size_t           i;
    char             reason[256];
    hmw_mail_conf_t  conf;

    static const struct {
        const char         *says;
        const char *const   vars[20];
    } bad[] = {
        { "HEALTHMATE_MAIL", { "HEALTHMATE_MAIL", "post" } },
        { "HEALTHMATE_MAIL", { "HEALTHMATE_MAIL", "smtps://u:p@h" } },
        { "absolute", { "HEALTHMATE_MAIL", "outbox:mail" } },
        { "SMTP_HOST", { "HEALTHMATE_MAIL", "smtp", SENDER, PUBLIC } },
        { "SMTP_HOST", { "HEALTHMATE_MAIL", "smtp", "SMTP_HOST", "a/b",
                         SENDER, PUBLIC } },
        { "SMTP_FROM", { SMTP, PUBLIC } },
        { "SMTP_FROM", { SMTP, PUBLIC, "SMTP_FROM", "Us <a@b>" } },
        { "PUBLIC_URL", { SMTP, SENDER } },
        { "https", { SMTP, SENDER, "HEALTHMATE_PUBLIC_URL",
                     "http://health.example.org" } },
        { "https", { SMTP, SENDER, "HEALTHMATE_PUBLIC_URL",
                     "http://127.0.0.1.example.org" } },
        { "PUBLIC_URL", { SMTP, SENDER, "HEALTHMATE_PUBLIC_URL",
                          "https://h/?x=" } },
        { "loopback", { SMTP, SENDER, PUBLIC, "SMTP_TLS", "off" } },
        { "SMTP_TLS", { SMTP, SENDER, PUBLIC, "SMTP_TLS", "maybe" } },
        { "SMTP_PORT", { SMTP, SENDER, PUBLIC, "SMTP_PORT", "0" } },
        { "SMTP_PORT", { SMTP, SENDER, PUBLIC, "SMTP_PORT", "25x" } },
        { "go together", { SMTP, SENDER, PUBLIC, "SMTP_USER", "hm" } },
        { "go together", { SMTP, SENDER, PUBLIC, "SMTP_PASSWORD", "p" } },
        { "cannot be", { SMTP, SENDER, PUBLIC, "SMTP_USER", "hm",
                         "SMTP_PASSWORD_FILE", "/nonexistent" } },
        { "everyone", { SMTP, SENDER, PUBLIC, "SMTP_USER", "hm",
                        "SMTP_PASSWORD_FILE", "/etc/passwd" } },
        { "SMTP_CA_FILE", { SMTP, SENDER, PUBLIC, "SMTP_CA_FILE",
                            "/nonexistent" } },
        { "0700", { "HEALTHMATE_MAIL", "outbox:/usr/bin" } }
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        environment(bad[i].vars);
        assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_DECLINED);
        assert_non_null(strstr(reason, bad[i].says));
    }
}


static void
test_outbox(void **state)
{
    char             reason[256], where[64], what[80];
    struct stat      st;
    hmw_mail_conf_t  conf;

    snprintf(where, sizeof(where), "/tmp/hm-mail-%d", (int) getpid());
    snprintf(what, sizeof(what), "outbox:%s", where);

    environment((const char *const []) { "HEALTHMATE_MAIL", what, NULL });
    assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_OK);
    assert_int_equal(conf.way, HMW_MAIL_OUTBOX);
    assert_int_equal(stat(where, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    assert_int_equal(chmod(where, 0750), 0);
    assert_int_equal(hmw_mail_conf_read(&conf, reason), HM_DECLINED);
    assert_int_equal(rmdir(where), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_token),
        cmocka_unit_test(test_conf_good),
        cmocka_unit_test(test_conf_bad),
        cmocka_unit_test(test_outbox)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
