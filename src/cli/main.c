/*
 * kist, the program: the table of verbs, and the way from argv to one.
 *
 * It uses nothing of the library but its public headers. args.c takes the line
 * apart, session.c opens and closes, fail.c tells of errors, out.c prints;
 * the verbs themselves are in verbs_data.c, verbs_care.c and files of their names.
 */
#include "fail.h"
#include "input.h"
#include "out.h"
#include "verbs.h"

#include <kist/kist.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COMMON (OPT_BIT(OPT_HELP) | OPT_BIT(OPT_QUIET))
#define OPENING (COMMON | OPT_BIT(OPT_ANY_FS) | OPT_BIT(OPT_DEADLINE))
#define KEYED (OPENING | OPT_BIT(OPT_KEY_BASE64))
#define SETTINGS                                                                                   \
    (OPT_BIT(OPT_DURABILITY) | OPT_BIT(OPT_INTERVAL) | OPT_BIT(OPT_SEGMENT) |                      \
     OPT_BIT(OPT_VERIFY) | OPT_BIT(OPT_EXPECT) | OPT_BIT(OPT_MODE) | OPT_BIT(OPT_ORDERED))

const struct verb verbs[] = {
    { "create", "STORE [BANK]", 1, 2, OPENING | SETTINGS | OPT_BIT(OPT_EXIST_OK), verb_create,
      "make a store, or a bank in it",
      "A bank's store is made as well if it is missing. The settings stay with the bank.\n"
      "A bank is a hash bank, whose gets and puts are the fastest, or with --ordered one\n"
      "whose keys are kept in byte order, so that ranges of them can be listed.\n" },
    { "put", "STORE BANK KEY [VALUE]", 3, 4, KEYED | OPT_BIT(OPT_CREATE), verb_put,
      "store a value under a key",
      "Without VALUE, or when it is -, the value is read from standard input.\n" },
    { "get", "STORE BANK KEY", 3, 3, KEYED | OPT_BIT(OPT_JSON), verb_get,
      "print the value of a key",
      "The value is printed as it is, without a newline. With --json, what is not UTF-8\n"
      "comes as base64, and value_encoding says so.\n" },
    { "has", "STORE BANK KEY", 3, 3, KEYED | OPT_BIT(OPT_JSON), verb_has,
      "tell by the exit status whether a key is there", "" },
    { "del", "STORE BANK KEY", 3, 3, KEYED, verb_del, "remove a key", "" },
    { "ls", "STORE [BANK]", 1, 2,
      KEYED | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_LONG) | OPT_BIT(OPT_NULL) | OPT_BIT(OPT_PREFIX) |
          OPT_BIT(OPT_FROM) | OPT_BIT(OPT_TO) | OPT_BIT(OPT_LIMIT) | OPT_BIT(OPT_REVERSE),
      verb_ls, "list the banks of a store, or the keys of a bank",
      "The keys are those that the bank has when the listing begins, in byte order if it is\n"
      "an ordered one; in a hash bank they have no order, so there are no --from, --to and\n"
      "--reverse, and all keys are read for a --prefix. --reverse turns the order, and not\n"
      "the range. On a terminal, what it would obey is escaped.\n"
      "With --long the bytes of each value and the time since it was put stand before the\n"
      "key, and entries and bytes of keys and values before a bank.\n" },
    { "stat", "STORE [BANK]", 1, 2, OPENING | OPT_BIT(OPT_JSON), verb_stat,
      "show counts and sizes of a bank, or of all",
      "What is kept for snapshots are heap files that nothing else needs any more; they go\n"
      "at the next cleaning after the last snapshot that needs them, of any process, is\n"
      "closed. The oldest snapshot sees no write above the sequence that is shown.\n" },
    { "dump", "STORE BANK", 2, 2, OPENING | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_FOR), verb_dump,
      "print every entry of a bank, to be loaded elsewhere",
      "JSON is printed, an object a line; what is not UTF-8 comes as base64, and\n"
      "key_encoding or value_encoding says so. --for=lmdb prints what mdb_load reads,\n"
      "--for=bdb what db_load reads: these know of no times of entries. The dump is of one\n"
      "moment, whatever is written meanwhile. That of an ordered bank says so in its first\n"
      "line (for Berkeley DB by its type, btree instead of hash; not for LMDB), and is in\n"
      "the order of keys.\n" },
    { "load", "STORE BANK [FILE]", 2, 3,
      OPENING | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_FILES) | OPT_BIT(OPT_CREATE) |
          OPT_BIT(OPT_ORDERED),
      verb_load,
      "store every entry of a dump, or every file below a directory",
      "FILE is what 'kist dump', mdb_dump or db_dump printed; without it, or when it is -,\n"
      "standard input is read. Nothing is stored unless all of it can be read. Entries\n"
      "get the time of loading; those that were there stay, unless loaded anew. A bank\n"
      "that is made is an ordered one with --ordered, or if the dump is of an ordered bank,\n"
      "of LMDB or of a btree of Berkeley DB; one that is there stays of its kind.\n"
      "With --files the key is the path below DIR, the value the file's content. Symlinks\n"
      "are not followed.\n" },
    { "batch", "STORE BANK [FILE]", 2, 3, OPENING | OPT_BIT(OPT_JSON), verb_batch,
      "put and delete many entries, all at once or not at all",
      "Each line of FILE, or of standard input, is one of\n"
      "  {\"put\":\"KEY\",\"value\":\"VALUE\"}\n"
      "  {\"delete\":\"KEY\"}\n"
      "  {\"expect\":\"KEY\",\"sequence\":N}\n"
      "What is not UTF-8 comes as base64, and \"key_encoding\":\"base64\" or\n"
      "\"value_encoding\":\"base64\" says so. An expected key has to have the sequence N that\n"
      "'kist get --json' tells, or no value when N is 0: if one has not, the exit status is\n"
      "1. With a key that is not as expected, or a line that is wrong, nothing is changed.\n"
      "Of several changes of one key the last one counts; to delete a key that has no value\n"
      "is no error.\n" },
    { "snapshot", "WHAT [STORE BANK] FILE", 2, 4, OPENING | OPT_BIT(OPT_CREATE) | OPT_BIT(OPT_JSON),
      verb_snapshot, "save a bank to a file, tell of such a file, or restore from it",
      "  kist snapshot save STORE BANK FILE\n"
      "  kist snapshot info [STORE BANK] FILE\n"
      "  kist snapshot restore STORE BANK FILE\n"
      "A bank is saved as it is at one moment, while others write. FILE appears, or is\n"
      "replaced, when all of it is on the disk; - stands for standard output or input, to\n"
      "be used with a pipe. What info tells is read from the file's beginning, so it does\n"
      "not find damage behind it; with STORE BANK it tells also whether FILE is of that\n"
      "bank. To restore is to make a bank's content what FILE says, all at once, times of\n"
      "entries included; of any bank, of either kind. FILE is read and checked as a whole\n"
      "before anything changes. With --create a bank that is missing is made, of the kind\n"
      "that was saved.\n" },
    { "copy", "STORE TARGET", 2, 2,
      COMMON | OPT_BIT(OPT_ANY_FS) | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_MODE), verb_copy,
      "make a consistent copy of a store, also while it is in use",
      "TARGET must not exist yet; it appears when the copy is complete, and every byte\n"
      "of it was checked. Each bank is as it was at one moment. What cp or rsync makes\n"
      "of a store in use is not consistent. A copy that was killed leaves a directory\n"
      "TARGET.copying.NUMBER, which may be removed.\n" },
    { "verify", "STORE [BANK]", 1, 2, OPENING | OPT_BIT(OPT_JSON), verb_verify,
      "read a bank, or all, and check every byte",
      "Nothing is changed. The exit status is 4 when there is damage.\n" },
    { "repair", "STORE BANK", 2, 2, OPENING | OPT_BIT(OPT_JSON), verb_repair,
      "make a damaged bank usable again", "No whole record is given up.\n" },
    { "compact", "STORE [BANK]", 1, 2, OPENING | OPT_BIT(OPT_JSON), verb_compact,
      "give back the space of dead records",
      "Readers and writers go on. The records of an ordered bank are put in the order of\n"
      "their keys. What an open snapshot needs stays, see 'kist stat', until the next time.\n" },
    { "clear", "STORE BANK", 2, 2, OPENING, verb_clear, "remove all entries of a bank", "" },
    { "drop", "STORE BANK", 2, 2, OPENING, verb_drop, "remove a bank",
      "Banks nested below its name stay.\n" },
    { "inspect", "STORE [BANK]", 1, 2, COMMON | OPT_BIT(OPT_ANY_FS) | OPT_BIT(OPT_JSON),
      verb_inspect, "print the records and index blocks of a bank, or of all",
      "The files are printed as they are, whatever state they are in, and nothing is\n"
      "changed; 'kist verify' tests their checksums. While a bank is written, what is\n"
      "being appended may look like bytes that are no record.\n" },
    { "pages", "FILE [ADDR,...] [COUNT]", 1, 3,
      COMMON | OPT_BIT(OPT_AS) | OPT_BIT(OPT_BY) | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_PAGE) |
          OPT_BIT(OPT_PAGES),
      verb_pages, "read numbers, strings or bytes of any file or disk",
      "ADDR,... are addresses, decimal, or hexadecimal behind 0x. COUNT says how many\n"
      "bytes of a dump (256), at most of a string (4096), or how many numbers (1). At the\n"
      "end it tells what the page cache did.\n" },
    { "help", "[VERB]", 0, 1, COMMON | OPT_BIT(OPT_JSON), verb_help, "tell how it goes", "" },
};

