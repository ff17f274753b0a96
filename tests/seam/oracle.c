/* oracle.c - see oracle.h. */
#include "seam/oracle.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct oracle *oracle_new(void)
{
    return shared_memory(sizeof(struct oracle));
}

void oracle_free(struct oracle *o)
{
    if (o)
        (void)munmap(o, sizeof *o);
}

void oracle_reset(struct oracle *o, const struct content *base)
{
    o->ops = 0;
    o->kepts = 0;
    o->base = base ? *base : (struct content){ 0 };
    o->now = o->base;
}

/* ---- keys and values -------------------------------------------------- */

/* Key 0 is empty, now and then one is long, the rest are short. */
size_t oracle_key(const struct oracle *o, uint32_t key, void *buf)
{
    size_t len =
        key == 0 ? 0 : (size_t)snprintf(buf, KEY_MOST, "key-%x-%u", (unsigned)o->seed & 15, key);

    if (key % 29 == 7) {
        memset((char *)buf + len, 'k', KEY_MOST - len);
        len = KEY_MOST;
    }
    return len;
}

size_t oracle_value_len(const struct oracle *o, uint32_t key, uint32_t version)
{
    uint64_t h = mix(mix(o->seed, key), version);
    uint32_t most = o->small_len;

    if (h % 61 == 0)
        return 0;
    h >>= 8;
    if (o->large_each && h % o->large_each == 0)
        most = o->large_len;
    return 8 + (size_t)((h >> 8) % (most - 7));
}

static void put_word(uint8_t *at, size_t room, uint64_t word)
{
    memcpy(at, &word, room < 8 ? room : 8);
}

/* The version in front, so that it can be told; then what proves it. */
size_t oracle_value(const struct oracle *o, uint32_t key, uint32_t version, void *buf)
{
    struct rng rng = { mix(mix(o->seed, version), key) };
    size_t len = oracle_value_len(o, key, version);
    uint8_t *p = buf;

    if (len > 0)
        put_word(p, 8, version | (uint64_t)key << 32);
    for (size_t at = 8; at < len; at += 8)
        put_word(p + at, len - at, rng_next(&rng));
    return len;
}

uint32_t oracle_version(const struct oracle *o, uint32_t key, kist_bytes value)
{
    static _Thread_local uint8_t want[VALUE_MOST];
    uint32_t version;

    if (value.len == 0)
        return VERSION_EMPTY;
    if (value.len < 8)
        return VERSION_WRONG;
    memcpy(&version, value.data, sizeof version);
    if (version == 0 || oracle_value_len(o, key, version) != value.len)
        return VERSION_WRONG;
    (void)oracle_value(o, key, version, want);
    return memcmp(want, value.data, value.len) == 0 ? version : VERSION_WRONG;
}

bool replace_holds(const struct oracle *o, uint32_t version, uint32_t key)
{
    return mix(mix(o->seed, version), key ^ 0x7e91ace) % 3 == 0;
}

enum batch_does batch_does(const struct oracle *o, uint32_t version, uint32_t key)
{
    switch (mix(mix(o->seed, version), key ^ 0xba7c4) % 6) {
    case 0:
    case 1:
        return BATCH_PUTS;
    case 2:
        return BATCH_DELETES;
    default:
        return BATCH_LEAVES;
    }
}

/* ---- operations ------------------------------------------------------- */

struct op *oracle_begin(struct oracle *o, enum op_kind kind, uint32_t key, uint64_t at)
{
    struct op *op = &o->op[o->ops];

    must(o->ops < OPS_MAX && key < o->keys);
    *op = (struct op){ .kind = (uint8_t)kind, .key = key, .begin = at, .end = UINT64_MAX };
    if (kind == OP_PUT || kind == OP_INSERT || kind == OP_PUT_IF || kind == OP_REPLACE ||
        kind == OP_BATCH)
        op->version = ++o->version;
    op->changes = true; /* what it may do; oracle_end() knows */
    atomic_thread_fence(memory_order_release);
    o->ops++;
    return op;
}

uint32_t oracle_keep(struct oracle *o)
{
    must(o->kepts < KEPT_MAX);
    o->kept[o->kepts] = o->now;
    return o->kepts++;
}

static bool makes_durable(const struct oracle *o, enum op_kind kind)
{
    switch (kind) {
    case OP_SYNC:
    case OP_CLOSE:
    case OP_OPEN: /* making a bank is durable, and so is what recovery found */
    case OP_DROP:
    case OP_REPAIR:
        return true;
    case OP_COMPACT:
        return false;
    default:
        return o->always;
    }
}

void oracle_end(struct oracle *o, struct op *op, int rc, uint64_t at)
{
    op->changes = rc == KIST_OK;
    op->durable = rc == KIST_OK && makes_durable(o, (enum op_kind)op->kind);
    content_apply(o, &o->now, op);
    atomic_thread_fence(memory_order_release); /* a killed process leaves it whole */
    op->end = at;
}

