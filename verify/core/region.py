"""The set of inputs that a statement speaks of: a box, or a norm ball clipped to the input domain.

Bounds are float64. A region's proof side (``box``) is rounded outward, its witness side (``allowed``) inward to
the values that the model's dtype can represent, so that a point is never called a member when it is not one and a
proof never misses one. Methods that take points take a batch: x is (batch x shape), while the region is of one
sample (shape; it then serves the whole batch) or of a batch (batch x shape).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from verify.core.errors import InputError
from verify.core.network import content_hash

Domain = tuple[float | Tensor, float | Tensor]


class Region(Protocol):
    """What attacks and verifiers ask of a set of inputs."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the region's tensors: one sample's, or a batch's."""
        ...

    @property
    def empty(self) -> bool:
        """Whether there is no point at all (in some sample, where the region is of a batch)."""
        ...

    @property
    def centre(self) -> Tensor:
        """The middle of the region, float64."""
        ...

    @property
    def id(self) -> str:
        """Hash of the content."""
        ...

    def box(self) -> Box:
        """The smallest box of float64 bounds that a proof has to cover."""
        ...

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership, tolerance 0: x (batch x shape), result (batch)."""
        ...

    def project(self, x: Tensor) -> Tensor:
        """A member near x, in the dtype of x: (batch x shape)."""
        ...

    def steepest(self, grad: Tensor) -> Tensor:
        """The step of one radius that a linear function with gradient ``grad`` gains most from: (batch x shape)."""
        ...

    def point(self, u: Tensor) -> Tensor:
        """The member at coordinates u of the unit cube (batch x shape), in the dtype of u."""
        ...

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members of a region of one sample: (n x shape), float32."""
        ...


