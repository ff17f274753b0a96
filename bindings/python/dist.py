#!/usr/bin/env python3
"""Run by `meson dist`: an sdist brings the library's sources along."""
import os
import shutil
from pathlib import Path

source = Path(os.environ["MESON_SOURCE_ROOT"])
there = Path(os.environ["MESON_DIST_ROOT"]) / "libkist"
root = next(folder for folder in (source / "libkist", source.parent.parent)
            if (folder / "include" / "kist" / "kist.h").is_file())

shutil.copytree(root / "include", there / "include", dirs_exist_ok=True)
for path in sorted(root.glob("src/*/*.[ch]")):
    if path.parent.name not in ("cli", "pages"):
        to = there / path.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
shutil.copy2(root / "LICENSE", there.parent / "LICENSE")
