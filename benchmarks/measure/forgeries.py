"""Forged certificates: thousands of mutants of proofs, told of what is false; none may be accepted.

    python -m assay.benchmarks.measure.forgeries [--mutants 10000] [--nets 8] [--seed 0]

Small networks of random weights, some of layers of one neuron, some of convolutions or with sums of values that are
read twice, have a property that is proved, by a tree of splits, with bounds of neurons by trees of their own too, by
one of boxes, or by a point. Mutants of each proof are told of a
property that is false by a little, of which the same network is the model, or of another network's. They are made of
the zip's bytes, of the bytes in its files with their checksums mended, of the claims, and of the arrays. One line a
kind: how many were made, how many were accepted (none may be), and of the same mutants told of what is true, of which
one in ten is looked at, how many were looked at and accepted, and how many of these not in fractions (none may be, as
rounding is charged). Of those that are false one in ten is told in fractions too.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.benchmarks.measure.proofs import TAMPERS, told_of
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.check import question
from assay.verify.check.certificate import Certificate, packed
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.solving import parts
from assay.verify.solving.parts import Files

SIZES = ((2, 5, 4, 2), (3, 4, 4, 3), (4, 8, 3), (2, 3, 3, 3, 2), (3, 6, 1, 5, 2), (2, 1, 7, 2, 4, 1))
TREE = BaB(neurons=100, passes=1, first=1, below=1, together=3, steps=1, proof=True)  # many nodes
REFINED = BaB(first=0, leaves=6, proof=True)  # bounds by trees of their own
BOXES = InputSplit(batch=4, fill=0, proof=True)
POINTS = 20_000
OFTEN = 0.1  # mutants are told of what is true

Mutation = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True, eq=False)
class Case:
    """A proof of a ``claim`` that is true, and the files of which it is false, of which the proof may be told."""

    claim: str
    proof: Certificate
    false: tuple[Files, ...]


def cases(seed: int) -> list[Case]:
    """Of one network: proofs that an output stays above a threshold, and that a point falls below a higher one."""
    shape, build = NETS[seed % len(NETS)]
    torch.manual_seed(seed)
    network = to_network(build().double().eval(), shape)
    torch.manual_seed(seed + 1000)
    other = to_network(build().double().eval(), shape)
    box = Box(torch.zeros(shape), 0.6 * torch.ones(shape))
    spread = torch.rand(POINTS, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = 0.6 * (2 * spread - 0.5).clamp(0, 1)  # many of them at faces, where the least values are
    y = network(points)[:, 0]
    least, wide, outputs = float(y.min()), float(y.max() - y.min()), network(points[:1]).shape[1]

    def above(threshold: float, model: Any = network) -> Problem:
        return Problem(model, box, Spec.halfspaces([[1.0] + [0.0] * (outputs - 1)], [threshold]))

    true, false = above(least - 0.02 * wide), above(least + 1e-9 + 1e-6 * wide)
    lower = float(other(points)[:, 0].min())
    files = Files.of_problem(true)
    wrong = (Files.of_problem(false), Files.of_problem(above(max(least - 0.02 * wide, lower + 1e-6), other)))
    found = []
    for method in (TREE, REFINED, BOXES):
        record = method.verify(true).certificate
        part = parts.of_search(files, 0, true.spec, record)
        if part is not None:
            found.append(Case("unsat", files.certificate("tree", "real", [part]), wrong))
    if found:  # otherwise the property may be false
        point = points[int(y.argmin())].flatten().tolist()
        found.append(Case("sat", parts.counterexample(wrong[0], point), (files,)))
    return found


def mlp(*sizes: int) -> nn.Module:
    """Random weights, ReLUs between."""
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Sum(nn.Module):
    """What a ``body`` makes of values, added to these."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x features) to as many features."""
        y: Tensor = self.body(x)
        return y + x


def residual() -> nn.Module:
    """Sums of which both parts are read, and a ReLU of a ReLU."""
    first = Sum(nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.ReLU())
    return nn.Sequential(nn.Linear(3, 4), first, nn.ReLU(), Sum(mlp(4, 3, 4)), nn.ReLU(), nn.Linear(4, 2))


