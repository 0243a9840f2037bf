"""The base class of all methods: Captum's interface, samples computed in groups."""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn

from moreaugrad.explainers import calling
from moreaugrad.explainers.anytime import Frame, Stages, staged
from moreaugrad.explainers.calling import Progress, metered, reporting, timed
from moreaugrad.explainers.explanation import (
    EXPLAINED,
    ConvergenceWarning,
    Explanation,
    reported,
)
from moreaugrad.penalties import Penalty
from moreaugrad.penalties.catalogue import name_of
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import MaskLike
from moreaugrad.score.score import Inputs, Score
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented, expect
from moreaugrad.solvers.solution import Solution, Status


@dataclass(frozen=True, kw_only=True, eq=False)
class Explainer(GradientAttribution, metaclass=Documented, checked=True):
    """A method with its settings, on a model. A subclass implements `_maps`."""

    # Instead of Captum's own __init__, which would assign to a frozen instance.
    forward_func: ForwardFunc = field(kw_only=False)
    """The model: a torch module, or a function of the inputs."""
    score: str = "logit"
    """The number that is explained: "logit", "log-probability", "probability", "margin" (the logit
    minus the largest other one), "cross-entropy" (the loss; a map is positive where the input
    raises it), or "against:3", the logit minus that of class 3."""
    task: str = "auto"
    """Kind of task: "multiclass", "binary" (a single logit), "multilabel" (a sigmoid for each) or
    "regression"; "auto" is binary for one output column and multiclass for more."""
    layer: str | nn.Module | None = None
    """A module of the model, or its name, whose output is explained instead of the input."""
    batch_size: int | None = None
    """Network passes computed at once; None chooses by the input's size. It is halved when memory
    runs out."""
    check: bool = True
    """Refuse a model whose output is random, depends on earlier calls, or depends on the other
    samples. The check takes two more forward passes of one sample in each call, which `evaluations`
    do not count."""

    method: ClassVar[str]
    """The name in the registry and on the command line."""
    full_passes: ClassVar[float] = 4
    """Size of a group of samples, in network passes: more than 1 keeps passes full while samples
    finish."""
    derivatives: ClassVar[tuple[str, ...]] = ()
    """The derivatives that `vjp` offers, the first by default; () if there is none."""

    def __new__(cls, *given: object, **settings: object) -> Self:
        calling.refuse_settings(cls, given[1:], settings)
        made: Self = super().__new__(cls)
        return made

    def __post_init__(self) -> None:
        _ = self._score  # checks its settings

    @abstractmethod
    def _maps(self, bound: BoundScore) -> Solution:
        """The maps of a group of samples, `[B, n]`."""

    def _near(self, bound: BoundScore, start: Tensor) -> Solution:
        """The maps, computed from `start` `[B, n]`, the maps at inputs nearby."""
        return self._maps(bound)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """J' c `[B, n]` by one of `derivatives`; `maps` are the maps at the bound's inputs."""
        raise TypeError(f"{self.method} has no derivative of its map")

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the map has the input as a factor, which Captum asks of every method."""
        return bool(getattr(self, "times_input", False))

    def fixed(self, draws: int) -> Self:
        """The method with one fixed set of at most `draws` noise samples, for attacks.

        Its map is one function of the input, less accurate, and cheap enough for many steps.
        """
        return self

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *further: object,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        **named: object,
    ) -> Inputs:
        """Signed maps like `inputs`: a tensor for a tensor, a tuple for a tuple.

        inputs: `[B, ...]` or a tuple of such, explained jointly. target: in Captum's forms, or None
        for the class predicted at these inputs; or a function of the model's output, with a number
        for each sample (see `moreaugrad.targets`). ids: numbers >= 0 that key each sample's noise;
        without them all samples share their noise. Captum's other arguments are refused with a
        hint. mask: bool, True at real positions and False at padding, with the inputs' shape or
        their leading axes (`[B, L]` for `[B, L, D]`), or a tuple of such; with `layer`, of the
        layer's output. Padding is not counted or measured, gets no noise, and is 0 in the map. The
        model must ignore it by itself (its own attention mask).
        Errors: ValueError or TypeError for bad input, FloatingPointError for a map that is not
        finite. Warns (ConvergenceWarning) of a map that did not reach its stated accuracy.
        """
        calling.refuse(self, further, named)
        found = self.explain(inputs, target, additional_forward_args, ids=ids, mask=mask)
        return self._trusted(found)

    def _trusted(self, explanation: Explanation) -> Inputs:
        """The maps; raises an error or issues a warning for those short of the stated accuracy."""
        broken = [i for i, s in enumerate(explanation.status) if s is Status.NON_FINITE]
        if broken:
            raise FloatingPointError(
                f"{self.method}: the gradient is NaN or infinite for sample(s) {broken}; "
                f"{Status.NON_FINITE.remedy}"
            )
        if not explanation.ok:
            lines = "\n".join(explanation.problems()[:5])
            warnings.warn(f"{self.method}: {lines}", ConvergenceWarning, stacklevel=4)
        return explanation.maps

    def explain(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        progress: Progress | bool | None = None,
    ) -> Explanation:
        """Like `attribute`, with the status, error and cost of each map.

        progress: True for a bar, or a function of (samples done, number of samples).
        """
        began = time.perf_counter()
        bound = self.bind(inputs, target, additional_forward_args, ids, mask)
        with reporting(progress, self.method) as report:
            found = timed(self._explained(bound, isinstance(inputs, tuple), report), began)
        EXPLAINED[found] = self.forward_func
        return found

    def frames(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        meter: Callable[[int], None] | None = None,
    ) -> Iterator[Frame]:
        """`explain` of one sample while it is computed: what it is so far, and at last itself.

        A method that averages over noise has a first map after 16 evaluations and then better ones
        at growing intervals; others have the last one alone. To stop, leave the loop.
        meter: called with the evaluations of each network pass after it; an error that it raises
        ends the computation.
        Errors: as of `explain`, and ValueError for several samples.
        """
        bound = replace(self.bind(inputs, target, additional_forward_args, ids, mask), meter=meter)
        expect(len(bound) == 1, "inputs", "one sample, whose map is shown in frames", len(bound))
        several = isinstance(inputs, tuple)
        for found, gradient, done in staged(self._stages(bound), bound.origin.device):
            explanation = self._explanation(reported(found, bound), bound, several)
            yield Frame.of(explanation, gradient, bound.layout, done)

    def _stages(self, bound: BoundScore) -> Stages:
        """The maps of a sample while they are computed, and at last those of `_maps`."""
        return self._maps(bound), None
        yield

    def _explained(
        self, bound: BoundScore, several: bool, progress: Progress | None
    ) -> Explanation:
        size = max(1, int(self.full_passes * bound.chunks.size) // self._draws())
        groups = torch.split(bound.rows, size)
        found = []
        for group in groups:
            part = bound if len(groups) == 1 else bound.select(group)
            if progress is not None:
                place = int(group[0]), len(group), len(bound)
                costs = (len(group) * cost for cost in (self.budget(), self.expected()))
                part = replace(part, meter=metered(progress, *place, *costs))
            with outside_autocast(bound.origin.device):
                found.append(self._maps(part))
            if progress is not None:
                progress(int(group[-1]) + 1, len(bound))
        return self._explanation(reported(Solution.joined(found), bound), bound, several)

    def _explanation(self, solution: Solution, bound: BoundScore, several: bool) -> Explanation:
        several = several and bound.layer is None
        settings = self.settings() | dict(solution.settings)
        return Explanation.of(replace(solution, settings=settings), bound, several, self.method)

    def vjp(
        self,
        explanation: Explanation,
        cotangent: Inputs,
        additional_forward_args: object = None,
        *,
        through: str | None = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Inputs:
        """J' c, J the derivative of the map by the input and c a `cotangent` like the maps.

        explanation: of this explainer, with these arguments and ids. The noise level, the target
        and an automatically chosen weight are constant.
        through: one of `derivatives`. "implicit" is exact (through the optimality condition if the
        map solves a problem; with noise, for the `samples` noise samples); "straight-through" holds
        displacement and support fixed; "unrolled" differentiates steps of a solver; "stein" needs
        no second derivatives, but many noise samples.
        Errors: ValueError for a derivative that the method does not have, and for `layer`.
        """
        way = self.way(through)
        if self.layer is not None:
            raise ValueError("layer: expected a map of the input itself, got one of a layer")
        for name in ("baseline", "baselines"):
            own, used = self.settings().get(name), explanation.settings.get(name)
            expect(used == own, "baselines", f"a map from the setting {name}={own}", used)
        bound = self.bind(
            explanation.inputs, explanation.given, additional_forward_args, ids, explanation.mask
        )
        parts = [part.to(bound.origin.dtype) for part in explanation.parts]
        maps = Solution(values=bound.layout.flatten(parts), **explanation.provenance())
        given = cotangent if isinstance(cotangent, tuple) else (cotangent,)
        shapes = [tuple(part.shape) for part in given]
        expected = [tuple(part.shape) for part in explanation.parts]
        expect(shapes == expected, "cotangent", f"{expected}, like the maps", shapes)
        flat = bound.layout.flatten([part.to(bound.origin.dtype) for part in given])
        if bound.mask is not None:
            flat = torch.where(bound.mask, flat, 0.0)
        with outside_autocast(bound.origin.device):
            found = bound.layout.restore(self._pull(bound, maps, flat, way))
        return found if isinstance(explanation.maps, tuple) else found[0]

    def way(self, through: str | None = None) -> str:
        """The derivative to use: `through`, or the first of `derivatives`.

        Warns if the method has an exact derivative, but not with these settings.
        Errors: ValueError for one that the method does not have.
        """
        found = through or next(iter(self.derivatives), "")
        if found not in self.derivatives:
            raise ValueError(
                f"through: expected one of {', '.join(self.derivatives) or 'none'}, which "
                f"{self.method} has, got {through!r}"
            )
        if through is None and found != type(self).derivatives[0]:
            warnings.warn(
                f"{self.method}: its map is differentiated by {found!r}, because the penalty "
                f"has no prox_root, which the exact derivative needs",
                stacklevel=3,
            )
        return found

    def bind(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        *,
        chosen: Mapping[str, Tensor] | None = None,
    ) -> BoundScore:
        """The score that is explained, bound to the clean inputs.

        chosen: automatic settings of each sample, `[B]` each, where they are known.
        """
        bound = self._score.bind(inputs, target, additional_forward_args, ids, mask)
        return self._prepared(replace(bound, chosen=chosen or {}))

    def _prepared(self, bound: BoundScore) -> BoundScore:
        """With the settings that are chosen for each sample at the clean input, where none are."""
        return bound

    def settings(self) -> dict[str, Any]:
        """All settings except the model, as plain values for a TOML file."""
        found = {item.name: getattr(self, item.name) for item in fields(self)[1:] if item.init}
        return {name: self._plain(value) for name, value in found.items() if value is not None}

    def _plain(self, value: object) -> object:
        if isinstance(value, Penalty):
            return {"name": name_of(value)} | {
                name: self._plain(each) for name, each in vars(value).items() if each is not None
            }
        if isinstance(value, nn.Module) and isinstance(self.forward_func, nn.Module):
            names = {module: name for name, module in self.forward_func.named_modules()}
            return names.get(value, type(value).__name__)
        return value.tolist() if isinstance(value, Tensor) else value

    def __repr__(self) -> str:
        plain = self.settings()
        penalties = {name: own for name in plain if isinstance(own := getattr(self, name), Penalty)}
        inside = "".join(f", {name}={value!r}" for name, value in (plain | penalties).items())
        return f"{type(self).__name__}({type(self.forward_func).__name__}{inside})"

    @cached_property
    def _score(self) -> Score:
        """The score that is explained; making it checks its settings."""
        return Score(
            self.forward_func, kind=self.score, task=self.task, layer=self.layer,
            batch_size=self.batch_size, check=self.check, **self._smoothing(),
        )  # fmt: skip

    def _smoothing(self) -> dict[str, Any]:
        """The noise over which the score is averaged, as arguments of `Score`."""
        return {}

    def _draws(self) -> int:
        """Network passes of one sample at a time."""
        return 1

    def budget(self) -> int:
        """About the most evaluations of one sample."""
        return self.map_budget() + self._choices()

    def expected(self) -> int:
        """About the evaluations that one sample usually takes, by which progress is reported."""
        return self.budget()

    def map_budget(self) -> int:
        """Those of the map, without those that choose its settings."""
        return self._draws()

    def _choices(self) -> int:
        """Evaluations of one sample that automatic settings take."""
        return 0
