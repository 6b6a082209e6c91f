"""One question to a verifier: can this network, on this region, reach this unsafe set?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from assay.verify.core.binary import check_sign
from assay.verify.core.errors import InputError, check_type
from assay.verify.core.network import Network, check_network, content_hash, to_network
from assay.verify.core.region import Domain, LpBall, Polytope, Region, around, check_region, declared, side_by_side
from assay.verify.core.spec import Spec
from assay.verify.support import shown
from assay.verify.support.arrays import as_labels, as_tensor
from assay.verify.support.plain import counted

# Where files are read, by name: floor 0 imports nothing of it.
FILES = "assay.verify.frontends.files"


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """A network, a region of one sample and a specification. ``label`` is kept where the problem has one.

    The network is kept without what it ends in where that leaves the order of the outputs as it is and the
    specification is of that order, and with it otherwise.
    """

    network: Network
    region: Region
    spec: Spec
    label: int | None = None

    def __post_init__(self) -> None:
        check_network(self.network)
        check_region(self.region)
        check_type(self.spec, Spec, "a Spec", "Problem.robustness(model, x, label, eps) asks for a label by itself")
        if tuple(self.region.shape) != self.network.input_shape:
            raise InputError(
                f"expected a region of one sample of shape {self.network.input_shape}, got {self.region.shape}"
            )
        outputs = {d.A.shape[1] for d in self.spec.disjuncts}
        if outputs - {self.network.output_size}:
            raise InputError(
                f"the specification speaks of {counted(outputs.pop(), 'output')}, "
                f"the network has {self.network.output_size}"
            )
        if self.moved is not None:
            warnings.warn(self.moved, stacklevel=3)
        fitting = self.network.ordered if self.spec.of_order else self.network.whole
        object.__setattr__(self, "network", fitting)

    def __repr__(self) -> str:
        return shown.line("Problem", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Problem", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        label = {} if self.label is None else {"label": self.label}
        return {"network": self.network, "region": self.region, "spec": self.spec, **label, "id": self.id[:8]}

    @cached_property
    def moved(self) -> str | None:
        """Which input is one value that the model's dtype does not hold, in one line; None if there is none."""
        box, dtype = declared(self.region), self.network.dtype
        moved = box.moved(dtype).flatten()
        if self._is_round or not bool(moved.any()):
            return None
        first = int(moved.nonzero()[0])
        value, nearest = box.centre.flatten()[first].item(), box.allowed(dtype)[0].flatten()[first].item()
        return (
            f"input {first} is the value {value!r}, which is no {_name(dtype)}: the model is run at the nearest one, "
            f"{nearest!r}, and proofs cover both (inputs of this kind: {int(moved.sum())} of {len(moved)})"
        )

    @cached_property
    def unreachable(self) -> str | None:
        """Why no point of the region can be given to the model, in one line; None if some can."""
        box, dtype = declared(self.region), self.network.dtype
        lower, upper = (side.flatten() for side in box.allowed(dtype))
        none = ((lower > upper) | (box.moved(dtype).flatten() & self._is_round)).nonzero().flatten()
        if self.region.empty or not len(none):
            return None
        low, high = (side.flatten()[none[0]].item() for side in (box.lower, box.upper))
        return (
            f"no {_name(dtype)} lies between the bounds of input {int(none[0])}, {low!r} and {high!r}: there can be "
            "no counterexample that the model takes"
        )

    @property
    def is_strict(self) -> bool:
        """Whether some row is strict, of the unsafe set or of a polytope, so that a margin of 0 may be safe."""
        region = self.region
        tied = isinstance(region, Polytope) and bool(region.rows.strict.any())
        return tied or bool(self.spec.disjuncts and self.spec.strict.any())

    @property
    def _is_round(self) -> bool:
        """Whether the region is a ball in l1 or l2, in which no value stands for another."""
        return isinstance(self.region, LpBall) and self.region.p != inf

    @cached_property
    def id(self) -> str:
        """Hash of the content of network, region and specification."""
        return content_hash("problem", self.network.id, self.region.id, self.spec.id)

    def with_parts(
        self, *, network: Network | None = None, region: Region | None = None, spec: Spec | None = None
    ) -> Problem:
        """The problem with another network, region or unsafe set; what was warned of is not warned of again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return replace(self, network=network or self.network, region=region or self.region, spec=spec or self.spec)

    @classmethod
    def of_parts(cls, network: Network, regions: Mapping[str, Region], spec: Spec) -> Problem:
        """A problem of a network of several inputs, each within its region, by name: boxes, linf balls, polytopes.

        Raises :class:`InputError` for other names and shapes, :class:`UnsupportedError` for balls in l1 and l2.
        """
        return cls(network, side_by_side(network, regions), spec)

    @classmethod
    def robustness(
        cls,
        model: Any,
        x: Tensor,
        label: int,
        eps: float | Tensor,
        norm: float = inf,
        domain: Domain | None = (0.0, 1.0),
    ) -> Problem:
        """Is ``label`` the strictly largest output everywhere within ``eps`` of ``x``?

        ``model``: a module in eval mode, or a :class:`Network`; ``x``: one sample (shape), without a batch; ``eps`` in
        the units of x, in linf one for each feature where it is a tensor that broadcasts to x; the region is the closed
        ball clipped to ``domain``, whose sides may be such tensors, too; for the norm 0 at most eps changed pixels, for
        :data:`assay.verify.core.norms.PATCH` a square patch of eps x eps. Arrays are taken, too. For many samples of
        one model use :meth:`robustness_many`: it reads the model once. A model of one output answers 1 where it is
        above 0 and 0 where it is below (:mod:`assay.verify.core.binary`).
        """
        labels = as_tensor(label, "labels")
        if labels.dim():
            got = f"labels of shape {tuple(labels.shape)}"
            raise InputError(f"expected one sample and its label, got {got}: robustness_many takes a batch")
        return cls.robustness_many(model, as_tensor(x, "a sample")[None], labels[None], eps, norm, domain)[0]

    @classmethod
    def robustness_many(
        cls,
        model: Any,
        xs: Tensor,
        labels: Sequence[int] | Tensor,
        eps: float | Tensor,
        norm: float = inf,
        domain: Domain | None = (0.0, 1.0),
    ) -> list[Problem]:
        """One problem per sample: xs (batch x shape), labels (batch); ``eps`` and ``domain`` serve all of them."""
        xs = as_tensor(xs, "samples")
        if not xs.dim():
            raise InputError("expected samples (batch x shape), got one number")
        classes = as_labels(labels, len(xs)).tolist()
        network = to_network(model, tuple(xs.shape[1:]))
        binary = network.output_size == 1
        if binary:
            check_sign(network)
        specs: dict[int, Spec] = {}
        problems = []
        for x, label in zip(xs, classes, strict=True):
            if label not in specs:
                specs[label] = Spec.binary(label) if binary else Spec.robust(label, network.output_size)
            problems.append(cls(network, around(x, eps, norm, domain), specs[label], label))
        return problems

    @classmethod
    def from_files(
        cls,
        net: str | Path,
        prop: str | Path,
        networks: Mapping[str, str | Path] = MappingProxyType({}),
        outputs: Sequence[str] = (),
    ) -> list[Problem]:
        """The problems that the VNN-LIB file ``prop`` poses of the network in the ONNX file ``net``.

        Their union is the property: it is falsified if any of them is, and verified only if all are. They share one
        network. ``networks``: files of the other networks that a property of several declares, by name; ``outputs``:
        the outputs that it speaks of, by name, of a model of several that it does not name. Files may be gzipped;
        where one is missing, the same name with ``.gz`` is tried.

        Raises :class:`InputError` for files that are missing, damaged or do not fit together,
        :class:`UnsupportedError` for operations and properties that cannot be represented, :class:`ResourceError`
        beyond the caps on sizes. What is left out of a property or rounded is told by a warning.
        """
        return cast("list[Problem]", import_module(FILES).read_problems(net, prop, networks, outputs))


def check_problem(value: object) -> None:
    """Raise :class:`InputError` for what is no problem, such as a model, or several of them."""
    made = "Problem.robustness(model, x, label, eps) makes one, and verify_many, where a method has it, takes a list"
    check_type(value, Problem, "a Problem", made)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
