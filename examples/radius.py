"""The robust radius of one image, from both sides: the largest eps that is certified, the smallest that is broken.

python examples/radius.py
"""

from __future__ import annotations

from collections.abc import Callable

from assay.attacks import get_attack
from assay.models import data, zoo
from assay.verify import Budget, Network, Problem, Verdict, get_verifier, to_network

SAMPLE = 3
STEPS = 12  # each halves the interval


def bisect(holds: Callable[[float], bool], low: float = 0.0, high: float = 0.5) -> tuple[float, float]:
    """An eps at which ``holds`` is true (or 0), and one at which it is false (or ``high``), close together."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def bracket(network: Network) -> tuple[float, float]:
    """Every radius up to the first number is proven safe; within the second one there is a counterexample."""
    samples = data.load("digits")
    x, label = samples.x[SAMPLE], int(samples.y[SAMPLE])

    def certified(eps: float) -> bool:
        problem = Problem.robustness(network, x, label, eps)
        return get_verifier("crown").verify(problem, Budget(10)).verdict is Verdict.VERIFIED

    def withstands(eps: float) -> bool:
        problem = Problem.robustness(network, x, label, eps)
        return not bool(get_attack("pgd").search([problem]).success)

    # CROWN may fail at an eps and succeed at a larger one, so this is a certified radius, if not always the largest.
    return bisect(certified)[0], bisect(withstands)[1]


def main() -> None:
    """A proof holds for all smaller radii too, a counterexample for all larger ones: the truth lies in between."""
    low, high = bracket(to_network(zoo.load("digits-mlp-pgd"), (1, 8, 8)))
    print(f"sample {SAMPLE}: robust within {low:.4f} (crown), not within {high:.4f} (pgd)")


if __name__ == "__main__":
    main()
