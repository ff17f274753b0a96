"""Bad input: exceptions with the library's sentence in them."""
import errno
import os
import pickle
import re
import resource
import subprocess
import sys
from pathlib import Path

import kist
import pytest
from kist import _core, _errors

HEADER = next((p for p in (Path(__file__).resolve().parents[n] / sub / "kist" / "kist.h"
                           for n in (1, 3) for sub in ("libkist/include", "include"))
               if p.is_file()), None)


def test_every_failure_of_the_header_has_a_class_of_its_own():
    """A new code needs a line in _CLASSES of kist/_errors.py."""
    rows = re.findall(r"^    X\((KIST_E\w+), (-\d+), \"(.*)\"\)", HEADER.read_text(), re.M)
    codes = [row for row in rows if int(row[1]) < 0]
    assert [(name, int(code), text) for name, code, text in codes] == list(_core.ERRORS)
    for name, code, text in codes:
        assert name in _errors._CLASSES, name
        kind = getattr(kist, _errors._CLASSES[name][0])
        with pytest.raises(kist.Error) as caught:
            _core._raise(int(code))
        assert type(caught.value) is kind and caught.value.code == kind.code == int(code)
        assert caught.value.name == name and text in str(caught.value)
        assert kind.__name__ in kist.__all__ and name in kind.__doc__
    assert set(_errors._CLASSES) == {name for name, _, _ in codes}


def test_a_code_without_a_name_still_has_a_class():
    _errors._add("KIST_ETEST", -19999, "a test")
    try:
        assert kist._errors.EtestError.code == -19999
        assert issubclass(kist._errors.EtestError, kist.Error)
    finally:
        _errors._by_code.pop(-19999)
        _errors.__all__.remove("EtestError")


@pytest.mark.parametrize("number, kin", [
    (errno.ENOENT, FileNotFoundError), (errno.EACCES, PermissionError),
    (errno.EEXIST, FileExistsError), (errno.EIO, OSError), (errno.EMFILE, OSError)])
def test_system_errors_are_os_errors(number, kin):
    with pytest.raises(kist.SystemCallError) as caught:
        _core._raise(-number)
    assert isinstance(caught.value, kin) and isinstance(caught.value, kist.Error)
    assert caught.value.errno == number and caught.value.name == errno.errorcode[number]
    assert os.strerror(number) in str(caught.value)


@pytest.mark.parametrize("code, kin, number", [
    ("KIST_EFULL", OSError, errno.ENOSPC), ("KIST_EFILESIZE", OSError, errno.EFBIG),
    ("KIST_EQUOTA", OSError, errno.EDQUOT), ("KIST_EBUSY", TimeoutError, errno.ETIMEDOUT),
    ("KIST_ENOSTORE", FileNotFoundError, errno.ENOENT), ("KIST_EINVAL", ValueError, None),
    ("KIST_ENOMEM", MemoryError, None), ("KIST_ECLOSED", ValueError, None)])
def test_kinships(code, kin, number):
    with pytest.raises(kin) as caught:
        _core._raise(dict((name, rc) for name, rc, _ in _core.ERRORS)[code])
    assert isinstance(caught.value, kist.Error)
    assert getattr(caught.value, "errno", None) == number


# ---- wrong types ----


@pytest.mark.parametrize("key", [1, None, 1.5, ("a",), bytearray(b"a"), memoryview(b"a")])
def test_keys_of_wrong_types(bank, key):
    for act in (lambda: bank[key], lambda: bank.__setitem__(key, b""),
                lambda: bank.__delitem__(key), lambda: key in bank, lambda: bank.get(key),
                lambda: bank.get_view(key), lambda: bank.meta(key), lambda: bank.put(key, b""),
                lambda: bank.discard(key), lambda: bank.setdefault(key, b""),
                lambda: bank.get_many([key])):
        with pytest.raises(TypeError, match="a key is bytes or str, not "):
            act()


