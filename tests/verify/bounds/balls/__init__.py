"""Tests of verify/bounds/balls."""
