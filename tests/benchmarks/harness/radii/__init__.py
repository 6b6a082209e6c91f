"""Tests of benchmarks/harness/radii."""
