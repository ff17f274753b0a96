/*
 * The command line: a verb, its operands, options anywhere among them.
 *
 * Options are `--name`, `--name=value`, `--name value` and a few single
 * letters; `--` ends them, `-` alone is an operand. A verb lists the options
 * it knows: one that would have no effect is refused, not ignored.
 */
#include "args.h"

#include "fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct option_spec option_specs[OPT_COUNT] = {
    [OPT_ANY_FS] = { "any-fs", 0, NULL, "accept file systems that are not known to be local" },
    [OPT_AS] = { "as", 0, "WORD",
                 "hex, string, or a number: u8, i16_le, u128_be ... (default hex)" },
    [OPT_BY] = { "by", 0, "WORD", "pread, guarded or mmap: how it is read (default pread)" },
    [OPT_CREATE] = { "create", 0, NULL, "make the store and the bank if they are missing" },
    [OPT_DEADLINE] = { "deadline", 0, "MS",
                       "how long to wait for another writer; -1: for ever (default 10000)" },
    [OPT_DURABILITY] = { "durability", 0, "WORD",
                         "none, interval or always: when writes are synced (default none)" },
    [OPT_EXIST_OK] = { "exist-ok", 0, NULL, "one that is already there is no error" },
    [OPT_EXPECT] = { "expect", 0, "N", "entries to be ready for" },
    [OPT_FILES] = { "files", 0, "DIR", "the directory whose regular files are loaded" },
    [OPT_FOR] = { "for", 0, "WORD",
                  "json, lmdb or bdb: what is to read the dump (default json)" },
    [OPT_FROM] = { "from", 0, "KEY", "keys from this one on, it included" },
    [OPT_HELP] = { "help", 'h', NULL, "say how the verb is used" },
    [OPT_INTERVAL] = { "interval", 0, "MS", "time between syncs with --durability interval" },
    [OPT_JSON] = { "json", 0, NULL, "print JSON, one object a line" },
    [OPT_KEY_BASE64] = { "key-base64", 0, NULL, "keys on the command line are base64" },
    [OPT_LIMIT] = { "limit", 0, "N", "so many keys at most" },
    [OPT_LONG] = { "long", 'l', NULL, "sizes and ages, too" },
    [OPT_MODE] = { "mode", 0, "OCTAL", "permissions of the files made (default 0600)" },
    [OPT_NULL] = { "null", '0', NULL, "end each name with a NUL byte, not a newline" },
    [OPT_ORDERED] = { "ordered", 0, NULL,
                      "a bank that is made keeps its keys in byte order" },
    [OPT_PAGE] = { "page", 0, "SIZE", "bytes of a page: a power of two, 1 to 1G (default 4K)" },
    [OPT_PAGES] = { "pages", 0, "N", "pages that are cached: a power of two (default 1024)" },
    [OPT_PREFIX] = { "prefix", 0, "KEY", "keys that begin so" },
    [OPT_QUIET] = { "quiet", 'q', NULL, "print errors only: no bar, no remarks" },
    [OPT_REVERSE] = { "reverse", 'r', NULL, "the last key first" },
    [OPT_SEGMENT] = { "segment-bytes", 0, "SIZE",
                      "largest heap file: a power of two, 4K to 1G (default 64M)" },
    [OPT_TO] = { "to", 0, "KEY", "keys up to this one, it excluded" },
    [OPT_VERIFY] = { "verify", 0, "WORD",
                     "first, always or never: when checksums are tested (default first)" },
};

/* ---- hints ------------------------------------------------------------ */

