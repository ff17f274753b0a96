"""kist for Salt: a cache driver, and the class beneath Salt's own.

    cache         the driver
    MmapCache     in the place of salt.utils.mmap_cache.MmapCache

Salt itself is not needed; msgpack is.
"""

from .mmap_cache import DEFAULT_MAX_SEGMENT_BYTES, MmapCache

__all__ = ["DEFAULT_MAX_SEGMENT_BYTES", "MmapCache"]
