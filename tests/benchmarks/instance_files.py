"""A small folder of instances whose answers are known by hand, and methods that misbehave, known by entry points."""

from __future__ import annotations

import ctypes
import gzip
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from assay.verify.backends.ibp import IBP
from assay.verify.core.network import chain
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.frontends.onnx import write_onnx
from assay.verify.solving.stages import Stage

ROOT = Path(__file__).parents[2]

BOX = "(assert (and (>= X_0 {0}) (<= X_0 {1}) (>= X_1 {2}) (<= X_1 {3})))"
SAFE, BROKEN = (0.6, 0.9, 0.1, 0.4), (0.1, 0.9, 0.1, 0.9)
WORSE = "(assert (>= Y_1 Y_0))"
DECLARED = "\n".join(f"(declare-const {name}_{i} Real)" for name in "XY" for i in range(2))


def prop(*boxes, unsafe=WORSE):
    """A property: the input lies in one of the boxes, the output in the unsafe set."""
    if len(boxes) == 1:
        return f"{DECLARED}\n{BOX.format(*boxes[0])}\n{unsafe}\n"
    cases = " ".join(BOX.format(*box).removeprefix("(assert ").removesuffix(")") for box in boxes)
    return f"{DECLARED}\n(assert (or {cases}))\n{unsafe}\n"


# Of the network y = x on non-negative inputs; expected verdicts.
PROPERTIES = {
    "safe": (prop(SAFE), "unsat"),
    "broken": (prop(BROKEN), "sat"),
    "one-broken": (prop(SAFE, BROKEN), "sat"),
    "both-safe": (prop(SAFE, (0.7, 0.8, 0.2, 0.3)), "unsat"),
}


def net(path):
    """y = relu(x) on two inputs; a negative one is mirrored by a second pair of neurons that cancels."""
    eye = torch.eye(2)
    ops = [Linear(torch.cat([eye, -eye]), torch.zeros(4)), Relu(), Linear(torch.cat([eye, -eye], 1), torch.zeros(2))]
    write_onnx(chain((2,), ops), path)
    return path


def suite(folder, benchmark="tiny", seconds=20, packed=("safe",)):
    """``folder/benchmark`` with one instance for each of PROPERTIES; returns the folder."""
    home = folder / benchmark
    (home / "vnnlib").mkdir(parents=True)
    net(home / "net.onnx")
    lines = []
    for name, (text, _) in PROPERTIES.items():
        path = home / "vnnlib" / f"{name}.vnnlib"
        if name in packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        lines.append(f"net.onnx,vnnlib/{name}.vnnlib,{seconds}\n")
    (home / "instances.csv").write_text("".join(lines))
    return folder


def expected(folder, benchmark="tiny", **changed):
    """expected.csv for :func:`suite`, with some verdicts changed."""
    verdicts = {name: verdict for name, (_, verdict) in PROPERTIES.items()} | changed
    lines = [f"{benchmark},net.onnx,vnnlib/{name}.vnnlib,{verdict},known" for name, verdict in verdicts.items()]
    path = folder / "expected.csv"
    path.write_text("\n".join(["benchmark,onnx,vnnlib,verdict,source", *lines]) + "\n")
    return path


class _Fake:
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem):
        return None

    def open(self, problem, reason=Reason.INCOMPLETE):
        return Result(problem.id, repr(self), Verdict.UNKNOWN, reason)


@dataclass(frozen=True)
class Hangs(_Fake):
    """Never comes back; ``deaf``: keeps the interpreter's lock as well, so that no other thread runs."""

    deaf: bool = False
    name: ClassVar[str] = "hangs"

    def verify(self, problem, budget):
        print("noise on stdout")
        (ctypes.PyDLL(None) if self.deaf else ctypes.CDLL(None)).sleep(1000)
        raise AssertionError


@dataclass(frozen=True)
class Eats(_Fake):
    """Takes ever more memory, and the time that it takes to touch it."""

    name: ClassVar[str] = "eats"

    def verify(self, problem, budget):
        kept = []
        while True:
            kept.append(b"x" * 2**24)
            time.sleep(0.005)


@dataclass(frozen=True)
class Dies(_Fake):
    """Kills its process; with ``mark`` only where there is no such file yet, which it then makes."""

    mark: str = ""
    number: int = signal.SIGSEGV
    name: ClassVar[str] = "dies"

    def verify(self, problem, budget):
        if not (self.mark and Path(self.mark).exists()):
            if self.mark:
                Path(self.mark).touch()
            os.kill(os.getpid(), self.number)
            time.sleep(60)
        return self.open(problem)


@dataclass(frozen=True)
class Lies(_Fake):
    """Verifies whatever it is asked; with ``point`` falsifies it, by a point outside of every box."""

    point: bool = False
    name: ClassVar[str] = "lies"

    def verify(self, problem, budget):
        if self.point:
            return Result(problem.id, repr(self), Verdict.FALSIFIED, counterexample=torch.tensor([-5.0, 5.0]))
        return Result(problem.id, repr(self), Verdict.VERIFIED, margin=1e-9)


@dataclass(frozen=True)
class Says(_Fake):
    """Gives up after some seconds, for the reason that it is told, or raises; leaves a line in ``log`` each time."""

    what: str = "incomplete"
    seconds: float = 0.0
    log: str = ""
    name: ClassVar[str] = "says"

    def verify(self, problem, budget):
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()} {problem.id}\n")
        time.sleep(self.seconds)
        if self.what == "bug":
            raise ZeroDivisionError("x / 0")
        return self.open(problem, Reason(self.what))


@dataclass(frozen=True)
class Stalls(_Fake):
    """Intervals, after which nothing comes back."""

    name: ClassVar[str] = "stalls"

    def stages(self):
        return [Stage(IBP()), Stage(Hangs())]

    def verify(self, problem, budget):
        raise AssertionError("whoever has stages is asked stage by stage")


FAKES = (Hangs, Eats, Dies, Lies, Says, Stalls)


def register(folder, monkeypatch):
    """Make FAKES known, in this process and its children, by the entry points of a distribution in ``folder``."""
    home = folder / "site"
    information = home / "assay_fakes-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: assay-fakes\nVersion: 1.0\n")
    lines = [f"{fake.name} = {__name__}:{fake.__name__}" for fake in FAKES]
    (information / "entry_points.txt").write_text("\n".join(["[assay.verifiers]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(home))
    paths = [str(home), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
