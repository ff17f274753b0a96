"""What kist is measured beside. Each stores bytes under keys (str), by the means that its
users have: one call, or one transaction, an operation."""
import os
import tempfile

import diskcache
import kist
import lmdb
import msgpack


class Kist:
    """A bank, durability none; or another one."""

    def __init__(self, folder, durability="none"):
        self.store_ = kist.open(folder)
        self.bank = self.store_.bank("bank", durability=durability)

    def store(self, keys, value):
        bank = self.bank
        for key in keys:
            bank[key] = value

    def fetch(self, keys):
        bank = self.bank
        for key in keys:
            bank[key]

    def updated(self, keys):
        bank = self.bank
        for key in keys:
            bank.meta(key).mtime

    def list(self):
        return list(self.bank)

    def tidy(self):
        """Give back dead records, which the others overwrite."""
        self.bank.compact()

    def close(self):
        self.store_.close()


class Files:
    """A file for each key, as Salt's localfs cache writes and reads it: msgpack into a
    temporary file, which is renamed."""

    def __init__(self, folder):
        self.folder = folder
        os.mkdir(folder)

    def store(self, keys, value):
        for key in keys:
            path = os.path.join(self.folder, f"{key}.p")
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            os.close(handle)
            with open(temporary, "w+b") as file:
                file.write(msgpack.packb(value, use_bin_type=True))
            os.rename(temporary, path)

    def fetch(self, keys):
        for key in keys:
            with open(os.path.join(self.folder, f"{key}.p"), "rb") as file:
                msgpack.unpackb(file.read(), raw=False)

    def updated(self, keys):
        for key in keys:
            int(os.path.getmtime(os.path.join(self.folder, f"{key}.p")))

    def list(self):
        return [name[:-2] for name in os.listdir(self.folder) if name.endswith(".p")]

    def tidy(self):
        pass

    def close(self):
        pass


class Lmdb:
    """py-lmdb, not synced, into a writable map: a transaction for each call."""

    def __init__(self, folder, **options):
        options = {"sync": False, "metasync": False, "writemap": True, **options}
        self.env = lmdb.open(folder, map_size=1 << 32, **options)

    def store(self, keys, value):
        begin = self.env.begin
        for key in keys:
            with begin(write=True) as transaction:
                transaction.put(key.encode(), value)

    def fetch(self, keys):
        begin = self.env.begin
        for key in keys:
            with begin() as transaction:
                transaction.get(key.encode())

    def list(self):
        with self.env.begin() as transaction:
            return list(transaction.cursor().iternext(values=False))

    def tidy(self):
        pass

    def close(self):
        self.env.close()


class Diskcache:
    """diskcache.Cache with its defaults, but no limit of size."""

    def __init__(self, folder):
        self.cache = diskcache.Cache(folder, eviction_policy="none")

    def store(self, keys, value):
        cache = self.cache
        for key in keys:
            cache[key] = value

    def fetch(self, keys):
        cache = self.cache
        for key in keys:
            cache[key]

    def list(self):
        return list(self.cache.iterkeys())

    def tidy(self):
        pass

    def close(self):
        self.cache.close()


class Dict:
    """A plain dict."""

    def __init__(self, _):
        self.dict = {}

    def store(self, keys, value):
        d = self.dict
        for key in keys:
            d[key] = value

    def fetch(self, keys):
        d = self.dict
        for key in keys:
            d[key]

    def list(self):
        return list(self.dict)

    def tidy(self):
        pass

    def close(self):
        pass


ENGINES = {"kist": Kist, "py-lmdb": Lmdb, "dict": Dict, "file per key": Files,
           "diskcache": Diskcache}
# These do only a part of the work: a twentieth, a fourth.
PARTS = {"diskcache": 20, "file per key": 4}
