"""Ordered banks: scans, batches, snapshots."""
import gc
import os
import pickle
import threading

import kist
import pytest
from test_processes import in_a_child


@pytest.fixture
def ordered(store):
    return store.bank("ordered", index="ordered")


# ---- scans ----


def test_scans(ordered):
    for key in ("b", "a/2", "a", "a/1", "c", "a/3", ""):
        ordered[key] = key.upper().encode()
    assert [key for key, _ in ordered.scan()] == [b"", b"a", b"a/1", b"a/2", b"a/3", b"b", b"c"]
    assert list(ordered.scan(prefix="a/")) == [(b"a/1", b"A/1"), (b"a/2", b"A/2"), (b"a/3", b"A/3")]
    assert [k for k, _ in ordered.scan(start="a/2", end="c")] == [b"a/2", b"a/3", b"b"]
    assert [k for k, _ in ordered.scan(reverse=True, limit=2)] == [b"c", b"b"]
    assert [k for k, _ in ordered.scan(prefix=b"a/", start=b"a/2", reverse=True)] == [b"a/3", b"a/2"]
    assert list(ordered.scan(start="b", end="b")) == [] == list(ordered.scan(end=""))
    assert list(ordered) == [key for key, _ in ordered.scan()]
    assert list(ordered.keys()) == list(ordered) and list(ordered.items()) == list(ordered.scan())


def test_a_scan_sees_the_bank_as_it_was_when_it_began(ordered):
    content = {b"%06d" % i: b"v%d" % i for i in range(5000)}
    ordered.update(content)
    scan = ordered.scan()
    first = next(scan)
    ordered.clear()
    ordered["new"] = b""
    ordered.compact()
    assert dict([first, *scan]) == content
    assert dict(ordered) == {b"new": b""}


def test_a_scan_that_is_thrown_away_pins_nothing(ordered):
    ordered.update({f"{i}": b"" for i in range(5000)})
    scan = ordered.scan()
    next(scan)
    assert ordered.stats().snapshots == 1
    del scan
    gc.collect()
    assert ordered.stats().snapshots == 0


def test_bad_ranges(ordered, bank):
    with pytest.raises(kist.InvalidArgumentError):
        ordered.scan(start="b", end="a")
    with pytest.raises(TypeError, match="a key is bytes or str, not int"):
        ordered.scan(prefix=1)
    with pytest.raises(TypeError):
        ordered.scan("a")
    bank["key"] = b"value"
    assert list(bank.scan()) == [(b"key", b"value")]
    with pytest.raises(kist.InvalidArgumentError):
        bank.scan(prefix="a")


# ---- batches ----


@pytest.mark.parametrize("index", ["hash", "ordered"])
def test_a_batch_comes_all_at_once(store, index):
    bank = store.bank(index, index=index)
    bank["old"] = b"1"
    with bank.batch() as batch:
        batch["a"] = b"1"
        batch.put("b", bytearray(b"2"))
        del batch["old"]
        batch.delete("none")
        assert batch["a"] == b"1" and batch.get("old") is None and batch.get("old", 5) == 5
        assert len(batch) == 4 and dict(bank) == {b"old": b"1"}
        with pytest.raises(KeyError):
            batch["old"]
    assert dict(bank) == {b"a": b"1", b"b": b"2"} and len(batch) == 0


def test_a_batch_whose_block_raises_is_forgotten(bank):
    with pytest.raises(RuntimeError, match="no"), bank.batch() as batch:
        batch["a"] = b"1"
        raise RuntimeError("no")
    assert len(bank) == 0 and len(batch) == 0


def test_expectations(bank):
    bank["count"] = b"1"
    sequence = bank.meta("count").sequence
    with bank.batch() as batch:
        batch.expect("count", sequence)
        batch.expect("log/1", 0)
        batch["count"], batch["log/1"] = b"2", b"first"
    for key, expected, why in (("count", sequence, "was written meanwhile"),
                               ("log/1", 0, "was to have none"), ("none", 7, "no value any more")):
        batch = bank.batch()
        batch.expect(key, expected)
        batch["x"] = b""
        with pytest.raises(kist.ConflictError, match=why):
            batch.commit()
        assert len(batch) == 1
        batch.reset()
        assert len(batch) == 0
    assert dict(bank) == {b"count": b"2", b"log/1": b"first"}


def test_a_large_batch(bank):
    with bank.batch() as batch:
        for i in range(100_000):
            batch[f"{i}"] = b"x" * 50
        assert len(bank) == 0
    assert len(bank) == 100_000 and bank["99999"] == b"x" * 50


def test_bad_batches(path):
    store = kist.open(path)
    bank = store.bank("bank")
    batch = bank.batch()
    for act in (lambda: batch.put(1, b""), lambda: batch.put("a", "text"), lambda: batch.get(),
                lambda: batch.expect("a"), lambda: batch.expect("a", "b"), lambda: kist.Batch(5),
                lambda: pickle.dumps(batch)):
        with pytest.raises(TypeError):
            act()
    with pytest.raises(kist.KeyLengthError):
        batch["x" * 70_000] = b""
    batch["a"] = b"1"
    bank.close()
    store.close()
    with pytest.raises(kist.ClosedError):
        batch.commit()
    with pytest.raises(kist.ClosedError):
        bank.batch()


