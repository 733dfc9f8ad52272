/*
 * hm_keyring: the KEKs of the deployment, and the cache of people's keys.
 *
 * DESIGN.  The cache is one mapping of fixed size: a table of entries, an
 * open-addressing index of twice as many slots over it, and a list by age of
 * use.  Nothing is allocated after start, so a burst of people evicts, and
 * never grows.  References are entry numbers that begin with 1: a mapping of
 * zeros is therefore a valid empty cache.  That matters, because a child
 * process finds it so (MADV_WIPEONFORK), and goes on with an empty one.  Only
 * what never changes, its size, lies outside.
 *
 * An entry that leaves, by age, by eviction, by hm_keyring_drop or by being
 * overwritten, is wiped at that moment.  The index is probed linearly and
 * closed up on removal (no tombstones), so a look-up stays short for ever.
 *
 * The KEKs lie in locked memory too, but must survive a fork: the master of
 * nginx reads the file, which its workers may not.  A lock does not survive
 * it: mlock belongs to one process.  A failing mlock (RLIMIT_MEMLOCK) is no
 * reason to refuse service, but one to tell: hm_keyring_locked() is false
 * from then on.
 *
 * Reasons for a refused KEK file name the line, and never what stands in it.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hm_keyring.h"
#include "hm_text.h"


#define HM_KEK_VERSIONS    64
#define HM_KEK_FILE_MAX    (16 * 1024)
#define HM_KEY_SKEW        1000000LL     /* two clocks of one process */


struct hm_kek_s {
    unsigned            n;
    uint32_t            current;
    uint32_t            version[HM_KEK_VERSIONS];
    unsigned char       key[HM_KEK_VERSIONS][HM_KEY_LEN];
};


typedef struct {
    hm_user_keys_t      keys;
    uint32_t            newer;           /* in the list by use; 0: none */
    uint32_t            older;           /* also links the free entries */
} hm_key_entry_t;


typedef struct {
    uint32_t            newest;
    uint32_t            oldest;
    uint32_t            free;
    uint32_t            touched;         /* entries that were ever used */
} hm_key_lists_t;


struct hm_keyring_s {
    size_t              entries;
    size_t              mask;            /* of the index */
    size_t              size;            /* of the mapping */
    hm_key_lists_t     *lists;           /* the mapping begins here */
    hm_key_entry_t     *entry;           /* entry[n - 1] */
    uint32_t           *index;
};


static void hm_kek_reason(char reason[256], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static ssize_t hm_kek_read(const char *path, unsigned char *buf, size_t size,
    char reason[256]);
static bool hm_kek_parse(hm_kek_t *kek, hm_str_t text, char reason[256]);
static const char *hm_kek_line(hm_kek_t *kek, hm_str_t line);
static const unsigned char *hm_kek_find(const hm_kek_t *kek,
    uint32_t version);

static size_t hm_keyring_slot(const hm_keyring_t *ring,
    const hm_uuid_t *user);
static size_t hm_keyring_home(const hm_keyring_t *ring,
    const hm_uuid_t *user);
static void hm_keyring_remove(hm_keyring_t *ring, size_t slot);
static void hm_keyring_link(hm_keyring_t *ring, uint32_t n);
static void hm_keyring_unlink(hm_keyring_t *ring, uint32_t n);
static uint32_t hm_keyring_take(hm_keyring_t *ring);


static bool  hm_lock_failed;


void *
hm_locked_alloc(size_t size)
{
    void  *p;

    if (size == 0) {
        return NULL;
    }

    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
             -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }

    (void) madvise(p, size, MADV_DONTDUMP);

    if (mlock(p, size) != 0) {
        hm_lock_failed = true;
    }

    return p;
}


void
hm_locked_free(void *p, size_t size)
{
    if (p == NULL) {
        return;
    }

    hm_wipe(p, size);
    (void) munmap(p, size);
}


bool
hm_keyring_locked(void)
{
    return !hm_lock_failed;
}


hm_kek_t *
hm_kek_load(const char *path, char reason[256])
{
    bool            ok;
    ssize_t         n;
    hm_kek_t       *kek;
    unsigned char  *buf;

    reason[0] = '\0';

    kek = hm_locked_alloc(sizeof(hm_kek_t));
    buf = hm_locked_alloc(HM_KEK_FILE_MAX);

    if (kek == NULL || buf == NULL) {
        hm_kek_reason(reason, "no memory");
        hm_locked_free(kek, sizeof(hm_kek_t));
        hm_locked_free(buf, HM_KEK_FILE_MAX);
        return NULL;
    }

    n = hm_kek_read(path, buf, HM_KEK_FILE_MAX, reason);

    ok = n >= 0 && hm_kek_parse(kek, (hm_str_t) { (size_t) n, buf }, reason);

    hm_locked_free(buf, HM_KEK_FILE_MAX);

    if (!ok) {
        hm_kek_free(kek);
        return NULL;
    }

    return kek;
}


