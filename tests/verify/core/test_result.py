"""Results: the JSON round trip gives back every bit, and a verdict comes with what it needs."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from tests.breadth import slow

special = st.sampled_from([inf, -inf, nan, 0.0, -0.0, 5e-324, -5e-324, 2.0**-149, 2.0**-126, 1e308, 0.1])
floats = st.one_of(special, st.floats())
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def arrays(dtype: type[np.generic], elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Tensor]:
    return hnp.arrays(dtype, shapes, elements=elements).map(lambda array: torch.from_numpy(np.asarray(array).copy()))


# Counterexamples may hold any bits, subnormals and infinities too; NaN has no bits worth keeping.
tensors = st.one_of(
    arrays(np.float32, st.floats(width=32, allow_nan=False)),
    arrays(np.float64, st.floats(allow_nan=False)),
    arrays(np.int64, st.integers(-(2**63), 2**63 - 1)),
    arrays(np.bool_, st.booleans()),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), floats, st.text(), tensors),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
dictionaries = st.dictionaries(st.text(max_size=5), plain, max_size=3)


@st.composite
def results(draw: st.DrawFn) -> Result:
    verdict = draw(st.sampled_from(Verdict))
    counterexample = tensors if verdict is Verdict.FALSIFIED else st.one_of(st.none(), tensors)
    return Result(
        problem_id=draw(st.text()),
        verifier=draw(st.text()),
        verdict=verdict,
        reason=draw(st.sampled_from(Reason)) if verdict is Verdict.UNKNOWN else None,
        guarantee=draw(st.sampled_from(Guarantee)),
        margin=draw(st.one_of(st.none(), floats)),
        counterexample=draw(counterexample),
        certificate=draw(st.one_of(st.none(), dictionaries)),
        confidence=draw(st.one_of(st.none(), st.floats(0, 1))),
        seconds=draw(st.floats(0, allow_infinity=False)),
        subject=draw(st.text()),
        semantics=draw(st.text()),
        stats=draw(dictionaries),
    )


def bits(value: Any) -> Any:
    """Plain data in which two values are equal only if they are of one type and agree in every bit."""
    if isinstance(value, Tensor):
        return ("tensor", str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, float):
        return ("float", "nan" if value != value else struct.pack("<d", value))
    if isinstance(value, dict):
        return ("dict", {key: bits(item) for key, item in value.items()})
    if isinstance(value, list):
        return ("list", [bits(item) for item in value])
    return (type(value).__name__, value)


def content(result: Result) -> dict[str, Any]:
    return {f.name: bits(getattr(result, f.name)) for f in fields(result)}


@pytest.mark.parametrize("examples", [30, slow(100)])
def test_a_result_survives_json_bit_for_bit(examples: int) -> None:
    @settings(max_examples=examples)
    @given(results())
    def check(result: Result) -> None:
        text = result.to_json()
        assert content(Result.from_json(text)) == content(result)
        assert Result.from_json(text).to_json() == text

    check()


@given(results())
def test_the_json_is_strict(result: Result) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert isinstance(json.loads(result.to_json(), parse_constant=refuse), dict)


def falsified(x: Tensor) -> Result:
    return Result("p", "v()", Verdict.FALSIFIED, counterexample=x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_counterexamples_keep_their_dtype_shape_and_bits(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    values = [0.1, -0.0, info.tiny, info.smallest_normal / 2, info.max, -info.max, inf, -inf, 1 / 3]
    x = torch.tensor(values, dtype=dtype).reshape(1, 3, 3)
    back = Result.from_json(falsified(x).to_json()).counterexample
    assert back is not None
    assert (back.dtype, back.shape) == (dtype, x.shape)
    assert torch.equal(back.view(torch.uint8), x.view(torch.uint8))


def test_tensors_that_are_tracked_or_not_contiguous_are_written() -> None:
    x = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    back = Result.from_json(falsified(x).to_json()).counterexample
    assert back is not None
    assert torch.equal(back, x.detach())


def test_margins_are_written_so_that_bits_matter() -> None:
    result = Result("p", "v()", Verdict.VERIFIED, margin=0.1, confidence=0.999)
    data = json.loads(result.to_json())
    assert float.fromhex(data["margin"]) == 0.1
    assert float.fromhex(data["confidence"]) == 0.999
    assert (data["verdict"], data["guarantee"], data["reason"]) == ("verified", "numerical", None)


def test_whole_numbers_are_floats_too() -> None:
    result = Result("p", "v()", Verdict.VERIFIED, margin=1, confidence=1, seconds=2)
    back = Result.from_json(result.to_json())
    assert (back.margin, back.confidence, back.seconds) == (1.0, 1.0, 2.0)


def test_nested_stats_keep_every_bit() -> None:
    awkward = [inf, -inf, nan, 0.0, -0.0, 5e-324, -(2.0**-149), 0.1, 1e308, 2**70, True, None, ""]
    stats = {"deep": {"deeper": [awkward, {"x": torch.tensor(awkward[:9])}]}, "empty": [{}, [], torch.zeros(0, 2)]}
    result = Result("p", "v()", Verdict.VERIFIED, margin=-0.0, certificate=stats, stats=stats)
    assert content(Result.from_json(result.to_json())) == content(result)


def test_exactly_the_unknown_results_have_a_reason() -> None:
    x = torch.zeros(1)
    with pytest.raises(ValueError, match="have a reason"):
        Result("p", "v()", Verdict.UNKNOWN)
    for verdict in (Verdict.VERIFIED, Verdict.FALSIFIED):
        with pytest.raises(ValueError, match="have a reason"):
            Result("p", "v()", verdict, reason=Reason.TIMEOUT, counterexample=x)
    for reason in Reason:
        assert Result("p", "v()", Verdict.UNKNOWN, reason=reason).reason is reason


def test_a_falsified_result_has_a_counterexample() -> None:
    with pytest.raises(ValueError, match="has a counterexample"):
        Result("p", "v()", Verdict.FALSIFIED)
    with pytest.raises(ValueError, match="has a counterexample"):
        replace(falsified(torch.zeros(1)), counterexample=None)


def test_invariants_hold_for_what_is_read_too() -> None:
    data = json.loads(Result("p", "v()", Verdict.VERIFIED).to_json())
    with pytest.raises(ValueError, match="has a counterexample"):
        Result.from_json(json.dumps({**data, "verdict": "falsified"}))
    with pytest.raises(ValueError, match="have a reason"):
        Result.from_json(json.dumps({**data, "verdict": "unknown"}))
    with pytest.raises(ValueError, match="maybe"):
        Result.from_json(json.dumps({**data, "verdict": "maybe"}))


def test_results_do_not_share_their_stats() -> None:
    first, second = Result("p", "v()", Verdict.VERIFIED), Result("p", "v()", Verdict.VERIFIED)
    first.stats["nodes"] = 1
    assert second.stats == {}
