"""Options out of range: the same message for every attack."""

from __future__ import annotations

import pytest

from assay.attacks import get_attack
from assay.verify.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ddn(steps=0)", "steps of ddn must be a whole number of at least 1, got 0"),
        ("ddn(refine=-1)", "refine of ddn must be a whole number of at least 0"),
        ("ddn(gamma=1)", "gamma of ddn must lie between 0 and 1"),
        ("ddn(radius=nan)", "radius of ddn must be a finite number > 0"),
        ("fmn(step_size=0)", "step_size of fmn must be a finite number > 0"),
    ],
)
def test_options_out_of_range(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_attack(text)