void content_apply(const struct oracle *o, struct content *c, const struct op *op)
{
    if (!op->changes)
        return;
    switch (op->kind) {
    case OP_OPEN:
        c->exists = true;
        break;
    case OP_PUT:
    case OP_INSERT:
    case OP_PUT_IF:
        c->version[op->key] = op->version;
        break;
    case OP_DELETE:
        c->version[op->key] = 0;
        break;
    case OP_DROP:
        c->exists = false;
        memset(c->version, 0, sizeof c->version);
        break;
    case OP_CLEAR:
        memset(c->version, 0, sizeof c->version);
        break;
    case OP_REPLACE:
        for (uint32_t k = 0; k < o->keys; k++)
            c->version[k] = replace_holds(o, op->version, k) ? op->version : 0;
        break;
    case OP_BATCH:
        for (uint32_t k = 0; k < o->keys; k++)
            if (batch_does(o, op->version, k) != BATCH_LEAVES)
                c->version[k] = batch_does(o, op->version, k) == BATCH_PUTS ? op->version : 0;
        break;
    case OP_RESTORE:
    case OP_REVERT:
        memcpy(c->version, o->kept[op->kept].version, sizeof c->version);
        break;
    default:
        break;
    }
}

uint64_t content_count(const struct oracle *o, const struct content *c)
{
    uint64_t n = 0;

    for (uint32_t k = 0; k < o->keys; k++)
        n += c->version[k] != 0;
    return n;
}

static bool version_is(const struct oracle *o, uint32_t key, uint32_t want, uint32_t seen)
{
    if (want == seen)
        return true;
    return seen == VERSION_EMPTY && want != 0 && oracle_value_len(o, key, want) == 0;
}

bool content_is(const struct oracle *o, const struct content *want, const struct content *seen)
{
    if (want->exists != seen->exists)
        return false;
    for (uint32_t k = 0; k < o->keys; k++)
        if (!version_is(o, k, want->version[k], seen->version[k]))
            return false;
    return true;
}

struct span oracle_span(const struct oracle *o, uint64_t cut)
{
    struct span s = { 0 };

    for (uint32_t i = 0; i < o->ops && o->op[i].begin < cut; i++) {
        s.begun = i + 1;
        if (o->op[i].end > cut)
            break;
        s.acked = i + 1;
        if (o->op[i].durable)
            s.durable = i + 1;
    }
    return s;
}

/* Keys at which both differ; one more if only one of the banks exists. */
static uint32_t differences(const struct oracle *o, const struct content *a,
                            const struct content *seen)
{
    uint32_t n = a->exists != seen->exists;

    for (uint32_t k = 0; k < o->keys; k++)
        n += !version_is(o, k, a->version[k], seen->version[k]);
    return n;
}

int64_t oracle_match(const struct oracle *o, uint32_t from, uint32_t to, const struct content *seen)
{
    struct content c = o->base;
    uint32_t off;

    for (uint32_t i = 0; i < from; i++)
        content_apply(o, &c, &o->op[i]);
    off = differences(o, &c, seen);
    for (uint32_t i = from;; i++) {
        const struct op *op = &o->op[i];
        uint32_t k = op->key;
        bool single = op->kind != OP_CLEAR && op->kind != OP_REPLACE && op->kind != OP_DROP &&
                      op->kind != OP_OPEN && op->kind != OP_BATCH && op->kind != OP_RESTORE &&
                      op->kind != OP_REVERT;

        if (off == 0)
            return i;
        if (i >= to)
            return -1;
        off -= single && !version_is(o, k, c.version[k], seen->version[k]);
        content_apply(o, &c, op);
        off += single && !version_is(o, k, c.version[k], seen->version[k]);
        if (!single)
            off = differences(o, &c, seen);
    }
}

bool oracle_match_each(const struct oracle *o, uint32_t from, uint32_t to,
                       const struct content *seen)
{
    bool known[KEYS_MAX] = { false };
    struct content c = o->base;

    for (uint32_t i = 0; i <= to; i++) {
        for (uint32_t k = 0; i >= from && k < o->keys; k++)
            known[k] |= version_is(o, k, c.version[k], seen->version[k]);
        if (i < to)
            content_apply(o, &c, &o->op[i]);
    }
    for (uint32_t k = 0; k < o->keys; k++)
        if (!known[k])
            return false;
    return true;
}

const char *oracle_op_text(const struct oracle *o, uint32_t index)
{
    static const char *const names[] = {
        "open",    "put",  "insert",  "put_if", "delete", "clear",
        "replace", "sync", "compact", "close",  "drop",   "repair",
        "batch",   "restore", "revert"
    };
    static char text[96];

    if (index >= o->ops)
        return "no operation";
    (void)snprintf(text, sizeof text, "op %u %s(%u) version %u", index, names[o->op[index].kind],
                   o->op[index].key, o->op[index].version);
    return text;
}
