"""Certificates of smoothed classifiers: draws that are made again, and what they show."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache
from itertools import islice
from math import comb, inf
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from assay.verify.backends.smoothing.confidence import clopper_pearson_lower
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.backends.smoothing.noises import Gaussian, Uniform
from assay.verify.backends.smoothing.sampling import Stream
from assay.verify.check import norms, question
from assay.verify.check.certificate import Certificate
from assay.verify.check.norms import Decimal
from assay.verify.check.question import Rejected
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Result, Verdict
from assay.verify.solving import parts, proofs
from tests import nets

N = 400


@cache
def network() -> Network:
    return to_network(nets.random_mlp(1, (3, 6, 3)), (3,))


def posed(eps: float = 0.02, norm: float = 2.0, rank: int = 0) -> Problem:
    x = torch.tensor([0.5, 0.25, 0.625])
    label = int(network()(x[None])[0].argsort(descending=True)[rank])
    return Problem.robustness(network(), x, label, eps, norm, None)


def smoothed(problem: Problem, seed: int = 0, **options: Any) -> Result:
    return Smoothing(**{"n": N, "sigma": 0.25, **options}).verify(problem, Budget(seed=seed))


@cache
def told() -> Certificate:
    problem = posed()
    result = smoothed(problem)
    assert result.verdict is Verdict.VERIFIED
    return proofs.certify(problem, result)


def claims(certificate: Certificate) -> dict[str, Any]:
    found = dict(question.opened(certificate.content)[0])
    return {key: value for key, value in found.items() if key not in ("format", "model", "property")}


def changed(**new: Any) -> Certificate:
    old = told()
    return Certificate.of({**claims(old), **new}, {}, old.model, old.prop)


@pytest.mark.parametrize("norm", [1.0, 2.0, inf])
@pytest.mark.parametrize("options", [{}, {"noise": "uniform"}, {"test": "staged"}, {"test": "pilot"}])
def test_what_is_certified_is_accepted_with_its_confidence(options: dict[str, Any], norm: float) -> None:
    problem = posed(0.01, norm)
    result = smoothed(problem, **options)
    assert result.verdict is Verdict.VERIFIED
    report = proofs.certify(problem, result).check()
    assert (report["claim"], report["subject"]) == ("smoothed", result.subject)
    assert report["confidence"] == result.confidence
    assert report["draws"] == result.stats["n"]


@pytest.mark.parametrize(("noise", "norm"), [("gaussian", 2.0), ("uniform", 1.0), ("uniform", 2.0)])
def test_radii_are_those_that_the_method_certifies(noise: str, norm: float) -> None:
    result = smoothed(posed(0.01, norm), noise=noise)
    own = claims(proofs.certify(posed(0.01, norm), result))
    for eps, holds in ((0.999 * result.stats["radius"], True), (1.001 * result.stats["radius"], False)):
        files = parts.Files.of_problem(posed(eps, norm), True)
        certificate = Certificate.of(own, {}, files.model, files.prop)
        if holds:
            assert certificate.check()["draws"] == N
        else:
            with pytest.raises(Rejected, match="do not show"):
                certificate.check()


def test_others_counts_seeds_and_properties_are_rejected() -> None:
    count, seed = claims(told())["count"], 12345
    with pytest.raises(Rejected, match="are said to succeed"):
        changed(count=N - count).check()
    with pytest.raises(Rejected, match="are said to succeed"):
        changed(count=min(N, count + 30) if count < N else count - 30).check()
    wrong = smoothed(posed(rank=2), seed)
    assert wrong.verdict is not Verdict.VERIFIED
    files = parts.Files.of_problem(posed(rank=2), True)
    for new in ({}, {"count": 0}, {"count": N, "seed": seed}):
        with pytest.raises(Rejected):
            Certificate.of({**claims(told()), **new}, {}, files.model, files.prop).check()
    for other in (told().prop + b"\n", told().prop.replace(b'"norm": "2.0"', b'"norm": "1.0"')):
        with pytest.raises(Rejected, match="another property"):
            Certificate(told().content, told().model, other).check()


def test_another_seed_makes_other_draws() -> None:
    """Near a boundary, where counts tell seeds apart."""
    near = posed(1e-6)
    counts = {seed: smoothed(near, seed, sigma=2.0).certificate for seed in range(3)}
    totals = {seed: record["counts"][near.label] for seed, record in counts.items() if record is not None}
    assert len(set(totals.values())) > 1
    files = parts.Files.of_problem(near, True)
    base = {**claims(told()), "scale": (2.0).hex()}
    for seed, count in totals.items():
        for other, mine in totals.items():
            certificate = Certificate.of({**base, "seed": seed, "count": mine}, {}, files.model, files.prop)
            try:
                certificate.check()
                said = ""
            except Rejected as why:
                said = str(why)
            assert ("are said to succeed" in said) == (abs(count - mine) > 0), (seed, other)


@pytest.mark.parametrize(
    "new",
    [
        {"alpha": "nan"},
        {"alpha": (0.0).hex()},
        {"alpha": (1.0).hex()},
        {"alpha": (1e-5).hex()},
        {"ledger": []},
        {"ledger": [[N, (0.1).hex()]]},
        {"ledger": [[N, "nan"]]},
        {"ledger": [[N, (-0.1).hex()], [N, (0.1).hex()]]},
        {"ledger": [[N, (0.0006).hex()], [N, (0.0006).hex()]]},
        {"ledger": [[-N, (1e-4).hex()]]},
        {"ledger": [[10, (1e-4).hex()]], "count": 10},
        {"ledger": [[float(N), (1e-4).hex()]]},
        {"ledger": [[1 << 40, (1e-4).hex()]]},
        {"scale": "inf"},
        {"scale": "nan"},
        {"scale": (0.0).hex()},
        {"scale": (-0.25).hex()},
        {"scale": (50.0).hex()},
        {"noise": "laplace"},
        {"noise": "cauchy"},
        {"shape": [4]},
        {"shape": [-1, -3]},
        {"seed": -1},
        {"seed": 0.0},
        {"seed": "0"},
        {"count": float("nan")},
        {"count": None},
        {"semantics": "float32-any-order"},
        {"kind": "tree"},
    ],
    ids=str,
)
def test_forged_claims_are_rejected(new: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        changed(**new).check()


def test_a_ball_lies_in_one_box() -> None:
    old = told()
    said = json.loads(old.prop)
    said["property"] += "\n(assert (or (<= X_0 0.5) (<= X_0 1000)))"
    with pytest.raises(Rejected, match="several boxes"):
        Certificate.of(claims(old), {}, old.model, json.dumps(said).encode()).check()


def test_the_shape_of_the_noise_is_the_models_own() -> None:
    """It goes into the hash that the draws begin from: others would be a choice."""
    shape = claims(told())["shape"]
    for other in ([*shape, 1], [1, 1, 1, *shape]):
        with pytest.raises(Rejected, match="of another shape"):
            changed(shape=other).check()


@pytest.mark.parametrize("size", [1, 7, 16, 64])
@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
def test_noise_is_that_of_torch_but_for_rounding(noise: str, size: int) -> None:
    x = torch.linspace(0, 1, size)
    kind: Any = Gaussian(0.25) if noise == "gaussian" else Uniform(0.25)
    stream = Stream(lambda t: t, kind, x, size, 3, "estimate")
    want = [noisy.clone().numpy() for noisy, _ in stream.outputs(300)]
    found = islice(norms.noisy(noise, 0.25, 3, (size,), x.double().numpy()), 3)
    assert np.allclose(np.stack(list(found)), np.stack(want), atol=3e-6)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (10, 7), (60, 31), (400, 390), (400, 400)])
def test_tails_of_the_binomial_are_bounded_from_above(n: int, k: int) -> None:
    for p in (0.5, 0.75, 0.99):
        exact = sum(comb(n, i) * Fraction(p) ** i * (1 - Fraction(p)) ** (n - i) for i in range(k, n + 1))
        found = norms.tail(n, k, Decimal(p))
        assert exact <= Fraction(found) <= exact * (1 + Fraction(1, 10**40))
    for alpha in (0.001, 0.05):
        lower = clopper_pearson_lower(k, n, alpha)
        assert norms.tail(n, k, Decimal(lower * (1 - 1e-9))) <= Decimal(alpha)
        assert norms.tail(n, k, Decimal(min(lower * (1 + 1e-9) + 1e-9, 0.999999))) >= Decimal(alpha) or k == n


@pytest.mark.parametrize("z", [0.0, 1e-9, 0.3, 1.0, 2.5, 4.0, 8.0, 20.0])
def test_the_normal_distribution_is_bounded_from_above(z: float) -> None:
    found = norms.normal(Decimal(z))
    assert float(found) == pytest.approx(float(ndtr(z)), rel=1e-14)
    assert found >= Decimal("0.5")
    if z == 1.0:  # 0.84134474606854294858523254563...
        assert Decimal("0.8413447460685429485852325456") <= found <= Decimal("0.8413447460685429485852325457")


@pytest.mark.parametrize("options", [{"certificate": "renyi"}, {"test": "anytime"}, {"noise": "laplace"}], ids=str)
def test_what_is_beyond_the_checker_is_said(options: dict[str, Any]) -> None:
    problem = posed(1e-3, 1.0 if "noise" in options else 2.0)
    result = smoothed(problem, **options)
    assert result.verdict is Verdict.VERIFIED
    with pytest.raises(UnsupportedError, match="beyond th"):
        proofs.certify(problem, result)
