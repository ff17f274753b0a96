/*
 * The index of an ordered bank, node by node from the root, as docs/format.md
 * describes it. A node leads to lower levels only, so that it comes to an end; one
 * that many words lead to could still be met often, and so bytes are counted.
 */
#include "format.h"
#include "inspect.h"

#include <inttypes.h>

struct node {
    uint64_t word, at, bytes;
    unsigned level;
    uint64_t children, prefix_len; /* of an inner node */
};

static struct node node_of(uint64_t word)
{
    return (struct node){
        .word = word,
        .at = word & ORD_OFFSET_MASK,
        .bytes = (word >> 48) * ORD_UNIT,
        .level = (unsigned)(word & 0xff),
    };
}

/* It lies in the file, and below `level`. */
static bool is_inside(struct inspect *in, const struct node *n, unsigned level)
{
    if (n->at == 0 || n->bytes == 0 || n->at > in->file.len || n->bytes > in->file.len - n->at) {
        inspect_damaged(in, n->at, "a word of the tree leads out of the file");
        return false;
    }
    if (n->level >= level || (n->level == 0 && n->bytes != ORD_UNIT)) {
        inspect_damaged(in, n->at, "a word of the tree leads to a node that cannot be there");
        return false;
    }
    in->walked += n->bytes;
    if (in->walked > 2 * in->file.len) { /* twice: one in use may move meanwhile */
        inspect_damaged(in, n->at, "the tree leads to the same nodes again and again");
        return false;
    }
    return true;
}

/* ---- leaves -------------------------------------------------------------- */

static bool inspect_leaf(struct inspect *in, const struct node *n)
{
    unsigned char leaf[ORD_UNIT];
    uint64_t entries, skip;

    if (!inspect_read(in, n->at, leaf, sizeof leaf))
        return false;
    skip = number(leaf, 0, 2);
    entries = number(leaf, ORD_ORDER_AT, 8) & 15;
    if (inspect_is_json(in)) {
        inspect_json(in, "leaf", n->at);
        json_u64("entries", entries);
        json_u64("slots", ORD_WAYS);
        json_u64("skip", skip);
        json_end();
    } else {
        out_text("  %10" PRIu64 "  leaf, %" PRIu64 " of %d entries used, %" PRIu64
                 " bytes of each key skipped\n",
                 n->at, entries, ORD_WAYS, skip);
    }
    return true;
}

/* ---- inner nodes ----------------------------------------------------------- */

/* Behind the prefix. */
static uint64_t heads_at(const struct node *n)
{
    return ORD_INNER_HEADER + (n->prefix_len + 7) / 8 * 8;
}

static void print_inner(struct inspect *in, const struct node *n)
{
    if (inspect_is_json(in)) {
        inspect_json(in, "node", n->at);
        json_u64("bytes", n->bytes);
        json_u64("level", n->level);
        json_u64("children", n->children);
        json_u64("prefix_bytes", n->prefix_len);
        json_end();
        return;
    }
    out_text("  %10" PRIu64 "  node of level %u, %" PRIu64 " bytes, %" PRIu64
             " children, prefix of %" PRIu64 " ",
             n->at, n->level, n->bytes, n->children, n->prefix_len);
    inspect_preview(in, n->at + ORD_INNER_HEADER, n->prefix_len);
    out_text("\n");
}

/* What it says of itself has to fit into it. */
static bool read_inner(struct inspect *in, struct node *n)
{
    unsigned char header[ORD_INNER_HEADER];
    uint64_t separators, suffixes;

    if (!inspect_read(in, n->at, header, sizeof header))
        return false;
    separators = number(header, 2, 2);
    suffixes = number(header, 8, 4);
    n->children = separators + 1;
    n->prefix_len = number(header, 4, 2);
    if (separators >= ORD_FANOUT || number(header, 0, 1) != n->level ||
        heads_at(n) + 8 * separators + 8 * n->children + 8 * ((separators + 1) / 2) + suffixes >
            n->bytes) {
        inspect_damaged(in, n->at, "a node contradicts itself, or the word that leads to it");
        return false;
    }
    return true;
}

/* A node and all below it. False: it makes no sense to go on. The recursion is as
 * deep as there are levels. */
static bool inspect_node(struct inspect *in, uint64_t word, unsigned level)
{
    struct node n = node_of(word);
    uint64_t child;

    if (!is_inside(in, &n, level))
        return in->walked <= 2 * in->file.len;
    if (n.level == 0)
        return inspect_leaf(in, &n);
    if (!read_inner(in, &n))
        return !in->broken;
    print_inner(in, &n);
    for (uint64_t i = 0; i < n.children && !out_failed(); i++) {
        if (kist_pages_get_u64_le(in->file.pages, n.at + heads_at(&n) + 8 * (n.children - 1 + i),
                                  &child) != KIST_OK)
            return false; /* it was compared with the file's length before */
        if (child != 0 && !inspect_node(in, child, n.level))
            return false;
    }
    return true;
}

/* ---- the file ---------------------------------------------------------------- */

void inspect_ordered(struct inspect *in, const unsigned char *header)
{
    uint64_t root = number(header, ORD_ROOT_AT, 8), pages = number(header, ORD_FRESH_AT, 8);
    struct node top = node_of(root);

    if (inspect_is_json(in)) {
        inspect_json(in, "index", 0);
        json_text("kind", "ordered");
        json_u64("file_bytes", in->file.len);
        json_u64("generation", number(header, IDX_GENERATION_AT, 8));
        json_u64("root", top.at);
        json_u64("level", top.level);
        json_u64("pages", pages);
        inspect_json_hex("bank_id", header + IDX_BANK_AT, 16);
        json_end();
    } else {
        out_text("%s: ordered index, generation %" PRIu64 ", %" PRIu64
                 " bytes, root of level %u at "
                 "%" PRIu64 ", %" PRIu64 " pages given out\n",
                 in->file.name, number(header, IDX_GENERATION_AT, 8), in->file.len, top.level,
                 top.at, pages);
    }
    in->walked = 0;
    if (root != 0)
        (void)inspect_node(in, root, ORD_LEVEL_MAX + 1);
}
