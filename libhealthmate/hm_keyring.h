/*
 * hm_keyring: the KEKs of the deployment and a bounded cache of the keys of
 * people, all in memory that is locked, kept out of core dumps and wiped in
 * a child (mmap + mlock + MADV_DONTDUMP; the cache also MADV_WIPEONFORK).
 *
 * KEK file: one line per version, "<version> <64 hex digits>", '#' comments;
 * the highest version wraps, all unwrap.  A file that others than its owner
 * and group can read is refused.
 *
 * The cache keeps nothing over 60 s.  What a caller gets is a pointer that
 * is valid until it returns to its event loop: never keep it.
 */

#ifndef HM_KEYRING_H
#define HM_KEYRING_H

#include "hm.h"
#include "hm_crypto.h"

#define HM_KEY_VERSIONS     4            /* of one person, in the cache */
#define HM_KEY_TTL          (60 * 1000000LL)

typedef struct hm_kek_s      hm_kek_t;
typedef struct hm_keyring_s  hm_keyring_t;


typedef struct {
    hm_uuid_t       user;
    uint32_t        active;              /* version that seals; 0: none */
    unsigned        leaf;                /* partition of the person's rows */
    unsigned        nversions;
    uint32_t        version[HM_KEY_VERSIONS];
    unsigned char   dek[HM_KEY_VERSIONS][HM_KEY_LEN];
    unsigned char   index_key[HM_KEY_LEN];
    hm_usec_t       loaded;              /* monotonic or wall: the caller's */
} hm_user_keys_t;


/* path of the KEK file; *reason is one line for the operator. */
hm_kek_t *hm_kek_load(const char *path, char reason[256]);
void hm_kek_free(hm_kek_t *kek);
uint32_t hm_kek_current(const hm_kek_t *kek);

hm_rc_t hm_kek_wrap(const hm_kek_t *kek, unsigned char out[HM_WRAPPED_LEN],
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner,
    const unsigned char key[HM_KEY_LEN]);
hm_rc_t hm_kek_unwrap(const hm_kek_t *kek, unsigned char key[HM_KEY_LEN],
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner,
    hm_str_t wrapped);

hm_keyring_t *hm_keyring_create(size_t entries);
void hm_keyring_destroy(hm_keyring_t *ring);
hm_user_keys_t *hm_keyring_get(hm_keyring_t *ring, const hm_uuid_t *user,
    hm_usec_t now);                      /* NULL: absent or too old */
/* What a get at `at` found, or its successor: for the rest of a turn. */
hm_user_keys_t *hm_keyring_since(hm_keyring_t *ring, const hm_uuid_t *user,
    hm_usec_t at);
hm_user_keys_t *hm_keyring_put(hm_keyring_t *ring,
    const hm_user_keys_t *keys);         /* evicts the oldest when full */
void hm_keyring_drop(hm_keyring_t *ring, const hm_uuid_t *user);
void hm_keyring_drop_all(hm_keyring_t *ring);
void hm_keyring_drop_before(hm_keyring_t *ring, hm_usec_t loaded);

/* The DEK of one version of a cached person; NULL: not among them. */
const unsigned char *hm_keys_dek(const hm_user_keys_t *keys,
    uint32_t version);

/* Locked memory for other secrets; never freed piece by piece. */
void *hm_locked_alloc(size_t size);
void hm_locked_free(void *p, size_t size);

/* false: an mlock has failed in this process (RLIMIT_MEMLOCK): tell it. */
bool hm_keyring_locked(void);

#endif
