/* The verb copy: a whole store, while it is in use. */
#include "fail.h"
#include "out.h"
#include "progress.h"
#include "session.h"
#include "verbs.h"

#include <errno.h>
#include <inttypes.h>

static void print_copied(const struct session *s, const struct args *args,
                         const kist_copied *copied, uint64_t ns)
{
    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("store", s->store_name);
        json_text("copy", args->operand[1]);
        json_u64("banks", copied->banks);
        json_u64("entries", copied->entries);
        json_u64("bytes", copied->bytes);
        json_end();
    } else if (!s->quiet) {
        out_text("store %s: %" PRIu32 " banks, %" PRIu64 " entries, %s copied in %.1f s\n",
                 quoted(s->store_name), copied->banks, copied->entries, human_bytes(copied->bytes),
                 (double)ns / 1e9);
    }
}

int verb_copy(const struct args *args)
{
    kist_copied copied = { .size = sizeof copied };
    kist_store_options options = { .size = sizeof options };
    struct progress bar;
    struct session s;
    int status = args_mode(args, OPT_MODE, &options.file_mode), rc;

    if (status == STATUS_DONE)
        status = session_open_store(&s, args, SESSION_READ, 0);
    if (status != STATUS_DONE)
        return status;
    options.dir_mode = session_dir_mode(options.file_mode);
    options.flags = args_has(args, OPT_ANY_FS) ? (uint32_t)KIST_STORE_ANY_FS : 0;
    progress_start(&bar, "copying", s.quiet);
    rc = kist_store_copy(s.store, args->operand[1], &options, &copied, progress_call, &bar);
    progress_end(&bar);
    if (rc == KIST_OK)
        print_copied(&s, args, &copied, now_ns() - bar.start_ns);
    else
        status = fail_kist(rc, s.store_name, NULL);
    return session_close(&s, status);
}
