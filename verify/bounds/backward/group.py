"""A small group of samples whose rows are propagated backwards as columns.

Forms are kept only for the features that can matter: a neuron that is inactive for every sample of the group has
coefficient 0 and is left out, and matrices are cut down to the others once for the group.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

from assay.verify.bounds.backward.forms import AnyForm, Owners, Patches, Units, pad
from assay.verify.bounds.backward.matrix import Cut, Matrix, Repeated, matrix
from assay.verify.bounds.backward.spans import Across, Span, spans
from assay.verify.bounds.memo import per_op
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxed import Relaxed, middle_and_radius
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Add, Conv2d, Linear, Relu, Reshape, Scale, Sub, evaluate, map_tensors
from assay.verify.core.roundings import terms
from assay.verify.core.verifier import Bounds

DENSE = 1 / 128  # of a convolution's products
PASSED = (Add, Reshape, Scale, Sub)  # affine operations that take no matrix

doubled = per_op(lambda op: map_tensors(op, dtype=torch.float64))


@dataclass(eq=False)
class Group:
    """A batch of samples whose rows are kept features by rows, and what that needs of the relaxed network.

    ``support``: which features of an activation can matter, by position (None: all); ``lines`` of these, ``whole`` of
    all features: (features x samples), as far apart as rounding is charged. ``entrance``: the first layer, if all paths
    from the input lead through it and the region is a box; the centre's share of every bound is then read off that
    layer's value at the centre (``at_centre``, features x samples), and only the radius has to be taken down to the
    input.
    """

    relaxed: Relaxed
    lines: dict[int, Lines] = field(default_factory=dict)
    whole: dict[int, Lines] = field(default_factory=dict)
    support: dict[int, Tensor | None] = field(default_factory=dict)
    entrance: int = 0
    at_centre: Tensor | None = None

    def __post_init__(self) -> None:
        self.network = self.relaxed.network
        self.centre, self.radius = (by_feature(t) for t in middle_and_radius(self.relaxed.bounds[0]))
        self.entrance = 0 if self.relaxed.ball is not None else _entrance(self.network)
        self._rounding = self.relaxed.rounding
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self._cuts: dict[tuple[int, int], Cut] = {}
        self._padded: dict[tuple[int, tuple[int, int]], Tensor] = {}
        self._across: dict[int, Across] = {}
        self.spans: dict[int, Span] = spans(self.network) if self.relaxed.samples == 1 else {}

    def enter(self, position: int, value: Bounds) -> None:
        """Note what rows need of a node that has its interval ``value`` now (samples x shape)."""
        relaxed, node = self.relaxed, self.network.nodes[position]
        if position == self.entrance:
            self.at_centre = self._at_centre(value)
        if position not in relaxed.lines:
            return
        lines = self.whole[position] = relaxed.charged(position, self._rounding).map(
            lambda t: t.movedim(0, -1).contiguous()
        )
        if isinstance(node.op, Relu):
            possible = ~(relaxed.operand(position).upper <= 0).all(0)  # a NaN is kept: such a bound decides nothing
            kept = possible.nonzero().flatten()
            self.support[position] = kept if len(kept) < 0.9 * len(possible) else None
        support = self.support.get(position)
        self.lines[position] = lines if support is None else lines.take(support)

    def _at_centre(self, value: Bounds) -> Tensor:
        """The entrance's value at the centre: (features x samples). An interval has it in its middle; where sums in
        float32 lose more than rows should, it is worked out in float64."""
        rounding, above = self.relaxed.rounding, self.network.nodes[1 : self.entrance]
        if rounding is None or not rounding.sharp or not all(isinstance(node.op, Reshape) for node in above):
            return by_feature(torch.lerp(value.lower, value.upper, 0.5))
        self._rounding = rounding.about_centre(self.entrance, value)
        node = self.network.nodes[self.entrance]
        operand = self.centre.T.reshape(-1, *self.network.nodes[node.inputs[0]].shape).double()
        return by_feature(evaluate(doubled(node.op), operand)).to(self.centre)

    @cached_property
    def products(self) -> list[int]:
        """How many products a row takes that goes from each node to the input, about, on all features."""
        nodes = self.network.nodes
        return list(accumulate((terms(node.op) * node.size for node in nodes), initial=0))[1:]

    @cached_property
    def price(self) -> list[float]:
        """The same with a dense matrix's products at what they cost beside those of convolutions: they are multiplied
        many times faster, and cut down on both sides."""
        each = (terms(n.op) * n.size * (DENSE if _is_dense(n) else 1.0) for n in self.network.nodes)
        return list(accumulate(each, initial=0.0))[1:]

    @cached_property
    def at_middle(self) -> list[Tensor]:
        """The value of each node at the centre of its sample's box, about: (samples x shape)."""
        return self.network.values(self.centre.T.reshape(-1, *self.network.input_shape))

    def owners(self, sample: Tensor) -> Owners:
        """Of rows that belong to samples (rows)."""
        return Owners.of(sample, self.centre.dtype, self.relaxed.samples)

    def known(self, position: int) -> tuple[Tensor, Tensor]:
        """Centre and radius of the bounds of a node, with what sums over them lose: (features x samples) each."""
        if position not in self._known:
            centre, radius = middle_and_radius(self.relaxed.bounds[position])
            self._known[position] = by_feature(centre), by_feature(radius + self.relaxed.summed(position))
        return self._known[position]

    def wanted(self, position: int) -> Tensor | None:
        """Features (wanted) of a node that can be other than zero, of an activation or its reshaping; None is all."""
        node = self.network.nodes[position]
        if isinstance(node.op, Reshape):
            return self.wanted(node.inputs[0])
        return self.support.get(position)

    @cached_property
    def nodes(self) -> list[Node]:
        """The network's nodes, where spans end as if they read what the span begins with."""
        every = enumerate(self.network.nodes)
        return [replace(n, inputs=(self.spans[i].source,)) if i in self.spans else n for i, n in every]

    def across(self, position: int) -> Across:
        """How rows get across the span that ends at ``position``."""
        if position not in self._across:
            span = self.spans[position]
            lines = self.lines[span.activation].map(lambda t: t[..., 0])
            self._across[position] = Across.of(span, lines, self.network.nodes[span.source].size)
        return self._across[position]

    def cut(self, position: int, support: Tensor | None) -> Cut:
        """The matrix of the affine node at ``position``, (wanted features of its operand x ``support``)."""
        key = (position, id(support))  # supports live as long as the group
        if key not in self._cuts:
            (source,) = self.network.nodes[position].inputs
            self._cuts[key] = self.matrix(position).cut(self.wanted(source), support)
        return self._cuts[key]

    def has_cut(self, position: int, support: Tensor | None) -> bool:
        """Whether :meth:`cut` has this matrix at hand; ``support``: features (support), or None for all."""
        return (position, id(support)) in self._cuts

    @property
    def cuts_all(self) -> bool:
        """Whether all matrices that rows meet below the last activation are cut already, or dense ones, which are cut
        at once."""
        cut = {position for position, _ in self._cuts}
        last = max(self.lines, default=0)
        return all(
            position in cut or position in self.lines or isinstance(node.op, PASSED) or _is_dense(node)
            for position, node in enumerate(self.network.nodes[1:last], start=1)
        )

    def matrix(self, position: int) -> Matrix:
        """All of the matrix of the affine node at ``position``."""
        node = self.network.nodes[position]
        shape = self.network.nodes[node.inputs[0]].shape
        if isinstance(node.op, Linear) and len(shape) > 1:
            return Repeated(node.op.weight, prod(shape[:-1]))
        return matrix(node.op, shape)

    def gather(self, columns: Tensor, form: Patches, rows: Owners) -> Tensor:
        """For each coefficient of ``form``, its element of an image that the group holds for each of its samples
        (features x samples), 0 beyond the image: (coefficients x rows)."""
        key = (id(columns), form.border)  # columns live as long as the group
        if key not in self._padded:
            self._padded[key] = pad(columns, form)
        return rows.gather(self._padded[key], form)

    def worth_at_centre(self, form: AnyForm, rows: Owners) -> Tensor:
        """A form of the entrance's value at the centre of the box: (rows)."""
        assert self.at_centre is not None
        if isinstance(form, Units):
            return self.at_centre[:, rows.samples][form.feature, rows.sample] * form.value
        if isinstance(form, Patches):
            return (self.gather(self.at_centre, form, rows) * form.coef).sum(0)
        at_centre = self.at_centre if form.support is None else self.at_centre.index_select(0, form.support)
        return rows.dot(at_centre, form.coef)


def _is_dense(node: Node) -> bool:
    return isinstance(node.op, Linear) and len(node.shape) == 1


def _entrance(network: Network) -> int:
    """The first Linear or convolution, if nothing else reads the input or what lies between; otherwise 0."""
    readers: list[list[int]] = [[] for _ in network.nodes]
    for position, node in enumerate(network.nodes):
        for i in node.inputs:
            readers[i].append(position)
    here = 0
    while len(readers[here]) == 1:
        here = readers[here][0]
        if isinstance(network.nodes[here].op, (Linear, Conv2d)):
            return here
        if not isinstance(network.nodes[here].op, (Reshape, Scale)):
            return 0
    return 0


def by_feature(values: Tensor) -> Tensor:
    """(samples x shape) to (features x samples)."""
    return values.flatten(1).T.contiguous()
