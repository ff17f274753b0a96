"""Copying Salt's caches into kist."""
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import kist
import pytest

msgpack = pytest.importorskip("msgpack")

from kist.salt import (  # noqa: E402
    MmapCache,
    Unreadable,
    cache,
    command,
    install_driver,
    migrate,
    mmap_files,
)
from kist.salt.progress import Bar  # noqa: E402
from salt_files import MmapBank, localfs  # noqa: E402

needs_xxhash = pytest.mark.skipif(not find_spec("xxhash"), reason="xxhash is not installed")


@pytest.fixture
def source(folder):
    path = os.path.join(folder, "salt")
    os.mkdir(path)
    return path


@pytest.fixture
def target(folder):
    return os.path.join(folder, "store")


def packed(value):
    return msgpack.packb(value, use_bin_type=True)


def content(path):
    """{bank: {key: bytes}} of a store."""
    with kist.open(path, create=False) as store:
        return {name: {os.fsdecode(k): v for k, v in store.bank(name, create=False).items()}
                for name in store.banks()}


def tree(path):
    """Names and bytes of every file below a directory."""
    found = {}
    for at, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(at, name), "rb") as file:
                found[os.path.relpath(os.path.join(at, name), path)] = file.read()
    return found


# ---- localfs -------------------------------------------------------------


def test_migrate_copies_a_localfs_tree(source, target):
    localfs(source, "minions/web01", "data", {"grains": {"os": "Debian"}, "b": b"\xff", 1: None})
    localfs(source, "minions/web01", "mine", [1, 2])
    localfs(source, "tokens", "abc", "text")
    localfs(source, "deep/er/and/deeper", "key", 0)
    before = tree(source)
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.there, outcome.damaged, outcome.banks) == (4, 0, 0, 3)
    assert content(target) == {
        "minions/web01": {"data": packed({"grains": {"os": "Debian"}, "b": b"\xff", 1: None}),
                          "mine": packed([1, 2])},
        "tokens": {"abc": packed("text")},
        "deep/er/and/deeper": {"key": packed(0)},
    }
    assert outcome.bytes == sum(len(v) for b in content(target).values() for v in b.values())
    assert tree(source) == before, "nothing of Salt's is changed"


def test_migrate_in_place_is_what_the_driver_reads(source):
    localfs(source, "minions/web01", "data", {"id": "web01"})
    migrate(source, source)
    cache._caches.clear()
    assert cache.fetch("minions/web01", "data", source) == {"id": "web01"}
    assert cache.list_("minions/web01", source) == ["data"]
    assert os.path.exists(os.path.join(source, "minions/web01/data.p"))


def test_migrate_keeps_names_as_they_are(source, target):
    keys = ["with space", "ü:x", "a.p", ".hidden", "kist", os.fsdecode(b"\xff")]
    for key in keys:
        localfs(source, "bank", key, key.encode("utf-8", "surrogateescape"))
        localfs(source, "bank", key, packed(1))
    migrate(source, target)
    assert sorted(content(target)["bank"]) == sorted(keys)


def test_migrate_leaves_out_what_is_no_entry_and_says_so(source, target, folder):
    localfs(source, "bank", "key", 1)
    for name in ("readme.txt", "tmpabc", "key.p.bak"):
        with open(os.path.join(source, "bank", name), "w"):
            pass
    localfs(source, "jobs/ab/cdef0123", "return", 1)
    localfs(source, "file_lists/roots", "base", 1)
    localfs(source, "", "at_top", 1)
    outside = localfs(folder, "outside", "secret", 1)
    os.symlink(outside, os.path.join(source, "bank", "link.p"))
    os.symlink(os.path.dirname(outside), os.path.join(source, "linked"))
    os.mkfifo(os.path.join(source, "bank", "pipe.p"))
    outcome = migrate(source, target)
    assert content(target) == {"bank": {"key": packed(1)}}
    left = dict(outcome.left)
    assert set(left) == {"jobs/ab", "file_lists", "at_top.p", "bank/link.p", "linked"}
    assert "symlink" in left["linked"] and outcome.damaged == 0


