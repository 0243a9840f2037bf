"""What a protocol makes of a batch: its perturbation, and a step of the optimiser."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from moreaugrad.settings import Documented


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation(metaclass=Documented, heading="Attributes"):
    """A perturbed batch.

    >>> found = mg.training.Fast(mg.L1(0.02)).perturb(model, x, y)
    >>> longest = float(found.norm.max())
    """

    x: Tensor
    """x + delta, `[B, ...]`, without a graph; at a layer, what is added to its output."""
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
