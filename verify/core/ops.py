"""The closed set of operations that a network is made of, and how each is evaluated.

An operation is a frozen dataclass; a rule about operations (evaluation here, bounds elsewhere) is a
``functools.singledispatch`` function over these classes, so the registered rules ARE the list of what is
supported. Tensors inside operations are never modified. Every evaluated tensor has a leading batch dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, singledispatch
from math import inf
from typing import ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.curves import Curve, curve
from assay.verify.core.errors import InputError, UnsupportedError

STEPS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sign": lambda x: torch.where(x.isnan(), x, x.sign()),  # the library's own is 0 there
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
}


@dataclass(frozen=True, eq=False)
class Op:
    """One operation; compared by identity, hashed by content through ``Network.id``.

    ``affine``: whether its value is an affine function of its operands together; ``several``: whether each value is one
    of several numbers, those on the last axis of its one operand.
    """

    affine: ClassVar[bool] = False
    several: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Its name for messages."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Input(Op):
    """The network's input."""


@dataclass(frozen=True, eq=False)
class Linear(Op):
    """``y = x W^T + b`` on the last axis: weight (out x in), bias (out)."""

    affine: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Conv2d(Op):
    """Cross-correlation: weight (out x in/groups x kh x kw), bias (out), zero padding on both sides of each axis."""

    affine: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class ConvTranspose2d(Op):
    """The transpose of a convolution: weight (in x out/groups x kh x kw), bias (out)."""

    affine: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """``y = factor * x + shift`` element by element; both broadcast against one sample's shape."""

    affine: ClassVar[bool] = True
    factor: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class Relu(Op):
    """``y = max(x, 0)``."""


@dataclass(frozen=True, eq=False)
class LeakyRelu(Op):
    """``y = x`` where x > 0, ``slope * x`` elsewhere; slope >= 0."""

    slope: float

    def __post_init__(self) -> None:
        if not 0 <= self.slope < inf:
            raise InputError(f"the slope of a LeakyRelu must be a finite number of at least 0, got {self.slope}")


@dataclass(frozen=True, eq=False)
class Smooth(Op):
    """``y = f(x)`` element by element, f the ``curve`` of this name in :mod:`assay.verify.core.curves`, with its
    ``parameter`` if it has one. Raises what :func:`assay.verify.core.curves.curve` does."""

    curve: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        curve(self.curve, self.parameter)

    @property
    def label(self) -> str:
        """Its name for messages."""
        return f"Smooth({self.curve})"

    @property
    def of(self) -> Curve:
        """What is known of the curve."""
        return curve(self.curve, self.parameter)


@dataclass(frozen=True, eq=False)
class Step(Op):
    """A piecewise constant function element by element: ``sign``, ``floor``, ``ceil``, or ``round`` (half to even)."""

    kind: str

    def __post_init__(self) -> None:
        if self.kind not in STEPS:
            raise InputError(f"a Step is one of {', '.join(STEPS)}, got {self.kind!r}")

    @property
    def label(self) -> str:
        """Its name for messages."""
        return f"Step({self.kind})"


@dataclass(frozen=True, eq=False)
class Product(Op):
    """The product of the two values on the last axis, which disappears.

    A product of two nodes is a Concat, a Gather of pairs and this; that of two matrices sums it up besides.
    """

    several: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class InverseSumExp(Op):
    """``y = 1 / sum_j exp(z_j)`` over the last axis, which disappears.

    A softmax is this one of the differences ``z_ij = x_j - x_i``: ``y_i = exp(x_i) / sum_j exp(x_j)``. ``whole``: the
    operand is all of these, so that the values along the last axis sum up to one.
    """

    several: ClassVar[bool] = True
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Normalised(Op):
    """``y = x / sqrt((x^2 + s) / count)`` of the two values x and s > 0 on the last axis, which disappears.

    A normalisation is this one of each value and of what the squares of the ``count - 1`` others, and ``count`` times
    what keeps the root from 0, sum up to.
    """

    several: ClassVar[bool] = True
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"a normalisation is of at least one value, got {self.count}")


