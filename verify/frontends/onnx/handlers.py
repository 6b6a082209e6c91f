"""The tables of what is read from ONNX: operation to handler."""

from __future__ import annotations

from assay.verify.frontends.onnx import folding, layers, moves, planes, reductions
from assay.verify.frontends.onnx.translation import Handler


def traced() -> dict[str, Handler]:
    """Handlers of values that depend on the input."""
    return {
        **_either(),
        "Add": layers.addition,
        "AveragePool": planes.average_pool,
        "BatchNormalization": layers.batch_norm,
        "Clip": layers.clip,
        "Conv": planes.convolution,
        "ConvTranspose": planes.transposed_convolution,
        "Div": layers.quotient,
        "Gemm": layers.gemm,
        "GlobalAveragePool": reductions.global_average_pool,
        "GlobalMaxPool": reductions.global_max_pool,
        "LeakyRelu": layers.leaky_relu,
        "MatMul": layers.matmul,
        "MaxPool": planes.max_pool,
        "Mul": layers.product,
        "Neg": layers.negation,
        "ReduceMax": reductions.reduction(reductions.largest),
        "ReduceMean": reductions.reduction(reductions.mean),
        "ReduceSum": reductions.reduction(reductions.total),
        "Relu": layers.relu,
        "Sigmoid": layers.sigmoid,
        "Sub": layers.subtraction,
        "Sum": layers.addition_of_all,
        "Tanh": layers.tanh,
    }


def constant() -> dict[str, Handler]:
    """Handlers of constants; other operations on constants are run as networks of their own."""
    return {**_either(), **folding.elementwise(), **folding.sources()}


def _either() -> dict[str, Handler]:
    """Handlers of both."""
    return {
        "Cast": layers.cast_,
        "Concat": moves.concat,
        "DepthToSpace": moves.depth_to_space,
        "Dropout": moves.dropout,
        "Expand": moves.expand,
        "Flatten": moves.flatten,
        "Gather": moves.gather,
        "Identity": moves.identity,
        "Pad": moves.pad,
        "Reshape": moves.reshape,
        "Shape": folding.shape,
        "Size": folding.size,
        "Slice": moves.slice_,
        "Split": moves.split,
        "Squeeze": moves.squeeze,
        "Tile": moves.tile,
        "Transpose": moves.transpose,
        "Unsqueeze": moves.unsqueeze,
    }