def test_migrate_of_named_banks_takes_these_and_those_below(source, target):
    for bank in ("minions/a", "minions/b", "minionsx", "tokens", "jobs/ab/cd"):
        localfs(source, bank, "key", 1)
    migrate(source, target, names=["minions", "jobs/ab/cd"])
    assert sorted(content(target)) == ["jobs/ab/cd", "minions/a", "minions/b"]
    with pytest.raises(Unreadable, match="no bank 'ghost'"):
        migrate(source, target, names=["ghost"])
    with pytest.raises(ValueError, match="leads out"):
        migrate(source, target, names=["../salt"])


def test_migrate_names_and_counts_damaged_entries(source, target):
    localfs(source, "bank", "good", 1)
    localfs(source, "bank", "empty", b"")
    localfs(source, "bank", "cut", packed({"a": "long enough"})[:-3])
    localfs(source, "bank", "junk", b"\xc1")
    localfs(source, "bank", "more", packed(1) + b"x")
    localfs(source, "bank", "extension", msgpack.packb(msgpack.ExtType(78, b"20260101T00:00:00.0")))
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.damaged) == (1, 5)
    why = dict(outcome.troubles)
    assert set(why) == {f"bank: {key}" for key in ("empty", "cut", "junk", "more", "extension")}
    assert "empty" in why["bank: empty"] and "78" in why["bank: extension"]
    assert content(target) == {"bank": {"good": packed(1)}}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_migrate_names_what_it_may_not_read(source, target):
    os.chmod(localfs(source, "bank", "key", 1), 0)
    assert migrate(source, target).troubles == [("bank: key", "Permission denied")]


def test_migrate_names_a_directory_that_it_cannot_read(source, target, monkeypatch):
    localfs(source, "closed", "key", 1)
    localfs(source, "open", "key", 1)
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.damaged) == (1, 1)
    assert outcome.troubles == [("closed", "Permission denied")]


def test_migrate_of_what_is_not_there_is_told_of(source, target):
    with pytest.raises(Unreadable, match="no such file or directory"):
        migrate(source + "x", target)
    assert not os.path.exists(target)


def test_migrate_of_a_bank_that_kist_cannot_have_goes_on_with_others(source, target):
    for key in ("a", "b"):
        localfs(source, "kist.own", key, 1)
    localfs(source, "before", "key", 1)
    localfs(source, "z/after", "key", 1)
    os.makedirs(os.path.join(target, "linked"))
    kist.open(target).close()
    os.symlink("linked", os.path.join(target, "z"))
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.damaged) == (1, 3)
    why = dict(outcome.troubles)
    assert "2 entries" in why["kist.own"] and "symlink" in why["z/after"]
    assert content(target) == {"before": {"key": packed(1)}}


@needs_xxhash
def test_migrate_of_a_bank_that_vanishes_meanwhile_goes_on_with_others(source, target):
    localfs(source, "a", "key", 1)
    for name in ("b", "c"):
        bank = MmapBank(source, name)
        bank.add("key", packed(1))
        bank.write()

    def progress(done, every, bank):
        if bank == "a":
            os.unlink(os.path.join(source, "b", ".mmap_cache.idx"))

    outcome = migrate(source, target, progress=progress)
    assert (outcome.copied, outcome.damaged) == (2, 1)
    assert "No such file" in dict(outcome.troubles)["b"]


# ---- again, and again ----------------------------------------------------


def test_migrate_twice_does_nothing_the_second_time(source, target):
    for i in range(20):
        localfs(source, f"bank{i % 3}", f"k{i}", i)
    assert migrate(source, target).copied == 20
    with kist.open(target) as store:
        before = {name: store.bank(name).stats().sequence for name in store.banks()}
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.there) == (0, 20)
    with kist.open(target) as store:
        assert before == {name: store.bank(name).stats().sequence for name in store.banks()}


def test_migrate_again_takes_nothing_back_that_kist_has_newer(source, target):
    path = localfs(source, "bank", "key", "old")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    migrate(source, target)
    cache.store("bank", "key", "new", target)
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.there) == (0, 1)
    assert cache.fetch("bank", "key", target) == "new"


def test_migrate_again_copies_what_salt_wrote_later(source, target):
    localfs(source, "bank", "key", "first")
    localfs(source, "bank", "same", "same")
    migrate(source, target)
    later = time.time() + 10
    os.utime(localfs(source, "bank", "key", "second"), (later, later))
    os.utime(localfs(source, "bank", "same", "same"), (later, later))
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.there) == (1, 1)
    assert content(target)["bank"]["key"] == packed("second")


