"""A question about the parameters of a perturbation: a problem like any other, of few inputs, with an image between
them and the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from assay.verify.core.binary import check_sign
from assay.verify.core.errors import InputError, check_type
from assay.verify.core.network import Builder, Network, check_network, content_hash
from assay.verify.core.ops import Opaque
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.perturbations.kinds import Perturbation

WHY = "no method reads it: cells(method=...) encloses what it makes"


@dataclass(frozen=True, eq=False, repr=False)
class Perturbed(Problem):
    """Whether a network keeps the label whatever happens to the ``image`` (channels x height x width).

    ``network`` is that of the parameters, float64, which makes the image of them, rounds it to the type of ``behind``,
    the network that was asked about, and runs that. Attacks take it as it is; methods see one operation that they do
    not know, but for those that look at ``image``, ``perturbation`` and ``behind`` themselves.
    """

    behind: Network = field(kw_only=True)
    image: Tensor = field(kw_only=True)
    perturbation: Perturbation = field(kw_only=True)

    @classmethod
    def of(cls, network: Network, image: Tensor, label: int, perturbation: Perturbation) -> Perturbed:
        """The question about one image. Raises :class:`InputError` for what is none."""
        check_network(network)
        check_type(perturbation, Perturbation, "a Perturbation", "Perturbation.parse('rotation(10)') makes one")
        if image.dim() != 3 or tuple(image.shape) != network.input_shape:
            raise InputError(
                "expected an image (channels x height x width) of the shape that the network takes, "
                f"{network.input_shape}, got {tuple(image.shape)}"
            )
        low, high = perturbation.domain
        if not bool(((image >= low) & (image <= high)).all()):
            raise InputError(f"expected an image with values from {low:g} to {high:g}, the domain of the perturbation")
        if network.output_size == 1:
            check_sign(network)
            spec = Spec.binary(label)
        else:
            spec = Spec.robust(label, network.output_size)
        image, behind = image.to(torch.float64), network.ordered
        region = Box(perturbation.low, perturbation.high)
        of_parameters = _made(behind, image, perturbation)
        return cls(of_parameters, region, spec, label, behind=behind, image=image, perturbation=perturbation)

    @cached_property
    def clean(self) -> Tensor:
        """The image in the type of the network, as nothing happened to it."""
        return self.image.to(self.behind.dtype)

    def images(self, at: Tensor) -> Tensor:
        """What the network behind is given at parameters (count x parameters): (count x image), in its type."""
        return self.perturbation.images(self.image, at.to(torch.float64)).to(self.behind.dtype)

    def named(self, at: Tensor) -> dict[str, float]:
        """Parameters (parameters) by name."""
        return dict(zip(self.perturbation.names, at.tolist(), strict=True))


def _made(network: Network, image: Tensor, perturbation: Perturbation) -> Network:
    """The network of the parameters."""
    run = partial(_images, perturbation, image, network.dtype)
    content = content_hash("perturbed", image, perturbation, str(network.dtype))
    op = Opaque(run, torch.float64, str(perturbation), WHY, content, differentiable=True)
    builder = Builder((len(perturbation.low),))
    at = builder.add(op, 0, shape=tuple(image.shape))
    oracle = partial(_run, network.oracle or network, run)
    return builder.build(builder.embed(network, at), oracle, torch.float64, network.name)


def _images(perturbation: Perturbation, image: Tensor, dtype: torch.dtype, at: Tensor) -> Tensor:
    return perturbation.images(image, at).to(dtype)


def _run(model: Callable[[Tensor], Tensor], images: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    return model(images(at.to(torch.float64)))
