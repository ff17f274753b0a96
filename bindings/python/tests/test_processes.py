"""Several processes, forks, threads."""
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback

import kist
import pytest


def in_a_child(work):
    """Run `work` in a forked child. What it raises is shown and fails the test."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


# ---- fork ----


def test_a_forked_child_goes_on_with_the_same_objects(store):
    bank = store.bank("a/b", deadline_ms=3000)
    bank["key"] = b"parent"

    def child():
        assert bank["key"] == b"parent"
        bank["key"] = b"child"
        assert dict(bank.items()) == {b"key": b"child"} and len(bank) == 1
        assert store.banks() == ["a/b"]
        store.bank("new")["x"] = b"y"
        store.close()

    in_a_child(child)
    assert bank["key"] == b"child" and store.bank("new")["x"] == b"y"


@pytest.mark.parametrize("call", [
    lambda b: b["key"], lambda b: b.get("key"), lambda b: b.__setitem__("key", b"2"),
    lambda b: b.__delitem__("key"), lambda b: "key" in b, lambda b: len(b), lambda b: list(b),
    lambda b: b.get_view("key"), lambda b: b.get_many(["key"]), lambda b: b.meta("key"),
    lambda b: b.sync(), lambda b: b.stats(), lambda b: b.compact(), lambda b: b.verify(),
    lambda b: b.put("key", b"3", if_absent=True), lambda b: b.replace({"a": b"b"}),
    lambda b: b.setdefault("key", b""), lambda b: b.discard("key"), lambda b: b.clear(),
    lambda b: b.fragmentation(), lambda b: b.close(), lambda b: b.store.close(),
    lambda b: b.store.banks(), lambda b: b.store.bank("x"), lambda b: b.store.drop("bank"),
    lambda b: b.store.repair("bank"), lambda b: b.store.copy(b.store.path + ".copy")])
def test_any_call_may_be_the_first_in_a_child(bank, call):
    bank["key"] = b"1"
    in_a_child(lambda: call(bank))


def test_the_first_call_of_a_child_does_not_make_a_store_that_is_gone(path):
    import shutil
    store = kist.open(path)
    bank = store.bank("bank")
    bank["key"] = b"1"

    def child():
        shutil.rmtree(path)
        with pytest.raises(kist.Error):
            bank["key"] = b"2"
        with pytest.raises(kist.Error):
            bank["key"]
        assert not os.path.exists(path)

    in_a_child(child)
    store.close()


def test_a_relative_path_is_that_of_the_parent(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with kist.open("relative") as store:
        bank = store.bank("bank")
        bank["key"] = b"1"
        os.mkdir("elsewhere")
        os.chdir("elsewhere")

        def child():
            assert bank["key"] == b"1"
            assert not os.path.exists("relative")

        in_a_child(child)
        os.chdir(folder)


def test_views_are_readable_in_a_child(bank):
    bank["key"] = b"value" * 1000
    view = bank.get_view("key")

    def child():
        assert bytes(view) == b"value" * 1000
        view.release()
        assert bank["key"] == b"value" * 1000
        bank.close()
        gc.collect()

    in_a_child(child)
    assert bytes(view) == b"value" * 1000


def test_a_walk_from_before_a_fork_says_so(bank):
    bank.update({f"{i}": b"" for i in range(1000)})
    walk = iter(bank)
    next(walk)

    def child():
        with pytest.raises(kist.ForkError, match="before fork"):
            list(walk)
        assert len(list(bank)) == 1000

    in_a_child(child)
    assert len(list(walk)) == 999


def test_children_of_children(bank):
    def grandchild():
        bank["grandchild"] = b"1"
        in_a_child(lambda: bank.__setitem__("third", b"1"))
        assert bank["third"] == b"1"

    def child():
        bank["child"] = b"1"
        in_a_child(grandchild)
        assert bank["third"] == b"1"

    in_a_child(child)
    assert sorted(bank) == [b"child", b"grandchild", b"third"]


def test_a_closed_store_stays_closed_in_a_child(path):
    store = kist.open(path)
    bank = store.bank("bank")
    store.close()

    def child():
        for act in (lambda: bank["key"], lambda: store.banks(), lambda: len(bank)):
            with pytest.raises(kist.ClosedError):
                act()

    in_a_child(child)


def test_threads_of_a_child_may_all_make_the_first_call(bank):
    bank["key"] = b"1"

    def child():
        faults = []

        def run(n):
            try:
                for i in range(200):
                    bank[f"{n}/{i}"] = b"x"
                    assert bank["key"] == b"1"
            except BaseException as why:
                faults.append(why)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults and len(bank) == 1601

    in_a_child(child)
    assert len(bank) == 1601


def test_forks_while_threads_write(bank):
    stop, faults = threading.Event(), []

    def run(n):
        i = 0
        try:
            while not stop.is_set():
                bank[f"{n}"] = b"%d" % i
                i += 1
        except BaseException as why:
            faults.append(why)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(20):
            in_a_child(lambda: bank.__setitem__(f"child{n}", b"1"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults and sum(key.startswith(b"child") for key in bank) == 20


# ---- multiprocessing ----


def count_up(path, name, n):
    """n increments by put(if_seq=)."""
    with kist.open(path) as store:
        bank = store.bank(name)
        for _ in range(n):
            while True:
                meta = bank.meta("count")
                value = int(bank.get("count", b"0"))
                if bank.put("count", b"%d" % (value + 1), if_seq=meta.sequence if meta else 0):
                    break
    return True


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_a_pool_share_a_bank(path, method):
    context = multiprocessing.get_context(method)
    with kist.open(path) as store:
        bank = store.bank("bank")
        with context.Pool(3) as pool:
            assert all(pool.starmap(count_up, [(path, "bank", 200)] * 6))
        assert bank["count"] == b"1200"


shared = None


def use_shared(n):
    shared[f"{n}"] = b"%d" % n
    return shared["before"]


def test_a_bank_of_the_parent_in_a_pools_processes(path):
    global shared
    with kist.open(path) as store:
        shared = store.bank("bank")
        shared["before"] = b"seen"
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert set(pool.map(use_shared, range(100))) == {b"seen"}
        assert len(shared) == 101
    shared = None


def test_a_killed_process_loses_nothing(path):
    script = ("import kist, sys\n"
              "bank = kist.open(sys.argv[1]).bank('bank')\n"
              "for i in range(1_000_000):\n"
              "    bank[str(i)] = b'x' * 100\n"
              "    sys.stdout.write(f'{i}\\n'); sys.stdout.flush()\n")
    with kist.open(path) as store, subprocess.Popen([sys.executable, "-c", script, path],
                                                    stdout=subprocess.PIPE) as child:
        for _ in range(500):
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            last = int(line) if line.endswith(b"\n") else last
        bank = store.bank("bank")
        assert all(bank[str(i)] == b"x" * 100 for i in range(last + 1))
        bank["after"] = b"1"
        assert bank.verify().damaged == 0


def test_stores_that_are_open_at_exit_are_closed_in_order(path):
    script = "import kist, sys\nbank = kist.open(sys.argv[1]).bank('bank')\nbank['a'] = b'1'\n"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    events = []
    with kist.open(path, log=events.append) as store:
        bank = store.bank("bank")
        assert bank["a"] == b"1" and bank.stats().last_recovery == 0
        assert bank.stats().unsynced_bytes == 0 and not events


# ---- threads ----


def test_threads_read_and_write_one_bank(bank):
    """Values tell whose they are; each thread's own only grow."""
    stop, faults = threading.Event(), []

    def write(n):
        try:
            for i in range(3000):
                bank[f"{n}"] = b"%d/%d" % (n, i) + b"." * (i % 500)
                if i % 500 == 0:
                    bank.compact()
        except BaseException as why:
            faults.append(why)

    def read():
        last = [-1] * 3
        try:
            while not stop.is_set():
                for n in range(3):
                    view = bank.get_view(f"{n}")
                    value = bank.get(f"{n}")
                    if view is None:
                        continue
                    older, newer = (int(bytes(v).rstrip(b".").split(b"/")[1]) for v in (view, value))
                    assert last[n] <= older <= newer
                    last[n] = newer
        except BaseException as why:
            faults.append(why)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not faults and [bank[f"{n}"][:6] for n in range(3)] == [b"%d/2999" % n for n in range(3)]


