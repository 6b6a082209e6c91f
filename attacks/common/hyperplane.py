"""The nearest point of a hyperplane within a box, in every norm: the step of FAB (Croce and Hein 2020)."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

# Newton's method on a piecewise linear function ends by itself; ten pieces are more than it ever needs in practice.
NEWTON = 20


def nearest(x: Tensor, normal: Tensor, value: Tensor, lower: Tensor, upper: Tensor, p: float, scale: Tensor) -> Tensor:
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
        size = _largest_first(gain, room, goal)
    else:
        size = _at_one_speed(gain, room, goal, gain if p == 2 else scale.expand_as(x).flatten(1))
    return toward.sign() * size.view_as(x)


def _at_one_speed(gain: Tensor, room: Tensor, goal: Tensor, speed: Tensor) -> Tensor:
    """``min(time * speed, room)`` at the time when the gains add up to the goal: (batch x coordinates).

    What has been gained is concave in the time and linear between the moments when a coordinate arrives, so that
    Newton's method from time 0 approaches the goal from below and ends on its piece, without sorting.
    """
    room = torch.where(gain * speed > 0, room, 0.0)
    reached, rate = gain * room, gain * speed
    time = torch.zeros_like(goal)
    for _ in range(NEWTON):
        moving = room > time * speed
        pace = (rate * moving).sum(1, keepdim=True)
        arrived = torch.where(moving, 0.0, reached).sum(1, keepdim=True)
        later = torch.maximum((goal - arrived) / pace, time)  # inf where nothing moves any more
        done = (later == time).all()
        time = torch.where(pace > 0, later, inf)
        if done:
            break
    return torch.where(time.isinf(), room, torch.minimum(time.nan_to_num(posinf=0.0) * speed, room))


def _largest_first(gain: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """The coordinates of largest gain filled up one after the other until the goal is reached: l1."""
    order = gain.argsort(dim=1, descending=True)
    gain, room = gain.gather(1, order), torch.where(gain > 0, room, 0.0).gather(1, order)
    full = (gain * room.nan_to_num(posinf=torch.finfo(room.dtype).max)).cumsum(1)
    before = torch.cat([torch.zeros_like(goal), full[:, :-1]], 1)
    need = (goal - before).clamp(min=0) / gain.clamp(min=torch.finfo(gain.dtype).tiny)
    return torch.zeros_like(gain).scatter(1, order, torch.minimum(room, need))
