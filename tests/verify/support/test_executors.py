"""Executors: what they are asked they do, whichever it is, and nothing that processes do goes beyond the limits."""

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import pytest
import torch

from assay.benchmarks.harness.preloaded import INSTANCES
from assay.verify.core.errors import InputError, InternalError, ResourceError
from assay.verify.support.executors import Ended, Fate, Job, Task, opened, packed, processes, run
from assay.verify.support.executors.chosen import chosen
from assay.verify.support.executors.inline import Inline, here
from assay.verify.support.executors.packing import dumps
from assay.verify.support.executors.processes import Processes, side_by_side
from assay.verify.support.processes import resident

ROOT = Path(__file__).parents[3]


def work(ground, what):
    """What the processes of these tests do: (kind, argument)."""
    kind, value = what
    match kind:
        case "double":
            return 2 * value
        case "pid":
            time.sleep(value)
            return os.getpid()
        case "sleep":
            time.sleep(value)
        case "deaf":  # keeps the interpreter's lock, and every signal that can be kept
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if value:
                Path(value).write_text(str(os.getpid()))
            ctypes.PyDLL(None).sleep(1000)
        case "idle":
            Path(value).write_text(str(os.getpid()))
            time.sleep(1000)
        case "eat":
            kept = []
            while True:
                kept.append(b"x" * 2**24)
                time.sleep(0.005)
        case "grow":
            work.kept = b"x" * value
            return os.getpid()
        case "child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            Path(value).write_text(str(child.pid))
            time.sleep(1000)
        case "die once":
            if not Path(value).exists():
                Path(value).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "alive"
        case "die":
            os.kill(os.getpid(), value)
            time.sleep(60)
        case "raise":
            raise ZeroDivisionError
        case "refuse":
            raise InputError("not this")
        case "closed":  # a reply that cannot be sent
            return lambda: value
        case "ground":
            return ground[value]
        case "device":
            return os.environ["CUDA_VISIBLE_DEVICES"]
        case "stop":  # as slow as can be
            os.kill(os.getpid(), signal.SIGSTOP)
        case "collector":
            return gc.isenabled(), gc.get_freeze_count() > 0
        case "print":
            print("noise", flush=True)
    return kind


def pool_of(count, memory=inf):
    """A pool as the suites use it: the server of the processes is started once, by whoever is first."""
    return Processes(work, count, None, memory, INSTANCES)


def ends(pool, *tasks):
    with closing(pool):
        return {ended.task.tag: ended for ended in run(pool, list(tasks))}


def task(kind, value=None, seconds=30.0):
    return Task((kind, value), seconds, tag=(kind, value))


