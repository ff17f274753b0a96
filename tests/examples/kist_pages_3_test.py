#!/usr/bin/env python3
"""man/kist_pages.3: names every function of <kist/pages.h> and no other, and
its example compiles and runs.

usage: kist_pages_3_test.py MAN_PAGE INCLUDE_FOLDER LIBRARY_FOLDER
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

page, include, library = map(Path, sys.argv[1:])
cc = os.environ.get("CC", "cc").split()
text = page.read_text()

source = subprocess.run([*cc, "-E", "-P", f"-I{include}", "-x", "c", "-"], text=True, check=True,
                        input="#include <kist/pages.h>\n", stdout=subprocess.PIPE).stdout
source = source[source.index("kist_device"):]
declared = set(re.findall(r"\b(kist_(?:device|pages|slice|writer)_\w+)\s*\(", source))
declared = {re.sub(r"_([gs]et)_[ui]\d+(_[nlb]e)?$", r"_\1_TYPE", name) for name in declared}
synopsis = text[text.index(".SH SYNOPSIS"):text.index(".SH DESCRIPTION")].replace('" TYPE "', "TYPE")
named = set(re.findall(r"\b(kist_(?:device|pages|slice|writer)_\w+)\(", synopsis))
assert named == declared, f"only in the page: {named - declared}, not there: {declared - named}"

example = text[text.index(".EX\n") + 4:text.index(".EE\n")].replace("\\e", "\\")
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "example.c").write_text(example)
    Path(folder, "disk.img").write_bytes(bytes(510) + b"\x55\xAA")
    subprocess.run([*cc, "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{include}", "-o", "example",
                    "example.c", f"-L{library}", f"-Wl,-rpath,{library}", "-lkist"],
                   cwd=folder, check=True)
    said = subprocess.run(["./example"], cwd=folder, check=True, text=True, capture_output=True)
assert said.stdout == "boot signature aa55\n", said
print(f"{len(declared)} functions in page and header; the example runs")
