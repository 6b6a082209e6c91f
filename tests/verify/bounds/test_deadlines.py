"""Bounds ask for the time at every layer, on the way up and on the way down: by an injected clock."""

from __future__ import annotations

from typing import Any

import pytest

from assay.verify.bounds import relaxed
from assay.verify.bounds.backward import chain, columns, rows
from assay.verify.core import budget
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason
from assay.verify.registry import get_verifier
from tests import nets

DEEP = to_network(nets.random_mlp(0, (6, *[20] * 11, 3)), (6,))
IMAGES = to_network(nets.random_cnn(0, (1, 12, 12), (3,) * 6), (1, 12, 12))


@pytest.mark.parametrize("network", [DEEP, IMAGES], ids=["deep", "images"])
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown", "lp", "milp", "lp-bab", "bab"])
@pytest.mark.parametrize("seconds", [4.0, 12.0])
def test_no_layer_is_begun_once_the_time_is_over(
    method: str, network: Network, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation of a layer takes a second."""
    layers: list[str] = []
    monkeypatch.setattr(budget.time, "monotonic", lambda: float(len(layers)))
    rules = (relaxed, "propagate"), (columns.ColumnRules, "_pull"), (rows.affine, "pull"), (rows, "between")
    for module, name in (*rules, (chain, "_level"), (chain.Below, "_down")):
        rule = getattr(module, name)

        def counted(*arguments: Any, name: str = name, rule: Any = rule) -> Any:
            layers.append(name)
            return rule(*arguments)

        monkeypatch.setattr(module, name, counted)
    x = nets.torch.full(network.input_shape, 0.5)
    problem = Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.4)
    result = get_verifier(method).verify(problem, Budget(seconds))
    assert len(layers) <= seconds
    assert result.reason is Reason.TIMEOUT
