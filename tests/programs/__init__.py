"""Tests of verify/programs."""
