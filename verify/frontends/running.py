"""What a model does with its input, call by call of torch's functions, and whether it does the same however it is run:
with gradients or without, one sample or several. Values at some points do not tell: code that asks who calls it may
differ only where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from assay.verify.core.errors import AssayError, ResourceError, UnsupportedError
from assay.verify.core.network import Oracle
from assay.verify.frontends.batch import OF_BATCH, SHAPING, Size, symbolic
from assay.verify.frontends.dispatch import Operations, name_of, tensors_in
from assay.verify.frontends.memory import Geometry, geometry, place
from assay.verify.support.failures import explained, line

# In which situations a model must do the same: in words, the mode of autograd, and what is given.
Situation = tuple[str, Callable[[], AbstractContextManager[Any]], Callable[[Tensor], Tensor]]
SITUATIONS: tuple[Situation, ...] = (
    ("in inference mode", torch.inference_mode, torch.clone),
    ("where gradients are recorded", torch.enable_grad, torch.clone),
    ("on an input with gradients", torch.enable_grad, lambda x: x.clone().requires_grad_() * 1),
    ("on an input that is a parameter", torch.enable_grad, lambda x: nn.Parameter(x.clone())),
)

# What may be asked of a value without asking for its numbers: facts that are the same in all calls.
FACTS = {
    *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "__len__", "sym_size", "sym_numel"),
    *("dtype", "device", "layout", "get_device", "element_size", "itemsize", "is_floating_point", "is_complex"),
    *("is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_meta", "is_nested", "is_mkldnn", "is_contiguous", "is_mps"),
    *("is_xpu", "is_same_size", "names", "has_names", "_assert_tensor_metadata", "result_type", "is_tensor"),
}
CLOSE = 1e-4  # relative: rounding is the same in both; outputs are compared to the last bit later

OWN = str(Path(torch.__file__).parent)  # torch's own code asks who calls it, and does the same

SIZES = {"shape", "size", "numel", "nelement", "__len__"}
OF_CALLER = {"requires_grad", "is_leaf", "grad", "grad_fn", "_version", "is_inference", "retains_grad", "output_nr"}
OF_DATA = {"item", "__bool__", "__int__", "__float__", "__index__", "is_nonzero", "equal", "allclose", "__contains__"}


@dataclass(frozen=True)
class Constant:
    """A tensor in which the input has no part, and its version when it was used."""

    tensor: Tensor
    version: int


@dataclass(frozen=True)
class Number:
    """A value that depends on the input, by its place among them."""

    place: int


@dataclass(eq=False)
class Trail:
    """What was done to the input: ``steps``, functions of torch with their operands.

    ``values`` are the input and what functions gave, kept so that no other tensor takes their ids and their memory;
    those whose memory is in ``memory`` depend on the input; that in ``made`` came to be in the run, and
    that in ``seen`` depends on the input as operations tell, of scripts too. ``functions``: all
    that were called on numbers. ``answers``: to questions for sizes, one after the other. ``refusals``: what was
    refused on the way; a model that catches errors must not hide it.
    """

    steps: list[tuple[str, list[Any]]] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    lying: dict[Geometry, int] = field(default_factory=dict)
    memory: set[int] = field(default_factory=set)
    made: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    refusals: list[UnsupportedError] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)

    def follow(self, x: Any, depends: bool) -> None:
        """Note the tensors in ``x``."""
        for leaf in leaves(x):
            if isinstance(leaf, Tensor):
                self.places[id(leaf)] = self.lying[geometry(leaf)] = len(self.values)
                self.values.append(leaf)
                if depends:
                    self.memory.add(place(leaf))

    def depends(self, leaf: Any) -> bool:
        """Whether an operand depends on the input: it lies where one of the values does that do."""
        return isinstance(leaf, Tensor) and (place(leaf) or -1) in self.memory

    def operand(self, leaf: Any) -> Any:
        """An operand as it is compared."""
        if not isinstance(leaf, Tensor):
            return leaf
        if self.depends(leaf):
            return Number(self.places.get(id(leaf), self.lying.get(geometry(leaf), -1)))
        if place(leaf) in self.made:  # it may be overwritten
            with torch._C._DisableTorchDispatch():  # it is no operation of the model
                leaf = leaf.detach().clone()
        return Constant(leaf, 0 if leaf.is_inference() else leaf._version)

    def refuse(self, error: UnsupportedError) -> NoReturn:
        """Raise ``error``, and keep it."""
        self.refusals.append(error)
        raise error

    @property
    def moved(self) -> bool:
        """Whether a constant was overwritten after it was used."""
        return any(
            isinstance(leaf, Constant) and not leaf.tensor.is_inference() and leaf.tensor._version != leaf.version
            for _, operands in self.steps
            for leaf in operands
        )


def leaves(*given: Any) -> list[Any]:
    """What is in nested lists, tuples and dictionaries, with their lengths and keys."""
    listed: list[Any] = []
    for item in given:
        if isinstance(item, (list, tuple)):
            listed += [len(item), *leaves(*item)]
        elif isinstance(item, dict):
            listed += [*item, *leaves(*item.values())]
        else:
            listed.append(item)
    return listed


class Calls(TorchFunctionMode):
    """Notes the calls of torch's functions, and refuses those that give numbers away.

    Which mode autograd is in makes no difference to them. ``sizes``: the answers to questions for sizes, the size of
    the batch being a symbol.
    """

    def __init__(self, trail: Trail, sizes: Sequence[list[Any]] | None = None) -> None:
        super().__init__()
        self.trail = trail
        self.sizes = sizes
        self.running: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and note it."""
        kwargs, name, trail = kwargs or {}, named(func), self.trail
        given = leaves(args, kwargs)
        depends = any(trail.depends(leaf) for leaf in given)
        operands = [trail.operand(leaf) for leaf in given] if depends else []
        if any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in given):
            trail.functions.append(name)
        reached = depends or any(isinstance(leaf, Tensor) and place(leaf) in trail.seen for leaf in given)
        if reached:
            self._refuse(name)
            if torch.is_autocast_enabled("cpu"):
                trail.refuse(
                    UnsupportedError("the model runs under torch.autocast, in precisions that change: remove it")
                )
        if any(isinstance(leaf, Size) for leaf in given):
            if name not in SHAPING or ("full" in name and any(isinstance(leaf, Size) for leaf in leaves(args[1:]))):
                trail.refuse(UnsupportedError(OF_BATCH))
            args, kwargs = tree_map(_at_one, (tuple(args), kwargs))
        self.running.append(name)
        try:
            result = func(*args, **kwargs)
        finally:
            self.running.pop()
        if name in SIZES:
            return self._sizes(name, result)
        tensors = any(isinstance(leaf, Tensor) for leaf in leaves(result))
        if reached and not tensors and name not in ("__setitem__", *FACTS, *OF_CALLER):
            trail.refuse(UnsupportedError(LEAVES.format(name)))
        if depends and (tensors or name == "__setitem__"):
            trail.steps.append((name, operands))
        if tensors:
            given_in = {place(leaf) for leaf in given if isinstance(leaf, Tensor)}
            trail.made |= {place(leaf) for leaf in leaves(result) if isinstance(leaf, Tensor)} - given_in
            trail.follow(result, depends)
        if depends and name == "__setitem__":
            trail.follow(args[0], depends)
        return result

    def _refuse(self, name: str) -> None:
        if name in OF_CALLER and not sys._getframe(2).f_code.co_filename.startswith(OWN):
            what = f"the model's code asks for {name}, which changes with who calls it"
            self.trail.refuse(UnsupportedError(what))
        if name in OF_DATA:
            self.trail.refuse(branches(name))

    def _sizes(self, name: str, result: Any) -> Any:
        """The answer to a question for sizes, with the size of the batch as a symbol where there is one."""
        one = name in ("numel", "nelement", "__len__") or isinstance(result, int)
        self.trail.answers.append([int(result)] if one else [int(size) for size in result])
        if self.sizes is None:
            return result
        at = len(self.trail.answers) - 1
        answer = self.sizes[at] if at < len(self.sizes) else []
        if len(answer) != len(self.trail.answers[at]):
            self.trail.refuse(UnsupportedError(OF_BATCH))
        if name == "__len__" and isinstance(answer[0], Size):
            self.trail.refuse(UnsupportedError(f"{OF_BATCH} (in shapes, write x.shape[0] for len(x))"))
        return answer[0] if one else torch.Size(answer)


