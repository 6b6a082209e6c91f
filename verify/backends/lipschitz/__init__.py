"""Certificates from Lipschitz constants: sound norms of the layers, their product over the graph, local Jacobians."""
