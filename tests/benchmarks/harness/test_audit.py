"""Tests of the audit: what made a log is recovered, and rows that cannot be are named."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from assay.benchmarks.harness.audit import Entry, Law, Setting, check, read, recover
from assay.benchmarks.harness.smoothed import Row, table_text
from assay.verify.backends.smoothing.confidence import clopper_pearson_lower
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.core.errors import InputError
from tests.breadth import slow


def log_of(setting: Setting, rows: int, digits: str = "") -> str:
    """A log in the format that the field uses, or with all digits."""
    random = np.random.default_rng(0)
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    for i in range(rows):
        k = int(random.binomial(setting.n, min(1.0, random.uniform(0.55, 1.15))))
        certain = clopper_pearson_lower(k, setting.n, setting.alpha) > 0.5
        radius = setting.radius(k) if certain else 0.0
        shown = f"{radius:{digits}}" if digits else repr(radius)
        lines.append(f"{i}\t3\t{3 if certain else -1}\t{shown}\t1\t0:00:01.2")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        slow(Setting(1000, 0.001, 0.25)),
        Setting(10_000, 0.01, 0.5),
        slow(Setting(100_000, 0.001, 0.12)),
        slow(Setting(200, 0.05, 1.0)),
    ],
    ids=str,
)
def test_what_made_a_log_is_recovered(setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(log_of(setting, 40))
    (first, *_) = recover(read(path))
    assert first.setting == setting
    assert not first.faults


@pytest.mark.slow
def test_an_unusual_sigma_is_recovered_from_the_longest_radius(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(log_of(Setting(1000, 0.001, 0.37), 40))
    assert recover(read(path))[0].setting == Setting(1000, 0.001, 0.37)


@pytest.mark.slow
def test_few_digits_leave_what_made_it_among_the_best(tmp_path: Path) -> None:
    setting = Setting(1000, 0.001, 0.5)
    path = tmp_path / "log"
    path.write_text(log_of(setting, 60, ".3"))
    best = recover(read(path))
    assert not best[0].faults
    assert not check(read(path), setting).faults


def test_rows_that_cannot_be_are_named(tmp_path: Path) -> None:
    setting = Setting(10_000, 0.001, 0.25)
    path = tmp_path / "log"
    lines = log_of(setting, 20).splitlines()
    top = setting.radius(10_000)
    lines[3] = f"2\t3\t3\t{top * 1.01!r}\t1\t0"
    lines[6] = f"5\t3\t3\t{(setting.radius(9000) + setting.radius(9001)) / 2!r}\t1\t0"
    lines[9] = "8\t3\t-1\t0.2\t0\t0"
    path.write_text("\n".join(lines))
    fit = check(read(path), setting)
    assert [fault.entry.line for fault in fit.faults] == [4, 7, 10]
    why = [fault.why for fault in fit.faults]
    assert "above" in why[0]
    assert "9000 successes" in why[1]
    assert "abstained" in why[2]


def test_peeking_and_forgotten_factors_show() -> None:
    """Radii of another alpha, or of the halved confidence, are none of the stated ones."""
    stated, used = Setting(1000, 0.001, 0.5), Setting(1000, 0.002, 0.5)
    entries = [Entry(i, 0, used.radius(k), 1e-9) for i, k in enumerate(range(600, 1000, 40), 2)]
    assert len(check(entries, stated).faults) == len(entries)
    assert not check(entries, used).faults


def test_our_own_rows_pass(tmp_path: Path) -> None:
    setting = Setting(1000, 0.001, 0.25)
    rows = []
    for i, k in enumerate((1000, 993, 700, 400)):
        p = clopper_pearson_lower(k, 1000, 0.001)
        radius = setting.radius(k) if p > 0.5 else 0.0
        rows.append(Row(i, 1, 1 if radius else -1, radius, k if radius else 0, 1000, p, 0.1))
    path = tmp_path / "smooth.csv"
    path.write_text(table_text(rows))
    entries = read(path)
    assert [entry.radius for entry in entries] == [row.radius for row in rows]
    assert not check(entries, setting).faults
    assert float(ndtr(rows[0].radius / 0.25)) == pytest.approx(rows[0].p)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "column radius"),
        ("idx,radius\n1,far\n", ":2: expected a radius"),
        ("idx,radius\n1,0.1\n2\n", ":3: expected a radius"),
        ("idx,radius\n1,nan\n", ":2: expected a radius"),
        ("idx,radius\n1,-0.5\n", ":2: expected a radius"),
    ],
)
def test_what_is_no_log_is_refused_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_log_of_zeros_recovers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("idx,radius\n1,0.0\n")
    assert recover(read(path)) == []


KINDS = [
    (Kind("laplace", 0.3), 1.0),
    (Kind("uniform", 0.3), inf),
    (Kind("gaussian", 0.3), inf),
    (Kind("exp2", 0.3), 2.0),
    slow(Kind("generalised-gaussian", 0.3), 2.0),
    (Kind("masking", keep=0.05), 0.0),
    (Kind("ablation", keep=0.1), 0.0),
]


@pytest.mark.parametrize(("kind", "norm"), KINDS)
def test_every_noise_has_its_lattice(kind: Kind, norm: float) -> None:
    """Radii of counts are told from radii that no count gives, and from those of other draws."""
    setting = Setting(1000, 0.001, kind.sigma, Law(kind, norm, (1, 5, 8)))
    radii = [setting.radius(k) for k in (600, 777, 901, 1000)]
    assert radii == sorted(radii)
    own = [Entry(i, 0, radius, 1e-9 * radius + 1e-12) for i, radius in enumerate(radii, 2)]
    assert not check(own, setting).faults
    strange = [Entry(2, 0, radii[-1] * 1.01 + 0.5, 1e-9), Entry(3, -1, radii[0] + 0.25, 1e-9)]
    if not kind.erases:
        strange.append(Entry(4, 0, (radii[1] + setting.radius(778)) / 2, 1e-9))
    else:
        strange.append(Entry(4, 0, 1.5, 1e-9))
    assert [fault.entry.line for fault in check(strange, setting).faults] == [2, 3, 4]


def test_gaussian_noise_by_its_law_is_as_by_its_formula() -> None:
    plain, law = Setting(500, 0.01, 0.5), Setting(500, 0.01, 0.5, Law(Kind("gaussian", 0.5), 2.0, (6,)))
    assert [law.radius(k) for k in (300, 420, 500)] == pytest.approx([plain.radius(k) for k in (300, 420, 500)])
