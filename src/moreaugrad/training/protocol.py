"""What all protocols share: how one batch of training is perturbed, and what is told about it."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.registry import choose
from moreaugrad.score.noise import Noise, sample_keys
from moreaugrad.score.pixels import INPUT, UNITS, InputSpace
from moreaugrad.settings import Documented
from moreaugrad.training.harmonisation import GuidedPenalty, resolve
from moreaugrad.training.inner import (
    EVAL,
    MODES,
    InnerProblem,
    Model,
    Neighbourhood,
    in_mode,
    loss_values,
)
from moreaugrad.training.losses import PerSampleLoss, cross_entropy

CHECK_EVERY = 100
CHECK_FROM = 10
"""Calls between two looks at whether perturbations raise loss - h (a hundredth of the cost), and
before the first, when untrained weights say little."""


class OvershootWarning(UserWarning):
    """Perturbations are too long for the curvature of the loss: loss - h falls with them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One step of the optimiser: reduce `loss` `[B]`, differentiate, step.

    x: the input it was taken at, `[B, ...]`, without a graph. Of each sample's perturbation delta,
    `[B]` and in the budget's units: h(delta), its Euclidean `norm`, and Fenchel's
    `gap` R(g) + h(delta) - <g, delta> for the last gradient g that was taken: 0 where delta is the
    one-step answer to g. NaN where a protocol has no such number.
    """

    loss: Tensor
    x: Tensor
    h: Tensor
    norm: Tensor
    gap: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation:
    """x + delta, and h, norm and gap as of a `Round`. delta is in the budget's units."""

    x: Tensor
    delta: Tensor
    h: Tensor
    norm: Tensor
    gap: Tensor


