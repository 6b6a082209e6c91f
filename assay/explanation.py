"""What is known about an answer: why it is open, how far the bounds are from deciding, what was tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import torch

from assay import witness
from assay.benchmarks.harness.answer import Question, exit_code, reason, shortfall, word
from assay.spelling import spelled
from assay.verify.bounds import layers
from assay.verify.bounds.relaxations.relax import relaxes, undecided
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import AssayError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.result import Result, Verdict
from assay.verify.support.plain import counted

AFTERWARDS = 0.3  # seconds that are worth spending on explanations when the answer is there
FACTS = (int, float, str, bool)


def document(question: Question, result: Result, times: dict[str, float]) -> dict[str, Any]:
    """Everything as plain data; ``times``: seconds of each part of the work."""
    told: dict[str, Any] = {
        "verdict": word(exit_code(result)).value,
        "exit_code": exit_code(result),
        "reason": reason(result),
        "margin": result.margin,
        "gap": gap(result),
        "guarantee": result.guarantee.value,
        "semantics": result.semantics,
        "method": spelled(result.verifier),
        "seconds": {what: round(spent, 3) for what, spent in times.items()},
        "warnings": list(question.warnings),
        "problems": [_part(part) for _, part in zip(question.problems, parts(result), strict=False)],
    }
    for network in _networks(question):
        told["network"] = {"name": network.name, "inputs": network.nodes[0].size, "outputs": network.output_size}
        if network.readout:  # proofs are of the outputs before it
            told["network"]["left_out"] = network.readout
        if result.counterexample is not None:
            x, y = (of(network, result.counterexample).tolist() for of in (witness.inputs, witness.outputs))
            told["counterexample"] = {"x": x, "y": y, "margin": result.stats.get("counterexample_margin")}
    return told


def parts(result: Result) -> list[dict[str, Any]]:
    """What became of each problem, as plain data: one entry unless the property has several."""
    own = {key: getattr(result, key) for key in ("verdict", "reason", "margin", "seconds", "verifier", "stats")}
    inner: list[dict[str, Any]] = result.stats.get("parts", [own])
    return inner


def gap(result: Result) -> float | None:
    """How much the best bound of the margin lacks to be above 0, which would verify; None where there is no bound."""
    return None if result.margin is None or result.verdict is not Verdict.UNKNOWN else 0.0 - result.margin


def brief(question: Question, result: Result, seconds: float) -> list[str]:
    """Lines for a person: the answer with its figures, and of an open one what keeps it open."""
    margin = "" if result.margin is None else f", margin at least {result.margin:g}"
    if result.verdict is Verdict.VERIFIED:
        return [f"verified in {seconds:.2f} s{margin} ({result.guarantee.value}, {_decider(result)})"]
    if result.verdict is Verdict.FALSIFIED:
        at = result.stats.get("counterexample_margin")
        value = "" if at is None or not isfinite(at) else f", margin {at:g} there"
        return [f"falsified in {seconds:.2f} s{value}; replayed on the original model ({_decider(result)})"]
    why, bound = reason(result), shortfall(result)
    lines = [f"open after {seconds:.2f} s: {why}", *([bound] if bound not in why else [])]
    counts = Counter(str(part["verdict"]) for part in parts(result))
    if len(question.problems) > 1:
        lines.append(
            f"{counted(len(question.problems), 'problem')}: " + ", ".join(f"{n} {what}" for what, n in counts.items())
        )
    return lines


def attempts(question: Question, result: Result, seconds: float = AFTERWARDS) -> list[str]:
    """Lines on what was tried at the problem that keeps an open answer open; none for a decided answer.

    ``seconds``: what may be spent on looking how much of the network is unstable.
    """
    if result.verdict is not Verdict.UNKNOWN or not question.problems:
        return []
    chief = result.stats.get("part", 0)
    return [*_attempts(parts(result)[chief]), *_instability(question.problems[chief], seconds)]


def full(question: Question, result: Result, times: dict[str, float]) -> list[str]:
    """More lines: the network, where the time went, and problem by problem the region, the bounds and the attempts."""
    lines = ["seconds: " + ", ".join(f"{what} {spent:.2f}" for what, spent in times.items())]
    for network in _networks(question):
        shape = "x".join(map(str, network.input_shape))
        kinds = Counter(node.op.label for node in network.nodes[1:])
        layers_ = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        lines.append(f"network {network.name}: {shape} inputs, {counted(network.output_size, 'output')}, {layers_}")
    for number, (problem, part) in enumerate(zip(question.problems, parts(result), strict=False), start=1):
        box = problem.region.box()
        width = (box.upper - box.lower).flatten()
        why = f" ({part['reason']})" if part["reason"] else ""
        bound = "no bound of the margin" if part["margin"] is None else f"margin at least {part['margin']:g}"
        vary = f"of {counted(len(width), 'input')} {int((width > 0).sum())} vary"
        vary += f", by {width.mean():g}, at most {width.max():g}"
        lines.append(f"problem {number}: {part['verdict']}{why}, {bound}, {part['seconds']:.2f} s")
        lines.append(f"  {vary}; {counted(len(problem.spec.disjuncts), 'disjunct')}")
        lines += [f"  {attempt}" for attempt in _attempts(part)]
        lines += [f"  {key}: {value}" for key, value in _facts(part["stats"]).items() if key != "stages"]
        lines += [f"  {line}" for line in _instability(problem, AFTERWARDS)]
    return lines


def _networks(question: Question) -> list[Network]:
    """The network of all problems, if there is any problem."""
    return [problem.network for problem in question.problems[:1]]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    plain = {key: None if part[key] is None else str(part[key]) for key in ("verdict", "reason")}
    stats = part["stats"]
    own = {"tried": [{**step, "stage": spelled(step["stage"])} for step in stats.get("tried", [])], **_facts(stats)}
    if "stages" in stats:
        own["stages"] = list(map(spelled, stats["stages"]))
    return {**plain, "margin": part["margin"], "seconds": part["seconds"], **own}


def _facts(stats: dict[str, Any]) -> dict[str, Any]:
    """What of a result's stats is a number, a text, or a list of these."""
    return {
        key: value
        for key, value in stats.items()
        if isinstance(value, FACTS) or (isinstance(value, list) and all(isinstance(each, FACTS) for each in value))
    }


