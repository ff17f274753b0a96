"""Caches as Salt leaves them on the disk, written from the description of their
formats alone."""
import os
import struct

import msgpack


def localfs(root, bank, key, value):
    """An entry of a localfs tree; bytes are written as they are. Returns its path."""
    folder = os.path.join(root, bank)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{key}.p")
    with open(path, "wb") as file:
        file.write(value if isinstance(value, bytes) else msgpack.packb(value, use_bin_type=True))
    return path


class MmapBank:
    """Index, heap files and roster of one bank of Salt's mmap_cache."""

    EMPTY, USED, DELETED = range(3)

    def __init__(self, root, bank, size=32, slot_size=96, key_size=64, segment=1 << 30,
                 checksums=True):
        self.folder = os.path.join(root, bank)
        self.path = os.path.join(self.folder, ".mmap_cache.idx")
        self.slot_size, self.key_size, self.segment = slot_size, key_size, segment
        self.checksums = checksums
        self.index = bytearray(size * slot_size)
        self.heaps = [bytearray()]
        self.roster = []
        self.used = self.deleted = 0

    def add(self, key, value, mtime_ns=1_700_000_000_000_000_000, state=USED, slot=None):
        """Fill the next slot. Returns (heap file, offset) of the value's checksum."""
        from xxhash import xxh3_64_intdigest

        slot = slot or 1 + self.used + self.deleted
        checksum = struct.pack("<Q", xxh3_64_intdigest(value)) if value and self.checksums else b""
        record = checksum + value
        if len(self.heaps[-1]) + len(record) > self.segment:
            self.heaps.append(bytearray())
        number, offset = len(self.heaps) - 1, len(self.heaps[-1])
        self.heaps[-1] += record
        at = slot * self.slot_size
        self.index[at] = state
        name = key.encode()[: self.key_size]
        self.index[at + 1 : at + 1 + len(name)] = name
        struct.pack_into("<QIQ", self.index, at + 1 + self.key_size,
                         number << 48 | offset, len(value), mtime_ns)
        self.roster.append(slot if state == self.USED else 0xFFFFFFFF)
        self.used += state == self.USED
        self.deleted += state == self.DELETED
        return number, offset

    def write(self):
        struct.pack_into("<BQQQ", self.index, 0, 0xAB, self.used, self.deleted,
                         self.used + self.deleted)
        os.makedirs(self.folder, exist_ok=True)
        files = {"": self.index, ".roster": struct.pack(f"<{len(self.roster)}I", *self.roster),
                 ".lock": b""}
        for number, heap in enumerate(self.heaps):
            files[".heap" + (f".{number}" if number else "")] = heap
        for suffix, content in files.items():
            with open(self.path + suffix, "wb") as file:
                file.write(content)
        return self
