"""The region of one radius in a norm, or of what is measured like one: numbers of pixels, sides of patches."""

from __future__ import annotations

from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.norms import PATCH
from assay.verify.core.region.ball import Domain, LpBall
from assay.verify.core.region.sparse import FewPixels, Sparse, Window


def around(centre: Tensor, eps: float | Tensor, norm: float, domain: Domain | None = (0.0, 1.0)) -> LpBall | Sparse:
    """What lies within ``eps`` of ``centre`` (shape, or batch x shape): a ball of the norms 1, 2 and inf, at most eps
    changed pixels for 0, a square patch of eps x eps pixels anywhere for :data:`PATCH`.

    Raises :class:`InputError` as the regions do, and for a number of pixels that is not whole.
    """
    if norm not in (0, PATCH):
        return LpBall(centre, eps, norm, domain)
    if (isinstance(eps, Tensor) and eps.dim()) or float(eps) != int(float(eps)) or float(eps) < 0:
        raise InputError(f"eps counts pixels here, and must be a whole number of at least 0, got {eps}")
    if domain is None:
        raise InputError("changed pixels may be anything in the domain: it is needed, got none")
    count = int(float(eps))
    return Sparse(centre, Window(count, count) if norm == PATCH and count else FewPixels(count), domain)
