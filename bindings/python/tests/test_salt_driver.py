"""The cache driver for Salt, row by row as its users know it."""
import logging
import multiprocessing
import os
import random
import resource
import struct
import tempfile
import threading
import time

import kist
import pytest

msgpack = pytest.importorskip("msgpack")

from kist.salt import cache, handles  # noqa: E402


@pytest.fixture(autouse=True)
def opts(folder):
    """What a master's loader would inject; banks are not synced."""
    cache.__opts__ = {"cachedir": os.path.join(folder, "cache"), "kist_durability": "none"}
    cache._caches.clear()
    yield cache.__opts__
    cache.__opts__ = {}
    cache._caches.clear()
    handles._banks.clear()


@pytest.fixture
def cachedir(opts):
    return opts["cachedir"]


def bank_of(cachedir, name, **settings):
    """The bank below the driver, by another handle."""
    return kist.open(cachedir, create=False).bank(name, create=False, **settings)


# ---- store ---------------------------------------------------------------


def test_store_writes_msgpack_with_bin_type(cachedir):
    data = {"text": "ä", "bytes": b"\xff\x00", "list": [1, 2.5, None, True], 7: "int"}
    assert cache.store("bank", "key", data, cachedir) is None
    assert bank_of(cachedir, "bank")["key"] == msgpack.packb(data, use_bin_type=True)


def test_store_takes_further_keyword_arguments(cachedir):
    cache.store(bank="bank", key="key", data=1, cachedir=cachedir, whatever=2)
    assert cache.fetch(bank="bank", key="key", cachedir=cachedir, whatever=2) == 1


def test_store_raises_salt_cache_error_naming_bank_and_key_if_it_cannot_be_serialised(cachedir):
    with pytest.raises(cache.SaltCacheError, match="a/bank.*the-key"):
        cache.store("a/bank", "the-key", {"no": object()}, cachedir)
    assert cache.fetch("a/bank", "the-key", cachedir) == {}


def test_store_raises_salt_cache_error_naming_bank_and_key_if_it_cannot_be_written(cachedir):
    cache.store("bank", "key", 1, cachedir)
    with pytest.raises(cache.SaltCacheError, match="'bank'.*65,535") as caught:
        cache.store("bank", "k" * 70_000, 1, cachedir)
    assert isinstance(caught.value.__cause__, kist.KeyLengthError)
    with pytest.raises(cache.SaltCacheError, match="'bank'.*key=5"):
        cache.store("bank", 5, 1, cachedir)
    file = os.path.join(cachedir, "file")
    with open(file, "w"):
        pass
    with pytest.raises(cache.SaltCacheError, match="'file'.*'key'"):
        cache.store("file", "key", 1, cachedir)


def fill_up(cachedir, queue):
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
    try:
        for i in range(100):
            cache.store("bank", f"k{i}", "x" * 4000, cachedir)
    except cache.SaltCacheError as why:
        queue.put((i, str(why), type(why.__cause__).__name__, cache.fetch("bank", "k0", cachedir)))
    else:
        queue.put(None)


def test_store_with_no_space_left_raises_salt_cache_error_and_changes_nothing(cachedir):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=fill_up, args=(cachedir, queue))
    child.start()
    stopped, text, cause, first = queue.get()
    child.join()
    assert cause == "FileSizeError" and "'bank'" in text and f"'k{stopped}'" in text
    assert first == "x" * 4000
    assert sorted(cache.list_("bank", cachedir)) == sorted(f"k{i}" for i in range(stopped))


def test_store_with_expires_wraps_as_salts_cache_does(cachedir):
    cache.store("tokens", "t", {"a": 1}, cachedir, expires=60)
    wrapped = cache.fetch("tokens", "t", cachedir)
    assert wrapped["data"] == {"a": 1} and set(wrapped) == {"data", "_expires"}
    assert 0 <= wrapped["_expires"] - time.time() <= 61
    cache.store("tokens", "t", {"a": 1}, cachedir, expires=None)
    assert cache.fetch("tokens", "t", cachedir) == {"a": 1}


def test_store_makes_the_cachedir(folder):
    cachedir = os.path.join(folder, "not", "yet", "there")
    cache.store("bank", "key", 1, cachedir)
    assert cache.fetch("bank", "key", cachedir) == 1


# ---- fetch ---------------------------------------------------------------