@pytest.mark.parametrize("value", [1, None, 1.5, ["a"], "text"])
def test_values_of_wrong_types(bank, value):
    for act in (lambda: bank.__setitem__("key", value), lambda: bank.put("key", value),
                lambda: bank.put("key", value, if_absent=True),
                lambda: bank.setdefault("key", value)):
        with pytest.raises(TypeError, match="a value is bytes or another buffer, not "):
            act()
    with pytest.raises(TypeError, match="encode it first"):
        bank["key"] = "text"
    assert len(bank) == 0


def test_wrong_arguments(bank, store):
    for act in (lambda: bank.get(), lambda: bank.get("a", 1, 2), lambda: bank.get_view(),
                lambda: bank.put("a"), lambda: bank.put("a", b"", b""),
                lambda: bank.put("a", b"", if_new=True), lambda: bank.put("a", b"", if_seq="x"),
                lambda: bank.setdefault("a"), lambda: bank.compact(done=1),
                lambda: kist.Bank(), lambda: kist.Store(), lambda: kist.Bank(a=1),
                lambda: kist.Store(a=1), lambda: store.bank(5), lambda: store.bank(),
                lambda: store.drop(5), lambda: kist.open(5), lambda: kist.open("x", log=5),
                lambda: store.bank("a", segment_bytes="x"), lambda: type(bank.get_view)(),
                lambda: _core.View(), lambda: _core.Walk(), lambda: hash({bank: 1}) and None):
        with pytest.raises(TypeError):
            act()
    for act in (lambda: bank.put("a", b"", if_absent=True, if_seq=1),
                lambda: store.bank("x", durability="often"), lambda: store.bank("x", verify="so"),
                lambda: store.bank("x", index="btree"), lambda: store.bank("x", deadline_ms=-2),
                lambda: store.bank("x", interval_ms=3_600_001), lambda: store.bank("a\0b"),
                lambda: store.bank("x", segment_bytes=5000), lambda: kist.open("a\0b"),
                lambda: kist.open("x", max_open_banks=0), lambda: kist.open("x", file_mode=0o1777)):
        with pytest.raises(ValueError):
            act()
    with pytest.raises(OverflowError):
        bank.put("a", b"", if_seq=-1)
    assert store.banks() == ["bank"] and not os.path.exists("x")


def test_a_bank_of_another_type_of_store_is_refused():
    with pytest.raises(TypeError):
        kist.Bank(object(), b"name", 0, 0, 0, 0, 0, 0, 0, 0)


def test_nothing_of_it_can_be_pickled(bank, store):
    for thing in (bank, store, bank.get_view("x", memoryview(b""))):
        with pytest.raises(TypeError):
            pickle.dumps(thing)


# ---- what the library refuses ----


def test_a_key_that_is_too_long(bank):
    bank["x" * 65_535] = b"longest"
    assert bank["x" * 65_535] == b"longest"
    for act in (lambda: bank["x" * 65_536], lambda: bank.__setitem__(b"x" * 65_536, b""),
                lambda: bank.meta("x" * 65_536), lambda: "x" * 65_536 in bank,
                lambda: bank.get_view("x" * 65_536)):
        with pytest.raises(kist.KeyLengthError, match="65,535 is the most") as caught:
            act()
        assert isinstance(caught.value, ValueError) and caught.value.bank == "bank"


def test_a_value_that_is_too_long(bank):
    """4 GiB of address space, of which no page is touched."""
    import mmap
    try:
        huge = mmap.mmap(-1, 1 << 32, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000,
                         prot=mmap.PROT_READ)
    except OSError:
        pytest.skip("no 4 GiB of address space here")
    with huge, memoryview(huge) as view, pytest.raises(kist.ValueLengthError, match="4294967296"):
        bank["key"] = view
    assert len(bank) == 0


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/a", "a/", "kist.x", "a//b",
                                  "x" * 256, "/".join(["abc"] * 300)])
def test_bank_names(store, name):
    with pytest.raises(kist.BankNameError):
        store.bank(name)
    with pytest.raises((kist.BankNameError, kist.NoBankError)):
        store.drop(name)
    assert store.banks() == []


