"""What float64, or float32, loses in intervals and linear bounds, charged so that the bounds are true.

A sum of n products errs by at most ``gamma_n |a||b|``, in any order of summation (Higham 2002, chapter 3). Going
backwards through an operation, coefficients c become ``fl(c W)``; going on with these as if they were exact costs at
most ``gamma_n |c| (|W| |v|)``, where v is the value that the operation reads. The magnitudes of values are known from
their bounds, so that ``gamma_n (|W| |v| + |b|)``, what one unit of coefficient loses there, is known before any c.

Rows are charged where they begin and at each activation that they meet, by the magnitudes of their coefficients: over
many layers these come to far less than the products of norms do, since terms cancel. What others compute, whose
coefficients are not known, is charged by what none can exceed.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.interval import radius_map, step
from assay.verify.bounds.memo import per_op, remember
from assay.verify.bounds.relaxations import steps
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import extremes, relaxes
from assay.verify.bounds.whole import exact
from assay.verify.core import ranges
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import (
    Conv2d,
    ConvTranspose2d,
    Gather,
    Linear,
    Op,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Step,
    device_of,
    evaluate,
)
from assay.verify.core.roundings import curved, magnitude, noise, terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices
from assay.verify.support.floats import UNIT, gamma

AFFINE = (Linear, Conv2d, ConvTranspose2d, Scale)
STEPS = 4  # roundings that each node of a network can add to a sum, beside one for each of its operands
FEW = 16  # more roundings than the lines of an activation, or the sum of a centre and a radius, take


@dataclass(frozen=True)
class Precision:
    """A floating ``dtype``: ``unit``, the relative error of an operation; ``beyond``: magnitudes from here on have no
    bounds; ``dust``: more than can be lost below its smallest normal number, in all coefficients of as many values of
    that magnitude as a network has (2**60, or 2**40); ``conversions``: how often a weight is rounded to the type;
    ``wider``: the same type where there are larger magnitudes, and more is lost."""

    dtype: torch.dtype
    unit: float
    beyond: float
    dust: float
    conversions: int
    wider: Precision | None = None


# How oneDNN is told from outside to multiply float32 as shorter numbers.
FPMATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")

DOUBLE = Precision(torch.float64, UNIT, 2.0**800, 2.0**-140, 0)
WIDER = Precision(torch.float32, 2.0**-24, 2.0**80, 2.0**-4, 1)  # intervals of deep networks come to 2**60 and more
SINGLE = Precision(torch.float32, 2.0**-24, 2.0**40, 2.0**-44, 1, WIDER)


def precision(dtype: torch.dtype, device: torch.device | str = "cpu") -> Precision:
    """Of float64 or float32, on a device.

    Raises :class:`InputError` where torch takes subnormal numbers for zero, or may multiply numbers of float32 with
    less than their precision.
    """
    if bool(torch.tensor([5e-324], dtype=torch.float64, device=device).mul(1).eq(0)):
        raise InputError(
            "subnormal numbers are taken for zero, which bounds do not allow for: torch.set_flush_denormal"
        )
    _check_emulation(device)
    if dtype != torch.float32:
        return DOUBLE
    if torch.device(device).type == "cuda":
        _check_products_on_cuda()
        return SINGLE
    onednn = torch.backends.mkldnn
    backends = (torch.backends, onednn, *(getattr(onednn, part, None) for part in ("matmul", "conv")))
    reduced = {
        "torch.set_float32_matmul_precision": torch.get_float32_matmul_precision() != "highest",
        "fp32_precision of torch.backends": any(
            getattr(backend, "fp32_precision", "none") not in ("none", "ieee") for backend in backends
        ),
        "oneDNN is off": not getattr(onednn, "enabled", False),  # others use Winograd's sums
        "torch.autocast": torch.is_autocast_enabled("cpu"),
        **{name: os.environ.get(name, "STRICT") != "STRICT" for name in FPMATH},
    }
    _refuse(reduced)
    return SINGLE


def _check_emulation(device: torch.device | str) -> None:
    """Raise :class:`InputError` where float64 may be multiplied as shorter numbers."""
    emulated = os.environ.get("CUBLAS_EMULATE_DOUBLE_PRECISION", "0") != "0"
    if torch.device(device).type == "cuda" and emulated:
        raise InputError("float64 is multiplied with less than its precision: unset CUBLAS_EMULATE_DOUBLE_PRECISION")


def _check_products_on_cuda() -> None:
    """Raise :class:`InputError` where float32 may be multiplied as shorter numbers there."""
    backends = (torch.backends, getattr(torch.backends.cuda, "matmul", None))
    _refuse(
        {
            "torch.set_float32_matmul_precision": torch.get_float32_matmul_precision() != "highest",
            "fp32_precision of torch.backends": any(
                getattr(backend, "fp32_precision", "none") not in ("none", "ieee") for backend in backends
            ),
            "torch.autocast": torch.is_autocast_enabled("cuda"),
            "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", "0") != "0",
        }
    )


def _refuse(reduced: dict[str, bool]) -> None:
    if any(reduced.values()):
        causes = ", ".join(name for name, is_set in reduced.items() if is_set)
        raise InputError(f"float32 is multiplied with less than its precision ({causes}): use dtype=float64")


@dataclass(eq=False)
class Rounding:
    """What rounding takes, by position of a node (samples x shape of the node): of one unit of coefficient from a
    node that is no activation until activations are met (``lost``), by norms of the operations between, of convolutions
    those between channels; if ``sharp``, by their weights, which is several times less, and as dear as an interval.
    ``longest``: so many terms all sums are taken to have at least. ``grows``: whether the wider precision is to count
    from the first node on whose magnitude the other has no bounds for, ``wide``."""

    network: Network
    longest: int = 0
    precision: Precision = DOUBLE
    sharp: bool = False
    grows: bool = False
    wide: float = inf
    lost: MutableMapping[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = self.network.nodes
        steps = FEW + sum(STEPS + self.precision.conversions + len(node.inputs) for node in nodes)
        unit = self.precision.unit
        self._shares = [_and_own(gamma(max(_longest(node), self.longest) + steps, unit)) for node in nodes]
        self._merging = _and_own(gamma(steps, unit))

    def share(self, position: int) -> float:
        """Bound on the relative error of all sums that products with a node's coefficients occur in, and of the losses
        themselves."""
        return self._shares[position]

    def here(self, position: int) -> Precision:
        """The precision as it counts at a node."""
        wider = self.precision.wider
        return self.precision if wider is None or position < self.wide else wider

    def begin(self, size: Tensor) -> None:
        """Note the magnitudes of the input: ``size`` (samples x input shape)."""
        # A coefficient that underflows may be worth a lot at values beyond.
        if not counted(size, self.precision):
            size = torch.where(size < self.precision.beyond, size, torch.nan)
        self.lost[0] = self.share(0) * size + self.precision.dust

    def enter(self, position: int, operands: Sequence[Bounds], interval: Bounds, begins: bool = True) -> Bounds:
        """The ``interval`` (samples x shape) of a node over its operands', widened, for which it is used up; its losses
        are noted if a row ``begins`` at it, or at what reads it before any activation does."""
        node = self.network.nodes[position]
        count = terms(node.op)
        if relaxes(node.op) and not count:
            return interval
        if curved(node.op):
            (z,) = operands
            size = noise(node.op, z.lower, z.upper, largest(interval))
            wide = widened(interval, size, count, self.here(position))
            if not isinstance(node.op, Smooth):
                return wide
            return Bounds(*ranges.clipped(node.op.of, (wide.lower, wide.upper)))
        if not (count or begins):
            return interval
        size = self._size(position, operands)
        known = counted(size, self.here(position)) or self._grown(position, size)
        precision = self.here(position)
        if begins and not relaxes(node.op):
            # Beyond what is counted nothing is known of what is lost, by rows of the node itself neither.
            size = size.expand(interval.lower.shape)
            part = self._merging if isinstance(node.op, Reshape) else self.share(position)
            own = part * size + precision.dust
            if not known:
                own = torch.where(size < precision.beyond, own, torch.nan)
            parts = [self.lost.get(i) for i in node.inputs]
            self.lost[position] = own if all(p is None for p in parts) else own + self._spread(position, parts)
        if not count:
            return interval
        # Weights that were rounded to the type may be whole by that alone.
        lossless = (
            None if precision.conversions else exact(node.op, operands, size, precision.unit, self.network.literal)
        )
        if lossless is None:
            return widened(interval, size, count, precision, known)
        whole = Bounds(interval.lower.clone(), interval.upper.clone())
        wide = widened(interval, size, count, precision, known)
        lossless = lossless.view(-1, *[1] * (size.dim() - 1))
        return Bounds(*(torch.where(lossless, a, b) for a, b in zip(_ends(whole), _ends(wide), strict=True)))

    def _grown(self, position: int, size: Tensor) -> bool:
        """Whether the wider precision, which counts from here on, has bounds for these magnitudes (any shape)."""
        wider = self.precision.wider
        if not (self.grows and wider and position < self.wide and counted(size, wider)):
            return False
        if size.max().item() >= self.precision.beyond:
            self.wide = position
        return True

    def anyhow(self, bounds: Sequence[Bounds], narrow: bool = False) -> list[Tensor]:
        """What rounding takes of a row of one of a node's neurons until the input is reached, for the nodes that have
        bounds: by norms of all operations between, with lines that may be any over parts of what ``bounds`` say of each
        node (samples x shape of the node), or over what rounding makes of these parts. ``narrow``: whether that may be
        too narrow for the values themselves."""
        error = [self.lost[0]]
        for position, node in enumerate(self.network.nodes[1 : len(bounds)], start=1):
            operands, below = [bounds[i] for i in node.inputs], [error[i] for i in node.inputs]
            if relaxes(node.op):
                error.append(self._relaxed_anyhow(position, below[0], operands[0], bounds[position], narrow))
            else:
                error.append(self._compounded(position, below, operands))
        return [e + self.precision.dust for e in error]

    def _compounded(self, position: int, below: Sequence[Tensor], operands: Sequence[Bounds]) -> Tensor:
        """The error of a node that is no activation, from its operands (samples x shape of each) and theirs."""
        node, part = self.network.nodes[position], self.share(position)
        if all(e is self.lost.get(i) for i, e in zip(node.inputs, below, strict=True)):
            return self.lost[position]
        read = [torch.add(e, largest(b), alpha=part) for e, b in zip(below, operands, strict=True)]
        error = evaluate(radius_map(node.op), *read)
        if isinstance(node.op, (*AFFINE, Gather)):
            error = torch.add(
                error, norms(node.op, operands[0].lower.shape[1:], self.precision.dtype).constant, alpha=part
            )
        return error + self.precision.dust

    def _relaxed_anyhow(self, position: int, below: Tensor, z: Bounds, value: Bounds, narrow: bool) -> Tensor:
        """Slopes are the activation's own, and no constant is larger than what it leads from and to: see
        :func:`assay.verify.bounds.relaxations.relax.extremes`.

        An error of the operand counts twice: rows go down along a line, which itself may be drawn over an interval that
        is too narrow by it, and beyond which the line is passed by as much.
        """
        nodes, part = self.network.nodes, self.share(position)
        op = nodes[position].op
        through = 2 * below + 3 * part * largest(z)
        if isinstance(op, Relu):
            # Each node on the way can put the interval of a part off by its error, twice where it is itself widened.
            inactive = z.upper + 2 * len(nodes) * below <= 0  # not where an error is NaN: that is kept
            through = torch.where(inactive, 0.0, through)
        wide = Bounds(z.lower - through, z.upper + through)
        slope, height = extremes(op, wide, largest(value))
        if narrow and isinstance(op, Step):  # a line over an interval that is too narrow may leave out a whole step
            height = height + steps.jump(op, z, 2 * below) / part
        through = slope * through
        return (through.sum(-1) if op.several else through) + 2 * part * height

    def at(self, position: int, lines: Lines, z: Bounds) -> Tensor:
        """What one unit of coefficient at an activation loses until the next ones are met, by the steeper line, with
        what the lines' own numbers lose: (samples x features)."""
        steepest = torch.maximum(lines.slope.abs(), (lines.slope + lines.slope_gap).abs())
        loss = steepest * self._until_next(position, z)
        height = lines.intercept_gap.abs()
        height = height if lines.intercept is None else height + lines.intercept.abs()
        loss = loss if loss.dim() == height.dim() else loss.sum(-1)
        return torch.add(loss, height, alpha=self.share(position)) + self.here(position).dust

    def at_any(self, position: int, z: Bounds, value: Bounds) -> Tensor:
        """As :meth:`at`, by any lines over parts of ``z``, where the value lies within ``value`` (samples x
        features)."""
        op, part = self.network.nodes[position].op, self.share(position)
        slope, height = extremes(op, z, largest(value))
        # Constants are made of products of slopes and operands, too.
        loss = slope * (self._until_next(position, z) + 2 * part * largest(z))
        if isinstance(op, Relu):
            loss = torch.where(z.upper <= 0, 0.0, loss)
        return (loss.sum(-1) if op.several else loss) + 2 * part * height + self.precision.dust

    def about_centre(self, position: int, interval: Bounds) -> Rounding:
        """The same for rows that take the value at the centre of a node over a box, the first but for reshapings, as it
        is, and go on with the radius alone: what their products lose is a share of the ``interval`` of that node
        (samples x shape), where it was one of what is summed up there. The value there is worked out in float64; the
        weights are those of the precision, and the box's centre is rounded to it."""
        here, middle = copy(self), torch.lerp(interval.lower, interval.upper, 0.5)
        within = middle.abs() + (interval.upper - middle)
        few = FEW * self.precision.unit / self.share(position)  # of what is summed up, a share of which is lost
        lost = torch.add(few * self.lost[position], within, alpha=self.share(position) + self.share(0))
        here.lost = ChainMap({position: lost + self.precision.dust}, self.lost)  # with what is noted from now on
        return here

    def of_rows(self, sample: Tensor, positions: Iterable[int]) -> Rounding:
        """What is lost at nodes, by their ``positions``, of rows that belong to samples, by number (rows)."""
        here, one = copy(self), len(next(iter(self.lost.values()))) == 1
        some = {i: self.lost[i] for i in positions if i in self.lost}
        here.lost = {i: t.expand(len(sample), *t.shape[1:]) if one else t[sample] for i, t in some.items()}
        return here

    def of_features(self, kept: Mapping[int, Tensor]) -> Rounding:
        """The same for a network whose nodes have lost all features but those ``kept``, by position."""
        here = copy(self)
        here.lost = {i: t.index_select(1, kept[i]) if i in kept else t for i, t in self.lost.items()}
        return here

    def _until_next(self, position: int, z: Bounds) -> Tensor:
        """What one unit of coefficient of an activation's operand ``z`` loses as that is read: of its shape."""
        size, below = self.share(position) * largest(z), self.lost.get(self.network.nodes[position].inputs[0])
        return size if below is None else size + below.view(size.shape)

    def _size(self, position: int, operands: Sequence[Bounds]) -> Tensor:
        """At least what the products and constants of a node come to without their signs, to be broadcast to its shape
        (samples x shape)."""
        op = self.network.nodes[position].op
        if not isinstance(op, AFFINE):
            return evaluate(magnitude(op), *(largest(b) for b in operands))
        (x,) = operands
        known = norms(op, x.lower.shape[1:], self.precision.dtype)
        if self.sharp:
            return evaluate(radius_map(op), largest(x)) + known.constant
        if isinstance(op, Conv2d) and op.groups == 1:
            channels = between_channels(op)
            most = torch.maximum(x.upper.amax((2, 3)), -x.lower.amin((2, 3)))
            return torch.addmm(channels.constant, most, channels.gain)[:, :, None, None]
        most = torch.maximum(x.upper.flatten(1).amax(1), -x.lower.flatten(1).amin(1))
        return torch.addcmul(known.constant, known.gain, _of_samples(most, known.gain.dim()))

    def _spread(self, position: int, parts: Sequence[Tensor | None]) -> Tensor:
        """At least what the errors of operands (None: none) make of a node's value."""
        nodes = self.network.nodes
        op, shapes = nodes[position].op, [nodes[i].shape for i in nodes[position].inputs]
        if isinstance(op, AFFINE) and not self.sharp:
            assert parts[0] is not None
            gain = norms(op, shapes[0], self.precision.dtype).gain
            return gain * _of_samples(parts[0].flatten(1).amax(1), gain.dim())
        some = next(p for p in parts if p is not None)
        known = (some.new_zeros(len(some), *s) if p is None else p for p, s in zip(parts, shapes, strict=True))
        return evaluate(radius_map(op), *known)


