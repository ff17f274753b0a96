/* check.c - see check.h. */
#include "seam/check.h"

#include "heap/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

char check_why[512];
uint64_t check_counted;
struct content check_moment;
bool check_has_moment;

enum { FEW = 3 };
#define FUTURE (UINT32_C(1) << 30) /* versions that no workload reaches */

bool check_failed(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(check_why, sizeof check_why, format, args);
    va_end(args);
    return false;
}

static bool call_failed(const char *call, int rc)
{
    const kist_error *e = kist_last_error();

    return check_failed("%s: %s, %s [%s %s %lld]", call, kist_errname(rc), kist_strerror(rc),
                        e->what, e->file, (long long)e->offset);
}

/* ---- reading ---------------------------------------------------------- */

static char key_buf[KEYS_MAX][KEY_MOST];
static kist_bytes key[KEYS_MAX];
static kist_bytes value[KEYS_MAX];
static int result[KEYS_MAX];

static void make_keys(const struct oracle *o)
{
    for (uint32_t k = 0; k < o->keys; k++)
        key[k] = (kist_bytes){ key_buf[k], oracle_key(o, k, key_buf[k]) };
}

static bool take(const struct oracle *o, uint32_t k, int rc, kist_bytes v, struct content *seen)
{
    if (rc == KIST_MISS)
        return true;
    if (rc != KIST_OK) {
        (void)call_failed("get", rc);
        return check_failed("key %u: get says %s (%s)", k, kist_errname(rc), kist_strerror(rc));
    }
    seen->version[k] = oracle_version(o, k, v);
    if (seen->version[k] == VERSION_WRONG)
        return check_failed("key %u: wrong bytes, %zu of them", k, v.len);
    return true;
}

static bool read_single(struct work *w, struct content *seen)
{
    bool well = true;

    must_ok(kist_read_begin());
    for (uint32_t k = 0; well && k < w->o->keys; k++) {
        kist_bytes v = { 0 };
        int rc = kist_get(w->bank, key[k], &v);

        well = take(w->o, k, rc, v, seen);
    }
    kist_read_end();
    return well;
}

static bool read_many(struct work *w, struct content *seen)
{
    bool well = true;
    int rc;

    must_ok(kist_read_begin());
    rc = kist_get_many(w->bank, key, w->o->keys, value, result);
    if (rc < 0)
        well = call_failed("get_many", rc);
    for (uint32_t k = 0; well && k < w->o->keys; k++)
        well = take(w->o, k, result[k], value[k], seen);
    kist_read_end();
    return well;
}

static int64_t key_number(const struct oracle *o, kist_bytes k)
{
    for (uint32_t i = 0; i < o->keys; i++)
        if (key[i].len == k.len && memcmp(key[i].data, k.data, k.len) == 0)
            return i;
    return -1;
}

static bool take_entry(const struct oracle *o, const kist_entry *e, struct content *seen)
{
    int64_t k = key_number(o, e->key);

    if (k < 0)
        return check_failed("the walk meets a key that was never put");
    if (seen->version[k] != 0)
        return check_failed("the walk meets key %d twice", (int)k);
    return take(o, (uint32_t)k, KIST_OK, e->value, seen);
}

static bool read_walk(struct work *w, struct content *seen)
{
    kist_iter *iter;
    kist_entry e;
    bool well = true;
    int rc = kist_iter_open(&iter, w->bank);

    if (rc < 0)
        return call_failed("iter_open", rc);
    while (well && (rc = kist_iter_next(iter, &e)) == KIST_OK)
        well = take_entry(w->o, &e, seen);
    kist_iter_close(iter);
    return well && rc < 0 ? call_failed("iter_next", rc) : well;
}

static bool read_cursor(struct work *w, bool may_be_busy)
{
    kist_cursor *cursor;
    kist_entry e;
    bool well = true;
    int rc = kist_cursor_open(&cursor, w->bank, NULL);

    check_moment = (struct content){ .exists = true };
    check_has_moment = rc == KIST_OK;
    if (rc < 0)
        return (rc == KIST_EBUSY && may_be_busy) || call_failed("cursor_open", rc);
    while (well && (rc = kist_cursor_next(cursor, &e)) == KIST_OK)
        well = take_entry(w->o, &e, &check_moment);
    kist_cursor_close(cursor);
    return well && rc < 0 ? call_failed("cursor_next", rc) : well;
}

const char *check_difference(const struct oracle *o, const struct content *want,
                             const struct content *seen)
{
    static char text[256];
    size_t at = 0;

    text[0] = '\0';
    if (want->exists != seen->exists)
        return want->exists ? "the bank is gone" : "the bank is there";
    for (uint32_t k = 0; k < o->keys && at < sizeof text - 64; k++) {
        uint32_t a = want->version[k], b = seen->version[k];

        if (a == b || (b == VERSION_EMPTY && a && oracle_value_len(o, k, a) == 0))
            continue;
        at += (size_t)snprintf(text + at, sizeof text - at, "%skey %u wants %u has %u",
                               at ? "; " : "", k, a, b);
    }
    return text;
}

static bool read_all(struct work *w, struct content *seen, bool may_be_busy)
{
    struct content many = { .exists = true }, walk = { .exists = true };
    int rc;

    make_keys(w->o);
    *seen = (struct content){ .exists = true };
    if (!read_single(w, seen) || !read_many(w, &many) || !read_walk(w, &walk) ||
        !read_cursor(w, may_be_busy))
        return false;
    if (memcmp(seen->version, many.version, sizeof many.version) != 0)
        return check_failed("get and get_many differ: %s", check_difference(w->o, seen, &many));
    if (memcmp(seen->version, walk.version, sizeof walk.version) != 0)
        return check_failed("get and a walk differ: %s", check_difference(w->o, seen, &walk));
    rc = kist_count(w->bank, &check_counted);
    return rc < 0 ? call_failed("count", rc) : true;
}

