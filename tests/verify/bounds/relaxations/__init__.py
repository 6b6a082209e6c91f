"""Tests of verify/bounds/relaxations."""
