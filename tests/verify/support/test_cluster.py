"""The executor on a cluster of Ray: what it says of lost processes, limits and other versions; skipped without Ray."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.support.executors import Fate, Job, Task, cluster, run
from assay.verify.support.executors.cluster import on_cluster
from assay.verify.support.sources import PACKAGE

pytestmark = pytest.mark.slow
SMALL = 80 * 2**20  # bytes of an object store: the least that Ray takes


def work(ground, what):
    """What the processes of these tests do."""
    kind, value = what
    match kind:
        case "ground":
            return ground[value]
        case "sleep":
            time.sleep(value)
        case "die once":
            if not Path(value).exists():
                Path(value).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "alive"
        case "wait":
            folder = Path(value)
            (folder / f"begun-{os.getpid()}-{time.monotonic()}").touch()
            while not (folder / "gone").exists():
                time.sleep(0.1)
            return "waited"
        case "sum":
            return int(ground[value].sum())
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "refuse":
            raise InputError("not this")
    return kind


def task(kind, value=None, seconds=60.0):
    return Task((kind, value), seconds, tag=kind)


@pytest.fixture(scope="module")
def local():
    pytest.importorskip("ray", reason="needs the package ray")
    with on_cluster("local", 2)(Job(work, {"a": 7})) as executor:
        yield executor


def test_what_tasks_share_is_there(local):
    assert [ended.value() for ended in run(local, [task("ground", "a") for _ in range(6)])] == [7] * 6


def test_an_exception_is_told_as_what_it_is(local):
    (ended,) = run(local, [task("refuse")])
    with pytest.raises(InputError, match="not this"):
        ended.value()


def test_a_task_whose_process_dies_is_tried_once_more(local, tmp_path):
    (ended,) = run(local, [task("die once", str(tmp_path / "mark"))])
    assert (ended.reply, ended.task.attempt) == ("alive", 2)


def test_what_overruns_its_time_is_ended_and_the_next_task_goes_on(local):
    fates = {ended.task.tag: ended.fate for ended in run(local, [task("sleep", 1000, 0.5), task("ground", "a")])}
    assert fates == {"sleep": Fate.TIMEOUT, "ground": Fate.REPLIED}


def test_what_is_cancelled_does_not_end(local):
    first = task("sleep", 1000)
    local.submit(first)
    local.cancel(first)
    assert local.ended() == []


def test_another_version_is_refused_by_name(local, monkeypatch):
    monkeypatch.setattr(cluster, "_version", lambda: "0.0.other")
    (ended,) = run(local, [task("ground", "a")])
    with pytest.raises(InputError, match=r"and the run began with 0\.0\.other"):
        ended.value()


def test_a_node_with_the_same_version_and_other_sources_is_refused_by_name(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the package ray")
    shutil.copytree(PACKAGE, tmp_path / "assay", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "assay" / "verify" / "core" / "spec.py").open("a") as file:
        file.write("# another\n")
    ray.shutdown()
    monkeypatch.chdir(tmp_path)  # where Ray's processes look first
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    try:
        with on_cluster("auto")(Job(work, {"a": 7})) as executor:
            (ended,) = run(executor, [task("ground", "a")])
    finally:
        ray.shutdown()
    with pytest.raises(InputError, match=r"has assay .* \(sources .*, and the run began with .* \(sources"):
        ended.value()


@pytest.fixture
def nodes():
    """Two machines, as far as Ray can tell: one that stays, and one more at a time that may be lost."""
    pytest.importorskip("ray", reason="needs the package ray")
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": SMALL})
    yield machines
    ray.shutdown()
    machines.shutdown()


def test_what_is_lost_with_a_machine_is_done_elsewhere_and_counted_once(nodes, tmp_path):
    other, over = nodes.add_node(num_cpus=1, object_store_memory=SMALL), threading.Event()

    def lose():
        while len([*tmp_path.glob("begun*")]) < 2 and not over.wait(0.1):
            pass
        nodes.remove_node(other, allow_graceful=False)
        (tmp_path / "gone").touch()

    with on_cluster(nodes.address)(Job(work, {"a": 7})) as executor:
        assert executor.capacity == 2
        loser = threading.Thread(target=lose)
        loser.start()
        ends = list(run(executor, [Task(("wait", str(tmp_path)), tag=i) for i in range(4)]))
        over.set()
        loser.join()
        assert executor.capacity == 1
    assert sorted(ended.task.tag for ended in ends) == [0, 1, 2, 3]
    assert {ended.reply for ended in ends} == {"waited"}
    assert sorted(ended.task.attempt for ended in ends) == [1, 1, 1, 2]


def test_what_does_not_fit_into_the_object_store_goes_by_way_of_the_disk(nodes):
    ground = {"a": np.arange(2 * SMALL, dtype=np.uint8)}
    with on_cluster(nodes.address)(Job(work, ground)) as executor:
        (ended,) = run(executor, [Task(("sum", "a"))])
    assert ended.value() == int(ground["a"].sum())


def test_a_machine_that_does_not_move_costs_a_task_its_time_and_no_more(nodes, monkeypatch):
    monkeypatch.setattr(cluster, "STARTING", 0.0)
    with on_cluster(nodes.address)(Job(work, {"a": 7})) as executor:
        assert [ended.fate for ended in run(executor, [Task(("ground", "a"))])] == [Fate.REPLIED]
        fates = {ended.task.tag: ended.fate for ended in run(executor, [task("stop", None, 1.0), task("ground", "a")])}
    assert fates == {"stop": Fate.TIMEOUT, "ground": Fate.REPLIED}


def test_what_ray_says_of_a_task_without_a_reply():
    exceptions = pytest.importorskip("ray.exceptions", reason="needs the package ray")
    told = {
        Fate.MEMORY: exceptions.OutOfMemoryError("too much"),
        Fate.GONE: exceptions.NodeDiedError("gone"),
        Fate.DIED: exceptions.WorkerCrashedError(),
    }
    assert {cluster._fate(error): fate for fate, error in told.items()} == {fate: fate for fate in told}


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'assay\[ray\]'"):
        on_cluster("local")
