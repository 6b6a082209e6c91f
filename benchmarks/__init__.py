"""Floor 4, the bracket: suites, the harness that closes attacks and certificates upon the truth, records, reports."""

from __future__ import annotations

if __name__ != "assay.benchmarks":  # imported by its bare name, beside the folder
    from assay.checkout import same_modules

    same_modules(__name__)
