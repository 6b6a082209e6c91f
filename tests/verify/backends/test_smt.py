"""Tests of verify.backends.smt: enumeration's verdicts, exact at any distance from 0, and no claim without a proof."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product
from math import inf

import pytest
import torch
from torch import Tensor

from assay.verify.backends.smt import method
from assay.verify.backends.smt.encode import STEP, Values, constants, encode, jumps
from assay.verify.backends.smt.method import SMT
from assay.verify.backends.smt.question import Form, Neuron, Question
from assay.verify.backends.smt.script import script
from assay.verify.backends.smt.z3search import Answer
from assay.verify.bounds import rigorous
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Gather, Linear, Max, Relu, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.registry import get_verifier
from assay.verify.support.child import ChildError
from tests import exact, nets
from tests.breadth import seeds
from tests.contract.graphs import members, random_box, random_graph
from tests.verify.programs.cases import KINDS, case, cases

needs_marabou = pytest.mark.skipif(method.find_spec("maraboupy") is None, reason="maraboupy is not installed")


def asked(problem: Problem) -> Question:
    """The question that a problem becomes."""
    box = problem.region.box()
    batch = Box(box.lower[None], box.upper[None])
    bounds, _ = rigorous.linear_bounds(problem.network, batch, problem.spec.A[None], Budget())
    return encode(problem.network, bounds, problem.spec, Budget())


def free(problem: Problem, x: Tensor) -> tuple[Fraction, ...]:
    """A point as the question knows it."""
    box = problem.region.box()
    return tuple(Fraction(v) for v in x.double()[box.lower < box.upper].tolist())


def exact_margin(problem: Problem, disjunct: int, x: Tensor) -> Fraction:
    """Without the code under test."""
    d = problem.spec.disjuncts[disjunct]
    rows = exact.fractions(d.A) @ exact.np.array(exact.value(problem.network, x.double()), dtype=object)
    return Fraction(max(rows - exact.fractions(d.b)))


def agrees(result: Result, problem: Problem, true: float) -> None:
    """The verdict is enumeration's, and a counterexample is one exactly."""
    assert result.verdict is (Verdict.VERIFIED if true > 0 else Verdict.FALSIFIED)
    assert result.margin is None or result.margin <= true + 1e-9 * (1 + abs(true))
    if result.counterexample is not None:
        assert replay(problem, result.counterexample).confirmed
        shown = (exact_margin(problem, k, result.counterexample) for k in range(len(problem.spec.disjuncts)))
        assert min(shown) <= 0


# The encoding.


def questions() -> list[Problem]:
    """Every operation, with constants, shared nodes and images, and a specification of two disjuncts."""
    problems = [case(kind, seed)[0] for kind, seed in product(KINDS, range(4))]
    for seed in range(30):
        network = random_graph(seed, image=seed % 3 == 0, steps=6)
        rows = torch.randn(3, network.output_size, dtype=torch.float64, generator=nets.generator(seed))
        zero = torch.zeros(3, dtype=torch.float64)
        spec = Spec((Polyhedron(rows[:2], zero[:2], zero[:2] > 0), Polyhedron(rows[2:], zero[2:], zero[2:] > 0)))
        problems.append(Problem(network, Box(*random_box(network, seed)), spec))
    return problems


@pytest.mark.slow
def test_a_question_is_the_problem_exactly() -> None:
    for problem in questions():
        question, box = asked(problem), problem.region.box()
        for x in members(box.lower, box.upper, 3, seed=1):
            point = free(problem, x)
            for k in range(len(problem.spec.disjuncts)):
                assert question.margin(k, point) == exact_margin(problem, k, x)
            values = question.values(point)
            for neuron in question.neurons:
                assert neuron.lower < 0 < neuron.upper
                assert neuron.lower <= neuron.z.at(values) <= neuron.upper


@pytest.mark.slow
def test_no_true_point_is_lost_in_a_script() -> None:
    """What a point of the box makes of every variable satisfies the exact form and each relaxed one."""
    import z3

    for problem in questions()[::2]:
        question, box = asked(problem), problem.region.box()
        for x, bits in zip(members(box.lower, box.upper, 4, seed=2), (0, 1, 4, 10), strict=True):
            point = free(problem, x)
            solver = z3.SolverFor("QF_LRA", ctx=z3.Context())
            text = script(question, 0, question.margin(0, point), bits=bits)
            here = question.concerned(question.disjuncts[0])
            values = [(j, v) for j, v in enumerate(question.values(point)) if j in here]
            same = "".join(f"(assert (= x{j} (/ {v.numerator} {v.denominator})))" for j, v in values)
            solver.from_string(text + same)
            assert str(solver.check()) == "sat"


