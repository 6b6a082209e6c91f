"""What is read from torch: modules, functions and methods, each as operations of ours."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from assay.verify.frontends.trace import Handler
from assay.verify.frontends.translations.activations import clamp, leaky_relu, prelu, relu, sigmoid, tanh
from assay.verify.frontends.translations.arithmetic import addition, negation, product, quotient, subtraction
from assay.verify.frontends.translations.layers import batch_norm, conv2d, conv_transpose2d, linear
from assay.verify.frontends.translations.moves import concat, item, pad, rearranged, same
from assay.verify.frontends.translations.pooling import adaptive_avg_pool, avg_pool, max_pool, mean
from assay.verify.frontends.translations.readout import LOG_SOFTMAX, SOFTMAX, readout

HINT = (
    "assay reads Linear, Conv1d/2d, ConvTranspose2d, BatchNorm, ReLU, LeakyReLU, PReLU, Sigmoid, Tanh, clamp, average, "
    "adaptive and max pooling, padding, reshaping, slicing, transposing, concatenation, dropout in eval mode, "
    "additions, subtractions, scaling or shifting by constants, and a last softmax; rewrite the model with these, or "
    "remove what is not needed for inference"
)


def table() -> dict[Any, Handler]:
    """Module type, function or method name to its handler."""
    groups: list[tuple[Handler, list[Any]]] = [
        (linear, [nn.Linear, F.linear]),
        (conv2d, [nn.Conv1d, nn.Conv2d, F.conv1d, F.conv2d, torch.conv1d, torch.conv2d]),
        (conv_transpose2d, [nn.ConvTranspose2d, F.conv_transpose2d, torch.conv_transpose2d]),
        (batch_norm, [nn.BatchNorm1d, nn.BatchNorm2d]),
        (relu, [nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"]),
        (leaky_relu, [nn.LeakyReLU, F.leaky_relu, F.leaky_relu_]),
        (prelu, [nn.PReLU, F.prelu, torch.prelu, "prelu"]),
        (tanh, [nn.Tanh, F.tanh, torch.tanh, "tanh", "tanh_"]),
        (sigmoid, [nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"]),
        (clamp, [torch.clamp, "clamp", "clamp_", torch.clip, "clip", torch.clamp_min, "clamp_min"]),
        (clamp, [nn.ReLU6, F.relu6, nn.Hardtanh, F.hardtanh]),
        (same, [nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, F.dropout, F.dropout2d]),
        (same, ["contiguous", "clone", "detach", "float", "double", "to", "type", "type_as", "cpu"]),
        (rearranged, [nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze]),
        (rearranged, ["flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"]),
        (rearranged, [torch.permute, torch.transpose, torch.movedim, torch.flip, torch.narrow, torch.select]),
        (rearranged, ["permute", "transpose", "movedim", "flip", "narrow", "select", "mT"]),
        (rearranged, [torch.chunk, torch.split, "chunk", "split", torch.unbind, "unbind", "expand", "repeat"]),
        (rearranged, [nn.PixelUnshuffle, F.pixel_unshuffle]),
        (rearranged, [nn.PixelShuffle, F.pixel_shuffle, nn.ReflectionPad2d, nn.ReplicationPad2d]),
        (pad, [F.pad, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d]),
        (item, [operator.getitem]),
        (concat, [torch.cat, torch.concat]),
        (max_pool, [nn.MaxPool1d, nn.MaxPool2d, F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d]),
        (avg_pool, [nn.AvgPool1d, nn.AvgPool2d, F.avg_pool1d, F.avg_pool2d]),
        (adaptive_avg_pool, [nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d]),
        (adaptive_avg_pool, [F.adaptive_avg_pool1d, F.adaptive_avg_pool2d]),
        (mean, [torch.mean, "mean"]),
        (addition, [operator.add, operator.iadd, torch.add, "add", "add_"]),
        (subtraction, [operator.sub, operator.isub, torch.sub, "sub", "sub_"]),
        (product, [operator.mul, operator.imul, torch.mul, "mul", "mul_"]),
        (quotient, [operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_"]),
        (readout, [*SOFTMAX, *LOG_SOFTMAX]),
        (negation, [operator.neg, torch.neg, "neg"]),
    ]
    return {target: handler for handler, targets in groups for target in targets}
