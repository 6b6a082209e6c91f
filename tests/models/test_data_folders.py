"""Where data sets are looked for: the order of the places, and the message if they are in none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assay.__main__ import main
from assay.models import data
from assay.models.data import folders, mnist
from assay.verify.core.errors import InputError
from tests.models.test_data_idx import idx, images, labels, write


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The roots of this test alone: the folder that is passed, $ASSAY_DATA, the distribution's, the cache."""
    paths = {key: tmp_path / key for key in ("passed", "variable", "system", "cache")}
    for path in paths.values():
        path.mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(paths["variable"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(paths["cache"]))
    monkeypatch.setattr(mnist, "FASHION", replace(mnist.FASHION, system=paths["system"]))
    return paths


def fill(folder: Path, n: int) -> None:
    write(folder, idx(images(n)), idx(labels(n)))


def test_the_order_is_variable_system_cache(places: dict[str, Path]) -> None:
    fill(places["cache"] / "assay/data/fashion-mnist", 3)
    assert len(data.load("fashion-mnist")) == 3
    fill(places["system"], 4)
    assert len(data.load("fashion-mnist")) == 4
    fill(places["variable"], 5)
    assert len(data.load("fashion-mnist")) == 5
    fill(places["passed"], 6)
    assert len(data.load("fashion-mnist")) == 5
    assert len(data.load("fashion-mnist", folder=places["passed"])) == 6


@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_a_root_can_hold_the_files_or_the_folder_of_the_set(places: dict[str, Path], below: str) -> None:
    fill(places["passed"] / below, 3)
    fill(places["variable"] / below, 4)
    assert len(data.load("fashion-mnist", folder=str(places["passed"]))) == 3
    assert len(data.load("fashion-mnist")) == 4


def test_the_set_of_ones_own_name_comes_before_the_root(places: dict[str, Path]) -> None:
    fill(places["variable"], 3)
    fill(places["variable"] / "mnist", 4)
    assert len(data.load("mnist")) == 4
    assert len(data.load("fashion-mnist")) == 3


def test_a_folder_that_is_passed_is_the_only_one(places: dict[str, Path]) -> None:
    fill(places["system"], 4)
    with pytest.raises(InputError, match=r"found no .*t10k-images-idx3-ubyte\.gz.* in .*passed") as caught:
        data.load("fashion-mnist", folder=places["passed"])
    assert "system," not in str(caught.value)
    assert "another --data-dir" in str(caught.value)


def test_the_first_images_come_along(places: dict[str, Path]) -> None:
    test = data.load("fashion-mnist")
    assert test.x.shape == (500, 1, 28, 28)
    assert tuple(test.y[:10].tolist()) == mnist.FIRST_LABELS["fashion-mnist", "test"]
    assert len(test.take(500)) == 500


def ask_for_more() -> None:
    data.load("fashion-mnist").take(501)


def ask_for_a_step() -> None:
    data.load("fashion-mnist").indices(500, 20)


def ask_to_train() -> None:
    data.load("fashion-mnist", "train")


@pytest.mark.parametrize(
    ("ask", "part", "said"),
    [
        (
            ask_for_more,
            "t10k",
            "from 1 to 500 samples of fashion-mnist (test), got n = 501; the first 500 come",
        ),
        (
            ask_for_a_step,
            "t10k",
            "from 1 to 25 samples (500, every 20th) of fashion-mnist (test), got n = 500; ",
        ),
        (ask_to_train, "train", "fashion-mnist: found no train-images"),
    ],
)
def test_the_message_says_what_was_looked_for_where_and_how_to_get_it(
    places: dict[str, Path], ask: Callable[[], None], part: str, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    message = str(caught.value)
    assert "\n" not in message
    expected = [
        said,
        f"found no {part}-images-idx3-ubyte or {part}-images-idx3-ubyte.gz, {part}-labels-idx1-ubyte",
        str(places["variable"] / "FashionMNIST/raw"),
        str(places["system"]),
        str(places["cache"] / "assay/data/fashion-mnist"),
        "--data-dir",
        "$ASSAY_DATA",
        "Debian package dataset-fashion-mnist",
        "data.download('fashion-mnist')",
    ]
    assert [part for part in expected if part not in message] == []


def test_half_a_set_is_not_passed_over(places: dict[str, Path]) -> None:
    fill(places["system"], 4)
    fill(places["variable"], 5)
    (places["variable"] / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"variable has t10k-images-idx3-ubyte but lacks t10k-labels-idx1-ubyte or"):
        data.load("fashion-mnist")


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    for name in ("digits", "mnist", "mine.npz"):
        with pytest.raises(InputError, match=r"there is no folder '.*nowhere'"):
            data.load(name, folder=tmp_path / "nowhere")


def test_a_folder_with_the_name_of_a_file_is_no_file(places: dict[str, Path]) -> None:
    (places["passed"] / "t10k-images-idx3-ubyte").mkdir()
    with pytest.raises(InputError, match="found no"):
        data.load("mnist", folder=places["passed"])


def test_the_home_folder_is_expanded(places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(folders.VARIABLE, "~/variable")
    fill(places["variable"], 5)
    assert len(data.load("mnist")) == 5
    assert len(data.load("mnist", folder="~/variable")) == 5
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folders.cache() == tmp_path / ".cache/assay/data"


def test_compare_takes_the_folder(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(places["cache"])
    Path("net.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()\n"
    )
    options = ["--model", "net.py:net", "--eps", "0.01", "--methods", "ibp", "--attacks", "", "--n", "5"]
    command = ["compare", *options, "--data", "mnist", "--data-dir", str(places["passed"])]
    assert main(command) == 40
    assert "mnist: found no t10k-images-idx3-ubyte" in capsys.readouterr().err
    fill(places["passed"], 6)
    assert main(command) == 0
    assert "5 samples" in capsys.readouterr().out
