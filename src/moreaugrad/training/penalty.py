"""Protocols with a penalty on the gradient, whose conjugate weighs the perturbation."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.registry import choose
from moreaugrad.training.harmonisation import GuidedPenalty
from moreaugrad.training.inner import InnerProblem
from moreaugrad.training.places import EVAL, MODES, in_mode
from moreaugrad.training.protocol import PerturbingProtocol, Protocol
from moreaugrad.training.rounds import Perturbation

CHECK_EVERY = 100
CHECK_FROM = 10
"""Calls between two checks of whether perturbations raise loss - h (a hundredth of the cost), and
calls before the first check, because untrained weights say little."""


class OvershootWarning(UserWarning):
    """Perturbations are too long for the curvature of the loss: loss - h falls with them.

    >>> import warnings
    >>> warnings.simplefilter("error", mg.training.OvershootWarning)  # stop such a training
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyProtocol(Protocol):
    """A protocol with a penalty R on the gradient, whose conjugate h weighs the perturbation."""

    penalty: Penalty | GuidedPenalty = field(kw_only=False)
    """R: a `Penalty`, or a `GuidedPenalty`, which differs for each image."""
    inner: str = EVAL
    """Mode of the passes that compute the perturbation: "eval", or "train" (the model's own mode;
    these passes then also change the statistics of batch normalisation)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.penalty, (Penalty, GuidedPenalty)):
            raise TypeError(
                f"penalty: expected one such as L1(0.02), got {type(self.penalty).__name__}"
            )
        choose("inner", self.inner, MODES)

    def _penalty(self, problem: InnerProblem) -> Penalty:
        """R of this batch."""
        if isinstance(self.penalty, Penalty):
            return self.penalty
        return self.penalty.of(problem.attention, problem.x)

    def _perturbation(
        self,
        problem: InnerProblem,
        penalty: Penalty,
        delta: Tensor,
        g: Tensor | None,
        x: Tensor | None = None,
    ) -> Perturbation:
        """The perturbation delta, clipped to the box as its input is; g: the last gradient. x: the
        input, where it is another than that of delta."""
        x = problem.at(delta) if x is None else x
        delta = problem.inside(delta)
        h = penalty.conjugate(delta)
        norm = delta.flatten(1).norm(dim=1)
        if g is None:
            gap = torch.full_like(h, torch.nan)
        else:
            gap = penalty.value(g) + h - (g * delta).flatten(1).sum(1)
        return Perturbation(x=x, delta=delta, h=h, norm=norm, gap=gap)

    @property
    def _due(self) -> bool:
        return self.tally.calls % CHECK_EVERY == CHECK_FROM

    def _check(self, problem: InnerProblem, found: Perturbation) -> None:
        """Counts the samples whose loss - h is lower than without a perturbation. Both passes run
        in evaluation mode whatever `inner` is: only there do they evaluate the same function."""
        with in_mode(problem.model, EVAL), torch.no_grad():
            before = problem.values(problem.at(problem.zero()))
            after = problem.values(problem.at(found.delta)) - found.h
        # The released harmonisation has no h. Any other NaN counts as lower: it has diverged.
        known = ~(found.h.isnan() & found.delta.flatten(1).isfinite().all(1))
        lower = int((known & ~(after >= before - 1e-6 * (1 + before.abs()))).sum())
        checked = int(known.sum())
        self.tally.checked += checked
        self.tally.overshot += lower
        if 2 * lower > checked and not self.tally.warned:
            self.tally.warned = True
            warnings.warn(
                f"{type(self).__name__}: loss - h falls with the perturbation for {lower} of "
                f"{checked} samples, so the perturbation is too long for the curvature of the "
                "loss: use smaller weights in the penalty, or more steps",
                OvershootWarning,
                stacklevel=4,
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Adversary(PenaltyProtocol, PerturbingProtocol):
    """A perturbing protocol with a penalty. A subclass implements `_search`."""

    def _perturbed(self, problem: InnerProblem) -> Perturbation:
        penalty, start = self._penalty(problem), problem.zero()
        if vanishes(penalty, start):
            self.tally.calls += 1
            return self._perturbation(problem, penalty, start, start)
        with in_mode(problem.model, self.inner):
            delta, g = self._search(problem, penalty)
        found = self._perturbation(problem, penalty, delta, g)
        if self._due:
            self._check(problem, found)
        self.tally.calls += 1
        return found

    @abstractmethod
    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        """delta, and the last gradient that was computed."""


def vanishes(penalty: Penalty, like: Tensor) -> bool:
    """Whether R = 0. This is plain training, exactly, so no additional pass may be made."""
    # Neither constant nor even: a penalty of differences, say, is zero on a constant.
    entries = torch.arange(like[0].numel(), dtype=like.dtype, device=like.device)
    probe = (entries + 1).cos().reshape(like.shape[1:])
    return bool((penalty.value(probe.expand_as(like)) == 0).all())
