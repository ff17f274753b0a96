"""@kist.cached keeps what functions return."""
import asyncio
import json
import sys

import kist
import pytest


def counting(bank, **options):
    calls = []

    @kist.cached(bank, **options)
    def function(*args, **kwargs):
        calls.append((args, kwargs))
        return {"args": len(args)}

    return function, calls


@pytest.mark.parametrize("codec", [None, "msgpack", "pickle", json])
def test_a_second_call_is_answered_from_the_bank(bank, codec):
    function, calls = counting(bank, codec=codec)
    first, second = function(1, "a", None), function(1, "a", None)
    assert first == second == {"args": 3}
    assert len(calls) == 1 and len(bank) == 1


def test_other_arguments_are_other_keys(bank):
    function, calls = counting(bank)
    different = [(1,), (1.0,), (True,), ("1",), (b"1",), ((1,),), ([1],), (), (1, 1), ({"a": 1},)]
    for args in different:
        function(*args)
    assert len({function.cache_key(*args) for args in different}) == len(different) == len(calls)
    assert function.cache_key(a=1, b=2) == function.cache_key(b=2, a=1)


def test_equal_arguments_are_equal_keys_whatever_objects_they_are(bank):
    function, _ = counting(bank)
    a = "".join(["k", "ey"])
    assert function.cache_key("key", "key") == function.cache_key(a, "".join(["ke", "y"]))


def test_none_is_a_result_like_any_other(bank):
    calls = []

    @kist.cached(bank)
    def nothing():
        calls.append(1)

    assert nothing() is None and nothing() is None and len(calls) == 1


def test_forget(bank):
    function, calls = counting(bank)
    function(1)
    assert function.forget(1) is True and function.forget(1) is False
    function(1)
    assert len(calls) == 2


def test_long_arguments_make_short_keys(bank):
    function, calls = counting(bank, codec="pickle")
    assert len(function.cache_key("x" * 1_000_000)) < 512
    for length in (100_000, 100_000, 100_001):
        function("x" * length)
    assert len(calls) == 2


def test_arguments_that_make_no_key_want_a_key_function(bank):
    class User:
        id = 7

    function, _ = counting(bank)
    with pytest.raises(TypeError, match="give @kist.cached a key="):
        function(User())

    @kist.cached(bank, key=lambda user: f"{user.id}")
    def named(user):
        return user.id

    assert named(User()) == named(User()) == 7 and len(bank) == 1


def test_a_key_that_is_too_long_is_the_librarys_error(bank):
    function, calls = counting(bank, key=lambda: "x" * 70_000)
    with pytest.raises(kist.KeyLengthError, match="65,535"):
        function()
    assert not calls


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, object(), 2**70])
def test_msgpack_refuses_what_would_not_come_back_the_same(bank, value):
    @kist.cached(bank, codec="msgpack")
    def function():
        return value

    with pytest.raises(kist.CodecError, match="choose codec='pickle'"):
        function()
    assert len(bank) == 0


def test_pickle_refuses_what_cannot_be_pickled(bank):
    @kist.cached(bank, codec="pickle")
    def function():
        return lambda: 1

    with pytest.raises(kist.CodecError, match="pickle cannot keep what .*function"):
        function()
    assert len(bank) == 0


def test_what_was_stored_by_somebody_else_is_no_result(bank):
    function, _ = counting(bank, codec="msgpack")
    bank[function.cache_key()] = b"\xc1"
    with pytest.raises(kist.CodecError, match="forget"):
        function()
    with pytest.raises(ValueError):
        function()


def test_codecs_do_not_read_each_others_bytes(bank):
    for codec in ("msgpack", "pickle", json):
        function, calls = counting(bank, codec=codec)
        function(1)
        assert len(calls) == 1
    assert len(bank) == 3


def test_bad_codecs(bank):
    with pytest.raises(ValueError, match="'msgpack', 'pickle'"):
        kist.cached(bank, codec="gzip")
    with pytest.raises(TypeError, match="has dumps and loads"):
        kist.cached(bank, codec=object())


def test_without_msgpack_pickle_is_taken(bank, monkeypatch):
    monkeypatch.setitem(sys.modules, "msgpack", None)
    function, _ = counting(bank)
    assert b":pickle:" in function.cache_key()
    with pytest.raises(ImportError, match="pip install msgpack"):
        kist.cached(bank, codec="msgpack")


def test_exceptions_are_not_kept(bank):
    calls = []

    @kist.cached(bank)
    def function():
        calls.append(1)
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            function()
    assert len(calls) == 2 and len(bank) == 0


def test_coroutine_functions(bank):
    calls = []

    @kist.cached(bank)
    async def function(x):
        calls.append(x)
        await asyncio.sleep(0)
        return x

    async def main():
        return [await function(1), await function(1), await function(2)]

    assert asyncio.run(main()) == [1, 1, 2] and calls == [1, 2]


def test_another_process_has_what_this_one_cached(path):
    import subprocess
    script = ("import kist, sys\n"
              "with kist.open(sys.argv[1]) as store:\n"
              "    f = kist.cached(store.bank('c'), name='f')(lambda x: print('ran') or x)\n"
              "    print(f(3))\n")
    for expected in ("ran\n3\n", "3\n"):
        assert subprocess.run([sys.executable, "-c", script, path], text=True, check=True,
                              capture_output=True).stdout == expected
