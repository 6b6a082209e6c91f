"""Settings that every test runs under: one thread, and property tests that repeat the same examples."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# Repeatable by default, so that a red run is red for everybody; HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("repeat", deadline=None, derandomize=True, database=None, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

torch.set_num_threads(1)
