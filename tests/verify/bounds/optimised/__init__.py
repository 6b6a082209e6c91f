"""Tests of verify/bounds/optimised."""
