"""Floor 1, the shared mathematics: intervals, relaxations of activations, linear bounds propagated backwards."""
