"""MmapCache, row by row as users of the class beneath Salt's mmap_cache know it."""
import inspect
import logging
import multiprocessing
import os
import threading
import time

import kist
import pytest

pytest.importorskip("msgpack")

from kist.salt import MmapCache  # noqa: E402


@pytest.fixture
def path(folder):
    return os.path.join(folder, "dir", "cache.idx")


@pytest.fixture
def cache(path):
    made = MmapCache(path, size=100, slot_size=64, key_size=32, durability="none")
    yield made
    made.close()


def damage(path, needle):
    found = 0
    for name in os.listdir(path):
        if name.startswith("kist.heap."):
            with open(os.path.join(path, name), "r+b") as heap:
                at = heap.read().find(needle)
                if at >= 0:
                    heap.seek(at)
                    heap.write(bytes([needle[0] ^ 1]))
                    found += 1
    assert found


# ---- the constructor -----------------------------------------------------


def test_constructor_has_the_parameters_and_defaults_of_salts():
    parameters = inspect.signature(MmapCache).parameters
    assert {name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD
            and p.default is not p.empty} == {
        "size": 1_000_000, "slot_size": 96, "key_size": 64, "heap_path": None,
        "staleness_check_interval": 0.25, "verify_checksums": True, "max_segment_bytes": 1 << 30,
    }
    assert list(parameters)[0] == "path"


def test_a_slot_size_too_small_for_the_key_size_is_a_value_error(path):
    with pytest.raises(ValueError, match="slot_size 84.*85"):
        MmapCache(path, slot_size=84, key_size=64)
    MmapCache(path, slot_size=85, key_size=64)
    with pytest.raises(ValueError, match="slot_size"):
        MmapCache(path, size=10, slot_size=24, key_size=1)
    assert not os.path.exists(os.path.dirname(path))


# ---- open, close ---------------------------------------------------------


def test_open_for_reading_is_false_when_nothing_exists_yet(cache, path):
    assert cache.open() is False and cache.open(write=False) is False
    assert not os.path.exists(os.path.dirname(path))
    assert cache.open(write=True) is True
    assert cache.open() is True and os.path.isdir(path)


def test_close_may_be_followed_by_anything(cache, path):
    cache.close()
    assert cache.put("key", "value") is True
    cache.close()
    cache.close()
    assert cache.get("key") == "value"
    other = MmapCache(path)
    assert other.open() is True and other.get("key") == "value"
    other.close()


def test_open_that_fails_is_false_and_logged(folder, caplog):
    file = os.path.join(folder, "file")
    with open(file, "w"):
        pass
    cache = MmapCache(os.path.join(folder, "kist.heap.1"))
    with caplog.at_level(logging.ERROR):
        assert cache.open(write=True) is False
        assert MmapCache(file).open(write=True) is False
        assert MmapCache(os.path.join(file, "x")).open(write=True) is False
    assert len(caplog.records) == 3 and "kist.heap.1" in caplog.text


def test_two_caches_in_one_directory_are_two_banks_of_one_store(folder):
    one, two = (MmapCache(os.path.join(folder, name), durability="none") for name in ("a", "b"))
    one.put("key", "1")
    two.put("key", "2")
    assert one.get("key") == "1" and two.get("key") == "2"
    assert kist.open(folder).banks() == ["a", "b"]
    one.close()
    two.close()


# ---- put, get ------------------------------------------------------------


def test_put_of_no_value_and_of_an_empty_one_is_a_presence_mark(cache):
    assert cache.put("none") is True
    assert cache.put("empty", "") is True
    assert cache.put("empty bytes", b"") is True
    assert cache.get("none") is True and cache.get("empty") is True
    assert cache.get("empty bytes") is True and cache.contains("none") is True


def test_put_stores_str_and_bytes_as_bytes(cache, path):
    assert cache.put("text", "ü") is True
    assert cache.put(b"bytes", b"\xff") is True
    bank = kist.open(os.path.dirname(path)).bank("cache.idx")
    assert dict(bank.items()) == {b"text": "ü".encode(), b"bytes": b"\xff"}


def test_put_of_other_types_raises(cache):
    for key, value in (("key", 5), (5, "value"), ("key", {}), (None, "value")):
        with pytest.raises(TypeError, match="str or bytes"):
            cache.put(key, value)


def test_put_that_fails_is_false_and_logged(cache, caplog):
    with caplog.at_level(logging.ERROR):
        assert cache.put("k" * 70_000, "value") is False
    assert "65,535" in caplog.text