def test_migrate_copies_an_entry_that_is_written_meanwhile(source, target):
    """Salt writes between the reading of an entry and its storing: the last value counts."""
    for i in range(3):
        localfs(source, "bank", f"k{i}", "old")

    def progress(done, every, bank):
        if done == 1:
            localfs(source, "bank", "k1", "new and longer")

    migrate(source, target, progress=progress)
    assert content(target)["bank"]["k1"] == packed("new and longer")

    # And within one entry: by a reader that is overtaken.
    from kist.salt import localfs as reader

    real, calls = reader.read, []

    def overtaken(root, bank, key):
        entry = real(root, bank, key)
        if key == "k2" and not calls:
            calls.append(key)
            localfs(source, "bank", "k2", "written after it was read")
        return entry

    reader.read = overtaken
    try:
        migrate(source, target + "2")
    finally:
        reader.read = real
    assert calls and content(target + "2")["bank"]["k2"] == packed("written after it was read")


def test_migrate_repairs_an_entry_that_is_damaged_in_kist(source, target):
    localfs(source, "bank", "key", "a value that can be found")
    migrate(source, target)
    for name in os.listdir(os.path.join(target, "bank")):
        if name.startswith("kist.heap."):
            with open(os.path.join(target, "bank", name), "r+b") as heap:
                at = heap.read().find(b"can be found")
                if at >= 0:
                    heap.seek(at)
                    heap.write(b"C")
    assert migrate(source, target).copied == 1
    assert content(target)["bank"]["key"] == packed("a value that can be found")


def test_migrate_that_was_killed_goes_on(source, target):
    for i in range(2000):
        localfs(source, f"bank{i % 4}", f"k{i}", {"i": i})
    code = ("import os, signal, sys; from kist.salt import migrate\n"
            "def progress(done, every, bank):\n"
            "    if done == 900: os.kill(os.getpid(), signal.SIGKILL)\n"
            "migrate(sys.argv[1], sys.argv[2], progress=progress)")
    killed = subprocess.run([sys.executable, "-c", code, source, target])
    assert killed.returncode == -signal.SIGKILL
    outcome = migrate(source, target)
    assert outcome.there == 900 and outcome.copied == 1100
    found = content(target)
    assert {k: v for bank in found.values() for k, v in bank.items()} == {
        f"k{i}": packed({"i": i}) for i in range(2000)}


def test_migrate_leaves_banks_durable_and_of_the_drivers_settings(source, target):
    localfs(source, "bank", "key", 1)
    migrate(source, target)
    with open(os.path.join(target, "bank", "kist.bank"), "rb") as file:
        assert struct.unpack_from("<I", file.read(), 44) == (3,), "durability always"
    with kist.open(target) as store:
        stats = store.bank("bank").stats()
        assert stats.unsynced_bytes == 0 and stats.last_recovery == 0


def test_migrate_dry_run_reads_all_and_writes_nothing(source, target):
    localfs(source, "bank", "key", 1)
    localfs(source, "bank", "bad", b"\xc1")
    outcome = migrate(source, target, dry_run=True)
    assert (outcome.copied, outcome.there, outcome.damaged) == (1, 0, 1)
    assert not os.path.exists(target)
    migrate(source, target)
    localfs(source, "bank", "another", 1)
    localfs(source, "other", "key", 1)
    before = tree(target)
    outcome = migrate(source, target, dry_run=True)
    assert (outcome.copied, outcome.there, outcome.damaged) == (2, 1, 1)
    assert tree(target) == before


# ---- Salt's mmap files ---------------------------------------------------


@needs_xxhash
def test_migrate_copies_salts_mmap_files(source, target):
    bank = MmapBank(source, "minions/web01")
    values = {f"k{i}": packed({"i": i, "s": "x" * i}) for i in range(10)}
    for key, value in values.items():
        bank.add(key, value)
    bank.add("gone", packed(1), state=MmapBank.DELETED)
    bank.add("mark", b"")
    bank.add("ü/ä", packed("text"))
    bank.write()
    MmapBank(source, "empty").write()
    before = tree(source)
    outcome = migrate(source, target)
    assert (outcome.copied, outcome.damaged, outcome.banks) == (12, 0, 1)
    assert content(target) == {"minions/web01": {**values, "mark": b"", "ü/ä": packed("text")}}
    assert tree(source) == before
    assert cache.fetch("minions/web01", "mark", target) == {}
    assert migrate(source, target).there == 12


