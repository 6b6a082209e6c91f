"""Floor 5, the face: the command ``assay`` and its version."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """``__version__``, looked up on first use (PEP 562)."""
    if name == "__version__":
        from benchmarks.origin import version

        return version()
    raise AttributeError(f"module 'assay' has no attribute {name!r}")
