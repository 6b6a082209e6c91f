"""Tests of verify.core.norms: names that people write, and names that are printed."""

from __future__ import annotations

from math import inf

import pytest

from assay.verify.core.errors import InputError
from assay.verify.core.norms import norm_name, parse_norm


@pytest.mark.parametrize(("text", "p"), [("inf", inf), ("Linf", inf), ("2", 2.0), ("l2", 2.0), ("1", 1.0), ("L1", 1.0)])
def test_norms_are_read(text: str, p: float) -> None:
    assert parse_norm(text) == p
    assert parse_norm(norm_name(p)) == p


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(InputError, match="unknown norm 'l7'"):
        parse_norm("l7")
