"""Progress: log lines with the time left where nobody looks at a terminal, a bar where somebody does."""

import io

import pytest

from assay.benchmarks.harness import progress
from assay.benchmarks.harness.progress import Lines, watch


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_tell_what_how_far_and_how_long(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with watch(stream) as lines:
        lines.begin(200)
        for seconds in (2.0, 4.0, 1.0, 13.0):
            lines.running("crown,\x1b[1m eps 0.1")
            now[0] += seconds
            lines.advance(50)
    assert stream.getvalue().splitlines() == [
        "assay: 200 verdicts to come",
        "assay: 6 s  100 of 200 (50%), about 6 s left: crown, eps 0.1",
        "assay: 200 verdicts in 20 s",
    ]


def test_the_time_left_is_that_of_what_is_left(monkeypatch):
    """A quick half says nothing of a slow one, of which ten verdicts took 100 s."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Lines(stream, interval=0)
    lines.begin(200, {"quick": 100, "slow": 100})
    for stage, seconds, amount in (("quick", 1.0, 100), ("slow", 100.0, 10)):
        lines.running(stage)
        now[0] += seconds
        lines.advance(amount)
    assert "about 1 s left: quick" in stream.getvalue()
    assert "about 15 min 00 s left: slow" in stream.getvalue()


def test_what_an_earlier_run_has_found_says_nothing_of_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Lines(stream, interval=0)
    lines.begin(100, {"slow": 100})
    lines.running("slow")
    lines.recall(80)
    now[0] += 10.0
    lines.advance(10)
    assert "90 of 100 (90%), about 10 s left: slow" in stream.getvalue()


def test_what_was_found_so_far_is_told(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Lines(stream, interval=0)
    lines.begin(10)
    lines.running("crown")
    lines.so_far("\x1b[1m80.0% to 90.0% at eps 0.1 of 5")
    now[0] += 1.0
    lines.advance(5)
    assert stream.getvalue().splitlines()[-1].endswith("left: crown; so far 80.0% to 90.0% at eps 0.1 of 5")


def test_quiet_tells_nothing():
    stream = io.StringIO()
    with watch(stream, quiet=True) as nothing:
        nothing.begin(2)
        nothing.running("crown")
        nothing.advance(2)
        nothing.so_far("all")
    assert stream.getvalue() == ""


def test_nothing_to_do_is_no_fault():
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin(0)
    lines.advance(0)
    assert "0 verdicts" in stream.getvalue()


@pytest.mark.filterwarnings("default")
def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with watch(stream) as bar:
        bar.begin(4)
        bar.running("crown [bold]eps")
        bar.so_far("[bold]half")
        bar.advance(2)
    assert "[bold]half" in stream.getvalue()
    assert "2/4" in stream.getvalue()
    assert "crown [bold]eps" in stream.getvalue()
