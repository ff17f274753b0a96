#!/usr/bin/env python3
"""examples/window_counts.c is killed 50 times at random moments, and in each step
of a checkpoint, and always writes what it would have written without: every event
counted once, every line once.

usage: window_counts_test.py PROGRAM
"""
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

KILLS = 50
MINUTE, LATENESS = 60, 90  # as in the program

program = sys.argv[1]
seed = int(os.environ.get("KIST_TEST_SEED", "1"))
random.seed(seed)


def events(number):
    """Times that grow, but for some that are late, or too late; few keys and many;
    keys that others begin with; now and then an hour without an event."""
    now = random.randrange(1, 10**9)
    for _ in range(number):
        now += random.choice((0, 0, 0, 1, 2)) + (3600 if random.random() < 0.0005 else 0)
        late = random.choice((0, 0, 0, 20, 80, 200)) if random.random() < 0.3 else 0
        key = random.choice(("a", "a b", "ab", "é", f"key-{random.randrange(2000)}"))
        yield max(now - late, 0), key.encode()


def expected(all_events):
    counts, finished, lines = defaultdict(Counter), 0, []

    def finish(end):
        for minute in sorted(m for m in counts if m < end):
            for key, count in sorted(counts.pop(minute).items()):
                lines.append(b"%d %s %d\n" % (minute, key, count))

    for moment, key in all_events:
        end = (moment - LATENESS) // MINUTE * MINUTE
        if moment > LATENESS and end > finished:
            finish(end)
            finished = end
        minute = moment // MINUTE * MINUTE
        if minute < finished:
            lines.append(b"late %d %s\n" % (moment, key))
        else:
            counts[minute][key] += 1
    finish(2**64)
    return b"".join(lines)


def start(folder, under=()):
    return subprocess.Popen([*under, program, folder / "operator", folder / "events", folder / "counts"],
                            stderr=subprocess.PIPE)


def said(process):
    """(exit status, where it began)"""
    text = process.communicate(timeout=100)[1].decode()
    words = text.split()
    return process.returncode, int(words[3]) if text.startswith("window_counts: from byte") else 0


def fill(folder, number):
    """New input; returns what is to come out."""
    subprocess.run(["rm", "-rf", folder / "operator", folder / "counts"], check=True)
    made = list(events(number))
    (folder / "events").write_bytes(b"".join(b"%d %s\n" % event for event in made))
    return expected(made)


def check_end(folder, right):
    status, begin = said(start(folder))
    assert status == 0, (status, seed)
    assert (folder / "counts").read_bytes() == right, f"other counts, in {folder}, seed {seed}"
    return begin


def can_trace():
    """Not everywhere may a process be traced."""
    return subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True).returncode == 0


def kill_at(folder, call, number):
    """At the n-th system call of a kind. False: there are fewer."""
    status, _ = said(start(folder, ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={call}",
                                    "-e", f"inject={call}:signal=KILL:when={number}"]))
    assert status in (0, -9, 137), status
    return status != 0


def refuses(folder, text, what):
    (folder / "events").write_bytes(text)
    done = subprocess.run([program, folder / "operator", folder / "events", folder / "counts"],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and what in done.stderr, done


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for number in (0, 1, 3000):
        right = fill(folder, number)
        assert check_end(folder, right) == 0
        check_end(folder, right)  # all was done: nothing comes twice

    # A line that has not all arrived waits; and then it is there, after the end.
    right = fill(folder, 10)
    with open(folder / "events", "ab") as file:
        file.write(b"5 hal")
        file.flush()
        check_end(folder, right)
        file.write(b"f\n")
    check_end(folder, right + b"late 5 half\n")

    right = fill(folder, 40000)
    begun = time.monotonic()
    check_end(folder, right)
    whole = time.monotonic() - begun
    right = fill(folder, 40000)
    kills = resumed = finished = 0
    while kills < KILLS:
        process = start(folder)
        time.sleep(random.random() * whole / 3)
        process.kill()
        status, begin = said(process)
        resumed += begin > 0
        kills += status == -9
        if status == 0:
            check_end(folder, right)
            right = fill(folder, 40000)
            finished += 1
        else:
            assert status == -9, status
    check_end(folder, right)

    aimed = 0
    for call in ("openat", "write", "fdatasync", "fsync", "renameat", "ftruncate", "lseek") * can_trace():
        for number in range(1, 9):
            right = fill(folder, 5000)
            hit = kill_at(folder, call, number)
            aimed += hit
            check_end(folder, right)
            if not hit:
                break
    assert aimed > 0 or not can_trace(), "no kill hit"

    # A checkpoint that was cut short, and one that is none, are refused.
    checkpoint = folder / "operator" / "checkpoint"
    whole = checkpoint.read_bytes()
    for bytes_ in (whole[:-1], whole[:len(whole) // 2], whole + b"x", b"x" * 5000, b""):
        checkpoint.write_bytes(bytes_)
        status, _ = said(start(folder))
        assert status == 2, (status, len(bytes_))
        assert (folder / "counts").read_bytes() == right
    checkpoint.write_bytes(whole)
    check_end(folder, right)

    fill(folder, 0)
    refuses(folder, b"12 a\nnonsense\n", "at byte 5")
    fill(folder, 0)
    refuses(folder, b"-5 a\n", "at byte 0")
    fill(folder, 0)
    refuses(folder, b"5 " + b"k" * 201 + b"\n", "at most 200")
    fill(folder, 0)
    refuses(folder, b"99999999999999999999 a\n", "at byte 0")
print(f"window_counts: {kills} kills, {resumed} times resumed from a checkpoint, "
      f"{finished + 1} inputs finished with the right counts; {aimed} kills at system calls")
