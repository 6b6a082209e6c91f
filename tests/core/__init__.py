"""Tests of verify/core."""
