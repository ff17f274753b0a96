"""Copying a cache of Salt's into kist: `localfs` trees and `mmap_cache` files.

Both may lie in one directory, and kist's banks in the same: the files have
other names. What is copied is decided entry by entry:

- a key that kist has not is stored;
- one that it has is stored again only if Salt wrote it later than kist, and
  it differs.

So a copy that was killed goes on where it was, a second one does nothing, and
one made after the master went over to kist takes nothing back. Nothing of
Salt's is changed or removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import kist

from . import handles, localfs, mmap_files
from .entries import Entry, Unreadable

# How often an entry that is being written is read again.
_ATTEMPTS = 20

# What kist may say of one bank, or one entry, while others can be copied.
_OF_A_BANK = (
    kist.BankNameError,
    kist.UnsafePathError,
    kist.CorruptError,
    kist.FormatError,
    kist.NewerVersionError,
    kist.ForeignFilesError,
    kist.PoisonedError,
)
_OF_AN_ENTRY = (kist.KeyLengthError, kist.ValueLengthError)


@dataclass
class Outcome:
    """What came of it.

    copied, there, damaged
               entries that were stored, that kist had as new, that were not copied
    bytes      of the values that were stored
    cut_keys   keys as long as Salt's mmap_cache has them at most
    banks      that were gone through
    troubles   (where, why) of each entry, or bank, that was not copied
    left       (where, why) of what was not looked into
    """

    copied: int = 0
    there: int = 0
    damaged: int = 0
    bytes: int = 0
    cut_keys: int = 0
    banks: int = 0
    troubles: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


class _LocalfsBank:
    """The entries of one directory of a localfs tree."""

    msgpack = True  # values are; of a bank that the driver reads

    def __init__(self, root, directory):
        self.root, self.name, self.keys = root, directory.bank, directory.keys

    def count(self):
        return len(self.keys)

    def entries(self):
        for key in self.keys:
            yield localfs.read(self.root, self.name, key) or Entry(os.fsencode(key), None, 0)

    def written_again(self, entry):
        """The entry anew if Salt wrote it since it was read, else None."""
        key = os.fsdecode(entry.key)
        if localfs.version(self.root, self.name, key) in (entry.version, None):
            return None
        return localfs.read(self.root, self.name, key)

    def key_was_cut(self, entry):
        return False


class _MmapBank:
    """The entries of one bank of Salt's mmap_cache; its lock keeps writers out."""

    def __init__(self, files, name, msgpack=True):
        self.files, self.name, self.msgpack = files, name, msgpack

    def count(self):
        return self.files.count()

    def entries(self):
        return self.files.entries()

    def written_again(self, entry):
        return None

    def key_was_cut(self, entry):
        return len(entry.key) == self.files.key_size


def _sources(root, names, mmap_bank, outcome):
    """Yield every bank of either kind at or below the names (none: all)."""
    for name in names or [""]:
        for directory in localfs.walk(root, name):
            at = directory.bank
            if directory.failed:
                _trouble(outcome, at or root, None, directory.failed)
            for item, why in directory.left:
                outcome.left.append((os.path.join(at, item), why))
            if at and directory.keys:
                yield _LocalfsBank(root, directory)
            elif directory.keys:
                outcome.left.extend((key + ".p", "in no bank") for key in directory.keys)
            if mmap_files.INDEX in directory.others:
                if at:
                    yield mmap_bank(os.path.join(root, at, mmap_files.INDEX), at)
                else:
                    outcome.left.append((mmap_files.INDEX, "in no bank"))


def _undecodable(value):
    """Why the driver could not hand this value out, or None."""
    if not value:
        return None  # a presence mark
    import msgpack

    def refuse(code, data):
        raise ValueError(f"an extension type of msgpack ({code}), which the driver can't carry")

    try:
        msgpack.unpackb(value, raw=False, strict_map_key=False, ext_hook=refuse)
    except Exception as why:  # msgpack raises many kinds; each means the same here
        return f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
    return None


