#!/usr/bin/env python3
"""examples/event_loop.c adds up files of several lengths, right and not one
page at a time.

usage: event_loop_test.py PROGRAM
"""
import random
import re
import struct
import subprocess
import sys
import tempfile

program = sys.argv[1]
random.seed(1)
for length in (0, 7, 8, 4096, 4104, 50001, 2_000_000):
    data = random.randbytes(length)
    numbers = struct.unpack(f"<{length // 8}Q", data[:length // 8 * 8])
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        done = subprocess.run([program, file.name], capture_output=True, text=True, timeout=60)
    found = re.fullmatch(r"sum (\d+), (\d+) pages fetched, up to (\d+) at once\n", done.stdout)
    assert done.returncode == 0 and found, done
    total, fetched, at_once = map(int, found.groups())
    assert total == sum(numbers) % 2**64, length
    pages = -(-(length // 8 * 8) // 4096)
    assert pages <= fetched <= 2 * pages, (length, fetched)
    assert pages < 16 or at_once >= 4, at_once
print("event_loop: right sums, several pages at once")