def _at_one(leaf: Any) -> Any:
    return leaf.at(1) if isinstance(leaf, Size) else leaf


LEAVES = "what the model computes leaves torch ({}), so that it is no graph of operations"


def branches(name: str) -> UnsupportedError:
    """The error for code that asks for the numbers of a value."""
    return UnsupportedError(
        f"the model's code branches on data (on what {name} gives), so that it is no one graph of operations: make "
        "forward() free of branches on data"
    )


def named(function: Any) -> str:
    """The name of a function, or of the attribute that it gets."""
    name = str(getattr(function, "__name__", function))
    if name in ("__get__", "__set__"):
        return str(getattr(getattr(function, "__self__", None), "__name__", name))
    return name.partition(".")[0] or name


@contextmanager
def _compiling() -> Iterator[None]:
    """Code that asks torch.compiler hears that it is compiled."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        with torch.no_grad():
            yield
    finally:
        torch.compiler._is_compiling_flag = before


COMPILED: Situation = ("where it is compiled", _compiling, torch.clone)


def refuse_other_runs(model: Oracle, sample: Tensor, trail: Trail, compiled: bool = False) -> None:
    """Raise :class:`UnsupportedError` unless ``model`` does what ``trail`` shows in all :data:`SITUATIONS`.

    ``trail``: of the model on ``sample`` (1 x input shape). ``compiled``: some of it is run by torch.compile, and must
    do the same there.
    """
    alike: Pairs = {}
    for where, mode, given in (*SITUATIONS, COMPILED) if compiled else SITUATIONS:
        other = followed(model, sample, where, mode, given)
        what = difference(other, trail, alike)
        if not what and not other.moved:
            continue
        again = followed(model, sample, where, mode, given)
        if other.moved or difference(other, again, {}):
            raise UnsupportedError("one input has several outputs: the model draws at random or keeps a state")
        raise UnsupportedError(
            f"what the model runs {where} is not what it runs without gradients ({what}): it asks how it is called; "
            "make forward() the same operations in every call"
        )


def refuse_batch_sizes(model: Oracle, sample: Tensor, trail: Trail) -> None:
    """Raise :class:`UnsupportedError` if the size of the batch is anything but a part of shapes."""
    several = followed(model, sample.expand(2, *sample.shape[1:]), "on two samples")
    pairs = list(zip(trail.answers, several.answers, strict=False))
    alike = all(len(one) == len(two) for one, two in pairs) and len(trail.answers) == len(several.answers)
    if not alike or [name for name, _ in several.steps] != [name for name, _ in trail.steps]:
        raise UnsupportedError(OF_BATCH)
    ends = [
        tuple(run.values[answer.place].shape)
        for run in (trail, several)
        for answer in run.steps[-1][1]
        if isinstance(answer, Number) and answer.place >= 0
    ]
    if len(ends) == 2 and ends[1] != (2, *ends[0][1:]):
        raise UnsupportedError("the model depends on the size of the batch: one sample gives another shape")
    where, symbols = "on a batch of any size", Trail()
    sizes = [symbolic(one, two, symbols.refuse) for one, two in pairs]
    symbol = followed(model, sample, where, trail=symbols, sizes=sizes)
    if what := difference(symbol, trail, {}):
        raise UnsupportedError(f"{OF_BATCH} ({what})")


def followed(
    model: Oracle,
    sample: Tensor,
    where: str,
    mode: Callable[[], AbstractContextManager[Any]] = torch.no_grad,
    given: Callable[[Tensor], Tensor] = torch.clone,
    sizes: Sequence[list[Any]] | None = None,
    trail: Trail | None = None,
) -> Trail:
    """What ``model`` does with ``sample``, noted in ``trail``."""
    trail = trail or Trail()
    with explaining(trail, where), torch.inference_mode(False), mode():
        x = given(sample)
        trail.follow(x, True)
        with Calls(trail, sizes):
            output = model(x)
        end(trail, output)
    return trail


def refuse_mixing(model: Oracle, sample: Tensor) -> None:
    """Raise :class:`UnsupportedError` if a sample's output changes with those beside it.

    These are NaN, which whatever computes with it passes on, but comparisons: they are answered both ways. And they
    are as large as can be, for what leaves out NaN. It is compared beside itself, in a batch of the same size: alone
    it is rounded otherwise, and where much cancels nothing of the output may be left but that.
    """
    spoilt, largest = Spoilt(), torch.finfo(sample.dtype).max
    with explaining(Trail(), "on two samples"), torch.inference_mode(False), torch.no_grad():
        twins = model(torch.cat([sample, sample]))
        scale = twins.abs().nan_to_num(0.0, 0.0).amax()
        for value, contrary in ((torch.nan, False), (torch.nan, True), (largest, False), (-largest, False)):
            beside = torch.full_like(sample, value)
            for row, given in enumerate(([sample, beside], [beside, sample])):
                spoilt.row, spoilt.contrary = row, contrary
                with Operations(spoilt.run):
                    among = model(torch.cat(given))[row : row + 1]
                if not torch.allclose(among, twins[row : row + 1], CLOSE, CLOSE * float(scale), equal_nan=True):
                    raise UnsupportedError(
                        f"the model depends on the batch: a sample's output changes with those beside it{spoilt.words}"
                    )


class Spoilt:
    """Notes the first operation that gives nothing but NaN, in all or for the sample at ``row``, where not all of its
    operands were: it mixed samples. ``contrary``: what is asked of NaN, element by element, is answered by the
    opposite."""

    def __init__(self) -> None:
        self.words, self.row, self.contrary = "", 0, False

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run it."""
        result = func(*args, **kwargs)
        given = [t for t in tensors_in(args) if t.is_floating_point()]
        if self.contrary and isinstance(result, Tensor) and result.dtype is torch.bool:
            for operand in given:
                if broadcasts(operand, result):
                    result = result ^ operand.isnan()
        if not self.words:
            given_out = [t for t in tensors_in(result) if t.is_floating_point()]
            rows = [[t[self.row] for t in x if t.dim() and len(t) == 2] for x in (given, given_out)]
            if _spoilt(given, given_out) or _spoilt(*rows):
                self.words = f" ({name_of(func).strip('_')})"
        return result


