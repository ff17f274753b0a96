"""The command line: ``python -m kist.salt``, ``kist-salt``, and ``kist salt``.

    install-driver DIR     put the cache driver where a Salt master finds it
    migrate SOURCE [STORE] copy a localfs tree, or Salt's mmap files, into kist

Exit status, as of ``kist``: 0 done, 2 wrong usage, 3 the system said no,
4 there were entries that could not be copied.
"""

import argparse
import os
import sys

DONE, USAGE, SYSTEM, DAMAGE = 0, 2, 3, 4


def _safe(text):
    """Text with what came from file names in it, that a terminal won't obey."""
    return "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text)


def _say(text):
    print(_safe(text))


def _fail(text, status=SYSTEM):
    print("kist salt:", _safe(text), file=sys.stderr)
    return status


def _run_install(given):
    from .install import install_driver

    try:
        path = install_driver(given.directory)
    except OSError as why:
        return _fail(f"the driver can't be written to {given.directory}: {why.strerror}")
    _say(path)
    return DONE


def _run_migrate(given):
    import kist

    from .entries import Unreadable
    from .handles import BadName
    from .migration import migrate
    from .progress import Bar

    target = given.store if given.store is not None else given.source
    if given.store is None and os.path.isfile(given.source):
        return _fail(f"{given.source} is a file: say into which STORE it goes", USAGE)
    bar = Bar()
    try:
        outcome = migrate(
            given.source,
            target,
            names=given.bank,
            dry_run=given.dry_run,
            progress=None if given.quiet else bar,
            slot_size=given.slot_size,
            key_size=given.key_size,
            checksums=not given.no_checksums,
        )
    except BadName as why:
        bar.end()
        return _fail(str(why), USAGE)
    except Unreadable as why:
        bar.end()
        return _fail(str(why))
    except (kist.Error, OSError, ImportError) as why:
        bar.end()
        return _fail(f"{why}; what was copied stays, the same command goes on from here")
    bar.end()
    _report(outcome, given, target)
    return DAMAGE if outcome.damaged else DONE


def _report(outcome, given, target):
    for where, why in outcome.troubles:
        _fail(f"not copied: {where}: {why}")
    if given.quiet:
        return
    would = "would be copied" if given.dry_run else "copied"
    _say(
        f"{outcome.copied:,} entries {would} to {target} ({outcome.bytes:,} bytes, "
        f"{outcome.banks:,} banks), {outcome.there:,} were there, {outcome.damaged:,} damaged"
    )
    for where, why in outcome.left:
        _say(f"left out: {where}: {why}")
    if outcome.cut_keys:
        _say(
            f"{outcome.cut_keys:,} keys have {given.key_size} bytes, where Salt cuts off the rest: "
            "under their full name they will be missed"
        )


def _parser(program):
    parser = argparse.ArgumentParser(
        prog=program, description="kist as the cache of a Salt master."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    install = verbs.add_parser(
        "install-driver",
        help="put the cache driver where a master finds it",
        description="Write the cache driver as DIR/kist.py. The master then needs 'cache: kist'. "
        "To be repeated when kist was upgraded.",
    )
    install.add_argument(
        "directory",
        metavar="DIR",
        help="cache/ in the master's extension_modules, one of its cache_dirs, or _cache/ in a "
        "file root, to be synced",
    )
    install.set_defaults(run=_run_install)

    copy = verbs.add_parser(
        "migrate",
        help="copy an existing cache into kist",
        description="Copy every entry of a localfs tree (BANK/KEY.p), and of the files of Salt's "
        "mmap_cache, below SOURCE into the store STORE. Nothing of SOURCE is changed. A key that "
        "kist has is copied again only if Salt wrote it later; so the command may be repeated, "
        "and goes on where it was stopped.",
    )
    copy.add_argument("source", metavar="SOURCE",
                      help="the master's cachedir; or the index file of one MmapCache")
    copy.add_argument("store", metavar="STORE", nargs="?",
                      help="directory of the store; default: SOURCE itself")
    copy.add_argument("--bank", action="append", default=[], metavar="BANK",
                      help="only this bank and those below it; may be repeated")
    copy.add_argument("--dry-run", action="store_true", help="read and check all, write nothing")
    copy.add_argument("--quiet", action="store_true", help="print nothing but what went wrong")
    copy.add_argument("--slot-size", type=int, default=96, metavar="N",
                      help="the master's mmap_cache_slot_size (default 96)")
    copy.add_argument("--key-size", type=int, default=64, metavar="N",
                      help="the master's mmap_cache_key_size (default 64)")
    copy.add_argument("--no-checksums", action="store_true",
                      help="of mmap files that were written with verify_checksums off")
    copy.set_defaults(run=_run_migrate)
    return parser


def main(arguments=None, program="kist salt"):
    given = _parser(program).parse_args(arguments)
    try:
        return given.run(given)
    except KeyboardInterrupt:
        return _fail("stopped; the same command goes on from here")
