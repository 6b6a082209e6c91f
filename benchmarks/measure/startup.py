"""Where the time of a command that answers an easy question goes, from the interpreter's start to its end.

    python -m assay.benchmarks.measure.startup [NET PROP] [--repeats 7] [--peer 'NAME=COMMAND'] [--json]

Medians of CPU seconds of whole processes (wall-clock time on a shared machine says little). The parts are those of one
process that does step by step what ``assay verify`` does; "exit" is what such a process takes after its last step.
``import torch`` alone, in a process that is taken apart in the usual way, stands beside it as the floor of any tool
that uses torch. Without NET and PROP the question is an image of digits for a trained network that comes along. Other
verifiers are measured in the same turns by their commands, in which {net} and {prop} stand for the files.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

STEPS = """
import gc, json, os, sys, time
from pathlib import Path
marks = {"interpreter": time.process_time()}
def mark(what):
    marks[what] = time.process_time() - sum(marks.values())
import assay.face
mark("command")
gc.disable()
import torch
mark("torch")
import onnx
mark("onnx")
import onnxruntime
mark("onnxruntime")
from assay import answering
from assay.verify.solving import union
from assay.verify.core.budget import Budget
from assay.verify.frontends import files
from assay.verify.frontends.onnx import read
from assay.verify.registry import get_verifier
verifier = get_verifier("auto")
gc.freeze(); gc.enable()
torch.set_num_threads(1)
mark("assay")
spent = {"property": 0.0, "check": 0.0}
def timed(what, function):
    def call(*given):
        begun = time.process_time()
        try:
            return function(*given)
        finally:
            spent[what] += time.process_time() - begun
    return call
files.read_vnnlib = timed("property", files.read_vnnlib)
files.agree_on = timed("check", files.agree_on)
read.agree = timed("check", read.agree)
problems = files.read_problems(Path(sys.argv[1]), Path(sys.argv[2]))
mark("network")
marks["network"] -= sum(spent.values())
marks |= spent
union.verify(verifier, problems, Budget(60))
mark("solve")
print(json.dumps(marks), flush=True)
os._exit(0)
"""

ANSWERED = (0, 10, 20, 30)  # the exit codes of a verifier that gave an answer


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.startup", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="NET PROP", help="ONNX and VNN-LIB file")
    parser.add_argument("--repeats", type=int, default=7, help="processes of each kind")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=COMMAND", help="another verifier's command"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    if len(options.files) not in (0, 2) or options.repeats < 1:
        parser.error("expected both NET and PROP, or neither, and at least one repeat")
    peers: dict[str, str] = {}
    for peer in options.peer:
        name, equals, command = peer.partition("=")
        if not (name and equals and command):
            parser.error(f"--peer expects NAME=COMMAND, got {peer!r}")
        peers[name] = command
    with files(options.files) as (net, prop):
        measured = measure(net, prop, options.repeats, peers)
    if options.json:
        print(json.dumps(measured, indent=1))
        return
    for rows in measured.values():
        print("", *(f"{what:>14} {seconds:7.3f}" for what, seconds in rows.items()), sep="\n")


def measure(net: Path, prop: Path, repeats: int, peers: Mapping[str, str] | None = None) -> dict[str, dict[str, float]]:
    """Medians over ``repeats`` turns of one process of each kind: the parts, their sum, the command, bare torch, peers.

    ``peers``: a command by name, with {net} and {prop} in it.
    """
    commands = {
        "all steps": [sys.executable, "-c", STEPS, str(net), str(prop)],
        "assay verify": [sys.executable, "-m", "assay", "verify", str(net), str(prop)],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    for name, text in (peers or {}).items():
        commands[name] = [word.format(net=net.resolve(), prop=prop.resolve()) for word in shlex.split(text)]
    totals: dict[str, list[float]] = {name: [] for name in commands}
    parts: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, command in commands.items():
            printed, seconds = run(command)
            totals[name].append(seconds)
            if name == "all steps":
                marks: dict[str, float] = json.loads(printed)
                for what, spent in {**marks, "exit": seconds - sum(marks.values())}.items():
                    parts.setdefault(what, []).append(spent)
    return {
        "parts": {what: round(median(seconds), 4) for what, seconds in parts.items()},
        "processes": {name: round(median(seconds), 4) for name, seconds in totals.items()},
    }


def run(command: list[str]) -> tuple[str, float]:
    """What a process prints, and the CPU seconds that it and its children take; one thread each."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in ANSWERED:  # a command that fails is quick, and no measurement
        raise SystemExit(f"{shlex.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def files(given: list[Path]) -> Iterator[tuple[Path, Path]]:
    """``given``, or two files for as long as the block runs."""
    if given:
        yield given[0], given[1]
        return
    from assay.models import data, zoo
    from assay.verify.core.network import to_network
    from assay.verify.core.problem import Problem
    from assay.verify.frontends.onnx import write_onnx
    from assay.verify.frontends.vnnlib import write_vnnlib

    samples = data.load("digits").take(1)
    network = to_network(zoo.load("digits-mlp-pgd"), samples.shape)
    problem = Problem.robustness(network, samples.x[0], int(samples.y[0]), 0.02)
    with tempfile.TemporaryDirectory() as folder:
        net, prop = Path(folder, "net.onnx"), Path(folder, "prop.vnnlib")
        write_onnx(network, net)
        write_vnnlib(problem, prop)
        yield net, prop


if __name__ == "__main__":
    main()
