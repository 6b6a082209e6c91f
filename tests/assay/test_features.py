"""Values for each channel or feature: how they are written, which inputs they fit, and what commands make of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay import features
from assay.__main__ import main
from assay.models.data import load
from assay.verify.core.errors import InputError
from tests.assay.test_options import MODEL
from tests.breadth import few

IMAGE = (3, 4, 5)


@pytest.mark.parametrize(
    ("values", "shape", "fitted"),
    [
        (torch.arange(3.0), IMAGE, (3, 1, 1)),
        (torch.arange(60.0), IMAGE, IMAGE),
        (torch.ones(3, 1, 1), IMAGE, (3, 1, 1)),
        (torch.ones(1, 4, 5), IMAGE, (1, 4, 5)),
        (torch.arange(7.0), (7,), (7,)),
    ],
)
def test_values_of_channels_and_of_features(values, shape, fitted):
    tensor = features.fitting("--eps-scale", values, shape)
    assert tensor.shape == fitted
    assert tensor.flatten().tolist() == values.flatten().tolist()
    assert tensor.expand(shape).shape == shape


@pytest.mark.parametrize(
    ("values", "shape", "words"),
    [
        (
            torch.ones(2),
            IMAGE,
            r"expected 3 values \(channels\) or 60 \(features\), .* \(3, 4, 5\), got 2",
        ),
        (torch.ones(5), IMAGE, "got 5"),
        (torch.ones(4, 5), IMAGE, r"got an array of shape \(4, 5\)"),
        (torch.ones(2, 1, 1), IMAGE, r"got an array of shape \(2, 1, 1\)"),
        (torch.ones(6), (7,), r"expected 7 values, or an array that broadcasts to \(7,\), got 6"),
    ],
)
def test_what_does_not_fit_is_told_with_the_shapes(values, shape, words):
    with pytest.raises(InputError, match=words):
        features.fitting("--eps-scale", values, shape)


def test_numbers_and_files_say_the_same(tmp_path):
    path = str(tmp_path / "s.npy")
    np.save(path, np.array([1.0, 0.2, 8 / 255]))
    assert torch.equal(features.scale("1, 0.2,8/255", IMAGE), features.scale(path, IMAGE))
    np.save(path, np.array([[-1, 0, 0.5], [1, 2, 4]]))
    for ends in (features.limits("-1:1,0:2,0.5:4"), features.limits(path)):
        assert [end.tolist() for end in ends] == [[-1, 0, 0.5], [1, 2, 4]]
    assert [end.tolist() for end in features.limits("-1,1/2")] == [-1, 0.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,x", "--eps-scale: expected numbers with commas"),
        ("1,-1,1", "--eps-scale: expected finite numbers >= 0"),
        ("1,inf,1", "--eps-scale: expected finite numbers >= 0"),
        ("none.npy", "--eps-scale: cannot read 'none.npy': No such file"),
        ("text.npy", "--eps-scale: cannot read 'text.npy'"),
        ("words.npy", "--eps-scale: expected an array of numbers in 'words.npy'"),
    ],
)
def test_what_is_no_scale(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("1,2,3")
    np.save("words.npy", np.array(["a", "b"]))
    with pytest.raises(InputError, match=words):
        features.scale(text, IMAGE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0:1,2", "expected LO:HI for each channel or feature"),
        ("0:1:2", "expected LO:HI for each channel or feature"),
        ("0:1,2:x", "expected numbers with commas"),
        ("0:1,2:2", "the lower one first"),
        ("0:1,-inf:2", "two finite numbers"),
        ("flat.npy", r"expected an array of shape \(2, ...\), lower and upper ends, got \(3,\)"),
    ],
)
def test_what_is_no_domain(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.ones(3))
    with pytest.raises(InputError, match=words):
        features.limits(text)


# Commands. The class of ``line`` is told by x0 - x1: a sample breaks where eps * (s0 + s1) reaches the difference.

DIFFERENCES = [0.5, 0.5, 2.0, 1.0]


@pytest.fixture
def usual(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    x = np.array([[0.5, 0.0], [-0.25, -0.75], [-1.0, 1.0], [-0.5, 0.5]], dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.array([1, 1, 0, 0]))
    return ["--model", "net.py:line", "--data", "data.npz", "--domain", "-9,9"]


def asked(capsys, command, *arguments):
    assert main([command, *arguments, "--quiet", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("scale", few(["1,0", "1,3", "0.25,0.5"], quick=["1,3"]))
def test_eps_is_scaled_in_all_commands(usual, capsys, scale):
    first, second = (float(part) for part in scale.split(","))
    given = [*usual, "--eps-scale", scale]
    eps = [0.9 * d / (first + second) for d in DIFFERENCES[:1]] + [1.1 * d / (first + second) for d in DIFFERENCES[:1]]
    radii = ",".join(map(str, eps))
    want = [sum(d > e * (first + second) for d in DIFFERENCES) for e in eps]
    told = asked(capsys, "compare", *given, "--eps", radii, "--methods", "crown,milp", "--attacks", "fgsm,pgd")
    assert told["eps_scale"] == [first, second]
    rows = {(row.get("method") or row.get("attack"), row["eps"]): row for row in told["rows"]}
    for e, right in zip(eps, want, strict=True):
        assert rows["crown", e]["verified"] == rows["milp", e]["verified"] == right
        assert rows["fgsm", e]["falsified"] == rows["pgd", e]["falsified"] == 4 - right
    told = asked(capsys, "attack", *given, "--eps", radii, "--attacks", "pgd,apgd-ce(steps=30),square(queries=100)")
    assert told["eps_scale"] == [first, second]
    assert {(row["eps"], row["falsified"]) for row in told["rows"]} == {
        (e, 4 - n) for e, n in zip(eps, want, strict=True)
    }
    told = asked(capsys, "radius", *given, "--n", "2", "--method", "crown", "--tolerance", "1e-3")
    assert told["eps_scale"] == [first, second]
    for sample, difference in zip(told["samples"], DIFFERENCES[:2], strict=True):
        true = difference / (first + second)
        assert sample["certified"] <= true <= sample["attacked"] <= sample["certified"] + 4e-3


@pytest.mark.slow
def test_each_feature_has_its_own_domain(usual, capsys):
    """x1 is at most what it is: only x0 moves up, and down as far as -1."""
    limits = "-1:1,-1:1"
    plain = asked(capsys, "compare", *usual[:-1], "-1,1", "--eps", "0.3", "--methods", "crown", "--attacks", "pgd")
    same = asked(capsys, "compare", *usual[:-1], limits, "--eps", "0.3", "--methods", "crown", "--attacks", "pgd")
    assert (plain["domain"], same["domain"]) == ([-1, 1], [[-1, -1], [1, 1]])
    drop = ("seconds", "time")
    assert [{k: v for k, v in row.items() if k not in drop} for row in plain["rows"]] == [
        {k: v for k, v in row.items() if k not in drop} for row in same["rows"]
    ]
    # Sample 0 is (0.5, 0): to break it x0 falls to x1, which may rise to 0.125 alone.
    narrow = [*usual[:-1], "-1:1,-1:1", "--eps", "0.26"]
    wide = asked(capsys, "attack", *narrow, "--n", "1", "--attacks", "pgd")
    assert [row["falsified"] for row in wide["rows"]] == [1, 1]
    narrow[5] = "-1:1,-1:0.125"
    assert main(["attack", *narrow, "--n", "1", "--attacks", "pgd", "--quiet", "--json"]) == 40
    assert "expected values within the domain of each feature, got 1 in sample 2 at (1,)" in capsys.readouterr().err
    x = np.array([[0.5, 0.0]], dtype=np.float32)
    np.savez("data.npz", x=x, y=np.array([1]))
    held = asked(capsys, "attack", *narrow, "--attacks", "pgd")
    assert [row["falsified"] for row in held["rows"]] == [0, 0]
    assert held["domain"] == [[-1, -1], [1, 0.125]]
    told = asked(capsys, "radius", *narrow[:6], "--method", "crown")
    assert told["samples"][0]["certified"] == pytest.approx(0.375, abs=2e-3)


def test_channels_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "zoo:digits-mlp-pgd", "--eps", "0.1", "--eps-scale", "0.5", "--json"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert main(["inspect", "zoo:digits-mlp-pgd", "--eps", "0.05", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert (half["eps"], half["eps_scale"], whole["eps"], whole["eps_scale"]) == (0.1, 0.5, 0.05, None)
    assert half["unstable"] == whole["unstable"]
    np.save("scale.npy", np.linspace(0, 1, 64).reshape(1, 8, 8))
    assert main(["inspect", "zoo:digits-mlp-pgd", "--eps", "0.1", "--eps-scale", "scale.npy", "--json"]) == 0
    each = json.loads(capsys.readouterr().out)
    assert len(each["eps_scale"]) == len(each["eps_scale"][0]) == 8
    assert each["unstable"] < json.loads(json.dumps(whole))["activations"]


@pytest.mark.parametrize("norm", ["1", "2"])
def test_other_norms_have_one_eps(usual, capsys, norm):
    given = ["compare", *usual, "--eps", "0.1", "--eps-scale", "1,2", "--norm", norm]
    assert main(given) == 40
    assert "has no eps for each feature" in capsys.readouterr().err


def test_data_sets_of_python_take_the_same():
    data = load("digits").take(5)
    scaled = replace(data, eps_scale=torch.full((1, 1, 1), 0.25))
    assert scaled.radius(0.4).item() == pytest.approx(0.1)
    assert data.radius(0.4) == 0.4
    with pytest.raises(InputError, match="within the domain of each feature"):
        replace(data, limits=(torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.5)))


@pytest.mark.slow
def test_a_file_of_radii_is_a_scale_of_one(tmp_path, capsys):
    radii = np.zeros((1, 8, 8))
    radii[0, :4] = 0.05
    np.save(tmp_path / "radii.npy", radii)
    asked = ["compare", "--model", "zoo:digits-mlp-pgd", "--n", "2", "--methods", "ibp", "--attacks", "fgsm", "--quiet"]
    asked += ["--out", str(tmp_path), "--json"]
    rows = []
    for given in (["--eps", str(tmp_path / "radii.npy")], ["--eps", "1", "--eps-scale", str(tmp_path / "radii.npy")]):
        assert main([*asked, *given]) == 0
        rows.append([{**row, "seconds": 0} for row in json.loads(capsys.readouterr().out)["rows"]])
    assert rows[0] == rows[1]
    both = ["--eps", str(tmp_path / "radii.npy"), "--eps-scale", "1"]
    assert main([*asked, *both]) == 40
    assert "leave out --eps-scale" in capsys.readouterr().out