def test_closed(path):
    store = kist.open(path)
    bank, other = store.bank("bank"), store.bank("other")
    bank["key"] = b"value"
    other.close()
    assert other.closed and not bank.closed and not store.closed
    store.close()
    store.close()
    assert store.closed and bank.closed
    for it in (bank, other):
        for act in (lambda: it["key"], lambda: it.__setitem__("key", b""), lambda: it.get("key"),
                    lambda: len(it), lambda: list(it), lambda: "key" in it, lambda: it.sync(),
                    lambda: it.stats(), lambda: it.meta("key"), lambda: it.get_view("key"),
                    lambda: it.get_many(["key"]), lambda: it.clear(), lambda: it.compact(),
                    lambda: it.__delitem__("key"), lambda: it.replace({})):
            with pytest.raises(kist.ClosedError, match="closed") as caught:
                act()
            assert isinstance(caught.value, ValueError)
    for act in (lambda: store.bank("bank"), lambda: store.banks(), lambda: store.drop("bank"),
                lambda: store.repair("bank"), lambda: store.copy(path + ".copy")):
        with pytest.raises(kist.ClosedError, match="the store was closed"):
            act()
    bank.close()
    bank.close()


def test_read_only(path):
    with pytest.raises(FileNotFoundError):
        kist.open(path, readonly=True)
    with kist.open(path) as store:
        store.bank("bank")["key"] = b"value"
        bank = store.bank("bank", readonly=True)
        with pytest.raises(kist.ReadOnlyError):
            bank["key"] = b""
    with kist.open(path, readonly=True) as store:
        bank = store.bank("bank")
        assert bank["key"] == b"value" and store.readonly
        for act in (lambda: bank.__setitem__("key", b""), lambda: bank.__delitem__("key"),
                    lambda: bank.clear(), lambda: store.drop("bank")):
            with pytest.raises(kist.ReadOnlyError):
                act()
        with pytest.raises(kist.NoBankError):
            store.bank("new")


