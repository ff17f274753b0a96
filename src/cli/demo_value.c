/*
 * The values of the demonstration: a file's bytes, mixed with the version so
 * that each version differs from every other in each word.
 *
 *     +---------+--------+-------+-------+----------------+---------+--------+
 *     | version | length | entry | seal  | file's bytes,  | version | ~seal  |
 *     |         |        |       |       | mixed          |         |        |
 *     +---------+--------+-------+-------+----------------+---------+--------+
 *       8         8        8       8       length           8         8
 *
 * A value of two versions, of another entry, or with a piece in another place
 * cannot pass: the mixing depends on version, entry and position.
 */
#include "demo.h"

#include <string.h>

static const uint64_t odd = 0x9E3779B97F4A7C15u;

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * odd ^ (b + odd);

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static uint64_t load_word(const unsigned char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return word;
}

static void store_word(unsigned char *p, uint64_t word)
{
    memcpy(p, &word, sizeof word);
}

static uint64_t seal(uint64_t version, uint64_t len, uint64_t index)
{
    return mix(mix(version, len), index);
}

void value_make(unsigned char *out, const struct demo *d, size_t index, uint64_t version)
{
    const struct entry *e = &d->entries[index];
    const unsigned char *from = d->corpus + e->at;
    unsigned char *body = out + VALUE_HEAD, *tail = body + e->size;
    uint64_t key = mix(version, index);
    size_t i = 0;

    store_word(out, version);
    store_word(out + 8, e->size);
    store_word(out + 16, index);
    store_word(out + 24, seal(version, e->size, index));
    for (; i + 8 <= e->size; i += 8)
        store_word(body + i, load_word(from + i) ^ (key + i * odd));
    for (; i < e->size; i++)
        body[i] = (unsigned char)(from[i] ^ (key + i * odd));
    store_word(tail, version);
    store_word(tail + 8, ~seal(version, e->size, index));
}

static uint64_t bytes_apart(uint64_t difference)
{
    uint64_t n = 0;

    for (; difference != 0; difference >>= 8)
        n += (difference & 255) != 0;
    return n;
}

/* The body again, slowly, to count. */
static uint64_t count_wrong(const unsigned char *body, const unsigned char *from, size_t len,
                            uint64_t key)
{
    uint64_t wrong = 0;
    size_t i = 0;

    for (; i + 8 <= len; i += 8)
        wrong += bytes_apart(load_word(body + i) ^ load_word(from + i) ^ (key + i * odd));
    for (; i < len; i++)
        wrong += (unsigned char)(body[i] ^ from[i] ^ (key + i * odd)) != 0;
    return wrong;
}

static bool body_is_whole(const unsigned char *body, const unsigned char *from, size_t len,
                          uint64_t key)
{
    uint64_t difference = 0;
    size_t i = 0;

    for (; i + 8 <= len; i += 8)
        difference |= load_word(body + i) ^ load_word(from + i) ^ (key + i * odd);
    for (; i < len; i++)
        difference |= (unsigned char)(body[i] ^ from[i] ^ (key + i * odd));
    return difference == 0;
}

uint64_t value_check(kist_bytes value, const struct demo *d, size_t index, uint64_t *version)
{
    const struct entry *e = &d->entries[index];
    const unsigned char *p = value.data, *body, *tail;
    uint64_t v, key, wrong = 0;

    if (value.len != value_len(e))
        return value.len > value_len(e) ? value.len : value_len(e);
    body = p + VALUE_HEAD;
    tail = body + e->size;
    v = load_word(p);
    key = mix(v, index);
    wrong += bytes_apart(load_word(p + 8) ^ e->size);
    wrong += bytes_apart(load_word(p + 16) ^ index);
    wrong += bytes_apart(load_word(p + 24) ^ seal(v, e->size, index));
    wrong += bytes_apart(load_word(tail) ^ v);
    wrong += bytes_apart(load_word(tail + 8) ^ ~seal(v, e->size, index));
    if (!body_is_whole(body, d->corpus + e->at, e->size, key))
        wrong += count_wrong(body, d->corpus + e->at, e->size, key);
    if (wrong == 0)
        *version = v;
    return wrong;
}