def test_stable_neurons_are_removed() -> None:
    one = torch.eye(2, dtype=torch.float64)
    ops = [Linear(one, torch.tensor([2.0, -2.0])), Relu(), Linear(one, torch.zeros(2)), Relu()]
    problem = Problem(chain((2,), ops), Box(-torch.ones(2), torch.ones(2)), Spec.halfspaces([[1.0, 1.0]], [0.0]))
    assert asked(problem).neurons == ()


@pytest.mark.parametrize("number", [0.0, 1.0, -3.0, 0.1, 5e-324, -1.7e308, 2.0**-1074 * 3, 1 / 3])
def test_numbers_are_taken_as_they_are(number: float) -> None:
    terms = constants(torch.tensor([number, 1.0], dtype=torch.float64))
    assert isinstance(terms, Values)
    assert [terms[i].form().constant for i in range(2)] == [Fraction(number), 1]


def test_no_number_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="not finite"):
        constants(torch.tensor([1.0, inf]))
    padded = chain((2,), [Gather(torch.tensor([0, -1, 1, -1]), (2, 2), fill=-inf), Max()])
    problem = Problem(padded, Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces([[1.0, 0.0]], [0.5]))
    result = SMT().verify(problem, Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)


def test_forms_and_neurons() -> None:
    half = Fraction(1, 2)
    form = Form(((0, Fraction(2)), (1, Fraction(-1))), half)
    assert form.at([half, Fraction(1)]) == half
    assert form.range([(Fraction(-1), Fraction(1)), (Fraction(0), Fraction(3))]) == (Fraction(-9, 2), Fraction(5, 2))
    neuron = Neuron(form, Fraction(-9, 2), Fraction(5, 2))
    rows = ((Form(((2, Fraction(1)),), Fraction(0)),),)
    question = Question(((Fraction(-1), Fraction(1)), (Fraction(0), Fraction(3))), (neuron,), rows, ((True,),))
    assert question.values((Fraction(1), Fraction(0))) == [1, 0, Fraction(5, 2)]
    assert not question.unsafe((Fraction(-1), Fraction(3)))  # exactly 0, which is not strictly below


@pytest.mark.parametrize("kind", STEP)
def test_a_step_function_is_its_least_value_and_its_jumps(kind: str) -> None:
    """At every eighth of intervals that begin and end at halves."""
    for low, high in ((Fraction(a, 2), Fraction(b, 2)) for a, b in product(range(-5, 6), repeat=2) if a <= b):
        steps = jumps(kind, low, high)
        for z in (Fraction(k, 8) for k in range(int(8 * low), int(8 * high) + 1)):
            passed = sum(z >= at if side == ">=" else z > at for at, side in steps)
            assert STEP[kind](low) + passed == STEP[kind](z)


# Verdicts.


@pytest.mark.parametrize("kind", KINDS)
@seeds(4, of=9)
def test_z3_agrees_with_enumeration(kind: str, seeds: range) -> None:
    asked_z3 = 0
    for seed, (problem, true) in zip(seeds, cases(kind, seeds), strict=True):
        result = SMT(steps=0, bits=(10, 0)[seed % 2]).verify(problem, Budget())
        agrees(result, problem, true)
        assert result.guarantee is Guarantee.RIGOROUS
        asked_z3 += result.stats["queries"]
    assert asked_z3 >= len(seeds) // 12


@pytest.mark.parametrize("kind", KINDS)
@seeds(3, of=5)
def test_z3_finds_the_optimum(kind: str, seeds: range) -> None:
    for problem, true in cases(kind, seeds):
        result = SMT(optimum=True).verify(problem, Budget())
        agrees(result, problem, true)
        assert result.margin == pytest.approx(true, abs=1e-9)
        assert result.stats["optimum"] == pytest.approx(true, abs=1e-9)
        minimiser = result.stats["minimiser"]
        assert min(float(exact_margin(problem, k, minimiser)) for k in range(len(problem.spec.disjuncts))) == (
            pytest.approx(true, abs=1e-9)
        )


