/*
 * engine_tkrzw_tree - tkrzw's TreeDBM at its best: a memory-mapped file of the
 * size that is needed, room for all of its pages in its cache of unpacked ones,
 * gets and scans through a processor that copies nothing.
 */
#include "bench.h"

#include <memory>
#include <string>
#include <string_view>

#include <tkrzw_dbm_tree.h>
#include <tkrzw_file_mmap.h>
#include <tkrzw_lib_common.h>

namespace {

using tkrzw::Status;
using tkrzw::TreeDBM;

int fail(const char *what, const Status &status)
{
    return bench_fail("tkrzw", what, tkrzw::ToString(status).c_str());
}

std::string_view key_view(const bench_key *key)
{
    return {reinterpret_cast<const char *>(key), sizeof *key};
}

/* Looks at the value where it lies. */
class FirstByte final : public TreeDBM::RecordProcessor
{
  public:
    int found = BENCH_MISS;

    std::string_view ProcessFull(std::string_view, std::string_view value) override
    {
        found = static_cast<unsigned char>(value[0]);
        return NOOP;
    }
};

/* Touches entries as long as they have the prefix. */
class Touch final : public TreeDBM::RecordProcessor
{
  public:
    Touch(std::string_view prefix_, uint64_t digest_) : prefix(prefix_), digest(digest_) {}

    std::string_view prefix;
    uint64_t digest;
    int64_t entries = 0;
    bool within = true;

    std::string_view ProcessFull(std::string_view key, std::string_view value) override
    {
        within = key.substr(0, prefix.size()) == prefix;
        if (within) {
            digest = bench_touch(digest, key.data(), value.data());
            entries++;
        }
        return NOOP;
    }
};

struct Engine {
    explicit Engine(std::unique_ptr<tkrzw::File> file) : dbm(std::move(file)) {}

    TreeDBM dbm;
    std::unique_ptr<tkrzw::DBM::Iterator> iterator; /* made at the first scan */
};

Engine *engine(void *self)
{
    return static_cast<Engine *>(self);
}

int tree_open(void **self, const struct bench_conf *conf)
{
    auto file = std::make_unique<tkrzw::MemoryMapParallelFile>();
    auto entries = static_cast<int64_t>(conf->entries);
    TreeDBM::TuningParameters tuning;
    int32_t options = tkrzw::File::OPEN_NO_CREATE;

    if (conf->mode == BENCH_LOAD) {
        options = tkrzw::File::OPEN_TRUNCATE;
        file->SetAllocationStrategy(entries * 160 + (1 << 20), 2);
    }
    /* Pages of some 8 kB, at least half full. */
    tuning.num_buckets = entries / 16 + 1000;
    tuning.max_cached_pages = static_cast<int32_t>(entries / 16 + 10000);
    auto t = std::make_unique<Engine>(std::move(file));
    Status status = t->dbm.OpenAdvanced(std::string(conf->dir) + "/records.tkt",
                                        conf->mode != BENCH_READONLY, options, tuning);
    if (!status.IsOK())
        return fail("open", status);
    *self = t.release();
    return 0;
}

int tree_sync(void *self)
{
    Status status = engine(self)->dbm.Synchronize(true);

    return status.IsOK() ? 0 : fail("synchronize", status);
}

int tree_put(void *self, const bench_key *key, const void *value)
{
    Status status = engine(self)->dbm.Set(key_view(key),
                                          {static_cast<const char *>(value), BENCH_VALUE_BYTES});

    return status.IsOK() ? 0 : fail("set", status);
}

int tree_get(void *self, const bench_key *key)
{
    FirstByte first;
    Status status = engine(self)->dbm.Process(key_view(key), &first, false);

    return status.IsOK() ? first.found : fail("process", status);
}

int tree_close(void *self)
{
    std::unique_ptr<Engine> t(engine(self));

    t->iterator.reset();
    Status status = t->dbm.Close();
    return status.IsOK() ? 0 : fail("close", status);
}

const char *tree_version()
{
    return tkrzw::PACKAGE_VERSION;
}

int tree_remove(void *self, const bench_key *key)
{
    Status status = engine(self)->dbm.Remove(key_view(key));

    return status.IsOK() || status == Status::NOT_FOUND_ERROR ? 0 : fail("remove", status);
}

int64_t tree_scan(void *self, const void *prefix, size_t len, uint64_t *digest)
{
    Engine *t = engine(self);
    Touch touch({static_cast<const char *>(prefix), len}, *digest);
    Status status;

    if (len == 0) {
        status = t->dbm.ProcessEach(&touch, false);
    } else {
        if (!t->iterator)
            t->iterator = t->dbm.MakeIterator();
        status = t->iterator->Jump(touch.prefix);
        while (status.IsOK()) {
            status = t->iterator->Process(&touch, false);
            if (!status.IsOK() || !touch.within)
                break;
            status = t->iterator->Next();
        }
        if (status == Status::NOT_FOUND_ERROR) /* the last one was before */
            status = Status(Status::SUCCESS);
    }
    *digest = touch.digest;
    return status.IsOK() ? touch.entries : fail("scan", status);
}

int tree_compact(void *self)
{
    Status status = engine(self)->dbm.Rebuild();

    return status.IsOK() ? 0 : fail("rebuild", status);
}

const struct bench_order order = {
    tree_remove, tree_scan, tree_compact,
    nullptr, /* snapshot */
    nullptr, /* snapshot_free */
    nullptr, /* revert */
    nullptr, /* save */
    nullptr, /* restore */
};

} // namespace

extern "C" const struct bench_engine bench_tkrzw_tree = {
    "tkrzw",
    false,
    tree_open,
    tree_put,
    tree_get,
    tree_sync,
    tree_close,
    nullptr, /* get_many */
    nullptr, /* read_begin */
    nullptr, /* read_end */
    nullptr, /* tidy */
    nullptr, /* use */
    tree_version,
    "TreeDBM in a MemoryMapParallelFile, all pages in its cache, nothing copied by gets and scans; "
    "compacted: Rebuild",
    &order,
};