def test_of_two_threads_in_a_batch_the_second_is_told(bank):
    batch, refused, faults = bank.batch(), [], []

    def run(n):
        for i in range(3000):
            try:
                batch[f"{n}/{i}"] = b"x" * 2000
            except kist.InUseError as why:
                refused.append(why)
            except BaseException as why:
                faults.append(why)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    batch.commit()
    assert len(bank) == 9000 - len(refused)


def test_a_batch_from_before_a_fork_says_so(bank):
    batch = bank.batch()
    batch["a"] = b"1"

    def child():
        with pytest.raises(kist.ForkError):
            batch.commit()
        with bank.batch() as other:
            other["child"] = b"1"

    in_a_child(child)
    batch.commit()
    assert sorted(bank) == [b"a", b"child"]


# ---- snapshots ----


@pytest.mark.parametrize("index", ["hash", "ordered"])
def test_a_snapshot_stays_what_it_was(store, index):
    bank = store.bank(index, index=index)
    content = {b"%d" % i: b"v%d" % i for i in range(1000)}
    bank.update(content)
    with bank.snapshot() as snapshot:
        bank.update({key: b"new" for key in list(content)[:500]})
        bank["more"] = b""
        del bank["7"]
        bank.compact()
        assert snapshot == content and len(snapshot) == 1000 and snapshot["7"] == b"v7"
        assert bytes(snapshot.get_view("8")) == b"v8" and "more" not in snapshot
        assert snapshot.get_many(["7", "more"]) == [b"v7", None]
        assert dict(snapshot.scan()) == content and snapshot.meta("7").size == 2
        moment = snapshot.moment()
        assert moment.entries == 1000 and moment.sequence > 0 and bank.stats().snapshots == 1
        for write in (lambda: snapshot.put("a", b""), lambda: snapshot.discard("7"),
                      lambda: snapshot.clear()):
            with pytest.raises(kist.ReadOnlyError):
                write()
        assert not hasattr(snapshot, "pop") and isinstance(snapshot, kist.Snapshot)
        bank.revert(snapshot)
        assert bank == content
    assert snapshot.closed and bank.stats().snapshots == 0
    with pytest.raises(kist.ClosedError):
        snapshot["7"]
    with pytest.raises(kist.ClosedError):
        bank.revert(snapshot)


def test_a_snapshot_that_is_thrown_away_pins_nothing(bank):
    bank["a"] = b""
    snapshot = bank.snapshot()
    assert bank.stats().snapshots == 1
    del snapshot
    gc.collect()
    assert bank.stats().snapshots == 0


def test_a_snapshot_has_no_part_in_a_child(bank):
    bank["a"] = b"1"
    snapshot = bank.snapshot()

    def child():
        for act in (lambda: snapshot["a"], lambda: len(snapshot), lambda: list(snapshot)):
            with pytest.raises(kist.ForkError):
                act()
        assert bank["a"] == b"1"
        snapshot.close()

    in_a_child(child)
    bank["a"] = b"2"
    assert snapshot["a"] == b"1"


def test_save_and_restore(store, ordered, folder):
    ordered.update({f"{i}": b"v%d" % i for i in range(1000)})
    times = {key: meta.mtime_ns for key, _, meta in ordered.entries()}
    with ordered.snapshot() as snapshot, open(f"{folder}/saved", "wb") as file:
        ordered["later"] = b""
        snapshot.save(file)
    other = store.bank("other")
    other["gone"] = b""
    with open(f"{folder}/saved", "rb") as file:
        other.restore(file)
    assert {key: meta.mtime_ns for key, _, meta in other.entries()} == times
    assert other["7"] == b"v7" and len(other) == 1000

    read, write = os.pipe()
    saving = threading.Thread(target=lambda: (ordered.save(write), os.close(write)))
    saving.start()
    other.restore(read)
    saving.join()
    os.close(read)
    assert other == ordered


def test_what_is_no_saved_snapshot_changes_nothing(bank, folder):
    bank["a"] = b"1"
    with open(f"{folder}/saved", "w+b") as file:
        bank.save(file)
        size = file.seek(0, os.SEEK_END)
        file.truncate(size - 10)
        file.seek(0)
        with pytest.raises((kist.CorruptError, kist.FormatError)):
            bank.restore(file)
    with open(__file__, "rb") as file, pytest.raises(kist.FormatError):
        bank.restore(file)
    with pytest.raises(TypeError):
        bank.restore("path")
    with pytest.raises(kist.InvalidArgumentError):
        bank.revert(bank)
    with pytest.raises(TypeError, match="takes a kist.Snapshot"):
        bank.revert({})
    assert dict(bank) == {b"a": b"1"}
