"""``assay report``, ``compare --report`` and ``bench --report``: the pages, and how they fail."""

import pytest

from assay.__main__ import main
from assay.benchmarks.harness.records.store import Store
from assay.verify import registry
from tests.assay.test_compare_command import MODEL, Certain, arguments
from tests.benchmarks import instance_files
from tests.benchmarks.report.html_checks import read


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.VERIFIERS, "certain", f"{Certain.__module__}:Certain")
    (tmp_path / "net.py").write_text(MODEL)
    return "net.py:net"


def test_a_comparison_ends_with_a_page_and_the_store_gives_it_again(model, tmp_path, capsys):
    assert main([*arguments(model, n="6"), "--report", "page.html"]) == 0
    assert "out/bracket.png, page.html" in capsys.readouterr().out
    first = (tmp_path / "page.html").read_text()
    assert "net.py:net" in read(first).text
    assert main(["report", "out/results.sqlite", "-o", "again.html"]) == 0
    assert capsys.readouterr().out == "wrote again.html\n"
    assert (tmp_path / "again.html").read_text() == first
    assert main(["report", "out/results.sqlite"]) == 0
    assert (tmp_path / "out" / "results.html").read_text() == first


@pytest.mark.slow
def test_every_verdict_of_a_store_and_their_totals(model, tmp_path, capsys):
    assert main(arguments(model, n="6")) == 0
    for of in ("verdicts", "totals"):
        assert main(["report", "out/results.sqlite", "--format", "csv", "--of", of, "-o", f"{of}.csv"]) == 0
    verdicts, totals = ((tmp_path / f"{of}.csv").read_text().splitlines() for of in ("verdicts", "totals"))
    with Store("out/results.sqlite") as store:
        assert len(verdicts) == 1 + len(store.read()[0])
        assert len(totals) == 1 + len(store.totals()) > 1
    assert main(["report", "out/results.sqlite", "--of", "totals"]) == 40
    assert main(["report", "out/results.sqlite", "--format", "csv", "--of", "nothing"]) == 40
    assert main(["report", "out/results.sqlite", "--format", "latex", "--of", "verdicts"]) == 40
    capsys.readouterr()


@pytest.mark.slow
def test_an_alarm_has_its_page_and_its_exit_code(model, tmp_path, capsys):
    asked = arguments(model, n="6", eps="0.5", methods="certain(lies=true)")
    assert main([*asked, "--report", "page.html"]) == 70
    assert "soundness alarm" in read((tmp_path / "page.html").read_text()).text
    capsys.readouterr()


@pytest.mark.slow
def test_instances_have_their_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    instance_files.suite(tmp_path / "all")
    assert main(["bench", "all", "--report", "page.html", "--workers", "1", "-q"]) == 0
    assert "page.html" in capsys.readouterr().out
    first = (tmp_path / "page.html").read_text()
    assert "auto on 4 instances" in read(first).text
    assert main(["report", "bench.sqlite", "-o", "again.html"]) == 0
    assert (tmp_path / "again.html").read_text() == first


def test_what_cannot_be_reported_is_refused(model, tmp_path, capsys):
    assert main(["report", "nothing.sqlite"]) == 40
    assert "there is no file 'nothing.sqlite'" in capsys.readouterr().err
    assert not (tmp_path / "nothing.sqlite").exists()
    Store("empty.sqlite").close()
    assert main(["report", "empty.sqlite"]) == 40
    assert "has no comparison in it" in capsys.readouterr().err
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be looked at " * 20)
    assert main(["report", "text.sqlite"]) == 40
    assert main(["report", "empty.sqlite", "-o", "no/folder/page.html"]) == 40
    assert "no folder" in capsys.readouterr().err
    assert main([*arguments(model), "--report", "no/folder/page.html"]) == 40


@pytest.mark.slow
def test_tables_and_pictures_to_publish(model, tmp_path, capsys):
    assert main(arguments(model, n="6")) == 0
    for form, name in (("csv", "csv"), ("latex", "tex"), ("markdown", "md"), ("json", "json")):
        assert main(["report", "out/results.sqlite", "--format", form]) == 0
        assert "fgsm" in (tmp_path / "out" / f"results.{name}").read_text()
    assert main(["report", "out/results.sqlite", "--format", "robustbench"]) == 0
    assert '"clean_acc": "' in (tmp_path / "out" / "results.robustbench.json").read_text()
    capsys.readouterr()
    assert main(["report", "out/results.sqlite", "--format", "word"]) == 40
    assert "unknown format 'word'" in capsys.readouterr().err
    assert main(["report", "out/results.sqlite", "-o", "t.csv", "--format", "csv", "--figures", "plots"]) == 0
    assert "plots/bracket.svg" in capsys.readouterr().out
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert {"bracket.svg", "bracket.pdf", "radii.svg", "radii.pdf"} <= set(drawn)
    assert all(b"<svg" in data if name.endswith("svg") else data.startswith(b"%PDF") for name, data in drawn.items())
    assert main(["report", "out/results.sqlite", "-o", "t.csv", "--format", "csv", "--figures", "plots"]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()} == drawn
    capsys.readouterr()
    assert main(["cite", "--store", "out/results.sqlite"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("@misc{goodfellow2015explaining,")
    assert err == "assay: no publication is known of certain\n"
