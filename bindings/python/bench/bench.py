#!/usr/bin/env python3
"""How fast kist is from Python, and beside what: `make bench-python`.

usage: bench.py [--rounds N] [--entries N] [--rows WORD ...] [--folder DIR]
                [--touch MB] [--json FILE] [--strict]

Each file rows_*.py beside this one brings rows and goals; see README.md.
"""
import argparse
import importlib.util
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable


@dataclass
class Row:
    """One line of the table: columns that do the same work side by side.

    columns   name -> function(), which is timed
    per       how many operations a turn makes
    before    function(column), called before each turn, not timed
    parts     column -> 20 if it does only a twentieth of the work, because it is slow
    """
    name: str
    columns: dict
    per: int
    before: Callable = lambda column: None
    parts: dict = field(default_factory=dict)
    times: dict = field(default_factory=dict)  # column -> ns an operation, one a round

    def median(self, column):
        return statistics.median(self.times[column])


@dataclass
class Goal:
    """A ratio that is printed beside what it should be."""
    what: str
    value: float
    bound: float
    at_least: bool = False  # else: at most

    @property
    def reached(self):
        return self.value >= self.bound if self.at_least else self.value <= self.bound


class Bench:
    """What rows are given: a folder, a number of entries, and random numbers."""

    def __init__(self, options, folder):
        self.folder = Path(folder)
        self.entries, self.rounds = options.entries, options.rounds
        self.random = random.Random(1)

    def shuffled(self, things):
        things = list(things)
        self.random.shuffle(things)
        return things

    def touch_memory(self, size):
        """Make and remove a file of `size` bytes. Where the host of a virtual machine hands
        out memory at the first touch, who appends is charged for that as long as it lasts."""
        path = self.folder / "touch"
        with open(path, "wb") as file:
            block = b"\xff" * (1 << 20)
            for _ in range(size // len(block)):
                file.write(block)
        path.unlink()

    def run(self, row):
        order = list(row.columns)
        for n in range(self.rounds + 1):  # the first round is not counted
            for column in order:
                row.before(column)
                began = time.perf_counter_ns()
                row.columns[column]()
                took = (time.perf_counter_ns() - began) * row.parts.get(column, 1)
                if n > 0:
                    row.times.setdefault(column, []).append(took / row.per)
            order = order[1:] + order[:1]


def modules():
    for path in sorted(Path(__file__).parent.glob("rows_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def micro(ns):
    return f"{ns / 1000:.2f}" if ns < 100_000 else f"{ns / 1000:,.0f}"


def table(rows):
    columns = list(dict.fromkeys(column for row in rows for column in row.times))
    wide = max(len(row.name) for row in rows)
    print(f"\n{'microseconds an operation':{wide}} " + " ".join(f"{c:>13}" for c in columns))
    for row in rows:
        cells = (micro(row.median(c)) if c in row.times else "" for c in columns)
        print(f"{row.name:{wide}} " + " ".join(f"{cell:>13}" for cell in cells))


def report(goals):
    missed = 0
    print()
    for goal in goals:
        missed += not goal.reached
        word = "at least" if goal.at_least else "at most"
        print(f"{goal.what:66} {goal.value:7.2f}   goal: {word} {goal.bound:g}"
              f"{'' if goal.reached else '   MISSED'}")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rows", nargs="+", default=[], help="rows whose names have one of these words")
    parser.add_argument("--folder", default=os.environ.get("TMPDIR", "/var/tmp"))
    parser.add_argument("--touch", type=int, default=2000, metavar="MB",
                        help="memory to touch before the first row")
    parser.add_argument("--json", help="the times of every round, into this file")
    parser.add_argument("--strict", action="store_true", help="a missed goal is exit status 1")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="kist-bench-python.", dir=options.folder)
    try:
        bench = Bench(options, folder)
        rows, goals = [], []
        bench.touch_memory(options.touch << 20)
        for module in modules():
            done = {}
            for row in module.rows(bench):  # each is run when it is made: it may be cleared up
                if not options.rows or any(word in row.name for word in options.rows):
                    bench.run(row)
                    done[row.name] = row
            rows += done.values()
            goals += [goal for goal in module.goals(done) if goal]
        if not rows:
            sys.exit("no row has such a name")
        table(rows)
        missed = report(goals)
        if options.json:
            Path(options.json).write_text(json.dumps({row.name: row.times for row in rows}, indent=1))
        return 1 if missed and options.strict else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # rows_*.py say `import bench` and mean this module
    sys.modules["bench"] = sys.modules["__main__"]
    sys.exit(main())
