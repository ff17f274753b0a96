"""What the readers of Salt's caches hand out."""

from typing import NamedTuple, Optional


class Entry(NamedTuple):
    """One entry: its key, its value or what is wrong with it, and its time."""

    key: bytes
    value: Optional[bytes]
    mtime_ns: int
    damage: Optional[str] = None
    version: object = None  # differs from that of a later read if it was written again


class Unreadable(Exception):
    """A cache as a whole can't be read; the text says why."""
