"""The nearest point of a hyperplane within a box, in every norm: the step of FAB (Croce and Hein 2020)."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

# The most steps of Newton's method, which ends by itself on a piecewise linear function, in practice within ten.
NEWTON_STEPS = 20


def shortest_step(
    x: Tensor, normal: Tensor, value: Tensor, lower: Tensor, upper: Tensor, p: float, scale: Tensor
) -> Tensor:
    """The shortest step from x to where ``value + <normal, step>`` is 0, within the box: (batch x shape).

    ``x``, ``normal`` (batch x shape); ``value`` (batch); the box broadcasts against x and holds it. Norms: l1, l2, and
    for inf the largest coordinate measured in ``scale``, which broadcasts too. Where the box does not reach the
    hyperplane, the step goes as far towards it as the box allows.
    """
    toward = -normal * value.sign().to(normal).view(-1, *[1] * (normal.dim() - 1))
    room = torch.where(toward > 0, upper - x, x - lower).clamp(min=0).flatten(1)
    gain = toward.abs().flatten(1)
    goal = value.abs().to(gain)[:, None]
    if p == 1:
        size = _greedy_step(gain, room, goal)
    else:
        size = _proportional_step(gain, room, goal, gain if p == 2 else scale.expand_as(x).flatten(1))
    return toward.sign() * size.view_as(x)


def _proportional_step(gain: Tensor, room: Tensor, goal: Tensor, speed: Tensor) -> Tensor:
    """l2 and linf: ``min(time * speed, room)`` at the time when the gains add up to the goal: (batch x coordinates).

    The gain is concave in the time, and linear between the times at which coordinates reach their bounds: Newton's
    method from time 0 approaches the goal from below and ends on the right piece, without sorting.
    """
    room = torch.where(gain * speed > 0, room, 0.0)
    reached, rate = gain * room, gain * speed
    time = torch.zeros_like(goal)
    for _ in range(NEWTON_STEPS):
        moving = room > time * speed
        pace = (rate * moving).sum(1, keepdim=True)
        arrived = torch.where(moving, 0.0, reached).sum(1, keepdim=True)
        later = torch.maximum((goal - arrived) / pace, time)  # inf where nothing moves any more
        done = (later == time).all()
        time = torch.where(pace > 0, later, inf)
        if done:
            break
    return torch.where(time.isinf(), room, torch.minimum(time.nan_to_num(posinf=0.0) * speed, room))


def _greedy_step(gain: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """l1: coordinates moved to their bounds, largest gain first, until the goal is reached: (batch x coordinates)."""
    order = gain.argsort(dim=1, descending=True)
    gain, room = gain.gather(1, order), torch.where(gain > 0, room, 0.0).gather(1, order)
    full = (gain * room.nan_to_num(posinf=torch.finfo(room.dtype).max)).cumsum(1)
    before = torch.cat([torch.zeros_like(goal), full[:, :-1]], 1)
    need = (goal - before).clamp(min=0) / gain.clamp(min=torch.finfo(gain.dtype).tiny)
    return torch.zeros_like(gain).scatter(1, order, torch.minimum(room, need))