def test_closing_while_other_threads_call(path):
    for _ in range(30):
        store = kist.open(path)
        bank = store.bank("bank")
        go, unexpected = threading.Event(), []

        def run():
            go.set()
            try:
                while True:
                    bank["key"] = b"x" * 1000
                    bank.get_view("key")
                    next(iter(bank))
            except kist.ClosedError:
                pass
            except BaseException as why:
                unexpected.append(why)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        go.wait()
        (bank if _ % 2 else store).close()
        for thread in threads:
            thread.join()
        store.close()
        assert not unexpected


def test_of_threads_that_pop_one_gets_each_entry(bank):
    bank.update({f"{i}": b"%d" % i for i in range(3000)})
    popped = []

    def run():
        try:
            while True:
                popped.append(bank.popitem())
        except KeyError:
            pass

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(popped) == 3000 and {key: key for key, _ in popped} == dict(popped)
    assert len(bank) == 0 and bank.pop("x", 5) == 5


WAITING = """
import kist, sys, itertools
bank = kist.open(sys.argv[1]).bank('bank')
bank['a'] = b''
print('ready', flush=True)
for i in itertools.count():
    bank['a'] = b'x' * 60_000
    if i % 100 == 0:
        bank.compact()
"""


@pytest.fixture
def busy_writer(path):
    """A process that writes without an end, most of its time within a write."""
    with subprocess.Popen([sys.executable, "-c", WAITING, path], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"ready\n"
            yield other
        finally:
            other.kill()


def test_a_put_that_waits_for_another_process_has_a_deadline(store, busy_writer):
    """A process that is stopped while it writes keeps the bank."""
    bank = store.bank("bank", deadline_ms=20)
    for _ in range(5000):
        busy_writer.send_signal(signal.SIGSTOP)
        try:
            bank["b"] = b"1"
        except kist.BusyError as why:
            assert isinstance(why, TimeoutError) and "deadline" in str(why)
            break
        finally:
            busy_writer.send_signal(signal.SIGCONT)
    else:
        pytest.fail("the other process was never stopped within a write")
    busy_writer.kill()
    busy_writer.wait()
    bank["b"] = b"2"
    assert bank["b"] == b"2"


def test_a_put_that_waits_lets_other_threads_run(store, busy_writer):
    """The put can go on only when another thread of its own process has run."""
    bank = store.bank("bank", deadline_ms=10_000)
    for _ in range(5000):
        continued = []

        def let_it_go_on():
            continued.append(True)
            busy_writer.send_signal(signal.SIGCONT)

        busy_writer.send_signal(signal.SIGSTOP)
        timer = threading.Timer(0.01, let_it_go_on)
        timer.start()
        bank["b"] = b"1"  # BusyError, were no other thread let run
        had_to_wait = bool(continued)
        timer.join()
        if had_to_wait:
            break
    else:
        pytest.fail("the other process was never stopped within a write")
