"""A model file and a property file as problems."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.frontends.agreement import agree_on
from assay.verify.frontends.extremes import corners
from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.vnnlib import read_vnnlib

POINTS = 4  # random members of a box at which network and model are compared
BOXES = 8  # that are tried so
NEURONS = 32  # that are driven to their extremes in the first of them


def read_problems(net: str | Path, prop: str | Path) -> list[Problem]:
    """The problems whose union is the property in the VNN-LIB file ``prop``, on the network in the ONNX file ``net``.

    They share one network, which is compared with the model on the property's boxes too, after the import's own
    check. Gzipped files are read, and found where ``.gz`` is left out. What the property's reader warns of is warned
    of.

    Raises what :func:`read_onnx` and :func:`read_vnnlib` raise, and :class:`InputError` where their numbers of inputs
    or outputs differ.
    """
    stated, network = read_vnnlib(prop), read_onnx(net)
    for line in stated.warnings:
        warnings.warn(f"{prop}: {line}", stacklevel=3)
    problems = stated.problems(network)
    regions = [problem.region for problem in problems if not problem.region.empty][:BOXES]
    if regions:
        driven = regions[0].point(corners(network, NEURONS))
        agree_on(network, torch.cat([driven, *(_members(region) for region in regions)]))
    return problems


def _members(region: Region) -> Tensor:
    """The lowest and the highest corner, the centre, and random members, the same ones each time."""
    generator = torch.Generator().manual_seed(2)
    fixed = torch.tensor([0.0, 0.5, 1.0]).view(3, *[1] * len(region.shape)).expand(3, *region.shape)
    return region.point(torch.cat([fixed, torch.rand((POINTS, *region.shape), generator=generator)]))
