"""Floor 3: stages in turn, each verdict checked; the union of problems; the method that chooses for you."""