def gone(pid):
    for _ in range(3000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
            return True
        if state == "Z":  # dead, and left to be buried by whoever adopted it
            return True
        time.sleep(0.02)
    return False


def test_every_task_gets_its_own_reply():
    replies = ends(pool_of(2), *(task("double", i) for i in range(20)))
    assert {tag[1]: ended.reply for tag, ended in replies.items()} == {i: 2 * i for i in range(20)}
    assert {ended.fate for ended in replies.values()} == {Fate.REPLIED}


def test_processes_work_side_by_side_and_live_on():
    replies = ends(pool_of(2), *(task("pid", 0.2 + i / 1000) for i in range(6)))
    assert len({ended.reply for ended in replies.values()}) == 2
    assert os.getpid() not in {ended.reply for ended in replies.values()}


def test_processes_collect_cycles_but_for_what_was_imported_before():
    assert ends(pool_of(1), task("collector"))["collector", None].reply == (True, True)


def test_tasks_are_taken_when_there_is_a_process_for_them():
    taken = []

    def tasks():
        for i in range(4):
            taken.append(i)
            yield task("pid", 0.05)

    with closing(pool_of(1)) as pool:
        for count, _ in enumerate(run(pool, tasks()), start=1):
            assert len(taken) == count


@pytest.mark.parametrize(("kind", "value"), [("sleep", 1000), ("deaf", ""), ("stop", None)])
def test_what_overruns_its_time_is_killed_and_the_next_task_goes_on(kind, value, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.3)
    replies = ends(pool_of(1), task(kind, value, 0.5), task("double", 3))
    assert replies[kind, value].fate is Fate.TIMEOUT
    assert replies[kind, value].seconds >= 0.5
    assert replies["double", 3].reply == 6


def test_what_outgrows_its_memory_is_killed():
    replies = ends(pool_of(1, memory=2**28), task("eat"), task("double", 3))
    assert replies["eat", None].fate is Fate.MEMORY
    assert "GiB" in replies["eat", None].detail
    assert replies["double", 3].reply == 6


def test_a_process_that_has_grown_is_replaced_after_its_task():
    pool = pool_of(1, memory=2**29)
    first, second = (ends(pool, task("grow", size), task("pid", 0.0)) for size in (2**28 + 2**27, 2**10))
    assert len({ended.reply for ended in first.values()}) == 2
    assert len({ended.reply for ended in second.values()}) == 1


def test_a_task_whose_process_dies_is_tried_once_more(tmp_path):
    replies = ends(pool_of(1), task("die once", str(tmp_path / "mark")), task("die", signal.SIGSEGV), task("double", 1))
    assert replies["die once", str(tmp_path / "mark")].reply == "alive"
    assert replies["die", signal.SIGSEGV].fate is Fate.DIED
    assert replies["die", signal.SIGSEGV].detail == "the process was killed by SIGSEGV"
    assert replies["die", signal.SIGSEGV].task.attempt == 2
    assert replies["double", 1].reply == 2


@pytest.mark.parametrize("hiring", [here, side_by_side(1)], ids=["here", "processes"])
def test_an_exception_is_told_as_what_it_is(hiring):
    with hiring(Job(work)) as executor:
        replies = {ended.task.tag: ended for ended in run(executor, [task("raise"), task("refuse"), task("double", 4)])}
    assert [replies[tag].fate for tag in (("raise", None), ("refuse", None))] == [Fate.RAISED, Fate.RAISED]
    with pytest.raises(InternalError, match="unexpected ZeroDivisionError"):
        replies["raise", None].value()
    with pytest.raises(InputError, match="not this"):
        replies["refuse", None].value()
    assert replies["double", 4].value() == 8


@pytest.mark.parametrize("hiring", [here, side_by_side(2)], ids=["here", "processes"])
def test_what_tasks_share_is_there(hiring):
    with hiring(Job(work, {"a": 7})) as executor:
        replies = [ended.value() for ended in run(executor, [task("ground", "a") for _ in range(5)])]
    assert replies == [7] * 5


class Unreadable:
    def __reduce__(self):
        return _gone, ()


def _gone():
    raise InputError("there is no such thing here")


def test_what_cannot_be_opened_there_is_told():
    with side_by_side(2)(Job(work, Unreadable())) as executor:
        fates = list(run(executor, [task("double", i) for i in range(3)]))
    assert [ended.fate for ended in fates] == [Fate.RAISED] * 3
    with pytest.raises(InputError, match="no such thing"):
        fates[0].value()


def test_a_class_of_the_script_that_began_is_refused_with_advice(monkeypatch):
    class Net:
        __qualname__ = "Net"

    Net.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    ground = packed(Net())
    monkeypatch.delattr(sys.modules["__main__"], "Net")
    with pytest.raises(InputError, match=r"cannot be opened by other processes: .*Net.*; move .* into a module"):
        opened(ground)
    with pytest.raises(InputError, match="No module named 'not_here'"):
        opened(b"cnot_here\nNet\n.")


def test_a_process_that_dies_in_the_midst_of_its_reply_has_said_nothing():
    ours, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 1000) + pickle.dumps(("half",)))
    theirs.close()
    assert processes._message(processes.Worker(None, ours, 0.0)) is None


def test_a_reply_that_cannot_be_sent_is_told():
    replies = ends(pool_of(1), task("closed"), task("double", 2))
    assert replies["closed", None].fate is Fate.RAISED
    assert "pickle" in str(replies["closed", None].error)
    assert replies["double", 2].reply == 4


def test_a_task_that_is_ended_is_named():
    killed = Ended(task("die"), Fate.DIED, 1.0, detail="the process was killed by SIGKILL")
    with pytest.raises(ResourceError, match=r"^ibp on sample 3 was ended: .*SIGKILL \(most likely memory"):
        killed.value("ibp on sample 3")


def test_a_process_that_nobody_waits_for_any_more_ends_quietly(tmp_path, monkeypatch):
    for name in ("setsid", "dup2"):
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for path in (None, str(tmp_path / "removed")):
        ours, theirs = multiprocessing.Pipe()
        ours.close()
        processes._serve(theirs, work, path)