def migrate(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    names: Iterable[str] = (),
    dry_run: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    slot_size: int = mmap_files.SLOT_SIZE,
    key_size: int = mmap_files.KEY_SIZE,
    checksums: bool = True,
) -> Outcome:
    """Copy every bank below the directory `source` into the store `target`.

    `source` may also be the index file of one MmapCache of Salt's; its name becomes
    the bank's, and MmapCache(target/name) has its entries.

    names       banks to copy, with all below them; none: all
    dry_run     read and check everything, write nothing
    progress    None, or called as progress(done, all, bank) for each entry
    slot_size, key_size, checksums
                of Salt's mmap files

    Returns an `Outcome`. Raises `Unreadable` when there is nothing at `source`, and
    kist's errors when the target can't be written.
    """
    outcome = Outcome()

    def mmap_bank(path, name, **more):
        return _MmapBank(mmap_files.MmapFiles(path, slot_size, key_size, checksums), name, **more)

    if os.path.isfile(source):
        found = [mmap_bank(source, os.path.basename(source), msgpack=False)]
    elif os.path.isdir(source):
        names = [handles.bank_name(name) for name in names]
        for name in names:
            if not os.path.isdir(os.path.join(source, name)):
                raise Unreadable(f"{source}: it has no bank {name!r}")
        found = _sources(source, names, mmap_bank, outcome)
    else:
        raise Unreadable(f"{source}: no such file or directory")
    banks = []
    every = 0
    for bank in found:
        try:
            count = bank.count()
        except Unreadable as why:
            _trouble(outcome, bank.name, None, str(why))
            continue
        if count:
            banks.append((bank, count))
            every += count
    if not banks:
        return outcome
    store = _open_store(target, dry_run)
    try:
        _copy_all(banks, every, store, dry_run, progress, outcome)
    finally:
        if store is not None:
            store.close()
    return outcome


def _copy_all(banks, every, store, dry_run, progress, outcome):
    done = 0
    for bank, count in banks:
        seen = 0
        try:
            with _Copy(bank, store, dry_run, outcome) as copy:
                outcome.banks += 1
                for entry in bank.entries():
                    seen += 1
                    copy.one(entry)
                    if progress:
                        progress(done + seen, every, bank.name)
        except (Unreadable, *_OF_A_BANK) as why:
            _trouble(outcome, bank.name, None, f"{why} ({count - seen:,} entries)",
                     max(count - seen, 1))
        done += count


def _trouble(outcome, bank, key, why, entries=1):
    outcome.damaged += entries
    where = bank if key is None else f"{bank}: {os.fsdecode(key)}"
    outcome.troubles.append((where, why))


class _Copy:
    """One bank on its way. Left, what was stored is on the disk."""

    def __init__(self, source, store, dry_run, outcome):
        self.source, self.outcome, self.dry_run = source, outcome, dry_run
        self.bank = _open(store, source.name, dry_run)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bank is not None:
            self.bank.close()

    def one(self, entry):
        """Store an entry, and again as long as Salt writes it meanwhile."""
        if entry.value is None and entry.damage is None:
            return  # it is gone since it was listed
        outcome, copied = self.outcome, False
        for _ in range(_ATTEMPTS):
            damage = entry.damage or (self.source.msgpack and _undecodable(entry.value))
            if not damage:
                try:
                    copied |= self._put(entry)
                except _OF_AN_ENTRY as why:
                    damage = str(why)
            again = self.source.written_again(entry)
            if again is None:
                break
            entry = again
        if damage:
            _trouble(outcome, self.source.name, entry.key, damage)
        elif copied:
            outcome.copied += 1
            outcome.bytes += len(entry.value)
        else:
            outcome.there += 1
        outcome.cut_keys += self.source.key_was_cut(entry)

    def _put(self, entry):
        """Store it unless kist's is as new. True if it was, or would be, stored."""
        if self.bank is None:
            return True
        stored = False
        while not stored:
            try:
                there = self.bank.meta(entry.key)
                if there and (
                    entry.mtime_ns < there.mtime_ns or self.bank.get(entry.key) == entry.value
                ):
                    return False
                sequence = there.sequence if there else 0
            except kist.CorruptError:
                sequence = None  # kist's own is damaged, and this one whole
            if self.dry_run:
                return True
            stored = self.bank.put(entry.key, entry.value, if_seq=sequence)
        return True


def _open(store, name, dry_run):
    """The bank; None if it is missing in a dry run."""
    if store is None:
        return None
    if not dry_run:
        # What is kept with a bank that is made is what the driver asks for; this
        # copy is synced once, at its end.
        store.bank(name, **handles.settings()).close()
    try:
        return store.bank(name, create=False, durability="none", readonly=dry_run)
    except kist.NoBankError:
        return None


def _open_store(target, dry_run):
    """The store; None if it is missing in a dry run."""
    try:
        return kist.open(target, create=not dry_run, readonly=dry_run)
    except (kist.NoStoreError, FileNotFoundError):
        if not dry_run:
            raise
        return None
