"""How objects become bytes: msgpack, pickle, or a codec of one's own."""
from __future__ import annotations

import pickle
from typing import Any, Protocol, Union

from ._errors import Error

__all__ = ["CodecError"]


class CodecError(Error, ValueError):
    """An object cannot be stored by the codec that was chosen, or stored bytes
    are not what it writes."""

    __module__ = "kist"


class Codec(Protocol):
    """What `codec=` takes: anything with these two. `name`, if it has one, goes into
    the keys, so that bytes of one codec are never read by another."""

    def dumps(self, value: Any, /) -> Union[bytes, str]: ...
    def loads(self, data: bytes, /) -> Any: ...


class _Pickle:
    name = "pickle"

    @staticmethod
    def dumps(value: Any) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    loads = staticmethod(pickle.loads)


class _Msgpack:
    """Strict: what would come back as something else (a tuple as a list) is refused."""

    name = "msgpack"

    def __init__(self, msgpack: Any) -> None:
        self._pack, self._unpack = msgpack.packb, msgpack.unpackb

    def dumps(self, value: Any) -> bytes:
        packed: bytes = self._pack(value, use_bin_type=True, strict_types=True)
        return packed

    def loads(self, data: bytes) -> Any:
        return self._unpack(data, raw=False, strict_map_key=False)


def choose(codec: Union[str, Codec, None]) -> Codec:
    """The codec that an argument stands for. None: msgpack if it is installed, else
    pickle."""
    if codec in (None, "msgpack"):
        try:
            import msgpack  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            if codec == "msgpack":
                raise ImportError("codec='msgpack' needs the package msgpack: "
                                  "pip install msgpack, or kist[msgpack]") from None
            return _Pickle()
        return _Msgpack(msgpack)
    if codec == "pickle":
        return _Pickle()
    if isinstance(codec, str):
        raise ValueError(f"codec is 'msgpack', 'pickle' or an object with dumps and loads, "
                         f"not {codec!r}")
    if not (callable(getattr(codec, "dumps", None)) and callable(getattr(codec, "loads", None))):
        raise TypeError(f"a codec has dumps and loads; {type(codec).__name__} has not")
    return codec


def name_of(codec: Codec) -> str:
    named = getattr(codec, "name", None) or getattr(codec, "__name__", None)
    return named if isinstance(named, str) else type(codec).__qualname__
