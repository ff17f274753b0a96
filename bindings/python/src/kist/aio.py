"""kist for asyncio: the same calls as coroutines, that never block the event loop.

    import kist.aio

    async with await kist.aio.open("cache.kist") as store:
        pages = await store.bank("pages")
        await pages.put("front", b"<h1>hello</h1>")
        await pages.get("front")

Every call is made by threads of the store's own: a put may wait for another
writer, and even a get may wait for the disk. That costs some 50 microseconds a
call; gets that are made in the same turn of the loop share one (asyncio.gather).
Who knows a bank to be in memory may call `bank.blocking`, the kist.Bank itself.

A store and its banks belong to the event loop in which they were opened.
"""
from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from . import _errors, _store

__all__ = ["Bank", "Store", "open"]

_MANY = 256  # entries that a walk fetches at once


async def open(path, *, threads=4, **options):
    """As kist.open(), with `threads` for the calls."""
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="kist")
    loop = asyncio.get_running_loop()
    try:
        blocking = await loop.run_in_executor(
            pool, functools.partial(_store.open, path, **options))
    except BaseException:
        pool.shutdown(wait=False)
        raise
    return Store(blocking, pool, loop)


class _Face:
    def __init__(self, blocking, pool, loop):
        self.blocking = blocking
        self._pool = pool
        self._loop = loop

    def _run(self, function, *args, **kwargs):
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise RuntimeError("this store was opened in another event loop; open it in each")
        try:
            return loop.run_in_executor(self._pool, functools.partial(function, *args, **kwargs))
        except RuntimeError:  # close() shut the pool down
            raise _errors.ClosedError("the store was closed") from None


def _coroutine(name):
    """A method that makes the call of the same name in a thread."""

    async def call(self, *args, **kwargs):
        return await self._run(getattr(self.blocking, name), *args, **kwargs)

    call.__name__ = name
    call.__doc__ = f"As {name}() of the blocking one."
    return call


class Store(_Face):
    """An open store; made by kist.aio.open(). `blocking` is the kist.Store."""

    banks = _coroutine("banks")
    drop = _coroutine("drop")
    repair = _coroutine("repair")
    copy = _coroutine("copy")

    @property
    def path(self):
        """The store's directory, absolute."""
        return self.blocking.path

    async def bank(self, name, **options):
        """As kist.Store.bank()."""
        opened = await self._run(self.blocking.bank, name, **options)
        return Bank(opened, self._pool, self._loop)

    async def close(self):
        """Close the store; calls under way come to their end first."""
        if not self.blocking.closed:
            await self._run(self.blocking.close)
            self._pool.shutdown(wait=False)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()


class Bank(_Face):
    """An open bank; made by Store.bank(). `blocking` is the kist.Bank."""

    def __init__(self, *face):
        super().__init__(*face)
        self._gets = []  # (key, future) of this turn of the loop

    get_many = _coroutine("get_many")
    get_view = _coroutine("get_view")
    meta = _coroutine("meta")
    put = _coroutine("put")
    setdefault = _coroutine("setdefault")
    discard = _coroutine("discard")
    pop = _coroutine("pop")
    update = _coroutine("update")
    clear = _coroutine("clear")
    replace = _coroutine("replace")
    sync = _coroutine("sync")
    stats = _coroutine("stats")
    fragmentation = _coroutine("fragmentation")
    size_bytes = _coroutine("size_bytes")
    save = _coroutine("save")
    restore = _coroutine("restore")
    compact = _coroutine("compact")
    verify = _coroutine("verify")
    close = _coroutine("close")
    contains = _coroutine("__contains__")
    count = _coroutine("__len__")

    @property
    def name(self):
        """The bank's name."""
        return self.blocking.name

    async def get(self, key, default=None):
        """The value of `key`, or `default`."""
        future = asyncio.get_running_loop().create_future()
        self._gets.append((key, future))
        if len(self._gets) == 1:
            self._loop.call_soon(self._send_gets)
        value = await future
        return default if value is None else value

    def _send_gets(self):
        gets, self._gets = self._gets, []
        gets = [(key, future) for key, future in gets if not future.done()]
        if gets:
            try:
                done = self._run(_get_all, self.blocking, [key for key, _ in gets])
            except Exception as why:
                for _, future in gets:
                    future.set_exception(why)
                return
            done.add_done_callback(functools.partial(_hand_out, [f for _, f in gets]))

    def keys(self):
        """An asynchronous iterator over the keys."""
        return self._walk(self.blocking.keys)

    def values(self):
        """An asynchronous iterator over the values."""
        return self._walk(self.blocking.values)

    def items(self):
        """An asynchronous iterator over (key, value) pairs."""
        return self._walk(self.blocking.items)

    def entries(self):
        """An asynchronous iterator over (key, value, Meta)."""
        return self._walk(self.blocking.entries)

    def scan(self, **bounds):
        """An asynchronous iterator over (key, value) pairs in byte order; as scan() of the
        blocking one."""
        return self._walk(functools.partial(self.blocking.scan, **bounds))

    async def snapshot(self):
        """The bank as it is now, as a Bank whose `blocking` is a kist.Snapshot; close it."""
        return Bank(await self._run(self.blocking.snapshot), self._pool, self._loop)

    async def apply(self, changes, expect=()):
        """Make all changes at once, or none: pairs of a key and a value, None to delete
        it. `expect`: pairs of a key and the sequence it must have, 0: none; else
        ConflictError."""
        await self._run(_apply, self.blocking, changes, expect)

    async def _walk(self, face):
        walk = await self._run(lambda: iter(face()))
        while some := await self._run(lambda: list(islice(walk, _MANY))):
            for one in some:
                yield one

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()


def _apply(bank, changes, expect):
    with bank.batch() as batch:
        for key, sequence in expect:
            batch.expect(key, sequence)
        for key, value in changes:
            if value is None:
                batch.delete(key)
            else:
                batch[key] = value


def _get_all(bank, keys):
    """Values, or an exception in a value's place."""
    try:
        return bank.get_many(keys)
    except Exception:
        return [_get_one(bank, key) for key in keys]


def _get_one(bank, key):
    try:
        return bank.get(key)
    except Exception as why:
        return why


def _hand_out(futures, done):
    failed = done.exception() if not done.cancelled() else asyncio.CancelledError()
    values = [failed] * len(futures) if failed else done.result()
    for future, value in zip(futures, values):
        if future.done():
            continue  # who asked does not wait any more
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)
