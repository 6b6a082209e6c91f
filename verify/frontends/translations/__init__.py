"""From torch's modules, functions and methods to operations of ours, a handler each.

A few operations say it all: whatever only moves values around is a Reshape or a Gather, found by sending the
elements' numbers through torch's own function; pooling is a convolution or a Gather of windows and a Max.
"""