def worst(network: Network, box: Bounds) -> list[Tensor]:
    """How far the bounds of each node's neurons may be off, by intervals or by any lines, over any part of a box: (1 x
    shape of the node) each. Magnitudes are those of intervals over all of the box (1 x input shape)."""
    rounding, bounds = Rounding(network, longest=max(node.size for node in network.nodes)), [box]
    rounding.begin(largest(box))
    for position, node in enumerate(network.nodes[1:], start=1):
        operands = [bounds[i] for i in node.inputs]
        bounds.append(rounding.enter(position, operands, step(node.op, *operands)))
    return rounding.anyhow(bounds, narrow=True)


def largest(bounds: Bounds) -> Tensor:
    """The largest magnitude of a value within its bounds: of their shape."""
    return torch.maximum(bounds.lower.abs(), bounds.upper.abs())


def _ends(interval: Bounds) -> tuple[Tensor, Tensor]:
    return interval.lower, interval.upper


def widened(computed: Bounds, size: Tensor, count: int, precision: Precision, known: bool = False) -> Bounds:
    """True intervals from ``computed`` ones, which are used up; ``size``, which broadcasts to them, is the magnitude of
    ``count`` terms summed. NaN, which decides nothing further down, where that is beyond what is counted, or overflows,
    unless it is ``known`` not to be."""
    error = torch.add(size.new_full((), precision.dust), size, alpha=2 * gamma(count + FEW, precision.unit))
    if not (known or counted(size, precision)):
        error = torch.where(size < precision.beyond, error, torch.nan)
    return Bounds(computed.lower.sub_(error), computed.upper.add_(error))


