"""The result of an attack: inputs, maps, and how the attack of each sample ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.score.batched import Batched
from moreaugrad.settings import Documented


class AttackStatus(Enum):
    """How the attack of a sample ended. Where it failed, `ok` is False, and its result says nothing
    about how robust the map is."""

    IMPROVED = "improved"
    HELD = "held"
    DRAWN = "drawn"
    NO_BUDGET = "no budget"
    NO_GRADIENT = "no gradient"
    FLAT_OBJECTIVE = "flat objective"
    NO_FEASIBLE_STEP = "no feasible step"
    ZERO_MAP = "zero map"
    NON_FINITE = "non-finite"

    @property
    def ok(self) -> bool:
        return not self.remedy

    @property
    def message(self) -> str:
        return _MESSAGES[self][0]

    @property
    def remedy(self) -> str:
        return _MESSAGES[self][1]


_MESSAGES = {
    AttackStatus.IMPROVED: ("found an input of the same class with a lower objective", ""),
    AttackStatus.HELD: ("no input that was tried lowers the objective; x is returned", ""),
    AttackStatus.DRAWN: ("chose a random input, without an objective", ""),
    AttackStatus.NO_BUDGET: ("the budget is 0, so x is returned", ""),
    AttackStatus.NO_GRADIENT: (
        "failed: the gradient of the objective is numerically zero, so no step was made",
        "give source= on a smooth network (for ReLU a softplus surrogate), or use random-search",
    ),
    AttackStatus.FLAT_OBJECTIVE: (
        "failed: no entry of the map changes the objective: the k largest are all that are not 0",
        "give share below 1 instead of count, or attack a map with more entries",
    ),
    AttackStatus.NO_FEASIBLE_STEP: (
        "failed: every input that was tried has another predicted class",
        "lower epsilon or step, or raise restarts: the sample is at the border of its class",
    ),
    AttackStatus.ZERO_MAP: (
        "failed: the map is zero everywhere, so it has no largest entries and no centre",
        "lower the penalty (eta or sparsity), or explain another target",
    ),
    AttackStatus.NON_FINITE: (
        "failed: the clean map or the objective's gradient is NaN or infinite",
        "see the explanation's status, or use float64",
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult(Batched, metaclass=Documented, heading="Attributes"):
    """Perturbed inputs of a batch, and the attacked explainer's maps before and after.

    >>> found = mg.attacks.TopKAttack(mg.SimpleGradient(model), epsilon=0.5, steps=2).attack(x)
    >>> before, after = found.before[0], found.after[0]
    """

    inputs: Tensor | tuple[Tensor, ...]
    """x', of the form of the inputs that were given; x itself where nothing better was found."""
    clean: Explanation
    """The attacked explainer's maps at x."""
    attacked: Explanation
    """Its maps at x', of the class that was explained at x."""
    status: tuple[AttackStatus, ...]
    """How the attack of each sample ended."""
    distance: Tensor
    """||x' - x|| in the norm and units of the budget, `[B]`."""
    feasible: Tensor
    """Whether x' has the prediction of x, `[B]`."""
    before: Tensor
    """The objective of `clean`, `[B]`, which the attack minimises; NaN without one."""
    after: Tensor
    """The objective of `attacked`, `[B]`; NaN without one."""
    objective: Tensor
    """The objective at the start of the best run and at each of its steps, as the search evaluated
    them, `[B, columns]`; NaN where not evaluated or not feasible."""
    evaluations: Tensor
    """Forward and input-backward passes of each sample, `[B]`; for a derivative that needs a
    solver, the mean over the samples of a group."""
    attack: str
    """Name of the attack."""
    settings: Mapping[str, Any]
    """Its settings."""

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, index: int) -> AttackResult:
        """The result of one sample, still with a batch dimension."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}")
        return self.select(torch.tensor([index % len(self)]))

    @property
    def ok(self) -> bool:
        """No attack failed."""
        return all(status.ok for status in self.status)

    def problems(self) -> list[str]:
        """A line for each sample whose attack failed, with the reason and a remedy."""
        return [
            f"sample {i}: {status.message}; {status.remedy}"
            for i, status in enumerate(self.status)
            if not status.ok
        ]
