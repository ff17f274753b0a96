/*
 * kist - cached data and program state in memory-mapped files.
 *
 * A store is a directory; it holds banks; a bank maps keys to values. Every
 * process of the host may open the same store. Readers take no lock and make
 * no copy; there is one writer at a time per bank, and another takes over
 * when it is killed.
 *
 * Before you use it
 *   Sections    kist_get() and kist_get_many() hand out pointers into the
 *               map. They hold until the read section ends (kist_read_end).
 *               Use a view for longer, or kist_get_copy().
 *   Views       keep the file of their value mapped, and so its disk space
 *               in use, until they are released.
 *   Snapshots   and cursors keep heap files on the disk, whoever cleans the
 *               bank, until they are closed or their process ends.
 *   Fork        a handle made before fork() is of no use in the child: every
 *               call returns KIST_EFORK. Open the store again there; closing
 *               the inherited handles frees their memory and touches no file.
 *               fork() may wait a moment for calls of other threads: not from
 *               a signal handler.
 *   Trust       whoever may write a bank's files can destroy it. Damage by
 *               accident gives an error code, never wrong bytes.
 *   File        local file systems only; others are refused unless
 *   systems     KIST_STORE_ANY_FS is given. A copy of a store in use, made
 *               with cp or rsync, is not consistent: kist_store_copy() is.
 *   Truncation  somebody who cuts a file short while it is mapped makes its
 *               readers die of SIGBUS. kist itself never shrinks a file.
 *
 * Results: negative is failure (a KIST_E* code, or a negated errno), 0 is
 * done, positive is an outcome that the caller asked about. On failure
 * outputs are untouched, but that a constructor sets its handle to NULL.
 *
 * Threads: unless a call says otherwise, any thread may make it at any time
 * on any handle; closing a handle must be the last call on it.
 */
#ifndef KIST_KIST_H
#define KIST_KIST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KIST_API __attribute__((visibility("default")))
#define KIST_NODISCARD __attribute__((warn_unused_result))

#define KIST_VERSION_MAJOR 0
#define KIST_VERSION_MINOR 1
#define KIST_VERSION_PATCH 0
#define KIST_VERSION_STRING "0.1.0"

/* ---- results ---------------------------------------------------------- */

/* Outcomes that are no failures. */
#define KIST_OUTCOMES(X)                                                       \
    X(KIST_OK, 0, "done")                                                      \
    X(KIST_MISS, 1, "no live value for the key")                               \
    X(KIST_EXISTS, 2, "the key already has a value")                           \
    X(KIST_CHANGED, 3, "the key has another sequence than the one named")      \
    X(KIST_END, 4, "no further entries")                                       \
    X(KIST_ABSENT, 5, "a page is not cached, and its device can't be asked")

/* Failures. System errors come as -errno and have no entry here. */
#define KIST_ERRORS(X)                                                         \
    X(KIST_EINVAL, -10001, "an argument is outside its documented range")      \
    X(KIST_ENOMEM, -10002, "out of memory")                                    \
    X(KIST_ECORRUPT, -10003, "stored bytes are damaged")                       \
    X(KIST_EFORMAT, -10004, "not a kist file, or not of this bank")            \
    X(KIST_ENEWER, -10005, "made by a newer version of kist")                  \
    X(KIST_ENOSTORE, -10006, "the directory holds no kist store")              \
    X(KIST_ENOBANK, -10007, "no such bank")                                    \
    X(KIST_EBANKEXISTS, -10008, "the bank already exists")                     \
    X(KIST_EBUSY, -10009, "another writer kept the bank until the deadline")   \
    X(KIST_EGONE, -10010, "the bank was dropped")                              \
    X(KIST_EFORK, -10011, "the handle was made before fork; open it again")    \
    X(KIST_ECLOSED, -10012, "the store of this handle was closed")             \
    X(KIST_EREADONLY, -10013, "the handle was opened read-only")               \
    X(KIST_EPOISON, -10014, "a sync failed; the bank is read-only until repair") \
    X(KIST_EFOREIGN, -10015, "files of a bank in use were exchanged")          \
    X(KIST_EKEYLEN, -10016, "key longer than 65,535 bytes")                    \
    X(KIST_EVALUELEN, -10017, "value of 4,294,967,295 bytes or more")          \
    X(KIST_EBANKNAME, -10018, "not a valid bank name")                         \
    X(KIST_EPATH, -10019, "a symlink or a non-directory in the bank's path")   \
    X(KIST_ENETFS, -10020, "the store is not on a local file system")          \
    X(KIST_EFULL, -10021, "no space left on the device")                       \
    X(KIST_EQUOTA, -10022, "disk quota exceeded")                              \
    X(KIST_EFILESIZE, -10023, "file size limit (RLIMIT_FSIZE) reached")        \
    X(KIST_ESECTION, -10024, "borrowed get outside of a read section")         \
    X(KIST_ESPACE, -10025, "the buffer is too small for the value")            \
    X(KIST_EWINDOW, -10026, "too many segments; compact the bank")             \
    X(KIST_EBOUNDS, -10027, "the address is past the end of the device")       \
    X(KIST_EDEVICE, -10028, "a device's function broke its contract")          \
    X(KIST_EPENDING, -10029, "too many pages are pending; commit them")        \
    X(KIST_EINUSE, -10030, "another thread is using the handle right now")     \
    X(KIST_ELOST, -10031, "what the snapshot saw can't be told any more")

