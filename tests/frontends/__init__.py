"""Tests of verify/frontends."""
