"""kist keeps cached data and program state in memory-mapped files: maps from keys
to values that every process of a host shares, and that are still there after
a restart.

    import kist

    with kist.open("cache.kist") as store:
        pages = store.bank("pages")
        pages["front"] = b"<h1>hello</h1>"
        pages["front"]                      # b'<h1>hello</h1>'
"""
from . import _core, _errors
from ._bank import Bank, Batch, Snapshot
from ._cached import cached
from ._codecs import CodecError
from ._core import Copied, LogEvent, Meta, Moment, Report, Stats
from ._errors import *  # noqa: F403
from ._store import Store, open

__version__ = _core.VERSION
__all__ = [
    "Bank",
    "Batch",
    "CodecError",
    "Copied",
    "LogEvent",
    "Meta",
    "Moment",
    "Report",
    "Snapshot",
    "Stats",
    "Store",
    "cached",
    "open",
    *_errors.__all__,
]
