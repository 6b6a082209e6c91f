"""Semidefinite programs: LipSDP's constants, and the relaxation of robustness itself, proved from multipliers."""
