"""A large network passes within a limit that the operating system enforces."""

from __future__ import annotations

import subprocess
import sys

import pytest

LARGE = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
from torch import nn
from assay.verify.backends.crown import CROWN
from assay.verify.core.budget import Budget
from assay.verify.core.network import to_network
from assay.verify.core.region import Box

convolutions = [nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 1, 1)]
net = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), nn.Flatten(), nn.Linear(32 * 30 * 30, 5))
network = to_network(net.eval(), (1, 60, 60))
assert sum(node.size for node in network.nodes if node.op.label == "Relu") >= 43_000
x = torch.rand(1, 1, 60, 60, dtype=torch.float64)
eye = torch.eye(5, dtype=torch.float64)
found = CROWN().bound(network, Box(x - 0.1, x + 0.1), eye, Budget())
y = network(x + 0.2 * (torch.rand(20, 1, 60, 60, dtype=torch.float64) - 0.5))
assert bool((found.lower < y).all() and (y < found.upper).all())
print(float((found.upper - found.lower).mean()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is Linux's")
def test_forty_thousand_neurons_pass_in_four_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e3
