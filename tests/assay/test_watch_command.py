"""``assay watch``: a run that has ended is told once; what is no store is refused."""

import pytest

from assay.__main__ import main


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    common = ["--model", "zoo:digits-mlp-pgd", "--n", "4", "--methods", "ibp", "--attacks", "fgsm", "--quiet"]
    assert main(["compare", *common, "--eps", "0.02", "--out", str(folder)]) == 0
    assert main(["compare", *common, "--radius", "--out", str(folder)]) == 0
    return str(folder / "results.sqlite")


@pytest.mark.parametrize("more", [[], ["--once"]])
def test_a_run_that_has_ended_is_told_once(store, more, capsys):
    assert main(["watch", store, "--run", "1", *more]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "run 1: 6 of 6 (100%)" in out
    assert "all methods" in out
    assert main(["watch", store, *more]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "run 2: 6 of 6 (100%)" in out
    assert "tightness" in out
    assert "4 samples" in out  # the misclassified one too, as compare counts


def test_bad_input(store, tmp_path, capsys):
    assert main(["watch", str(tmp_path / "none.sqlite")]) == 40
    assert "there is no file" in capsys.readouterr().err
    assert main(["watch", store, "--run", "9"]) == 40
    assert main(["watch", store, "--every", "0"]) == 40
