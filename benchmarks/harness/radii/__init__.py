"""Robust radii of samples, by bisection."""
