"""The import check: a network and the model that it was made from must agree, within the model's rounding errors."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from assay.verify.core.errors import AssayError, InternalError, ResourceError, UnsupportedError
from assay.verify.core.network import Network, Oracle
from assay.verify.core.ops import Smooth, Step
from assay.verify.core.roundings import terms
from assay.verify.frontends.extremes import extremes
from assay.verify.support.failures import explained

VALUES = 2**23  # numbers that are kept at once, whatever the size of the network
PRODUCTS = 2**31  # that running the network at all of the points may take
FEWEST = 3  # points at which it is run all the same
FEW = 4  # at which digits are compared where errors have no bound


def agree(network: Network, double: Oracle | None = None) -> None:
    """:func:`agree_on` at random points and at those that drive neurons to their :func:`extremes`.

    Fewer of them where the network is large. Where an output has no bound on its errors at any, it must agree to half
    of the digits at the first few: else :class:`UnsupportedError` is raised, since nothing says that the network is the
    model.
    """
    points = torch.cat([random_points(network), extremes(network)])
    products = sum(terms(node.op) * node.size for node in network.nodes)
    most = max(PRODUCTS // max(products, 1), FEWEST)
    if len(points) > most:  # in the cube, beyond it, and a corner, and then as they come
        chosen = [0, 4, 10, *(i for i in range(len(points)) if i not in (0, 4, 10))]
        points = points[torch.tensor(chosen[:most])]
    compared = agree_on(network, points, double)
    model = double or network.oracle
    if model is None or bool(compared.all()):
        return
    unsure = ~(compared | _near(network, points[:FEW], model, network.dtype if double is None else torch.float64))
    if bool(unsure.any()):
        raise UnsupportedError(
            f"the import cannot be checked: the rounding errors of {int(unsure.sum())} of {unsure.numel()} outputs "
            f"have a bound at none of {len(points)} points, and they differ, or are not finite, where they are compared"
        )


def _near(network: Network, points: Tensor, model: Oracle, dtype: torch.dtype) -> Tensor:
    """Which outputs of the network and of ``model``, which runs in ``dtype``, agree to half of that one's digits at all
    ``points`` (batch x input shape) at which the model's is finite, and at one at least: of the output's shape."""
    with torch.no_grad():
        points = points.to(network.dtype)
        logits = network(points.double())
        ours, _ = _read_out(network.readout, logits, torch.zeros_like(logits), dtype)
        theirs = model(points.to(dtype)).double()
    finite = theirs.isfinite()
    close = (ours - theirs).abs() <= sqrt(torch.finfo(dtype).eps) * (1 + ours.abs())
    return torch.all(close | ~finite, 0) & finite.any(0)


def agree_on(network: Network, points: Tensor, double: Oracle | None = None) -> Tensor:
    """Raise :class:`InternalError` unless network and oracle agree at ``points`` (batch x input shape); which outputs
    were compared at some of them, of the output's shape.

    In the oracle's dtype within twice the running error bound of that arithmetic; in float64, against ``double``, the
    model in that precision where there is one, to 1e-9 of the magnitudes that are summed, and that precision's errors.
    They are those of ``network.literal``, the translation before folding: what cancels in folded constants is rounded
    in the original. Points are rounded to the oracle's dtype. Outputs of the oracle that are not finite are not
    compared, nor those whose errors have no bound, nor points at which its whole numbers wrap around.
    """
    points = points if network.held is None else _kept(network.held, points.to(network.dtype))
    together = max(VALUES // sum(node.size for node in network.nodes), 2)  # one alone says nothing of batches
    with torch.no_grad():
        parts = torch.split(points.to(network.dtype), together)
        return torch.stack([_compare(network, part, double) for part in parts]).any(0)


def _kept(held: Network, points: Tensor) -> Tensor:
    """The points (batch x input shape) at which all whole numbers are within what their types hold: elsewhere the model
    wraps around, the network does not, and nothing is proved."""
    with torch.no_grad():
        kept = points[(held(points.double()).flatten(1).abs() < 1).all(1)]
    if not len(kept):
        raise UnsupportedError(
            f"whole numbers of the model are more than their type holds at all of {len(points)} points"
        )
    return kept


def _compare(network: Network, points: Tensor, double: Oracle | None) -> Tensor:
    logits = network(points.double())
    known = (network.literal or network).rounding_error(points, network.dtype)
    error, magnitude = (bound.nan_to_num(torch.inf, torch.inf) for bound in known)  # where there is none, all may be
    wraps = _wrapping(network, points)
    error[wraps] = torch.inf
    compared = torch.zeros_like(logits[0], dtype=torch.bool)
    if network.oracle is not None:
        ours, tolerance = _read_out(network.readout, logits, 2 * error + 1e-9 * magnitude, network.dtype)
        one = int(tolerance.isfinite().flatten(1).sum(1).argmax())  # where the most can be compared
        theirs, alone = _oracle_values(network.oracle, points, one)
        if theirs.shape != ours.shape:
            raise InternalError(f"the import changed the output shape: {tuple(theirs.shape)}, {tuple(ours.shape)}")
        if _worst(alone, theirs[one : one + 1], 2 * tolerance[one : one + 1]) is not None:
            again, _ = _oracle_values(network.oracle, points[one : one + 1], 0)
            if _worst(alone, again, 2 * tolerance[one : one + 1]) is not None:
                raise UnsupportedError("one input has several outputs: the model draws at random or keeps a state")
            raise UnsupportedError("the model depends on the batch: a sample's output changes with those beside it")
        compared = _demand(ours, theirs, tolerance, "in its own arithmetic")
    if double is not None:
        ops = [node.op for node in network.nodes]
        jumps = any(isinstance(op, Step) for op in ops)
        if any(isinstance(op, Smooth) and op.curve == "softplus" for op in ops):
            slack = error  # the library's softplus is the identity from its threshold on, in any precision
        else:  # errors shrink as the unit does, and more; where they had no bound, they may have one now
            slack = torch.where(error.isfinite(), 4e-9 * error, torch.nan)
        if jumps or bool(slack.isnan().any()):
            finer, magnitude = (network.literal or network).rounding_error(points, torch.float64)
            finer, magnitude = 2 * finer.nan_to_num(torch.inf, torch.inf), magnitude.nan_to_num(torch.inf, torch.inf)
            slack = finer if jumps else torch.where(slack.isnan(), finer, slack)  # which jump hangs on the unit itself
        slack[wraps] = torch.inf
        wide = 1e-9 * magnitude + slack + 1e-300
        ours, tolerance = _read_out(network.readout, logits, wide, torch.float64)
        compared |= _demand(ours, double(points.double()), tolerance, "in float64")
    return compared


def _wrapping(network: Network, points: Tensor) -> Tensor:
    """At which points whole numbers of the model may be beyond what their types hold, where the network's are not:
    (batch)."""
    if network.held is None:
        return torch.zeros(len(points), dtype=torch.bool)
    error, _ = network.held.rounding_error(points, network.dtype)
    share = network.held(points.double()).abs() + error
    return ~(share < 1).flatten(1).all(1)


def _read_out(readout: str, logits: Tensor, tolerance: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What the oracle makes of the logits (batch x classes) at last, and how far rounding may take that.

    Each logarithm of a probability moves by at most twice what a logit does, and by the roundings of the logits'
    differences, of the exponentials and their sum.
    """
    if not readout:
        return logits, tolerance
    if readout == "argmax":  # scores that may lie in each other's way say nothing of which is the largest
        best, place = (logits - tolerance).max(-1, keepdim=True)
        sure = ((logits + tolerance) < best).sum(-1, keepdim=True) == logits.shape[-1] - 1
        label = torch.zeros_like(logits).scatter(-1, place, 1.0)
        return label, torch.zeros_like(logits).masked_fill(~sure, torch.inf)
    unit, size = torch.finfo(dtype).eps, logits.shape[-1]
    logarithms = logits.log_softmax(-1)
    shift = 2 * tolerance.amax(-1, keepdim=True) + (size + 16) * unit + 4 * unit * logits.abs().amax(-1, keepdim=True)
    if readout == "log_softmax":
        return logarithms, shift + 4 * unit * logarithms.abs()
    share = logarithms.exp()
    return share, (share * shift.clamp(max=700).expm1() + torch.finfo(dtype).tiny).clamp(max=1.0)


