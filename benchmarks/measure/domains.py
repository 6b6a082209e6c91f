"""What a domain of ``bab`` costs: many at once, with one row each, bounded and raised.

    python -m assay.benchmarks.measure.domains [--net fashion-cnn-pgd] [--eps 0.05] [--domains 256] [--steps 0,1,5]
        [--repeat 7]

Domains are the first test image's box, with as many neurons split as that takes, those whose relaxations cost most.
Milliseconds are CPU time on one thread, the least of ``--repeat`` calls: on a shared machine all others hold what its
neighbours did to the caches. Matrices are set up anew in each call; bounds of layers, which all domains share, are not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from assay.models import data, zoo
from assay.verify.backends.bab.neurons.bab import BaB, Work
from assay.verify.backends.bab.neurons.climbing import Climbing, climb
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.programs.expressions import as_array


@dataclass(frozen=True, eq=False)
class Split:
    """A network cut down to what matters, and domains of the tree of its first disjunct."""

    problem: Problem
    compact: Compact
    nodes: Nodes

    @classmethod
    def of(cls, problem: Problem, domains: int) -> Split:
        """So many domains, or the next power of two."""
        work = Work(BaB(), problem, Budget().started())
        relaxed = work.root()
        compact = Compact.of(relaxed)
        nodes = work.trees(relaxed.bounds, compact, [0]).roots()
        widest = (nodes.upper - nodes.lower)[:, 0].argsort(descending=True).tolist()
        while len(nodes) < domains and widest:
            nodes = nodes.split(torch.full((len(nodes),), widest.pop(0)))
        return cls(problem, compact, nodes)

    def bounds(self, steps: int) -> torch.Tensor:
        """Lower bounds in float32, raised in so many steps, of all domains: (domains)."""
        spec, nodes = self.problem.spec, self.nodes
        output = self.compact.output.weighed(as_array(spec.A), as_array(spec.b))
        tables = Tables(self.compact, output, torch.float32)
        kinks = Kinks.of(tables, nodes.lower, nodes.upper, nodes.phase, torch.arange(len(nodes)))
        own = Multipliers(nodes.alpha * kinks.open + kinks.fixed, nodes.beta.clone(), nodes.weight.clone())
        unit = torch.ones(len(nodes.phase), 1).expand(-1, len(nodes))
        return climb(tables, kinks, own, Climbing(steps), unit).bound


def milliseconds(split: Split, steps: int, repeat: int) -> float:
    """CPU time of the fastest call."""
    spent = []
    for _ in range(repeat + 1):
        begun = time.process_time()
        split.bounds(steps)
        spent.append(1e3 * (time.process_time() - begun))
    return min(spent)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.domains", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--net", default="fashion-cnn-pgd", help="of the zoo")
    parser.add_argument("--eps", type=float, default=0.05)
    parser.add_argument("--domains", type=int, default=256)
    parser.add_argument("--steps", default="0,1,5")
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args(argv)
    if options.domains < 1 or options.repeat < 1 or not all(s.isdecimal() for s in options.steps.split(",")):
        parser.error("expected --domains >= 1, --repeat >= 1 and numbers as --steps")
    torch.set_num_threads(1)
    test = data.load(zoo.card(options.net).data).take(1)
    model = zoo.load(options.net)
    with torch.no_grad():
        problem = Problem.robustness(model, test.x[0], int(test.y[0]), options.eps)
        split = Split.of(problem, options.domains)
        counted = f"{len(split.nodes)} domains, {split.compact.unstable} unstable neurons"
        print(f"{options.net}, eps {options.eps:g}: {counted}")
        for steps in map(int, options.steps.split(",")):
            print(f"{steps:3} steps {milliseconds(split, steps, options.repeat):9.2f} ms", flush=True)


if __name__ == "__main__":
    main()
