"""Protocols that perturb a batch and then take a step there: fast, iterative, momentum, free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty
from moreaugrad.registry import choose
from moreaugrad.score.checks import detached
from moreaugrad.score.inputs import per_sample
from moreaugrad.settings import expect
from moreaugrad.training.harmonisation import LENGTH_FLOOR
from moreaugrad.training.inner import InnerProblem
from moreaugrad.training.penalty import Adversary, PenaltyProtocol, vanishes
from moreaugrad.training.places import TRAIN
from moreaugrad.training.protocol import Protocol
from moreaugrad.training.rounds import Round
from moreaugrad.training.updates import (
    ConditionalGradient,
    NormalisedAscent,
    ProjectedGradient,
    ProjectedMaximiser,
    Update,
)

MAXIMISER, ZERO, RANDOM = "maximiser", "zero", "random"
STARTS = (MAXIMISER, ZERO, RANDOM)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fast(Adversary):
    """delta = argmax_d <g, d> - h(d), g the gradient of the sample's loss at x.

    >>> x_adv = mg.training.Fast(mg.ElasticNet(0.01, 0.05))(model, x, y)

    With `L1` this is the fast gradient sign. Source: AdvGrad appendix B.3.
    """

    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        g = problem.gradient(problem.zero())
        return penalty.maximiser(g), g


def one_step(protocol: Protocol) -> Fast | None:
    """The perturbation of the protocol's penalty, in the protocol's budget; None without one."""
    if not isinstance(protocol, PenaltyProtocol):
        return None
    return Fast(
        protocol.penalty, units=protocol.units, space=protocol.space, box=protocol.box,
        layer=protocol.layer, seed=protocol.seed,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Iterative(Adversary):
    """`steps` times delta <- update(delta, g), g the gradient of the sample's loss at x + delta.

    >>> x_adv = mg.training.Iterative(mg.L1(0.02), steps=3)(model, x, y)

    With a box, delta is clipped to it after each update, as in projected gradient descent.

    Source: AdvGrad appendix B.4.
    """

    steps: int = 7
    """Updates of delta."""
    step: float = 0.3
    """Length of an update, in the unit of `update`: for `ConditionalGradient`, the fraction of the
    way to the maximiser."""
    update: Update = field(default_factory=ConditionalGradient)
    """How delta moves: `ConditionalGradient`, `ProjectedMaximiser`, `ProjectedGradient` or
    `NormalisedAscent`."""
    start: str = MAXIMISER
    """Where delta starts: "maximiser", the one-step answer (which needs one more gradient); "zero";
    or "random", a feasible point (for norms; with L1 uniform in the box)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = isinstance(self.steps, int) and self.steps >= 1
        expect(known, "steps", "an integer >= 1", self.steps)
        expect(0 < self.step < float("inf"), "step", "a finite number > 0", self.step)
        fits = self.step <= 1 or not isinstance(self.update, ConditionalGradient)
        expect(fits, "step", "a fraction in (0, 1] for a conditional gradient", self.step)
        choose("start", self.start, STARTS)
        norm = isinstance(self.penalty, Penalty) and self.penalty.sparse
        if self.start == RANDOM and not norm:
            raise ValueError(
                "start: 'random' takes a point in the ball of a norm's penalty (L1, GroupL2); "
                f"{type(self.penalty).__name__} has none"
            )

    @classmethod
    def published(cls, penalty: L1 | GroupL2 | ElasticNet, **settings: Any) -> Iterative:
        """The update of the released code: 7 steps from zero, in the mode that the model is in.

        L1: 0.3 epsilon sign(g), clipped. Groups: g / ||g||_2, projected. Elastic net: 0.3 u /
        ||u||_2 with u the gradient of loss - h, so that ||delta||_2 <= 2.1 whatever its weights.
        The paper's text has step=0.3 and start="maximiser" for all of them. settings: replace any.
        """
        update: Update
        if isinstance(penalty, L1):
            step, update = 0.3, ProjectedMaximiser()
        elif isinstance(penalty, GroupL2):
            step, update = 1.0, ProjectedGradient()
        elif isinstance(penalty, ElasticNet):
            step, update = 0.3, NormalisedAscent()
        else:
            raise ValueError(
                f"published: expected L1, GroupL2 or ElasticNet, got {type(penalty).__name__}, "
                "for which no update was published"
            )
        found = cls(penalty, step=step, update=update, start=ZERO, inner=TRAIN)
        return replace(found, **settings)

    @classmethod
    def random_fast(cls, penalty: Penalty, **settings: Any) -> Iterative:
        """One step of 1.25 maximisers from a random point. Source: Wong, Rice and Kolter (2020)."""
        update = ProjectedMaximiser()
        found = cls(penalty, steps=1, step=1.25, update=update, start=RANDOM, inner=TRAIN)
        return replace(found, **settings)

    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        delta = problem.zero()
        if self.start == MAXIMISER:
            delta = problem.inside(penalty.maximiser(problem.gradient(delta)))
        elif self.start == RANDOM:
            normal = self._normal(problem)
            # erf(z / sqrt(2)) is uniform in (-1, 1); shrinking entries keeps a ball's point inside.
            delta = problem.inside(penalty.maximiser(normal) * torch.erf(normal / 2**0.5).abs())
        for _ in range(self.steps):
            g = problem.gradient(delta)
            delta = problem.inside(self.update(penalty, delta, g, self.step))
        return delta, g


