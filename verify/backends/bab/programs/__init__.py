"""Branch and bound over phases with a linear program at each node."""
