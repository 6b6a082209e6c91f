"""What produced a record: told without naming a host."""

import platform
import socket

from assay.benchmarks.harness.records.origin import machine, source_hash, versions


def test_the_machine_is_told_without_its_name():
    told = machine()
    assert set(told) == {"system", "processor", "cores"}
    assert told["cores"] >= 1
    assert platform.machine() in str(told["processor"])
    assert socket.gethostname() not in str(told).split()


def test_versions_and_sources_are_told():
    assert {"assay", "python", "torch", "numpy"} <= set(versions())
    assert len(source_hash()) == 16