enum kist_result {
#define KIST_X_(name, code, text) name = code,
    KIST_OUTCOMES(KIST_X_) KIST_ERRORS(KIST_X_)
#undef KIST_X_
};

/* Text for any code that this library returns, negated errno included.
 * Returns    a static string, never NULL                                    */
KIST_API const char *kist_strerror(int rc);

/* The name of a code, "KIST_EBUSY"; for an errno its number as "-28".
 * Returns    a string that holds until the thread's next call               */
KIST_API const char *kist_errname(int rc);

/* The version of the library that is loaded, "0.1.0"; compare it with
 * KIST_VERSION_STRING, the one compiled against.                            */
KIST_API const char *kist_version(void);

/* What went wrong in this thread's last call that failed. */
typedef struct kist_error {
    int rc;          /* the code that the call returned; 0: none yet         */
    char bank[256];  /* the bank's name, cut to fit, or ""                   */
    char file[256];  /* the file's name within the bank or store, or ""      */
    uint64_t offset; /* byte within the file; UINT64_MAX: does not apply     */
    char what[256];  /* one sentence: what happened, and what to do          */
} kist_error;

/* Returns    the calling thread's context, never NULL; holds until the
 *            thread's next failing call                                     */
KIST_API const kist_error *kist_last_error(void);

/* ---- plain carriers --------------------------------------------------- */

/* Bytes that somebody else owns. */
typedef struct kist_bytes {
    const void *data;
    size_t len;
} kist_bytes;

#define KIST_KEY_MAX 65535u
#define KIST_VALUE_MAX 4294967294u

typedef struct kist_store kist_store; /* an opened directory of banks       */
typedef struct kist_bank kist_bank;   /* an opened bank                     */
typedef struct kist_view kist_view;   /* a value kept mapped                */
typedef struct kist_iter kist_iter;   /* a walk over a bank                 */
typedef struct kist_cursor kist_cursor; /* a place in a bank at one moment  */
typedef struct kist_batch kist_batch; /* changes that come all at once      */

/* ---- stores ----------------------------------------------------------- */

enum kist_store_flag {
    KIST_STORE_CREATE = 1,   /* make the directory and the store if missing  */
    KIST_STORE_READONLY = 2, /* never change a byte; all banks read-only     */
    KIST_STORE_ANY_FS = 4,   /* accept network and unknown file systems      */
    KIST_STORE_MEMORY = 8,   /* in memory of this process alone              */
};

enum kist_log_level { KIST_LOG_INFO = 1, KIST_LOG_WARNING = 2, KIST_LOG_DAMAGE = 3 };

/* A recovery, or damage that was found. Strings hold during the call. */
typedef struct kist_log_event {
    uint32_t level;      /* enum kist_log_level                              */
    const char *bank;    /* name, or ""                                      */
    const char *file;    /* name, or ""                                      */
    uint64_t offset;     /* byte within the file, or UINT64_MAX              */
    const char *message; /* one sentence                                     */
} kist_log_event;

/* All options structs: start from `= { .size = sizeof(kist_..._options) }`; a
 * zero field means its default. Fields that a library does not know and that
 * are not zero are refused (KIST_EINVAL).                                   */
typedef struct kist_store_options {
    uint32_t size;           /* sizeof(kist_store_options)                   */
    uint32_t flags;          /* enum kist_store_flag; default 0              */
    uint32_t max_open_banks; /* banks kept mapped at once, the least recently
                                used is closed and comes back by itself at its
                                next call; 1 to 65,536; default: an eighth of
                                RLIMIT_NOFILE, at most 1,024                 */
    uint32_t file_mode;      /* for new files; default 0600                  */
    uint32_t dir_mode;       /* for new directories; default 0700            */
    uint32_t reserved;
    void (*log)(const kist_log_event *event, void *arg); /* default: silence;
                                called from any thread, no lock of the bank
                                held; must not call kist on the same bank    */
    void *log_arg;
} kist_store_options;

/*
 * Open the store in the directory `path`.
 *
 *   out    receives the handle; NULL on failure
 *   path   resolved as given; beneath it no symlink is followed;
 *          NULL with KIST_STORE_MEMORY
 *   opt    NULL: all defaults
 *
 * With KIST_STORE_MEMORY the store is made anew, in memory that no other
 * process sees, and is gone with its last handle; everything else is as on a
 * disk. Each file takes one of the process's descriptors as long as it exists: a
 * bank has five, more when it has more than one heap file, and some more while
 * it is open; see RLIMIT_NOFILE. /proc must be mounted. A forked child that
 * neither closes its handles nor runs another program keeps the memory in use.
 * To share such a store between processes, make one on a tmpfs.
 *
 * Returns    KIST_OK
 *            KIST_ENOSTORE  no store there, and no KIST_STORE_CREATE
 *            KIST_EFORMAT, KIST_ENEWER, KIST_ECORRUPT  its kist.store
 *            KIST_ENETFS    not a local file system
 *            KIST_EINVAL    an option, or the path
 *            -EMFILE        no descriptor is left
 *            -ENOSYS        in memory: there is no /proc
 *            -EACCES, -EROFS, -ENOENT, ... from the system
 * Owner      the caller; kist_store_close()
 */
KIST_API KIST_NODISCARD int kist_store_open(kist_store **out, const char *path,
                                            const kist_store_options *opt);

/*
 * Close the store and the files of its banks, cleanly: what was written is
 * synced, and the next open is instant. Bank handles still open answer
 * KIST_ECLOSED from then on, and are to be freed with kist_bank_close();
 * views stay readable until they are released. NULL is a no-op.
 *
 * Returns    KIST_OK, or the first error of a sync; the handle is gone in
 *            any case
 */