@dataclass(eq=False)
class Tally:
    """What a protocol remembers: its calls (which key its draws); for how many samples it has
    checked whether the perturbation raises loss - h, for how many it does not (overshot), and
    whether that was told."""

    calls: int = 0
    checked: int = 0
    overshot: int = 0
    told: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Protocol(metaclass=Documented):
    """How one batch of training is perturbed.

    >>> for r in protocol.rounds(model, x, y):
    ...     optimiser.zero_grad()
    ...     r.loss.mean().backward()
    ...     optimiser.step()
    """

    units: str = INPUT
    """Units of weights and lengths: "input" (what the network takes) or "pixel" (before its
    normalisation, which `space` declares)."""
    space: InputSpace | None = None
    """An `InputSpace`: how inputs are made of pixels."""
    box: bool = False
    """Keep perturbed inputs within the valid pixels of `space`."""
    seed: int = 0
    """Random seed of the draws, which are a function of (seed, id, number of the call)."""
    tally: Tally = field(default_factory=Tally, init=False, repr=False)

    def __post_init__(self) -> None:
        choose("units", self.units, UNITS)
        Noise(self.seed)
        if self.space is None and (self.units != INPUT or self.box):
            raise ValueError("units and box: pixels need space=, which tells how inputs are made")

    @abstractmethod
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
        """The steps on one batch; the model is called as it stands, in the caller's autocast.

        loss: one value for each sample, `[B]`. attention: `[B, 1, H, W]` in [0, 1], for penalties
        that follow it. ids: numbers of the samples in the data set, which key their draws
        (default: their positions in the batch).
        Errors: ValueError or TypeError for bad input.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed training needs besides the settings."""
        return {name: torch.tensor(value) for name, value in asdict(self.tally).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in asdict(self.tally):
            setattr(self.tally, name, state[name].item())

    def _near(self, x: Tensor) -> Neighbourhood:
        return Neighbourhood.of(x, self.units, self.space, self.box)

    def _normal(self, near: Neighbourhood, ids: Sequence[int] | Tensor | None) -> Tensor:
        """Standard normal draws of this call, like x."""
        like = near.zero().flatten(1)
        keys = sample_keys(range(len(like)) if ids is None else ids, len(like))
        noise = Noise(self.seed, antithetic=False)
        drawn = noise.normals(keys, self.tally.calls, like).expand(len(like), -1)
        return drawn.reshape(near.x.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyProtocol(Protocol):
    """A protocol with a penalty R on the gradient, whose conjugate h weighs the perturbation."""

    penalty: Penalty | GuidedPenalty = field(kw_only=False)
    """R: a `Penalty`, or a `GuidedPenalty`, which is another one for each image."""
    inner: str = EVAL
    """Mode of the passes that find the perturbation: "eval", or "train" (the model's own;
    statistics of batch normalisation then move with these passes as well)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.penalty, (Penalty, GuidedPenalty)):
            raise TypeError(
                f"penalty: expected one such as L1(0.02), got {type(self.penalty).__name__}"
            )
        choose("inner", self.inner, MODES)

    def _told(
        self, penalty: Penalty, near: Neighbourhood, x: Tensor, delta: Tensor, g: Tensor | None
    ) -> Perturbation:
        """The perturbation to x = near.at(delta), cut by the box as x is."""
        delta = near.inside(delta)
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
        """Counts samples whose loss - h is lower than without a perturbation, both in evaluation
        mode whatever the inner passes' is: only there the two passes are of one function."""
        with in_mode(problem.model, EVAL):
            before = problem.value(problem.near.zero())
            after = problem.value(found.delta) - found.h
        # Not a number counts: the perturbation has run away.
        lower = ~(after >= before - 1e-6 * (1 + before.abs()))
        found_low = int(lower.sum())
        self.tally.checked += len(lower)
        self.tally.overshot += found_low
        if 2 * found_low > len(lower) and not self.tally.told:
            self.tally.told = True
            warnings.warn(
                f"{type(self).__name__}: loss - h falls with the perturbation for {found_low} of "
                f"{len(lower)} samples, so it is too long for the curvature of the loss: take "
                "smaller weights in the penalty, or more steps",
                OvershootWarning,
                stacklevel=4,
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Adversary(PenaltyProtocol):
    """One that perturbs the input and then takes one step there: `x_adv = adversary(model, x, y)`.

    A subclass fills in `_search`.
    """

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        """The perturbed batch, like x and without a graph. Arguments: see `rounds`."""
        return self.perturb(model, x, y, loss=loss, attention=attention, ids=ids).x

    def perturb(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Perturbation:
        """The perturbed batch with its perturbation. Arguments: see `rounds`."""
        near = self._near(x)
        penalty = resolve(self.penalty, attention, near.x)
        start = near.zero()
        if vanishes(penalty, start):
            self.tally.calls += 1
            return self._told(penalty, near, near.at(start), start, start)
        problem = InnerProblem(model=model, y=y, loss=loss, near=near)
        with in_mode(model, self.inner):
            delta, g = self._search(problem, penalty, ids)
        found = self._told(penalty, near, near.at(delta), delta, g)
        if self._due:
            self._check(problem, found)
        self.tally.calls += 1
        return found

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
        found = self.perturb(model, x, y, loss=loss, attention=attention, ids=ids)
        values = loss_values(model, found.x, y, loss)
        yield Round(loss=values, x=found.x, h=found.h, norm=found.norm, gap=found.gap)

    @abstractmethod
    def _search(
        self, problem: InnerProblem, penalty: Penalty, ids: Sequence[int] | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """delta, and the last gradient that was taken."""


def vanishes(penalty: Penalty, like: Tensor) -> bool:
    """Whether R = 0, which is plain training, exactly: no pass may then be spent on it."""
    # Neither constant nor even: a penalty of differences, say, is zero on a constant.
    entries = torch.arange(like[0].numel(), dtype=like.dtype, device=like.device)
    probe = (entries + 1).cos().reshape(like.shape[1:])
    return bool((penalty.value(probe.expand_as(like)) == 0).all())