void
hm_kek_free(hm_kek_t *kek)
{
    hm_locked_free(kek, sizeof(hm_kek_t));
}


static void
hm_kek_reason(char reason[256], const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    (void) vsnprintf(reason, 256, fmt, args);
    va_end(args);
}


/* read(2), not stdio: a FILE would keep a copy of the keys on the heap. */

static ssize_t
hm_kek_read(const char *path, unsigned char *buf, size_t size,
    char reason[256])
{
    int          fd;
    size_t       len;
    ssize_t      n;
    struct stat  st;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1) {
        hm_kek_reason(reason, "cannot be opened: %s", strerror(errno));
        return -1;
    }

    n = -1;
    len = 0;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        hm_kek_reason(reason, "is not a regular file");
        goto done;
    }

    if ((st.st_mode & S_IRWXO) != 0) {
        hm_kek_reason(reason, "may be used by others than its owner and "
                      "group (mode %04o); chmod o= it",
                      (unsigned) st.st_mode & 07777);
        goto done;
    }

    while (len < size) {
        n = read(fd, buf + len, size - len);

        if (n == -1 && errno == EINTR) {
            continue;
        }

        if (n <= 0) {
            break;
        }

        len += (size_t) n;
    }

    if (n == -1) {
        hm_kek_reason(reason, "cannot be read: %s", strerror(errno));

    } else if (len == size) {
        hm_kek_reason(reason, "is too large");
        n = -1;

    } else {
        n = (ssize_t) len;
    }

done:

    (void) close(fd);

    return n;
}


static bool
hm_kek_parse(hm_kek_t *kek, hm_str_t text, char reason[256])
{
    unsigned        n;
    hm_str_t        line;
    const char     *fault;
    unsigned char  *p, *end;

    n = 0;
    p = text.data;
    end = p + text.len;

    while (p < end) {
        line.data = p;

        while (p < end && *p != '\n') {
            p++;
        }

        line.len = (size_t) (p - line.data);
        p++;
        n++;

        fault = hm_kek_line(kek, line);

        if (fault != NULL) {
            hm_kek_reason(reason, "line %u: %s", n, fault);
            return false;
        }
    }

    if (kek->n == 0) {
        hm_kek_reason(reason, "holds no key");
        return false;
    }

    return true;
}


/* NULL, or what is wrong with it. */

static const char *
hm_kek_line(hm_kek_t *kek, hm_str_t line)
{
    unsigned        i, digit;
    uint64_t        version;
    unsigned char  *p, *end, key[HM_KEY_LEN];

    p = line.data;
    end = p + line.len;

    while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) {
        end--;
    }

    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }

    if (p == end || *p == '#') {
        return NULL;
    }

    version = 0;

    for ( /* void */ ; p < end && *p >= '0' && *p <= '9'; p++) {
        digit = (unsigned) (*p - '0');
        version = version * 10 + digit;

        if (version > UINT32_MAX) {
            return "the version is too large";
        }
    }

    if (version == 0 || p == end || (*p != ' ' && *p != '\t')) {
        return "expected \"<version> <64 hexadecimal digits>\"";
    }

    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }

    for (i = 0; i < kek->n; i++) {
        if (kek->version[i] == version) {
            return "the version was there before";
        }
    }

    if (kek->n == HM_KEK_VERSIONS) {
        return "too many versions";
    }

    if (end - p != 2 * HM_KEY_LEN
        || hm_unhex(key, (hm_str_t) { 2 * HM_KEY_LEN, p }) != HM_OK)
    {
        hm_wipe(key, sizeof(key));
        return "the key is not 64 hexadecimal digits";
    }

    kek->version[kek->n] = (uint32_t) version;
    memcpy(kek->key[kek->n], key, HM_KEY_LEN);
    kek->n++;

    hm_wipe(key, sizeof(key));

    if (version > kek->current) {
        kek->current = (uint32_t) version;
    }

    return NULL;
}


uint32_t
hm_kek_current(const hm_kek_t *kek)
{
    return kek->current;
}


static const unsigned char *
hm_kek_find(const hm_kek_t *kek, uint32_t version)
{
    unsigned  i;

    for (i = 0; i < kek->n; i++) {
        if (kek->version[i] == version) {
            return kek->key[i];
        }
    }

    return NULL;
}