KIST_API int kist_store_close(kist_store *store);

/* ---- banks ------------------------------------------------------------ */

enum kist_bank_flag {
    KIST_BANK_CREATE = 1,    /* make the bank if it is missing               */
    KIST_BANK_EXCLUSIVE = 2, /* with CREATE: fail if it exists               */
    KIST_BANK_READONLY = 4,  /* this handle never changes a byte             */
};

enum kist_index_kind {
    KIST_INDEX_DEFAULT = 0,
    KIST_INDEX_HASH = 1,    /* fastest gets and puts; no order               */
    KIST_INDEX_ORDERED = 2, /* keys in byte order: a key comes before those
                               that it is a prefix of; ranges, seeking       */
};

enum kist_durability {
    KIST_DURABILITY_DEFAULT = 0,
    KIST_DURABILITY_NONE = 1,     /* killing loses nothing; power loss loses
                                     what came after the last sync           */
    KIST_DURABILITY_INTERVAL = 2, /* as none, and a thread syncs regularly   */
    KIST_DURABILITY_ALWAYS = 3,   /* each put and delete is synced before it
                                     returns; writers share syncs            */
};

enum kist_verify {
    KIST_VERIFY_DEFAULT = 0,
    KIST_VERIFY_FIRST = 1,  /* a record's checksum is tested the first time
                               this process reads it                         */
    KIST_VERIFY_ALWAYS = 2, /* at every read                                 */
    KIST_VERIFY_NEVER = 3,
};

typedef struct kist_bank_options {
    uint32_t size;  /* sizeof(kist_bank_options)                             */
    uint32_t flags; /* enum kist_bank_flag; default 0                        */

    /* For a bank being created; ignored if it exists. */
    uint32_t index;         /* enum kist_index_kind; default hash            */
    uint32_t segment_bytes; /* largest size of a heap file, a power of two,
                               4 KiB to 1 GiB; default 64 MiB                */
    uint64_t expect_entries;/* hint for the index's first size; default 0    */

    /* Kept with a bank that is created; an existing one's apply where these
       are 0, and for this handle only where they are not. */
    uint32_t durability;  /* enum kist_durability; default none              */
    uint32_t interval_ms; /* for KIST_DURABILITY_INTERVAL; 1 to 3,600,000;
                             default 1,000                                   */
    uint32_t verify;      /* enum kist_verify; default first                 */

    /* For this handle. */
    int32_t deadline_ms; /* how long a call waits for another writer before
                            KIST_EBUSY; -1: for ever; default 10,000         */
} kist_bank_options;

/*
 * Open the bank `name`: parts joined by '/', each 1 to 255 bytes, none of
 * them "." or "..", none beginning with "kist.", no NUL; 1,023 bytes in all.
 *
 * Returns    KIST_OK
 *            KIST_ENOBANK     and no KIST_BANK_CREATE
 *            KIST_EBANKEXISTS with KIST_BANK_EXCLUSIVE
 *            KIST_EBANKNAME, KIST_EPATH, KIST_EINVAL
 *            KIST_EREADONLY   CREATE in a store opened read-only
 *            KIST_ECORRUPT, KIST_EFORMAT, KIST_ENEWER, KIST_EFOREIGN
 *            KIST_EBUSY       another process is recovering it
 *            KIST_EFULL, KIST_EQUOTA, KIST_EFILESIZE, -errno
 * Owner      the caller; kist_bank_close()
 */
KIST_API KIST_NODISCARD int kist_bank_open(kist_bank **out, kist_store *store, const char *name,
                                           const kist_bank_options *opt);

/* Close a handle; the last one of a bank that was written syncs it and marks
 * it clean. NULL is a no-op. Returns KIST_OK or the error of the sync; the
 * handle is gone in any case.                                               */
KIST_API int kist_bank_close(kist_bank *bank);

/* Remove a bank and all its entries, but not banks nested below its name.
 * Handles to it, in any process, answer KIST_EGONE from then on.
 * Returns    KIST_OK, KIST_ENOBANK, KIST_EBUSY, KIST_EREADONLY, -errno      */
KIST_API KIST_NODISCARD int kist_bank_drop(kist_store *store, const char *name);

/* Call `each` with the name of every bank at or below `prefix` (NULL or "":
 * all), in byte order; `name` holds during the call; stop when it returns
 * other than 0.
 * Returns    KIST_OK, what `each` returned, or an error                     */
KIST_API int kist_bank_list(kist_store *store, const char *prefix,
                            int (*each)(const char *name, void *arg), void *arg);

/* ---- reading ---------------------------------------------------------- */

/*
 * A read section of the calling thread: pointers that it is handed hold until
 * the section ends. Sections nest, cost a few nanoseconds, and are ended for
 * a thread that exits. Do not sleep in one for long: it keeps retired maps.
 *
 * Returns    KIST_OK or KIST_ENOMEM
 */
KIST_API KIST_NODISCARD int kist_read_begin(void);
KIST_API void kist_read_end(void);

/*
 * The newest value of `key`, borrowed: *value points into the map and holds
 * until the calling thread's read section ends. No lock, no copy, no system
 * call once the bank is warm. An empty key is a key like any other.
 *
 * Returns    KIST_OK
 *            KIST_MISS      never stored, deleted or expired
 *            KIST_ECORRUPT  the record fails its checksum
 *            KIST_ESECTION  not in a read section
 *            KIST_EKEYLEN, KIST_EGONE, KIST_ECLOSED, KIST_EFORK, -errno
 */
