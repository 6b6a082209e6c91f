"""A run over instances, where the work runs here: in which order it is given out."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from assay.benchmarks.harness import instances, suite
from assay.benchmarks.harness.records.store import Key, Record, Store
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.registry import get_verifier
from assay.verify.support.executors.inline import Inline
from tests.benchmarks import instance_files

METHOD = "ibp"


@pytest.fixture
def listed(tmp_path):
    return instances.find(instance_files.suite(tmp_path))


def given_out(listed, store, **more):
    """The names of the properties in the order in which they are given out, and the outcome."""
    order = []

    class Noting(Inline):
        def submit(self, task):
            order.append(task.argument.prop.stem)
            super().submit(task)

    @contextmanager
    def hired(job):
        yield Noting(job)

    return order, suite.run(listed, METHOD, store, hiring=hired, **more)


def test_what_took_long_before_begins_first_whatever_the_code(listed, tmp_path):
    took = dict(zip(listed, (2.0, 7.0, 0.5), strict=False))  # and a new one
    content, method = instances.hasher(), repr(get_verifier(METHOD))
    names = [one.prop.stem for one in listed]
    with Store(tmp_path / "s.sqlite") as store:
        plain, before = given_out(listed, store)
        assert plain == names
    with Store(tmp_path / "t.sqlite") as store:
        for one, seconds in took.items():
            problem = content(one)
            for key, spent in ((Key(problem, method, source="other"), seconds), (Key(problem, "crown"), 100 - seconds)):
                store.put([Record(key, Result(problem, key.method, Verdict.UNKNOWN, Reason.TIMEOUT, seconds=spent))])
        order, outcome = given_out([*listed, listed[0]], store)
    assert order == [names[1], names[0], names[2], names[3]]
    assert [replace(row, seconds=0.0) for row in outcome.rows] == [
        replace(row, seconds=0.0) for row in (*before.rows, before.rows[0])
    ]