hm_rc_t
hm_kek_wrap(const hm_kek_t *kek, unsigned char out[HM_WRAPPED_LEN],
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner,
    const unsigned char key[HM_KEY_LEN])
{
    const unsigned char  *with;

    with = hm_kek_find(kek, kek->current);
    if (with == NULL) {
        return HM_ERROR;
    }

    return hm_wrap(out, with, kek->current, purpose, key_version, owner, key);
}


hm_rc_t
hm_kek_unwrap(const hm_kek_t *kek, unsigned char key[HM_KEY_LEN],
    const char *purpose, uint32_t key_version, const hm_uuid_t *owner,
    hm_str_t wrapped)
{
    uint32_t              version;
    const unsigned char  *with;

    if (wrapped.len != HM_WRAPPED_LEN) {
        return HM_DECLINED;
    }

    version = (uint32_t) wrapped.data[1] << 24
              | (uint32_t) wrapped.data[2] << 16
              | (uint32_t) wrapped.data[3] << 8 | wrapped.data[4];

    with = hm_kek_find(kek, version);
    if (with == NULL) {
        return HM_DECLINED;
    }

    return hm_unwrap(key, with, purpose, key_version, owner, wrapped);
}


hm_keyring_t *
hm_keyring_create(size_t entries)
{
    size_t         slots, at;
    hm_keyring_t  *ring;

    if (entries == 0 || entries > UINT32_MAX / 4) {
        return NULL;
    }

    for (slots = 4; slots < entries * 2; slots *= 2) { /* void */ }

    ring = calloc(1, sizeof(hm_keyring_t));
    if (ring == NULL) {
        return NULL;
    }

    at = sizeof(hm_key_lists_t) + entries * sizeof(hm_key_entry_t);

    ring->entries = entries;
    ring->mask = slots - 1;
    ring->size = at + slots * sizeof(uint32_t);

    ring->lists = hm_locked_alloc(ring->size);
    if (ring->lists == NULL) {
        free(ring);
        return NULL;
    }

    (void) madvise(ring->lists, ring->size, MADV_WIPEONFORK);

    ring->entry = (hm_key_entry_t *) (ring->lists + 1);
    ring->index = (uint32_t *) ((unsigned char *) ring->lists + at);

    return ring;
}


void
hm_keyring_destroy(hm_keyring_t *ring)
{
    if (ring == NULL) {
        return;
    }

    hm_locked_free(ring->lists, ring->size);
    free(ring);
}


/* Ids are made by the server and end in random bits: they are their hash. */

static size_t
hm_keyring_home(const hm_keyring_t *ring, const hm_uuid_t *user)
{
    uint64_t  h;

    memcpy(&h, user->b + 8, 8);

    return (size_t) ((h * 0x9e3779b97f4a7c15ULL) >> 32) & ring->mask;
}


/* The slot of the person, or the empty one where it would go. */

static size_t
hm_keyring_slot(const hm_keyring_t *ring, const hm_uuid_t *user)
{
    size_t    slot;
    uint32_t  n;

    slot = hm_keyring_home(ring, user);

    for ( ;; ) {
        n = ring->index[slot];

        if (n == 0 || hm_uuid_eq(&ring->entry[n - 1].keys.user, user)) {
            return slot;
        }

        slot = (slot + 1) & ring->mask;
    }
}


hm_user_keys_t *
hm_keyring_get(hm_keyring_t *ring, const hm_uuid_t *user, hm_usec_t now)
{
    size_t           slot;
    uint32_t         n;
    hm_user_keys_t  *keys;

    slot = hm_keyring_slot(ring, user);
    n = ring->index[slot];

    if (n == 0) {
        return NULL;
    }

    keys = &ring->entry[n - 1].keys;

    /* from the future: the clock was set back, the age is unknown */

    if (now - keys->loaded >= HM_KEY_TTL || keys->loaded - now > HM_KEY_SKEW) {
        hm_keyring_remove(ring, slot);
        return NULL;
    }

    if (ring->lists->newest != n) {
        hm_keyring_unlink(ring, n);
        hm_keyring_link(ring, n);
    }

    return keys;
}


hm_user_keys_t *
hm_keyring_since(hm_keyring_t *ring, const hm_uuid_t *user, hm_usec_t at)
{
    uint32_t         n;
    hm_user_keys_t  *keys;

    n = ring->index[hm_keyring_slot(ring, user)];

    if (n == 0) {
        return NULL;
    }

    keys = &ring->entry[n - 1].keys;

    return at - keys->loaded < HM_KEY_TTL ? keys : NULL;
}


