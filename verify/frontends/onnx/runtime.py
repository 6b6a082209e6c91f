"""The oracle of a model file: onnxruntime on the file itself, its graph not optimised, on one thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, InternalError, UnsupportedError
from assay.verify.core.network import Port

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True, eq=False)
class Runtime:
    """The original model, batch in and batch out, on the CPU.

    ``content``: the file, external data moved into it. ``names``: of the outputs. ``inputs``: with their shapes, with a
    batch of one where they have a batch dimension; several are parts of one that is flat, as outputs are. ``sample``
    and ``output``: shapes of one sample and of its output.
    ``together``: whether a batch is run at once, which only a symbolic batch dimension allows; otherwise sample by
    sample. The session is made at the first call, after pickling again.
    """

    content: bytes = field(repr=False)
    names: tuple[str, ...]
    inputs: tuple[Port, ...]
    sample: tuple[int, ...]
    output: tuple[int, ...]
    dtype: torch.dtype
    together: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs (batch x output shape) at ``x`` (batch x sample shape) in the model's dtype.

        Raises :class:`InputError` for other inputs, and where onnxruntime refuses the file or fails.
        """
        if tuple(x.shape[1:]) != self.sample or x.dtype is not self.dtype:
            raise InputError(f"expected inputs of shape {self.sample} in {self.dtype}, got {x.dtype} {tuple(x.shape)}")
        batch = x.detach().cpu()
        if self.together:
            return self._run(batch, (len(batch), *self.output))
        alone = [self._run(one[None], self.output) for one in batch]
        return torch.stack(alone) if alone else torch.empty((0, *self.output), dtype=self.dtype)

    def _run(self, batch: Tensor, shape: tuple[int, ...]) -> Tensor:
        parts = torch.split(batch.flatten(1), [port.size for port in self.inputs], 1)
        feed = {
            port.name: part.reshape(-1, *port.shape[1:]).numpy() if self.together else part.reshape(port.shape).numpy()
            for port, part in zip(self.inputs, parts, strict=True)
        }
        session = self.session  # says by itself why there is none
        try:
            outputs = session.run(list(self.names), feed)
        except Exception as error:  # the runtime has a dozen kinds of its own
            raise InputError(f"onnxruntime cannot run the model: {_line(error)}") from error
        if sum(output.size for output in outputs) != prod(shape):
            given = ", ".join(str(output.shape) for output in outputs)
            raise InternalError(f"onnxruntime gives an output of shape {given}, expected {shape}")
        if len(outputs) == 1:
            (output,) = outputs
            if self.together and output.shape not in (shape, shape[:1]):
                raise InternalError(f"onnxruntime gives an output of shape {output.shape}, expected {shape}")
            answer = torch.from_numpy(output).reshape(shape)
            return answer if answer.is_floating_point() else answer.double()
        count = shape[0] if self.together else 1
        flat = [torch.from_numpy(output).reshape(count, -1).to(self.dtype) for output in outputs]
        return torch.cat(flat, 1).reshape(shape)

    @cached_property
    def session(self) -> InferenceSession:
        """The runtime's own object.

        Raises :class:`InputError` where it refuses the file, :class:`UnsupportedError` where it has no kernel for it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            kind = UnsupportedError if type(error).__name__ == "NotImplemented" else InputError
            raise kind(f"onnxruntime refuses the model: {_line(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "session"}


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
