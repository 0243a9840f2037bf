"""The base of methods that any backward pass serves, that of the gradient or the balanced one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moreaugrad.explainers.base import Explainer
from moreaugrad.registry import choose
from moreaugrad.score.balanced import BACKWARDS, BALANCED, EXACT
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.completeness import COMPLETENESS_ERROR, completeness_error


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GradientExplainer(Explainer):
    """A method whose map is made of gradients and promises nothing that only a gradient has."""

    backward: str = EXACT
    """The backward pass: "exact" is that of the gradient; "balanced", for transformers, holds
    attention weights, the deviation of a normalisation and gates constant, see the guide to vision.
    Detail of the latter: `completeness_error`, by what fraction input times gradient, with what
    biases add, misses the score; above 0.01 (0.1 in half precisions) the status is "incomplete": a
    part of the network has no rule. It takes an evaluation more, and its map has no derivative."""

    def __post_init__(self) -> None:
        choose("backward", self.backward, BACKWARDS)
        super().__post_init__()
        if self.backward == BALANCED:
            object.__setattr__(self, "derivatives", ())

    def way(self, through: str | None = None) -> str:
        if self.backward == BALANCED:
            raise ValueError(
                f"through: {self.method} has no derivative with backward={BALANCED!r}, whose maps "
                f"are no gradient; use backward={EXACT!r}"
            )
        return super().way(through)

    def _prepared(self, bound: BoundScore) -> BoundScore:
        if self.backward == BALANCED:
            bound = replace(bound, balanced=True)
            chosen = {**bound.chosen, COMPLETENESS_ERROR: completeness_error(bound)}
            bound = replace(bound, chosen=chosen, spent=bound.spent + 1)
        return super()._prepared(bound)

    def _choices(self) -> int:
        return super()._choices() + (self.backward == BALANCED)
