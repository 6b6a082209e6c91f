"""Rows: counts, exact intervals, and the union of what everybody found."""

import pytest

from assay.benchmarks.harness.bracket import Judged, Role, Row, clean, jaws, row
from assay.verify.core.result import Reason, Verdict


def test_the_interval_is_clopper_pearson():
    # 8 of 10: Clopper and Pearson's table gives 44.39% to 97.48%; 0 of n has the upper end 1 - 0.025^(1/n).
    low, high = Row(Role.METHOD, "m", "m", 0.1, 10, 8, 0, 0).interval
    assert (low, high) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert Row(Role.METHOD, "m", "m", 0.1, 20, 0, 0, 0).interval == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    assert Row(Role.ATTACK, "a", "a", 0.1, 20, 0, 0, 0).interval == pytest.approx((0.025 ** (1 / 20), 1))


@pytest.mark.parametrize("n", [1, 7, 500])
def test_the_interval_is_that_of_scipy(n):
    from scipy.stats import binomtest

    for count in sorted({0, 1, n // 3, n - 1, n}):
        known = binomtest(count, n).proportion_ci(0.95, method="exact")
        own = Row(Role.METHOD, "m", "m", 0.1, n, count, 0, 0).interval
        assert own == pytest.approx((known.low, known.high), abs=1e-10)


def test_a_method_counts_what_it_verified_and_an_attack_what_it_left():
    method, attack = (Row(role, "x", "x", 0.1, 10, 3, 4, 1) for role in (Role.METHOD, Role.ATTACK))
    assert (method.accuracy, attack.accuracy, method.unknown) == (0.3, 0.6, 3)
    assert clean(10, 4).accuracy == 0.6


def judged(role, name, verdict, *samples, eps=0.1, subject="network"):
    return [Judged(role, name, eps, i, verdict, seconds=1.0, subject=subject) for i in samples]


def test_the_jaws_are_unions():
    everything = [
        *judged(Role.ATTACK, "a", Verdict.FALSIFIED, 0, 1),
        *judged(Role.ATTACK, "b", Verdict.FALSIFIED, 1, 2),
        *judged(Role.METHOD, "c", Verdict.FALSIFIED, 2, 3),
        *judged(Role.METHOD, "c", Verdict.VERIFIED, 4, 5),
        *judged(Role.METHOD, "d", Verdict.VERIFIED, 5, 6),
        *judged(Role.METHOD, "d", Verdict.VERIFIED, 7, eps=0.05),
        *judged(Role.METHOD, "s", Verdict.VERIFIED, 8, subject="smoothed(sigma=0.5)"),
    ]
    upper, lower = jaws(0.1, 12, 2, everything)
    assert (upper.role, upper.falsified, upper.accuracy) == (Role.ATTACK, 4 + 2, 0.5)
    assert (lower.role, lower.verified, lower.falsified, lower.unknown) == (Role.METHOD, 3, 2 + 2, 5)
    assert (upper.seconds, lower.seconds) == (4, 6)


def test_certificates_count_at_smaller_radii_and_counterexamples_at_larger_ones():
    everything = [
        *judged(Role.METHOD, "c", Verdict.VERIFIED, 0, 1, eps=0.2),
        *judged(Role.METHOD, "c", Verdict.VERIFIED, 2),
        *judged(Role.METHOD, "c", Verdict.UNKNOWN, 0, 1, 3),
        *judged(Role.ATTACK, "a", Verdict.FALSIFIED, 4, eps=0.05),
        *judged(Role.METHOD, "c", Verdict.FALSIFIED, 5, eps=0.05),
        *judged(Role.ATTACK, "a", Verdict.FALSIFIED, 6, eps=0.2),
        *judged(Role.METHOD, "s", Verdict.VERIFIED, 7, eps=0.2, subject="smoothed(sigma=0.5)"),
    ]
    verified = {eps: jaws(eps, 8, 0, everything)[1].verified for eps in (0.05, 0.1, 0.2)}
    falsified = {eps: jaws(eps, 8, 0, everything)[0].falsified for eps in (0.05, 0.1, 0.2)}
    assert verified == {0.05: 3, 0.1: 3, 0.2: 2}
    assert falsified == {0.05: 2, 0.1: 2, 0.2: 3}
    upper, lower = jaws(0.1, 8, 0, everything)
    assert (upper.seconds, lower.seconds, lower.falsified) == (0, 4, 1)  # those of this eps; and of methods


def test_reasons_and_misclassified_are_counted_apart():
    entries = [Judged(Role.METHOD, "m", 0.1, i, Verdict.UNKNOWN, Reason.TIMEOUT) for i in range(3)]
    counts = row(Role.METHOD, "m", "M()", 0.1, 5, 2, entries)
    assert (counts.falsified, counts.misclassified, counts.unknown, counts.reasons) == (2, 2, 3, {"timeout": 3})


def test_json_has_the_name_under_the_role():
    method = Row(Role.METHOD, "m", "M()", 0.1, 10, 8, 1, 1, 0.5).to_json()
    assert method["method"] == "m"
    assert "attack" not in method
    assert Row(Role.ATTACK, "a", "A()", 0.1, 10, 0, 1, 1).to_json()["attack"] == "a"
    wanted = {"subject", "eps", "n", "verified", "falsified", "unknown", "accuracy", "low", "high", "seconds"}
    assert wanted <= method.keys()
