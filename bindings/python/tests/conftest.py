"""What the tests share: a store of their own, that vanishes."""
import os
import tempfile

import kist
import pytest


@pytest.fixture
def folder():
    """An empty folder on a local file system."""
    base = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="kist-python.", dir=base) as path:
        yield path


@pytest.fixture
def path(folder):
    """Where a store may be made."""
    return os.path.join(folder, "store")


@pytest.fixture
def store(path):
    with kist.open(path) as opened:
        yield opened


@pytest.fixture
def bank(store):
    return store.bank("bank")
