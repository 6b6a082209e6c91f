"""Lines and planes about activations, products and normalisations, over intervals."""