KIST_API KIST_NODISCARD int kist_get(kist_bank *bank, kist_bytes key, kist_bytes *value);

/*
 * The same for `n` keys at once, faster than one by one: their cache misses
 * overlap. rc[i] receives the result of keys[i], as from kist_get(); values[i]
 * is set where it is KIST_OK, and {NULL, 0} elsewhere.
 *
 * Returns    the number of keys found, or an error that concerns the whole
 *            bank (then rc and values are untouched); INT_MAX keys at most
 */
KIST_API KIST_NODISCARD int kist_get_many(kist_bank *bank, const kist_bytes *keys, size_t n,
                                          kist_bytes *values, int *rc);

/*
 * The value, held: it stays mapped and unchanged until the view is released,
 * in any thread, also when the key is overwritten or deleted, the bank
 * dropped or the store closed. No read section is needed.
 *
 * Returns    as kist_get(), and KIST_ENOMEM; *out is NULL but for KIST_OK
 */
KIST_API KIST_NODISCARD int kist_get_view(kist_bank *bank, kist_bytes key, kist_view **out);
KIST_API kist_bytes kist_view_bytes(const kist_view *view);
KIST_API void kist_view_release(kist_view *view); /* NULL is a no-op         */

/*
 * The value, copied into `buf` of `cap` bytes; *len receives its length, also
 * with KIST_ESPACE (and then buf is untouched). No read section is needed.
 *
 * Returns    as kist_get(), and KIST_ESPACE
 */
KIST_API KIST_NODISCARD int kist_get_copy(kist_bank *bank, kist_bytes key, void *buf, size_t cap,
                                          size_t *len);

typedef struct kist_meta {
    uint64_t value_bytes; /* length of the value                             */
    uint64_t sequence;    /* grows with each write to the bank               */
    int64_t mtime_ns;     /* of the write, ns since 1970, at the resolution of
                             CLOCK_REALTIME_COARSE (1 to 10 ms)              */
    int64_t expiry_ns;    /* ns since 1970; 0: never                         */
} kist_meta;

/* What is known of a key, without touching values over 4 KiB.
 * Returns    as kist_get(); no read section is needed                       */
KIST_API KIST_NODISCARD int kist_get_meta(kist_bank *bank, kist_bytes key, kist_meta *meta);

/* ---- writing ---------------------------------------------------------- */

/*
 * Store `value` under `key`. Every process sees it when the call returns; it
 * survives kill -9 then, and power loss after the next sync (at once with
 * KIST_DURABILITY_ALWAYS).
 *
 * Returns    KIST_OK
 *            KIST_EKEYLEN, KIST_EVALUELEN, KIST_EREADONLY
 *            KIST_EBUSY      another writer kept the bank past the deadline
 *            KIST_EFULL, KIST_EQUOTA, KIST_EFILESIZE   nothing was changed
 *            KIST_EPOISON    a sync failed, now or before
 *            KIST_EGONE, KIST_ECLOSED, KIST_EFORK, -errno
 *            With KIST_DURABILITY_ALWAYS an error of the sync itself means:
 *            visible to all, and perhaps not durable.
 */
KIST_API KIST_NODISCARD int kist_put(kist_bank *bank, kist_bytes key, kist_bytes value);

/*
 * Store `value` if the key has none; else hand out what is there. One step
 * against other writers.
 *
 *   existing   NULL, or receives a view of the value that was found, NULL if
 *              there was none; to be released
 *
 * Returns    KIST_OK      stored
 *            KIST_EXISTS  nothing changed
 *            errors as kist_put() and kist_get_view()
 */
KIST_API KIST_NODISCARD int kist_get_or_insert(kist_bank *bank, kist_bytes key, kist_bytes value,
                                               kist_view **existing);

/*
 * Store `value` if the key's sequence is still `sequence`, as kist_get_meta()
 * told it; 0: if the key has no value.
 *
 * Returns    KIST_OK
 *            KIST_CHANGED  it has another sequence; nothing changed
 *            KIST_MISS     it has no value; nothing changed
 *            errors as kist_put()
 */
KIST_API KIST_NODISCARD int kist_put_if_sequence(kist_bank *bank, kist_bytes key, kist_bytes value,
                                                 uint64_t sequence);

/* Remove a key. Returns KIST_OK, KIST_MISS if it has no value, or an error
 * as kist_put(); works on a full disk too.                                  */
KIST_API KIST_NODISCARD int kist_delete(kist_bank *bank, kist_bytes key);

/* Remove all entries, in one step. Returns as kist_put().                   */
KIST_API KIST_NODISCARD int kist_clear(kist_bank *bank);

/*
 * Make the bank's content exactly what `next` yields, all at once: no reader
 * sees a mixture, and a failure leaves the old content. `next` sets *key and
 * *value (that hold until it is called again) and returns 0, or KIST_END, or
 * a negative code that becomes the result. A key that comes twice has its
 * last value. No lock is held while `next` runs; what it yields is gathered
 * in a temporary file of the store.
 *
 * Returns    as kist_put(), or what `next` returned
 */
KIST_API KIST_NODISCARD int kist_replace(kist_bank *bank,
                                         int (*next)(kist_bytes *key, kist_bytes *value, void *arg),
                                         void *arg);

