"""Nothing is left behind: maps, descriptors, memory. And ten thousand banks."""
import os
import subprocess
import sys
import tempfile

import kist
import pytest

MILLION = """
import gc, os, sys, asyncio
import kist, kist.aio

def maps():
    with open("/proc/self/maps") as f:
        return sum(1 for _ in f)

def resident():
    with open("/proc/self/statm") as f:
        pages = f.read().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")  # without shared pages

def descriptors():
    return len(os.listdir("/proc/self/fd"))

store = kist.open(sys.argv[1])
bank = store.bank("bank", segment_bytes=1 << 20)
keys = [f"{i}" for i in range(100)]

def some(n):
    "n rounds of 100 operations of all kinds"
    for _ in range(n):
        for key in keys[:40]:
            bank[key] = b"x" * 100
        for key in keys[:30]:
            bank[key]
        for key in keys[:10]:
            bank.get_view(key)[1:]
        bank.get("none"), "none" in bank, bank.meta("1"), bank.put("1", b"", if_absent=True)
        bank.get_many(keys)
        bank.setdefault("1", b""), bank.discard("2"), len(bank)
        for wrong in (1, "x" * 70_000):
            try:
                bank[wrong]
            except (TypeError, kist.KeyLengthError):
                pass
        try:
            bank["none"]
        except KeyError:
            pass
        bank[keys[0]] = bytearray(b"y" * 100)
        next(iter(bank))
        bank.stats()
        batch = bank.batch()
        batch["batch"] = b"x"
        batch["batch"]
        for i in range(8):
            bank[keys[50 + i]] = memoryview(b"z" * 10)
def rare(n):
    for i in range(n):
        with kist.open(sys.argv[1]) as other:
            other.bank("bank")["other"] = b"1"
            list(other.bank("bank").items())
            try:
                other.bank("none", create=False)
            except kist.NoBankError:
                pass
        bank["large"] = b"l" * 300_000
        bank.get_view("large"), bank["large"], dict(bank.items()), list(bank.entries())
        bank.replace(dict(bank.items()))
        bank.compact()
        bank.verify()
        store.banks()
        with bank.batch() as batch:
            batch.expect("batch", 0)
            batch["batch"] = b"y"
        snapshot = bank.snapshot()
        snapshot["batch"], snapshot.moment(), next(snapshot.scan())
        bank.discard("batch")
        bank.revert(snapshot)
        bank.discard("batch")
        next(bank.scan()), list(bank.scan())
        if os.fork() == 0:
            bank["1"]
            os._exit(0)
        os.wait()
    gc.collect()

some(300); rare(10)
before = maps(), descriptors(), sys.getallocatedblocks(), resident()
some(int(sys.argv[2]) // 100); rare(40)
after = maps(), descriptors(), sys.getallocatedblocks(), resident()
print(*before, *after)
"""


def test_a_million_operations_leave_nothing_behind(path):
    n = int(1_000_000 * min(1.0, float(os.environ.get("KIST_TEST_SCALE", "1"))))
    done = subprocess.run([sys.executable, "-c", MILLION, path, str(n)], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    said = [int(word) for word in done.stdout.split()]
    (maps, descriptors, blocks, resident), after = said[:4], said[4:]
    assert after[0] <= maps + 20, "maps"
    assert after[1] <= descriptors + 2, "descriptors"
    assert after[2] <= blocks + 500, "Python objects"
    assert after[3] <= resident + (4 << 20), "memory"


@pytest.fixture
def memory_folder(folder):
    """A folder in memory if there is room: each bank is synced when it is made and closed."""
    try:
        roomy = os.statvfs("/dev/shm")
        if roomy.f_bavail * roomy.f_frsize > 2 << 30:
            with tempfile.TemporaryDirectory(prefix="kist-python.", dir="/dev/shm") as path:
                yield path
                return
    except OSError:
        pass
    yield folder


def test_ten_thousand_banks(memory_folder):
    """More banks than may be mapped at once; each comes back by itself."""
    folder = memory_folder
    n = int(10_000 * min(1.0, float(os.environ.get("KIST_TEST_SCALE", "1"))))
    before = len(os.listdir("/proc/self/fd"))
    with kist.open(folder + "/store", max_open_banks=64) as store:
        banks = [store.bank(f"minions/m{i}") for i in range(n)]
        for i, bank in enumerate(banks):
            bank["grains"] = b"%d" % i
        for i, bank in enumerate(banks):
            assert bank["grains"] == b"%d" % i and len(bank) == 1
        assert len(os.listdir("/proc/self/fd")) < before + 64 * 8
        assert store.banks("minions") == sorted(bank.name for bank in banks)
        del banks
    with kist.open(folder + "/store", create=False) as store:
        for i in range(0, n, 97):
            with store.bank(f"minions/m{i}", create=False) as bank:
                assert bank["grains"] == b"%d" % i
    assert len(os.listdir("/proc/self/fd")) <= before
