"""Branch and bound over the neurons between."""
