/*
 * Some thousand random inputs for open_fuzz.c, where no libFuzzer is: each in
 * a child, so that one that dies is named and the rest goes on. Not a search,
 * only a proof that the target lives and holds.
 */
#include "open_fuzz.c"

#include <inttypes.h>

enum { INPUTS = 4000, LONGEST = 400 };

static struct row row = { .id = "fuzz-open" };

/* Patches that mean something: small numbers, all ones, single bits, and
 * bytes from anywhere. */
static size_t patch_bytes(struct rng *rng, uint8_t *out, size_t room)
{
    size_t n = 1 + rng_below(rng, room < 16 ? room : 16);
    uint64_t word = rng_next(rng);

    if (rng_below(rng, 4) == 0)
        word = rng_below(rng, 64);
    else if (rng_below(rng, 4) == 0)
        word = UINT64_MAX << rng_below(rng, 64);
    else if (rng_below(rng, 4) == 0)
        word = UINT64_C(1) << rng_below(rng, 64);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(word >> i % 8 * 8);
    return n;
}

/* What is to happen to one file. */
static size_t file_make(struct rng *rng, uint8_t *out, size_t room)
{
    size_t size = INPUT_HEAD;
    uint64_t patches = rng_below(rng, 6);

    for (size_t i = 0; i < INPUT_HEAD; i++)
        out[i] = (uint8_t)rng_next(rng);
    if (rng_below(rng, 4) != 0)
        out[1] &= (uint8_t) ~(CUT | GROW);
    while (patches-- > 0 && size + 20 < room) {
        /* Most of what can be forged stands in the first pages. */
        uint64_t at = rng_below(rng, 2) ? rng_below(rng, 128) : rng_below(rng, 65536);
        size_t n = patch_bytes(rng, out + size + 3, room - size - 3);
        out[size] = (uint8_t)at;
        out[size + 1] = (uint8_t)(at >> 8);
        out[size + 2] = (uint8_t)n;
        size += 3 + n;
    }
    return size;
}

/* Mostly one file, at times two. */
static size_t input_make(struct rng *rng, uint8_t *out)
{
    size_t size = file_make(rng, out, LONGEST / 2);

    if (rng_below(rng, 3) == 0) {
        memset(out + size, 0, 3);
        size += 3 + file_make(rng, out + size + 3, LONGEST - size - 3);
    }
    return size;
}

static void run_input(uint64_t n, void *arg)
{
    struct rng rng = { mix(test_seed(), n) };
    uint8_t input[LONGEST];

    (void)arg;
    (void)LLVMFuzzerTestOneInput(input, input_make(&rng, input));
}

static void input_died(uint64_t n, int status, void *arg)
{
    (void)arg;
    row.failures++;
    printf("input %" PRIu64 " died with status %#x\n", n, (unsigned)status);
}

TEST(hostile_files_give_no_crash_and_no_hang)
{
    struct batch batch = { run_input, input_died, NULL };

    row.cases = test_scaled(INPUTS);
    (void)LLVMFuzzerInitialize(NULL, NULL);
    batch_run(&batch, 0, row.cases);
    row_print(&row);
    must(row.failures == 0);
}
