"""The evidence of a comparison: a zip for each sample and radius, the model and the checker once, and one index."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import evidence, inputs
from assay.benchmarks.harness.records.origin import version
from assay.verify.check import checker
from assay.verify.check.certificate import CHECKERS, save_checkers
from assay.verify.core.errors import InputError
from assay.verify.core.result import NETWORK, Guarantee, Verdict
from assay.verify.support.files import replace_file

if TYPE_CHECKING:
    from assay.benchmarks.harness.proving import Claim, Proof
    from assay.models.data import Dataset

FORMAT, INDEX = "assay-evidence-2", "index.json"
SHARED, REPORTS = ("model.onnx", *CHECKERS), ("index.txt", "index.html")
OWN = ("format", "norm", "scale", "domain", "versions", "sha256", "entries", "seal")  # all else is what was known
COLUMNS = ("sample", "label", "eps", "subject", "verdict", "guarantee", "method", "proof", "file", "input")

HOW = (
    "All of it again: assay check FOLDER; with --data NAME or --data-dir FOLDER also that it is about these samples, "
    "whose numbers, as little-endian float32, have the sha256 in the column input. One sample without this package: "
    "unpack its zip; with Python, numpy and onnx run python checker.py certificate.zip model.onnx PROPERTY, the "
    "property of the zip.\n"
    "rigorous: a certificate was accepted, every rounding error charged, in real arithmetic. statistical: of the "
    "smoothed classifier, with its confidence; noise was drawn again, and its seed, kind and number of draws are taken "
    "to have been chosen before anything was drawn. numerical: up to floating-point error.\n"
).splitlines()

Entry = dict[str, Any]
Proofs = Callable[[Sequence["Claim"]], Iterable[tuple["Claim", "Proof"]]]


@dataclass(frozen=True)
class Portfolio:
    """The folder, of a comparison in the norm ``norm`` with radii of ``scale`` times eps in a ``domain`` (see
    :func:`of_features`) about samples with the hashes ``inputs``; what else is ``known``."""

    folder: Path
    norm: float
    scale: float | list[float]
    domain: Sequence[float | list[float]]
    inputs: Sequence[str]
    known: Mapping[str, Any]

    def room(self) -> None:
        """Make the folder. Raises :class:`InputError` where it holds something else, or another model than the one that
        its index speaks of."""
        from assay.verify.support.files import writable_folder

        others = [path for path in self.folder.iterdir() if path.suffix != ".zip"] if self.folder.is_dir() else []
        if {path.name for path in others} - {INDEX, *SHARED, *REPORTS}:
            raise InputError(f"--evidence: {str(self.folder)!r} holds something else: expected a new or empty folder")
        writable_folder(self.folder)
        try:
            noted = json.loads((self.folder / INDEX).read_bytes())["sha256"]["model.onnx"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # what there is, is looked at sample by sample
        if _digest(self.folder, "model.onnx")["sha256"] != noted:
            raise InputError(f"--evidence: model.onnx in {str(self.folder)!r} changed since it was written")

    def collect(self, claims: Iterable[Claim], proofs: Proofs) -> list[str]:
        """Write the evidence of all claims, those aside that are proved already; the first lines of the index."""
        found, missing = [], []
        for claim in claims:
            entry = self.kept(claim)
            if entry is None:
                missing.append(claim)
            else:
                found.append((claim, entry))
        found += [(claim, self.add(claim, proof)) for claim, proof in proofs(missing)]
        return self.close(found)

    def kept(self, claim: Claim) -> Entry | None:
        """What an earlier run wrote of the claim, if it is proved and can be read."""
        try:
            with zipfile.ZipFile(self.folder / file_of(claim)) as file:
                entry: Entry = json.loads(file.read("evidence.json"))
                entire = file.testzip() is None and "certificate.zip" in file.namelist()
                with zipfile.ZipFile(io.BytesIO(file.read("certificate.zip"))) as certificate:
                    of = json.loads(certificate.read("cert.json"))["model"]
            entire = entire and of == _hash((self.folder / "model.onnx").read_bytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        told = claim.problem, claim.told.verdict.value, self.inputs[claim.sample]
        same = (entry.get("problem"), entry.get("verdict"), entry.get("input")) == told
        return entry if entire and same else None

    def add(self, claim: Claim, proof: Proof) -> Entry:
        """The zip of a claim, its certificate and property in it if there are any; what the index tells of it."""
        result = claim.told
        entry: Entry = {
            "sample": claim.sample,
            "label": claim.label,
            "input": self.inputs[claim.sample],
            "eps": claim.eps,
            "subject": claim.subject,
            "problem": claim.problem,
            "verdict": result.verdict.value,
            "guarantee": "open" if result.verdict is Verdict.UNKNOWN else proof.guarantee(result).value,
            "confidence": result.confidence,
            "semantics": proof.report["semantics"] if proof.report else result.semantics,
            "method": claim.name,
            "proof": proof.report["kind"] if proof.report else f"none: {proof.none}",
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("evidence.json", json.dumps(entry, indent=1))
            if proof.certificate is not None:
                file.writestr("certificate.zip", proof.certificate.content)
                file.writestr(proof.certificate.of_prop, proof.certificate.prop)
                self._model(proof.certificate.model)
        replace_file(self.folder / file_of(claim), buffer.getvalue())
        return entry

    def _model(self, model: bytes) -> None:
        path = self.folder / "model.onnx"
        if not path.is_file() or path.read_bytes() != model:
            replace_file(path, model)

    def close(self, entries: Sequence[tuple[Claim, Entry]]) -> list[str]:
        """The index, as JSON, text and a page; its first lines."""
        save_checkers(self.folder)
        told = [{**entry, **_digest(self.folder, file_of(claim))} for claim, entry in entries]
        told.sort(key=lambda entry: (entry["eps"], entry["sample"], entry["subject"]))
        document: dict[str, Any] = {
            "format": FORMAT,
            **self.known,
            "norm": str(self.norm),
            "scale": self.scale,
            "domain": list(self.domain),
            "versions": {"assay": version(), "python": platform.python_version()},
            "entries": told,
        }
        for name, page in pages(document).items():
            replace_file(self.folder / name, page)
        hashes = {n: d["sha256"] for n in (*SHARED, *REPORTS) if (d := _digest(self.folder, n))["sha256"]}
        document["sha256"] = hashes
        document["seal"] = seal(document)
        replace_file(self.folder / INDEX, json.dumps(document, indent=1).encode())
        return [*_counts(told), f"seal {document['seal']}"]


def pages(index: Mapping[str, Any]) -> dict[str, bytes]:
    """What the index says, for readers: the text and the page, by their names."""
    known = [f"{key}: {value}" for key, value in index.items() if key not in OWN]
    head = [*known, asked(index), *_counts(index["entries"])]
    table = [[str(entry[column]) for column in COLUMNS] for entry in index["entries"]]
    return {name: made(head, table).encode() for name, made in zip(REPORTS, (_text, _page), strict=True)}


def asked(index: Mapping[str, Any]) -> str:
    """Which regions an index speaks of, in words."""
    start, end = map(_spread, index["domain"])
    radii = f"l{index['norm']}, of {_spread(index['scale'])} times eps"
    return f"regions: {radii}, in a domain of at least {start}, at most {end}"


def _spread(value: float | list[float]) -> str:
    """What holds of all features, or the least and the largest of them, and how many are told apart."""
    if not isinstance(value, list):
        return f"{value!r}"
    return f"{min(value)!r} to {max(value)!r} ({len(set(value))} values on {len(value)} features)"


def _counts(entries: Sequence[Entry]) -> list[str]:
    """How many verdicts there are of each kind."""
    counts = Counter((entry["verdict"], entry["guarantee"], entry["subject"]) for entry in entries)
    return [f"{count} {verdict}, {how} ({what})" for (verdict, how, what), count in sorted(counts.items())]


def of_features(value: Any, shape: Sequence[int]) -> float | list[float]:
    """What holds of all features, as one number, or of each, as a list."""
    import torch

    told = torch.as_tensor(value, dtype=torch.float64)
    return float(told) if told.dim() == 0 else told.broadcast_to(tuple(shape)).flatten().tolist()


def seal(index: Mapping[str, Any]) -> str:
    """The hash of all that the index says, entries and hashes of files."""
    told = {key: value for key, value in index.items() if key != "seal"}
    return _hash(json.dumps(told, sort_keys=True, separators=(",", ":")).encode())


def file_of(claim: Claim) -> str:
    """The name of the zip of a claim."""
    return _file(claim.sample, claim.eps, claim.subject)


def _file(sample: int, eps: float, subject: str) -> str:
    other = "" if subject == NETWORK else f"-{hashlib.sha256(subject.encode()).hexdigest()[:8]}"
    return f"sample-{sample:05d}-eps-{eps:g}{other}.zip"


def again(folder: Path, exact: bool = False, find: Callable[[str], Dataset] | None = None) -> int:
    """Check the folder of a comparison again: all hashes, all certificates, and that each speaks of what the index
    says, and of the samples of the data that are to ``find`` by the name in it; the exit code: that of
    :func:`assay.evidence.again`, the worst of all samples."""
    from assay.evidence import REJECTED, UNPROVED

    try:
        index = json.loads((folder / INDEX).read_bytes())
        files = [(name, digest) for name, digest in index["sha256"].items()]
        files += [(entry["file"], entry["sha256"]) for entry in index["entries"]]
        data = {name: (folder / name).read_bytes() for name, _ in files if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is no folder of evidence: {error}") from None
    if index.get("format") != FORMAT or len(data) < len(files):
        raise InputError(f"{str(folder)!r} is no folder of evidence: another format, or names of files outside of it")
    faults = [f"{name} changed since it was written" for name, digest in files if _hash(data[name]) != digest]
    faults += [f"{INDEX} changed since it was written"] if index.get("seal") != seal(index) else []
    faults += [f"{path.name} is not in the index" for path in sorted(folder.glob("*.zip")) if path.name not in data]
    try:
        samples = None if find is None or faults else find(index["data"].rpartition(" (")[0])
        faults = faults or [*_told(index), *_pages(index, data), *_faults(index, data, exact, samples)]
        told_of = asked(index)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(folder)!r} is no folder of evidence: {type(error).__name__}: {error}") from None
    for fault in faults:
        print(f"rejected: {fault}")
    if faults:
        return REJECTED
    entries = index["entries"]
    print(told_of)
    if samples is not None:
        print(f"samples: those of {samples.name} ({samples.split}), by their numbers")
    told = Counter(f"{e['verdict']} ({e['guarantee']})" for e in entries if not e["proof"].startswith("none: "))
    without = sum(entry["guarantee"] != "open" for entry in entries) - sum(told.values())
    print(f"accepted: {', '.join(f'{count} {verdict}' for verdict, count in sorted(told.items())) or 'nothing'}")
    print(f"seal: {index['seal']} (of all entries: to be compared with the one that was told)")
    if without:
        print(f"nothing to check: {without} verdicts without a certificate")
    return 0 if told else UNPROVED


def _told(index: Mapping[str, Any]) -> Iterator[str]:
    """What an index can never say, whatever there is to prove it."""
    start, end = index["domain"]
    count = max(len(value) if isinstance(value, list) else 1 for value in (start, end, index["scale"]))
    start, end, scale = (_each(value, count) for value in (start, end, index["scale"]))
    if not all(s >= 0 for s in scale) or not all(a <= b for a, b in zip(start, end, strict=True)):
        yield f"{INDEX} speaks of regions that there are not: {asked(index)}"
    for entry in index["entries"]:
        if not entry["eps"] >= 0 or entry["file"] != _file(entry["sample"], entry["eps"], entry["subject"]):
            yield f"{entry['file']} is not of sample {entry['sample']} at eps {entry['eps']}"


def _pages(index: Mapping[str, Any], data: Mapping[str, bytes]) -> Iterator[str]:
    """Which pages do not say what the index does, and which checkers are not what they are called; of what another
    version has written that cannot be told by this one."""
    if index["versions"]["assay"] != version():
        print(evidence.another(index["versions"]["assay"], (*REPORTS, *CHECKERS)))
        return
    yield from (f"{name} does not say what the index does" for name, page in pages(index).items() if data[name] != page)
    installed = Path(checker.__file__).parent
    yield from (
        f"{name} is not the checker of assay {version()}"
        for name in CHECKERS
        if data[name] != (installed / name).read_bytes()
    )


def _faults(index: Mapping[str, Any], data: Mapping[str, bytes], exact: bool, samples: Dataset | None) -> Iterator[str]:
    """Of each sample what is wrong."""
    from assay.verify.check import question

    for entry in index["entries"]:
        where = f"sample {entry['sample']} at eps {entry['eps']}"
        if samples is not None and (other := inputs.another(entry, samples)):
            yield f"{where}: {other}"
            continue
        x = None if samples is None else samples.x[entry["sample"]].flatten().tolist()
        try:
            with zipfile.ZipFile(io.BytesIO(data[entry["file"]])) as file:
                told, names = json.loads(file.read("evidence.json")), file.namelist()
                if "certificate.zip" not in names:
                    if not entry["proof"].startswith("none: ") or entry["guarantee"] == Guarantee.RIGOROUS.value:
                        yield f"{where}: there is no certificate"
                    continue
                prop = file.read(next(name for name in names if name.startswith("property.")))
                report = checker.check(file.read("certificate.zip"), data["model.onnx"], prop, exact)
            why = disagreement(entry, told, report, prop, data["model.onnx"], index, x)
        except (question.Rejected, ValueError, TypeError, KeyError, StopIteration, zipfile.BadZipFile) as error:
            why = str(error)
        if why:
            yield f"{where}: {why}"


def disagreement(
    entry: Entry,
    told: Entry,
    report: Mapping[str, Any],
    prop: bytes,
    model: bytes,
    index: Mapping[str, Any],
    x: Sequence[float] | None = None,
) -> str | None:
    """Why the index, an entry of it and what is ``told`` in its zip, is not what the certificate proves; ``x``: about
    the sample with these numbers, if they are known."""
    from assay.verify.check import norms

    claims = {"unsat": (Verdict.VERIFIED, NETWORK), "sat": (Verdict.FALSIFIED, NETWORK)}
    verdict, subject = claims.get(report["claim"], (Verdict.VERIFIED, report.get("subject", "")))
    if {key: value for key, value in entry.items() if key not in ("file", "sha256")} != told:
        return "the index differs from what stands in the zip"
    if (entry["verdict"], entry["subject"], entry["semantics"]) != (verdict.value, subject, report["semantics"]):
        return f"the certificate proves {report['claim']!r} ({report['semantics']}) of the {subject}"
    most = Guarantee.STATISTICAL if report["claim"] == "smoothed" else Guarantee.RIGOROUS
    if entry["guarantee"] != most.value:
        return f"the certificate's guarantee is {most.value}"
    if subject != NETWORK and not (entry["confidence"] or 1) <= report["confidence"]:
        return f"the certificate holds with confidence {report['confidence']:g}"
    network, ((_, _, low, high, unsafe),), ball = norms.asked(model, prop)
    norm, eps = float(index["norm"]), entry["eps"]
    start, end, scale = (_each(value, len(low)) for value in (*index["domain"], index["scale"]))
    if ball is not None and norm != float("inf") and any(each != 1 for each in scale):
        return f"its ball in l{ball.p:g} has no scale of eps"
    if ball is not None and (ball.p, ball.radius) != (norm, eps):
        return f"its ball has the radius {ball.radius:g} in l{ball.p:g}"
    if ball is not None and not inputs.around(ball.centre.tolist(), [eps] * len(low), low, high, start, end):
        return "its box cuts its ball, and not at the ends of the domain"
    radius = [eps * s for s in scale]
    centre = inputs.middle(radius, low, high, start, end)
    wide = verdict is Verdict.FALSIFIED and not inputs.within(radius, low, high)
    if ball is None and (norm != float("inf") or centre is None or wide):
        return "its box is not all that is within eps of a point of the domain, in linf"
    if x is not None and ball is not None and ball.centre.tolist() != x:
        return "its ball is about another point than the sample"
    beside = x is not None and not inputs.around(x, radius, low, high, start, end)
    beyond = x is not None and verdict is Verdict.FALSIFIED and not inputs.inside(x, radius, low, high)
    if ball is None and (beside or beyond):
        return "its box is about another point than the sample"
    return None if about(entry["label"], network.output.size, unsafe) else f"it is not about the label {entry['label']}"


def _each(value: float | list[float], count: int) -> list[float]:
    return value if isinstance(value, list) else [value] * count


def about(label: int, outputs: int, unsafe: Sequence[Sequence[Any]]) -> bool:
    """Whether the unsafe sets are where the label is not strictly the largest output, one for each rival, or where the
    one output has not its sign."""
    rows = [({k: v for k, v in terms.items() if v}, float(c), strict) for some in unsafe for terms, c, strict in some]
    if outputs == 1:
        return [(set(t), t[0] > 0, c, s) for t, c, s in rows] == [({0}, bool(label), 0.0, False)]
    rivals = [k for terms, _, _ in rows for k in terms if k != label]
    even = all(c == 0 and not s and len(t) == 2 and t.get(label, 0) == -min(t.values()) for t, c, s in rows)
    return even and all(len(some) == 1 for some in unsafe) and sorted(rivals) == sorted({*range(outputs)} - {label})


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(folder: Path, name: str) -> dict[str, str]:
    path = folder / name
    return {"file": name, "sha256": _hash(path.read_bytes()) if path.is_file() else ""}


def _text(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    rows = [COLUMNS, *table]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "".join(f"{line}\n" for line in (*head, "", *lines, "", *HOW))


def _page(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    style = "body{font:15px/1.45 sans-serif;margin:2em auto;max-width:72em;padding:0 1em}td,th{padding:.1em .6em;"
    style += (
        "text-align:left}table{border-collapse:collapse;display:block;overflow-x:auto}tr{border-top:1px solid #ddd}"
    )
    rows = ["".join(f"<th>{escape(name)}</th>" for name in COLUMNS)]
    rows += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table]
    told = "".join(f"<p>{escape(line)}</p>" for line in (*head, *HOW))
    page = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Evidence of a comparison</title>'
    page += f"<style>{style}</style><body><h1>Evidence of a comparison</h1>{told}<table>"
    return page + "".join(f"<tr>{row}</tr>" for row in rows) + "</table></body></html>\n"
