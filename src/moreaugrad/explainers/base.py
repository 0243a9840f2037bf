"""What all explainers share: Captum's contract outside, samples in groups inside."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn

from moreaugrad.curvature.products import outside_autocast
from moreaugrad.explainers import calling
from moreaugrad.explainers.explanation import ConvergenceWarning, Explanation, reported
from moreaugrad.explainers.progress import Progress, reporting
from moreaugrad.penalties import Penalty
from moreaugrad.penalties.catalogue import name_of
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import MaskLike
from moreaugrad.score.score import Inputs, Score
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Checked
from moreaugrad.solvers.solution import Solution, Status


@dataclass(frozen=True, kw_only=True, eq=False)
class Explainer(GradientAttribution, metaclass=Checked):
    """A configured method on a model. A subclass fills in `_maps`."""

    # Captum's own __init__ would assign to a frozen instance; the field stands in for it.
    forward_func: ForwardFunc = field(kw_only=False)
    """The model: a torch module, or a function of the inputs."""
    score: str = "logit"
    """The number that is explained: "logit", "log-probability", "probability", "margin" (the logit
    minus the largest other one) or "cross-entropy" (the loss: a map is positive where it rises)."""
    task: str = "auto"
    """Kind of task: "multiclass", "binary" (a single logit), "multilabel" (a sigmoid for each) or
    "regression"; "auto" is binary for one output column and multiclass for more."""
    layer: str | nn.Module | None = None
    """A module of the model, or its name: its output is explained instead of the input."""
    batch_size: int | None = None
    """Network passes done at once; None chooses from the input's size, and it is halved when memory
    runs out."""
    check: bool = True
    """Refuse a model whose output is random, keeps a state, or depends on the other samples. It
    takes two more forward passes of one sample at each call, which `evaluations` do not count."""

    method: ClassVar[str]
    """The name in the registry and on the command line."""
    full_passes: ClassVar[float] = 4
    """Passes' worth of samples worked on together: while some finish, passes stay full."""
    derivatives: ClassVar[tuple[str, ...]] = ()
    """The ways in which `vjp` goes, the first by default; () where the map has none."""

    def __new__(cls, *given: object, **settings: object) -> Self:
        calling.refuse_settings(cls, given[1:], settings)
        made: Self = super().__new__(cls)
        return made

    def __post_init__(self) -> None:
        _ = self._score  # checks its settings

    @abstractmethod
    def _maps(self, bound: BoundScore) -> Solution:
        """The maps of a group of samples."""

    def _near(self, bound: BoundScore, start: Tensor) -> Solution:
        """The maps, where those at inputs nearby are known, `start` `[B, n]`."""
        return self._maps(bound)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """J' c `[B, n]` by one of `derivatives`; `maps` are those at the bound's inputs."""
        raise TypeError(f"{self.method} has no derivative of its map")

    @property
    def multiplies_by_inputs(self) -> bool:
        """What Captum asks of a method: whether the map has the input as a factor."""
        return bool(getattr(self, "times_input", False))

    def fixed(self, draws: int) -> Self:
        """The method as one function of the input: with one set of at most `draws` draws.

        It is less accurate, and cheap enough for the many steps of an attack.
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

        inputs: `[B, ...]` or a tuple of such, explained jointly. target: Captum's forms, or None
        for the prediction at these inputs. ids: numbers >= 0 that key each sample's noise; without
        them all samples share their draws. Captum's other arguments are refused with a hint.
        mask: bool, True at real positions, False at padding, which is left out of all that is
        counted or measured, gets no noise, and is 0 in the map: of the inputs' shape, of their
        leading axes (`[B, L]` for `[B, L, D]`), or a tuple of such. With `layer` it is that of the
        layer's output. The model has to ignore padding by itself (its own attention mask).
        Errors: ValueError or TypeError for bad input, FloatingPointError for a map that is not
        finite. Warns (ConvergenceWarning) of a map short of its stated accuracy.
        """
        calling.refuse(self, further, named)
        found = self.explain(inputs, target, additional_forward_args, ids=ids, mask=mask)
        return self._trusted(found)

    def _trusted(self, explanation: Explanation) -> Inputs:
        """The maps, where they are what the method states; an error or a warning where not."""
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
        """Like `attribute`, with everything that is known about each map.

        progress: True for a bar, or a function that is called with the samples done and their
        number.
        """
        bound = self.bind(inputs, target, additional_forward_args, ids, mask)
        with reporting(progress, self.method) as report:
            return self._explained(bound, isinstance(inputs, tuple), report)

    def _explained(
        self, bound: BoundScore, several: bool, progress: Progress | None
    ) -> Explanation:
        rows = torch.arange(len(bound), device=bound.origin.device)
        size = max(1, int(self.full_passes * bound.chunks.size) // self._draws())
        groups = torch.split(rows, size)
        found = []
        for group in groups:
            part = bound if len(groups) == 1 else bound.select(group)
            if progress is not None:
                meter = self._meter(progress, int(group[0]), len(group), len(bound))
                part = replace(part, meter=meter)
            found.append(self._maps(part))
            if progress is not None:
                progress(int(group[-1]) + 1, len(bound))
        solution = reported(Solution.joined(found), bound)
        maps = bound.layout.restore(solution.values)
        explained = bound.layout.restore(bound.origin)
        real = None if bound.mask is None else bound.layout.split(bound.mask)
        several = several and bound.layer is None
        given = solution.provenance()
        given["settings"] = self.settings() | dict(solution.settings)
        return Explanation(
            maps=maps if several else maps[0],
            inputs=explained if several else explained[0],
            mask=real if several or real is None else real[0],
            target=bound.target.classes,
            prediction=bound.prediction,
            score=bound.clean,
            method=self.method,
            **given,
        )

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

        explanation: by this explainer, with these arguments and ids. Noise level, target, and an
        automatically chosen weight are held.
        through: one of `derivatives`. "implicit" is the exact derivative (through the optimality
        condition where the map solves a problem), for noise that of the `samples` draws;
        "straight-through" holds displacement and support; "unrolled" goes through steps of a
        solver; "stein" needs no second derivatives, but many draws.
        Errors: ValueError for a way that the method does not have, and for `layer`.
        """
        way = self.way(through)
        if self.layer is not None:
            raise ValueError("layer: expected a map of the input itself, got one of a layer")
        target = explanation.target
        mask = explanation.mask
        bound = self.bind(explanation.inputs, target, additional_forward_args, ids, mask)
        parts = [part.to(bound.origin.dtype) for part in explanation.parts]
        maps = Solution(values=bound.layout.flatten(parts), **explanation.provenance())
        given = cotangent if isinstance(cotangent, tuple) else (cotangent,)
        shapes = [tuple(part.shape) for part in given]
        expected = [tuple(part.shape) for part in explanation.parts]
        if shapes != expected:
            raise ValueError(f"cotangent: expected {expected}, like the maps, got {shapes}")
        flat = bound.layout.flatten([part.to(bound.origin.dtype) for part in given])
        if bound.mask is not None:
            flat = torch.where(bound.mask, flat, 0.0)
        with outside_autocast(bound) as bound:
            found = bound.layout.restore(self._pull(bound, maps, flat, way))
        return found if isinstance(explanation.maps, tuple) else found[0]

    def way(self, through: str | None = None) -> str:
        """One of `derivatives`: the one that is asked for, or the first.

        Warns where the method has an exact one, but not with these settings.
        Errors: ValueError for a way that it does not have.
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
    ) -> BoundScore:
        """The score that is explained, fixed at the clean inputs."""
        return self._score.bind(inputs, target, additional_forward_args, ids, mask)

    def settings(self) -> dict[str, Any]:
        """All settings but the model, as plain values that a TOML file can hold."""
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
        """What is explained. Its settings are checked when it is made."""
        return Score(
            self.forward_func, kind=self.score, task=self.task, layer=self.layer,
            batch_size=self.batch_size, check=self.check,
        )  # fmt: skip

    def _draws(self) -> int:
        """Passes that one sample fills at a time."""
        return 1

    def budget(self) -> int:
        """Gradient evaluations that one sample takes at most (about: it only paces progress)."""
        return self._draws()

    def _meter(
        self, progress: Progress, before: int, group: int, samples: int
    ) -> Callable[[int], None]:
        """Turns evaluations within a group of samples into progress."""
        spent = 0

        def tell(evaluations: int) -> None:
            nonlocal spent
            spent += evaluations
            progress(before + group * min(1.0, spent / (group * self.budget())), samples)

        return tell
