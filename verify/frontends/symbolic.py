"""torch.fx's recording of a forward(), which decides what only asks for shapes, and names what it cannot record."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute as FxAttribute
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from assay.verify.core.errors import AssayError, UnsupportedError
from assay.verify.frontends.trace import Handler, called, line

ROOT = "model"  # the name of the model within what is traced
QUESTIONS = ("shape", "ndim", "dtype", "device")  # attributes of tensors that are no tensors
OF_CALLER = ("requires_grad", "is_leaf", "grad", "grad_fn", "_version")
OF_BATCH = "the model's code asks for the size of the batch, which is not part of a sample"

# What takes sizes as they are, and what takes a size as a part of a shape or in a way that shows at once.
PICKS = (operator.getitem, getattr, "size", "dim", "ndimension", "numel", len)
EXACT = (operator.add, operator.sub, operator.mul)
SHAPING = ("view", "reshape", "expand", "repeat", "unflatten", torch.reshape)


class OfOneInput(nn.Module):
    """The model as it is called on one batch: what else it could be given keeps its default value."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The model's output."""
        return self.model(x)


class Recorded(fx.Proxy):
    """A value while it is recorded. Where Python needs to know it, it must be a fact about shapes."""

    tracer: Tracer

    def __getattr__(self, name: str) -> Any:
        if name in OF_CALLER:
            self.tracer.refuse(UnsupportedError(f"the model's code asks for {name}, which changes with who calls it"))
        attribute = Attribute(self, name)
        if name in QUESTIONS:
            _ = attribute.node  # in the graph even where nothing comes of it
        return attribute

    def __len__(self) -> int:
        return int(self.tracer.fact(self, len))

    def __index__(self) -> int:
        return int(self.tracer.fact(self, operator.index))

    def __int__(self) -> int:
        return int(self.tracer.fact(self, int))

    def __float__(self) -> float:
        return float(self.tracer.fact(self, float))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class Attribute(Recorded, FxAttribute):
    """``value.name``, which is an attribute until it is called as a method."""


class Tracer(fx.Tracer):
    """Looks into every module that is not in the ``table`` and is not torch's own.

    ``samples``: batches of different sizes, on which facts about shapes are looked up; without any, there are none.
    """

    def __init__(self, table: Mapping[Any, Handler], samples: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.table = table
        self.batches = [Batch(sample) for sample in samples]
        self.looking = False
        self.refusals: list[UnsupportedError] = []  # a model that catches errors must not hide them

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the graph has the module as one node."""
        if type(m) in self.table or is_parametrized(m):  # the class of the latter, made by torch, is in no table
            return type(m) in self.table
        return bool(super().is_leaf_module(m, module_qualified_name))

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for the value of ``node``."""
        return Recorded(node, self)

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, type_expr: Any | None = None
    ) -> fx.Node:
        """A node of the graph."""
        if torch.is_autocast_enabled("cpu"):
            raise UnsupportedError("the model runs under torch.autocast, in precisions that change: remove it")
        return super().create_node(kind, target, args, kwargs, name, type_expr)

    def path_of_module(self, mod: nn.Module) -> str:
        """The name of a part of the model."""
        try:
            return super().path_of_module(mod)
        except NameError:
            raise UnsupportedError(
                f"the model uses a {type(mod).__name__} that is not registered as a part of it (is it in a plain list, "
                "or made anew at each call?): assign it to self, or use nn.ModuleList"
            ) from None

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Recorded, or run where facts are looked up."""
        return forward(*args, **kwargs) if self.looking else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Recorded, or the value where facts are looked up."""
        return attr_val if self.looking else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Which way a branch goes, where that is a fact about shapes."""
        return bool(self.fact(obj, bool))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The parts of a tuple of sizes."""
        return iter([self.create_proxy("call_function", operator.getitem, (obj, i), {}) for i in range(len(obj))])

    def fact(self, proxy: fx.Proxy, question: Callable[[Any], Any]) -> Any:
        """The answer to a question about a value, if the numbers of the input have no part in it.

        Looked up on batches that have a shape and no numbers, so that data cannot decide. Raises
        :class:`UnsupportedError` where they would have to, or where the size of the batch does.
        """
        try:
            return self._fact(proxy, question)
        except UnsupportedError as error:
            self.refuse(error)

    def refuse(self, error: UnsupportedError) -> NoReturn:
        """Raise ``error``, and keep it."""
        self.refusals.append(error)
        raise error

    def _fact(self, proxy: fx.Proxy, question: Callable[[Any], Any]) -> Any:
        self.looking = True
        try:
            answers = [batch.answer(proxy.node, self.root, question) for batch in self.batches]
        finally:
            self.looking = False
        if not answers:
            raise branches(proxy.node)
        if any(answer != answers[0] for answer in answers) or (question is not len and self._of_batch(proxy.node)):
            raise UnsupportedError(OF_BATCH)
        return answers[0]

    def refuse_batch_numbers(self, graph: fx.Graph) -> None:
        """Raise :class:`UnsupportedError` if the size of the batch goes anywhere but into shapes."""
        numbers: set[fx.Node] = set()
        for node in graph.nodes:
            operands = node.all_input_nodes
            given = [operand for operand in operands if operand in numbers]
            if node.target in PICKS and (given or node.target is not operator.getitem):
                numbers.add(node)
            elif given and node.target not in SHAPING:
                if len(given) == len(operands):
                    numbers.add(node)
                if node.op != "output" and not (
                    len(given) == len(operands) and (node.target in EXACT or _of_sizes(node))
                ):
                    self._refuse_of_batch(given)

    def _refuse_of_batch(self, nodes: Sequence[fx.Node]) -> None:
        self.looking = True
        try:
            for batch in self.batches:
                for node in nodes:
                    batch.answer(node, self.root, type)
        finally:
            self.looking = False
        if self.batches and any(self._of_batch(node) for node in nodes):
            raise UnsupportedError(OF_BATCH)

    def _of_batch(self, node: fx.Node) -> bool:
        """Whether the size of the batch has a part in a number, even where batches of these sizes give the same.

        Only what picks from sizes is free of it if it is the same: comparing and rounding hide what they are given.
        """
        values = [batch.known[node] for batch in self.batches]
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(values)):
            return False
        if any(value != values[0] for value in values):
            return True
        if node.target in PICKS or _of_sizes(node):
            return False
        return any(self._of_batch(operand) for operand in node.all_input_nodes)


