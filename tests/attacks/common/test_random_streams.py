"""Random numbers: the published generator, and independence of the batch."""

from __future__ import annotations

import torch

from assay.attacks.common.random_streams import sample_keys, splitmix64, uniform


def test_splitmix64_gives_the_published_numbers() -> None:
    reference = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [v % 2**64 for v in splitmix64(torch.tensor([1234567]), 5)[0].tolist()] == reference


def test_keys_depend_on_content_and_seed_only() -> None:
    x = torch.rand(5, 3, 2)
    keys = sample_keys(x, 7)
    assert torch.equal(sample_keys(x[2:4], 7), keys[2:4])
    assert torch.equal(sample_keys(x.double(), 7), keys)
    assert len(set(keys.tolist())) == 5
    assert not (sample_keys(x, 8) == keys).any()


def test_uniform_does_not_depend_on_the_batch() -> None:
    keys = sample_keys(torch.rand(6, 4), 0)
    whole = uniform(keys, (3, 5), stream=2)
    assert torch.equal(uniform(keys[[4, 1]], (3, 5), stream=2), whole[[4, 1]])
    assert not torch.equal(uniform(keys, (3, 5), stream=3), whole)


def test_uniform_is_uniform_in_every_dtype() -> None:
    keys = sample_keys(torch.arange(8.0)[:, None], 0)
    for dtype in (torch.float16, torch.float32, torch.float64):
        u = uniform(keys, (5000,), 0, dtype)
        assert u.dtype is dtype
        assert bool(((u >= 0) & (u < 1)).all())
        counts = torch.histc(u.double(), 20, 0, 1) / u.numel()
        assert (counts - 0.05).abs().max() < 0.005
    correlation = torch.corrcoef(torch.cat([uniform(keys, (5000,), s, torch.float64) for s in range(3)]))
    assert (correlation - torch.eye(24)).abs().max() < 0.06
