"""Tests of benchmarks/harness/records."""
