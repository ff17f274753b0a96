"""Banks: what is not C of them."""
from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from types import TracebackType
from typing import Any, NoReturn, Optional, TypeVar, Union

from . import _core, _errors

_Self = TypeVar("_Self", bound="_Reading")
_KEYS, _VALUES, _ITEMS, _ENTRIES = range(4)


_CHANGED = {1: "has no value any more", 2: "has a value, and was to have none",
            3: "was written meanwhile"}


class _Items(ItemsView[bytes, bytes]):
    """Key and value of an entry come from one read."""

    _mapping: _Reading

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._mapping._walk(_ITEMS)


class _Values(ValuesView[bytes]):
    _mapping: _Reading

    def __iter__(self) -> Iterator[bytes]:
        return self._mapping._walk(_VALUES)


class _Reading(_core.Bank):
    """What banks and snapshots have both."""

    __slots__ = ()

    def keys(self) -> KeysView[bytes]:
        """A view of the keys."""
        return KeysView(self)

    def items(self) -> ItemsView[bytes, bytes]:
        """A view of (key, value) pairs."""
        return _Items(self)

    def values(self) -> ValuesView[bytes]:
        """A view of the values."""
        return _Values(self)

    def entries(self) -> Iterator[tuple[bytes, bytes, _core.Meta]]:
        """An iterator over (key, value, Meta)."""
        return self._walk(_ENTRIES)

    def scan(self, *, prefix: Union[bytes, str, None] = None,
             start: Union[bytes, str, None] = None, end: Union[bytes, str, None] = None,
             reverse: bool = False, limit: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """An iterator over (key, value) in byte order, as the bank is at this moment, whatever is
        written meanwhile. Of an ordered bank; one of another kind has no bounds and no order.

        prefix   keys that begin so
        start    keys from this one on
        end      keys before this one
        reverse  from the highest key to the lowest
        limit    so many entries at most; 0: all

        A long scan keeps heap files on the disk until it ends or is thrown away.
        """
        return self._scan(_ITEMS, prefix, start, end, reverse, limit)

    def snapshot(self) -> Snapshot:
        """The bank as it is now, to be read for as long as it is open, at the same cost
        for a bank of any size. It keeps heap files on the disk: close it, or use `with`."""
        made: Snapshot = self._snapshot(Snapshot)
        return made

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kist.{type(self).__name__} {self.name!r}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled; open the bank by its name on "
                        "the other side")

    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> bool:
        # As mappings are compared; a bank is itself without being read.
        return True if self is other else Mapping.__eq__(self, other)  # type: ignore[operator]


class Bank(_Reading, MutableMapping[bytes, bytes]):
    """An open bank; made by Store.bank(). A mutable mapping from keys (bytes, or str
    that stands for its UTF-8) to bytes, shared by all processes that open it.

    Keys come back as bytes. A walk over keys, values or items comes in no particular
    order, of an ordered bank in that of the keys; it may meet what others change meanwhile
    or not, and each key that is there throughout once. scan() is of one moment.
    """

    __slots__ = ("__weakref__",)

    def batch(self) -> Batch:
        """Changes that become visible, and durable, all at once or not at all:

            with bank.batch() as batch:
                batch["a"] = b"1"
                del batch["b"]

        They are committed at the end of the block, and forgotten if it raises.
        """
        return Batch(self)

    def pop(self, key: Union[bytes, str], *default: Any) -> Any:
        """Remove a key and return its value, else the default, else raise KeyError. Of
        several that pop a key at the same time one gets it; what is stored between its
        reading and its removal goes with it."""
        if len(default) > 1:
            raise TypeError(f"pop() takes a key and a default, {1 + len(default)} arguments "
                            "were given")
        while (value := self.get(key)) is not None:
            if self.discard(key):
                return value
        if default:
            return default[0]
        raise KeyError(key)

    def popitem(self) -> tuple[bytes, bytes]:
        """Remove some entry, and return its key and value. KeyError if there is none."""
        for key in self:
            value = self.pop(key, None)
            if value is not None:
                return key, value
        raise KeyError("popitem(): the bank is empty")


class Snapshot(_Reading, Mapping[bytes, bytes]):
    """A bank as it was at a moment; made by Bank.snapshot(). All that reads a bank
    reads a snapshot; what writes raises ReadOnlyError. A forked child has no part in
    it (ForkError)."""

    __slots__ = ("__weakref__",)

    def moment(self) -> _core.Moment:
        """Of when it is, and how much it holds."""
        return self._moment()


class Batch(_core.Batch):
    """Changes that come all at once; made by Bank.batch(). Until the commit nobody else sees
    them. batch[key] and get() tell what a key will be; len() how many keys are changed.
    Deleting a key that has no value does nothing. For one thread at a time."""

    __slots__ = ("__weakref__",)

    def put(self, key: Union[bytes, str], value: Any) -> None:
        """As batch[key] = value."""
        self[key] = value

    def delete(self, key: Union[bytes, str]) -> None:
        """As del batch[key]."""
        del self[key]

    def commit(self) -> None:
        """Make all of it visible at once; the batch is empty then. ConflictError if a key is
        not what expect() demanded: nothing was changed, and the batch is as it was."""
        rc = self._commit()
        if rc:
            raise _errors.ConflictError(f"a key of the batch {_CHANGED[rc]}; nothing was changed")

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is None:
            self.commit()
        else:
            self.reset()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Batch cannot be pickled")