def test_get_gives_str_if_the_bytes_are_utf8_else_bytes(cache):
    for value, shown in (("text", "text"), (b"text", "text"), ("ü", "ü"), (b"\xff\x00", b"\xff\x00"),
                         (b"\x00\x01binary\xfe", b"\x00\x01binary\xfe"), ("a\x00b", "a\x00b")):
        cache.put("key", value)
        assert cache.get("key") == shown and type(cache.get("key")) is type(shown)


def test_get_gives_the_default_if_missing(cache):
    assert cache.get("key") is None and cache.get("key", default=7) == 7
    cache.put("other", "1")
    assert cache.get("key") is None and cache.get("key", 7) == 7


def test_get_gives_the_default_if_the_checksum_fails_which_is_logged(cache, path, caplog):
    cache.put("key", "a value to be found")
    damage(path, b"a value to be found")
    with caplog.at_level(logging.ERROR):
        assert cache.get("key", "default") == "default"
    assert path in caplog.text
    assert cache.put("key", "another") is True
    assert cache.get("key") == "another"


def test_verify_checksums_false_tests_none(cache, path):
    cache.put("key", "a value to be found")
    damage(path, b"a value to be found")
    assert MmapCache(path, verify_checksums=False).get("key") == "` value to be found"


@pytest.mark.parametrize("tail", [bytes([b]) for b in (0, 1, 10, 32, 127, 128, 255)])
def test_trailing_nul_bytes_are_data(cache, tail):
    for value in (b"\xff" + b"data" + tail, b"\xff" + tail * 9):
        cache.put("key", value)
        assert cache.get("key") == value
    cache.put("key", "text" + "\0" * 3)
    assert cache.get("key") == "text\0\0\0"


def test_put_of_a_long_key_is_not_cut(cache):
    one, two = "k" * 64 + "1", "k" * 64 + "2"
    cache.put(one, "1")
    cache.put(two, "2")
    assert cache.get(one) == "1" and cache.get(two) == "2" and cache.get("k" * 64) is None


def test_there_is_no_fixed_number_of_slots(path):
    cache = MmapCache(path, size=2, durability="none")
    for i in range(1000):
        assert cache.put(f"k{i}", str(i)) is True
    assert len(cache.list_keys()) == 1000
    cache.close()


def test_put_is_durable_by_default(path):
    cache = MmapCache(path, size=10)
    cache.put("key", "value")
    assert kist.open(os.path.dirname(path)).bank("cache.idx").stats().unsynced_bytes == 0
    cache.close()


def put_many(path, number):
    cache = MmapCache(path, durability="none")
    for i in range(300):
        if not cache.put(f"{number}-{i}", f"value {number} {i}"):
            raise SystemExit(1)
    cache.close()