def test_fetch_gives_the_value(cachedir):
    for value in ("text", b"bytes\x00", 0, [], {}, None, {"i": 0}, ["ü", {"a": [1]}], {1: {2: 3}}):
        cache.store("bank", "key", value, cachedir)
        assert cache.fetch("bank", "key", cachedir) == value


def test_fetch_gives_an_empty_dict_if_there_is_none(cachedir):
    assert cache.fetch("no/bank", "key", cachedir) == {}
    assert not os.path.exists(cachedir), "reading makes nothing"
    cache.store("bank", "key", 1, cachedir)
    assert cache.fetch("bank", "none", cachedir) == {}


def test_fetch_of_a_present_entry_without_value_is_an_empty_dict(cachedir):
    cache.store("bank", "key", 1, cachedir)
    bank_of(cachedir, "bank")["mark"] = b""
    assert cache.fetch("bank", "mark", cachedir) == {}
    assert cache.contains("bank", "mark", cachedir) is True


def test_fetch_raises_salt_cache_error_if_it_cannot_be_decoded(cachedir):
    cache.store("bank", "key", 1, cachedir)
    bank_of(cachedir, "bank")["key"] = b"\xc1 is no msgpack"
    with pytest.raises(cache.SaltCacheError, match="'bank'.*'key'"):
        cache.fetch("bank", "key", cachedir)


def damage(cachedir, name, needle):
    """Flip a bit of a value's record, in every heap file that has it."""
    folder = os.path.join(cachedir, name)
    found = 0
    for file in os.listdir(folder):
        if file.startswith("kist.heap."):
            with open(os.path.join(folder, file), "r+b") as heap:
                at = heap.read().find(needle)
                if at >= 0:
                    heap.seek(at)
                    heap.write(bytes([needle[0] ^ 1]))
                    found += 1
    assert found


def test_fetch_of_a_damaged_record_raises_salt_cache_error(cachedir):
    cache.store("bank", "key", "a value that can be found", cachedir)
    damage(cachedir, "bank", b"a value that can be found")
    with pytest.raises(cache.SaltCacheError, match="'bank'.*'key'") as caught:
        cache.fetch("bank", "key", cachedir)
    assert isinstance(caught.value.__cause__, kist.CorruptError)


# ---- updated -------------------------------------------------------------


def test_updated_is_whole_seconds_of_the_last_write(cachedir):
    before = int(time.time()) - 1
    cache.store("bank", "key", 1, cachedir)
    first = cache.updated("bank", "key", cachedir)
    assert type(first) is int and before <= first <= time.time()
    meta = bank_of(cachedir, "bank").meta("key")
    assert first == meta.mtime_ns // 10**9


def test_updated_is_none_if_there_is_no_key(cachedir):
    assert cache.updated("none", "key", cachedir) is None
    cache.store("bank", "key", 1, cachedir)
    assert cache.updated("bank", "none", cachedir) is None


# ---- flush ---------------------------------------------------------------


def test_flush_is_defined_with_an_alias():
    assert cache.__func_alias__ == {"list_": "list", "flush_": "flush"}
    assert not hasattr(cache, "flush") and not hasattr(cache, "list")


def test_flush_of_a_key_is_true_if_it_was_there(cachedir):
    cache.store("bank", "key", 1, cachedir)
    cache.store("bank", "other", 2, cachedir)
    assert cache.flush_("bank", "key", cachedir) is True
    assert cache.flush_("bank", "key", cachedir) is False
    assert cache.flush_("no bank", "key", cachedir) is False
    assert cache.fetch("bank", "key", cachedir) == {}
    assert cache.fetch("bank", "other", cachedir) == 2


def test_flush_of_a_bank_removes_its_files_but_not_its_sub_banks(cachedir):
    cache.store("bank", "key", 1, cachedir)
    cache.store("bank/below", "key", 2, cachedir)
    assert cache.flush_("bank", cachedir=cachedir) is True
    assert cache.fetch("bank", "key", cachedir) == {}
    assert cache.list_("bank", cachedir) == []
    assert not [name for name in os.listdir(os.path.join(cachedir, "bank")) if "kist" in name]
    assert cache.fetch("bank/below", "key", cachedir) == 2
    assert cache.flush_("bank", None, cachedir) is False, "there is nothing left of it"
    cache.store("bank", "key", 3, cachedir)
    assert cache.fetch("bank", "key", cachedir) == 3