/*
 * Make everything durable that was visible when the call began.
 *
 * Returns    KIST_OK
 *            KIST_EPOISON  a sync failed, in this process or another
 *            KIST_EBUSY    another process's sync lasted past the deadline
 *            KIST_EREADONLY, KIST_EGONE, KIST_ECLOSED, KIST_EFORK
 */
KIST_API KIST_NODISCARD int kist_sync(kist_bank *bank);

/*
 * kist_sync(), and the index's file too, which makes a close that follows quick.
 * No later open needs it: after a close, or a kill, that takes the same short
 * time with or without this call. After power loss the index is built anew,
 * unless the bank had been closed before.
 *
 * Returns    as kist_sync()
 */
KIST_API KIST_NODISCARD int kist_save_index(kist_bank *bank);

/* ---- batches ---------------------------------------------------------- */

/*
 * A batch: puts and deletes that become visible, and durable, together or not
 * at all, whatever the durability, whoever is killed. Until the commit they are
 * private to the batch; large ones go to a nameless file of the bank. Of several
 * changes of one key the last one counts.
 *
 * Owner      the caller; kist_batch_close(), before its bank is closed
 * Threads    one at a time; a second one is told KIST_EINUSE
 *
 * Returns    KIST_OK, KIST_ENOMEM, KIST_EREADONLY, KIST_EGONE, KIST_ECLOSED,
 *            KIST_EFORK, -errno
 */
KIST_API KIST_NODISCARD int kist_batch_open(kist_batch **out, kist_bank *bank);

/* Add a change; what `key` and `value` lead to is copied.
 * Returns    KIST_OK, KIST_EKEYLEN, KIST_EVALUELEN, KIST_EINUSE, KIST_ENOMEM,
 *            KIST_EFULL, ...; a change that fails is not in the batch        */
KIST_API KIST_NODISCARD int kist_batch_put(kist_batch *batch, kist_bytes key, kist_bytes value);
KIST_API KIST_NODISCARD int kist_batch_delete(kist_batch *batch, kist_bytes key);

/* Demand that the key has this sequence when the batch is committed, as
 * kist_get_meta() told it; 0: that it has no value. It speaks of the bank as it
 * is without this batch. Returns as kist_batch_put().                        */
KIST_API KIST_NODISCARD int kist_batch_expect(kist_batch *batch, kist_bytes key,
                                              uint64_t sequence);

/* The value of a key as it will be: what the batch says of it, else the newest
 * of the bank. `*out` is a view, to be released; as kist_get_view().         */
KIST_API KIST_NODISCARD int kist_batch_get_view(kist_batch *batch, kist_bytes key,
                                                kist_view **out);

/* The keys that it changes, by puts or deletes. For any thread.              */
KIST_API uint64_t kist_batch_count(const kist_batch *batch);

/*
 * Make all of it visible at once; the batch is empty then, and can be filled
 * again. Deletes of keys that have no value do nothing. Other writers wait as
 * long as it takes. Unless the result is KIST_OK nothing was changed, and the
 * batch is as it was. But with KIST_DURABILITY_ALWAYS an error of the sync
 * itself means: visible to all, and perhaps not durable; the batch is empty.
 *
 * Returns    KIST_OK
 *            KIST_CHANGED  an expected key has another sequence
 *            KIST_MISS     an expected key has no value
 *            KIST_EXISTS   a key has a value that was expected to have none
 *            KIST_EINUSE, errors as kist_put()
 */
KIST_API KIST_NODISCARD int kist_batch_commit(kist_batch *batch);

/* Empty it, without a change to the bank.
 * Returns    KIST_OK, KIST_EINUSE, KIST_ECLOSED, KIST_EFORK                  */
KIST_API int kist_batch_reset(kist_batch *batch);

/* Free it; what was not committed is forgotten. NULL is a no-op.             */
KIST_API void kist_batch_close(kist_batch *batch);

/* ---- snapshots -------------------------------------------------------- */

/*
 * The bank as it is now, for as long as the handle is open: a read-only handle
 * on which every reading call works (get, view, meta, count, cursors, walks) and
 * sees the bank as of this moment, whatever is written, cleared or compacted
 * meanwhile by any process. Taking one costs the same for a bank of any size.
 * While it is open, heap files that it may need stay on the disk, see
 * kist_stats.pinned_bytes; when its process dies it is gone.
 *
 *   out    to be closed with kist_bank_close()
 *   bank   any handle; of a snapshot: another one of the same moment
 *
 * A key that was written n times since has its value behind n links. Reading
 * through it adds KIST_ELOST to a call's errors: the files were not kept, since
 * the bank had no lock file (read-only media), and it is written by now.
 *
 * Returns    KIST_OK, KIST_ENOMEM, KIST_ECORRUPT, KIST_EGONE, KIST_EFORK,
 *            KIST_ECLOSED
 *            KIST_EBUSY  a writer died within a replacement, and another one in
 *                        the midst of finishing it: the next write does that; or
 *                        others recover and clean the bank all the time: try again
 *            -errno
 */
KIST_API KIST_NODISCARD int kist_snapshot_open(kist_bank **out, kist_bank *bank);

typedef struct kist_snapshot_info {
    uint32_t size;          /* in: sizeof(kist_snapshot_info)                */
    uint32_t index;         /* enum kist_index_kind of its bank              */
    uint8_t bank_id[16];    /* a bank has one for life                       */
    uint64_t sequence;      /* of the newest write that it sees              */
    int64_t taken_ns;       /* ns since 1970                                 */
    uint64_t entries;       /* live keys                                     */
    uint64_t payload_bytes; /* of keys and values                            */
    uint64_t saved_bytes;   /* length of a saved one; 0 for a handle         */
} kist_snapshot_info;