@needs_xxhash
def test_migrate_reads_every_heap_file(source, target):
    bank = MmapBank(source, "bank", segment=100)
    values = {f"k{i}": packed("x" * 60) for i in range(5)}
    places = [bank.add(key, value) for key, value in values.items()]
    bank.write()
    assert places[-1][0] == 4, "each has a file of its own"
    migrate(source, target)
    assert content(target) == {"bank": values}


@needs_xxhash
def test_migrate_does_not_need_the_roster(source, target):
    bank = MmapBank(source, "bank")
    bank.add("key", packed(1))
    bank.write()
    os.unlink(bank.path + ".roster")
    assert migrate(source, target).copied == 1


@needs_xxhash
def test_migrate_takes_both_kinds_of_one_bank_and_the_newer_entry(source, target):
    localfs(source, "bank", "a", "from localfs")
    localfs(source, "bank", "b", "from localfs")
    bank = MmapBank(source, "bank")
    bank.add("b", packed("from mmap"), mtime_ns=time.time_ns() + 10**10)
    bank.add("c", packed("from mmap"))
    bank.write()
    migrate(source, target)
    assert content(target)["bank"] == {"a": packed("from localfs"), "b": packed("from mmap"),
                                       "c": packed("from mmap")}


@needs_xxhash
def test_migrate_names_and_counts_damaged_entries_of_mmap_files(source, target):
    bank = MmapBank(source, "bank", segment=200)
    bank.add("good", packed(1))
    _, offset = bank.add("flipped", packed("value"))
    bank.heaps[0][offset + 9] ^= 1
    bank.add("outside", packed(1))
    at = 3 * bank.slot_size + 1 + bank.key_size
    struct.pack_into("<QI", bank.index, at, 5, 0xFFFFFFFF)
    bank.add("no file", packed(1))
    at = 4 * bank.slot_size + 1 + bank.key_size
    struct.pack_into("<Q", bank.index, at, 7 << 48)
    bank.add("", packed(1))
    bank.add("junk", b"\xc1")
    bank.write()
    outcome = migrate(source, target)
    why = dict(outcome.troubles)
    assert (outcome.copied, outcome.damaged) == (1, 5)
    assert "checksum" in why["bank: flipped"]
    assert "heap file 0, which has" in why["bank: outside"]
    assert ".heap.7" in why["bank: no file"]
    assert "slot 5 has no key" in why["bank: "]
    assert content(target) == {"bank": {"good": packed(1)}}


@needs_xxhash
def test_migrate_of_other_slot_sizes(source, target):
    bank = MmapBank(source, "bank", slot_size=160, key_size=120)
    for i in range(5):
        bank.add(f"a rather long key {i} " * 4, packed(i))
    bank.write()
    outcome = migrate(source, target)
    assert outcome.copied == 0 and "--slot-size" in outcome.troubles[0][1]
    assert not os.path.exists(target)
    outcome = migrate(source, target, slot_size=160, key_size=120)
    assert outcome.copied == 5 and not outcome.troubles


@needs_xxhash
def test_migrate_of_one_index_file(source, target):
    bank = MmapBank(source, "any")
    bank.path = os.path.join(bank.folder, "by_id.mmap")
    bank.add("web01", b"192.0.2.7")
    bank.add("raw", b"\xc1\xff")  # what is in it is none of the driver's business
    bank.add("mark", b"")
    bank.write()
    outcome = migrate(bank.path, target)
    assert (outcome.copied, outcome.damaged) == (3, 0)
    copied = MmapCache(os.path.join(target, "by_id.mmap"))
    assert sorted(copied.list_items()) == [("mark", True), ("raw", b"\xc1\xff"),
                                           ("web01", "192.0.2.7")]
    copied.close()
    done = run("migrate", bank.path)
    assert done.returncode == 2 and "STORE" in done.stderr
    assert "3 were there" in run("migrate", bank.path, target).stdout


