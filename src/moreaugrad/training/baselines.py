"""What perturbed training is compared with: noise, and nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moreaugrad.training.inner import Model, loss_values
from moreaugrad.training.losses import PerSampleLoss, cross_entropy
from moreaugrad.training.protocol import Protocol, Round


def _round(x: Tensor, delta: Tensor, values: Tensor) -> Round:
    norm = delta.flatten(1).norm(dim=1)
    unknown = torch.full_like(norm, torch.nan)
    return Round(loss=values, x=x, h=unknown, norm=norm, gap=unknown)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plain(Protocol):
    """No perturbation.

    >>> for r in mg.training.Plain().rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser
    """

    def rounds(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Iterator[Round]:
        near = self._near(x)
        yield _round(near.x, near.zero(), loss_values(model, near.x, y, loss))


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianNoise(Protocol):
    """x + sigma z, z standard normal, another one at each call.

    >>> for r in mg.training.GaussianNoise(0.1).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser
    """

    sigma: float = field(default=0.1, kw_only=False)
    """Standard deviation of the noise, in `units`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"sigma: expected a finite number >= 0, got {self.sigma!r}")

    def rounds(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Iterator[Round]:
        near = self._near(x)
        delta = near.zero() if self.sigma == 0 else self.sigma * self._normal(near, ids)
        delta = near.inside(delta)
        noisy = near.at(delta)
        self.tally.calls += 1
        yield _round(noisy, delta, loss_values(model, noisy, y, loss))
