/* Codes, texts, the context of the last error, versions, the log. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

struct named_code {
    int code;
    const char *name, *text;
};

static const struct named_code codes[] = {
#define NAMED(name, code, text) { code, #name, text },
    KIST_OUTCOMES(NAMED) KIST_ERRORS(NAMED)
#undef NAMED
};
enum { CODES = sizeof codes / sizeof *codes };

TEST(every_code_has_its_name_and_text)
{
    for (size_t i = 0; i < CODES; i++) {
        must(strcmp(kist_errname(codes[i].code), codes[i].name) == 0);
        must(strcmp(kist_strerror(codes[i].code), codes[i].text) == 0);
    }
}

TEST(no_two_codes_are_the_same)
{
    for (size_t i = 0; i < CODES; i++)
        for (size_t k = i + 1; k < CODES; k++) {
            must(codes[i].code != codes[k].code);
            must(strcmp(codes[i].text, codes[k].text) != 0);
        }
}

TEST(system_errors_have_their_number_and_the_system_text)
{
    must(strcmp(kist_errname(-ENOSPC), "-28") == 0);
    must(strcmp(kist_strerror(-ENOENT), strerror(ENOENT)) == 0);
    must(kist_strerror(-99999) != NULL && kist_strerror(99999) != NULL);
    must(kist_errname(-99999) != NULL && kist_errname(99999) != NULL);
}

TEST(the_library_is_the_version_of_its_header)
{
    char want[32];

    (void)snprintf(want, sizeof want, "%d.%d.%d", KIST_VERSION_MAJOR, KIST_VERSION_MINOR,
                   KIST_VERSION_PATCH);
    must(strcmp(kist_version(), want) == 0);
    must(strcmp(KIST_VERSION_STRING, want) == 0);
}

TEST(the_last_error_names_code_and_bank)
{
    struct fixture f = fixture_open();
    char *key = calloc(1, KIST_KEY_MAX + 1);

    must_rc(kist_put(f.bank, (kist_bytes){ key, KIST_KEY_MAX + 1 }, text("v")), KIST_EKEYLEN);
    const kist_error *error = kist_last_error();
    must(error->rc == KIST_EKEYLEN);
    must(strcmp(error->bank, "bank") == 0);
    must(error->what[0] != '\0');

    kist_bank *bank;
    must_rc(kist_bank_open(&bank, f.store, "no/such", NULL), KIST_ENOBANK);
    error = kist_last_error();
    must(error->rc == KIST_ENOBANK && strcmp(error->bank, "no/such") == 0);
    must(error->what[0] != '\0');
    free(key);
    fixture_close(&f);
}

TEST(a_success_leaves_the_last_error_as_it_was)
{
    struct fixture f = fixture_open();
    kist_bank *bank;

    must_rc(kist_bank_open(&bank, f.store, "missing", NULL), KIST_ENOBANK);
    put_text(f.bank, "k", "v");
    must_hold(f.bank, "other", NULL);
    must(kist_last_error()->rc == KIST_ENOBANK);
    fixture_close(&f);
}

static void *fail_elsewhere(void *store)
{
    kist_bank *bank;

    must(kist_last_error()->rc == 0);
    must_rc(kist_bank_open(&bank, store, "../x", NULL), KIST_EBANKNAME);
    must(kist_last_error()->rc == KIST_EBANKNAME);
    return NULL;
}

TEST(the_last_error_is_the_own_threads)
{
    struct fixture f = fixture_open();
    pthread_t thread;
    kist_bank *bank;

    must_rc(kist_bank_open(&bank, f.store, "missing", NULL), KIST_ENOBANK);
    must(pthread_create(&thread, NULL, fail_elsewhere, f.store) == 0);
    must(pthread_join(thread, NULL) == 0);
    must(kist_last_error()->rc == KIST_ENOBANK);
    fixture_close(&f);
}

/* ---- the log ---------------------------------------------------------- */

struct events {
    unsigned count;
    uint32_t worst;
    char bank[64], file[64], message[256];
};

static void note_event(const kist_log_event *event, void *arg)
{
    struct events *events = arg;

    must(event->level >= KIST_LOG_INFO && event->level <= KIST_LOG_DAMAGE);
    must(event->bank && event->file && event->message && event->message[0]);
    events->count++;
    if (event->level < events->worst)
        return;
    events->worst = event->level;
    (void)snprintf(events->bank, sizeof events->bank, "%s", event->bank);
    (void)snprintf(events->file, sizeof events->file, "%s", event->file);
    (void)snprintf(events->message, sizeof events->message, "%s", event->message);
}

static kist_store *open_logged(const char *dir, struct events *events)
{
    kist_store_options opt = {
        .size = sizeof opt, .flags = KIST_STORE_CREATE, .log = note_event, .log_arg = events
    };
    kist_store *store;

    must_ok(kist_store_open(&store, dir, &opt));
    return store;
}

static void write_and_die(void *dir)
{
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "logged");

    for (uint64_t i = 0; i < 100; i++)
        must_ok(kist_put(bank, number(i), text("a value of some length")));
    _exit(0); /* closes nothing */
}

TEST(the_log_hears_of_a_recovery)
{
    char *dir = tmp_dir(TMP_DISK);
    struct events events = { 0 };

    in_child(write_and_die, dir);
    kist_store *store = open_logged(dir, &events);
    kist_bank *bank = open_bank(store, "logged");
    must(events.count >= 1 && strcmp(events.bank, "logged") == 0);
    must(events.worst < KIST_LOG_DAMAGE);
    must(count_of(bank) == 100);
    kist_stats stats = { .size = sizeof stats };
    must_ok(kist_stat(bank, &stats));
    must(stats.last_recovery != KIST_RECOVERY_NONE && stats.last_recovery_ns > 0);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(the_log_is_silent_when_nothing_happens)
{
    char *dir = tmp_dir(TMP_FAST);
    struct events events = { 0 };

    for (int i = 0; i < 3; i++) {
        kist_store *store = open_logged(dir, &events);
        kist_bank *bank = open_bank(store, "logged");
        put_text(bank, "k", "v");
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
    }
    must(events.worst < KIST_LOG_WARNING);
    free(dir);
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char byte = 0;

    must(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 4;
    must(pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0);
}

static off_t find_text(const char *path, const char *what)
{
    static char image[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    must(fd >= 0);
    n = read(fd, image, sizeof image);
    (void)close(fd);
    char *at = memmem(image, (size_t)n, what, strlen(what));
    must(n > 0 && at != NULL);
    return at - image;
}

TEST(damage_is_told_with_file_and_offset)
{
    char *dir = tmp_dir(TMP_FAST);
    char *path = path_join(dir, "logged/kist.heap.1");
    struct events events = { 0 };
    kist_view *view;
    kist_store *store = open_logged(dir, &events);
    kist_bank *bank = open_bank(store, "logged");

    put_text(bank, "k", "a value to be damaged");
    must_ok(kist_bank_close(bank));
    flip(path, find_text(path, "a value to be damaged") + 3);
    bank = open_bank(store, "logged");
    must_rc(kist_get_view(bank, text("k"), &view), KIST_ECORRUPT);
    const kist_error *error = kist_last_error();
    must(error->rc == KIST_ECORRUPT && strcmp(error->bank, "logged") == 0);
    must(strcmp(error->file, "kist.heap.1") == 0);
    must(error->offset > 0 && error->offset < 4096);
    must(events.worst == KIST_LOG_DAMAGE && strcmp(events.file, "kist.heap.1") == 0);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(path);
    free(dir);
}
