/*
 * hm_crypto: the envelope of every sealed value, and the few primitives
 * around it, on OpenSSL EVP with contexts kept per process.
 *
 * Envelope (rules.md 3):
 *
 *     01 | dek_version u32be | nonce 12 | ciphertext | tag 16
 *
 * AES-256-GCM under the owner's DEK.  AAD:
 *
 *     01 | dek_version u32be | u8 len, table | u8 len, column
 *        | row id 16 | owner id 16
 *
 * with logical names, so that a ciphertext moved to another row, column,
 * table, owner or version does not open.  The plaintext is UTF-8 JSON padded
 * with spaces to a multiple of 16 bytes, so that its length tells little.
 * Owner nil UUID means the system's DEK.
 *
 * Nonces are 96 random bits from a per-process buffer, filled after fork and
 * wiped on fork (MADV_WIPEONFORK).  A failure is HM_ERROR and leaves nothing
 * in the output: there is no path from a failed seal to a stored plaintext.
 */

#ifndef HM_CRYPTO_H
#define HM_CRYPTO_H

#include "hm.h"
#include "hm_buf.h"

#define HM_KEY_LEN          32
#define HM_ENVELOPE_HEAD    17           /* 1 + 4 + 12 */
#define HM_ENVELOPE_OVER    33           /* head + tag */
#define HM_WRAPPED_LEN      65           /* 1 + 4 + 12 + 32 + 16 */
#define HM_COMMIT_LEN       16


typedef struct {
    const char       *table;             /* logical, <= 63 bytes */
    const char       *column;
    hm_uuid_t         row;
    hm_uuid_t         owner;
} hm_place_t;


/* Call once in each process, after fork. */
hm_rc_t hm_crypto_init(void);

hm_rc_t hm_random(void *out, size_t len);
void hm_wipe(void *p, size_t len);
bool hm_equal_ct(const void *a, const void *b, size_t len);

hm_rc_t hm_hmac(unsigned char out[32], const unsigned char *key, size_t klen,
    const void *data, size_t len);
hm_rc_t hm_sha256(unsigned char out[32], const void *data, size_t len);

/*
 * Bytes of the envelope of len bytes of JSON.
 */
size_t hm_sealed_len(size_t len);

/* out must hold hm_sealed_len(json.len); *outlen is what was written. */
hm_rc_t hm_seal(unsigned char *out, size_t *outlen,
    const unsigned char dek[HM_KEY_LEN], uint32_t dek_version,
    const hm_place_t *place, hm_str_t json);

/*
 * out must hold env.len - HM_ENVELOPE_OVER bytes; json receives the text with
 * its padding cut.  HM_DECLINED when anything does not fit: form, version,
 * place, key, tag.
 */
hm_rc_t hm_open(unsigned char *out, hm_str_t *json,
    const unsigned char dek[HM_KEY_LEN], uint32_t dek_version,
    const hm_place_t *place, hm_str_t env);

/* Version in an envelope's head; 0 when it is none. */
uint32_t hm_envelope_version(hm_str_t env);

/*
 * A key wrapped by the KEK: 01 | kek_version u32be | nonce 12 | key 32 | tag
 * 16; AAD 01 | kek_version | u8 len, purpose | key version u32be | owner 16.
 * purpose is "dek" or "index".
 */
hm_rc_t hm_wrap(unsigned char out[HM_WRAPPED_LEN],
    const unsigned char kek[HM_KEY_LEN], uint32_t kek_version,
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner,
    const unsigned char key[HM_KEY_LEN]);
hm_rc_t hm_unwrap(unsigned char key[HM_KEY_LEN],
    const unsigned char kek[HM_KEY_LEN], const char *purpose,
    uint32_t key_version, const hm_uuid_t *owner, hm_str_t wrapped);

/* Key commitment: HMAC(key, "hm commit") cut to 16 bytes. */
hm_rc_t hm_commitment(unsigned char out[HM_COMMIT_LEN],
    const unsigned char key[HM_KEY_LEN]);

/*
 * Blind index: HMAC-SHA-256 over u8 len, table | u8 len, column | user id 16
 * | value.
 */
hm_rc_t hm_blind_index(unsigned char out[32],
    const unsigned char index_key[HM_KEY_LEN], const char *table,
    const char *column, const hm_uuid_t *user, hm_str_t value);

#endif
