"""Averages of weights along a training, which generalise better than the last ones (Polyak and Juditsky 1992; Izmailov
et al. 2018, arXiv:1803.05407)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average, of horizon 1 / (1 - ``decay``) steps, of a model's weights and statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.kept = {key: value.clone() for key, value in _floats(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights as they are after a step."""
        now = _floats(model)
        torch._foreach_lerp_(list(self.kept.values()), [now[key] for key in self.kept], 1 - self.decay)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Give the model the averages, and keep its own weights instead; a second call undoes it."""
        for key, value in _floats(model).items():
            own = value.clone()
            value.copy_(self.kept[key])
            self.kept[key] = own


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """What of a model's state is averaged; counts are not."""
    return {key: value.detach() for key, value in model.state_dict().items() if value.is_floating_point()}
