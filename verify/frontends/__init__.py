"""Floor 1, the doors: how a model or a property from outside becomes a network or a problem."""
