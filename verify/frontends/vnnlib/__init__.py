"""VNN-LIB: files that state a region of counterexamples, read into a property, and written from one."""

from assay.verify.frontends.vnnlib.property import Property as Property
from assay.verify.frontends.vnnlib.read import parse_vnnlib as parse_vnnlib
from assay.verify.frontends.vnnlib.read import read_vnnlib as read_vnnlib
from assay.verify.frontends.vnnlib.write import write_vnnlib as write_vnnlib
