"""Branch and bound: a search that does not know how domains are bounded and split, and the trees that do."""