hm_user_keys_t *
hm_keyring_put(hm_keyring_t *ring, const hm_user_keys_t *keys)
{
    size_t           slot;
    uint32_t         n;
    hm_user_keys_t  *to;

    if (keys->nversions > HM_KEY_VERSIONS) {
        return NULL;
    }

    slot = hm_keyring_slot(ring, &keys->user);
    n = ring->index[slot];

    if (n == 0) {
        n = hm_keyring_take(ring);

        /* an eviction may have closed up the index */
        slot = hm_keyring_slot(ring, &keys->user);
        ring->index[slot] = n;

    } else {
        hm_keyring_unlink(ring, n);
    }

    to = &ring->entry[n - 1].keys;

    if (to != keys) {
        hm_wipe(to, sizeof(hm_user_keys_t));
        *to = *keys;
    }

    hm_keyring_link(ring, n);

    return to;
}


void
hm_keyring_drop(hm_keyring_t *ring, const hm_uuid_t *user)
{
    size_t  slot;

    slot = hm_keyring_slot(ring, user);

    if (ring->index[slot] != 0) {
        hm_keyring_remove(ring, slot);
    }
}


void
hm_keyring_drop_all(hm_keyring_t *ring)
{
    hm_wipe(ring->lists, ring->size);
}


void
hm_keyring_drop_before(hm_keyring_t *ring, hm_usec_t loaded)
{
    uint32_t         n;
    hm_user_keys_t  *keys;

    for (n = 1; n <= ring->lists->touched; n++) {
        keys = &ring->entry[n - 1].keys;

        /* one that is free is all zeros */

        if (keys->loaded != 0 && keys->loaded < loaded) {
            hm_keyring_remove(ring, hm_keyring_slot(ring, &keys->user));
        }
    }
}


/* An entry for a new person: a free one, an untouched one, the oldest. */

static uint32_t
hm_keyring_take(hm_keyring_t *ring)
{
    uint32_t         n;
    hm_key_lists_t  *lists;

    lists = ring->lists;

    if (lists->free == 0 && lists->touched == ring->entries) {
        n = lists->oldest;
        hm_keyring_remove(ring, hm_keyring_slot(ring,
                                                &ring->entry[n - 1].keys.user));
    }

    if (lists->free != 0) {
        n = lists->free;
        lists->free = ring->entry[n - 1].older;
        ring->entry[n - 1].older = 0;
        return n;
    }

    return ++lists->touched;
}


static void
hm_keyring_remove(hm_keyring_t *ring, size_t slot)
{
    size_t           next, home;
    uint32_t         n;
    hm_key_entry_t  *e;

    n = ring->index[slot];
    e = &ring->entry[n - 1];

    hm_keyring_unlink(ring, n);
    hm_wipe(e, sizeof(hm_key_entry_t));

    e->older = ring->lists->free;
    ring->lists->free = n;

    /*
     * Close the gap: whoever stands behind it moves up, unless that would
     * put it before its home.
     */

    for (next = (slot + 1) & ring->mask;
         ring->index[next] != 0;
         next = (next + 1) & ring->mask)
    {
        home = hm_keyring_home(ring,
                               &ring->entry[ring->index[next] - 1].keys.user);

        if (((next - home) & ring->mask) >= ((next - slot) & ring->mask)) {
            ring->index[slot] = ring->index[next];
            slot = next;
        }
    }

    ring->index[slot] = 0;
}


static void
hm_keyring_link(hm_keyring_t *ring, uint32_t n)
{
    hm_key_entry_t  *e;
    hm_key_lists_t  *lists;

    lists = ring->lists;
    e = &ring->entry[n - 1];

    e->newer = 0;
    e->older = lists->newest;

    if (lists->newest != 0) {
        ring->entry[lists->newest - 1].newer = n;
    } else {
        lists->oldest = n;
    }

    lists->newest = n;
}


static void
hm_keyring_unlink(hm_keyring_t *ring, uint32_t n)
{
    hm_key_entry_t  *e;
    hm_key_lists_t  *lists;

    lists = ring->lists;
    e = &ring->entry[n - 1];

    if (e->newer != 0) {
        ring->entry[e->newer - 1].older = e->older;
    } else {
        lists->newest = e->older;
    }

    if (e->older != 0) {
        ring->entry[e->older - 1].newer = e->newer;
    } else {
        lists->oldest = e->newer;
    }

    e->newer = 0;
    e->older = 0;
}


const unsigned char *
hm_keys_dek(const hm_user_keys_t *keys, uint32_t version)
{
    unsigned  i;

    for (i = 0; i < keys->nversions; i++) {
        if (keys->version[i] == version) {
            return keys->dek[i];
        }
    }

    return NULL;
}
