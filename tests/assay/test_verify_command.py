"""``assay verify`` from the command line: the words, the witness, the codes, and what ends it before it is done."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from assay import explanation
from assay.__main__ import main
from assay.verify.core.network import chain as network_of
from assay.verify.core.ops import Linear
from assay.verify.frontends.onnx import write_onnx
from tests import commands
from tests.benchmarks.instance_files import BROKEN, DECLARED, PROPERTIES, SAFE, net, prop, register
from tests.breadth import few, slow
from tests.verify.frontends.test_ports import write
from tests.verify.frontends.test_vnnlib_networks import EQUAL, HEAD, apart, saved


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with net.onnx, the properties, and the misbehaving methods."""
    monkeypatch.chdir(tmp_path)
    register(tmp_path, monkeypatch)
    net(tmp_path / "net.onnx")
    texts = {name: text for name, (text, _) in PROPERTIES.items()} | {
        "empty": prop((0.9, 0.6, 0.1, 0.4)),
        "all-empty": prop((0.9, 0.6, 0.1, 0.4), (0.1, 0.2, 0.4, 0.1)),
        "torn": prop(SAFE)[:-9],
        "powers": prop(SAFE, unsafe="(assert (>= (^ Y_1 Y_0) 1.0))"),
        "three": prop(SAFE).replace(
            DECLARED, f"{DECLARED}\n(declare-const X_2 Real)\n(assert (and (>= X_2 0) (<= X_2 1)))"
        ),
        "wide": prop((-0.5, 0.5, -0.5, 0.5)),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.vnnlib").write_text(text)
    (tmp_path / "torn.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:50])
    return tmp_path


def start(*arguments):
    return commands.start(Path.cwd(), ["verify", *arguments])


def witness(text):
    """The values of X and of Y in a witness."""
    words = text.replace("(", " ( ").replace(")", " ) ").split()
    assert words[:2] == ["(", "("]
    assert words[-2:] == [")", ")"]
    pairs = " ".join(words[1:-1]).strip("( )").split(" ) ( ")
    names, values = zip(*(pair.split() for pair in pairs), strict=True)
    told = {"X": [], "Y": []}
    for name, value in zip(names, values, strict=True):
        assert name == f"{name[0]}_{len(told[name[0]])}"
        told[name[0]].append(value)
    return told["X"], told["Y"]


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_first_line_and_the_code_are_the_answer(folder, capsys, name):
    verdict = PROPERTIES[name][1]
    assert main(["verify", "net.onnx", f"{name}.vnnlib"]) == {"sat": 10, "unsat": 0}[verdict]
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == verdict
    assert (verdict == "unsat") == (out == "unsat\n")
    assert err.startswith({"sat": "assay: falsified", "unsat": "assay: verified"}[verdict])
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["broken", "one-broken"])
def test_the_witness_is_a_counterexample_on_onnxruntime_to_the_last_bit(folder, capsys, name):
    assert main(["verify", "net.onnx", f"{name}.vnnlib", "--results", "answer.txt"]) == 10
    out = capsys.readouterr().out
    assert (folder / "answer.txt").read_text() == out
    first, _, rest = out.partition("\n")
    assert first == "sat"
    x, y = witness(rest)
    point = np.array([np.float32(value) for value in x])
    assert [str(value) for value in point] == x
    assert all(low <= float(value) <= high for value, (low, high) in zip(point, (BROKEN[:2], BROKEN[2:]), strict=True))
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (shown,) = session.run(None, {session.get_inputs()[0].name: point[None]})
    assert [str(value) for value in shown[0]] == y
    assert shown[0][1] >= shown[0][0]


def test_an_open_answer_says_why_and_how_much_is_missing(folder, capsys):
    command = ["verify", "net.onnx", "wide.vnnlib", "--method", "ibp"]
    assert main(command) == 20
    out, err = capsys.readouterr()
    assert out == "unknown\n"
    assert "open after" in err
    assert "incomplete" in err
    assert main([*command, "--json"]) == 20
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "unknown"
    assert document["reason"].startswith("incomplete")
    assert document["margin"] <= 0
    assert document["gap"] == -document["margin"]
    assert f"falls short of 0 by {document['gap']:g}" in err
    assert "tried ibp: incomplete" in err
    assert "activations that intervals do not fix to one linear piece: 4 of 4" in err


def test_methods_are_named_as_the_command_takes_them(folder, capsys):
    assert main(["verify", "net.onnx", "broken.vnnlib", "--method", "attack(attack=fgsm)", "--json"]) == 10
    out, err = capsys.readouterr()
    assert json.loads(out)["method"] == "attack(attack=fgsm)"
    assert "(attack(attack=fgsm))" in err
    assert main(["verify", "net.onnx", "broken.vnnlib", "--json"]) == 10
    document = json.loads(capsys.readouterr().out)
    assert document["method"] == "auto"
    assert document["problems"][0]["stages"] == [step["stage"] for step in document["problems"][0]["tried"]] == ["fgsm"]


def test_files_in_the_wrong_order_are_told(folder, capsys):
    assert main(["verify", "safe.vnnlib", "net.onnx"]) == 40
    assert capsys.readouterr().err.endswith("(the network comes first, then the property)\n")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("more", few([[], ["--json"]], quick=[[]]))
def test_the_file_has_the_answer_where_stdout_is_full(folder, more):
    asked = ["verify", "net.onnx", "safe.vnnlib", "--results", "answer.txt", *more]
    process = commands.start(folder, asked, out="/dev/full")
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (60, "assay: error: No space left on device: standard output\n")
    assert (folder / "answer.txt").read_text() == "unsat\n"


def test_explain_tells_of_every_problem_and_of_the_network(folder, capsys):
    assert main(["verify", "net.onnx", "both-safe.vnnlib", "--explain"]) == 0
    out, err = capsys.readouterr()
    assert out == "unsat\n"
    assert "network net: 2 inputs, 2 outputs, 2 Linear, 1 Relu" in err
    assert "problem 1: verified" in err
    assert "problem 2: verified" in err
    assert "of 2 inputs 2 vary, by 0.3, at most 0.3" in err
    assert "seconds: starting" in err


@pytest.mark.parametrize("name", ["empty", "all-empty"])
def test_an_empty_region_is_no_proof(folder, capsys, name):
    assert main(["verify", "net.onnx", f"{name}.vnnlib", "--explain"]) == 20
    out, err = capsys.readouterr()
    assert out == "unknown\n"
    assert "vacuous: " in err
    assert main(["verify", "net.onnx", f"{name}.vnnlib", "--json"]) == 20
    assert json.loads(capsys.readouterr().out)["reason"].startswith("vacuous: ")


BAD = {
    "no network": (["none.onnx", "safe.vnnlib"], 40, "none.onnx"),
    "no property": (["net.onnx", "none.vnnlib"], 40, "none.vnnlib"),
    "torn network": (["torn.onnx", "safe.vnnlib"], 40, "torn.onnx"),
    "torn property": (["net.onnx", "torn.vnnlib"], 40, "torn.vnnlib:"),
    "other numbers of inputs": (["net.onnx", "three.vnnlib"], 40, "speaks of 3 inputs"),
    "no such property": (["net.onnx", "powers.vnnlib"], 50, "the operator ^ is not supported"),
    "unknown method": (["net.onnx", "safe.vnnlib", "--method", "crwn"], 40, "did you mean 'crown'?"),
    "timeout": (["net.onnx", "safe.vnnlib", "--timeout", "0"], 40, "--timeout must be a number of seconds > 0"),
    "memory": (["net.onnx", "safe.vnnlib", "--memory", "nan"], 40, "--memory must be a number of GiB > 0"),
    "threads": (["net.onnx", "safe.vnnlib", "--threads", "0"], 40, "--threads must be at least 1"),
    "seed": (["net.onnx", "safe.vnnlib", "--seed", "-1"], 40, "--seed must be a whole number from 0"),
    "no folder": (["net.onnx", "safe.vnnlib", "--results", "a/b.txt"], 40, "there is no folder 'a'"),
    "unsupported": (["net.onnx", "safe.vnnlib", "--method", "says(what=unsupported)"], 50, "unsupported"),
    "memory gone": (["net.onnx", "safe.vnnlib", "--method", "says(what=memory)"], 60, "memory"),
    "a bug": (["net.onnx", "safe.vnnlib", "--method", "says(what=bug)"], 70, "unexpected ZeroDivisionError"),
    "a wrong proof": (["net.onnx", "broken.vnnlib", "--method", "lies"], 70, "soundness alarm"),
    "a wrong point": (["net.onnx", "broken.vnnlib", "--method", "lies(point=true)"], 70, "lies outside of the region"),
}


@pytest.mark.parametrize(("arguments", "code", "why"), BAD.values(), ids=BAD.keys())
def test_a_failure_is_one_word_a_code_and_a_reason(folder, capsys, arguments, code, why):
    assert main(["verify", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "error\n"
    assert why in err
    assert "Traceback" not in err
    assert main(["verify", *arguments, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    assert why in document.get("error", document.get("reason"))


def test_a_failure_is_the_answer_in_the_file_too(folder, capsys):
    assert main(["verify", "torn.onnx", "safe.vnnlib", "--results", "answer.txt"]) == 40
    assert (folder / "answer.txt").read_text() == "error\n"


def test_nan_weights_are_bad_input(folder, capsys):
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    write_onnx(network_of((2,), [Linear(weights, torch.zeros(2))]), folder / "linear.onnx")
    content = (folder / "linear.onnx").read_bytes()
    one = np.float32(1).tobytes()
    assert content.count(one) >= 2
    (folder / "nan.onnx").write_bytes(content.replace(one, np.float32("nan").tobytes(), 1))
    assert main(["verify", "nan.onnx", "safe.vnnlib"]) == 40
    assert capsys.readouterr().out == "error\n"


@pytest.mark.parametrize("name", ["safe", "broken", "empty"])
def test_json_is_one_document(folder, capsys, name):
    code = main(["verify", "net.onnx", f"{name}.vnnlib", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    assert document["verdict"] == {0: "unsat", 10: "sat", 20: "unknown"}[code]
    assert ("counterexample" in document) == (name == "broken")


def test_json_says_what_of_the_network_was_left_out(folder, capsys):
    import onnx

    model = onnx.load("net.onnx")
    (name,) = (value.name for value in model.graph.output)
    model.graph.node.append(onnx.helper.make_node("Sigmoid", [name], ["last"]))
    model.graph.output[0].name = "last"
    onnx.save(model, "last.onnx")
    main(["verify", "last.onnx", "safe.vnnlib", "--json"])
    assert json.loads(capsys.readouterr().out)["network"]["left_out"] == "sigmoid"
    main(["verify", "net.onnx", "safe.vnnlib", "--json"])
    assert "left_out" not in json.loads(capsys.readouterr().out)["network"]


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False])
def test_work_that_does_not_come_back_is_a_timeout_in_time(folder, as_json):
    process = start(
        *("net.onnx", "safe.vnnlib", "--method", "hangs", "--timeout", "5", "--results", "answer.txt"),
        *(["--json"] if as_json else []),
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 30
    assert (json.loads(out)["verdict"] if as_json else out) == ("timeout" if as_json else "timeout\n")
    assert (folder / "answer.txt").read_text() == "timeout\n"
    assert "assay: timeout: it did not come back in time" in err
    assert "noise on stdout" in err


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [True])
def test_what_was_proved_before_is_told_of_work_that_does_not_come_back(folder, as_json):
    process = start(
        *("net.onnx", "broken.vnnlib", "--method", "stalls", "--timeout", "6", "--results", "answer.txt"),
        *(["--json"] if as_json else []),
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 30
    assert (folder / "answer.txt").read_text() == "timeout\n"
    assert "assay: timeout: it did not come back in time" in err
    assert "the best bound of the margin is -0.8" in err
    assert "assay: tried ibp: incomplete, margin at least -0.8" in err
    if as_json:
        document = json.loads(out)
        assert (document["verdict"], document["exit_code"]) == ("timeout", 30)
        assert document["margin"] == pytest.approx(-0.8)
    else:
        assert out == "timeout\n"


@pytest.mark.slow
def test_memory_beyond_the_limit_is_an_error_with_60(folder):
    process = start("net.onnx", "safe.vnnlib", "--method", "eats", "--memory", "0.7")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (60, "error\n")
    assert "0.7 GiB are allowed" in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "as_json"), [slow(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_ends_with_130(folder, number, as_json):
    log = folder / "log"
    process = start(
        *("net.onnx", "safe.vnnlib", "--method", f"says(seconds=30,log={log})"), *(["--json"] if as_json else [])
    )
    while not log.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines() == ["assay: interrupted"]
    assert json.loads(out)["exit_code"] == 130 if as_json else out == ""


@pytest.mark.parametrize(
    ("option", "named"), [("--results", "'answer.txt'"), ("--certificate", "answer.txt"), ("--evidence", "evidence/")]
)
def test_a_full_disk_is_60_and_the_answer_is_told(folder, capsys, monkeypatch, option, named):
    (folder / "answer.txt").write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    kept = "evidence" if option == "--evidence" else "answer.txt"
    assert main(["verify", "net.onnx", "safe.vnnlib", option, kept]) == 60
    out, err = capsys.readouterr()
    assert out == "error\n"
    assert f"cannot write {named}" in err
    assert err.endswith(": No space left on device (the answer is unsat)\n")
    assert (folder / "answer.txt").read_text() == "old"


def test_nothing_heavy_is_loaded_on_the_way_to_an_easy_answer(folder):
    code = (
        "import sys; from assay.__main__ import main; code = main(sys.argv[1:]);"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "verify", "net.onnx", "safe.vnnlib"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    loaded = set(chain.from_iterable(line.split() for line in done.stderr.splitlines()[1:]))
    assert "0" in loaded
    assert "torch" in loaded
    assert not loaded & {"rich", "matplotlib", "scipy", "highspy", "z3", "cvxpy", "pulp", "models", "sympy"}


@pytest.mark.slow
def test_further_networks_and_outputs_are_named(tmp_path, capsys):
    """The witness tells every input that is declared, shared ones too, and the outputs of both networks."""
    pytest.importorskip("vnnlib")
    f, g = saved(tmp_path / "f.onnx"), saved(tmp_path / "g.onnx", shift=1 / 32)
    question = tmp_path / "p.vnnlib"
    question.write_text(HEAD + EQUAL + apart(0.0156))
    assert main(["verify", str(f), str(question), "--network", f"g={g}", "--json"]) == 10
    told = json.loads(capsys.readouterr().out)
    x, y = told["counterexample"]["x"], told["counterexample"]["y"]
    assert x[:2] == x[2:]
    assert abs(y[0] - y[1]) == pytest.approx(1 / 32, abs=1e-5)
    assert main(["verify", str(f), str(question), "--network", f"g={g}"]) == 10
    assert [float(v) for v in witness(capsys.readouterr().out.partition("\n")[2])[0]] == x
    assert main(["verify", str(f), str(question), "--network", "g"]) == 40
    assert "expected --network NAME=FILE, got 'g'" in capsys.readouterr().err
    several = write(tmp_path / "two.onnx")
    bounds = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(9))
    question.write_text(f"{bounds}(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (>= Y_0 1000))")
    assert main(["verify", str(several), str(question)]) == 40
    assert main(["verify", str(several), str(question), "--output", "score"]) == 0


def test_how_far_a_search_came_is_told() -> None:
    step = {"stage": "bab", "outcome": "timeout", "margin": None, "seconds": 2.0, "domains": 500, "closed": 0.75}
    part = {"verifier": "auto", "reason": None, "verdict": "unknown"}
    lines = explanation._attempts({**part, "stats": {"tried": [{**step, "depth": 9, "worst": -0.25}]}})
    told = "tried bab: timeout, 2.00 s; 500 domains, 250 a second, 75.0000% of the tree closed, depth 9"
    assert lines == [told + ", worst open leaf at -0.25"]
    own = {"margin": None, "seconds": 2.0, "stats": {"domains": 500, "closed": 0.75, "depth": 9, "worst": None}}
    assert explanation._attempts({**part, **own}) == [told.replace("bab: timeout", "auto: unknown")]