def convolutional() -> nn.Module:
    """Strides and padding, a sum, and slopes below 0."""
    first = nn.Conv2d(1, 2, (2, 3), stride=(2, 1), padding=(0, 1))
    block = Sum(nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1))
    return nn.Sequential(first, block, nn.LeakyReLU(0.25), nn.Flatten(), nn.Linear(4, 2))


NETS: tuple[tuple[tuple[int, ...], Callable[[], nn.Module]], ...] = (
    *(((sizes[0],), partial(mlp, *sizes)) for sizes in SIZES),
    *(((3,), residual), ((1, 2, 2), convolutional)),
)


def region(content: bytes, rng: np.random.Generator) -> bytes:
    """A run of bytes is overwritten: by noise, zeros, one bit, or bytes from elsewhere."""
    data = bytearray(content)
    size = min(len(data), 1 << int(rng.integers(0, 7)))
    at, source = (int(rng.integers(len(data) - size + 1)) for _ in range(2))
    kind = rng.integers(4)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    else:
        data[at : at + size] = (bytes(size), rng.bytes(size), data[source : source + size])[kind - 1]
    return bytes(data)


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    """The end is missing."""
    return content[: rng.integers(len(content))]


def inside(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of one file of the zip are overwritten, or its end is missing; its checksum is mended."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        data = {name: old.read(name) for name in old.namelist()}
    names = [name for name in data if name != "cert.json"] or ["cert.json"]
    name = names[rng.integers(len(names))] if rng.random() < 0.8 else "cert.json"
    data[name] = (truncated if rng.random() < 0.1 else region)(data[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for each, part in data.items():
            new.writestr(each, part)
    return buffer.getvalue()


def swapped(content: bytes, rng: np.random.Generator) -> bytes:
    """Two arrays change their names, or one is gone."""
    claims, arrays = question.opened(content)
    names = list(arrays)
    if names:
        one, other = (names[rng.integers(len(names))] for _ in range(2))
        arrays[one], arrays[other] = arrays[other], arrays[one]
        if rng.random() < 0.3:
            del arrays[one]
    return packed(claims, arrays)


def claimed(content: bytes, rng: np.random.Generator) -> bytes:
    """Another kind, other semantics, boxes or points; or layers are bounded as far as their signs ask for it."""
    claims, arrays = question.opened(content)
    kind = rng.integers(5)
    if kind == 0:
        claims["kind"] = ("tree", "counterexample")[rng.integers(2)]
        claims.setdefault("point", [(0.3).hex()] * int(rng.integers(1, 5)))
        claims.setdefault("parts", [])
    elif kind == 1:
        claims["semantics"] = ("real", "float32-any-order", "none")[rng.integers(3)]
    elif "point" in claims:
        claims["point"] = [float(v).hex() for v in rng.uniform(-0.1, 0.7, len(claims["point"]))]
    elif claims["parts"] and kind == 2:
        claims["parts"] = claims["parts"][: rng.integers(2)] * int(rng.integers(1, 3))
    elif claims["parts"] and kind == 3:
        claims["parts"][0]["layers"] = [["signs"] for _ in claims["parts"][0]["layers"]]
    elif claims["parts"]:
        sides = claims["parts"][0]
        sides["lower"], sides["upper"] = [(0.1).hex()] * len(sides["lower"]), [(0.2).hex()] * len(sides["lower"])
    return packed(claims, arrays)


def numbers(name: str) -> Mutation:
    """Arrays of a tree are tampered with, one to three times."""

    def mutated(content: bytes, rng: np.random.Generator) -> bytes:
        claims, arrays = question.opened(content)
        arrays = {key: array.copy() for key, array in arrays.items()}
        for _ in range(rng.integers(1, 4)):
            TAMPERS[name](claims, arrays, rng)
        return packed(claims, arrays)

    return mutated


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Splits are of other neurons, or leaves are told in another order: signs are changed with their halves."""
    claims, arrays = question.opened(content)
    name = "0/tree" if "0/tree" in arrays else "0/boxes"
    if name in arrays and arrays[name].size:
        tree = arrays[name] = arrays[name].copy()
        some = rng.integers(len(tree), size=rng.integers(1, 4))
        tree[some] = rng.permutation(tree)[: len(some)]
        if rng.random() < 0.3:
            arrays[name] = tree[::-1].copy()
    return packed(claims, arrays)


WHOLE: dict[str, Mutation] = {
    "bytes of the zip": region,
    "truncated": truncated,
    "bytes inside": inside,
    "arrays swapped": swapped,
    "claims": claimed,
    "splits flipped": flipped,
}
OF_TREES: dict[str, Mutation] = {f"array {name}": numbers(name) for name in TAMPERS}


def told(content: bytes, proof: Certificate, files: Files) -> Certificate:
    """A mutant said to be of other files; as it is where nothing can be read of it."""
    mutant = replace(proof, content=content)
    try:
        return told_of(mutant, files)
    except Exception:  # whatever a broken zip makes of it
        return replace(mutant, model=files.model, prop=files.prop)


def accepted(certificate: Certificate, claim: str, exact: bool = False) -> bool:
    """Whether the checker accepts it for this claim, in fractions if it is to be ``exact``. Anything that it raises but
    a rejection is an error of its own."""
    try:
        return bool(certificate.check(exact)["claim"] == claim)
    except question.Rejected:
        return False


def arrays_of(case: Case) -> set[str]:
    """The names of the arrays of its proof."""
    return set(question.opened(case.proof.content)[1])


def measured(mutants: int, nets: int, seed: int) -> dict[str, list[int]]:
    """By kind of mutation: how many mutants were told of what is false, how many of these were accepted; the same of
    those that were told of what is true, and of these how many fractions do not accept."""
    found = [case for number in range(nets) for case in cases(seed + number)]
    having = {name: [case for case in found if f"0/{name}" in arrays_of(case)] for name in TAMPERS}
    trees = [case for case in found if "0/tree" in arrays_of(case)]
    rng, table = np.random.default_rng(seed), {name: [0, 0, 0, 0, 0] for name in WHOLE | OF_TREES}
    kinds = list((WHOLE | OF_TREES).items())
    for count in range(mutants):
        name, mutation = kinds[count % len(kinds)]
        some = (having.get(name.removeprefix("array ")) or trees) if name in OF_TREES else found
        case = some[rng.integers(len(some))]
        content = mutation(case.proof.content, rng)
        files = case.false[rng.integers(len(case.false))]
        wrong = told(content, case.proof, files)
        if rng.random() < 0.1:  # the hashes are those of the true files
            wrong = replace(case.proof, content=content, model=files.model, prop=files.prop)
        row = table[name]
        row[0] += 1
        row[1] += accepted(wrong, case.claim) or (rng.random() < OFTEN and accepted(wrong, case.claim, exact=True))
        if rng.random() < OFTEN:
            true = replace(case.proof, content=content)
            row[2] += 1
            row[3] += accepted(true, case.claim)
            row[4] += accepted(true, case.claim) and not accepted(true, case.claim, exact=True)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, measure, print; 1 if a mutant was accepted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--nets", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    table = measured(options.mutants, options.nets, options.seed)
    print(f"{'mutation':24} {'of false':>9} {'accepted':>9} {'of true':>8} {'accepted':>9} {'by floats alone':>16}")
    for name, row in table.items():
        print(f"{name:24} {row[0]:9} {row[1]:9} {row[2]:8} {row[3]:9} {row[4]:16}")
    count, forged, alone = (sum(row[i] for row in table.values()) for i in (0, 1, 4))
    print(f"{count} mutants, accepted of what is false: {forged}, of what is true and not in fractions: {alone}")
    return int(forged + alone > 0)


if __name__ == "__main__":
    raise SystemExit(main())
