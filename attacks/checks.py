"""Signs that attacks overstate robustness: gradients, randomness or outputs that mislead them.

After Carlini et al. 2019 (arXiv:1902.06705) and the checks of AutoAttack (Croce and Hein 2020, arXiv:2003.01690).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from assay.attacks.common.interface import Model, check_model, forward
from assay.attacks.common.losses import cross_entropy
from assay.attacks.common.projected_gradient import gradient
from assay.verify.core.binary import class_scores
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.region import Domain
from assay.verify.support.plain import counted

BLACK_BOX = ("grid", "hopskipjump", "random", "sparse-rs", "square")
ROUNDING = 1e-4


class AttackWarning(UserWarning):
    """Attacks on this model may overstate its robustness."""


def warn(model: Model, x: Tensor, labels: Tensor, domain: Domain | None = (0.0, 1.0)) -> list[str]:
    """:func:`suspicions` as warnings, which are returned too: x (batch x shape), labels (batch)."""
    messages = list(suspicions(model, x, labels, domain))
    for message in messages:
        warnings.warn(message, AttackWarning, stacklevel=2)
    return messages


def suspicions(model: Model, x: Tensor, labels: Tensor, domain: Domain | None = (0.0, 1.0)) -> Iterator[str]:
    """What may mislead attacks on the model at x (batch x shape), labels (batch): one line for each finding.

    A few dozen samples are enough. Raises :class:`InputError` for models and inputs that attacks refuse too.
    """
    check_model(model, x)
    with torch.inference_mode(False), torch.no_grad():
        x, labels = x.detach().clone(), torch.as_tensor(labels).detach().clone().to(x.device, torch.int64)
        if not len(x):
            return
        yield from _outside(x, domain)
        before = _state(model)
        y = forward(model, x)
        if not bool(y.isfinite().all()):
            yield "the model's outputs are not finite: nothing can be said about it, nor about its gradients"
            return
        random = not _close(y, forward(model, x))
        if random:
            yield (
                "the model's outputs change from run to run: it is randomised, and gradients of one run mislead; "
                "attack the expectation with pgd-eot"
            )
        if before != _state(model):
            yield "the model changes its own weights or buffers while it runs: it is dynamic, and results do not repeat"
        elif not random and not _close(y, torch.cat([forward(model, sample[None]) for sample in x])):
            yield (
                "the model's output for a sample depends on what else is in the batch: it is dynamic, and results "
                "hold for this batch only"
            )
        yield from _probabilities(y)
        yield from _gradients(model, x, labels)


def black_box_ahead(success: Mapping[str, Tensor]) -> str | None:
    """A line if attacks without gradients break samples that none with gradients breaks; else None.

    ``success``: by the name of the attack, each (batch), bool.
    """
    black = [broken for name, broken in success.items() if name.partition("(")[0] in BLACK_BOX]
    white = [broken for name, broken in success.items() if name.partition("(")[0] not in BLACK_BOX]
    if not black or not white:
        return None
    ahead = torch.stack(black).any(0) & ~torch.stack(white).any(0)
    if not bool(ahead.any()):
        return None
    return (
        f"attacks without gradients broke {int(ahead.sum())} of {counted(len(ahead), 'sample')} that none with "
        "gradients did: the gradients are likely masked; try other losses, more restarts, or autoattack"
    )


def _outside(x: Tensor, domain: Domain | None) -> Iterator[str]:
    if domain is None:
        return
    low, high = (torch.as_tensor(bound, dtype=torch.float64, device=x.device) for bound in domain)
    if bool(((x.double() < low) | (x.double() > high)).any()):
        yield (
            f"the inputs have values from {float(x.min()):g} to {float(x.max()):g}, outside of the domain "
            f"[{float(low.min()):g}, {float(high.max()):g}]: scale them, and normalise inside of the model"
        )


def _probabilities(y: Tensor) -> Iterator[str]:
    total = y.double().sum(1)
    if y.shape[1] == 1 and bool(((y >= 0) & (y <= 1)).all()):
        yield (
            "the model's one output lies from 0 to 1, as a probability does: what divides the classes is 0, so leave "
            "out the Sigmoid at its end"
        )
    elif bool(((y >= 0) & (y <= 1)).all() and ((total - 1).abs() < ROUNDING).all()):
        yield (
            "the model's outputs are probabilities: their gradients vanish where it is confident; "
            "attack the logits, without the softmax"
        )


def _gradients(model: Model, x: Tensor, labels: Tensor) -> Iterator[str]:
    with torch.enable_grad():
        point = x.requires_grad_()
        try:
            grad = gradient(cross_entropy(class_scores(forward(model, point)), labels), point)
        except (InputError, UnsupportedError):
            yield "the model has no gradient: only attacks without gradients work, such as square and hopskipjump"
            return
    flat = int((grad.flatten(1) == 0).all(1).sum())
    if flat:
        yield (
            f"the gradient of the cross-entropy is zero at {flat} of {counted(len(x), 'sample')}: gradients are "
            "masked or the model is saturated; attack the margin too (loss=margin), and without gradients (square)"
        )


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * float(a.abs().amax()), equal_nan=True))


def _state(model: Model) -> list[tuple[str, int, int]]:
    """What changes when a module writes to its own tensors: their identity and version."""
    if not isinstance(model, nn.Module):
        return []
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor.data_ptr(), tensor._version) for name, tensor in tensors]
