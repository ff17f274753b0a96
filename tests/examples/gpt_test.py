#!/usr/bin/env python3
"""examples/gpt.c on disk images: with blocks of 512 and of 4,096 bytes, whole
and damaged, and with no table at all.

usage: gpt_test.py PROGRAM
"""
import struct
import subprocess
import sys
import tempfile
import uuid
import zlib
from pathlib import Path

program = sys.argv[1]
LINUX = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
EFI = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
PARTITIONS = [(EFI, 40, 99, "EFI system"), (LINUX, 100, 900, "Würzel ✓"), (LINUX, 1000, 1000, "")]


def header(block, blocks, here, other, entries_at, entries):
    fields = [b"EFI PART", 0x10000, 92, 0, 0, here, other, 34, blocks - 34,
              uuid.uuid4().bytes_le, entries_at, 128, 128, zlib.crc32(entries)]
    pack = lambda: struct.pack("<8sIIIIQQQQ16sQIII", *fields)
    fields[3] = zlib.crc32(pack())
    return pack().ljust(block, b"\0")


def image(block):
    blocks = 2048
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", kind.bytes_le, uuid.uuid4().bytes_le, first, last, 0,
                    name.encode("utf-16-le"))
        for kind, first, last, name in PARTITIONS).ljust(128 * 128, b"\0")
    disk = bytearray(block * blocks)
    last = blocks - 1
    tail = last - len(entries) // block
    disk[block:2 * block] = header(block, blocks, 1, last, 2, entries)
    disk[2 * block:2 * block + len(entries)] = entries
    disk[tail * block:tail * block + len(entries)] = entries
    disk[last * block:] = header(block, blocks, last, 1, tail, entries)
    return disk


def run(disk, status):
    with tempfile.NamedTemporaryFile() as file:
        file.write(disk)
        file.flush()
        done = subprocess.run([program, file.name], capture_output=True, text=True)
    assert done.returncode == status, (done.returncode, status, done.stdout, done.stderr)
    return done.stdout + done.stderr


def expect(text, block):
    lines = [line for line in text.splitlines() if "from block" in line]
    assert len(lines) == 3, text
    for number, (line, (kind, first, last, name)) in enumerate(zip(lines, PARTITIONS), 1):
        size = (last - first + 1) * block // 1024
        assert line.split() == [str(number), "from", "block", str(first), "to", f"{last},",
                                str(size), "KiB", str(kind).upper(), *name.split()], line


for block in (512, 4096):
    disk = image(block)
    expect(run(disk, 0), block)

    disk[block + 40] ^= 1  # the first header
    said = run(disk, 0)
    assert "at the end" in said
    expect(said, block)

    disk[-block + 40] ^= 1  # and its copy
    assert "no valid" in run(disk, 1)

    disk = image(block)
    disk[2 * block + 200] ^= 1  # the list
    assert "damaged" in run(disk, 1)

assert "no valid" in run(bytes(100000), 1)
assert "no valid" in run(b"", 1)
assert "no valid" in run(b"x" * 1000, 1)
done = subprocess.run([program, "/nonexistent"], capture_output=True)
assert done.returncode == 2
if Path("/usr/sbin/sfdisk").exists():  # a table that another program made
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(8 << 20)
        made = subprocess.run(["/usr/sbin/sfdisk", "-q", file.name], text=True, capture_output=True,
                              input="label: gpt\n2048,1000,L,-\n4096,+,L,-\n")
        if made.returncode == 0:
            done = subprocess.run([program, file.name], capture_output=True, text=True)
            assert done.returncode == 0 and "from block 2048 to 3047, 500 KiB" in done.stdout, done
            assert str(LINUX).upper() in done.stdout
print("gpt: images of both block sizes, whole and damaged")
