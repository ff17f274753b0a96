"""kist.aio: coroutines that never block the event loop."""
import asyncio
import threading

import kist
import kist.aio
import pytest


def run(path, body, **options):
    async def main():
        async with await kist.aio.open(path, **options) as store:
            bank = await store.bank("bank")
            return await body(store, bank)

    return asyncio.run(main())


def test_get_put_and_the_rest(path):
    async def body(store, bank):
        assert await bank.put("a", b"1") is True
        assert await bank.put("a", b"2", if_absent=True) is False
        assert await bank.get("a") == b"1"
        assert await bank.get("none") is None and await bank.get("none", 5) == 5
        assert await bank.get_many(["a", "none"]) == [b"1", None]
        assert bytes(await bank.get_view("a")) == b"1"
        assert (await bank.meta("a")).size == 1
        assert await bank.setdefault("b", b"2") == b"2"
        assert await bank.contains("b") and await bank.count() == 2
        assert await bank.discard("b") is True and await bank.discard("b") is False
        await bank.sync()
        assert (await bank.stats()).entries == 1
        assert await store.banks() == ["bank"]
        await bank.replace({"x": b"y"})
        assert (await bank.verify()).damaged == 0
        await bank.compact()
        assert await bank.pop("x") == b"y"
        await bank.close()
        await store.drop("bank")

    run(path, body)


def test_walks(path):
    content = {b"%d" % i: b"v%d" % i for i in range(1000)}

    async def body(_, bank):
        await bank.update(content)
        assert {key async for key in bank.keys()} == set(content)
        assert {value async for value in bank.values()} == set(content.values())
        assert {key: value async for key, value in bank.items()} == content
        assert {key async for key, _, meta in bank.entries() if meta.size} == set(content)

    run(path, body)


def test_scans_snapshots_and_changes_at_once(path):
    async def body(store, _):
        bank = await store.bank("ordered", index="ordered")
        await bank.apply((f"{i:03}", b"%d" % i) for i in range(600))
        snapshot = await bank.snapshot()
        await bank.apply([("000", None), ("new", b"1")], expect=[("new", 0)])
        with pytest.raises(kist.ConflictError):
            await bank.apply([("001", None)], expect=[("new", 0)])
        assert await bank.get("000") is None and await bank.get("001") == b"1"
        assert [key async for key, _ in bank.scan(prefix="59", reverse=True, limit=2)] == \
            [b"599", b"598"]
        assert await snapshot.get("000") == b"0" and await snapshot.count() == 600
        assert len([key async for key in snapshot.keys()]) == 600
        await snapshot.close()

    run(path, body)


def test_gets_of_one_turn_share_a_call(path, monkeypatch):
    calls = []
    real = kist.aio._get_all
    monkeypatch.setattr(kist.aio, "_get_all", lambda b, k: calls.append(len(k)) or real(b, k))

    async def body(_, bank):
        await bank.update({f"{i}": b"%d" % i for i in range(100)})
        got = await asyncio.gather(*(bank.get(f"{i}") for i in range(100)))
        assert got == [b"%d" % i for i in range(100)]

    run(path, body)
    assert calls == [100]


def test_one_bad_key_fails_its_own_get_alone(path):
    async def body(_, bank):
        await bank.put("a", b"1")
        got = await asyncio.gather(bank.get("a"), bank.get(1), bank.get("x" * 70_000),
                                   return_exceptions=True)
        assert got[0] == b"1"
        assert isinstance(got[1], TypeError) and isinstance(got[2], kist.KeyLengthError)

    run(path, body)


def test_a_cancelled_get_does_not_disturb_others(path):
    async def body(_, bank):
        await bank.put("a", b"1")
        first, second = asyncio.ensure_future(bank.get("a")), asyncio.ensure_future(bank.get("a"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"1"
        with pytest.raises(asyncio.CancelledError):
            await first

    run(path, body)


def test_no_call_is_made_in_the_loops_thread(path):
    """Each call is made where a thread of kist's own runs."""
    seen = set()

    class Spy:
        def __init__(self, bank):
            self._bank = bank

        def __getattr__(self, name):
            seen.add(threading.current_thread().name.split("_")[0])
            return getattr(self._bank, name)

    async def body(_, bank):
        real = bank.blocking
        bank.blocking = Spy(real)
        await bank.get("a")
        async for _ in bank.items():
            pass
        for face in ("put", "setdefault"):
            # bound in the loop's thread, called in another
            loop_thread = threading.current_thread()
            ran = []
            setattr(bank.blocking, face, lambda *a: ran.append(threading.current_thread()))
            await getattr(bank, face)("k", b"v")
            assert ran and ran[0] is not loop_thread

    run(path, body)
    assert "kist" in seen


def test_a_put_that_waits_for_another_writer_leaves_the_loop_free(path):
    """A put waits for a replacement's end in a thread; meanwhile the loop turns."""
    entered, leave = threading.Event(), threading.Event()

    def slow():
        yield "k", b"replaced"
        entered.set()
        assert leave.wait(30)

    async def body(_, bank):
        replacing = asyncio.ensure_future(bank.replace(slow()))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        turns = 0
        reading = asyncio.ensure_future(bank.get("k"))
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert await reading is None
        assert not replacing.done()
        leave.set()
        await replacing
        assert await bank.get("k") == b"replaced"

    run(path, body)


def test_another_event_loop_is_refused(path):
    store = asyncio.run(kist.aio.open(path))

    async def other():
        with pytest.raises(RuntimeError, match="another event loop"):
            await store.bank("bank")

    asyncio.run(other())
    store.blocking.close()


def test_errors_come_through(path):
    async def body(store, bank):
        with pytest.raises(kist.NoBankError):
            await store.bank("none", create=False)
        await store.close()
        with pytest.raises(kist.ClosedError):
            await bank.put("a", b"")
        with pytest.raises(kist.ClosedError):
            await bank.get("a")

    run(path, body)

    async def no_store():
        with pytest.raises(FileNotFoundError):
            await kist.aio.open(path + "none", create=False)

    asyncio.run(no_store())
