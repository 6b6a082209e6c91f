"""Models whose operations are not read are run as a whole: smoothing and attacks ask for no more than that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from assay.attacks.registry import get_attack
from assay.benchmarks.harness.attacked import attack_all
from assay.models.data import Dataset
from assay.models.resolve import resolve
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from assay.verify.frontends.whole import runnable
from assay.verify.registry import get_verifier
from assay.verify.solving.falsifier import AttackVerifier
from tests.verify.frontends.onnx_files import model, numbers, save

NODE = helper.make_node


class Sorted(nn.Module):
    """Scores by the order of the inputs, which is not read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 4) to (batch x 3)."""
        scores: Tensor = self.layer(x.sort(-1)[0] ** 2)
        return scores


def module() -> nn.Module:
    torch.manual_seed(3)
    return Sorted().eval()


def file(folder: Path) -> Path:
    nodes = [NODE("TopK", ["x", "k"], ["s", "i"]), NODE("Gemm", ["s", "w"], ["y"])]
    proto: onnx.ModelProto = model(nodes, (1, 4), {"k": torch.tensor([4]).numpy(), "w": numbers(1, 4, 3)})
    return save(folder, proto)


def sample() -> Tensor:
    return torch.tensor([0.2, 0.9, 0.4, 0.1])


@pytest.mark.parametrize("kind", ["module", "file"])
def test_a_model_as_a_whole_has_values_and_no_bounds(tmp_path: Path, kind: str) -> None:
    given = module() if kind == "module" else file(tmp_path)
    network, x = runnable(given, (4,) if kind == "module" else None), sample()
    assert network.oracle is not None
    assert torch.equal(network(x[None]), network.oracle(x[None]))
    assert network.id == runnable(given, (4,) if kind == "module" else None).id
    label = int(network(x[None]).argmax())
    problem = Problem.robustness(network, x, label, 3.0, domain=None)
    for name in ("ibp", "alpha-crown", "milp", "bab", "smt"):
        result = get_verifier(name).verify(problem, Budget(5))
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED), name
    found = AttackVerifier("square(queries=300)" if kind == "file" else "pgd").verify(problem, Budget(20))
    assert found.verdict is Verdict.FALSIFIED
    near = Problem.robustness(network, x, label, 0.01, norm=2)
    smoothed = Smoothing(sigma=0.02, n=1000).verify(near, Budget(30))
    assert smoothed.verdict is Verdict.VERIFIED


def test_gradients_are_asked_of_modules_only(tmp_path: Path) -> None:
    network, x = runnable(file(tmp_path)), sample()
    problem = Problem.robustness(network, x, int(network(x[None]).argmax()), 0.5)
    result = AttackVerifier("pgd").verify(problem, Budget(5))
    assert result.reason is Reason.UNSUPPORTED
    assert "has no gradients" in result.stats["explanation"]


def test_attacks_on_files_that_are_not_read(tmp_path: Path) -> None:
    path = file(tmp_path)
    with pytest.raises(UnsupportedError, match="TopK"):
        resolve(str(path))
    network = resolve(str(path), whole=True).module
    data = Dataset("points", "test", sample()[None], torch.tensor([int(network(sample()[None]).argmax())]), 3)
    attacked = attack_all(network, data, [1.0], [get_attack("square(queries=300)")])
    assert bool(attacked.found[0].success.all())


def test_what_draws_or_mixes_is_no_model_at_all() -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(0)[0]

    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    for given in (Mixing().eval(), Drawing().eval()):
        with pytest.raises(UnsupportedError):
            runnable(given, (4,))


class Turned(Sorted):
    """The same layers, and another order."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 4) to (batch x 3)."""
        scores: Tensor = self.layer(x.sort(-1, descending=True)[0] ** 2)
        return scores


def test_what_is_run_is_part_of_its_identity() -> None:
    """Models of one name, the same layers and weights that compute something else are told apart."""
    Turned.__name__ = Turned.__qualname__ = "Sorted"
    one, other, again = module(), Turned().eval(), module()
    other.load_state_dict(one.state_dict())
    hooked = module()
    hooked.layer.register_forward_hook(lambda m, args, y: 2 * y)
    ids = [runnable(model, (4,)).id for model in (one, other, hooked)]
    assert len({*ids}) == 3
    assert runnable(again, (4,)).id == ids[0]


def test_what_a_model_holds_beside_its_weights_is_part_of_its_identity() -> None:
    def holding(value: object) -> str:
        module = Sorted()
        with torch.no_grad():
            module.layer.weight.fill_(1.0)
            module.layer.bias.fill_(0.0)
        module.layer.extra = value  # type: ignore[assignment]
        return runnable(module.eval(), (4,)).id

    values: list[object] = [1.0, 2.0, 1, True, "a", (1, 2), [1, 3], {"a": 1}, {"a": 2}, {3, 4}]
    values += [np.array([1.0, 2.0]), np.array([1.0, 3.0])]
    found = [holding(value) for value in values]
    assert len(set(found)) == len(values)
    assert found == [holding(value) for value in values]
    assert holding(torch.tensor([1.0])) != holding(torch.tensor([2.0]))
