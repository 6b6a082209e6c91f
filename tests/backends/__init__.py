"""Tests of verify/backends."""