@pytest.mark.slow
def test_a_server_that_starts_does_not_hear_the_interrupt():
    code = (
        "import signal, subprocess, sys\n"
        "from multiprocessing import forkserver, util\n"
        "from assay.verify.support.executors import processes\n"
        "masks, spawn = [], util.spawnv_passfds\n"
        "def spy(path, *rest):\n"
        "    masks.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "    return spawn(path, *rest)\n"
        "util.spawnv_passfds = spy\n"
        "processes.start(print, None, ()).kill()\n"
        "sys.exit(0 if masks[-1] and not signal.pthread_sigmask(signal.SIG_BLOCK, []) else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=300).returncode == 0


def test_an_interrupt_while_a_process_starts_comes_afterwards():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        with processes._uninterrupted():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # another thread may take one for the process
            assert heard == []
        assert heard == [True]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("hiring", [here, side_by_side(1)], ids=["here", "processes"])
def test_what_is_cancelled_does_not_end(hiring):
    with hiring(Job(work)) as executor:
        first, second = task("double", 1) if hiring is here else task("sleep", 1000), task("double", 2)
        executor.submit(first)
        executor.submit(second)
        executor.cancel(first)
        assert [ended.task for ended in executor.ended()] == [second]
        assert executor.ended() == []


def test_waiting_for_what_lasts_ends_in_time():
    with side_by_side(1)(Job(work)) as executor:
        executor.submit(task("sleep", 1000))
        assert executor.ended(0.0) == []


def test_each_process_has_an_accelerator_to_itself_also_the_one_that_replaces_another():
    with side_by_side(3, devices=("5", "7"))(Job(work, preload=INSTANCES)) as executor:
        sleepers = [task("sleep", 1000, 1000.0) for _ in range(2)]
        for each in sleepers:
            executor.submit(each)
        (gone,) = [worker for worker in executor.workers if worker.task is sleepers[0]]
        executor.cancel(sleepers[0])
        executor.submit(task("device"))
        assert executor.capacity == 2
        assert sorted(worker.device for worker in executor.workers) == ["5", "7"]
        assert [ended.reply for ended in executor.ended()] == [gone.device]


@dataclass(eq=False)
class Meeting:
    """An executor in which tasks meet these fates, one after another."""

    fates: list
    capacity: int = 1
    attempts: list = field(default_factory=list)

    def submit(self, task):
        self.attempts.append(task)

    def ended(self):
        return [Ended(self.attempts[-1], self.fates.pop(0), 2.0)]


@pytest.mark.parametrize(
    ("fates", "last", "attempts"),
    [
        ([Fate.GONE] * 7 + [Fate.REPLIED], Fate.REPLIED, 8),
        ([Fate.GONE] * 8, Fate.GONE, 8),
        ([Fate.DIED] * 2, Fate.DIED, 2),
        ([Fate.GONE, Fate.DIED], Fate.DIED, 2),
        ([Fate.MEMORY], Fate.MEMORY, 1),
    ],
)
def test_a_task_is_blamed_for_its_process_and_not_for_its_machine(fates, last, attempts):
    executor = Meeting([*fates])
    (ended,) = run(executor, [task("double", 1)])
    assert (ended.fate, ended.task.attempt, len(executor.attempts)) == (last, attempts, attempts)
    assert ended.lost is (last is not Fate.REPLIED)
    assert ended.seconds == 2.0 * attempts


def test_a_task_that_is_tried_again_has_all_of_its_time_or_what_is_left_by_then():
    whole, shorter = Meeting([Fate.GONE, Fate.REPLIED]), Meeting([Fate.GONE, Fate.GONE, Fate.REPLIED])
    assert [ended.fate for ended in run(whole, [Task("a", 5.0)])] == [Fate.REPLIED]
    assert [task.seconds for task in whole.attempts] == [5.0, 5.0]
    (ended,) = run(shorter, [Task("a", 5.0)], lambda task: replace(task, seconds=task.seconds - 1.0))
    assert [(task.seconds, task.attempt, task.spent) for task in shorter.attempts] == [
        (5.0, 1, 0.0),
        (4.0, 2, 2.0),
        (3.0, 3, 4.0),
    ]
    assert ended.seconds == 6.0


def test_there_are_no_more_processes_than_accelerators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, told in (("4,6,8", ["4", "6"]), (None, ["0", "1"])):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        for workers, device, capacity, devices in ((4, "cuda", 2, told), (1, "cuda", 1, told), (4, "cpu", 4, ())):
            with chosen(workers, None, device)(Job(work)) as executor:
                assert (executor.capacity, list(executor.devices)) == (capacity, list(devices))
    with chosen(None)(Job(work)) as executor:
        assert isinstance(executor, Inline)


PRINTS = """
from assay.verify.support.executors import Job, Task, run
from assay.verify.support.executors.processes import side_by_side
from tests.verify.support.test_executors import work
with side_by_side(1)(Job(work)) as executor:
    for ended in run(executor, [Task(("print", None), 30)]): print(ended.reply)
"""


@pytest.mark.slow
def test_what_a_task_prints_is_not_our_output():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("print\n", "noise\n")


def test_what_a_task_started_dies_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.1)
    path = tmp_path / "pid"
    assert ends(pool_of(1), task("child", str(path), 1.5))["child", str(path)].fate is Fate.TIMEOUT
    assert gone(int(path.read_text()))


