"""Floor 0, the vocabulary: operations, networks, regions, specifications, problems, results, budgets."""
