"""What is read from torch: its operations as they are executed, by their names, each as operations of ours."""

from __future__ import annotations

import math
from typing import Any

from assay.verify.frontends.translation import Handler
from assay.verify.frontends.translations import (
    activations,
    arithmetic,
    conditions,
    curves,
    labels,
    layers,
    moves,
    normalisation,
    pooling,
    softmax,
)

HINT = (
    "assay reads what is affine (linear layers, convolutions, averages, interpolation, sums), what is piecewise "
    "linear, smooth activations, products, quotients and powers of values, normalisation, softmax, attention, max "
    "pooling, rounding, comparisons, and whatever only moves values; rewrite the model with these, or remove what is "
    "not needed for inference"
)

# Views need no rule: they are found in memory.
MOVES = (
    *("clone", "stack", "index_select", "gather", "index", "take", "flip", "roll", "repeat", "tril", "triu"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("reflection_pad3d", "replication_pad3d", "upsample_nearest3d", "_upsample_nearest_exact3d"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col", "repeat_interleave"),
    *("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d"),
    *("index_put", "index_copy", "index_fill", "scatter", "fill", "zero", "diag_embed"),
    *("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter", "view_copy", "expand_copy"),
    *("permute_copy", "slice_copy", "select_copy", "unfold_copy", "reshape", "split_with_sizes_copy"),
)


# Curves that torch has an operation for, of the same name.
CURVES = (
    *("tanh", "silu", "mish", "hardswish", "exp", "log", "sqrt", "reciprocal", "square", "sin", "cos", "erf"),
    *("sinh", "cosh"),
)

LIKE = ("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like")


def table() -> dict[Any, Handler]:
    """The name of an operation of torch to its rule."""
    groups: dict[Handler, tuple[str, ...]] = {
        layers.matrix_product: ("mm", "bmm"),
        layers.sum_with_product: ("addmm", "baddbmm"),
        layers.matrix_vector: ("mv", "dot"),
        layers.bilinear: ("_trilinear",),
        layers.convolution: ("convolution", "_convolution", "mkldnn_convolution", "slow_conv3d_forward"),
        normalisation.batch_norm: (
            *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
            "_batch_norm_with_update",
        ),
        normalisation.layer_norm: ("native_layer_norm",),
        normalisation.group_norm: ("native_group_norm",),
        normalisation.rms_norm: ("_fused_rms_norm",),
        normalisation.variance: ("var",),
        normalisation.deviation: ("std",),
        normalisation.variance_and_mean: ("var_mean",),
        normalisation.norm: ("linalg_vector_norm",),
        activations.relu: ("relu",),
        activations.leaky_relu: ("leaky_relu",),
        activations.prelu: ("_prelu_kernel", "prelu"),
        activations.absolute: ("abs",),
        activations.hardtanh: ("hardtanh",),
        activations.hardsigmoid: ("hardsigmoid",),
        activations.threshold: ("threshold",),
        activations.clamp: ("clamp", "clamp_min", "clamp_max"),
        activations.maximum: ("maximum", "max", "amax"),
        activations.minimum: ("minimum", "min", "amin"),
        moves.cast: ("_to_copy",),
        arithmetic.addition: ("add",),
        arithmetic.subtraction: ("sub",),
        arithmetic.reverse_subtraction: ("rsub",),
        arithmetic.product: ("mul",),
        arithmetic.quotient: ("div",),
        arithmetic.negation: ("neg",),
        arithmetic.mean: ("mean",),
        arithmetic.summation: ("sum",),
        arithmetic.running_sum: ("cumsum",),
        pooling.max_pool: ("max_pool2d_with_indices", "max_pool3d_with_indices"),
        pooling.adaptive_max_pool: ("adaptive_max_pool2d", "adaptive_max_pool3d"),
        pooling.avg_pool: ("avg_pool2d",),
        pooling.avg_pool_of_volumes: ("avg_pool3d",),
        pooling.adaptive_avg_pool: ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        pooling.upsampled: ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"),
        moves.concat: ("cat",),
        moves.copied: ("copy",),
        moves.moved: MOVES,
        moves.unrelated: LIKE,
        curves.sigmoid: ("sigmoid",),
        curves.gelu: ("gelu",),
        curves.softplus: ("softplus",),
        curves.elu: ("elu",),
        curves.exponentiation: ("pow",),
        curves.trunc: ("trunc",),
        curves.celu: ("celu",),
        curves.gated: ("glu",),
        activations.shrunk: ("softshrink",),
        arithmetic.between: ("lerp",),
        softmax.softmax(False): ("_softmax", "_safe_softmax"),
        softmax.softmax(True): ("_log_softmax",),
        softmax.log_sum_exp: ("logsumexp",),
        softmax.attention: (
            *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
            *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
        ),
        conditions.compared(less=False, equal=False): ("gt",),
        conditions.compared(less=False, equal=True): ("ge",),
        conditions.compared(less=True, equal=False): ("lt",),
        conditions.compared(less=True, equal=True): ("le",),
        labels.equal(opposite=False): ("eq",),
        labels.equal(opposite=True): ("ne",),
        labels.place(1.0): ("argmax",),
        labels.place(-1.0): ("argmin",),
        conditions.negation: ("logical_not", "bitwise_not"),
        conditions.both: ("logical_and", "bitwise_and"),
        conditions.either: ("logical_or", "bitwise_or"),
        conditions.where: ("where",),
        conditions.masked_fill: ("masked_fill",),
        **{curves.steps(kind): (kind,) for kind in ("sign", "floor", "ceil", "round")},
        **{curves.curve(name): (name,) for name in CURVES},
        curves.curve("arctan"): ("atan",),
        curves.curve("arcsinh"): ("asinh",),
        curves.curve("power", -0.5): ("rsqrt",),
        curves.curve("exp", inner=(math.log(2), 0.0)): ("exp2",),
        curves.curve("exp", outer=(1.0, -1.0)): ("expm1",),
        curves.curve("log", inner=(1.0, 1.0)): ("log1p",),
        curves.curve("log", outer=(1 / math.log(2), 0.0)): ("log2",),
        curves.curve("log", outer=(1 / math.log(10), 0.0)): ("log10",),
        curves.curve("erf", outer=(-1.0, 1.0)): ("erfc",),
        curves.curve("logsigmoid"): ("log_sigmoid_forward",),
    }
    return {name: rule for rule, names in groups.items() for name in names}
