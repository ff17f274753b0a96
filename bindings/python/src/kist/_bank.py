"""Banks: what is not C of them."""
from __future__ import annotations

from collections.abc import ItemsView, KeysView, MutableMapping, ValuesView

from . import _core

_KEYS, _VALUES, _ITEMS, _ENTRIES = range(4)


class _Items(ItemsView):
    """Key and value of an entry come from one read."""

    def __iter__(self):
        return self._mapping._walk(_ITEMS)


class _Values(ValuesView):
    def __iter__(self):
        return self._mapping._walk(_VALUES)


class Bank(_core.Bank, MutableMapping):
    """An open bank; made by Store.bank(). A mutable mapping from keys (bytes, or str
    that stands for its UTF-8) to bytes, shared by all processes that open it.

    Keys come back as bytes. A walk over keys, values or items comes in no particular
    order; it may meet what others change meanwhile or not, and each key that is there
    throughout once.
    """

    __slots__ = ("__weakref__",)

    def keys(self):
        """A view of the keys."""
        return KeysView(self)

    def items(self):
        """A view of (key, value) pairs."""
        return _Items(self)

    def values(self):
        """A view of the values."""
        return _Values(self)

    def entries(self):
        """An iterator over (key, value, Meta)."""
        return self._walk(_ENTRIES)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return f"<kist.Bank {self.name!r}{' closed' if self.closed else ''}>"

    def __reduce__(self):
        raise TypeError("a Bank cannot be pickled; open it by its name on the other side")

    __hash__ = object.__hash__

    def __eq__(self, other):
        # As mappings are compared; a bank is itself without being read.
        return True if self is other else MutableMapping.__eq__(self, other)
