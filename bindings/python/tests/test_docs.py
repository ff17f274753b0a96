"""Every example of the documents is run, in order."""
import doctest
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = ["docs/python.md", "docs/python-coming-from.md"]

pytestmark = pytest.mark.skipif(not (ROOT / PAGES[0]).exists(),
                                reason="the documents are in the repository only")


@pytest.mark.parametrize("page", PAGES)
def test_examples(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert blocks and all(block.startswith(">>> ") for block in blocks)
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    # what an example defines is found where pickle looks for it
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    test.globs = vars(main)
    assert sum(block.count(">>> ") for block in blocks) == len(test.examples)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test, out=said.append, clear_globs=False)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("page", ["bindings/python/README.md", "README.md"])
def test_the_readmes(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = (ROOT / page).read_text()
    block, = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
