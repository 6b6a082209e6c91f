"""Written files: exact, short where they may be, whole or not at all."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.frontends.vnnlib import Property, parse_vnnlib, read_vnnlib, write_vnnlib
from tests.nets import random_cnn, random_mlp
from tests.verify.frontends.vnnlib_formulas import content

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64).map(lambda value: value + 0.0)
WHOLE = Spec((Polyhedron(torch.zeros(0, 1), torch.zeros(0), torch.zeros(0, dtype=torch.bool)),))


def boxed(lower: list[float], upper: list[float], spec: Spec = WHOLE) -> Property:
    return Property(len(lower), 1, ((Box(torch.tensor(lower).double(), torch.tensor(upper).double()), spec),))


def written(what: Property | Problem, path: Path) -> list[str]:
    write_vnnlib(what, path)
    return [line for line in path.read_text().splitlines() if line.startswith(("(assert", "    "))]


@given(st.lists(st.tuples(numbers, numbers).map(sorted), min_size=1, max_size=4))
def test_float64_bounds_read_back_the_same(tmp_path_factory: pytest.TempPathFactory, ends: list[list[float]]) -> None:
    path = tmp_path_factory.mktemp("written") / "p.vnnlib"
    lower, upper = (torch.tensor(side, dtype=torch.float64) for side in zip(*ends, strict=True))
    stated = Property(len(ends), 1, ((Box(lower, upper), WHOLE),))
    write_vnnlib(stated, path)
    assert content(read_vnnlib(path)) == content(stated)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4), st.data())
def test_rows_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[float]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("written") / "p.vnnlib"
    *coefficients, limits = torch.tensor(table, dtype=torch.float64).T
    A = torch.stack(coefficients, dim=1)
    A[:, 0] = torch.where((A == 0).all(1), 1, A[:, 0])
    strict = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))))
    disjuncts = tuple(Polyhedron(A[i : i + 1], limits[i : i + 1], strict[i : i + 1]) for i in range(len(table)))
    box = Box(torch.zeros(1), torch.ones(1))
    stated = Property(1, 2, ((box, Spec(disjuncts)),))
    write_vnnlib(stated, path)
    ((_, spec),) = read_vnnlib(path).cases
    assert {Spec((d,)).id for d in spec.disjuncts} == {Spec((d,)).id for d in disjuncts}


def test_decimals_between_two_float64_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0.1))(assert (<= X_0 0.3))"
    assert written(parse_vnnlib(text), tmp_path / "p.vnnlib") == ["(assert (>= X_0 0.1))", "(assert (<= X_0 0.3))"]


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        (WHOLE, []),
        (Spec(()), ["(assert (and (<= Y_0 0.0) (>= Y_0 1.0)))"]),
        (Spec.halfspaces([[1.0]], [2.0]), ["(assert (<= Y_0 2.0))"]),
        (Spec.halfspaces([[-1.0], [0.5]], [2.0, 0.0]), ["(assert (>= Y_0 -2.0))", "(assert (<= (+ (* 0.5 Y_0)) 0.0))"]),
        (
            Spec((*Spec.halfspaces([[1.0]], [2.0]).disjuncts, *Spec.halfspaces([[-1.0]], [0.0]).disjuncts)),
            ["(assert (or (and (<= Y_0 2.0)) (and (>= Y_0 0.0))))"],
        ),
    ],
)
def test_unsafe_sets_are_written_as_people_do(spec: Spec, lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    assert written(boxed([0.0], [1.0], spec), path)[2:] == lines
    assert content(read_vnnlib(path)) == content(boxed([0.0], [1.0], spec))


def test_several_cases_share_what_is_common(tmp_path: Path) -> None:
    text = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"
    text += "(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1)))"
    text += "(assert (or (and (<= X_0 0.5) (<= Y_0 5)) (and (> X_1 0.5) (or (>= Y_0 7) (<= Y_0 6)))))"
    path = tmp_path / "p.vnnlib"
    assert len([line for line in written(parse_vnnlib(text), path) if "X_0 0.0" in line]) == 1
    assert content(read_vnnlib(path)) == content(parse_vnnlib(text))


def test_an_empty_box_reads_back_empty(tmp_path: Path) -> None:
    write_vnnlib(boxed([1.0], [0.0]), tmp_path / "p.vnnlib")
    ((box, spec),) = read_vnnlib(tmp_path / "p.vnnlib").cases
    assert box.id == Box(torch.tensor([1.0]), torch.tensor([0.0])).id
    assert not spec.disjuncts


@pytest.mark.parametrize("domain", [(0.0, 1.0), None])
def test_a_problem_on_an_linf_ball_keeps_its_members(domain: tuple[float, float] | None, tmp_path: Path) -> None:
    network = to_network(random_cnn(0), (1, 6, 6))
    x = torch.rand((1, 6, 6), generator=torch.Generator().manual_seed(0))
    x[0, 0, 0], x[0, 0, 1] = 0.0, 1.0
    problem = Problem.robustness(network, x, 1, 0.1, domain=domain)
    path = tmp_path / "p.vnnlib"
    write_vnnlib(problem, path)
    (back,) = read_vnnlib(path).problems(network)
    assert back.spec.id == problem.spec.id
    box = problem.region.box()
    assert isinstance(back.region, Box)
    assert torch.equal(back.region.lower, box.lower)
    assert torch.equal(back.region.upper, box.upper)
    for dtype in (torch.float32, torch.float64):
        far = torch.full((1, 1, 6, 6), inf, dtype=dtype)
        for side in (far, -far):
            assert torch.equal(back.region.project(side), problem.region.project(side))


def test_bounds_of_a_ball_are_exact(tmp_path: Path) -> None:
    network = to_network(random_mlp(0, (1, 4, 3)), (1,))
    problem = Problem.robustness(network, torch.tensor([0.3]), 1, 0.1, domain=None)
    exact = Fraction(float(torch.tensor(0.3))) + Fraction(0.1)
    write_vnnlib(problem, tmp_path / "p.vnnlib")
    ((box, _),) = read_vnnlib(tmp_path / "p.vnnlib").cases
    assert Fraction(nextafter(box.upper.item(), 0)) < exact <= Fraction(box.upper.item())


@pytest.mark.parametrize("p", [1, 2])
def test_other_regions_are_not_supported(p: int, tmp_path: Path) -> None:
    problem = Problem.robustness(to_network(random_mlp(0), (4,)), torch.full((4,), 0.5), 1, 0.1, norm=p)
    with pytest.raises(UnsupportedError, match="a box, an linf ball or a polytope"):
        write_vnnlib(problem, tmp_path / "p.vnnlib")
    assert not list(tmp_path.iterdir())


def test_infinite_bounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finite"):
        write_vnnlib(boxed([0.0], [inf]), tmp_path / "p.vnnlib")


def test_a_name_that_ends_in_gz_is_gzipped_alike_each_time(tmp_path: Path) -> None:
    stated = boxed([0.0], [0.1])
    for name in ("p.vnnlib.gz", "q.vnnlib.gz"):
        write_vnnlib(stated, tmp_path / name)
    assert (tmp_path / "p.vnnlib.gz").read_bytes() == (tmp_path / "q.vnnlib.gz").read_bytes()
    assert content(read_vnnlib(tmp_path / "p.vnnlib")) == content(stated)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "p.vnnlib"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_vnnlib(boxed([0.0], [1.0]), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write_vnnlib(boxed([0.0], [1.0]), tmp_path / "nowhere" / "p.vnnlib")
