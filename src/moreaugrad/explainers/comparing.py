"""Methods that compare the input with baselines: how they are called."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from captum.log import log_usage
from torch import Tensor

from moreaugrad.explainers import calling
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress, reporting, timed
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import MaskLike
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import TargetLike

Baselines = float | Tensor | tuple[float | Tensor, ...] | None
"""In Captum's forms: a number, a tensor like the input or with one row, or a tuple of these."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparing(Explainer):
    """A method that compares the input with baselines, which are a setting or come with the call.

    A subclass names the setting, and implements `_compared`.
    """

    setting: ClassVar[str]

    @abstractmethod
    def _compared(self, bound: BoundScore, inputs: Inputs, given: Any) -> BoundScore:
        """With these baselines. inputs: of the model."""

    def bind(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        baselines: Baselines = None,
        *,
        chosen: Mapping[str, Tensor] | None = None,
    ) -> BoundScore:
        """Like `Explainer.bind`; `baselines` as in `attribute`."""
        bound = super().bind(inputs, target, additional_forward_args, ids, mask, chosen=chosen)
        given = getattr(self, self.setting) if baselines is None else baselines
        return self._compared(bound, inputs, given)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(  # Captum puts the baselines before the target
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *further: object,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        **named: object,
    ) -> Inputs:
        """Like `Explainer.attribute`, with `baselines` as the second argument, as in Captum.

        baselines: a number, a tensor, a tuple with one for each input, or None for the setting. The
        tensor has the shape `[B, ...]` or `[1, ...]`, and `[M, ...]` where the method draws from
        baselines. With `layer=`, a tensor is an input of the model (token ids), a number a value of
        the layer's output.
        """
        calling.refuse(self, further, named)
        explanation = self.explain(
            inputs, target, additional_forward_args, ids=ids, mask=mask, baselines=baselines
        )
        return self._trusted(explanation)

    def explain(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        progress: Progress | bool | None = None,
        baselines: Baselines = None,
    ) -> Explanation:
        """Like `attribute`, with the status, error and cost of each map."""
        began = time.perf_counter()
        bound = self.bind(inputs, target, additional_forward_args, ids, mask, baselines)
        with reporting(progress, self.method) as report:
            found = self._explained(bound, isinstance(inputs, tuple), report)
        explanation = timed(found, began)
        if baselines is None:
            return explanation
        noted = baselines if isinstance(baselines, (int, float)) else "given with the call"
        return replace(explanation, settings={**explanation.settings, self.setting: noted})
