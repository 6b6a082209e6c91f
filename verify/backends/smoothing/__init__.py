"""Randomized smoothing: what the majority vote of a network under noise is certified for, at a stated confidence."""