/* What a snapshot holds, in O(1). Returns KIST_OK or KIST_EINVAL: `snapshot`
 * is no snapshot, or the size.                                              */
KIST_API KIST_NODISCARD int kist_snapshot_stat(kist_bank *snapshot, kist_snapshot_info *info);

/* Where a saved snapshot goes: takes all of `len` bytes and returns 0, or fails
 * with a negative code, that becomes the result. */
typedef int (*kist_write)(const void *data, size_t len, void *arg);

/* Where it comes from: up to `len` bytes into `buf`. Returns how many, 0 at the
 * end, or a negative code. */
typedef int64_t (*kist_read)(void *buf, size_t len, void *arg);

/* Ready-made ones for files, pipes and sockets; `arg` leads to an int, the
 * descriptor. They return as kist_write and kist_read say, with -errno.     */
KIST_API int kist_write_fd(const void *data, size_t len, void *fd);
KIST_API int64_t kist_read_fd(void *buf, size_t len, void *fd);

/*
 * Write a snapshot out, in a documented and checksummed format (docs/format.md),
 * from beginning to end, so that a pipe will do.
 *
 *   bank   a snapshot; of another handle, the bank as it is now
 *
 * Returns    KIST_OK, what `write` returned, KIST_EINVAL: that was positive, or
 *            errors as kist_snapshot_open() and kist_cursor_next()
 */
KIST_API KIST_NODISCARD int kist_snapshot_save(kist_bank *bank, kist_write write, void *arg);

/*
 * What a saved snapshot holds, from its beginning: up to 4 KiB are read, the
 * entries are not looked at.
 *
 * Returns    KIST_OK, what `read` returned, KIST_EFORMAT, KIST_ENEWER,
 *            KIST_ECORRUPT: cut or damaged within these bytes,
 *            KIST_EINVAL: the size, or `read` returned more than was asked for
 */
KIST_API KIST_NODISCARD int kist_snapshot_info_read(kist_read read, void *arg,
                                                    kist_snapshot_info *info);

/*
 * Make the bank's content what a saved snapshot says, all at once, as
 * kist_replace() does; times of writes are kept. The snapshot may be of any
 * bank. All of it is read and checked before anything changes.
 *
 * Returns    KIST_OK, what `read` returned, or
 *            KIST_EFORMAT, KIST_ENEWER  no snapshot, or of a newer kist
 *            KIST_ECORRUPT              cut short, damaged, or more behind it
 *            KIST_EINVAL                `read` returned more than was asked for
 *            errors as kist_put()
 */
KIST_API KIST_NODISCARD int kist_snapshot_restore(kist_bank *bank, kist_read read, void *arg);

/*
 * The same from a snapshot that is open: of the same bank in time proportional
 * to what was written since, touching only what differs; of another one all of
 * it is copied. The snapshot stays open.
 *
 * Returns    KIST_OK, KIST_EINVAL: `snapshot` is none; or as kist_put() and
 *            kist_cursor_next()
 */
KIST_API KIST_NODISCARD int kist_snapshot_revert(kist_bank *bank, kist_bank *snapshot);

/* ---- walking ---------------------------------------------------------- */

typedef struct kist_entry {
    kist_bytes key;   /* both hold until the next call on the iterator or
                         cursor that handed them out                         */
    kist_bytes value;
    kist_meta meta;
} kist_entry;

/*
 * Walk over all entries, in time proportional to their number; in the order of
 * keys in an ordered bank, else in no particular one. Weakly consistent: a key
 * present throughout comes exactly once; one that comes or goes meanwhile may be
 * met or not. After a clear or replace the walk goes on in the new content. For
 * one moment's content see cursors.
 *
 * Owner      the caller; kist_iter_close(), before its bank is closed
 * Threads    one at a time per iterator
 */
KIST_API KIST_NODISCARD int kist_iter_open(kist_iter **out, kist_bank *bank);

/* Returns    KIST_OK with *entry set, KIST_END, or an error; after
 *            KIST_ECORRUPT the walk can go on behind the damaged entry.     */
KIST_API KIST_NODISCARD int kist_iter_next(kist_iter *iter, kist_entry *entry);
KIST_API void kist_iter_close(kist_iter *iter);

/* ---- cursors ---------------------------------------------------------- */

enum kist_cursor_flag {
    KIST_CURSOR_REVERSE = 1, /* next goes down, previous up; first is the
                                highest key                                  */
};

/* Which entries a cursor has: all of these bounds hold. */
typedef struct kist_cursor_options {
    uint32_t size;     /* sizeof(kist_cursor_options)                        */
    uint32_t flags;    /* enum kist_cursor_flag                              */
    kist_bytes prefix; /* keys that begin so; {NULL, 0}: all                 */
    kist_bytes from;   /* keys >= it; {NULL, 0}: from the first              */
    kist_bytes to;     /* keys < it; data NULL: to the last                  */
    uint64_t limit;    /* after so many were handed out, KIST_END; such a cursor
                          does not seek, nor go to the last. 0: no limit     */
} kist_cursor_options;

