"""The stores and banks that this process has open for Salt.

A master loads its cache driver many times in one process, each time as a
module of its own. What it has open is kept here, once: a handle for each bank
and settings, as long as the process lives. kist itself opens handles again
after a fork, and keeps only some of them mapped; so there may be ten thousand.

There is no lock that a fork could catch in the hands of another thread: of two
threads that open one bank, one uses the other's handle.
"""

import logging
import os
import stat
import time
import weakref
from contextlib import suppress

import kist

log = logging.getLogger(__name__)

# The bank was dropped, or its handle closed: to be opened again. While others
# drop a bank and make it anew, who opens it may also meet files of both, which
# is over in a moment; where files were really exchanged it stays.
GONE = (kist.GoneError, kist.ClosedError, kist.ForeignFilesError)

# How often that is tried.
ATTEMPTS = 100


def pauses():
    """Yield before each attempt; wait a little where many were made."""
    for n in range(ATTEMPTS):
        if n > 3:
            time.sleep(0.001)
        yield n


# Salt's size of a bank is a limit, the same for ten thousand banks. Taken as
# what is expected of each it would cost 18 bytes an entry, and a walk goes over
# the index that was made for them. Banks grow by themselves.
LARGEST_HINT = 1_000

_DURABILITIES = ("always", "interval", "none")
_SEGMENT_BYTES = 4 << 10, 1 << 30

# Lists of keys that are kept: from how many keys on, and for how many banks.
_LONG = 256
_MOST_LISTS = 64

_stores = weakref.WeakValueDictionary()  # directory -> Store; a Bank keeps its own
_banks = {}  # (directory, bank) -> {settings: Bank}
_lists = weakref.WeakKeyDictionary()  # Bank -> (version, keys)


class BadName(ValueError):
    """A bank's name that can't be one, or that would lead out of the cachedir."""


def bank_name(bank):
    """The name of a bank as kist has it: parts joined by single slashes.

    An empty name stays empty: it means the cachedir itself, which is no bank.
    """
    if not isinstance(bank, str):
        raise BadName(f"the name of a bank is text, not {type(bank).__name__}")
    name = os.path.normpath(bank)
    if name == ".":
        return ""
    if name.startswith("/") or name == ".." or name.startswith("../"):
        raise BadName(f"the name {bank!r} leads out of the cache's directory")
    if "\0" in name:
        raise BadName(f"the name {bank!r} has a NUL in it")
    return name


def settings(durability=None, size=None, max_segment_bytes=None, verify_checksums=None):
    """Options of a bank of kist from those that Salt has; None: the default."""
    if durability is None:
        durability = "always"
    if durability not in _DURABILITIES:
        known = ", ".join(_DURABILITIES)
        raise ValueError(f"kist_durability is one of {known}, not {durability!r}")
    found = {"durability": durability}
    if size is not None:
        found["expect_entries"] = min(max(int(size), 0), LARGEST_HINT)
    if max_segment_bytes is not None:
        least, most = _SEGMENT_BYTES
        within = min(max(int(max_segment_bytes), least), most)
        found["segment_bytes"] = 1 << (within.bit_length() - 1)
    if verify_checksums is not None:
        found["verify"] = "first" if verify_checksums else "never"
    return found


# ---- opening ---------------------------------------------------------------


def _store(directory, create):
    """None if there is no store, and none is to be made."""
    store = _stores.get(directory)
    if store is None or store.closed:
        if create:
            os.makedirs(os.path.dirname(directory), exist_ok=True)
        try:
            store = kist.open(directory, create=create)
        except FileNotFoundError:  # kist.NoStoreError is one
            if create:
                raise
            return None
        _stores[directory] = store
    return store


def new_bank(directory, name, create, **settings):
    """A handle of one's own; None if there is no such bank and `create` is false."""
    store = _store(os.path.abspath(directory), create)
    if store is None:
        return None
    try:
        return store.bank(name, create=create, **settings)
    except kist.NoBankError:
        return None


def open_bank(directory, name, create, dead=None, **settings):
    """The process's handle of a bank; None if there is no such bank and `create`
    is false.

    directory  the store's; made a store with `create`
    name       as `bank_name` gave it
    dead       a handle whose bank was dropped: it is replaced
    settings   as `settings` gave them
    """
    directory = os.path.abspath(directory)
    mine = tuple(sorted(settings.items()))
    bank = _banks.get((directory, name), {}).get(mine)
    if bank is not None and bank is not dead and not bank.closed:
        return bank
    bank = new_bank(directory, name, create, **settings)
    if bank is not None:
        _banks.setdefault((directory, name), {})[mine] = bank
    return bank


def drop_bank(directory, name):
    """Remove a bank with all it holds, but none below it. True if there was one."""
    directory = os.path.abspath(directory)
    _banks.pop((directory, name), None)
    store = _store(directory, create=False)
    if store is None:
        return False
    for n in pauses():
        try:
            store.drop(name)
            break
        except kist.NoBankError:
            return False
        except GONE:
            if n == ATTEMPTS - 1:
                raise
    # The empty directory goes too, as with localfs; of one that has more in it, or
    # in which somebody makes the bank again, the kernel says no.
    with suppress(OSError):
        os.rmdir(os.path.join(directory, name))
    return True


def close_store(directory):
    """Close the store of a directory and its banks; the next call opens them again."""
    directory = os.path.abspath(directory)
    for at in [at for at in _banks if at[0] == directory]:
        del _banks[at]
    store = _stores.pop(directory, None)
    if store is not None:
        store.close()


def directory_exists(directory, name):
    """Whether there is a directory for the bank, reached by no symlink."""
    at = os.fspath(directory)
    if not os.path.isdir(at):
        return False
    for part in name.split("/") if name else ():
        at = os.path.join(at, part)
        try:
            mode = os.lstat(at).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(mode):
            raise BadName(f"{at} is a symlink, which no bank's name may lead through")
        if not stat.S_ISDIR(mode):
            return False
    return True


# ---- keys and entries ------------------------------------------------------


def key_bytes(key):
    """The key as kist has it: text as UTF-8, with what `os.fsdecode` put in."""
    return key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key


def _text(key):
    return key.decode("utf-8", "surrogateescape")


def _walk(bank, entries):
    """What there is to be had of a walk: a damaged entry is told of, and left out."""
    walk = iter(entries)
    while True:
        try:
            yield from walk
            return
        except kist.CorruptError as why:
            log.warning("bank=%r: a damaged entry is left out: %s", bank.name, why)


def keys(bank):
    """A list of the bank's keys, as text.

    A long one is kept, and copied as long as nobody, in any process, wrote to
    the bank: its sequence grows with each write.
    """
    if len(bank) < _LONG:
        return _keys(bank)
    version = _version(bank)
    kept = _lists.get(bank)
    if kept is not None and kept[0] == version:
        return kept[1].copy()
    found = _keys(bank)
    if _version(bank) == version:
        if len(_lists) >= _MOST_LISTS:
            _lists.clear()
        _lists[bank] = version, found.copy()
    return found


def _version(bank):
    stats = bank.stats()
    return stats.sequence, stats.generation


def _keys(bank):
    try:
        return list(map(bytes.decode, bank))
    except (UnicodeDecodeError, kist.CorruptError):
        return [_text(key) for key in _walk(bank, bank)]


def items(bank):
    """Keys, as text, and the bytes of their values, from one pass."""
    return ((_text(key), value) for key, value in _walk(bank, bank.items()))
