#!/usr/bin/env python3
"""Where the sources of libkist are, for meson.build.

usage: library.py version | include | sources | license

They stand beside this file in `libkist/` (in an sdist), or two folders above
(in the repository). The library's version is the package's, too.
"""
import re
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
root = next((folder for folder in (here / "libkist", here.parent.parent)
             if (folder / "include" / "kist" / "kist.h").is_file()), None)
if root is None:
    sys.exit("library.py: no sources of libkist beside the package or two folders above; "
             "build from the repository or from an sdist")

# All of the library but what is apart from the store: the programs, and the
# page cache.
APART = {"cli", "pages"}


def sources():
    return sorted(path for path in root.glob("src/*/*.c") if path.parent.name not in APART)


def version():
    header = (root / "include" / "kist" / "kist.h").read_text()
    return re.search(r'#define KIST_VERSION_STRING "(.*)"', header)[1]


answers = {
    "version": lambda: [version()],
    "include": lambda: [root / "include", root / "src"],
    "sources": sources,
    "license": lambda: [next(folder / "LICENSE" for folder in (here, root)
                             if (folder / "LICENSE").is_file())],
}
if len(sys.argv) != 2 or sys.argv[1] not in answers:
    sys.exit(__doc__)
for line in answers[sys.argv[1]]():
    print(line)
