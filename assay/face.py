"""The commands, and how every way to end becomes an exit code and one clear line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise, takewhile
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperOption

from assay.benchmarks.harness.records.origin import version
from assay.commands.attack import attack
from assay.commands.bench import bench
from assay.commands.check import check
from assay.commands.cite import cite
from assay.commands.compare import compare
from assay.commands.diff import diff
from assay.commands.export import export
from assay.commands.inspect import inspect
from assay.commands.merge import merge
from assay.commands.methods import methods
from assay.commands.models import models
from assay.commands.perturb import perturb
from assay.commands.poison import poison
from assay.commands.radius import radius
from assay.commands.report import report
from assay.commands.smooth import smooth
from assay.commands.table import table
from assay.commands.train import train
from assay.commands.verify import verify
from assay.commands.watch import watch
from assay.encodings import forgiving
from assay.verify.core.errors import AlarmError, AssayError, InputError, RequirementError, ResourceError
from assay.verify.support.failures import explained
from assay.verify.support.files import FULL
from assay.verify.support.plain import plain
from assay.verify.support.processes import leave
from assay.verify.support.signals import interruptible

INTERRUPTED = 130
DEBUG = "--debug"

EPILOG = """Example:

assay compare --model zoo:digits-mlp-pgd --data digits --eps 0.02,0.05,0.1
"""


class Command(TyperCommand):
    """One that takes no option's name for another's value: in ``--out --json`` a value was forgotten."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left. Raises a usage error for values that are options."""
        options = [each for each in self.get_params(ctx) if isinstance(each, TyperOption)]
        names = {name for each in options for name in (*each.opts, *each.secondary_opts)}
        open_ended = {name for each in options if not each.is_flag for name in each.opts}
        for name, value in pairwise(takewhile("--".__ne__, args)):
            if name in open_ended and value in names:
                ctx.fail(f"Option {name!r} requires a value, and {value!r} is an option.")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="assay",
    help=(
        "assay bounds the robust accuracy of a neural network from below with certificates and "
        "from above with attacks, checks every verdict a second time, and reports the bracket."
    ),
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command = partial(app.command, cls=Command)
command(short_help="Bracket a model's robust accuracy on a data set.")(compare)
command(short_help="Write a page about a run, to look at.")(report)
command(short_help="Show how far a run is that writes to a store.")(watch)
command(short_help="Take the rows of several stores into one.")(merge)
command(short_help="Tell sample by sample what changed between two runs.")(diff)
command(short_help="Show what a model is made of, and what a radius leaves open.")(inspect)
command(short_help="Write a model as an ONNX file.")(export)
command(short_help="Answer one VNN-LIB property of one ONNX network.")(verify)
command(short_help="Check a certificate, or a folder of evidence, again.")(check)
command(short_help="Run folders of VNN-COMP instances, beside published results.")(bench)
command(short_help="Bracket the robust radius of samples.")(radius)
command(short_help="Attack a model on a data set, or a VNN-LIB property.")(attack)
command(short_help="Bracket a model against turns, shifts, brightness and the like.")(perturb)
command(short_help="List methods, attacks, their options, and packages.")(methods)
command(short_help="Print whom to cite for methods and attacks.")(cite)
command(short_help="List the trained networks that come with assay.")(models)
command(short_help="Certify a smoothed classifier, or audit a log of its radii.")(smooth)
command(short_help="Train a network reproducibly, with its card.")(train)
command(short_help="Print published figures beside what is measured here.")(table)
command(short_help="Plant a backdoor in training data; detect it, and certify a vote against it.")(poison)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"assay {version()}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(DEBUG, help="Print an error's traceback (also ASSAY_DEBUG=1); anywhere on the line."),
    ] = False,
) -> None:
    """Options of the command itself; :func:`main` reads ``--debug``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return its exit code; never raises an error.

    With ``--json`` an error is a JSON document on stdout too: stdout stays one document whatever happens. Only an
    alarm and a requirement that is not met add none, since they are raised when the command's own document, which tells
    of them, has been printed.
    """
    for stream in (sys.stdout, sys.stderr):
        forgiving(stream)
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in arguments or os.environ.get("ASSAY_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != DEBUG]
    as_json = "--json" in takewhile("--".__ne__, arguments)
    arguments = arguments or ["--help"]
    failure: AssayError
    try:
        with interruptible():  # also while what a command needs is imported
            code = app(arguments, prog_name="assay", standalone_mode=False, obj=arguments)
        if code == INTERRUPTED:  # typer turns an interrupt into this code
            raise KeyboardInterrupt
        print(end="", flush=True)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        if as_json:
            print(json.dumps({"error": "interrupted", "exit_code": INTERRUPTED}))
        print("assay: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as gone:  # rich ends so when the reader of its output is gone
        if not isinstance(gone.__context__, BrokenPipeError):
            raise
        return ResourceError.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:  # whoever read it, head for one, has enough
            return ResourceError.exit_code
        if error.filename is None and error.errno in FULL:  # files are named by who writes them
            error.filename, as_json = "standard output", False
        failure = explained(error)
    except typer.TyperException as error:
        failure = InputError(error.format_message())
        failure.__cause__ = error
    except Exception as error:
        failure = explained(error)
    if debug:
        traceback.print_exception(failure, file=sys.stderr)
    line = plain(failure) or type(failure).__name__
    if as_json and not isinstance(failure, (AlarmError, RequirementError)):
        print(json.dumps({"error": line, "exit_code": failure.exit_code}))
    print(f"assay: error: {line}", file=sys.stderr)
    return failure.exit_code


def run() -> NoReturn:
    """The process's own command."""
    _fill_streams()
    _reserve_stdout()
    try:
        with interruptible():
            code = main()
    except KeyboardInterrupt:  # before it listened, or while it told of another one
        code = INTERRUPTED
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed from the start
            stream.flush()
    except OSError:  # whoever read them is gone
        code = code or ResourceError.exit_code
    leave(code)


def _fill_streams() -> None:
    """Of streams that were closed from the start the numbers are taken, or the next files that are opened had them, and
    what native code prints in them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free


def _reserve_stdout() -> None:
    """What native code prints goes to standard error: standard output is the answer's, and nobody else's."""
    ours = sys.stdout
    with suppress(OSError, AttributeError):  # of a stream that is closed
        kept = os.dup(ours.fileno())
        sys.stdout = os.fdopen(kept, "w", -1 if not ours.isatty() else 1, ours.encoding, ours.errors)
        os.dup2(sys.stderr.fileno(), ours.fileno())
