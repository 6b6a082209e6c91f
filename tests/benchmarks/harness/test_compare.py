"""The bracket harness against a model whose robustness is known by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from assay.attacks import get_attack
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.records import recorded
from assay.benchmarks.harness.records.store import Store
from assay.verify import get_verifier
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AlarmError, InputError, InternalError, ResourceError
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.perturbations import Perturbation
from assay.verify.support.options import title
from tests.benchmarks.harness_fakes import (
    NEEDLE,
    POINTS,
    Broken,
    Claims,
    Exact,
    Liar,
    Timid,
    dataset,
    identity,
    needle,
    two_class,
)

EPS = [0.15, 0.04, 0.08]


def by_name(comparison):
    return {(row.name, row.eps): row for row in comparison.rows}


def test_counts_of_exact_attacks_and_a_method_that_decides_nothing():
    comparison = compare(identity(), dataset(POINTS), EPS, [Exact(), Timid()], [get_attack("fgsm")], batch=2)
    rows = by_name(comparison)
    clean = comparison.rows[0]
    assert (clean.name, clean.n, clean.falsified, clean.accuracy) == ("clean", 5, 2, 0.6)
    for eps, robust in ((0.04, 3), (0.08, 2), (0.15, 1)):
        for name in ("exact", "all methods"):
            row = rows[name, eps]
            assert (row.verified, row.falsified, row.unknown, row.misclassified) == (robust, 5 - robust, 0, 2)
        for name in ("fgsm", "all attacks"):
            row = rows[name, eps]
            assert (row.verified, row.falsified, row.unknown) == (0, 5 - robust, robust)
            assert row.accuracy == robust / 5
        timid = rows["timid", eps]
        assert (timid.verified, timid.falsified, timid.unknown, timid.accuracy) == (0, 2, 3, 0)
        assert timid.reasons == {"timeout": 3}
        assert rows["exact", eps].seconds == pytest.approx(1.5)
    assert not comparison.alarms
    comparison.raise_alarm()


def test_rows_come_clean_first_then_by_eps_from_above_to_below():
    comparison = compare(identity(), dataset(POINTS), [0.08, 0.04, 0.08], [Timid()], [get_attack("fgsm")])
    names = ["fgsm", "all attacks", "all methods", "timid"]
    assert [(r.name, r.eps) for r in comparison.rows[1:]] == [(n, e) for e in (0.04, 0.08) for n in names]


def test_the_upper_jaw_counts_the_counterexamples_of_methods():
    rows = by_name(compare(identity(), dataset(POINTS), [0.08], [Exact()], []))
    assert rows["all attacks", 0.08].falsified == 3


def test_nobody_is_asked_about_misclassified_samples_or_ties(tmp_path):
    with Store(tmp_path / "s") as store:
        compare(identity(), dataset(POINTS), [0.04], [Timid()], [], store=store)
        records, _ = store.read()
    assert sorted(record.sample for record in records) == [0, 1, 2]


def test_all_misclassified_is_a_result():
    comparison = compare(identity(), dataset([[0.1, 0.9]]), [0.1], [Exact()], [get_attack("fgsm")])
    assert [row.accuracy for row in comparison.rows] == [0, 0, 0, 0, 0]


def test_a_model_that_gives_nan_classifies_nothing_rightly():
    class Nan(torch.nn.Module):
        def forward(self, x):
            return x / (x - x)

    from assay.verify.core.network import chain
    from assay.verify.core.ops import Linear

    net = chain((2,), [Linear(torch.eye(2), torch.zeros(2))], oracle=Nan())
    assert compare(net, dataset(POINTS), [0.1], [Exact()], []).rows[0].accuracy == 0


@pytest.mark.parametrize("point", [(0.9, 0.95), (0.5, 0.4)], ids=["outside the region", "rightly classified"])
def test_an_attack_that_lies_breaks_nothing(point):
    comparison = compare(identity(), dataset([[0.5, 0.4]]), [0.08], [], [Claims(point)])
    row = by_name(comparison)[title(Claims(point)), 0.08]
    assert (row.falsified, row.unknown, row.reasons) == (0, 1, {"numerical": 1})
    (alarm,) = comparison.alarms
    assert "gave a verdict on sample 0 at eps 0.08 that fails its check" in alarm.explanation


def test_verified_here_and_broken_there_is_an_alarm_with_its_case(tmp_path):
    comparison = compare(needle(), dataset([[0.6, 0.4]]), [0.05], [Liar()], [Claims()], alarm_folder=tmp_path)
    (alarm,) = comparison.alarms
    assert alarm.explanation.startswith("liar verifies sample 0 at eps 0.05, claims falsifies it")
    with pytest.raises(AlarmError, match="soundness alarm: liar verifies") as caught:
        comparison.raise_alarm()
    assert caught.value.exit_code == 70
    folder = tmp_path / alarm.problem.id
    assert comparison.folders == (folder,)
    with np.load(folder / "case.npz", allow_pickle=False) as case:
        assert np.allclose(case["x"], [0.6, 0.4])
        assert np.allclose(case["counterexample"], NEEDLE)
        assert int(case["label"]) == 0
    document = json.loads((folder / "alarm.json").read_text())
    results = [Result.from_json(json.dumps(document[side][0]["result"])) for side in ("claims", "against")]
    assert [result.verdict for result in results] == [Verdict.VERIFIED, Verdict.FALSIFIED]


def test_a_claim_at_a_larger_radius_is_contradicted_from_a_smaller_one():
    @torch.no_grad()
    def run(up_to):
        return compare(needle(), dataset([[0.6, 0.4]]), [0.02, 0.05], [Liar(up_to)], [Near()]).alarms

    class Near(Claims):
        def search(self, problems, seed=0):
            result = super().search(problems, seed)
            result.success[:] = float(problems[0].region.eps) == 0.02
            return result

    (first, second) = run(0.05)
    assert "at eps 0.02, claims falsifies it at eps 0.02" in first.explanation
    assert "at eps 0.05, claims falsifies it at eps 0.02" in second.explanation
    assert run(0.01) == ()


def test_a_claim_at_a_smaller_radius_than_the_counterexample_is_no_alarm():
    class Far(Claims):
        def search(self, problems, seed=0):
            result = super().search(problems, seed)
            result.success[:] = float(problems[0].region.eps) == 0.05
            return result

    comparison = compare(needle(), dataset([[0.6, 0.4]]), [0.002, 0.05], [Liar(0.002)], [Far()])
    assert by_name(comparison)["all methods", 0.002].verified == 1
    assert by_name(comparison)["claims", 0.05].falsified == 1
    assert not comparison.alarms


def test_a_claim_that_fails_its_check_is_an_alarm_and_no_certificate(tmp_path):
    comparison = compare(identity(), dataset([[0.5, 0.4]]), [0.1], [Liar()], [], alarm_folder=tmp_path)
    row = by_name(comparison)["liar", 0.1]
    assert (row.verified, row.unknown) == (0, 1)
    (alarm,) = comparison.alarms
    assert alarm.explanation.startswith("liar gave a verdict on sample 0 at eps 0.1 that fails its check")
    with np.load(comparison.folders[0] / "case.npz") as case:
        assert sorted(case) == ["label", "x"]


def test_an_earlier_verdict_that_a_new_one_contradicts_is_an_alarm(tmp_path):
    """One method, one key: verified in an earlier run, falsified in this one."""

    class Moody(Exact):
        truthful = True

        def verify(self, problem, budget):
            return super().verify(problem, budget) if self.truthful else Liar().verify(problem, budget)

    data = dataset([[0.6, 0.4]])
    with Store(tmp_path / "s") as store:
        Moody.truthful = False
        compare(needle(), data, [0.05], [Moody()], [], store=store)

        Moody.verify = lambda self, p, b: Result(
            p.id, repr(self), Verdict.FALSIFIED, counterexample=torch.tensor(NEEDLE)
        )
        comparison = compare(needle(), data, [0.05], [Moody()], [], store=store)
    (alarm,) = comparison.alarms
    assert alarm.explanation.startswith("exact (earlier) verifies sample 0")


def test_smoothed_subjects_neither_contradict_nor_enter_the_bracket():
    class Smooth(Liar):
        def verify(self, problem, budget):
            return Result(problem.id, repr(self), Verdict.VERIFIED, subject="smoothed(sigma=0.25)")

    comparison = compare(needle(), dataset([[0.6, 0.4]]), [0.05], [Smooth()], [Claims()])
    rows = by_name(comparison)
    assert rows["liar", 0.05].subject == "smoothed(sigma=0.25)"
    assert rows["liar", 0.05].verified == 1
    assert rows["all methods", 0.05].verified == 0
    assert not comparison.alarms


def test_an_exception_is_never_a_verdict():
    data = dataset(POINTS)
    with pytest.raises(InternalError, match=r"broken failed on samples 0 to 0 at eps 0.1: ZeroDivisionError: x / 0"):
        compare(identity(), data, [0.1], [Broken()], [])
    with pytest.raises(ResourceError, match=r"broken.* ran out of memory on samples 0 to 0"):
        compare(identity(), data, [0.1], [Broken("memory")], [], batch=2)


def test_who_could_not_run_has_no_accuracy_and_says_why():
    comparison = compare(identity(), dataset(POINTS), [0.1], [Broken("unsupported"), Timid()], [get_attack("ddn")])
    rows = by_name(comparison)
    row = rows["broken(error=unsupported)", 0.1]
    assert (row.verified, row.unknown, row.reasons) == (0, 3, {"unsupported": 3})
    assert row.refusal == "unsupported: no softmax"
    document = row.to_json()
    assert [document[key] for key in ("accuracy", "low", "high")] == [None] * 3
    assert document["reason"] == row.refusal
    assert rows["ddn", 0.1].refusal == "unsupported: ddn needs a region that is a ball of l2, got one of linf"
    assert not comparison.refused
    assert rows["timid", 0.1].to_json()["reason"] is None
    assert rows["all methods", 0.1].refusal == ""
    assert rows["all attacks", 0.1].refusal == "unsupported: none of them could run"


def test_nobody_could_run():
    comparison = compare(identity(), dataset(POINTS), [0.1], [Broken("unsupported")], [])
    assert comparison.refused
    assert by_name(comparison)["all methods", 0.1].refusal
    everything_wrong = compare(identity(), dataset([[0.1, 0.9]]), [0.1], [Broken("unsupported")], [])
    assert not everything_wrong.refused


def test_answers_in_another_order_than_asked_are_refused():
    class Shuffled(Timid):
        def verify_many(self, problems, budget):
            return super().verify_many(problems, budget)[::-1]

    with pytest.raises(InternalError, match="answered other problems"):
        compare(identity(), dataset(POINTS), [0.1], [Shuffled()], [])


def labels_beyond():
    """The labels 0 and 2 of three."""
    return replace(dataset([[0.9, 0.2], [0.1, 0.2]]), y=torch.tensor([0, 2]), classes=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": []}, "at least one eps"),
        ({"eps": [-0.1]}, "eps must be a finite number >= 0"),
        ({"eps": [float("nan")]}, "eps must be a finite number >= 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"norm": 3.0}, "norm must be the number 1, 2 or math.inf"),
        ({"methods": [Timid(), Timid()]}, "timid is given twice"),
        ({"methods": ["crown"]}, "got the text 'crown'"),
        ({"methods": Timid()}, "expected a list of methods and one of attacks, got Timid"),
        ({"data": torch.zeros(3, 2)}, "expected a Dataset, got Tensor: assay.data.load"),
        ({"budget": 10}, "expected a Budget, got 10: Budget"),
        ({"model": two_class([[1.0, 0.0]] * 2).train()}, "eval"),
        ({"model": torch.nn.Sequential(torch.nn.Linear(3, 2)).eval()}, "shape"),
        ({"model": torch.nn.Sequential(torch.nn.Linear(2, 1)).eval(), "data": labels_beyond()}, "label 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_is_one_clear_error(change, message):
    usual = {"model": identity(), "data": dataset(POINTS), "eps": [0.1], "methods": [Timid()], "attacks": []}
    with pytest.raises(InputError, match=message):
        compare(**{**usual, **change})


def test_one_radius_is_enough_and_somebody_is_asked_anyway():
    comparison = compare(identity(), dataset(POINTS), 0.08)
    assert [row.name for row in comparison.rows] == [
        "clean",
        "fgsm",
        "pgd",
        "all attacks",
        "all methods",
        "ibp",
        "crown",
    ]
    assert {row.eps for row in comparison.rows[1:]} == {0.08}


def test_the_budget_is_for_each_sample_and_its_seed_reaches_everybody():
    seen = []

    class One(Exact):
        def verify(self, problem, budget):
            seen.append(("one", round(budget.seconds), budget.seed))
            return super().verify(problem, budget)

    class Many(Timid):
        def verify_many(self, problems, budget):
            seen.append(("many", round(budget.seconds), budget.seed))
            return super().verify_many(problems, budget)

    compare(identity(), dataset(POINTS), [0.1], [One(), Many()], [], budget=Budget(7, seed=5))
    assert seen == [("one", 7, 5)] * 3 + [("many", 21, 5)]


def test_records_carry_the_result_and_the_question(tmp_path):
    with Store(tmp_path / "s") as store:
        compare(identity(), dataset(POINTS), [0.08], [Exact(2)], [], store=store, budget=Budget(9, seed=3))
        records, faults = store.read()
    assert not faults
    first = min(records, key=lambda record: record.sample)
    assert (first.role, first.sample, first.label, first.eps, first.norm, first.budget) == (
        "method", 0, 0, 0.08, float("inf"), 9.0
    )  # fmt: skip
    assert (first.key.method, first.key.seed, first.result.verdict) == (repr(Exact(2)), 3, Verdict.FALSIFIED)


def test_progress_reaches_its_end():
    class Count:
        total = done = 0

        def begin(self, total, stages):
            self.total, self.stages = total, stages

        def running(self, what):
            self.what = what

        def advance(self, amount):
            self.done += amount

        recall = advance

        def so_far(self, found):
            self.found = found

    watcher = Count()
    compare(identity(), dataset(POINTS), [0.1, 0.2], [Timid()], [get_attack("fgsm")], batch=2, progress=watcher)
    assert watcher.done == watcher.total == 3 * 2 * 2
    assert watcher.what == "timid, eps 0.2"
    names = [f"{name}, eps {eps}" for eps in (0.1, 0.2) for name in ("fgsm", "timid")]
    assert watcher.stages == dict.fromkeys(names, 3)


def test_titles_are_short_and_tell_options_apart():
    assert [title(Exact()), title(Exact(2)), title(Liar(0.5))] == ["exact", "exact(option=2)", "liar(up_to=0.5)"]


def test_batches_change_nothing():
    runs = [compare(identity(), dataset(POINTS), EPS, [Exact()], [get_attack("fgsm")], batch=b) for b in (1, 50)]
    rows = [[(row.name, row.eps, row.verified, row.falsified) for row in run.rows] for run in runs]
    assert rows[0] == rows[1]


def one_output():
    """y = x0 - x1: its sign is the class, and the linf radius of a sample is |x0 - x1| / 2."""
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.bias.zero_()
    return torch.nn.Sequential(layer).eval()


def test_a_model_of_one_output_tells_two_classes_apart():
    """The points with labels 1, their mirror images with labels 0; a tie is wrong for both."""
    data = dataset([*POINTS, *([b, a] for a, b in POINTS)], [1] * 5 + [0] * 5)
    rows = by_name(compare(one_output(), data, EPS, [get_verifier("crown")], [get_attack("pgd")]))
    assert rows["clean", 0].falsified == 4
    for eps, robust in ((0.04, 6), (0.08, 4), (0.15, 2)):
        assert rows["all methods", eps].verified == robust
        assert rows["pgd", eps].falsified == 10 - robust


def test_unknown_for_a_reason_is_counted_by_reason():
    class Both(Timid):
        def verify_many(self, problems, budget):
            first, *rest = super().verify_many(problems, budget)
            return [Result(first.problem_id, repr(self), Verdict.UNKNOWN, Reason.SOLVER), *rest]

    (row,) = (r for r in compare(identity(), dataset(POINTS), [0.1], [Both()], []).rows if r.name == "timid")
    assert row.reasons == {"solver": 1, "timeout": 2}


def test_within_other_balls_both_jaws_meet_at_the_distance_of_their_intersection(tmp_path):
    """Of two outputs that are the inputs a change takes the most from the margin along (-1, 1): t in linf, sqrt 2 t in
    l2."""
    data, held = dataset(POINTS), 0.1
    path = tmp_path / "s"
    with Store(path) as store:
        store.begin("test", "model", "data")
        crown, pgd = get_verifier("crown"), get_attack("pgd")
        comparison = compare(identity(), data, EPS, [crown], [pgd], store=store, within={2.0: held})
        records, _ = store.read()
        read = recorded.read(store)
    assert comparison.threat == read.threat == "linf within l2:0.1"
    own = data.y[:, None]
    margin = data.x.gather(1, own) - data.x.gather(1, 1 - own)
    for eps in EPS:
        robust = int((margin > 2 * min(eps, held / 2**0.5)).sum())
        rows = by_name(comparison)
        assert rows["all methods", eps].verified == rows["all attacks", eps].count == robust
    points = [r for r in records if r.result.verdict is Verdict.FALSIFIED]
    assert points
    for record in points:
        step = (record.result.counterexample - data.x[record.sample]).double()
        assert step.norm() <= held
        assert step.abs().max() <= record.eps
    fewer = compare(identity(), data, EPS, [crown], [pgd])
    assert by_name(fewer)["all methods", 0.15].verified < by_name(comparison)["all methods", 0.15].verified


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm": 0.0, "within": {2.0: 1.0}}, "l0 has no ball that others could meet"),
        ({"within": {np.inf: 1.0}}, "two or three balls of different norms"),
        (
            {"within": {2.0: 1.0}, "perturbation": Perturbation.parse("brightness(0.1)")},
            "do not go with a perturbation",
        ),
    ],
)
def test_other_balls_that_cannot_be_met_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        compare(identity(), dataset(POINTS), 1.0, [get_verifier("crown")], [], **change)