bool check_read(struct work *w, struct content *seen)
{
    if (!read_all(w, seen, false))
        return false;
    if (!content_is(w->o, seen, &check_moment))
        return check_failed("get and a cursor differ: %s",
                            check_difference(w->o, seen, &check_moment));
    if (check_counted != content_count(w->o, seen))
        return check_failed("count says %llu, there are %llu", (unsigned long long)check_counted,
                            (unsigned long long)content_count(w->o, seen));
    return true;
}

bool check_verify(struct work *w, const struct content *seen)
{
    kist_report report = { .size = sizeof report };
    int rc = kist_verify(w->bank, &report, NULL, NULL);

    if (rc != KIST_OK)
        return check_failed("verify: %s, %llu damaged, %llu unreachable, first in %s at %llu",
                            kist_errname(rc), (unsigned long long)report.damaged,
                            (unsigned long long)report.unreachable, report.first_file,
                            (unsigned long long)report.first_offset);
    if (report.damaged || report.unreachable || report.entries != content_count(w->o, seen))
        return check_failed("verify: %llu entries of %llu, %llu damaged, %llu unreachable",
                            (unsigned long long)report.entries,
                            (unsigned long long)content_count(w->o, seen),
                            (unsigned long long)report.damaged,
                            (unsigned long long)report.unreachable);
    return true;
}

/* ---- opening ---------------------------------------------------------- */

bool check_readonly(struct work *w, struct content *seen)
{
    int32_t deadline_ms = w->deadline_ms;
    bool well;
    int rc;

    w->deadline_ms = 1; /* nobody is there to be waited for */
    rc = work_open_bank(w, KIST_STORE_READONLY, KIST_BANK_READONLY);
    w->deadline_ms = deadline_ms;
    *seen = (struct content){ 0 };
    check_counted = 0;
    check_has_moment = false;
    if (rc == -ENOENT || rc == KIST_ENOSTORE || rc == KIST_ENOBANK)
        return true;
    if (rc < 0)
        return call_failed("open read-only", rc);
    well = read_all(w, seen, true);
    work_close_quietly(w);
    return well;
}

bool check_writing(struct work *w, struct content *seen)
{
    int rc = work_open_bank(w, KIST_STORE_CREATE, KIST_BANK_CREATE);

    if (rc < 0)
        return call_failed("open for writing", rc);
    if (check_read(w, seen) && check_verify(w, seen))
        return true;
    work_close_quietly(w);
    return false;
}

static bool put_some(struct work *w, struct content *want, uint32_t count)
{
    static uint8_t buf[VALUE_MOST];

    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = count < w->o->keys ? (uint32_t)(mix(i, want->version[i]) % w->o->keys) : i;
        size_t len = oracle_value(w->o, k, FUTURE + i, buf);
        int rc = kist_put(w->bank, key[k], (kist_bytes){ buf, len });

        if (rc < 0)
            return call_failed("put after recovery", rc);
        want->version[k] = FUTURE + i;
    }
    return true;
}

static bool goes_on(struct work *w, const struct content *seen, uint32_t count)
{
    struct content want = *seen, again;
    bool well = put_some(w, &want, count);
    int rc = kist_bank_close(w->bank), rc2 = kist_store_close(w->store);

    w->bank = NULL;
    w->store = NULL;
    if (!well)
        return false;
    if (rc < 0 || rc2 < 0)
        return call_failed("close after recovery", rc < 0 ? rc : rc2);
    if (!check_writing(w, &again))
        return false;
    work_close_quietly(w);
    if (!content_is(w->o, &want, &again))
        return check_failed("after recovery, puts and reopening: %s",
                            check_difference(w->o, &want, &again));
    return true;
}

bool check_goes_on(struct work *w, const struct content *seen)
{
    return goes_on(w, seen, FEW);
}

bool check_goes_on_long(struct work *w, const struct content *seen)
{
    return goes_on(w, seen, w->o->keys);
}

/* ---- tails ------------------------------------------------------------ */

/* Where the records end, by their lengths alone. */
static size_t records_end(const uint8_t *bytes, size_t len)
{
    size_t at = SEGMENT_FIRST_RECORD;

    while (at + RECORD_MIN <= len) {
        const struct record *r = (const void *)(bytes + at);

        if (record_kind(r) < RECORD_PUT || record_kind(r) > RECORD_PADDING ||
            !record_fits(r, len - at))
            break;
        at += record_size(r);
    }
    return at;
}

static bool tail_is_zero(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat sb;
    uint8_t *bytes;
    size_t len, end;

    must(fd >= 0 && fstat(fd, &sb) == 0);
    len = (size_t)sb.st_size;
    bytes = len ? mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0) : NULL;
    (void)close(fd);
    if (!bytes)
        return true;
    must(bytes != MAP_FAILED);
    for (end = records_end(bytes, len); end < len && bytes[end] == 0;)
        end++;
    (void)munmap(bytes, len);
    return end >= len || check_failed("%s: not zero at %zu, behind its records", path, end);
}

bool check_tails(struct work *w)
{
    char *store = path_join(w->root, "store"), *dir = path_join(store, w->made.name);
    DIR *d = opendir(dir);
    struct dirent *e;
    bool well = true;

    while (d && well && (e = readdir(d))) {
        char *path = path_join(dir, e->d_name);

        if (strncmp(e->d_name, "kist.heap.", 10) == 0)
            well = tail_is_zero(path);
        free(path);
    }
    if (d)
        (void)closedir(d);
    free(dir);
    free(store);
    return well;
}
