"""Several methods on the same questions: how many each one answers, how tight its bounds are, and what it takes.

python examples/comparing_methods.py
"""

from __future__ import annotations

import time

from assay.models import data, zoo
from assay.verify import Budget, Problem, Verdict, get_verifier, to_network

# Any method of `assay methods`, with its options in parentheses.
METHODS = ("ibp", "crown", "crown(dtype=float32)", "auto")


def main() -> None:
    """One question a sample: is its label the only answer within a distance of 0.05 in every pixel?"""
    samples = data.load("digits").take(50)
    network = to_network(zoo.load("digits-mlp-pgd"), samples.shape)  # read once, used for all problems
    problems = Problem.robustness_many(network, samples.x, samples.y, eps=0.05)

    print(f"{'method':22} verified  falsified  unknown  mean margin  seconds")
    for name in METHODS:
        verifier = get_verifier(name)
        begun = time.perf_counter()
        many = getattr(verifier, "verify_many", None)  # most methods are faster on many problems at once
        # The budget is for all problems together where a method takes them together.
        results = many(problems, Budget(60)) if many else [verifier.verify(problem, Budget(60)) for problem in problems]
        seconds = time.perf_counter() - begun

        count = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
        # The margin is a proven lower bound of how far the label stays ahead; the larger the tighter.
        margins = [result.margin for result in results if result.margin is not None]
        mean = f"{sum(margins) / len(margins):.3f}" if margins else "none"
        verified, falsified, unknown = (count[v] for v in (Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN))
        print(f"{name:22} {verified:8}  {falsified:9}  {unknown:7}  {mean:>11}  {seconds:7.2f}")


if __name__ == "__main__":
    main()