def test_flush_of_a_bank_that_does_not_exist_is_false(cachedir):
    assert cache.flush_("ghost", None, cachedir) is False
    cache.store("bank", "key", 1, cachedir)
    assert cache.flush_("ghost", None, cachedir) is False
    os.mkdir(os.path.join(cachedir, "empty"))
    assert cache.flush_("empty", None, cachedir) is False


def test_flush_takes_the_cachedir_from_opts(cachedir):
    cache.store("bank", "key", 1, cachedir)
    assert cache.flush_("bank", "key") is True
    assert cache.flush_("bank") is True


def test_flush_of_a_bank_takes_its_directory_when_nothing_else_is_in_it(cachedir):
    cache.store("minions/a", "key", 1, cachedir)
    assert cache.flush_("minions/a", None, cachedir) is True
    assert cache.contains("minions/a", None, cachedir) is False


# ---- list ----------------------------------------------------------------


def test_list_gives_the_keys_as_str(cachedir):
    keys = ["a", "ü/ä:b", "with space", "x" * 200]
    for key in keys:
        cache.store("bank", key, 1, cachedir)
    found = cache.list_("bank", cachedir)
    assert type(found) is list and sorted(found) == sorted(keys)
    assert cache.list_("none", cachedir) == []


def test_list_of_a_long_bank_follows_what_any_process_writes(cachedir):
    for i in range(1000):
        cache.store("bank", f"k{i}", i, cachedir)
    first = cache.list_("bank", cachedir)
    first.clear()  # the caller's own
    assert len(cache.list_("bank", cachedir)) == 1000
    process = multiprocessing.get_context("spawn").Process(target=put_one, args=(cachedir,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "of another process" in cache.list_("bank", cachedir)
    cache.flush_("bank", "k7", cachedir)
    assert len(cache.list_("bank", cachedir)) == 1000
    bank_of(cachedir, "bank").replace((f"n{i}", b"") for i in range(500))
    assert sorted(cache.list_("bank", cachedir)) == sorted(f"n{i}" for i in range(500))
    bank_of(cachedir, "bank").clear()
    assert cache.list_("bank", cachedir) == []


def put_one(cachedir):
    bank_of(cachedir, "bank")["of another process"] = b"\x01"


def test_list_of_a_bank_that_has_only_sub_banks_is_empty(cachedir):
    cache.store("minions/web01", "grains", {}, cachedir)
    assert cache.list_("minions", cachedir) == []
    assert cache.list_all("minions", cachedir, include_data=True) == {}
    assert cache.list_("", cachedir) == []


def test_keys_that_are_no_utf8_come_back_as_they_went(cachedir):
    key = os.fsdecode(b"\xff-key")
    cache.store("bank", key, 1, cachedir)
    assert cache.fetch("bank", key, cachedir) == 1 and cache.list_("bank", cachedir) == [key]
    assert cache.contains("bank", key, cachedir) is True
    assert cache.updated("bank", key, cachedir) is not None
    assert cache.flush_("bank", key, cachedir) is True


# ---- list_all ------------------------------------------------------------


def test_list_all_gives_empty_dicts_or_values(cachedir):
    values = {f"k{i}": {"i": i} for i in range(300)}
    for key, value in values.items():
        cache.store("bank", key, value, cachedir)
    bank_of(cachedir, "bank")["mark"] = b""
    values["mark"] = {}
    assert cache.list_all("bank", cachedir) == dict.fromkeys(values, {})
    assert cache.list_all("bank", cachedir, include_data=True) == values
    assert cache.list_all("none", cachedir) == {} == cache.list_all("none", cachedir, True)


def test_list_all_gives_each_key_a_dict_of_its_own(cachedir):
    cache.store("bank", "a", 1, cachedir)
    cache.store("bank", "b", 1, cachedir)
    found = cache.list_all("bank", cachedir)
    assert found["a"] is not found["b"]


def test_list_all_logs_an_undecodable_entry_and_leaves_it_out(cachedir, caplog):
    cache.store("bank", "good", 1, cachedir)
    bank_of(cachedir, "bank")["bad-one"] = b"\xc1"
    with caplog.at_level(logging.WARNING):
        assert cache.list_all("bank", cachedir, include_data=True) == {"good": 1}
    assert "bad-one" in caplog.text and "'bank'" in caplog.text


def test_list_all_logs_a_damaged_record_and_goes_on(cachedir, caplog):
    for i in range(5):
        cache.store("bank", f"k{i}", f"needle {i} haystack", cachedir)
    damage(cachedir, "bank", b"needle 2 haystack")
    with caplog.at_level(logging.WARNING):
        found = cache.list_all("bank", cachedir, include_data=True)
    assert sorted(found) == ["k0", "k1", "k3", "k4"]
    assert "damaged" in caplog.text


# ---- contains ------------------------------------------------------------


def test_contains_is_a_bool(cachedir):
    assert cache.contains("bank", "key", cachedir) is False
    cache.store("bank", "key", 1, cachedir)
    assert cache.contains("bank", "key", cachedir) is True
    assert cache.contains("bank", "none", cachedir) is False


def test_contains_without_key_tells_whether_the_banks_directory_exists(cachedir):
    assert cache.contains("a/b", None, cachedir) is False
    cache.store("a/b", "key", 1, cachedir)
    assert cache.contains("a/b", None, cachedir) is True
    assert cache.contains("a", None, cachedir) is True
    assert cache.contains("a/b/c", None, cachedir) is False
    os.mkdir(os.path.join(cachedir, "plain"))
    assert cache.contains("plain", None, cachedir) is True


# ---- init_kwargs, get_storage_id ------------------------------------------


def test_init_kwargs_gives_the_cachedir_of_kwargs_or_opts(cachedir):
    assert cache.init_kwargs({"cachedir": "/given", "other": 1}) == {"cachedir": "/given"}
    assert cache.init_kwargs({}) == {"cachedir": cachedir}
    assert cache.init_kwargs(None) == {"cachedir": cachedir}
    cache.__opts__ = {}
    with pytest.raises(cache.SaltCacheError, match="cachedir"):
        cache.init_kwargs({})


def test_get_storage_id_names_the_driver_and_the_cachedir(cachedir):
    assert cache.get_storage_id({"cachedir": "/given"}) == ("kist", "/given")
    assert cache.get_storage_id({}) == ("kist", cachedir)


# ---- names of banks ------------------------------------------------------


def test_banks_are_sub_directories_and_their_names_are_normalised(cachedir):
    cache.store("a/b", "key", 1, cachedir)
    assert os.path.isfile(os.path.join(cachedir, "a", "b", "kist.bank"))
    for name in ("a//b", "./a/b/", "a/./b", "a/c/../b"):
        assert cache.fetch(name, "key", cachedir) == 1
        assert cache.contains(name, None, cachedir) is True
    cache.store("a//b/", "key", 2, cachedir)
    assert cache.fetch("a/b", "key", cachedir) == 2


CALLS = {
    "store": lambda bank, cachedir: cache.store(bank, "key", 1, cachedir),
    "fetch": lambda bank, cachedir: cache.fetch(bank, "key", cachedir),
    "updated": lambda bank, cachedir: cache.updated(bank, "key", cachedir),
    "flush key": lambda bank, cachedir: cache.flush_(bank, "key", cachedir),
    "flush bank": lambda bank, cachedir: cache.flush_(bank, None, cachedir),
    "list": lambda bank, cachedir: cache.list_(bank, cachedir),
    "list_all": lambda bank, cachedir: cache.list_all(bank, cachedir, include_data=True),
    "contains": lambda bank, cachedir: cache.contains(bank, "key", cachedir),
    "contains bank": lambda bank, cachedir: cache.contains(bank, None, cachedir),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("bank", ["..", "../x", "a/../../x", "/etc", "//x", "a\0b", None, 5])
def test_a_name_that_would_leave_the_cachedir_is_refused(call, bank, cachedir):
    cache.store("a", "key", 1, cachedir)
    with pytest.raises(cache.SaltCacheError):
        call(bank, cachedir)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_name_that_leads_through_a_symlink_is_refused(call, cachedir, folder):
    cache.store("real/below", "key", 1, cachedir)
    outside = os.path.join(folder, "outside")
    cache.store("x", "key", 1, outside)
    os.symlink(outside, os.path.join(cachedir, "link"))
    os.symlink(os.path.join(cachedir, "real"), os.path.join(cachedir, "inside"))
    for bank in ("link/x", "inside/below", "inside"):
        with pytest.raises(cache.SaltCacheError):
            call(bank, cachedir)
    assert cache.fetch("x", "key", outside) == 1


def test_the_cachedir_itself_is_no_bank(cachedir):
    with pytest.raises(cache.SaltCacheError):
        cache.store("", "key", 1, cachedir)
    assert cache.fetch(".", "key", cachedir) == {}
    assert cache.flush_("", None, cachedir) is False


def test_a_name_of_kists_own_files_is_refused(cachedir):
    with pytest.raises(cache.SaltCacheError, match="kist.heap.1"):
        cache.store("a/kist.heap.1", "key", 1, cachedir)


# ---- options -------------------------------------------------------------


def test_a_cachedir_that_is_in_use_becomes_a_store(cachedir):
    os.makedirs(os.path.join(cachedir, "jobs", "ab"))
    cache.store("bank", "key", 1, cachedir)
    assert "bank" in kist.open(cachedir, create=False).banks()
    assert os.path.isdir(os.path.join(cachedir, "jobs", "ab"))


def settings_of(cachedir, name):
    """The settings kept with a bank: segment bytes, durability, verify, expected entries."""
    with open(os.path.join(cachedir, name, "kist.bank"), "rb") as file:
        page = file.read()
    segment, durability, _, verify, expect = struct.unpack_from("<IIIIQ", page, 40)
    return segment, durability, verify, expect


def test_writes_are_durable_by_default(cachedir, opts):
    del opts["kist_durability"]
    cache.store("bank", "key", 1, cachedir)
    assert settings_of(cachedir, "bank")[1] == 3
    assert cache._caches[cachedir, "bank"].stats().unsynced_bytes == 0


@pytest.mark.parametrize("durability, number", [("none", 1), ("interval", 2), ("always", 3)])
def test_option_kist_durability(durability, number, cachedir, opts):
    opts["kist_durability"] = durability
    cache.store("bank", "key", 1, cachedir)
    assert settings_of(cachedir, "bank")[1] == number
    if durability != "interval":  # when its thread has synced is its own affair
        unsynced = cache._caches[cachedir, "bank"].stats().unsynced_bytes
        assert (unsynced == 0) is (durability == "always")


def test_option_kist_durability_that_is_unknown_is_told_of(cachedir, opts):
    opts["kist_durability"] = "sometimes"
    with pytest.raises(cache.SaltCacheError, match="always, interval, none.*sometimes"):
        cache.store("bank", "key", 1, cachedir)


def test_option_mmap_cache_size_is_an_initial_hint(cachedir, opts):
    opts["mmap_cache_size"] = 700
    cache.store("bank", "key", 1, cachedir)
    assert settings_of(cachedir, "bank")[3] == 700
    for i in range(2000):
        cache.store("bank", f"k{i}", i, cachedir)
    assert len(cache.list_("bank", cachedir)) == 2001
    opts["mmap_cache_size"] = 1_000_000
    cache.store("large", "key", 1, cachedir)
    assert os.path.getsize(os.path.join(cachedir, "large", "kist.index.1")) < 100_000


def test_options_slot_size_and_key_size_are_no_limits(cachedir, opts):
    opts.update(mmap_cache_slot_size=32, mmap_cache_key_size=8)
    keys = ["k" * 64 + "1", "k" * 64 + "2", "k" * 5000]
    for key in keys:
        cache.store("bank", key, key, cachedir)
    assert [cache.fetch("bank", key, cachedir) for key in keys] == keys


def test_option_mmap_cache_max_segment_bytes_bounds_heap_files(cachedir, opts):
    opts["mmap_cache_max_segment_bytes"] = 20_000
    for i in range(50):
        cache.store("bank", f"k{i}", "x" * 3000, cachedir)
    sizes = [os.path.getsize(os.path.join(cachedir, "bank", name))
             for name in os.listdir(os.path.join(cachedir, "bank")) if ".heap." in name]
    assert len(sizes) > 5 and max(sizes) <= 20_000
    assert cache.fetch("bank", "k0", cachedir) == "x" * 3000
    opts["mmap_cache_max_segment_bytes"] = 1
    cache.store("small", "key", 1, cachedir)
    assert settings_of(cachedir, "small")[0] == 4096


def test_option_mmap_cache_verify_checksums(cachedir, opts):
    opts["mmap_cache_verify_checksums"] = False
    cache.store("bank", "key", "a value that can be found", cachedir)
    damage(cachedir, "bank", b"a value that can be found")
    assert cache.fetch("bank", "key", cachedir) == "` value that can be found"
    cache._caches.clear()
    opts["mmap_cache_verify_checksums"] = True
    with pytest.raises(cache.SaltCacheError):
        cache.fetch("bank", "key", cachedir)


def test_an_option_of_the_wrong_type_is_told_of(cachedir, opts):
    opts["mmap_cache_size"] = "many"
    with pytest.raises(cache.SaltCacheError, match="many"):
        cache.store("bank", "key", 1, cachedir)


# ---- handles -------------------------------------------------------------


def test_a_handle_lives_as_long_as_the_process(cachedir):
    cache.store("bank", "key", 1, cachedir)
    handle = cache._caches[cachedir, "bank"]
    cache.fetch("bank", "key", cachedir)
    cache._caches.clear()  # as when the loader loads the module again
    cache.fetch("bank", "key", cachedir)
    assert cache._caches[cachedir, "bank"] is handle


def test_a_bank_that_another_process_dropped_is_opened_again(cachedir):
    cache.store("bank", "key", 1, cachedir)
    other = kist.open(cachedir)
    other.drop("bank")
    assert cache.fetch("bank", "key", cachedir) == {}
    cache.store("bank", "key", 2, cachedir)
    other.drop("bank")
    cache.store("bank", "key", 3, cachedir)
    assert other.bank("bank")["key"] == msgpack.packb(3)
    other.drop("bank")
    assert cache.updated("bank", "key", cachedir) is None
    assert cache.list_("bank", cachedir) == []
    assert cache.contains("bank", "key", cachedir) is False


def in_child(cachedir, queue):
    try:
        seen = cache.fetch("bank", "key", cachedir)
        cache.store("bank", "child", {"pid": os.getpid()}, cachedir)
        cache.store("new", "key", 1, cachedir)
        queue.put((seen, sorted(cache.list_("bank", cachedir))))
    except Exception as why:  # told to the parent
        queue.put(repr(why))


def test_handles_are_safe_after_fork(cachedir):
    cache.store("bank", "key", {"from": "parent"}, cachedir)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=in_child, args=(cachedir, queue))
    child.start()
    child.join()
    assert queue.get() == ({"from": "parent"}, ["child", "key"])
    assert cache.fetch("bank", "child", cachedir) == {"pid": child.pid}
    assert cache.fetch("new", "key", cachedir) == 1


def quarrel(cachedir, seed, queue):
    """Writes, reads and drops of a few banks, in no sensible order."""
    chance, wrong = random.Random(seed), []
    for i in range(400):
        bank, key = f"a/{chance.randrange(3)}", f"k{chance.randrange(4)}"
        act = chance.randrange(10)
        try:
            if act < 4:
                cache.store(bank, key, [seed, i], cachedir)
            elif act < 6:
                value = cache.fetch(bank, key, cachedir)
                if value != {} and len(value) != 2:
                    wrong.append(value)
            elif act < 8:
                cache.flush_(bank, None, cachedir)
            elif act < 9:
                cache.list_all(bank, cachedir, include_data=True)
            else:
                cache.contains(bank, key, cachedir)
                cache.flush_(bank, key, cachedir)
        except Exception as why:
            wrong.append(repr(why))
    queue.put(wrong)


def test_processes_may_drop_banks_under_each_other(cachedir):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    processes = [context.Process(target=quarrel, args=(cachedir, seed, queue)) for seed in range(4)]
    for process in processes:
        process.start()
    wrong = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    assert wrong == [[], [], [], []]


def test_threads_share_the_driver(cachedir):
    failed = []

    def work(number):
        try:
            for i in range(200):
                bank = f"bank{i % 5}"
                cache.store(bank, f"{number}-{i}", [number, i], cachedir)
                assert cache.fetch(bank, f"{number}-{i}", cachedir) == [number, i]
                if i % 50 == 49:
                    cache.flush_("shared", None, cachedir)
                cache.store("shared", "key", i, cachedir)
        except Exception as why:
            failed.append(why)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sum(len(cache.list_(f"bank{i}", cachedir)) for i in range(5)) == 800


@pytest.fixture
def in_memory():
    """An empty folder in memory, where syncs cost nothing; on the disk if there is none."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="kist-python.", dir=base) as path:
        yield path
        cache._caches.clear()
        handles._banks.clear()


def test_there_may_be_ten_thousand_banks(in_memory):
    for i in range(10_000):
        cache.store(f"minions/m{i}", "data", {"id": i}, in_memory)
    assert len(os.listdir("/proc/self/fd")) < resource.getrlimit(resource.RLIMIT_NOFILE)[0] / 2
    for i in range(0, 10_000, 7):
        assert cache.fetch(f"minions/m{i}", "data", in_memory) == {"id": i}
    assert cache.list_("minions", in_memory) == []
    assert len(kist.open(in_memory).banks("minions")) == 10_000
