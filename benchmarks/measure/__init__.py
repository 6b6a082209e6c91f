"""Measurements of assay beside peers; nothing of the product imports this folder."""
