"""Store, fetch, updated and list of the bank itself; durable stores; views; many at once."""
import os
import shutil

from bench import Goal, Row

import kist
from engines import ENGINES, PARTS, Kist, Lmdb

SIZES = {"200 B": 200, "10 KB": 10_000}


def rows(bench):
    for label, size in SIZES.items():
        yield from sized_rows(bench, label, size)
    yield from floor_row(bench)
    yield from durable_row(bench)
    yield from view_row(bench)


def sized_rows(bench, label, size):
    folder = bench.folder / label.replace(" ", "")
    folder.mkdir()
    keys = [f"minion{i:06}" for i in range(bench.entries)]
    value = os.urandom(size)
    n = len(keys)
    engines = {name: make(str(folder / name.replace(" ", "-"))) for name, make in ENGINES.items()}
    for engine in engines.values():
        engine.store(keys, value)
    order = keys

    def part(column):
        return order[:n // PARTS.get(column, 1)]

    def before_store(column):
        nonlocal order
        order = bench.shuffled(keys)
        engines[column].tidy()

    def before_fetch(column):
        """Warm: each was read before."""
        nonlocal order
        order = bench.shuffled(keys)
        engines[column].fetch(part(column))

    yield Row(f"store, {label}",
              {name: (lambda name=name, engine=engine: engine.store(part(name), value))
               for name, engine in engines.items()}, n, before_store, PARTS)
    for engine in engines.values():
        engine.tidy()
    yield Row(f"fetch, {label}",
              {name: (lambda name=name, engine=engine: engine.fetch(part(name)))
               for name, engine in engines.items()}, n, before_fetch, PARTS)
    yield Row(f"fetch 100 at once, {label}",
              {"kist": lambda: [engines["kist"].bank.get_many(order[i:i + 100])
                                for i in range(0, n, 100)],
               "py-lmdb": lambda: [lmdb_many(engines["py-lmdb"].env, order[i:i + 100])
                                   for i in range(0, n, 100)]}, n, before_fetch)
    yield Row(f"updated, {label}",
              {name: (lambda name=name: engines[name].updated(part(name)))
               for name in ("kist", "file per key")}, n, before_fetch, PARTS)
    text = b" ".join(key.encode() for key in keys)
    yield Row(f"list, {label}", {**{name: engine.list for name, engine in engines.items()},
                                 "new objects": text.split}, n,
              lambda column: column in engines and before_fetch(column))
    for engine in engines.values():
        engine.close()
    shutil.rmtree(folder)


def lmdb_many(env, keys):
    with env.begin() as transaction:
        get = transaction.get
        return [get(key.encode()) for key in keys]


def floor_row(bench):
    """What a call costs that does nothing: the floor for all others."""
    things = [f"{i}" for i in range(bench.entries)]

    def call(function):
        for thing in things:
            function(thing)

    yield Row("a call of C that does nothing", {"floor": lambda: call(callable)}, len(things))


def durable_row(bench):
    """Each survives power loss when it returns. The yardstick is one pwrite and one
    fdatasync of as many bytes as the record has, into a file that was written before."""
    folder = bench.folder / "durable"
    folder.mkdir()
    n, size, key = 50, 200, "minion000001"
    value = os.urandom(size)
    engine = Kist(str(folder / "kist"), durability="always")
    synced = Lmdb(str(folder / "lmdb"), sync=True, metasync=True, writemap=False)
    record = os.urandom(-(-(40 + len(key) + size) // 16) * 16)
    fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"\xff" * (8 << 20))
    os.fsync(fd)
    at = 0

    def pwrite():
        nonlocal at
        for _ in range(n):
            os.pwrite(fd, record, at)
            os.fdatasync(fd)
            at += len(record)

    yield Row("durable store, 200 B",
              {"kist": lambda: engine.store([key] * n, value),
               "py-lmdb": lambda: synced.store([key] * n, value), "pwrite+sync": pwrite}, n)
    os.close(fd)
    engine.close()
    synced.close()


def view_row(bench):
    store = kist.open(str(bench.folder / "views"))
    bank = store.bank("bank")
    n = 1000
    for name, size in (("1 MB", 1 << 20), ("100 MB", 100 << 20)):
        bank[name] = b"v" * size

    def views(name):
        for _ in range(n):
            bank.get_view(name)

    yield Row("view of a value", {name: (lambda name=name: views(name))
                                  for name in ("1 MB", "100 MB")}, n)
    store.close()


def goals(rows):
    def ratio(row, over, under):
        found = rows.get(row)
        return found.median(over) / found.median(under) if found else None

    def goal(what, value, bound, at_least=False):
        return Goal(what, value, bound, at_least) if value else None

    # Of 10 KB the copying is most of it, and the same for all.
    yield goal("bank[key], 200 B: times faster than py-lmdb",
               ratio("fetch, 200 B", "py-lmdb", "kist"), 1.6, True)
    yield goal("bank[key] = value, 200 B: times faster than py-lmdb",
               ratio("store, 200 B", "py-lmdb", "kist"), 1.6, True)
    yield goal("listing keys: time / a dict's", ratio("list, 200 B", "kist", "dict"), 3)
    yield goal("durable store: time / pwrite and fdatasync's",
               ratio("durable store, 200 B", "kist", "pwrite+sync"), 1.3)
    yield goal("view of 100 MB: time / of 1 MB", ratio("view of a value", "100 MB", "1 MB"), 3)
