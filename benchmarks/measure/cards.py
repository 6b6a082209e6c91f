"""Networks made again by the commands of their cards: which files come out bit for bit, and how the others differ.

    python -m assay.benchmarks.measure.cards [--names digits-mlp-standard,...] [--out FOLDER]

Ends with 1 if any differs. Seconds are of the CPU. Other kinds of machines round otherwise, and trainings carry that on
to other weights: what differs there says nothing of a card.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from assay.models import cards, zoo
from assay.models.cards import Card


def made_again(card: Card, out: Path) -> Card:
    """The card of what the command of ``card`` makes in the folder. Raises RuntimeError where it makes nothing."""
    from assay.__main__ import main as run

    _, *words = shlex.split(card.command)
    code = run([*words, "--out", str(out), "--quiet"])
    if code:
        raise RuntimeError(f"{card.command!r} ends with {code}")
    return cards.read(out / f"{card.name}.json")


def differences(card: Card, other: Card) -> list[str]:
    """In words, beginning with the weights; what is measured after a training is none of it."""
    told = [] if card.sha256 == other.sha256 else ["other weights"]
    if card.clean_accuracy != other.clean_accuracy:
        told.append(f"clean {card.clean_accuracy:.2%} and {other.clean_accuracy:.2%}")
    for mine, theirs in zip(card.robustness, other.robustness, strict=True):
        now = asdict(theirs)
        told += [
            f"{name} at eps {mine.eps:g} {share:.2%} and {now[name]:.2%}"
            for name, share in asdict(mine).items()
            if name != "eps" and share != now[name]
        ]
    return told


def main(argv: list[str] | None = None) -> int:
    """Print a line for each network; 1 if any came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default=",".join(zoo.names()))
    parser.add_argument("--out", type=Path, help="Where the networks made again stay; nowhere if not given.")
    options = parser.parse_args(argv)
    chosen, wrong = [zoo.card(name) for name in options.names.split(",")], 0
    with tempfile.TemporaryDirectory() as folder:
        for card in chosen:
            began = time.process_time()
            told = differences(card, made_again(card, options.out or Path(folder)))
            spent = time.process_time() - began
            wrong += bool(told)
            print(f"{card.name:24} {'; '.join(told) or 'the same, bit for bit'} ({spent:.0f} s)", flush=True)
    print(f"{wrong} of {len(chosen)} came out otherwise")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
