/*
 * crypto_test: known vectors, and everything that must not open.
 *
 * An envelope is opened with OpenSSL's plain GCM and an AAD written out byte
 * by byte, so a change of layout or AAD shows here, not when old rows no
 * longer open.  Refusals are counted, not sampled: every bit of an
 * envelope, every field of a place.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "hm_crypto.h"
#include "hm_text.h"


static const unsigned char  key_a[HM_KEY_LEN] =
    "0123456789abcdef0123456789abcde";
static const unsigned char  key_b[HM_KEY_LEN] =
    "0123456789abcdef0123456789abcdE";

static const hm_place_t  place = {
    "health_data", "value",
    { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
    { { 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1 } }
};


static void
same_hex(const unsigned char *data, size_t len, const char *hex)
{
    char  out[257];

    assert_true(len <= 128);
    hm_hex(out, data, len);
    out[2 * len] = '\0';
    assert_string_equal(out, hex);
}


static void
test_hmac(void **state)
{
    unsigned char  out[32], key[131], data[50];

    /* RFC 4231, cases 1, 2, 3, 6 */

    memset(key, 0x0b, 20);
    assert_int_equal(hm_hmac(out, key, 20, "Hi There", 8), HM_OK);
    same_hex(out, 32, "b0344c61d8db38535ca8afceaf0bf12b"
                      "881dc200c9833da726e9376c2e32cff7");

    assert_int_equal(hm_hmac(out, (const unsigned char *) "Jefe", 4,
                             "what do ya want for nothing?", 28), HM_OK);
    same_hex(out, 32, "5bdcc146bf60754e6a042426089575c7"
                      "5a003f089d2739839dec58b964ec3843");

    memset(key, 0xaa, 20);
    memset(data, 0xdd, 50);
    assert_int_equal(hm_hmac(out, key, 20, data, 50), HM_OK);
    same_hex(out, 32, "773ea91e36800e46854db8ebd09181a7"
                      "2959098b3ef8c122d9635514ced565fe");

    memset(key, 0xaa, 131);
    assert_int_equal(hm_hmac(out, key, 131, "Test Using Larger Than "
                             "Block-Size Key - Hash Key First", 54), HM_OK);
    same_hex(out, 32, "60e431591ee0b67f0d8a26aacbf5b77f"
                      "8e0bc6213728c5140546040f0ee37f54");

    assert_int_equal(hm_sha256(out, "abc", 3), HM_OK);
    same_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223"
                      "b00361a396177a9cb410ff61f20015ad");

    assert_int_equal(hm_sha256(out, NULL, 0), HM_OK);
    same_hex(out, 32, "e3b0c44298fc1c149afbf4c8996fb924"
                      "27ae41e4649b934ca495991b7852b855");
}


/* The written form, read with nothing of ours: only EVP. */

static void
test_envelope_form(void **state)
{
    int              n, m;
    size_t           len, at;
    unsigned char    out[128], aad[128], plain[64];
    EVP_CIPHER_CTX  *ctx;

    assert_int_equal(hm_seal(out, &len, key_a, 7, &place, HM_STR("72.5")),
                     HM_OK);
    assert_int_equal(len, 17 + 16 + 16);
    assert_int_equal(len, hm_sealed_len(4));
    same_hex(out, 5, "0100000007");

    at = 0;
    memcpy(aad, "\x01\0\0\0\x07\x0bhealth_data\x05value", 23);
    at = 23;
    memcpy(aad + at, place.row.b, 16);
    memcpy(aad + at + 16, place.owner.b, 16);
    at += 32;

    ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key_a,
                                        out + 5), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, NULL, &n, aad, (int) at), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, plain, &n, out + 17, 16), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, 16,
                                         out + 33), 1);
    assert_int_equal(EVP_DecryptFinal_ex(ctx, plain + n, &m), 1);
    assert_memory_equal(plain, "72.5            ", 16);
    EVP_CIPHER_CTX_free(ctx);
}


static void
test_round_trip(void **state)
{
    size_t          n, len;
    hm_str_t        json, text;
    unsigned char   in[600], out[700], back[700];

    memset(in, 'x', sizeof(in));

    for (n = 1; n < sizeof(in); n++) {
        text.data = in;
        text.len = n;

        assert_int_equal(hm_seal(out, &len, n % 3 ? key_a : key_b, 1, &place,
                                 text), HM_OK);
        assert_int_equal(len, hm_sealed_len(n));
        assert_int_equal((len - HM_ENVELOPE_OVER) % 16, 0);
        assert_int_equal(hm_envelope_version((hm_str_t) { len, out }), 1);

        assert_int_equal(hm_open(back, &json, n % 3 ? key_a : key_b, 1,
                                 &place, (hm_str_t) { len, out }), HM_OK);
        assert_int_equal(json.len, n);
        assert_memory_equal(json.data, in, n);
    }

    /* what cannot be: nothing to seal, no version, a name too long */

    text.len = 0;
    assert_int_equal(hm_seal(out, &len, key_a, 1, &place, text), HM_ERROR);
    text.len = 1;
    assert_int_equal(hm_seal(out, &len, key_a, 0, &place, text), HM_ERROR);
    assert_int_equal(len, 0);
}


