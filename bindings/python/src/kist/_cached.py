"""A decorator that keeps what a function returns."""
from __future__ import annotations

import asyncio
import functools
import inspect
import marshal
from hashlib import blake2b
from typing import Any, Callable, TypeVar, Union

from . import _codecs
from ._bank import Bank
from ._codecs import CodecError

_LONG = 512  # bytes of a key, above which its arguments are hashed


_Function = TypeVar("_Function", bound=Callable[..., Any])


def cached(bank: Bank, *, codec: Union[str, _codecs.Codec, None] = None,
           key: Union[Callable[..., Union[str, bytes]], None] = None,
           name: Union[str, None] = None) -> Callable[[_Function], _Function]:
    """Keep what a function returns in `bank`, and return it from there when the function is
    called with the same arguments again, in any process.

        @kist.cached(store.bank("thumbnails"), codec="pickle")
        def thumbnail(path, size): ...

    codec  "msgpack" (if None, and installed), "pickle", or an object with dumps(value)
           and loads(bytes), as the module json is. Msgpack takes what it gives back unchanged; a tuple, a set or an
           object of a class raises CodecError and wants "pickle". Pickle runs code of whoever
           may write the bank.
    key    called with the arguments, returns the key; needed when they are more than
           numbers, strings, bytes, None and tuples, lists and dicts of such
    name   what the keys begin with; default: the function's module and name

    Exceptions are not kept. Of two calls at the same time both run. The decorated function
    has .forget(*arguments), .cache_key(*arguments) and .__wrapped__; of a coroutine function
    all that waits is done by threads of the event loop's executor.
    """
    coder = _codecs.choose(codec)

    def decorate(function: Any) -> Any:
        prefix = f"{name or f'{function.__module__}.{function.__qualname__}'}" \
                 f":{_codecs.name_of(coder)}:".encode()

        def cache_key(*args: Any, **kwargs: Any) -> bytes:
            if key is not None:
                own = key(*args, **kwargs)
                return prefix + (own.encode() if isinstance(own, str) else own)
            try:
                # version 2 writes equal values as equal bytes
                said = marshal.dumps((args, sorted(kwargs.items())), 2)
            except ValueError:
                raise TypeError(f"an argument of {function.__qualname__} makes no key: numbers, "
                                "strings, bytes, None and tuples, lists, dicts of them do; "
                                "give @kist.cached a key= for others") from None
            if len(said) > _LONG:
                said = b"\0" + blake2b(said, digest_size=32).digest()
            return prefix + said

        def load(at: bytes) -> tuple[bool, Any]:
            stored = bank.get(at)
            if stored is None:
                return False, None
            try:
                return True, coder.loads(stored)
            except Exception as why:
                raise CodecError(f"bank '{bank.name}': what is stored for "
                                 f"{function.__qualname__} is not {_codecs.name_of(coder)}: "
                                 f"{why}; forget() it, or clear the bank") from why

        def keep(at: bytes, result: Any) -> None:
            try:
                stored = coder.dumps(result)
            except Exception as why:
                raise CodecError(f"{_codecs.name_of(coder)} cannot keep what "
                                 f"{function.__qualname__} returned, {type(result).__name__}: {why}; "
                                 "choose codec='pickle' or one of your own") from why
            bank[at] = stored.encode() if isinstance(stored, str) else stored

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            at = cache_key(*args, **kwargs)
            there, result = load(at)
            if not there:
                result = function(*args, **kwargs)
                keep(at, result)
            return result

        @functools.wraps(function)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            at = cache_key(*args, **kwargs)
            run = asyncio.get_running_loop().run_in_executor
            there, result = await run(None, load, at)
            if not there:
                result = await function(*args, **kwargs)
                await run(None, keep, at, result)
            return result

        decorated: Any = async_wrapper if inspect.iscoroutinefunction(function) else wrapper
        decorated.cache_key = cache_key
        decorated.forget = lambda *args, **kwargs: bank.discard(cache_key(*args, **kwargs))
        return decorated

    return decorate
