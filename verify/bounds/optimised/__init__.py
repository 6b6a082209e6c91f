"""Lines raised by gradient ascent (alpha-CROWN), of rows and of whole networks."""