static void
refused(const unsigned char *key, uint32_t version, const hm_place_t *at,
    hm_str_t env)
{
    size_t         i;
    hm_str_t       json;
    unsigned char  out[512];

    memset(out, 0x55, sizeof(out));
    assert_int_equal(hm_open(out, &json, key, version, at, env), HM_DECLINED);
    assert_null(json.data);
    assert_int_equal(json.len, 0);
    assert_int_equal(ERR_peek_error(), 0);

    /* nothing of the text may be left behind */
    for (i = 0; i + 4 <= sizeof(out); i++) {
        assert_memory_not_equal(out + i, "yyyy", 4);
    }
}


static void
test_moved(void **state)
{
    size_t          len;
    hm_str_t        env, json;
    hm_place_t      at;
    unsigned char   out[256], back[256];

    assert_int_equal(hm_seal(out, &len, key_a, 3, &place,
                             HM_STR("\"yyyyyyyyyyyyyyyyyyyyyyyy\"")), HM_OK);
    env.data = out;
    env.len = len;

    refused(key_b, 3, &place, env);
    refused(key_a, 2, &place, env);
    refused(key_a, 4, &place, env);
    refused(key_a, 0, &place, env);

    at = place;
    at.row.b[15] ^= 1;
    refused(key_a, 3, &at, env);

    at = place;
    at.owner.b[0] ^= 1;
    refused(key_a, 3, &at, env);

    at = place;
    at.column = "notes";
    refused(key_a, 3, &at, env);

    at = place;
    at.table = "health_datb";
    refused(key_a, 3, &at, env);

    /* the border between table and column is part of it */
    at = place;
    at.table = "health_datav";
    at.column = "alue";
    refused(key_a, 3, &at, env);

    /* row and owner may not change places */
    at = place;
    at.row = place.owner;
    at.owner = place.row;
    refused(key_a, 3, &at, env);

    /* the version in the head is bound, not only compared */
    out[4] = 4;
    refused(key_a, 4, &place, env);
    out[4] = 3;

    /* and it still opens */
    assert_int_equal(hm_open(back, &json, key_a, 3, &place, env), HM_OK);
    assert_int_equal(json.len, 26);
}


static void
test_every_bit(void **state)
{
    size_t          len, bit, cut;
    hm_str_t        env, text;
    unsigned char   in[167], out[256];

    memset(in, 'y', sizeof(in));
    text.data = in;
    text.len = 167 - 7;

    assert_int_equal(hm_seal(out, &len, key_a, 9, &place, text), HM_OK);
    assert_true(len >= 193);
    env.data = out;
    env.len = len;

    for (bit = 0; bit < len * 8; bit++) {
        out[bit / 8] ^= (unsigned char) (1 << bit % 8);
        refused(key_a, 9, &place, env);
        out[bit / 8] ^= (unsigned char) (1 << bit % 8);
    }

    for (cut = 0; cut < len; cut++) {
        env.len = cut;
        refused(key_a, 9, &place, env);
    }

    env.len = len + 16;
    refused(key_a, 9, &place, env);
}


static int
by_nonce(const void *a, const void *b)
{
    return memcmp(a, b, 12);
}


/*
 * A million nonces of a parent and two children, forked in the middle of a
 * buffer: the children start with what the parent had left, unless the fork
 * wiped it.
 */

