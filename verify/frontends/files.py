"""A model file and a property file as problems."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.frontends.agreement import agree_on
from assay.verify.frontends.extremes import corners
from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.onnx.cases import read_cases
from assay.verify.frontends.onnx.read import output_names
from assay.verify.frontends.vnnlib import Property, read_vnnlib
from assay.verify.frontends.vnnlib.declared import together

POINTS = 4  # random members of a box at which network and model are compared
BOXES = 8  # that are tried so
NEURONS = 32  # that are driven to their extremes in the first of them


def read_problems(
    net: str | Path,
    prop: str | Path,
    networks: Mapping[str, str | Path] = MappingProxyType({}),
    outputs: Sequence[str] = (),
) -> list[Problem]:
    """The problems whose union is the property in the VNN-LIB file ``prop``, on the network in the ONNX file ``net``.

    They share one network, which is compared with the model on the property's boxes too, after the import's own
    check; where the model hangs on whole numbers among its inputs, there is one for each of their cases
    (:mod:`assay.verify.frontends.onnx.cases`). Of several networks that the property declares, ``net`` is the first, or
    those that are the same as it, and ``networks`` has the files of the others, by name. ``outputs``: those of the
    model that the property speaks of, by name, where it does not name them. Gzipped files are read, and found where
    ``.gz`` is left out. What the property's reader warns of is warned of.

    Raises what :func:`read_onnx` and :func:`read_vnnlib` raise, and :class:`InputError` where their numbers of inputs
    or outputs differ, or a network has no file.
    """
    stated = read_vnnlib(prop)
    for line in stated.warnings:
        warnings.warn(f"{prop}: {line}", stacklevel=3)
    try:
        network = _network(stated, net, networks, outputs)
    except UnsupportedError:
        problems = _by_cases(stated, net, outputs)
        if problems is None:
            raise
        return problems
    problems = stated.problems(network)
    network = problems[0].network.full or problems[0].network  # with all that the model ends in
    regions = [problem.region for problem in problems if not problem.region.empty][:BOXES]
    if regions:
        driven = regions[0].point(corners(network, NEURONS))
        agree_on(network, torch.cat([driven, *(_members(region) for region in regions)]))
    return problems


def _by_cases(stated: Property, net: str | Path, outputs: Sequence[str]) -> list[Problem] | None:
    """The property of a model that is read in cases; None where it is no such model, or the property asks of more than
    its inputs and outputs as they are."""
    if stated.declared or stated.shared or stated.linked or stated.monomials:
        return None
    cases = read_cases(net, outputs)
    if cases is None:
        return None
    stated.check(tuple(port.size for port in cases.chooser.inputs), cases.network.output_size)
    return cases.problems(stated.cases)


def _network(stated: Property, net: str | Path, networks: Mapping[str, str | Path], outputs: Sequence[str]) -> Network:
    """The model, or the models that the property declares, as one."""
    declared = stated.declared
    if unknown := sorted(set(networks) - {one.name for one in declared}):
        raise InputError(f"the property {stated.source or ''} declares no network {unknown[0]!r}")
    if not declared:
        return read_onnx(net, outputs)
    files = {declared[0].name: net, **networks}
    models: dict[tuple[str, tuple[str | int, ...]], Network] = {}
    read = []
    for one in declared:
        file = files.get(one.name) or files.get(one.equal_to)
        if file is None:
            names = ", ".join(each.name for each in declared)
            raise InputError(f"the property declares the networks {names}: pass the file of {one.name} too")
        files[one.name] = file
        key = str(file), tuple(outputs) or one.chosen(output_names(file))
        models[key] = models.get(key) or read_onnx(*key)
        read.append(models[key])
        if doubt := one.doubt(models[key]):
            warnings.warn(f"{stated.source}: {doubt}", stacklevel=4)
    return together(declared, read)


def _members(region: Region) -> Tensor:
    """The lowest and the highest corner, the centre, and random members, the same ones each time."""
    generator = torch.Generator().manual_seed(2)
    fixed = torch.tensor([0.0, 0.5, 1.0]).view(3, *[1] * len(region.shape)).expand(3, *region.shape)
    return region.point(torch.cat([fixed, torch.rand((POINTS, *region.shape), generator=generator)]))
