/*
 * A store and perhaps a bank, opened for one verb and closed after it.
 *
 * Verbs that only read open the store read-only, which is the library's
 * promise that not a byte changes. Closing syncs, so its result counts.
 */
#include "session.h"

#include "escape.h"
#include "fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the library found and mended on its way. It may be told by any thread,
 * and waits until the end: what made the verb fail would be told twice. */
static void note_event(const kist_log_event *event, void *arg)
{
    struct session *s = arg;
    unsigned n;

    if (event->level < KIST_LOG_WARNING)
        return;
    n = atomic_fetch_add(&s->events, 1);
    if (n >= EVENTS_MAX)
        return;
    (void)snprintf(s->event[n], sizeof s->event[n], "store %.150s%s%.150s%s%.64s: %s",
                   s->store_name, event->bank[0] != '\0' ? ", bank " : "", event->bank,
                   event->file[0] != '\0' ? ", file " : "", event->file, event->message);
}

static void tell_events(const struct session *s, int status)
{
    unsigned n = s->events < EVENTS_MAX ? s->events : EVENTS_MAX;
    char text[4 * sizeof s->event[0]];

    if (s->quiet || status == STATUS_DAMAGE)
        return;
    for (unsigned i = 0; i < n; i++) {
        (void)escape_text(text, sizeof text, s->event[i], strlen(s->event[i]));
        complain("%s", text);
    }
    if (s->events > n)
        complain("and %u more events", s->events - n);
}

/* Who may read a file may enter its directory. */
uint32_t session_dir_mode(uint32_t file_mode)
{
    return file_mode | (file_mode & 0444) >> 2;
}

int session_open_store(struct session *s, const struct args *args, enum session_how how,
                       uint32_t file_mode)
{
    kist_store_options options = { .size = sizeof options };
    int64_t deadline = 0;
    int status = args_number(args, OPT_DEADLINE, -1, INT32_MAX, &deadline);
    int rc;

    if (status != STATUS_DONE)
        return status;
    *s = (struct session){
        .store_name = args->operand[0],
        .quiet = args_has(args, OPT_QUIET),
        .deadline_ms = (int32_t)deadline,
        .how = how,
    };
    options.flags |= how == SESSION_READ ? (uint32_t)KIST_STORE_READONLY : 0;
    options.flags |= how == SESSION_CREATE ? (uint32_t)KIST_STORE_CREATE : 0;
    options.flags |= args_has(args, OPT_ANY_FS) ? (uint32_t)KIST_STORE_ANY_FS : 0;
    options.file_mode = file_mode;
    options.dir_mode = session_dir_mode(file_mode);
    options.log = note_event;
    options.log_arg = s;
    rc = kist_store_open(&s->store, s->store_name, &options);
    return rc == KIST_OK ? STATUS_DONE : fail_kist(rc, s->store_name, NULL);
}

int session_open_bank(struct session *s, const char *name, const kist_bank_options *given)
{
    kist_bank_options options = { .size = sizeof options };
    int rc;

    if (given != NULL)
        options = *given;
    else if (s->how == SESSION_CREATE)
        options.flags = KIST_BANK_CREATE;
    if (s->how == SESSION_READ)
        options.flags |= KIST_BANK_READONLY;
    if (s->deadline_ms != 0)
        options.deadline_ms = s->deadline_ms;
    rc = kist_bank_open(&s->bank, s->store, name, &options);
    if (rc != KIST_OK)
        return fail_kist(rc, s->store_name, name);
    s->bank_name = name;
    return STATUS_DONE;
}

int session_open(struct session *s, const struct args *args, enum session_how how)
{
    int status = session_open_store(s, args, how, 0);

    if (status != STATUS_DONE || args->operand[1] == NULL)
        return status;
    status = session_open_bank(s, args->operand[1], NULL);
    return status == STATUS_DONE ? STATUS_DONE : session_close(s, status);
}

int session_fail(const struct session *s, int rc)
{
    return fail_kist(rc, s->store_name, s->bank_name);
}