/*
 * A cursor over the bank as it is at this moment, whatever is written meanwhile
 * and for however long (through a snapshot: as of its moment). It stands before
 * the first entry. In a hash bank it goes from the first to the last entry in no
 * order: no bounds, no other direction, no seeking (KIST_EINVAL).
 *
 * If the range is no longer than a few hundred entries nothing is pinned;
 * else the cursor keeps heap files as a snapshot does, see kist_cursor_stat()
 * and kist_stats.pinned_bytes.
 *
 *   opt    NULL: all entries; copied
 *
 * Owner      the caller; kist_cursor_close(), before its bank is closed
 * Threads    one at a time per cursor
 *
 * Returns    KIST_OK
 *            KIST_EINVAL    a range whose end is before its start, or a hash
 *                           bank's limits
 *            errors as kist_cursor_next() and kist_snapshot_open()
 */
KIST_API KIST_NODISCARD int kist_cursor_open(kist_cursor **out, kist_bank *bank,
                                             const kist_cursor_options *opt);

/*
 * To the next entry, or the one before; from before the first entry, previous
 * goes to the last. Behind an end the cursor stands beyond it: the other call
 * comes back.
 *
 *   entry   receives it; its pointers hold until the next call on the cursor
 *
 * Returns    KIST_OK, KIST_END
 *            KIST_ECORRUPT  this entry is damaged; the next call goes on behind
 *            KIST_EGONE     the bank was dropped; told when more entries have to
 *                           be read: some hundreds are read ahead
 *            KIST_ECLOSED, KIST_EFORK, KIST_ENOMEM, KIST_ELOST, -errno
 */
KIST_API KIST_NODISCARD int kist_cursor_next(kist_cursor *cursor, kist_entry *entry);
KIST_API KIST_NODISCARD int kist_cursor_prev(kist_cursor *cursor, kist_entry *entry);

/* To the first or the last entry. Returns as kist_cursor_next(); KIST_EINVAL:
 * a cursor with a limit, or of a hash bank, does not go to the last.        */
KIST_API KIST_NODISCARD int kist_cursor_first(kist_cursor *cursor, kist_entry *entry);
KIST_API KIST_NODISCARD int kist_cursor_last(kist_cursor *cursor, kist_entry *entry);

enum kist_where {
    KIST_GE = 0, /* the first key >= the given one, in byte order             */
    KIST_LE = 1, /* the last key <= it                                       */
};

/* To the nearest key within the cursor's range, in byte order whatever the
 * cursor's direction is. Returns as kist_cursor_next(), KIST_END: none;
 * KIST_EKEYLEN; KIST_EINVAL: `where`, or a cursor that does not seek.       */
KIST_API KIST_NODISCARD int kist_cursor_seek(kist_cursor *cursor, kist_bytes key,
                                             enum kist_where where, kist_entry *entry);

/* The value of the entry that was handed out last, held; see kist_get_view().
 * Returns    KIST_OK, KIST_ENOMEM, KIST_END: the cursor is at no entry; for a
 *            value over 4 KiB also the errors of kist_cursor_next()         */
KIST_API KIST_NODISCARD int kist_cursor_view(kist_cursor *cursor, kist_view **out);

typedef struct kist_cursor_stats {
    uint32_t size;     /* in: sizeof(kist_cursor_stats)                      */
    uint32_t pinned;   /* 1: it keeps heap files from going; 0 also where its
                          snapshot does                                      */
    uint64_t sequence; /* of the newest write that it sees                   */
    uint64_t handed;   /* entries that were handed out                       */
} kist_cursor_stats;

/* Returns    KIST_OK, or KIST_EINVAL: the size                               */
KIST_API KIST_NODISCARD int kist_cursor_stat(const kist_cursor *cursor, kist_cursor_stats *stats);

/* NULL is a no-op.                                                           */
KIST_API void kist_cursor_close(kist_cursor *cursor);

/* ---- counts and care -------------------------------------------------- */

enum kist_recovery {
    KIST_RECOVERY_NONE = 0,    /* joined living processes, or a clean open   */
    KIST_RECOVERY_REPAIR = 1,  /* after the death of a writing process       */
    KIST_RECOVERY_REBUILD = 2, /* from the heap alone                        */
};

typedef struct kist_stats {
    uint32_t size;             /* in: sizeof(kist_stats)                     */
    uint32_t index_depth;      /* directory of the hash index: 2^depth; levels
                                  of an ordered one                          */
    uint64_t entries;          /* live keys                                  */
    uint64_t deleted;          /* tombstones not yet cleaned                 */
    uint64_t payload_bytes;    /* live keys and values                       */
    uint64_t live_bytes;       /* records of live keys, with header, padding */
    uint64_t wasted_bytes;     /* records that nothing leads to any more     */
    uint64_t heap_file_bytes;  /* sizes of the heap's files                  */
    uint64_t index_file_bytes; /* size of the index file                     */
    uint64_t held_bytes;       /* unlinked heap files that this process or
                                  another still has mapped, as far as known  */
    uint64_t segments;         /* heap files                                 */
    uint64_t longest_search;   /* buckets, or nodes of an ordered index, that
                                  the longest search may visit               */
    uint64_t sequence;         /* of the newest write                        */
    uint64_t unsynced_bytes;   /* written since the last sync                */
    uint64_t generation;       /* of the index                               */
    uint64_t writers;          /* processes that have it open for writing    */
    uint64_t damaged_bytes;    /* passed over by the last rebuild            */
    uint32_t last_recovery;    /* enum kist_recovery                         */
    uint32_t poisoned;         /* 1: a sync failed, see KIST_EPOISON         */
    int64_t last_recovery_ns;  /* when, ns since 1970; 0: never              */
    uint64_t snapshots;        /* that this process has open, cursors with a
                                  pin included                               */
    uint64_t oldest_pin;       /* lowest sequence that a snapshot of any
                                  process needs; 0: none                     */
    uint64_t pinned_bytes;     /* heap files that nothing but snapshots needs */
    uint32_t index;            /* enum kist_index_kind                       */
    uint32_t reserved;
} kist_stats;

