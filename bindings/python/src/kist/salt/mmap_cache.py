"""`MmapCache`: the class beneath Salt's mmap_cache, over a bank of kist."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any, Union

import kist

from . import handles

log = logging.getLogger(__name__)

_Text = Union[str, bytes]  # of keys and values

DEFAULT_MAX_SEGMENT_BYTES = 1 << 30

# What a slot of Salt's index has beside its key, and what its header needs.
_BESIDE_KEY = 1 + 8 + 4 + 8
_HEADER = 1 + 3 * 8


def _least_slot(key_size):
    return max(_BESIDE_KEY + key_size, _HEADER)


class MmapCache:
    """A map from keys to values in files, shared by threads and processes.

    It has the constructor and the methods of ``salt.utils.mmap_cache.MmapCache``.
    The bank is the directory `path`, in the store that the directory around it
    is, or becomes.

    path        where Salt has its index file
    size        how many entries are expected; a hint
    slot_size, key_size
                no limits any more; a slot that would be too small for the key
                is a ValueError, as it was
    heap_path   means nothing: values are in the bank's directory
    staleness_check_interval
                means nothing: every change is seen at once
    verify_checksums
                whether a record's checksum is tested when it is first read
    max_segment_bytes
                largest heap file, taken as the power of two below; for a bank
                that is made, and 4 KiB at least
    durability  "always": a put is on the disk when it returns, as with Salt;
                "interval"; "none"

    Calls that fail say so by what they return, and in the log, as Salt's do;
    wrong types raise.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int = 1_000_000,
        slot_size: int = 96,
        key_size: int = 64,
        heap_path: str | os.PathLike[str] | None = None,
        staleness_check_interval: float = 0.25,
        verify_checksums: bool = True,
        max_segment_bytes: int = DEFAULT_MAX_SEGMENT_BYTES,
        *,
        durability: str = "always",
    ) -> None:
        if slot_size < _least_slot(key_size):
            raise ValueError(
                f"slot_size {slot_size} is too small for key_size {key_size}; "
                f"it must be {_least_slot(key_size)} or more"
            )
        path = os.path.abspath(os.fspath(path))
        directory, self._name = os.path.split(path)
        self._directory = os.path.realpath(directory)
        self.path = os.path.join(self._directory, self._name)
        self.heap_path = os.fspath(heap_path) if heap_path else self.path + ".heap"
        self.size = size
        self.slot_size = slot_size
        self.key_size = key_size
        self.verify_checksums = verify_checksums
        self.max_segment_bytes = max_segment_bytes
        self.staleness_check_interval = staleness_check_interval
        self._settings = handles.settings(
            durability=durability,
            size=size,
            max_segment_bytes=max_segment_bytes,
            verify_checksums=verify_checksums,
        )
        self._bank = None

    # Opening ---------------------------------------------------------------

    def _opened(self, create, dead=None):
        """The handle; None if there is no bank and none is to be made."""
        bank = self._bank
        if bank is not None and bank is not dead:
            return bank
        # Of two threads here at once, one's handle is closed when it is forgotten.
        self._bank = bank = handles.new_bank(
            self._directory, self._name, create, **self._settings
        )
        return bank

    def _do(self, call, create, failed, doing):
        """What `call` returns for the handle; `failed` where that can't be."""
        why = dead = None
        for _ in handles.pauses():
            try:
                bank = self._opened(create, dead)
                if bank is None:
                    return failed
                dead = bank
                return call(bank)
            except handles.GONE as gone:
                why = gone
            except (kist.Error, OSError) as other:
                why = other
                break
        log.error("%s: %s failed: %s", self.path, doing, why)
        return failed

    def open(self, write: bool = False) -> bool:
        """Open the bank; with `write` make it if there is none.

        False when there is none, and when it can't be opened, which is logged.
        Every call opens it by itself.
        """
        return self._do(lambda bank: True, write, False, "opening it")

    def close(self) -> None:
        """Close it. The next call opens it again."""
        bank, self._bank = self._bank, None
        if bank is not None:
            try:
                bank.close()
            except (kist.Error, OSError) as why:
                log.error("%s: closing it failed: %s", self.path, why)

    # Entries ---------------------------------------------------------------

    def put(self, key: _Text, value: _Text | bool | None = None) -> bool:
        """Store a value: bytes, text (as UTF-8), or None, which marks presence.

        False when it could not be stored, which is logged.
        """
        key, value = _bytes(key, "key"), _value(value)
        return self._do(lambda bank: bank.put(key, value), True, False, "a put")

    def get(self, key: _Text, default: Any = None) -> Any:
        """The value: `str` if it is UTF-8, else `bytes`; True for a mark.

        `default` if there is none, and if its record is damaged, which is logged.
        """
        key = _bytes(key, "key")
        raw = self._do(lambda bank: bank.get(key), False, None, "a get")
        return default if raw is None else _shown(raw)

    def get_mtime(self, key: _Text) -> float | None:
        """When the key was written, in seconds since 1970, or None."""
        key = _bytes(key, "key")
        meta = self._do(lambda bank: bank.meta(key), False, None, "get_mtime")
        return None if meta is None else meta.mtime_ns / 1e9

    def contains(self, key: _Text) -> bool:
        """Whether the key is there."""
        key = _bytes(key, "key")
        return self._do(lambda bank: key in bank, False, False, "contains")

    def delete(self, key: _Text) -> bool:
        """Remove the key. False if it was not there."""
        key = _bytes(key, "key")
        return self._do(lambda bank: bank.discard(key), False, False, "a delete")

    # Everything ------------------------------------------------------------

    def list_keys(self) -> list[str]:
        """All keys, as text, in no particular order."""
        return self._do(handles.keys, False, [], "list_keys")

    def list_items(self) -> list[tuple[str, str | bytes | bool]]:
        """All keys and values, as `get` shows them, in no particular order."""

        def shown(bank):
            return [(key, _shown(raw)) for key, raw in handles.items(bank)]

        return self._do(shown, False, [], "list_items")

    def get_stats(self) -> dict[str, int | float]:
        """Counts and sizes. `total` is `size` less Salt's slot for the header, or
        the number of entries once that is more."""
        total = max(self.size - 1, 0)
        stats = self._do(lambda bank: bank.stats(), False, None, "get_stats")
        occupied = stats.entries if stats else 0
        deleted = stats.deleted if stats else 0
        total = max(total, occupied + deleted)
        return {
            "occupied": occupied,
            "deleted": deleted,
            "empty": total - occupied - deleted,
            "total": total,
            "load_factor": (occupied + deleted) / total if total else 0.0,
            "heap_size_bytes": stats.heap_file_bytes if stats else 0,
            "heap_live_bytes": stats.live_bytes if stats else 0,
        }

    def atomic_rebuild(self, iterator: Iterable[Any]) -> bool:
        """Make the content exactly what the iterator yields, all at once.

        It yields (key, value), (key,) or key; what `list_items` returned is fine.
        What it raises passes through, and the old content stays, as it does when
        False is returned.
        """
        # The handle is tried first: what the iterator yielded can't be had again.
        bank = self._do(lambda bank: (len(bank), bank)[1], True, None, "atomic_rebuild")
        if bank is None:
            return False
        pairs = _Pairs(iterator)
        try:
            bank.replace(pairs)
        except Exception as why:  # pylint: disable=broad-except
            if why is pairs.raised or not isinstance(why, (kist.Error, OSError)):
                raise
            log.error("%s: atomic_rebuild failed: %s", self.path, why)
            return False
        return True


class _Pairs:
    """Keys and values as bytes, and what the iterator raised."""

    def __init__(self, iterator):
        self.raised = None
        self.items = iter(iterator)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            item = next(self.items)
            if not isinstance(item, (tuple, list)):
                item = (item,)
            return _bytes(item[0], "key"), _value(item[1] if len(item) > 1 else None)
        except BaseException as why:
            self.raised = why
            raise


def _bytes(given, what):
    if isinstance(given, str):
        return given.encode("utf-8", "surrogateescape")
    if isinstance(given, (bytes, bytearray)):
        return bytes(given)
    raise TypeError(f"a {what} is str or bytes, not {type(given).__name__}")


def _value(value):
    return b"" if value is None or value is True else _bytes(value, "value")


def _shown(raw):
    if not raw:
        return True
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
