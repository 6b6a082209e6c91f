"""Tests of verify/check."""