@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_put_is_process_safe(cache, path, way):
    cache.put("first", "1")
    context = multiprocessing.get_context(way)
    writers = [context.Process(target=put_many, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(cache.list_keys()) == 901
    assert cache.get("2-299") == "value 2 299"


def test_put_is_thread_safe(cache):
    lost = []

    def work(number):
        for i in range(300):
            if not cache.put(f"{number}-{i}", f"{number} {i}") or not cache.get(f"{number}-{i}"):
                lost.append(i)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost and len(cache.list_keys()) == 1200


# ---- get_mtime, contains, delete -----------------------------------------


def test_get_mtime_is_float_seconds_or_none(cache):
    assert cache.get_mtime("key") is None
    before = time.time() - 1
    cache.put("key", "value")
    found = cache.get_mtime("key")
    assert type(found) is float and before < found < time.time() + 1
    assert cache.get_mtime("other") is None
    cache.close()
    assert cache.get_mtime("key") == found


def test_contains_is_a_bool(cache):
    assert cache.contains("key") is False
    cache.put("key")
    assert cache.contains("key") is True and cache.contains("other") is False


def test_delete_is_true_if_it_was_there(cache):
    assert cache.delete("key") is False
    cache.put("key", "value")
    assert cache.delete("key") is True and cache.delete("key") is False
    assert cache.get("key") is None and cache.contains("key") is False


# ---- lists ---------------------------------------------------------------


def test_list_keys_gives_str(cache):
    assert cache.list_keys() == []
    for key in ("a", b"b", "ü"):
        cache.put(key, "1")
    assert sorted(cache.list_keys()) == ["a", "b", "ü"]


def test_list_items_gives_pairs_as_get_shows_them(cache):
    assert cache.list_items() == []
    cache.put("text", "1")
    cache.put("bytes", b"\xff")
    cache.put("mark")
    assert sorted(cache.list_items()) == [("bytes", b"\xff"), ("mark", True), ("text", "1")]


def test_listing_costs_by_entries_and_not_by_the_table(path):
    """Counted in pages of the index: one made for a million is not walked."""
    large = MmapCache(path, size=1_000_000, durability="none")
    small = MmapCache(path + "2", size=10, durability="none")
    for cache in (large, small):
        for i in range(10):
            cache.put(f"k{i}", "value")
        cache.close()
    pages = [mapped_pages(cache) for cache in (small, large)]
    assert pages[1] <= pages[0] + 16


def mapped_pages(cache):
    """Pages of the bank's index that a process touched to list it."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=list_and_count, args=(cache.path, queue))
    child.start()
    child.join()
    return queue.get()


def list_and_count(path, queue):
    cache = MmapCache(path, durability="none")
    assert len(cache.list_keys()) == 10 and len(cache.list_items()) == 10
    touched, ours = 0, False
    with open("/proc/self/smaps") as maps:
        for line in maps:
            if "-" in line.split()[0]:
                ours = "kist.index." in line
            elif ours and line.startswith("Referenced:"):
                touched += int(line.split()[1]) // 4
    queue.put(touched)


# ---- get_stats -----------------------------------------------------------


def test_get_stats_has_salts_keys(cache):
    nothing = {"occupied": 0, "deleted": 0, "empty": 99, "total": 99, "load_factor": 0.0,
               "heap_size_bytes": 0, "heap_live_bytes": 0}
    assert cache.get_stats() == nothing
    for key in "abc":
        cache.put(key, "value")
    cache.delete("a")
    stats = cache.get_stats()
    assert list(stats) == list(nothing)
    assert (stats["occupied"], stats["deleted"], stats["empty"], stats["total"]) == (2, 1, 96, 99)
    assert stats["load_factor"] == 3 / 99
    assert 0 < stats["heap_live_bytes"] <= stats["heap_size_bytes"]


def test_get_stats_occupied_and_deleted_survive_reopening(cache, path):
    for i in range(10):
        cache.put(f"k{i}", "value")
    for i in range(3):
        cache.delete(f"k{i}")
    cache.close()
    again = MmapCache(path, size=100)
    assert (again.get_stats()["occupied"], again.get_stats()["deleted"]) == (7, 3)
    again.put("k0", "value")
    assert (again.get_stats()["occupied"], again.get_stats()["deleted"]) == (8, 2)
    again.close()


def test_get_stats_total_is_the_hint_or_more_once_there_are_more_entries(path):
    cache = MmapCache(path, size=10, durability="none")
    cache.put("key")
    assert cache.get_stats()["total"] == 9  # less the slot of Salt's header
    for i in range(50):
        cache.put(f"k{i}")
    stats = cache.get_stats()
    assert stats["total"] == stats["occupied"] == 51 and stats["empty"] == 0
    assert stats["load_factor"] == 1.0
    cache.close()


# ---- atomic_rebuild ------------------------------------------------------


def test_atomic_rebuild_takes_pairs_singles_and_keys(cache):
    cache.put("old", "value")
    assert cache.atomic_rebuild(iter([("a", "1"), ["b", b"\xff"], ("c",), "d", b"e", ("f", None)]))
    assert sorted(cache.list_items()) == [("a", "1"), ("b", b"\xff"), ("c", True), ("d", True),
                                          ("e", True), ("f", True)]
    assert cache.get_stats()["deleted"] == 0


def test_atomic_rebuild_of_what_list_items_gave(cache):
    for i in range(20):
        cache.put(f"k{i}", f"v{i}" if i % 2 else None)
    before = sorted(cache.list_items())
    assert cache.atomic_rebuild(cache.list_items()) is True
    assert sorted(cache.list_items()) == before
    assert cache.atomic_rebuild([]) is True and cache.list_items() == []


def test_atomic_rebuild_makes_the_bank_if_there_is_none(cache):
    assert cache.atomic_rebuild([("a", "1")]) is True and cache.get("a") == "1"


class Oops(Exception):
    pass


@pytest.mark.parametrize("kind", [Oops, OSError, kist.Error])
def test_atomic_rebuild_that_fails_leaves_the_old_content(cache, kind):
    cache.put("old", "value")

    def items():
        yield "new", "value"
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        cache.atomic_rebuild(items())
    assert cache.list_items() == [("old", "value")]
    with pytest.raises(TypeError):
        cache.atomic_rebuild([("new", 5)])
    assert cache.list_items() == [("old", "value")]


def test_atomic_rebuild_that_cannot_be_written_is_false_and_logged(cache, caplog):
    cache.put("old", "value")
    with caplog.at_level(logging.ERROR):
        assert cache.atomic_rebuild([("k" * 70_000, "1")]) is False
    assert "65,535" in caplog.text
    assert cache.list_items() == [("old", "value")]


def test_atomic_rebuild_of_a_bank_that_was_dropped_meanwhile_takes_every_item(cache, path):
    cache.put("old", "value")
    kist.open(os.path.dirname(path)).drop("cache.idx")
    assert cache.atomic_rebuild(iter([("a", "1"), ("b", "2")])) is True
    assert sorted(cache.list_keys()) == ["a", "b"]


def test_atomic_rebuild_shows_no_reader_a_mixture(cache, path):
    """A walk that was under way goes on in the new content, so each reader's single
    gets are looked at: once one key is of the new content, all are."""
    keys = [f"k{i}" for i in range(200)]
    cache.atomic_rebuild((key, "0") for key in keys)
    stop, wrong = threading.Event(), []

    def read():
        reader = MmapCache(path, durability="none")
        while not stop.is_set():
            least = 0
            for key in keys:
                value = reader.get(key)
                if value is None or int(value) < least:
                    wrong.append((key, value, least))
                least = int(value or 0)
        reader.close()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(1, 40):
        assert cache.atomic_rebuild((key, str(version)) for key in keys) is True
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- better than the original --------------------------------------------


def test_readers_in_other_processes_see_a_change_at_once(cache, path):
    cache.put("key", "0")
    context = multiprocessing.get_context("spawn")
    ask, answer = context.SimpleQueue(), context.SimpleQueue()
    child = context.Process(target=answer_gets, args=(path, ask, answer))
    child.start()
    for i in range(200):
        cache.put("key", str(i))
        ask.put("key")
        assert answer.get() == str(i)
    ask.put(None)
    child.join()
    assert child.exitcode == 0


def answer_gets(path, ask, answer):
    cache = MmapCache(path, durability="none")
    while (key := ask.get()) is not None:
        answer.put(cache.get(key))
    cache.close()


def overwrite(path, stop):
    cache = MmapCache(path, durability="none")
    sizes = (1, 10, 5_000, 70_000, 300)
    n = 0
    while not stop.is_set():
        n += 1
        letter = "abcdefgh"[n % 8]
        if not cache.put("key", letter * sizes[n % len(sizes)]):
            raise SystemExit(1)
    cache.close()


def test_no_read_is_torn_while_a_value_is_overwritten(cache, path):
    cache.put("key", "a")
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writer = context.Process(target=overwrite, args=(path, stop))
    writer.start()
    seen = set()
    reads = 0
    while reads < 20_000 or len(seen) < 8:
        value = cache.get("key")
        assert value and value == value[0] * len(value)
        seen.add(value[0])
        reads += 1
    stop.set()
    writer.join()
    assert writer.exitcode == 0


def test_space_comes_back_while_readers_go_on(path):
    cache = MmapCache(path, max_segment_bytes=65_536, durability="none")
    for i in range(2000):
        cache.put(f"k{i % 20}", f"{i:04}" * 100)
    before = cache.get_stats()["heap_size_bytes"]
    bank = kist.open(os.path.dirname(path)).bank("cache.idx")
    bank.compact(progress=lambda done, every: cache.get("k7") == "1987" * 100 or 1 / 0)
    assert cache.get_stats()["heap_size_bytes"] < before / 4
    assert {key: cache.get(key) for key in cache.list_keys()} == {
        f"k{i % 20}": f"{i:04}" * 100 for i in range(1980, 2000)}
    cache.close()


def test_a_cache_that_another_dropped_is_made_again(cache, path):
    cache.put("key", "1")
    kist.open(os.path.dirname(path)).drop("cache.idx")
    assert cache.get("key") is None and cache.list_keys() == [] and cache.delete("key") is False
    assert cache.put("key", "2") is True and cache.get("key") == "2"


def test_no_descriptor_is_left_when_caches_are_closed(folder):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for i in range(20):
        cache = MmapCache(os.path.join(folder, f"d{i}", "idx"), durability="none")
        cache.put("key", "value")
        cache.close()
    assert descriptors() <= before + 2
