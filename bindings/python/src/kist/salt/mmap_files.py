"""Reading the files of Salt's own ``mmap_cache``, to copy them into kist.

An index is an array of slots of one size. Slot 0 is the header, each other
one is free, used or deleted; a used slot has the key, and where its value
stands in the heap files::

    slot 0      +0 0xAB  +1 u64 used    +9 u64 deleted   +17 u64 highest slot
    slot 1 ...  +0 state +1 key, padded with NUL to key_size
                         then u64 place, u32 length, u64 time in ns

A place has the number of the heap file in its upper 16 bits, the offset in
the other 48. Where checksums are on, an XXH3-64 stands before the value. The
roster, a list of used slots, is not read: the slots themselves say it, and a
roster may have been left behind by a kill.

Nothing here trusts the files: every number is checked before it is used, and
what can't be read is reported, entry by entry.
"""

import fcntl
import os
import struct
from contextlib import contextmanager, suppress

from .entries import Entry, Unreadable

INDEX = ".mmap_cache.idx"

SLOT_SIZE = 96
KEY_SIZE = 64

_MAGIC = 0xAB
_USED = 1
_STATES = bytes(range(3))
_HEADER = struct.Struct("<QQQ")
_POINTER = struct.Struct("<QIQ")
_SUM = struct.Struct("<Q")
_HEADER_END = 1 + _HEADER.size


def smallest_slot(key_size):
    """The fewest bytes that a slot with keys of this size can have."""
    return max(1 + key_size + _POINTER.size, _HEADER_END)


@contextmanager
def _share_lock(path):
    # Salt's writers hold this lock while they change slots and heap. Where the
    # lock can't be had (no such file, no right to open it) nobody is writing,
    # or nothing can be done about it; each entry has its checksum.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


class MmapFiles:
    """One index with its heap files.

    ``slot_size`` and ``key_size`` are those of the master's configuration
    (``mmap_cache_slot_size``, ``mmap_cache_key_size``): the files don't tell.
    ``checksums`` says whether sums stand before the values; Salt's driver
    always writes them.
    """

    def __init__(self, path, slot_size=SLOT_SIZE, key_size=KEY_SIZE, checksums=True):
        self.path = os.fspath(path)
        self.slot_size = slot_size
        self.key_size = key_size
        self.checksums = checksums
        self._heaps = {}
        if key_size < 1 or slot_size < smallest_slot(key_size):
            raise Unreadable(
                f"a slot of {slot_size} bytes has no room for keys of {key_size}; "
                f"it needs {smallest_slot(max(key_size, 1))}"
            )

    def _read_index(self):
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as why:
            raise Unreadable(f"{self.path}: {why.strerror}") from why
        with open(fd, "rb") as file:
            try:
                index = file.read()
            except OSError as why:
                raise Unreadable(f"{self.path}: {why.strerror}") from why
        return index

    def _check(self, index):
        """That the index has slots of the size that was named."""
        size, advice = self.slot_size, (
            "give the master's mmap_cache_slot_size and mmap_cache_key_size "
            "(--slot-size, --key-size)"
        )
        if not index:
            raise Unreadable(f"{self.path}: the index is empty")
        if index[0] not in (0, _MAGIC):
            raise Unreadable(
                f"{self.path}: byte 0 is 0x{index[0]:02x}, not 0xab: no index of Salt's mmap_cache"
            )
        if len(index) % size:
            raise Unreadable(
                f"{self.path}: {len(index)} bytes are no multiple of a slot of {size}; {advice}"
            )
        states = index[size::size]
        if states.translate(None, _STATES):
            raise Unreadable(f"{self.path}: slots of {size} bytes make no sense here; {advice}")
        return states

    def _heap(self, number):
        """The descriptor and length of a heap file, or the reason there is none."""
        if number not in self._heaps:
            path = f"{self.path}.heap" + (f".{number}" if number else "")
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                self._heaps[number] = fd, os.fstat(fd).st_size
            except OSError as why:
                self._heaps[number] = f"{os.path.basename(path)}: {why.strerror}"
        return self._heaps[number]

    def _value(self, place, length):
        """The value and None, or None and what is wrong."""
        if not length:
            return b"", None
        number, offset = place >> 48, place & ((1 << 48) - 1)
        heap = self._heap(number)
        if isinstance(heap, str):
            return None, heap
        fd, size = heap
        want = length + (_SUM.size if self.checksums else 0)
        if offset > size or want > size - offset:
            return None, (
                f"its value would end at byte {offset + want} of heap file {number}, "
                f"which has {size}"
            )
        try:
            data = os.pread(fd, want, offset)
        except OSError as why:
            return None, f"heap file {number}, offset {offset}: {why.strerror}"
        if len(data) != want:
            return None, f"heap file {number} was cut short at {offset + len(data)}"
        if not self.checksums:
            return data, None
        # Imported where it is needed: a localfs tree is copied without it.
        from xxhash import xxh3_64_intdigest

        value = data[_SUM.size :]
        if _SUM.unpack_from(data)[0] != xxh3_64_intdigest(value):
            return None, f"its checksum is wrong (heap file {number}, offset {offset})"
        return value, None

    def count(self):
        """How many entries there are, by the slots."""
        return self._check(self._read_index()).count(_USED)

    def entries(self):
        """Yield an `Entry` for each used slot.

        Salt's lock is held, shared, until the last one was taken: its writers
        wait meanwhile, its readers do not.
        """
        with _share_lock(self.path + ".lock"):
            try:
                index = self._read_index()
                states = self._check(index)
                slot = -1
                while (slot := states.find(_USED, slot + 1)) >= 0:
                    yield self._entry(index, (slot + 1) * self.slot_size)
            finally:
                self.close()

    def _entry(self, index, at):
        at += 1
        key = index[at : at + self.key_size].partition(b"\0")[0]
        place, length, mtime_ns = _POINTER.unpack_from(index, at + self.key_size)
        if not key:
            return Entry(b"", None, mtime_ns, f"slot {at // self.slot_size} has no key")
        value, damage = self._value(place, length)
        return Entry(key, value, mtime_ns, damage)

    def close(self):
        """Close the heap files; they are opened again when needed."""
        for heap in self._heaps.values():
            if not isinstance(heap, str):
                os.close(heap[0])
        self._heaps.clear()
