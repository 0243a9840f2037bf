"""Convex penalties, which make maps sparse and perturbations structured.

Each acts on a batch `[B, *shape]`, sample by sample. Two identities tie the methods together and
test every penalty: Fenchel's gap R(p) + R*(d) - <p, d> vanishes for the pairs
`(prox(u, tau), (u - prox(u, tau)) / tau)` and `(g, maximiser(g))`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.score.inputs import Layout, per_sample
from moreaugrad.settings import Documented, expect

Weight = float | Tensor
"""A number >= 0 for all samples, or one for each, `[B]`."""


class Penalty(metaclass=Documented):
    """A closed convex function R of one sample.

    Four methods are required; `magnitudes` and `prox_root` are optional and allow more.
    `u`, `g` and `d` are `[B, *shape]`; `tau` is a step, a number or `[B]`; values are `[B]`.
    """

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """R(u)."""

    @abstractmethod
    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        """argmin_v tau R(v) + ||v - u||^2 / 2."""

    @abstractmethod
    def conjugate(self, d: Tensor) -> Tensor:
        """R*(d) = max_u <u, d> - R(u); infinite outside its domain (up to rounding)."""

    @abstractmethod
    def maximiser(self, g: Tensor) -> Tensor:
        """argmax_d <g, d> - R*(d), an element of the subdifferential of R at g."""

    def magnitudes(self, u: Tensor) -> Tensor:
        """`[B, G]`: the smallest tau with which `prox(u, tau)` sets each entry (or group) to zero.

        For weighted norms of entries or groups. It allows a weight to be chosen by the sparsity
        that it gives. Errors: TypeError if the class does not define it.
        """
        raise TypeError(
            f"sparsity: expected a penalty that sets entries or groups to zero and has magnitudes "
            f"(L1, GroupL2), got {type(self).__name__}: give its weight as a number"
        )

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        """D^(1/2) v, with D the derivative of prox(., tau) at the point where it gave `result`.

        D is symmetric with 0 <= D <= 1; entries set to zero stay zero. It makes the derivatives of
        maps exact. Errors: TypeError if the class does not define it.
        """
        raise TypeError(
            f"expected a penalty whose prox has a derivative (prox_root), got {type(self).__name__}"
        )

    def margins(self, u: Tensor, tau: Weight) -> Tensor | None:
        """By how much each entry, or the norm of its group, exceeds the threshold at or below which
        `prox(u, tau)` sets it to zero, like u. It makes known how certain zeros are. None, unless
        the class defines it."""
        return None

    @property
    def sparse(self) -> bool:
        """Whether the class defines `magnitudes`; R is then a weighted norm of them."""
        return type(self).magnitudes is not Penalty.magnitudes

    @property
    def differentiable(self) -> bool:
        """Whether the class defines `prox_root`."""
        return type(self).prox_root is not Penalty.prox_root


@dataclass(frozen=True, eq=False)
class Zero(Penalty):
    """R = 0: a map without sparsity.

    >>> found = mg.Moreau(model, penalty=mg.Zero(), sigma=0).explain(x)
    """

    def value(self, u: Tensor) -> Tensor:
        return u.new_zeros(u.shape[0])

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return u

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        return v

    def conjugate(self, d: Tensor) -> Tensor:
        return indicator(d.flatten(1).abs().amax(1) <= 0, d)

    def maximiser(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g)


def prox_derivative(penalty: Penalty, u: Tensor, tau: Weight) -> Callable[[Tensor], Tensor]:
    """The function v -> D v, with D the derivative of `prox(., tau)` at u.

    It uses `prox_root`, or autograd through the prox if the penalty has none. If the prox cannot be
    differentiated, D keeps the entries that the prox does not set to zero.
    """
    if penalty.differentiable:
        result = penalty.prox(u, tau)
        return lambda v: penalty.prox_root(result, tau, penalty.prox_root(result, tau, v))
    with torch.enable_grad():
        leaf = u.detach().requires_grad_()
        try:
            result = penalty.prox(leaf, tau)
        except RuntimeError:  # e.g. "Can't call numpy() on Tensor that requires grad"
            result = penalty.prox(u, tau)
    if not result.requires_grad:
        return lambda v: torch.where(result != 0, v, 0.0)
    return lambda v: torch.autograd.grad(result, leaf, v, retain_graph=True)[0]


def check_weight(name: str, weight: Weight) -> None:
    """Errors: ValueError unless all weights are finite numbers >= 0."""
    value = weight if isinstance(weight, Tensor) else torch.tensor(weight, device="cpu")
    valid = bool(((value >= 0) & torch.isfinite(value)).all())
    expect(valid, name, "finite numbers >= 0", weight)


def check_any_batch(penalty: Penalty, u: Tensor) -> None:
    """Checks that a penalty given as a setting works for batches `[B, *shape]` of any size, like u.

    Errors: ValueError for weights that belong to the samples of one batch.
    """
    if any(isinstance(item, Tensor) for item in vars(penalty).values()):
        try:
            penalty.prox(u, 1.0)
        except RuntimeError as error:
            raise ValueError(
                f"penalty: expected weights for all samples (numbers, or tensors of a sample's "
                f"shape), got {type(penalty).__name__} with one for each sample of a batch"
            ) from error


def times(weight: Weight, values: Tensor) -> Tensor:
    """weight * values, for values `[B, ...]`."""
    return per_sample(weight, values) * values


def over(values: Tensor, weight: Weight) -> Tensor:
    """values / weight, for magnitudes. Errors: ValueError for a weight of zero."""
    if isinstance(weight, float) and weight == 1:
        return values
    divisor = per_sample(weight, values)
    expect(bool((divisor != 0).all()), "sparsity", "a penalty with a weight > 0", 0)
    return values / divisor


def within(values: Tensor, bound: Weight) -> Tensor:
    """values <= bound, up to a few rounding errors of the bound."""
    limit = per_sample(bound, values)
    return values <= limit * (1 + 8 * torch.finfo(values.dtype).eps)


def indicator(inside: Tensor, like: Tensor) -> Tensor:
    """0 for the samples `inside` `[B]`, infinite for the others."""
    return like.new_zeros(len(inside)).masked_fill(~inside, torch.inf)


@dataclass(frozen=True, eq=False)
class PerInput(Penalty):
    """One penalty for each input, on the flat `[B, n]` matrix of all: R(u) = sum_j R_j(u_j).

    It is sparse, or differentiable, if all of them are.
    """

    penalties: tuple[Penalty, ...]
    layout: Layout

    @property
    def sparse(self) -> bool:
        return all(penalty.sparse for penalty in self.penalties)

    @property
    def differentiable(self) -> bool:
        return all(penalty.differentiable for penalty in self.penalties)

    def value(self, u: Tensor) -> Tensor:
        return torch.stack([p.value(part) for p, part in self._parts(u)]).sum(0)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return self.layout.flatten([p.prox(part, tau) for p, part in self._parts(u)])

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        at = zip(self._parts(v), self.layout.split(result), strict=True)
        return self.layout.flatten([p.prox_root(there, tau, part) for (p, part), there in at])

    def conjugate(self, d: Tensor) -> Tensor:
        return torch.stack([p.conjugate(part) for p, part in self._parts(d)]).sum(0)

    def maximiser(self, g: Tensor) -> Tensor:
        return self.layout.flatten([p.maximiser(part) for p, part in self._parts(g)])

    def magnitudes(self, u: Tensor) -> Tensor:
        return torch.cat([p.magnitudes(part) for p, part in self._parts(u)], dim=1)

    def margins(self, u: Tensor, tau: Weight) -> Tensor | None:
        found = [p.margins(part, tau) for p, part in self._parts(u)]
        known = [each for each in found if each is not None]
        return self.layout.flatten(known) if len(known) == len(found) else None

    def _parts(self, flat: Tensor) -> list[tuple[Penalty, Tensor]]:
        return list(zip(self.penalties, self.layout.split(flat), strict=True))
