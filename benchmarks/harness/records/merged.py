"""Stores that several drivers wrote, as one: their runs, with what these are about, and their records."""

from __future__ import annotations

import torch

from assay.benchmarks.harness.records.store import Record, Store


def merge(store: Store, other: Store) -> list[Record]:
    """Take what the ``other`` store holds, a few rows at a time; the records that it contradicts, which are kept.

    A run that is there already, by its start, command, model and data, is gone on with: merging again adds what is new.
    A decided row replaces an open one, and never the reverse; rows that cannot be read stay where they are.
    """
    contradicted: list[Record] = []
    there = store.runs()
    described = other.noted.described()
    store.noted.enrol(other.noted.enrolled())
    for number, run in enumerate(other.runs(), start=1):
        if run in there:
            store.run = there.index(run) + 1
        else:
            store.begin(run["command"], run["model"], run["data"], run["started"])
        if number in described:
            store.noted.describe(store.run, *described[number])
            samples = other.noted.samples(number)
            if samples and list(samples) == list(range(len(samples))):
                xs, labels = torch.stack([x for _, x in samples.values()]), [y for y, _ in samples.values()]
                store.noted.note_samples(store.run, xs, labels)
            store.noted.note_asked(store.run, other.noted.asked(number))
        for records in other.of_run(number):
            contradicted += store.put(records)
    store.run = None
    for records in other.of_run(None):  # of no run
        contradicted += store.put(records)
    return contradicted
