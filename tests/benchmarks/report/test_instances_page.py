"""The page on a run over instances, and the run read back out of its store."""

import sqlite3

import pytest

from assay.benchmarks.harness import instances, suite
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.report import instances_page, instances_run
from assay.benchmarks.report.competition import Peers, read_peers
from assay.benchmarks.report.instances_page import render
from assay.verify.core.errors import InputError
from tests.benchmarks import instance_files
from tests.benchmarks.report.html_checks import read

PEERS = """benchmark,onnx,vnnlib,tool,year,verdict,seconds
tiny,net.onnx,vnnlib/safe.vnnlib,<i>peer</i>,2024,unsat,1.5
tiny,net.onnx,vnnlib/broken.vnnlib,<i>peer</i>,2024,timeout,20
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A finished run with one wrong expectation, and peers."""
    folder = tmp_path_factory.mktemp("run")
    instance_files.suite(folder)
    (folder / "peers.csv").write_text(PEERS)
    listed = instances.find(folder)
    expected = {listed[0].name: "sat"}
    peers = read_peers(folder / "peers.csv", listed, expected)
    path = folder / "b.sqlite"
    with Store(path) as opened:
        opened.begin("assay bench '<x>'", "auto", str(folder))
        outcome = suite.run(listed, "auto", opened, expected=expected)
        instances_run.keep(opened, "auto", suite.Limits(), outcome, peers)
    return path, outcome, peers


def test_the_run_comes_back(store):
    path, outcome, peers = store
    with Store(path) as opened:
        run = instances_run.read(opened)
    assert [row.to_json() for row in run.outcome.rows] == [row.to_json() for row in outcome.rows]
    assert [row.instance for row in run.outcome.rows] == [row.instance for row in outcome.rows]
    assert run.outcome.contradictions == outcome.contradictions
    assert run.peers.standings == peers.standings
    assert run.peers.seconds == peers.seconds
    assert all(result is not None for result in run.results)
    assert (run.method, run.command, run.unknown) == ("auto", "assay bench '<x>'", ())


def test_the_page_has_contradictions_peers_and_stages(store):
    with Store(store[0]) as opened:
        page = read(render(instances_run.read(opened)))
    assert "1 soundness alarm" in page.text
    assert "unsat, but sat is expected" in page.text
    assert "<i>peer</i> 2024" in page.text
    assert "assay bench '<x>'" in page.text
    assert "FGSM:" in page.text.replace(" :", ":")
    assert any(a["title"].startswith("FGSM(") for a in page.all("abbr"))
    assert "falsified" in page.text
    words = [a["data-word"] for tag, a in page.elements if tag == "tr" and "data-word" in a]
    assert words == ["unsat", "sat", "sat", "unsat"]


def test_a_stage_tells_how_far_its_tree_came():
    (step,) = instances_page._course(
        {"tried": [{"stage": "BaB(batch=2)", "outcome": "timeout", "margin": -0.5, "seconds": 1.0, "closed": 0.25}]}
    )
    assert (step["stage"], step["options"], step["progress"]) == ("BaB", "BaB(batch=2)", [("closed", 0.25)])


def test_a_run_that_was_cut_short_is_shown_as_far_as_it_went(store, tmp_path):
    copy = tmp_path / "b.sqlite"
    with sqlite3.connect(store[0]) as db, sqlite3.connect(copy) as target:
        db.backup(target)
        target.execute("DROP TABLE described")
        target.execute("DELETE FROM results WHERE verdict = 'verified'")
        target.commit()
    db.close()
    target.close()
    with Store(copy) as opened:
        run = instances_run.read(opened)
    assert [row.word for row in run.outcome.rows] == ["sat", "sat"]
    assert run.peers == Peers()
    assert "did not come to its end" in read(render(run)).text


def test_what_is_no_run_over_instances_is_refused(tmp_path):
    with Store(tmp_path / "s") as opened:
        with pytest.raises(InputError, match="no run over instances"):
            instances_run.read(opened)
        opened.begin("c", "m", "d")
        with pytest.raises(InputError, match="no run 1 over instances"):
            instances_run.read(opened, 1)
        opened.noted.describe(opened.run, instances_run.INSTANCES, "{}")
        with pytest.raises(InputError, match="run 1 cannot be read"):
            instances_run.read(opened)
