"""``torch.nn.Module`` in eval mode to :class:`Network`: traced by torch.fx, folded, and proven equal on random points.

The traced graph is walked once with a concrete batch of two samples in float64 beside the symbolic operations:
whatever does not depend on the input is a constant, shapes are read off the values, and each operation must give
the module's own value the moment it is translated.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from verify.core.errors import InputError, InternalError, UnsupportedError
from verify.core.network import Builder, Network, Oracle, to_network
from verify.core.ops import Add, Conv2d, Linear, Op, Relu, Reshape, Scale, Sub, evaluate
from verify.frontends.fold import fold

HINT = (
    "assay reads Linear, Conv2d, ReLU, BatchNorm, Flatten/view/reshape, additions and subtractions, "
    "and scaling or shifting by constants; rewrite the model with these, or remove what is not needed for inference"
)


@to_network.register
def read_module(module: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """``module``, which must be in eval mode, on inputs of ``input_shape`` (one sample, no batch dimension).

    Raises :class:`InputError` for a module in train mode, weights that are NaN or inf, or a shape that the module
    does not take; :class:`UnsupportedError` with all the operations that have no translation.
    """
    if input_shape is None:
        raise InputError("a torch module does not say what it takes: pass input_shape (one sample, no batch dimension)")
    dtype, oracle = _oracle(_validated(module))
    double = copy.deepcopy(module).cpu().double()
    sample = torch.rand(2, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _run(double, sample, input_shape)
    translation = _Translation(_trace(double), sample)
    literal = translation.network(oracle, dtype, type(module).__name__)
    network = fold(literal)
    compare_with_oracle(network, literal, double)
    return network


def compare_with_oracle(network: Network, literal: Network, double: nn.Module | None = None) -> None:
    """Raise :class:`InternalError` unless network and original agree on random points.

    In the oracle's dtype within twice the running error bound of that arithmetic; in float64, against the float64
    copy ``double`` of a module, to 1e-9 of the magnitudes that are summed. Both are those of the ``literal``
    translation, before folding: what cancels in folded constants is rounded in the original.
    """
    generator = torch.Generator().manual_seed(1)
    shape = (4, *network.input_shape)
    unit = torch.rand(shape, dtype=torch.float64, generator=generator)
    wide = 3 * torch.randn(shape, dtype=torch.float64, generator=generator)
    points = torch.cat([unit, wide, torch.zeros_like(unit[:1])]).to(network.dtype)
    with torch.no_grad():
        ours = network(points.double())
        error, magnitude = literal.rounding_error(points, network.dtype)
        if network.oracle is not None:
            theirs = network.oracle(points)
            if theirs.shape != ours.shape:
                raise InternalError(f"the import changed the output shape: {tuple(theirs.shape)}, {tuple(ours.shape)}")
            _demand(ours, theirs.double(), 2 * error + 1e-9 * magnitude, "in its own arithmetic")
        if double is not None:
            _demand(ours, double(points.double()), 1e-9 * magnitude + 1e-300, "in float64")


def _demand(ours: Tensor, theirs: Tensor, tolerance: Tensor, where: str) -> None:
    difference = (ours - theirs).abs()
    finite = theirs.isfinite()
    if not bool((difference[finite] <= tolerance[finite]).all()) or not bool(ours[finite].isfinite().all()):
        worst = difference[finite].max().item()
        raise InternalError(f"the imported network differs from the model {where} by {worst:g}; please report this")


def _validated(module: nn.Module) -> nn.Module:
    training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise InputError(f"the model is in train mode ({', '.join(training[:3])}): call model.eval() first")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"tensor {name!r} of the model holds NaN or inf")
    return module


def _oracle(module: nn.Module) -> tuple[torch.dtype, Oracle]:
    """The dtype in which the model runs and a callable on CPU tensors; half precision is widened, which is exact."""
    tensor = next((p for p in [*module.parameters(), *module.buffers()] if p.is_floating_point()), None)
    if tensor is None or (tensor.dtype in (torch.float32, torch.float64) and tensor.device.type == "cpu"):
        return (torch.float32 if tensor is None else tensor.dtype), module
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return torch.float32, copy.deepcopy(module).cpu().float()
    device = tensor.device
    return tensor.dtype, lambda x: module(x.to(device)).to(x.device)


def _run(module: nn.Module, sample: Tensor, input_shape: Sequence[int]) -> Tensor:
    try:
        with torch.no_grad():
            output: Any = module(sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the model does not take inputs of shape {tuple(input_shape)}: {reason}") from error
    if not isinstance(output, Tensor) or output.dim() < 1 or output.shape[0] != len(sample):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"expected the model to return one tensor with a batch dimension, got {got}")
    return output


def _trace(module: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(module)
    except Exception as error:  # torch.fx raises many kinds; all mean that Python decided something by tensor values
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(
            f"torch.fx cannot trace the model ({reason}); make forward() free of branches"
        ) from error


@dataclass(frozen=True)
class _Value:
    """What a graph node stands for: a node of the network under construction, and its value on the two samples."""

    position: int
    concrete: Tensor


class _Untranslatable(Exception):
    """An operation on traced values that has no counterpart."""


Handler = Callable[["_Translation", fx.Node, list[Any], dict[str, Any]], Any]


class _Translation:
    """The walk over the traced graph."""

    def __init__(self, traced: fx.GraphModule, sample: Tensor) -> None:
        self.traced = traced
        self.builder = Builder(tuple(sample.shape[1:]))
        self.sample = sample
        self.environment: dict[fx.Node, Any] = {}
        self.unsupported: dict[str, int] = {}
        self.modules = dict(traced.named_modules())

    def network(self, oracle: Oracle, dtype: torch.dtype, name: str) -> Network:
        """Translate all of the graph; every operation without a translation is collected before complaining."""
        output: Any = None
        with torch.no_grad():
            for node in self.traced.graph.nodes:
                if node.op == "output":
                    output = self._resolve(node.args[0])
                else:
                    self.environment[node] = self._step(node)
        if self.unsupported:
            listed = ", ".join(f"{name} (x{n})" if n > 1 else name for name, n in self.unsupported.items())
            raise UnsupportedError(f"unsupported operations: {listed}. {HINT}")
        if not isinstance(output, _Value):
            raise InputError("the model's output does not depend on its input")
        return self.builder.build(output.position, oracle=oracle, dtype=dtype, name=name)

    def emit(self, op: Op, *operands: _Value, expected: Tensor) -> _Value:
        """Append ``op``; its value must be the module's own."""
        position = self.builder.add(op, *(v.position for v in operands))
        op = self.builder.nodes[position].op
        value = evaluate(op, *(v.concrete for v in operands))
        scale = 1 + expected.abs().amax()
        if value.shape != expected.shape or not bool(((value - expected).abs() <= 1e-9 * scale).all()):
            raise InternalError(f"{op.label} was translated wrongly; please report this")
        return _Value(position, expected)

    def _resolve(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: self.environment[n])

    def _step(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if isinstance(self.environment.get(node), _Value) or any(n.op == "placeholder" for n in self.environment):
                return node.args[0] if node.args else None
            return _Value(0, self.sample)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.traced)
        args: list[Any] = list(self._resolve(node.args))
        kwargs: dict[str, Any] = dict(self._resolve(node.kwargs))
        concrete = self._concrete(node, args, kwargs)
        if not isinstance(concrete, Tensor) or not _depends([*args, *kwargs.values()]):
            return concrete
        handler = HANDLERS.get(self._key(node))
        operands = [a for a in [*args, *kwargs.values()] if isinstance(a, _Value)]
        try:
            if handler is None or any(bool(self.unsupported) and v.position < 0 for v in operands):
                raise _Untranslatable
            return handler(self, node, [concrete, *args], kwargs)
        except _Untranslatable:
            if all(v.position >= 0 for v in operands) or handler is None:
                name = self._name(node)
                self.unsupported[name] = self.unsupported.get(name, 0) + 1
            return _Value(-1, concrete)

    def _concrete(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The node's value on the two samples, computed by torch itself."""
        args = fx.node.map_aggregate(args, _bare)
        kwargs = fx.node.map_aggregate(kwargs, _bare)
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _key(self, node: fx.Node) -> Any:
        return type(self.modules[str(node.target)]) if node.op == "call_module" else node.target

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self.modules[str(node.target)]).__name__} ({node.target})"
        return str(getattr(node.target, "__name__", node.target))


