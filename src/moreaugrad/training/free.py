"""Several updates of the weights on each batch, with a perturbation that needs no further pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.score.checks import detached
from moreaugrad.score.inputs import per_sample
from moreaugrad.settings import expect
from moreaugrad.training.adversaries import ConditionalGradient, ProjectedMaximiser, Update
from moreaugrad.training.inner import InnerProblem
from moreaugrad.training.protocol import PenaltyProtocol, Round, vanishes


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
