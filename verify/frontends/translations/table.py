"""What is read from torch: its operations as they are executed, by their names, each as operations of ours."""

from __future__ import annotations

from typing import Any

from assay.verify.frontends.translation import Handler
from assay.verify.frontends.translations import activations, arithmetic, layers, moves, pooling
from assay.verify.frontends.translations.readout import readout

HINT = (
    "assay reads what is affine (linear layers, convolutions, batch normalisation in eval mode, averages, "
    "interpolation, sums, products with constants), ReLU and what is piecewise linear, max pooling, sigmoid, tanh, a "
    "last softmax, and whatever only moves values; rewrite the model with these, or remove what is not needed for "
    "inference"
)

# Views need no rule: they are found in memory.
MOVES = (
    *("clone", "stack", "index_select", "gather", "index", "take", "flip", "roll", "repeat", "tril", "triu", "where"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col", "repeat_interleave"),
    *("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d"),
    *("masked_fill", "index_put", "index_copy", "index_fill", "scatter", "fill", "zero", "diag_embed"),
    *("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter", "view_copy", "expand_copy"),
    *("permute_copy", "slice_copy", "select_copy", "unfold_copy", "reshape", "split_with_sizes_copy"),
)


LIKE = ("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like")


def table() -> dict[Any, Handler]:
    """The name of an operation of torch to its rule."""
    groups: dict[Handler, tuple[str, ...]] = {
        layers.matrix_product: ("mm", "bmm"),
        layers.sum_with_product: ("addmm", "baddbmm"),
        layers.matrix_vector: ("mv", "dot"),
        layers.convolution: ("convolution", "_convolution", "mkldnn_convolution"),
        layers.batch_norm: ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        activations.relu: ("relu",),
        activations.leaky_relu: ("leaky_relu",),
        activations.prelu: ("_prelu_kernel", "prelu"),
        activations.tanh: ("tanh",),
        activations.sigmoid: ("sigmoid",),
        activations.absolute: ("abs",),
        activations.hardtanh: ("hardtanh",),
        activations.hardsigmoid: ("hardsigmoid",),
        activations.threshold: ("threshold",),
        activations.clamp: ("clamp", "clamp_min", "clamp_max"),
        activations.maximum: ("maximum", "max", "amax"),
        activations.minimum: ("minimum", "min", "amin"),
        activations.cast: ("_to_copy",),
        arithmetic.addition: ("add",),
        arithmetic.subtraction: ("sub",),
        arithmetic.reverse_subtraction: ("rsub",),
        arithmetic.product: ("mul",),
        arithmetic.quotient: ("div",),
        arithmetic.negation: ("neg",),
        arithmetic.mean: ("mean",),
        arithmetic.summation: ("sum",),
        pooling.max_pool: ("max_pool2d_with_indices",),
        pooling.adaptive_max_pool: ("adaptive_max_pool2d",),
        pooling.avg_pool: ("avg_pool2d",),
        pooling.adaptive_avg_pool: ("_adaptive_avg_pool2d",),
        pooling.upsampled: ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"),
        moves.concat: ("cat",),
        moves.copied: ("copy",),
        moves.moved: MOVES,
        moves.unrelated: LIKE,
        readout: ("_softmax", "_log_softmax"),
    }
    return {name: rule for rule, names in groups.items() for name in names}
