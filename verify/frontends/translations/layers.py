"""Products of matrices, one of them constant or none, and convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from assay.verify.core.ops import Add, Conv2d, ConvTranspose2d, Linear, Op, Scale
from assay.verify.frontends import composed, volumes
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Step
from assay.verify.frontends.translations.arithmetic import constant


def matrix_product(step: Step) -> Value | Tensor:
    """``a b`` of matrices (m x k), (k x n), or of batches of them (batch x m x k), (batch x k x n)."""
    return _product(step, "self", "mat2", None, 1.0, 1.0)


def sum_with_product(step: Step) -> Value | Tensor:
    """``beta c + alpha a b``."""
    names = ("mat1", "mat2") if "mat1" in step.given else ("batch1", "batch2")
    return _product(step, *names, "self", float(step["beta"]), float(step["alpha"]))


def matrix_vector(step: Step) -> Value | Tensor:
    """A matrix times a vector, or two vectors."""
    name = "vec" if "vec" in step.given else "tensor"
    if step.traced("self") and step.traced(name):
        a = step.value("self", lambda x: x.reshape(1, 1, -1, x.shape[-1]))
        b = step.value(name, lambda x: x.reshape(1, 1, -1, 1))
        return composed.matrix_product(step.emit, a, b)
    if step.traced("self"):
        weight = step.constant(name)[None]
        x = step.value("self", lambda x: x if x.dim() == 2 else x[None])
        return step.emit(Linear(weight, weight.new_zeros(1)), x)
    weight = step.constant("self")
    weight = weight[None] if weight.dim() == 1 else weight
    return step.emit(Linear(weight, weight.new_zeros(len(weight))), step.value(name, lambda x: x[None]))


def _product(step: Step, a: str, b: str, c: str | None, beta: float, alpha: float) -> Value | Tensor:
    if step.traced(a) and step.traced(b):
        return _of_two(step, a, b, c, beta, alpha)
    left = step.traced(a)  # else b^T a^T is made, and transposed
    name = a if left else b
    if not left and not step.traced(b):  # the term is all that depends on the input
        raise Untranslatable
    weight = step.constant(b).mT if left else step.constant(a)
    weight = step.translation.own(weight) if alpha == 1 else alpha * weight
    bias = None if c is None or step.traced(c) or not left else _bias(step, c, beta, weight)
    x, many = _arranged(step, name, left, weight)
    applied = _applied(step, x, weight, bias, many)
    result: Value | Tensor = applied
    if many:
        origins = step.origins(applied, (len(weight), weight.shape[1], -1))
        result = origins.mT if left else origins
    elif not left:
        result = step.origins(applied, (*step.shape[:-2], step.shape[-1], step.shape[-2])).mT
    if c is None or bias is not None:
        return result
    return _plus(step, result, c, beta)


def _of_two(step: Step, a: str, b: str, c: str | None, beta: float, alpha: float) -> Value:
    """``beta c + alpha a b``, both of which depend on the input."""
    x, y = (step.value(name, lambda x: x.reshape(1, -1, *x.shape[-2:])) for name in (a, b))
    result = composed.scaled(step.emit, composed.matrix_product(step.emit, x, y), alpha)
    return result if c is None else _plus(step, result, c, beta)


def _arranged(step: Step, name: str, left: bool, weight: Tensor) -> tuple[Value, bool]:
    """The value with the axis that is summed over at last; or, where a batch has many matrices, first, for each."""
    alike = weight.dim() == 2 or bool((weight == weight[:1]).all())
    if alike:
        return step.value(name, lambda x: x if left else x.mT), False
    return step.value(name, lambda x: (x.mT if left else x).reshape(1, -1, x.shape[-2 if left else -1], 1)), True


def _applied(step: Step, x: Value, weight: Tensor, bias: Tensor | None, many: bool) -> Value:
    if many:  # one group of channels for each matrix
        count, outputs, inputs = weight.shape
        kernel = weight.reshape(count * outputs, inputs, 1, 1)
        return step.emit(Conv2d(kernel, kernel.new_zeros(len(kernel)), groups=count), x)
    matrix = weight if weight.dim() == 2 else weight[0]
    return step.emit(Linear(matrix, matrix.new_zeros(len(matrix)) if bias is None else bias), x)


def _bias(step: Step, name: str, beta: float, weight: Tensor) -> Tensor | None:
    """The constant term where it is one number for each output of a matrix."""
    term: Tensor = step.constant(name)
    if weight.dim() != 2 or term.numel() != len(weight) or term.shape[-1:] != weight.shape[:1]:
        return None
    return term.reshape(-1) if beta == 1 else beta * term.reshape(-1)


def _plus(step: Step, result: Value | Tensor, name: str, beta: float) -> Value:
    x = result if isinstance(result, Value) else step.translation.node(result, step.results[0])
    x = step.shaped(x)
    if not step.traced(name):
        return step.emit(Scale(number(1.0), beta * constant(step, name)), x, shape=x.shape)
    term = step.spread(name)
    if beta != 1:
        term = step.emit(Scale(number(beta), number(0.0)), term, shape=term.shape)
    return step.emit(Add(), x, term, shape=x.shape)


def convolution(step: Step) -> Value:
    """A convolution of sequences or images, or the transpose of one."""
    x, weight, bias = step["input"].number, step.constant("weight"), step.constant("bias")
    groups, count = int(step["groups"]), len(x)
    if x.dim() == 5 and not step["transposed"]:
        return _of_volumes(step, weight, bias, groups)
    if x.dim() not in (3, 4):
        raise Untranslatable(f"over {x.dim() - 2} axes")
    stride, padding, dilation, extra = (_pair(step[name], other) for name, other in OPTIONS.items())
    if weight.dim() == 3:  # a sequence is an image of height one
        weight = weight.unsqueeze(2)
    outputs = weight.shape[1] * groups if step["transposed"] else len(weight)
    bias = weight.new_zeros(outputs) if bias is None else bias
    if count > 1:  # images that lie beside each other on the batch's axis are channels of one
        weight, bias, groups = weight.repeat(count, 1, 1, 1), bias.repeat(count), groups * count
    given = step.value("input", lambda x: x.reshape(1, -1, *([1] if x.dim() == 3 else []), *x.shape[2:]))
    op: Op
    if step["transposed"]:
        op = ConvTranspose2d(weight, bias, stride, padding, extra, dilation, groups)
    else:
        op = Conv2d(weight, bias, stride, padding, dilation, groups)
    height = [1] if x.dim() == 3 else []
    return step.emit(op, given, shape=(step.shape[0] * step.shape[1], *height, *step.shape[2:]))


def _of_volumes(step: Step, weight: Tensor, bias: Tensor | None, groups: int) -> Value:
    """A convolution over three axes."""
    stride, before, dilation = (tuple(int(n) for n in step[name]) for name in ("stride", "padding", "dilation"))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    windows = volumes.Windows(tuple(weight.shape[2:]), stride, dilation, before, step.shape[2:])
    return over_volumes(step, "input", windows, weight, bias, groups)


def over_volumes(step: Step, name: str, windows: volumes.Windows, weight: Tensor, bias: Tensor, groups: int) -> Value:
    """A convolution of an argument; volumes that lie beside each other on the batch's axis are channels of one."""
    count = len(step[name].number)
    weight, bias, groups = weight.repeat(count, 1, 1, 1, 1), bias.repeat(count), groups * count
    x = step.value(name, lambda x: windows.arranged(x.reshape(1, -1, *x.shape[2:]), 0.0))
    return windows.applied(step.emit, x, weight, bias, groups)


def bilinear(step: Step) -> Value:
    """``sum_ij x_i w_oij y_j``: products of all pairs, weighed."""
    axes = [list(step[name]) for name in ("expand1", "expand2", "expand3", "sumdim")]
    if axes != [[1, 3], [0], [1, 2], [2, 3]]:
        raise Untranslatable("of three tensors, otherwise than in a bilinear layer")
    weight: Tensor = step.constant("i2")
    outputs, rows, columns = weight.shape
    count = len(step["i1"].number)
    x = step.value("i1", lambda x: x[:, :, None].expand(count, rows, columns))
    y = step.value("i3", lambda y: y[:, None].expand(count, rows, columns))
    pairs = composed.product(step.emit, x, y)
    flat = composed.reshaped(step.emit, pairs, (count, rows * columns) if count > 1 else (rows * columns,))
    return step.emit(Linear(weight.flatten(1), weight.new_zeros(outputs)), flat)


OPTIONS = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}


def _pair(value: Any, other: int) -> tuple[int, int]:
    """An option for two axes; a sequence has ``other`` on the axis that it lacks, and one number stands for both."""
    numbers = [int(v) for v in value]
    return (other, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
