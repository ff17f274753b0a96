/*
 * ledger - a bank whose content proves of itself that it is one moment's.
 *
 *   accounts   amounts are moved between them in batches: the sum stays
 *   clock      single puts and deletes, each with its number t, of keys that follow
 *              from t: what one moment shows ends at one t, and lacks none before
 */
#ifndef KIST_TESTS_LEDGER_H
#define KIST_TESTS_LEDGER_H

#include "support.h"

enum { ACCOUNTS = 150, CLOCK = 509 };

struct ledger {
    uint64_t t;
    uint64_t amount[ACCOUNTS];
};

/* An empty bank's first content; one that has some is read. */
void ledger_begin(struct ledger *l, kist_bank *bank);

/* One write. KIST_OK, or what kist said; then nothing has changed. */
int ledger_write(struct ledger *l, kist_bank *bank, struct rng *rng);

/* All of it once more, by kist_replace(). */
int ledger_replace(const struct ledger *l, kist_bank *bank);

/* All that a cursor of the bank or snapshot shows, which must be of one moment. */
void ledger_read(struct ledger *l, kist_bank *bank, bool is_ordered);

/* The sum of the accounts, by a short cursor; an ordered bank. */
void ledger_add_up(kist_bank *bank);

/* A snapshot, by gets: it shows this. */
void ledger_must_be(const struct ledger *l, kist_bank *snapshot);

#endif
