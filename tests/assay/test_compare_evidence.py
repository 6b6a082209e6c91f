"""``assay compare --evidence``: a certificate or counterexample of each sample, one index, all of it checked again."""

from __future__ import annotations

import hashlib
import io
import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import inputs, portfolio
from assay.__main__ import main
from assay.models.data import load
from assay.verify.check import norms
from assay.verify.check.certificate import CHECKERS
from tests.breadth import few

MODEL = "zoo:digits-mlp-pgd"  # misclassifies the second sample
METHODS = "crown,smoothing(n=300)"
SUBJECT = "smoothed(gaussian, 0.25)"


def arguments(*more: str, eps: str = "0.02", methods: str = METHODS, norm: str = "inf") -> list[str]:
    usual = {"model": MODEL, "eps": eps, "methods": methods, "attacks": "fgsm", "n": "5", "norm": norm}
    return ["compare", "-q", *(part for k, v in usual.items() for part in (f"--{k}", v)), "--evidence", "ev", *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of evidence."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments()) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be changed, in the working folder."""
    for path in made.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = tmp_path / path.relative_to(made)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ev"


def index(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / portfolio.INDEX).read_text()))


def test_every_sample_has_its_evidence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = index(run)["entries"]
    network = [entry for entry in entries if entry["subject"] == "network"]
    assert [entry["sample"] for entry in network] == list(range(5))
    assert {entry["verdict"] for entry in network} >= {"verified", "falsified"}
    assert {entry["guarantee"] for entry in network} <= {"rigorous", "open"}
    others = [entry for entry in entries if entry["subject"] != "network" and entry["verdict"] == "verified"]
    assert others
    assert {(entry["guarantee"], entry["confidence"]) for entry in others} == {("statistical", 0.999)}
    text = (run / "index.txt").read_text()
    assert all(entry["file"] in text and (run / entry["file"]).is_file() for entry in entries)
    assert "statistical: of the smoothed classifier, with its confidence" in text
    assert "<th>guarantee</th>" in (run / "index.html").read_text()
    assert main(["check", "ev"]) == 0
    out = capsys.readouterr().out
    assert "verified (rigorous)" in out
    assert "verified (statistical)" in out


