"""Values, views, conditions, walks."""
import array
import gc
import threading
import time
import weakref

import kist
import pytest


def test_values_of_many_sizes(bank):
    for size in [0, 1, 100, 4095, 4096, 4097, 65535, 65536, 65537, 1_000_000, 10_000_000]:
        value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        bank["key"] = value
        assert bank["key"] == bank.get("key") == value
        assert bytes(bank.get_view("key")) == value
        assert bank.get_many(["key"]) == [value]
        assert bank.meta("key").size == size
        assert list(bank.items()) == [(b"key", value)]


@pytest.mark.parametrize("value", [
    bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"xabcdx")[1:5],
    array.array("B", b"abcd"), memoryview(bytearray(b"abcd")).toreadonly()])
def test_any_buffer_is_a_value(bank, value):
    bank["key"] = value
    assert bank["key"] == b"abcd"
    assert bank.put("key2", value, if_absent=True) and bank["key2"] == b"abcd"
    assert bank.setdefault("key3", value) == b"abcd"


def test_a_value_with_gaps_is_refused(bank):
    with pytest.raises(BufferError):
        bank["key"] = memoryview(b"abcdef")[::2]


def test_a_buffer_that_changes_while_it_is_stored_is_stored_whole(bank):
    """The checksum must fit what was copied, whenever another thread writes."""
    value = bytearray(b"a" * 200_000)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            value[:] = b"b" * len(value)
            value[:] = b"a" * len(value)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            bank["key"] = value
    finally:
        stop.set()
        thread.join()
    assert set(bank["key"]) <= {ord("a"), ord("b")}
    assert bank.verify().damaged == 0


def test_conditions(bank):
    assert bank.put("key", b"1", if_absent=True) is True
    assert bank.put("key", b"2", if_absent=True) is False
    assert bank["key"] == b"1"
    sequence = bank.meta("key").sequence
    assert bank.put("key", b"3", if_seq=sequence) is True
    assert bank.put("key", b"4", if_seq=sequence) is False
    assert bank.put("none", b"5", if_seq=sequence) is False and "none" not in bank
    assert bank.put("none", b"5", if_seq=0) is True
    assert bank.put("none", b"6", if_seq=0) is False
    assert bank.put("key", b"7", if_absent=False, if_seq=None) is True and bank["key"] == b"7"


def test_meta(bank):
    before = time.time()
    bank["key"] = b"12345"
    meta = bank.meta("key")
    assert meta.size == 5 and meta.sequence > 0 and meta.expiry_ns == 0
    assert before - 0.1 <= meta.mtime <= time.time() + 0.1
    assert meta.mtime == pytest.approx(meta.mtime_ns / 1e9)
    assert bank.meta("none") is None
    bank["key"] = b""
    assert bank.meta("key").sequence > meta.sequence


def test_get_many_keeps_the_order(bank):
    bank.update({f"{i}": b"%d" % i for i in range(1000)})
    keys = [f"{i}" for i in range(-10, 1010)]
    assert bank.get_many(keys) == [b"%d" % i if 0 <= i < 1000 else None for i in range(-10, 1010)]
    assert bank.get_many(iter(keys[:3])) == [None] * 3 and bank.get_many([]) == []
    for wrong in ("key", b"key"):
        with pytest.raises(TypeError, match="not one key"):
            bank.get_many(wrong)
    with pytest.raises(TypeError, match="bytes or str, not int"):
        bank.get_many(["a", 1])
    with pytest.raises(kist.KeyLengthError):
        bank.get_many(["1", "x" * 70_000])


# ---- views ----


def test_a_view_and_its_slices_outlive_everything(path):
    store = kist.open(path)
    bank = store.bank("bank")
    bank["key"] = b"0123456789" * 1000
    view = bank.get_view("key")
    part = view[10:20]
    assert view.readonly and len(view) == 10_000
    bank["key"] = b"other"
    del bank["key"]
    bank.compact()
    del view
    gc.collect()
    assert part == b"0123456789"
    store.drop("bank")
    bank.close()
    store.close()
    assert part == b"0123456789"
    del bank, store
    gc.collect()
    assert bytes(part) == b"0123456789"


def test_a_view_of_nothing(bank):
    bank["key"] = b""
    assert bytes(bank.get_view("key")) == b""
    assert bank.get_view("none") is None and bank.get_view("none", 7) == 7


def test_a_view_cannot_be_written(bank):
    bank["key"] = b"value"
    with pytest.raises(TypeError):
        bank.get_view("key")[0] = 1


def held_files(path):
    """Heap files of the store that are unlinked and still mapped here."""
    with open("/proc/self/maps") as maps:
        return {line.split()[4] for line in maps if path in line and "(deleted)" in line}


