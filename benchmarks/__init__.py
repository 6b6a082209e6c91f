"""Floor 4, the bracket: suites, the harness that closes attacks and certificates upon the truth, records, reports."""
