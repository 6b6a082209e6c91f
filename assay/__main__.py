"""``assay`` and ``python -m assay``: the door to :mod:`assay.face`, whose imports an interrupt may break off."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """See :func:`assay.face.main`."""
    from assay import face

    return face.main(argv)


def run() -> NoReturn:
    """The process's own command: see :func:`assay.face.run`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler tells at length what it breaks off
    from assay import face

    face.run()


if __name__ == "__main__":
    run()
