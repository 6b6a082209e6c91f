"""Two runs side by side: what changed, what is no comparison, and contradictions across runs."""

import pytest

from assay.attacks import get_attack
from assay.benchmarks.harness import changes
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.records import recorded
from assay.benchmarks.harness.records.store import Store
from assay.verify.core.errors import InputError
from tests.benchmarks.harness_fakes import POINTS, Claims, Exact, Liar, dataset, identity, needle, two_class


def run(path, model, methods=(), attacks=(), points=POINTS, radii=(0.04, 0.08), **options):
    with Store(path) as store:
        store.begin("assay compare", "net", "points")
        compare(model, dataset(points), list(radii), list(methods), list(attacks), store=store, **options)
        return recorded.read(store)


@pytest.fixture
def before(tmp_path):
    return run(tmp_path / "before", identity(), [Exact()])


def test_a_run_does_not_differ_from_itself(before):
    found = changes.between(before, before)
    assert (found.n, found.radii, found.changes, found.contradictions) == (5, (0.04, 0.08), (), ())


def test_changes_are_told_by_eps_and_sample(before, tmp_path):
    # The bias moves the boundary: sample 0 is misclassified now, and the radii of the others shrink by 0.055.
    after = run(tmp_path / "after", two_class([[1.0, 0.0], [0.0, 1.0]], (0.0, 0.11)), [], [get_attack("fgsm")])
    found = changes.between(before, after)
    told = [(c.sample, c.eps, c.before, c.after, c.better) for c in found.changes]
    assert told == [
        (0, 0.04, "certified", "misclassified", False),
        (1, 0.04, "certified", "open", False),
        (2, 0.04, "certified", "open", False),
        (0, 0.08, "broken", "misclassified", False),
        (1, 0.08, "certified", "broken", False),
        (2, 0.08, "certified", "open", False),
    ]
    assert next(c for c in found.changes if (c.sample, c.eps) == (1, 0.08)).by == ("fgsm",)
    back = changes.between(after, before)
    assert all(change.better for change in back.changes)
    assert not found.contradictions


def test_one_network_that_is_certified_here_and_broken_there_is_an_alarm(tmp_path):
    point = [[0.6, 0.4]]
    one = run(tmp_path / "a", needle(), [Liar()], points=point)
    other = run(tmp_path / "b", needle(), attacks=[Claims()], points=point)
    for pair in ((one, other), (other, one)):
        (line,) = changes.between(*pair).contradictions
        assert line.startswith("sample 0: certified within 0.08 by liar in one run, broken at 0.0125")
    third = run(tmp_path / "c", two_class([[0.0, 1.0], [1.0, 0.0]]), [Liar()], points=[[0.4, 0.6]], radii=[0.08])
    with pytest.raises(InputError, match="sample 0 is another one"):
        changes.between(one, third)


def test_what_cannot_be_compared_is_refused(before, tmp_path):
    with pytest.raises(InputError, match="no radius in common"):
        changes.between(before, run(tmp_path / "a", identity(), [Exact()], radii=[0.2]))
    with pytest.raises(InputError, match="differ in the norm: linf and l2"):
        changes.between(before, run(tmp_path / "b", identity(), [], [get_attack("fgsm")], norm=2.0))
