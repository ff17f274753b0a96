"""Stores: directories of banks."""
from __future__ import annotations

import atexit
import os
import resource
import weakref
from types import TracebackType
from typing import Callable, NoReturn, Optional, Union

from . import _core
from ._bank import Bank

_Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
_Name = Union[str, bytes]
_Progress = Callable[[int, int], object]

_CREATE, _READONLY, _ANY_FS = 1, 2, 4
_BANK_CREATE, _BANK_EXCLUSIVE, _BANK_READONLY = 1, 2, 4
_INDEX: dict[Optional[str], int] = {None: 0, "hash": 1, "ordered": 2}
_DURABILITY: dict[Optional[str], int] = {None: 0, "none": 1, "interval": 2, "always": 3}
_VERIFY: dict[Optional[str], int] = {None: 0, "first": 1, "always": 2, "never": 3}

_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _choose(option: str, table: dict[Optional[str], int], value: Optional[str]) -> int:
    try:
        return table[value]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in table if name is not None)
        raise ValueError(f"{option} is one of {names}, not {value!r}") from None


def _number(option: str, value: int, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{option} is an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{option} is {least:,} to {most:,}, not {value}")
    return value


def _default_max_open() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1024 if soft == resource.RLIM_INFINITY else soft // 8
    return max(1, min(most, 1024))


class Store(_core.Store):
    """An open store; made by kist.open(). A context manager that closes it."""

    __slots__ = ("__weakref__",)

    def bank(self, name: _Name, *, create: bool = True, exclusive: bool = False,
             readonly: bool = False, index: Optional[str] = None, segment_bytes: int = 0,
             expect_entries: int = 0, durability: Optional[str] = None, interval_ms: int = 0,
             verify: Optional[str] = None, deadline_ms: int = 0) -> Bank:
        """Open the bank `name`: parts joined by "/", "minions/web01".

        create      make it if it is missing; else NoBankError
        exclusive   make it, and raise BankExistsError if it is there
        readonly    this handle never changes a byte
        index, segment_bytes, expect_entries
                    for a bank that is made: "hash", fastest, or "ordered", with keys in byte
                    order, for scan(); the largest size of a heap file, a power of two;
                    a hint for the index's first size
        durability  "none": killing loses nothing, power loss what came after the last
                    sync; "interval": the same, and a thread syncs every interval_ms;
                    "always": each put is synced before it returns
        verify      when a record's checksum is tested: "first" time this process reads it,
                    "always", "never"
        deadline_ms how long a call waits for another writer before BusyError; -1: for ever;
                    0: 10 seconds

        durability, interval_ms and verify are kept with a bank that is made, and
        otherwise are this handle's alone.
        """
        create = create and not readonly and not self.readonly
        flags = (bool(create or exclusive) * _BANK_CREATE | bool(exclusive) * _BANK_EXCLUSIVE
                 | bool(readonly) * _BANK_READONLY)
        return Bank(
            self,
            _bank_name(name),
            flags,
            _choose("index", _INDEX, index),
            _number("segment_bytes", segment_bytes, 0, 1 << 30),
            _number("expect_entries", expect_entries, 0, (1 << 64) - 1),
            _choose("durability", _DURABILITY, durability),
            _number("interval_ms", interval_ms, 0, 3_600_000),
            _choose("verify", _VERIFY, verify),
            _number("deadline_ms", deadline_ms, -1, (1 << 31) - 1),
        )

    def banks(self, prefix: _Name = "") -> list[str]:
        """A list of the names of all banks at or below `prefix`, in byte order."""
        return self._names(prefix)

    def drop(self, name: _Name) -> None:
        """Remove a bank and its entries, but not banks nested below its name. Handles to
        it, in any process, raise GoneError from then on."""
        self._drop(_bank_name(name))

    def repair(self, name: _Name, progress: Optional[_Progress] = None) -> _core.Report:
        """Make a damaged or poisoned bank usable again. Returns a Report of what was
        found. progress(done_bytes, all_bytes) is called now and then."""
        return self._repair(_bank_name(name), progress)

    def copy(self, path: _Path, progress: Optional[_Progress] = None) -> _core.Copied:
        """Copy the whole store to `path`, which must not exist, while others read and
        write it. Each bank of the copy is the bank at one moment. Returns a Copied."""
        return self._copy(os.path.abspath(os.fspath(path)), progress)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kist.Store {self.path!r}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Store cannot be pickled; open it by its path on the other side")


def _bank_name(name: _Name) -> bytes:
    if not isinstance(name, (str, bytes)):
        raise TypeError(f"a bank's name is str or bytes, not {type(name).__name__}")
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        raise ValueError("a bank's name has no NUL bytes")
    return encoded


def open(path: _Path, *, create: bool = True, readonly: bool = False, any_fs: bool = False,
         max_open_banks: Optional[int] = None, file_mode: int = 0, dir_mode: int = 0,
         log: Optional[Callable[[_core.LogEvent], object]] = None) -> Store:
    """Open the store in the directory `path`, and return a Store.

    create          make it if it is missing; else NoStoreError
    readonly        never change a byte; all banks are read-only
    any_fs          accept network and unknown file systems
    max_open_banks  banks kept mapped at once; others come back at their next call
    file_mode, dir_mode
                    for what is made; default 0o600 and 0o700
    log             called with a LogEvent, in the main thread, after a recovery, or when
                    damage was found

    After a fork the child's first call opens it again by itself.
    """
    flags = (bool(create and not readonly) * _CREATE | bool(readonly) * _READONLY
             | bool(any_fs) * _ANY_FS)
    if log is not None and not callable(log):
        raise TypeError(f"log is callable, or None, not {type(log).__name__}")
    if max_open_banks is None:
        max_open_banks = _default_max_open()
    at = os.fsencode(os.path.abspath(os.fspath(path)))
    if b"\0" in at:
        raise ValueError("a path has no NUL bytes")
    store = Store(at, flags, _number("max_open_banks", max_open_banks, 1, 65_536),
                  _number("file_mode", file_mode, 0, 0o777),
                  _number("dir_mode", dir_mode, 0, 0o777), log)
    _open_stores.add(store)
    return store


@atexit.register
def _close_all() -> None:
    """Stores that are still open are closed in order: the next open is instant."""
    failed: Optional[Exception] = None
    for store in list(_open_stores):
        try:
            store.close()
        except Exception as why:
            failed = failed or why
    if failed:
        raise failed
