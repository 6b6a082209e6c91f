"""Solvers behind one interface, by name; each package is imported on use."""