def test_one_sample_is_checked_without_this_package(run: Path) -> None:
    entry = next(entry for entry in index(run)["entries"] if entry["verdict"] == "verified")
    with zipfile.ZipFile(run / entry["file"]) as file:
        file.extractall(run)
    command = [sys.executable, "-I", "checker.py", "certificate.zip", "model.onnx", "property.vnnlib"]
    done = subprocess.run(command, cwd=run, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("accepted: ")


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its index, and with a zip that is torn."""
    before = {path.name: path.stat().st_mtime_ns for path in run.glob("*.zip")}
    (run / portfolio.INDEX).unlink()
    torn = min(before)
    (run / torn).write_bytes((run / torn).read_bytes()[:100])
    assert main(arguments("--resume")) == 0
    after = {path.name: path.stat().st_mtime_ns for path in run.glob("*.zip")}
    written = {name for name in after if after[name] != before[name]}
    unproved = {entry["file"] for entry in index(run)["entries"] if entry["proof"].startswith("none: ")}
    assert written == unproved | {torn}
    assert main(["check", "ev"]) == 0


def rewritten(folder: Path, entry: dict[str, Any], change: Callable[[dict[str, bytes]], None]) -> None:
    """The zip of an entry with other content, and an index that agrees with it."""
    with zipfile.ZipFile(folder / entry["file"]) as file:
        content = {name: file.read(name) for name in file.namelist()}
    change(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    (folder / entry["file"]).write_bytes(buffer.getvalue())
    told = index(folder)
    mine = next(one for one in told["entries"] if one["file"] == entry["file"])
    mine |= {**json.loads(content["evidence.json"]), "sha256": portfolio._hash(buffer.getvalue())}
    resealed(folder, told)


@pytest.mark.parametrize(
    "new",
    [
        {"eps": 0.05},
        {"label": 11},
        {"verdict": "falsified"},
        {"subject": "smoothed(gaussian, 0.5)"},
        {"semantics": "float32-any-order"},
        {"guarantee": "rigorous"},
        {"guarantee": "numerical"},
        {"confidence": 0.9999, "subject": SUBJECT},
    ],
    ids=str,
)
@pytest.mark.parametrize("subject", ["network", SUBJECT])
def test_what_the_index_says_is_what_is_proved(
    run: Path, subject: str, new: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(e for e in index(run)["entries"] if (e["verdict"], e["subject"]) == ("verified", subject))

    def change(content: dict[str, bytes]) -> None:
        content["evidence.json"] = json.dumps(json.loads(content["evidence.json"]) | new).encode()

    if new.items() <= entry.items():
        pytest.skip("that is what it says")
    rewritten(run, entry, change)
    assert main(["check", "ev"]) == 20
    assert f"rejected: sample {entry['sample']} at eps" in capsys.readouterr().out


def test_a_box_may_cut_a_ball_at_the_ends_of_the_domain_alone() -> None:
    centre, radius, ends = [0.05, 0.5, 0.9], [0.1] * 3, ([0.0] * 3, [1.0] * 3)
    assert inputs.around(centre, radius, [0.0, 0.4, 0.8], [0.15, 0.6, 1.0], *ends)
    assert not inputs.around(centre, radius, [0.0, 0.45, 0.8], [0.15, 0.6, 1.0], *ends)
    assert not inputs.around(centre, radius, [0.05, 0.4, 0.8], [0.15, 0.6, 1.0], *ends)
    assert not inputs.around(centre, radius, centre, centre, *ends)


def test_a_box_that_is_narrow_along_an_input_is_no_ball() -> None:
    radius, ends = [0.1, 0.1, 0.0], ([0.0] * 3, [1.0] * 3)
    assert inputs.middle(radius, [0.0, 0.4, 0.5], [0.15, 0.6, 0.5], *ends)
    assert inputs.middle(radius, [0.0, 0.9, 0.5], [0.1, 1.0, 0.5], *ends)  # about the ends of the domain
    for low, high in (([0.0, 0.5], [0.15, 0.5]), ([0.3, 0.4], [0.45, 0.6]), ([0.0, 0.4], [0.05, 0.6])):
        assert inputs.middle(radius, [*low, 0.5], [*high, 0.5], *ends) is None


def resealed(folder: Path, told: dict[str, Any]) -> None:
    (folder / portfolio.INDEX).write_text(json.dumps(told | {"seal": portfolio.seal(told)}))


def test_entries_that_are_dropped_are_noticed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the seal of the index, by the zip that stays, and where both are mended by another seal than was told."""
    told = index(run)
    assert main(["check", "ev"]) == 0
    assert f"seal: {told['seal']}" in capsys.readouterr().out
    dropped = told["entries"].pop()
    (run / portfolio.INDEX).write_text(json.dumps(told))
    assert main(["check", "ev"]) == 20
    assert "index.json changed" in capsys.readouterr().out
    resealed(run, told)
    assert main(["check", "ev"]) == 20
    assert f"{dropped['file']} is not in the index" in capsys.readouterr().out
    (run / dropped["file"]).unlink()
    assert main(["check", "ev"]) == 20
    assert "index.html does not say what the index does" in capsys.readouterr().out
    for name, page in portfolio.pages(told).items():
        (run / name).write_bytes(page)
        told["sha256"][name] = portfolio._hash(page)
    resealed(run, told)
    assert main(["check", "ev"]) == 0
    assert f"seal: {told['seal']}" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["index.txt", "index.html"])
