"""Tests of verify/bounds/backward."""
