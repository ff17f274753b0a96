/* pages.c - free pages of an index file. */
#include "index/pages.h"

#include "base/os.h"
#include "index/file.h"
#include "kist/kist.h"

#include <string.h>

int pages_resize(struct pages *p, uint64_t count)
{
    uint8_t *used = os_resize(p->used, count);

    if (!used)
        return KIST_ENOMEM;
    p->used = used;
    if (count > p->count)
        memset(used + p->count, 0, count - p->count);
    p->count = count;
    return 0;
}

void pages_drop(struct pages *p)
{
    os_free(p->used);
    *p = (struct pages){ 0 };
}

void pages_all_free(struct pages *p)
{
    memset(p->used, 0, p->count);
    p->used[0] = 1;
    p->from = 1;
}

void pages_none_free(struct pages *p)
{
    memset(p->used, 1, p->count);
    p->from = p->count;
}

void pages_take(struct pages *p, uint64_t offset, uint64_t len)
{
    uint64_t end = (offset + len + INDEX_PAGE - 1) / INDEX_PAGE;

    for (uint64_t i = offset / INDEX_PAGE; i < end && i < p->count; i++)
        p->used[i] = 1;
}

void pages_give(struct pages *p, uint64_t offset, uint64_t len)
{
    uint64_t first = offset / INDEX_PAGE;

    memset(p->used + first, 0, (len + INDEX_PAGE - 1) / INDEX_PAGE);
    if (first < p->from)
        p->from = first;
}

uint64_t pages_find(struct pages *p, uint64_t run)
{
    uint64_t have = 0;

    while (p->from < p->count && p->used[p->from])
        p->from++;
    for (uint64_t i = p->from; i < p->count; i++) {
        have = p->used[i] ? 0 : have + 1;
        if (have == run) {
            memset(p->used + i + 1 - run, 1, run);
            return i + 1 - run;
        }
    }
    return 0;
}

uint64_t pages_free(const struct pages *p)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < p->count; i++)
        n += !p->used[i];
    return n;
}
