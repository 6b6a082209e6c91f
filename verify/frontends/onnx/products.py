"""Products of matrices, and of stacks of them: with constants on either side, and of two values."""

from __future__ import annotations

from math import prod
from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Conv2d
from assay.verify.frontends import composed
from assay.verify.frontends.composed import number
from assay.verify.frontends.onnx.layers import ONE, ZERO, linear, scale, total
from assay.verify.frontends.onnx.moves import broadcast, rearrange, view
from assay.verify.frontends.onnx.translation import Call, Operand, Value, broadcast_shape
from assay.verify.frontends.refusal import Untranslatable


def matmul(call: Call) -> Operand:
    """The product of two operands."""
    return product(call, call.operand(0), call.operand(1))


def gemm(call: Call) -> Operand:
    """``alpha A B + beta C``, both factors perhaps transposed."""
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    turn = bool(call.integer("transA", 0)), bool(call.integer("transB", 0))
    a, b = (rearrange(call, call.operand(i), _turned) if turn[i] else call.operand(i) for i in (0, 1))
    c = call.operand(2) if call.has(2) else ZERO
    if isinstance(c, Tensor):
        c = beta * c.to(torch.float64)
        if isinstance(a, Value) and isinstance(b, Tensor) and prod(c.shape[:-1]) == 1:
            return _times(call, a, _stretched(b, alpha), c)
        return total(call, product(call, a, b, alpha), c)
    return total(call, product(call, a, b, alpha), scale(call, c, number(beta), ZERO))


def product(call: Call, a: Operand, b: Operand, alpha: float = 1.0) -> Operand:
    """``alpha A B``."""
    if not isinstance(a, Value) and not isinstance(b, Value):
        raise Untranslatable("of constants")
    if not a.shape or not b.shape or a.shape[-1] != b.shape[-2 if len(b.shape) > 1 else 0]:
        raise InputError(f"{call.node.label} multiplies shapes {list(a.shape)} and {list(b.shape)}")
    if len(a.shape) == 1 or len(b.shape) == 1:  # a row, or a column, whose axis goes away again
        flat = len(a.shape) == 1, len(b.shape) == 1
        a = rearrange(call, a, lambda x: x[None]) if flat[0] else a
        b = rearrange(call, b, lambda x: x[:, None]) if flat[1] else b
        y = product(call, a, b, alpha)
        shape = (*y.shape[:-2], *([] if flat[0] else y.shape[-2:-1]), *([] if flat[1] else y.shape[-1:]))
        return rearrange(call, y, lambda x: x.reshape(shape))
    if isinstance(b, Tensor) and prod(b.shape[:-2]) == 1:
        return _times(call, cast(Value, a), _stretched(b, alpha))
    if isinstance(a, Tensor) and prod(a.shape[:-2]) == 1:  # W x = (x^T W^T)^T
        turned = cast(Value, rearrange(call, b, _turned))
        return rearrange(call, _times(call, turned, _turned(_stretched(a, alpha))), _turned)
    if isinstance(a, Tensor):
        turned = cast(Value, rearrange(call, b, _turned))
        return rearrange(call, _stacked(call, turned, _turned(_stretched(a, alpha))), _turned)
    return _stacked(call, a, _stretched(b, alpha)) if isinstance(b, Tensor) else _of_two(call, a, b, alpha)


def _stretched(weight: Tensor, alpha: float) -> Tensor:
    """``alpha`` times the weight; itself, where that changes nothing: weights are large."""
    return weight if alpha == 1 else alpha * weight.to(torch.float64)


def _times(call: Call, x: Value, weight: Tensor, bias: Tensor = ZERO) -> Value:
    """``x W + b``: one weight (in x out), bias one number or one per output."""
    if weight.dim() > 2:
        x = view(call, x, (*[1] * (weight.dim() - len(x.shape)), *x.shape))
        weight = weight.reshape(weight.shape[-2:])
    return linear(call, x, weight.T, bias.reshape(bias.shape[-1:]))


