"""Influence functions (Koh and Liang 2017, arXiv:1703.04730): how the loss at test samples would change without each
training sample, by one step of Newton's method; the Hessian is met in products alone, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from assay.verify.core.errors import InputError

CHUNK = 256  # training samples whose gradients are held at once


@dataclass(frozen=True)
class Influence:
    """``damping``: added to the Hessian, of which that of a network may not be positive; ``steps``: of conjugate
    gradients, at most; ``tolerance``: of their residual, relative."""

    damping: float = 0.01
    steps: int = 200
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        if not (self.damping >= 0 and self.steps >= 1 and self.tolerance > 0):
            raise InputError("influence: expected damping >= 0, steps >= 1 and tolerance > 0")

    def of(self, model: nn.Module, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> Tensor:
        """By how much the summed loss at the test samples would rise without each training sample: (n), float64.

        x (n x shape), y (n), test_x (m x shape), test_y (m); the model, in eval mode, minimises the mean cross-entropy
        of the training samples. Positive: the sample helps; negative: it harms.
        """
        weights = {name: value.detach().double() for name, value in model.named_parameters()}
        buffers = {
            name: value.double() if value.is_floating_point() else value for name, value in model.named_buffers()
        }
        x, test_x = x.double(), test_x.double()

        def total(at: dict[str, Tensor], points: Tensor, labels: Tensor) -> Tensor:
            outputs = functional_call(model, (at, buffers), (points,))
            return F.cross_entropy(outputs.flatten(1), labels, reduction="sum")

        def slope(at: dict[str, Tensor], vector: Tensor) -> Tensor:
            return _flat(grad(total)(at, x, y)) @ vector / len(x)

        def product(vector: Tensor) -> Tensor:
            return _flat(grad(slope)(weights, vector)) + self.damping * vector

        with torch.enable_grad():
            wanted = _flat(grad(total)(weights, test_x, test_y))
            solved = conjugate_gradients(product, wanted, self.steps, self.tolerance)

            def along(point: Tensor, label: Tensor) -> Tensor:
                own = grad(total)(weights, point[None], label[None])
                return _flat(own) @ solved

            each = [
                vmap(along)(points, labels)
                for points, labels in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True)
            ]
        return torch.cat(each).detach() / len(x)


def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, steps: int, tolerance: float) -> Tensor:
    """x (values) with ``product(x) = b``, for a product with a positive definite matrix: at most so many steps, until
    the residual is ``tolerance`` times b (Hestenes and Stiefel 1952).

    Raises :class:`InputError` on a direction in which the matrix is not positive.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual @ residual
    goal = tolerance**2 * square
    for _ in range(steps):
        if float(square) <= float(goal):
            break
        image = product(direction)
        curvature = direction @ image
        if not float(curvature) > 0:
            raise InputError("the Hessian is not positive in some direction: raise damping")
        length = square / curvature
        x, residual = x + length * direction, residual - length * image
        before, square = square, residual @ residual
        direction = residual + square / before * direction
    return x


def _flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in parts.values()])