def random_points(network: Network) -> Tensor:
    """Nine points, the same ones each time: (9 x input shape), float64."""
    generator = torch.Generator().manual_seed(1)
    shape = (4, *network.input_shape)
    unit = torch.rand(shape, dtype=torch.float64, generator=generator)
    wide = 3 * torch.randn(shape, dtype=torch.float64, generator=generator)
    return torch.cat([unit, wide, torch.zeros_like(unit[:1])])


def _oracle_values(oracle: Oracle, points: Tensor, one: int) -> tuple[Tensor, Tensor]:
    """The oracle at ``points`` (batch x input shape) and at ``one`` of them alone, in float64: (batch x output shape)
    and (1 x output shape). It must leave its input as it is."""
    given = points.clone()
    try:
        values, alone = oracle(given), oracle(points[one : one + 1].clone())
    except AssayError:
        raise
    except Exception as error:  # whatever the user's code raises
        if isinstance(explained(error), ResourceError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(f"the model depends on the size of the batch: {reason}") from error
    if given._version:
        raise UnsupportedError("the model overwrites its input in place")
    if alone.shape[1:] != values.shape[1:] or len(alone) != 1:
        raise UnsupportedError("the model depends on the size of the batch: one sample gives another shape")
    return values.double(), alone.double()


def _worst(ours: Tensor, theirs: Tensor, tolerance: Tensor) -> float | None:
    """The largest difference, if one is beyond the tolerance where ``theirs`` and that are finite."""
    difference = (ours - theirs).abs()
    finite = theirs.isfinite() & tolerance.isfinite()
    if bool((difference[finite] <= tolerance[finite]).all()) and bool(ours[finite].isfinite().all()):
        return None
    return float(difference[finite].max())


def _demand(ours: Tensor, theirs: Tensor, tolerance: Tensor, where: str) -> Tensor:
    """Which outputs were compared at some point: of the shape of one."""
    worst = _worst(ours, theirs, tolerance)
    if worst is not None:
        raise InternalError(f"the imported network differs from the model {where} by {worst:g}; please report this")
    return (theirs.isfinite() & tolerance.isfinite()).any(0)
