"""The stubs say what there is."""
import ast
import inspect
from pathlib import Path

import kist
import kist.aio
import pytest
from kist import _core, _errors

FOLDER = Path(kist.__file__).parent


def types_in(name):
    """Class -> (names of its bases, names defined in it); functions under ''."""
    found = {"": ((), set())}
    for node in ast.parse((FOLDER / name).read_text()).body:
        if isinstance(node, ast.ClassDef):
            names = {n.name for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
            names |= {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
            found[node.name] = tuple(ast.unparse(base) for base in node.bases), names
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[""][1].add(node.name)
    return found


def test_the_package_says_that_it_is_typed():
    assert (FOLDER / "py.typed").exists()


def test_stub_of_the_extension():
    said = types_in("_core.pyi")
    classes = {name for name in vars(_core) if inspect.isclass(getattr(_core, name))}
    assert set(said) - {""} == classes
    for name in ("Store", "Bank", "Batch"):
        real = {n for n, v in vars(getattr(_core, name)).items()
                if not n.startswith("__") or n in said[name][1]}
        assert said[name][1] == real, name
    for name in ("Meta", "LogEvent", "Stats", "Report", "Copied", "Moment"):
        kind = getattr(_core, name)
        fields = [n for n, v in vars(kind).items() if type(v).__name__ == "member_descriptor"]
        assert said[name][1] == set(fields), name
        assert kind.__doc__ and all(getattr(kind, field).__doc__ for field in fields)
    assert said[""][1] == {n for n, v in vars(_core).items() if inspect.isbuiltin(v)}


def test_stub_of_the_errors():
    said = types_in("_errors.pyi")
    for name in _errors.__all__:
        bases = tuple(base.__name__ for base in getattr(_errors, name).__bases__)
        assert said.pop(name)[0] == bases, name
        assert f'    "{name}",\n' in (FOLDER / "_errors.pyi").read_text()
    assert set(said) == {""}


def test_stub_of_aio():
    said = types_in("aio.pyi")
    for name in ("Store", "Bank"):
        real = {n for n, v in vars(getattr(kist.aio, name)).items() if not n.startswith("_")}
        assert {n for n in said[name][1] if not n.startswith("_")} - {"blocking"} == real, name


@pytest.mark.parametrize("kind", [kist.Bank, kist.Store, kist.Snapshot, kist.Batch,
                                  kist.aio.Bank, kist.aio.Store])
def test_all_that_is_public_is_documented(kind):
    assert kind.__doc__
    for name in dir(kind):
        if not name.startswith("_"):
            assert getattr(kind, name).__doc__, name


def test_signatures_can_be_asked_for():
    assert str(inspect.signature(kist.Bank.put)) == \
        "(self, key, value, /, *, if_absent=False, if_seq=None)"
    for name in ("get", "get_view", "get_many", "meta", "put", "discard", "setdefault", "clear",
                 "replace", "sync", "stats", "fragmentation", "compact", "verify", "close"):
        inspect.signature(getattr(kist.Bank, name))
