/*
 * hash.c - files, walking and checking of the hash index. How it grows is in
 * hash_grow.c, how it is searched in hash.h.
 */
#include "index/hash.h"

#include "base/os.h"
#include "kist/kist.h"

enum { WALK_TIMES = 4, KEYS_PER_BLOCK = 350, KEYS_IN_FIRST = 180 };

static const struct index_kind hash_kind = { .format = HASH_FORMAT, .kind = KIST_INDEX_HASH };

void hash_name(char out[HASH_NAME_MAX], uint64_t generation)
{
    index_name(out, generation);
}

/* ---- making ----------------------------------------------------------- */

/* 2^depth blocks are what `expect` keys need; 0: the first block will do. */
static unsigned depth_for(uint64_t expect)
{
    unsigned depth = 0;

    if (expect <= KEYS_IN_FIRST)
        return 0;
    while (depth < 24 && (expect >> depth) > KEYS_PER_BLOCK)
        depth++;
    return depth;
}

static uint64_t dir_pages(unsigned depth)
{
    return depth <= HASH_DIR_DEPTH ? 0 : ((UINT64_C(8) << depth) + HASH_PAGE - 1) / HASH_PAGE;
}

static size_t first_len(uint64_t expect)
{
    unsigned depth = depth_for(expect);
    uint64_t blocks = expect <= KEYS_IN_FIRST ? 0 : UINT64_C(1) << depth;

    return index_round((size_t)(1 + dir_pages(depth) + blocks) * HASH_PAGE);
}

/* Write an empty index into zeroed memory of first_len(expect) bytes. */
static void format_empty(struct hash_index *ix, uint64_t expect)
{
    unsigned depth = depth_for(expect);
    uint64_t dir = depth <= HASH_DIR_DEPTH ? HASH_DIR_AT : HASH_PAGE;
    uint64_t block = (1 + dir_pages(depth)) * HASH_PAGE;
    shm_word *entry = (shm_word *)(ix->base + dir);

    if (expect <= KEYS_IN_FIRST)
        shm_store(entry, entry_make(HASH_BLOCK_AT, HASH_BLOCK_LG, 0));
    else
        for (uint64_t i = 0; i < UINT64_C(1) << depth; i++)
            shm_store(entry + i, entry_make(block + i * HASH_PAGE, HASH_LG, depth));
    shm_publish(&((struct hash_file *)ix->base)->root, root_make(dir, depth));
}

static struct hash_index *index_new(uint64_t generation)
{
    struct hash_index *ix = os_alloc(sizeof *ix);

    if (ix)
        index_file_init(&ix->file, &hash_kind, generation);
    return ix;
}

int hash_create(struct hash_index **out, int dir, uint32_t mode, const uint8_t bank_id[16],
                uint64_t generation, uint64_t expect)
{
    struct hash_index *ix = index_new(generation);
    int rc;

    if (!ix)
        return KIST_ENOMEM;
    rc = index_file_create(&ix->file, dir, mode, &hash_kind, bank_id, first_len(expect));
    if (rc < 0) {
        hash_close(ix);
        return rc;
    }
    format_empty(ix, expect);
    *out = ix;
    return KIST_OK;
}

int hash_create_private(struct hash_index **out, const uint8_t bank_id[16], uint64_t expect)
{
    struct hash_index *ix = index_new(1);
    int rc;

    if (!ix)
        return KIST_ENOMEM;
    rc = index_file_create_private(&ix->file, &hash_kind, bank_id, first_len(expect));
    if (rc < 0) {
        hash_close(ix);
        return rc;
    }
    format_empty(ix, expect);
    *out = ix;
    return KIST_OK;
}

/* ---- opening ---------------------------------------------------------- */

int hash_open(struct hash_index **out, int fd, const uint8_t bank_id[16], uint64_t generation,
              bool writable)
{
    struct hash_index *ix = index_new(generation);
    int rc;

    if (!ix) {
        (void)os_close(fd);
        return KIST_ENOMEM;
    }
    rc = index_file_open(&ix->file, fd, &hash_kind, bank_id, writable);
    if (rc < 0) {
        hash_close(ix);
        return rc;
    }
    *out = ix;
    return KIST_OK;
}

