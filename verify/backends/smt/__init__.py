"""Satisfiability modulo linear real arithmetic: a network's question in exact rational numbers, and its solvers."""
