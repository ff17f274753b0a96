/* The command line: a verb, its operands, options anywhere among them. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option {
    OPT_ANY_FS,
    OPT_AS,
    OPT_BY,
    OPT_CREATE,
    OPT_DEADLINE,
    OPT_DURABILITY,
    OPT_EXIST_OK,
    OPT_EXPECT,
    OPT_FILES,
    OPT_FOR,
    OPT_FROM,
    OPT_HELP,
    OPT_INTERVAL,
    OPT_JSON,
    OPT_KEY_BASE64,
    OPT_LIMIT,
    OPT_LONG,
    OPT_MODE,
    OPT_NULL,
    OPT_ORDERED,
    OPT_PAGE,
    OPT_PAGES,
    OPT_PREFIX,
    OPT_QUIET,
    OPT_REVERSE,
    OPT_SEGMENT,
    OPT_TO,
    OPT_VERIFY,
    OPT_COUNT,
};

#define OPT_BIT(option) (1u << (option))

/* What the user may type for an option, and what help says of it. */
struct option_spec {
    const char *name;  /* without the dashes */
    char letter;       /* its short form, or 0 */
    const char *value; /* what its value is called, NULL if it takes none */
    const char *help;
};

extern const struct option_spec option_specs[OPT_COUNT];

struct args;

struct verb {
    const char *name;
    const char *operands; /* "STORE BANK KEY [VALUE]" */
    int least, most;      /* how many of them */
    uint32_t options;     /* OPT_BIT()s that it knows */
    int (*run)(const struct args *args);
    const char *summary; /* half a line */
    const char *details; /* for its own help, "" if there is nothing to add */
};

enum { OPERANDS_MAX = 4 };

struct args {
    const struct verb *verb;
    const char *operand[OPERANDS_MAX]; /* STORE, BANK, KEY, VALUE; NULL: not given */
    int count;
    uint32_t given;               /* OPT_BIT()s */
    const char *value[OPT_COUNT]; /* of the options that have one */
};

/* Take argv, from the word behind the verb on, apart. Returns STATUS_DONE, or
 * STATUS_USAGE and has told why. With --help the operands are not counted. */
int args_parse(struct args *args, const struct verb *verb, int argc, char **argv);

static inline bool args_has(const struct args *args, enum option option)
{
    return (args->given & OPT_BIT(option)) != 0;
}

/*
 * The value of an option, read as a number (`from` to `to`), as a size (with
 * K, M or G behind it), as octal digits, or as one of the words in the list
 * that NULL ends (its place in it, counted from 1). An option that was not
 * given leaves *out. Return STATUS_DONE, or STATUS_USAGE and have told why.
 */
int args_number(const struct args *args, enum option option, int64_t from, int64_t to,
                int64_t *out);
int args_size(const struct args *args, enum option option, uint64_t *out);
int args_mode(const struct args *args, enum option option, uint32_t *out);
int args_word(const struct args *args, enum option option, const char *const *words, uint32_t *out);

/* The one of `count` words that `typed` was perhaps meant to be, or NULL. */
const char *nearest(const char *typed, const char *(*word)(size_t i, const void *arg), size_t count,
                    const void *arg);

#endif
