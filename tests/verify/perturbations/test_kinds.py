"""What perturbations make of images: as torch's own interpolation has it, and as their names say."""

from __future__ import annotations

from math import cos, pi, sin

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.perturbations import KINDS, Part, Perturbation
from tests.nets import generator


def image(channels: int = 2, height: int = 6, width: int = 7, seed: int = 0) -> Tensor:
    return torch.rand(channels, height, width, dtype=torch.float64, generator=generator(seed))


def made(text: str, values: list[float], of: Tensor) -> Tensor:
    return Perturbation.parse(text).images(of, torch.tensor([values], dtype=torch.float64))[0]


def sampled(of: Tensor, matrix: Tensor) -> Tensor:
    """By torch: each pixel from ``matrix`` (2 x 3) times its (right, down, 1) about the centre, in pixels."""
    height, width = of.shape[-2:]
    scale = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    own = matrix.clone()
    own[:, :2] = matrix[:, :2] * scale / scale[:, None]
    own[:, 2] = matrix[:, 2] / scale
    grid = F.affine_grid(own[None], [1, *of.shape], align_corners=True)
    return F.grid_sample(of[None], grid, padding_mode="zeros", align_corners=True)[0]


@pytest.mark.parametrize("degrees", [0.0, 7.0, -33.0, 90.0, 180.0])
def test_rotations_are_those_of_torch(degrees: float) -> None:
    t = degrees * pi / 180
    matrix = torch.tensor([[cos(t), -sin(t), 0], [sin(t), cos(t), 0]], dtype=torch.float64)
    assert torch.allclose(made("rotation(180)", [degrees], image()), sampled(image(), matrix), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "values", "matrix"),
    [
        ("translation(3)", [1.25, -0.5], [[1, 0, 0.5], [0, 1, -1.25]]),
        ("translation(3)", [1.0, 2.0], [[1, 0, -2], [0, 1, -1]]),
        ("scaling(0.5)", [1.5], [[1 / 1.5, 0, 0], [0, 1 / 1.5, 0]]),
        ("shear(0.5)", [0.3], [[1, -0.3, 0], [0, 1, 0]]),
        ("scaling(0.5)+translation(3)", [0.8, 1.0, 0.5], [[1.25, 0, -0.625], [0, 1.25, -1.25]]),
        ("translation(3)+scaling(0.5)", [1.0, 0.5, 0.8], [[1.25, 0, -0.5], [0, 1.25, -1.0]]),
    ],
)
def test_maps_are_those_of_torch_in_their_order(text: str, values: list[float], matrix: list[list[float]]) -> None:
    expected = sampled(image(), torch.tensor(matrix, dtype=torch.float64))
    assert torch.allclose(made(text, values, image()), expected, atol=1e-12)


def test_values_are_changed_and_cut_to_the_domain() -> None:
    x = image()
    assert torch.allclose(made("brightness(0.5)", [0.4], x), (x + 0.4).clamp(0, 1))
    assert torch.allclose(made("contrast(0.5)", [1.5], x), (1.5 * x).clamp(0, 1))
    assert torch.allclose(made("brightness(0.5)+contrast(0.5)", [-0.1, 0.7], x), (0.7 * x - 0.1).clamp(0, 1))
    assert torch.allclose(made("gamma(1)", [0.6], x), x**0.6)
    assert torch.equal(made("gamma(1)", [0.6], torch.zeros(1, 2, 2)), torch.zeros(1, 2, 2, dtype=torch.float64))
    mean = F.avg_pool2d(x[None], 3, 1, 1)[0]
    assert torch.allclose(made("blur(1)", [0.25], x), 0.75 * x + 0.25 * mean)
    assert torch.allclose(made("blur(1)+rotation(180)", [1.0, 180.0], x), mean.flip(-1, -2))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_read(kind: str) -> None:
    part = Part.parse(f" {kind} (0.5)")
    assert part.low <= (1.0 if kind in ("scaling", "contrast", "gamma") else 0.0) <= part.high
    assert Part.parse(f"{kind}(0.25, 0.5)") == Part(kind, 0.25, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a perturbation such as"),
        ("rotation", "a perturbation such as"),
        ("rotate(3)", "unknown perturbation 'rotate'; did you mean 'rotation'"),
        ("rotation(x)", "one or two numbers"),
        ("rotation(1,2,3)", "got 3"),
        ("rotation(-3)", "at least 0"),
        ("rotation(nan)", "at least 0"),
        ("rotation(3,1)", "rotation from -360 to 360, got 3 to 1"),
        ("scaling(2)", "scaling from 0.05"),
        ("rotation(1)+rotation(2)", "rotation is given twice"),
    ],
)
def test_what_is_no_perturbation_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Perturbation.parse(text)


def test_gamma_goes_alone() -> None:
    with pytest.raises(UnsupportedError, match="neither blur nor geometry"):
        Perturbation.parse("gamma(0.1)+rotation(1)")