@needs_xxhash
def test_migrate_of_files_without_checksums(source, target):
    bank = MmapBank(source, "bank", checksums=False)
    bank.add("a", packed("value"))
    bank.add("b", packed([1, 2]))
    bank.write()
    assert migrate(source, target).damaged == 2
    assert "2 entries copied" in run("migrate", "--no-checksums", source, target).stdout
    assert content(target) == {"bank": {"a": packed("value"), "b": packed([1, 2])}}


@needs_xxhash
def test_migrate_counts_keys_that_salt_may_have_cut(source, target):
    bank = MmapBank(source, "bank")
    bank.add("k" * 70, packed(1))
    bank.add("k" * 63, packed(2))
    bank.write()
    outcome = migrate(source, target)
    assert outcome.copied == 2 and outcome.cut_keys == 1


@pytest.mark.parametrize("index, why", [
    (b"", "empty"),
    (b"\x01" * 960, "0x01"),
    (b"\xab" + bytes(961), "multiple"),
    (b"\xab" + b"\x07" * 959, "no sense"),
])
def test_an_index_that_is_none_is_named(source, target, index, why):
    os.mkdir(os.path.join(source, "bank"))
    with open(os.path.join(source, "bank", ".mmap_cache.idx"), "wb") as file:
        file.write(index)
    localfs(source, "bank", "key", 1)
    outcome = migrate(source, target)
    assert outcome.copied == 1 and outcome.damaged == 1
    assert why in outcome.troubles[0][1]


def test_a_slot_that_is_too_small_for_its_key_is_refused(source):
    with pytest.raises(Unreadable, match="needs 85"):
        mmap_files.MmapFiles("x", slot_size=84)


@needs_xxhash
def test_an_index_of_any_bytes_gives_entries_or_a_reason():
    """Nothing but `Unreadable` comes out of damaged files, and no value without its checksum."""
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    @hypothesis.settings(max_examples=200, deadline=None)
    @hypothesis.given(st.lists(st.tuples(st.integers(0, 96 * 8 - 1), st.integers(0, 255)),
                               max_size=12), st.integers(0, 400))
    def try_it(flips, cut):
        import tempfile

        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as root:
            bank = MmapBank(root, "bank", size=8, segment=100)
            values = {f"k{i}": packed(["x" * 20, i]) for i in range(5)}
            for key, value in values.items():
                bank.add(key, value)
            for at, byte in flips:
                bank.index[at] = byte
            del bank.heaps[0][cut:]
            bank.write()
            try:
                entries = list(mmap_files.MmapFiles(bank.path).entries())
            except Unreadable:
                return
            for entry in entries:
                assert (entry.value is None) is (entry.damage is not None)
                assert entry.value in (None, b"", *values.values())

    try_it()


@needs_xxhash
def test_salts_writers_wait_while_an_index_is_read(source):
    import fcntl

    bank = MmapBank(source, "bank")
    bank.add("a", packed(1))
    bank.add("b", packed(2))
    bank.write()
    entries = mmap_files.MmapFiles(bank.path).entries()
    next(entries)
    with open(bank.path + ".lock", "r+") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert len(list(entries)) == 1
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- the command line ----------------------------------------------------


def run(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "kist.salt", *arguments], capture_output=True,
                          text=True, errors="replace", **more)


def test_command_install_driver(folder):
    there = os.path.join(folder, "ext", "cache")
    done = run("install-driver", there)
    assert done.returncode == 0 and done.stdout.strip() == os.path.join(there, "kist.py")
    with open(os.path.join(there, "kist.py"), "rb") as copy, open(cache.__file__, "rb") as source:
        assert copy.read() == source.read()
    assert os.listdir(there) == ["kist.py"]
    assert os.stat(os.path.join(there, "kist.py")).st_mode & 0o777 == 0o644
    assert run("install-driver", there).returncode == 0, "it may be repeated"


def test_command_install_driver_that_fails(folder):
    with open(os.path.join(folder, "file"), "w"):
        pass
    done = run("install-driver", os.path.join(folder, "file"))
    assert done.returncode == 3 and "file" in done.stderr and "Traceback" not in done.stderr


def test_install_driver_leaves_nothing_behind_when_it_fails(folder):
    os.mkdir(os.path.join(folder, "kist.py"))
    with pytest.raises(OSError):
        install_driver(folder)
    assert os.listdir(folder) == ["kist.py"]


