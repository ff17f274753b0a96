"""The driver as a master loads it: by a loader like Salt's, and by Salt's own where
Salt is installed. `build/check-python/venv/bin/pip install 'salt>=3008'` brings it there;
it is large, and so none of requirements.txt."""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import textwrap
import time

import kist
import pytest

pytest.importorskip("msgpack")

from kist.salt import handles, install_driver, migrate  # noqa: E402


class Loader:
    """Loads NAME.py of a directory, under a name of its own, as Salt's does: `__opts__`
    is injected, `__virtual__` asked, functions are found by their names, of which
    `__func_alias__` changes some."""

    def __init__(self, folder, opts, name="kist"):
        full = f"salt.loaded.ext.cache.{name}"
        path = os.path.join(folder, f"{name}.py")
        loader = importlib.machinery.SourceFileLoader(full, path)
        module = sys.modules.get(full)
        if module is None:
            module = importlib.util.module_from_spec(
                importlib.util.spec_from_file_location(full, path, loader=loader))
        sys.path.append(folder)
        try:
            loader.exec_module(module)
        finally:
            sys.path.remove(folder)
        sys.modules[full] = module
        module.__opts__ = dict(opts)
        self.module, self.functions, self.reason = module, {}, None
        found = module.__virtual__()
        if isinstance(found, tuple):
            self.reason = found[1]
            return
        alias = getattr(module, "__func_alias__", {})
        for attribute in dir(module):
            function = getattr(module, attribute)
            if attribute.startswith("_") or not callable(function) or isinstance(function, type):
                continue
            self.functions[f"{found}.{alias.get(attribute, attribute)}"] = function

    def __getitem__(self, name):
        return self.functions[name]


@pytest.fixture
def opts(folder):
    yield {"cachedir": os.path.join(folder, "cache"), "kist_durability": "none", "cache": "kist"}
    sys.modules.pop("salt.loaded.ext.cache.kist", None)
    handles._banks.clear()


@pytest.fixture
def extmods(folder):
    path = os.path.join(folder, "ext", "cache")
    install_driver(path)
    return path


def test_the_loader_finds_these_functions_and_no_others(extmods, opts):
    assert set(Loader(extmods, opts).functions) == {
        f"kist.{name}" for name in ("store", "fetch", "updated", "flush", "list", "list_all",
                                    "contains", "init_kwargs", "get_storage_id")}


def test_a_loaded_driver_works_on_the_cachedir_of_its_opts(extmods, opts):
    modules = Loader(extmods, opts)
    kwargs = modules["kist.init_kwargs"]({})
    assert kwargs == {"cachedir": opts["cachedir"]}
    modules["kist.store"]("minions/web01", "data", {"id": "web01"}, expires=None, **kwargs)
    assert modules["kist.fetch"]("minions/web01", "data", **kwargs) == {"id": "web01"}
    assert modules["kist.list"]("minions/web01", **kwargs) == ["data"]
    assert modules["kist.list_all"]("minions/web01", include_data=True, **kwargs) == {
        "data": {"id": "web01"}}
    assert modules["kist.contains"]("minions/web01", None, **kwargs) is True
    assert modules["kist.updated"]("minions/web01", "data", **kwargs) > 0
    assert modules["kist.flush"]("minions/web01", key=None, **kwargs) is True
    assert modules["kist.fetch"]("minions/web01", "data", **kwargs) == {}


def test_opts_that_were_injected_are_used(extmods, opts):
    modules = Loader(extmods, dict(opts, kist_durability="sometimes"))
    with pytest.raises(modules.module.SaltCacheError, match="sometimes"):
        modules["kist.store"]("bank", "key", 1, cachedir=opts["cachedir"])


def test_a_driver_that_is_loaded_many_times_has_one_handle(extmods, opts):
    before = len(os.listdir("/proc/self/fd"))
    for i in range(50):
        modules = Loader(extmods, opts)
        modules["kist.store"]("bank", f"k{i}", i, opts["cachedir"])
        assert len(modules["kist.list"]("bank", opts["cachedir"])) == i + 1
    assert len(handles._banks) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 10


def test_a_driver_works_without_salt_and_raises_its_own_error(extmods):
    code = """
        import sys
        sys.modules["salt"] = sys.modules["salt.exceptions"] = None  # not installed
        from kist.salt import cache
        from kist.salt.errors import SaltCacheError
        assert cache.SaltCacheError is SaltCacheError
        cache.__opts__ = {"cachedir": sys.argv[1]}
        cache.store("bank", "key", {"a": 1}, **cache.init_kwargs({}))
        assert cache.fetch("bank", "key", sys.argv[1]) == {"a": 1}
        try:
            cache.store("bank", "key", object(), sys.argv[1])
        except SaltCacheError:
            print("raised")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), extmods + ".cache"],
                          capture_output=True, text=True)
    assert done.stdout == "raised\n", done.stderr


def test_a_driver_whose_packages_are_missing_says_which(extmods):
    code = """
        import importlib.util, sys
        sys.modules["msgpack"] = None
        spec = importlib.util.spec_from_file_location("loaded", sys.argv[1] + "/kist.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        print(module.__virtual__())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), extmods],
                          capture_output=True, text=True)
    assert done.stdout.startswith("(False, ") and "msgpack" in done.stdout, done.stderr


