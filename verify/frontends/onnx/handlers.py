"""The tables of what is read from ONNX: operation to handler."""

from __future__ import annotations

from assay.verify.frontends.onnx import (
    classical,
    conditions,
    curves,
    folding,
    layers,
    moves,
    normalisation,
    piecewise,
    planes,
    products,
    recurrent,
    reductions,
    resize,
    softmax,
)
from assay.verify.frontends.onnx.translation import Handler


def traced() -> dict[str, Handler]:
    """Handlers of values that depend on the input."""
    return {
        **_either(),
        **{name: curves.curve(curve) for name, curve in CURVES.items()},
        **{name: curves.step(name.lower()) for name in ("Ceil", "Floor", "Round", "Sign")},
        **{name: recurrent.recurrent(name) for name in ("GRU", "LSTM", "RNN")},
        **{f"Reduce{name}": reductions.reduction(summary) for name, summary in SUMMARIES.items()},
        "Abs": piecewise.absolute,
        "Add": layers.addition,
        "And": conditions.both,
        "AveragePool": planes.average_pool,
        "BatchNormalization": normalisation.batch_norm,
        "Celu": curves.celu,
        "Clip": piecewise.clip,
        "Conv": planes.convolution,
        "ConvTranspose": planes.transposed_convolution,
        "CumSum": reductions.running_sum,
        "DequantizeLinear": curves.dequantized,
        "Div": layers.quotient,
        "Einsum": products.einsum,
        "Elu": curves.elu,
        "Gelu": curves.gelu,
        "Gemm": products.gemm,
        "GlobalAveragePool": reductions.global_average_pool,
        "GlobalMaxPool": reductions.global_max_pool,
        "Greater": conditions.compared(0, 1),
        "GreaterOrEqual": conditions.compared(0, 1, equal=True),
        "GroupNormalization": normalisation.group_norm,
        "HardSigmoid": piecewise.hard_sigmoid,
        "InstanceNormalization": normalisation.instance_norm,
        "LayerNormalization": normalisation.layer_norm,
        "LeakyRelu": piecewise.leaky_relu,
        "Less": conditions.compared(1, 0),
        "LessOrEqual": conditions.compared(1, 0, equal=True),
        "LinearClassifier": classical.linear_classifier,
        "LinearRegressor": classical.linear_regressor,
        "LogSoftmax": softmax.softmax("log_softmax"),
        "LpNormalization": reductions.lp_normalized,
        "MatMul": products.matmul,
        "Max": piecewise.largest,
        "MaxPool": planes.max_pool,
        "Mean": layers.mean_of_all,
        "MeanVarianceNormalization": normalisation.mean_variance,
        "Min": piecewise.smallest,
        "Mul": layers.product,
        "Neg": layers.negation,
        "Normalizer": classical.normalizer,
        "Not": conditions.negation,
        "Or": conditions.either,
        "PRelu": piecewise.prelu,
        "Pow": curves.power,
        "QuantizeLinear": curves.quantized,
        "RMSNormalization": normalisation.rms_norm,
        "Relu": piecewise.relu,
        "Scaler": classical.scaler,
        "Selu": curves.selu,
        "Sigmoid": curves.sigmoid,
        "Softmax": softmax.softmax("softmax"),
        "Sub": layers.subtraction,
        "Sum": layers.addition_of_all,
        "Swish": curves.swish,
        "Where": conditions.where,
    }


# Operations that are one curve, and the curve.
CURVES = {
    "Asinh": "arcsinh",
    "Atan": "arctan",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Reciprocal": "reciprocal",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
SUMMARIES = {
    "L1": reductions.total_magnitude,
    "L2": reductions.euclidean,
    "LogSum": reductions.log_total,
    "LogSumExp": reductions.log_sum_exp,
    "Max": reductions.largest,
    "Mean": reductions.mean,
    "Min": reductions.least,
    "Sum": reductions.total,
    "SumSquare": reductions.total_square,
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
        "Scatter": moves.scatter_elements,
        "ScatterElements": moves.scatter_elements,
        "ScatterND": moves.scatter_nd,
        "Shape": folding.shape,
        "Size": folding.size,
        "Slice": moves.slice_,
        "SpaceToDepth": moves.space_to_depth,
        "Split": moves.split,
        "Squeeze": moves.squeeze,
        "Tile": moves.tile,
        "Transpose": moves.transpose,
        "Trilu": moves.triangle,
        "Upsample": resize.upsample,
        "Unsqueeze": moves.unsqueeze,
    }
