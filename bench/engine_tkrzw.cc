/*
 * engine_tkrzw - tkrzw's HashDBM at its best: a memory-mapped file of the size
 * that is needed, twice as many buckets as records, updates in place, no
 * checksums, gets through a processor that copies nothing. Other alignments,
 * sizes of the first read, and the file class without the locks on ranges
 * were tried and were no faster.
 */
#include "bench.h"

#include <memory>
#include <string>
#include <string_view>

#include <tkrzw_dbm_hash.h>
#include <tkrzw_file_mmap.h>
#include <tkrzw_lib_common.h>

namespace {

using tkrzw::HashDBM;
using tkrzw::Status;

int fail(const char *what, const Status &status)
{
    return bench_fail("tkrzw", what, tkrzw::ToString(status).c_str());
}

std::string_view key_view(const bench_key *key)
{
    return {reinterpret_cast<const char *>(key), sizeof *key};
}

/* Looks at the value where it lies. */
class FirstByte final : public HashDBM::RecordProcessor
{
  public:
    int found = BENCH_MISS;

    std::string_view ProcessFull(std::string_view, std::string_view value) override
    {
        found = static_cast<unsigned char>(value[0]);
        return NOOP;
    }
};

struct Engine {
    explicit Engine(std::unique_ptr<tkrzw::File> file) : dbm(std::move(file)) {}

    HashDBM dbm;
    bool durable = false;
};

Engine *engine(void *self)
{
    return static_cast<Engine *>(self);
}

int tkrzw_open(void **self, const struct bench_conf *conf)
{
    auto file = std::make_unique<tkrzw::MemoryMapParallelFile>();
    HashDBM::TuningParameters tuning;
    int32_t options = tkrzw::File::OPEN_NO_CREATE;

    if (conf->mode == BENCH_LOAD) {
        options = tkrzw::File::OPEN_TRUNCATE;
        file->SetAllocationStrategy(static_cast<int64_t>(conf->entries) * 160 + (1 << 20), 2);
    }
    tuning.num_buckets = static_cast<int64_t>(conf->entries) * 2;
    auto t = std::make_unique<Engine>(std::move(file));
    t->durable = conf->mode == BENCH_DURABLE;
    Status status = t->dbm.OpenAdvanced(std::string(conf->dir) + "/records.tkh",
                                        conf->mode != BENCH_READONLY, options, tuning);
    if (!status.IsOK())
        return fail("open", status);
    *self = t.release();
    return 0;
}

int tkrzw_sync(void *self)
{
    Status status = engine(self)->dbm.Synchronize(true);

    return status.IsOK() ? 0 : fail("synchronize", status);
}

int tkrzw_put(void *self, const bench_key *key, const void *value)
{
    Engine *t = engine(self);
    Status status = t->dbm.Set(key_view(key),
                               {static_cast<const char *>(value), BENCH_VALUE_BYTES});

    if (!status.IsOK())
        return fail("set", status);
    return t->durable ? tkrzw_sync(t) : 0;
}

int tkrzw_get(void *self, const bench_key *key)
{
    FirstByte first;
    Status status = engine(self)->dbm.Process(key_view(key), &first, false);

    return status.IsOK() ? first.found : fail("process", status);
}

int tkrzw_close(void *self)
{
    std::unique_ptr<Engine> t(engine(self));
    Status status = t->dbm.Close();

    return status.IsOK() ? 0 : fail("close", status);
}

const char *tkrzw_version()
{
    return tkrzw::PACKAGE_VERSION;
}

} // namespace

extern "C" const struct bench_engine bench_tkrzw = {
    "tkrzw",
    false,
    tkrzw_open,
    tkrzw_put,
    tkrzw_get,
    tkrzw_sync,
    tkrzw_close,
    nullptr, /* get_many */
    nullptr, /* read_begin */
    nullptr, /* read_end */
    nullptr, /* tidy */
    nullptr, /* use */
    tkrzw_version,
    "HashDBM in a MemoryMapParallelFile, twice as many buckets as records, updates in place, "
    "gets without a copy; durable: Synchronize(hard) after each",
    nullptr, /* order */
};