@dataclass(frozen=True, eq=False)
class Box:
    """``lower <= x <= upper``, element by element: one sample's shape, or (batch x shape); kept in float64.

    Where the true bounds are strict, or no float64 numbers, ``lower`` and ``upper`` are rounded outward, and
    ``inner`` is the box of the float64 members, rounded inward: only its points are witnesses.
    """

    lower: Tensor
    upper: Tensor
    inner: Box | None = None

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape:
            raise InputError(f"a box's bounds differ in shape: {tuple(self.lower.shape)}, {tuple(self.upper.shape)}")
        if self.inner is not None and self.inner.shape != self.shape:
            raise InputError(f"a box and its inner box differ in shape: {self.shape}, {self.inner.shape}")
        for name in ("lower", "upper"):
            value = getattr(self, name).detach().to(torch.float64)
            if value.isnan().any():
                raise InputError(f"a box's {name} bound holds NaN")
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the bounds."""
        return tuple(self.lower.shape)

    @property
    def empty(self) -> bool:
        """Whether the bounds contradict each other somewhere."""
        return bool((self.lower > self.upper).any())

    @property
    def centre(self) -> Tensor:
        """The midpoint."""
        return self.lower + (self.upper - self.lower) / 2

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        inner = () if self.inner is None else (self.inner.lower, self.inner.upper)
        return content_hash("box", self.lower, self.upper, *inner)

    def map(self, view: Callable[[Tensor], Tensor]) -> Box:
        """The box with ``view``, which selects or reshapes, applied to all of its bounds."""
        return Box(view(self.lower), view(self.upper), None if self.inner is None else self.inner.map(view))

    def box(self) -> Box:
        """Itself, widened where no float32 lies between the bounds: the model is then run at the nearest one."""
        lower, upper = self.allowed(torch.float32)
        lone = (lower.double() < self.lower) | (upper.double() > self.upper)
        if not bool(lone.any()):
            return self
        return Box(
            torch.where(lone, torch.minimum(self.lower, lower.double()), self.lower),
            torch.where(lone, torch.maximum(self.upper, upper.double()), self.upper),
        )

    def allowed(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of ``dtype`` in each interval; the nearest one where there is none."""
        if dtype not in self._allowed:
            with torch.inference_mode(False):  # kept, so that it must serve callers who need gradients too
                self._allowed[dtype] = self._members(dtype)
        return self._allowed[dtype]

    @cached_property
    def _allowed(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        return {}

    def _members(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        inner = self if self.inner is None else self.inner
        lower, upper = _round_up(inner.lower, dtype), _round_down(inner.upper, dtype)
        none = (lower > upper) & (self.lower <= self.upper)
        nearest = self.centre.to(dtype)
        return torch.where(none, nearest, lower), torch.where(none, nearest, upper)

    def outward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The bounds in another dtype, rounded away from the box."""
        return _round_down(self.lower, dtype), _round_up(self.upper, dtype)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each x lies between the bounds, compared exactly in the dtype of x."""
        lower, upper = self.allowed(x.dtype)
        return ((lower.to(x.device) <= x) & (x <= upper.to(x.device))).flatten(1).all(-1)

    def project(self, x: Tensor) -> Tensor:
        """Clamp; NaN becomes the lower bound."""
        lower, upper = self.allowed(x.dtype)
        lower, upper = lower.to(x.device), upper.to(x.device)
        return torch.where(x.isnan(), lower, torch.minimum(torch.maximum(x, lower), upper))

    def steepest(self, grad: Tensor) -> Tensor:
        """Half the width along the sign of the gradient."""
        return grad.sign() * ((self.upper - self.lower) / 2).to(grad)

    def point(self, u: Tensor) -> Tensor:
        """Linear from the lower to the upper bound."""
        return self.project((self.lower + u.double().to(self.centre.device) * (self.upper - self.lower)).to(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n uniform members."""
        return self.point(torch.rand((n, *self.shape), generator=generator))


@dataclass(frozen=True, eq=False)
class LpBall:
    """``||x - centre||_p <= eps`` within the domain: the closed ball, p in {1, 2, inf}.

    ``centre``: one sample, or (batch x shape); ``eps``: a number, or (batch) numbers; ``domain``: lowest and
    highest legal value, numbers or tensors of the sample's shape, or None for all of the space. The centre must
    lie in the domain. Raises :class:`InputError` for an eps that is negative, NaN or infinite.
    """

    centre: Tensor
    eps: float | Tensor
    p: float = inf
    domain: Domain | None = None

    def __post_init__(self) -> None:
        centre = self.centre.detach().to(torch.float64)
        radius = torch.as_tensor(self.eps, dtype=torch.float64)
        if self.p not in (1, 2, inf):
            raise InputError(f"norm must be 1, 2 or inf, got {self.p}")
        if radius.dim() > 1 or (radius.dim() == 1 and radius.shape[0] != self.centre.shape[0]):
            raise InputError(f"eps must be one number, or one a sample, got shape {tuple(radius.shape)}")
        if not bool((radius.isfinite() & (radius >= 0)).all()):
            raise InputError(f"eps must be a finite number >= 0, got {self.eps}")
        if not bool(centre.isfinite().all()):
            raise InputError("the centre of a ball must be finite, got NaN or inf in the input")
        if self.domain is not None:
            low, high = self._domain()
            if not bool(((low <= centre) & (centre <= high)).all()):
                raise InputError(
                    f"the input has values from {centre.min():g} to {centre.max():g}, outside of the domain "
                    f"[{low.min():g}, {high.max():g}]: scale it, or pass domain=None or the right domain"
                )
        object.__setattr__(self, "centre", centre)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the centre."""
        return tuple(self.centre.shape)

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
        return self._outer.box()

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership: the box inward, and for l1 and l2 the norm in float64 with tolerance 0."""
        inside = self._inner.contains(x)
        return inside & self._within(x) if self.p != inf else inside

    def project(self, x: Tensor) -> Tensor:
        """A member near x. For l1 and l2: into the domain, then onto the ball, which leads towards the centre and so
        stays in the domain; the step is shrunk until membership holds after rounding too."""
        box = self._inner
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
        """eps along the dual-norm direction: signs (inf), the gradient itself (2), its largest coordinate (1)."""
        radius = self.radius.to(grad)
        if self.p == inf:
            return radius * grad.sign()
        flat = grad.flatten(1)
        if self.p == 2:
            flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
            norm: Tensor = flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
            return radius * (flat / norm).view_as(grad)
        top = flat.abs().argmax(1, keepdim=True)
        return radius * torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign()).view_as(grad)

    def point(self, u: Tensor) -> Tensor:
        """The cube mapped onto the ball, radially for l1 and l2, then projected."""
        step = (2 * u.double().to(self.centre.device) - 1) * self.radius
        if self.p != inf:
            flat = step.flatten(1)
            norm = flat.norm(p=self.p, dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
            step = (flat * flat.abs().amax(1, keepdim=True) / norm).view_as(step)
        return self.project((self.centre + step).to(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members; uniform for p = inf, covering but not uniform for l1 and l2."""
        return self.point(torch.rand((n, *self.shape), generator=generator))

    def _domain(self) -> tuple[Tensor, Tensor]:
        assert self.domain is not None
        low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in self.domain)
        return low, high

    @cached_property
    def _outer(self) -> Box:
        return self._bounding(outward=True)

    @cached_property
    def _inner(self) -> Box:
        return self._bounding(outward=False)

    def _bounding(self, outward: bool) -> Box:
        """centre -+ eps rounded away from the centre (or towards it), clipped to the domain."""
        radius = self.radius.expand_as(self.centre)
        lower = _directed_sum(self.centre, -radius, up=not outward)
        upper = _directed_sum(self.centre, radius, up=outward)
        if self.domain is not None:
            low, high = self._domain()
            lower, upper = torch.maximum(lower, low), torch.minimum(upper, high)
        return Box(lower, upper)

    def _within(self, x: Tensor) -> Tensor:
        distance = (x.double() - self.centre.to(x.device)).flatten(1).norm(p=self.p, dim=1)
        radius = torch.as_tensor(self.eps, dtype=torch.float64, device=x.device).expand_as(distance)
        inside: Tensor = distance <= radius
        flat, centre = x.flatten(1), self.centre.expand_as(x).flatten(1)
        doubtful = (distance - radius).abs() <= (flat.shape[1] + 4) * 2.0**-52 * radius
        for i in doubtful.nonzero().flatten().tolist():
            inside[i] = _within_exactly(flat[i], centre[i], radius[i].item(), int(self.p))
        return inside


def _within_exactly(x: Tensor, centre: Tensor, radius: float, p: int) -> bool:
    steps = (abs(Fraction(a) - Fraction(b)) for a, b in zip(x.tolist(), centre.tolist(), strict=True))
    return sum(step**p for step in steps) <= Fraction(radius) ** p


def kind(region: Region) -> tuple[object, ...]:
    """What regions must have in common to make one batch: their type, and a ball's norm and domain."""
    if isinstance(region, LpBall):
        domain = region.domain and content_hash(*(torch.as_tensor(d, dtype=torch.float64) for d in region.domain))
        return LpBall, float(region.p), domain
    return (type(region),)


def stack(regions: Sequence[Region]) -> Region:
    """Regions of one sample each, all of one :func:`kind`, as one region of a batch."""
    if len({kind(region) for region in regions}) != 1:
        raise InputError("only boxes, or balls of one norm and one domain, make a batch")
    if balls := [r for r in regions if isinstance(r, LpBall)]:
        eps = torch.stack([torch.as_tensor(b.eps, dtype=torch.float64) for b in balls])
        return LpBall(torch.stack([b.centre for b in balls]), eps, balls[0].p, balls[0].domain)
    return _stacked([r if isinstance(r, Box) else r.box() for r in regions])


def _stacked(boxes: Sequence[Box]) -> Box:
    inner = None
    if any(b.inner is not None for b in boxes):
        inner = _stacked([b if b.inner is None else b.inner for b in boxes])
    return Box(torch.stack([b.lower for b in boxes]), torch.stack([b.upper for b in boxes]), inner)


def take(region: Region, index: Tensor | slice) -> Region:
    """Some samples of a region of a batch, as a region of a batch."""
    if isinstance(region, LpBall):
        eps = torch.as_tensor(region.eps, dtype=torch.float64)
        domain = region.domain
        if domain is not None:
            low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in domain)
            if low.dim() == region.centre.dim() or high.dim() == region.centre.dim():
                domain = low.expand_as(region.centre)[index], high.expand_as(region.centre)[index]
        return LpBall(region.centre[index], eps[index] if eps.dim() else eps, region.p, domain)
    box = region.box() if not isinstance(region, Box) else region
    return box.map(lambda bound: bound[index])


def _round_up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest number of ``dtype`` that is at least ``value`` (float64)."""
    cast = value.to(dtype)
    return torch.where(cast.double() < value, torch.nextafter(cast, torch.full_like(cast, inf)), cast)


def _round_down(value: Tensor, dtype: torch.dtype) -> Tensor:
    return -_round_up(-value, dtype)


def _directed_sum(a: Tensor, b: Tensor, up: bool) -> Tensor:
    """a + b in float64 rounded up or down; exact sums stay as they are (TwoSum, Knuth)."""
    total = a + b
    back = total - a
    error = (a - (total - back)) + (b - back)
    direction = torch.full_like(total, inf if up else -inf)
    return torch.where(error > 0 if up else error < 0, torch.nextafter(total, direction), total)


def onto_l2(step: Tensor, radius: Tensor) -> Tensor:
    """Euclidean projection of each step (batch x shape) onto the l2 ball of ``radius``, which broadcasts against it."""
    flat = step.flatten(1)
    norm = flat.norm(dim=1).view(-1, *[1] * (step.dim() - 1)).clamp(min=torch.finfo(step.dtype).tiny)
    shrunk: Tensor = step * (radius / norm).clamp(max=1)
    return shrunk


def onto_l1(step: Tensor, radius: Tensor) -> Tensor:
    """Euclidean projection of each step (batch x shape) onto the l1 ball of ``radius`` (Duchi et al. 2008)."""
    flat = step.flatten(1)
    bound = radius.reshape(-1, 1).expand(len(flat), 1)
    magnitude, _ = flat.abs().sort(dim=1, descending=True)
    excess = magnitude.cumsum(1) - bound
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (magnitude * rank > excess).sum(1, keepdim=True).clamp(min=1)
    threshold = (excess.gather(1, last - 1) / last).clamp(min=0)
    shrunk = flat.sign() * (flat.abs() - threshold).clamp(min=0)
    inside = flat.abs().sum(1, keepdim=True) <= bound
    return torch.where(inside, flat, shrunk).view_as(step)
