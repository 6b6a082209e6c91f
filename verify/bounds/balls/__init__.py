"""Balls in l2, with one multiplier a layer (SDP-CROWN)."""
