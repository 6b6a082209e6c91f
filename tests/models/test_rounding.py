"""Weights of half precision: what is stored is what was rounded, takes half of the room, and is read as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from assay.models import architectures, cards, zoo
from assay.models.training import round_weights
from assay.verify.core.errors import InputError


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return architectures.parse("cnn(channels=4,hidden=64,batchnorm=True)").build((1, 8, 8), 10)


def test_matrices_and_kernels_become_the_nearest_of_half_precision() -> None:
    model, before = small(), small().state_dict()
    round_weights(model, "float16")
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name].half().float() if value.dim() > 1 else before[name])


def test_all_bits_stay_where_nothing_is_rounded() -> None:
    model, before = small(), small().state_dict()
    round_weights(model, "float32")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_files_of_rounded_weights_are_half_as_large_and_read_as_they_were(tmp_path: Path) -> None:
    model = small()
    whole = cards.encode(model)
    round_weights(model, "float16")
    half = cards.encode(model)
    assert len(half) < 0.6 * len(whole)
    file = tmp_path / "net.safetensors"
    file.write_bytes(half)
    other = small()
    cards.fill(other, file, "the model")
    for name, value in other.state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype
        assert torch.equal(value, model.state_dict()[name])


def test_files_of_other_weights_are_as_they_were_always() -> None:
    assert cards.encode(zoo.load("digits-mlp-pgd")) == (zoo.FOLDER / "digits-mlp-pgd.safetensors").read_bytes()


def test_weights_beyond_the_range_of_half_precision_are_refused() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = 1e5
    with pytest.raises(InputError, match="weight has weights of up to 100000, more than float16 holds"):
        round_weights(model, "float16")