def test_pages_say_what_the_index_does(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that is changed, or left out, is told though its hash and the seal are mended; one of another version is
    said not to be compared."""
    told = index(run)
    text = (run / name).read_text()
    changed = text.replace("regions: linf, of 1.0 times eps", "regions: linf, of 2.0 times eps").encode()
    assert changed != text.encode()
    (run / name).write_bytes(changed)
    told["sha256"][name] = portfolio._hash(changed)
    resealed(run, told)
    assert main(["check", "ev"]) == 20
    assert f"rejected: {name} does not say what the index does" in capsys.readouterr().out
    other = {**told, "versions": {**told["versions"], "assay": "0.0"}}
    resealed(run, other)
    assert main(["check", "ev"]) == 0
    out = capsys.readouterr().out
    assert "note: index.txt, index.html, checker.py, " in out
    assert "written by assay 0.0, and this is assay" in out
    assert "regions: linf, of 1.0 times eps, in a domain of at least 0.0, at most 1.0" in out
    del told["sha256"][name]
    resealed(run, told)
    assert main(["check", "ev"]) == 40
    assert "is no folder of evidence" in capsys.readouterr().err


def remade(folder: Path, told: dict[str, Any]) -> None:
    """The pages, their hashes and the seal as they would be of such an index."""
    for name, page in portfolio.pages(told).items():
        (folder / name).write_bytes(page)
        told["sha256"][name] = portfolio._hash(page)
    resealed(folder, told)


def test_a_counterexample_is_within_the_radius_that_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = index(run)
    entry = next(e for e in told["entries"] if (e["verdict"], e["subject"]) == ("falsified", "network"))
    old, entry["eps"] = run / entry["file"], entry["eps"] / 8
    entry["file"] = portfolio._file(entry["sample"], entry["eps"], "network")
    with zipfile.ZipFile(old) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content["evidence.json"] = json.dumps(json.loads(content["evidence.json"]) | {"eps": entry["eps"]}).encode()
    with zipfile.ZipFile(run / entry["file"], "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    old.unlink()
    entry["sha256"] = portfolio._hash((run / entry["file"]).read_bytes())
    remade(run, told)
    assert main(["check", "ev"]) == 20
    assert "its box is not all that is within eps" in capsys.readouterr().out


def test_a_box_that_was_rounded_is_within_its_radius() -> None:
    assert inputs.within([0.1, 0.0], [0.1 - 0.1, 3.0], [0.1 + 0.1, 3.0])
    assert inputs.within([1e-20], [0.3], [math.nextafter(0.3, 1.0)])
    assert not inputs.within([0.1], [0.0], [0.2001])


def test_an_index_speaks_of_regions_that_there_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for new in ({"scale": -1.0}, {"domain": [1.0, 0.0]}):
        told = index(run)
        remade(run, told | new)
        assert main(["check", "ev"]) == 20
        assert "rejected: index.json speaks of regions that there are not" in capsys.readouterr().out
        remade(run, told)


def test_a_sample_has_a_number_that_there_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = load("digits", "test")
    entry = next(entry for entry in index(run)["entries"] if entry["sample"] == 0)
    assert inputs.another(entry, samples) is None
    for number in (-len(samples), len(samples), True, 0.0):
        assert "has only" in str(inputs.another(entry | {"sample": number}, samples))


def test_a_checker_that_is_another_one_is_noticed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = index(run)
    (run / "checker.py").write_text('print("unsat")')
    told["sha256"]["checker.py"] = portfolio._hash((run / "checker.py").read_bytes())
    remade(run, told)
    assert main(["check", "ev"]) == 20
    assert "rejected: checker.py is not the checker of assay" in capsys.readouterr().out


def test_scales_of_features_are_told_by_their_ends() -> None:
    told = portfolio.asked({"norm": "inf", "scale": [1.0, 0.5, 1.0], "domain": [0.0, [1.0, 2.0, 1.0]]})
    assert "of 0.5 to 1.0 (2 values on 3 features) times eps" in told
    assert "in a domain of at least 0.0, at most 1.0 to 2.0 (2 values on 3 features)" in told


def shifted(folder: Path, by: float, swap: bool = False, label: int = 0) -> str:
    """Digits with other numbers, or other places or labels, as a data set of one's own."""
    digits = load("digits").take(6)
    x, y = digits.x.numpy() * (1 - by), (digits.y.numpy() + label) % 10
    np.savez(folder / "own.npz", x=x[::-1].copy() if swap else x, y=y[::-1].copy() if swap else y)
    return "own.npz"


def test_the_evidence_is_held_against_the_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = index(run)["entries"][0]
    numbers = load("digits").x[0].numpy().astype("<f4").tobytes()
    assert entry["input"] == hashlib.sha256(numbers).hexdigest()
    assert entry["input"] in (run / "index.txt").read_text()
    with zipfile.ZipFile(run / entry["file"]) as file:
        assert json.loads(file.read("evidence.json"))["input"] == entry["input"]
    assert main(["check", "ev", "--data", "digits"]) == 0
    assert "samples: those of digits (test), by their numbers" in capsys.readouterr().out
    assert main(["check", "ev", "--data", shifted(run.parent, 0.0)]) == 0


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"by": 1e-6}, "it is not about sample 0 of own.npz"),
        ({"by": 0.0, "swap": True}, "it is not about sample 0 of own.npz"),
        ({"by": 0.0, "label": 1}, "the label is "),
    ],
    ids=["other numbers", "another order", "other labels"],
)
def test_samples_that_are_others_are_told(
    run: Path, how: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "ev", "--data", shifted(run.parent, **how)]) == 20
    assert f"rejected: sample 0 at eps 0.02: {why}" in capsys.readouterr().out