static void
test_nonces(void **state)
{
    int             status, c;
    pid_t           pid;
    size_t          i, n, each, len;
    unsigned char  *all, *p, env[64];

    each = 340000;
    n = 3 * each;

    all = mmap(NULL, n * 12, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(all != MAP_FAILED);

    assert_int_equal(hm_seal(env, &len, key_a, 1, &place, HM_STR("1")), HM_OK);

    for (c = 0; c < 3; c++) {
        p = all + (size_t) c * each * 12;
        pid = c == 2 ? 0 : fork();
        assert_true(pid >= 0);

        if (pid != 0) {
            continue;
        }

        for (i = 0; i < each; i++) {
            if (hm_seal(env, &len, key_a, 1, &place, HM_STR("1")) != HM_OK) {
                _exit(1);
            }

            memcpy(p + i * 12, env + 5, 12);
        }

        if (c != 2) {
            _exit(0);
        }
    }

    for (c = 0; c < 2; c++) {
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }

    qsort(all, n, 12, by_nonce);

    for (i = 1; i < n; i++) {
        assert_true(memcmp(all + (i - 1) * 12, all + i * 12, 12) != 0);
    }

    munmap(all, n * 12);
}


/* A child must re-key: the copies of the last keys are gone with the fork. */

static void
test_fork_opens(void **state)
{
    int             status;
    pid_t           pid;
    size_t          len;
    hm_str_t        json;
    unsigned char   env[64], back[64];

    assert_int_equal(hm_seal(env, &len, key_a, 1, &place, HM_STR("1")), HM_OK);

    pid = fork();
    assert_true(pid >= 0);

    if (pid == 0) {
        _exit(hm_open(back, &json, key_a, 1, &place,
                      (hm_str_t) { len, env }) != HM_OK
              || hm_seal(env, &len, key_b, 1, &place, HM_STR("2")) != HM_OK
              || hm_open(back, &json, key_b, 1, &place,
                         (hm_str_t) { len, env }) != HM_OK
              || back[0] != '2');
    }

    assert_true(wait(&status) == pid);
    assert_int_equal(status, 0);
}


static void
test_wrap(void **state)
{
    size_t          bit;
    hm_str_t        w;
    hm_uuid_t       other;
    unsigned char   out[HM_WRAPPED_LEN], key[HM_KEY_LEN];
    unsigned char   commit[HM_COMMIT_LEN], commit_b[HM_COMMIT_LEN];

    w.data = out;
    w.len = sizeof(out);

    assert_int_equal(hm_wrap(out, key_a, 5, "dek", 2, &place.owner, key_b),
                     HM_OK);
    same_hex(out, 5, "0100000005");
    assert_int_equal(hm_unwrap(key, key_a, "dek", 2, &place.owner, w), HM_OK);
    assert_memory_equal(key, key_b, HM_KEY_LEN);

    other = place.owner;
    other.b[3] ^= 1;

    assert_int_equal(hm_unwrap(key, key_b, "dek", 2, &place.owner, w),
                     HM_DECLINED);
    assert_int_equal(hm_unwrap(key, key_a, "index", 2, &place.owner, w),
                     HM_DECLINED);
    assert_int_equal(hm_unwrap(key, key_a, "dek", 1, &place.owner, w),
                     HM_DECLINED);
    assert_int_equal(hm_unwrap(key, key_a, "dek", 2, &other, w), HM_DECLINED);

    for (bit = 0; bit < sizeof(out) * 8; bit++) {
        out[bit / 8] ^= (unsigned char) (1 << bit % 8);
        assert_int_equal(hm_unwrap(key, key_a, "dek", 2, &place.owner, w),
                         HM_DECLINED);
        out[bit / 8] ^= (unsigned char) (1 << bit % 8);
    }

    w.len--;
    assert_int_equal(hm_unwrap(key, key_a, "dek", 2, &place.owner, w),
                     HM_DECLINED);

    assert_int_equal(hm_commitment(commit, key_a), HM_OK);
    assert_int_equal(hm_commitment(commit_b, key_b), HM_OK);
    assert_memory_not_equal(commit, commit_b, HM_COMMIT_LEN);
}


static void
test_blind_index(void **state)
{
    unsigned char  want[32], got[32], text[64];

    memcpy(text, "\x05users\x05" "email", 12);
    memcpy(text + 12, place.owner.b, 16);
    memcpy(text + 28, "a@b.de", 6);

    assert_int_equal(hm_hmac(want, key_a, 32, text, 34), HM_OK);
    assert_int_equal(hm_blind_index(got, key_a, "users", "email",
                                    &place.owner, HM_STR("a@b.de")), HM_OK);
    assert_memory_equal(want, got, 32);

    assert_int_equal(hm_blind_index(got, key_b, "users", "email",
                                    &place.owner, HM_STR("a@b.de")), HM_OK);
    assert_memory_not_equal(want, got, 32);
    assert_int_equal(hm_blind_index(got, key_a, "users", "email",
                                    &place.row, HM_STR("a@b.de")), HM_OK);
    assert_memory_not_equal(want, got, 32);
    assert_int_equal(hm_blind_index(got, key_a, "userse", "mail",
                                    &place.owner, HM_STR("a@b.de")), HM_OK);
    assert_memory_not_equal(want, got, 32);
}


static void
test_random(void **state)
{
    size_t         i, n;
    unsigned char  a[64], b[64];

    /* both roads: the buffer and OpenSSL itself */

    for (n = 8; n <= 64; n++) {
        assert_int_equal(hm_random(a, n), HM_OK);
        assert_int_equal(hm_random(b, n), HM_OK);
        assert_memory_not_equal(a, b, n);
    }

    assert_true(hm_equal_ct(a, a, 64));
    assert_false(hm_equal_ct(a, b, 64));

    hm_wipe(a, 64);

    for (i = 0; i < 64; i++) {
        assert_int_equal(a[i], 0);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_hmac),
        cmocka_unit_test(test_envelope_form),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_nonces),
        cmocka_unit_test(test_fork_opens),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_blind_index),
        cmocka_unit_test(test_random)
    };

    if (hm_crypto_init() != HM_OK) {
        return 1;
    }

    return cmocka_run_group_tests_name("crypto", tests, NULL, NULL);
}