def test_views_that_are_released_let_go_of_their_files(bank):
    views = []
    for i in range(10):
        bank["key"] = b"%d" % i * 3_000_000
        views.append(bank.get_view("key"))
        bank["key"] = b""
        bank.compact()
    assert len(held_files(bank.store.path)) == 10
    assert [bytes(view[-1:]) for view in views] == [b"%d" % i for i in range(10)]
    views[0].release()
    del views[1:]
    gc.collect()
    # a file that the bank itself has mapped goes when it maps the next one
    assert len(held_files(bank.store.path)) <= 1


def test_a_view_is_a_value_for_another_bank(store):
    one, two = store.bank("one"), store.bank("two")
    one["key"] = b"x" * 100_000
    two["key"] = one.get_view("key")
    two["part"] = one.get_view("key")[:10]
    assert two["key"] == one["key"] and two["part"] == b"x" * 10


# ---- walks ----


def test_a_walk_goes_on_while_the_bank_changes(bank):
    bank.update({f"{i}": b"" for i in range(5000)})
    seen = []
    for n, key in enumerate(bank):
        seen.append(key)
        bank[f"new{n}"] = b""
        if n % 3 == 0:
            del bank[key]
    assert {b"%d" % i for i in range(5000)} <= set(seen) and len(seen) == len(set(seen))


def test_a_walk_keeps_its_bank(store):
    walk = iter(store.bank("temporary"))
    bank = store.bank("temporary")
    bank["a"] = b""
    gc.collect()
    assert list(walk) == [b"a"]
    walk = iter(bank)
    bank.close()
    assert list(walk) == [b"a"]


def test_a_walk_whose_store_is_closed_says_so(path):
    store = kist.open(path)
    bank = store.bank("bank")
    bank.update({f"{i}": b"" for i in range(1000)})
    walk = iter(bank)
    next(walk)
    store.close()
    with pytest.raises(kist.ClosedError):
        list(walk)
    assert list(walk) == []


def test_a_walk_in_use_by_two_threads_is_refused_or_shared(bank):
    bank.update({f"{i}": b"" for i in range(20_000)})
    walk, seen, refused = iter(bank), [], []

    def run():
        while True:
            try:
                seen.append(next(walk))
            except StopIteration:
                return
            except RuntimeError as why:
                refused.append(why)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 20_000


def test_replace(bank):
    bank["old"] = b"1"
    bank.replace({"a": b"1", "b": b"2"})
    assert bank == {b"a": b"1", b"b": b"2"}
    bank.replace((("c", b"3"), ("c", b"4"), ["d", bytearray(b"5")]))
    assert bank == {b"c": b"4", b"d": b"5"}
    bank.replace({})
    assert len(bank) == 0


def test_a_replacement_that_fails_leaves_the_old_content(bank):
    bank["old"] = b"1"

    def broken():
        yield "a", b"1"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        bank.replace(broken())
    for wrong in ([("a",)], [("a", b"1"), 5], [("a", "str")], [(5, b"")], 5,
                  [("x" * 70_000, b"")]):
        with pytest.raises((TypeError, kist.KeyLengthError)):
            bank.replace(wrong)
    assert bank == {b"old": b"1"}


# ---- life ----


def test_banks_and_stores_can_be_weakly_referenced(store):
    bank = store.bank("bank")
    gone = weakref.ref(bank)
    assert gone() is bank
    del bank
    assert gone() is None and weakref.ref(store)() is store


def test_care(bank):
    for i in range(1000):
        bank["key"] = b"x" * 1000
    assert bank.fragmentation() > 0.9
    seen = []
    bank.compact(progress=lambda done, everything: seen.append((done, everything)))
    assert bank.fragmentation() == 0 and seen and all(d <= e for d, e in seen)
    assert bank.stats().entries == 1 and bank.stats().wasted_bytes == 0
    report = bank.verify()
    assert report.entries == 1 and report.damaged == 0 and report.first_file == ""
    bank.sync()
    assert bank.stats().unsynced_bytes == 0


def test_what_a_progress_function_raises_ends_the_call(bank):
    bank.update({f"{i}": b"x" * 1000 for i in range(100)})
    bank.update({f"{i}": b"y" * 1000 for i in range(50)})

    def stop(done, everything):
        raise RuntimeError("enough")

    for call in (bank.compact, bank.verify):
        with pytest.raises(RuntimeError, match="enough"):
            call(progress=stop)
        with pytest.raises(TypeError):
            call(1, 2)
    assert len(bank) == 100 and bank.verify().damaged == 0


def test_copy_repair_drop_list(store, folder):
    store.bank("a/b")["key"] = b"value"
    store.bank("c")
    assert store.banks() == ["a/b", "c"] and store.banks("a") == ["a/b"]
    copied = store.copy(folder + "/copy")
    assert copied.banks == 2 and copied.entries == 1
    with kist.open(folder + "/copy", create=False) as other:
        assert other.bank("a/b", create=False)["key"] == b"value"
    assert store.repair("a/b").entries == 1
    store.drop("c")
    assert store.banks() == ["a/b"]
    with pytest.raises(FileExistsError):
        store.copy(folder + "/copy")
