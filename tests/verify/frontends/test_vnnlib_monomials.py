"""Products, powers and quotients in properties: values and bounds of what they are, and verdicts that keep to them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, ResourceError
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.frontends.vnnlib import Property, parse_vnnlib
from assay.verify.registry import get_bounder, get_verifier
from assay.witness import outputs
from tests.breadth import seeds
from tests.nets import generator, random_mlp

DECLARED = "".join(f"(declare-const {kind}_{i} Real)" for kind in "XY" for i in range(2))
BOX = "(assert (and (>= X_0 -0.5) (<= X_0 1) (>= X_1 0.25) (<= X_1 1)))"
FORMS = {
    "(* Y_0 Y_1)": lambda x, y: y[:, 0] * y[:, 1],
    "(* Y_0 X_1 (- Y_1 2))": lambda x, y: y[:, 0] * x[:, 1] * (y[:, 1] - 2),
    "(* X_0 X_0)": lambda x, y: x[:, 0].square(),
    "(* (+ Y_0 Y_1) (+ Y_1 Y_0) (* -3 X_0))": lambda x, y: -3 * x[:, 0] * (y[:, 0] + y[:, 1]).square(),
    "(* Y_0 Y_0 Y_0 (+ 1 (* Y_1 Y_1)))": lambda x, y: y[:, 0] ** 3 * (1 + y[:, 1].square()),
    "(/ (+ Y_0 0.1) X_1 2)": lambda x, y: (y[:, 0] + 0.1) / x[:, 1] / 2,
    "(* (/ Y_1 (+ (* Y_0 Y_0) 1)) (+ (* Y_0 Y_0) 1) (+ (* Y_0 Y_0) 1))": lambda x, y: y[:, 1] * (y[:, 0].square() + 1),
}


def read(text: str) -> Property:
    return parse_vnnlib(DECLARED + BOX + text)


def identity() -> Network:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    return to_network(layer.eval(), (2,))


def of(text: str, network: Network | None = None) -> Problem:
    (problem,) = read(text).problems(network or identity())
    return problem


@pytest.mark.parametrize("form", list(FORMS))
@seeds(1, of=8)
def test_bounds_of_products_hold_and_values_are_theirs(form: str, seeds: range) -> None:
    for seed in seeds:
        bounded(form, seed)


def bounded(form: str, seed: int) -> None:
    network = to_network(random_mlp(seed, (2, 8, 2)), (2,))
    problem = of(f"(assert (<= {form} 0.25))", network)
    x = problem.region.box().lower + torch.rand(400, 2, generator=generator(seed)).double() * torch.tensor([1.5, 0.75])
    x[0], x[1] = problem.region.box().lower, problem.region.box().upper
    wanted = FORMS[form](x, network(x))
    rows = problem.spec.rows(problem.network(x))
    scale = ((rows[0, 0] - rows[1, 0]) / (wanted[0] - wanted[1])).item()
    torch.testing.assert_close(rows[:, 0], scale * (wanted - 0.25))
    assert problem.network.oracle is not None
    x32 = x.float()
    exact = FORMS[form](x32.double(), network.oracle(x32).double() if network.oracle else network(x32.double()))
    torch.testing.assert_close(problem.spec.rows(problem.network.oracle(x32))[:, 0], scale * (exact - 0.25))
    for name in ("ibp", "crown", "alpha-crown"):
        bounds = get_bounder(name).bound(problem.network, problem.region, problem.spec.A, Budget(seconds=60))
        lower, upper = ((end[0] - problem.spec.b) for end in (bounds.lower, bounds.upper))
        assert bool(((rows >= lower) & (rows <= upper)).all()), name


def test_verdicts_keep_to_the_product() -> None:
    """x0 + x1 over the box, squared, is between 0 and 4."""
    auto = get_verifier("auto")
    square = "(* (+ Y_0 Y_1) (+ X_0 X_1))"
    assert auto.verify(of(f"(assert (>= {square} 4.001))"), Budget(seconds=20)).verdict is Verdict.VERIFIED
    assert auto.verify(of("(assert (<= (* Y_0 Y_0) -1e-9))"), Budget(seconds=20)).verdict is Verdict.VERIFIED
    problem = of(f"(assert (>= {square} 3.9))")
    found = auto.verify(problem, Budget(seconds=20))
    assert found.verdict is Verdict.FALSIFIED
    assert found.counterexample is not None
    assert float(found.counterexample.double().sum().square()) >= 3.9
    assert outputs(problem.network, found.counterexample).tolist() == found.counterexample.flatten().tolist()


def test_a_divisor_that_may_be_0_proves_nothing() -> None:
    over = of("(assert (<= (/ 1 Y_0) -100))")
    for name in ("ibp", "crown", "auto"):
        assert get_verifier(name).verify(over, Budget(seconds=5)).verdict is not Verdict.VERIFIED
    kept = of("(assert (<= (* Y_0 (/ 1 Y_0)) 0.5))")  # SMT-LIB says nothing of 1 / 0
    assert get_verifier("crown").verify(kept).verdict is Verdict.UNKNOWN


def test_what_is_the_same_is_one_product() -> None:
    prop = read("(assert (and (<= (* 2 Y_0 (* 3 Y_1)) 6) (>= (* Y_1 (- Y_0)) -2) (<= (+ (* Y_0 Y_1) Y_0) 1)))")
    assert len(prop.monomials) == 1
    gone = read("(assert (<= (- (* Y_0 (+ Y_1 1)) (* (+ 1 Y_1) Y_0)) 0))")
    assert not gone.monomials


def test_inputs_that_are_one_are_one_in_products() -> None:
    equal = "(assert (= X_0 X_1))"
    prop = read(equal + "(assert (<= (* X_0 (- X_1) Y_0) 1))(assert (<= (* (- X_0 X_1) Y_1) 5))")
    (monomial,) = prop.monomials
    assert [exponent for _, exponent in monomial.factors] == [2, 1]
    assert prop.linked == (0,)


@pytest.mark.parametrize(
    ("term", "error", "message"),
    [
        ("(/ Y_0 0)", InputError, "a division by zero"),
        ("(/ Y_0 (- X_0 X_0))", InputError, "a division by zero"),
        ("(/ Y_0)", InputError, "at least 1 term"),
        (f"(* {' '.join(['Y_0'] * 17)})", ResourceError, "more than 16 factors"),
        (f"{'(* Y_1 (+ 1 ' * 9}Y_0{'))' * 9}", ResourceError, "more than 8 sums"),
    ],
)
def test_what_is_too_much_is_refused(term: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(f"(assert (<= {term} 1))")


def test_a_file_of_several_networks_multiplies_their_outputs(tmp_path: Path) -> None:
    pytest.importorskip("vnnlib")
    one = "(declare-network {0} (declare-input X{0} real [2]) (declare-output Y{0} real [2]))"
    text = f"(vnnlib-version <2.0>){one.format('f')}{one.format('g')}"
    text += "".join(f"(assert (and (>= X{n}[{i}] 0.0) (<= X{n}[{i}] 1.0)))" for n in "fg" for i in range(2))
    prop = parse_vnnlib(text + "(assert (> (* Yf[0] Yg[1]) 1.0))")
    assert [str(monomial) for monomial in prop.monomials] == ["(* Y_0 Y_3)"]