enum { WORD_MAX = 24 };

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters must change, come, go or swap to make a into b. */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1][WORD_MAX + 1];
    size_t m = strlen(a), n = strlen(b);

    if (m > WORD_MAX || n > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= n; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= m; i++) {
        row[i][0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = row[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

            best = least_of(best, least_of(row[i - 1][j], row[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = least_of(best, row[i - 2][j - 2] + 1);
            row[i][j] = best;
        }
    }
    return row[m][n];
}

const char *nearest(const char *typed, const char *(*word)(size_t i, const void *arg), size_t count,
                    const void *arg)
{
    const char *found = NULL;
    size_t best = 3;

    for (size_t i = 0; i < count; i++) {
        const char *w = word(i, arg);
        size_t d;

        if (w == NULL)
            continue;
        d = distance(typed, w);
        if (d < best && d < strlen(w)) {
            best = d;
            found = w;
        }
    }
    return found;
}

static const char *option_of_verb(size_t i, const void *verb)
{
    return ((const struct verb *)verb)->options & OPT_BIT(i) ? option_specs[i].name : NULL;
}

static int fail_unknown(const struct verb *verb, const char *typed, size_t name_len)
{
    char name[64];
    const char *meant;

    if (name_len >= sizeof name)
        name_len = sizeof name - 1;
    memcpy(name, typed + 2, name_len);
    name[name_len] = '\0';
    meant = nearest(name, option_of_verb, OPT_COUNT, verb);
    if (meant != NULL)
        return fail_usage("%s has no option %s; did you mean --%s?", verb->name, quoted(typed),
                          meant);
    return fail_usage("%s has no option %s; 'kist help %s' lists those it has, and a %s that "
                      "begins with a dash goes behind --",
                      verb->name, quoted(typed), verb->name,
                      verb->most >= 3 ? "key or value" : "name");
}

/* ---- taking the line apart -------------------------------------------- */

/* The option that `text` names, OPT_COUNT if the verb has none such. */
static enum option find_option(const struct verb *verb, const char *name, size_t len)
{
    for (unsigned i = 0; i < OPT_COUNT; i++)
        if ((verb->options & OPT_BIT(i)) != 0 && strlen(option_specs[i].name) == len &&
            memcmp(option_specs[i].name, name, len) == 0)
            return (enum option)i;
    return OPT_COUNT;
}

static enum option find_letter(const struct verb *verb, char letter)
{
    for (unsigned i = 0; i < OPT_COUNT; i++)
        if ((verb->options & OPT_BIT(i)) != 0 && option_specs[i].letter == letter)
            return (enum option)i;
    return OPT_COUNT;
}

static int give(struct args *args, enum option option, const char *value)
{
    if (args_has(args, option) && option_specs[option].value != NULL)
        return fail_usage("--%s is given twice; give it once", option_specs[option].name);
    args->given |= OPT_BIT(option);
    args->value[option] = value;
    return STATUS_DONE;
}

/* argv[*at] begins with two dashes; *at moves on if its value is the next. */
static int take_long(struct args *args, int argc, char **argv, int *at)
{
    const char *text = argv[*at];
    const char *equals = strchr(text, '=');
    size_t len = equals != NULL ? (size_t)(equals - text) - 2 : strlen(text) - 2;
    enum option option = find_option(args->verb, text + 2, len);
    const char *value = equals != NULL ? equals + 1 : NULL;

    if (option == OPT_COUNT)
        return fail_unknown(args->verb, text, len);
    if (option_specs[option].value == NULL && value != NULL)
        return fail_usage("--%s takes no value", option_specs[option].name);
    if (option_specs[option].value != NULL && value == NULL) {
        if (*at + 1 >= argc)
            return fail_usage("--%s needs its %s: --%s=%s", option_specs[option].name,
                              option_specs[option].value, option_specs[option].name,
                              option_specs[option].value);
        value = argv[++*at];
    }
    return give(args, option, value);
}

/* `text` begins with one dash. No option of one letter takes a value. */
static int take_letters(struct args *args, const char *text)
{
    for (const char *p = text + 1; *p != '\0'; p++) {
        enum option option = find_letter(args->verb, *p);

        if (option == OPT_COUNT)
            return fail_usage("%s has no option %s; put -- before a key or value that begins "
                              "with a dash",
                              args->verb->name, quoted(text));
        args->given |= OPT_BIT(option);
    }
    return STATUS_DONE;
}

static int take_operand(struct args *args, const char *text)
{
    if (args->count == args->verb->most)
        return fail_usage("%s is one argument too many; it goes: kist %s %s", quoted(text),
                          args->verb->name, args->verb->operands);
    args->operand[args->count++] = text;
    return STATUS_DONE;
}

int args_parse(struct args *args, const struct verb *verb, int argc, char **argv)
{
    bool ended = false;
    int status = STATUS_DONE;

    *args = (struct args){ .verb = verb };
    for (int i = 0; i < argc && status == STATUS_DONE; i++) {
        const char *text = argv[i];

        if (ended || text[0] != '-' || text[1] == '\0')
            status = take_operand(args, text);
        else if (strcmp(text, "--") == 0)
            ended = true;
        else if (text[1] == '-')
            status = take_long(args, argc, argv, &i);
        else
            status = take_letters(args, text);
    }
    if (status == STATUS_DONE && args->count < verb->least && !args_has(args, OPT_HELP))
        status = fail_usage("%s needs more than that; it goes: kist %s %s", verb->name, verb->name,
                            verb->operands);
    return status;
}

/* ---- values of options ------------------------------------------------ */

static int fail_value(const struct args *args, enum option option, const char *wanted)
{
    return fail_usage("--%s is %s; give %s", option_specs[option].name, quoted(args->value[option]),
                      wanted);
}

/* Digits alone, perhaps with a minus: no blanks, no plus, no overflow. */
static bool read_number(const char *text, int base, long long *out, const char **end)
{
    const char *digits = text[0] == '-' ? text + 1 : text;
    char *stop;

    if (digits[0] < '0' || digits[0] > '9')
        return false;
    errno = 0;
    *out = strtoll(text, &stop, base);
    *end = stop;
    return errno == 0;
}

int args_number(const struct args *args, enum option option, int64_t from, int64_t to, int64_t *out)
{
    long long number;
    const char *end;

    if (!args_has(args, option))
        return STATUS_DONE;
    if (!read_number(args->value[option], 10, &number, &end) || *end != '\0' || number < from ||
        number > to)
        return fail_usage("--%s is %s; give a number from %lld to %lld", option_specs[option].name,
                          quoted(args->value[option]), (long long)from, (long long)to);
    *out = number;
    return STATUS_DONE;
}

int args_size(const struct args *args, enum option option, uint64_t *out)
{
    static const char units[] = "KMG";
    const char *unit, *end;
    long long number;
    unsigned shift = 0;

    if (!args_has(args, option))
        return STATUS_DONE;
    if (!read_number(args->value[option], 10, &number, &end) || number < 0)
        return fail_value(args, option, "a size such as 4096, 512K, 64M or 1G");
    if (*end != '\0') {
        unit = strchr(units, *end & ~0x20);
        if (unit == NULL || end[1] != '\0')
            return fail_value(args, option, "a size such as 4096, 512K, 64M or 1G");
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (number > INT64_MAX >> shift)
        return fail_value(args, option, "a smaller size");
    *out = (uint64_t)number << shift;
    return STATUS_DONE;
}

int args_mode(const struct args *args, enum option option, uint32_t *out)
{
    long long number;
    const char *end;

    if (!args_has(args, option))
        return STATUS_DONE;
    if (!read_number(args->value[option], 8, &number, &end) || *end != '\0' || number < 0 ||
        number > 0777 || (number & 0600) != 0600)
        return fail_value(args, option,
                          "octal permissions that let the owner read and write, such as 0640");
    *out = (uint32_t)number;
    return STATUS_DONE;
}

int args_word(const struct args *args, enum option option, const char *const *words, uint32_t *out)
{
    char list[128] = "";

    if (!args_has(args, option))
        return STATUS_DONE;
    for (uint32_t i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], args->value[option]) == 0) {
            *out = i + 1;
            return STATUS_DONE;
        }
        if (i > 0)
            strcat(list, words[i + 1] == NULL ? " or " : ", ");
        strcat(list, words[i]);
    }
    return fail_value(args, option, list);
}
