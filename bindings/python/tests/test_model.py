"""A bank against a dict: whatever is done to both, they are the same."""
import os
import shutil
import tempfile

import kist
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

KEYS = st.one_of(st.binary(max_size=3), st.text(max_size=2),
                 st.sampled_from([b"", "", b"k" * 300, "ключ", b"\0", b"\xff\xff"]))
VALUES = st.one_of(st.binary(max_size=8), st.integers(0, 70_000).map(lambda n: b"v" * n))


def as_bytes(key):
    return key.encode() if isinstance(key, str) else key


class BankIsADict(RuleBasedStateMachine):
    index = "hash"
    views = Bundle("views")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="kist-python.", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.model, self.moments = {}, []
        self.open()

    def open(self):
        self.store = kist.open(self.folder + "/store")
        self.bank = self.store.bank("bank", segment_bytes=1 << 16, index=self.index)

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(key=KEYS, value=VALUES)
    def set(self, key, value):
        self.bank[key] = value
        self.model[as_bytes(key)] = value

    @rule(key=KEYS)
    def delete(self, key):
        there = as_bytes(key) in self.model
        self.model.pop(as_bytes(key), None)
        try:
            del self.bank[key]
            assert there
        except KeyError as why:
            assert not there and why.args == (key,)

    @rule(key=KEYS)
    def discard(self, key):
        assert self.bank.discard(key) is (self.model.pop(as_bytes(key), None) is not None)

    @rule(key=KEYS)
    def read(self, key):
        expected = self.model.get(as_bytes(key))
        assert self.bank.get(key) == expected
        assert (key in self.bank) is (expected is not None)
        meta = self.bank.meta(key)
        assert (meta and meta.size) == (None if expected is None else len(expected))
        view = self.bank.get_view(key)
        assert (None if view is None else bytes(view)) == expected

    @rule(keys=st.lists(KEYS, max_size=20))
    def read_many(self, keys):
        assert self.bank.get_many(keys) == [self.model.get(as_bytes(key)) for key in keys]

    @rule(target=views, key=KEYS)
    def hold(self, key):
        return self.bank.get_view(key), self.model.get(as_bytes(key))

    @rule(held=consumes(views))
    def let_go(self, held):
        view, value = held
        assert value is None if view is None else view == value

    @rule(key=KEYS, value=VALUES)
    def put_if_absent(self, key, value):
        absent = as_bytes(key) not in self.model
        assert self.bank.put(key, value, if_absent=True) is absent
        self.model.setdefault(as_bytes(key), value)

    @rule(key=KEYS, value=VALUES, other=KEYS)
    def put_if_sequence(self, key, value, other):
        meta, others = self.bank.meta(key), self.bank.meta(other)
        if others and (not meta or others.sequence != meta.sequence):
            assert self.bank.put(key, value, if_seq=others.sequence) is False
        assert self.bank.put(key, value, if_seq=meta.sequence if meta else 0) is True
        self.model[as_bytes(key)] = value

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key, value):
        assert self.bank.setdefault(key, value) == self.model.setdefault(as_bytes(key), value)

    @rule(key=KEYS)
    def pop(self, key):
        assert self.bank.pop(key, None) == self.model.pop(as_bytes(key), None)

    @rule(items=st.dictionaries(KEYS, VALUES, max_size=5))
    def update(self, items):
        self.bank.update(items)
        self.model.update((as_bytes(key), value) for key, value in items.items())

    @rule(items=st.lists(st.tuples(KEYS, VALUES), max_size=5))
    def replace(self, items):
        self.bank.replace(items)
        self.model = {as_bytes(key): value for key, value in items}

    @rule()
    def clear(self):
        self.bank.clear()
        self.model.clear()

    @rule()
    def compact(self):
        self.bank.compact()
        assert self.moments or self.bank.stats().wasted_bytes == 0

    @rule()
    def reopen(self):
        self.store.close()
        self.moments.clear()
        self.open()

    @rule()
    def walk(self):
        assert dict(self.bank.items()) == self.model
        assert sorted(self.bank) == sorted(self.model)
        assert sorted(self.bank.values()) == sorted(self.model.values())
        assert self.bank == self.model

    @rule()
    def verify(self):
        report = self.bank.verify()
        assert report.damaged == report.unreachable == 0 and report.entries == len(self.model)

    @rule(changes=st.lists(st.tuples(KEYS, st.none() | VALUES), max_size=8), kept=st.booleans())
    def batch(self, changes, kept):
        after = dict(self.model)
        batch = self.bank.batch()
        for key, value in changes:
            if value is None:
                del batch[key]
                after.pop(as_bytes(key), None)
            else:
                batch[key] = value
                after[as_bytes(key)] = value
            assert batch.get(key) == value
        assert len(batch) == len({as_bytes(key) for key, _ in changes})
        assert len(self.bank) == len(self.model)
        if kept:
            batch.commit()
            self.model = after

    @rule()
    def take(self):
        self.moments.append((self.bank.snapshot(), dict(self.model)))

    @rule(number=st.integers(0, 9), key=KEYS)
    def look_back(self, number, key):
        if number < len(self.moments):
            snapshot, model = self.moments[number]
            assert snapshot == model and len(snapshot) == len(model)
            assert snapshot.get(key) == model.get(as_bytes(key))
            assert snapshot.moment().entries == len(model)

    @rule(number=st.integers(0, 9))
    def go_back(self, number):
        if number < len(self.moments):
            snapshot, model = self.moments[number]
            self.bank.revert(snapshot)
            self.model = dict(model)

    @invariant()
    def same_length(self):
        assert len(self.bank) == len(self.model)


class OrderedBankIsASortedDict(BankIsADict):
    index = "ordered"

    @rule(prefix=st.none() | KEYS, start=st.none() | KEYS, end=st.none() | KEYS,
          reverse=st.booleans(), limit=st.integers(0, 3))
    def scan(self, prefix, start, end, reverse, limit):
        low, high = (None if key is None else as_bytes(key) for key in (start, end))
        if low is not None and high is not None and high < low:
            return
        expected = sorted(((key, value) for key, value in self.model.items()
                           if key.startswith(as_bytes(prefix or b""))
                           and (low is None or key >= low) and (high is None or key < high)),
                          reverse=reverse)
        expected = expected[:limit] if limit else expected
        assert list(self.bank.scan(prefix=prefix, start=start, end=end, reverse=reverse,
                                   limit=limit)) == expected

    @rule()
    def walk_in_order(self):
        assert list(self.bank) == sorted(self.model)


SETTINGS = settings(
    max_examples=max(1, round(40 * float(os.environ.get("KIST_TEST_SCALE", "1")))),
    stateful_step_count=40, deadline=None, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck))
TestBankIsADict = BankIsADict.TestCase
TestBankIsADict.settings = SETTINGS
TestOrderedBank = OrderedBankIsASortedDict.TestCase
TestOrderedBank.settings = SETTINGS
