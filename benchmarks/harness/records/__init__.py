"""Records of runs: the store, what is noted beside it, and what is read back."""
