"""Tests of verify.backends.smoothing."""
