"""Banks: what is not C of them."""
from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from types import TracebackType
from typing import Any, NoReturn, Optional, Union

from . import _core

_KEYS, _VALUES, _ITEMS, _ENTRIES = range(4)


class _Items(ItemsView[bytes, bytes]):
    """Key and value of an entry come from one read."""

    _mapping: Bank

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._mapping._walk(_ITEMS)


class _Values(ValuesView[bytes]):
    _mapping: Bank

    def __iter__(self) -> Iterator[bytes]:
        return self._mapping._walk(_VALUES)


class Bank(_core.Bank, MutableMapping[bytes, bytes]):
    """An open bank; made by Store.bank(). A mutable mapping from keys (bytes, or str
    that stands for its UTF-8) to bytes, shared by all processes that open it.

    Keys come back as bytes. A walk over keys, values or items comes in no particular
    order; it may meet what others change meanwhile or not, and each key that is there
    throughout once.
    """

    __slots__ = ("__weakref__",)

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

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kist.Bank {self.name!r}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Bank cannot be pickled; open it by its name on the other side")

    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> bool:
        # As mappings are compared; a bank is itself without being read.
        return True if self is other else MutableMapping.__eq__(self, other)