void hash_space_drop(struct hash_space *space); /* hash_grow.c */

void hash_close(struct hash_index *ix)
{
    if (!ix)
        return;
    hash_space_drop(ix->space);
    index_file_close(&ix->file);
    os_free(ix);
}

/* ---- walking and checking --------------------------------------------- */

static uint64_t root_of(const struct hash_index *ix)
{
    return shm_read(&((struct hash_file *)ix->base)->root);
}

/* The entry for a hash in the directory of this root, both checked; 0: damage. */
static uint64_t entry_of(const struct hash_index *ix, uint64_t root, uint64_t hash)
{
    uint64_t len = atomic_load_explicit(&ix->len, memory_order_acquire);
    uint64_t entry;

    if (root_depth(root) > HASH_DEPTH_MAX || root_offset(root) >= len ||
        len - root_offset(root) < UINT64_C(8) << root_depth(root))
        return 0;
    entry =
        shm_read((shm_word *)(ix->base + root_offset(root)) + hash_prefix(hash, root_depth(root)));
    if (entry_depth(entry) > root_depth(root) || entry_lg(entry) > HASH_LG_MAX ||
        entry_offset(entry) >= len || len - entry_offset(entry) < UINT64_C(64) << entry_lg(entry))
        return 0;
    return entry;
}

bool hash_walk(const struct hash_index *ix, struct hash_cursor *c, uint64_t *slots, size_t cap,
               size_t *n)
{
    uint64_t entry = entry_of(ix, root_of(ix), c->next), end, seen = c->seen;
    const struct hash_bucket *b;
    unsigned depth = entry_depth(entry);

    *n = 0;
    if (entry == 0)
        return false;
    /* ⚑ Blocks cover ranges of their own: many entries that lead to one large
     * block are damage, which would be walked again and again (I5). */
    if (c->generation != ix->generation)
        seen = 0;
    seen += UINT64_C(64) << entry_lg(entry);
    if (seen / WALK_TIMES > atomic_load_explicit(&ix->len, memory_order_relaxed))
        return false;
    b = (const void *)(ix->base + entry_offset(entry));
    for (uint64_t i = 0; i < UINT64_C(1) << entry_lg(entry); i++) {
        for (unsigned w = 0; w < HASH_WAYS; w++) {
            uint64_t slot = shm_read(&b[i].slot[w]) & ~SLOT_OVERFLOW;

            if (slot_loc(slot) == 0)
                continue;
            if (*n < cap)
                slots[*n] = slot;
            ++*n;
        }
    }
    if (*n > cap)
        return false;
    /* Another index than before may have blocks that begin earlier. */
    c->floor = depth == 0 || hash_prefix(c->next, depth) << (64 - depth) < c->next ? c->next : 0;
    end = depth == 0 ? 0 : (hash_prefix(c->next, depth) + 1) << (64 - depth);
    c->generation = ix->generation;
    c->seen = seen;
    c->done = end == 0; /* past the last range */
    c->next = end;
    return true;
}

bool hash_check(const struct hash_index *ix, struct hash_facts *out)
{
    uint64_t root = root_of(ix), run; /* one root for all: a writer may publish another */
    unsigned depth = root_depth(root);
    const shm_word *dir;

    *out = (struct hash_facts){ .depth = depth, .longest = HASH_REACH };
    if (entry_of(ix, root, 0) == 0)
        return false;
    dir = (const void *)(ix->base + root_offset(root));
    for (uint64_t i = 0; i < UINT64_C(1) << depth; i += run) {
        uint64_t entry = entry_of(ix, root, depth == 0 ? 0 : i << (64 - depth));

        if (entry == 0) /* H1 */
            return false;
        run = UINT64_C(1) << (depth - entry_depth(entry));
        if (i % run != 0)
            return false;
        for (uint64_t k = 1; k < run; k++)
            if (shm_read(&dir[i + k]) != entry) /* H2 */
                return false;
        if (entry_lg(entry) > HASH_LG && UINT64_C(1) << entry_lg(entry) > out->longest)
            out->longest = UINT64_C(1) << entry_lg(entry);
    }
    return true;
}