def counted(size: Tensor, precision: Precision) -> bool:
    """Whether magnitudes (any shape) are known to be below those that have no bounds, and no NaN. Elsewhere than on a
    CPU the host does not wait to know."""
    return devices.is_host(size) and size.sum().item() < precision.beyond


@dataclass(frozen=True, eq=False)
class Norms:
    """Of an affine operation, for each element of its value (1 x shape): the sum of the weights' magnitudes, and the
    magnitude of the constant."""

    gain: Tensor
    constant: Tensor


@per_op
def between_channels(op: Op) -> Norms:
    """Norms of a convolution that reads all channels: of each pair of them (inputs x outputs), and of the constant (1 x
    outputs)."""
    assert isinstance(op, Conv2d)
    return Norms(op.weight.abs().sum((2, 3)).T.contiguous(), op.bias.abs()[None])


def norms(op: Op, shape: Sequence[int], dtype: torch.dtype) -> Norms:
    """Norms of ``op``, whose weights are of a dtype, for operands of a shape; worked out once."""

    def make() -> Norms:
        one = torch.ones(1, *shape, dtype=dtype, device=device_of(op))
        return Norms(evaluate(radius_map(op), one), evaluate(magnitude(op), torch.zeros_like(one)))

    return remember(_norms(op), (dtype, *shape), make)


@per_op
def _norms(op: Op) -> dict[tuple[object, ...], Norms]:
    return {}


def _of_samples(values: Tensor, dims: int) -> Tensor:
    """One number for each sample, to be multiplied with (samples x ...) of so many dimensions."""
    return values.reshape(-1, *[1] * (dims - 1))


def _and_own(share: float) -> float:
    """A share of magnitudes that is lost in a sum, and in some eight more of the losses themselves."""
    return share * (1 + 16 * share) if share < 1 / 16 else inf


def _longest(node: Node) -> int:
    """How many terms a sum over a node's operands, readers or features has, at most."""
    return max(terms(node.op), _readers(node.op), node.size)


def _readers(op: Op) -> int:
    """How many products are summed into one coefficient of an operand, at most."""
    if isinstance(op, Linear):
        return int(op.weight.shape[0])
    if isinstance(op, Conv2d):
        return int(op.weight[:, 0].numel())
    return int(op.weight[0].numel()) if isinstance(op, ConvTranspose2d) else 0