def _bare(argument: Any) -> Any:
    return argument.concrete.clone() if isinstance(argument, _Value) else argument


def _depends(arguments: Sequence[Any]) -> bool:
    found = False

    def look(argument: Any) -> Any:
        nonlocal found
        found = found or isinstance(argument, _Value)
        return argument

    fx.node.map_aggregate(tuple(arguments), look)
    return found


def _traced(value: Any) -> _Value:
    if not isinstance(value, _Value):
        raise _Untranslatable
    return value


def _constant(value: Any, batch: Tensor) -> Tensor:
    """A constant operand as it broadcasts against one sample of ``batch``."""
    if isinstance(value, _Value) or not isinstance(value, (int, float, Tensor)):
        raise _Untranslatable
    tensor = torch.as_tensor(value).detach().to(torch.float64)
    if tensor.dim() == batch.dim():
        if tensor.shape[0] != 1:
            raise _Untranslatable
        tensor = tensor[0]
    if tensor.dim() > batch.dim():
        raise _Untranslatable
    return tensor


def _linear(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    concrete, *rest = args
    if node.op == "call_module":
        module = t.modules[str(node.target)]
        weight, bias = module.weight, module.bias
    else:
        named = _named(("input", "weight", "bias"), rest, kwargs)
        weight, bias = named["weight"], named.get("bias")
        rest = [named["input"]]
    if isinstance(weight, _Value) or isinstance(bias, _Value):
        raise _Untranslatable
    bias = torch.zeros(weight.shape[0]) if bias is None else bias
    return t.emit(Linear(weight.detach(), bias.detach()), _traced(rest[0]), expected=concrete)


def _conv2d(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    concrete, *rest = args
    if node.op == "call_module":
        m = t.modules[str(node.target)]
        if m.padding_mode != "zeros":
            raise _Untranslatable
        x, options = rest[0], (m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)
    else:
        named = _named(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), rest, kwargs)
        defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        named = {**defaults, **named}
        x = named["input"]
        options = tuple(named[k] for k in ("weight", "bias", "stride", "padding", "dilation", "groups"))
    weight, bias, stride, padding, dilation, groups = options
    if isinstance(weight, _Value) or isinstance(bias, _Value):
        raise _Untranslatable
    bias = torch.zeros(weight.shape[0]) if bias is None else bias
    pair = (_pair(dilation), tuple(weight.shape[2:]))
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(*pair, strict=True)]
        if any(n % 2 for n in total):
            raise _Untranslatable
        padding = tuple(n // 2 for n in total)
    elif padding == "valid":
        padding = 0
    op = Conv2d(weight.detach(), bias.detach(), _pair(stride), _pair(padding), _pair(dilation), int(groups))
    return t.emit(op, _traced(x), expected=concrete)


def _batchnorm(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    concrete, x = args[0], _traced(args[1])
    m = t.modules[str(node.target)]
    if m.running_mean is None:
        raise _Untranslatable
    shape = (-1, *[1] * (x.concrete.dim() - 2))
    mean = m.running_mean.reshape(shape)
    factor = ((m.running_var + m.eps).rsqrt() * (1 if m.weight is None else m.weight)).detach().reshape(shape)
    shift = torch.zeros_like(factor) if m.bias is None else m.bias.detach().reshape(shape)
    centred = t.emit(Scale(torch.ones_like(mean), -mean), x, expected=x.concrete - mean)
    return t.emit(Scale(factor, shift), centred, expected=concrete)


def _relu(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    return t.emit(Relu(), _traced(args[1]), expected=args[0])


def _same(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    # A constant moved to the dtype of a traced value, c.to(x), is still a constant.
    return args[1] if isinstance(args[1], _Value) else args[0]


def _reshape(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    concrete, x = args[0], _traced(args[1])
    if concrete.shape[0] != x.concrete.shape[0]:
        raise _Untranslatable
    return t.emit(Reshape(tuple(concrete.shape[1:])), x, expected=concrete)


def _sum(sign: int, swapped: bool = False) -> Handler:
    """a + sign * b, of two traced values or of one and a constant."""

    def handler(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
        concrete, a, b = args[0], *_named(("input", "other"), args[1:], kwargs).values()
        if isinstance(a, _Value) and isinstance(b, _Value):
            if a.concrete.shape != b.concrete.shape:
                raise _Untranslatable
            return t.emit(Add() if sign > 0 else Sub(), a, b, expected=concrete)
        one = torch.ones((), dtype=torch.float64)
        if isinstance(a, _Value):
            return _scaled(t, a, one, sign * _constant(b, a.concrete), concrete)
        return _scaled(t, _traced(b), sign * one, _constant(a, b.concrete), concrete)

    return handler


def _scaled(t: _Translation, x: _Value, factor: Tensor, shift: Tensor, expected: Tensor) -> _Value:
    if expected.shape != x.concrete.shape:
        raise _Untranslatable
    return t.emit(Scale(factor, shift), x, expected=expected)


def _product(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    concrete, a, b = args[0], *_named(("input", "other"), args[1:], kwargs).values()
    x, factor = (a, b) if isinstance(a, _Value) else (b, a)
    return _scaled(t, _traced(x), _constant(factor, x.concrete), torch.zeros((), dtype=torch.float64), concrete)


def _quotient(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    concrete, a, b = args[0], *_named(("input", "other"), args[1:], kwargs).values()
    factor = 1 / _constant(b, _traced(a).concrete)
    return _scaled(t, a, factor, torch.zeros((), dtype=torch.float64), concrete)


def _negation(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    minus = -torch.ones((), dtype=torch.float64)
    return _scaled(t, _traced(args[1]), minus, torch.zeros((), dtype=torch.float64), args[0])


def _clamp(t: _Translation, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
    named = _named(("input", "min", "max"), args[1:], kwargs)
    if named.get("min") != 0 or named.get("max") is not None:
        raise _Untranslatable
    return t.emit(Relu(), _traced(named["input"]), expected=args[0])


def _named(names: Sequence[str], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Positional and keyword arguments by name; a name that is not expected has no translation."""
    named = dict(zip(names, args, strict=False)) | kwargs
    if len(args) > len(names) or set(named) - set(names) - {"inplace", "out"} or named.get("out") is not None:
        raise _Untranslatable
    return {name: named[name] for name in names if name in named}


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _handlers() -> dict[Any, Handler]:
    groups: list[tuple[Handler, list[Any]]] = [
        (_linear, [nn.Linear, F.linear]),
        (_conv2d, [nn.Conv2d, F.conv2d, torch.conv2d]),
        (_batchnorm, [nn.BatchNorm1d, nn.BatchNorm2d]),
        (_relu, [nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"]),
        (_clamp, [torch.clamp, "clamp", "clamp_", torch.clamp_min, "clamp_min"]),
        (_same, [nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, "contiguous", "clone", "float", "double", "to"]),
        (_reshape, [nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze]),
        (_reshape, ["flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"]),
        (_sum(1), [operator.add, operator.iadd, torch.add, "add", "add_"]),
        (_sum(-1), [operator.sub, operator.isub, torch.sub, "sub", "sub_"]),
        (_product, [operator.mul, operator.imul, torch.mul, "mul", "mul_"]),
        (_quotient, [operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_"]),
        (_negation, [operator.neg, torch.neg, "neg"]),
    ]
    return {target: handler for handler, targets in groups for target in targets}


HANDLERS = _handlers()
