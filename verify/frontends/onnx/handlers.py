"""The tables of what is read from ONNX: operation to handler."""

from __future__ import annotations

from assay.verify.frontends.onnx import (
    classical,
    folding,
    layers,
    moves,
    piecewise,
    planes,
    readout,
    reductions,
    resize,
)
from assay.verify.frontends.onnx.translation import Handler


def traced() -> dict[str, Handler]:
    """Handlers of values that depend on the input."""
    return {
        **_either(),
        "Abs": piecewise.absolute,
        "Add": layers.addition,
        "AveragePool": planes.average_pool,
        "BatchNormalization": layers.batch_norm,
        "Clip": piecewise.clip,
        "Conv": planes.convolution,
        "ConvTranspose": planes.transposed_convolution,
        "Div": layers.quotient,
        "Gemm": layers.gemm,
        "GlobalAveragePool": reductions.global_average_pool,
        "GlobalMaxPool": reductions.global_max_pool,
        "HardSigmoid": piecewise.hard_sigmoid,
        "LeakyRelu": piecewise.leaky_relu,
        "LinearRegressor": classical.linear_regressor,
        "LogSoftmax": readout.readout("log_softmax"),
        "MatMul": layers.matmul,
        "Max": piecewise.largest,
        "MaxPool": planes.max_pool,
        "Mean": layers.mean_of_all,
        "Min": piecewise.smallest,
        "Mul": layers.product,
        "Neg": layers.negation,
        "PRelu": piecewise.prelu,
        "ReduceL1": reductions.reduction(reductions.total_magnitude),
        "ReduceMax": reductions.reduction(reductions.largest),
        "ReduceMean": reductions.reduction(reductions.mean),
        "ReduceMin": reductions.reduction(reductions.least),
        "ReduceSum": reductions.reduction(reductions.total),
        "Relu": piecewise.relu,
        "Scaler": classical.scaler,
        "Sigmoid": layers.sigmoid,
        "Softmax": readout.readout("softmax"),
        "Sub": layers.subtraction,
        "Sum": layers.addition_of_all,
        "Tanh": layers.tanh,
        "Where": layers.where,
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
        "GatherElements": moves.gather_elements,
        "GatherND": moves.gather_nd,
        "Identity": moves.identity,
        "Pad": moves.pad,
        "Reshape": moves.reshape,
        "Resize": resize.resize,
        "Shape": folding.shape,
        "Size": folding.size,
        "Slice": moves.slice_,
        "SpaceToDepth": moves.space_to_depth,
        "Split": moves.split,
        "Squeeze": moves.squeeze,
        "Tile": moves.tile,
        "Transpose": moves.transpose,
        "Upsample": resize.upsample,
        "Unsqueeze": moves.unsqueeze,
    }
