"""The base classes of training protocols: how one batch is perturbed, and what is reported."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.registry import choose
from moreaugrad.score.inputs import INPUT, UNITS, InputSpace
from moreaugrad.score.noise import Noise, sample_keys
from moreaugrad.settings import Documented
from moreaugrad.training.harmonisation import GuidedPenalty
from moreaugrad.training.inner import (
    EVAL,
    MODES,
    InnerProblem,
    Model,
    PerSampleLoss,
    cross_entropy,
    in_mode,
)

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
class Perturbation(metaclass=Documented, heading="Attributes"):
    """A perturbed batch.

    >>> found = mg.training.Fast(mg.L1(0.02)).perturb(model, x, y)
    >>> longest = float(found.norm.max())
    """

    x: Tensor
    """x + delta, `[B, ...]`, without a graph."""
    delta: Tensor
    """The perturbation in the units of the budget, `[B, ...]`."""
    h: Tensor
    """h(delta), `[B]`; NaN without a penalty."""
    norm: Tensor
    """||delta||_2, `[B]`."""
    gap: Tensor
    """Fenchel's gap R(g) + h(delta) - <g, delta> for the last gradient g, `[B]`: 0 where delta is
    the one-step answer to g; NaN where there is no g."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Round(Perturbation):
    """One step of the optimiser: reduce `loss`, differentiate it, step.

    >>> for r in mg.training.Fast(mg.L1(0.02)).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser
    """

    loss: Tensor
    """The loss of each sample at x + delta, `[B]`, with its graph."""

    @classmethod
    def at(cls, found: Perturbation, loss: Tensor) -> Round:
        """The step at a perturbed batch."""
        return cls(loss=loss, **vars(found))


@dataclass(eq=False)
class _Tally:
    """The state of a protocol. calls: batches so far, which key the noise. checked, overshot:
    samples for which loss - h was compared with and without the perturbation, and those for which
    the perturbation lowered it. warned: whether the warning was issued."""

    calls: int = 0
    checked: int = 0
    overshot: int = 0
    warned: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Protocol(metaclass=Documented):
    """How one batch of training is perturbed. A subclass implements `_rounds`.

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
    """Random seed of the noise, which is a function of (seed, id, number of the call)."""
    tally: _Tally = field(default_factory=_Tally, init=False, repr=False)

    def __post_init__(self) -> None:
        choose("units", self.units, UNITS)
        Noise(self.seed)
        if self.space is None and (self.units != INPUT or self.box):
            raise ValueError(
                "units and box: pixels need space=, which says how inputs are made of them"
            )

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
        """The steps on one batch. The model is called as it is, in the caller's autocast.

        x: `[B, ...]`. y: labels. loss: a function of (output, y) with one value for each sample,
        `[B]`. attention: `[B, 1, H, W]` in [0, 1], for penalties that need it. ids: numbers of the
        samples in the data set, which key their noise (default: their positions in the batch).
        Errors: ValueError or TypeError for bad input.
        """
        return self._rounds(self._problem(model, x, y, loss, attention, ids))

    @abstractmethod
    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        """The steps on the batch of `problem`."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed training needs in addition to the settings."""
        return {name: torch.tensor(value) for name, value in asdict(self.tally).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""
        for name in asdict(self.tally):
            setattr(self.tally, name, state[name].item())

    def _problem(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        loss: PerSampleLoss,
        attention: Tensor | None,
        ids: Sequence[int] | Tensor | None,
    ) -> InnerProblem:
        found = InnerProblem(model=model, x=x, y=y, loss=loss, attention=attention, ids=ids)
        return found.within(self.units, self.space, self.box)

    def _normal(self, problem: InnerProblem) -> Tensor:
        """Standard normal noise of this call, of the shape of x."""
        like, ids = problem.zero().flatten(1), problem.ids
        keys = sample_keys(range(len(like)) if ids is None else ids, len(like))
        noise = Noise(self.seed, antithetic=False)
        drawn = noise.normals(keys, self.tally.calls, like).expand(len(like), -1)
        return drawn.reshape(problem.x.shape)


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
        # NaN counts as lower: the perturbation has diverged.
        lower = int((~(after >= before - 1e-6 * (1 + before.abs()))).sum())
        self.tally.checked += len(before)
        self.tally.overshot += lower
        if 2 * lower > len(before) and not self.tally.warned:
            self.tally.warned = True
            warnings.warn(
                f"{type(self).__name__}: loss - h falls with the perturbation for {lower} of "
                f"{len(before)} samples, so the perturbation is too long for the curvature of the "
                "loss: use smaller weights in the penalty, or more steps",
                OvershootWarning,
                stacklevel=4,
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Adversary(PenaltyProtocol):
    """A protocol that takes one step at a perturbed input, `x_adv = adversary(model, x, y)`.

    A subclass implements `_search`.
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
        return self._perturbed(self._problem(model, x, y, loss, attention, ids))

    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        found = self._perturbed(problem)
        yield Round.at(found, problem.values(found.x))

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