def test_a_driver_without_the_package_says_what_is_missing(extmods):
    """The driver's own directory is in sys.path while it is loaded, and it is called kist."""
    code = """
        import importlib.util, sys, types
        salt, exceptions = types.ModuleType("salt"), types.ModuleType("salt.exceptions")
        exceptions.SaltCacheError = type("SaltCacheError", (Exception,), {})
        sys.modules.update({"salt": salt, "salt.exceptions": exceptions})
        sys.modules["msgpack"] = types.ModuleType("msgpack")
        sys.path.append(sys.argv[1])
        spec = importlib.util.spec_from_file_location("loaded", sys.argv[1] + "/kist.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        print(module.__virtual__())
    """
    done = subprocess.run([sys.executable, "-I", "-S", "-c", textwrap.dedent(code), extmods],
                          capture_output=True, text=True)
    assert done.stdout.startswith("(False, ") and "packages kist and msgpack" in done.stdout, \
        done.stderr


# ---- Salt's own loader ---------------------------------------------------


@pytest.fixture
def salt_opts(folder, extmods):
    config = pytest.importorskip("salt.config", reason="Salt is not installed")
    opts = config.DEFAULT_MASTER_OPTS.copy()
    opts.update(cachedir=os.path.join(folder, "cache"), extension_modules=os.path.dirname(extmods),
                cache="kist", kist_durability="none")
    yield opts
    handles._banks.clear()


def test_salts_own_loader_loads_the_driver(salt_opts):
    import salt.cache

    cache = salt.cache.Cache(salt_opts)
    cache.store("minions/web01", "data", {"id": "web01", 5: b"\xff"})
    assert cache.fetch("minions/web01", "data") == {"id": "web01", 5: b"\xff"}
    assert cache.list("minions/web01") == ["data"] and cache.list("minions") == []
    assert cache.list_all("minions/web01", include_data=True) == {
        "data": {"id": "web01", 5: b"\xff"}}
    assert abs(cache.updated("minions/web01", "data") - time.time()) < 60
    assert cache.contains("minions/web01", "data") and cache.contains("minions")
    assert not cache.contains("minions/web02")
    with pytest.raises(salt.exceptions.SaltCacheError):
        cache.store("../out", "key", 1)
    with pytest.raises(salt.exceptions.SaltCacheError):
        cache.store("bank", "key", object())
    assert cache.flush("minions/web01", "data") is True
    assert cache.fetch("minions/web01", "data") == {}
    assert cache.flush("minions/web01") is True
    assert kist.open(salt_opts["cachedir"], create=False).banks() == []


def test_salts_own_cache_expires_and_cleans(salt_opts):
    import salt.cache

    cache = salt.cache.Cache(salt_opts)
    cache.store("tokens", "good", {"a": 1}, expires=3600)
    cache.store("tokens", "old", {"a": 1}, expires=-3600)
    cache.store("tokens", "ever", {"a": 1})
    assert cache.fetch("tokens", "good") == {"a": 1} and cache.fetch("tokens", "old") == {}
    cache.clean_expired("tokens")
    assert sorted(cache.list("tokens")) == ["ever", "good"]


def test_salts_own_cache_calls_a_function_for_what_is_missing(salt_opts):
    import salt.cache

    cache = salt.cache.factory(dict(salt_opts, memcache_expire_seconds=1))
    assert cache.cache("bank", "key", lambda **_: {"made": 1}) == {"made": 1}
    assert salt.cache.Cache(salt_opts).fetch("bank", "key") == {"made": 1}


def test_migrate_of_what_salt_itself_wrote(salt_opts, folder):
    import salt.cache

    values = {"a": {"x": 1, "b": b"\xff\x00"}, "b/c": ["ü"], "d": "text"}
    for driver in ("localfs", "mmap_cache"):
        opts = dict(salt_opts, cachedir=os.path.join(folder, driver), mmap_cache_size=64)
        cache = salt.cache.Cache(opts, driver=driver)
        if driver == "mmap_cache" and "mmap_cache.store" not in cache.modules:
            pytest.skip("this Salt has no mmap_cache")
        for key, value in values.items():
            if driver == "mmap_cache" or "/" not in key:
                cache.store("minions/web01", key, value)
        cache.store("minions/web01", "gone", 1)
        cache.flush("minions/web01", "gone")
        target = os.path.join(folder, driver + ".kist")
        outcome = migrate(opts["cachedir"], target)
        assert not outcome.damaged
        ours = salt.cache.Cache(dict(salt_opts, cachedir=target))
        for key in cache.list("minions/web01"):
            assert ours.fetch("minions/web01", key) == values[key]
        assert sorted(ours.list("minions/web01")) == sorted(cache.list("minions/web01"))