@dataclass(frozen=True, kw_only=True, eq=False)
class Momentum(Adversary):
    """From zero, v <- decay v + g / ||g||_1 and delta <- delta + maximiser(v) / steps.

    >>> x_adv = mg.training.Momentum(mg.L1(0.02), steps=3)(model, x, y)

    The mean of feasible points is feasible, so delta is not projected, except to a box after each
    step; with `L1` this is MI-FGSM with steps of epsilon / steps. The maximiser is given v scaled
    to the gradient's ||g||_1, which only matters for penalties with a scale (elastic net, squares).

    Source: Dong et al. (2018), algorithm 1.
    """

    steps: int = 10
    """Steps on the inner problem."""
    decay: float = 1.0
    """Factor by which the last v is multiplied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = isinstance(self.steps, int) and self.steps >= 1
        expect(known, "steps", "an integer >= 1", self.steps)
        expect(0 <= self.decay < float("inf"), "decay", "a finite number >= 0", self.decay)

    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        delta = problem.zero()
        velocity = torch.zeros_like(delta)
        for _ in range(self.steps):
            g = problem.gradient(delta)
            size = _absolute(g)
            velocity = self.decay * velocity + g / size
            step = penalty.maximiser(velocity * (size / _absolute(velocity))) / self.steps
            delta = problem.inside(delta + step)
        return delta, g


def _absolute(g: Tensor) -> Tensor:
    """||g||_1 as a divisor, `[B, 1, ...]`."""
    return per_sample(g.flatten(1).abs().sum(1).clamp_min(LENGTH_FLOOR), g)


@dataclass(frozen=True, kw_only=True, eq=False)
class Free(PenaltyProtocol):
    """Each batch `replays` times: one backward pass gives the gradients of weights and delta.

    >>> for r in mg.training.Free(mg.L1(0.02), replays=2).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser

    delta starts at zero and is kept between rounds and batches. Divide the epochs by `replays`.
    Any reduction or scale of the losses may be differentiated. delta does not change for samples
    whose weight in the loss is zero, or whose gradient is not finite (a step that a gradient scaler
    skips). There are no inner passes, so `inner` has no effect.

    Source: Shafahi et al. (2019).
    """

    replays: int = 4
    """Updates of the weights on each batch."""
    step: float = 1.0
    """Length of an update, in the unit of `update`: for `ConditionalGradient`, the fraction of the
    way to the maximiser."""
    update: Update | None = None
    """How delta moves. None: for norms the projected maximiser (with L1: delta + epsilon sign(g),
    clipped); for other penalties the conditional gradient, which at step 1 is the one-step answer
    to the last gradient."""
    memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    """The perturbation that is kept between batches, by position; empty before the first batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = isinstance(self.replays, int) and self.replays >= 1
        expect(known, "replays", "an integer >= 1", self.replays)
        expect(0 < self.step < float("inf"), "step", "a finite number > 0", self.step)

    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        penalty, delta, g = self._penalty(problem), problem.zero(), None
        plain = vanishes(penalty, delta)
        if not plain:
            delta = self._kept(delta)
        for _ in range(self.replays):
            leaf = problem.at(delta).requires_grad_(not plain)
            values, weights = problem.values(leaf), list[Tensor]()
            if not plain and values.requires_grad:
                # The weight of each sample's loss in what the caller differentiates.
                values.register_hook(weights.append)  # type: ignore[no-untyped-call]
            last = delta if plain else g
            found = self._perturbation(problem, penalty, delta, last, leaf.detach())
            yield Round.at(found, values)
            # The caller's autocast encloses all rounds and would keep the weights of the first.
            torch.clear_autocast_cache()
            if not plain:
                delta, g = self._moved(problem, penalty, delta, leaf, weights)
                self._keep(delta)
        if g is not None and self._due:
            self._check(problem, self._perturbation(problem, penalty, delta, g))
        self.tally.calls += 1

    def _kept(self, like: Tensor) -> Tensor:
        """The memory; zero where there is none yet, or where the inputs' shape changed."""
        found, kept = torch.zeros_like(like), self.memory.get("delta", like[:0])
        if kept.shape[1:] == like.shape[1:]:
            rows = min(len(like), len(kept))
            found[:rows] = kept[:rows].to(like)
        return found

    def _keep(self, delta: Tensor) -> None:
        old = self.memory.get("delta", delta)
        if old.shape[1:] == delta.shape[1:] and len(old) > len(delta):
            delta = torch.cat([delta, old[len(delta) :].to(delta)])
        self.memory["delta"] = delta

    def _moved(
        self,
        problem: InnerProblem,
        penalty: Penalty,
        delta: Tensor,
        leaf: Tensor,
        weights: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """delta after the caller's backward pass, and the gradient that moved it."""
        if not weights:
            raise RuntimeError(
                "Free: expected the round's loss to be differentiated before the next round: "
                "call r.loss.mean().backward() inside the loop"
            )
        if leaf.grad is None:
            raise detached()
        gradient = leaf.grad.to(delta.dtype)
        total = torch.stack([weight.detach() for weight in weights]).sum(0)
        slope = problem.slope(gradient / per_sample(total, gradient))
        valid = torch.isfinite(torch.linalg.vector_norm(slope.flatten(1), torch.inf, dim=1))
        keep = valid.reshape(-1, *[1] * (delta.ndim - 1))
        every = bool(valid.all())
        g = slope if every else torch.where(keep, slope, 0.0)
        default = ProjectedMaximiser() if penalty.sparse else ConditionalGradient()
        # Clipped at once: otherwise delta would grow without bound outside the box.
        moved = problem.inside((self.update or default)(penalty, delta, g, self.step))
        return moved if every else torch.where(keep, moved, delta), g

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {name: kept.clone() for name, kept in self.memory.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.memory.clear()
        self.memory.update({name: state[name] for name in ("delta",) if name in state})