@dataclass(frozen=True, eq=False)
class Max(Op):
    """The largest value on the last axis, which disappears: a pooling layer is a Gather of windows and a Max."""

    several: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Add(Op):
    """``y = a + b``, two operands of one shape."""

    affine: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Sub(Op):
    """``y = a - b``, two operands of one shape."""

    affine: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """The same values in another shape (without the batch dimension); flattening is one case."""

    affine: ClassVar[bool] = True
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Gather(Op):
    """Values picked from the flattened input: ``y[i] = x[index[i]]``, or ``fill`` where index is -1, in ``shape``.

    Transposition, slicing, padding, and the windows of a pooling layer are all of this kind. index: (outputs).
    """

    affine: ClassVar[bool] = True
    index: Tensor
    shape: tuple[int, ...]
    fill: float = 0.0

    @cached_property
    def fills(self) -> bool:
        """Whether any value is filled in."""
        return bool((self.index < 0).any())


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Operands side by side along ``axis`` of a sample (the batch dimension is not counted)."""

    affine: ClassVar[bool] = True
    axis: int


@dataclass(frozen=True, eq=False)
class Opaque(Op):
    """A model as a whole, which is run and not read: ``run`` takes batches in ``dtype``; ``name``: what it is; ``why``
    it is not read; ``content``: a hash of it. It has values, and gradients where ``differentiable``; no bounds."""

    run: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    name: str
    why: str
    content: str
    differentiable: bool = False

    @property
    def label(self) -> str:
        """Its name for messages."""
        return f"{self.name} as a whole ({self.why})"


@singledispatch
def evaluate(op: Op, *inputs: Tensor) -> Tensor:
    """The value of ``op`` at ``inputs``, each (batch x shape of one sample)."""
    raise UnsupportedError(f"operation {op.label} cannot be evaluated")


@evaluate.register
def _(op: Linear, x: Tensor) -> Tensor:
    return F.linear(x, op.weight, op.bias)


@evaluate.register
def _(op: Conv2d, x: Tensor) -> Tensor:
    apart = op.groups == len(op.weight) == x.shape[1] and op.padding == (0, 0) and op.dilation == (1, 1)
    if (
        apart and op.weight.shape[2:] == x.shape[2:]
    ):  # a mean of each image: the library's convolution is 90 times slower
        return (x * op.weight[:, 0]).sum((2, 3), keepdim=True) + op.bias.view(-1, 1, 1)
    return F.conv2d(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)


@evaluate.register
def _(op: ConvTranspose2d, x: Tensor) -> Tensor:
    options = (op.stride, op.padding, op.output_padding, op.groups, op.dilation)
    return F.conv_transpose2d(x, op.weight, op.bias, *options)


@evaluate.register
def _(op: LeakyRelu, x: Tensor) -> Tensor:
    return x.clamp(min=0) + op.slope * x.clamp(max=0)


@evaluate.register
def _(op: Smooth, x: Tensor) -> Tensor:
    return op.of.function(x)


@evaluate.register
def _(op: Step, x: Tensor) -> Tensor:
    """Its derivative, which is 0, tells no search where to go: gradients pass through as through a line, or for a sign
    as through a curve as wide as what it is applied to (the straight-through estimator, Bengio et al. 2013,
    arXiv:1308.3432)."""
    value = STEPS[op.kind](x)
    if not (x.requires_grad and torch.is_grad_enabled()):
        return value
    if op.kind == "sign":
        x = (x / x.detach().abs().mean().clamp(min=torch.finfo(x.dtype).tiny)).tanh()
    way = x - x.detach()  # nothing, with a gradient
    return value.detach() + torch.where(way == 0, way, way.detach().new_zeros(()))


@evaluate.register
def _(op: Product, x: Tensor) -> Tensor:
    if x.shape[-1] != 2:
        raise InputError(f"a Product takes two values on the last axis, got {x.shape[-1]}")
    return x[..., 0] * x[..., 1]


@evaluate.register
def _(op: InverseSumExp, x: Tensor) -> Tensor:
    return x.logsumexp(-1).neg().exp()


@evaluate.register
def _(op: Normalised, x: Tensor) -> Tensor:
    if x.shape[-1] != 2:
        raise InputError(f"a Normalised takes two values on the last axis, got {x.shape[-1]}")
    root: float = op.count**0.5
    return root * x[..., 0] * (x[..., 0].square() + x[..., 1]).rsqrt()


@evaluate.register
def _(op: Opaque, x: Tensor) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled() and not op.differentiable:
        raise UnsupportedError(f"{op.label} has no gradients: take an attack that needs none, such as square")
    return op.run(x.to(op.dtype)).to(x.dtype)


@evaluate.register
def _(op: Max, x: Tensor) -> Tensor:
    return x.amax(-1)


@evaluate.register
def _(op: Gather, x: Tensor) -> Tensor:
    flat = x.flatten(1)
    picked = flat.index_select(1, op.index.clamp(min=0))
    if op.fills:
        picked = picked.masked_fill(op.index < 0, op.fill)
    return picked.reshape(len(x), *op.shape)


@evaluate.register
def _(op: Concat, *parts: Tensor) -> Tensor:
    return torch.cat(parts, op.axis + 1)


@evaluate.register
def _(op: Scale, x: Tensor) -> Tensor:
    return x * op.factor + op.shift


@evaluate.register
def _(op: Relu, x: Tensor) -> Tensor:
    return x.clamp(min=0)


@evaluate.register
def _(op: Add, a: Tensor, b: Tensor) -> Tensor:
    return a + b


@evaluate.register
def _(op: Sub, a: Tensor, b: Tensor) -> Tensor:
    return a - b


@evaluate.register
def _(op: Reshape, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], *op.shape)


AnyOp = TypeVar("AnyOp", bound=Op)


def device_of(op: Op) -> torch.device:
    """Where the weights of ``op`` are; the CPU where it has none."""
    return next((value.device for value in vars(op).values() if isinstance(value, Tensor)), torch.device("cpu"))


def map_tensors(op: AnyOp, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> AnyOp:
    """``op`` with its weights in another dtype, or all its tensors on another device."""
    tensors = {f.name: value for f in fields(op) if isinstance(value := getattr(op, f.name), Tensor)}
    moved = {
        name: tensor.to(dtype=dtype if tensor.is_floating_point() else None, device=device)
        for name, tensor in tensors.items()
    }
    return replace(op, **moved) if moved else op
