/*
 * calls - every call on a bank or a store, for handles of which each must
 * answer the same: of a closed store, a dropped bank, a forked child.
 */
#ifndef KIST_TESTS_CALLS_H
#define KIST_TESTS_CALLS_H

#include <kist/kist.h>

void calls_must_say(kist_bank *bank, int want);
void store_calls_must_say(kist_store *store, int want);

#endif
