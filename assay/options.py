"""The options of commands over data sets and instances: one wording and one type each, and one reading."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.checks import at_least_one
from assay.verify.core.errors import InputError

if TYPE_CHECKING:
    from torch.nn import Module

    from assay.attacks.common.interface import Attack
    from assay.models.data import Dataset
    from assay.verify.core.network import Network
    from assay.verify.core.verifier import Verifier
    from assay.verify.perturbations import Perturbation
    from assay.verify.support.executors import Hiring

MODEL_FORMS = "zoo:NAME, file.onnx, file.safetensors, path/file.py:factory or module:factory."

PERTURBATIONS = (
    "rotation(10), translation(2), scaling(0.1), shear(0.1), blur(0.5), gamma(0.2), contrast(0.2), brightness(0.1); "
    "several with + between them; both ends as in rotation(-5,20)."
)

Model = Annotated[str, typer.Option(help=MODEL_FORMS)]
MaybeModel = Annotated[str | None, typer.Option(help=MODEL_FORMS)]
Weights = Annotated[
    Path | None, typer.Option(help="File of weights, .safetensors, for a factory, which then gives the architecture.")
]
Data = Annotated[str, typer.Option(help="digits, fashion-mnist, mnist, cifar10 or file.npz; its test split is used.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the data set's files; $ASSAY_DATA and others if not given.")
]
Domain = Annotated[
    str | None,
    typer.Option(
        metavar="LO,HI",
        help="Lowest and highest legal input; if not given, the data set's own (0,1). For each channel or feature: "
        "LO:HI,LO:HI or a .npy file of shape (2, ...).",
    ),
]
EpsScale = Annotated[
    str | None,
    typer.Option(
        metavar="V,V",
        help="Factors of eps, one a channel or feature, in linf: with commas, or a .npy file. With --eps 0.5 the scale "
        "1,0.2 means 0.5 and 0.1.",
    ),
]
InputShape = Annotated[
    str, typer.Option(help="Shape of one input, such as 3,32,32; needed for a factory, which does not say it.")
]
First = Annotated[int | None, typer.Option("--n", help="How many samples, from the first on; all if not given.")]
Eps = Annotated[str, typer.Option(help="Radii in the units of the data, with commas: 0.02,0.05 or 2/255,8/255.")]
MaybeEps = Annotated[
    str | None,
    typer.Option(
        help="Radii in the units of the data, with commas: 0.05,8/255; in linf FILE.npy, too, one for each feature."
    ),
]
Norm = Annotated[str, typer.Option(help="Norm of the ball: inf, 2 or 1.")]
NormOrPixels = Annotated[
    str,
    typer.Option(
        help="Norm of the ball: inf, 2 or 1; l0, where eps counts changed pixels; patch, where it is a square's side."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of whatever is random.")]
Batch = Annotated[
    int, typer.Option(help="Samples treated at once, for speed; the last digit of outputs may depend on it.")
]
Threads = Annotated[int | None, typer.Option(help="Threads of torch; its own choice if not given.")]
Device = Annotated[str, typer.Option(help="Where bounds are computed: cpu, or cuda where torch finds one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, all else on stderr.")]
Report = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page to look at: one HTML file.")]
Timeout = Annotated[float, typer.Option(help="Seconds, reading included.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes to work in, one thread each; none but this one if not given.")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Work on a cluster by Ray: its address, auto for the one that this machine belongs to, or local.",
    ),
]
Memory = Annotated[float, typer.Option(help="GiB that a process may hold; one that takes more is ended.")]

# Of one command each, so that its signature is a list of what it takes.
Methods = Annotated[str, typer.Option(help="Methods that certify, with commas; options as in 'crown(dtype=float32)'.")]
Attacks = Annotated[str, typer.Option(help="Attacks, likewise: 'fgsm,pgd(steps=100)'.")]
BracketFolder = Annotated[Path, typer.Option(help="Folder for results.sqlite, summary.json and bracket.png.")]
MaybePerturbation = Annotated[
    str | None,
    typer.Option(help=f"Instead of a norm: {PERTURBATIONS} --eps is a share of their ranges then, or 1."),
]
Within = Annotated[
    str | None,
    typer.Option(metavar="NORM:R", help="Other balls that what changes lies in, whatever the eps: l2:1.5,l1:8."),
]
EachTimeout = Annotated[float, typer.Option(help="Seconds for each sample and method.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Take finished verdicts from results.sqlite; undecided ones need more time."),
]
InsteadOfEps = Annotated[
    bool, typer.Option("--radius", help="Instead of --eps: how far each sample holds, by everybody, in one table.")
]
RadiusTolerance = Annotated[
    float, typer.Option(help="With --radius: how exactly radii are found, in the units of the data, or 2% of them.")
]
Require = Annotated[
    list[str] | None,
    typer.Option(help="End with 80 unless it holds: 'certified@0.1 >= 0.75', 'empirical@0.1 <= 0.9'. Repeatable."),
]
Baseline = Annotated[
    Path | None,
    typer.Option(help="End with 80 if an accuracy fell below the 95% interval of this earlier results.sqlite."),
]
EvidenceFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Write a certificate or counterexample of each sample, for 'assay check'."),
]

Benchmarks = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of benchmarks, each with its instances.csv.")]
OnlyBenchmarks = Annotated[str | None, typer.Option(help="Only these, with commas; all if not given.")]
CappedTimeout = Annotated[float, typer.Option(help="Cap on the seconds of each instance.")]
WorkersOrCores = Annotated[int | None, typer.Option(help="Processes, one thread each; one a core if not given.")]
Solver = Annotated[str, typer.Option(help="Method, with options as in 'auto(steps=10)'.")]
StoreFile = Annotated[Path, typer.Option(help="SQLite file of the results; the plot lies beside it.")]
ResumeRows = Annotated[
    bool, typer.Option("--resume", help="Take decided rows from the store; undecided ones need more time.")
]
Expected = Annotated[Path | None, typer.Option(help="CSV of expected verdicts: benchmark, onnx, vnnlib, verdict.")]
Peers = Annotated[Path | None, typer.Option(help="CSV of published results, by instance and tool or in summary.")]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Have verdicts' certificates accepted, or keep them numerical.")
]

MaybeNet = Annotated[Path | None, typer.Argument(metavar="NET", help="ONNX file: with PROP, the property is attacked.")]
MaybeProperty = Annotated[Path | None, typer.Argument(metavar="PROP", help="VNN-LIB file.")]
MaybeAttacks = Annotated[
    str | None, typer.Option(help="Attacks, with commas; options as in 'pgd(steps=100)'; 'foolbox:LinfPGD' too.")
]
AttackFolder = Annotated[Path | None, typer.Option(help="Folder for adversarial.npz, sheet.png and summary.json.")]
PropertyTimeout = Annotated[float, typer.Option(help="Seconds for a property, reading included.")]
AnswerFile = Annotated[Path | None, typer.Option(help="File for the answer to a property, besides stdout.")]

Index = Annotated[int | None, typer.Option(help="Position of the sample; 0 if neither this nor --n is given.")]
HowMany = Annotated[int | None, typer.Option("--n", help="How many samples, from the first on, instead of one.")]
Method = Annotated[str, typer.Option(help="Method that certifies, with options as in 'milp(solver=scip)'.")]
OneAttack = Annotated[str, typer.Option(help="Attack, likewise: 'pgd(steps=100)'.")]
Tolerance = Annotated[float, typer.Option(help="How exactly each end is found, in the units of the data.")]
SampleTimeout = Annotated[
    float, typer.Option(help="Seconds for each sample, for the method and as many for the attack.")
]
AlarmFolder = Annotated[Path, typer.Option(help="Folder for the cases of soundness alarms, if there are any.")]

NOISES = (
    *("gaussian", "laplace", "uniform", "pareto", "uniform-ball", "exp1", "exp2", "expinf", "expp", "powinf"),
    *("generalised-gaussian", "masking", "ablation"),
)
Noise = Annotated[str, typer.Option(help=f"Kind of noise: {', '.join(NOISES)}.")]
Sigma = Annotated[float | None, typer.Option(help="Root mean square of the noise in each value; 0.25 if not given.")]
Keep = Annotated[float, typer.Option(help="Share of the pixels that masking and ablation noise keep.")]
Draws = Annotated[int | None, typer.Option(help="Draws for each sample; 100000 if not given.")]
Pilot = Annotated[int, typer.Option(help="Draws that choose the class, beforehand.")]
Alpha = Annotated[float | None, typer.Option(help="Chance that a sample's radius may be wrong; 0.001 if not given.")]
Theorem = Annotated[str, typer.Option(help="cohen, pixeldp, renyi, two-class, higher-order, dsrs or soft.")]
RadiusNorm = Annotated[
    str | None,
    typer.Option(help="Norm of the radii: 2, 1 or inf; l0, the number of changed pixels, under noise that erases."),
]
TableRadii = Annotated[
    str | None, typer.Option(help="Radii of the table, with commas; 0,0.25,0.5,0.75,1, or 0,1,2,3,5 pixels.")
]
Samples = Annotated[int | None, typer.Option("--n", help="So many samples; all if not given.")]
Skip = Annotated[int, typer.Option(help="Take every K-th sample.")]
SmoothFolder = Annotated[Path, typer.Option(help="Folder for smooth.csv, smooth.json and smooth.png.")]
Audit = Annotated[
    Path | None,
    typer.Option(help="Instead: audit this log of radii against the options that are given, or recover them."),
]


def hiring(workers: int | None, cluster: str | None, device: str = "cpu", memory: float = inf) -> Hiring:
    """Where the work is to run; ``memory``: bytes that one process may hold. Asked for early: what processes import
    they import meanwhile."""
    at_least_one("--workers", workers)

    from assay.benchmarks.harness.preloaded import SAMPLES
    from assay.verify.support.executors.chosen import chosen
    from assay.verify.support.executors.processes import warm

    if cluster is None and workers is not None:
        warm(SAMPLES)
    return chosen(workers, cluster, device, memory)


def foresee(method: str) -> None:
    """Have the processes that a method shares its work with import what they need from here on: before this one does.
    What is wrong with the method is not told here."""
    from assay.benchmarks.harness.preloaded import TREES
    from assay.verify.support.executors.processes import warm

    name, _, given = method.partition("(")
    chosen = dict(pair.replace(" ", "").split("=", 1) for pair in given.rstrip(") ").split(",") if "=" in pair)
    if name.strip() in TREES and chosen.get("workers", "1") != "1" and chosen.get("cluster", "None") == "None":
        warm(TREES[name.strip()])


def shape(text: str) -> tuple[int, ...] | None:
    """The shape of ``3,32,32``; None for none."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input-shape: expected whole numbers with commas between them, got {text!r}")
    return tuple(map(int, parts)) or None


