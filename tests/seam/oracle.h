/*
 * oracle - what was asked of a bank, and what it must hold after that.
 *
 * Keys are numbers 0 .. keys - 1; each write gives its key a new version.
 * A key's bytes and a value's length and bytes follow from (seed, key,
 * version), so that any value can be checked for being whole and told which
 * write it came from. Operations stand in a list with the log's length when
 * they began and when they were acknowledged, so that for any cut of the log
 * it is known which were acknowledged, which one was under way, and up to
 * which all must be durable.
 *
 * An oracle lives in memory that forked children share. It is written by one
 * process at a time.
 */
#ifndef KIST_TESTS_SEAM_ORACLE_H
#define KIST_TESTS_SEAM_ORACLE_H

#include "seam/log.h"
#include "support.h"

enum { KEYS_MAX = 1024, OPS_MAX = 1 << 16, VALUE_MOST = 3 << 19, KEPT_MAX = 8 };

enum op_kind {
    OP_OPEN, /* the bank is made if it is missing */
    OP_PUT,
    OP_INSERT, /* if absent */
    OP_PUT_IF, /* if its sequence is the one that was read */
    OP_DELETE,
    OP_CLEAR,
    OP_REPLACE, /* by the keys that replace_holds() names */
    OP_SYNC,
    OP_COMPACT,
    OP_CLOSE,
    OP_DROP,
    OP_REPAIR,
    OP_BATCH, /* what batch_does() says of each key, all at once */
    OP_RESTORE, /* from what was saved: back to a content that was kept */
    OP_REVERT,  /* the same, to a snapshot */
};

struct op {
    uint8_t kind;
    bool durable; /* once acknowledged, all up to it survives a power cut */
    bool changes; /* it succeeded, and was not one that found nothing to do */
    uint32_t key;
    uint32_t version;
    uint32_t kept; /* which content a restore or revert goes back to */
    uint64_t begin, end; /* the log's length; end UINT64_MAX: not yet */
};

/* What a bank holds: the version of each key, 0: none. */
struct content {
    bool exists;
    uint32_t version[KEYS_MAX];
};

struct oracle {
    uint64_t seed;
    uint32_t keys;
    uint32_t small_len; /* most values are up to so long */
    uint32_t large_len; /* one in `large_each` up to so long; 0: none */
    uint32_t large_each;
    bool always;      /* each write is durable when acknowledged */
    uint32_t version; /* the last one given */
    uint32_t ops;
    struct content base; /* before the first operation */
    struct content now;  /* after the last that was acknowledged */
    uint32_t kepts;
    struct content kept[KEPT_MAX];
    struct op op[OPS_MAX];
};

struct oracle *oracle_new(void);
void oracle_free(struct oracle *o);
/* No operations any more; `base` is what the bank holds. */
void oracle_reset(struct oracle *o, const struct content *base);

/* ---- keys and values -------------------------------------------------- */

enum { KEY_MOST = 300 };

size_t oracle_key(const struct oracle *o, uint32_t key, void *buf);
size_t oracle_value_len(const struct oracle *o, uint32_t key, uint32_t version);
size_t oracle_value(const struct oracle *o, uint32_t key, uint32_t version, void *buf);

/* The version that the value has; VERSION_EMPTY if it has no bytes, and
 * VERSION_WRONG when it is no value of that key. */
#define VERSION_EMPTY UINT32_MAX
#define VERSION_WRONG (UINT32_MAX - 1)
uint32_t oracle_version(const struct oracle *o, uint32_t key, kist_bytes value);

/* Does the content that replaced the bank at `version` hold the key? */
bool replace_holds(const struct oracle *o, uint32_t version, uint32_t key);

/* What the batch that made `version` does with the key. */
enum batch_does { BATCH_LEAVES, BATCH_PUTS, BATCH_DELETES };
enum batch_does batch_does(const struct oracle *o, uint32_t version, uint32_t key);

/* ---- operations ------------------------------------------------------- */

struct op *oracle_begin(struct oracle *o, enum op_kind kind, uint32_t key, uint64_t at);
/* `rc` is what kist returned: KIST_OK means that it took effect. */
void oracle_end(struct oracle *o, struct op *op, int rc, uint64_t at);

/* Keep what the bank holds now, for OP_RESTORE and OP_REVERT; its number. */
uint32_t oracle_keep(struct oracle *o);

void content_apply(const struct oracle *o, struct content *c, const struct op *op);
uint64_t content_count(const struct oracle *o, const struct content *c);
/* `seen` may have VERSION_EMPTY where the version wanted is an empty value. */
bool content_is(const struct oracle *o, const struct content *want, const struct content *seen);

/* What must hold when the log is cut after its first `cut` events. */
struct span {
    uint32_t durable; /* so many operations survive a power cut */
    uint32_t acked;   /* so many survive a kill */
    uint32_t begun;   /* and no more than these can be seen */
};
struct span oracle_span(const struct oracle *o, uint64_t cut);

/* The least n in [from, to] for which the first n operations lead to what was
 * seen; -1 if there is none. */
int64_t oracle_match(const struct oracle *o, uint32_t from, uint32_t to,
                     const struct content *seen);

/* Each key by itself has a version that it had after some n operations, n in
 * [from, to]: what is left when later records outlive earlier ones. */
bool oracle_match_each(const struct oracle *o, uint32_t from, uint32_t to,
                       const struct content *seen);

/* "op 17 put(3) version 12", in a static buffer. */
const char *oracle_op_text(const struct oracle *o, uint32_t index);

#endif
