/* name - which bank names are valid, and listing those there are. */
#ifndef KIST_STORE_NAME_H
#define KIST_STORE_NAME_H

#include "kist/kist.h"

/* KIST_OK, or KIST_EBANKNAME with its context set. */
int name_check(const char *name);

/* Call `each` for every bank at or below `prefix` in the store `dir`. */
int name_list(int dir, const char *prefix, int (*each)(const char *name, void *arg), void *arg);

#endif