def test_no_store_and_no_bank(folder, store):
    with pytest.raises(kist.NoStoreError, match="there is no kist store"):
        kist.open(folder, create=False)
    with pytest.raises(FileNotFoundError, match="No such file"):
        kist.open(folder + "/none/deeper")
    Path(folder, "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        kist.open(folder + "/file")
    with pytest.raises(kist.NoBankError, match="there is no bank 'none'") as caught:
        store.bank("none", create=False)
    assert caught.value.bank == "none" and isinstance(caught.value, LookupError)
    store.bank("there")
    with pytest.raises(kist.BankExistsError) as caught:
        store.bank("there", exclusive=True)
    assert caught.value.errno == errno.EEXIST
    store.bank("new", exclusive=True)


def test_a_dropped_bank_is_gone(store):
    bank = store.bank("bank")
    bank["key"] = b"value"
    store.drop("bank")
    with pytest.raises(kist.GoneError, match="dropped"):
        bank["key"]
    with pytest.raises(kist.GoneError):
        bank["key"] = b""


def test_a_symlink_in_a_banks_path(store, folder):
    os.symlink(folder, os.path.join(store.path, "link"))
    with pytest.raises(kist.UnsafePathError):
        store.bank("link/bank")


# ---- damage ----


def flip(path, needle):
    """Change a byte of the value `needle` in a heap file."""
    for file in Path(path).glob("*/kist.heap.*"):
        data = bytearray(file.read_bytes())
        at = data.find(needle)
        if at >= 0:
            with open(file, "r+b") as heap:
                heap.seek(at)
                heap.write(bytes([data[at] ^ 1]))
            return file.name, at
    raise AssertionError("not found")


def test_a_damaged_record_is_an_error_that_says_where(path):
    needle = b"a value that is looked for"
    with kist.open(path) as store:
        store.bank("bank").update({"good": b"1", "bad": needle})
    file, _ = flip(path, needle)
    events = []
    with kist.open(path, log=events.append) as store:
        bank = store.bank("bank")
        for act in (lambda: bank["bad"], lambda: bank.get("bad"), lambda: bank.get_view("bad"),
                    lambda: bank.get_many(["good", "bad"]), lambda: dict(bank.items())):
            with pytest.raises(kist.CorruptError, match="damaged") as caught:
                act()
            assert caught.value.bank == "bank" and caught.value.file == file
            assert isinstance(caught.value.offset, int)
        assert bank["good"] == b"1"
        report = bank.verify()
        assert report.damaged == 1 and report.first_file == file
        walk, whole = iter(bank.items()), []
        for _ in range(3):
            try:
                whole.append(next(walk))
            except kist.CorruptError:
                continue
            except StopIteration:
                break
        assert whole == [(b"good", b"1")]
        bank["bad"] = b"stored again"
        assert bank["bad"] == b"stored again"
        assert store.repair("bank").entries >= 1
    assert events and all(isinstance(event, kist.LogEvent) for event in events)
    assert any(event.level == 3 and event.bank == "bank" for event in events)


@pytest.mark.parametrize("file", ["kist.bank", "kist.index.1", "kist.live", "kist.heap.1"])
@pytest.mark.parametrize("how", ["garbage", "empty", "missing"])
def test_damaged_files_give_an_error_or_the_right_value(path, file, how):
    with kist.open(path) as store:
        store.bank("bank").update({f"{i}": b"value %d" % i for i in range(50)})
    at = Path(path, "bank", file)
    if not at.exists():
        at = next(Path(path, "bank").glob(file.rsplit(".", 1)[0] + ".*"))
    if how == "garbage":
        with open(at, "r+b") as f:
            f.write(os.urandom(min(4096, at.stat().st_size)))
    elif how == "empty":
        at.write_bytes(b"")
    else:
        at.unlink()
    with kist.open(path) as store:
        try:
            bank = store.bank("bank", create=False)
            for i in range(50):
                assert bank.get(f"{i}") in (None, b"value %d" % i)
        except kist.Error as why:
            assert str(why)


def test_a_store_file_that_is_none(path):
    os.mkdir(path)
    Path(path, "kist.store").write_bytes(b"garbage")
    with pytest.raises((kist.FormatError, kist.CorruptError), match="kist.store"):
        kist.open(path)


# ---- no room ----

NO_ROOM = """
import kist, resource, signal, sys
store = kist.open(sys.argv[1])
bank = store.bank("bank")
bank["before"] = b"1"
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    for i in range(10_000):
        bank[f"{i}"] = b"x" * 10_000
except kist.FileSizeError as why:
    assert isinstance(why, OSError) and "RLIMIT_FSIZE" in str(why), why
    print("refused", bank["before"].decode(), len(bank) == i + 1, why.errno)
    del bank["before"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    bank["after"] = b"2"
    print(bank.verify().damaged)
store.close()
"""


def test_a_file_size_limit(path):
    done = subprocess.run([sys.executable, "-c", NO_ROOM, path], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "1", "True", str(errno.EFBIG), "0"]


@pytest.fixture
def small_disk(folder):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    at = os.path.join(folder, "disk")
    os.mkdir(at)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "kist-test", at],
                      capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def test_a_full_disk(small_disk):
    with kist.open(small_disk + "/store") as store:
        bank = store.bank("bank")
        bank["before"] = b"1"
        with pytest.raises(kist.DiskFullError, match="space") as caught:
            for i in range(10_000):
                bank[f"{i}"] = b"x" * 1000
        assert caught.value.errno == errno.ENOSPC and isinstance(caught.value, OSError)
        assert bank["before"] == b"1" and len(bank) == i + 1
        for key in range(10):
            del bank[f"{key}"]
        bank.clear()
        bank.compact()
        bank["after"] = b"2"
        assert bank["after"] == b"2" and bank.verify().damaged == 0


def test_no_descriptors_left(path):
    """EMFILE comes as an OSError, and the store goes on afterwards."""
    script = ("import kist, os, resource, sys\n"
              "store = kist.open(sys.argv[1], max_open_banks=1)\n"
              "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
              "resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))), hard))\n"
              "try:\n"
              "    store.bank('bank')['a'] = b''\n"
              "except OSError as why:\n"
              "    print(isinstance(why, kist.Error), why.errno)\n"
              "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
              "store.bank('bank')['a'] = b'1'\n"
              "print(store.bank('bank')['a'])\n")
    done = subprocess.run([sys.executable, "-c", script, path], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"True {errno.EMFILE}\nb'1'\n"
    assert resource  # used in the scripts, too