/* O(segments). Returns KIST_OK or an error.                                 */
KIST_API KIST_NODISCARD int kist_stat(kist_bank *bank, kist_stats *stats);

/* Live keys, in O(1). Returns KIST_OK or an error.                          */
KIST_API KIST_NODISCARD int kist_count(kist_bank *bank, uint64_t *entries);

/* Bytes of live keys and values, in O(1). Returns KIST_OK or an error.       */
KIST_API KIST_NODISCARD int kist_size_bytes(kist_bank *bank, uint64_t *bytes);

/* wasted / (wasted + live) of the heap's records, 0 to 1, 0 when empty, and
 * after kist_compact() when no snapshot pins anything; O(1).
 * Returns    KIST_OK or an error                                            */
KIST_API KIST_NODISCARD int kist_fragmentation(kist_bank *bank, double *share);

/* How far a long call has come; returns other than 0 to stop it. */
typedef int (*kist_progress)(uint64_t done_bytes, uint64_t all_bytes, void *arg);

/*
 * Give back the space of dead records: move live ones out of every segment
 * that has dead ones, sync, unlink. Readers and writers go on meanwhile. The
 * records of an ordered bank are put in the order of their keys, so that scans
 * read memory in a row. What a snapshot needs stays until a later call, and so does
 * the order of an ordered bank's records as long as one is open.
 *
 *   progress   NULL, or called now and then
 *
 * Returns    KIST_OK, what `progress` returned, or an error as kist_put()
 */
KIST_API KIST_NODISCARD int kist_compact(kist_bank *bank, kist_progress progress, void *arg);

typedef struct kist_report {
    uint32_t size;            /* in: sizeof(kist_report)                     */
    uint32_t reserved;
    uint64_t records;         /* that were read and are whole                */
    uint64_t entries;         /* live keys among them                        */
    uint64_t damaged;         /* records that fail their checksum, and
                                  entries whose heap file is gone or cut     */
    uint64_t damaged_bytes;   /* in them and in unreadable stretches         */
    uint64_t unreachable;     /* live records that the index does not find   */
    char first_file[64];      /* where the first damage is, or ""            */
    uint64_t first_offset;
} kist_report;

/*
 * Read everything and check it: each record against its checksum, the index
 * against the heap and its files. Changes nothing; readers and writers go on.
 *
 * Returns    KIST_OK, KIST_ECORRUPT (the report says what), or an error
 */
KIST_API KIST_NODISCARD int kist_verify(kist_bank *bank, kist_report *report,
                                        kist_progress progress, void *arg);

/*
 * Make a damaged or poisoned bank usable: build the index anew from the heap,
 * and write again what a failed sync may have lost. Whole records are never
 * given up. Other processes' handles go on by themselves.
 *
 *   report   NULL, or what was found while rebuilding
 *
 * Returns    KIST_OK, KIST_EBUSY, what `progress` returned (then nothing was
 *            changed), or an error as kist_put()
 */
KIST_API KIST_NODISCARD int kist_repair(kist_store *store, const char *name, kist_report *report,
                                        kist_progress progress, void *arg);

/* ---- copying ---------------------------------------------------------- */

typedef struct kist_copied {
    uint32_t size;    /* in: sizeof(kist_copied)                              */
    uint32_t banks;   /* in the copy                                         */
    uint64_t entries; /* live keys in all of them                            */
    uint64_t bytes;   /* of heap files that were read                        */
} kist_copied;

/*
 * Copy the whole store to `path`, while any number of processes read and write
 * it. Each bank of the copy holds what the bank held at one moment during the
 * call: all its writes up to some sequence, and none above. Two banks may be
 * copied at different moments. Every record of the copy has been read and
 * checked, everything is synced, and opening it is instant; as it is new, its
 * next sequence is above those of the entries that it has.
 *
 * The copy is made under another name beside `path` ("NAME.copying.", and a
 * number) and renamed at the end: what is at `path` is complete. After a
 * failure that other directory is removed; after a kill it may be left.
 * Nothing of the store changes: it may be opened read-only.
 *
 *   path      must not exist yet, and not lie inside of the store; its parent
 *             must exist
 *   opt       for the store that is made: modes, log, KIST_STORE_ANY_FS; NULL:
 *             all defaults
 *   copied    NULL, or receives what was copied
 *   progress  NULL, or called now and then
 *
 * Returns    KIST_OK, what `progress` returned, or
 *            -EEXIST        there is something at `path`
 *            KIST_EINVAL    `path` is no name, or inside of the store; options
 *            KIST_ECORRUPT  a bank is damaged: no copy was made
 *            KIST_EBUSY     a bank was being recovered all the time
 *            KIST_ENETFS, KIST_EFULL, KIST_EQUOTA, KIST_EFILESIZE
 *            KIST_EFORK, -ENOENT, -EACCES, ... from the system
 */
KIST_API KIST_NODISCARD int kist_store_copy(kist_store *store, const char *path,
                                            const kist_store_options *opt, kist_copied *copied,
                                            kist_progress progress, void *arg);

#ifdef __cplusplus
}
#endif
#endif
