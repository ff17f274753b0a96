/* The verbs. Each takes the parsed command line, tells of its failures itself
 * and returns the exit status. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "args.h"

/* verbs_data.c */
int verb_put(const struct args *args);
int verb_get(const struct args *args);
int verb_del(const struct args *args);
int verb_has(const struct args *args);

/* verbs_care.c */
int verb_create(const struct args *args);
int verb_verify(const struct args *args);
int verb_repair(const struct args *args);
int verb_compact(const struct args *args);
int verb_clear(const struct args *args);
int verb_drop(const struct args *args);

/* ls.c, batch.c, snapshot.c, stat.c, dump.c, load.c, copy.c, help.c */
int verb_ls(const struct args *args);
int verb_batch(const struct args *args);
int verb_snapshot(const struct args *args);
int verb_stat(const struct args *args);
int verb_dump(const struct args *args);
int verb_load(const struct args *args);
int verb_copy(const struct args *args);
int verb_help(const struct args *args);

/* snapshot.c: is it one of the things that the verb snapshot does? */
bool snapshot_knows(const char *what);

/* pages.c, inspect.c */
int verb_pages(const struct args *args);
int verb_inspect(const struct args *args);

/* salt.c: become kist-salt, with what follows argv[0]. Returns if that fails. */
int salt_run(char **argv);

/* main.c: all verbs, in the order that help shows them; the one of that name,
 * or NULL; the name it was perhaps meant to be, or NULL. */
extern const struct verb verbs[];
extern const size_t verb_count;
const struct verb *verb_find(const char *name);
const char *verb_nearest(const char *typed);

#endif