def test_a_certificate_is_about_the_sample_whatever_the_index_says(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of data that are a little different, with all hashes mended."""
    own = shifted(run.parent, 0.01)
    told, hashes = index(run), inputs.digests(load(own).x)
    for entry in told["entries"]:
        entry["input"] = hashes[entry["sample"]]
        with zipfile.ZipFile(run / entry["file"]) as file:
            content = {name: file.read(name) for name in file.namelist()}
        content["evidence.json"] = json.dumps(json.loads(content["evidence.json"]) | {"input": entry["input"]}).encode()
        with zipfile.ZipFile(run / entry["file"], "w") as file:
            for name, data in content.items():
                file.writestr(name, data)
        entry["sha256"] = portfolio._hash((run / entry["file"]).read_bytes())
    remade(run, told)
    assert main(["check", "ev"]) == 0
    capsys.readouterr()
    assert main(["check", "ev", "--data", own]) == 20
    lines = capsys.readouterr().out.splitlines()
    proved = [entry for entry in told["entries"] if not entry["proof"].startswith("none: ")]
    assert len(lines) == len(proved)
    assert {line.partition(": its ")[2] for line in lines} == {
        "box is about another point than the sample",
        "ball is about another point than the sample",
    }


def test_a_box_inside_of_a_radius_is_so_on_each_side() -> None:
    assert inputs.inside([0.1, 3.0], [0.1, 0.0], [0.1 - 0.1, 3.0], [0.1 + 0.1, 3.0])
    assert not inputs.inside([0.1], [0.1], [-0.01], [0.1])
    assert not inputs.inside([0.1], [0.1], [0.1], [0.21])


def test_data_are_for_the_evidence_of_a_comparison(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, more in ((run / "index.txt", ["--data", "digits"]), (run.parent, ["--data-dir", "."])):
        assert main(["check", str(path), *more]) == 40
        assert "are for the evidence of a comparison" in capsys.readouterr().err
    assert main(["check", "ev", "--data", "digit"]) == 40


def test_a_folder_of_another_model_is_not_gone_on_with(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "model.onnx").write_bytes((run / "model.onnx").read_bytes() + b" ")
    assert main(arguments("--resume")) == 40
    assert "model.onnx in 'ev' changed" in capsys.readouterr().err


def test_the_certificate_of_another_sample_is_rejected(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one with another label, with its property."""
    proved = [e for e in index(run)["entries"] if e["verdict"] == "verified" and e["subject"] == "network"]
    first = proved[0]
    other = next(entry for entry in proved if entry["label"] != first["label"])
    with zipfile.ZipFile(run / other["file"]) as file:
        swapped = {name: file.read(name) for name in file.namelist() if name != "evidence.json"}
    rewritten(run, first, lambda content: content.update(swapped))
    assert main(["check", "ev"]) == 20
    assert f"it is not about the label {first['label']}" in capsys.readouterr().out
    rewritten(run, other, lambda content: content.pop("certificate.zip") and None)
    assert main(["check", "ev"]) == 20
    assert "there is no certificate" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.onnx", *CHECKERS, "index.txt", "index.html"])
def test_changed_files_are_told(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).write_bytes((run / name).read_bytes() + b" ")
    assert main(["check", "ev"]) == 20
    assert f"rejected: {name} changed" in capsys.readouterr().out


def test_bad_folders_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = index(run)
    for wrong in (told | {"format": "other"}, told | {"sha256": {"../net.zip": ""}}, []):
        (run / portfolio.INDEX).write_text(json.dumps(wrong))
        assert main(["check", "ev"]) == 40
        assert "is no folder of evidence" in capsys.readouterr().err
    (run / "mine.txt").write_text("")
    assert main(arguments()) == 40
    assert "holds something else" in capsys.readouterr().err
    assert main(["compare", "--model", MODEL, "--radius", "--evidence", "new"]) == 40
    assert "take --eps and not --radius" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_side_by_side_write_the_same(run: Path) -> None:
    before = {entry["file"]: entry["verdict"] for entry in index(run)["entries"]}
    for path in run.glob("*"):
        path.unlink()
    assert main(arguments("--workers", "2")) == 0
    assert {entry["file"]: entry["verdict"] for entry in index(run)["entries"]} == before
    assert main(["check", "ev"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("norm", few(("1", "2"), ("2",)))
def test_balls_are_told_as_balls(run: Path, norm: str) -> None:
    for path in run.glob("*"):
        path.unlink()
    assert main(arguments(eps="0.02", methods="crown,lipschitz", norm=norm)) == 0
    verified = [entry for entry in index(run)["entries"] if entry["verdict"] == "verified"]
    assert verified
    assert {entry["guarantee"] for entry in verified} == {"rigorous"}
    with zipfile.ZipFile(run / verified[0]["file"]) as file:
        _, _, ball = norms.asked((run / "model.onnx").read_bytes(), file.read("property.json"))
        assert ball.radius == 0.02
    assert main(["check", "ev", "--data", "digits"]) == 0
    remade(run, index(run) | {"scale": 100.0})
    assert main(["check", "ev"]) == 20