def test_closing_midway_leaves_no_process():
    pool = pool_of(2)
    with closing(pool):
        assert next(run(pool, [task("double", 1), task("sleep", 1000)])).reply == 2
        pids = [worker.process.pid for worker in pool.workers]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


PARENT = """
import sys
from assay.verify.support.executors import Job, Task, run
from assay.verify.support.executors.processes import side_by_side
from tests.verify.support.test_executors import work
with side_by_side(2)(Job(work)) as executor:
    for _ in run(executor, [Task(("deaf", sys.argv[1]), 1000), Task(("idle", sys.argv[2]), 1000)]): pass
"""


def read_pid(path):
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return int(path.read_text())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_parent_that_is_killed(tmp_path, number):
    paths = [tmp_path / "deaf", tmp_path / "idle"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *map(str, paths)], env=environment)
    pids = [read_pid(path) for path in paths]
    parent.send_signal(number)
    parent.wait()
    assert all(gone(pid) for pid in pids)


def test_the_memory_of_a_process_is_what_it_holds():
    before = resident(os.getpid())
    kept = b"x" * 2**27
    assert resident(os.getpid()) - before > 2**26
    assert len(kept)
    assert resident(2**30) == 0


def test_processes_are_ready_once_all_have_started():
    with closing(pool_of(2)) as pool:
        deadline = time.monotonic() + 60
        while not pool.ready():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(pool.workers) == 2
        assert {ended.reply for ended in run(pool, [task("double", 1), task("double", 2)])} == {2, 4}
        assert len(pool.workers) == 2


def test_a_process_that_died_before_it_had_a_task_is_replaced():
    with closing(pool_of(1)) as pool:
        pool.ready()
        os.kill(pool.workers[0].process.pid, signal.SIGKILL)
        pool.workers[0].process.join()
        assert pool.ready()
        assert [ended.reply for ended in run(pool, [task("double", 1)])] == [2]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4),
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12)[::5],
        torch.tensor(3.0, dtype=torch.float64),
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(2, requires_grad=True),
        torch.tensor([1 + 2j]).conj(),
        torch.nn.Parameter(torch.ones(2)),
        torch.eye(2).to_sparse(),
        torch.zeros(1).expand(3, 5),
    ],
    ids=str,
)
def test_tensors_arrive_as_they_left(tensor):
    back = pickle.loads(dumps([tensor, tensor]))
    assert back[0] is back[1]
    assert type(back[0]) is type(tensor)
    assert (back[0].dtype, back[0].requires_grad) == (tensor.dtype, tensor.requires_grad)
    assert torch.equal(back[0].to_dense(), tensor.to_dense())
    if tensor.layout is torch.strided and not tensor.requires_grad:
        back[0].reshape(-1)[:1].fill_(0)  # it may be written to


def test_a_part_of_a_tensor_travels_without_the_rest():
    whole = torch.rand(1000, 100)
    assert len(dumps([whole[i] for i in range(10)])) < 10 * 100 * 4 + 2000
    assert len(dumps(torch.zeros(1).expand(1000, 1000))) < 1000


SERVER = """
import time
from assay.verify.support.executors.processes import warm
warm(["endless"])
time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it takes a pipe that sends signals")
def test_the_server_does_not_outlive_its_driver_while_it_imports(tmp_path):
    """Nor does it keep the driver's output open, for whose end a pipe in a terminal waits."""
    begun = tmp_path / "begun"
    (tmp_path / "endless.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\ntime.sleep(1000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    driver = subprocess.Popen([sys.executable, "-c", SERVER], env=environment, stdout=subprocess.PIPE)
    while not (begun.exists() and begun.read_text()):
        assert driver.poll() is None
        time.sleep(0.01)
    driver.kill()
    assert driver.communicate(timeout=60) == (b"", None)
    assert gone(int(begun.read_text()))
