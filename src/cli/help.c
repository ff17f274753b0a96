/*
 * Help: made from the tables of verbs and options, so that it cannot lag
 * behind them.
 */
#include "fail.h"
#include "out.h"
#include "verbs.h"

#include <stdio.h>
#include <string.h>

static const char intro[] =
    "kist keeps cached data in memory-mapped files, for every process of the host.\n"
    "\n"
    "usage: kist VERB STORE [BANK] [KEY] [VALUE] [--options]\n"
    "\n"
    "STORE is a directory, BANK a key space in it. Options may stand anywhere behind\n"
    "the verb; -- ends them.\n"
    "\n";

static const char outro[] =
    "\n"
    "'kist help VERB' tells more of each. 'kist salt', for Salt masters, is kist-salt of\n"
    "the Python package.\n"
    "\n"
    "Exit status: 0 done, 1 no such key or not as expected, 2 wrong usage, 3 the system\n"
    "said no, 4 damage was found.\n";

static void print_options(const struct verb *verb)
{
    char name[40];

    for (unsigned i = 0; i < OPT_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];

        if ((verb->options & OPT_BIT(i)) == 0)
            continue;
        (void)snprintf(name, sizeof name, "--%s%s%s", spec->name, spec->value != NULL ? "=" : "",
                       spec->value != NULL ? spec->value : "");
        if (spec->letter != 0)
            out_text("  -%c, %-20s  %s\n", spec->letter, name, spec->help);
        else
            out_text("  %-24s  %s\n", name, spec->help);
    }
}

static int help_verb(const struct verb *verb)
{
    out_text("usage: kist %s %s [--options]\n\n%s.\n%s\n", verb->name, verb->operands,
             verb->summary, verb->details);
    print_options(verb);
    return STATUS_DONE;
}

/* The same in JSON: the verb, then its options, an object a line. */
static void json_verb(const struct verb *verb)
{
    json_begin();
    json_text("verb", verb->name);
    json_text("operands", verb->operands);
    json_text("summary", verb->summary);
    json_text("details", verb->details);
    json_end();
}

static int json_help_verb(const struct verb *verb)
{
    json_verb(verb);
    for (unsigned i = 0; i < OPT_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];
        const char letter[2] = { spec->letter, '\0' };

        if ((verb->options & OPT_BIT(i)) == 0)
            continue;
        json_begin();
        json_text("option", spec->name);
        json_text("letter", letter);
        json_text("value", spec->value != NULL ? spec->value : "");
        json_text("help", spec->help);
        json_end();
    }
    return STATUS_DONE;
}

static int json_help_all(void)
{
    for (size_t i = 0; i < verb_count; i++)
        json_verb(&verbs[i]);
    return STATUS_DONE;
}

static int help_all(void)
{
    char line[64];

    out_text("%s", intro);
    for (size_t i = 0; i < verb_count; i++) {
        (void)snprintf(line, sizeof line, "%s %s", verbs[i].name, verbs[i].operands);
        out_text("  %-32s %s\n", line, verbs[i].summary);
    }
    out_text("%s", outro);
    return STATUS_DONE;
}

int verb_help(const struct args *args)
{
    const char *name = args->operand[0];
    bool json = args->verb->run == verb_help && args_has(args, OPT_JSON);
    const struct verb *verb;

    if (args_has(args, OPT_HELP) && name == NULL)
        return help_verb(args->verb);
    if (name == NULL)
        return json ? json_help_all() : help_all();
    if (strcmp(name, "salt") == 0)
        return salt_run((char *[]){ NULL, (char[]){ "--help" }, NULL });
    verb = verb_find(name);
    if (verb != NULL)
        return json ? json_help_verb(verb) : help_verb(verb);
    return fail_usage("no verb is called %s; 'kist help' lists them", quoted(name));
}
