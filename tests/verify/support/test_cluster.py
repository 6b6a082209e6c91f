"""The executor on a cluster of Ray: what it says of lost processes, limits and other versions; skipped without Ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.support.executors import Fate, Job, Task, cluster, run
from assay.verify.support.executors.cluster import on_cluster

pytestmark = pytest.mark.slow


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


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'assay\[ray\]'"):
        on_cluster("local")