def _stacked(call: Call, x: Value, weight: Tensor) -> Value:
    """A stack of matrices (n x in) by one of constants (in x out), a group of channels for each pair."""
    front = broadcast_shape(x.shape[:-2], weight.shape[:-2])
    (n, size), outputs, count = x.shape[-2:], weight.shape[-1], prod(front)
    call.translation.claim((count * outputs, size))
    wide = cast(Value, broadcast(call, x, (*front, n, size)))
    rows = cast(Value, rearrange(call, wide, lambda t: t.mT.reshape(1, count * size, n, 1)))
    kernel = weight.to(torch.float64).mT.expand(*front, outputs, size).reshape(count * outputs, size, 1, 1)
    op = Conv2d(kernel, kernel.new_zeros(len(kernel)), groups=count)
    y = call.emit(op, (1, count * outputs, n, 1), rows)
    return cast(Value, rearrange(call, y, lambda t: t.reshape(*front, outputs, n).mT))


def _of_two(call: Call, a: Value, b: Value, alpha: float) -> Value:
    """Of two values, a stack of matrices each."""
    front = broadcast_shape(a.shape[:-2], b.shape[:-2])
    count = prod(front)
    sides = []
    for x in (a, b):
        wide = cast(Value, broadcast(call, x, (*front, *x.shape[-2:])))
        sides.append(composed.reshaped(call.append, call.sample(wide), (count, *x.shape[-2:])))
    y = composed.scaled(call.append, composed.matrix_product(call.append, *sides), alpha)
    return call.value(y, (*front, a.shape[-2], b.shape[-1]), a.dtype)


def _turned(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def einsum(call: Call) -> Operand:
    """A sum of products by the letters of an equation, of one operand or two: moved so that it is a stack of matrix
    products."""
    left, _, right = call.text("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in left or (not right and "->" not in call.text("equation", "")) or len(terms) != len(call.inputs):
        raise Untranslatable(f"the equation {left!r} -> {right!r}")
    operands = [_diagonal(call, call.operand(i), term) for i, term in enumerate(terms)]
    if len(operands) == 1:
        operands.append((ONE.to(operands[0][0].dtype), ""))
    if len(operands) != 2:
        raise Untranslatable("of more than two operands")
    (a, first), (b, second) = operands
    size = dict(zip(first + second, (*a.shape, *b.shape), strict=True))
    both = [c for c in first if c in second]
    stack, inner = [c for c in both if c in right], [c for c in both if c not in right]
    rows, columns = [c for c in first if c not in both], [c for c in second if c not in both]

    def arranged(x: Operand, term: str, groups: list[list[str]]) -> Operand:
        order = [term.index(c) for group in groups for c in group]
        shape = [prod(size[c] for c in group) for group in groups]
        return rearrange(call, x, lambda t: t.permute(order).reshape(shape))

    y = product(call, arranged(a, first, [stack, rows, inner]), arranged(b, second, [stack, inner, columns]))
    have = [*stack, *rows, *columns]
    y = rearrange(call, y, lambda t: t.reshape([size[c] for c in have]))
    summed = [i for i, c in enumerate(have) if c not in right]
    kept = [have.index(c) for c in right]
    if summed:
        wanted = [size[c] for c in right]
        y = rearrange(call, y, lambda t: t.permute(*kept, *summed).reshape(*wanted, -1))
        ones = torch.ones(y.shape[-1], 1, dtype=torch.float64)
        y = product(call, rearrange(call, y, lambda t: t.reshape(-1, t.shape[-1])), ones)
        return rearrange(call, y, lambda t: t.reshape(wanted))
    return rearrange(call, y, lambda t: t.permute(kept))


def _diagonal(call: Call, x: Operand, term: str) -> tuple[Operand, str]:
    """An operand whose axes have different letters."""
    if len(term) != len(x.shape):
        raise InputError(f"{call.node.label}: {term!r} does not fit {list(x.shape)}")
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            x = rearrange(call, x, lambda t, i=i, j=j: t.diagonal(dim1=i, dim2=j))  # type: ignore[misc]
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    return x, term