def _attempts(part: dict[str, Any]) -> list[str]:
    """What each stage gave: one line for each, or for the method itself if it has no stages."""
    own = {"stage": part["verifier"], "outcome": part["reason"] or part["verdict"], **part["stats"], **part}
    return [
        f"tried {spelled(step['stage'])}: {step['outcome']}"
        + ("" if step["margin"] is None else f", margin at least {step['margin']:g}")
        + f", {step['seconds']:.2f} s{_tree(step)}"
        for step in part["stats"].get("tried", [own])
    ]


def _tree(step: dict[str, Any]) -> str:
    """How far a search came, of a stage that was one."""
    if not step.get("domains"):
        return ""
    rate = step["domains"] / max(step["seconds"], 1e-9)
    told = f"; {counted(step['domains'], 'domain')}, {rate:.0f} a second"
    if step.get("raced"):
        told += f", {step['raced']} of them in ways that were not gone on with"
    if "closed" in step:
        told += f", {step['closed']:.4%} of the tree closed"
    if "depth" in step:
        told += f", depth {step['depth']}"
    return told + ("" if step.get("worst") is None else f", worst open leaf at {step['worst']:g}")


def _decider(result: Result) -> str:
    """The stage that decided it, or came last in the longest attempt."""
    stages: Sequence[str] = max((part["stats"].get("stages", ()) for part in parts(result)), key=len)
    return spelled(stages[-1] if stages else result.verifier)


def _instability(problem: Problem, seconds: float) -> Iterator[str]:
    counts = unstable(problem.network, problem.region, Budget(seconds).started())
    neurons = sum(problem.network.nodes[position].size for position in counts)
    if neurons:
        yield f"activations that intervals do not fix to one linear piece: {sum(counts.values())} of {neurons}"


def unstable(network: Network, region: Region, budget: Budget) -> dict[int, int]:
    """By the position of each activation, the neurons that intervals do not fix to one linear piece."""
    try:
        bounds = layers.by_intervals(network, region, torch.float64, budget).bounds
    except (AssayError, Expired):  # an operation without interval bounds, or too large a network: nothing is said
        return {}
    counts = {}
    for position, node in enumerate(network.nodes):
        if relaxes(node.op):
            free = undecided(node.op, bounds[node.inputs[0]])
            counts[position] = int((free.any(-1) if node.op.several else free).sum())
    return counts