def samples(
    data: str, folder: Path | None, domain: str | None, n: int | None = None, eps_scale: str | None = None
) -> Dataset:
    """The test split of the data set, or its first ``n`` samples, in the domain that is given or its own, with the
    scale of eps."""
    from assay import features
    from assay.models import data as datasets

    limits = None if domain is None else features.limits(domain)
    span = None if limits is None else (limits[0].min().item(), limits[1].max().item())
    dataset = datasets.load(data, folder=folder, domain=span)
    if limits is not None and limits[0].dim():
        low, high = (features.fitting("--domain", side, dataset.shape) for side in limits)
        dataset = replace(dataset, limits=(low, high))
    if eps_scale is not None:
        name = "--eps or --eps-scale" if eps_scale.endswith(".npy") else "--eps-scale"  # either may name a file
        dataset = replace(dataset, eps_scale=features.scale(eps_scale, dataset.shape, name))
    return dataset if n is None else dataset.take(n)


def eps_map(eps: str, eps_scale: str | None) -> tuple[str, str | None]:
    """``--eps FILE.npy``, a radius for each feature, as the radius 1 and this scale of it."""
    if not eps.endswith(".npy"):
        return eps, eps_scale
    if eps_scale is not None:
        raise InputError("--eps FILE.npy has a radius for each feature: leave out --eps-scale")
    return "1", eps


