"""The literature's tables: published figures with their sources, a TOML file a table, and their like measured."""

from __future__ import annotations

from assay.benchmarks.tables.published import Table, names, read

__all__ = ["Table", "names", "read"]
