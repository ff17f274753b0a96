"""
Cache data in kist: memory-mapped files, shared by all processes of the master.

To be put where the master finds its cache drivers with
``kist salt install-driver DIR``; then the master's configuration needs one line:

.. code-block:: yaml

    cache: kist

Options, none of them needed:

.. code-block:: yaml

    # always: each write is on the disk when it returns (the default);
    # interval: within a second; none: when the kernel likes. Killing a process
    # loses nothing with any of them.
    kist_durability: always

    # As of Salt's mmap_cache. The size is a hint for a bank's first size; the
    # sizes of slots and keys are no limits any more, and mean nothing.
    mmap_cache_size: 1000000
    mmap_cache_slot_size: 96
    mmap_cache_key_size: 64
    mmap_cache_max_segment_bytes: 1073741824
    mmap_cache_verify_checksums: True

The cachedir is a kist store and each bank a directory in it: all commands of
``kist`` work on them. Without Salt, ``__opts__`` of this module may be set, and
its functions called.
"""

# This file is copied to where the master has its drivers, and loaded from there
# under a name of the loader's, once or many times in a process. What is open is
# kept by kist.salt.handles, in one place; here is only the way to it.

import functools
import logging
import time

try:
    import msgpack
    from kist.salt import handles as _handles

    _MISSING = None
except ImportError as _why:
    _MISSING = f"the cache driver kist needs the Python packages kist and msgpack: {_why}"

try:
    from salt.exceptions import SaltCacheError
except ImportError:
    from kist.salt.errors import SaltCacheError

log = logging.getLogger(__name__)

__virtualname__ = "kist"
__func_alias__ = {"list_": "list", "flush_": "flush"}

if "__opts__" not in globals():
    __opts__ = {}

# (cachedir, bank), as they were given, to the handle. It may be emptied.
_caches = {}


def __virtual__():
    if _MISSING:
        return False, _MISSING
    return __virtualname__


def _cachedir(kwargs):
    found = kwargs.get("cachedir") if kwargs else None
    if found is None:
        found = __opts__.get("cachedir")
    if found is None:
        raise SaltCacheError("there is no cachedir: neither in the arguments nor in __opts__")
    return found


def init_kwargs(kwargs):
    """
    What the functions of this driver are to be called with.
    """
    return {"cachedir": _cachedir(kwargs)}


def get_storage_id(kwargs):
    """
    A tuple that differs between caches that hold different things.
    """
    return ("kist", _cachedir(kwargs))


def _settings():
    try:
        return _handles.settings(
            durability=__opts__.get("kist_durability"),
            size=__opts__.get("mmap_cache_size"),
            max_segment_bytes=__opts__.get("mmap_cache_max_segment_bytes"),
            verify_checksums=__opts__.get("mmap_cache_verify_checksums"),
        )
    except (TypeError, ValueError) as why:
        raise SaltCacheError(f"the master's configuration: {why}") from why


def _again(why, call, bank, cachedir, create, doing, key=None):
    """
    What to do when a call did not work out: open the bank and call once more,
    if it was not open or somebody dropped it; else raise what Salt expects.

    Returns what `call` returns for the handle, or None if there is no such bank.
    """
    for _ in _handles.pauses():
        # Not opened yet; dropped by somebody, or while it was made; a key that
        # needs `key_bytes`.
        if not isinstance(
            why, (KeyError, FileNotFoundError, UnicodeEncodeError, *_handles.GONE)
        ):
            break
        dead = _caches.pop((cachedir, bank), None) if isinstance(why, _handles.GONE) else None
        try:
            name = _handles.bank_name(bank)
            if not name and not create:
                return None
            handle = _handles.open_bank(cachedir, name, create, dead, **_settings())
            if handle is None:
                return None
            _caches[cachedir, bank] = handle
            return call(handle)
        except SaltCacheError:
            raise
        except Exception as new:  # pylint: disable=broad-except
            why = new
    of = f" key={key!r}" if key is not None else ""
    raise SaltCacheError(f"Failed to {doing} bank={bank!r}{of}: {why}") from why


