"""Tests of verify/bounds."""