int session_make_bank(struct session *s, const char *name, uint32_t index, bool *made)
{
    kist_bank_options options = { .size = sizeof options, .index = index };
    int rc;

    options.flags = (uint32_t)KIST_BANK_CREATE | (uint32_t)KIST_BANK_EXCLUSIVE;
    options.deadline_ms = s->deadline_ms;
    rc = kist_bank_open(&s->bank, s->store, name, &options);
    *made = rc == KIST_OK;
    s->bank_name = name;
    if (rc == KIST_EBANKEXISTS) {
        options.flags = 0;
        return session_open_bank(s, name, &options);
    }
    return rc == KIST_OK ? STATUS_DONE : session_fail(s, rc);
}

const char *session_index_name(uint32_t index)
{
    return index == KIST_INDEX_ORDERED ? "ordered" : "hash";
}

int session_index(const struct session *s, uint32_t *index)
{
    kist_stats stats = { .size = sizeof stats };
    int rc = kist_stat(s->bank, &stats);

    if (rc != KIST_OK)
        return session_fail(s, rc);
    *index = stats.index;
    return STATUS_DONE;
}

int session_expect_ordered(const struct session *s, const struct args *args)
{
    uint32_t index = KIST_INDEX_ORDERED;
    int status = args_has(args, OPT_ORDERED) ? session_index(s, &index) : STATUS_DONE;

    if (status != STATUS_DONE || index == KIST_INDEX_ORDERED)
        return status;
    complain("bank %s is there already and is a hash bank, not an ordered one; leave --ordered "
             "out to take it as it is, or name another bank",
             quoted(s->bank_name));
    return STATUS_SYSTEM;
}

int session_close_bank(struct session *s, int status)
{
    int rc = kist_bank_close(s->bank);

    if (rc != KIST_OK && status == STATUS_DONE)
        status = session_fail(s, rc);
    s->bank = NULL;
    s->bank_name = NULL;
    return status;
}

int session_close(struct session *s, int status)
{
    int rc;

    status = session_close_bank(s, status);
    rc = kist_store_close(s->store);
    if (rc != KIST_OK && status == STATUS_DONE)
        status = fail_kist(rc, s->store_name, NULL);
    s->store = NULL;
    tell_events(s, status);
    return status;
}

int session_key(const struct args *args, const char *text, kist_bytes *key)
{
    const char *shown = quoted(text); /* as long as it is what was typed */

    *key = (kist_bytes){ text, strlen(text) };
    if (args_has(args, OPT_KEY_BASE64) &&
        !base64_decode((unsigned char *)(uintptr_t)text, &key->len, text))
        return fail_usage("%s is not base64", shown);
    return STATUS_DONE;
}

/* ---- every bank of a store -------------------------------------------- */

struct names {
    char **list;
    size_t count, room;
};

static int gather_name(const char *name, void *arg)
{
    struct names *names = arg;

    if (names->count == names->room) {
        size_t room = names->room == 0 ? 64 : 2 * names->room;
        char **list = realloc(names->list, room * sizeof *list);

        if (list == NULL)
            return -ENOMEM;
        names->list = list;
        names->room = room;
    }
    names->list[names->count] = strdup(name);
    if (names->list[names->count] == NULL)
        return -ENOMEM;
    names->count++;
    return 0;
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
}

static int worse(int a, int b)
{
    return a > b ? a : b;
}

int session_each_bank(const struct args *args, enum session_how how,
                      int (*each)(struct session *s, const struct args *args, void *arg), void *arg)
{
    struct names names = { NULL, 0, 0 };
    struct session s;
    int status = session_open_store(&s, args, how, 0);
    int rc;

    if (status != STATUS_DONE)
        return status;
    rc = args->operand[1] != NULL ? gather_name(args->operand[1], &names)
                                  : kist_bank_list(s.store, NULL, gather_name, &names);
    if (rc != KIST_OK)
        status = fail_kist(rc, s.store_name, NULL);
    for (size_t i = 0; i < names.count; i++) {
        int one = session_open_bank(&s, names.list[i], NULL);

        if (one == STATUS_DONE)
            one = session_close_bank(&s, each(&s, args, arg));
        status = worse(status, one);
    }
    status = session_close(&s, status);
    free_names(&names);
    return status;
}