def store(bank, key, data, cachedir, expires=None, **kwargs):
    """
    Store data under a key, as msgpack. With ``expires``, a number of seconds,
    it is stored as ``salt.cache`` wraps what shall expire.
    """
    if expires:
        data = {"data": data, "_expires": int(time.time()) + expires}
    try:
        raw = msgpack.packb(data, use_bin_type=True)
    except Exception as why:  # pylint: disable=broad-except
        raise SaltCacheError(
            f"Failed to serialise the data for bank={bank!r} key={key!r}: {why}"
        ) from why
    try:
        _caches[cachedir, bank][key] = raw
    except Exception as why:  # pylint: disable=broad-except
        _again(
            why,
            lambda handle: handle.put(_handles.key_bytes(key), raw),
            bank,
            cachedir,
            True,
            "write to",
            key,
        )


def fetch(bank, key, cachedir, **kwargs):
    """
    The value of a key; ``{}`` when there is none.
    """
    try:
        raw = _caches[cachedir, bank].get(key)
    except Exception as why:  # pylint: disable=broad-except
        raw = _again(
            why,
            lambda handle: handle.get(_handles.key_bytes(key)),
            bank,
            cachedir,
            False,
            "read from",
            key,
        )
    if not raw:
        return {}
    try:
        return msgpack.unpackb(raw, raw=False, strict_map_key=False)
    except Exception as why:  # pylint: disable=broad-except
        raise SaltCacheError(
            f"Failed to deserialise the data of bank={bank!r} key={key!r}: {why}"
        ) from why


def updated(bank, key, cachedir, **kwargs):
    """
    When a key was written last, in whole seconds since 1970; None if there is
    none.
    """
    try:
        meta = _caches[cachedir, bank].meta(key)
    except Exception as why:  # pylint: disable=broad-except
        meta = _again(
            why,
            lambda handle: handle.meta(_handles.key_bytes(key)),
            bank,
            cachedir,
            False,
            "read from",
            key,
        )
    return None if meta is None else meta.mtime_ns // 1_000_000_000


def flush_(bank, key=None, cachedir=None, **kwargs):
    """
    Remove a key, or with no key the bank with all its keys, but no bank below
    it. True if there was something to remove.
    """
    if cachedir is None:
        cachedir = _cachedir(None)
    if key is None:
        _caches.pop((cachedir, bank), None)
        try:
            name = _handles.bank_name(bank)
            return bool(name) and _handles.drop_bank(cachedir, name)
        except Exception as why:  # pylint: disable=broad-except
            raise SaltCacheError(f"Failed to remove bank={bank!r}: {why}") from why
    try:
        return _caches[cachedir, bank].discard(key)
    except Exception as why:  # pylint: disable=broad-except
        return bool(
            _again(
                why,
                lambda handle: handle.discard(_handles.key_bytes(key)),
                bank,
                cachedir,
                False,
                "remove from",
                key,
            )
        )


def list_(bank, cachedir, **kwargs):
    """
    A list of the keys of a bank. Banks below it are not listed.
    """
    try:
        return _handles.keys(_caches[cachedir, bank])
    except Exception as why:  # pylint: disable=broad-except
        return _again(why, _handles.keys, bank, cachedir, False, "list") or []


def list_all(bank, cachedir, include_data=False, **kwargs):
    """
    ``{key: {}}`` for each key of a bank, or ``{key: value}`` with
    ``include_data``. What can't be decoded is logged and left out.
    """
    if not include_data:
        return {key: {} for key in list_(bank, cachedir)}
    try:
        return _decoded(_caches[cachedir, bank], bank)
    except Exception as why:  # pylint: disable=broad-except
        call = functools.partial(_decoded, bank=bank)
        return _again(why, call, bank, cachedir, False, "list") or {}


def _decoded(handle, bank):
    found = {}
    for key, raw in _handles.items(handle):
        try:
            found[key] = msgpack.unpackb(raw, raw=False, strict_map_key=False) if raw else {}
        except Exception as why:  # pylint: disable=broad-except
            log.warning("bank=%r key=%r is left out, it can't be decoded: %s", bank, key, why)
    return found


def contains(bank, key, cachedir, **kwargs):
    """
    Whether a bank has a key; with None for the key, whether there is a
    directory for the bank.
    """
    try:
        if key is None:
            return _handles.directory_exists(cachedir, _handles.bank_name(bank))
        return key in _caches[cachedir, bank]
    except Exception as why:  # pylint: disable=broad-except
        return bool(
            _again(
                why,
                lambda handle: _handles.key_bytes(key) in handle,
                bank,
                cachedir,
                False,
                "read from",
                key,
            )
        )
