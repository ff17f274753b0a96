"""kist for Salt: a cache driver, the class beneath Salt's own, and a way over.

    cache         the driver; `install_driver` puts it where a master finds it
    MmapCache     in the place of salt.utils.mmap_cache.MmapCache
    migrate       copies localfs trees, and files of Salt's mmap_cache

On the command line: ``python -m kist.salt``. Salt itself is not needed; msgpack
is, and xxhash to read Salt's mmap files.
"""

from .entries import Unreadable
from .install import install_driver
from .migration import Outcome, migrate
from .mmap_cache import DEFAULT_MAX_SEGMENT_BYTES, MmapCache

__all__ = [
    "DEFAULT_MAX_SEGMENT_BYTES",
    "MmapCache",
    "Outcome",
    "Unreadable",
    "install_driver",
    "migrate",
]
