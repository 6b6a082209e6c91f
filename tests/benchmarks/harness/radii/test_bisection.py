"""The bisection that searches for radii share: its ends hold, come together, and are found in few questions."""

import random
from math import inf

import pytest

from assay.benchmarks.harness.radii.bisection import Bisection

TOP, TOLERANCE = 1.0, 1e-3


def searched(truth, course, margin=None):
    """The questions until the end, each answered by where ``truth`` lies."""
    asked = []
    while (eps := course.next()) is not None:
        assert 0 < eps <= course.top
        asked.append(eps)
        course.hear(eps, eps < truth, margin and margin(eps))
        assert len(asked) < 40
    return asked


@pytest.mark.parametrize("seed", range(20))
def test_the_ends_hold_the_truth_and_are_close(seed):
    draw = random.Random(seed)
    truth, start, step = draw.uniform(0, 1), draw.uniform(0.001, 1), draw.uniform(0.001, 0.5)
    bend = draw.uniform(0.3, 3)
    for margin in (None, lambda eps: 1 - (eps / truth) ** bend):
        course = Bisection(start, TOP, TOLERANCE, step, lead=None if margin is None else 1.0)
        asked = searched(truth, course, margin)
        assert course.low < truth <= course.high
        assert course.high - course.low <= TOLERANCE
        assert len(asked) <= 24
        assert len(set(asked)) == len(asked)


def test_a_line_is_followed_in_a_few_questions():
    course = Bisection(0.7, TOP, TOLERANCE, 0.1, lead=0.5)
    assert len(searched(0.3, course, lambda eps: 0.5 - eps * 0.5 / 0.3)) <= 4


def test_a_good_guess_is_cheap():
    assert len(searched(0.3004, Bisection(0.3, TOP, TOLERANCE, 0.9 * TOLERANCE))) == 2


def test_a_yes_at_the_top_is_the_end():
    course = Bisection(2.0, TOP, TOLERANCE, 0.1)
    assert searched(inf, course) == [TOP]
    assert (course.low, course.high) == (TOP, inf)


def test_a_share_of_the_end_is_close_enough():
    course = Bisection(0.5, TOP, 1e-6, 0.1, share=0.1)
    searched(0.3, course)
    assert course.low < 0.3 <= course.high <= course.low + 0.1 * course.high


def test_a_nearer_no_counts():
    course = Bisection(0.8, TOP, TOLERANCE, 0.1)
    course.hear(0.8, False, nearer=0.2)
    assert course.high == 0.2
    assert course.next() < 0.2
