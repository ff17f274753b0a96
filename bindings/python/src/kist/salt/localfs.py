"""Reading trees of Salt's ``localfs`` cache, to copy them into kist.

An entry is a file ``<cachedir>/<bank>/<key>.p`` that holds msgpack. Salt keeps
other things below its cachedir, some of them in files of that name too; what
is known to be no bank is left out, and told of.
"""

import os
import re
import stat
from typing import NamedTuple

from .entries import Entry

SUFFIX = ".p"

# Salt's job cache (jobs/ab/cdef...) and its lists of the fileserver's files.
_NO_BANK = re.compile(r"jobs/[0-9a-f]{2}|file_lists|.*/file_lists")


class Directory(NamedTuple):
    """A directory below the cachedir: a bank, if it holds entries."""

    bank: str
    keys: list  # names of its entries, without the suffix
    others: list  # names of its other plain files
    left: list  # (name, why) of what is not looked into
    failed: str = ""  # why it can't be read


def walk(root, bank=""):
    """Yield a `Directory` for the bank and each below it, in order of names.

    Symlinks are not followed.
    """
    pending = [bank]
    while pending:
        bank = pending.pop()
        found = Directory(bank, [], [], [])
        below = []
        try:
            listing = os.scandir(os.path.join(root, bank))
        except OSError as why:
            yield found._replace(failed=why.strerror)
            continue
        with listing:
            for item in listing:
                _sort(item, bank, found, below)
        found.keys.sort()
        found.left.sort()
        pending.extend(sorted(below, reverse=True))
        yield found


def _sort(item, bank, found, below):
    name = f"{bank}/{item.name}" if bank else item.name
    if item.is_symlink():
        if item.name.endswith(SUFFIX) or os.path.isdir(item.path):
            found.left.append((item.name, "a symlink, not followed"))
    elif item.is_dir(follow_symlinks=False):
        if _NO_BANK.fullmatch(name):
            found.left.append((item.name, "no bank of the cache"))
        else:
            below.append(name)
    elif item.is_file(follow_symlinks=False):
        if item.name.endswith(SUFFIX):
            found.keys.append(item.name[: -len(SUFFIX)])
        else:
            found.others.append(item.name)


def version(root, bank, key):
    """What changes when an entry is written, or None when it is gone."""
    try:
        return _version(os.stat(_path(root, bank, key), follow_symlinks=False))
    except OSError:
        return None


def _version(seen):
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def read(root, bank, key):
    """The entry, or None if it is gone meanwhile."""
    name = os.fsencode(key)
    # NONBLOCK: should a pipe have come in the file's place, nobody waits for it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(_path(root, bank, key), flags)
    except FileNotFoundError:
        return None
    except OSError as why:
        return Entry(name, None, 0, why.strerror)
    with open(fd, "rb") as file:
        seen = os.fstat(fd)
        value, damage = None, None
        if not stat.S_ISREG(seen.st_mode):
            damage = "not a plain file"
        else:
            try:
                value = file.read()
            except OSError as why:
                damage = why.strerror
        if value == b"":
            value, damage = None, "the file is empty"
        return Entry(name, value, seen.st_mtime_ns, damage, _version(seen))


def _path(root, bank, key):
    return os.path.join(root, bank, key + SUFFIX)
