/*
 * Reading dumps, whatever is in them: the same entries come the second time, all
 * within the bytes that were read, and none that could not be put.
 *
 * The input is the dump; one that begins with neither of the two formats gets the
 * head of one, so that not all of them end at the first line.
 */
#include "cli/fail.h"
#include "cli/reader.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t entries, bytes, sum;
};

static int add(kist_bytes key, kist_bytes value, void *arg)
{
    struct seen *seen = arg;
    const uint8_t *k = key.data, *v = value.data;

    seen->entries++;
    seen->bytes += key.len + value.len;
    for (size_t i = 0; i < key.len; i++)
        seen->sum = seen->sum * 31 + k[i];
    for (size_t i = 0; i < value.len; i++)
        seen->sum = seen->sum * 37 + v[i];
    return STATUS_DONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const heads[] = { "", "{\"key\":\"", "VERSION=3\nformat=print\nHEADER=END\n",
                                         "VERSION=3\nHEADER=END\n " };
    const char *head = size > 0 ? heads[data[0] & 3] : "";
    size_t head_len = strlen(head), len = head_len + size;
    char *dump = malloc(len + 1);
    struct seen first = { 0, 0, 0 }, second = { 0, 0, 0 };
    struct reader r = { .name = "dump", .size = (off_t)len };
    int status;

    if (dump == NULL)
        return 0;
    memcpy(dump, head, head_len);
    memcpy(dump + head_len, data, size);
    r.in = len > 0 ? fmemopen(dump, len, "r") : NULL;
    if (r.in != NULL) {
        status = reader_each(&r, add, &first);
        if (reader_each(&r, add, &second) != status || memcmp(&first, &second, sizeof first) != 0 ||
            first.bytes > len)
            abort();
        reader_close(&r);
    }
    free(dump);
    return 0;
}