const size_t verb_count = sizeof verbs / sizeof verbs[0];

const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < verb_count; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

static const char *verb_name(size_t i, const void *arg)
{
    (void)arg;
    return verbs[i].name;
}

const char *verb_nearest(const char *typed)
{
    return nearest(typed, verb_name, verb_count, NULL);
}

static int fail_verb(const char *typed)
{
    const char *meant = verb_nearest(typed);

    if (snapshot_knows(typed))
        return fail_usage("no verb is called %s; did you mean snapshot %s?", quoted(typed), typed);
    if (meant != NULL)
        return fail_usage("no verb is called %s; did you mean %s?", quoted(typed), meant);
    if (typed[0] == '-')
        return fail_usage("the verb comes first, options behind it; 'kist help' lists the verbs");
    return fail_usage("no verb is called %s; 'kist help' lists them", quoted(typed));
}

static int print_version(void)
{
    out_text("kist %s\n", kist_version());
    if (strcmp(kist_version(), KIST_VERSION_STRING) != 0)
        out_text("built against %s\n", KIST_VERSION_STRING);
    return STATUS_DONE;
}

static int run(int argc, char **argv)
{
    const struct verb *verb;
    const char *word;
    struct args args;
    int status;

    if (argc < 2)
        return fail_usage("say what to do; 'kist help' lists the verbs");
    word = argv[1];
    if (strcmp(word, "--version") == 0)
        return print_version();
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        word = "help";
    if (strcmp(word, "salt") == 0)
        return salt_run(argv + 1);
    verb = verb_find(word);
    if (verb == NULL)
        return fail_verb(word);
    status = args_parse(&args, verb, argc - 2, argv + 2);
    if (status != STATUS_DONE)
        return status;
    if (args_has(&args, OPT_HELP) && verb->run != verb_help) {
        args.operand[0] = verb->name;
        return verb_help(&args);
    }
    return verb->run(&args);
}

/* A descriptor below 3 that came closed would become a file of the store, and
 * be printed into. Each gets something that fails the way a closed one does. */
static void hold_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            exit(STATUS_SYSTEM);
}

int main(int argc, char **argv)
{
    hold_standard_files();
    (void)signal(SIGPIPE, SIG_IGN);
    input_guard();
    return out_finish(run(argc, argv));
}
