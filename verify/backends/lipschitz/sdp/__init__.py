"""Semidefinite programs: LipSDP's constants, and the relaxation of robustness itself; no solver is believed."""
