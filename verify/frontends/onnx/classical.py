"""Operations of the domain ai.onnx.ml that are read: what scikit-learn's linear models and scalers are exported to."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.frontends import composed
from assay.verify.frontends.onnx import reductions
from assay.verify.frontends.onnx.layers import divided, linear, scale
from assay.verify.frontends.onnx.moves import view
from assay.verify.frontends.onnx.translation import Call, Operand, Value
from assay.verify.frontends.refusal import Untranslatable


def scaler(call: Call) -> Value:
    """``(x - offset) * scale``; one number of each stands for all features."""
    x = call.traced()
    offset, factor = _floats(call, "offset"), _floats(call, "scale")
    if {len(offset), len(factor)} - {1, x.shape[-1]}:
        raise InputError(f"{call.node.label} has {len(offset)} offsets and {len(factor)} scales for {list(x.shape)}")
    one = torch.ones((), dtype=torch.float64)
    return scale(call, scale(call, x, one, -offset), factor, torch.zeros((), dtype=torch.float64))


def linear_regressor(call: Call) -> Value:
    """``x W^T + b`` of one row of features or several."""
    x, targets = call.traced(), call.integer("targets", 1)
    if (after := call.text("post_transform", "NONE")) != "NONE":
        raise Untranslatable(f"with post_transform {after!r}")
    weight = _floats(call, "coefficients")
    bias = _floats(call, "intercepts") if "intercepts" in call.node.attributes else weight.new_zeros(targets)
    if len(x.shape) != 2 or len(weight) != targets * x.shape[1] or len(bias) != targets:
        given = f"{len(weight)} coefficients and {len(bias)} intercepts"
        raise InputError(f"{call.node.label} has {given} of {targets} targets for {list(x.shape)}")
    return linear(call, x, weight.reshape(targets, -1), bias)


def linear_classifier(call: Call) -> list[Operand | None]:
    """The scores of the classes, one row of coefficients each; their label is not given."""
    call.ignore("classlabels_ints", "classlabels_strings", "multi_class")
    x, after = call.traced(), call.text("post_transform", "NONE")
    weight, bias = _floats(call, "coefficients"), _floats(call, "intercepts")
    if len(x.shape) != 2 or len(weight) != len(bias) * x.shape[1]:
        raise InputError(f"{call.node.label}: {len(weight)} coefficients, {len(bias)} intercepts for {list(x.shape)}")
    if len(bias) < 2 or after not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise Untranslatable(f"of {len(bias)} rows of coefficients, with post_transform {after!r}")
    y = linear(call, x, weight.reshape(len(bias), -1), bias)
    if after == "LOGISTIC":
        y = call.value(composed.sigmoid(call.append, call.sample(y)), y.shape, y.dtype)
    elif after == "SOFTMAX":
        y = call.value(composed.softmax(call.append, call.sample(y)), y.shape, y.dtype)
    return [None, y]


def normalizer(call: Call) -> Value:
    """Divided by the norm of each row, in l1, l2, or the largest magnitude."""
    x, norm = call.traced(), call.text("norm", "MAX")
    summaries = {"L1": reductions.total_magnitude, "L2": reductions.euclidean}
    if norm not in summaries or len(x.shape) != 2:
        raise Untranslatable(f"by the norm {norm!r}")
    return divided(call, x, view(call, summaries[norm](call, x), (x.shape[0], 1)))


def _floats(call: Call, name: str) -> Tensor:
    """The attribute ``name``, numbers that are finite, in float64."""
    values = torch.tensor(call.numbers(name), dtype=torch.float64)
    if not len(values) or not bool(values.isfinite().all()):
        raise InputError(f"{call.node.label}: {name} must be finite numbers, at least one")
    return values
