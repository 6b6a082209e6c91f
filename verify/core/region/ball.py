"""Norm balls clipped to the input domain."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.core.norms import norm_name
from assay.verify.core.region.box import Box
from assay.verify.core.region.projections import onto_l1, onto_l2
from assay.verify.core.region.rounding import directed_sum
from assay.verify.support import shown
from assay.verify.support.arrays import as_tensor, own_tensor
from assay.verify.support.floats import length

Domain = tuple[float | Tensor, float | Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class LpBall:
    """``||x - centre||_p <= eps`` within the domain: the closed ball, p in {1, 2, inf}.

    ``centre``: one sample, or (batch x shape). ``eps``: a number, or one for each entry of the first axis (samples of
    a batch, channels of an image), or for linf a tensor that broadcasts to the centre (features). ``domain``: lowest
    and highest legal value, numbers or tensors that broadcast to the centre, or None for all of the space. The centre
    must lie in the domain. Raises :class:`InputError` for an eps that is negative, NaN or infinite, and for shapes that
    do not fit.
    """

    centre: Tensor
    eps: float | Tensor
    p: float = inf
    domain: Domain | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        centre = own_tensor(self.centre, "the centre of a ball", torch.float64)
        radius = own_tensor(self.eps, "eps", torch.float64)
        if self.p not in (1, 2, inf):
            raise InputError(f"norm must be the number 1, 2 or math.inf, got {self.p!r}")
        first = radius.dim() == 1 and radius.shape == centre.shape[:1]
        if self.p != inf and radius.dim() and (not first or centre.dim() == 1):
            raise InputError(
                f"expected one eps, or one a sample: a ball in l{self.p:g} has no eps for each feature, got shape "
                f"{tuple(radius.shape)}"
            )
        if radius.dim() and not first:
            radius = _like(radius, centre, "eps")
        if not bool((radius.isfinite() & (radius >= 0)).all()):
            raise InputError(f"eps must be a finite number >= 0, got {self.eps}")
        if not bool(centre.isfinite().all()):
            raise InputError("the centre of a ball must be finite, got NaN or inf in the input")
        if self.domain is not None:
            low, high = self._domain()
            for side in (low, high):
                _like(side, centre, "a domain")
            if not bool(((low <= centre) & (centre <= high)).all()):
                raise InputError(
                    f"the input has values from {centre.min():g} to {centre.max():g}, outside of the domain "
                    f"[{low.min():g}, {high.max():g}]: scale it, or pass domain=None or the right domain"
                )
            if not all(isinstance(side, (int, float)) for side in self.domain):
                own = tuple(own_tensor(side, "a domain", torch.float64) for side in (low, high))
                object.__setattr__(self, "domain", own)
        object.__setattr__(self, "centre", centre)
        if not isinstance(self.eps, (int, float)):
            object.__setattr__(self, "eps", radius)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the centre."""
        return tuple(self.centre.shape)

    def __repr__(self) -> str:
        return shown.line("LpBall", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("LpBall", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        domain = "none"
        if self.domain is not None:
            low, high = self._domain()
            domain = shown.span(low.amin().item(), high.amax().item())
        radius = self.radius
        eps = shown.span(radius.amin().item(), radius.amax().item()) if radius.numel() else "none"
        return {"shape": self.shape, "norm": norm_name(float(self.p)), "eps": eps, "domain": domain}

    @property
    def empty(self) -> bool:
        """Never: the centre is a member."""
        return False

    @property
    def radius(self) -> Tensor:
        """eps, shaped so that it broadcasts against the centre."""
        radius = torch.as_tensor(self.eps, dtype=torch.float64)
        return radius.reshape(*radius.shape, *[1] * (self.centre.dim() - radius.dim())) if radius.dim() else radius

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        return content_hash(
            "ball",
            self.centre,
            torch.as_tensor(self.eps, dtype=torch.float64),
            float(self.p),
            *(self._domain() if self.domain is not None else ()),
        )

    def box(self) -> Box:
        """The bounding box of the ball within the domain, rounded outward."""
        return self.bounds.box()

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership of x (batch x shape): (batch). The box inward, and for l1 and l2 the norm in float64 with
        tolerance 0."""
        inside = self.bounds.contains(x)
        return inside & self._within(x) if self.p != inf else inside

    def project(self, x: Tensor) -> Tensor:
        """A member near x (batch x shape). For l1 and l2: into the domain, then onto the ball, which leads towards the
        centre and so stays in the domain; the step is shrunk until membership holds after rounding too."""
        box = self.bounds
        if self.p == inf:
            return box.project(x)
        member = self.contains(x)
        if bool(member.all()):
            return x
        centre, radius = self.centre.to(x.device), self.radius.to(x.device)
        far = x.double().nan_to_num()
        if self.domain is not None:
            low, high = self._domain()
            far = torch.minimum(torch.maximum(far, low.to(x.device)), high.to(x.device))
        step = (onto_l1 if self.p == 1 else onto_l2)(far - centre, radius)
        each = (-1,) + (1,) * (x.dim() - 1)
        # Rounding to the dtype of x lengthens a step by an ulp or so: the first try leaves room for that.
        slack = 2 * torch.finfo(x.dtype).eps
        moved = (step != far - centre).flatten(1).any(1)
        shrink = 1 - slack * moved.double()
        for attempt in range(8):
            candidate = torch.where(member.view(each), x, box.project((centre + shrink.view(each) * step).to(x.dtype)))
            inside = self.contains(candidate)
            if bool(inside.all()):
                return candidate
            shrink = torch.where(inside, shrink, shrink * (1 - slack * 8**attempt))
        fallback = box.project(centre.expand_as(x).to(x.dtype))
        return torch.where(inside.view(each), candidate, fallback)

    def steepest(self, grad: Tensor) -> Tensor:
        """eps along the dual-norm direction: signs (inf), the gradient itself (2), its largest coordinate (1). grad and
        result (batch x shape)."""
        radius = self.radius.to(grad)
        if self.p == inf:
            return radius * grad.sign()
        flat = grad.flatten(1)
        if self.p == 2:
            flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
            size = length(flat, 2, 1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
            return radius * (flat / size).view_as(grad)
        top = flat.abs().argmax(1, keepdim=True)
        return radius * torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign()).view_as(grad)

    def point(self, u: Tensor) -> Tensor:
        """The cube mapped onto the ball, radially for l1 and l2, then projected: u and result (batch x shape)."""
        step = (2 * u.double().to(self.centre.device) - 1) * self.radius
        if self.p != inf:
            flat = step.flatten(1)
            size = length(flat, self.p, 1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
            step = (flat * (flat.abs().amax(1, keepdim=True) / size)).view_as(step)
        return self.project((self.centre + step).to(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members (n x shape); uniform for p = inf, covering but not uniform for l1 and l2."""
        return self.point(torch.rand((n, *self.shape), generator=generator))

    def _domain(self) -> tuple[Tensor, Tensor]:
        assert self.domain is not None
        try:
            low, high = self.domain
        except (TypeError, ValueError) as error:
            raise InputError(f"expected a domain (lowest, highest), or None, got {self.domain!r}") from error
        return as_tensor(low, "a domain", torch.float64), as_tensor(high, "a domain", torch.float64)

    @cached_property
    def bounds(self) -> Box:
        """centre -+ eps, clipped to the domain: rounded away from the centre, and towards it for the members."""
        radius = self.radius.expand_as(self.centre)
        sides = []
        for outward in (True, False):
            lower = directed_sum(self.centre, -radius, up=not outward)
            upper = directed_sum(self.centre, radius, up=outward)
            if self.domain is not None:
                low, high = self._domain()
                lower, upper = torch.maximum(lower, low), torch.minimum(upper, high)
            sides.append(Box(lower, upper))
        return Box(sides[0].lower, sides[0].upper, sides[1])

    def _within(self, x: Tensor) -> Tensor:
        """Membership in the ball alone: in float64, and exactly where that leaves a doubt."""
        distance = length((x.double() - self.centre.to(x.device)).flatten(1), self.p, 1)
        radius = torch.as_tensor(self.eps, dtype=torch.float64, device=x.device).expand_as(distance)
        inside = distance <= radius
        flat, centre = x.flatten(1), self.centre.expand_as(x).flatten(1)
        # What overflows is in doubt, too, and so is what is next to no distance at all.
        doubtful = ~((distance - radius).abs() > (flat.shape[1] + 4) * (2.0**-52 * radius + 2.0**-1074))
        doubtful |= (distance == inf) & x.isfinite().flatten(1).all(1)
        for i in doubtful.nonzero().flatten().tolist():
            inside[i] = _within_exactly(flat[i], centre[i], radius[i].item(), int(self.p))
        return inside


def _like(value: Tensor, centre: Tensor, what: str) -> Tensor:
    """``value`` broadcast to the shape of the centre."""
    try:
        return value.expand_as(centre)
    except RuntimeError:
        raise InputError(
            f"expected {what} of a shape that broadcasts to the input's {tuple(centre.shape)}, got "
            f"{tuple(value.shape)}: one value a channel needs the shape (channels, 1, 1)"
        ) from None


def _within_exactly(x: Tensor, centre: Tensor, radius: float, p: int) -> bool:
    if not bool(x.isfinite().all()):
        return False
    steps = (abs(Fraction(a) - Fraction(b)) for a, b in zip(x.tolist(), centre.tolist(), strict=True))
    return sum(step**p for step in steps) <= Fraction(radius) ** p
