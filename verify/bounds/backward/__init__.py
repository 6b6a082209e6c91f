"""Rows propagated backwards through a network: the one walk, and what rows are kept as."""
