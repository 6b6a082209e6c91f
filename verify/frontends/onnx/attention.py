"""Attention of one operation, with its heads, masks and caps; and embeddings that rotate pairs of features."""

from __future__ import annotations

from math import inf
from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.frontends import composed
from assay.verify.frontends.composed import number
from assay.verify.frontends.onnx.layers import ZERO, demanded, difference, multiplied, scale, total
from assay.verify.frontends.onnx.moves import concatenated, rearrange
from assay.verify.frontends.onnx.products import product
from assay.verify.frontends.onnx.translation import Call, Operand, Value
from assay.verify.frontends.refusal import Untranslatable


def attention(call: Call) -> Value:
    """``softmax(scale q k^T + mask) v`` of each head; several heads of q may share one of k and v.

    Operands are (1 x heads x tokens x features), or (1 x tokens x heads * features).
    """
    call.ignore("q_num_heads", "kv_num_heads", "softmax_precision", "qk_matmul_output_mode")
    if any(call.has(i) for i in (4, 5, 6)):
        raise Untranslatable("with keys and values of the past")
    q, k, v = (_heads(call, i, name) for i, name in enumerate(("q_num_heads", "kv_num_heads", "kv_num_heads")))
    heads, size = q.shape[1], q.shape[3]
    if not k.shape[1] or heads % k.shape[1] or k.shape[1] != v.shape[1]:
        raise InputError(f"{call.node.label} has {heads} heads, and {k.shape[1]} of keys, {v.shape[1]} of values")
    k, v = (rearrange(call, x, lambda t: t.repeat_interleave(heads // t.shape[1], 1)) for x in (k, v))
    turned = rearrange(call, k, lambda t: t.transpose(-1, -2))
    scores = product(call, q, turned, call.number("scale", size**-0.5) or size**-0.5)
    if cap := call.number("softcap", 0.0):
        scores = _capped(call, scores, cap)
    absent = torch.zeros(scores.shape, dtype=torch.bool)
    if call.has(3):
        mask = call.constant(3, "the mask")
        missing = scores.shape[-1] - mask.shape[-1]  # keys that it does not reach to are left out
        mask = torch.nn.functional.pad(mask, (0, missing), value=False if mask.dtype is torch.bool else -inf)
        absent = absent | (~mask if mask.dtype is torch.bool else mask == -inf)
        if mask.dtype is not torch.bool:
            scores = total(call, scores, mask.masked_fill(mask == -inf, 0))
    if call.integer("is_causal", 0):
        absent = absent | torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    if bool(absent.all(-1).any()):
        raise Untranslatable("of which a mask leaves nothing in some row")
    if not isinstance(scores, Value):
        raise Untranslatable("whose scores do not depend on the input")
    node = call.sample(scores)
    left = composed.softmax(call.append, node, absent.view(node.shape) if bool(absent.any()) else None)
    share: Operand = call.value(left, scores.shape, scores.dtype)
    if bool(absent.any()):
        share = rearrange(call, share, lambda t: t.masked_fill(absent, -1))
    y = cast(Value, product(call, share, v))
    if len(call.operand(0).shape) == 3:
        return cast(Value, rearrange(call, y, lambda t: t.transpose(1, 2).flatten(2)))
    return y


def _heads(call: Call, index: int, name: str) -> Operand:
    """An operand with an axis of heads."""
    x = call.operand(index)
    x = demanded(call, x) if isinstance(x, Tensor) else x
    if len(x.shape) == 4:
        return x
    heads = call.integer(name, 0)
    if len(x.shape) != 3 or heads < 1 or x.shape[2] % heads:
        raise InputError(f"{call.node.label}: {name} {heads} for a value of shape {list(x.shape)}")
    return rearrange(call, x, lambda t: t.reshape(*t.shape[:2], heads, -1).transpose(1, 2))


def _capped(call: Call, scores: Operand, cap: float) -> Operand:
    """``cap tanh(scores / cap)``."""
    if not isinstance(scores, Value):
        return cap * torch.tanh(scores.double() / cap)
    small = scale(call, scores, number(1 / cap), ZERO)
    bent = composed.smooth(call.append, call.sample(small), "tanh")
    return scale(call, call.value(bent, scores.shape, scores.dtype), number(cap), ZERO)


def rotary_embedding(call: Call) -> Value:
    """Pairs of features turned by angles whose cosines and sines are constants: (x cos - y sin, x sin + y cos)."""
    x = call.traced()
    call.ignore("num_heads")
    own = _heads(call, 0, "num_heads")
    size = call.integer("rotary_embedding_dim", 0) or own.shape[-1]
    pairs = bool(call.integer("interleaved", 0))
    cosine, sine = (_angles(call, i) for i in (1, 2))
    first, second = (rearrange(call, own, lambda t, i=i: _halves(t[..., :size], pairs)[i]) for i in (0, 1))  # type: ignore[misc]
    left = difference(call, multiplied(call, first, cosine), multiplied(call, second, sine))
    right = total(call, multiplied(call, first, sine), multiplied(call, second, cosine))
    rest = [rearrange(call, own, lambda t: t[..., size:])] if size < own.shape[-1] else []
    whole = concatenated(call, [left, right, *rest], 3)
    half = size // 2
    order = torch.arange(size)
    order = order.view(2, half).T.flatten() if pairs else order
    order = torch.cat([order, torch.arange(size, own.shape[-1])])
    y = rearrange(call, whole, lambda t: t[..., order])
    if len(x.shape) == 3:
        y = rearrange(call, y, lambda t: t.transpose(1, 2).flatten(2))
    return cast(Value, y)


def _halves(x: Tensor, pairs: bool) -> tuple[Tensor, Tensor]:
    """The two features of each pair: neighbours, or from either half."""
    if pairs:
        return x[..., 0::2], x[..., 1::2]
    first, second = x.chunk(2, -1)
    return first, second


def _angles(call: Call, index: int) -> Tensor:
    """Cosines or sines of each token's angles, alike for all heads: (1 x 1 x tokens x pairs)."""
    table = call.constant(index, "a table of angles").to(torch.float64)
    if call.has(3):
        table = table[call.constant(3, "the positions").long()]
    if table.dim() != 3 or len(table) != 1:
        raise Untranslatable(f"with angles of shape {list(table.shape)}")
    return table[:, None]