@pytest.mark.parametrize("gap", [2.0**-30, 2.0**-45, -(2.0**-45)])
@pytest.mark.parametrize("bits", [0, 10])
def test_margins_next_to_nothing_are_told_apart(gap: float, bits: int) -> None:
    """The least of ``relu(x) + relu(y - x)`` for x, y in [1/4, 1] is exactly 1/4: relu(y) at x = y or x = 1/4."""
    first = Linear(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]), torch.zeros(2))
    network = chain((2,), [first, Relu(), Linear(torch.ones(1, 2), torch.zeros(1))])
    network = Network(network.nodes, dtype=torch.float64)
    box = Box(torch.full((2,), 0.25), torch.ones(2))
    result = SMT(bits=bits, steps=0).verify(Problem(network, box, Spec.halfspaces([[1.0]], [0.25 - gap])), Budget())
    assert result.verdict is (Verdict.VERIFIED if gap > 0 else Verdict.FALSIFIED)
    assert result.margin is None or result.margin <= gap


@pytest.mark.parametrize("strict", [False, True])
def test_exactly_at_the_edge(strict: bool) -> None:
    """relu(x) <= 0 is reached at x = 0 of [0, 1]; relu(x) < 0 is not, but neither is there a positive margin."""
    network = chain((1,), [Linear(torch.eye(1), torch.zeros(1)), Relu()])
    edge = Polyhedron(torch.ones(1, 1).double(), torch.zeros(1).double(), torch.tensor([strict]))
    for steps in (0, 20):
        problem = Problem(network, Box(-torch.ones(1), torch.ones(1)), Spec((edge,)))
        result = SMT(steps=steps).verify(problem, Budget())
        assert result.verdict is (Verdict.VERIFIED if strict else Verdict.FALSIFIED)
        assert result.margin is None or result.margin <= 0


@pytest.mark.parametrize(("B", "dtype"), [(2.0**25, torch.float32), (2.0**54, torch.float64)])
@pytest.mark.parametrize("trap", nets.NEVER_VERIFIED)
def test_float_traps_are_never_verified(trap: str, B: float, dtype: torch.dtype) -> None:
    problem = nets.trap_problem(trap, B, dtype)
    for optimum in (False, True):
        result = SMT(optimum=optimum, steps=0).verify(problem, Budget())
        assert result.verdict is not Verdict.VERIFIED
        assert result.margin is None or result.margin <= -0.5
    assert result.margin == -0.5  # of the optimum, to the last bit


