"""docs/salt.md: every block of it is run, in order, in one folder."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("msgpack")

PAPER = Path(__file__).resolve().parents[3] / "docs" / "salt.md"


def blocks():
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAPER.read_text(), re.M | re.S)


def sessions(block):
    """[(command, what it prints)]"""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif line.startswith("> "):
            found[-1][0] += "\n" + line[2:]
        else:
            found[-1][1] += line + "\n"
    return found


@pytest.mark.skipif(not PAPER.exists(), reason="the package was taken out of its repository")
def test_every_block_of_the_paper_runs(folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command):
        done = subprocess.run(command, cwd=folder, env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"{command}:\n{done.stdout}"
        return done.stdout

    ran = {"sh": 0, "python": 0, "yaml": 0}
    for language, block in blocks():
        ran[language] += 1
        if language == "python":
            run(sys.executable, "-c", block)
        elif language == "sh":
            for command, printed in sessions(block):
                assert run("sh", "-c", command) == printed, command
    assert ran == {"sh": 2, "python": 4, "yaml": 1}


@pytest.mark.skipif(not PAPER.exists(), reason="the package was taken out of its repository")
def test_the_paper_names_every_option_of_the_driver():
    from kist.salt import cache

    options = set(re.findall(r'__opts__\.get\("(\w+)"\)', Path(cache.__file__).read_text()))
    named = set(re.findall(r"`(\w+)`", PAPER.read_text()))
    assert options - {"cachedir"} <= named and len(options) == 5
