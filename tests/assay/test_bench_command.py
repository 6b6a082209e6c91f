"""``assay bench`` from the command line: rows, limits, kills, signals, resuming, contradictions."""

import json
import signal
import sqlite3
import time
from pathlib import Path

import onnx
import pytest

from assay.__main__ import main
from assay.benchmarks.harness.records.store import Store
from assay.verify.support.executors import processes
from tests import commands
from tests.benchmarks.instance_files import BROKEN, PROPERTIES, expected, prop, register, suite
from tests.breadth import slow
from tests.verify.support.test_executors import gone

NAMES = [f"vnnlib/{name}.vnnlib" for name in PROPERTIES]
VERDICTS = [verdict for _, verdict in PROPERTIES.values()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the benchmark ``tiny`` in ``all``, and the misbehaving methods."""
    monkeypatch.chdir(tmp_path)
    register(tmp_path, monkeypatch)
    suite(tmp_path / "all")
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Run the command with --json; returns its code, its rows and stderr."""

    def run(*arguments):
        code = main(["bench", "all", "--workers", "1", "--json", *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return run


def start(*arguments):
    return commands.start(Path.cwd(), ["bench", "all", "--workers", "1", *arguments])


def stored(columns="verdict, reason"):
    db = sqlite3.connect("bench.sqlite", timeout=60)
    try:
        return db.execute(f"SELECT vnnlib, {columns} FROM results JOIN enrolled USING (problem) ORDER BY 1").fetchall()
    finally:
        db.close()


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.said("stderr")
        time.sleep(0.02)


def test_every_instance_is_a_row_here_and_in_the_store(run, folder):
    code, rows, err = run("--expected", str(expected(folder)))
    assert code == 0
    assert [row["vnnlib"] for row in rows] == NAMES
    assert [row["verdict"] for row in rows] == [row["expected"] for row in rows] == VERDICTS
    assert {(row["benchmark"], row["onnx"], row["reason"]) for row in rows} == {("tiny", "net.onnx", "")}
    assert all(row["seconds"] > 0 for row in rows)
    assert "tiny (4)" in err
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    words = {"sat": "falsified", "unsat": "verified"}
    assert dict(stored("verdict")) == {name: words[verdict] for name, verdict in zip(NAMES, VERDICTS, strict=True)}
    parts = dict(stored("json_array_length(json_extract(result, '$.stats.parts'))"))
    assert parts == {NAMES[0]: None, NAMES[1]: None, NAMES[2]: 2, NAMES[3]: 2}


def test_the_table_is_on_stdout_without_json(folder, capsys):
    assert main(["bench", "all", "--benchmarks", "tiny", "--store", "b.sqlite"]) == 0
    out, err = capsys.readouterr()
    assert "assay" in out
    assert out.splitlines()[-1].endswith("wrote b.sqlite, b.png")
    assert "4 verdicts in" in err


@pytest.mark.slow
def test_resuming_asks_only_what_may_change(run, folder):
    log = folder / "log"

    def asked(method, *arguments):
        log.unlink(missing_ok=True)
        code, rows, err = run("--method", method, *arguments)
        assert code == 0
        assert {row["verdict"] for row in rows} <= {"sat", "unsat", "unknown", "timeout"}
        return len(log.read_text().splitlines()) if log.exists() else 0, err

    problems = 6
    final, undecided = f"says(what=incomplete,log={log})", f"says(what=timeout,log={log})"
    assert asked(final)[0] == problems
    count, err = asked(final, "--resume")
    assert count == 0
    assert "4 rows taken from bench.sqlite" in err
    assert asked(final)[0] == problems
    assert asked(undecided, "--timeout", "5")[0] == problems
    assert asked(undecided, "--timeout", "5", "--resume")[0] == 0
    assert asked(undecided, "--timeout", "6", "--resume")[0] == problems
    assert len(stored()) == 8


@pytest.mark.parametrize("changed", ["net.onnx", "vnnlib/broken.vnnlib"])
def test_resuming_with_other_files_is_refused(run, folder, changed):
    assert run()[0] == 0
    path = folder / "all" / "tiny" / changed
    if changed.endswith("onnx"):
        path.write_bytes(path.read_bytes().replace(b"net", b"NET"))
    else:
        path.write_text(prop(BROKEN) + "; a comment\n")
    before = stored("decided")
    code, document, _ = run("--resume")
    assert (code, document["exit_code"]) == (40, 40)
    assert "network or property changed" in document["error"]
    assert stored("decided") == before
    assert run()[0] == 0


def test_resuming_with_other_data_beside_the_network_is_refused(run, folder):
    home = folder / "all" / "tiny"
    model = onnx.load(home / "net.onnx")
    (home / "net.onnx").unlink()
    onnx.save(model, home / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    assert run()[0] == 0
    (home / "net.bin").write_bytes(b"\1" + (home / "net.bin").read_bytes()[1:])
    code, document, _ = run("--resume")
    assert code == 40
    assert "network or property changed" in document["error"]


def test_folders_of_one_name_are_not_confused(run, folder, monkeypatch):
    suite(folder / "elsewhere" / "all")
    (folder / "elsewhere" / "all" / "tiny" / "vnnlib" / "broken.vnnlib").write_text(PROPERTIES["one-broken"][0])
    store = str(folder / "bench.sqlite")
    assert run("--store", store)[0] == 0
    monkeypatch.chdir(folder / "elsewhere")
    code, _, err = run("--resume", "--store", store)
    assert code == 0
    assert "4 rows taken" in err  # the property that differs is one of the first folder's as well
    monkeypatch.chdir(folder)
    assert run("--resume", "--store", store)[0] == 0


def test_a_file_may_be_packed_between_two_runs(run, folder):
    assert run()[0] == 0
    packed = folder / "all" / "tiny" / "vnnlib" / "safe.vnnlib.gz"
    packed.with_suffix("").write_text(PROPERTIES["safe"][0])
    packed.unlink()
    code, _, err = run("--resume")
    assert code == 0
    assert "4 rows taken" in err


def test_a_contradiction_ends_with_70_and_is_told_first(folder, capsys):
    verdicts = str(expected(folder, broken="unsat", safe="unknown", **{"one-broken": "conflict"}))
    command = ["bench", "all", "--workers", "1", "--expected", verdicts]
    assert main(command) == 70
    out, _ = capsys.readouterr()
    first = "CONTRADICTION: tiny net.onnx vnnlib/broken.vnnlib: sat, but unsat is expected"
    assert " ".join(out.split()).startswith(first)
    assert out.count("CONTRADICTION") == 1
    assert main([*command, "--json"]) == 70
    assert len(json.loads(capsys.readouterr().out)) == 4


@pytest.mark.slow
def test_a_verdict_against_the_store_is_a_contradiction(run, folder):
    assert run()[0] == 0
    with sqlite3.connect("bench.sqlite") as db:
        (text,) = db.execute("SELECT result FROM results WHERE verdict = 'falsified'").fetchone()
        other = text.replace('"verdict": "falsified"', '"verdict": "verified"')
        db.execute("UPDATE results SET verdict = 'verified', result = ? WHERE result = ?", (other, text))
    db.close()
    code, rows, err = run()
    assert code == 70
    assert [row["verdict"] for row in rows] == VERDICTS
    assert "sat, but unsat in bench.sqlite" in " ".join(err.split())


def test_bad_data_is_a_row_and_outranks_the_rest(run, folder):
    home = folder / "all" / "tiny"
    (home / "vnnlib" / "broken.vnnlib").write_text("(assert (>= X_0")
    (home / "vnnlib" / "one-broken.vnnlib").unlink()
    code, rows, _ = run("--expected", str(expected(folder, safe="sat")))
    assert code == 40
    assert [row["verdict"] for row in rows] == ["unsat", "error", "error", "unsat"]
    assert "broken.vnnlib:1:" in rows[1]["reason"]
    assert "there is no file" in rows[2]["reason"]


@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [("unsupported", 50, "unsupported"), ("memory", 60, "memory"), ("bug", 70, "ZeroDivisionError")],
)
def test_failures_are_rows_too(run, what, code, reason):
    exit_code, rows, _ = run("--method", f"says(what={what})")
    assert exit_code == code
    assert {row["verdict"] for row in rows} == {"error"}
    assert all(reason in row["reason"] for row in rows)


def test_a_wrong_proof_is_an_alarm(run):
    code, rows, _ = run("--method", "lies")
    assert code == 70
    assert [row["verdict"] for row in rows] == ["unsat", "error", "error", "unsat"]
    assert "soundness alarm" in rows[1]["reason"]


def test_work_that_does_not_come_back_is_a_timeout(run, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.2)
    code, rows, _ = run("--method", "hangs(deaf=true)", "--timeout", "0.5")
    assert code == 0
    assert {row["verdict"] for row in rows} == {"timeout"}
    assert all(row["seconds"] >= 0.5 for row in rows)


def test_work_that_takes_too_much_memory_is_an_error(run):
    code, rows, _ = run("--method", "eats", "--memory", "0.75")
    assert code == 60
    assert {row["verdict"] for row in rows} == {"error"}
    assert all("killed at" in row["reason"] for row in rows)


def test_a_killed_worker_is_replaced_and_its_instance_done(run, folder):
    code, rows, _ = run("--method", f"dies(mark={folder}/mark,number=9)")
    assert code == 0
    assert {row["verdict"] for row in rows} == {"unknown"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSEGV, 70), (signal.SIGKILL, 60)])
def test_work_that_kills_its_process_is_an_error(run, number, code):
    exit_code, rows, _ = run("--method", f"dies(number={int(number)})")
    assert exit_code == code
    assert {row["verdict"] for row in rows} == {"error"}
    assert all(f"killed by {number.name}" in row["reason"] for row in rows)


@pytest.mark.parametrize(("number", "as_json"), [slow(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_keeps_what_is_decided(folder, number, as_json):
    log = folder / "log"
    process = start("--method", f"says(seconds=1.5,log={log})", *(["--json"] if as_json else []))
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-2:] == [
        "assay: what was finished is in bench.sqlite; --resume goes on from there",
        "assay: interrupted",
    ]
    assert "Traceback" not in err
    assert json.loads(out)["exit_code"] == 130 if as_json else out == ""
    assert [row[1:] for row in stored()] == [("unknown", "incomplete")]
    assert all(gone(int(line.split()[0])) for line in log.read_text().splitlines())


@pytest.mark.slow
def test_no_worker_outlives_a_run_that_is_killed(folder):
    log = folder / "log"
    process = start("--method", f"says(seconds=60,log={log})")
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"), process)
    process.kill()
    process.communicate()
    assert gone(int(log.read_text().split()[0]))


@pytest.mark.slow
def test_two_runs_on_one_store_lose_nothing(run, folder):
    log = folder / "log"
    process = start("--method", f"says(seconds=0.2,log={log})")
    wait_for(log.exists, process)
    assert run("--resume")[0] == 0
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(stored()) == 8
    with Store("bench.sqlite") as store:
        assert store.read()[1] == []
        assert len(store.runs()) == 2


def test_damaged_rows_are_moved_aside_and_asked_again(run, folder):
    assert run()[0] == 0
    with sqlite3.connect("bench.sqlite") as db:
        db.execute("UPDATE results SET result = '{' WHERE verdict = 'falsified'")
    db.close()
    code, rows, err = run("--resume")
    assert code == 0
    assert [row["verdict"] for row in rows] == VERDICTS
    assert err.count("bench.sqlite: moved to its table quarantine: problem") == 2
    assert "2 rows taken" in err


def test_a_full_disk_is_60_and_the_rows_stay(folder, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["bench", "all", "--json"]) == 60
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 60
    assert err.splitlines()[-1] == "assay: error: No space left on device: bench.png"
    assert len(stored()) == 4


BAD = {
    "no folder": (["none"], "expected a folder of benchmarks, each with its instances.csv, got 'none'"),
    "no benchmarks": (["site"], "expected a folder of benchmarks"),
    "no name": (["all", "--benchmarks", ","], "expected the name of a benchmark, got none"),
    "no instances": (["empty"], "expected instances in empty/instances.csv, found none"),
    "unknown benchmark": (["all", "--benchmarks", "tin"], "unknown benchmark 'tin'; did you mean 'tiny'?"),
    "unknown method": (["all", "--method", "crwn"], "did you mean 'crown'?"),
    "timeout": (["all", "--timeout", "-1"], "--timeout must be a number of seconds > 0"),
    "workers": (["all", "--workers", "0"], "--workers must be at least 1"),
    "memory": (["all", "--memory", "0"], "--memory must be a number of GiB > 0"),
    "seed": (["all", "--seed", "-1"], "--seed"),
    "method": (["all", "--method", "fgsm"], "the method attack(attack=fgsm) runs it"),
    "bad line": (["bad"], "bad/instances.csv:2: expected onnx,vnnlib,seconds with seconds > 0, got 'a,b'"),
    "expected": (
        ["all", "--expected", "all/tiny/instances.csv"],
        "expected a first line that names the columns benchmark, onnx",
    ),
    "no expected": (["all", "--expected", "none.csv"], "cannot read none.csv"),
    "verdict": (["all", "--expected", "odd.csv"], "odd.csv:2: expected a verdict of sat, unsat, unknown, conflict"),
    "peers": (["all", "--peers", "odd.csv"], "odd.csv: expected a first line that names the columns benchmark, tool"),
    "store": (["all", "--store", "odd.csv"], "odd.csv"),
}


@pytest.mark.parametrize(("arguments", "line"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_40_before_any_work(folder, capsys, arguments, line):
    for name in ("bad", "empty"):
        (folder / name).mkdir()
    (folder / "empty" / "instances.csv").write_text("")
    (folder / "bad" / "instances.csv").write_text("net.onnx,p.vnnlib,5\na,b\n")
    (folder / "odd.csv").write_text("benchmark,onnx,vnnlib,verdict\n" + "tiny,net.onnx,a.vnnlib,maybe\n" * 50)
    assert main(["bench", *arguments, "--json"]) == 40
    out, err = capsys.readouterr()
    assert line in json.loads(out)["error"]
    assert [text for text in err.splitlines() if "error" in text] == [f"assay: error: {json.loads(out)['error']}"]
    assert not Path("bench.png").exists()