def broadcasts(operand: Tensor, result: Tensor) -> bool:
    """Whether an operation, element by element, may have made ``result`` of ``operand`` and others."""
    sizes = zip(reversed(operand.shape), reversed(result.shape), strict=False)
    return operand.dim() <= result.dim() and all(n in (1, m) for n, m in sizes)


def _spoilt(given: list[Tensor], given_out: list[Tensor]) -> bool:
    spoilt = all(bool(t.isnan().all()) for t in given_out)
    return bool(given_out) and spoilt and not all(bool(t.isnan().all()) for t in given)


def end(trail: Trail, output: Any) -> None:
    """Note what the model gave as a last step."""
    trail.steps.append(("its output", [trail.operand(leaf) for leaf in leaves(output)]))


@contextmanager
def explaining(trail: Trail, where: str) -> Iterator[None]:
    """Whatever the user's code raises as one clear line; and what it hides."""
    try:
        yield
    except Exception as error:
        if trail.refusals:
            raise trail.refusals[0] from error
        if isinstance(error, AssayError) or isinstance(explained(error), ResourceError):
            raise
        raise UnsupportedError(f"the model does not run {where} ({line(error)})") from error
    if trail.refusals:
        raise trail.refusals[0]


Pairs = dict[tuple[int, int], tuple[Tensor, Tensor]]