def _of_sizes(node: fx.Node) -> bool:
    """Whether it divides sizes, such as all numbers by the samples: both grow in proportion to the batch."""
    sizes = [operand for operand in node.all_input_nodes if operand.target in PICKS]
    return node.target in (operator.floordiv, operator.truediv) and len(sizes) == len(node.args) == 2


class Batch:
    """A batch without numbers, and what the recorded nodes make of it."""

    def __init__(self, sample: Tensor) -> None:
        self.sample = sample
        self.known: dict[fx.Node, Any] = {}
        self.mode: Any = None

    def answer(self, node: fx.Node, root: nn.Module, question: Callable[[Any], Any]) -> Any:
        """The answer to a question about the value of ``node``; what lies before it is run where it has not been."""
        from torch._subclasses.fake_tensor import (  # on use: they load much of torch
            DataDependentOutputException,
            DynamicOutputShapeException,
            FakeTensorMode,
        )

        self.mode = self.mode or FakeTensorMode(allow_non_fake_inputs=True)
        try:
            with self.mode, torch.no_grad():
                for one in node.graph.nodes:
                    if one not in self.known:
                        self.known[one] = self._value(one, root)
                    if one is node:
                        break
                return question(self.known[node])
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise branches(node) from error

    def _value(self, node: fx.Node, root: Any) -> Any:
        if node.op == "placeholder":
            return self.mode.from_tensor(self.sample)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(root)
        args: Any = fx.node.map_arg(node.args, self.known.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self.known.__getitem__)
        if node.op == "call_module":
            return root.get_submodule(str(node.target))(*args, **kwargs)
        return called(node, args, kwargs)


def branches(node: fx.Node) -> UnsupportedError:
    """The error for code that asks for the numbers of a value."""
    what = getattr(node.target, "__name__", node.target)
    return UnsupportedError(
        f"the model's code branches on data (on what {what} gives), so that it is no one graph of operations, and "
        "torch.fx cannot trace it: make forward() free of branches on data"
    )


def record(module: nn.Module, table: Mapping[Any, Handler], samples: Sequence[Tensor] = ()) -> fx.GraphModule:
    """``module`` as the graph of what it calls, under the name :data:`ROOT` in a module of its own.

    Raises :class:`UnsupportedError` where its code cannot be recorded.
    """
    root, tracer = OfOneInput(module), Tracer(table, samples)
    try:
        graph = tracer.trace(root)
        if tracer.refusals:
            raise tracer.refusals[0]
        tracer.refuse_batch_numbers(graph)
        return fx.GraphModule(root, graph, type(module).__name__)
    except AssayError:
        raise
    except Exception as error:  # torch.fx raises many kinds; all mean that Python needed what is not yet known
        raise UnsupportedError(
            f"torch.fx cannot trace the model ({line(error)}): its code needs the value of what is only recorded, or "
            "calls what is not torch's; write forward() with tensors and operations of torch alone"
        ) from error


def asks_precision(graph: fx.GraphModule) -> bool:
    """Whether the recorded code looks at the precision of its values."""
    return any(node.target is getattr and node.args[1] == "dtype" for node in graph.graph.nodes)
