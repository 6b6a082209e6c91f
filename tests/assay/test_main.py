"""The command as a whole: help, version, and how every way to end becomes an exit code and one line."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import typer

import assay
from assay import face
from assay.__main__ import main
from assay.benchmarks.harness.records.origin import version
from assay.verify.core.errors import AlarmError, InternalError, ResourceError, UnsupportedError


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"assay {version()}\n"
    assert assay.__version__ == version()


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["--debug"]])
def test_help_names_every_command_and_an_example(capsys, arguments):
    assert main(arguments) == 0
    text = capsys.readouterr().out
    order = [text.index(f"\n  {name} ") for name in ("compare", "methods", "models", "train")]
    assert order == sorted(order)
    assert "assay compare --model zoo:" in text


@pytest.mark.parametrize("command", ["compare", "methods", "models", "train"])
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"Usage: assay {command}" in capsys.readouterr().out


def test_help_and_version_load_nothing_heavy():
    code = "import sys; from assay.__main__ import main; main(['--help']); main(['--version']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "scipy", "matplotlib"} & set(loaded)


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "assay", "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (40, "")
    assert done.stderr.startswith("assay: error: ")
    assert done.stderr.count("\n") == 1
    assert "nonsense" in done.stderr


def test_standard_output_is_the_answers_alone():
    """Solvers and runtimes print on the file descriptor, behind Python's back."""
    code = (
        "import os; from assay import face\n"
        "def main(): os.write(1, b'a banner'); print('{}'); return 20\n"
        "face.main = main; face.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (20, "{}\n", "a banner")


def test_a_standard_output_that_is_closed_is_no_file_of_ours():
    code = (
        "import os, tempfile\nfrom assay import face\n"
        "def app(*arguments, **more):\n"
        "    with tempfile.TemporaryFile() as file:\n"
        "        os.write(1, b'a banner')\n"
        "        print('answer')\n"
        "        return 20 + os.fstat(file.fileno()).st_size\n"
        "face.app = app; face.run()"
    )
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code]
    closed = subprocess.run(shell, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (20, "")
    bad = subprocess.run([*shell[:5], "-m", "assay", "--nonsense"], capture_output=True, text=True)
    assert (bad.returncode, bad.stderr.count("\n")) == (40, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["nonsense"], ["compare"], ["compare", "--eps"], ["models", "--nonsense"], ["--nonsense"]),
        *(["methods", "extra"], ["models", "--", "--json", "--"], ["verify", "a", "b", "--results", "--no-check"]),
        *(["report", "a", "-o", "--help"], ["compare", "--out", "--quiet", "--model", "a"]),
    ],
)
def test_bad_usage_is_one_line_and_40(arguments, capsys):
    assert main(arguments) == 40
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("assay: error: ")
    assert err.count("\n") == 1


ENDS = [
    (UnsupportedError("no softmax"), 50, "no softmax"),
    (ResourceError("too big"), 60, "too big"),
    (MemoryError(), 60, "out of memory"),
    (OSError(28, "No space left on device", "out/x"), 60, "No space left on device: out/x"),
    (InternalError("crossed\nbounds"), 70, "crossed bounds"),
    (AlarmError("\x1b[31mliar"), 70, "liar"),
    (ZeroDivisionError("x / 0"), 70, "unexpected ZeroDivisionError: x / 0 (--debug shows where)"),
]


@pytest.fixture
def ending(monkeypatch):
    """Makes the command ``models`` end with an exception."""

    def install(error):
        def models(json_: bool = typer.Option(False, "--json")) -> None:
            raise error

        app = typer.Typer(rich_markup_mode=None)
        app.command()(models)
        app.callback()(face.options)
        monkeypatch.setattr(face, "app", app)

    return install


@pytest.mark.parametrize(("error", "code", "line"), ENDS)
def test_every_error_has_its_code_and_one_line(ending, capsys, error, code, line):
    ending(error)
    assert main(["models"]) == code
    assert capsys.readouterr() == ("", f"assay: error: {line}\n")


def test_with_json_an_error_is_a_document_too(ending, capsys):
    ending(UnsupportedError("no softmax"))
    assert main(["models", "--json"]) == 50
    assert json.loads(capsys.readouterr().out) == {"error": "no softmax", "exit_code": 50}


def test_an_interrupt_is_130(ending, capsys):
    ending(KeyboardInterrupt())
    assert main(["models"]) == 130
    assert capsys.readouterr() == ("", "assay: interrupted\n")
    assert main(["models", "--json"]) == 130
    assert json.loads(capsys.readouterr().out) == {"error": "interrupted", "exit_code": 130}


def test_a_traceback_only_on_demand(ending, capsys, monkeypatch):
    ending(ZeroDivisionError("x / 0"))
    for arguments in (["--debug", "models"], ["models", "--debug"]):
        assert main(arguments) == 70
        assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ASSAY_DEBUG", "1")
    assert main(["models"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("assay: error: unexpected ZeroDivisionError")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_a_command_minds_signals_itself_ends_with_130(monkeypatch, capsys, number):
    ends = []
    monkeypatch.setattr(face, "_reserve_stdout", lambda: None)
    monkeypatch.setattr(face, "app", lambda *arguments, **more: os.kill(os.getpid(), number))
    monkeypatch.setattr(face, "leave", ends.append)
    monkeypatch.setattr(sys, "argv", ["assay", "methods"])
    face.run()
    assert ends == [130]
    assert capsys.readouterr().err == "assay: interrupted\n"


@pytest.mark.parametrize("where", ["forgiving", "print"])
def test_an_interrupt_before_and_behind_the_command_is_no_traceback_either(monkeypatch, capsys, where):
    """Behind it: while another one is told of."""
    ends = []

    def interrupted(*arguments, **more):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(face, "_reserve_stdout", lambda: None)
    monkeypatch.setattr(face, "app", interrupted)
    monkeypatch.setattr(face, where, interrupted, raising=False)
    monkeypatch.setattr(face, "leave", ends.append)
    monkeypatch.setattr(sys, "argv", ["assay", "methods"])
    face.run()
    assert ends == [130]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("then", "code"), [(RecursionError(), 130), (InternalError("x"), 130), (AlarmError("bad"), 70)]
)
def test_an_interrupt_that_is_swallowed_is_one_if_what_it_broke_off_fails(ending, monkeypatch, then, code):
    ending(then)
    app = face.app

    def swallowing(*arguments, **more):
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return app(*arguments, **more)

    monkeypatch.setattr(face, "app", swallowing)
    before = signal.getsignal(signal.SIGINT)
    assert main(["models"]) == code
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("door", [["-m", "assay"], ["-c", "from assay.__main__ import run; run()"]])
def test_an_interrupt_of_the_first_imports_is_no_traceback(door, tmp_path):
    """A package of ours that never ends being imported stands for those that take their time."""
    (tmp_path / "typer.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(1000)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-P", *door, "--version"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as started:
        assert started.stdout.readline() == b"begun\n"
        started.send_signal(signal.SIGINT)
        assert started.communicate(timeout=60) == (b"", b"")
    assert started.returncode == -signal.SIGINT