def test_command_migrate(source, target):
    localfs(source, "bank", "key", 1)
    localfs(source, "jobs/ab/cd", "x", 1)
    done = run("migrate", source, target)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == (
        f"1 entries copied to {target} (1 bytes, 1 banks), 0 were there, 0 damaged\n"
        "left out: jobs/ab: no bank of the cache\n"
    )
    assert content(target) == {"bank": {"key": packed(1)}}
    assert run("migrate", "--quiet", source, target).stdout == ""
    assert "1 were there" in run("migrate", source, target).stdout


def test_command_migrate_without_a_store_makes_one_of_the_cachedir(source):
    localfs(source, "bank", "key", 1)
    assert run("migrate", source).returncode == 0
    assert content(source) == {"bank": {"key": packed(1)}}


def test_command_migrate_dry_run(source, target):
    localfs(source, "bank", "key", 1)
    done = run("migrate", "--dry-run", source, target)
    assert done.returncode == 0 and "1 entries would be copied" in done.stdout
    assert not os.path.exists(target)


def test_command_migrate_of_damaged_entries_ends_with_4_and_names_them(source, target):
    localfs(source, "bank", "bad\x1b[31mkey", b"\xc1")
    localfs(source, "bank", "good", 1)
    done = run("migrate", source, target)
    assert done.returncode == 4 and "1 damaged" in done.stdout
    assert "bank: bad\\x1b[31mkey" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_command_migrate_of_what_is_missing_ends_with_3(source, target):
    done = run("migrate", source + "x", target)
    assert done.returncode == 3 and "no such file or directory" in done.stderr
    done = run("migrate", "--bank", "ghost", source, target)
    assert done.returncode == 3 and "ghost" in done.stderr
    done = run("migrate", "--bank", "../x", source, target)
    assert done.returncode == 2 and "leads out" in done.stderr


def test_command_migrate_to_a_place_that_cannot_be_written_ends_with_3(source, folder):
    localfs(source, "bank", "key", 1)
    with open(os.path.join(folder, "file"), "w"):
        pass
    done = run("migrate", source, os.path.join(folder, "file"))
    assert done.returncode == 3 and "goes on from here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", [[], ["migrate"], ["no-such"], ["migrate", "a", "b", "c"],
                                  ["migrate", "--slot-size", "x", "a"], ["install-driver"]])
def test_command_that_is_wrong_ends_with_2(line):
    done = run(*line)
    assert done.returncode == 2 and "usage: kist salt" in done.stderr


def test_command_help_names_the_verbs():
    done = run("--help")
    assert done.returncode == 0 and "install-driver" in done.stdout and "migrate" in done.stdout
    done = run("migrate", "--help")
    assert all(option in done.stdout for option in ("--dry-run", "--bank", "--slot-size"))


def test_command_that_is_interrupted_says_how_it_goes_on(source, target, monkeypatch, capsys):
    localfs(source, "bank", "key", 1)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kist.salt.migration.migrate", interrupt)
    assert command.main(["migrate", source, target]) == 3
    assert "goes on from here" in capsys.readouterr().err


# ---- the bar -------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_is_shown_on_a_terminal_only():
    file = io.StringIO()
    bar = Bar(file)
    bar(1, 2, "bank")
    bar.end()
    assert file.getvalue() == ""
    now = [0.0]
    terminal = Terminal()
    bar = Bar(terminal, clock=lambda: now[0])
    bar(1, 4, "minions/\x1bweb01")
    bar(2, 4, "too soon")
    now[0] = 1.0
    bar(3, 4, "bank")
    bar(4, 4, "the last is always shown")
    shown = terminal.getvalue()
    assert "1 of 4  minions/?web01" in shown and "3 of 4" in shown and "4 of 4" in shown
    assert "too soon" not in shown and "\x1b" not in shown and "\n" not in shown
    bar.end()
    assert terminal.getvalue().endswith(" \r")


def test_command_migrate_shows_a_bar_on_a_terminal(source, target):
    import pty

    for i in range(10):
        localfs(source, "bank", f"k{i}", i)
    ours, theirs = pty.openpty()
    got = bytearray()

    def read():
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                return
            if not data:
                return
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run([sys.executable, "-m", "kist.salt", "migrate", source, target],
                          stderr=theirs, stdout=subprocess.PIPE, text=True)
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert done.returncode == 0 and "10 entries copied" in done.stdout
    assert b"10 of 10" in got and b"####" in got
