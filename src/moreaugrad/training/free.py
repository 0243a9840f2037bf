"""Several updates of the weights for each batch, with a perturbation that costs no pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.score.checks import detached
from moreaugrad.score.inputs import per_sample
from moreaugrad.training.harmonisation import resolve
from moreaugrad.training.inner import InnerProblem, Model, Neighbourhood, loss_values
from moreaugrad.training.losses import PerSampleLoss, cross_entropy
from moreaugrad.training.protocol import PenaltyProtocol, Round, vanishes
from moreaugrad.training.updates import ConditionalGradient, ProjectedMaximiser, Update


@dataclass(eq=False)
class Weights:
    """Weight of each sample's loss in what was differentiated: dTotal / dloss `[B]`."""

    total: Tensor | None = None

    def add(self, grad: Tensor) -> None:
        """A hook on the losses."""
        found = grad.detach()
        self.total = found if self.total is None else self.total + found


@dataclass(eq=False)
class Memory:
    """The perturbation that is carried from batch to batch, by position; None before the first."""

    delta: Tensor | None = None

    def read(self, like: Tensor) -> Tensor:
        """That of this batch; zero where none was made yet, or where inputs change their shape."""
        found = torch.zeros_like(like)
        if self.delta is not None and self.delta.shape[1:] == like.shape[1:]:
            rows = min(len(like), len(self.delta))
            found[:rows] = self.delta[:rows].to(like)
        return found

    def write(self, delta: Tensor) -> None:
        old = self.delta
        if old is not None and old.shape[1:] == delta.shape[1:] and len(old) > len(delta):
            delta = torch.cat([delta, old[len(delta) :].to(delta)])
        self.delta = delta


@dataclass(frozen=True, kw_only=True, eq=False)
class Free(PenaltyProtocol):
    """Each batch `replays` times: one backward pass gives the weights' gradient and delta's.

    >>> for r in mg.training.Free(mg.L1(0.02), replays=2).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser

    delta is carried over rounds and batches, and starts at zero. Divide the epochs by `replays`.
    Any reduction or scale of the losses may be differentiated; where a sample's weight in it is
    zero or its gradient is not finite (a step that a gradient scaler skips), its delta stays. There
    are no inner passes, so `inner` has no effect.

    Source: Shafahi et al. (2019).
    """

    replays: int = 4
    """Updates of the weights on each batch."""
    step: float = 1.0
    """Length of an update, in the unit of `update`: for `ConditionalGradient`, the fraction of the
    way to the maximiser."""
    update: Update | None = None
    """How delta moves; None is the projected maximiser for norms (with L1: delta + epsilon sign(g),
    clipped), else the conditional gradient, which at step 1 is the last gradient's one-step
    answer."""
    memory: Memory = field(default_factory=Memory, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.replays, int) or self.replays < 1:
            raise ValueError(f"replays: expected an integer >= 1, got {self.replays!r}")
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step: expected a finite number > 0, got {self.step!r}")

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
        penalty = resolve(self.penalty, attention, near.x)
        delta, g = near.zero(), None
        still = vanishes(penalty, delta)
        if not still:
            delta = self.memory.read(delta)
        for _ in range(self.replays):
            leaf = near.at(delta).requires_grad_(not still)
            values = loss_values(model, leaf, y, loss)
            weights = Weights()
            if not still and values.requires_grad:
                values.register_hook(weights.add)  # type: ignore[no-untyped-call]
            told = self._told(penalty, near, leaf.detach(), delta, delta if still else g)
            yield Round(loss=values, x=told.x, h=told.h, norm=told.norm, gap=told.gap)
            # The caller's autocast encloses all rounds and would go on with weights of the first.
            torch.clear_autocast_cache()
            if still:
                continue
            delta, g = self._moved(penalty, near, delta, leaf, weights)
            self.memory.write(delta)
        self._close(InnerProblem(model=model, y=y, loss=loss, near=near), penalty, delta, g)

    def _close(
        self, problem: InnerProblem, penalty: Penalty, delta: Tensor, g: Tensor | None
    ) -> None:
        """Ends a batch, g None where it was not perturbed."""
        if g is not None and self._due:
            near = problem.near
            self._check(problem, self._told(penalty, near, near.at(delta), delta, g))
        self.tally.calls += 1

    def _moved(
        self, penalty: Penalty, near: Neighbourhood, delta: Tensor, leaf: Tensor, weights: Weights
    ) -> tuple[Tensor, Tensor]:
        """delta after the caller's backward pass, and the gradient that moved it."""
        if weights.total is None:
            raise RuntimeError(
                "Free: expected the round's loss to be differentiated before the next round: "
                "call r.loss.mean().backward() inside the loop"
            )
        if leaf.grad is None:
            raise detached()
        gradient = leaf.grad.to(delta.dtype)
        slope = near.slope(gradient / per_sample(weights.total, gradient))
        valid = torch.isfinite(torch.linalg.vector_norm(slope.flatten(1), torch.inf, dim=1))
        keep = valid.reshape(-1, *[1] * (delta.ndim - 1))
        every = bool(valid.all())
        g = slope if every else torch.where(keep, slope, 0.0)
        update = self.update
        if update is None:
            norm = penalty.sparse
            update = ProjectedMaximiser() if norm else ConditionalGradient()
        # Cut, or delta would run away behind the box.
        moved = near.inside(update(penalty, delta, g, self.step))
        return moved if every else torch.where(keep, moved, delta), g

    def state_dict(self) -> dict[str, Tensor]:
        carried = self.memory.delta
        return super().state_dict() | ({} if carried is None else {"delta": carried.clone()})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.memory.delta = state.get("delta")
