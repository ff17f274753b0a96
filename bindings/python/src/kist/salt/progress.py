"""A bar for long work, on a terminal only."""

import shutil
import sys
import time


class Bar:
    """Call it with (done, all, what); `end()` takes the bar away.

    It writes to `file` (default: standard error) where that is a terminal, and
    nowhere else; ten times a second at most.
    """

    INTERVAL = 0.1

    def __init__(self, file=None, clock=time.monotonic):
        self.file = file if file is not None else sys.stderr
        self.clock = clock
        self.alive = self.file.isatty()
        self.next = clock()
        self.shown = 0

    def __call__(self, done, every, what):
        if not self.alive or (self.clock() < self.next and done != every):
            return
        self.next = self.clock() + self.INTERVAL
        columns = shutil.get_terminal_size().columns
        tail = f" {done:,} of {every:,}  "
        width = max(columns // 3, 10)
        filled = width * done // every if every else width
        line = "[" + "#" * filled + "." * (width - filled) + "]" + tail
        line = (line + _printable(what))[: columns - 1]
        self.file.write("\r" + line.ljust(self.shown))
        self.file.flush()
        self.shown = len(line)

    def end(self):
        if self.shown:
            self.file.write("\r" + " " * self.shown + "\r")
            self.file.flush()
            self.shown = 0


def _printable(text):
    return "".join(c if c.isprintable() else "?" for c in text)