def test_what_is_real_but_does_not_replay_is_unknown() -> None:
    result = SMT().verify(nets.trap_problem("N2"), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
    assert "in real arithmetic" in result.stats["explanation"]


def test_what_floating_point_alone_violates_is_no_counterexample() -> None:
    """y = x on [1/2, 1], where both the model and float64 say 0: y <= 1/4 is never reached."""
    network = to_network(nets.trap("N1", 2.0**54, torch.float64), (1,))
    problem = Problem(network, Box(torch.full((1,), 0.5), torch.ones(1)), Spec.halfspaces([[1.0]], [0.25]))
    assert network(torch.full((1, 1), 0.75, dtype=torch.float64)).item() == 0
    for steps in (0, 20):
        assert SMT(steps=steps).verify(problem, Budget()).verdict is Verdict.VERIFIED


def test_a_true_claim_about_a_trap_is_proven() -> None:
    result = SMT().verify(nets.trap_problem("N3"), Budget())
    assert (result.verdict, result.guarantee) == (Verdict.VERIFIED, Guarantee.RIGOROUS)


@needs_marabou
@pytest.mark.parametrize("kind", KINDS)
def test_marabou_agrees_with_enumeration(kind: str) -> None:
    for problem, true in cases(kind, range(8)):
        result = SMT(solver="marabou", steps=0).verify(problem, Budget())
        assert result.guarantee is Guarantee.NUMERICAL
        assert result.verdict is not (Verdict.FALSIFIED if true > 0 else Verdict.VERIFIED)
        if abs(true) > 1e-3:
            agrees(result, problem, true)


# Solvers that lie or die.


@cache
def hidden() -> list[tuple[Problem, float]]:
    """Problems that the bounds leave open."""
    open = [(p, t) for p, t in cases("mlp", range(10)) if SMT(steps=0).verify(p, Budget()).stats["queries"]]
    assert open
    return open


def test_a_point_that_is_no_counterexample_falsifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = next(problem for problem, true in hidden() if true > 0)

    def lie(function: object, arguments: tuple[Question, *tuple[object, ...]], seconds: float, memory: int) -> Answer:
        middle = tuple((low + high) / 2 for low, high in arguments[0].box)
        return Answer(point=middle, margin=Fraction(-1), queries=1)

    monkeypatch.setattr(method, "in_child", lie)
    for optimum in (False, True):
        result = SMT(optimum=optimum, steps=0).verify(problem, Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)


@pytest.mark.parametrize(
    ("failure", "reason"), [(ChildError("killed by SIGSEGV"), Reason.SOLVER), (MemoryError("much"), Reason.MEMORY)]
)
def test_a_death_decides_nothing(failure: Exception, reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, true = hidden()[0]

    def die(*arguments: object) -> Answer:
        raise failure

    monkeypatch.setattr(method, "in_child", die)
    result = SMT(steps=0).verify(problem, Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, reason)
    assert str(failure) in result.stats["explanation"]
    assert result.margin is None or result.margin <= true


@pytest.mark.parametrize(
    ("word", "reason"), [("timeout", Reason.TIMEOUT), ("max. memory exceeded", Reason.MEMORY), ("(?)", Reason.SOLVER)]
)
def test_giving_up_decides_nothing(word: str, reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = hidden()[0]
    monkeypatch.setattr(method, "in_child", lambda *arguments: Answer(stopped=word))
    result = SMT(steps=0).verify(problem, Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, reason)


# Limits.


def laborious() -> Problem:
    """Hundreds of unstable neurons, which z3 does not decide."""
    network = to_network(nets.random_mlp(0, (30, 60, 60, 60, 5)), (30,))
    box = Box(torch.full((30,), 0.1), torch.full((30,), 0.9))
    least = network(box.sample(500, nets.generator(0)).double())[:, 0].min().item()
    return Problem(network, box, Spec.halfspaces([[1.0, 0.0, 0.0, 0.0, 0.0]], [least - 2.0]))


@pytest.mark.parametrize("options", ["", "(optimum=True)", pytest.param("(solver=marabou)", marks=needs_marabou)])
def test_time_is_kept(options: str) -> None:
    problem = laborious()
    get_verifier(f"smt{options}").verify(case("mlp", 0)[0], Budget())  # everything is loaded
    result = get_verifier(f"smt{options}").verify(problem, Budget(seconds=1.0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
    assert result.margin is not None


def test_memory_is_kept() -> None:
    result = SMT().verify(laborious(), Budget(memory=100_000))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.MEMORY)


def test_a_point() -> None:
    network = to_network(nets.random_mlp(3, (4, 10, 10, 3)), (4,))
    for x in torch.rand(3, 4, generator=nets.generator(0)):
        label = int(network(x[None].double())[0].argmax())
        assert SMT().verify(Problem.robustness(network, x, label, 0.0), Budget()).verdict is Verdict.VERIFIED


def test_a_disjunct_without_rows_is_everywhere() -> None:
    none = Polyhedron(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    one = Polyhedron(torch.ones(1, 2), torch.tensor([-9.0]), torch.zeros(1, dtype=torch.bool))
    for spec, optimum in product((Spec((none,)), Spec((one, none))), (False, True)):
        problem = Problem(chain((2,), []), Box(torch.zeros(2), torch.ones(2)), spec)
        result = SMT(optimum=optimum).verify(problem, Budget())
        assert (result.verdict, result.margin) == (Verdict.FALSIFIED, None)


def test_what_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    box, spec = Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces([[1.0, 0.0]], [-1.0])
    identity = chain((2,), [])
    curve = Problem(chain((2,), [Smooth("tanh")]), box, spec)
    ball = Problem(identity, LpBall(torch.zeros(2), 1.0, 2, domain=None), spec)
    endless = Problem(identity, Box(torch.zeros(2), torch.full((2,), inf)), spec)
    for problem, word in ((curve, "tanh"), (ball, "l2"), (endless, "unbounded")):
        result = SMT().verify(problem, Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
        assert word in str(result.stats)
    monkeypatch.setattr(method, "find_spec", lambda name: None)
    for solver, command in (("marabou", "pip install maraboupy"), ("z3", "pip install z3-solver")):
        result = get_verifier(f"smt(solver={solver})").verify(Problem(identity, box, spec), Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
        assert command in result.stats["explanation"]


@pytest.mark.parametrize("options", ["solver=cvc5", "bits=-1", "steps=-1", "solver=marabou,optimum=True"])
def test_options_that_are_none(options: str) -> None:
    with pytest.raises(InputError):
        get_verifier(f"smt({options})")
