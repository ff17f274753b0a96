/* calls - see calls.h. */
#include "calls.h"

#include "support.h"

static int refuse_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    (void)key, (void)value, (void)arg;
    return KIST_END;
}

void calls_must_say(kist_bank *bank, int want)
{
    kist_bytes key = text("k"), value;
    kist_view *view;
    kist_batch *batch;
    kist_iter *iter;
    kist_meta meta;
    kist_stats stats = { .size = sizeof stats };
    kist_report report = { .size = sizeof report };
    uint64_t n;
    size_t len;
    double share;
    int rc;

    must_ok(kist_read_begin());
    must_rc(kist_get(bank, key, &value), want);
    must_rc(kist_get_many(bank, &key, 1, &value, &rc), want);
    kist_read_end();
    must_rc(kist_get_view(bank, key, &view), want);
    must_rc(kist_get_copy(bank, key, NULL, 0, &len), want);
    must_rc(kist_get_meta(bank, key, &meta), want);
    must_rc(kist_put(bank, key, key), want);
    must_rc(kist_get_or_insert(bank, key, key, NULL), want);
    must_rc(kist_put_if_sequence(bank, key, key, 0), want);
    must_rc(kist_delete(bank, key), want);
    must_rc(kist_clear(bank), want);
    must_rc(kist_replace(bank, refuse_next, NULL), want);
    must_rc(kist_sync(bank), want);
    must_rc(kist_batch_open(&batch, bank), want);
    must(batch == NULL);
    must_rc(kist_iter_open(&iter, bank), want);
    must_rc(kist_stat(bank, &stats), want);
    must_rc(kist_save_index(bank), want);
    must_rc(kist_count(bank, &n), want);
    must_rc(kist_size_bytes(bank, &n), want);
    must_rc(kist_fragmentation(bank, &share), want);
    must_rc(kist_compact(bank, NULL, NULL), want);
    must_rc(kist_verify(bank, &report, NULL, NULL), want);
}

static int note_nothing(const char *name, void *arg)
{
    (void)name, (void)arg;
    return 0;
}

void store_calls_must_say(kist_store *store, int want)
{
    kist_bank_options create = { .size = sizeof create, .flags = KIST_BANK_CREATE };
    kist_bank *bank;

    must_rc(kist_bank_open(&bank, store, "other", NULL), want);
    must_rc(kist_bank_open(&bank, store, "other", &create), want);
    must(bank == NULL);
    must_rc(kist_bank_drop(store, "other"), want);
    must_rc(kist_bank_list(store, NULL, note_nothing, NULL), want);
    must_rc(kist_repair(store, "other", NULL, NULL, NULL), want);
}