def difference(theirs: Trail, ours: Trail, alike: Pairs) -> str:
    """Where the first trail goes another way than the second, in words; "" if it does not.

    ``alike``: constants that are known to be the same, by their ids, and kept, so that no others take these.
    """
    for (name, operands), (recorded, others) in zip(theirs.steps, ours.steps, strict=False):
        if name != recorded:
            return f"{name} instead of {recorded}"
        if len(operands) != len(others) or not all(_same(a, b, alike) for a, b in zip(operands, others, strict=True)):
            return f"{name} of other operands"
    if len(theirs.steps) != len(ours.steps):
        return f"{len(theirs.steps)} operations instead of {len(ours.steps)}"
    return ""


def _same(a: Any, b: Any, alike: Pairs) -> bool:
    """Whether two operands are the same."""
    if isinstance(a, Constant) and isinstance(b, Constant):
        pair = (id(a.tensor), id(b.tensor))
        if pair not in alike:
            if not _equal(a.tensor.detach(), b.tensor.detach()):
                return False
            alike[pair] = (a.tensor, b.tensor)
        return True
    if isinstance(a, Size):
        return isinstance(b, int) and a.at(1) == b
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    return type(a) is type(b) and bool(a == b)


def _equal(a: Tensor, b: Tensor) -> bool:
    if a is b or (place(a) == place(b) and a.shape == b.shape and a.stride() == b.stride() and place(a) != 0):
        return a.storage_offset() == b.storage_offset() or torch.equal(a, b)
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, 1e-6, 0.0, equal_nan=True)
