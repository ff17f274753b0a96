"""What golden_test and make share: running kist on a store, and what it says."""
import base64
import json
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def kist(*arguments, stdin=b""):
    """Exit status and standard output."""
    done = subprocess.run([os.environ["KIST"], *map(str, arguments)], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120)
    return done.returncode, done.stdout


def objects(*arguments):
    status, out = kist(*arguments)
    return status, [json.loads(line) for line in out.decode().splitlines()]


def field(entry, name):
    text = entry[name]
    return base64.b64decode(text) if entry.get(f"{name}_encoding") else text.encode()


def short(data):
    """Bytes for a .json file: as text, or in hexadecimal; long ones by both ends."""
    text = data.decode("ascii") if data.isascii() and data.decode("ascii").isprintable() else "0x" + data.hex()
    return text if len(text) <= 120 else f"{text[:40]}...{text[-40:]} ({len(data)} bytes, sum {sum(data)})"


def content(store, bank):
    """Exit status and {key: [value, mtime_ns, sequence]}, without what is damaged."""
    status, entries = objects("dump", store, bank)
    _, known = objects("ls", store, bank, "--json")
    sequence = {field(e, "key"): e["sequence"] for e in known}
    found = {short(field(e, "key")): [short(field(e, "value")), e["mtime_ns"], sequence[field(e, "key")]]
             for e in entries}
    return status, dict(sorted(found.items()))


def report(*arguments):
    status, said = objects(*arguments, "--json")
    kept = {name: said[0][name] for name in ("whole", "entries", "damaged", "unreachable") if name in said[0]} if said else {}
    return {"status": status, **kept}


def examine(fresh):
    """All that a .json file says of a store; fresh() gives a path to a new copy of it."""
    store = fresh()
    status, out = kist("ls", store, "--null")
    facts = {"ls": status, "banks": {}}
    for bank in sorted(name.decode() for name in out.split(b"\0") if name):
        one = {}
        one["open"], one["entries"] = content(store, bank)
        one["verify"] = report("verify", store, bank)
        mended = fresh()
        one["repair"] = report("repair", mended, bank)
        one["open after repair"], after = content(mended, bank)
        one["same after repair"] = after == one["entries"]
        one["verify after repair"] = report("verify", mended, bank)
        facts["banks"][bank] = one
    return facts