def perturbation(text: str, samples: Dataset) -> Perturbation:
    """The perturbation of ``rotation(5)+brightness(0.1)``, for these samples, which must be images."""
    from assay.verify.perturbations import Perturbation

    if len(samples.shape) != 3:
        raise InputError(f"expected images of shape (channels, height, width), {samples.name} has {samples.shape}")
    return Perturbation.parse(text, samples.domain)


def told(samples: Dataset) -> dict[str, Any]:
    """The domain and the scale of eps as plain data: numbers, or nested lists of those of channels or features."""
    ends = [end.squeeze().tolist() for end in samples.limits] if samples.limits is not None else list(samples.domain)
    scale = None if samples.eps_scale is None else samples.eps_scale.squeeze().tolist()
    return {"domain": ends, "eps_scale": scale}


def fitting(text: str, weights: Path | None, samples: Dataset, whole: bool = False) -> Module | Network:
    """The model that ``text`` names; ``whole``: it is only run, and need not be read. One with a card that takes other
    samples is refused with what goes together."""
    from assay.models import zoo
    from assay.models.resolve import resolve

    loaded = resolve(text, weights, whole)
    if loaded.card is not None and loaded.card.input_shape != samples.shape:
        cards = map(zoo.card, zoo.names())
        fit = ", ".join(f"zoo:{card.name}" for card in cards if card.input_shape == samples.shape)
        raise InputError(
            f"{text} takes inputs of shape {loaded.card.input_shape}, as in --data {loaded.card.data}; {samples.name} "
            f"has shape {samples.shape}" + (f", which fits {fit}" if fit else "")
        )
    return loaded.module


def methods(text: str) -> list[Verifier]:
    """The methods of ``ibp,milp(solver=scip)``."""
    from assay.verify.support.options import split

    return [method(part) for part in split(text)]


def method(text: str) -> Verifier:
    """The method of ``milp(solver=scip)``."""
    from assay.attacks import list_attacks
    from assay.verify.registry import VERIFIERS, get_verifier, list_verifiers

    name = text.partition("(")[0].strip()
    if name not in VERIFIERS and name in list_attacks() and name not in list_verifiers():
        raise InputError(f"{name!r} is an attack, not a method: the method attack(attack={name}) runs it")
    return get_verifier(text)


def attacks(text: str) -> list[Attack]:
    """The attacks of ``fgsm,pgd(steps=100)``."""
    from assay.attacks import get_attack, list_attacks
    from assay.verify.registry import list_verifiers
    from assay.verify.support.options import split

    named = split(text)
    for name in (part.partition("(")[0].strip() for part in named):
        if name in list_verifiers() and name not in list_attacks():
            raise InputError(f"{name!r} is a method, not an attack: assay compare takes it as --methods {name}")
    return [get_attack(part) for part in named]
