"""Why an operation of a model has no counterpart among ours."""

from __future__ import annotations


class Untranslatable(Exception):
    """What is read has no counterpart; the reason, where its name does not say it."""
