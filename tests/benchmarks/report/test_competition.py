"""Lists of instances, expected verdicts, peers' results, the table and the plot."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from assay.benchmarks.harness import instances
from assay.benchmarks.harness.answer import Word
from assay.benchmarks.harness.instances import Instance
from assay.benchmarks.harness.suite import Outcome, Row
from assay.benchmarks.report import cactus_figure, competition
from assay.benchmarks.report.competition import Peers, read_expected, read_peers, standings
from assay.verify.core.errors import InputError

PEERS = """benchmark,onnx,vnnlib,tool,verdict,seconds,year
b,n.onnx,p0.vnnlib,fast,sat,1.0,2022
b,n.onnx,p1.vnnlib,fast,unsat,3.0,2022
b,n.onnx,p2.vnnlib,fast,unsat,5.0,2022
b,n.onnx,p0.vnnlib,fast,sat,0.5,2023
b,n.onnx,p1.vnnlib,fast,timeout,60,2023
b,n.onnx,p0.vnnlib,slow,unknown,,2022
b,n.onnx,p9.vnnlib,slow,sat,2.0,2022
"""
SUMMARY = (
    "benchmark,year,tool,n,sat,unsat,wrong_unsat,solved,mean_seconds_solved,median_seconds_solved,timeout,unknown,"
    "error_or_none\nb,2022,fast,3,1,1,1,2,2.0,2.0,0,0,0\nother,2022,fast,9,9,0,0,9,1,1,0,0,0\n"
)


def instance(i, benchmark="b"):
    return Instance(benchmark, "n.onnx", f"p{i}.vnnlib", 60.0, Path("b"))


def row(i, word, seconds=1.0, expected=None, code=0):
    return Row(instance(i), Word(word), code, seconds, "", expected)


def outcome(*rows, contradictions=()):
    return Outcome(tuple(rows), tuple(contradictions), 0, 1.0)


def written(path, text):
    path.write_text(text)
    return path


def test_instances_are_read_in_the_order_of_their_lists(tmp_path):
    for name, lines in {"b": "onnx/n.onnx.gz, v/p.vnnlib,30\n\n./onnx/m.onnx,v/q.vnnlib,5.5\n", "a": "n,p,1"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "instances.csv").write_text(lines)
    (tmp_path / "no benchmark").mkdir()
    listed = instances.find(tmp_path, most=10)
    assert [(i.benchmark, i.onnx, i.vnnlib, i.seconds) for i in listed] == [
        ("a", "n", "p", 1.0),
        ("b", "onnx/n.onnx", "v/p.vnnlib", 10.0),
        ("b", "./onnx/m.onnx", "v/q.vnnlib", 5.5),
    ]
    assert listed[2].name == ("b", "onnx/m.onnx", "v/q.vnnlib")
    assert [i.benchmark for i in instances.find(tmp_path, ["b", "a"])] == ["b", "b", "a"]
    assert [i.benchmark for i in instances.find(tmp_path / "b")] == ["b", "b"]


@pytest.mark.parametrize("line", ["a,b", "a,b,c", "a,b,0", "a,b,nan", "a,b,inf", ",b,1", "a,b,1,2", 'a,"b,1'])
def test_a_line_that_is_no_instance_is_named(tmp_path, line):
    (tmp_path / "instances.csv").write_text(f"n,p,1\n{line}\n")
    with pytest.raises(InputError, match=r"instances\.csv"):
        instances.find(tmp_path)


def test_links_to_folders_of_one_name_are_two_benchmarks(tmp_path):
    for home in ("x", "y"):
        (tmp_path / home / "tiny").mkdir(parents=True)
        (tmp_path / home / "tiny" / "instances.csv").write_text(f"{home}.onnx,p,1\n")
        (tmp_path / "all" / home).parent.mkdir(exist_ok=True)
        (tmp_path / "all" / home).symlink_to(tmp_path / home / "tiny")
    assert [(i.benchmark, i.onnx) for i in instances.find(tmp_path / "all")] == [("x", "x.onnx"), ("y", "y.onnx")]
    (one,), (other,) = (instances.find(tmp_path / home / "tiny") for home in ("x", "y"))
    assert one.benchmark == other.benchmark == "tiny"
    (linked,) = instances.find(tmp_path / "all" / "x")
    assert (linked.benchmark, linked.place) == ("x", one.place)
    assert one.place[0] != other.place[0]


def test_the_hash_is_that_of_the_content(tmp_path):
    for name in "xyp":
        (tmp_path / name).write_text(name)
    content = instances.hasher()

    def of(net, prop):
        return content(Instance("b", net, prop, 1.0, tmp_path))

    assert len({of("x", "p"), of("y", "p"), of("x", "y")}) == 3
    assert of("x", "p") == instances.hasher()(Instance("c", "./x", "p", 2.0, tmp_path))
    for net, prop in (("x", "z"), ("z", "p")):
        with pytest.raises(InputError, match="there is no file"):
            of(net, prop)


def test_expected_verdicts_are_found_however_paths_are_written(tmp_path):
    text = "vnnlib,source,onnx,benchmark,verdict\n./p0.vnnlib,x,n.onnx.gz,b,sat\np1.vnnlib,x,n.onnx,b,conflict\n"
    verdicts = read_expected(written(tmp_path / "e.csv", text))
    assert [verdicts[instance(i).name] for i in range(2)] == ["sat", "conflict"]


@pytest.mark.parametrize(
    ("verdict", "expected", "contradicts"),
    [
        ("sat", "unsat", True),
        ("unsat", "sat", True),
        ("sat", "sat", False),
        *((verdict, expected, False) for verdict in ("sat", "unsat") for expected in ("unknown", "conflict", None)),
        *((verdict, expected, False) for verdict in ("unknown", "timeout", "error") for expected in ("sat", "unsat")),
    ],
)
def test_only_decided_verdicts_contradict(verdict, expected, contradicts):
    assert row(0, verdict, expected=expected).contradicts == contradicts


@pytest.mark.parametrize(
    ("codes", "contradictions", "worst"),
    [
        ([0, 10, 20, 30], (), 0),
        ([0, 60], (), 60),
        ([60, 50], (), 50),
        ([50, 70], (), 70),
        ([10], ("x",), 70),
        ([10, 40], ("x",), 40),
    ],
)
def test_the_worst_row_decides_the_exit_code(codes, contradictions, worst):
    rows = [row(i, "unknown", code=code) for i, code in enumerate(codes)]
    assert outcome(*rows, contradictions=contradictions).exit_code == worst


def test_standings_count_what_was_said():
    rows = [row(0, "sat", 1.0), row(1, "unsat", 3.0), row(2, "unsat", 9.0, "sat"), row(3, "timeout"), row(4, "error")]
    (standing,) = standings(outcome(*rows))
    assert (standing.n, standing.solved, standing.sat, standing.unsat, standing.wrong) == (5, 2, 1, 1, 1)
    assert (standing.unknown, standing.timeout, standing.error) == (0, 1, 1)
    assert (standing.mean, standing.median) == (2.0, 2.0)
    (empty,) = standings(outcome(row(0, "unknown")))
    assert (empty.solved, empty.mean) == (0, None)


def test_peers_are_counted_on_the_same_instances(tmp_path):
    path = written(tmp_path / "peers.csv", PEERS)
    peers = read_peers(path, [instance(i) for i in range(3)], {instance(2).name: "sat"})
    by_tool = {standing.tool: standing for standing in peers.standings}
    assert set(by_tool) == {"fast 2022", "fast 2023", "slow 2022"}
    first = by_tool["fast 2022"]
    assert (first.n, first.sat, first.unsat, first.wrong, first.mean) == (3, 1, 1, 1, 2.0)
    assert (by_tool["fast 2023"].timeout, by_tool["fast 2023"].error) == (1, 1)
    assert (by_tool["slow 2022"].solved, by_tool["slow 2022"].unknown, by_tool["slow 2022"].error) == (0, 1, 2)
    assert peers.seconds == {
        "fast 2022": {instance(0).name: 1.0, instance(1).name: 3.0},
        "fast 2023": {instance(0).name: 0.5},
    }


def test_a_summary_is_taken_as_it_stands(tmp_path):
    (standing,) = read_peers(written(tmp_path / "s.csv", SUMMARY), [instance(0)], {}).standings
    assert (standing.tool, standing.n, standing.solved, standing.wrong, standing.mean) == ("fast 2022", 3, 2, 1, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a first line that names the columns"),
        ("a,b\n1,2\n", "expected a first line that names the columns"),
        (PEERS.replace("1.0", "soon"), r"peers\.csv:2: expected seconds, got 'soon'"),
        (PEERS + "b,n.onnx\n", r"peers\.csv:9: expected 7 cells, got 2"),
        (SUMMARY.replace(",3,", ",three,"), r"peers\.csv:2: expected a number in n, got 'three'"),
    ],
)
def test_what_is_neither_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_peers(written(tmp_path / "peers.csv", text), [instance(i) for i in range(3)], {})


def test_the_table_has_the_best_year_of_each_peer_and_fits_80_columns(tmp_path):
    rows = [row(i, "unsat", 0.2) for i in range(3)]
    peers = read_peers(written(tmp_path / "peers.csv", PEERS), [each.instance for each in rows], {})
    console = Console(file=io.StringIO(), width=80)
    competition.show(outcome(*rows, contradictions=["b n p: sat, but \x1b[31munsat"]), peers, console)
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == ["CONTRADICTION:", "b", "n", "p:", "sat,", "but", "unsat"]
    names = [line.split()[0] for line in lines[4:] if line.strip()]
    assert names == ["b", "assay", "fast", "slow", "peers:"]
    assert "fast 2023" not in console.file.getvalue()
    assert not any("…" in line for line in lines)


def test_the_plot_has_each_peer_once_with_the_best_year_of_each_benchmark():
    rows = [row(0, "sat", 2.0), row(1, "unsat", 0.001), row(2, "sat", 5.0, "unsat"), row(3, "timeout", 9.0)]
    a, b, c = instance(0).name, instance(1).name, instance(0, "c").name
    seconds = {"fast 2022": {a: 3.0, b: 1.0}, "fast 2023": {a: 0.1, c: 7.0}, "slow 2022": {a: 4.0}}
    drawn = cactus_figure.lines(outcome(*rows), Peers((), seconds))
    assert drawn == {"assay": [0.001, 2.0], "fast": [1.0, 3.0, 7.0], "slow": [4.0]}
    assert list(drawn) == ["assay", "fast", "slow"]


@pytest.mark.parametrize("rows", [[], [row(0, "timeout")], [row(i, "sat", i) for i in range(3)]])
def test_the_plot_is_drawn_of_whatever_there_is(tmp_path, rows):
    cactus_figure.draw(outcome(*rows), Peers(), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
